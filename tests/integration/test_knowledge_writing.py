"""How documents are written: in how few commits, what of it belongs together, and what one turn of the store holds up."""

from contextlib import asynccontextmanager, suppress

import pytest

from symbi.adapters.keys import FileKeyStore
from symbi.errors import InputError, PolicyDenied, StoreUnavailable
from symbi.knowledge.documents import EVERYTHING
from symbi.knowledge.door import KnowledgeDoor
from symbi.knowledge.readings import Reader
from symbi.knowledge.rules import Rule, Rules
from symbi.knowledge.writing import erased_as
from symbi.testing.knowledge import open_knowledge
from symbi.types import AgentId, Confidentiality, Principal
from symbi.wiring.privacy import erase_documents

pytestmark = pytest.mark.anyio

OPERATOR = Principal(AgentId("symbi.operator"))
STRANGER = Principal(AgentId("stranger"))
READER = Reader(Principal(AgentId("reader")))
MAIL = b"# Mail\n\nMail that bounces stands in the queue.\n"
DISK = b"# Disks\n\nPrune old snapshots.\n"
ALL = '@id("all") permit (principal, action, resource);\n'


def counted(opened):
    """Commits of the store from now on."""
    commits = []
    opened.gate.store.probe = lambda point: commits.append(point) if point == "committed" else None
    return commits


async def sources(opened, question="mail queue bounces"):
    return [one.citation.source for one in (await opened.knowledge.search(READER, question)).passages]


@pytest.mark.parametrize("chunks", [1, 40])
async def test_a_document_is_written_and_written_anew_in_two_commits(monkeypatch, chunks):
    monkeypatch.setattr(
        "symbi.audit.log.LINGER_S", 3600.0
    )  # what nobody waits for goes with the next, however slow this is
    text = "".join(f"# Part {number}\n\nThe queue of part {number}.\n\n" for number in range(chunks))
    async with open_knowledge() as opened:
        commits = counted(opened)
        await opened.knowledge.put(OPERATOR, "ops", "a.md", text.encode())
        assert len(commits) == 2  # the decision with the note, the outcome with the rows
        await opened.knowledge.put(OPERATOR, "ops", "a.md", text.replace("queue", "spool").encode())
        assert len(commits) == 4
        assert len(opened.vectors.points) == chunks  # those of the last version are gone when it returns
        before = len(commits)
        await opened.knowledge.put(OPERATOR, "ops", "b.md", MAIL)
        assert len(commits) == before + 2  # what was left to be noted shares them
        assert (await opened.knowledge.verify(OPERATOR, "ops")).pending == 0


async def test_a_folder_of_documents_is_written_in_as_few(tmp_path):
    for number in range(30):
        (tmp_path / f"{number}.md").write_bytes(MAIL.replace(b"queue", b"queue %d" % number))
    async with open_knowledge() as opened:
        listing = await opened.knowledge.plan("ops", tmp_path)
        commits = counted(opened)
        step = await opened.knowledge.step(OPERATOR, "ops", listing, None)
        assert (len(step.added), step.next, len(commits)) == (30, None, 2)


async def test_rows_and_outcome_are_kept_together_or_not_at_all():
    async with open_knowledge() as opened:
        seen = []

        def failing(point):
            seen.append(point)
            if seen.count("committing") == 2:
                raise StoreUnavailable("the disk is full")

        opened.gate.store.probe = failing
        with pytest.raises(StoreUnavailable, match="full"):
            await opened.knowledge.put(OPERATOR, "ops", "a.md", MAIL)
        opened.gate.store.probe = lambda _point: None
        assert [event.event_type for event in opened.gate.events()][-1] == "decision.allow"
        assert await opened.knowledge.documents() == []
        assert await sources(opened) == []
        await opened.knowledge.put(OPERATOR, "ops", "b.md", DISK)
        verified = await opened.knowledge.verify(OPERATOR, "ops")
        assert (verified.documents, verified.orphans, verified.pending, verified.clean) == (1, 0, 0, True)


async def test_where_last_vectors_cannot_be_taken_out_the_document_is_there_and_the_same_again_mends_it(monkeypatch):
    async with open_knowledge() as opened:
        await opened.knowledge.put(OPERATOR, "ops", "a.md", DISK)
        delete = type(opened.vectors).delete

        async def failing(*_):
            raise StoreUnavailable("the engine has ended")

        monkeypatch.setattr(type(opened.vectors), "delete", failing)
        with pytest.raises(StoreUnavailable, match="engine"):
            await opened.knowledge.put(OPERATOR, "ops", "a.md", MAIL)
        monkeypatch.setattr(type(opened.vectors), "delete", delete)
        assert await sources(opened) == ["a.md"]
        assert len(opened.vectors.points) == 2
        assert (await opened.knowledge.put(OPERATOR, "ops", "a.md", MAIL)).unchanged == 1
        assert len(opened.vectors.points) == 1
        assert (await opened.knowledge.verify(OPERATOR, "ops")).clean


