"""Messages that were altered, moved, repeated or made up: every one is refused, and the true ones still open, once.

`FORGERY_TESTS=full` runs more than a hundred thousand of them; `make test-forgery` sets it.
"""

import os
import random
from itertools import pairwise, permutations, product

import pytest

from symbi.bus import envelope
from symbi.bus.codec import Codec, Opened
from symbi.bus.envelope import Address, depth_of, encode_flow, parse_flow, parse_message, place
from symbi.bus.signing import leaf_of, sign_batch, sign_one
from symbi.crypto.provider import open_provider
from symbi.errors import MessageRefused
from symbi.testing.bus import OLD_EPOCH_NS, Correspondence, MemoryKeys, counted_random

FULL = os.environ.get("FORGERY_TESTS") == "full"
TRACES = [f"00-{number:032x}-{number:016x}-01" for number in (1, 2)]
ORDER = 2**252 + 27742317777372353535851937790883648493
CODES = {"malformed", "version", "signature", "sealed", "recipient", "size", "epoch", "expired"}
PAYLOAD = b"the payload nobody may see"
AGENTS = ("anna", "ben", "cleo")
REPEATED = {"replayed"}
TAG_BYTES = 16


class Post:
    """True messages of all kinds, and who reads them."""

    def __init__(self, provider="openssl", batches=(2, 3, 5, 8, 16) if FULL else (2, 3, 5, 8)):
        self.letters = Correspondence(AGENTS, provider=provider)
        later = self.letters.clock.now_ns() + 10**12
        kinds = [
            {},
            {"to": "#orders"},
            {"to": "#orders.new", "trace": TRACES[0], "content_type": "text/plain"},
            {"expires_ns": later, "trace": TRACES[1]},
            {"sender": "cleo", "content_type": "application/json"},
            {"to": "#orders", "sender": "ben", "expires_ns": later + 1},
        ]
        self.single = [self.letters.writer.seal(self.message(number, kind)) for number, kind in enumerate(kinds)]
        self.batches = []
        for size in batches:
            messages = [self.message(number, {"to": kinds[number % 3].get("to", "ben")}) for number in range(size)]
            self.batches.append(self.letters.writer.seal_many(messages))

    def message(self, number, kind):
        return self.letters.message(PAYLOAD[: 5 * number], **kind)

    @property
    def all(self):
        return [*self.single, *(wire for batch in self.batches for wire in batch)]

    def readers(self):
        """One that has seen nothing, and one that has read every true message before."""
        cold, warm = self.letters.other_reader(), self.letters.other_reader()
        assert all(isinstance(one, Opened) for one in warm.read_many(self.all, "ben"))
        return cold, warm


def flow_and_rest(wire):
    end = envelope.flow_end(wire)
    flow = parse_flow(wire)
    return flow, parse_message(wire, end, flow, 10**6)


def fields_of(wire):
    """The bytes of each field, in order; joined they are the message."""
    flow, found = flow_and_rest(wire)
    cuts = [0, 4, 5, 6, 7, 8, 9, 13, 21]
    for length in wire[6:9]:
        cuts.append(cuts[-1] + length)
    for length in (16, 8, 8, 8, 4, 25 * flow.traced):
        cuts.append(cuts[-1] + length)
    cuts += [len(found.signed) - TAG_BYTES, len(found.signed)]
    if flow.batched:
        cuts += [cuts[-1] + 2, cuts[-1] + 4]
    cuts += [len(wire) - 64, len(wire) - 32, len(wire)]
    return [wire[begin:end] for begin, end in pairwise(cuts)]


