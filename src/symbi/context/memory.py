"""The room itself: what agents remember, behind the gate.

A write is decided on by itself and durable when it returns. A read is decided on by lease, once for the question and
once for each level of label that there is (`symbi.context.reading`); what policy refuses of these is left out before
anything is ranked or counted. What comes back bears the label that it was kept with. Another agent's memory gives what
is shared in it, where policy permits to read it, and nothing else.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import anyio

from symbi.audit.event import Draft
from symbi.audit.log import AuditLog
from symbi.clock import Clock, IdSource
from symbi.context.cache import HOLDS_MS, AnswerCache, CacheStats
from symbi.context.finding import (
    MOST_NEAR,
    Question,
    by_content,
    found_in,
    narrowed,
    ranked_by_content,
)
from symbi.context.kinds import (
    DAY_MS,
    LASTING,
    ContextItem,
    ContextQuery,
    Found,
    MemoryKind,
    MemoryTerms,
    Recalled,
    check_space,
)
from symbi.context.matching import is_there
from symbi.context.meanings import Meanings
from symbi.context.port import Meaning, MemoryStore, Row, Space
from symbi.context.reading import Asked, Readers
from symbi.context.sealing import (
    Body,
    item_keys,
    level_of,
    merged_sources,
    opened_body,
    resealed,
    to_be_sealed,
)
from symbi.context.surplus import trim_items
from symbi.context.terms import DeclaredTerms
from symbi.context.typed import check_type
from symbi.context.words import counted, plain_json, same_as, tokens_of
from symbi.dsl.spec import MemorySpec
from symbi.errors import InputError, Overloaded, PermitRefused
from symbi.guard.action import DataRef, ReadData, WriteData
from symbi.guard.gate import Guard
from symbi.guard.permit import Permit
from symbi.guard.vault import Keys
from symbi.policy.flow import join
from symbi.types import AgentId, Integrity, Label, Principal

WORKING_MS: Final = DAY_MS  # how long an item of working memory is there
SWEEP_GAP_MS: Final = 60_000  # between two sweeps for runs that end
ASKED: Final = Label()
"""The label of what an operator's program asks."""
MAX_SPACES: Final = 4096  # of which it is known what is there, without a look at the store
LEASE_ENDS: Final = frozenset({"permit.unknown", "permit.expired"})
"""What a lease says that has ended meanwhile."""
_NO_DRAFTS: Final[tuple[Draft, ...]] = ()


@dataclass(frozen=True, slots=True)
class MemoryConfig:
    """What memory is told.

    Attributes:
        retention_days: Age at which any item is deleted.
        cache_bytes: What answers that were given lately may take.
    """

    retention_days: float = 365.0
    cache_bytes: int = 0


@dataclass(frozen=True, slots=True)
class MemoryRooms:
    """The rooms that memory stands on.

    Attributes:
        guard: The gate, with the vault.
        log: Makes rows durable.
        store: Keeps them.
        clock: Wall time.
        ids: Makes ids of items.
        principal: An agent as policies see it.
        terms: The terms of an agent's memory.
        meanings: Vectors of items; None where there is no embedder.
    """

    guard: Guard
    log: AuditLog
    store: MemoryStore
    clock: Clock
    ids: IdSource
    principal: Callable[[AgentId], Principal]
    terms: Callable[[AgentId], MemoryTerms]
    meanings: Meanings | None = None


