"""`kill -9` between question and answer: no run that was asked for is done twice, and none is lost."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from symbi.adapters.sqlite import SqliteStore
from symbi.agent.journal import RunState
from symbi.audit.verify import verify_trail
from symbi.config import parse_settings
from symbi.wiring import verifying_keys

DRIVER = Path(__file__).parents[1] / "data" / "crash_ask.py"
MAIL_DRIVER = DRIVER.with_name("crash_mail.py")
MADE = ("first", "second", "ears", "ears/1")
MESSAGES = 3
SIGKILLED = -9

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def drive(folder: Path, point: str, number: int, driver: Path = DRIVER) -> int:
    command = [sys.executable, str(driver), str(folder), point, str(number)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode in {0, SIGKILLED}, done.stderr
    return done.returncode


@pytest.mark.parametrize("point", ["before_dispatch", "dispatched", "done", "before_settle", "settled"])
def test_each_question_becomes_one_run(tmp_path, point):
    kills, number = 0, 1
    for _ in range(60):
        if drive(tmp_path, point, number) == 0:
            break
        kills += 1
        number += 3  # what was in flight is done again first, and each start passes more than once before
    else:
        pytest.fail("the run never ended")
    assert kills >= 4
    settings = parse_settings("", file=tmp_path / "symbi.toml", cwd=tmp_path, environ={}, overrides={})
    with SqliteStore(tmp_path / ".symbi") as store:
        runs = store.runs(100)
        assert Counter(run.declared for run in runs) == {"a": 1, "b": 2, "c": 2}
        assert {run.state for run in runs} == {RunState.FINISHED}
        (mother,) = [run for run in runs if run.declared == "a"]
        output = json.loads(mother.output)
        answers = [json.loads(store.get_run(one.run_id).output) for one in store.asked_by(mother.run_id)]
        assert [one["n"] for one in output[:2]] == [1, 2]
        assert output[:2] == answers  # as each run gave it, whenever that was
        verify_trail(store.read(1), store.head()[1], verifying_keys(settings))


@pytest.mark.parametrize("point", ["dispatched", "done", "settled", "run_ending", "run_ended"])
def test_each_message_is_carried_out_once_and_in_order(tmp_path, point):
    kills, number = 0, 1
    for _ in range(60):
        if drive(tmp_path, point, number, MAIL_DRIVER) == 0:
            break
        kills += 1
        number += 3
    else:
        pytest.fail("the messages were never carried out")
    assert kills >= 2
    settings = parse_settings("", file=tmp_path / "symbi.toml", cwd=tmp_path, environ={}, overrides={})
    with SqliteStore(tmp_path / ".symbi") as store:
        runs = [run for run in reversed(store.runs(100)) if run.state is RunState.FINISHED]
        assert len(runs) == len(store.runs(100)), "one is not finished"
        inputs = {name: [json.loads(run.inputs)["n"] for run in runs if run.agent_id == name] for name in MADE}
        first = inputs.pop("first")
        # One sent before a crash and once more after it is one message; a `first` that was sent again is a second one.
        assert set(first) == {MESSAGES}
        times = len(first)
        assert inputs == {
            "second": [0, 1, 2, 1000] * times,
            "ears": [100] * times,
            "ears/1": [100] * times,
        }
        for run in runs:
            if run.agent_id == "first":
                heard, answer = json.loads(run.output)
                assert (heard, answer["n"]) == (2, 1000)
        assert all(store.count_messages(name, 9) == 0 for name in MADE)
        verify_trail(store.read(1), store.head()[1], verifying_keys(settings))
