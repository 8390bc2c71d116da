"""A limit of N lets exactly N through: over interleavings of many tasks, failures, restarts and `kill -9`."""

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symbi.errors import PolicyDenied, RateLimited
from symbi.guard.action import InvokeTool, ToolRef
from symbi.guard.tally import Tally
from symbi.policy.catalog import ToolType
from symbi.policy.counters import Window
from symbi.testing.clock import ManualClock
from symbi.testing.gate import ALLOW_ALL, open_gate
from symbi.types import AgentId, Principal, ToolName

DRIVER = Path(__file__).parents[1] / "data" / "crash_pay.py"
SIGKILLED = -9
DAY_S = 86_400
SCHEMA = {"type": "object", "properties": {"amount": {"type": "number"}}}
TOOLS = [ToolType(ToolName("bank.pay"), SCHEMA)]
HISTORY = """
[history.paid]
kind = "sum"
action = "InvokeTool::bank.pay"
of = "arguments.amount"
unit = 0.01
per = "owner"
within = "24h"

[history.payments]
kind = "count"
action = "InvokeTool::bank.pay"
per = "all"
"""
POLICIES = ALLOW_ALL + '@id("500") forbid (principal, action, resource) when { context.history.paid > 50000 };'
COUNTED = ALLOW_ALL + "forbid (principal, action, resource) when {{ context.history.payments > {cap} }};"


def pay(amount, owner="ada", agent="a"):
    return InvokeTool(
        principal=Principal(AgentId(agent), owner),
        tool=ToolRef(ToolName("bank.pay"), "bank", "d" * 64, SCHEMA, verified=True),
        values={"amount": amount},
    )


@dataclass
class Payer:
    """One task: it asks, tells what it was answered, and ends as it is told."""

    guard: object
    action: object
    begins: bool
    answered: anyio.Event
    end: anyio.Event
    passed: bool = False

    async def run(self):
        try:
            async with self.guard.enforce(self.action) as permit:
                self.passed = True
                if self.begins:
                    self.guard.authority.redeem(permit, InvokeTool)
                self.answered.set()
                await self.end.wait()
                if not self.begins:
                    raise PolicyDenied("it did not begin after all")  # noqa: TRY301 - what an adapter raises before it acts
        except PolicyDenied:
            self.answered.set()


BATCHES = st.lists(
    st.tuples(
        st.integers(1, 12),  # how many ask at once
        st.sampled_from([60, 120, 250]),  # euros each
        st.lists(st.booleans(), min_size=12, max_size=12),  # whether each of them begins
        st.sampled_from(["", "", "restart", "crash", "next day"]),  # what comes after they were answered
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=40, deadline=None)
@given(BATCHES)
def test_over_all_interleavings_payments_stay_within_the_day_and_use_it_up(batches):
    with tempfile.TemporaryDirectory() as folder:
        anyio.run(_play, Path(folder), batches)


async def _play(folder, batches):
    clock, left, rest = ManualClock(), 500, list(batches)
    while rest:
        left = await _session(folder, clock, rest, left)


async def _session(folder, clock, rest, left):
    """Batches until a restart or a crash; returns what of the day is left then."""
    async with open_gate(POLICIES, history=HISTORY, tools=TOOLS, folder=folder, clock=clock) as gate:
        await gate.guard.open()
        while rest:
            count, amount, begins, then = rest.pop(0)
            payers = [
                Payer(gate.guard, pay(amount, agent=f"a{i}"), begins[i], anyio.Event(), anyio.Event())
                for i in range(count)
            ]
            if then == "crash":
                gate.guard._settlement.failure = gate.guard._settlement.success = _nothing
            async with anyio.create_task_group() as tasks:
                for payer in payers:
                    tasks.start_soon(payer.run)
                for payer in payers:
                    await payer.answered.wait()
                passed = [payer for payer in payers if payer.passed]
                assert len(passed) == min(count, left // amount), (count, amount, left)
                for payer in payers:
                    payer.end.set()
            # What had not begun is given back; a crash leaves it in doubt, and so counted.
            left -= amount * (len(passed) if then == "crash" else sum(payer.begins for payer in passed))
            if then == "next day":
                clock.advance(DAY_S)
                left = 500
            if then in {"restart", "crash"}:
                return left
    return left


async def _nothing(*_arguments, **_named):
    """The process is gone before an outcome is on record."""


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 60))
def test_50_at_once_against_a_cap_of_n_let_exactly_n_through(cap):
    async def main():
        async with open_gate(COUNTED.format(cap=cap), history=HISTORY, tools=TOOLS) as gate:
            assert await _passed(gate, 50) == min(cap, 50)

    anyio.run(main)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 60))
def test_50_at_once_under_a_rate_of_n_let_exactly_n_through(limit):
    async def main():
        clock = ManualClock()
        policies = f'@rate("{limit}/minute") permit (principal, action, resource);'
        async with open_gate(policies, tools=TOOLS, clock=clock) as gate:
            for _ in range(2):
                assert await _passed(gate, 50) == min(limit, 50)
                clock.advance(60)

    anyio.run(main)


async def _passed(gate, count):
    passed = []

    async def one():
        try:
            async with gate.guard.enforce(pay(1)) as permit:
                gate.guard.authority.redeem(permit, InvokeTool)
                passed.append(True)
        except (PolicyDenied, RateLimited):
            pass

    async with anyio.create_task_group() as tasks:
        for _ in range(count):
            tasks.start_soon(one)
    return len(passed)


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("point", ["before_dispatch", "dispatched", "done", "before_settle", "settled"])
def test_a_budget_survives_kill_9_at_every_point(tmp_path, point, number):
    command = [sys.executable, str(DRIVER), str(tmp_path), point, str(number), POLICIES, HISTORY]
    killed = subprocess.run(command, capture_output=True, timeout=120, check=False)
    assert killed.returncode == SIGKILLED, killed.stderr.decode()

    async def main():
        async with open_gate(POLICIES, history=HISTORY, tools=TOOLS, folder=tmp_path) as gate:
            await gate.guard.open()
            reserved = sum(event.event_type == "decision.allow" for event in gate.events())
            (total,) = gate.store.read_tallies([_paid()], ManualClock().now_ns())
            assert total.total == 10_000 * reserved  # each that was reserved durably, and no other
            assert await _passed_of_100(gate) == 5 - reserved

    anyio.run(main)


def _paid():
    return Tally("paid/sum/arguments.amount/2/window", "owner:ada", Window(DAY_S))


async def _passed_of_100(gate):
    passed = 0
    for _ in range(10):
        try:
            async with gate.guard.enforce(pay(100)) as permit:
                gate.guard.authority.redeem(permit, InvokeTool)
                passed += 1
        except PolicyDenied:
            pass
    return passed
