"""What one commit adds to the chain: events get their places, one after the other, on a copy of where the chain stands."""

from collections.abc import Iterable, Mapping, Sequence

from symbi.audit.checkpoint import origin_of
from symbi.audit.event import (
    AuditEventType,
    Draft,
    Prepared,
    Receipt,
    Signing,
    Unsigned,
    needs_signature,
    place_event,
    prepare,
)
from symbi.audit.port import EventIndex
from symbi.audit.position import Position
from symbi.clock import Clock, IdSource, rfc3339
from symbi.crypto.signing import SigningKey
from symbi.errors import InputError
from symbi.types import EventId, KeyId

_CHANGES = frozenset({AuditEventType.TRAIL_STARTED, AuditEventType.SIGNING_CHANGED, AuditEventType.KEY_ROTATED})


class Sealer:
    """Places the events of one commit.

    Args:
        at: Where the chain stands; moved on.
        keys: The keys that the trail can be handed over to.
        clock: Source of timestamps; they never go back, whatever the clock does.
        ids: Source of event ids.
    """

    __slots__ = ("_clock", "_ids", "_keys", "at", "events", "index")

    def __init__(self, at: Position, keys: Mapping[KeyId, SigningKey], clock: Clock, ids: IdSource) -> None:
        self.at = at
        self.events: list[tuple[Unsigned, SigningKey | None]] = []  # with the key that is still to sign it
        self.index: list[EventIndex] = []
        self._keys = keys
        self._clock = clock
        self._ids = ids

    def place(self, drafts: Iterable[Draft | Prepared]) -> tuple[Receipt, ...]:
        """Place the events of one unit of work: all, or none.

        Raises:
            InputError: One cannot be recorded.
        """
        before, length = self.at.copy(), len(self.events)
        try:
            return tuple(self._place(one if isinstance(one, Prepared) else prepare(one)) for one in drafts)
        except BaseException:
            self.at.go_back(before)
            del self.events[length:], self.index[length:]
            raise

    def place_each(self, drafts: Sequence[Prepared]) -> list[Receipt | InputError]:
        """Place events that do not depend on each other, with one look at the clock; of each, what came of it."""
        at = self.at
        time_ns = max(at.time_ns, self._clock.now_ns())
        timestamp, key_id = rfc3339(time_ns).encode(), at.key.key_id.encode()
        key = at.key if at.signing is Signing.EVENT else None
        sequence, chain_hash = at.sequence, at.chain_hash
        said: list[Receipt | InputError] = []
        for draft, event_id in zip(drafts, self._ids.several(len(drafts)), strict=True):
            try:
                unsigned = place_event(draft, sequence + 1, chain_hash, event_id.encode(), timestamp, key_id)
            except InputError as error:  # which left everything as it was
                said.append(error)
                continue
            sequence, chain_hash = unsigned.sequence, unsigned.chain_hash
            self.events.append((unsigned, key))
            self.index.append(draft.found_by)
            said.append(Receipt(sequence, EventId(event_id), unsigned.chain_hex))
        if sequence > at.sequence:
            at.move(sequence, chain_hash, time_ns)
        return said

    def _place(self, draft: Prepared) -> Receipt:
        at = self.at
        time_ns = max(at.time_ns, self._clock.now_ns())
        event_id = self._ids.new()
        unsigned = place_event(
            draft, at.sequence + 1, at.chain_hash, event_id.encode(), rfc3339(time_ns).encode(), at.key.key_id.encode()
        )
        self.events.append((unsigned, at.key if needs_signature(draft.event_type, at.signing) else None))
        self.index.append(draft.found_by)
        at.move(unsigned.sequence, unsigned.chain_hash, time_ns)
        if draft.event_type in _CHANGES:
            self._change(draft, event_id)
        return Receipt(unsigned.sequence, EventId(event_id), unsigned.chain_hex)

    def _change(self, draft: Prepared, event_id: str) -> None:
        """What an event changes for those that follow it."""
        at = self.at
        match draft.event_type:
            case AuditEventType.TRAIL_STARTED:
                at.origin = origin_of(EventId(event_id))
            case AuditEventType.SIGNING_CHANGED if draft.signing in {*Signing} - {at.signing}:
                at.signing = Signing(draft.signing)
            case AuditEventType.SIGNING_CHANGED:
                msg = f"`{draft.signing}` is not another mode of signing than the one in force"
                raise InputError(msg, code="audit.signing")
            case _:
                key = self._keys.get(KeyId(draft.key_id))
                if key is None or key is at.key:
                    msg = f"the trail cannot be handed over to key `{draft.key_id}`, which this runtime has not or uses already"
                    raise InputError(msg, code="audit.key_rotated")
                at.key = key


def changes_nothing(draft: Prepared) -> bool:
    """Whether an event means nothing for how those after it are placed."""
    return draft.event_type not in _CHANGES
