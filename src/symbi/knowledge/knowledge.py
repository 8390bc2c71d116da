"""Knowledge: what wiring makes, and what agents, commands and Python ask. Everything passes the gate."""

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from symbi.errors import ConfigError, DecryptionFailed, Denied, InputError, SymbiError
from symbi.guard.action import CallModel, ModelRef
from symbi.guard.sealed import is_sealed, read_sealed
from symbi.knowledge.answer import EVIDENCE_BAR, Answer, AnswerModel, checked, extract, nothing, prompt_of
from symbi.knowledge.documents import CollectionStats, DocumentRecord, label_of
from symbi.knowledge.folders import USUAL_LIMITS, Limits, Listing
from symbi.knowledge.ingest import REMOVE_AT_ONCE, Extract, Ingest, Step
from symbi.knowledge.passages import SearchResult
from symbi.knowledge.rag import ANYWHERE, RESPONSE, KnowledgeRooms, Retrieval, Wanted
from symbi.knowledge.readings import Reader
from symbi.knowledge.vectors import Namespace, Scope
from symbi.knowledge.writing import Prepared, Writing, erased_as, no_probe
from symbi.policy.flow import join
from symbi.types import KeyId, Label, Principal

T = TypeVar("T")

DAY_NS: Final = 86_400 * 1_000_000_000
PAGE: Final = 1_000
MAX_LISTINGS: Final = 8  # folders that are being added
AGAIN_AT_ONCE: Final = 32  # documents whose vectors are made again


