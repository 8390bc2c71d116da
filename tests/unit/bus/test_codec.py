"""What the codec does beside the forms of messages: whom it serves, when it refuses, what it remembers."""

import gc
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbi.bus import codec
from symbi.bus.codec import Codec, Opened, Signing
from symbi.bus.envelope import MAX_BATCH, MAX_SEQUENCE, Address
from symbi.bus.keys import Block
from symbi.errors import ConfigError, MessageRefused
from symbi.testing.bus import OLD_EPOCH_NS, Correspondence

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(params=["openssl", "libsodium"])
def letters(request):
    return Correspondence(provider=request.param)


def code_of(call, *args):
    with pytest.raises(MessageRefused) as caught:
        call(*args)
    return caught.value.code.removeprefix("message.")


def code(result):
    return result.code.removeprefix("message.") if isinstance(result, MessageRefused) else "opened"


def test_a_message_arrives_whole(letters):
    expires = letters.clock.now_ns() + 1
    sent = letters.message(b"hello", content_type="text/plain", expires_ns=expires, trace=TRACE)
    opened = letters.reader.open(letters.writer.seal(sent), "ben")
    assert (opened.message_id, opened.sender, opened.address) == (sent.message_id, "anna", Address("ben"))
    assert (opened.payload, opened.content_type, opened.trace) == (b"hello", "text/plain", TRACE)
    assert (opened.timestamp_ns, opened.expires_ns, opened.sequence) == (letters.clock.now_ns(), expires, 1)
    assert opened.flow.epoch == 1
    assert not opened.flow.batched


def test_only_whom_it_is_for_opens_it_and_only_once(letters):
    wire = letters.writer.seal(letters.message())
    assert code_of(letters.reader.open, wire, "cleo") == "recipient"
    assert letters.reader.open(wire, "ben")
    assert code_of(letters.reader.open, wire, "ben") == "replayed"
    assert code_of(letters.other_reader().open, wire, "ben") == "replayed"


def test_each_listener_of_a_topic_opens_it_once(letters):
    wire = letters.writer.seal(letters.message(b"news", "#orders"))
    for reader in ("ben", "cleo"):
        assert letters.reader.open(wire, reader).payload == b"news"
        assert code_of(letters.reader.open, wire, reader) == "replayed"


def test_reading_is_no_coming(letters):
    wires = letters.writer.seal_many([letters.message(), letters.message()])
    assert [code(one) for one in letters.reader.read_many(wires, "ben")] == ["opened", "opened"]
    assert letters.reader.read(wires[0], "ben") == letters.reader.read(wires[0], "ben")
    assert [code(one) for one in letters.reader.open_many(wires * 2, "ben")] == ["opened"] * 2 + ["replayed"] * 2


def test_an_agent_and_a_topic_of_one_name_are_two(letters):
    wires = letters.writer.seal_many([letters.message(b"1", "ben"), letters.message(b"2", "#ben")])
    assert [one.payload for one in letters.reader.open_many(wires, "ben")] == [b"1", b"2"]
    assert [one.sequence for one in letters.other_reader().read_many(wires, "ben")] == [1, 1]


def test_several_are_opened_or_refused_each_by_itself(letters):
    good = letters.writer.seal_many([letters.message(b"%d" % number) for number in range(3)])
    bad = good[1][:-1] + bytes([good[1][-1] ^ 1])
    results = letters.reader.open_many([good[0], bad, b"", good[0], good[2]], "ben")
    assert [code(one) for one in results] == ["opened", "signature", "malformed", "replayed", "opened"]
    assert letters.reader.open_many([], "ben") == []
    assert letters.writer.seal_many([]) == []


