"""Inference never crashes, never looks ahead, and more untrusted text never makes a value clean."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from symbi.policy.addresses import addresses
from symbi.policy.fields import Effect, OutputRule, Role, ToolFlow, parse_path, spelled
from symbi.policy.flow import INTEGRITY_RANK
from symbi.policy.inference import FlowSession
from symbi.policy.material import pieces, read
from symbi.policy.policies import PolicySet
from symbi.policy.replay import Replay, ReplayTool, Step, Trace
from symbi.policy.sinks import leaves
from symbi.policy.source import PolicySource
from symbi.types import Integrity

WORDS = st.sampled_from(
    ["anna", "evil.example", "a@b.example", "13", "7.5", "2024-05-16", "Rent", "US133000000121212121212"]
)
TEXT = st.one_of(WORDS, st.lists(WORDS, min_size=1, max_size=4).map(" ".join), st.text(max_size=30))
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=4)),
    max_leaves=12,
)
ARGUMENTS = st.dictionaries(st.sampled_from(["to", "body", "n", "odd name", "\ud800"]), JSON, max_size=4)
RULES = st.lists(
    st.builds(
        OutputRule,
        st.sampled_from(["$", "*", "[*]", "[*].date", "a.b", "*~", "date"]).map(parse_path),
        st.sampled_from([Integrity.SYSTEM, Integrity.TRUSTED, Integrity.UNTRUSTED, None]),
    ),
    max_size=4,
)
FLOWS = st.builds(
    ToolFlow,
    effect=st.sampled_from(Effect),
    roles=st.lists(
        st.tuples(st.sampled_from(["to", "body", "n", "$"]).map(parse_path), st.sampled_from(Role)), max_size=3
    ).map(tuple),
    output=RULES.map(tuple),
)
UNTRUSTED = ToolFlow()
POLICIES = PolicySet.load(
    [
        PolicySource(
            "p.cedar",
            '@approval("x") permit (principal, action in Action::"InvokeTool", resource)'
            " unless { context.tainted.isEmpty() };\n"
            'permit (principal, action in Action::"InvokeTool", resource) when { context.tainted.isEmpty() };',
        )
    ]
)


@given(st.none() | TEXT, st.lists(st.tuples(FLOWS, JSON), max_size=4), TEXT, FLOWS, ARGUMENTS)
def test_more_untrusted_text_never_makes_a_value_clean(words, outputs, more, flow, arguments):
    plain, fuller = FlowSession(words), FlowSession(words)
    for index, (tool, output) in enumerate(outputs):
        for session in (plain, fuller):
            session.observe(tool, {}, output, f"step:{index}")
    fuller.observe(UNTRUSTED, {}, more, "more")
    before, after = plain.judge(flow, arguments), fuller.judge(flow, arguments)
    assert before.facts.tainted <= after.facts.tainted
    assert before.facts.sinks == after.facts.sinks
    for name, label in before.labels.items():
        assert INTEGRITY_RANK[label.integrity] <= INTEGRITY_RANK[after.labels[name].integrity]


@given(st.lists(st.tuples(FLOWS, JSON), min_size=1, max_size=4), FLOWS, ARGUMENTS)
def test_judging_remembers_nothing(outputs, flow, arguments):
    session = FlowSession(None)
    for tool, output in outputs:
        session.observe(tool, {}, output, "step")
        assert session.judge(flow, arguments) == session.judge(flow, arguments)


@given(st.lists(TEXT, min_size=1, max_size=3), TEXT)
def test_after_something_untrusted_only_what_is_explained_is_clean(read_texts, value):
    """Whatever a sink holds that neither the user nor a clean field vouches for is tainted."""
    session = FlowSession(None)
    for text in read_texts:
        session.observe(UNTRUSTED, {}, f"page: {text}", "step")
    facts = session.judge(UNTRUSTED, {"to": value}).facts
    is_date = value.strip() == "2024-05-16"
    assert is_date or (facts.tainted == ({"to"} if value.strip() else set()))


@given(JSON)
def test_every_scalar_of_an_output_becomes_a_piece(output):
    made = [piece.text for piece in pieces(UNTRUSTED, output, "s")]
    for leaf in leaves(output):
        expected = leaf.value if isinstance(leaf.value, str) else json.dumps(leaf.value, default=str)
        assert expected in made


@given(st.text(max_size=200) | JSON.map(json.dumps) | JSON.map(repr))
def test_any_text_is_read(text):
    read(text)
    addresses(text)


@given(JSON.filter(lambda value: isinstance(value, list | dict) and value))
def test_json_is_read_as_what_it_is(value):
    assert read(json.dumps(value)) == json.loads(json.dumps(value))


@settings(max_examples=50)
@given(
    st.lists(st.builds(Step, st.sampled_from(["t", "u", "s.t"]), ARGUMENTS, JSON), min_size=1, max_size=4),
    st.integers(0, 3),
    JSON,
    ARGUMENTS,
)
def test_a_step_is_judged_by_what_came_before_alone(steps, at, output, arguments):
    """Changing the output of the step itself, and all later steps, changes nothing of it."""
    at = min(at, len(steps) - 1)
    other = [*steps[:at], Step(steps[at].tool, steps[at].args, output), *[Step("u", arguments, output)] * 2]
    tools = {"s.t": ReplayTool(flow=ToolFlow(output=(OutputRule(parse_path("$"), Integrity.TRUSTED),)))}

    def verdicts(some):
        judge = Replay(POLICIES, tools)
        (judged,) = judge.run([Trace("s", "u", None, tuple(some))])
        return [(one.verdict, one.decision, one.found) for one in judged[: at + 1]]

    assert verdicts(steps) == verdicts(other)


@given(st.lists(st.integers(0, 3) | TEXT, max_size=5))
def test_a_path_covers_the_place_that_it_spells(steps):
    names = [step for step in steps if isinstance(step, str)]
    if names and all(isinstance(step, str) for step in steps):
        assert parse_path(spelled(steps)).covers(steps)
        assert parse_path(spelled(steps)).names_field(steps)
