"""Exports, holds and erasures over a store that holds something sealed about two people."""

import json
import os
import shutil
import sqlite3
from contextlib import suppress

import anyio
import pytest

from symbi.adapters import archive
from symbi.agent.journal import RunState
from symbi.audit.event import AuditEventType as T
from symbi.audit.event import Draft
from symbi.compliance.certificate import certificate_digest, verify_certificate
from symbi.compliance.rooms import Order
from symbi.compliance.sealed import MARKED
from symbi.errors import ConfigError, DecryptionFailed, InputError, StoreUnavailable
from symbi.guard.confidential import confided
from symbi.testing.privacy import CITY, JANE, JOHN, STREET, opened, planted
from symbi.types import AgentId

pytestmark = pytest.mark.anyio


async def test_an_export_has_what_can_be_opened_and_where_it_stands(tmp_path):
    async with opened(tmp_path) as place:
        await planted(place)
        said = await place.privacy.export(Order(JANE.upper(), reason="letter of 3 May"))
        assert [
            (one["place"], one["record"], one["run"], one["also_about"], one["value"]) for one in said["records"]
        ] == [
            ("runs.inputs", "r1", "r1", 0, {"name": "Jane Roe", "street": STREET}),
            ("runs.inputs", "r3", "r3", 1, {"both": "Jane owes John"}),
        ]
        assert said["subject"] == JANE
        (event,) = await place.events(T.SUBJECT_EXPORTED)
        assert event.details["pseudonym"] == said["pseudonym"]
        assert (event.details["records"], event.details["reason"]) == (2, "letter of 3 May")
        assert "jane" not in json.dumps(event.details).lower()


async def test_erasing_takes_the_subject_out_of_every_file_and_leaves_others(tmp_path):
    async with opened(tmp_path) as place:
        await planted(place)
        keys = await place.rooms.log.read(lambda: place.rooms.keys_of(JANE))
        wrapped = keys.living[0].wrapped
        assert wrapped in place.bytes()
        certificate = await place.privacy.erase(Order(JANE, by={"uid": 7, "person": "ada"}))
        assert wrapped not in place.bytes()
        assert certificate["search"]["clean"]
        assert certificate["search"]["searched_for"]["key"] == 2
        assert certificate["search"]["searched_for"]["opened"] == 3  # the name, the street, and what was about both
        assert certificate["stores"]["runs"] == {"what": "lost its key", "places": {"runs.inputs": 2}}
        assert [key["key_id"] for key in certificate["keys"]] == [keys.living[0].key_id]
        key = place.rooms.signing()
        verify_certificate(certificate, {key.key_id: key.verifying_key()})
        (event,) = await place.events(T.SUBJECT_ERASED)
        assert event.details["certificate"] == certificate_digest(certificate)
        assert await place.open("r2") == {"city": CITY}
        for run in ("r1", "r3"):
            with pytest.raises(DecryptionFailed) as refused:
                await place.open(run)
            assert refused.value.fields["reason"] == "erased"
        again = await place.privacy.export(Order(JANE))
        assert {one["unopened"] for one in again["records"]} == {"erased"}
        assert (again["unopened"], again["erased"]) == (0, 2)  # a copy without what was erased lacks nothing
        (event,) = await place.events(T.SUBJECT_EXPORTED)
        assert (event.details["unopened"], event.details["erased"]) == (0, 2)
        assert all(one["value"] is None for one in again["records"])


async def test_a_leak_is_found_and_told_by_place_and_not_by_what_it_says(tmp_path):
    async with opened(tmp_path) as place:
        await planted(place)
        (place.data / "note.txt").write_bytes(b"x" * 100 + STREET.encode("utf-16-le"))
        (place.data / f"about {JANE}.txt").write_text("nothing")
        certificate = await place.privacy.erase(Order(JANE, values=("AC-7781",)))
        assert not certificate["search"]["clean"]
        assert certificate["search"]["residue"] == 2
        finds = {(one["place"], one["offset"], one["sought"], one["form"]) for one in certificate["search"]["finds"]}
        assert finds == {
            ("note.txt", 100, "opened", "utf-16-le"),
            ("(name withheld)", 0, "name", "file name, plain"),
        }
        assert JANE not in json.dumps(certificate)
        assert STREET not in json.dumps(certificate)
        (event,) = await place.events(T.SUBJECT_ERASED)
        assert event.details["residue"] == 2
        assert (event.details["unread"], event.details["left_out"]) == (0, 0)
        (place.data / "note.txt").unlink()
        (place.data / f"about {JANE}.txt").unlink()
        (place.data / "late.txt").write_text("AC-7781")
        assert (await place.privacy.erase(Order(JANE, values=("AC-7781",))))["search"]["residue"] == 1
        (place.data / "late.txt").unlink()
        assert (await place.privacy.erase(Order(JANE, values=("AC-7781",))))["search"]["clean"]


