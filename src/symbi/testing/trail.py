"""A whole trail in memory, as the writer would leave it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from symbi.audit.checkpoint import Checkpoint, origin_of, seal_checkpoint
from symbi.audit.event import GENESIS_HASH, AuditEvent, AuditEventType, Draft, seal_event, trail_started
from symbi.audit.port import StoredEvent
from symbi.clock import rfc3339
from symbi.crypto.merkle import Frontier, leaf_hash
from symbi.crypto.provider import SEED_BYTES, CryptoProvider, open_provider
from symbi.crypto.signing import SigningKey, VerifyingKey
from symbi.types import AgentId, EventId, JsonValue, KeyId

START_NS: Final = 1_767_225_600_000_000_000
STEP_NS: Final = 1_000_001  # between two events


@dataclass(frozen=True, slots=True)
class BuiltTrail:
    """Events, the head that fits them, and the keys to trust.

    Attributes:
        events: What the store holds, in order.
        parsed: The same as events.
        head: The signed head.
        keys: The one trusted key, by id.
    """

    events: tuple[StoredEvent, ...]
    parsed: tuple[AuditEvent, ...]
    head: bytes
    keys: Mapping[KeyId, VerifyingKey]


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
    drafts: int | Iterable[Draft] = 7, *, key: SigningKey | None = None, start_ns: int = START_NS
) -> BuiltTrail:
    """A trail that verifies.

    Args:
        drafts: What comes after `trail.started`, or how many sample events.
        key: The key that signs; `fixed_signing_key()` if not given.
        start_ns: When it begins, in nanoseconds since the epoch; two trails of one key begin at two times.
    """
    key = key or fixed_signing_key()
    after = map(sample_draft, range(1, drafts + 1)) if isinstance(drafts, int) else drafts
    events: list[StoredEvent] = []
    parsed: list[AuditEvent] = []
    previous_hash = GENESIS_HASH
    for sequence, draft in enumerate((trail_started(key.verifying_key()), *after), 1):
        event, stored = seal_event(
            draft,
            sequence=sequence,
            previous_hash=previous_hash,
            event_id=EventId(f"01900000-0000-7000-9000-{sequence:012x}"),
            timestamp=rfc3339(start_ns + sequence * STEP_NS),
            key=key,
        )
        events.append(stored)
        parsed.append(event)
        previous_hash = event.chain_hash
    last = parsed[-1]
    tree = Frontier()
    for stored in events:
        tree.append(leaf_hash(stored.record))
    checkpoint = Checkpoint(origin_of(parsed[0].event_id), last.sequence, tree.root(), last.chain_hash, last.timestamp)
    head = seal_checkpoint(checkpoint, key)
    return BuiltTrail(tuple(events), tuple(parsed), head, {key.key_id: key.verifying_key()})
