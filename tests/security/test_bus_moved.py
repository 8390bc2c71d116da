"""What somebody moves in the store of the bus from one topic or mailbox to another is refused there, though it opens."""

import pytest

from symbi.bus.parcels import ConsumerTerms, Parcel
from symbi.bus.secure import SecureMessage
from symbi.testing.open_bus import bus_over, settled

pytestmark = pytest.mark.anyio


async def sql(open_, text, *values):
    """Something on the store itself, as somebody does it who can write its file."""
    return await open_.gate.log.read(lambda: open_.gate.store._db.execute(text, values).fetchall())


async def published(open_, topics):
    """Messages that a stream keeps, and their sealed bytes by topic."""
    await (await open_.bus.subscribe("b", ">", lambda _: None, terms=ConsumerTerms(durable="keeper"))).close()
    for topic in topics:
        await open_.bus.publish("a", topic, f"about {topic}")
    return {
        subject.removeprefix("t."): wire for subject, wire in await sql(open_, "SELECT subject, wire FROM bus_stream")
    }


async def listened(open_, pattern):
    got = []
    await open_.bus.subscribe("c", pattern, got.append, terms=ConsumerTerms(durable="later", start=1))
    await settled()
    return [(message.to, message.body) for message in got]


async def test_a_message_that_was_moved_to_another_topic_is_not_heard_there(tmp_path):
    async with bus_over(folder=tmp_path) as open_:
        await published(open_, ["open.x", "secret.x", "open.y"])
        await sql(open_, "UPDATE bus_stream SET subject = 't.open.z' WHERE subject = 't.secret.x'")
    async with bus_over(folder=tmp_path, keys=open_.keys) as open_:
        assert await listened(open_, "open.>") == [("open.x", "about open.x"), ("open.y", "about open.y")]
        assert open_.bus.record.of("t.open.>").refused == 1


async def test_a_message_that_was_put_in_the_place_of_another_is_not_heard(tmp_path):
    async with bus_over(folder=tmp_path) as open_:
        wires = await published(open_, ["open.x", "secret.x"])
        await sql(open_, "DELETE FROM bus_stream WHERE subject = 't.secret.x'")
        wire, id_ = wires["secret.x"], SecureMessage.from_bytes(wires["secret.x"]).id
        await sql(open_, "UPDATE bus_stream SET wire = ?, message_id = ?", wire, id_)
    async with bus_over(folder=tmp_path, keys=open_.keys) as open_:
        assert await listened(open_, "open.>") == []
        assert open_.bus.record.of("t.open.>").refused == 1


@pytest.mark.parametrize("subject", ["t.open", "a.b", "a.c", "r.b", "c.b", "t.b"])
async def test_a_message_is_taken_where_it_is_addressed_alone(subject):
    """The transport is not believed: what it brings elsewhere is not for whoever listens there."""
    async with bus_over() as open_:
        got = []
        for pattern in ("open", "b"):
            await open_.bus.subscribe("c", pattern, got.append)
        for agent in ("b", "c"):
            await open_.bus.open_mailbox(agent, got.append)
        wires = await published(open_, ["secret"])
        await open_.transport.publish(subject, [Parcel("m", wires["secret"])])
        await settled()
        assert got == []


async def test_a_publication_that_was_put_into_a_mailbox_is_not_received_there():
    async with bus_over() as open_:
        wires = await published(open_, ["secret"])
        await open_.bus.send_message("a", "b", "told")
        wire, id_ = wires["secret"], SecureMessage.from_bytes(wires["secret"]).id
        await sql(open_, "UPDATE bus_outbox SET wire = ?, message_id = ?", wire, id_)
        got = []
        await open_.bus.open_mailbox("b", got.append)
        await settled()
        assert got == []
