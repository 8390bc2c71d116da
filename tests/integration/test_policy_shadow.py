"""A candidate set beside the live one: differences are recorded, and nothing that it says, does or breaks is enforced."""

from contextlib import suppress

import anyio
import anyio.lowlevel
import pytest

from symbi.audit.event import AuditEventType as T
from symbi.dsl.compile import compile_file
from symbi.dsl.parser import parse
from symbi.errors import InputError, PolicyDenied, StoreUnavailable
from symbi.guard.action import DrawRandom, ReadClock, RunSlot
from symbi.guard.recorder import Decided
from symbi.policy.policies import PolicySet
from symbi.runtime import policy_shadow
from symbi.runtime.policies import Cause, PolicyBook, PolicyTerms
from symbi.runtime.policy_shadow import PolicyShadow
from symbi.runtime.port import Bundle, PolicyFile
from symbi.testing.gate import DENY_ALL, open_gate
from symbi.types import AgentId, Principal, RunId

pytestmark = pytest.mark.anyio

AGENT = Principal(AgentId("a"))
ALL = '@id("all") permit (principal, action, resource);'
CLOCK = '@id("clock") permit (principal, action == Action::"ReadClock", resource);'
RECORDED = '@id("clock") @record("digest") permit (principal, action == Action::"ReadClock", resource);'


def bundle(text: str, name: str = "p.cedar") -> Bundle:
    return Bundle("p", (PolicyFile(name, name, text.encode()),))


class Beside:
    def __init__(self, gate, book, shadow):
        self.gate, self.book, self.shadow = gate, book, shadow

    async def asks(self, kind=ReadClock, slot=None) -> bool:
        try:
            async with self.gate.guard.enforce(kind(principal=AGENT, slot=slot)) as permit:
                self.gate.guard.authority.redeem(permit, kind)
        except PolicyDenied:
            return False
        return True

    def told(self, kind=T.POLICY_SHADOW):
        return [event for event in self.gate.events() if event.event_type == kind]


async def run_beside(live, candidate, work):
    """Do some work; the differences that were recorded, and the counts."""
    async with open_gate(DENY_ALL) as gate:
        book = PolicyBook(gate.engine, gate.log, gate.store, PolicyTerms())
        await book.take_up([bundle(live)], Cause.START)
        shadow = PolicyShadow(gate.engine, book, gate.log)
        with suppress(InputError):  # a candidate that is refused
            await shadow.take_up([bundle(candidate, "next.cedar")])
        gate.guard.tell = shadow.tell
        beside = Beside(gate, book, shadow)
        async with shadow.asking():
            await work(beside)
        return beside.told(), shadow.counts, gate.events()


async def test_a_candidate_that_allows_all_lets_nothing_pass_and_what_it_would_have_allowed_is_recorded():
    async def work(beside):
        for position in range(5):
            assert not await beside.asks(slot=RunSlot(RunId("r"), position))

    told, counts, events = await run_beside("", ALL, work)
    denied = [event for event in events if event.event_type == T.DECISION_DENY]
    assert len(denied) == 5
    assert [event.details["effect_id"] for event in told] == [event.details["effect_id"] for event in denied]
    for event in told:
        assert event.details["shift"] == "becomes allowed"
        assert event.details["enforced"] is False
        assert event.details["old"]["verdict"] == "deny"
        assert event.details["new"]["policies"] == [{"id": "all", "file": "next.cedar", "line": 1}]
        assert event.run_id == "r"
    assert not [event for event in events if event.event_type == T.DECISION_ALLOW]
    assert (counts.told, counts.differing, counts.same) == (5, 5, 0)


async def test_a_candidate_that_denies_all_stops_nothing():
    async def work(beside):
        assert await beside.asks()

    told, _, _ = await run_beside(CLOCK, "", work)
    assert [(e.details["shift"], e.details["new"]["policies"]) for e in told] == [("becomes denied", [])]


async def test_other_conditions_are_a_difference_and_agreement_is_none():
    async def work(beside):
        assert await beside.asks()
        assert not await beside.asks(DrawRandom)

    told, counts, _ = await run_beside(CLOCK, RECORDED, work)
    assert [event.details["shift"] for event in told] == ["has other conditions"]
    assert told[0].details["new"]["conditions"] == [["record", "digest"]]
    assert (counts.told, counts.differing, counts.same) == (2, 1, 1)


@pytest.mark.parametrize("candidate", ["permit (", 'permit (principal, action == Action::"No", resource);'])
async def test_a_broken_candidate_is_refused_and_touches_nothing(candidate):
    async def work(beside):
        assert beside.shadow.candidate is None
        assert await beside.asks()

    told, counts, events = await run_beside(CLOCK, candidate, work)
    assert told == []
    (refused,) = [event for event in events if event.event_type == T.POLICY_REFUSED]
    assert refused.details["cause"] == "shadow"
    assert (counts.told, counts.failed) == (1, 1)


