"""Who asks something of a running owner, and how what is asked passes the gate."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from symbi.api.arguments import known_of, unknown_argument
from symbi.errors import InputError, did_you_mean
from symbi.guard.actions.people import ControlRuntime
from symbi.policy.obligations import REDACTED
from symbi.runtime.runtime import Runtime
from symbi.types import OPERATOR_AGENT, JsonValue, Label, Principal

MAX_ID_CHARS: Final = 64  # of the id of an approval that is not there


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


async def _recorded(
    runtime: Runtime, arguments: Mapping[str, JsonValue]
) -> tuple[tuple[str, ...], Mapping[str, JsonValue]]:
    """Whom arguments are about that name an approval, for what is said to it may be about them too; and what the trail shows.

    Where nobody can say whom it is about, what is said to it is not shown.
    """
    if "id" not in arguments:
        return (), arguments
    approval_id, hidden = arguments["id"], dict[str, JsonValue](dict.fromkeys(arguments, REDACTED))
    if not isinstance(approval_id, str):  # which names none: the operation itself says so
        return (), hidden
    try:
        record = await runtime.desk.find(approval_id)
        if not record.lost:
            return record.about(), arguments
    except InputError:  # there is none, or it was altered: likewise
        pass
    return (), hidden | {"id": approval_id[:MAX_ID_CHARS]}


async def operate(
    runtime: Runtime,
    operations: Mapping[str, Operation],
    caller: Caller,
    name: str,
    arguments: Mapping[str, JsonValue],
) -> JsonValue:
    """Carry out an operation for somebody, through the gate.

    Raises:
        InputError: There is no such operation, it does not take one of its arguments, or they are wrong.
        Denied: Policy does not let this caller ask for it.
        StoreUnavailable: Decision or outcome cannot be recorded.
    """
    operation = operations.get(name)
    if operation is None:
        msg = f"there is no operation `{name[:64]}`"
        raise InputError(msg, code="control.operation", hint=did_you_mean(name, operations) or None)
    refusal = unknown_argument(name, arguments)
    arguments = known_of(name, arguments)
    person = runtime.desk.people.of_uid(caller.uid)
    about, recorded = await _recorded(runtime, arguments)
    action = ControlRuntime(
        principal=principal_of(runtime, caller),
        operation=name,
        uid=caller.uid,
        person=person.name if person else "",
        folder_owner=caller.folder_owner,
        label=Label(subjects=about),
        values=operation.shown(runtime, arguments) if isinstance(operation, Discreet) else recorded,
    )
    try:
        async with runtime.guard.enforce(action) as permit:  # who may not ask is not told what there is to be asked
            _end(refusal)
            runtime.guard.authority.redeem(permit, ControlRuntime)
            return await operation(runtime, caller, arguments)
    except InputError:
        if refusal is not None:
            raise refusal from None
        raise


def _end(refusal: InputError | None) -> None:
    if refusal is not None:  # the trail names it not: a name may say anything
        raise InputError("an argument is not known to the operation", code="control.argument")
