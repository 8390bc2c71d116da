"""A share of something that flows: how much may be used in a while, and what was used beyond it. Pure."""

from typing import Final

WINDOW_S: Final = 10.0  # of its share, an agent may use as much at once as comes in this time


class Share:
    """What an agent claimed of something that comes evenly, such as processor time: it is saved for a while, and no longer.

    Args:
        rate: How much comes each second.
        now_s: The time, on a clock that never goes back.
        window_s: For how long it is saved.
    """

    __slots__ = ("_left", "_now_s", "_rate", "_window_s")

    def __init__(self, rate: float, now_s: float, window_s: float = WINDOW_S) -> None:
        self._rate = rate
        self._window_s = window_s
        self._now_s = now_s
        self._left = rate * window_s

    @property
    def rate(self) -> float:
        """How much comes each second."""
        return self._rate

    def use(self, amount: float) -> None:
        """Use some of it, be there as much left or not."""
        self._left -= amount

    def over(self, now_s: float) -> float:
        """How much more was used than there was; nothing or less while there is some left."""
        passed_s, self._now_s = max(0.0, now_s - self._now_s), max(now_s, self._now_s)
        self._left = min(self._left + passed_s * self._rate, self._rate * self._window_s)
        return -self._left

    def wait_s(self, now_s: float) -> float:
        """In how many seconds there is some left; 0 where there is."""
        return max(0.0, self.over(now_s)) / self._rate

    def forgive(self, now_s: float) -> None:
        """Begin anew."""
        self._now_s = max(now_s, self._now_s)
        self._left = self._rate * self._window_s
