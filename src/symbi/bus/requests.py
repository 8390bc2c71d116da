"""Questions that wait for an answer, and answers on their way back."""

from dataclasses import dataclass, field
from typing import Any, Final

import anyio

from symbi.bus.content import Kind, Message, Reading
from symbi.bus.parcels import Delivery
from symbi.bus.receiving import Desk, Handler, Inside, Receiver, call, flow_of
from symbi.errors import AskFailed, MessageRefused, SymbiError
from symbi.types import AgentId, Label

MAX_ANSWERING: Final = 256  # requests of one mailbox that are worked on at a time; further ones wait in its buffer


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Attributes:
        body: Of the type that the asker has said.
        sender: Who was asked.
        label: Of the body.
    """

    body: Any
    sender: AgentId
    label: Label


@dataclass(slots=True, eq=False)
class Pending:
    """A question that waits.

    Attributes:
        asker, asked: Who waits, and for whom.
        reading: Reads the answer.
        over: Set when there is one.
        answer, error: The answer, or why there is none.
    """

    asker: AgentId
    asked: AgentId
    reading: Reading[Any]
    over: anyio.Event = field(default_factory=anyio.Event)
    answer: Answer | None = None
    error: SymbiError | None = None


class Questions:
    """All questions of a bus that wait, by the id of their message."""

    def __init__(self) -> None:
        self._pending: dict[bytes, Pending] = {}
        self._working: dict[bytes, tuple[AgentId, anyio.CancelScope]] = {}

    def __len__(self) -> int:
        """How many wait."""
        return len(self._pending)

    def askers(self) -> set[AgentId]:
        """Who waits for an answer."""
        return {one.asker for one in self._pending.values()}

    @property
    def working(self) -> int:
        """How many are being answered here."""
        return len(self._working)

    def begin(self, id_: bytes, pending: Pending) -> None:
        """Wait for an answer."""
        self._pending[id_] = pending

    def end(self, id_: bytes) -> None:
        """Wait no longer."""
        self._pending.pop(id_, None)

    def answered(self, inside: Inside, me: AgentId) -> None:
        """Take an answer.

        Raises:
            MessageRefused: `message.answer`; nobody here waits for it, or somebody else was asked.
        """
        content, sender = inside.content, inside.opened.flow.sender
        pending = self._pending.get(content.answers)
        if pending is None or pending.over.is_set() or pending.asker != me:
            raise MessageRefused("nobody waits for this answer", code="message.answer")
        if pending.asked != sender:
            raise MessageRefused("somebody answers who was not asked", code="message.answer")
        if content.kind is Kind.ANSWER:
            try:
                body = pending.reading.body(inside.opened.flow.content_type, content.body)
                pending.answer = Answer(body, sender, content.label)
            except MessageRefused as refusal:
                pending.error = refusal
        else:
            code = content.body[:100].decode("ascii", "replace")
            msg = f"agent `{sender}` did not answer: {code}"
            pending.error = AskFailed(msg, reason=code)
        pending.over.set()

    def cancelled(self, inside: Inside) -> None:
        """Stop to work on what its asker does not wait for any more."""
        asker, scope = self._working.get(inside.content.answers, (None, None))
        if scope is not None and asker == inside.opened.flow.sender:
            scope.cancel("nobody waits for the answer")

    async def work(self, desk: Desk, handler: Handler[Any], inside: Inside, message: Message[Any]) -> tuple[Kind, Any]:
        """Have a request answered, in as much time as its asker waits; returns what is to be sent back.

        Raises:
            Denied: The request may not pass any more, and so its answer may not.
            MessageRefused: Its time was over before its turn came.
        """
        id_, expires_ns = inside.opened.id, inside.opened.expires_ns
        # It has waited for its turn: the policies may be others since it was taken, and its time may be over.
        if inside.version != desk.passages.version:
            await desk.passages.grant(flow_of(inside))
            inside.version = desk.passages.version
        limit_s = (expires_ns - desk.clock.now_ns()) / 1e9 if expires_ns else None
        if limit_s is not None and limit_s <= 0:
            raise MessageRefused("the time of the question is over", code="message.expired")
        result: tuple[Kind, Any] = (Kind.FAILURE, b"message.cancelled")
        with anyio.CancelScope() as scope, anyio.move_on_after(limit_s):
            self._working[id_] = inside.opened.flow.sender, scope
            try:
                result = Kind.ANSWER, await call(handler, message)
            except SymbiError as error:
                result = Kind.FAILURE, error.code.encode()
            except Exception:  # noqa: BLE001 - whoever asked is told, and learns nothing of what went wrong inside
                result = Kind.FAILURE, b"message.handler"
            finally:
                del self._working[id_]
        if inside.version != desk.passages.version:
            await desk.passages.still(flow_of(inside), inside.opened.message_id)
        return result


class Inbox(Receiver[Any]):
    """Where the answers to an agent's questions come."""

    def __init__(self, desk: Desk, me: AgentId, questions: Questions) -> None:
        super().__init__(desk, me, f"a.{me}", Reading(bytes), _nothing, me)
        self._questions = questions

    async def take(self, inside: Inside, one: Delivery) -> None:
        """Take an answer."""
        del one
        if inside.content.kind not in {Kind.ANSWER, Kind.FAILURE}:
            raise MessageRefused("something else came where answers come", code="message.answer")
        self._questions.answered(inside, self.me)


class Cancellations(Receiver[Any]):
    """Where an agent is told that nobody waits for its answer any more."""

    def __init__(self, desk: Desk, me: AgentId, questions: Questions) -> None:
        super().__init__(desk, me, f"a.{me}", Reading(bytes), _nothing, me)
        self._questions = questions

    async def take(self, inside: Inside, one: Delivery) -> None:
        """Stop what was begun."""
        del one
        if inside.content.kind is not Kind.CANCEL:
            raise MessageRefused("something else came where cancellations come", code="message.malformed")
        self._questions.cancelled(inside)


def _nothing(_message: Message[Any]) -> None:
    """These have no handler of their own."""
