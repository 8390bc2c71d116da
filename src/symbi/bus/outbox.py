"""`send_message`: what was acknowledged is received, once, in the order of each pair, whoever crashes.

```
 sent ──► waiting ──► received                 with the receiver's own work in one transaction, if it has any
             │  └───► waiting, a while later   its receiver failed
             └──────► dead                     too often, too late, refused by policy, or no message any more
```

A message is in the outbox before its sender goes on. Its receiver reads the outbox in order: behind one that is to be
tried again, nothing of the same sender is given out, and everything of others is.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from symbi.audit.event import AuditEventType, Draft
from symbi.audit.log import AuditLog, Enlisted
from symbi.bus.codec import Opened
from symbi.bus.content import Kind, Message, Reading, contents, message_of
from symbi.bus.port import DeadMessage as DeadMessage  # noqa: PLC0414 - others take it from here
from symbi.bus.port import OutboxStore, SentRow, SentState
from symbi.bus.receiving import STORE_RETRY_S, Desk, Handler, Inside, call, flow_of, read_kept, require_place
from symbi.bus.record import Record
from symbi.clock import Clock
from symbi.errors import Denied, InputError, MessageRefused, Overloaded, RateLimited, SymbiError, Unavailable
from symbi.telemetry import BUS_RECEIVED
from symbi.types import SYSTEM_AGENT, AgentId, JsonValue

_log = logging.getLogger("symbi.bus")

NS: Final = 1_000_000_000
PAGE: Final = 128  # messages that are read from the outbox at once
RETRY_AFTER_S: Final = 1.0
MAX_BEGINNINGS: Final = 100  # attempts; a message whose handler the process does not survive is given up in the end
MAX_BEGUN: Final = 16_384  # senders that are remembered; beyond it their attempts are counted before once more
MAX_DEAD: Final = 1000  # dead messages to one declared agent; the oldest makes room for a further one


@dataclass(frozen=True, slots=True)
class Receipt:
    """A message is in the outbox, durably.

    Attributes:
        message_id: Its id.
        again: It was there already: the same id was sent before.
    """

    message_id: str
    again: bool = False


@dataclass(frozen=True, slots=True)
class WithReceipt:
    """What a handler returns whose work in the store is to be one with the receipt: both are durable, or neither.

    Attributes:
        work: Runs on the store's thread, in the transaction; it raises to undo both.
    """

    work: Callable[[], None]


def dead_message(find: Callable[[str], SentRow | None], message_id: str) -> DeadMessage | None:
    """A message that was given up, by its id; on the store's thread."""
    row = find(message_id)
    if row is None or row.state is not SentState.DEAD:
        return None
    return DeadMessage(row.message_id, row.sender, row.recipient, row.code, row.attempts, row.changed_ns, len(row.wire))


