"""How messages come into mailboxes: checked at once, sealed as runs are, and durable before their sender is told so."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from symbi.agent.run import check_inputs
from symbi.agent.task import NO_TASK, Task, check_task
from symbi.audit.log import AuditLog
from symbi.clock import Clock, IdSource
from symbi.errors import InputError, Overloaded
from symbi.guard.confidential import keys_for
from symbi.guard.outcome import NOT_TAKEN, encode_result
from symbi.guard.vault import Keys, Vault
from symbi.runtime.lifecycle import AgentState
from symbi.runtime.living import Roster
from symbi.runtime.mailbox import NOW, MailboxStore, Message
from symbi.runtime.rooms import Rooms
from symbi.runtime.sealed_mail import Mail as Letter
from symbi.runtime.sealed_mail import transact
from symbi.types import SYSTEM_AGENT, AgentId, JsonValue, RunId

NS: Final = 1_000_000_000
MAX_AHEAD_S: Final = 10 * 366 * 86_400.0  # how far ahead a message may be due, or expire
RETRY_AFTER_S: Final = 1.0  # where a mailbox is full, or the runtime is shutting down
GONE: Final = frozenset({AgentState.FAILED, AgentState.TERMINATED})
"""States in which an agent takes no message; in `Suspended` they wait for it."""


@dataclass(frozen=True, slots=True)
class When:
    """When a message is to be carried out.

    Attributes:
        after_s: In so many seconds at the earliest.
        expires_s: Not where it has not begun in so many seconds; None for whenever.
    """

    after_s: float = 0.0
    expires_s: float | None = None

    def __post_init__(self) -> None:
        """Refuse times that are none.

        Raises:
            InputError: One is negative, or too far ahead; or it would expire before it is due.
        """
        for value in (self.after_s, self.expires_s):
            if value is not None and not 0 <= value <= MAX_AHEAD_S:
                msg = f"a message cannot wait for {value:g} s"
                raise InputError(msg, code="input.value", hint=f"0 to {MAX_AHEAD_S:.0f} seconds")
        if self.expires_s is not None and self.expires_s <= self.after_s:
            msg = f"a message that is due in {self.after_s:g} s cannot be begun within {self.expires_s:g} s"
            raise InputError(msg, code="input.value", hint="it has to expire later than it is due")


AT_ONCE: Final = When()


def nobody(_agents: Sequence[AgentId], _due_ns: int) -> None:
    """The default of `Mail.told`: nobody hears of it."""


class Mail:
    """Puts messages into mailboxes.

    Args:
        rooms: What the runtime stands on.
        roster: The agents that have mailboxes.

    Attributes:
        closed: Nothing is taken in any more: the runtime is shutting down.
        told: Hears for whom messages have come, and when they are due.
    """

    def __init__(self, rooms: Rooms, roster: Roster) -> None:
        self._rooms = rooms
        self._roster = roster
        self.closed = False
        self.told: Callable[[Sequence[AgentId], int], None] = nobody

    @property
    def _log(self) -> AuditLog:
        return self._rooms.world.log

    @property
    def _clock(self) -> Clock:
        return self._rooms.world.clock

    @property
    def _ids(self) -> IdSource:
        return self._rooms.ids

    @property
    def _mailbox(self) -> MailboxStore:
        return self._rooms.mailbox

    @property
    def _vault(self) -> Vault | None:
        return self._rooms.world.guard.vault

    async def send(
        self,
        agent: AgentId,
        inputs: Mapping[str, JsonValue],
        task: Task = NO_TASK,
        *,
        sender: str,
        when: When = AT_ONCE,
        message_id: RunId | None = None,
    ) -> RunId:
        """Put a message into the mailbox of an agent; returns its id, which its run will have, once it is durable.

        Args:
            agent: To whom.
            inputs: Of the run, by name.
            task: What is said of them.
            sender: Who sends it, as the trail calls them.
            when: When it is to be carried out.
            message_id: Its id, where somebody has promised one; one that is known already changes nothing.

        Raises:
            InputError: There is no such agent, it takes no messages any more, or the inputs do not fit it.
            Overloaded: Its mailbox is full, or the runtime is shutting down.
            StoreUnavailable: It cannot be stored.
        """
        self.refuse_closed()
        living = await self._roster.find(agent)
        spec = living.kind.spec
        check_inputs(spec, inputs)
        check_task(spec, task)
        keys = await keys_for(self._vault, spec.id, task.everybody)
        mail = self.written(message_id or RunId(self._ids.new()), agent, sender, inputs, task, keys, when)
        mails = self._rooms.mails
        await transact(self._log, mails, lambda: (self.take_in(mail, living.kind.terms.max_messages), ()))
        self.told([agent], mail.message.due_ns)
        return mail.message.message_id

    def refuse_closed(self) -> None:
        """Return if messages are taken in.

        Raises:
            Overloaded: The runtime is shutting down.
        """
        if self.closed:
            msg = "the runtime is shutting down and takes no more messages"
            raise Overloaded(msg, code="unavailable.shutdown", retry_after_s=RETRY_AFTER_S)

    def written(
        self,
        message_id: RunId,
        agent: AgentId,
        sender: str,
        inputs: Mapping[str, JsonValue],
        task: Task,
        keys: Keys,
        when: When = AT_ONCE,
    ) -> Letter:
        """A message that is to be sealed: by the runtime, for whoever sends it, and by the keys of whom it is about."""
        now_ns = self._clock.now_ns()
        due_ns = NOW if when.after_s <= 0 else now_ns + round(when.after_s * NS)
        expires_ns = None if when.expires_s is None else now_ns + round(when.expires_s * NS)
        message = Message(message_id, agent, sender, b"", None, due_ns, expires_ns)
        return Letter(message, SYSTEM_AGENT, encode_result(dict(inputs)), task.carried_json, keys)

    def take_in(self, mail: Letter, most: int) -> bool:
        """Put a message into its mailbox; on the store's thread, in its transaction. Whether it was new.

        One that was ever there, and one whose run is on record, is not put again. Who calls this says so to `told`
        once it is durable.

        Args:
            mail: As `written` has made it.
            most: How many may wait for its agent.

        Raises:
            InputError: There is no such agent, or it takes no messages any more.
            Overloaded: As many wait for it.
            OutputLimit, StoreUnavailable: As `SealedMail.sealed`.
        """
        rooms, message, agent = self._rooms, mail.message, mail.message.agent_id
        if rooms.runs.get_run(message.message_id) or self._mailbox.get_message(message.message_id):
            return False
        record = rooms.agents.get_agent(agent)
        if record is None:
            raise InputError(f"there is no agent `{agent}`", code="input.agent")
        if record.state in GONE:
            msg = f"agent `{agent}` is {record.state.value} and takes no messages"
            raise InputError(msg, code="input.agent_gone", hint=f"`symbi agents spawn {agent}` makes it anew")
        if self._mailbox.count_messages(agent, most) >= most:
            msg = f"{most} messages wait for agent `{agent}` already"
            raise Overloaded(msg, code=NOT_TAKEN, retry_after_s=RETRY_AFTER_S)
        return self._mailbox.put_message(rooms.mails.sealed([mail])[0])
