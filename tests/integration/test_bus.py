"""The bus over a real gate, trail and store: each pattern, what stops it, and what is left of it."""

import anyio
import pytest

from symbi.audit.event import AuditEventType as T
from symbi.bus.outbox import WithReceipt
from symbi.bus.parcels import ConsumerTerms, Overflow, Parcel
from symbi.bus.receiving import RetryTerms
from symbi.bus.rooms import BusTerms
from symbi.errors import (
    InputError,
    MessageRefused,
    Overloaded,
)
from symbi.testing.open_bus import bus_over, collect, settled
from symbi.types import Confidentiality, Integrity, Label

pytestmark = pytest.mark.anyio

SECRET = Label(Integrity.UNTRUSTED, Confidentiality.SECRET, ("file",), ("health",))
FEW = BusTerms(retry=RetryTerms(attempts=3, first_s=1.0, most_s=10.0))


def kinds(open_):
    return [event.event_type for event in open_.gate.events()]


# --- topics -------------------------------------------------------------------------------------


async def test_a_publication_reaches_each_who_listens_once_and_in_order():
    async with bus_over() as open_:
        one, two, other = [], [], []
        await open_.bus.subscribe("b", "news.>", collect(one))
        await open_.bus.subscribe("c", "news.*.eu", collect(two))
        await open_.bus.subscribe("d", "olds.>", collect(other))
        assert await open_.bus.publish_many("a", "news.x.eu", list(range(1000))) == 2
        assert await open_.bus.publish("a", "news.x.eu", 1000) == 2
        await settled(lambda: len(one) == len(two) == 1001)
        assert one == two == list(range(1001))
        assert other == []


async def test_what_is_published_at_once_is_signed_once():
    calls = []

    def watched(codec):
        seal = codec.seal_many
        codec.seal_many = lambda messages: calls.append(len(messages)) or seal(messages)
        return codec

    async with bus_over(codec=watched) as open_:
        got = []
        await open_.bus.subscribe("b", "t", collect(got))
        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(open_.bus.publish, "a", "t", number)
        await settled(lambda: len(got) == 100)
        assert got == list(range(100))
        assert calls == [100]


async def test_labels_and_bytes_arrive_as_they_were():
    async with bus_over() as open_:
        got = []
        await open_.bus.subscribe("b", "t", got.append, bytes)
        await open_.bus.publish("a", "t", bytes(range(256)), label=SECRET)
        await settled(lambda: got)
        assert (got[0].body, got[0].label, got[0].sender, got[0].to) == (bytes(range(256)), SECRET, "a", "t")


async def test_a_body_of_another_type_is_refused_and_what_comes_behind_it_is_not():
    async with bus_over() as open_:
        got = []
        await open_.bus.subscribe("b", "t", collect(got), dict[str, int])
        await open_.bus.publish_many("a", "t", [{"x": 1}, {"x": "secret words"}, {"x": 2}])
        await settled(lambda: len(got) == 2)
        assert got == [{"x": 1}, {"x": 2}]
        assert open_.bus.record.of("t.t").refused == 1


async def test_a_slow_subscriber_slows_nobody_and_drops_as_declared():
    async with bus_over() as open_:
        gate, slow, quick = anyio.Event(), [], []

        async def waits(message):
            slow.append(message.body)
            await gate.wait()

        held = await open_.bus.subscribe("b", "t", waits, terms=ConsumerTerms(most=10, overflow=Overflow.OLDEST))
        await open_.bus.subscribe("c", "t", collect(quick))
        for number in range(100):
            await open_.bus.publish("a", "t", number)
        await settled(lambda: len(quick) == 100)
        assert quick == list(range(100))
        assert held.standing() == (10, 89)
        gate.set()
        await settled(lambda: len(slow) == 11)
        assert slow == [0, *range(90, 100)]


