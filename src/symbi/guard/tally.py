"""The port to durable counts: what effects have added to counters and rates, and what runs have used.

A tally is the total of one counter in one scope. An effect adds to it in the transaction that reserves the effect, so
that a total includes what is in flight. What an effect added is kept as an entry until it leaves the window or, without
a window, until the effect is over; before that it can be given back.

The time of a tally never goes back: where the clock does, the tally stays at the latest time that it was told.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from symbi.guard.budget import BudgetStore
from symbi.guard.ledger import Ledger
from symbi.policy.counters import Window
from symbi.types import EffectId, RunId


@dataclass(frozen=True, slots=True)
class Tally:
    """What is counted together.

    Attributes:
        counter: Key of the counter or rate.
        scope: Whose actions.
        window: How far back it looks; None for ever.
    """

    counter: str
    scope: str
    window: Window | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """A tally at a time.

    Attributes:
        total: Of all that is in the window.
        oldest_ns: When the oldest entry in the window was made; None where there is none, and without a window.
    """

    total: int
    oldest_ns: int | None = None


@dataclass(frozen=True, slots=True)
class RunUsage:
    """What a run has used; see `symbi.policy.history.Usage`.

    Attributes:
        started_ns: When its first action was asked for, in nanoseconds since the epoch.
        effects, denied, calls: Counts.
    """

    started_ns: int
    effects: int = 0
    denied: int = 0
    calls: int = 0


class TallyStore(Protocol):
    """Durable tallies; the methods block, and those that write run inside the store's running transaction."""

    def read_tallies(
        self, tallies: Sequence[Tally], now_ns: int, *, without: EffectId | None = None, prune: bool = False
    ) -> Sequence[Reading]:
        """Readings in the same order; a tally that nothing was added to is zero.

        Args:
            tallies: Which.
            now_ns: The time, in nanoseconds since the epoch.
            without: An effect whose entries are left out.
            prune: Drop what has left the window; only inside a transaction.

        Raises:
            StoreUnavailable: The store cannot be read.
        """

    def add_to_tallies(self, effect_id: EffectId, entries: Sequence[tuple[Tally, int]], now_ns: int) -> None:
        """Add amounts of an effect, at most one to each tally.

        Raises:
            InputError: A total would be beyond the largest Long; nothing may be kept of the unit of work.
            StoreUnavailable: The store cannot be written.
        """

    def settle_tallies(self, effect_id: EffectId, *, happened: bool) -> None:
        """Make what an effect added final, or take it back; to be called once.

        Raises:
            StoreUnavailable: The store cannot be written.
        """

    def usage_of(self, run_id: RunId) -> RunUsage | None:
        """What a run has used, or None where it has asked for nothing yet."""

    def put_usage(self, run_id: RunId, usage: RunUsage) -> None:
        """Insert or replace what a run has used.

        Raises:
            StoreUnavailable: The store cannot be written.
        """


class GateStore(Ledger, TallyStore, BudgetStore, Protocol):
    """What the gate needs of the store."""
