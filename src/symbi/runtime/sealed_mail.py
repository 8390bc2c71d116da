"""What waits in a mailbox or lies with the dead letters: sealed and signed, and opened where its run is begun.

Body, labels and grant stand in the sealed part, and with them what the row says beside it: which message, to whom, by
whom, until when. So a body that was moved to another row, an agent or a sender that was exchanged, is found out. All of
it happens on the store's thread, inside the transaction that it belongs to: keys, sequence and message are durable
together, and so are the beginning of a run and that its message has come.

What is about a data subject is sealed once more, outside, under the subject's key: destroyed, it takes the message with it.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final, TypeVar
from uuid import UUID

import msgspec

from symbi.audit.event import AuditEventType, Draft
from symbi.audit.log import AuditLog
from symbi.bus.codec import Codec, Opened, Outgoing, Signing
from symbi.bus.envelope import MAGIC, MAX_PAYLOAD_BYTES, Address, parse_flow
from symbi.bus.keybook import KeyBook, Made
from symbi.bus.keystore import BusEpoch
from symbi.clock import Clock
from symbi.crypto.provider import CryptoProvider
from symbi.errors import (
    ConfigError,
    DecryptionFailed,
    MessageRefused,
    OutputLimit,
    StoreUnavailable,
    VerificationError,
)
from symbi.guard.confidential import open_column
from symbi.guard.vault import Keys, Vault, place
from symbi.runtime.mailbox import Message
from symbi.types import SYSTEM_AGENT, AgentId, RunId

T = TypeVar("T")

MAIL: Final = "application/vnd.symbi.mail+json"
MAX_MAIL_BYTES: Final = MAX_PAYLOAD_BYTES
OVER_BOUND: Final = "message.size"  # `reason` of the `OutputLimit` of what is larger than that
_ID_BYTES: Final = 16


class _Content(msgspec.Struct, forbid_unknown_fields=True):
    """What is sealed of a message: the row's own words, and what it is about."""

    id: str
    to: str
    by: str
    expires_ns: int | None
    inputs: msgspec.Raw
    labels: msgspec.Raw


NULL: Final = b"null"
_DECODER: Final = msgspec.json.Decoder(_Content)


@dataclass(frozen=True, slots=True)
class Mail:
    """A message that is to be sealed.

    Attributes:
        message: As it is kept, but for its body.
        signer: Whose key signs it: the agent that sends it, as its file declares it; the runtime's for all others.
        inputs: JSON object of the inputs.
        labels: JSON of labels and grant, or None.
        keys: Of whom it is about.
    """

    message: Message
    signer: AgentId
    inputs: bytes
    labels: bytes | None
    keys: Keys


@dataclass(frozen=True, slots=True)
class Content:
    """A message that was opened: authentic, whole, for this agent and from this sender.

    Attributes:
        inputs: JSON object of the inputs.
        labels: JSON of labels and grant, or None.
        opened: Its sender, address, epoch and sequence.
    """

    inputs: bytes
    labels: bytes | None
    opened: Opened


