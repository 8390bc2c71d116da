"""How memories are kept in order while others read, write and hold them, on a real gate and store."""

import pytest

from symbi.context.kinds import DAY_MS, ContextItem, ContextQuery, MemoryKind
from symbi.context.sealing import label_of_level, level_of
from symbi.context.verifying import VerifiedMemory, verify_memory
from symbi.dsl.spec import MemorySpec
from symbi.errors import ConfigError, InputError, PolicyDenied, StoreUnavailable, Unavailable
from symbi.guard.vault import Hold
from symbi.policy.engine import PolicySource
from symbi.policy.policies import PolicySet
from symbi.runtime.host import Host
from symbi.testing.clock import ManualClock
from symbi.testing.context import open_memory
from symbi.testing.gate import ALLOW_ALL
from symbi.testing.runtime import open_in
from symbi.testing.vectors import BruteForceVectors
from symbi.types import AgentId, Label

pytestmark = pytest.mark.anyio

ANNA = AgentId("anna")
JANE = Label(subjects=("jane@example.com",))


async def test_an_item_that_is_forgotten_while_its_vector_is_made_leaves_none(monkeypatch):
    put = BruteForceVectors.upsert
    async with open_memory() as open_:
        keeping = open_.keeping

        async def upsert(self, permit, points):
            (item,) = await keeping.everything(ANNA, ContextQuery())
            assert await keeping.forget_now(ANNA, [item.id]) == 1
            await put(self, permit, points)

        monkeypatch.setattr(BruteForceVectors, "upsert", upsert)
        await open_.memory.store_context(ANNA, ContextItem("gone already"))
        assert open_.index.points
        await keeping.mend()
        assert not open_.index.points


async def test_who_reads_old_pages_ends_no_sweep_and_they_are_let_go_later():
    clock, asked, waited = ManualClock(), [], []

    def let_go():
        asked.append(len(asked))
        if len(asked) == 1:
            raise StoreUnavailable("somebody reads", code="unavailable.store_readers")

    async def wait(seconds):
        waited.append(seconds)
        if len(waited) > 3:
            raise EOFError

    async with open_memory(clock=clock) as open_:
        open_.keeping._let_go = let_go
        await open_.memory.store_context(ANNA, ContextItem("busy", MemoryKind.WORKING))
        clock.advance(90_000)
        with pytest.raises(EOFError):
            await open_.keeping.run(wait)
        assert asked == [0, 1]


async def test_which_checkpoints_there_are_is_for_who_may_read_the_memory():
    async with open_memory('permit (principal, action == Action::"WriteData", resource);') as open_:
        await open_.keeping.checkpoint(ANNA)
        with pytest.raises(PolicyDenied):
            await open_.keeping.checkpoints(ANNA)


async def hold_jane(gate):
    hold = Hold(gate.guard.vault.pseudonym("jane@example.com"), b"case 7", "2026-01-01T00:00:00Z")
    await gate.log.transact(lambda: (gate.store.set_hold(hold), ()))


async def test_a_copy_takes_nothing_away_that_is_under_a_hold(tmp_path):
    async with open_memory(folder=tmp_path / "data", keys=tmp_path / "keys") as open_:
        memory, keeping, gate = open_.memory, open_.keeping, open_.gate
        empty = await keeping.checkpoint(ANNA)
        await memory.store_context(ANNA, ContextItem("her number", label=JANE))
        await hold_jane(gate)
        with pytest.raises(InputError, match="legal hold"):
            await keeping.restore(ANNA, empty.id)
        assert len(await memory.retrieve_context(ANNA, ContextQuery())) == 1


async def test_a_number_and_a_text_of_it_are_two_items():
    async with open_memory() as open_:
        one = await open_.memory.store_context(ANNA, ContextItem({"v": 1.5}))
        assert await open_.memory.store_context(ANNA, ContextItem({"v": "1.5"})) != one
        assert await open_.memory.store_context(ANNA, ContextItem({"v": 1.5})) == one