async def test_who_refuses_is_heard_by_the_sender_and_nobody_gets_it():
    async with bus_over() as open_:
        gate, quick = anyio.Event(), []

        async def waits(_message):
            await gate.wait()

        await open_.bus.subscribe("b", "t", waits, terms=ConsumerTerms(most=2, overflow=Overflow.REFUSE))
        await open_.bus.subscribe("c", "t", collect(quick))
        await open_.bus.publish("a", "t", 0)
        await settled(lambda: quick == [0])
        await open_.bus.publish_many("a", "t", [1, 2])
        with pytest.raises(Overloaded):
            await open_.bus.publish("a", "t", 3)
        await settled(lambda: len(quick) == 3)
        assert quick == [0, 1, 2]
        gate.set()


async def test_a_handler_that_fails_stops_nothing():
    async with bus_over() as open_:
        got = []

        def fails(message):
            if message.body == 1:
                msg = "no"
                raise ValueError(msg)
            got.append(message.body)

        await open_.bus.subscribe("b", "t", fails)
        await open_.bus.publish_many("a", "t", [0, 1, 2])
        await settled(lambda: len(got) == 2)
        assert got == [0, 2]
        assert open_.bus.record.of("t.t").failed == 1


async def test_a_durable_subscription_goes_on_after_a_restart_and_from_a_position(tmp_path):
    got = []
    async with bus_over(folder=tmp_path) as open_:
        keys = open_.keys
        subscription = await open_.bus.subscribe("b", "t.>", got.append, terms=ConsumerTerms(durable="mine"))
        await open_.bus.publish_many("a", "t.x", [1, 2])
        await settled(lambda: len(got) == 2)
        await subscription.close()
        await open_.bus.publish_many("a", "t.y", [3, 4])
    async with bus_over(folder=tmp_path, keys=keys) as open_:
        await open_.bus.subscribe("b", "t.>", got.append, terms=ConsumerTerms(durable="mine"))
        await settled(lambda: len(got) == 4)
        assert [message.body for message in got] == [1, 2, 3, 4]


async def test_a_durable_subscription_gets_again_what_its_handler_failed_at():
    async with bus_over(terms=FEW) as open_:
        tried = []

        def fails(message):
            tried.append((message.body, message.attempt))
            if message.body == 1:
                msg = "no"
                raise ValueError(msg)

        await open_.bus.subscribe("b", "t", fails, terms=ConsumerTerms(durable="d"))
        await open_.bus.publish_many("a", "t", [1, 2])
        await settled(lambda: len(tried) == 2)
        for _ in range(10):
            await open_.sleep.advance(20)
        assert tried == [(1, 1), (2, 1), (1, 2), (1, 3)]


# --- send_message -------------------------------------------------------------------------------


async def test_what_is_sent_arrives_in_order_also_when_the_mailbox_is_opened_later():
    async with bus_over() as open_:
        for number in range(300):
            await open_.bus.send_message("a" if number % 2 else "c", "b", number)
        got = []
        await open_.bus.open_mailbox("b", collect(got))
        await settled(lambda: len(got) == 300)
        await open_.bus.send_message("a", "b", 300)
        await settled(lambda: len(got) == 301)
        assert got == list(range(301))


async def test_the_same_id_is_the_same_message():
    async with bus_over() as open_:
        got, name = [], open_.gate.ids.new()
        await open_.bus.open_mailbox("b", collect(got))
        first = await open_.bus.send_message("a", "b", "x", message_id=name)
        await settled(lambda: got)
        again = await open_.bus.send_message("a", "b", "x", message_id=name)
        await settled()
        assert (first.again, again.again, got) == (False, True, ["x"])
        with pytest.raises(InputError, match="another message"):
            await open_.bus.send_message("a", "c", "x", message_id=name)


