"""What operators do with agents that stay: suspend and resume them, stop one, stop everything, see how they stand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from symbi.errors import InputError, did_you_mean
from symbi.runtime.lifecycle import AgentState, Event
from symbi.runtime.living import Living
from symbi.runtime.mailbox import Message
from symbi.runtime.roster import AgentRecord, declared_of
from symbi.runtime.runtime import Runtime
from symbi.types import AgentId, RunId

MAX_PAGE: Final = 1000  # agents that one page of a list has
MAX_COUNTED: Final = 1_000_000  # messages of one agent that are counted

ENDS: Final[Mapping[AgentState, Event]] = {
    AgentState.READY: Event.SHUTDOWN,
    AgentState.RUNNING: Event.FORCED,
    AgentState.SUSPENDED: Event.MANUAL_OVERRIDE,
    AgentState.FAILED: Event.DISCARDED,
}
"""How an agent is put away that is not at work."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How an agent that stays stands.

    Attributes:
        record: As the store has it.
        messages: How many wait for it.
        first: The one that it carries out next.
    """

    record: AgentRecord
    messages: int
    first: Message | None


class Population:
    """The agents that stay, for operators.

    Args:
        runtime: Whose.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._roster = runtime.roster
        self._log = runtime.rooms.world.log

    async def suspend(self, agent: AgentId, by: str) -> None:
        """Suspend an agent before its next effect, or at once where it waits; messages wait with it.

        Raises:
            InputError: It is not there, or does not work, or is suspended already.
            StoreUnavailable: It cannot be recorded.
        """
        living = await self._waiting(agent)
        if living is None:
            await self._runtime.suspend(agent, by)
            return
        if living.state is AgentState.SUSPENDED:
            msg = f"agent `{agent}` is suspended already: {living.reason}"
            raise InputError(msg, code="input.agent")
        await self._roster.move(living, Event.OPERATOR_SUSPENDED, by)

    async def resume(self, agent: AgentId, by: str) -> None:
        """Let an agent go on that an operator, policy or a limit has suspended.

        Raises:
            InputError: It is not there, or is not suspended.
            StoreUnavailable: It cannot be recorded.
        """
        living = await self._waiting(agent)
        if living is None:
            self._runtime.let_go_on(agent)
            return
        if living.state is not AgentState.SUSPENDED:
            msg = f"agent `{agent}` is not suspended: it is {living.state.value}"
            hint = f"`symbi agents spawn {agent}` makes it anew" if living.state in _OVER else None
            raise InputError(msg, code="input.agent", hint=hint)
        if living.reason.startswith(Event.OPERATOR_SUSPENDED):
            await self._roster.move(living, Event.RELEASED, by)
            self._runtime.dispatch.release(agent)
        else:
            await self._runtime.dispatch.clear(agent)

    async def settled(self, agent: AgentId, run_id: RunId) -> None:
        """Somebody has settled what a run waits for: it goes on, if it is that of an agent that rests or is suspended.

        Raises:
            StoreUnavailable: The store cannot be read.
        """
        runtime = self._runtime
        if runtime.rests.wake(run_id) or declared_of(agent) not in self._roster.kinds:
            return
        if await self._log.read(partial(runtime.rooms.agents.get_agent, agent)) is not None:
            await runtime.dispatch.clear(agent)

    async def stop(self, agent: AgentId, by: str) -> Sequence[RunId]:
        """Stop an agent for good; returns the runs that ended by that. Messages that wait for it are not carried out.

        Raises:
            InputError: It is not there, or is gone already.
            StoreUnavailable: It cannot be recorded.
        """
        living = await self._waiting(agent)
        if living is None:
            return await self._runtime.stop((agent,), by)
        if living.state is AgentState.TERMINATED:
            raise InputError(f"agent `{agent}` is Terminated already", code="input.agent")
        ended = await self._runtime.errands.end_open(living, by)
        if ended is None:
            await self._roster.move(living, ENDS[living.state], by)
        return [] if ended is None else [ended]

    async def stop_all(self, by: str) -> Sequence[RunId]:
        """The kill switch: stop what is at work, and let nothing begin by itself until `go_on`, also after a restart.

        Raises:
            StoreUnavailable: It cannot be recorded; nothing begins all the same while this process lives.
        """
        try:
            await self._roster.halt(by)
        finally:  # whatever becomes of the record: what is at work stops
            stopped = await self._runtime.stop(None, by)
        return stopped

    async def go_on(self) -> None:
        """Let things begin again.

        Raises:
            InputError: Nobody has stopped everything.
            StoreUnavailable: It cannot be recorded.
        """
        if not self._roster.halted:
            raise InputError("nobody has stopped everything", code="input.agent")
        await self._roster.halt("")
        self._runtime.dispatch.wake()

    # --- seeing ---------------------------------------------------------------------------------

    async def page(self, state: AgentState | None, after: str, limit: int) -> Sequence[AgentRecord]:
        """Agents behind a name, by name.

        Raises:
            InputError: The page is too long.
            StoreUnavailable: The store cannot be read.
        """
        if not 0 < limit <= MAX_PAGE:
            msg = f"a page has 1 to {MAX_PAGE} agents, not {limit}"
            raise InputError(msg, code="input.value")
        return await self._log.read(partial(self._runtime.rooms.agents.agents, state, after, limit))

    async def standing(self, agent: AgentId) -> Standing | None:
        """How an agent stands; None where there is none of that name.

        Raises:
            StoreUnavailable: The store cannot be read.
        """
        agents, mailbox = self._runtime.rooms.agents, self._runtime.rooms.mailbox

        def look() -> Standing | None:
            record = agents.get_agent(agent)
            if record is None:
                return None
            return Standing(record, mailbox.count_messages(agent, MAX_COUNTED), mailbox.next_message(agent))

        return await self._log.read(look)

    def unknown(self, agent: AgentId) -> InputError:
        """The error for an agent that is neither at work nor kept."""
        names = [*(one.life.agent for one in self._runtime.at_work), *self._roster.names()]
        msg = f"there is no agent `{agent}`, and none of that name is at work"
        return InputError(msg, code="input.agent", hint=did_you_mean(agent, names) or "`symbi agents list` shows them")

    async def _waiting(self, agent: AgentId) -> Living | None:
        """An agent that stays and is not at work; None where it is, or is none that stays.

        Raises:
            InputError: There is none of that name.
        """
        runtime = self._runtime
        if any(one.life.agent == agent for one in runtime.at_work) or runtime.rests.of(agent):
            return None
        try:
            return await self._roster.find(agent)
        except InputError as error:
            raise self.unknown(agent) from error


_OVER: Final = frozenset({AgentState.FAILED, AgentState.TERMINATED})
