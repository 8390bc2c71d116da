"""Keys of the bus on a store: made once, wrapped, rotated, destroyed; under another master nothing of it is taken."""

from contextlib import suppress
from itertools import product

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from symbi.adapters.sqlite import SqliteStore
from symbi.bus import keybook
from symbi.bus.codec import Codec, Outgoing
from symbi.bus.envelope import Address
from symbi.bus.keys import Block
from symbi.bus.port import StreamRow
from symbi.clock import IdSource
from symbi.crypto.provider import open_provider
from symbi.errors import ConfigError, DecryptionFailed, InternalError, MessageRefused
from symbi.testing.bus_keys import book_on
from symbi.testing.clock import ManualClock
from symbi.types import AgentId

A, B = AgentId("a"), AgentId("b")
TO_B = Address("b")
CLOCK = ManualClock()
IDS = IdSource(CLOCK)


def codec_on(book):
    return Codec(open_provider(), book, book, CLOCK)


def sealed(book, store, *, to=TO_B, sender=A):
    """A message that is durable with its keys."""
    with store.transaction():
        wire = codec_on(book).seal(Outgoing(IDS.new(), sender, to, b"text"))
        made = book.flush()
    book.durable(made)
    return wire


def refusal(work):
    with pytest.raises(MessageRefused) as refused:
        work()
    return refused.value.code


@pytest.fixture
def store():
    with SqliteStore(None) as opened:
        yield opened


@pytest.fixture
def book(store):
    return book_on(store, store.epoch)


def test_the_next_owner_opens_what_the_last_one_sealed_and_has_an_epoch_of_its_own(store, book):
    store._db.execute(
        "INSERT INTO mailbox (message_id, declared, agent_id, sender, body, due_ns, attempts, epoch) VALUES ('m', 'b', 'b', 'a', x'00', 0, 0, 1)"
    )
    wire = sealed(book, store)
    later = book_on(store, store.epoch + 1)
    assert codec_on(later).read(wire, B).payload == b"text"
    other = sealed(later, store)
    first, second = (codec_on(later).read(one, B) for one in (wire, other))
    assert (first.flow.epoch, first.sequence) == (1, 1)
    assert (second.flow.epoch, second.sequence) == (2, 1)
    assert first.flow.key_id == second.flow.key_id
    assert later.pair_key(A, B, 1) != later.pair_key(A, B, 2)


def test_an_owner_that_seals_ends_the_epochs_under_which_nothing_waits(store, book):
    wire = sealed(book, store)
    later = book_on(store, store.epoch + 1)
    sealed(later, store)
    again = book_on(store, store.epoch + 2)
    assert refusal(lambda: codec_on(again).read(wire, B)) == "message.epoch"


UNSEALED = {
    "mailbox": "(message_id, declared, agent_id, sender, body, due_ns, attempts) VALUES ('m', 'b', 'b', 'a', x'00', 0, 0)",
    "dead_letters": "(run_id, kind, agent_id, declared, file, code, attempts, at, state, became) "
    "VALUES ('m', 'message', 'b', 'b', 'f', 'c', 1, '', 'open', '')",
}


@pytest.mark.parametrize("table", UNSEALED)
def test_what_was_sealed_in_no_epoch_keeps_none(store, book, table):
    store._db.execute(f"INSERT INTO {table} {UNSEALED[table]}")
    assert store._db.execute(f"SELECT epoch FROM {table}").fetchall() == [(0,)]
    wire = sealed(book, store)
    later = book_on(store, store.epoch + 1)
    sealed(later, store)
    assert [one.epoch for one in store.epochs()] == [2]
    assert refusal(lambda: codec_on(book_on(store, store.epoch + 2)).read(wire, B)) == "message.epoch"


def test_each_direction_each_instance_and_each_epoch_has_a_key_of_its_own(book):
    epoch = book.epoch
    names = [(A, B), (B, A), (A, AgentId("b/1")), (A, AgentId("b/2"))]
    keys = {book.pair_key(*pair, epoch) for pair in names}
    assert len(keys | {book.pair_key(*pair, book.begin_epoch()) for pair in names}) == 8


