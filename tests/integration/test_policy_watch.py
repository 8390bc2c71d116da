"""Policy files that change while a runtime is alive: taken up once they have settled, or refused as a whole."""

import os
from contextlib import asynccontextmanager

import anyio
import pytest

from symbi.adapters.policy_files import PolicyFolders
from symbi.audit.event import AuditEventType as T
from symbi.errors import InternalError, PolicySyntaxError, StoreUnavailable
from symbi.policy.context import NO_REQUEST
from symbi.policy.decision import Allow, PolicyRequest
from symbi.policy.engine import decide
from symbi.runtime.policies import Cause, PolicyBook, PolicyTerms
from symbi.runtime.policy_watch import PolicyWatch, watching
from symbi.testing.gate import DENY_ALL, open_gate
from symbi.types import AgentId, Principal, Resource

pytestmark = pytest.mark.anyio

CLOCK = '@id("clock") permit (principal, action == Action::"ReadClock", resource);\n'
FORBID = '@id("no") forbid (principal, action, resource);\n'
REQUEST = PolicyRequest(
    Principal(AgentId("a")), "ReadClock", Resource("Resource", "clock"), {"request": dict(NO_REQUEST)}
)


class Watched:
    def __init__(self, gate, book, watch, reader, folder):
        self.gate, self.book, self.watch, self.reader, self.folder = gate, book, watch, reader, folder

    def put(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    async def looks(self, times=2):
        for _ in range(times):
            self.gate.clock.advance(1)
            await self.watch.look()

    def permits(self):
        return isinstance(decide(self.gate.engine.current, REQUEST), Allow)

    def told(self, kind):
        return [event.details for event in self.gate.events() if event.event_type == kind]


class CountingReader(PolicyFolders):
    def __init__(self, folder):
        super().__init__(folder)
        self.seen = self.opened = 0
        self.during = lambda: None

    def look(self, paths):
        self.seen += 1
        return super().look(paths)

    def read(self, paths):
        self.opened += 1
        found = super().read(paths)
        self.during()
        return found


@asynccontextmanager
async def open_watch(tmp_path, text=CLOCK, paths=("policies",)):
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "p.cedar").write_text(text)
    async with open_gate(DENY_ALL) as gate:
        book = PolicyBook(gate.engine, gate.log, gate.store, PolicyTerms())
        reader = CountingReader(tmp_path)
        watch = PolicyWatch(book, reader, paths, gate.clock, interval_s=1.0)
        await watch.use(await watch.read(), Cause.START)
        yield Watched(gate, book, watch, reader, folder)


async def test_a_changed_file_is_in_force_at_the_second_look_and_recorded(tmp_path):
    async with open_watch(tmp_path) as watched:
        assert watched.permits()
        watched.put("p.cedar", FORBID)
        await watched.looks(1)
        assert watched.permits()  # somebody may still be writing
        await watched.looks(1)
        assert not watched.permits()
        assert [told["cause"] for told in watched.told(T.POLICY_CHANGED)] == ["start", "files"]
        assert watched.told(T.POLICY_CHANGED)[1]["removed"] == ["clock"]


@pytest.mark.parametrize("new", ["q.cedar", "deep/down/q.cedar"])
async def test_a_new_file_a_removed_one_and_a_moved_one_are_changes(tmp_path, new):
    async with open_watch(tmp_path) as watched:
        watched.put(new, FORBID)
        await watched.looks()
        assert not watched.permits()
        (watched.folder / new).unlink()
        await watched.looks()
        assert watched.permits()
        (watched.folder / "p.cedar").rename(watched.folder / "other.txt")
        await watched.looks()
        assert not watched.permits()
        assert len(watched.told(T.POLICY_CHANGED)) == 4


async def test_a_folder_that_is_emptied_or_removed_denies(tmp_path):
    async with open_watch(tmp_path) as watched:
        (watched.folder / "p.cedar").unlink()
        await watched.looks()
        assert not watched.permits()
        watched.put("p.cedar", CLOCK)
        await watched.looks()
        assert watched.permits()
        (watched.folder / "p.cedar").unlink()
        watched.folder.rmdir()
        await watched.looks()
        assert not watched.permits()


@pytest.mark.parametrize(
    "broken",
    [
        CLOCK[:-20],
        CLOCK + "forbid (principal, ",
        CLOCK + CLOCK,
        'permit (principal, action == Action::"Nothing", resource);',
        b"\xff\xfe\x00",
        CLOCK.replace("ReadClock", 'ReadClock" && "'),
    ],
)
async def test_a_broken_file_is_refused_once_and_the_old_set_stays_until_it_is_mended(tmp_path, broken):
    async with open_watch(tmp_path) as watched:
        old = watched.gate.engine.current
        watched.put("p.cedar", broken)
        await watched.looks(6)
        assert watched.gate.engine.current is old
        (refused,) = watched.told(T.POLICY_REFUSED)
        assert (refused["cause"], refused["version"]) == ("files", old.version)
        assert "policies/p.cedar" in refused["reason"]
        watched.put("p.cedar", FORBID)
        await watched.looks()
        assert not watched.permits()