async def test_a_write_that_breaks_off_again_and_again_leaves_its_note():
    def probe(name):
        if broken and name == "vectors":
            raise KeyboardInterrupt

    broken = True
    async with open_knowledge(probe=probe) as opened:
        for text in (MAIL, DISK, MAIL + DISK):
            with pytest.raises(KeyboardInterrupt):
                await opened.knowledge.put(OPERATOR, "ops", "a.md", text)
        broken = False
        assert len(opened.vectors.points) == 2  # of the last one alone
        await opened.knowledge.put(OPERATOR, "ops", "b.md", DISK)
        verified = await opened.knowledge.verify(OPERATOR, "ops")
        assert (verified.vectors, verified.orphans, verified.pending) == (1, 0, 0)


@pytest.mark.parametrize("policies", ["", ALL.replace("permit", '@redact("arguments.content") permit')])
async def test_what_is_not_permitted_leaves_no_note(policies):
    async with open_knowledge(policies) as opened:
        with pytest.raises(PolicyDenied):
            await opened.knowledge.put(OPERATOR, "ops", "a.md", MAIL)
        await opened.gate.log.transact(lambda: (None, ()))
        assert opened.gate.store.pending(None) == []
        assert opened.vectors.points == {}


ONLY_OPERATOR = '@id("w") permit (principal == Agent::"symbi.operator", action, resource);'


@pytest.mark.parametrize("sought", [["a.md"], ["absent.md"], ["a.md", "absent.md"], []])
async def test_whoever_may_not_remove_learns_nothing_of_what_there_is(sought):
    said = []
    async with open_knowledge(ONLY_OPERATOR) as opened:
        await opened.knowledge.put(OPERATOR, "ops", "a.md", MAIL)
        for collection in ("ops", "empty"):
            with pytest.raises(PolicyDenied) as denied:
                await opened.knowledge.remove(STRANGER, collection, sought)
            said.append((denied.value.code, denied.value.message.replace(collection, "it"), denied.value.hint))
        assert said[0] == said[1]
        assert len(await opened.knowledge.documents()) == 1
        with pytest.raises(InputError, match=r"no document `absent.md`"):
            await opened.knowledge.remove(OPERATOR, "ops", ["a.md", "absent.md"])
        assert len(await opened.knowledge.documents()) == 1
        assert await opened.knowledge.remove(OPERATOR, "empty", []) == 0
        assert await opened.knowledge.remove(OPERATOR, "ops", []) == 1


async def test_whoever_may_not_write_is_not_told_what_a_document_says():
    async with open_knowledge(ONLY_OPERATOR) as opened:
        await opened.knowledge.put(OPERATOR, "ops", "a.md", MAIL)
        for guess in (MAIL, DISK):
            with pytest.raises(PolicyDenied):
                await opened.knowledge.put(STRANGER, "ops", "a.md", guess)
        assert (await opened.knowledge.put(OPERATOR, "ops", "a.md", MAIL)).unchanged == 1


JANE = Rules(rules=(Rule("jane", "jane*", subjects=("jane@example.com",)),))


@pytest.mark.parametrize("noted", [True, False])
async def test_an_erasure_opens_knowledge_where_a_write_broke_off_and_nowhere_else(noted):
    async with open_knowledge() as opened:
        gate, asked = opened.gate, []

        @asynccontextmanager
        async def opening():
            asked.append("opened")
            yield opened.knowledge

        if noted:
            await gate.log.transact(lambda: (gate.store.put_pending("ops", ["x"]), ()))
        async with KnowledgeDoor(opening) as door:
            await erase_documents(door, gate.store, gate.log, [], frozenset())
        assert asked == ["opened"] * noted


@pytest.mark.parametrize("point", ["vectors", "rows"])
async def test_an_erasure_finds_what_a_write_left_that_broke_off(tmp_path, point):
    def probe(name):
        if broken and name == point:
            raise KeyboardInterrupt

    broken = False
    async with open_knowledge(rules=JANE, keys=FileKeyStore(tmp_path / "keys"), probe=probe) as opened:
        await opened.knowledge.put(OPERATOR, "ops", "mail.md", MAIL)
        others = dict(opened.vectors.points)
        broken = True
        with pytest.raises(KeyboardInterrupt):
            await opened.knowledge.put(OPERATOR, "ops", "jane.md", b"# Jane\n\nJane earns much.")
        broken = False
        (hers,) = (one for one in opened.vectors.points.values() if one.id not in others)
        keys = set(hers.payload["subject"]) - {erased_as(hers.payload["document"])}
        rows = [one.document_id for one in await opened.knowledge.documents() if one.source == "jane.md"]
        assert len(rows) == (point == "rows")
        await opened.knowledge.erase(rows, keys)
        assert opened.vectors.points == others
        assert [one.source for one in await opened.knowledge.documents()] == ["mail.md"]


