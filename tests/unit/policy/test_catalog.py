"""The schema holds one action for each tool, and a general one."""

import cedarpy
import pytest

from symbi.errors import InputError
from symbi.policy.catalog import ANY_TOOL, BASE_ACTIONS, ToolType, quote, schema_text


def test_the_base_actions_are_those_of_the_schema_file():
    assert sorted(BASE_ACTIONS) == [
        "AllocateResources",
        "BrowseServer",
        "CallModel",
        "Canary",
        "Complete",
        "ConfigureAgent",
        "ConfigurePolicies",
        "ConnectServer",
        "ControlRuntime",
        "CreateAgent",
        "DeclassifyValue",
        "DrawRandom",
        "EndorseValue",
        "ExecuteCode",
        "ExportData",
        "GetPrompt",
        "InvokeTool",
        "PublishMessage",
        "ReadClock",
        "ReadData",
        "ReadResource",
        "RequestApproval",
        "RunContainer",
        "SendMessage",
        "ServerElicitation",
        "ServerRoots",
        "ServerSampling",
        "SubscribeTopic",
        "WriteData",
        "WriteLog",
    ]


def test_a_tool_has_an_action_with_the_types_of_its_arguments():
    schema = {
        "properties": {"a": {"type": "string"}, "b": {"type": "array", "items": {"type": "number"}}, "free": {}},
        "required": ["a", "free"],
    }
    text = schema_text([ToolType("s.t", schema)])
    assert 'action "InvokeTool::s.t" in [InvokeTool]' in text
    assert 'arguments: { "a": String, "b"?: Set<decimal> }' in text
    assert 'labels: { "a"?: Label, "b"?: Label, "free"?: Label }' in text


def test_names_from_outside_cannot_break_out_of_the_schema():
    hostile = 'x": String } }; action Evil appliesTo { principal: [Agent], resource: [Agent] }; //\n\\\x00é'
    text = schema_text([ToolType(f"s.{hostile}", {"properties": {hostile: {"type": "string"}}})])
    schema = cedarpy.Schema.from_str(text)
    evil = 'permit(principal, action == Action::"Evil", resource);'
    assert not cedarpy.validate_policies(evil, schema)
    assert quote('a"\\\né') == '"a\\"\\\\\\u{a}\\u{e9}"'


def test_a_general_policy_must_ask_before_it_reads_an_argument():
    for tools in ([], [ToolType("s.t", {"properties": {"path": {"type": "string"}}, "required": ["path"]})]):
        schema = cedarpy.Schema.from_str(schema_text(tools))
        scope = 'permit(principal, action in Action::"InvokeTool", resource)'
        guarded = f'{scope} when {{ context.arguments has path && context.arguments.path like "x*" }};'
        labelled = f'{scope} when {{ context.labels has path && context.labels.path.integrity == "user" }};'
        plain = f'{scope} when {{ context.label.integrity == "user" && !context.opaque.contains("path") }};'
        bare = f'{scope} when {{ context.arguments.path like "x*" }};'
        assert [bool(cedarpy.validate_policies(each, schema)) for each in (guarded, labelled, plain, bare)] == [
            True,
            True,
            True,
            False,
        ]


@pytest.mark.parametrize("name", ["", "tool", ".tool", "server.", "*", "s.\ud800"])
def test_a_name_that_is_not_server_and_tool_is_refused(name):
    with pytest.raises(InputError, match="not the name of a tool"):
        schema_text([ToolType(name, {})])


def test_a_tool_that_is_there_twice_is_refused():
    with pytest.raises(InputError, match=r"`s\.t` is there twice"):
        schema_text([ToolType("s.t", {}), ToolType("s.t", {"properties": {}})])


def test_the_order_of_the_catalogue_does_not_matter():
    one, two = ToolType("a.a", {"properties": {"x": {"type": "string"}}}), ToolType("b.b", {})
    assert schema_text([one, two], ["z.z"]) == schema_text([two, one], ["z.z", "a.a"])
    assert ANY_TOOL in schema_text([])
