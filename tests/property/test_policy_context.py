"""Whatever a tool's schema and arguments are, the context fits the generated Cedar schema, or there is an InputError."""

import math

import jsonschema
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from symbi.errors import InputError
from symbi.policy.catalog import ToolType
from symbi.policy.context import NO_REQUEST, decimal_value, tool_context
from symbi.policy.decision import Allow, PolicyRequest
from symbi.policy.engine import PolicySet, PolicySource, decide
from symbi.types import AgentId, Label, Principal, Resource

PERMIT = PolicySource("p.cedar", 'permit(principal, action in Action::"InvokeTool", resource);')
RESOURCE = Resource(
    "Tool",
    "s.t",
    (("server", "s"), ("verified", True), ("recovery", "never-retry"), ("risk", "medium"), ("effect", "any")),
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NAMES = st.one_of(
    st.sampled_from(
        ["a", "b", "path", "__entity", "__extn", "__expr", "__cedar", "type", "if", "", 'x"', "a b", "é\n\x00"]
    ),
    TEXT,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=4,
)
HOSTILE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(st.characters(), max_size=4)
    | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.just("\udfff"), inner, max_size=3),
    max_leaves=6,
)
DECIMALS = st.integers(-(10**11), 10**11).map(lambda count: count / 10_000)


@st.composite
def typed(draw, definitions, depth=3):
    """A JSON Schema, and a strategy for values that it accepts."""
    kinds = ["string", "integer", "number", "boolean", "open", "enum", "nullable", "either", "reference"]
    kind = draw(st.sampled_from(kinds + (["array", "object", "object"] if depth else [])))
    match kind:
        case "string":
            return {"type": "string"}, TEXT
        case "integer":
            return {"type": "integer"}, st.integers(-(2**63), 2**63 - 1) | st.integers(-5, 5).map(float)
        case "number":
            return {"type": "number"}, DECIMALS | st.integers(-(10**14), 10**14)
        case "boolean":
            return {"type": "boolean"}, st.booleans()
        case "open":
            return draw(st.sampled_from([True, {}, {"description": "anything"}])), JSON
        case "enum":
            return {"enum": ["x", "y", None]}, st.sampled_from(["x", "y", None])
        case "nullable":
            scalar = draw(st.sampled_from(["string", "boolean"]))
            values = TEXT if scalar == "string" else st.booleans()
            declared = [{"type": [scalar, "null"]}, {"anyOf": [{"type": scalar}, {"type": "null"}], "default": None}]
            return draw(st.sampled_from(declared)), values | st.none()
        case "either":
            return {"oneOf": [{"type": "string"}, {"type": "boolean"}]}, TEXT | st.booleans()
        case "reference":
            schema, values = draw(typed(definitions, max(depth - 1, 0)))
            name = f"d{len(definitions)}"
            definitions[name] = schema
            return {"$ref": f"#/$defs/{name}"}, values
        case "array":
            schema, values = draw(typed(definitions, depth - 1))
            return {"type": "array", "items": schema}, st.lists(values, max_size=3)
        case _:
            return draw(objects(definitions, depth - 1))


@st.composite
def objects(draw, definitions, depth):
    """An object schema, and a strategy for objects that it accepts."""
    properties = {name: draw(typed(definitions, depth)) for name in draw(st.lists(NAMES, max_size=3, unique=True))}
    required = draw(st.lists(st.sampled_from(sorted(properties)), unique=True)) if properties else []
    extra = draw(st.sampled_from([None, True, False]))
    schema = {"type": "object", "properties": {name: each for name, (each, _) in properties.items()}}
    if required:
        schema["required"] = required
    if extra is not None:
        schema["additionalProperties"] = extra
    values = st.fixed_dictionaries(
        {name: each for name, (_, each) in properties.items() if name in required},
        optional={name: each for name, (_, each) in properties.items() if name not in required},
    )
    if extra is not False:
        more = st.dictionaries(NAMES.filter(lambda name: name not in properties), JSON, max_size=2)
        values = st.tuples(values, more).map(lambda pair: {**pair[1], **pair[0]})
    return schema, values


@st.composite
def tools(draw):
    """The input schema of a tool, and arguments that it accepts."""
    definitions = {}
    schema, values = draw(objects(definitions, 3))
    return {**schema, "$defs": definitions}, draw(values)


def _decide(schema, context):
    policies = PolicySet.load([PERMIT], (), [ToolType("s.t", schema)])
    return decide(
        policies,
        PolicyRequest(Principal(AgentId("a")), "InvokeTool::s.t", RESOURCE, {**context, "request": dict(NO_REQUEST)}),
    )


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(tools())
def test_the_context_of_valid_arguments_fits_the_schema(tool):
    schema, values = tool
    jsonschema.Draft202012Validator(schema).validate(values)
    context = tool_context(schema, values, {name: Label() for name in values}, Label(), ("k",))
    assert isinstance(_decide(schema, context), Allow)
    assert {*context["arguments"], *context["opaque"]} >= {name for name, value in values.items() if value is not None}


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(tools(), st.dictionaries(NAMES | st.just("\udfff"), HOSTILE, max_size=3))
def test_arguments_of_any_kind_fit_the_schema_or_are_refused(tool, values):
    schema, _ = tool
    try:
        context = tool_context(schema, values, {}, Label(), ())
    except InputError as error:
        refused = error
    else:
        assert isinstance(_decide(schema, context), Allow)
        return
    assert refused.fields["field"]


@settings(deadline=None, max_examples=200)
@given(
    st.recursive(
        JSON,
        lambda inner: st.dictionaries(
            st.sampled_from(["type", "properties", "items", "$ref", "anyOf", "enum", "required", "a", "#"]),
            inner | st.sampled_from(["object", "string", "array", "#", "#/properties/a"]),
            max_size=4,
        ),
        max_leaves=12,
    )
)
def test_any_json_as_a_schema_gives_a_valid_cedar_schema(schema):
    if isinstance(schema, dict):
        context = tool_context({"properties": {"x": schema}}, {}, {}, Label(), ())
        assert isinstance(_decide({"properties": {"x": schema}}, context), Allow)


@given(st.floats())
def test_a_decimal_is_exact_or_refused(number):
    try:
        value = decimal_value(number)
    except InputError:
        assert not math.isfinite(number) or abs(number) > 9e14 or number != round(number, 4)
        return
    text = value["__extn"]["arg"]
    assert float(text) == number
    assert len(text.partition(".")[2]) == 4