class Memory:
    """What agents remember.

    Args:
        rooms: What it stands on.
        config: What it is told.
    """

    def __init__(self, rooms: MemoryRooms, config: MemoryConfig = MemoryConfig()) -> None:
        self._rooms = rooms
        self._config = config
        self._cache = AnswerCache(config.cache_bytes)
        self.readers = Readers(rooms.guard, rooms.clock)
        self._changes: dict[AgentId, int] = {}
        self._era = 0
        self._spaces: dict[AgentId, Space] = {}
        self.terms = DeclaredTerms(rooms.terms, config.retention_days)
        self.stirred = anyio.Event()
        self.swept_ms = 0
        self._making: dict[object, frozenset[str]] = {}
        rooms.guard.engine.on_change(lambda _policies: self._cache.clear())

    @property
    def rooms(self) -> MemoryRooms:
        """What it stands on."""
        return self._rooms

    @property
    def cache(self) -> CacheStats:
        """How the cache does."""
        return self._cache.stats

    @property
    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        return self._rooms.clock.now_ns() // 1_000_000

    def oldest_of(self, space: AgentId) -> int:
        """What this agent has kept before is not there any more, whatever was said when it was kept."""
        return self.terms.oldest_ms(self.now_ms, space)

    def retention_days_of(self, space: AgentId) -> float:
        """After how many days what this agent keeps is not there any more."""
        now_ms = self.now_ms
        return (now_ms - self.terms.oldest_ms(now_ms, space)) / DAY_MS

    def declare(self, agent: AgentId, spec: MemorySpec) -> None:
        """Take the terms of an agent's memory from its file: retention, and how much meaning and words count."""
        if self.terms.declare(agent, spec):
            self.all_changed()  # what was answered by other terms
            if self.terms.unsaved:
                self.stirred.set()

    def ended(self, agent: AgentId) -> None:
        """A run of an agent has ended: what its file does not let last any longer is to go now."""
        if self.terms.of(agent).retention_days is not None and self.now_ms >= self.swept_ms + SWEEP_GAP_MS:
            self.stirred.set()

    # --- writing ------------------------------------------------------------------------------

    async def store_context(self, agent: AgentId | Principal, item: ContextItem) -> str:
        """Have an agent remember something; durable when it returns.

        Args:
            agent: Whose memory it is.
            item: What.

        Returns:
            The item's id; of lasting memory that says the same already, the id that this has.

        Raises:
            Denied: Policy does not let it.
            InputError: It cannot be kept so.
            Unavailable: The store or the embedder cannot be used.
        """
        principal = self.principal_of(agent)
        check_type("item", item, ContextItem, "a `ContextItem`")
        async with self._rooms.guard.enforce(await self.writing(principal, item)) as permit:
            return permit.observe(await self.keep(permit, item))

    async def writing(self, principal: Principal, item: ContextItem) -> WriteData:
        """The action of keeping an item."""
        item = _labelled(principal, item)
        data = self.data_of(principal.name, item.kind.value)
        vault = self._rooms.guard.vault
        unseen = to_be_sealed(item.label) or (vault is not None and vault.all_agents)
        embedder, remote = ("", False) if unseen else await self.embedder()
        return WriteData(
            principal=principal, data=data, label=item.label, content=item.content, purpose=data.purpose,
            embedder=embedder, remote=remote,
        )  # fmt: skip

    async def keep(self, permit: Permit[WriteData], item: ContextItem) -> str:
        """Keep an item, as conditions of the permit have left it; returns its id.

        Raises:
            PermitRefused: The permit is not live, or is for another memory.
            InputError, Unavailable: As `store_context`.
        """
        action = self._rooms.guard.authority.redeem(permit, WriteData)
        principal, terms = action.principal, self.terms.of(action.principal.agent)
        self._require(action.data, principal.name)
        item = _labelled(principal, replace(item, content=action.content))
        keys = await item_keys(self._rooms.guard.vault, principal, item.label)
        row = self._row(principal.name, item, terms, sealed=bool(keys))
        meanings, body = self._rooms.meanings, Body.of(item, permit.effect_id)
        vectors = None if meanings is None or keys else await meanings.of_texts(permit, [item.content])
        row = replace(row, meaning=Meaning.NONE if vectors is None else Meaning.DUE)
        with self.making() as making:
            try:
                kept, _ = await self._rooms.log.transact(partial(self._put, row, body, keys, making))
            finally:
                self.changed(principal.name)  # also where nobody can tell whether it is kept
            if meanings is not None and vectors is not None:
                await meanings.put(permit, [kept], vectors)
                await self.meant([kept.id])
        return kept.id

    def _row(self, space: AgentId, item: ContextItem, terms: MemoryTerms, *, sealed: bool) -> Row:
        now_ms, level = self.now_ms, level_of(item.label)
        content = plain_json(item.content)
        expires_ms = None
        if item.kind is MemoryKind.WORKING:
            expires_ms = now_ms + WORKING_MS
        elif terms.retention_days is not None:
            expires_ms = now_ms + round(terms.retention_days * DAY_MS)
        said = {"form": item.form.value, "level": level, "tags": list(item.tags), "subjects": list(item.label.subjects)}
        digest = same_as({"content": item.content, "facts": said})
        words = None if sealed else plain_json(counted(item.content))
        return Row(
            self._rooms.ids.new(), space, item.kind, item.form, item.kind is MemoryKind.SHARED, level, now_ms, expires_ms,
            item.importance, item.half_life_days or terms.half_life_days, tokens_of(len(content)), 1, digest, Meaning.NONE,
            b"", words,
        )  # fmt: skip

    def _put(self, row: Row, body: Body, keys: Keys, making: object) -> tuple[Row, tuple[Draft, ...]]:
        """Put an item where it belongs, once if it is lasting; inside the store's transaction."""
        store = self._rooms.store
        row = replace(row, digest=keys.digest(row.digest))
        same = store.same_item(row.space, row.kind, row.digest) if row.kind in LASTING else None
        if same is not None and not is_there(same, row.at_ms, self.terms.oldest_ms(row.at_ms, row.space)):
            same = None  # nothing of what has gone comes back with it; the next sweep removes it
        before = None if same is None else opened_body(same, self._rooms.guard.vault)
        if same is not None and before is not None:
            sources = merged_sources(before.label, body.label)
            body = replace(body, label=replace(body.label, sources=sources))
            row = replace(
                row, id=same.id, times=same.times + 1, shared=same.shared or row.shared,
                importance=max(same.importance, row.importance), half_life_days=max(same.half_life_days, row.half_life_days),
            )  # fmt: skip
        row = resealed(row, body, keys)
        if making in self._making:  # and nobody has given up
            self._making[making] = frozenset((row.id,))
        store.put_item(row, body.tags)
        trim_items(store, row.space, row.kind)
        return row, _NO_DRAFTS

    @contextmanager
    def making(self, ids: Iterable[str] = ()) -> Iterator[object]:
        """Vectors of items are made meanwhile: a note that one of these is gone stays, so that no crash leaves a vector.

        Args:
            ids: Which, where it is known by now.

        Yields:
            What stands for it, until it is known.
        """
        making = object()
        self._making[making] = frozenset(ids)
        try:
            yield making
        finally:
            del self._making[making]

    @property
    def being_made(self) -> frozenset[str]:
        """Items whose vectors are made just now."""
        return frozenset[str]().union(*self._making.values())

    async def meant(self, ids: Sequence[str]) -> None:
        """Note that vectors are there; with the next commit, for one that is made twice does no harm.

        What was removed while its vector was made is noted as gone once more, and its vector goes with the next change.
        """

        def note() -> tuple[None, tuple[Draft, ...]]:
            self._rooms.store.meaning_there(ids)
            return None, _NO_DRAFTS

        await self._rooms.log.enlist(note, wait=True)

    # --- reading ------------------------------------------------------------------------------

    async def retrieve_context(self, agent: AgentId | Principal, query: ContextQuery) -> Recalled:
        """What an agent remembers, or what another one shares with it: the best or the newest first.

        A lease that ends before there is an answer (its time is over, or there is a new policy set) takes the answer with
        it: it is decided once more, and answered anew.

        Raises:
            Denied: Policy does not let the agent read this memory.
            InputError: The question is wrong.
            Overloaded: The new decision ended before there was an answer, too; nothing was handed out.
            Unavailable: The store or the embedder cannot be used.
        """
        principal = self.principal_of(agent)
        check_type("query", query, ContextQuery, "a `ContextQuery`")
        try:
            return await self._retrieve(principal, query)
        except PermitRefused as ended:
            if ended.code not in LEASE_ENDS:
                raise
        try:
            return await self._retrieve(principal, query)
        except PermitRefused as ended:
            if ended.code not in LEASE_ENDS:
                raise
            msg = (
                "the decision to read this memory ended twice before there was an answer, for policies change or the "
                "embedder takes longer than a lease lasts: nothing was handed out"
            )
            raise Overloaded(msg, code="context.lease", retry_after_s=1.0) from ended

    async def _retrieve(self, principal: Principal, query: ContextQuery) -> Recalled:
        asked = await self._asked(principal, query)
        async with self.readers.reading(asked, query.to_json()) as permit:
            return await self._answer(permit, asked, query)

    async def reading(self, principal: Principal, query: ContextQuery, label: Label) -> ReadData:
        """The action of asking a memory, for who decides on each question by itself."""
        asked = await self._asked(principal, query, label)
        return ReadData(
            principal=principal, data=asked.data, label=label, query=query.to_json(), purpose=asked.purpose,
            max_items=query.limit, embedder=asked.embedder, remote=asked.remote,
        )  # fmt: skip

    async def recall(self, permit: Permit[ReadData], query: ContextQuery) -> Recalled:
        """What a memory says to a question, as conditions of the permit have left it.

        Raises:
            PermitRefused: The permit is not live, or is for another memory.
            InputError, Unavailable: As `retrieve_context`.
        """
        action = self._rooms.guard.authority.redeem(permit, ReadData)
        return await self._answer(permit, await self._asked(action.principal, query, action.label), query)

    async def _answer(self, permit: Permit[ReadData], asked: Asked, query: ContextQuery) -> Recalled:
        action = permit.action
        if action.query is not None and action.query != query.to_json():
            msg = "a policy redacts what is looked for in this memory, and so nothing can be"
            raise InputError(msg, code="context.redacted")
        space, now_ms = query.of or action.principal.name, self.now_ms
        self._require(action.data, space)
        query = replace(query, limit=max(1, min(query.limit, action.max_items)))
        there = await self._space(space)
        marks = await self.readers.visible(asked, there.levels)
        wanted = narrowed(
            query, space, frozenset(marks), (now_ms, self.oldest_of(space)), shared=space != action.principal.name
        )
        key = (space, wanted.shared_only, query, action.mark, tuple(sorted(marks.items())))
        cached = self._cache.get(key, now_ms)
        if cached is not None:
            self._rooms.guard.authority.check(permit, ReadData)
            return cached
        change = self._change(space)
        chosen, cut = await self._find(permit, Question(query, wanted, self.terms.of(space)))
        self._rooms.guard.authority.check(permit, ReadData)  # it holds until there is an answer
        items = Recalled(
            (replace(one, label=join(one.label, action.mark, marks[row.level])) for row, one in chosen), cut=cut
        )
        if change == self._change(space):  # else somebody has kept something meanwhile
            keep_ms = now_ms - wanted.oldest_ms
            ends = [end for row, _ in chosen for end in (row.expires_ms, row.at_ms + keep_ms + 1) if end is not None]
            self._cache.put(key, items, (space,), min([now_ms + HOLDS_MS, *ends]))
        return items

    async def _find(self, permit: Permit[ReadData], question: Question) -> tuple[Sequence[tuple[Row, Found]], bool]:
        """What fits, each with its row; and whether there may be more."""
        read, store, vault = self._rooms.log.read, self._rooms.store, self._rooms.guard.vault
        query, wanted, meanings = question.query, question.wanted, self._rooms.meanings
        near: Mapping[str, float] = {}
        if query.about and meanings is not None and wanted.levels:
            change, rows = self._change(wanted.space), None
            if by_content(wanted):
                rows = await read(partial(ranked_by_content, store, query, wanted))
            if rows is None or rows:
                ids = None if rows is None else [row.id for row in rows]
                near = await meanings.near(permit, query.about, wanted, max(MOST_NEAR, 2 * query.limit), ids)
            if change == self._change(wanted.space):  # else they are read again: some may be there no more
                question = replace(question, rows=rows)
        return await read(partial(found_in, store, vault, question, near))

    # --- what both need -----------------------------------------------------------------------

    def data_of(self, space: AgentId, kind: str) -> DataRef:
        """A memory as the gate sees it: by the name of its agent, as it was declared."""
        declared, terms = AgentId(space.partition("/")[0]), self.terms.of(space)
        owner = self._rooms.principal(declared).owner
        return DataRef("Memory", declared, owner, kind, terms.classification, terms.purpose)

    def changed(self, space: AgentId) -> None:
        """Something about a memory is another now: answers that came from it are forgotten."""
        self._changes[space] = self._changes.get(space, 0) + 1
        self._spaces.pop(space, None)
        self._cache.forget(space)

    def all_changed(self) -> None:
        """Something about any memory is another now."""
        self._era += 1
        self._changes.clear()
        self._spaces.clear()
        self._cache.clear()

    def _change(self, space: AgentId) -> tuple[int, int]:
        """What is another once anything about a memory is."""
        return self._era, self._changes.get(space, 0)

    async def close(self) -> None:
        """Close the leases."""
        await self.readers.close()

    async def _space(self, space: AgentId) -> Space:
        """What there is of an agent, read again after each change."""
        known = self._spaces.get(space)
        if known is not None:
            return known
        change = self._change(space)
        there = await self._rooms.log.read(partial(self._rooms.store.space_of, space))
        if change == self._change(space):
            while len(self._spaces) >= MAX_SPACES:
                del self._spaces[next(iter(self._spaces))]
            self._spaces[space] = there
        return there

    async def _asked(self, principal: Principal, query: ContextQuery, label: Label = ASKED) -> Asked:
        data = self.data_of(query.of or principal.name, query.kind)
        embedder, remote = await self.embedder() if query.about else ("", False)
        asked = replace(label, sources=())
        return Asked(principal, data, asked, data.purpose, query.limit, embedder=embedder, remote=remote)

    async def embedder(self) -> tuple[str, bool]:
        """Which model reads texts, and whether it is another machine's; the empty name where none does."""
        return ("", False) if self._rooms.meanings is None else await self._rooms.meanings.embedder()

    def principal_of(self, agent: AgentId | Principal) -> Principal:
        """An agent as policies see it.

        Raises:
            InputError: It is no agent's name.
        """
        if isinstance(agent, Principal):
            return agent
        name, _, instance = check_space(agent).partition("/")
        return replace(self._rooms.principal(AgentId(name)), agent=AgentId(name), instance=instance)

    def _require(self, data: DataRef, space: AgentId) -> None:
        """Refuse a permit that is for another memory."""
        if data.type != "Memory" or data.name != space.partition("/")[0]:
            msg = f"the permit is for `{data.type}` `{data.name}`, and not for the memory of `{space}`"
            raise PermitRefused(msg, code="permit.foreign")


def _labelled(principal: Principal, item: ContextItem) -> ContextItem:
    """An item with the least that its label must say of it: what an untrusted agent says is untrusted."""
    if principal.trust != "untrusted":
        return item
    return replace(item, label=join(item.label, Label(Integrity.UNTRUSTED)))
