"""Keys of the bus, and what has been taken in: a part of the store."""

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Never, TypeVar

from symbi.adapters.sqlite.file import SQL
from symbi.adapters.sqlite.rows import Rows
from symbi.bus.envelope import FLOW_BYTES, parse_flow
from symbi.bus.keystore import AgentKeys, BusEpoch, GroupKey
from symbi.bus.seen import Seen
from symbi.errors import InternalError, MessageRefused
from symbi.types import AgentId, KeyId

T = TypeVar("T")


class BusTable(Rows):
    """BusKeyStore, for the store that has the connection."""

    def put_agent_keys(self, keys: AgentKeys) -> bool:
        """Insert key pairs."""
        self._fence(self._epoch)
        values = (
            keys.agent, keys.generation, keys.epoch, keys.signing_id, keys.signing, keys.agreement, keys.wrapped,
            keys.created_at, keys.destroyed_at,
        )  # fmt: skip
        return self._write(SQL["put_agent_keys"], values) == 1

    def agent_keys(self, agent: AgentId) -> Sequence[AgentKeys]:
        """Those of an agent."""
        return [to_agent_keys(row) for row in self._all(SQL["agent_keys"], (agent,))]

    def agent_keys_by(self, signing_id: KeyId) -> AgentKeys | None:
        """Those with a signing key."""
        row = self._one(SQL["agent_keys_by"], (signing_id,))
        return None if row is None else to_agent_keys(row)

    def all_agent_keys(self) -> Sequence[AgentKeys]:
        """Those of all agents."""
        return [to_agent_keys(row) for row in self._all(SQL["all_agent_keys"])]

    def destroy_agent_keys(self, agent: AgentId, upto: int, at: str) -> int:
        """Overwrite private parts."""
        self._fence(self._epoch)
        # Zeros first, in the same place and length: a shorter row alone would be written beside what it replaces.
        self._write(SQL["blank_agent_keys"], (agent, upto))
        return self._write(SQL["destroy_agent_keys"], (at, agent, upto))

    def put_epoch(self, epoch: BusEpoch) -> bool:
        """Insert an epoch."""
        self._fence(self._epoch)
        return self._write(SQL["put_epoch"], (epoch.epoch, epoch.owner, epoch.wrapped, epoch.begun_at)) == 1

    def epochs(self) -> Sequence[BusEpoch]:
        """All that were not ended."""
        return [BusEpoch(*row) for row in self._all(SQL["bus_epochs"])]

    def last_epoch(self) -> int:
        """The highest number that an epoch ever had."""
        return int(self._one(SQL["last_epoch"])[0])

    def end_epochs(self, owner: int) -> int:
        """Destroy epochs of earlier owners under which nothing waits."""
        self._fence(self._epoch)
        least = self._one(SQL["least_epoch"])[0]
        self._write(SQL["blank_epochs"], (owner, least))
        self._write(SQL["forget_seen"], (owner, least))
        return self._write(SQL["end_epochs"], (owner, least))

    def put_group(self, group: GroupKey) -> bool:
        """Insert the key of a topic."""
        self._fence(self._epoch)
        return self._write(SQL["put_group"], (group.topic, group.epoch, group.wrapped, group.begun_at)) == 1

    def groups(self, topic: str) -> Sequence[GroupKey]:
        """All keys of a topic."""
        return [GroupKey(*row) for row in self._all(SQL["groups"], (topic,))]

    def last_groups(self) -> Mapping[str, int]:
        """The last epoch of each topic."""
        return dict(self._all(SQL["last_groups"]))

    def needed_groups(self) -> Mapping[str, int]:
        """The first epoch of each topic under which a message is kept."""
        return _needed(self._all(SQL["stream_starts"], (FLOW_BYTES,)))

    def end_groups(self, topic: str, before: int) -> int:
        """Destroy older keys of a topic."""
        self._fence(self._epoch)
        self._write(SQL["blank_groups"], (topic, before))
        return self._write(SQL["end_groups"], (topic, before))

    def seen(self, sender: str, address: str, epoch: int) -> Seen:
        """What has been taken in."""
        row = self._one(SQL["seen"], (sender, address, epoch))
        return Seen() if row is None else Seen.from_bytes(*row)

    def put_seen(self, sender: str, address: str, epoch: int, seen: Seen) -> None:
        """Insert or replace it."""
        self._fence(self._epoch)
        self._write(SQL["put_seen"], (sender, address, epoch, seen.highest, seen.to_bytes()))


