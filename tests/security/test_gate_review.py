"""Attacks on the gate from inside: what is recorded, repeated, or shown when things go wrong around an effect."""

import json
from contextlib import suppress
from dataclasses import replace
from functools import partial

import anyio
import pytest

from symbi.audit import log as audit_log
from symbi.audit.event import AuditEventType as T
from symbi.audit.event import Draft
from symbi.errors import (
    ApprovalRequired,
    EffectInDoubt,
    InputError,
    InternalError,
    Overloaded,
    PinMismatch,
    StoreUnavailable,
)
from symbi.guard.action import AllocateResources, InvokeTool, RunSlot, ToolRef
from symbi.guard.ledger import EffectState
from symbi.guard.outcome import decode_error, encode_error
from symbi.policy.catalog import ToolType
from symbi.policy.engine import PolicySource
from symbi.policy.policies import PolicySet
from symbi.testing import gate as testing_gate
from symbi.testing.gate import ALLOW_ALL, DENY_ALL, open_gate
from symbi.types import AgentId, Principal, RecoveryClass, ResourceLimits, RunId, ToolName

pytestmark = pytest.mark.anyio

AGENT = Principal(AgentId("a"))
SCHEMA = {"type": "object", "properties": {"to": {"type": "string"}, "body": {"type": "string"}}}
TOOLS = [ToolType(ToolName("s.send"), SCHEMA)]
PRIVATE = "the whole letter"


def send(recovery: RecoveryClass = RecoveryClass.NEVER_RETRY, position: int | None = 0) -> InvokeTool:
    return InvokeTool(
        principal=AGENT,
        slot=None if position is None else RunSlot(RunId("r"), position),
        tool=ToolRef(ToolName("s.send"), "s", "d" * 64, SCHEMA, verified=True, recovery=recovery),
        values={"to": "x@example.com", "body": PRIVATE},
    )


async def crash_in_flight(folder, action) -> None:
    async with open_gate(folder=folder, tools=TOOLS) as gate:
        await gate.guard._admit(action)


@pytest.fixture
def fill(monkeypatch):
    """A trail with little room, and a way to fill it, so that whoever does not wait for room is refused."""
    monkeypatch.setattr(audit_log, "MAX_GROUP", 1)
    monkeypatch.setattr(testing_gate, "AuditLog", partial(audit_log.AuditLog, max_pending=4))

    async def append(gate) -> None:
        for _ in range(200):  # whatever room there is, somebody else takes it
            with suppress(Overloaded):
                await gate.log.append(Draft(T.INPUT_REFUSED, AgentId("filler"), {}))
            await anyio.lowlevel.checkpoint()

    async def fill(gate, tasks) -> None:
        for _ in range(20):
            tasks.start_soon(append, gate)
        await anyio.lowlevel.checkpoint()

    return fill


async def test_an_outcome_is_never_refused_for_overload(fill):
    """Else a body that catches `Overloaded` would believe that nothing happened, and do it again."""
    async with open_gate(tools=TOOLS) as gate:
        async with anyio.create_task_group() as tasks, gate.guard.enforce(send()) as permit:
            gate.guard.authority.redeem(permit, InvokeTool)
            permit.observe("sent")
            await fill(gate, tasks)
        assert gate.store.effect_at(RunId("r"), 0).state is EffectState.CONFIRMED


async def test_overload_before_a_runs_effect_ends_the_run_and_is_not_for_its_body(fill):
    """There is no record of it, so a replay could not tell the body the same again."""
    async with open_gate(tools=TOOLS) as gate:
        async with anyio.create_task_group() as tasks:
            await fill(gate, tasks)
            with pytest.raises(StoreUnavailable, match="too many effects wait") as refusal:
                async with gate.guard.enforce(send()):
                    pytest.fail("the body ran")
        assert refusal.value.fields["retry_after_s"] > 0
        assert gate.store.effect_at(RunId("r"), 0) is None


async def test_a_result_that_is_not_json_still_leaves_an_outcome():
    async with open_gate(tools=TOOLS) as gate:
        with pytest.raises(InternalError, match="not JSON"):
            async with gate.guard.enforce(send()) as permit:
                gate.guard.authority.redeem(permit, InvokeTool)
                permit.observe(float("nan"))
        assert gate.store.effect_at(RunId("r"), 0).state is EffectState.UNKNOWN
        assert gate.events()[-1].details["outcome"] == "unknown"


@pytest.mark.parametrize("recovery", [RecoveryClass.IDEMPOTENT, RecoveryClass.READ_ONLY])
async def test_a_repeat_that_policy_now_denies_is_held_and_not_told_as_not_happened(tmp_path, recovery):
    await crash_in_flight(tmp_path, send(recovery))
    async with open_gate(DENY_ALL, folder=tmp_path, tools=TOOLS) as gate:
        await gate.guard.open()
        with pytest.raises(EffectInDoubt, match="cannot be repeated: no policy permits"):
            async with gate.guard.enforce(send(recovery)):
                pytest.fail("the body ran")
        assert gate.events()[-1].event_type == T.DECISION_DENY
        assert gate.store.effect_at(RunId("r"), 0).state is EffectState.UNKNOWN