class Outbox:
    """What `send_message` has taken over.

    Args:
        store: Keeps it.
        log: Makes it durable.
        clock: For its times.
        record: Counts.
        most: Messages that may wait for one recipient.
    """

    def __init__(self, store: OutboxStore, log: AuditLog, clock: Clock, record: Record, most: int) -> None:
        self.store = store
        self.log = log
        self.clock = clock
        self._record = record
        self._most = most
        self.used = True  # since ids were forgotten last

    async def put(self, row: SentRow) -> Receipt:
        """Take a message over; returns when that is durable.

        Raises:
            Overloaded: As many wait for its recipient as may.
            InputError: Its id stands for a message of another sender or recipient.
            StoreUnavailable: It cannot be kept.
        """

        def work() -> tuple[tuple[bool, int], Sequence[Draft]]:
            there = self.store.find_sent(row.message_id)
            if there is not None:
                if (there.sender, there.recipient) != (row.sender, row.recipient):
                    msg = f"`{row.message_id}` is the id of another message"
                    raise InputError(msg, code="message.id")
                return (True, 0), ()
            letters: list[Draft] = []
            while not self.store.put_sent(row, self._most):
                more = self._bury_expired(row.recipient)
                if not more:
                    msg = f"the mailbox of agent `{row.recipient}` is full: {self._most} messages wait for it"
                    raise Overloaded(msg, retry_after_s=RETRY_AFTER_S, code="message.mailbox_full")
                letters += more
            return (False, len(letters)), [*letters, *(self.make_room(row.recipient) if letters else ())]

        (again, buried), _ = await self.log.transact(work)
        self._record.of(f"a.{row.recipient}").dead += buried
        self.used = True
        return Receipt(row.message_id, again)

    def _bury_expired(self, recipient: str) -> list[Draft]:
        """Let the oldest messages go that wait for somebody who is away, and whose time is over; on the store's thread."""
        now, letters = self.clock.now_ns(), list[Draft]()
        for one in self.store.sent(SentState.WAITING, recipient, 0, PAGE):
            if one.expires_ns and one.expires_ns <= now:
                moved = replace(one, state=SentState.DEAD, code="message.expired", changed_ns=now)
                self.store.move_sent(moved, SentState.WAITING)
                letters.append(_letter(AuditEventType.LETTER_PUT, moved))
        return letters

    def make_room(self, recipient: str) -> list[Draft]:
        """Let the oldest dead messages to a declared agent go that are too many; on the store's thread.

        Returns:
            What the trail is told of each.
        """
        gone, why = list[Draft](), f"{MAX_DEAD} dead messages to this agent are open, and this was the oldest"
        for one in self.store.dead_sent(recipient.partition("/")[0], MAX_DEAD, MAX_DEAD):
            row = self.store.find_sent(one.message_id)
            if row is not None:
                moved = self._closed(row, SentState.DROPPED, 0)
                gone.append(_letter(AuditEventType.LETTER_DROPPED, moved, by=SYSTEM_AGENT, reason=why))
        return gone

    async def find(self, message_id: str) -> SentRow | None:
        """A message by its id."""
        return await self.log.read(partial(self.store.find_sent, message_id))

    async def find_dead(self, message_id: str) -> str | None:
        """The id, where it is that of a dead message."""
        row = await self.find(message_id)
        return None if row is None or row.state is not SentState.DEAD else row.message_id

    async def dead(self, recipient: str = "", limit: int = 1000) -> Sequence[DeadMessage]:
        """What was given up last, of an agent and its instances or of everybody, oldest first."""
        return (await self.log.read(partial(self.store.dead_sent, recipient, limit)))[::-1]

    async def replay(self, message_id: str, by: str, expires_ns: int) -> SentRow:
        """Let a dead message wait again, as if it had never been tried.

        Raises:
            InputError: It is not dead.
            StoreUnavailable: It cannot be recorded.
        """
        return await self._close(message_id, SentState.WAITING, AuditEventType.LETTER_REPLAYED, by, expires_ns)

    async def drop(self, message_id: str, by: str, why: str = "") -> SentRow:
        """Give a dead message up for good; its bytes are removed.

        Raises:
            InputError, StoreUnavailable: As `replay`.
        """
        return await self._close(message_id, SentState.DROPPED, AuditEventType.LETTER_DROPPED, by, 0, why)

    async def _close(
        self, message_id: str, state: SentState, kind: AuditEventType, by: str, expires_ns: int, why: str = ""
    ) -> SentRow:
        def work() -> tuple[SentRow, tuple[Draft]]:
            row = self.store.find_sent(message_id)
            if row is None or row.state is not SentState.DEAD:
                msg = f"no dead message has the id `{message_id}`"
                raise InputError(msg, code="input.letter", hint="`symbi dlq list` shows them")
            moved = self._closed(row, state, expires_ns)
            return moved, (_letter(kind, moved, by=by, **({"reason": why} if why else {})),)

        moved, _ = await self.log.transact(work)
        return moved

    def _closed(self, row: SentRow, state: SentState, expires_ns: int) -> SentRow:
        moved = replace(
            row, state=state, attempts=0, due_ns=0, expires_ns=expires_ns, changed_ns=self.clock.now_ns(),
            wire=row.wire if state is SentState.WAITING else b"",
        )  # fmt: skip
        self.store.move_sent(moved, SentState.DEAD)
        return moved

    async def trim(self, age_s: float) -> int:
        """Forget ids of messages that were received so long ago.

        Raises:
            StoreUnavailable: It cannot be recorded.
        """
        self.used = False
        before = self.clock.now_ns() - round(age_s * NS)

        def work() -> tuple[int, tuple[Draft, ...]]:
            return self.store.trim_sent(before), ()

        count, _ = await self.log.transact(work)
        return count


def _letter(kind: AuditEventType, row: SentRow, **more: JsonValue) -> Draft:
    facts: dict[str, JsonValue] = {
        "letter_kind": "bus",
        "message": row.message_id,
        "resource": row.recipient,
        "code": row.code,
        "attempts": row.attempts,
        **more,
    }
    return Draft(kind, AgentId(row.sender), facts)


