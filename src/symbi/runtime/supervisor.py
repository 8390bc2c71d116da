"""What to do with an agent whose work ended in an error: a table by class of error; pure.

| whose fault        | remedy    | why                                                                          |
|--------------------|-----------|------------------------------------------------------------------------------|
| the caller         | terminate | the same input is as wrong the next time                                     |
| policy             | suspend   | somebody can clear it; only a used-up rate comes back by itself: retry       |
| integrity          | suspend   | somebody has to look; but nothing may run on a trail that does not verify    |
| a budget           | suspend   | somebody can give more, and it goes on from there                            |
| a dependency       | retry     | it may be back in a moment                                                   |
| the agent's code   | terminate | the same steps end the same way                                              |
| a tool or a model  | restart   | it goes on after its last finished effect, and the next answer may be better |
| us, or unknown     | restart   | once more from the last finished effect; a crash loop ends it                |

Retries and restarts are bounded and wait longer each time. When they are used up the decision is to terminate, with
`exhausted` set: the caller puts the task with the dead letters and the agent among the failed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from symbi.errors import (
    AgentFailed,
    ApprovalPending,
    ApprovalRequired,
    ChainBroken,
    CodeFailed,
    Denied,
    EffectInDoubt,
    InputError,
    InternalError,
    LimitExceeded,
    Overloaded,
    RateLimited,
    ScriptFailed,
    SymbiError,
    Unavailable,
    VerificationError,
)


class Remedy(StrEnum):
    """What is done with the agent."""

    RETRY = "retry"
    """Do what failed once more, after a while; the agent stays as it is."""
    RESTART = "restart"
    """Start the agent again, after a while; it goes on after its last finished effect."""
    SUSPEND = "suspend"
    """Stop it where it is, until somebody lets it go on."""
    TERMINATE = "terminate"
    """End it."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """How often something is tried again, and how long each time is waited for.

    Attributes:
        attempts: At most so many further attempts.
        first_s: Wait before the first of them.
        factor: What each further wait is multiplied by.
        most_s: No wait is longer, whatever an error asks for.
    """

    attempts: int
    first_s: float
    factor: float
    most_s: float

    def next_delay_s(self, attempt: int, jitter: float) -> float | None:
        """Seconds to wait before a further attempt, or None when there are to be no more.

        Args:
            attempt: How many attempts have failed, from 1.
            jitter: A random number in [0, 1): a wait is between half of what it could be and all of it, so that those
                who failed together do not come back together.

        Raises:
            InternalError: A number is out of range.
        """
        if attempt < 1 or not 0 <= jitter < 1:
            msg = f"there is no delay for attempt {attempt} with a jitter of {jitter}"
            raise InternalError(msg, code="internal.backoff")
        if attempt > self.attempts:
            return None
        whole_s = self.first_s
        for _ in range(attempt - 1):
            whole_s = min(whole_s * self.factor, self.most_s)  # capped each time: a power could overflow
        return min(whole_s, self.most_s) * (0.5 + jitter / 2)


RETRIES: Final = Backoff(attempts=6, first_s=0.5, factor=2.0, most_s=30.0)  # half a minute or so in all
RESTARTS: Final = Backoff(attempts=3, first_s=1.0, factor=4.0, most_s=60.0)  # a crash loop is one of four crashes

REMEDIES: Final[Mapping[type[SymbiError], Remedy]] = MappingProxyType(
    {
        SymbiError: Remedy.TERMINATE,
        InputError: Remedy.TERMINATE,
        Denied: Remedy.SUSPEND,
        ApprovalRequired: Remedy.SUSPEND,
        ApprovalPending: Remedy.SUSPEND,
        RateLimited: Remedy.RETRY,
        VerificationError: Remedy.SUSPEND,
        ChainBroken: Remedy.TERMINATE,
        LimitExceeded: Remedy.SUSPEND,
        Unavailable: Remedy.RETRY,
        AgentFailed: Remedy.RESTART,
        CodeFailed: Remedy.TERMINATE,
        ScriptFailed: Remedy.TERMINATE,
        EffectInDoubt: Remedy.SUSPEND,
        InternalError: Remedy.RESTART,
    }
)
"""The remedy of a class of errors, and of those below it that have none of their own."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be done.

    Attributes:
        remedy: The remedy.
        after_s: When to retry or restart, in seconds from now.
        exhausted: Every attempt was used up: a crash loop, and a dead letter.
    """

    remedy: Remedy
    after_s: float = 0.0
    exhausted: bool = False


_SEVERITY: Final = (Remedy.RETRY, Remedy.RESTART, Remedy.SUSPEND, Remedy.TERMINATE)


def remedy_for(error: type[Exception]) -> Remedy:
    """The remedy of the nearest class in `REMEDIES`; an error that is none of ours is a defect of ours."""
    for ancestor in error.__mro__:
        if ancestor in REMEDIES:
            return REMEDIES[ancestor]
    return REMEDIES[InternalError]


def judge(error: Exception, *, attempt: int, jitter: float) -> Verdict:
    """Decide what to do about an error.

    Args:
        error: What ended the work; of a group, the error with the severest remedy decides.
        attempt: How often in a row it has ended in an error now, from 1.
        jitter: A random number in [0, 1).

    Returns:
        The verdict; a wait is no shorter than what an `Overloaded` error asks for, up to the longest there is.
    """
    error = max(_members(error), key=lambda member: _SEVERITY.index(remedy_for(type(member))))
    remedy = remedy_for(type(error))
    if remedy not in {Remedy.RETRY, Remedy.RESTART}:
        return Verdict(remedy)
    backoff = RETRIES if remedy is Remedy.RETRY else RESTARTS
    delay_s = backoff.next_delay_s(attempt, jitter)
    if delay_s is None:
        return Verdict(Remedy.TERMINATE, exhausted=True)
    if isinstance(error, Overloaded):
        delay_s = min(max(delay_s, error.retry_after_s), backoff.most_s)
    return Verdict(remedy, delay_s)


def _members(error: Exception) -> list[Exception]:
    """The errors of a group, however nested, or the one error."""
    if isinstance(error, ExceptionGroup):
        return [member for part in error.exceptions for member in _members(part)]
    return [error]
