"""The stores whose personal data is sealed: it loses its key, and stays where it is, so that the chain still holds."""

import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
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

LOST_KEY: Final = "lost its key"
MARKED: Final = b'"sealed"'  # in JSON with something sealed in it

_CONTEXT_OF_THE_RUN: Final = frozenset(
    {"label", "labels", "secrets", "opaque", "request", "time", "usage", "history", "grant", "tainted", "sinks",
     "confidentialSinks"}
)  # fmt: skip


_FRAMES: Final = (".error", ".labels", ".decision", ".note")


class Read(Protocol):
    """Runs a reading function on the store's thread, between commits (`symbi.audit.log.AuditLog.read`)."""

    def __call__(self, query: Callable[[], T], /) -> Awaitable[T]:
        """What the function returns."""


class SealedStore:
    """SubjectStore over sealed columns of the one store.

    Args:
        name: See `SealedRows.sealed_rows`.
        columns: Its columns that are sealed, as `table.column`.
        rows: Reads them.
        vault: Opens them.
        read: Takes a function to the store's thread.
    """

    def __init__(
        self,
        name: str,
        columns: frozenset[str],
        rows: SealedRows,
        vault: Vault,
        read: Read,
    ) -> None:
        self._name = name
        self._columns = columns
        self._rows = rows
        self._vault = vault
        self._read = read

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
        async for row, path, _ in self._sealed(subject):
            count[place_of(row, path)] += 1
        return count

    async def export(self, subject: Subject) -> AsyncIterator[Held]:
        """What is sealed, opened."""
        async for row, path, sealed in self._sealed(subject):
            also = len(set(sealed.keys) - subject.keys)
            held = partial(Held, place_of(row, path), row.key, row.run_id, row.effect_id, row.at, also)
            try:
                opening = partial(self._vault.open_text, sealed, bound_to(row))
                data = await self._read(opening)
            except DecryptionFailed as error:
                yield held(unopened=str(error.fields.get("reason", "altered")))
                continue
            yield held(value=_document(data))

    async def erase(self, subject: Subject) -> Erased:
        """Count what loses its key once that is destroyed."""
        return Erased(LOST_KEY, await self.holds(subject))

    async def _sealed(self, subject: Subject) -> AsyncIterator[tuple[SealedRow, tuple[str, ...], SealedText]]:
        after: str | None = ""
        while after is not None:
            rows, after = await self._read(partial(self._rows.sealed_rows, self._name, after))
            for row in rows:
                for path, sealed in sealed_in(row.data):
                    if not subject.keys.isdisjoint(sealed.keys):
                        yield row, path, sealed


def sealed_in(data: bytes) -> Iterator[tuple[tuple[str, ...], SealedText]]:
    """What is sealed in a column: all of it (with an empty path), or parts of a JSON document (with the path to each).

    Raises:
        DecryptionFailed: Something says that it is sealed and has not the form.
    """
    if is_sealed(data):
        yield (), read_sealed(data)
    elif MARKED in data:
        yield from _walk(json.loads(data), ())


def _walk(value: JsonValue, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], SealedText]]:
    if is_sealed_json(value):
        yield path, read_sealed_json(value)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _walk(item, (*path, name))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _walk(item, (*path, str(number)))


def place_of(row: SealedRow, path: Sequence[str]) -> str:
    """A place as certificates and exports name it."""
    return ".".join((row.table, row.column, *path))


def personal_part(held: Held) -> JsonValue:
    """Of what was opened, what may tell of somebody: not the frame around it that every trail has.

    Errors quote arguments and answers, which are searched for by themselves, in words that every trail has.
    """
    value = held.value
    if not isinstance(value, Mapping):
        return None if held.place.endswith(_FRAMES) else value
    if held.place.startswith("requests."):
        context = value.get("context")
        shown = context if isinstance(context, Mapping) else {}
        return {name: part for name, part in shown.items() if name not in _CONTEXT_OF_THE_RUN}
    if held.place.startswith("events.") or held.place == "approvals.facts":
        return [value.get(name) for name in ("arguments", "result", "shown")]
    return None if held.place.endswith(_FRAMES) else value


def bound_to(row: SealedRow) -> bytes:
    """The associated data of what is sealed in a row."""
    if row.table == "events":
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
