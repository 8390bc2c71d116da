"""Dead letters as new runs: with the same inputs, labels and grant, under a new id, on record in one commit.

A letter is closed in the transaction that puts its new run on record, so that it is replayed once whatever dies when. Who
owns the data folder then carries the run out; where that ends before its time, the run is open and goes on like any other.
"""

import hashlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from anyio.abc import TaskGroup

from symbi.agent.journal import RunRecord, RunState
from symbi.agent.run import check_inputs
from symbi.agent.sealing import sealed_run
from symbi.agent.task import check_task
from symbi.audit.event import AuditEventType, Draft
from symbi.clock import rfc3339
from symbi.dsl.spec import AgentSpec, CompiledFile
from symbi.errors import InputError, did_you_mean
from symbi.guard.budget import open_account
from symbi.guard.confidential import confided, keys_for
from symbi.guard.spending import NOTHING
from symbi.guard.vault import Keys
from symbi.runtime.course import Order
from symbi.runtime.letters import DeadLetter, read_json
from symbi.runtime.lifecycle import AgentState
from symbi.runtime.mailbox import Message
from symbi.runtime.rooms import Rooms
from symbi.runtime.sealed_mail import Mail, transact
from symbi.types import SYSTEM_AGENT, AgentId, JsonValue, RunId


@dataclass(frozen=True, slots=True)
class Begun:
    """What a letter became, on record and not carried out.

    Attributes:
        order: Who is to run.
        run_id: The run, or the message that is to become one.
        record: The run; None where it is a message, in its agent's mailbox.
    """

    order: Order
    run_id: RunId
    record: RunRecord | None = None


async def begin_replay(rooms: Rooms, compiled: CompiledFile, letter: DeadLetter, by: str) -> Begun:
    """Put on record what a letter becomes, and close the letter, in one transaction.

    An agent that stays gets it as a message, behind those that it has; of any other it is a run. Where what was given up
    had an account of its own, it begins with one of the same bounds, below the same parent.

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
    keys = await keys_for(rooms.world.guard.vault, spec.id, task.everybody)
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

    def work() -> tuple[Begun, tuple[Draft, ...]]:
        _, replayed = rooms.letters.replayed_now(letter, record.run_id, by)
        account = rooms.budgets.account_of(letter.run_id)
        if account is not None:
            open_account(rooms.budgets, replace(account, run_id=record.run_id, spent=NOTHING, held=NOTHING))
        agent = rooms.agents.get_agent(record.agent_id)
        if agent is not None and agent.state is not AgentState.TERMINATED and record.grant is None:
            rooms.mailbox.put_message(rooms.mails.sealed([_mail(record, by, keys)])[0])
            return Begun(order, record.run_id), (replayed,)
        kept = sealed_run(record, keys)
        rooms.runs.put_run(kept)
        details: dict[str, JsonValue] = {
            "file": record.file,
            "source_digest": record.source_digest,
            "inputs_digest": hashlib.sha256(kept.inputs).hexdigest(),
            "letter": letter.run_id,
            **task.facts(keys),
        }
        started = confided(Draft(AuditEventType.RUN_STARTED, order.name, details, record.run_id), keys)
        return Begun(order, record.run_id, record), (replayed, started)

    return await transact(rooms.world.log, rooms.mails, work)


def _mail(record: RunRecord, by: str, keys: Keys) -> Mail:
    """What was to be a run, as a message; the runtime signs it for whoever asks for it."""
    return Mail(Message(record.run_id, record.agent_id, by, b""), SYSTEM_AGENT, record.inputs, record.labels, keys)


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


async def left_open(rooms: Rooms) -> Sequence[RunRecord]:
    """The runs that letters became and that nobody has carried to their end; sealed as they are kept.

    Raises:
        StoreUnavailable: The store cannot be read.
    """

    def look() -> list[RunRecord]:
        runs = [rooms.runs.get_run(became) for became in rooms.letters.store.left_open()]
        return [run for run in runs if run is not None]

    return await rooms.world.log.read(look)


class Replayer:
    """Carries out what letters became, one run of an agent after the other.

    Args:
        carry_out: Takes a run to its end, and meets whatever it meets; only the store's failure comes out of it.
        at_work: The agents that somebody else has at work; it joins them meanwhile.
        over: Waits until one of them may be none any more.
        tasks: Where it works.
        halted: Whether somebody has stopped everything: what has not begun then is left open.
        left: Told where something was.
    """

    def __init__(
        self,
        carry_out: Callable[[Begun], Awaitable[None]],
        at_work: set[AgentId],
        over: Callable[[], Awaitable[None]],
        tasks: TaskGroup,
        *,
        halted: Callable[[], bool],
        left: Callable[[], None],
    ) -> None:
        self._carry_out = carry_out
        self._at_work = at_work
        self._over = over
        self._tasks = tasks
        self._halted = halted
        self._left = left
        self._waiting: dict[AgentId, deque[Begun]] = {}
        self.stopping = False

    def take_up(self, begun: Begun) -> bool:
        """Carry it out in its turn; False where nothing more is begun. A message is its mailbox's."""
        if begun.record is None:
            return True
        if self.stopping:
            return False
        agent = begun.order.name
        waiting = self._waiting.setdefault(agent, deque())
        waiting.append(begun)
        if len(waiting) == 1:
            self._tasks.start_soon(self._work, agent, waiting)
        return True

    async def _work(self, agent: AgentId, waiting: deque[Begun]) -> None:
        """All that waits of one agent; what is not begun when this ends is open, and is taken up again from the store."""
        while waiting and not self.stopping and not self._halted():
            if agent in self._at_work:
                await self._over()
                continue
            self._at_work.add(agent)
            try:
                await self._carry_out(waiting[0])
            finally:
                self._at_work.discard(agent)
            waiting.popleft()
        self._waiting.pop(agent, None)
        if waiting:
            self._left()
