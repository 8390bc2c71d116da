"""Health of servers by the clock, and servers that files name."""

from dataclasses import replace

import anyio
import pytest

from symbi.errors import InputError, PinMismatch, StoreUnavailable, TimeLimit
from symbi.testing.clock import ManualClock
from symbi.tools.catalog import Catalog, VerificationMode
from symbi.tools.port import ReviewKind, ReviewState
from symbi.tools.review import HELD, REJECTED
from symbi.tools.reviewing import ToolReviews
from symbi.tools.upkeep import Upkeep
from symbi.types import AgentId, Principal

pytestmark = pytest.mark.anyio
PERSON = Principal(AgentId("operator"), "ada")


def hang(bench):
    asked = []

    async def ping(within_s):
        asked.append(within_s)
        raise TimeLimit("no answer")

    bench.server.ping = ping
    return asked


async def test_a_server_is_asked_when_it_is_time_and_one_that_is_well_stays(open_bench):
    clock = ManualClock()
    async with open_bench(clock=clock) as bench:
        upkeep = Upkeep(bench.catalog, clock, interval_s=30.0, within_s=5.0)
        assert not await upkeep.look()
        clock.advance(29.0)
        assert not await upkeep.look()
        clock.advance(1.0)
        assert await upkeep.look()
        assert not await upkeep.look()
        await bench.call(to="x")


async def test_one_that_does_not_answer_is_connected_no_more_and_started_again_at_the_next_call(open_bench):
    clock = ManualClock()
    async with open_bench(clock=clock) as bench:
        upkeep = Upkeep(bench.catalog, clock, interval_s=30.0, within_s=5.0)
        asked = hang(bench)
        clock.advance(30.0)
        await upkeep.look()
        assert asked == [5.0]
        with pytest.raises(TimeLimit):
            bench.prepare(to="x")
        await bench.catalog.revive("mail", PERSON)
        await bench.call(to="x")


async def test_a_busy_one_is_not_asked(open_bench):
    clock = ManualClock()
    async with open_bench(clock=clock) as bench:
        upkeep = Upkeep(bench.catalog, clock, interval_s=30.0, within_s=5.0)
        asked = hang(bench)
        async with bench.catalog.dependency_of("mail").seat():
            clock.advance(30.0)
            await upkeep.look()
        assert asked == []


async def test_failures_open_the_breaker_on_the_trail(open_bench):
    clock = ManualClock()
    async with open_bench(clock=clock) as bench:
        hang(bench)
        for _ in range(5):
            await bench.catalog.refresh("mail")
            await bench.catalog.check("mail", 1.0)
        assert "dependency.opened" in bench.kinds()


async def test_no_interval_is_no_question(open_bench):
    clock = ManualClock()
    async with open_bench(clock=clock) as bench:
        upkeep = Upkeep(bench.catalog, clock, interval_s=0.0, within_s=5.0)
        clock.advance(10_000.0)
        assert not await upkeep.look()
        with anyio.fail_after(1):
            await upkeep.run()


async def test_a_store_that_is_full_ends_no_upkeep(open_bench):
    clock = ManualClock()
    async with open_bench(clock=clock) as bench:
        upkeep = Upkeep(bench.catalog, clock, interval_s=30.0, within_s=5.0)

        async def fails(_server, _within_s):
            raise StoreUnavailable("the disk is full")

        bench.catalog.check = fails
        clock.advance(30.0)
        assert await upkeep.look()


# --- servers that files name ----------------------------------------------------------------------------------------


def found_in_a_file(bench, digest="d" * 64):
    link = bench.catalog.link("mail")
    changed = replace(link, source=".mcp.json", digest=digest, definition='{"command": "x"}')
    return Catalog(bench.gate.guard, bench.verifier, [changed])


def kept(bench):
    return bench.gate.store.get_review(ReviewKind.SERVER, "mail")


async def test_a_server_that_was_found_waits_in_strict_mode_until_a_person_accepts_exactly_that(open_bench):
    async with open_bench() as bench:
        bench.verifier.mode = VerificationMode.STRICT
        catalog = found_in_a_file(bench)
        before = len(bench.gate.events())
        with pytest.raises(
            PinMismatch, match=r"waits for somebody to accept it: it was found in \.mcp\.json"
        ) as caught:
            await catalog.refresh("mail")
        assert caught.value.code == HELD
        assert [event.event_type for event in bench.gate.events()[before:]] == ["tool.reviewed"]
        assert kept(bench).state is ReviewState.WAITING
        with pytest.raises(PinMismatch, match="not what was shown"):
            await ToolReviews(catalog).decide_server("mail", "0" * 64, PERSON, accept=True)
        await ToolReviews(catalog).decide_server("mail", "d" * 64, PERSON, accept=True)
        await catalog.refresh("mail")
        assert catalog.is_connected("mail")
        changed = found_in_a_file(bench, "e" * 64)
        with pytest.raises(PinMismatch, match="has changed since"):
            await changed.refresh("mail")


async def test_what_was_rejected_is_taken_out_at_once(open_bench):
    async with open_bench() as bench:
        catalog = found_in_a_file(bench)
        await catalog.refresh("mail")
        assert kept(bench).state is ReviewState.ACCEPTED
        await ToolReviews(catalog).decide_server("mail", "d" * 64, PERSON, accept=False)
        with pytest.raises(PinMismatch):
            catalog.find("mail.send")
        with pytest.raises(PinMismatch) as caught:
            await catalog.refresh("mail")
        assert caught.value.code == REJECTED


async def test_in_tofu_it_is_taken_at_first_sight_and_what_it_becomes_waits(open_bench):
    async with open_bench() as bench:
        await found_in_a_file(bench).refresh("mail")
        with pytest.raises(PinMismatch) as caught:
            await found_in_a_file(bench, "e" * 64).refresh("mail")
        assert caught.value.code == HELD


async def test_policies_see_where_it_was_found(open_bench):
    policies = (
        '@id("all") permit (principal, action, resource);'
        '@id("files") forbid (principal, action == Action::"ConnectServer", resource) when { context has source };'
    )
    async with open_bench(policies) as bench:
        with pytest.raises(Exception, match="files"):
            await found_in_a_file(bench).refresh("mail")


async def test_a_configured_server_waits_for_nobody(open_bench):
    async with open_bench() as bench:
        bench.verifier.mode = VerificationMode.STRICT
        await bench.verifier.admit(bench.catalog.link("mail"))
        with pytest.raises(InputError, match="is configured, and not found in a file"):
            await ToolReviews(bench.catalog).decide_server("mail", "", PERSON, accept=True)
