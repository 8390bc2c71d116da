"""A driver that runs a program again and again, each time in a fork: as apart as processes are, and imported once."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import anyio

ENDS_S: Final = 60.0  # for a driver whose input has ended


def in_forks(main: Callable[..., Coroutine[Any, Any, int]]) -> None:
    """Run a coroutine function for each line of standard input, a JSON list of words, in a fork; write how each ended."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            sys.exit(anyio.run(main, *json.loads(line)))
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        sys.stdout.flush()


class Forks:
    """A script whose `__main__` is `in_forks`, at work from the first call on.

    Args:
        script: The file.
        complaints: Where what it and its forks write to standard error goes.
        arguments: Of the script.
    """

    def __init__(self, script: Path, complaints: Path, *arguments: str) -> None:
        self._command = [sys.executable, str(script), *arguments]
        self._complaints = complaints
        self._driver: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        """Nothing is started before it is needed."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the driver, which its input's end does."""
        if self._driver is not None:
            self._driver.communicate(timeout=ENDS_S)

    def run(self, *words: str | int) -> int:
        """One fork, to its end.

        Returns:
            Its exit code, or the signal that ended it, below zero.
        """
        if self._driver is None:
            with self._complaints.open("w", encoding="utf-8") as complaints:
                self._driver = subprocess.Popen(  # noqa: S603 - a script of ours, run by this interpreter
                    self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints, text=True
                )
        driver = self._driver
        assert driver.stdin is not None
        assert driver.stdout is not None
        driver.stdin.write(json.dumps(words) + "\n")
        driver.stdin.flush()
        return int(driver.stdout.readline())

    @property
    def complaints(self) -> str:
        """What was written to standard error so far."""
        return self._complaints.read_text("utf-8", "replace")
