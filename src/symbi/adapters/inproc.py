"""The transport within one process: a buffer for each consumer, and one stream for those who are away from time to time.

The stream keeps what durable consumers may still ask for, bounded in number; with a store it lasts longer than the
process, and whoever publishes into it waits for the commit. A durable consumer has its position and takes from the
stream; an ephemeral one has a bounded buffer and a declared overflow. No consumer is ever waited for.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Final

from symbi.audit.event import Draft
from symbi.audit.log import AuditLog
from symbi.bus.parcels import ConsumerTerms, Delivery, Overflow, Parcel
from symbi.bus.port import Consumer, Cursor, StreamRow, StreamStore
from symbi.bus.topics import Topics, covers
from symbi.clock import Clock
from symbi.errors import InputError, Overloaded

MAX_STREAM: Final = 100_000  # messages that the stream keeps for durable consumers; beyond it the oldest goes
MAX_STREAM_BYTES: Final = 256 * 1024 * 1024  # likewise
READ_PAGE: Final = 1000
MAX_ROUTES: Final = 16_384  # subjects of which it is remembered who consumes them
RETRY_AFTER_S: Final = 0.05  # a slow consumer has taken something by then, roughly


class InprocTransport:
    """`symbi.bus.port.Transport` within one process.

    Args:
        clock: Tells when a message that was not acknowledged is given again.
        kept: The trail's writer and the store in which the stream is kept; in memory alone if None.
        most_kept: Messages in the stream at most.
        most_bytes: Bytes of messages in the stream at most.
    """

    def __init__(
        self,
        clock: Clock,
        kept: tuple[AuditLog, StreamStore] | None = None,
        *,
        most_kept: int = MAX_STREAM,
        most_bytes: int = MAX_STREAM_BYTES,
    ) -> None:
        self.clock = clock
        self._kept = kept
        self._most = most_kept
        self._most_bytes = most_bytes
        self._bytes = 0  # in the stream, and on their way into it
        self._consumers: Topics[_Buffer] = Topics()
        self._routes: dict[str, tuple[_Buffer, ...]] = {}  # as they were found last; emptied with every change
        self._durable: dict[str, _Durable] = {}
        self._stream: deque[StreamRow] = deque()
        self._ids: dict[str, int] = {}  # positions by message id
        self._next = 1  # position of the next message
        self._shown = 1  # position of the next one that consumers are to see
        self._arrived: dict[int, StreamRow] = {}  # durable, and behind one that is not yet

    async def open(self) -> None:
        """Take up what is kept.

        Raises:
            StoreUnavailable: It cannot be read.
        """
        if self._kept is None:
            return
        log, store = self._kept
        for cursor in await log.read(store.cursors):
            self._durable[cursor.name] = _Durable(self, cursor)
            self._next = max(self._next, cursor.position + 1)
        after = 0
        while rows := await log.read(partial(store.stream_rows, after, READ_PAGE)):
            self._stream.extend(rows)
            self._bytes += sum(len(row.data) for row in rows)
            self._ids |= {row.message_id: row.position for row in rows}
            after = rows[-1].position
            self._let_go()
        self._next = self._shown = max(self._next, after + 1)

    # --- Transport --------------------------------------------------------------------------------

    async def publish(self, subject: str, parcels: Sequence[Parcel]) -> int:
        """Hand messages over."""
        consumers = self._consumers_of(subject)
        size = sum([len(one.data) for one in parcels])
        for one in consumers:
            one.admit(len(parcels), size)
        durable = self._durable_of(subject)
        if durable:
            if any(one.private for one in parcels):
                msg = "what is about a data subject is not kept for durable subscriptions, and one listens"
                hint = "agents say it to one another with `publish`, which seals it under the subject's key"
                raise InputError(msg, code="message.subject", hint=hint)
            await self._keep(subject, parcels)
            for waiting in durable:
                waiting.stir()
        deliveries = [Delivery(subject, one) for one in parcels]
        for consumer in consumers:
            consumer.put(deliveries)
        return len(consumers) + len(durable)

    async def consume(self, subject: str, terms: ConsumerTerms, wake: Callable[[], None]) -> Consumer:
        """Begin to get what fits a filter."""
        if not terms.durable:
            buffer = _Buffer(self, subject, terms, wake)
            self._consumers.add(subject, buffer)
            self._routes.clear()
            return buffer
        durable = self._durable.get(terms.durable)
        if durable is None:
            start = max(terms.start - 1, 0) if terms.start else self._next - 1
            durable = _Durable(self, Cursor(terms.durable, subject, start))
            await self.put_cursor(durable.cursor)
            self._durable[terms.durable] = durable
        elif terms.start and durable.wake is None:
            durable.cursor = Cursor(terms.durable, durable.cursor.subject, terms.start - 1)
            await self.put_cursor(durable.cursor)
        durable.begin(subject, terms, wake)
        return durable

    async def forget(self, durable: str) -> None:
        """Let go of a position."""
        found = self._durable.get(durable)
        if found is not None and found.wake is None:
            await self.put_cursor(found.cursor, gone=True)
            del self._durable[durable]

    # --- for consumers ------------------------------------------------------------------------------

    def leave(self, buffer: "_Buffer") -> None:
        """Give a consumer nothing more."""
        self._consumers.remove(buffer.subject, buffer)
        self._routes.clear()

    def behind(self, position: int) -> Iterable[StreamRow]:
        """What the stream keeps behind a position."""
        if not self._stream or position >= self._stream[-1].position:
            return ()
        first = bisect_right(self._stream, position, key=lambda row: row.position)
        return islice(self._stream, first, None)

    async def put_cursor(self, cursor: Cursor, *, gone: bool = False) -> None:
        """Note where a durable consumer stands."""
        if self._kept is not None:
            log, store = self._kept

            def put() -> tuple[None, tuple[Draft, ...]]:
                store.put_cursor(cursor, gone=gone)
                return None, ()

            await log.transact(put, wait=True)

    # --- parts ----------------------------------------------------------------------------------------

    def _consumers_of(self, subject: str) -> "tuple[_Buffer, ...]":
        found = self._routes.get(subject)
        if found is None:
            if len(self._routes) >= MAX_ROUTES:
                self._routes.clear()
            found = self._routes[subject] = self._consumers.listeners(subject)
        return found

    def _durable_of(self, subject: str) -> "list[_Durable]":
        return [one for one in self._durable.values() if one.wants(subject)] if self._durable else []

    async def _keep(self, subject: str, parcels: Sequence[Parcel]) -> None:
        """Put messages into the stream, each once."""
        new = {one.message_id: one for one in parcels if one.message_id not in self._ids}
        rows = [StreamRow(self._next + at, subject, name, one.data) for at, (name, one) in enumerate(new.items())]
        self._next += len(rows)
        self._ids |= {row.message_id: row.position for row in rows}
        self._bytes += sum(len(row.data) for row in rows)
        if self._kept is not None and rows:
            log, store = self._kept
            oldest = max(rows[-1].position - self._most, self._goes_for_room())

            def put() -> tuple[None, tuple[Draft, ...]]:
                store.append_stream(rows)
                if oldest > 0:
                    store.trim_stream(oldest)
                return None, ()

            try:
                await log.transact(put)
            except BaseException:
                for row in rows:
                    del self._ids[row.message_id]
                    self._bytes -= len(row.data)
                # Their positions stay without a message, for rows of others may stand behind them already.
                self._remember([StreamRow(row.position, "", "", b"") for row in rows])
                raise
        self._remember(rows)

    def _remember(self, rows: Sequence[StreamRow]) -> None:
        """Show messages to those who consume, in the order of their positions, in whichever they became durable."""
        self._arrived |= {row.position: row for row in rows}
        while (row := self._arrived.pop(self._shown, None)) is not None:
            self._shown += 1
            self._stream.append(row)
            if row.subject:
                self._ids[row.message_id] = row.position
        self._let_go()

    def _goes_for_room(self) -> int:
        """The position up to which the stream lets go of messages, so that its bytes are no more than may be."""
        over, position = self._bytes - self._most_bytes, 0
        for row in self._stream:
            if over <= 0:
                break
            over, position = over - len(row.data), row.position
        return position

    def _let_go(self) -> None:
        """Let the oldest go where there are too many, or too large ones."""
        while self._stream and (len(self._stream) > self._most or self._bytes > self._most_bytes):
            gone = self._stream.popleft()
            self._ids.pop(gone.message_id, None)
            self._bytes -= len(gone.data)


class _Buffer:
    """An ephemeral consumer."""

    def __init__(
        self, transport: InprocTransport, subject: str, terms: ConsumerTerms, wake: Callable[[], None]
    ) -> None:
        self.subject = subject
        self._transport = transport
        self._terms = terms
        self._wake = wake
        self._waiting: deque[Delivery] = deque()
        self._bytes = 0
        self._dropped = 0

    def admit(self, count: int, size: int) -> None:
        """Refuse so many messages of so many bytes where there is no room and whoever sends is to know."""
        terms = self._terms
        if terms.overflow is Overflow.REFUSE and (
            len(self._waiting) + count > terms.most or self._bytes + size > terms.most_bytes
        ):
            msg = f"{len(self._waiting)} messages wait for one who takes at most {terms.most}"
            raise Overloaded(msg, retry_after_s=RETRY_AFTER_S, code="message.mailbox_full")

    def put(self, deliveries: Sequence[Delivery]) -> None:
        """Put messages behind those that wait."""
        was_empty, terms, waiting = not self._waiting, self._terms, self._waiting
        if terms.overflow is Overflow.REFUSE:  # there is room
            waiting.extend(deliveries)
            self._bytes += sum([len(one.parcel.data) for one in deliveries])
        else:
            for one in deliveries:
                self._put_one(one)
        if was_empty and waiting:
            self._wake()

    def _put_one(self, delivery: Delivery) -> None:
        size, terms = len(delivery.parcel.data), self._terms
        if size > terms.most_bytes:
            self._dropped += 1
            return
        while len(self._waiting) >= terms.most or self._bytes + size > terms.most_bytes:
            self._dropped += 1
            if terms.overflow is Overflow.NEWEST:
                return
            self._bytes -= len(self._waiting.popleft().parcel.data)
        self._waiting.append(delivery)
        self._bytes += size

    def take(self, most: int) -> Sequence[Delivery]:
        """The next messages."""
        waiting = self._waiting
        if len(waiting) <= most:
            taken = list(waiting)
            waiting.clear()
            self._bytes = 0
            return taken
        taken = [waiting.popleft() for _ in range(most)]
        self._bytes -= sum([len(one.parcel.data) for one in taken])
        return taken

    async def acknowledge(self, positions: Sequence[int]) -> None:
        """Nothing is to be said."""

    async def refuse(self, position: int, after_s: float) -> None:
        """Nothing is kept that could be given again."""

    def standing(self) -> tuple[int, int]:
        """Messages that wait, and those that were dropped."""
        return len(self._waiting), self._dropped

    async def close(self) -> None:
        """Get nothing more."""
        self._transport.leave(self)
        self._waiting.clear()
        self._bytes = 0


@dataclass(slots=True)
class _Taken:
    row: StreamRow
    attempt: int
    again_s: float  # on the monotonic clock
    done: bool = False


@dataclass(slots=True, eq=False)
class _Durable:
    """A durable consumer, open or away."""

    transport: InprocTransport
    cursor: Cursor
    terms: ConsumerTerms = field(default_factory=ConsumerTerms)
    wake: Callable[[], None] | None = None  # None while it is away
    taken: dict[int, _Taken] = field(default_factory=dict)  # by position, not acknowledged up to there
    read: int = 0  # up to where it has taken from the stream

    def wants(self, subject: str) -> bool:
        """Whether its filter fits."""
        return covers(self.cursor.subject.split("."), subject.split("."))

    def begin(self, subject: str, terms: ConsumerTerms, wake: Callable[[], None]) -> None:
        """Open it."""
        if self.wake is not None or subject != self.cursor.subject:
            what = "is open already" if self.wake is not None else f"stands for `{self.cursor.subject}`"
            msg = f"the durable consumer `{terms.durable}` {what}"
            raise InputError(msg, code="message.durable")
        self.terms, self.wake, self.read = terms, wake, self.cursor.position
        self.taken.clear()
        if any(True for _ in self.transport.behind(self.read)):
            wake()

    def stir(self) -> None:
        """There is more in the stream."""
        if self.wake is not None:
            self.wake()

    def take(self, most: int) -> Sequence[Delivery]:
        """What is due again, then what is new."""
        now_s, found = self.transport.clock.monotonic_s(), list[Delivery]()
        for one in self.taken.values():
            if len(found) < most and not one.done and now_s >= one.again_s:
                one.attempt += 1
                found.append(self._given(one, now_s))
        for row in self.transport.behind(self.read):
            if len(found) >= most or len(self.taken) >= self.terms.most:
                break
            self.read = row.position
            if row.subject and self.wants(row.subject):
                one = self.taken[row.position] = _Taken(row, 1, now_s)
                found.append(self._given(one, now_s))
        return found

    def _given(self, one: _Taken, now_s: float) -> Delivery:
        one.again_s = now_s + self.terms.again_s
        return Delivery(one.row.subject, Parcel(one.row.message_id, one.row.data), one.row.position, one.attempt)

    async def acknowledge(self, positions: Sequence[int]) -> None:
        """Never give these again."""
        for position in positions:
            if position in self.taken:
                self.taken[position].done = True
        self._let_go()
        open_ = next(iter(self.taken), None)
        reached = self.read if open_ is None else open_ - 1
        if reached > self.cursor.position:
            self.cursor = Cursor(self.cursor.name, self.cursor.subject, reached)
            await self.transport.put_cursor(self.cursor)

    def _let_go(self) -> None:
        for position in list(self.taken):
            if not self.taken[position].done:
                break
            del self.taken[position]

    async def refuse(self, position: int, after_s: float) -> None:
        """Give it again later."""
        one = self.taken.get(position)
        if one is not None:
            one.again_s = self.transport.clock.monotonic_s() + after_s

    def standing(self) -> tuple[int, int]:
        """Messages behind its position that are not acknowledged; none is dropped."""
        new = sum(1 for row in self.transport.behind(self.read) if row.subject and self.wants(row.subject))
        return new + sum(not one.done for one in self.taken.values()), 0

    async def close(self) -> None:
        """Be away; what it has taken can be acknowledged until it is opened again."""
        self.wake = None