async def test_newer_items_take_nothing_away_that_is_under_a_hold(tmp_path, monkeypatch):
    monkeypatch.setattr("symbi.context.surplus.MOST_OF", {MemoryKind.SHORT_TERM: 2})
    async with open_memory(folder=tmp_path / "data", keys=tmp_path / "keys") as open_:
        memory = open_.memory
        await memory.store_context(ANNA, ContextItem("her number", MemoryKind.SHORT_TERM, label=JANE))
        await hold_jane(open_.gate)
        for number in range(4):
            await memory.store_context(ANNA, ContextItem(number, MemoryKind.SHORT_TERM))
        found = await memory.retrieve_context(ANNA, ContextQuery())
        assert [one.content for one in found] == [3, 2, "her number"]


async def test_a_checkpoint_that_alone_has_what_is_held_stays_until_the_hold_is_released(tmp_path, monkeypatch):
    monkeypatch.setattr("symbi.context.surplus.MAX_CHECKPOINTS", 2)
    async with open_memory(folder=tmp_path / "data", keys=tmp_path / "keys") as open_:
        memory, keeping, gate = open_.memory, open_.keeping, open_.gate
        empty = await keeping.checkpoint(ANNA)
        await memory.store_context(ANNA, ContextItem("her number", label=JANE))
        has_it = await keeping.checkpoint(ANNA)
        await keeping.restore(ANNA, empty.id)
        await hold_jane(gate)
        made = [await keeping.checkpoint(ANNA) for _ in range(3)]
        there = [one.id for one in await keeping.checkpoints(ANNA)]
        assert there == [made[2].id, made[1].id, has_it.id]
        pseudonym = gate.guard.vault.pseudonym("jane@example.com")
        await gate.log.transact(lambda: (gate.store.release_hold(pseudonym), ()))
        last = await keeping.checkpoint(ANNA)
        assert [one.id for one in await keeping.checkpoints(ANNA)] == [last.id, made[2].id]


async def test_a_shorter_retention_holds_for_what_was_kept_before_at_once(tmp_path):
    clock, one, annabel = ManualClock(), AgentId("anna/one"), AgentId("annabel")
    everybody = (ANNA, one, annabel)
    async with open_memory(clock=clock) as open_:
        memory, keeping = open_.memory, open_.keeping
        for agent in everybody:
            await memory.store_context(agent, ContextItem("old"))
            await memory.store_context(agent, ContextItem("old too", MemoryKind.SHORT_TERM))
        await keeping.checkpoint(ANNA)
        clock.advance(3 * 86_400)
        await memory.store_context(ANNA, ContextItem("new"))

        async def there(agent):
            return [item.content for item in await memory.retrieve_context(agent, ContextQuery())]

        assert [len(await there(agent)) for agent in everybody] == [3, 2, 2]
        memory.declare(ANNA, MemorySpec(retention_days=2.0))
        assert [await there(agent) for agent in everybody] == [["new"], [], ["old too", "old"]]
        assert await keeping.everything(one, ContextQuery()) == ()
        assert await keeping.sweep() == 6  # with the copies
        assert [copy.items for copy in await keeping.checkpoints(ANNA)] == [0]
        assert len(open_.index.points) == 3
        memory.declare(ANNA, MemorySpec())
        assert [len(await there(agent)) for agent in everybody] == [1, 0, 2]


async def test_the_terms_of_a_memory_are_known_before_its_agent_runs(tmp_path):
    async with open_in(tmp_path, 'memory notes { retention "2d" } agent anna() { with { 1 } }') as running:
        memory = running.runtime.context.memory
        assert memory.oldest_of(ANNA) == memory.oldest_of(AgentId("ben"))
        await Host(running.runtime, [running.compiled])._take_up_agents()
        assert memory.now_ms - memory.oldest_of(ANNA) == 2 * DAY_MS


