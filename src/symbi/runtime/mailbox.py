"""Messages that wait for agents, and the port that keeps them.

A message is the inputs of one run, under the id that the run will have. It stays until that run is over; who finds it
after a crash starts the run if there is none by its id, and goes on with it if there is: so each is carried out once.
One that is to come later takes its place behind the others once its time has come.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from symbi.types import AgentId, RunId

NOW: Final = 0
"""`due_ns` of what may be carried out as soon as the agent comes to it."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message.

    Attributes:
        message_id: UUIDv7, and the id of its run.
        agent_id: To whom.
        sender: Who sent it: an agent, or a person as the trail calls them.
        body: A sealed, signed message, see `symbi.runtime.sealed_mail`; sealed once more where it is about somebody.
        labels: Of a message that an earlier release left: JSON of the labels of the inputs. None elsewhere.
        due_ns: Not before this time, in nanoseconds since the epoch; `NOW` for as soon as may be.
        expires_ns: Not after it; None for never.
        attempts: How often it was begun since its run was last held, or since it came.
        sequence: Its place in the order in which messages fell due; the store gives it.
        epoch: Of the bus, in which it was sealed; 0 where an earlier release left it as it was said.
    """

    message_id: RunId
    agent_id: AgentId
    sender: str
    body: bytes
    labels: bytes | None = None
    due_ns: int = NOW
    expires_ns: int | None = None
    attempts: int = 0
    sequence: int = 0
    epoch: int = 0


class MailboxStore(Protocol):
    """Durable messages; the methods block, and those that write run inside the store's running transaction."""

    def put_message(self, message: Message) -> bool:
        """Insert a message behind all others; whether it is new. One whose id is there already changes nothing.

        Raises:
            StoreUnavailable: The store cannot be written.
        """

    def get_message(self, message_id: RunId) -> Message | None:
        """One message, or None.

        Raises:
            StoreUnavailable: The store cannot be read.
        """

    def next_message(self, agent: AgentId) -> Message | None:
        """The first message of an agent that is due, or None.

        Raises:
            StoreUnavailable: The store cannot be read.
        """

    def waiting_agents(self, declared: AgentId, after: int, limit: int) -> Sequence[tuple[int, AgentId]]:
        """Due messages for the agents of a declaration behind a place in the order: their places, and for whom they are.

        Raises:
            StoreUnavailable: The store cannot be read.
        """

    def ripen(self, now_ns: int, limit: int) -> Sequence[AgentId]:
        """Let messages take their places whose time has come, some at most; returns for whom they are.

        Raises:
            StoreUnavailable: The store cannot be written.
        """

    def earliest_due(self) -> int | None:
        """When the first message is due that is to come later, or None.

        Raises:
            StoreUnavailable: The store cannot be read.
        """

    def begin_message(self, message_id: RunId) -> int:
        """Note that a message is begun; returns how often it was, with this time; 0 where it is not there.

        Raises:
            StoreUnavailable: The store cannot be written.
        """

    def rest_message(self, message_id: RunId) -> None:
        """Note that the run of a message is held: it counts anew how often it is begun.

        Raises:
            StoreUnavailable: The store cannot be written.
        """

    def drop_message(self, message_id: RunId) -> bool:
        """Remove a message; whether it was there.

        Raises:
            StoreUnavailable: The store cannot be written.
        """

    def count_messages(self, agent: AgentId, limit: int) -> int:
        """How many wait for an agent, due ones and later ones; counts no further than to a limit.

        Raises:
            StoreUnavailable: The store cannot be read.
        """
