"""Leases of readers are closed, each once, however many searches begin and end beside each other, and whatever is given up."""

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace

import anyio
import anyio.lowlevel
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from symbi.context import reading as memory_reading
from symbi.errors import ApprovalPending, ApprovalRequired, PermitRefused, PolicyDenied
from symbi.guard.action import DataRef
from symbi.guard.conditions import ONE_BY_ONE
from symbi.knowledge import readings as knowledge_readings
from symbi.knowledge.documents import Access
from symbi.knowledge.readings import Reader, Readings
from symbi.testing.clock import ManualClock
from symbi.types import AgentId, Label, Principal

READER, ACCESS = Reader(Principal(AgentId("reader"))), Access("c")


@dataclass
class Leases:
    """A gate of which each lease holds for one use, and takes some turns to open and to close."""

    opening: list[int]
    closing: int
    open: list[int] = field(default_factory=list)
    closed: list[int] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    asked: int = 0
    engine: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(current=SimpleNamespace(version="v1")))

    @asynccontextmanager
    async def lease(self, action, *, uses, seconds):
        del uses, seconds
        self.asked += 1
        await turns(self.opening[self.asked % len(self.opening)])
        number = len(self.open)
        self.open.append(number)
        made = SimpleNamespace(uses_left=1, permit=None)

        def use(_arguments):
            made.uses_left = 0
            return action

        made.use = use
        try:
            yield made
        except GeneratorExit:  # nobody closes it: the interpreter does, in a task of nobody's
            self.lost.append(number)
            raise
        finally:
            self.closed.append(number)
            with anyio.CancelScope(shield=True):
                await turns(self.closing)


async def turns(count):
    for _ in range(count):
        await anyio.lowlevel.checkpoint()


@example(waits=[(0, 0)] * 3, opening=[4, 1, 3, 5], closing=6, given_up=[], after=0)
@given(
    waits=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), min_size=2, max_size=12),
    opening=st.lists(st.integers(0, 4), min_size=12, max_size=12),
    closing=st.integers(0, 6),
    given_up=st.lists(st.integers(0, 11), max_size=4),
    after=st.integers(0, 12),
)
@settings(deadline=None, max_examples=200)
def test_every_lease_that_was_opened_is_closed_once(waits, opening, closing, given_up, after):
    async def run():
        leases = Leases(opening, closing)
        readings = Readings(leases, ManualClock(), ("builtin", False))

        async def search(late, lasting, scope):
            with scope:
                await turns(late)
                async with readings.reading(READER, ACCESS, "disk"):
                    await turns(lasting)

        async with anyio.create_task_group() as tasks:
            scopes = [anyio.CancelScope() for _ in waits]
            for (late, lasting), scope in zip(waits, scopes, strict=True):
                tasks.start_soon(search, late, lasting, scope)
            await turns(after)
            for number in given_up:
                scopes[number % len(scopes)].cancel()
        await readings.close()
        return leases.open, sorted(leases.closed), leases.lost

    opened, closed, lost = anyio.run(run)
    assert closed == opened
    assert not lost


class Refusing:
    """A gate that refuses each lease, by what it is told to say, and counts how often it is asked."""

    def __init__(self, refusal):
        self.refusal, self.asked = refusal, 0
        self.engine = SimpleNamespace(current=SimpleNamespace(version="v1"))

    @asynccontextmanager
    async def lease(self, action, *, uses, seconds):
        self.asked += 1
        raise self.refusal
        yield action, uses, seconds


def documents(guard, clock):
    readings = Readings(guard, clock, ("builtin", False))
    return lambda: readings.reading(READER, ACCESS, "disk"), knowledge_readings.REFUSAL_HOLDS_S


def memories(guard, clock):
    data = DataRef("Memory", "reader", "unknown", "facts")
    asked = memory_reading.Asked(Principal(AgentId("reader")), data, Label(), "unknown", 10)
    readers = memory_reading.Readers(guard, clock)
    return lambda: readers.reading(asked, {}), memory_reading.REFUSAL_HOLDS_S


@pytest.mark.anyio
@pytest.mark.parametrize("of", [documents, memories])
async def test_what_people_have_to_agree_to_is_asked_each_time_and_what_policy_denies_for_good_is_not(of):
    clock = ManualClock()
    for refusal in (ApprovalRequired("ask"), ApprovalRequired("no", code="approval.denied"), ApprovalPending("wait")):
        guard = Refusing(refusal)
        read, _holds_s = of(guard, clock)
        for times in (1, 2, 3):
            with pytest.raises(type(refusal)):
                async with read():
                    pass
            assert guard.asked == times
    guard = Refusing(PolicyDenied("never"))
    read, holds_s = of(guard, clock)
    for times, seconds in ((1, 0.0), (1, holds_s - 0.5), (2, 1.0), (2, 0.0)):
        clock.advance(seconds)
        with pytest.raises(PolicyDenied):
            async with read():
                pass
        assert guard.asked == times


class Replaced(Refusing):
    """One whose policy set is another one by the time that it refuses for good; for a lease it may say that each is decided by itself."""

    @asynccontextmanager
    async def lease(self, action, *, uses, seconds):
        if isinstance(self.refusal, PermitRefused):
            raise self.refusal
        async with self.enforce(action):
            yield uses, seconds

    @asynccontextmanager
    async def enforce(self, action):
        self.asked += 1
        self.engine.current.version = f"v{self.asked + 1}"
        raise PolicyDenied("never")
        yield action


@pytest.mark.anyio
@pytest.mark.parametrize("of", [documents, memories])
@pytest.mark.parametrize(
    "refusal", [PolicyDenied("never"), PermitRefused("each", code=ONE_BY_ONE)], ids=["lease", "each"]
)
async def test_a_refusal_of_a_set_that_was_replaced_meanwhile_says_nothing_of_the_next_one(of, refusal):
    guard = Replaced(refusal)
    read, _holds_s = of(guard, ManualClock())
    for times in (1, 2, 3):
        with pytest.raises(PolicyDenied):
            async with read():
                pass
        assert guard.asked == times
