"""When retention acts: at the next opening, at the end of a run and by the errands of a runtime that stays, whichever is first."""

import json
from contextlib import suppress

import anyio
import pytest

from symbi.context.keeping import INTERVAL_S
from symbi.context.kinds import ContextItem, ContextQuery, MemoryKind, MemoryTerms
from symbi.context.memory import SWEEP_GAP_MS
from symbi.context.surplus import AT_A_WRITE
from symbi.dsl.spec import MemorySpec
from symbi.guard.vault import Hold
from symbi.testing.clock import ManualClock
from symbi.testing.context import open_memory
from symbi.testing.runtime import open_in
from symbi.types import AgentId, Label

pytestmark = pytest.mark.anyio

ANNA, BEN = AgentId("anna"), AgentId("ben")
JANE = Label(subjects=("jane@example.com",))
AGENT = "agent anna() { with { 1 } }"
SHORT = 'memory notes { retention "2d" } agent anna() { with { 1 } }'
ALL = '@id("all") permit (principal, action, resource);'
DAY_S = 86_400


def bytes_in(folder):
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def kept_before(tmp_path, clock):
    """Items of two agents, older than what a file is to say later."""
    async with open_in(tmp_path, AGENT, policies=ALL, clock=clock) as running:
        for agent in (ANNA, BEN):
            await running.runtime.context.store_context(agent, ContextItem(f"gooseberry of {agent}"))
        await running.runtime.context.checkpoint(ANNA)
    clock.advance(3 * DAY_S)


async def test_a_run_that_ends_at_once_leaves_no_byte_of_what_its_block_lets_last_no_longer(tmp_path):
    clock = ManualClock()
    await kept_before(tmp_path, clock)
    assert b"gooseberry of anna" in bytes_in(tmp_path)
    async with open_in(tmp_path, SHORT, policies=ALL, clock=clock) as running:
        (spec,) = running.compiled.agents
        assert (await running.runtime.run(running.compiled, spec, {})).output == 1
    assert b"gooseberry of anna" not in bytes_in(tmp_path)
    assert b"gooseberry of ben" in bytes_in(tmp_path)


async def test_what_comes_of_age_while_it_runs_is_gone_at_the_end(tmp_path):
    clock = ManualClock()
    async with open_in(tmp_path, SHORT, policies=ALL, clock=clock) as running:
        running.runtime.context.declare(running.compiled)
        await running.runtime.context.store_context(ANNA, ContextItem("gooseberry"))
        assert await running.runtime.context.keeping.sweep() == 0
        clock.advance(3 * DAY_S)
        assert b"gooseberry" in bytes_in(tmp_path)
    assert b"gooseberry" not in bytes_in(tmp_path)


async def test_what_a_file_said_last_holds_at_the_next_opening_before_any_file_is_read(tmp_path):
    clock = ManualClock()
    async with open_in(tmp_path, SHORT, policies=ALL, clock=clock) as running:
        running.runtime.context.declare(running.compiled)
    await kept_before(tmp_path, clock)  # by programs, which know of no file
    assert b"gooseberry of anna" in bytes_in(tmp_path)
    async with open_in(tmp_path, AGENT, policies=ALL, clock=clock) as running:
        context = running.runtime.context
        assert [one.items for one in await context.checkpoints(ANNA)] == [0]
        assert await context.keeping.spaces() == {BEN: 1}
        running.runtime.context.declare(running.compiled)  # the block is gone
    async with open_in(tmp_path, AGENT, policies=ALL, clock=clock) as running:
        memory = running.runtime.context.memory
        assert memory.oldest_of(ANNA) == memory.oldest_of(BEN)


async def test_a_runtime_that_stays_looks_once_a_file_makes_a_memory_shorter_and_once_a_run_ends(monkeypatch):
    clock, swept = ManualClock(), []
    async with open_memory(clock=clock) as open_:
        memory, keeping = open_.memory, open_.keeping

        async def tidy():
            swept.append(await keeping.sweep())

        monkeypatch.setattr(keeping, "tidy", tidy)
        for agent in (ANNA, BEN):
            await memory.store_context(agent, ContextItem("old"))
        clock.advance(3 * DAY_S)

        async def looks(*, due):
            """Whether it would look at once, of what is asked of it."""
            assert memory.stirred.is_set() == due
            if due:

                async def at_once(seconds):
                    if swept_before < len(swept):
                        raise EOFError
                    assert seconds == INTERVAL_S

                swept_before = len(swept)
                with pytest.raises(EOFError):
                    await keeping.run(at_once)

        await looks(due=False)
        memory.declare(ANNA, MemorySpec(retention_days=2.0))
        await looks(due=True)
        assert swept == [1]
        memory.declare(ANNA, MemorySpec(retention_days=2.0))
        await looks(due=False)
        for agent, later_s, due in [(ANNA, 1, False), (BEN, 120, False), (ANNA, 0, True), (ANNA, 1, False)]:
            clock.advance(later_s)
            memory.ended(agent)
            await looks(due=due)
        assert swept == [1, 0]
        assert memory.now_ms - memory.swept_ms < SWEEP_GAP_MS


