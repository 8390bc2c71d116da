"""Keys in memory, from a store: sealed here, opened here; another process takes nothing of it in, and can read what is kept."""

import pytest

from symbi.adapters.sqlite import SqliteStore
from symbi.bus.codec import Codec, Outgoing
from symbi.bus.envelope import Address
from symbi.bus.livekeys import LiveKeys
from symbi.clock import IdSource
from symbi.crypto.provider import open_provider
from symbi.errors import MessageRefused, Overloaded
from symbi.testing.bus_keys import book_on
from symbi.testing.clock import ManualClock
from symbi.types import AgentId

pytestmark = pytest.mark.anyio
A, B = AgentId("a"), AgentId("b")
TO_B, NEWS = Address("b"), Address("news", is_topic=True)
CLOCK = ManualClock()
IDS = IdSource(CLOCK)


class Process:
    """What one process has on a store."""

    def __init__(self, store, owner):
        self.store, self.book = store, book_on(store, owner)
        self.keys = LiveKeys(self.book, self.durably)
        self.codec = Codec(open_provider(), self.keys, self.keys, CLOCK)
        self.commits = 0

    async def durably(self, work):
        with self.store.transaction():
            done, made = work(), self.book.flush()
        self.book.durable(made)
        self.commits += 1
        return done

    def seal(self, to=TO_B, sender=A):
        return self.codec.seal(Outgoing(IDS.new(), sender, to, b"text"))


@pytest.fixture
def store():
    with SqliteStore(None) as opened:
        yield opened


def refusal(work):
    with pytest.raises(MessageRefused) as refused:
        work()
    return refused.value.code


async def test_whoever_is_ready_seals_and_opens_and_nothing_goes_to_the_store(store):
    here = Process(store, 1)
    await here.keys.ready([A, B], ["news"])
    wires = [here.seal(), here.seal(), here.seal(NEWS)]
    assert [here.codec.open(wire, B).sequence for wire in wires] == [1, 2, 1]
    assert [refusal(lambda wire=wire: here.codec.open(wire, B)) for wire in wires] == ["message.replayed"] * 3
    await here.keys.ready([A, AgentId("b/7")], ["news"])
    assert here.commits == 1


async def test_whoever_is_not_ready_is_told_to_come_again(store):
    here = Process(store, 1)
    with pytest.raises(Overloaded, match="no keys"):
        here.seal()
    await here.keys.ready([A])
    for to in (TO_B, NEWS):
        with pytest.raises(Overloaded, match="no keys"):
            here.seal(to)


async def test_nothing_of_before_a_restart_comes_again_and_what_was_kept_is_read(store):
    here = Process(store, 1)
    await here.keys.ready([A, B], ["news"])
    sent, said = here.seal(), here.seal(NEWS)
    store._db.execute(
        "INSERT INTO mailbox (message_id, declared, agent_id, sender, body, due_ns, attempts, epoch) VALUES ('m', 'b', 'b', 'a', x'00', 0, 0, 1)"
    )
    later = Process(store, 2)
    await later.keys.ready([A, B], ["news"])
    for wire in (sent, said):
        assert refusal(lambda wire=wire: later.codec.open(wire, B)) == "message.replayed"
        assert later.codec.read(wire, B).payload == b"text"
    assert later.codec.open(later.seal(), B).flow.epoch > later.codec.read(sent, B).flow.epoch


async def test_who_comes_later_gets_keys_and_an_agent_whose_keys_are_rotated_others(store):
    here = Process(store, 1)
    await here.keys.ready([A])
    await here.keys.ready([B])
    before = here.seal()
    with store.transaction():
        rotated = here.book.rotate(A)
        made = here.book.flush()
    here.book.durable(made)
    await here.keys.renew()
    after = here.seal()
    assert here.codec.open(before, B).payload == here.codec.open(after, B).payload == b"text"
    assert here.codec.read(after, B).flow.key_id == rotated.signing_id


async def test_messages_that_wait_in_the_store_are_counted_apart(store):
    """The same sender and recipient, sealed in the store's transactions and here: no key and sequence twice."""
    here = Process(store, 1)
    await here.keys.ready([A, B])
    kept = Codec(open_provider(), here.book, here.book, CLOCK)
    flows = set()
    for _ in range(3):
        for wire in (here.seal(), kept.seal(Outgoing(IDS.new(), A, TO_B, b"x"))):
            opened = kept.read(wire, B)
            flows.add((opened.flow.epoch, opened.sequence))
    assert len(flows) == 6


async def test_a_topic_that_somebody_has_left_has_another_key(store):
    here = Process(store, 1)
    await here.keys.ready([A, B], ["news"])
    before = here.seal(NEWS)
    await here.keys.rekey("news")
    after = here.seal(NEWS)
    first, second = (here.codec.read(wire, B).flow.epoch for wire in (before, after))
    assert second == first + 1
    assert here.keys.group_key("news", first) != here.keys.group_key("news", second)
