"""Messages and dead letters that an earlier release left as they were said: sealed once, when this one takes the store over.

All of them are sealed in one transaction with the first keys of the bus, and the trail says so. From then on nothing is
taken that is not sealed: a store whose trail says that there were keys, and which has none, is not taken over, for then
somebody has removed them to have a message of his own taken for an old one. The trail is asked by its index first. Where
that tells of no keys and something is to be sealed, the whole trail is verified and read: the index is not signed.

Once they are sealed, no page of the files is to hold them as they were. Only then does a start go on to `runtime.started`,
so a trail that has none behind the first keys tells that this was cut off, and it is done then.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final, Protocol, TypeVar

from symbi.audit.event import AuditEventType, Draft
from symbi.audit.log import AuditLog
from symbi.audit.query import EventFilter
from symbi.audit.whole import WholeTrail, first_of
from symbi.crypto.signing import VerifyingKey
from symbi.errors import ChainBroken, DecryptionFailed
from symbi.guard.confidential import open_column
from symbi.guard.sealed import is_sealed, read_sealed
from symbi.guard.vault import NO_KEYS, Keys, place
from symbi.runtime.letters import DeadLetter, opened_before, sealed_letter
from symbi.runtime.mailbox import Message
from symbi.runtime.sealed_mail import Mail, SealedMail, transact
from symbi.types import SYSTEM_AGENT, KeyId

T = TypeVar("T")

AT_ONCE: Final = 500  # rows; bounds what a page of them takes in memory
_LOST: Final = ("erased", "altered", "form")
_CLEAR: Final = "start the earlier release on this folder, let it carry out or drop all that waits, then start this one"


class UnsealedStore(Protocol):
    """What an earlier release left; the methods block and run inside the store's running transaction.

    Each of them raises StoreUnavailable where the store cannot be used.
    """

    def unsealed_messages(self, after: int, limit: int) -> Sequence[Message]:
        """Messages behind a place in the order that are not sealed."""

    def unsealed_letters(self, after: str, limit: int) -> Sequence[DeadLetter]:
        """Open letters behind one that are not sealed, by their runs."""

    def reseal_message(self, message: Message) -> None:
        """Replace what is kept of such a message."""

    def reseal_letter(self, letter: DeadLetter) -> None:
        """Replace what is kept of such a letter."""

    def let_go(self) -> None:
        """Leave no old page in the files; outside of any transaction. Raises StoreUnavailable while a reader holds one."""


async def seal_unsealed(
    log: AuditLog,
    mails: SealedMail,
    store: UnsealedStore,
    trail: WholeTrail,
    keys: Callable[[], Mapping[KeyId, VerifyingKey]],
) -> int:
    """Seal what an earlier release left; returns how many messages and letters.

    What was about somebody whose key was destroyed, or was altered, stays as it is, and is told of when it is opened.

    Args:
        log: The trail, as it is written.
        mails: Seals.
        store: What an earlier release left.
        trail: The same trail, as it is read.
        keys: The public keys that it may be signed with.

    Raises:
        ChainBroken: The trail says that there were keys of the bus, and the store has none; or something is to be
            sealed, and the trail is not whole, so that nobody can tell.
        ConfigError: The public keys cannot be had.
        DecryptionFailed: What is to be sealed anew does not open under this master, or its key is not in the store.
        StoreUnavailable: The store cannot be used, or there is no master key; or a reader holds old pages: the next
            start goes on.
    """

    def look() -> bool:
        if mails.book.has_keys():
            return False
        for event in trail.select(EventFilter(types=(AuditEventType.BUS_KEYS_MADE,)), limit=1):
            raise _gone(event.sequence)
        if not (store.unsealed_messages(0, 1) or store.unsealed_letters("", 1)):
            return False
        _require_no_keys_before(trail, keys())
        return True

    def work() -> tuple[int, Sequence[Draft]]:
        return _messages(mails, store) + _letters(mails, store), ()

    count = await transact(log, mails, work, wait=True) if await log.read(look) else 0
    if await log.read(partial(_pages_are_left, trail)):
        await log.read(store.let_go)
    return count


def _pages_are_left(trail: WholeTrail) -> bool:
    """Whether no start has gone on since the first keys were made."""
    made = next(trail.select(EventFilter(types=(AuditEventType.BUS_KEYS_MADE,)), limit=1, descending=True), None)
    if made is None:
        return False
    started = EventFilter(types=(AuditEventType.RUNTIME_STARTED,))
    return next(trail.select(started, made.sequence, 1), None) is None


def _require_no_keys_before(trail: WholeTrail, keys: Mapping[KeyId, VerifyingKey]) -> None:
    """Return if the whole trail is as it was signed, and tells of no keys of the bus.

    Raises:
        ChainBroken: It is not, or it does; or its beginning is not in the store any more.
        StoreUnavailable: It cannot be read.
    """
    if next(trail.read(1, 1), None) is None:
        msg = (
            "messages or dead letters wait unsealed, and the beginning of the trail is not in the store any more: "
            "nobody can tell whether an earlier release left them"
        )
        raise ChainBroken(msg, code="verify.bus_keys", hint=_CLEAR)
    made = first_of(trail, AuditEventType.BUS_KEYS_MADE, keys)
    if made is not None:
        raise _gone(made)


def _gone(sequence: int) -> ChainBroken:
    msg = f"the keys of the bus are gone that event {sequence} of the trail tells of"
    return ChainBroken(msg, code="verify.bus_keys", hint="restore the data folder from a copy")


def _messages(mails: SealedMail, store: UnsealedStore) -> int:
    count = 0
    for message in _pages(lambda last: store.unsealed_messages(0 if last is None else last.sequence, AT_ONCE)):
        name, vault = message.message_id, mails.vault
        try:
            inputs = open_column(vault, message.body, place("mailbox", "body", name))
            labels = open_column(vault, message.labels, place("mailbox", "labels", name))
            keys = _keys(mails, message.body, message.labels)
        except DecryptionFailed as error:
            _require_lost(error)
            continue
        store.reseal_message(mails.sealed([Mail(message, SYSTEM_AGENT, inputs or b"{}", labels, keys)])[0])
        count += 1
    return count


def _letters(mails: SealedMail, store: UnsealedStore) -> int:
    count = 0
    for letter in _pages(lambda last: store.unsealed_letters("" if last is None else last.run_id, AT_ONCE)):
        try:
            opened = opened_before(letter, mails.vault)
            keys = _keys(mails, letter.inputs, letter.grant, letter.labels, letter.error)
        except DecryptionFailed as error:
            _require_lost(error)
            continue
        store.reseal_letter(sealed_letter(replace(opened, note=letter.note), mails, keys))
        count += 1
    return count


def _require_lost(error: DecryptionFailed) -> None:
    """Return if something opens under no key whatever, so that it may stay; else raise, for it may open with the right one."""
    if error.fields.get("reason") not in _LOST:
        raise error


def _pages(page: Callable[[T | None], Sequence[T]]) -> Iterator[T]:
    """All of some rows, read a page at a time."""
    last: T | None = None
    while rows := page(last):
        yield from rows
        last = rows[-1]


def _keys(mails: SealedMail, *columns: bytes | None) -> Keys:
    """The keys that sealed some columns."""
    ids = sorted({key for data in columns if is_sealed(data) for key in read_sealed(data or b"").keys})
    return mails.vault.keys_of(ids) if mails.vault is not None and ids else NO_KEYS
