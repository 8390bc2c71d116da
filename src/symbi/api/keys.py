"""What people can ask about the keys of agents: list, rotate, destroy. JSON in, JSON out, behind the gate."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from symbi.api.agents import called
from symbi.api.approvals import text_of
from symbi.api.caller import Caller, Operation
from symbi.bus.keystore import AgentKeys
from symbi.runtime.agent_keys import destroy_keys, list_keys, rotate_keys
from symbi.runtime.runtime import Runtime
from symbi.types import AgentId, JsonValue


async def listed(runtime: Runtime, _caller: Caller, _arguments: Mapping[str, JsonValue]) -> JsonValue:
    """All keys: public parts, and whether the private ones are there."""
    return {"keys": [_row(one) for one in await list_keys(runtime.rooms)]}


async def rotate(runtime: Runtime, caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Give an agent other keys."""
    return _row(await rotate_keys(runtime.rooms, AgentId(text_of(arguments, "agent")), called(runtime, caller)))


async def destroy(runtime: Runtime, caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Destroy the private keys of an agent that is gone for good."""
    agent = AgentId(text_of(arguments, "agent"))
    return {"agent": agent, "destroyed": await destroy_keys(runtime.rooms, agent, called(runtime, caller))}


def _row(kept: AgentKeys) -> dict[str, JsonValue]:
    return {
        "agent": kept.agent,
        "generation": kept.generation,
        "signing_id": kept.signing_id,
        "signing": kept.signing.hex(),
        "agreement": kept.agreement.hex(),
        "created_at": kept.created_at,
        "destroyed_at": kept.destroyed_at,
    }


OPERATIONS: Final[Mapping[str, Operation]] = MappingProxyType(
    {"keys.list": listed, "keys.rotate": rotate, "keys.destroy": destroy}
)
"""Operations by name."""
