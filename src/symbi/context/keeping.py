"""What becomes of items: how they are forgotten, expire, are copied and brought back, and how a crash is mended.

An item that goes is gone from memory, from checkpoints, from the lists of words and tags, from answers that were given
lately, and from the index of vectors; and the store's old pages are let go. What is about somebody under a legal hold
stays until the hold is released.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Final

import anyio

from symbi.audit.event import AuditEventType, Draft
from symbi.context.finding import narrowed
from symbi.context.forgetting import AT_ONCE, Forgotten, Place, meant, places
from symbi.context.kinds import ContextQuery, Recalled, check_space
from symbi.context.memory import ASKED, Memory
from symbi.context.operators import seen_by_operator
from symbi.context.port import COPIES, START, Checkpoint, DuePlace, Row
from symbi.context.sealing import opened_body
from symbi.context.surplus import trim_copies, trim_noted
from symbi.context.verifying import make_again
from symbi.errors import ConfigError, Denied, InputError, TimeLimit, Unavailable
from symbi.guard.action import ReadData, WriteData
from symbi.guard.permit import Permit
from symbi.policy.flow import join
from symbi.types import SYSTEM_AGENT, AgentId, JsonValue, Label, Principal

_log = logging.getLogger("symbi.context")

INTERVAL_S: Final = 3600.0  # between two sweeps
MAX_COPY_ITEMS: Final = 20_000  # of a memory that is copied or put aside, for nobody else is served meanwhile
MAX_COPY_BYTES: Final = 134_217_728
GONE_AT_ONCE: Final = 20_000  # items whose vectors are removed together, for each time the index is written anew
CLOSE_S: Final = 10.0  # for what is still to be removed at the end; the next opening does the rest


class MemoryKeeping:
    """Keeps memories in order.

    Args:
        memory: The room.
        let_go: Moves what the store has overwritten out of its log; on the store's thread.
    """

    def __init__(self, memory: Memory, let_go: Callable[[], None]) -> None:
        self._memory = memory
        self._let_go = let_go
        self._rooms = memory.rooms
        self._turn = anyio.Lock()  # two at once would each undo the notes of the other
        self._owed = False  # something is removed that is not cleared away yet
        self._lost = False  # vectors are lost, and are to be made again

    # --- forgetting ---------------------------------------------------------------------------

    async def forget(self, agent: AgentId | Principal, ids: Sequence[str]) -> int:
        """Have an agent forget items of its own; returns how many there were.

        Raises:
            Denied: Policy does not let it write to its memory.
            InputError: One of them is about somebody under a legal hold; none is gone.
            Unavailable: The store or the index cannot be used; what is gone stays so, and asking again finishes it.
        """
        principal = self._memory.principal_of(agent)
        async with self._writing(principal, {"forget": list(ids)}):
            return await self.forget_now(principal.name, ids)

    async def forget_now(self, space: AgentId, ids: Sequence[str]) -> int:
        """The same, for who has passed the gate."""
        store = self._rooms.store

        def remove() -> tuple[int, tuple[Draft, ...]]:
            there = [one for one in dict.fromkeys(ids) if store.space_has(space, one)]
            if held := store.held_items(there):
                msg = f"{len(held)} of {len(there)} named items cannot go, being about somebody under a legal hold: nothing is forgotten"
                raise InputError(msg, code="privacy.held", hint="`symbi privacy list` says why")
            store.remove_items(there)
            return len(there), _removed(space, len(there), "forgotten")

        try:
            count, _ = await self._rooms.log.transact(remove)
        finally:
            self._memory.changed(space)  # also where nobody can tell whether they are gone
        await self.clear_away()
        return count

    async def forget_matching(self, space: AgentId, query: ContextQuery) -> Forgotten:
        """Have an agent forget what a question means, all of it; for who has passed the gate.

        What is only in checkpoints goes, too. What is about somebody under a legal hold stays, and is counted. `about`,
        `limit` and `max_tokens` of the question do not count.

        Raises:
            Unavailable: The store or the index cannot be used; what is gone stays so, and asking again finishes it.
            DecryptionFailed, ConfigError: A sealed item cannot be opened to see whether it is meant; likewise.
        """
        store, vault = self._rooms.store, self._rooms.guard.vault
        there, copies = await self._rooms.log.read(lambda: (store.space_of(space), store.checkpoints_of(space)))
        # Also what nobody sees any more, for it has expired.
        wanted = narrowed(query, space, frozenset(there.levels), (0, 0), shared=False)
        done, staying = Forgotten(), set[str]()  # an item that stays may be in several copies
        for first in places(wanted, [one.id for one in copies]):
            place: Place | None = first
            while place is not None:

                def step(place: Place = place) -> tuple[tuple[int, Sequence[str], Place | None], tuple[Draft, ...]]:
                    ids, onward = meant(store, vault, wanted, place)
                    held = store.held_items(ids)
                    kept = frozenset(held)
                    store.remove_items(free := [one for one in ids if one not in kept])
                    return (len(free), held, onward), _removed(space, len(free), "forgotten")

                try:
                    (count, held, place), _ = await self._rooms.log.transact(step, wait=True)
                finally:
                    self._memory.changed(space)
                done = done.plus(count, [one for one in held if one not in staying])
                staying.update(held if first.copy else ())
        await self.clear_away()
        return done

    async def take_up(self) -> None:
        """Learn how long memories last, as their files said last, before any of these is read.

        Raises:
            StoreUnavailable: The store cannot be read.
        """
        self._memory.terms.take_up(await self._rooms.log.read(self._rooms.store.retentions))

    async def sweep(self) -> int:
        """Remove what has expired, is too old, or is more than there may be; returns how many items that was.

        Raises:
            Overloaded, StoreUnavailable: It cannot be removed now; what was removed by then stays so.
        """
        await self._save_terms()
        self._memory.swept_ms = now_ms = self._memory.now_ms
        removed = 0
        for of, oldest_ms in self._memory.terms.ages(now_ms):
            removed += await self._remove_due(of, now_ms, oldest_ms)
        removed += await self._remove_surplus()
        if self._owed:
            await self.clear_away(wait=False)  # neither a start nor an end waits for an index to be written anew
        return removed

    async def _save_terms(self) -> None:
        """Keep how long memories last, so that it holds at the next opening."""
        store, unsaved = self._rooms.store, self._memory.terms.unsaved

        def save() -> tuple[None, tuple[Draft, ...]]:
            for agent, days in unsaved.items():
                store.put_retention(agent, days)
            return None, ()

        if unsaved:
            await self._rooms.log.transact(save, wait=True)
            self._memory.terms.saved(unsaved)

    async def _remove_due(self, of: AgentId, now_ms: int, oldest_ms: int) -> int:
        """Remove what has expired, or was kept before a time, of an agent with all its instances or of everybody."""
        store, removed, after = self._rooms.store, 0, START
        if not await self._rooms.log.read(partial(store.due_items, now_ms, oldest_ms, after, 1, of)):
            return 0
        while True:

            def step(after: DuePlace = after) -> tuple[tuple[int, DuePlace], tuple[Draft, ...]]:
                due = store.due_items(now_ms, oldest_ms, after, AT_ONCE, of)
                ids = list(dict.fromkeys(one for one, _place in due))
                held = frozenset(store.held_items(ids))
                count = store.remove_due([one for one in ids if one not in held], now_ms, oldest_ms)
                return (count, due[-1][1] if len(due) == AT_ONCE else START), _removed(of, count, "retention")

            async with self._removing():
                (count, after), _ = await self._rooms.log.transact(step, wait=True)
            removed += count
            if after == START:
                return removed

    async def _remove_surplus(self) -> int:
        """Remove what was held beyond the bounds and is not any more."""
        store, removed = self._rooms.store, 0
        for space, kind in await self._rooms.log.read(store.noted_surplus):
            held, seen = 0, AT_ONCE
            while seen == AT_ONCE:

                def step(
                    space: AgentId = space, kind: str = kind, held: int = held
                ) -> tuple[tuple[int, int], tuple[Draft, ...]]:
                    seen, staying = trim_noted(store, space, kind, held, AT_ONCE)
                    return (seen, staying), _removed(space, 0 if kind == COPIES else seen - staying, "surplus")

                async with self._removing():
                    (seen, staying), _ = await self._rooms.log.transact(step, wait=True)
                held += staying
                removed += seen - staying
        return removed

    async def erased(self, ids: Sequence[str], keys: Collection[str] = ()) -> None:
        """Remove items that are about somebody whose data is erased; whoever asks has passed the gate.

        `keys` are those of somebody's: where there are any, nothing of what was removed before stays in a file either.

        Raises:
            StoreUnavailable: The store cannot be used; asking again finishes it.
        """
        store = self._rooms.store
        for first in range(0, len(ids), AT_ONCE):

            def remove(some: Sequence[str] = ids[first : first + AT_ONCE]) -> tuple[int, tuple[Draft, ...]]:
                return store.remove_items(some), ()

            async with self._removing():
                await self._rooms.log.transact(remove, wait=True)
        self._memory.all_changed()
        await self._remove_vectors(wait=True)
        if self._rooms.meanings is not None:
            await self._rooms.meanings.erase_left(keys)

    @asynccontextmanager
    async def _removing(self) -> AsyncIterator[None]:
        """A step in which items of any memory may go: what follows is owed, also where a later step fails."""
        try:
            yield
        finally:
            self._owed = True
            self._memory.all_changed()

    async def clear_away(self, *, wait: bool = True) -> None:
        """Remove the vectors of what is gone, and let go of the store's old pages.

        Args:
            wait: Until the files of the index have nothing of them any more; else that is done a while later.

        Raises:
            StoreUnavailable: Somebody still reads old pages, or a store cannot be written; asking again finishes it.
        """
        self._owed = True
        await self._remove_vectors(wait=wait)
        await self._rooms.log.read(self._let_go)
        self._owed = False

    async def _remove_vectors(self, *, wait: bool = False) -> None:
        store, log = self._rooms.store, self._rooms.log
        async with self._turn:
            while ids := await log.read(partial(store.vectors_gone, GONE_AT_ONCE)):
                making = self._memory.being_made
                known = [one for one in ids if one not in making]
                if self._rooms.meanings is not None:
                    await self._rooms.meanings.remove(ids, wait=wait)

                for first in range(0, len(known), AT_ONCE):

                    def done(some: Sequence[str] = known[first : first + AT_ONCE]) -> tuple[None, tuple[Draft, ...]]:
                        store.forget_gone(some)
                        return None, ()

                    await log.transact(done, wait=True)
                if len(known) < len(ids):  # the next look removes what is made just now
                    break

    # --- checkpoints --------------------------------------------------------------------------

    async def checkpoint(self, agent: AgentId | Principal) -> Checkpoint:
        """Copy all that an agent remembers; of more than `MAX_CHECKPOINTS`, the oldest goes.

        One that alone has something about somebody under a legal hold stays until the hold is released.

        Raises:
            Denied: Policy does not let it write to its memory.
            InputError: There is more than `MAX_COPY_ITEMS` or `MAX_COPY_BYTES`; nothing is changed.
            StoreUnavailable: It cannot be kept.
        """
        principal = self._memory.principal_of(agent)
        store, space = self._rooms.store, principal.name
        made = Checkpoint(self._rooms.ids.new(), space, self._memory.now_ms, 0)

        def copy() -> tuple[int, tuple[Draft, ...]]:
            self._refuse_large(space)
            count = store.put_checkpoint_of(made)
            trim_copies(store, space)
            return count, ()

        async with self._writing(principal, {"checkpoint": made.id}):
            count, _ = await self._rooms.log.transact(copy)
        return replace(made, items=count)

    async def checkpoints(self, agent: AgentId | Principal) -> Sequence[Checkpoint]:
        """The copies of an agent's memory, newest first; ids, times and counts alone.

        Raises:
            Denied: Policy does not let it read its memory.
            StoreUnavailable: They cannot be read.
        """
        principal = self._memory.principal_of(agent)
        async with self._rooms.guard.enforce(await self._memory.reading(principal, ContextQuery(), ASKED)) as permit:
            self._rooms.guard.authority.redeem(permit, ReadData)
            return await self.checkpoints_now(principal.name)

    async def checkpoints_now(self, space: AgentId) -> Sequence[Checkpoint]:
        """The same, for who has passed the gate."""
        return await self._rooms.log.read(partial(self._rooms.store.checkpoints_of, space))

    async def restore(self, agent: AgentId | Principal, checkpoint: str) -> int:
        """Put a copy in the place of what an agent remembers; returns how many items it has now.

        What was forgotten, expired or erased since is in no copy any more, and so does not come back.

        Raises:
            Denied: Policy does not let it write to its memory.
            InputError: There is no such copy, there is more than `MAX_COPY_ITEMS` or `MAX_COPY_BYTES` by now, or what would
                go is about somebody under a legal hold; nothing is changed.
            Unavailable: The store, the embedder or the index cannot be used; asking again finishes it.
        """
        principal = self._memory.principal_of(agent)
        store, space = self._rooms.store, principal.name

        def bring_back() -> tuple[int, tuple[Draft, ...]]:
            if all(one.id != checkpoint for one in store.checkpoints_of(space)):
                msg = "there is no such checkpoint of this agent's memory"
                raise InputError(msg, code="context.checkpoint", hint="`checkpoints` lists them")
            self._refuse_large(space)
            if store.held_items(store.not_in_copy(space, checkpoint)):
                msg = "something that is not in the copy is about one who is under a legal hold: nothing is changed"
                raise InputError(msg, code="privacy.held", hint="`symbi privacy list` says why")
            return store.restore_copy(space, checkpoint), ()

        async with self._writing(principal, {"restore": checkpoint}), self._turn:
            try:
                count, _ = await self._rooms.log.transact(bring_back)
            finally:
                self._memory.changed(space)
        await self._remove_vectors()
        await self.mend()
        return count

    def _refuse_large(self, space: AgentId) -> None:
        """Refuse to copy, or to put aside, more than is done at once; on the store's thread."""
        items, size = self._rooms.store.space_size(space)
        if items > MAX_COPY_ITEMS or size > MAX_COPY_BYTES:
            msg = (
                f"this memory has {items} items of {size} bytes, and no more than {MAX_COPY_ITEMS} of {MAX_COPY_BYTES} "
                f"are copied or put aside: nothing is changed"
            )
            raise InputError(msg, code="context.large", hint="`forget` makes it smaller")

    # --- for an operator ----------------------------------------------------------------------

    async def spaces(self) -> dict[AgentId, int]:
        """How many items each agent has."""
        store = self._rooms.store

        def look() -> dict[AgentId, int]:
            return {space: store.space_of(space).items for space in store.spaces()}

        return await self._rooms.log.read(look)

    async def everything(self, agent: AgentId, query: ContextQuery, after: str = "") -> Recalled:
        """What an agent remembers, whatever its label, newest first; for an operator who has passed the gate.

        Args:
            agent: Whose memory.
            query: What of it; `about` and `of` do not count.
            after: The item behind which it goes on; empty to begin.

        Raises:
            InputError: It is no agent's name, or the item is not there any more.
            DecryptionFailed, ConfigError, StoreUnavailable: Something cannot be opened or read.
        """
        space = check_space(agent)
        return await seen_by_operator(self._memory, space, replace(query, about="", of=AgentId("")), after)

    # --- mending ------------------------------------------------------------------------------

    async def mend(self) -> int:
        """Make the vectors that are due, each by a decision for its agent; returns how many there are now.

        One that policy does not let be written any more stays without.

        Raises:
            Unavailable: The store, the embedder or the index cannot be used.
        """
        await self._remove_vectors()
        made, after = 0, 0
        while self._rooms.meanings is not None:
            due = await self._rooms.log.read(partial(self._rooms.store.meaning_due, after, AT_ONCE))
            if not due:
                break
            after = due[-1].number
            for (space, _), rows in groupby(sorted(due, key=_decided_as), key=_decided_as):
                made += await self._mean(space, tuple(rows))
        return made

    async def index_is_empty(self) -> None:
        """Take note that the index of vectors was opened with nothing in it: where items have some, these are lost.

        Raises:
            StoreUnavailable: The store cannot be read.
        """
        if await self._rooms.log.read(partial(self._rooms.store.meanings_after, 0, 1)):
            self._lost = True
            self._memory.stirred.set()

    async def _mean(self, space: AgentId, rows: Sequence[Row]) -> int:
        with self._memory.making(row.id for row in rows):
            return await self._mean_there(space, [row.id for row in rows])

    async def _mean_there(self, space: AgentId, ids: Sequence[str]) -> int:
        """The same, of those that are still there."""
        meanings, vault, store = self._rooms.meanings, self._rooms.guard.vault, self._rooms.store
        assert meanings is not None
        opened = await self._rooms.log.read(
            lambda: [(row, opened_body(row, vault)) for row in store.items_of(space, ids)]
        )
        there = [(row, body) for row, body in opened if body is not None]
        if not there:
            return 0
        label = join(*(replace(body.label, subjects=()) for _, body in there))
        principal = self._memory.principal_of(space)
        try:
            async with self._writing(principal, {"again": [row.id for row, _ in there]}, label, embeds=True) as permit:
                vectors = await meanings.of_texts(permit, [body.content for _, body in there])
                await meanings.put(permit, [row for row, _ in there], vectors)
                await self._memory.meant([row.id for row, _ in there])
        except Denied:
            return 0  # it was permitted when they were written, and is no more
        except ConfigError:
            raise
        except InputError as error:  # one text of these that its provider refuses keeps no others waiting
            _log.warning("%d items of a memory got no vector, which is tried again: %s", len(there), error.code)
            return 0
        return len(there)

    @asynccontextmanager
    async def _writing(
        self, principal: Principal, content: JsonValue, label: Label = ASKED, *, embeds: bool = False
    ) -> AsyncIterator[Permit[WriteData]]:
        """A change of an agent's memory, behind the gate."""
        guard, data = self._rooms.guard, self._memory.data_of(principal.name, "any")
        embedder, remote = await self._memory.embedder() if embeds else ("", False)
        action = WriteData(
            principal=principal, data=data, label=label, content=content, purpose=data.purpose,
            embedder=embedder, remote=remote,
        )  # fmt: skip
        async with guard.enforce(action) as permit:
            guard.authority.redeem(permit, WriteData)
            yield permit

    async def tidy(self) -> None:
        """Sweep and mend. What cannot be done now stays noted, and is done by the next one: nobody waits for it."""
        try:
            if removed := await self.sweep():
                _log.info("memories were swept: %d items", removed)
            if self._lost:
                await make_again(self._memory)
                self._lost = False
            await self.mend()
        except (Unavailable, ConfigError, TimeLimit) as error:
            _log.warning("memories were not put in order, which is tried again: %s", error.code)

    async def close(self) -> None:
        """Remove what is not to last beyond this end: what a run has made known, or what has come of age meanwhile."""
        with anyio.move_on_after(CLOSE_S, shield=True):
            try:
                await self.sweep()
            except (Unavailable, ConfigError) as error:
                _log.warning("memories were not swept at the end, which the next start does: %s", error.code)

    async def run(self, wait: Callable[[float], Awaitable[None]] | None = None) -> None:
        """Sweep and mend on a cadence, and once a file makes memories shorter, until it is cancelled.

        Args:
            wait: Waits for some seconds, or until something is to be done.
        """
        pause = wait or self._pause
        while True:
            await pause(INTERVAL_S)
            self._memory.stirred = anyio.Event()
            await self.tidy()
            await self._memory.readers.sweep()

    async def _pause(self, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await self._memory.stirred.wait()


def _removed(agent: AgentId, items: int, reason: str) -> tuple[Draft, ...]:
    """What the trail says of items that go."""
    facts: dict[str, JsonValue] = {"items": items, "reason": reason}
    return (Draft(AuditEventType.MEMORY_REMOVED, agent or SYSTEM_AGENT, facts),) if items else ()


def _decided_as(row: Row) -> tuple[AgentId, str]:
    """What is decided on together: what of one label is refused takes nothing else with it."""
    return row.space, row.level
