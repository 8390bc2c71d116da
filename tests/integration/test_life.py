"""The life of an agent on the trail: every move of the lifecycle table that a run makes."""

import contextlib
import itertools

import pytest

from symbi.adapters.sqlite import SqliteReader
from symbi.audit.event import AuditEventType, parse_event
from symbi.errors import PolicyDenied
from symbi.testing.runtime import open_in

pytestmark = pytest.mark.anyio

CREATION = 'permit (principal, action == Action::"CreateAgent", resource);'
PERMITTED = """
    policy own {
        allow: allocate(pool)
    }
"""


def agent(body: str, policy: str = PERMITTED) -> str:
    return f"agent a {{ {policy} with sandbox = interpreter, timeout = 5.seconds {{ {body} }} }}"


async def moves(folder, text: str, policies: str) -> list[str]:
    async with open_in(folder, text, policies=policies) as opened:
        spec = opened.compiled.agents[0]
        with contextlib.suppress(PolicyDenied):  # what keeps the last of them from beginning
            await opened.runtime.run(opened.compiled, spec, {})
    with SqliteReader(folder / ".symbi") as reader:
        events = [parse_event(stored.record) for stored in reader.read(1)]
    told = [event.details for event in events if event.event_type == AuditEventType.AGENT_TRANSITION]
    for before, after in itertools.pairwise(told):
        assert before["to"] == after["from"]
    return [str(details["to"]) for details in told]


@pytest.mark.parametrize(
    ("text", "policies", "states"),
    [
        (agent("1 + 1"), CREATION, ["Ready", "Running", "Ready", "Terminated"]),
        (agent("log(1);"), CREATION, ["Ready", "Running", "Suspended"]),
        (agent('int("x")'), CREATION, ["Ready", "Running", "Terminated"]),
        (agent("let s = 0; for x in range(900000) { for y in range(900000) { s += 1; } } s"), CREATION, ["Ready", "Running", "Suspended"]),
        (agent("1"), "", ["Failed"]),
    ],
    ids=["finished", "denied", "failed", "out of steps", "not created"],
)  # fmt: skip
async def test_each_move_of_a_run_is_on_the_trail(tmp_path, text, policies, states):
    assert await moves(tmp_path, text, policies) == states
