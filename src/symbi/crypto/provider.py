"""`CryptoProvider`: which library does the arithmetic; `crypto_provider` in the configuration chooses it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias

from symbi.errors import ConfigError, did_you_mean

SEED_BYTES: Final = 32  # a private Ed25519 key (RFC 8032, section 5.1.5)
AGREEMENT_BYTES: Final = 32  # an X25519 key, private or public, or a shared secret (RFC 7748, section 5)
AES_KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12  # 96 bits (NIST SP 800-38D, section 8.2.2)
TAG_BYTES: Final = 16
MAX_HKDF_BYTES: Final = 255 * 32  # RFC 5869, section 2.3

DEFAULT_PROVIDER: Final = "openssl"
_NAMES: Final = {"openssl": "openssl", "ring": "openssl", "libsodium": "libsodium"}

Verifier: TypeAlias = Callable[[bytes, bytes], bool]
"""`(signature, message) -> whether it verifies`; any bytes may be given."""


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key, hidden in a function.

    Attributes:
        public: The public key, 32 bytes.
        sign: `message -> signature` of 64 bytes.
    """

    public: bytes
    sign: Callable[[bytes], bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Agreement:
    """A private X25519 key, hidden in a function.

    Attributes:
        public: The public key, 32 bytes.
        exchange: `public key of the other -> shared secret` of 32 bytes; None where that is zero, as it is for a public
            key of small order (RFC 7748, section 6.1), or where the bytes are no public key.
    """

    public: bytes
    exchange: Callable[[bytes], bytes | None] = field(repr=False)


class Aead(Protocol):
    """AES-256-GCM under one key."""

    def seal(self, nonce: bytes, plaintext: bytes, associated: bytes) -> bytes:
        """Ciphertext and 16-byte tag; the nonce of 12 bytes is never used twice with a key."""

    def open(self, nonce: bytes, sealed: bytes, associated: bytes) -> bytes | None:
        """The plaintext, or None where anything was altered or is too short."""


class CryptoProvider(Protocol):
    """The primitives, by one library. Key lengths are the callers' to check."""

    @property
    def name(self) -> str:
        """Canonical name, as `resolve_provider` returns it."""

    def signer(self, seed: bytes) -> Signer:
        """The Ed25519 key of a seed of 32 bytes (RFC 8032)."""

    def verifier(self, public: bytes) -> Verifier:
        """Checks signatures by an Ed25519 public key; see `symbi.crypto.ed25519`.

        Raises:
            InputError: The bytes are no public key, or one of small order.
        """

    def agreement(self, seed: bytes) -> Agreement:
        """The X25519 key of 32 secret bytes (RFC 7748, section 5)."""

    def aead(self, key: bytes) -> Aead:
        """AES-256-GCM under a key of 32 bytes (NIST SP 800-38D)."""

    def hkdf_sha256(self, secret: bytes, *, salt: bytes, info: bytes, length: int) -> bytes:
        """`length` bytes derived from a secret (RFC 5869); an empty salt is 32 zero bytes.

        Raises:
            ValueError: The length is not 1 to `MAX_HKDF_BYTES`.
        """

    def sha256(self, data: bytes) -> bytes:
        """32 bytes (FIPS 180-4)."""


def require_hkdf_length(length: int) -> None:
    """Return if HKDF-SHA256 can give that many bytes.

    Raises:
        ValueError: It cannot.
    """
    if not 0 < length <= MAX_HKDF_BYTES:
        msg = f"HKDF-SHA256 gives 1 to {MAX_HKDF_BYTES} bytes, not {length}"
        raise ValueError(msg)


def resolve_provider(name: str) -> str:
    """The canonical name of a provider: `openssl` or `libsodium`.

    `ring` is taken as `openssl`: the same algorithms by a library that Python has. Compare what comes back with what
    was asked for to tell the user so.

    Raises:
        ConfigError: No such provider.
    """
    found = _NAMES.get(name)
    if found is None:
        msg = f"unknown crypto_provider `{name}`"
        hint = did_you_mean(name, _NAMES) or "use `openssl` or `libsodium`"
        raise ConfigError(msg, code="config.crypto_provider", hint=hint)
    return found


def open_provider(name: str = DEFAULT_PROVIDER) -> CryptoProvider:
    """The provider of that name; its library is imported only now.

    Raises:
        ConfigError: No such provider.
    """
    if resolve_provider(name) == "libsodium":
        from symbi.crypto.libsodium import LibsodiumProvider  # noqa: PLC0415 - loaded only if it is chosen

        return LibsodiumProvider()
    from symbi.crypto.openssl import OpensslProvider  # noqa: PLC0415 - likewise

    return OpensslProvider()
