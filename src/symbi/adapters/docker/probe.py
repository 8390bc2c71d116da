"""Whether a container is what its tier promises, by what the runner saw before there was any foreign code in it.

What is promised and cannot be seen from inside is not taken on trust in silence: `unseen` names it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from symbi.adapters.docker.container import MIB, RUNTIME_MIB, DockerOptions, pids_limit
from symbi.tools.text import printable
from symbi.types import JsonValue, SecurityTier

FILTERED: Final = "2"  # Seccomp in /proc/self/status: by a filter
NO_CAPABILITY: Final = 0
LOOPBACK: Final = frozenset({"lo"})
GVISOR_LOG: Final = "gVisor"  # the first line of the log that its kernel makes up
GVISOR_VERSION: Final = "#1 SMP Sun Jan 10 15:06:54 PST 2016"  # what its kernel says it is, in every release so far
UNREACHABLE: Final = frozenset({"ENETUNREACH", "ENETDOWN", "EHOSTUNREACH", "EACCES", "EPERM", "EADDRNOTAVAIL"})
WRITABLE: Final = frozenset({"/tmp"})  # noqa: S108 - inside the container
DEVICES: Final = frozenset(
    {"core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom", "zero"}
)  # fmt: skip
GVISOR_DEVICES: Final = frozenset({"fuse", "net"})  # of its own kernel, not the host's
TMP_FLAGS: Final = frozenset({"nosuid", "nodev", "noexec"})
GVISOR_TMP_FLAGS: Final = frozenset(
    {"noexec"}
)  # it has no devices to open there and no privileges to gain, and shows neither
MAX_SHOWN_CHARS: Final = 120

_CAPABILITIES: Final = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


@dataclass(frozen=True, slots=True)
class Isolation:
    """What a look from inside gave.

    Attributes:
        broken: What the tier promises and is not so, each with what was seen; empty where all is well.
        facts: What was seen, short, for the trail.
    """

    broken: tuple[str, ...]
    facts: Mapping[str, JsonValue]


def judge(
    seen: Mapping[str, Any], options: DockerOptions, tier: SecurityTier, memory_mib: int, binds: Sequence[str] = ()
) -> Isolation:
    """Compare what was seen with what was asked for."""
    unseen: list[str] = []
    broken = [
        *_identity(seen, options, tier),
        *_world(seen, tier, binds),
        *_limits(seen, options, tier, memory_mib, unseen),
    ]
    status = _mapping(seen.get("status"))
    facts: dict[str, JsonValue] = {
        "uid": next(iter(_numbers(seen.get("uid"))), -1),
        "capabilities": _text(status.get("CapEff", "unseen")),
        "no_new_privs": _text(status.get("NoNewPrivs", "unseen")),
        "seccomp": _text(status.get("Seccomp", "unseen")),
        "kernel": " ".join(_text(part) for part in _list(seen.get("kernel"))),
        "gvisor": _is_gvisor(seen),
        "interfaces": [_text(name) for name in _list(seen.get("interfaces"))[:8]],
        "outside": _text(seen.get("outside")),
        "writable": [_text(name) for name in _list(seen.get("writable"))[:8]],
        "pids_max": _text(seen.get("pids_max")) or "unseen",
        "memory_max": _text(seen.get("memory_max")) or "unseen",
        "python": _text(seen.get("python")),
        "unseen": sorted(unseen),
    }
    return Isolation(tuple(broken), facts)


def _is_gvisor(seen: Mapping[str, Any]) -> bool:
    """Whether the kernel is gVisor's: by its log, or where a filter keeps that from being read, by what it says it is."""
    kernel = " ".join(_text(part) for part in _list(seen.get("kernel")))
    return GVISOR_LOG in _text(seen.get("kernel_log"), 400) or GVISOR_VERSION in kernel