async def test_a_failing_handler_is_tried_again_and_holds_up_its_sender_alone():
    async with bus_over(terms=FEW) as open_:
        tried = []

        def handler(message):
            tried.append((message.sender, message.body, message.attempt))
            if message.body == "bad" and message.attempt < 3:
                msg = "no"
                raise ValueError(msg)

        for sender, body in [("a", "bad"), ("a", "next"), ("c", "other")]:
            await open_.bus.send_message(sender, "b", body)
        await open_.bus.open_mailbox("b", handler)
        await settled(lambda: len(tried) == 2)
        assert tried == [("a", "bad", 1), ("c", "other", 1)]
        await open_.sleep.advance(1.1)
        assert tried[2:] == [("a", "bad", 2)]
        await open_.sleep.advance(2.1)
        await settled(lambda: len(tried) == 5)
        assert tried[3:] == [("a", "bad", 3), ("a", "next", 1)]


async def test_what_fails_too_often_or_is_too_late_is_a_dead_letter_that_can_be_replayed():
    async with bus_over(terms=FEW) as open_:
        good, got = [], []

        def handler(message):
            if message.body == "bad" and not good:
                msg = "no"
                raise ValueError(msg)
            got.append(message.body)

        bad = await open_.bus.send_message("a", "b", "bad")
        late = await open_.bus.send_message("c", "b", "late", ttl_s=5)
        await open_.sleep.advance(6)
        await open_.bus.open_mailbox("b", handler)
        while len(await open_.bus.dead()) < 2:
            await open_.sleep.advance(20)
        dead = {one.message_id: one for one in await open_.bus.dead()}
        assert {name: one.code for name, one in dead.items()} == {
            bad.message_id: "message.handler",
            late.message_id: "message.expired",
        }
        assert dead[bad.message_id].attempts == 3
        assert kinds(open_).count(T.LETTER_PUT) == 2
        good.append(True)
        await open_.bus.replay(bad.message_id, "jane")
        await settled(lambda: got)
        assert got == ["bad"]
        with pytest.raises(InputError, match="over"):
            await open_.bus.replay(late.message_id, "jane")
        await open_.bus.outbox.drop(late.message_id, "jane")
        assert await open_.bus.dead() == []
        with pytest.raises(InputError, match="no dead message"):
            await open_.bus.outbox.drop(late.message_id, "jane")


async def test_a_full_outbox_is_an_error_of_the_sender():
    async with bus_over(terms=BusTerms(mailbox=3)) as open_:
        for number in range(3):
            await open_.bus.send_message("a", "b", number)
        with pytest.raises(Overloaded) as full:
            await open_.bus.send_message("a", "b", 3)
        assert full.value.code == "message.mailbox_full"
        await open_.bus.send_message("a", "c", 3)


async def test_receipt_and_the_receivers_own_work_are_one_transaction():
    async with bus_over(terms=FEW) as open_:
        store, tried = open_.gate.store, []

        def handler(message):
            tried.append(message.attempt)

            def work():
                store._write("INSERT INTO meta VALUES (?, ?)", (f"x{message.attempt}", str(message.body)))
                if message.attempt == 1:
                    msg = "no"
                    raise ValueError(msg)

            return WithReceipt(work)

        sent = await open_.bus.send_message("a", "b", 7)
        await open_.bus.open_mailbox("b", handler)
        await settled(lambda: tried)
        await settled()
        await open_.sleep.advance(2)
        await settled(lambda: len(tried) == 2)
        await settled()
        rows = await open_.gate.log.read(lambda: store._all("SELECT key, value FROM meta WHERE key LIKE 'x%'"))
        assert rows == [("x2", "7")]
        assert (await open_.bus.outbox.find(sent.message_id)).state == "received"


async def test_what_is_about_a_data_subject_is_not_kept():
    async with bus_over() as open_:
        with pytest.raises(InputError, match="data subject"):
            await open_.bus.send_message("a", "b", "x", label=Label(subjects=("jane",)))


async def listening(open_, got):
    await open_.bus.open_mailbox("b", lambda message: got.append(message.body) or "ok", groups=["team"])
    await open_.bus.subscribe("c", "t", lambda message: got.append(message.body))


# --- what is left of it ---------------------------------------------------------------------------