@pytest.mark.parametrize("again", [False, True], ids=["kept", "mended"])
async def test_who_dies_after_a_vector_is_made_of_what_was_forgotten_meanwhile_leaves_none(monkeypatch, again):
    put, died = BruteForceVectors.upsert, []
    async with open_memory() as open_:
        keeping = open_.keeping

        async def fails(*_):
            raise EOFError

        async def upsert(self, permit, points):
            (item,) = await keeping.everything(ANNA, ContextQuery())
            assert await keeping.forget_now(ANNA, [item.id]) == 1
            await put(self, permit, points)
            died.append(len(self.points))
            raise EOFError  # nothing more is noted by who made it

        if again:
            monkeypatch.setattr(BruteForceVectors, "upsert", fails)
            with pytest.raises(EOFError):
                await open_.memory.store_context(ANNA, ContextItem("gone already"))
        monkeypatch.setattr(BruteForceVectors, "upsert", upsert)
        with pytest.raises(EOFError):
            await (keeping.mend() if again else open_.memory.store_context(ANNA, ContextItem("gone already")))
        assert died == [1]
        assert await keeping.mend() == 0
        assert not open_.index.points
        assert await open_.gate.log.read(lambda: open_.gate.store.vectors_gone(10)) == []


async def test_no_answer_is_larger_than_it_may_be_and_a_page_goes_on_behind_it(monkeypatch, tmp_path):
    monkeypatch.setattr("symbi.context.finding.MOST_TOKENS", 1000)
    monkeypatch.setattr("symbi.context.finding.AT_A_TIME", 2)
    monkeypatch.setattr("symbi.context.finding.MOST_SEALED", 2)
    clock = ManualClock()
    async with open_memory(clock=clock, folder=tmp_path / "data", keys=tmp_path / "keys") as open_:
        memory, keeping = open_.memory, open_.keeping
        for number in range(9):
            clock.advance(1)
            content = f"word{number} much " + "x" * (1200 if number else 100)
            await memory.store_context(ANNA, ContextItem(content, label=JANE if number % 3 == 1 else Label()))
        for query in (ContextQuery(), ContextQuery(text="much"), ContextQuery(about="much")):
            tokens = [one.tokens for one in await memory.retrieve_context(ANNA, query)]
            assert len(tokens) >= 3, query
            assert sum(tokens) <= 1000, query
        assert len(await memory.retrieve_context(ANNA, ContextQuery(max_tokens=700))) == 2
        for text in ("", "much"):
            seen, before = [], None
            while page := await keeping.everything(ANNA, ContextQuery(text=text, until_ms=before)):
                seen += [one.content[:5] for one in page]
                before = page[-1].at_ms
                assert len(page) <= 4
            assert seen == [f"word{number}" for number in range(8, -1, -1)]


async def test_a_memory_that_is_too_large_is_neither_copied_nor_replaced(monkeypatch):
    async with open_memory() as open_:
        memory, keeping = open_.memory, open_.keeping
        await memory.store_context(ANNA, ContextItem("one"))
        made = await keeping.checkpoint(ANNA)
        await memory.store_context(ANNA, ContextItem("two"))
        for bound in ("ITEMS", "BYTES"):
            with monkeypatch.context() as less:
                less.setattr(f"symbi.context.keeping.MAX_COPY_{bound}", 1)
                for act in (keeping.checkpoint(ANNA), keeping.restore(ANNA, made.id)):
                    with pytest.raises(InputError, match="2 items of") as refused:
                        await act
                    assert refused.value.code == "context.large"
        assert len(await memory.retrieve_context(ANNA, ContextQuery())) == 2
        assert len(await keeping.checkpoints(ANNA)) == 1
        assert await keeping.restore(ANNA, made.id) == 1


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (2**53, "2\\^53-1"),
        ({"a": [-(2**53)]}, "`content.a"),
        (nested(33), "32 levels"),
        (nested(5000), "JSON"),
        ({1: "x"}, "keys are strings"),
        ("x" * 262_143, "over the bound"),
    ],
)
def test_what_cannot_be_kept_is_refused_where_it_is_made(content, why):
    with pytest.raises(InputError, match=why) as refused:
        ContextItem(content)
    assert refused.value.code == "context.item"


