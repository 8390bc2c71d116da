"""Dead letters: a part of the store."""

import sqlite3
from collections.abc import Sequence
from typing import Any

from symbi.adapters.sqlite.file import SQL, damaged, mapped
from symbi.adapters.sqlite.payloads import PayloadTable
from symbi.runtime.letters import MAX_CLOSED, DeadLetter, LetterKind, LetterState, Wanted
from symbi.types import AgentId, RunId


class DeadLetterTable(PayloadTable):
    """DeadLetterStore, for the store that has the connection."""

    def put_letter(self, letter: DeadLetter) -> bool:
        """Insert a letter, if its run has none."""
        self._fence(self._epoch)
        inputs, error = self._kept(letter.inputs), self._kept(letter.error)
        values = (
            letter.run_id, letter.kind.value, letter.agent_id, letter.declared, letter.file, letter.code, letter.attempts,
            letter.at, letter.state.value, inputs, letter.grant, letter.labels, error, letter.became,
            letter.closed_at, letter.note, letter.epoch,
        )  # fmt: skip
        new = self._write(SQL["put_letter"], values) == 1
        if not new:
            self._unkept(inputs, error)
        return new

    def close_letter(self, letter: DeadLetter) -> bool:
        """Close an open letter; secure_delete overwrites what was its payload."""
        self._fence(self._epoch)
        values = (letter.state.value, letter.became, letter.closed_at, letter.note, letter.run_id)
        closed = self._write(SQL["close_letter"], values) == 1
        if closed:
            self._write(SQL["forget_letters"], (letter.declared, MAX_CLOSED))
        return closed

    def get_letter(self, run_id: RunId) -> DeadLetter | None:
        """The letter of a run."""
        row = self._one(SQL["get_letter"], (run_id,))
        return None if row is None else to_letter(row)

    def unsealed_letters(self, after: str, limit: int) -> Sequence[DeadLetter]:
        """Open letters behind one that are not sealed."""
        return [to_letter(row) for row in self._all(SQL["unsealed_letters"], (after, limit))]

    def reseal_letter(self, letter: DeadLetter) -> None:
        """Replace what is kept of such a letter."""
        self._fence(self._epoch)
        values = (self._kept(letter.inputs), self._kept(letter.error), letter.epoch, letter.run_id)
        self._write(SQL["reseal_letter"], values)

    def left_open(self) -> Sequence[RunId]:
        """The runs that letters became and that are open, oldest replay first."""
        return [RunId(row[0]) for row in self._all(SQL["replays_left_open"], ())]

    def letters(self, wanted: Wanted) -> Sequence[DeadLetter]:
        """Some letters, newest first."""
        with mapped("read"):
            return letters_in(self._db, wanted)


def letters_in(db: sqlite3.Connection, wanted: Wanted) -> Sequence[DeadLetter]:
    """Some letters, newest first; those in one state of one agent by the index of these."""
    declared = None if wanted.agent is None or "/" in wanted.agent else wanted.agent
    state = None if wanted.state is None else wanted.state.value
    pages = (wanted.limit, wanted.beyond)
    if declared is not None and state is not None:
        rows = db.execute(SQL["letters_of"], (declared, state, *pages))
    else:
        one = wanted.agent if declared is None else None
        rows = db.execute(SQL["letters"], (declared, one, state, *pages))
    return [to_letter(row) for row in rows]


def to_letter(row: Any) -> DeadLetter:
    """A row as a letter."""
    run_id, kind, agent_id, file, code, attempts, at, state = row[:8]
    inputs, grant, labels, error, became, closed_at, note, epoch = row[8:]
    try:
        return DeadLetter(
            RunId(run_id), LetterKind(kind), AgentId(agent_id), file, code, attempts, at, LetterState(state),
            inputs, grant, labels, error, RunId(became), closed_at, note, epoch,
        )  # fmt: skip
    except ValueError as unknown:
        raise damaged(unknown) from unknown
