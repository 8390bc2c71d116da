"""Which signed policy sets were in force: a part of the store."""

from typing import Final

from symbi.adapters.sqlite.file import SQL
from symbi.adapters.sqlite.rows import Rows

PREFIX: Final = "policy."  # what the store itself keeps in the same table has other names


class PolicyNotes(Rows):
    """PolicyMemory, for the store that it is a base of."""

    def policy_note(self, key: str) -> str | None:
        """What was noted under a key."""
        row = self._one(SQL["get_meta"], (PREFIX + key,))
        return None if row is None else str(row[0])

    def put_policy_note(self, key: str, value: str) -> None:
        """Note it."""
        self._write(SQL["put_meta"], (PREFIX + key, value))
