"""What a question to the trail costs grows with its answer, not with the trail: counted in steps of SQLite, and by its plans."""

from contextlib import closing

import anyio
import pytest

from symbi.adapters.sqlite.file import DATABASE_NAME, SQL, connect
from symbi.adapters.sqlite.select import select_events
from symbi.audit.event import AuditEventType, Draft
from symbi.audit.query import EventFilter
from symbi.clock import rfc3339
from symbi.testing.clock import ManualClock
from symbi.testing.log import open_log
from symbi.types import AgentId

SMALL, LARGE = 1_500, 24_000
GROWTH = 1.6  # of the steps, where the trail is sixteen times as long; a bisection grows by the logarithm
START_NS = ManualClock().now_ns()
UNIT = 50  # events that share a second

LISTS = sorted(name for name in SQL if name.startswith("events_by_"))


def draft(number: int) -> Draft:
    """Ten agents, runs of a hundred events, four types; one event in fifty is refused by one policy."""
    denied = number % 50 == 0
    kind = AuditEventType.DECISION_DENY if denied else list(AuditEventType)[8 + number % 4]
    details = {"verdict": "deny" if denied else "allow", "policies": [{"id": "strict" if denied else "lax"}]}
    return Draft(kind, AgentId(f"agent-{number % 10}"), details, f"run-{number // 100}")


async def build(folder, count: int) -> None:
    clock = ManualClock()
    async with open_log(folder, clock=clock) as opened:
        for first in range(0, count, UNIT):
            drafts = [draft(number) for number in range(first, first + UNIT)]
            await opened.log.transact(lambda drafts=drafts: (None, drafts))
            clock.advance(1)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """A short trail and a long one, alike in all but length."""
    opened = []
    for count in (SMALL, LARGE):
        folder = tmp_path_factory.mktemp(f"trail-{count}")
        anyio.run(build, folder, count)
        opened.append(connect(str(folder / DATABASE_NAME)))
    with closing(opened[0]), closing(opened[1]):
        yield opened


def steps(db, wanted: EventFilter, after=0, *, descending=False) -> tuple[int, int]:
    """Steps of SQLite's machine for the first hundred answers, in units of ten, and how many answers there were."""
    count = 0

    def step() -> int:
        nonlocal count
        count += 1
        return 0

    db.set_progress_handler(step, 10)
    found = list(select_events(db, wanted, after, 100, descending=descending))
    db.set_progress_handler(None, 0)
    return count, len(found)


def at(second: int) -> str:
    return rfc3339(START_NS + second * 1_000_000_000)


@pytest.mark.parametrize(
    ("wanted", "after", "descending"),
    [
        (EventFilter(agent="agent-3"), 0, True),
        (EventFilter(agent="agent-3"), 700, False),
        (EventFilter(agent="nobody"), 0, True),
        (EventFilter(run="run-7"), 0, False),
        (EventFilter(run="run-7"), 0, True),
        (EventFilter(types=(AuditEventType.DECISION_DENY,)), 0, False),
        (EventFilter(types=tuple(AuditEventType)[8:11]), 700, False),
        (EventFilter(verdict="deny", policy="strict"), 0, False),
        (EventFilter(policy="strict", run="run-7"), 0, False),
        (EventFilter(agent="agent-0", run="run-7", verdict="deny"), 0, True),
        (EventFilter(run="run-7", types=tuple(AuditEventType)), 0, False),
        (EventFilter(since=at(5), until=at(9)), 0, False),
        (EventFilter(since=at(5), until=at(9), verdict="deny", agent="agent-0"), 0, True),
        (EventFilter(first=300, last=900, agent="agent-3"), 0, False),
        (EventFilter(), 0, True),
        (EventFilter(), 1_000, False),
    ],
)
def test_a_question_costs_as_much_in_a_long_trail_as_in_a_short_one(stores, wanted, after, descending):
    (short, answers), (long, others) = (steps(db, wanted, after, descending=descending) for db in stores)
    assert others >= answers
    assert long <= short * GROWTH * (others + 1) / (answers + 1) + 5, (short, long, answers, others)


def test_two_lists_cost_no_more_than_the_shorter_of_them(stores):
    """Nothing is in both lists, and one of them is as long as the trail: a walk over it would cost thousands of steps."""
    _, db = stores
    short, _ = steps(db, EventFilter(run="run-7"))
    both, answers = steps(db, EventFilter(run="run-7", agent="nobody"))
    assert answers == 0
    assert both <= short
    every, _ = steps(db, EventFilter(run="run-7", verdict="allow"))
    assert every <= 40 * short  # each of a hundred leaps fetches one short page of a list


@pytest.mark.parametrize("name", [*LISTS, "read_events", "read_events_down", "first_sequence", "last_sequence"])
def test_each_statement_walks_an_index_and_sorts_nothing(stores, name):
    values = ("x",) * SQL[name].count("?")
    plan = [row[3] for row in stores[1].execute(f"EXPLAIN QUERY PLAN {SQL[name]}", values)]
    assert len(plan) == 1, plan
    if name in LISTS:
        kind = name.split("_")[2]
        index = "PRIMARY KEY" if kind == "policy" else f"COVERING INDEX events_{kind}"
        assert plan[0].startswith("SEARCH"), plan
        assert index in plan[0], plan
    else:
        assert "USING" not in plan[0] or "USING INTEGER PRIMARY KEY" in plan[0], plan
    assert "TEMP B-TREE" not in plan[0]


def test_each_filter_has_its_lists():
    assert {name.split("_")[2] for name in LISTS} == {"agent", "run", "type", "verdict", "policy"}
    assert len(LISTS) == 10
