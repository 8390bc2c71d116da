"""The life of an agent: the whole table, and the diagram that is printed from it."""

from itertools import product

import pytest

from symbi.agent.journal import RunRecord, RunState
from symbi.agent.run import by_remedy
from symbi.errors import InputError, PolicyDenied, ScriptFailed, TimeLimit, ToolFailed, ToolServerUnavailable
from symbi.guard.outcome import encode_error
from symbi.runtime.life import Life, event_for
from symbi.runtime.lifecycle import FIRST, LAST, OURS, SEED, TRANSITIONS, AgentState, Event, advance, mermaid
from symbi.types import AgentId, RunId

# The seed's diagram, line by line.
DRAWN = """
Initializing --> Ready: Valid Config
Initializing --> Failed: Invalid Config
Ready --> Running: Task Assigned
Running --> Suspended: Policy Violation
Running --> Ready: Task Complete
Suspended --> Running: Policy Cleared
Suspended --> Terminated: Manual Override
Ready --> Terminated: Shutdown
Failed --> Terminated: Discarded
""".strip().splitlines()

BEYOND = {
    ("Running", "Preempted", "Suspended"),
    ("Running", "Resources Exhausted", "Suspended"),
    ("Running", "Suspended by Operator", "Suspended"),
    ("Suspended", "Resumed", "Running"),
    ("Ready", "Suspended by Operator", "Suspended"),
    ("Suspended", "Released by Operator", "Ready"),
    ("Running", "Crash Loop", "Failed"),
    ("Initializing", "Shutdown", "Terminated"),
    ("Running", "Shutdown", "Terminated"),
    ("Initializing", "Forced Stop", "Terminated"),
    ("Running", "Forced Stop", "Terminated"),
}


@pytest.mark.parametrize(("state", "event"), list(product(AgentState, Event)))
def test_every_pair_is_a_transition_or_an_error(state, event):
    if (state, event) in TRANSITIONS:
        assert advance(state, event) is TRANSITIONS[state, event]
        return
    with pytest.raises(InputError, match=f"`{event}` cannot happen to an agent that is `{state}`") as caught:
        advance(state, event)
    assert caught.value.fields == {"state": state.value, "event": event.value}


def test_the_table_is_the_diagram_of_the_seed():
    assert [f"{state} --> {following}: {event}" for (state, event), following in SEED.items()] == DRAWN


def test_the_table_goes_beyond_the_seed_only_where_other_promises_need_it():
    assert {(*pair, following) for pair, following in OURS.items()} == BEYOND
    assert dict(TRANSITIONS) == {**SEED, **OURS}
    assert not SEED.keys() & OURS.keys()


def test_a_refused_event_says_what_is_possible():
    with pytest.raises(InputError, match=r"possible is `Task Assigned`, `Shutdown`, `Suspended by Operator`$"):
        advance(AgentState.READY, Event.TASK_COMPLETE)
    with pytest.raises(InputError, match=r"nothing can$"):
        advance(AgentState.TERMINATED, Event.RESUMED)


def test_every_state_is_reached_and_every_one_but_the_last_can_be_left_for_it():
    reached = reachable(FIRST)
    assert reached == set(AgentState)
    assert all(LAST in reachable(state) for state in AgentState)
    assert not [state for state, _ in TRANSITIONS if state is LAST]
    assert {event for _, event in TRANSITIONS} == set(Event)


def reachable(state):
    found = {state}
    while grown := {to for (origin, _), to in TRANSITIONS.items() if origin in found} - found:
        found |= grown
    return found


def test_the_table_cannot_be_changed():
    with pytest.raises(TypeError):
        TRANSITIONS[AgentState.TERMINATED, Event.RESUMED] = AgentState.RUNNING


def test_the_diagram_has_every_transition_once_with_ours_marked():
    lines = mermaid().splitlines()
    assert len(lines) == len(TRANSITIONS) + 3
    assert sum(line.endswith(" *") for line in lines) == len(OURS)
    assert "    Running --> Suspended: Preempted *" in lines


