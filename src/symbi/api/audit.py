"""What people can ask about the trail: have another key sign it. JSON in, JSON out, behind the gate."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from symbi.api.caller import Caller, Operation
from symbi.runtime.runtime import Runtime
from symbi.types import JsonValue


async def rotate_key(runtime: Runtime, _caller: Caller, _arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Hand the trail over to its next signing key."""
    return dict(await runtime.rotate_key())


OPERATIONS: Final[Mapping[str, Operation]] = MappingProxyType({"audit.rotate-key": rotate_key})
"""Operations by name."""
