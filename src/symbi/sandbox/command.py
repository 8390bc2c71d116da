"""What every driver asks of a program before it runs it, whatever it runs in. Pure."""

from collections.abc import Collection
from typing import Final

from symbi.errors import InputError, PermitRefused, SandboxUnavailable, ScriptFailed
from symbi.guard.action import RunContainer
from symbi.sandbox.files import check_names
from symbi.sandbox.request import check_limits
from symbi.types import SecurityTier

MAX_WORDS: Final = 256  # of a command
MAX_COMMAND_BYTES: Final = 65_536  # of all of them
MAX_VARIABLES: Final = 64
MAX_VARIABLE_BYTES: Final = 16_384  # of all names and values


def check_command(
    action: RunContainer, tier: SecurityTier, images: Collection[str], variables: Collection[str]
) -> None:
    """Refuse what was not decided on, what the configuration does not name, and what cannot be run.

    Args:
        action: What is asked for.
        tier: The driver's.
        images: Those that the configuration names.
        variables: Names of the environment that it lets a call set.

    Raises:
        PermitRefused: The permit is for another tier.
        SandboxUnavailable: The configuration does not name the image (`unavailable.image`).
        ScriptFailed: It does not name a variable.
        InputError: Words, names or limits are out of bounds.
    """
    if action.tier is not tier:
        msg = f"permit is for tier `{action.tier}`, and this is `{tier}`"
        raise PermitRefused(msg, code="permit.tier")
    if action.image not in images:
        msg = f"the configuration does not name the image `{action.image}`"
        hint = "put it, exactly so, into `sandbox.images`"
        raise SandboxUnavailable(msg, code="unavailable.image", hint=hint)
    for name in action.env:
        if name not in variables:
            msg = f"the configuration lets no call set the variable `{name}`"
            raise ScriptFailed(msg, code="script.sandbox", hint="name it in `sandbox.env`")
    words = [*action.command, *action.env.values()]
    if not action.command or not action.command[0] or any("\0" in word for word in words):
        msg = "a command is a program and its arguments, without null characters"
        raise InputError(msg, code="sandbox.command")
    if len(action.command) > MAX_WORDS or _size(action.command) > MAX_COMMAND_BYTES:
        msg = f"a command has at most {MAX_WORDS} words and {MAX_COMMAND_BYTES} bytes"
        raise InputError(msg, code="sandbox.command", hint="give data as inputs")
    if len(action.env) > MAX_VARIABLES or _size([*action.env, *action.env.values()]) > MAX_VARIABLE_BYTES:
        msg = f"an environment has at most {MAX_VARIABLES} variables and {MAX_VARIABLE_BYTES} bytes"
        raise InputError(msg, code="sandbox.command", hint="give data as inputs")
    check_names(action.inputs, "inputs")
    check_names(action.outputs, "outputs")
    check_limits(action)
    if action.network_mibitps < 0:
        msg = f"a limit of `{action.network_mibitps}` Mibit/s of a network is not within 0 and more"
        raise InputError(msg, code="sandbox.limits")


def _size(words: Collection[str]) -> int:
    return sum(len(word.encode("utf-8", "surrogatepass")) for word in words)
