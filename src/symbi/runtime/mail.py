"""Messages on their way into mailboxes."""

import hashlib
from typing import Final
from uuid import UUID

from symbi.agent.messages import Letter
from symbi.errors import Overloaded
from symbi.guard.confidential import keys_for
from symbi.guard.outcome import NOT_TAKEN, encode_result
from symbi.runtime.addresses import Recipient, inputs_of
from symbi.runtime.mailbox import NOW, Message
from symbi.runtime.rooms import Rooms
from symbi.runtime.sealed_mail import Mail
from symbi.types import AgentId, JsonValue, RunId

RETRY_AFTER_S: Final = 1.0


async def write_mail(
    rooms: Rooms, found: Recipient, run_id: RunId, body: JsonValue, letter: Letter, due_ns: int = NOW
) -> Mail:
    """A message that is to be sealed: by its sender, and once more where it is about somebody."""
    inputs = inputs_of(found.order.spec, body)
    task = letter.task(inputs)
    keys = await keys_for(rooms.world.guard.vault, found.order.spec.id, task.everybody, wait=True)
    message = Message(run_id, found.order.name, letter.sender.name, b"", None, due_ns)
    return Mail(message, letter.sender.agent, encode_result(inputs), task.carried_json, keys)


def put_mail(rooms: Rooms, *mails: Mail) -> None:
    """Seal messages and put each into its mailbox, unless it is or was there; on the store's thread, in its transaction.

    Raises:
        Overloaded: A mailbox is full.
        OutputLimit, StoreUnavailable: As `SealedMail.sealed`.
    """
    fresh = [mail for mail in mails if _is_fresh(rooms, mail.message)]
    for message in rooms.mails.sealed(fresh):
        rooms.mailbox.put_message(message)


def _is_fresh(rooms: Rooms, mail: Message) -> bool:
    """Whether a message is neither waiting nor a run, so that it is to be put into its mailbox.

    Raises:
        Overloaded: The mailbox is full.
    """
    mailbox = rooms.mailbox
    if rooms.runs.get_run(mail.message_id) is not None or mailbox.get_message(mail.message_id) is not None:
        return False
    most = rooms.terms(AgentId(mail.agent_id.partition("/")[0])).max_messages
    if mailbox.count_messages(mail.agent_id, most) >= most:
        msg = f"the mailbox of agent `{mail.agent_id}` is full: {most} messages wait for it"
        raise Overloaded(msg, retry_after_s=RETRY_AFTER_S, code=NOT_TAKEN)
    return True


def derived(source: str, agent: AgentId) -> RunId:
    """The id of the message that a publication is to one agent: the same whenever it is made, with the time of its source (a UUIDv7)."""
    digest = hashlib.sha256(f"{source}\n{agent}".encode()).digest()
    random = int.from_bytes(digest[:10])
    number = UUID(source).int >> 80 << 80 | random
    number = number & ~(0xF << 76) | 0x7 << 76
    return RunId(str(UUID(int=number & ~(0x3 << 62) | 0x2 << 62)))
