"""What a body can do to the world, each through the gate and each on record at its place in the run.

The n-th effect that a body asks for has position n. On a resumed run the ledger already has a record there: a finished
effect gives its recorded result or error again and nothing is done; one in doubt is for the gate to repeat or refuse.
"""

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from symbi.agent.pure import shown
from symbi.agent.values import Value, deep_label, from_json, to_json, tool_arguments, untrusted
from symbi.audit.event import AuditEventType, Draft
from symbi.audit.log import AuditLog
from symbi.clock import Clock, random_bytes
from symbi.dsl import ast
from symbi.errors import InternalError, ScriptFailed, SymbiError
from symbi.guard.action import Action, DrawRandom, ExecuteCode, ReadClock, RunSlot, WriteLog
from symbi.guard.gate import Guard
from symbi.guard.ledger import EffectRecord, EffectState
from symbi.guard.outcome import NOT_STARTED, decode_error
from symbi.guard.permit import Permit
from symbi.guard.records import action_name, digest_arguments
from symbi.policy.flow import join
from symbi.sandbox.pool import Sandboxes
from symbi.tools.invoke import Invoker
from symbi.types import AgentId, Integrity, JsonValue, Label, Principal, RunId, SecurityTier

ActionT = TypeVar("ActionT", bound=Action)

