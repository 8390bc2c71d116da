"""From a question to passages and an answer, in five stages, each of which the trace shows.

1. query analysis: keywords, filters, rewrites (`symbi.knowledge.query`);
2. retrieval: policy first, a decision for each sort of document (`symbi.knowledge.readings`), then by words (BM25) and by
   nearness (vectors) among what may be read and nothing else, and the two fused;
3. document fetch: rows and texts; a vector without a row is nobody's;
4. ranking: coverage, headings, recency, importance, a cross-encoder where there is one, no two that say the same;
5. response: passages with citations; an answer made of them, or that there is none (`symbi.knowledge.answer`).
"""

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Protocol, TypeVar
from uuid import UUID

from symbi.audit.log import AuditLog
from symbi.clock import Clock
from symbi.errors import ConfigError, DecryptionFailed, Denied, InputError, PermitRefused
from symbi.guard.action import ReadData
from symbi.guard.confidential import open_column
from symbi.guard.gate import Guard
from symbi.guard.vault import Vault
from symbi.inference.port import Embedder
from symbi.knowledge.documents import (
    Access,
    Body,
    DocumentStore,
    Found,
    PassageStore,
    body_place,
    heading_line,
    label_of,
)
from symbi.knowledge.passages import Citation, Passage, SearchResult, evidence_of
from symbi.knowledge.port import CrossEncoder, SubjectVectors, VectorIndex
from symbi.knowledge.query import Query, analyse
from symbi.knowledge.ranking import USUAL, Candidate, Ranked, Weights, coverage, fuse, rank
from symbi.knowledge.readings import Reader, Reading, Readings
from symbi.knowledge.rules import Rules
from symbi.knowledge.trace import STAGES, Trace
from symbi.knowledge.vectors import Between, Filter, Namespace, OneOf, Scope, Vector, VectorQuery
from symbi.policy.flow import join
from symbi.types import JsonValue

DEPTH: Final = 80  # of each of the two lists
CANDIDATES: Final = 40  # of the fused list, which are fetched and ranked
MAX_PASSAGES: Final = 100
MAX_COLLECTIONS: Final = 64  # of one search
MAX_ACCESSES: Final = 256  # sorts of documents in them
MAX_NARROWED: Final = 2_000  # documents that a filter by source leaves for the vectors; with more, words alone count
_MS_NS: Final = 1_000_000

T = TypeVar("T")

_log = logging.getLogger("symbi.knowledge")

ANALYSIS, RETRIEVAL, FETCH, RANKING, RESPONSE = STAGES


class KnowledgeStore(DocumentStore, PassageStore, Protocol):
    """Where documents are."""


