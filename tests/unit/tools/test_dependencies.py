"""Calls of tools behind breakers and bulkheads: refused before the gate, started again where a server died, and side by side."""

from contextlib import AsyncExitStack

import anyio
import pytest

from symbi.errors import Overloaded, PolicyDenied, SymbiError, TimeLimit, ToolFailed, ToolServerUnavailable, Unavailable
from symbi.guard.action import InvokeTool, RunSlot
from symbi.policy.catalog import ToolType
from symbi.policy.policies import PolicySet
from symbi.testing.gate import open_gate
from symbi.testing.tool_servers import ToolServerSimulator
from symbi.tools.breaker import BreakerState, BreakerTerms
from symbi.tools.catalog import Catalog, ServerLink, ToolVerifier, VerificationMode
from symbi.tools.dependency import DependencyTerms
from symbi.tools.invoke import Invoker
from symbi.tools.manifest import ToolEntry
from symbi.tools.port import RawToolResult, ToolDefinition
from symbi.types import AgentId, Principal, RecoveryClass, RunId

pytestmark = pytest.mark.anyio

AGENT = Principal(AgentId("triage"))
SCHEMA = {"type": "object", "properties": {"to": {"type": "string"}}, "required": ["to"], "additionalProperties": False}
ALL_BUT_CONNECT = """
@id("all") permit (principal, action, resource);
@id("no") forbid (principal == Agent::"triage", action == Action::"ConnectServer", resource);
"""


async def fail(_arguments, _effect):
    raise ToolServerUnavailable("gone")


async def hang(_arguments, _effect):
    await anyio.sleep_forever()


async def says_no(_arguments, _effect):
    return RawToolResult("no", None, is_error=True)


def asked(bench, number=0):
    prepared = bench.prepare(to="a@b", slot=RunSlot(RunId("r"), number))
    return InvokeTool(principal=AGENT, slot=prepared.slot, tool=prepared.tool, values=prepared.values)


class Refusals(list):
    async def __call__(self, error):
        self.append(error)


async def open_circuit(bench):
    bench.answer = fail
    for _ in range(5):
        with pytest.raises(ToolServerUnavailable):
            await bench.call(to="a@b")
    assert bench.catalog.dependencies[0].state is BreakerState.OPEN


async def test_an_open_breaker_refuses_before_the_gate_and_nothing_is_called(open_bench):
    async with open_bench() as bench:
        call = asked(bench)
        await open_circuit(bench)
        calls, kinds = len(bench.server.calls), bench.kinds()
        refusals = Refusals()
        for attempt in (lambda: bench.prepare(to="a@b"), None):
            with pytest.raises(Unavailable, match="left alone") as refused:
                if attempt is not None:
                    attempt()
                else:
                    async with bench.invoker.admitted(call, refusals):
                        pytest.fail("admitted")
            assert refused.value.code == "unavailable.circuit_open"
            assert refused.value.fields["retry_after_s"] > 0
        assert [error.code for error in refusals] == ["unavailable.circuit_open"]
        assert (len(bench.server.calls), bench.kinds()) == (calls, kinds)
        bench.gate.clock.advance(10.0)
        bench.answer = None
        await bench.call(to="a@b")
        assert bench.catalog.dependencies[0].state is BreakerState.CLOSED


async def test_a_breaker_that_opens_behind_the_gate_sends_nothing_and_the_effect_has_failed(open_bench):
    async with open_bench() as bench:
        action = bench.prepare(to="a@b", slot=RunSlot(RunId("r"), 0))
        await open_circuit(bench)
        calls = len(bench.server.calls)
        with pytest.raises(Unavailable, match="left alone"):
            await bench.invoker.call(action)
        assert len(bench.server.calls) == calls
        assert bench.gate.store.effect_at("r", 0).state.value == "failed"
        assert bench.gate.events()[-1].details["used"] is False


async def test_time_outs_open_it_and_a_tools_own_errors_do_not(open_bench):
    async with open_bench(entry=ToolEntry(RecoveryClass.IDEMPOTENT, timeout_s=0.001)) as bench:
        bench.answer = says_no
        for _ in range(20):
            with pytest.raises(ToolFailed):
                await bench.call(to="a@b")
        assert bench.catalog.dependencies[0].state is BreakerState.CLOSED
        bench.answer = hang
        for _ in range(5):
            with pytest.raises(TimeLimit):
                await bench.call(to="a@b")
        assert bench.catalog.dependencies[0].state is BreakerState.OPEN


