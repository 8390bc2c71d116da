"""Which signed policy sets were in force: a part of the store."""

from typing import Any, Final

from symbi.adapters.sqlite.file import SQL

PREFIX: Final = "policy."  # what the store itself keeps in the same table has other names


class PolicyNotes:
    """PolicyMemory, for the store that it is a base of."""

    def _one(self, sql: str, values: tuple[object, ...] = ()) -> Any:
        raise NotImplementedError

    def _write(self, sql: str, values: tuple[object, ...]) -> int:
        raise NotImplementedError

    def policy_note(self, key: str) -> str | None:
        """What was noted under a key."""
        row = self._one(SQL["get_meta"], (PREFIX + key,))
        return None if row is None else str(row[0])

    def put_policy_note(self, key: str, value: str) -> None:
        """Note it."""
        self._write(SQL["put_meta"], (PREFIX + key, value))
