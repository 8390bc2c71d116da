"""Puts documents in and takes them out: the gate first, and no moment at which what a search finds is half a document."""

from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeVar
from uuid import UUID

import anyio

from symbi.audit.event import Draft
from symbi.errors import Denied, InputError, PolicyDenied
from symbi.guard.action import WriteData
from symbi.guard.permit import Permit
from symbi.guard.riders import NO_RIDERS, Riders
from symbi.inference.port import Vectors
from symbi.knowledge.documents import CHUNKS_AT_ONCE, Access, Body, ChunkRecord, DocumentRecord, heading_line, label_of
from symbi.knowledge.rag import KnowledgeRooms, KnowledgeStore, access_label, point_id
from symbi.knowledge.readings import data_ref
from symbi.knowledge.vectors import Filter, Namespace, OneOf, PayloadValue, Scope, VectorPoint
from symbi.types import JsonValue, KeyId, Label, Principal

T = TypeVar("T")

REDACTED: Final = "knowledge.redacted"
EMBED_AT_ONCE: Final = 256  # texts
SCRUB_PAGES: Final = 64  # of the index of words, written anew in one transaction: some 10 ms
ERASE_AT_ONCE: Final = 32  # documents, which have some chunks each
PAGE: Final = 1_000
_MS_NS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Prepared:
    """A document that is to be written.

    Attributes:
        document: It.
        chunks: Its chunks.
        body: What it says, for the vectors.
        keys: Under which its body is sealed; none where it is not.
        is_new: It was not there before.
    """

    document: DocumentRecord
    chunks: tuple[ChunkRecord, ...]
    body: Body
    keys: tuple[KeyId, ...]
    is_new: bool


@dataclass(frozen=True, slots=True)
class Origin:
    """From where documents come.

    Attributes:
        name: What their sources begin with; of a file that is read alone, its source.
        root: Path of the folder.
    """

    name: str
    root: Path


class _Batch:
    """Documents of one access that are written together; what it does runs on the store's thread.

    Args:
        store: Where their rows are.
        access: Who may read them.
        documents: They.
        origin: From where.
    """

    def __init__(
        self, store: KnowledgeStore, access: Access, documents: Sequence[Prepared], origin: Origin | None = None
    ) -> None:
        self._store = store
        self._documents = documents
        self._origin = origin
        self.access = access
        self.ids = frozenset(one.document.document_id for one in documents)
        self.pairs = [(one, chunk) for one in documents for chunk in one.chunks]
        self.number = 0  # of the access
        self.left: frozenset[str] = frozenset()  # noted before, by what broke off
        self.stale: frozenset[str] = frozenset()  # chunks of last versions
        self.large = len(self.pairs) > CHUNKS_AT_ONCE
        self.sealed = any(chunk.words is None for _, chunk in self.pairs)
        self.scrub = False  # words of what was removed are left, by what broke off

    def count(self) -> None:
        """Number the access; with the decision."""
        self.number = self._store.access_number(self.access)

    def note(self) -> None:
        """Note that they are being written, and look what is there; with the decision."""
        self.count()
        self.left = frozenset(self._store.pending(self.access.collection))
        self.scrub = self._store.scrub_due()
        if self._origin is not None:
            self._store.put_folder(self.access.collection, self._origin.name, self._origin.root)
        self._store.put_pending(self.access.collection, sorted(self.ids))
        self.stale = self._store.chunk_ids_of(sorted(self.ids)) - {chunk.chunk_id for _, chunk in self.pairs}

    def put(self) -> None:
        """Put rows and words in; with the outcome. The note is over, unless vectors of last versions are left."""
        self._store.put_documents([(one.document, one.chunks) for one in self._documents])
        if not self.stale:
            self._store.clear_pending(sorted(self.ids))


def no_probe(_point: str) -> None:
    """The default of `probe`: nothing."""