async def test_a_recovery_class_that_was_taken_back_is_not_relied_on(tmp_path):
    await crash_in_flight(tmp_path, send(RecoveryClass.IDEMPOTENT))
    async with open_gate(folder=tmp_path, tools=TOOLS) as gate:
        await gate.guard.open()
        with pytest.raises(EffectInDoubt):
            async with gate.guard.enforce(send(RecoveryClass.NEVER_RETRY)):
                pytest.fail("the body ran")


async def test_an_error_that_only_mentions_the_code_of_a_late_start_is_not_taken_for_one(tmp_path):
    async with open_gate(folder=tmp_path, tools=TOOLS) as gate:
        admission = await gate.guard._admit(send())
        error = encode_error(InputError("x", hint="effect.not_started"))
        unknown = replace(admission.record, state=EffectState.UNKNOWN, error=error)
        await gate.log.transact(lambda: (gate.store.move_effect(unknown, EffectState.DISPATCHED), ()))
    async with open_gate(folder=tmp_path, tools=TOOLS) as gate:
        with pytest.raises(EffectInDoubt):
            async with gate.guard.enforce(send()):
                pytest.fail("the body ran")


async def test_only_what_a_person_must_decide_is_listed_as_in_doubt(tmp_path):
    await crash_in_flight(tmp_path, AllocateResources(principal=AGENT, limits=ResourceLimits()))
    await crash_in_flight(tmp_path, send())
    async with open_gate(folder=tmp_path, tools=TOOLS) as gate:
        report = await gate.guard.open()
        assert [record.resource for record in report.in_doubt] == ["Tool::s.send"]


@pytest.mark.parametrize("hiding", ['@redact("arguments.body")', '@record("digest")', '@record("redacted")'])
async def test_a_refusal_does_not_show_what_conditions_would_have_hidden(hiding):
    policies = f'@id("p") @approval("boss") {hiding} permit (principal, action, resource);'
    async with open_gate(policies, tools=TOOLS) as gate:
        with pytest.raises(ApprovalRequired):
            async with gate.guard.enforce(send()):
                pytest.fail("the body ran")
        assert PRIVATE not in json.dumps(gate.events()[-1].details)


async def test_what_is_refused_before_the_gate_has_its_record_at_its_place():
    async with open_gate(tools=TOOLS) as gate:
        draft = Draft(T.TOOL_REFUSED, AGENT.agent, {"tool": "s.send"}, RunId("r"))
        await gate.guard.refuse(send(), PinMismatch("changed"), draft)
        record = gate.store.effect_at(RunId("r"), 0)
        assert record.state is EffectState.DENIED
        assert isinstance(decode_error(record.error), PinMismatch)
        assert gate.events()[-1].event_type == T.TOOL_REFUSED


async def test_what_is_refused_before_the_gate_and_was_in_flight_is_in_doubt(tmp_path):
    await crash_in_flight(tmp_path, send(RecoveryClass.IDEMPOTENT))
    async with open_gate(folder=tmp_path, tools=TOOLS) as gate:
        await gate.guard.open()
        draft = Draft(T.TOOL_REFUSED, AGENT.agent, {"tool": "s.send"}, RunId("r"))
        with pytest.raises(EffectInDoubt):
            await gate.guard.refuse(send(RecoveryClass.IDEMPOTENT), PinMismatch("changed"), draft)
        assert gate.events()[-1].event_type == T.TOOL_REFUSED


def test_an_overload_that_comes_back_from_the_ledger_still_says_when_to_try_again():
    back = decode_error(encode_error(Overloaded("busy", retry_after_s=1.5)))
    assert isinstance(back, Overloaded)
    assert back.retry_after_s == 1.5


async def test_policies_that_never_settle_refuse_a_run_as_a_store_that_cannot_be_used():
    async with open_gate(tools=TOOLS) as gate:
        texts = iter(range(100))

        def change(point: str) -> None:
            if point == "before_dispatch":
                source = PolicySource("test.cedar", ALLOW_ALL.replace("all", f"all-{next(texts)}", 1))
                gate.engine.replace(PolicySet.load([source], tools=TOOLS))

        gate.guard.probe = change
        with pytest.raises(StoreUnavailable, match="changes faster"):
            async with gate.guard.enforce(send()):
                pytest.fail("the body ran")
        with pytest.raises(Overloaded):
            async with gate.guard.enforce(send(position=None)):
                pytest.fail("the body ran")
