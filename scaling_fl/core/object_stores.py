"""Object stores by fsspec: whoever opens one in this process gets answers in bounded time.

With the defaults of the libraries, a store that accepts a connection and never answers is waited
for up to half an hour, and a failure is logged with its traceback.
"""

import logging
from typing import Any

from scaling_fl.core.waiting import ANSWER_SECONDS, CONNECT_SECONDS

ATTEMPTS = 2


def limit_object_store(url: str) -> None:
    """Set the limits for the kind of store of an address, as defaults of fsspec."""
    scheme = url.partition("://")[0]
    if scheme in ("s3", "s3a"):
        import s3fs  # late, because most commands need no object store

        s3fs.S3FileSystem.retries = ATTEMPTS
        limits: dict[str, Any] = {
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": ANSWER_SECONDS,
            "retries": {"max_attempts": ATTEMPTS - 1},
        }
        _set_defaults(("s3", "s3a"), config_kwargs=limits)
    elif scheme in ("gs", "gcs"):
        import aiohttp

        # A StorageError or a DataError already says it in a sentence.
        logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_SECONDS, sock_read=ANSWER_SECONDS
        )
        session = {"timeout": timeout}
        _set_defaults(("gs", "gcs"), requests_timeout=timeout, session_kwargs=session)


def _set_defaults(schemes: tuple[str, ...], **options: Any) -> None:
    from fsspec.config import conf

    for scheme in schemes:
        conf[scheme] = options | conf.get(scheme, {})  # what the user's own settings say, stays
