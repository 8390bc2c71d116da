"""Approval end to end: real processes, a restart between question and answer, kill -9 between grant and effect."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from symbi.api.client import ask_owner, connect_owner
from symbi.audit.event import AuditEventType as T
from symbi.cli import approvals as cli
from symbi.testing.forks import Forks

DRIVER = Path(__file__).parents[1] / "data" / "approval_run.py"
SIGKILLED = -9
HELD = 7
PEOPLE = """
[agents.work]
owner = "{owner}"
[approvals]
expires_s = 3600
{more}
[approvals.people.ada]
user = "{uid}"
groups = ["ops"]
"""
POLICY = """\
@id("base")
permit (principal, action, resource);
@id("ask-send")
@approval("who=ops; why=it leaves the house")
permit (principal, action == Action::"InvokeTool::desk.send", resource);
"""


@pytest.fixture
def place(workshop):
    prepare(workshop)
    return workshop


def prepare(workshop, *, owner="carl", more="", policy=POLICY, first=""):
    workshop.write(first, timeout_s=30, more=PEOPLE.format(owner=owner, more=more, uid=os.geteuid()))
    agent = (
        (workshop.folder / "work.symbi")
        .read_text()
        .replace('"odd.echo", ', "")
        .replace('"python"]', '"python", "approval"]')
    )
    workshop.put("work.symbi", agent)
    workshop.put("policies/all.cedar", policy)


def waiting(workshop) -> list[dict]:
    return json.loads(workshop.inside("approvals", "list", "--json").stdout)


def test_asked_in_one_process_answered_in_another_done_in_a_third(place):
    asked = place.run()
    assert asked.code == HELD, asked.stderr
    assert "symbi approvals approve" in asked.stderr
    assert place.sent() == []
    (row,) = waiting(place)
    assert row["arguments"] == {"to": "oncall@example.com", "text": "hello"}
    assert row["labels"]["text"]["sources"] == ["task"]
    assert [policy["id"] for policy in row["policies"]] == ["ask-send", "base"] or row["policies"]
    shown = place.symbi("approvals", "show", row["id"])
    assert "oncall@example.com" in shown.stdout
    assert place.symbi("run", "--resume").code == HELD  # still held, and asked once
    assert len(waiting(place)) == 1
    approved = place.symbi("approvals", "approve", row["id"], "--reason", "go on")
    assert approved.code == 0, approved.stderr
    done = place.symbi("run", "--resume")
    assert (done.code, done.stdout) == (0, "done\n"), done.stderr
    assert place.sent() == ["hello"]
    assert waiting(place) == []
    events = place.trail()
    decision = next(e for e in events if e.event_type == T.DECISION_ALLOW and "approval" in e.details)
    assert decision.details["approval"] == {"id": row["id"], "digest": row["digest"], "people": ["ada"]}
    control = [e for e in events if e.details.get("action") == "ControlRuntime" and e.event_type == T.DECISION_ALLOW]
    assert [e.details["resource"] for e in control] == ["Resource::approvals.approve"]


def test_a_no_is_an_error_that_ends_the_run_or_that_its_body_catches(place):
    place.run_inside()
    (row,) = waiting(place)
    assert "waiting until 2" in place.inside("approvals", "show", row["id"]).stdout
    assert place.inside("approvals", "deny", row["id"], "--reason", "not today").code == 0
    (first, second) = place.inside("approvals", "list", "--all").stdout.splitlines()
    assert first == f"{row['id']} denied", "what is over lasts until no time"
    assert second.strip().startswith("work: InvokeTool::desk.send on Tool::desk.send")
    assert "``" not in place.inside("approvals", "--help").stdout, "a name in brackets is no markup"
    ended = place.inside("run", "--resume")
    ended.error(3, "`ada` did not approve this: not today")
    assert place.sent() == []


def test_self_approval_is_refused_and_audited(workshop):
    prepare(
        workshop, owner="ada", policy=POLICY.replace("who=ops; ", ""), more='[approvals.people.bob]\nuser = "65533"'
    )
    assert workshop.run_inside().code == HELD
    (row,) = waiting(workshop)
    refused = workshop.inside("approvals", "approve", row["id"])
    assert refused.code == 3, refused.stderr
    assert "nobody approves what they ask for" in refused.stderr
    assert workshop.inside("run", "--resume").code == HELD
    assert workshop.recorded("approval.refused", "approval.self")


def test_without_a_policy_for_it_nobody_may_even_vote(place):
    place.put("policies/all.cedar", POLICY + 'forbid (principal, action == Action::"ControlRuntime", resource);')
    assert place.run_inside().code == HELD
    (row,) = waiting(place)
    place.inside("approvals", "approve", row["id"]).error(3, "forbidden by")
    assert place.inside("run", "--resume").code == HELD


def test_a_vote_that_was_signed_elsewhere_is_handed_in(workshop):
    made = workshop.inside("approvals", "keygen", "eve.key", "--json")
    key = json.loads(made.stdout)["public_key"]
    prepare(workshop, policy=POLICY.replace("who=ops", "who=eve"), more=f'[approvals.people.eve]\npublic_key = "{key}"')
    assert workshop.run_inside().code == HELD
    (row,) = waiting(workshop)
    workshop.inside("approvals", "approve", row["id"]).error(3, "not among those who are asked")
    workshop.put("row.json", workshop.inside("approvals", "show", row["id"], "--json").stdout)
    signed = workshop.inside("approvals", "sign", "row.json", "--key", "eve.key", "--reason", "seen")
    assert signed.code == 0, signed.stderr
    workshop.put("vote.json", signed.stdout)
    workshop.inside("approvals", "deny", row["id"], "--signature", "vote.json").error(2, "not this one")
    taken = workshop.inside("approvals", "approve", row["id"], "--signature", "vote.json")
    assert taken.code == 0, taken.stderr
    assert workshop.inside("run", "--resume").code == 0
    assert workshop.sent() == ["hello"]


def test_what_was_altered_on_its_way_is_not_signed(place):
    place.run_inside()
    (row,) = waiting(place)
    place.inside("approvals", "keygen", "eve.key")
    row["arguments"]["to"] = "somebody@else.example"
    place.put("row.json", json.dumps(row))
    place.inside("approvals", "sign", "row.json", "--key", "eve.key").error(2, "does not have the digest")
    (place.folder / "eve.key").chmod(0o644)
    row["arguments"]["to"] = "oncall@example.com"
    place.put("row.json", json.dumps(row))
    place.inside("approvals", "sign", "row.json", "--key", "eve.key").error(2, "can be read by others")


def start(workshop, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "symbi.cli.main", *arguments], cwd=workshop.folder, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env={**os.environ, **workshop.environ},
    )  # fmt: skip


def until_held(process: subprocess.Popen) -> None:
    """Read what a run says until it says that something is held."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("held:"):
            return
    pytest.fail("nothing was held")


