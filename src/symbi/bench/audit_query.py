"""AUD-4: what a question to a long trail costs, from the last events of an agent to a page after a cursor.

The trail is a real one: its writer seals, chains and stores every event, thousands in a unit of work, in batch mode. So it
verifies, and takes as long and as much disk as it would take anybody.
"""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter_ns
from typing import Final

from symbi.audit.event import AuditEventType, Draft, Signing
from symbi.audit.page import read_page
from symbi.audit.query import Asked, judged, read_filter
from symbi.bench.machine import describe_file_system
from symbi.bench.measure import Measurement, Scale, Target, latency, rate
from symbi.clock import rfc3339
from symbi.errors import InternalError
from symbi.testing.clock import ManualClock
from symbi.testing.log import OpenLog, open_log
from symbi.testing.trail import START_NS
from symbi.types import AgentId, JsonValue

EVENTS: Final = 10_000_000  # at full scale
LEAST: Final = 20_000
UNIT: Final = 5_000  # events of one unit of work
UNIT_S: Final = 500  # seconds between two units: ten events a second, so that a million fill a day
EVENT_BYTES: Final = 1_200  # on disk, with index and tree; an estimate that says how many there is room for
ROOM: Final = 2  # times as much disk as the trail needs has to be free
SAMPLES: Final = 200  # questions of a kind
DAY_S: Final = 86_400

AGENTS: Final = 20
RUN_EVENTS: Final = 1_000
DENIED_EACH: Final = 1_000  # one event in so many is a denial
POLICY: Final = "no-untrusted-recipient"

_TARGET: Final = Target(100, at_least=False, note="ours")


