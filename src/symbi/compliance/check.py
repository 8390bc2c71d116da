"""Checks a report that somebody hands in, against a trail that was verified.

1. its SHA-256 stands in the trail, in the event that tells of it;
2. the file is the JSON of a report, to the byte as it was written;
3. its checkpoint is signed by a trusted key, says what the report says of the trail, and the trail continues it;
4. each event that it shows stands at its place in the tree of the checkpoint, by its inclusion proof;
5. and says what the report says of it, read from the trail anew;
6. made again from the trail as it stood, it says the same; where the framework is at hand.

A file in another format is checked by its hash alone.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Never

from symbi.audit.checkpoint import Checkpoint, parse_note, verify_note
from symbi.audit.event import AuditEvent
from symbi.compliance.framework import Framework
from symbi.compliance.recorded import facts_of_report, find_report
from symbi.compliance.render import Format
from symbi.compliance.report import FORMAT, Trail, facts_of, make_report, render_json, trail_facts
from symbi.crypto.merkle import root_of, verify_inclusion
from symbi.crypto.signing import VerifyingKey
from symbi.errors import ChainBroken, InputError, VerificationError
from symbi.types import KeyId

CODE: Final = "verify.report"


@dataclass(frozen=True, slots=True)
class CheckedReport:
    """What was checked.

    Attributes:
        recorded: The event that tells of the report.
        form: The format that the event says the file has.
        document: The report; None where the file is not JSON, so that only its hash was checked.
        proofs: How many events of it were proved.
        made_again: It was made again, and came out the same.
    """

    recorded: AuditEvent
    form: str
    document: Mapping[str, Any] | None
    proofs: int
    made_again: bool


def check_report(data: bytes, trail: Trail, frameworks: Iterable[Framework]) -> CheckedReport:
    """Return if a report is what was made from this trail.

    Args:
        data: The file.
        trail: Verified.
        frameworks: Those at hand.

    Raises:
        InputError: It is JSON, but no report.
        VerificationError: It is not, or not any more; the message says what is wrong.
        StoreUnavailable: The trail cannot be read.
    """
    # 1 the hash
    digest = hashlib.sha256(data).hexdigest()
    found = find_report(trail.evidence.events(), digest)
    if found is None:
        msg = f"no event of the trail tells of a report with SHA-256 {digest}"
        hint = "it was altered, or made from another trail, or its making was not recorded"
        raise VerificationError(msg, code=CODE, hint=hint)
    recorded, form = found
    if form != Format.JSON:
        return CheckedReport(recorded, form, None, 0, made_again=False)
    # 2 the document
    document = read_report(data)
    try:
        told = facts_of_report(document, [(Format.JSON, data)])
        if any(recorded.details.get(name) != value for name, value in told.items() if name != "files"):
            _wrong("the event tells of another report", recorded.sequence)
        proofs = _check(document, trail)
        framework = next((one for one in frameworks if one.digest == document["framework"]["sha256"]), None)
        if framework is not None:
            _make_again(document, framework, trail)
        return CheckedReport(recorded, form, document, proofs, made_again=framework is not None)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        msg = f"the report lacks a part, or has one of another form: {error}"
        raise InputError(msg, code="compliance.report") from error


def read_report(data: bytes) -> Mapping[str, Any]:
    """A report from its JSON file.

    Raises:
        InputError: It is no report of a known format.
    """
    try:
        document = json.loads(data)
        written = render_json(document) if isinstance(document, dict) else b""
    except (ValueError, RecursionError) as error:
        msg = "the report is not JSON"
        raise InputError(msg, code="compliance.report") from error
    if written != data or document.get("format") != FORMAT:
        msg = f"the file is no report of the format `{FORMAT}` as it was written"
        raise InputError(msg, code="compliance.report")
    return dict(document)


def _check(document: Mapping[str, Any], trail: Trail) -> int:
    # 3 the checkpoint
    told = document["trail"]
    if told["checkpoint"] is None:
        if any(True for _ in samples_of(document)):
            _wrong("the report shows events and has no checkpoint")
        checkpoint = None
    else:
        checkpoint = _checkpoint(told, trail)
    keys = {key_id: key.hex for key_id, key in trail.keys.items()}
    if any(keys.get(key_id) != key for key_id, key in told["keys"].items()):
        _wrong("the report names a key that is not trusted here")
    if {**trail_facts(_as_it_stood(document, trail)), "keys": told["keys"]} != told:
        _wrong("the report says otherwise of the trail than the trail itself")
    # 4 and 5 the events
    proved = set()
    for sample in samples_of(document):
        assert checkpoint is not None
        _check_sample(sample, checkpoint, trail)
        proved.add(sample["sequence"])
    return len(proved)


def _checkpoint(told: Mapping[str, Any], trail: Trail) -> Checkpoint:
    note = parse_note(told["checkpoint"].encode())
    checkpoint = note.checkpoint
    _verify_by_any(note, trail.keys)
    said = (told["origin"], told["events"], told["root"], told["chain_hash"])
    if said != (checkpoint.origin, checkpoint.size, checkpoint.root.hex(), checkpoint.chain_hash):
        _wrong("the report says otherwise than its checkpoint")
    if checkpoint.size > trail.evidence.size or root_of(checkpoint.size, trail.evidence.nodes) != checkpoint.root:
        _wrong(f"the trail does not continue the checkpoint at event {checkpoint.size}", checkpoint.size)
    return checkpoint


def _verify_by_any(note: Any, keys: Mapping[KeyId, VerifyingKey]) -> None:
    """Return if one of the trusted keys signed a note.

    Raises:
        ChainBroken: None of them did.
    """
    refusal: ChainBroken | None = None
    for key in keys.values():
        try:
            verify_note(note, key)
        except ChainBroken as error:
            refusal = error
        else:
            return
    raise refusal or ChainBroken("no key is trusted here", sequence=note.checkpoint.size, reason="key")


def _check_sample(sample: Mapping[str, Any], checkpoint: Checkpoint, trail: Trail) -> None:
    sequence = sample["sequence"]
    path = [bytes.fromhex(one) for one in sample["proof"]]
    leaf = bytes.fromhex(sample["leaf"])
    if type(sequence) is not int or not verify_inclusion(leaf, sequence - 1, checkpoint.size, path, checkpoint.root):
        _wrong(f"the inclusion proof of event {sequence} does not hold", sequence)
    if facts_of(trail.evidence.event_at(sequence)) != {
        key: value for key, value in sample.items() if key not in {"leaf", "proof"}
    }:
        _wrong(f"the report says otherwise of event {sequence} than the trail", sequence)


def _make_again(document: Mapping[str, Any], framework: Framework, trail: Trail) -> None:
    # 6 the judgement
    period = document["period"]
    again = make_report(
        framework, _as_it_stood(document, trail), period["from"], period["to"] if period["bounded"] else ""
    )
    for part in ("framework", "period", "summary", "controls", "statement"):
        if again[part] != document[part]:
            _wrong(f"made again from the trail as it stood, the report has another `{part}`")


def _as_it_stood(document: Mapping[str, Any], trail: Trail) -> Trail:
    """The trail as it stood at the checkpoint of a report, which was checked before."""
    told, evidence = document["trail"], trail.evidence
    if told["checkpoint"] is None:
        return Trail(evidence.up_to(0, None), {})
    size = told["events"]
    first, last = evidence.event_at(1).timestamp, evidence.event_at(size).timestamp
    return Trail(evidence.up_to(size, told["checkpoint"].encode()), trail.keys, first, last)


def samples_of(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Every event that a report shows."""
    for control in document["controls"]:
        applies = [control["applies"]] if control["applies"] is not None else []
        for claim in (*applies, *control["evidence"]):
            yield from claim["bearing"]["samples"]
            yield from claim["against"]["samples"]


def _wrong(message: str, sequence: int = 0) -> Never:
    raise VerificationError(message, code=CODE, sequence=sequence)
