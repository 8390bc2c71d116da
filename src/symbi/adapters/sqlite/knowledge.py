"""Documents and chunks of knowledge bases, and the index of their words: a part of the store."""

import json
import os
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import numpy as np

from symbi.adapters.sqlite.file import SQL, damaged, mapped
from symbi.adapters.sqlite.rows import Rows
from symbi.adapters.sqlite.words import Held, Places, Stemmer, counted, in_a_row, scores, whole_numbers
from symbi.knowledge.documents import (
    CHUNKS_AT_ONCE,
    Access,
    ChunkRecord,
    CollectionStats,
    DocumentRecord,
    Found,
    Narrowing,
)
from symbi.types import Confidentiality

_FIRST: Final = -(2**63)
_LAST: Final = 2**63 - 1
_DOCUMENT_COLUMNS: Final = 14
_FORMER: Final = 64  # collections in which nothing is any more, by which a reader of nothing is judged
_SCRUB: Final = "knowledge_scrub"
_STAGED: Final = "+"  # behind the id of a document: chunks that will be its own
_GONE: Final = "-"  # and those that were
_MERGED: Final = 2  # changes that the engine counts for a merge in which anything was done
MEAN_LENGTH: Final = 700.0  # characters of a chunk; what chunks there are must not tell by it


class KnowledgeTable(Rows):
    """DocumentStore and PassageStore, for the store that has the connection."""

    _stemmer: Stemmer | None = None

    # --- DocumentStore --------------------------------------------------------------------------

    def access_number(self, access: Access) -> int:
        """Given where it has none."""
        self._fence(self._epoch)
        facts = (access.collection, access.owner, access.classification.value, access.purpose)
        self._write(SQL["put_access"], facts)
        return int(self._one(SQL["get_access"], facts)[0])

    def put_documents(self, documents: Sequence[tuple[DocumentRecord, Sequence[ChunkRecord]]]) -> None:
        """Insert or replace; chunks that stay as they are stay."""
        self._fence(self._epoch)
        for document, chunks in documents:
            self._replace_chunks(document.document_id, chunks)
            access, access_id = document.access, self.access_number(document.access)
            self._write(
                SQL["put_document"],
                (document.document_id, access.collection, document.source, document.kind, document.version, access_id,
                 document.importance, document.modified_ns, document.added_ns, document.size_bytes, document.chunks,
                 document.body),
            )  # fmt: skip

    def _replace_chunks(self, id_: str, chunks: Sequence[ChunkRecord]) -> None:
        there = self._all(SQL["chunk_rows"], (id_,))
        now = {chunk.chunk_id for chunk in chunks}
        sealed = any(chunk.words is None for chunk in chunks)
        if any(bool(worded) is sealed for _, _, worded in there):
            # What is sealed from now on stood in plain words until now, or the other way: nothing of it stays.
            staged = self._all(SQL["chunk_rows"], (id_ + _STAGED,))
            self.drop_chunks([number for _, number, _ in (*there, *staged)])
            if sealed:
                self._write(SQL["put_meta"], (_SCRUB, "due"))
        else:
            self._let_go_of(id_, [number for chunk, number, _ in there if chunk not in now])
            self._write(SQL["move_chunks"], (id_, id_ + _STAGED))
        self._put_chunks(id_, chunks)
        if self._one(SQL["count_chunks"], (id_,))[0] != len(now):
            raise damaged(ValueError("another document has a chunk of this one"))

    def stage_chunks(self, chunks: Sequence[ChunkRecord]) -> None:
        """Under an id that no document has."""
        self._fence(self._epoch)
        for id_, some in groupby(chunks, lambda one: one.document_id):
            self._put_chunks(id_ + _STAGED, list(some))

    def _put_chunks(self, id_: str, chunks: Sequence[ChunkRecord]) -> None:
        """Insert those that are not there."""
        with mapped("write"):
            for one in chunks:
                worded = one.words is not None
                facts = (one.chunk_id, id_, one.ordinal, one.start, one.end, worded)
                put = self._db.execute(SQL["put_chunk"], facts)
                if put.rowcount and one.words is not None:
                    self._db.execute(SQL["put_words"], (put.lastrowid, *one.words))

    def remove_documents(self, ids: Sequence[str], *, scrub: bool = False) -> int:
        """Remove; of large ones, what they held waits to be dropped."""
        self._fence(self._epoch)
        for id_ in ids:
            rows = self._all(SQL["chunk_rows"], (id_,))
            self._let_go_of(id_, [number for _, number, _ in rows])
            if scrub and any(worded for _, _, worded in rows):
                self._write(SQL["put_meta"], (_SCRUB, "due"))
        return self._write(SQL["remove_documents"], (json.dumps(list(ids)),))

    def _let_go_of(self, id_: str, numbers: Sequence[int]) -> None:
        """Have chunks be a document's no more: dropped at once where they are few, else noted."""
        if len(numbers) <= CHUNKS_AT_ONCE:
            self.drop_chunks(numbers)
        else:
            self._write(SQL["note_document"], (id_,))
            self._write(SQL["move_some_chunks"], (id_ + _GONE, json.dumps(numbers)))

    def left_chunks(self, ids: Sequence[str], limit: int) -> Sequence[int]:
        """By number."""
        return [row[0] for row in self._all(SQL["chunks_beside"], (json.dumps(list(ids)), limit))]

    def drop_chunks(self, numbers: Sequence[int], *, scrub: bool = False) -> None:
        """With their words."""
        self._fence(self._epoch)
        some = json.dumps(list(numbers))
        if scrub and self._one(SQL["any_worded"], (some,))[0]:
            self._write(SQL["put_meta"], (_SCRUB, "due"))
        self._write(SQL["drop_words"], (some,))
        self._write(SQL["drop_chunks"], (some,))

    def scrub_due(self) -> bool:
        """Noted by `remove_documents`."""
        return self._one(SQL["get_meta"], (_SCRUB,)) is not None

    def scrub_words(self, pages: int) -> bool:
        """Merge some pages of the index into new ones, what is removed left out; the old ones are overwritten (secure_delete)."""
        self._fence(self._epoch)
        with mapped("write"):
            before = self._db.total_changes
            self._db.execute(SQL["scrub_words"], (-pages,))
            if self._db.total_changes - before >= _MERGED:
                return True
            self._db.execute(SQL["remove_meta"], (_SCRUB,))
        return False

    def folders(self, collection: str, name: str) -> Mapping[str, Path]:
        """As they were put."""
        parts = name.split("/")
        above = json.dumps(["/".join(parts[:count]) for count in range(1, len(parts) + 1)])
        rows = self._all(SQL["get_folders"], (collection, above, f"{name}/", f"{name}0"))  # 0 comes next to /
        return {name: Path(os.fsdecode(root)) for name, root in rows}

    def put_folder(self, collection: str, name: str, root: Path) -> None:
        """Insert or replace."""
        self._fence(self._epoch)
        self._write(SQL["put_folder"], (collection, name, os.fsencode(root)))

    def documents(
        self, collection: str | None, after: tuple[str, str], limit: int, accesses: Sequence[int] | None = None
    ) -> Sequence[DocumentRecord]:
        """By collection and source."""
        rows = self._all(SQL["documents"], (collection, *after, limit, _numbers(accesses)))
        return [_document(row) for row in rows]

    def get_documents(self, ids: Sequence[str], *, bodies: bool = True) -> Mapping[str, DocumentRecord]:
        """By id."""
        rows = self._all(SQL["get_documents"], (json.dumps(list(ids)), bodies))
        return {row[0]: _document(row) for row in rows}

    def versions(self, collection: str, sources: Sequence[str]) -> Mapping[str, tuple[str, str]]:
        """By source."""
        rows = self._all(SQL["versions"], (collection, json.dumps(list(sources))))
        return {source: (id_, version) for source, id_, version in rows}

    def documents_before(self, before_ns: int, limit: int) -> Sequence[DocumentRecord]:
        """Oldest first."""
        return [_document(row) for row in self._all(SQL["documents_before"], (before_ns, limit))]

    def chunk_ids(
        self, collection: str, after: str, limit: int, accesses: Sequence[int] | None = None
    ) -> Sequence[tuple[str, str]]:
        """In their order."""
        rows = self._all(SQL["chunk_ids"], (collection, after, limit, _numbers(accesses)))
        return [(chunk, document) for chunk, document in rows]

    def chunk_ids_of(self, ids: Sequence[str]) -> frozenset[str]:
        """Of some documents."""
        return frozenset(row[0] for row in self._all(SQL["chunk_ids_of"], (json.dumps(list(ids)),)))

    def chunks_of(self, document: str) -> Sequence[ChunkRecord]:
        """In order."""
        return [
            ChunkRecord(chunk_id, document, ordinal, start, end, None if text is None else (headings, text))
            for chunk_id, ordinal, start, end, headings, text in self._all(SQL["chunks_of"], (document,))
        ]

    def put_pending(self, collection: str, ids: Sequence[str]) -> None:
        """Note them."""
        self._fence(self._epoch)
        self._write(SQL["put_pending"], (collection, json.dumps(list(ids))))

    def clear_pending(self, ids: Sequence[str]) -> None:
        """Forget them."""
        self._fence(self._epoch)
        self._write(SQL["clear_pending"], (json.dumps(list(ids)),))

    def pending(self, collection: str | None) -> Sequence[str]:
        """In their order."""
        return [row[0] for row in self._all(SQL["pending"], (collection,))]

    def unfinished(self) -> Sequence[str]:
        """By name; where nothing but words is left, of no collection in particular, the first that there is."""
        return [row[0] for row in self._all(SQL["unfinished"], (_SCRUB,))]

    def collection_stats(self, accesses: Sequence[int] | None = None) -> Sequence[CollectionStats]:
        """By name."""
        return [CollectionStats(*row) for row in self._all(SQL["collection_stats"], (_numbers(accesses),))]

    # --- PassageStore ---------------------------------------------------------------------------

    def collections(self) -> Sequence[str]:
        """By name."""
        there = self._all(SQL["collections"])
        return [row[0] for row in there or self._all(SQL["former_collections"], (_FORMER,))]

    def accesses(self, collection: str) -> Mapping[int, Access]:
        """By number."""
        try:
            return {
                number: Access(collection, owner, Confidentiality(classification), purpose)
                for number, owner, classification, purpose in self._all(SQL["accesses"], (collection,))
            }
        except ValueError as unknown:
            raise damaged(unknown) from unknown

    def search_words(
        self, words: Sequence[str], accesses: Sequence[int], narrowing: Narrowing, limit: int
    ) -> Sequence[tuple[str, float]]:
        """By BM25, every figure of which is of chunks that may be read."""
        if not words or not accesses:
            return []
        allowed = json.dumps(list(accesses))
        self._write(SQL["open_terms"], ())
        places = Places()
        held = [self._held(phrase, word, places) for phrase, word in self._stemmed(words).items()]
        if not held:
            return []
        somewhere = json.dumps(np.unique(np.concatenate([one.numbers for one in held])).tolist())
        rows = self._one(SQL["readable_chunks"], (somewhere, allowed, *_narrowed(narrowing)))
        numbers, lengths, asked = (whole_numbers(column) for column in rows)
        if not len(numbers):
            return []
        order = np.argsort(numbers)
        numbers, lengths, asked = numbers[order], lengths[order], asked[order].astype(bool)
        scored = scores(held, numbers, lengths, self._one(SQL["readable_size"], (allowed,))[0], MEAN_LENGTH)
        numbers, scored = numbers[asked], scored[asked]
        if len(numbers) > limit:  # equal ones go by their ids, so all that are as good as the last are looked at
            best = scored >= np.partition(scored, -limit)[-limit]
            numbers, scored = numbers[best], scored[best]
        ids = dict(self._all(SQL["ids_of_chunks"], (json.dumps(numbers.tolist()),)))
        found = [(ids[number], score) for number, score in zip(numbers.tolist(), scored.tolist(), strict=True)]
        return sorted(found, key=lambda one: (-one[1], one[0]))[:limit]

    def _held(self, phrase: Sequence[str], word: str, places: Places) -> Held:
        """How often a phrase stands in which chunk, whoever may read it; once in each where to count it takes too long."""
        kind = "term_marks" if len(phrase) == 1 else "term_places"
        for term in dict.fromkeys(phrase):
            if (kind, term) not in places.read:
                places.keep((kind, term), *self._one(SQL[kind], (term, places.left + 1)))
        found = [some for term in phrase if (some := places.read[kind, term]) is not None]
        if len(found) == len(phrase) == 1:
            return counted(found[0])
        if len(found) == len(phrase) and places.spend(sum(map(len, found))):
            return in_a_row(found)
        quoted = '"' + word.replace('"', '""') + '"'
        return counted(whole_numbers(self._one(SQL["chunks_with"], (quoted,))[0]) << 1)

    def _stemmed(self, words: Sequence[str]) -> Mapping[tuple[str, ...], str]:
        with mapped("read"):
            if self._stemmer is None:
                self._stemmer = Stemmer()
            return self._stemmer.phrases(words)

    def _close_words(self) -> None:
        stemmer, self._stemmer = self._stemmer, None
        if stemmer is not None:
            stemmer.close()

    def found(self, chunk_ids: Sequence[str], accesses: Sequence[int], narrowing: Narrowing) -> Mapping[str, Found]:
        """By id."""
        values = (json.dumps(list(chunk_ids)), json.dumps(list(accesses)), *_narrowed(narrowing))
        found = {}
        for row in self._all(SQL["found"], values):
            chunk_id, ordinal, start, end, headings, text = row[_DOCUMENT_COLUMNS:]
            words = None if text is None else (headings, text)
            document = _document(row[:_DOCUMENT_COLUMNS])
            chunk = ChunkRecord(chunk_id, document.document_id, ordinal, start, end, words)
            found[chunk_id] = Found(chunk, document, row[5])
        return found

    def narrowed(self, accesses: Sequence[int], narrowing: Narrowing, limit: int) -> Sequence[str]:
        """Ids of documents."""
        values = (json.dumps(list(accesses)), *_narrowed(narrowing), limit)
        return [row[0] for row in self._all(SQL["narrowed"], values)]


def _numbers(accesses: Sequence[int] | None) -> str | None:
    return None if accesses is None else json.dumps(list(accesses))


def _narrowed(narrowing: Narrowing) -> tuple[object, ...]:
    return (
        json.dumps([one.replace("[", "[[]") for one in narrowing.sources]),
        json.dumps(narrowing.kinds),
        _FIRST if narrowing.after_ns is None else narrowing.after_ns,
        _LAST if narrowing.before_ns is None else narrowing.before_ns,
    )


def _document(row: Any) -> DocumentRecord:
    (id_, collection, source, kind, version, _access, importance, modified_ns, added_ns, size, chunks, owner, classification,
     purpose, *body) = row  # fmt: skip
    try:
        access = Access(collection, owner, Confidentiality(classification), purpose)
    except ValueError as unknown:
        raise damaged(unknown) from unknown
    return DocumentRecord(
        id_, source, kind, version, access, importance, modified_ns, added_ns, size, chunks, body[0] if body else b""
    )
