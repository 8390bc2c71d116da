"""Who asks something of a running owner, and how what is asked passes the gate."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from symbi.errors import InputError, did_you_mean
from symbi.guard.actions.people import ControlRuntime
from symbi.runtime.runtime import Runtime
from symbi.types import OPERATOR_AGENT, JsonValue, Label, Principal


@dataclass(frozen=True, slots=True)
class Caller:
    """An operating-system user, as the system says.

    Attributes:
        uid: Its number.
        folder_owner: It owns the data folder.
    """

    uid: int
    folder_owner: bool


@dataclass(frozen=True, slots=True)
class Discreet:
    """An operation of whose arguments the trail shows something else than what was sent.

    Attributes:
        work: The operation.
        shown: What the record of it shows: ids, pseudonyms and counts. May raise `SymbiError`: then nothing happens.
        timeout_s: How long it may take at the control socket.
    """

    work: Callable[[Runtime, Caller, Mapping[str, JsonValue]], Awaitable[JsonValue]]
    shown: Callable[[Runtime, Mapping[str, JsonValue]], Mapping[str, JsonValue]]
    timeout_s: float

    async def __call__(self, runtime: Runtime, caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
        """Carry it out."""
        return await self.work(runtime, caller, arguments)


Operation: TypeAlias = Callable[[Runtime, Caller, Mapping[str, JsonValue]], Awaitable[JsonValue]]
"""Something that can be asked: runtime, who asks, arguments; answers JSON, or raises `SymbiError`."""


def principal_of(runtime: Runtime, caller: Caller) -> Principal:
    """A caller as policies see it: the operator, with the owner and groups of the registered person, if it is one."""
    person = runtime.desk.people.of_uid(caller.uid)
    return Principal(OPERATOR_AGENT, person.name if person else "unknown", person.groups if person else ())


async def _about(runtime: Runtime, arguments: Mapping[str, JsonValue]) -> tuple[str, ...]:
    """The people whom an approval is about that arguments name: what is said to it may be about them too."""
    approval_id = arguments.get("id")
    if not isinstance(approval_id, str):
        return ()
    try:
        return (await runtime.desk.find(approval_id)).about()
    except InputError:  # there is none, or it was altered: the operation itself says so
        return ()


async def operate(
    runtime: Runtime,
    operations: Mapping[str, Operation],
    caller: Caller,
    name: str,
    arguments: Mapping[str, JsonValue],
) -> JsonValue:
    """Carry out an operation for somebody, through the gate.

    Raises:
        InputError: There is no such operation, or its arguments are wrong.
        Denied: Policy does not let this caller ask for it.
        StoreUnavailable: Decision or outcome cannot be recorded.
    """
    operation = operations.get(name)
    if operation is None:
        msg = f"there is no operation `{name[:64]}`"
        raise InputError(msg, code="control.operation", hint=did_you_mean(name, operations) or None)
    person = runtime.desk.people.of_uid(caller.uid)
    action = ControlRuntime(
        principal=principal_of(runtime, caller),
        operation=name,
        uid=caller.uid,
        person=person.name if person else "",
        folder_owner=caller.folder_owner,
        label=Label(subjects=await _about(runtime, arguments)),
        values=operation.shown(runtime, arguments) if isinstance(operation, Discreet) else arguments,
    )
    async with runtime.guard.enforce(action) as permit:
        runtime.guard.authority.redeem(permit, ControlRuntime)
        return await operation(runtime, caller, arguments)
