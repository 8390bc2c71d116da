"""A tool call, in nine steps. `Invoker.prepare` takes the first three, `Invoker.call` the others.

1. find the tool in the catalogue, which holds verified tools only
2. SchemaPin: its signature holds, its key and definition are as pinned
3. validate the arguments against the pinned schema
4. the gate: `guard.enforce(InvokeTool)`; conditions may change the arguments, and steps 1 to 3 are then taken again
5. a sandbox tier: none; configured tool servers are processes that the operator starts as they are, and a policy that
   asks for a tier (`@tier`) is refused by the gate
6. call with the permit, with the deadline inside the adapter and outside of it; secrets resolve here
7. take secrets out, bound, decode and check the answer against the output schema, and label it as the manifest says
8. leave the gate: the outcome is on record
9. return a `ToolResult`
"""

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, cast

import anyio
import anyio.to_thread

from symbi.errors import ApprovalPending, InputError, OutputLimit, StoreUnavailable, SymbiError, TimeLimit, ToolFailed
from symbi.guard.action import InvokeTool, RunSlot
from symbi.guard.gate import Guard
from symbi.guard.permit import Permit
from symbi.policy.fields import UNDECLARED, AnswerLabels, ToolFlow
from symbi.policy.flow import join, join_subjects
from symbi.tools.caller import Caller, hooks_of
from symbi.tools.catalog import Catalog
from symbi.tools.mask import VAULT_SCHEME, SecretMask, references
from symbi.tools.port import RawToolResult, SecretSource
from symbi.tools.schemas import json_value
from symbi.tools.text import MAX_ERROR_CHARS, cut, printable
from symbi.tools.verified import VerifiedTool
from symbi.types import EffectId, JsonValue, Label, Principal, RecoveryClass

_log = logging.getLogger("symbi.tools")

