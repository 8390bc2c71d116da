"""The keys by which agents sign and open messages: shown, changed, and destroyed where an agent is gone for good."""

from collections.abc import Sequence
from typing import Final

from symbi.audit.event import AuditEventType, Draft
from symbi.bus.keystore import AgentKeys
from symbi.errors import ConfigError, InputError, StoreUnavailable, VerificationError, did_you_mean
from symbi.runtime.intake import GONE
from symbi.runtime.rooms import Rooms
from symbi.runtime.roster import declared_of
from symbi.runtime.sealed_mail import transact
from symbi.types import SYSTEM_AGENT, AgentId, JsonValue

PAGE: Final = 1000  # agents that are looked at together


async def list_keys(rooms: Rooms) -> Sequence[AgentKeys]:
    """Public parts of all keys, and what became of their private ones.

    Raises:
        StoreUnavailable: The store cannot be read.
    """
    return await rooms.world.log.read(rooms.mails.book.all_keys)


async def rotate_keys(rooms: Rooms, agent: AgentId, by: str) -> AgentKeys:
    """Give an agent other keys; what waits for it is opened with the ones before, and new messages with these.

    Raises:
        InputError: It has none: nothing was sent by it or to it.
        StoreUnavailable: They cannot be made durable, or there is no master key.
    """

    def work() -> tuple[AgentKeys, tuple[Draft, ...]]:
        _known(rooms, agent)
        try:
            made = rooms.mails.book.rotate(agent)
        except (ConfigError, VerificationError) as error:
            raise StoreUnavailable(error.message, code="unavailable.sealing", hint=error.hint) from error
        facts: dict[str, JsonValue] = {
            "owner": agent, "by": by, "generation": made.generation, "signing_id": made.signing_id,
        }  # fmt: skip
        return made, (Draft(AuditEventType.BUS_KEYS_ROTATED, agent, facts),)

    made = await transact(rooms.world.log, rooms.mails, work)
    rooms.bus.keys_changed(agent, destroyed=False)
    return made


async def destroy_keys(rooms: Rooms, agent: AgentId, by: str) -> int:
    """Destroy the private keys of an agent that is gone for good; returns of how many generations.

    What was sent to it and was not begun cannot be opened any more, by anybody who has this store alone.

    Raises:
        InputError: It has none, or one that was made of it is still there, or receives from the bus, or is to.
        StoreUnavailable: It cannot be recorded.
    """

    def work() -> tuple[int, tuple[Draft, ...]]:
        _known(rooms, agent)
        _refuse_there(rooms, agent)
        count = rooms.mails.book.forget(agent)
        return count, (Draft(AuditEventType.BUS_KEYS_DESTROYED, agent, {"owner": agent, "by": by, "count": count}),)

    count = await transact(rooms.world.log, rooms.mails, work)
    rooms.bus.keys_changed(agent, destroyed=True)
    return count


def _known(rooms: Rooms, agent: AgentId) -> None:
    names = {one.agent for one in rooms.mails.book.all_keys() if one.wrapped is not None}
    if agent not in names:
        msg = f"agent `{agent[:64]}` has no keys"
        hint = did_you_mean(agent, names) or "`symbi keys list` shows them; instances have those of their declaration"
        raise InputError(msg, code="input.agent", hint=hint)


def _refuse_there(rooms: Rooms, agent: AgentId) -> None:
    """Return if nothing that was made of a declaration is there.

    Raises:
        InputError: Something is; or these are the keys of the runtime itself.
    """
    if agent == SYSTEM_AGENT:
        raise InputError("the keys of the runtime itself are not destroyed", code="input.agent", hint="rotate them")
    after = ""
    while page := rooms.agents.agents(None, after, PAGE):
        for one in page:
            if declared_of(one.agent_id) == agent and one.state not in GONE:
                msg = f"agent `{one.agent_id}` is {one.state.value}, and needs its keys"
                raise InputError(msg, code="input.agent_there", hint=f"`symbi agents stop {one.agent_id}` first")
        after = page[-1].agent_id
    receives = rooms.bus.there(agent)
    if receives is not None:
        msg = f"agent `{receives}` receives from the bus, and needs its keys"
        raise InputError(msg, code="input.agent_there", hint="close its mailbox and its subscriptions first")
    awaited = rooms.bus.outbox.store.awaited_sent(agent, rooms.world.clock.now_ns())
    if awaited is not None:
        msg = f"messages of the bus wait for agent `{awaited}`, and open with its keys alone"
        hint = "they go once they are received, or their time is over"
        raise InputError(msg, code="input.agent_there", hint=hint)
