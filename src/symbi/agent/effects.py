"""What a body can do to the world, each through the gate and each on record at its place in the run.

The n-th effect that a body asks for has position n. On a resumed run the ledger already has a record there: a finished
effect gives its recorded result or error again and nothing is done; one in doubt is for the gate to repeat or refuse. The
last one may be asked for again, see `symbi.agent.again`.
"""

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import Final, TypeVar

from symbi.agent.again import PATIENT, Again, Patience
from symbi.agent.containers import CodeLimits, Containers
from symbi.agent.library import LooksUp, Lookups
from symbi.agent.memory import Recollections, Remembering
from symbi.agent.messages import Letter, Messages, Post, Through
from symbi.agent.meter import UNMETERED, Meter
from symbi.agent.operators import text
from symbi.agent.pieces import answered, arguments_of, data_of, dumped, in_pieces, is_large, label_of, made
from symbi.agent.releases import Releases
from symbi.agent.rendering import shown
from symbi.agent.turn import RunClock
from symbi.agent.values import Value, deep_label, from_json, to_json
from symbi.audit.event import AuditEventType, Draft
from symbi.audit.log import AuditLog
from symbi.clock import Clock, random_bytes
from symbi.dsl import ast
from symbi.dsl.names import TOOL_NAME
from symbi.errors import ApprovalPending, InputError, InternalError, ScriptFailed, SymbiError
from symbi.guard.action import (
    Action,
    DrawRandom,
    ExecuteCode,
    InvokeTool,
    ReadClock,
    RunSlot,
    ToolRef,
    WriteLog,
)
from symbi.guard.actions.people import RequestApproval
from symbi.guard.confidential import subjects_of
from symbi.guard.gate import Guard
from symbi.guard.ledger import EffectRecord, EffectState
from symbi.guard.outcome import decode_error, encode_result
from symbi.guard.permit import Permit
from symbi.guard.records import action_name, never_began, obligations_of
from symbi.policy.about import About
from symbi.policy.approval import parse_demand
from symbi.policy.fields import UNDECLARED
from symbi.policy.flow import MORE_SUBJECTS, join
from symbi.policy.grants import Grant
from symbi.sandbox.pool import Sandboxes
from symbi.sandbox.tier import assess_code, raise_tier
from symbi.tools.invoke import Invoker
from symbi.tools.reconcile import CallInDoubt, Reconciler
from symbi.tools.text import shown_name
from symbi.types import AgentId, Integrity, JsonValue, Label, Principal, RunId, ToolName

T = TypeVar("T")
ActionT = TypeVar("ActionT", bound=Action)

MAX_LOG_CHARS: Final = 4096  # one line of a run's log
MAX_TOOL_CHARS: Final = 200  # the name of a tool, with that of its server
MAX_QUESTION_CHARS: Final = 1000  # what `approval` asks people
SYSTEM_LABEL: Final = Label(Integrity.SYSTEM)
"""Clock and random generator: made by the system, known to nobody before."""


def no_word(_pending: ApprovalPending) -> None:
    """The default of `held`: nothing."""


