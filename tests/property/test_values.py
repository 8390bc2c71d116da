"""JSON survives the border of a sandbox, and nothing larger than its bounds does."""

import json

from hypothesis import given
from hypothesis import strategies as st

from symbi.errors import CodeFailed, OutputLimit
from symbi.sandbox.values import MAX_EXACT_INT, JsonBounds, copy_json

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-MAX_EXACT_INT, MAX_EXACT_INT)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=30,
)


def copied(value, max_bytes):
    bounds = JsonBounds(max_bytes=max_bytes, max_items=10_000, max_depth=100)
    return copy_json(value, bounds, wrong=CodeFailed, large=OutputLimit)


@given(JSON)
def test_json_is_copied_unchanged(value):
    assert json.dumps(copied(value, 1_000_000)) == json.dumps(value)


@given(JSON, st.integers(0, 300))
def test_what_passes_is_not_much_larger_than_its_bound(value, max_bytes):
    try:
        passed = copied(value, max_bytes)
    except OutputLimit:
        return
    texts = [part for part in flat(passed) if isinstance(part, str)]
    assert sum(len(text.encode()) for text in texts) <= max_bytes


def flat(value):
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from flat(item)
    elif isinstance(value, list):
        for item in value:
            yield from flat(item)
    else:
        yield value
