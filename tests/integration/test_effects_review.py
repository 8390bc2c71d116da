"""A run's effects on a real gate, trail and store: what a resumed run sees is what the first one saw."""

from collections.abc import Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from symbi.agent.containers import CodeLimits
from symbi.agent.effects import RunEffects, World
from symbi.agent.values import Value
from symbi.audit.event import AuditEventType as T
from symbi.clock import SystemClock
from symbi.dsl import ast
from symbi.errors import EffectInDoubt, PinMismatch, PolicyDenied, ScriptFailed, SymbiError, ToolServerUnavailable
from symbi.guard.action import ExecuteCode, InvokeTool, ToolRef
from symbi.guard.ledger import EffectState
from symbi.policy.catalog import ToolType
from symbi.policy.fields import UNDECLARED, AnswerLabels
from symbi.policy.flow import join
from symbi.sandbox.pool import Sandboxes
from symbi.sandbox.port import SandboxResult
from symbi.testing.gate import ALLOW_ALL, open_gate
from symbi.testing.runtime import IMPATIENT
from symbi.types import AgentId, Integrity, Label, Principal, RecoveryClass, RunId, SecurityTier, ToolName

pytestmark = pytest.mark.anyio

SCHEMA = {"type": "object", "properties": {"to": {"type": "string"}}}
TOOLS = [ToolType(ToolName("s.send"), SCHEMA)]
NOWHERE = ast.NOWHERE
SEND = Value("s.send")
TO = {"to": Value("x@example.com")}
UNTRUSTED = Label(Integrity.UNTRUSTED, sources=("e",))


@dataclass
class Tools:
    """`Invoker` over a tool that counts, and that can be made unfit to be called."""

    guard: object
    unfit: SymbiError | None = None
    calls: list[InvokeTool] = field(default_factory=list)

    def prepare(self, principal, name, values, *, labels, secrets, slot):
        if self.unfit is not None:
            raise self.unfit
        tool = ToolRef(ToolName(name), "s", "d" * 64, SCHEMA, verified=True, recovery=RecoveryClass.IDEMPOTENT)
        return InvokeTool(
            principal=principal, slot=slot, tool=tool, values=values, labels=labels, secrets=secrets,
            label=join(*labels.values()),
        )  # fmt: skip

    @asynccontextmanager
    async def admitted(self, asked, on_refusal):
        try:
            name, values, slot = asked.tool.name, asked.values, asked.slot
            action = self.prepare(asked.principal, name, values, labels=asked.labels, secrets=asked.secrets, slot=slot)
        except SymbiError as refusal:
            await on_refusal(refusal)
            raise
        yield replace(action, label=asked.label, grant=asked.grant)

    def recovery_of(self, _name):
        return RecoveryClass.IDEMPOTENT

    def flow_of(self, _name):
        return None if self.unfit else UNDECLARED

    def answer_labels(self, _name, given, effect_id, _arguments, _answer):
        return AnswerLabels(UNDECLARED, given, effect_id)

    async def call(self, action):
        async with self.guard.enforce(action) as permit:
            self.guard.authority.redeem(permit, InvokeTool)
            self.calls.append(action)
            permit.observe(len(self.calls))
        return replace(Answer(), value=len(self.calls), effect_id=permit.effect_id)


@dataclass(frozen=True)
class Answer:
    value: object = None
    effect_id: str = ""
    mark: Label = field(default_factory=Label)


@dataclass
class Printing:
    """A sandbox whose code prints its input."""

    authority: object
    tier = SecurityTier.INTERPRETER

    async def run(self, permit):
        action = self.authority.redeem(permit, ExecuteCode)
        return SandboxResult(None, str(action.inputs["x"]), 0.0)


def world_on(gate, lines: list[str] | None = None) -> World:
    sandboxes = Sandboxes({SecurityTier.INTERPRETER: Printing(gate.guard.authority)})
    emit = lambda _, line: [] if lines is None else lines.append(line)  # noqa: E731 - one line is enough
    return World(gate.guard, gate.log, SystemClock(), Tools(gate.guard), sandboxes, emit, patience=IMPATIENT)


def effects_on(gate, world: World) -> RunEffects:
    recorded = gate.store.effects_of(RunId("r"))
    return RunEffects(world, Principal(AgentId("a")), RunId("r"), "t.symbi", CodeLimits(), recorded)


