"""What an agent's file says of its risk, and where its code is to run."""

from collections.abc import Sequence
from dataclasses import replace

from symbi.dsl.spec import AgentSpec
from symbi.sandbox.tier import (
    UNREMARKABLE,
    Needs,
    RiskAssessment,
    RiskProfile,
    assess_security_tier,
    choose_tier,
)
from symbi.types import SecurityTier


def assess_agent(
    spec: AgentSpec, servers: Sequence[str], least_tier: SecurityTier
) -> tuple[RiskAssessment, SecurityTier]:
    """Score and tier of what an agent runs by itself; tools run where their servers run.

    Args:
        spec: The agent.
        servers: The tool servers there are.
        least_tier: The least tier for anything but pure computation.

    Raises:
        InputError: The file asks for less than is needed, or for what there is not.
    """
    assessment = assess_security_tier(profile_of(spec, servers))
    return assessment, choose_tier(assessment, needs=Needs.PURE, requested=spec.sandbox, floor=least_tier)


def profile_of(spec: AgentSpec, servers: Sequence[str]) -> RiskProfile:
    """What is known of an agent before it has seen any data.

    Args:
        spec: The agent.
        servers: The tool servers there are.
    """
    return replace(
        UNREMARKABLE,
        requires_filesystem=any(p.type.name == "Path" for p in spec.parameters),
        external_apis=servers_of(spec, servers),
    )


def servers_of(spec: AgentSpec, servers: Sequence[str]) -> tuple[str, ...]:
    """Servers that the agent's capabilities name; all of them where it sets no bound."""
    if spec.capabilities is None:
        return tuple(servers)
    named = {capability.partition(".")[0] for capability in spec.capabilities if "." in capability}
    return tuple(server for server in servers if server in named)
