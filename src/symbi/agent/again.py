"""Asking again: what of a run's last effect is asked for once more, at its place and with its id.

In place, before the body sees the error: where its remedy is to retry, or a tool did not answer in time, and it certainly did not happen or may be
repeated (`symbi.guard.earlier`). Attempts are bounded for each effect and for the whole run, and what is on record
counts, so that a crash gives no further ones. An error that says when to come back is waited for that long, if that is
no longer than any wait may be and the run has the time; else its body sees it at once.

On a run that goes on: what its end was about, where it was held for that; what was being retried, where it was cut off.
A body that has caught an error and gone on is never told anything else.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import anyio

from symbi.agent.remedies import RETRIES, Remedy, asked_wait_s, remedy_for, says_when
from symbi.agent.turn import RunClock
from symbi.clock import random_bytes
from symbi.errors import EffectInDoubt, StoreUnavailable, SymbiError, TimeLimit
from symbi.guard.action import Action, InvokeTool
from symbi.guard.earlier import Places, may_ask_again
from symbi.guard.ledger import EffectRecord, EffectState
from symbi.guard.outcome import decode_error

MAX_RETRIES_OF_RUN: Final = 30  # attempts beyond the first, over all of its effects
LATE_RETRIES: Final = 2  # of a tool that does not answer in time: each attempt takes all of it
TOOL_CALL: Final = "InvokeTool"  # how the actions of tools begin
LASTING: Final = frozenset(
    {
        "unavailable.tier",
        "unavailable.engine",
        "unavailable.runtime",
        "unavailable.image",
        "unavailable.isolation",
        "unavailable.network",
        "unavailable.model",
    }
)
"""Of a sandbox that is not there, or not what it promises, and of a model that was asked several times: not mended within seconds."""
UNDECIDED: Final = "unavailable.undecided"  # the gate had no time for it: nothing is on record


def drawn() -> float:
    """A random number in [0, 1)."""
    return (int.from_bytes(random_bytes(7)) >> 3) / 2**53


@dataclass(frozen=True, slots=True)
class Patience:
    """How waits are made.

    Attributes:
        wait: Waits so many seconds; can be cancelled.
        jitter: Draws a number in [0, 1).
    """

    wait: Callable[[float], Awaitable[None]] = anyio.sleep
    jitter: Callable[[], float] = drawn


PATIENT: Final = Patience()


def held_at(error: bytes | None) -> int | None:
    """At which effect a run was held, by the error that ended it; -1 where it was for none, None where it was not held."""
    if error is None:
        return None
    position = decode_error(error).fields.get("position")
    return position if isinstance(position, int) else -1


def retries_of(error: SymbiError, *, tool: bool) -> int:
    """How many further attempts an error is worth.

    Args:
        error: How the effect ended.
        tool: It was a tool call: one that is not answered in time is a dependency that is not there.
    """
    if isinstance(error, StoreUnavailable) and error.code != UNDECIDED:
        return 0
    if error.code in LASTING:
        return 0
    if remedy_for(type(error)) is Remedy.RETRY or (isinstance(error, EffectInDoubt) and says_when(error)):
        return RETRIES.attempts
    return LATE_RETRIES if tool and isinstance(error, TimeLimit) else 0


class Again:
    """Which effects of one run are asked for again, and when.

    Args:
        places: What is on record.
        patience: How waits are made.
        recorded: What is on record from before a restart.
        held: Where the run was held, see `held_at`.
    """

    def __init__(
        self, places: Places, patience: Patience, recorded: Sequence[EffectRecord] = (), held: int | None = None
    ) -> None:
        self._places = places
        self._patience = patience
        self._held = held
        self._last = max((record.position for record in recorded), default=-1)
        self._spent = sum(record.attempt - 1 for record in recorded)

    def wanted(self, record: EffectRecord) -> bool:
        """Whether what is on record, with an error, is asked for again instead of being told once more.

        Args:
            record: Opened.
        """
        if record.error is None or record.position != self._last:
            return False
        if self._held is None:
            most = retries_of(decode_error(record.error), tool=record.action.startswith(TOOL_CALL))
            return self._left(record.attempt, most) and may_ask_again(record, record.recovery)
        # What is in doubt is for the gate to repeat or refuse.
        in_doubt = record.state is EffectState.UNKNOWN
        return record.position == self._held and (in_doubt or may_ask_again(record, record.recovery))

    def _left(self, attempts: int, most: int) -> bool:
        return attempts <= most and self._spent < MAX_RETRIES_OF_RUN

    async def pause_s(self, action: Action, error: SymbiError, tries: int, clock: RunClock) -> float | None:
        """How long to wait before an action is asked for once more; None where its body is to see the error.

        Args:
            action: What was asked for.
            error: How it ended.
            tries: How often it was asked for since this was begun.
            clock: The time that the run has.
        """
        most = retries_of(error, tool=isinstance(action, InvokeTool))
        attempts = await self._places.attempts(action) if most else None
        if attempts is None or not self._left(max(attempts, tries), most):
            return None
        delay_s = RETRIES.next_delay_s(max(attempts, tries, 1), self._patience.jitter())
        asked_s = asked_wait_s(error)
        if delay_s is None or asked_s > RETRIES.most_s:
            return None
        delay_s = max(delay_s, asked_s)
        return None if delay_s >= clock.left_s else delay_s

    async def rest(self, delay_s: float, clock: RunClock) -> None:
        """Wait; others may have what the run holds meanwhile."""
        self._spent += 1
        async with clock.resting(delay_s):
            await self._patience.wait(delay_s)
