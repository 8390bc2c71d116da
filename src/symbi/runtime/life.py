"""The life of one agent through one run: moves of the lifecycle table, gathered for the trail."""

from collections.abc import Iterable, Mapping
from typing import Final

from symbi.agent.journal import RunRecord, RunState
from symbi.agent.remedies import Remedy, remedy_for
from symbi.agent.run import SUSPENDED
from symbi.audit.event import AuditEventType, Draft
from symbi.errors import BudgetExceeded, LimitExceeded, SymbiError
from symbi.guard.outcome import decode_error
from symbi.runtime.lifecycle import FIRST, AgentState, Event, advance
from symbi.types import AgentId, JsonValue, RunId

TRIES: Final = "tries"
"""The field of an error that says how often a run has ended in one without getting further."""
SINCE: Final = "since"
"""And since when."""

NOTHING: Final[Mapping[str, JsonValue]] = {}


_STOPS: Final = {AgentState.READY: Event.SHUTDOWN, AgentState.SUSPENDED: Event.MANUAL_OVERRIDE}


class Life:
    """Where an agent stands, and which moves are not yet on the trail.

    Args:
        agent: The agent.
        run_id: The run that it was made for.
        state: Where it stands.
        held: What it was suspended for, where it is to go on.
    """

    def __init__(
        self, agent: AgentId, run_id: RunId, state: AgentState = FIRST, held: SymbiError | None = None
    ) -> None:
        self.agent = agent
        self.run_id = run_id
        self._pending: list[Draft] = []
        self.state = state
        self.held = held

    @classmethod
    def of(cls, record: RunRecord) -> "Life":
        """The life of the agent of a run that begins or goes on: from where it was suspended, or else made anew."""
        held = None if record.error is None else decode_error(record.error)
        if held is None or held.fields.get(SUSPENDED) is not True:
            return cls(record.agent_id, record.run_id)
        return cls(record.agent_id, record.run_id, AgentState.SUSPENDED, held)

    def made(self) -> None:
        """It was created, and what it needs is there."""
        if self.held is None:
            self.move(Event.CONFIG_VALID)

    def assigned(self) -> None:
        """It has its resources and works from here."""
        if self.held is None:
            self.move(Event.TASK_ASSIGNED)
        else:
            event = Event.POLICY_CLEARED if _is_violation(self.held) else Event.RESUMED
            self.move(event, {"error": self.held.code})
            self.held = None

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

    def end(self, error: SymbiError | None, state: RunState) -> None:
        """The task is over: a finished agent is put away, a failed one goes where the table of errors sends it."""
        if error is None:
            self._return()
            self.move(Event.TASK_COMPLETE)
            self.move(Event.SHUTDOWN)
        else:
            self.fail(error, state)

    def settle(self, more: Mapping[str, JsonValue] = NOTHING) -> None:
        """The work of an agent that stays is over, and it waits for more."""
        self._return()
        self.move(Event.TASK_COMPLETE, more)

    def fail(self, error: SymbiError, state: RunState) -> None:
        """An error ended the work, or kept it from beginning.

        Args:
            error: The error.
            state: What has become of the run.
        """
        if self.held is not None:
            if state is RunState.HELD:
                return  # it stays suspended
            self.move(Event.MANUAL_OVERRIDE, {"error": error.code})
        elif self.state is AgentState.INITIALIZING:
            self.move(Event.CONFIG_INVALID)
        elif self.state is AgentState.READY:
            self.move(Event.SHUTDOWN)
        else:
            self._return()
            if isinstance(error, BudgetExceeded):
                numbers = {
                    name: error.fields.get(name) for name in ("account", "kind", "most", "spent", "held", "wanted")
                }
                self._pending.append(Draft(AuditEventType.BUDGET_EXCEEDED, self.agent, numbers, self.run_id))
            event = event_for(error, state)
            self.move(event, _why(error, event))

    def _return(self) -> None:
        """What ends while it is suspended, such as by the answer that it waited for, has gone on to its end."""
        if self.state is AgentState.SUSPENDED:
            self.move(Event.RESUMED, {"reason": "its work is over"})

    def stop(self, more: Mapping[str, JsonValue]) -> None:
        """An operator has stopped it, wherever it stands."""
        self.move(_STOPS.get(self.state, Event.FORCED), more)

    def drafts(self) -> tuple[Draft, ...]:
        """The moves since the last call."""
        pending, self._pending = tuple(self._pending), []
        return pending


def _is_violation(error: SymbiError) -> bool:
    """Whether it is policy, or an unproven identity, that an agent was suspended for; else what it lacks."""
    return remedy_for(type(error)) is Remedy.SUSPEND and not isinstance(error, LimitExceeded)


def event_for(error: SymbiError, state: RunState) -> Event:
    """What an error that ended a running agent means to its life, by what became of its run."""
    remedy = remedy_for(type(error))
    if state is RunState.HELD:
        if remedy is Remedy.RESTART:
            return Event.SHUTDOWN  # it is made anew
        return Event.POLICY_VIOLATION if _is_violation(error) else Event.RESOURCES_EXHAUSTED
    return Event.CRASH_LOOP if remedy in {Remedy.RETRY, Remedy.RESTART} else Event.FORCED


def _why(error: SymbiError, event: Event) -> Mapping[str, JsonValue]:
    """What the trail says of such a move: of which error, and of a loop how often and since when."""
    why: dict[str, JsonValue] = {"error": error.code}
    if event is Event.SHUTDOWN:
        why["reason"] = "it is started again"
    if event is Event.CRASH_LOOP:
        why |= {name: error.fields[name] for name in (TRIES, SINCE) if name in error.fields}
    return why


def transition(was: AgentState, event: Event, state: AgentState) -> dict[str, JsonValue]:
    """What the trail says of a move."""
    return {"from": was.value, "event": event.value, "to": state.value}


def reason_of(state: AgentState, drafts: Iterable[Draft]) -> str:
    """Why an agent stands where it does, of the moves that brought it there."""
    if state in {AgentState.READY, AgentState.RUNNING}:
        return ""
    last = list(drafts)[-1].details
    why = last.get("error") or last.get("by") or ""
    return told_reason(str(last["event"]), str(why))


def told_reason(event: str, why: str) -> str:
    """An event, and what it was for, in a few words."""
    return f"{event}: {why}" if why else f"{event}"