def test_batches_are_of_one_sender_and_of_no_more_than_asked():
    letters = Correspondence(batch=3)
    senders = ["anna", "anna", "cleo", "anna", "anna", "ben"]
    messages = [letters.message(b"%d" % number, "#all", sender) for number, sender in enumerate(senders)]
    opened = letters.reader.open_many(letters.writer.seal_many(messages), "ben")
    assert [(one.sender, one.payload, one.message_id) for one in opened] == [
        (one.sender, one.payload, one.message_id) for one in messages
    ]
    assert [one.flow.batched for one in opened] == [True, True, False, True, False, False]
    assert [one.sequence for one in opened] == [1, 2, 1, 3, 4, 1]


def test_each_is_signed_where_that_is_asked_for():
    letters = Correspondence(signing=Signing.MESSAGE)
    wires = letters.writer.seal_many([letters.message() for _ in range(3)])
    assert [one.flow.batched for one in letters.reader.open_many(wires, "ben")] == [False] * 3


def test_what_expires_is_opened_until_then(letters):
    at = letters.clock.now_ns() + 2 * 10**9
    wires = letters.writer.seal_many(
        [letters.message(expires_ns=at), letters.message(expires_ns=at), letters.message()]
    )
    letters.clock.advance(1.9)
    assert letters.reader.open(wires[0], "ben")
    letters.clock.advance(0.1)
    assert [code(one) for one in letters.reader.open_many(wires, "ben")] == ["expired", "expired", "opened"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"payload": bytes(1024 * 1024 + 1)}, "size"),
        ({"message_id": "x"}, "malformed"),
        ({"trace": "x"}, "malformed"),
        ({"content_type": ""}, "malformed"),
        ({"sender": "no-one"}, "signature"),
        ({"sender": "no one"}, "malformed"),
        ({"address": Address("no-one")}, "recipient"),
        ({"address": Address("no one", is_topic=True)}, "malformed"),
        ({"expires_ns": 1}, "expired"),
        ({"expires_ns": 2**63}, "expired"),
    ],
    ids=str,
)
def test_what_cannot_be_sealed_is_refused(letters, changes, expected):
    message = letters.message(b"secret")
    message = type(message)(**{name: changes.get(name, getattr(message, name)) for name in message.__struct_fields__})
    with pytest.raises(MessageRefused) as caught:
        letters.writer.seal_many([letters.message(), message])
    assert caught.value.code == f"message.{expected}"
    assert caught.value.fields.get("index", 1) == 1
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("to", ["no one", "#no one", "#", "#" + "a" * 256])
def test_nothing_is_kept_for_a_name_that_is_none(letters, monkeypatch, to):
    asked = []
    monkeypatch.setattr(letters.keys, "reserve", lambda *args: asked.append(args))
    monkeypatch.setattr(letters.keys, "group_key", lambda *args: asked.append(args))
    assert code_of(letters.writer.seal, letters.message(b"x", to)) == "malformed"
    monkeypatch.setattr(letters.keys, "signing_key", asked.append)
    assert code_of(letters.writer.seal, letters.message(b"x", sender="no one")) == "malformed"
    assert not asked


def test_a_reader_takes_no_more_than_it_was_told():
    letters = Correspondence()
    small = Codec(letters.provider, letters.keys, letters.keys, letters.clock, most_payload=10)
    assert small.open(letters.writer.seal(letters.message(bytes(10))), "ben")
    assert code_of(small.open, letters.writer.seal(letters.message(bytes(11))), "ben") == "size"


def test_an_old_epoch_is_taken_for_a_while_and_a_new_one_has_another_key(letters):
    old = letters.writer.seal_many([letters.message(b"1"), letters.message(b"2")])
    assert letters.reader.open(old[0], "ben")
    letters.keys.rotate(Address("ben"), letters.clock.now_ns())
    new = letters.writer.seal(letters.message(b"3"))
    assert letters.reader.open(new, "ben").sequence == 1
    letters.clock.set_ns(letters.clock.now_ns() + OLD_EPOCH_NS - 1)
    assert letters.reader.open(old[1], "ben")
    letters.clock.set_ns(letters.clock.now_ns() + 1)
    assert code_of(letters.reader.open, old[1], "ben") == "epoch"
    assert code_of(letters.other_reader().open, old[1], "ben") == "epoch"


