"""What people can ask about the bus: how it stands, and what passed last. Ids, names, counts; no payload is there to show."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from symbi.api.caller import Caller, Operation
from symbi.errors import InputError
from symbi.runtime.runtime import Runtime
from symbi.types import JsonValue

MAX_TAIL: Final = 1000


async def show_stats(runtime: Runtime, _caller: Caller, _arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Messages by topic and mailbox, buffers, leases, dead letters."""
    dead = await runtime.bus.dead()
    return {**runtime.bus.stats(), "dead_letters": len(dead)}


async def show_tail(runtime: Runtime, _caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """What passed after a number, oldest first.

    Raises:
        InputError: A number is none, or out of range.
    """
    after, limit = _number(arguments, "after", 0, 2**63), _number(arguments, "limit", MAX_TAIL, MAX_TAIL)
    return [one.facts() for one in runtime.bus.tail(after, limit)]


def _number(arguments: Mapping[str, JsonValue], name: str, default: int, most: int) -> int:
    value = arguments.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        msg = f"`{name}` is a number from 0 to {most}"
        raise InputError(msg, code="control.argument")
    return value


OPERATIONS: Final[Mapping[str, Operation]] = MappingProxyType({"bus.stats": show_stats, "bus.tail": show_tail})
"""Operations by name."""
