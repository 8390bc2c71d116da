"""Keys by purpose: where they are kept, and how they come into being at the first start."""

from collections.abc import Callable
from enum import StrEnum
from typing import Final, Protocol

from symbi.clock import random_bytes
from symbi.crypto.mac import MacKey
from symbi.crypto.provider import AES_KEY_BYTES, CryptoProvider
from symbi.crypto.sealing import SealingKey
from symbi.crypto.signing import SigningKey
from symbi.errors import ConfigError, InputError, StoreUnavailable
from symbi.types import KeyId

SECRET_BYTES: Final = 32  # of every purpose: an Ed25519 seed, and the input of HKDF for sealing keys
MAX_GENERATIONS: Final = 1000  # of one purpose; all are read when a trail is opened

_SEALING_SALT: Final = b"symbi/sealing/1"


class KeyPurpose(StrEnum):
    """What a secret is for; each has its own, and none is used for another."""

    AUDIT_SIGNING = "audit-signing"
    """Signs events and heads of the trail (Ed25519)."""
    SEALING_MASTER = "sealing-master"
    """Sealing keys and keys of digests are derived from it, one for each label (HKDF-SHA256; AES-256-GCM, HMAC)."""


class KeyStore(Protocol):
    """Keeps secrets of 32 bytes: for each purpose one, or several generations, numbered 1, 2, 3 … without a gap."""

    def load(self, purpose: KeyPurpose, generation: int = 1) -> bytes | None:
        """The secret, or None where none was stored yet.

        Raises:
            ConfigError: It is there, and malformed or open to others.
            StoreUnavailable: Nobody can tell: the store cannot be read, is locked or gone.
        """

    def store(self, purpose: KeyPurpose, secret: bytes, generation: int = 1) -> None:
        """Keep a secret, durably, when it returns. A stored secret is never replaced.

        Raises:
            ConfigError: There is one already, or this store does not take any.
            InputError: The secret is not 32 bytes long.
            StoreUnavailable: The store cannot be written, is locked or gone; nothing was kept.
        """

    def describe(self) -> str:
        """Where the secrets are, for people, e.g. ``files in `/var/lib/symbi/keys` ``."""


def generation_name(name: str, generation: int, separator: str) -> str:
    """What the secret of a generation is called: the first by the name of its purpose alone."""
    return name if generation == 1 else f"{name}{separator}{generation}"


