"""What a container uses, read out of its control groups of either version, or asked of an engine elsewhere."""

import anyio
import anyio.lowlevel
import pytest

from symbi.adapters.docker.usage import ContainerUse
from symbi.errors import SandboxUnavailable
from symbi.sandbox.use import SandboxUse

pytestmark = pytest.mark.anyio

ID = "a1" * 32
OTHER = "b2" * 32


class Engine:
    """Has one container."""

    def __init__(self, pid=41, stats=None):
        self.made = {"one": ID, "two": OTHER}
        self.pid = pid
        self.told = stats
        self.asked = []

    async def inspect(self, name):
        self.asked.append(name)
        pid = self.pid.pop(0) if isinstance(self.pid, list) else self.pid
        if isinstance(pid, SandboxUnavailable):
            raise pid
        return {"Id": ID, "State": {"Pid": pid}} if pid is not None else None

    async def stats(self, name, _timeout_s):
        self.asked.append(f"stats {name}")
        if isinstance(self.told, SandboxUnavailable):
            raise self.told
        return self.told


def write(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


def version_1(root, id_=ID, cpu=7_000, now=900):
    write(root / "cpu,cpuacct/docker" / id_, {"cpuacct.usage": f"{cpu}\n"})
    stat = "cache 1\ntotal_inactive_file 100\n"
    write(
        root / "memory/docker" / id_,
        {"memory.usage_in_bytes": f"{now}\n", "memory.max_usage_in_bytes": "2000\n", "memory.stat": stat},
    )


def version_2(root, id_=ID, **more):
    files = {
        "cpu.stat": "usage_usec 7\nuser_usec 5\n",
        "memory.current": "900\n",
        "memory.stat": "anon 3\ninactive_file 100\n",
    }
    write(root / f"system.slice/docker-{id_}.scope", {**files, **more})


LINES_1 = f"5:cpu,cpuacct:/docker/{ID}\n4:memory:/docker/{ID}\n3:pids:/docker/{ID}\n0::/\n"
LINES_2 = f"0::/system.slice/docker-{ID}.scope\n"


def uses(tmp_path, lines, engine=None, watch=None):
    write(tmp_path / "proc/41", {"cgroup": lines})
    return ContainerUse(engine or Engine(), 50, watch, tmp_path / "cgroup", tmp_path / "proc")


async def test_control_groups_of_version_1_are_read(tmp_path):
    version_1(tmp_path / "cgroup")
    use = uses(tmp_path, LINES_1)
    assert use.read("one") is None, "nobody has looked where they are"
    await use.find("one")
    assert use.here
    assert use.read("one") == await use.ask("one") == SandboxUse(7_000, 800, 1_900, 50)


async def test_control_groups_of_version_2_are_read_with_a_peak_where_there_is_one(tmp_path):
    version_2(tmp_path / "cgroup")
    use = uses(tmp_path, LINES_2)
    await use.find("one")
    assert use.read("one") == SandboxUse(7_000, 800, 800, 50)
    assert use.cpu_ns("one") == 7_000
    version_2(tmp_path / "cgroup", **{"memory.peak": "5100\n"})
    assert use.read("one") == SandboxUse(7_000, 800, 5_000, 50)


async def test_where_they_are_is_found_once_for_all_containers(tmp_path):
    version_1(tmp_path / "cgroup")
    version_1(tmp_path / "cgroup", OTHER, cpu=9_000, now=150)
    use = uses(tmp_path, LINES_1, engine := Engine())
    for name in ("one", "two", "one"):
        await use.find(name)
    assert use.read("two") == SandboxUse(9_000, 50, 1_900, 50)
    assert engine.asked == ["one"]


async def test_of_a_container_that_is_gone_or_not_ours_nothing_is_known(tmp_path):
    version_1(tmp_path / "cgroup")
    use = uses(tmp_path, LINES_1)
    await use.find("one")
    assert (use.read("two"), use.read("three")) == (None, None)
    assert (use.cpu_ns("two"), use.cpu_ns("three")) == (0, 0)


@pytest.mark.parametrize(
    "lines", ["0::/user.slice/somebody.scope\n", LINES_1.replace(ID, OTHER), "", "5:cpu,cpuacct:/\n"]
)
async def test_a_process_of_that_number_that_is_another_one_is_not_taken_for_it(tmp_path, lines):
    version_1(tmp_path / "cgroup")
    version_1(tmp_path / "cgroup", OTHER)
    stats = {
        "cpu_stats": {"cpu_usage": {"total_usage": 3}},
        "memory_stats": {"usage": 90, "max_usage": 95, "stats": {"total_inactive_file": 10}},
    }
    use = uses(tmp_path, lines, engine := Engine(stats=stats))
    await use.find("one")
    assert not use.here
    assert use.read("one") is None
    assert await use.ask("one") == SandboxUse(3, 80, 85, 50)
    assert engine.asked == ["one", "one", "stats one"]
    await use.find("two")
    assert engine.asked == ["one", "one", "stats one"], "where a container still runs, that is so for all"


@pytest.mark.parametrize(
    "stats",
    [
        {},
        {"memory_stats": {"usage": 0}, "cpu_stats": {"cpu_usage": {"total_usage": 0}}},
        {"memory_stats": [], "cpu_stats": 3},
        SandboxUnavailable("it hangs"),
    ],
)
async def test_an_engine_that_does_not_say_is_no_error(tmp_path, stats):
    use = uses(tmp_path, "", Engine(stats=stats))
    await use.find("one")
    assert await use.ask("one") is None


async def test_an_engine_that_did_not_say_where_is_asked_again(tmp_path):
    version_1(tmp_path / "cgroup")
    use = uses(tmp_path, LINES_1, engine := Engine(SandboxUnavailable("it hangs")))
    await use.find("one")
    assert not use.here
    engine.pid = 41
    await use.find("one")
    assert use.here


@pytest.mark.parametrize("after", [0, None, 42, SandboxUnavailable("it hangs")])
async def test_a_container_that_ended_before_it_was_looked_at_says_nothing_of_others(tmp_path, after):
    version_1(tmp_path / "cgroup")
    use = uses(tmp_path, LINES_1, engine := Engine([40, after, 41]))
    await use.find("one")
    assert not use.here
    await use.find("one")
    assert use.here
    assert engine.asked == ["one", "one", "one"]


class Watch:
    """Hears what is told of a run."""

    def __init__(self, *, held):
        self.held = held
        self.heard = []

    def opens(self, _run_id, ask, cpu_ns):
        self.ask = ask
        self.heard.append(cpu_ns)

    def closes(self, _run_id, last):
        self.heard.append(last)

    def is_held(self, _run_id):
        return self.held


STATS = {"cpu_stats": {"cpu_usage": {"total_usage": 3}}, "memory_stats": {"usage": 90}}


async def test_a_run_is_told_what_its_container_had_used_before_and_after_also_where_it_fails(tmp_path):
    version_1(tmp_path / "cgroup")
    use = uses(tmp_path, LINES_1, engine := Engine(), watch := Watch(held=True))
    with pytest.raises(ZeroDivisionError):
        async with use.measured("run", "one"):
            version_1(tmp_path / "cgroup", cpu=9_500)
            1 / 0  # noqa: B018
    assert watch.heard == [7_000, SandboxUse(9_500, 800, 1_900, 50)]
    assert engine.asked == ["one"], "nothing but where it is"


@pytest.mark.parametrize(("held", "last"), [(True, SandboxUse(3, 90, 90, 50)), (False, None)])
async def test_an_engine_elsewhere_is_asked_for_runs_that_are_held_to_their_claim_alone(tmp_path, held, last):
    use = uses(tmp_path, "", engine := Engine(stats=STATS), watch := Watch(held=held))
    async with use.measured("run", "one"):
        assert await watch.ask() == SandboxUse(3, 90, 90, 50)
        engine.asked.clear()
    assert watch.heard == [0, last]
    assert engine.asked == ["stats one"] * held


async def test_a_run_that_is_cancelled_is_measured_all_the_same(tmp_path):
    use = uses(tmp_path, "", Engine(stats=STATS), watch := Watch(held=True))
    with anyio.CancelScope() as scope:
        async with use.measured("run", "one"):
            scope.cancel()
            await anyio.lowlevel.checkpoint()
    assert watch.heard == [0, SandboxUse(3, 90, 90, 50)]


async def test_where_nobody_is_told_nothing_is_asked(tmp_path):
    use = uses(tmp_path, LINES_1, engine := Engine())
    async with use.measured("run", "one"):
        pass
    assert engine.asked == []
