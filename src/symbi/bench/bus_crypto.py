"""BUS-4, BUS-5: what sealing, signing, opening and verifying messages costs, without the bus around it."""

import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from time import perf_counter_ns
from typing import Final, NamedTuple

from symbi.bench.crypto import PROVIDERS
from symbi.bench.measure import Measurement, Scale, Target, latency, rate, single
from symbi.bus.codec import Codec, Opened, Outgoing, Signing
from symbi.bus.envelope import (
    MESSAGE_BYTES,
    Address,
    Flow,
    encode_flow,
    encode_message,
    flow_end,
    pack_id,
    read_message,
)
from symbi.bus.keys import BusSequences
from symbi.clock import Clock, IdSource, SystemClock
from symbi.crypto.provider import DEFAULT_PROVIDER, open_provider
from symbi.errors import InternalError, MessageRefused
from symbi.testing.bus import MemoryKeys
from symbi.types import AgentId, KeyId

PAYLOAD_BYTES: Final = 256
BATCH: Final = 256
SEED: Final = Target(100_000, at_least=True, note="seed")
SIGNED: Final = Target(10_000, at_least=True, note="ours")
CRYPTO: Final = Target(20, at_least=False, note="ours")

_SENDER: Final = AgentId("sender")
_READER: Final = AgentId("reader")
_NO_KEY: Final = KeyId("0" * 16)

_REPLAYED: Final = MessageRefused("the message has come before", code="message.replayed")
_METHOD: Final = (
    f"{PAYLOAD_BYTES} bytes of payload; one thread, written and then read; the window of sequences in memory"
)
_HELD: Final = "what stays allocated, as tracemalloc sees it"


class UnsafePlainCodec:
    """Writes and reads messages as `Codec` does, in plain text and without a proof: what is left when crypto is off.

    Args:
        sequences: Given out, and come; the window of sequences is no crypto, and stays.
        clock: Tells the time of sealing.
    """

    def __init__(self, sequences: BusSequences, clock: Clock) -> None:
        self._sequences = sequences
        self._clock = clock
        self._prefixes: dict[tuple[AgentId, Address, str, int], bytes] = {}
        self._flows: dict[bytes, Flow] = {}

    def seal(self, message: Outgoing) -> bytes:
        """One message."""
        return self.seal_many((message,))[0]

    def seal_many(self, messages: Sequence[Outgoing]) -> list[bytes]:
        """Several messages, in their order."""
        now = self._clock.now_ns()
        counts = Counter((message.sender, message.address) for message in messages)
        taken = {of: [*self._sequences.reserve(*of, count)] for of, count in counts.items()}
        wires = []
        for message in messages:
            payload = message.payload
            count = taken[message.sender, message.address]
            which = message.sender, message.address, message.content_type, count[0]
            prefix = self._prefixes.get(which) or self._prefix(*which)
            id_ = message.message_id
            packed = pack_id(id_) if isinstance(id_, str) else id_
            rest = encode_message(packed, count[1], now, message.expires_ns, len(payload))
            count[1] += 1
            wires.append(prefix + rest + payload)
        return wires

    def open(self, wire: bytes, me: AgentId) -> Opened:
        """One message.

        Raises:
            MessageRefused: `message.replayed`; it has come before.
        """
        (opened,) = self.open_many((wire,), me)
        if isinstance(opened, MessageRefused):
            raise opened
        return opened

    def open_many(self, wires: Iterable[bytes], me: AgentId) -> list[Opened | MessageRefused]:
        """Several messages, in their order."""
        opened = [self._read(wire) for wire in wires]
        streams: dict[Flow, list[int]] = {}
        for one in opened:
            streams.setdefault(one.flow, []).append(one.sequence)
        come = {flow: iter(self._admit(me, flow, sequences)) for flow, sequences in streams.items()}
        return [one if next(come[one.flow]) else _REPLAYED for one in opened]

    def _admit(self, me: AgentId, flow: Flow, sequences: list[int]) -> list[bool]:
        return self._sequences.admit(me, flow.sender, flow.address, flow.epoch, sequences)

    def _read(self, wire: bytes) -> Opened:
        end = flow_end(wire)
        flow = self._flows[wire[:end]]
        id_, sequence, timestamp, expires, _ = read_message(wire, end)
        return Opened(flow, id_, sequence, timestamp, expires, b"", wire[end + MESSAGE_BYTES :])

    def _prefix(self, sender: AgentId, address: Address, content_type: str, epoch: int) -> bytes:
        flow = Flow(sender, address, content_type, epoch, _NO_KEY, traced=False, batched=False)
        prefix = self._prefixes[sender, address, content_type, epoch] = encode_flow(flow)
        self._flows[prefix] = flow
        return prefix


