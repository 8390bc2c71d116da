"""Who may listen is decided by the policy set in force, and not by the one that was when somebody began to."""

import pytest

from symbi.policy.engine import PolicySource
from symbi.policy.policies import PolicySet
from symbi.runtime.course import Order
from symbi.testing.runtime import open_in

pytestmark = pytest.mark.anyio

ALL = '@id("all") permit (principal, action, resource);'
DEAF = ALL + '@id("ears") forbid (principal == Agent::"b", action == Action::"SubscribeTopic", resource);'
EARS = """
agent a(x: Any) { with { return publish("incidents.open", { n: x }); } }
agent b(n: Any) { with { log(n); return n; } }
"""
CONFIG = '[agents.b]\nmode = "persistent"\ntopics = ["incidents.>"]\n'


@pytest.mark.parametrize("begins_with", [ALL, DEAF])
async def test_who_may_listen_no_more_hears_nothing_further_and_who_may_again_hears(tmp_path, begins_with):
    async with open_in(tmp_path, EARS, config=CONFIG, policies=begins_with) as opened:
        runtime, engine = opened.runtime, opened.runtime.guard.engine
        sender, listener = opened.compiled.agents
        await runtime.spawn(Order(opened.compiled, listener))

        async def heard(text):
            sources = [PolicySource(s.file, text) if s.text in {ALL, DEAF} else s for s in engine.current.sources]
            engine.replace(PolicySet.load(sources, engine.current.compiled, engine.current.tools))
            return (await runtime.run(opened.compiled, sender, {"x": 1})).output

        assert [await heard(text) for text in (DEAF, DEAF, ALL, ALL, DEAF)] == [0, 0, 1, 1, 0]
