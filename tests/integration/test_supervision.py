"""Runs under supervision on a whole runtime: retried, restarted, suspended, given up; and let go on, stopped, left."""

from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
import anyio.lowlevel
import pytest

from symbi.adapters.sqlite import SqliteReader
from symbi.agent.again import Patience
from symbi.agent.journal import RunState
from symbi.agent.remedies import RESTARTS, RETRIES
from symbi.agent.turn import LONG_S
from symbi.api.agents import list_agents, show_agent
from symbi.audit.event import AuditEventType as T
from symbi.audit.event import parse_event
from symbi.errors import InputError, PolicyDenied, ScriptFailed, StoreUnavailable, ToolFailed, ToolServerUnavailable
from symbi.guard.action import WriteLog
from symbi.policy.engine import PolicySource
from symbi.policy.policies import PolicySet
from symbi.runtime.lifecycle import AgentState
from symbi.runtime.supervision import Supervision, Work
from symbi.testing.clock import ManualClock
from symbi.testing.runtime import RunningRuntime, open_in
from symbi.types import RecoveryClass, RunId

pytestmark = pytest.mark.anyio

PERMIT = "permit (principal, action, resource);"
NO_LOG = PERMIT + '\n@id("quiet") forbid (principal, action == Action::"WriteLog", resource);'
RATED = """
@id("rated") @rate("1/3600s") permit (principal, action == Action::"WriteLog", resource);
permit (principal, action, resource) unless { action == Action::"WriteLog" };
"""
GONE, NO = (lambda: ToolServerUnavailable("gone")), (lambda: ToolFailed("it says no"))
RUN = RunId("0190-run")


CATCHES = 'let n = 1; try { log("x"); } catch (e) { n = 2; } n'


def agent(body: str) -> str:
    return f"agent a {{ with sandbox = interpreter, timeout = 600.seconds {{ {body} }} }}"


@dataclass
class Stage:
    """An open runtime whose `log` does what a script says, and whose waits are noted."""

    opened: RunningRuntime
    supervision: Supervision
    clock: ManualClock
    script: list[Callable[[], Exception] | None]
    said: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)

    @property
    def work(self) -> Work:
        return Work(self.opened.compiled, self.opened.compiled.agents[0], RUN)

    @property
    def runtime(self):
        return self.opened.runtime

    async def record(self):
        return await self.runtime.rooms.world.log.read(lambda: self.runtime.rooms.runs.get_run(RUN))

    async def until(self, what) -> None:
        with anyio.fail_after(30):
            while not what():
                await anyio.lowlevel.checkpoint()

    async def resting(self) -> None:
        await self.until(lambda: self.runtime.rests.all)


@asynccontextmanager
async def staged(folder, body, *script, policies=PERMIT, blocks=None, config=""):
    clock = ManualClock()
    script, said, waits = list(script), [], []

    def emit(_agent, line):
        told = script.pop(0) if script else None
        if told is not None:
            raise told()
        said.append(line)

    async def wait(seconds):
        waits.append(seconds)
        if blocks is not None and seconds >= blocks:
            await anyio.sleep_forever()
        clock.advance(seconds)

    patience = Patience(wait, lambda: 0.0)
    async with open_in(
        folder, agent(body), config=config, policies=policies, emit=emit, clock=clock, patience=patience
    ) as opened:
        yield Stage(opened, Supervision(opened.runtime), clock, script, said, waits)


def events(folder, *kinds):
    with SqliteReader(folder / ".symbi") as reader:
        found = [parse_event(stored.record) for stored in reader.read(1)]
    return [event for event in found if event.event_type in kinds]


def states(folder):
    return [event.details["to"] for event in events(folder, T.AGENT_TRANSITION)]


async def test_what_a_dependency_refuses_for_a_moment_is_retried_in_place_and_the_body_sees_nothing_of_it(tmp_path):
    async with staged(tmp_path, CATCHES, GONE, GONE) as stage:
        outcome = await stage.supervision.carry_out(stage.work)
        assert (outcome.output, outcome.effects, stage.said) == (1, 1, ["x"])
        assert stage.waits == [0.25, 0.5]
    told = [(e.event_type, e.details["attempt"]) for e in events(tmp_path, T.DECISION_ALLOW, T.EFFECT_OUTCOME)
            if e.details["action"] == "WriteLog"]  # fmt: skip
    assert told == [(kind, n) for n in (1, 2, 3) for kind in (T.DECISION_ALLOW, T.EFFECT_OUTCOME)]
    assert (
        len({e.details["effect_id"] for e in events(tmp_path, T.EFFECT_OUTCOME) if e.details["action"] == "WriteLog"})
        == 1
    )