# --- folders of one name ----------------------------------------------------------------------------


async def add(opened, path, name="", principal=OPERATOR, *, moved=False):
    _, step = await opened.knowledge.add(principal, "ops", path, name, moved=moved)
    assert step.next is None
    return step


async def test_folders_of_one_name_do_not_take_each_others_documents_out(tmp_path):
    one, other = tmp_path / "one/runbook", tmp_path / "other/runbook"
    for folder, name, text in ((one, "mail.md", MAIL), (other, "disk.md", DISK)):
        folder.mkdir(parents=True)
        (folder / name).write_bytes(text)
    async with open_knowledge(ONLY_OPERATOR) as opened:
        await add(opened, one)
        with pytest.raises(InputError) as refused:
            await add(opened, other)
        assert refused.value.code == "knowledge.another_folder"
        assert str(one.resolve()) in refused.value.message
        assert "--as" in str(refused.value.hint)
        with pytest.raises(PolicyDenied):  # whoever may not write is not told from where it comes
            await add(opened, other, principal=STRANGER)
        assert [one.source for one in await opened.knowledge.documents()] == ["runbook/mail.md"]
        await add(opened, other, "disks")
        assert (await add(opened, one)).unchanged == 1
        link = tmp_path / "link"
        link.symlink_to(one)
        assert (await add(opened, link, "runbook")).unchanged == 1  # by its real path it is the same
        assert {one.source for one in await opened.knowledge.documents()} == {"runbook/mail.md", "disks/disk.md"}


async def test_a_folder_that_has_moved_is_read_again_where_that_is_said(tmp_path):
    before, after = tmp_path / "before/runbook", tmp_path / "after/runbook"
    before.mkdir(parents=True)
    (before / "mail.md").write_bytes(MAIL)
    (before / "disk.md").write_bytes(DISK)
    async with open_knowledge() as opened:
        await add(opened, before)
        after.parent.mkdir()
        before.rename(after)
        (after / "disk.md").unlink()
        with pytest.raises(InputError, match="not from"):
            await add(opened, after)
        step = await add(opened, after, moved=True)
        assert (step.unchanged, step.removed) == (1, ["runbook/disk.md"])
        assert (await add(opened, after)).unchanged == 1  # once is enough
        await opened.knowledge.remove(OPERATOR, "ops", [])
        before.mkdir()
        (before / "mail.md").write_bytes(MAIL)
        assert (await add(opened, before)).added == ["runbook/mail.md"]  # nothing was left to be taken out


async def test_a_file_that_is_read_alone_does_not_take_the_place_of_anothers(tmp_path):
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mail.md").write_bytes(MAIL + folder.encode())
    async with open_knowledge() as opened:
        await add(opened, tmp_path / "one/mail.md")
        with pytest.raises(InputError, match=r"`mail.md` in `ops`"):
            await add(opened, tmp_path / "other/mail.md")
        await add(opened, tmp_path / "other/mail.md", "other")
        assert {one.source for one in await opened.knowledge.documents()} == {"mail.md", "other/mail.md"}


# --- what one turn of the store holds up ------------------------------------------------------------


async def test_documents_of_many_chunks_are_written_and_removed_a_bounded_part_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr("symbi.knowledge.writing.CHUNKS_AT_ONCE", 8)
    for number in range(12):
        text = "".join(f"# Part {part} of {number}\n\nThe queue of {part}.\n\n" for part in range(3))
        (tmp_path / f"{number}.md").write_text(text)
    most = []
    async with open_knowledge() as opened:
        store = opened.gate.store
        put, remove = store.put_documents, store.remove_documents

        def putting(documents):
            most.append(sum(len(chunks) for _, chunks in documents))
            put(documents)

        def removing(ids, *, scrub=False):
            if scrub:
                most.append(3 * len(ids))
            return remove(ids, scrub=scrub)

        monkeypatch.setattr(store, "put_documents", putting)
        monkeypatch.setattr(store, "remove_documents", removing)
        await add(opened, tmp_path, "docs")
        assert (sum(most), max(most)) == (36, 6)
        most.clear()
        assert await opened.knowledge.remove(OPERATOR, "ops", []) == 12
        assert (sum(most), max(most)) == (36, 6)
        assert opened.vectors.points == {}


