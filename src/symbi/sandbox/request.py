"""What every driver asks of a piece of code before it runs it, whatever it runs in."""

import hashlib
import keyword
from collections.abc import Mapping
from math import isfinite
from typing import Final

from symbi.errors import InputError, PermitRefused
from symbi.guard.action import ExecuteCode, RunContainer
from symbi.sandbox.values import JsonBounds, copy_json
from symbi.types import JsonValue, SecurityTier

CODE_FILE: Final = "<code>"  # the file in places of errors in the code
MAX_CODE_BYTES: Final = 1_048_576  # bounds what a worker has to parse
MAX_STDOUT_BYTES: Final = 65_536  # bounds what code can push into a log
MAX_TIMEOUT_S: Final = 3_600.0  # the longest limit that one run may ask for
MAX_MEMORY_MIB: Final = 4_096  # the largest
INPUT_BOUNDS: Final = JsonBounds(max_bytes=33_554_432, max_items=250_000, max_depth=100)  # of all inputs together
VALUE_BOUNDS: Final = JsonBounds(max_bytes=1_048_576, max_items=100_000, max_depth=100)  # of what a run returns


def check_request(action: ExecuteCode, tier: SecurityTier) -> None:
    """Refuse what was not decided on, and what cannot be run.

    Raises:
        PermitRefused: The permit is for another tier, or for other code than its digest says.
        InputError: Code or limits are out of bounds.
    """
    if action.tier is not tier:
        msg = f"permit is for tier `{action.tier}`, and this is `{tier}`"
        raise PermitRefused(msg, code="permit.tier")
    code = action.code.encode("utf-8", "surrogatepass")
    if hashlib.sha256(code).hexdigest() != action.code_digest:
        msg = "the code is not the code that the permit's digest names"
        raise PermitRefused(msg, code="permit.code")
    if len(code) > MAX_CODE_BYTES:
        msg = f"the code is larger than {MAX_CODE_BYTES} bytes"
        raise InputError(msg, code="sandbox.code", hint="give data as inputs")
    check_limits(action)


def check_limits(action: ExecuteCode | RunContainer) -> None:
    """Refuse limits that no sandbox has.

    Raises:
        InputError: `sandbox.limits`.
    """
    if not (isfinite(action.timeout_s) and 0 < action.timeout_s <= MAX_TIMEOUT_S):
        msg = f"a time limit of `{action.timeout_s}` s is not within 0 to {MAX_TIMEOUT_S:g} s"
        raise InputError(msg, code="sandbox.limits")
    if action.cpu_milli < 1:
        msg = f"a limit of `{action.cpu_milli}` thousandths of a core is not within 1 and more"
        raise InputError(msg, code="sandbox.limits")
    if not 1 <= action.memory_mib <= MAX_MEMORY_MIB:
        msg = f"a memory limit of `{action.memory_mib}` MiB is not within 1 to {MAX_MEMORY_MIB} MiB"
        raise InputError(msg, code="sandbox.limits")


def plain_inputs(given: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Plain copies of the inputs, with names that code can use.

    Raises:
        InputError: A name is no identifier, or a value is not JSON or too large.
    """
    for name in given:
        if not name.isidentifier() or keyword.iskeyword(name):
            msg = f"`{name}` is no name that code could use for an input"
            raise InputError(msg, code="sandbox.inputs", hint="use letters, digits and `_`, and no keyword")
    copied = copy_json(given, INPUT_BOUNDS, wrong=InputError, large=InputError)
    assert isinstance(copied, dict)
    return copied
