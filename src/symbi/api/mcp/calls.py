"""One call of a tool by a client.

1. bounds of the session; the tool by its name outside;
2. where the arguments come from, by what the session has read;
3. `tools.invoke`: verified tool, arguments by its schema, the gate, the server;
4. held by policy: people are asked, for a bounded time, and the same call goes on once they have agreed;
5. what came back is remembered, and handed on as it came.
"""

import hashlib
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, Final, Protocol, TypeVar

import anyio.to_thread

from symbi.api.mcp.answers import Refusal, refusal_of
from symbi.api.mcp.approvals import ask_people
from symbi.api.mcp.gateway import GatewaySession
from symbi.api.mcp.labels import AGENT, UNMARKED
from symbi.audit.event import AuditEventType, Draft
from symbi.errors import ApprovalPending, Denied, InputError, PolicyDenied, SymbiError, ToolFailed
from symbi.guard.action import Action, InvokeTool, ToolRef
from symbi.guard.outcome import error_label
from symbi.policy.counterfactual import Change, what_if
from symbi.policy.fields import UNDECLARED, ToolFlow
from symbi.policy.flow import join
from symbi.policy.history import offline
from symbi.policy.inference import CallLabels
from symbi.tools.caller import Caller
from symbi.tools.catalog import RawToolResult
from symbi.tools.invoke import ToolResult
from symbi.types import Integrity, JsonValue, Label, ToolName

LABELS_KEY: Final = "symbi/labels"
"""Key in the `_meta` of a call: the label of each argument, from a host that may say so."""
WORDS_KEY: Final = "symbi/words"
"""Likewise: all that the user wrote."""
MAX_WORDS_CHARS: Final = 262_144
SMALL_CHARS: Final = 1_024  # of one value that is looked at on the event loop: some 0.5 ms
SMALL_READ_CHARS: Final = 8_192  # that a session has read, likewise
MAX_NUMBER_CHARS: Final = 24
MAX_REASONS: Final = 256  # denials of one session of which is kept what would turn them


FAILED: Final = Label(Integrity.UNTRUSTED)
"""The mark of what a manifest does not speak of, such as what a tool says of its failure."""

T = TypeVar("T")


class Exchange(Caller, Protocol):
    """What can be said to a client while its request is carried out."""

    def reads(self, mark: Label, given: Label) -> None:
        """Say how confidential it is what a server tells meanwhile."""

    async def ask(self, kind: str, question: Mapping[str, JsonValue]) -> Mapping[str, Any]:
        """Ask the client: `elicitation`, `sampling` or `roots`; its answer, in the protocol's form.

        Raises:
            SymbiError: It cannot be asked so, or does not answer.
        """


