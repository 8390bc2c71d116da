"""What may cross the border of a sandbox."""

from collections import namedtuple
from types import MappingProxyType

import pytest

from symbi.errors import CodeFailed, OutputLimit
from symbi.sandbox.values import MAX_EXACT_INT, MAX_PATH_CHARS, JsonBounds, copy_json

WIDE = JsonBounds(max_bytes=1_000_000, max_items=100_000, max_depth=100)


def copied(value, bounds=WIDE):
    return copy_json(value, bounds, wrong=CodeFailed, large=OutputLimit)


@pytest.mark.parametrize("value", [None, True, 0, MAX_EXACT_INT, -MAX_EXACT_INT, 1.5, "é", [], {}, [{"a": [None]}]])
def test_json_is_copied_unchanged(value):
    assert copied(value) == value
    assert type(copied(value)) is type(value)


def test_sequences_become_lists_and_mappings_dicts():
    point = namedtuple("point", "x y")  # noqa: PYI024 - what a sandbox hands over is no typed one
    assert copied((1, (2,))) == [1, [2]]
    assert copied(point(1, 2)) == [1, 2]
    assert type(copied(MappingProxyType({"a": ()}))) is dict


def test_a_copy_shares_nothing():
    part = [1]
    first, second = copied([part, part])
    assert first == second
    assert first is not second
    assert first is not part


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (2**53, "an integer beyond 2^53 - 1 at `$` is not JSON; give it as text: `str(…)`"),
        (-(2**53), "an integer beyond 2^53 - 1 at `$` is not JSON; give it as text: `str(…)`"),
        ([1, float("nan")], "a float that is not finite at `$[1]` is not JSON; give null or a text instead"),
        ({"a": float("-inf")}, "a float that is not finite at `$.a` is not JSON; give null or a text instead"),
        ({"a": [0, {"b": {1, 2}}]}, "a set at `$.a[1].b` is not JSON; give a list: `sorted(…)`"),
        ([b"x"], "a bytes at `$[0]` is not JSON; give text: `.decode()`"),
        ({1: "a"}, "a key of type int at `$` is not JSON; keys are text: `str(…)`"),
        ("\ud800", "a text with a lone surrogate at `$` is not JSON"),
        ({"\ud800": 1}, "a text with a lone surrogate at `$` is not JSON"),
        (1j, "a complex at `$` is not JSON"),
        (..., "a ellipsis at `$` is not JSON"),
    ],
)
def test_anything_else_is_refused_with_its_place_and_what_to_do(value, message):
    with pytest.raises(CodeFailed) as caught:
        copied(value)
    assert str(caught.value) == message


def test_depth_is_bounded_however_deep_the_value_is():
    value = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(CodeFailed, match="nests deeper than 100"):
        copied(value)
    nested = 0
    for _ in range(100):
        nested = [nested]
    assert copied(nested) == nested


def test_bytes_are_counted_in_utf8_keys_included():
    bounds = JsonBounds(max_bytes=10, max_items=10, max_depth=10)
    assert copied("12345678", bounds) == "12345678"
    for large in ("123456789", "ééééé", {"123456": ""}):
        with pytest.raises(OutputLimit, match="larger than 10 bytes"):
            copied(large, bounds)


def test_parts_are_counted():
    bounds = JsonBounds(max_bytes=1000, max_items=4, max_depth=10)
    assert copied([1, 2, 3], bounds) == [1, 2, 3]
    with pytest.raises(OutputLimit, match="more than 4 parts"):
        copied([1, 2, [3]], bounds)


def test_shared_parts_count_each_time_so_that_a_small_graph_cannot_expand():
    graph = [1]
    for _ in range(60):
        graph = [graph] * 10
    with pytest.raises(OutputLimit):
        copied(graph)
    with pytest.raises(OutputLimit):
        copied([["x" * 1000] * 1000] * 1000)


def test_a_long_path_is_shown_by_its_end():
    value = {1}
    for _ in range(90):
        value = {"key": value}
    with pytest.raises(CodeFailed) as caught:
        copied(value)
    assert caught.value.message.startswith("a set at `$…")
    assert len(caught.value.message) < MAX_PATH_CHARS + 50
