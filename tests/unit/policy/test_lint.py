"""What `policy check` remarks on, and what it leaves alone."""

import pytest

from symbi.policy.catalog import ToolType
from symbi.policy.engine import PolicySet, PolicySource
from symbi.policy.library import BASE
from symbi.policy.lint import LINTS, Known, Lint, lint
from symbi.testing.requests import SCHEMAS

TOOLS = [ToolType(name, schema) for name, schema in SCHEMAS.items()]
SEND = 'action == Action::"InvokeTool::mail.send"'
TO, AMOUNT = "context.arguments has to && ", "context.arguments has amount && "


def remarks(text: str, known: Known | None = None, tools: list[ToolType] | None = None) -> list[Lint]:
    policies = PolicySet.load([PolicySource("p.cedar", text)], (), TOOLS if tools is None else tools)
    return lint(policies, known or Known())


def when(condition: str, effect: str = "permit") -> str:
    return f"{effect} (principal, {SEND}, resource) when {{ {condition} }};"


def scoped(principal: str = "principal", resource: str = "resource") -> str:
    return f"permit ({principal}, {SEND}, {resource});\n"


@pytest.mark.parametrize(
    ("text", "code", "told"),
    [
        (when("false"), "never-fires", "`false` is never true"),
        (when(TO + 'context.arguments.to == "a" && context.arguments.to == "b"'), "never-fires", 'must be "a"'),
        (when(AMOUNT + "context.arguments.amount > 5 && context.arguments.amount <= 5"), "never-fires", "cannot both"),
        (when('["a", "b"].contains(principal.owner) && principal.owner like "c*"'), "never-fires", 'must be "a", "b"'),
        (when("resource is Memory", "forbid"), "never-fires", "`resource is Memory` is never true of what its scope"),
        (when("context.arguments has nope"), "never-fires", "`context.arguments has nope`"),
        (when("resource.verified && !resource.verified"), "never-fires", "`resource.verified` and its opposite"),
        (when("!resource.verified && resource.verified"), "never-fires", "`!resource.verified` and its opposite"),
        (when('context.label.integrity == "untrustd"'), "unknown-value", "`context.label.integrity` is never `untrustd`"),
        (when('["high", "trusted"].contains(principal.trust)'), "unknown-value", "never `high`"),
        (when('context.labels has to && context.labels.to.integrity == "usr"'), "unknown-value", "never `usr`"),
        (when('context.labels has to && context.labels.to.confidentiality == "top"'), "unknown-value", "never `top`"),
        (when('context.label.confidentiality == "top"'), "unknown-value", "`context.label.confidentiality` is never `top`"),
        (when(AMOUNT + "context.arguments.amount + 1 < 5", "forbid"), "can-fail", "overflows for large numbers"),
        (when(AMOUNT + "-context.arguments.amount < 5", "forbid"), "can-fail", "overflows for large numbers"),
        (when(AMOUNT + "context.arguments.amount > 5 && context.arguments.amount * 2 < 5", "forbid"), "can-fail", "* 2"),
        (when('Agent::"b".trust == "trusted"', "forbid"), "can-fail", "not part of a request"),
        (when("resource.verified") + f"\nforbid (principal, {SEND}, resource);", "shadowed", "forbid p.cedar:2"),
        (when("resource.verified") + '\nforbid (principal, action in Action::"InvokeTool", resource);', "shadowed", ""),
        (when("resource.verified") + "\n" + when("resource.verified", "forbid"), "shadowed", "(p.cedar:2)"),
        (when("true") + "\n" + when("resource.verified"), "implied", "permit p.cedar:1"),
        (when("resource.verified") + "\n" + when("resource.verified"), "implied", "permit p.cedar:1"),
        (when("resource.verified", "forbid") + "\n" + when("resource.verified && true", "forbid"), "implied", "forbid p"),
        (scoped("principal is Agent") + scoped('principal == Agent::"a"', "resource"), "implied", "permit p.cedar:1"),
        (scoped("principal is Agent") + scoped('principal is Agent in Group::"g"'), "implied", "permit p.cedar:1"),
        (scoped('principal in Group::"g"') + scoped('principal is Agent in Group::"g"'), "implied", "permit p.cedar:1"),
        (scoped(resource='resource in Tool::"mail.send"') + scoped(resource='resource == Tool::"mail.send"'), "implied", ""),
        (scoped(resource="resource is Tool") + scoped(resource='resource == Tool::"mail.send"'), "implied", ""),
        (scoped(resource="resource is Tool") + scoped(resource='resource is Tool in ToolServer::"mail"'), "implied", ""),
        ('permit (principal, action == Action::"InvokeTool::mail.sent", resource);', "unused", "no tool `mail.sent`"),
    ],
)  # fmt: skip
def test_a_remark_names_policy_place_and_reason(text: str, code: str, told: str) -> None:
    (found,) = remarks(text)
    assert (found.code, found.place.file) == (code, "p.cedar")
    assert found.policy in found.message
    assert told in found.message
    assert found.hint
    assert str(found.place) in str(found)


