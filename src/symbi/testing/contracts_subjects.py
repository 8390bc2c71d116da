"""The checks of the port of subjects' keys, to be run on every store."""

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from typing import Final, Protocol, TypeAlias

from symbi.errors import InternalError
from symbi.guard.vault import Hold, SubjectKey, SubjectKeyStore
from symbi.types import KeyId

_AT: Final = "2026-01-01T00:00:00.000000000Z"
_LATER: Final = "2026-01-02T00:00:00.000000000Z"


class SubjectKeyStoreUnderTest(SubjectKeyStore, Protocol):
    """A store with its transactions."""

    def transaction(self) -> AbstractContextManager[None]:
        """One transaction."""


def subject_key(number: int = 0, pseudonym: str = "p0") -> SubjectKey:
    """A living key."""
    return SubjectKey(KeyId(f"{number:016x}"), pseudonym, bytes([number + 1]) * 69, _AT, name=b"name")


def a_key_comes_back_as_it_was_put(store: SubjectKeyStoreUnderTest) -> None:
    """By its id, by its subject, and as some key."""
    assert store.any_subject_key() is None
    key = subject_key()
    with store.transaction():
        store.put_subject_key(key)
    assert store.subject_key(key.key_id) == key
    assert list(store.subject_keys("p0")) == [key]
    assert store.any_subject_key() == key
    assert store.subject_key(KeyId("f" * 16)) is None
    assert list(store.subject_keys("p1")) == []


def a_subject_has_one_living_key(store: SubjectKeyStoreUnderTest) -> None:
    """A second is refused, also of another id; a second of the same id too; another subject has its own."""
    with store.transaction():
        store.put_subject_key(subject_key(0))
        _refused(lambda: store.put_subject_key(subject_key(1)))
        _refused(lambda: store.put_subject_key(subject_key(0, "p1")))
        store.put_subject_key(subject_key(1, "p1"))
    assert [key.key_id for key in store.subject_keys("p1")] == [subject_key(1).key_id]


def a_destroyed_key_leaves_a_tombstone(store: SubjectKeyStoreUnderTest) -> None:
    """Nobody else's key is touched, destroying again finds nothing, and the subject may have a new key."""
    with store.transaction():
        store.put_subject_key(subject_key(0))
        store.put_subject_key(subject_key(1, "p1"))
        assert store.destroy_subject_keys("p0", _LATER) == 1
        assert store.destroy_subject_keys("p0", _LATER) == 0
        assert store.destroy_subject_keys("p9", _LATER) == 0
        store.put_subject_key(subject_key(2))
    tombstone = replace(subject_key(0), wrapped=None, destroyed_at=_LATER, name=None)
    assert store.subject_key(tombstone.key_id) == tombstone
    assert list(store.subject_keys("p0")) == [tombstone, subject_key(2)]
    assert store.subject_key(subject_key(1).key_id) == subject_key(1, "p1")


def a_hold_lasts_until_it_is_released(store: SubjectKeyStoreUnderTest) -> None:
    """One for each subject; a later one replaces it."""
    with store.transaction():
        store.set_hold(Hold("p1", b"why", _AT))
        store.set_hold(Hold("p0", b"why", _AT))
        store.set_hold(Hold("p0", b"other", _LATER))
    assert store.hold_of("p0") == Hold("p0", b"other", _LATER)
    assert [hold.pseudonym for hold in store.holds()] == ["p0", "p1"]
    with store.transaction():
        assert store.release_hold("p0")
        assert not store.release_hold("p0")
    assert store.hold_of("p0") is None
    assert store.hold_of("p1") == Hold("p1", b"why", _AT)


def what_is_undone_was_never_there(store: SubjectKeyStoreUnderTest) -> None:
    """A transaction that fails takes its keys with it, and brings back the ones it destroyed."""
    with store.transaction():
        store.put_subject_key(subject_key(0))
    with suppress(InternalError), store.transaction():
        store.put_subject_key(subject_key(1, "p1"))
        store.destroy_subject_keys("p0", _LATER)
        store.put_subject_key(subject_key(1, "p1"))  # which is refused
    assert list(store.subject_keys("p1")) == []
    assert store.subject_key(subject_key(0).key_id) == subject_key(0)


SubjectKeyCheck: TypeAlias = Callable[[SubjectKeyStoreUnderTest], None]

SUBJECT_KEY_CHECKS: Final[tuple[SubjectKeyCheck, ...]] = (
    a_key_comes_back_as_it_was_put,
    a_subject_has_one_living_key,
    a_destroyed_key_leaves_a_tombstone,
    a_hold_lasts_until_it_is_released,
    what_is_undone_was_never_there,
)


def _refused(work: Callable[[], None]) -> None:
    try:
        work()
    except InternalError:
        return
    msg = "it was not refused"
    raise AssertionError(msg)
