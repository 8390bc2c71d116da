"""The life of an agent on the trail: every move of the lifecycle table that a run makes."""

import contextlib
import itertools

import anyio
import pytest

from symbi.adapters.sqlite import SqliteReader
from symbi.agent.journal import RunState
from symbi.audit.event import AuditEventType, parse_event
from symbi.errors import PolicyDenied, StoreUnavailable
from symbi.testing.runtime import open_in

pytestmark = pytest.mark.anyio

CREATION = 'permit (principal, action == Action::"CreateAgent", resource);'
PERMITTED = """
    policy own {
        allow: allocate(pool)
    }
"""


def agent(body: str, policy: str = PERMITTED) -> str:
    return f"agent a {{ {policy} with sandbox = interpreter, timeout = 5.seconds {{ {body} }} }}"


async def moves(folder, text: str, policies: str) -> list[str]:
    async with open_in(folder, text, policies=policies) as opened:
        spec = opened.compiled.agents[0]
        with contextlib.suppress(PolicyDenied):  # what keeps the last of them from beginning
            await opened.runtime.run(opened.compiled, spec, {})
    with SqliteReader(folder / ".symbi") as reader:
        events = [parse_event(stored.record) for stored in reader.read(1)]
    told = [event.details for event in events if event.event_type == AuditEventType.AGENT_TRANSITION]
    for before, after in itertools.pairwise(told):
        assert before["to"] == after["from"]
    return [str(details["to"]) for details in told]


@pytest.mark.parametrize(
    ("text", "policies", "states"),
    [
        (agent("1 + 1"), CREATION, ["Ready", "Running", "Ready", "Terminated"]),
        (agent("log(1);"), CREATION, ["Ready", "Running", "Suspended"]),
        (agent('int("x")'), CREATION, ["Ready", "Running", "Terminated"]),
        (agent("let s = 0; for x in range(30000) { for y in range(30000) { s += 1; } } s"), CREATION, ["Ready", "Running", "Suspended"]),
        (agent("1"), "", ["Failed"]),
    ],
    ids=["finished", "denied", "failed", "out of steps", "not created"],
)  # fmt: skip
async def test_each_move_of_a_run_is_on_the_trail(tmp_path, text, policies, states):
    assert await moves(tmp_path, text, policies) == states


async def test_a_seat_that_could_not_be_recorded_is_given_back(tmp_path):
    async with open_in(tmp_path, agent("1"), policies=CREATION) as opened:
        runtime, spec = opened.runtime, opened.compiled.agents[0]
        settle = runtime.guard._settlement.success

        async def fails(admission, *more):
            if admission.action.kind == "AllocateResources":
                raise StoreUnavailable("the disk is full")
            await settle(admission, *more)

        before = (await runtime.get_system_status()).free
        runtime.guard._settlement.success = fails
        with pytest.raises(StoreUnavailable):
            await runtime.run(opened.compiled, spec, {})
        runtime.guard._settlement.success = settle
        assert (await runtime.get_system_status()).free == before
        outcome = await runtime.run(opened.compiled, spec, {})
        assert outcome.output == 1


async def test_who_is_stopped_while_its_failure_is_recorded_has_failed_and_no_more(tmp_path):
    async with open_in(tmp_path, agent("1"), policies="") as opened:  # its creation is refused
        runtime, spec = opened.runtime, opened.compiled.agents[0]
        ended_early = runtime._course.ended_early

        async def stopped(record, error, state):
            (one,) = runtime.at_work
            one.stopped_by = "ada"
            one.scope.cancel("stopped by ada")
            await anyio.lowlevel.checkpoint()  # as where keys are looked for
            await ended_early(record, error, state)

        runtime._course.ended_early = stopped
        with pytest.raises(PolicyDenied):
            await runtime.run(opened.compiled, spec, {})
        record = (await runtime.rooms.world.log.read(lambda: runtime.rooms.runs.runs(10)))[0]
        assert record.state is RunState.FAILED