def test_what_a_transaction_took_with_it_is_written_again_with_the_next(store, book):
    with suppress(KeyError), store.transaction():
        codec_on(book).seal(Outgoing(IDS.new(), A, TO_B, b"lost"))
        book.flush()
        raise KeyError
    assert list(store.all_agent_keys()) == []
    wire = sealed(book, store)
    assert [one.agent for one in store.all_agent_keys()] == [A, B]
    opened = codec_on(book_on(store, 99)).read(wire, B)
    assert opened.sequence == 2  # that of the lost one is not given out again


class Meanwhile(str):
    """A name that is compared while something else happens, as on another thread."""

    __slots__ = ("happens",)

    def __new__(cls, text, happens):
        self = super().__new__(cls, text)
        self.happens = happens
        return self

    def __eq__(self, other):
        self.happens()
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_keys_become_durable_while_others_are_looked_for(store, book):
    with store.transaction():
        codec_on(book).seal(Outgoing(IDS.new(), A, TO_B, b"text"))
        made = book.flush()
    name = Meanwhile("nobody", lambda: book.durable(made))
    assert book.public_key(name) is None
    book._undurable.update(dict.fromkeys(made))
    assert book._rows(name) == {}


def test_no_private_part_and_no_secret_stands_readable(store, book):
    written = []
    book = book_on(
        store, store.epoch, random=lambda size: written.append(bytes([len(written) + 65]) * size) or written[-1]
    )
    sealed(book, store)
    kept = [
        cell
        for table in ("bus_agents", "bus_epochs")
        for row in store._db.execute(f"SELECT * FROM {table}")
        for cell in row
    ]
    assert len(written) > 4
    for secret in (one for one in written if len(one) == 32):
        assert all(secret not in cell for cell in kept if isinstance(cell, bytes))


def test_after_a_rotation_others_keys_seal_and_what_was_sealed_before_opens(store, book):
    before = sealed(book, store)
    with store.transaction():
        rotated = book.rotate(A)
        book.flush()
    after = sealed(book, store)
    first, second = (codec_on(book).read(one, B) for one in (before, after))
    assert rotated.generation == 2
    assert second.flow.key_id == rotated.signing_id != first.flow.key_id
    assert second.flow.epoch == first.flow.epoch + 1
    with store.transaction():
        assert book.forget(A, 1) == 1
    assert codec_on(book).read(before, B).payload == b"text"  # b has what it takes
    assert codec_on(book).read(after, B).payload == b"text"


def test_a_rotation_that_is_undone_leaves_nothing_that_another_transaction_writes(store, book):
    """For the event of it is undone as well: the trail would not know of the keys that are in use."""
    before = sealed(book, store)
    with suppress(ZeroDivisionError), store.transaction():
        rotated = book.rotate(A)
        book.flush()
        raise ZeroDivisionError
    after = sealed(book, store)
    assert [one.generation for one in store.agent_keys(A)] == [1]
    first, second = (codec_on(book_on(store, 99)).read(one, B) for one in (before, after))
    assert second.flow.key_id == first.flow.key_id != rotated.signing_id
    assert book.public_key(rotated.signing_id) is None
    with store.transaction():
        again = book.rotate(A)
        book.durable(book.flush())
    assert (again.generation, book._rotated) == (2, set())
    assert codec_on(book_on(store, 99)).read(sealed(book, store), B).flow.key_id == again.signing_id


def test_what_was_sent_to_an_agent_whose_keys_were_destroyed_opens_no_more(store, book):
    wire, back = sealed(book, store), sealed(book, store, to=Address("a"), sender=B)
    with store.transaction():
        assert book.forget(B) == 1
        assert book.forget(B) == 0
    for one in (book, book_on(store, 99)):
        assert refusal(lambda one=one: codec_on(one).read(wire, B)) == "message.epoch"
        assert codec_on(one).read(back, A).payload == b"text"
    assert [(one.generation, one.wrapped) for one in store.agent_keys(B)] == [(1, None)]