def test_the_documented_diagram_is_printed_from_the_table(root):
    page = (root / "docs/reference/lifecycle.md").read_text("utf-8")
    _, _, rest = page.partition("```mermaid\n")
    diagram, _, _ = rest.partition("```")
    assert diagram == mermaid(), "put what `symbi.runtime.lifecycle.mermaid()` prints into docs/reference/lifecycle.md"


@pytest.mark.parametrize(
    ("error", "last"),
    [
        (None, [Event.TASK_COMPLETE, Event.SHUTDOWN]),
        (TimeLimit("its turn does not come back"), [Event.RESOURCES_EXHAUSTED]),
        (PolicyDenied("no"), [Event.POLICY_VIOLATION]),
        (ScriptFailed("no"), [Event.FORCED]),
    ],
)
def test_what_is_suspended_can_come_to_every_end(error, last):
    life = Life(AgentId("a"), RunId("r"))
    for event in (Event.CONFIG_VALID, Event.TASK_ASSIGNED, Event.PREEMPTED):
        life.move(event)
    life.end(error, RunState.FINISHED if error is None else by_remedy(error))
    assert [draft.details["event"] for draft in life.drafts()[3:]] == [Event.RESUMED, *last]


@pytest.mark.parametrize(
    ("error", "last"),
    [
        (PolicyDenied("no", suspended=True), Event.POLICY_CLEARED),
        (TimeLimit("too late", suspended=True), Event.RESUMED),
        (ToolServerUnavailable("gone", suspended=True), Event.RESUMED),
    ],
)
def test_who_was_suspended_goes_on_from_there_and_by_what_was_cleared(error, last):
    record = RunRecord(RunId("r"), AgentId("a"), "a.symbi", "", b"{}", RunState.RUNNING, error=encode_error(error))
    life = Life.of(record)
    life.made()
    life.assigned()
    (move,) = life.drafts()
    assert (move.details["from"], move.details["event"], move.details["to"]) == ("Suspended", last, "Running")


@pytest.mark.parametrize("error", [None, ToolFailed("no"), ToolServerUnavailable("it could not be connected")])
def test_who_was_not_suspended_is_made_anew(error):
    kept = None if error is None else encode_error(error)
    life = Life.of(RunRecord(RunId("r"), AgentId("a"), "a.symbi", "", b"{}", RunState.RUNNING, error=kept))
    life.made()
    life.assigned()
    assert [move.details["to"] for move in life.drafts()] == ["Ready", "Running"]


def test_who_is_refused_before_it_goes_on_stays_suspended_and_makes_no_move():
    error = PolicyDenied("no", suspended=True)
    record = RunRecord(RunId("r"), AgentId("a"), "a.symbi", "", b"{}", RunState.RUNNING, error=encode_error(error))
    life = Life.of(record)
    life.fail(PolicyDenied("still not"), RunState.HELD)
    assert life.state is AgentState.SUSPENDED
    assert life.drafts() == ()


@pytest.mark.parametrize(
    ("error", "state", "event"),
    [
        (ToolFailed("no"), RunState.HELD, Event.SHUTDOWN),  # it is made anew
        (ToolFailed("no"), RunState.FAILED, Event.CRASH_LOOP),
        (ToolServerUnavailable("gone"), RunState.HELD, Event.RESOURCES_EXHAUSTED),
        (ToolServerUnavailable("gone"), RunState.FAILED, Event.CRASH_LOOP),
        (PolicyDenied("no"), RunState.HELD, Event.POLICY_VIOLATION),
        (TimeLimit("too late"), RunState.HELD, Event.RESOURCES_EXHAUSTED),
        (ScriptFailed("no"), RunState.FAILED, Event.FORCED),
    ],
)
def test_where_an_error_leaves_an_agent_at_work(error, state, event):
    assert event_for(error, state) is event