async def test_cancelled_and_denied_calls_do_not_open_it(open_bench):
    async with open_bench('@id("c") permit (principal, action == Action::"ConnectServer", resource);') as bench:
        for _ in range(20):
            with pytest.raises(PolicyDenied):
                await bench.call(to="a@b")
        assert bench.catalog.dependencies[0].state is BreakerState.CLOSED
    async with open_bench() as bench:
        bench.answer = hang
        for number in range(1, 21):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: bench.call(to="a@b"))
                while len(bench.server.calls) < number:
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
        assert bench.catalog.dependencies[0].state is BreakerState.CLOSED


# --- a server that died --------------------------------------------------------------------------


async def test_a_server_that_died_is_started_again_at_the_next_call_through_the_gate(open_bench):
    async with open_bench() as bench:
        call, refusals = asked(bench), Refusals()
        before = len(bench.kinds())
        bench.server.die()
        async with bench.invoker.admitted(call, refusals) as action:
            assert (await bench.invoker.call(action)).value == "sent to a@b"
        told = [event.details.get("action") for event in bench.gate.events()[before:]]
        told.remove(None)  # it was verified anew
        assert told == ["ConnectServer", "ConnectServer", "InvokeTool::mail.send", "InvokeTool::mail.send"]
        assert refusals == []


async def test_policies_are_told_where_a_server_that_was_started_again_has_other_tools(open_bench):
    async with open_bench() as bench:
        call, told = asked(bench), []

        async def changed():
            told.append(len(bench.catalog.tools))

        bench.catalog.changed = changed
        bench.server.die()
        async with bench.invoker.admitted(call, Refusals()):
            assert told == []
        _, answer = bench.server.tools[0]
        bench.server.tools.append((ToolDefinition("mail", "other", "Another.", SCHEMA), answer))
        bench.gate.clock.advance(100.0)
        bench.server.die()
        async with bench.invoker.admitted(call, Refusals()):
            assert told == [2]


async def test_many_calls_at_once_start_it_once(open_bench):
    async with open_bench() as bench:
        calls = [asked(bench, number) for number in range(20)]
        bench.server.die()
        before = sum(event.details.get("action") == "ConnectServer" for event in bench.gate.events())

        async def call(one):
            async with bench.invoker.admitted(one, Refusals()) as action:
                await bench.invoker.call(action)

        async with anyio.create_task_group() as tasks:
            for one in calls:
                tasks.start_soon(call, one)
        after = sum(event.details.get("action") == "ConnectServer" for event in bench.gate.events())
        assert after - before == 2  # a decision and an outcome
        assert len(bench.server.calls) == 20


async def test_a_server_that_dies_all_the_time_is_started_ever_more_seldom(open_bench):
    async with open_bench() as bench:
        call, starts = asked(bench), 0
        connect = bench.server.connect

        async def counted(permit):
            nonlocal starts
            starts += 1
            return await connect(permit)

        bench.server.connect = counted
        waits = []
        for _ in range(40):
            bench.server.die()
            try:
                async with bench.invoker.admitted(call, Refusals()):
                    pass
            except ToolServerUnavailable as error:
                waits.append(error.fields["retry_after_s"])
            bench.gate.clock.advance(1.0)
        assert starts <= 8  # of 40 asked for in 40 s: after 0, 0.5, 1, 2, 4, 8, 16 s
        assert max(waits) > 10
        bench.gate.clock.advance(100.0)
        bench.server.die()
        async with bench.invoker.admitted(call, Refusals()):
            assert bench.server.connected


async def test_a_start_that_policy_denies_is_told_at_its_place_and_nothing_is_started(open_bench):
    async with open_bench(ALL_BUT_CONNECT) as bench:
        call, refusals = asked(bench), Refusals()
        bench.server.die()
        with pytest.raises(PolicyDenied):
            async with bench.invoker.admitted(call, refusals):
                pytest.fail("admitted")
        assert not bench.server.connected
        assert [type(error) for error in refusals] == [PolicyDenied]


async def test_a_start_that_fails_counts_and_the_breaker_keeps_it_from_being_tried(open_bench):
    async with open_bench() as bench:
        call, tried = asked(bench), 0

        async def refuse(permit):
            nonlocal tried
            tried += 1
            raise ToolServerUnavailable("cannot be started")

        bench.server.connect = refuse
        bench.server.die()
        codes = []
        for _ in range(60):
            with pytest.raises(SymbiError) as error:
                async with bench.invoker.admitted(call, Refusals()):
                    pytest.fail("admitted")
            codes.append(error.value.code)
            bench.gate.clock.advance(0.5)
        assert tried < 10
        assert "unavailable.tool_server" in codes


