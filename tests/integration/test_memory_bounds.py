"""What one question may cost and give, and what it says where it was cut; and decisions that end before there is an answer."""

import json

import pytest

from symbi.adapters.sqlite.context import MemoryTable
from symbi.context.kinds import ContextItem, ContextQuery
from symbi.context.memory import Memory
from symbi.context.reading import LEASE_SECONDS
from symbi.errors import Overloaded, PolicyDenied
from symbi.policy.engine import PolicySource
from symbi.policy.policies import PolicySet
from symbi.testing.clock import ManualClock
from symbi.testing.context import WordEmbedder, open_memory
from symbi.testing.gate import ALLOW_ALL
from symbi.testing.runtime import open_in
from symbi.types import AgentId, Label

pytestmark = pytest.mark.anyio

ANNA = AgentId("anna")
JANE = Label(subjects=("jane@example.com",))
BY_CONTENT = (
    ContextQuery(text="much", limit=100),
    ContextQuery(tags=("t",), limit=100),
    ContextQuery(about="much", limit=100),
)


async def keep(memory, numbers, label=JANE, size=0):
    for number in numbers:
        content = f"much {number} " + "x" * size
        await memory.store_context(ANNA, ContextItem(content, tags=("t",), label=label))


async def test_one_question_opens_sealed_items_up_to_a_bound_of_bytes_and_says_that_it_was_cut(tmp_path, monkeypatch):
    read = []
    find = MemoryTable.find_items

    def find_items(self, wanted):
        rows = find(self, wanted)
        read.append(sum(len(row.body) for row in rows if row.words is None))
        return rows

    monkeypatch.setattr(MemoryTable, "find_items", find_items)
    monkeypatch.setattr("symbi.context.finding.MOST_SEALED_BYTES", 20_000)
    monkeypatch.setattr("symbi.context.finding.SEALED_AT_A_TIME", 4)
    async with open_memory(folder=tmp_path / "data", keys=tmp_path / "keys") as open_:
        memory, keeping = open_.memory, open_.keeping
        await keep(memory, range(3), size=1_000)
        for query in (*BY_CONTENT, ContextQuery()):
            found = await memory.retrieve_context(ANNA, query)
            assert (len(found), found.cut) == (3, False)
        await keep(memory, range(3, 40), size=1_000)
        for query in BY_CONTENT:
            read.clear()
            found = await memory.retrieve_context(ANNA, query)
            assert found.cut
            assert 8 <= len(found) < 20
            assert sum(read) < 20_000 + 4 * 2_000
            assert max(read) < 4 * 2_000  # read together
            again = await memory.retrieve_context(ANNA, query)  # from the cache
            assert (again, again.cut) == (found, True)
        whole = await memory.retrieve_context(ANNA, ContextQuery(limit=100))
        assert (len(whole), whole.cut) == (40, False)  # by time, none is opened to be looked into
        newest = await memory.retrieve_context(ANNA, ContextQuery(text="much", limit=3))
        assert ([one.content[5:7] for one in newest], newest.cut) == (["39", "38", "37"], False)
        everything = await keeping.everything(ANNA, ContextQuery(text="much", limit=1000))
        assert (len(everything), everything.cut) == (40, False)


async def test_sealed_items_are_counted_too(tmp_path, monkeypatch):
    monkeypatch.setattr("symbi.context.finding.MOST_SEALED", 6)
    monkeypatch.setattr("symbi.context.finding.SEALED_AT_A_TIME", 4)
    async with open_memory(folder=tmp_path / "data", keys=tmp_path / "keys") as open_:
        for numbers, cut in ((range(5), False), (range(5, 9), True)):
            await keep(open_.memory, numbers)
            for query in BY_CONTENT:
                found = await open_.memory.retrieve_context(ANNA, query)
                assert (len(found), found.cut) == (min(6, numbers.stop), cut)