class KeyRing:
    """The keys of a runtime, each loaded, or made and stored, when it is first asked for.

    Args:
        store: Where the secrets are.
        provider: The library that uses them.
        create: Whether to make what is missing; a command that only reads does not.
        random: Where new secrets come from.
    """

    def __init__(
        self,
        store: KeyStore,
        provider: CryptoProvider,
        *,
        create: bool = True,
        random: Callable[[int], bytes] = random_bytes,
    ) -> None:
        self._store = store
        self._provider = provider
        self._create = create
        self._random = random
        self._signing: dict[KeyPurpose, tuple[SigningKey, ...]] = {}
        self._sealing: dict[str, SealingKey] = {}
        self._macs: dict[str, MacKey] = {}

    def signing_key(self, purpose: KeyPurpose = KeyPurpose.AUDIT_SIGNING) -> SigningKey:
        """The newest signing key of a purpose.

        Raises:
            ConfigError: The store holds something unsafe, or nothing and none is to be made.
            StoreUnavailable: The store cannot be used.
            InputError: The purpose is not one of signing.
        """
        return self.signing_keys(purpose)[-1]

    def signing_keys(self, purpose: KeyPurpose = KeyPurpose.AUDIT_SIGNING) -> tuple[SigningKey, ...]:
        """The signing keys of a purpose, oldest first; there is one at least.

        Raises:
            ConfigError: The store holds something unsafe, or nothing and none is to be made.
            StoreUnavailable: The store cannot be used.
            InputError: The purpose is not one of signing.
        """
        if purpose is KeyPurpose.SEALING_MASTER:
            msg = f"the key for `{purpose}` does not sign"
            raise InputError(msg, code="crypto.key_purpose")
        if purpose not in self._signing:
            keys = [SigningKey(self._secret(purpose), self._provider)]
            while (secret := self._store.load(purpose, len(keys) + 1)) is not None:
                if len(keys) == MAX_GENERATIONS:
                    msg = f"{self._store.describe()} has more than {MAX_GENERATIONS} keys for `{purpose}`"
                    raise ConfigError(msg, code="config.key_generations")
                keys.append(SigningKey(secret, self._provider))
            self._signing[purpose] = tuple(keys)
        return self._signing[purpose]

    def next_signing_key(self, current: KeyId, purpose: KeyPurpose = KeyPurpose.AUDIT_SIGNING) -> SigningKey:
        """The key of the generation after one, made and durably stored if it is not there yet.

        Args:
            current: The key that is in use.
            purpose: Of both.

        Raises:
            ConfigError: The store takes no keys and has no further one, or has not the current one.
            StoreUnavailable: The store cannot be used.
        """
        self._signing.pop(purpose, None)  # somebody may have put one there since
        keys = self.signing_keys(purpose)
        place = next((number for number, key in enumerate(keys, 1) if key.key_id == current), None)
        if place is None:
            msg = f"key `{current}` is not in {self._store.describe()}"
            raise ConfigError(msg, code="config.key_absent")
        if place == len(keys):
            if place == MAX_GENERATIONS:
                msg = f"there are {MAX_GENERATIONS} keys for `{purpose}` already"
                raise ConfigError(msg, code="config.key_generations")
            self._store.store(purpose, self._random(SECRET_BYTES), place + 1)
            self._signing.pop(purpose)
        return self.signing_keys(purpose)[place]

    def sealing_key(self, label: str) -> SealingKey:
        """The sealing key for a label, derived from the master secret (RFC 5869: the label is `info`).

        Raises:
            ConfigError: The store holds something unsafe, or nothing and none is to be made.
            StoreUnavailable: The store cannot be used.
        """
        if label not in self._sealing:
            secret = self._provider.hkdf_sha256(
                self._secret(KeyPurpose.SEALING_MASTER), salt=_SEALING_SALT, info=label.encode(), length=AES_KEY_BYTES
            )
            self._sealing[label] = SealingKey(secret, label, self._provider, random=self._random)
        return self._sealing[label]

    def mac_key(self, label: str) -> MacKey:
        """The key of keyed digests for a label, derived from the master secret.

        Raises:
            ConfigError: The store holds something unsafe, or nothing and none is to be made.
            StoreUnavailable: The store cannot be used.
        """
        if label not in self._macs:
            self._macs[label] = MacKey(self._secret(KeyPurpose.SEALING_MASTER), label, self._provider)
        return self._macs[label]

    def _secret(self, purpose: KeyPurpose) -> bytes:
        secret = self._store.load(purpose)
        if secret is not None:
            return secret
        if not self._create:
            msg = f"there is no key for `{purpose}` in {self._store.describe()}"
            raise ConfigError(msg, code="config.key_absent", hint="run an agent first, or name the place of the keys")
        refused: ConfigError | None = None
        try:
            self._store.store(purpose, self._random(SECRET_BYTES))
        except ConfigError as error:
            refused = error  # perhaps another process was first
        secret = self._store.load(purpose)  # as it was kept, whoever made it
        if secret is None:
            msg = f"the key for `{purpose}` was not kept by {self._store.describe()}"
            raise refused or StoreUnavailable(msg, code="unavailable.keys")
        return secret

    def __repr__(self) -> str:
        return f"KeyRing({self._store.describe()})"


def require_secret_length(secret: bytes) -> None:
    """Return if a secret that is to be stored has the length of one.

    Raises:
        InputError: It has not.
    """
    if len(secret) != SECRET_BYTES:
        msg = f"a key is {SECRET_BYTES} bytes long, not {len(secret)}"
        raise InputError(msg, code="crypto.key_length")