def test_a_run_that_waits_is_released_through_its_socket(place):
    run = start(place, "run", "work.symbi", "--input", "text=hello", "--wait")
    try:
        until_held(run)
        (row,) = waiting(place)
        approved = place.inside("approvals", "approve", row["id"], "--json")
        assert json.loads(approved.stdout)["state"] in {"granted", "used"}, approved.stderr
        assert run.wait(timeout=30) == 0
    finally:
        run.kill()
        run.communicate()
    assert place.sent() == ["hello"]
    assert not (place.folder / ".symbi" / "symbi.sock").exists()


def test_waiting_people_cost_the_run_none_of_its_time(workshop):
    prepare(workshop)
    agent = (workshop.folder / "work.symbi").read_text().replace("timeout = 30.seconds", "timeout = 6.seconds")
    workshop.put("work.symbi", agent)
    run = start(workshop, "run", "work.symbi", "--input", "text=hello", "--wait", "1m")
    try:
        until_held(run)
        (row,) = waiting(workshop)
        time.sleep(6)  # longer than the run has: what is asked of people is real time
        assert workshop.inside("approvals", "approve", row["id"]).code == 0
        assert run.wait(timeout=30) == 0
    finally:
        run.kill()
        run.communicate()


def test_a_wait_that_is_over_ends_held(place):
    ended = place.inside("run", "work.symbi", "--input", "text=hello", "--wait", "10ms")
    assert ended.code == HELD
    place.inside("run", "work.symbi", "--input", "text=hello", "--wait=soon").error(2, "is no time")


