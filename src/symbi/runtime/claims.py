"""What an agent's claim means for the code that it runs: pure."""

from dataclasses import fields
from typing import Final

from symbi.agent.containers import CodeLimits
from symbi.dsl.spec import AgentSpec
from symbi.errors import InputError
from symbi.runtime.resources import amount_of
from symbi.runtime.rooms import RuntimeConfig
from symbi.sandbox.tier import RiskProfile
from symbi.types import ResourceLimits, SecurityTier

_DEFAULT: Final = ResourceLimits()


def code_limits(spec: AgentSpec, tier: SecurityTier, profile: RiskProfile, told: RuntimeConfig) -> CodeLimits:
    """Bounds of one piece of code: the least of what the agent claims and what the operator lets any have.

    A claim that its file does not make is none: 0.1 cores are what an agent that says nothing takes from the pool, not
    what its code is slowed down to. Where policies have lowered it, it is one. A claim of a network bounds what is granted
    to its programs; the operator's bound is the proxy's own.

    Args:
        spec: The agent, with the limits that policies have left it.
        tier: Where its code runs, at least.
        profile: What is known of its risk.
        told: The operator's bounds.
    """
    memory_mib, cpu_milli = told.code_memory_mib, told.code_cpu_milli
    claim = amount_of(spec.limits)
    if _is_claimed(spec, "memory_mb"):
        memory_mib = min(memory_mib, claim.memory_mib)
    if _is_claimed(spec, "cpu_cores"):
        cpu_milli = min(cpu_milli, claim.cpu_milli)
    return CodeLimits(tier, memory_mib, cpu_milli, told.code_timeout_s, profile, claim.network_mibitps)


def refuse_unenforceable(limits: ResourceLimits) -> None:
    """Refuse a claim that nothing here would hold anybody to: it would be on record and mean nothing.

    Raises:
        InputError: It claims bandwidth of a disk.
    """
    if limits.disk_io_mbps:
        msg = f"a claim of {limits.disk_io_mbps} MiB/s of disk cannot be enforced here"
        hint = "set `disk_io_mbps` to 0: sandboxes write to memory only, and reading is not bounded"
        raise InputError(msg, code="limits.disk", hint=hint)


def _is_claimed(spec: AgentSpec, name: str) -> bool:
    assert name in {field.name for field in fields(ResourceLimits)}
    return name not in spec.assumed or getattr(spec.limits, name) < getattr(_DEFAULT, name)
