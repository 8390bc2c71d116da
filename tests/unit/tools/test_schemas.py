"""Schemas from outside: what is refused, what is valid, and that every validation ends soon."""

import pytest

from symbi.errors import InputError, OutputLimit
from symbi.tools.schemas import MAX_STEPS, Schema, json_value

TEXT = {"type": "string"}


def compiled(**schema):
    return Schema({"type": "object", **schema}, "the schema")


def test_valid_values_pass():
    schema = compiled(
        properties={
            "to": TEXT | {"pattern": "^[a-z]+@"},
            "n": {"type": "integer", "minimum": 0},
            "list": {"type": "array", "items": {"$ref": "#/$defs/item"}, "uniqueItems": True},
            "either": {"anyOf": [TEXT, {"type": "null"}]},
        },
        required=["to"],
        additionalProperties=False,
        **{"$defs": {"item": {"enum": [1, "a", None]}}},
    )
    schema.check({"to": "a@b", "n": 3, "list": [1, "a", None], "either": None})
    schema.check({"to": "a@b", "n": 3.0})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "$ lacks `to`"),
        ({"to": 3}, "$.to must be of type `string`"),
        ({"to": "x", "n": -1}, "$.n does not satisfy `minimum: 0`"),
        ({"to": "x", "n": True}, "$.n must be of type `integer`"),
        ({"to": "x", "color": 1}, "$ has no `color`; did you mean `colour`?"),
        ({"to": "x", "colour": "blue"}, "$.colour must be one of `red`, `green`"),
        ({"to": "xx"}, '$.to does not satisfy `pattern: "^.$"`'),
        ({"to": "x", "list": [1, 1.0]}, "$.list does not satisfy `uniqueItems: true`"),
        ([], "$ must be of type `object`"),
    ],
)
def test_an_error_names_the_place_and_the_rule(value, message):
    schema = compiled(
        properties={
            "to": TEXT | {"pattern": "^.$"},
            "n": {"type": "integer", "minimum": 0},
            "colour": {"enum": ["red", "green"]},
            "list": {"uniqueItems": True},
        },
        required=["to"],
        additionalProperties=False,
    )
    with pytest.raises(InputError) as caught:
        schema.check(value)
    assert str(caught.value) == message


def test_an_error_never_quotes_the_value():
    schema = compiled(properties={"a": {"type": "integer"}, "b": {"const": 1}, "c": {"maxLength": 1}, "d": {"not": {}}})
    for name in "abcd":
        with pytest.raises(InputError) as caught:
            schema.check({name: "the secret value"})
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "array"},
        {"type": ["object", "null"]},
        {"type": "object", "properties": 3},
        {"type": "object", "required": "to"},
        {"type": "object", "properties": {"a": {"type": "text"}}},
        {"type": "object", "properties": {"a": {"minimum": "3"}}},
    ],
    ids=str,
)
def test_what_is_no_schema_of_objects_is_refused(schema):
    with pytest.raises(InputError):
        Schema(schema, "the schema")


@pytest.mark.parametrize(
    "part",
    [
        {"$ref": "https://example.com/schema.json"},
        {"$ref": "file:///etc/passwd"},
        {"$ref": "other.json#/a"},
        {"$ref": "#/$defs/none"},
        {"$ref": "#anchor"},
        {"$ref": 3},
        {"$dynamicRef": "#"},
        {"patternProperties": {"^a": {}}},
        {"unevaluatedProperties": False},
        {"properties": {"a": {"$id": "https://example.com/a"}}},
        {"properties": {"a": {"$schema": "http://json-schema.org/draft-07/schema#", "pattern": "(a+)+$"}}},
        {"$schema": "http://json-schema.org/draft-04/schema#"},
        {"$schema": "http://json-schema.org/draft-07/schema#", "dependencies": {"a": ["b"]}},
        {"properties": {"a": {"pattern": "(?=x)(a+)+$"}}},
        {"properties": {"a": {"pattern": r"(a)\1"}}},
        {"properties": {"a": {"pattern": "(" * 600}}},
        {"properties": {"a": {"pattern": "a" * 2000}}},
        {"properties": {"a": {"pattern": "((a{100}){100}){100}"}}},
        {"default": {"pattern": "(a+)+$"}, "properties": {"a": {"$ref": "#/default"}}},
        {"allOf": [{"$ref": "#/properties/b/examples/0"}], "properties": {"b": {"examples": [{"pattern": "(a+)+$"}]}}},
    ],
    ids=str,
)
def test_what_cannot_be_bounded_is_refused(part):
    with pytest.raises(InputError):
        compiled(**part)


def test_draft_7_is_read_where_it_means_the_same():
    schema = compiled(
        properties={"a": {"$ref": "#/definitions/x~1y"}},
        definitions={"x/y": TEXT},
        **{"$schema": "http://json-schema.org/draft-07/schema#"},
    )
    schema.check({"a": "x"})
    with pytest.raises(InputError):
        schema.check({"a": 1})


@pytest.mark.timeout(20)
def test_a_pattern_that_explodes_elsewhere_is_matched_in_linear_time():
    schema = compiled(properties={"a": {"pattern": "^(a|a)*$"}, "b": {"pattern": "(x+x+)+y"}})
    schema.check({"a": "a" * 200_000})
    for value in ({"a": "a" * 200_000 + "!"}, {"b": "x" * 200_000}):
        with pytest.raises(InputError):
            schema.check(value)


def exploding():
    levels = {f"l{n}": {"allOf": [{"$ref": f"#/$defs/l{n + 1}"}] * 2} for n in range(60)}
    return compiled(**{"$ref": "#/$defs/l0", "$defs": {**levels, "l60": {}}})


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (exploding(), {}),
        (compiled(**{"$ref": "#"}), {}),
        (compiled(properties={"a": {"$ref": "#/properties/a"}}), {"a": 1}),
        (compiled(properties={"a": {"items": {"type": "integer"}}}), {"a": [1] * (MAX_STEPS + 1)}),
        (compiled(properties={"a": {"uniqueItems": True}}), {"a": [{"n": n} for n in range(MAX_STEPS + 1)]}),
        (compiled(properties={"a": {"items": {"enum": [*range(2000)]}}}), {"a": [-1, *[1999] * 1000]}),
    ],
    ids=["exploding references", "self", "recursion", "long list", "unique items", "long enumeration"],
)
def test_a_validation_without_end_is_ended(schema, value):
    with pytest.raises((OutputLimit, InputError)):
        schema.check(value)


def test_a_schema_of_too_many_parts_is_refused():
    with pytest.raises(InputError, match="too large"):
        compiled(properties={f"p{n}": TEXT for n in range(6000)})


def test_a_budget_is_for_one_validation():
    schema = compiled(properties={"a": {"items": {"type": "integer"}}})
    for _ in range(3):
        schema.check({"a": [1] * (MAX_STEPS // 2)})


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        2**63,
        -(2**63),
        "\ud800",
        {"\udc00": 1},
        {1: 2},
        {1},
        b"x",
        pytest.param(object(), id="object()"),
    ],
    ids=repr,
)
def test_what_is_no_json_is_refused(value):
    with pytest.raises(InputError):
        json_value({"a": [value]})


def test_json_is_copied_plainly():
    assert json_value({"a": (1, 2.5, None, True, "é")}) == {"a": [1, 2.5, None, True, "é"]}
    deep = []
    for _ in range(100):
        deep = [deep]
    with pytest.raises(InputError, match="deeper"):
        json_value(deep)
