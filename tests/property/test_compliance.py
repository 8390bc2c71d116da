"""Frameworks against a second judge that is written plainly, on whole trails and on trails that lack some of their evidence."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbi.audit.event import AuditEvent, AuditEventType
from symbi.clock import parse_rfc3339, rfc3339
from symbi.compliance.evaluate import Status, evaluate
from symbi.compliance.framework import AtLeast, Every, InForce, NoneOfThem, Paired, Source, Verified
from symbi.compliance.gauges import Period
from symbi.compliance.library import NAMES, framework_named
from symbi.types import AgentId, EventId, KeyId

START_NS = 1_767_225_600_000_000_000
STEP_NS = 1_000_000
PERIOD = Period("2026-01-01T00:00:00.000000000Z", "2027-01-01T00:00:00.000000000Z")
FRAMEWORKS = {name: framework_named(name) for name in NAMES}


# --- a trail on which every control of a framework is met -------------------------------------------


def fitting(condition):
    """A value for which a condition holds."""
    if condition.one_of:
        return condition.one_of[0]
    if condition.like:
        return condition.like.replace("*", "x").replace("?", "x")
    if condition.at_least is not None:
        return condition.at_least
    if condition.at_most is not None:
        return condition.at_most
    assert condition.none_of or condition.present
    return "somebody"


def put(fields, path, value):
    name, *rest = path
    if not rest:
        fields[name] = value
    elif rest[0] == "*":
        fields[name] = fields.get(name) or [{}]
        put(fields[name][0], rest[1:], value)
    else:
        put(fields.setdefault(name, {}), rest, value)


class Maker:
    """Makes events that every claim of a framework is content with."""

    def __init__(self, framework):
        self.claims = [claim for control in framework.controls for claim in control.all_claims()]
        self.made = []  # (order, fields)

    def fields(self, kind, conditions, number):
        fields = {"agent_id": "agent", "run_id": f"run-{number}", "details": {"effect_id": f"effect-{number}"}}
        fields["details"]["digest"] = f"digest-{number}"
        strictest_first = sorted(
            self.claims, key=lambda c: not (isinstance(c.test, InForce) and c.test.condition.one_of)
        )
        for claim in strictest_first:
            if kind in claim.query.types and isinstance(claim.test, Every):
                conditions = (*claim.test.conditions, *conditions)
            if kind in claim.query.types and isinstance(claim.test, InForce):
                if claim.source is Source.POLICIES:
                    put(fields["details"], claim.test.condition.path.split("."), fitting(claim.test.condition))
                else:
                    key = claim.test.condition.path.replace("*", "x")
                    fields["details"].setdefault("configuration", {}).setdefault(
                        key, str(fitting(claim.test.condition))
                    )
        for condition in conditions:
            if condition.none_of and not condition.present and condition.path == "agent_id":
                continue  # `agent` is none of them
            put(fields, condition.path.split("."), fitting(condition))
        return {"type": kind, **fields}

    def whole(self):
        for number, claim in enumerate(self.claims):
            if isinstance(claim.test, NoneOfThem | Verified):
                continue
            for kind in claim.query.types:
                self.made.append((number * 10.0, self.fields(kind, claim.query.where, number)))
        for _ in range(3):  # partners of what was made, and theirs
            self.pair()
        return [event_of(at, fields) for at, (_, fields) in enumerate(sorted(self.made, key=lambda one: one[0]), 2)]

    def pair(self):
        for claim in self.claims:
            if not isinstance(claim.test, Paired):
                continue
            for order, fields in list(self.made):
                mine = event_of(1, fields)
                if not fits_query(mine, claim.query) or any(
                    (other > order if claim.test.after else other < order)
                    and is_pair(mine, event_of(1, one), claim.test)
                    for other, one in self.made
                ):
                    continue
                kind, number = claim.test.partner.types[0], f"{order}-{claim.id}"
                partner = self.fields(kind, claim.test.partner.where, number)
                for path in claim.test.same:
                    put(partner, path.split("."), values(mine, path)[0])
                if claim.test.differ:
                    put(partner, claim.test.differ[1].split("."), "somebody else")
                self.made.append((order + 1 if claim.test.after else order - 1, partner))


def event_of(sequence, fields):
    return AuditEvent(
        schema_version=2,
        sequence=sequence,
        event_id=EventId(f"01900000-0000-7000-9000-{sequence:012x}"),
        timestamp=rfc3339(START_NS + sequence * STEP_NS),
        agent_id=AgentId(fields["agent_id"]),
        run_id=fields["run_id"],
        event_type=AuditEventType(fields["type"]),
        details=fields["details"],
        previous_hash="0" * 64,
        key_id=KeyId("0" * 16),
        chain_hash="0" * 64,
        signature="",
    )


# --- the second judge -----------------------------------------------------------------------------


def values(event, path):
    found = [{"agent_id": event.agent_id, "run_id": event.run_id, "details": event.details}]
    for name in path.split("."):
        step = []
        for one in found:
            if name == "*":
                step += list(one.values()) if isinstance(one, dict) else list(one) if isinstance(one, list) else []
            elif isinstance(one, dict) and name in one:
                step.append(one[name])
        found = step
    return found


def holds(condition, found):
    def number(value):
        return float(value) if not isinstance(value, bool) and str(value).lstrip("-").isdigit() else None

    numbers = [number(one) for one in found if number(one) is not None]
    same = [one for one in found if any(one == wanted and type(one) is type(wanted) for wanted in condition.one_of)]
    return all(
        (
            not condition.one_of or same,
            not any(one in condition.none_of for one in found),
            not condition.like or any(str(one).startswith(condition.like.rstrip("*")) for one in found),
            condition.present is None or condition.present == any(one not in ("", None, [], {}) for one in found),
            condition.at_least is None or any(one >= condition.at_least for one in numbers),
            condition.at_most is None or any(one <= condition.at_most for one in numbers),
        )
    )


def fits_query(event, query):
    return event.event_type in query.types and all(holds(one, values(event, one.path)) for one in query.where)


def is_pair(mine, other, test):
    apart = abs(parse_rfc3339(mine.timestamp) - parse_rfc3339(other.timestamp)) / 1e9
    return (
        fits_query(other, test.partner)
        and all(values(mine, path) and values(mine, path)[:1] == values(other, path)[:1] for path in test.same)
        and (not test.within_s or apart <= test.within_s)
        and (not test.differ or values(mine, test.differ[0])[:1] != values(other, test.differ[1])[:1])
    )


def passes(claim, events):
    """True, False, or None where there is nothing to see."""
    found = [event for event in events if fits_query(event, claim.query)]
    match claim.test:
        case NoneOfThem():
            return not found
        case Verified():
            return True
        case AtLeast(count, _):
            return len(found) >= count or None
        case Every(conditions):
            return all(holds(one, values(event, one.path)) for event in found for one in conditions) if found else None
        case Paired() as test:
            return all(
                any(
                    (other.sequence > event.sequence if test.after else other.sequence < event.sequence)
                    and is_pair(event, other, test)
                    for other in events
                )
                for event in found
            ) if found else None  # fmt: skip
        case InForce(condition):
            told = [settings_of(event, claim) for event in found]
            if not found or not all(told):
                return None
            return all(holds(condition, [one]) for values_told in told for one in values_told)


def settings_of(event, claim):
    if claim.source is Source.POLICIES:
        return values(event, f"details.{claim.test.condition.path}")
    wanted = claim.test.condition.path.split(".")
    return [
        value
        for key, value in event.details.get("configuration", {}).items()
        if len(key.split(".")) == len(wanted)
        and all(two in ("*", one) for one, two in zip(key.split("."), wanted, strict=True))
    ]


def judged(control, events):
    if not control.claims:
        return Status.UNKNOWN
    if not events:
        return Status.NOT_MET
    if control.applies is not None and not passes(control.applies.claim, events):
        unseen = control.applies.claim.source is not Source.TRAIL and not any(
            fits_query(event, control.applies.claim.query) for event in events
        )
        return Status.NOT_MET if unseen else Status.NOT_APPLICABLE
    return Status.MET if all(passes(claim, events) for claim in control.claims) else Status.NOT_MET


# --- the properties -------------------------------------------------------------------------------


WHOLE = {name: Maker(framework).whole() for name, framework in FRAMEWORKS.items()}
FAR_NS = 40 * 86_400 * 1_000_000_000  # the trail goes on long enough that what has a time limit is over it


def statuses(framework, events):
    end = rfc3339(START_NS + FAR_NS)
    found = evaluate(framework, events, PERIOD, size=len(events) + 1, end=end)
    return {result.control.id: result.status for result in found.controls}


def classes():
    """Every class of evidence of every control, as a function that tells whether an event is of it."""
    for name, framework in FRAMEWORKS.items():
        for control in framework.controls:
            for claim in control.all_claims():
                if isinstance(claim.test, Verified | NoneOfThem):
                    continue
                yield pytest.param(name, control.id, claim.query, id=f"{name}-{control.id}-{claim.id}")
                if isinstance(claim.test, Paired):
                    yield pytest.param(
                        name, control.id, claim.test.partner, id=f"{name}-{control.id}-{claim.id}-partner"
                    )


@pytest.mark.parametrize("name", NAMES)
def test_every_control_that_software_can_show_is_met_where_all_evidence_is_there(name):
    expected = {c.id: Status.MET if c.claims else Status.UNKNOWN for c in FRAMEWORKS[name].controls}
    assert statuses(FRAMEWORKS[name], WHOLE[name]) == expected
    assert Status.MET in expected.values()


@pytest.mark.parametrize(("name", "owner", "query"), list(classes()))
def test_without_a_class_of_evidence_exactly_the_controls_that_rest_on_it_are_met_no_more(name, owner, query):
    framework = FRAMEWORKS[name]
    left = [event for event in WHOLE[name] if not fits_query(event, query)]
    assert len(left) < len(WHOLE[name])
    before, after = statuses(framework, WHOLE[name]), statuses(framework, left)
    flipped = {control for control in before if before[control] is not after[control]}
    resting = {
        control.id for control in framework.controls if not all(passes(claim, left) for claim in control.all_claims())
    }
    assert flipped == resting
    assert owner in flipped
    assert all(after[control] in {Status.NOT_MET, Status.NOT_APPLICABLE} for control in flipped)
    assert after == {control.id: judged(control, left) for control in framework.controls}


@pytest.mark.parametrize("name", NAMES)
def test_an_event_that_should_not_be_there_flips_the_controls_that_forbid_it_and_no_other(name):
    framework = FRAMEWORKS[name]
    forbidding = [(c, claim) for c in framework.controls for claim in c.claims if isinstance(claim.test, NoneOfThem)]
    for control, claim in forbidding:
        events = list(WHOLE[name])
        kind = claim.query.types[0]
        if not any(event.event_type is kind for event in events):  # nothing else rests on it
            events.append(event_of(len(events) + 2, {"type": kind, "agent_id": "agent", "run_id": "", "details": {}}))
        at, base = next((at, event) for at, event in enumerate(events) if event.event_type is kind)
        details = {**base.details}
        for condition in claim.query.where:
            wrong = condition.one_of[0] if condition.one_of else "something else"
            put(details, condition.path.split(".")[1:], wrong)
        events[at] = replace(base, details=details)
        assert not passes(claim, events)
        after = statuses(framework, events)
        assert after == {one.id: judged(one, events) for one in framework.controls}
        assert after[control.id] is Status.NOT_MET


@pytest.mark.parametrize("name", NAMES)
def test_of_an_empty_trail_every_control_says_that_it_is_not_evidenced(name):
    found = evaluate(FRAMEWORKS[name], [], PERIOD, size=0, end=PERIOD.since)
    for result in found.controls:
        assert result.status is (Status.NOT_MET if result.control.claims else Status.UNKNOWN)
        assert not result.evidenced
        assert result.reason.startswith("not evidenced: ")


@given(st.data())
@pytest.mark.parametrize("name", NAMES)
def test_whatever_is_missing_both_judges_agree(name, data):
    framework, whole = FRAMEWORKS[name], WHOLE[name]
    gone = data.draw(st.sets(st.integers(0, len(whole) - 1), max_size=len(whole)))
    events = [event for at, event in enumerate(whole) if at not in gone]
    assert statuses(framework, events) == {control.id: judged(control, events) for control in framework.controls}


SPOILED = st.sampled_from(["", None, False, True, 0, "unknown", "(no copy)", "disabled", [], {}, "agent", "effect-3"])


@given(st.data())
@pytest.mark.parametrize("name", NAMES)
def test_whatever_an_event_says_both_judges_agree(name, data):
    framework, events = FRAMEWORKS[name], list(WHOLE[name])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(events) - 1))
        details = dict(events[at].details)
        key = data.draw(st.sampled_from(sorted(details)))
        if key == "configuration":
            details[key] = {**details[key], data.draw(st.sampled_from(sorted(details[key]))): data.draw(SPOILED)}
        else:
            details[key] = data.draw(SPOILED)
        events[at] = replace(events[at], details=details)
    assert statuses(framework, events) == {control.id: judged(control, events) for control in framework.controls}
