"""Releases: what becomes of labels, how they are called, and that a replay gives the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbi.agent.calls import asked
from symbi.agent.containers import CodeLimits
from symbi.agent.effects import RunEffects, World
from symbi.agent.operators import TypeMismatch
from symbi.agent.release import LEVELS, declassified, endorsed, relabelled
from symbi.agent.values import Closure, Scope, Secret, Value, deep_label, from_json, to_json
from symbi.clock import SystemClock
from symbi.dsl import ast
from symbi.errors import PolicyDenied, ScriptFailed
from symbi.policy.flow import CONFIDENTIALITY_RANK, INTEGRITY_RANK, join
from symbi.sandbox.pool import Sandboxes
from symbi.testing.gate import ALLOW_ALL, open_gate
from symbi.types import AgentId, Confidentiality, Integrity, Label, Principal, RunId

THEIRS = Label(Integrity.UNTRUSTED, Confidentiality.SECRET, ("e1",), ("pii",))
LABELS = st.builds(
    Label,
    st.sampled_from(Integrity),
    st.sampled_from(Confidentiality),
    st.lists(st.sampled_from(["e1", "e2", "task"]), unique=True).map(sorted).map(tuple),
    st.lists(st.sampled_from(["pii", "health"]), unique=True).map(sorted).map(tuple),
)
VALUES = st.recursive(
    st.builds(Value, st.sampled_from(["x", 1, None]), LABELS),
    lambda inner: (
        st.builds(Value, st.lists(inner, max_size=3).map(tuple), LABELS)
        | st.builds(Value, st.dictionaries(st.sampled_from("ab"), inner), LABELS)
    ),
    max_leaves=6,
)
EFFECT = Label(sources=("e9",))


def labels_of(value):
    inside = (
        value.data if isinstance(value.data, tuple) else value.data.values() if isinstance(value.data, dict) else ()
    )
    return [value.label, *(label for item in inside for label in labels_of(item))]


@given(VALUES)
def test_an_endorsement_changes_integrity_alone_in_every_field(value):
    made = relabelled(value, endorsed, EFFECT)
    assert to_json(made, ast.NOWHERE, "t") == to_json(value, ast.NOWHERE, "t")
    for before, after in zip(labels_of(value), labels_of(made), strict=True):
        assert INTEGRITY_RANK[after.integrity] == min(
            INTEGRITY_RANK[before.integrity], INTEGRITY_RANK[Integrity.TRUSTED]
        )
        assert (after.confidentiality, after.categories) == (before.confidentiality, before.categories)
        assert set(after.sources) == {*before.sources, "e9"}


@given(VALUES, st.sampled_from(list(LEVELS)))
def test_a_declassification_changes_confidentiality_alone_in_every_field(value, to):
    made = relabelled(value, declassified(LEVELS[to]), EFFECT)
    for before, after in zip(labels_of(value), labels_of(made), strict=True):
        ranks = CONFIDENTIALITY_RANK[before.confidentiality], CONFIDENTIALITY_RANK[LEVELS[to]]
        assert CONFIDENTIALITY_RANK[after.confidentiality] == min(ranks)
        assert (after.integrity, after.categories) == (before.integrity, ())
        assert set(after.sources) == {*before.sources, "e9"}


@given(VALUES)
def test_what_policies_see_of_a_release_is_what_comes_of_it(value):
    for change in (endorsed, declassified(Confidentiality.INTERNAL)):
        assert join(change(deep_label(value)), EFFECT) == deep_label(relabelled(value, change, EFFECT))


def test_nothing_but_data_is_released():
    closure = Value(Closure(ast.Lambda("x", ast.Name("x")), Scope()))
    with pytest.raises(TypeMismatch, match="a function cannot be handed to `endorse`"):
        asked(None, "endorse", [closure, Value("x")], {}, ast.NOWHERE)


@pytest.mark.parametrize(
    ("name", "positional", "named"),
    [
        ("endorse", 0, ()),
        ("endorse", 1, ()),
        ("endorse", 3, ()),
        ("endorse", 2, ("name",)),
        ("endorse", 2, ("to",)),
        ("declassify", 1, ("to",)),
        ("declassify", 4, ()),
        ("declassify", 3, ("to",)),
        ("declassify", 2, ("why",)),
    ],
)
def test_a_release_is_called_in_one_way(name, positional, named):
    with pytest.raises(ScriptFailed, match=f"`{name}` is not called like this"):
        asked(None, name, [Value("x")] * positional, {key: Value("x") for key in named}, ast.NOWHERE)


def effects_on(gate):
    world = World(gate.guard, gate.log, SystemClock(), None, Sandboxes({}), lambda *_: None)
    recorded = gate.store.effects_of(RunId("r"))
    return RunEffects(world, Principal(AgentId("a")), RunId("r"), "t.symbi", CodeLimits(), recorded)


@pytest.mark.anyio
async def test_a_replay_gives_the_same_label_though_nobody_permits_it_any_more(tmp_path):
    value = from_json({"a": ["x"]}, THEIRS)

    async def released(gate):
        effects = effects_on(gate)
        believed = await effects.endorse(value, Value("checked"), ast.NOWHERE)
        return [believed, await effects.declassify(believed, Value("open"), Value("internal"), ast.NOWHERE)]

    async with open_gate(folder=tmp_path) as gate:
        first = await released(gate)
    async with open_gate("", folder=tmp_path) as gate:
        assert await released(gate) == first
    label = deep_label(first[1])
    assert (label.integrity, label.confidentiality) == (Integrity.TRUSTED, Confidentiality.INTERNAL)
    assert label.categories == ()
    assert len(label.sources) == 3


@pytest.mark.anyio
async def test_another_value_at_the_same_place_is_no_replay(tmp_path):
    async with open_gate(folder=tmp_path) as gate:
        await effects_on(gate).endorse(Value("x", THEIRS), Value("checked"), ast.NOWHERE)
        for value, name in (("y", "checked"), ("x", "other")):
            with pytest.raises(Exception, match="is not what it was before the restart"):
                await effects_on(gate).endorse(Value(value, THEIRS), Value(name), ast.NOWHERE)


@pytest.mark.anyio
async def test_a_mark_on_the_permit_outdoes_the_release():
    async with open_gate(ALLOW_ALL.replace("permit", '@mark("untrusted") permit')) as gate:
        value = await effects_on(gate).endorse(Value("x", THEIRS), Value("checked"), ast.NOWHERE)
    assert value.label.integrity is Integrity.UNTRUSTED


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("value", "name", "to"),
    [
        (Value("x"), Value("checked", Label(sources=("task",))), Value(None)),
        (Value("x"), Value("checked", THEIRS), Value(None)),
        (Value("x"), Value(""), Value(None)),
        (Value("x"), Value("a b"), Value(None)),
        (Value("x"), Value(1), Value(None)),
        (Value(Secret("p")), Value("checked"), Value(None)),
        (Value("x"), Value("checked"), Value("secret")),
        (Value("x"), Value("checked"), Value("public", THEIRS)),
        (Value("x"), Value("checked"), Value({"public": Value(1)})),
    ],
)
async def test_what_does_not_stand_in_the_file_releases_nothing(value, name, to):
    async with open_gate() as gate:
        with pytest.raises(ScriptFailed):
            await effects_on(gate).declassify(value, name, to, ast.NOWHERE)
        assert len(gate.events()) == 1  # the trail's own start


@pytest.mark.anyio
async def test_a_condition_that_changes_arguments_denies_a_release():
    async with open_gate(ALLOW_ALL.replace("permit", '@redact("arguments.valueDigest") permit')) as gate:
        with pytest.raises(PolicyDenied, match="cannot be changed so in `EndorseValue`"):
            await effects_on(gate).endorse(Value("x", THEIRS), Value("checked"), ast.NOWHERE)


def test_no_release_says_that_a_value_is_about_nobody():
    label = Label(Integrity.UNTRUSTED, Confidentiality.SECRET, ("e",), ("pii",), ("anna",))
    assert endorsed(label) == Label(Integrity.TRUSTED, Confidentiality.SECRET, ("e",), ("pii",), ("anna",))
    assert declassified(Confidentiality.PUBLIC)(label) == Label(
        Integrity.UNTRUSTED, Confidentiality.PUBLIC, ("e",), (), ("anna",)
    )
