"""Vectors that are made again are made under decisions on the documents that they are of."""

import threading
from contextlib import asynccontextmanager

import anyio
import pytest

from symbi.adapters.keys import FileKeyStore
from symbi.errors import PolicyDenied
from symbi.knowledge.chunks import chunks_of
from symbi.knowledge.door import KnowledgeDoor
from symbi.knowledge.rules import Rule, Rules
from symbi.policy.engine import PolicySet, PolicySource
from symbi.testing.knowledge import open_knowledge
from symbi.types import AgentId, Confidentiality, Principal

pytestmark = pytest.mark.anyio

OPERATOR = Principal(AgentId("symbi.operator"))
RULES = Rules(rules=(Rule("pay", "*pay*", classification=Confidentiality.SECRET, subjects=("jane@example.com",)),))
ALL = '@id("all") permit (principal, action, resource);\n'
NOT_AGAIN = """
@id("no-secrets") forbid (principal, action == Action::"WriteData", resource)
when { resource.classification == "secret" || context.label.confidentiality == "secret" };
"""


async def test_a_vector_of_a_secret_is_made_again_only_where_a_secret_may_be_written(tmp_path):
    async with open_knowledge(ALL, rules=RULES, keys=FileKeyStore(tmp_path / "keys")) as opened:
        knowledge, gate = opened.knowledge, opened.gate
        await knowledge.put(OPERATOR, "ops", "a.md", b"# Disks\n\nPrune old snapshots.")
        await knowledge.put(OPERATOR, "ops", "pay.md", b"# Pay\n\nJane earns much.")
        before = dict(opened.vectors.points)
        opened.vectors.points.clear()
        again = await knowledge.verify(OPERATOR, "ops", repair=True)
        assert (again.missing, again.clean) == (2, True)
        assert opened.vectors.points.keys() == before.keys()
        assert {one.payload.get("subject") for one in opened.vectors.points.values()} == {
            one.payload.get("subject") for one in before.values()
        }
        opened.vectors.points.clear()
        gate.engine.replace(PolicySet.load([PolicySource("test.cedar", ALL + NOT_AGAIN)]))
        embedded = opened.embedder.texts
        with pytest.raises(PolicyDenied):
            await knowledge.verify(OPERATOR, "ops", repair=True)
        assert opened.embedder.texts <= embedded + 1
        assert all("subject" not in one.payload for one in opened.vectors.points.values())


async def test_a_large_document_is_cut_elsewhere_than_on_the_event_loop(monkeypatch):
    threads = []

    def noted(extracted):
        threads.append(threading.current_thread())
        return chunks_of(extracted)

    monkeypatch.setattr("symbi.knowledge.ingest.chunks_of", noted)
    async with open_knowledge() as opened:
        await opened.knowledge.put(OPERATOR, "ops", "a.md", b"# Disks\n\nPrune old snapshots.")
    assert len(threads) == 1
    assert threads[0] is not threading.current_thread()


async def test_knowledge_that_was_opened_under_a_deadline_outlives_it_and_is_closed_in_order():
    said = []

    @asynccontextmanager
    async def opening():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep_forever)
            yield "knowledge"
            said.append("closed")
            tasks.cancel_scope.cancel()

    async with KnowledgeDoor(opening) as door:
        with anyio.fail_after(60):
            first = await door.opened()
        assert await door.opened() is first
    assert said == ["closed"]
