"""One message that an agent that stays carries out: what is on record of it, and what came of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from symbi.agent.journal import RunRecord, RunState
from symbi.errors import InputError, MessageRefused, SymbiError
from symbi.guard.ledger import EffectRecord
from symbi.runtime.living import Move
from symbi.runtime.mailbox import Message
from symbi.runtime.sealed_mail import Content
from symbi.runtime.supervisor import Verdict
from symbi.runtime.tries import Tries


class NotBegun(Exception):
    """A message could not be begun now, and waits as it did.

    Args:
        error: Why.
    """

    def __init__(self, error: SymbiError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(slots=True)
class Errand:
    """One message, and what is on record of it.

    Attributes:
        message: The message, as it is kept.
        record: Its run, as it is to go on.
        recorded: What its body did before.
        was: How the run stood; None where it had not begun.
        content: What it says, where it had not begun.
        lost: What it knew was erased, or cannot be read.
        refused: It is not what its sender sent.
        begun: It is on record that the run goes on, and its end is not.
        attempts: How often it was begun.
        move: The last move of its agent, on its way into the store.
        given: Why it was given up, likewise.
        tries: How often it has failed.
        again_s: It is to be tried again in so many seconds.
        left: It was stopped before it was begun, and waits as it did.
    """

    message: Message
    record: RunRecord
    recorded: Sequence[EffectRecord] = ()
    was: RunState | None = None
    content: Content | None = None
    lost: InputError | None = None
    refused: MessageRefused | None = None
    begun: bool = False
    attempts: int = 0
    move: Move | None = None
    given: SymbiError | None = None
    tries: Tries | None = None
    again_s: float | None = None
    left: bool = False

    @property
    def verdict(self) -> Verdict:
        """What is to be done about its last error."""
        assert self.tries is not None, "it was begun"
        return self.tries.verdict


@dataclass(frozen=True, slots=True)
class Done:
    """What came of looking for a message.

    Attributes:
        there: There was one.
        again_s: Its run failed, and is to be tried again in so many seconds.
        left: It was not begun, and waits as it did: for whoever has suspended its agent, or stopped everything.
    """

    there: bool
    again_s: float | None = None
    left: bool = False
