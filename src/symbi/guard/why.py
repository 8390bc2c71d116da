"""The decision of one effect, derived again from what the store keeps, and compared with what the trail says.

1. the request must be the one whose digest stands in the signed event;
2. the policy set must be the one whose version stands there;
3. the engine decides the request with the set;
4. verdict, policies and conditions must be those of the event.

What fails is a problem, and is told loudly. A request of which conditions hid some of the arguments, and a set that an
other release made, are no problems: then the answer says how far it goes.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from symbi.audit.event import AuditEvent
from symbi.errors import InputError
from symbi.guard.confidential import opened_request
from symbi.guard.ledger import EffectRecord
from symbi.guard.records import decision_facts
from symbi.guard.vault import Vault
from symbi.policy.counterfactual import WhatIf, what_if
from symbi.policy.decision import PolicyDecision
from symbi.policy.engine import decide
from symbi.policy.policies import Policy
from symbi.policy.stored import StoredRequest, StoredSet, load_set, read_request
from symbi.types import JsonValue, PolicyId

_LEDGER_FACTS: Final = ("policy_version", "policies")


@dataclass(frozen=True, slots=True)
class Derivation:
    """One decision, derived again.

    Attributes:
        event: The decision as recorded.
        stored: What was decided on; None where it is not to be had.
        decision: What the stored set decides on the stored request; None where that cannot be said.
        deciding: The policies that the event names, from the stored set.
        what_if: What would have changed the verdict; None where `decision` is.
        problems: What does not fit, each in one line; the store was altered, or is damaged.
        notes: How far the derivation goes, where it does not go all the way.
    """

    event: AuditEvent
    stored: StoredRequest | None
    decision: PolicyDecision | None
    deciding: tuple[Policy, ...]
    what_if: WhatIf | None
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """The derived decision is the recorded one."""
        return self.decision is not None and not self.problems and not self.notes


def derive(
    event: AuditEvent,
    request: bytes | None,
    set_text: str | None,
    record: EffectRecord | None,
    vault: Vault | None = None,
    *,
    compacted: bool = False,
) -> Derivation:
    """Derive the decision of an event again.

    Args:
        event: A decision; its signature and its place in the chain are for the caller to verify.
        request: The stored request that has the digest of the event as its key, or None.
        set_text: The stored policy set that has the version of the event as its key, or None.
        record: The effect as the ledger has it, or None.
        vault: Opens what is sealed.
        compacted: Record and request were removed, for the run ended long ago.

    Raises:
        DecryptionFailed: The request was altered together with its digest.
    """
    if compacted and record is None and request is None:
        note = "the journal was compacted: record and request are gone, and the trail alone tells of the decision"
        return Derivation(event, None, None, (), None, (), (note,))
    problems, notes = _ledger_problems(event, record), list[str]()
    stored = _request(event, request, vault, problems, notes)
    policies = _set(event, set_text, problems, notes)
    named = event.details.get("policies")
    ids = [PolicyId(str(ref["id"])) for ref in named if isinstance(ref, Mapping)] if isinstance(named, Sequence) else []
    deciding = (
        tuple(policies.policies.by_id[name] for name in ids if name in policies.policies.by_id) if policies else ()
    )
    if stored is None or policies is None or stored.withheld:
        return Derivation(event, stored, None, deciding, None, tuple(problems), tuple(notes))
    decision = decide(policies.policies, stored.request)
    difference = _difference(event, decision)
    if difference and policies.same_schema and not _was_error(event):
        problems.append(difference)
    elif difference:
        notes.append(difference)
    found = what_if(policies.policies, stored.request, decision)
    return Derivation(event, stored, decision, deciding, found, tuple(problems), tuple(notes))


def _ledger_problems(event: AuditEvent, record: EffectRecord | None) -> list[str]:
    if record is None:
        return ["the ledger has no record of the effect"]
    if record.attempt != event.details.get("attempt"):
        return []
    try:
        kept = json.loads(record.decision)
        same = all(kept[name] == event.details[name] for name in _LEDGER_FACTS)
    except (ValueError, KeyError, TypeError):
        same = False
    return [] if same else ["the ledger's record of the decision is not that of the event"]


def _request(
    event: AuditEvent, data: bytes | None, vault: Vault | None, problems: list[str], notes: list[str]
) -> StoredRequest | None:
    digest = event.details.get("request_digest")
    if digest is None:
        notes.append("the event names no request: a release that kept none wrote it")
        return None
    if data is None:
        problems.append("the request that the event names is not in the store")
        return None
    if hashlib.sha256(data).hexdigest() != digest:
        problems.append("the stored request is not the one that was decided on: its digest is another")
        return None
    opened, lost = opened_request(data, str(event.details.get("effect_id")), vault)
    if opened is None:
        notes.append(lost)
        return None
    try:
        stored = read_request(opened)
    except InputError as error:
        problems.append(error.message)
        return None
    if stored.withheld:
        notes.append(f"the decision cannot be derived again in full: {stored.withheld}")
    return stored


def _set(event: AuditEvent, text: str | None, problems: list[str], notes: list[str]) -> StoredSet | None:
    version = str(event.details.get("policy_version"))
    if text is None:
        problems.append(f"policy set `{version[:16]}` is not in the store")
        return None
    try:
        found = load_set(text, version)
    except InputError as error:
        problems.append(error.message)
        return None
    if not found.same_schema:
        notes.append("the schema of this release is another than the one in force then")
    return found


def _was_error(event: AuditEvent) -> bool:
    """The engine failed then, which a derivation need not repeat."""
    return bool(event.details.get("errors"))


def _difference(event: AuditEvent, decision: PolicyDecision) -> str:
    """How a derived decision differs from the recorded one; empty where it does not."""
    recorded, derived = _engine_facts(event.details), _engine_facts(decision_facts(decision))
    different = [name for name in derived if derived[name] != recorded[name]]
    if not different:
        return ""
    shown = "; ".join(f"{name} {_told(recorded[name])} recorded, {_told(derived[name])} derived" for name in different)
    return f"the derived decision is not the recorded one: {shown}"


def _engine_facts(facts: Mapping[str, JsonValue]) -> dict[str, list[str]]:
    """What the engine answered, also where the gate refused what it allowed: only a denial of the engine lists errors."""
    verdict = "deny" if "errors" in facts else "allow_with_conditions" if "conditions" in facts else "allow"
    return {
        "verdict": [verdict],
        "policies": _sorted(facts.get("policies")),
        "conditions": _sorted(facts.get("conditions")),
    }


def _sorted(items: JsonValue) -> list[str]:
    listed = items if isinstance(items, Sequence) and not isinstance(items, str) else []
    return sorted(
        ", ".join(f"{key} {item[key]}" for key in sorted(item)) for item in listed if isinstance(item, Mapping)
    )


def _told(items: Sequence[str]) -> str:
    return ", ".join(f"`{item}`" for item in items) or "none"
