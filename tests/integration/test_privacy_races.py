"""Erasures that something comes in the way of, and searches of what is hard to see."""

import os
from contextlib import asynccontextmanager, suppress

import anyio
import pytest

from symbi.agent.journal import RunState
from symbi.api.caller import Caller, operate
from symbi.api.control import OPERATIONS
from symbi.compliance.rooms import Order
from symbi.errors import InputError
from symbi.guard.confidential import sealed_effect
from symbi.guard.ledger import EffectRecord, EffectState
from symbi.knowledge.rules import Rule, Rules
from symbi.testing.gate import ALLOW_ALL
from symbi.testing.privacy import JANE, JOHN, STREET, opened, planted
from symbi.types import AgentId, EffectId, Principal, RecoveryClass, RunId

pytestmark = pytest.mark.anyio

OPERATOR = Principal(AgentId("symbi.operator"))


async def test_what_could_not_be_opened_any_more_is_not_said_to_have_been_searched_for(tmp_path):
    """The erasure breaks off when the keys are gone, more is recorded, and it is asked for again."""

    class Broken(Exception):
        pass

    def probe(at):
        if at == "erase.destroyed":
            raise Broken

    async with opened(tmp_path, probe=probe) as place:
        await planted(place)
        with suppress(Broken):
            await place.privacy.erase(Order(JANE))
    async with opened(tmp_path) as place:
        await place.keep("r4", {"note": "Something New"}, JANE)
        certificate = await place.privacy.erase(Order(JANE))
        assert certificate["search"]["searched_for"]["opened"] == 1
        assert certificate["search"]["opened_before"] is False


async def test_what_is_recorded_about_one_on_hold_while_an_erasure_is_begun_is_kept(tmp_path):
    async with opened(tmp_path) as place:
        await planted(place)
        await place.keep("r4", {"case": "4711"}, JOHN)
        await place.privacy.erase(Order(JANE))
        await place.keep("r5", {"name": "Jane"}, JANE)  # what both were about is gone, and holds nobody up
        await place.privacy.hold(Order(JOHN, reason="case 4711"))
        destroy = place.privacy._eraser._destroy

        async def more(course):
            await place.keep("r6", {"both": "John paid"}, JANE, JOHN)
            await destroy(course)

        place.privacy._eraser._destroy = more
        with pytest.raises(InputError) as refused:
            await place.privacy.erase(Order(JANE))
        assert refused.value.code == "privacy.held"
        assert await place.open("r6") == {"both": "John paid"}


async def test_an_error_that_a_run_has_seen_makes_it_one_about_the_subject(tmp_path):
    """What it caught it has in memory, and may record again."""
    async with opened(tmp_path) as place:
        await planted(place)
        await place.keep("r4", {}, state=RunState.RUNNING)
        keys = await place.rooms.vault.ready((JANE,))
        effect = EffectRecord(
            EffectId("e4"), RunId("r4"), 0, AgentId("work"), "InvokeTool::s.t", "Tool::s.t", "0" * 64,
            RecoveryClass.READ_ONLY, "0" * 64, b"{}", "user/public", place.rooms.store.epoch, 1, EffectState.FAILED,
            error=b'{"message":"Jane Roe lives elsewhere"}',
        )  # fmt: skip
        kept = sealed_effect(effect, keys)
        await place.rooms.log.transact(lambda: (place.rooms.store.put_effect(kept), ()))
        with pytest.raises(InputError, match="run `r4` \\(running\\)"):
            await place.privacy.erase(Order(JANE))


async def test_a_short_value_of_a_long_row_that_goes_over_the_end_of_a_page_is_found(tmp_path):
    async with opened(tmp_path) as place:
        await planted(place)

        def leak():
            with place.rooms.store.transaction():
                place.rooms.store._db.execute(
                    "CREATE TABLE notes (id TEXT PRIMARY KEY, text BLOB, more TEXT, last BLOB) STRICT"
                )
                for before in range(5000, 5000 + 4096, 6):
                    place.rooms.store._db.execute(
                        "INSERT INTO notes VALUES (?, zeroblob(?), ?, zeroblob(?))",
                        (f"n{before}", before, STREET, 10_000 - before),
                    )
            place.rooms.store.let_go()

        await place.rooms.log.read(leak)
        said = await place.privacy.scan(Order(JANE, values=(STREET,)))
        raw = {find["offset"] for find in said["finds"] if find["place"] == "symbi.db"}
        cells = {find["place"] for find in said["finds"] if find["place"].startswith("symbi.db/notes.more/n")}
        assert len(raw) < 683  # which is why cells are searched as well
        assert len(cells) == min(683, 1000 - len(raw))


