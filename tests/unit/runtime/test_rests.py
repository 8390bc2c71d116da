"""Runs that rest: what lets them go on, what ends their rest at once, and what does not."""

import anyio
import anyio.lowlevel
import pytest

from symbi.errors import PolicyDenied, ToolFailed
from symbi.runtime.lifecycle import AgentState
from symbi.runtime.rests import Rest, Rests
from symbi.types import AgentId, RunId

pytestmark = pytest.mark.anyio


def rest(run: str = "r", version: str | None = None) -> Rest:
    error = ToolFailed("no") if version is None else PolicyDenied("no")
    return Rest(AgentId("a"), RunId(run), "a.symbi", "2026", AgentState.SUSPENDED, error, version)


async def for_ever(_seconds: float) -> None:
    await anyio.sleep_forever()


async def at_once(_seconds: float) -> None:
    await anyio.lowlevel.checkpoint()


async def over(one: Rest, seconds: float | None, wait, act) -> None:
    """Return once it has ended its rest, which it has not before it is acted on."""
    ended = []

    async def waits():
        await one.wait(seconds, wait)
        ended.append(True)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(waits)
            await anyio.wait_all_tasks_blocked()
            assert not ended
            act()
    assert ended


@pytest.mark.parametrize("seconds", [None, 60.0])
@pytest.mark.parametrize("how", ["let go", "stop", "leave"])
async def test_every_rest_ends_at_once(seconds, how):
    one = rest()
    acts = {"let go": one.let_go, "stop": lambda: one.stop("ada"), "leave": one.leave}
    await over(one, seconds, for_ever, acts[how])
    assert (one.stopped_by, one.left) == ("ada" if how == "stop" else "", how == "leave")


async def test_what_happened_before_it_began_to_wait_counts():
    for how in ("let_go", "leave"):
        one = rest()
        getattr(one, how)()
        with anyio.fail_after(10):
            await one.wait(None, for_ever)


async def test_a_rest_with_a_time_ends_by_itself():
    with anyio.fail_after(10):
        await rest().wait(1.0, at_once)


async def test_whom_an_operator_has_suspended_does_not_go_on_when_its_time_has_come():
    one = rest()
    one.suspended_by = "ada"
    await over(one, 1.0, at_once, one.let_go)


async def test_whom_an_operator_has_suspended_another_policy_set_does_not_let_go():
    one, rests = rest(version="v1"), Rests()
    rests.begin(one)
    one.suspended_by = "ada"
    rests.policies_changed("v2")
    await over(one, None, at_once, one.let_go)


async def test_another_policy_set_lets_go_whom_one_has_refused_and_nobody_else():
    rests = Rests()
    refused, same, limited = rest("1", "v1"), rest("2", "v2"), rest("3")
    for one in (refused, same, limited):
        rests.begin(one)
    rests.policies_changed("v2")
    assert [one._let_go.is_set() for one in (refused, same, limited)] == [True, False, False]
    assert rests.wake(RunId("3"))
    assert not rests.wake(RunId("9"))
    assert limited._let_go.is_set()


async def test_all_are_left_when_the_runtime_shuts_down_also_who_comes_later():
    rests = Rests()
    early, late = rest("1"), rest("2")
    rests.begin(early)
    rests.close()
    rests.begin(late)
    for one in (early, late):
        with anyio.fail_after(10):
            await one.wait(60.0, for_ever)
        assert one.left
        rests.end(one)
        assert one.over.is_set()
    assert rests.all == ()