class SealedMail:
    """Seals and opens what waits; every method runs on the store's thread.

    Args:
        book: Keys and sequences, in the same store.
        provider: The library that does the arithmetic.
        clock: Tells when something is sealed.
        vault: Has the keys of data subjects; None where nothing is about anybody.
    """

    def __init__(self, book: KeyBook, provider: CryptoProvider, clock: Clock, vault: Vault | None) -> None:
        self.book = book
        self.vault = vault
        self._codec = Codec(provider, book, book, clock, signing=Signing.BATCH, most_payload=MAX_MAIL_BYTES)

    # --- messages ---------------------------------------------------------------------------------

    def sealed(self, mails: Sequence[Mail]) -> list[Message]:
        """Messages as they are kept; inside the transaction that keeps them. Those of one sender share a signature.

        Raises:
            OutputLimit: One of them is too large.
            StoreUnavailable: The store cannot be used, or there is no master key, or not the one that wrapped the keys
                of this store.
        """
        if not mails:
            return []
        with _sealing():
            wires = self._codec.seal_many([_outgoing(mail) for mail in mails])
            self.book.flush()
        return [
            replace(
                mail.message,
                body=mail.keys.seal(wire, place("mailbox", "body", mail.message.message_id)),
                labels=None,
                epoch=parse_flow(wire).epoch,  # its own: another may have begun meanwhile, and this one must not end
            )
            for mail, wire in zip(mails, wires, strict=True)
        ]

    def opened(self, message: Message) -> Content:
        """What a message says; it does not count as come.

        Raises:
            MessageRefused: It is not what its sender sent, or not to this agent, or has come before.
            DecryptionFailed: `reason` is `erased`: it was about somebody whose key was destroyed.
            ConfigError: There is no master key, or not the one that wrapped the keys of this store.
            StoreUnavailable: The store cannot be read.
        """
        name = message.message_id
        try:
            wire = open_column(self.vault, message.body, place("mailbox", "body", name))
        except DecryptionFailed as error:
            if error.fields.get("reason") == "erased":
                raise
            raise _not_its_own() from error
        opened = self._codec.read(wire or b"", message.agent_id)
        content = _content(opened)
        said = (content.id, content.to, content.by, content.expires_ns)
        if said != (name, message.agent_id, message.sender, message.expires_ns) or opened.content_type != MAIL:
            raise _not_its_own()
        if opened.sender not in {SYSTEM_AGENT, message.sender.partition("/")[0]}:
            raise _not_its_own()
        if self.book.has_come(opened.sender, opened.address, opened.flow.epoch, opened.sequence):
            raise MessageRefused("the message has come before", code="message.replayed")
        labels = bytes(content.labels)
        return Content(bytes(content.inputs), None if labels == NULL else labels, opened)

    def take(self, content: Content) -> None:
        """A message has come, for its run is begun, or it is given up; inside that transaction.

        Raises:
            MessageRefused: `message.replayed`; it has come before.
            StoreUnavailable: The store cannot be written.
        """
        one = content.opened
        if not self.book.admit(AgentId(one.address.name), one.sender, one.address, one.flow.epoch, [one.sequence])[0]:
            raise MessageRefused("the message has come before", code="message.replayed")

    def take_back(self, message: Message) -> None:
        """A message leaves its mailbox without a run; inside that transaction. One that does not open never comes.

        Raises:
            ConfigError: As `opened`.
            StoreUnavailable: The store cannot be used.
        """
        try:
            content = self.opened(message)
        except (MessageRefused, DecryptionFailed):
            return
        self.take(content)

    def plain(self, data: bytes) -> bytes:
        """What a sealed message says, whomever it is for, as JSON; any other value as it is.

        Raises:
            DecryptionFailed: It was altered, or its keys are gone.
            StoreUnavailable: The store cannot be read.
        """
        if not data.startswith(MAGIC):
            return data
        try:
            opened = self._codec.read(data, AgentId(parse_flow(data).address.name))
            content = _content(opened)
        except MessageRefused as error:
            raise _altered(error) from error
        if opened.content_type != MAIL:
            return bytes(content.inputs)
        return msgspec.json.encode({"inputs": content.inputs, "labels": content.labels})

    # --- other values -----------------------------------------------------------------------------

    def seal_value(self, value: bytes, where: tuple[str, str, RunId], owner: AgentId, keys: Keys) -> bytes:
        """Something for a column, sealed and signed by the runtime for itself; inside the transaction that keeps it.

        Args:
            value: JSON.
            where: Table, column and row.
            owner: The agent whose it is.
            keys: Of whom it is about.

        Raises:
            OutputLimit, StoreUnavailable: As `sealed`.
        """
        table, column, row = where
        content = _Content(row, f"{table}.{column}", owner, None, msgspec.Raw(value), msgspec.Raw(NULL))
        outgoing = Outgoing(
            wire_id(row), SYSTEM_AGENT, Address(SYSTEM_AGENT), msgspec.json.encode(content), _type_of(table, column)
        )
        with _sealing():
            wire = self._codec.seal(outgoing)
            self.book.flush()
        return keys.seal(wire, place(*where))

    def open_value(self, kept: bytes, where: tuple[str, str, RunId], owner: AgentId) -> bytes:
        """What `seal_value` has sealed, however often.

        Raises:
            DecryptionFailed: It was erased, or altered, or belongs elsewhere.
            ConfigError: There is no master key.
            StoreUnavailable: The store cannot be read.
        """
        table, column, row = where
        wire = open_column(self.vault, kept, place(*where))
        try:
            opened = self._codec.read(wire or b"", SYSTEM_AGENT)
            content = _content(opened)
            if opened.content_type != _type_of(table, column) or opened.sender != SYSTEM_AGENT:
                raise _not_its_own()
            if (content.id, content.to, content.by) != (row, f"{table}.{column}", owner):
                raise _not_its_own()
        except MessageRefused as error:
            raise _altered(error) from error
        return bytes(content.inputs)


