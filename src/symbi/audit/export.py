"""An export of the trail: what an auditor needs, as plain values; reading and writing files is the caller's.

```
events.jsonl    one event a line, each the canonical JSON that was signed
head.json       the signed head: how many events there are, and the chain hash of the last
keys.json       the public keys that signed, by key id, with the library-independent hex of each
```
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from symbi.audit.event import parse_event
from symbi.audit.port import StoredEvent
from symbi.crypto.provider import CryptoProvider
from symbi.crypto.signing import VerifyingKey
from symbi.errors import ChainBroken, InputError
from symbi.types import KeyId

EVENTS_NAME: Final = "events.jsonl"
HEAD_NAME: Final = "head.json"
KEYS_NAME: Final = "keys.json"


def keys_document(keys: Mapping[KeyId, VerifyingKey]) -> bytes:
    """`keys.json` for some public keys."""
    listed = {key_id: {"algorithm": "Ed25519", "public_key": key.hex} for key_id, key in keys.items()}
    return json.dumps(listed, indent=2, sort_keys=True).encode() + b"\n"


def read_keys(document: bytes, provider: CryptoProvider) -> dict[KeyId, VerifyingKey]:
    """The public keys of a `keys.json`, or of one written by hand.

    Raises:
        InputError: It is not of that form, or an id is not that of its key.
    """
    try:
        listed = json.loads(document)
        keys = {KeyId(name): VerifyingKey.from_hex(entry["public_key"], provider) for name, entry in listed.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        msg = f"`{KEYS_NAME}` is not a list of public keys: {error}"
        raise InputError(msg, code="input.keys") from error
    for name, key in keys.items():
        if key.key_id != name:
            msg = f"key `{name}` of `{KEYS_NAME}` has the id `{key.key_id}`"
            raise InputError(msg, code="input.keys")
    return keys


def read_events(lines: Iterable[bytes]) -> Iterator[StoredEvent]:
    """The events of an `events.jsonl`, as a store would hold them; to be verified by `verify_trail`.

    Raises:
        ChainBroken: A line is no event.
    """
    for number, line in enumerate(lines, 1):
        record = line.removesuffix(b"\n")
        event = parse_event(record, sequence=number)
        if not line.endswith(b"\n"):
            msg = f"event {number} is cut off"
            raise ChainBroken(msg, sequence=number, reason="canonical")
        yield StoredEvent(event.sequence, record, event.chain_hash)
