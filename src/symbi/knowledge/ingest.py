"""From files to documents, a batch at a time; what has not changed is left as it is, and what fails fails alone.

1. list what there is, and what is left alone and why (`symbi.knowledge.folders`);
2. read each file below its folder; one whose digest, rules and model are those of its document is done;
3. read its text in a process of its own, and cut it into chunks;
4. ask the gate to write the documents of one access (`WriteData`, with their digests); with its decision, note that they are
   being written;
5. put their vectors in; then, with the outcome, in one transaction, their rows and words;
6. take out the vectors of their last versions, and the note;
7. at the end of a folder, all of which could be listed, remove the documents whose files are gone.

Whatever ends the process between two of these: what was acknowledged is there, what was noted is put in order by the next
write of that collection (`mend`), and the same command again does what is left.
"""

from bisect import bisect_right
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread

from symbi.errors import ConfigError, DecryptionFailed, InputError
from symbi.guard.confidential import open_column
from symbi.guard.riders import Riders
from symbi.guard.vault import NO_KEYS, Keys, agent_subject
from symbi.knowledge.chunks import chunks_of
from symbi.knowledge.documents import (
    SEALED_FROM,
    Access,
    Body,
    ChunkRecord,
    DocumentRecord,
    body_place,
    chunk_records,
    document_id,
    version_of,
)
from symbi.knowledge.extracted import Extracted
from symbi.knowledge.folders import FileRef, Limits, Listing, Skip, list_files, read_below
from symbi.knowledge.rules import DocumentTerms
from symbi.knowledge.writing import Origin, Prepared, Writing
from symbi.types import AgentId, Label, Principal

BATCH_FILES: Final = 32  # of one step
BATCH_BYTES: Final = 67_108_864  # likewise; the rest waits for the next step
REMOVE_AT_ONCE: Final = 200  # documents of one decision
CUT_AT_ONCE: Final = 4_096  # characters of a document that is cut into chunks without waking a thread, and
BLOCKS_AT_ONCE: Final = 16  # of its blocks: some 0.2 ms

Extract = Callable[[bytes, str], Awaitable[tuple[str, Extracted]]]
"""Bytes and name of a file, to its kind and text; raises `InputError` for what is none."""


@dataclass(slots=True)
class Step:
    """What one step did.

    Attributes:
        added, changed, removed: Sources of documents.
        unchanged: How many were left as they are.
        skips: What was not read, and why.
        chunks: How many were written.
        next: The last file that was looked at; None once the folder is done.
    """

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    unchanged: int = 0
    skips: list[Skip] = field(default_factory=list)
    chunks: int = 0
    next: str | None = None


