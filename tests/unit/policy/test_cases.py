"""Cases are read with the place of every mistake, and compare verdict, policies and conditions."""

import pytest

from symbi.errors import InputError
from symbi.policy.cases import KnownTool, parse_cases, run_cases
from symbi.policy.context import flow_context
from symbi.policy.fields import Role, ToolFlow, parse_path
from symbi.policy.grants import NO_GRANT
from symbi.policy.sinks import CallFacts
from symbi.types import AgentId, Principal, Resource

POLICIES = """
@id("send") @redact("arguments.body") permit(principal in Group::"oncall", action == Action::"InvokeTool::notify.send", resource);
@id("no-untrusted") forbid(principal, action in Action::"InvokeTool", resource)
when { context.labels has recipient && context.labels.recipient.integrity == "untrusted" };
@id("create") permit(principal, action == Action::"CreateAgent", resource) when { context.risk.lessThan(decimal("0.5")) };
"""

HEAD = """
[[case]]
name = "n"
action = "InvokeTool::notify.send"
principal = { agent = "triage", groups = ["oncall"] }
"""
TOOL = """
resource = { type = "Tool", id = "notify.send", attributes = { server = "notify", verified = true, recovery = "idempotent" }, parents = [["ToolServer", "notify"]] }
"""
CONTEXT = """
context = { arguments = { recipient = "a" } }
"""


def _run(load, text):
    (result,) = run_cases(load(POLICIES), parse_cases("cases.toml", text))
    return result


def test_a_case_is_read_whole(load):
    (case,) = parse_cases("c.toml", HEAD + TOOL + CONTEXT + 'expect = "deny"\npolicies = ["a"]')
    assert case.request.principal == Principal(AgentId("triage"), "unknown", ("oncall",), "standard")
    assert case.request.resource == Resource(
        "Tool",
        "notify.send",
        (
            ("server", "notify"),
            ("verified", True),
            ("recovery", "idempotent"),
            ("risk", "medium"),
            ("effect", "any"),
        ),
        (("ToolServer", "notify"),),
    )
    assert case.request.context == {
        "arguments": {"recipient": "a"},
        "labels": {},
        "label": {"integrity": "user", "confidentiality": "public", "categories": []},
        "secrets": [],
        "opaque": [],
        "request": {"run": "", "position": -1, "attempt": 1},
        **flow_context(CallFacts(sinks=frozenset({"recipient"})), NO_GRANT),
    }
    assert (str(case.place), case.expect, case.policies, case.conditions) == ("c.toml:2:1", "deny", {"a"}, None)


def test_a_case_passes_where_verdict_policies_and_conditions_are_as_expected(load):
    more = 'expect = "allow_with_conditions"\npolicies = ["send"]\nconditions = ["redact=arguments.body"]'
    assert _run(load, HEAD + TOOL + CONTEXT + more).passed


def test_a_denial_passes_where_the_forbid_is_the_expected_one(load):
    label = "[case.context]\narguments = { recipient = 'a' }\nlabels.recipient = { integrity = 'untrusted', confidentiality = 'public' }"
    result = _run(load, HEAD + TOOL + f'expect = "deny"\npolicies = ["no-untrusted"]\n{label}')
    assert result.problems == ()


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ('expect = "deny"', "expected `deny`, got `allow_with_conditions`"),
        ('expect = "allow"', "expected `allow`, got `allow_with_conditions`"),
        ('expect = "allow_with_conditions"\npolicies = ["create"]', "expected the policies `create`, got `send`"),
        (
            'expect = "allow_with_conditions"\nconditions = []',
            "expected the conditions none, got `redact=arguments.body`",
        ),
        (
            'expect = "allow_with_conditions"\npolicies = ["b", "a"]',
            "expected the policies `a`, `b`, got `send`",
        ),
    ],
)
def test_a_case_fails_where_something_is_different(load, more, problem):
    result = _run(load, HEAD + TOOL + CONTEXT + more)
    assert not result.passed
    assert problem in result.problems


def test_an_unexpected_denial_says_why(load):
    text = HEAD.replace("oncall", "other") + TOOL + CONTEXT + 'expect = "allow_with_conditions"'
    assert (
        _run(load, text)
        .problems[0]
        .endswith("got `deny`: no policy permits `InvokeTool::notify.send` for agent `triage`")
    )


def test_a_case_that_does_not_fit_the_schema_fails_also_where_it_expects_a_denial(load):
    result = _run(load, HEAD + TOOL + 'expect = "deny"')
    assert not result.passed
    assert "does not fit the schema" in result.problems[0]


def test_floats_stand_for_decimals(load):
    text = """
[[case]]
name = "n"
action = "CreateAgent"
principal.agent = "a"
resource = { type = "Agent", id = "a", attributes = { owner = "unknown", trust = "standard" } }
context = { tier = "docker", risk = 0.25, sourceDigest = "", inputs = [] }
expect = "allow"
"""
    assert _run(load, text).passed
    assert not _run(load, text.replace("0.25", "0.75")).passed


