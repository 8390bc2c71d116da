"""A standard error that nobody may read: what is said there is taken at once, and written by a thread of its own.

A process that stays must not be held up by a pipe that is full, nor ended by one that is closed. What is not read in
time is dropped, and told of once there is room.
"""

import io
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TextIO

MAX_CHARS: Final = 1_048_576  # that wait to be written; what is more is dropped
LAST_WORDS_S: Final = 2.0  # how long the end waits for what was said to be read


class PatientStream(io.TextIOBase):
    """Text that is written to another stream by a thread of its own.

    Args:
        stream: The other stream.
        most_chars: How much may wait.
    """

    def __init__(self, stream: TextIO, most_chars: int = MAX_CHARS) -> None:
        super().__init__()
        self._stream = stream
        self._most_chars = most_chars
        self._parts: list[str] = []
        self._chars = 0
        self._dropped = 0
        self._ending = False
        self._changed = threading.Condition()
        try:
            self._descriptor: int | None = stream.fileno()
        except OSError:
            self._descriptor = None  # a stream in memory, which never waits
        self._thread = threading.Thread(target=self._run, name="symbi-stderr", daemon=True)
        self._thread.start()

    @property
    def encoding(self) -> str:  # type: ignore[override] # the base class has a mutable attribute
        """That of the other stream."""
        return self._stream.encoding or "utf-8"

    def isatty(self) -> bool:
        """Whether a person may be looking."""
        return self._stream.isatty()

    def writable(self) -> bool:
        """It can always be written to."""
        return True

    def write(self, text: str) -> int:
        """Take some text; never waits for a reader."""
        with self._changed:
            if self._chars + len(text) > self._most_chars:
                self._dropped += 1
            else:
                self._parts.append(text)
                self._chars += len(text)
            self._changed.notify()
        return len(text)

    def end(self, timeout_s: float) -> bool:
        """Take nothing more that is written; returns whether all of it was, within some time."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._parts or self._dropped or self._ending)
                text, dropped = "".join(self._parts), self._dropped
                self._parts, self._chars, self._dropped = [], 0, 0
                ending = self._ending
            if dropped:
                text += f"(nobody read this in time: {dropped} messages are left out)\n"
            with suppress(OSError, ValueError):  # closed or broken: nobody is left to tell
                self._write(text)
            if ending and not self._parts:
                return

    def _write(self, text: str) -> None:
        if self._descriptor is None:
            self._stream.write(text)
            return
        # Not through the stream, whose lock would be held over the end of the process.
        left = memoryview(text.encode(self.encoding, "backslashreplace"))
        while left:
            left = left[os.write(self._descriptor, left) :]


@contextmanager
def patient_stderr() -> Iterator[None]:
    """In here standard error never holds anybody up; at the end, what was said there has a moment to be read."""
    stream = sys.stderr
    patient = PatientStream(stream)
    sys.stderr = patient
    try:
        yield
    finally:
        read = patient.end(LAST_WORDS_S)
        # Where it was not read, what is still to be said would wait for ever.
        sys.stderr = stream if read else Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - to the end