class Ingest:
    """Writes documents; one writer at a time.

    Args:
        writing: Keeps what was read.
        extract: Reads a text out of a file, elsewhere than on the event loop.
        limits: What is read at most.
    """

    def __init__(self, writing: Writing, extract: Extract, limits: Limits) -> None:
        self._rooms = writing.rooms
        self._writing = writing
        self._extract = extract
        self.limits = limits

    async def plan(self, collection: str, path: Path, name: str = "", *, moved: bool = False) -> Listing:
        """What there is to be read, without what rules leave alone.

        Args:
            collection: To which collection.
            path: A folder, or a file.
            name: What its sources begin with; its own name if empty.
            moved: It was read from another place before.

        Raises:
            InputError: There is nothing at the path, or the collection's name can be none.
        """
        self._rooms.rules.of_collection(collection)
        listing = await anyio.to_thread.run_sync(list_files, path, self.limits, name)
        return replace(listing, moved=moved)

    async def step(self, principal: Principal, collection: str, listing: Listing, after: str | None) -> Step:
        """Read the next files of a listing, and after the last one remove what is gone.

        Args:
            principal: Who writes.
            collection: To which collection.
            listing: What there is.
            after: `Step.next` of the last step; None for the first.

        Raises:
            InputError: What has this name in the collection comes from another folder.
            Denied: Policy does not let them be written; nothing of this access is.
            StoreUnavailable: Store, index or trail cannot be used.
        """
        done = Step()
        files = listing.files  # by source
        left = files if after is None else files[bisect_right(files, after, key=lambda one: one.source) :]
        async with self._writing.turn:
            await self._refuse_another(principal, collection, listing)
            sources = [one.source for one in left[:BATCH_FILES]]
            versions = await self._rooms.log.read(partial(self._rooms.store.versions, collection, sources))
            drafts: list[Prepared] = []
            size = 0
            for file in left[:BATCH_FILES]:
                if size and size + file.size_bytes > BATCH_BYTES:
                    break
                done.next = file.source
                known = versions.get(file.source)
                draft = await self._read(collection, listing.root, file, known, done)
                if known is not None and done.skips and done.skips[-1].source == file.source:
                    await self._withdraw(principal, collection, file.source, known[0], done)
                size += file.size_bytes
                if draft is not None:
                    drafts.append(draft)
                    size += len(draft.document.body)  # a small file may say much
            await self._write(principal, drafts, done, Origin(listing.called, listing.root))
            if not left or done.next == left[-1].source:
                done.next = None
                await self._writing.mend_alone(principal, self._rooms.rules.of_collection(collection))
                if listing.whole and not listing.single:
                    await self._sweep(principal, collection, listing, done)
        return done

    async def put(self, principal: Principal, collection: str, source: str, data: bytes, modified_ns: int) -> Step:
        """Write one document that lies in no file; searches find it once it has returned.

        Raises:
            InputError: It is none.
            Denied, StoreUnavailable: As `step`.
        """
        done = Step()
        async with self._writing.turn:
            versions = await self._rooms.log.read(partial(self._rooms.store.versions, collection, [source]))
            draft = await self._draft(collection, source, (data, modified_ns), versions.get(source))
            if draft is None:
                access = self._rooms.rules.of_document(collection, source).access
                # Whoever may not write it is not told that this is what it says.
                async with self._writing.permitted(principal, access, {"unchanged": 1}, Label()) as permit:
                    await self._writing.mend(permit, collection)
                done.unchanged = 1
            else:
                await self._write(principal, [draft], done)
        return done

    # --- reading --------------------------------------------------------------------------------

    async def _read(
        self, collection: str, root: Path, file: FileRef, known: tuple[str, str] | None, done: Step
    ) -> Prepared | None:
        """A file as a document; None where it is unchanged, or is none, which is noted."""
        try:
            found = await anyio.to_thread.run_sync(read_below, root, file.path, self.limits)
            draft = await self._draft(collection, file.source, found, known)
        except InputError as error:
            done.skips.append(Skip(file.source, error.code.removeprefix("knowledge."), error.message))
            return None
        if draft is None:
            done.unchanged += 1
        return draft

    async def _withdraw(self, principal: Principal, collection: str, source: str, id_: str, done: Step) -> None:
        """Remove a document that cannot be read again, if rules say something else of it now: it would be found as it was.

        Raises:
            Denied, StoreUnavailable: As `step`.
        """
        store, vault, terms = self._rooms.store, self._rooms.vault, self._rooms.rules.of_document(collection, source)

        def said() -> tuple[Access, tuple[str, ...]] | None:
            there = store.get_documents([id_])[id_]
            try:
                data = open_column(vault, there.body, body_place(id_))
            except (ConfigError, DecryptionFailed):
                return None  # nobody can tell whom it is about
            return there.access, Body.decode(data or b"").subjects

        if terms.skipped_by or await self._rooms.log.read(said) != (terms.access, terms.subjects):
            await self._writing.remove_now(principal, [id_])
            done.removed.append(source)

    async def _draft(
        self, collection: str, source: str, found: tuple[bytes, int], known: tuple[str, str] | None
    ) -> Prepared | None:
        data, modified_ns = found
        terms = self._rooms.rules.of_document(collection, source)
        if terms.skipped_by:
            raise InputError(f"rule `{terms.skipped_by}` leaves it alone", code="knowledge.rule")
        keys = await self._keys(terms)
        model = self._rooms.embedder.model.digest
        version = keys.digest(version_of(data, terms.access, terms.subjects, terms.importance, model)).hex()
        if known is not None and known[1] == version:
            return None
        kind, extracted = await self._extract(data, source.rsplit("/", 1)[-1])
        id_ = document_id(collection, source)

        def cut() -> tuple[tuple[ChunkRecord, ...], Body, bytes]:
            chunks = chunks_of(extracted)
            records = chunk_records(id_, extracted, chunks, terms.access, model, sealed=bool(keys))
            body = Body(extracted.title, extracted.text, tuple(one.headings for one in chunks), terms.subjects)
            return records, body, keys.seal(body.encode(), body_place(id_))

        if len(extracted.text) <= CUT_AT_ONCE and len(extracted.blocks) <= BLOCKS_AT_ONCE:
            records, body, kept = cut()
        else:  # a second, for the largest: the loop goes on meanwhile
            records, body, kept = await anyio.to_thread.run_sync(cut)
        document = DocumentRecord(
            id_, source, kind, version, terms.access, terms.importance, modified_ns, self._rooms.clock.now_ns(), len(data),
            len(records), kept,
        )  # fmt: skip
        return Prepared(document, records, body, keys.ids, is_new=known is None)

    async def _keys(self, terms: DocumentTerms) -> Keys:
        """Under which a document is sealed: those whom it is about, else, where it is confidential, those of its collection."""
        vault = self._rooms.vault
        if terms.subjects:
            names = terms.subjects
        elif terms.access.classification in SEALED_FROM or (vault is not None and vault.all_agents):
            names = (agent_subject(AgentId(f"knowledge.{terms.access.collection}")),)
        else:
            return NO_KEYS
        if vault is None:
            raise InputError("it would have to be sealed, and there is no key", code="knowledge.no_key")
        return await vault.ready(names, wait=True)

    # --- writing --------------------------------------------------------------------------------

    async def _refuse_another(self, principal: Principal, collection: str, listing: Listing) -> None:
        """Two folders of one name, or one that is called as if it lay in the other, would take each other's documents out.

        Raises:
            InputError: What has this name comes from another folder, and is still there.
            Denied: As `step`.
        """
        rooms, name, root = self._rooms, listing.called, listing.root
        known = await rooms.log.read(partial(rooms.store.folders, collection, name))
        others = [
            one
            for one, place in known.items()
            if not _fits(one, place, name, root) and await self._writing.below(collection, one)
        ]
        if not others:
            return
        access = rooms.rules.of_collection(collection)
        above = [one for one in others if name.startswith(f"{one}/")]
        if above or not listing.moved:
            one = (above or others)[0]
            msg = f"`{one}` in `{collection}` is what was read from `{known[one]}`, and not from `{root}`"
            if one != name:
                msg += f", which would be `{name}`"
            hint = "give this one another name with `--as NAME`"
            if not above:
                hint += "; if it is the same and lies elsewhere now, say `--moved`"
            await self._writing.absent(principal, access, InputError(msg, code="knowledge.another_folder", hint=hint))

        def put() -> None:
            for one in {name, *others}:
                rooms.store.put_folder(collection, one, root / one[len(name) + 1 :])

        async with self._writing.permitted(principal, access, {"moved": name}, Label(), Riders(succeeded=put)):
            pass

    async def _write(
        self, principal: Principal, drafts: Sequence[Prepared], done: Step, origin: Origin | None = None
    ) -> None:
        await self._writing.write(principal, drafts, origin)
        for draft in drafts:
            (done.added if draft.is_new else done.changed).append(draft.document.source)
            done.chunks += len(draft.chunks)

    async def _sweep(self, principal: Principal, collection: str, listing: Listing, done: Step) -> None:
        """Remove the documents whose files are gone, or are left alone from now on."""

        def read(files: Sequence[FileRef]) -> frozenset[str]:
            of = partial(self._rooms.rules.of_document, collection)
            return frozenset(one.source for one in files if not of(one.source).skipped_by)

        # Seconds, for many files and rules: the loop goes on meanwhile.
        there = await anyio.to_thread.run_sync(read, listing.files)
        below = await self._writing.below(collection, listing.name)
        gone = {source: id_ for source, id_ in below.items() if source not in there and source != listing.name}
        if (
            gone
        ):  # looked at again: what has come since the folder was listed may have been read from it by somebody else
            now = await anyio.to_thread.run_sync(list_files, listing.root, self.limits, listing.name)
            found = await anyio.to_thread.run_sync(read, now.files)
            gone = {source: id_ for source, id_ in gone.items() if now.whole and source not in found}
        ids = list(gone.values())
        for first in range(0, len(ids), REMOVE_AT_ONCE):
            await self._writing.remove_now(principal, ids[first : first + REMOVE_AT_ONCE])
        done.removed += sorted(gone.keys() - set(done.removed))


def _fits(one: str, place: Path, name: str, root: Path) -> bool:
    """Whether what is called `one` may lie at a place, where `name` lies at a root: they are apart, or one within the other."""
    if name.startswith(f"{one}/"):
        return place / name[len(one) + 1 :] == root
    return root / one[len(name) + 1 :] == place
