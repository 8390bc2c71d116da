"""Agents that are run when their schedules are due: on time, once, also over restarts, changed clocks and kill -9."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from random import Random

import anyio
import pytest

from symbi.adapters.sqlite import SqliteReader, SqliteStore
from symbi.agent.journal import RunState
from symbi.audit.event import AuditEventType, parse_event
from symbi.clock import IdSource
from symbi.dsl.timetable import NS
from symbi.errors import InternalError, Overloaded, StoreUnavailable
from symbi.guard.approval import OPEN
from symbi.guard.desk import Ballot
from symbi.runtime.host import Host
from symbi.runtime.occurrences import Occurrence, OccurrenceState
from symbi.testing.clock import ManualClock
from symbi.testing.runtime import open_in
from symbi.types import RunId

pytestmark = pytest.mark.anyio

PERMIT = "permit (principal, action, resource);"
DAY_S = 86_400.0
BEGIN = round(datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp()) * NS
DAILY = """
agent daily { with sandbox = interpreter { log("ran"); 1 } }
schedule nine { cron = "0 9 * * *" agent = daily }
"""
ASKING = """
agent asking { with sandbox = interpreter, timeout = 60.seconds { approval("ops", "go on?"); 1 } }
schedule hourly { cron = "0 * * * *" agent = asking }
"""
PEOPLE = '[approvals]\nexpires_s = 864000\n[approvals.people.ada]\nuser = "0"\ngroups = ["ops"]\n'


class Stage:
    def __init__(self, folder, clock, opened, host, said):
        self.folder, self.clock, self.opened, self.host, self.said = folder, clock, opened, host, said

    async def after(self, seconds):
        """Let time pass, and whatever is due be done."""
        self.clock.advance(seconds)
        await self.settle()

    async def settle(self):
        """Return when it has looked at what is due now, and nothing is at work but what waits for people."""
        for _ in range(2):  # it may be in the middle of a look
            looks = self.host.looks
            while self.host.looks == looks:
                self.host.wake()
                await anyio.lowlevel.checkpoint()
        while self.host.at_work and not await self.opened.runtime.desk.listed(tuple(OPEN)):
            await anyio.lowlevel.checkpoint()


@asynccontextmanager
async def hosted(folder, clock, text=DAILY, config=""):
    said = []
    with anyio.fail_after(60):
        async with open_in(
            folder,
            text,
            policies=PERMIT,
            clock=clock,
            config=config,
            hold_s=None,
            emit=lambda _, line: said.append(line),
        ) as opened:
            host = Host(opened.runtime, [opened.compiled])
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(host.run)
                stage = Stage(folder, clock, opened, host, said)
                await stage.settle()
                yield stage
                host.stop()


def events(folder, *kinds):
    with SqliteReader(folder / ".symbi") as reader:
        found = [parse_event(stored.record) for stored in reader.read(1)]
    return [event for event in found if event.event_type in kinds]


def due_times(folder):
    return [event.details["due_at"][5:16] for event in events(folder, AuditEventType.SCHEDULE_DUE)]


async def test_an_agent_is_run_when_it_is_due_and_not_before(tmp_path):
    clock = ManualClock(BEGIN)
    async with hosted(tmp_path, clock) as stage:
        assert stage.said == []
        await stage.after(20 * 3600)
        assert stage.said == []
        await stage.after(3600)
        assert stage.said == ["ran"]
        await stage.after(60)
        assert stage.said == ["ran"]
        await stage.after(DAY_S)
        assert stage.said == ["ran", "ran"]
    assert due_times(tmp_path) == ["01-02T09:00", "01-03T09:00"]
    runs = [event.run_id for event in events(tmp_path, AuditEventType.RUN_FINISHED)]
    assert runs == [event.run_id for event in events(tmp_path, AuditEventType.SCHEDULE_DUE)]


async def test_what_was_due_before_anybody_knew_the_schedule_is_not_owed(tmp_path):
    async with hosted(tmp_path, ManualClock(BEGIN)) as stage:
        assert stage.said == []
    assert due_times(tmp_path) == []


async def test_what_was_missed_is_made_up_for_by_one_run_and_the_trail_says_how_many(tmp_path):
    clock = ManualClock(BEGIN)
    async with hosted(tmp_path, clock):
        pass
    clock.advance(4 * DAY_S)
    async with hosted(tmp_path, clock) as stage:
        assert stage.said == ["ran"]
        await stage.after(DAY_S)
        assert stage.said == ["ran", "ran"]
    assert due_times(tmp_path) == ["01-05T09:00", "01-06T09:00"]
    (skipped,) = events(tmp_path, AuditEventType.SCHEDULE_SKIPPED)
    assert (skipped.details["missed"], skipped.details["more"], skipped.details["schedule"]) == (3, False, "nine")


async def test_a_clock_that_is_set_back_repeats_nothing_and_one_that_is_set_forward_skips_nothing_silently(tmp_path):
    clock = ManualClock(BEGIN)
    async with hosted(tmp_path, clock) as stage:
        await stage.after(DAY_S)
        clock.set_ns(BEGIN)
        await stage.settle()
        await stage.after(DAY_S)
        assert stage.said == ["ran"]
        clock.set_ns(BEGIN + round(10 * DAY_S) * NS)
        await stage.settle()
        assert stage.said == ["ran", "ran"]
    (skipped,) = events(tmp_path, AuditEventType.SCHEDULE_SKIPPED)
    assert skipped.details["missed"] == 8


async def test_a_clock_that_was_years_ahead_silences_no_schedule_and_repeats_no_run(tmp_path):
    clock = ManualClock(BEGIN)
    far = round(900 * DAY_S)
    async with hosted(tmp_path, clock) as stage:
        clock.set_ns(BEGIN + far * NS)
        await stage.settle()
        assert stage.said == ["ran"]  # by the wrong clock
        clock.set_ns(BEGIN)
        await stage.settle()
        await stage.after(DAY_S)
        assert stage.said == ["ran"] * 2
    skipped = [event.details["reason"] for event in events(tmp_path, AuditEventType.SCHEDULE_SKIPPED)]
    assert [reason for reason in skipped if "by a clock that was ahead" in reason]
    async with hosted(tmp_path, clock) as stage:  # and likewise for who begins after it
        await stage.after(DAY_S)
        assert stage.said == ["ran"]
        before = due_times(tmp_path)[0]
        clock.set_ns(BEGIN + far * NS)  # when it had run by the wrong clock
        await stage.settle()
        assert stage.said == ["ran"]
        await stage.after(DAY_S)
        assert stage.said == ["ran"] * 2
        assert due_times(tmp_path).count(before) == 1


@pytest.mark.parametrize("seed", range(3))
async def test_however_clocks_jump_each_time_is_run_once_or_told_as_skipped(tmp_path, seed):
    """Half-hourly in Berlin over both changes of clocks; the clock is set back and forth, over restarts too."""
    text = DAILY.replace('"0 9 * * *"', '"*/30 * * * *" timezone = "Europe/Berlin"')
    random, begin = Random(seed), round(datetime(2026, 3, 20, tzinfo=UTC).timestamp()) * NS
    clock = ManualClock(begin)
    latest_ns, jumps_s = begin, (-4 * DAY_S, -3600, -60, 0, 1, 1700, 3600, 3 * DAY_S, 20 * DAY_S)
    for _ in range(3):
        async with hosted(tmp_path, clock, text) as stage:
            for _ in range(12):
                clock.set_ns(clock.now_ns() + round(random.choice(jumps_s) * NS))
                latest_ns = max(latest_ns, clock.now_ns())
                await stage.settle()
    due = [event.details["due_at"] for event in events(tmp_path, AuditEventType.SCHEDULE_DUE)]
    skipped = [event.details for event in events(tmp_path, AuditEventType.SCHEDULE_SKIPPED)]
    assert due == sorted(set(due))
    assert len(due) <= 36  # one for each look, however much was missed
    assert len(due) + sum(one["missed"] for one in skipped) == (latest_ns - begin) // (1800 * NS)
    runs = [event.run_id for event in events(tmp_path, AuditEventType.RUN_FINISHED)]
    assert len(runs) == len(set(runs)) == len(due)


async def test_an_agent_that_is_still_at_work_is_not_started_twice_and_that_is_told(tmp_path):
    clock = ManualClock(BEGIN)
    async with hosted(tmp_path, clock, ASKING, PEOPLE) as stage:
        await stage.after(3600)
        (held,) = await stage.opened.runtime.desk.listed(tuple(OPEN))
        await stage.after(3600)
        await stage.after(3600)
        await stage.opened.runtime.desk.vote(Ballot(held.id, held.digest, agrees=True, uid=0))
        while stage.host.at_work:
            await anyio.lowlevel.checkpoint()
        await stage.after(3600)
        (again,) = await stage.opened.runtime.desk.listed(tuple(OPEN))
        await stage.opened.runtime.desk.vote(Ballot(again.id, again.digest, agrees=True, uid=0))
    assert due_times(tmp_path) == ["01-01T13:00", "01-01T16:00"]
    skipped = events(tmp_path, AuditEventType.SCHEDULE_SKIPPED)
    assert [event.details["reason"] for event in skipped] == ["agent `asking` was still at work"] * 2


@pytest.mark.parametrize("when", ['cron = "0 9 * * *" one_shot = true', 'at = "2026-01-02T09:00:00Z"'])
async def test_what_is_to_run_once_runs_once_also_over_restarts(tmp_path, when):
    text = DAILY.replace('cron = "0 9 * * *"', when)
    clock = ManualClock(BEGIN)
    said = []
    for _ in range(3):
        async with hosted(tmp_path, clock, text) as stage:
            await stage.after(1.5 * DAY_S)
            said += stage.said
    assert said == ["ran"]
    assert due_times(tmp_path) == ["01-02T09:00"]


async def test_what_was_claimed_before_a_crash_is_run_once_under_the_id_that_it_was_promised(tmp_path):
    clock = ManualClock(BEGIN)
    async with hosted(tmp_path, clock):
        pass
    run_id = RunId(IdSource(clock).new())
    name = f"{tmp_path / 'agent.symbi'}#nine"
    with SqliteStore(tmp_path / ".symbi") as store, store.transaction():
        store.put_occurrence(Occurrence(name, BEGIN - 3600 * NS, run_id))
    for _ in range(2):
        async with hosted(tmp_path, clock):
            pass
    assert [event.run_id for event in events(tmp_path, AuditEventType.RUN_FINISHED)] == [run_id]
    with SqliteStore(tmp_path / ".symbi") as store:
        last = store.last_occurrence(name)
        assert (last.state, last.reason) == (OccurrenceState.DONE, "finished")
        assert store.open_occurrences() == []


async def test_an_agent_that_fails_is_due_again_all_the_same(tmp_path):
    text = DAILY.replace('log("ran"); 1', 'log("ran"); int("x")')
    clock = ManualClock(BEGIN)
    async with hosted(tmp_path, clock, text) as stage:
        await stage.after(DAY_S)
        await stage.after(DAY_S)
        assert stage.said == ["ran", "ran"]


async def test_a_denied_agent_is_due_again_and_every_denial_is_on_the_trail(tmp_path):
    clock = ManualClock(BEGIN)
    forbid = '\nforbid (principal == Agent::"daily", action == Action::"CreateAgent", resource);'
    async with open_in(tmp_path, DAILY, policies=f"{PERMIT}{forbid}", clock=clock) as opened:
        host = Host(opened.runtime, [opened.compiled])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(host.run)
            stage = Stage(tmp_path, clock, opened, host, [])
            await stage.settle()
            await stage.after(DAY_S)
            await stage.after(DAY_S)
            host.stop()
    denied = [e for e in events(tmp_path, AuditEventType.DECISION_DENY) if e.agent_id == "daily"]
    assert len(denied) == 2


TWO = """
agent bad { with sandbox = interpreter { log("bad"); 1 } }
agent good { with sandbox = interpreter { log("good"); 1 } }
schedule b { cron = "0 * * * *" agent = bad }
schedule g { cron = "0 * * * *" agent = good }
"""


class Breaks:
    """A runtime's `run` that raises for one agent."""

    def __init__(self, runtime, error):
        self.run, self.error = runtime.run, error
        runtime.run = self

    async def __call__(self, compiled, spec, inputs, **more):
        if spec.id == "bad":
            raise self.error
        return await self.run(compiled, spec, inputs, **more)


