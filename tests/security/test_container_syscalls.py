"""Every dangerous system call is refused in both container tiers, asked one by one from inside."""

import json
import platform

import pytest

from symbi.adapters.docker.container import seccomp_profile
from symbi.errors import CodeFailed, SandboxUnavailable
from symbi.types import SecurityTier

servers = pytest.mark.servers

# name: numbers on x86-64 and on arm64 (None: there is none), arguments; B is a buffer of zeros. Harmless where let through.
CALLS = {
    "acct": (163, 89, "B"), "add_key": (248, 217, "B", "B", "B", 1, -3), "adjtimex": (159, 171, "B"),
    "bpf": (321, 280, 0, "B", 48), "capset": (126, 91, "B", "B"), "chroot": (161, 51, "B"),
    "clock_adjtime": (305, 266, 0, "B"), "clock_settime": (227, 112, 0, "B"), "clone3": (435, 435, "B", 88),
    "delete_module": (176, 106, "B", 0), "execveat": (322, 281, -1, "B", 0, 0, 0), "fanotify_init": (300, 262, 0, 0),
    "finit_module": (313, 273, -1, "B", 0), "fsconfig": (431, 431, 0, 0, 0, 0, 0), "fsmount": (432, 432, 0, 0, 0),
    "fsopen": (430, 430, "B", 0), "fspick": (433, 433, -100, "B", 0), "init_module": (175, 105, "B", 0, "B"),
    "io_setup": (206, 0, 0, "B"), "io_uring_enter": (426, 426, 99, 0, 0, 0),
    "io_uring_register": (427, 427, 99, 0, 0, 0), "io_uring_setup": (425, 425, 8, "B"), "ioperm": (173, None, 0, 1, 1),
    "iopl": (172, None, 3), "kcmp": (312, 272, 1, 1, 0, 0, 0), "kexec_file_load": (320, 294, -1, -1, 0, 0, 0),
    "kexec_load": (246, 104, 0, 0, 0, 0xFFFF), "keyctl": (250, 219, 0, -3, 1), "landlock_create_ruleset": (444, 444, 0, 0, 1),
    "lookup_dcookie": (212, 18, 0, 0, 0), "mbind": (237, 235, 0, 0, 0, 0, 0, 0), "memfd_create": (319, 279, "B", 0),
    "memfd_secret": (447, 447, 0), "migrate_pages": (256, 238, 0, 0, 0, 0), "modify_ldt": (154, None, 0, "B", 16),
    "mount": (165, 40, "B", "B", "B", 0, 0), "mount_setattr": (442, 442, -100, "B", 0, "B", 32),
    "move_mount": (429, 429, -1, "B", -1, "B", 0), "move_pages": (279, 239, 0, 0, 0, 0, 0, 0),
    "name_to_handle_at": (303, 264, -100, "B", "B", "B", 0), "nfsservctl": (180, 42, 0, 0, 0),
    "open_by_handle_at": (304, 265, -100, "B", 0), "open_tree": (428, 428, -100, "B", 1),
    "perf_event_open": (298, 241, "B", 0, -1, -1, 0), "personality": (135, 92, 0x0040000),
    "pidfd_getfd": (438, 438, 0, 0, 0), "pivot_root": (155, 41, "B", "B"), "process_madvise": (440, 440, 0, 0, 0, 0, 0),
    "process_vm_readv": (310, 270, 1, "B", 1, "B", 1, 0), "process_vm_writev": (311, 271, 1, "B", 1, "B", 1, 0),
    "ptrace": (101, 117, 0, 0, 0, 0), "quotactl": (179, 60, 0, "B", 0, "B"), "reboot": (169, 142, 0, 0, 0, 0),
    "remap_file_pages": (216, 234, 0, 0, 0, 0, 0), "request_key": (249, 218, "B", "B", 0, -3),
    "seccomp": (317, 277, 0, 0, 0), "set_mempolicy": (238, 237, 0, 0, 0), "setdomainname": (171, 162, "B", 1),
    "setgid": (106, 144, 0), "setgroups": (116, 159, 0, "B"), "sethostname": (170, 161, "B", 1), "setns": (308, 268, 0, 0),
    "settimeofday": (164, 170, "B", 0), "setuid": (105, 146, 0), "shmget": (29, 194, 0, 4096, 0o1600),
    "swapoff": (168, 225, "B"), "swapon": (167, 224, "B", 0), "syslog": (103, 116, 3, "B", 100),
    "umount2": (166, 39, "B", 0), "unshare": (272, 97, 0x10000000), "uselib": (134, None, "B"),
    "userfaultfd": (323, 282, 1), "vhangup": (153, 58), "vmsplice": (278, 75, 0, "B", 0, 0),
}  # fmt: skip
PARTLY = {
    "clone, new user": (56, 220, 0x10000011, 0, 0, 0, 0), "clone, new network": (56, 220, 0x40000011, 0, 0, 0, 0),
    "clone, new mounts": (56, 220, 0x00020011, 0, 0, 0, 0), "clone, new processes": (56, 220, 0x20000011, 0, 0, 0, 0),
    "socket, packet": (41, 198, 17, 3, 0), "socket, netlink": (41, 198, 16, 3, 0), "socket, vsock": (41, 198, 40, 1, 0),
    "socket, crypto": (41, 198, 38, 5, 0), "socket, raw": (41, 198, 2, 3, 255),
}  # fmt: skip
ALLOWED = {"getpid": (39, 172), "socket, unix": (41, 198, 1, 1, 0)}
UNPRIVILEGED = {"add_key", "io_uring_setup", "keyctl", "memfd_create", "personality", "ptrace", "shmget", "unshare"}
REFUSED = {"EPERM", "ENOSYS"}

