"""Where a run stands: its record, and the port that keeps it.

The steps of a run are its effects in the ledger (`symbi.guard.ledger`), by position; the journal adds what the run
was started with and how it ended.

```
 running ──► finished | failed | held
    └── (process died) ── `--resume` ──► running again
 held ── an effect in doubt was settled, people answered ──► running again
```
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Protocol

from symbi.types import AgentId, RunId


class RunState(StrEnum):
    """How a run stands."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    HELD = "held"


RUN_MOVES: Final[Mapping[RunState, frozenset[RunState]]] = MappingProxyType(
    {
        RunState.RUNNING: frozenset({RunState.FINISHED, RunState.FAILED, RunState.HELD}),
        RunState.FINISHED: frozenset(),
        RunState.FAILED: frozenset(),
        RunState.HELD: frozenset({RunState.RUNNING}),
    }
)
"""Every other move is refused."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run.

    Attributes:
        run_id: UUIDv7.
        agent_id: The agent, `declared` or `declared/instance`.
        file: Its agent file, as an absolute path.
        source_digest: SHA-256 (hex) of that file at the start; under another one a run is not resumed.
        inputs: JSON object of the inputs.
        state: How it stands.
        output: JSON of its value, once finished.
        error: JSON of the error, once failed or held.
        started_at: RFC 3339.
        finished_at: RFC 3339, once it ended.
        grant: JSON of what its task calls for, or None where nobody has said.
        labels: JSON of the labels of its inputs, or None where nobody has said.
        answer: JSON of the label of its value, or of what its error may quote; written as it ends, where there is
            anything to say, and not read back with it (`symbi.runtime.lineage`).
    """

    run_id: RunId
    agent_id: AgentId
    file: str
    source_digest: str
    inputs: bytes
    state: RunState
    output: bytes | None = None
    error: bytes | None = None
    started_at: str = ""
    finished_at: str | None = None
    grant: bytes | None = None
    labels: bytes | None = None
    answer: bytes | None = field(default=None, compare=False)

    @property
    def compacted(self) -> bool:
        """Its effects, and what it was given and gave, were removed; the trail tells of them."""
        return not self.inputs

    @property
    def declared(self) -> AgentId:
        """The agent as its file declares it."""
        return AgentId(self.agent_id.partition("/")[0])

    @property
    def instance(self) -> str:
        """Which of several that were made of the declaration; empty where there is one alone."""
        return self.agent_id.partition("/")[2]


class RunStore(Protocol):
    """Durable runs; the methods block and run inside the store's transactions."""

    def put_run(self, record: RunRecord) -> None:
        """Insert a run.

        Raises:
            InternalError: The id is taken.
            StoreUnavailable: The store cannot be written.
        """

    def move_run(self, record: RunRecord, was: RunState) -> None:
        """Write a run back if its stored state is still `was` and the move is one of `RUN_MOVES`.

        Raises:
            InternalError: The state has changed, or the move is not allowed.
            StoreUnavailable: The store cannot be written.
        """

    def get_run(self, run_id: RunId) -> RunRecord | None:
        """One run, or None.

        Raises:
            StoreUnavailable: The store cannot be read.
        """

    def runs(self, limit: int) -> Sequence[RunRecord]:
        """The newest runs first.

        Raises:
            StoreUnavailable: The store cannot be read.
        """


def absolute(file: str) -> str:
    """A file's name as seen from the root; touches no file."""
    return os.path.abspath(file)  # noqa: PTH100 - links in the name stay as the user wrote them
