import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbi.bus import envelope
from symbi.bus.envelope import (
    MAX_SEQUENCE,
    Address,
    Flow,
    encode_flow,
    encode_message,
    id_text,
    pack_id,
    pack_trace,
    parse_flow,
    parse_message,
    place,
    trace_text,
)
from symbi.errors import MessageRefused

NAMES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=255)
TYPES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=127)
KEYS = st.binary(min_size=8, max_size=8).map(bytes.hex)
FLOWS = st.builds(
    Flow,
    NAMES,
    st.builds(Address, NAMES, st.booleans()),
    TYPES,
    st.integers(1, 2**32 - 1),
    KEYS,
    traced=st.booleans(),
    batched=st.booleans(),
)
FLOW = Flow("anna", Address("ben"), "text/plain", 1, "00112233445566ff", traced=False, batched=False)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def message(*, flow=FLOW, sequence=1, timestamp=5, expires=0, sealed=bytes(16), trace=b"", proof=bytes(64), says=None):
    rest = encode_message(bytes(16), sequence, timestamp, expires, len(sealed) if says is None else says)
    return encode_flow(flow) + rest + trace + sealed + proof


def parsed(wire, most=100):
    return parse_message(wire, envelope.flow_end(wire), parse_flow(wire), most)


def refused(code, wire, most=100):
    with pytest.raises(MessageRefused) as caught:
        parsed(wire, most)
    assert caught.value.code == f"message.{code}"


def changed(**fields):
    return Flow(**{name: fields.get(name, getattr(FLOW, name)) for name in FLOW.__struct_fields__})


@given(FLOWS)
def test_a_flow_comes_back_and_has_one_encoding(flow):
    wire = encode_flow(flow)
    assert parse_flow(wire) == flow
    assert encode_flow(parse_flow(wire)) == wire
    assert envelope.flow_end(wire) == len(wire)


@given(st.binary(max_size=120))
def test_any_bytes_are_a_flow_or_refused(noise):
    for wire in (noise, b"SyMb" + noise, b"SyMb\x01" + noise, b"SyMb\x01\x00\x01\x01\x01" + noise):
        flow, code = flow_or_code(wire)
        assert code in {None, "message.malformed", "message.version"}
        assert flow is None or encode_flow(flow) == wire[: envelope.flow_end(wire)]


def flow_or_code(wire):
    try:
        return parse_flow(wire), None
    except MessageRefused as error:
        return None, error.code


@given(st.data())
def test_no_part_of_a_message_is_a_message(data):
    wire = message(sealed=bytes(20))
    refused("malformed", wire[: data.draw(st.integers(0, len(wire) - 1))])
    refused("malformed", wire + data.draw(st.binary(min_size=1, max_size=40)))


def test_the_parts_of_a_message_are_found():
    traced = changed(traced=True, batched=True)
    proof = place(3, 2) + bytes(64) + bytes(range(64))
    wire = message(flow=traced, expires=6, sealed=b"s" * 20, trace=pack_trace(TRACE), proof=proof)
    found = parsed(wire)
    assert (found.sequence, found.timestamp_ns, found.expires_ns) == (1, 5, 6)
    assert trace_text(found.trace) == TRACE
    assert found.header + b"s" * 20 == found.signed
    assert found.signed + found.proof == wire
    assert found.proof == proof


@pytest.mark.parametrize(
    "fields",
    [
        {"sequence": 0},
        {"sequence": MAX_SEQUENCE + 1},
        {"timestamp": 0},
        {"timestamp": 2**63},
        {"expires": 2**63},
        {"expires": 5},
        {"expires": 4},
        {"sealed": bytes(15)},
        {"says": 15},
        {"says": 17},
        {"proof": bytes(63)},
        {"proof": bytes(65)},
    ],
    ids=str,
)
def test_what_is_out_of_range_is_refused(fields):
    refused("malformed", message(**fields))


@pytest.mark.parametrize(
    "proof",
    [
        place(0, 0) + bytes(64),
        place(1, 0) + bytes(64),
        place(2, 2) + bytes(96),
        place(2, 0) + bytes(64),
        place(2, 0) + bytes(128),
        place(3, 0) + bytes(96),
        place(1025, 0) + bytes(64 + 32 * 11),
        bytes(3),
    ],
    ids=bytes.hex,
)
def test_a_proof_of_another_form_is_refused(proof):
    refused("malformed", message(flow=changed(batched=True), proof=proof))


@pytest.mark.parametrize("trace", [bytes(25), bytes(16) + b"x" * 9, b"x" * 16 + bytes(9)], ids=bytes.hex)
def test_a_trace_of_zeros_is_refused(trace):
    refused("malformed", message(flow=changed(traced=True), trace=trace))


def test_a_size_is_refused_before_its_bytes_are_looked_for():
    wire = message(sealed=bytes(16 + 100))
    assert parsed(wire).signed == wire[:-64]
    refused("size", wire, most=99)
    refused("size", message(says=2**32 - 1))


@pytest.mark.parametrize(
    ("at", "to", "code"),
    [(0, 0x73, "malformed"), (4, 0, "version"), (4, 2, "version"), (5, 8, "version"), (5, 0x80, "version")],
)
def test_another_beginning_is_refused(at, to, code):
    wire = bytearray(message())
    wire[at] = to
    refused(code, bytes(wire))


@pytest.mark.parametrize("at", [6, 7, 8])
def test_an_empty_name_is_refused(at):
    wire = bytearray(message())
    wire[at] = 0
    refused("malformed", bytes(wire))


@pytest.mark.parametrize(
    "fields",
    [
        {"sender": ""},
        {"sender": "a b"},
        {"sender": "ä"},
        {"sender": "a\n"},
        {"sender": "\ud800"},
        {"sender": "a" * 256},
        {"address": Address("\x7f")},
        {"address": Address("")},
        {"content_type": "a" * 128},
        {"epoch": 0},
        {"epoch": 2**32},
    ],
    ids=str,
)
def test_a_flow_that_cannot_be_written_is_refused(fields):
    with pytest.raises(MessageRefused) as caught:
        encode_flow(changed(**fields))
    assert caught.value.code == "message.malformed"


@given(st.uuids())
def test_an_id_is_its_canonical_text(value):
    assert pack_id(str(value)) == value.bytes
    assert id_text(value.bytes) == str(value)


ID = str(uuid.UUID(int=0xABCDEF))


@pytest.mark.parametrize(
    "text",
    [
        "", "x", ID.upper(), ID.replace("-", ""), ID[:-1], ID + "0", f" {ID[1:]}", ID.replace("-", " "), ID[::-1],
        f"{ID}-", f"{ID}----", f"{ID[:28]}-{ID[28:]}", f"{ID} ", f"{ID}\n",
    ],
)  # fmt: skip
def test_any_other_text_is_no_id(text):
    with pytest.raises(MessageRefused, match="36 characters"):
        pack_id(text)


@pytest.mark.parametrize(
    "text", ["", TRACE[:-1], TRACE.upper(), "01" + TRACE[2:], "00-" + "0" * 32 + TRACE[35:], f"{TRACE}\n", "ä" * 55]
)
def test_any_other_text_is_no_trace(text):
    with pytest.raises(MessageRefused, match="traceparent"):
        pack_trace(text)