async def audit_query(scale: Scale) -> list[Measurement]:
    """How fast the trail is built, and the latency of each kind of question."""
    with tempfile.TemporaryDirectory(prefix="symbi-bench-") as folder:
        wanted = scale.of(EVENTS, least=LEAST)
        count = min(wanted, shutil.disk_usage(folder).free // (ROOM * EVENT_BYTES)) // UNIT * UNIT
        if count < LEAST:
            msg = f"no room on the disk for a trail of {LEAST} events below `{folder}`"
            raise InternalError(msg)
        on = describe_file_system(Path(folder))
        clock = ManualClock(START_NS)
        async with open_log(Path(folder) / "data", clock=clock, signing=Signing.BATCH) as trail:
            begun = perf_counter_ns()
            for first in range(0, count, UNIT):
                drafts = [_draft(number) for number in range(first, first + UNIT)]
                await trail.log.transact(lambda drafts=drafts: (None, drafts))  # type: ignore[misc]  # bound now
                clock.advance(UNIT_S)
            built = perf_counter_ns() - begun
            short = "" if count == wanted else f"; the disk has no room for {wanted:,}"
            method = f"a trail of {count:,} events on {on}{short}"
            row = rate(
                "AUD-4", f"events in units of {UNIT:,}, batch-signed", count, built, unit="events/s", target=None,
                method=f"{method}; each is sealed, chained, indexed and stored by the writer",
            )  # fmt: skip
            return [row, *_questions(trail, clock, count, method)]


def _draft(number: int) -> Draft:
    """Decisions and their outcomes by turns; one event in a thousand is a denial."""
    agent, run = (
        AgentId(f"agent-{number // RUN_EVENTS % AGENTS:02}"),
        f"01900000-0000-7000-8000-{number // RUN_EVENTS:012x}",
    )
    effect = f"01900000-0000-7000-9000-{number // 2:012x}"
    details: dict[str, JsonValue] = {
        "effect_id": effect,
        "action": "InvokeTool::notify.send",
        "resource": "Tool::notify.send",
        "attempt": 1,
    }
    if number % DENIED_EACH == DENIED_EACH - 1:
        kind, policy, verdict = AuditEventType.DECISION_DENY, POLICY, "deny"
    elif number % 2:
        return Draft(
            AuditEventType.EFFECT_OUTCOME, agent, details | {"outcome": "confirmed", "duration_us": number % 9_973}, run
        )
    else:
        kind, policy, verdict = AuditEventType.DECISION_ALLOW, f"permit-{number % 7}", "allow"
    details |= {
        "arguments": {"to": f"user-{number % 1_013}@example.com", "subject": "report"},
        "policies": [{"id": policy, "file": "policies/flow.cedar", "line": 4}],
        "verdict": verdict,
    }
    return Draft(kind, agent, details, run)


def _questions(trail: OpenLog, clock: ManualClock, count: int, method: str) -> list[Measurement]:
    now_ns = clock.now_ns()
    days = max(1, (now_ns - START_NS) // (DAY_S * 1_000_000_000))
    runs = count // RUN_EVENTS

    def day(number: int) -> Asked:
        since_ns = START_NS + number % days * DAY_S * 1_000_000_000
        return Asked(since=rfc3339(since_ns), until=rfc3339(since_ns + DAY_S * 1_000_000_000))

    def last(ask: Callable[[int], Asked]) -> Callable[[int], int]:
        return lambda number: _found(trail, ask(number), now_ns, descending=True)

    def first(ask: Callable[[int], Asked]) -> Callable[[int], int]:
        return lambda number: _found(trail, ask(number), now_ns, descending=False)

    cursors = _cursors(trail, now_ns)
    kinds: dict[str, Callable[[int], int]] = {
        "the last 100 events": last(lambda _: Asked()),
        "the last 100 events of an agent": last(lambda number: Asked(agent=f"agent-{number % AGENTS:02}")),
        "100 events of a run": first(lambda number: Asked(run=f"01900000-0000-7000-8000-{number * 7919 % runs:012x}")),
        "the last 100 denials": last(lambda _: Asked(types=("decision.deny",))),
        "the last 100 denials by a policy, of an agent": last(
            lambda number: Asked(agent=f"agent-{number % AGENTS:02}", verdict="deny", policy=POLICY)
        ),
        "the first 100 events of a day": first(day),
        "the last 100 denials of a day": last(
            lambda number: Asked(verdict="deny", since=day(number).since, until=day(number).until)
        ),
        "the page of 100 after a cursor": lambda number: _page(trail, cursors[number % len(cursors)], now_ns),
        "an agent that has no denial": first(lambda _: Asked(agent="symbi.system", verdict="deny")),
    }
    rows = []
    for name, ask in kinds.items():
        samples = []
        for number in range(SAMPLES):
            begun = perf_counter_ns()
            found = ask(number)
            samples.append(perf_counter_ns() - begun)
            if (found == 0) is not name.startswith("an agent that has no"):
                msg = f"a question of the benchmark found {found} events: {name}"
                raise InternalError(msg)
        rows.append(latency("AUD-4", f"query: {name}", samples, unit="ms", target=_TARGET, method=method))
    return rows


def _found(trail: OpenLog, asked: Asked, now_ns: int, *, descending: bool) -> int:
    wanted = read_filter(asked, now_ns)
    return sum(1 for _ in judged(wanted, trail.store.select(wanted, limit=100, descending=descending)))


_ALL_DENIALS: Final = Asked(verdict="deny")


def _cursors(trail: OpenLog, now_ns: int) -> list[str]:
    """Cursors at many places of one long answer; the last page of it is not among what follows them."""
    cursors: list[str] = []
    page = read_page(trail.store, _ALL_DENIALS, now_ns, limit=1)
    while page.more and page.next is not None and len(cursors) < SAMPLES:
        cursors.append(page.next)
        page = read_page(trail.store, _ALL_DENIALS, now_ns, cursor=page.next, limit=50)
    return cursors


def _page(trail: OpenLog, cursor: str, now_ns: int) -> int:
    return len(read_page(trail.store, _ALL_DENIALS, now_ns, cursor=cursor, limit=100).events)
