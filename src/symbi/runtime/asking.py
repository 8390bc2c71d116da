"""Questions of agents to agents: a run that asks for another and waits for its end.

A run that is asked for is noted below the one that asks before it begins. Nobody is asked for what waits for it, and a
chain of runs has a bound. Where the run that asks is stopped or its time is up, the one that it asked for is stopped
too; where the process ends, both go on when the one that asks does.
"""

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Final, TypeAlias

import anyio

from symbi.agent.journal import RunRecord, RunState
from symbi.agent.messages import Answer, Letter
from symbi.agent.run import RunOutcome, by_remedy
from symbi.agent.sealing import opened_run
from symbi.agent.task import Task, read_label
from symbi.agent.values import TEMPLATE
from symbi.audit.event import Draft
from symbi.errors import (
    ApprovalPending,
    AskFailed,
    BudgetExceeded,
    Denied,
    EffectInDoubt,
    InputError,
    InternalError,
    LimitExceeded,
    StoreUnavailable,
    SymbiError,
    VerificationError,
)
from symbi.guard.confidential import open_column
from symbi.guard.outcome import UNANSWERED, decode_error, error_label, mark_error
from symbi.guard.vault import place
from symbi.policy.flow import join
from symbi.runtime.addresses import Addresses, Recipient, inputs_of
from symbi.runtime.course import Order
from symbi.runtime.lifecycle import AgentState
from symbi.runtime.lineage import MAX_DEPTH, Descent
from symbi.runtime.mail import put_mail, write_mail
from symbi.runtime.rests import Rests
from symbi.runtime.rooms import Rooms
from symbi.runtime.sealed_mail import transact
from symbi.types import AgentId, Integrity, JsonValue, Label, Principal, RunId

LOOK_S: Final = 5.0  # after which who waits for an answer looks for it, should nobody have told

CarryOut: TypeAlias = Callable[[Order, RunId, Mapping[str, JsonValue], Task], Awaitable[RunOutcome]]
"""Takes a run from wherever it stands to its end."""