async def test_who_is_stopped_while_it_begins_begins_nothing(tmp_path):
    async with open_in(tmp_path, agent("1"), policies=CREATION) as opened:
        runtime, spec, stopped = opened.runtime, opened.compiled.agents[0], []
        outcomes = []

        async def run():
            outcomes.append(await runtime.run(opened.compiled, spec, {}))

        put = runtime.rooms.runs.put_run
        begun = anyio.Event()

        def begins(record):
            anyio.from_thread.run_sync(begun.set)
            put(record)

        runtime.rooms.runs.put_run = begins
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await begun.wait()
            stopped += await runtime.stop(None, "ada")
        assert [outcome.error.code for outcome in outcomes] == ["agent.stopped"]
        assert stopped == [outcomes[0].run_id]
        record = (await runtime.rooms.world.log.read(lambda: runtime.rooms.runs.runs(10)))[0]
        assert record.state is RunState.FAILED


async def test_who_is_stopped_while_it_waits_for_the_keys_of_somebody_begins_nothing(tmp_path, monkeypatch):
    waits, go_on = anyio.Event(), anyio.Event()

    async def never(*_arguments, **_more):
        waits.set()
        await go_on.wait()

    async with open_in(tmp_path, agent("1"), policies=CREATION) as opened:
        runtime, spec, outcomes = opened.runtime, opened.compiled.agents[0], []
        monkeypatch.setattr("symbi.runtime.runtime.keys_for", never)

        async def run():
            outcomes.append(await runtime.run(opened.compiled, spec, {}))

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(run)
                await waits.wait()
                stopped = await runtime.stop(None, "ada")
        assert [outcome.error.code for outcome in outcomes] == ["agent.stopped"]
        assert stopped == [outcomes[0].run_id]
        assert await runtime.rooms.world.log.read(lambda: runtime.rooms.runs.runs(10)) == []
        assert runtime.at_work == ()


async def test_what_is_recorded_before_the_first_step_shares_three_commits_and_the_end_is_one(tmp_path, monkeypatch):
    monkeypatch.setattr("symbi.audit.log.LINGER_S", 3600.0)  # what nobody waits for goes with the next, however slow
    begun, commits = [], []

    def probe(point):
        if point == "working":
            begun.append(len(commits))

    async with open_in(tmp_path, agent("1"), policies=CREATION, probe=probe) as opened:
        runtime, spec = opened.runtime, opened.compiled.agents[0]
        await runtime.run(opened.compiled, spec, {})  # the rules of its file are in force from now on
        store = runtime.rooms.runs
        append = store.append

        def note(commit):
            append(commit)
            commits.append([parse_event(event.record).event_type for event in commit.events])

        monkeypatch.setattr(store, "append", note)
        begun.clear()
        await runtime.run(opened.compiled, spec, {})
    kind = AuditEventType
    assert begun == [3]
    assert commits[:4] == [
        [kind.RUN_STARTED, kind.DECISION_ALLOW],
        [kind.EFFECT_OUTCOME, kind.DECISION_ALLOW],
        [kind.EFFECT_OUTCOME, kind.AGENT_TRANSITION, kind.AGENT_TRANSITION],
        [kind.RUN_FINISHED, kind.AGENT_TRANSITION, kind.AGENT_TRANSITION],
    ]


async def test_an_agent_whose_run_is_not_on_record_is_not_created(tmp_path):
    async with open_in(tmp_path, agent("log(1);"), policies="permit (principal, action, resource);") as opened:
        runtime, spec, created = opened.runtime, opened.compiled.agents[0], []

        def full(_record):
            raise StoreUnavailable("the disk is full")

        redeem = runtime.guard.authority.redeem

        def noted(permit, kind):
            created.append(kind.kind)
            return redeem(permit, kind)

        runtime.guard.authority.redeem, put = noted, runtime.rooms.runs.put_run
        runtime.rooms.runs.put_run = full
        with pytest.raises(StoreUnavailable):
            await runtime.run(opened.compiled, spec, {})
        assert created == []
        runtime.rooms.runs.put_run = put
        assert (await runtime.run(opened.compiled, spec, {})).state is RunState.FINISHED
        assert created == ["CreateAgent", "AllocateResources", "WriteLog"]
