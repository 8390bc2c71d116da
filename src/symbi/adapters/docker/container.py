"""What a container of ours is allowed: everything that is not here is refused."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Final

from symbi.types import SecurityTier

MIB: Final = 1_048_576
LABEL_INSTANCE: Final = "symbi.instance"
LABEL_RUN: Final = "symbi.run"
LABEL_EFFECT: Final = "symbi.effect"
LABEL_WARM: Final = "symbi.warm"  # made before there was a run for it
RUNTIME_MIB: Final[Mapping[SecurityTier, int]] = {SecurityTier.TIER1: 32, SecurityTier.TIER2: 96}
"""What a sandbox itself takes beside the code's memory: the first process, and gVisor's kernel."""
SENTRY_PIDS: Final = 1_024  # gVisor's own threads count as processes of the container; fewer kill its kernel
LEAST_CPUS: Final = 0.01  # the engine takes no less
INODES: Final = 4_096  # files and folders in /tmp
SHM_BYTES: Final = 16 * MIB
MASKED: Final = (
    # Docker's own, which a list of ours replaces
    "/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
    "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
    # what else tells of the host and its other work
    "/proc/bootconfig", "/proc/buddyinfo", "/proc/cmdline", "/proc/config.gz", "/proc/diskstats", "/proc/interrupts",
    "/proc/iomem", "/proc/ioports", "/proc/kallsyms", "/proc/key-users", "/proc/modules", "/proc/pagetypeinfo",
    "/proc/partitions", "/proc/pressure", "/proc/schedstat", "/proc/slabinfo", "/proc/softirqs", "/proc/swaps",
    "/proc/vmallocinfo", "/proc/zoneinfo", "/sys/block", "/sys/class/powercap", "/sys/devices/virtual/powercap",
)  # fmt: skip
"""Files and folders of the kernel that are empty in a container."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerOptions:
    """How containers of one tier are made.

    Attributes:
        image: Reference by digest, or id, of what `python(…)` runs in.
        runtime: Name of the engine's runtime: `runc`, `runsc`.
        instance: Whose they are: the label by which what is left of a crash is found.
        user: Numbers of the user and the group inside.
        pids: Processes and threads.
        cpus: Processor cores.
        tmpfs_mib: Size of /tmp, which counts as memory.
        open_files, file_size_mib: For each process.
        output_bytes: What the code may print.
        at_once: Containers of this tier that may run at a time; more wait.
        warm: Containers of this tier that are kept ready, each for one use; they come on top of `at_once`.
        warm_memory_mib: What the code in the first of them may have; later ones are like those asked for last.
        start_timeout_s: What a container may take until it says what it is like.
        python: The interpreter in the image.
        env: Names and values of the environment; nothing else is in it, the image's own search path aside.
        images: Those that `run(…)` may name.
        variables: Names of the environment that `run(…)` may set.
    """

    image: str
    runtime: str
    instance: str
    user: str = "65534:65534"
    pids: int = 64
    cpus: float = 1.0
    tmpfs_mib: int = 16
    open_files: int = 256
    file_size_mib: int = 16
    output_bytes: int = 65_536
    at_once: int = 8
    warm: int = 0
    warm_memory_mib: int = 64
    start_timeout_s: float = 30.0
    python: str = "python3"
    env: Mapping[str, str] = field(default_factory=dict)
    images: frozenset[str] = frozenset()
    variables: frozenset[str] = frozenset()


def cpus_for(options: DockerOptions, cpu_milli: int) -> float:
    """Cores of work that may have so many thousandths of one: no more than a container of the tier may."""
    return min(options.cpus, max(LEAST_CPUS, cpu_milli / 1_000))


