"""A trail on a real store, for tests and measurements of writing and reading it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from symbi.adapters.sqlite import SqliteStore
from symbi.audit.log import AuditLog, Signing
from symbi.audit.port import StoredEvent
from symbi.audit.verify import TrailReport, verify_trail
from symbi.clock import Clock, IdSource, SystemClock
from symbi.crypto.provider import DEFAULT_PROVIDER, open_provider
from symbi.crypto.signing import SigningKey
from symbi.testing.trail import fixed_signing_key


@dataclass(frozen=True, slots=True)
class OpenLog:
    """An open trail: the writer, its store and its key."""

    log: AuditLog
    store: SqliteStore
    key: SigningKey

    def read(self) -> tuple[list[StoredEvent], bytes]:
        """All events and the signed head, as they stand in the store."""
        found = self.store.head()
        assert found is not None, "an open trail has its first event"
        return list(self.store.read(1)), found[1]

    def verify(self, events: list[StoredEvent], head: bytes) -> TrailReport:
        """Verify what `read` gave, with this trail's key.

        Raises:
            ChainBroken: It does not verify.
        """
        return verify_trail(events, head, {self.key.key_id: self.key.verifying_key()})


@asynccontextmanager
async def open_log(
    folder: Path | None = None,
    *,
    provider: str = DEFAULT_PROVIDER,
    clock: Clock | None = None,
    signing: Signing = Signing.EVENT,
) -> AsyncIterator[OpenLog]:
    """A trail in a folder, or in memory.

    Args:
        folder: Where the file is; None keeps it in memory.
        provider: The library that signs.
        clock: The machine's if None.
        signing: What covers an event.
    """
    clock = clock or SystemClock()
    key = fixed_signing_key(provider=open_provider(provider))
    with SqliteStore(folder) as store:
        async with AuditLog(store, key, clock, IdSource(clock), signing=signing) as log:
            yield OpenLog(log, store, key)
