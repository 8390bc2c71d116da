"""Long answers in pages: cursors say where a question's answer goes on.

A cursor is opaque and not secret. It holds how far the answer went, a part of the chain hash there, the times that the
question began with, and what the question was; so one that was cut, that belongs to another question, or that is of
another trail is refused. What is appended meanwhile changes no page that was given, and comes on a later one.
"""

import base64
import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any, Final

from symbi.audit.event import AuditEvent, is_hash, is_timestamp
from symbi.audit.query import LARGEST_SEQUENCE, Asked, EventSource, judged, read_filter
from symbi.errors import InputError

MAX_PAGE: Final = 10_000  # events of one page; bounds the memory of an answer
MAX_CURSOR_CHARS: Final = 1024

_CURSOR_VERSION: Final = 1
_MARK_DIGITS: Final = 16  # of the chain hash at a cursor's place: tells one trail from another, proves nothing
_CHECK_BYTES: Final = 8
_HASH_DIGITS: Final = 64


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a long answer.

    Attributes:
        events: At most as many as were asked for.
        more: Whether more was in the store when this was read.
        next: The cursor that goes on after this page; also where nothing more was there, for what comes later. None
            where nothing can come: newest first, and all of it was given.
    """

    events: tuple[AuditEvent, ...]
    more: bool
    next: str | None


@dataclass(frozen=True, slots=True)
class _Place:
    """What a cursor holds: how far an answer went, and the times that its question began with."""

    at: int
    mark: str
    since: str | None
    until: str | None


def read_page(
    source: EventSource,
    asked: Asked,
    now_ns: int,
    *,
    cursor: str | None = None,
    limit: int = 100,
    descending: bool = False,
) -> Page:
    """A page of the events that a question is about.

    Events that are appended meanwhile change no page that was given, and come on later ones. "Two hours ago" is counted
    from the first page.

    Args:
        source: One snapshot of a store.
        asked: The question; with a cursor, the one that it came with.
        now_ns: Now, in nanoseconds since the epoch.
        cursor: The `next` of the page before; None for the first page.
        limit: At most so many events, up to `MAX_PAGE`.
        descending: The newest first.

    Raises:
        InputError: The question is malformed, or the cursor is none, belongs to another question or to another trail.
        ChainBroken: A record is damaged, or the index is not right.
        StoreUnavailable: The store cannot be read.
    """
    if not 1 <= limit <= MAX_PAGE:
        msg = f"a page has from 1 to {MAX_PAGE} events, not {limit}"
        raise InputError(msg, code="input.limit")
    if cursor is None:
        wanted = read_filter(asked, now_ns)
        place = _Place(0, "", wanted.since, wanted.until)
    else:
        place = _read_cursor(cursor, asked, descending=descending)
        _check_mark(source, place)
        wanted = replace(
            read_filter(replace(asked, since=None, until=None), now_ns), since=place.since, until=place.until
        )
    end = source.event_count()
    found = list(judged(wanted, source.select(wanted, place.at, limit + 1, descending=descending)))
    events, more = tuple(found[:limit]), len(found) > limit
    if descending and not more:
        return Page(events, more=False, next=None)
    # Where no more is there, all events up to the end were looked at.
    at = events[-1].sequence if more else max(place.at, end)
    after = _Place(at, _mark(source, at), wanted.since, wanted.until)
    return Page(events, more, _write_cursor(after, asked, descending=descending))


def _mark(source: EventSource, at: int) -> str:
    stored = next(source.read(at, at), None) if at else None
    return "" if stored is None else stored.chain_hash[:_MARK_DIGITS]


def _check_mark(source: EventSource, place: _Place) -> None:
    """Refuse a cursor of another trail. What was archived meanwhile cannot be compared, and leaves no doubt in what follows."""
    there = _mark(source, place.at)
    if place.at > source.event_count() or (there and place.mark and there != place.mark):
        msg = "the cursor is of another trail, or of this one before it was put back to an earlier state"
        raise InputError(
            msg, code="input.cursor", hint="ask again without it, and verify the trail if you did not expect this"
        )


def _write_cursor(place: _Place, asked: Asked, *, descending: bool) -> str:
    fields = [_CURSOR_VERSION, place.at, place.mark, place.since, place.until, _question(asked, descending=descending)]
    body = json.dumps(fields, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(_check(body) + body).decode().rstrip("=")


def _read_cursor(text: str, asked: Asked, *, descending: bool) -> _Place:
    place, question = _parse_cursor(text)
    if question != _question(asked, descending=descending):
        msg = "the cursor belongs to another question: filters and order must be those that it came with"
        raise InputError(
            msg, code="input.cursor", hint="repeat the options of the page before, or ask without a cursor"
        )
    return place


def _parse_cursor(text: str) -> tuple[_Place, str]:
    try:
        fields = _unpack(text)
        version, at, mark, since, until, question = fields
    except (ValueError, TypeError, RecursionError):
        version, at, mark, since, until, question = (None,) * 6
    if (
        version != _CURSOR_VERSION
        or type(at) is not int
        or not 0 <= at <= LARGEST_SEQUENCE
        or not isinstance(mark, str)
        or not is_hash(mark.ljust(_HASH_DIGITS, "0"))
        or not isinstance(question, str)
        or not all(time is None or is_timestamp(time) for time in (since, until))
    ):
        msg = "that is not a cursor: it was cut, altered, or not given out here"
        raise InputError(msg, code="input.cursor", hint="a cursor is the `next` of the page before, as it stands")
    return _Place(at, mark, since, until), question


def _unpack(text: str) -> Any:
    """What stands in a cursor; None where it is not one of ours, byte for byte.

    Raises:
        ValueError: It is not base64, or no JSON.
    """
    if len(text) > MAX_CURSOR_CHARS or not text.isascii():
        return None
    data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    body = data[_CHECK_BYTES:]
    ours = _check(body) == data[:_CHECK_BYTES] and base64.urlsafe_b64encode(data).decode().rstrip("=") == text
    return json.loads(body) if ours else None


def _question(asked: Asked, *, descending: bool) -> str:
    return hashlib.sha256(asked.words() + (b"<" if descending else b">")).hexdigest()[:_MARK_DIGITS]


def _check(body: bytes) -> bytes:
    """Finds accidents. Whoever makes a cursor of their own learns nothing that they could not ask for."""
    return hashlib.sha256(b"symbi/audit/cursor\0" + body).digest()[:_CHECK_BYTES]