def test_under_another_master_nothing_opens_and_nothing_is_made(store, book):
    wire = sealed(book, store)
    other = book_on(store, 99, master=bytes(32))
    with pytest.raises(ConfigError, match="not the one that wrapped"):
        codec_on(other).read(wire, B)
    with pytest.raises(ConfigError, match="not the one that wrapped"):
        codec_on(other).seal(Outgoing(IDS.new(), A, TO_B, b"text"))
    with pytest.raises(ConfigError, match="not the one that wrapped"):
        book_on(store, 99, master=bytes(32)).group_key("t", 1)


@pytest.mark.parametrize("rows", ["bus_agents", "bus_epochs", "bus_groups"])
def test_what_was_sealed_under_a_key_that_was_altered_is_refused(store, book, rows):
    wire = sealed(book, store)
    with store.transaction():
        epoch = book.group_epoch("t")
        book.durable(book.flush())
    text = f"UPDATE {rows} SET wrapped = zeroblob(length(wrapped))"
    assert store._db.execute(text + (" WHERE agent = 'b'" if rows == "bus_agents" else "")).rowcount == 1
    later = book_on(store, 99)
    work = (lambda: later.group_key("t", epoch)) if rows == "bus_groups" else (lambda: codec_on(later).read(wire, B))
    assert refusal(work) == "message.epoch"
    assert sealed(later, store, to=Address("d"), sender=AgentId("c"))  # others have keys as before


@pytest.mark.parametrize("column", ["wrapped", "signing", "agreement"])
def test_keys_that_were_exchanged_in_the_store_do_not_pass(store, book, column):
    wire = sealed(book, store)
    sealed(book, store, sender=AgentId("c"))
    store._db.execute(
        f"UPDATE bus_agents SET {column} = (SELECT {column} FROM bus_agents WHERE agent = 'c') WHERE agent = 'b'"
    )
    store._db.execute(
        f"UPDATE bus_agents SET {column} = (SELECT {column} FROM bus_agents WHERE agent = 'c') WHERE agent = 'a'"
    )
    with pytest.raises((MessageRefused, DecryptionFailed)):
        codec_on(book_on(store, 99)).read(wire, B)


def test_a_topic_has_a_key_for_each_owner_and_a_new_one_when_a_member_leaves(store, book):
    with store.transaction():
        assert book.reserve(A, Address("news", is_topic=True), 2) == Block(1, 1)
        assert book.reserve(A, Address("news", is_topic=True), 1) == Block(1, 3)
        assert book.group_epoch("news", anew=True) == 2
        assert book.reserve(A, Address("news", is_topic=True), 1) == Block(2, 1)
        book.flush()
    later = book_on(store, 99)
    assert later.group_key("news", 2) == book.group_key("news", 2) != book.group_key("news", 1)
    with store.transaction():
        assert later.group_epoch("news") == 3
        assert later.end_groups("news", 2) == 0  # nothing is kept under it, and another has begun
    assert refusal(lambda: later.group_key("news", 1)) == "message.epoch"
    assert refusal(lambda: book_on(store, 99).group_key("other", 1)) == "message.epoch"


def test_a_sequence_comes_once_also_after_a_restart(store, book):
    wire = sealed(book, store)
    with store.transaction():
        codec_on(book).open(wire, B)
    for one in (book, book_on(store, 99)):
        assert refusal(lambda one=one: codec_on(one).open(wire, B)) == "message.replayed"


def test_a_beginning_that_is_undone_has_taken_nothing_in(store, book):
    wire = sealed(book, store)
    with suppress(KeyError), store.transaction():
        codec_on(book).open(wire, B)
        raise KeyError
    with store.transaction():
        assert codec_on(book).open(wire, B).payload == b"text"


