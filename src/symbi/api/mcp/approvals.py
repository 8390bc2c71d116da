"""People who are asked about what a client wants: at the client, where the operator says so, and else in the queue.

A vote at the client counts as the vote of the operating-system user on whose standard streams it was given: that user
could as well have run `symbi approvals approve`. So it holds only where the registered person has that user, and every
rule of the desk holds as well: the person is among those who are asked, does not own what asks, saw these very facts.
"""

import json
from collections.abc import Mapping
from typing import Any, Final, Protocol

from symbi.api.mcp.gateway import GatewaySession
from symbi.errors import ApprovalPending, InputError, PolicyDenied, SymbiError
from symbi.guard.approval import ApprovalRecord, fault_of, hidden
from symbi.guard.desk import Ballot
from symbi.tools.text import cut, printable
from symbi.types import JsonValue

MAX_SHOWN_CHARS: Final = 4000  # of arguments that a person reads at a client; of larger ones a person decides elsewhere
REASON: Final = "at the client"
VOTE_FIELD: Final = "approve"


class Asks(Protocol):
    """What can ask a client."""

    async def ask(self, kind: str, question: Mapping[str, JsonValue]) -> Mapping[str, Any]:
        """See `symbi.api.mcp.calls.Exchange`."""


async def ask_people(session: GatewaySession, pending: ApprovalPending, exchange: Asks) -> None:
    """Return once the same may be brought to the gate again.

    Raises:
        ApprovalPending: Nobody has agreed in the time that there is.
        StoreUnavailable: The books cannot be read.
    """
    desk = session.runtime.desk
    record = await desk.find(str(pending.fields["approval"]))
    if session.person_uid is not None and await _asked_here(session, record, exchange):
        return
    await desk.wait(pending, session.gateway.terms.wait_s)


async def _asked_here(session: GatewaySession, record: ApprovalRecord, exchange: Asks) -> bool:
    """Ask the person at the client; whether a vote came of it."""
    desk = session.runtime.desk
    person = desk.people.named(session.client.approves_as)
    if person is None or person.uid is None or person.uid != session.person_uid or fault_of(record):
        return False
    owner = session.principal.owner
    if not any(person in desk.people.able(demand, owner) for demand in record.demands()):
        return False
    arguments = json.dumps(hidden(record), ensure_ascii=False, indent=1)
    if len(arguments) > MAX_SHOWN_CHARS:
        return False
    try:
        answer = await exchange.ask("elicitation", _form(record, arguments))
    except SymbiError:
        return False  # it cannot ask its person: the queue can
    content = answer.get("content")
    voted = (
        answer.get("action") == "accept" and isinstance(content, Mapping) and isinstance(content.get(VOTE_FIELD), bool)
    )
    if not voted and answer.get("action") != "decline":
        return False
    agrees = bool(voted and isinstance(content, Mapping) and content[VOTE_FIELD])
    try:
        await desk.vote(Ballot(record.id, record.digest, agrees, REASON, uid=session.person_uid))
    except (InputError, PolicyDenied):  # somebody else was faster, or this person may not: the desk has it on record
        return False
    return True


def _form(record: ApprovalRecord, arguments: str) -> dict[str, JsonValue]:
    facts = record.read_facts()
    asks = printable("; ".join(demand.why or demand.text for demand in record.demands()))
    label, resource = facts["label"], facts["resource"]
    wanted = printable(f"{facts['action']} on {resource['type']}::{resource['id']}")
    message = (
        f"Symbi asks you to decide. `{facts['principal']['agent']}` wants: {cut(wanted, MAX_SHOWN_CHARS)}\n"
        f"with the arguments:\n{printable_lines(arguments)}\n"
        f"What went into them is {label['integrity']} and {label['confidentiality']}. Asked because: {asks}\n"
        f"Approval {record.id}, digest {record.digest[:16]}."
    )
    return {
        "mode": "form",
        "message": message,
        "requestedSchema": {
            "type": "object",
            "properties": {
                VOTE_FIELD: {
                    "type": "boolean",
                    "title": "Approve this call",
                    "description": "yes lets exactly this call happen, once",
                }
            },
            "required": [VOTE_FIELD],
        },
    }


def printable_lines(text: str) -> str:
    """A text of several lines that cannot steer a terminal."""
    return "\n".join(cut(printable(line), MAX_SHOWN_CHARS) for line in text.split("\n"))
