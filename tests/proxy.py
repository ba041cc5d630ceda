"""A door to a local server that can be shut, opened again, and shut upon so many bytes sent."""

import contextlib
import socket
import threading

from tests.servers import free_port


class Proxy:
    """Forwards connections to ``target``, a port of this machine, for as long as it is open."""

    def __init__(self, target: int) -> None:
        self.target, self.port = target, free_port()
        self.stalled = threading.Event()
        """Set when a connection has sent ``stall_after`` bytes and is left hanging there."""
        self.stall_after: int | None = None
        self._listener: socket.socket | None = None
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()

    def __enter__(self) -> "Proxy":
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    def up(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(64)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def down(self) -> None:
        """Refuse new connections and cut those that there are."""
        with self._lock:
            sockets, self._open = self._open, []
            if self._listener:
                sockets.append(self._listener)
                self._listener = None
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                with contextlib.suppress(OSError):
                    server = socket.create_connection(("127.0.0.1", self.target))
                    with self._lock:
                        self._open += [client, server]
                    for pair in ((client, server), (server, client)):
                        is_up = pair[0] is client
                        threading.Thread(
                            target=self._pump, args=(*pair, is_up), daemon=True
                        ).start()

    def _pump(self, source: socket.socket, sink: socket.socket, is_up: bool) -> None:
        sent = 0
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sent += len(data)
                if is_up and self.stall_after is not None and sent > self.stall_after:
                    self.stalled.set()
                    return  # what came stays here, and the sender waits for its answer
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
