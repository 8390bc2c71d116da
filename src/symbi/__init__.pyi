# The public names for type checkers; `__init__.py` loads them when they are first used.

from symbi.audit.event import AuditEvent as AuditEvent
from symbi.audit.verify import verify_trail as verify_trail
from symbi.bus.secure import SecureMessage as SecureMessage
from symbi.config import Settings as Settings
from symbi.config import load_settings as load_settings
from symbi.errors import SymbiError as SymbiError
from symbi.guard.gate import Guard as Guard
from symbi.guard.permit import Permit as Permit
from symbi.knowledge.config import VectorConfig as VectorConfig
from symbi.policy.decision import PolicyDecision as PolicyDecision
from symbi.policy.engine import PolicyEngine as PolicyEngine
from symbi.runtime.agent_scheduler import AgentScheduler as AgentScheduler
from symbi.runtime.runtime import Runtime as Runtime
from symbi.sandbox.tier import assess_security_tier as assess_security_tier
from symbi.tools.verifier import ToolVerifier as ToolVerifier
from symbi.types import Principal as Principal
from symbi.types import ResourceLimits as ResourceLimits
from symbi.types import SecurityTier as SecurityTier
from symbi.wiring import compile_agents as compile_agents
from symbi.wiring import open_runtime as open_runtime

__version__: str
