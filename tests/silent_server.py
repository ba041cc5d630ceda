"""A server that accepts connections and never answers, as one behind a broken firewall."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def silent_server() -> Iterator[str]:
    """Give the address of a server to which everybody can connect and which says nothing."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)  # the kernel completes the connections that nobody takes
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
