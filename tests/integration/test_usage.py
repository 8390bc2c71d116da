"""What agents use, measured in whole runtimes: shares that add up, code, bytes; breaches; and how a runtime stands."""

import json
import os
import time
from dataclasses import replace

import anyio
import anyio.lowlevel
import pytest

from symbi.adapters.sqlite import SqliteReader
from symbi.agent.journal import RunState
from symbi.api.caller import Caller, operate
from symbi.api.control import OPERATIONS
from symbi.audit.event import AuditEventType, parse_event
from symbi.errors import InputError, MemoryLimit
from symbi.runtime.usage import MAX_KNOWN, UsageBook, Used, Whose
from symbi.telemetry import Metrics
from symbi.testing.runtime import open_in
from symbi.testing.servers import in_place_of, simulated
from symbi.tools.port import RawToolResult
from symbi.types import AgentId, ResourceLimits, RunId

pytestmark = pytest.mark.anyio

PERMIT = "permit (principal, action, resource);"
COMPUTE = """
agent {name} {{
    with sandbox = interpreter, timeout = 300.seconds {{
        let s = 0;
        for i in range({rounds}) {{ for j in range(1000) {{ s += 1; }} }}
        return s;
    }}
}}
"""
PLENTY = "[limits]\nsteps = 1000000000\ncpu_cores = 64.0\n"


def spec_of(opened, name):
    return next(one for one in opened.compiled.agents if one.id == name)


async def run(opened, name):
    return await opened.runtime.run(opened.compiled, spec_of(opened, name), {})


def events(folder, kind):
    with SqliteReader(folder / ".symbi") as reader:
        return [event for one in reader.read(1) if (event := parse_event(one.record)).event_type == kind]


async def test_shares_of_the_processor_add_up_to_what_the_process_used(tmp_path):
    text = "".join(COMPUTE.format(name=name, rounds=60) for name in "abcd")  # at the same time, on the same processor
    ada = "".join(f'[agents.{name}]\nowner = "ada"\n' for name in "bcd")
    async with open_in(tmp_path, text, config=PLENTY + ada, policies=PERMIT) as opened:
        book = opened.runtime.measuring.book
        before = time.thread_time_ns()
        async with anyio.create_task_group() as tasks:
            for name in "abcd":
                tasks.start_soon(run, opened, name)
        whole = time.thread_time_ns() - before
        a, *others = (book.of_agent(AgentId(name)).cpu_ns for name in "abcd")
        b = sum(others)
        assert 0.85 * whole < a + b <= whole, "the rest began and ended the runs"
        assert 2.4 < b / a < 3.6, "three times the work"
        assert book.by("owner")["ada"].cpu_ns == b
        assert book.total().cpu_ns == a + b
        assert (book.of_agent(AgentId("a")).runs, book.of_agent(AgentId("nobody")).runs) == (1, 0)


async def test_code_in_a_worker_counts_for_whose_it_is_also_where_it_fails(tmp_path):
    code = "s = 0\\nfor i in range(3000000):\\n    s += i\\n"
    text = f"""
agent a {{ with sandbox = interpreter, timeout = 60.seconds {{ return python("{code}s"); }} }}
agent b {{ with sandbox = interpreter, timeout = 60.seconds {{ return python("{code}1 / 0"); }} }}
"""
    async with open_in(tmp_path, text, config=PLENTY, policies=PERMIT) as opened:
        assert (await run(opened, "a")).state is RunState.FINISHED
        assert (await run(opened, "b")).error.code == "agent.code"
        for name in ("a", "b"):
            used = opened.runtime.measuring.book.of_agent(AgentId(name))
            assert used.code_cpu_ns > 10 * 1_000_000
            assert used.code_memory_bytes > 1 << 20


async def test_bytes_of_tools_and_effects_are_counted_and_a_replay_uses_nothing(tmp_path):
    async def answer(_arguments, _effect_id):
        return RawToolResult("x" * 100, None, is_error=False)

    text = 'agent a { with { log("one"); tool("files.read", path = "abc"); tool("files.read", path = "abcd"); return 1; } }'
    config = PLENTY + '[mcp]\ntool_verification = "disabled"\n[mcp.servers.files]\ncommand = ["files"]\n'
    with in_place_of({"files": simulated("files", {"read": answer})}):
        async with open_in(tmp_path, text, config=config, policies=PERMIT) as opened:
            await run(opened, "a")
            used = opened.runtime.measuring.book.of_agent(AgentId("a"))
    assert (used.effects, used.calls) == (3, 2)
    assert used.bytes_out == len('{"path":"abc"}') + len('{"path":"abcd"}')
    assert used.bytes_in == 2 * len(json.dumps("x" * 100))


class Counted:
    """A run at work that has used something each time."""

    def __init__(self, agent):
        self.whose = Whose(AgentId(agent), AgentId(agent.partition("/")[0]), "ada")

    def take(self):
        return Used(effects=1)


def test_totals_of_agents_are_bounded_and_those_of_declarations_lose_nothing():
    book = UsageBook(Metrics())
    for number in range(MAX_KNOWN + 10):
        run_id = RunId(f"r{number}")
        book.begin(run_id, Counted(f"a/{number}"))
        book.end(run_id)
    assert len(book.by("agent")) == MAX_KNOWN
    assert book.of_agent(AgentId("a/0")) == Used(), "it worked longest ago"
    assert book.by("declared")["a"].effects == book.total().effects == MAX_KNOWN + 10


# --- breaches -----------------------------------------------------------------------------------

SPINS = """
agent a {
    with sandbox = interpreter, timeout = 300.seconds, max_cpu_cores = 0.01 {
        for i in range(1000) { let s = 0; for j in range(20000) { s += 1; } log(i); }
    }
}
"""


