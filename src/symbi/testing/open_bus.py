"""A bus on a real gate, trail and store, for tests and measurements of what is sent."""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from pathlib import Path
from typing import Final

import anyio
import anyio.lowlevel

from symbi.adapters.inproc import InprocTransport
from symbi.audit.log import AuditLog
from symbi.bus.bus import Bus, open_bus
from symbi.bus.codec import Codec, Signing
from symbi.bus.content import Message
from symbi.bus.port import Transport
from symbi.bus.rooms import BusRooms, BusTerms
from symbi.clock import Clock
from symbi.crypto.provider import DEFAULT_PROVIDER, open_provider
from symbi.guard.action import TopicRef
from symbi.policy.engine import EVALUATION_TIMEOUT_S, PolicySource
from symbi.policy.policies import PolicySet
from symbi.testing.bus import MemoryKeys
from symbi.testing.clock import ManualClock
from symbi.testing.gate import ALLOW_ALL, Gate, open_gate
from symbi.types import AgentId, Principal

TURNS: Final = 300  # of the event loop, in which whatever can go on does
MOST_TURNS: Final = 30_000  # that something which is to come is waited for
HUNG_TURNS: Final = 1_000_000  # after which a store that is still at work is not waited for
_LOGS: Final[list[AuditLog]] = []


class ManualSleep:
    """Lets those sleep who wait on a manual clock, until a test moves it.

    Args:
        clock: Whose.
    """

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._sleepers: list[tuple[float, int, anyio.Event]] = []
        self._number = 0

    async def __call__(self, seconds: float) -> None:
        """Sleep."""
        if seconds <= 0:
            await anyio.lowlevel.checkpoint()
            return
        woken = anyio.Event()
        self._number += 1
        heappush(self._sleepers, (self._clock.monotonic_s() + seconds, self._number, woken))
        await woken.wait()

    async def advance(self, seconds: float) -> None:
        """Move the clock on, and wake whoever is to be woken by then."""
        self._clock.advance(seconds)
        while self._sleepers and self._sleepers[0][0] <= self._clock.monotonic_s():
            heappop(self._sleepers)[2].set()
        await settled()


@contextmanager
def heeded(log: AuditLog) -> Iterator[None]:
    """Have `settled` wait for what is on its way into a store."""
    _LOGS.append(log)
    try:
        yield
    finally:
        _LOGS.remove(log)


async def settled(done: Callable[[], object] | None = None) -> None:
    """Let others go on for a while, or until something is so.

    Turns in which a store is at work do not count: how long a disk takes, and when its thread has its turn, nobody knows.
    """
    left, most = TURNS if done is None else MOST_TURNS, HUNG_TURNS
    while left and most:
        if done is not None and done():
            return
        await anyio.to_thread.run_sync(_nothing)
        left, most = left - all(log.at_rest for log in _LOGS), most - 1


def _nothing() -> None:
    """A turn of a worker thread."""


@dataclass(slots=True)
class OpenBus:
    """An open bus and all that it stands on."""

    bus: Bus
    gate: Gate
    keys: MemoryKeys
    transport: Transport
    clock: Clock
    sleep: ManualSleep | None
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def set_policies(self, text: str) -> None:
        """Put a policy set in force."""
        self.gate.engine.replace(PolicySet.load([PolicySource("test.cedar", text)]))


@asynccontextmanager
async def bus_over(  # noqa: PLR0913 - one option for each part of it
    policies: str = ALLOW_ALL,
    *,
    agents: Iterable[str] = ("a", "b", "c", "d"),
    terms: BusTerms | None = None,
    folder: Path | None = None,
    clock: Clock | None = None,
    signing: Signing = Signing.BATCH,
    keys: MemoryKeys | None = None,
    provider: str = DEFAULT_PROVIDER,
    topic: Callable[[str], TopicRef] = TopicRef,
    codec: Callable[[Codec], Codec] = lambda codec: codec,
    evaluation_timeout_s: float = EVALUATION_TIMEOUT_S,
) -> AsyncIterator[OpenBus]:
    """A bus over some policies; its keys are in memory, and its clock is manual where none is given.

    Args:
        policies: Text of the policies.
        agents: Who has keys, and may be sent to while it is away.
        terms: What the bus is told.
        folder: Where the store is; in memory if None.
        clock: Of everything.
        signing: What is signed.
        keys: Keys that were there before.
        provider: The library that does the arithmetic.
        topic: A topic as policies see it.
        codec: Another codec in the place of the one that was made.
        evaluation_timeout_s: How long a decision may take.
    """
    clock = clock or ManualClock()
    sleep = ManualSleep(clock) if isinstance(clock, ManualClock) else None
    crypto = open_provider(provider)
    known = frozenset(agents)
    keys = keys or MemoryKeys(crypto, known)
    groups: dict[str, tuple[str, ...]] = {}

    def principal(agent: AgentId) -> Principal:
        name, _, instance = agent.partition("/")
        return replace(Principal(AgentId(name), groups=groups.get(name, ())), instance=instance)

    async with open_gate(policies, folder=folder, clock=clock, evaluation_timeout_s=evaluation_timeout_s) as gate:
        transport = InprocTransport(clock, (gate.log, gate.store))
        await transport.open()
        made = codec(Codec(crypto, keys, keys, clock, signing=signing))
        rooms = BusRooms(
            gate.guard, gate.log, gate.store, transport, made, clock, gate.ids, principal, topic,
            lambda agent: agent in known, made.read, sleep=sleep or anyio.sleep, signing=signing.value,
        )  # fmt: skip
        async with open_bus(rooms, terms or BusTerms()) as bus:
            with heeded(gate.log):
                yield OpenBus(bus, gate, keys, transport, clock, sleep, groups)


def collect(into: list[object]) -> Callable[[Message[object]], None]:
    """A handler that keeps the bodies of what it is given."""
    return lambda message: into.append(message.body)
