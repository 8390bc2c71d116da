"""The desk where held actions wait for people: asked, voted on, and used exactly once.

1. the gate brings an action that policies permit only if people agree (`demand`): what is asked is made durable, and
   whoever asked gets `ApprovalPending`;
2. people vote (`vote`), each bound to the digest of what they saw; enough of them grant it, one no denies it;
3. the gate brings the same action again, decided anew and bound to the same digest: the approval holds, and is used
   in the transaction that reserves the effect (`use`);
4. a denial and an expiry are told once (`told`); what has changed meanwhile is void and asked anew.

Every step is a unit of work with its event. Whatever is not certain is not an approval.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import anyio

from symbi.audit.event import AuditEventType, Draft
from symbi.audit.log import AuditLog
from symbi.clock import Clock, parse_rfc3339, rfc3339
from symbi.errors import (
    ApprovalPending,
    ApprovalRequired,
    InputError,
    InternalError,
    PolicyDenied,
    SignatureInvalid,
    SymbiError,
)
from symbi.guard.approval import (
    ASKED_ONCE,
    MAX_REASON_CHARS,
    OPEN,
    ApprovalRecord,
    ApprovalState,
    ApprovalStore,
    HeldCase,
    Vote,
    fault_of,
    mismatch,
    sealed,
    statement,
)
from symbi.guard.confidential import confided
from symbi.guard.people import VOTE_DOMAIN, People, Person
from symbi.types import EffectId, JsonValue

_log = logging.getLogger("symbi.guard")

LOOK_AGAIN_S: Final = 1.0  # a waiter looks into the store at least this often, whoever wrote there
NOTICE_GRACE_S: Final = 5.0  # what a notice gets beyond its own bound before it is given up
MAX_LISTED: Final = 1000  # approvals that one look returns

Notice = Callable[[Mapping[str, JsonValue]], Awaitable[None]]
"""Tells somebody of a held action; bounded in time, raises `SymbiError` where it could not."""


class ApprovalChanged(Exception):
    """An approval was no longer granted when its effect was to be reserved."""


@dataclass(frozen=True, slots=True)
class DeskRules:
    """What the operator says of approvals.

    Attributes:
        people: Who may agree.
        expires_s: How long an action waits where no policy says so.
        notices: Who is told of a held action, by name.
        notice_timeout_s: How long telling one of them may take.
    """

    people: People
    expires_s: float = 86_400.0
    notices: tuple[tuple[str, Notice], ...] = ()
    notice_timeout_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Ballot:
    """A vote as it is handed in.

    Attributes:
        approval_id: Which approval.
        digest: Of what the person saw.
        agrees: Yes or no.
        reason: What the person says to it.
        uid: The operating-system user that hands it in, as the system says.
        signature: Hex; empty where the person is that user.
        key_id: Whose signature it is.
    """

    approval_id: str
    digest: str
    agrees: bool
    reason: str = ""
    uid: int | None = None
    signature: str = ""
    key_id: str = ""


class ApprovalDesk:
    """Keeps held actions.

    Args:
        log: Makes each step durable.
        store: Keeps them, in the log's store.
        clock: Ends them.
        rules: Who may agree, and how long there is.
    """

    def __init__(self, log: AuditLog, store: ApprovalStore, clock: Clock, rules: DeskRules) -> None:
        self._log = log
        self._store = store
        self._clock = clock
        self._rules = rules
        self._changed: dict[str, anyio.Event] = {}

    @property
    def people(self) -> People:
        """Who may agree."""
        return self._rules.people

    # --- for the gate ---------------------------------------------------------------------------

    async def demand(self, case: HeldCase) -> ApprovalRecord:
        """The approval under which an action may happen now.

        Raises:
            ApprovalPending: People have been asked and have not agreed yet.
            ApprovalRequired: They said no, or not in time, or nobody could ever agree; `fields["approval"]` names it.
            InputError: The action cannot be put to a person.
            StoreUnavailable: It cannot be made durable.
        """
        if impossible := self.people.missing(case.demands, case.action.principal.owner):
            msg = f"a person must approve this, and nobody can: {impossible}"
            raise ApprovalRequired(msg, hint="register persons in `[approvals.people.NAME]`")
        (record, asked), _ = await self._log.transact(lambda: self._stand(case))
        if asked:
            await self._tell(record)
        match record.state:
            case ApprovalState.GRANTED | ApprovalState.USED:
                return record
            case ApprovalState.WAITING:
                raise pending(record)
            case _:
                raise refused(record)

    def _stand(self, case: HeldCase) -> tuple[tuple[ApprovalRecord, bool], list[Draft]]:
        """Where an action stands, after whatever time and change did to it; asked now where it stood nowhere."""
        drafts: list[Draft] = []
        found = self._store.approval_at(case.place)
        if found is None and case.in_doubt:
            used = self._store.get_approval(case.effect_id)
            if used is not None and used.state is ApprovalState.USED:
                self._check_again(used, case)
            if used is not None and used.state in ASKED_ONCE:  # a no is not asked about again
                return (used, False), drafts
        if found is not None and found.state in {ApprovalState.USED, ApprovalState.VOID}:
            msg = f"approval `{found.id}` is {found.state.value} and is asked for all the same: the store was altered"
            raise ApprovalRequired(msg, code="approval.altered")
        if found is not None and found.state in OPEN:
            why = mismatch(found, case)
            if why is None and found.state is ApprovalState.GRANTED:
                why = self._uncounted(found, case)
            if why is None and case.in_doubt and found.id != case.effect_id:
                why = "it is about another effect"
            if why is not None:
                drafts.append(self._move(found, found.moved(ApprovalState.VOID), AuditEventType.APPROVAL_VOIDED, why))
                found = None
            elif self._is_over(found):
                later = found.moved(ApprovalState.EXPIRED)
                drafts.append(self._move(found, later, AuditEventType.APPROVAL_EXPIRED))
                found = later
        if found is not None:
            return (found, False), drafts
        record = self._asked(case)
        drafts.append(draft_of(record, AuditEventType.APPROVAL_ASKED, question(record)))
        return (record, True), drafts

    def _check_again(self, used: ApprovalRecord, case: HeldCase) -> None:
        """Return if an approved effect that a crash left in doubt may be done again under its approval.

        Raises:
            ApprovalRequired: It holds no more; nobody is asked again, for the effect may have happened.
        """
        over = f"it held until {used.expires_at}" if self._is_over(used) else None
        why = mismatch(used, case) or self._uncounted(used, case) or over
        if why is not None:
            msg = f"this effect may have happened, and its approval `{used.id}` holds no more: {why}"
            raise ApprovalRequired(msg, code="approval.void")

    def _uncounted(self, record: ApprovalRecord, case: HeldCase) -> str | None:
        """Why those who agreed are too few by the register as it stands now, or None."""
        lines = self.people.unmet(record, case.action.principal.owner)
        return f"the people who agreed count no more: {'; '.join(lines)}" if lines else None

    def _asked(self, case: HeldCase) -> ApprovalRecord:
        if self._store.get_approval(case.effect_id) is not None:
            msg = "this effect was approved before, as something else, and may have happened"
            raise ApprovalRequired(msg, code="approval.void")
        now_ns = self._clock.now_ns()
        case.take_place(self._store, now_ns)
        expires_s = min([d.expires_s for d in case.demands if d.expires_s is not None], default=self._rules.expires_s)
        created_at, expires_at = rfc3339(now_ns), rfc3339(now_ns + round(expires_s * 1e9))
        slot = case.action.slot
        facts = case.facts(case.effect_id, created_at, expires_at)
        record = ApprovalRecord(
            id=case.effect_id,
            run_id=case.action.run_id,
            position=slot.position if slot else -1,
            agent_id=case.action.principal.name, place=case.place,
            facts=facts, digest=sealed(facts), shown=case.shown(),
            state=ApprovalState.WAITING, votes=(),
            created_at=created_at, expires_at=expires_at,
            keys=case.keys,
        )  # fmt: skip
        self._store.put_approval(record)
        return record

    def use(self, approval: ApprovalRecord) -> Draft | None:
        """Spend an approval, in the transaction that reserves its effect; None where it was spent on this effect before.

        Raises:
            ApprovalChanged: It is not granted any more: decide again.
        """
        if approval.state is ApprovalState.USED:
            return None
        stored = self._store.get_approval(approval.id)
        if stored != approval or approval.state is not ApprovalState.GRANTED or self._is_over(approval):
            raise ApprovalChanged
        people: list[JsonValue] = [vote.person for vote in approval.votes if vote.agrees]
        self._store.move_approval(approval.moved(ApprovalState.USED), approval)
        return draft_of(approval, AuditEventType.APPROVAL_USED, {"people": people})

    def told(self, approval_id: EffectId) -> None:
        """The agent gets to hear of a no or an expiry, in the transaction that records it: nothing more comes of it."""
        stored = self._store.get_approval(approval_id)
        if stored is not None and stored.place and stored.state in {ApprovalState.DENIED, ApprovalState.EXPIRED}:
            self._store.move_approval(replace(stored.settled(), revision=stored.revision + 1), stored)

    # --- for people -----------------------------------------------------------------------------

    async def vote(self, ballot: Ballot) -> ApprovalRecord:
        """Take a vote; returns the approval as it stands then.

        Raises:
            InputError: There is no such approval, it is over, it is another than the person saw, or the vote is malformed.
            SignatureInvalid: The signature is not that of the key over this statement.
            PolicyDenied: This person may not vote on it.
            StoreUnavailable: It cannot be made durable.
        """
        (record, refusal), _ = await self._log.transact(lambda: self._vote(ballot))
        self.wake(ballot.approval_id)
        if refusal is not None:
            raise refusal
        assert record is not None
        return record

    def _vote(self, ballot: Ballot) -> tuple[tuple[ApprovalRecord | None, SymbiError | None], list[Draft]]:
        record = self._store.get_approval(ballot.approval_id)
        if record is None:
            msg = f"there is no approval `{ballot.approval_id[:64]}`"
            raise InputError(msg, code="approval.unknown", hint="`symbi approvals list` shows what waits")
        if record.state in OPEN and self._is_over(record):
            later = record.moved(ApprovalState.EXPIRED)
            draft = self._move(record, later, AuditEventType.APPROVAL_EXPIRED)
            return (later, _closed(later)), [draft]
        try:
            person = self._voter(record, ballot)
        except SymbiError as refusal:
            details: dict[str, JsonValue] = {"code": refusal.code, "reason": refusal.message, "uid": ballot.uid}
            return (None, refusal), [draft_of(record, AuditEventType.APPROVAL_REFUSED, details)]
        vote = Vote(
            person.name,
            ballot.agrees,
            rfc3339(self._clock.now_ns()),
            uid=None if ballot.signature else ballot.uid,
            signature=ballot.signature,
            reason=ballot.reason,
        )
        return self._count(record, vote)

    def _count(
        self, record: ApprovalRecord, vote: Vote
    ) -> tuple[tuple[ApprovalRecord, SymbiError | None], list[Draft]]:
        votes = (*record.votes, vote)
        said: dict[str, JsonValue] = {
            "person": vote.person,
            "vote": "approve" if vote.agrees else "deny",
            "by": "key" if vote.signature else "user",
            "reason": vote.reason,
        }
        drafts = [draft_of(record, AuditEventType.APPROVAL_VOTED, said)]
        if not vote.agrees:
            later = record.moved(ApprovalState.DENIED, votes)
            drafts.append(self._move(record, later, AuditEventType.APPROVAL_DENIED, vote.reason))
            return (later, None), drafts
        later = record.moved(ApprovalState.WAITING, votes)
        if self.people.unmet(later, record.read_facts()["principal"]["owner"]):
            self._store.move_approval(later, record)
            return (later, None), drafts
        later = record.moved(ApprovalState.GRANTED, votes)
        drafts.append(self._move(record, later, AuditEventType.APPROVAL_GRANTED))
        return (later, None), drafts

    def _voter(self, record: ApprovalRecord, ballot: Ballot) -> Person:
        """The person who votes, if this person may.

        Raises:
            InputError, SignatureInvalid, PolicyDenied: As `vote`.
        """
        if record.state not in OPEN or (record.state is ApprovalState.GRANTED and ballot.agrees):
            raise _closed(record)
        if fault := fault_of(record):
            msg = f"approval `{record.id}` cannot be voted on: {fault}"
            raise InputError(msg, code="approval.altered")
        if ballot.digest != record.digest:
            msg = f"approval `{record.id}` is not what you saw: its digest is another"
            raise InputError(msg, code="approval.digest", hint=f"look again: `symbi approvals show {record.id}`")
        if len(ballot.reason) > MAX_REASON_CHARS or not (ballot.reason.isprintable()):
            msg = f"a reason is one line of at most {MAX_REASON_CHARS} printable characters"
            raise InputError(msg, code="approval.reason")
        person = self._identified(record, ballot)
        owner = record.read_facts()["principal"]["owner"]
        demands = record.demands()
        if not any(person in self.people.asked_by(demand) for demand in demands):
            msg = f"`{person.name}` is not among those who are asked: {', '.join(d.who or d.text for d in demands)}"
            raise PolicyDenied(msg, code="approval.not_asked")
        if ballot.agrees and person.is_called(owner):
            msg = f"`{person.name}` owns the agent `{record.agent_id}`, and nobody approves what they ask for"
            raise PolicyDenied(msg, code="approval.self", hint="another person has to")
        if ballot.agrees and any(vote.person == person.name and vote.agrees for vote in record.votes):
            msg = f"`{person.name}` has agreed already"
            raise InputError(msg, code="approval.repeated", hint="further people have to")
        return person

    def _identified(self, record: ApprovalRecord, ballot: Ballot) -> Person:
        if ballot.signature:
            person = self.people.of_key(ballot.key_id)
            if person is None or person.key is None:
                msg = f"no person has registered the key `{ballot.key_id[:64]}`"
                raise PolicyDenied(msg, code="approval.key", hint="`[approvals.people.NAME]` takes its `public_key`")
            said = statement(record.id, record.digest, agrees=ballot.agrees, reason=ballot.reason)
            try:
                person.key.verify(VOTE_DOMAIN, said, bytes.fromhex(ballot.signature))
            except ValueError:
                msg = "the signature is not hexadecimal"
                raise SignatureInvalid(msg, key_id=ballot.key_id[:64]) from None
            return person
        person = None if ballot.uid is None else self.people.of_uid(ballot.uid)
        if person is None:
            msg = f"the operating-system user {ballot.uid} is no registered person"
            raise PolicyDenied(
                msg, code="approval.user", hint="`[approvals.people.NAME]` takes a `user`, or sign by key"
            )
        return person

    async def find(self, approval_id: str) -> ApprovalRecord:
        """One approval.

        Raises:
            InputError: There is none of this id.
        """
        record = await self._log.read(lambda: self._store.get_approval(approval_id))
        if record is None:
            msg = f"there is no approval `{approval_id[:64]}`"
            raise InputError(msg, code="approval.unknown", hint="`symbi approvals list` shows what waits")
        return record

    async def listed(self, states: Sequence[ApprovalState]) -> Sequence[ApprovalRecord]:
        """The newest approvals in some states."""
        return await self._log.read(lambda: self._store.approvals(states, MAX_LISTED))

    # --- for whoever waits ----------------------------------------------------------------------

    async def wait(self, held: ApprovalPending, wait_s: float) -> None:
        """Return when a held action may be brought to the gate again, for whatever reason.

        Args:
            held: What the gate said.
            wait_s: How long at most.

        Raises:
            ApprovalPending: Nothing has come of it in that time.
        """
        approval_id = str(held.fields["approval"])
        until_s = self._clock.monotonic_s() + wait_s
        while True:
            changed = self._changed.setdefault(approval_id, anyio.Event())
            record = await self.find(approval_id)
            left_s = min(until_s - self._clock.monotonic_s(), self._left_s(record))
            if record.state is not ApprovalState.WAITING or self._is_over(record):
                self._changed.pop(approval_id, None)
                return
            if left_s <= 0:
                raise held
            with anyio.move_on_after(min(LOOK_AGAIN_S, left_s)):
                await changed.wait()

    def wake(self, approval_id: str) -> None:
        """Let whoever waits for an approval look again."""
        changed = self._changed.pop(approval_id, None)
        if changed is not None:
            changed.set()

    # --- records --------------------------------------------------------------------------------

    def _left_s(self, record: ApprovalRecord) -> float:
        return (parse_rfc3339(record.expires_at) - self._clock.now_ns()) / 1e9

    def _is_over(self, record: ApprovalRecord) -> bool:
        try:
            return self._clock.now_ns() >= parse_rfc3339(record.expires_at)
        except ValueError:
            return True  # an end that cannot be read has come

    def _move(self, was: ApprovalRecord, record: ApprovalRecord, kind: AuditEventType, reason: str = "") -> Draft:
        self._store.move_approval(record, was)
        details: dict[str, JsonValue] = {"was": was.state.value}
        return draft_of(record, kind, details | ({"reason": reason} if reason else {}))

    async def _tell(self, record: ApprovalRecord) -> None:
        """Tell of a held action. Whether that works changes nothing about the action."""
        facts = question(record) | {"approval": record.id, "agent": record.agent_id, "run": record.run_id}
        for name, notice in self._rules.notices:
            fault: str | None = None
            try:
                with anyio.fail_after(self._rules.notice_timeout_s + NOTICE_GRACE_S):
                    await notice(facts)
            except SymbiError as error:
                fault = str(error)
            except TimeoutError:
                fault = "it took too long"
            if fault is not None:
                _log.warning("nobody was told of approval `%s` by %s: %s", record.id, name, fault)
            details: dict[str, JsonValue] = {"by": name, "told": fault is None}
            draft = draft_of(record, AuditEventType.APPROVAL_TOLD, details | ({"reason": fault} if fault else {}))
            await self._log.transact(lambda d=draft: (None, (d,)), wait=True)  # type: ignore[misc]  # bound now, run on the store's thread


def question(record: ApprovalRecord) -> dict[str, JsonValue]:
    """What is asked, as trail and notices tell it: by digest, without the arguments.

    Raises:
        InternalError: The record cannot be read.
    """
    facts = record.read_facts()
    resource = facts["resource"]
    try:
        return {
            "action": facts["action"],
            "resource": f"{resource['type']}::{resource['id']}",
            "owner": facts["principal"]["owner"],
            "arguments_digest": facts["arguments_digest"],
            "label": f"{facts['label']['integrity']}/{facts['label']['confidentiality']}",
            "policy_version": facts["policy_version"],
            "policies": facts["policies"],
            "asks": facts["demands"],
            "expires_at": record.expires_at,
        }
    except (KeyError, TypeError) as error:
        msg = f"approval `{record.id}` has no `{error}`"
        raise InternalError(msg, code="internal.approval") from error


def draft_of(record: ApprovalRecord, kind: AuditEventType, details: Mapping[str, JsonValue]) -> Draft:
    """An event of an approval; each names it, its digest and its place in the run."""
    named: dict[str, JsonValue] = {"effect_id": record.id, "digest": record.digest, "position": record.position}
    return confided(Draft(kind, record.agent_id, {**named, **details}, record.run_id), record.keys)


def pending(record: ApprovalRecord) -> ApprovalPending:
    """What whoever asked gets while people have not agreed yet."""
    facts = record.read_facts()
    resource = facts["resource"]
    asks = "; ".join(facts["demands"])
    msg = f"`{facts['action']}` on `{resource['type']}::{resource['id']}` is held until people approve it: {asks}"
    return ApprovalPending(
        msg, hint=f"`symbi approvals approve {record.id}` releases it", approval=record.id, expires_at=record.expires_at
    )


def refused(record: ApprovalRecord) -> ApprovalRequired:
    """What whoever asked gets once people said no, or nothing in time."""
    if record.state is ApprovalState.EXPIRED:
        msg = f"nobody approved this before {record.expires_at}"
        return ApprovalRequired(msg, code="approval.expired", approval=record.id)
    no = next((vote for vote in reversed(record.votes) if not vote.agrees), None)
    said = f": {no.reason}" if no is not None and no.reason else ""
    msg = f"`{no.person if no else 'a person'}` did not approve this{said}"
    return ApprovalRequired(msg, code="approval.denied", approval=record.id)


def _closed(record: ApprovalRecord) -> InputError:
    msg = f"approval `{record.id}` is {record.state.value}"
    return InputError(msg, code="approval.closed", hint="nothing more can be said to it")