async def message_throughput(scale: Scale) -> list[Measurement]:
    """Messages a second that are sealed, signed, opened and verified in one thread, one after the other."""
    rows = []
    for course in _courses():
        rounds = _rounds(course, scale.of(course.full, least=course.at_once))
        done = len(rounds) * course.at_once
        rows.append(
            rate(
                "BUS-4",
                f"crypto alone: {course.name}",
                done,
                sum(rounds),
                unit="messages/s",
                target=course.rate,
                method=_METHOD,
            )
        )
    return rows


async def message_crypto(scale: Scale) -> list[Measurement]:
    """Time and memory of one message: writing and reading, with crypto and without."""
    rows = []
    for course in _courses():
        rounds = _rounds(course, scale.of(course.full, least=3 * course.at_once))
        each = [elapsed // course.at_once for elapsed in rounds]
        metric = f"time of one message: {course.name}"
        method = f"{_METHOD}; means of {course.at_once}"
        rows.append(latency("BUS-5", metric, each, unit="us", judged="p50", target=course.time, method=method))
    for course in _courses():
        count = scale.of(10_000, least=course.at_once)
        for what, size in zip(("written", "read"), _allocated(course, count), strict=True):
            metric = f"memory of a message as {what}: {course.name}"
            rows.append(single("BUS-5", metric, size, unit="bytes", n=count, target=None, method=_HELD))
    return rows


class _Course(NamedTuple):
    """A way to write and read messages, and how many are written at once."""

    name: str
    seal: Callable[[Sequence[Outgoing]], list[bytes]]
    open: Callable[[Iterable[bytes], AgentId], list[Opened | MessageRefused]]
    at_once: int
    full: int
    rate: Target | None = None
    time: Target | None = None


def _courses() -> list[_Course]:
    clock = SystemClock()
    courses = []
    for name in PROVIDERS:
        provider = open_provider(name)
        for signing, at_once, count, target in (
            (Signing.BATCH, BATCH, 100_000, SEED),
            (Signing.MESSAGE, 1, 10_000, SIGNED),
        ):
            keys = MemoryKeys(provider, (_SENDER, _READER))
            sender, reader = (Codec(provider, keys, keys, clock, signing=signing) for _ in range(2))
            judged = name == DEFAULT_PROVIDER
            courses.append(
                _Course(
                    f"signed by {signing}, {name}",
                    sender.seal_many,
                    reader.open_many,
                    at_once,
                    count,
                    target if judged else None,
                    CRYPTO if judged and signing is Signing.BATCH else None,
                )
            )
    keys = MemoryKeys(open_provider(), (_SENDER, _READER))
    plain = UnsafePlainCodec(keys, clock)
    return [*courses, _Course("crypto off", plain.seal_many, plain.open_many, BATCH, 100_000)]


def _messages(count: int) -> list[Outgoing]:
    address, payload = Address(_READER), bytes(PAYLOAD_BYTES)
    return [Outgoing(id_, _SENDER, address, payload) for id_ in IdSource(SystemClock()).several(count)]


def _rounds(course: _Course, count: int) -> list[int]:
    """Nanoseconds of writing and reading some messages, again and again; the first round is not counted."""
    rounds = []
    for _ in range(1 + -(-count // course.at_once)):
        messages = _messages(course.at_once)
        begun = perf_counter_ns()
        opened = course.open(course.seal(messages), _READER)
        rounds.append(perf_counter_ns() - begun)
        _require_opened(opened)
    return rounds[1:]


def _allocated(course: _Course, count: int) -> tuple[float, float]:
    """Bytes that a message takes as it is written, and as it is read."""
    rounds = [_messages(course.at_once) for _ in range(-(-count // course.at_once))]
    wires: list[list[bytes]] = []
    opened: list[list[Opened | MessageRefused]] = []
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        wires.extend(course.seal(messages) for messages in rounds)
        between, _ = tracemalloc.get_traced_memory()
        opened.extend(course.open(part, _READER) for part in wires)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    for part in opened:
        _require_opened(part)
    done = len(rounds) * course.at_once
    return (between - before) / done, (after - between) / done


def _require_opened(results: Sequence[Opened | MessageRefused]) -> None:
    if not all(isinstance(one, Opened) for one in results):
        raise InternalError("a message of the measurement was refused")