def large(word, parts=30):
    return "".join(f"# Part {part}\n\nThe {word} of part {part}.\n\n" for part in range(parts)).encode()


def count(opened, table):
    return opened.gate.store._one(f"SELECT count(*) FROM {table}")[0]


@pytest.fixture
def small_parts(monkeypatch):
    for name in ("symbi.knowledge.writing", "symbi.adapters.sqlite.knowledge"):
        monkeypatch.setattr(f"{name}.CHUNKS_AT_ONCE", 8)


@pytest.mark.usefixtures("small_parts")
async def test_one_large_document_is_put_in_part_by_part_and_found_whole_or_not_at_all(monkeypatch):
    seen, most = [], []

    def found(word):
        store = opened.gate.store
        return len(store.search_words([word], list(store.accesses("ops")), EVERYTHING, 100))

    async with open_knowledge(probe=lambda point: seen.append((point, found("queue"), found("spool")))) as opened:
        store, commit = opened.gate.store, opened.gate.log._commit

        def counting(units):
            before = store._db.total_changes
            opened_before = {row[0] for row in store._all("SELECT number FROM knowledge_chunks")}
            commit(units)
            after = {row[0] for row in store._all("SELECT number FROM knowledge_chunks")}
            most.append(len(opened_before ^ after))
            assert store._db.total_changes >= before

        monkeypatch.setattr(opened.gate.log, "_commit", counting)
        await opened.knowledge.put(OPERATOR, "ops", "a.md", large("queue"))
        assert (sum(most), max(most)) == (30, 8)
        assert {both for point, *both in seen if point == "staged" for both in [tuple(both)]} == {(0, 0)}
        assert found("queue") == 30
        seen.clear()
        await opened.knowledge.put(OPERATOR, "ops", "a.md", large("spool"))
        assert max(most) == 8
        assert {tuple(both) for point, *both in seen if point == "staged"} == {(30, 0)}
        assert {tuple(both) for point, *both in seen if point in {"rows", "dropped"}} == {(0, 30)}
        assert count(opened, "knowledge_chunks") == count(opened, "knowledge_words") == len(opened.vectors.points) == 30
        await opened.knowledge.put(OPERATOR, "ops", "a.md", large("spool") + b"# Last\n\nThe spool of the end.\n")
        assert (count(opened, "knowledge_chunks"), found("spool")) == (31, 31)
        most.clear()
        assert await opened.knowledge.remove(OPERATOR, "ops", ["a.md"]) == 1
        assert max(most) == 8
        assert (count(opened, "knowledge_chunks"), count(opened, "knowledge_words")) == (0, 0)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("what", ["new", "changed", "removed", "erased"])
@pytest.mark.parametrize("point", ["vectors", "staged", "rows", "forgotten", "removed", "dropped"])
async def test_a_large_document_that_breaks_off_anywhere_leaves_nothing_once_something_is_written(
    tmp_path, what, point
):
    left: list[str] = []
    nth = 2 if point in {"staged", "dropped"} else 1
    broken = False

    def probe(name):
        left.append(name)
        if broken and name == point and left.count(name) == nth:
            raise KeyboardInterrupt

    rules, keys = (JANE, FileKeyStore(tmp_path / "keys")) if what == "erased" else (Rules(), None)
    async with open_knowledge(probe=probe, rules=rules, keys=keys) as opened:
        if what != "new":
            await opened.knowledge.put(OPERATOR, "ops", "jane.md", large("queue"))
        left.clear()
        broken = True
        with suppress(KeyboardInterrupt):
            if what == "erased":
                await opened.knowledge.erase([one.document_id for one in await opened.knowledge.documents()])
            elif what == "removed":
                await opened.knowledge.remove(OPERATOR, "ops", ["jane.md"])
            else:
                await opened.knowledge.put(OPERATOR, "ops", "jane.md", large("spool"))
        broken = False
        store = opened.gate.store
        for word in ("queue", "spool"):
            assert len(store.search_words([word], list(store.accesses("ops")), EVERYTHING, 100)) in {0, 30}
        await opened.knowledge.put(OPERATOR, "ops", "b.md", DISK)
        verified = await opened.knowledge.verify(OPERATOR, "ops")
        assert (verified.clean, verified.orphans, verified.missing, verified.pending) == (True, 0, 0, 0)
        assert (
            count(opened, "knowledge_chunks") == count(opened, "knowledge_words") == verified.chunks == verified.vectors
        )


