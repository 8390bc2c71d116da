"""What an effect within the store has done in the transactions of its decision and its outcome, so that it takes no commits of its own."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from symbi.guard.permit import Permit


def nothing() -> None:
    """The default of what is done beside."""


Aftermath: TypeAlias = Callable[[Permit[Any]], Awaitable[None]]
"""Takes a permit of the same action, which is live while it runs."""


@dataclass(frozen=True, slots=True)
class Riders:
    """What is done beside an effect; the first two run on the store's thread.

    Attributes:
        decided: In the transaction of a decision that is yes, and again where it is decided again: what is noted of an effect
            before it begins. It is no effect itself, for nothing is on record before it.
        succeeded: In the transaction of an outcome that is success: both are kept, or neither.
        after: Once that is durable: lets go of what the effect has put something in the place of. Where it fails, or never
            runs, the effect has happened all the same.
    """

    decided: Callable[[], None] = nothing
    succeeded: Callable[[], None] = nothing
    after: Aftermath | None = None


NO_RIDERS: Final = Riders()
