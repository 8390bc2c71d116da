"""Keys of data subjects and holds, in the store."""

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Never, TypeVar

from symbi.adapters.sqlite.file import SQL, unavailable
from symbi.adapters.sqlite.rows import Rows
from symbi.errors import InternalError
from symbi.guard.vault import Hold, SubjectKey
from symbi.types import KeyId

T = TypeVar("T")


class SubjectTable(Rows):
    """SubjectKeyStore, for the store that has the connection."""

    def put_subject_key(self, key: SubjectKey) -> None:
        """Insert a key."""
        self._fence(self._epoch)
        values = (key.key_id, key.pseudonym, key.wrapped, key.created_at, key.destroyed_at, key.name)
        try:
            self._db.execute(SQL["put_subject_key"], values)
        except sqlite3.IntegrityError as error:
            msg = f"key `{key.key_id}` is recorded already, or its subject has another: {error}"
            raise InternalError(msg, code="internal.duplicate") from error
        except sqlite3.Error as error:
            raise unavailable("write", error) from error

    def subject_keys(self, pseudonym: str) -> Sequence[SubjectKey]:
        """All keys of a subject."""
        return [to_subject_key(row) for row in self._all(SQL["subject_keys"], (pseudonym,))]

    def subject_key(self, key_id: KeyId) -> SubjectKey | None:
        """One key."""
        row = self._one(SQL["subject_key"], (key_id,))
        return None if row is None else to_subject_key(row)

    def any_subject_key(self) -> SubjectKey | None:
        """Some living key."""
        row = self._one(SQL["any_subject_key"])
        return None if row is None else to_subject_key(row)

    def destroy_subject_keys(self, pseudonym: str, at: str) -> int:
        """Overwrite the keys of a subject."""
        self._fence(self._epoch)
        # Zeros first, in the same place and length: a shorter row alone would be written beside what it replaces.
        self._write(SQL["blank_subject_keys"], (pseudonym,))
        return self._write(SQL["destroy_subject_keys"], (at, pseudonym))

    def set_hold(self, hold: Hold) -> None:
        """Insert or replace a hold."""
        self._fence(self._epoch)
        self._write(SQL["set_hold"], (hold.pseudonym, hold.note, hold.held_at))

    def hold_of(self, pseudonym: str) -> Hold | None:
        """The hold of a subject."""
        row = self._one(SQL["hold_of"], (pseudonym,))
        return None if row is None else Hold(*row)

    def holds(self) -> Sequence[Hold]:
        """All holds."""
        return [Hold(*row) for row in self._all(SQL["holds"])]

    def release_hold(self, pseudonym: str) -> bool:
        """Remove a hold."""
        self._fence(self._epoch)
        return self._write(SQL["release_hold"], (pseudonym,)) > 0


class SubjectReader(ABC):
    """SubjectKeyStore for who only reads: a vault over it opens, and makes and destroys nothing."""

    @abstractmethod
    def _use(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """Read from the open store."""

    def subject_keys(self, pseudonym: str) -> Sequence[SubjectKey]:
        """All keys of a subject."""
        return [to_subject_key(row) for row in self._subject_rows("subject_keys", (pseudonym,))]

    def subject_key(self, key_id: KeyId) -> SubjectKey | None:
        """One key."""
        return next((to_subject_key(row) for row in self._subject_rows("subject_key", (key_id,))), None)

    def any_subject_key(self) -> SubjectKey | None:
        """Some living key."""
        return next((to_subject_key(row) for row in self._subject_rows("any_subject_key", ())), None)

    def hold_of(self, pseudonym: str) -> Hold | None:
        """The hold of a subject."""
        return next((Hold(*row) for row in self._subject_rows("hold_of", (pseudonym,))), None)

    def holds(self) -> Sequence[Hold]:
        """All holds."""
        return [Hold(*row) for row in self._subject_rows("holds", ())]

    def put_subject_key(self, key: SubjectKey) -> Never:
        """Refused."""
        raise _read_only(f"take key `{key.key_id}`")

    def destroy_subject_keys(self, pseudonym: str, at: str) -> Never:
        """Refused."""
        raise _read_only(f"destroy the keys of `{pseudonym}` at {at}")

    def set_hold(self, hold: Hold) -> Never:
        """Refused."""
        raise _read_only(f"hold `{hold.pseudonym}`")

    def release_hold(self, pseudonym: str) -> Never:
        """Refused."""
        raise _read_only(f"release `{pseudonym}`")

    def _subject_rows(self, name: str, values: tuple[object, ...]) -> list[Any]:
        return self._use(lambda db: db.execute(SQL[name], values).fetchall())


def _read_only(what: str) -> InternalError:
    return InternalError(f"a store that is open for reading cannot {what}", code="internal.read_only")


def to_subject_key(row: Any) -> SubjectKey:
    """A row as a key."""
    key_id, pseudonym, wrapped, created_at, destroyed_at, name = row
    return SubjectKey(KeyId(key_id), pseudonym, wrapped, created_at, destroyed_at, name)
