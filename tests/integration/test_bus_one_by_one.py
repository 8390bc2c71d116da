"""Where policy demands it, each message of the bus is decided and recorded by itself, and no lease outlives that."""

from hashlib import sha256

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symbi.audit.event import AuditEventType as T
from symbi.bus.parcels import ConsumerTerms, Overflow
from symbi.bus.receiving import RetryTerms
from symbi.bus.rooms import BusTerms
from symbi.errors import Overloaded, PolicyDenied, RateLimited
from symbi.policy.engine import PolicySource
from symbi.policy.policies import PolicySet
from symbi.testing.open_bus import bus_over, collect, settled

pytestmark = pytest.mark.anyio

EACH = '@id("each") @lease("none") permit (principal, action, resource);'
BY_LEASE = '@id("all") permit (principal, action, resource);'
LISTEN = '@id("listen") permit (principal, action == Action::"SubscribeTopic", resource);'
SENDING = {"SendMessage", "PublishMessage"}


def decided(open_, kind=T.DECISION_ALLOW):
    """Arguments of decisions on messages, in order."""
    return [
        event.details["arguments"]
        for event in open_.gate.events()
        if event.event_type == kind and event.details["action"] in SENDING
    ]


def outcomes(open_, state):
    """Of messages that were decided by themselves."""
    events = open_.gate.events()
    ids = {one.details["effect_id"] for one in events if one.details.get("action") in SENDING}
    return [
        one for one in events
        if one.event_type == T.EFFECT_OUTCOME and one.details["effect_id"] in ids and one.details["outcome"] == state
    ]  # fmt: skip


def leases(open_):
    return [event for event in open_.gate.events() if event.event_type == T.LEASE_GRANTED]


async def every_pattern(open_, got):
    bus = open_.bus
    await bus.open_mailbox("b", lambda message: got.append(message.body) or "ok", groups=["team"])
    await bus.subscribe("c", "t", collect(got))
    await bus.publish("a", "t", 1)
    await bus.publish_many("a", "t", [2, 3])
    await bus.send_message("a", "b", 4)
    assert (await bus.request("a", "b", 5, timeout_s=5)).body == "ok"
    assert await bus.broadcast("a", "team", 6) == {"b": None}
    await settled(lambda: len(got) == 6)
    assert sorted(got) == [1, 2, 3, 4, 5, 6]


async def test_each_message_of_every_pattern_is_on_the_trail_with_its_outcome_and_nothing_is_leased():
    async with bus_over(EACH) as open_:
        wires = {}
        publish = open_.transport.publish
        open_.transport.publish = lambda subject, parcels: (
            wires.update({one.message_id: sha256(one.data).hexdigest() for one in parcels}) or publish(subject, parcels)
        )
        await every_pattern(open_, [])
        await open_.bus.close()
        asked = decided(open_)
        assert len(asked) == 6
        assert len({one["message"] for one in asked}) == 6
        assert [one["body"] for one in asked] == [None] * 6
        by_transport = [one for one in asked if one["message"] in wires]
        assert len(by_transport) == 5  # the sixth is in the outbox
        assert all(one["sha256"] == wires[one["message"]] for one in by_transport)
        assert leases(open_) == []
        assert len(outcomes(open_, "confirmed")) == 6


async def test_without_the_demand_there_is_no_decision_for_a_single_message():
    async with bus_over(BY_LEASE) as open_:
        await every_pattern(open_, [])
        assert decided(open_) == []
        assert len(leases(open_)) == 3


async def test_one_permit_among_several_is_enough():
    async with bus_over(BY_LEASE + EACH) as open_:
        await open_.bus.publish_many("a", "t", [1, 2])
        assert (len(decided(open_)), leases(open_)) == (2, [])


async def test_what_others_lease_is_leased_beside_it():
    policies = '@id("each") @lease("none") permit (principal, action, resource == Topic::"t");' + BY_LEASE
    async with bus_over(policies) as open_:
        await open_.bus.publish("a", "t", 1)
        await open_.bus.publish("a", "u", 1)
        assert (len(decided(open_)), len(leases(open_))) == (1, 1)


