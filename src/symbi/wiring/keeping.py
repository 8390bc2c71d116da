"""How the trail is kept: the audit storage, the time-stamping authority, witnesses."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

from symbi.adapters.audit_storage import AuditStorage
from symbi.adapters.machine import Finding
from symbi.adapters.sqlite import SqliteReader, SqliteStore
from symbi.adapters.timestamps import TimeStampAuthority
from symbi.adapters.witness import GitWitness, HttpWitness, WitnessFile, witness_key
from symbi.audit.anchor import Stamp
from symbi.audit.checkpoint import parse_note
from symbi.audit.event import AuditEventType, parse_event
from symbi.audit.export import verify_folder
from symbi.audit.heads import Heads
from symbi.audit.keeping import Archive, Keeper
from symbi.audit.log import AuditLog
from symbi.audit.segments import KeepingRules, waiting
from symbi.audit.tree import nodes_of
from symbi.audit.verify import BEGINNING, Start, TrailReport, verify_trail
from symbi.audit.witness import WitnessKey
from symbi.clock import Clock
from symbi.config import Settings
from symbi.crypto.merkle import frontier_of
from symbi.crypto.provider import open_provider
from symbi.crypto.signing import SigningKey, VerifyingKey
from symbi.errors import ChainBroken, ConfigError, InputError, StoreUnavailable, Unavailable
from symbi.runtime.policy_watch import Runs, watching
from symbi.types import KeyId

Keys: TypeAlias = Callable[[], Mapping[KeyId, VerifyingKey]]
"""All public keys that signed the trail."""

NEEDS: Final = (
    ("retention_days", "storage", "events that leave the live store must be kept somewhere"),
    ("tsa_url", "tsa_certificate", "an answer that cannot be checked is worth nothing"),
    ("tsa_interval_s", "tsa_url", "there is nobody to ask"),
)
"""Keys of `[audit]` that mean nothing without another, and why."""


def refuse_half(settings: Settings) -> None:
    """Refuse keys of `[audit]` that mean nothing without another.

    Raises:
        ConfigError: One is set, and not the other.
    """
    audit = settings.audit
    found = [(key, other, why) for key, other, why in NEEDS if getattr(audit, key) is not None]
    if audit.storage_required:
        found.append(("storage_required", "storage", "there is none that could be required"))
    for key, other, why in found:
        if getattr(audit, other) is None:
            origin = settings.origin(f"audit.{key}")
            msg = f"`audit.{key}` ({origin}) needs `audit.{other}`: {why}"
            raise ConfigError(msg, code="config.half", place=origin.place)


def keeping_rules(settings: Settings) -> KeepingRules:
    """When segments are closed, and when they leave."""
    audit = settings.audit
    return KeepingRules(
        events=audit.segment_events,
        interval_s=audit.segment_interval_s,
        retention_days=audit.retention_days,
        required=audit.storage_required,
        max_waiting=audit.storage_max_waiting,
    )


def audit_storage(settings: Settings) -> AuditStorage | None:
    """The configured storage."""
    return None if settings.audit.storage is None else AuditStorage(settings.audit.storage)


def time_stamp_authority(settings: Settings, url: str, certificate: Path) -> Stamp:
    """An authority that stamps checkpoints.

    Raises:
        ConfigError: The certificates cannot be read.
    """
    return TimeStampAuthority(url, certificate, timeout_s=settings.audit.tsa_timeout_s)


@asynccontextmanager
async def keeping(
    settings: Settings, log: AuditLog, store: SqliteStore, clock: Clock, keys: Keys
) -> AsyncIterator[tuple[Heads, Keeper | None]]:
    """Keep a trail as configured, for as long as the body lasts.

    Raises:
        ConfigError: The settings do not fit each other, or the certificates cannot be read.
    """
    audit, storage = settings.audit, audit_storage(settings)
    stamp: Stamp | None = None
    if audit.tsa_url is not None and audit.tsa_certificate is not None:
        stamp = time_stamp_authority(settings, audit.tsa_url, audit.tsa_certificate)
    another = partial(time_stamp_authority, settings)
    heads = Heads(log, store, clock, keys, stamp=stamp, authority=another, interval_s=audit.tsa_interval_s)
    keeper: Keeper | None = None
    works: list[Runs] = [heads] if audit.tsa_interval_s is not None else []
    async with AsyncExitStack() as stack:
        if storage is not None:
            archive = Archive(storage, partial(verify_segment, keys), keys)
            keeper = Keeper(log, store, archive, keeping_rules(settings), clock)
            await keeper.open()
            stack.callback(log.on_commit(keeper.committed))
            works.append(keeper)
        if works:
            await stack.enter_async_context(watching(works))
        yield heads, keeper


def verify_segment(keys: Keys, folder: Path) -> TrailReport:
    """Verify a segment alone, as an auditor would.

    Raises:
        ChainBroken: It does not verify.
        Unavailable: It cannot be read.
    """
    try:
        return verify_folder(folder, keys())
    except InputError as error:
        raise Unavailable(error.message, code="unavailable.audit_storage") from error


def live_start(reader: SqliteReader) -> Start:
    """What stands before the first event that is live; where events were removed, as the checkpoint there and the tree say.

    None of it is believed: it fits what comes after it, or verification fails there.

    Raises:
        ChainBroken: The events before it are gone, and no checkpoint stands in their place.
    """
    first, head = reader.first_event(), reader.head_record()
    if first == 1 or head is None:
        return BEGINNING
    kept = next(iter(reader.checkpoints(first - 1, first - 1)), None)
    if kept is None:
        msg = f"event 1 is missing, as are all up to event {first - 1}, and no checkpoint stands in their place"
        raise ChainBroken(msg, sequence=1, reason="sequence")
    size = parse_note(head).checkpoint.size
    try:
        hashes = frontier_of(first - 1, nodes_of(size, reader.tile, reader.record)).hashes
    except ValueError as error:
        msg = f"the tree over the events up to {first - 1} is not whole: {error}"
        raise ChainBroken(msg, sequence=first, reason="head") from error
    return Start(first - 1, hashes, parse_note(kept[1]).checkpoint.chain_hash)


def check_removed(reader: SqliteReader, start: Start) -> None:
    """Return if the trail itself, which has been verified, says that what stands before was removed.

    Raises:
        ChainBroken: It does not: somebody else took those events out.
    """
    if not start.size:
        return
    for stored in reader.events_of_type(AuditEventType.SEGMENT_REMOVED):
        details = parse_event(stored.record, sequence=stored.sequence).details
        if details.get("last") == start.size and details.get("chain_hash") == start.chain_hash:
            return
    msg = f"event 1 is missing, as are all up to event {start.size}, and no event says that they were removed"
    raise ChainBroken(msg, sequence=1, reason="sequence")


def verify_live(reader: SqliteReader, keys: Mapping[KeyId, VerifyingKey]) -> TrailReport:
    """Verify what is live of a trail; `first` of the report says where that begins.

    Raises:
        ChainBroken: It does not verify.
    """
    start = live_start(reader)
    report = verify_trail(reader.read(start.size + 1), reader.head_record(), keys, start=start)
    check_removed(reader, start)
    return report


def probe_storage(settings: Settings) -> list[Finding]:
    """Whether the audit storage takes segments, and how many wait for it; nothing where none is configured."""
    storage, required = audit_storage(settings), settings.audit.storage_required
    if storage is None:
        return []
    name = "audit storage"
    try:
        storage.check()
    except Unavailable as error:
        return [Finding(name, ok=False, detail=error.message, install_hint=error.hint or "", required=required)]
    detail = f"`{settings.audit.storage}` takes segments"
    try:
        with SqliteReader(settings.runtime.data_dir) as reader:
            segments = reader.segments()
            late = waiting(reader.event_count(), segments[-1].last if segments else 0, keeping_rules(settings))
    except StoreUnavailable as error:
        told = f"{detail}; how many wait cannot be told: {error.message}"
        absent = error.code == "unavailable.store_absent"  # nothing waits where nothing was begun
        return [Finding(name, ok=absent, detail=told, install_hint=error.hint or "", required=required)]
    hint = "start a runtime: it takes up what waits; its log says why it could not" if late else ""
    detail = f"{detail}; {len(segments)} sealed, {late} waiting"
    return [Finding(name, ok=not late, detail=detail, install_hint=hint, required=False)]


def witness_place(path: Path, *, git: bool, push: bool) -> WitnessFile:
    """Where a witness keeps heads.

    Raises:
        InputError: It is to be a Git repository and is none.
    """
    return GitWitness(path, push=push) if git else WitnessFile(path)


def remote_witness(settings: Settings, url: str, key: str) -> tuple[HttpWitness, WitnessKey]:
    """A witness on another host.

    Raises:
        InputError: The key is none.
    """
    witness = WitnessKey.parse(key, open_provider(settings.security.crypto_provider.value))
    return HttpWitness(url, witness), witness


def own_witness_key(settings: Settings, path: Path) -> SigningKey:
    """The key of a witness that is us, made at the first use.

    Raises:
        InputError: It is open to others, malformed, or cannot be made.
    """
    return witness_key(path, open_provider(settings.security.crypto_provider.value))


__all__: Sequence[str] = [
    "audit_storage",
    "check_removed",
    "keeping",
    "keeping_rules",
    "live_start",
    "own_witness_key",
    "probe_storage",
    "refuse_half",
    "remote_witness",
    "time_stamp_authority",
    "verify_live",
    "verify_segment",
    "witness_place",
]