def seccomp_profile(tier: SecurityTier) -> str:
    """The system calls that a container may make, as JSON for the engine.

    gVisor's kernel has no word for "not there" in a filter, and a `clone3` that is forbidden is the end of all threads
    where one that is not there is not. So it is asked itself: a release that has none says so, and one that has it makes
    the namespaces in its own kernel.
    """
    text = (files("symbi.adapters.docker") / "seccomp.json").read_text(encoding="utf-8")
    if tier is not SecurityTier.TIER2:
        return text
    profile = json.loads(text)
    for rule in profile["syscalls"]:
        if rule["names"] == ["clone3"]:
            rule["action"] = "SCMP_ACT_ALLOW"
            del rule["errnoRet"]
    return json.dumps(profile)


def container_spec(
    options: DockerOptions,
    tier: SecurityTier,
    command: Sequence[str],
    labels: Mapping[str, str],
    *,
    memory_mib: int,
    binds: Sequence[str] = (),
) -> dict[str, Any]:
    """A container for the engine's `create`.

    Args:
        options: How those of its tier are made.
        tier: Its tier.
        command: What runs in it.
        labels: By which it is found again.
        memory_mib: What the code may have.
        binds: Folders and sockets of the host that were granted, as `host:inside:ro`; none by default.
    """
    memory = (memory_mib + options.tmpfs_mib + RUNTIME_MIB[tier]) * MIB
    return {
        "Image": options.image,
        "Entrypoint": [],
        "Cmd": list(command),
        "User": options.user,
        "WorkingDir": "/tmp",  # noqa: S108 - inside the container
        "Hostname": "sandbox",
        "Env": [f"{name}={value}" for name, value in _environment(options).items()],
        "Labels": {LABEL_INSTANCE: options.instance, **labels},
        "OpenStdin": True,
        "StdinOnce": True,
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "Tty": False,
        "NetworkDisabled": True,
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            "Runtime": options.runtime,
            "NetworkMode": "none",
            "ReadonlyRootfs": True,
            "MaskedPaths": list(MASKED),
            "Privileged": False,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges", f"seccomp={seccomp_profile(tier)}"],
            "PidsLimit": pids_limit(options, tier),
            "Memory": memory,
            "MemorySwap": memory,
            "NanoCpus": round(options.cpus * 1e9),
            "CpuShares": 512,
            "Ulimits": [
                {"Name": "core", "Soft": 0, "Hard": 0},
                {"Name": "nofile", "Soft": options.open_files, "Hard": options.open_files},
                {"Name": "fsize", "Soft": options.file_size_mib * MIB, "Hard": options.file_size_mib * MIB},
                {"Name": "memlock", "Soft": 65_536, "Hard": 65_536},
                {"Name": "msgqueue", "Soft": 0, "Hard": 0},
            ],
            "Tmpfs": {
                "/tmp": f"rw,nosuid,nodev,noexec,size={options.tmpfs_mib}m,nr_inodes={INODES},mode=1777"  # noqa: S108 - inside
            },
            "Binds": list(binds),
            "ShmSize": SHM_BYTES,
            "IpcMode": "private",
            "CgroupnsMode": "private",
            "PidMode": "",
            "UTSMode": "",
            "LogConfig": {"Type": "none"},
            "RestartPolicy": {"Name": "no"},
            "AutoRemove": False,
            "OomScoreAdj": 500,
        },
    }


def pids_limit(options: DockerOptions, tier: SecurityTier) -> int:
    """Processes of the container; the first one and, in gVisor, its kernel come on top of the code's."""
    return SENTRY_PIDS if tier is SecurityTier.TIER2 else options.pids


def inner_limits(options: DockerOptions, tier: SecurityTier, memory_mib: int) -> dict[str, int]:
    """Limits that the code's own process gets, by the names of `resource`."""
    limits = {
        "CORE": 0,
        "NOFILE": options.open_files,
        "FSIZE": options.file_size_mib * MIB,
        "DATA": memory_mib * MIB,
    }
    if tier is SecurityTier.TIER2:  # counted by gVisor's kernel, which is this sandbox's alone; runc's is everybody's
        limits["NPROC"] = options.pids
    return limits


def _environment(options: DockerOptions) -> dict[str, str]:
    return {"HOME": "/tmp", "LANG": "C.UTF-8", "TMPDIR": "/tmp", **options.env}  # noqa: S108 - inside
