"""Messages that wait for agents: a part of the store."""

from collections.abc import Sequence
from typing import Any

from symbi.adapters.sqlite.file import SQL, mapped
from symbi.adapters.sqlite.payloads import PayloadTable
from symbi.runtime.mailbox import NOW, Message
from symbi.runtime.roster import declared_of
from symbi.types import AgentId, RunId


class MailboxTable(PayloadTable):
    """MailboxStore, for the store that has the connection."""

    def put_message(self, message: Message) -> bool:
        """Insert a message behind all others."""
        self._fence(self._epoch)
        body = self._kept(message.body)
        new = self._write(SQL["put_message"], _values(message, body)) == 1
        if not new:
            self._unkept(body)
        return new

    def get_message(self, message_id: RunId) -> Message | None:
        """One message."""
        row = self._one(SQL["get_message"], (message_id,))
        return None if row is None else _message(row)

    def next_message(self, agent: AgentId) -> Message | None:
        """The first one of an agent that is due."""
        row = self._one(SQL["next_message"], (agent,))
        return None if row is None else _message(row)

    def waiting_agents(self, declared: AgentId, after: int, limit: int) -> Sequence[tuple[int, AgentId]]:
        """For whom due messages behind a place are."""
        rows = self._all(SQL["waiting_agents"], (declared, after, limit))
        return [(sequence, AgentId(agent)) for sequence, agent in rows]

    def ripen(self, now_ns: int, limit: int) -> Sequence[AgentId]:
        """Let messages take their places whose time has come."""
        self._fence(self._epoch)
        rows = self._all(SQL["ripe_messages"], (now_ns, limit))
        found = [_message(row) for row in rows]
        with mapped("write"):
            self._db.executemany(SQL["drop_message"], [(one.message_id,) for one in found])
            self._db.executemany(SQL["put_message"], [_values(one, self._kept(one.body), due_ns=NOW) for one in found])
        return [one.agent_id for one in found]

    def earliest_due(self) -> int | None:
        """When the first later one is due."""
        due_ns = self._one(SQL["earliest_due"])[0]
        return None if due_ns is None else int(due_ns)

    def unsealed_messages(self, after: int, limit: int) -> Sequence[Message]:
        """Messages behind a place that are not sealed."""
        return [_message(row) for row in self._all(SQL["unsealed_messages"], (after, limit))]

    def reseal_message(self, message: Message) -> None:
        """Replace what is kept of such a message."""
        self._fence(self._epoch)
        self._write(SQL["reseal_message"], (self._kept(message.body), message.epoch, message.message_id))

    def begin_message(self, message_id: RunId) -> int:
        """Note that a message is begun."""
        self._fence(self._epoch)
        self._write(SQL["begin_message"], (message_id,))
        row = self._one(SQL["attempts_of"], (message_id,))
        return 0 if row is None else int(row[0])

    def rest_message(self, message_id: RunId) -> None:
        """Count anew how often a message is begun."""
        self._fence(self._epoch)
        self._write(SQL["rest_message"], (message_id,))

    def drop_message(self, message_id: RunId) -> bool:
        """Remove a message."""
        self._fence(self._epoch)
        return self._write(SQL["drop_message"], (message_id,)) == 1

    def count_messages(self, agent: AgentId, limit: int) -> int:
        """How many wait for an agent."""
        return int(self._one(SQL["count_messages"], (agent, limit))[0])


def _values(message: Message, body: bytes | None, due_ns: int | None = None) -> tuple[object, ...]:
    return (
        message.message_id, declared_of(message.agent_id), message.agent_id, message.sender, body,
        message.labels, message.due_ns if due_ns is None else due_ns, message.expires_ns, message.attempts,
        message.epoch,
    )  # fmt: skip


def _message(row: Any) -> Message:
    sequence, message_id, agent, sender, body, labels, due_ns, expires_ns, attempts, epoch = row
    return Message(
        RunId(message_id), AgentId(agent), sender, body, labels, due_ns, expires_ns, attempts, sequence, epoch
    )