def test_no_sequence_comes_twice_with_a_key_whatever_ends_an_epoch(store, book, monkeypatch):
    """Epochs of agents and of topics end apart from each other: by rotation, destruction, members that leave, and counters that are full."""
    monkeypatch.setattr(keybook, "MAX_COUNTED", 5)
    used = set()
    news, more = Address("news", is_topic=True), Address("more", is_topic=True)

    def count(sender, address):
        epoch, first = book.reserve(sender, address, 2)
        key = book.group_key(address.name, epoch) if address.is_topic else book.pair_key(sender, B, epoch)
        fresh = {(key, sender, address, first), (key, sender, address, first + 1)}
        assert not used & fresh
        used.update(fresh)

    def all_count():
        for sender, address in product((A, AgentId("c"), AgentId("d")), (TO_B, news, more)):
            count(sender, address)

    with store.transaction():
        book.flush()
        for change in (
            book.begin_epoch,
            lambda: book.rotate(A),
            lambda: book.group_epoch("news", anew=True),
            lambda: book.forget(AgentId("d")),
            lambda: book.end_groups("news", book.group_epoch("news")),
            book.begin_epoch,
        ):
            all_count()
            all_count()
            change()
            count(A, news)
        book.flush()
    assert len(used) == 2 * (6 * 18 + 6)


def test_a_topics_key_that_was_destroyed_is_not_written_again(store, book):
    with store.transaction():
        for _ in range(3):
            book.group_epoch("news", anew=True)
        assert book.end_groups("news", 3) == 2
        made = book.flush()
    book.durable(made)
    assert [one.epoch for one in store.groups("news")] == [3]
    with store.transaction():
        assert book.end_groups("news", 3) == 0
        book.flush()
    assert [one.epoch for one in store.groups("news")] == [3]


NEWS = Address("news", is_topic=True)


def publish(book, store, position=0):
    """A message to a topic, durable with its keys; kept at a position of the stream, if there is one."""
    wire = sealed(book, store, to=NEWS)
    if position:
        with store.transaction():
            store.append_stream([StreamRow(position, "t.news", str(position), wire)])
    return wire


def leave(book, store):
    """A member leaves and somebody publishes."""
    with store.transaction():
        book.group_epoch("news", anew=True)
        made = book.flush()
    book.durable(made)


def test_keys_of_a_topic_are_ended_over_many_joins_and_leaves(store, monkeypatch):
    clock = ManualClock()
    book = book_on(store, store.epoch, clock=clock)
    looked = []
    needed = store.needed_groups
    monkeypatch.setattr(store, "needed_groups", lambda: looked.append(1) or needed())
    most = 0
    for _ in range(1000):
        clock.advance(60.0)
        leave(book, store)
        most = max(most, len(store.groups("news")))
    assert most <= keybook.MAX_GROUPS + 1
    assert len(looked) <= 1000 / (keybook.MAX_GROUPS / 2)
    assert book.group_epoch("news") == 1000
    assert len(book._groups) <= keybook.MAX_GROUPS + 1


def test_a_key_of_a_topic_lasts_as_long_as_a_message_is_kept_under_it(store):
    clock = ManualClock()
    book = book_on(store, store.epoch, clock=clock)
    leave(book, store)
    wire = publish(book, store, position=1)
    for _ in range(500):
        clock.advance(60.0)
        leave(book, store)
    assert codec_on(book_on(store, 99)).read(wire, B).payload == b"text"
    assert len(store.groups("news")) > 500
    with store.transaction():
        store.trim_stream(1)
    for _ in range(600):
        clock.advance(60.0)
        leave(book, store)
    assert len(store.groups("news")) < 600
    assert refusal(lambda: codec_on(book_on(store, 99)).read(wire, B)) == "message.epoch"


def test_a_key_of_a_topic_lasts_while_a_message_may_be_on_its_way_to_be_kept(store):
    clock = ManualClock()
    book = book_on(store, store.epoch, clock=clock)
    wire = publish(book, store)
    for _ in range(500):
        clock.advance(1.0)
        leave(book, store)
    assert codec_on(book_on(store, 99)).read(wire, B).payload == b"text"


