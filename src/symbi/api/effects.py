"""What people can ask about effects: which are in doubt, and what became of one. JSON in, JSON out, behind the gate."""

import hashlib
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from symbi.api.agents import called
from symbi.api.caller import Caller, Discreet, Operation
from symbi.errors import InputError
from symbi.guard.ledger import EffectRecord
from symbi.runtime.doubt import Doubt, Word, waits_for
from symbi.runtime.population import Population
from symbi.runtime.runtime import Runtime
from symbi.types import EffectId, JsonValue

SETTLE_TIMEOUT_S: Final = 120.0


async def list_in_doubt(runtime: Runtime, _caller: Caller, _arguments: Mapping[str, JsonValue]) -> JsonValue:
    """The effects in doubt, oldest first."""
    return [effect_json(record) for record in await Doubt(runtime.rooms).listed()]


async def settle(runtime: Runtime, caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Say what became of an effect in doubt.

    Raises:
        InputError: It is not in doubt, or what is said of it cannot be taken.
    """
    happened, reason = arguments.get("happened"), arguments.get("reason", "")
    if not isinstance(happened, bool) or not isinstance(reason, str):
        msg = "the operation needs `happened`, a boolean, and takes `reason`, a text"
        raise InputError(msg, code="control.argument")
    word = Word(happened, called(runtime, caller), reason, arguments.get("result"))
    record = await Doubt(runtime.rooms).settle(_id(arguments), word)
    await Population(runtime).settled(record.agent_id, record.run_id)
    return effect_json(record)


def shown(_runtime: Runtime, arguments: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    """What the record of the operation shows; reason and result stand in the event of the effect, sealed where it is about somebody."""
    result = json.dumps(arguments.get("result")).encode()
    said: dict[str, JsonValue] = {"id": _id(arguments)[:64], "happened": arguments.get("happened") is True}
    return said | {"result_digest": hashlib.sha256(result).hexdigest()} if len(result) > len(b"null") else said


def _id(arguments: Mapping[str, JsonValue]) -> EffectId:
    value = arguments.get("id")
    if not isinstance(value, str) or not value:
        msg = "the operation needs `id`, a text"
        raise InputError(msg, code="control.argument")
    return EffectId(value)


def effect_json(record: EffectRecord) -> dict[str, JsonValue]:
    """An effect for machines: what it is and how it stands; no value of it."""
    return {
        "effect": record.effect_id,
        "run": record.run_id,
        "position": record.position,
        "agent": record.agent_id,
        "action": record.action,
        "resource": record.resource,
        "recovery": record.recovery.value,
        "attempt": record.attempt,
        "state": record.state.value,
        "waits_for": waits_for(record),
    }


OPERATIONS: Final[Mapping[str, Operation]] = MappingProxyType(
    {
        "effects.list": list_in_doubt,
        "effects.settle": Discreet(settle, shown, SETTLE_TIMEOUT_S),
    }
)
"""Operations by name."""
