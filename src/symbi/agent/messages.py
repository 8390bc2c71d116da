"""What a body says to other agents: `send`, `ask` and `publish`, and the port by which it gets there.

A message is data: a record is the inputs of the agent by name, and anything else the one input of an agent that has
one. Each input keeps its label on the way, joined with that of the address, which data may have chosen; and the grant
of the sender's task goes with it, so that no task can do through another agent what it may not do itself.

A message has the id of its effect. One that a restart sends again is there already, and one that was asked for again
gets the answer that there is.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from symbi.agent.operators import text
from symbi.agent.task import Task, label_json, read_label
from symbi.agent.turn import RunClock
from symbi.agent.values import TEMPLATE, Value, deep_label, from_json, to_json
from symbi.audit.event import AuditEventType, Draft
from symbi.dsl import ast
from symbi.dsl.messages import AGENT_ADDRESS, MAX_AFTER_S, is_topic
from symbi.errors import InputError, OutputLimit, ScriptFailed, SymbiError
from symbi.guard.action import Action, PublishMessage, RunSlot, SendMessage, TopicRef
from symbi.guard.gate import Guard
from symbi.guard.outcome import encode_result
from symbi.guard.permit import Permit
from symbi.policy.flow import join
from symbi.policy.grants import Grant
from symbi.tools.text import shown_name
from symbi.types import AgentId, Integrity, JsonValue, Label, Principal, RunId

MAX_MESSAGE_BYTES: Final = 1024 * 1024  # of one message as JSON; policies may bound it further
VALUE: Final = "value"
LABEL: Final = "label"
"""What the ledger keeps of an answer."""


@dataclass(frozen=True, slots=True)
class Letter:
    """What goes with a message, beside what its action says.

    Attributes:
        run_id: The run that sends it.
        sender: The agent.
        whole: The label of all of it.
        parts: The labels of its fields, where it is a record.
        grant: What the task of the sender calls for, or None where nobody has said.
        timed_out: Whether the time of the run that sends it is up.
    """

    run_id: RunId
    sender: Principal
    whole: Label = TEMPLATE
    parts: Mapping[str, Label] = field(default_factory=dict)
    grant: Grant | None = None
    timed_out: Callable[[], bool] = bool

    def task(self, inputs: Mapping[str, JsonValue]) -> Task:
        """What is said of the run that carries it out, given the inputs that it has."""
        least = Label(Integrity.UNTRUSTED) if self.sender.trust == "untrusted" else TEMPLATE
        labels = {name: join(least, self.parts.get(name, self.whole)) for name in inputs}
        return Task(
            self.grant, {name: label for name, label in labels.items() if replace(label, sources=()) != TEMPLATE}
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """What an agent answered: the value of its run, and the label of that."""

    value: JsonValue
    label: Label = TEMPLATE


class Post(Protocol):
    """Gets messages to agents; every method that has an effect takes a permit first."""

    async def address(self, action: SendMessage, letter: Letter) -> Principal:
        """The agent that a message is for, which takes it; nothing happens yet.

        Raises:
            InputError: There is no such agent, it takes no messages, the inputs do not fit it, or who asks it would
                wait for itself.
        """

    async def deliver(self, permit: Permit[SendMessage], letter: Letter) -> None:
        """Put a message into a mailbox, once.

        Raises:
            InputError: As `address`, for what policies have left of it.
            Overloaded: The mailbox is full.
        """

    async def ask(self, permit: Permit[SendMessage], letter: Letter) -> Answer:
        """Have an agent carry out a message, once, and wait for the end.

        Raises:
            InputError, Overloaded: As `deliver`.
            AgentFailed: The run failed; it bears the label of what it may quote.
            EffectInDoubt: The run is held.
        """

    async def publish(self, permit: Permit[PublishMessage], letter: Letter) -> int:
        """Put a message into the mailbox of each agent that listens, once; returns how many those are.

        Raises:
            Overloaded: One of the mailboxes is full; no agent has got it.
        """

    def topic(self, name: str) -> TopicRef:
        """A topic as policies know it."""


@dataclass(frozen=True, slots=True)
class Through:
    """How the effects of a run get on record.

    Attributes:
        slot: Takes the next place in the run.
        perform: Gives the recorded outcome of an action, or else has the effect done.
        gated: Lets an effect happen behind the gate.
        clock: The time that the run has.
    """

    slot: Callable[[], RunSlot]
    perform: Callable[[Action, Callable[[], Awaitable[Any]]], Awaitable[Any]]
    gated: Callable[[Any, Callable[[Permit[Any]], Awaitable[JsonValue]]], Callable[[], Awaitable[Any]]]
    clock: Callable[[], RunClock]


class Messages:
    """`send`, `ask` and `publish` of one run.

    Args:
        post: Gets messages to agents; None where no message gets anywhere.
        guard: The gate, for what is refused before it.
        letter: The run that sends, and its grant.
        file: Name of the agent file, for places.
        through: How effects get on record.
    """

    def __init__(self, post: Post | None, guard: Guard, letter: Letter, file: str, through: Through) -> None:
        self._reach = post
        self._guard = guard
        self._letter = letter
        self._file = file
        self._through = through

    async def send(self, agent: Value, message: Value, after: Value, span: ast.Span) -> Value:
        """The id of the message, which is that of the run that carries it out."""
        after_s = self._seconds(after, span)
        asked, letter = self._message(agent, message, span, after_s=after_s, label=after.label)

        async def deliver(permit: Permit[SendMessage]) -> JsonValue:
            await self._post.deliver(permit, letter)
            return None

        done = await self._through.perform(asked, self._addressed(asked, letter, deliver))
        return from_json(done.effect_id, join(Label(Integrity.SYSTEM, sources=(done.effect_id,)), done.mark))

    async def ask(self, agent: Value, message: Value, span: ast.Span) -> Value:
        """The answer, under its own label, joined with that of the address."""
        asked, letter = self._message(agent, message, span, expects_reply=True)

        async def ask(permit: Permit[SendMessage]) -> JsonValue:
            async with self._through.clock().away():
                answer = await self._post.ask(permit, letter)
            return {VALUE: answer.value, LABEL: label_json(answer.label)}

        done = await self._through.perform(asked, self._addressed(asked, letter, ask))
        await self._through.clock().boundary()  # its seat is its own again before it goes on
        answer = read_label(done.value[LABEL])
        return from_json(done.value[VALUE], join(answer, agent.label, Label(sources=(done.effect_id,)), done.mark))

    async def publish(self, topic: Value, message: Value, span: ast.Span) -> Value:
        """How many agents get it."""
        name = self._address(topic, span, "topic")
        if not is_topic(name):
            msg = f"`{shown_name(name)}` is not the name of a topic"
            hint = "write words with dots between them: `incidents.open`"
            raise ScriptFailed(msg, place=span.place(self._file), hint=hint)
        body, letter = self._written(message, topic.label, span)
        action = PublishMessage(
            principal=letter.sender,
            slot=self._through.slot(),
            label=letter.whole,
            topic=self._post.topic(name),
            body=body,
        )

        async def publish(permit: Permit[PublishMessage]) -> JsonValue:
            return await self._post.publish(permit, letter)

        done = await self._through.perform(action, self._through.gated(action, publish))
        return from_json(done.value, join(Label(Integrity.SYSTEM, sources=(done.effect_id,)), done.mark))

    @property
    def _post(self) -> Post:
        if self._reach is None:
            raise ScriptFailed("messages get nowhere here", code="input.agent")
        return self._reach

    def _message(
        self,
        agent: Value,
        message: Value,
        span: ast.Span,
        *,
        expects_reply: bool = False,
        after_s: float = 0.0,
        label: Label = TEMPLATE,
    ) -> tuple[SendMessage, Letter]:
        """A message as it is asked for: whether there is such an agent now is not for a replay to know."""
        name = self._address(agent, span, "agent")
        if not AGENT_ADDRESS.fullmatch(name):
            msg = f"`{shown_name(name)}` is not the name of an agent"
            raise ScriptFailed(msg, place=span.place(self._file), hint="write `NAME`, or `NAME/INSTANCE`")
        body, letter = self._written(message, join(agent.label, label), span)
        declared, _, instance = name.partition("/")
        action = SendMessage(
            principal=letter.sender,
            slot=self._through.slot(),
            label=letter.whole,
            to=Principal(AgentId(declared), instance=instance),
            body=body,
            expects_reply=expects_reply,
            after_s=after_s,
        )
        return action, letter

    def _address(self, address: Value, span: ast.Span, kind: str) -> str:
        """An address, where there is a way to one; it stands readable in ledger and trail, so that nothing about anybody may be in it."""
        assert self._post
        if not isinstance(address.data, str):
            raise ScriptFailed(f"the name of an {kind} must be a String", place=span.place(self._file))
        if address.label.subjects:
            msg = f"the name of an {kind} cannot be made of what is about a data subject"
            raise ScriptFailed(msg, place=span.place(self._file))
        return text(address)

    def _written(self, message: Value, address: Label, span: ast.Span) -> tuple[JsonValue, Letter]:
        body = to_json(message, span, self._file)
        size = len(encode_result(body))
        if size > MAX_MESSAGE_BYTES:
            msg = f"a message of {size} bytes is over the bound of {MAX_MESSAGE_BYTES}"
            raise OutputLimit(msg, code="limit.message", place=span.place(self._file))
        parts: dict[str, Label] = {}
        if isinstance(message.data, Mapping):
            shape = join(address, message.label)
            parts = {name: join(shape, deep_label(item)) for name, item in message.data.items()}
        whole = join(address, deep_label(message))
        clock = self._through.clock
        return body, replace(self._letter, whole=whole, parts=parts, timed_out=lambda: clock().timed_out)

    def _seconds(self, after: Value, span: ast.Span) -> float:
        seconds = after.data
        if seconds is None:
            return 0.0
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= MAX_AFTER_S:
            msg = f"`after` is a number of seconds from 0 to {MAX_AFTER_S:g}"
            raise ScriptFailed(msg, place=span.place(self._file), hint="write e.g. `after = 5m`")
        return float(seconds)

    def _addressed(
        self, asked: SendMessage, letter: Letter, effect: Callable[[Permit[SendMessage]], Awaitable[JsonValue]]
    ) -> Callable[[], Awaitable[Any]]:
        """An effect with the agent that it is for; what does not get to the gate has its record and its place in the trail."""

        async def fitting(permit: Permit[SendMessage]) -> JsonValue:
            try:
                return await effect(permit)
            except InputError as unfit:
                raise _told(unfit) from None

        async def call() -> Any:
            try:
                to = await self._post.address(asked, letter)
            except InputError as unfit:
                refusal = _told(unfit)
                await self._refuse(asked, letter, refusal)
                raise refusal from None
            return await self._through.gated(replace(asked, to=to), fitting)()

        return call

    async def _refuse(self, asked: SendMessage, letter: Letter, refusal: SymbiError) -> None:
        assert asked.slot is not None
        details: dict[str, JsonValue] = {
            "resource": asked.to.name,
            "position": asked.slot.position,
            "code": refusal.code,
            "reason": refusal.message,
        }
        draft = Draft(AuditEventType.MESSAGE_REFUSED, letter.sender.name, details, letter.run_id)
        await self._guard.refuse(asked, refusal, draft)


def _told(unfit: InputError) -> ScriptFailed:
    """What is wrong with a message, for the body that wrote it."""
    return ScriptFailed(unfit.message, code=unfit.code, hint=unfit.hint)
