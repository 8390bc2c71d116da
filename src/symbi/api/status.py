"""What people can ask about the whole: how the runtime stands, and who has used what. JSON in, JSON out, behind the gate."""

import heapq
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from symbi.api.caller import Caller, Operation
from symbi.errors import InputError, did_you_mean
from symbi.runtime.runtime import Runtime
from symbi.types import JsonValue

ORDERS: Final = ("cpu_ms", "wall_ms", "effects", "calls", "tokens", "bytes_in", "bytes_out", "runs")
WHOSE: Final = ("agent", "declared", "owner")
MAX_LISTED: Final = 10_000


async def show_status(runtime: Runtime, _caller: Caller, _arguments: Mapping[str, JsonValue]) -> JsonValue:
    """How the runtime stands."""
    status = await runtime.get_system_status()
    standing = status.standing
    assert standing is not None, "a runtime tells more than its scheduler"
    return {
        "running": status.running,
        "max_running": status.max_running,
        "queued": {priority.value: count for priority, count in status.queued.items()},
        "free": status.free.facts(),
        "capacity": status.capacity.facts(),
        **standing.facts(),
    }


async def show_usage(runtime: Runtime, _caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Who has used most since the start.

    Raises:
        InputError: `by` or `order` is none of those that there are, or the limit is out of range.
    """
    by, order = _one_of(arguments, "by", WHOSE), _one_of(arguments, "order", ORDERS)
    limit = arguments.get("limit", 20)
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_LISTED:
        msg = f"`limit` is a number from 1 to {MAX_LISTED}"
        raise InputError(msg, code="control.argument")
    rows = ((name, used.facts()) for name, used in runtime.measuring.book.by(by).items())
    found = heapq.nlargest(limit, rows, key=lambda row: (row[1][order], row[0]))
    return [{by: name, **facts} for name, facts in found]


def _one_of(arguments: Mapping[str, JsonValue], name: str, words: tuple[str, ...]) -> str:
    value = arguments.get(name, words[0])
    if value not in words:
        msg = f"`{name}` cannot be `{str(value)[:40]}`"
        raise InputError(msg, code="control.argument", hint=did_you_mean(str(value), words) or ", ".join(words))
    return str(value)


OPERATIONS: Final[Mapping[str, Operation]] = MappingProxyType(
    {"system.status": show_status, "agents.usage": show_usage}
)
"""Operations by name."""
