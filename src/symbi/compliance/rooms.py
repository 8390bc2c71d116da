"""What exports and erasures stand on, and the questions that both ask."""

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import anyio.to_thread

from symbi.audit.log import AuditLog
from symbi.clock import Clock, rfc3339
from symbi.compliance.forms import Wanted
from symbi.compliance.port import PrivacyStore, Subject, SubjectStore
from symbi.compliance.residue import Findings, search_files
from symbi.crypto.signing import SigningKey
from symbi.errors import DecryptionFailed, InputError, StoreUnavailable
from symbi.guard.vault import Hold, SubjectKey, SubjectKeyStore, Vault, place
from symbi.policy.about import subject_name
from symbi.policy.flow import MORE_SUBJECTS
from symbi.types import JsonValue, KeyId

FileBytes = tuple[str, Iterator[bytes]]
MAX_REASON_CHARS: Final = 500
LEAST_NAME_CHARS: Final = 3  # of a part of a name that may not stand in a reason
_WORD: Final = re.compile(r"[^\W_]+")


def no_probe(_point: str) -> None:
    """The default of `probe`: nothing."""


@dataclass(frozen=True, slots=True)
class PrivacyRooms:
    """The rooms that exports and erasures stand on.

    Attributes:
        log: The trail.
        vault: Opens and destroys.
        keys: The keys of subjects.
        store: What is kept of erasures.
        stores: Every store that holds personal data.
        signing: The key of the trail.
        head: The signed head of the trail, as text; on the store's thread.
        files: Every file that a search reads, by its name for people: the data folder and the audit storage.
        about_both: Where something stands that is sealed by keys of both of two groups, in events after one and wherever
            else; None where nothing does; on the store's thread.
        texts: What the operator wrote for everybody: policies, definitions of tools, the configuration; on the store's thread.
        clock: For times.
        missing: Parts of the trail that have left the live store and cannot be found; on the store's thread.
        probe: Called at named points of an erasure; for tests.
    """

    log: AuditLog
    vault: Vault
    keys: SubjectKeyStore
    store: PrivacyStore
    stores: Sequence[SubjectStore]
    signing: Callable[[], SigningKey]
    head: Callable[[], str]
    files: Callable[[], Iterable[FileBytes]]
    about_both: Callable[[frozenset[KeyId], frozenset[KeyId], int], str | None]
    texts: Callable[[], Iterable[bytes]]
    clock: Clock
    missing: Callable[[], Sequence[str]] = tuple
    probe: Callable[[str], None] = no_probe

    async def search(self, wanted: Wanted) -> Findings:
        """Search every file; a part of the trail that is not there was not read."""
        findings = await anyio.to_thread.run_sync(partial(search_files, wanted, self.files))
        findings.unread.extend(f"{name}: it is not there" for name in await self.log.read(self.missing))
        return findings

    async def require_all(self) -> None:
        """Return if all of the trail is there.

        Raises:
            StoreUnavailable: Some of it has left the live store and is not in the audit storage.
        """
        missing = await self.log.read(self.missing)
        if missing:
            msg = f"{len(missing)} parts of the trail have left the live store and cannot be found: {missing[0]}"
            raise StoreUnavailable(msg, code="unavailable.audit_storage", hint="`audit.storage` says where they are")

    def now(self) -> str:
        """RFC 3339."""
        return rfc3339(self.clock.now_ns())

    def keys_of(self, subject: str) -> "SubjectKeys":
        """What there is of a subject; on the store's thread.

        Raises:
            InputError: It is no name.
            ConfigError: There is no master key.
        """
        pseudonym = self.vault.pseudonym(subject_name(subject))
        crowd = self.keys.subject_keys(self.vault.pseudonym(MORE_SUBJECTS))
        return SubjectKeys(pseudonym, tuple(self.keys.subject_keys(pseudonym)), tuple(crowd))

    def hold_json(self, hold: Hold) -> dict[str, JsonValue]:
        """A hold for people; on the store's thread."""
        try:
            note = json.loads(self.vault.open(hold.note, hold_place(hold.pseudonym)))
        except DecryptionFailed as error:
            note = {"unopened": str(error.fields.get("reason", "altered"))}
        return {"since": hold.held_at, **note}


@dataclass(frozen=True, slots=True)
class SubjectKeys:
    """The keys of a subject, and those of values about more people than are named, who may be among them.

    Attributes:
        pseudonym: Of the subject.
        rows: Its keys.
        crowd: The others.
    """

    pseudonym: str
    rows: tuple[SubjectKey, ...]
    crowd: tuple[SubjectKey, ...]

    @property
    def living(self) -> tuple[SubjectKey, ...]:
        """Its keys that were not destroyed."""
        return tuple(row for row in self.rows if row.wrapped is not None)

    @property
    def living_crowd(self) -> tuple[SubjectKey, ...]:
        """The others that were not destroyed."""
        return tuple(row for row in self.crowd if row.wrapped is not None)

    def subject(self) -> Subject:
        """As stores know it: what is about this subject by name."""
        return Subject(self.pseudonym, frozenset(row.key_id for row in self.rows))

    def crowd_subject(self) -> Subject:
        """As stores know it: what may be about this subject, among many."""
        return Subject(self.pseudonym, frozenset(row.key_id for row in self.living_crowd))


@dataclass(frozen=True, slots=True)
class Order:
    """What somebody asks about a subject.

    Attributes:
        subject: Its name, as it was given.
        reason: Why; it stands in the trail.
        by: Who asks: `uid` and `person`.
        values: What else is to be searched for.
        include_open: Erase also what is under way.
    """

    subject: str
    reason: str = ""
    by: Mapping[str, JsonValue] = field(default_factory=dict)
    values: tuple[str, ...] = ()
    include_open: bool = False

    def __post_init__(self) -> None:
        """Refuse a reason that would put the name on the trail.

        Raises:
            InputError: The reason is too long, not printable, or names the subject or one of the values.
        """
        if len(self.reason) > MAX_REASON_CHARS or not self.reason.isprintable():
            msg = f"a reason is one line of at most {MAX_REASON_CHARS} printable characters"
            raise InputError(msg, code="privacy.reason")
        told, name = _folded(self.reason), _folded(self.subject)
        parts = [name, *name.replace("@", " ").split(), *map(_folded, self.values)]
        words = {*_WORD.findall(name.partition("@")[0])} & {*_WORD.findall(told)}
        if any(part in told for part in parts if len(part) >= LEAST_NAME_CHARS) or any(
            len(word) >= LEAST_NAME_CHARS for word in words
        ):
            msg = "the reason names the subject, or a value that is searched for, and would stand in the trail for good"
            raise InputError(msg, code="privacy.reason", hint="name a case or a letter instead")


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()


def hold_place(pseudonym: str) -> bytes:
    """Associated data of a hold's note."""
    return place("subject_holds", "note", pseudonym)