@pytest.mark.parametrize("error", [InternalError("diverged", code="internal.diverged"), RuntimeError("a defect")])
async def test_a_defect_that_one_agent_meets_ends_no_other_and_no_start_after_it(tmp_path, error):
    clock = ManualClock(BEGIN)
    async with hosted(tmp_path, clock, TWO) as stage:
        Breaks(stage.opened.runtime, error)
        await stage.after(3600)
        await stage.after(3600)
        assert stage.said == ["good", "good"]
    with SqliteStore(tmp_path / ".symbi") as store:
        assert store.open_occurrences() == []
        last = store.last_occurrence(f"{tmp_path / 'agent.symbi'}#b")
        assert (last.state, last.reason[:8]) == (OccurrenceState.DONE, "internal")


async def test_a_store_that_is_lost_is_one_error_and_the_occurrence_stays_claimed(tmp_path):
    clock = ManualClock(BEGIN)
    async with open_in(tmp_path, TWO, policies=PERMIT, clock=clock) as opened:
        host = Host(opened.runtime, [opened.compiled])
        Breaks(opened.runtime, StoreUnavailable("the disk is full"))

        async def due():
            while not host.looks:
                await anyio.lowlevel.checkpoint()
            clock.advance(3600)
            host.wake()

        with anyio.fail_after(30), pytest.RaisesGroup(StoreUnavailable):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(due)
                await host.run()
    with SqliteStore(tmp_path / ".symbi") as store:
        assert f"{tmp_path / 'agent.symbi'}#b" in [each.schedule for each in store.open_occurrences()]


