"""Documents and chunks as they are kept, and the port to where.

The row is the truth: what has a row is there, and a vector without one is found by nobody and goes with the next
`symbi kb verify --repair` or the next write of its document. So a document's vectors are put in before its rows, and those
of its last version taken out after them; the id of a document stands among those that are being written meanwhile.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Protocol
from uuid import UUID, uuid5

from symbi.errors import StoreUnavailable
from symbi.guard.vault import place
from symbi.knowledge.chunks import Chunk
from symbi.knowledge.extracted import Extracted
from symbi.types import Confidentiality, Integrity, Label

SPACE: Final = UUID("6d3a1f52-6c0e-5b0c-9a41-3c3f0a7a51d1")
"""Namespace of the ids of documents (UUIDv5)."""

SEALED_FROM: Final = frozenset({Confidentiality.CONFIDENTIAL, Confidentiality.SECRET})
"""Classifications whose text is sealed, and not in the index of words."""

CHUNKS_AT_ONCE: Final = 256
"""That are written or removed in one transaction: some 30 ms of the store."""

FORMAT: Final = 1  # of bodies and chunks: another one reads every file again


@dataclass(frozen=True, slots=True)
class Access:
    """What decides who may read a document: one entity of policies, however many documents there are.

    Attributes:
        collection: To which it belongs.
        owner: Who answers for it.
        classification: How far it may travel.
        purpose: What it was gathered for.
    """

    collection: str
    owner: str = "unknown"
    classification: Confidentiality = Confidentiality.INTERNAL
    purpose: str = "unknown"


@dataclass(frozen=True, slots=True)
class DocumentRecord:
    """A document.

    Attributes:
        document_id: UUIDv5 of collection and source.
        source: What it was called where it came from, e.g. a path below the folder that was added.
        kind: What it was read as, e.g. `markdown`.
        version: Digest of the file and of all that decides what is made of it; keyed where it is sealed.
        access: Who may read it.
        importance: How much it counts beside others, 1 as any.
        modified_ns: When it was changed last, where it came from; nanoseconds since the epoch.
        added_ns: When it was read.
        size_bytes: Of the file.
        chunks: How many chunks it has.
        body: A `Body`, sealed where its classification or its subjects ask for it; empty where it was not asked for.
    """

    document_id: str
    source: str
    kind: str
    version: str
    access: Access
    importance: float
    modified_ns: int
    added_ns: int
    size_bytes: int
    chunks: int
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class ChunkRecord:
    """A chunk.

    Attributes:
        chunk_id: UUIDv5 of document, place, content, access and model: the id of its vector.
        document_id: Of which document.
        ordinal, start, end: As `Chunk`.
        words: Its headings and its text, for the index of words; None where the document is sealed.
    """

    chunk_id: str
    document_id: str
    ordinal: int
    start: int
    end: int
    words: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Body:
    """What a document says.

    Attributes:
        title: What it calls itself.
        text: All of it; offsets are places in it.
        headings: Above each of its chunks.
        subjects: Whom it is about.
    """

    title: str
    text: str
    headings: tuple[tuple[str, ...], ...]
    subjects: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """As it is kept."""
        return json.dumps(
            {"title": self.title, "headings": self.headings, "subjects": self.subjects, "text": self.text},
            ensure_ascii=False,
            separators=(",", ":"),
        ).encode()

    @classmethod
    def decode(cls, data: bytes) -> "Body":
        """Inverse of `encode`.

        Raises:
            StoreUnavailable: It was not written by us.
        """
        try:
            value: Any = json.loads(data)
            headings = tuple(tuple(str(one) for one in path) for path in value["headings"])
            return cls(str(value["title"]), str(value["text"]), headings, tuple(map(str, value["subjects"])))
        except (ValueError, KeyError, TypeError) as error:
            msg = "the store holds a document that was not written by it"
            raise StoreUnavailable(msg, code="unavailable.store_damaged") from error


class WordMatch(StrEnum):
    """How the words of a question have to stand in a chunk."""

    ANY = "any"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Narrowing:
    """What a question asks of documents beside its words.

    Attributes:
        sources: Patterns with `*`, one of which the source fits; any if empty.
        kinds: Kinds, one of which it is; any if empty.
        after_ns, before_ns: Between which times it was changed last.
    """

    sources: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    after_ns: int | None = None
    before_ns: int | None = None

    def __bool__(self) -> bool:
        """Whether it asks for anything."""
        return self != EVERYTHING


EVERYTHING: Final = Narrowing()


@dataclass(frozen=True, slots=True)
class Found:
    """A chunk that was found, with what is known of its document.

    Attributes:
        chunk: It.
        document: Its document, without the body.
        access_id: Number of the document's access.
    """

    chunk: ChunkRecord
    document: DocumentRecord
    access_id: int


@dataclass(frozen=True, slots=True)
class CollectionStats:
    """What a collection holds."""

    collection: str
    documents: int
    chunks: int
    sealed: int
    size_bytes: int
    latest_ns: int


class DocumentStore(Protocol):
    """Documents and chunks; each method runs on the store's thread, those that write in its running transaction.

    Each raises `StoreUnavailable` where the store cannot be used.
    """

    def access_number(self, access: Access) -> int:
        """The number of an access, which it is given where it has none."""

    def put_documents(self, documents: Sequence[tuple[DocumentRecord, Sequence[ChunkRecord]]]) -> None:
        """Insert documents with their chunks, in the place of those of the same ids; of more than `CHUNKS_AT_ONCE`, staged before.

        What a large one held before is found no more, and waits for `drop_chunks`.
        """

    def stage_chunks(self, chunks: Sequence[ChunkRecord]) -> None:
        """Insert chunks that are found once their documents are put in; those that are there already stay."""

    def left_chunks(self, ids: Sequence[str], limit: int) -> Sequence[int]:
        """Numbers of chunks that are staged for documents, or were theirs."""

    def drop_chunks(self, numbers: Sequence[int], *, scrub: bool = False) -> None:
        """Remove chunks with their words; `scrub` as of `remove_documents`."""

    def remove_documents(self, ids: Sequence[str], *, scrub: bool = False) -> int:
        """Remove documents with chunks and words; returns how many there were. Of a large one, they wait for `drop_chunks`.

        Args:
            ids: Which; others than those that are there do not matter.
            scrub: Note that the index of words is to be written anew, so that no old page of it holds their words.
        """

    def scrub_due(self) -> bool:
        """Whether the index of words is to be written anew, or what is left of it."""

    def scrub_words(self, pages: int) -> bool:
        """Write about so many pages of the index of words anew; returns whether there are more."""

    def folders(self, collection: str, name: str) -> Mapping[str, Path]:
        """From where the documents of a collection come whose sources begin with a name, as far as that is known.

        By what they begin with: the name itself, folders above it (`docs` of `docs/mail`) and below it.
        """

    def put_folder(self, collection: str, name: str, root: Path) -> None:
        """Note from where they come."""

    def documents(
        self, collection: str | None, after: tuple[str, str], limit: int, accesses: Sequence[int] | None = None
    ) -> Sequence[DocumentRecord]:
        """Documents by collection and source, without bodies, behind one of them; of some accesses, or of all."""

    def get_documents(self, ids: Sequence[str], *, bodies: bool = True) -> Mapping[str, DocumentRecord]:
        """Some documents, with bodies or without."""

    def versions(self, collection: str, sources: Sequence[str]) -> Mapping[str, tuple[str, str]]:
        """Of those sources of a collection that are there, the id and the version of their documents."""

    def documents_before(self, before_ns: int, limit: int) -> Sequence[DocumentRecord]:
        """Documents that were read before a time, without bodies."""

    def chunk_ids(
        self, collection: str, after: str, limit: int, accesses: Sequence[int] | None = None
    ) -> Sequence[tuple[str, str]]:
        """Ids of chunks of a collection and of their documents, in the order of chunk ids; of some accesses, or of all."""

    def chunk_ids_of(self, ids: Sequence[str]) -> frozenset[str]:
        """Ids of the chunks of some documents."""

    def chunks_of(self, document: str) -> Sequence[ChunkRecord]:
        """The chunks of a document, in order, with their words."""

    def put_pending(self, collection: str, ids: Sequence[str]) -> None:
        """Note that documents are about to be written."""

    def clear_pending(self, ids: Sequence[str]) -> None:
        """Note that they are."""

    def pending(self, collection: str | None) -> Sequence[str]:
        """Documents whose writing has begun and not ended; of one collection, or of all."""

    def unfinished(self) -> Sequence[str]:
        """Collections in which something was being written or removed and is not in order yet."""

    def collection_stats(self, accesses: Sequence[int] | None = None) -> Sequence[CollectionStats]:
        """What each collection holds; of some accesses, or of all."""


class PassageStore(Protocol):
    """Finds chunks; each method runs on the store's thread. Each raises `StoreUnavailable` where the store cannot be used."""

    def collections(self) -> Sequence[str]:
        """Names of all collections that have documents; where none has any, of some that had."""

    def accesses(self, collection: str) -> Mapping[int, Access]:
        """Who may read what there is in a collection, by number."""

    def search_words(
        self, words: Sequence[str], accesses: Sequence[int], narrowing: Narrowing, limit: int
    ) -> Sequence[tuple[str, float]]:
        """Chunks with any of some words, best first by BM25, and how good; none but those of these accesses.

        How common words are is taken from the chunks of these accesses, and nothing else counts: what is asked about neither
        changes a score nor takes a place for what is not.
        Of a word that stands in more places than can be read in a moment, whoever may read them, it counts only whether a chunk
        has it.
        """

    def found(self, chunk_ids: Sequence[str], accesses: Sequence[int], narrowing: Narrowing) -> Mapping[str, Found]:
        """Some chunks, without those that are not there, or not of these accesses."""

    def narrowed(self, accesses: Sequence[int], narrowing: Narrowing, limit: int) -> Sequence[str]:
        """Ids of documents that a question asks about."""


