"""What people can ask about the data of a subject: export, erase, hold, release, list, scan. JSON in, JSON out, behind the gate.

The trail shows the pseudonym and how many values were given, never the name and the values. Errors keep to that too.
"""

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Final

from symbi.api.approvals import text_of
from symbi.api.caller import Caller, Discreet, Operation
from symbi.compliance.rooms import Order
from symbi.errors import InputError
from symbi.runtime.runtime import Runtime
from symbi.types import JsonValue

PRIVACY_TIMEOUT_S: Final = 3600.0  # an erasure reads every byte of the data folder
MAX_VALUES: Final = 1000  # given to one search


async def export(runtime: Runtime, caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Everything that can be opened about a subject."""
    return await runtime.rooms.privacy.export(_order(runtime, caller, arguments))


async def erase(runtime: Runtime, caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Destroy the keys of a subject; answers the certificate."""
    return await runtime.rooms.privacy.erase(_order(runtime, caller, arguments))


async def hold(runtime: Runtime, caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Keep the data of a subject from being erased."""
    return await runtime.rooms.privacy.hold(_order(runtime, caller, arguments))


async def release(runtime: Runtime, caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """End a hold."""
    return await runtime.rooms.privacy.release(_order(runtime, caller, arguments))


async def list_subjects(runtime: Runtime, _caller: Caller, _arguments: Mapping[str, JsonValue]) -> JsonValue:
    """The subjects, with their names while a key lives."""
    return await runtime.rooms.privacy.listed()


async def scan(runtime: Runtime, caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Search every file for a subject in plain text."""
    return await runtime.rooms.privacy.scan(_order(runtime, caller, arguments))


def shown(runtime: Runtime, arguments: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    """What the trail shows of an operation.

    Raises:
        InputError: The arguments are wrong; the error quotes none of them.
        ConfigError: There is no master key, so that nobody can be found.
    """
    if "subject" not in arguments:
        return {}
    order = _order(runtime, None, arguments)
    return {
        "pseudonym": runtime.rooms.privacy.pseudonym(order.subject), "values": len(order.values), "reason": order.reason,
        "include_open": order.include_open,
    }  # fmt: skip


def _order(runtime: Runtime, caller: Caller | None, arguments: Mapping[str, JsonValue]) -> Order:
    values = arguments.get("values", [])
    if (
        not isinstance(values, list)
        or len(values) > MAX_VALUES
        or not all(isinstance(one, str) and one for one in values)
    ):
        msg = f"`values` is a list of at most {MAX_VALUES} texts"
        raise InputError(msg, code="control.argument")
    by: dict[str, JsonValue] = {}
    if caller is not None:
        person = runtime.desk.people.of_uid(caller.uid)
        by = {"uid": caller.uid, "person": person.name if person else ""}
    return Order(
        subject=text_of(arguments, "subject"),
        reason=text_of(arguments, "reason", ""),
        by=by,
        values=tuple(str(one) for one in values),
        include_open=arguments.get("include_open") is True,
    )


def _discreet(work: Callable[[Runtime, Caller, Mapping[str, JsonValue]], Awaitable[JsonValue]]) -> Discreet:
    return Discreet(work, shown, PRIVACY_TIMEOUT_S)


OPERATIONS: Final[Mapping[str, Operation]] = MappingProxyType(
    {
        "privacy.export": _discreet(export),
        "privacy.erase": _discreet(erase),
        "privacy.hold": _discreet(hold),
        "privacy.release": _discreet(release),
        "privacy.list": _discreet(list_subjects),
        "privacy.scan": _discreet(scan),
    }
)
"""Operations by name."""
