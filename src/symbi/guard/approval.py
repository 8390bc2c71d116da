"""Approvals: what a held action is bound to, who may agree to it, and the port that keeps it.

```
            asked                enough people agreed            reserved with its effect, in one transaction
 (held) ───────────► waiting ───────────────────────► granted ─────────────────────────────────────► used
                        └──► denied | expired | void     └──► denied | expired | void
```

The facts of an approval are everything that it is bound to. Their digest is what a person signs, and what the gate
compares with the action that is about to happen: changed by a byte, the approval is void.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from types import MappingProxyType
from typing import Any, Final, Protocol

from symbi.clock import parse_rfc3339, random_bytes
from symbi.crypto.canonical import canonical_json, parse_canonical
from symbi.errors import InputError
from symbi.guard.action import Action, ExecuteCode, InvokeTool
from symbi.guard.confidential import keyed, subjects_of
from symbi.guard.records import action_name, decision_facts, digest_arguments
from symbi.guard.vault import NO_KEYS, Keys
from symbi.policy.approval import Demand, parse_demands
from symbi.policy.decision import AllowWithConditions, ConditionKind, PolicyDecision
from symbi.policy.flow import MORE_SUBJECTS, join_subjects
from symbi.policy.obligations import REDACTED
from symbi.types import AgentId, EffectId, JsonValue, Label, RunId

MAX_SHOWN_BYTES: Final = 1_048_576  # arguments that a person could read; larger ones cannot be agreed to
MAX_REASON_CHARS: Final = 1000  # what a person says to a vote


class ApprovalState(StrEnum):
    """Where an approval stands. Denied, expired, used and void are final."""

    WAITING = "waiting"
    GRANTED = "granted"
    DENIED = "denied"
    EXPIRED = "expired"
    USED = "used"
    VOID = "void"
    """What was asked is no longer what would happen: another policy version, other arguments, other people."""


OPEN: Final = frozenset({ApprovalState.WAITING, ApprovalState.GRANTED})
"""States in which an approval can still come to something."""

ASKED_ONCE: Final = frozenset({ApprovalState.USED, ApprovalState.DENIED, ApprovalState.EXPIRED})
"""States in which people have been asked about an effect, and are not asked again."""

APPROVAL_MOVES: Final[Mapping[ApprovalState, frozenset[ApprovalState]]] = MappingProxyType(
    {
        ApprovalState.WAITING: frozenset(
            {
                ApprovalState.WAITING,  # one more vote, and not yet enough
                ApprovalState.GRANTED,
                ApprovalState.DENIED,
                ApprovalState.EXPIRED,
                ApprovalState.VOID,
            }
        ),
        ApprovalState.GRANTED: frozenset(
            {ApprovalState.USED, ApprovalState.DENIED, ApprovalState.EXPIRED, ApprovalState.VOID}
        ),
        ApprovalState.DENIED: frozenset({ApprovalState.DENIED}),  # the agent has been told
        ApprovalState.EXPIRED: frozenset({ApprovalState.EXPIRED}),  # likewise
        ApprovalState.USED: frozenset(),
        ApprovalState.VOID: frozenset(),
    }
)
"""Every other move is refused."""


@dataclass(frozen=True, slots=True)
class Vote:
    """What one person said.

    Attributes:
        person: Registered name.
        agrees: Yes or no.
        at: RFC 3339.
        uid: The operating-system user that the control socket saw; None for a vote that was signed.
        signature: Hex of an Ed25519 signature over the statement; empty for a vote of an operating-system user.
        reason: What the person said to it.
    """

    person: str
    agrees: bool
    at: str
    uid: int | None = None
    signature: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ApprovalRecord:
    """One held action.

    Attributes:
        id: The effect id.
        run_id: The run that it belongs to; empty where it belongs to none.
        position: Place in the run, or -1.
        agent_id: Who asked.
        place: Where the same action would be asked for again; empty once nothing more comes of the approval.
        facts: Canonical JSON of all that it is bound to.
        digest: SHA-256 (hex) of the facts.
        shown: Canonical JSON of the arguments as a person sees them; None once they were erased.
        state: Where it stands.
        votes: What people said, in order.
        created_at: RFC 3339.
        expires_at: RFC 3339; from then on it is denied.
        revision: Grows by one with each write; a write on another revision is refused.
        keys: Seal facts, arguments and votes where it is about somebody.
        lost: Why facts, arguments and votes cannot be read: they are sealed, or were erased. They are empty then.
        sealed_votes: The votes as they are kept where it is about somebody; `votes` is empty there.
    """

    id: EffectId
    run_id: RunId
    position: int
    agent_id: AgentId
    place: str
    facts: bytes
    digest: str
    shown: bytes | None
    state: ApprovalState
    votes: tuple[Vote, ...]
    created_at: str
    expires_at: str
    revision: int = 1
    keys: Keys = field(default=NO_KEYS, compare=False, repr=False)
    lost: str = ""
    sealed_votes: bytes | None = field(default=None, repr=False)

    def moved(self, state: ApprovalState, votes: tuple[Vote, ...] | None = None) -> "ApprovalRecord":
        """The record one step on. What is over is erased where the policies want little recorded."""
        votes = self.votes if votes is None else votes
        over = state in {ApprovalState.USED, ApprovalState.VOID}
        record = replace(self, state=state, votes=votes, revision=self.revision + 1)
        return record.settled() if over else record

    def settled(self) -> "ApprovalRecord":
        """The record with nothing asked at its place any more, and no arguments that should not stay."""
        keep = fault_of(self) is None and self.read_facts().get("keep_arguments") is True
        return replace(self, place="", shown=self.shown if keep else None)

    def read_facts(self) -> dict[str, Any]:
        """The facts as values.

        Raises:
            InputError: They are not canonical JSON of an object: they were altered.
        """
        facts = parse_canonical(self.facts)
        if not isinstance(facts, dict):
            msg = f"the facts of approval `{self.id}` are no object"
            raise InputError(msg, code="approval.altered")
        return facts

    def about(self) -> tuple[str, ...]:
        """The people whom it is about; a crowd, where that cannot be read any more.

        Raises:
            InputError: Its facts were altered.
        """
        return (MORE_SUBJECTS,) if self.lost else join_subjects(map(str, self.read_facts().get("about", ())))

    def demands(self) -> tuple[Demand, ...]:
        """What was asked for.

        Raises:
            InputError: It cannot be read.
        """
        return parse_demands(self.read_facts()["demands"])


def agreed_facts(approval: ApprovalRecord | None) -> dict[str, JsonValue]:
    """The approval of a decision, and who agreed, for its event."""
    if approval is None:
        return {}
    people: list[JsonValue] = [vote.person for vote in approval.votes if vote.agrees]
    return {"approval": {"id": approval.id, "digest": approval.digest, "people": people}}


class ApprovalStore(Protocol):
    """Durable approvals; the methods block and run inside the store's running transaction."""

    def put_approval(self, record: ApprovalRecord) -> None:
        """Insert a record.

        Raises:
            InternalError: The id, or the place, is taken.
            StoreUnavailable: The store cannot be written, or a newer owner has taken it over.
        """

    def move_approval(self, record: ApprovalRecord, was: ApprovalRecord) -> None:
        """Write a record back, if the stored one is still at the revision of `was` and the move is allowed.

        Raises:
            InternalError: Somebody wrote it meanwhile, or the move is none of `APPROVAL_MOVES`.
            StoreUnavailable: The store cannot be written, or a newer owner has taken it over.
        """

    def get_approval(self, approval_id: str) -> ApprovalRecord | None:
        """One record, or None."""

    def approval_at(self, place: str) -> ApprovalRecord | None:
        """The record that is asked for at a place, or None."""

    def approvals(self, states: Sequence[ApprovalState], limit: int) -> Sequence[ApprovalRecord]:
        """The newest records in some states, newest first."""


