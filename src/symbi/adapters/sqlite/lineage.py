"""Which run asked for which: a part of the store."""

from collections.abc import Sequence

from symbi.adapters.sqlite.file import SQL
from symbi.adapters.sqlite.rows import Rows
from symbi.runtime.lineage import MAX_DEPTH, Descent
from symbi.types import AgentId, RunId


class LineageTable(Rows):
    """LineageStore, for the store that has the connection."""

    def put_descent(self, descent: Descent) -> None:
        """Note where a run comes from, where that is not noted yet."""
        self._fence(self._epoch)
        self._write(SQL["put_descent"], (descent.run_id, descent.parent, descent.root, descent.depth))

    def descent_of(self, run_id: RunId) -> Descent | None:
        """Where a run comes from."""
        row = self._one(SQL["descent_of"], (run_id,))
        return None if row is None else Descent(RunId(row[0]), RunId(row[1]), RunId(row[2]), row[3])

    def chain_of(self, run_id: RunId) -> Sequence[tuple[RunId, AgentId]]:
        """A run and those above it; a row that leads in a circle, which nobody writes, ends it all the same."""
        rows = self._all(SQL["chain_of"], (run_id, MAX_DEPTH + 1))
        return [(RunId(found), AgentId(agent)) for found, agent in rows]

    def answer_label(self, run_id: RunId) -> bytes | None:
        """The label of what a run gave, as it is kept."""
        row = self._one(SQL["answer_label"], (run_id,))
        return None if row is None else row[0]

    def asked_by(self, run_id: RunId) -> Sequence[Descent]:
        """The runs that a run has asked for."""
        rows = self._all(SQL["asked_by"], (run_id,))
        return [Descent(RunId(found), RunId(parent), RunId(root), depth) for found, parent, root, depth in rows]