class Writing:
    """Writes and removes documents; whoever calls holds `turn`, except where a method says that it takes it.

    Args:
        rooms: What it stands on.
        probe: Called at named points, for tests.
    """

    def __init__(self, rooms: KnowledgeRooms, probe: Callable[[str], None] = no_probe) -> None:
        self.rooms = rooms
        self.turn = anyio.Lock()
        self._probe = probe

    @asynccontextmanager
    async def permitted(
        self,
        principal: Principal,
        access: Access,
        content: JsonValue,
        label: Label,
        riders: Riders = NO_RIDERS,
        *,
        embedded: bool = False,
    ) -> AsyncIterator[Permit[WriteData]]:
        """The right to write or remove documents of one access.

        Args:
            principal: Who.
            access: Of which.
            content: What the gate is told.
            label: Of what is written.
            riders: What is written in the commits of its decision and its outcome.
            embedded: Whether a model may read it under this permit.

        Raises:
            Denied: Policy does not permit it, or only in another form than this, which documents do not have.
            StoreUnavailable: The decision cannot be made durable.
        """
        guard, model = self.rooms.guard, self.rooms.embedder.model
        action = WriteData(
            principal=principal,
            data=data_ref(access),
            label=label,
            content=content,
            purpose=access.purpose,
            embedder=model.name if embedded else "",
            remote=embedded and model.remote,
        )
        async with guard.enforce(action, riders=riders) as permit:
            effective = guard.authority.redeem(permit, WriteData)
            if effective.content != content:
                msg = (
                    "policy wants something taken out of what is written, and a document is written whole or not at all"
                )
                raise PolicyDenied(msg, code=REDACTED)
            yield permit

    async def write(self, principal: Principal, documents: Sequence[Prepared], origin: Origin | None = None) -> None:
        """Put documents in, or in the place of their last versions. Searches find them once it has returned.

        Args:
            principal: Who writes.
            documents: What.
            origin: From where, which is noted with the first of them.

        Raises:
            Denied: Policy does not let those of one access be written; none of these is.
            StoreUnavailable: Store, index or trail cannot be used; the same again does what is left.
        """
        for access, some, content, label in _groups(documents):
            batch = _Batch(self.rooms.store, access, some, origin)
            riders = Riders(batch.note, batch.put, partial(self._written, batch))
            try:
                async with self.permitted(principal, access, content, label, riders, embedded=True) as permit:
                    self._probe("noted")
                    if batch.left or batch.scrub:
                        await self._mend(permit, access.collection, batch.left, keep=batch.ids)
                    await self._vectors(permit, batch.pairs, batch.number, marked=True)
                    if batch.large:
                        await self._stage([chunk for _, chunk in batch.pairs])
            except PolicyDenied as refusal:
                if refusal.code == REDACTED:  # nothing was begun of what was noted
                    await self._clear(batch.ids - batch.left)
                raise

    async def _written(self, batch: "_Batch", permit: Permit[WriteData]) -> None:
        """Take out the vectors of last versions, which nobody finds any more."""
        self._probe("rows")
        if batch.stale:
            await self._forget(permit, batch.access.collection, batch.stale)
            self._probe("forgotten")
            if batch.large or len(batch.stale) > CHUNKS_AT_ONCE:
                await self._drop(batch.ids, scrub=False)
            await self._clear(batch.ids)
        if batch.sealed:
            await self._scrub()

    async def _stage(self, chunks: Sequence[ChunkRecord]) -> None:
        """Put the chunks of a large document in, a part at a time: they count once it is there."""
        for first in range(0, len(chunks), CHUNKS_AT_ONCE):
            await self._transact(partial(self.rooms.store.stage_chunks, chunks[first : first + CHUNKS_AT_ONCE]))
            self._probe("staged")

    async def _drop(self, ids: Collection[str], *, scrub: bool = True) -> None:
        """Drop what is staged for documents, or was theirs, a part at a time; `scrub` as of `remove_documents`."""
        store, some = self.rooms.store, sorted(ids)
        while left := await self.rooms.log.read(partial(store.left_chunks, some, CHUNKS_AT_ONCE)):
            await self._transact(partial(store.drop_chunks, left, scrub=scrub))
            self._probe("dropped")

    async def write_vectors(self, principal: Principal, documents: Sequence[Prepared]) -> frozenset[str]:
        """Make vectors again of those chunks of documents that are given, whose rows are there.

        Returns the ids of those that policy does not let be written: no model has read them.

        Raises:
            StoreUnavailable: As `write`.
        """
        refused: set[str] = set()
        for access, some, content, label in _groups(documents):
            batch, made = _Batch(self.rooms.store, access, some), False
            try:
                async with self.permitted(
                    principal, access, content, label, Riders(batch.count), embedded=True
                ) as permit:
                    made = True
                    await self._vectors(permit, batch.pairs, batch.number)
            except Denied:
                if made:  # the permit was revoked while it was at it
                    raise
                refused |= {one.document.document_id for one in some}
        return frozenset(refused)

    async def mend(self, permit: Permit[WriteData], collection: str) -> int:
        """Put in order what was being written or removed when a process ended: vectors without rows go.

        Returns how many documents were looked at.
        """
        ids, scrub = await self.rooms.log.read(partial(self._left, collection))
        if ids or scrub:
            await self._mend(permit, collection, ids)
        return len(ids)

    async def mend_alone(self, principal: Principal, access: Access) -> int:
        """`mend`, where nothing is written; asks the gate only where there is something to mend."""
        if not any(await self.rooms.log.read(partial(self._left, access.collection))):
            return 0
        async with self.permitted(principal, access, {"mend": access.collection}, Label()) as permit:
            return await self.mend(permit, access.collection)

    def _left(self, collection: str) -> tuple[frozenset[str], bool]:
        """What is noted, and whether words are left; on the store's thread."""
        return frozenset(self.rooms.store.pending(collection)), self.rooms.store.scrub_due()

    async def _mend(
        self, permit: Permit[WriteData], collection: str, ids: frozenset[str], keep: frozenset[str] = frozenset()
    ) -> None:
        """Compare rows and vectors of some documents; the notes of those to `keep` stay, for they are being written."""
        if ids:
            some = sorted(ids)
            rows = await self.rooms.log.read(partial(self.rooms.store.chunk_ids_of, some))
            there = await self.vector_ids(permit, collection, OneOf("document", tuple(some)))
            await self._forget(permit, collection, there - rows)
            await self._drop(ids)
            await self._clear(ids - keep)
        await self._scrub()

    async def _scrub(self) -> None:
        """Write the index of words anew where that is due, some pages at a time: everybody else's commits lie between."""
        if await self.rooms.log.read(self.rooms.store.scrub_due):
            while await self._transact(partial(self.rooms.store.scrub_words, SCRUB_PAGES)):
                pass

    async def vector_ids(self, permit: Permit[WriteData], collection: str, only: OneOf | None = None) -> frozenset[str]:
        """Ids of all vectors of a collection, or of some documents of it."""
        scope = Scope((Namespace("Knowledge", collection),), Filter((only,) if only is not None else ()))
        after: UUID | None = None
        found: set[str] = set()
        while page := await self.rooms.vectors.ids(permit, scope, after):
            found |= {str(one) for one in page}
            after = page[-1]
        return frozenset(found)

    async def remove(self, principal: Principal, ids: Sequence[str]) -> int:
        """Take `turn`, and remove documents; returns how many there were."""
        async with self.turn:
            return await self.remove_now(principal, ids)

    async def remove_now(self, principal: Principal, ids: Sequence[str]) -> int:
        """Remove documents with all that is kept of them; returns how many there were. Nobody finds them from then on.

        Raises:
            Denied: Policy does not let those of one access be removed; they stay, and those of later ones.
            StoreUnavailable: Store, index or trail cannot be used; the same again does what is left.
        """
        rooms, store, count = self.rooms, self.rooms.store, 0
        documents = await rooms.log.read(partial(store.get_documents, ids, bodies=False))
        by_access: dict[Access, list[DocumentRecord]] = {}
        for one in documents.values():
            by_access.setdefault(one.access, []).append(one)
        for access, some in by_access.items():
            content: JsonValue = {"removed": [one.document_id for one in some]}
            # What is taken out goes nowhere: no label of what it says has to fit.
            async with self.permitted(principal, access, content, Label()) as permit:
                await self.mend(permit, access.collection)
                for part in _bounded(some, lambda one: one.chunks):
                    gone = [one.document_id for one in part]
                    rows = await rooms.log.read(partial(store.chunk_ids_of, gone))
                    count += await self._transact(partial(self._out, access.collection, gone))
                    self._probe("removed")
                    await self._forget(permit, access.collection, rows)
                    await self._drop(gone)
                    await self._clear(gone)
                await self._scrub()
        return count

    async def absent(self, principal: Principal, access: Access, error: InputError) -> None:
        """Say that something is not there, or is another's, to whoever may write it: others are told that they may not.

        What is left of what was being removed when it broke off goes.

        Raises:
            Denied: They may not.
            InputError: The error.
            StoreUnavailable: The decision cannot be made durable.
        """
        async with self.permitted(principal, access, {"removed": []}, Label()) as permit:
            await self.mend(permit, access.collection)
        raise error  # not within: what came to an end would be taken for a write that nobody knows the outcome of

    async def below(self, collection: str, name: str) -> Mapping[str, str]:
        """Ids of the documents of a name: of that source, and of all sources below it; by source."""
        store, prefix = self.rooms.store, f"{name}/"
        exact = await self.rooms.log.read(partial(store.versions, collection, [name]))
        found, after = {source: id_ for source, (id_, _) in exact.items()}, (collection, prefix)
        while page := await self.rooms.log.read(partial(store.documents, collection, after, PAGE)):
            some = {one.source: one.document_id for one in page if one.source.startswith(prefix)}
            found |= some
            if len(some) < len(page):
                break
            after = (collection, page[-1].source)
        return found

    async def erase_rows(self, ids: Sequence[str]) -> None:
        """Remove rows and words of documents whose vectors are gone, and their notes; and all that is staged or left of any."""
        for first in range(0, len(ids), ERASE_AT_ONCE):
            some = ids[first : first + ERASE_AT_ONCE]
            await self._transact(partial(self.rooms.store.remove_documents, some, scrub=True))
        await self._drop({*ids, *await self.rooms.log.read(partial(self.rooms.store.pending, None))})
        await self._clear(ids)
        await self._scrub()

    def _out(self, collection: str, ids: Sequence[str]) -> int:
        self.rooms.store.put_pending(collection, ids)
        return self.rooms.store.remove_documents(ids, scrub=True)

    async def _vectors(
        self,
        permit: Permit[WriteData],
        pairs: Sequence[tuple[Prepared, ChunkRecord]],
        number: int,
        *,
        marked: bool = False,
    ) -> None:
        """Put vectors in; `marked` so that an erasure of what they take the place of finds them, whomever it was about."""
        for first in range(0, len(pairs), EMBED_AT_ONCE):
            some = pairs[first : first + EMBED_AT_ONCE]
            texts = [_embedded(one.body, chunk) for one, chunk in some]
            vectors = await self.rooms.embedder.embed(permit, texts, "document")
            await self.rooms.vectors.upsert(permit, _points(some, vectors, number, marked=marked))
            self._probe("vectors")

    async def forget(self, permit: Permit[WriteData], collection: str, chunks: frozenset[str]) -> None:
        """Take vectors out that have no rows."""
        await self._forget(permit, collection, chunks)

    async def _forget(self, permit: Permit[WriteData], collection: str, chunks: frozenset[str]) -> None:
        if chunks:
            some = frozenset(point_id(one) for one in chunks)
            await self.rooms.vectors.delete(permit, Scope((Namespace("Knowledge", collection),), Filter(ids=some)))

    async def _clear(self, ids: Collection[str]) -> None:
        """Take the note of documents away with the next commit, whoever makes it: until then it does no harm."""

        def unit() -> tuple[None, tuple[Draft, ...]]:
            self.rooms.store.clear_pending(sorted(ids))
            return None, ()

        await self.rooms.log.enlist(unit, wait=True)

    async def _transact(self, work: Callable[[], T]) -> T:
        """Work in the store's transaction, durable when it returns. The events are those of the permit under which it is done."""

        def unit() -> tuple[T, tuple[Draft, ...]]:
            return work(), ()

        value, _ = await self.rooms.log.transact(unit, wait=True)
        return value


