"""BUS-4, BUS-5: the whole bus, from `publish` to the handler: gate, limits, sealing, signing, opening, verifying, counts."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter, perf_counter_ns
from typing import Any, Final, cast

import anyio
import anyio.lowlevel

from symbi.bench.bus_crypto import UnsafePlainCodec, message_crypto, message_throughput
from symbi.bench.machine import describe_file_system
from symbi.bench.measure import Measurement, Scale, Target, latency, rate
from symbi.bus.codec import Codec, Signing
from symbi.bus.content import Message
from symbi.bus.parcels import ConsumerTerms, Overflow
from symbi.bus.ratelimit import RateTerms
from symbi.bus.rooms import BusTerms
from symbi.clock import SystemClock
from symbi.crypto.provider import open_provider
from symbi.errors import InternalError
from symbi.testing.bus import MemoryKeys
from symbi.testing.open_bus import OpenBus, bus_over

BODY: Final = b"x" * 256
MESSAGES: Final = 100_000
BATCH: Final = 256
SINGLES: Final = 5_000
LISTENERS: Final = 1_000
DURABLE: Final = 10_000
AT_ONCE: Final = 256
ROUND_TRIPS: Final = 2_000
LATENCIES: Final = 20_000
LATE_BATCH: Final = 16
PATIENCE_S: Final = 300.0

SEED: Final = Target(100_000, at_least=True, note="seed")
ONE_BY_ONE: Final = Target(10_000, at_least=True, note="ours")
LATENCY: Final = Target(2.0, at_least=False, note="ours")

_RATES: Final = RateTerms(1e9, 1e9, 1e9, 1e12)  # on, and wide: what is measured is what they cost
_TERMS: Final = BusTerms(rates=_RATES, mailbox=1_000_000, buffer_bytes=1 << 30)
_BUFFER: Final = ConsumerTerms(most=1_000_000, most_bytes=1 << 30, overflow=Overflow.REFUSE)
_METHOD: Final = (
    f"{len(BODY)} bytes of payload; one process, one thread; policy by lease and limits on; until the handler has it, "
    "opened and verified"
)


class _Plain:
    """Crypto off: `UnsafePlainCodec`, as the bus asks a codec."""

    def __init__(self, keys: MemoryKeys) -> None:
        plain = UnsafePlainCodec(keys, SystemClock())
        self.seal_many, self.open_many, self.read = plain.seal_many, plain.open_many, plain.open


@asynccontextmanager
async def _open(
    agents: int = 2, *, signing: Signing = Signing.BATCH, plain: bool = False, folder: Path | None = None
) -> AsyncIterator[OpenBus]:
    names = [f"a{number}" for number in range(agents)]
    keys = MemoryKeys(open_provider(), names)
    other: Callable[[Codec], Codec] = (lambda _: cast("Codec", _Plain(keys))) if plain else (lambda codec: codec)
    async with bus_over(
        agents=names, keys=keys, clock=SystemClock(), terms=_TERMS, signing=signing, codec=other, folder=folder
    ) as opened:
        yield opened


class _Count:
    """Takes messages, and tells when all have come."""

    def __init__(self, wanted: int) -> None:
        self.begin(wanted)

    def begin(self, wanted: int) -> None:
        """Count anew."""
        self.wanted = wanted
        self.all_came = anyio.Event()

    def __call__(self, _message: Message[Any]) -> None:
        """Take one."""
        self.wanted -= 1
        if self.wanted == 0:
            self.all_came.set()

    async def wait(self) -> None:
        """Wait for the last.

        Raises:
            InternalError: It does not come.
        """
        with anyio.move_on_after(PATIENCE_S):
            await self.all_came.wait()
            return
        msg = f"{self.wanted} messages of a measurement did not come"
        raise InternalError(msg)


async def throughput(scale: Scale) -> list[Measurement]:
    """BUS-4: messages a second, of the crypto alone and of the whole bus."""
    rows = await message_throughput(scale)
    count = scale.of(MESSAGES, least=2 * BATCH)
    for title, target, options in (
        ("batch-signed", SEED, {}),
        ("signed one by one", ONE_BY_ONE, {"signing": Signing.MESSAGE}),
        ("crypto off", None, {"plain": True}),
    ):
        many = count if title != "signed one by one" else max(2 * BATCH, count // 10)
        async with _open(**options) as opened:
            elapsed, sent = await _pairs(opened, 1, many // BATCH, BATCH)
        rows.append(_rate(f"published, one agent to one, {title}", sent, elapsed, target, f"batches of {BATCH}"))
    for agents in scale.sizes(100, 10_000):
        pairs = agents // 2
        each = max(1, count // pairs // 32)
        async with _open(agents) as opened:
            elapsed, sent = await _pairs(opened, pairs, each, 32)
        rows.append(
            _rate(
                f"published, {pairs:,} agents to {pairs:,}", sent, elapsed, SEED, "batches of 32, a topic for each pair"
            )
        )
    rows += [await _fan_out(scale), await _durable(scale), await _queue(count)]
    return rows


def _rate(metric: str, count: int, elapsed_ns: int, target: Target | None, how: str) -> Measurement:
    return rate("BUS-4", metric, count, elapsed_ns, unit="messages/s", target=target, method=f"{_METHOD}; {how}")


async def _pairs(opened: OpenBus, pairs: int, batches: int, size: int) -> tuple[int, int]:
    """Time in nanoseconds, and messages, of pairs of agents of which one publishes to the other."""
    bodies = [BODY] * size
    count = _Count(pairs)
    for number in range(pairs):
        await opened.bus.subscribe(f"a{2 * number + 1}", f"t.{number}", count, bytes, terms=_BUFFER)
    async with anyio.create_task_group() as tasks:  # leases are there, and keys are made
        for number in range(pairs):
            tasks.start_soon(opened.bus.publish, f"a{2 * number}", f"t.{number}", BODY)
    await count.wait()
    count.begin(pairs * batches * size)
    began = perf_counter_ns()
    for _ in range(batches):
        for number in range(pairs):
            await opened.bus.publish_many(f"a{2 * number}", f"t.{number}", bodies)
    await count.wait()
    return perf_counter_ns() - began, pairs * batches * size


async def _fan_out(scale: Scale) -> Measurement:
    listeners = scale.of(LISTENERS, least=10)
    messages = 200
    async with _open(2) as opened:
        count = _Count(listeners * messages)
        for _ in range(listeners):
            await opened.bus.subscribe("a1", "t.>", count, bytes, terms=_BUFFER)
        began = perf_counter_ns()
        for _ in range(messages // 20):
            await opened.bus.publish_many("a0", "t.x", [BODY] * 20)
        await count.wait()
        elapsed = perf_counter_ns() - began
    return _rate(
        f"received, one agent to {listeners:,}", listeners * messages, elapsed, None,
        f"{messages} messages in batches of 20, each opened once in the process; receipts counted",
    )  # fmt: skip


async def _durable(scale: Scale) -> Measurement:
    messages = scale.of(DURABLE, least=AT_ONCE)
    with tempfile.TemporaryDirectory(prefix="symbi-bench-") as folder:
        on = describe_file_system(Path(folder))
        async with _open(2, folder=Path(folder)) as opened:
            count = _Count(messages)
            await opened.bus.open_mailbox("a1", count, bytes)
            numbers = iter(range(messages))

            async def send() -> None:
                for _ in numbers:
                    await opened.bus.send_message("a0", "a1", BODY)

            began = perf_counter_ns()
            async with anyio.create_task_group() as tasks:
                for _ in range(AT_ONCE):
                    tasks.start_soon(send)
            await count.wait()
            elapsed = perf_counter_ns() - began
    return _rate(
        "sent durably and received, one agent to one", messages, elapsed, None,
        f"`send_message`, {AT_ONCE} at a time, each signed alone and in the outbox on {on} before its sender goes on",
    )  # fmt: skip


async def _queue(count: int) -> Measurement:
    queue: asyncio.Queue[bytes] = asyncio.Queue(1024)

    async def put() -> None:
        for _ in range(count):
            await queue.put(BODY)

    began = perf_counter_ns()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(put)
        for _ in range(count):
            await queue.get()
    return rate(
        "BUS-4", "plain bytes through an asyncio.Queue, beside it", count, perf_counter_ns() - began, unit="messages/s",
        target=None, method="no crypto, no policy, no limits, nothing on record: what the event loop alone costs",
    )  # fmt: skip


async def cost(scale: Scale) -> list[Measurement]:
    """BUS-5: what a message costs, and how long it takes."""
    return [*await message_crypto(scale), await _half_load(scale), await _round_trip(scale)]


async def _half_load(scale: Scale) -> Measurement:
    """How long messages take at half the rate that the same bus carries."""
    count = scale.of(LATENCIES, least=10 * LATE_BATCH)
    batches = count // LATE_BATCH
    async with _open(2) as opened:
        elapsed, sent = await _pairs(opened, 1, batches, LATE_BATCH)
    pause_s = 2 * elapsed / sent * LATE_BATCH / 1e9
    took: list[int] = []
    came = anyio.Event()

    def take(message: Message[bytes]) -> None:
        took.append(perf_counter_ns() - int.from_bytes(message.body[:8]))
        if len(took) >= batches * LATE_BATCH:
            came.set()

    async with _open(2) as opened:
        await opened.bus.subscribe("a1", "t.0", take, bytes, terms=_BUFFER)
        await opened.bus.publish("a0", "t.0", perf_counter_ns().to_bytes(8) + BODY[8:])
        took.clear()
        due = perf_counter()
        for _ in range(batches):
            due += pause_s
            await anyio.sleep(max(0.0, due - perf_counter()))
            body = perf_counter_ns().to_bytes(8) + BODY[8:]
            await opened.bus.publish_many("a0", "t.0", [body] * LATE_BATCH)
        with anyio.move_on_after(PATIENCE_S):
            await came.wait()
    return latency(
        "BUS-5", "published, one agent to one, at half load", took, unit="ms", target=LATENCY,
        method=f"{_METHOD}; batches of {LATE_BATCH}, as many a second as are half of what the bus carries so; from the call",
    )  # fmt: skip


async def _round_trip(scale: Scale) -> Measurement:
    took: list[int] = []
    async with _open(2) as opened:
        await opened.bus.open_mailbox("a1", lambda message: message.body, bytes)
        for _ in range(scale.of(ROUND_TRIPS, least=50) + 1):
            began = perf_counter_ns()
            await opened.bus.request("a0", "a1", BODY, timeout_s=30, answer=bytes)
            took.append(perf_counter_ns() - began)
    return latency(
        "BUS-5", "request and answer", took[1:], unit="ms", target=LATENCY,
        method=f"{_METHOD}; one after the other, two messages each, signed alone; from the call to the answer",
    )  # fmt: skip
