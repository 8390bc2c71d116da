import json

import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from symbi.crypto import canonical
from symbi.crypto.canonical import MAX_SAFE_INTEGER, canonical_json, parse_canonical
from symbi.errors import InputError

ascii_keys = st.text(st.characters(max_codepoint=127), max_size=8)
valid_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
safe_integers = st.integers(-MAX_SAFE_INTEGER, MAX_SAFE_INTEGER)


def values(leaves, keys):
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=5) | st.tuples(inner, inner) | st.dictionaries(keys, inner, max_size=6),
        max_leaves=25,
    )


plain = values(st.none() | st.booleans() | safe_integers | valid_text, ascii_keys)
representable = values(
    st.none() | st.booleans() | safe_integers | valid_text | st.floats(allow_nan=False, allow_infinity=False),
    valid_text,
)
anything = values(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(st.characters(), max_size=4)
    | st.floats()
    | st.binary(max_size=2),
    st.text(st.characters(), max_size=3) | st.integers() | st.none() | st.booleans(),
)


@given(plain)
@example({"\x7f": "\x7f\u2028\u2029\ud7ff\ue000\uffff\U0010ffff", "\x00": '\x00\x1f\b\f\n\r\t"\\/<>&'})
@example({"b": {"B": 1, "a": [-MAX_SAFE_INTEGER, MAX_SAFE_INTEGER, True, None]}, "": ()})
def test_the_fast_path_gives_the_bytes_of_the_library(value):
    assert canonical._is_plain(value)
    assert canonical_json(value) == rfc8785.dumps(value)


@given(representable)
@example({"\ufb33": 1, "\U0001f600": 2, "\ud7ff": 3, "z": 1e21})
def test_every_value_has_the_bytes_of_the_library(value):
    assert canonical_json(value) == rfc8785.dumps(value)


@given(anything)
def test_what_the_library_refuses_is_refused_with_a_place_and_nothing_else_is(value):
    try:
        expected = rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError):
        expected = None
    if expected is not None:
        assert canonical_json(value) == expected
        return
    with pytest.raises(InputError) as caught:
        canonical_json(value)
    assert caught.value.code == "canonical.unrepresentable"
    assert isinstance(caught.value.fields["field"], str)


@given(representable)
def test_parsing_inverts_writing(value):
    data = canonical_json(value)
    parsed = parse_canonical(data)
    assert canonical_json(parsed) == data
    assert parsed == json.loads(data, parse_int=float)  # exact: a float holds every integer that is written


@given(representable, st.data())
def test_no_other_bytes_parse_to_the_same_value(value, data):
    """Canonical means one form: what parses at all is exactly what writing gives back."""
    canonical_bytes = canonical_json(value)
    position = data.draw(st.integers(0, len(canonical_bytes) - 1))
    bit = data.draw(st.integers(0, 7))
    altered = bytearray(canonical_bytes)
    altered[position] ^= 1 << bit
    try:
        parsed = parse_canonical(bytes(altered))
    except InputError:
        return
    assert canonical_json(parsed) == bytes(altered)
    assert canonical_json(parsed) != canonical_bytes


@given(st.binary(max_size=40) | st.text(max_size=40).map(lambda text: json.dumps(text).encode()))
def test_parsing_never_fails_in_another_way(data):
    code = "canonical.malformed"
    try:
        assert canonical_json(parse_canonical(data)) == data
    except InputError as error:
        code = error.code
    assert code == "canonical.malformed"
