"""A piece of a trail, verified by itself: what can be done apart, on any core, and joined by `symbi.audit.verify`.

A piece is checked under an assumption of what is in force before it. Whoever joins pieces compares the assumption with
what the piece before left, and checks the piece again where it does not hold; so the verdict is that of one walk through the events.
Pieces and results are plain values that can be sent to another process.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple, Never

from symbi.audit.event import (
    EVENT_DOMAIN,
    FIELDS,
    GENESIS_HASH,
    MAX_RECORD_BYTES,
    AuditEventType,
    is_hash,
    is_signature,
    is_timestamp,
    parse_fields,
)
from symbi.crypto.canonical import parse_canonical
from symbi.crypto.chain import link
from symbi.crypto.merkle import Stretch, leaf_hash
from symbi.crypto.provider import open_provider
from symbi.crypto.signing import VerifyingKey
from symbi.errors import ChainBroken, InputError, SignatureInvalid
from symbi.types import KeyId

SIGNINGS: Final = frozenset({"event", "batch"})

_SPECIAL: Final = (AuditEventType.TRAIL_STARTED, AuditEventType.KEY_ROTATED, AuditEventType.SIGNING_CHANGED)
_ORDINARY: Final = frozenset(one.value for one in AuditEventType) - {one.value for one in _SPECIAL}
_CHAIN_FIELD: Final = b',"chain_hash":"'
_CHAIN_LENGTH: Final = len(_CHAIN_FIELD) + 64 + 1
_SIGNATURE_LENGTH: Final = len(',"signature":""')
_TIME_LENGTH: Final = len(',"timestamp":"2026-01-02T03:04:05.000000000Z"}')


class Force(NamedTuple):
    """What is in force for the next event.

    Attributes:
        key: Public key in hex; empty where the next event may name any trusted key.
        signing: `event` or `batch`; empty where nobody can tell, and an event may lack a signature.
        version: The least schema version.
    """

    key: str = ""
    signing: str = ""
    version: int = 1


ANY: Final = Force()


class Mark(NamedTuple):
    """Where a stretch of a piece stands after an event, to be held against a checkpoint.

    Attributes:
        size: Sequence number of the event.
        subtrees: Those of the piece up to here, as of `symbi.crypto.merkle.Stretch`.
        chain_hash: Hex, of the event.
        timestamp: Of the event.
        key: Public key in force at the event, hex.
        unsigned: The first event without a signature of its own since the mark before; 0 if there is none.
    """

    size: int
    subtrees: tuple[tuple[int, bytes], ...]
    chain_hash: str
    timestamp: str
    key: str
    unsigned: int


class Piece(NamedTuple):
    """Consecutive events and what is assumed of those before.

    Attributes:
        first: Sequence number that it begins with.
        records: As they are stored.
        columns: Sequence number and chain hash that a store keeps beside each; None where there is no store.
        marks: Sizes after which a mark is wanted, ascending.
        force: What is assumed to be in force.
        trusted: The trusted keys, id and public key in hex.
        provider: The library that checks signatures.
    """

    first: int
    records: Sequence[bytes]
    columns: Sequence[tuple[int, str]] | None
    marks: tuple[int, ...]
    force: Force
    trusted: tuple[tuple[str, str], ...]
    provider: str


@dataclass(frozen=True, slots=True)
class Before:
    """What stands before the first event of a piece; nothing of it is known where a piece is checked apart.

    Attributes:
        chain_hash: Hex, or empty.
        timestamp: Or empty.
    """

    chain_hash: str = ""
    timestamp: str = ""


@dataclass(frozen=True, slots=True)
class Checked:
    """A piece that holds by itself.

    Attributes:
        previous_hash: Hex; what its first event follows.
        first_timestamp: Time of its first event.
        force: What is in force after it.
        end: Where it ends.
        marks: In order.
        key_ids: The keys that were in force, in order.
        first_id: Id of its first event.
    """

    previous_hash: str
    first_timestamp: str
    force: Force
    end: Mark
    marks: tuple[Mark, ...]
    key_ids: tuple[KeyId, ...]
    first_id: str


def examine(piece: Piece) -> Checked | None:
    """A piece checked apart; None where something is wrong with it or with what was assumed."""
    try:
        return check_piece(piece, Before())
    except ChainBroken:
        return None


def check_piece(piece: Piece, before: Before, judge: Callable[[Mark], None] | None = None) -> Checked:
    """Check the events of a piece in order.

    Args:
        piece: What to check.
        before: What stands before it, as far as it is known.
        judge: Called with each mark before the next event is looked at.

    Raises:
        ChainBroken: With the first bad event, as of `symbi.audit.verify.verify_trail`; or whatever the judge raised.
    """
    walk = _Walk(piece, before)
    marks: list[Mark] = []
    wanted = iter((*piece.marks, 0))
    mark = next(wanted)
    for place, record in enumerate(piece.records, piece.first):
        walk.step(place, record, None if piece.columns is None else piece.columns[place - piece.first])
        if place == mark:
            marks.append(walk.mark(place))
            if judge is not None:
                judge(marks[-1])
            mark = next(wanted)
    end = walk.mark(piece.first + len(piece.records) - 1)
    return Checked(
        walk.previous_hash, walk.first_timestamp, walk.force, end, tuple(marks), tuple(walk.key_ids), walk.first_id
    )


class _Walk:
    """One walk through the events of a piece."""

    def __init__(self, piece: Piece, before: Before) -> None:
        self._trusted = dict(piece.trusted)
        self._provider = piece.provider
        self._chain_hash = before.chain_hash
        self._timestamp = before.timestamp
        self._stretch = Stretch(piece.first - 1)
        self._unsigned = 0
        self._key: VerifyingKey | None = None if not piece.force.key else public_key(piece.force.key, piece.provider)
        self._in_force = ""  # the key of the last event
        self._next_key = self._key
        self._signing = piece.force.signing
        self._version = piece.force.version
        self.key_ids: dict[KeyId, None] = {}
        self.previous_hash = self.first_timestamp = self.first_id = ""

    @property
    def force(self) -> Force:
        """What is in force for the next event."""
        return Force("" if self._next_key is None else self._next_key.hex, self._signing, self._version)

    def mark(self, size: int) -> Mark:
        """Where the walk stands; what is unsigned is counted from here on."""
        unsigned, self._unsigned = self._unsigned, 0
        return Mark(size, self._stretch.subtrees, self._chain_hash, self._timestamp, self._in_force, unsigned)

    def step(self, place: int, record: bytes, column: tuple[int, str] | None) -> None:
        """Check the next event."""
        if not self._pass(place, record, column):
            self._check(place, record, column)

    def _pass(self, place: int, record: bytes, column: tuple[int, str] | None) -> bool:
        """Take an ordinary event that is beyond doubt; False where each step has to be looked at.

        All that `_check` asks for holds here too. Most of it comes from comparing with values whose form is known: the
        hash computed here, the chain hash, key and version of the event before.
        """
        key = self._next_key
        if key is None or not self._chain_hash or len(record) > MAX_RECORD_BYTES:
            return False
        try:
            fields: Any = parse_canonical(record)
        except InputError:
            return False
        if type(fields) is not dict or fields.keys() != FIELDS:
            return False
        chain_hash, signature, time = fields["chain_hash"], fields["signature"], fields["timestamp"]
        if (
            fields["sequence"] != place
            or type(fields["event_type"]) is not str
            or fields["event_type"] not in _ORDINARY
            or fields["previous_hash"] != self._chain_hash
            or fields["key_id"] != key.key_id
            or fields["schema_version"] != self._version
            or type(fields["schema_version"]) is not int
            or type(fields["details"]) is not dict
            or not (type(fields["agent_id"]) is type(fields["event_id"]) is type(fields["run_id"]) is str)
            or not (fields["agent_id"] and fields["event_id"])
            or not (is_hash(chain_hash) and is_signature(signature) and is_timestamp(time))
            or time < self._timestamp
        ):
            return False
        digest = chain_hash_of(record, fields)
        if chain_hash != digest.hex() or (column is not None and column != (place, chain_hash)):
            return False
        if signature:
            if not key.verifies(EVENT_DOMAIN, digest, bytes.fromhex(signature)):
                return False
        elif self._signing == "event":
            return False
        else:
            self._unsigned = self._unsigned or place
        self._take(key, fields, record, place)
        return True

    def _check(self, place: int, record: bytes, column: tuple[int, str] | None) -> None:
        """Check each step for itself; the numbers are those of `symbi.audit.verify`."""
        # 1 canonical form and fields
        fields = parse_fields(record, sequence=place)
        # 2 sequence and version
        if fields["sequence"] != place:
            _broken(place, "sequence", f"event {place} is missing: event {fields['sequence']} stands in its place")
        if column is not None and column[0] != place:
            _broken(place, "column", f"the store keeps event {place} as event {column[0]}")
        if fields["schema_version"] < self._version:
            _broken(place, "version", f"event {place} is of an older schema than the event before it")
        kind = fields["event_type"]
        # 3 beginning
        if place == 1 or kind == AuditEventType.TRAIL_STARTED.value:
            self._signing = check_start(fields, place, self._trusted)
        # 4 link
        expected = GENESIS_HASH if place == 1 else self._chain_hash
        if expected and fields["previous_hash"] != expected:
            _broken(place, "link", f"event {place} does not follow the event before it")
        # 5 chain hash
        chain_hash = chain_hash_of(record, fields)
        if fields["chain_hash"] != chain_hash.hex():
            _broken(place, "hash", f"event {place} was altered: its hash is of something else")
        if column is not None and column[1] != fields["chain_hash"]:
            _broken(place, "column", f"the store keeps another hash beside event {place}")
        # 6 key and signature
        key = self._key_of(fields["key_id"], place)
        self._check_signature(key, fields, chain_hash, place)
        # 7 time; the texts have a fixed width in UTC, so they sort as times do
        if fields["timestamp"] < self._timestamp:
            _broken(place, "time", f"event {place} is dated before the event before it")
        self._take(key, fields, record, place)

    def _key_of(self, key_id: str, place: int) -> VerifyingKey:
        key = self._next_key
        if key is not None and key.key_id == key_id:
            return key
        if key is not None and key_id in self._trusted:
            _broken(place, "key", f"event {place} names key `{key_id}`, and key `{key.key_id}` is in force")
        public = self._trusted.get(key_id)
        found = None if public is None or key is not None else public_key(public, self._provider)
        if found is None or found.key_id != key_id:
            _broken(place, "key", f"event {place} is signed by key `{key_id}`, which is not trusted here")
        return found

    def _check_signature(self, key: VerifyingKey, fields: Mapping[str, Any], chain_hash: bytes, place: int) -> None:
        signature = fields["signature"]
        if not signature:
            if self._signing == "event" or fields["event_type"] == AuditEventType.KEY_ROTATED.value:
                _broken(place, "signature", f"event {place} has no signature")
            self._unsigned = self._unsigned or place
            return
        try:
            key.verify(EVENT_DOMAIN, chain_hash, bytes.fromhex(signature))
        except SignatureInvalid as error:
            msg = f"the signature of event {place} is wrong"
            raise ChainBroken(msg, sequence=place, reason="signature") from error

    def _take(self, key: VerifyingKey, fields: Mapping[str, Any], record: bytes, place: int) -> None:
        if not self.first_timestamp:
            self.first_timestamp, self.previous_hash = fields["timestamp"], fields["previous_hash"]
            self.first_id = fields["event_id"]
        self._chain_hash, self._timestamp = fields["chain_hash"], fields["timestamp"]
        self._version = fields["schema_version"]
        if key is not self._key or not self._in_force:
            self._key, self._in_force = key, key.hex
            self.key_ids[key.key_id] = None
        self._next_key = key
        self._stretch.append(leaf_hash(record))
        kind = fields["event_type"]
        if kind in _ORDINARY:
            return
        if kind == AuditEventType.KEY_ROTATED.value:
            self._next_key = rotated_to(fields["details"], key, place)
        elif kind == AuditEventType.SIGNING_CHANGED.value:
            self._signing = signing_of(fields["details"], self._signing, place)


def chain_hash_of(record: bytes, fields: Mapping[str, Any]) -> bytes:
    """The chain hash that a record should have: of its body, which is cut out of it.

    Args:
        record: In canonical form with the fields of an event, so that each stands where its name sorts.
        fields: The same, read.
    """
    at = record.index(_CHAIN_FIELD)  # the first one: a quotation mark within the agent's name is escaped
    end = len(record) - _TIME_LENGTH
    body = b"".join(
        (record[:at], record[at + _CHAIN_LENGTH : end - _SIGNATURE_LENGTH - len(fields["signature"])], record[end:])
    )
    return link(bytes.fromhex(fields["previous_hash"]), body)


def check_start(fields: Mapping[str, Any], place: int, trusted: Mapping[str, str]) -> str:
    """Check that a trail begins here and as it should; the signing mode that it begins with."""
    kind, details = fields["event_type"], fields["details"]
    if place != 1 or kind != AuditEventType.TRAIL_STARTED.value:
        _broken(place, "start", f"event {place} is `{kind}`; a trail starts once, with its first event")
    if type(details.get("format")) is not int or details["format"] != fields["schema_version"]:
        _broken(place, "start", f"the trail is not of format {fields['schema_version']}")
    signing = details.get("signing", "event" if details["format"] == 1 else None)
    if not isinstance(signing, str) or signing not in SIGNINGS:
        _broken(place, "start", "the trail does not say how its events are signed")
    public = trusted.get(fields["key_id"])
    if public is not None and details.get("public_key") != public:
        _broken(place, "start", "the trail says that it was started with another key than the one that signed it")
    return signing


def rotated_to(details: Mapping[str, Any], key: VerifyingKey, place: int) -> VerifyingKey:
    """The key that `key.rotated` names.

    Raises:
        ChainBroken: It names none, or the one that is in force.
    """
    public, named = details.get("public_key"), details.get("key_id")
    try:
        found = public_key(public, key.provider_name) if isinstance(public, str) else None
    except InputError:
        found = None
    if found is None or found.hex != public or found.key_id != named or found.key_id == key.key_id:
        _broken(place, "rotation", f"event {place} does not name a new key")
    return found


def signing_of(details: Mapping[str, Any], before: str, place: int) -> str:
    """The mode that `signing.changed` names.

    Raises:
        ChainBroken: It names none, or the one that is in force.
    """
    signing = details.get("signing")
    if not isinstance(signing, str) or signing not in SIGNINGS or signing == before:
        _broken(place, "rotation", f"event {place} does not name another signing mode")
    return signing


@lru_cache(maxsize=64)
def public_key(public: str, provider: str) -> VerifyingKey:
    """The key of some hex digits, made once.

    Raises:
        InputError: They are no public key.
    """
    return VerifyingKey.from_hex(public, open_provider(provider))


def _broken(sequence: int, reason: str, message: str) -> Never:
    raise ChainBroken(message, sequence=sequence, reason=reason)