def to_agent_keys(row: Any) -> AgentKeys:
    """A row as key pairs."""
    agent, generation, epoch, signing_id, signing, agreement, wrapped, created_at, destroyed_at = row
    return AgentKeys(
        AgentId(agent), generation, epoch, KeyId(signing_id), signing, agreement, wrapped, created_at, destroyed_at
    )


class BusReader(ABC):
    """BusKeyStore for who only reads: a book over it opens, and makes and destroys nothing."""

    @abstractmethod
    def _use(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """Read from the open store."""

    def agent_keys(self, agent: AgentId) -> Sequence[AgentKeys]:
        """Those of an agent."""
        return [to_agent_keys(row) for row in self._bus_rows("agent_keys", (agent,))]

    def agent_keys_by(self, signing_id: KeyId) -> AgentKeys | None:
        """Those with a signing key."""
        return next((to_agent_keys(row) for row in self._bus_rows("agent_keys_by", (signing_id,))), None)

    def all_agent_keys(self) -> Sequence[AgentKeys]:
        """Those of all agents."""
        return [to_agent_keys(row) for row in self._bus_rows("all_agent_keys")]

    def epochs(self) -> Sequence[BusEpoch]:
        """All that were not ended."""
        return [BusEpoch(*row) for row in self._bus_rows("bus_epochs")]

    def last_epoch(self) -> int:
        """The highest number that an epoch ever had."""
        return int(self._bus_rows("last_epoch")[0][0])

    def groups(self, topic: str) -> Sequence[GroupKey]:
        """All keys of a topic."""
        return [GroupKey(*row) for row in self._bus_rows("groups", (topic,))]

    def last_groups(self) -> Mapping[str, int]:
        """The last epoch of each topic."""
        return dict(self._bus_rows("last_groups"))

    def needed_groups(self) -> Mapping[str, int]:
        """The first epoch of each topic under which a message is kept."""
        return _needed(self._bus_rows("stream_starts", (FLOW_BYTES,)))

    def seen(self, sender: str, address: str, epoch: int) -> Seen:
        """What has been taken in."""
        return next((Seen.from_bytes(*row) for row in self._bus_rows("seen", (sender, address, epoch))), Seen())

    def put_agent_keys(self, keys: AgentKeys) -> Never:
        """Refused."""
        raise _read_only(f"take keys of agent `{keys.agent}`")

    def destroy_agent_keys(self, agent: AgentId, upto: int, at: str) -> Never:
        """Refused."""
        raise _read_only(f"destroy keys of agent `{agent}` up to {upto} at {at}")

    def put_epoch(self, epoch: BusEpoch) -> Never:
        """Refused."""
        raise _read_only(f"begin epoch {epoch.epoch}")

    def end_epochs(self, owner: int) -> Never:
        """Refused."""
        raise _read_only(f"end epochs before owner {owner}")

    def put_group(self, group: GroupKey) -> Never:
        """Refused."""
        raise _read_only(f"take a key of topic `{group.topic}`")

    def end_groups(self, topic: str, before: int) -> Never:
        """Refused."""
        raise _read_only(f"destroy keys of topic `{topic}` before {before}")

    def put_seen(self, sender: str, address: str, epoch: int, seen: Seen) -> Never:
        """Refused."""
        raise _read_only(f"take in message {seen.highest} of `{sender}` at `{address}` in epoch {epoch}")

    def _bus_rows(self, name: str, values: tuple[object, ...] = ()) -> list[Any]:
        return self._use(lambda db: db.execute(SQL[name], values).fetchall())


def _needed(rows: Sequence[tuple[bytes]]) -> dict[str, int]:
    """From starts of messages; what is no message needs no key."""
    needed: dict[str, int] = {}
    for (start,) in rows:
        with suppress(MessageRefused):
            flow = parse_flow(start)
            needed[flow.address.name] = min(flow.epoch, needed.get(flow.address.name, flow.epoch))
    return needed


def _read_only(what: str) -> InternalError:
    return InternalError(f"a store that is open for reading cannot {what}", code="internal.read_only")