def flipped_bits(post):
    for wire in post.all if FULL else [*post.single[:4], *post.batches[0], *post.batches[2][2:5:2]]:
        for bit in range(8 * len(wire)):
            changed = bytearray(wire)
            changed[bit // 8] ^= 1 << bit % 8
            yield bytes(changed)


def swapped_fields(post):
    """Each field, and each two fields, of one message in another."""
    chosen = [*post.single, *post.batches[1], *post.batches[2]]
    for one, other in permutations(chosen if FULL else chosen[:8], 2):
        mine, theirs = fields_of(one), fields_of(other)
        at_most = min(len(mine), len(theirs))
        for number, and_number in product(range(at_most), range(-1, at_most)):
            if and_number in range(number + 1) or (not FULL and and_number not in (-1, number + 1)):
                continue
            mixed = list(mine)
            for which in {number, and_number} - {-1}:
                mixed[which] = theirs[which]
            yield b"".join(mixed)
        for number in range(1, at_most):
            yield b"".join(mine[:number] + theirs[number:])


def readdressed(post):
    """To other topics and agents, from other senders, in other epochs: all that a header may name."""
    for wire in post.all:
        flow = parse_flow(wire)
        rest = wire[len(encode_flow(flow)) :]
        for name, is_topic in product(("anna", "ben", "cleo", "orders", "orders.new"), (False, True)):
            for sender, epoch in product(AGENTS, (1, 2)):
                moved = type(flow)(
                    sender, Address(name, is_topic), flow.content_type, epoch, flow.key_id, flow.traced, flow.batched
                )
                yield encode_flow(moved) + rest
                key_id = post.letters.keys.signing_key(sender).key_id
                moved = type(flow)(sender, moved.address, flow.content_type, epoch, key_id, flow.traced, flow.batched)
                yield encode_flow(moved) + rest


def wrong_paths(post):
    """Paths that were removed, shortened, turned, taken from a neighbour or another batch, and other sizes and places."""
    tail = 64
    foreign = [wire for batch in post.batches for wire in batch]
    for batch in post.batches:
        for wire in batch:
            _, found = flow_and_rest(wire)
            signed, at, path, signature = found.signed, found.proof[:4], found.proof[4:-tail], found.proof[-tail:]
            hashes = [path[row : row + 32] for row in range(0, len(path), 32)]
            yield signed + signature
            yield signed + at + signature
            yield from (signed + at + path[:row] + signature for row in range(0, len(path), 32))
            yield from (signed + at + path + one + signature for one in (*hashes, bytes(32)))
            yield from (
                signed + at + b"".join(turned) + signature for turned in permutations(hashes) if list(turned) != hashes
            )
            yield from (
                signed + place(size, index) + path + signature
                for size, index in product(range(11), range(11))
                if (size, index) != envelope.read_place(at)
            )
            for other in foreign:
                if other != wire:
                    _, theirs = flow_and_rest(other)
                    yield signed + theirs.proof
                    yield signed + at + theirs.proof[4:]
                    yield signed + at + path + theirs.proof[-tail:]
                    yield signed + at + theirs.proof[4:-tail] + signature


def cut_and_spliced(post):
    """Every beginning of a message, what stands behind one, and pieces that were dropped, doubled and mixed at random."""
    source = random.Random(7)
    for wire in post.all:
        yield from (wire[:end] for end in range(len(wire)))
        yield from (wire + more for more in (b"\0", wire[-1:], wire[-32:], wire))
    for _ in range(20_000 if FULL else 1_000):
        wire, other = source.choice(post.all), source.choice(post.all)
        begin, end = sorted(source.randrange(len(wire) + 1) for _ in range(2))
        piece = wire[begin:end]
        inserted = source.choice([b"", piece * 2, other[begin:end], source.randbytes(len(piece)), piece[::-1]])
        yield wire[:begin] + inserted + wire[end:]


def second_encodings(post):
    """The same message in other bytes: signatures that plain Ed25519 would take, names with other borders."""
    for wire in post.all:
        flow, found = flow_and_rest(wire)
        s = int.from_bytes(wire[-32:], "little")
        yield from (
            wire[:-32] + (s + times * ORDER).to_bytes(32, "little")
            for times in range(1, 16)
            if s + times * ORDER < 2**256
        )
        yield from (wire[:-64] + point + wire[-32:] for point in (bytes(32), b"\1" + bytes(31), b"\xff" * 32))
        yield wire[:-64] + bytes(64)
        for shift in range(1, 4):
            for one, other in ((6, 7), (7, 8), (8, 7), (7, 6)):
                if wire[one] > shift:
                    moved = bytearray(wire)
                    moved[one] -= shift
                    moved[other] += shift
                    yield bytes(moved)
        other_kind = bytearray(wire)
        other_kind[5] ^= envelope.BATCHED
        yield bytes(other_kind)
        yield bytes(other_kind[: len(found.signed)]) + place(2, 0) + bytes(32) + wire[-64:]
        yield found.signed + place(1, 0) + wire[-64:]
        if flow.batched:
            size, index = envelope.read_place(found.proof)
            yield from (
                found.signed + place(wider, index) + found.proof[4:]
                for wider in range(size + 1, 33)
                if depth_of(wider) == depth_of(size)
            )


FORGERIES = (flipped_bits, swapped_fields, readdressed, wrong_paths, cut_and_spliced, second_encodings)


def code(result):
    return result.code.removeprefix("message.") if isinstance(result, MessageRefused) else "opened"


def forged(make, post):
    """What it makes, without what is a true message after all."""
    true = set(post.all)
    return [wire for wire in make(post) if wire not in true]


@pytest.mark.parametrize("make", FORGERIES, ids=lambda make: make.__name__)
def test_whatever_is_altered_is_refused(make):
    post = Post()
    wires = forged(make, post)
    assert len(wires) > 500
    for reader in post.readers():
        results = reader.open_many(wires, "ben")
        assert {code(one) for one in results} <= CODES
        assert not any(PAYLOAD[:5].decode() in f"{one} {one.fields}" for one in results)
    assert not post.letters.keys.come()
    assert {code(one) for one in post.letters.other_reader().open_many(post.all, "ben")} == {"opened"}


def test_so_many_were_tried():
    post = Post()
    tried = sum(len(set(forged(make, post))) for make in FORGERIES)
    assert tried >= (100_000 if FULL else 20_000)


@pytest.mark.parametrize("provider", ["libsodium"])
def test_the_other_library_refuses_the_same(provider):
    post, other = Post(batches=(3,)), Post(provider, batches=(3,))
    assert post.all == other.all
    wires = [wire for make in (flipped_bits_of_two, second_encodings) for wire in forged(make, post)]
    first = [code(one) for one in post.letters.reader.open_many(wires, "ben")]
    assert first == [code(one) for one in other.letters.reader.open_many(wires, "ben")]
    assert set(first) <= CODES


def flipped_bits_of_two(post):
    for wire in (post.single[0], post.batches[0][1]):
        for bit in range(0, 8 * len(wire), 1 if FULL else 3):
            changed = bytearray(wire)
            changed[bit // 8] ^= 1 << bit % 8
            yield bytes(changed)


@pytest.mark.parametrize("reader", ["anna", "cleo", "nobody", "orders", ""])
def test_what_is_for_one_agent_opens_for_no_other(reader):
    post = Post()
    mine = [wire for wire in post.all if not parse_flow(wire).address.is_topic]
    assert {code(one) for one in post.letters.reader.open_many(mine, reader)} == {"recipient"}


class Insider:
    """All keys that seal, as whoever shares them has them, and one signing key: that of the forger.

    Attributes:
        keys: Of everybody.
        forger: Who signs.
        shown: The key id that stands in the message: that of the sender, or of the forger.
    """

    def __init__(self, keys, forger, shown):
        self.keys, self.forger, self.shown = keys, forger, shown

    def __getattr__(self, name):
        return getattr(self.keys, name)

    def signing_key(self, agent):
        own = self.keys.signing_key(self.forger)
        return own if self.shown == "forger" else Shown(own, self.keys.signing_key(agent).key_id)


class Shown:
    def __init__(self, key, key_id):
        self.key, self.key_id = key, key_id

    def sign(self, domain, message):
        return self.key.sign(domain, message)


@pytest.mark.parametrize("shown", ["forger", "sender"])
@pytest.mark.parametrize(("forger", "to"), [("ben", "ben"), ("cleo", "#orders"), ("ben", "#orders"), ("cleo", "ben")])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_who_has_the_key_that_seals_is_still_not_the_sender(shown, forger, to, count):
    """The recipient of a message, and every member of a group, can seal what the sender could; sign it they cannot."""
    letters = Correspondence(AGENTS)
    insider = Insider(letters.keys, forger, shown)
    codec = Codec(letters.provider, insider, letters.keys, letters.clock)
    true = letters.writer.seal_many([letters.message(b"true", to) for _ in range(3)])
    assert {code(one) for one in letters.reader.read_many(true, "ben")} == {"opened"}
    wires = codec.seal_many([letters.message(b"forged", to) for _ in range(count)])
    assert [code(one) for one in letters.reader.open_many(wires, "ben")] == ["signature"] * count


def test_a_true_proof_over_what_does_not_open_is_refused():
    """A sender that signs anything at all: bytes that no key of the flow has sealed are refused after the signature."""
    post = Post()
    key = post.letters.keys.signing_key("anna")
    for wire in (one for one in post.single if parse_flow(one).sender == "anna"):
        _, found = flow_and_rest(wire)
        signed = found.signed[:-1] + bytes([found.signed[-1] ^ 1])
        assert code(post.letters.reader.open_many([signed + sign_one(key, signed)], "ben")[0]) == "sealed"
    messages = [flow_and_rest(wire)[1].signed[:-1] + b"?" for wire in post.batches[2]]
    proofs = sign_batch(key, [leaf_of(one) for one in messages])
    wires = [one + proof for one, proof in zip(messages, proofs, strict=True)]
    assert {code(one) for one in post.letters.reader.open_many(wires, "ben")} == {"sealed"}


def test_nothing_comes_twice():
    post = Post()
    first = post.letters.reader.open_many(post.all, "ben")
    assert {code(one) for one in first} == {"opened"}
    for reader in (post.letters.reader, post.letters.other_reader()):
        for wires in (post.all, post.all[::-1], post.all * 2):
            assert {code(one) for one in reader.open_many(wires, "ben")} == REPEATED
    topics = [wire for wire in post.all if parse_flow(wire).address.is_topic]
    assert {code(one) for one in post.letters.reader.open_many(topics, "cleo")} == {"opened"}
    assert {code(one) for one in post.letters.reader.open_many(topics, "cleo")} == REPEATED


@pytest.mark.parametrize("taken", range(0, 24, 5))
def test_nothing_comes_twice_over_a_restart(taken):
    """Keys, and what has come, as they were kept, everything else new."""
    post = Post()
    order = post.all
    random.Random(taken).shuffle(order)
    assert {code(one) for one in post.letters.reader.open_many(order[:taken], "ben")} <= {"opened"}
    provider = open_provider()
    again = MemoryKeys(provider, AGENTS, random=counted_random("keys"))
    topics = {flow.address.name: flow.epoch for flow in map(parse_flow, order) if flow.address.is_topic}
    again._groups = {(topic, epoch): post.letters.keys.group_key(topic, epoch) for topic, epoch in topics.items()}
    again.load_come(post.letters.keys.come())
    reader = Codec(provider, again, again, post.letters.clock)
    results = [code(one) for one in reader.open_many(order, "ben")]
    assert results == ["replayed"] * taken + ["opened"] * (len(order) - taken)
    assert {code(one) for one in reader.open_many(order, "ben")} == REPEATED


def test_what_is_far_behind_comes_once_however_many_have_overtaken_it():
    letters = Correspondence(AGENTS)
    first = letters.writer.seal(letters.message())
    letters.writer.seal_many([letters.message() for _ in range(1023)])
    last = letters.writer.seal(letters.message())
    results = [code(one) for one in letters.reader.open_many([last, first, first, last], "ben")]
    assert results == ["opened", "opened", "replayed", "replayed"]


def test_an_epoch_that_is_over_opens_nothing():
    post = Post()
    assert {code(one) for one in post.letters.reader.read_many(post.all, "ben")} == {"opened"}
    for address in {parse_flow(wire).address for wire in post.all}:
        post.letters.keys.rotate(address, post.letters.clock.now_ns())
    assert {code(one) for one in post.letters.reader.read_many(post.all, "ben")} == {"opened"}
    post.letters.clock.advance(OLD_EPOCH_NS / 1e9)
    for reader in (post.letters.reader, post.letters.other_reader()):
        assert {code(one) for one in reader.open_many(post.all, "ben")} == {"epoch"}


def test_a_batch_from_which_messages_are_missing_shows_the_others_and_where_they_stood():
    """Each message stands by itself: whoever drops some makes no other one false, and sequences tell that they are missing."""
    post = Post()
    for batch in post.batches:
        opened = post.letters.reader.open_many(batch[::2], "ben")
        assert {code(one) for one in opened} == {"opened"}
        for wire, one in zip(batch[::2], opened, strict=True):
            assert one.sequence == flow_and_rest(wire)[1].sequence
