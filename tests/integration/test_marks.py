"""`@mark` raises the label of what comes back, in the run itself, in its errors, and in a run that is resumed."""

import json

import pytest

from symbi.adapters.sqlite import SqliteReader
from symbi.agent.containers import CodeLimits
from symbi.agent.effects import RunEffects, World
from symbi.agent.values import Value, deep_label
from symbi.audit.event import parse_event
from symbi.clock import SystemClock
from symbi.dsl import ast
from symbi.errors import ScriptFailed, ToolFailed
from symbi.guard.action import ExecuteCode
from symbi.guard.outcome import decode_error, error_label
from symbi.sandbox.pool import Sandboxes
from symbi.sandbox.port import SandboxResult
from symbi.testing.gate import open_gate
from symbi.testing.runtime import open_in
from symbi.types import AgentId, Confidentiality, Integrity, Principal, RunId, SecurityTier

pytestmark = pytest.mark.anyio

MARKED = '@id("may") @mark("untrusted, confidential:pii") permit (principal, action, resource);'


class Sandbox:
    """Code that gives its name back, or fails with it."""

    tier = SecurityTier.INTERPRETER

    def __init__(self, authority):
        self.authority = authority

    async def run(self, permit):
        code = self.authority.redeem(permit, ExecuteCode).code
        if code.startswith("fail"):
            raise ScriptFailed(code)
        return SandboxResult({"got": [code]}, "", 0.0)


def effects_on(gate):
    sandboxes = Sandboxes({SecurityTier.INTERPRETER: Sandbox(gate.guard.authority)})
    world = World(gate.guard, gate.log, SystemClock(), None, sandboxes, lambda *_: None)
    recorded = gate.store.effects_of(RunId("r"))
    return RunEffects(world, Principal(AgentId("a")), RunId("r"), "t.symbi", CodeLimits(), recorded)


async def three_values(gate):
    effects = effects_on(gate)
    code = await effects.python(Value("x"), {}, ast.NOWHERE)
    return [code, await effects.now(), await effects.random()], effects


async def test_every_leaf_of_what_comes_back_is_marked_and_a_resumed_run_gives_the_same(tmp_path):
    async with open_gate(MARKED, folder=tmp_path) as gate:
        first, _ = await three_values(gate)
    for value in first:
        label = deep_label(value)
        assert (label.integrity, label.confidentiality) == (Integrity.UNTRUSTED, Confidentiality.CONFIDENTIAL)
        assert label.categories == ("pii",)
    leaf = first[0].data["got"].data[0]
    assert (leaf.data, leaf.label.categories) == ("x", ("pii",))
    async with open_gate("permit (principal, action, resource);", folder=tmp_path) as gate:
        again, effects = await three_values(gate)
        assert effects.replayed == 3
    assert again == first


async def test_without_a_mark_the_labels_are_what_they_were(tmp_path):
    async with open_gate(folder=tmp_path) as gate:
        values, _ = await three_values(gate)
    assert [deep_label(value).confidentiality for value in values] == [Confidentiality.PUBLIC] * 3
    assert [value.label.integrity for value in values] == [Integrity.USER, Integrity.SYSTEM, Integrity.SYSTEM]


async def test_an_error_is_marked_too_and_stays_so_in_the_ledger(tmp_path):
    labels = []
    for policies in (MARKED, "permit (principal, action, resource);"):
        async with open_gate(policies, folder=tmp_path) as gate:
            with pytest.raises(ScriptFailed, match="fail: the number") as caught:
                await effects_on(gate).python(Value("fail: the number"), {}, ast.NOWHERE)
            labels.append(error_label(caught.value))
            stored = gate.store.effect_at(RunId("r"), 0)
            assert error_label(decode_error(stored.error)) == labels[0]
    assert labels[0] == labels[1]
    assert (labels[0].confidentiality, labels[0].categories) == (Confidentiality.CONFIDENTIAL, ("pii",))


def test_an_error_that_nobody_marked_has_no_label_of_its_own():
    assert error_label(ToolFailed("x")).confidentiality is Confidentiality.PUBLIC


CREATE = '@id("create") permit (principal, action == Action::"CreateAgent", resource);'
AGENT = """
agent a {{
    policy own {{
        allow: allocate(pool)
        allow: log
        deny: log if label.confidentiality == "secret"
    }}
    policy code {{
        allow: python
        require: mark("secret")
    }}
    with sandbox = interpreter, timeout = 20.seconds {{ {body} }}
}}"""


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ('log("a"); "end"', True),
        ('let x = python("1 + 1"); log("a"); "end"', True),
        ('let x = python("1 + 1"); log(format("{}", x)); "end"', False),
        ('try { python("1 / 0"); } catch (e) { log(e.message); } "end"', False),
        ('try { python("1 / 0"); } catch (e) { log("failed"); } "end"', True),
    ],
)
async def test_what_is_marked_secret_does_not_reach_the_log(tmp_path, body, told):
    async with open_in(tmp_path, AGENT.format(body=body), policies=CREATE) as opened:
        outcome = await opened.runtime.run(opened.compiled, opened.compiled.agents[0], {})
    with SqliteReader(tmp_path / ".symbi") as reader:
        events = [parse_event(stored.record) for stored in reader.read(1)]
    logged = [event for event in events if event.details.get("action") == "WriteLog"]
    verdicts = [event.details["verdict"] for event in logged if event.event_type.startswith("decision")]
    assert (outcome.error is None) is told
    assert verdicts[-1] == ("allow" if told else "deny")
    marked = [
        event for event in events if event.details.get("action") == "ExecuteCode" and "conditions" in event.details
    ]
    assert all(json.dumps(event.details["conditions"]).count('"mark"') == 1 for event in marked)


async def test_limits_that_policies_lower_are_the_ones_that_a_run_has(tmp_path):
    text = AGENT.format(body="let s = 0; for x in range(30000) { for y in range(30000) { s += now(); } } s").replace(
        "allow: log", "allow: log allow: now"
    )
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "cap.cedar").write_text(
        '@id("cap") @cap("arguments.memoryMib=32, arguments.timeoutMs=50")\n'
        'permit (principal, action == Action::"AllocateResources", resource);'
    )
    async with open_in(tmp_path, text, policies=CREATE) as opened:
        outcome = await opened.runtime.run(opened.compiled, opened.compiled.agents[0], {})
    assert "longer than 0.05 s" in outcome.error.message
