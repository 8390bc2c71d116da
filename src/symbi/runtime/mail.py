"""Messages on their way into mailboxes."""

import hashlib
from typing import Final
from uuid import UUID

from symbi.agent.messages import Letter
from symbi.errors import Overloaded
from symbi.guard.confidential import keys_for
from symbi.guard.outcome import NOT_TAKEN, encode_result
from symbi.guard.vault import place
from symbi.runtime.addresses import Recipient, inputs_of
from symbi.runtime.mailbox import NOW, Message
from symbi.runtime.rooms import Rooms
from symbi.types import AgentId, JsonValue, RunId

RETRY_AFTER_S: Final = 1.0


async def write_mail(
    rooms: Rooms, found: Recipient, run_id: RunId, body: JsonValue, letter: Letter, due_ns: int = NOW
) -> Message:
    """A message as it is kept, sealed where it is about somebody."""
    inputs = inputs_of(found.order.spec, body)
    task = letter.task(inputs)
    keys = await keys_for(rooms.world.guard.vault, found.order.spec.id, task.everybody, wait=True)
    return Message(
        run_id,
        found.order.name,
        letter.sender.name,
        keys.seal(encode_result(inputs), place("mailbox", "body", run_id)),
        keys.seal_optional(task.carried_json, place("mailbox", "labels", run_id)),
        due_ns,
    )


def put_mail(rooms: Rooms, mail: Message) -> bool:
    """Put a message into its mailbox, unless it is or was there; on the store's thread, in its transaction.

    Raises:
        Overloaded: The mailbox is full.
    """
    if rooms.runs.get_run(mail.message_id) is not None:
        return False
    most = rooms.terms(AgentId(mail.agent_id.partition("/")[0])).max_messages
    mailbox = rooms.mailbox
    if mailbox.count_messages(mail.agent_id, most) >= most and mailbox.get_message(mail.message_id) is None:
        msg = f"the mailbox of agent `{mail.agent_id}` is full: {most} messages wait for it"
        raise Overloaded(msg, retry_after_s=RETRY_AFTER_S, code=NOT_TAKEN)
    return mailbox.put_message(mail)


def derived(source: str, agent: AgentId) -> RunId:
    """The id of the message that a publication is to one agent: the same whenever it is made, with the time of its source (a UUIDv7)."""
    digest = hashlib.sha256(f"{source}\n{agent}".encode()).digest()
    random = int.from_bytes(digest[:10])
    number = UUID(source).int >> 80 << 80 | random
    number = number & ~(0xF << 76) | 0x7 << 76
    return RunId(str(UUID(int=number & ~(0x3 << 62) | 0x2 << 62)))
