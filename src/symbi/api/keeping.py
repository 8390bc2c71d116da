"""What people can ask about the keeping of the trail: anchor the head, keep what a witness signed. Behind the gate."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from symbi.api.approvals import text_of
from symbi.api.caller import Caller, Operation
from symbi.audit.checkpoint import parse_note
from symbi.errors import ChainBroken, InputError
from symbi.runtime.runtime import Runtime
from symbi.types import JsonValue


async def anchor(runtime: Runtime, _caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Have the head stamped by the configured authority, or by another one."""
    url, certificate = text_of(arguments, "tsa", ""), text_of(arguments, "certificate", "")
    return await runtime.rooms.heads.anchor(url, Path(certificate) if certificate else None)


async def witnessed(runtime: Runtime, _caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Keep what a witness signed under a checkpoint of this trail."""
    try:
        note = parse_note(text_of(arguments, "note").encode())
    except (ChainBroken, UnicodeEncodeError) as error:
        msg = f"`note` is no checkpoint: {error}"
        raise InputError(msg, code="control.argument") from error
    return await runtime.rooms.heads.witnessed(note, text_of(arguments, "witness"))


OPERATIONS: Final[Mapping[str, Operation]] = MappingProxyType({"audit.anchor": anchor, "audit.witnessed": witnessed})
"""Operations by name."""
