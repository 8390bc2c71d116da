"""BUS-4, BUS-5: the whole bus, from `publish` to the handler: gate, limits, sealing, signing, opening, verifying, counts."""

import tempfile
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter, perf_counter_ns, process_time_ns
from typing import Any, Final, NamedTuple, cast

import anyio

from symbi.bench.beside import beside_rate, beside_time
from symbi.bench.bus_crypto import UnsafePlainCodec, message_crypto, message_throughput
from symbi.bench.machine import describe_file_system
from symbi.bench.measure import Measurement, Scale, Target, latency, rate, single
from symbi.bus.codec import Codec, Signing
from symbi.bus.content import Message
from symbi.bus.parcels import ConsumerTerms, Overflow
from symbi.bus.ratelimit import RateTerms
from symbi.bus.rooms import BusTerms
from symbi.clock import SystemClock
from symbi.crypto.provider import DEFAULT_PROVIDER, open_provider
from symbi.errors import InternalError
from symbi.testing.bus import MemoryKeys
from symbi.testing.open_bus import OpenBus, bus_over

BODY: Final = b"x" * 256
MESSAGES: Final = 100_000
BATCH: Final = 256
SINGLES: Final = 5_000
LISTENERS: Final = (1, 10, 100, 1_000)
SHARED: Final = 5  # agents that publish on a topic of many, and as many that listen
DURABLE: Final = 10_000
AT_ONCE: Final = 256
AT_ONCE_AT_FIRST: Final = 16
ROUND_TRIPS: Final = 2_000
LATENCIES: Final = 20_000
LATE_BATCH: Final = 16
ALLOCATIONS: Final = 10
PATIENCE_S: Final = 300.0

SEED: Final = Target(100_000, at_least=True, note="seed")
ONE_BY_ONE: Final = Target(10_000, at_least=True, note="ours")
LATENCY: Final = Target(2.0, at_least=False, note="ours")


class _Took(NamedTuple):
    """What messages took: how many, and nanoseconds of wall and processor time."""

    messages: int
    wall_ns: int
    cpu_ns: int


