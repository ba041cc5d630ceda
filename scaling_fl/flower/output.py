"""What a run prints, without what Flower and Ray add for themselves."""

import re

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_LEVEL = re.compile(r"(DEBUG|INFO|WARNING|ERROR|CRITICAL)\s*:(\s|$)")
_CHATTER = re.compile(
    r"Using SuperLink: |Successfully installed \S+ to |For more information, visit: <https://flower"
    r"|An unhandled exception occurred when running "
    r"|/\S+/site-packages/\S+\.py:\d+: \w*Warning: |  warnings\.warn\($"
    r"|Failed to load CPU gemm_4bit_forward "
)
_CLIENT = re.compile(r"\((?:ClientAppActor|\w+) pid=\d+(?:, ip=[\d.]+)?\) ")
_REPEATED = re.compile(r" \[repeated \d+x across cluster\]")


class Filter:
    """Takes the lines of a run one by one, and leaves out those that help nobody."""

    def __init__(self) -> None:
        self._is_blank = True  # several blank lines in a row, and those at the beginning, go

    def __call__(self, line: str) -> str | None:
        """Return a line as it is to be shown, without its end; None to leave it out."""
        text = _COLOUR.sub("", line.rstrip())
        if not text:
            return self._blank()
        is_of_client = _CLIENT.match(text)
        if is_of_client:
            text = text[is_of_client.end() :]
        if is_of_client and _REPEATED.search(text):
            return None  # Ray brings a line again that was shown already
        if _LEVEL.match(text) or _CHATTER.match(text):
            return None
        self._is_blank = False
        return text if is_of_client else line.rstrip()

    def _blank(self) -> str | None:
        was_blank, self._is_blank = self._is_blank, True
        return None if was_blank else ""