def test_a_key_that_is_not_believed_any_more_is_not_though_it_was(letters):
    wires = letters.writer.seal_many([letters.message(), letters.message()])
    assert letters.reader.open(wires[0], "ben")
    letters.keys.revoke(letters.keys.signing_key("anna").key_id)
    assert code_of(letters.reader.open, wires[1], "ben") == "signature"


def test_a_new_key_signs_and_the_old_one_is_believed(letters):
    old = letters.writer.seal(letters.message())
    letters.keys.add("anna")
    new = letters.writer.seal(letters.message())
    one, other = letters.reader.open_many([old, new], "ben")
    assert one.flow.key_id != other.flow.key_id


def test_an_epoch_without_sequences_is_at_its_end(letters, monkeypatch):
    monkeypatch.setattr(letters.keys, "reserve", lambda *_: Block(1, MAX_SEQUENCE))
    assert code_of(letters.writer.seal_many, [letters.message(), letters.message()]) == "epoch"
    assert letters.reader.open(letters.writer.seal(letters.message()), "ben").sequence == MAX_SEQUENCE


def test_no_nonce_comes_twice_with_a_key(letters, monkeypatch):
    used = set()
    make = letters.provider.aead

    class Watched:
        def __init__(self, key):
            self.key, self.aead, self.open = key, make(key), make(key).open

        def seal(self, nonce, plaintext, associated):
            assert (self.key, nonce) not in used
            used.add((self.key, nonce))
            return self.aead.seal(nonce, plaintext, associated)

    monkeypatch.setattr(letters.provider, "aead", Watched, raising=False)
    writers = [letters.writer, letters.other_reader()]
    pairs = [("anna", "ben"), ("ben", "anna"), ("anna", "#t"), ("ben", "#t"), ("anna", "#anna"), ("anna", "cleo")]
    for turn in range(6):
        messages = [letters.message(b"x", to, sender) for sender, to in pairs] * 3
        assert len(writers[turn % 2].seal_many(messages)) == 18
        if turn == 3:
            letters.keys.rotate(Address("ben"), letters.clock.now_ns())
            letters.keys.rotate(Address("t", is_topic=True), letters.clock.now_ns())
    assert len(used) == 6 * 18
    assert len({key for key, _ in used}) == len(pairs) + 3


def test_flows_are_forgotten_where_there_are_too_many(letters, monkeypatch):
    monkeypatch.setattr(codec, "MAX_FLOWS", 2)
    for number in range(5):
        wire = letters.writer.seal(letters.message(b"x", content_type=f"text/{number}"))
        assert letters.reader.open(wire, "ben").content_type == f"text/{number}"
    assert len(letters.reader._opening) <= 2
    assert len(letters.writer._sealing) <= 2


def test_a_key_is_derived_once_however_many_content_types_there_are(letters, monkeypatch):
    derived, make = [], letters.provider.hkdf_sha256
    monkeypatch.setattr(
        letters.provider, "hkdf_sha256", lambda *args, **named: derived.append(1) or make(*args, **named), raising=False
    )
    for to in ("ben", "#t"):
        derived.clear()
        messages = [letters.message(b"x", to, content_type=f"text/{number}") for number in range(20)]
        assert {code(one) for one in letters.reader.open_many(letters.writer.seal_many(messages), "ben")} == {"opened"}
        assert len(derived) == 2  # one who seals and one who opens


def test_a_cipher_is_forgotten_with_its_epoch(letters):
    wires = letters.writer.seal_many([letters.message(content_type=f"text/{number}") for number in range(2)])
    assert letters.reader.open(wires[0], "ben")
    letters.keys.rotate(Address("ben"), letters.clock.now_ns())
    letters.clock.set_ns(letters.clock.now_ns() + OLD_EPOCH_NS)
    assert code_of(letters.reader.open, wires[1], "ben") == "epoch"