@dataclass(frozen=True, slots=True)
class World:
    """The rooms that effects reach.

    Attributes:
        guard: The gate.
        log: The trail, for what is refused before the gate.
        clock: Wall time.
        invoker: Tools.
        sandboxes: Where code runs.
        emit: Takes what a run logs and what its code prints, with the agent's id; it goes to whoever started the run.
        hold_s: How long a run waits for people before it ends as held; None waits until they answer or their time is up.
        held: Told of each action that waits for people.
        post: Gets messages to agents; None where no message gets anywhere.
        reconciler: Asks what became of calls in doubt; None where nobody can be asked.
        patience: How it waits before something is asked for again.
        memory: Where agents remember; None where nothing is remembered.
        library: Documents; None where there are none.
    """

    guard: Guard
    log: AuditLog
    clock: Clock
    invoker: Invoker
    sandboxes: Sandboxes
    emit: Callable[[AgentId, str], None]
    hold_s: float | None = 0.0
    held: Callable[[ApprovalPending], None] = no_word
    post: Post | None = None
    reconciler: Reconciler | None = None
    patience: Patience = PATIENT
    memory: Remembering | None = None
    library: LooksUp | None = None

    async def hold(self, work: Callable[[], Awaitable[T]], clock: RunClock | None = None) -> T:
        """Do some work, and do it again where it was held and people have answered.

        Args:
            work: Passes the gate.
            clock: Stands still meanwhile.

        Raises:
            ApprovalPending: Nobody has answered within `hold_s`.
        """
        told = ""
        while True:
            try:
                return await work()
            except ApprovalPending as pending:
                desk, approval_id = self.guard.approvals, str(pending.fields["approval"])
                if desk is None:
                    raise
                if told != approval_id:
                    self.held(pending)
                    told = approval_id
                async with clock.stopped() if clock else nullcontext():
                    await desk.wait(pending, inf if self.hold_s is None else self.hold_s)
                if clock:
                    await clock.boundary()


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What came of an effect, its id, what policies raise the label of the value to, and whether it was kept as somebody's."""

    value: JsonValue
    effect_id: str
    mark: Label
    kept_sealed: bool = False


