"""Keeping the trail: closed segments are sealed into the audit storage, and old ones leave the live store.

To seal a segment:

1. write it to the storage as an export, beside its place, flushed; then give it its name (`symbi.adapters.audit_storage`);
2. read it back, and verify it alone as any auditor would;
3. check that it is the stretch that the live store has: first, last, chain hash;
4. in one transaction: note it as sealed, and say so on the trail.

A crash leaves nothing half: before 4 the segment is not sealed, and the next start writes it again, or, where it has its
name already, goes on with 2. To remove one, it is read back and verified once more, and its events, the note and the
event that says so are one transaction.

A storage that fails stops no effect: it is told, and tried again, waiting longer each time. Where it is required, effects
stop once too many segments wait for it.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import anyio
import anyio.from_thread
import anyio.to_thread

from symbi.audit.anchor import Anchor
from symbi.audit.checkpoint import parse_note
from symbi.audit.event import AuditEventType, Draft, parse_event
from symbi.audit.export import (
    ANCHORS_NAME,
    CHECKPOINTS_NAME,
    FRONTIER_NAME,
    KEYS_NAME,
    anchor_name,
    frontier_document,
    keys_document,
    note_name,
)
from symbi.audit.heads import keep_head
from symbi.audit.log import AuditLog
from symbi.audit.port import AuditStore
from symbi.audit.segments import (
    KeepingRules,
    Segment,
    closed_at,
    holds_more_than_keeping,
    is_due,
    kept_until,
    removable,
    segment_at,
    segment_folder,
    waiting,
)
from symbi.audit.tree import nodes_of
from symbi.audit.verify import Start, TrailReport
from symbi.clock import Clock, rfc3339
from symbi.crypto.merkle import Nodes, frontier_of
from symbi.crypto.signing import VerifyingKey
from symbi.errors import ChainBroken, StoreUnavailable, Unavailable, VerificationError
from symbi.telemetry import ComponentHealth, HealthState
from symbi.types import SYSTEM_AGENT, KeyId

_log = logging.getLogger("symbi.audit")

FIRST_WAIT_S: Final = 1.0  # before a storage that failed is tried again; doubled each time
LONGEST_WAIT_S: Final = 300.0
PAGE: Final = 1000  # events read at once, between two commits
_RETENTION: Final = b'"retention_days"'


class KeepingStore(AuditStore, Protocol):
    """What the store knows of segments and anchors, beside the trail; written inside the running transaction."""

    def segments(self) -> Sequence[Segment]:
        """All that were sealed, by their first event."""

    def put_segment(self, segment: Segment) -> None:
        """Note a segment as sealed."""

    def remove_segment(self, segment: Segment) -> None:
        """Take the events of a segment out, and note when; its checkpoints and the tree over it stay."""

    def anchors(self, first: int, last: int | None = None) -> Sequence[Anchor]:
        """Time stamps of the checkpoints with a size from `first` to `last`."""

    def put_anchor(self, anchor: Anchor) -> None:
        """Keep a time stamp."""


class Storage(Protocol):
    """Takes segments; `symbi.adapters.audit_storage` is one. Its methods block."""

    def path(self, name: str) -> Path:
        """Where a segment is, or would be."""

    def has(self, name: str) -> bool:
        """Whether a segment is there under its name; raises Unavailable."""

    def put(self, name: str, events: Iterable[bytes], files: Mapping[str, bytes]) -> str:
        """Write a segment durably, whole or not at all; raises Unavailable."""

    def digest(self, name: str) -> str:
        """SHA-256 (hex) of its events as they stand there; raises Unavailable."""


@dataclass(frozen=True, slots=True)
class KeepingStatus:
    """How far keeping has come.

    Attributes:
        sealed: Sequence of the last event in the storage.
        waiting: Segments that are closed and not there: those that are full, or the one whose time is over.
        failure: Why the storage could not be used the last time; empty where it could.
    """

    sealed: int
    waiting: int
    failure: str


@dataclass(frozen=True, slots=True)
class Archive:
    """Where segments go, and what they are verified with.

    Attributes:
        storage: The audit storage.
        verify: Verifies a folder alone; blocks; raises ChainBroken, or Unavailable where it cannot be read.
        keys: All public keys that signed the trail.
    """

    storage: Storage
    verify: Callable[[Path], TrailReport]
    keys: Callable[[], Mapping[KeyId, VerifyingKey]]


class Keeper:
    """Seals and removes segments.

    Args:
        log: The trail.
        store: What it stands in.
        archive: Where segments go.
        rules: When.
        clock: For ages and for how long a storage that failed is left alone.
        probe: Called at named points; tests crash the process there.
    """

    def __init__(
        self,
        log: AuditLog,
        store: KeepingStore,
        archive: Archive,
        rules: KeepingRules,
        clock: Clock,
        *,
        probe: Callable[[str], None] | None = None,
    ) -> None:
        self._log = log
        self._store = store
        self._archive = archive
        self._rules = rules
        self._clock = clock
        self._probe = probe or (lambda _point: None)
        self._sealed = 0
        self._closed = 0  # where the newest segment ends that was found closed
        self._failure = ""
        self._failures = 0
        self._next_s = clock.monotonic_s()
        self._wake = anyio.Event()

    @property
    def status(self) -> KeepingStatus:
        """How far it has come."""
        full = waiting(self._log.sequence, self._sealed, self._rules)
        return KeepingStatus(self._sealed, max(full, int(self._closed > self._sealed)), self._failure)

    @property
    def component(self) -> str:
        """Its name where health is told."""
        return "audit storage"

    async def check(self) -> ComponentHealth:
        """Unhealthy where effects stop, degraded where segments wait or the storage failed."""
        status = self.status
        if self._rules.required and status.waiting > self._rules.max_waiting:
            return ComponentHealth(
                HealthState.UNHEALTHY, f"{status.waiting} segments wait; {status.failure}".rstrip("; ")
            )
        if status.failure or status.waiting:
            return ComponentHealth(HealthState.DEGRADED, status.failure or f"{status.waiting} segments wait")
        return ComponentHealth(HealthState.HEALTHY)

    async def open(self) -> None:
        """Learn what is sealed already, and take up what was left undone."""
        await self._learn()
        await self.look()

    async def _learn(self) -> None:
        segments = await self._log.read(self._store.segments)
        self._sealed = segments[-1].last if segments else 0

    def barrier(self) -> None:
        """Return if effects may happen.

        Raises:
            StoreUnavailable: The storage is required, and has fallen too far behind.
        """
        status = self.status
        if self._rules.required and status.waiting > self._rules.max_waiting:
            msg = (
                f"{status.waiting} segments of the trail wait for the audit storage, and {self._rules.max_waiting} may"
            )
            hint = status.failure or "the storage is slower than what is written"
            raise StoreUnavailable(msg, code="unavailable.audit_storage", hint=hint)

    def committed(self, _events: object) -> None:
        """Hear that events are durable."""
        if waiting(self._log.sequence, self._sealed, self._rules):
            self._wake.set()

    async def run(self) -> None:
        """Look whenever a segment is full, and from time to time, until cancelled."""
        while True:
            with anyio.move_on_after(self._rules.check_s):
                await self._wake.wait()
            self._wake = anyio.Event()
            await self.look()

    async def look(self) -> None:
        """Seal what is closed and remove what is old, unless the storage failed a short while ago."""
        if self._clock.monotonic_s() < self._next_s:
            return
        try:
            if self._failures:
                await self._learn()  # a commit that took too long may have been made all the same
            await self._seal_all()
            await self._remove_all()
        except (Unavailable, VerificationError) as error:
            wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(self._failures, 16))
            self._failures += 1
            self._next_s = self._clock.monotonic_s() + wait_s
            if self._failure != str(error):
                _log.error("the trail cannot be kept: %s; tried again in %g s", error, wait_s)
            self._failure = str(error)
        else:
            if self._failure:
                _log.warning("the audit storage takes segments again")
            self._failure, self._failures = "", 0

    async def _seal_all(self) -> None:
        while (end := await self._end()) is not None:
            self._closed = end
            await self._seal(self._sealed + 1, end)

    async def _end(self) -> int | None:
        """Where the next segment ends; None while it is open."""
        first = self._sealed + 1
        if self._log.sequence < first:
            return None
        end = await self._log.read(
            lambda: closed_at(first, (size for size, _ in self._store.checkpoints(first)), self._rules)
        )
        if end is not None:
            return end
        if self._log.sequence - self._sealed >= self._rules.events or await self._is_due(first):
            return await self._keep_head()
        return None

    async def _is_due(self, first: int) -> bool:
        found = await self._log.read(lambda: next(iter(self._store.read(first, first)), None))
        if found is None:
            return False
        event = parse_event(found.record, sequence=first)
        if not is_due(event.timestamp, self._clock.now_ns(), self._rules):
            return False
        return await self._log.read(
            lambda: holds_more_than_keeping(
                parse_event(one.record, sequence=one.sequence) for one in self._store.read(first)
            )
        )

    async def _keep_head(self) -> int:
        note = await keep_head(self._log, self._store)
        self._probe("closed")
        return note.checkpoint.size

    async def _seal(self, first: int, last: int) -> None:
        notes, segments = await self._log.read(
            lambda: (list(self._store.checkpoints(first, last)), self._store.segments())
        )
        checkpoint = parse_note(notes[-1][1]).checkpoint
        name = segment_folder(checkpoint.origin, first, last)
        storage = self._archive.storage
        _log.info("sealing the events %d to %d of the trail", first, last)
        # 1 write
        if not await anyio.to_thread.run_sync(storage.has, name):
            files = {f"{CHECKPOINTS_NAME}/{note_name(size)}": note for size, note in notes}
            files |= await self._other_files(first, last, segments)
            await anyio.to_thread.run_sync(partial(storage.put, name, self._pages(first, last), files))
        self._probe("stored")
        # 2, 3 read back
        digest = await self._verified(name, first, last, checkpoint.chain_hash)
        self._probe("verified")
        # 4 note it
        keep_until = max([await self._kept_until(*page) for page in _paged(first, last)], default="")
        sealed = segment_at(checkpoint, first, digest, keep_until, rfc3339(self._clock.now_ns()))
        where = hashlib.sha256(str(storage.path(name)).encode()).hexdigest()
        draft = Draft(AuditEventType.SEGMENT_SEALED, SYSTEM_AGENT, sealed.facts() | {"where": where})

        def note_it() -> tuple[None, Sequence[Draft]]:
            self._store.put_segment(sealed)
            return None, (draft,)

        await self._log.transact(note_it, wait=True)
        self._sealed = last
        self._probe("sealed")

    async def _other_files(self, first: int, last: int, segments: Sequence[Segment]) -> dict[str, bytes]:
        files = {KEYS_NAME: keys_document(self._archive.keys())}
        anchors = await self._log.read(partial(self._store.anchors, first, last))
        files |= {f"{ANCHORS_NAME}/{anchor_name(anchor.size)}": anchor.token for anchor in anchors}
        if first > 1:
            chain_hash = segments[-1].chain_hash
            frontier = await self._log.read(lambda: frontier_of(first - 1, self._nodes()))
            files[FRONTIER_NAME] = frontier_document(Start(first - 1, frontier.hashes, chain_hash))
        return files

    def _nodes(self) -> Nodes:
        return nodes_of(self._log.sequence, self._store.tile, self._store.record)

    def _pages(self, first: int, last: int) -> Iterator[bytes]:
        """The lines of a segment, from a worker thread: each page is read on the store's own, between commits."""
        for low, high in _paged(first, last):
            events = anyio.from_thread.run(self._log.read, lambda low=low, high=high: list(self._store.read(low, high)))
            yield b"".join(event.record + b"\n" for event in events)

    async def _kept_until(self, low: int, high: int) -> str:
        """Until when events of a page must stay by their own word; empty where none says so."""
        events = await self._log.read(lambda: [one for one in self._store.read(low, high) if _RETENTION in one.record])
        parsed = [parse_event(one.record, sequence=one.sequence) for one in events]
        return max((kept_until(event.details, event.timestamp) for event in parsed), default="")

    async def _verified(self, name: str, first: int, last: int, chain_hash: str) -> str:
        """The digest of a segment's events in the storage, once it has been verified there.

        Raises:
            ChainBroken: It does not verify, or is another stretch.
            Unavailable: It cannot be read.
        """
        storage = self._archive.storage
        report = await anyio.to_thread.run_sync(self._archive.verify, storage.path(name))
        if (report.first, report.last, report.chain_hash) != (first, last, chain_hash):
            msg = f"`{storage.path(name)}` is whole, and not what the live store has from event {first} to {last}"
            raise ChainBroken(msg, sequence=first, reason="hash", hint="look who else writes to the audit storage")
        return await anyio.to_thread.run_sync(storage.digest, name)

    async def _remove_all(self) -> None:
        if self._rules.retention_days is None:
            return
        segments = await self._log.read(self._store.segments)
        for segment in list(removable(segments, self._log.sequence, self._clock.now_ns(), self._rules)):
            digest = await self._verified(segment.folder, segment.first, segment.last, segment.chain_hash)
            if digest != segment.digest:
                msg = f"`{self._archive.storage.path(segment.folder)}` is not the copy that was sealed"
                raise ChainBroken(msg, sequence=segment.first, reason="hash")
            self._probe("removing")
            removed = rfc3339(self._clock.now_ns())
            await self._log.transact(partial(self._take_out, segment, removed), wait=True)
            self._probe("removed")

    def _take_out(self, segment: Segment, removed_at: str) -> tuple[None, Sequence[Draft]]:
        self._store.remove_segment(replace(segment, removed_at=removed_at))
        return None, (Draft(AuditEventType.SEGMENT_REMOVED, SYSTEM_AGENT, segment.facts()),)


def _paged(first: int, last: int) -> Iterator[tuple[int, int]]:
    for low in range(first, last + 1, PAGE):
        yield low, min(low + PAGE - 1, last)
