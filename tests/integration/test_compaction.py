"""What ended long ago leaves ledger and journal in bounded steps; what anybody still needs stays, and the trail tells of it all."""

import json

import anyio
import pytest
from typer.testing import CliRunner

from symbi.adapters.sqlite import SqliteReader, SqliteStore
from symbi.agent.journal import RunState
from symbi.audit.event import AuditEventType as T
from symbi.audit.event import parse_event
from symbi.audit.verify import verify_trail
from symbi.cli.main import app
from symbi.config import load_settings
from symbi.guard.ledger import EffectState
from symbi.guard.outcome import NOT_STARTED_JSON
from symbi.runtime import compaction
from symbi.testing.clock import ManualClock
from symbi.testing.runtime import open_in
from symbi.types import RunId
from symbi.wiring import verifying_keys

DAY_S = 86_400.0
AGENT = """
agent writer(text: String, lines: int) -> String {
    with sandbox = interpreter { for n in range(lines) { log(text); } text }
}
"""
ALL = '@id("all") permit (principal, action, resource);'


class Journal:
    """A folder in which runs end; each has a number of lines and a large text."""

    def __init__(self, folder):
        self.folder, self.clock, self.runs = folder, ManualClock(), []
        (folder / "symbi.toml").write_text("")
        self.policies = ALL

    def open(self, config=""):
        return open_in(self.folder, AGENT, config=config, policies=self.policies, clock=self.clock)

    async def run(self, *lines, text="x" * 5000):
        async with self.open() as one:
            for count in lines:
                inputs = {"text": text, "lines": count}
                self.runs.append((await one.runtime.run(one.compiled, one.compiled.agents[0], inputs)).run_id)

    async def sweep(self, days=None, config=""):
        async with self.open(config) as one:
            return await one.runtime.rooms.compactor.sweep(days)

    def after_days(self, days):
        self.clock.advance(days * DAY_S)

    def rows(self, sql, *values):
        with SqliteStore(self.folder / ".symbi") as store:
            return store._db.execute(sql, values).fetchall()

    def left(self, run_id):
        """Effects, requests of them, and whether anything that the run was given is left."""
        (effects,) = self.rows("SELECT count(*) FROM effects WHERE run_id = ?", run_id)[0]
        (inputs,) = self.rows("SELECT length(inputs) FROM runs WHERE run_id = ?", run_id)[0]
        return effects, inputs > 0

    def events(self, *kinds):
        with SqliteReader(self.folder / ".symbi") as reader:
            verify_trail(
                reader.read(1), reader.head_record(), verifying_keys(load_settings(self.folder / "symbi.toml"))
            )
            found = [parse_event(stored.record) for stored in reader.read(1)]
        return [event for event in found if event.event_type in kinds]

    def symbi(self, *words, code=0):
        done = CliRunner().invoke(app, [*words, "--config", str(self.folder / "symbi.toml")])
        assert done.exit_code == code, done.output
        return done.stdout


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path)


def test_runs_that_ended_long_ago_lose_their_effects_and_the_trail_keeps_theirs(journal):
    anyio.run(journal.run, 3)
    journal.after_days(29)
    anyio.run(journal.run, 2)
    old, young = journal.runs
    before = len(journal.events(T.DECISION_ALLOW))
    journal.after_days(2)
    removed = anyio.run(journal.sweep)
    assert removed.runs == 1
    assert journal.left(old) == (0, False)
    assert journal.left(young) == (2, True)
    assert journal.rows("SELECT count(*) FROM requests LEFT JOIN effects USING (effect_id) WHERE action IS NULL") == [
        (0,)
    ]
    assert journal.rows("SELECT count(*) FROM payloads") == [(2,)]  # inputs and value of the young one
    with SqliteReader(journal.folder / ".symbi") as reader:
        kept = reader.get_run(old)
        assert (kept.state, kept.compacted, reader.get_run(young).compacted) == (RunState.FINISHED, True, False)
    assert len(journal.events(T.DECISION_ALLOW)) >= before
    told = journal.events(T.JOURNAL_COMPACTED)
    assert sum(event.details["effects"] for event in told) == removed.effects >= 3
    again = anyio.run(journal.sweep)
    assert (again.runs, again.effects) == (0, 0)


def test_each_step_is_bounded(journal, monkeypatch):
    monkeypatch.setattr(compaction, "STEP_EFFECTS", 4)
    monkeypatch.setattr(compaction, "STEP_RUNS", 2)
    anyio.run(journal.run, 9, 0, 3, 1)
    journal.after_days(31)
    removed = anyio.run(journal.sweep)
    steps = journal.events(T.JOURNAL_COMPACTED)
    assert all(event.details["effects"] <= 4 for event in steps)
    assert removed.runs == 4
    assert [journal.left(run_id) for run_id in journal.runs] == [(0, False)] * 4


def test_nothing_is_removed_where_that_is_said(journal):
    anyio.run(journal.run, 2)
    journal.after_days(4000)
    removed = anyio.run(journal.sweep, None, "[runtime]\njournal_retention_days = 0\n")
    assert (removed.runs, removed.effects) == (0, 0)
    assert journal.left(journal.runs[0]) == (2, True)


