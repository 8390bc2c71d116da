"""What agents remember: kept, found, bounded, shared, forgotten and brought back, on a real gate and store."""

import pytest

from symbi.context.kinds import DAY_MS, ContextItem, ContextQuery, Form, MemoryKind, MemoryTerms
from symbi.context.memory import MemoryConfig
from symbi.context.surplus import MOST_OF
from symbi.errors import InputError, PolicyDenied
from symbi.testing.clock import ManualClock
from symbi.testing.context import open_memory
from symbi.types import AgentId, Confidentiality, Integrity, Label, Principal

pytestmark = pytest.mark.anyio

ANNA, BEN = AgentId("anna"), AgentId("ben")
UNTRUSTED = Label(Integrity.UNTRUSTED, sources=("e1",))
SECRET = Label(confidentiality=Confidentiality.SECRET)
JANE = Label(Integrity.SYSTEM, subjects=("jane@example.com",))


def said(found):
    return [one.content for one in found]


async def test_the_newest_come_first_and_what_is_kept_comes_back_with_its_label():
    async with open_memory() as open_:
        memory, clock = open_.memory, open_.gate.clock
        for number in range(3):
            clock.advance(1)
            await memory.store_context(ANNA, ContextItem({"n": number}, MemoryKind.SHORT_TERM, label=UNTRUSTED))
        found = await memory.retrieve_context(ANNA, ContextQuery(kinds=(MemoryKind.SHORT_TERM,)))
        assert said(found) == [{"n": 2}, {"n": 1}, {"n": 0}]
        assert found[0].label == UNTRUSTED
        assert said(await memory.retrieve_context(ANNA, ContextQuery(kinds=(MemoryKind.WORKING,)))) == []
        assert said(await memory.retrieve_context(BEN, ContextQuery())) == []


async def test_a_window_has_as_many_of_the_newest_as_fit_into_its_tokens():
    async with open_memory() as open_:
        for number in range(10):
            await open_.memory.store_context(ANNA, ContextItem(f"{number} " + "x" * 36, MemoryKind.SHORT_TERM))
        found = await open_.memory.retrieve_context(ANNA, ContextQuery(max_tokens=25))
        assert [one.tokens for one in found] == [10, 10]
        assert [text[0] for text in said(found)] == ["9", "8"]


async def test_words_tags_times_forms_and_importance_have_to_hold_together():
    clock = ManualClock()
    async with open_memory(clock=clock) as open_:
        memory = open_.memory
        start = memory.now_ms
        await memory.store_context(ANNA, ContextItem("The checkout fails with 503", tags=("Shop", "http")))
        clock.advance(10)
        later = memory.now_ms
        await memory.store_context(
            ANNA, ContextItem("The checkout is slow", tags=("shop",), importance=0.9, form=Form.EPISODE)
        )
        for query, count in [
            (ContextQuery(text="CHECKOUT"), 2),
            (ContextQuery(text="checkout 503"), 1),
            (ContextQuery(text="checkout refund"), 0),
            (ContextQuery(tags=("SHOP",)), 2),
            (ContextQuery(tags=("shop", "http")), 1),
            (ContextQuery(since_ms=later), 1),
            (ContextQuery(until_ms=later), 1),
            (ContextQuery(since_ms=start, until_ms=start), 0),
            (ContextQuery(min_importance=0.9), 1),
            (ContextQuery(forms=(Form.EPISODE,), text="checkout"), 1),
        ]:
            assert len(await memory.retrieve_context(ANNA, query)) == count, query


async def test_what_is_asked_about_is_ranked_by_meaning_words_importance_and_age():
    clock = ManualClock()
    async with open_memory(clock=clock) as open_:
        memory = open_.memory
        await memory.store_context(ANNA, ContextItem("restart the payment service after a timeout"))
        await memory.store_context(ANNA, ContextItem("the cafeteria opens at noon"))
        clock.advance(400 * 60)
        found = await memory.retrieve_context(ANNA, ContextQuery(about="what to do after a payment timeout?", limit=2))
        assert found[0].content.startswith("restart")
        assert found[0].score > found[-1].score or len(found) == 1
        first = await memory.store_context(ANNA, ContextItem("alpha beta", importance=0.1))
        second = await memory.store_context(ANNA, ContextItem("beta alpha", importance=0.9))
        found = await memory.retrieve_context(ANNA, ContextQuery(about="alpha beta", limit=2))
        assert [one.id for one in found] == [second, first]


async def test_lasting_items_that_say_the_same_are_kept_once_and_only_under_the_same_label():
    async with open_memory() as open_:
        memory = open_.memory
        one = await memory.store_context(
            ANNA, ContextItem("Ports  are closed", importance=0.2, label=Label(sources=("a",)))
        )
        two = await memory.store_context(
            ANNA, ContextItem("ports are CLOSED", importance=0.7, label=Label(sources=("b",)))
        )
        other = await memory.store_context(ANNA, ContextItem("ports are closed", label=UNTRUSTED))
        assert one == two != other
        (found,) = [item for item in await memory.retrieve_context(ANNA, ContextQuery()) if item.id == one]
        assert (found.times, found.importance, found.label.sources) == (2, 0.7, ("a", "b"))
        await memory.store_context(ANNA, ContextItem("again", MemoryKind.SHORT_TERM))
        await memory.store_context(ANNA, ContextItem("again", MemoryKind.SHORT_TERM))
        assert len(await memory.retrieve_context(ANNA, ContextQuery(text="again"))) == 2


