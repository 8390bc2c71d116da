"""Whatever stands in a framework or a report that somebody hands in: it is read, or refused with a reason."""

import json

from hypothesis import given
from hypothesis import strategies as st

from symbi.audit.event import AuditEventType as T
from symbi.audit.event import Draft
from symbi.compliance.check import check_report
from symbi.compliance.evidence import listed
from symbi.compliance.library import NAMES, framework_named, framework_text
from symbi.compliance.parse import parse_framework
from symbi.compliance.recorded import facts_of_report, reported
from symbi.compliance.render import RENDERERS, Format
from symbi.compliance.report import Trail, make_report, render_json
from symbi.crypto.merkle import leaf_hash, node_hash
from symbi.errors import InputError, SymbiError
from symbi.testing.trail import build_trail, sample_draft
from symbi.types import OPERATOR_AGENT, AgentId

TEXTS = [framework_text(name) for name in (*NAMES, "template")]
WORDS = sorted({word for text in TEXTS for word in text.split()})
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["met", "holds", "00"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)


def attempt(act, kind):
    """What it gives, or how it is refused."""
    try:
        return act(), None
    except kind as error:
        assert str(error)  # noqa: PT017 - either outcome is right, and each is looked at
        return None, error


@given(st.data())
def test_a_framework_is_read_or_refused_at_its_place(data):
    lines = data.draw(st.sampled_from(TEXTS)).splitlines()
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(lines) - 1))
        match data.draw(st.sampled_from(["drop", "twice", "word", "text", "swap"])):
            case "drop":
                del lines[at]
            case "twice":
                lines.insert(at, lines[at])
            case "word":
                words = lines[at].split() or [""]
                words[data.draw(st.integers(0, len(words) - 1))] = data.draw(st.sampled_from(WORDS))
                lines[at] = " ".join(words)
            case "text":
                lines[at] = (
                    lines[at][: len(lines[at]) // 2] + data.draw(st.text(max_size=5)) + lines[at][len(lines[at]) // 2 :]
                )
            case _:
                other = data.draw(st.integers(0, len(lines) - 1))
                lines[at], lines[other] = lines[other], lines[at]
    text = "\n".join(lines)
    framework, refused = attempt(lambda: parse_framework("own.toml", text), InputError)
    if refused:
        assert refused.place.file == "own.toml"
        assert 1 <= refused.place.line <= len(text.splitlines()) + 1
    else:
        assert all(claim.looked_for() for control in framework.controls for claim in control.all_claims())


def trail_of(drafts):
    built = build_trail(drafts)
    leaves = [leaf_hash(one.record) for one in built.events]

    def node(level, index):
        return leaves[index] if level == 0 else node_hash(node(level - 1, 2 * index), node(level - 1, 2 * index + 1))

    return Trail(
        listed(built.parsed, built.head, node), built.keys, built.parsed[0].timestamp, built.parsed[-1].timestamp
    )


DRAFTS = [sample_draft(number) for number in range(1, 8)]
HIPAA = framework_named("hipaa")
DOCUMENT = make_report(HIPAA, trail_of(DRAFTS))


def places(value, path=()):
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list):
        for at, one in enumerate(value):
            yield from places(one, (*path, at))


PLACES = [path for path in places(DOCUMENT) if path]


@given(st.sampled_from(PLACES), VALUES)
def test_a_report_with_anything_else_in_it_is_refused(path, value):
    document = json.loads(render_json(DOCUMENT))
    parent = document
    for key in path[:-1]:
        parent = parent[key]
    if json.dumps(parent[path[-1]]) == json.dumps(value):
        return
    parent[path[-1]] = value
    data = render_json(document)
    facts = facts_of_report(DOCUMENT, [(Format.JSON, data)])  # somebody had it recorded as if it were the true one
    trail = trail_of([*DRAFTS, reported(facts, OPERATOR_AGENT, "")])
    checked, refused = attempt(lambda: check_report(data, trail, (HIPAA,)), SymbiError)
    # Of a framework that is not at hand nobody can make it again, and fewer keys may have been there.
    assert refused or not checked.made_again or path == ("trail", "keys")


DETAILS = st.dictionaries(
    st.sampled_from(
        ["action", "resource", "verdict", "policies", "reason", "label", "configuration", "effect_id", "enforced"]
    ),
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
        max_leaves=5,
    ),
    max_size=6,
)


@given(st.lists(st.tuples(st.sampled_from([kind for kind in T if kind != T.TRAIL_STARTED]), DETAILS), max_size=6))
def test_whatever_events_say_there_is_a_report_in_every_format(told):
    drafts = [Draft(kind, AgentId("a"), details, "r") for kind, details in told]
    document = make_report(HIPAA, trail_of(drafts))
    for render in RENDERERS.values():
        assert render(document)