@pytest.mark.usefixtures("small_parts")
async def test_a_large_document_that_is_sealed_from_now_on_leaves_no_plain_word(tmp_path):
    data, keys = tmp_path / "data", FileKeyStore(tmp_path / "keys")
    async with open_knowledge(folder=data, keys=keys) as opened:
        await opened.knowledge.put(OPERATOR, "ops", "mail.md", large("zanzibar"))
    rules = Rules(rules=(Rule("mail", "mail*", subjects=("jane@example.com",)),))  # the chunks have the same ids
    async with open_knowledge(folder=data, keys=keys, rules=rules) as opened:
        await opened.knowledge.put(OPERATOR, "ops", "mail.md", large("zanzibar"))
        assert (count(opened, "knowledge_chunks"), count(opened, "knowledge_words")) == (30, 0)
        assert (await opened.knowledge.verify(OPERATOR, "ops")).clean
        await opened.gate.log.read(opened.gate.store.let_go)
    assert b"zanzibar" not in b"".join(path.read_bytes() for path in data.iterdir() if path.is_file())
    async with open_knowledge(folder=data, keys=keys) as opened:
        await opened.knowledge.put(OPERATOR, "ops", "mail.md", large("zanzibar"))
        assert (count(opened, "knowledge_chunks"), count(opened, "knowledge_words")) == (30, 30)
        assert (await opened.knowledge.verify(OPERATOR, "ops")).clean


async def test_the_index_of_words_is_written_anew_a_few_pages_at_a_time_and_by_the_next_write_after_a_break(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("symbi.knowledge.writing.SCRUB_PAGES", 1)
    data = tmp_path / "data"
    words = [f"w{number:05}" for number in range(4_000)]
    async with open_knowledge(folder=data) as opened:
        for first in range(0, len(words), 200):
            await opened.knowledge.put(OPERATOR, "ops", f"{first}.txt", " ".join(words[first : first + 200]).encode())
        await opened.knowledge.put(OPERATOR, "ops", "mail.md", MAIL.replace(b"bounces", b"zanzibar"))
        scrub, turns = opened.gate.store.scrub_words, []

        def breaking(pages):
            turns.append(pages)
            if len(turns) == 3:
                raise StoreUnavailable("the disk has gone")
            return scrub(pages)

        monkeypatch.setattr(opened.gate.store, "scrub_words", breaking)
        with pytest.raises(StoreUnavailable):
            await opened.knowledge.remove(OPERATOR, "ops", ["mail.md"])
        assert opened.gate.store.scrub_due()
        assert "mail.md" not in await sources(opened, "zanzibar")
    async with open_knowledge(folder=data) as opened:
        await opened.knowledge.put(OPERATOR, "ops", "disk.md", DISK)
        assert not opened.gate.store.scrub_due()
        await opened.gate.log.read(opened.gate.store.let_go)
    stored = b"".join(path.read_bytes() for path in data.iterdir() if path.is_file())
    assert b"w00007" in stored
    assert b"zanzibar" not in stored
    assert set(turns) == {1}
    assert len(turns) == 3


async def test_what_one_document_takes_does_not_grow_with_the_collection():
    steps = []
    async with open_knowledge() as opened:
        store = opened.gate.store

        async def asked():
            count = 0

            def step():
                nonlocal count
                count += 1

            store._db.set_progress_handler(step, 10)
            assert len(store.versions("ops", ["0.txt"])) == 1
            store._db.set_progress_handler(None, 0)
            steps.append(count)

        await opened.knowledge.put(OPERATOR, "ops", "0.txt", b"one text")
        await asked()
        for number in range(1, 60):
            await opened.knowledge.put(OPERATOR, "ops", f"{number}.txt", b"another text")
        await asked()
    assert steps[1] <= steps[0] + 1


async def test_a_secret_takes_the_place_of_plain_words_before_it_is_acknowledged(tmp_path):
    data, keys = tmp_path / "data", FileKeyStore(tmp_path / "keys")
    async with open_knowledge(folder=data, keys=keys) as opened:
        await opened.knowledge.put(OPERATOR, "ops", "mail.md", MAIL)
    rules = Rules(rules=(Rule("mail", "mail*", classification=Confidentiality.SECRET),))
    async with open_knowledge(folder=data, keys=keys, rules=rules) as opened:
        await opened.knowledge.put(OPERATOR, "ops", "mail.md", MAIL)
        assert not opened.gate.store.scrub_due()
        await opened.gate.log.read(opened.gate.store.let_go)
    stored = b"".join(path.read_bytes() for path in data.iterdir() if path.is_file())
    assert b"bounc" not in stored
