"""What is done about an error that ended some work: a table by class of error; pure.

| whose fault        | remedy    | why                                                                          |
|--------------------|-----------|------------------------------------------------------------------------------|
| the caller         | terminate | the same input is as wrong the next time                                     |
| policy             | suspend   | somebody can clear it; only a used-up rate comes back by itself: retry       |
| integrity          | suspend   | somebody has to look; but nothing may run on a trail that does not verify    |
| a budget           | suspend   | somebody can give more, and it goes on from there                            |
| a dependency       | retry     | it may be back in a moment                                                   |
| the agent's code   | terminate | the same steps end the same way; also where it is that of an agent it asked  |
| a tool or a model  | restart   | it goes on after its last finished effect, and the next answer may be better |
| us, or unknown     | restart   | once more from the last finished effect; a crash loop ends it                |

An effect in doubt that says when it may be repeated, or looked up, is retried then, and as long as that takes: nobody has
to decide anything, and to give up would leave it in doubt.

What is retried is first retried in place, before a body sees the error, where it certainly did not happen or may be
repeated (`symbi.agent.again`); what is left is for whoever carries out the run (`symbi.runtime.supervision`).
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
    AskFailed,
    ChainBroken,
    CodeFailed,
    Denied,
    EffectInDoubt,
    InputError,
    InternalError,
    LimitExceeded,
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
        AskFailed: Remedy.TERMINATE,
        EffectInDoubt: Remedy.SUSPEND,
        InternalError: Remedy.RESTART,
    }
)
"""The remedy of a class of errors, and of those below it that have none of their own."""


def remedy_for(error: type[Exception]) -> Remedy:
    """The remedy of the nearest class in `REMEDIES`; an error that is none of ours is a defect of ours."""
    for ancestor in error.__mro__:
        if ancestor in REMEDIES:
            return REMEDIES[ancestor]
    return REMEDIES[InternalError]


def says_when(error: SymbiError) -> bool:
    """Whether an error says itself when the same may go well."""
    return "retry_after_s" in error.fields


def asked_wait_s(error: Exception) -> float:
    """How long to wait before another attempt by what an error says itself, in seconds; 0 where it says nothing."""
    asked = error.fields.get("retry_after_s") if isinstance(error, SymbiError) else None
    return max(0.0, float(asked)) if isinstance(asked, int | float) else 0.0