async def test_a_file_that_is_being_written_is_left_alone_until_it_has_settled(tmp_path):
    async with open_watch(tmp_path) as watched:
        whole = CLOCK + FORBID
        for end in range(len(CLOCK), len(whole) + 1, 7):
            watched.put("p.cedar", whole[:end])  # cut between policies, it would parse, and permit too much
            await watched.looks(1)
            assert watched.told(T.POLICY_REFUSED) == []
            assert len(watched.told(T.POLICY_CHANGED)) == 1
        watched.put("p.cedar", whole)
        await watched.looks(2)
        assert not watched.permits()


async def test_a_file_that_changes_while_it_is_read_is_not_taken_up(tmp_path):
    async with open_watch(tmp_path) as watched:
        watched.put("p.cedar", CLOCK + FORBID.replace("forbid", "permit"))
        await watched.looks(1)
        watched.reader.during = lambda: watched.put("p.cedar", FORBID + "// written at the wrong time")
        await watched.looks(1)
        assert len(watched.told(T.POLICY_CHANGED)) == 1
        watched.reader.during = lambda: None
        await watched.looks(2)
        assert not watched.permits()


async def test_a_change_that_keeps_size_and_time_is_seen(tmp_path):
    async with open_watch(tmp_path) as watched:
        path = watched.folder / "p.cedar"
        before = path.stat()
        text = path.read_text().replace("permit", "forbid")
        path.write_text(text)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        after = path.stat()
        assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
        await watched.looks()
        assert not watched.permits()


async def test_looks_are_bounded_and_files_are_opened_only_if_something_changed(tmp_path):
    async with open_watch(tmp_path) as watched:
        seen, opened = watched.reader.seen, watched.reader.opened
        for _ in range(1000):
            watched.gate.clock.advance(0.01)
            await watched.watch.look()
        assert watched.reader.seen - seen <= 11  # ten seconds, a look each
        assert watched.reader.opened == opened
        os.utime(watched.folder / "p.cedar")
        await watched.looks(3)
        assert watched.reader.opened == opened + 1
        assert len(watched.told(T.POLICY_CHANGED)) == 1  # touched, and the same


async def test_a_change_that_cannot_be_recorded_is_tried_again(tmp_path, monkeypatch):
    async with open_watch(tmp_path) as watched:

        def full(*_):
            raise StoreUnavailable("the disk is full")

        watched.put("p.cedar", FORBID)
        with monkeypatch.context() as patched:
            patched.setattr(watched.gate.store, "append", full)
            await watched.looks(4)
            assert watched.permits()
        await watched.looks(2)
        assert not watched.permits()


async def test_a_folder_that_cannot_be_listed_is_refused_and_the_old_set_stays(tmp_path, monkeypatch):
    async with open_watch(tmp_path) as watched:

        def denied(top, onerror=None, **_):
            onerror(PermissionError(13, "Permission denied", str(top)))
            return iter(())

        with monkeypatch.context() as patched:
            patched.setattr("symbi.adapters.policy_files.os.walk", denied)
            await watched.looks(5)
        assert watched.permits()
        assert [told["code"] for told in watched.told(T.POLICY_REFUSED)] == ["input.unreadable"]


async def test_other_paths_are_watched_once_they_are_in_force_and_not_if_they_are_refused(tmp_path):
    async with open_watch(tmp_path) as watched:
        other = tmp_path / "other"
        other.mkdir()
        (other / "x.cedar").write_text("permit (")
        with pytest.raises(PolicySyntaxError):
            await watched.watch.use(await watched.watch.read(["other"]), Cause.OPERATOR)
        assert watched.watch.paths == ("policies",)
        (other / "x.cedar").write_text(CLOCK)
        await watched.watch.use(await watched.watch.read(["other"]), Cause.OPERATOR)
        watched.put("p.cedar", FORBID)
        await watched.looks(3)
        assert watched.permits()
        (other / "x.cedar").write_text(FORBID)
        await watched.looks()
        assert not watched.permits()


async def test_a_watch_that_fails_ends_the_body_with_its_error(tmp_path, monkeypatch):
    async with open_watch(tmp_path) as watched:

        async def fail():
            raise InternalError("not everybody took it up")

        monkeypatch.setattr(watched.watch, "look", fail)
        monkeypatch.setattr(watched.watch, "_interval_s", 0)
        with pytest.raises(InternalError, match="took it up"):
            async with watching([watched.watch]):
                await anyio.sleep_forever()


async def test_an_error_of_the_body_comes_out_of_a_watch_as_it_is(tmp_path):
    async with open_watch(tmp_path) as watched:
        with pytest.raises(StoreUnavailable, match="of the body"):
            async with watching([watched.watch]):
                raise StoreUnavailable("of the body")
