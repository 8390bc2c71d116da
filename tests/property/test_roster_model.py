"""Agents that several move at once: who has not seen the last move is refused, and every state is one that the table leads to."""

import tempfile
from dataclasses import replace
from pathlib import Path
from random import Random

import anyio
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from symbi.adapters.sqlite import SqliteReader, SqliteStore
from symbi.audit.event import AuditEventType, parse_event
from symbi.errors import InputError
from symbi.runtime.course import Order
from symbi.runtime.lifecycle import TRANSITIONS, AgentState, Event, advance
from symbi.runtime.roster import AgentRecord
from symbi.testing.runtime import open_in
from symbi.types import AgentId

NAMES = [AgentId("a"), AgentId("b/1"), AgentId("b/2")]
WRITERS = st.integers(0, 1)
REACHABLE = {AgentState.INITIALIZING, *TRANSITIONS.values()}


class Agents(RuleBasedStateMachine):
    """Two writers, each with what it saw last of every agent; a mapping stands for the store."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = SqliteStore(Path(self.folder.name)).__enter__()
        self.there = {}
        self.seen = [{}, {}]
        self.count = 0

    def teardown(self):
        self.store.__exit__(None, None, None)
        self.folder.cleanup()

    @rule(names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True))
    def create(self, names):
        self.count += 1
        records = [
            AgentRecord(name, "/f.symbi", "0" * 64, AgentState.READY, 1, created_at=f"made {self.count}")
            for name in names
        ]
        free = all(
            self.there.get(name, records[0]).state is AgentState.TERMINATED or name not in self.there for name in names
        )
        if free:
            with self.store.transaction():
                self.store.put_agents(records)
            self.there |= {one.agent_id: one for one in records}
        else:
            with pytest.raises(InputError) as refused, self.store.transaction():
                self.store.put_agents(records)
            assert refused.value.code == "input.agent_exists"

    @rule(writer=WRITERS, name=st.sampled_from(NAMES))
    def look(self, writer, name):
        found = self.store.get_agent(name)
        assert found == self.there.get(name)
        if found is not None:
            self.seen[writer][name] = found

    @rule(writer=WRITERS, name=st.sampled_from(NAMES), event=st.sampled_from(Event))
    def move(self, writer, name, event):
        seen = self.seen[writer].get(name)
        if seen is None:
            return
        if (seen.state, event) not in TRANSITIONS:
            with pytest.raises(InputError, match="cannot happen"):
                advance(seen.state, event)
            return
        wanted = replace(seen, state=advance(seen.state, event), revision=seen.revision + 1, reason=f"{writer}")
        if seen == self.there[name]:
            with self.store.transaction():
                self.store.move_agent(wanted, seen.revision)
            self.there[name] = self.seen[writer][name] = wanted
        else:
            with pytest.raises(InputError) as refused, self.store.transaction():
                self.store.move_agent(wanted, seen.revision)
            assert refused.value.code == "lifecycle.stale"
            assert refused.value.fields["state"] == self.there[name].state.value

    @invariant()
    def what_is_kept_is_what_was_done_last(self):
        kept = {one.agent_id: one for one in self.store.agents(None, "", 100)}
        assert kept == self.there
        states = [one.state for one in kept.values()]
        assert set(states) <= REACHABLE
        assert dict(self.store.count_agents()) == {state: states.count(state) for state in set(states)}


TestAgents = Agents.TestCase
TestAgents.settings = settings(max_examples=40, stateful_step_count=30)

TEXT = "agent worker() { with sandbox = interpreter { 1 } }"
CONFIG = '[agents.worker]\nmode = "persistent"\n'
WANTED = [
    Event.TASK_ASSIGNED,
    Event.TASK_COMPLETE,
    Event.OPERATOR_SUSPENDED,
    Event.RESUMED,
    Event.PREEMPTED,
    Event.SHUTDOWN,
]


@pytest.mark.anyio
@pytest.mark.parametrize("seed", range(4))
async def test_of_moves_that_are_made_at_once_the_trail_has_one_after_the_other(tmp_path, seed):
    random, made = Random(seed), []
    async with open_in(tmp_path, TEXT, config=CONFIG, policies="permit (principal, action, resource);") as opened:
        runtime = opened.runtime
        await runtime.spawn(Order(opened.compiled, opened.compiled.agents[0]), ["1", "2"])

        async def moves():
            for _ in range(25):
                living = await runtime.roster.find(AgentId(f"worker/{random.randint(1, 2)}"))
                event = random.choices(WANTED, [8, 8, 4, 4, 4, 0.2])[0]
                try:
                    await runtime.roster.move(living, event, "ada")
                except InputError as refused:
                    refusals.add(refused.code)
                else:
                    made.append(living.name)

        refusals = set()
        async with anyio.create_task_group() as tasks:
            for _ in range(6):
                tasks.start_soon(moves)
        stands = {name: (await runtime.roster.find(AgentId(name))).state for name in ("worker/1", "worker/2")}
        assert sum(runtime.roster.counts.values()) == 2
    assert refusals == {"lifecycle.stale", "lifecycle.transition"}
    with SqliteReader(tmp_path / ".symbi") as reader:
        events = [parse_event(stored.record) for stored in reader.read(1)]
    with SqliteStore(tmp_path / ".symbi") as store:
        kept = {one.agent_id: one.state for one in store.agents(None, "", 10)}
    for name, state in stands.items():
        steps = [
            one.details for one in events if one.event_type == AuditEventType.AGENT_TRANSITION and one.agent_id == name
        ]
        assert len(steps) == made.count(name)
        at = AgentState.READY
        for step in steps:
            assert step["from"] == at.value
            at = advance(at, Event(step["event"]))
            assert step["to"] == at.value
        assert at is state
        assert kept[name] is state
