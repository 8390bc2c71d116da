"""Those who receive: a subscription or a mailbox, its consumer, and the task that lives while there is something to take."""

import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, TypeAlias, TypeVar

import anyio
from anyio.abc import TaskGroup

from symbi.audit.log import AuditLog
from symbi.bus.codec import Codec, Opened
from symbi.bus.content import Content, Kind, Message, Reading, contents, message_of
from symbi.bus.parcels import Delivery, Parcel
from symbi.bus.passages import Flow, Passages, size_class
from symbi.bus.port import Consumer
from symbi.bus.record import Record
from symbi.clock import Clock
from symbi.errors import Denied, MessageRefused, SymbiError, Unavailable
from symbi.telemetry import BUS_RECEIVED, Metrics
from symbi.types import AgentId

T = TypeVar("T")
_log = logging.getLogger("symbi.bus")

TAKEN_AT_ONCE: Final = 256
STORE_RETRY_S: Final = 1.0
LISTENERS: Final = AgentId("symbi.bus")
"""Whose window of sequences the topics of a process have: a message of a topic is opened once for all who listen here."""

Handler: TypeAlias = Callable[[Message[T]], object]
"""Takes a message; what it returns is awaited if it can be, and is the answer where one was asked for."""


@dataclass(frozen=True, slots=True)
class RetryTerms:
    """What is done where a handler fails.

    Attributes:
        attempts: So often it is tried in all.
        first_s: Until the second attempt; twice as long before each further one.
        most_s: Never longer than that.
    """

    attempts: int = 8
    first_s: float = 0.5
    most_s: float = 60.0

    def delay_s(self, attempts: int) -> float:
        """Seconds until the next one after so many."""
        return min(self.most_s, self.first_s * 2.0 ** min(attempts - 1, 62))


@dataclass(frozen=True, slots=True)
class Desk:
    """What whoever receives works with.

    Attributes:
        codec: Opens what was not kept.
        log: Where the store's thread is.
        read: Opens what the store keeps, there.
        passages: Says whether what waits may still pass.
        record: Counts.
        metrics: Likewise.
        tasks: Where work goes on.
        sleep: Waits so many seconds.
        clock: Tells when a request is too late.
        retry: Where handlers fail.
    """

    codec: Codec
    log: AuditLog
    read: Callable[[bytes, AgentId], Opened]
    passages: Passages
    record: Record
    metrics: Metrics
    tasks: TaskGroup
    sleep: Callable[[float], Awaitable[None]]
    clock: Clock
    retry: RetryTerms


@dataclass(slots=True, eq=False)
class Inside:
    """What a parcel says, kept beside it."""

    opened: Opened
    content: Content
    version: str


async def call(handler: Handler[Any], message: Message[Any]) -> object:
    """Have a handler take a message."""
    result = handler(message)
    return await result if inspect.isawaitable(result) else result


def flow_of(inside: Inside) -> Flow:
    """What decision a message was let through by."""
    opened, content = inside.opened, inside.content
    flow = opened.flow
    return Flow(
        flow.sender, flow.address.name, flow.address.is_topic, content.label, size_class(len(content.body)),
        content.kind is Kind.REQUEST,
    )  # fmt: skip


def read_kept(
    read: Callable[[bytes, AgentId], Opened], wires: Sequence[bytes], reader: AgentId
) -> list[Opened | MessageRefused]:
    """Open what the store keeps, on its thread."""
    found: list[Opened | MessageRefused] = []
    for wire in wires:
        try:
            found.append(read(wire, reader))
        except MessageRefused as refusal:
            found.append(refusal)
    return found


def _require_id(opened: Opened, parcel: Parcel) -> None:
    """Return if what was opened is what the stream knows by its id.

    Raises:
        MessageRefused: It is another one.
    """
    if opened.message_id != parcel.message_id:
        raise MessageRefused("a message in the stream is not the one that was put there")


def require_place(opened: Opened, subject: str) -> None:
    """Return if a message came where it is addressed to: whoever may write there is not believed.

    Args:
        opened: The message.
        subject: Where it was published: `t.` and a topic, or another letter and an agent.

    Raises:
        MessageRefused: It is for another topic, or for an agent.
    """
    address = opened.flow.address
    if subject[2:] != address.name or subject.startswith("t.") is not address.is_topic:
        raise MessageRefused("the message is not where it is addressed to", code="message.recipient")


