"""The writer of the trail: group commit of units of work, each with the events that it must leave.

A unit of work is a function that runs on the store's thread inside the running transaction: it changes the ledger and
returns the drafts of its events. Each commit takes whatever arrived during the last one, so an idle log costs one
fsync a unit and a busy one amortises it. A unit that raises is undone alone; a commit that fails undoes all of them,
and the chain stays where the last durable commit left it.

Each commit replaces the head, which is the newest checkpoint. On a cadence, and when the log is closed, the head is
kept as a checkpoint of its own.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from types import TracebackType
from typing import Any, Final, Self, TypeVar, cast

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from symbi.audit.event import (
    AuditEventType,
    Draft,
    Prepared,
    Receipt,
    Signing,
    key_rotated,
    prepare,
    signing_changed,
    trail_started,
)
from symbi.audit.finish import Finisher
from symbi.audit.port import AuditStore, StoredEvent, TrailCommit
from symbi.audit.position import Position, take_up
from symbi.audit.sealer import Sealer, changes_nothing
from symbi.audit.unit import Enlisted, Group, Unit, Work
from symbi.clock import Clock, IdSource
from symbi.crypto.signing import SigningKey
from symbi.errors import InputError, Overloaded, StoreUnavailable, SymbiError

T = TypeVar("T")

MAX_PENDING: Final = 32_768  # units of work that may wait: some of each agent that may be alive; more is overload, never unbounded memory
MAX_GROUP: Final = 1024  # units of work in one commit; bounds how long the first of them waits
COMMIT_TIMEOUT_S: Final = 60.0  # after this the store counts as unavailable for whoever waits for a commit
WATCH_INTERVAL_S: Final = 5.0  # between two looks at how long the running commit has taken
RETRY_AFTER_S: Final = 0.1  # a commit's length on a busy disk, roughly
LINGER_S: Final = 0.02  # the longest that what nobody waits for yet is left for the next commit

_SLOW: Final = "look at the disk and the other load on this machine"

OnCommit = Callable[[Sequence[StoredEvent]], None]


@dataclass(frozen=True, slots=True)
class Cadence:
    """When the head is kept as a checkpoint: whichever comes first.

    Attributes:
        events: After so many events.
        interval_s: After so long, where there were any.
    """

    events: int = 1000
    interval_s: float = 60.0


class AuditLog:
    """Appends to the trail, durably and in order.

    Args:
        store: Where events and ledger live; used on one thread at a time.
        key: Signs a new trail; one that was begun goes on with the key that it stands at.
        clock: Source of timestamps; they never go back in the trail, whatever the clock does.
        ids: Source of event ids.
        others: Keys of other generations: the trail may stand at one of them.
        signing: What covers an event from now on.
        cadence: When checkpoints are kept.
        max_pending: How many units of work may wait.
    """

    def __init__(  # noqa: PLR0913 - the four that it needs come by place, the others have defaults
        self,
        store: AuditStore,
        key: SigningKey,
        clock: Clock,
        ids: IdSource,
        *,
        others: Sequence[SigningKey] = (),
        signing: Signing = Signing.EVENT,
        cadence: Cadence = Cadence(),
        max_pending: int = MAX_PENDING,
    ) -> None:
        self._store = store
        self._keys = {one.key_id: one for one in (*others, key)}
        self._clock = clock
        self._ids = ids
        self._signing = signing
        self._cadence = cadence
        self._thread = anyio.CapacityLimiter(1)
        self._finisher = Finisher()
        self._max_pending = max_pending
        self._pending = 0
        self._waiting: deque[Group] = deque()
        self._arrived = anyio.Event()
        self._queue: deque[anyio.Event] = deque()  # of those who wait for room
        self._open = False
        self._tasks: TaskGroup | None = None
        self._stopped = anyio.Event()
        self._group: Group | None = None  # is being committed
        self._since_s: float | None = None  # since when the writer has used the store; None while it does not
        self._durable: deque[Sequence[StoredEvent]] = deque()  # committed, and not told of yet
        self._callbacks: list[OnCommit] = []
        self._at = Position(key, signing)
        self._kept = 0  # size of the newest kept checkpoint
        self._kept_s = clock.monotonic_s()

    @property
    def sequence(self) -> int:
        """Sequence number of the last durable event."""
        return self._at.sequence

    @property
    def key(self) -> SigningKey:
        """The key that signs from now on."""
        return self._at.key

    @property
    def at_rest(self) -> bool:
        """Whether nothing is on its way into the store, and nobody is at it."""
        return not (self._pending or self._queue or self._group or self._thread.borrowed_tokens)

    def on_commit(self, callback: OnCommit) -> Callable[[], None]:
        """Have a function called after each durable commit, on the event loop, with its events in order.

        It must not wait and must not raise: what it raises ends the log.

        Returns:
            What ends the calls.
        """
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    async def __aenter__(self) -> Self:
        """Take up the chain where it ends, and begin a new trail with `trail.started`.

        Raises:
            ChainBroken: The signed head does not fit the last event: something was truncated or altered.
            StoreUnavailable: The store cannot be read or written.
        """
        await anyio.to_thread.run_sync(self._take_up, limiter=self._thread)
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._open = True
        self._tasks.start_soon(self._run)
        self._tasks.start_soon(self._watch)
        try:
            if self._at.sequence == 0:
                await self.append(trail_started(self._at.key.verifying_key(), self._signing))
            elif self._at.signing is not self._signing:
                await self.append(signing_changed(self._signing))
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Commit what is pending, keep a checkpoint, then stop."""
        self._open = False
        self._arrived.set()
        tasks, self._tasks = self._tasks, None
        assert tasks is not None
        # The writer ends by itself once nothing waits; the group is left without an error, for it has none of its own.
        with anyio.move_on_after(COMMIT_TIMEOUT_S, shield=True):
            await self._stopped.wait()
        tasks.cancel_scope.cancel("the trail is closed")
        await tasks.__aexit__(None, None, None)
        self._finisher.close()

    @property
    def origin(self) -> str:
        """Which trail this is; empty before its first event."""
        return self._at.origin

    async def append(self, draft: Draft) -> Receipt:
        """Append one event; returns when it is durable.

        Raises:
            Overloaded: Too much is waiting.
            InputError: The details cannot stand in canonical JSON.
            StoreUnavailable: It is not durable, or nobody can tell.
        """
        unit: Unit[None] = Unit(prepare(draft))
        await self._committed(unit, wait=False)
        return unit.receipts[0]

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
        unit = Unit(work)
        await self._committed(unit, wait=wait)
        return cast("T", unit.result), unit.receipts

    async def enlist(self, work: Work[T], *, wait: bool = False) -> Enlisted[T]:
        """Put a unit of work in line, before whatever comes later, and do not wait for it.

        It shares the commit of the next unit that somebody waits for, so that two steps of which only the second one
        lets something happen cost one fsync. Whoever enlists it awaits `durable` before anything depends on it.

        Args:
            work: Runs on the store's thread.
            wait: Wait for room, as `transact`.

        Raises:
            Overloaded: Too much is waiting, and `wait` is not set.
            StoreUnavailable: The log is closed.
        """
        unit = Unit(work)
        group = await self._put(unit, wait=wait)
        return Enlisted(partial(self._over, group, unit))

    async def rotate(self, key: SigningKey) -> Receipt:
        """Hand the trail over to another key, which has to be kept durably already; returns when it signs.

        Raises:
            InputError: It signs already.
            Overloaded: Too much is waiting.
            StoreUnavailable: It is not durable, or nobody can tell.
        """
        self._keys[key.key_id] = key

        def hand_over() -> tuple[None, tuple[Draft]]:
            if key.key_id == self._at.key.key_id:
                msg = f"key `{key.key_id}` signs the trail already"
                raise InputError(msg, code="audit.key_rotated")
            return None, (key_rotated(key.verifying_key(), self._at.signing),)

        _, receipts = await self.transact(hand_over)
        return receipts[0]

    async def read(self, query: Callable[[], T]) -> T:
        """Run a reading function on the store's thread, between commits.

        Raises:
            StoreUnavailable: The store cannot be read.
        """
        return await anyio.to_thread.run_sync(query, limiter=self._thread)

    # --- on the event loop ------------------------------------------------------------------------

    async def _committed(self, unit: Unit[Any], *, wait: bool) -> None:
        """Hand a unit to the writer, and wait until its commit is over."""
        await self._over(await self._put(unit, wait=wait), unit)

    async def _put(self, unit: Unit[Any], *, wait: bool) -> Group:
        """Put a unit in line; raises as `enlist`."""
        reserved = wait and await self._wait_for_room()
        if self._stopped.is_set() or not (self._open or reserved):
            msg = f"the audit trail is {'closed' if self._stopped.is_set() or self._at.sequence else 'not open'}"
            raise StoreUnavailable(msg)
        if not wait and (self._pending >= self._max_pending or self._queue):
            msg = "too many effects wait for the audit trail"
            raise Overloaded(msg, retry_after_s=RETRY_AFTER_S)
        if not self._waiting or len(self._waiting[-1].units) >= MAX_GROUP:
            self._waiting.append(Group())
        group = self._waiting[-1]
        group.add(unit)
        self._pending += not reserved
        if len(group.units) == 1:
            self._arrived.set()  # so that the writer learns until when it may leave it there
        return group

    async def _over(self, group: Group, unit: Unit[Any]) -> None:
        """Wait until the commit of a unit is over, and have it made now."""
        if not group.awaited:
            group.awaited = True
            self._arrived.set()
        assert unit.done is not None
        try:
            await unit.done.wait()
        except anyio.get_cancelled_exc_class():
            if anyio.current_effective_deadline() != -math.inf:
                raise  # no scope was cancelled: whoever runs the loop ends this task
            with anyio.CancelScope(shield=True):
                await unit.done.wait()
        if unit.error is not None:
            raise unit.error

    async def _wait_for_room(self) -> bool:
        """Wait for a place, in the order of arrival; nobody who does not wait gets one before. Whether it is reserved."""
        if not self._open or (self._pending < self._max_pending and not self._queue):
            return False
        turn = anyio.Event()
        self._queue.append(turn)
        try:
            with anyio.CancelScope(shield=True):
                await turn.wait()
        except BaseException:  # no scope was cancelled: whoever runs the loop ends this task
            if turn.is_set():
                self._pending -= 1
            else:
                self._queue.remove(turn)
            self._arrived.set()
            raise
        return True

    def _make_room(self) -> None:
        """Reserve free places for those who wait."""
        while self._queue and self._pending < self._max_pending:
            self._pending += 1
            self._queue.popleft().set()

    async def _run(self) -> None:
        try:
            with anyio.CancelScope(shield=True):
                while self._open or self._pending or self._queue:
                    if self._waiting and self._left_s(self._waiting[0]) <= 0:
                        await self._write(self._waiting.popleft())
                    else:
                        await self._idle()
                await self._keep()
        finally:
            self._open = False
            self._stopped.set()  # also where the writer itself fails, so that nobody waits for it
            if self._group is not None:
                self._group.fail(StoreUnavailable("the writer of the audit trail ended within a commit"))
            self._fail("the audit trail is closed")
            while self._queue:
                self._queue.popleft().set()

    async def _write(self, group: Group) -> None:
        self._take(group)
        self._group, self._since_s = group, anyio.current_time()
        await anyio.to_thread.run_sync(self._commit, group.units, limiter=self._thread)
        self._group = self._since_s = None
        if not group.tell_some():
            if self._tasks is None:  # the log is being closed
                group.tell_all()
            else:
                self._tasks.start_soon(group.tell_others)
        while self._durable:
            events = self._durable.popleft()
            for callback in tuple(self._callbacks):
                callback(events)

    def _left_s(self, first: Group) -> float:
        """How long the first group may still wait for company."""
        if first.awaited or len(self._waiting) > 1 or self._queue or not self._open:
            return 0.0
        return first.since_s + LINGER_S - anyio.current_time()

    async def _idle(self) -> None:
        """Wait for the next unit; keep a checkpoint when its time comes before that."""
        self._arrived = anyio.Event()
        if self._waiting:
            with anyio.move_on_after(self._left_s(self._waiting[0])):
                await self._arrived.wait()
            return
        left_s = math.inf
        if self._at.sequence > self._kept:
            left_s = self._cadence.interval_s - (self._clock.monotonic_s() - self._kept_s)
        if left_s <= 0:
            await self._keep()
            return
        with anyio.move_on_after(left_s):
            await self._arrived.wait()

    async def _keep(self) -> None:
        if self._at.sequence > self._kept:
            self._since_s = anyio.current_time()
            await anyio.to_thread.run_sync(self._keep_head, limiter=self._thread)
            self._since_s = None

    async def _watch(self) -> None:
        """Let nobody wait longer than a commit may take; what the thread still does is told of when it is done."""
        while True:
            await anyio.sleep(WATCH_INTERVAL_S)
            if self._since_s is None or anyio.current_time() - self._since_s < COMMIT_TIMEOUT_S:
                continue
            what = f"the store did not commit within {COMMIT_TIMEOUT_S:g} s"
            if self._group is not None and not self._group.over:
                self._group.fail(StoreUnavailable(what, hint=_SLOW))
            self._fail(what)  # also those who came since: the thread is held up as before

    def _take(self, group: Group) -> None:
        self._pending -= len(group.units)
        self._make_room()

    def _fail(self, what: str) -> None:
        """Give up all that still waits; nothing of it was begun."""
        while self._waiting:
            group = self._waiting.popleft()
            self._take(group)
            group.fail(StoreUnavailable(what, hint=_SLOW))

    # --- on the store's thread --------------------------------------------------------------------

    def _take_up(self) -> None:
        self._at = take_up(self._store, self._keys) or self._at
        self._kept = self._store.last_checkpoint()

    def _commit(self, units: Sequence[Unit[Any]]) -> None:
        sealer = Sealer(self._at.copy(), self._keys, self._clock, self._ids)
        try:
            with self._store.transaction():
                self._run_units(units, sealer)
                commit = self._close(sealer)
                if commit is not None:
                    self._store.append(commit)
        except Exception as error:  # noqa: BLE001 - handed to every caller that waits for this commit
            failure = error if isinstance(error, SymbiError) else StoreUnavailable(f"the store failed: {error}")
            for unit in units:
                unit.error, unit.receipts = failure, ()
            return
        self._at = sealer.at
        if commit is not None:
            self._durable.append(commit.events)
            if commit.keep:
                self._kept, self._kept_s = self._at.sequence, self._clock.monotonic_s()

    def _run_units(self, units: Sequence[Unit[Any]], sealer: Sealer) -> None:
        """Units that are only events are placed together; the others one by one, each undone alone if it raises."""
        for plain, group in groupby(units, lambda unit: isinstance(unit.work, Prepared) and changes_nothing(unit.work)):
            if plain:
                alike = list(group)
                for unit, said in zip(
                    alike, sealer.place_each([cast("Prepared", unit.work) for unit in alike]), strict=True
                ):
                    if isinstance(said, Receipt):
                        unit.receipts = (said,)
                    else:
                        unit.error = said
            else:
                for unit in group:
                    self._run_unit(unit, sealer)

    def _run_unit(self, unit: Unit[Any], sealer: Sealer) -> None:
        work = unit.work
        try:
            if isinstance(work, Prepared):
                unit.receipts = sealer.place((work,))
                return
            with self._store.savepoint():
                unit.result, drafts = work()
                unit.receipts = sealer.place(drafts)
        except StoreUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - handed to the one caller whose unit of work failed
            unit.error, unit.receipts = error, ()

    def _close(self, sealer: Sealer) -> TrailCommit | None:
        """Sign what was sealed, and put the tree and the head over it."""
        if not sealer.events:
            return None
        at, events = sealer.at, self._finisher.finish(sealer.events)
        at.tree = at.tree.copy()
        tiles = at.tree.extend([event.record for event in events])
        waited_s = self._clock.monotonic_s() - self._kept_s
        keep = at.sequence - self._kept >= self._cadence.events or waited_s >= self._cadence.interval_s
        return TrailCommit(events, sealer.index, tiles, at.head(), keep)

    def _keep_head(self) -> None:
        """Keep the head as a checkpoint. Where the store refuses, nothing is lost: the head itself is durable."""
        self._kept_s = self._clock.monotonic_s()
        with suppress(StoreUnavailable):
            with self._store.transaction():
                self._store.put_checkpoint(self._at.sequence, self._at.head())
            self._kept = self._at.sequence


__all__ = ["AuditEventType", "AuditLog", "Cadence", "Draft", "Enlisted", "Receipt", "Signing", "Work"]