def test_the_socket_is_ours_alone_and_a_killed_owner_leaves_nothing_in_the_way(place):
    run = start(place, "run", "work.symbi", "--input", "text=hello", "--wait")
    until_held(run)
    path = place.folder / ".symbi" / "symbi.sock"
    assert path.stat().st_mode & 0o777 == 0o600
    run.send_signal(signal.SIGKILL)
    run.communicate()
    assert path.is_socket()  # left behind
    assert connect_owner(path.parent) is None
    (row,) = waiting(place)
    assert place.inside("approvals", "approve", row["id"]).code == 0  # as the owner itself
    again = start(place, "run", "--resume")
    assert again.communicate(timeout=30)[0] == "done\n"


def test_bad_requests_get_errors_and_end_nothing(place):
    run = start(place, "run", "work.symbi", "--input", "text=hello", "--wait")
    try:
        until_held(run)
        folder = place.folder / ".symbi"
        for bad in (
            b"\n",
            b"no\n",
            b"[]\n",
            b'{"operation": 1, "arguments": {}}\n',
            b"[" * 100_000 + b"\n",
            b"x" * 300_000,
        ):
            connection = connect_owner(folder)
            connection.sendall(bad)
            connection.shutdown(socket.SHUT_WR)
            said = b"".join(iter(lambda c=connection: c.recv(65536), b""))
            connection.close()
            assert json.loads(said)["error"]["code"] == "control.request", bad[:20]
        for operation, arguments, code in (
            ("approvals.grant", {}, "control.operation"),
            ("approvals.show", {}, "control.argument"),
            ("approvals.show", {"id": "nothing"}, "approval.unknown"),
            ("approvals.approve", {"id": "x", "digest": "y", "signature": "z"}, "approval.vote"),
        ):
            with pytest.raises(Exception) as refused:
                ask_owner(connect_owner(folder), operation, arguments)
            assert refused.value.code == code
        assert run.poll() is None
        (row,) = waiting(place)
        assert place.inside("approvals", "approve", row["id"]).code == 0
        assert run.wait(timeout=30) == 0
    finally:
        run.kill()
        run.communicate()


def test_one_altered_approval_hides_no_other(place):
    for _ in range(2):
        assert place.run_inside().code == HELD
    first, second = (row["id"] for row in waiting(place))
    with sqlite3.connect(place.folder / ".symbi" / "symbi.db") as store:
        store.execute("UPDATE approvals SET agent_id = 'another' WHERE approval_id = ?", (first,))
    rows = {row["id"]: row for row in waiting(place)}
    assert (rows[first]["state"], rows[first]["fault"]) == ("altered", "its agent is not the one that asked")
    assert rows[second]["state"] == "waiting"
    listed = place.inside("approvals", "list")
    assert listed.code == 0
    assert f"{first} altered: its agent is not the one that asked" in listed.stdout
    assert place.inside("approvals", "approve", first).code != 0
    assert place.inside("approvals", "approve", second).code == 0


def test_an_agent_asks_people_by_itself(workshop):
    ask = 'try { approval("ops", "send it?"); } catch (ApprovalRequired e) { return e.message; }'
    prepare(workshop, policy="permit (principal, action, resource);", first=ask)
    assert workshop.run_inside().code == HELD
    (row,) = waiting(workshop)
    assert (row["action"], row["arguments"]) == ("RequestApproval", {"who": "ops", "what": "send it?"})
    workshop.inside("approvals", "approve", row["id"])
    done = workshop.inside("run", "--resume")
    assert (done.code, done.stdout) == (0, "done\n"), done.stderr
    assert workshop.run_inside().code == HELD
    (row,) = waiting(workshop)
    workshop.inside("approvals", "deny", row["id"], "--reason", "no")
    done = workshop.inside("run", "--resume")
    assert (done.code, done.stdout) == (0, "`ada` did not approve this: no\n"), done.stderr


def test_an_endorsement_waits_for_people_who_see_no_value(workshop):
    asked = '@approval("who=ops") permit (principal, action == Action::"EndorseValue", resource == Release::"checked");'
    prepare(
        workshop, policy=f"permit (principal, action, resource);\n{asked}", first='text = endorse(text, "checked");'
    )
    file = workshop.folder / "work.symbi"
    workshop.put("work.symbi", file.read_text().replace('"approval"]', '"endorse"]'))
    assert workshop.inside("run", "work.symbi", "--input", "text=hello", "--label", "text=untrusted").code == HELD
    (row,) = waiting(workshop)
    assert (row["action"], row["arguments"]["name"]) == ("EndorseValue", "checked")
    assert row["arguments"]["after"]["integrity"] == "trusted"
    assert "hello" not in json.dumps(row)
    workshop.inside("approvals", "approve", row["id"])
    done = workshop.inside("run", "--resume", "--json")
    assert json.loads(done.stdout)["output"] == "done", done.stderr