async def test_who_tries_a_server_that_hangs_begins_with_a_fresh_process_if_nobody_else_is_at_work_there(open_bench):
    async with open_bench() as bench:
        call, starts = asked(bench), 0
        connect = bench.server.connect

        async def counted(permit):
            nonlocal starts
            starts += 1
            return await connect(permit)

        bench.server.connect = counted
        await open_circuit(bench)
        dependency = bench.catalog.dependency_of("mail")
        async with dependency.seat():
            bench.gate.clock.advance(20.0)
            async with bench.invoker.admitted(call, Refusals()) as action:
                with pytest.raises(ToolServerUnavailable):
                    await bench.invoker.call(action)
            assert starts == 0
        bench.gate.clock.advance(40.0)
        bench.answer = None
        async with bench.invoker.admitted(call, Refusals()) as action:
            await bench.invoker.call(action)
        assert starts == 1
        assert bench.catalog.dependencies[0].state is BreakerState.CLOSED


async def test_who_begins_with_a_server_that_is_up_is_decided_and_starts_nothing(open_bench):
    async with open_bench(ALL_BUT_CONNECT) as bench:
        connect = bench.server.connect

        async def never(_permit):
            pytest.fail("it was connected anew")

        bench.server.connect = never
        await bench.catalog.ready("mail", Principal(AgentId("other")))
        with pytest.raises(PolicyDenied):
            await bench.catalog.ready("mail", AGENT)
        bench.server.connect = connect
        bench.server.die()
        await bench.catalog.ready("mail", Principal(AgentId("other")))
        assert bench.server.connected


async def test_a_tool_is_known_by_its_manifest_also_while_its_server_is_gone(open_bench):
    async with open_bench() as bench:
        flow = bench.invoker.flow_of("mail.send")
        assert flow is not None

        async def refuse(_permit):
            raise ToolServerUnavailable("cannot be started")

        bench.server.connect = refuse
        with pytest.raises(ToolServerUnavailable):
            await bench.catalog.refresh("mail")
        assert bench.invoker.flow_of("mail.send") == flow
        assert bench.invoker.flow_of("mail.other") is None


# --- side by side --------------------------------------------------------------------------------


async def test_a_slow_server_takes_no_more_than_its_places_and_slows_no_other(open_bench):
    del open_bench
    async with open_gate() as gate, AsyncExitStack() as stack:

        async def quick(_arguments, _effect):
            return RawToolResult("done", None, is_error=False)

        terms = DependencyTerms(4, 8, 600.0, BreakerTerms())
        links = []
        for name, answer in (("slow", hang), ("quick", quick)):
            tools = [(ToolDefinition(name, "do", "Does.", SCHEMA), answer)]
            server = await stack.enter_async_context(ToolServerSimulator(name, gate.guard.authority, tools))
            links.append(ServerLink(name, server.command_line, server, timeout_s=3600.0, terms=terms))
        verifier = ToolVerifier(VerificationMode.TOFU, gate.store, gate.log, gate.engine, gate.clock)
        catalog = Catalog(gate.guard, verifier, links)
        await catalog.refresh("slow")
        await catalog.refresh("quick")
        old = gate.engine.current
        types = [ToolType(ref.name, ref.input_schema) for ref in catalog.refs]
        gate.engine.replace(PolicySet.load(old.sources, old.compiled, types))
        invoker, ended, refused = Invoker(catalog, gate.guard), [], []

        async def call(name):
            wanted = invoker.prepare(AGENT, f"{name}.do", {"to": "x"})
            action = InvokeTool(principal=AGENT, tool=wanted.tool, values=wanted.values)
            try:
                async with invoker.admitted(action, Refusals()) as admitted:
                    await invoker.call(admitted)
                ended.append(name)
            except Overloaded as error:
                refused.append((name, error.retry_after_s))

        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(call, "slow")
            while len(refused) < 38:
                await anyio.lowlevel.checkpoint()
            for _ in range(50):
                await call("quick")
            slow, fast = catalog.dependencies[1], catalog.dependencies[0]
            assert (slow.calls, slow.waiting) == (4, 8)
            assert (fast.calls, fast.waiting) == (0, 0)
            assert ended == ["quick"] * 50
            assert {name for name, _ in refused} == {"slow"}
            tasks.cancel_scope.cancel()
        assert (catalog.dependencies[1].calls, catalog.dependencies[1].waiting) == (0, 0)
