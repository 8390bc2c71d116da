"""Agents that stay ask one another where no more may be at work."""

import anyio
import anyio.lowlevel
import pytest

from symbi.runtime.course import Order
from symbi.testing.runtime import open_in
from symbi.types import AgentId

pytestmark = pytest.mark.anyio

ALL = '@id("all") permit (principal, action, resource);'
STAY = "".join(f'[agents.{name}]\nmode = "persistent"\n' for name in "abc") + "[runtime]\nmax_concurrent_agents = 1\n"
CHAIN = """
agent a(x: int) { with { let y = ask("b", { n: x }); log(y); return y; } }
agent b(n: int) { with { log(n); if n > 5 { return n; } return ask("c", { m: n }) + 1; } }
agent c(m: int) { with { return m + 1; } }
"""


async def until(condition):
    with anyio.fail_after(30):
        while not condition():
            await anyio.lowlevel.checkpoint()


async def test_who_stays_is_asked_by_those_who_stay_though_no_more_may_be_at_work(tmp_path):
    """Whoever waits keeps its place among those at work; whom it waits for begins beside, with what it was sent before."""
    lines = []
    async with open_in(tmp_path, CHAIN, config=STAY, policies=ALL, emit=lambda *line: lines.append(line)) as opened:
        runtime = opened.runtime
        for spec in opened.compiled.agents:
            await runtime.spawn(Order(opened.compiled, spec))
        await runtime.send(AgentId("a"), {"x": 1})
        questions = runtime.post.questions
        by_mail = questions._by_mail

        async def asked(found, *args):
            if found.order.name == "b":
                for number in (6, 7):
                    await runtime.send(AgentId("b"), {"n": number})
            return await by_mail(found, *args)

        questions._by_mail = asked
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runtime.carry_out_messages)
            await until(lambda: ("a", "3") in lines and runtime.dispatch.idle)
            assert lines == [("b", "6"), ("b", "7"), ("b", "1"), ("a", "3")]
            assert runtime.dispatch.most_tasks == 3
            assert not questions.asked
            runtime.dispatch.stop()
