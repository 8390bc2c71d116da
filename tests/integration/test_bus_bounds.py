"""What stops the bus: policy, limits, and a policy set that comes while it runs."""

import anyio
import pytest

from symbi.audit.event import AuditEventType as T
from symbi.bus import outbox
from symbi.bus.port import SentState
from symbi.bus.ratelimit import RateTerms
from symbi.bus.receiving import RetryTerms
from symbi.bus.rooms import BusTerms
from symbi.errors import (
    PolicyDenied,
    RateLimited,
)
from symbi.testing.gate import DENY_ALL
from symbi.testing.open_bus import bus_over, collect, settled
from symbi.types import Confidentiality, Integrity, Label

pytestmark = pytest.mark.anyio

SECRET = Label(Integrity.UNTRUSTED, Confidentiality.SECRET, ("file",), ("health",))


async def test_dead_messages_to_one_agent_are_bounded_and_what_makes_room_is_on_the_trail(monkeypatch):
    monkeypatch.setattr(outbox, "MAX_DEAD", 2)

    def fail(_message):
        raise ValueError

    terms = BusTerms(retry=RetryTerms(attempts=1), mailbox=2)
    async with bus_over(terms=terms, agents=("a", "b", "b/1", "c", "d")) as open_:
        for name in ("b", "b/1", "c"):
            await open_.bus.open_mailbox(name, fail)
        sent = []
        for number, name in enumerate(("c", "b", "b/1", "b", "b/1")):
            sent.append((await open_.bus.send_message("a", name, number)).message_id)
            await settled(lambda: len(kinds_of(open_, T.LETTER_PUT)) == len(sent))
        assert [one.message_id for one in await open_.bus.dead()] == [sent[0], *sent[3:]]
        dropped = kinds_of(open_, T.LETTER_DROPPED)
        assert [(one.details["message"], one.details["by"]) for one in dropped] == [
            (sent[1], "symbi.system"),
            (sent[2], "symbi.system"),
        ]
        row = await open_.bus.outbox.find(sent[1])
        assert (row.state, row.wire) == (SentState.DROPPED, b"")
        late = [(await open_.bus.send_message("a", "d", number, ttl_s=5)).message_id for number in range(2)]
        await open_.sleep.advance(6)
        monkeypatch.setattr(outbox, "MAX_DEAD", 1)
        await open_.bus.send_message("a", "d", 3)  # what is over makes room, and is bounded too
        assert [one.message_id for one in await open_.bus.outbox.dead("d")] == late[1:]


def kinds_of(open_, kind):
    return [event for event in open_.gate.events() if event.event_type is kind]


# --- what stops it ------------------------------------------------------------------------------


async def every_pattern(open_):
    """What each of the patterns raises, or None."""
    bus = open_.bus
    found = {}
    for name, work in {
        "publish": lambda: bus.publish("a", "t", 1),
        "publish_many": lambda: bus.publish_many("a", "t", [1, 2]),
        "send_message": lambda: bus.send_message("a", "b", 1),
        "request": lambda: bus.request("a", "b", 1, timeout_s=5),
    }.items():
        try:
            await work()
        except (PolicyDenied, RateLimited) as error:
            found[name] = type(error)
        else:
            found[name] = None
    outcome = await bus.broadcast("a", "team", 1)
    found["broadcast"] = type(outcome["b"]) if outcome["b"] is not None else None
    return found


NAMES = ("publish", "publish_many", "send_message", "request", "broadcast")


async def listening(open_, got):
    await open_.bus.open_mailbox("b", lambda message: got.append(message.body) or "ok", groups=["team"])
    await open_.bus.subscribe("c", "t", lambda message: got.append(message.body))


async def test_deny_all_stops_every_pattern_and_touches_no_transport():
    async with bus_over() as open_:
        got = []
        await listening(open_, got)
        open_.set_policies(DENY_ALL)
        handed = []
        publish = open_.transport.publish
        open_.transport.publish = lambda *args: handed.append(args) or publish(*args)
        assert await every_pattern(open_) == dict.fromkeys(NAMES, PolicyDenied)
        with pytest.raises(PolicyDenied):
            await open_.bus.subscribe("d", "t", collect(got))
        await settled()
        assert got == handed == []
        assert await open_.gate.log.read(lambda: open_.gate.store.sent(SentState.WAITING, "", 0, 10)) == []


