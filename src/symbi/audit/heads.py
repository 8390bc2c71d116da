"""Heads that are kept: as a checkpoint, with what a witness signed, with the time that an authority put on it."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

import anyio

from symbi.audit.anchor import Anchor, Stamp, stamped_bytes
from symbi.audit.checkpoint import (
    MAX_NOTE_BYTES,
    MAX_SIGNATURES,
    Note,
    NoteSignature,
    key_hash,
    parse_note,
    verify_note,
)
from symbi.audit.event import AuditEventType, Draft, parse_event
from symbi.audit.log import AuditLog
from symbi.audit.port import AuditStore
from symbi.audit.segments import holds_more_than_keeping
from symbi.audit.tree import nodes_of
from symbi.audit.witness import check_continues, check_name, cosignatures_of, merge_cosignatures, name_head, verify_by
from symbi.clock import Clock
from symbi.crypto.merkle import root_of
from symbi.crypto.signing import VerifyingKey
from symbi.errors import ChainBroken, InputError, Unavailable, VerificationError
from symbi.types import SYSTEM_AGENT, JsonValue, KeyId

_log = logging.getLogger("symbi.audit")

FIRST_WAIT_S: Final = 10.0  # before an authority that failed is asked again; doubled each time
LONGEST_WAIT_S: Final = 3600.0


class AnchorStore(AuditStore, Protocol):
    """Where time stamps are kept, beside the trail; written inside the running transaction."""

    def last_anchor(self) -> int:
        """Size of the newest checkpoint that has one; 0 where none has."""

    def put_anchor(self, anchor: Anchor) -> None:
        """Keep a time stamp."""


async def keep_head(log: AuditLog, store: AuditStore) -> Note:
    """Keep the head, as it stands, as a checkpoint; it is durable when this returns.

    Raises:
        StoreUnavailable: The store cannot be read or written.
    """

    def keep() -> tuple[Note, Sequence[Draft]]:
        found = store.head()
        assert found is not None, "an open trail has its first event"
        last, note = found
        kept = next((stored for _, stored in store.checkpoints(last.sequence, last.sequence)), note)
        store.put_checkpoint(last.sequence, kept)
        return parse_note(kept), ()

    note, _ = await log.transact(keep, wait=True)
    return note


class Heads:
    """What others say of the heads of a trail.

    Args:
        log: The trail.
        store: What it stands in.
        clock: For the time between two stamps.
        keys: The trail's own public keys.
        stamp: The time-stamping authority; None where there is none.
        authority: Makes another one, from an address and a file of certificates.
        interval_s: Time between two stamps by itself; None for none.
    """

    def __init__(
        self,
        log: AuditLog,
        store: AnchorStore,
        clock: Clock,
        keys: Callable[[], Mapping[KeyId, VerifyingKey]],
        *,
        stamp: Stamp | None = None,
        authority: Callable[[str, Path], Stamp] | None = None,
        interval_s: float | None = None,
    ) -> None:
        self._log = log
        self._store = store
        self._clock = clock
        self._keys = keys
        self._stamp = stamp
        self._authority = authority
        self._interval_s = interval_s
        self._next_s = clock.monotonic_s()
        self._failures = 0
        self._anchoring = anyio.Lock()  # one after the other: each is an event, so that each has a head of its own

    async def witnessed(self, note: Note, witness: str) -> dict[str, JsonValue]:
        """Keep what a witness signed under a checkpoint of this trail; whether its signature holds is for who has its key.

        Args:
            note: The checkpoint with the cosignature.
            witness: Whose.

        Returns:
            What the trail says of it.

        Raises:
            ChainBroken: The checkpoint is not one of this trail.
            InputError: No line is by that witness, or there is no room for what it signed.
        """
        check_name(witness)
        keys = self._keys()
        verify_by(note, keys)
        lines = tuple(one for one in cosignatures_of(note) if one.name == witness)
        if not lines:
            msg = f"no line of the checkpoint is by witness `{witness[:80]}`"
            raise InputError(msg, code="witness.note")
        facts: dict[str, JsonValue] = {
            "size": note.checkpoint.size,
            "root": note.checkpoint.root.hex(),
            "witness": witness,
            "key_hashes": sorted({one.key_hash.hex() for one in lines}),
        }

        def keep() -> tuple[bool, Sequence[Draft]]:
            merged = self._merged(note, lines, keys)
            if merged is None:
                return False, ()
            self._store.put_checkpoint(note.checkpoint.size, merged.to_bytes())
            return True, (Draft(AuditEventType.CHECKPOINT_WITNESSED, SYSTEM_AGENT, facts),)

        recorded, _ = await self._log.transact(keep)
        return facts | {"recorded": recorded}

    def _merged(self, note: Note, lines: Sequence[NoteSignature], keys: Mapping[KeyId, VerifyingKey]) -> Note | None:
        """The kept checkpoint with further lines; None where it has them. On the store's thread.

        Raises:
            ChainBroken: This trail never stood there.
            InputError: With these lines nobody could read it any more.
        """
        size, found = note.checkpoint.size, self._store.head()
        assert found is not None, "an open trail has its first event"
        head = parse_note(found[1])
        kept = next((stored for _, stored in self._store.checkpoints(size, size)), None)
        if kept is not None:
            before = parse_note(kept)
        elif size == head.checkpoint.size:
            before = head
        else:
            before = self._checked(note, head, keys)
        if before.checkpoint != note.checkpoint:
            msg = (
                f"the head {name_head(note.checkpoint)} is not of this trail, which has {name_head(before.checkpoint)}"
            )
            raise ChainBroken(msg, sequence=size, reason="fork")
        merged = merge_cosignatures(before, lines)
        if len(merged.signatures) > MAX_SIGNATURES or len(merged.to_bytes()) > MAX_NOTE_BYTES:
            msg = f"the checkpoint at event {size} has no room: at most {MAX_SIGNATURES} signatures, {MAX_NOTE_BYTES} bytes"
            raise InputError(msg, code="witness.note", hint="have a later head countersigned")
        return None if kept is not None and merged == before else merged

    def _checked(self, note: Note, head: Note, keys: Mapping[KeyId, VerifyingKey]) -> Note:
        """A checkpoint that was not kept, with the line alone of the key that was in force at its last event."""
        size, last = note.checkpoint.size, head.checkpoint.size
        if note.checkpoint.origin != head.checkpoint.origin or size > last:
            check_continues(note.checkpoint, head.checkpoint, ())
        stored = next(iter(self._store.read(size, size)), None)
        if stored is None:
            msg = f"event {size} has left the live store, so that a head there cannot be checked"
            raise InputError(msg, code="witness.note", hint="have a later head countersigned")
        root = root_of(size, nodes_of(last, self._store.tile, self._store.record))
        event = parse_event(stored.record, sequence=size)
        if (root, event.chain_hash, event.timestamp) != (
            note.checkpoint.root, note.checkpoint.chain_hash, note.checkpoint.timestamp,
        ):  # fmt: skip
            msg = f"the head {name_head(note.checkpoint)} is not of this trail, whose root there is {root.hex()[:16]}…"
            raise ChainBroken(msg, sequence=size, reason="fork")
        key = keys.get(event.key_id)
        if key is None:
            msg = f"event {size} is by key `{event.key_id}`, which is not trusted here"
            raise ChainBroken(msg, sequence=size, reason="key")
        verify_note(note, key)
        own = note.checkpoint.origin, key_hash(note.checkpoint.origin, key.public)
        return Note(note.checkpoint, tuple(one for one in note.signatures if (one.name, one.key_hash) == own))

    async def anchor(self, url: str = "", certificate: Path | None = None) -> dict[str, JsonValue]:
        """Have the head stamped, and keep the token.

        Args:
            url: Of another authority than the configured one.
            certificate: PEM file that its answers are checked against.

        Returns:
            What the trail says of it.

        Raises:
            InputError: No authority is known.
            ConfigError: The certificates cannot be read.
            Unavailable: It cannot be reached, or the store cannot.
            SignatureInvalid: Its answer does not hold.
        """
        stamp = self._stamp
        if url and certificate is not None and self._authority is not None:
            stamp = self._authority(url, certificate)
        if stamp is None:
            msg = "no time-stamping authority is known"
            hint = "set `audit.tsa_url` and `audit.tsa_certificate`, or give `--tsa` and `--certificate`"
            raise InputError(msg, code="anchor.authority", hint=hint)
        async with self._anchoring:
            return await self._have_stamped(stamp)

    async def _have_stamped(self, stamp: Stamp) -> dict[str, JsonValue]:
        note = await keep_head(self._log, self._store)
        stamped = await stamp(stamped_bytes(note))
        size = note.checkpoint.size
        facts: dict[str, JsonValue] = {
            "size": size,
            "root": note.checkpoint.root.hex(),
            "time": stamped.time,
            "authority": stamped.authority,
            "serial": stamped.serial,
            "token_digest": stamped.digest,
        }

        def keep() -> tuple[None, Sequence[Draft]]:
            self._store.put_anchor(Anchor(size, stamped.token, stamped.time, stamped.authority))
            return None, (Draft(AuditEventType.CHECKPOINT_ANCHORED, SYSTEM_AGENT, facts),)

        await self._log.transact(keep)
        return facts

    async def run(self) -> None:
        """Have a head stamped on the cadence, until cancelled."""
        assert self._interval_s is not None, "only with a cadence"
        while True:
            await self.look()
            await anyio.sleep(max(1.0, min(self._interval_s, self._next_s - self._clock.monotonic_s())))

    async def look(self) -> None:
        """Have the head stamped if it is time, and there is something that is not stamped yet. A failure is told."""
        if self._interval_s is None or self._clock.monotonic_s() < self._next_s:
            return
        try:
            if await self._log.read(self._has_news):
                await self.anchor()
        except (Unavailable, VerificationError) as error:
            wait_s = min(LONGEST_WAIT_S, self._interval_s, FIRST_WAIT_S * 2 ** min(self._failures, 16))
            self._failures += 1
            self._next_s = self._clock.monotonic_s() + wait_s
            _log.error("the head was not anchored: %s; tried again in %g s", error, wait_s)
        else:
            self._failures = 0
            self._next_s = self._clock.monotonic_s() + self._interval_s

    def _has_news(self) -> bool:
        after = self._store.last_anchor()
        return holds_more_than_keeping(
            parse_event(one.record, sequence=one.sequence) for one in self._store.read(after + 1)
        )
