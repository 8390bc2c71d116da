"""A runtime that holds something sealed about two people."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from symbi.agent.journal import RunRecord, RunState
from symbi.audit.event import AuditEvent, parse_event
from symbi.guard.vault import place
from symbi.runtime.runtime import Runtime
from symbi.testing.runtime import open_in
from symbi.types import AgentId, JsonValue, RunId

AGENT: Final = 'agent work() -> String { with timeout = 5.seconds { "done" } }\n'
JANE: Final = "jane@example.com"
JOHN: Final = "John Roe"
STREET: Final = "17 Elm Street"
CITY: Final = "Springfield Heights"


class Opened:
    """A runtime, and what tests do with it.

    Args:
        runtime: The runtime.
        folder: In which it is; the data folder is `.symbi` below.
    """

    def __init__(self, runtime: Runtime, folder: Path) -> None:
        self.runtime = runtime
        self.privacy = runtime.rooms.privacy
        self.rooms = self.privacy.rooms
        self.data = folder / ".symbi"
        self.store: Any = self.rooms.store  # the whole store stands behind its port

    async def keep(self, run: str, values: JsonValue, *subjects: str, state: RunState = RunState.FINISHED) -> None:
        """A run with sealed inputs."""
        run_id, begun = RunId(run), "2026-01-01T0"

        def put() -> tuple[None, tuple[()]]:
            keys = self.rooms.vault.keys_now(subjects)
            sealed = keys.seal(json.dumps(values).encode(), place("runs", "inputs", run_id))
            for one in dict.fromkeys((RunState.RUNNING, state)):
                record = RunRecord(run_id, AgentId("work"), "/f", "0" * 64, sealed, one, started_at=begun)
                if one is RunState.RUNNING:
                    self.store.put_run(record)
                else:
                    self.store.move_run(record, RunState.RUNNING)
            return None, ()

        await self.rooms.log.transact(put)

    async def open(self, run: str) -> JsonValue:
        """The inputs of a run."""

        def read() -> JsonValue:
            record = self.store.get_run(RunId(run))
            value: JsonValue = json.loads(self.rooms.vault.open(record.inputs, place("runs", "inputs", run)))
            return value

        return await self.rooms.log.read(read)

    async def events(self, kind: str) -> list[AuditEvent]:
        """The events of a type."""
        stored = await self.rooms.log.read(lambda: list(self.store.read(1)))
        return [event for one in stored if (event := parse_event(one.record)).event_type == kind]

    def bytes(self) -> bytes:
        """Every byte of the data folder."""
        return b"".join(path.read_bytes() for path in sorted(self.data.rglob("*")) if path.is_file())


@asynccontextmanager
async def opened(folder: Path, **more: Any) -> AsyncIterator[Opened]:
    """Open a runtime in a folder; `more` is as `symbi.testing.runtime.open_in` takes it."""
    async with open_in(folder, AGENT, **more) as running:
        yield Opened(running.runtime, folder)


async def planted(place: Opened) -> None:
    """A run about Jane, one about John, and one about both."""
    await place.keep("r1", {"name": "Jane Roe", "street": STREET}, JANE)
    await place.keep("r2", {"city": CITY}, JOHN)
    await place.keep("r3", {"both": "Jane owes John"}, JANE, JOHN)
