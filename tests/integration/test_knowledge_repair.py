"""Vectors that are made again are made under decisions on the documents that they are of."""

import threading
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace

import anyio
import pytest

from symbi.adapters.keys import FileKeyStore
from symbi.errors import PolicyDenied
from symbi.knowledge.chunks import chunks_of
from symbi.knowledge.door import KnowledgeDoor
from symbi.knowledge.rules import CollectionTerms, Rule, Rules
from symbi.knowledge.verifying import UNNAMED
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
        again = await knowledge.verify(OPERATOR, "ops", repair=True)
        assert (again.documents, again.missing, again.clean) == (1, 1, True)
        assert opened.embedder.texts == embedded + 1
        (made,) = opened.vectors.points.values()
        assert "subject" not in made.payload


REMOTE = """
@id("all") permit (principal, action, resource);
@id("stay") forbid (principal, action == Action::"WriteData", resource)
when { context has remote && context.remote && resource.classification == "secret" };
"""


async def test_repair_has_nothing_read_by_a_remote_model_that_policy_keeps_here_and_does_the_rest(tmp_path):
    async with open_knowledge(ALL, rules=RULES, keys=FileKeyStore(tmp_path / "keys")) as opened:
        knowledge, read = opened.knowledge, []
        for name in ("a.md", "b.md", "pay.md", "z.md"):
            await knowledge.put(OPERATOR, "ops", name, f"# {name}\n\nOf {name} there is much to tell.".encode())
        opened.vectors.points.clear()
        real = opened.embedder.embed

        async def noted(permit, texts, purpose):
            read.extend(texts)
            return await real(permit, texts, purpose)

        model = replace(opened.embedder.model, remote=True)
        object.__setattr__(knowledge.rooms, "embedder", SimpleNamespace(model=model, embed=noted))
        opened.gate.engine.replace(PolicySet.load([PolicySource("test.cedar", REMOTE)]))
        found = await knowledge.verify(OPERATOR, "ops")
        assert (found.documents, found.missing) == (4, 4)  # to look has nothing read by a model
        again = await knowledge.verify(OPERATOR, "ops", repair=True)
        assert (again.refused, again.clean) == (1, False)
        assert sorted(one.split("\n")[0] for one in read) == ["a.md", "b.md", "z.md"]
        assert len(opened.vectors.points) == 3
        again = await knowledge.verify(OPERATOR, "ops")
        assert (again.missing, again.clean) == (1, False)


NAMES = """
@id("write") permit (principal, action == Action::"WriteData", resource) when { resource.owner != "eve" };
@id("read") permit (principal, action == Action::"ReadData", resource) when { resource.owner == "ada" };
"""
OWNED = Rules(
    {"ops": CollectionTerms(owner="ada")},
    (Rule("ben", "ben*", owner="ben"), Rule("eve", "eve*", owner="eve")),
)


async def test_verify_tells_nothing_of_what_may_not_be_written_and_names_nothing_that_may_not_be_read():
    async with open_knowledge(ALL, rules=OWNED) as opened:
        knowledge, gate = opened.knowledge, opened.gate
        for name in ("ada.md", "ben.md", "eve.md"):
            await knowledge.put(OPERATOR, "ops", name, f"# {name}\n\nOf {name} there is much to tell.".encode())
        whole = await knowledge.verify(OPERATOR, "ops")
        assert (whole.documents, whole.vectors, whole.clean) == (3, 3, True)
        await gate.log.transact(lambda: (gate.store._db.execute("UPDATE knowledge_documents SET body = x'00'"), ()))
        gate.engine.replace(PolicySet.load([PolicySource("test.cedar", NAMES)]))
        opened.vectors.points.clear()
        found = await knowledge.verify(OPERATOR, "ops")
        assert (found.documents, found.chunks, found.missing, found.vectors) == (2, 2, 2, 0)
        assert [one.split(":")[0] for one in found.damaged] == ["ada.md", UNNAMED]
        assert "eve" not in repr(found)
        assert "ben" not in repr(found)
        gate.engine.replace(PolicySet.load([PolicySource("test.cedar", NAMES.replace('!= "eve"', '== "nobody"'))]))
        with pytest.raises(PolicyDenied):
            await knowledge.verify(OPERATOR, "ops")


