"""The life of an agent as a table: (state, event) to state; pure.

`TRANSITIONS` holds the seed's diagram and, in `OURS`, what other promises need beyond it: preemption, exhausted
resources and an operator suspend a running agent; what suspended it may end in more ways than by policy; a crash loop
fails it; and whatever is not yet ready, or is at work, can be shut down or forced to stop. Every other pair is an error.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from symbi.errors import InputError


class AgentState(StrEnum):
    """Where an agent stands; the seed's names."""

    INITIALIZING = "Initializing"
    """Its file is parsed and its configuration checked."""
    READY = "Ready"
    """It waits for a task."""
    RUNNING = "Running"
    """It works on one."""
    SUSPENDED = "Suspended"
    """It was stopped where it was, and can go on from there."""
    FAILED = "Failed"
    """It cannot work; nobody has put it away yet."""
    TERMINATED = "Terminated"
    """It is gone."""


class Event(StrEnum):
    """What happens to an agent; the values are the labels of the diagram."""

    CONFIG_VALID = "Valid Config"
    CONFIG_INVALID = "Invalid Config"
    TASK_ASSIGNED = "Task Assigned"
    TASK_COMPLETE = "Task Complete"
    POLICY_VIOLATION = "Policy Violation"
    POLICY_CLEARED = "Policy Cleared"
    MANUAL_OVERRIDE = "Manual Override"
    SHUTDOWN = "Shutdown"
    DISCARDED = "Discarded"
    """A failed agent is put away; the seed draws the arrow without a label."""
    PREEMPTED = "Preempted"
    RESOURCES_EXHAUSTED = "Resources Exhausted"
    OPERATOR_SUSPENDED = "Suspended by Operator"
    RESUMED = "Resumed"
    """Whatever else than policy had suspended it is over: its turn has come, resources are back, the operator says so."""
    RELEASED = "Released by Operator"
    """An agent that was suspended while it waited, or whose work is over, waits for messages again."""
    CRASH_LOOP = "Crash Loop"
    """It failed as often as its supervisor allows."""
    FORCED = "Forced Stop"


SEED: Final[Mapping[tuple[AgentState, Event], AgentState]] = MappingProxyType(
    {
        (AgentState.INITIALIZING, Event.CONFIG_VALID): AgentState.READY,
        (AgentState.INITIALIZING, Event.CONFIG_INVALID): AgentState.FAILED,
        (AgentState.READY, Event.TASK_ASSIGNED): AgentState.RUNNING,
        (AgentState.RUNNING, Event.POLICY_VIOLATION): AgentState.SUSPENDED,
        (AgentState.RUNNING, Event.TASK_COMPLETE): AgentState.READY,
        (AgentState.SUSPENDED, Event.POLICY_CLEARED): AgentState.RUNNING,
        (AgentState.SUSPENDED, Event.MANUAL_OVERRIDE): AgentState.TERMINATED,
        (AgentState.READY, Event.SHUTDOWN): AgentState.TERMINATED,
        (AgentState.FAILED, Event.DISCARDED): AgentState.TERMINATED,
    }
)
"""The seed's diagram, in its order."""

OURS: Final[Mapping[tuple[AgentState, Event], AgentState]] = MappingProxyType(
    {
        (AgentState.RUNNING, Event.PREEMPTED): AgentState.SUSPENDED,
        (AgentState.RUNNING, Event.RESOURCES_EXHAUSTED): AgentState.SUSPENDED,
        (AgentState.RUNNING, Event.OPERATOR_SUSPENDED): AgentState.SUSPENDED,
        (AgentState.SUSPENDED, Event.RESUMED): AgentState.RUNNING,
        (AgentState.READY, Event.OPERATOR_SUSPENDED): AgentState.SUSPENDED,
        (AgentState.SUSPENDED, Event.RELEASED): AgentState.READY,
        (AgentState.RUNNING, Event.CRASH_LOOP): AgentState.FAILED,
        (AgentState.INITIALIZING, Event.SHUTDOWN): AgentState.TERMINATED,
        (AgentState.RUNNING, Event.SHUTDOWN): AgentState.TERMINATED,
        (AgentState.INITIALIZING, Event.FORCED): AgentState.TERMINATED,
        (AgentState.RUNNING, Event.FORCED): AgentState.TERMINATED,
    }
)
"""What other promises need beyond it."""

TRANSITIONS: Final[Mapping[tuple[AgentState, Event], AgentState]] = MappingProxyType({**SEED, **OURS})
"""Every move that an agent can make."""

FIRST: Final = AgentState.INITIALIZING
LAST: Final = AgentState.TERMINATED


def advance(state: AgentState, event: Event) -> AgentState:
    """The state after an event.

    Raises:
        InputError: The event cannot happen in this state; the state stays as it is.
    """
    following = TRANSITIONS.get((state, event))
    if following is None:
        possible = [f"`{known}`" for origin, known in TRANSITIONS if origin is state]
        msg = f"`{event}` cannot happen to an agent that is `{state}`"
        hint = f"possible is {', '.join(possible)}" if possible else "nothing can"
        raise InputError(msg, code="lifecycle.transition", hint=hint, state=state.value, event=event.value)
    return following


def mermaid() -> str:
    """The table as a Mermaid state diagram; what goes beyond the seed is marked with an asterisk."""
    lines = ["stateDiagram-v2", f"    [*] --> {FIRST}"]
    lines += [f"    {state} --> {following}: {event}" for (state, event), following in SEED.items()]
    lines += [f"    {state} --> {following}: {event} *" for (state, event), following in OURS.items()]
    lines.append(f"    {LAST} --> [*]")
    return "\n".join(lines) + "\n"
