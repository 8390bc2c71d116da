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
from symbi.audit.event import parse_event
from symbi.audit.heads import Heads
from symbi.audit.keeping import Archive, Keeper
from symbi.audit.log import AuditLog
from symbi.audit.port import StoredEvent
from symbi.audit.segments import KeepingRules, waiting
from symbi.audit.verify import TrailReport, verify_trail
from symbi.audit.witness import WitnessKey
from symbi.clock import Clock
from symbi.config import Settings
from symbi.crypto.provider import open_provider
from symbi.crypto.signing import SigningKey, VerifyingKey
from symbi.errors import ConfigError, StoreUnavailable, Unavailable
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
    heads = Heads(log, store, clock, keys, stamp=stamp, interval_s=audit.tsa_interval_s)
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
    """TEMP."""
    try:
        lines = (folder / "events.jsonl").read_bytes().splitlines(keepends=True)
    except OSError as error:
        msg = f"cannot read the segment `{folder}`: {error.strerror or error}"
        raise Unavailable(msg, code="unavailable.audit_storage") from error
    events = []
    for line in lines:
        e = parse_event(line[:-1])
        events.append(StoredEvent(e.sequence, line[:-1], e.chain_hash))
    note = sorted((folder / "checkpoints").iterdir())[-1].read_bytes()
    return verify_trail(events, note, keys(), expect_first=events[0].sequence)


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
    except StoreUnavailable:
        return [Finding(name, ok=True, detail=f"{detail}; there is no store to read yet", required=required)]
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
    "keeping",
    "keeping_rules",
    "own_witness_key",
    "probe_storage",
    "refuse_half",
    "remote_witness",
    "time_stamp_authority",
    "witness_place",
]
