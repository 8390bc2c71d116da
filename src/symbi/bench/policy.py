"""POL-5: decisions over sets of policies, of which some concern everybody and the others one agent each."""

import json
from collections.abc import Sequence
from time import perf_counter_ns
from typing import Final

import cedarpy

from symbi.bench.measure import Measurement, Scale, Target, latency, rate, sample
from symbi.errors import InternalError
from symbi.guard.action import InvokeTool, ToolRef
from symbi.policy.catalog import ToolType
from symbi.policy.decision import Allow, PolicyDecision, PolicyRequest
from symbi.policy.engine import PolicyEngine, PolicySet, PolicySource, decide_whole
from symbi.types import AgentId, JsonValue, Principal, ToolName

SIZES: Final = (10, 100, 1_000, 10_000)
MIXES: Final = (10, 0, 100)  # policies that are looked at for every agent; the first is the one of the target

_BATCH: Final = 100  # requests in one call of Cedar
_REMEMBERED: Final = 1_000  # different requests that are asked again and again
_TOOL: Final = "files.read"
_SCHEMA: Final[dict[str, JsonValue]] = {
    "type": "object",
    "properties": {"path": {"type": "string"}, "lines": {"type": "integer"}},
    "required": ["path"],
}
_METHOD: Final = (
    "one core, nothing remembered: fresh entities and context in each request, which is made before it is timed; every"
    " policy but the unscoped ones is for one agent; every request is allowed by one policy (where a rate is missed: a"
    " decision is two evaluations by Cedar of some 25 us each, about 15 us in which the principal is read, and the rest in"
    " Python; each unscoped policy adds about 1 us)"
)
_FIRST: Final = f"{_METHOD}; as long as there are more agents than requests, each asks for the first time"
_AGAIN: Final = f"{_METHOD}; each agent has asked before, so its own policies are parsed"
_SAME: Final = f"one core; {_REMEMBERED} different requests that were decided before, in turn, each made anew"
_WHOLE: Final = f"{_METHOD}; all policies are given to Cedar, as the reference that slices are tested against"
_IN_BATCH: Final = (
    f"one core, one call of Cedar for {_BATCH} contexts with one principal, resource and slice, divided by {_BATCH};"
    " beside it the same, called one by one; Cedar parses each context anew, so a batch saves little, and Symbi has none"
)


async def policy(scale: Scale) -> list[Measurement]:
    """Latency and decisions a second at each size, of fresh, known and remembered requests."""
    rows = []
    for size in scale.sizes(*SIZES):
        for unscoped in MIXES:
            if unscoped < size:
                rows += _measure(scale, size, unscoped)
    return rows