async def test_a_body_sees_the_error_once_no_attempt_is_left(tmp_path):
    async with staged(tmp_path, CATCHES, *[GONE] * 99) as stage:
        outcome = await stage.supervision.carry_out(stage.work)
        assert (outcome.state, outcome.output) == (RunState.FINISHED, 2)
        assert len(stage.waits) == RETRIES.attempts
        assert len(stage.script) == 99 - 1 - RETRIES.attempts


async def test_the_retries_of_a_run_are_bounded_over_all_of_its_effects(tmp_path):
    body = 'let n = 0; for i in range(9) { try { log("x"); } catch (e) { n += 1; } } n'
    async with staged(tmp_path, body, *[GONE] * 999) as stage:
        assert (await stage.supervision.carry_out(stage.work)).output == 9
        assert len(stage.waits) == 30


async def test_what_a_tool_itself_answers_is_not_retried_in_place_but_the_run_is_restarted_and_asks_again(tmp_path):
    async with staged(tmp_path, 'log("x"); log("y"); 1', None, NO, NO) as stage:
        outcome = await stage.supervision.carry_out(stage.work)
        assert (outcome.output, outcome.replayed, stage.said) == (1, 1, ["x", "y"])
        assert len(stage.waits) == 2
        assert stage.waits[1] > stage.waits[0]
    assert states(tmp_path) == ["Ready", "Running", "Terminated"] * 2 + ["Ready", "Running", "Ready", "Terminated"]


async def test_a_crash_loop_ends_the_agent_failed_with_its_cause_and_the_run_is_a_dead_letter(tmp_path):
    async with staged(tmp_path, 'log("x"); 1', *[NO] * 99) as stage:
        outcome = await stage.supervision.carry_out(stage.work)
        assert (outcome.state, outcome.error.code) == (RunState.FAILED, "agent.tool")
        assert len(stage.script) == 99 - 1 - RESTARTS.attempts
        letter = await stage.runtime.rooms.letters.found(RUN)
        assert (letter.code, letter.attempts) == ("agent.tool", 4)
        assert (await stage.record()).state is RunState.FAILED
    last = events(tmp_path, T.AGENT_TRANSITION)[-1].details
    assert (last["event"], last["to"], last["error"], last["tries"]) == ("Crash Loop", "Failed", "agent.tool", 4)
    assert last["since"].startswith("2026-")


async def test_what_was_answered_and_must_not_be_repeated_is_given_up_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(WriteLog, "recovery", property(lambda _: RecoveryClass.NEVER_RETRY))
    async with staged(tmp_path, 'log("x"); 1', *[NO] * 99) as stage:
        outcome = await stage.supervision.carry_out(stage.work)
        assert (outcome.state, outcome.error.code, stage.waits) == (RunState.FAILED, "agent.tool", [])
        assert len(stage.script) == 99 - 1
        assert (await stage.runtime.rooms.letters.found(RUN)).attempts == 1


async def test_who_gets_further_each_time_is_in_no_loop(tmp_path):
    body = 'for i in range(6) { log("x"); } 1'
    script = [step for _ in range(6) for step in (NO, None)]
    async with staged(tmp_path, body, *script) as stage:
        assert (await stage.supervision.carry_out(stage.work)).output == 1
        assert len(stage.waits) == 6


async def test_a_crash_of_the_process_begins_no_new_count(tmp_path):
    async with staged(tmp_path, 'log("x"); 1', *[NO] * 99, blocks=0.0) as stage:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stage.supervision.carry_out, stage.work)
            await stage.until(lambda: stage.waits)
            tasks.cancel_scope.cancel("the process dies")
        assert (await stage.record()).state is RunState.HELD
    async with staged(tmp_path, 'log("x"); 1', *[NO] * 99) as stage:
        assert (await stage.supervision.carry_out(stage.work)).state is RunState.FAILED
        assert len(stage.script) == 99 - 3
        assert (await stage.runtime.rooms.letters.found(RUN)).attempts == 4


