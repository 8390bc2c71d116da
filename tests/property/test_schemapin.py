"""SchemaPin's canonical form over arbitrary content, and the bounds of what is kept of a server's standard error."""

import json

from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from symbi.adapters.mcp.stdio import MAX_STDERR_BYTES, MAX_STDERR_LINE_BYTES, LastWords
from symbi.errors import InputError, SignatureInvalid
from symbi.tools.port import ToolDefinition
from symbi.tools.schemapin import canonical_json, sign, verify

KEY = ec.derive_private_key(0x5EED, ec.SECP256R1())
SCALARS = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats() | st.text()
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


def javascript_order(key):
    """Where another implementation puts a key: array indices first and by number, then by UTF-16 code unit."""
    index = key.isascii() and key.isdigit() and str(int(key)) == key and int(key) < 2**32 - 1
    return (0, int(key), b"") if index else (1, 0, key.encode("utf-16-be", "surrogatepass"))


def ordered(value, key):
    if isinstance(value, dict):
        return {name: ordered(value[name], key) for name in sorted(value, key=key)}
    return [ordered(item, key) for item in value] if isinstance(value, list) else value


@given(JSON)
def test_the_canonical_form_is_refused_or_the_same_everywhere(value):
    try:
        canonical = canonical_json(value)
    except InputError:
        return
    assert json.loads(canonical) == value
    assert canonical_json(json.loads(canonical)) == canonical
    elsewhere = json.dumps(ordered(value, javascript_order), ensure_ascii=False, separators=(",", ":"))
    assert canonical == elsewhere.encode()


@given(st.dictionaries(st.text(), JSON, max_size=4), st.text(max_size=20), st.sampled_from(["digest", "bytes"]))
def test_what_can_be_signed_verifies_and_another_description_does_not(schema, description, form):
    definition = ToolDefinition("s", "t", description, schema)
    try:
        signature = sign(definition, KEY, form)
    except InputError:
        return
    assert verify(definition, signature, KEY.public_key()) == form
    try:
        verify(ToolDefinition("s", "t", description + "x", schema), signature, KEY.public_key())
    except SignatureInvalid:
        return
    raise AssertionError("another description passed")


LINES = st.lists(st.binary(max_size=40) | st.sampled_from([b"y" * 2000, b"\n", b"\x1b[2J", b"\xff\n"]), max_size=60)


@given(LINES)
def test_last_words_are_bounded_printable_and_independent_of_how_they_arrive(chunks):
    whole, pieces = LastWords(), LastWords()
    whole.feed(b"".join(chunks))
    for chunk in chunks:
        pieces.feed(chunk)
    text = whole.text()
    assert text == pieces.text()
    assert text.isprintable()
    assert len(text) <= 2 * (MAX_STDERR_BYTES + MAX_STDERR_LINE_BYTES)