@dataclass(frozen=True, slots=True)
class HeldCase:
    """One action before the gate for which people are asked.

    Attributes:
        action: As it was asked for.
        effective: As conditions left it.
        decision: What the policies said.
        demands: What is asked of whom.
        effect_id: The id of the effect, if it is asked for the first time.
        in_doubt: A crash left this effect in doubt, and it may be repeated.
        keys: Of whom it is about.
    """

    action: Action
    effective: Action
    decision: PolicyDecision
    demands: tuple[Demand, ...]
    effect_id: EffectId
    in_doubt: bool = False
    keys: Keys = NO_KEYS

    @property
    def place(self) -> str:
        """Where this action is asked for again after a wait or a restart: its place in the run, or what it is."""
        slot = self.action.slot
        if slot is not None:
            return f"run:{slot.run_id}:{slot.position}"
        resource = self.action.resource
        within = self.action.run_id  # a yes to what one run asked is none to another run that asks the same
        parts = [self.action.principal.agent, action_name(self.action), resource.type, resource.id, within]
        return f"own:{_sha256(canonical_json([*parts, keyed(digest_arguments(self.action), self.keys)]))}"

    def take_place(self, store: "ApprovalStore", now_ns: int) -> None:
        """Count it among those of its asker that wait for people, in the unit of work that asks for it.

        Raises:
            Overloaded: They are too many.
        """
        if self.action.waits is not None:
            self.action.waits.take(self.effect_id, partial(_waits, store, now_ns))

    def shown(self) -> bytes:
        """The effective arguments as a person sees them.

        Raises:
            InputError: They have no canonical form, or nobody could read that much.
        """
        arguments = dict(self.effective.arguments())
        if isinstance(self.effective, ExecuteCode):
            arguments["code"] = self.effective.code
        data = canonical_json(arguments)
        if len(data) > MAX_SHOWN_BYTES:
            msg = f"arguments of {len(data)} bytes cannot be put to a person; {MAX_SHOWN_BYTES} are allowed"
            raise InputError(msg, code="approval.too_large")
        return data

    def facts(self, approval_id: EffectId, created_at: str, expires_at: str, blind: str = "") -> bytes:
        """Canonical JSON of everything that an approval of this action is bound to.

        Args:
            approval_id: The effect id.
            created_at: RFC 3339.
            expires_at: RFC 3339.
            blind: What facts about somebody hold besides, at random, so that nobody guesses them by their digest; a new
                one where it is empty.

        Raises:
            InputError: Something has no canonical form.
        """
        action, effective, slot = self.action, self.effective, self.action.slot
        principal, resource = action.principal, action.resource
        decided = decision_facts(self.decision)
        facts: dict[str, JsonValue] = {
            "effect_id": approval_id,
            "run_id": action.run_id,
            "position": slot.position if slot else -1,
            "created_at": created_at,
            "expires_at": expires_at,
            "principal": {
                "agent": principal.agent,
                "owner": principal.owner,
                "groups": sorted(principal.groups),
                "trust": principal.trust,
                "tier": principal.tier,
                "capabilities": sorted(set(principal.capabilities)),
            },
            "action": action_name(action),
            "resource": {
                "type": resource.type,
                "id": resource.id,
                "attributes": dict(resource.attributes),
                "parents": sorted([kind, name] for kind, name in resource.parents),
            },
            "recovery": action.recovery.value,
            "arguments_digest": keyed(digest_arguments(action), self.keys),
            "effective_digest": keyed(digest_arguments(effective), self.keys),
            "shown_digest": _sha256(self.shown()),
            "context_digest": _sha256(canonical_json(effective.context())),
            "label": _label(action.label),
            "labels": _labels(action),
            "limits": _limits(effective),
            "policy_version": self.decision.version,
            "policies": _sorted(decided["policies"]),  # an engine names them in no order
            "conditions": _sorted(decided.get("conditions", [])),
            "demands": [demand.text for demand in self.demands],
            "keep_arguments": self._keeps_arguments(),
        }
        if self.keys:
            facts |= {"blind": blind or random_bytes(16).hex(), "about": list(subjects_of(action))}
        return canonical_json(facts)

    def _keeps_arguments(self) -> bool:
        """Whether what people saw may stay once it is over; where policies want less recorded, it is erased."""
        conditions = self.decision.conditions if isinstance(self.decision, AllowWithConditions) else ()
        return all(each.kind is not ConditionKind.RECORD or each.value == "full" for each in conditions)