async def test_a_look_at_what_is_due_commits_nothing_where_there_is_nothing():
    async with open_memory() as open_:
        await open_.memory.store_context(ANNA, ContextItem("stays"))
        before = open_.gate.log.sequence, open_.gate.store._db.total_changes
        assert await open_.keeping.sweep() == 0
        assert (open_.gate.log.sequence, open_.gate.store._db.total_changes) == before


async def hold_jane(gate):
    hold = Hold(gate.guard.vault.pseudonym("jane@example.com"), b"case 7", "2026-01-01T00:00:00Z")
    await gate.log.transact(lambda: (gate.store.set_hold(hold), ()))


async def release_jane(gate):
    pseudonym = gate.guard.vault.pseudonym("jane@example.com")
    await gate.log.transact(lambda: (gate.store.release_hold(pseudonym), ()))


class Costs:
    """What SQLite does: how many statements, and how many steps of its machine."""

    def __init__(self, store):
        self.store, self.statements, self.steps = store, 0, 0

    def __enter__(self):
        def step():
            self.steps += 1
            return 0

        def statement(_text):
            self.statements += 1

        self.store._db.set_progress_handler(step, 1)
        self.store._db.set_trace_callback(statement)
        return self

    def __exit__(self, *_):
        self.store._db.set_progress_handler(None, 0)
        self.store._db.set_trace_callback(None)


async def cost_of(open_, act):
    with Costs(open_.gate.store) as costs:
        await act()
    return costs.statements, costs.steps


async def test_what_is_held_beyond_the_bound_makes_no_further_write_cost_more(tmp_path, monkeypatch):
    monkeypatch.setattr("symbi.audit.log.LINGER_S", 3600.0)  # what nobody waits for goes with the next, however slow
    monkeypatch.setattr("symbi.context.surplus.MOST_OF", {MemoryKind.SHORT_TERM: 3})
    async with open_memory(folder=tmp_path / "data", keys=tmp_path / "keys") as open_:
        memory = open_.memory

        async def write(number, label=JANE):
            await memory.store_context(ANNA, ContextItem(f"note {number}", MemoryKind.SHORT_TERM, label=label))

        await write(0)
        await hold_jane(open_.gate)
        costs = []
        for count in (10, 40, 160):
            while (await open_.keeping.spaces())[ANNA] < count:
                await write(count)
            costs.append(await cost_of(open_, lambda: write("one more")))
        (few, few_steps), _, (many, many_steps) = costs
        assert many <= few
        assert many_steps < 1.2 * few_steps  # of sixteen times as many
        assert await open_.keeping.sweep() == 0
        await release_jane(open_.gate)
        await write("after")  # takes the first few with it, and the sweep the rest
        left = (await open_.keeping.spaces())[ANNA]
        assert await open_.keeping.sweep() == left - 3 > AT_A_WRITE
        found = await memory.retrieve_context(ANNA, ContextQuery())
        assert [one.content for one in found] == ["note after", "note one more", "note 160"]
        assert await open_.gate.log.read(open_.gate.store.noted_surplus) == []


async def test_copies_that_are_held_make_no_further_copy_cost_more(tmp_path, monkeypatch):
    monkeypatch.setattr("symbi.audit.log.LINGER_S", 3600.0)  # what nobody waits for goes with the next, however slow
    costs = []
    for count in (8, 24):
        monkeypatch.setattr("symbi.context.surplus.MAX_CHECKPOINTS", 100)
        async with open_memory(folder=tmp_path / f"{count}", keys=tmp_path / "keys") as open_:
            memory, keeping = open_.memory, open_.keeping
            empty = await keeping.checkpoint(ANNA)
            for number in range(count):
                await memory.store_context(ANNA, ContextItem(f"note {number}", label=JANE))
                await keeping.checkpoint(ANNA)
                await keeping.restore(ANNA, empty.id)
            await hold_jane(open_.gate)
            monkeypatch.setattr("symbi.context.surplus.MAX_CHECKPOINTS", 2)
            costs.append(await cost_of(open_, lambda: keeping.checkpoint(ANNA)))  # noqa: B023 - called at once
            await keeping.sweep()
            there = [one.items for one in await keeping.checkpoints(ANNA)]
            assert there == [0, *[1] * count]  # the empty one beyond the bound is gone, and none that is held
            await release_jane(open_.gate)
            await keeping.sweep()
            assert [one.items for one in await keeping.checkpoints(ANNA)] == [0, 1]
    (few, few_steps), (many, many_steps) = costs
    assert many == few
    assert many_steps < 1.2 * few_steps


