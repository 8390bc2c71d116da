"""The writer of the trail: group commit of units of work, each with the events that it must leave.

A unit of work is a function that runs on the store's thread inside the running transaction: it changes the ledger and
returns the drafts of its events. Each commit takes whatever arrived during the last one, so an idle log costs one
fsync a unit and a busy one amortises it. A unit that raises is undone alone; a commit that fails undoes all of them,
and the chain stays where the last durable commit left it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar, cast

import anyio
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from symbi.audit.event import (
    GENESIS_HASH,
    AuditEventType,
    Draft,
    Receipt,
    parse_event,
    seal_event,
    seal_head,
    trail_started,
)
from symbi.audit.port import AuditStore, StoredEvent
from symbi.audit.verify import verify_head
from symbi.clock import Clock, IdSource, parse_rfc3339, rfc3339
from symbi.crypto.signing import SigningKey
from symbi.errors import ChainBroken, Overloaded, StoreUnavailable, SymbiError
from symbi.types import EventId

T = TypeVar("T")

MAX_PENDING: Final = 8192  # units of work that may wait; more is overload, never unbounded memory
MAX_GROUP: Final = 1024  # units of work in one commit; bounds how long the first of them waits
COMMIT_TIMEOUT_S: Final = 60.0  # after this the store counts as unavailable for the caller
RETRY_AFTER_S: Final = 0.1  # a commit's length on a busy disk, roughly

Work = Callable[[], tuple[T, Sequence[Draft]]]


@dataclass(slots=True)
class _Entry(Generic[T]):
    work: Work[T]
    done: anyio.Event = field(default_factory=anyio.Event)
    result: T | None = None
    receipts: tuple[Receipt, ...] = ()
    error: Exception | None = None


@dataclass(slots=True)
class _Position:
    """Where the chain stands."""

    sequence: int
    chain_hash: str
    time_ns: int


class AuditLog:
    """Appends to the trail, durably and in order.

    Args:
        store: Where events and ledger live; used on one thread at a time.
        key: Signs events and heads.
        clock: Source of timestamps; they never go back in the trail, whatever the clock does.
        ids: Source of event ids.
        max_pending: How many units of work may wait.
    """

    def __init__(
        self, store: AuditStore, key: SigningKey, clock: Clock, ids: IdSource, *, max_pending: int = MAX_PENDING
    ) -> None:
        self._store = store
        self._key = key
        self._clock = clock
        self._ids = ids
        self._thread = anyio.CapacityLimiter(1)
        self._max_pending = max_pending
        self._send: MemoryObjectSendStream[_Entry[Any]] | None = None
        self._tasks: TaskGroup | None = None
        self._stopped = anyio.Event()
        self._at = _Position(0, GENESIS_HASH, 0)

    @property
    def sequence(self) -> int:
        """Sequence number of the last durable event."""
        return self._at.sequence

    async def __aenter__(self) -> Self:
        """Take up the chain where it ends, and begin a new trail with `trail.started`.

        Raises:
            ChainBroken: The signed head does not fit the last event: something was truncated or altered.
            StoreUnavailable: The store cannot be read or written.
        """
        await anyio.to_thread.run_sync(self._take_up, limiter=self._thread)
        self._send, receive = anyio.create_memory_object_stream[_Entry[Any]](self._max_pending)
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._run, receive)
        if self._at.sequence == 0:
            try:
                await self.append(trail_started(self._key.verifying_key()))
            except BaseException:
                await self.__aexit__(None, None, None)
                raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Commit what is pending, then stop."""
        if self._send is not None:
            self._send.close()
        tasks, self._tasks = self._tasks, None
        assert tasks is not None
        # The writer ends by itself once nothing waits; the group is left without an error, for it has none of its own.
        with anyio.move_on_after(COMMIT_TIMEOUT_S, shield=True):
            await self._stopped.wait()
        tasks.cancel_scope.cancel("the trail is closed")
        await tasks.__aexit__(None, None, None)

    async def append(self, draft: Draft) -> Receipt:
        """Append one event; returns when it is durable.

        Raises:
            Overloaded: Too much is waiting.
            InputError: The details cannot stand in canonical JSON.
            StoreUnavailable: It is not durable, or nobody can tell.
        """
        _, receipts = await self.transact(lambda: (None, (draft,)))
        return receipts[0]

    async def transact(self, work: Work[T], *, wait: bool = False) -> tuple[T, tuple[Receipt, ...]]:
        """Run a unit of work in the store's transaction and append its events; returns when both are durable.

        A caller in a cancelled scope waits all the same: it must learn whether its effect is on record.

        Args:
            work: Runs on the store's thread.
            wait: Wait for room where too much is waiting: for what has happened and must be recorded.

        Raises:
            Overloaded: Too much is waiting, and `wait` is not set.
            StoreUnavailable: It is not durable, or nobody can tell.
            SymbiError: Whatever the work raised; nothing of it is left.
        """
        entry = _Entry(work)
        if self._send is None:
            msg = "the audit trail is not open"
            raise StoreUnavailable(msg)
        try:
            if not wait:
                self._send.send_nowait(entry)
            with anyio.CancelScope(shield=True), anyio.move_on_after(COMMIT_TIMEOUT_S):
                if wait:
                    await self._send.send(entry)
                await entry.done.wait()
        except anyio.WouldBlock:
            msg = "too many effects wait for the audit trail"
            raise Overloaded(msg, retry_after_s=RETRY_AFTER_S) from None
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            msg = "the audit trail is closed"
            raise StoreUnavailable(msg) from None
        if not entry.done.is_set():
            msg = f"the store did not commit within {COMMIT_TIMEOUT_S:g} s"
            raise StoreUnavailable(msg, hint="look at the disk and the other load on this machine")
        if entry.error is not None:
            raise entry.error
        return cast("T", entry.result), entry.receipts

    async def read(self, query: Callable[[], T]) -> T:
        """Run a reading function on the store's thread, between commits.

        Raises:
            StoreUnavailable: The store cannot be read.
        """
        return await anyio.to_thread.run_sync(query, limiter=self._thread)

    def _take_up(self) -> None:
        head = self._store.head()
        if head is None:
            return
        last, signed = head
        event = parse_event(last.record)
        verify_head(signed, last, {self._key.key_id: self._key.verifying_key()})
        if event.sequence != last.sequence:
            msg = f"event {last.sequence} says that it is event {event.sequence}"
            raise ChainBroken(msg, sequence=last.sequence)
        self._at = _Position(event.sequence, event.chain_hash, parse_rfc3339(event.timestamp))

    async def _run(self, receive: MemoryObjectReceiveStream[_Entry[Any]]) -> None:
        try:
            with anyio.CancelScope(shield=True), receive:
                async for first in receive:
                    group = [first]
                    while len(group) < MAX_GROUP:
                        try:
                            group.append(receive.receive_nowait())
                        except (anyio.WouldBlock, anyio.EndOfStream):
                            break
                    await anyio.to_thread.run_sync(partial(self._commit, group), limiter=self._thread)
                    for entry in group:
                        entry.done.set()
        finally:
            self._stopped.set()  # also where the writer itself fails, so that nobody waits for it

    def _commit(self, group: Sequence[_Entry[Any]]) -> None:
        at = _Position(self._at.sequence, self._at.chain_hash, self._at.time_ns)
        events: list[StoredEvent] = []
        try:
            with self._store.transaction():
                for entry in group:
                    self._run_entry(entry, at, events)
                if events:
                    self._store.append(events, seal_head(at.sequence, at.chain_hash, rfc3339(at.time_ns), self._key))
        except Exception as error:  # noqa: BLE001 - handed to every caller that waits for this commit
            failure = error if isinstance(error, SymbiError) else StoreUnavailable(f"the store failed: {error}")
            for entry in group:
                entry.error = failure
                entry.receipts = ()
            return
        self._at = at

    def _run_entry(self, entry: _Entry[Any], at: _Position, events: list[StoredEvent]) -> None:
        before = (at.sequence, at.chain_hash, at.time_ns, len(events))
        try:
            with self._store.savepoint():
                entry.result, drafts = entry.work()
                entry.receipts = tuple(self._seal(draft, at, events) for draft in drafts)
        except StoreUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - handed to the one caller whose unit of work failed
            entry.error = error
            at.sequence, at.chain_hash, at.time_ns, length = before
            del events[length:]

    def _seal(self, draft: Draft, at: _Position, events: list[StoredEvent]) -> Receipt:
        time_ns = max(at.time_ns, self._clock.now_ns())
        event, stored = seal_event(
            draft,
            sequence=at.sequence + 1,
            previous_hash=at.chain_hash,
            event_id=EventId(self._ids.new()),
            timestamp=rfc3339(time_ns),
            key=self._key,
        )
        events.append(stored)
        at.sequence, at.chain_hash, at.time_ns = event.sequence, event.chain_hash, time_ns
        return Receipt(event.sequence, event.event_id, event.chain_hash)


__all__ = ["AuditEventType", "AuditLog", "Draft", "Receipt", "Work"]