async def test_an_agent_is_at_work_until_its_end_is_durable(tmp_path, monkeypatch):
    seen = []
    end = SqliteStore.end_occurrence

    def ended(self, occurrence, state, reason):
        seen.append("daily" in host.at_work)
        end(self, occurrence, state, reason)

    clock = ManualClock(BEGIN)
    async with hosted(tmp_path, clock) as stage:
        host = stage.host
        monkeypatch.setattr(SqliteStore, "end_occurrence", ended)
        await stage.after(DAY_S)
    assert seen == [True]


async def test_who_is_told_to_stop_before_it_began_begins_nothing(tmp_path):
    clock = ManualClock(BEGIN)
    async with hosted(tmp_path, clock):
        pass
    with SqliteStore(tmp_path / ".symbi") as store, store.transaction():
        name = f"{tmp_path / 'agent.symbi'}#nine"
        store.put_occurrence(Occurrence(name, BEGIN - 3600 * NS, RunId(IdSource(clock).new())))
    async with open_in(tmp_path, DAILY, policies=PERMIT, clock=clock) as opened:
        host = Host(opened.runtime, [opened.compiled])
        host.stop()
        await host.run()
    assert events(tmp_path, AuditEventType.RUN_STARTED) == []
    with SqliteStore(tmp_path / ".symbi") as store:
        assert [each.schedule for each in store.open_occurrences()] == [name]


