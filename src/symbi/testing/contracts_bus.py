"""The checks of the ports of the bus's keys, to be run on every store."""

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from typing import Final, Protocol, TypeAlias

from symbi.bus.keystore import AgentKeys, BusEpoch, BusKeyStore, GroupKey
from symbi.bus.seen import Seen
from symbi.types import AgentId, KeyId

_AT: Final = "2026-01-01T00:00:00.000000000Z"
_LATER: Final = "2026-01-02T00:00:00.000000000Z"
_A: Final = AgentId("a")
_OURS: Final = 7


class BusKeyStoreUnderTest(BusKeyStore, Protocol):
    """A store with its transactions."""

    @property
    def epoch(self) -> int:
        """Number of its owner."""

    def transaction(self) -> AbstractContextManager[None]:
        """One transaction."""


def agent_keys(generation: int = 1, agent: str = "a") -> AgentKeys:
    """Key pairs that are there."""
    number = generation * 16 + len(agent)
    return AgentKeys(
        AgentId(agent), generation, generation, KeyId(f"{number:016x}"), bytes([number]) * 32, bytes([number + 1]) * 32,
        bytes([number + 2]) * 101, _AT,
    )  # fmt: skip


def bus_epoch(number: int = 1, owner: int = 0) -> BusEpoch:
    """An epoch."""
    return BusEpoch(number, owner, bytes([number]) * 69, _AT)


def keys_come_back_as_they_were_put(store: BusKeyStoreUnderTest) -> None:
    """By their agent, by their signing key, and among all; a generation is put once."""
    with store.transaction():
        assert store.put_agent_keys(agent_keys(2))
        assert store.put_agent_keys(agent_keys(1))
        assert store.put_agent_keys(agent_keys(1, "other"))
        assert not store.put_agent_keys(replace(agent_keys(1), wrapped=b"other"))
    assert list(store.agent_keys(_A)) == [agent_keys(1), agent_keys(2)]
    assert store.agent_keys_by(agent_keys(2).signing_id) == agent_keys(2)
    assert store.agent_keys_by(KeyId("f" * 16)) is None
    assert list(store.all_agent_keys()) == [agent_keys(1), agent_keys(2), agent_keys(1, "other")]
    assert list(store.agent_keys(AgentId("nobody"))) == []


def destroyed_keys_leave_their_public_parts(store: BusKeyStoreUnderTest) -> None:
    """Up to a generation, of one agent alone, and once."""
    with store.transaction():
        for keys in (agent_keys(1), agent_keys(2), agent_keys(1, "other")):
            store.put_agent_keys(keys)
        assert store.destroy_agent_keys(_A, 1, _LATER) == 1
        assert store.destroy_agent_keys(_A, 1, _AT) == 0
    gone = replace(agent_keys(1), wrapped=None, destroyed_at=_LATER)
    assert list(store.agent_keys(_A)) == [gone, agent_keys(2)]
    assert store.agent_keys_by(gone.signing_id) == gone
    assert list(store.agent_keys(AgentId("other"))) == [agent_keys(1, "other")]
    with store.transaction():
        assert not store.put_agent_keys(agent_keys(1))
    assert list(store.agent_keys(_A)) == [gone, agent_keys(2)]


def no_number_of_an_epoch_is_given_twice(store: BusKeyStoreUnderTest) -> None:
    """Also where the epochs were ended; those of the owner that has the store stay."""
    assert store.last_epoch() == 0
    ours = bus_epoch(_OURS, store.epoch)
    with store.transaction():
        assert store.put_epoch(bus_epoch(3))
        assert not store.put_epoch(replace(bus_epoch(3), wrapped=b"other"))
        assert store.put_epoch(ours)
        store.put_seen("a", "b", 3, Seen(5))
        store.put_seen("a", "b", _OURS, Seen(6))
    assert list(store.epochs()) == [bus_epoch(3), ours]
    with store.transaction():
        assert store.end_epochs(store.epoch) == 1
    assert list(store.epochs()) == [ours]
    assert (store.seen("a", "b", 3), store.seen("a", "b", _OURS)) == (Seen(), Seen(6))
    with store.transaction():
        assert store.end_epochs(store.epoch + 1) == 1
    assert list(store.epochs()) == []
    assert store.last_epoch() == _OURS


def a_group_has_a_key_for_each_epoch(store: BusKeyStoreUnderTest) -> None:
    """Older ones are destroyed on request, those of other topics stay."""
    keys = [GroupKey("news.now", number, bytes([number]) * 69, _AT) for number in (1, 2, 3)]
    with store.transaction():
        assert all(store.put_group(key) for key in (*keys, replace(keys[0], topic="other")))
        assert not store.put_group(replace(keys[0], wrapped=b"other"))
    assert list(store.groups("news.now")) == keys
    assert store.last_groups() == {"news.now": len(keys), "other": 1}
    assert store.needed_groups() == {}
    with store.transaction():
        assert store.end_groups("news.now", len(keys)) == len(keys) - 1
    assert list(store.groups("news.now")) == keys[2:]
    assert len(store.groups("other")) == 1


def what_was_seen_is_replaced(store: BusKeyStoreUnderTest) -> None:
    """For a sender, an address and an epoch; others are not touched."""
    with store.transaction():
        store.put_seen("a", "b", 1, Seen(9, ((2, 4), (6, 6))))
        store.put_seen("b", "a", 1, Seen(1))
        store.put_seen("a", "b", 1, Seen(300, ((2, 4), (6, 200))))
    assert store.seen("a", "b", 1) == Seen(300, ((2, 4), (6, 200)))
    assert store.seen("b", "a", 1) == Seen(1)
    assert store.seen("a", "b", 2) == Seen()


def what_is_undone_was_never_there(store: BusKeyStoreUnderTest) -> None:
    """A transaction that fails takes everything with it."""
    with suppress(KeyError), store.transaction():
        store.put_agent_keys(agent_keys())
        store.put_epoch(bus_epoch(4, store.epoch))
        store.put_seen("a", "b", 4, Seen(1))
        raise KeyError
    assert (list(store.all_agent_keys()), list(store.epochs()), store.seen("a", "b", 4)) == ([], [], Seen())


BusKeyCheck: TypeAlias = Callable[[BusKeyStoreUnderTest], None]

BUS_KEY_CHECKS: Final[tuple[BusKeyCheck, ...]] = (
    keys_come_back_as_they_were_put,
    destroyed_keys_leave_their_public_parts,
    no_number_of_an_epoch_is_given_twice,
    a_group_has_a_key_for_each_epoch,
    what_was_seen_is_replaced,
    what_is_undone_was_never_there,
)