async def test_what_was_kept_again_outlasts_its_older_copy_and_a_copy_outlasts_what_was_put_back():
    clock = ManualClock()
    async with open_memory(clock=clock, terms=lambda _agent: MemoryTerms(retention_days=30.0)) as open_:
        memory, keeping = open_.memory, open_.keeping

        async def there():
            return len(await memory.retrieve_context(ANNA, ContextQuery(text="gooseberry")))

        async def copies():
            return [one.items for one in await keeping.checkpoints(ANNA)]

        one = await memory.store_context(ANNA, ContextItem("gooseberry"))
        older = await keeping.checkpoint(ANNA)
        clock.advance(20 * DAY_S)
        assert await memory.store_context(ANNA, ContextItem("Gooseberry")) == one
        await keeping.checkpoint(ANNA)
        clock.advance(11 * DAY_S)
        assert await keeping.sweep() == 1  # the copy alone
        assert (await there(), await copies(), len(open_.index.points)) == (1, [1, 0], 1)
        assert await keeping.restore(ANNA, older.id) == 0
        assert await keeping.sweep() == 0
        assert (await there(), await copies(), len(open_.index.points)) == (0, [1, 0], 0)
        clock.advance(20 * DAY_S)
        assert await keeping.sweep() == 1
        assert await copies() == [0, 0]


@pytest.mark.parametrize("how", ["cancelled", "error"])
async def test_a_runtime_that_is_cancelled_or_fails_removes_what_is_due_and_closes_its_leases(tmp_path, how):
    clock, seen = ManualClock(), []
    with anyio.CancelScope() as scope, suppress(EOFError):
        async with open_in(tmp_path, SHORT, policies=ALL, clock=clock) as running:
            context = running.runtime.context
            context.declare(running.compiled)
            await context.store_context(ANNA, ContextItem("gooseberry"))
            assert len(await context.retrieve_context(ANNA, ContextQuery())) == 1
            clock.advance(3 * DAY_S)
            seen.append(b"gooseberry" in bytes_in(tmp_path))
            if how == "error":
                raise EOFError
            scope.cancel()
            await anyio.sleep_forever()
    assert seen == [True]
    assert b"gooseberry" not in bytes_in(tmp_path)
    async with open_in(tmp_path, SHORT, policies=ALL, clock=clock) as running:
        log = running.runtime.rooms.world.log
        records = [json.loads(one.record) for one in await log.read(lambda: log._store.read(1))]
        kinds = [one["event_type"] for one in records]
        assert kinds.count("lease.granted") == kinds.count("lease.closed") == 2


async def test_what_has_gone_is_in_no_answer_of_before_and_nothing_of_it_comes_back_with_the_same():
    clock, old = ManualClock(), Label(sources=("strangers",))
    async with open_memory(clock=clock, terms=lambda _agent: MemoryTerms(retention_days=2.0)) as open_:
        memory = open_.memory

        async def there():
            found = await memory.retrieve_context(ANNA, ContextQuery())
            return [(one.content, one.times, one.importance, one.label.sources) for one in found]

        await memory.store_context(ANNA, ContextItem("gooseberry", importance=1.0, label=old))
        await memory.store_context(ANNA, ContextItem("note", MemoryKind.WORKING))
        clock.advance(DAY_S - 5)
        assert len(await there()) == 2
        clock.advance(5)
        assert [one[0] for one in await there()] == ["gooseberry"]
        clock.advance(DAY_S - 5)
        assert len(await there()) == 1
        clock.advance(6)
        assert await there() == []
        for times in (1, 2):
            await memory.store_context(ANNA, ContextItem("gooseberry", importance=0.1))
            assert await there() == [("gooseberry", times, 0.1, ())]
        await open_.keeping.sweep()
        assert await there() == [("gooseberry", 2, 0.1, ())]
