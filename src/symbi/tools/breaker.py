"""A circuit breaker: who fails too often is left alone for a while, then tried by one call at a time.

```
            `failures` within `window_s`             `wait_s` is over, and somebody asks
 closed ─────────────────────────────────► open ─────────────────────────────────────────► half-open
   ▲                                         ▲                                                 │ │
   │                                         └───── the one call that tries it fails ──────────┘ │
   └──────────────────────────── it is answered ──────────────────────────────────────────────────┘
```

Each time that it opens again without having been closed, it stays open for twice as long, up to a bound, and a little
less at random, so that many do not come back together. It is pure: it is told the time and the random number, and it
neither waits nor calls. What a call that began before the last change has to say of it counts no more.
"""

from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MAX_OPEN_S: Final = 300.0  # no breaker stays open longer, however often it opened
BUSY_S: Final = 0.5  # when to ask again while another call tries whether it answers

RESTART_S: Final = 0.5  # between the first start of something that died and the next; then twice as long each time
MAX_RESTART_S: Final = 30.0  # the longest such time
CALM_S: Final = 60.0  # after so long without a start, all before is forgotten


class BreakerState(StrEnum):
    """How a breaker stands."""

    CLOSED = "closed"
    """Calls go through."""
    OPEN = "open"
    """None does."""
    HALF_OPEN = "half_open"
    """One at a time does."""


@dataclass(frozen=True, slots=True)
class BreakerTerms:
    """When a breaker opens, and for how long.

    Attributes:
        failures: How many within the window open it; 0: it never opens.
        window_s: How long a failure counts, in seconds.
        open_s: How long it stays open the first time, in seconds.
    """

    failures: int = 5
    window_s: float = 30.0
    open_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Ticket:
    """Leave for one call.

    Attributes:
        generation: Of the breaker that gave it; each change of state begins another.
        probe: It is the call that tries whether a half-open one answers.
    """

    generation: int
    probe: bool = False


class Pace:
    """How often something may be started again: at once, and then after ever longer times, until it has lasted for a while.

    Attributes:
        starts: How often it was started in short order.
    """

    __slots__ = ("_last_s", "starts")

    def __init__(self) -> None:
        self.starts = 0
        self._last_s = 0.0

    def wait_s(self, now_s: float) -> float:
        """Seconds until it may be started again; 0 where it may be now."""
        if self.starts == 0 or now_s - self._last_s >= CALM_S:
            return 0.0
        pause_s = RESTART_S
        for _ in range(self.starts - 1):
            pause_s = min(pause_s * 2, MAX_RESTART_S)
        return max(0.0, self._last_s + pause_s - now_s)

    def started(self, now_s: float) -> None:
        """It is started now."""
        self.starts = 1 if self.starts == 0 or now_s - self._last_s >= CALM_S else self.starts + 1
        self._last_s = now_s


class Breaker:
    """One breaker.

    Args:
        terms: When it opens.

    Attributes:
        state: How it stands. An open one whose time is over is still open until somebody asks.
        opened: How often it has opened in a row.
    """

    __slots__ = ("_failures", "_generation", "_probing", "_terms", "_until_s", "opened", "state")

    def __init__(self, terms: BreakerTerms) -> None:
        self._terms = terms
        self._failures: deque[float] = deque(maxlen=max(terms.failures, 1))
        self._generation = 0
        self._probing = False
        self._until_s = 0.0
        self.opened = 0
        self.state = BreakerState.CLOSED

    def refused_for_s(self, now_s: float) -> float | None:
        """For how many seconds a call would be refused that asked now; None where it would go through."""
        match self.state:
            case BreakerState.CLOSED:
                return None
            case BreakerState.OPEN:
                return self._until_s - now_s if now_s < self._until_s else None
            case BreakerState.HALF_OPEN:
                return BUSY_S if self._probing else None

    def ask(self, now_s: float) -> Ticket | None:
        """Leave for one call, which has to be given back by one of the three methods below; None where there is none."""
        if self.refused_for_s(now_s) is not None:
            return None
        if self.state is BreakerState.OPEN:
            self._become(BreakerState.HALF_OPEN)
        self._probing = probe = self.state is BreakerState.HALF_OPEN
        return Ticket(self._generation, probe)

    def answered(self, ticket: Ticket) -> None:
        """The other side answered: that of the one call that tried it closes the breaker."""
        if ticket.probe and ticket.generation == self._generation:
            self.opened = 0
            self._become(BreakerState.CLOSED)

    def failed(self, ticket: Ticket, now_s: float, jitter: float) -> None:
        """The other side did not answer.

        Args:
            ticket: Of the call.
            now_s: Monotonic time.
            jitter: A random number in [0, 1): it stays open between three quarters of its time and all of it.
        """
        if ticket.generation != self._generation or self._terms.failures == 0:
            return
        self._failures.append(now_s)
        recent = sum(at_s > now_s - self._terms.window_s for at_s in self._failures)
        if ticket.probe or recent >= self._terms.failures:
            self.opened += 1
            whole_s = self._terms.open_s
            for _ in range(self.opened - 1):
                whole_s = min(whole_s * 2, MAX_OPEN_S)  # capped each time: a power could overflow
            self._until_s = now_s + min(whole_s, MAX_OPEN_S) * (0.75 + jitter / 4)
            self._become(BreakerState.OPEN)

    def gave_up(self, ticket: Ticket) -> None:
        """The call says nothing of the other side: it was cancelled, or refused by ours. Another may try in its place."""
        if ticket.probe and ticket.generation == self._generation:
            self._probing = False

    def _become(self, state: BreakerState) -> None:
        self.state = state
        self._generation += 1
        self._probing = False
        self._failures.clear()
