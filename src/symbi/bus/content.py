"""What lies within the sealed part of a message: its kind, labels, and body.

```
kind 1 · length of the labels 2 · labels, as canonical JSON · what it answers 16, where it answers · body
```

A body is JSON, or bytes as they are. What nobody has labelled has labels of no length.
"""

from enum import IntEnum
from functools import lru_cache
from struct import Struct
from typing import Any, Final, Generic, TypeVar, cast

import msgspec

from symbi.bus.codec import Opened
from symbi.crypto.canonical import canonical_json, parse_canonical
from symbi.errors import InputError, MessageRefused
from symbi.types import AgentId, Confidentiality, Integrity, JsonValue, Label

T = TypeVar("T")

JSON: Final = "application/json"
OCTETS: Final = "application/octet-stream"
NO_LABEL: Final = Label()
MAX_LABEL_BYTES: Final = 65_535
_HEAD: Final = Struct(">BH")
_ID_BYTES: Final = 16
_FIELDS: Final = ("sources", "categories", "subjects")


class Kind(IntEnum):
    """What a message is for."""

    TELL = 1
    """It is told, and nothing comes back."""
    REQUEST = 2
    """It is asked, and an answer is awaited."""
    ANSWER = 3
    """It answers."""
    FAILURE = 4
    """It says that there will be no answer, and by which code."""
    CANCEL = 5
    """Nobody waits for the answer any more."""


_ANSWERING: Final = frozenset({Kind.ANSWER, Kind.FAILURE, Kind.CANCEL})


class Content(msgspec.Struct, frozen=True, gc=False):
    """The inside of a message.

    Attributes:
        kind: What it is for.
        label: Of its body.
        answers: Id of the request that it belongs to, 16 bytes; empty elsewhere.
        body: As it was encoded.
    """

    kind: Kind
    label: Label
    answers: bytes
    body: bytes


class Message(msgspec.Struct, Generic[T], frozen=True):
    """A message as its receiver gets it: verified, opened, and let through by policy.

    Attributes:
        body: Of the type that the receiver has said.
        sender: Who signed it.
        to: The topic, or the agent.
        label: Of the body; whoever goes on with it goes on with its label.
        id: 16 bytes; `message_id` is its text.
        sent_ns: When it was sealed, by the sender's clock.
        position: Its place for a durable subscription, or in the outbox; 0 elsewhere.
        attempt: How often it was given to this receiver, this time included.
    """

    body: T
    sender: AgentId
    to: str
    label: Label
    id: bytes
    sent_ns: int
    position: int = 0
    attempt: int = 1

    @property
    def message_id(self) -> str:
        """A UUID in its canonical text form."""
        digits = self.id.hex()
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


@lru_cache(4096)
def _label_bytes(label: Label) -> bytes:
    if label == NO_LABEL:
        return b""
    facts: dict[str, JsonValue] = {
        "integrity": label.integrity.value,
        "confidentiality": label.confidentiality.value,
        "sources": list(label.sources),
        "categories": list(label.categories),
        "subjects": list(label.subjects),
    }
    written = canonical_json(facts)
    if len(written) > MAX_LABEL_BYTES:
        msg = f"the labels of a message take {len(written)} bytes, and {MAX_LABEL_BYTES} are taken"
        raise InputError(msg, code="message.size")
    return written


@lru_cache(4096)
def _label_of(written: bytes) -> Label:
    try:
        facts = cast("dict[str, Any]", parse_canonical(written))
        lists = [tuple(facts[name]) for name in _FIELDS]
        if set(facts) != {"integrity", "confidentiality", *_FIELDS} or any(
            type(word) is not str for words in lists for word in words
        ):
            raise MessageRefused("the labels of the message are none")
        return Label(Integrity(facts["integrity"]), Confidentiality(facts["confidentiality"]), *lists)
    except (InputError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise MessageRefused("the labels of the message are none") from error


def body_bytes(body: object) -> tuple[str, bytes]:
    """A body as it travels, with its media type: bytes as they are, everything else as JSON.

    Raises:
        InputError: It cannot stand in JSON.
    """
    if isinstance(body, bytes):
        return OCTETS, body
    try:
        return JSON, msgspec.json.encode(body)
    except (TypeError, ValueError, RecursionError) as error:
        msg = f"a message cannot hold this: {error}"
        raise InputError(msg, code="message.body") from error


def opening(kind: Kind, label: Label, answers: bytes = b"") -> bytes:
    """What comes before the body inside of a message: the same for all messages of one kind and label.

    Raises:
        InputError: `message.size`; the labels are too long.
    """
    labels = _label_bytes(label)
    return _HEAD.pack(kind, len(labels)) + labels + answers


def contents(payload: bytes) -> Content:
    """What `opening` and a body make.

    Raises:
        MessageRefused: `message.malformed`; it is nothing of that form.
    """
    if payload.startswith(_TOLD):  # as most are
        return Content(Kind.TELL, NO_LABEL, b"", payload[_HEAD.size :])
    if len(payload) < _HEAD.size:
        raise MessageRefused("there is nothing in the message")
    number, length = _HEAD.unpack_from(payload)
    kind = _KINDS.get(number)
    body_at = _HEAD.size + length
    if kind is None or len(payload) < body_at:
        raise MessageRefused("what is in the message is of no known kind")
    label = _label_of(payload[_HEAD.size : body_at]) if length else NO_LABEL
    answers = b""
    if kind in _ANSWERING:
        answers = payload[body_at : body_at + _ID_BYTES]
        body_at += _ID_BYTES
        if len(answers) != _ID_BYTES:
            raise MessageRefused("the answer does not say what it answers")
    return Content(kind, label, answers, payload[body_at:])


_TOLD: Final = opening(Kind.TELL, NO_LABEL)
_KINDS: Final = {kind.value: kind for kind in Kind}


class Reading(Generic[T]):
    """Reads bodies as a type.

    Args:
        type_: What bodies are: anything that msgspec reads from JSON, `bytes`, or `Any` for whatever comes.
    """

    def __init__(self, type_: type[T] | Any) -> None:
        self._raw, self._any = type_ is bytes, type_ is Any
        self._decode: Any = None if self._raw else msgspec.json.Decoder(type_).decode

    def body(self, content_type: str, data: bytes) -> T:
        """A body.

        Raises:
            MessageRefused: `message.body`; it is of another type. The text quotes nothing of it.
        """
        if self._raw or (self._any and content_type == OCTETS):
            return cast("T", data)
        if content_type == JSON:
            try:
                return cast("T", self._decode(data))
            except (ValueError, RecursionError):
                pass  # its text would quote the body
        raise MessageRefused("the body of the message is not of the type that its receiver takes", code="message.body")


def message_of(opened: Opened, content: Content, body: T, *, position: int = 0, attempt: int = 1) -> Message[T]:
    """A message as it is given to a receiver."""
    flow = opened.flow
    return Message(
        body, flow.sender, flow.address.name, content.label, opened.id, opened.timestamp_ns, position, attempt
    )