class Receiver(Generic[T]):
    """One who receives: takes what waits, in order, in a task that ends when nothing does.

    Args:
        desk: What it works with.
        me: The agent.
        subject: Under which it is counted: `t.` and the pattern, or `a.` and the agent.
        reading: Reads bodies.
        handler: Takes messages.
        reader: Whose window of sequences counts.
    """

    def __init__(
        self, desk: Desk, me: AgentId, subject: str, reading: Reading[T], handler: Handler[T], reader: AgentId
    ) -> None:
        self.me = me
        self.subject = subject
        self.consumer: Consumer | None = None
        self.handler = handler
        self.reading = reading
        self.ended: SymbiError | None = None
        self._desk = desk
        self._reader = reader
        self._running = False
        self._later_s: float | None = None

    def wake(self) -> None:
        """There is something to take."""
        if not self._running and self.ended is None:
            self._running = True
            self._desk.tasks.start_soon(self._run)

    @property
    def name(self) -> str:
        """As statistics call it."""
        return self.me

    def standing(self) -> tuple[int, int]:
        """Messages that wait for it, and those that were dropped; what waits in the outbox is not counted."""
        return (0, 0) if self.consumer is None else self.consumer.standing()

    @property
    def idle(self) -> bool:
        """Nothing is being taken."""
        return not self._running

    async def _run(self) -> None:
        taken: Sequence[Delivery] = ()
        consumer = self.consumer
        try:
            while (consumer := self.consumer) is not None and self.ended is None:
                taken = consumer.take(TAKEN_AT_ONCE)
                if not taken or not await self.may_receive():
                    return
                await self._deliver(taken)
                await anyio.lowlevel.checkpoint()  # others have their turn, also where no handler waits
        except SymbiError as error:  # what a stream keeps comes again: once the store is there, or the master key is
            if isinstance(error, Unavailable):
                _log.warning("`%s` waits for the store: %s", self.subject, error.code)
            else:
                _log.error("`%s` cannot be given what waits: %s: %s", self.subject, error.code, error)
            for one in taken:
                if one.position and consumer is not None:
                    await consumer.refuse(one.position, STORE_RETRY_S)
            self._desk.tasks.start_soon(self._wake_after, STORE_RETRY_S)
        finally:
            self._running = False

    async def may_receive(self) -> bool:
        """Whether policy still lets it listen; a mailbox is let by each sender's decision."""
        return True

    async def _deliver(self, taken: Sequence[Delivery]) -> None:
        consumer, passages = self.consumer, self._desk.passages
        version = passages.version
        await self._open([one for one in taken if one.parcel.opened is None])
        if self.consumer is None or consumer is None:
            return  # it was closed meanwhile; what a stream keeps comes again
        done: list[int] = []
        received = 0
        try:
            for one in taken:
                while passages.version != version:  # so is who listens, also in the midst of what it has taken
                    version = passages.version
                    if not await self.may_receive():
                        return
                outcome = await self._give(one)
                if outcome is not None:
                    received += outcome
                    done.append(one.position)
        finally:
            self._desk.record.of(self.subject).received += received
            if received:
                self._desk.metrics.inc(BUS_RECEIVED, received, outcome="received")
            if done[-1:] and done[-1]:
                await consumer.acknowledge(done)  # also where it was closed meanwhile: the handler has them

    async def _give(self, one: Delivery) -> bool | None:
        """Give one message to the handler: whether it has it; None where it is to be given again later."""
        desk, inside = self._desk, one.parcel.opened
        if isinstance(inside, MessageRefused):
            desk.record.refused(self.subject, inside.code)
            return False
        assert isinstance(inside, Inside)
        try:
            # What waited while the policies changed is decided again before anybody has it.
            if inside.version != desk.passages.version and not await self._still(inside, one):
                return False
            result = self.take(inside, one)
            if result is not None and inspect.isawaitable(result):
                await result
        except MessageRefused as refusal:
            desk.record.refused(self.subject, refusal.code)
        except Exception as error:  # noqa: BLE001 - what a handler raises ends neither the bus nor those who wait behind
            desk.record.of(self.subject).failed += 1
            desk.metrics.inc(BUS_RECEIVED, outcome="failed")
            _log.warning("a handler failed", exc_info=error)
            return None if await self._again(one) else False
        else:
            return True
        return False

    async def _open(self, new: Sequence[Delivery]) -> None:
        """Open what nobody in this process has opened yet.

        What a stream keeps comes again until it is acknowledged; that it is there once, by its id, takes the place of
        the window of sequences.
        """
        if not new:
            return
        codec, kept = self._desk.codec, new[0].position > 0  # all of a consumer, or none
        wires = [one.parcel.data for one in new]
        if kept:
            found = await self._desk.log.read(partial(read_kept, self._desk.read, wires, self._reader))
        else:
            found = codec.open_many(wires, self._reader)
        for one, opened in zip(new, found, strict=True):
            parcel = one.parcel
            if isinstance(opened, MessageRefused):
                parcel.opened = opened
                continue
            try:
                require_place(opened, one.subject)
                if kept:
                    _require_id(opened, parcel)
                parcel.opened = Inside(opened, contents(opened.payload), parcel.version)
            except MessageRefused as refusal:
                parcel.opened = refusal

    async def _still(self, inside: Inside, delivery: Delivery) -> bool:
        try:
            await self._desk.passages.still(flow_of(inside), inside.opened.message_id, delivery.parcel.data)
        except Denied as denial:
            self._desk.record.refused(self.subject, denial.code)
            return False
        inside.version = self._desk.passages.version
        return True

    def take(self, inside: Inside, one: Delivery) -> object:
        """Take one message; what comes back is awaited if it can be.

        Raises:
            MessageRefused: It is not for here, or its body is of another type.
        """
        if inside.content.kind is not Kind.TELL:
            raise MessageRefused("an answer or a question came where there are none", code="message.malformed")
        body = self.reading.body(inside.opened.flow.content_type, inside.content.body)
        return self.handler(message_of(inside.opened, inside.content, body, position=one.position, attempt=one.attempt))

    async def _again(self, one: Delivery) -> bool:
        """Whether the message is given again later: a durable subscription's is, up to a bound."""
        retry = self._desk.retry
        if not one.position or self.consumer is None or one.attempt >= retry.attempts:
            return False
        delay_s = retry.delay_s(one.attempt)
        self._desk.record.of(self.subject).again += 1
        await self.consumer.refuse(one.position, delay_s)
        self._desk.tasks.start_soon(self._wake_after, delay_s)
        return True

    async def _wake_after(self, seconds: float) -> None:
        await self._desk.sleep(seconds)
        self.wake()

    async def close(self) -> None:
        """Receive nothing more."""
        consumer, self.consumer = self.consumer, None
        if consumer is not None:
            await consumer.close()
