"""What a container of ours is allowed: everything that is not here is refused."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Final

from symbi.types import SecurityTier

MIB: Final = 1_048_576
LABEL_INSTANCE: Final = "symbi.instance"
LABEL_RUN: Final = "symbi.run"
LABEL_EFFECT: Final = "symbi.effect"
RUNTIME_MIB: Final[Mapping[SecurityTier, int]] = {SecurityTier.TIER1: 32, SecurityTier.TIER2: 96}
"""What a sandbox itself takes beside the code's memory: the first process, and gVisor's kernel."""
SENTRY_PIDS: Final = 1_024  # gVisor's own threads count as processes of the container; fewer kill its kernel
INODES: Final = 4_096  # files and folders in /tmp
SHM_BYTES: Final = 16 * MIB


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
        start_timeout_s: What a container may take until it says what it is like.
        python: The interpreter in the image.
        env: Names and values of the environment; nothing else is in it, the image's own search path aside.
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
    start_timeout_s: float = 30.0
    python: str = "python3"
    env: Mapping[str, str] = field(default_factory=dict)


def seccomp_profile() -> str:
    """The system calls that a container may make, as JSON for the engine."""
    return (files("symbi.adapters.docker") / "seccomp.json").read_text(encoding="utf-8")


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
            "Privileged": False,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges", f"seccomp={seccomp_profile()}"],
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
