"""What people can ask about compliance: put on the trail that a report was made. JSON in, JSON out, behind the gate."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from symbi.api.caller import Caller, Operation, principal_of
from symbi.compliance.recorded import OPERATION, reported
from symbi.runtime.runtime import Runtime
from symbi.types import JsonValue


async def record_report(runtime: Runtime, caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Put the hash of a report on the trail; answers where it stands."""
    person = runtime.desk.people.of_uid(caller.uid)
    draft = reported(arguments, principal_of(runtime, caller).agent, person.name if person else "")
    receipt = await runtime.record(draft)
    return {"sequence": receipt.sequence, "event_id": receipt.event_id, "chain_hash": receipt.chain_hash}


OPERATIONS: Final[Mapping[str, Operation]] = MappingProxyType({OPERATION: record_report})
"""Operations by name."""