@dataclass(frozen=True, slots=True)
class KnowledgeRooms:
    """What knowledge stands on.

    Attributes:
        guard: The gate.
        log: The store's thread and transactions.
        store: Documents and words.
        vectors: Their vectors.
        embedder: Makes these.
        clock: For times.
        vault: Opens and seals what is sealed.
        rules: What is said of documents.
        weights: What counts how much.
        cross_encoder: Ranks again, where there is one.
        subjects: Lets go of vectors that are about people.
    """

    guard: Guard
    log: AuditLog
    store: KnowledgeStore
    vectors: VectorIndex
    embedder: Embedder
    clock: Clock
    vault: Vault | None
    rules: Rules
    weights: Weights = USUAL
    cross_encoder: CrossEncoder | None = None
    subjects: SubjectVectors | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a search is to be.

    Attributes:
        collections: Where to look; everywhere if empty.
        k: How many passages, at most.
        weights: What counts how much; as configured if None.
    """

    collections: tuple[str, ...] = ()
    k: int = 8
    weights: Weights | None = None


ANYWHERE: Final = Wanted()


@dataclass(frozen=True, slots=True)
class _Allowed:
    """What may be read, by number of access."""

    readings: Mapping[int, Reading]
    accesses: Mapping[int, Access]

    @property
    def numbers(self) -> list[int]:
        return list(self.readings)


class Retrieval:
    """Searches documents; `close` when nobody does any more.

    Args:
        rooms: What it stands on.
    """

    def __init__(self, rooms: KnowledgeRooms) -> None:
        self._rooms = rooms
        model = rooms.embedder.model
        self._readings = Readings(rooms.guard, rooms.clock, (model.name, model.remote))

    async def close(self) -> None:
        """Close the leases of readers."""
        await self._readings.close()

    async def search(self, reader: Reader, question: str, wanted: Wanted = ANYWHERE) -> SearchResult:
        """The passages that have to do with a question.

        Raises:
            InputError: The question or what is wanted is none.
            Denied: Policy lets the reader see nothing of what was asked for.
            StoreUnavailable: Store, index or trail cannot be used.
        """
        try:
            return await self._search(reader, question, wanted)
        except PermitRefused:  # a lease has run out, or another policy set has come: it is decided again, and once
            return await self._search(reader, question, wanted)

    async def _search(self, reader: Reader, question: str, wanted: Wanted) -> SearchResult:
        rooms, trace = self._rooms, Trace(self._rooms.clock)
        require_count(wanted.k)
        weights = wanted.weights or rooms.weights
        with trace.stage(ANALYSIS) as facts:
            query = analyse(question)
            facts.update(_shown(query))
        async with AsyncExitStack() as stack:
            with trace.stage(RETRIEVAL) as facts:
                allowed = await stack.enter_async_context(self._allowed(reader, question, wanted, facts))
                fused, similar = await self._retrieve(query, allowed, weights, facts)
            with trace.stage(FETCH) as facts:
                candidates, found = await self._fetch(query, allowed, fused, similar, facts)
            with trace.stage(RANKING) as facts:
                if rooms.cross_encoder is not None and candidates:
                    permit = next(iter(allowed.readings.values())).permit
                    texts = [one.text for one in candidates]
                    scores = await rooms.cross_encoder.scores(permit, query.text, texts)
                    candidates = [replace(one, reranked=s) for one, s in zip(candidates, scores, strict=True)]
                ranked = rank(query.keywords, candidates, weights, rooms.clock.now_ns(), wanted.k)
                facts |= {"candidates": len(candidates), "cross_encoder": rooms.cross_encoder is not None}
            with trace.stage(RESPONSE) as facts:
                passages = _within_bounds(ranked, found, allowed, query.keywords)
                evidence = evidence_of(passages)
                facts |= {"passages": len(passages), "evidence": round(evidence, 4)}
        return SearchResult(query, passages, evidence, trace)

    async def collections(self) -> tuple[str, ...]:
        """Names of all collections that have documents; where none has any, of some that had."""
        return tuple(await self._rooms.log.read(self._rooms.store.collections))

    async def among(self, reader: Reader, collection: str, work: Callable[[Sequence[int]], T]) -> T:
        """Look in the store, by numbers of accesses, at what of a collection may be read.

        Raises:
            Denied: Policy lets the reader see nothing of it.
            StoreUnavailable: Store or trail cannot be used.
        """
        try:
            return await self._among(reader, collection, work)
        except PermitRefused:  # as in `search`
            return await self._among(reader, collection, work)

    async def _among(self, reader: Reader, collection: str, work: Callable[[Sequence[int]], T]) -> T:
        async with self._allowed(reader, "", Wanted((collection,)), {}) as allowed:
            return await self._rooms.log.read(partial(work, allowed.numbers))

    # --- stage 2 --------------------------------------------------------------------------------

    @asynccontextmanager
    async def _allowed(
        self, reader: Reader, question: str, wanted: Wanted, facts: dict[str, JsonValue]
    ) -> AsyncIterator[_Allowed]:
        """What may be read, while the search lasts.

        Raises:
            Denied: Nothing of it; what may not be read beside something that may is passed over in silence.
        """
        names = wanted.collections or await self.collections()
        if len(names) > MAX_COLLECTIONS:
            raise InputError(f"a search is in at most {MAX_COLLECTIONS} collections", code="knowledge.query")
        readings: dict[int, Reading] = {}
        allowed: dict[int, Access] = {}
        refusal: Denied | None = None
        asked = 0
        async with AsyncExitStack() as stack:
            for name in dict.fromkeys(names):
                whole = self._rooms.rules.of_collection(name)
                accesses = await self._rooms.log.read(partial(self._rooms.store.accesses, name))
                for number, access in (accesses or {-1: whole}).items():
                    asked += 1
                    if asked > MAX_ACCESSES:
                        msg = f"these collections have documents of more than {MAX_ACCESSES} sorts"
                        raise InputError(msg, code="knowledge.query", hint="search them one by one")
                    try:
                        reading = await stack.enter_async_context(self._readings.reading(reader, access, question))
                    except Denied as denied:
                        refusal = refusal or denied
                        continue
                    readings[number], allowed[number] = reading, access
            if refusal is not None and not readings:
                raise refusal
            facts |= {"collections": len({one.collection for one in allowed.values()}), "sorts": len(readings)}
            yield _Allowed(
                {number: one for number, one in readings.items() if number >= 0},
                {number: one for number, one in allowed.items() if number >= 0},
            )

    async def _retrieve(
        self, query: Query, allowed: _Allowed, weights: Weights, facts: dict[str, JsonValue]
    ) -> tuple[Mapping[str, float], Mapping[str, float]]:
        """Ids of chunks by what fusion gives them, and cosines of those that are near."""
        rooms = self._rooms
        if not allowed.readings:
            return {}, {}
        words = await rooms.log.read(
            partial(rooms.store.search_words, query.words, allowed.numbers, query.narrowing, DEPTH)
        )
        permit = next(iter(allowed.readings.values())).permit
        (vector,) = await rooms.embedder.embed(permit, [query.text], "query")
        near = await self._near(query, allowed, vector)
        facts |= {"by_words": len(words), "by_vectors": len(near)}
        fused = fuse(
            [(dict(words), weights.keyword), (near, weights.vector)],
        )
        return fused, near

    async def _near(self, query: Query, allowed: _Allowed, vector: Vector) -> Mapping[str, float]:
        """Ids of the nearest chunks, nearest first, with their cosines."""
        rooms, narrowing = self._rooms, query.narrowing
        only: list[OneOf | Between] = []
        if narrowing.sources:
            ids = await rooms.log.read(partial(rooms.store.narrowed, allowed.numbers, narrowing, MAX_NARROWED + 1))
            if not ids or len(ids) > MAX_NARROWED:
                return {}
            only.append(OneOf("document", tuple(ids)))
        elif narrowing:
            only += [OneOf("kind", narrowing.kinds)] if narrowing.kinds else []
            if narrowing.after_ns is not None or narrowing.before_ns is not None:
                only.append(Between("time", _ms(narrowing.after_ns), _ms(narrowing.before_ns)))
        hits: list[tuple[str, float]] = []
        for collection, numbers in _by_collection(allowed).items():
            labels = OneOf("label", tuple(access_label(number) for number in numbers))
            scope = Scope((Namespace("Knowledge", collection),), Filter((labels, *only)))
            found = await rooms.vectors.query(allowed.readings[numbers[0]].permit, VectorQuery(vector, DEPTH, scope))
            hits += [(str(hit.id), float(hit.score)) for hit in found]
        hits.sort(key=lambda hit: (-hit[1], hit[0]))
        return dict(hits[:DEPTH])

    # --- stage 3 --------------------------------------------------------------------------------

    async def _fetch(
        self,
        query: Query,
        allowed: _Allowed,
        fused: Mapping[str, float],
        similar: Mapping[str, float],
        facts: dict[str, JsonValue],
    ) -> tuple[list[Candidate], dict[str, tuple[Found, Passage]]]:
        """The best of what was found, with texts."""
        rooms = self._rooms
        chosen = list(fused)[:CANDIDATES]

        def fetched() -> tuple[Mapping[str, Found], Mapping[str, Body]]:
            rows = rooms.store.found(chosen, allowed.numbers, query.narrowing)
            sealed = {row.document.document_id for row in rows.values() if row.chunk.words is None}
            return rows, self._opened(sorted(sealed), whole=False)

        # In one reading: a version that is written between two may be one that is not to be read.
        rows, bodies = await rooms.log.read(fetched)
        for one in allowed.readings.values():  # texts leave by decisions that hold still
            rooms.guard.authority.check(one.permit, ReadData)
        candidates: list[Candidate] = []
        found: dict[str, tuple[Found, Passage]] = {}
        for id_ in chosen:
            row = rows.get(id_)
            if row is None or (row.chunk.words is None and row.document.document_id not in bodies):
                continue
            passage = _passage(row, bodies.get(row.document.document_id), similar.get(id_))
            found[id_] = row, passage
            candidates.append(
                Candidate(
                    id_, row.document.document_id, passage.text, passage.citation.headings, fused[id_], similar.get(id_),
                    row.document.importance, row.document.modified_ns,
                )
            )  # fmt: skip
        documents = {row.document.document_id for row in rows.values()}
        facts |= {"chunks": len(rows), "documents": len(documents), "opened": len(bodies)}
        return candidates, found

    async def bodies(self, ids: Sequence[str]) -> Mapping[str, Body]:
        """What documents say, opened.

        Raises:
            DecryptionFailed: One was erased, or altered.
            ConfigError: There is no key at hand.
            StoreUnavailable: The store cannot be read.
        """
        return await self._rooms.log.read(partial(self._opened, ids, whole=True))

    def _opened(self, ids: Sequence[str], *, whole: bool) -> Mapping[str, Body]:
        """What documents say, on the store's thread; where one does not open, it raises, or leaves that out and logs it."""
        found: dict[str, Body] = {}
        for id_, document in (self._rooms.store.get_documents(ids) if ids else {}).items():
            try:
                data = open_column(self._rooms.vault, document.body, body_place(id_))
                found[id_] = Body.decode(data or b"")
            except (DecryptionFailed, ConfigError) as error:
                if whole:
                    raise
                _log.warning("document %s does not open (%s): no search finds it", id_, error.code)
        return found