PROBE = """
import ctypes, errno, json, os
call = ctypes.CDLL(None, use_errno=True).syscall
buffer = ctypes.create_string_buffer(4096)
met = {}
for name, numbers in CALLS.items():
    number, *arguments = numbers
    if number is None:
        continue
    ctypes.set_errno(0)
    found = call(*[ctypes.c_long(ctypes.addressof(buffer) if one == "B" else one) for one in (number, *arguments)])
    if found == 0 and name.startswith("clone"):
        os._exit(0)
    met[name] = errno.errorcode[ctypes.get_errno()] if found < 0 else "done"
"""


def probe(calls):
    """The program, for this machine's numbers."""
    column = {"x86_64": 0, "aarch64": 1}[platform.machine()]
    return f"CALLS = { {name: (call[column], *call[2:]) for name, call in calls.items()}!r}\n{PROBE}"


@servers
@pytest.mark.anyio
async def test_every_dangerous_call_is_refused(target):
    met = await target.value(f"{probe({**CALLS, **PARTLY})}\nmet")
    assert {name: how for name, how in met.items() if how not in REFUSED} == {}
    assert len(met) >= len(CALLS) + len(PARTLY) - 5


@servers
@pytest.mark.anyio
async def test_the_probe_sees_what_is_let_through(target):
    assert set((await target.value(f"{probe(ALLOWED)}\nmet")).values()) == {"done"}


def without_filter(spec):
    spec["HostConfig"]["SecurityOpt"] = ["no-new-privileges", "seccomp=unconfined"]


@servers
@pytest.mark.anyio
async def test_without_the_filter_calls_get_through_and_our_driver_refuses_the_container(target):
    command = [
        "python3",
        "-I",
        "-c",
        f"{probe({name: CALLS[name] for name in sorted(UNPRIVILEGED)})}\nprint(json.dumps(met))",
    ]
    met = json.loads(await target.plain(command, without_filter))
    assert set(met.values()) != {"EPERM"}
    assert met["memfd_create"] == "done"  # so it is the filter, not the absence of privileges, that refuses it
    if not target.gvisor:
        made = target.engine.create

        async def weaker(name, spec, timeout_s):
            without_filter(spec)
            return await made(name, spec, timeout_s)

        target.engine.create = weaker
        try:
            ended = await target.fails(SandboxUnavailable, "1")
        finally:
            target.engine.create = made
        assert ended.code == "unavailable.isolation"
        assert "filter" in ended.message


@servers
@pytest.mark.anyio
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the other calling conventions of x86-64")
@pytest.mark.parametrize("way", ["b814000000cd80c3", "b827000040" + "0f05c3"], ids=["32 bit", "x32"])
async def test_other_calling_conventions_do_not_pass_by_the_filter(target, way):
    code = f"import ctypes, mmap\nm = mmap.mmap(-1, 4096, prot=7)\nm.write(bytes.fromhex('{way}'))\nctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))()"
    ended = await target.attack(code)
    if target.gvisor:  # its kernel has neither, and says so, or ends the process
        assert isinstance(ended, CodeFailed) or ended.value < 0
    else:
        assert type(ended) is CodeFailed
        assert "signal 31" in ended.message


@pytest.mark.parametrize("tier", [SecurityTier.TIER1, SecurityTier.TIER2])
def test_the_profile_denies_what_it_does_not_name(tier):
    profile = json.loads(seccomp_profile(tier))
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    named = {name for rule in profile["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]}
    assert named & CALLS.keys() == ({"clone3"} if tier is SecurityTier.TIER2 else set())