async def test_what_is_at_its_bounds_is_kept():
    async with open_memory() as open_:
        for content in (2**53 - 1, nested(32), "x" * 262_142):
            await open_.memory.store_context(ANNA, ContextItem(content))
        assert len(await open_.memory.retrieve_context(ANNA, ContextQuery())) == 3


def test_a_question_has_bounds():
    words = [f"w{number}" for number in range(65)]
    ContextQuery(text=" ".join(words[1:] * 2))
    with pytest.raises(InputError, match="64 different words"):
        ContextQuery(text=" ".join(words))
    with pytest.raises(InputError, match="from the epoch"):
        ContextQuery(since_ms=2**60)


@pytest.mark.parametrize("names", [(), ("a,b",), ("a", "b"), ("a%2Cb",), ("%", ",", "a/b"), ("%252C",)], ids="+".join)
def test_a_level_is_of_one_label_whatever_its_categories_are_called(names):
    label = Label(categories=names)
    assert label_of_level(level_of(label)).categories == names


async def test_what_a_policy_says_of_a_category_holds_for_one_with_a_comma():
    policies = (
        ALLOW_ALL
        + """
    forbid (principal, action == Action::"ReadData", resource) when { context.label.categories.contains("health,eu") };
    """
    )
    async with open_memory(policies) as open_:
        await open_.memory.store_context(ANNA, ContextItem("her back", label=Label(categories=("health,eu",))))
        await open_.memory.store_context(ANNA, ContextItem("her boat", label=Label(categories=("eu", "health"))))
        found = await open_.memory.retrieve_context(ANNA, ContextQuery())
        assert [one.content for one in found] == ["her boat"]


@pytest.mark.parametrize(
    "config",
    [
        'embedder = "openai:text-embedding"',
        "embedding_dimension = 7",
        'embedder = "sentence-transformers:/not/there"',
        'vector_db_url = "http://127.0.0.1:9"',
    ],
)
async def test_an_embedder_or_index_that_is_not_to_be_had_stops_no_start(tmp_path, monkeypatch, caplog, config):
    agent, policies = "agent anna() { with { 1 } }", '@id("all") permit (principal, action, resource);'

    async def dies(*_):
        raise EOFError

    async with open_in(tmp_path, agent, policies=policies) as running:
        monkeypatch.setattr(running.runtime.context.memory, "meant", dies)
        with pytest.raises(EOFError):
            await running.runtime.context.store_context(ANNA, ContextItem("gooseberry jam"))
    caplog.clear()
    async with open_in(tmp_path, agent, policies=policies, config=f"[context]\n{config}\n") as running:
        context = running.runtime.context
        assert "memories were not put in order" in caplog.text
        assert [one.content for one in await context.retrieve_context(ANNA, ContextQuery(text="jam"))] == [
            "gooseberry jam"
        ]
        with pytest.raises((ConfigError, Unavailable)):
            await context.retrieve_context(ANNA, ContextQuery(about="jam"))
        store = context.memory.rooms.store
        assert len(await context.memory.rooms.log.read(lambda: store.meaning_due(0, 10))) == 1
    async with open_in(tmp_path, agent, policies=policies) as running:
        context = running.runtime.context
        store = context.memory.rooms.store
        assert await context.memory.rooms.log.read(lambda: store.meaning_due(0, 10)) == []
        assert len(await context.retrieve_context(ANNA, ContextQuery(about="jam"))) == 1