@dataclass(frozen=True, slots=True)
class Verified:
    """How store and index of a collection agree.

    Attributes:
        collection: Which.
        documents, chunks, vectors: How many there are.
        pending: Documents that were being written when a process ended.
        orphans: Vectors without a chunk.
        missing: Chunks without a vector.
        damaged: Documents whose text does not open, or whose chunks are not those of the text.
        repaired: Whether the first three were put in order.
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

    @property
    def clean(self) -> bool:
        """Nothing is left to be put in order."""
        ordered = self.repaired or not (self.pending or self.orphans or self.missing)
        return ordered and not self.damaged


class Knowledge:
    """Documents that can be searched, answered from, and removed; to be entered.

    Args:
        rooms: What it stands on.
        extract: Reads a text out of a file, elsewhere than on the event loop.
        limits: What is read at most.
        bar: The evidence below which nothing is answered.
        model: Writes answers where one is asked for; without it they are extracts.
        probe: Called at named points of a write, for tests.
    """

    def __init__(
        self,
        rooms: KnowledgeRooms,
        extract: Extract,
        limits: Limits = USUAL_LIMITS,
        *,
        bar: float = EVIDENCE_BAR,
        model: AnswerModel | None = None,
        probe: Callable[[str], None] = no_probe,
    ) -> None:
        self._rooms = rooms
        self._retrieval = Retrieval(rooms)
        self._writing = Writing(rooms, probe)
        self._ingest = Ingest(self._writing, extract, limits)
        self._bar = bar
        self._model = model
        self._listings: dict[tuple[str, Path, str], Listing] = {}

    async def __aenter__(self) -> Self:
        """Nothing is opened here; what it stands on is."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the leases of readers."""
        await self._retrieval.close()

    @property
    def rooms(self) -> KnowledgeRooms:
        """What it stands on."""
        return self._rooms

    # --- reading --------------------------------------------------------------------------------

    async def search(self, reader: Reader, question: str, wanted: Wanted = ANYWHERE) -> SearchResult:
        """The passages that have to do with a question, best first.

        Raises:
            InputError: The question or what is wanted is none.
            Denied: Policy lets the reader see nothing of what was asked for.
            StoreUnavailable: Store, index or trail cannot be used.
        """
        return await self._retrieval.search(reader, question, wanted)

    async def answer(
        self, reader: Reader, question: str, wanted: Wanted = ANYWHERE, *, written: bool = False
    ) -> Answer:
        """An answer with its sources, or that there is none.

        Args:
            reader: Who asks.
            question: What.
            wanted: Where to look.
            written: By the model, rather than word for word.

        Raises:
            InputError: As `search`; or there is no model.
            Denied: As `search`; or policy does not let the model be asked.
            ModelFailed: What it wrote cites something else than what it was shown.
            StoreUnavailable: As `search`.
        """
        model = self._model
        if written and model is None:
            raise InputError("there is no model to write answers", code="knowledge.no_model")
        result = await self._retrieval.search(reader, question, wanted)
        if result.evidence < self._bar:
            return nothing(result)
        if not written or model is None:
            return extract(result, self._bar)
        prompt, shown = prompt_of(result)
        label = join(reader.label, *(one.label for one in shown))
        action = CallModel(
            principal=reader.principal,
            within=reader.within,
            label=label,
            model=ModelRef(model.name, model.provider),
            prompt=prompt.text,
        )
        with result.trace.stage(RESPONSE) as facts:
            async with self._rooms.guard.enforce(action) as permit:
                text = permit.observe(await model.write(permit, prompt))
            answer = checked(text, shown, result)
            facts.update({"model": model.name, "shown": len(shown), "found": answer.found})
        return answer

    # --- writing --------------------------------------------------------------------------------

    async def plan(self, collection: str, path: Path, name: str = "", *, moved: bool = False) -> Listing:
        """What there is to be read; see `Ingest.plan`."""
        return await self._ingest.plan(collection, path, name, moved=moved)

    async def add(
        self,
        principal: Principal,
        collection: str,
        path: Path,
        name: str = "",
        after: str | None = None,
        *,
        moved: bool = False,
    ) -> tuple[Listing, Step]:
        """One step of reading a folder, and what there is in it; the folder is listed at the first step.

        Args:
            principal: Who writes.
            collection: To which collection.
            path: A folder, or a file.
            name: What its sources begin with; its own name if empty.
            after: `Step.next` of the step before; None for the first one.
            moved: It was read from another place before.

        Raises:
            InputError: There is nothing at the path, or another folder has this name.
            Denied, StoreUnavailable: See `Ingest.step`.
        """
        key = collection, path, name
        listing = self._listings.pop(key, None) if after is not None else None
        if listing is None:
            listing = await self.plan(collection, path, name, moved=moved)
        step = await self.step(principal, collection, listing, after)
        if step.next is not None:
            while len(self._listings) >= MAX_LISTINGS:  # of whoever has given up
                del self._listings[next(iter(self._listings))]
            self._listings[key] = listing
        return listing, step

    async def step(self, principal: Principal, collection: str, listing: Listing, after: str | None) -> Step:
        """Read the next files; see `Ingest.step`."""
        return await self._ingest.step(principal, collection, listing, after)

    async def put(self, principal: Principal, collection: str, source: str, data: bytes) -> Step:
        """Write one document; see `Ingest.put`."""
        return await self._ingest.put(principal, collection, source, data, self._rooms.clock.now_ns())

    async def remove(self, principal: Principal, collection: str, sources: Sequence[str]) -> int:
        """Remove documents by their sources, or all of a collection where none is named; returns how many there were.

        Raises:
            Denied: See `Writing.remove`; also of what is not there, so that nobody learns what is.
            InputError: One of them is not there.
            StoreUnavailable: See `Writing.remove`.
        """
        rooms, writing, count = self._rooms, self._writing, 0
        if not sources:
            while some := await self.documents(collection, (collection, ""), REMOVE_AT_ONCE):
                count += await writing.remove(principal, [one.document_id for one in some])
            if not count:
                async with writing.permitted(
                    principal, rooms.rules.of_collection(collection), {"removed": []}, Label()
                ):
                    return 0
            return count
        versions = await rooms.log.read(partial(rooms.store.versions, collection, sources))
        absent = next((one for one in sources if one not in versions), None)
        if absent is not None:
            msg = f"there is no document `{absent}` in `{collection}`"
            error = InputError(msg, code="knowledge.absent", hint="`symbi kb list` shows what there is")
            await writing.absent(principal, rooms.rules.of_document(collection, absent).access, error)
        ids = [versions[one][0] for one in dict.fromkeys(sources)]
        for first in range(0, len(ids), REMOVE_AT_ONCE):
            count += await writing.remove(principal, ids[first : first + REMOVE_AT_ONCE])
        return count

    async def expire(self, principal: Principal, days: int) -> int:
        """Remove documents that were read longer ago than so many days; returns how many there were.

        Raises:
            Denied: Policy does not let those of one access be removed; those of all others are.
            StoreUnavailable: See `Writing.remove`.
        """
        before_ns = self._rooms.clock.now_ns() - days * DAY_NS
        store, count = self._rooms.store, 0
        kept: set[str] = set()
        refusal: Denied | None = None
        while True:
            found = await self._rooms.log.read(partial(store.documents_before, before_ns, REMOVE_AT_ONCE + len(kept)))
            old = [one for one in found if one.document_id not in kept]
            if not old:
                break
            for access in dict.fromkeys(one.access for one in old):
                ids = [one.document_id for one in old if one.access == access]
                try:
                    count += await self._writing.remove(principal, ids)
                except Denied as denied:
                    refusal = refusal or denied
                    kept.update(ids)
        if refusal is not None:
            raise refusal
        return count

    async def erase(self, ids: Sequence[str], keys: Collection[KeyId] = ()) -> None:
        """Remove documents that are about somebody who is erased, which an operator has asked for at the gate.

        Vectors go first, so that asking again after a crash finds what is left.

        Args:
            ids: Of the documents.
            keys: Of whom they are about: what was put in under them goes too, also where a write broke off before its row.

        Raises:
            StoreUnavailable: Store or index cannot be used.
        """
        async with self._writing.turn:
            if self._rooms.subjects is not None:
                await self._rooms.subjects.erase_subjects([*map(erased_as, ids), *sorted(keys)])
            await self._writing.erase_rows(ids)

    # --- looking after --------------------------------------------------------------------------

    async def documents(
        self, collection: str | None = None, after: tuple[str, str] = ("", ""), limit: int = PAGE
    ) -> Sequence[DocumentRecord]:
        """All documents by collection and source, without what they say, for what looks after them; `listed` asks policy."""
        return await self._rooms.log.read(partial(self._rooms.store.documents, collection, after, limit))

    async def stats(self) -> Sequence[CollectionStats]:
        """All that each collection holds, for what looks after it; `counted` asks policy."""
        return await self._rooms.log.read(self._rooms.store.collection_stats)

    async def listed(
        self, reader: Reader, collection: str | None = None, after: tuple[str, str] = ("", ""), limit: int = PAGE
    ) -> Sequence[DocumentRecord]:
        """Documents that a reader may read, by collection and source, without what they say.

        Raises:
            Denied: Policy lets the reader see nothing of what was asked for.
            StoreUnavailable: Store or trail cannot be used.
        """
        store, found = self._rooms.store, list[DocumentRecord]()

        def page(name: str, accesses: Sequence[int]) -> Sequence[DocumentRecord]:
            return store.documents(name, after, limit - len(found), accesses)

        names = (collection,) if collection else await self._retrieval.collections()
        async for some in self._readable(reader, [name for name in names if name >= after[0]], page):
            found += some
            if len(found) >= limit:
                break
        return found

    async def counted(self, reader: Reader) -> Sequence[CollectionStats]:
        """What each collection holds that a reader may read.

        Raises:
            Denied, StoreUnavailable: As `listed`.
        """
        store, found = self._rooms.store, list[CollectionStats]()
        names = await self._retrieval.collections()
        async for some in self._readable(reader, names, lambda _, accesses: store.collection_stats(accesses)):
            found += some
        return found

    async def _readable(
        self, reader: Reader, collections: Sequence[str], work: Callable[[str, Sequence[int]], T]
    ) -> AsyncIterator[T]:
        """Look at each collection of which something may be read; raise the denial where there is none."""
        refusal: Denied | None = None
        passed = False
        for name in collections:
            try:
                looked = await self._retrieval.among(reader, name, partial(work, name))
            except Denied as denied:
                refusal = refusal or denied
                continue
            passed = True
            yield looked
        if refusal is not None and not passed:
            raise refusal

    async def verify(self, principal: Principal, collection: str, *, repair: bool = False) -> Verified:
        """Compare store and index of a collection, both ways, and each chunk with the text of its document.

        Raises:
            Denied: Policy does not let it be written by this principal.
            StoreUnavailable: Store, index or trail cannot be used.
        """
        rooms, writing = self._rooms, self._writing
        whole = rooms.rules.of_collection(collection)
        accesses = await rooms.log.read(partial(rooms.store.accesses, collection))
        async with writing.turn:
            access = next(iter(accesses.values()), whole)
            async with writing.permitted(
                principal, access, {"verify": collection, "repair": repair}, label_of(whole)
            ) as permit:
                pending = await rooms.log.read(partial(rooms.store.pending, collection))
                rows = dict(await self._chunk_ids(collection))
                vectors = await writing.vector_ids(permit, collection)
                scope = Scope((Namespace("Knowledge", collection),))
                count = await rooms.vectors.count(permit, scope)
                orphans, missing = vectors - rows.keys(), rows.keys() - vectors
                if repair:
                    await writing.mend(permit, collection)
                    await writing.forget(permit, collection, orphans)
            if repair:
                await self._make_again(principal, sorted({rows[one] for one in missing}), missing)
            documents, damaged = await self._damaged(collection)
        return Verified(
            collection, documents, len(rows), count, len(pending), len(orphans), len(missing), damaged, repair
        )

    async def _chunk_ids(self, collection: str) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        while page := await self._rooms.log.read(
            partial(self._rooms.store.chunk_ids, collection, found[-1][0] if found else "", PAGE)
        ):
            found += page
        return found

    async def _make_again(self, principal: Principal, ids: Sequence[str], missing: Collection[str]) -> None:
        """Make missing vectors again, of each sort of document by a decision on it; one that does not open is told as damaged."""
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
            await self._writing.write_vectors(principal, found)

    async def _damaged(self, collection: str) -> tuple[int, tuple[str, ...]]:
        """How many documents there are, and which of them are not what they were when they were written."""
        count, damaged = 0, []
        after = (collection, "")
        while page := await self.documents(collection, after):
            for one in page:
                count += 1
                problem = await self._problem(one)
                if problem:
                    damaged.append(f"{one.source}: {problem}")
            after = (collection, page[-1].source)
        return count, tuple(damaged)

    async def _problem(self, document: DocumentRecord) -> str:
        try:
            body = (await self._retrieval.bodies([document.document_id])).get(document.document_id)
        except SymbiError as error:
            return error.message
        chunks = await self._rooms.log.read(partial(self._rooms.store.chunks_of, document.document_id))
        if body is None or len(chunks) != document.chunks or len(body.headings) != len(chunks):
            return "chunks are missing"
        for chunk in chunks:
            if chunk.words is not None and chunk.words[1] != body.text[chunk.start : chunk.end]:
                return f"chunk {chunk.ordinal} is not what its document says there"
        return ""


def keys_of(document: DocumentRecord) -> tuple[KeyId, ...]:
    """Under which keys a document is sealed; none where it is not."""
    return read_sealed(document.body).keys if is_sealed(document.body) else ()
