"""A report: a framework put to a trail, as one JSON document from which every format is rendered.

The document is made from the trail and the framework alone, so the same ones give the same report to the byte; when it
was made stands in the trail, beside its hash (`compliance.reported`).
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from symbi.audit.checkpoint import parse_note
from symbi.audit.event import AuditEvent
from symbi.compliance.evaluate import ControlResult, Status, evaluate
from symbi.compliance.evidence import Evidence
from symbi.compliance.framework import Framework
from symbi.compliance.gauges import ClaimResult, Found, Period
from symbi.crypto.merkle import EMPTY_ROOT, verify_inclusion
from symbi.crypto.signing import VerifyingKey
from symbi.errors import ChainBroken
from symbi.types import JsonValue, KeyId

FORMAT: Final = "symbi.compliance/1"
MAX_SUMMARY_CHARS: Final = 240  # of what a sample says of its event
EPOCH: Final = "1970-01-01T00:00:00.000000000Z"
FAR: Final = "9999-12-31T23:59:59.999999999Z"
SHOWN_DIGITS: Final = 12  # of a digest
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
NO_CERTIFICATE: Final = (
    "This report says what a signed audit trail shows for each control, by the tests that the framework file names. "
    "It is no certification, no legal advice, and no statement that a law or standard is complied with."
)
_SUMMARY: Final = (
    "action", "resource", "verdict", "outcome", "tool", "state", "cause", "person", "vote", "by", "framework", "version",
)  # fmt: skip
_REASONED: Final = frozenset({"decision.deny", "tool.refused", "policy.refused"})  # reasons that no person wrote


@dataclass(frozen=True, slots=True)
class Trail:
    """A trail that was verified, for a report.

    Attributes:
        evidence: Its events and proofs.
        keys: The keys that were trusted, by id.
        first_time: Timestamp of its first event; empty where there is none.
        last_time: That of its last.
    """

    evidence: Evidence
    keys: Mapping[KeyId, VerifyingKey]
    first_time: str = ""
    last_time: str = ""


def make_report(framework: Framework, trail: Trail, since: str = "", until: str = "") -> dict[str, JsonValue]:
    """Put a framework to a trail.

    Args:
        framework: What is asked.
        trail: Of which it is asked; verified before.
        since: The first moment of the period, RFC 3339 with nine decimals; empty for the beginning of the trail.
        until: The first moment after it; empty for the end of the trail, which is in it.

    Raises:
        StoreUnavailable: The trail cannot be read.
        ChainBroken: The checkpoint is malformed, or the tree beside the trail does not lead to it.
    """
    evidence = trail.evidence
    period = Period(since or trail.first_time or EPOCH, until or FAR)
    end = trail.last_time or period.since
    found = evaluate(framework, evidence.events(), period, size=evidence.size, end=end)
    note = evidence.checkpoint
    root = parse_note(note).checkpoint.root if note is not None else EMPTY_ROOT
    inclusions: dict[int, dict[str, JsonValue]] = {}

    def sample(event: AuditEvent) -> dict[str, JsonValue]:
        if event.sequence not in inclusions:
            inclusions[event.sequence] = _sample(event, evidence, root)
        return inclusions[event.sequence]

    controls = [_control(result, sample) for result in found.controls]
    return {
        "format": FORMAT,
        "statement": NO_CERTIFICATE,
        "framework": {
            "id": framework.id,
            "title": framework.title,
            "citation": framework.citation,
            "about": framework.about,
            "sha256": framework.digest,
        },
        "period": {
            "from": period.since if since or trail.first_time else "",
            "to": until or (trail.last_time if trail.last_time >= period.since else ""),
            "bounded": bool(until),
            "events": found.events,
            "first": found.first,
            "last": found.last,
        },
        "trail": trail_facts(trail),
        "summary": {status.value: sum(one.status is status for one in found.controls) for status in Status},
        "controls": controls,
    }


def trail_facts(trail: Trail) -> dict[str, JsonValue]:
    """Which trail it was, and up to where."""
    note = trail.evidence.checkpoint
    told: dict[str, JsonValue] = {
        "events": trail.evidence.size,
        "verified": note is not None,
        "from": trail.first_time,
        "to": trail.last_time,
        "keys": {key_id: key.hex for key_id, key in sorted(trail.keys.items())},
        "checkpoint": None,
    }
    if note is not None:
        checkpoint = parse_note(note).checkpoint
        told |= {
            "origin": checkpoint.origin,
            "chain_hash": checkpoint.chain_hash,
            "root": checkpoint.root.hex(),
            "checkpoint": note.decode(),
        }
    return told


def _control(result: ControlResult, sample: Callable[[AuditEvent], dict[str, JsonValue]]) -> dict[str, JsonValue]:
    control = result.control
    return {
        "id": control.id,
        "title": control.title,
        "citation": control.citation,
        "question": control.question,
        "status": result.status.value,
        "reason": result.reason,
        "evidenced": result.evidenced,
        "applies": None if result.applies is None else _claim(result.applies, sample),
        "evidence": [_claim(claim, sample) for claim in result.claims],
        "cannot_know": list(control.cannot_know),
    }


def _claim(result: ClaimResult, sample: Callable[[AuditEvent], dict[str, JsonValue]]) -> dict[str, JsonValue]:
    claim = result.claim

    def told(found: Found) -> dict[str, JsonValue]:
        return {"count": found.count, "samples": [sample(event) for event in found.samples]}

    return {
        "id": claim.id,
        "says": claim.says,
        "source": claim.source.value,
        "test": claim.looked_for(),
        "finding": result.finding.value,
        "reason": result.reason,
        "bearing": told(result.bearing),
        "against": told(result.against),
    }


def _sample(event: AuditEvent, evidence: Evidence, root: bytes) -> dict[str, JsonValue]:
    """One event: where it stands, what it says in short, and the proof that it stands there."""
    inclusion = evidence.inclusion(event.sequence)
    if not verify_inclusion(inclusion.leaf, event.sequence - 1, evidence.size, inclusion.path, root):
        msg = f"the tree beside the trail does not lead from event {event.sequence} to the checkpoint"
        raise ChainBroken(msg, sequence=event.sequence, reason="head")
    return {**facts_of(event), "leaf": inclusion.leaf.hex(), "proof": [one.hex() for one in inclusion.path]}


def facts_of(event: AuditEvent) -> dict[str, JsonValue]:
    """What a report says of an event."""
    return {
        "sequence": event.sequence,
        "event_id": event.event_id,
        "time": event.timestamp,
        "type": event.event_type.value,
        "agent": event.agent_id,
        "run": event.run_id,
        "summary": summary_of(event),
    }


def summary_of(event: AuditEvent) -> str:
    """An event in a line: what was done to what and how it ended, by names and verdicts and never by payloads."""
    details = event.details
    told = ((name, details.get(name)) for name in _SUMMARY)
    parts = [f"{name} {digest_cut(value)}" for name, value in told if isinstance(value, str) and value]
    policies = details.get("policies")
    if isinstance(policies, list):
        named = [str(one["id"]) for one in policies if isinstance(one, Mapping) and "id" in one]
        parts += [f"policies {', '.join(named)}"] if named else []
    elif type(policies) is int:
        parts.append(f"{policies} policies")
    if event.event_type in _REASONED and isinstance(details.get("reason"), str):
        parts.append(f"reason: {details['reason']}")
    if isinstance(configuration := details.get("configuration"), Mapping):
        parts.append(f"{len(configuration)} settings")
    return _short("; ".join(parts))


def digest_cut(text: str) -> str:
    """A text as it is, or of a digest enough to tell it from others."""
    return text[:SHOWN_DIGITS] if _DIGEST.fullmatch(text) else text


def _short(text: str) -> str:
    line = "".join(c if c.isprintable() else "\ufffd" for c in text)
    return line if len(line) <= MAX_SUMMARY_CHARS else line[:MAX_SUMMARY_CHARS] + "\u2026"


def render_json(document: Mapping[str, Any]) -> bytes:
    """The document as a file."""
    return json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"


def content_hash(document: Mapping[str, Any]) -> str:
    """What all formats of one report have in common: SHA-256 (hex) of the JSON file."""
    return hashlib.sha256(render_json(document)).hexdigest()


def verdict(document: Mapping[str, Any]) -> str:
    """What comes of it, in one sentence."""
    summary = document["summary"]
    total = len(document["controls"])
    if not document["period"]["events"]:
        return f"None of {total} controls is evidenced: the trail has no event of this period."
    return (
        f"{summary[Status.MET.value]} of {total} controls are met by what the trail shows, "
        f"{summary[Status.NOT_MET.value]} are not; {summary[Status.NOT_APPLICABLE.value]} do not apply, and "
        f"{summary[Status.UNKNOWN.value]} cannot be known from here."
    )


def span(document: Mapping[str, Any]) -> str:
    """The period in words."""
    since, until = document["period"]["from"], document["period"]["to"]
    if not since:
        return "all of an empty trail"
    shown = f"from {_clock(since)}"
    return f"{shown} to {_clock(until)} UTC" if until else f"{shown} UTC on"


def _clock(timestamp: str) -> str:
    return timestamp[:19].replace("T", " ")
