"""Knowledge: what wiring makes, and what agents, commands and Python ask. Everything passes the gate."""

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from symbi.errors import Denied, InputError, LimitExceeded, ModelFailed, StoreUnavailable, Unavailable
from symbi.guard.action import CallModel
from symbi.guard.permit import Permit
from symbi.knowledge.answer import (
    EVIDENCE_BAR,
    Answer,
    Commission,
    call_of,
    checked,
    commission_of,
    extract,
    left_of,
    nothing,
)
from symbi.knowledge.documents import CollectionStats, DocumentRecord
from symbi.knowledge.folders import USUAL_LIMITS, Limits, Listing
from symbi.knowledge.ingest import REMOVE_AT_ONCE, Extract, Ingest, Step
from symbi.knowledge.passages import SearchResult
from symbi.knowledge.port import AnswerModel
from symbi.knowledge.rag import ANYWHERE, RESPONSE, KnowledgeRooms, Retrieval, Wanted
from symbi.knowledge.readings import Reader
from symbi.knowledge.verifying import Verified, Verifying
from symbi.knowledge.writing import Writing, erased_as, no_probe
from symbi.policy.flow import join
from symbi.types import KeyId, Label, Principal

T = TypeVar("T")

DAY_NS: Final = 86_400 * 1_000_000_000
PAGE: Final = 1_000
MAX_LISTINGS: Final = 8  # folders that are being added


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
        self._verifying = Verifying(self._retrieval, self._writing)
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
    def writer(self) -> str:
        """Name of the model that writes answers; empty where there is none."""
        return "" if self._model is None else self._model.model.name

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
            written: By the model, rather than word for word; where policy does not let it be asked, where it fails, or where what
                it writes cites something else than what it was shown, the answer is word for word, and says why.

        Raises:
            InputError: As `search`; or there is no model.
            Denied: As `search`.
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
        try:
            return await self._written(model, reader, result)
        except StoreUnavailable:
            raise
        except (Denied, LimitExceeded, ModelFailed, Unavailable) as error:
            # Nothing of the model's is used, and the answer says so.
            with result.trace.stage(RESPONSE) as facts:
                facts.update({"model": model.model.name, "refused": error.code})
            return replace(extract(result, self._bar), unwritten=f"{error.code}: {error.message}")

    async def _written(self, model: AnswerModel, reader: Reader, result: SearchResult) -> Answer:
        """The model's answer.

        Raises:
            Denied: Policy does not let the model be asked.
            LimitExceeded: It took too long, or a budget is spent.
            ModelFailed: It gave none, or one that cites something else than what it was shown.
            Unavailable: It cannot be asked.
        """
        told = model.model
        asked = commission_of(told, result)
        label = join(reader.label, asked.label)
        action = replace(call_of(told, asked.prompt, reader.principal, label), within=reader.within)
        with result.trace.stage(RESPONSE) as facts:
            async with self._rooms.guard.enforce(action) as permit:
                mark = permit.action.mark
                text = await model.write(permit)
                permit.observe({"chars": len(text)})  # an answer says what passages say, which may be removed
            answer = checked(text, asked.passages[: left_of(permit.action.prompt, asked.prompt)], result)
            facts.update({"model": told.name, "shown": len(asked.passages), "found": answer.found})
        return replace(answer, model=told.name, label=join(answer.label, mark))

    async def commissioned(
        self, reader: Reader, question: str, wanted: Wanted = ANYWHERE
    ) -> tuple[Answer, Commission | None]:
        """An answer word for word, and what the model is to be asked for a better one; None where none is to be.

        It is for those whose every effect has its place on record: they ask the model by `write`, at a place of its own.

        Raises:
            InputError, Denied, StoreUnavailable: As `search`.
        """
        result = await self._retrieval.search(reader, question, wanted)
        if result.evidence < self._bar:
            return nothing(result), None
        model = self._model
        return extract(result, self._bar), None if model is None else commission_of(model.model, result)

    async def write(self, permit: Permit[CallModel]) -> str:
        """What the model writes to a permit's prompt, unchecked.

        Raises:
            PermitRefused, ModelFailed, TimeLimit: See `AnswerModel.write`.
            Unavailable: Likewise; or another model writes answers now.
        """
        model = self._model
        if model is None or model.model.ref != permit.action.model:
            msg = f"`{permit.action.model.name}` is no longer the model that writes answers"
            raise Unavailable(msg, code="unavailable.model")
        return await model.write(permit)

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
                access = rooms.rules.of_collection(collection)
                async with writing.turn, writing.permitted(principal, access, {"removed": []}, Label()) as permit:
                    await writing.mend(permit, collection)  # what such a removal left that broke off
            return count
        versions = await rooms.log.read(partial(rooms.store.versions, collection, sources))
        absent = next((one for one in sources if one not in versions), None)
        if absent is not None:
            msg = f"there is no document `{absent}` in `{collection}`"
            error = InputError(msg, code="knowledge.absent", hint="`symbi kb list` shows what there is")
            async with writing.turn:
                await writing.absent(principal, rooms.rules.of_document(collection, absent).access, error)
        ids = [versions[one][0] for one in dict.fromkeys(sources)]
        for first in range(0, len(ids), REMOVE_AT_ONCE):
            count += await writing.remove(principal, ids[first : first + REMOVE_AT_ONCE])
        return count

    async def expire(self, principal: Principal, days: int) -> int:
        """Remove documents that were read longer ago than so many days; returns how many there were.

        What is left of writes and removals that broke off goes too: nobody else may ever look for it.

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
        for name in await self.unfinished():
            try:
                async with self._writing.turn:
                    await self._writing.mend_alone(principal, self._rooms.rules.of_collection(name))
            except Denied as denied:
                refusal = refusal or denied
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
                await self._rooms.subjects.erase_subjects([*map(erased_as, ids), *sorted(keys)], ids)
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

    async def unfinished(self) -> Sequence[str]:
        """Collections in which something was being written or removed and is not in order yet."""
        return await self._rooms.log.read(self._rooms.store.unfinished)

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

    async def verify(
        self, principal: Principal, collection: str, *, repair: bool = False, purpose: str = "unknown"
    ) -> Verified:
        """Compare store and index of a collection, both ways, and each chunk with the text of its document.

        Only what the principal may write is looked at, and only what it may read is named.

        Args:
            principal: Who.
            collection: Which.
            repair: Take out vectors without chunks, and make missing ones again, as far as policy lets a model read the texts.
            purpose: What for, where reading asks it.

        Raises:
            Denied: Policy lets the principal write nothing of it.
            StoreUnavailable: Store, index or trail cannot be used.
        """
        reader = Reader(principal, purpose=purpose)
        return await self._verifying.verify(reader, collection, repair=repair)
