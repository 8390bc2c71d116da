"""Arguments become Cedar values by the tool's schema, or are named as opaque, or deny."""

import math

import pytest

from symbi.errors import InputError
from symbi.policy.context import decimal_value, label_context, tool_context
from symbi.policy.shape import MAX_DEPTH, MAX_NODES, RecordOf, Scalar, SetOf, shape_of
from symbi.types import Confidentiality, Integrity, Label

UNTRUSTED = Label(Integrity.UNTRUSTED, Confidentiality.CONFIDENTIAL, ("e1",))


def _object(properties, **more):
    return {"type": "object", "properties": properties, **more}


def _arguments(declared, value):
    return tool_context(_object({"x": declared}), {"x": value}, {}, Label(), ())["arguments"]


def _decimal(text):
    return {"__extn": {"fn": "decimal", "arg": text}}


@pytest.mark.parametrize(
    ("declared", "value", "expected"),
    [
        ({"type": "string"}, "a\x00é", "a\x00é"),
        ({"type": "integer"}, 2**63 - 1, 2**63 - 1),
        ({"type": "integer"}, -(2**63), -(2**63)),
        ({"type": "integer"}, 3.0, 3),
        ({"type": "number"}, 5, _decimal("5.0000")),
        ({"type": "number"}, -0.5, _decimal("-0.5000")),
        ({"type": "number"}, -0.0, _decimal("0.0000")),
        ({"type": "number"}, 1e3, _decimal("1000.0000")),
        ({"type": "number"}, 0.1234, _decimal("0.1234")),
        ({"type": ["integer", "number"]}, 1, _decimal("1.0000")),
        ({"type": "boolean"}, False, False),
        ({"type": "array", "items": {"type": "integer"}}, [2, 1, 2], [2, 1, 2]),
        ({"type": "array", "items": {"type": "string"}}, [], []),
        ({"enum": ["a", "b"]}, "a", "a"),
        ({"const": "a"}, "a", "a"),
        ({"type": ["string", "null"]}, "a", "a"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, 1, 1),
        ({"oneOf": [{"type": "null"}, {"type": "integer"}]}, 1, 1),
        ({"allOf": [{"type": "boolean"}]}, True, True),
        (_object({"a": {"type": "string"}}), {"a": "b"}, {"a": "b"}),
        ({"type": "object", "additionalProperties": False}, {}, {}),
        (_object({"a": {"type": ["string", "null"]}}, required=["a"]), {"a": None}, {}),
    ],
)
def test_a_typed_argument_is_in_the_context(declared, value, expected):
    context = tool_context(_object({"x": declared}, required=["x"]), {"x": value}, {}, Label(), ())
    assert context["arguments"] == {"x": expected}
    assert type(context["arguments"]["x"]) is type(expected)
    assert context["opaque"] == []


@pytest.mark.parametrize(
    ("declared", "value", "problem"),
    [
        ({"type": "string"}, 1, "not a string"),
        ({"type": "string"}, "\ud800", "lone surrogate"),
        ({"type": "integer"}, 2**63, "64 bits"),
        ({"type": "integer"}, -(2**63) - 1, "64 bits"),
        ({"type": "integer"}, 1e300, "64 bits"),
        ({"type": "integer"}, 1.5, "not an integer"),
        ({"type": "integer"}, True, "not an integer"),
        ({"type": "number"}, 0.00001, "four decimal places"),
        ({"type": "number"}, math.nan, "finite"),
        ({"type": "number"}, math.inf, "finite"),
        ({"type": "number"}, 1e15, "too large"),
        ({"type": "number"}, 10**400, "too large"),
        ({"type": "number"}, True, "finite number"),
        ({"type": "boolean"}, 1, "not a boolean"),
        ({"type": "array", "items": {"type": "string"}}, "text", "not an array"),
        ({"type": "array", "items": {"type": "string"}}, [None], "not a string"),
        (_object({"a": {"type": "string"}}), "text", "not an object"),
        (_object({"a": {"type": "string"}}, required=["a"]), {}, "is missing"),
        (_object({"a": {"type": "string"}}, required=["a"]), {"a": None}, "is missing"),
        (_object({"a": {"type": "string"}}, additionalProperties=False), {"b": 1}, "not declared"),
        (_object({"a": {"type": "string"}}), {"\ud800": 1}, "lone surrogate"),
    ],
)
def test_a_value_outside_of_its_type_is_refused_and_the_field_is_named(declared, value, problem):
    with pytest.raises(InputError, match=problem) as caught:
        _arguments(declared, value)
    assert "arguments.x" in caught.value.message


@pytest.mark.parametrize(
    "declared",
    [
        True,
        {},
        {"type": "object"},
        {"type": "object", "additionalProperties": {"type": "string"}},
        {"type": ["string", "integer"]},
        {"anyOf": [{"type": "string"}, {"type": "integer"}]},
        {"enum": ["a", 1]},
        {"type": "array"},
        {"type": "array", "items": {"type": ["string", "null"]}},
        {"type": "array", "items": {"type": "string"}, "prefixItems": [{"type": "integer"}]},
        {"$ref": "#/$defs/absent"},
        {"$ref": "https://example.org/schema"},
        {"$ref": "#/properties/x"},
        {"$id": "inner", "type": "string"},
        {"properties": {"a": {"type": "string"}}},
    ],
)
def test_what_the_schema_leaves_open_is_left_out_and_named_opaque(declared):
    context = tool_context(_object({"x": declared, "y": {"type": "string"}}), {"x": "v", "y": "w"}, {}, Label(), ())
    assert context["arguments"] == {"y": "w"}
    assert context["opaque"] == ["x"]
    assert "x" in context["labels"]


