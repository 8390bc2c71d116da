"""Which sequences of one flow have come: a window behind the highest one (as RFC 4303, section 3.4.3). Pure."""

from collections.abc import Iterable
from typing import Final

DEFAULT_WIDTH: Final = 1024  # how far behind the highest a message may come and still be taken

_HIGHEST_BYTES: Final = 8


class Window:
    """The sequences that have come: each is taken once, and none that is too far behind.

    Args:
        width: How many sequences are remembered, the highest included; a multiple of 8.
        highest: Everything up to this counts as come.
    """

    __slots__ = ("_highest", "_mask", "_seen", "_width")

    def __init__(self, width: int = DEFAULT_WIDTH, *, highest: int = 0) -> None:
        if width <= 0 or width % 8:
            msg = f"the width of a window is a multiple of 8, not {width}"
            raise ValueError(msg)
        self._width = width
        self._mask = (1 << width) - 1
        self._highest = highest
        self._seen = self._mask  # bit n: `highest - n` has come; before the first one nothing can

    @property
    def highest(self) -> int:
        """The highest sequence that has come; 0 before any."""
        return self._highest

    def admit(self, sequences: Iterable[int]) -> list[bool]:
        """For each sequence, in order, whether it comes for the first time; then it has come."""
        taken = []
        highest, seen, mask, width = self._highest, self._seen, self._mask, self._width
        for sequence in sequences:
            ahead = sequence - highest
            if ahead > 0:
                seen = (seen << ahead | 1) & mask if ahead < width else 1
                highest = sequence
                taken.append(True)
            elif ahead <= -width or seen >> -ahead & 1:
                taken.append(False)
            else:
                seen |= 1 << -ahead
                taken.append(True)
        self._highest, self._seen = highest, seen
        return taken

    def to_bytes(self) -> bytes:
        """The state: the highest sequence in 8 bytes, then a bit for each of the window, that of the highest last."""
        return self._highest.to_bytes(_HIGHEST_BYTES) + self._seen.to_bytes(self._width // 8)

    @classmethod
    def from_bytes(cls, state: bytes, *, taken_through: int = 0) -> "Window":
        """The window that `to_bytes` wrote.

        Args:
            state: What it wrote.
            taken_through: Where messages may have come after the state was written: everything up to this counts as
                come. Write it ahead of what is taken, and no crash lets a message come twice.

        Raises:
            ValueError: The bytes are no state.
        """
        if len(state) <= _HIGHEST_BYTES:
            msg = f"the state of a window has more than {_HIGHEST_BYTES} bytes, not {len(state)}"
            raise ValueError(msg)
        window = cls((len(state) - _HIGHEST_BYTES) * 8, highest=int.from_bytes(state[:_HIGHEST_BYTES]))
        behind = window._highest - taken_through
        if behind > 0:
            before = window._mask >> behind << behind if behind < window._width else 0
            window._seen = int.from_bytes(state[_HIGHEST_BYTES:]) | before
        else:
            window._highest = taken_through
        return window
