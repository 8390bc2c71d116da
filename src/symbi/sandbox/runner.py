"""The command that a container runs: our first process, whose texts (`symbi.sandbox.inside`) are its arguments.

Nothing is mounted and nothing is in the image for it, but Python.
"""

from functools import cache
from importlib.resources import files
from typing import Final

PACKAGE: Final = "symbi.sandbox.inside"
MODULES: Final = ("main", "frames", "look", "process", "code", "command", "lines")
"""In the boot's hands; each loads what it needs."""
MAX_ARGUMENT_BYTES: Final = 131_071  # of one argument of a command, by Linux


def runner_command(python: str) -> list[str]:
    """What the container runs.

    Args:
        python: Its interpreter, 3.8 or newer.
    """
    return [python, "-I", "-B", "-c", *_texts()]


@cache
def _texts() -> tuple[str, ...]:
    folder = files(PACKAGE)
    pairs = [(f"{PACKAGE}.{name}", (folder / f"{name}.py").read_text(encoding="utf-8")) for name in MODULES]
    return ((folder / "boot.py").read_text(encoding="utf-8"), *(part for pair in pairs for part in pair))
