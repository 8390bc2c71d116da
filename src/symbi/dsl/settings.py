"""The attributes of a `with` block: where code runs and how much an agent may use."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from symbi.dsl import ast
from symbi.dsl.findings import Findings
from symbi.errors import did_you_mean
from symbi.types import ResourceLimits, SecurityTier

SANDBOXES: Final[Mapping[str, SecurityTier]] = MappingProxyType(
    {
        "docker": SecurityTier.TIER1,
        "tier1": SecurityTier.TIER1,
        "gvisor": SecurityTier.TIER2,
        "tier2": SecurityTier.TIER2,
        "interpreter": SecurityTier.INTERPRETER,
    }
)
"""Sandbox values in lower case; any case is read."""

LATER_SANDBOXES: Final = ("firecracker", "tier3", "e2b")
"""Sandbox values of the language that have no driver."""

LATER_ATTRIBUTES: Final = ("privacy", "security", "requires", "communication", "model")
"""Attributes of the language that nothing enforces yet: refused, for an ignored limit is worse than none."""

ASSUMED: Final = frozenset({"memory_mb", "cpu_cores"})
"""Limits of which a file that says nothing claims nothing for its code: there the operator's bound holds alone."""

LONG_TIMEOUT_S: Final = 3600  # the linter asks whether a longer wait is meant
MAX_TIMEOUT_S: Final = 31_536_000  # a year bounds what still makes sense as a deadline of one task
MAX_MEMORY_MIB: Final = 1_048_576  # a tebibyte bounds what still makes sense for one agent
MIN_CPU_CORES: Final = 0.001  # a milli-core is the unit that the pool counts in: less would be none
MAX_CPU_CORES: Final = 1024  # bounds what still makes sense for one agent
MAX_NETWORK_MIBITPS: Final = 100_000  # likewise

_DURATION = re.compile(r"([0-9][0-9_]*)\.?(" + "|".join(sorted(ast.DURATION_S, key=len, reverse=True)) + ")")
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) *([kmgKMG]?)i?[bB]?")
_MIB_PER_UNIT = {"k": 1 / 1024, "m": 1.0, "g": 1024.0, "": 1 / 1_048_576}


@dataclass(frozen=True, slots=True)
class Settings:
    """What the attributes say; the defaults where they say nothing."""

    sandbox: SecurityTier | None = None
    limits: ResourceLimits = field(default_factory=ResourceLimits)
    assumed: frozenset[str] = ASSUMED


def read_settings(block: ast.With, findings: Findings) -> Settings:
    """Read all attributes; every one that is unknown, repeated, unusable or unenforced is an error."""
    settings = Settings()
    seen: set[str] = set()
    for entry in block.attributes:
        group = "memory" if entry.key == "max_memory_mb" else entry.key
        if group in seen:
            findings.error("duplicate", f"`{entry.key}` sets what was set before", entry.span, "keep one of them")
        seen.add(group)
        if entry.key in LATER_ATTRIBUTES:
            findings.later(entry.key, entry.span, "remove it: nothing would enforce it")
        elif entry.key in _READERS:
            settings = _READERS[entry.key](settings, entry, findings)
        else:
            known = (*_READERS, *LATER_ATTRIBUTES)
            hint = did_you_mean(entry.key, known) or f"known are {', '.join(f'`{key}`' for key in _READERS)}"
            findings.error("unknown_attribute", f"unknown attribute `{entry.key}`", entry.span, hint)
    return settings


def sandbox_tier(text: str) -> SecurityTier | None:
    """The tier that a sandbox value names, in any case; None where it names none that this release has."""
    return SANDBOXES.get(text.lower())


def seconds_of(value: ast.Expr) -> float | None:
    """The length that `30s`, `"30m"` or a bare number of seconds writes; None where it writes none."""
    match value:
        case ast.Duration():
            return value.seconds
        case ast.Number(value=number):
            return number
        case ast.String(value=text) if found := _DURATION.fullmatch(text.strip()):
            return int(found[1].replace("_", "")) * ast.DURATION_S[found[2]]
        case _:
            return None


