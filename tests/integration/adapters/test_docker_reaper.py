"""The reaper on an engine that says what a test tells it."""

import anyio
import pytest

from symbi.adapters.docker import reap, reaper, reaping
from symbi.errors import SandboxUnavailable

pytestmark = pytest.mark.anyio


class Engine:
    """Has containers by id, each with a name and labels."""

    def __init__(self, **containers):
        self.held = {one: ([f"/symbi-{one}"], f"symbi.instance={of}") for one, of in containers.items()}
        self.in_use = set()
        self.stuck = set()
        self.rounds = 0
        self.hangs = self.gone = False

    async def containers(self, label):
        self.rounds += 1
        if self.hangs:
            await anyio.sleep_forever()
        if self.gone:
            raise SandboxUnavailable("gone")
        return [{"Id": one, "Names": names} for one, (names, held) in self.held.items() if held == label]

    async def remove(self, container, timeout_s):
        assert timeout_s > 0
        if container in self.stuck:
            raise SandboxUnavailable("stuck")
        del self.held[container]


async def test_what_is_ours_and_in_nobody_s_use_is_removed():
    engine = Engine(left="me", lost="me", working="me", other="somebody")
    engine.in_use = {"symbi-working"}
    assert set(await reap(engine, "me")) == {"left", "lost"}
    assert set(engine.held) == {"working", "other"}
    assert await reap(engine, "me") == ()


async def test_one_that_cannot_be_removed_keeps_no_other_and_goes_with_a_later_round(caplog):
    engine = Engine(a="me", b="me", c="me")
    engine.stuck = {"b"}
    assert set(await reap(engine, "me")) == {"a", "c"}
    assert "container `b` was left" in caplog.text
    engine.stuck = set()
    assert await reap(engine, "me") == ("b",)


async def test_a_start_does_not_wait_for_an_engine_that_hangs_or_is_gone(monkeypatch):
    monkeypatch.setattr(reaper, "FIRST_TIMEOUT_S", 0.05)
    engine = Engine(a="me")
    engine.hangs = True
    async with reaping(engine, "me"):
        assert engine.rounds == 1
    engine.hangs, engine.gone = False, True
    async with reaping(engine, "me"):
        assert engine.rounds == 2
    assert set(engine.held) == {"a"}
    with pytest.raises(SandboxUnavailable):
        await reap(engine, "me")


async def test_rounds_go_on_also_after_one_that_failed(monkeypatch):
    monkeypatch.setattr(reaper, "REAP_EVERY_S", 0.0)
    monkeypatch.setattr(reaper, "SOON_AGAIN_S", ())
    engine = Engine(a="me")
    engine.gone = True
    with anyio.fail_after(10):
        async with reaping(engine, "me"):
            while engine.rounds < 3:
                await anyio.lowlevel.checkpoint()
            engine.gone = False
            while engine.held:
                await anyio.lowlevel.checkpoint()


async def test_what_a_runtime_raises_while_the_reaper_works_comes_out_as_it_is():
    with pytest.raises(ValueError, match="mine"):
        async with reaping(Engine(a="me"), "me"):
            raise ValueError("mine")
