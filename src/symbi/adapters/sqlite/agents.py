"""Agents that were made to stay: a part of the store."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from symbi.adapters.sqlite.file import SQL, damaged, mapped
from symbi.adapters.sqlite.rows import Rows
from symbi.errors import InputError
from symbi.runtime.lifecycle import AgentState
from symbi.runtime.roster import AgentRecord, stale
from symbi.types import AgentId

_HALTED: Final = "halted"


class AgentTable(Rows):
    """AgentStore, for the store that has the connection."""

    def put_agents(self, records: Sequence[AgentRecord]) -> None:
        """Insert agents; terminated ones of their names are made anew."""
        self._fence(self._epoch)
        rows = [
            (one.agent_id, one.file, one.source_digest, one.state.value, one.revision, one.reason, one.parent,
             one.created_at, one.changed_at)
            for one in records
        ]  # fmt: skip
        with mapped("write"):
            written = self._db.executemany(SQL["put_agent"], rows).rowcount
        if written != len(rows):
            # Somewhere among them is one that was left as it was; which one, only its columns tell.
            names = [one.agent_id for one in records if not self._is(one)]
            msg = f"agent `{names[0] if names else records[0].agent_id}` is there already"
            raise InputError(msg, code="input.agent_exists", hint="`symbi agents show` tells how it stands")

    def _is(self, record: AgentRecord) -> bool:
        found = self.get_agent(record.agent_id)
        return found is not None and (found.created_at, found.revision) == (record.created_at, record.revision)

    def move_agent(self, record: AgentRecord, was_revision: int) -> None:
        """Move an agent on, if it still stands where the caller saw it."""
        self._fence(self._epoch)
        values = (
            record.state.value, record.revision, record.reason, record.file, record.source_digest, record.changed_at,
            record.agent_id, was_revision, record.created_at,
        )  # fmt: skip
        if self._write(SQL["move_agent"], values) != 1:
            raise stale(record, self.get_agent(record.agent_id))

    def get_agent(self, agent: AgentId) -> AgentRecord | None:
        """One agent."""
        row = self._one(SQL["get_agent"], (agent,))
        return None if row is None else _record(row)

    def agents(self, state: AgentState | None, after: str, limit: int) -> Sequence[AgentRecord]:
        """Agents by name."""
        if state is None:
            return [_record(row) for row in self._all(SQL["agents"], (after, limit))]
        return [_record(row) for row in self._all(SQL["agents_in"], (state.value, after, limit))]

    def count_agents(self) -> Mapping[AgentState, int]:
        """How many there are in each state."""
        try:
            return {AgentState(state): count for state, count in self._all(SQL["count_agents"])}
        except ValueError as unknown:
            raise damaged(unknown) from unknown

    def last_number(self, declared: AgentId) -> int:
        """The greatest number among the instances of a declaration."""
        return int(self._one(SQL["last_number"], (declared,))[0])

    def halted(self) -> str:
        """Who has stopped everything."""
        row = self._one(SQL["get_meta"], (_HALTED,))
        return "" if row is None else str(row[0])

    def set_halted(self, by: str) -> None:
        """Note who has stopped everything, or that nobody has."""
        self._fence(self._epoch)
        self._write(SQL["put_meta"], (_HALTED, by))


def _record(row: Any) -> AgentRecord:
    agent, file, digest, state, revision, reason, parent, created_at, changed_at = row
    try:
        return AgentRecord(
            AgentId(agent), file, digest, AgentState(state), revision, reason, parent, created_at, changed_at
        )
    except ValueError as unknown:
        raise damaged(unknown) from unknown