MAX_BLOCKS_BYTES: Final = 4_194_304  # of an answer that is passed on in the protocol's form: images take some
OUTER_GRACE_S: Final = 5.0  # what an adapter gets beyond the deadline to report that it has passed


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool answered.

    Attributes:
        value: The structured content where there is any; else the text, which is read as JSON where the tool
            declares an output schema.
        labels: The label of each field: as the manifest says, untrusted where it does not; from this effect, at least as
            confidential as what the tool was given, and raised as policies mark it.
        effect_id: The effect.
        mark: What policies raise its label to.
        raw: The answer in the protocol's form, without secrets; for a caller that passes it on, else None.
    """

    value: JsonValue
    labels: AnswerLabels
    effect_id: EffectId
    mark: Label = field(default_factory=Label)
    raw: RawToolResult | None = None

    @property
    def label(self) -> Label:
        """The label of the whole value; of a list or object, that of its shape."""
        return self.labels.at((), self.value)


class Invoker:
    """Calls tools.

    Args:
        catalog: The tools there are.
        guard: The gate.
        secrets: Where `vault://` references resolve, or None where nothing does.
    """

    def __init__(self, catalog: Catalog, guard: Guard, secrets: SecretSource | None = None) -> None:
        self._catalog = catalog
        self._guard = guard
        self._secrets = secrets

    def prepare(
        self,
        principal: Principal,
        name: str,
        arguments: Mapping[str, JsonValue],
        *,
        labels: Mapping[str, Label] | None = None,
        secrets: tuple[str, ...] = (),
        slot: RunSlot | None = None,
    ) -> InvokeTool:
        """Steps 1 to 3: the action that the gate will judge. Nothing happens yet.

        Args:
            principal: Who asks.
            name: `server.tool`.
            arguments: JSON; a secret stands in them as the text `vault://path`.
            labels: Label of each argument.
            secrets: The paths that are references. Any other text that looks like one is refused.
            slot: The place in a run.

        Raises:
            InputError: There is no such tool, or the arguments do not fit it.
            VerificationError: The tool is quarantined, or not what was verified.
            ToolServerUnavailable: Its server is not connected.
            Unavailable: Its server has failed too often, and is left alone for a while.
        """
        # 1. find the tool; its server is not left alone just now
        tool = self._catalog.find(name)
        self._catalog.dependency_of(tool.ref.server).check()
        # 2. SchemaPin unchanged
        tool.confirm()
        # 3. the arguments
        values = _arguments(tool, arguments)
        _check_references(tool, values, secrets)
        if self._catalog.unverified:
            _log.warning("UNVERIFIED: tool `%s` is called without verification", tool.ref.name)
        labels = labels or {}
        return InvokeTool(
            principal=principal,
            slot=slot,
            label=join(*labels.values()),
            tool=tool.ref,
            values=values,
            labels=labels,
            secrets=tuple(sorted(set(secrets))),
            timeout_s=tool.entry.timeout_s or self._catalog.link_of(tool).timeout_s,
            recheck=self._recheck,
        )

    @asynccontextmanager
    async def admitted(
        self, asked: InvokeTool, on_refusal: Callable[[SymbiError], Awaitable[None]]
    ) -> AsyncIterator[InvokeTool]:
        """Steps 1 to 3 for a run: a server that died is started again, and the call has its place among those at a time.

        Args:
            asked: The call, as its run asks for it.
            on_refusal: Records what is refused before the gate; nothing has happened then.

        Raises:
            ApprovalPending: People have to agree first that the server is started.
            Overloaded: Too many calls wait for the server.
            SymbiError: As `prepare` and `Catalog.revive`; `on_refusal` was told.
        """
        name, principal, server = asked.tool.name, asked.principal, asked.tool.server
        seat = object()
        try:
            await self._catalog.revive(server, principal)
            action = self.prepare(
                principal, name, asked.values, labels=asked.labels, secrets=asked.secrets, slot=asked.slot
            )
            dependency = self._catalog.dependency_of(server)
            await dependency.take_seat(seat)
        except (ApprovalPending, StoreUnavailable):
            raise
        except SymbiError as refusal:
            await on_refusal(refusal)
            raise
        try:
            yield replace(
                action,
                label=asked.label,
                grant=asked.grant,
                session=asked.session,
                waits=asked.waits,
                facts=asked.facts,
            )
        finally:
            dependency.leave(seat)

    async def call(self, action: InvokeTool, caller: Caller | None = None) -> ToolResult:
        """Steps 4 to 9.

        Args:
            action: The call.
            caller: Who is told of its progress and answers what the server asks, each question through the gate; it gets
                the answer in the protocol's form, too. Nobody, for an agent.

        Raises:
            Denied: Policy does not let it happen.
            InputError: Conditions changed the arguments so that they do not fit, or a secret is not to be had.
            VerificationError: The tool has changed meanwhile.
            ToolFailed: The tool says that it failed, or its answer is not what its schema promises.
            TimeLimit: No answer in time.
            OutputLimit: The answer is too large.
            ToolServerUnavailable: The server is gone.
            StoreUnavailable: Decision or outcome cannot be recorded.
        """
        # 4. the gate
        async with self._guard.enforce(action) as permit:
            # 5. no sandbox tier holds a configured server
            # 6. the call, and 7. its answer
            value, raw = await self._effect(permit, caller)
            permit.observe(value)
        # 8. the gate is left
        # 9. the result
        action = permit.action
        flow, given = action.tool.flow, action.label
        about = flow.subjects_of_answer(value)
        given = replace(given, subjects=join_subjects(given.subjects, flow.subjects_of_call(action.values)))
        labels = AnswerLabels(flow, given, permit.effect_id, action.mark, about)
        return ToolResult(value, labels, permit.effect_id, action.mark, None if caller is None else raw)

    def answer_labels(
        self, name: str, given: Label, effect_id: str, arguments: Mapping[str, JsonValue], answer: JsonValue
    ) -> AnswerLabels:
        """The labels of an answer that is on record: by the manifest in force; untrusted where the tool is not to be had.

        Args:
            name: `server.tool`.
            given: Join of the labels of what the tool was called with.
            effect_id: The effect whose result it is.
            arguments: What the tool was called with.
            answer: The answer.
        """
        flow = self.flow_of(name) or UNDECLARED
        given = replace(given, subjects=join_subjects(given.subjects, flow.subjects_of_call(arguments)))
        return AnswerLabels(flow, given, effect_id, about=flow.subjects_of_answer(answer))

    def flow_of(self, name: str) -> ToolFlow | None:
        """What is declared of a tool; None where it was never to be had."""
        return self._catalog.flow_of(name)

    def recovery_of(self, name: str) -> RecoveryClass:
        """The class that is declared of a tool, whether or not it is to be had."""
        declared = self._catalog.declared(name)
        return RecoveryClass.NEVER_RETRY if declared is None else declared.recovery

    async def _effect(self, permit: Permit[InvokeTool], caller: Caller | None) -> tuple[JsonValue, RawToolResult]:
        mask = SecretMask()
        came: RawToolResult | None = None
        try:
            tool, raw = await self._exchange(permit, mask, caller)
            came = None if caller is None else _passed_on(tool, raw, mask)
            return _answer(tool, raw, mask), came or raw
        except SymbiError as error:
            failure = _outgoing(error, mask)
        if came is not None and came.is_error and isinstance(failure, ToolFailed):
            failure.answer = came
        # Raised out here, for in there it would carry the error with the secrets in it as its context.
        raise failure

    async def _exchange(
        self, permit: Permit[InvokeTool], mask: SecretMask, caller: Caller | None
    ) -> tuple[VerifiedTool, RawToolResult]:
        """Step 6."""
        action = permit.action
        end_s = anyio.current_time() + action.timeout_s + OUTER_GRACE_S
        with self._until(end_s, action):
            secrets = await self._resolve(permit)
        mask.add(secrets)
        async with self._catalog.dependency_of(action.tool.server).attempt():
            # Nothing is awaited from here to the server's session, so the tool is that of the verified process.
            tool = self._catalog.confirm(action.tool)
            hooks = hooks_of(self._guard, caller, action, permit.effect_id)
            with self._until(end_s, action):
                return tool, await self._catalog.link_of(tool).server.call(permit, secrets, hooks)

    @contextmanager
    def _until(self, end_s: float, action: InvokeTool) -> Iterator[None]:
        """The deadline outside of the adapter's own."""
        try:
            with anyio.fail_after(end_s - anyio.current_time()):
                yield
        except TimeoutError:
            msg = f"tool `{action.tool.name}` and its adapter did not answer within {action.timeout_s:g} s"
            raise TimeLimit(msg, tool=action.tool.name) from None

    async def _resolve(self, permit: Permit[InvokeTool]) -> Mapping[str, str]:
        """The secrets that still stand in the effective arguments."""
        wanted = sorted(set(references(permit.action.values)) & set(permit.action.secrets))
        values: dict[str, str] = {}
        for path in wanted:
            value = None
            if self._secrets is not None:
                look_up = partial(self._secrets.resolve, permit, path)
                value = await anyio.to_thread.run_sync(look_up, abandon_on_cancel=True)
            if value is None:
                msg = f"no source has the secret `{VAULT_SCHEME}{path}`"
                hint = "`secrets.sources` says where they are looked up"
                raise InputError(msg, code="secret.unknown", hint=hint)
            values[path] = value
        return values

    def _recheck(self, action: InvokeTool) -> None:
        """Steps 1 to 3 again, on what conditions made of the action."""
        tool = self._catalog.confirm(action.tool)
        _arguments(tool, action.values)


