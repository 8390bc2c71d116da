"""How risky it is to run something, and the tier that follows: pure.

The seed names five risk factors and one boundary. A score is the sum of five contributions, each from a table of
integers in ten-thousandths, so that scores are exact, bounded by [0, 1] and never fall when a factor rises:

| factor                  | value and contribution                                                     |
|-------------------------|----------------------------------------------------------------------------|
| `code_trust_level`      | trusted 0 · signed 0.10 · unsigned 0.25 · untrusted 0.50                   |
| `data_sensitivity`      | public 0 · internal 0.05 · confidential 0.12 · secret 0.20                 |
| `network_access`        | 0.10 if the work needs a network                                           |
| `file_system_access`    | 0.10 if it needs files                                                     |
| `external_integrations` | 0.10 if it talks to services outside                                       |

A score below 0.5 is tier 1 (containers), any other tier 2 (gVisor). The weights say: code that nobody vouches for
reaches tier 2 by itself, for containers suit trusted code; trusted code reaches it only with secrets and every kind of
access; an unsigned agent on internal data that uses files and a service, the ordinary one, reaches it too.

Each piece of code that an agent runs is scored by itself (`assess_code`): its label, which joins those of all that goes
into it, can make data more sensitive and code less trusted than the agent's file says, never the other way. The tier
that the agent was given is raised to the result (`raise_tier`), never lowered.

The interpreter stands outside this order: pure computation (no file, network or process) may run in it at any
score, and only that.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from symbi.errors import InputError
from symbi.types import Confidentiality, Integrity, JsonValue, Label, SecurityTier

WHOLE: Final = 10_000  # contributions are ten-thousandths; their maxima add up to this
TIER2_FROM: Final = 5_000  # the seed's boundary: a score of 0.5 is tier 2
NETWORK: Final = 1_000
FILES: Final = 1_000
INTEGRATIONS: Final = 1_000


class CodeTrust(StrEnum):
    """Who vouches for the code, the best vouched for first."""

    TRUSTED = "trusted"
    """The operator named it trusted."""
    SIGNED = "signed"
    """A signature by a pinned key holds."""
    UNSIGNED = "unsigned"
    """It came from the operator's own files, and nobody signed it."""
    UNTRUSTED = "untrusted"
    """A model or a stranger wrote it, or it depends on what they wrote."""


class Needs(StrEnum):
    """What work needs in order to run."""

    PURE = "pure"
    """Computation on its inputs alone: no file, no network, no process."""
    SYSTEM = "system"
    """Anything beyond that."""


SENSITIVITY: Final[Mapping[Confidentiality, int]] = MappingProxyType(
    {
        Confidentiality.PUBLIC: 0,
        Confidentiality.INTERNAL: 500,
        Confidentiality.CONFIDENTIAL: 1_200,
        Confidentiality.SECRET: 2_000,
    }
)
TRUST: Final[Mapping[CodeTrust, int]] = MappingProxyType(
    {
        CodeTrust.TRUSTED: 0,
        CodeTrust.SIGNED: 1_000,
        CodeTrust.UNSIGNED: 2_500,
        CodeTrust.UNTRUSTED: 5_000,
    }
)
STRENGTH: Final[Mapping[SecurityTier, int]] = MappingProxyType({SecurityTier.TIER1: 1, SecurityTier.TIER2: 2})
"""The order of tiers; the interpreter is not in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskProfile:
    """What is known of the work; nothing has a default, so nothing is taken for harmless unseen.

    Attributes:
        data_sensitivity: The most confidential of its inputs.
        code_trust: Who vouches for its code.
        requires_network: It needs a network.
        requires_filesystem: It needs files.
        external_apis: Services outside that it talks to.
    """

    data_sensitivity: Confidentiality
    code_trust: CodeTrust
    requires_network: bool
    requires_filesystem: bool
    external_apis: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskFactors:
    """What each of the seed's factors contributes to the score, in ten-thousandths."""

    data_sensitivity: int
    code_trust_level: int
    network_access: int
    file_system_access: int
    external_integrations: int

    @property
    def total(self) -> int:
        """Their sum, from 0 to `WHOLE`."""
        return (
            self.data_sensitivity
            + self.code_trust_level
            + self.network_access
            + self.file_system_access
            + self.external_integrations
        )

    def texts(self) -> tuple[tuple[str, str], ...]:
        """Each factor as a decimal text, e.g. `0.2500`."""
        return tuple((field.name, f"{getattr(self, field.name) / WHOLE:.4f}") for field in fields(self))