@pytest.mark.parametrize(
    "text",
    [
        BASE.text,
        when(AMOUNT + "context.arguments.amount >= 5 && context.arguments.amount <= 5"),
        when(AMOUNT + "context.arguments.amount < 100 && context.arguments.amount > 0 && context.arguments.amount + 1 < 5"),
        when(TO + '["a", "b"].contains(context.arguments.to) && context.arguments.to like "b*"'),
        when('context.label.integrity != "untrusted"'),
        # One may fail: without it, what it denied by its failure could be allowed.
        when("true") + "\n" + when(AMOUNT + "context.arguments.amount * 2 < 5 && resource.verified"),
        # One asks for something that the wider one does not ask for.
        when("true") + '\n@approval("ask") ' + when("resource.verified"),
        # Narrower forbids take nothing away for good.
        when("resource.verified") + "\n" + when('resource.verified && principal.owner == "x"', "forbid"),
        when('principal == Agent::"a" && principal in Group::"ops"'),
        # A part of the tools is not all of them.
        (f'permit (principal, {SEND}, resource is Tool) when {{ resource.verified }};\n'
        f'forbid (principal, {SEND}, resource is Tool in ToolServer::"mail");'),
        'permit (principal == Agent::"a", action, resource);\npermit (principal == Agent::"b", action, resource);',
        scoped('principal in Group::"g"') + scoped('principal is Agent in Group::"h"'),
        scoped(resource='resource in ToolServer::"mail"') + scoped(resource="resource is Tool"),
        'permit (principal, action in Action::"InvokeTool", resource) when { context.arguments has path };',
    ],
)  # fmt: skip
def test_what_is_sound_is_left_alone(text: str) -> None:
    assert [found for found in remarks(text) if found.code != "can-fail"] == []


@pytest.mark.parametrize(
    "condition",
    [
        "context.arguments.amount > 0 && context.arguments.amount < 100 && context.arguments.amount + 1 < 5",
        "context.arguments.amount >= 0 && -context.arguments.amount < 5",
        "context.arguments.amount == 7 && context.arguments.amount * context.arguments.amount < 50",
        "context.arguments.amount <= 0 && context.arguments.amount + 9223372036854775807 > 5",
        "!(context.arguments.amount > 100) && context.arguments.amount + 5 < 50",
        "9223372036854775806 + 1 > context.arguments.amount",
    ],
)
def test_what_stays_within_bounds_that_were_checked_before_cannot_fail(condition: str) -> None:
    assert "can-fail" not in {found.code for found in remarks(when(AMOUNT + condition, "forbid"))}


def test_a_policy_that_can_fail_hides_nothing_behind_it() -> None:
    failing = when(AMOUNT + "context.arguments.amount * 2 < 5", "forbid")
    found = remarks("\n".join([failing, when("resource.verified"), when("resource.verified")]))
    assert [(each.code, each.place.line) for each in found] == [("can-fail", 1), ("implied", 3)]


def test_a_decimal_that_is_written_out_cannot_fail() -> None:
    risky = (
        'forbid (principal, action == Action::"CreateAgent", resource) when { context.risk.lessThan(decimal("0.5")) };'
    )
    assert remarks(risky) == []


def test_where_no_tool_is_known_nothing_is_said_of_tools_in_general() -> None:
    text = 'permit (principal, action in Action::"InvokeTool", resource) when { context.arguments has path };'
    assert remarks(text, tools=[]) == []
    (found,) = remarks(text.replace("path", "paht"))
    assert "as far as the tools known now go" in found.hint


def test_agents_groups_and_servers_are_looked_up_where_they_are_known() -> None:
    text = (
        'permit (principal == Agent::"trage", action, resource);\n'
        'permit (principal in Group::"oncal", action, resource);\n'
        'permit (principal, action == Action::"ConnectServer", resource == ToolServer::"notifi");'
    )
    known = Known(frozenset({"triage"}), frozenset({"oncall"}), frozenset({"notify"}))
    assert [(each.code, each.place.line, each.hint) for each in remarks(text, known)] == [
        ("unused", 1, "did you mean `triage`?"),
        ("unused", 2, "did you mean `oncall`?"),
        ("unused", 3, "did you mean `notify`?"),
    ]
    assert remarks(text) == []


def test_every_code_is_documented() -> None:
    assert set(LINTS) == {"unused", "never-fires", "unknown-value", "shadowed", "implied", "can-fail"}


def test_a_forbid_about_a_group_waits_for_its_first_member():
    text = '@id("f") {} (principal in Group::"batch", action, resource);'
    for effect, groups, told in (("forbid", (), 0), ("permit", (), 1), ("forbid", ("bacth",), 1)):
        policies = PolicySet.load([PolicySource("p.cedar", text.format(effect))])
        found = lint(policies, Known(frozenset(), frozenset(groups), frozenset()))
        assert [each.code for each in found] == ["unused"] * told
