"""The gate on a real engine, trail and store: decisions, outcomes, recovery, leases."""

import json
from dataclasses import replace

import anyio
import pytest

from symbi.audit.event import AuditEventType as T
from symbi.errors import (
    ApprovalRequired,
    EffectInDoubt,
    InputError,
    InternalError,
    PermitRefused,
    PolicyDenied,
    StoreUnavailable,
    ToolFailed,
    ToolServerUnavailable,
)
from symbi.guard.action import DrawRandom, ExecuteCode, InvokeTool, ReadClock, RunSlot, ToolRef, WriteLog
from symbi.guard.ledger import EffectState
from symbi.guard.records import digest_arguments
from symbi.policy.catalog import ToolType
from symbi.policy.engine import PolicySource
from symbi.policy.policies import PolicySet
from symbi.telemetry import ADMISSION_SECONDS
from symbi.testing.clock import ManualClock
from symbi.testing.gate import ALLOW_ALL, DENY_ALL, open_gate
from symbi.types import AgentId, Principal, RecoveryClass, RunId, SecurityTier, ToolName

pytestmark = pytest.mark.anyio

AGENT = Principal(AgentId("a"))
SCHEMA = {
    "type": "object",
    "properties": {"to": {"type": "string"}, "amount": {"type": "integer"}, "body": {"type": "string"}},
}
TOOLS = [ToolType(ToolName("s.send"), SCHEMA)]
ARGUMENTS = {"to": "x@example.com", "amount": 900, "body": "text"}


def send(position: int | None = 0, recovery: RecoveryClass = RecoveryClass.NEVER_RETRY, **values: object) -> InvokeTool:
    return InvokeTool(
        principal=AGENT,
        slot=None if position is None else RunSlot(RunId("r"), position),
        tool=ToolRef(ToolName("s.send"), "s", "d" * 64, SCHEMA, verified=True, recovery=recovery),
        values={**ARGUMENTS, **values},
    )


def kinds(gate) -> list[str]:
    return [event.event_type for event in gate.events()][1:]  # without trail.started


async def test_an_allowed_effect_leaves_decision_and_outcome_and_a_confirmed_record():
    async with open_gate(tools=TOOLS) as gate:
        async with gate.guard.enforce(send()) as permit:
            assert kinds(gate) == [T.DECISION_ALLOW]  # durable before the effect
            gate.guard.authority.redeem(permit, InvokeTool)
            permit.observe({"ok": True})
        decision, outcome = gate.events()[1:]
        assert decision.details["policies"] == [{"id": "all", "file": "test.cedar", "line": 1}]
        assert decision.details["arguments"] == ARGUMENTS
        assert outcome.event_type == T.EFFECT_OUTCOME
        assert outcome.details["outcome"] == "confirmed"
        record = gate.store.effect_at(RunId("r"), 0)
        assert (record.state, record.attempt) == (EffectState.CONFIRMED, 1)
        assert json.loads(record.result) == {"ok": True}


async def test_how_long_it_took_to_let_an_effect_happen_is_measured_without_the_effect():
    clock = ManualClock()
    clock.advance(1000)

    def probe(point: str) -> None:
        clock.advance({"before_dispatch": 2.0, "dispatched": 64.0}.get(point, 0.0))

    async with open_gate(tools=TOOLS, clock=clock, probe=probe) as gate:
        async with gate.guard.enforce(send()):
            pass
        (took,) = [series for series in gate.guard.metrics.snapshot() if series.metric is ADMISSION_SECONDS]
        assert (took.count, took.total) == (1, 2.0)


def test_arguments_without_a_canonical_form_have_a_digest_of_their_own():
    odd, other = (digest_arguments(send(amount=amount)) for amount in (2**70, 2**70 + 1))
    assert odd != other
    assert odd == digest_arguments(send(amount=2**70))


async def test_with_nothing_permitted_everything_is_denied_and_recorded():
    async with open_gate(DENY_ALL, tools=TOOLS) as gate:
        with pytest.raises(PolicyDenied, match=r"no policy permits `InvokeTool::s\.send`"):
            async with gate.guard.enforce(send()):
                pytest.fail("the body ran")
        (denied,) = gate.events()[1:]
        assert denied.event_type == T.DECISION_DENY
        assert denied.details["verdict"] == "deny"
        assert gate.store.effect_at(RunId("r"), 0).state is EffectState.DENIED