def test_creation_and_servers_can_be_held_too_and_go_on_after_a_restart(workshop):
    asked = (
        '@approval("who=ops") permit (principal, action in [Action::"CreateAgent", Action::"ConnectServer"], resource);'
    )
    prepare(workshop, policy=f"permit (principal, action, resource);\n{asked}")
    said = workshop.run_inside()
    for _ in range(2):
        assert said.code == HELD, said.stderr
        (row,) = waiting(workshop)
        assert workshop.inside("approvals", "approve", row["id"]).code == 0
        said = workshop.inside("run", "--resume")
    assert said.code in {0, HELD}, said.stderr


def test_a_command_is_told_of_what_is_held_without_its_arguments(workshop):
    prepare(workshop, more='notify_command = ["{python}", "tell.py"]')
    workshop.put(
        "tell.py",
        "import os, sys; open('told.json', 'a').write(sys.stdin.read()); open('env', 'w').write(' '.join(os.environ))",
    )
    assert workshop.symbi("run", "work.symbi", "--input", "text=hello", env={"SECRET_THING": "x"}).code == HELD
    told = json.loads((workshop.folder / "told.json").read_text())
    assert told["approval"] == waiting(workshop)[0]["id"]
    assert "oncall@example.com" not in json.dumps(told)
    assert "SECRET_THING" not in (workshop.folder / "env").read_text()
    workshop.put("tell.py", "raise SystemExit(3)")
    assert workshop.run_inside().code == HELD
    assert workshop.recorded("approval.told", "exit code 3")


# --- kill -9 between question, grant and effect -------------------------------------------------


@pytest.fixture
def drive(place):
    """Has the driver run or resume the agent; returns how that ended."""
    with Forks(DRIVER, place.folder.parent / "complaints", str(place.folder)) as forks:

        def drive(*words: str | int) -> int:
            code = forks.run(*words)
            assert code in {SIGKILLED, HELD, 0}, forks.complaints
            return code

        yield drive


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "point", ["held", "approved", "before_dispatch", "dispatched", "done", "before_settle", "settled"]
)
def test_killed_at_a_named_point_the_effect_happens_exactly_once(place, drive, point):
    """A round asks, votes and goes on, killed at the named point each time it can be; then goes on unharmed."""
    rounds, kills = 3, 0
    for number in range(rounds):
        if number:
            for name in ("outbox.jsonl",):
                (place.folder / name).unlink(missing_ok=True)
        # Asking is killed after it is durable; the place in the run is passed again.
        first = drive(point if point == "held" else "-", 1)
        kills += first == SIGKILLED
        if first == SIGKILLED:
            assert drive("-", 1, "--resume") == HELD
        assert place.sent() == []
        (row,) = waiting(place)
        assert place.inside("approvals", "approve", row["id"]).code == 0
        if point != "held":
            passed = {"approved": 1, "before_dispatch": 4, "dispatched": 4, "done": 4, "before_settle": 4, "settled": 4}
            # creation, a server and resources come before it on a resumed run, and are not held
            for _ in range(2):
                code = drive(point, passed[point], "--resume")
                kills += code == SIGKILLED
                assert len(place.sent()) <= 1
                if code != SIGKILLED:
                    break
        last = drive("-", 1, "--resume") if code_open(place) else 0
        assert last == 0
        assert place.sent() == ["hello"]  # exactly one effect
        place.trail()  # and the trail verifies
    assert kills >= rounds


def code_open(workshop) -> bool:
    """Whether a run is still to go on."""
    ended = {
        event.run_id
        for event in workshop.trail()
        if event.event_type == T.RUN_FINISHED and event.details["state"] == "finished"
    }
    begun = {event.run_id for event in workshop.trail() if event.event_type == T.RUN_STARTED}
    return bool(begun - ended)


def test_what_ended_without_an_owner_alive_is_shown_as_expired():
    row = {"state": "waiting", "expires_at": "2020-01-01T00:00:00.000000000Z"}
    assert cli._state(row) == "expired at 2020-01-01T00:00:00Z"
    assert cli._state(row | {"expires_at": "2999-01-01T00:00:00.000000000Z"}) == "waiting until 2999-01-01T00:00:00Z"
    assert cli._state(row | {"state": "denied"}) == "denied"
