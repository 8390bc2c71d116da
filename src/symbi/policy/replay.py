"""Recorded traces judged again, step by step, by the engine itself.

A trace is a line of JSON, `{suite, user, prompt, steps: [{tool, args, output}]}`. Nothing else in it is read; and what
a step is judged by comes from the prompt and the steps before it alone.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from symbi.errors import InputError, Place
from symbi.policy.catalog import ToolType
from symbi.policy.context import NO_REQUEST, tool_context
from symbi.policy.decision import Allow, AllowWithConditions, ConditionKind, Deny, PolicyDecision, PolicyRequest
from symbi.policy.engine import decide
from symbi.policy.fields import UNDECLARED, ToolFlow
from symbi.policy.grants import Grant, granted, read_grant
from symbi.policy.history import offline
from symbi.policy.inference import CallLabels, FlowSession
from symbi.policy.policies import PolicySet
from symbi.policy.shape import is_text, to_decimal, to_long
from symbi.types import AgentId, JsonValue, Principal, RecoveryClass, Resource

MAX_TYPED_DEPTH: Final = 8  # what lies deeper in an argument has no type, and is opaque to policies
MAX_SETS: Final = (
    512  # bounds the policy sets that are kept, one for each form of arguments that a tool was called with
)


@dataclass(frozen=True, slots=True)
class Step:
    """One recorded call."""

    tool: str
    args: Mapping[str, JsonValue]
    output: JsonValue


@dataclass(frozen=True, slots=True)
class Trace:
    """One recorded conversation; `prompt` is None where nobody knows what the user wrote."""

    suite: str
    user: str
    prompt: str | None
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class ReplayTool:
    """What is declared of a tool: how it recovers, and its flow."""

    recovery: RecoveryClass = RecoveryClass.NEVER_RETRY
    flow: ToolFlow = UNDECLARED


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a step: `allow`, `approve` (all that is missing is a person) or `deny`."""

    tool: str
    verdict: str
    decision: PolicyDecision
    found: CallLabels


def read_traces(file: str, text: str) -> list[Trace]:
    """Read a file of traces, one a line; empty lines are passed over.

    Raises:
        InputError: A line is no trace; `place` says which.
    """
    traces = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            traces.append(_LineReader(Place(file, number, 1)).read(line))
    return traces


