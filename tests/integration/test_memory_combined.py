"""Questions for words and for nearness at once: what has the words is read once, unless it has changed meanwhile."""

from dataclasses import replace

import pytest

from symbi.context.kinds import ContextItem, ContextQuery, MemoryKind
from symbi.testing.context import open_memory
from symbi.types import AgentId

pytestmark = pytest.mark.anyio
ANNA = AgentId("anna")
QUESTION = ContextQuery(about="alpha beta", text="gamma")


async def keep_three(memory):
    return [
        await memory.store_context(ANNA, ContextItem(text, MemoryKind.LONG_TERM))
        for text in ("alpha gamma", "alpha beta gamma", "alpha beta")
    ]


async def test_what_has_the_words_is_read_once_and_ranked_by_nearness(monkeypatch):
    async with open_memory() as open_:
        memory, store = open_.memory, open_.gate.store
        await keep_three(memory)
        asked = []
        whole = type(store).find_items

        def find_items(self, wanted):
            asked.append(wanted)
            return whole(self, wanted)

        monkeypatch.setattr(type(store), "find_items", find_items)
        found = await memory.retrieve_context(ANNA, QUESTION)
        assert [one.content for one in found] == ["alpha beta gamma", "alpha gamma"]
        assert sum(one.sealed is False for one in asked) == 1


async def test_what_is_forgotten_while_it_is_looked_for_is_not_handed_out(monkeypatch):
    async with open_memory() as open_:
        memory, keeping, index = open_.memory, open_.keeping, open_.index
        _, gone, _ = await keep_three(memory)
        query = type(index).query

        async def forgets(self, permit, wanted):
            hits = await query(self, permit, wanted)
            assert gone in {str(one.id) for one in hits}
            assert await keeping.forget(ANNA, [gone]) == 1
            return hits

        monkeypatch.setattr(type(index), "query", forgets)
        found = await memory.retrieve_context(ANNA, replace(QUESTION, limit=5))
        assert [one.content for one in found] == ["alpha gamma"]
