"""Types of the options of scripts, as argparse calls them: text -> value."""

from argparse import ArgumentTypeError


def count(text: str) -> int:
    """Read how many there are, one or more."""
    return _whole_number(text, 1)


def sites(text: str) -> list[int]:
    """Read the ids of sites, such as 0,1."""
    return [_whole_number(part, 0) for part in text.split(",")]


def client(text: str) -> int:
    """Read the number of a client."""
    return _whole_number(text, 0)


def _whole_number(text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise ArgumentTypeError(f"must be a whole number from {least} on, got {text}")
    return int(text)