async def test_old_bytes_in_the_free_room_of_the_store_are_found_and_written_over(tmp_path):
    async with opened(tmp_path) as place:
        await planted(place)

        def leave():
            db = place.rooms.store._db  # as a release before this one left it
            db.execute("PRAGMA secure_delete = OFF")
            db.execute("CREATE TABLE old (text TEXT)")
            db.executemany("INSERT INTO old VALUES (?)", [(STREET + "." * 500,)] * 50)
            db.execute("DROP TABLE old")
            db.execute("PRAGMA secure_delete = ON")
            place.rooms.store.let_go()

        await place.rooms.log.read(leave)
        assert STREET.encode() in (place.data / "symbi.db").read_bytes()
        certificate = await place.privacy.erase(Order(JANE))
        assert certificate["search"]["clean"]
        assert STREET.encode() not in place.bytes()


async def test_a_leak_across_two_pages_of_the_store_is_found(tmp_path):
    async with opened(tmp_path) as place:
        await planted(place)

        def leak():
            with place.rooms.store.transaction():
                place.rooms.store._db.execute("CREATE TABLE notes (id TEXT PRIMARY KEY, text BLOB) STRICT")
                for before in range(5000, 5000 + 4096, 12):  # at every place of a page; of some it goes over the end
                    text = b"." * before + STREET.encode() + b"." * (10_000 - before)
                    place.rooms.store._db.execute("INSERT INTO notes VALUES (?, ?)", (f"n{before}", text))
            place.rooms.store.let_go()

        await place.rooms.log.read(leak)
        said = await place.privacy.scan(Order(JANE, values=(STREET,)))
        raw = {find["offset"] for find in said["finds"] if find["place"] == "symbi.db"}
        cells = {find["place"] for find in said["finds"] if find["place"].startswith("symbi.db/notes.text/n")}
        assert len(cells) == 342
        assert len(raw) < 342  # which is why cells are searched as well


async def test_a_hold_refuses_an_erasure_until_it_is_released(tmp_path):
    async with opened(tmp_path) as place:
        await planted(place)
        await place.privacy.hold(Order(JANE, reason="case 4711"))
        with pytest.raises(InputError, match="legal hold") as refused:
            await place.privacy.erase(Order(JANE))
        assert refused.value.code == "privacy.held"
        assert await place.open("r1") == {"name": "Jane Roe", "street": STREET}
        rows = {row["name"]: row for row in await place.privacy.listed()}
        assert rows[JANE]["hold"]["reason"] == "case 4711"
        assert rows[JOHN]["hold"] is None
        assert "case 4711" not in json.dumps(await place.privacy.export(Order(JANE)))  # she need not learn of it so
        await place.privacy.release(Order(JANE))
        with pytest.raises(InputError, match="no hold"):
            await place.privacy.release(Order(JANE))
        assert (await place.privacy.erase(Order(JANE)))["search"]["clean"]
        assert [len(await place.events(kind)) for kind in (T.SUBJECT_HELD, T.SUBJECT_RELEASED, T.SUBJECT_ERASED)] == [
            1,
            1,
            1,
        ]
        rows = {row["pseudonym"]: row for row in await place.privacy.listed()}
        row = rows[place.privacy.pseudonym(JANE)]
        assert (row["name"], row["living_keys"], row["destroyed_keys"]) == (None, 0, 1)
        assert row["erasure"]["state"] == "certified"


async def test_a_subject_can_be_held_before_anything_is_kept_of_it(tmp_path):
    async with opened(tmp_path) as place:
        await place.privacy.hold(Order(JANE, reason="case 4711"))
        await place.keep("r1", {"street": STREET}, JANE)
        with pytest.raises(InputError, match="legal hold"):
            await place.privacy.erase(Order(JANE))


