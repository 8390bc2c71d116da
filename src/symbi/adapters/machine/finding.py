"""What one look at the machine gave."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact.

    Attributes:
        name: What was looked at.
        ok: It is there and works.
        detail: What was found, one line.
        install_hint: What to do to have it; empty where nothing is missing.
        required: The runtime cannot do without it.
    """

    name: str
    ok: bool
    detail: str
    install_hint: str = ""
    required: bool = False


def named(error: BaseException) -> str:
    """An error as one line."""
    text = (error.strerror if isinstance(error, OSError) and error.strerror else str(error)) or type(error).__name__
    return printable(text)


def printable(text: str) -> str:
    """A text on one line of a terminal, bounded."""
    return "".join(char if char.isprintable() else "?" for char in text)[:200]
