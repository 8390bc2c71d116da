"""What people can ask about the journal: to let go of what ended long ago. JSON in, JSON out, behind the gate."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from symbi.api.caller import Caller, Operation
from symbi.errors import InputError
from symbi.runtime.runtime import Runtime
from symbi.types import JsonValue

MAX_DAYS: Final = 36_500


async def compact(runtime: Runtime, _caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Remove what ledger and journal keep of runs that are over and old enough.

    Raises:
        InputError: The age is none.
    """
    days = arguments.get("days")
    if days is not None and (not isinstance(days, int) or isinstance(days, bool) or not 0 <= days <= MAX_DAYS):
        msg = f"`days` is a number from 0 to {MAX_DAYS}"
        raise InputError(msg, code="control.argument")
    compactor = runtime.rooms.compactor
    assert compactor is not None
    return (await compactor.sweep(days)).facts()


OPERATIONS: Final[Mapping[str, Operation]] = MappingProxyType({"runs.compact": compact})
"""Operations by name."""
