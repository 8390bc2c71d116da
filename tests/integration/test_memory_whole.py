"""What an answer of a memory must not lose, and must not bear: items, other people's changes, a failure on the way."""

import pytest

from symbi.adapters.sqlite.context import MemoryTable
from symbi.api import memory as door
from symbi.context.finding import AT_A_TIME
from symbi.context.kinds import ContextItem, ContextQuery, MemoryKind
from symbi.errors import InputError, PermitRefused, RateLimited, ScriptFailed, StoreUnavailable, TimeLimit
from symbi.guard.lease import Lease
from symbi.testing.clock import ManualClock
from symbi.testing.context import WordEmbedder, open_memory
from symbi.testing.runtime import open_in
from symbi.types import AgentId, Label

pytestmark = pytest.mark.anyio

ANNA, BEN = AgentId("anna"), AgentId("ben")
JANE = Label(subjects=("jane@example.com",))
ALL = '@id("all") permit (principal, action, resource);'


async def contents(open_, **asked):
    return [one.content for one in await open_.memory.retrieve_context(ANNA, ContextQuery(**asked))]


async def test_who_alters_an_answer_alters_nobody_elses():
    async with open_memory() as open_:
        memory = open_.memory
        await memory.store_context(ANNA, ContextItem({"list": ["gooseberry"]}, MemoryKind.SHARED))
        for agent in (BEN, BEN, AgentId("carol")):
            (found,) = await memory.retrieve_context(agent, ContextQuery(of=ANNA))
            assert found.content == {"list": ["gooseberry"]}
            found.content["list"].append("plum")
        assert memory.cache.hits == 2


async def test_an_erasure_that_is_not_finished_takes_nothing_else_from_an_answer(tmp_path):
    async with open_memory(folder=tmp_path / "data", keys=tmp_path / "keys") as open_:
        for number in range(AT_A_TIME + 9):
            label = JANE if number not in {0, 1, 3} else Label()
            await open_.memory.store_context(ANNA, ContextItem(f"note {number}", label=label))
        vault = open_.gate.guard.vault
        await open_.gate.log.transact(lambda: (vault.destroy("jane@example.com"), ()))
        for limit, there in ((1, [3]), (2, [3, 1]), (5, [3, 1, 0])):
            assert await contents(open_, limit=limit) == [f"note {number}" for number in there]


async def test_a_page_that_was_too_large_says_so_also_where_the_last_look_finds_nothing(tmp_path, monkeypatch):
    for name, value in (("MOST_TOKENS", 1000), ("MOST_SEALED", 2)):
        monkeypatch.setattr(f"symbi.context.finding.{name}", value)
    async with open_memory(folder=tmp_path / "data", keys=tmp_path / "keys") as open_:
        for number in range(8):
            await open_.memory.store_context(ANNA, ContextItem(f"much {number} " + "x" * 1200))
        for number in range(5):
            await open_.memory.store_context(ANNA, ContextItem(f"other {number}", label=JANE))
        page = await open_.keeping.everything(ANNA, ContextQuery(text="much", limit=100))
        assert 0 < len(page) < 8
        assert page.cut


async def test_a_text_without_a_word_chooses_nothing_to_forget(tmp_path):
    async with open_in(tmp_path, "agent anna() { with { 1 } }", policies=ALL) as running:
        await running.runtime.context.store_context(ANNA, ContextItem("gooseberry"))
        for act in (door.forget, door.export, door.show):
            with pytest.raises(InputError, match="no word in it"):
                await act(running.runtime, None, {"agent": "anna", "text": "*"})
        for chosen in ({}, {"tag": "x"}, {"all": 1}, {"ids": [], "kind": None}, {"all": True, "tags": ["x"]}):
            with pytest.raises(InputError, match="says which items"):
                await door.forget(running.runtime, None, {"agent": "anna", **chosen})
        assert await running.runtime.context.keeping.spaces() == {ANNA: 1}
        said = await door.show(running.runtime, None, {"agent": "anna", "limit": 1})
        assert (len(said["items"]), said["more"]) == (1, True)


async def test_what_cannot_be_told_whether_it_was_done_is_looked_at_again(monkeypatch):
    async with open_memory() as open_:
        memory, keeping, log = open_.memory, open_.keeping, open_.gate.log
        transact = log.transact

        async def untold(work, *, wait=False):
            await transact(work, wait=wait)
            msg = "nobody can tell"
            raise StoreUnavailable(msg)

        async def unsaid(act):
            monkeypatch.setattr(log, "transact", untold)
            with pytest.raises(StoreUnavailable):
                await act()
            monkeypatch.setattr(log, "transact", transact)

        assert await contents(open_) == []
        row = ContextItem("gooseberry")
        async with open_.gate.guard.enforce(await memory.writing(memory.principal_of(ANNA), row)) as permit:
            await unsaid(lambda: memory.keep(permit, row))
        (one,) = await memory.retrieve_context(ANNA, ContextQuery())
        await unsaid(lambda: keeping.forget_now(ANNA, [one.id]))
        assert await contents(open_) == []