class RunEffects:
    """`symbi.agent.calls.Effects` of one run.

    Args:
        world: The rooms that effects reach.
        principal: Who asks.
        run_id: The run.
        file: Name of the agent file, for places.
        code: Bounds of code.
        recorded: The effects of this run that are on record already, by position.
        grant: What the run's task calls for, or None where nobody has said.
        held: For which effect it was held, where it goes on; see `symbi.agent.again.held_at`.

    Attributes:
        clock: The time that the run has; asked before each effect whether it may go on.
        meter: Takes what the run uses.
        replayed: Effects whose outcome was on record.
        told: The last error that the body was told of an effect.
    """

    def __init__(  # noqa: PLR0913 - a run is made of that many
        self,
        world: World,
        principal: Principal,
        run_id: RunId,
        file: str,
        code: CodeLimits,
        recorded: Sequence[EffectRecord] = (),
        grant: Grant | None = None,
        held: int | None = None,
    ) -> None:
        self._world = world
        self._principal = principal
        self._run_id = run_id
        self._file = file
        self._code = code
        self._recorded = {record.position: record for record in recorded}
        self._position = 0
        self._grant = grant
        self.clock = RunClock()
        self.meter: Meter = UNMETERED
        self.replayed = 0
        self.told: SymbiError | None = None
        self._latest: Action | None = None
        self._again = Again(world.guard.places, world.patience, recorded, held)
        through = Through(self._slot, self._perform, self._gated, lambda: self.clock)
        self._messages = Messages(world.post, world.guard, Letter(run_id, principal, grant=grant), file, through)
        self._lookups = Lookups(world.library, principal, file, through)
        self._recollections = Recollections(world.memory, principal, run_id, file, through)
        self._containers = Containers(world.guard.authority, world.sandboxes, principal, code, file, through)
        self._releases = Releases(world.guard.authority, principal, file, through)

    @property
    def count(self) -> int:
        """Effects that the body has asked for so far."""
        return self._position

    async def tool(self, name: Value, arguments: Mapping[str, Value], span: ast.Span) -> Value:
        """Call a tool; its manifest says what of the answer is not untrusted. Which tool it is may come from data, and so bears a label too."""
        server = self._server_of(name, span)
        plain, labels, secrets = await arguments_of(arguments, span, self._file)
        # As it is asked for: whether there is such a tool now is not for a replay to know, but for whom it is about.
        invoker, called = self._world.invoker, text(name)
        recovery, flow = invoker.recovery_of(called), invoker.flow_of(called) or UNDECLARED
        asked = InvokeTool(
            principal=self._principal,
            slot=self._slot(),
            label=join(name.label, *labels.values()),
            tool=ToolRef(ToolName(called), server, "", {}, recovery=recovery, flow=flow),
            values=plain,
            labels=labels,
            secrets=secrets,
            grant=self._grant,
        )

        async def call() -> _Outcome:
            async with self._world.invoker.admitted(asked, partial(self._refused, asked)) as action:
                result = await self._world.invoker.call(action)
            self.meter.moved(len(encode_result(plain)), len(encode_result(result.value)))
            return _Outcome(result.value, result.effect_id, result.mark)

        done = await self._perform(asked, call)
        answer = self._world.invoker.answer_labels(text(name), asked.label, done.effect_id, plain, done.value)
        if done.kept_sealed and not (answer.given.subjects or answer.about.scopes):
            # The manifest that knew whom it is about has gone: it is still about somebody.
            answer = replace(answer, about=About({(): (MORE_SUBJECTS,)}))
        return await in_pieces(answered(done.value, replace(answer, mark=done.mark)))

    async def python(self, code: Value, inputs: Mapping[str, Value], span: ast.Span) -> Value:
        """Run code on values; its result joins the labels of all it was given."""
        if not isinstance(code.data, str):
            msg = "the code of `python(…)` must be a String"
            raise ScriptFailed(msg, place=span.place(self._file))
        label = await label_of(code, *inputs.values())
        plainly = partial(to_json, place=span, file=self._file)
        plain = {name: await in_pieces(data_of(value, plainly)) for name, value in inputs.items()}
        risk = assess_code(self._code.profile, label)
        action = ExecuteCode(
            principal=self._principal,
            slot=self._slot(),
            label=label,
            code=code.data,
            code_digest=hashlib.sha256(code.data.encode("utf-8", "surrogatepass")).hexdigest(),
            tier=raise_tier(self._code.tier, risk),
            risk=risk.facts(),
            inputs=plain,
            memory_mib=self._code.memory_mib,
            cpu_milli=self._code.cpu_milli,
            timeout_s=self._code.timeout_s,
        )

        async def run(permit: Permit[ExecuteCode]) -> JsonValue:
            permit.note("risk", permit.action.risk)
            driver = self._world.sandboxes.driver_for(permit.action.tier)
            result = await driver.run(permit)
            if result.stdout:
                await self._printed(result.stdout.rstrip(), join(label, permit.action.mark))
            return result.value

        try:
            done = await self._perform(action, self._gated(action, run))
        except SymbiError as error:
            if error.place is not None:  # a place in the code; which code it is, the place of the call says
                called = f"the code is that of {span.place(self._file)}"
                error.hint = f"{error.hint}; {called}" if error.hint else called
            raise
        return await in_pieces(made(done.value, join(label, done.mark)))

    async def log(self, message: Value, span: ast.Span) -> Value:
        """Write a line to the run's log."""
        await in_pieces(data_of(message, lambda part: to_json(part, span, self._file)))
        written = shown(message) if not is_large(message) else await in_pieces(dumped(message))
        action = WriteLog(
            principal=self._principal,
            slot=self._slot(),
            label=await label_of(message),
            message=written[:MAX_LOG_CHARS],
        )
        await self._perform(action, self._gated(action, self._write))
        return Value(None)

    async def now(self) -> Value:
        """Wall time in seconds since the epoch, to the microsecond."""
        action = ReadClock(principal=self._principal, slot=self._slot())

        async def read(permit: Permit[ReadClock]) -> JsonValue:
            self._world.guard.authority.redeem(permit, ReadClock)
            return self._world.clock.now_ns() // 1000 / 1e6

        done = await self._perform(action, self._gated(action, read))
        return from_json(done.value, join(SYSTEM_LABEL, done.mark))

    async def random(self) -> Value:
        """A number from 0 to 1, without 1, of 53 random bits."""
        action = DrawRandom(principal=self._principal, slot=self._slot())

        async def draw(permit: Permit[DrawRandom]) -> JsonValue:
            self._world.guard.authority.redeem(permit, DrawRandom)
            return (int.from_bytes(random_bytes(7)) >> 3) / 2**53

        done = await self._perform(action, self._gated(action, draw))
        return from_json(done.value, join(SYSTEM_LABEL, done.mark))

    async def run(self, image: Value, command: Value, options: Mapping[str, Value], span: ast.Span) -> Value:
        """Run a program in a container; see `symbi.agent.containers`."""
        return await self._containers.run(image, command, options, span)

    async def endorse(self, value: Value, name: Value, span: ast.Span) -> Value:
        """Believe a value; see `symbi.agent.releases`, also for the next."""
        return await self._releases.endorse(value, name, span)

    async def declassify(self, value: Value, name: Value, to: Value, span: ast.Span) -> Value:
        """Let a value travel."""
        return await self._releases.declassify(value, name, to, span)

    async def remember(self, content: Value, options: Mapping[str, Value], span: ast.Span) -> Value:
        """Keep a value beyond this run; see `symbi.agent.memory`, also for the next."""
        return await self._recollections.remember(content, options, span)

    async def recall(self, options: Mapping[str, Value], span: ast.Span) -> Value:
        """What is remembered."""
        return await self._recollections.recall(options, span)

    async def search(self, about: Value, base: Value, limit: Value, span: ast.Span) -> Value:
        """What documents say; see `symbi.agent.library`, also for the next."""
        return await self._lookups.search(about, base, limit, span)

    async def answer(self, question: Value, base: Value, span: ast.Span) -> Value:
        """An answer from documents."""
        return await self._lookups.answer(question, base, span)

    async def send(self, agent: Value, message: Value, after: Value, span: ast.Span) -> Value:
        """Send a message to an agent; see `symbi.agent.messages`, also for the next two."""
        return await self._messages.send(agent, message, after, span)

    async def ask(self, agent: Value, message: Value, span: ast.Span) -> Value:
        """Send a message to an agent, and wait for its answer."""
        return await self._messages.ask(agent, message, span)

    async def publish(self, topic: Value, message: Value, span: ast.Span) -> Value:
        """Send a message to whoever listens."""
        return await self._messages.publish(topic, message, span)

    async def approval(self, who: Value, what: Value, span: ast.Span) -> Value:
        """Ask people to agree; true once they have. A no, and no answer in time, are errors that a body may catch."""
        name, question = text(who), text(what)
        try:
            demand = parse_demand(f"who={name}") if name else None
        except InputError as error:
            raise ScriptFailed(error.message, place=span.place(self._file), hint=error.hint) from None
        if not 0 < len(question) <= MAX_QUESTION_CHARS or not question.isprintable():
            msg = f"what people are asked is one line of 1 to {MAX_QUESTION_CHARS} printable characters"
            raise ScriptFailed(msg, place=span.place(self._file))
        action = RequestApproval(
            principal=self._principal,
            slot=self._slot(),
            label=join(deep_label(who), deep_label(what)),
            who=demand.who if demand else "",
            what=question,
        )

        async def agreed(permit: Permit[RequestApproval]) -> JsonValue:
            self._world.guard.authority.redeem(permit, RequestApproval)
            return True

        done = await self._perform(action, self._gated(action, agreed))
        return from_json(done.value, join(Label(Integrity.SYSTEM, sources=(done.effect_id,)), done.mark))

    async def _write(self, permit: Permit[WriteLog]) -> JsonValue:
        line = self._world.guard.authority.redeem(permit, WriteLog).message
        self._world.emit(self._principal.name, line)
        return None

    def _server_of(self, tool: Value, span: ast.Span) -> str:
        name = text(tool)
        if len(name) > MAX_TOOL_CHARS or not TOOL_NAME.fullmatch(name):
            msg = f"`{shown_name(name)}` is not the name of a tool"
            raise ScriptFailed(msg, place=span.place(self._file), hint="write `server.tool`")
        if tool.label.subjects and self._world.invoker.flow_of(name) is None:
            msg = "the name of a tool was made of what is about a data subject, and there is no such tool"
            raise ScriptFailed(msg, place=span.place(self._file))
        return name.partition(".")[0]

    async def _printed(self, text: str, label: Label) -> None:
        """What code prints goes where `log` goes, and so through the same decision; it has no place of its own."""
        action = WriteLog(principal=self._principal, label=label, within=self._run_id, message=text[:MAX_LOG_CHARS])
        await self._gated(action, self._write)()

    def _slot(self) -> RunSlot:
        slot = RunSlot(self._run_id, self._position)
        self._position += 1
        return slot

    def _gated(
        self, action: ActionT, effect: Callable[[Permit[ActionT]], Awaitable[JsonValue]]
    ) -> Callable[[], Awaitable[_Outcome]]:
        async def run() -> _Outcome:
            async with self._world.guard.enforce(action) as permit:
                self.meter.acted()
                return _Outcome(permit.observe(await effect(permit)), permit.effect_id, permit.action.mark)

        return run

    async def _perform(self, action: Action, effect: Callable[[], Awaitable[_Outcome]]) -> _Outcome:
        """The recorded outcome, marked as it was when it was decided, or else that of the effect itself."""
        assert action.slot is not None
        self._latest = action
        record = self._recorded.get(action.slot.position)
        if record is None:
            return await self._ask(action, effect)
        if record.action != action_name(action) or not await self._world.guard.places.asked_alike(record, action):
            msg = f"effect {record.position} of run `{self._run_id}` is not what it was before the restart"
            raise InternalError(msg, code="internal.diverged", hint="the run cannot go on; start it again")
        doubted = record.error is None or never_began(record) or self._again.wanted(record)
        if record.state is EffectState.UNKNOWN and doubted:
            await self.clock.boundary()
            record = await self._looked_up(record, action)
            if record.state is EffectState.UNKNOWN:
                return await self._ask(action, effect)
        elif self._again.wanted(record):
            return await self._ask(action, effect)
        self.replayed += 1
        if record.error is not None:
            self.told = decode_error(record.error)
            raise self.told
        if record.result is None:
            msg = f"effect {record.position} of run `{self._run_id}` is {record.state.value} without a result"
            raise InternalError(msg, code="internal.no_result")
        return _Outcome(json.loads(record.result), record.effect_id, obligations_of(record).mark, record.somebodys)

    async def _ask(self, action: Action, effect: Callable[[], Awaitable[_Outcome]]) -> _Outcome:
        """Ask for an effect, and ask again where that may help, before the body sees an error."""
        tries = 0
        while True:
            await self.clock.boundary()
            tries += 1
            try:
                return await self._world.hold(effect, self.clock)
            except SymbiError as error:
                pause_s = await self._again.pause_s(action, error, tries, self.clock)
                if pause_s is None:
                    self.told = error
                    raise
            await self._again.rest(pause_s, self.clock)

    async def is_final(self) -> bool:
        """Whether the last effect may never be asked for again, so that whoever starts the run again is told the same.

        Raises:
            StoreUnavailable: It cannot be read.
        """
        return self._latest is not None and await self._world.guard.places.attempts(self._latest) is None

    async def _looked_up(self, record: EffectRecord, action: Action) -> EffectRecord:
        """The record of a call in doubt once its server was asked what became of it, where it can be.

        Raises:
            EffectInDoubt: It stays in doubt.
        """
        if self._world.reconciler is None or not isinstance(action, InvokeTool):
            return record
        call = CallInDoubt(
            record, action.principal, action.values, action.labels, action.label, action.secrets, subjects_of(action)
        )
        return await self._world.reconciler.settle(call, unseen=True)

    async def _refused(self, asked: InvokeTool, refusal: SymbiError) -> None:
        """What does not get to the gate has its record and its place in the trail all the same."""
        assert asked.slot is not None
        details: dict[str, JsonValue] = {
            "tool": asked.tool.name,
            "position": asked.slot.position,
            "code": refusal.code,
            "reason": refusal.message,
        }
        draft = Draft(AuditEventType.TOOL_REFUSED, asked.principal.name, details, self._run_id)
        await self._world.guard.refuse(asked, refusal, draft)
