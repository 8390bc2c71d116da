"""Where the writer stands in the trail, and how it takes up a trail that it finds.

To take up a trail, in order:

1. the head is a signed note, and the last event is the one that it names: its sequence, chain hash and time;
2. the last event is in order by itself: its form, its hash in its place, and its signature where it has one;
3. the head is signed by the key of the last event, which is one of ours;
4. the tree over the store's tiles and last records gives the head's root.

So neither a tail that was cut off nor an edge that was changed is built upon. What lies before is for the verifier. A
release before this one kept its head as JSON; such a head is checked as that release did, and replaced.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Never

from symbi.audit.checkpoint import Checkpoint, origin_of, parse_note, seal_checkpoint, verify_note
from symbi.audit.event import EVENT_DOMAIN, AuditEvent, AuditEventType, Signing, parse_event
from symbi.audit.port import AuditStore, StoredEvent
from symbi.audit.tree import Tree
from symbi.clock import parse_rfc3339, rfc3339
from symbi.crypto.canonical import canonical_json, parse_canonical
from symbi.crypto.chain import GENESIS, link
from symbi.crypto.signing import SigningKey
from symbi.errors import ChainBroken, InputError, SignatureInvalid
from symbi.types import EventId, JsonValue, KeyId

HEAD_DOMAIN_BEFORE: Final = "audit.head"  # of heads in JSON, by a release before this one
_HEAD_FIELDS_BEFORE: Final = frozenset({"schema_version", "sequence", "chain_hash", "timestamp", "key_id", "signature"})


@dataclass(slots=True)
class Position:
    """Where the chain stands; one commit works on a copy of it.

    Attributes:
        key: Signs the next event.
        signing: The mode that the next event is signed in.
        sequence: Of the last event; 0 before the first.
        chain_hash: Of the last event, 32 bytes.
        time_ns: Of the last event.
        origin: Of the trail; empty before the first event.
        head_key: Key of the last event, which signs the head.
        tree: Over all events.
    """

    key: SigningKey
    signing: Signing
    sequence: int = 0
    chain_hash: bytes = GENESIS
    time_ns: int = 0
    origin: str = ""
    head_key: SigningKey | None = None
    tree: Tree = field(default_factory=Tree)

    def copy(self) -> "Position":
        """One that moves by itself; the tree is shared until it is replaced."""
        return Position(
            self.key, self.signing, self.sequence, self.chain_hash, self.time_ns, self.origin, self.head_key, self.tree
        )

    def move(self, sequence: int, chain_hash: bytes, time_ns: int) -> None:
        """Stand at the next event, by the key that is in force."""
        self.sequence, self.chain_hash, self.time_ns, self.head_key = sequence, chain_hash, time_ns, self.key

    def go_back(self, before: "Position") -> None:
        """Stand where a copy was made."""
        for name in self.__slots__:
            setattr(self, name, getattr(before, name))

    def head(self) -> bytes:
        """The checkpoint of this place, signed."""
        checkpoint = Checkpoint(
            self.origin, self.sequence, self.tree.root(), self.chain_hash.hex(), rfc3339(self.time_ns)
        )
        return seal_checkpoint(checkpoint, self.head_key or self.key)


def take_up(store: AuditStore, keys: Mapping[KeyId, SigningKey]) -> Position | None:
    """Where a store's trail ends, once its end is checked; None where there is no trail yet.

    Raises:
        ChainBroken: Something was truncated or altered, or another key signed it.
        StoreUnavailable: The store cannot be read, or, where the head is of an earlier release, be written.
    """
    found = store.head()
    if found is None:
        return None
    last, signed = found
    before = signed.startswith(b"{")
    event = _last_event(last, keys)
    tree = Tree.rebuild(event.sequence, store.tile, store.record)
    if before:
        _check_head_before(signed, event, keys)
        origin = origin_of(_first_id(store))
    else:
        origin = _check_head(signed, event, keys, tree)
    at = _after(event, keys)
    at.origin, at.tree, at.head_key = origin, tree, keys[event.key_id]
    if before:
        with store.transaction():
            store.put_head(at.head())
    return at


def _last_event(last: StoredEvent, keys: Mapping[KeyId, SigningKey]) -> AuditEvent:
    """The last event, in order by itself."""
    place = last.sequence
    event = parse_event(last.record, sequence=place)
    if event.sequence != place:
        _broken(place, "column", f"event {place} says that it is event {event.sequence}")
    body: dict[str, Any] = {name: getattr(event, name) for name in AuditEvent.__dataclass_fields__}
    del body["chain_hash"], body["signature"]
    chain_hash = link(bytes.fromhex(event.previous_hash), canonical_json(body))
    if event.chain_hash != chain_hash.hex():
        _broken(place, "hash", f"event {place} was altered: its hash is of something else")
    if event.chain_hash != last.chain_hash:
        _broken(place, "column", f"the store keeps another hash beside event {place}")
    key = _key(event.key_id, keys, place, f"event {place}")
    if event.signature:
        try:
            key.verifying_key().verify(EVENT_DOMAIN, chain_hash, bytes.fromhex(event.signature))
        except SignatureInvalid as error:
            msg = f"the signature of event {place} is wrong"
            raise ChainBroken(msg, sequence=place, reason="signature") from error
    return event


def _check_head(signed: bytes, event: AuditEvent, keys: Mapping[KeyId, SigningKey], tree: Tree) -> str:
    place = event.sequence
    note = parse_note(signed)
    head = note.checkpoint
    if head.size != place:
        _broken(
            min(place, head.size) + 1,
            "head",
            f"the head says that the trail ends with event {head.size}, and it ends with event {place}",
        )
    if head.chain_hash != event.chain_hash or head.timestamp != event.timestamp:
        _broken(place, "head", f"the head is not of event {place}, which is the last")
    verify_note(note, _key(event.key_id, keys, place, "the head").verifying_key())
    if head.root != tree.root():
        _broken(place, "head", "the tree over the events does not give the root that the head was signed over")
    return head.origin


def _check_head_before(signed: bytes, event: AuditEvent, keys: Mapping[KeyId, SigningKey]) -> None:
    place = event.sequence
    try:
        fields: Any = parse_canonical(signed)
    except InputError as error:
        _broken(place, "head", f"the head is {error.message}")
    if not isinstance(fields, dict) or fields.keys() != _HEAD_FIELDS_BEFORE:
        _broken(place, "head", "the head has not the fields of a head")
    expected: dict[str, JsonValue] = {
        "schema_version": 1,
        "sequence": place,
        "chain_hash": event.chain_hash,
        "timestamp": event.timestamp,
        "key_id": event.key_id,
    }
    if fields != expected | {"signature": fields["signature"]}:
        _broken(place, "head", f"the head is not of event {place}, which is the last")
    key = _key(event.key_id, keys, place, "the head")
    try:
        key.verifying_key().verify(
            HEAD_DOMAIN_BEFORE, canonical_json(expected), bytes.fromhex(str(fields["signature"]))
        )
    except (SignatureInvalid, ValueError) as error:
        msg = "the signature of the head is wrong"
        raise ChainBroken(msg, sequence=place, reason="signature") from error


def _after(event: AuditEvent, keys: Mapping[KeyId, SigningKey]) -> Position:
    """Where the next event stands: by which key, and in which mode."""
    place, details = event.sequence, event.details
    key = _key(event.key_id, keys, place, f"event {place}")
    signing = Signing.EVENT if event.signature else Signing.BATCH
    if event.event_type in {AuditEventType.SIGNING_CHANGED, AuditEventType.TRAIL_STARTED}:
        signing = _signing(details.get("signing", Signing.EVENT), place)
    at = Position(key, signing, place, bytes.fromhex(event.chain_hash), parse_rfc3339(event.timestamp))
    if event.event_type is AuditEventType.KEY_ROTATED:
        at.key = _key(str(details.get("key_id")), keys, place, f"what follows event {place}")
        at.signing = _signing(details.get("signing", at.signing), place)
    return at


def _signing(value: JsonValue, place: int) -> Signing:
    if value not in list(Signing):
        _broken(place, "fields", f"event {place} names a mode of signing that there is not")
    return Signing(str(value))


def _key(key_id: str, keys: Mapping[KeyId, SigningKey], place: int, what: str) -> SigningKey:
    key = keys.get(KeyId(key_id))
    if key is None:
        _broken(place, "key", f"{what} is signed by key `{key_id}`, which is not among the keys of this runtime")
    return key


def _first_id(store: AuditStore) -> EventId:
    return parse_event(store.record(1), sequence=1).event_id


def _broken(sequence: int, reason: str, message: str) -> Never:
    raise ChainBroken(message, sequence=sequence, reason=reason)
