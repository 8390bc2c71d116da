"""Keys on the event loop: of whoever left and of what was changed nothing is used again, whenever it comes in between."""

import pytest

from symbi.adapters.sqlite import SqliteStore
from symbi.bus import at_hand
from symbi.bus.at_hand import KeysAtHand
from symbi.bus.codec import Codec, Outgoing
from symbi.bus.envelope import Address
from symbi.clock import IdSource
from symbi.crypto.provider import open_provider
from symbi.errors import MessageRefused, Overloaded
from symbi.testing.bus_keys import book_on
from symbi.testing.clock import ManualClock
from symbi.types import AgentId

pytestmark = pytest.mark.anyio
A, B = AgentId("a"), AgentId("b")
TO_B, NEWS = Address("b"), Address("news.now", is_topic=True)


class Desk:
    """Keys at hand, and what happens after the store's thread has done its work and before its answer is there."""

    def __init__(self, store):
        self.store = store
        self.book = book_on(store, store.epoch)
        self.keys = KeysAtHand(self.book, self.transact)
        self.between = []
        self.busy = 0

    async def transact(self, work):
        if self.busy:
            self.busy -= 1
            raise Overloaded("busy", retry_after_s=1.0)
        with self.store.transaction():
            done, _ = work()
            made = self.book.flush()
        self.book.durable(made)
        if self.between:
            self.between.pop(0)()
        return done

    def rotate(self, agent):
        with self.store.transaction():
            self.book.rotate(agent)
            self.book.flush()
        self.keys.changed(agent, destroyed=False)


@pytest.fixture
def desk():
    with SqliteStore(None) as store:
        yield Desk(store)


async def test_a_topic_has_another_key_after_somebody_left(desk):
    await desk.keys.ready(A, NEWS, 3)
    assert desk.keys.reserve(A, NEWS, 3) == (1, 1)
    desk.keys.left("other.>")
    await desk.keys.ready(A, NEWS, 1)
    assert desk.keys.reserve(A, NEWS, 1) == (1, 4)
    desk.keys.left("news.*")
    with pytest.raises(Overloaded):
        desk.keys.reserve(A, NEWS, 1)
    await desk.keys.ready(A, NEWS, 1)
    assert desk.keys.reserve(A, NEWS, 1) == (2, 1)
    assert desk.keys.group_key(NEWS.name, 1) != desk.keys.group_key(NEWS.name, 2)


async def test_who_leaves_while_a_key_is_fetched_does_not_have_the_one_that_is_used(desk):
    desk.between = [lambda: desk.keys.left("news.*")] * 2
    await desk.keys.ready(A, NEWS, 1)
    assert desk.keys.reserve(A, NEWS, 1).epoch == 3


async def test_that_somebody_left_is_not_forgotten_where_the_store_fails(desk):
    await desk.keys.ready(A, NEWS, 1)
    desk.keys.left("news.*")
    desk.busy = 1
    with pytest.raises(Overloaded):
        await desk.keys.ready(A, NEWS, 1)
    await desk.keys.ready(A, NEWS, 1)
    assert desk.keys.reserve(A, NEWS, 1).epoch == 2


async def test_each_sender_of_a_topic_has_another_key_after_somebody_left(desk):
    for sender in (A, B):
        await desk.keys.ready(sender, NEWS, 1)
    desk.keys.left(">")
    for sender in (A, B):
        await desk.keys.ready(sender, NEWS, 1)
        assert desk.keys.reserve(sender, NEWS, 1).epoch == 2


async def test_keys_that_are_changed_while_they_are_fetched_are_not_used(desk):
    desk.between = [lambda: desk.rotate(A)]
    await desk.keys.ready(A, TO_B, 1)
    assert desk.keys.signing_key(A).key_id == desk.book.signing_key(A).key_id
    assert desk.keys.reserve(A, TO_B, 1).epoch == 2


async def test_a_topic_of_the_name_of_an_agent_is_another_address(desk):
    await desk.keys.ready(A, Address("b", is_topic=True), 1)
    await desk.keys.ready(A, TO_B, 2)
    desk.keys.left("b")
    assert desk.keys.reserve(A, TO_B, 2).first == 1


async def test_what_is_at_hand_is_bounded_and_no_window_goes_before_its_key(desk, monkeypatch):
    """Epoch after epoch, of agents and of a topic: what is let go is not opened and not taken, and nothing comes twice."""
    monkeypatch.setattr(at_hand, "MAX_AT_HAND", 12)
    desk.keys = KeysAtHand(desk.book, desk.transact)
    clock = ManualClock()
    codec = Codec(open_provider(), desk.keys, desk.keys, clock)
    ids = IdSource(clock)
    wires = []
    for _ in range(40):
        for address in (TO_B, NEWS):
            await desk.keys.ready(A, address, 1)
            wires.append(codec.seal(Outgoing(ids.new(), A, address, b"text")))
            assert codec.open(wires[-1], B).payload == b"text"
        desk.rotate(A)
        desk.keys.left("news.*")
        refused = codec.open_many(wires, B)
        assert {one.code for one in refused} <= {"message.epoch", "message.replayed", "message.signature"}
        assert len(desk.keys._pairs) + len(desk.keys._groups) + len(desk.keys._come) <= 2 * 12
    assert {one.code for one in codec.open_many(wires[:8], B)} == {"message.epoch"}


async def test_what_comes_under_a_key_that_is_not_at_hand_is_not_taken(desk):
    assert desk.keys.admit(B, A, TO_B, 1, [1]) == [False]
    assert desk.keys.admit(B, A, NEWS, 1, [1]) == [False]
    await desk.keys.ready(A, TO_B, 1)
    await desk.keys.ready(A, NEWS, 1)
    assert desk.keys.admit(B, A, TO_B, 1, [1, 1]) == [True, False]
    assert desk.keys.admit(B, A, NEWS, 1, [1, 1]) == [True, False]
    assert desk.keys.admit(B, A, TO_B, 2, [1]) == [False]


async def test_whoever_remembers_a_key_is_told_that_it_was_let_go(desk, monkeypatch):
    monkeypatch.setattr(at_hand, "MAX_AT_HAND", 3)
    desk.keys = KeysAtHand(desk.book, desk.transact)
    clock = ManualClock()
    codec = Codec(open_provider(), desk.keys, desk.keys, clock)
    await desk.keys.ready(A, NEWS, 1)
    wire = codec.seal(Outgoing(IdSource(clock).new(), A, NEWS, b"text"))
    assert codec.read(wire, B).payload == b"text"
    for _ in range(4):
        desk.keys.left("news.*")
        await desk.keys.ready(A, NEWS, 1)
    with pytest.raises(MessageRefused) as refused:
        codec.read(wire, B)
    assert refused.value.code == "message.epoch"