async def test_a_letter_that_a_crash_kept_from_its_queue_is_put_there_by_who_comes_next(tmp_path):
    async with staged(tmp_path, 'log("x"); 1', *[NO] * 99) as stage:

        async def fails(*_):
            raise StoreUnavailable("the process dies")

        stage.supervision._give_up = fails
        with pytest.raises(StoreUnavailable):
            await stage.supervision.carry_out(stage.work)
    async with staged(tmp_path, 'log("x"); 1') as stage:
        assert (await stage.supervision.carry_out(stage.work)).state is RunState.FAILED
        assert (await stage.runtime.rooms.letters.found(RUN)).attempts == 4
        assert stage.said == []


async def test_a_dependency_that_stays_away_is_given_up_and_the_run_was_held_meanwhile(tmp_path):
    async with staged(tmp_path, 'log("x"); 1', *[GONE] * 99) as stage:
        outcome = await stage.supervision.carry_out(stage.work)
        assert (outcome.state, outcome.error.code) == (RunState.FAILED, "unavailable.tool_server")
        # Seven attempts in place; then each further one of the run is one attempt, for those in place are used up.
        assert len(stage.script) == 99 - 7 - RETRIES.attempts
    assert states(tmp_path)[-3:] == ["Suspended", "Running", "Failed"]


async def test_what_is_wrong_in_the_body_is_over_at_once(tmp_path):
    async with staged(tmp_path, 'int("x")') as stage:
        outcome = await stage.supervision.carry_out(stage.work)
        assert (outcome.state, type(outcome.error), stage.waits) == (RunState.FAILED, ScriptFailed, [])


async def test_a_defect_is_restarted_and_then_given_up(tmp_path):
    async with staged(tmp_path, 'log("x"); 1') as stage:

        def broken(_agent, _line):
            raise RuntimeError("a defect")

        world = stage.runtime._rooms.world
        object.__setattr__(world, "emit", broken)
        outcome = await stage.supervision.carry_out(stage.work)
        assert (outcome.state, outcome.error.code, len(stage.waits)) == (RunState.FAILED, "internal", 3)
        assert (await stage.record()).state is RunState.FAILED
    last = events(tmp_path, T.AGENT_TRANSITION)[-1].details
    assert (last["event"], last["tries"]) == ("Crash Loop", 4)


async def test_a_gate_that_had_no_time_for_one_agent_is_asked_again_and_ends_nothing(tmp_path):
    async with staged(tmp_path, 'log("x"); 1') as stage:
        hold, refusals = stage.runtime.guard._admit, []

        async def busy(action, *more, **named):
            if action.kind == "WriteLog" and len(refusals) < 9:
                refusals.append(action)
                raise StoreUnavailable("too much waits", code="unavailable.undecided", retry_after_s=0.1)
            return await hold(action, *more, **named)

        stage.runtime.guard._admit = busy
        assert (await stage.supervision.carry_out(stage.work)).output == 1
        assert (stage.said, len(refusals)) == (["x"], 9)


async def test_a_store_that_is_lost_is_nobodys_to_retry(tmp_path):
    async with staged(tmp_path, 'log("x"); 1', lambda: StoreUnavailable("the disk is full")) as stage:
        with pytest.raises(StoreUnavailable, match="disk"):
            await stage.supervision.carry_out(stage.work)
        assert stage.waits == []
        assert (await stage.record()).state is RunState.RUNNING


async def test_a_rate_is_waited_for_until_its_window_frees(tmp_path):
    async with staged(tmp_path, 'log("x"); log("y"); 1', policies=RATED) as stage:
        assert (await stage.supervision.carry_out(stage.work)).output == 1
        assert stage.said == ["x", "y"]
        assert stage.waits == [pytest.approx(3600, abs=1)]


# --- suspended by policy ------------------------------------------------------------------------


async def seen_through(stage, act):
    """Carry out the work of a stage to its end, and act once it rests."""
    outcomes = []

    async def see():
        outcomes.append(await stage.supervision.see_through(stage.work))

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(see)
            await stage.resting()
            await act()
    return outcomes[0]


