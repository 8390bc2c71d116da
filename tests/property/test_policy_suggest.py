"""What is suggested decides what was recorded as it was decided, and permits little more."""

from collections.abc import Mapping, Sequence

from hypothesis import example as such
from hypothesis import given, settings
from hypothesis import strategies as st

from symbi.guard.action import AllocateResources, InvokeTool, ToolRef
from symbi.guard.spending import Budget
from symbi.policy.catalog import ToolType
from symbi.policy.decision import Deny, PolicyRequest
from symbi.policy.engine import decide
from symbi.policy.flow import INTEGRITY_RANK
from symbi.policy.policies import PolicySet
from symbi.policy.suggest import MAX_TEXTS, Example, Suggestion, differing, suggest, suggested_source
from symbi.testing.requests import SCHEMAS, allocate, call, create, execute, log
from symbi.types import AgentId, Confidentiality, Integrity, JsonValue, Label, Principal, ResourceLimits, ToolName

TOOLS = [ToolType(name, schema) for name, schema in SCHEMAS.items()]
SEND = "InvokeTool::mail.send"
OPEN = "context.arguments.to is not bounded"

texts = st.one_of(
    st.sampled_from(["a", "b", 'q"\\ \u00e9*', "x/1", "x/2", ""]), st.text(max_size=6).filter(lambda t: t.isprintable())
)
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "to": texts,
        "cc": texts,
        "amount": st.integers(-5, 50) | st.sampled_from([-(2**63), 2**63 - 1]),
        "score": st.sampled_from([0.0, 0.25, -1.5, 3.1415]),
        "urgent": st.booleans(),
        "tags": st.lists(st.sampled_from(["p", "q", "r"]), max_size=3),
        "options": st.fixed_dictionaries({}, optional={"deep": texts}),
        "x-y": texts,
        "anything": st.none() | st.integers(0, 3),
    },
)  # fmt: skip
LABEL = st.builds(
    Label, st.sampled_from(Integrity), st.sampled_from([Confidentiality.PUBLIC, Confidentiality.INTERNAL])
)
WHO = st.builds(Principal, st.sampled_from(["a", "b"]).map(AgentId))


def example(request: PolicyRequest, conditions: frozenset[tuple[str, str]] = frozenset()) -> Example:
    return Example("e", request, conditions, {})


MAIL = st.builds(
    lambda values, label, who, verified: call(
        "mail.send", values, label=label, labels=dict.fromkeys(values, label), principal=who, verified=verified
    ),
    VALUES, LABEL, WHO, st.booleans(),
)  # fmt: skip
OTHER = st.one_of(
    st.builds(log, WHO),
    st.builds(allocate, st.integers(1, 999), st.sampled_from([1.0, 60.0])),
    st.builds(lambda risk, names: create(risk, tuple(names)), st.sampled_from([0.0, 0.5]), st.lists(st.sampled_from(["i", "j"]))),
    st.builds(lambda label: execute(label=label), LABEL),
    st.builds(lambda path: call("files.read", {"path": path}), texts),
)  # fmt: skip
CONDITIONS = st.sampled_from(
    [
        frozenset[tuple[str, str]](),
        frozenset({("approval", "ask")}),
        frozenset({("approval", "ask"), ("approval", 'and "them"'), ("timeout", "5s")}),
    ]
)  # fmt: skip
FAST = settings(deadline=None, max_examples=60)


@FAST
@given(st.lists(st.tuples(st.one_of(MAIL, MAIL, OTHER), CONDITIONS), min_size=1, max_size=6))
@such([(call("mail.send", {"to": "a"}), frozenset()), (call("mail.send", {"cc": "b", "amount": 3}), frozenset())])
@such([(call("mail.send", {"options": {}}), frozenset()), (call("mail.send", {"options": {"deep": "b"}}), frozenset())])
def test_every_recorded_request_is_permitted_again(
    recorded: list[tuple[PolicyRequest, frozenset[tuple[str, str]]]],
) -> None:
    # One request was decided in one way, and requests of one scope under one set of conditions.
    conditions = {(r.principal.agent, r.action, r.resource.id): wanted for r, wanted in recorded}
    examples = [example(r, conditions[r.principal.agent, r.action, r.resource.id]) for r, _ in recorded]
    source = suggested_source("s.cedar", suggest(examples, TOOLS))
    assert differing(source, examples, TOOLS) == []


