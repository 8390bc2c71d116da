import json
import struct
from collections import OrderedDict
from enum import IntEnum, StrEnum
from pathlib import Path
from types import MappingProxyType

import pytest
import rfc8785

from symbi.crypto import canonical
from symbi.crypto.canonical import MAX_DEPTH, canonical_json, parse_canonical
from symbi.errors import InputError

PUBLISHED = json.loads((Path(__file__).parents[2] / "data/crypto/rfc8785.json").read_text("utf-8"))


class Colour(StrEnum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Loud(str):
    __slots__ = ()

    def __str__(self):
        return self.upper()

    def __hash__(self):
        return 7

    def __eq__(self, other):
        return self is other


def number_of(ieee754):
    return struct.unpack(">d", bytes.fromhex(ieee754))[0]


@pytest.mark.parametrize("case", PUBLISHED["numbers"], ids=lambda case: case["ieee754"])
def test_numbers_are_written_as_the_rfc_says(case):
    assert canonical_json(number_of(case["ieee754"])) == case["json"].encode()
    assert parse_canonical(case["json"].encode()) == number_of(case["ieee754"])


@pytest.mark.parametrize("ieee754", [*PUBLISHED["refused_numbers"], "fff0000000000000"])
def test_a_number_that_is_not_finite_is_refused(ieee754):
    with pytest.raises(InputError, match="not finite") as caught:
        canonical_json({"a": {"b": number_of(ieee754)}})
    assert caught.value.code == "canonical.unrepresentable"
    assert caught.value.fields == {"field": "a.b"}


def test_the_sample_of_the_rfc_has_its_bytes():
    sample = PUBLISHED["objects"][0]
    assert canonical_json(json.loads(sample["input"])).hex() == sample["canonical"]


def test_keys_stand_in_the_order_of_their_utf_16_units():
    sample = PUBLISHED["objects"][1]
    assert list(json.loads(canonical_json(json.loads(sample["input"]))).values()) == sample["order"]


def test_every_character_is_written_as_the_library_writes_it():
    every = "".join(chr(code) for code in range(0x3000) if not 0xD800 <= code <= 0xDFFF) + "\U0001f600\U0010ffff\uffff"
    assert canonical_json(every) == rfc8785.dumps(every)
    for code in range(0x80):
        assert canonical_json({chr(code): chr(code)}) == rfc8785.dumps({chr(code): chr(code)})


def test_the_value_of_an_enumeration_and_any_mapping_stand_as_plain_json():
    value = MappingProxyType({"b": Colour.RED, "a": (Level.HIGH, OrderedDict(x=None))})
    assert canonical_json(value) == b'{"a":[3,{"x":null}],"b":"red"}'


def test_a_string_stands_by_its_characters_whatever_its_class_makes_of_it():
    assert canonical_json({Loud("key"): Loud("text")}) == b'{"key":"text"}'


@pytest.mark.parametrize(
    ("value", "field", "what"),
    [
        (2**53, "", "2\\^53-1"),
        (-(2**53), "", "2\\^53-1"),
        ({"arguments": {"amount": 2**53}}, "arguments.amount", "as a string"),
        ({"arguments": [1, {"to": b"x"}]}, "arguments[1].to", "of type `bytes`"),
        ({"a": {1, 2}}, "a", "of type `set`"),
        ({"a": range(3)}, "a", "of type `range`"),
        ({"a": {1: "x"}}, "a", "a key of type `int`"),
        ({"a": {None: "x"}}, "a", "a key of type `NoneType`"),
        ({"a": "\ud800"}, "a", "a lone surrogate"),
        ({"a": {"\udfff": 1}}, "a", "a lone surrogate"),
        ({"a b": [{"ü": object()}]}, "['a b'][0]['\\xfc']", "of type `object`"),
        ({"a" * 100: object()}, f"['{'a' * 64}']", "of type `object`"),
        ({Loud("a"): 1, Loud("a"): 2}, "a", "stands twice"),
        ({"a": complex(1)}, "a", "of type `complex`"),
    ],
)
def test_what_cannot_be_represented_is_refused_with_its_place(value, field, what):
    with pytest.raises(InputError, match=what) as caught:
        canonical_json(value)
    assert caught.value.code == "canonical.unrepresentable"
    assert caught.value.fields == {"field": field}
    assert f"`{field}`" in caught.value.message if field else caught.value.message.startswith("the value ")


@pytest.mark.parametrize("leaf", [1, 1.5])
def test_nesting_is_bounded_alike_on_both_paths(leaf):
    def wrap(depth):
        return json.loads("[" * depth + json.dumps(leaf) + "]" * depth)

    assert canonical_json(wrap(MAX_DEPTH)) == b"[" * MAX_DEPTH + json.dumps(leaf).encode() + b"]" * MAX_DEPTH
    with pytest.raises(InputError, match=f"nesting deeper than {MAX_DEPTH}"):
        canonical_json(wrap(MAX_DEPTH + 1))


def test_a_value_within_itself_is_refused():
    value = {}
    value["again"] = [value]
    with pytest.raises(InputError, match="nesting deeper"):
        canonical_json(value)


@pytest.mark.parametrize("leaf", [1, 1.5])
def test_the_number_of_values_is_bounded_alike_on_both_paths(monkeypatch, leaf):
    monkeypatch.setattr(canonical, "MAX_VALUES", 50)
    assert canonical_json([leaf] * 49)
    with pytest.raises(InputError, match="more than 50 values"):
        canonical_json([leaf] * 51)


def test_shared_children_do_not_blow_up(monkeypatch):
    monkeypatch.setattr(canonical, "MAX_VALUES", 10_000)
    value = [1]
    for _ in range(60):
        value = [value, value]
    with pytest.raises(InputError, match="more than 10000 values"):
        canonical_json(value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" 1",
        b"1 ",
        b"{",
        b"-0",
        b"1.0",
        b"1.50",
        b"1e3",
        b"1E+30",
        b"01",
        b"NaN",
        b"Infinity",
        b"-1e999",
        b'{"a": 1}',
        b'{"b":1,"a":2}',
        b'{"a":1,"a":1}',
        b'{"a":1.5,"a":1.5}',
        b'"\\u0041"',
        b'"\\/"',
        b'"\\u001F"',
        b'"\\u000a"',
        b'"\x01"',
        b'"\\ud800"',
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b"\xef\xbb\xbf1",
        b"9007199254740993",
        b"100000000000000000001",
        b"1" * 5000,
        b"[" * 70 + b"]" * 70,
        b"[" * 100_000,
        '{"\U0001f600":1,"\ufb33":2}'.encode()[::-1],
        '{"\ufb33":2,"\U0001f600":1}'.encode(),
    ],
)
def test_json_in_another_form_is_not_parsed(data):
    with pytest.raises(InputError) as caught:
        parse_canonical(data)
    assert caught.value.code == "canonical.malformed"


@pytest.mark.parametrize(
    "value",
    [None, True, 0, -(2**53 - 1), "", "\u2028\x7f", [], {}, {"a": [1.5, {"ü": 1e30}]}, {"\U0001f600": 1, "\ufb33": 2}],
)
def test_parsing_inverts_writing(value):
    assert parse_canonical(canonical_json(value)) == value