async def test_what_may_not_be_written_is_not_put_in_order_either():
    async with open_knowledge(ALL, rules=OWNED) as opened:
        knowledge, gate = opened.knowledge, opened.gate
        for name in ("ada.md", "eve.md"):
            await knowledge.put(OPERATOR, "ops", name, f"# {name}\n\nOf {name} there is much to tell.".encode())
        await gate.log.transact(
            lambda: (gate.store._db.execute("DELETE FROM knowledge_chunks"), ())
        )  # both vectors are orphans
        gate.engine.replace(PolicySet.load([PolicySource("test.cedar", NAMES)]))
        found = await knowledge.verify(OPERATOR, "ops", repair=True)
        assert found.orphans == 1
        assert len(opened.vectors.points) == 1


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("DELETE FROM knowledge_words", "a.md: chunk 0 has lost its words"),
        ("UPDATE knowledge_chunks SET worded = 0", "a.md: chunk 0 has lost its words"),
        ("UPDATE knowledge_words SET headings = 'Mail'", "a.md: chunk 0 is not what its document says there"),
        ("UPDATE knowledge_words SET text = 'Prune nothing.'", "a.md: chunk 0 is not what its document says there"),
        ("UPDATE knowledge_chunks SET start = start + 1", "a.md: chunk 0 is not what its document says there"),
        ("UPDATE knowledge_chunks SET ordinal = ordinal + 1", "a.md: chunk 1 is not where its document says anything"),
        ("DELETE FROM knowledge_chunks", "a.md: chunks are missing"),
    ],
)
async def test_verify_tells_of_every_sort_of_damage_to_words_and_places(damage, said):
    async with open_knowledge(ALL) as opened:
        await opened.knowledge.put(OPERATOR, "ops", "a.md", b"# Disks\n\nPrune old snapshots.")
        store = opened.gate.store
        await opened.gate.log.transact(lambda: (store._db.execute(damage), ()))
        found = await opened.knowledge.verify(OPERATOR, "ops")
        assert (found.damaged, found.clean) == ((said,), False)
        await opened.knowledge.remove(OPERATOR, "ops", ["a.md"])
        assert (await opened.knowledge.verify(OPERATOR, "ops")).damaged == ()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("UPDATE knowledge_chunks SET stop = stop + 1", "pay.md: chunk 0 is not where its document says anything"),
        (
            "INSERT INTO knowledge_words (rowid, text) SELECT number, 'Jane' FROM knowledge_chunks; UPDATE knowledge_chunks SET worded = 1",
            "pay.md: chunk 0 has its words in plain text, and the document is sealed",
        ),
    ],
)
async def test_verify_tells_of_a_sealed_document_that_is_not_kept_as_one(tmp_path, damage, said):
    async with open_knowledge(ALL, rules=RULES, keys=FileKeyStore(tmp_path / "keys")) as opened:
        await opened.knowledge.put(OPERATOR, "ops", "pay.md", b"# Pay\n\nJane earns much.")
        store = opened.gate.store
        assert (await opened.knowledge.verify(OPERATOR, "ops")).clean

        def do():
            for one in damage.split("; "):
                store._db.execute(one)
            return None, ()

        await opened.gate.log.transact(do)
        found = await opened.knowledge.verify(OPERATOR, "ops")
        assert (found.damaged, found.clean) == ((said,), False)


@pytest.mark.parametrize(
    ("text", "elsewhere"),
    [
        (b"# Disks\n\nPrune old snapshots.", False),
        (b"# Disks\n\n" + b"Prune old snapshots. " * 400, True),
        (b"# A\n\nb\n\n" * 20, True),
    ],
    ids=["small", "long", "of many parts"],
)
async def test_a_large_document_is_cut_elsewhere_than_on_the_event_loop(monkeypatch, text, elsewhere):
    threads = []

    def noted(extracted):
        threads.append(threading.current_thread())
        return chunks_of(extracted)

    monkeypatch.setattr("symbi.knowledge.ingest.chunks_of", noted)
    async with open_knowledge() as opened:
        await opened.knowledge.put(OPERATOR, "ops", "a.md", text)
    assert len(threads) == 1
    assert (threads[0] is not threading.current_thread()) is elsewhere


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