async def test_a_forbid_wins_and_is_named_with_its_line():
    policies = ALLOW_ALL + '\n@id("no-send") forbid (principal, action, resource == Tool::"s.send");'
    async with open_gate(policies, tools=TOOLS) as gate:
        with pytest.raises(PolicyDenied, match=r"`no-send` \(test.cedar:2\)") as denial:
            async with gate.guard.enforce(send()):
                pytest.fail("the body ran")
        assert denial.value.fields["policies"] == ["no-send"]


async def test_conditions_change_the_action_and_the_record_keeps_what_was_asked():
    policies = (
        '@id("p") @redact("arguments.body") @cap("arguments.amount=500") @timeout("5s") '
        "permit (principal, action, resource);"
    )
    async with open_gate(policies, tools=TOOLS) as gate:
        async with gate.guard.enforce(send()) as permit:
            assert permit.action.values == {"to": "x@example.com", "amount": 500, "body": "[redacted]"}
            assert permit.action.timeout_s == 5
        assert [c["kind"] for c in gate.events()[1].details["conditions"]]


async def test_what_conditions_leave_is_rechecked():
    def recheck(action: InvokeTool) -> None:
        if action.values["body"] == "[redacted]":
            msg = "does not fit the schema any more"
            raise InputError(msg)

    async with open_gate(
        '@id("p") @redact("arguments.body") permit (principal, action, resource);', tools=TOOLS
    ) as gate:
        with pytest.raises(InputError):
            async with gate.guard.enforce(replace(send(), recheck=recheck)):
                pytest.fail("the body ran")
        assert kinds(gate) == [T.DECISION_DENY]


async def test_a_tier_condition_raises_the_tier_of_code():
    policies = '@id("p") @tier("gvisor") permit (principal, action, resource);'
    code = ExecuteCode(principal=AGENT, code="1", code_digest="0" * 64)
    async with open_gate(policies) as gate, gate.guard.enforce(code) as permit:
        assert permit.action.tier is SecurityTier.TIER2


async def test_a_condition_that_cannot_be_carried_out_denies():
    async with open_gate('@id("p") @tier("gvisor") permit (principal, action, resource);', tools=TOOLS) as gate:
        with pytest.raises(PolicyDenied, match="outside the sandbox tiers"):
            async with gate.guard.enforce(send()):
                pytest.fail("the body ran")


async def test_a_wanted_approval_denies_while_nobody_can_give_it():
    async with open_gate('@id("p") @approval("finance") permit (principal, action, resource);', tools=TOOLS) as gate:
        with pytest.raises(ApprovalRequired, match="finance"):
            async with gate.guard.enforce(send()):
                pytest.fail("the body ran")
        assert kinds(gate) == [T.DECISION_DENY]


@pytest.mark.parametrize(
    ("used", "recovery", "error", "state"),
    [
        (False, RecoveryClass.NEVER_RETRY, ToolServerUnavailable("gone"), EffectState.FAILED),
        (True, RecoveryClass.NEVER_RETRY, ToolServerUnavailable("gone"), EffectState.UNKNOWN),
        (True, RecoveryClass.READ_ONLY, ToolServerUnavailable("gone"), EffectState.FAILED),
        (True, RecoveryClass.NEVER_RETRY, ToolFailed("it said no"), EffectState.FAILED),
        (True, RecoveryClass.NEVER_RETRY, ValueError("a defect"), EffectState.UNKNOWN),
    ],
)
async def test_a_failure_leaves_what_is_known_of_the_effect(used, recovery, error, state):
    async with open_gate(tools=TOOLS) as gate:
        with pytest.raises(type(error)):
            async with gate.guard.enforce(send(recovery=recovery)) as permit:
                if used:
                    gate.guard.authority.redeem(permit, InvokeTool)
                raise error
        assert gate.store.effect_at(RunId("r"), 0).state is state
        assert gate.events()[-1].details["outcome"] == state.value


async def test_a_cancelled_effect_is_on_record():
    async with open_gate(tools=TOOLS) as gate:
        with anyio.CancelScope() as scope:
            async with gate.guard.enforce(send()) as permit:
                gate.guard.authority.redeem(permit, InvokeTool)
                scope.cancel()
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert gate.store.effect_at(RunId("r"), 0).state is EffectState.UNKNOWN
        assert gate.events()[-1].details["error"] == "cancelled"