async def test_a_requirement_denies_what_may_be_leased():
    requirement = '@id("r") @requires("lease") forbid (principal, action == Action::"PublishMessage", resource);'
    async with bus_over(BY_LEASE + requirement) as open_:
        with pytest.raises(PolicyDenied):
            await open_.bus.publish("a", "t", 1)
        open_.set_policies(EACH + requirement)
        await open_.bus.publish("a", "t", 1)
        assert len(decided(open_)) == 1


async def test_a_lease_does_not_outlive_a_set_that_wants_each_by_itself():
    """An attack: the lease is taken before, and what is to be sent under it waits for its keys meanwhile."""
    async with bus_over(BY_LEASE) as open_:
        got = []
        await open_.bus.subscribe("c", "t", collect(got))
        await open_.bus.publish("a", "t", 0)
        (held,) = open_.bus.passages._open.values()
        ready = open_.bus.sender._ready

        async def and_meanwhile(*args):
            await ready(*args)
            open_.set_policies(EACH)

        open_.bus.sender._ready = and_meanwhile
        await open_.bus.publish_many("a", "t", [1, 2])
        await settled(lambda: len(got) == 3)
        assert held.lease.uses_left == 0
        assert (got, len(decided(open_)), len(leases(open_))) == ([0, 1, 2], 2, 1)


async def test_what_waited_when_the_demand_came_is_decided_by_itself_before_anybody_has_it():
    async with bus_over(BY_LEASE) as open_:
        got, gate = [], anyio.Event()

        async def slow(message):
            got.append(message.body)
            await gate.wait()

        await open_.bus.subscribe("c", "t", slow)
        await open_.bus.open_mailbox("b", slow)
        await open_.bus.publish_many("a", "t", ["t1", "t2", "t3"])
        for body in ("s1", "s2"):
            await open_.bus.send_message("a", "b", body)
        await settled(lambda: len(got) == 2)
        open_.set_policies(EACH)
        gate.set()
        await settled(lambda: len(got) == 5)
        assert len(decided(open_)) == 3  # of t2, t3 and s2
        assert len({one["message"] for one in decided(open_)}) == 3


async def test_a_set_that_leases_again_leases_again():
    async with bus_over(EACH) as open_:
        await open_.bus.publish("a", "t", 1)
        open_.set_policies(BY_LEASE)
        await open_.bus.publish_many("a", "t", [2, 3])
        assert (len(decided(open_)), len(leases(open_))) == (1, 1)


async def test_a_set_that_denies_stops_it_at_once_and_says_so_for_each():
    async with bus_over(EACH) as open_:
        got = []
        await open_.bus.subscribe("c", "t", collect(got))
        await open_.bus.publish("a", "t", 1)
        await settled(lambda: got)
        open_.set_policies(LISTEN)
        with pytest.raises(PolicyDenied):
            await open_.bus.publish("a", "t", 2)
        await settled()
        assert got == [1]


async def test_a_rate_counts_each_message_once_and_what_is_over_it_goes_nowhere():
    async with bus_over('@id("each") @lease("none") @rate("3/minute") permit (principal, action, resource);') as open_:
        got = []
        await open_.bus.open_mailbox("b", collect(got))
        for body in (1, 2, 3):
            await open_.bus.send_message("a", "b", body)
        with pytest.raises(RateLimited):
            await open_.bus.send_message("a", "b", 4)
        await settled(lambda: len(got) == 3)
        assert got == [1, 2, 3]


async def test_what_waited_and_is_over_a_rate_then_is_tried_again_and_is_no_dead_letter():
    async with bus_over(BY_LEASE) as open_:
        got = []
        await open_.bus.send_message("a", "b", 1)
        await open_.bus.send_message("d", "b", 2)
        await open_.bus.send_message("d", "b", 3)
        open_.set_policies('@id("each") @lease("none") @rate("1/minute") permit (principal, action, resource);')
        await open_.bus.open_mailbox("b", collect(got))
        await settled(lambda: len(got) == 2)
        assert sorted(got) == [1, 2]
        for _ in range(8):
            await open_.sleep.advance(30.0)
        await settled(lambda: len(got) == 3)
        assert await open_.bus.dead() == []