def _waits(store: ApprovalStore, now_ns: int, approval_id: str) -> bool:
    """Whether people can still say something to an approval."""
    found = store.get_approval(approval_id)
    try:
        return found is not None and found.state is ApprovalState.WAITING and now_ns < parse_rfc3339(found.expires_at)
    except ValueError:
        return False  # an end that cannot be read has come


def _sorted(items: JsonValue) -> list[JsonValue]:
    assert isinstance(items, list)
    return sorted(items, key=canonical_json)


def _label(label: Label) -> dict[str, JsonValue]:
    return {
        "integrity": label.integrity.value,
        "confidentiality": label.confidentiality.value,
        "sources": list(label.sources),
        "categories": list(label.categories),
        **({"subjects": list(label.subjects)} if label.subjects else {}),
    }


def _labels(action: Action) -> dict[str, JsonValue]:
    labels = action.labels if isinstance(action, InvokeTool) else {}
    return {name: _label(label) for name, label in labels.items()}


def _limits(action: Action) -> dict[str, JsonValue]:
    """Bounds of the effect that stand neither in its arguments nor in its context."""
    if isinstance(action, InvokeTool):
        return {
            "timeout_ms": round(action.timeout_s * 1000),
            "schema_digest": action.tool.schema_digest,
            "secrets": list(action.secrets),
        }
    return {}


