"""Runs of `symbi run` that policy, a limit or a tool server breaks off: what is said of them, and how they go on. Whole commands."""

import os
import subprocess
import sys
import time

from symbi.errors import SymbiError

DENIED, FAILED = 3, 1
QUIET = '\n@id("quiet") forbid (principal, action in Action::"InvokeTool", resource);\n'


def permit(workshop, more: str = "") -> None:
    file = workshop.folder / "policies" / "all.cedar"
    workshop.put("policies/all.cedar", file.read_text().replace(QUIET, "") + more)


def test_a_denied_run_is_held_says_how_it_goes_on_and_does_once_policy_lets_it(workshop):
    workshop.write()
    permit(workshop, QUIET)
    said = workshop.run_inside()
    error = said.error(DENIED, "quiet")
    assert error.startswith("error: work.symbi:5:")
    run_id = next(e.run_id for e in workshop.trail() if e.event_type == "run.started")
    assert f"run {run_id} is held" in said.stderr.replace("\n", " ")
    assert "symbi run --resume --run" in said.stderr
    assert workshop.untouched()
    assert workshop.inside("run", "--resume").code == DENIED  # it is asked again, and refused again
    permit(workshop)
    done = workshop.inside("run", "--resume", "--run", run_id)
    assert done.code == 0, done.stderr
    assert len(workshop.sent()) == 1
    states = [e.details["to"] for e in workshop.trail() if e.event_type == "agent.transition"]
    assert states == ["Ready", "Running", "Suspended", "Running", "Suspended", "Running", "Ready", "Terminated"]


def test_a_run_out_of_steps_goes_on_with_more_of_them(workshop):
    workshop.write("for i in range(50000) { let x = 1; }", steps=1000)
    assert "limit.steps" in workshop.run_inside().error(FAILED, "limit.steps")
    assert workshop.untouched()
    workshop.write("for i in range(50000) { let x = 1; }", steps=1_000_000)
    done = workshop.inside("run", "--resume")
    assert done.code == 0, done.stderr
    assert workshop.sent()


def test_what_failed_is_over(workshop):
    workshop.write('int("x");')
    said = workshop.run_inside()
    said.error(FAILED)
    assert "--resume" not in said.stderr
    workshop.inside("run", "--resume").error(2, "there is no run to resume")


ASK = 'tool("odd.echo", text = text);'


def declared(workshop, mode: str, recovery: str) -> None:
    workshop.write(ASK, mode)
    config = (workshop.folder / "symbi.toml").read_text()
    workshop.put("symbi.toml", config + 'manifest = "odd.toml"\n')
    workshop.put("odd.toml", f'[server]\nname = "odd"\n[tools.echo]\nrecovery = "{recovery}"\n')


def test_a_server_that_dies_in_a_call_is_connected_again_and_an_idempotent_call_is_made_again_with_its_key(workshop):
    declared(workshop, "dies-once", "idempotent")
    done = workshop.run()
    assert done.code == 0, done.stderr
    calls = [e.details for e in workshop.trail() if e.details.get("action") == "InvokeTool::odd.echo"]
    told = [(one["attempt"], one.get("outcome", "decided")) for one in calls]
    assert told == [(1, "decided"), (1, "unknown"), (2, "decided"), (2, "confirmed")]
    assert len({one["effect_id"] for one in calls}) == 1
    connected = [e for e in workshop.trail() if e.details.get("resource") == "ToolServer::odd"]
    assert len(connected) == 4  # decided and done, twice


def test_a_call_that_must_not_be_repeated_is_held_in_doubt_instead(workshop):
    declared(workshop, "dies-once", "never-retry")
    workshop.run().error(5, "ended with exit status 3")
    workshop.inside("run", "--resume").error(6, "odd.echo")
    assert (
        len([e for e in workshop.trail() if e.event_type == "effect.outcome" and "odd.echo" in e.details["action"]])
        == 1
    )
    assert workshop.untouched()


def test_a_process_that_is_killed_while_it_waits_to_try_again_goes_on_with_the_same_effect(workshop):
    declared(workshop, "dies-mid-call", "idempotent")
    command = [sys.executable, "-m", "symbi.cli.main", "run", "work.symbi", "--input", "text=hello"]
    process = subprocess.Popen(
        command, cwd=workshop.folder, env={**os.environ, **workshop.environ},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline_s = time.monotonic() + 60
    while not has_tried(workshop):
        assert process.poll() is None
        assert time.monotonic() < deadline_s
        time.sleep(0.02)  # another process is waited for
    process.kill()
    process.wait()
    before = tried(workshop)
    declared(workshop, "good", "idempotent")
    done = workshop.symbi("run", "--resume")
    assert done.code == 0, done.stderr
    after = tried(workshop)
    assert after[: len(before)] == before
    assert after[-1]["outcome"] == "confirmed"
    decided = [e.details for e in workshop.trail() if e.event_type == "decision.allow"]
    calls = [one for one in decided if one["action"] == "InvokeTool::odd.echo"]
    assert [one["attempt"] for one in calls] == list(range(1, len(calls) + 1))
    assert len({one["effect_id"] for one in calls}) == 1


def tried(workshop) -> list[dict]:
    """How each attempt at the call has ended."""
    found = [e.details for e in workshop.trail() if e.event_type == "effect.outcome"]
    return [one for one in found if one.get("action") == "InvokeTool::odd.echo"]


def has_tried(workshop) -> bool:
    """Whether an attempt has ended, as far as that can be read yet."""
    try:
        return bool(tried(workshop))
    except SymbiError:  # store and keys are being made
        return False
