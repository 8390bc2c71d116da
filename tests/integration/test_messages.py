"""Messages between agents, through a whole runtime: what arrives, with which label, once, and what is refused."""


import pytest

from symbi.agent.journal import RunState
from symbi.agent.task import Task
from symbi.testing.runtime import open_in

pytestmark = pytest.mark.anyio
ALL = '@id("all") permit (principal, action, resource);'


async def run(opened, agent="a", inputs=None, task=None):
    spec = next(one for one in opened.compiled.agents if one.id == agent)
    return await opened.runtime.run(opened.compiled, spec, inputs or {}, task or Task())


PAIR = """
agent a(x: Any) {
    with { return ask("b", { n: x, m: "said" }); }
}
agent b(n: Any, m: String) {
    with { return { n: n, m: m.upper() }; }
}
"""


async def test_an_agent_asks_another_and_gets_its_answer(tmp_path):
    async with open_in(tmp_path, PAIR, policies=ALL) as opened:
        outcome = await run(opened, inputs={"x": 3})
        assert outcome.error is None
        assert outcome.output == {"n": 3, "m": "SAID"}
        rooms = opened.runtime.rooms
        (child,) = await rooms.world.log.read(lambda: rooms.lineage.asked_by(outcome.run_id))
        assert (child.root, child.depth) == (outcome.run_id, 1)
        record = await rooms.world.log.read(lambda: rooms.runs.get_run(child.run_id))
        assert (record.agent_id, record.state) == (f"b/{child.run_id}", RunState.FINISHED)
        effects = await rooms.world.log.read(lambda: rooms.effects.effects_of(outcome.run_id))
        assert [one.effect_id for one in effects] == [child.run_id]
        assert await opened.runtime.get_system_status()