async def test_a_certificate_says_how_many_values_could_not_be_opened_to_be_searched_for(tmp_path):
    async with opened(tmp_path) as place:
        await planted(place)
        flip = 'UPDATE runs SET inputs = CAST(replace(CAST(inputs AS TEXT), \'"text":"\', \'"text":"AAAA\') AS BLOB)'
        await place.rooms.log.read(lambda: place.store._db.execute(f"{flip} WHERE run_id = 'r1'"))
        certificate = await place.privacy.erase(Order(JANE))
        assert certificate["search"]["unopened"] == 1
        assert certificate["search"]["opened_before"]
        assert (await place.privacy.erase(Order(JANE)))["search"]["unopened"] == 1


@pytest.mark.parametrize(
    ("name", "says"), [("nowhere", "no approval `nowhere`"), (5, "needs `id`, a text"), (None, "needs `id`, a text")]
)
async def test_what_is_said_to_an_approval_that_is_not_there_does_not_stand_in_the_open(tmp_path, name, says):
    """Nobody can say whom it is about."""
    async with opened(tmp_path, policies='@id("all") permit (principal, action, resource);') as place:
        said = {"id": name, "digest": "0" * 64, "reason": f"lives at {STREET}"}
        with pytest.raises(InputError, match=says):
            await operate(place.runtime, OPERATIONS, Caller(os.getuid(), folder_owner=True), "approvals.deny", said)
        assert STREET.encode() not in place.bytes()


async def test_a_find_in_a_file_whose_name_is_no_text_is_told_too(tmp_path):
    async with opened(tmp_path) as place:
        await planted(place)
        odd = place.data / os.fsdecode(b"odd-\xff.txt")
        odd.write_text(STREET)
        (place.data / os.fsdecode(b"\xff")).mkdir()
        (place.data / os.fsdecode(b"\xff") / JANE).touch()
        certificate = await place.privacy.erase(Order(JANE))
        assert [find["place"] for find in certificate["search"]["finds"]] == [
            "odd-\ufffd.txt",
            "\ufffd/(name withheld)",
        ]


HERS = Rules(rules=(Rule("jane", "jane*", subjects=(JANE,)),))


@asynccontextmanager
async def documents_about_jane(folder):
    """A runtime with knowledge, in which what is about her is known by its name."""
    async with opened(folder, policies=ALLOW_ALL) as place:
        knowledge = await place.runtime.rooms.knowledge.opened()
        object.__setattr__(knowledge.rooms, "rules", HERS)
        yield place, knowledge


async def left(knowledge):
    found = await knowledge.verify(OPERATOR, "ops")
    return found.documents, found.chunks, found.vectors, found.pending


async def test_a_document_that_is_being_written_while_she_is_erased_goes_too(tmp_path, monkeypatch):
    async with documents_about_jane(tmp_path) as (place, knowledge), anyio.create_task_group() as tasks:
        reading, on, asked, done = (anyio.Event() for _ in range(4))
        extract, erase = knowledge._ingest._extract, knowledge.erase

        async def slowly(data, name):
            reading.set()
            await on.wait()
            return await extract(data, name)

        async def erasing(ids, keys=()):
            asked.set()
            await erase(ids, keys)

        async def erased():
            await place.privacy.erase(Order(JANE))
            done.set()

        monkeypatch.setattr(knowledge._ingest, "_extract", slowly)
        monkeypatch.setattr(knowledge, "erase", erasing)
        tasks.start_soon(knowledge.put, OPERATOR, "ops", "jane.md", b"# Jane\n\nJane has moved.")
        await reading.wait()  # its keys are in memory, and nothing of it is on record
        tasks.start_soon(erased)
        with anyio.fail_after(60):
            await asked.wait()
        on.set()
        await done.wait()
        assert await left(knowledge) == (0, 0, 0, 0)


async def test_a_document_that_is_written_before_her_keys_are_gone_goes_too(tmp_path):
    async with documents_about_jane(tmp_path) as (place, knowledge):
        await knowledge.put(OPERATOR, "ops", "jane.md", b"# Jane\n\nJane earns much.")
        destroy = place.privacy._eraser._destroy

        async def more(course):
            await knowledge.put(OPERATOR, "ops", "jane-2.md", b"# Jane\n\nJane has moved.")
            await destroy(course)

        place.privacy._eraser._destroy = more
        certificate = await place.privacy.erase(Order(JANE))
        assert certificate["stores"]["knowledge"] == {"what": "deleted", "places": {"knowledge_documents.body": 2}}
        assert await left(knowledge) == (0, 0, 0, 0)