@FAST
@given(st.lists(MAIL, min_size=1, max_size=7), st.lists(MAIL, min_size=5, max_size=12))
def test_what_lies_outside_of_what_was_seen_is_denied(seen: list[PolicyRequest], asked: list[PolicyRequest]) -> None:
    suggestions = suggest([example(request) for request in seen], TOOLS)
    policies = PolicySet.load([suggested_source("s.cedar", suggestions)], (), TOOLS)
    for request in asked:
        if not isinstance(decide(policies, request), Deny):
            like = [each for each in seen if each.principal.agent == request.principal.agent]
            assert like, "another agent"
            assert_within(request, like, suggestions)


def assert_within(request: PolicyRequest, seen: Sequence[PolicyRequest], suggestions: Sequence[Suggestion]) -> None:
    """No argument is other than those seen, said in another way than the suggestion says it."""
    arguments = given_(request)
    remarks = " ".join(remark for suggestion in suggestions for remark in suggestion.remarks)
    for name, value in arguments.items():
        before = [given_(each)[name] for each in seen if name in given_(each)]
        assert before, f"{name} was never given"
        if name in {"to", "cc", "x-y"} and len(set(map(str, before))) <= MAX_TEXTS:
            assert value in before
        elif name in {"to", "cc", "x-y"} and name not in remarks:
            assert str(value).startswith("x/")
        elif name == "amount":
            numbers = [number for number in before if isinstance(number, int)]
            assert isinstance(value, int)
            assert min(0, *numbers) <= value <= max(numbers)
        elif name == "urgent":
            assert value in before
        elif name == "tags":
            assert isinstance(value, list)
            assert set(value) <= {tag for tags in before if isinstance(tags, list) for tag in tags}
    worst = max(rank(each) for each in seen)
    assert rank(request) <= worst
    opaque = {name for each in seen for name in strings(each, "opaque")}
    assert set(strings(request, "opaque")) <= opaque
    if all(dict(each.resource.attributes)["verified"] for each in seen):
        assert dict(request.resource.attributes)["verified"]


def given_(request: PolicyRequest) -> Mapping[str, JsonValue]:
    arguments = request.context["arguments"]
    assert isinstance(arguments, Mapping)
    return arguments


def strings(request: PolicyRequest, name: str) -> list[str]:
    found = request.context[name]
    assert isinstance(found, list)
    return [str(item) for item in found]


def rank(request: PolicyRequest) -> int:
    label = request.context["label"]
    assert isinstance(label, Mapping)
    return INTEGRITY_RANK[Integrity(str(label["integrity"]))]


def test_paths_below_one_folder_become_the_folder_and_do_not_climb() -> None:
    seen = [example(call("files.read", {"path": f"logs/app/{n}.log"})) for n in range(9)]
    (found,) = suggest(seen, TOOLS)
    policies = PolicySet.load([suggested_source("s.cedar", [found])], (), TOOLS)
    assert 'context.arguments.path like "logs/app/*"' in found.text
    for path, allowed in (("logs/app/x", True), ("logs/other", False), ("logs/app/../../etc/passwd", False)):
        assert isinstance(decide(policies, call("files.read", {"path": path})), Deny) is not allowed
    climbing = [example(call("files.read", {"path": f"logs/app/../{n}.log"})) for n in range(9)]
    (found,) = suggest(climbing, TOOLS)
    assert "like" not in found.text
    assert "context.arguments.path is not bounded" in found.remarks[0]


