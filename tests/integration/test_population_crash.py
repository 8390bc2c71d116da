"""Messages over `kill -9`: none is lost, none is carried out twice, and each agent keeps their order."""

import json
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from symbi.adapters.sqlite import SqliteReader, SqliteStore
from symbi.audit.event import AuditEventType, parse_event
from symbi.runtime.lifecycle import AgentState

SCRIPT = Path(__file__).parents[1] / "data" / "crash_messages.py"
INSTANCES, EACH = 4, 4
KILLED = -9


def life(folder, point, number):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), point, str(number)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode in {0, KILLED}, done.stderr
    return done.returncode


@pytest.mark.parametrize(
    "points", [("dispatched", "before_settle", "done"), ("settled", "before_dispatch", "dispatched")]
)
def test_kill_9_loses_no_message_and_repeats_none(tmp_path, points):
    # The first one strikes once messages are there: while agents are made, nobody was told of any.
    lives = [life(tmp_path, point, 9 + 8 * number) for number, point in enumerate(points)]
    assert KILLED in lives
    for _ in range(3):
        if life(tmp_path, "never", 1) == 0:
            break
    with SqliteReader(tmp_path / ".symbi") as reader:
        runs = reader.runs(1000)
        told = [parse_event(stored.record) for stored in reader.read(1)]
        effects = {run.run_id: reader.effects_of(run.run_id) for run in runs}
    assert Counter(run.state.value for run in runs) == {"finished": INSTANCES * EACH}
    by_agent = defaultdict(list)
    for run in sorted(runs, key=lambda run: run.started_at):
        by_agent[run.agent_id].append(json.loads(run.output)[0])
    assert dict(by_agent) == {f"w/{name}": list(range(EACH)) for name in "abcd"}
    # Each run has its two effects, each of them once, and the value that is on record is the one that was given.
    for run in runs:
        placed = [effect for effect in effects[run.run_id] if effect.position >= 0]
        assert [effect.position for effect in placed] == [0, 1]
        assert {effect.state.value for effect in placed} <= {"confirmed", "reconciled"}
        assert json.loads(run.output)[1] == json.loads(placed[1].result)
    ends = Counter(event.run_id for event in told if event.event_type == AuditEventType.RUN_FINISHED)
    assert set(ends.values()) == {1}
    with SqliteStore(tmp_path / ".symbi") as store:
        assert {record.state for record in store.agents(None, "", 100)} == {AgentState.READY}
        assert [store.next_message(f"w/{name}") for name in "abcd"] == [None] * INSTANCES
