"""What a write, a removal or an erasure leaves that breaks off is found by the same again, by retention and by `privacy erase`."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from symbi.adapters.keys import FileKeyStore
from symbi.api.knowledge import verify
from symbi.errors import InputError, PolicyDenied, StoreUnavailable
from symbi.knowledge.door import KnowledgeDoor, Retention
from symbi.knowledge.rules import CollectionTerms, Rule, Rules
from symbi.policy import library
from symbi.testing.gate import ALLOW_ALL
from symbi.testing.knowledge import open_knowledge
from symbi.types import AgentId, Confidentiality, Principal
from symbi.wiring.privacy import erase_documents

pytestmark = pytest.mark.anyio

OPERATOR = Principal(AgentId("symbi.operator"))
STRANGER = Principal(AgentId("stranger"))
JANE = Rules(rules=(Rule("jane", "jane*", subjects=("jane@example.com",)),))
ONLY_OPERATOR = '@id("w") permit (principal == Agent::"symbi.operator", action, resource);'


def large(word, parts=30):
    return "".join(f"# Part {part}\n\nThe {word} of part {part}.\n\n" for part in range(parts)).encode()


def kept(opened):
    """Chunks, words and vectors."""
    tables = ("knowledge_chunks", "knowledge_words")
    return *(opened.gate.store._one(f"SELECT count(*) FROM {table}")[0] for table in tables), len(opened.vectors.points)


def every_byte(folder):
    return b"".join(path.read_bytes() for path in folder.iterdir() if path.is_file())


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    for name in ("symbi.knowledge.writing", "symbi.adapters.sqlite.knowledge"):
        monkeypatch.setattr(f"{name}.CHUNKS_AT_ONCE", 8)


class Breaking:
    """A probe that fails at a point, as long as it is told to."""

    point = ""

    def __call__(self, name):
        if name == self.point:
            raise StoreUnavailable("the engine has ended")


@pytest.mark.parametrize("policies", [ONLY_OPERATOR])
@pytest.mark.parametrize("sources", [["a.md"], []])
@pytest.mark.parametrize("point", ["removed", "dropped"])
async def test_a_removal_that_broke_off_is_ended_by_the_same_again(policies, sources, point):
    probe = Breaking()
    async with open_knowledge(policies, probe=probe) as opened:
        await opened.knowledge.put(OPERATOR, "ops", "a.md", large("queue"))
        probe.point = point
        with pytest.raises(StoreUnavailable):
            await opened.knowledge.remove(OPERATOR, "ops", sources)
        probe.point = ""
        left = kept(opened)
        assert left > (0, 0, 0)
        with pytest.raises(PolicyDenied):
            await opened.knowledge.remove(STRANGER, "ops", sources)
        assert kept(opened) == left
        if sources:
            with pytest.raises(InputError, match="no document"):  # nobody has found it since
                await opened.knowledge.remove(OPERATOR, "ops", sources)
        else:
            assert await opened.knowledge.remove(OPERATOR, "ops", sources) == 0
        assert kept(opened) == (0, 0, 0)
        assert not opened.gate.store.scrub_due()


def retention(opened):
    gate = opened.gate

    async def enter():
        return opened.knowledge

    class Door:
        opened = staticmethod(enter)

    door: KnowledgeDoor = Door()
    return Retention(door, gate.log, gate.store, gate.clock, 30)


@pytest.mark.parametrize("what", ["written", "removed"])
async def test_retention_finds_what_broke_off_where_no_document_is_too_old(what):
    probe = Breaking()
    async with open_knowledge(probe=probe) as opened:
        if what == "written":
            probe.point = "staged"
            with pytest.raises(StoreUnavailable):
                await opened.knowledge.put(OPERATOR, "ops", "a.md", large("queue"))
        else:
            await opened.knowledge.put(OPERATOR, "ops", "a.md", large("queue"))
            probe.point = "removed"
            with pytest.raises(StoreUnavailable):
                await opened.knowledge.expire(OPERATOR, -1)
        probe.point = ""
        assert await opened.knowledge.unfinished() == ["ops"]
        assert kept(opened) > (0, 0, 0)
        assert await retention(opened).sweep() == 0
        await opened.gate.log.transact(lambda: (None, ()))  # takes the note along
        assert kept(opened) == (0, 0, 0)
        assert await opened.knowledge.unfinished() == []


async def test_words_that_are_left_over_are_told_of_and_put_in_order_by_retention(monkeypatch):
    async with open_knowledge() as opened:
        store = opened.gate.store
        await opened.knowledge.put(OPERATOR, "ops", "a.md", large("queue"))
        scrub = store.scrub_words

        def failing(_pages):
            raise StoreUnavailable("the disk has gone")

        monkeypatch.setattr(store, "scrub_words", failing)
        with pytest.raises(StoreUnavailable):
            await opened.knowledge.remove(OPERATOR, "ops", ["a.md"])
        monkeypatch.setattr(store, "scrub_words", scrub)
        await opened.gate.log.transact(lambda: (store.clear_pending(store.pending(None)), ()))
        assert (store.pending(None), await opened.knowledge.unfinished()) == ([], ["ops"])
        await retention(opened).sweep()
        assert not store.scrub_due()


@pytest.mark.parametrize("point", ["vectors", "staged"])
async def test_an_erasure_takes_the_parts_of_a_document_that_never_came_to_be(tmp_path, point):
    probe = Breaking()
    async with open_knowledge(rules=JANE, keys=FileKeyStore(tmp_path / "keys"), probe=probe) as opened:
        probe.point = point
        with pytest.raises(StoreUnavailable):
            await opened.knowledge.put(OPERATOR, "ops", "jane.md", large("queue"))
        probe.point = ""
        keys = {key for point in opened.vectors.points.values() for key in point.payload["subject"]}
        await opened.knowledge.erase([], keys)
        assert kept(opened) == (0, 0, 0)


async def test_words_of_parts_that_broke_off_do_not_outlast_that_they_are_secret(tmp_path):
    data, keys, probe = tmp_path / "data", FileKeyStore(tmp_path / "keys"), Breaking()
    async with open_knowledge(folder=data, keys=keys, probe=probe) as opened:
        probe.point = "staged"
        with pytest.raises(StoreUnavailable):
            await opened.knowledge.put(OPERATOR, "ops", "mail.md", large("zanzibar"))
    assert b"zanzibar" in every_byte(data)
    secret = Rules(rules=(Rule("mail", "mail*", classification=Confidentiality.SECRET),))
    async with open_knowledge(folder=data, keys=keys, rules=secret) as opened:
        await opened.knowledge.put(OPERATOR, "ops", "mail.md", large("zanzibar"))
        await opened.gate.log.read(opened.gate.store.let_go)
    assert b"zanzibar" not in every_byte(data)


async def test_an_erasure_takes_vectors_that_a_write_had_begun_to_make_of_nobody(tmp_path):
    data, keys, probe = tmp_path / "data", FileKeyStore(tmp_path / "keys"), Breaking()
    async with open_knowledge(folder=data, keys=keys, rules=JANE) as opened:
        await opened.knowledge.put(OPERATOR, "ops", "jane.md", large("queue"))
        vectors = opened.vectors
    async with open_knowledge(folder=data, keys=keys, probe=probe, vectors=vectors) as opened:
        probe.point = "vectors"
        with pytest.raises(StoreUnavailable):
            await opened.knowledge.put(OPERATOR, "ops", "jane.md", large("queue"))  # the chunks have the same ids
        probe.point = ""
        (hers,) = await opened.knowledge.documents()
        await opened.knowledge.put(OPERATOR, "ops", "b.md", b"# Disks")  # the note is taken away
        await opened.knowledge.erase([hers.document_id])
        assert kept(opened) == (1, 1, 1)


async def test_an_erasure_takes_vectors_of_a_last_version_that_was_about_nobody(tmp_path):
    data, keys, probe = tmp_path / "data", FileKeyStore(tmp_path / "keys"), Breaking()
    async with open_knowledge(folder=data, keys=keys) as opened:
        await opened.knowledge.put(OPERATOR, "ops", "jane.md", large("queue"))
        vectors = opened.vectors
    async with open_knowledge(folder=data, keys=keys, rules=JANE, probe=probe, vectors=vectors) as opened:
        probe.point = "rows"  # its last vectors are not taken out
        with pytest.raises(StoreUnavailable):
            await opened.knowledge.put(OPERATOR, "ops", "jane.md", large("spool"))
        probe.point = ""
        (hers,) = await opened.knowledge.documents()
        assert [len(opened.vectors.points), hers.chunks] == [60, 30]
        await opened.knowledge.erase([hers.document_id])
        assert kept(opened) == (0, 0, 0)


async def test_an_erasure_asks_an_index_of_documents_that_are_all_gone(tmp_path):
    asked = []

    class Door:
        is_open = False

        async def opened(self):
            return SimpleNamespace(erase=self.erase)

        async def erase(self, ids, keys):
            asked.append((ids, keys))

    async with open_knowledge(rules=JANE, keys=FileKeyStore(tmp_path / "keys")) as opened:
        gate = opened.gate
        await erase_documents(Door(), gate.store, gate.log, [], frozenset({"key"}))
        assert asked == []  # there never were any
        await opened.knowledge.put(OPERATOR, "ops", "jane.md", large("queue"))
        await opened.knowledge.remove(OPERATOR, "ops", ["jane.md"])
        await gate.log.transact(lambda: (None, ()))
        await erase_documents(Door(), gate.store, gate.log, [], frozenset({"key"}))
        assert asked == [([], frozenset({"key"}))]


async def test_verify_looks_at_a_collection_in_which_nothing_was_ever_finished(monkeypatch):
    async with open_knowledge() as opened:

        async def knowledge(_runtime):
            return opened.knowledge

        monkeypatch.setattr("symbi.api.knowledge._knowledge", knowledge)
        monkeypatch.setattr("symbi.api.knowledge.principal_of", lambda *_: OPERATOR)
        store = opened.gate.store
        await opened.knowledge.put(OPERATOR, "ops", "a.md", b"# Disks")
        await opened.gate.log.transact(lambda: (store.put_pending("broken", ["x"]), ()))
        seen = [(one["collection"], one["pending"], one["clean"]) for one in await verify(None, None, {})]
        assert seen == [("broken", 1, False), ("ops", 0, True)]
        assert all(one["clean"] for one in await verify(None, None, {"repair": True}))
        await opened.gate.log.transact(lambda: (None, ()))
        assert [one["collection"] for one in await verify(None, None, {})] == ["ops"]


async def test_what_may_not_be_read_by_a_model_elsewhere_may_be_removed_all_the_same(tmp_path):
    stays = (Path(library.__file__).parent / "data-flow.cedar").read_text("utf-8")
    secret = Rules({"ops": CollectionTerms(classification=Confidentiality.SECRET)})
    async with open_knowledge(ALLOW_ALL + stays, rules=secret, keys=FileKeyStore(tmp_path / "keys")) as opened:
        knowledge, store = opened.knowledge, opened.gate.store
        for name in ("a.md", "b.md", "c.md"):
            await knowledge.put(OPERATOR, "ops", name, b"# Disks")
        model = replace(opened.embedder.model, remote=True)
        here = opened.embedder.embed
        object.__setattr__(knowledge.rooms, "embedder", SimpleNamespace(model=model, embed=here))
        with pytest.raises(PolicyDenied):
            await knowledge.put(OPERATOR, "ops", "d.md", b"# Disks")
        assert await knowledge.remove(OPERATOR, "ops", ["a.md"]) == 1
        await opened.gate.log.transact(lambda: (store.put_pending("ops", ["x"]), ()))
        assert await knowledge.expire(OPERATOR, -1) == 2
        assert await knowledge.remove(OPERATOR, "ops", []) == 0
        await opened.gate.log.transact(lambda: (None, ()))
        assert store.pending(None) == []


async def test_an_erasure_of_many_documents_holds_the_store_up_for_some_at_a_time(tmp_path, monkeypatch):
    async with open_knowledge(rules=JANE, keys=FileKeyStore(tmp_path / "keys")) as opened:
        monkeypatch.setattr("symbi.knowledge.writing.ERASE_AT_ONCE", 2)
        for number in range(5):
            await opened.knowledge.put(OPERATOR, "ops", f"jane-{number}.md", b"# Jane")
        store, parts = opened.gate.store, []
        remove = store.remove_documents

        def removing(ids, *, scrub=False):
            parts.append(len(ids))
            return remove(ids, scrub=scrub)

        monkeypatch.setattr(store, "remove_documents", removing)
        await opened.knowledge.erase([one.document_id for one in await opened.knowledge.documents()])
        assert (parts, kept(opened)) == ([2, 2, 1], (0, 0, 0))
