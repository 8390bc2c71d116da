"""`Codec`: from what an agent says to sealed and signed bytes, and back. One for each event loop; it waits for nothing.

A message is opened in this order, and whatever fails ends it with `MessageRefused`: 1 its flow is read · 2 it is for
this reader · 3 the sender's key is known and the sender's own · 4 the rest is read · 5 it has not expired · 6 the proof
verifies · 7 it opens under the key of its flow · 8 its sequence comes for the first time. Only what is authentic touches
the window of sequences. Of several messages, 1 to 5 are done for all, then 6 for whole batches, then the rest for each.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final, TypeAlias, TypeVar

import msgspec

from symbi.bus.envelope import (
    MAX_BATCH,
    MAX_PAYLOAD_BYTES,
    MAX_SEQUENCE,
    MAX_TIME_NS,
    Address,
    Envelope,
    Flow,
    encode_flow,
    encode_message,
    flow_end,
    id_text,
    pack_id,
    pack_trace,
    parse_flow,
    parse_message,
    read_place,
    require_id,
    require_name,
    require_payload,
    trace_text,
)
from symbi.bus.keys import BusKeys, BusSequences
from symbi.bus.sealing import nonce_of, topic_key
from symbi.bus.signing import Proofs, leaves_of, sign_batch, sign_one, verifies_one
from symbi.clock import Clock
from symbi.crypto.provider import TAG_BYTES, Aead, CryptoProvider
from symbi.crypto.signing import VerifyingKey
from symbi.errors import ConfigError, MessageRefused
from symbi.types import AgentId, KeyId

DEFAULT_BATCH: Final = 256  # messages under one signature: it costs each 0.3 us, and its path eight hashes
DEFAULT_PAYLOAD_BYTES: Final = 1024 * 1024
MAX_FLOWS: Final = 65_536  # flows whose keys are kept at hand; all are forgotten at once when there are more
OCTETS: Final = "application/octet-stream"

_Place = tuple[AgentId, Address, int]  # sender, address, epoch: what has one key, and one count of sequences
_Name = TypeVar("_Name")
_Lane = TypeVar("_Lane")


class Signing(StrEnum):
    """What a sender signs; readers take both."""

    MESSAGE = "message"
    """Each message."""
    BATCH = "batch"
    """What is sealed together; what is sealed alone is signed alone."""


class Outgoing(msgspec.Struct, frozen=True):
    """A message that is to be sealed.

    Attributes:
        message_id: A UUID, in its canonical text form or as 16 bytes.
        sender: The agent that signs.
        address: Whom it is for.
        payload: What only they may read; labels and whatever else is private stand in it.
        content_type: Media type of the payload; not sealed.
        expires_ns: From when on it is refused, in nanoseconds since the Unix epoch; 0 where it does not expire.
        trace: W3C traceparent; empty where there is none.
    """

    message_id: str | bytes
    sender: AgentId
    address: Address
    payload: bytes
    content_type: str = OCTETS
    expires_ns: int = 0
    trace: str = ""


class Opened(msgspec.Struct, frozen=True, gc=False):
    """A message that is its sender's, whole, and for this reader.

    Attributes:
        flow: Sender, address, content type, epoch, key.
        id: 16 bytes; `message_id` is its text.
        sequence: Its place among the messages of sender, address and epoch.
        timestamp_ns: When it was sealed, by the sender's clock.
        expires_ns: Until when it is good; 0 where it does not expire.
        packed_trace: 25 bytes or none; `trace` is its text.
        payload: What was sealed.
    """

    flow: Flow
    id: bytes
    sequence: int
    timestamp_ns: int
    expires_ns: int
    packed_trace: bytes
    payload: bytes

    @property
    def message_id(self) -> str:
        """A UUID in its canonical text form."""
        return id_text(self.id)

    @property
    def sender(self) -> AgentId:
        """The agent that signed it."""
        return self.flow.sender

    @property
    def address(self) -> Address:
        """Whom it was for."""
        return self.flow.address

    @property
    def content_type(self) -> str:
        """Media type of the payload."""
        return self.flow.content_type

    @property
    def trace(self) -> str:
        """W3C traceparent; empty where there is none."""
        return trace_text(self.packed_trace) if self.packed_trace else ""


class _Outward(msgspec.Struct, frozen=True):
    """What it takes to seal the messages of a flow."""

    prefix: bytes
    aead: Aead


class _Inward:
    """What it takes to open the messages of a flow.

    Attributes:
        prefix: The bytes with which they begin.
        ends: How many those are.
        flow: What stands there.
        only: The one that they are for; None where that is whoever listens to a topic.
        batched: Whether they are signed by batches.
        key, aead: By which they are verified and opened; None until one of them was.
    """

    __slots__ = ("aead", "batched", "ends", "flow", "key", "only", "prefix")

    def __init__(self, prefix: bytes, flow: Flow) -> None:
        self.prefix = prefix
        self.ends = len(prefix)
        self.flow = flow
        self.only = None if flow.address.is_topic else flow.address.name
        self.batched = flow.batched
        self.key: VerifyingKey | None = None
        self.aead: Aead | None = None


_Part: TypeAlias = tuple[_Inward, VerifyingKey, Envelope]  # a message taken apart, and what it takes to open it


class Codec:
    """Seals and opens messages.

    Args:
        provider: The library that does the arithmetic.
        keys: Of agents and topics.
        sequences: Given out, and come.
        clock: Tells when a message is sealed and whether it has expired.
        signing: What is signed.
        batch: Messages under one signature, at most.
        most_payload: Bytes of payload that are sealed and opened, at most.

    Raises:
        ConfigError: A bound is out of range.
    """

    def __init__(
        self,
        provider: CryptoProvider,
        keys: BusKeys,
        sequences: BusSequences,
        clock: Clock,
        *,
        signing: Signing = Signing.BATCH,
        batch: int = DEFAULT_BATCH,
        most_payload: int = DEFAULT_PAYLOAD_BYTES,
    ) -> None:
        if not 1 < batch <= MAX_BATCH or not 0 < most_payload <= MAX_PAYLOAD_BYTES:
            msg = f"a batch has 2 to {MAX_BATCH} messages, and a payload 1 to {MAX_PAYLOAD_BYTES} bytes at most"
            raise ConfigError(msg, code="config.bus")
        self._provider = provider
        self._keys = keys
        self._sequences = sequences
        self._clock = clock
        self._batch = batch if signing is Signing.BATCH else 1
        self._most_payload = most_payload
        self._generation: int | None = None
        self._sealing: dict[Flow, _Outward] = {}
        self._opening: dict[bytes, _Inward] = {}
        self._ciphers: dict[_Place, Aead] = {}  # of flows that differ in what no key depends on, such as content type
        self._proofs = Proofs()

    def seal(self, message: Outgoing) -> bytes:
        """One message, signed at once; raises as `seal_many` does."""
        return self.seal_many((message,))[0]

    def seal_many(self, messages: Sequence[Outgoing]) -> list[bytes]:
        """The bytes of messages, in their order; those of a sender are signed by batches.

        Sequences are given out in the order of the messages. Where one message cannot be sealed none is.

        Raises:
            MessageRefused: `message.malformed` or `message.size`: a message cannot be written; `message.expired`: it has
                expired already. `fields["index"]` says which. Else as `BusKeys` and `BusSequences` say.
            Overloaded: As `BusSequences.reserve` says.
        """
        now = self._clock.now_ns()
        self._refresh(now)
        senders: dict[AgentId, list[int]] = {}
        ids = []
        sender, own = None, list[int]()
        for index, message in enumerate(messages):
            try:
                ids.append(self._checked(message, now))
            except MessageRefused as error:
                error.fields["index"] = index
                raise
            if message.sender is not sender:
                sender = message.sender
                own = senders.setdefault(sender, [])
            own.append(index)
        wires = [b""] * len(messages)
        for sender, indexes in senders.items():
            require_name(sender)
            key = self._keys.signing_key(sender)
            taken = self._reserve(sender, [messages[index].address for index in indexes])
            for at in range(0, len(indexes), self._batch):
                part = indexes[at : at + self._batch]
                batched = len(part) > 1
                signed = self._sealed([(messages[index], ids[index]) for index in part], taken, key.key_id, now)
                proofs = sign_batch(key, leaves_of(signed)) if batched else [sign_one(key, signed[0])]
                for index, one, proof in zip(part, signed, proofs, strict=True):
                    wires[index] = one + proof
        return wires

    def open(self, wire: bytes, me: AgentId) -> Opened:
        """One message, for the first time.

        Args:
            wire: The whole message, and nothing else.
            me: Who reads: the agent that it is for, or whoever listens to its topic. That somebody may listen was
                decided before; here it is only whose window of sequences counts.

        Raises:
            MessageRefused: It is not what it claims to be, or not for `me`, or has come before, or is too old.
        """
        opened = self.read(wire, me)
        if not self._come((opened,), me)[0]:
            raise _replayed()
        return opened

    def open_many(self, wires: Iterable[bytes], me: AgentId) -> list[Opened | MessageRefused]:
        """Several messages, each opened or refused, in their order."""
        results = self.read_many(wires, me)
        opened = [one for one in results if isinstance(one, Opened)]
        come = self._come(opened, me)
        if all(come) and len(opened) == len(results):
            return results
        first = iter(come)
        return [one if isinstance(one, MessageRefused) or next(first) else _replayed() for one in results]

    def read(self, wire: bytes, me: AgentId) -> Opened:
        """As `open`, but whether it has come before is not asked, and it does not count as come.

        For whoever makes sure of that otherwise, such as in a transaction with what the message leads to.

        Raises:
            MessageRefused: As for `open`, but `message.replayed`.
        """
        now = self._clock.now_ns()
        self._refresh(now)
        return self._opened(self._apart(wire, me, now, self._inward(wire)), proven=False)

    def read_many(self, wires: Iterable[bytes], me: AgentId) -> list[Opened | MessageRefused]:
        """As `open_many`, likewise without asking whether they have come before."""
        now = self._clock.now_ns()
        self._refresh(now)
        parts: list[_Part | MessageRefused] = []
        lane: _Inward | None = None
        for wire in wires:
            try:
                if lane is None or not wire.startswith(lane.prefix):  # it has the lengths of what it is made of
                    lane = self._inward(wire)
                parts.append(self._apart(wire, me, now, lane))
            except MessageRefused as error:
                # With its traceback it would hold the frames, and they the message, until the collector comes by.
                parts.append(error.with_traceback(None))
        proven = self._whole_batches(parts)
        results: list[Opened | MessageRefused] = []
        for index, part in enumerate(parts):
            try:
                results.append(part if isinstance(part, MessageRefused) else self._opened(part, proven=index in proven))
            except MessageRefused as error:
                results.append(error.with_traceback(None))  # likewise
        return results

    def _whole_batches(self, parts: Sequence[_Part | MessageRefused]) -> set[int]:
        """Which messages stand in a whole batch that verifies; of others, nothing is said."""
        proven: set[int] = set()
        at = 0
        while at < len(parts):
            first, begin = parts[at], at
            at += 1
            if isinstance(first, MessageRefused) or not first[0].batched:
                continue
            size, index = read_place(first[2].proof)
            if index or begin + size > len(parts):
                continue
            batch = [one for one in parts[begin : begin + size] if not isinstance(one, MessageRefused)]
            if len(batch) < size or any(one[0] is not first[0] for one in batch):
                continue
            at = begin + size  # none is looked at twice, whatever comes of it
            if self._proofs.verifies_whole(first[1], [one[2].signed for one in batch], [one[2].proof for one in batch]):
                proven.update(range(begin, at))
        return proven

    def _checked(self, message: Outgoing, now: int) -> bytes:
        size = len(message.payload)
        if size > self._most_payload:
            require_payload(size, self._most_payload)
        expires = message.expires_ns
        if expires and not now < expires <= MAX_TIME_NS:
            raise MessageRefused("the message has expired before it is sent", code="message.expired")
        if message.trace:
            pack_trace(message.trace)
        id_ = message.message_id
        return pack_id(id_) if isinstance(id_, str) else require_id(id_)

    def _reserve(self, sender: AgentId, addresses: Sequence[Address]) -> dict[Address, list[int]]:
        """For each address its epoch and the sequence that is next."""
        taken = {}
        counts = Counter(addresses) if len(addresses) > 1 else dict.fromkeys(addresses, 1)  # a counter is slow to make
        for address in counts:
            require_name(address.name)  # before anything is kept for it
        for address, count in counts.items():
            epoch, first = self._sequences.reserve(sender, address, count)
            if first + count - 1 > MAX_SEQUENCE:
                raise MessageRefused("the epoch has no sequences left; it needs a new one", code="message.epoch")
            taken[address] = [epoch, first]
        return taken

    def _sealed(
        self, part: Sequence[tuple[Outgoing, bytes]], taken: dict[Address, list[int]], key_id: KeyId, now: int
    ) -> list[bytes]:
        """Header and sealed part of messages of one sender."""
        batched = len(part) > 1
        lane, count, prefix = None, [0, 0], b""
        address, content_type, traced = None, None, None
        sealed = []
        for message, id_ in part:
            trace, payload = message.trace, message.payload
            if (
                lane is None
                or message.address is not address
                or message.content_type is not content_type
                or bool(trace) is not traced
            ):
                address, content_type, traced = message.address, message.content_type, bool(trace)
                count = taken[address]
                flow = Flow(message.sender, address, content_type, count[0], key_id, traced, batched)
                lane = self._sealing.get(flow) or self._outward(flow)
                prefix = lane.prefix
            sequence = count[1]
            count[1] = sequence + 1
            header = prefix + encode_message(id_, sequence, now, message.expires_ns, len(payload) + TAG_BYTES)
            if trace:
                header += pack_trace(trace)
            sealed.append(header + lane.aead.seal(nonce_of(sequence), payload, header))
        return sealed

    def _inward(self, wire: bytes) -> _Inward:
        """What it takes to open the messages of a flow; its keys are looked for when a message needs them."""
        prefix = wire[: flow_end(wire)]
        lane = self._opening.get(prefix)
        return _Inward(prefix, parse_flow(wire)) if lane is None else lane  # 1

    def _apart(self, wire: bytes, me: AgentId, now: int, lane: _Inward) -> _Part:
        """What stands in a message that may be for this reader."""
        if lane.only is not None and lane.only != me:  # 2
            raise MessageRefused("the message is for somebody else", code="message.recipient")
        key = lane.key or self._key_of(lane.flow)  # 3
        envelope = parse_message(wire, lane.ends, lane.flow, self._most_payload)  # 4
        expires = envelope.expires_ns
        if expires and expires <= now:  # 5
            raise MessageRefused("the message has expired", code="message.expired")
        return lane, key, envelope

    def _opened(self, part: _Part, *, proven: bool) -> Opened:
        """What it says; `proven` where its proof has been verified."""
        lane, key, envelope = part
        signed, header, sequence = envelope.signed, envelope.header, envelope.sequence
        if not proven:  # 6
            verifies = self._proofs.verifies if lane.batched else verifies_one
            if not verifies(key, signed, envelope.proof):
                raise MessageRefused("the message is not signed by its sender", code="message.signature")
        aead = lane.aead or self._aead(lane.flow)  # 7
        payload = aead.open(nonce_of(sequence), signed[len(header) :], header)
        if payload is None:
            raise MessageRefused("the message does not open under its key", code="message.sealed")
        if lane.aead is None:  # whoever is known now has written one that opens
            lane.key, lane.aead = key, aead
            _keep(self._ciphers, (lane.flow.sender, lane.flow.address, lane.flow.epoch), aead)
            _keep(self._opening, lane.prefix, lane)
        return Opened(
            lane.flow, envelope.id, sequence, envelope.timestamp_ns, envelope.expires_ns, envelope.trace, payload
        )

    def _come(self, messages: Sequence[Opened], me: AgentId) -> list[bool]:
        """Whether each comes for the first time; step 8."""
        last: Flow | None = None
        places: tuple[list[int], list[int]] = [], []
        streams: dict[tuple[AgentId, Address, int], tuple[list[int], list[int]]] = {}
        for index, message in enumerate(messages):
            flow = message.flow
            if flow is not last:
                last = flow
                places = streams.setdefault((flow.sender, flow.address, flow.epoch), ([], []))
            places[0].append(index)
            places[1].append(message.sequence)
        come = [True] * len(messages)
        for (sender, address, epoch), (indexes, sequences) in streams.items():
            answers = self._sequences.admit(me, sender, address, epoch, sequences)
            if not all(answers):
                for index, answer in zip(indexes, answers, strict=True):
                    come[index] = answer
        return come

    def _refresh(self, now: int) -> None:
        generation = self._keys.generation(now)
        if generation != self._generation:
            self._generation = generation
            self._sealing.clear()
            self._opening.clear()
            self._ciphers.clear()
            self._proofs.forget()

    def _outward(self, flow: Flow) -> _Outward:
        lane = _Outward(encode_flow(flow), self._aead(flow))
        _keep(self._ciphers, (flow.sender, flow.address, flow.epoch), lane.aead)
        _keep(self._sealing, flow, lane)
        return lane

    def _key_of(self, flow: Flow) -> VerifyingKey:
        known = self._keys.public_key(flow.key_id)
        if known is None or known[0] != flow.sender:
            raise MessageRefused("the message names a key that is not its sender's", code="message.signature")
        return known[1]

    def _aead(self, flow: Flow) -> Aead:
        sender, address, epoch = flow.sender, flow.address, flow.epoch
        known = self._ciphers.get((sender, address, epoch))
        if known is not None:
            return known
        if address.is_topic:
            secret = topic_key(self._provider, self._keys.group_key(address.name, epoch), address.name, sender, epoch)
        else:
            secret = self._keys.pair_key(sender, AgentId(address.name), epoch)
        return self._provider.aead(secret)


def _keep(lanes: dict[_Name, _Lane], name: _Name, lane: _Lane) -> None:
    if len(lanes) >= MAX_FLOWS and name not in lanes:
        lanes.clear()
    lanes[name] = lane


def _replayed() -> MessageRefused:
    return MessageRefused("the message has come before, or is too far behind", code="message.replayed")
