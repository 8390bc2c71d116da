"""Handing the trail over to its next signing key.

1. the next key is made and stored, durably, or found where an earlier try has left it;
2. the event that names it is appended, by the old key; from then on the new one signs.

A crash between the two leaves a key that is not used yet, and a trail that opens with the old one.
"""

from collections.abc import Callable, Mapping

import anyio.to_thread

from symbi.audit.log import AuditLog
from symbi.crypto.signing import SigningKey
from symbi.types import JsonValue, KeyId

NextKey = Callable[[KeyId], SigningKey]
"""The key after one, durably stored; it may block."""


async def rotate_key(log: AuditLog, next_key: NextKey) -> Mapping[str, JsonValue]:
    """Hand the trail over to its next key.

    Returns:
        The new key and the one before, and the sequence of the event.

    Raises:
        ConfigError: The keys are kept where none can be put, and there is no further one.
        InputError: Somebody else has just done it.
        StoreUnavailable: The key or the event cannot be stored; the old key goes on.
    """
    before = log.key.key_id
    key = await anyio.to_thread.run_sync(next_key, before)
    receipt = await log.rotate(key)
    return {
        "key_id": key.key_id,
        "public_key": key.verifying_key().hex,
        "previous": before,
        "sequence": receipt.sequence,
    }