class _LineReader:
    """Reads one line."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def read(self, line: str) -> Trace:
        try:
            data = json.loads(line, parse_constant=self._constant)
        except json.JSONDecodeError as error:
            place = Place(self._place.file, self._place.line, error.colno)
            raise InputError(f"not JSON: {error.msg}", code="replay.trace", place=place) from error
        except (ValueError, RecursionError) as error:
            raise self._wrong(
                "not JSON that can be read: it is nested too deeply, or holds a number too long"
            ) from error
        if not isinstance(data, dict):
            raise self._wrong("a trace is an object")
        prompt = data.get("prompt")
        if prompt is not None and not isinstance(prompt, str):
            raise self._wrong("`prompt` is not a string")
        steps = data.get("steps")
        if not isinstance(steps, list):
            raise self._wrong("`steps` is missing, or is not a list")
        return Trace(
            suite=self._text(data, "suite", "suite"),
            user=self._text(data, "user", "user"),
            prompt=prompt,
            steps=tuple(self._step(step, f"steps[{index}]") for index, step in enumerate(steps)),
        )

    def _step(self, step: object, where: str) -> Step:
        if not isinstance(step, dict):
            raise self._wrong(f"`{where}` is not an object")
        args = step.get("args")
        if not isinstance(args, dict):
            raise self._wrong(f"`{where}.args` is missing, or is not an object")
        if "output" not in step:
            raise self._wrong(f"`{where}.output` is missing", "a tool that answered nothing has the output `null`")
        return Step(self._text(step, "tool", f"{where}.tool"), args, step["output"])

    def _text(self, table: Mapping[str, Any], key: str, where: str) -> str:
        value = table.get(key)
        if not isinstance(value, str) or not value or not is_text(value):
            raise self._wrong(f"`{where}` is missing, or is not a text")
        return value

    def _constant(self, name: str) -> float:
        raise self._wrong(f"`{name}` is not JSON")

    def _wrong(self, message: str, hint: str | None = None) -> InputError:
        return InputError(message, code="replay.trace", place=self._place, hint=hint)


def read_grants(file: str, text: str) -> Mapping[str, Grant]:
    """Read a file of grants, by `suite/user`.

    Raises:
        InputError: It is not JSON, or a grant is not of the form that `symbi.policy.grants` describes.
    """
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        place = Place(file, error.lineno, error.colno)
        raise InputError(f"not JSON: {error.msg}", code="policy.grant", place=place) from error
    except (ValueError, RecursionError) as error:
        raise InputError("not JSON that can be read", code="policy.grant", place=Place(file, 1, 1)) from error
    if not isinstance(data, dict):
        raise InputError("grants are an object by `suite/user`", code="policy.grant", place=Place(file, 1, 1))
    grants: dict[str, Grant] = {}
    for task, granted_tools in data.items():
        suite, parted, user = task.partition("/")
        at = text.find(json.dumps(task))
        place = Place(file, text.count("\n", 0, max(at, 0)) + 1, 1)
        if not (suite and parted and user):
            raise InputError(f"`{task}` is not `suite/user`", code="policy.grant", place=place)
        try:
            grants[task] = read_grant(granted_tools, suite)
        except InputError as error:
            raise InputError(error.message, code=error.code, place=place, hint=error.hint) from error
    return grants


@dataclass(slots=True)
class Replay:
    """Judges traces with one set of policies.

    Args:
        policies: Validated against the declared tools; each call's own arguments are typed as they are.
        tools: What the manifests declare, by `server.tool`.
        servers: What they declare of tools that they do not name, by server.
        grants: By `suite/user`, or None where no task has any.
        agent: Who calls.
    """

    policies: PolicySet
    tools: Mapping[str, ReplayTool]
    servers: Mapping[str, ReplayTool] = field(default_factory=dict)
    grants: Mapping[str, Grant] | None = None
    agent: Principal = field(default_factory=lambda: Principal(AgentId("replay")))
    _sets: dict[tuple[str, str], PolicySet] = field(init=False, default_factory=dict)

    def run(self, traces: Iterable[Trace]) -> Iterator[list[Verdict]]:
        """The verdicts of each trace, in order."""
        for trace in traces:
            yield self.verdicts(trace, self.labels(trace))

    def labels(self, trace: Trace) -> list[CallLabels]:
        """What is found out about each step, from the prompt and the steps before it; policies have no part in it."""
        session = FlowSession(trace.prompt)
        found = []
        for index, step in enumerate(trace.steps):
            flow = self._tool(trace.suite, step.tool)[1].flow
            found.append(session.judge(flow, step.args))
            session.observe(flow, step.args, step.output, f"step:{index}")
        return found

    def verdicts(self, trace: Trace, found: Iterable[CallLabels]) -> list[Verdict]:
        """What the policies say to each step."""
        grant = None if self.grants is None else self.grants.get(f"{trace.suite}/{trace.user}")
        judged = []
        for step, labels in zip(trace.steps, found, strict=True):
            name, tool = self._tool(trace.suite, step.tool)
            decision = self._decide(name, tool, step.args, labels, grant)
            judged.append(Verdict(step.tool, verdict_of(decision), decision, labels))
        return judged

    def full_name(self, suite: str, written: str) -> str:
        """The `server.tool` that a trace means."""
        return self._tool(suite, written)[0]

    def _tool(self, suite: str, written: str) -> tuple[str, ReplayTool]:
        """`suite.tool`; a name that says its server itself is taken as it is."""
        for name in (f"{suite}.{written}", written):
            if name in self.tools:
                return name, self.tools[name]
        return f"{suite}.{written}", self.servers.get(suite, ReplayTool())

    def _decide(
        self, name: str, tool: ReplayTool, args: Mapping[str, JsonValue], found: CallLabels, grant: Grant | None
    ) -> PolicyDecision:
        server = name.partition(".")[0]
        resource = Resource(
            "Tool",
            name,
            (
                ("server", server),
                ("verified", True),
                ("recovery", tool.recovery.value),
                ("risk", tool.flow.risk.value),
                ("effect", tool.flow.effect.value),
            ),
            (("ToolServer", server),),
        )
        try:
            schema = input_schema(tool.flow, args)
            policies = self._set(ToolType(name, schema))
            allowed = granted(grant, name, args)
            context = tool_context(schema, args, found.labels, found.label, (), found.facts, allowed)
            asked = {**context, "request": dict(NO_REQUEST)}
            request = PolicyRequest(self.agent, f"InvokeTool::{name}", resource, asked)
            return decide(policies, offline(policies.counters, request))
        except InputError as error:
            # As at the gate: what cannot be put to the engine does not happen.
            return Deny(error.message, (), self.policies.version, (error.message,))

    def _set(self, tool: ToolType) -> PolicySet:
        """The policies, validated against a catalogue in which the tool has the arguments of the call at hand."""
        key = (tool.name, json.dumps(tool.input_schema, sort_keys=True))
        if key not in self._sets:
            if len(self._sets) >= MAX_SETS:
                self._sets.clear()
            others = [one for one in self.policies.tools if one.name != tool.name]
            made = PolicySet.load(self.policies.sources, self.policies.compiled, [*others, tool])
            self._sets[key] = replace(made, version=self.policies.version)
        return self._sets[key]


def verdict_of(decision: PolicyDecision) -> str:
    """`approve` is an allowance that asks for a person."""
    match decision:
        case Deny():
            return "deny"
        case Allow():
            return "allow"
        case AllowWithConditions(conditions=conditions):
            asked = any(condition.kind is ConditionKind.APPROVAL for condition in conditions)
            return "approve" if asked else "allow"


def declared_types(tools: Mapping[str, ReplayTool]) -> list[ToolType]:
    """The catalogue that manifests make by themselves."""
    return [ToolType(name, input_schema(tool.flow, {})) for name, tool in sorted(tools.items())]


def input_schema(flow: ToolFlow, args: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    """The JSON Schema of a call's arguments: as declared, and else as the values are."""
    properties: dict[str, JsonValue] = {name: {"type": kind} for name, kind in flow.types.items()}
    for name, value in args.items():
        if is_text(name) and flow.types.get(name, "array") in {"array", "object"}:
            properties[name] = _schema_of(value, 0)
    return {"type": "object", "properties": properties}


def _schema_of(value: JsonValue, depth: int) -> JsonValue:
    """The type of a value; none where Cedar has none for it, so that the argument is opaque."""
    if value is None or depth > MAX_TYPED_DEPTH:
        return {}
    if isinstance(value, bool):
        return {"type": "boolean"}
    if isinstance(value, str):
        return {"type": "string"} if is_text(value) else {}
    if isinstance(value, int | float):
        return _schema_of_number(value)
    if isinstance(value, Mapping):
        return {
            "type": "object",
            "properties": {name: _schema_of(item, depth + 1) for name, item in value.items() if is_text(name)},
        }
    assert isinstance(value, Sequence)
    items = {json.dumps(_schema_of(item, depth + 1), sort_keys=True) for item in value}
    if not items:
        return {"type": "array", "items": {"type": "string"}}
    return {"type": "array", "items": json.loads(items.pop())} if len(items) == 1 else {}


def _schema_of_number(value: float) -> JsonValue:
    try:
        if isinstance(value, int):
            to_long(value, "")
            return {"type": "integer"}
        to_decimal(value, "")
    except InputError:
        return {}
    return {"type": "number"}
