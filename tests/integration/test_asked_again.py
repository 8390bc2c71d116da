"""What may be asked for again at its place in a run, on a real gate: by whom, how often it counts, and as what it stands."""

import pytest

from symbi.audit.event import AuditEventType as T
from symbi.errors import (
    EffectInDoubt,
    InternalError,
    PolicyDenied,
    RateLimited,
    SymbiError,
    TimeLimit,
    ToolFailed,
    ToolServerUnavailable,
)
from symbi.guard.action import InvokeTool, RunSlot, ToolRef
from symbi.guard.ledger import EffectState
from symbi.guard.outcome import decode_error
from symbi.guard.settlement import Conclusion
from symbi.policy.catalog import ToolType
from symbi.policy.engine import PolicySource
from symbi.policy.policies import PolicySet
from symbi.testing.clock import ManualClock
from symbi.testing.gate import ALLOW_ALL, DENY_ALL, Gate, open_gate
from symbi.types import AgentId, Principal, RecoveryClass, RunId, ToolName

pytestmark = pytest.mark.anyio

AGENT = Principal(AgentId("a"))
RUN = RunId("r")
TOOLS = [ToolType(ToolName("s.send"), {})]
C = RecoveryClass
S = EffectState
SENT = """
[history.sent]
kind = "count"
action = "InvokeTool"
per = "agent"
within = "1h"
"""
AT_MOST_3 = ALLOW_ALL + '@id("3") forbid (principal, action, resource) when { context.history.sent > 3 };'
ATTEMPTS = ALLOW_ALL + '@id("2") forbid (principal, action, resource) when { context.request.attempt > 2 };'
CALLS = ALLOW_ALL + '@id("c") forbid (principal, action, resource) when { context.usage.calls >= 2 };'
RATED = '@id("p") @rate("2/60s") permit (principal, action, resource);'


def send(position: int = 0, recovery: RecoveryClass = C.IDEMPOTENT) -> InvokeTool:
    ref = ToolRef(ToolName("s.send"), "s", "d" * 64, {"type": "object"}, verified=True, recovery=recovery)
    return InvokeTool(principal=AGENT, slot=RunSlot(RUN, position), tool=ref, values={})


async def attempt(gate: Gate, action: InvokeTool, error: SymbiError | None = None, *, used: bool = True) -> str:
    """One attempt; returns the idempotency key that the other side saw."""
    async with gate.guard.enforce(action) as permit:
        if used:
            gate.guard.authority.redeem(permit, InvokeTool)
        if error is not None:
            raise error
        return str(permit.effect_id)


async def fails(gate: Gate, action: InvokeTool, error: SymbiError, *, used: bool = True) -> None:
    with pytest.raises(type(error)):
        await attempt(gate, action, error, used=used)


def policies(text: str) -> PolicySet:
    return PolicySet.load([PolicySource("operator.cedar", text)], tools=TOOLS)


GONE, NO, LATE = ToolServerUnavailable("gone"), ToolFailed("it says no"), TimeLimit("too late")


@pytest.mark.parametrize(
    ("recovery", "error", "used", "expected"),
    [
        (C.NEVER_RETRY, GONE, False, S.CONFIRMED),  # it certainly did not happen
        (C.NEVER_RETRY, NO, True, InternalError),  # it was done, and the other side has answered
        (C.NEVER_RETRY, GONE, True, EffectInDoubt),
        (C.NEVER_RETRY, LATE, True, EffectInDoubt),
        (C.IDEMPOTENT, NO, True, S.CONFIRMED),
        (C.IDEMPOTENT, GONE, True, S.CONFIRMED),
        (C.READ_ONLY, NO, True, S.CONFIRMED),
        (C.READ_ONLY, LATE, True, S.CONFIRMED),
        (C.RECONCILABLE, NO, True, InternalError),
        (C.RECONCILABLE, GONE, True, EffectInDoubt),
    ],
)
async def test_whether_a_failed_effect_is_repeated_is_for_its_class_and_what_is_known(recovery, error, used, expected):
    async with open_gate(tools=TOOLS) as gate:
        await fails(gate, send(recovery=recovery), error, used=used)
        key = gate.store.effect_at(RUN, 0).effect_id
        allowed = await gate.guard.places.attempts(send(recovery=recovery))
        if isinstance(expected, S):
            assert allowed == 1
            assert await attempt(gate, send(recovery=recovery)) == key
        else:
            assert allowed is None
            with pytest.raises(expected):
                await attempt(gate, send(recovery=recovery))
        record = gate.store.effect_at(RUN, 0)
        assert record.effect_id == key
        if isinstance(expected, S):
            assert (record.state, record.attempt) == (expected, 2)


async def test_each_attempt_is_decided_and_stands_in_the_trail():
    async with open_gate(ATTEMPTS, tools=TOOLS) as gate:
        for _ in range(2):
            await fails(gate, send(), NO)
        with pytest.raises(PolicyDenied):
            await attempt(gate, send())
        record = gate.store.effect_at(RUN, 0)
        assert (record.state, record.attempt) == (S.DENIED, 3)
        told = [(e.event_type, e.details["attempt"], e.details["effect_id"]) for e in gate.events()[1:]]
        kinds = [T.DECISION_ALLOW, T.EFFECT_OUTCOME, T.DECISION_ALLOW, T.EFFECT_OUTCOME, T.DECISION_DENY]
        assert told == [(kind, n, record.effect_id) for kind, n in zip(kinds, (1, 1, 2, 2, 3), strict=True)]


