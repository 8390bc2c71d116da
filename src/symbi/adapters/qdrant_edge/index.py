"""`EdgeVectors`: the index of one collection on Qdrant's engine.

Writes go one after another; reads wait for none of the work that puts the index in order. That is done on a copy of the
files, by an engine of its own: writes wait while the files are copied, what is written after that is done again in
the copy, and then the copy takes the place of what it was made from. Whenever the process ends, one of the two counts.
"""

import logging
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from uuid import UUID

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from symbi.adapters.qdrant_edge.copying import copy_tree, room_to_rewrite
from symbi.adapters.qdrant_edge.folder import CollectionFolder, check_space, copy_whole
from symbi.adapters.qdrant_edge.process import EngineProcess
from symbi.adapters.qdrant_edge.spelling import AskedScope, about, as_hit, as_point, as_scope
from symbi.errors import InputError, StoreUnavailable, Unavailable
from symbi.guard.action import WriteData
from symbi.guard.permit import Authority, Permit
from symbi.knowledge.config import VectorConfig, kib
from symbi.knowledge.permits import check_read, check_write
from symbi.knowledge.port import ReadPermit
from symbi.knowledge.vectors import (
    IndexStats,
    Scope,
    VectorHit,
    VectorPoint,
    VectorQuery,
    VectorSpace,
    unit,
)

BATCH: Final = 256  # points that the engine takes at a time; a query waits for one such batch at most
PAGE: Final = 1_000
FLUSH_POINTS: Final = 50_000  # written since the log was emptied; it is read again after a crash
SEGMENT_POINTS: Final = 500_000  # of a piece, beyond which it is merged no more
FEW: Final = 500  # points that are done again in a copy while writes wait
MANY: Final = 8  # pieces that a query goes through
LATE: Final = 20  # of so many points one may be in no graph, for to build one all files are copied
_LOG: Final = logging.getLogger(__name__)
_EVERYTHING: Final = (None, (), None)