async def test_what_is_due_while_too_much_waits_is_begun_again_until_it_runs(tmp_path):
    clock = ManualClock(BEGIN)
    async with hosted(tmp_path, clock) as stage:
        run, tries = stage.opened.runtime.run, []

        async def busy(*arguments, **more):
            tries.append(more["run_id"])
            if len(tries) < 4:
                raise Overloaded("too much waits", retry_after_s=0.1)
            return await run(*arguments, **more)

        stage.opened.runtime.run = busy
        await stage.after(DAY_S)
        assert stage.said == ["ran"]
        assert len(set(tries)) == 1
    assert len(events(tmp_path, AuditEventType.RUN_FINISHED)) == 1


async def test_a_run_whose_file_has_changed_is_not_gone_on_with_and_the_trail_says_so(tmp_path):
    clock = ManualClock(BEGIN)
    async with open_in(tmp_path, ASKING, policies=PERMIT, config=PEOPLE, clock=clock, hold_s=None) as opened:
        host = Host(opened.runtime, [opened.compiled])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(host.run)
            stage = Stage(tmp_path, clock, opened, host, [])
            await stage.settle()
            await stage.after(3600)
            tasks.cancel_scope.cancel("the grace is over")
    async with hosted(tmp_path, clock, ASKING.replace("go on?", "really?"), PEOPLE) as stage:
        await stage.settle()
    (refused,) = events(tmp_path, AuditEventType.INPUT_REFUSED)
    assert refused.details["code"] == "input.source_changed"
    (finished,) = events(tmp_path, AuditEventType.RUN_FINISHED)
    assert (finished.details["state"], finished.details["error"]) == ("failed", "input.source_changed")
    with SqliteStore(tmp_path / ".symbi") as store:
        assert store.open_occurrences() == []
        (record,) = store.runs(10)
        assert record.state is RunState.FAILED


