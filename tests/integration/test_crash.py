"""`kill -9` at named points around effects and at random moments of a run; then resume: nothing twice, nothing lost."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from symbi.adapters.sqlite import SqliteReader
from symbi.audit.event import AuditEventType, parse_event
from symbi.audit.verify import verify_trail
from symbi.config import load_settings
from symbi.testing.forks import Forks
from symbi.wiring import verifying_keys

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "log-triage"
DRIVER = ROOT / "tests" / "data" / "crash_run.py"
SIGKILLED = -9
RANDOM_KILLS = 50

# An effect is in flight between the first three: dispatched durably, not yet confirmed.
IN_FLIGHT = ["dispatched", "done", "before_settle"]
AROUND = ["before_dispatch", "settled"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "triage"
    shutil.copytree(EXAMPLE, place, ignore=shutil.ignore_patterns(".symbi", "state", "reports", "__pycache__"))
    log = place / "logs" / "access.log"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(lines[::2]))  # two chunks instead of four: the same effects, sooner
    return place


def symbi(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "symbi.cli.main", *arguments], cwd=folder, capture_output=True, text=True, timeout=120,
        env={**os.environ, "SYMBI_LOG_LEVEL": "error"}, check=False,
    )  # fmt: skip


@pytest.fixture
def forks(folder: Path, tmp_path: Path) -> Iterator[Forks]:
    with Forks(DRIVER, tmp_path / "complaints", str(folder)) as made:
        yield made


def verify(folder: Path) -> list:
    settings = load_settings(folder / "symbi.toml")
    with SqliteReader(folder / ".symbi") as reader:
        verify_trail(reader.read(1), reader.head_record(), verifying_keys(settings))
        return [parse_event(stored.record) for stored in reader.read(1)]


def counts(folder: Path) -> dict:
    command = [sys.executable, "server/log_tools.py", "counts", "--state", "state"]
    return json.loads(subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout)


def check_end(folder: Path, reference: str) -> None:
    """The report is right, each write had one effect, and the trail verifies."""
    assert (folder / "reports" / "incident.md").read_text() == reference
    counted = counts(folder)
    assert counted["files.write_report"]["effects"] == 1
    assert counted["notify.send"]["effects"] == 1
    assert len((folder / "state" / "outbox.jsonl").read_text().splitlines()) == 1
    verify(folder)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("reference") / "triage"
    shutil.copytree(EXAMPLE, place, ignore=shutil.ignore_patterns(".symbi", "state", "reports", "__pycache__"))
    log = place / "logs" / "access.log"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[::2]))
    done = symbi(place, "run", "triage.symbi", "--input", "log=logs/access.log")
    assert done.returncode == 0, done.stderr
    return (place / "reports" / "incident.md").read_text()


# Passing 1 to 4 of a point are creation, two servers and resources; the run's own effects come after.
@pytest.mark.parametrize(("point", "first"), [(point, 5) for point in IN_FLIGHT] + [(point, 5) for point in AROUND])
def test_a_run_killed_at_a_named_point_again_and_again_ends_right(folder, forks, reference, point, first):
    kills = 0
    resume = False
    for _ in range(40):
        code = forks.run(point, first, *(["--resume"] if resume else []))
        if code == 0:
            break
        assert code == SIGKILLED, forks.complaints
        kills += 1
        verify(folder)
        resume = True
        if point != "settled":
            # The effect that was in flight is repeated first; let one more pass, or nothing would ever go on.
            first = (
                7 if point == "before_dispatch" else 6
            )  # looking into the runbooks is decided on twice: as an effect, and by lease
    else:
        pytest.fail("the run never ended")
    check_end(folder, reference)
    assert kills >= 4, kills
    if point in IN_FLIGHT:
        unknown = [event for event in verify(folder) if event.event_type == AuditEventType.EFFECT_UNKNOWN]
        assert len(unknown) >= 4  # so many kills fell between dispatch and confirm


def test_a_run_killed_at_random_moments_ends_right(folder, reference):
    random = Random(20261121)
    kills = 0
    started = False
    for _ in range(200):
        arguments = ["run", "--resume"] if started else ["run", "triage.symbi", "--input", "log=logs/access.log"]
        child = subprocess.Popen(
            [sys.executable, "-m", "symbi.cli.main", *arguments], cwd=folder, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, env={**os.environ, "SYMBI_LOG_LEVEL": "error"},
        )  # fmt: skip
        wanted = kills < RANDOM_KILLS
        try:
            code = child.wait(timeout=random.uniform(0.4, 1.8) if wanted else 60)
        except subprocess.TimeoutExpired:
            child.kill()
            code = child.wait(timeout=30)
        if code == SIGKILLED:
            kills += 1
            if (folder / ".symbi" / "symbi.db").is_file() and (folder / ".symbi" / "keys").is_dir():
                events = verify_if_begun(folder)
                started = any(event.event_type == AuditEventType.RUN_STARTED for event in events)
            continue
        assert code == 0
        check_end(folder, reference)
        if kills >= RANDOM_KILLS:
            break
        # It ended before the killer struck: begin a new run in a fresh state.
        for name in (".symbi", "state", "reports"):
            shutil.rmtree(folder / name)
        started = False
    assert kills >= RANDOM_KILLS


def verify_if_begun(folder: Path) -> list:
    with SqliteReader(folder / ".symbi") as reader:
        if reader.event_count() == 0:
            return []
    return verify(folder)


def test_an_effect_without_recovery_class_in_flight_is_in_doubt_and_never_repeated(folder, forks):
    manifest = folder / "tools" / "notify.toml"
    declared = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(line for line in declared if not line.startswith("recovery")))
    kills = [forks.run("done", number) for number in (13,)]
    assert kills == [SIGKILLED]
    assert len((folder / "state" / "outbox.jsonl").read_text().splitlines()) == 1  # it had happened
    for _ in range(2):
        held = symbi(folder, "run", "--resume")
        assert held.returncode == 6, held.stderr
        assert "in doubt" in held.stderr
        assert "notify.send" in held.stderr
        assert counts(folder)["notify.send"] == {"calls": 1, "effects": 1}
        verify(folder)