async def send(gate, world: World, to: Mapping[str, Value] = TO) -> Value:
    return await effects_on(gate, world).tool(SEND, to, NOWHERE)


@pytest.mark.parametrize("unfit", [PinMismatch("changed"), ToolServerUnavailable("gone")])
async def test_a_finished_effect_is_replayed_whatever_became_of_the_tool(unfit):
    async with open_gate(tools=TOOLS) as gate:
        world = world_on(gate)
        first = await send(gate, world)
        world.invoker.unfit = unfit
        assert await send(gate, world) == first
        assert len(world.invoker.calls) == 1


@pytest.mark.parametrize("unfit", [PinMismatch("changed"), ToolServerUnavailable("gone")])
async def test_what_was_refused_before_the_gate_is_refused_again_in_a_replay(unfit):
    """Else a body that caught it and took another way would find the effect done after all."""
    async with open_gate(tools=TOOLS) as gate:
        world = world_on(gate)
        world.invoker.unfit = unfit
        with pytest.raises(type(unfit)):
            await send(gate, world)
        assert gate.events()[-1].event_type == T.TOOL_REFUSED
        world.invoker.unfit = None
        with pytest.raises(type(unfit), match=unfit.message):
            await send(gate, world)
        assert world.invoker.calls == []


async def test_an_effect_in_doubt_whose_tool_is_unfit_now_is_not_told_as_refused(tmp_path):
    async with open_gate(folder=tmp_path, tools=TOOLS) as gate:
        tools = world_on(gate).invoker
        effects = effects_on(gate, world_on(gate))
        action = tools.prepare(
            Principal(AgentId("a")), "s.send", {"to": "x@example.com"}, labels={}, secrets=(), slot=effects._slot()
        )
        await gate.guard._admit(action)
    async with open_gate(folder=tmp_path, tools=TOOLS) as gate:
        await gate.guard.open()
        world = world_on(gate)
        world.invoker.unfit = PinMismatch("changed")
        with pytest.raises(EffectInDoubt):
            await send(gate, world)
        assert gate.store.effect_at(RunId("r"), 0).state is EffectState.UNKNOWN


async def test_the_label_of_a_tools_name_goes_into_the_effect():
    policy = (
        ALLOW_ALL + '@id("f") forbid (principal, action, resource) when { context.label.integrity == "untrusted" };'
    )
    async with open_gate(
        policy.replace("action, resource) when", 'action in Action::"InvokeTool", resource) when'), tools=TOOLS
    ) as gate:
        world = world_on(gate)
        with pytest.raises(PolicyDenied):
            await effects_on(gate, world).tool(Value("s.send", UNTRUSTED), TO, NOWHERE)
        assert world.invoker.calls == []


async def test_a_text_that_is_no_tools_name_goes_no_further():
    async with open_gate(tools=TOOLS) as gate:
        for name in ("s", "s." + "x" * 10_000, "s.\x1b[2J", ""):
            with pytest.raises(ScriptFailed, match="not the name of a tool"):
                await effects_on(gate, world_on(gate)).tool(Value(name), TO, NOWHERE)
        assert len(gate.events()) == 1


NO_UNTRUSTED_LINES = (
    ALLOW_ALL
    + '@id("q") forbid (principal, action == Action::"WriteLog", resource) when { context.label.integrity == "untrusted" };'
)


async def test_what_code_prints_passes_the_decision_about_the_log():
    lines: list[str] = []
    async with open_gate(NO_UNTRUSTED_LINES) as gate:
        world = world_on(gate, lines)
        effects = effects_on(gate, world)
        await effects.python(Value("print(x)"), {"x": Value("ours")}, NOWHERE)
        with pytest.raises(PolicyDenied):
            await effects.python(Value("print(x)"), {"x": Value("theirs", UNTRUSTED)}, NOWHERE)
        assert lines == ["ours"]
        again = effects_on(gate, world)  # and a replay sees the same
        await again.python(Value("print(x)"), {"x": Value("ours")}, NOWHERE)
        with pytest.raises(PolicyDenied):
            await again.python(Value("print(x)"), {"x": Value("theirs", UNTRUSTED)}, NOWHERE)
        assert lines == ["ours"]
