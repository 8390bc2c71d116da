"""CTX-2: what an agent remembers, asked in different ways, among 100,000 items; with the cache and without."""

import random
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from symbi.audit.event import Draft
from symbi.bench.machine import describe_file_system
from symbi.bench.measure import Measurement, Scale, Target, latency, sample_async
from symbi.context.context import Context
from symbi.context.kinds import ContextQuery, MemoryKind
from symbi.errors import InternalError
from symbi.inference.static import BUILTIN
from symbi.knowledge.vectors import VectorSpace
from symbi.testing.context import ManyItems
from symbi.testing.contracts_vectors import open_permits
from symbi.testing.edge import edge_vectors
from symbi.testing.runtime import open_in
from symbi.types import AgentId

ITEMS: Final = 100_000
ASKED: Final = 2_000  # questions of each sort
AGENT: Final = AgentId("anna")
WORDS: Final = 20_000  # of which items are made, the frequent ones far more often than the others
WORDS_OF_ONE: Final = 14
AT_ONCE: Final = 2_000
TAGS: Final = 400
_FILE: Final = "agent anna() { with { 1 } }"
_POLICIES: Final = "permit (principal, action, resource);"
_SPACE: Final = VectorSpace(BUILTIN.name, BUILTIN.digest, BUILTIN.dimension)
_METHOD: Final = (
    f"an open runtime, durable store on {{on}}, embedded index, built-in embedder; {{items:,}} items of {WORDS_OF_ONE} words"
    f" each of {WORDS:,} by Zipf, with one of {TAGS} tags; `retrieve_context` of one agent, 20 items at most, one question"
    " after the other, each different, with the index in order: the lease is used, levels are looked up, rows are read, scored and opened"
)
_SORTS: Final = ("newest of a kind", "words", "tags", "time", "about", "combined")


async def context(scale: Scale) -> list[Measurement]:
    """Latency of each sort of question, and of those that were asked before."""
    items, asked = scale.of(ITEMS, least=500), scale.of(ASKED, least=20)
    rows: list[Measurement] = []
    with tempfile.TemporaryDirectory(prefix="symbi-bench-") as name:
        folder = Path(name)
        method = _METHOD.format(on=describe_file_system(folder), items=items)
        async with open_in(folder, _FILE, policies=_POLICIES) as running:
            await _fill(running.runtime.context, items)
        async with edge_vectors(open_permits(), folder / ".symbi" / "vectors" / "memory", _SPACE) as index:
            await index.optimize()  # as it does by itself in the background, which would be measured too
        for cached in (False, True):
            config = "" if cached else "[context]\ncontext_cache_size = 0\n"
            async with open_in(folder, _FILE, config=config, policies=_POLICIES) as running:
                rows += await _asked(running.runtime.context, asked, method, cached=cached)
    return rows


async def _fill(opened: Context, items: int) -> None:
    """Put items into the store as they would be, many in one transaction, and have their vectors made."""
    memory = opened.memory
    many = ManyItems(AGENT, WORDS, WORDS_OF_ONE, TAGS)
    now_ms = memory.now_ms
    for first in range(0, items, AT_ONCE):
        count = min(AT_ONCE, items - first)
        ids = [memory.rooms.ids.new() for _ in range(count)]

        def put(first: int = first, ids: Sequence[str] = ids) -> tuple[None, tuple[Draft, ...]]:
            many.put(memory.rooms.store, ids, first, now_ms - items)
            return None, ()

        await memory.rooms.log.transact(put)
    memory.all_changed()
    mended = await opened.keeping.mend()
    if mended != items:
        msg = f"{mended} of {items} items have a vector"
        raise InternalError(msg, code="internal.bench")


async def _asked(opened: Context, count: int, method: str, *, cached: bool) -> list[Measurement]:
    rows: list[Measurement] = []
    target = Target(5.0, at_least=False, note="ours")
    for sort in _SORTS:
        questions = [_question(sort, number, opened.memory.now_ms) for number in range(count)]

        async def ask(number: int, questions: Sequence[ContextQuery] = questions) -> None:
            await opened.retrieve_context(AGENT, questions[number % count])

        before = opened.cache
        if cached:  # each at once after it was asked first, for answers are kept for a while
            durations: list[int] = []
            for number in range(count):
                durations += await sample_async(partial(_same, ask, number), 1, warm=1)
        else:
            durations = await sample_async(ask, count, warm=min(20, count))
        hits = opened.cache.hits - before.hits
        if cached and hits < count:
            msg = f"{hits} of {count} questions were answered by the cache"
            raise InternalError(msg, code="internal.bench")
        how = f"{method}; {'asked before: answered by the cache' if cached else 'no cache'}"
        metric = f"retrieval, {sort}, {'cached' if cached else 'no cache'}"
        rows.append(latency("CTX-2", metric, durations, unit="ms", target=target, method=how))
    return rows


async def _same(ask: Callable[[int], Awaitable[None]], number: int, _time: int) -> None:
    await ask(number)


def _question(sort: str, number: int, now_ms: int) -> ContextQuery:
    """A question that no other of its sort is."""
    chance = random.Random(number)  # noqa: S311 - likewise
    rare, common = f"word{chance.randrange(200, WORDS)}", f"word{chance.randrange(1, 50)}"
    match sort:
        case "newest of a kind":
            return ContextQuery(kinds=(MemoryKind.SHORT_TERM,), min_importance=(number % 9) / 10 + number / 1e6)
        case "words":
            return ContextQuery(text=f"{rare} {common}" if number % 2 else rare)
        case "tags":
            return ContextQuery(tags=(f"t{number % TAGS}",), min_importance=number / 1e6)
        case "time":
            return ContextQuery(until_ms=now_ms - number * 40, since_ms=now_ms - number * 40 - 200_000)
        case "about":
            return ContextQuery(about=f"{rare} {common} {number}")
        case _:
            return ContextQuery(about=f"{rare} {number}", text=common, kinds=(MemoryKind.LONG_TERM,))
