"""The form of a sealed value: AES-256-GCM under the key of each of its subjects, one inside the other.

In JSON it is `{"sealed": {"keys": [key id, …], "text": base64}}`; in a column of bytes the same, after one byte 0x01,
which begins no JSON text. The key ids are sorted; the first sealed innermost. What it was sealed for, the associated
data, is authenticated together with the list of keys, and is not stored: a sealed text that was moved does not open.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from symbi.errors import DecryptionFailed
from symbi.types import JsonValue, KeyId

MARK: Final = b"\x01"  # of sealed bytes; plain payloads begin with JSON text
SEALED: Final = "sealed"

_DOMAIN: Final = b"symbi/sealed/1\0"
_KEY_ID: Final = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class SealedText:
    """A value under the keys of its subjects.

    Attributes:
        keys: Sorted ids of the keys that all are needed to open it; at least one.
        text: As the last of them sealed it, see `symbi.crypto.sealing`.
    """

    keys: tuple[KeyId, ...]
    text: bytes

    def to_json(self) -> dict[str, JsonValue]:
        """The form in JSON."""
        return {SEALED: {"keys": list(self.keys), "text": base64.b64encode(self.text).decode()}}

    def to_bytes(self) -> bytes:
        """The form in a column of bytes."""
        return MARK + json.dumps(self.to_json(), separators=(",", ":")).encode()


def is_sealed(data: bytes | None) -> bool:
    """Whether a column holds a sealed value."""
    return data is not None and data.startswith(MARK)


def is_sealed_json(value: object) -> bool:
    """Whether a value of JSON has the form of a sealed one; whether it opens is another question."""
    return isinstance(value, Mapping) and set(value) == {SEALED} and isinstance(value[SEALED], Mapping)


def read_sealed(data: bytes) -> SealedText:
    """A sealed value out of a column.

    Raises:
        DecryptionFailed: It has not the form of one; `reason` is `form`.
    """
    if not is_sealed(data):
        raise _malformed("it does not begin as one")
    try:
        value = json.loads(data[len(MARK) :])
    except (ValueError, RecursionError):
        raise _malformed("it is not JSON") from None
    return read_sealed_json(value)


def read_sealed_json(value: object) -> SealedText:
    """A sealed value out of JSON.

    Raises:
        DecryptionFailed: It has not the form of one; `reason` is `form`.
    """
    if not is_sealed_json(value):
        raise _malformed("it is no object with `sealed` alone")
    assert isinstance(value, Mapping)
    inner: Mapping[str, Any] = value[SEALED]
    keys, text = inner.get("keys"), inner.get("text")
    if set(inner) != {"keys", "text"} or not isinstance(keys, list) or not isinstance(text, str):
        raise _malformed("it has other members than `keys` and `text`")
    if not keys or not all(isinstance(key, str) and _KEY_ID.fullmatch(key) for key in keys):
        raise _malformed("its `keys` are no list of key ids")
    if keys != sorted(set(keys)):
        raise _malformed("its `keys` are not in order")
    try:
        return SealedText(tuple(KeyId(key) for key in keys), base64.b64decode(text, validate=True))
    except binascii.Error:
        raise _malformed("its `text` is not base64") from None


def bound(associated: bytes, keys: Sequence[KeyId]) -> bytes:
    """What each layer authenticates: that it is one of ours, under which keys, and what it belongs to."""
    return _DOMAIN + ",".join(keys).encode() + b"\0" + associated


def _malformed(why: str) -> DecryptionFailed:
    return DecryptionFailed(f"not a sealed value: {why}", code="verify.sealed_form", reason="form")