async def test_the_trail_has_grants_counts_and_digests_and_no_payload():
    async with bus_over() as open_:
        got = []
        await open_.bus.subscribe("b", "t", collect(got))
        for first in range(0, 1000, 100):
            await open_.bus.publish_many("a", "t", [f"payload-{number}" for number in range(first, first + 100)])
        await open_.bus.tend()
        before = len(open_.gate.events())
        assert before < 20
        window = next(event for event in open_.gate.events() if event.event_type == T.BUS_WINDOW)
        assert (window.details["messages"], window.details["groups"], window.details["signing"]) == (1000, 10, "batch")
        await open_.bus.passages.close()
        closed = next(event for event in open_.gate.events() if event.event_type == T.LEASE_CLOSED)
        assert closed.details["uses"] == 1000
        assert not any(b"payload-" in stored.record for stored in open_.gate.store.read(1))


async def test_no_byte_of_a_payload_is_in_the_files(tmp_path):
    marker = "here-is-the-payload-of-the-message"
    async with bus_over(folder=tmp_path, terms=FEW) as open_:

        def fails(_message):
            msg = "no"
            raise ValueError(msg)

        await open_.bus.subscribe("c", "t.>", fails, terms=ConsumerTerms(durable="d"))
        await open_.bus.publish("a", "t.x", {"said": marker}, label=SECRET)
        await open_.bus.send_message("a", "b", {"said": marker}, label=SECRET)
        await open_.bus.send_message("a", "d", {"said": marker})
        await open_.bus.open_mailbox("b", fails)
        while not await open_.bus.dead():
            await open_.sleep.advance(20)
        assert [row.message_id for row in await open_.gate.log.read(lambda: open_.gate.store.stream_rows(0, 9))]
        seen = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
        assert marker.encode() not in seen
        assert b"t.x" in seen, "what was searched is not what was written"


@pytest.mark.parametrize(
    ("body", "code"),
    [({1, 2}, None), (object(), "message.body"), (float("nan"), None), ("x" * 300_000, "message.size")],
    ids=["set", "object", "nan", "large"],
)
async def test_bad_bodies_are_named_errors(body, code):
    async with bus_over() as open_:
        if code is None:
            await open_.bus.publish("a", "t", body)
            return
        with pytest.raises((InputError, MessageRefused)) as refused:
            await open_.bus.publish("a", "t", body)
        assert refused.value.code == code
        assert "xxx" not in str(refused.value)


async def test_bytes_that_are_no_message_are_refused_and_counted():
    async with bus_over() as open_:
        got = []
        await open_.bus.subscribe("b", "t", collect(got))
        await open_.transport.publish("t.t", [Parcel("m", b"nonsense"), Parcel("n", b"")])
        await open_.bus.publish("a", "t", 1)
        await settled(lambda: got)
        assert got == [1]
        assert open_.bus.record.of("t.t").refused == 2


async def test_statistics_and_tail_name_what_passed():
    async with bus_over() as open_:
        got = []
        await listening(open_, got)
        await open_.bus.publish_many("a", "t", [1, 2, 3])
        await open_.bus.send_message("a", "b", 4)
        await open_.bus.request("a", "b", 5, timeout_s=5)
        await settled(lambda: len(got) == 5)
        await settled()
        stats = open_.bus.stats()
        assert stats["topics"]["t"]["messages"] == stats["topics"]["t"]["received"] == 3
        assert stats["mailboxes"]["b"]["received"] == 2
        assert stats["buffers"]["b"] == {"waiting": 0, "dropped": 0}
        rows = [(one.pattern, one.sender, one.target, one.messages) for one in open_.bus.tail(0, 100)]
        assert rows == [
            ("publish", "a", "t", 3),
            ("send", "a", "b", 1),
            ("request", "a", "b", 1),
            ("answer", "b", "a", 1),
        ]
        last = open_.bus.tail(0, 100)[-1].number
        assert open_.bus.tail(last, 100) == []
