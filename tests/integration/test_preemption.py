"""Two agents on a pool that has room for one: the critical one starts, the other goes on after it, and no step runs twice."""

import anyio
import pytest

from symbi.adapters.sqlite import SqliteReader
from symbi.audit.event import AuditEventType, parse_event
from symbi.errors import PolicyDenied
from symbi.guard.approval import OPEN
from symbi.guard.desk import Ballot
from symbi.testing.runtime import open_in

pytestmark = pytest.mark.anyio

PERMIT = "permit (principal, action, resource);"
LINES = 40
AGENTS = f"""
agent patient {{ with sandbox = interpreter, timeout = 60.seconds {{
    for n in range({LINES}) {{ log("patient ${{n}}"); }}
    "patient is done"
}} }}
agent urgent {{ with sandbox = interpreter, timeout = 60.seconds {{ log("urgent"); "urgent is done" }} }}
agent asking {{ with sandbox = interpreter, timeout = 60.seconds {{ approval("ops", "go on?"); "asking is done" }} }}
"""
POOL = """
[limits]
memory_mb = 64
[agents.patient]
priority = "{patient}"
[agents.urgent]
priority = "{urgent}"
"""


class Stage:
    """An open runtime, what its agents said, in order, and when the others are let in."""

    def __init__(self, opened):
        self.opened = opened
        self.runtime = opened.runtime
        self.outcomes = {}

    async def run(self, name):
        spec = next(one for one in self.opened.compiled.agents if one.id == name)
        outcome = await self.runtime.run(self.opened.compiled, spec, {})
        self.outcomes[name] = outcome.output

    async def free(self):
        return (await self.runtime.get_system_status()).free


def events(folder, *kinds):
    with SqliteReader(folder / ".symbi") as reader:
        found = [parse_event(stored.record) for stored in reader.read(1)]
    return [event for event in found if event.event_type in kinds]


def effects_of(folder, agent):
    return [
        event.details["position"]
        for event in events(folder, AuditEventType.DECISION_ALLOW)
        if event.agent_id == agent and event.details["action"] == "WriteLog"
    ]


async def play(folder, patient="low", urgent="critical", *, at=5):
    """The patient agent writes its lines; after some of them the urgent one comes."""
    lines, come = [], anyio.Event()

    def probe(point):
        if point == "settled":
            lines.append(point)
            if len(lines) == at + 3:  # creation, resources, and some lines
                come.set()

    config = POOL.format(patient=patient, urgent=urgent)
    async with open_in(folder, AGENTS, config=config, policies=PERMIT, probe=probe) as opened:
        stage = Stage(opened)
        before = await stage.free()
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(stage.run, "patient")
                await come.wait()
                tasks.start_soon(stage.run, "urgent")
        assert await stage.free() == before
    assert stage.outcomes == {"patient": "patient is done", "urgent": "urgent is done"}
    return [event.agent_id for event in events(folder, AuditEventType.RUN_FINISHED)]


async def test_a_critical_agent_starts_at_once_and_the_other_goes_on_where_it_was(tmp_path):
    assert await play(tmp_path) == ["urgent", "patient"]
    assert effects_of(tmp_path, "patient") == list(range(LINES))
    told = [event for event in events(tmp_path, AuditEventType.AGENT_TRANSITION) if event.agent_id == "patient"]
    names = [event.details["event"] for event in told]
    assert names[2:4] == ["Preempted", "Resumed"]
    assert told[2].details["for"] == "urgent"
    assert told[2].details["to"] == "Suspended"
    allowed = [e for e in events(tmp_path, AuditEventType.DECISION_ALLOW) if e.details["action"] == "WriteLog"]
    urgent = next(event.sequence for event in allowed if event.agent_id == "urgent")
    assert told[2].sequence < urgent < told[3].sequence
    assert not [e for e in allowed if e.agent_id == "patient" and told[2].sequence < e.sequence < told[3].sequence]


@pytest.mark.parametrize(("patient", "urgent"), [("low", "high"), ("critical", "critical")])
async def test_nobody_steps_aside_for_what_is_not_critical_nor_what_is_critical_itself(tmp_path, patient, urgent):
    assert await play(tmp_path, patient, urgent) == ["patient", "urgent"]
    names = {event.details["event"] for event in events(tmp_path, AuditEventType.AGENT_TRANSITION)}
    assert "Preempted" not in names


async def test_who_waits_for_people_steps_aside_at_once_and_waits_on(tmp_path):
    people = '[approvals.people.ada]\nuser = "0"\ngroups = ["ops"]\n'
    config = POOL.format(patient="low", urgent="critical") + people
    async with open_in(tmp_path, AGENTS, config=config, policies=PERMIT, hold_s=None) as opened:
        stage = Stage(opened)
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(stage.run, "asking")
                while not (waiting := await stage.runtime.desk.listed(tuple(OPEN))):
                    await anyio.lowlevel.checkpoint()
                tasks.start_soon(stage.run, "urgent")
                while "urgent" not in stage.outcomes:
                    await anyio.lowlevel.checkpoint()
                assert "asking" not in stage.outcomes
                assert (await stage.free()).memory_mib == 64
                ballot = Ballot(waiting[0].id, waiting[0].digest, agrees=True, uid=0)
                await stage.runtime.desk.vote(ballot)
    assert stage.outcomes["asking"] == "asking is done"
    names = [e.details["event"] for e in events(tmp_path, AuditEventType.AGENT_TRANSITION) if e.agent_id == "asking"]
    assert names[2:4] == ["Preempted", "Resumed"]


async def test_policy_says_who_may_be_critical(tmp_path):
    forbid = (
        'forbid (principal, action == Action::"AllocateResources", resource) when { context.priority == "critical" };'
    )
    config = POOL.format(patient="low", urgent="critical")
    async with open_in(tmp_path, AGENTS, config=config, policies=f"{PERMIT}\n{forbid}") as opened:
        stage = Stage(opened)
        await stage.run("patient")
        with pytest.raises(PolicyDenied):
            await stage.run("urgent")
