"""The event that a report was made: what stands in it, and how it is found again."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
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
    "report_sha256": _HASH,
    "from": _TIME,
    "to": _TIME,
    "chain_hash": _EMPTY_OR_HASH,
}
MAX_FILES: Final = 8  # that one report is written to
_COUNTS: Final = ("size", *(status.name.lower() for status in Status))
FACTS: Final = frozenset({*_TEXTS, *_COUNTS, "files"})
"""What is said of a report: all of it, and nothing else."""


def facts_of_report(document: Mapping[str, Any], files: Sequence[tuple[Format, bytes]]) -> dict[str, JsonValue]:
    """What the trail is told of a report.

    Args:
        document: The report.
        files: Each file that it is written to, and its format.
    """
    return {
        "framework": document["framework"]["id"],
        "framework_sha256": document["framework"]["sha256"],
        "files": [{"format": form.value, "sha256": hashlib.sha256(data).hexdigest()} for form, data in files],
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
    if set(facts) != FACTS:
        msg = "a report is recorded with " + ", ".join(f"`{name}`" for name in ("files", *_TEXTS, *_COUNTS))
        raise InputError(msg, code="control.argument")
    for name, form in _TEXTS.items():
        value = facts[name]
        if not isinstance(value, str) or form.fullmatch(value) is None:
            _refuse(name)
    for name in _COUNTS:
        value = facts[name]
        if type(value) is not int or not 0 <= value < 2**53:
            _refuse(name)
    files = facts["files"]
    if not isinstance(files, list) or not 0 < len(files) <= MAX_FILES or not all(_is_file(one) for one in files):
        _refuse("files")
    return Draft(AuditEventType.COMPLIANCE_REPORTED, agent, {**facts, "person": person})


def _refuse(name: str) -> None:
    msg = f"`{name}` of a report is not of its form"
    raise InputError(msg, code="control.argument")


def _is_file(value: JsonValue) -> bool:
    if not isinstance(value, Mapping) or set(value) != {"format", "sha256"} or value["format"] not in list(Format):
        return False
    digest = value["sha256"]
    return isinstance(digest, str) and _HASH.fullmatch(digest) is not None


def find_report(events: Iterable[AuditEvent], digest: str) -> tuple[AuditEvent, str] | None:
    """The first event that tells of a file with this SHA-256 (hex), and the file's format; or None."""
    for event in events:
        if event.event_type is not AuditEventType.COMPLIANCE_REPORTED:
            continue
        files = event.details.get("files")
        for one in files if isinstance(files, list) else ():
            if isinstance(one, Mapping) and one.get("sha256") == digest:
                return event, str(one.get("format"))
    return None