def test_what_was_refused_is_gone_as_soon_as_nobody_has_it(letters):
    """A traceback would hold the frames of the codec, and they each message, until the collector comes by."""
    wire = letters.writer.seal(letters.message(bytes(1000)))
    gc.disable()
    try:
        for forged in (wire[:-1] + bytes([wire[-1] ^ 1]), b"", wire[:40]):
            (refused,) = letters.reader.open_many([forged], "ben")
            assert code(refused) in {"signature", "malformed"}
            watched = weakref.ref(refused)
            del refused
            assert watched() is None
    finally:
        gc.enable()


def test_what_is_refused_leaves_nothing_behind(letters):
    wire = bytearray(letters.writer.seal(letters.message(b"x", "#t")))
    wire[-1] ^= 1
    for number in range(50):
        wire[9:13] = number.to_bytes(4)
        assert code_of(letters.reader.open, bytes(wire), "ben") in {"malformed", "epoch", "signature"}
    assert not letters.reader._opening
    assert not letters.reader._ciphers
    assert not letters.keys.come()


@pytest.mark.parametrize(
    "bounds", [{"batch": 1}, {"batch": MAX_BATCH + 1}, {"most_payload": 0}, {"most_payload": 2**25}]
)
def test_bounds_out_of_range_are_refused(bounds):
    letters = Correspondence()
    with pytest.raises(ConfigError):
        Codec(letters.provider, letters.keys, letters.keys, letters.clock, **bounds)


MESSAGES = st.lists(
    st.tuples(
        st.binary(max_size=300),
        st.sampled_from(["anna", "ben", "#a", "#a.b"]),
        st.sampled_from(["anna", "ben", "cleo"]),
        st.sampled_from(["text/plain", "application/json"]),
        st.sampled_from(["", TRACE]),
    ),
    max_size=20,
)


@given(MESSAGES, st.integers(2, 9), st.randoms(use_true_random=False))
def test_all_that_is_written_is_read_in_any_order(drawn, batch, random):
    letters = Correspondence(batch=batch)
    sent = [
        letters.message(payload, to, sender, content_type=content_type, trace=trace)
        for payload, to, sender, content_type, trace in drawn
    ]
    wires = letters.writer.seal_many(sent)
    order = list(range(len(sent)))
    random.shuffle(order)
    readers = ["anna", "ben"]
    for reader in readers:
        mine = [index for index in order if sent[index].address in (Address(reader), *TOPICS)]
        opened = letters.reader.open_many([wires[index] for index in mine], reader)
        assert all(isinstance(one, Opened) for one in opened)
        for index, one in zip(mine, opened, strict=True):
            told = one.message_id, one.sender, one.address, one.payload, one.content_type, one.trace
            message = sent[index]
            assert told == (
                message.message_id,
                message.sender,
                message.address,
                message.payload,
                message.content_type,
                message.trace,
            )
        others = [wires[index] for index in order if index not in mine]
        assert {code(one) for one in letters.reader.open_many(others, reader)} <= {"recipient"}


READER = Correspondence()
TRUE = READER.writer.seal(READER.message(b"x", "#t", trace=TRACE))


@given(st.binary(max_size=200), st.integers(0, len(TRUE)))
def test_any_bytes_are_refused_and_nothing_else_is_raised(noise, kept):
    wires = [noise, TRUE[:kept] + noise, noise + TRUE[kept:], TRUE[:kept] + noise + TRUE[kept:]]
    results = READER.reader.read_many([wire for wire in wires if wire != TRUE], "ben")
    assert all(isinstance(one, MessageRefused) for one in results)


TOPICS = [Address("a", is_topic=True), Address("a.b", is_topic=True)]