async def test_a_rate_is_no_failure_however_often_it_holds_a_message_back():
    terms = BusTerms(retry=RetryTerms(attempts=2, first_s=1.0, most_s=1.0))
    async with bus_over(BY_LEASE, terms=terms) as open_:
        got, senders = [], ("a", "c", "d")
        for number, sender in enumerate(senders * 3):
            await open_.bus.send_message(sender, "b", number)
        open_.set_policies('@id("each") @lease("none") @rate("1/minute") permit (principal, action, resource);')
        await open_.bus.open_mailbox("b", lambda message: got.append((message.body, message.attempt)))
        for _ in range(100):  # as many as it takes, for commits take turns of their own
            if len(got) == 9:
                break
            await open_.sleep.advance(20.0)
        assert sorted(got) == [(number, 1) for number in range(9)]
        assert await open_.bus.dead() == []


async def test_of_several_that_are_said_at_once_all_pass_or_none():
    policies = (
        '@id("each") @lease("none") @rate("2/minute") permit (principal, action == Action::"PublishMessage", resource);'
    )
    async with bus_over(policies + LISTEN) as open_:
        got = []
        await open_.bus.subscribe("c", "t", collect(got))
        with pytest.raises(RateLimited):
            await open_.bus.publish_many("a", "t", [1, 2, 3])
        await settled()
        assert got == []
        assert len(outcomes(open_, "failed")) == 2  # decided, and not handed over


async def test_what_cannot_be_handed_over_is_on_record_with_why():
    async with bus_over(EACH) as open_:
        gate = anyio.Event()

        async def slow(_message):
            await gate.wait()

        await open_.bus.subscribe("c", "t", slow, terms=ConsumerTerms(most=1, overflow=Overflow.REFUSE))
        with pytest.raises(Overloaded):
            for body in range(5):
                await open_.bus.publish("a", "t", body)
        gate.set()
        assert [one.details["error"] for one in outcomes(open_, "failed")] == ["message.mailbox_full"]
        assert outcomes(open_, "unknown") == []


@pytest.mark.parametrize("condition", ['@redact("arguments.body")', '@cap("arguments.body=1")'])
async def test_a_body_that_is_sealed_cannot_be_altered_and_does_not_pass(condition):
    async with bus_over(
        f'@id("each") @lease("none") {condition} permit (principal, action, resource);' + LISTEN
    ) as open_:
        got = []
        await open_.bus.open_mailbox("b", collect(got))
        for work in (open_.bus.send_message("a", "b", 9), open_.bus.publish("a", "t", 9)):
            with pytest.raises(PolicyDenied):
                await work
        await settled()
        assert got == []


async def test_a_count_that_a_lease_would_be_over_does_not_deny_what_is_decided_by_itself():
    counted = '[history.said]\nkind = "count"\naction = "PublishMessage"\nper = "agent"\n'
    few = "when { context.history.said <= 2 }"
    policies = f'@id("few") @lease("none") permit (principal, action == Action::"PublishMessage", resource) {few};'
    async with bus_over(BY_LEASE) as open_:
        sources = [PolicySource("test.cedar", policies), PolicySource("history.toml", counted)]
        open_.gate.engine.replace(PolicySet.load(sources))
        for body in (1, 2):
            await open_.bus.publish("a", "t", body)
        with pytest.raises(PolicyDenied):
            await open_.bus.publish("a", "t", 3)
        assert (len(decided(open_)), leases(open_)) == (2, [])


SETS = st.sampled_from([EACH, BY_LEASE, BY_LEASE + EACH, LISTEN])
STEPS = st.lists(st.one_of(st.tuples(st.just("set"), SETS), st.tuples(st.just("say"), st.integers(1, 3))), max_size=12)


@settings(max_examples=25, deadline=None)
@given(STEPS)
def test_whatever_sets_come_and_go_each_message_is_decided_as_the_one_in_force_says(steps):
    async def follow():
        async with bus_over(BY_LEASE) as open_:
            current, expected, passed, got = BY_LEASE, 0, 0, []
            await open_.bus.subscribe("c", "t", collect(got))
            for what, value in steps:
                if what == "set":
                    current = value
                    open_.set_policies(value)
                    continue
                try:
                    await open_.bus.publish_many("a", "t", [0] * value)
                except PolicyDenied:
                    assert current == LISTEN
                else:
                    assert current != LISTEN
                    passed += value
                    expected += value if EACH in current else 0
                await settled(lambda passed=passed: len(got) == passed)
                assert len(decided(open_)) == expected

    anyio.run(follow)