def _sandbox(settings: Settings, entry: ast.Entry, findings: Findings) -> Settings:
    written = _word(entry.value)
    if written is not None and (tier := sandbox_tier(written)) is not None:
        return replace(settings, sandbox=tier)
    known = ", ".join(f"`{name}`" for name in SANDBOXES)
    if written is not None and written.lower() in LATER_SANDBOXES:
        findings.error(
            "not_available",
            f"the sandbox `{written}` is not available in this release",
            entry.value.span,
            f"use one of {known}",
        )
    else:
        shown = f"`{written}`" if written is not None else "this"
        hint = did_you_mean((written or "").lower(), SANDBOXES) or f"use one of {known}"
        findings.error("sandbox", f"{shown} is not a sandbox", entry.value.span, hint)
    return settings


def _timeout(settings: Settings, entry: ast.Entry, findings: Findings) -> Settings:
    seconds = seconds_of(entry.value)
    if seconds is None or not 0 < seconds <= MAX_TIMEOUT_S:
        message = "`timeout` is a length of time greater than zero, and at most a year"
        findings.error("timeout", message, entry.value.span, 'write `30s`, `"30m"` or a number of seconds')
        return settings
    if seconds > LONG_TIMEOUT_S:
        message = f"a timeout of {seconds:g} seconds is longer than an hour"
        findings.warning("long_timeout", message, entry.value.span, "a bare number counts seconds")
    return replace(settings, limits=replace(settings.limits, execution_timeout=float(seconds)))


def _memory(settings: Settings, entry: ast.Entry, findings: Findings) -> Settings:
    mib = _mebibytes(entry.value)
    if mib is None or not 1 <= mib <= MAX_MEMORY_MIB or mib != int(mib):
        message = f"`{entry.key}` is a whole number of mebibytes from 1 to {MAX_MEMORY_MIB}"
        hint = "write a number such as `256`" if entry.key == "max_memory_mb" else 'write `"256MB"`, `"1GB"` or `256`'
        findings.error("memory", message, entry.value.span, hint)
        return settings
    return _claimed(settings, "memory_mb", replace(settings.limits, memory_mb=int(mib)))


def _max_memory_mb(settings: Settings, entry: ast.Entry, findings: Findings) -> Settings:
    if isinstance(entry.value, ast.Number):
        return _memory(settings, entry, findings)
    message = "`max_memory_mb` is a number of mebibytes"
    findings.error("memory", message, entry.value.span, 'write `256`, or `memory = "256MB"`')
    return settings


def _max_cpu_cores(settings: Settings, entry: ast.Entry, findings: Findings) -> Settings:
    value = entry.value
    if not isinstance(value, ast.Number) or not MIN_CPU_CORES <= value.value <= MAX_CPU_CORES:
        message = f"`max_cpu_cores` is a number from {MIN_CPU_CORES} to {MAX_CPU_CORES}"
        findings.error("cpu", message, value.span, "write a number such as `0.5`")
        return settings
    return _claimed(settings, "cpu_cores", replace(settings.limits, cpu_cores=float(value.value)))


def _max_network_mbps(settings: Settings, entry: ast.Entry, findings: Findings) -> Settings:
    value = entry.value
    if (
        not isinstance(value, ast.Number)
        or not 1 <= value.value <= MAX_NETWORK_MIBITPS
        or value.value != int(value.value)
    ):
        message = f"`max_network_mbps` is a whole number of mebibits a second from 1 to {MAX_NETWORK_MIBITPS}"
        findings.error("network", message, value.span, "write a number such as `8`")
        return settings
    return replace(settings, limits=replace(settings.limits, network_io_mbps=int(value.value)))


def _claimed(settings: Settings, name: str, limits: ResourceLimits) -> Settings:
    return replace(settings, limits=limits, assumed=settings.assumed - {name})


_READERS: Final[Mapping[str, Callable[[Settings, ast.Entry, Findings], Settings]]] = MappingProxyType(
    {
        "sandbox": _sandbox,
        "timeout": _timeout,
        "memory": _memory,
        "max_memory_mb": _max_memory_mb,
        "max_cpu_cores": _max_cpu_cores,
        "max_network_mbps": _max_network_mbps,
    }
)


def _word(value: ast.Expr) -> str | None:
    match value:
        case ast.String(value=text):
            return text
        case ast.Name(id=name):
            return name
        case _:
            return None


def _mebibytes(value: ast.Expr) -> float | None:
    match value:
        case ast.Number(value=number):
            return number
        case ast.String(value=text) if found := _SIZE.fullmatch(text.strip()):
            return float(found[1]) * _MIB_PER_UNIT[found[2].lower()]
        case _:
            return None