@dataclass(frozen=True, slots=True)
class ToolAnswer:
    """What a tool answered, as it goes to the client.

    Attributes:
        value: Its value.
        structured: The value is structured.
        effect_id: The effect.
        blocks: All parts as they came, in the protocol's form.
        is_error: The tool itself says that it failed.
        meta: `_meta` of its answer.
    """

    value: JsonValue
    structured: bool
    effect_id: str
    blocks: Sequence[Mapping[str, Any]] = ()
    is_error: bool = False
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call as a client asks for it.

    Attributes:
        name: Of the tool, outside.
        arguments: JSON.
        meta: `_meta` of the request.
    """

    name: str
    arguments: Mapping[str, JsonValue]
    meta: Mapping[str, JsonValue] = field(default_factory=dict)


async def call_tool(session: GatewaySession, call: ToolCall, exchange: Exchange) -> ToolAnswer | Refusal:
    """Carry out a call for a client, or say why not.

    Raises:
        InputError: There is no such tool for this client.
    """
    try:
        with session.turnstile.passing(call.arguments):
            await session.ready(session.servers_of(call.name))
            whole = session.whole(call.name)
            if whole is not None:
                return await _carried_out(session, whole, call, exchange)
    except SymbiError as error:
        return await explained(session, call.name, error)
    msg = f"there is no tool `{call.name[:64]}`"
    raise InputError(msg, code="tool.unknown")


async def explained(session: GatewaySession, name: str, error: SymbiError) -> Refusal:
    """What a client is told of an error; a denial with what would turn it."""
    effect_id = str(error.fields.get("effect_id", ""))
    changes = session.denials.get(effect_id, ())
    told = refusal_of(name, error, session.runtime.guard.engine.current, changes)
    named = effect_id or str(error.fields.get("approval", ""))
    if named:
        session.gateway.keep_refusal(named, session.client, told)
    return told


async def _carried_out(session: GatewaySession, whole: str, call: ToolCall, exchange: Exchange) -> ToolAnswer:
    invoker = session.runtime.rooms.world.invoker
    flow = invoker.flow_of(whole) or UNDECLARED
    found = await judged(session, flow, call.arguments, call.meta)
    asked = InvokeTool(
        principal=session.principal,
        label=found.label,
        tool=ToolRef(ToolName(whole), whole.partition(".")[0], "", {}, recovery=invoker.recovery_of(whole), flow=flow),
        values=call.arguments,
        labels=found.labels,
        session=session.id,
        waits=session.waits,
        facts=found.facts,
    )

    async def once() -> ToolResult:
        async with invoker.admitted(asked, partial(_refused, session, asked)) as action:
            try:
                return await invoker.call(action, exchange)
            except PolicyDenied as denial:
                await noted(session, action, denial)
                raise

    exchange.reads(join(FAILED, *_declared(flow)), found.label)
    keep = partial(_kept, session, call.arguments, found.label)
    try:
        result = await until_agreed(session, once, exchange)
    except ToolFailed as failure:
        raw = failure.answer
        mark = join(FAILED, error_label(failure), *_declared(flow))
        await keep(UNDECLARED, failure.message, whole, mark=mark)
        if not isinstance(raw, RawToolResult):
            raise
        has_structure = raw.structured is not None
        await keep(UNDECLARED, [*([raw.structured] if has_structure else ()), *_texts(raw, None)], whole, mark=mark)
        value = raw.structured if has_structure else failure.message
        return ToolAnswer(value, has_structure, effect_id="", blocks=raw.blocks, is_error=True, meta=raw.meta)
    session.labels.claim(call.arguments[name] for name, label in found.labels.items() if set(label.sources) <= {AGENT})
    await keep(flow, result.value, result.effect_id, mark=result.mark)
    raw = result.raw
    if not isinstance(raw, RawToolResult):
        return ToolAnswer(result.value, not isinstance(result.value, str), result.effect_id)
    rest = _texts(raw, result.value)
    if rest:
        await keep(UNDECLARED, rest, result.effect_id, mark=join(FAILED, result.mark, *_declared(flow)))
    has_structure = raw.structured is not None
    value = raw.structured if has_structure else result.value
    return ToolAnswer(value, has_structure, result.effect_id, raw.blocks, meta=raw.meta)


async def _kept(
    session: GatewaySession,
    arguments: Mapping[str, JsonValue],
    given: Label,
    flow: ToolFlow,
    output: JsonValue,
    source: str,
    *,
    mark: Label,
) -> None:
    """Remember what a call answered, which is as confidential as what it was given."""
    await remembered(session, flow, arguments, output, source, mark=mark, given=given)


def _declared(flow: ToolFlow) -> Iterator[Label]:
    """How confidential anything that a tool answers is declared to be: what it says beside that may repeat it."""
    for rule in flow.output:
        if rule.confidentiality is not None:
            yield Label(confidentiality=rule.confidentiality, categories=rule.categories or ())


def _texts(raw: RawToolResult, known: JsonValue) -> list[JsonValue]:
    """What a model reads of the parts of an answer beside the value that is known: links, embedded texts, other texts."""
    found: list[JsonValue] = []
    for block in raw.blocks:
        if block.get("type") != "text":
            shown = {key: value for key, value in block.items() if key not in {"type", "data", "blob"}}
            resource = shown.get("resource")
            if isinstance(resource, Mapping):
                shown["resource"] = {key: value for key, value in resource.items() if key != "blob"}
            found.append(shown)
        elif not _says(str(block.get("text", "")), raw, known):
            found.append(block.get("text"))
    return found


def _says(text: str, raw: RawToolResult, known: JsonValue) -> bool:
    """Whether a text says what is known already."""
    if raw.structured is None:
        return known is not None  # the value is made of the texts
    try:
        return bool(json.loads(text) == known)
    except (ValueError, RecursionError):
        return False


async def until_agreed(session: GatewaySession, once: Callable[[], Awaitable[T]], exchange: Exchange) -> T:
    """Do something, and again once people have agreed to it.

    Raises:
        ApprovalPending: They have not in the time that there is.
        SymbiError: What comes of it.
    """
    told: set[str] = set()
    while True:
        try:
            return await once()
        except ApprovalPending as pending:
            approval_id = str(pending.fields["approval"])
            if approval_id in told:
                raise
            told.add(approval_id)
            session.waits.found(approval_id)
            await ask_people(session, pending, exchange)


async def judged(
    session: GatewaySession, flow: ToolFlow, arguments: Mapping[str, JsonValue], meta: Mapping[str, JsonValue]
) -> CallLabels:
    """Where the arguments come from; on a thread where the session has read much: where not, a thread takes longer."""
    words, said = _said(session, meta)
    async with session.labelling:
        if words is not None:
            session.labels.hear(words)
        if session.labels.size <= SMALL_READ_CHARS and is_small(arguments):
            return session.labels.judge(flow, arguments, said)
        return await anyio.to_thread.run_sync(session.labels.judge, flow, arguments, said)


async def remembered(
    session: GatewaySession,
    flow: ToolFlow,
    arguments: Mapping[str, JsonValue],
    output: JsonValue,
    source: str,
    *,
    mark: Label = UNMARKED,
    given: Label = UNMARKED,
) -> None:
    """Remember what came back, on a thread where it is much; also where the client has gone, for its next call may follow."""
    work = partial(session.labels.observe, flow, arguments, output, source, mark=mark, given=given)
    with anyio.CancelScope(shield=True):
        async with session.labelling:
            if is_small(output) and is_small(arguments):
                work()
            else:
                await anyio.to_thread.run_sync(work)


def is_small(value: JsonValue) -> bool:
    """Whether so little is to be looked at that it takes less than a change of threads, or not much more."""
    left, stack = SMALL_CHARS, [value]
    while stack and left > 0:
        one = stack.pop()
        left -= 1
        match one:
            case str():
                left -= len(one)
            case Mapping():
                left -= sum(len(name) for name in islice(one, SMALL_CHARS))
                stack.extend(islice(one.values(), SMALL_CHARS))
            case Sequence():
                stack.extend(islice(one, SMALL_CHARS))
            case _:
                left -= MAX_NUMBER_CHARS
    return left > 0


def _said(session: GatewaySession, meta: Mapping[str, JsonValue]) -> tuple[str | None, Mapping[str, Label]]:
    """What a host says of its user's words and of arguments; nothing where it may not.

    Raises:
        InputError: It is not of the form that it has.
    """
    if not session.client.labels:
        return None, {}
    words, said = meta.get(WORDS_KEY), meta.get(LABELS_KEY, {})
    if words is not None and (not isinstance(words, str) or len(words) > MAX_WORDS_CHARS):
        msg = f"`_meta` has `{WORDS_KEY}`, which is no text of at most {MAX_WORDS_CHARS} characters"
        raise InputError(msg, code="mcp.meta")
    if not isinstance(said, Mapping):
        raise InputError(f"`_meta` has `{LABELS_KEY}`, which is no object", code="mcp.meta")
    try:
        return words, {name: _label(one) for name, one in said.items()}
    except (ValueError, TypeError):
        msg = f"`_meta` has `{LABELS_KEY}` with a label that is none"
        raise InputError(
            msg, code="mcp.meta", hint="the integrity of each argument: user, system, trusted, untrusted"
        ) from None


def _label(said: JsonValue) -> Label:
    if not isinstance(said, str):
        raise TypeError
    return Label(Integrity(said), sources=("host",))


async def _refused(session: GatewaySession, asked: InvokeTool, refusal: SymbiError) -> None:
    """What does not get to the gate has its record and its place in the trail all the same."""
    details: dict[str, JsonValue] = {
        "tool": asked.tool.name,
        "session": session.id,
        "code": refusal.code,
        "reason": refusal.message,
    }
    draft = Draft(AuditEventType.TOOL_REFUSED, asked.principal.name, details)
    await session.runtime.guard.refuse(asked, refusal, draft)


async def noted(session: GatewaySession, action: Action, denial: Denied) -> None:
    """Keep what would turn a denial, so that it can be told now and asked for later."""
    effect_id = str(denial.fields.get("effect_id", ""))
    if not effect_id or denial.code != "policy.denied" or not session.may_look_why():
        return
    engine = session.runtime.guard.engine
    policies = engine.current
    found = await anyio.to_thread.run_sync(_changes, policies, action)
    session.denials[effect_id] = found
    while len(session.denials) > MAX_REASONS:
        session.denials.pop(next(iter(session.denials)))


def _changes(policies: Any, action: Action) -> tuple[Change, ...]:
    try:
        request = offline(policies.counters, action.request())
        return what_if(policies, request).changes
    except InputError:  # the action cannot be put to the engine, which is why it was denied
        return ()


def key_of(*parts: str) -> str:
    """One key of several texts."""
    return hashlib.sha256("\x00".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


__all__ = [
    "Exchange",
    "ToolAnswer",
    "ToolCall",
    "call_tool",
    "explained",
    "judged",
    "remembered",
]
