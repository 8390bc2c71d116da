"""A clock that moves only when a test moves it."""


class ManualClock:
    """A `symbi.clock.Clock` under the test's control.

    Args:
        start_ns: Wall time to begin with, in nanoseconds since the epoch.
    """

    def __init__(self, start_ns: int = 1_767_225_600_000_000_000) -> None:
        self._now_ns = start_ns
        self._monotonic_s = 0.0

    def now_ns(self) -> int:
        """The wall time that was set last."""
        return self._now_ns

    def monotonic_s(self) -> float:
        """Seconds advanced so far."""
        return self._monotonic_s

    def advance(self, seconds: float) -> None:
        """Move both clocks on."""
        self._now_ns += round(seconds * 1e9)
        self._monotonic_s += seconds

    def set_ns(self, now_ns: int) -> None:
        """Step the wall clock, back or forth; the monotonic clock stays."""
        self._now_ns = now_ns