async def test_a_permit_is_closed_when_the_gate_is_left():
    async with open_gate(tools=TOOLS) as gate:
        async with gate.guard.enforce(send()) as permit:
            pass
        with pytest.raises(PermitRefused):
            gate.guard.authority.redeem(permit, InvokeTool)


async def test_a_policy_that_changes_between_decision_and_reservation_is_asked_again():
    async with open_gate(tools=TOOLS) as gate:
        none = PolicySet.load([PolicySource("empty.cedar", "")], tools=TOOLS)
        gate.guard.probe = lambda point: gate.engine.replace(none) if point == "before_dispatch" else None
        with pytest.raises(PolicyDenied):
            async with gate.guard.enforce(send()):
                pytest.fail("the body ran")


async def test_the_same_place_in_a_run_is_never_asked_twice():
    async with open_gate(tools=TOOLS) as gate:
        async with gate.guard.enforce(send()):
            pass
        with pytest.raises(InternalError, match="cannot be asked for again"):
            async with gate.guard.enforce(send()):
                pytest.fail("the body ran")


async def crash_in_flight(folder, action) -> None:
    """Leave an effect dispatched, as a killed process would."""
    async with open_gate(folder=folder, tools=TOOLS) as gate:
        admission = await gate.guard._admit(action)
        assert admission.record.state is EffectState.DISPATCHED


async def test_start_up_turns_what_was_in_flight_into_unknown(tmp_path):
    await crash_in_flight(tmp_path, send())
    async with open_gate(folder=tmp_path, tools=TOOLS) as gate:
        report = await gate.guard.open()
        assert [record.position for record in report.in_doubt] == [0]
        assert T.EFFECT_UNKNOWN in kinds(gate)


async def test_an_idempotent_effect_in_doubt_is_repeated_under_its_own_id(tmp_path):
    action = send(recovery=RecoveryClass.IDEMPOTENT)
    await crash_in_flight(tmp_path, action)
    async with open_gate(folder=tmp_path, tools=TOOLS) as gate:
        await gate.guard.open()
        before = gate.store.effect_at(RunId("r"), 0)
        async with gate.guard.enforce(action) as permit:
            assert permit.effect_id == before.effect_id
        after = gate.store.effect_at(RunId("r"), 0)
        assert (after.state, after.attempt) == (EffectState.CONFIRMED, 2)


async def test_an_undeclared_effect_in_doubt_is_not_repeated(tmp_path):
    await crash_in_flight(tmp_path, send())
    async with open_gate(folder=tmp_path, tools=TOOLS) as gate:
        await gate.guard.open()
        with pytest.raises(EffectInDoubt) as doubt:
            async with gate.guard.enforce(send()):
                pytest.fail("the body ran")
        record = gate.store.effect_at(RunId("r"), 0)
        assert doubt.value.fields == {"effect_id": record.effect_id, "position": 0}


async def test_an_effect_in_doubt_does_not_come_back_as_another(tmp_path):
    await crash_in_flight(tmp_path, send(recovery=RecoveryClass.IDEMPOTENT))
    async with open_gate(folder=tmp_path, tools=TOOLS) as gate:
        await gate.guard.open()
        with pytest.raises(InternalError, match="not what it was"):
            async with gate.guard.enforce(send(recovery=RecoveryClass.IDEMPOTENT, to="other@example.com")):
                pytest.fail("the body ran")


async def test_an_effect_cancelled_before_it_began_may_be_done_again_whatever_its_class(tmp_path):
    async with open_gate(folder=tmp_path, tools=TOOLS) as gate:
        with anyio.CancelScope() as scope:
            async with gate.guard.enforce(send()):
                scope.cancel()
                await anyio.sleep_forever()
        assert scope.cancelled_caught
    async with open_gate(folder=tmp_path, tools=TOOLS) as gate:
        await gate.guard.open()
        async with gate.guard.enforce(send()):
            pass
        assert gate.store.effect_at(RunId("r"), 0).state is EffectState.CONFIRMED