def test_a_folder_is_told_from_the_paths_that_begin_with_it() -> None:
    seen = [example(call("files.read", {"path": f"logs/app/{'x' * n}"})) for n in range(9)]
    (found,) = suggest(seen, TOOLS)
    assert 'context.arguments.path like "logs/app/*"' in found.text
    for apart in (lambda n: f"/{n}", lambda n: f"{n}.log", lambda n: f"https://{n}.example.com/"):
        (found,) = suggest([example(call("files.read", {"path": apart(n)})) for n in range(9)], TOOLS)
        assert "like" not in found.text
        assert "context.arguments.path is not bounded" in found.remarks[0]


def test_values_out_of_untrusted_data_are_never_written_without_saying_so() -> None:
    tainted = Label(Integrity.UNTRUSTED)
    one = Example(
        "e",
        call("mail.send", {"to": "thief@evil.example"}, labels={"to": tainted}, label=tainted),
        frozenset(),
        {"to": ("untrusted", "public", ("effect-7",))},
    )
    (found,) = suggest([one], TOOLS)
    assert any('values of "to" came out of untrusted data (from "effect-7")' in remark for remark in found.remarks)
    before, _, after = found.text.partition("thief@evil.example")
    assert before.rpartition("when {")[0].endswith("// out of untrusted data\n")
    assert "REVIEW" in before
    assert "thief" not in after
    # From paths in untrusted data no folder is made.
    many = [
        example(call("files.read", {"path": f"logs/{n}"}, labels={"path": tainted}, label=tainted)) for n in range(9)
    ]
    (found,) = suggest(many, TOOLS)
    assert "logs/" not in found.text


def test_confidential_values_do_not_get_into_a_policy_file() -> None:
    secret = Label(Integrity.USER, Confidentiality.CONFIDENTIAL)
    (found,) = suggest([example(call("mail.send", {"to": "patient 4711"}, labels={"to": secret}, label=secret))], TOOLS)
    assert "4711" not in found.text
    assert "context.arguments.to is not bounded: confidential" in found.remarks


def test_names_and_texts_of_others_cannot_break_out_of_the_policy_text() -> None:
    evil = 'x"; }; permit (principal, action, resource); //'
    tool = ToolType("t.u", {"type": "object", "properties": {evil: {"type": "string"}, "a\nb": {"type": "string"}}})
    ref = ToolRef(ToolName("t.u"), "t", "0", tool.input_schema, verified=True)
    tainted = Label(Integrity.UNTRUSTED)
    request = InvokeTool(
        principal=Principal(AgentId(evil)), tool=ref, values={evil: evil, "a\nb": "\n*"}, labels={evil: tainted},
        label=tainted, secrets=(evil,),
    ).request()  # fmt: skip
    (found,) = suggest([Example("e", request, frozenset(), {evil: ("untrusted", "public", (evil, "\n"))})], [tool])
    policies = PolicySet.load([suggested_source("s.cedar", [found])], (), [tool])
    assert len(policies.policies) == 2  # the canary's, and one
    assert not isinstance(decide(policies, request), Deny)


def test_a_budget_is_bounded_where_each_run_had_one_and_not_where_one_had_none() -> None:
    def asked(most: int | None) -> PolicyRequest:
        limits, who = ResourceLimits(), Principal(AgentId("a"))
        return AllocateResources(principal=who, limits=limits, budget=Budget(calls=most)).request()

    (found,) = suggest([example(asked(5)), example(asked(7))], TOOLS)
    policies = PolicySet.load([suggested_source("s.cedar", [found])], (), TOOLS)
    assert [isinstance(decide(policies, asked(most)), Deny) for most in (1, 7, 8, None)] == [False, False, True, True]
    (found,) = suggest([example(asked(5)), example(asked(None))], TOOLS)
    assert "budget" not in found.text