@dataclass(frozen=True, slots=True)
class RiskAssessment:
    """A score and how it came about.

    Attributes:
        score: From 0 to 1, with four decimals.
        factors: What went into it.
        tier: `TIER1` or `TIER2`.
    """

    score: float
    factors: RiskFactors
    tier: SecurityTier

    def facts(self) -> Mapping[str, JsonValue]:
        """Score, factors and tier for the ledger; decimal texts, for canonical JSON has no floats."""
        return {"score": f"{self.score:.4f}", "factors": dict(self.factors.texts()), "tier": self.tier.value}


UNREMARKABLE: Final = RiskProfile(
    data_sensitivity=Confidentiality.INTERNAL,
    code_trust=CodeTrust.UNSIGNED,
    requires_network=False,
    requires_filesystem=False,
    external_apis=(),
)
"""An agent of the operator's own files that computes."""


def assess_security_tier(profile: RiskProfile) -> RiskAssessment:
    """Score a piece of work by the seed's five factors and give it a tier."""
    factors = RiskFactors(
        data_sensitivity=SENSITIVITY[profile.data_sensitivity],
        code_trust_level=TRUST[profile.code_trust],
        network_access=NETWORK if profile.requires_network else 0,
        file_system_access=FILES if profile.requires_filesystem else 0,
        external_integrations=INTEGRATIONS if profile.external_apis else 0,
    )
    tier = SecurityTier.TIER1 if factors.total < TIER2_FROM else SecurityTier.TIER2
    return RiskAssessment(round(factors.total / WHOLE, 4), factors, tier)


def assess_code(agent: RiskProfile, label: Label) -> RiskAssessment:
    """Score one piece of code that an agent runs.

    Args:
        agent: What its file says of it.
        label: The join of the labels of the code and of all that it is given. Where any of it is untrusted, strangers
            have a say in what the code does.
    """
    untrusted = label.integrity is Integrity.UNTRUSTED
    sensitivity = max(agent.data_sensitivity, label.confidentiality, key=SENSITIVITY.__getitem__)
    trust = CodeTrust.UNTRUSTED if untrusted else agent.code_trust
    return assess_security_tier(replace(agent, data_sensitivity=sensitivity, code_trust=trust))


def raise_tier(given: SecurityTier, assessment: RiskAssessment) -> SecurityTier:
    """The tier of one piece of code, where its agent was given one: the stronger of both; the interpreter stays it."""
    return given if given is SecurityTier.INTERPRETER else _stronger(given, assessment.tier)


def choose_tier(
    assessment: RiskAssessment,
    *,
    needs: Needs,
    requested: SecurityTier | None = None,
    floor: SecurityTier = SecurityTier.TIER1,
) -> SecurityTier:
    """The tier that work runs in: what it asks for if that is enough, else an error; never less.

    Args:
        assessment: Its risk.
        needs: What it needs in order to run.
        requested: The tier that its author asks for; None leaves it to us.
        floor: The least tier for anything but pure computation, as the operator configured.

    Returns:
        The interpreter for pure computation that asks for it or for nothing, at any score; otherwise a tier that is
        at least the assessed one and the floor.

    Raises:
        InputError: The floor is no tier of the order; the request is below what is needed; or the interpreter is
            asked to do more than compute.
    """
    if floor not in STRENGTH:
        msg = f"`{floor}` cannot be the least tier"
        raise InputError(msg, code="sandbox.floor", hint="it runs pure computation only; use `docker` or `gvisor`")
    if needs is Needs.PURE and requested in {None, SecurityTier.INTERPRETER}:
        return SecurityTier.INTERPRETER
    if requested is SecurityTier.INTERPRETER:
        msg = "`interpreter` runs pure computation only, and this work needs files, a network or a process"
        raise InputError(msg, code="sandbox.downgrade", hint=f"use `{_stronger(assessment.tier, floor)}`")
    least = _stronger(assessment.tier, floor)
    if requested is None or requested is least:
        return least
    if STRENGTH[requested] < STRENGTH[least]:
        why = f"a risk of {assessment.score:.4f}" if least is assessment.tier else "the configured least tier"
        msg = f"`{requested}` is weaker than `{least}`, which {why} asks for"
        raise InputError(msg, code="sandbox.downgrade", hint=f"use `{least}`")
    return requested


def _stronger(one: SecurityTier, other: SecurityTier) -> SecurityTier:
    return one if STRENGTH[one] >= STRENGTH[other] else other
