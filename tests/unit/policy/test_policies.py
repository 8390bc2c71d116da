"""Loading is all or nothing; ids are unique and ours; annotations mean something; the schema is obeyed."""

from dataclasses import FrozenInstanceError, dataclass

import pytest

from symbi.errors import Place, PolicySyntaxError
from symbi.policy.catalog import ToolType
from symbi.policy.decision import ConditionKind, PolicyCondition
from symbi.policy.library import BASE
from symbi.policy.policies import PolicySet
from symbi.policy.source import PolicySource

LOG = 'action == Action::"WriteLog", resource'


@dataclass(frozen=True)
class Rule:
    id: str
    text: str
    place: Place


def _refused(*texts, compiled=(), tools=()):
    sources = [PolicySource(f"p{index}.cedar", text) for index, text in enumerate(texts)]
    with pytest.raises(PolicySyntaxError) as caught:
        PolicySet.load(sources, compiled, tools)
    return caught.value


def test_the_canary_is_in_every_set(load):
    assert [policy.id for policy in load().policies] == ["symbi.canary"]
    assert load().policies[0].effect == "forbid"


def test_a_policy_knows_its_id_place_effect_text_and_annotations(load):
    policies = load(f'// first\n\n@id("a") @severity("high")\npermit(principal, {LOG});\nforbid(principal, {LOG});')
    _, first, second = policies.policies
    assert (first.id, first.file, first.line, first.effect) == ("a", "p0.cedar", 3, "permit")
    assert first.annotations == {"id": "a", "severity": "high"}
    assert first.text.startswith('@id("a")')
    assert (second.id, second.line, second.effect) == ("p0.cedar:5", 5, "forbid")
    assert policies.by_id["a"] is first
    assert str(second.ref) == "p0.cedar:5 (p0.cedar:5)"


def test_a_set_cannot_be_changed(load):
    policies = load(f"permit(principal, {LOG});")
    with pytest.raises(FrozenInstanceError):
        policies.version = "x"
    with pytest.raises(TypeError):
        policies.by_id["x"] = policies.policies[0]


@pytest.mark.parametrize(
    "texts",
    [
        (f'@id("a") permit(principal, {LOG});\n@id("a") permit(principal, {LOG});',),
        (f'@id("a") permit(principal, {LOG});', f'@id("a") forbid(principal, {LOG});'),
        (f"permit(principal, {LOG}); permit(principal, {LOG});",),
        (f'@id("p1.cedar:1") permit(principal, {LOG});', f"permit(principal, {LOG});"),
    ],
)
def test_a_repeated_id_is_refused_also_across_files(texts):
    error = _refused(*texts)
    assert error.code == "policy.repeated_id"
    assert error.place is not None


@pytest.mark.parametrize(
    ("annotations", "problem"),
    [
        ('@id("symbi.mine")', "reserved"),
        ('@id("")', "not a policy id"),
        ("@id", "not a policy id"),
        ('@id("a b")', "not a policy id"),
        ('@id("a`b")', "not a policy id"),
        ('@aproval("x")', "did you mean `approval`"),
        ('@whatever("x")', "known are `id`"),
        ('@redact("body")', "in `@redact`: `body` is not a path"),
        ('@cap("arguments.amount")', "in `@cap`"),
        ('@tier("gvizor")', "did you mean `gvisor`"),
        ('@timeout("30")', "in `@timeout`"),
        ("@approval", "in `@approval`"),
        ('@record("all")', "in `@record`"),
    ],
)
def test_an_annotation_that_means_nothing_is_an_error(annotations, problem):
    error = _refused(f"\n{annotations}\npermit(principal, {LOG});")
    assert problem in str(error)
    assert error.place == Place("p0.cedar", 2, 1)


@pytest.mark.parametrize("kind", [kind.value for kind in ConditionKind])
def test_a_condition_on_a_forbid_is_an_error(kind):
    assert "on a forbid" in str(_refused(f'@{kind}("x") forbid(principal, {LOG});'))


def test_conditions_are_read_from_annotations(load):
    policies = load(f'@id("a") @tier("gvisor") @redact("arguments.x") @doc("d") permit(principal, {LOG});')
    assert policies.by_id["a"].conditions == (
        PolicyCondition(ConditionKind.REDACT, "arguments.x", "a"),
        PolicyCondition(ConditionKind.TIER, "gvisor", "a"),
    )


def test_templates_are_refused():
    assert "template" in str(_refused(f"permit(principal == ?principal, {LOG});"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"permit(principal, {LOG}) when {{ context.nothing }};", "attribute `nothing`"),
        (f"permit(principal, {LOG}) when {{ principal.trust > 3 }};", "unexpected type"),
        (f'permit(principal == Tool::"x", {LOG});', "unable to find an applicable action"),
        ('permit(principal, action == Action::"WritLog", resource);', "did you mean `WriteLog`"),
        ('permit(principal, action == Action::"InvokeTool:notify.send", resource);', "unknown action"),
        ('permit(principal, action in Action::"InvokeTool", resource) when { context.arguments.x };', "not found"),
    ],
)
def test_what_does_not_fit_the_schema_is_refused_with_its_place(text, problem):
    error = _refused(f"\n\n{text}")
    assert problem in str(error)
    assert str(error.place) == "p0.cedar:3:1"


