"""POL-5: decisions over sets of policies, of which ten concern everybody and the others one agent each."""

from collections.abc import Callable
from typing import Final

from symbi.bench.measure import Measurement, Scale, Target, latency, rate, sample
from symbi.errors import InternalError
from symbi.guard.action import InvokeTool, ToolRef
from symbi.policy.catalog import ToolType
from symbi.policy.decision import Allow, PolicyRequest
from symbi.policy.engine import PolicyEngine, PolicySet, PolicySource
from symbi.types import AgentId, JsonValue, Principal, ToolName

UNSCOPED: Final = 10  # policies that are looked at for every agent
SIZES: Final = (10, 100, 1_000, 10_000)

_TOOL: Final = "files.read"
_SCHEMA: Final[dict[str, JsonValue]] = {
    "type": "object",
    "properties": {"path": {"type": "string"}, "lines": {"type": "integer"}},
    "required": ["path"],
}
_METHOD: Final = (
    "one core, the whole set evaluated each time, nothing cached: another agent, fresh entities and context in each"
    f" request; {UNSCOPED} policies without a scope, the others for one agent each; every request is allowed by one"
)


async def policy(scale: Scale) -> list[Measurement]:
    """Latency at each size, and decisions a second."""
    rows = []
    for size in scale.sizes(*SIZES):
        engine = PolicyEngine(policy_set(size))
        ask = _asker(engine, size)
        count = scale.of(max(200, 2_000_000 // (size + 1_000)), least=20)
        samples = sample(ask, count, warm=min(count, 50))
        whose = "ours" if size == max(SIZES) else "seed"
        target = Target(0.2 if whose == "ours" else 1.0, at_least=False, note=whose)
        rows.append(latency("POL-5", f"decision, {size:,} policies", samples, unit="ms", target=target, method=_METHOD))
        rows.append(
            rate(
                "POL-5",
                f"decisions a second, {size:,} policies",
                len(samples),
                sum(samples),
                unit="decisions/s",
                target=Target(10_000, at_least=True, note=whose),
                method=_METHOD,
            )
        )
    return rows


def policy_set(size: int) -> PolicySet:
    """A set of `size` policies beside the built-in ones."""
    unscoped = [
        f'@id("all-{i}") forbid (principal, action, resource) when {{ principal.owner == "nobody-{i}" }};'
        for i in range(UNSCOPED - 1)
    ]
    unscoped.append('@id("all-last") forbid (principal, action, resource) when { principal.trust == "untrusted" };')
    scoped = [
        f'@id("agent-{i}") permit (principal == Agent::"agent-{i}", action == Action::"InvokeTool::{_TOOL}", resource)'
        ' when { context.arguments.path like "logs/*" };'
        for i in range(max(1, size - UNSCOPED))
    ]
    text = "\n".join([*unscoped, *scoped][-size:] if size > UNSCOPED else [*unscoped[: size - 1], scoped[0]])
    return PolicySet.load([PolicySource("bench.cedar", text)], tools=[ToolType(_TOOL, _SCHEMA)])


def _asker(engine: PolicyEngine, size: int) -> Callable[[int], None]:
    agents = max(1, size - UNSCOPED)
    tool = ToolRef(ToolName(_TOOL), "files", "0" * 64, _SCHEMA, verified=True)

    def request(number: int) -> PolicyRequest:
        principal = Principal(AgentId(f"agent-{number * 7 % agents}"), owner=f"owner-{number}", groups=("sre",))
        return InvokeTool(principal=principal, tool=tool, values={"path": f"logs/{number}.log", "lines": 50}).request()

    def ask(number: int) -> None:
        decision = engine.decide(request(number))
        if type(decision) is not Allow or len(decision.policies) != 1:
            msg = f"the measured request was not allowed by one policy: {decision}"
            raise InternalError(msg)

    return ask