def _arguments(tool: VerifiedTool, arguments: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    """Step 3."""
    values = json_value(arguments, f"the arguments of `{tool.ref.name}`")
    try:
        tool.arguments.check(values)
    except InputError as error:
        msg = f"arguments of `{tool.ref.name}`: {error.message}"
        raise InputError(msg, code=error.code, hint=error.hint, tool=tool.ref.name) from None
    assert isinstance(values, Mapping)
    return values


def _check_references(tool: VerifiedTool, values: Mapping[str, JsonValue], secrets: tuple[str, ...]) -> None:
    """What looks like a reference must be one that the caller means, and the other way round."""
    found = set(references(values))
    stray = sorted(found - set(secrets))
    if stray:
        msg = f"arguments of `{tool.ref.name}`: the text `{VAULT_SCHEME}{cut(printable(stray[0]), 80)}` is no reference"
        raise InputError(msg, code="secret.stray", hint="text from outside cannot name a secret")
    absent = sorted(set(secrets) - found)
    if absent:
        msg = f"arguments of `{tool.ref.name}`: `{VAULT_SCHEME}{absent[0]}` does not stand in them"
        raise InputError(msg, code="secret.absent")


def _answer(tool: VerifiedTool, raw: RawToolResult, mask: SecretMask) -> JsonValue:
    """Step 7."""
    content = mask.text(raw.content)
    structured = mask.value(raw.structured)
    name = tool.ref.name
    if raw.is_error:
        text = cut(printable(content), MAX_ERROR_CHARS) or "it does not say why"
        raise ToolFailed(f"tool `{name}` failed: {text}", tool=name)
    value: JsonValue = structured
    if structured is None:
        value = content if tool.output is None else _read(content, name)
    try:
        plain = json_value(value, "the answer")
        size = len(json.dumps(plain, ensure_ascii=False).encode())
        if size > tool.entry.max_output_bytes:
            msg = f"tool `{name}` answered {size} bytes; {tool.entry.max_output_bytes} are allowed"
            raise OutputLimit(msg, tool=name)
        if tool.output is not None:
            tool.output.check(plain)
    except InputError as error:
        msg = f"tool `{name}` answered what it may not: {error.message}"
        raise ToolFailed(msg, code="agent.tool_output", tool=name) from None
    return plain


def _passed_on(tool: VerifiedTool, raw: RawToolResult, mask: SecretMask) -> RawToolResult:
    """The answer in the protocol's form, without secrets, and no larger than the manifest lets the tool answer."""
    blocks = cast("Sequence[Mapping[str, JsonValue]]", mask.value(list(raw.blocks)))
    size = len(json.dumps(blocks, ensure_ascii=False).encode())
    if size > max(tool.entry.max_output_bytes, MAX_BLOCKS_BYTES):
        msg = f"tool `{tool.ref.name}` answered {size} bytes in {len(blocks)} parts"
        raise OutputLimit(msg, tool=tool.ref.name)
    meta = cast("Mapping[str, JsonValue]", mask.value(dict(raw.meta)))
    return RawToolResult(mask.text(raw.content), mask.value(raw.structured), raw.is_error, blocks, meta)


def _read(content: str, name: str) -> JsonValue:
    try:
        value: JsonValue = json.loads(content)
    except (ValueError, RecursionError):
        msg = f"tool `{name}` declares an output schema and answered text that is not JSON"
        raise ToolFailed(msg, code="agent.tool_output", tool=name) from None
    return value


def _outgoing(error: SymbiError, mask: SecretMask) -> SymbiError:
    """The error as it may be recorded: without secrets, and no longer than an error should be."""
    masked = mask.error(error)
    masked.message = cut(masked.message, MAX_ERROR_CHARS)
    masked.hint = None if masked.hint is None else cut(masked.hint, MAX_ERROR_CHARS)
    masked.args = (masked.message,)
    return masked
