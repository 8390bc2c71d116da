"""Asking something of the owner of the data folder: of the one that is alive, or, where there is none, in its place."""

import os
from collections.abc import Mapping
from functools import partial

from symbi.api.client import ask_owner, connect_owner
from symbi.api.control import OPERATIONS, Caller, operate
from symbi.cli.run import run_to_end
from symbi.config import Settings
from symbi.types import JsonValue
from symbi.wiring import folder_owner, open_runtime


def ask_or_own(settings: Settings, operation: str, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Have an operation carried out, through the gate either way.

    Raises:
        SymbiError: What the owner said, or what stops us from being the owner.
    """
    connection = connect_owner(settings.runtime.data_dir)
    if connection is not None:
        return ask_owner(connection, operation, arguments)
    return run_to_end(partial(own, settings, operation, arguments), settings)


async def own(settings: Settings, operation: str, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Carry an operation out as the owner of the data folder.

    Raises:
        SymbiError: The folder has an owner, the runtime does not start, or what the operation says.
    """
    async with open_runtime(settings) as runtime:
        caller = Caller(os.geteuid(), folder_owner=os.geteuid() == folder_owner(settings))
        return await operate(runtime, OPERATIONS, caller, operation, arguments)