def test_the_next_owner_ends_what_nothing_is_kept_under_of_every_topic_and_gives_no_number_twice(store, book):
    for _ in range(5):
        leave(book, store)
    wire = publish(book, store, position=1)
    with store.transaction():
        for _ in range(3):
            book.group_epoch("old", anew=True)
            book.group_epoch("news", anew=True)
        book.flush()
    later = book_on(store, store.epoch + 1)
    with store.transaction():
        assert later.group_epoch("more") == 1
        later.flush()
    assert [one.epoch for one in store.groups("old")] == [3]
    assert [one.epoch for one in store.groups("news")] == [5, 6, 7, 8]
    assert later.group_epoch("old") == 4
    assert codec_on(later).read(wire, B).payload == b"text"


def test_nothing_has_come_to_whoever_is_not_addressed_and_topics_cannot_be_asked_about(store, book):
    with store.transaction():
        assert book.admit(AgentId("c"), A, TO_B, 1, [1, 2]) == [False, False]
        assert book.admit(B, A, TO_B, 1, [1, 1]) == [True, False]
        for ask in (lambda: book.admit(B, A, NEWS, 1, [1]), lambda: book.has_come(A, NEWS, 1, 1)):
            with pytest.raises(InternalError):
                ask()
        same_name = Address("b", is_topic=True)
        with pytest.raises(InternalError):
            book.admit(B, A, same_name, 1, [2])
        assert not book.has_come(A, TO_B, 1, 2)


def test_a_generation_has_a_number_of_its_own_though_older_ones_were_destroyed(store, book):
    """Keys that take the number of others are never written: what they seal opens no more once the process is gone."""
    sealed(book, store)
    for generation in (2, 3):
        with store.transaction():
            assert book.rotate(A).generation == generation
            book.flush()
            assert book.forget(A, generation - 1) == 1
    wire = sealed(book, store)
    opened = codec_on(book_on(store, 99)).read(wire, B)
    assert opened.flow.key_id == book.signing_key(A).key_id


def test_a_destruction_that_is_undone_destroys_nothing_that_was_not_durable_yet(store, book):
    with suppress(KeyError), store.transaction():
        first = codec_on(book).seal(Outgoing(IDS.new(), A, TO_B, b"text"))
        book.forget(B)
        raise KeyError
    second = sealed(book, store)
    assert [(one.agent, one.generation) for one in store.all_agent_keys()] == [(A, 1), (B, 1)]
    later = book_on(store, 99)
    assert {codec_on(later).read(wire, B).payload for wire in (first, second)} == {b"text"}


def test_no_sequence_of_a_topic_comes_twice_when_an_epoch_of_agents_begins(book):
    """The key of a topic goes on when agents have new ones: so do its sequences."""
    to_topic = Address("news", is_topic=True)
    given = []
    for change in (lambda: None, book.begin_epoch, lambda: book.rotate(A), lambda: book.group_epoch("news", anew=True)):
        change()
        for address in (to_topic, TO_B):
            block = book.reserve(A, address, 3)
            given += [(address, block.epoch, block.first + number) for number in range(3)]
    assert len(set(given)) == len(given)


def test_the_key_of_a_pair_is_derived_as_the_format_says(store):
    """By `cryptography` alone, from what was drawn at random: signing and agreement of each agent, and the secret of the epoch."""
    drawn = []
    book = book_on(store, store.epoch, random=lambda size: drawn.append(bytes([len(drawn) + 65]) * size) or drawn[-1])
    with store.transaction():
        epoch, _ = book.reserve(A, TO_B, 1)
        key = book.pair_key(A, B, epoch)
    secret, _, mine, _, theirs = (one for one in drawn if len(one) == 32)
    mine, theirs = (X25519PrivateKey.from_private_bytes(one) for one in (mine, theirs))
    shared = HKDF(hashes.SHA256(), 32, salt=secret, info=b"symbi/bus/epoch/1").derive(
        mine.exchange(theirs.public_key())
    )
    publics = mine.public_key().public_bytes_raw() + theirs.public_key().public_bytes_raw()
    info = b"symbi/bus/pair/1\0\0\1a\0\1b" + epoch.to_bytes(4) + publics
    assert key == HKDF(hashes.SHA256(), 32, salt=None, info=info).derive(shared)