async def test_an_exhausted_rate_stops_every_pattern_until_it_is_made_up_for():
    terms = BusTerms(rates=RateTerms(agent=2, burst_s=1))
    async with bus_over(terms=terms) as open_:
        got = []
        await listening(open_, got)
        await open_.bus.publish_many("a", "t", [1, 2])
        assert await every_pattern(open_) == dict.fromkeys(NAMES, RateLimited)
        await open_.sleep.advance(0.5)
        await open_.bus.publish("a", "t", 3)
        with pytest.raises(RateLimited) as limited:
            await open_.bus.publish("a", "t", 4)
        assert 0 < limited.value.retry_after_s <= 0.5
        await settled(lambda: len(got) == 3)
        assert got == [1, 2, 3]


@pytest.mark.parametrize(
    "rates",
    [RateTerms(pair=1), RateTerms(topic=1), RateTerms(agent_bytes=3)],
    ids=["pair", "topic", "bytes"],
)
async def test_each_bound_is_one_of_its_own(rates):
    async with bus_over(terms=BusTerms(rates=rates)) as open_:
        results = []
        for sender, to in [("a", "b"), ("a", "b"), ("a", "c"), ("d", "c")]:
            for work in (open_.bus.send_message(sender, to, 10), open_.bus.publish(sender, f"t.{to}", 10)):
                try:
                    await work
                    results.append(1)
                except RateLimited:
                    results.append(0)
        assert (
            results
            == {
                "pair": [1, 1, 0, 1, 1, 1, 1, 1],
                "topic": [1, 1, 1, 0, 1, 1, 1, 0],
                "agent_bytes": [1, 0, 0, 0, 0, 0, 1, 0],
            }[next(name for name in ("pair", "topic", "agent_bytes") if getattr(rates, name))]
        )


async def test_a_new_policy_set_stops_a_running_flow_at_once():
    """Also what waits in buffers and in the outbox, and who listens."""
    async with bus_over() as open_:
        got, gate = [], anyio.Event()

        async def slow(message):
            got.append(message.body)
            await gate.wait()

        listener = await open_.bus.subscribe("c", "t", slow)
        await open_.bus.open_mailbox("b", slow)
        await open_.bus.publish_many("a", "t", ["t1", "t2", "t3"])
        await open_.bus.send_message("a", "b", "s1")
        await open_.bus.send_message("a", "b", "s2")
        await settled(lambda: len(got) == 2)
        assert sorted(got) == ["s1", "t1"]
        open_.set_policies('permit (principal, action == Action::"SubscribeTopic", resource);')
        gate.set()
        await settled()
        assert sorted(got) == ["s1", "t1"]
        assert listener.ended is None
        assert [one.code for one in await open_.bus.dead()] == ["policy.denied"]
        with pytest.raises(PolicyDenied):
            await open_.bus.publish("a", "t", "t4")
        assert open_.bus.record.of("t.t").refused == 3


async def test_who_may_listen_no_more_does_not():
    async with bus_over() as open_:
        got = []
        listener = await open_.bus.subscribe("c", "t", collect(got))
        open_.set_policies('permit (principal, action == Action::"PublishMessage", resource);')
        await open_.bus.publish("a", "t", 1)
        await settled()
        assert got == []
        assert isinstance(listener.ended, PolicyDenied)
        assert await open_.bus.publish("a", "t", 2) == 0


async def test_policy_sees_label_size_and_direction():
    policies = """
        permit (principal == Agent::"a", action == Action::"SendMessage", resource == Agent::"b")
        when { context.label.confidentiality == "public" && context.sizeBytes <= 1024 };
    """
    async with bus_over(policies) as open_:
        await open_.bus.send_message("a", "b", "x" * 900)
        for sender, to, body, label in [
            ("b", "a", 1, Label()),
            ("a", "c", 1, Label()),
            ("a", "b", 1, SECRET),
            ("a", "b", "x" * 1100, Label()),
        ]:
            with pytest.raises(PolicyDenied):
                await open_.bus.send_message(sender, to, body, label=label)


async def test_a_flood_of_refused_messages_is_one_decision_a_second():
    async with bus_over(DENY_ALL) as open_:
        for _ in range(100):
            with pytest.raises(PolicyDenied):
                await open_.bus.publish("a", "t", 1)
        denials = [event for event in open_.gate.events() if event.event_type == T.DECISION_DENY]
        assert len(denials) == 1
        assert open_.bus.passages.refusals == 99
        await open_.sleep.advance(1.5)
        with pytest.raises(PolicyDenied):
            await open_.bus.publish("a", "t", 1)
        denials = [event for event in open_.gate.events() if event.event_type == T.DECISION_DENY]
        assert len(denials) == 2
