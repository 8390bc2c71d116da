"""Exports and erasures, over every store that holds personal data."""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from symbi.adapters.archive import EVENTS_NAME, ArchivedTrail
from symbi.adapters.folders import folder_files
from symbi.adapters.sqlite import SqliteStore
from symbi.adapters.sqlite.privacy import SEALED_STORES, large_cells
from symbi.audit.log import AuditLog
from symbi.clock import Clock
from symbi.compliance.deleting import DeletingStore
from symbi.compliance.privacy import Privacy
from symbi.compliance.rooms import PrivacyRooms
from symbi.compliance.sealed import SealedStore, pages_of
from symbi.config import Settings, describe_settings
from symbi.context.keeping import MemoryKeeping
from symbi.crypto.signing import SigningKey
from symbi.guard.vault import Vault
from symbi.knowledge.door import KnowledgeDoor
from symbi.runtime.sealed_mail import SealedMail
from symbi.types import KeyId

DOCUMENTS = "knowledge"
MEMORIES = "memories"
STORAGE_PREFIX = "audit-storage/"  # before the names of files that do not lie in the data folder


def open_privacy(
    settings: Settings,
    store: SqliteStore,
    log: AuditLog,
    sealing: tuple[Vault, SealedMail, MemoryKeeping, KnowledgeDoor],
    signing: Callable[[], SigningKey],
    clock: Clock,
    probe: Callable[[str], None],
) -> Privacy:
    """Exports and erasures in a data folder."""
    vault, mails, memories, door = sealing
    storage = None if settings.audit.storage is None else settings.folder / settings.audit.storage
    folders: list[tuple[str, Path]] = []
    if settings.security.audit_enabled:
        folders.append(("", settings.runtime.data_dir))
        if storage is not None and not _lies_in(storage, settings.runtime.data_dir):
            folders.append((STORAGE_PREFIX, storage))
    return Privacy(
        PrivacyRooms(
            log=log,
            vault=vault,
            keys=store,
            store=store,
            stores=sealed_stores(store, log, (vault, mails), storage, memories, door),
            signing=signing,
            head=partial(head_text, store),
            files=partial(every_byte, folders),
            about_both=store.about_both,
            texts=partial(operators_texts, settings, store),
            clock=clock,
            missing=partial(missing_parts, store, storage),
            probe=probe,
        )
    )


def sealed_stores(
    store: SqliteStore,
    log: AuditLog,
    sealing: tuple[Vault, SealedMail],
    storage: Path | None,
    memories: MemoryKeeping,
    door: KnowledgeDoor,
) -> tuple[SealedStore, ...]:
    """The stores whose personal data is sealed: those in the one store, and the audit storage."""
    vault, mails = sealing
    pages = pages_of(store, log.read)
    archive = ArchivedTrail(storage, partial(log.read, store.first_live))
    return (
        *(
            SealedStore(name, frozenset(columns), pages, vault, log.read, mails.plain)
            for name, columns in SEALED_STORES.items()
            if name not in {DOCUMENTS, MEMORIES}
        ),
        DeletingStore(
            DOCUMENTS,
            frozenset(SEALED_STORES[DOCUMENTS]),
            pages,
            vault,
            log.read,
            erase=partial(erase_documents, door, store, log),
        ),
        DeletingStore(
            MEMORIES,
            frozenset(SEALED_STORES[MEMORIES]),
            pages,
            vault,
            log.read,
            erase=memories.erased,
        ),
        SealedStore("archive", frozenset(), archive.pages, vault, log.read),
    )


async def erase_documents(
    door: KnowledgeDoor, store: SqliteStore, log: AuditLog, ids: Sequence[str], keys: frozenset[KeyId]
) -> None:
    """Remove documents that are about somebody, with their vectors; also those of one whose writing broke off before its row.

    Where knowledge is open, what is just being written is waited for. Where there are or were documents, their vectors are
    looked at: of those that were changed or removed before, something may be in the files.
    """
    if ids or door.is_open or await log.read(lambda: store.pending(None) or store.collections()):
        await (await door.opened()).erase(ids, keys)


def missing_parts(store: SqliteStore, storage: Path | None) -> list[str]:
    """The segments that have left the live store and are not in the audit storage; on the store's thread."""
    live = store.first_live()
    gone = [segment.folder for segment in store.segments() if segment.last < live]
    return [
        f"{STORAGE_PREFIX}{name}" for name in gone if storage is None or not (storage / name / EVENTS_NAME).is_file()
    ]


def _lies_in(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def every_byte(folders: Sequence[tuple[str, Path]]) -> Iterator[tuple[str, Iterator[bytes]]]:
    """The bytes of every file, and what the store's file holds in pieces."""
    yield from folder_files(folders)
    for _, folder in folders:
        yield from large_cells(folder)


def operators_texts(settings: Settings, store: SqliteStore) -> list[bytes]:
    """Policies that were ever in force, definitions of tools, and the configuration; on the store's thread."""
    shown = json.dumps([[row.key, str(row.value)] for row in describe_settings(settings)], ensure_ascii=False)
    return [*store.operators_texts(), shown.encode()]


def head_text(store: SqliteStore) -> str:
    """The signed head of the trail; on the store's thread."""
    head = store.head()
    return "" if head is None else head[1].decode()
