"""A whole trail in memory, as the writer would leave it, made without the writer from what the format says."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from symbi.audit.checkpoint import Checkpoint, origin_of, seal_checkpoint
from symbi.audit.event import EVENT_DOMAIN, GENESIS_HASH, SCHEMA_VERSION, AuditEvent, AuditEventType, Draft, parse_event
from symbi.audit.port import StoredEvent
from symbi.audit.verify import BEGINNING, Start
from symbi.clock import rfc3339
from symbi.crypto.canonical import canonical_json
from symbi.crypto.chain import link
from symbi.crypto.merkle import Frontier, leaf_hash
from symbi.crypto.provider import SEED_BYTES, CryptoProvider, open_provider
from symbi.crypto.signing import SigningKey, VerifyingKey
from symbi.types import SYSTEM_AGENT, AgentId, EventId, JsonValue, KeyId

START_NS: Final = 1_767_225_600_000_000_000
STEP_NS: Final = 1_000_001  # between two events


@dataclass(frozen=True, slots=True)
class BuiltTrail:
    """Events, the head that fits them, and the keys to trust.

    Attributes:
        events: What the store holds, in order.
        parsed: The same as events.
        head: The head, a signed note.
        keys: The one trusted key, by id.
        checkpoints: Kept ones, with their sizes.
    """

    events: tuple[StoredEvent, ...]
    parsed: tuple[AuditEvent, ...]
    head: bytes
    keys: Mapping[KeyId, VerifyingKey]
    checkpoints: tuple[tuple[int, bytes], ...] = ()


class TrailBuilder:
    """Writes a trail event by event and keeps none of them.

    Args:
        key: The key that signs; `fixed_signing_key()` if not given.
        signing: `event` or `batch`.
        start_ns: When it begins, in nanoseconds since the epoch; two trails of one key begin at two times.
        version: Schema version of its events.
    """

    def __init__(
        self,
        key: SigningKey | None = None,
        *,
        signing: str = "event",
        start_ns: int = START_NS,
        version: int = SCHEMA_VERSION,
    ) -> None:
        self.key = key or fixed_signing_key()
        self.signing = signing
        self.version = version
        self.size = 0
        self.chain_hash = GENESIS_HASH
        self.timestamp = ""
        self.origin = ""
        self._start_ns = start_ns
        self._frontier = Frontier()
        self._last_key = self.key

    def start(self) -> StoredEvent:
        """The first event."""
        details: dict[str, JsonValue] = {
            "format": self.version,
            "signature_algorithm": "Ed25519",
            "public_key": self.key.verifying_key().hex,
        }
        if self.version > 1:
            details["signing"] = self.signing
        return self.add(Draft(AuditEventType.TRAIL_STARTED, SYSTEM_AGENT, details))

    def add(self, draft: Draft) -> StoredEvent:
        """The next event, sealed."""
        fields: dict[str, Any] = {
            "schema_version": self.version,
            "sequence": self.size + 1,
            "event_id": f"01900000-0000-7000-9000-{self.size + 1:012x}",
            "timestamp": rfc3339(self._start_ns + (self.size + 1) * STEP_NS),
            "agent_id": draft.agent_id,
            "run_id": draft.run_id,
            "event_type": str(draft.event_type),
            "details": draft.details,
            "previous_hash": self.chain_hash,
            "key_id": self.key.key_id,
        }
        stored = seal_fields(fields, None if self._unsigned(draft) else self.key)
        self.size, self.chain_hash, self.timestamp = self.size + 1, stored.chain_hash, fields["timestamp"]
        self.origin = self.origin or origin_of(EventId(fields["event_id"]))
        self._frontier.append(leaf_hash(stored.record))
        self._last_key = self.key
        return stored

    def _unsigned(self, draft: Draft) -> bool:
        return self.signing == "batch" and draft.event_type != AuditEventType.KEY_ROTATED

    def rotate(self, key: SigningKey) -> StoredEvent:
        """The last event by the key in force."""
        public = key.verifying_key()
        details: dict[str, JsonValue] = {"public_key": public.hex, "key_id": public.key_id}
        stored = self.add(Draft(AuditEventType.KEY_ROTATED, SYSTEM_AGENT, details))
        self.key = key
        return stored

    def sign_by(self, signing: str) -> StoredEvent:
        """The last event in the mode in force."""
        stored = self.add(Draft(AuditEventType.SIGNING_CHANGED, SYSTEM_AGENT, {"signing": signing}))
        self.signing = signing
        return stored

    def frontier(self) -> Frontier:
        """The frontier of the tree as it stands."""
        return self._frontier.copy()

    def checkpoint(self) -> bytes:
        """The checkpoint of where it stands, signed."""
        at = Checkpoint(self.origin, self.size, self._frontier.root(), self.chain_hash, self.timestamp)
        return seal_checkpoint(at, self._last_key)


def seal_fields(fields: Mapping[str, Any], key: SigningKey | None) -> StoredEvent:
    """A record of any fields, hashed, and signed where there is a key: also of such as no writer would write."""
    body = {name: value for name, value in fields.items() if name not in {"chain_hash", "signature"}}
    chain_hash = link(bytes.fromhex(fields["previous_hash"]), canonical_json(body))
    signature = "" if key is None else key.sign(EVENT_DOMAIN, chain_hash).hex()
    record = canonical_json(body | {"chain_hash": chain_hash.hex(), "signature": signature})
    return StoredEvent(fields["sequence"], record, chain_hash.hex())


def fixed_signing_key(number: int = 1, provider: CryptoProvider | None = None) -> SigningKey:
    """A signing key that is the same in every run; `number` from 0 to 255 tells one from another."""
    return SigningKey(bytes((number,)) * SEED_BYTES, provider or open_provider())


def sample_draft(number: int) -> Draft:
    """A draft of a decision, of about the size that they have."""
    details: dict[str, JsonValue] = {
        "effect_id": f"01900000-0000-7000-8000-{number:012x}",
        "action": "InvokeTool",
        "resource": "files.write",
        "arguments": {"path": f"reports/incident-{number}.md", "bytes": 2_048 + number, "overwrite": False},
        "policies": [{"id": "reports", "file": "triage.cedar", "line": 12}],
        "text": '"Zürich"\n',
        "verdict": "allow",
    }
    return Draft(AuditEventType.DECISION_ALLOW, AgentId("triage"), details, f"run-{number % 3}")


def build_trail(
    drafts: int | Iterable[Draft] = 7,
    *,
    key: SigningKey | None = None,
    start_ns: int = START_NS,
    signing: str = "event",
    changes: Mapping[int, SigningKey | str] | None = None,
    every: int = 0,
) -> BuiltTrail:
    """A trail that verifies.

    Args:
        drafts: What comes after `trail.started`, or how many sample events.
        key: The key that signs; `fixed_signing_key()` if not given.
        start_ns: When it begins, in nanoseconds since the epoch; two trails of one key begin at two times.
        signing: The mode that it begins in.
        changes: After which draft, counted from 1, the key is rotated or the signing mode changed, and to what.
        every: Keep a checkpoint after each so many events; 0 for none.
    """
    builder = TrailBuilder(key, signing=signing, start_ns=start_ns)
    events: list[StoredEvent] = []
    checkpoints: list[tuple[int, bytes]] = []

    def take(stored: StoredEvent) -> None:
        events.append(stored)
        if every and stored.sequence % every == 0:
            checkpoints.append((stored.sequence, builder.checkpoint()))

    first_key = builder.key.verifying_key()
    take(builder.start())
    after = map(sample_draft, range(1, drafts + 1)) if isinstance(drafts, int) else drafts
    for number, draft in enumerate(after, 1):
        take(builder.add(draft))
        match (changes or {}).get(number):
            case SigningKey() as next_key:
                take(builder.rotate(next_key))
            case str(mode):
                take(builder.sign_by(mode))
    parsed = tuple(parse_event(stored.record) for stored in events)
    keys = {first_key.key_id: first_key}
    return BuiltTrail(tuple(events), parsed, builder.checkpoint(), keys, tuple(checkpoints))


def checkpoint_over(events: Iterable[StoredEvent], key: SigningKey, **changes: Any) -> bytes:
    """The checkpoint over some events from the first one on, well signed; with other fields where they are given."""
    frontier, first, last = Frontier(), b"", b""
    for stored in events:
        frontier.append(leaf_hash(stored.record))
        first, last = first or stored.record, stored.record
    begun, ended = parse_event(first), parse_event(last)
    at = Checkpoint(
        origin_of(begun.event_id), frontier.size, frontier.root(), ended.chain_hash, ended.timestamp
    )  # fmt: skip
    return seal_checkpoint(replace(at, **changes), key)


def checkpoint_at(size: int, root: bytes, record: bytes, key: SigningKey) -> bytes:
    """The checkpoint of a trail made here, from its root and its last record."""
    last = parse_event(record)
    origin = origin_of(EventId(f"01900000-0000-7000-9000-{1:012x}"))
    return seal_checkpoint(Checkpoint(origin, size, root, last.chain_hash, last.timestamp), key)


def start_before(events: Sequence[StoredEvent], index: int) -> Start:
    """Where the verification of `events[index:]` begins, of a trail that begins with the first of them."""
    if index == 0:
        return BEGINNING
    frontier = Frontier()
    for stored in events[:index]:
        frontier.append(leaf_hash(stored.record))
    return Start(index, frontier.hashes, events[index - 1].chain_hash)
