"""What people can ask about held actions: list, show, approve, deny. Each is JSON in, JSON out, behind the gate."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from symbi.api.caller import Caller, Operation
from symbi.errors import InputError
from symbi.guard.approval import OPEN, ApprovalRecord, ApprovalState, fault_of, hidden
from symbi.guard.desk import Ballot
from symbi.guard.people import People
from symbi.runtime.runtime import Runtime
from symbi.types import JsonValue


async def list_approvals(runtime: Runtime, _caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """The newest approvals: those that wait or are granted, or all of them with `all`."""
    states = tuple(ApprovalState) if arguments.get("all") is True else tuple(OPEN)
    return [row_json(record, runtime.desk.people) for record in await runtime.desk.listed(states)]


async def show_approval(runtime: Runtime, _caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """One approval, with everything that it is bound to."""
    return record_json(await runtime.desk.find(text_of(arguments, "id")), runtime.desk.people)


async def approve(runtime: Runtime, caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Vote yes."""
    return await _vote(runtime, caller, arguments, agrees=True)


async def deny(runtime: Runtime, caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Vote no."""
    return await _vote(runtime, caller, arguments, agrees=False)


async def _vote(runtime: Runtime, caller: Caller, arguments: Mapping[str, JsonValue], *, agrees: bool) -> JsonValue:
    ballot = Ballot(
        approval_id=text_of(arguments, "id"),
        digest=text_of(arguments, "digest"),
        agrees=agrees,
        reason=text_of(arguments, "reason", ""),
        uid=caller.uid,
        signature=text_of(arguments, "signature", ""),
        key_id=text_of(arguments, "key_id", ""),
    )
    if bool(ballot.signature) is not bool(ballot.key_id):
        msg = "a signed vote has `signature` and `key_id`"
        raise InputError(msg, code="approval.vote")
    return record_json(await runtime.desk.vote(ballot), runtime.desk.people)


def text_of(arguments: Mapping[str, JsonValue], name: str, default: str | None = None) -> str:
    """A text among the arguments of an operation.

    Raises:
        InputError: It is missing, or no text.
    """
    value = arguments.get(name, default)
    if not isinstance(value, str):
        msg = f"the operation needs `{name}`, a text"
        raise InputError(msg, code="control.argument")
    return value


def row_json(record: ApprovalRecord, people: People) -> dict[str, JsonValue]:
    """An approval in a list: as `record_json`, and where it was altered its id and what is wrong, beside the others."""
    if fault := fault_of(record):
        return {"id": record.id, "state": "altered", "agent": record.agent_id, "run": record.run_id, "fault": fault}
    return record_json(record, people)


def record_json(record: ApprovalRecord, people: People) -> dict[str, JsonValue]:
    """An approval as people and programs read it.

    Raises:
        InputError: It was altered, so that nobody can say what it is about.
    """
    if fault := fault_of(record):
        msg = f"approval `{record.id}` cannot be shown: {fault}"
        raise InputError(msg, code="approval.altered")
    facts = record.read_facts()
    arguments = hidden(record)
    resource = facts["resource"]
    return {
        "id": record.id,
        "state": record.state.value,
        "agent": record.agent_id,
        "owner": facts["principal"]["owner"],
        "run": record.run_id,
        "position": record.position,
        "action": facts["action"],
        "resource": f"{resource['type']}::{resource['id']}",
        "arguments": arguments,
        "labels": facts["labels"],
        "label": facts["label"],
        "risk": {**resource["attributes"], "recovery": facts["recovery"]},
        "policies": facts["policies"],
        "policy_version": facts["policy_version"],
        "conditions": facts["conditions"],
        "asks": [
            {"text": d.text, "who": d.who, "people": d.people, "why": d.why, "able": _able(people, record, d.text)}
            for d in record.demands()
        ],
        "missing": people.unmet(record, facts["principal"]["owner"]) if record.state is ApprovalState.WAITING else [],
        "votes": [
            {"person": v.person, "vote": "approve" if v.agrees else "deny", "at": v.at, "reason": v.reason,
             "by": "key" if v.signature else "user"}
            for v in record.votes
        ],
        "created_at": record.created_at,
        "expires_at": record.expires_at,
        "digest": record.digest,
        "facts": facts,
    }  # fmt: skip


def _able(people: People, record: ApprovalRecord, text: str) -> list[JsonValue]:
    owner = record.read_facts()["principal"]["owner"]
    demand = next(one for one in record.demands() if one.text == text)
    return [person.name for person in people.able(demand, owner)]


OPERATIONS: Final[Mapping[str, Operation]] = MappingProxyType(
    {
        "approvals.list": list_approvals,
        "approvals.show": show_approval,
        "approvals.approve": approve,
        "approvals.deny": deny,
    }
)
"""Operations by name."""
