"""Conditions of a permit, carried out on the action before it happens.

| condition | on | elsewhere |
|---|---|---|
| redact, cap | tools: every argument; code and programs: `inputs`; messages: `body`; the log: `message`; models: `prompt`, `maxTokens`; data: `content`, `query`, `maxItems`; settings of an agent: every one; resources: caps alone | denied |
| tier | creation of an agent, code, programs | denied |
| timeout | tools, code, programs, models, resources | denied |
| rate, lease, mark, record, output, log, tags, retain | every action | |

What a lease stands for is many effects with arguments of their own, so a redaction or a cap denies it; and so it does
where a message is sealed before it is decided on.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from symbi.errors import PermitRefused, PolicyDenied
from symbi.guard.action import (
    Action,
    AllocateResources,
    CallModel,
    Canary,
    ConfigureAgent,
    CreateAgent,
    ExecuteCode,
    InvokeTool,
    PublishMessage,
    RunContainer,
    SendMessage,
    ServerQuestion,
)
from symbi.guard.spending import FIELDS, MOST, Budget
from symbi.policy.decision import AllowWithConditions, Deny, PolicyDecision
from symbi.policy.flow import join
from symbi.policy.obligations import ALTERABLE, NUMBERS, Obligations, combine
from symbi.telemetry import log_fields
from symbi.types import JsonValue, ResourceLimits

RENAMED: Final[Mapping[str, str]] = MappingProxyType({"maxTokens": "max_tokens", "maxItems": "max_items"})
"""Fields of actions that are not called as the argument that they stand for."""

ONE_BY_ONE: Final = "permit.one_by_one"
"""Code of the refusal of a lease where policy wants each effect decided by itself; nothing else is refused by it."""

_log = logging.getLogger("symbi.guard")


def effective_of(action: Action, decision: PolicyDecision, *, enforcing: bool) -> tuple[Action, Obligations]:
    """The action as it may happen, with what is left to obey.

    Raises:
        Denied: It may not happen; or, with the code `ONE_BY_ONE`, not by lease.
        InputError: Conditions cannot be carried out on it, or what they leave does not fit the tool.
    """
    if isinstance(decision, Deny):
        if enforcing or type(action) is Canary:
            raise PolicyDenied(
                decision.reason,
                policies=[ref.id for ref in decision.policies],
                at=[f"{ref.file}:{ref.line}" for ref in decision.policies],
            )
        policies = ",".join(ref.id for ref in decision.policies) or "none"
        _log.warning("NOT ENFORCED: a denial has no effect", extra=log_fields(action=action.kind, policies=policies))
    obligations = combine(decision.conditions if isinstance(decision, AllowWithConditions) else ())
    if action.leased:
        require_leasable(action, obligations)
    effective = carry_out(action, obligations)
    if isinstance(effective, InvokeTool) and effective.recheck is not None:
        effective.recheck(effective)
    return effective, obligations


def require_leasable(action: Action, obligations: Obligations) -> None:
    """Return if many effects like this one may be decided at once.

    Raises:
        PermitRefused: Policy wants each of them decided by itself; nothing was refused but the lease.
    """
    if obligations.each:
        msg = f"a policy wants each `{action.kind}` decided by itself, and not by lease"
        raise PermitRefused(msg, code=ONE_BY_ONE)


def carry_out(action: Action, obligations: Obligations) -> Action:
    """The effective action: redacted, capped, with the tier raised, the time shortened and what comes back marked.

    Raises:
        PolicyDenied: A condition cannot be carried out on this kind of action.
        InputError: A cap on something that is not a number.
    """
    if obligations.redact or obligations.caps:
        action = _altered(action, obligations)
    if obligations.tier is not None:
        action = _raised(action, obligations)
    if obligations.timeout_s is not None:
        action = _shortened(action, obligations)
    mark = join(action.mark, obligations.mark)
    return action if mark == action.mark else replace(action, mark=mark)


def _altered(action: Action, obligations: Obligations) -> Action:
    if action.leased:
        msg = f"a policy redacts or caps arguments, and a lease of `{action.kind}` covers effects with others"
        raise PolicyDenied(msg, code="policy.condition")
    if isinstance(action, SendMessage | PublishMessage) and action.size_bytes is not None:
        msg = "a policy redacts or caps arguments, and the body is sealed before it is decided on"
        raise PolicyDenied(msg, code="policy.condition")
    if isinstance(action, InvokeTool):
        return replace(action, values=obligations.apply_arguments(action.values))
    if isinstance(action, ConfigureAgent):
        return replace(action, changes=obligations.apply_arguments(action.changes))
    alterable = ALTERABLE.get(action.kind, frozenset())
    capped = {path.partition(".")[0] for path, _ in obligations.caps}
    redacted = {path.partition(".")[0] for path in obligations.redact}
    fixed = sorted((capped | redacted) - alterable) or sorted(redacted & NUMBERS)
    if fixed:
        msg = f"a policy redacts or caps `arguments.{fixed[0]}`, which cannot be changed so in `{action.kind}`"
        raise PolicyDenied(msg, code="policy.condition", hint=f"what can be is {_listed(alterable)}")
    whole = action.context() if isinstance(action, AllocateResources) else action.arguments()
    arguments = obligations.apply_arguments(whole)
    if isinstance(action, AllocateResources):
        limits = _limits(arguments)
        # 0 is no claim, and would free it of its bound
        if action.limits.network_io_mbps and not limits.network_io_mbps:
            msg = "a policy leaves the agent nothing of the network that it claims"
            raise PolicyDenied(msg, code="policy.condition", hint="cap `arguments.networkMibitps` at 1 or more")
        return replace(action, limits=limits, budget=_budget(arguments))
    changes: dict[str, Any] = {RENAMED.get(name, name): arguments[name] for name in capped | redacted}
    return replace(action, **changes)


def _limits(arguments: Mapping[str, JsonValue]) -> ResourceLimits:
    """Limits out of the integer units that policies see."""
    whole = {name: value for name, value in arguments.items() if isinstance(value, int)}
    return ResourceLimits(
        memory_mb=whole["memoryMib"],
        cpu_cores=whole["cpuMilli"] / 1000,
        disk_io_mbps=whole["diskMibps"],
        network_io_mbps=whole["networkMibitps"],
        execution_timeout=whole["timeoutMs"] / 1000,
    )


def _budget(arguments: Mapping[str, JsonValue]) -> Budget:
    """A budget out of the numbers that policies see."""
    whole = {kind: arguments[name] for kind, name in FIELDS.items()}
    return Budget(**{kind: most for kind, most in whole.items() if isinstance(most, int) and most < MOST})


def _raised(action: Action, obligations: Obligations) -> Action:
    match action:
        case ExecuteCode() | RunContainer():
            return replace(action, tier=obligations.raise_tier(action.tier))
        case CreateAgent():
            tier = obligations.raise_tier(action.tier)
            return replace(action, tier=tier, principal=replace(action.principal, tier=tier.value))
        case InvokeTool():
            msg = f"a policy asks for tier `{obligations.tier}`, and tool servers run outside the sandbox tiers"
            raise PolicyDenied(
                msg, code="policy.condition", hint="put @tier on permits for ExecuteCode or RunContainer"
            )
        case _:
            raise _cannot("a tier", action)


def _shortened(action: Action, obligations: Obligations) -> Action:
    match action:
        case InvokeTool() | ExecuteCode() | RunContainer() | CallModel() | ServerQuestion():
            return replace(action, timeout_s=obligations.limit_timeout(action.timeout_s))
        case AllocateResources(limits=limits):
            shorter = obligations.limit_timeout(limits.execution_timeout)
            return replace(action, limits=replace(limits, execution_timeout=shorter))
        case _:
            raise _cannot("a time-out", action)


def _cannot(what: str, action: Action) -> PolicyDenied:
    return PolicyDenied(f"a policy sets {what} that `{action.kind}` cannot obey", code="policy.condition")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`arguments.{name}`" for name in sorted(names)) or "nothing"
