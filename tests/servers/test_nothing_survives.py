"""SBX-5: whatever becomes of runs and of the runtime, the next start leaves nothing of them in the engine or on the host."""

import os
import random
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest

from symbi.adapters.docker import LABEL_INSTANCE, Engine

RUNS = int(os.environ.get("SANDBOX_CRASH_RUNS", "24"))  # 200 and more for a release
pytestmark = [pytest.mark.servers, pytest.mark.timeout(120 + 10 * RUNS)]

IN_ONE_ROUND = 8
ROUND_TIMEOUT_S = 120.0
SCRIPT = Path(__file__).parents[1] / "data" / "crash_sandbox.py"
AGENTS = """\
agent contained(code: String) {{
    policy work {{
        allow: allocate(pool)
        allow: execute(any)
    }}
    with sandbox = docker {{ python(code) }}
}}
agent guarded(code: String) {{
    policy work {{
        allow: allocate(pool)
        allow: execute(any)
    }}
    with sandbox = gvisor {{ python(code) }}
}}
"""
CONFIG = """\
[security]
default_sandbox_tier = "docker"

[limits]
code_timeout_s = 4.0

[sandbox]
docker_host = "{host}"
image = "{image}"
warm = 1
"""
POLICIES = "permit (principal, action, resource);"


@pytest.fixture
def folder(tmp_path, docker):
    (tmp_path / "symbi.toml").write_text(CONFIG.format(host=docker.host, image=docker.image))
    (tmp_path / "work.symbi").write_text(AGENTS.replace("{{", "{").replace("}}", "}"))
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "operator.cedar").write_text(POLICIES)
    return tmp_path


def lines_of(process, timeout_s):
    """Lines as they come, until the end or the time-out."""
    data = b""
    while select.select([process.stdout], [], [], timeout_s)[0]:
        piece = os.read(process.stdout.fileno(), 4096)
        if not piece:
            return
        data += piece
        *whole, data = data.split(b"\n")
        yield from (line.decode() for line in whole)


def started(folder, seed, runs):
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(folder), str(seed), str(runs)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def one_round(folder, seed, chance, *, kill):
    """Start the runtime, let it run, and kill it at a random time if asked for; what it said."""
    process = started(folder, seed, IN_ONE_ROUND)
    said = []
    try:
        wanted = chance.randrange(IN_ONE_ROUND + 1) if kill else IN_ONE_ROUND + 10
        for line in lines_of(process, ROUND_TIMEOUT_S):
            said.append(line)
            if sum(one.startswith("end ") for one in said) >= wanted:
                select.select([], [], [], chance.uniform(0, 1.0))  # into the middle of whatever comes next
                process.send_signal(signal.SIGKILL)
                break
        process.wait(ROUND_TIMEOUT_S)
    finally:
        process.kill()
        process.wait()
        trouble = process.stderr.read().decode()
        for stream in (process.stdin, process.stdout, process.stderr):
            stream.close()
    assert process.returncode in ({0, -signal.SIGKILL} if kill else {0}), trouble
    assert said, trouble
    assert said[0] == "up", said
    return said


def next_start(folder, docker):
    """Start the runtime once more, and let it end when nothing is left of those before it."""
    left = set(names_of(docker))
    with started(folder, 0, 0) as process:
        try:
            assert process.stdout.readline() == b"up\n", process.stderr.read().decode()
            assert within_bound(lambda: left.isdisjoint(names_of(docker))), left & set(names_of(docker))
            process.stdin.close()
            assert process.wait(ROUND_TIMEOUT_S) == 0, process.stderr.read().decode()
        finally:
            process.kill()


def within_bound(holds):
    """Whether something comes to hold: an engine ends in its own time what it was told to end."""
    until_s = time.monotonic() + ROUND_TIMEOUT_S
    while not (held := holds()) and time.monotonic() < until_s:
        select.select([], [], [], 0.1)
    return held


def at_rest(docker, others):
    """What an engine has when nothing of it changes any more: others may have left something that is on its way out."""
    seen = [engine_state(docker, others)]

    def is_still():
        select.select([], [], [], 1.0)
        seen.append(engine_state(docker, others))
        return seen[-1] == seen[-2]

    assert within_bound(is_still), seen[-2:]
    return seen[-1]


def names_of(docker):
    return [name for names in engine_state(docker)["containers"] for name in names]


def engine_state(docker, others=()):
    """All that the engine has, and all that it has on the host but for processes of others."""

    async def ask():
        async with Engine(docker.host) as engine:
            return (
                [found["Names"] for found in await engine.containers(LABEL_INSTANCE)],
                sorted(network["Name"] for network in await engine._ask("GET", "/networks")),
                (await engine._ask("GET", "/volumes"))["Volumes"] or [],
            )

    containers, networks, volumes = anyio.run(ask)
    return {
        "containers": containers,
        "networks": networks,
        "volumes": volumes,
        "processes": [one for one in sandbox_processes(docker) if one not in others],
        "mounts": docker._mounts(),
        "files": sorted(path.name for part in ("containers", "overlay2") for path in (docker.folder / "data" / part).glob("*-init")),
        "folders": sorted(path.name for path in (docker.folder / "data" / "containers").iterdir()),
        "tasks": tasks(docker.folder / "exec"),
    }  # fmt: skip


def tasks(folder):
    """What the engine keeps of running containers; some of it goes while it is looked at."""
    above = "io.containerd.runtime.v2.task/moby"
    walked = os.walk(folder)  # which passes over what has gone
    return sorted(f"{at}/{name}" for at, folders, files in walked if at.endswith(above) for name in [*folders, *files])


def sandbox_processes(docker):
    """Those in which a sandbox runs, and those that look after it: by command line, and by control group."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        names_folder = str(docker.folder) in command and not command.startswith(("dockerd ", "containerd "))
        runner = "-I -B -c" in command and "What runs inside a container" in command
        if (names_folder or runner) and str(docker.folder) in _lineage(entry.name):
            found.append((entry.name, command[:80]))
    return found


def _lineage(pid):
    """The command lines of a process and of those that it descends from."""
    lines = []
    while pid not in {"0", "1"}:
        try:
            lines.append((Path("/proc") / pid / "cmdline").read_bytes().decode("utf-8", "replace"))
            pid = (Path("/proc") / pid / "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            break
    return "\n".join(lines)


def test_nothing_survives_cancels_time_outs_and_kills_of_the_runtime(folder, docker):
    assert within_bound(lambda: not names_of(docker)), names_of(docker)
    others = sandbox_processes(docker)  # of a gVisor that did not start: Docker 20.10 keeps them for a while
    before = at_rest(docker, others)
    chance, seen = random.Random(RUNS), []
    left = 0
    for number in range(max(3, RUNS // IN_ONE_ROUND)):
        kill = number % 5 != 4  # now and then one ends by itself
        seen += one_round(folder, number, chance, kill=kill)
        left += len(engine_state(docker)["containers"])
    next_start(folder, docker)
    within_bound(lambda: engine_state(docker, others) == before)
    assert engine_state(docker, others) == before
    assert left > 0, "no kill left a container behind: the test would pass without a reaper"
    ended = [line.split() for line in seen if line.startswith("end ")]
    print(
        f"{len(ended)} runs ended, {left} containers were left by kills: {sorted({tuple(line[1:]) for line in ended})}"
    )
    assert {"well", "finished"} <= {word for line in ended for word in line}
    assert not [line for line in seen if line.startswith("error")]
