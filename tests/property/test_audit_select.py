"""What the index finds is what a scan of all events finds: for every filter, both ways, from any place, page by page."""

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symbi.adapters.sqlite import select
from symbi.audit.event import AuditEvent, AuditEventType, Draft, parse_event
from symbi.audit.page import read_page
from symbi.audit.query import Asked, EventFilter, judged
from symbi.clock import parse_rfc3339, rfc3339
from symbi.testing.clock import ManualClock
from symbi.testing.log import open_log
from symbi.types import AgentId

AGENTS = ("ada", "bob", "eve")
RUNS = ("", "r1", "r2")
POLICIES = ("p1", "p2", "p3")
PLAIN = (AuditEventType.RUN_STARTED, AuditEventType.EFFECT_OUTCOME, AuditEventType.TOOL_PINNED)
DECISIONS = (AuditEventType.DECISION_ALLOW, AuditEventType.DECISION_DENY, AuditEventType.LEASE_GRANTED)
VERDICTS = ("allow", "allow_with_conditions", "deny")


@pytest.fixture(autouse=True, scope="module")
def short_pages():
    """Lists and scans of a few entries, so that small trails take several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(select, "LIST_PAGE", 3)
        patch.setattr(select, "SCAN_PAGE", 3)
        yield


plain = st.builds(
    Draft,
    st.sampled_from(PLAIN),
    st.sampled_from([AgentId(agent) for agent in AGENTS]),
    # Other types may say a verdict of another kind, or name policies in another form.
    st.sampled_from([{}, {"verdict": "deny"}, {"policies": 11}, {"policies": ["p1"]}]),
    st.sampled_from(RUNS),
)
decisions = st.builds(
    lambda kind, agent, verdict, policies, run: Draft(
        kind, AgentId(agent), {"verdict": verdict, "policies": [{"id": one} for one in policies]}, run
    ),
    st.sampled_from(DECISIONS),
    st.sampled_from(AGENTS),
    st.sampled_from(VERDICTS),
    st.lists(st.sampled_from(POLICIES), max_size=3),
    st.sampled_from(RUNS),
)
steps = st.tuples(plain | decisions, st.integers(-3, 5))
trails = st.integers(0, 60).flatmap(lambda count: st.lists(steps, min_size=count, max_size=count))


def filters(count: int) -> st.SearchStrategy[dict[str, object]]:
    """Filters whose times are given by the sequence number of an event, and a nanosecond before or after it."""
    times = st.tuples(st.integers(1, count), st.integers(-1, 1))
    places = st.integers(1, count + 2)
    parts: dict[str, st.SearchStrategy[object]] = {
        "agent": st.sampled_from((*AGENTS, "nobody", "")),
        "run": st.sampled_from((*RUNS, "r9")),
        "types": st.lists(st.sampled_from((*PLAIN, *DECISIONS)), min_size=1, max_size=3, unique=True).map(tuple),
        "verdict": st.sampled_from(VERDICTS),
        "policy": st.sampled_from((*POLICIES, "p9")),
        "since": times,
        "until": times,
        "first": places,
        "last": places,
    }
    chosen = st.sets(st.sampled_from(sorted(parts)), max_size=3)
    return chosen.flatmap(lambda names: st.fixed_dictionaries({name: parts[name] for name in sorted(names)}))


def in_time(chosen: dict[str, object], events: list[AuditEvent]) -> EventFilter:
    times = {
        name: rfc3339(parse_rfc3339(events[at[0] - 1].timestamp) + at[1]) if (at := chosen.get(name)) else None
        for name in ("since", "until")
    }
    return EventFilter(**(chosen | times))


async def check(trail, data) -> None:
    clock = ManualClock()
    async with open_log(clock=clock) as opened:
        for draft, seconds in trail:
            clock.set_ns(clock.now_ns() + seconds * 1_000_000_000)  # which the trail does not follow backwards
            await opened.log.append(draft)
        events = [parse_event(stored.record) for stored in opened.store.read(1)]
        for _ in range(5):
            wanted = in_time(data.draw(filters(len(events))), events)
            after = data.draw(st.integers(0, len(events) + 1))
            limit = data.draw(st.none() | st.integers(1, 5))
            fitting = [event for event in events if wanted.fits(event)]
            up = [event for event in fitting if event.sequence > after][:limit]
            down = [event for event in fitting[::-1] if not after or event.sequence < after][:limit]
            assert list(judged(wanted, opened.store.select(wanted, after, limit))) == up
            assert list(judged(wanted, opened.store.select(wanted, after, limit, descending=True))) == down


@settings(max_examples=50)
@given(trails, st.data())
def test_what_the_index_finds_is_what_a_scan_finds(trail, data):
    anyio.run(check, trail, data)


def asked_like(wanted: EventFilter) -> Asked:
    """The same question in words."""
    span = f"{wanted.first or ''}..{wanted.last or ''}"
    return Asked(
        wanted.agent or None, wanted.run or None, [str(kind) for kind in wanted.types], wanted.verdict, wanted.policy,
        wanted.since, wanted.until, None if span == ".." else span,
    )  # fmt: skip


async def check_pages(trail, data) -> None:
    clock = ManualClock()
    async with open_log(clock=clock) as opened:
        for draft, _ in trail[: len(trail) // 2]:
            clock.advance(1)
            await opened.log.append(draft)
        events = [parse_event(stored.record) for stored in opened.store.read(1)]
        chosen = data.draw(filters(len(events)))
        # Times and places that would leave nothing are refused, and tried elsewhere.
        wanted = in_time({name: value for name, value in chosen.items() if name not in {"until", "last"}}, events)
        asked, limit, descending = asked_like(wanted), data.draw(st.integers(1, 4)), data.draw(st.booleans())
        given_out: list[AuditEvent] = []
        cursor, more, coming = None, True, list(trail[len(trail) // 2 :])
        while more:
            page = read_page(opened.store, asked, 0, cursor=cursor, limit=limit, descending=descending)
            assert len(page.events) <= limit
            given_out += page.events
            cursor, more = page.next, page.more
            if coming:
                clock.advance(1)
                await opened.log.append(coming.pop()[0])
        assert (cursor is None) is descending
        if descending:
            # What is appended while pages are given changes none of them.
            assert given_out == [event for event in events[::-1] if wanted.fits(event)]
            return
        for draft, _ in coming:
            await opened.log.append(draft)
        given_out += read_page(opened.store, asked, 0, cursor=cursor, limit=1000).events
        every = [parse_event(stored.record) for stored in opened.store.read(1)]
        assert given_out == [event for event in every if wanted.fits(event)]


@settings(max_examples=50)
@given(trails, st.data())
def test_pages_give_each_event_once_though_the_trail_grows(trail, data):
    anyio.run(check_pages, trail, data)