async def test_what_is_kept_of_a_schedule_does_not_grow_with_how_often_it_was_due(tmp_path):
    clock = ManualClock(BEGIN)
    name = f"{tmp_path / 'agent.symbi'}#nine"
    with SqliteStore(tmp_path / "apart") as store:
        with store.transaction():
            store.put_occurrence(Occurrence(name, 1, RunId("open")))
            store.put_occurrence(Occurrence("another", 1, RunId(""), OccurrenceState.SKIPPED))
            for at_ns in range(2, 50):
                store.put_occurrence(Occurrence(name, at_ns, RunId(f"{at_ns}"), OccurrenceState.DONE))
        kept = store._db.execute("SELECT schedule, at_ns FROM occurrences ORDER BY schedule, at_ns").fetchall()
        assert [tuple(row) for row in kept] == [(name, 1), (name, 49), ("another", 1)]
        assert [each.run_id for each in store.open_occurrences()] == ["open"]
    async with hosted(tmp_path, clock) as stage:
        for _ in range(5):
            await stage.after(DAY_S)
    with SqliteStore(tmp_path / ".symbi") as store:
        assert store._db.execute("SELECT count(*) FROM occurrences").fetchone()[0] == 1
    assert len(due_times(tmp_path)) == 5


SECONDS = """
agent tick {{ with sandbox = interpreter {{ log("one"); log("two"); log("three"); 1 }} }}
schedule s {{ cron = "* * * * * *" agent = tick }}
"""


def up(folder):
    code = "import sys; from symbi.cli.main import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, "up", "tick.symbi"],
        cwd=folder,
        env={**os.environ, "SYMBI_LOG_LEVEL": "error"},
        stderr=subprocess.PIPE,
        text=True,
    )


def lines_until(process, count):
    """Read what the process says until an agent has said so many lines."""
    found = 0
    for line in process.stderr:
        found += "tick |" in line
        if found >= count:
            return
    pytest.fail(f"it ended after {found} lines")


def test_kill_9_loses_no_occurrence_and_repeats_none(tmp_path):
    (tmp_path / "tick.symbi").write_text(SECONDS.format())
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "p.cedar").write_text(PERMIT)
    for lines in (1, 2, 4, 5):
        process = up(tmp_path)
        lines_until(process, lines)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    process = up(tmp_path)
    lines_until(process, 3)
    process.send_signal(signal.SIGTERM)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 0, rest
    due = [event.run_id for event in events(tmp_path, AuditEventType.SCHEDULE_DUE)]
    finished = Counter(event.run_id for event in events(tmp_path, AuditEventType.RUN_FINISHED))
    assert finished == Counter(due)
    assert max(finished.values()) == 1
    allowed = [e for e in events(tmp_path, AuditEventType.EFFECT_OUTCOME) if e.details["action"] == "WriteLog"]
    assert all(event.details["outcome"] in {"confirmed", "failed", "unknown"} for event in allowed)
    with SqliteStore(tmp_path / ".symbi") as store:
        assert store.open_occurrences() == []
    verify = subprocess.run(
        [sys.executable, "-c", "from symbi.cli.main import main; main()", "audit", "verify", "--json"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(verify.stdout)["verified"] is True


def test_sigterm_lets_what_is_at_work_finish_and_ends(tmp_path):
    (tmp_path / "tick.symbi").write_text(SECONDS.format())
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "p.cedar").write_text(PERMIT)
    process = up(tmp_path)
    lines_until(process, 1)
    process.send_signal(signal.SIGTERM)
    rest = process.stderr.read()  # also what was read ahead
    process.stderr.close()
    assert process.wait(timeout=60) == 0
    assert "three" in rest
    assert "stopped" in rest
    assert not (tmp_path / ".symbi" / "symbi.sock").exists()