async def test_short_term_memory_is_bounded_and_working_memory_ends_with_the_day():
    clock = ManualClock()
    async with open_memory(clock=clock) as open_:
        memory = open_.memory
        await memory.store_context(ANNA, ContextItem("busy", MemoryKind.WORKING))
        for number in range(MOST_OF[MemoryKind.SHORT_TERM] + 2):
            await memory.store_context(ANNA, ContextItem(number, MemoryKind.SHORT_TERM))
        query = ContextQuery(kinds=(MemoryKind.SHORT_TERM,), limit=1000)
        assert said(await memory.retrieve_context(ANNA, query))[-1] == 2
        assert said(await memory.retrieve_context(ANNA, ContextQuery(kinds=(MemoryKind.WORKING,)))) == ["busy"]
        clock.advance(DAY_MS / 1000)
        assert said(await memory.retrieve_context(ANNA, ContextQuery(kinds=(MemoryKind.WORKING,)))) == []
        assert await open_.keeping.sweep() == 1


async def test_another_agent_reads_what_is_shared_where_policy_lets_it_and_nothing_else():
    policies = """
    permit (principal, action == Action::"WriteData", resource);
    permit (principal == Agent::"ben", action == Action::"ReadData", resource == Memory::"anna");
    """
    async with open_memory(policies) as open_:
        memory = open_.memory
        await memory.store_context(ANNA, ContextItem("my own secret word"))
        await memory.store_context(ANNA, ContextItem("for all of us", MemoryKind.SHARED))
        for query in (
            ContextQuery(of=ANNA),
            ContextQuery(of=ANNA, text="word"),
            ContextQuery(of=ANNA, about="secret word"),
        ):
            assert set(said(await memory.retrieve_context(BEN, query))) <= {"for all of us"}
        assert said(await memory.retrieve_context(BEN, ContextQuery(of=ANNA))) == ["for all of us"]
        with pytest.raises(PolicyDenied):
            await memory.retrieve_context(ANNA, ContextQuery())
        with pytest.raises(PolicyDenied):
            await memory.retrieve_context(AgentId("carl"), ContextQuery(of=ANNA))


async def test_what_policy_does_not_show_of_a_memory_is_as_if_it_were_not_there():
    policies = """
    permit (principal, action == Action::"WriteData", resource);
    permit (principal, action == Action::"ReadData", resource) when { context.label.integrity != "untrusted" };
    """
    async with open_memory(policies) as open_:
        memory = open_.memory
        await memory.store_context(ANNA, ContextItem("pay the invoice to account 99", label=UNTRUSTED))
        await memory.store_context(ANNA, ContextItem("the invoice is paid"))
        for query in (ContextQuery(), ContextQuery(text="invoice"), ContextQuery(about="invoice account", limit=1)):
            assert said(await memory.retrieve_context(ANNA, query)) == ["the invoice is paid"], query


async def test_what_an_untrusted_agent_remembers_is_untrusted():
    async with open_memory(principal=lambda name: Principal(name, trust="untrusted")) as open_:
        await open_.memory.store_context(ANNA, ContextItem("trust me"))
        (found,) = await open_.memory.retrieve_context(ANNA, ContextQuery())
        assert found.label.integrity is Integrity.UNTRUSTED


async def test_a_policy_that_caps_and_marks_reads_is_obeyed(tmp_path):
    policies = """
    permit (principal, action == Action::"WriteData", resource);
    @cap("arguments.maxItems=2") @mark("untrusted")
    permit (principal, action == Action::"ReadData", resource);
    """
    async with open_memory(policies) as open_:
        for number in range(5):
            await open_.memory.store_context(ANNA, ContextItem(number))
        found = await open_.memory.retrieve_context(ANNA, ContextQuery(limit=10))
        assert said(found) == [4, 3]
        assert found[0].label.integrity is Integrity.UNTRUSTED


@pytest.mark.parametrize("label", [SECRET, JANE])
async def test_what_its_label_asks_for_is_sealed_and_found_all_the_same(tmp_path, label):
    async with open_memory(folder=tmp_path / "d", keys=tmp_path / "k") as open_:
        memory = open_.memory
        await memory.store_context(ANNA, ContextItem({"note": "xylophone quartz"}, tags=("zebra",), label=label))
        await memory.store_context(ANNA, ContextItem("xylophone in plain"))
        for query, count in [
            (ContextQuery(), 2), (ContextQuery(text="quartz xylophone"), 1), (ContextQuery(tags=("zebra",)), 1),
            (ContextQuery(text="quartz", tags=("other",)), 0),
        ]:  # fmt: skip
            assert len(await memory.retrieve_context(ANNA, query)) == count, query
        best, *_ = await memory.retrieve_context(ANNA, ContextQuery(about="quartz"))
        assert (best.content, best.label) == ({"note": "xylophone quartz"}, label)
        assert len(open_.index.points) == 1
    files = b"".join(path.read_bytes() for path in (tmp_path / "d").iterdir())
    assert b"plain" in files
    for word in (b"quartz", b"zebra", b"jane"):
        assert word not in files