class EdgeVectors:
    """`symbi.knowledge.port.VectorIndex`, `VectorUpkeep` and `SubjectVectors`; an async context manager that owns a folder.

    Args:
        authority: Where permits are checked.
        folder: Of this collection alone; made if it is not there.
        space: Of which vectors.
        config: How it is built and searched.
        upkeep: Whether it puts itself in order, in the background, whenever enough was written.
    """

    def __init__(
        self,
        authority: Authority,
        folder: Path,
        space: VectorSpace,
        config: VectorConfig | None = None,
        *,
        upkeep: bool = False,
    ) -> None:
        self._authority = authority
        self._folder = CollectionFolder(folder)
        self._space = space
        self._config = config or VectorConfig()
        self._engine: EngineProcess | None = None
        self._write = anyio.Lock()
        self._restart = anyio.Lock()
        self._order = anyio.Lock()
        self._touched: set[UUID] | None = None  # written since the files were copied; None where none are
        self._upkeep = upkeep
        self._tasks: TaskGroup | None = None
        self._much = anyio.Event()  # enough was written that it may be worth putting in order
        self._written = 0  # since it was looked at last
        self._unflushed = 0
        self._dead = 0  # points that were deleted or replaced since it was put in order last
        self._marks = 0  # how often it was asked for to be written anew
        self._deletions = 0
        self._optimizing = False
        self._closed = True

    async def __aenter__(self) -> Self:
        """Take the folder and start the engine.

        Raises:
            ConfigError: The folder has vectors of another space.
            StoreUnavailable: Another process owns the folder, or the engine cannot be started.
        """
        await anyio.to_thread.run_sync(self._folder.take, self._space)
        self._dead, self._closed = await anyio.to_thread.run_sync(self._folder.dead), False
        try:
            await self._asked()
            if self._upkeep:
                self._tasks = anyio.create_task_group()
                await self._tasks.__aenter__()
                self._tasks.start_soon(self._keep_in_order)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what is in memory, end the engine, give the folder back."""
        self._closed = True
        tasks, self._tasks = self._tasks, None
        try:
            if tasks is not None:  # left without an error, for it has none of its own
                tasks.cancel_scope.cancel("the index is closed")
                await tasks.__aexit__(None, None, None)
        finally:
            with anyio.CancelScope(shield=True):
                async with self._write:  # nothing takes the place of the engine from here on
                    engine, self._engine = self._engine, None
                    try:
                        if engine is not None:
                            await engine.__aexit__(None, None, None)
                            await anyio.to_thread.run_sync(self._folder.keep_dead, self._dead)
                    finally:
                        self._folder.give_back()

    # --- VectorIndex --------------------------------------------------------------------------------

    async def upsert(self, permit: Permit[WriteData], points: Sequence[VectorPoint]) -> None:
        """Put points in."""
        check_write(self._authority, permit, {one.namespace for one in points})
        for one in points:
            self._space.check(one.vector)
        last = list({one.id: one for one in points}.values())
        async with self._write:
            for first in range(0, len(last), BATCH):
                part = last[first : first + BATCH]
                self._note(one.id for one in part)
                self._dead += await self._put([as_point(one) for one in part])
                await self._wrote(len(part))

    async def query(self, permit: ReadPermit, query: VectorQuery) -> Sequence[VectorHit]:
        """The nearest points."""
        check_read(self._authority, permit, query.scope.namespaces)
        self._space.check(query.vector)
        if not query.vector.any():
            return ()
        terms = {
            "oversampling": self._config.candidates(query.k, query.oversampling),
            "exact": query.exact,
            "with_vectors": query.with_vectors,
        }
        found = await (await self._asked()).ask(
            "query", unit(query.vector).tobytes(), query.k, as_scope(query.scope), terms
        )
        there = {one.text: one for one in query.scope.namespaces}
        hits = [as_hit(there, *one) for one in found]
        return sorted(hits, key=lambda one: (-one.score, one.id))

    async def delete(self, permit: Permit[WriteData], scope: Scope) -> int:
        """Remove points."""
        check_write(self._authority, permit, scope.namespaces)
        return await self._delete(as_scope(scope))

    async def count(self, permit: ReadPermit, scope: Scope) -> int:
        """How many there are."""
        check_read(self._authority, permit, scope.namespaces)
        count: int = await (await self._asked()).ask("count", as_scope(scope))
        return count

    async def ids(
        self, permit: ReadPermit, scope: Scope, after: UUID | None = None, limit: int = 1000
    ) -> Sequence[UUID]:
        """Ids in order."""
        check_read(self._authority, permit, scope.namespaces)
        if after is not None and after.int == 2**128 - 1:
            return ()
        found = await (await self._asked()).ask("ids", as_scope(scope), None if after is None else after.bytes, limit)
        return [UUID(bytes=one) for one in found]

    # --- SubjectVectors -----------------------------------------------------------------------------

    async def count_subjects(self, subjects: Sequence[str]) -> int:
        """How many points are about some people."""
        if not subjects:
            return 0
        count: int = await (await self._asked()).ask("count", about(subjects))
        return count

    async def erase_subjects(self, subjects: Sequence[str], documents: Sequence[str] = ()) -> int:
        """Remove points about some people, and write all others anew, so that nothing of them stays in a file."""
        if not (subjects or documents):
            return 0
        gone = await self._take_out(about(subjects, documents))
        if self._folder.holds_gone():
            async with self._order:
                if self._folder.holds_gone():  # else who was at it before has written all anew
                    await self._rebuild(fresh=True)
        return gone

    async def remove_subjects(self, subjects: Sequence[str]) -> int:
        """Remove points; all others are written anew in the background, once for all that went by then."""
        gone = await self._take_out(about(subjects)) if subjects else 0
        if gone:
            self._much.set()
        return gone

    # --- VectorUpkeep -------------------------------------------------------------------------------

    async def optimize(self) -> bool:
        """Put it in order."""
        async with self._order:
            marked = self._folder.is_marked()
            return await self._rebuild(fresh=marked) if marked or await self._worth_it() else False

    async def snapshot(self, target: Path) -> None:
        """Write a copy."""
        async with self._write:
            source = await self._settled()
            points, *_ = await (await self._asked()).ask("info")
            await anyio.to_thread.run_sync(copy_whole, source, target, self._space, points)

    async def restore(self, source: Path) -> None:
        """Put a copy in the place of what is there."""
        async with self._order, self._write:
            wanted = await anyio.to_thread.run_sync(check_space, source, self._space)
            if not (source / "shard").is_dir():
                raise InputError(f"`{source}` is no copy of vectors: it has no shard", code="vectors.snapshot")
            generation = self._folder.next()
            await self._keep_left()  # a copy may hold what was deleted before it was made
            async with AsyncExitStack() as stack:
                stack.push_async_callback(_remove, generation)
                await anyio.to_thread.run_sync(copy_tree, source / "shard", generation)
                engine = await stack.enter_async_context(EngineProcess())
                try:
                    await engine.load(generation, self._terms())
                    found, *_ = await engine.ask("info")
                except StoreUnavailable as error:
                    raise InputError(
                        f"`{source}` is no copy of vectors: {error.message}", code="vectors.snapshot"
                    ) from error
                if wanted is not None and found != wanted:
                    msg = f"`{source}` is no whole copy: it has {found} vectors of {wanted}"
                    raise InputError(msg, code="vectors.snapshot")
                await self._switch(engine, generation)
                stack.pop_all()

    async def stats(self) -> IndexStats:
        """How it stands."""
        points, indexed, segments = await (await self._asked()).ask("info")
        size = await anyio.to_thread.run_sync(self._folder.size_bytes)
        return IndexStats(points, min(points, indexed), segments, size, self._optimizing)

    @property
    def engine_pid(self) -> int:
        """Of the engine's process, to measure it by; 0 where there is none."""
        return self._engine.pid if self._engine is not None else 0

    # --- parts ----------------------------------------------------------------------------------------

    async def _asked(self) -> EngineProcess:
        """The engine; started, or started anew where it has ended: its log has all that it acknowledged."""
        engine = self._engine
        if engine is not None and engine.alive:
            return engine
        async with self._restart:
            if self._closed:
                raise StoreUnavailable("the index of vectors is closed")
            engine = self._engine
            if engine is not None and engine.alive:
                return engine
            if engine is not None:
                await engine.end()  # of one that has ended by itself the pipes are left
            async with AsyncExitStack() as stack:
                current = self._folder.current()
                if current is not None:
                    engine = await stack.enter_async_context(EngineProcess())
                    await engine.load(current, self._terms())
                    if self._closed:  # meanwhile
                        raise StoreUnavailable("the index of vectors is closed")
                else:
                    made = self._folder.begin()
                    stack.push_async_callback(_remove, made)
                    engine = await stack.enter_async_context(EngineProcess())
                    await engine.ask("create", str(made), self._terms())
                    await anyio.to_thread.run_sync(self._folder.count_on, made)
                stack.pop_all()
            self._engine = engine
            return engine

    def _terms(self) -> Mapping[str, object]:
        config, dimension = self._config, self._space.dimension
        return {
            **asdict(config),
            "dimension": dimension,
            "scan_kib": kib(config.scan_below, dimension),
            "graph_kib": kib(config.graph_from, dimension),
            "segment_kib": kib(SEGMENT_POINTS, dimension),
        }

    def _note(self, names: Any) -> None:
        if self._touched is not None:
            self._touched.update(names)

    async def _wrote(self, count: int) -> None:
        self._unflushed += count
        self._written += count
        if self._written >= self._config.graph_from:
            self._much.set()
        if self._unflushed >= FLUSH_POINTS:
            await (await self._asked()).ask("flush")
            self._unflushed = 0

    async def _put(self, points: Sequence[object]) -> int:
        """Put points in; how many it replaced, which stay in their pieces and files, as those do that are deleted."""
        replaced: int | None = await (await self._asked()).ask("upsert", points, False)
        if replaced is None:
            await self._keep_left()  # before, for whatever ends the process afterwards
            replaced = await (await self._asked()).ask("upsert", points, True)
            assert replaced is not None
        return replaced

    async def _take_out(self, scope: AskedScope) -> int:
        """Remove points about some, and have it noted that what was in the files is to go from them."""
        if await (await self._asked()).ask("count", scope):
            await self._mark()
        gone = await self._delete(scope)
        if gone:
            await self._mark()  # again: a copy may have been begun in between, and has them in its files
        return gone

    async def _keep_left(self) -> None:
        self._deletions += 1
        await anyio.to_thread.run_sync(self._folder.keep_left)

    async def _mark(self) -> None:
        self._marks += 1
        await anyio.to_thread.run_sync(self._folder.mark)

    async def _delete(self, scope: AskedScope) -> int:
        gone = 0
        async with self._write:
            while found := await (await self._asked()).ask("ids", scope, None, PAGE):
                self._note(UUID(bytes=one) for one in found)
                await self._keep_left()
                await (await self._asked()).ask("delete", found)
                gone += len(found)
                self._dead += len(found)
                await self._wrote(len(found))
                if len(found) < PAGE:
                    break  # there are no more, and nobody writes meanwhile
        return gone

    async def _worth_it(self) -> bool:
        points, indexed, segments = map(int, await (await self._asked()).ask("info"))
        late = max(self._config.graph_from, points // LATE)
        outside = min(points, points - indexed + self._dead)  # for the engine counts dead ones as indexed
        return outside >= late or self._dead > points / 4 or segments > MANY

    async def _keep_in_order(self) -> None:
        self._much.set()  # what was written before it was opened counts too
        while True:
            await self._much.wait()
            self._much, self._written = anyio.Event(), 0
            try:
                await self.optimize()
            except Unavailable as error:
                _LOG.warning(
                    "the vectors are not put in order: %s", error
                )  # what is there stands; the next writes try again

    async def _settled(self) -> Path:
        """The files, with all that was written in them."""
        await (await self._asked()).ask("flush")
        self._unflushed = 0
        current = self._folder.current()
        assert current is not None
        return current

    async def _rebuild(self, *, fresh: bool) -> bool:
        """Have another engine make it anew: from the files, or where nothing of them is to stay, from the points."""
        self._optimizing, marks, deletions = True, self._marks, self._deletions
        generation = self._folder.next()
        try:
            async with AsyncExitStack() as stack:
                stack.push_async_callback(_remove, generation)
                engine = await stack.enter_async_context(EngineProcess())
                if fresh:
                    await engine.ask("create", str(generation), self._terms())
                async with self._write:
                    source = await self._settled()
                    if fresh:
                        await anyio.to_thread.run_sync(room_to_rewrite, source)
                    else:
                        await anyio.to_thread.run_sync(copy_tree, source, generation)
                    self._touched, dead = set(), self._dead
                if fresh:
                    await self._copy_points(engine)
                else:
                    await engine.load(generation, self._terms())
                changed = await engine.ask("optimize", wait_s=None)
                while len(self._touched) > FEW:
                    names, self._touched = self._touched, set()
                    await self._do_again(engine, [one.bytes for one in names])
                async with self._write:
                    await self._do_again(engine, [one.bytes for one in self._touched])
                    await engine.ask("flush")
                    await self._switch(engine, generation)
                    self._dead -= dead
                stack.pop_all()
        finally:
            self._optimizing, self._touched = False, None
        if fresh:
            await anyio.to_thread.run_sync(self._folder.wipe)  # else it stays marked, and what was erased is not gone
            async with self._write:  # in which alone something is deleted or replaced
                if self._closed:  # and somebody else may own the folder
                    raise StoreUnavailable("the index of vectors is closed")
                if marks == self._marks:  # else something was erased that may be in these files, too
                    self._folder.unmark()
                if deletions == self._deletions:
                    await anyio.to_thread.run_sync(self._folder.none_left)
        return fresh or bool(changed)

    async def _copy_points(self, engine: EngineProcess) -> None:
        after: bytes | None = None
        while found := await (await self._asked()).ask("ids", _EVERYTHING, after, BATCH):
            await self._do_again(engine, found)
            after = found[-1]

    async def _do_again(self, engine: EngineProcess, names: Sequence[bytes]) -> None:
        """Bring points of another engine to where they are here."""
        for first in range(0, len(names), BATCH):
            part = names[first : first + BATCH]
            found = await (await self._asked()).ask("records", part)
            there = {one[0] for one in found}
            if found:
                await engine.ask("put", found)
            if gone := [one for one in part if one not in there]:
                await engine.ask("delete", gone)

    async def _switch(self, engine: EngineProcess, generation: Path) -> None:
        """Have another engine answer from here on; whoever has asked the one before still gets its answer."""
        async with self._restart:  # else who starts one that has ended would bring the files back that go here
            await self._take_its_place(engine, generation)

    async def _take_its_place(self, engine: EngineProcess, generation: Path) -> None:
        with anyio.CancelScope(shield=True):
            if self._closed:
                raise StoreUnavailable("the index of vectors is closed")
            await anyio.to_thread.run_sync(self._folder.count_on, generation)
            before, self._engine = self._engine, engine  # nothing from here on may fail: the new one counts
            if before is not None:
                await before.__aexit__(None, None, None)
            await anyio.to_thread.run_sync(self._folder.tidy)


async def _remove(generation: Path) -> None:
    """Take away what is not counted on, also after a cancellation; what cannot be removed now goes at the next start."""
    with anyio.CancelScope(shield=True):
        await anyio.to_thread.run_sync(partial(shutil.rmtree, generation, ignore_errors=True))