async def test_an_answer_that_would_be_too_large_says_so_and_one_that_was_asked_to_be_short_does_not(monkeypatch):
    monkeypatch.setattr("symbi.context.finding.MOST_TOKENS", 1000)
    async with open_memory() as open_:
        await keep(open_.memory, range(5), Label(), size=1_200)
        for query, count, cut in [
            (ContextQuery(), 3, True), (ContextQuery(limit=2), 2, False), (ContextQuery(max_tokens=700), 2, False),
            (ContextQuery(about="much"), 3, True), (ContextQuery(text="much 3"), 1, False),
        ]:  # fmt: skip
            found = await open_.memory.retrieve_context(ANNA, query)
            assert (len(found), found.cut) == (count, cut), query
        everything = await open_.keeping.everything(ANNA, ContextQuery())
        assert (len(everything), everything.cut) == (3, True)


async def test_a_run_may_ask_for_all_or_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("symbi.context.finding.MOST_TOKENS", 300)
    file = """
    agent anna() {
        with {
            let some = recall(text = "much");
            let all = recall(text = "much", limit = 1, whole = true);
            try { recall(text = "much", whole = true); return "whole"; }
            catch (Error e) { return [len(some), len(all), e.code, e.message]; }
        }
    }
    """
    policies = '@id("all") permit (principal, action, resource);'
    async with open_in(tmp_path, file, policies=policies) as running:
        await keep(running.runtime.context.memory, range(5), Label(), size=400)
        (spec,) = running.compiled.agents
        outcome = await running.runtime.run(running.compiled, spec, {})
        assert outcome.error is None, outcome.error
        assert outcome.output[:3] == [2, 1, "context.cut"]
        assert "`whole` asks for all of it" in outcome.output[3]
        log = running.runtime.rooms.world.log
        events = [json.loads(one.record) for one in await log.read(lambda: log._store.read(1))]
        assert sum(event["details"].get("cut", False) for event in events) == 2


@pytest.mark.parametrize("how", ["policies", "time"])
@pytest.mark.parametrize("times", [1, 2, 9])
async def test_a_decision_that_ends_before_there_is_an_answer_is_taken_anew_once(monkeypatch, how, times):
    clock, asked = ManualClock(), []
    embed = WordEmbedder.embed
    async with open_memory(clock=clock) as open_:
        await open_.memory.store_context(ANNA, ContextItem("the gate is shut"))

        async def late(self, permit, texts, purpose):
            found = await embed(self, permit, texts, purpose)
            asked.append(purpose)
            if len(asked) <= times:
                if how == "time":
                    clock.advance(LEASE_SECONDS + 1)
                else:
                    change(open_, ALLOW_ALL + f"// {len(asked)}")
            return found

        monkeypatch.setattr(WordEmbedder, "embed", late)
        query = ContextQuery(about="gate")
        if times == 1:
            assert [one.content for one in await open_.memory.retrieve_context(ANNA, query)] == ["the gate is shut"]
        else:
            with pytest.raises(Overloaded, match="ended twice before there was an answer") as refused:
                await open_.memory.retrieve_context(ANNA, query)
            assert refused.value.code == "context.lease"
        assert len(asked) == 2


async def test_an_answer_that_a_new_policy_set_forbids_meanwhile_is_not_handed_out(monkeypatch):
    embed = WordEmbedder.embed
    async with open_memory() as open_:
        await open_.memory.store_context(ANNA, ContextItem("the gate is shut"))

        async def late(self, permit, texts, purpose):
            found = await embed(self, permit, texts, purpose)
            change(open_, 'permit (principal, action == Action::"WriteData", resource);')
            return found

        monkeypatch.setattr(WordEmbedder, "embed", late)
        with pytest.raises(PolicyDenied):
            await open_.memory.retrieve_context(ANNA, ContextQuery(about="gate"))


async def test_nor_one_that_a_new_set_forbids_once_it_is_found(monkeypatch):
    find = Memory._find
    async with open_memory() as open_:
        await open_.memory.store_context(ANNA, ContextItem("the gate is shut"))

        async def late(self, permit, question):
            found = await find(self, permit, question)
            assert len(found[0]) == 1
            change(open_, 'permit (principal, action == Action::"WriteData", resource);')
            return found

        monkeypatch.setattr(Memory, "_find", late)
        with pytest.raises(PolicyDenied):
            await open_.memory.retrieve_context(ANNA, ContextQuery(text="gate"))


def change(open_, policies):
    open_.gate.engine.replace(PolicySet.load([PolicySource("test.cedar", policies)]))
