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
_TRACEBACK = "Traceback (most recent call last):"
_SENTENCE = re.compile(r"scaling_fl\.[\w.]+: ")
"""An exception that says what its user has to know, in place of where it was raised."""


class Filter:
    """Takes the lines of a run one by one, and leaves out those that help nobody."""

    def __init__(self) -> None:
        self._is_blank = True  # several blank lines in a row, and those at the beginning, go
        self._traceback: list[str] = []

    def __call__(self, line: str) -> str | None:
        """Return what is to be shown once a line has come, without its end; None for nothing."""
        text = _COLOUR.sub("", line.rstrip())
        if is_of_client := _CLIENT.match(text):
            return self._of_client(text[is_of_client.end() :])
        if self._traceback or text == _TRACEBACK:
            return self._of_traceback(text)
        if not text:
            return self._blank()
        return None if _is_chatter(text) else self._kept(line.rstrip())

    def _of_client(self, text: str) -> str | None:
        # Ray brings lines again that were shown already.
        is_left_out = not text or _is_chatter(text) or _REPEATED.search(text)
        return None if is_left_out else self._kept(text)

    def _of_traceback(self, text: str) -> str | None:
        """Keep a traceback back until its last line says whether it helps anybody."""
        self._traceback.append(text)
        if text == _TRACEBACK or not text or text.startswith(" "):
            return None
        lines, self._traceback = self._traceback, []
        return None if _SENTENCE.match(text) else self._kept("\n".join(lines))

    def _kept(self, text: str) -> str:
        self._is_blank = False
        return text

    def _blank(self) -> str | None:
        was_blank, self._is_blank = self._is_blank, True
        return None if was_blank else ""


def _is_chatter(text: str) -> bool:
    return bool(_LEVEL.match(text) or _CHATTER.match(text))