@pytest.mark.parametrize(
    ("text", "place", "problem"),
    [
        ("[[case]\n", "1:7", "expected"),
        ("x = ", "1:5", "invalid value"),
        ("\n[[cases]]", "2:3", "did you mean `case`"),
        ("case = 1", "1:1", "not a list of tables"),
        ("case = [1]", "1:1", "not a list of tables"),
        (HEAD + TOOL + 'expect = "deny"\nexpects = 1', "9:1", "did you mean `expect`"),
        (HEAD + TOOL, "2:1", "`expect` is missing"),
        (HEAD + TOOL + 'expect = "denied"', "8:1", "did you mean `deny`"),
        (HEAD + TOOL + 'expect = ""', "8:1", "is empty"),
        (HEAD + 'expect = "deny"', "2:1", "`resource` is missing"),
        (HEAD + 'expect = "deny"\nresource = 3', "7:1", "`resource` is not a table"),
        (HEAD + 'expect = "deny"\nresource = { type = "Tool", id = "x", kind = 1 }', "7:39", "unknown key `kind`"),
        (HEAD + 'expect = "deny"\nresource = { type = "Tool", id = "x", parents = ["a"] }', "7:39", "list of pairs"),
        (HEAD + 'expect = "deny"\nresource = { type = "Tool", id = "x", parents = ["ab"] }', "7:39", "list of pairs"),
        (HEAD + 'expect = "deny"\nresource = { type = "Tool", id = "x", parents = [["a"]] }', "7:39", "list of pairs"),
        (HEAD + TOOL + 'expect = "deny"\npolicies = "a"', "9:1", "list of strings"),
        (HEAD.replace("groups", "group") + TOOL + 'expect = "deny"', "5:33", "did you mean `groups`"),
        (HEAD + TOOL + 'expect = "deny"\ncontext = { at = 2026-01-01 }', "9:1", "`at` is a date"),
        (HEAD + TOOL + 'expect = "deny"\ncontext = { a = [0.12345] }', "9:1", "four decimal places"),
        (
            HEAD + TOOL + 'expect = "deny"\n' + HEAD + 'resource = { type = "Tool" }\nexpect = "deny"',
            "10:1",
            "`id` is missing",
        ),
        (
            f'{HEAD}{TOOL}context = {{ group = "x" }}\nexpect = "deny"\n{HEAD.replace("groups", "group")}{TOOL}expect = "deny"',
            "14:33",
            "did you mean `groups`",
        ),
        (
            HEAD + 'expect = "deny"\nresource = { type = "Tool", id = "x", attributes = { at = 2026-01-01 } }',
            "7:39",
            "`at` is a date",
        ),
        (
            HEAD + 'expect = "deny"\nresource = { type = "Tool", id = "x", attributes = { risk = 0.12345 } }',
            "7:39",
            "`risk` has more than four decimal places",
        ),
        ('[[case]]\nname = "n"\naction = 1', "3:1", "`action` is not a string"),
    ],
)
def test_a_mistake_in_a_case_has_its_place(text, place, problem):
    with pytest.raises(InputError, match=problem) as caught:
        parse_cases("c.toml", text)
    assert str(caught.value.place) == f"c.toml:{place}"


def test_no_cases_are_no_cases():
    assert parse_cases("c.toml", "# nothing yet\n") == []


CALL = '[[case]]\nname = "n"\nprincipal = { agent = "a" }\naction = "InvokeTool::notify.send"\nexpect = "deny"\n'
KNOWN = {
    "notify.send": KnownTool(
        Resource(
            "Tool",
            "notify.send",
            (
                ("server", "notify"),
                ("verified", True),
                ("recovery", "idempotent"),
                ("risk", "high"),
                ("effect", "send"),
            ),
            (("ToolServer", "notify"),),
        ),
        ToolFlow(roles=((parse_path("body"), Role.TEXT),)),
    )
}


def context_of(facts, resource='resource = { type = "Tool", id = "notify.send" }', tools=KNOWN):
    (case,) = parse_cases("c.toml", f"{CALL}{resource}\ncontext = {facts}\n", tools)
    return case.request


def test_sinks_and_what_taints_them_follow_from_arguments_and_labels():
    facts = (
        '{ arguments = { recipient = "a", body = "hello" }, labels = { recipient = { integrity = "untrusted", '
        'confidentiality = "public" }, body = { integrity = "user", confidentiality = "secret" } } }'
    )
    context = context_of(facts).context
    assert (context["sinks"], context["tainted"], context["confidentialSinks"]) == (
        ["recipient"],
        ["recipient"],
        ["body"],
    )
    context = context_of(facts, tools={}).context
    assert context["sinks"] == ["body", "recipient"]  # nothing says that the body is text
    context = context_of(facts.replace("{ arg", "{ tainted = [], arg")).context
    assert context["tainted"] == []  # a case may say it itself


def test_a_tool_that_is_known_need_not_be_described():
    assert context_of("{}").resource == KNOWN["notify.send"].resource
    told = context_of("{}", 'resource = { type = "Tool", id = "notify.send", attributes = { verified = false } }')
    assert dict(told.resource.attributes)["verified"] is False
    assert dict(told.resource.attributes)["risk"] == "high"
    assert context_of("{}", tools={}).resource.attributes == ()


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (
            '{ labels = { to = { integrity = "usr", confidentiality = "public" } } }',
            "`labels.to.integrity` is no integrity",
        ),
        ('{ label = { integrity = "user" } }', "`label.confidentiality` is no confidentiality"),
        ('{ label = "user" }', "`label` is not a table"),
    ],
)
def test_a_label_that_is_none_is_refused_with_its_place(facts, message):
    with pytest.raises(InputError, match=message) as caught:
        context_of(facts)
    assert caught.value.place.line == 7