@pytest.mark.parametrize("error", [ZeroDivisionError, StoreUnavailable, MemoryError])
async def test_an_error_of_the_candidate_never_reaches_the_live_decision(monkeypatch, error):
    def broken(*_):
        raise error("broken")

    monkeypatch.setattr(policy_shadow, "judge_recorded", broken)

    async def work(beside):
        for _ in range(3):
            assert await beside.asks()
            assert not await beside.asks(DrawRandom)

    told, counts, _ = await run_beside(CLOCK, ALL, work)
    assert told == []
    assert (counts.told, counts.failed) == (6, 6)


async def test_the_candidate_is_asked_after_the_live_decision_and_at_most_once_for_each(monkeypatch):
    asked = []
    real = policy_shadow.judge_recorded
    monkeypatch.setattr(policy_shadow, "judge_recorded", lambda *a: asked.append(a[1].action) or real(*a))

    async def work(beside):
        decisions = beside.gate.engine.decide
        monkeypatch.setattr(beside.gate.engine, "decide", lambda r: (asked.append("live"), decisions(r))[1])
        for _ in range(20):
            assert await beside.asks()

    _, counts, _ = await run_beside(CLOCK, ALL, work)
    assert asked[0] == "live"
    assert asked.count("live") == 20
    assert asked.count("ReadClock") == 20 == counts.told


async def test_what_finds_too_many_waiting_is_skipped_and_counted(monkeypatch):
    monkeypatch.setattr(policy_shadow, "MAX_WAITING", 4)

    async def work(beside):
        action = ReadClock(principal=AGENT)
        decision = beside.gate.engine.decide(action.request())
        for number in range(10):
            beside.shadow.tell(
                Decided(f"e{number}", action, action.request, decision)
            )  # without a pause in which the candidate could be asked

    told, counts, _ = await run_beside("", ALL, work)
    assert (counts.told, counts.skipped, counts.differing) == (10, 6, 4)
    assert len(told) == 4


FILE = "agent a { policy own { deny: now } with sandbox = interpreter { 1 } }"


async def test_the_candidate_takes_the_agent_files_of_the_live_set_as_they_change():
    compiled = compile_file(parse(FILE, "a.symbi"), FILE)

    async def work(beside):
        assert await beside.asks()
        ticket = await beside.book.stage(compiled)
        await beside.book.admit(ticket, compiled)
        assert not await beside.asks()

    told, counts, _ = await run_beside(CLOCK, CLOCK.replace('"clock"', '"candidate"'), work)
    assert told == []  # without the file's denial, the candidate would have allowed the second
    assert (counts.differing, counts.same, counts.failed) == (0, 2, 0)


async def test_the_canary_is_none_of_its_business():
    async def work(beside):
        await beside.gate.guard.open()

    told, counts, _ = await run_beside("", ALL, work)
    assert (told, counts.told) == ([], 0)


async def test_a_panic_while_a_candidate_is_read_refuses_it_and_touches_nothing(monkeypatch):
    class PanicException(BaseException):
        pass

    async def work(beside):
        def panics(*_):
            raise PanicException

        monkeypatch.setattr(PolicySet, "load", panics)
        beside.gate.engine.replace(beside.gate.engine.current)  # so that the candidate is read again, for the next
        assert await beside.asks()
        while not beside.shadow.counts.failed:
            await anyio.lowlevel.checkpoint()
        with pytest.raises(InputError, match="cannot be read: PanicException"):
            await beside.shadow.take_up([bundle(ALL)])
        assert await beside.asks()

    told, counts, events = await run_beside(CLOCK, ALL, work)
    assert told == []
    assert counts.failed == 2
    refused = [event for event in events if event.event_type == T.POLICY_REFUSED]
    assert [event.details["cause"] for event in refused] == ["shadow", "shadow"]


async def test_what_cannot_be_put_to_an_engine_hides_no_difference_of_others():
    def unfit():
        raise InputError("no engine can be asked this")

    async def work(beside):
        action = ReadClock(principal=AGENT)
        denied = beside.gate.engine.decide(action.request())
        for number in range(3):  # without a pause, so that the candidate is asked about all of them at a stretch
            beside.shadow.tell(Decided(f"u{number}", action, unfit, denied))
            beside.shadow.tell(Decided(f"e{number}", action, action.request, denied))

    told, counts, _ = await run_beside("", ALL, work)
    assert [event.details["effect_id"] for event in told] == ["e0", "e1", "e2"]
    assert (counts.told, counts.differing, counts.failed) == (6, 3, 3)


async def test_the_candidate_is_the_last_one_taken_up_however_long_an_earlier_one_is_read(monkeypatch):
    read = policy_shadow._read

    def slowly(sources, live):
        if sources[0].file == "slow.cedar":
            anyio.from_thread.run(beside[0].shadow.take_up, [bundle(CLOCK, "quick.cedar")])
        return read(sources, live)

    beside = []

    async def work(found):
        beside.append(found)
        monkeypatch.setattr(policy_shadow, "_read", slowly)
        await found.shadow.take_up([bundle(ALL, "slow.cedar")])
        assert found.shadow.candidate.sources[0].file == "quick.cedar"

    await run_beside(CLOCK, CLOCK, work)