NEEDED = {
    "in doubt": "UPDATE effects SET state = 'unknown', result = NULL WHERE run_id = ? AND position = 1",
    "in flight": "UPDATE effects SET state = 'dispatched' WHERE run_id = ? AND position = 1",
    "held": "UPDATE runs SET state = 'held' WHERE run_id = ?",
    "running": "UPDATE runs SET state = 'running' WHERE run_id = ?",
    "a dead letter": "INSERT INTO dead_letters SELECT run_id, 'run', 'writer', 'writer', '/f', 'x', 1, '', 'open', NULL, NULL, NULL,"
    " NULL, '', NULL, NULL, 1 FROM runs WHERE run_id = ?",
    "in a mailbox": "INSERT INTO mailbox (message_id, declared, agent_id, sender, body, due_ns, attempts)"
    " SELECT run_id, 'writer', 'writer', 'x', x'7b7d', 0, 1 FROM runs WHERE run_id = ?",
    "of a schedule": "INSERT INTO occurrences SELECT 's', 1, run_id, 'claimed', '' FROM runs WHERE run_id = ?",
    "asked for": "INSERT INTO run_parents SELECT run_id, 'above', 'above', 1 FROM runs WHERE run_id = ?",
}


@pytest.mark.parametrize("why", NEEDED)
def test_what_somebody_still_needs_is_not_touched(journal, why):
    anyio.run(journal.run, 2, 2)
    needed, other = journal.runs
    journal.rows(NEEDED[why], needed)
    if why == "asked for":
        journal.rows(
            "INSERT INTO runs SELECT 'above', agent_id, file, source_digest, inputs, 'held', NULL, NULL, started_at, NULL FROM runs LIMIT 1"
        )
    journal.after_days(31)

    async def step():  # without a start, which would settle what is in flight
        with SqliteStore(journal.folder / ".symbi") as store, store.transaction():
            progress = compaction.Progress()
            while not progress.over:
                progress = store.compact(progress, "9999-01-01T00:00:00.000000000Z", 500, 100)

    anyio.run(step)
    assert journal.left(needed) == (2, True)
    assert journal.left(other) == (0, False)


def test_what_is_known_not_to_have_happened_is_in_doubt_no_more(journal):
    anyio.run(journal.run, 2)
    journal.rows(
        "UPDATE effects SET state = 'unknown', result = NULL, error = ? WHERE run_id = ? AND position = 1",
        NOT_STARTED_JSON, journal.runs[0],
    )  # fmt: skip
    journal.after_days(31)
    anyio.run(journal.sweep)
    assert journal.left(journal.runs[0]) == (0, False)


def test_what_is_about_somebody_on_hold_stays(journal):
    anyio.run(journal.run, 1, 1)
    held, free = journal.runs
    journal.rows("INSERT INTO subject_keys VALUES ('0123456789abcdef', 'p', NULL, '', NULL, NULL)")
    journal.rows("INSERT INTO subject_holds VALUES ('p', x'00', '')")
    journal.rows("UPDATE effects SET arguments_digest = 'hmac:0123456789abcdef:00' WHERE run_id = ?", held)
    journal.after_days(31)
    anyio.run(journal.sweep)
    assert journal.left(held) == (1, True)
    assert journal.left(free) == (0, False)
    journal.rows("DELETE FROM subject_holds")
    anyio.run(journal.sweep)
    assert journal.left(held) == (0, False)


def test_people_can_ask_for_it_and_why_says_so(journal):
    anyio.run(journal.run, 1)
    (event,) = [e for e in journal.events(T.DECISION_ALLOW) if e.details["action"] == "WriteLog"]
    effect = event.details["effect_id"]
    assert "the same decision" in journal.symbi("policy", "why", effect)
    (journal.folder / "policies" / "operator.cedar").write_text(ALL)
    told = json.loads(journal.symbi("runs", "compact", "--days", "0", "--json"))
    assert (told["runs"], told["effects"] >= 1) == (1, True)
    assert "compacted" in journal.symbi("policy", "why", effect)
    assert "1 runs" in journal.symbi("audit", "show", "--type", "journal.compacted")
    assert json.loads(journal.symbi("runs", "show", event.run_id, "--json"))["state"] == "finished"
    assert "compacted" in journal.symbi("runs", "show", event.run_id)


def test_a_record_that_is_gone_without_being_compacted_does_not_fit(journal):
    anyio.run(journal.run, 1)
    (event,) = [e for e in journal.events(T.DECISION_ALLOW) if e.details["action"] == "WriteLog"]
    journal.rows("DELETE FROM effects WHERE run_id = ?", event.run_id)
    journal.symbi("policy", "why", event.details["effect_id"], code=4)


@pytest.mark.anyio
async def test_a_sweep_comes_on_its_cadence(tmp_path):
    journal = Journal(tmp_path)
    await journal.run(1)
    journal.after_days(31)
    waited = []

    async def wait(seconds):
        waited.append(seconds)
        if len(waited) > 1:
            await anyio.sleep_forever()

    async with journal.open() as one:
        async with one.runtime.rooms.compactor.kept_small(wait):
            while len(waited) < 2:
                await anyio.lowlevel.checkpoint()
        assert one.runtime.rooms.runs.get_run(RunId(journal.runs[0])).compacted
        assert one.runtime.rooms.effects.effects_in(EffectState.UNKNOWN) == []
    assert waited == [compaction.INTERVAL_S] * 2
