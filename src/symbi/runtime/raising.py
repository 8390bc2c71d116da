"""More for a run to spend, and what was held for want of it goes on."""

from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Final

from symbi.errors import BudgetExceeded, InputError
from symbi.guard.budget import Account
from symbi.runtime.lifecycle import AgentState, Event
from symbi.runtime.runtime import Runtime
from symbi.types import AgentId, RunId

MAX_BELOW: Final = 1000  # runs that it asked for, and those asked for others, that are looked at


async def raise_budget(runtime: Runtime, run_id: RunId, more: Mapping[str, tuple[bool, int]], by: str) -> Account:
    """Let a run spend more; whoever was held for that, the run or one that it asked for, asks again.

    Args:
        runtime: Where it is at work, or held.
        run_id: The run.
        more: By kind, whether it is added to what there was, and how much.
        by: Who says so.

    Raises:
        InputError: It has no budget, or has no bound there, or would have less.
        StoreUnavailable: It cannot be made durable.
    """
    account = await runtime.budgets.give(run_id, more, by)
    for rest in runtime.rests.all:
        if rest.run_id == run_id or (
            isinstance(rest.error, BudgetExceeded) and rest.error.fields.get("account") == run_id
        ):
            rest.let_go()
    await _clear(runtime, account.agent_id)
    for agent in await runtime.rooms.world.log.read(partial(_below, runtime, run_id)):
        await _clear(runtime, agent)
    return account


def _below(runtime: Runtime, run_id: RunId) -> list[AgentId]:
    """The agents of the runs that a run asked for, and those for others."""
    found: list[AgentId] = []
    wanted = deque([run_id])
    while wanted and len(found) < MAX_BELOW:
        for descent in runtime.rooms.lineage.asked_by(wanted.popleft()):
            record = runtime.rooms.runs.get_run(descent.run_id)
            if record is not None:
                found.append(record.agent_id)
                wanted.append(descent.run_id)
    return found


async def _clear(runtime: Runtime, agent: AgentId) -> None:
    """An agent that stays and is suspended for want of something asks again."""
    with suppress(InputError):  # it does not stay, and its runs are their own
        living = await runtime.roster.find(agent)
        if living.state is AgentState.SUSPENDED and living.reason.startswith(Event.RESOURCES_EXHAUSTED):
            await runtime.dispatch.clear(agent)