def test_an_undeclared_or_deeply_open_part_makes_its_argument_opaque():
    schema = _object({"config": _object({"name": {"type": "string"}, "free": {}})})
    context = tool_context(schema, {"config": {"name": "n", "free": 1, "more": 2}, "extra": 3}, {}, Label(), ())
    assert context["arguments"] == {"config": {"name": "n"}}
    assert context["opaque"] == ["config", "extra"]


def test_a_null_argument_is_absent():
    context = tool_context(_object({"x": {"type": "string"}, "y": {}}), {"x": None, "y": None}, {}, Label(), ())
    assert context["arguments"] == {}
    assert context["opaque"] == []


def test_keys_that_cedar_reads_as_escapes_never_reach_it():
    hostile = _object({"__entity": {"type": "string"}, "__extn": {"type": "string"}, "__expr": {"type": "string"}})
    context = tool_context(_object({"x": hostile}), {"x": {"__entity": "Agent", "__extn": "ip"}}, {}, Label(), ())
    assert context["arguments"] == {"x": {}}
    assert context["opaque"] == ["x"]
    assert tool_context(hostile, {"__entity": "a"}, {}, Label(), ())["labels"] == {}


def test_each_argument_bears_its_label_and_the_whole_bears_them_all():
    schema = _object({"to": {"type": "string"}, "body": {"type": "string"}, "free": {}})
    labels = {"to": Label(), "free": UNTRUSTED, "undeclared": Label(confidentiality=Confidentiality.SECRET)}
    context = tool_context(schema, {"to": "a", "body": "b", "free": 1}, labels, Label(), ("k/b", "k/a", "k/a"))
    whole = {"integrity": "untrusted", "confidentiality": "secret", "categories": []}
    assert context["label"] == whole
    assert context["labels"] == {"to": label_context(Label()), "free": label_context(UNTRUSTED), "body": whole}
    assert context["secrets"] == ["k/a", "k/b"]


def test_a_vault_path_with_a_lone_surrogate_is_refused():
    with pytest.raises(InputError, match="lone surrogate"):
        tool_context({}, {}, {}, Label(), ("\udc00",))


def test_decimal_value_has_four_places_and_names_the_field():
    assert decimal_value(0.5) == _decimal("0.5000")
    with pytest.raises(InputError, match="`risk` has more than four"):
        decimal_value(1 / 3, "risk")


# --- reading schemas --------------------------------------------------------------------------


def test_references_resolve_within_the_schema():
    schema = _object(
        {"a": {"$ref": "#/$defs/a~1b%20c"}, "b": {"$ref": "#/$defs/list/0"}, "c": {"$ref": "#/$defs/alias"}},
        **{"$defs": {"a/b c": {"type": "string"}, "list": [{"type": "integer"}], "alias": {"$ref": "#/$defs/a~1b c"}}},
    )
    fields = shape_of(schema).fields
    assert [fields[name].shape for name in "abc"] == [Scalar("String"), Scalar("Long"), Scalar("String")]


@pytest.mark.parametrize("ref", ["#/$defs/list/9", "#/$defs/list/x", "#/title/0", "#anchor", 7])
def test_a_reference_that_leads_nowhere_is_open(ref):
    schema = _object({"a": {"$ref": ref}}, title="t", **{"$defs": {"list": [{"type": "string"}]}})
    assert shape_of(schema).fields["a"].shape is None


def test_the_root_may_be_a_reference():
    schema = {"$ref": "#/$defs/args", "$defs": {"args": _object({"a": {"type": "string"}}, required=["a"])}}
    assert shape_of(schema).fields["a"].required
    assert shape_of({"allOf": [{"$ref": "#/$defs/args"}], "$defs": schema["$defs"]}).fields["a"].required
    assert shape_of({"$ref": "#"}) == RecordOf({}, closed=False)
    assert shape_of({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}) == RecordOf({}, closed=False)


def test_a_recursive_schema_is_open_where_it_recurs():
    tree = _object({"name": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#/$defs/tree"}}})
    shape = shape_of(_object({"tree": {"$ref": "#/$defs/tree"}}, **{"$defs": {"tree": tree}})).fields["tree"].shape
    assert isinstance(shape, RecordOf)
    assert shape.fields["name"].shape == Scalar("String")
    assert shape.fields["children"].shape is None


def test_nesting_is_bounded():
    deep = {"type": "string"}
    for _ in range(MAX_DEPTH + 1):
        deep = {"type": "array", "items": deep}
    assert shape_of(_object({"x": deep})).fields["x"].shape is None
    assert shape_of(_object({"x": deep["items"]["items"]})).fields["x"].shape is not None


def test_a_schema_that_unfolds_without_end_is_bounded():
    definitions = {
        f"d{number}": _object({n: {"$ref": f"#/$defs/d{number + 1}"} for n in "abcd"}) for number in range(12)
    }
    definitions["d12"] = {"type": "string"}
    shape = shape_of({"$ref": "#/$defs/d0", "$defs": definitions})

    def count(each):
        if isinstance(each, RecordOf):
            return 1 + sum(count(field.shape) for field in each.fields.values())
        return 1 + (count(each.item) if isinstance(each, SetOf) else 0)

    assert count(shape) <= 5 * MAX_NODES


def test_draft_four_required_flags_and_junk_are_not_required():
    schema = {"properties": {"a": {"type": "string", "required": True}, "b": {"type": 7}}, "required": True}
    fields = shape_of(schema).fields
    assert not fields["a"].required
    assert fields["b"].shape is None


def test_pattern_properties_leave_a_record_open():
    schema = {"properties": {}, "additionalProperties": False, "patternProperties": {"^x": {"type": "string"}}}
    assert tool_context(schema, {"x1": "v"}, {}, Label(), ())["opaque"] == ["x1"]
