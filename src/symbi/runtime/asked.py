"""Runs that agents ask for, where somebody stays to see them through."""

from collections.abc import Mapping

from symbi.agent.journal import RunRecord, RunState
from symbi.agent.run import RunOutcome
from symbi.agent.sealing import opened_run
from symbi.agent.task import Task
from symbi.runtime.asking import gives_up
from symbi.runtime.course import Order
from symbi.runtime.runtime import Runtime
from symbi.runtime.supervision import Supervision, Work
from symbi.types import JsonValue, RunId


class Asked:
    """Carries out the runs that agents ask for, by the table of errors.

    One that waits for people, or for what they settle, is waited for as long as whoever asks has time. One that policy
    or a limit has suspended has failed: whoever asks is told, and can do without.

    Args:
        runtime: Runs agents.
        supervision: Takes a run to its end.
    """

    def __init__(self, runtime: Runtime, supervision: Supervision) -> None:
        self._runtime = runtime
        self._supervision = supervision

    async def carry_out(self, order: Order, run_id: RunId, inputs: Mapping[str, JsonValue], task: Task) -> RunOutcome:
        """Take a run to its end; see `symbi.runtime.asking.CarryOut`.

        Raises:
            StoreUnavailable, InputError: As `Supervision.carry_out`.
        """
        work = Work(order.compiled, order.spec, run_id, inputs, task, order.instance)
        outcome = await self._supervision.carry_out(work)
        if outcome.state is not RunState.HELD or outcome.error is None:
            return outcome
        if not gives_up(outcome.error):
            return await self._supervision.see_through(work)
        rooms, vault = self._runtime.rooms, self._runtime.guard.vault

        def look() -> RunRecord | None:
            record = rooms.runs.get_run(run_id)
            return None if record is None else opened_run(record, vault)

        record = await rooms.world.log.read(look)
        if record is not None and record.state is RunState.HELD:
            await self._runtime.give_up(record, outcome.error)
        return RunOutcome(run_id, RunState.FAILED, error=outcome.error)
