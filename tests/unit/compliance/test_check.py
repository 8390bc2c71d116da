"""`compliance verify`: a report that was altered is found, also by somebody who had the altered one recorded."""

import json

import pytest

from symbi.compliance.check import check_report, samples_of
from symbi.compliance.library import framework_named
from symbi.compliance.recorded import facts_of_report, reported
from symbi.compliance.render import Format
from symbi.compliance.render_html import render_html
from symbi.compliance.report import FORMAT, make_report, render_json
from symbi.errors import InputError, SymbiError, VerificationError
from symbi.testing.trail import fixed_signing_key
from symbi.types import OPERATOR_AGENT

HIPAA = framework_named("hipaa")


@pytest.fixture(scope="module")
def document(build, drafts):
    return make_report(framework_named("hipaa"), build(drafts).trail)


@pytest.fixture
def check(build, drafts, document):
    """Record a file as a report, and check it on the trail that tells of it."""

    def run(data, form=Format.JSON, *, before=(), record=True, facts=None, frameworks=(HIPAA,)):
        told = json.loads(data) if data.startswith(b'{\n  "format": "symbi.compliance/1",\n  "statement"') else document
        facts = facts_of_report(told, [(form, data)]) | (facts or {})
        more = [reported(facts, OPERATOR_AGENT, "ada")] if record else []
        built = build([*drafts, *before, *more])
        return check_report(data, built.trail, frameworks)

    return run


def test_a_report_is_what_was_made_also_once_the_trail_has_gone_on(check, document, drafts):
    checked = check(render_json(document), before=drafts)
    assert checked.recorded.details["framework"] == "hipaa"
    assert checked.recorded.details["person"] == "ada"
    assert checked.proofs == len({sample["sequence"] for sample in samples_of(document)}) > 5
    assert checked.document == document
    assert checked.made_again
    assert not check(render_json(document), frameworks=()).made_again


@pytest.mark.parametrize("bounded", [True, False])
def test_a_report_on_a_period_is_made_again_for_that_period(build, drafts, check, bounded):
    built = build(drafts)
    end = built.events[7].timestamp if bounded else ""
    document = make_report(framework_named("hipaa"), built.trail, built.events[3].timestamp, end)
    assert check(render_json(document), before=drafts).made_again


def test_of_another_format_the_hash_is_checked(check, document):
    checked = check(render_html(document), Format.HTML)
    assert (checked.form, checked.document, checked.proofs) == ("html", None, 0)


@pytest.mark.parametrize("facts", [{"met": 19}, {"framework": "sox"}, {"size": 1}, {"to": ""}])
def test_an_event_that_tells_of_another_report_is_found(check, document, facts):
    with pytest.raises(VerificationError, match="the event tells of another report"):
        check(render_json(document), facts=facts)


@pytest.mark.parametrize("form", [Format.JSON, Format.HTML])
def test_what_the_trail_does_not_tell_of_is_no_report(check, document, form):
    data = render_json(document) if form is Format.JSON else render_html(document)
    with pytest.raises(VerificationError, match="no event of the trail tells of a report"):
        check(data, form, record=False)


def first_sample(document):
    return next(iter(samples_of(document)))


def altered(**changes):
    def change(document):
        first_sample(document).update(changes)

    return change


def flip_status(document):
    document["controls"][0]["status"] = "not met"


def flip_proof(document):
    sample = first_sample(document)
    sample["proof"][0] = "00" * 32


def drop_checkpoint(document):
    document["trail"]["checkpoint"] = None


def other_root(document):
    document["trail"]["root"] = "00" * 32


ALTERED = {
    "another summary": (altered(summary="all is well"), "says otherwise of event"),
    "another time": (altered(time="2026-01-01T00:00:00.000000000Z"), "says otherwise of event"),
    "another id": (altered(event_id="x"), "says otherwise of event"),
    "another place": (altered(sequence=1), "the inclusion proof of event 1 does not hold"),
    "no place": (altered(sequence=True), "proof of event True does not hold"),
    "another leaf": (altered(leaf="00" * 32), "inclusion proof"),
    "another proof": (flip_proof, "inclusion proof"),
    "another verdict": (flip_status, "made again from the trail as it stood, the report has another `controls`"),
    "another count": (lambda d: d["summary"].update(met=19), "has another `summary`"),
    "another period": (lambda d: d["period"].update(events=99), "has another `period`"),
    "another question": (lambda d: d["framework"].update(title="x"), "has another `framework`"),
    "certified": (lambda d: d.update(statement="certified"), "has another `statement`"),
    "evidence left out": (lambda d: d["controls"][0]["evidence"].pop(), "has another `controls`"),
    "no checkpoint": (drop_checkpoint, "has no checkpoint"),
    "another root": (other_root, "says otherwise than its checkpoint"),
}


@pytest.mark.parametrize(("change", "words"), ALTERED.values(), ids=ALTERED)
def test_an_altered_report_is_found_even_if_it_was_recorded(check, document, change, words):
    changed = json.loads(render_json(document))
    change(changed)
    with pytest.raises(VerificationError, match=words):
        check(render_json(changed))


def test_a_report_of_another_trail_is_found_even_if_it_was_recorded(build, drafts, check):
    other = make_report(framework_named("hipaa"), build(drafts[:-1], key=fixed_signing_key(9)).trail)
    with pytest.raises(SymbiError, match="is not signed by key"):
        check(render_json(other))
    rewritten = make_report(framework_named("hipaa"), build([*drafts[:-2], drafts[-1]]).trail)
    with pytest.raises(VerificationError, match="does not continue the checkpoint"):
        check(render_json(rewritten))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b'{"format": "symbi.compliance/2"}',
        b'{"format": "symbi.compliance/1"}',
        render_json({"format": FORMAT}),
        render_json({"format": FORMAT, "framework": [], "trail": {"checkpoint": 3}, "controls": [None]}),
    ],
)
def test_what_is_no_report_is_refused_without_a_traceback(check, data):
    with pytest.raises(InputError):
        check(data)


def test_a_report_is_the_file_as_it_was_written(check, document):
    with pytest.raises(InputError, match="as it was written"):
        check(json.dumps(document).encode())


WRONG = {
    "missing": lambda facts: facts.pop("met"),
    "unknown": lambda facts: facts.update(more=1),
    "framework": lambda facts: facts.update(framework="<b>"),
    "hash": lambda facts: facts.update(report_sha256="F" * 64),
    "time": lambda facts: facts.update({"from": "yesterday"}),
    "count": lambda facts: facts.update(met=True),
    "negative": lambda facts: facts.update(size=-1),
    "no files": lambda facts: facts.update(files=[]),
    "too many files": lambda facts: facts.update(files=facts["files"] * 9),
    "file": lambda facts: facts.update(files=[{"format": "exe", "sha256": "0" * 64}]),
    "file with more": lambda facts: facts.update(files=[{"format": "md", "sha256": "0" * 64, "name": "x"}]),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_what_is_recorded_is_of_its_form(document, change):
    facts = facts_of_report(document, [(Format.JSON, b"x")])
    assert reported(facts, OPERATOR_AGENT, "").details["framework"] == "hipaa"
    change(facts)
    with pytest.raises(InputError):
        reported(facts, OPERATOR_AGENT, "")