MAX_LOG_CHARS: Final = 4096  # one line of a run's log
SYSTEM_LABEL: Final = Label(Integrity.SYSTEM)
"""Clock and random generator: made by the system, known to nobody before."""


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
    """

    guard: Guard
    log: AuditLog
    clock: Clock
    invoker: Invoker
    sandboxes: Sandboxes
    emit: Callable[[AgentId, str], None]


@dataclass(frozen=True, slots=True)
class CodeLimits:
    """Bounds of one `python(…)`: the tier it must run in, mebibytes, seconds."""

    tier: SecurityTier = SecurityTier.INTERPRETER
    memory_mib: int = 64
    timeout_s: float = 30.0


class RunEffects:
    """`symbi.agent.interpreter.Effects` of one run.

    Args:
        world: The rooms that effects reach.
        principal: Who asks.
        run_id: The run.
        file: Name of the agent file, for places.
        code: Bounds of code.
        recorded: The effects of this run that are on record already, by position.
    """

    def __init__(
        self,
        world: World,
        principal: Principal,
        run_id: RunId,
        file: str,
        code: CodeLimits,
        recorded: Sequence[EffectRecord] = (),
    ) -> None:
        self._world = world
        self._principal = principal
        self._run_id = run_id
        self._file = file
        self._code = code
        self._recorded = {record.position: record for record in recorded}
        self._position = 0
        self.replayed = 0

    @property
    def count(self) -> int:
        """Effects that the body has asked for so far."""
        return self._position

    async def tool(self, name: str, arguments: Mapping[str, Value], span: ast.Span) -> Value:
        """Call a tool; what it answers is untrusted."""
        plain, labels, secrets = tool_arguments(arguments, span, self._file)
        slot = self._slot()
        invoker = self._world.invoker
        try:
            action = invoker.prepare(self._principal, name, plain, labels=labels, secrets=secrets, slot=slot)
        except SymbiError as refusal:
            await self._refused(name, slot, refusal)
            raise

        async def call() -> tuple[JsonValue, str]:
            result = await invoker.call(action)
            return result.value, result.effect_id

        value, effect_id = await self._perform(action, call)
        return from_json(value, untrusted(effect_id, action.label))

    async def python(self, code: Value, inputs: Mapping[str, Value], span: ast.Span) -> Value:
        """Run code on values; its result joins the labels of all it was given."""
        if not isinstance(code.data, str):
            msg = "the code of `python(…)` must be a String"
            raise ScriptFailed(msg, place=span.place(self._file))
        label = join(deep_label(code), *(deep_label(value) for value in inputs.values()))
        action = ExecuteCode(
            principal=self._principal,
            slot=self._slot(),
            label=label,
            code=code.data,
            code_digest=hashlib.sha256(code.data.encode("utf-8", "surrogatepass")).hexdigest(),
            tier=self._code.tier,
            inputs={name: to_json(value, span, self._file) for name, value in inputs.items()},
            memory_mib=self._code.memory_mib,
            timeout_s=self._code.timeout_s,
        )

        async def run(permit: Permit[ExecuteCode]) -> JsonValue:
            driver = self._world.sandboxes.driver_for(permit.action.tier)
            result = await driver.run(permit)
            if result.stdout:
                self._world.emit(self._principal.agent, result.stdout.rstrip()[:MAX_LOG_CHARS])
            return result.value

        value, _ = await self._perform(action, self._gated(action, run))
        return from_json(value, label)

    async def log(self, message: Value, span: ast.Span) -> Value:
        """Write a line to the run's log."""
        to_json(message, span, self._file)
        action = WriteLog(
            principal=self._principal,
            slot=self._slot(),
            label=deep_label(message),
            message=shown(message)[:MAX_LOG_CHARS],
        )

        async def write(permit: Permit[WriteLog]) -> JsonValue:
            line = self._world.guard.authority.redeem(permit, WriteLog).message
            self._world.emit(self._principal.agent, line)
            return None

        await self._perform(action, self._gated(action, write))
        return Value(None)

    async def now(self) -> Value:
        """Wall time in seconds since the epoch, to the microsecond."""
        action = ReadClock(principal=self._principal, slot=self._slot())

        async def read(permit: Permit[ReadClock]) -> JsonValue:
            self._world.guard.authority.redeem(permit, ReadClock)
            return self._world.clock.now_ns() // 1000 / 1e6

        value, _ = await self._perform(action, self._gated(action, read))
        return from_json(value, SYSTEM_LABEL)

    async def random(self) -> Value:
        """A number from 0 to 1, without 1, of 53 random bits."""
        action = DrawRandom(principal=self._principal, slot=self._slot())

        async def draw(permit: Permit[DrawRandom]) -> JsonValue:
            self._world.guard.authority.redeem(permit, DrawRandom)
            return (int.from_bytes(random_bytes(7)) >> 3) / 2**53

        value, _ = await self._perform(action, self._gated(action, draw))
        return from_json(value, SYSTEM_LABEL)

    def _slot(self) -> RunSlot:
        slot = RunSlot(self._run_id, self._position)
        self._position += 1
        return slot

    def _gated(
        self, action: ActionT, effect: Callable[[Permit[ActionT]], Awaitable[JsonValue]]
    ) -> Callable[[], Awaitable[tuple[JsonValue, str]]]:
        async def run() -> tuple[JsonValue, str]:
            async with self._world.guard.enforce(action) as permit:
                return permit.observe(await effect(permit)), permit.effect_id

        return run

    async def _perform(
        self, action: Action, effect: Callable[[], Awaitable[tuple[JsonValue, str]]]
    ) -> tuple[JsonValue, str]:
        """The recorded result, or else the effect itself; and its effect id."""
        assert action.slot is not None
        record = self._recorded.get(action.slot.position)
        if record is None:
            return await effect()
        if record.action != action_name(action) or record.arguments_digest != digest_arguments(action):
            msg = f"effect {record.position} of run `{self._run_id}` is not what it was before the restart"
            raise InternalError(msg, code="internal.diverged", hint="the run cannot go on; start it again")
        seen = record.error is not None and f'"{NOT_STARTED}"'.encode() not in record.error
        if record.state is EffectState.UNKNOWN and not seen:
            return await effect()
        self.replayed += 1
        if record.error is not None:
            raise decode_error(record.error)
        if record.result is None:
            msg = f"effect {record.position} of run `{self._run_id}` is {record.state.value} without a result"
            raise InternalError(msg, code="internal.no_result")
        value: JsonValue = json.loads(record.result)
        return value, record.effect_id

    async def _refused(self, tool: str, slot: RunSlot, refusal: SymbiError) -> None:
        """What never reached the gate stands in the trail all the same."""
        details: dict[str, JsonValue] = {
            "tool": tool,
            "position": slot.position,
            "code": refusal.code,
            "reason": refusal.message,
        }
        await self._world.log.append(Draft(AuditEventType.TOOL_REFUSED, self._principal.agent, details, self._run_id))