@pytest.mark.parametrize("reason", [JANE, "about JANE@example.com", "Jane asked", "x" * 501, "two\nlines"])
def test_a_reason_that_would_put_the_name_on_the_trail_is_refused(reason):
    with pytest.raises(InputError) as refused:
        Order(JANE, reason=reason)
    assert refused.value.code == "privacy.reason"
    assert "jane" not in str(refused.value).lower()


@pytest.mark.parametrize(
    ("subject", "reason"),
    [
        ("zoe.krueger@example.com", "letter of Zoe Krueger"),
        ("zo\u00eb@example.com", "Zoe\u0308 asked"),
        ("zoe@example.com", "cancelled by customer 7781"),
    ],
)
def test_a_reason_tells_neither_part_of_the_name_nor_a_value(subject, reason):
    with pytest.raises(InputError) as refused:
        Order(subject, reason=reason, values=("Customer 7781",))
    assert refused.value.code == "privacy.reason"
    Order(subject, reason="letter of 3 May, a krueg", values=("Customer 7781",))


async def test_what_is_under_way_refuses_an_erasure_unless_it_is_included(tmp_path):
    async with opened(tmp_path) as place:
        await planted(place)
        await place.keep("r4", {"street": STREET}, JANE, state=RunState.HELD)
        with pytest.raises(InputError, match="run `r4` \\(held\\)") as refused:
            await place.privacy.erase(Order(JANE))
        assert refused.value.code == "privacy.open"
        assert await place.open("r4") == {"street": STREET}
        await place.privacy.erase(Order(JOHN))  # is about nobody else
        certificate = await place.privacy.erase(Order(JANE, include_open=True))
        assert certificate["open"] == [{"kind": "run", "id": "r4", "state": "held"}]


async def test_who_is_unknown_has_nothing_to_erase_and_a_search_is_made_all_the_same(tmp_path):
    async with opened(tmp_path) as place:
        for ask in (place.privacy.erase, place.privacy.export):
            with pytest.raises(InputError, match="nothing is kept about this subject") as refused:
                await ask(Order("nobody@example.com"))
            assert "nobody" not in str(refused.value)
        (place.data / "x").write_text("nobody@example.com")
        assert (await place.privacy.scan(Order("nobody@example.com")))["residue"] == 1
        assert not await place.events(T.SUBJECT_ERASED)


async def test_without_the_master_key_nobody_is_found_and_nothing_is_done(tmp_path):
    async with opened(tmp_path) as place:
        await planted(place)
    (tmp_path / ".symbi" / "keys" / "sealing-master.key").unlink()
    async with opened(tmp_path) as place:
        for ask in (place.privacy.erase, place.privacy.export, place.privacy.scan):
            with pytest.raises(ConfigError, match="sealing-master"):
                await ask(Order(JANE))
        assert not (tmp_path / ".symbi" / "keys" / "sealing-master.key").exists()
        assert not await place.events(T.SUBJECT_ERASED)


