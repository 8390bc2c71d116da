"""Puts documents in and takes them out: the gate first, and no moment at which what a search finds is half a document."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar
from uuid import UUID

import anyio

from symbi.audit.event import Draft
from symbi.errors import Denied, PolicyDenied
from symbi.guard.action import WriteData
from symbi.guard.permit import Permit
from symbi.inference.port import Vectors
from symbi.knowledge.documents import Access, Body, ChunkRecord, DocumentRecord, heading_line, label_of
from symbi.knowledge.rag import KnowledgeRooms, access_label, point_id
from symbi.knowledge.readings import data_ref
from symbi.knowledge.vectors import Filter, Namespace, OneOf, PayloadValue, Scope, VectorPoint
from symbi.types import JsonValue, KeyId, Label, Principal

T = TypeVar("T")

EMBED_AT_ONCE: Final = 256  # texts
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
        self, principal: Principal, access: Access, content: JsonValue, label: Label, *, embedded: bool = True
    ) -> AsyncIterator[Permit[WriteData]]:
        """The right to write or remove documents of one access.

        Args:
            principal: Who.
            access: Of which.
            content: What the gate is told.
            label: Of what is written.
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
        async with guard.enforce(action) as permit:
            effective = guard.authority.redeem(permit, WriteData)
            if effective.content != content:
                msg = (
                    "policy wants something taken out of what is written, and a document is written whole or not at all"
                )
                raise PolicyDenied(msg, code="knowledge.redacted")
            yield permit

    async def write(self, principal: Principal, documents: Sequence[Prepared]) -> None:
        """Put documents in, or in the place of their last versions. Searches find them once it has returned.

        Raises:
            Denied: Policy does not let those of one access be written; none of these is.
            StoreUnavailable: Store, index or trail cannot be used; the same again does what is left.
        """
        for access, some, content, label in _groups(documents):
            async with self.permitted(principal, access, content, label) as permit:
                await self.mend(permit, access.collection)
                await self._put(permit, access, some)

    async def write_vectors(self, principal: Principal, documents: Sequence[Prepared]) -> frozenset[str]:
        """Make vectors again of those chunks of documents that are given, whose rows are there.

        Returns the ids of those that policy does not let be written: no model has read them.

        Raises:
            StoreUnavailable: As `write`.
        """
        refused: set[str] = set()
        for access, some, content, label in _groups(documents):
            made = False
            try:
                async with self.permitted(principal, access, content, label) as permit:
                    made = True
                    number = await self._transact(partial(self.rooms.store.access_number, access))
                    await self._vectors(permit, [(one, chunk) for one in some for chunk in one.chunks], number)
            except Denied:
                if made:  # the permit was revoked while it was at it
                    raise
                refused |= {one.document.document_id for one in some}
        return frozenset(refused)

    async def _put(self, permit: Permit[WriteData], access: Access, documents: Sequence[Prepared]) -> None:
        """Vectors first, rows after them, and then what the rows were before."""
        rooms, store, ids = self.rooms, self.rooms.store, [one.document.document_id for one in documents]

        def note() -> int:
            store.put_pending(access.collection, ids)
            return store.access_number(access)

        number = await self._transact(note)
        self._probe("noted")
        before = await rooms.log.read(partial(store.chunk_ids_of, ids))
        pairs = [(one, chunk) for one in documents for chunk in one.chunks]
        await self._vectors(permit, pairs, number)
        stale = before - {chunk.chunk_id for _, chunk in pairs}

        def commit() -> None:
            store.put_documents([(one.document, one.chunks) for one in documents])
            if not stale:
                store.clear_pending(ids)

        await self._transact(commit)
        self._probe("rows")
        if stale:
            await self._forget(permit, access.collection, stale)
            self._probe("forgotten")
            await self._clear(ids)

    async def mend(self, permit: Permit[WriteData], collection: str) -> int:
        """Put in order what was being written or removed when a process ended: vectors without rows go.

        Returns how many documents were looked at.
        """
        store = self.rooms.store
        ids = await self.rooms.log.read(partial(store.pending, collection))
        if ids:
            rows = await self.rooms.log.read(partial(store.chunk_ids_of, ids))
            there = await self.vector_ids(permit, collection, OneOf("document", tuple(ids)))
            await self._forget(permit, collection, there - rows)
            await self._clear(ids)
        return len(ids)

    async def mend_alone(self, principal: Principal, access: Access) -> int:
        """`mend`, where nothing is written; asks the gate only where there is something to mend."""
        if not await self.rooms.log.read(partial(self.rooms.store.pending, access.collection)):
            return 0
        async with self.permitted(principal, access, {"mend": access.collection}, Label()) as permit:
            return await self.mend(permit, access.collection)

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
        documents = await rooms.log.read(partial(store.get_documents, ids))
        by_access: dict[Access, list[str]] = {}
        for one in documents.values():
            by_access.setdefault(one.access, []).append(one.document_id)
        for access, some in by_access.items():
            content: JsonValue = {"removed": list(some)}
            # What is taken out goes nowhere: no label of what it says has to fit.
            async with self.permitted(principal, access, content, Label()) as permit:
                await self.mend(permit, access.collection)
                rows = await rooms.log.read(partial(store.chunk_ids_of, some))
                count += await self._transact(partial(self._out, access.collection, some))
                self._probe("removed")
                await self._forget(permit, access.collection, rows)
                await self._clear(some)
        return count

    async def erase_rows(self, ids: Sequence[str]) -> None:
        """Remove rows and words of documents whose vectors are gone."""
        await self._transact(partial(self.rooms.store.remove_documents, ids, scrub=True))

    def _out(self, collection: str, ids: Sequence[str]) -> int:
        self.rooms.store.put_pending(collection, ids)
        return self.rooms.store.remove_documents(ids, scrub=True)

    async def _vectors(
        self, permit: Permit[WriteData], pairs: Sequence[tuple[Prepared, ChunkRecord]], number: int
    ) -> None:
        for first in range(0, len(pairs), EMBED_AT_ONCE):
            some = pairs[first : first + EMBED_AT_ONCE]
            texts = [_embedded(one.body, chunk) for one, chunk in some]
            vectors = await self.rooms.embedder.embed(permit, texts, "document")
            await self.rooms.vectors.upsert(permit, _points(some, vectors, number))
            self._probe("vectors")

    async def forget(self, permit: Permit[WriteData], collection: str, chunks: frozenset[str]) -> None:
        """Take vectors out that have no rows."""
        await self._forget(permit, collection, chunks)

    async def _forget(self, permit: Permit[WriteData], collection: str, chunks: frozenset[str]) -> None:
        if chunks:
            some = frozenset(point_id(one) for one in chunks)
            await self.rooms.vectors.delete(permit, Scope((Namespace("Knowledge", collection),), Filter(ids=some)))

    async def _clear(self, ids: Sequence[str]) -> None:
        """Take the note of documents away with the next commit, which is that of the outcome: until then it does no harm."""

        def unit() -> tuple[None, tuple[Draft, ...]]:
            self.rooms.store.clear_pending(ids)
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
    for (access, subjects), some in groups.items():
        content: JsonValue = [
            {"source": one.document.source, "version": one.document.version, "bytes": one.document.size_bytes}
            for one in some
        ]
        yield access, some, content, label_of(access, subjects)


def _points(pairs: Sequence[tuple[Prepared, ChunkRecord]], vectors: Vectors, number: int) -> list[VectorPoint]:
    points = []
    for (one, chunk), vector in zip(pairs, vectors, strict=True):
        document = one.document
        payload: dict[str, PayloadValue] = {
            "document": document.document_id,
            "label": access_label(number),
            "time": document.modified_ns // _MS_NS,
            "kind": document.kind,
        }
        if one.body.subjects:
            # By itself and by the keys of whom it is about: names stand nowhere beside vectors.
            payload["subject"] = (erased_as(document.document_id), *one.keys)
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
