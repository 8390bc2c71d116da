"""A program that is told of held actions. It gets no arguments, and decides nothing."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import anyio

from symbi.crypto.canonical import canonical_json
from symbi.errors import Unavailable
from symbi.types import JsonValue

PASSED_ON: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TZ")
"""Variables that the program gets; whatever else the environment holds is not its business."""


class CommandNotice:
    """Runs a program with the facts on its standard input.

    Args:
        command: Program and arguments, without a shell.
        folder: Its working folder.
        timeout_s: How long it may take; then it is killed.
        environ: Where the variables of `PASSED_ON` come from.
    """

    def __init__(
        self, command: Sequence[str], folder: Path, *, timeout_s: float, environ: Mapping[str, str] | None = None
    ) -> None:
        self._command = tuple(command)
        self._folder = folder
        self._timeout_s = timeout_s
        given = os.environ if environ is None else environ
        self._environ = {name: given[name] for name in PASSED_ON if name in given}

    async def __call__(self, facts: Mapping[str, JsonValue]) -> None:
        """Tell it.

        Raises:
            Unavailable: It cannot be started, failed, or took too long.
        """
        try:
            with anyio.fail_after(self._timeout_s):
                done = await anyio.run_process(
                    self._command,
                    input=canonical_json(facts) + b"\n",
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    check=False,
                    cwd=self._folder,
                    env=self._environ,
                    start_new_session=True,
                )
        except TimeoutError:
            raise _failed(f"`{self._command[0]}` took longer than {self._timeout_s:g} s") from None
        except OSError as error:
            raise _failed(f"`{self._command[0]}` cannot be started: {error.strerror or error}") from error
        if done.returncode != 0:
            raise _failed(f"`{self._command[0]}` ended with exit code {done.returncode}")


def _failed(message: str) -> Unavailable:
    return Unavailable(message, code="unavailable.notice")
