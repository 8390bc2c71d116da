"""Asking something of the owner of the data folder: of the one that is alive, or, where there is none, in its place."""

import os
from collections.abc import Mapping
from functools import partial
from typing import Final

from symbi.api.client import ask_owner, connect_owner
from symbi.api.control import OPERATIONS, Caller, operate
from symbi.cli.run import run_to_end
from symbi.config import Settings
from symbi.errors import PolicyDenied
from symbi.types import JsonValue
from symbi.wiring import folder_owner, open_runtime

PERMITTED_BY: Final = (
    "no policy speaks of it: `base.control` in the `policies/base.cedar` that `symbi init` writes permits it, where symbi.toml "
    'has `[policy]` with `paths = ["policies"]`'
)
"""What to do where nothing permits a command, as in a folder that has no policies."""


def ask_or_own(settings: Settings, operation: str, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Have an operation carried out, through the gate either way.

    Raises:
        SymbiError: What the owner said, or what stops us from being the owner.
    """
    try:
        connection = connect_owner(settings.runtime.data_dir)
        if connection is not None:
            return ask_owner(connection, operation, arguments)
        return run_to_end(partial(own, settings, operation, arguments), settings)
    except PolicyDenied as denied:
        if denied.hint is None and not denied.fields.get("policies"):
            denied.hint = PERMITTED_BY
        raise


async def own(settings: Settings, operation: str, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Carry an operation out as the owner of the data folder.

    Raises:
        SymbiError: The folder has an owner, the runtime does not start, or what the operation says.
    """
    async with open_runtime(settings) as runtime:
        caller = Caller(os.geteuid(), folder_owner=os.geteuid() == folder_owner(settings))
        return await operate(runtime, OPERATIONS, caller, operation, arguments)
