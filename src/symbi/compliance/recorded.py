"""The event that a report was made: what stands in it, and how it is found again."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from symbi.audit.event import AuditEvent, AuditEventType, Draft
from symbi.compliance.evaluate import Status
from symbi.compliance.render import Format
from symbi.compliance.report import content_hash
from symbi.errors import InputError
from symbi.types import AgentId, JsonValue

OPERATION: Final = "compliance.record"
"""The operation that puts it on the trail; policies permit it as `Resource::"compliance.record"`."""

_HASH: Final = re.compile(r"[0-9a-f]{64}")
_EMPTY_OR_HASH: Final = re.compile(r"(?:[0-9a-f]{64})?")
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,39}")
_TIME: Final = re.compile(r"(?:[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{9}Z)?")
_TEXTS: Final = {
    "framework": _NAME,
    "framework_sha256": _HASH,
    "format": re.compile("|".join(Format)),
    "sha256": _HASH,
    "report_sha256": _HASH,
    "from": _TIME,
    "to": _TIME,
    "chain_hash": _EMPTY_OR_HASH,
}
_COUNTS: Final = ("size", *(status.name.lower() for status in Status))


def facts_of_report(document: Mapping[str, Any], form: Format, data: bytes) -> dict[str, JsonValue]:
    """What the trail is told of a report.

    Args:
        document: The report.
        form: The format it was written in.
        data: The file.
    """
    return {
        "framework": document["framework"]["id"],
        "framework_sha256": document["framework"]["sha256"],
        "format": form.value,
        "sha256": hashlib.sha256(data).hexdigest(),
        "report_sha256": content_hash(document),
        "from": document["period"]["from"],
        "to": document["period"]["to"],
        "chain_hash": document["trail"].get("chain_hash", ""),
        "size": document["trail"]["events"],
        **{status.name.lower(): document["summary"][status.value] for status in Status},
    }


def reported(facts: Mapping[str, JsonValue], agent: AgentId, person: str) -> Draft:
    """The event of a report, from what somebody says of it.

    Args:
        facts: As `facts_of_report` gives them.
        agent: On whose behalf.
        person: The registered person who had it made; empty where there is none.

    Raises:
        InputError: A fact is missing, unknown or not of its form.
    """
    if set(facts) != {*_TEXTS, *_COUNTS}:
        msg = "a report is recorded with " + ", ".join(f"`{name}`" for name in (*_TEXTS, *_COUNTS))
        raise InputError(msg, code="control.argument")
    for name, form in _TEXTS.items():
        value = facts[name]
        if not isinstance(value, str) or form.fullmatch(value) is None:
            _refuse(name)
    for name in _COUNTS:
        value = facts[name]
        if type(value) is not int or not 0 <= value < 2**53:
            _refuse(name)
    return Draft(AuditEventType.COMPLIANCE_REPORTED, agent, {**facts, "person": person})


def _refuse(name: str) -> None:
    msg = f"`{name}` of a report is not of its form"
    raise InputError(msg, code="control.argument")


def find_report(events: Iterable[AuditEvent], digest: str) -> AuditEvent | None:
    """The first event that tells of a file with this SHA-256 (hex), or None."""
    for event in events:
        if event.event_type is AuditEventType.COMPLIANCE_REPORTED and event.details.get("sha256") == digest:
            return event
    return None
