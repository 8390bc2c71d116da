"""Compares store and index of a collection, both ways, and each chunk with the text of its document.

Policy decides for each sort of document (`Access`) that the collection has: of those that may not be written, nothing is
compared, counted or named, and no vector is made. A document that may be written and not read is counted, and not named.
What a write left that broke off is found by nobody, and goes whoever might write it, as with any other write.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import anyio.to_thread

from symbi.errors import ConfigError, DecryptionFailed, Denied, SymbiError
from symbi.guard.action import WriteData
from symbi.guard.confidential import open_column
from symbi.guard.permit import Permit
from symbi.guard.sealed import is_sealed, read_sealed
from symbi.knowledge.documents import (
    Access,
    Body,
    ChunkRecord,
    DocumentRecord,
    body_place,
    heading_line,
    label_of,
)
from symbi.knowledge.rag import Retrieval, access_label
from symbi.knowledge.readings import Reader
from symbi.knowledge.vectors import Filter, Namespace, OneOf, Scope
from symbi.knowledge.writing import Prepared, Writing
from symbi.types import JsonValue, KeyId

PAGE: Final = 1_000
AGAIN_AT_ONCE: Final = 32  # documents whose vectors are made again
UNNAMED: Final = "a document that may not be read here does not open, or is not what it was"


@dataclass(frozen=True, slots=True)
class Verified:
    """How store and index of a collection agree, as far as whoever asked may write it.

    Attributes:
        collection: Which.
        documents, chunks, vectors: How many there are.
        pending: Documents that were being written when a process ended.
        orphans: Vectors without a chunk.
        missing: Chunks without a vector.
        damaged: Documents whose text does not open, or whose chunks are not those of the text.
        repaired: Whether the first three were put in order.
        refused: Documents whose vectors are still missing, because policy does not let them be made again.
    """

    collection: str
    documents: int
    chunks: int
    vectors: int
    pending: int
    orphans: int
    missing: int
    damaged: tuple[str, ...]
    repaired: bool = False
    refused: int = 0

    @property
    def clean(self) -> bool:
        """Nothing is left to be put in order."""
        ordered = self.repaired or not (self.pending or self.orphans or self.missing)
        return ordered and not self.damaged and not self.refused


@dataclass(slots=True)
class _Found:
    """What there is of some sorts of documents."""

    pending: int = 0
    vectors: int = 0
    rows: dict[str, str] = field(default_factory=dict)
    orphans: int = 0
    missing: frozenset[str] = frozenset()


class Verifying:
    """Looks after collections.

    Args:
        retrieval: Opens bodies, and knows who may read.
        writing: Writes what is missing.
    """

    def __init__(self, retrieval: Retrieval, writing: Writing) -> None:
        self._retrieval = retrieval
        self._writing = writing
        self._rooms = writing.rooms

    async def verify(self, reader: Reader, collection: str, *, repair: bool) -> Verified:
        """See `Knowledge.verify`."""
        rooms, writing = self._rooms, self._writing
        refused: set[str] = set()
        async with writing.turn:
            accesses = await rooms.log.read(partial(rooms.store.accesses, collection))
            async with AsyncExitStack() as stack:
                permits = await self._permitted(reader, collection, accesses, stack, repair=repair)
                whole = len(permits) == max(len(accesses), 1)
                mine = {number: access for number, access in accesses.items() if number in permits}
                found = await self._compare(
                    collection, next(iter(permits.values())), None if whole else mine, repair=repair
                )
            if repair:
                lost = sorted({found.rows[one] for one in found.missing})
                refused = await self._make_again(reader, lost, found.missing)
            documents, damaged = await self._damaged(reader, collection, mine)
        return Verified(
            collection, documents, len(found.rows), found.vectors, found.pending, found.orphans, len(found.missing),
            damaged, repair, len(refused),
        )  # fmt: skip

    async def _permitted(
        self, reader: Reader, collection: str, accesses: Mapping[int, Access], stack: AsyncExitStack, *, repair: bool
    ) -> dict[int, Permit[WriteData]]:
        """The right to write each sort of document that may be written; of an empty collection, the collection's own.

        Raises:
            Denied: None may.
        """
        content: JsonValue = {"verify": collection, "repair": repair}
        permits: dict[int, Permit[WriteData]] = {}
        refusal: Denied | None = None
        for number, access in (accesses or {-1: self._rooms.rules.of_collection(collection)}).items():
            try:
                # Nothing is read by a model here: what is made again is decided upon by itself.
                permits[number] = await stack.enter_async_context(
                    self._writing.permitted(reader.principal, access, content, label_of(access))
                )
            except Denied as denied:
                refusal = refusal or denied
        if refusal is not None and not permits:
            raise refusal
        return permits

    async def _compare(
        self, collection: str, permit: Permit[WriteData], mine: Mapping[int, Access] | None, *, repair: bool
    ) -> _Found:
        """What there is, and what does not agree; put in order as far as nothing has to be made for it.

        Args:
            collection: Of which.
            permit: To write to it.
            mine: The sorts of documents that are looked at; all of the collection if None.
            repair: Whether to put it in order.
        """
        rooms, writing, found = self._rooms, self._writing, _Found()
        numbers = None if mine is None else list(mine)
        only = None if mine is None else OneOf("label", tuple(access_label(number) for number in mine))
        pending = await rooms.log.read(partial(rooms.store.pending, collection))
        if mine is not None:  # of a document without a row nobody can tell who may write it
            there = await rooms.log.read(partial(rooms.store.get_documents, pending))
            pending = [one.document_id for one in there.values() if one.access in mine.values()]
        found.pending = len(pending)
        found.rows = dict(await self._chunk_ids(collection, numbers))
        vectors = await writing.vector_ids(permit, collection, only)
        scope = Scope((Namespace("Knowledge", collection),), Filter((only,) if only is not None else ()))
        found.vectors = await rooms.vectors.count(permit, scope)
        orphans, found.missing = vectors - found.rows.keys(), frozenset(found.rows.keys() - vectors)
        found.orphans = len(orphans)
        if repair:
            await writing.mend(permit, collection)
            await writing.forget(permit, collection, orphans)
        return found

    async def _chunk_ids(self, collection: str, accesses: Sequence[int] | None) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        while page := await self._rooms.log.read(
            partial(self._rooms.store.chunk_ids, collection, found[-1][0] if found else "", PAGE, accesses)
        ):
            found += page
        return found

    async def _documents(self, collection: str, accesses: Sequence[int]) -> list[DocumentRecord]:
        store, found = self._rooms.store, list[DocumentRecord]()
        while page := await self._rooms.log.read(
            partial(store.documents, collection, (collection, found[-1].source if found else ""), PAGE, accesses)
        ):
            found += page
        return found

    async def _make_again(self, reader: Reader, ids: Sequence[str], missing: Collection[str]) -> set[str]:
        """Make missing vectors again, of each sort of document by a decision on it; returns the documents that it refused.

        One that does not open is told as damaged.
        """
        refused: set[str] = set()
        for first in range(0, len(ids), AGAIN_AT_ONCE):
            some = ids[first : first + AGAIN_AT_ONCE]
            documents = await self._rooms.log.read(partial(self._rooms.store.get_documents, some))
            found: list[Prepared] = []
            for one in documents.values():
                try:
                    body = (await self._retrieval.bodies([one.document_id]))[one.document_id]
                except (ConfigError, DecryptionFailed, KeyError):
                    continue  # told as damaged; a store that fails ends the repair
                chunks = await self._rooms.log.read(partial(self._rooms.store.chunks_of, one.document_id))
                lost = tuple(
                    chunk for chunk in chunks if chunk.chunk_id in missing and chunk.ordinal < len(body.headings)
                )
                found.append(Prepared(one, lost, body, keys_of(one), is_new=False))
            refused |= await self._writing.write_vectors(reader.principal, found)
        return refused

    async def _damaged(
        self, reader: Reader, collection: str, accesses: Mapping[int, Access]
    ) -> tuple[int, tuple[str, ...]]:
        """How many documents there are, and which of them are not what they were when they were written."""
        documents = await self._documents(collection, list(accesses))
        damaged = [(one, problem) for one in documents if (problem := await self._problem(one))]
        if not damaged:
            return len(documents), ()
        try:
            readable = await self._retrieval.among(reader, collection, frozenset[int])
        except Denied:
            readable = frozenset()
        named = {access for number, access in accesses.items() if number in readable}
        told = (f"{one.source}: {problem}" if one.access in named else UNNAMED for one, problem in damaged)
        return len(documents), tuple(told)

    async def _problem(self, document: DocumentRecord) -> str:
        id_, store = document.document_id, self._rooms.store

        def read() -> tuple[Body, bool, Sequence[ChunkRecord]]:
            kept = store.get_documents([id_])[id_].body
            data = open_column(self._rooms.vault, kept, body_place(id_))
            return Body.decode(data or b""), is_sealed(kept), store.chunks_of(id_)

        try:
            body, sealed, chunks = await self._rooms.log.read(read)
        except KeyError:
            return "it is gone"
        except SymbiError as error:
            return error.message
        if not len(chunks) == document.chunks == len(body.headings):
            return "chunks are missing"
        return await anyio.to_thread.run_sync(_problem_of, body, sealed, chunks)


def _problem_of(body: Body, sealed: bool, chunks: Sequence[ChunkRecord]) -> str:  # noqa: FBT001 - as it is kept
    """What is wrong with the first chunk with which anything is."""
    for number, chunk in enumerate(chunks):
        if chunk.ordinal != number or not 0 <= chunk.start < chunk.end <= len(body.text):
            return f"chunk {chunk.ordinal} is not where its document says anything"
        if sealed:
            if chunk.words is not None:
                return f"chunk {chunk.ordinal} has its words in plain text, and the document is sealed"
        elif chunk.words is None:
            return f"chunk {chunk.ordinal} has lost its words"
        elif chunk.words != (heading_line(body.title, body.headings[number]), body.text[chunk.start : chunk.end]):
            return f"chunk {chunk.ordinal} is not what its document says there"
    return ""


def keys_of(document: DocumentRecord) -> tuple[KeyId, ...]:
    """Under which keys a document is sealed; none where it is not."""
    return read_sealed(document.body).keys if is_sealed(document.body) else ()