async def test_a_reader_that_holds_old_pages_delays_the_certificate_and_asking_again_finishes(tmp_path):
    async with opened(tmp_path) as place:
        await planted(place)
        reader = sqlite3.connect(place.data / "symbi.db", isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM events").fetchone()
        with pytest.raises(StoreUnavailable, match="a reader still holds old pages"):
            await place.privacy.erase(Order(JANE))
        assert not await place.events(T.SUBJECT_ERASED)
        rows = {row["pseudonym"]: row for row in await place.privacy.listed()}
        assert rows[place.privacy.pseudonym(JANE)]["erasure"]["state"] == "destroyed"
        reader.close()
        certificate = await place.privacy.erase(Order(JANE))
        assert certificate["search"]["clean"]
        assert not certificate["search"]["opened_before"]  # it says so: nobody knows the values any more
        assert certificate["stores"]["runs"]["places"] == {"runs.inputs": 2}


@pytest.mark.parametrize(
    "point", ["gathered", "stores", "in-transaction", "destroyed", "let-go", "searched", "certified"]
)
async def test_an_erasure_that_breaks_off_is_finished_by_asking_again(tmp_path, point):
    class Broken(Exception):
        pass

    def probe(at):
        if at == f"erase.{point}":
            raise Broken

    async with opened(tmp_path, probe=probe) as place:
        await planted(place)
        with suppress(Broken):
            await place.privacy.erase(Order(JANE))
        living = (await place.rooms.log.read(lambda: place.rooms.keys_of(JANE))).living
        erased = await place.events(T.SUBJECT_ERASED)
        assert bool(living) is (point in {"gathered", "stores", "in-transaction"})
        assert bool(erased) is (point == "certified")
    async with opened(tmp_path) as place:
        certificate = await place.privacy.erase(Order(JANE))
        assert certificate["search"]["clean"]
        assert certificate["stores"]["runs"]["places"] == {"runs.inputs": 2}
        assert await place.open("r2") == {"city": CITY}
        assert certificate_digest(certificate) in {
            event.details["certificate"] for event in await place.events(T.SUBJECT_ERASED)
        }


async def test_what_is_recorded_while_an_erasure_goes_on_is_never_certified_as_gone(tmp_path):
    async with opened(tmp_path) as place:
        await planted(place)
        let_go = place.rooms.store.let_go

        def more(*, rewrite=False):
            with place.rooms.store.transaction():
                place.rooms.vault.keys_now((JANE,))
            let_go(rewrite=rewrite)

        place.rooms.store.let_go = more
        with pytest.raises(InputError, match="more about subject") as refused:
            await place.privacy.erase(Order(JANE))
        assert refused.value.code == "privacy.again"
        assert not await place.events(T.SUBJECT_ERASED)
        place.rooms.store.let_go = let_go
        certificate = await place.privacy.erase(Order(JANE))
        assert len(certificate["keys"]) == 2


async def test_a_hold_on_anybody_keeps_what_is_about_more_people_than_are_named(tmp_path):
    async with opened(tmp_path) as place:
        await planted(place)
        await place.keep("r9", {"all": "of many people"}, "*")
        await place.privacy.hold(Order("zoe@example.com", reason="case 4711"))
        with pytest.raises(InputError, match="so many subjects") as refused:
            await place.privacy.erase(Order(JANE))
        assert refused.value.code == "privacy.held"
        assert await place.open("r1") == {"name": "Jane Roe", "street": STREET}


async def test_others_go_on_while_somebody_is_erased(tmp_path):
    async with opened(tmp_path) as place:
        await planted(place)
        ended = anyio.Event()
        kept = []

        async def go_on():
            while not ended.is_set():
                await place.keep(f"n{len(kept)}", {"city": CITY, "n": len(kept)}, JOHN)
                kept.append(len(kept))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(go_on)
            certificate = await place.privacy.erase(Order(JANE))
            ended.set()
        assert certificate["search"]["clean"]
        assert len(kept) > 1
        for number in kept:
            assert await place.open(f"n{number}") == {"city": CITY, "n": number}
        with pytest.raises(DecryptionFailed):
            await place.open("r1")


async def test_a_hold_keeps_what_is_about_another_too(tmp_path):
    async with opened(tmp_path) as place:
        await planted(place)
        await place.privacy.hold(Order(JOHN, reason="case 4711"))
        with pytest.raises(InputError, match="also about one who is under a legal hold") as refused:
            await place.privacy.erase(Order(JANE))
        assert refused.value.code == "privacy.held"
        assert await place.open("r3") == {"both": "Jane owes John"}
        await place.privacy.release(Order(JOHN))
        assert (await place.privacy.erase(Order(JANE)))["search"]["clean"]


async def test_a_hold_that_comes_while_an_erasure_is_begun_is_seen(tmp_path):
    async with opened(tmp_path) as place:
        await planted(place)
        destroy = place.privacy._eraser._destroy

        async def held(course):
            await place.privacy.hold(Order(JOHN, reason="case 4711"))
            await destroy(course)

        place.privacy._eraser._destroy = held
        with pytest.raises(InputError, match="a hold was put on somebody"):
            await place.privacy.erase(Order(JANE))
        assert await place.open("r3") == {"both": "Jane owes John"}


async def test_what_only_looks_sealed_stands_in_nobodys_way(tmp_path):
    async with opened(tmp_path) as place:
        await planted(place)
        keys = await place.rooms.log.read(lambda: place.rooms.keys_of(JANE))
        for number, like in enumerate(
            ({"keys": ["x"], "text": 7}, {"keys": [keys.rows[0].key_id], "text": "AAAA"}, [])
        ):
            await place.keep(f"t{number}", {"sealed": like})
        said = await place.privacy.export(Order(JANE))
        assert [one["run"] for one in said["records"]] == ["r1", "r3"]
        assert (await place.privacy.erase(Order(JANE)))["search"]["clean"]
        assert await place.open("t1") == {"sealed": {"keys": [keys.rows[0].key_id], "text": "AAAA"}}


async def test_events_that_have_left_the_live_store_are_exported_and_erased_too(tmp_path, monkeypatch):
    event = Draft(T.RUN_STARTED, AgentId("work"), {"file": "/f", "arguments": {"street": STREET}}, "r7")
    storage = tmp_path / "storage"
    async with opened(tmp_path, config='[audit]\nstorage = "storage"\n') as place:
        keys = await place.rooms.vault.ready((JANE,))
        receipt = await place.rooms.log.append(confided(event, keys))
        assert receipt.sequence == 5
        await place.rooms.log.append(Draft(T.RUN_STARTED, AgentId("work"), {"file": "/f"}, "r8"))
        stored = await place.rooms.log.read(lambda: list(place.rooms.store.read(1)))
        for name, part in (("1", stored[:3]), ("2", stored[3:])):
            (storage / name).mkdir(parents=True)
            (storage / name / "events.jsonl").write_bytes(b"".join(one.record + b"\n" for one in part))
        said = await place.privacy.export(Order(JANE))
        assert [one["place"] for one in said["records"]] == ["events.record"]  # not twice
        monkeypatch.setattr(archive, "LINES_AT_ONCE", 1)
        await place.rooms.log.read(lambda: place.rooms.store._db.execute("DELETE FROM events WHERE sequence <= 5"))
        said = await place.privacy.export(Order(JANE))
        assert [(one["place"], one["record"], one["value"]["arguments"]) for one in said["records"]] == [
            ("archive.record", str(receipt.sequence), {"street": STREET}),
        ]
        certificate = await place.privacy.erase(Order(JANE))
        assert certificate["stores"]["archive"]["places"] == {"archive.record": 1}
        assert certificate["search"]["clean"]


async def test_a_segment_that_is_just_being_written_has_no_name_and_is_still_live(tmp_path, monkeypatch):
    """The archive is read while the trail is kept: folders go, and get their names, as they are listed."""
    half, gone, listed = tmp_path / "t" / ".000002.partial", tmp_path / "gone", os.scandir
    for folder, data in ((tmp_path / "t" / "000001", b""), (half, b"{" + MARKED), (gone, b"")):
        folder.mkdir(parents=True)
        (folder / "events.jsonl").write_bytes(data)

    def passing(path):
        if str(path) == str(gone):
            shutil.rmtree(gone)
        return listed(path)

    monkeypatch.setattr(os, "scandir", passing)
    trail = archive.ArchivedTrail(tmp_path, None)
    assert trail.page("", 10) == ([], None)
    assert not gone.exists()
    assert trail._files() == [tmp_path / "t" / "000001" / "events.jsonl"]
    half.rename(tmp_path / "t" / "000002")
    with pytest.raises(StoreUnavailable, match="holds a line that is no event"):
        trail.page(f"{tmp_path}/t/000002/events.jsonl:0", 10)


async def test_an_archive_that_cannot_be_listed_is_an_error(tmp_path, monkeypatch):
    def refused(path):
        raise PermissionError(13, "no", str(path))

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(StoreUnavailable, match="cannot read"):
        archive.ArchivedTrail(tmp_path, None).page("", 10)


async def test_values_about_more_people_than_are_named_go_with_any_of_them(tmp_path):
    async with opened(tmp_path) as place:
        await planted(place)
        await place.keep("r9", {"all": "of many people"}, "*")
        assert (await place.privacy.export(Order(JANE)))["among_many"] == 1
        certificate = await place.privacy.erase(Order(JANE))
        assert [key["of_many"] for key in certificate["keys"]] == [False, True]
        assert certificate["stores"]["runs"]["places"] == {"runs.inputs": 3}
        with pytest.raises(DecryptionFailed):
            await place.open("r9")
        assert await place.open("r2") == {"city": CITY}
