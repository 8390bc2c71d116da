"""The ports of compliance: stores that hold personal data, and what the one store keeps of erasures."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from symbi.guard.vault import SubjectKey
from symbi.types import JsonValue, KeyId


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose data is meant, as stores know it.

    Attributes:
        pseudonym: What stands for the name.
        keys: Ids of all keys that it has and had.
    """

    pseudonym: str
    keys: frozenset[KeyId]


@dataclass(frozen=True, slots=True)
class Held:
    """One thing that a store holds about a subject.

    Attributes:
        place: Where, e.g. `effects.result`.
        record: Which record there.
        run_id: The run that it belongs to, or empty.
        effect_id: The effect that it belongs to, or empty.
        at: RFC 3339, when it came to be.
        others: Keys of others that it is about too.
        value: What it says; None where it cannot be opened.
        unopened: Why it cannot be opened, e.g. `erased`; empty where it can.
    """

    place: str
    record: str
    run_id: str
    effect_id: str
    at: str
    others: frozenset[KeyId] = frozenset()
    value: JsonValue = None
    unopened: str = ""


@dataclass(frozen=True, slots=True)
class Erased:
    """What a store did about a subject.

    Attributes:
        what: `deleted`, or `lost its key` where what is kept stays, and nobody can read it again.
        places: How many records, by place.
    """

    what: str
    places: Mapping[str, int]


class SubjectStore(Protocol):
    """A store that holds personal data. All methods may be asked again after a crash, and then find what is left."""

    @property
    def name(self) -> str:
        """Its name in certificates, e.g. `trail`."""

    @property
    def columns(self) -> frozenset[str]:
        """The columns in which it holds personal data, as `table.column`."""

    async def holds(self, subject: Subject) -> Mapping[str, int]:
        """How many records it holds about a subject, by place.

        Raises:
            StoreUnavailable: It cannot be read.
        """

    def export(self, subject: Subject) -> AsyncIterator[Held]:
        """What it holds about a subject, oldest first; also what cannot be opened, which says why.

        Raises:
            StoreUnavailable: It cannot be read.
        """

    async def erase(self, subject: Subject) -> Erased:
        """Remove what it holds about a subject, or see to it that it cannot be read once its keys are destroyed.

        Raises:
            StoreUnavailable: It cannot be read or written; asking again finishes it.
        """


class ErasureState(StrEnum):
    """How far an erasure has come."""

    DESTROYED = "destroyed"
    """The keys are gone; the search and the certificate are still to come."""
    CERTIFIED = "certified"


@dataclass(frozen=True, slots=True)
class Erasure:
    """An erasure as the store keeps it.

    Attributes:
        pseudonym: Of the subject.
        state: How far it has come.
        facts: JSON: what was done until then, or the certificate.
        at: RFC 3339, when it came there.
    """

    pseudonym: str
    state: ErasureState
    facts: bytes
    at: str


@dataclass(frozen=True, slots=True)
class OpenWork:
    """Something that is under way and about a subject.

    Attributes:
        kind: `run`, `approval`, `effect` or `message`.
        id: Of it.
        state: How it stands.
    """

    kind: str
    id: str
    state: str


class PrivacyStore(Protocol):
    """What the one store keeps of erasures, and how it lets go of what was overwritten; blocks, on the store's thread."""

    def put_erasure(self, erasure: Erasure) -> None:
        """Insert or replace how far the erasure of a subject has come; inside the running transaction."""

    def erasures(self, pseudonym: str | None = None) -> Sequence[Erasure]:
        """All erasures, or that of one subject."""

    def all_subject_keys(self, after: KeyId, limit: int) -> Sequence[SubjectKey]:
        """Keys of all subjects with a greater id, by id."""

    def open_work(self, keys: frozenset[KeyId]) -> Sequence[OpenWork]:
        """Runs, approvals, effects and messages that are under way, with something sealed by one of these keys."""

    def let_go(self, *, rewrite: bool = False) -> None:
        """Move all of the write-ahead log into the file and cut the log to nothing; outside of a transaction.

        Args:
            rewrite: Write the whole file anew first, so that no page has room with old bytes in it.

        Raises:
            StoreUnavailable: A reader still needs the old pages, or the store cannot be written.
        """


@dataclass(frozen=True, slots=True)
class SealedRow:
    """A column of a row that may hold something sealed.

    Attributes:
        table, column: Where.
        key: Of the row, as the associated data names it.
        run_id: The run that it belongs to, or empty.
        effect_id: The effect that it belongs to, or empty.
        at: RFC 3339.
        data: What stands there.
        place: As certificates and exports name it, e.g. `effects.result`.
    """

    table: str
    column: str
    key: str
    run_id: str
    effect_id: str
    at: str
    data: bytes
    place: str


class SealedRows(Protocol):
    """Reads the sealed columns of the one store, some at a time, on the store's thread."""

    def sealed_rows(self, store: str, after: str) -> tuple[Sequence[SealedRow], str | None]:
        """Columns with something sealed in the next part of a store, and from where to go on; None at its end.

        Args:
            store: `trail`, `archive`, `effects`, `requests`, `runs`, `approvals`, `keys`, `letters`, `mailbox` or `answers`.
            after: What the call before returned; empty at the beginning.

        Raises:
            StoreUnavailable: It cannot be read.
        """
