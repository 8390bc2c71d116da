"""Ed25519 signatures, each for one domain.

What is signed is never the message alone but `symbi/sign/1`, a zero byte, the length of the domain in one byte, the
domain in ASCII, the message. So a signature made for one purpose means nothing for another, and no choice of message
can make one domain look like another. Notes in the C2SP format (`symbi.audit.checkpoint`) are signed as they are, for
others must be able to check them; none begins as a domain does.
"""

from typing import Final

from symbi.crypto.provider import SEED_BYTES, CryptoProvider
from symbi.crypto.secret import Unpicklable
from symbi.errors import InputError, SignatureInvalid
from symbi.types import KeyId

KEY_ID_DIGITS: Final = 16  # 64 bits of SHA-256: tells keys apart, proves nothing
MAX_DOMAIN_LENGTH: Final = 255  # its length stands in one byte

_PREFIX: Final = b"symbi/sign/1\x00"


class VerifyingKey(Unpicklable):
    """A public key, which checks signatures; equal to another of the same bytes.

    Args:
        public: 32 bytes.
        provider: The library that does it.

    Raises:
        InputError: The bytes are no public key, or one by which every signature would verify.
    """

    __slots__ = ("_key_id", "_provider_name", "_public", "_verify")

    def __init__(self, public: bytes, provider: CryptoProvider) -> None:
        self._verify = provider.verifier(public)
        self._provider_name = provider.name
        self._public = public
        self._key_id = _key_id(public, provider)

    @classmethod
    def from_hex(cls, text: str, provider: CryptoProvider) -> "VerifyingKey":
        """The key that `hex` wrote.

        Raises:
            InputError: The text is not hexadecimal, or not a public key.
        """
        try:
            public = bytes.fromhex(text)
        except ValueError:
            msg = "not an Ed25519 public key: it is not hexadecimal"
            raise InputError(msg, code="crypto.public_key") from None
        return cls(public, provider)

    @property
    def key_id(self) -> KeyId:
        """First 16 hexadecimal digits of the SHA-256 of the public key."""
        return self._key_id

    @property
    def public(self) -> bytes:
        """The 32 bytes of the key."""
        return self._public

    @property
    def provider_name(self) -> str:
        """The library that does it; `open_provider` takes the name."""
        return self._provider_name

    @property
    def hex(self) -> str:
        """The key as 64 hexadecimal digits."""
        return self._public.hex()

    def verify(self, domain: str, message: bytes, signature: bytes) -> None:
        """Return if the signature was made by this key, for this domain, over this message.

        Raises:
            SignatureInvalid: It was not, or is not a signature at all.
            InputError: The domain is not 1 to 255 ASCII characters.
        """
        if not self._verify(signature, _prefixed(domain, message)):
            msg = f"the signature is not by key `{self._key_id}` for `{domain}` over these bytes"
            raise SignatureInvalid(msg, key_id=self._key_id)

    def verifies(self, domain: str, message: bytes, signature: bytes) -> bool:
        """Whether `verify` would return.

        Raises:
            InputError: The domain is not 1 to 255 ASCII characters.
        """
        return self._verify(signature, _prefixed(domain, message))

    def verifies_note(self, text: bytes, signature: bytes) -> bool:
        """Whether the signature was made by this key over a note."""
        return not text.startswith(_PREFIX) and self._verify(signature, text)

    def __eq__(self, other: object) -> bool:
        return self._public == other.public if isinstance(other, VerifyingKey) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._public)

    def __repr__(self) -> str:
        return f"VerifyingKey({self.hex})"


class SigningKey(Unpicklable):
    """A private key, which signs and cannot be read back.

    Args:
        seed: 32 secret bytes (RFC 8032, section 5.1.5).
        provider: The library that does it.

    Raises:
        InputError: The seed is not 32 bytes long.
    """

    __slots__ = ("_sign", "_verifying_key")

    def __init__(self, seed: bytes, provider: CryptoProvider) -> None:
        if len(seed) != SEED_BYTES:
            msg = f"a signing key is {SEED_BYTES} bytes long, not {len(seed)}"
            raise InputError(msg, code="crypto.key_length")
        signer = provider.signer(seed)
        self._sign = signer.sign
        self._verifying_key = VerifyingKey(signer.public, provider)

    @property
    def key_id(self) -> KeyId:
        """That of the public key."""
        return self._verifying_key.key_id

    def verifying_key(self) -> VerifyingKey:
        """The public half."""
        return self._verifying_key

    def sign(self, domain: str, message: bytes) -> bytes:
        """A signature of 64 bytes over the message, for the domain.

        Raises:
            InputError: The domain is not 1 to 255 ASCII characters.
        """
        return self._sign(_prefixed(domain, message))

    def sign_note(self, text: bytes) -> bytes:
        """A signature of 64 bytes over the text of a note, as it is.

        Raises:
            InputError: The text begins as a message in a domain does.
        """
        if text.startswith(_PREFIX):
            msg = "this is no note, but a message in a domain"
            raise InputError(msg, code="crypto.domain")
        return self._sign(text)

    def __repr__(self) -> str:
        return f"SigningKey(key_id={self.key_id})"


def _key_id(public: bytes, provider: CryptoProvider) -> KeyId:
    return KeyId(provider.sha256(public).hex()[:KEY_ID_DIGITS])


def _prefixed(domain: str, message: bytes) -> bytes:
    if not 0 < len(domain) <= MAX_DOMAIN_LENGTH or not domain.isascii():
        msg = f"a signature's domain is 1 to {MAX_DOMAIN_LENGTH} ASCII characters"
        raise InputError(msg, code="crypto.domain")
    return b"".join((_PREFIX, bytes((len(domain),)), domain.encode("ascii"), message))
