"""Which numbers of a sender have been taken in: exactly, however late one of them comes.

A message may wait for days while thousands behind it are carried out, so that a window of some width would refuse it.
What is kept is the highest number and the gaps below it, which are as many as messages that still wait, or never come.
"""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from symbi.errors import StoreUnavailable

MAX_OPEN_GAPS: Final = 4096
"""How many gaps are remembered of one flow in memory; likewise."""

MAX_GAPS: Final = 65_536
"""How many gaps are kept; beyond that the oldest counts as taken in, so that what is kept of a sender is bounded."""

MAX_NUMBER: Final = 2**64

_MORE: Final = 0x80
_SEVEN: Final = 0x7F


@dataclass(frozen=True, slots=True)
class Seen:
    """What has been taken in.

    Attributes:
        highest: The highest number; numbers begin at 1.
        gaps: First and last numbers of what was not, below the highest, in order and apart.
    """

    highest: int = 0
    gaps: tuple[tuple[int, int], ...] = ()

    def with_one(self, number: int) -> "Seen | None":
        """The same and one more; None where that has been taken in before."""
        if number > self.highest:
            gap = ((self.highest + 1, number - 1),) if number > self.highest + 1 else ()
            return Seen(number, (*self.gaps, *gap)[-MAX_GAPS:])
        place = bisect_right(self.gaps, (number, MAX_NUMBER)) - 1
        if place < 0 or self.gaps[place][1] < number:
            return None
        first, last = self.gaps[place]
        left = ((first, number - 1),) if first < number else ()
        right = ((number + 1, last),) if number < last else ()
        return Seen(self.highest, (*self.gaps[:place], *left, *right, *self.gaps[place + 1 :])[-MAX_GAPS:])

    def to_bytes(self) -> bytes:
        """The gaps as they are kept: distances between their bounds, each in as few bytes as it takes."""
        bounds = [0, *(bound for gap in self.gaps for bound in gap)]
        out = bytearray()
        for before, bound in pairwise(bounds):
            distance = bound - before
            while distance > _SEVEN:
                out.append(distance & _SEVEN | _MORE)
                distance >>= 7
            out.append(distance)
        return bytes(out)

    @classmethod
    def from_bytes(cls, highest: int, kept: bytes) -> "Seen":
        """What `to_bytes` wrote.

        Raises:
            StoreUnavailable: It is not of that form.
        """
        bounds: list[int] = []
        at, distance, shift = 0, 0, 0
        for byte in kept:
            distance |= (byte & _SEVEN) << shift
            shift += 7
            if not byte & _MORE:
                at += distance
                bounds.append(at)
                distance, shift = 0, 0
        gaps = tuple(zip(bounds[::2], bounds[1::2], strict=False))
        whole = not shift and len(bounds) % 2 == 0
        apart = all(last + 1 < first for (_, last), (first, _) in pairwise(gaps))
        if not whole or not apart or any(first > last for first, last in gaps) or (gaps and gaps[-1][1] >= highest):
            msg = "the store holds what was taken in of a sender in a form that was not written by it"
            raise StoreUnavailable(msg, code="unavailable.store_damaged")
        return cls(highest, gaps)


class Arrivals:
    """Likewise in memory, of what one reader opens: each number is taken once, however late it comes.

    Readers of one flow open what waits for them each in its own time, so that a window of some width would refuse what
    waits behind a slow one as come before.
    """

    __slots__ = ("_gaps", "_highest", "_most")

    def __init__(self, most: int = MAX_OPEN_GAPS) -> None:
        self._highest = 0
        self._gaps: list[tuple[int, int]] = []  # first and last numbers, in order and apart
        self._most = most

    def admit(self, numbers: Iterable[int]) -> list[bool]:
        """For each number, in order, whether it comes for the first time; then it has come."""
        taken = []
        highest = self._highest
        for number in numbers:
            if number > highest:
                if number > highest + 1:
                    self._gaps.append((highest + 1, number - 1))
                    if len(self._gaps) > self._most:
                        del self._gaps[0]
                highest = number
                taken.append(True)
            else:
                taken.append(self._late(number))
        self._highest = highest
        return taken

    def _late(self, number: int) -> bool:
        place = bisect_right(self._gaps, (number, MAX_NUMBER)) - 1
        if place < 0 or self._gaps[place][1] < number:
            return False
        first, last = self._gaps[place]
        self._gaps[place : place + 1] = [
            part for part in ((first, number - 1), (number + 1, last)) if part[0] <= part[1]
        ]
        if len(self._gaps) > self._most:
            del self._gaps[0]
        return True
