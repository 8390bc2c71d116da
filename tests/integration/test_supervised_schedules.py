"""Scheduled agents that policy suspends: `up` starts none of that name again, and goes on with it when it may."""

from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import anyio
import anyio.lowlevel
import pytest

from symbi.adapters.sqlite import SqliteReader, SqliteStore
from symbi.audit.event import AuditEventType, parse_event
from symbi.dsl.timetable import NS
from symbi.policy.engine import PolicySource
from symbi.policy.policies import PolicySet
from symbi.runtime.host import Host
from symbi.testing.clock import ManualClock
from symbi.testing.runtime import RunningRuntime, open_in

pytestmark = pytest.mark.anyio

PERMIT = "permit (principal, action, resource);"
DAY_S = 86_400.0
BEGIN = round(datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp()) * NS
DAILY = """
agent daily { with sandbox = interpreter { log("ran"); 1 } }
schedule nine { cron = "0 9 * * *" agent = daily }
"""


@dataclass
class Stage:
    """A host that runs."""

    opened: RunningRuntime
    host: Host


def events(folder, *kinds):
    with SqliteReader(folder / ".symbi") as reader:
        found = [parse_event(stored.record) for stored in reader.read(1)]
    return [event for event in found if event.event_type in kinds]


QUIET = f'{PERMIT} @id("quiet") forbid (principal, action == Action::"WriteLog", resource);'


@asynccontextmanager
async def denied(folder, clock, said, policies=QUIET):
    """`up` with an agent that policy suspends on its way, which has been due once."""
    folder.joinpath("policies").mkdir(exist_ok=True)
    with anyio.fail_after(60):
        async with open_in(
            folder, DAILY, policies=policies, clock=clock, emit=lambda _, line: said.append(line)
        ) as opened:
            host = Host(opened.runtime, [opened.compiled])
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(host.run)
                stage = Stage(opened, host)
                while not host.looks:
                    await anyio.lowlevel.checkpoint()
                yield stage
                host.stop()


async def rests(stage) -> None:
    while not stage.opened.runtime.rests.all:
        await anyio.lowlevel.checkpoint()


async def test_an_agent_that_policy_suspends_is_not_started_again_and_goes_on_when_policy_lets_it(tmp_path):
    clock, said = ManualClock(BEGIN), []
    async with denied(tmp_path, clock, said) as stage:
        clock.advance(DAY_S)
        stage.host.wake()
        await rests(stage)
        clock.advance(DAY_S)
        for _ in range(2):  # it may be in the middle of a look
            looks = stage.host.looks
            while stage.host.looks == looks:
                stage.host.wake()
                await anyio.lowlevel.checkpoint()
        engine = stage.opened.runtime.guard.engine
        sources = [PolicySource(s.file, PERMIT) if s.text == QUIET else s for s in engine.current.sources]
        engine.replace(PolicySet.load(sources, engine.current.compiled, engine.current.tools))
        while stage.host.at_work:
            await anyio.lowlevel.checkpoint()
        assert said == ["ran"]
    (skipped,) = events(tmp_path, AuditEventType.SCHEDULE_SKIPPED)
    assert skipped.details["reason"] == "agent `daily` was suspended: policy.denied"
    assert [event.details["state"] for event in events(tmp_path, AuditEventType.RUN_FINISHED)] == ["held", "finished"]


async def test_what_is_suspended_when_the_runtime_is_told_to_stop_goes_on_at_the_next_start(tmp_path):
    clock, said = ManualClock(BEGIN), []
    async with denied(tmp_path, clock, said) as stage:
        clock.advance(DAY_S)
        stage.host.wake()
        await rests(stage)
    with SqliteStore(tmp_path / ".symbi") as store:
        assert len(store.open_occurrences()) == 1
    async with denied(tmp_path, clock, said, PERMIT) as stage:
        while stage.host.at_work:
            await anyio.lowlevel.checkpoint()
    assert said == ["ran"]
    assert len(events(tmp_path, AuditEventType.RUN_STARTED)) == 1
