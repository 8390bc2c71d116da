"""The life of one agent through one run: moves of the lifecycle table, gathered for the trail."""

from collections.abc import Mapping
from typing import Final

from symbi.audit.event import AuditEventType, Draft
from symbi.errors import LimitExceeded, SymbiError
from symbi.runtime.lifecycle import FIRST, AgentState, Event, advance
from symbi.runtime.supervisor import Remedy, remedy_for
from symbi.types import AgentId, JsonValue, RunId

NOTHING: Final[Mapping[str, JsonValue]] = {}


_STOPS: Final = {AgentState.READY: Event.SHUTDOWN, AgentState.SUSPENDED: Event.MANUAL_OVERRIDE}


class Life:
    """Where an agent stands, and which moves are not yet on the trail.

    Args:
        agent: The agent.
        run_id: The run that it was made for.
    """

    def __init__(self, agent: AgentId, run_id: RunId) -> None:
        self.agent = agent
        self.run_id = run_id
        self._pending: list[Draft] = []
        self.state = FIRST

    def move(self, event: Event, more: Mapping[str, JsonValue] = NOTHING) -> None:
        """Make a move of the table.

        Args:
            event: What happened.
            more: What else the trail is to say of it.

        Raises:
            InputError: The table has no such move.
        """
        before, self.state = self.state, advance(self.state, event)
        details = {"from": before.value, "event": event.value, "to": self.state.value, **more}
        self._pending.append(Draft(AuditEventType.AGENT_TRANSITION, self.agent, details, self.run_id))

    def end(self, error: SymbiError | None) -> None:
        """The task is over: a finished agent is put away, a failed one goes where the supervisor's table sends it."""
        if error is None:
            self._return()
            self.move(Event.TASK_COMPLETE)
            self.move(Event.SHUTDOWN)
        else:
            self.fail(error)

    def fail(self, error: SymbiError) -> None:
        """An error ended the work, or kept it from beginning."""
        if self.state is AgentState.INITIALIZING:
            self.move(Event.CONFIG_INVALID)
        elif self.state is AgentState.READY:
            self.move(Event.SHUTDOWN)
        else:
            self._return()
            self.move(event_for(error))

    def _return(self) -> None:
        """What ends while it is suspended, such as by the answer that it waited for, has gone on to its end."""
        if self.state is AgentState.SUSPENDED:
            self.move(Event.RESUMED, {"reason": "its work is over"})

    def tell(self, draft: Draft) -> None:
        """Put something else on the trail with the next moves."""
        self._pending.append(draft)

    def stop(self, more: Mapping[str, JsonValue]) -> None:
        """An operator has stopped it, wherever it stands."""
        self.move(_STOPS.get(self.state, Event.FORCED), more)

    def drafts(self) -> tuple[Draft, ...]:
        """The moves since the last call."""
        pending, self._pending = tuple(self._pending), []
        return pending


def event_for(error: SymbiError) -> Event:
    """What an error that ended a running agent means to its life. Nothing is restarted by itself in this release."""
    match remedy_for(type(error)):
        case Remedy.SUSPEND if isinstance(error, LimitExceeded):
            return Event.RESOURCES_EXHAUSTED
        case Remedy.SUSPEND:
            return Event.POLICY_VIOLATION
        case Remedy.TERMINATE:
            return Event.FORCED
        case _:
            return Event.CRASH_LOOP