async def test_vectors_that_are_lost_are_told_and_made_again(monkeypatch):
    monkeypatch.setattr("symbi.context.verifying.AT_ONCE", 3)
    monkeypatch.setattr("symbi.context.keeping.AT_ONCE", 3)
    async with open_memory() as open_:
        memory, keeping, points = open_.memory, open_.keeping, open_.index.points
        for number in range(8):
            await memory.store_context(ANNA, ContextItem(f"gooseberry {number}"))
        await memory.store_context(ANNA, ContextItem("..."))  # has no word, and so no vector
        whole = dict(points)
        assert len(whole) == 8
        for lost in (list(whole), list(whole)[:1], list(whole)[2:7:2]):
            for one in lost:
                del points[one]
            found = await verify_memory(memory, keeping.mend, repair=False)
            assert (found.missing, found.clean, points.keys() & set(lost)) == (
                len(lost) + (len(lost) == 8),
                False,
                set(),
            )
            found = await verify_memory(memory, keeping.mend, repair=True)
            assert (found.refused, found.clean) == (0, True)
            assert points.keys() == whole.keys()
            assert (await verify_memory(memory, keeping.mend, repair=False)) == VerifiedMemory(8, 0)


async def test_vectors_are_made_again_as_policy_lets_it_and_no_item_is_given_up():
    async with open_memory() as open_:
        memory, keeping, engine = open_.memory, open_.keeping, open_.gate.guard.engine
        await memory.store_context(ANNA, ContextItem("gooseberry"))
        await memory.store_context(AgentId("bea"), ContextItem("gooseberry"))
        open_.index.points.clear()
        kept = engine.current
        forbidden = 'forbid (principal == Agent::"anna", action == Action::"WriteData", resource);'
        engine.replace(PolicySet.load([PolicySource("test.cedar", f"{ALLOW_ALL}\n{forbidden}")]))
        found = await verify_memory(memory, keeping.mend, repair=True)
        assert (found.missing, found.made, found.refused, found.clean) == (2, 1, 1, False)
        assert [one.namespace.name for one in open_.index.points.values()] == ["bea"]
        engine.replace(kept)
        assert (await verify_memory(memory, keeping.mend, repair=True)).clean
        assert len(open_.index.points) == 2


async def test_an_item_that_is_being_kept_is_not_said_to_be_lost(monkeypatch):
    put, found = BruteForceVectors.upsert, []
    async with open_memory() as open_:

        async def upsert(self, permit, points):
            found.append(await verify_memory(open_.memory, open_.keeping.mend, repair=False))
            await put(self, permit, points)

        monkeypatch.setattr(BruteForceVectors, "upsert", upsert)
        await open_.memory.store_context(ANNA, ContextItem("gooseberry"))
        found.append(await verify_memory(open_.memory, open_.keeping.mend, repair=False))
    assert found == [VerifiedMemory(0, 0), VerifiedMemory(1, 0)]


async def test_what_goes_together_is_taken_out_of_the_index_at_once(monkeypatch):
    asked, erase = [], BruteForceVectors.erase_subjects

    async def erase_subjects(self, subjects):
        asked.append(len(subjects))
        return await erase(self, subjects)

    monkeypatch.setattr(BruteForceVectors, "erase_subjects", erase_subjects)
    monkeypatch.setattr("symbi.context.keeping.AT_ONCE", 3)
    async with open_memory() as open_:
        ids = [await open_.memory.store_context(ANNA, ContextItem(f"plum {number}")) for number in range(10)]
        assert await open_.keeping.forget_now(ANNA, ids) == 10
        assert asked == [10]
        assert not open_.index.points


async def test_neither_a_start_nor_an_end_waits_for_an_index_to_be_written_anew(monkeypatch):
    async def erase_subjects(_self, _subjects):
        raise AssertionError

    clock = ManualClock()
    async with open_memory(clock=clock) as open_:
        await open_.memory.store_context(ANNA, ContextItem("busy", MemoryKind.WORKING))
        monkeypatch.setattr(BruteForceVectors, "erase_subjects", erase_subjects)
        clock.advance(90_000)
        await open_.keeping.tidy()
        assert not open_.index.points
