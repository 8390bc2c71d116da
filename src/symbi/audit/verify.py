"""Verifying a trail: values in, a report or `ChainBroken` out; docs/reference/audit-format.md is the contract.

Keys come from outside: a public key that stands in the trail proves nothing until a trusted key signed that it is the
next one. For each event, in order:

1. the record is canonical JSON with exactly the fields of an event, each of its form;
2. the sequence number is the next one, the store's column says the same, and the schema version does not go down;
3. `trail.started` stands first, names the format, the key that signed it and the signing mode, and stands nowhere else;
4. the previous hash is the chain hash of the event before it;
5. the chain hash is that of the body in this place, and the store's column says the same;
6. the key is the one in force, and the signature over the chain hash is by it, where the signing mode asks for one;
7. the time is not before that of the event before it;
8. a checkpoint of this size is signed by the key in force, and says the root, chain hash and time computed here;
9. a checkpoint of this size that a witness keeps says the same.

The head is the checkpoint at the last event, and no witness has seen more. Pieces of the trail can be checked on
several cores (`Run`); the verdict is that of one walk. What this cannot show without a witness is a whole store that
was put back to an earlier state, which was a true one, or a history written anew by the holder of the signing key.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import merge
from typing import Final, NamedTuple, Never, TypeAlias

from symbi.audit.checkpoint import Note, key_hash, origin_of, parse_note, verify_note
from symbi.audit.event import GENESIS_HASH
from symbi.audit.piece import ANY, Before, Checked, Force, Mark, Piece, check_piece, examine, public_key
from symbi.audit.port import StoredEvent
from symbi.crypto.merkle import Frontier, verify_consistency
from symbi.crypto.provider import DEFAULT_PROVIDER
from symbi.crypto.signing import VerifyingKey
from symbi.errors import ChainBroken
from symbi.types import EventId, KeyId

PIECE_EVENTS: Final = 1024
PIECE_BYTES: Final = 4_194_304  # bounds what waits in memory where events are large

Run: TypeAlias = Callable[[Callable[[Piece], Checked | None], Iterator[Piece]], Iterator[tuple[Piece, Checked | None]]]
"""Runs a function over pieces, wherever it likes, and gives each piece with its result, in order."""


@dataclass(frozen=True, slots=True)
class Start:
    """Where the events to verify begin: what stands before the first of them.

    Attributes:
        size: How many events come before.
        hashes: The frontier of the tree over them.
        chain_hash: Hex, of the last of them.
        origin: Of the trail, or empty where it is not known yet.
        timestamp: Of the last of them, or empty.
        force: What is in force; where it is empty, any trusted key may go on.
    """

    size: int = 0
    hashes: tuple[bytes, ...] = ()
    chain_hash: str = GENESIS_HASH
    origin: str = ""
    timestamp: str = ""
    force: Force = ANY


BEGINNING: Final = Start()


@dataclass(frozen=True, slots=True)
class TrailReport:
    """What a verified trail, or stretch of it, holds.

    Attributes:
        events: How many events.
        first: Sequence number of the first.
        last: Sequence number of the last.
        first_timestamp: RFC 3339 time of the first.
        last_timestamp: RFC 3339 time of the last.
        chain_hash: Hex, of the last; commits to the whole trail.
        key_ids: The keys that were in force, in order of appearance.
        root: Hex; root of the tree up to the last event.
        checkpoints: How many checkpoints beside the head were found to fit.
        witnessed: Up to which event a witness has seen the same; 0 without one.
        end: Where the next event would begin.
    """

    events: int
    first: int
    last: int
    first_timestamp: str
    last_timestamp: str
    chain_hash: str
    key_ids: tuple[KeyId, ...]
    root: str
    checkpoints: int
    witnessed: int
    end: Start


class Claim(NamedTuple):
    """Something that says where the trail stood, to be judged when the walk is there.

    Attributes:
        size: After which event.
        order: 0 for a kept checkpoint, 1 for the head, 2 for a witness.
        note: What it says; None where it is of no form, as `fault` tells.
        fault: Why there is no note.
    """

    size: int
    order: int
    note: Note | None
    fault: str = ""


def in_process(
    check: Callable[[Piece], Checked | None], pieces: Iterator[Piece]
) -> Iterator[tuple[Piece, Checked | None]]:
    """One piece after the other, here."""
    for piece in pieces:
        yield piece, check(piece)


def verify_trail(
    events: Iterable[StoredEvent | bytes],
    head: bytes | None,
    keys: Mapping[KeyId, VerifyingKey],
    *,
    start: Start = BEGINNING,
    claims: Iterable[Claim] = (),
    run: Run = in_process,
    beyond: Sequence[bytes] | None = None,
) -> TrailReport:
    """Return if the trail is whole, unaltered, and signed by trusted keys.

    Args:
        events: In their order, as a store keeps them or as records alone.
        head: The signed head, or None where there is none.
        keys: The trusted keys by id.
        start: What stands before the first event.
        claims: Kept checkpoints and what a witness has seen, as `claims_of` puts them in order.
        run: Where pieces are checked.
        beyond: For a stretch that ends before the head: the proof that the head continues it.

    Raises:
        ChainBroken: It is not. `fields["sequence"]` is the place of the first bad event, and `fields["reason"]` one of
            `canonical`, `fields`, `sequence`, `version`, `start`, `link`, `hash`, `key`, `signature`, `rotation`,
            `time`, `column`, `checkpoint`, `witness`, `empty`, `head`.
    """
    trail = _Trail(start, head, keys, iter(claims), beyond)
    stream = iter(events)
    # The first event alone, so that what is in force is known before pieces are checked apart.
    for piece in trail.pieces(stream, limit=1):
        trail.begin(piece)
    for piece, checked in run(examine, trail.pieces(stream)):
        trail.join(piece, checked)
    return trail.finish()


def claims_of(checkpoints: Iterable[tuple[int, bytes]], witness: Sequence[Note] = ()) -> Iterator[Claim]:
    """What is to be held against the events, in order.

    Args:
        checkpoints: Kept ones by size, ascending, with the size under which each is kept.
        witness: What a witness has seen.
    """
    seen = sorted((Claim(note.checkpoint.size, _WITNESS, note) for note in witness), key=_by_size)
    return merge((_kept(size, data) for size, data in checkpoints), seen, key=_by_size)


class _Trail:
    """Joins pieces into one trail."""

    def __init__(
        self,
        start: Start,
        head: bytes | None,
        keys: Mapping[KeyId, VerifyingKey],
        claims: Iterator[Claim],
        beyond: Sequence[bytes] | None,
    ) -> None:
        self._start = start
        self._frontier = Frontier(start.size, start.hashes)
        self._at = Mark(start.size, (), start.chain_hash, start.timestamp, start.force.key, 0)
        self._force, self._origin = start.force, start.origin
        self._trusted, self._provider = _known(keys)
        self._beyond = beyond
        self._head: Note | None = None
        self._stopped: ChainBroken | None = None  # told once what comes before it is known to hold
        self._headless: ChainBroken | None = None
        try:
            self._head = parse_note(head or b"")
        except ChainBroken as error:
            self._headless = error
            if head is None or head.startswith(b"{"):
                self._headless = ChainBroken(_NO_HEAD if head is None else _HEAD_BEFORE, sequence=0, reason="head")
        self._has_head = head is not None
        if self._head is not None and beyond is None:
            ours = Claim(self._head.checkpoint.size, _HEAD, self._head)
            claims = merge(claims, (ours,), key=_by_size)
        self._claims = claims
        self._next_claim = next(claims, None)
        self._waiting: deque[Claim] = deque()
        self._claimed = start.size
        self._place = start.size  # the last event that was put into a piece
        self._unsigned = self._checkpoints = 0
        self._witnessed = start.size
        self._seen = False  # whether a witness has seen any of it
        self._first: Checked | None = None
        self._key_ids: dict[KeyId, None] = {}

    def pieces(self, events: Iterator[StoredEvent | bytes], limit: int = PIECE_EVENTS) -> Iterator[Piece]:
        """The events in pieces; with a limit of one, the first event alone."""
        while self._stopped is None:
            records: list[bytes] = []
            columns: list[tuple[int, str]] = []
            size = 0
            try:
                while len(records) < limit and size < PIECE_BYTES:
                    event = next(events, None)
                    if event is None:
                        break
                    self._refuse_beyond_head(self._place + len(records) + 1)
                    if isinstance(event, bytes):
                        records.append(event)
                    else:
                        records.append(event.record)
                        columns.append((event.sequence, event.chain_hash))
                    size += len(records[-1])
            except ChainBroken as error:
                self._stopped = error
            if not records:
                return
            first, self._place = self._place + 1, self._place + len(records)
            yield Piece(
                first, records, columns or None, self._take_claims(), self._force, self._trusted, self._provider
            )
            if limit == 1:
                return

    def _refuse_beyond_head(self, place: int) -> None:
        if self._head is not None and self._beyond is None and place > self._head.checkpoint.size:
            size = self._head.checkpoint.size
            _broken(place, "head", f"the head says that the trail ends with event {size}, and event {place} follows")

    def _take_claims(self) -> tuple[int, ...]:
        """The sizes of the claims that fall into the events up to here."""
        marks: dict[int, None] = {}
        while self._next_claim is not None and self._next_claim.size <= self._place:
            claim, self._next_claim = self._next_claim, next(self._claims, None)
            if claim.size <= self._start.size and claim.order == _WITNESS:
                continue  # of a time before these events
            if claim.size < self._claimed or claim.size <= self._start.size:
                msg = f"a checkpoint at event {claim.size} is kept where there is none to be"
                self._stopped = self._stopped or ChainBroken(msg, sequence=self._claimed + 1, reason="checkpoint")
                continue
            self._claimed = claim.size
            marks[claim.size] = None
            self._waiting.append(claim)
        return tuple(marks)

    def begin(self, piece: Piece) -> None:
        """Take up the first event."""
        first = check_piece(piece, Before(self._at.chain_hash, self._at.timestamp))
        self._first = first
        if piece.first == 1:
            self._origin = origin_of(EventId(first.first_id))
        self._take_up(first)

    def join(self, piece: Piece, checked: Checked | None) -> None:
        """Take up a piece where the one before it ended; look again where anything is not as was assumed."""
        at = self._at
        fits = checked is not None and piece.force == self._force
        if (
            checked is None
            or not fits
            or checked.previous_hash != at.chain_hash
            or checked.first_timestamp < at.timestamp
        ):
            before = Before(at.chain_hash, at.timestamp)
            checked = check_piece(piece._replace(force=self._force), before, self._judge)
        self._take_up(checked)

    def _take_up(self, checked: Checked) -> None:
        for mark in checked.marks:
            self._judge(mark)
        for level, root in checked.end.subtrees:
            self._frontier.append_subtree(level, root)
        self._at, self._force = checked.end, checked.force
        self._key_ids.update(dict.fromkeys(checked.key_ids))
        self._unsigned = self._unsigned or checked.end.unsigned

    def _judge(self, mark: Mark) -> None:
        """Hold what is claimed at this size against what was computed; once for each claim."""
        if not self._waiting or self._waiting[0].size != mark.size:
            return
        self._unsigned = self._unsigned or mark.unsigned
        frontier = self._frontier.copy()
        for level, root in mark.subtrees:
            frontier.append_subtree(level, root)
        while self._waiting and self._waiting[0].size == mark.size:
            self._hold(self._waiting.popleft(), mark, frontier.root())

    def _hold(self, claim: Claim, mark: Mark, root: bytes) -> None:
        # Where nothing else vouches for the events since the last claim that fitted, it may be any of them.
        since = self._witnessed + 1 if claim.order == _WITNESS else self._unsigned or claim.size
        if claim.note is None:
            _broken(since, _REASONS[claim.order], claim.fault)
        self._origin = self._origin or claim.note.checkpoint.origin
        if claim.note.checkpoint.origin != self._origin:
            _broken(since, _REASONS[claim.order], f"{_NAMES[claim.order]} at event {claim.size} is of another trail")
        if claim.order == _WITNESS:
            _compare(claim, mark, root, since)
            self._witnessed, self._seen = claim.size, True
        try:
            verify_note(claim.note, public_key(mark.key, self._provider))
        except ChainBroken as error:
            raise ChainBroken(error.message, sequence=since, reason=error.fields["reason"]) from error
        if claim.order != _WITNESS:
            _compare(claim, mark, root, since)
            self._unsigned = 0
            self._checkpoints += claim.order == _KEPT

    def finish(self) -> TrailReport:
        """The report, once all pieces are joined."""
        if self._stopped is not None:
            raise self._stopped
        first, last = self._first, self._at
        if first is None:
            what = ", and its head says that it has" if self._has_head else ""
            _broken(self._start.size + 1, "empty", f"the trail has no events{what}")
        if self._headless is not None:
            _broken(self._unsigned or last.size, "head", self._headless.message)
        if self._beyond is not None:
            self._check_beyond(self._beyond, last)
        elif self._next_claim is not None:
            size, order = self._next_claim.size, self._next_claim.order
            what = ("a checkpoint is at", "the head says that the trail ends with", "a witness has seen")[order]
            _broken(last.size + 1, _REASONS[order], f"{what} event {size}, and it ends with event {last.size}")
        return TrailReport(
            events=last.size - self._start.size,
            first=self._start.size + 1,
            last=last.size,
            first_timestamp=first.first_timestamp,
            last_timestamp=last.timestamp,
            chain_hash=last.chain_hash,
            key_ids=tuple(self._key_ids),
            root=self._frontier.root().hex(),
            checkpoints=self._checkpoints,
            witnessed=self._witnessed if self._seen else 0,
            end=Start(last.size, self._frontier.hashes, last.chain_hash, self._origin, last.timestamp, self._force),
        )

    def _check_beyond(self, proof: Sequence[bytes], last: Mark) -> None:
        """Check that a later head continues the tree up to here."""
        assert self._head is not None
        head = self._head.checkpoint
        size, root = last.size, self._frontier.root()
        rest = (*(() if self._next_claim is None else (self._next_claim,)), *self._claims)
        seen = max((claim.size for claim in rest if claim.order == _WITNESS), default=0)
        if seen > head.size:
            _broken(
                head.size + 1, "witness", f"a witness has seen event {seen}, and the trail ends with event {head.size}"
            )
        if head.origin != (self._origin or head.origin):
            _broken(size, "head", "the head is of another trail")
        self._origin = head.origin
        names = {one.key_hash for one in self._head.signatures}
        known = dict.fromkeys((last.key, self._force.key, *dict(self._trusted).values()))
        signers = [public_key(one, self._provider) for one in known if one]
        verify_note(
            self._head, next((one for one in signers if key_hash(head.origin, one.public) in names), signers[0])
        )
        if not verify_consistency(size, head.size, proof, root, head.root):
            since = self._unsigned or size
            _broken(since, "head", f"the head at event {head.size} does not continue the events up to {size}")


_KEPT: Final = 0
_HEAD: Final = 1
_WITNESS: Final = 2
_REASONS: Final = ("checkpoint", "head", "witness")
_NAMES: Final = ("the checkpoint", "the head", "what a witness has seen")
_HEAD_BEFORE: Final = (
    "the head has the form of an earlier release: the next command that writes checks it and replaces it"
)
_NO_HEAD: Final = "the trail has no signed head, so that nobody can tell where it ends"


def _by_size(claim: Claim) -> tuple[int, int]:
    return claim.size, claim.order


def _kept(size: int, data: bytes) -> Claim:
    try:
        note = parse_note(data)
    except ChainBroken as error:
        return Claim(size, _KEPT, None, f"at event {size}, {error.message}")
    if note.checkpoint.size != size:
        return Claim(
            size, _KEPT, None, f"the checkpoint that is kept at event {size} is of event {note.checkpoint.size}"
        )
    return Claim(size, _KEPT, note)


def _known(keys: Mapping[KeyId, VerifyingKey]) -> tuple[tuple[tuple[str, str], ...], str]:
    """Trusted keys as plain values, and the library that checks them."""
    provider = next((key.provider_name for key in keys.values()), DEFAULT_PROVIDER)
    return tuple((key_id, key.hex) for key_id, key in keys.items()), provider


def _compare(claim: Claim, mark: Mark, root: bytes, since: int) -> None:
    """Hold a checkpoint against what was computed."""
    assert claim.note is not None
    says = claim.note.checkpoint
    name = f"{_NAMES[claim.order]} at event {claim.size}"
    pairs = (
        ("root", says.root, root),
        ("chain hash", says.chain_hash, mark.chain_hash),
        ("time", says.timestamp, mark.timestamp),
    )
    for what, said, computed in pairs:
        if said != computed:
            which = f"event {since}" if since == claim.size else f"one of the events {since} to {claim.size}"
            _broken(since, _REASONS[claim.order], f"{name} has another {what}: it does not fit {which}")


def _broken(sequence: int, reason: str, message: str) -> Never:
    raise ChainBroken(message, sequence=sequence, reason=reason)