async def test_a_sweep_that_fails_on_its_way_is_owed_what_follows_it(monkeypatch):
    clock = ManualClock()
    monkeypatch.setattr("symbi.context.keeping.AT_ONCE", 2)
    async with open_memory(clock=clock) as open_:
        memory, keeping, log = open_.memory, open_.keeping, open_.gate.log
        for number in range(5):
            await memory.store_context(ANNA, ContextItem(f"note {number}", MemoryKind.WORKING))
        clock.advance(86_400 - 10)
        assert len(await contents(open_)) == 5
        clock.advance(11)
        transact, steps = log.transact, []

        async def once(work, *, wait=False):
            steps.append(work)
            if len(steps) > 1:
                msg = "the disk is full"
                raise StoreUnavailable(msg)
            return await transact(work, wait=wait)

        monkeypatch.setattr(log, "transact", once)
        with pytest.raises(StoreUnavailable):
            await keeping.sweep()
        assert await contents(open_) == []  # and no answer of before
        monkeypatch.setattr(log, "transact", transact)
        monkeypatch.setattr(keeping, "_remove_due", nothing)
        assert len(open_.index.points) == 5
        assert await keeping.sweep() == 0
        assert len(open_.index.points) == 3


async def nothing(*_):
    return 0


@pytest.mark.parametrize("error", [TimeLimit("too slow"), InputError("no such model", code="inference.refused")])
async def test_an_embedder_that_refuses_or_is_slow_stops_no_start_and_no_others(monkeypatch, error):
    embed = WordEmbedder.embed
    async with open_memory() as open_:
        store, log = open_.gate.store, open_.gate.log

        async def due():
            return sorted({row.space for row in await log.read(lambda: store.meaning_due(0, 9))})

        async def dies(*_):
            raise EOFError

        monkeypatch.setattr(open_.memory, "meant", dies)
        for agent in (ANNA, BEN):
            with pytest.raises(EOFError):
                await open_.memory.store_context(agent, ContextItem(f"of {agent}"))
        monkeypatch.undo()

        async def refuses(self, permit, texts, purpose):
            if "of anna" in texts:
                raise error
            return await embed(self, permit, texts, purpose)

        monkeypatch.setattr(WordEmbedder, "embed", refuses)
        await open_.keeping.tidy()
        assert await due() == ([ANNA, BEN] if isinstance(error, TimeLimit) else [ANNA])
        monkeypatch.undo()
        await open_.keeping.tidy()
        assert await due() == []


async def test_what_ends_before_it_is_used_hides_no_items(monkeypatch):
    async with open_memory() as open_:
        await open_.memory.store_context(ANNA, ContextItem("gooseberry"))
        use, ended = Lease.use, []

        def late(self, arguments):
            if "level" in arguments and not ended:
                ended.append(arguments)
                raise PermitRefused("its time is over", code="permit.expired")
            return use(self, arguments)

        monkeypatch.setattr(Lease, "use", late)
        assert await contents(open_) == ["gooseberry"]
        assert len(ended) == 1


async def test_what_may_be_read_only_so_often_is_an_error_and_not_an_empty_memory():
    rated = '@id("rated") @rate("3/minute") @lease("none") permit (principal, action, resource);'
    clock = ManualClock()
    async with open_memory(rated, clock=clock) as open_:
        await open_.memory.store_context(ANNA, ContextItem("gooseberry"))
        clock.advance(61)
        assert await contents(open_) == ["gooseberry"]  # of the question and of its one level
        with pytest.raises(RateLimited):
            await contents(open_)
        clock.advance(61)
        assert await contents(open_) == ["gooseberry"]


async def test_a_time_that_is_none_has_a_place(tmp_path):
    large = f"1{'0' * 200}.0 * 1{'0' * 107}.0"
    for call in (f"recall(since = {large})", f"recall(until = -1{'0' * 18}.0)"):
        file = f"agent anna() {{\n with {{\n {call} }} }}"
        async with open_in(tmp_path, file, policies=ALL) as running:
            (spec,) = running.compiled.agents
            outcome = await running.runtime.run(running.compiled, spec, {})
            assert isinstance(outcome.error, ScriptFailed), outcome.error
            assert "is a time in seconds" in str(outcome.error)


@pytest.mark.parametrize("asked", [{"about": "gate much"}, {"about": "gate much", "text": "much"}])
async def test_what_is_ranked_is_held_within_a_bound_whatever_is_large(monkeypatch, asked):
    held, find, again = [], MemoryTable.find_items, MemoryTable.items_of

    def watched(act):
        def look(*arguments):
            rows = act(*arguments)
            held.append(sum(len(row.body) for row in rows))
            return rows

        return look

    async with open_memory() as open_:
        for number in range(30):
            word = "gate" if number % 7 == 0 else "door"
            await open_.memory.store_context(ANNA, ContextItem(f"{word} {number} much " + "x" * 2000))
        monkeypatch.setattr("symbi.context.finding.AT_A_TIME", 4)
        whole = await contents(open_, limit=100, **asked)
        assert len(whole) == 30
        assert {one[:4] for one in whole[:5]} == {"gate"}
        monkeypatch.setattr("symbi.context.finding.MOST_HELD_BYTES", 9000)
        monkeypatch.setattr("symbi.context.finding.MOST_OF_A_WORD", 4)
        monkeypatch.setattr(MemoryTable, "find_items", watched(find))
        monkeypatch.setattr(MemoryTable, "items_of", watched(again))
        open_.memory.all_changed()
        assert await contents(open_, limit=100, **asked) == whole
        assert 0 < max(held) < 4 * 2500
