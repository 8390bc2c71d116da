"""Errands: an agent that stays carries out one message, which is one run.

1. the first message of its mailbox is read, with what is on record of its run: nothing = not begun, open = go on
   after the last finished effect, ended = there is nothing to do but to let the message go;
2. resources are decided on, and the seat is waited for;
3. one commit: the run begins, the agent is Running, the message counts as begun once more;
4. the body works;
5. one commit: the run ends, the agent is Ready (or where its error sends it), the message is gone, and where it was
   given up, it is with the dead letters.

A crash between any two of them leaves a state that step 1 knows.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import anyio

from symbi.agent.journal import RunRecord, RunState
from symbi.agent.remedies import Remedy
from symbi.agent.run import Also, RunOutcome, RunPlan, execute
from symbi.agent.sealing import opened_history, sealed_run
from symbi.agent.task import NO_TASK, kept_task
from symbi.audit.event import AuditEventType, Draft
from symbi.clock import rfc3339
from symbi.errors import (
    AgentFailed,
    ApprovalPending,
    ConfigError,
    DecryptionFailed,
    InputError,
    InternalError,
    MessageRefused,
    StoreUnavailable,
    SymbiError,
    TimeLimit,
    Unavailable,
)
from symbi.guard.confidential import confided, keys_for
from symbi.guard.outcome import decode_error
from symbi.runtime.course import Course, Order
from symbi.runtime.dead_letters import GivenUp, LetterKind, Payload
from symbi.runtime.errand import Done, Errand, NotBegun
from symbi.runtime.life import TRIES, Life
from symbi.runtime.lifecycle import AgentState, Event
from symbi.runtime.living import Living
from symbi.runtime.mailbox import Message
from symbi.runtime.rooms import AtWork, Rooms
from symbi.runtime.tries import WAITED_FOR, Tries
from symbi.types import JsonValue, Principal, RunId

_log = logging.getLogger("symbi.runtime")

MAX_BEGINNINGS: Final = 100
"""How often a message is begun in a row: one whose run the process does not survive is given up in the end."""
CRASH_LOOP: Final = "agent.crash_loop"
"""Code of its error."""

_OPEN: Final = frozenset({RunState.RUNNING, RunState.HELD})


class Errands:
    """Carries out messages.

    Args:
        rooms: What the runtime stands on.
        course: Knows what every run needs.
    """

    def __init__(self, rooms: Rooms, course: Course) -> None:
        self._rooms = rooms
        self._course = course
        self._roster = course.roster

    async def carry_out(self, living: Living, principal: Principal, seated: Callable[[], None]) -> Done:
        """Carry out the first message of an agent.

        Args:
            living: The agent, which nobody else has at work.
            principal: Who it is to policies.
            seated: Told once it waits for nothing of others.

        Raises:
            NotBegun: It cannot be begun now.
            StoreUnavailable: The store cannot be used; the message is there, and its run goes on at the next start.
            InternalError: A defect of ours; likewise.
        """
        try:
            errand = await self._next(living)
        except ConfigError as error:  # without the master key that wrapped its keys nothing is known of a message
            raise NotBegun(error) from error
        if errand is None:
            return Done(there=False)
        if self._roster.halted or not living.ready:  # since it was looked for; nothing waits between here and its scope
            return Done(there=True, left=True)
        if errand.was is not None and errand.was not in _OPEN:
            again = MessageRefused("the run of the message is over", code="message.replayed")
            await self._let_go(errand, _not_taken(errand.record, again))
        elif (refusal := self._refusal(errand, living)) is not None:
            await self._refuse(errand, living, refusal)
        else:
            await self._go(errand, living, principal, seated)
        self._course.over(errand.record.run_id)
        return Done(there=True, again_s=errand.again_s, left=errand.left)

    async def end_open(self, living: Living, by: str) -> RunId | None:
        """An operator stops an agent that is not at work; its open run, if there is one, has failed with that.

        Raises:
            StoreUnavailable: It cannot be recorded.
        """
        errand = await self._next(living)
        if errand is None or errand.was not in _OPEN:
            return None
        if errand.lost is not None:
            await self._refuse(errand, living, errand.lost)
            return None
        one = AtWork(Life(living.name, errand.record.run_id, living.state), errand.record, living=living, stopped_by=by)
        one.life.stop({"by": by})
        record = replace(errand.record, state=errand.was)
        error = _by_operator(one)
        await self._course.ended_early(record, error, RunState.FAILED, self._closing(errand, one, error))
        self._made(errand)
        self._course.over(record.run_id)
        return record.run_id

    # --- step 1 ---------------------------------------------------------------------------------

    async def _next(self, living: Living) -> Errand | None:
        rooms, vault, spec = self._rooms, self._rooms.world.guard.vault, living.kind.spec
        own = await keys_for(vault, spec.id, ())

        def look() -> Errand | None:
            message = rooms.mailbox.next_message(living.name)
            if message is None:
                return None
            kept = rooms.runs.get_run(message.message_id)
            if kept is None:
                return self._opened(message, living)
            if kept.state not in _OPEN:
                return Errand(message, kept, was=kept.state)
            going_on = replace(kept, state=RunState.RUNNING, finished_at=None)
            try:
                record, recorded = opened_history(going_on, rooms.effects.effects_of(kept.run_id), vault, own.ids)
            except ConfigError:  # a master key that is missing or another says nothing of what was erased
                raise
            except InputError as erased:
                return Errand(message, going_on, was=kept.state, lost=erased)
            return Errand(message, record, recorded, kept.state)

        return await rooms.world.log.read(look)

    def _opened(self, message: Message, living: Living) -> Errand:
        """A message that was not begun, as a run; on the store's thread."""
        name, spec = message.message_id, living.kind.spec
        record = RunRecord(name, living.name, living.kind.file, spec.source_digest, b"{}", RunState.RUNNING)
        try:
            content = self._rooms.mails.opened(message)
        except MessageRefused as refused:
            return Errand(message, record, refused=refused)
        except DecryptionFailed as error:
            if error.fields.get("reason") != "erased":
                raise
            msg = f"message `{name}` cannot be carried out: what it said of a data subject was erased"
            return Errand(message, record, lost=InputError(msg, code="run.erased"))
        task = kept_task(None, content.labels)
        record = replace(record, inputs=content.inputs, grant=task.grant_json, labels=task.labels_json)
        return Errand(message, record, content=content)

    def _refusal(self, errand: Errand, living: Living) -> InputError | MessageRefused | None:
        """Why a message cannot be carried out whatever happens, or None."""
        if errand.lost is not None or errand.refused is not None:
            return errand.lost or errand.refused
        message, record = errand.message, errand.record
        if record.source_digest != living.kind.spec.source_digest:
            msg = f"`{record.file}` has changed since run `{record.run_id}` was started"
            return InputError(msg, code="input.source_changed", hint="restore the file, or send the message anew")
        expires_ns = message.expires_ns
        if errand.was is None and expires_ns is not None and expires_ns < self._rooms.world.clock.now_ns():
            msg = f"message `{message.message_id}` was not begun before {rfc3339(expires_ns)[:19]}Z"
            return InputError(msg, code="input.expired")
        return None

    async def _let_go(self, errand: Errand, *drafts: Draft) -> None:
        """A message whose run is over goes."""
        name = errand.message.message_id

        def drop() -> tuple[bool, tuple[Draft, ...]]:
            return self._rooms.mailbox.drop_message(name), drafts

        await self._rooms.world.log.transact(drop, wait=True)

    async def _refuse(self, errand: Errand, living: Living, refusal: InputError | MessageRefused) -> None:
        """Give a message up that cannot be carried out; its agent waits for the next one."""
        one = AtWork(Life(living.name, errand.record.run_id, living.state), errand.record, living=living)
        if living.state is not AgentState.READY:  # it was at work on this one when the process died
            one.life.settle({"error": refusal.code})
        if errand.was is None:
            payload = None
            if errand.refused is not None:
                payload = Payload(living.name, living.kind.file, None, NO_TASK)
            elif errand.lost is None:
                inputs: dict[str, JsonValue] = json.loads(errand.record.inputs)
                task = kept_task(errand.record.grant, errand.record.labels)
                payload = Payload(living.name, living.kind.file, inputs, task)
            also = self._closing(errand, one, refusal, payload=payload)
            await self._rooms.world.log.transact(lambda: (None, also()), wait=True)
            self._made(errand)
        elif errand.lost is not None:
            await self._course.ended_erased(replace(errand.record, error=None), errand.was, errand.lost)
            await self._let_go(errand)
            await self._course.record(one)
        else:
            record, also = replace(errand.record, state=errand.was), self._closing(errand, one, refusal)
            await self._course.ended_early(record, refusal, RunState.FAILED, also)
            self._made(errand)

    # --- steps 2 to 5 ---------------------------------------------------------------------------

    async def _go(self, errand: Errand, living: Living, principal: Principal, seated: Callable[[], None]) -> None:
        record = errand.record
        one = AtWork(Life(living.name, record.run_id, living.state), record, living=living, waits=True)
        self._course.at_work[record.run_id] = one
        self._course.orders[record.run_id] = Order(living.kind.compiled, living.kind.spec, record.instance)
        errand.tries = Tries(self._rooms.world.clock, self._rooms.world.patience)
        if record.error is not None:
            errand.tries.known(decode_error(record.error))
        principal = replace(principal, instance=record.instance)
        try:
            with one.scope:
                one.line = await self._course.budgets.line(record, living.kind.terms.budget)
                await self._work(errand, one, principal, seated)
                if one.suspended_by and living.state is AgentState.READY:  # since its end was written
                    await self._roster.move(living, Event.OPERATOR_SUSPENDED, one.suspended_by)
                return
            with anyio.CancelScope(shield=True):
                await self._stopped(errand, one)
        finally:
            del self._course.at_work[record.run_id], self._course.orders[record.run_id]
            one.over.set()

    async def _work(self, errand: Errand, one: AtWork, principal: Principal, seated: Callable[[], None]) -> None:
        living, rooms, tries = one.living, self._rooms, errand.tries
        assert living is not None, "an errand is that of an agent that stays"
        assert tries is not None, "it counts how often it fails"
        spec = self._course.bounded(living.kind.spec)
        try:
            async with self._course.allocated(spec, principal, one) as (limits, turn):
                seated()
                await self._begin(errand, one)
                await one.recorded()
                if errand.attempts > MAX_BEGINNINGS:
                    msg = f"it was begun {MAX_BEGINNINGS} times, and each time the process ended within it"
                    raise AgentFailed(msg, code=CRASH_LOOP)
                async with self._course.measuring.measured(one, principal, limits, turn) as meter:
                    plan = RunPlan(
                        replace(spec, limits=limits),
                        principal,
                        errand.record,
                        self._course.bounds(replace(spec, limits=limits), principal),
                        errand.recorded,
                        meter,
                        tries.ends,
                        lambda outcome: self._ended(errand, one, outcome),
                        meter,
                    )
                    await execute(plan, rooms.world, rooms.runs)
                self._made(errand)
        except (StoreUnavailable, InternalError):
            raise  # the run stays open: it can be resumed once the store or the defect is mended
        except SymbiError as error:
            with anyio.CancelScope(shield=True):  # it is over: who stops it now comes too late
                if not errand.begun:
                    if _comes_back(error):
                        raise NotBegun(error) from error
                    await self._begin(errand, one)
                state = tries.ends(error)
                self._leave(errand, one, error)
                also = self._closing(errand, one, error, held=state is RunState.HELD)
                await self._course.ended_early(errand.record, error, state, also)
                self._made(errand)

    async def _begin(self, errand: Errand, one: AtWork) -> None:
        """One commit: the run goes on, its agent is Running, the message counts as begun once more."""
        rooms, life, was = self._rooms, one.life, errand.was
        now = rfc3339(rooms.world.clock.now_ns())
        record = errand.record = replace(errand.record, started_at=errand.record.started_at or now)
        one.record, one.waits = record, False
        task = kept_task(record.grant, record.labels)
        keys = await keys_for(rooms.world.guard.vault, record.declared, task.everybody)
        kept = sealed_run(record, keys)
        if was is None:
            details: dict[str, JsonValue] = {
                "file": record.file,
                "source_digest": record.source_digest,
                "inputs_digest": hashlib.sha256(kept.inputs).hexdigest(),
                "by": errand.message.sender,
                **task.facts(keys),
            }
            draft = Draft(AuditEventType.RUN_STARTED, record.agent_id, details, record.run_id)
        else:
            details = {"effects": len(errand.recorded), **task.facts(keys)}
            draft = Draft(AuditEventType.RUN_RESUMED, record.agent_id, details, record.run_id)
        state = life.state
        if state is AgentState.SUSPENDED:
            life.move(Event.POLICY_CLEARED if one.living is not None and one.living.cleared else Event.RESUMED)
        elif state is not AgentState.RUNNING:
            life.move(Event.TASK_ASSIGNED)
        drafts, move = self._course.moves(one)

        def begin() -> tuple[int, tuple[Draft, ...]]:
            attempts = rooms.mailbox.begin_message(record.run_id)
            if not attempts:
                msg = f"message `{record.run_id}` was taken out of the mailbox"
                raise InputError(msg, code="input.message_gone")
            self._course.budgets.open(one.line)
            if was is None:
                assert errand.content is not None, "what has not begun was opened"
                rooms.mails.take(errand.content)
                rooms.runs.put_run(kept)
            elif was is not RunState.RUNNING:
                rooms.runs.move_run(replace(record, error=None), was)
            if move is not None:
                self._roster.write(move)
            return attempts, (confided(draft, keys), *drafts)

        try:
            rooms.world.guard.probe("claiming")
            errand.attempts, _ = await rooms.world.log.transact(begin)
            rooms.world.guard.probe("claimed")
        except SymbiError:
            life.state = state
            raise
        errand.begun = True
        if move is not None:
            self._roster.made(move)

    def _ended(self, errand: Errand, one: AtWork, outcome: RunOutcome) -> Also:
        """What is written with the end of a run whose body came to its end."""
        self._leave(errand, one, outcome.error)
        return self._closing(errand, one, outcome.error, held=outcome.state is RunState.HELD)

    def _leave(self, errand: Errand, one: AtWork, error: SymbiError | None) -> None:
        """The last move of an agent.

        It waits for the next message, or for this one to be tried again; it is suspended until somebody clears what is
        in its way; it has failed where it fails again and again. A bad message ends no good agent.
        """
        if error is None:
            one.life.settle()
        elif errand.verdict.remedy is Remedy.SUSPEND:
            one.life.fail(error, RunState.HELD)
        elif errand.verdict.exhausted:
            one.life.fail(error, RunState.FAILED)
        else:
            if errand.verdict.remedy in WAITED_FOR:
                errand.again_s = errand.verdict.after_s
            one.life.settle({"error": error.code})
        if one.suspended_by and one.life.state is AgentState.READY:
            one.life.move(Event.OPERATOR_SUSPENDED, {"by": one.suspended_by})

    def _closing(
        self,
        errand: Errand,
        one: AtWork,
        error: SymbiError | None,
        *,
        held: bool = False,
        payload: Payload | None = None,
    ) -> Also:
        """The moves of the agent; the message goes, unless its run is held; and to the dead letters if it was given up."""
        rooms, name = self._rooms, errand.message.message_id
        drafts, errand.move = self._course.moves(one)
        move, begun = errand.move, errand.begun
        given = None
        if error is not None and not held and (errand.was is not None or errand.begun or payload is not None):
            tried = error.fields.get(TRIES)
            attempts = tried if isinstance(tried, int) else max(errand.attempts, errand.message.attempts)
            given = GivenUp(LetterKind.MESSAGE, name, error, attempts, payload)
            errand.given = error

        def also() -> tuple[Draft, ...]:
            if move is not None:
                self._roster.write(move)
            letter: Sequence[Draft] = () if given is not None or error is None or held else (_refused(one, error),)
            if errand.was is None and not begun and errand.content is not None:
                rooms.mails.take(errand.content)
            if not held:
                rooms.mailbox.drop_message(name)
            elif error is None or error.code != CRASH_LOOP:
                rooms.mailbox.rest_message(name)  # the process has survived it
            if given is not None:
                _, letter = rooms.letters.put_now(given)
            if errand.refused is not None:
                letter = (_not_taken(one.record, errand.refused), *letter)
            return (*drafts, *letter)

        return also

    def _made(self, errand: Errand) -> None:
        """The end is durable."""
        errand.begun = False
        move, errand.move = errand.move, None
        if move is not None:
            self._roster.made(move)
            if move.record.state in {AgentState.SUSPENDED, AgentState.FAILED}:
                kept, (_, _, why) = move.record, move.record.reason.rpartition(": ")
                message = errand.message.message_id
                _log.warning("agent `%s` is %s with message `%s`: %s", kept.agent_id, kept.state.value, message, why)
        if errand.given is not None:
            name, code = errand.message.agent_id, errand.given.code
            _log.warning("message `%s` for agent `%s` is a dead letter: %s", errand.message.message_id, name, code)
            errand.given = None

    async def _stopped(self, errand: Errand, one: AtWork) -> None:
        """An operator has stopped it: alone, and then the agent is gone, or with all others, and then it stays."""
        await one.recorded()
        error = _by_operator(one)
        more: dict[str, JsonValue] = {"by": one.stopped_by}
        living = one.living
        assert living is not None, "an errand is that of an agent that stays"
        if one.life.state is not living.state:
            one.life.drafts()  # a move that was not recorded was not made
            one.life.state = living.state
        if not one.stays:
            one.life.stop(more)
        elif errand.begun:
            one.life.settle({**more, "error": error.code})
        if errand.begun:
            also = self._closing(errand, one, error)
            await self._course.ended_early(errand.record, error, RunState.FAILED, also)
            self._made(errand)
        else:
            errand.left = True
            await self._course.record(one)


def _by_operator(one: AtWork) -> AgentFailed:
    return AgentFailed(f"agent `{one.record.agent_id}` was stopped by {one.stopped_by}", code="agent.stopped")


def _refused(one: AtWork, error: SymbiError) -> Draft:
    """The event of a message of which nothing can be kept any more."""
    details: dict[str, JsonValue] = {"file": one.record.file, "code": error.code, "reason": str(error)}
    return Draft(AuditEventType.INPUT_REFUSED, one.record.agent_id, details, one.record.run_id)


def _not_taken(record: RunRecord, refused: MessageRefused) -> Draft:
    """The event of a message that is not what its sender sent, or has come before."""
    details: dict[str, JsonValue] = {"resource": record.agent_id, "code": refused.code, "reason": refused.message}
    return Draft(AuditEventType.MESSAGE_REFUSED, record.agent_id, details, record.run_id)


def _comes_back(error: SymbiError) -> bool:
    """Whether what kept a message from being begun may be over in a while."""
    again = {"scheduler.duplicate", "lifecycle.stale", "input.message_gone"}
    return isinstance(error, Unavailable | TimeLimit | ApprovalPending) or error.code in again