def require_count(k: int) -> None:
    """Ask for no more passages than a search gives.

    Raises:
        InputError: It is none, or more.
    """
    if not 1 <= k <= MAX_PASSAGES:
        raise InputError(f"a search gives 1 to {MAX_PASSAGES} passages, not {k}", code="knowledge.query")


def access_label(number: int) -> str:
    """How the index of vectors calls an access."""
    return f"access:{number}"


def point_id(chunk_id: str) -> UUID:
    """The id of a chunk's vector."""
    return UUID(chunk_id)


def _passage(row: Found, body: Body | None, similarity: float | None) -> Passage:
    chunk, document = row.chunk, row.document
    if chunk.words is not None:
        headings, text = chunk.words
    elif body is not None and chunk.ordinal < len(body.headings):
        headings = heading_line(body.title, body.headings[chunk.ordinal])
        text = body.text[chunk.start : chunk.end]
    else:
        headings, text = "", ""  # its rows are not those of its text: `symbi kb verify` tells of it
    citation = Citation(
        document.access.collection,
        document.source,
        document.document_id,
        chunk.chunk_id,
        headings,
        chunk.start,
        chunk.end,
    )
    label = label_of(document.access, body.subjects if body is not None else ())
    return Passage(text, citation, label, 0.0, {}, similarity, 0.0, document.access)