def test_validation_names_the_right_one_of_many_policies():
    texts = [f'@id("p{number}") permit(principal, {LOG});' for number in range(30)]
    texts[23] = f'@id("p23") permit(principal, {LOG}) when {{ context.nothing }};'
    error = _refused("\n".join(texts))
    assert "policy `p23`" in error.message
    assert error.place == Place("p0.cedar", 24, 1)


def test_all_problems_are_listed():
    error = _refused(f"@foo permit(principal, {LOG});\npermit(principal;\nforbid(principal, {LOG});", "permit(")
    assert error.message.endswith("(and 2 more)")
    assert [text.split(": ")[0] for text in error.fields["errors"]] == ["p0.cedar:1:1", "p0.cedar:2:17", "p1.cedar:1:8"]


def test_compiled_policies_keep_their_id_and_the_place_of_their_rule():
    rule = Rule("triage.symbi:4", f"permit(principal, {LOG});", Place("triage.symbi", 4, 5))
    policies = PolicySet.load([], [rule])
    assert policies.by_id["triage.symbi:4"].ref == policies.policies[1].ref
    assert (policies.policies[1].file, policies.policies[1].line) == ("triage.symbi", 4)
    assert policies.compiled == (rule,)


@pytest.mark.parametrize(
    "text",
    [f'@id("b") permit(principal, {LOG});', f"permit(principal, {LOG}); permit(principal, {LOG});", "", "permit("],
)
def test_a_compiled_rule_must_be_one_policy_without_an_id(text):
    error = _refused(compiled=[Rule("a.symbi:4", text, Place("a.symbi", 4, 5))])
    assert error.place.file == "a.symbi"
    assert error.place.line == 4


def test_a_policy_on_an_unknown_tool_is_kept_with_a_warning(load, notify):
    text = '@id("a") permit(principal, action == Action::"InvokeTool::notify.sent", resource) when { context.arguments.x };'
    (warning,) = load(text).warnings
    assert str(warning) == (
        "p0.cedar:1:1: policy `a` names the tool `notify.sent`, which is not in the catalogue; did you mean `notify.send`?"
    )
    assert load(text, tools=()).warnings[0].hint == "the policy cannot fire until a server offers it"


def test_an_unknown_tool_as_a_resource_is_warned_of_too(load):
    (warning,) = load('permit(principal, action in Action::"InvokeTool", resource == Tool::"notify.sent");').warnings
    assert warning.hint == "did you mean `notify.send`?"


def test_a_policy_on_a_tool_is_validated_once_the_tool_is_known(load, notify):
    text = 'permit(principal, action == Action::"InvokeTool::notify.send", resource) when { context.arguments.cc like "x" };'
    assert load(text, tools=()).warnings
    assert "attribute `arguments.cc`" in str(_refused(text, tools=[notify]))


def test_a_policy_on_a_known_action_is_validated_also_where_it_names_an_unknown_tool():
    scope = 'action in [Action::"InvokeTool::a.b", Action::"WriteLog"]'
    assert "attribute `nothing`" in str(_refused(f"permit(principal, {scope}, resource) when {{ context.nothing }};"))


def test_the_base_library_is_valid_without_any_tool():
    policies = PolicySet.load([BASE])
    assert policies.warnings == ()
    assert [policy.id for policy in policies.policies] == [
        "symbi.canary",
        "base.create-agent",
        "base.allocate",
        "base.interpreter",
        "base.log",
        "base.configure-policies",
        "base.ask-people",
        "base.knowledge",
        "base.knowledge-retention",
        "base.control",
    ]


def test_the_version_covers_policies_places_and_schema(load, notify):
    text = f"permit(principal, {LOG});"
    version = load(text).version
    assert len(version) == 64
    assert load(text).version == version
    others = {
        load(f"\n{text}").version,
        load(f"forbid(principal, {LOG});").version,
        load(text, tools=()).version,
        load(text, tools=(ToolType(notify.name, {}),)).version,
        load(text, f"permit(principal, {LOG});").version,
    }
    assert len(others) == 5
    assert version not in others


def test_the_version_covers_the_place_of_a_policy_with_an_id(load):
    text = f'@id("a") permit(principal, {LOG});'
    assert load(text).version != load(f"\n{text}").version


def test_the_version_does_not_depend_on_the_order_of_the_sources():
    one, two = PolicySource("a", f"permit(principal, {LOG});"), PolicySource("b", f"forbid(principal, {LOG});")
    assert PolicySet.load([one, two]).version == PolicySet.load([two, one]).version


def test_a_policy_knows_what_it_names(load):
    policies = load(
        'permit(principal is Agent in Group::"g", action in [Action::"WriteLog", Action::"ReadClock"], resource)'
        ' when { principal in [Agent::"b"] && {"type": "Tool", "id": "no"}.id == "no" && resource == Resource::"log" };'
    )
    assert policies.policies[1].names == {
        ("Group", "g"),
        ("Action", "WriteLog"),
        ("Action", "ReadClock"),
        ("Agent", "b"),
        ("Resource", "log"),
    }
    assert policies.policies[1].scope_actions() == {"WriteLog", "ReadClock"}


def test_a_scope_without_any_action_is_read_too(load):
    text = "permit(principal, action in [], resource) when { principal has owner };"
    error = _refused(text)
    assert "applicable action" in error.message