def document_id(collection: str, source: str) -> str:
    """The id of what a source is in a collection."""
    return str(uuid5(SPACE, f"{collection}\0{source}"))


def chunk_records(
    document: str, extracted: Extracted, chunks: Sequence[Chunk], access: Access, model: str, *, sealed: bool
) -> tuple[ChunkRecord, ...]:
    """The chunks of a document as they are kept.

    Args:
        document: Its id.
        extracted: Its text.
        chunks: Where they stand.
        access: Who may read it.
        model: Digest of the model that makes the vectors; empty where there is none.
        sealed: Whether its words are to be kept out of the index of words.
    """
    made = []
    for chunk in chunks:
        text, headings = extracted.text[chunk.start : chunk.end], heading_line(extracted.title, chunk.headings)
        facts = [chunk.ordinal, chunk.start, chunk.end, headings, text, *_facts(access), model, FORMAT]
        digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
        chunk_id = str(uuid5(UUID(document), digest))
        words = None if sealed else (headings, text)
        made.append(ChunkRecord(chunk_id, document, chunk.ordinal, chunk.start, chunk.end, words))
    return tuple(made)


def version_of(data: bytes, access: Access, subjects: Sequence[str], importance: float, model: str) -> bytes:
    """SHA-256 of all that decides what is kept of a file."""
    facts = [hashlib.sha256(data).hexdigest(), *_facts(access), sorted(subjects), importance, model, FORMAT]
    return hashlib.sha256(json.dumps(facts).encode()).digest()


def _facts(access: Access) -> list[str]:
    return [access.collection, access.owner, access.classification.value, access.purpose]


def heading_line(title: str, headings: Sequence[str]) -> str:
    """Title and headings in one line, as they are searched and shown."""
    parts = [part for part in (title, *headings) if part]
    return " > ".join(part for number, part in enumerate(parts) if number == 0 or part != parts[number - 1])


def body_place(document: str) -> bytes:
    """Associated data of a sealed body."""
    return place("knowledge_documents", "body", document)


def label_of(access: Access, subjects: Sequence[str] = ()) -> Label:
    """Of what is retrieved: nobody vouches for it, however it came to be there."""
    return Label(
        Integrity.UNTRUSTED,
        access.classification,
        (f"knowledge:{access.collection}",),
        subjects=tuple(sorted(subjects)),
    )
