"""Dead letters as new runs: with the same inputs, labels and grant, under a new id, on record in one commit.

A letter is closed in the transaction that puts its new run on record, so that it is replayed once whatever dies when. Who
owns the data folder then carries the run out; where that ends before its time, the run is open and goes on like any other.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from symbi.agent.journal import RunRecord, RunState
from symbi.agent.run import check_inputs
from symbi.agent.sealing import sealed_run
from symbi.agent.task import check_task
from symbi.audit.event import AuditEventType, Draft
from symbi.clock import rfc3339
from symbi.dsl.spec import AgentSpec, CompiledFile
from symbi.errors import InputError, did_you_mean
from symbi.guard.confidential import confided, keys_for
from symbi.runtime.course import Order
from symbi.runtime.dead_letters import DeadLetter, LetterState, Wanted, read_json
from symbi.runtime.rooms import Rooms
from symbi.types import JsonValue, RunId

MAX_BEGUN: Final = 1000  # letters that are looked at, newest first, for runs that they became and nobody carries out


@dataclass(frozen=True, slots=True)
class Begun:
    """A run that a letter became, on record and not carried out.

    Attributes:
        order: Who is to run.
        record: The run.
    """

    order: Order
    record: RunRecord


async def begin_replay(rooms: Rooms, compiled: CompiledFile, letter: DeadLetter, by: str) -> Begun:
    """Put the run on record that a letter becomes, and close the letter.

    Args:
        rooms: What the runtime stands on.
        compiled: The agent's file as it is now.
        letter: An open one, with its payload as it was.
        by: Who asks for it.

    Raises:
        InputError: The letter is not open any more, or the agent does not take these inputs now.
        StoreUnavailable: It cannot be recorded.
    """
    spec = spec_of(compiled, letter)
    inputs, task = read_json(letter.inputs), letter.task
    check_inputs(spec, inputs)
    check_task(spec, task)
    order = Order(compiled, spec, letter.agent_id.partition("/")[2])
    record = RunRecord(
        run_id=RunId(rooms.ids.new()),
        agent_id=order.name,
        file=letter.file,
        source_digest=spec.source_digest,
        inputs=letter.inputs or b"{}",
        state=RunState.RUNNING,
        started_at=rfc3339(rooms.world.clock.now_ns()),
        grant=letter.grant,
        labels=letter.labels,
    )
    keys = await keys_for(rooms.world.guard.vault, spec.id, task.everybody)
    kept = sealed_run(record, keys)

    def work() -> tuple[None, tuple[Draft, ...]]:
        _, replayed = rooms.letters.replayed_now(letter, record.run_id, by)
        rooms.runs.put_run(kept)
        details: dict[str, JsonValue] = {
            "file": record.file,
            "source_digest": record.source_digest,
            "inputs_digest": hashlib.sha256(kept.inputs).hexdigest(),
            "letter": letter.run_id,
            **task.facts(keys),
        }
        started = Draft(AuditEventType.RUN_STARTED, order.name, details, record.run_id)
        return None, (replayed, confided(started, keys))

    await rooms.world.log.transact(work)
    return Begun(order, record)


def spec_of(compiled: CompiledFile, letter: DeadLetter) -> AgentSpec:
    """The agent of a letter in its file.

    Raises:
        InputError: It is not declared there any more.
    """
    for spec in compiled.agents:
        if spec.id == letter.declared:
            return spec
    msg = f"`{compiled.file}` declares no agent `{letter.declared}`"
    hint = did_you_mean(letter.declared, [spec.id for spec in compiled.agents]) or None
    raise InputError(msg, code="input.agent", hint=hint)


async def left_open(rooms: Rooms, compile_file: Callable[[str], CompiledFile]) -> Sequence[Begun]:
    """The runs that letters became and that nobody carried to their end, of files that can still be read.

    Args:
        rooms: What the runtime stands on.
        compile_file: Reads an agent file.

    Raises:
        StoreUnavailable: The store cannot be read.
    """

    def look() -> list[tuple[DeadLetter, RunRecord]]:
        found: list[tuple[DeadLetter, RunRecord]] = []
        for letter in rooms.letters.store.letters(Wanted(state=LetterState.REPLAYED, limit=MAX_BEGUN)):
            record = rooms.runs.get_run(letter.became)
            if record is not None and record.state is RunState.RUNNING:
                found.append((letter, record))
        return found

    begun: list[Begun] = []
    for letter, record in await rooms.world.log.read(look):
        try:
            compiled = compile_file(letter.file)
            spec = spec_of(compiled, letter)
        except InputError as error:
            await rooms.refuse(letter.file, error)
        else:
            begun.append(Begun(Order(compiled, spec, record.instance), record))
    return begun
