"""How often one run has failed in a row, and what is to be done about it."""

from typing import Final

from symbi.agent.again import Patience
from symbi.agent.journal import RunState
from symbi.agent.remedies import Remedy, remedy_for
from symbi.agent.run import FINAL
from symbi.clock import Clock, rfc3339
from symbi.errors import SymbiError
from symbi.runtime.life import SINCE, TRIES
from symbi.runtime.supervisor import Verdict, judge

WAITED_FOR: Final = frozenset({Remedy.RETRY, Remedy.RESTART})
"""What is done again after a wait."""


class Tries:
    """How often one run has failed in a row without getting further.

    Args:
        clock: For since when.
        patience: For the jitter.

    Attributes:
        verdict: What is to be done about the last error.
        count: How often, the last one included.
        since: RFC 3339, of the first of them.
    """

    def __init__(self, clock: Clock, patience: Patience) -> None:
        self._clock = clock
        self._patience = patience
        self._furthest = -1
        self._judged: SymbiError | None = None
        self.verdict = Verdict(Remedy.TERMINATE)
        self.count = 0
        self.since = ""

    def anew(self) -> None:
        """It is tried once more; what comes of it is judged, also where that is the same error."""
        self._judged = None

    def known(self, error: SymbiError) -> None:
        """What was held for an error goes on: what is on record counts."""
        count, since = error.fields.get(TRIES), error.fields.get(SINCE)
        if not self.count and isinstance(count, int) and isinstance(since, str):
            self.count, self.since = count, since
            self._furthest = position_of(error)

    def ends(self, error: SymbiError) -> RunState:
        """What becomes of the run; see `symbi.agent.run.Ends`. One error is judged once."""
        if error is not self._judged:
            self._judge(error)
        return RunState.FAILED if self.verdict.remedy is Remedy.TERMINATE else RunState.HELD

    def _judge(self, error: SymbiError) -> None:
        self._judged = error
        position = position_of(error)
        if position > self._furthest:  # it has got further, and so this is no loop
            self._furthest, self.count = position, 0
        if remedy_for(type(error)) in WAITED_FOR:
            self.count += 1
            if self.count == 1:
                self.since = rfc3339(self._clock.now_ns())
            error.fields |= {TRIES: self.count, SINCE: self.since}
        self.verdict = judge(error, attempt=max(1, self.count), jitter=self._patience.jitter())
        if self.verdict.remedy is Remedy.RESTART and error.fields.get(FINAL) is True:
            self.verdict = Verdict(Remedy.TERMINATE, exhausted=True)


def position_of(error: SymbiError) -> int:
    """At which effect of its run an error came up; -1 where it was at none."""
    position = error.fields.get("position")
    return position if isinstance(position, int) else -1