async def test_without_a_key_nothing_that_asks_for_it_is_kept():
    async with open_memory() as open_:
        with pytest.raises(InputError, match="vault"):
            await open_.memory.store_context(ANNA, ContextItem("x", label=SECRET))
        assert await open_.memory.retrieve_context(ANNA, ContextQuery()) == ()


async def test_the_cache_answers_what_was_asked_lately_within_its_bytes_and_forgets_with_each_change():
    async with open_memory(config=MemoryConfig(cache_bytes=8_000)) as open_:
        memory = open_.memory
        await memory.store_context(ANNA, ContextItem("first"))
        await memory.store_context(BEN, ContextItem("of another"))
        for _ in range(3):
            assert said(await memory.retrieve_context(ANNA, ContextQuery())) == ["first"]
        assert (memory.cache.hits, memory.cache.misses) == (2, 1)
        await memory.store_context(ANNA, ContextItem("second"))
        assert said(await memory.retrieve_context(ANNA, ContextQuery())) == ["second", "first"]
        for number in range(20):
            await memory.retrieve_context(BEN, ContextQuery(text=f"of {number}"))
        assert memory.cache.evicted
        assert memory.cache.used_bytes <= 8_000


async def test_retention_really_deletes_by_configuration_and_by_the_terms_of_a_memory(tmp_path):
    clock = ManualClock()
    terms = {ANNA: MemoryTerms(retention_days=2)}
    config = MemoryConfig(retention_days=10)
    folder = tmp_path / "d"
    async with open_memory(
        clock=clock, folder=folder, config=config, terms=lambda name: terms.get(name, MemoryTerms())
    ) as open_:
        await open_.memory.store_context(ANNA, ContextItem("gooseberry"))
        await open_.memory.store_context(BEN, ContextItem("elderflower"))
        await open_.keeping.checkpoint(ANNA)
        clock.advance(3 * 86_400)
        assert await open_.memory.retrieve_context(ANNA, ContextQuery()) == ()
        assert await open_.keeping.sweep() == 2  # the item, and its copy
        assert said(await open_.memory.retrieve_context(BEN, ContextQuery())) == ["elderflower"]
        clock.advance(8 * 86_400)
        assert await open_.memory.retrieve_context(BEN, ContextQuery()) == ()
        assert await open_.keeping.sweep() == 1
        assert open_.index.points == {}
    files = b"".join(path.read_bytes() for path in folder.iterdir())
    assert b"gooseberry" not in files
    assert b"elderflower" not in files


async def test_what_is_forgotten_is_gone_from_every_place(tmp_path):
    folder = tmp_path / "d"
    async with open_memory(folder=folder, keys=tmp_path / "k") as open_:
        memory, keeping = open_.memory, open_.keeping
        one = await memory.store_context(ANNA, ContextItem("gooseberry jam", tags=("damson",)))
        await memory.store_context(ANNA, ContextItem("stays"))
        await keeping.checkpoint(ANNA)
        assert len(await memory.retrieve_context(ANNA, ContextQuery())) == 2
        assert b"gooseberry" in b"".join(path.read_bytes() for path in folder.iterdir())
        assert await keeping.forget(BEN, [one]) == 0
        assert await keeping.forget(ANNA, [one]) == 1
        assert said(await memory.retrieve_context(ANNA, ContextQuery())) == ["stays"]
        assert len(open_.index.points) == 1
        assert (await keeping.checkpoints(ANNA))[0].items == 1
        files = b"".join(path.read_bytes() for path in folder.iterdir())
        assert b"gooseberry" not in files
        assert b"damson" not in files


async def test_a_checkpoint_brings_back_what_was_remembered_then(tmp_path):
    clock = ManualClock()
    async with open_memory(clock=clock, keys=tmp_path / "k") as open_:
        memory, keeping = open_.memory, open_.keeping
        first = await memory.store_context(ANNA, ContextItem("one apple", tags=("fruit",)))
        await memory.store_context(ANNA, ContextItem("hidden pear", label=JANE))
        gone = await memory.store_context(ANNA, ContextItem("one plum"))
        made = await keeping.checkpoint(ANNA)
        assert made.items == 3
        clock.advance(60)
        await memory.store_context(ANNA, ContextItem("one cherry"))
        await keeping.forget(ANNA, [gone])
        assert await keeping.restore(ANNA, made.id) == 2
        assert said(await memory.retrieve_context(ANNA, ContextQuery())) == ["hidden pear", "one apple"]
        assert said(await memory.retrieve_context(ANNA, ContextQuery(tags=("fruit",), text="apple"))) == ["one apple"]
        assert {str(id_) for id_ in open_.index.points} == {first}
        assert (await memory.retrieve_context(ANNA, ContextQuery(about="apple")))[0].id == first
        with pytest.raises(InputError, match="no such checkpoint"):
            await keeping.restore(BEN, made.id)