class _Watch:
    """Begins to count time when it is made."""

    def __init__(self) -> None:
        self._wall, self._cpu = perf_counter_ns(), process_time_ns()

    def took(self, count: int) -> _Took:
        """Until now."""
        return _Took(count, perf_counter_ns() - self._wall, process_time_ns() - self._cpu)


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
    agents: int = 2,
    *,
    signing: Signing = Signing.BATCH,
    provider: str = DEFAULT_PROVIDER,
    plain: bool = False,
    folder: Path | None = None,
) -> AsyncIterator[OpenBus]:
    names = [f"a{number}" for number in range(agents)]
    keys = MemoryKeys(open_provider(provider), names)
    other: Callable[[Codec], Codec] = (lambda _: cast("Codec", _Plain(keys))) if plain else (lambda codec: codec)
    async with bus_over(
        agents=names,
        keys=keys,
        clock=SystemClock(),
        terms=_TERMS,
        signing=signing,
        provider=provider,
        codec=other,
        folder=folder,
        evaluation_timeout_s=PATIENCE_S,  # a busy machine stands still for a second; that is to be measured, not denied
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
    for title, target, few, options in (
        ("batch-signed", SEED, False, {}),
        ("signed one by one", None, True, {"signing": Signing.MESSAGE}),
        ("signed one by one, libsodium", ONE_BY_ONE, True, {"signing": Signing.MESSAGE, "provider": "libsodium"}),
        ("crypto off", None, False, {"plain": True}),
    ):
        many = max(2 * BATCH, count // 10) if few else count
        async with _open(**options) as opened:
            took = await _pairs(opened, 1, many // BATCH, BATCH)
        metric = f"published, one agent to one, {title}"
        rows.append(_rate(metric, took, target, f"batches of {BATCH}"))
        rows.append(_processor(metric, took))
    for agents in scale.sizes(100, 10_000):
        pairs = agents // 2
        size = BATCH if agents < BATCH else 32
        async with _open(agents) as opened:
            took = await _pairs(opened, pairs, max(1, count // pairs // size), size)
        rows.append(
            _rate(
                f"published, {pairs:,} agents to {pairs:,}, in pairs",
                took,
                SEED,
                f"batches of {size}, a topic for each",
            )
        )
        rows.append(await _many_to_many(agents, count))
    rows += [await _fan_out(listeners, scale) for listeners in LISTENERS]
    rows.append(await _durable(scale))
    return rows + await beside_rate(count)


def _rate(metric: str, took: _Took, target: Target | None, how: str) -> Measurement:
    method = f"{_METHOD}; {how}"
    return rate("BUS-4", metric, took.messages, took.wall_ns, unit="messages/s", target=target, method=method)


def _processor(metric: str, took: _Took) -> Measurement:
    """Processor time of a message: what a busy machine does not change."""
    return single(
        "BUS-4", f"processor time of a message {metric}", took.cpu_ns / took.messages / 1000, unit="us", n=took.messages,
        target=None, method="processor time of the whole process in the same run",
    )  # fmt: skip


async def _pairs(opened: OpenBus, pairs: int, batches: int, size: int) -> _Took:
    """What messages of pairs of agents take, of which one publishes to the other."""
    bodies = [BODY] * size
    count = _Count(pairs)
    for number in range(pairs):
        await opened.bus.subscribe(f"a{2 * number + 1}", f"t.{number}", count, bytes, terms=_BUFFER)
    await _begin(opened, [(f"a{2 * number}", f"t.{number}") for number in range(pairs)])
    await count.wait()
    count.begin(pairs * batches * size)
    watch = _Watch()
    for _ in range(batches):
        for number in range(pairs):
            await opened.bus.publish_many(f"a{2 * number}", f"t.{number}", bodies)
    await count.wait()
    return watch.took(pairs * batches * size)


async def _begin(opened: OpenBus, flows: list[tuple[str, str]]) -> None:
    """Publish once on each, so that leases are there and keys are made; not so many at once that decisions wait."""
    pending = iter(flows)

    async def publish() -> None:
        for sender, topic in pending:
            await opened.bus.publish(sender, topic, BODY)

    async with anyio.create_task_group() as tasks:
        for _ in range(AT_ONCE_AT_FIRST):
            tasks.start_soon(publish)


async def _many_to_many(agents: int, messages: int) -> Measurement:
    """Each half of the agents is shared out over topics: some publish on each, and as many listen to it."""
    half = agents // 2
    topics, bodies = half // SHARED, [BODY] * (BATCH if agents < BATCH else 32)
    rounds = max(1, messages // half // len(bodies))
    async with _open(agents) as opened:
        count = _Count(half * SHARED)
        for number in range(half):
            await opened.bus.subscribe(f"a{half + number}", f"t.{number % topics}", count, bytes, terms=_BUFFER)
        await _begin(opened, [(f"a{number}", f"t.{number % topics}") for number in range(half)])
        await count.wait()
        sent = half * rounds * len(bodies)
        count.begin(sent * SHARED)
        watch = _Watch()
        for _ in range(rounds):
            for number in range(half):
                await opened.bus.publish_many(f"a{number}", f"t.{number % topics}", bodies)
        await count.wait()
        took = watch.took(sent)
    return _rate(
        f"published, {half:,} agents to {half:,}, many to many", took, SEED,
        f"batches of {len(bodies)}, {SHARED} that publish on each topic and {SHARED} that listen; each message counted once, "
        f"when all {SHARED} have it",
    )  # fmt: skip


async def _fan_out(listeners: int, scale: Scale) -> Measurement:
    messages = scale.of(max(200, 20_000 // listeners), least=20) // 20 * 20
    async with _open(2) as opened:
        count = _Count(listeners)
        for _ in range(listeners):
            await opened.bus.subscribe("a1", "t.>", count, bytes, terms=_BUFFER)
        await opened.bus.publish("a0", "t.x", BODY)
        await count.wait()
        count.begin(listeners * messages)
        watch = _Watch()
        for _ in range(messages // 20):
            await opened.bus.publish_many("a0", "t.x", [BODY] * 20)
        await count.wait()
        took = watch.took(listeners * messages)
    return _rate(
        f"received, fan-out 1 to {listeners:,}", took, None,
        "batches of 20, each opened once in the process; receipts counted",
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

            watch = _Watch()
            async with anyio.create_task_group() as tasks:
                for _ in range(AT_ONCE):
                    tasks.start_soon(send)
            await count.wait()
            took = watch.took(messages)
    return _rate(
        "sent durably and received, one agent to one", took, None,
        f"`send_message`, {AT_ONCE} at a time, each signed alone and in the outbox on {on} before its sender goes on",
    )  # fmt: skip


async def cost(scale: Scale) -> list[Measurement]:
    """BUS-5: what a message costs, and how long it takes."""
    rows = [*await message_crypto(scale), await _half_load(scale), await _round_trip(scale), await _allocated()]
    return rows + await beside_time(scale)


async def _half_load(scale: Scale) -> Measurement:
    """How long messages take at half the rate that the same bus carries."""
    count = scale.of(LATENCIES, least=10 * LATE_BATCH)
    batches = count // LATE_BATCH
    async with _open(2) as opened:
        carried = await _pairs(opened, 1, batches, LATE_BATCH)
    pause_s = 2 * carried.wall_ns / carried.messages * LATE_BATCH / 1e9
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


async def _allocated() -> Measurement:
    """Memory that a message takes while it is on its way: the most that a batch has taken at once, for each of it."""
    bodies, peaks = [BODY] * BATCH, list[int]()
    async with _open(2) as opened:
        count = _Count(BATCH)
        await opened.bus.subscribe("a1", "t.0", count, bytes, terms=_BUFFER)
        for _ in range(1 + ALLOCATIONS):  # the first makes keys and leases
            count.begin(BATCH)
            tracemalloc.start()
            try:
                await opened.bus.publish_many("a0", "t.0", bodies)
                await count.wait()
                peaks.append(tracemalloc.get_traced_memory()[1])
            finally:
                tracemalloc.stop()
    each = sum(peaks[1:]) / ALLOCATIONS / BATCH
    return single(
        "BUS-5", "memory of a message on its way, published, one agent to one", each, unit="bytes", n=ALLOCATIONS * BATCH,
        target=None, method=f"the most that is allocated at once while a batch of {BATCH} is carried, as tracemalloc sees it",
    )  # fmt: skip
