"""Symbi: a reference monitor with an agent runtime built on top of it.

The public names are loaded when they are first used, so that `import symbi` costs nothing; type checkers read
them in `__init__.pyi`.
"""

from importlib import import_module
from typing import Final

__version__ = "0.1.0"

__all__ = [
    "AgentScheduler",
    "AuditEvent",
    "Guard",
    "Permit",
    "PolicyDecision",
    "PolicyEngine",
    "Principal",
    "ResourceLimits",
    "Runtime",
    "SecureMessage",
    "SecurityTier",
    "Settings",
    "SymbiError",
    "ToolVerifier",
    "VectorConfig",
    "__version__",
    "assess_security_tier",
    "compile_agents",
    "load_settings",
    "open_runtime",
    "verify_trail",
]

_HOMES: Final = {
    "AgentScheduler": "symbi.runtime.agent_scheduler",
    "AuditEvent": "symbi.audit.event",
    "Guard": "symbi.guard.gate",
    "Permit": "symbi.guard.permit",
    "PolicyDecision": "symbi.policy.decision",
    "PolicyEngine": "symbi.policy.engine",
    "Principal": "symbi.types",
    "ResourceLimits": "symbi.types",
    "Runtime": "symbi.runtime.runtime",
    "SecureMessage": "symbi.bus.secure",
    "SecurityTier": "symbi.types",
    "Settings": "symbi.config",
    "SymbiError": "symbi.errors",
    "ToolVerifier": "symbi.tools.verifier",
    "VectorConfig": "symbi.knowledge.config",
    "assess_security_tier": "symbi.sandbox.tier",
    "compile_agents": "symbi.wiring",
    "load_settings": "symbi.config",
    "open_runtime": "symbi.wiring",
    "verify_trail": "symbi.audit.verify",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        msg = f"module `symbi` has no attribute `{name}`"
        raise AttributeError(msg)
    return getattr(import_module(_HOMES[name]), name)