@contextmanager
def _sealing() -> Iterator[None]:
    """What keeps something from being sealed, as an error of who wants to keep it."""
    try:
        yield
    except MessageRefused as error:
        if error.code == "message.epoch":  # a key of who sends, or is sent to, was altered
            msg = f"what is to wait cannot be sealed: {error.message}"
            raise StoreUnavailable(msg, code="unavailable.sealing") from error
        raise OutputLimit(error.message, code="limit.message", reason=error.code) from error
    except (ConfigError, VerificationError) as error:
        msg = f"what is to wait cannot be sealed: {error.message}"
        raise StoreUnavailable(msg, code="unavailable.sealing", hint=error.hint) from error


def _outgoing(mail: Mail) -> Outgoing:
    message = mail.message
    labels = msgspec.Raw(NULL if mail.labels is None else mail.labels)
    content = _Content(
        message.message_id, message.agent_id, message.sender, message.expires_ns, msgspec.Raw(mail.inputs), labels
    )
    return Outgoing(
        wire_id(message.message_id), mail.signer, Address(message.agent_id), msgspec.json.encode(content), MAIL
    )


def _content(opened: Opened) -> _Content:
    try:
        content = _DECODER.decode(opened.payload)
    except msgspec.DecodeError as error:
        raise _not_its_own() from error
    if opened.message_id != wire_id(RunId(content.id)):
        raise _not_its_own()
    return content


def wire_id(name: RunId) -> str:
    """The id that a message has on the wire: its own, where that is a UUID, else one that is made of it."""
    try:
        return str(UUID(name)) if str(UUID(name)) == name else _made_of(name)
    except ValueError:
        return _made_of(name)


def _made_of(name: str) -> str:
    return str(UUID(bytes=hashlib.sha256(name.encode()).digest()[:_ID_BYTES]))


def _type_of(table: str, column: str) -> str:
    return f"application/vnd.symbi.{table}.{column}+json"


def _altered(error: MessageRefused) -> DecryptionFailed:
    msg = f"a sealed value was altered, or belongs elsewhere: {error.message}"
    return DecryptionFailed(msg, code="verify.sealed", reason="altered")


def _not_its_own() -> MessageRefused:
    msg = "the message is not the one that was put here: it was moved, exchanged or altered"
    return MessageRefused(msg, code="message.recipient")


async def transact(
    log: AuditLog, mails: SealedMail, work: Callable[[], tuple[T, Sequence[Draft]]], *, wait: bool = False
) -> T:
    """A unit of work that seals; the keys that it made are known to be durable when it returns.

    Raises:
        SymbiError: What the unit of work raises.
        Overloaded, StoreUnavailable: As `AuditLog.transact`.
    """

    def unit() -> tuple[tuple[T, tuple[Made, ...]], Sequence[Draft]]:
        done, drafts = work()
        made = mails.book.flush()
        if any(isinstance(one, BusEpoch) and one.epoch == 1 for one in made):
            drafts = (Draft(AuditEventType.BUS_KEYS_MADE, SYSTEM_AGENT, {}), *drafts)
        return (done, made), drafts

    (done, made), _ = await log.transact(unit, wait=wait)
    mails.book.durable(made)
    return done
