"""A trail with a keeper on a real store and a real storage, for tests of what is sealed and removed."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from symbi.adapters.audit_storage import AuditStorage, no_probe
from symbi.adapters.sqlite import SqliteStore
from symbi.audit.event import AuditEvent, Draft, Signing, parse_event
from symbi.audit.heads import Heads
from symbi.audit.keeping import Archive, Keeper
from symbi.audit.log import AuditLog
from symbi.audit.segments import KeepingRules
from symbi.clock import IdSource
from symbi.crypto.signing import VerifyingKey
from symbi.testing.clock import ManualClock
from symbi.testing.trail import fixed_signing_key, sample_draft
from symbi.types import KeyId
from symbi.wiring.keeping import verify_segment

OTHER_KEY: Final = 7  # number of the key that such a trail may be handed over to
RULES: Final = KeepingRules(events=256, interval_s=3600.0, retention_days=30)


@dataclass(frozen=True, slots=True)
class Kept:
    """An open trail and all that keeps it."""

    log: AuditLog
    store: SqliteStore
    storage: AuditStorage
    keeper: Keeper
    heads: Heads
    clock: ManualClock

    async def append(self, count: int) -> None:
        """Append some sample events, in commits of a hundred."""
        for low in range(0, count, 100):
            await self.log.transact(partial(_drafts, low, min(low + 100, count)))

    def events(self) -> list[AuditEvent]:
        """What is live."""
        return [parse_event(stored.record) for stored in self.store.read(1)]


def _drafts(low: int, high: int) -> tuple[None, Sequence[Draft]]:
    return None, [sample_draft(number) for number in range(low, high)]


def trusted() -> Mapping[KeyId, VerifyingKey]:
    """The keys of such a trail: the one that begins it, and one that it may be handed over to."""
    keys = (fixed_signing_key().verifying_key(), fixed_signing_key(OTHER_KEY).verifying_key())
    return {key.key_id: key for key in keys}


@asynccontextmanager
async def open_kept(
    folder: Path | None,
    storage: Path,
    *,
    rules: KeepingRules = RULES,
    clock: ManualClock | None = None,
    probe: Callable[[str], None] = no_probe,
    signing: Signing = Signing.EVENT,
) -> AsyncIterator[Kept]:
    """A trail in a folder, or in memory, with a keeper that was not opened yet.

    Args:
        folder: Where the store is; None keeps it in memory.
        storage: The audit storage.
        rules: When segments are closed and leave.
        clock: A new manual one if None.
        probe: Called at the points of storage and keeper.
        signing: What covers an event.
    """
    clock = clock or ManualClock()
    place = AuditStorage(storage, probe=probe)
    archive = Archive(place, partial(verify_segment, trusted), trusted)
    with SqliteStore(folder) as store:
        key, other = fixed_signing_key(), fixed_signing_key(OTHER_KEY)
        async with AuditLog(store, key, clock, IdSource(clock), others=(other,), signing=signing) as log:
            keeper = Keeper(log, store, archive, rules, clock, probe=probe)
            yield Kept(log, store, place, keeper, Heads(log, store, clock, trusted), clock)
