"""Exports and erasures, over every store that holds personal data."""

from collections.abc import Callable
from functools import partial

from symbi.adapters.folders import folder_files
from symbi.adapters.sqlite import SqliteStore
from symbi.adapters.sqlite.privacy import SEALED_STORES
from symbi.audit.log import AuditLog
from symbi.clock import Clock
from symbi.compliance.privacy import Privacy
from symbi.compliance.rooms import PrivacyRooms
from symbi.compliance.sealed import SealedStore
from symbi.config import Settings
from symbi.crypto.signing import SigningKey
from symbi.guard.vault import Vault

STORAGE_PREFIX = "audit-storage/"  # before the names of files that do not lie in the data folder


def open_privacy(
    settings: Settings,
    store: SqliteStore,
    log: AuditLog,
    vault: Vault,
    signing: Callable[[], SigningKey],
    clock: Clock,
    probe: Callable[[str], None],
) -> Privacy:
    """Exports and erasures in a data folder."""
    folders = []
    if settings.security.audit_enabled:
        folders.append(("", settings.runtime.data_dir))
        if settings.audit.storage is not None:
            folders.append((STORAGE_PREFIX, settings.folder / settings.audit.storage))
    return Privacy(
        PrivacyRooms(
            log=log,
            vault=vault,
            keys=store,
            store=store,
            stores=sealed_stores(store, log, vault),
            signing=signing,
            head=partial(head_text, store),
            files=partial(folder_files, folders),
            clock=clock,
            probe=probe,
        )
    )


def sealed_stores(store: SqliteStore, log: AuditLog, vault: Vault) -> tuple[SealedStore, ...]:
    """The stores in the one store whose personal data is sealed."""
    return tuple(
        SealedStore(name, frozenset(columns), store, vault, log.read) for name, columns in SEALED_STORES.items()
    )


def head_text(store: SqliteStore) -> str:
    """The signed head of the trail; on the store's thread."""
    head = store.head()
    return "" if head is None else head[1].decode()
