"""What is asked of the engine for a container."""

import json

from symbi.adapters.docker import DockerOptions
from symbi.adapters.docker.container import container_spec
from symbi.types import SecurityTier

MIB = 1_048_576
OPTIONS = DockerOptions(image="sha256:" + 64 * "0", runtime="runc", instance="test")


def test_a_container_has_nothing_that_was_not_granted():
    spec = container_spec(OPTIONS, SecurityTier.TIER1, ["python3"], {}, memory_mib=64)
    host = spec["HostConfig"]
    assert host["CapDrop"] == ["ALL"]
    assert "no-new-privileges" in host["SecurityOpt"]
    assert (host["ReadonlyRootfs"], host["NetworkMode"], host["Privileged"], host["Binds"]) == (True, "none", False, [])
    assert host["Memory"] == host["MemorySwap"] == (64 + 16 + 32) * MIB
    assert host["RestartPolicy"] == {"Name": "no"}
    assert not {"CapAdd", "Devices", "VolumesFrom"} & set(host)
    assert spec["User"] == "65534:65534"
    assert {line.partition("=")[0] for line in spec["Env"]} == {"HOME", "LANG", "TMPDIR"}


def test_the_filter_of_system_calls_permits_by_name_and_refuses_the_rest():
    text = next(
        one
        for one in container_spec(OPTIONS, SecurityTier.TIER1, [], {}, memory_mib=64)["HostConfig"]["SecurityOpt"]
        if one.startswith("seccomp=")
    )
    profile = json.loads(text.removeprefix("seccomp="))
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    permitted = {
        name
        for rule in profile["syscalls"]
        if rule["action"] == "SCMP_ACT_ALLOW" and not rule.get("args")
        for name in rule["names"]
    }
    refused = {
        "io_uring_setup", "io_uring_enter", "io_uring_register", "bpf", "userfaultfd", "keyctl", "add_key", "request_key",
        "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "kcmp", "pidfd_getfd", "mount", "umount2",
        "pivot_root", "move_mount", "open_tree", "fsopen", "fsmount", "fsconfig", "mount_setattr", "chroot", "unshare", "setns",
        "clone", "clone3", "kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "perf_event_open",
        "personality", "memfd_create", "execveat", "open_by_handle_at", "name_to_handle_at", "quotactl", "swapon", "reboot",
        "syslog", "acct", "settimeofday", "clock_settime", "adjtimex", "iopl", "ioperm", "modify_ldt", "fanotify_init", "mbind",
        "move_pages", "vmsplice", "splice", "tee", "socket", "socketpair", "seccomp", "setuid", "setresuid", "capset",
    }  # fmt: skip
    assert refused & permitted == set()
    assert {"read", "write", "execve", "futex", "mmap", "openat"} <= permitted
