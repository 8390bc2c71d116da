"""Who may come in by HTTP, as people say: JSON in, JSON out, behind the gate, so that the trail says who let whom in and out."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from symbi.api.approvals import text_of
from symbi.api.caller import Caller, Operation
from symbi.api.mcp.tokens import ClientBook
from symbi.errors import InputError
from symbi.runtime.runtime import Runtime
from symbi.types import JsonValue


async def add(runtime: Runtime, _caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Let a client in by a token of which the digest is given; the token itself stays with whoever made it."""
    name = text_of(arguments, "client")
    _book(runtime).put(name, text_of(arguments, "digest"), runtime.rooms.world.clock.now_ns())
    return {"client": name}


async def revoke(runtime: Runtime, _caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Let a client in no more."""
    name = text_of(arguments, "client")
    _book(runtime).revoke(name)
    return {"client": name, "revoked": True}


def _book(runtime: Runtime) -> ClientBook:
    if runtime.data_folder is None:
        msg = "clients by HTTP are kept in a data folder, and `security.audit_enabled` is false"
        raise InputError(msg, code="input.client")
    return ClientBook(Path(runtime.data_folder))


OPERATIONS: Final[Mapping[str, Operation]] = MappingProxyType({"clients.add": add, "clients.revoke": revoke})
"""Operations by name."""
