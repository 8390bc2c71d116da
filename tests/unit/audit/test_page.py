"""Cursors: opaque, bound to their question and to the trail, and refused where they are not ours."""

import base64
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbi.audit.page import MAX_PAGE, read_page
from symbi.audit.port import StoredEvent
from symbi.audit.query import Asked, EventFilter
from symbi.errors import InputError
from symbi.testing.trail import START_NS, build_trail

TRAIL = build_trail(20)
OTHER = build_trail(20, start_ns=START_NS + 1)
HOUR_NS = 3_600_000_000_000


class Listed:
    """Some events, searched by looking at all of them."""

    def __init__(self, trail=TRAIL, count: int = 21) -> None:
        self.stored, self.parsed = trail.events[:count], trail.parsed[:count]

    def select(
        self, wanted: EventFilter, after: int = 0, limit: int | None = None, *, descending: bool = False
    ) -> Iterator[StoredEvent]:
        found = [one for one, event in zip(self.stored, self.parsed, strict=True) if wanted.fits(event)]
        if descending:
            found = [one for one in found[::-1] if not after or one.sequence < after]
        return iter([one for one in found if descending or one.sequence > after][:limit])

    def read(self, first: int, last: int | None = None) -> Iterator[StoredEvent]:
        return iter([one for one in self.stored if first <= one.sequence <= (last or 1 << 62)])

    def event_count(self) -> int:
        return len(self.stored)


ALL = Asked()


def page(asked=ALL, cursor=None, *, source=None, limit=4, descending=False, now_ns=START_NS):
    return read_page(source or Listed(), asked, now_ns, cursor=cursor, limit=limit, descending=descending)


def cursor_refused(call) -> InputError:
    with pytest.raises(InputError) as refused:
        call()
    assert refused.value.code == "input.cursor"
    assert refused.value.hint
    return refused.value


def test_pages_follow_each_other_and_the_last_cursor_waits_for_what_comes():
    first = page(source=Listed(count=6))
    assert ([event.sequence for event in first.events], first.more) == ([1, 2, 3, 4], True)
    second = page(cursor=first.next, source=Listed(count=6))
    assert ([event.sequence for event in second.events], second.more) == ([5, 6], False)
    assert page(cursor=second.next, source=Listed(count=6)).events == ()
    third = page(cursor=second.next, source=Listed(count=8))
    assert ([event.sequence for event in third.events], third.more) == ([7, 8], False)


def test_a_page_without_a_find_goes_on_after_what_was_looked_at():
    nobody = Asked(agent="nobody")
    first = page(nobody)
    assert (first.events, first.more) == ((), False)

    class Strict(Listed):
        def select(self, wanted, after=0, limit=None, *, descending=False):
            assert after == 21, "events were looked at again"
            return super().select(wanted, after, limit, descending=descending)

    assert page(nobody, first.next, source=Strict()).events == ()


def test_newest_first_ends_without_a_cursor():
    first = page(limit=11, descending=True)
    assert [event.sequence for event in first.events] == list(range(21, 10, -1))
    second = page(cursor=first.next, limit=11, descending=True)
    assert [event.sequence for event in second.events] == list(range(10, 0, -1))
    assert (second.more, second.next) == (False, None)


def test_how_long_ago_is_counted_from_the_first_page():
    asked = Asked(since="1h")
    first = page(asked, now_ns=START_NS + HOUR_NS, limit=2)
    assert [event.sequence for event in first.events] == [1, 2]
    later = page(asked, first.next, now_ns=START_NS + 50 * HOUR_NS, limit=2)
    assert [event.sequence for event in later.events] == [3, 4]
    assert page(asked, now_ns=START_NS + 50 * HOUR_NS).events == ()


@pytest.mark.parametrize(
    "other",
    [
        {"asked": Asked(agent="triage")},
        {"asked": Asked(types=("decision.allow",))},
        {"asked": Asked(span="1..")},
        {"asked": Asked(since="1h")},
        {"descending": True},
    ],
)
def test_a_cursor_of_another_question_is_refused(other):
    cursor = page().next
    assert "another question" in cursor_refused(lambda: page(cursor=cursor, **other)).message


def test_a_cursor_of_another_trail_or_of_one_that_was_put_back_is_refused():
    cursor = page().next
    assert "another trail" in cursor_refused(lambda: page(cursor=cursor, source=Listed(OTHER))).message
    assert "earlier state" in cursor_refused(lambda: page(cursor=cursor, source=Listed(count=3))).message
    cursor_refused(lambda: page(cursor=cursor, source=Listed(count=0)))


def test_a_cursor_goes_on_where_events_were_archived():
    cursor = page(limit=4).next
    archived = Listed()
    archived.stored, archived.parsed = archived.stored[6:], archived.parsed[6:]
    archived.event_count = lambda: 21
    assert [event.sequence for event in page(cursor=cursor, source=archived).events] == [7, 8, 9, 10]


@given(st.data())
def test_a_cursor_with_any_change_is_refused(data):
    cursor = page().next
    at = data.draw(st.integers(0, len(cursor) - 1))
    other = data.draw(st.sampled_from("ABCxyz019-_=+/ .\u00e9").filter(lambda char: char != cursor[at]))
    cursor_refused(lambda: page(cursor=cursor[:at] + other + cursor[at + 1 :]))
    cursor_refused(lambda: page(cursor=cursor[:at]))
    cursor_refused(lambda: page(cursor=cursor[:at] + other + cursor[at:]))


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda data: base64.urlsafe_b64encode(data).decode()))
def test_what_was_never_given_out_is_refused(text):
    cursor_refused(lambda: page(cursor=text))


def test_a_cursor_without_end_is_refused():
    cursor_refused(lambda: page(cursor="A" * 10_000_000))


@pytest.mark.parametrize("limit", [0, -1, MAX_PAGE + 1])
def test_a_page_has_a_size(limit):
    with pytest.raises(InputError, match="a page has from 1 to"):
        page(limit=limit)


def test_an_index_that_lies_is_found():
    class Lying(Listed):
        def select(self, wanted, after=0, limit=None, *, descending=False):
            return super().select(replace(wanted, agent=None), after, limit, descending=descending)

    with pytest.raises(Exception, match="is not what the store's index says of it") as found:
        page(Asked(agent="triage"), source=Lying())
    assert found.value.fields == {"sequence": 1, "reason": "index"}
