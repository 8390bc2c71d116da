"""Attacks by failing: a queue of dead letters that is to fill the disk, and a breaker that is to let something through."""

import pytest

from symbi.agent.task import Task
from symbi.audit.event import AuditEventType, parse_event
from symbi.errors import StoreUnavailable, ToolServerUnavailable, Unavailable
from symbi.runtime.letters import MAX_CLOSED, MAX_OPEN, GivenUp, LetterKind, LetterState, Payload, Wanted
from symbi.telemetry import Metrics
from symbi.testing.clock import ManualClock
from symbi.testing.gate import open_gate
from symbi.testing.runtime import open_in
from symbi.tools.breaker import BreakerState, BreakerTerms
from symbi.tools.dependency import Dependency, DependencyTerms
from symbi.types import AgentId, RunId

pytestmark = pytest.mark.anyio

GONE = ToolServerUnavailable("gone")
FILE = "/agents/a.symbi"


async def test_an_agent_that_fails_all_the_time_fills_only_its_own_share_and_every_loss_is_on_the_trail(tmp_path):
    """Three thousand and more letters from one agent, under many instances: two thousand stay, half of them without payload."""
    async with open_in(tmp_path, 'agent a() { with { "done" } }') as running:
        rooms = running.runtime.rooms

        def put(agent, number):
            payload = Payload(AgentId(agent), FILE, {"x": "y" * 100}, Task())
            return rooms.letters.put_now(GivenUp(LetterKind.MESSAGE, RunId(f"{agent}:{number}"), GONE, 1, payload))[1]

        await rooms.world.log.transact(lambda: (None, put("victim", 0)))
        drafts = 0
        for batch in range(31):

            def work(batch=batch):
                made = [d for n in range(100) for d in put(f"loud/{n % 7}", batch * 100 + n)]
                return len(made), made

            count, _ = await rooms.world.log.transact(work)
            drafts += count
        loud = {state: await rooms.letters.listed(Wanted(AgentId("loud"), state, 10_000)) for state in LetterState}
        assert len(loud[LetterState.OPEN]) == MAX_OPEN
        assert len(loud[LetterState.DROPPED]) == MAX_CLOSED
        assert all(one.inputs is None for one in loud[LetterState.DROPPED])
        assert (await rooms.letters.found(RunId("victim:0"))).inputs is not None
        events = await rooms.world.log.read(
            lambda: [parse_event(s.record).event_type for s in rooms.privacy.rooms.store.read(1)]
        )
        assert events.count(AuditEventType.LETTER_PUT) == 3101
        assert events.count(AuditEventType.LETTER_DROPPED) == 3100 - MAX_OPEN
        assert drafts == 3100 + 3100 - MAX_OPEN


async def test_a_breaker_fails_closed(monkeypatch):
    """Where the trail cannot take the change, no call goes through, however often it is tried; and none is let in twice."""
    clock, calls = ManualClock(), 0
    async with open_gate(clock=clock) as gate:
        dependency = Dependency(
            "d", "it", DependencyTerms(breaker=BreakerTerms(2, 30.0, 5.0)), clock, gate.log, Metrics()
        )

        async def call(error=None):
            nonlocal calls
            async with dependency.attempt():
                calls += 1
                if error is not None:
                    raise error

        for _ in range(2):
            with pytest.raises(ToolServerUnavailable):
                await call(GONE)
        assert calls == 2
        clock.advance(10.0)
        transact = gate.log.transact

        async def full(*_arguments, **_options):
            raise StoreUnavailable("the disk is full")

        monkeypatch.setattr(gate.log, "transact", full)
        for _ in range(10):
            with pytest.raises(Unavailable):
                await call()
        assert calls == 2
        monkeypatch.setattr(gate.log, "transact", transact)
        await call()
        assert (calls, dependency.status.state) == (3, BreakerState.CLOSED)