def _within_bounds(
    ranked: Sequence[Ranked],
    found: Mapping[str, tuple[Found, Passage]],
    allowed: _Allowed,
    keywords: Sequence[str],
) -> tuple[Passage, ...]:
    """In their places, of each access no more than its decision allows."""
    left = {number: reading.max_items for number, reading in allowed.readings.items()}
    passages = []
    for one in ranked:
        row, passage = found[one.candidate.id]
        if left[row.access_id] <= 0 or not passage.text:
            continue
        left[row.access_id] -= 1
        held = coverage(keywords, f"{passage.citation.headings} {passage.text}")
        label = join(passage.label, allowed.readings[row.access_id].mark)
        passages.append(replace(passage, label=label, score=one.score, parts=one.parts, coverage=held))
    return tuple(passages)


def _by_collection(allowed: _Allowed) -> dict[str, list[int]]:
    numbers: dict[str, list[int]] = {}
    for number, access in allowed.accesses.items():
        numbers.setdefault(access.collection, []).append(number)
    return numbers


def _ms(time_ns: int | None) -> int | None:
    return None if time_ns is None else time_ns // _MS_NS


def _shown(query: Query) -> dict[str, JsonValue]:
    narrowing = query.narrowing
    return {
        "keywords": list(query.keywords),
        "filters": [
            *(f"source:{one}" for one in narrowing.sources),
            *(f"kind:{one}" for one in narrowing.kinds),
            *([f"after:{narrowing.after_ns}"] if narrowing.after_ns is not None else []),
            *([f"before:{narrowing.before_ns}"] if narrowing.before_ns is not None else []),
        ],
        "rewrites": {word: list(parts) for word, parts in query.rewrites},
    }
