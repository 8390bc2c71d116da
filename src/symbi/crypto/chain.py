"""The hash chain of the audit trail: each link commits to its body and to every link before it.

SHA-256 has one answer whatever computes it, so the chain takes the interpreter's own and no provider: whoever
checks a trail elsewhere needs nothing but SHA-256.
"""

import hashlib
from typing import Final

HASH_BYTES: Final = 32
GENESIS: Final = bytes(HASH_BYTES)
"""What the first link follows: 32 zero bytes."""

_DOMAIN: Final = b"symbi/chain/1\x00"


def link(previous: bytes, body: bytes) -> bytes:
    """The hash of a body in its place: SHA-256 of `symbi/chain/1`, a zero byte, the previous hash, the body.

    The first two have a fixed length, so no two pairs give the same input.

    Args:
        previous: The hash before it, 32 bytes; `GENESIS` for the first.
        body: Any bytes.

    Returns:
        32 bytes.

    Raises:
        ValueError: The previous hash is not 32 bytes long.
    """
    if len(previous) != HASH_BYTES:
        msg = f"a hash is {HASH_BYTES} bytes long, not {len(previous)}"
        raise ValueError(msg)
    return hashlib.sha256(_DOMAIN + previous + body).digest()
