"""What bears the label of an instance and is nobody's is removed; nothing else is."""

import anyio
import pytest

from symbi.adapters.docker import LABEL_INSTANCE, DockerOptions, Engine, Reaper
from symbi.adapters.docker.cell import open_cell, remove
from symbi.adapters.docker.container import container_spec
from symbi.adapters.docker.reaper import Swept
from symbi.types import SecurityTier

pytestmark = [pytest.mark.servers, pytest.mark.anyio]


@pytest.fixture
async def engine(docker):
    async with Engine(docker.host) as engine:
        await none_left(engine)
        yield engine
        await none_left(engine)


@pytest.fixture
async def earlier(docker):
    """The client of a process that is no more."""
    async with Engine(docker.host) as engine:
        yield engine


async def none_left(engine):
    """Remove what any test has left; what the engine is removing already goes in its own time."""
    with anyio.fail_after(60):
        while left := await engine.containers(LABEL_INSTANCE):
            for found in left:
                await remove(engine, found["Id"])


def spec(docker, instance):
    options = DockerOptions(image=docker.image, runtime="runc", instance=instance)
    return container_spec(options, SecurityTier.TIER1, ["sleep", "600"], {}, memory_mib=16)


async def names(engine):
    return sorted(found["Names"][0].removeprefix("/") for found in await engine.containers(LABEL_INSTANCE))


async def test_what_an_earlier_process_left_is_removed_running_or_not_and_nothing_of_others(docker, engine, earlier):
    for name, instance in (("left", "mine"), ("left-running", "mine"), ("other", "yours"), ("like", "mine2")):
        await earlier.create(name, spec(docker, instance), 30)
    await earlier.start("left-running", 30)
    assert await Reaper(engine, "mine").sweep() == Swept(containers=2)
    assert await names(engine) == ["like", "other"]


async def test_what_this_process_is_busy_with_stays_until_it_is_done(docker, engine):
    options = DockerOptions(image=docker.image, runtime="runc", instance="mine")
    reaper = Reaper(engine, "mine")
    async with open_cell(engine, options, SecurityTier.TIER1, {}, memory_mib=32) as cell:
        assert await reaper.sweep() == Swept()
        assert await names(engine) == [cell.name]
    assert await names(engine) == []
    assert engine.made == {}


async def test_what_could_not_be_removed_when_its_run_ended_is_removed_later(docker, engine, monkeypatch):
    options = DockerOptions(image=docker.image, runtime="runc", instance="mine")
    reaper = Reaper(engine, "mine")
    async with open_cell(engine, options, SecurityTier.TIER1, {}, memory_mib=32):
        monkeypatch.setattr("symbi.adapters.docker.cell.REMOVE_TIMEOUT_S", 0.0)
    assert engine.made == {}
    await reaper.sweep()
    assert await names(engine) == []


async def test_networks_and_volumes_with_the_label_are_removed(docker, engine):
    label = f"{LABEL_INSTANCE}=mine"
    labels = {LABEL_INSTANCE: "mine"}
    await engine._ask("POST", "/networks/create", body={"Name": "left", "Driver": "bridge", "Labels": labels})
    await engine._ask("POST", "/volumes/create", body={"Name": "left", "Labels": labels})
    assert await Reaper(engine, "mine").sweep() == Swept(networks=1, volumes=1)
    assert await engine.networks(label) == await engine.volumes(label) == []


async def test_looks_go_on_and_an_engine_that_is_away_is_no_error(docker, engine, earlier):
    looks = []

    async def sleep(seconds):
        if len(looks) == 2:
            await anyio.sleep_forever()
        looks.append(await names(engine))
        await earlier.create(f"late-{len(looks)}", spec(docker, "mine"), 30)
        if len(looks) == 2:
            done.set()

    done = anyio.Event()
    await earlier.create("early", spec(docker, "mine"), 30)
    async with Reaper(engine, "mine", sleep=sleep):
        with anyio.fail_after(30):
            await done.wait()
    assert looks == [[], []]
    async with Engine("unix:///nowhere/d.sock") as away, Reaper(away, "mine"):
        pass
