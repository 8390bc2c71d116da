"""The container section (5) of the CIS Docker Benchmark 1.6, asked of a running container of each tier.

What concerns the host alone, and not how a container is made, is not asked: 5.8 to 5.10 (images and ports of services),
5.28 (`exec` with other users), and Swarm.
"""

from pathlib import Path

import pytest

pytestmark = [pytest.mark.anyio, pytest.mark.servers]

SENSITIVE = ("/", "/boot", "/dev", "/etc", "/lib", "/proc", "/sys", "/usr", "/var/run", "/run")


def host(container):
    return container["HostConfig"]


def options(container):
    return host(container)["SecurityOpt"] or []


CHECKS = {
    "5.2 AppArmor, where the host has it": lambda c: (
        not Path("/sys/kernel/security/apparmor").is_dir() or c["AppArmorProfile"] not in {"", "unconfined"}
    ),
    "5.4 no added capabilities, all dropped": lambda c: not host(c)["CapAdd"] and host(c)["CapDrop"] == ["ALL"],
    "5.5 not privileged": lambda c: host(c)["Privileged"] is False,
    "5.6 no sensitive folders of the host": lambda c: not [m for m in c["Mounts"] if m["Source"] in SENSITIVE],
    "5.7 no ssh": lambda c: c["Config"]["Cmd"][0] == "python3" and not c["Config"]["Entrypoint"],
    "5.8 no ports": lambda c: not c["NetworkSettings"]["Ports"] and not host(c)["PortBindings"],
    "5.9 not all ports": lambda c: host(c)["PublishAllPorts"] is False,
    "5.10 not the host's network": lambda c: host(c)["NetworkMode"] == "none",
    "5.11 memory limited": lambda c: 0 < host(c)["Memory"] == host(c)["MemorySwap"],
    "5.12 processor shares": lambda c: host(c)["CpuShares"] not in {0, 1024} and host(c)["NanoCpus"] > 0,
    "5.13 root read-only": lambda c: host(c)["ReadonlyRootfs"] is True,
    "5.14 no port of all addresses": lambda c: not host(c)["PortBindings"],
    "5.15 no restart": lambda c: host(c)["RestartPolicy"] == {"Name": "no", "MaximumRetryCount": 0},
    "5.16 not the host's processes": lambda c: host(c)["PidMode"] == "",
    "5.17 not the host's IPC": lambda c: host(c)["IpcMode"] in {"private", "none"},
    "5.18 no devices of the host": lambda c: not host(c)["Devices"] and not host(c)["DeviceRequests"],
    "5.19 limits of its own": lambda c: (
        {"nofile", "fsize", "core"} <= {one["Name"] for one in host(c)["Ulimits"] or ()}
    ),
    "5.20 no shared mounts": lambda c: not [m for m in c["Mounts"] if m.get("Propagation") == "shared"],
    "5.21 not the host's UTS": lambda c: host(c)["UTSMode"] == "",
    "5.22 a filter of system calls": lambda c: any(o.startswith("seccomp={") for o in options(c)),
    "5.23 and 5.24 no exec": lambda c: not c["ExecIDs"],
    "5.25 the engine's control group": lambda c: host(c)["CgroupParent"] == "",
    "5.26 no new privileges": lambda c: "no-new-privileges" in options(c),
    "5.27 the health check is ours": lambda c: c["Config"]["Healthcheck"] == {"Test": ["NONE"]},
    "5.29 processes limited": lambda c: 0 < (host(c)["PidsLimit"] or 0) <= 1024,
    "5.30 not the default bridge": lambda c: "bridge" not in c["NetworkSettings"]["Networks"],
    "5.31 not the host's users": lambda c: host(c)["UsernsMode"] != "host" and c["Config"]["User"] == "65534:65534",
    "5.32 not the engine's socket": lambda c: not [m for m in c["Mounts"] if "docker.sock" in m["Source"]],
    "logs are not kept": lambda c: host(c)["LogConfig"]["Type"] == "none",
    "no volume is left": lambda c: not [m for m in c["Mounts"] if m["Type"] == "volume"],
    "the kernel's files are masked": lambda c: (
        {"/proc/kcore", "/proc/kallsyms", "/sys/firmware"} <= set(host(c)["MaskedPaths"] or ())
    ),
    "the kernel's switches are read-only": lambda c: (
        {"/proc/sys", "/proc/sysrq-trigger"} <= set(host(c)["ReadonlyPaths"] or ())
    ),
}


async def test_no_check_of_the_benchmark_warns(target):
    await target.value("1")
    running = target.engine.inspected
    assert running["State"]["Running"] or running["State"]["ExitCode"] == 0
    assert [name for name, holds in CHECKS.items() if not holds(running)] == []


def privileged(spec):
    spec["HostConfig"] |= {
        "Privileged": True,
        "SecurityOpt": [],
        "CapDrop": [],
        "PidsLimit": 0,
        "ReadonlyRootfs": False,
    }


async def test_a_container_that_is_not_as_ours_warns(target):
    await target.plain(["python3", "-c", "1"], privileged)
    warned = [name.split()[0] for name, holds in CHECKS.items() if not holds(target.engine.inspected)]
    assert {"5.4", "5.5", "5.13", "5.22", "5.26", "5.29"} <= set(warned)