async def test_who_uses_more_than_its_share_is_stopped_and_the_trail_says_why(tmp_path):
    config = PLENTY + '[agents.a]\non_breach = "stop"\n'
    async with open_in(tmp_path, SPINS, config=config, policies=PERMIT) as opened:
        with anyio.fail_after(120):
            outcome = await run(opened, "a")
        assert (outcome.state, outcome.error.code) == (RunState.FAILED, "agent.stopped")
        assert "symbi.limits: cpu" in outcome.error.message
    (breach,) = events(tmp_path, AuditEventType.AGENT_BREACH)
    assert breach.details["what"] == "cpu"
    assert breach.details["used"] > breach.details["claimed"] == 100
    assert breach.details["remedy"] == "stop"


async def test_who_uses_more_than_its_share_is_suspended_until_an_operator_lets_it_go_on(tmp_path):
    lines = []
    config = PLENTY + '[agents.a]\non_breach = "suspend"\n'
    async with open_in(
        tmp_path, SPINS, config=config, policies=PERMIT, emit=lambda _, line: lines.append(line)
    ) as opened:
        runtime = opened.runtime
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run, opened, "a")
            with anyio.fail_after(120):
                while (seat := runtime.seat_of(AgentId("a"))) is None or seat.holds or not seat.suspended:
                    await anyio.lowlevel.checkpoint()
                assert seat.stopped_by == "symbi.limits: cpu"
                assert (await runtime.get_system_status()).running == 0
                seen = len(lines)
                runtime.let_go_on(AgentId("a"))
                while len(lines) == seen:
                    await anyio.lowlevel.checkpoint()
            await runtime.stop(None, "ada")


# --- how a runtime stands -----------------------------------------------------------------------


ADA = f'[approvals.people.ada]\nuser = "{os.getuid()}"\ngroups = ["ops"]\n'


async def ask(opened, operation, **arguments):
    return await operate(opened.runtime, OPERATIONS, Caller(0, folder_owner=True), operation, arguments)


async def test_the_status_tells_what_is_at_work_and_what_was_used(tmp_path):
    text = COMPUTE.format(name="a", rounds=1) + 'agent waits { with { approval("ops", "may I?"); } }'
    async with open_in(tmp_path, text, config=PLENTY + ADA, policies=PERMIT, hold_s=None) as opened:
        empty = await ask(opened, "system.status")
        assert (empty["running"], empty["at_work"], empty["approvals"], empty["agents"]) == (0, 0, 0, {})
        await run(opened, "a")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run, opened, "waits")
            with anyio.fail_after(60):
                while not (now := await ask(opened, "system.status"))["approvals"]:
                    await anyio.lowlevel.checkpoint()
            assert (now["running"], now["at_work"], now["in_doubt"], now["dead_letters"]) == (1, 1, 0, 0)
            assert now["used"]["cpu_ms"] >= empty["used"]["cpu_ms"]
            assert now["used"]["runs"] == 1
            assert now["head"] > empty["head"]
            assert now["policies"] == opened.runtime.policies.current.version
            assert now["free"]["memory_mib"] == now["capacity"]["memory_mib"] - 64
            shown = await ask(opened, "agents.show", agent="waits")
            assert shown["used"]["effects"] == 0
            await opened.runtime.stop(None, "ada")
        rows = await ask(opened, "agents.usage", by="declared", order="runs", limit=1)
        assert len(rows) == 1
        with pytest.raises(InputError, match="cannot be `cpus`"):
            await ask(opened, "agents.usage", order="cpus")
        with pytest.raises(InputError, match="from 1 to"):
            await ask(opened, "agents.usage", limit=0)
    json.dumps(now)


async def test_who_is_held_to_its_memory_is_stopped_while_its_code_runs(tmp_path):
    code = "x = []\\nfor i in range(100000000):\\n    if i < 50000:\\n        x.append(i)\\n"
    text = f'agent a {{ with sandbox = interpreter, memory = "6MB", timeout = 60.seconds {{ return python("{code}len(x)"); }} }}'
    config = PLENTY + 'code_timeout_s = 60.0\ncode_memory_mb = 256\n[agents.a]\non_breach = "stop"\n'
    async with open_in(tmp_path, text, config=config, policies=PERMIT) as opened:
        with anyio.fail_after(60):
            outcome = await run(opened, "a")
        assert outcome.error.message.endswith("symbi.limits: memory")
        assert opened.runtime.measuring.book.of_agent(AgentId("a")).code_memory_bytes > 1 << 20
    (breach,) = events(tmp_path, AuditEventType.AGENT_BREACH)
    assert (breach.details["what"], breach.details["claimed"]) == ("memory", 6 << 20)
    assert breach.details["used"] > 6 << 20


async def test_the_memory_that_an_agent_claims_is_all_that_its_code_has_in_the_interpreter_too(tmp_path):
    text = """
agent small { with sandbox = interpreter, memory = "4MB", timeout = 60.seconds { return python("len('x' * 8000000)"); } }
agent quiet { with sandbox = interpreter, timeout = 60.seconds { return python("len('x' * 8000000)"); } }
"""
    async with open_in(tmp_path, text, config=PLENTY, policies=PERMIT) as opened:
        assert isinstance((await run(opened, "small")).error, MemoryLimit)
        assert (await run(opened, "quiet")).output == 8_000_000


async def test_an_agent_that_claims_bandwidth_of_a_disk_is_not_created(tmp_path):
    async with open_in(tmp_path, "agent a { with { return 1; } }", config=PLENTY, policies=PERMIT) as opened:
        spec = replace(spec_of(opened, "a"), limits=ResourceLimits(disk_io_mbps=100))
        with pytest.raises(InputError) as caught:
            await opened.runtime.run(opened.compiled, spec, {})
        assert caught.value.code == "limits.disk"
