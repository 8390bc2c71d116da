"""The keys of data subjects: what the store keeps of a person is sealed under keys that can be destroyed.

Each subject has a random data key, wrapped by the master key and kept in the store. It is durable before anything is
sealed under it: `ready` returns only then. Destroying it leaves a tombstone, so that whoever opens what it sealed learns
that this was erased, and not merely that it does not open. Names of subjects stand nowhere in the store: tables name a
pseudonym, an HMAC under a key that is derived from the master.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from symbi.audit.event import Draft
from symbi.audit.log import AuditLog
from symbi.clock import Clock, random_bytes, rfc3339
from symbi.crypto.keys import KeyRing
from symbi.crypto.mac import MacKey
from symbi.crypto.provider import AES_KEY_BYTES, CryptoProvider
from symbi.crypto.sealing import KEY_ID_BYTES, Ciphertext, SealingKey
from symbi.errors import ConfigError, DecryptionFailed, InputError, InternalError
from symbi.guard.sealed import SealedText, bound, is_sealed, read_sealed, read_sealed_json
from symbi.policy.about import subject_name
from symbi.policy.flow import MORE_SUBJECTS
from symbi.types import AgentId, JsonValue, KeyId

MAX_CACHED_KEYS: Final = 4096  # data keys in memory at once; others are read again
WRAPPING: Final = "subject-keys/1"
PSEUDONYMS: Final = "subject-pseudonyms/1"

_AGENT: Final = "\0agent:"  # begins the name under which an agent's own payloads are sealed; no subject's name can
_WRAP: Final = b"symbi/subject-key/1\0"
_NO_DRAFTS: Final[tuple[Draft, ...]] = ()


@dataclass(frozen=True, slots=True)
class SubjectKey:
    """A data key as the store keeps it.

    Attributes:
        key_id: Random, 16 hexadecimal digits; stands beside all that the key seals.
        pseudonym: Of the subject.
        wrapped: The key, sealed by the master; None once it was destroyed.
        created_at: RFC 3339.
        destroyed_at: RFC 3339, once it was destroyed.
        name: The subject's name, sealed by the key itself; gone with it.
    """

    key_id: KeyId
    pseudonym: str
    wrapped: bytes | None
    created_at: str
    destroyed_at: str | None = None
    name: bytes | None = None


@dataclass(frozen=True, slots=True)
class Hold:
    """What keeps the data of a subject from being erased.

    Attributes:
        pseudonym: Of the subject.
        note: Why, and who says so, sealed under the subject's key; opaque here.
        held_at: RFC 3339.
    """

    pseudonym: str
    note: bytes
    held_at: str


class SubjectKeyStore(Protocol):
    """Durable data keys and holds; the methods block and run inside the store's running transaction.

    Each of them raises StoreUnavailable where the store cannot be used.
    """

    def put_subject_key(self, key: SubjectKey) -> None:
        """Insert a key.

        Raises:
            InternalError: The id is taken, or the subject has a key that was not destroyed.
        """

    def subject_keys(self, pseudonym: str) -> Sequence[SubjectKey]:
        """All keys that a subject has and had, tombstones included, oldest first; at most one is not destroyed."""

    def subject_key(self, key_id: KeyId) -> SubjectKey | None:
        """One key, or its tombstone, or None."""

    def any_subject_key(self) -> SubjectKey | None:
        """Some key that was not destroyed, or None; tells whether the master is the one that wrapped it."""

    def destroy_subject_keys(self, pseudonym: str, at: str) -> int:
        """Overwrite the keys of a subject and leave tombstones; returns how many there were.

        Args:
            pseudonym: Of the subject.
            at: RFC 3339.
        """

    def set_hold(self, hold: Hold) -> None:
        """Insert or replace the hold of a subject."""

    def hold_of(self, pseudonym: str) -> Hold | None:
        """The hold of a subject, or None."""

    def holds(self) -> Sequence[Hold]:
        """All holds, by pseudonym."""

    def release_hold(self, pseudonym: str) -> bool:
        """Remove a hold; whether there was one."""


class _DataKey:
    """One key in memory: it seals, and makes keyed digests."""

    __slots__ = ("digests", "key_id", "sealing")

    def __init__(self, key_id: KeyId, secret: bytes, provider: CryptoProvider) -> None:
        self.key_id = key_id
        self.sealing = SealingKey(secret, _label(key_id), provider)
        self.digests = MacKey(secret, f"digests/{key_id}", provider)


class Keys:
    """The keys of some subjects, durable and in memory. Without any, values stay as they are.

    What is sealed with them after one was destroyed does not open, as what was sealed before.
    """

    __slots__ = ("_keys",)

    def __init__(self, keys: Iterable[_DataKey] = ()) -> None:
        self._keys = tuple(sorted(keys, key=lambda key: key.key_id))

    def __bool__(self) -> bool:
        return bool(self._keys)

    def __repr__(self) -> str:
        return f"Keys({', '.join(key.key_id for key in self._keys)})"

    @property
    def ids(self) -> tuple[KeyId, ...]:
        """Their ids, sorted."""
        return tuple(key.key_id for key in self._keys)

    def with_others(self, others: "Keys") -> "Keys":
        """These keys and some others."""
        known = set(self.ids)
        return Keys((*self._keys, *(key for key in others._keys if key.key_id not in known)))  # noqa: SLF001 - of its own kind

    def seal_text(self, plaintext: bytes, associated: bytes) -> SealedText:
        """A value under all of the keys.

        Raises:
            InternalError: There is no key.
        """
        if not self._keys:
            msg = "nothing can be sealed under no key"
            raise InternalError(msg, code="internal.seal")
        data, whole = plaintext, bound(associated, self.ids)
        for key in self._keys:
            data = key.sealing.seal(data, whole).to_bytes()
        return SealedText(self.ids, data)

    def seal(self, plaintext: bytes, associated: bytes) -> bytes:
        """A value for a column of bytes: sealed where there is any key, else as it is."""
        return self.seal_text(plaintext, associated).to_bytes() if self._keys else plaintext

    def seal_optional(self, plaintext: bytes | None, associated: bytes) -> bytes | None:
        """The same, of what may not be there."""
        return None if plaintext is None else self.seal(plaintext, associated)

    def digest(self, sha256: bytes) -> bytes:
        """A digest under all of the keys: of what has no subject, itself.

        Args:
            sha256: The plain digest, which can be guessed where the value has few forms.
        """
        for key in self._keys:
            sha256 = key.digests.digest(sha256)
        return sha256


NO_KEYS: Final = Keys()
"""Of values about nobody."""


class Vault:
    """Seals and opens what is about data subjects.

    Args:
        store: Keeps wrapped keys.
        ring: Has the master key.
        provider: The library that seals.
        clock: For the times of keys.
        log: Makes new keys durable; None for who only reads, and makes none.
        all_agents: Seal what is about no subject under a key of its agent.
        random: Where keys come from.

    Attributes:
        beside: Whether the master opens what else it has wrapped in this store; None where it has wrapped nothing else.
    """

    def __init__(
        self,
        store: SubjectKeyStore,
        ring: KeyRing,
        provider: CryptoProvider,
        clock: Clock,
        log: AuditLog | None = None,
        *,
        all_agents: bool = False,
        random: Callable[[int], bytes] = random_bytes,
    ) -> None:
        self._store = store
        self._ring = ring
        self._provider = provider
        self._clock = clock
        self._log = log
        self.all_agents: Final = all_agents
        self._random = random
        self._lock = threading.Lock()
        self._by_id: OrderedDict[KeyId, _DataKey] = OrderedDict()
        self._current: OrderedDict[str, KeyId] = OrderedDict()  # by pseudonym
        self._forgotten = 0  # how often keys were dropped
        self._master_seen = False
        self.beside: Callable[[], bool | None] = lambda: None

    def pseudonym(self, subject: str) -> str:
        """What stands for a subject in tables and events: 32 hexadecimal digits; the same for each spelling of a name.

        Raises:
            InputError: It is not a name.
            ConfigError: There is no master key.
        """
        name = subject if subject.startswith(_AGENT) or subject == MORE_SUBJECTS else subject_name(subject)
        return self._ring.mac_key(PSEUDONYMS).digest(name.encode())[:16].hex()

    async def ready(self, subjects: Iterable[str], *, wait: bool = False) -> Keys:
        """The keys of some subjects; those that had none are made, and are durable when it returns.

        Args:
            subjects: Names, as labels carry them.
            wait: Wait for room where too much waits for the store: for what has happened and must be recorded.

        Raises:
            ConfigError: There is no master key, or not the one that the keys of this store were wrapped by.
            InputError: One of them is no name.
            Overloaded: Too much waits for the store.
            StoreUnavailable: A new key cannot be made durable.
        """
        names = sorted(set(subjects))
        if not names:
            return NO_KEYS
        pseudonyms = [self.pseudonym(name) for name in names]
        found = self._cached(pseudonyms)
        if found is not None:
            return Keys(found)
        if self._log is None:
            msg = "who only reads makes no keys"
            raise InternalError(msg, code="internal.vault")
        (keys, taken), _ = await self._log.transact(
            lambda: ((self._take(names), self._forgotten), _NO_DRAFTS), wait=wait
        )
        with self._lock:
            if taken == self._forgotten:  # else one of them may have been destroyed before this goes on
                for pseudonym, key in zip(pseudonyms, keys, strict=True):
                    self._keep(key, pseudonym)
        return Keys(keys)

    def keys_now(self, subjects: Iterable[str]) -> Keys:
        """The keys of some subjects, for who is inside the store's transaction: they become durable with what they seal.

        Raises:
            ConfigError, InputError, StoreUnavailable: As `ready`.
        """
        return Keys(self._take(sorted(set(subjects))))  # and none is remembered, for the transaction may be undone

    def seal(self, subjects: Iterable[str], plaintext: bytes, associated: bytes) -> bytes:
        """A value for a column, under keys that `ready` has given.

        Raises:
            InternalError: `ready` was not asked for them, or very long ago.
        """
        found = self._cached([self.pseudonym(name) for name in sorted(set(subjects))])
        if found is None:
            msg = "the keys of a value's subjects are not ready"
            raise InternalError(msg, code="internal.vault")
        return Keys(found).seal(plaintext, associated)

    def open(self, sealed: bytes, associated: bytes) -> bytes:
        """What a column holds: opened if it is sealed, else as it stands. On the store's thread.

        Raises:
            DecryptionFailed: `reason` says why: `erased` (a key was destroyed), `key` (there is no such key), `master`
                (the master is another), `altered` (changed, or moved from elsewhere), `form`.
            ConfigError: There is no master key.
            StoreUnavailable: The store cannot be read.
        """
        return self.open_text(read_sealed(sealed), associated) if is_sealed(sealed) else sealed

    def open_json(self, value: object, associated: bytes) -> bytes:
        """The bytes of a sealed value in JSON; raises as `open`."""
        return self.open_text(read_sealed_json(value), associated)

    def open_text(self, sealed: SealedText, associated: bytes) -> bytes:
        """The bytes of a sealed value; raises as `open`."""
        keys = self.known(sealed.keys)
        data, whole = sealed.text, bound(associated, sealed.keys)
        for key in reversed(keys):
            try:
                data = key.sealing.open(Ciphertext.from_bytes(data), whole)
            except DecryptionFailed as error:
                msg = "a sealed value was altered, or belongs elsewhere"
                raise DecryptionFailed(msg, code="verify.sealed", reason="altered", key_id=key.key_id) from error
        return data

    def known(self, key_ids: Sequence[KeyId]) -> tuple[_DataKey, ...]:
        """Keys by their ids, in the same order; raises as `open`."""
        rows = [self._store.subject_key(key_id) for key_id in key_ids]  # the store is asked: a destroyed key is none
        for row in rows:
            if row is not None and row.wrapped is None:
                when = f" at {row.destroyed_at}" if row.destroyed_at else ""
                msg = f"this was erased{when}: its key `{row.key_id}` was destroyed"
                raise DecryptionFailed(msg, code="verify.erased", reason="erased", key_id=row.key_id)
        return tuple(self._load(row, key_id) for row, key_id in zip(rows, key_ids, strict=True))

    def keys_of(self, key_ids: Sequence[KeyId]) -> Keys:
        """The keys of something that was sealed, to digest or seal under the same; raises as `open`."""
        return Keys(self.known(key_ids))

    def destroy(self, subject: str) -> int:
        """Destroy the keys of a subject, and of values about so many subjects that nobody can say who is among them.

        Inside the store's transaction.

        Returns:
            How many keys of the subject there were.

        Raises:
            InputError: A hold forbids it; nothing was destroyed.
            StoreUnavailable: The store cannot be written.
        """
        pseudonym, others = self.pseudonym(subject), self.pseudonym(MORE_SUBJECTS)
        held = self._store.hold_of(pseudonym)
        if held is not None:
            msg = f"what is kept of this subject is on hold since {held.held_at}"
            raise InputError(msg, code="privacy.held", hint="release the hold first")
        crowd = self._store.subject_keys(others)
        if any(key.wrapped is not None for key in crowd) and self._store.holds():
            msg = "there are values about so many subjects that one on hold may be among them, and no erasure may touch it"
            raise InputError(msg, code="privacy.held", hint="release all holds first")
        rows = self._store.subject_keys(pseudonym)
        at = rfc3339(self._clock.now_ns())
        count = self._store.destroy_subject_keys(pseudonym, at)
        self._store.destroy_subject_keys(others, at)
        with self._lock:
            self._forgotten += 1
            for row in (*rows, *crowd):
                self._by_id.pop(row.key_id, None)
                self._current.pop(row.pseudonym, None)
        return count

    # --- keys -----------------------------------------------------------------------------------

    def _cached(self, pseudonyms: Sequence[str]) -> list[_DataKey] | None:
        with self._lock:
            found: list[_DataKey] = []
            for pseudonym in pseudonyms:
                key = self._by_id.get(self._current.get(pseudonym, KeyId("")))
                if key is None:
                    return None
                self._by_id.move_to_end(key.key_id)
                self._current.move_to_end(pseudonym)
                found.append(key)
            return found

    def name_of(self, key: SubjectKey) -> str:
        """Whose key it is; raises as `open`."""
        if key.name is None:
            msg = f"nobody can say any more whose key `{key.key_id}` was"
            raise DecryptionFailed(msg, code="verify.erased", reason="erased", key_id=key.key_id)
        return self.open(key.name, _naming(key.key_id)).decode()

    def _take(self, names: Sequence[str]) -> list[_DataKey]:
        """The living keys of subjects, made where there is none; inside the transaction."""
        taken: list[_DataKey] = []
        for name in names:
            keys = self._store.subject_keys(self.pseudonym(name))
            row = next((key for key in keys if key.wrapped is not None), None)
            taken.append(self._make(name) if row is None else self._load(row, row.key_id))
        return taken

    def _make(self, name: str) -> _DataKey:
        pseudonym = self.pseudonym(name)
        self._require_master()
        key_id = KeyId(self._random(KEY_ID_BYTES).hex())
        secret = self._random(AES_KEY_BYTES)
        wrapped = self._ring.sealing_key(WRAPPING).seal(secret, _wrapping(key_id, pseudonym)).to_bytes()
        key = _DataKey(key_id, secret, self._provider)
        sealed_name = Keys((key,)).seal(name.encode(), _naming(key_id))
        at = rfc3339(self._clock.now_ns())
        self._store.put_subject_key(SubjectKey(key_id, pseudonym, wrapped, at, name=sealed_name))
        return key

    def _require_master(self) -> None:
        """Refuse to wrap under another master than the one before: under it no erasure would find the older keys."""
        if self._master_seen:
            return
        opens = self.opens_a_key()
        if opens is None:  # two masters could never be used together
            opens = self.beside()
        if opens is False:
            msg = "the sealing master is not the one that wrapped the keys of this store"
            hint = "bring back the key that it was written with"
            raise ConfigError(msg, code="config.master_key", hint=hint)
        self._master_seen = True

    def opens_a_key(self) -> bool | None:
        """Whether the master opens a key that was not destroyed; None where there is none. On the store's thread."""
        row = self._store.any_subject_key()
        if row is None:
            return None
        try:
            self._unwrap(row)
        except DecryptionFailed:
            return False
        return True

    def _load(self, row: SubjectKey | None, key_id: KeyId) -> _DataKey:
        if row is None:
            msg = f"there is no key `{key_id}` in this store"
            raise DecryptionFailed(msg, code="verify.sealed_key", reason="key", key_id=key_id)
        with self._lock:
            key = self._by_id.get(key_id)
        if key is None:
            key = _DataKey(key_id, self._unwrap(row), self._provider)
            with self._lock:
                self._keep(key)
        return key

    def _unwrap(self, row: SubjectKey) -> bytes:
        assert row.wrapped is not None
        wrapping = self._ring.sealing_key(WRAPPING)
        try:
            return wrapping.open(Ciphertext.from_bytes(row.wrapped), _wrapping(row.key_id, row.pseudonym))
        except DecryptionFailed as error:
            msg = f"key `{row.key_id}` was not wrapped by this master key, or was altered"
            raise DecryptionFailed(msg, code="verify.master", reason="master", key_id=row.key_id) from error

    def _keep(self, key: _DataKey, pseudonym: str | None = None) -> None:
        """Remember a key, and whose it is where it is durable; with the lock."""
        self._by_id[key.key_id] = key
        self._by_id.move_to_end(key.key_id)
        while len(self._by_id) > MAX_CACHED_KEYS:
            self._by_id.popitem(last=False)
        if pseudonym is not None:
            self._current[pseudonym] = key.key_id
            self._current.move_to_end(pseudonym)
            while len(self._current) > MAX_CACHED_KEYS:
                self._current.popitem(last=False)


def agent_subject(agent: AgentId) -> str:
    """Under which name the payloads of an agent are sealed that are about nobody."""
    return f"{_AGENT}{agent}"


def agent_of(name: str) -> AgentId | None:
    """Whose payloads are sealed under a name, or None where it is that of a person."""
    return AgentId(name.removeprefix(_AGENT)) if name.startswith(_AGENT) else None


def place(table: str, column: str, key: JsonValue) -> bytes:
    """Associated data of a sealed column: it opens in this column of this row alone."""
    return f"{table}\0{column}\0{key}".encode()


def _naming(key_id: KeyId) -> bytes:
    return place("subject_keys", "name", key_id)


def _label(key_id: KeyId) -> str:
    return f"subject/{key_id}"


def _wrapping(key_id: KeyId, pseudonym: str) -> bytes:
    return _WRAP + f"{key_id}\0{pseudonym}".encode()