def _groups(documents: Sequence[Prepared]) -> Iterator[tuple[Access, list[Prepared], JsonValue, Label]]:
    """Documents by what is decided together: who may read them, with what of them the gate is told, and their label.

    By whom they are about, too: what is on record of somebody names no document about others.
    """
    groups: dict[tuple[Access, tuple[str, ...]], list[Prepared]] = {}
    for one in documents:
        groups.setdefault((one.document.access, one.body.subjects), []).append(one)
    for (access, subjects), alike in groups.items():
        for some in _bounded(alike, lambda one: len(one.chunks)):
            content: JsonValue = [
                {"source": one.document.source, "version": one.document.version, "bytes": one.document.size_bytes}
                for one in some
            ]
            yield access, some, content, label_of(access, subjects)


def _bounded(some: Sequence[T], chunks: Callable[[T], int]) -> Iterator[list[T]]:
    """Documents in parts, each of which holds the store up for a bounded time, or is one document."""
    part: list[T] = []
    size = 0
    for one in some:
        if part and size + chunks(one) > CHUNKS_AT_ONCE:
            yield part
            part, size = [], 0
        part.append(one)
        size += chunks(one)
    if part:
        yield part


def _points(
    pairs: Sequence[tuple[Prepared, ChunkRecord]], vectors: Vectors, number: int, *, marked: bool
) -> list[VectorPoint]:
    points = []
    for (one, chunk), vector in zip(pairs, vectors, strict=True):
        document = one.document
        payload: dict[str, PayloadValue] = {
            "document": document.document_id,
            "label": access_label(number),
            "time": document.modified_ns // _MS_NS,
            "kind": document.kind,
        }
        if one.body.subjects or (marked and not one.is_new):
            # By itself and by the keys of whom it is about: names stand nowhere beside vectors.
            payload["subject"] = (erased_as(document.document_id), *(one.keys if one.body.subjects else ()))
        namespace = Namespace("Knowledge", document.access.collection)
        points.append(VectorPoint(point_id(chunk.chunk_id), vector, namespace, payload))
    return points


def erased_as(document: str) -> str:
    """How the index of vectors is told to let go of a document that is about somebody."""
    return f"document:{document}"


def _embedded(body: Body, chunk: ChunkRecord) -> str:
    """What is made a vector: a chunk by itself does not say what it is about."""
    headings = heading_line(body.title, body.headings[chunk.ordinal])
    text = body.text[chunk.start : chunk.end]
    return f"{headings}\n{text}" if headings else text
