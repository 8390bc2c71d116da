"""Those who send: bodies become sealed parcels, within bounds, by one decision, and are handed over."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import anyio
import anyio.lowlevel

from symbi.bus.codec import Outgoing
from symbi.bus.content import NO_LABEL, Kind, body_bytes, opening
from symbi.bus.envelope import Address
from symbi.bus.parcels import Parcel
from symbi.bus.passages import MAX_RENEWALS, Flow, Passages, size_class
from symbi.bus.ratelimit import Limits
from symbi.bus.receiving import Inside
from symbi.bus.record import Record
from symbi.bus.rooms import BusRooms, BusTerms, Labelled
from symbi.dsl.messages import AGENT_ADDRESS, is_topic
from symbi.errors import InputError, MessageRefused, Overloaded, PermitRefused, SymbiError
from symbi.guard.action import TopicRef
from symbi.guard.conditions import ONE_BY_ONE
from symbi.guard.lease import Lease
from symbi.types import AgentId, Label

MAX_GROUP: Final = 256  # messages that are published one by one and sealed together
BY_LEASE: Final = nullcontext()  # what was spent of a lease was decided
MAX_TOPICS: Final = 65_536  # of which it is remembered how policies see them

Handing: TypeAlias = AbstractAsyncContextManager[object]
"""Inside of it messages are handed over that may pass."""

Encoded: TypeAlias = tuple[str, bytes]
"""The media type of a body, and the body as it travels."""


def agent_named(name: str) -> AgentId:
    """An agent's name.

    Raises:
        InputError: It is none.
    """
    if AGENT_ADDRESS.fullmatch(name) is None:
        raise InputError("an agent is `NAME` or `NAME/INSTANCE`", code="message.recipient")
    return AgentId(name)


@dataclass(slots=True, eq=False)
class _Turn:
    """Messages that are published one by one within one turn of the event loop."""

    bodies: list[Encoded]
    over: anyio.Event = field(default_factory=anyio.Event)
    reached: int = 0
    error: BaseException | None = None


class Sender:
    """Seals what is sent, and lets it pass.

    Args:
        rooms: What the bus stands on.
        terms: What it is told.
        record: What is kept of what passed.
    """

    def __init__(self, rooms: BusRooms, terms: BusTerms, record: Record) -> None:
        self._rooms = rooms
        self._terms = terms
        self._record = record
        self._limits = Limits(terms.rates)
        self._turns: dict[tuple[AgentId, str, Label], _Turn] = {}
        self._topics: dict[str, TopicRef] = {}
        self.passages = Passages(rooms.guard, rooms.clock, terms.leases, rooms.principal, self._topic)

    async def publish(self, sender: str, topic: str, body: object, *, label: Label = NO_LABEL) -> int:
        """Say something to whoever listens to a topic. What is published in one turn of the loop is sealed together.

        Args:
            sender: The agent.
            topic: Words with dots between them.
            body: JSON, or bytes.
            label: Of the body.

        Returns:
            How many subscriptions got it.

        Raises:
            InputError: Topic, sender or body is none, or the body is too large.
            Denied: Policy does not let it pass, or the sender sends too much.
            Overloaded: A subscription refuses where its buffer is full, and it is.
            StoreUnavailable: The decision cannot be recorded, or a durable subscription cannot keep it.
        """
        encoded = self._encoded([body], f"t.{topic}")  # a body that is none is the error of its own caller alone
        key = AgentId(sender), topic, label
        turn = self._turns.get(key)
        if turn is not None and len(turn.bodies) < MAX_GROUP:
            turn.bodies += encoded
            await turn.over.wait()
        else:
            turn = self._turns[key] = _Turn(encoded)
            with anyio.CancelScope(shield=True):  # others go with it
                await anyio.lowlevel.checkpoint()
                if self._turns.get(key) is turn:
                    del self._turns[key]
                try:
                    turn.reached = await self._publish(sender, topic, turn.bodies, label)
                except Exception as error:  # noqa: BLE001 - each of those who wait raises it
                    turn.error = error
                finally:
                    turn.over.set()
        if turn.error is not None:
            raise turn.error
        return turn.reached

    async def publish_many(self, sender: str, topic: str, bodies: Sequence[object], *, label: Label = NO_LABEL) -> int:
        """Say several things, in their order, by one decision and under one signature: all of them, or none.

        Raises:
            As `publish`.
        """
        return await self._publish(sender, topic, self._encoded(bodies, f"t.{topic}"), label)

    async def _publish(self, sender: str, topic: str, bodies: Sequence[Encoded], label: Label) -> int:
        if not is_topic(topic):
            msg = "a topic is words of letters, digits, `_` and `-`, with dots between them"
            raise InputError(msg, code="input.topic")
        if not bodies:
            return 0
        me, subject = agent_named(sender), f"t.{topic}"
        try:
            parcels, held = await self.let_pass("publish", me, Address(topic, is_topic=True), bodies, label)
            async with held:
                reached = await self._rooms.transport.publish(subject, parcels)
        except SymbiError as refusal:
            self._record.refused(subject, refusal.code, len(bodies))
            raise
        self._record.of(subject).handed += reached * len(parcels)
        await anyio.lowlevel.checkpoint()  # those who receive have their turn
        return reached

    async def answer(self, inside: Inside, kind: Kind, result: object) -> None:
        """Send an answer back; the decision that let the question pass covers it.

        Raises:
            InputError: The answer cannot be sent.
            Overloaded: Too many answers wait for whoever asked.
        """
        asked, asker = AgentId(inside.opened.flow.address.name), inside.opened.flow.sender
        body, label = (result.body, result.label) if isinstance(result, Labelled) else (result, inside.content.label)
        try:
            await self.signal(asked, asker, kind, inside.opened.id, body, label)
        except InputError as unfit:
            if kind is not Kind.ANSWER:
                raise
            await self.signal(asked, asker, Kind.FAILURE, inside.opened.id, unfit.code.encode())

    async def signal(
        self, sender: AgentId, to: AgentId, kind: Kind, answers: bytes, body: object = b"", label: Label = NO_LABEL
    ) -> None:
        """Send what belongs to a question: the decision that let that pass covers it.

        Raises:
            InputError: The body cannot be sent.
            Overloaded: Whoever is to get it has no room.
        """
        subject = f"c.{to}" if kind is Kind.CANCEL else f"r.{to}"
        bodies = self._fitting([body])
        await self._ready(sender, Address(to), 1)
        parcels = self._sealed(sender, Address(to), bodies, opening(kind, label, answers))
        self._record.passed(kind.name.lower(), sender, f"a.{to}", parcels)
        await self._rooms.transport.publish(subject, parcels)

    async def tell(
        self, pattern: str, sender: AgentId, to: AgentId, body: object, label: Label, **how: Any
    ) -> tuple[Parcel, Handing]:
        """One message for an agent, as `let_pass` says."""
        (parcel,), held = await self.let_pass(pattern, sender, Address(to), self._fitting([body]), label, **how)
        return parcel, held

    async def let_pass(  # noqa: PLR0913 - what a message has
        self,
        pattern: str,
        sender: AgentId,
        address: Address,
        bodies: Sequence[Encoded],
        label: Label,
        *,
        kind: Kind = Kind.TELL,
        expires_ns: int = 0,
        ids: Sequence[str] | None = None,
    ) -> tuple[list[Parcel], Handing]:
        """Let messages pass the gate, within the bounds of their sender, and seal them.

        By lease they are sealed once it is decided, for whatever their sender says meanwhile has a later sequence. Each
        by itself is decided when it is sealed, by its digest. They are handed over inside of the second part of what
        comes back, and nothing is waited for before.

        Raises:
            Denied: Policy does not let them pass, or the sender sends too much.
            InputError, MessageRefused: They cannot be sealed.
            Overloaded, StoreUnavailable: As `Passages.grant`.
        """
        sizes = [len(data) for _, data in bodies]
        now_s, before = self._rooms.clock.monotonic_s(), opening(kind, label)
        self._limits.take(sender, address.name, len(sizes), sum(sizes), now_s, topic=address.is_topic)
        flow = Flow(sender, address.name, address.is_topic, label, size_class(max(sizes)), kind is Kind.REQUEST)
        subject = f"{'t' if address.is_topic else 'a'}.{address.name}"
        for tries in range(MAX_RENEWALS):
            await self._ready(sender, address, len(sizes))
            lease = await self._lease(flow, len(sizes))
            try:
                parcels = self._sealed(sender, address, bodies, before, expires_ns, ids, private=bool(label.subjects))
            except Overloaded:
                if tries == MAX_RENEWALS - 1:
                    raise
                continue  # others have taken the sequences while it was decided
            if lease is not None:
                lease.spend(len(parcels), self._record.passed(pattern, sender, subject, parcels))
                return parcels, BY_LEASE
            held = await self.passages.each(flow, [(one.message_id, one.data) for one in parcels])
            self._record.passed(pattern, sender, subject, parcels)
            return parcels, held
        raise AssertionError

    async def _lease(self, flow: Flow, count: int) -> Lease[Any] | None:
        """A lease for so many messages; None where policy wants each by itself."""
        try:
            return await self.passages.grant(flow, count)
        except PermitRefused as refusal:
            if refusal.code != ONE_BY_ONE:
                raise
            return None

    async def _ready(self, sender: AgentId, address: Address, count: int) -> None:
        if self._rooms.ready is not None:
            await self._rooms.ready(sender, address, count)

    def _fitting(self, bodies: Sequence[object]) -> list[Encoded]:
        """Bodies as they travel.

        Raises:
            InputError: One of them cannot stand in JSON.
            MessageRefused: `message.size`; one of them is too large.
        """
        encoded = [body_bytes(one) for one in bodies]
        largest = max([len(data) for _, data in encoded], default=0)
        if largest > self._terms.message_bytes:
            msg = f"a message of {largest} bytes, and {self._terms.message_bytes} are taken"
            raise MessageRefused(msg, code="message.size")
        return encoded

    def _encoded(self, bodies: Sequence[object], subject: str) -> list[Encoded]:
        """As `_fitting`; what does not fit is counted."""
        try:
            return self._fitting(bodies)
        except SymbiError as refusal:
            self._record.refused(subject, refusal.code, len(bodies))
            raise

    def _sealed(
        self,
        sender: AgentId,
        address: Address,
        bodies: Sequence[Encoded],
        before: bytes,
        expires_ns: int = 0,
        ids: Sequence[str] | None = None,
        *,
        private: bool = False,
    ) -> list[Parcel]:
        version = self.passages.version
        names: Sequence[str | bytes] = ids or self._rooms.ids.several_packed(len(bodies))
        wires = self._rooms.codec.seal_many(
            [
                Outgoing(id_, sender, address, before + data, content_type, expires_ns)
                for id_, (content_type, data) in zip(names, bodies, strict=True)
            ]
        )
        return [Parcel(id_, wire, version, private=private) for id_, wire in zip(names, wires, strict=True)]

    def _topic(self, name: str) -> TopicRef:
        found = self._topics.get(name)
        if found is None:
            if len(self._topics) >= MAX_TOPICS:
                self._topics.clear()
            found = self._topics[name] = self._rooms.topic(name)
        return found