class Feed:
    """Gives a mailbox what waits for it in the outbox.

    Args:
        outbox: Where it waits.
        desk: What whoever receives works with.
        me: Whose mailbox.
        reading: Reads bodies.
        handler: Takes messages.
    """

    def __init__(self, outbox: Outbox, desk: Desk, me: AgentId, reading: Reading[Any], handler: Handler[Any]) -> None:
        self._outbox = outbox
        self._desk = desk
        self._me = me
        self._reading = reading
        self._handler = handler
        self._subject = f"a.{me}"
        self._begun = set[str]()  # senders of whom something was given out since the start
        self._running = False
        self._more = False
        self._closed = False
        self._alarm_ns: int | None = None  # when it wakes next by itself

    def wake(self) -> None:
        """Something waits, or its time has come."""
        self._more = True
        if not self._running and not self._closed:
            self._running = True
            self._desk.tasks.start_soon(self._run)

    def close(self) -> None:
        """Give it nothing more; what is with its handler goes on to its end."""
        self._closed = True

    @property
    def idle(self) -> bool:
        """Nothing is being given out."""
        return not self._running

    async def _run(self) -> None:
        try:
            while self._more and not self._closed:
                self._more = False
                due_ns = await self._pass()
                if due_ns is not None and not self._more:
                    self._wake_at(due_ns)
        except SymbiError as error:  # what waits in the outbox is there when the store is, or the master key
            if isinstance(error, Unavailable):
                _log.warning("the mailbox of `%s` waits for the store: %s", self._me, error.code)
            else:
                _log.error("the mailbox of `%s` cannot be given what waits: %s: %s", self._me, error.code, error)
            self._wake_at(self._outbox.clock.now_ns() + round(STORE_RETRY_S * NS))
        finally:
            self._running = False

    def _wake_at(self, due_ns: int) -> None:
        """Wake by then; one alarm stands for all that are to come later."""
        if self._alarm_ns is None or due_ns < self._alarm_ns:
            self._alarm_ns = due_ns
            self._desk.tasks.start_soon(self._alarm, due_ns)

    async def _alarm(self, due_ns: int) -> None:
        await self._desk.sleep(max(0.0, (due_ns - self._outbox.clock.now_ns()) / NS))
        if self._alarm_ns == due_ns:
            self._alarm_ns = None
        self.wake()

    async def _pass(self) -> int | None:
        """Give out what is due, in order; returns when the next one is, if any is later."""
        after, later, held = 0, None, set[str]()
        while not self._closed:
            query = partial(self._outbox.store.sent, SentState.WAITING, self._me, after, PAGE)
            rows, opened = await self._outbox.log.read(partial(self._look, query, frozenset(held)))
            receipts: list[Enlisted[None]] = []
            for row, one in zip(rows, opened, strict=True):
                after = row.position
                if row.sender in held or self._closed:
                    continue
                if one is None:
                    held.add(row.sender)
                    later = row.due_ns if later is None else min(later, row.due_ns)
                    continue
                moved = await self._give(row, one, receipts)
                if moved is not None:
                    held.add(row.sender)
                    later = moved.due_ns if later is None else min(later, moved.due_ns)
            for receipt in receipts:
                await receipt.durable()
            if len(rows) < PAGE:
                break
        return later

    def _look(
        self, query: Callable[[], Sequence[SentRow]], held: frozenset[str]
    ) -> tuple[Sequence[SentRow], list[Opened | MessageRefused | None]]:
        """Some messages, opened; on the store's thread. Not opened is what is due later, and what is behind that."""
        rows, now, later = query(), self._outbox.clock.now_ns(), set(held)
        opened: list[Opened | MessageRefused | None] = []
        for row in rows:
            if row.due_ns > now:
                later.add(row.sender)
            opened += [None] if row.sender in later else read_kept(self._desk.read, [row.wire], self._me)
        return rows, opened

    async def _give(
        self, row: SentRow, opened: Opened | MessageRefused, receipts: list[Enlisted[None]]
    ) -> SentRow | None:
        """Give a message to the handler; returns it where it is to be tried again."""
        now = self._outbox.clock.now_ns()
        try:
            message = await self._message(row, opened, now)
        except RateLimited as limited:  # not now; nothing has failed, and nothing counts as an attempt
            retry = self._desk.retry  # a policy set that comes meanwhile may let it pass sooner
            return await self._later(row, min(max(limited.retry_after_s, retry.first_s), retry.most_s))
        except (MessageRefused, Denied) as refusal:
            await self._end(row, SentState.DEAD, refusal.code, receipts)
            return None
        counts = self._desk.record.of(self._subject)
        first = await self._begin(row)
        try:
            result = await call(self._handler, message)
            work = result.work if isinstance(result, WithReceipt) else None
            if work is not None:
                await self._commit(row, work)
        except Exception as error:  # noqa: BLE001 - what a handler raises ends neither the bus nor those who wait behind
            counts.failed += 1
            self._desk.metrics.inc(BUS_RECEIVED, outcome="failed")
            _log.warning("a handler failed", exc_info=error)
            return await self._failed(row, error, receipts)
        counts.received += 1
        self._desk.metrics.inc(BUS_RECEIVED, outcome="received")
        if work is None:
            await self._end(row, SentState.RECEIVED, "", receipts)
            if first:  # durable before what is behind it is given out: after a crash, that is first
                await receipts[-1].durable()
        return None

    async def _begin(self, row: SentRow) -> bool:
        """Count an attempt before it is made, durably, where the process before may have ended in it; whether that was so."""
        if row.sender in self._begun:
            return False
        if len(self._begun) >= MAX_BEGUN:
            self._begun.clear()
        await self._move(replace(row, attempts=row.attempts + 1), ())
        self._begun.add(row.sender)
        return True

    async def _message(self, row: SentRow, opened: Opened | MessageRefused, now: int) -> Message[Any]:
        """A message of the outbox, opened. Its place there says that it comes once, whatever window there is.

        Raises:
            MessageRefused: It is not what was put there.
            Denied: It may not pass any more.
        """
        if row.expires_ns and now >= row.expires_ns:
            raise MessageRefused("the time of the message is over", code="message.expired")
        if row.attempts >= max(MAX_BEGINNINGS, self._desk.retry.attempts):
            raise MessageRefused(
                "the process ended each time that the message was given out", code="message.crash_loop"
            )
        if isinstance(opened, MessageRefused):
            raise opened
        require_place(opened, self._subject)
        content = contents(opened.payload)
        if (opened.message_id, opened.sender, content.kind) != (row.message_id, row.sender, Kind.TELL):
            raise MessageRefused("a message in the outbox is not the one that was put there")
        await self._desk.passages.still(flow_of(Inside(opened, content, "")), row.message_id, row.wire)
        body = self._reading.body(opened.flow.content_type, content.body)
        return message_of(opened, content, body, position=row.position, attempt=row.attempts + 1)

    async def _failed(self, row: SentRow, error: Exception, receipts: list[Enlisted[None]]) -> SentRow | None:
        retry, attempts = self._desk.retry, row.attempts + 1
        tried = replace(row, attempts=attempts)
        if attempts >= retry.attempts:
            code = error.code if isinstance(error, SymbiError) else "message.handler"
            await self._end(tried, SentState.DEAD, code, receipts)
            return None
        return await self._later(tried, retry.delay_s(attempts))

    async def _later(self, row: SentRow, delay_s: float) -> SentRow:
        self._desk.record.of(self._subject).again += 1
        moved = replace(row, due_ns=self._outbox.clock.now_ns() + round(delay_s * NS))
        await self._move(moved, ())
        return moved

    async def _end(self, row: SentRow, state: SentState, code: str, receipts: list[Enlisted[None]]) -> None:
        """Put a message to its end, with the next commit."""
        now = self._outbox.clock.now_ns()
        moved = replace(row, state=state, code=code, changed_ns=now, wire=row.wire if state is SentState.DEAD else b"")
        if state is SentState.DEAD:
            self._desk.record.of(self._subject).dead += 1
            await self._move(moved, (_letter(AuditEventType.LETTER_PUT, moved),))
            return

        def work() -> tuple[None, tuple[Draft, ...]]:
            self._outbox.store.move_sent(moved, SentState.WAITING)
            return None, ()

        receipts.append(await self._outbox.log.enlist(work, wait=True))

    async def _move(self, moved: SentRow, drafts: tuple[Draft, ...]) -> None:
        def work() -> tuple[None, Sequence[Draft]]:
            if not self._outbox.store.move_sent(moved, SentState.WAITING):
                return None, ()
            return None, [*drafts, *(self._outbox.make_room(moved.recipient) if moved.state is SentState.DEAD else ())]

        await self._outbox.log.transact(work, wait=True)

    async def _commit(self, row: SentRow, own: Callable[[], None]) -> None:
        """Receipt and the receiver's own work, in one transaction; neither where the message was received before."""
        moved = replace(row, state=SentState.RECEIVED, changed_ns=self._outbox.clock.now_ns(), wire=b"")

        def work() -> tuple[None, tuple[Draft, ...]]:
            if self._outbox.store.move_sent(moved, SentState.WAITING):
                own()
            return None, ()

        await self._outbox.log.transact(work, wait=True)