def in_force(stage, text):
    """Put other policies of the operator in force."""
    old = stage.runtime.guard.engine.current
    sources = [
        PolicySource(s.file, text) if s.file.endswith(".cedar") and "operator" in s.file else s for s in old.sources
    ]
    stage.runtime.guard.engine.replace(PolicySet.load(sources, old.compiled, old.tools))


async def test_a_denied_run_is_held_its_agent_suspended_and_it_goes_on_by_itself_when_policy_lets_it(tmp_path):
    async with staged(tmp_path, 'let a = random(); log("x"); 1', policies=NO_LOG) as stage:

        async def act():
            assert (await stage.record()).state is RunState.HELD
            (rest,) = stage.runtime.rests.all
            assert (rest.state, rest.error.code) == (AgentState.SUSPENDED, "policy.denied")
            (row,) = (await list_agents(stage.runtime, None, {}))["agents"]
            assert (row["agent"], row["state"], row["reason"], row["run"]) == ("a", "Suspended", "policy.denied", RUN)
            assert (await show_agent(stage.runtime, None, {"agent": "a"}))["runs"] == [row]
            in_force(stage, PERMIT)

        outcome = await seen_through(stage, act)
        assert (outcome.output, outcome.replayed, stage.said) == (1, 1, ["x"])
    moves = [(e.details["event"], e.details["to"]) for e in events(tmp_path, T.AGENT_TRANSITION)]
    assert moves[2:4] == [("Policy Violation", "Suspended"), ("Policy Cleared", "Running")]
    told = [e.details["attempt"] for e in events(tmp_path, T.DECISION_ALLOW, T.DECISION_DENY)
            if e.details["action"] == "WriteLog"]  # fmt: skip
    assert told == [1, 2]


async def test_another_set_that_changes_nothing_leaves_it_suspended(tmp_path):
    async with staged(tmp_path, 'log("x"); 1', policies=NO_LOG) as stage:

        async def act():
            for number in range(3):
                in_force(stage, NO_LOG + f" // {number}")
                await stage.until(lambda: stage.runtime.at_work == ())
                await stage.resting()
            await stage.runtime.stop(["a"], "ada")

        outcome = await seen_through(stage, act)
        assert (outcome.state, outcome.error.code, stage.said) == (RunState.FAILED, "agent.stopped", [])
        assert (await stage.record()).state is RunState.FAILED
    last = events(tmp_path, T.AGENT_TRANSITION)[-1].details
    assert (last["event"], last["to"], last["by"]) == ("Manual Override", "Terminated", "ada")


async def test_an_operator_lets_it_ask_again(tmp_path):
    async with staged(tmp_path, 'log("x"); 1', policies=NO_LOG) as stage:
        asked = []

        async def act():
            before = stage.runtime.rests.all
            stage.runtime.let_go_on("a")
            await stage.until(lambda: stage.runtime.rests.all not in ((), before))
            asked.append(1)
            await stage.runtime.stop(None, "ada")

        assert (await seen_through(stage, act)).error.code == "agent.stopped"
        assert asked
    assert len([e for e in events(tmp_path, T.DECISION_DENY) if e.details["action"] == "WriteLog"]) == 2


async def test_what_a_body_has_caught_stays_denied(tmp_path):
    body = 'let n = 0; try { log("x"); } catch (e) { n = 1; } let a = random(); for i in range(3) { log("y"); } n'
    async with staged(tmp_path, body, policies=NO_LOG) as stage:

        async def act():
            in_force(stage, PERMIT)

        outcome = await seen_through(stage, act)
        assert (outcome.output, stage.said) == (1, ["y", "y", "y"])


async def test_a_limit_suspends_and_the_caught_denial_before_it_stays(tmp_path):
    body = 'let n = 0; try { log("x"); } catch (e) { n = 1; } for x in range(30000) { for y in range(9) { n += 1; } } n'
    async with staged(tmp_path, body, policies=NO_LOG, config="[limits]\nsteps = 5000\n") as stage:

        async def act():
            (rest,) = stage.runtime.rests.all
            assert (rest.error.code, rest.version) == ("limit.steps", None)
            in_force(stage, PERMIT)  # which changes nothing for a limit
            assert not rest._let_go.is_set()
            await stage.runtime.stop(None, "ada")

        await seen_through(stage, act)
        assert stage.said == []


