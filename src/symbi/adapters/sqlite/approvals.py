"""Approvals in the store: rows and statements; what is done with them is the desk's."""

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from symbi.adapters.sqlite.file import SQL, damaged, unavailable
from symbi.adapters.sqlite.rows import Rows
from symbi.errors import InternalError
from symbi.guard.approval import APPROVAL_MOVES, ApprovalRecord, ApprovalState, Vote
from symbi.guard.sealed import is_sealed
from symbi.types import AgentId, EffectId, RunId


def approval_row(record: ApprovalRecord) -> tuple[object, ...]:
    """A record as a row."""
    return (
        record.id, record.run_id, record.position, record.agent_id, record.place, record.facts, record.digest,
        record.shown, record.state.value, votes_column(record), record.created_at, record.expires_at,
        record.revision,
    )  # fmt: skip


def votes_column(record: ApprovalRecord) -> bytes:
    """The votes as they stand in their column."""
    return msgspec.json.encode(record.votes) if record.sealed_votes is None else record.sealed_votes


def to_approval(row: Any) -> ApprovalRecord:
    """A row as a record.

    Raises:
        StoreUnavailable: It is none.
    """
    (approval_id, run_id, position, agent_id, place, facts, digest, shown, state, votes, created_at, expires_at,
     revision) = row  # fmt: skip
    try:
        return ApprovalRecord(
            EffectId(approval_id), RunId(run_id), position, AgentId(agent_id), place, facts, digest, shown,
            ApprovalState(state), () if is_sealed(votes) else msgspec.json.decode(votes, type=tuple[Vote, ...]),
            created_at, expires_at, revision, sealed_votes=votes if is_sealed(votes) else None,
        )  # fmt: skip
    except (ValueError, msgspec.MsgspecError) as unknown:
        raise damaged(unknown) from unknown


class ApprovalTable(Rows):
    """ApprovalStore, for the store that has the connection."""

    def put_approval(self, record: ApprovalRecord) -> None:
        """Insert an approval."""
        self._fence(self._epoch)
        try:
            self._db.execute(SQL["put_approval"], approval_row(record))
        except sqlite3.IntegrityError as error:
            msg = f"approval `{record.id}` is recorded already: {error}"
            raise InternalError(msg, code="internal.duplicate") from error
        except sqlite3.Error as error:
            raise unavailable("write", error) from error

    def move_approval(self, record: ApprovalRecord, was: ApprovalRecord) -> None:
        """Move an approval on, if it still stands where the caller saw it."""
        if record.state not in APPROVAL_MOVES[was.state] or record.revision != was.revision + 1:
            msg = f"an approval cannot move from {was.state.value} to {record.state.value}"
            raise InternalError(msg, code="internal.approval_move")
        self._fence(self._epoch)
        values = (
            record.place,
            record.shown,
            record.state.value,
            votes_column(record),
            record.revision,
            was.id,
            was.revision,
        )
        try:
            moved = self._db.execute(SQL["move_approval"], values).rowcount
        except sqlite3.Error as error:
            raise unavailable("write", error) from error
        if moved != 1:
            msg = f"approval `{record.id}` is not {was.state.value} any more"
            raise InternalError(msg, code="internal.approval_stale", effect_id=record.id)

    def get_approval(self, approval_id: str) -> ApprovalRecord | None:
        """One approval."""
        rows = self._rows("get_approval", (approval_id,))
        return rows[0] if rows else None

    def approval_at(self, place: str) -> ApprovalRecord | None:
        """The approval that is asked for at a place."""
        rows = self._rows("approval_at", (place,))
        return rows[0] if rows else None

    def approvals(self, states: Sequence[ApprovalState], limit: int) -> Sequence[ApprovalRecord]:
        """The newest approvals in some states."""
        return approvals_in(self._db, states, limit)

    def _rows(self, name: str, values: tuple[object, ...]) -> list[ApprovalRecord]:
        return _read(self._db, name, values)


def approvals_in(db: sqlite3.Connection, states: Sequence[ApprovalState], limit: int) -> list[ApprovalRecord]:
    """The newest approvals in some states."""
    return _read(db, "approvals", (json.dumps([state.value for state in states]), limit))


def approval_of(db: sqlite3.Connection, approval_id: str) -> ApprovalRecord | None:
    """One approval."""
    rows = _read(db, "get_approval", (approval_id,))
    return rows[0] if rows else None


def _read(db: sqlite3.Connection, name: str, values: tuple[object, ...]) -> list[ApprovalRecord]:
    try:
        return [to_approval(row) for row in db.execute(SQL[name], values)]
    except sqlite3.Error as error:
        raise unavailable("read", error) from error
