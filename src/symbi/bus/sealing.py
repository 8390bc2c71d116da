"""Which key seals a message: X25519 and HKDF-SHA256 for pairs, a group key and HKDF-SHA256 for topics. Pure.

What is derived is bound, by the `info` of HKDF (RFC 5869), to everything that tells one flow of messages from another,
each text with its length before it, so that no two inputs are the same bytes.
"""

from typing import Final

from symbi.crypto.provider import AES_KEY_BYTES, AGREEMENT_BYTES, NONCE_BYTES, CryptoProvider
from symbi.errors import InputError
from symbi.types import AgentId

_PAIR: Final = b"symbi/bus/pair/1\0"
_TOPIC: Final = b"symbi/bus/topic/1\0"


def pair_key(
    provider: CryptoProvider, shared: bytes, publics: tuple[bytes, bytes], names: tuple[AgentId, AgentId], epoch: int
) -> bytes:
    """The key for messages of one agent to another; another one for the other way.

    Args:
        provider: The library that derives it.
        shared: 32 bytes, by `CryptoProvider.agreement`: X25519 of the private key of one and the public key of the other.
        publics: X25519 public keys of sender and recipient, 32 bytes each.
        names: Sender and recipient.
        epoch: From 1.

    Raises:
        InputError: A key has another length.
    """
    sender, recipient = names
    if len(shared) != AGREEMENT_BYTES or any(len(one) != AGREEMENT_BYTES for one in publics):
        raise InputError(f"an X25519 key is {AGREEMENT_BYTES} bytes long", code="crypto.key_length")
    info = b"".join((_PAIR, _framed(sender), _framed(recipient), epoch.to_bytes(4), *publics))
    return provider.hkdf_sha256(shared, salt=b"", info=info, length=AES_KEY_BYTES)


def topic_key(provider: CryptoProvider, group: bytes, topic: str, sender: AgentId, epoch: int) -> bytes:
    """The key for messages of one agent to a topic.

    Args:
        provider: The library that derives it.
        group: 32 random bytes of the topic and epoch.
        topic: Its name.
        sender: Who writes.
        epoch: From 1.

    Raises:
        InputError: The group key has another length.
    """
    if len(group) != AES_KEY_BYTES:
        raise InputError(f"a group key is {AES_KEY_BYTES} bytes long", code="crypto.key_length")
    info = b"".join((_TOPIC, _framed(topic), _framed(sender), epoch.to_bytes(4)))
    return provider.hkdf_sha256(group, salt=b"", info=info, length=AES_KEY_BYTES)


def nonce_of(sequence: int) -> bytes:
    """12 bytes: the sequence, big-endian. With a key for each sender, address and epoch, none comes twice."""
    return sequence.to_bytes(NONCE_BYTES)


def _framed(name: str) -> bytes:
    encoded = name.encode()
    return len(encoded).to_bytes(2) + encoded