def _measure(scale: Scale, size: int, unscoped: int) -> list[Measurement]:
    begun = perf_counter_ns()
    policies = policy_set(size, unscoped)
    loading = [perf_counter_ns() - begun]
    engine = PolicyEngine(policies, remembers=False)
    agents = size - unscoped
    count = scale.of(4_000, least=20)
    name = f"{size:,} policies, {unscoped or 'none'} unscoped"
    whose = "ours" if (size, unscoped) == (max(SIZES), MIXES[0]) else "seed"
    soon = Target(0.2 if whose == "ours" else 1.0, at_least=False, note=whose)
    often = Target(10_000, at_least=True, note=whose)

    requests = [request(number, agents) for number in range(2 * count)]
    sample(lambda number: engine.decide(requests[-1 - number]), min(count // 2, 50))  # warms up, with what comes last
    first = sample(lambda number: _allowed(engine.decide(requests[number])), count)
    again = sample(lambda number: _allowed(engine.decide(requests[count + number])), count)
    rows = [
        latency("POL-5", f"decision, {name}", first, unit="ms", target=soon, method=_FIRST),
        latency("POL-5", f"decision, {name}, seen before", again, unit="ms", target=soon, method=_AGAIN),
        _rate(f"decisions a second, {name}", first, often, _FIRST),
        _rate(f"decisions a second, {name}, seen before", again, often, _AGAIN),
    ]
    if unscoped == MIXES[0]:
        rows.append(_remembered(policies, name, agents, count, whose))
        few = scale.of(20, least=3)
        whole = sample(lambda number: _allowed(decide_whole(policies, requests[number])), few, warm=1)
        rows.append(latency("POL-5", f"whole set, {name}", whole, unit="ms", target=None, method=_WHOLE))
        rows += _batched(policies, name, request(0, agents), scale.of(100, least=3))
        loads = "one core; text to parsed and validated set"
        rows.append(latency("POL-5", f"loading {name}", loading, unit="s", judged="p50", target=None, method=loads))
    return rows


def _remembered(policies: PolicySet, name: str, agents: int, count: int, whose: str) -> Measurement:
    engine = PolicyEngine(policies)
    distinct = min(_REMEMBERED, count)
    for number in range(distinct):
        engine.decide(request(number, agents))
    again = [request(number % distinct, agents) for number in range(count)]
    begun = perf_counter_ns()
    for each in again:
        engine.decide(each)
    elapsed_ns = perf_counter_ns() - begun
    target = Target(200_000, at_least=True, note=whose) if whose == "ours" else None
    metric = f"decisions a second, {name}, remembered"
    return rate("POL-5", metric, count, elapsed_ns, unit="decisions/s", target=target, method=_SAME)


def _batched(policies: PolicySet, name: str, asked: PolicyRequest, count: int) -> list[Measurement]:
    """What Cedar's batches would save."""
    part = policies.slices.of(asked)[0]
    entities = cedarpy.Entities.from_json_str("[]", policies.cedar_schema)
    uids = {
        "principal": ("Agent", asked.principal.agent),
        "action": ("Action", asked.action),
        "resource": ("Tool", _TOOL),
    }
    question = {role: {"type": type_, "id": id_} for role, (type_, id_) in uids.items()}
    question["context"] = json.dumps(asked.context)  # type: ignore[assignment]  # text is what the library takes

    def batch(_: int) -> None:
        cedarpy.is_authorized_batch([question] * _BATCH, part.cedar, entities, policies.cedar_schema)

    def single(_: int) -> None:
        for _ in range(_BATCH):
            cedarpy.is_authorized(question, part.cedar, entities, policies.cedar_schema)

    rows = []
    for how, operation in (("in a batch", batch), ("one by one", single)):
        samples = [duration // _BATCH for duration in sample(operation, count, warm=1)]
        metric = f"evaluation {how}, {name}"
        rows.append(latency("POL-5", metric, samples, unit="ms", judged="p50", target=None, method=_IN_BATCH))
    return rows


def policy_set(size: int, unscoped: int) -> PolicySet:
    """A set of `size` policies beside the built-in ones."""
    texts = [
        f'@id("all-{i}") forbid (principal, action, resource) when {{ principal.owner == "nobody-{i}" }};'
        for i in range(unscoped)
    ]
    texts += [
        f'@id("agent-{i}") permit (principal == Agent::"agent-{i}", action == Action::"InvokeTool::{_TOOL}", resource)'
        ' when { context.arguments.path like "logs/*" };'
        for i in range(size - unscoped)
    ]
    return PolicySet.load([PolicySource("bench.cedar", "\n".join(texts))], tools=[ToolType(_TOOL, _SCHEMA)])


def request(number: int, agents: int) -> PolicyRequest:
    """A request with a context and entities of its own, of one of some agents."""
    tool = ToolRef(ToolName(_TOOL), "files", "0" * 64, _SCHEMA, verified=True)
    principal = Principal(AgentId(f"agent-{number * 7 % agents}"), owner=f"owner-{number}", groups=("sre",))
    return InvokeTool(principal=principal, tool=tool, values={"path": f"logs/{number}.log", "lines": 50}).request()


def _rate(metric: str, samples: Sequence[int], target: Target, method: str) -> Measurement:
    return rate("POL-5", metric, len(samples), sum(samples), unit="decisions/s", target=target, method=method)


def _allowed(decision: PolicyDecision) -> None:
    if type(decision) is not Allow or len(decision.policies) != 1:
        msg = f"the measured request was not allowed by one policy: {decision}"
        raise InternalError(msg)