async def test_a_suspended_run_can_be_resumed_by_another_process_and_asks_again(tmp_path):
    async with staged(tmp_path, 'log("x"); 1', policies=NO_LOG) as stage:
        outcome = await stage.runtime.run(stage.opened.compiled, stage.work.spec, {}, run_id=RUN)
        assert (outcome.state, type(outcome.error)) == (RunState.HELD, PolicyDenied)
    async with staged(tmp_path, 'log("x"); 1', policies=PERMIT) as stage:
        record = await stage.runtime.find_open_run(None, None)
        outcome = await stage.runtime.resume(stage.opened.compiled, stage.work.spec, record)
        assert (outcome.state, outcome.output, stage.said) == (RunState.FINISHED, 1, ["x"])
    assert states(tmp_path) == ["Ready", "Running", "Suspended", "Running", "Ready", "Terminated"]


async def test_shutting_down_leaves_a_suspended_run_held(tmp_path):
    async with staged(tmp_path, 'log("x"); 1', policies=NO_LOG) as stage:

        async def act():
            stage.runtime.rests.close()

        assert (await seen_through(stage, act)).state is RunState.HELD
        assert (await stage.record()).state is RunState.HELD


# --- while it waits to be tried again -----------------------------------------------------------


async def test_a_backoff_is_stopped_at_once_and_holds_no_seat(tmp_path):
    async with staged(tmp_path, 'log("x"); 1', *[NO] * 99, blocks=0.0) as stage:
        free = (await stage.runtime.get_system_status()).free

        async def act():
            assert (await stage.runtime.get_system_status()).free == free
            await stage.runtime.stop(["a"], "ada")

        assert (await seen_through(stage, act)).error.code == "agent.stopped"
        assert (await stage.record()).state is RunState.FAILED


async def test_a_backoff_is_cut_short_by_an_operator_who_lets_it_go_on(tmp_path):
    async with staged(tmp_path, 'log("x"); 1', NO, blocks=0.0) as stage:

        async def act():
            stage.runtime.let_go_on("a")

        assert (await seen_through(stage, act)).output == 1


async def test_a_wait_in_place_is_stopped_at_once(tmp_path):
    async with staged(tmp_path, 'log("x"); 1', *[GONE] * 99, blocks=0.0) as stage:
        outcomes = []

        async def see():
            outcomes.append(await stage.supervision.carry_out(stage.work))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(see)
            await stage.until(lambda: stage.waits)
            await stage.runtime.stop(None, "ada")
        assert outcomes[0].error.code == "agent.stopped"


async def test_a_long_wait_in_place_holds_no_seat_and_takes_one_again(tmp_path):
    async with staged(tmp_path, 'log("x"); 1', *[GONE] * 99, blocks=LONG_S) as stage:
        free = (await stage.runtime.get_system_status()).free
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stage.supervision.carry_out, stage.work)
            await stage.until(lambda: stage.waits and stage.waits[-1] >= LONG_S)
            assert (await stage.runtime.get_system_status()).free == free
            tasks.cancel_scope.cancel("seen")
    script = [GONE] * 6
    async with staged(tmp_path / "again", 'log("x"); 1', *script) as stage:
        assert (await stage.supervision.carry_out(stage.work)).output == 1
        assert (await stage.runtime.get_system_status()).free == free


async def test_a_wait_in_place_can_be_suspended_at_once(tmp_path):
    script = [GONE] * 99
    async with (
        staged(tmp_path, 'log("x"); 1', *script, blocks=0.0) as stage,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(stage.supervision.carry_out, stage.work)
        await stage.until(lambda: stage.waits)
        await stage.runtime.suspend("a", "ada")
        (one,) = stage.runtime.at_work
        assert one.life.state is AgentState.SUSPENDED
        tasks.cancel_scope.cancel("seen")


async def test_what_is_not_as_it_was_begun_is_told_and_stays(tmp_path):
    async with staged(tmp_path, 'log("x"); 1', policies=NO_LOG) as stage:
        await stage.supervision.carry_out(stage.work)
    async with staged(tmp_path, 'log("z"); 1') as stage:
        with pytest.raises(InputError, match="has changed"):
            await stage.supervision.carry_out(stage.work)
        assert (await stage.record()).state is RunState.HELD
