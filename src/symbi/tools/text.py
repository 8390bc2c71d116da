"""Text from outside, made fit to stand in a message or on a terminal."""

from typing import Final

MAX_NAME_CHARS: Final = 193  # of a name from outside that a message quotes: `server.tool`, each as long as it may be
MAX_ERROR_CHARS: Final = 2_000  # of a tool's or a server's own words in an error


def cut(text: str, limit: int) -> str:
    """The text, or its beginning and an ellipsis."""
    return text if len(text) <= limit else text[:limit] + "…"


def printable(text: str) -> str:
    """The text with control characters as U+FFFD and tabs and line feeds as spaces, so that it cannot steer a terminal."""
    return "".join(c if c.isprintable() else " " if c in "\t\n" else "\ufffd" for c in text)


def shown_name(name: str) -> str:
    """A name from outside: cut, and printable."""
    return cut(printable(name), MAX_NAME_CHARS)
