"""`Bus`: messages between agents, in four patterns. Sealed, signed, let through by the gate, bounded everywhere.

| pattern | who gets it | lasts |
|---|---|---|
| `publish` | all who listen to a topic, each once | as long as buffers hold it; durable subscriptions beyond a crash |
| `send_message` | one agent, at least once, in order | until it is received, expires, or is a dead letter |
| `request` | one agent, which answers | until its time is up |
| `broadcast` | each agent of a group that has a mailbox open | as long as its mailbox holds it |
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeVar
from uuid import UUID

import anyio
from anyio.abc import TaskGroup

from symbi.bus.content import NO_LABEL, Kind, Reading
from symbi.bus.envelope import parse_flow
from symbi.bus.mailbox import Mailbox, Subscription
from symbi.bus.outbox import NS, Outbox, Receipt
from symbi.bus.parcels import ConsumerTerms, Overflow
from symbi.bus.port import DeadMessage, SentRow, SentState
from symbi.bus.receiving import Desk, Handler, Inside
from symbi.bus.record import Passed, Record
from symbi.bus.requests import Answer, Inbox, Pending, Questions
from symbi.bus.rooms import DAY_S, BusRooms, BusTerms
from symbi.bus.sending import Sender, agent_named
from symbi.dsl.messages import parse_pattern
from symbi.errors import InputError, SymbiError, TimeLimit, Unavailable
from symbi.guard.action import SubscribeTopic
from symbi.types import AgentId, JsonValue, Label

T = TypeVar("T")

MAX_INBOXES: Final = 16_384  # of agents that ask; beyond it those are closed in which no answer is awaited
MAX_WAIT_S: Final = 36_600 * DAY_S  # a message may wait so long, a hundred years
SWEEP_S: Final = 30.0  # between two looks at leases that have ended, and two windows of the trail


class Bus:
    """Messages between agents of this process; `open_bus` opens one.

    Args:
        rooms: What it stands on.
        terms: What it is told.
        tasks: Where work goes on.
    """

    def __init__(self, rooms: BusRooms, terms: BusTerms, tasks: TaskGroup) -> None:
        self._rooms = rooms
        self._terms = terms
        self._inboxes: dict[AgentId, Inbox] = {}
        self._mailboxes: dict[AgentId, Mailbox] = {}
        self._subscriptions: dict[Subscription, None] = {}
        self.record = Record(rooms.clock, rooms.guard.metrics, rooms.signing)
        self.outbox = Outbox(rooms.store, rooms.log, rooms.clock, self.record, terms.mailbox)
        self.sender = Sender(rooms, terms, self.record)
        self.passages = self.sender.passages
        self.questions = Questions()
        self.desk = Desk(
            rooms.codec,
            rooms.log,
            rooms.read,
            self.passages,
            self.record,
            rooms.guard.metrics,
            tasks,
            rooms.sleep,
            rooms.clock,
            terms.retry,
        )

    # --- topics ---------------------------------------------------------------------------------

    async def publish(self, sender: str, topic: str, body: object, *, label: Label = NO_LABEL) -> int:
        """Say something to whoever listens to a topic; see `symbi.bus.sending`."""
        return await self.sender.publish(sender, topic, body, label=label)

    async def publish_many(self, sender: str, topic: str, bodies: Sequence[object], *, label: Label = NO_LABEL) -> int:
        """Say several things, in their order, by one decision and under one signature: all of them, or none."""
        return await self.sender.publish_many(sender, topic, bodies, label=label)

    async def subscribe(
        self,
        agent: str,
        pattern: str,
        handler: Handler[T],
        type_: type[T] | Any = Any,
        *,
        terms: ConsumerTerms | None = None,
    ) -> Subscription:
        """Listen to topics.

        Args:
            agent: Who listens.
            pattern: `*` stands for one word, `>` at the end for all that are left.
            handler: Takes each message once; messages of one topic come in the order of each sender.
            type_: What bodies are; a message with another body is refused.
            terms: Buffer and overflow; `durable` names a subscription that goes on where it was.

        Raises:
            InputError: The pattern is none, or the name of a durable one is taken.
            Denied: Policy does not let it listen.
            StoreUnavailable: The decision cannot be recorded.
        """
        me = agent_named(agent)
        parse_pattern(pattern)
        terms = terms or ConsumerTerms(most_bytes=self._terms.buffer_bytes)
        subscription = Subscription(self.desk, me, pattern, Reading(type_), handler, self._may_listen)
        subscription.durable = bool(terms.durable)
        await self._may_listen(subscription)
        subscription.consumer = await self._rooms.transport.consume(f"t.{pattern}", terms, subscription.wake)
        subscription.gone = self._gone
        self._subscriptions[subscription] = None
        subscription.wake()
        return subscription

    def _gone(self, subscription: Subscription) -> None:
        """It is closed; who listens no more, for good, is to read nothing that is published from now on."""
        self._subscriptions.pop(subscription, None)
        if subscription.ended is not None or not subscription.durable:
            self._rooms.left(subscription.pattern)

    async def _may_listen(self, subscription: Subscription) -> None:
        """Put it to policy whether an agent may listen, and remember by which set that was decided."""
        guard, version = self._rooms.guard, self.passages.version
        principal = self._rooms.principal(subscription.me)
        action = SubscribeTopic(principal=principal, topic=self._rooms.topic(subscription.pattern))
        async with guard.enforce(action) as permit:
            guard.authority.redeem(permit, SubscribeTopic)
            subscription.version = version

    # --- one to one -------------------------------------------------------------------------------

    async def open_mailbox(
        self, agent: str, handler: Handler[T], type_: type[T] | Any = Any, *, groups: Sequence[str] = ()
    ) -> Mailbox:
        """Let an agent receive what is sent to it, and what waits for it since before.

        Args:
            agent: Who.
            handler: Takes messages in the order of each sender; for a request it returns the answer, or raises.
            type_: What bodies are.
            groups: By which it is reached beside those that the configuration says.

        Raises:
            InputError: It has one open already.
            StoreUnavailable: The outbox cannot be read.
        """
        me = agent_named(agent)
        if me in self._mailboxes:
            msg = f"the mailbox of agent `{me}` is open already"
            raise InputError(msg, code="message.recipient")
        mailbox = Mailbox(self, me, Reading(type_), handler, frozenset(groups) | set(self._rooms.principal(me).groups))
        self._mailboxes[me] = mailbox
        await mailbox.open(self._rooms.transport, self._buffer())
        return mailbox

    def closed(self, mailbox: Mailbox) -> None:
        """It is not open any more."""
        self._mailboxes.pop(mailbox.me, None)

    async def send_message(
        self,
        sender: str,
        recipient: str,
        body: object,
        *,
        message_id: str = "",
        ttl_s: float | None = None,
        label: Label = NO_LABEL,
    ) -> Receipt:
        """Send a message that arrives; returns when it is durable.

        Args:
            sender: The agent that sends.
            recipient: The agent that is to get it.
            body: JSON, or bytes.
            message_id: A UUID; the same id sent again is the same message. A new one if empty.
            ttl_s: For how long it may wait; it is a dead letter then.
            label: Of the body.

        Raises:
            InputError: An agent, the body or the time is none, there is no such recipient, or the body is about a data subject.
            MessageRefused: The body is too large, or the id is none.
            Denied, StoreUnavailable: As `publish`.
            Overloaded: As many messages wait for the recipient as may.
        """
        me, to = agent_named(sender), self._recipient(recipient)
        subject = f"a.{to}"
        if label.subjects:
            msg = "what is about a data subject is not kept in the outbox"
            hint = "agents send it to one another with `send`, which seals it under the subject's key"
            raise InputError(msg, code="message.subject", hint=hint)
        now = self._rooms.clock.now_ns()
        expires_ns = now + _nanoseconds(self._terms.ttl_s if ttl_s is None else ttl_s, "ttl_s")
        try:
            parcel, held = await self.sender.tell(
                "send", me, to, body, label, expires_ns=expires_ns, ids=[message_id] if message_id else None
            )
            epoch = parse_flow(parcel.data).epoch
            row = SentRow(parcel.message_id, me, to, parcel.data, SentState.WAITING, 0, 0, expires_ns, "", now, epoch)
            async with held:
                receipt = await self.outbox.put(row)
        except SymbiError as refusal:
            self.record.refused(subject, refusal.code)
            raise
        mailbox = self._mailboxes.get(to)
        if mailbox is not None and not receipt.again:
            mailbox.feed.wake()
        return receipt

    async def request(
        self,
        sender: str,
        recipient: str,
        body: object,
        *,
        timeout_s: float,
        answer: type[Any] | Any = Any,
        label: Label = NO_LABEL,
    ) -> Answer:
        """Ask an agent, and wait for its answer.

        Args:
            sender: The agent that sends.
            recipient: The agent that is to get it.
            body: JSON, or bytes.
            timeout_s: How long.
            answer: What the answer's body is.
            label: Of the body.

        Raises:
            InputError: As `send_message`, or the recipient has no mailbox open; the body may be about a data subject.
            Denied, StoreUnavailable: As `publish`.
            Overloaded: Its mailbox is full.
            TimeLimit: There was no answer in time; whoever was asked is told to stop.
            AskFailed: It was asked and failed; `fields["reason"]` is the code.
            MessageRefused: The answer is of another type.
        """
        me, to = agent_named(sender), self._recipient(recipient)
        expires_ns = self._rooms.clock.now_ns() + _nanoseconds(timeout_s, "timeout_s")
        await self._inbox(me)
        subject, sent = f"a.{to}", False
        (id_text,) = self._rooms.ids.several(1)
        id_ = UUID(id_text).bytes
        pending = Pending(me, to, Reading(answer))
        self.questions.begin(id_, pending)
        try:
            with anyio.move_on_after(timeout_s):
                parcel, held = await self.sender.tell(
                    "request", me, to, body, label, kind=Kind.REQUEST, expires_ns=expires_ns, ids=[id_text]
                )
                async with held:
                    sent = await self._rooms.transport.publish(subject, [parcel]) > 0
                    if not sent:
                        msg = f"agent `{to}` has no mailbox open"
                        raise InputError(msg, code="message.recipient")
                await pending.over.wait()
        except SymbiError as refusal:
            self.record.refused(subject, refusal.code)
            raise
        finally:
            self.questions.end(id_)
            if sent and not pending.over.is_set():
                with anyio.CancelScope(shield=True), suppress(SymbiError):
                    await self.sender.signal(me, to, Kind.CANCEL, id_)
        if pending.error is not None:
            raise pending.error
        if pending.answer is None:
            msg = f"agent `{to}` did not answer in {timeout_s:g} s"
            raise TimeLimit(msg, code="limit.answer")
        return pending.answer

    async def broadcast(
        self, sender: str, group: str, body: object, *, label: Label = NO_LABEL
    ) -> dict[AgentId, SymbiError | None]:
        """Tell something to each agent of a group that has a mailbox open, whatever becomes of the others; waits for nobody.

        Returns:
            For each agent, None where it is in its mailbox, or why it is not.

        Raises:
            InputError: The sender or the body is none.
        """
        me = agent_named(sender)
        members = [one.me for one in self._mailboxes.values() if group in one.groups and one.me != me]
        outcome: dict[AgentId, SymbiError | None] = dict.fromkeys(members)
        ready = anyio.CapacityLimiter(64)

        async def tell(to: AgentId) -> None:
            async with ready:
                try:
                    parcel, held = await self.sender.tell("broadcast", me, to, body, label)
                    async with held:
                        if not await self._rooms.transport.publish(f"a.{to}", [parcel]):
                            raise InputError(f"agent `{to}` has no mailbox open", code="message.recipient")
                except SymbiError as refusal:
                    self.record.refused(f"a.{to}", refusal.code)
                    outcome[to] = refusal

        async with anyio.create_task_group() as tasks:
            for to in members:
                tasks.start_soon(tell, to)
        return outcome

    async def answer(self, inside: Inside, kind: Kind, result: object) -> None:
        """Send an answer back; see `symbi.bus.sending`."""
        await self.sender.answer(inside, kind, result)

    def _recipient(self, name: str) -> AgentId:
        """Somebody who can be sent to.

        Raises:
            InputError: There is no such agent.
        """
        agent = agent_named(name)
        if agent not in self._mailboxes and not self._rooms.known(agent):
            msg = f"there is no agent `{agent}`"
            raise InputError(msg, code="message.recipient")
        return agent

    def _buffer(self) -> ConsumerTerms:
        return ConsumerTerms(most=self._terms.mailbox, most_bytes=self._terms.buffer_bytes, overflow=Overflow.REFUSE)

    async def _inbox(self, agent: AgentId) -> None:
        if agent not in self._inboxes:
            if len(self._inboxes) >= MAX_INBOXES:
                for name in self._inboxes.keys() - self.questions.askers():
                    await self._inboxes.pop(name).close()
            inbox = self._inboxes[agent] = Inbox(self.desk, agent, self.questions)
            inbox.consumer = await self._rooms.transport.consume(f"r.{agent}", self._buffer(), inbox.wake)

    def keys_changed(self, agent: AgentId, *, destroyed: bool) -> None:
        """An agent has other keys, or none any more: what is sent from now on has the new ones, or cannot be sent.

        Args:
            agent: Whose.
            destroyed: Whether what waits for it is not to be opened any more either.
        """
        self._rooms.changed(agent, destroyed)

    def there(self, declared: AgentId) -> AgentId | None:
        """Of a declaration and its instances, one that has a mailbox or a subscription open; from any thread."""
        open_ = (*list(self._mailboxes.values()), *list(self._subscriptions))
        return next((one.me for one in open_ if one.me.partition("/")[0] == declared), None)

    # --- for whoever looks ------------------------------------------------------------------------

    def stats(self) -> dict[str, JsonValue]:
        """How it stands, by topic and mailbox."""
        counts = self.record.counts()
        waiting: dict[str, JsonValue] = {}
        for one in (*self._subscriptions, *self._mailboxes.values()):
            waits, dropped = one.standing()
            waiting[one.name] = {"waiting": waits, "dropped": dropped}
        return {
            "topics": {name[2:]: one.facts() for name, one in counts.items() if name.startswith("t.")},
            "mailboxes": {name[2:]: one.facts() for name, one in counts.items() if name.startswith("a.")},
            "buffers": waiting,
            "leases": len(self.passages),
            "refused_again": self.passages.refusals,
            "requests": len(self.questions),
        }

    def tail(self, after: int, limit: int) -> Sequence[Passed]:
        """What passed last."""
        return self.record.tail(after, limit)

    async def replay(self, message_id: str, by: str) -> None:
        """Let a dead letter of the outbox be received after all.

        Raises:
            InputError: There is none of this id, or its time is over.
            StoreUnavailable: It cannot be recorded.
        """
        row = await self.outbox.find(message_id)
        if row is not None and row.state is SentState.DEAD and row.expires_ns <= self._rooms.clock.now_ns():
            msg = f"the time of message `{message_id}` is over, which its sender has signed"
            raise InputError(msg, code="message.expired", hint="drop it, and send it anew")
        moved = await self.outbox.replay(message_id, by, row.expires_ns if row is not None else 0)
        mailbox = self._mailboxes.get(AgentId(moved.recipient))
        if mailbox is not None:
            mailbox.feed.wake()

    async def dead(self) -> Sequence[DeadMessage]:
        """Dead letters of the outbox, oldest first."""
        return await self.outbox.dead()

    async def tend(self) -> None:
        """Close leases that have ended, put a window on the trail, forget old receipts.

        Raises:
            StoreUnavailable: It cannot be recorded.
        """
        await self.passages.sweep()
        for draft in self.record.close_window():
            await self._rooms.log.append(draft)
        if self.outbox.used:
            await self.outbox.trim(self._terms.receipts_s)

    async def stop(self) -> None:
        """Let nobody receive anything more."""
        for one in (*self._subscriptions, *self._mailboxes.values(), *self._inboxes.values()):
            await one.close()

    async def close(self) -> None:
        """Put what passed on the trail; nobody sends or receives any more."""
        await self.passages.close()
        for draft in self.record.close_window():
            await self._rooms.log.append(draft)


def _nanoseconds(seconds: float, name: str) -> int:
    """A time that something may take.

    Raises:
        InputError: It is none, or beyond bounds.
    """
    if not 0 < seconds <= MAX_WAIT_S:  # also where it is no number
        msg = f"`{name}` is a number of seconds above 0 and up to {MAX_WAIT_S:.0f}"
        raise InputError(msg, code="input.time")
    return round(seconds * NS)


@asynccontextmanager
async def open_bus(rooms: BusRooms, terms: BusTerms) -> AsyncIterator[Bus]:
    """A bus, until it is left.

    Args:
        rooms: What it stands on.
        terms: What it is told.
    """
    tasks = anyio.create_task_group()
    await tasks.__aenter__()
    bus = Bus(rooms, terms, tasks)

    async def tend() -> None:
        while True:
            await anyio.sleep(SWEEP_S)
            with suppress(Unavailable):  # next time then
                await bus.tend()

    tasks.start_soon(tend)
    try:
        yield bus
    finally:
        with anyio.CancelScope(shield=True), suppress(Unavailable):  # whoever opened the store is told by it
            await bus.stop()
        # The group is left without an error, for what ended its owner is none of its own.
        tasks.cancel_scope.cancel("the bus is closed")
        await tasks.__aexit__(None, None, None)
        with anyio.CancelScope(shield=True), suppress(Unavailable):  # likewise
            await bus.close()
