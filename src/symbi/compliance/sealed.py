"""The stores whose personal data is sealed: it loses its key, and stays where it is, so that the chain still holds."""

import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final, Protocol, TypeVar

from symbi.audit.event import parse_event
from symbi.compliance.port import Erased, Held, SealedRow, SealedRows, Subject
from symbi.errors import DecryptionFailed
from symbi.guard.confidential import PRIVATE, event_place, request_place
from symbi.guard.sealed import SealedText, is_sealed, is_sealed_json, read_sealed, read_sealed_json
from symbi.guard.vault import Vault, place
from symbi.types import JsonValue

T = TypeVar("T")

EVENTS: Final = "events"  # the table of the trail
LOST_KEY: Final = "lost its key"
MARKED: Final = b'"sealed"'  # in JSON with something sealed in it

_CONTEXT_OF_THE_RUN: Final = frozenset(
    {"label", "labels", "secrets", "opaque", "request", "time", "usage", "history", "grant", "tainted", "sinks",
     "confidentialSinks"}
)  # fmt: skip


_WITH_LABELS: Final = frozenset({"mailbox.body", "dead_letters.inputs"})  # messages: labels are such a frame
_FRAMES: Final = (".error", ".labels", ".decision", ".note")


class Read(Protocol):
    """Runs a reading function on the store's thread, between commits (`symbi.audit.log.AuditLog.read`)."""

    def __call__(self, query: Callable[[], T], /) -> Awaitable[T]:
        """What the function returns."""


Pages = Callable[[str, str], Awaitable[tuple[Sequence[SealedRow], str | None]]]


def pages_of(rows: SealedRows, read: Read) -> Pages:
    """The pages of rows that are read on the store's thread."""

    async def page(store: str, after: str) -> tuple[Sequence[SealedRow], str | None]:
        return await read(partial(rows.sealed_rows, store, after))

    return page


class SealedStore:
    """SubjectStore over sealed columns of the one store.

    Args:
        name: See `SealedRows.sealed_rows`.
        columns: Its columns that are sealed, as `table.column`.
        pages: Reads them, some at a time, see `SealedRows.sealed_rows`.
        vault: Opens them.
        read: Takes a function to the store's thread.
        plain: What a value says that is a sealed message, and any other as it is; on the store's thread.
    """

    def __init__(
        self,
        name: str,
        columns: frozenset[str],
        pages: Pages,
        vault: Vault,
        read: Read,
        plain: Callable[[bytes], bytes] = bytes,
    ) -> None:
        self._name = name
        self._columns = columns
        self._pages = pages
        self._vault = vault
        self._read = read
        self._plain = plain

    @property
    def name(self) -> str:
        """Its name."""
        return self._name

    @property
    def columns(self) -> frozenset[str]:
        """The columns that it answers for."""
        return self._columns

    async def holds(self, subject: Subject) -> Mapping[str, int]:
        """How many sealed values there are, by place."""
        count: Counter[str] = Counter()
        async for page in self._sealed(subject):
            count.update(row.place for row, _ in page)
        return count

    async def export(self, subject: Subject) -> AsyncIterator[Held]:
        """What is sealed, opened."""
        async for page in self._sealed(subject):
            for held in await self._read(partial(self._open, subject, page)):
                yield held

    async def erase(self, subject: Subject) -> Erased:
        """Count what loses its key once that is destroyed."""
        return Erased(LOST_KEY, await self.holds(subject))

    async def _sealed(self, subject: Subject) -> AsyncIterator[list[tuple[SealedRow, SealedText]]]:
        """What is sealed by keys of a subject, a page at a time."""
        after: str | None = ""
        while after is not None:
            rows, after = await self._pages(self._name, after)
            found = [(row, sealed) for row in rows if (sealed := sealed_of(row.table, row.data)) is not None]
            if page := [(row, sealed) for row, sealed in found if not subject.keys.isdisjoint(sealed.keys)]:
                yield page

    def _open(self, subject: Subject, page: Sequence[tuple[SealedRow, SealedText]]) -> list[Held]:
        """A page, opened; on the store's thread."""
        opened: list[Held] = []
        for row, sealed in page:
            others = frozenset(sealed.keys) - subject.keys
            held = Held(row.place, row.key, row.run_id, row.effect_id, row.at, others)
            try:
                value = _document(self._plain(self._vault.open_text(sealed, bound_to(row))))
                opened.append(replace(held, value=value))
            except DecryptionFailed as error:
                opened.append(replace(held, unopened=str(error.fields.get("reason", "altered"))))
        return opened


def sealed_of(table: str, data: bytes) -> SealedText | None:
    """What is sealed in a column, or None where nothing is.

    In an event it is the detail `private`; in any other column it is the whole of it. What an agent, a tool or a person made
    to look like it is none: it stands in no such place, or has not the form, and nobody could open it.
    """
    try:
        if table == EVENTS:
            private = parse_event(data).details.get(PRIVATE)
            return read_sealed_json(private) if is_sealed_json(private) else None
        return read_sealed(data) if is_sealed(data) else None
    except DecryptionFailed as malformed:
        if malformed.fields.get("reason") == "form":
            return None
        raise


def personal_part(held: Held) -> JsonValue:
    """Of what was opened, what may tell of somebody: not the frame around it that every trail has.

    Errors quote arguments and answers, which are searched for by themselves, in words that every trail has.
    """
    value = held.value
    if not isinstance(value, Mapping):
        return None if held.place.endswith(_FRAMES) else value
    if held.place in _WITH_LABELS:
        return [value.get(name) for name in ("inputs", "grant")]
    if held.place.startswith("requests."):
        context = value.get("context")
        shown = context if isinstance(context, Mapping) else {}
        return {name: part for name, part in shown.items() if name not in _CONTEXT_OF_THE_RUN}
    if held.place.startswith(("events.", "archive.")) or held.place == "approvals.facts":
        return [value.get(name) for name in ("arguments", "result", "shown")]
    return None if held.place.endswith(_FRAMES) else value


def event_row(record: bytes, sequence: int, where: str) -> SealedRow:
    """An event as a row.

    Raises:
        ChainBroken: It is no event.
    """
    event = parse_event(record, sequence=sequence)
    effect = str(event.details.get("effect_id", ""))
    return SealedRow(EVENTS, "record", str(event.sequence), event.run_id, effect, event.timestamp, record, where)


def bound_to(row: SealedRow) -> bytes:
    """The associated data of what is sealed in a row."""
    if row.table == EVENTS:
        event = parse_event(row.data)
        shown = {name: value for name, value in event.details.items() if name != PRIVATE}
        return event_place(event.event_type, event.run_id, shown)
    if row.table == "requests":
        return request_place(row.effect_id)
    return place(row.table, row.column, row.key)


def _document(data: bytes) -> JsonValue:
    """What was sealed: JSON, or a text."""
    try:
        value: JsonValue = json.loads(data)
    except (ValueError, RecursionError):
        return data.decode("utf-8", "replace")
    return value
