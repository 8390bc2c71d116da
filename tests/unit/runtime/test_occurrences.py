"""What a schedule owes: the latest time that it was due, and how many before it were missed."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbi.dsl.timetable import NS, parse_cron, parse_moment
from symbi.runtime.occurrences import MAX_COUNTED, Owed, owed


def ns(text):
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * NS


@pytest.mark.parametrize(
    ("cron", "since", "now", "expected"),
    [
        ("0 9 * * *", "2026-01-01 09:00", "2026-01-02 08:59", None),
        ("0 9 * * *", "2026-01-01 09:00", "2026-01-02 09:00", ("2026-01-02 09:00", 0, False)),
        ("0 9 * * *", "2026-01-01 08:00", "2026-01-05 12:00", ("2026-01-05 09:00", 4, False)),
        ("0 0 1 1 *", "2020-06-01 00:00", "2026-06-01 00:00", ("2026-01-01 00:00", 5, False)),
        ("0 0 29 2 *", "2023-06-01 00:00", "2030-06-01 00:00", ("2028-02-29 00:00", 1, False)),
        ("* * * * *", "2026-01-01 00:00", "2026-03-01 00:00", ("2026-03-01 00:00", MAX_COUNTED, True)),
        ("0 9 * * *", "2026-01-02 09:00", "2026-01-01 09:00", None),
    ],
)  # fmt: skip
def test_what_is_owed(cron, since, now, expected):
    found = owed(parse_cron(cron), ns(since), ns(now))
    if expected is None:
        assert found is None
    else:
        at, missed, more = expected
        assert found == Owed(ns(at), missed, more)


def test_a_moment_is_owed_once_however_late():
    table = parse_moment("2026-01-01T12:00:00Z")
    assert owed(table, ns("2026-01-01 00:00"), ns("2026-01-01 11:59")) is None
    assert owed(table, ns("2026-01-01 00:00"), ns("2029-01-01 00:00")) == Owed(ns("2026-01-01 12:00"))
    assert owed(table, ns("2026-01-01 12:00"), ns("2029-01-01 00:00")) is None


@given(
    st.sampled_from(["*/7 * * * *", "0 */5 * * *", "30 4 1,15 * 5", "5 5 * 2 *"]),
    st.integers(0, 10**8),
    st.lists(st.integers(0, 10**6), min_size=1, max_size=5),
)
def test_what_is_owed_piece_by_piece_is_what_is_owed_at_once(cron, start_s, steps):
    """However often somebody looks, the runs and the missed ones together are all there were."""
    table = parse_cron(cron)
    since_ns = first_ns = (1_600_000_000 + start_s) * NS
    now_ns, handled = since_ns, 0
    for step_s in steps:
        now_ns += step_s * NS
        found = owed(table, since_ns, now_ns)
        if found is not None:
            assert since_ns < found.at_ns <= now_ns
            if found.more:
                return
            handled += found.missed + 1
            since_ns = found.at_ns
    at_once = owed(table, first_ns, now_ns)
    if at_once is None:
        assert handled == 0
    elif not at_once.more:
        assert handled == at_once.missed + 1
        assert since_ns == at_once.at_ns