class Questions:
    """What agents ask agents.

    Args:
        rooms: What a runtime stands on.
        addresses: The agents that are known.
        wake: Told of each agent that has a message.

    Attributes:
        carry_out: Carries out runs that are asked for; set once there is somebody who does.
        rests: The runs that rest; likewise.
        asked: The agents that stay and are waited for, each with by how many.
    """

    carry_out: CarryOut
    rests: Rests

    def __init__(self, rooms: Rooms, addresses: Addresses, wake: Callable[[AgentId], None]) -> None:
        self._rooms = rooms
        self._addresses = addresses
        self._log = rooms.world.log
        self.wake = wake
        self._waits: dict[AgentId, AgentId] = {}  # whom each agent that asks waits for
        self._over: dict[RunId, anyio.Event] = {}  # of runs that somebody waits for
        self.asked: Counter[AgentId] = Counter()

    # --- who waits for whom -----------------------------------------------------------------------

    async def refuse_circle(self, to: Recipient, letter: Letter) -> int:
        """How deep the run will stand that is asked for.

        Raises:
            InputError: It would stand too deep, or whom it is asked of waits for whoever asks.
        """
        chain = await self._log.read(partial(self._rooms.lineage.chain_of, letter.run_id))
        name, asker = to.order.name, letter.sender.name
        for _, above in chain:
            if above == name or (not to.stays and above.partition("/")[0] == name):
                raise _circle(name, asker)
        if len(chain) > MAX_DEPTH:
            msg = f"agent `{name}` cannot be asked: {len(chain)} runs wait for one another already"
            raise InputError(msg, code="message.depth", hint=f"at most {MAX_DEPTH} may")
        self._refuse_waiting(name, asker)
        return len(chain)

    def _refuse_waiting(self, name: AgentId, asker: AgentId) -> None:
        """Raise InputError if an agent waits, over whatever others, for the one that is about to ask it."""
        waits: AgentId | None = name
        while waits is not None:
            if waits == asker:
                raise _circle(name, asker)
            waits = self._waits.get(waits)

    @contextmanager
    def _waiting(self, asker: AgentId, name: AgentId) -> Iterator[None]:
        self._refuse_waiting(name, asker)
        self._waits[asker] = name
        try:
            yield
        finally:
            del self._waits[asker]

    # --- asking -----------------------------------------------------------------------------------

    async def ask(
        self, found: Recipient, run_id: RunId, body: JsonValue, letter: Letter, begin: Callable[[], object]
    ) -> Answer:
        """Have an agent carry out a message, once, and wait for the end.

        Args:
            found: The agent.
            run_id: The id of the message.
            body: The message.
            letter: What goes with it.
            begin: Called once nothing stands against it any more, and before anything happens.

        Raises:
            InputError: Whoever asks would wait for itself, or too many wait for one another.
            Overloaded: The mailbox of the agent is full.
            AskFailed, EffectInDoubt: As `symbi.agent.messages.Post.ask`.
        """
        depth = await self.refuse_circle(found, letter)
        above = await self._log.read(partial(self._rooms.lineage.descent_of, letter.run_id))
        root = letter.run_id if above is None else above.root
        descent = Descent(run_id, letter.run_id, root, depth)
        order = found.order if found.stays else replace(found.order, instance=run_id)
        with self._waiting(letter.sender.name, order.name):
            begin()
            if found.stays:
                record = await self._by_mail(found, descent, body, letter)
            else:
                record = await self._here(order, descent, body, letter)
        return await self.answer(record, found.principal)

    async def _by_mail(self, found: Recipient, descent: Descent, body: JsonValue, letter: Letter) -> RunRecord:
        """Have the agent find the message in its mailbox; the run that it became, once that is over."""
        mail = await write_mail(self._rooms, found, descent.run_id, body, letter)

        def put() -> tuple[None, tuple[Draft, ...]]:
            self._rooms.lineage.put_descent(descent)
            put_mail(self._rooms, mail)
            return None, ()

        await transact(self._log, self._rooms.mails, put, wait=True)
        name = found.order.name
        self.asked[name] += 1
        try:
            self.wake(name)
            return await self._end_of(descent.run_id, name)
        except anyio.get_cancelled_exc_class():
            if self._is_over(letter):
                with anyio.CancelScope(shield=True):
                    await self._withdraw(descent.run_id, letter)
            raise
        finally:
            self.asked[name] -= 1
            if not self.asked[name]:
                del self.asked[name]

    async def _end_of(self, run_id: RunId, name: AgentId) -> RunRecord:
        """The run of a message, once it is over.

        Raises:
            AskFailed: The message was given up before it was one.
        """
        over = self._over.setdefault(run_id, anyio.Event())
        try:
            while True:
                record, waits = await self._log.read(partial(self._look, run_id))
                if record is not None and not await self._goes_on(record):
                    return record
                if record is None and not waits:
                    raise AskFailed(f"agent `{name}` did not carry out the message")
                with anyio.move_on_after(LOOK_S):
                    await over.wait()
                if over.is_set():
                    over = self._over[run_id] = anyio.Event()
        finally:
            del self._over[run_id]

    async def _goes_on(self, record: RunRecord) -> bool:
        """Whether a run is not over: it works, or is held for what somebody settles or gives."""
        if record.state is not RunState.HELD:
            return record.state is RunState.RUNNING
        try:
            opened = await self._log.read(partial(opened_run, record, self._rooms.world.guard.vault))
        except VerificationError:  # what it knew was erased: it is told of where its answer is read
            return False
        return opened.error is not None and not gives_up(decode_error(opened.error))

    def _look(self, run_id: RunId) -> tuple[RunRecord | None, bool]:
        """A run, and whether a message waits to be it; the message first, for it goes once the run is there.

        One that is held only to be tried again, by an agent that is not suspended, is not over.
        """
        waits = self._rooms.mailbox.get_message(run_id) is not None
        record = self._rooms.runs.get_run(run_id)
        if waits and record is not None and record.state is RunState.HELD:
            agent = self._rooms.agents.get_agent(record.agent_id)
            if agent is not None and agent.state is not AgentState.SUSPENDED:
                return None, True
        return record, waits

    def over(self, run_id: RunId) -> None:
        """A run has ended, or a message was given up: who waits for it looks."""
        if (event := self._over.get(run_id)) is not None:
            event.set()

    def _is_over(self, letter: Letter) -> bool:
        """Whether a run that was cancelled does not go on: it was stopped, or its time is up."""
        asker = self._addresses.course.at_work.get(letter.run_id)
        return letter.timed_out() or (asker is not None and bool(asker.stopped_by))

    async def _withdraw(self, run_id: RunId, letter: Letter) -> None:
        """Nobody waits for an answer any more: the message goes, or the run that it has become is stopped."""

        def drop() -> tuple[None, tuple[Draft, ...]]:
            message = self._rooms.mailbox.get_message(run_id)
            if message is not None and self._rooms.runs.get_run(run_id) is None:
                self._rooms.mails.take_back(message)
                self._rooms.mailbox.drop_message(run_id)
            return None, ()

        await self._log.transact(drop, wait=True)
        self._stop(run_id, letter)

    def _stop(self, run_id: RunId, letter: Letter) -> bool:
        """Stop a run if it is at work, or rests; whether it does."""
        by = f"run {letter.run_id}"
        one = self._addresses.course.at_work.get(run_id)
        if one is not None:
            one.stopped_by = by
            one.stays = one.living is not None  # its agent has done nothing that it should be gone for
            one.scope.cancel(f"{by} has ended")
            return True
        rests = [rest for rest in self.rests.all if rest.run_id == run_id]
        for rest in rests:
            rest.stop(by)
        return bool(rests)

    async def _here(self, order: Order, descent: Descent, body: JsonValue, letter: Letter) -> RunRecord:
        """Carry out a run beside the one that asks for it; the record of its end."""
        inputs = inputs_of(order.spec, body)
        run_id = descent.run_id

        def note() -> tuple[RunRecord | None, tuple[Draft, ...]]:
            self._rooms.lineage.put_descent(descent)
            return self._rooms.runs.get_run(run_id), ()

        record, _ = await self._log.transact(note, wait=True)
        if record is None or record.state in {RunState.RUNNING, RunState.HELD}:
            await self._beside(run_id, partial(self.carry_out, order, run_id, inputs, letter.task(inputs)), letter)
            record = await self._log.read(partial(self._rooms.runs.get_run, run_id))
        if record is None:
            raise AskFailed(f"agent `{order.spec.id}` could not begin")
        return record

    async def _beside(self, run_id: RunId, work: Callable[[], Awaitable[RunOutcome]], letter: Letter) -> None:
        """Work that goes on, where the run is cancelled that waits for it, until that is known to be over.

        Raises:
            StoreUnavailable: The books cannot be kept.
            Overloaded: There was no room for it, and nothing happened.
        """
        over, scope = anyio.Event(), anyio.CancelScope(shield=True)
        met: list[SymbiError] = []

        async def child() -> None:
            try:
                with scope:
                    await work()
            except SymbiError as error:
                met.append(error)
            except Exception as error:  # noqa: BLE001 - a defect that the other run met; it is left as it is
                failed = InternalError(f"a run that was asked for met a defect: {type(error).__name__}")
                failed.__cause__ = error
                met.append(failed)
            finally:
                over.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(child)
            try:
                await over.wait()
            except anyio.get_cancelled_exc_class():
                if not (self._is_over(letter) and self._stop(run_id, letter)):
                    scope.cancel()  # it can go on when the run that asks for it does
                raise
        if met and isinstance(met[0], StoreUnavailable | InternalError):
            raise met[0]
        # Whatever else it met is in its record, or it has none.

    async def answer(self, record: RunRecord, principal: Principal) -> Answer:
        """What a run that is over gave.

        Raises:
            AskFailed: It failed, or what it gave cannot be told.
            EffectInDoubt: It is held.
        """
        vault, name = self._rooms.world.guard.vault, record.declared
        where = place("run_answers", "label", record.run_id)

        def look() -> tuple[RunRecord, bytes | None]:
            kept = self._rooms.lineage.answer_label(record.run_id)
            return opened_run(record, vault), open_column(vault, kept, where)

        try:
            opened, kept = await self._log.read(look)
        except VerificationError as error:
            msg = f"what agent `{name}` answered cannot be read: {error.message}"
            raise AskFailed(msg) from error
        label = TEMPLATE if kept is None else read_label(json.loads(kept))
        if opened.state is RunState.FINISHED and opened.output is not None:
            if principal.trust == "untrusted":
                label = join(label, Label(Integrity.UNTRUSTED))
            return Answer(json.loads(opened.output), label)
        why = AskFailed("unknown") if opened.error is None else decode_error(opened.error)
        if opened.state is RunState.FINISHED or not (opened.state is RunState.FAILED or gives_up(why)):
            msg = f"agent `{name}` is held: {why.message}"
            hint = f"run `{record.run_id}` goes on first, then this one"
            raise EffectInDoubt(msg, code=UNANSWERED, hint=hint, run=record.run_id)
        failed = AskFailed(f"agent `{name}` failed: {why.message}", hint=why.hint, reason=why.code)
        mark_error(failed, join(label, error_label(why)))
        raise failed


def _circle(name: AgentId, asker: AgentId) -> InputError:
    msg = (
        f"agent `{name}` waits for agent `{asker}`, which would wait for it"
        if name != asker
        else f"agent `{name}` cannot ask itself"
    )
    return InputError(msg, code="message.circle", hint="send it a message instead")


def gives_up(error: SymbiError) -> bool:
    """Whether a run that somebody waits for is over by an error that suspends others: policy or a limit has ended it.

    Where people have yet to answer, and where a budget is spent that somebody can raise, both runs are held.
    """
    return isinstance(error, Denied | LimitExceeded) and not isinstance(error, ApprovalPending | BudgetExceeded)


def as_asked(error: SymbiError) -> RunState:
    """What becomes of a run that somebody waits for; see `symbi.agent.run.Ends`."""
    return RunState.FAILED if gives_up(error) else by_remedy(error)
