"""The sandboxes of this machine by tier: there is one of the asked tier, or there is an error."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

from symbi.errors import InternalError, SandboxUnavailable
from symbi.sandbox.port import CommandSandbox, SandboxDriver
from symbi.types import SecurityTier

WHAT_TO_INSTALL: Final[Mapping[SecurityTier, str]] = MappingProxyType(
    {
        SecurityTier.INTERPRETER: "install `pydantic-monty`",
        SecurityTier.TIER1: "install `docker.io`, or another Docker Engine, start it, and name an image in `sandbox.image`; `symbi sandbox image` makes one",
        SecurityTier.TIER2: "install `runsc` (gVisor) and `docker.io`, name `runsc` a runtime of the engine, and name an image in `sandbox.image`",
    }
)

WHAT_RUNS_PROGRAMS: Final[Mapping[SecurityTier, str]] = MappingProxyType(
    {
        **WHAT_TO_INSTALL,
        SecurityTier.INTERPRETER: "`run(…)` needs a container: write `with sandbox = docker`, or `gvisor`",
    }
)

Drivers: TypeAlias = dict[SecurityTier, SandboxDriver]
Commands: TypeAlias = dict[SecurityTier, CommandSandbox]


class Sandboxes:
    """Running drivers by the tier that they provide.

    Args:
        drivers: One driver for each tier; who made them starts and stops them.
        commands: Those that run programs, likewise; the interpreter has none.

    Raises:
        InternalError: A driver stands under a tier that it does not provide.
    """

    def __init__(
        self,
        drivers: Mapping[SecurityTier, SandboxDriver],
        commands: Mapping[SecurityTier, CommandSandbox] | None = None,
    ) -> None:
        for tier, driver in drivers.items():
            if driver.tier is not tier:
                msg = f"a driver of tier `{driver.tier}` stands under tier `{tier}`"
                raise InternalError(msg)
        self._drivers = dict(drivers)
        self._commands = dict(commands or {})

    @property
    def tiers(self) -> frozenset[SecurityTier]:
        """The tiers that this machine has."""
        return frozenset(self._drivers)

    def driver_for(self, tier: SecurityTier) -> SandboxDriver:
        """The driver of exactly this tier.

        Raises:
            SandboxUnavailable: There is none; no other tier stands in for it.
        """
        driver = self._drivers.get(tier)
        if driver is None:
            msg = f"sandbox tier `{tier}` is not available here"
            raise SandboxUnavailable(msg, code="unavailable.tier", hint=WHAT_TO_INSTALL[tier], tier=tier.value)
        return driver

    def commands_for(self, tier: SecurityTier) -> CommandSandbox:
        """What runs programs in exactly this tier.

        Raises:
            SandboxUnavailable: Nothing does; the interpreter runs none, and no other tier stands in for one.
        """
        commands = self._commands.get(tier)
        if commands is None:
            msg = f"sandbox tier `{tier}` runs no programs here"
            raise SandboxUnavailable(msg, code="unavailable.tier", hint=WHAT_RUNS_PROGRAMS[tier], tier=tier.value)
        return commands
