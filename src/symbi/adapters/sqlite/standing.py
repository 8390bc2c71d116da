"""What waits in the store, counted by index: a part of the store."""

from symbi.adapters.sqlite.file import SQL
from symbi.adapters.sqlite.rows import Rows
from symbi.runtime.status import Waiting


class WaitingCounts(Rows):
    """`symbi.runtime.status.WaitingStore`, for the store that has the connection."""

    def waiting(self, most: int) -> Waiting:
        """What waits, counted no further than to a bound."""
        kinds = ("messages", "later", "in_doubt", "dead_letters", "approvals")
        return Waiting(*(int(self._one(SQL[f"waiting_{kind}"], (most,))[0]) for kind in kinds))
