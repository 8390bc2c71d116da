"""What rides with a decision and an outcome: in their transactions, only where they are yes and success, and under a live permit."""

import pytest

from symbi.audit.event import AuditEventType as T
from symbi.errors import InputError, PermitRefused, PolicyDenied, StoreUnavailable
from symbi.guard.action import WriteData
from symbi.guard.actions.data import DataRef
from symbi.guard.riders import Riders
from symbi.policy.policies import PolicySet
from symbi.policy.source import PolicySource
from symbi.testing.gate import ALLOW_ALL, DENY_ALL, open_gate
from symbi.types import AgentId, Principal

pytestmark = pytest.mark.anyio

WRITE = WriteData(principal=Principal(AgentId("a")), data=DataRef("Knowledge", "ops"))


def last(gate):
    return gate.events()[-1].event_type


def written(gate):
    """What riders have left in the store."""
    return [row[0] for row in gate.store._all("SELECT owner FROM knowledge_access ORDER BY owner")]


def riders(gate, seen, *, failing=""):
    def put(owner):
        def work():
            seen.append((owner, last(gate)))
            gate.store._write(
                "INSERT INTO knowledge_access (collection, owner, classification, purpose) VALUES (?, ?, ?, ?)",
                ("ops", owner, "internal", "unknown"),
            )
            if owner == failing:
                raise InputError("no")

        return work

    async def after(permit):
        seen.append(("after", last(gate)))
        gate.guard.authority.redeem(permit, WriteData)
        seen.append(permit)
        if failing == "after":
            raise StoreUnavailable("no")

    return Riders(put("decided"), put("succeeded"), after)


async def test_they_are_kept_with_decision_and_outcome_in_two_commits():
    seen, commits = [], []
    async with open_gate() as gate:
        gate.store.probe = lambda point: commits.append(point) if point == "committed" else None
        async with gate.guard.enforce(WRITE, riders=riders(gate, seen)) as permit:
            gate.guard.authority.redeem(permit, WriteData)
            assert written(gate) == ["decided"]
            assert len(commits) == 1
        assert len(commits) == 2
        assert written(gate) == ["decided", "succeeded"]
        assert seen[:3] == [("decided", T.TRAIL_STARTED), ("succeeded", T.DECISION_ALLOW), ("after", T.EFFECT_OUTCOME)]
        for over in (permit, seen[3]):
            with pytest.raises(PermitRefused):
                gate.guard.authority.check(over, WriteData)


async def test_what_is_let_go_of_waits_for_a_success_that_goes_with_the_next_commit(monkeypatch):
    monkeypatch.setattr("symbi.audit.log.LINGER_S", 3600.0)
    seen, later = [], []
    async with open_gate() as gate:
        async with gate.guard.enforce(WRITE, later, riders(gate, seen)):
            pass
        assert len(later) == 1
        assert ("after", T.EFFECT_OUTCOME) in seen


async def test_nothing_rides_with_a_denial():
    seen = []
    async with open_gate(DENY_ALL) as gate:
        with pytest.raises(PolicyDenied):
            async with gate.guard.enforce(WRITE, riders=riders(gate, seen)):
                raise AssertionError
        assert (seen, written(gate)) == ([], [])


async def test_what_rides_with_success_does_not_ride_with_failure():
    seen = []
    async with open_gate() as gate:
        with pytest.raises(InputError):
            async with gate.guard.enforce(WRITE, riders=riders(gate, seen)):
                raise InputError("no")
        assert written(gate) == ["decided"]
        assert len(seen) == 1


@pytest.mark.parametrize("failing", ["decided", "succeeded", "after"])
async def test_one_that_fails_takes_its_transaction_with_it(failing):
    seen = []
    async with open_gate() as gate:
        reached = False
        with pytest.raises((InputError, StoreUnavailable)):
            async with gate.guard.enforce(WRITE, riders=riders(gate, seen, failing=failing)):
                reached = True
        kept, event, began = {
            "decided": ([], T.DECISION_DENY, False),  # as any other input that does not fit
            "succeeded": (["decided"], T.DECISION_ALLOW, True),
            "after": (["decided", "succeeded"], T.EFFECT_OUTCOME, True),
        }[failing]
        assert (written(gate), last(gate), reached) == (kept, event, began)
        assert len(gate.guard.authority) == 0


async def test_a_decision_that_is_made_again_has_its_rider_once_more_and_leaves_it_once():
    seen = []
    async with open_gate() as gate:

        def probe(point):
            if point == "before_dispatch" and not seen:
                gate.guard.probe = lambda _point: None
                gate.engine.replace(PolicySet.load([PolicySource("test.cedar", ALLOW_ALL + "\n")]))

        gate.guard.probe = probe
        async with gate.guard.enforce(WRITE, riders=riders(gate, seen)):
            pass
        assert written(gate) == ["decided", "succeeded"]