def sealed(facts: bytes) -> str:
    """The digest of facts."""
    return _sha256(facts)


def statement(approval_id: str, digest: str, *, agrees: bool, reason: str) -> bytes:
    """What a person signs (domain `approval.vote`): which approval, its digest, yes or no, and what is said to it."""
    return canonical_json(
        {"approval": approval_id, "digest": digest, "vote": "approve" if agrees else "deny", "reason": reason}
    )


def fault_of(record: ApprovalRecord) -> str | None:
    """What is wrong with a record by itself, or None: it must be bound to its own digest, column by column."""
    if record.lost:
        return record.lost
    try:
        facts = record.read_facts()
        if sealed(record.facts) != record.digest:
            return "its facts do not have its digest"
        columns = {
            "effect_id": record.id,
            "run_id": record.run_id,
            "position": record.position,
            "created_at": record.created_at,
            "expires_at": record.expires_at,
        }
        for name, value in columns.items():
            if facts[name] != value:
                return f"its `{name}` is not the one that was asked about"
        if facts["principal"]["agent"] != record.agent_id.partition("/")[0]:
            return "its agent is not the one that asked"
        if record.shown is not None and _sha256(record.shown) != facts["shown_digest"]:
            return "the arguments that it shows are not those that it is bound to"
        record.demands()
    except (InputError, KeyError, TypeError):
        return "its facts cannot be read"
    return None


def mismatch(record: ApprovalRecord, case: HeldCase) -> str | None:
    """In what a record and the action that is about to happen differ, or None where they are the same."""
    if fault := fault_of(record):
        return fault
    before = record.read_facts()
    now = case.facts(record.id, record.created_at, record.expires_at, str(before.get("blind", "")))
    if sealed(now) == record.digest:
        return None
    after = parse_canonical(now)
    assert isinstance(after, dict)
    names = [name for name in after if before.get(name) != after[name]]
    if "policy_version" in names:
        return "the policy set has changed since it was asked"
    return f"not what was asked about any more: {', '.join(f'`{name}`' for name in sorted(names))}"


def hidden(record: ApprovalRecord) -> Mapping[str, JsonValue]:
    """The arguments as a person sees them; a note where they were erased."""
    if record.shown is None:
        return {"erased": REDACTED}
    shown = parse_canonical(record.shown)
    assert isinstance(shown, dict)
    return shown


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