async def test_what_was_denied_is_asked_again_and_again_and_happens_once_policy_lets_it():
    async with open_gate(DENY_ALL, tools=TOOLS) as gate:
        for _ in range(3):
            with pytest.raises(PolicyDenied):
                await attempt(gate, send(recovery=C.NEVER_RETRY))
        before = gate.store.effect_at(RUN, 0)
        assert (before.state, before.attempt) == (S.DENIED, 3)
        gate.engine.replace(policies(ALLOW_ALL))
        assert await attempt(gate, send(recovery=C.NEVER_RETRY)) == before.effect_id
        record = gate.store.effect_at(RUN, 0)
        assert (record.state, record.attempt, record.error) == (S.CONFIRMED, 4, None)


async def test_what_was_denied_before_its_class_was_known_has_the_class_that_it_is_asked_with():
    async with open_gate(DENY_ALL, tools=TOOLS) as gate:
        with pytest.raises(PolicyDenied):
            await attempt(gate, send(recovery=C.NEVER_RETRY))
        gate.engine.replace(policies(ALLOW_ALL))
        await fails(gate, send(recovery=C.IDEMPOTENT), GONE)
        assert gate.store.effect_at(RUN, 0).recovery is C.IDEMPOTENT
        await attempt(gate, send(recovery=C.IDEMPOTENT))


async def test_nothing_is_asked_again_once_its_run_has_gone_on_from_there():
    async with open_gate(tools=TOOLS) as gate:
        await fails(gate, send(0), NO)
        await attempt(gate, send(1))
        with pytest.raises(InternalError, match="cannot be asked for again"):
            await attempt(gate, send(0))
        with pytest.raises(InternalError, match="cannot be asked for again"):
            await attempt(gate, send(1))  # it is done
        assert gate.store.effect_at(RUN, 0).state is S.FAILED


async def test_another_action_at_its_place_is_refused():
    async with open_gate(tools=TOOLS) as gate:
        await fails(gate, send(), NO)
        other = InvokeTool(principal=AGENT, slot=RunSlot(RUN, 0), tool=send().tool, values={"to": "me"})
        with pytest.raises(InternalError, match="not what it was"):
            await attempt(gate, other)


async def left(gate: Gate) -> int:
    """How many more the counter lets through."""
    count = 0
    for position in range(100, 110):
        try:
            await attempt(gate, send(position * 2))
        except PolicyDenied:
            return count
        count += 1
    return count


@pytest.mark.parametrize(
    ("error", "used", "more"),
    [
        (NO, True, 1),  # two calls were made
        (GONE, False, 2),  # only the second was
        (GONE, True, 2),  # nobody knows of the first, and the key is one: it is the second
    ],
)
async def test_a_counter_with_a_window_has_each_attempt_that_was_made(error, used, more):
    async with open_gate(AT_MOST_3, history=SENT, tools=TOOLS) as gate:
        await fails(gate, send(), error, used=used)
        await attempt(gate, send())
        assert await left(gate) == more


async def test_an_attempt_that_never_began_gives_back_its_own_and_no_more():
    async with open_gate(AT_MOST_3, history=SENT, tools=TOOLS) as gate:
        await fails(gate, send(), NO)
        await fails(gate, send(), GONE, used=False)
        await attempt(gate, send())
        assert await left(gate) == 1


async def test_a_call_made_twice_counts_twice_among_what_its_run_has_used():
    async with open_gate(CALLS, tools=TOOLS) as gate:
        await fails(gate, send(), NO)
        await attempt(gate, send())
        usage = gate.store.usage_of(RUN)
        assert (usage.effects, usage.calls) == (1, 2)
        with pytest.raises(PolicyDenied):
            await attempt(gate, send(1))


async def test_a_rate_holds_over_attempts_and_frees_with_its_window():
    clock = ManualClock()
    async with open_gate(RATED, tools=TOOLS, clock=clock) as gate:
        for _ in range(2):
            await fails(gate, send(), NO)
        with pytest.raises(RateLimited) as limited:
            await attempt(gate, send())
        assert await gate.guard.places.attempts(send()) == 3
        clock.advance(limited.value.retry_after_s)
        await attempt(gate, send())
        assert gate.store.effect_at(RUN, 0).attempt == 4


async def test_what_was_found_out_about_an_attempt_says_nothing_of_the_next_one():
    async with open_gate(ALLOW_ALL, tools=TOOLS) as gate:
        await fails(gate, send(), GONE)
        (found,) = gate.store.effects_in(S.UNKNOWN)
        await fails(gate, send(), GONE)
        settlement = gate.guard.settlement
        with pytest.raises(InternalError, match="earlier attempt"):
            await settlement.conclude(found, Conclusion(happened=False, by="s.find", unseen=True))
        (found,) = gate.store.effects_in(S.UNKNOWN)
        assert (found.attempt, decode_error(found.error).code) == (2, GONE.code)
        await settlement.conclude(found, Conclusion(happened=True, by="s.find", unseen=True))
        assert gate.store.effect_at(RUN, 0).state is S.RECONCILED
