"""What people can ask about policies: put others in force. JSON in, JSON out, behind the gate."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from symbi.api.caller import Caller, Operation, principal_of
from symbi.errors import InputError
from symbi.runtime.runtime import Runtime
from symbi.types import JsonValue


async def set_policies(runtime: Runtime, caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Put the policies of some paths in force in place of the operator's, until the runtime ends."""
    return dict(await runtime.set_policies(principal_of(runtime, caller), paths_of(arguments)))


def paths_of(arguments: Mapping[str, JsonValue]) -> tuple[str, ...]:
    """The paths among the arguments of an operation.

    Raises:
        InputError: They are no list of texts, or one is none that a file can have.
    """
    value = arguments.get("paths")
    if not isinstance(value, list):
        msg = "the operation needs `paths`, a list of texts"
        raise InputError(msg, code="control.argument")
    return tuple(_path(one) for one in value)


def _path(value: JsonValue) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        msg = "each of `paths` is a text of printable characters"
        raise InputError(msg, code="control.argument")
    return value


OPERATIONS: Final[Mapping[str, Operation]] = MappingProxyType({"policy.set": set_policies})
"""Operations by name."""