async def test_the_canary_is_denied_recorded_and_named_in_the_report():
    async with open_gate(ALLOW_ALL) as gate:
        report = await gate.guard.open()
        assert report.enforcing
        assert (report.policies, report.policy_version) == (2, gate.engine.current.version)
        (event,) = [e for e in gate.events() if e.details.get("action") == "Canary"]
        assert event.event_type == T.DECISION_DENY
        assert event.details["policies"][0]["id"] == "symbi.canary"


async def test_a_gate_whose_engine_fails_does_not_open(monkeypatch):
    async with open_gate(ALLOW_ALL) as gate:
        monkeypatch.setattr(gate.engine, "decide", lambda _request: 1 / 0)
        with pytest.raises(InternalError, match="another reason"):
            await gate.guard.open()


async def test_a_gate_that_lets_everything_pass_does_not_open(monkeypatch):
    async with open_gate(ALLOW_ALL) as gate:
        allow = gate.engine.decide(ReadClock(principal=AGENT).request())
        monkeypatch.setattr(gate.engine, "decide", lambda _request: allow)
        with pytest.raises(InternalError, match="let the canary pass"):
            await gate.guard.open()


async def test_not_enforcing_lets_through_records_that_and_still_denies_the_canary(caplog):
    async with open_gate(DENY_ALL, tools=TOOLS, enforcing=False) as gate:
        assert not (await gate.guard.open()).enforcing
        async with gate.guard.enforce(send()):
            pass
        decision = next(e for e in gate.events() if e.details.get("resource") == "Tool::s.send")
        assert decision.details["enforced"] is False
        assert decision.details["verdict"] == "deny"
        assert "NOT ENFORCED" in caplog.text


async def test_a_lease_is_one_decision_with_a_count_and_a_digest():
    async with open_gate() as gate:
        line = WriteLog(principal=AGENT, message="")
        async with gate.guard.lease(line, uses=3, seconds=10) as lease:
            for number in range(3):
                lease.use({"message": str(number)})
            with pytest.raises(PermitRefused, match="spent"):
                lease.use({"message": "one too many"})
        granted, closed = gate.events()[1:]
        assert granted.event_type == T.LEASE_GRANTED
        assert granted.details["lease"] == {"uses": 3, "seconds": 10}
        assert (closed.event_type, closed.details["uses"]) == (T.LEASE_CLOSED, 3)


async def test_a_lease_ends_in_time_and_with_a_new_policy_set():
    clock = ManualClock()
    async with open_gate(clock=clock) as gate:
        async with gate.guard.lease(DrawRandom(principal=AGENT), uses=9, seconds=10) as lease:
            lease.use({})
            clock.advance(10)
            with pytest.raises(PermitRefused, match="run out"):
                lease.use({})
        async with gate.guard.lease(DrawRandom(principal=AGENT), uses=9, seconds=10) as lease:
            gate.engine.replace(PolicySet.load([PolicySource("same.cedar", ALLOW_ALL)]))
            with pytest.raises(PermitRefused):
                lease.use({})


async def test_tools_and_code_are_never_leased():
    async with open_gate(tools=TOOLS) as gate:
        for action in (send(None), ExecuteCode(principal=AGENT, code="1", code_digest="0" * 64)):
            with pytest.raises(InternalError, match="cannot be leased"):
                async with gate.guard.lease(action, uses=1, seconds=1):
                    pytest.fail("the body ran")


async def test_a_trail_that_cannot_commit_lets_nothing_happen(monkeypatch):
    async with open_gate(tools=TOOLS) as gate:

        def full(*_: object) -> None:
            msg = "the disk is full"
            raise StoreUnavailable(msg)

        monkeypatch.setattr(gate.store, "append", full)
        with pytest.raises(StoreUnavailable):
            async with gate.guard.enforce(send()):
                pytest.fail("the body ran")
        monkeypatch.undo()
        assert gate.store.effect_at(RunId("r"), 0) is None
        async with gate.guard.enforce(send()):  # and goes on where the store does
            pass


async def test_an_outcome_that_cannot_be_committed_is_the_callers_error(monkeypatch):
    async with open_gate(tools=TOOLS) as gate:
        with pytest.raises(StoreUnavailable):
            async with gate.guard.enforce(send()):
                monkeypatch.setattr(gate.store, "move_effect", lambda *_: _raise())
        monkeypatch.undo()
        assert gate.store.effect_at(RunId("r"), 0).state is EffectState.DISPATCHED


def _raise() -> None:
    msg = "gone"
    raise StoreUnavailable(msg)