def _identity(seen: Mapping[str, Any], options: DockerOptions, tier: SecurityTier) -> Iterator[str]:
    """Who the code would be, and in which kernel."""
    user, _, group = options.user.partition(":")
    if _numbers(seen.get("uid")) != [int(user)] * 3 or _numbers(seen.get("gid")) != [int(group or user)] * 3:
        yield f"user {_numbers(seen.get('uid'))} and group {_numbers(seen.get('gid'))} are not `{options.user}`"
    if set(_numbers(seen.get("groups"))) - {int(group or user)}:
        yield f"it is in further groups: {_numbers(seen.get('groups'))}"
    status = _mapping(seen.get("status"))
    for name in _CAPABILITIES:
        held = _text(status.get(name, ""))
        if held and not _is_zero(held):
            yield f"{name} is {held}"
    if not status.get("CapEff"):
        yield "which capabilities it has cannot be seen"
    kernel = " ".join(_text(part) for part in _list(seen.get("kernel")))
    if tier is SecurityTier.TIER2:
        if not _is_gvisor(seen):
            yield f"its kernel is not gVisor's but `{kernel[:MAX_SHOWN_CHARS]}`"
        if seen.get("filtered") is not True:
            yield "no filter of system calls is in force: the engine's runsc has to be named with `--oci-seccomp`"
        return
    if status.get("Seccomp") != FILTERED:
        yield f"no filter of system calls is in force: Seccomp is `{_text(status.get('Seccomp', ''))}`"
    if status.get("NoNewPrivs") != "1":
        yield f"privileges could be gained: NoNewPrivs is `{_text(status.get('NoNewPrivs', ''))}`"


def _world(seen: Mapping[str, Any], tier: SecurityTier, binds: Sequence[str]) -> Iterator[str]:
    """What the code could reach."""
    further = {_text(name) for name in _list(seen.get("interfaces"))} - LOOPBACK
    if further:
        yield f"it has network interfaces: {', '.join(sorted(further))[:MAX_SHOWN_CHARS]}"
    met = _text(seen.get("outside"))
    if met not in UNREACHABLE:
        yield f"a connection out of it meets `{met or 'no error'}`"
    writable = {_text(name) for name in _list(seen.get("writable"))} - WRITABLE
    if writable:
        yield f"it can write in {', '.join(sorted(writable))}"
    devices = {_text(name) for name in _list(seen.get("devices"))} - DEVICES
    flags = TMP_FLAGS
    if tier is SecurityTier.TIER2:
        devices, flags = devices - GVISOR_DEVICES, GVISOR_TMP_FLAGS
    if devices:
        yield f"it has devices: {', '.join(sorted(devices))[:MAX_SHOWN_CHARS]}"
    granted = {one.split(":")[1] for one in binds}
    for mount in _list(seen.get("mounts")):
        fields = [_text(part) for part in _list(mount)]
        if len(fields) != 3:  # noqa: PLR2004 - where, kind, options
            continue
        where, kind, how = fields[0], fields[1], fields[2].split(",")
        if where == "/" and "ro" not in how:
            yield "its root is not mounted read-only"
        if where == "/tmp" and kind == "tmpfs" and not flags <= set(how):  # noqa: S108 - inside
            yield f"its folder `{where}` is mounted `{fields[2][:MAX_SHOWN_CHARS]}`"
        if where.endswith(("docker.sock", "containerd.sock")) and where not in granted:
            yield f"the engine's own socket is at `{where[:MAX_SHOWN_CHARS]}`"


def _limits(
    seen: Mapping[str, Any], options: DockerOptions, tier: SecurityTier, memory_mib: int, unseen: list[str]
) -> Iterator[str]:
    """How much of the machine it could take."""
    limits = _mapping(seen.get("limits"))
    for name, most in (("NOFILE", options.open_files), ("FSIZE", options.file_size_mib * MIB), ("CORE", 0)):
        found = _numbers(limits.get(name))
        if not found or any(not 0 <= value <= most for value in found):
            yield f"its limit {name} is {found}, not {most}"
    memory = (memory_mib + options.tmpfs_mib + RUNTIME_MIB[tier]) * MIB
    for name, most in (("pids_max", pids_limit(options, tier)), ("memory_max", memory), ("swap_max", memory)):
        text = _text(seen.get(name))
        if not text:
            unseen.append(name)  # gVisor shows no control groups; of the engine we have asked it all the same
        elif not text.isdigit() or int(text) > most:
            yield f"its {name} is `{text[:MAX_SHOWN_CHARS]}`, not {most}"


def _is_zero(text: str) -> bool:
    try:
        return int(text, 16) == NO_CAPABILITY
    except ValueError:
        return False


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _numbers(value: object) -> list[int]:
    return [one for one in _list(value) if isinstance(one, int)]


def _text(value: object, most: int = MAX_SHOWN_CHARS) -> str:
    return printable(value[:most]) if isinstance(value, str) else ""
