"""The only door to time and randomness: `Clock` and `IdSource`.

Ids are UUIDv7 (RFC 9562, section 5.7): 48 bits of Unix milliseconds, then 74 random bits of which the first
12 count within a millisecond (method 1 of section 6.2), so that ids of one source sort in the order of their making.
"""

import os
import struct
import threading
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, Protocol

_COUNTER_BITS: Final = 12
_COUNTER_MAX: Final = (1 << _COUNTER_BITS) - 1
_RANDOM_BITS: Final = (1 << 62) - 1
_VARIANT: Final = 0b10 << 62  # RFC 9562, section 4.1
_VERSION: Final = 7 << _COUNTER_BITS
_FRACTION_LENGTH: Final = 10  # nine digits and the Z


class Clock(Protocol):
    """Tells time. The manual clock for tests is `symbi.testing.ManualClock`."""

    def now_ns(self) -> int:
        """Nanoseconds since the Unix epoch (wall time; may step)."""

    def monotonic_s(self) -> float:
        """Seconds on a clock that never goes back; only differences mean anything."""


class SystemClock:
    """The machine's clocks."""

    def now_ns(self) -> int:
        """Nanoseconds since the Unix epoch."""
        return time.time_ns()

    def monotonic_s(self) -> float:
        """Seconds on the machine's monotonic clock."""
        return time.monotonic()


class IdSource:
    """Makes UUIDv7 strings that sort by time of making, also within a millisecond and when the clock steps back.

    Args:
        clock: Where the milliseconds come from.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._last_ms = 0
        self._counter = 0

    def new(self) -> str:
        """A new id in canonical text form (36 characters)."""
        return self.several(1)[0]

    def several(self, count: int) -> list[str]:
        """New ids in order, as so many calls of `new` within one reading of the clock would make them, in less time."""
        # As `uuid.UUID` writes it, which takes three times as long; every event of the trail has one.
        return [
            f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
            for digits in map(bytes.hex, self.several_packed(count))
        ]

    def several_packed(self, count: int) -> list[bytes]:
        """Likewise, each in 16 bytes."""
        random = int.from_bytes(os.urandom(8 * count)) & int.from_bytes(_RANDOM_BITS.to_bytes(8) * count)
        tails = (random | int.from_bytes(_VARIANT.to_bytes(8) * count)).to_bytes(8 * count)
        with self._lock:
            heads = self._heads(count)
        packed = struct.pack(f">{count}Q", *heads)
        return [packed[at : at + 8] + tails[at : at + 8] for at in range(0, 8 * count, 8)]

    def _heads(self, count: int) -> list[int]:
        """The first 64 bits of so many ids: milliseconds, version, counter."""
        ms = self._clock.now_ns() // 1_000_000
        if ms > self._last_ms:
            self._last_ms, self._counter = ms, -1
        heads: list[int] = []
        while len(heads) < count:
            if self._counter == _COUNTER_MAX:
                self._last_ms, self._counter = self._last_ms + 1, -1
            first = (self._last_ms << 16 | _VERSION) + self._counter + 1
            taken = min(count - len(heads), _COUNTER_MAX - self._counter)
            heads += range(first, first + taken)
            self._counter += taken
        return heads


def rfc3339(ns: int) -> str:
    """Nanoseconds since the epoch as RFC 3339 in UTC with nine decimals, e.g. `2026-01-02T03:04:05.000000006Z`."""
    seconds, rest = divmod(ns, 1_000_000_000)
    return f"{_whole(seconds)}.{rest:09d}Z"


@lru_cache(16)  # most calls are for the second of the call before
def _whole(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


def parse_rfc3339(text: str) -> int:
    """Nanoseconds since the epoch of what `rfc3339` wrote; inverse of it.

    Raises:
        ValueError: The text is not of that form.
    """
    whole, dot, rest = text.partition(".")
    if (
        not dot
        or len(rest) != _FRACTION_LENGTH
        or not rest.endswith("Z")
        or not rest[:-1].isascii()
        or not rest[:-1].isdigit()
    ):
        msg = f"not an RFC 3339 time with nine decimals in UTC: `{text}`"
        raise ValueError(msg)
    seconds = datetime.strptime(whole, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    return round(seconds.timestamp()) * 1_000_000_000 + int(rest[:-1])


def thread_cpu_ns() -> int:
    """Processor time that this thread has used, in nanoseconds; only differences mean anything."""
    return time.thread_time_ns()


def random_bytes(count: int) -> bytes:
    """Bytes from the operating system's random generator."""
    return os.urandom(count)
