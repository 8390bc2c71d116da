"""Approvals at the gate: held, voted on, used once; expiry, two people, self-approval, changed policies."""

from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
import pytest

from symbi.audit.event import AuditEventType as T
from symbi.crypto.provider import open_provider
from symbi.crypto.signing import SigningKey
from symbi.errors import (
    ApprovalPending,
    ApprovalRequired,
    EffectInDoubt,
    InputError,
    Overloaded,
    PolicyDenied,
    SignatureInvalid,
    StoreUnavailable,
    Unavailable,
)
from symbi.guard.action import CreateAgent, InvokeTool, RunSlot, ToolRef, WriteLog
from symbi.guard.approval import ApprovalState as S
from symbi.guard.approval import hidden, statement
from symbi.guard.desk import Ballot, DeskRules
from symbi.guard.ledger import EffectState
from symbi.guard.people import VOTE_DOMAIN, People, Person
from symbi.policy.catalog import ToolType
from symbi.policy.engine import PolicySource
from symbi.policy.policies import PolicySet
from symbi.testing.clock import ManualClock
from symbi.testing.gate import open_gate
from symbi.types import AgentId, Integrity, Label, Principal, RecoveryClass, RunId, SecurityTier, ToolName

pytestmark = pytest.mark.anyio

PROVIDER = open_provider("openssl")
EVE_KEY = SigningKey(b"e" * 32, PROVIDER)
PEOPLE = People(
    [
        Person("ada", 1001, "ada", groups=("finance",)),
        Person("bob", 1002, "bob", groups=("finance",), accounts=("robert@example.com",)),
        Person("eve", key=EVE_KEY.verifying_key(), groups=("finance", "keys")),
        Person("zoe", 1004, "zoe"),
    ]
)
UID = {"ada": 1001, "bob": 1002, "zoe": 1004}
PROPERTIES = {"to": {"type": "string"}, "amount": {"type": "integer"}, "body": {"type": "string"}}
SCHEMA = {"type": "object", "properties": PROPERTIES}
TOOLS = [ToolType(ToolName("s.send"), SCHEMA)]
ARGUMENTS = {"to": "x@example.com", "amount": 900, "body": "text"}
LABEL = {"integrity": "user", "confidentiality": "public", "sources": [], "categories": []}
AGENT = Principal(AgentId("a"), owner="carl")


def asks(text: str = "finance", more: str = "") -> str:
    return f'@id("p") @approval("{text}") {more} permit (principal, action, resource);'


def send(position: int | None = 0, principal: Principal = AGENT, **values: object) -> InvokeTool:
    return InvokeTool(
        principal=principal,
        slot=None if position is None else RunSlot(RunId("r"), position),
        tool=ToolRef(ToolName("s.send"), "s", "d" * 64, SCHEMA, verified=True),
        values={**ARGUMENTS, **values},
        labels={"to": Label(Integrity.UNTRUSTED, sources=("e9",))},
    )


@asynccontextmanager
async def desk(policies: str = asks(), people: People = PEOPLE, **more):
    rules = DeskRules(people, **more.pop("rules", {}))
    async with open_gate(policies, tools=TOOLS, desk=rules, **more) as gate:
        yield gate


async def held(gate, action=None) -> str:
    """The id under which an action is held now."""
    with pytest.raises(ApprovalPending) as pending:
        async with gate.guard.enforce(action or send()):
            pytest.fail("the body ran")
    return pending.value.fields["approval"]


async def vote(gate, approval_id: str, person: str = "ada", *, agrees: bool = True, reason: str = "", digest=None):
    digest = digest or (await gate.guard.approvals.find(approval_id)).digest
    if person == "eve":
        signature = EVE_KEY.sign(VOTE_DOMAIN, statement(approval_id, digest, agrees=agrees, reason=reason)).hex()
        ballot = Ballot(approval_id, digest, agrees, reason, 0, signature, EVE_KEY.key_id)
    else:
        ballot = Ballot(approval_id, digest, agrees, reason, UID[person])
    return await gate.guard.approvals.vote(ballot)


async def happens(gate, action=None) -> str:
    async with gate.guard.enforce(action or send()) as permit:
        gate.guard.authority.redeem(permit, type(action or send()))
    return permit.effect_id


def kinds(gate) -> list[str]:
    return [event.event_type for event in gate.events()][1:]


async def test_a_held_action_is_durable_with_all_that_a_person_needs():
    async with desk(asks(more='@redact("arguments.body")')) as gate:
        approval_id = await held(gate)
        record = await gate.guard.approvals.find(approval_id)
        facts = record.read_facts()
        assert record.state is S.WAITING
        assert hidden(record) == {"to": "x@example.com", "amount": 900, "body": "[redacted]"}
        assert facts["labels"]["to"] == {**LABEL, "integrity": "untrusted", "sources": ["e9"]}
        assert facts["policies"] == [{"id": "p", "file": "test.cedar", "line": 1}]
        assert facts["demands"] == ["finance"]
        assert facts["conditions"] == [
            {"kind": "approval", "value": "finance", "policy": "p"},
            {"kind": "redact", "value": "arguments.body", "policy": "p"},
        ]
        assert facts["principal"] == {
            "agent": "a", "owner": "carl", "groups": [], "trust": "standard", "tier": "none", "capabilities": [],
        }  # fmt: skip
        assert facts["limits"] == {"timeout_ms": 30_000, "schema_digest": "d" * 64, "secrets": []}
        assert kinds(gate) == [T.APPROVAL_ASKED]
        assert gate.store.effect_at(RunId("r"), 0) is None  # nothing has happened


async def test_what_is_granted_happens_once_and_the_decision_names_the_people():
    async with desk() as gate:
        approval_id = await held(gate)
        assert await held(gate) == approval_id  # asked once
        assert (await vote(gate, approval_id, reason="fine")).state is S.GRANTED
        assert await happens(gate) == approval_id
        assert kinds(gate) == [
            T.APPROVAL_ASKED, T.APPROVAL_VOTED, T.APPROVAL_GRANTED, T.APPROVAL_USED, T.DECISION_ALLOW, T.EFFECT_OUTCOME,
        ]  # fmt: skip
        decision = gate.events()[-2].details
        record = await gate.guard.approvals.find(approval_id)
        assert decision["approval"] == {"id": approval_id, "digest": record.digest, "people": ["ada"]}
        assert (record.state, record.place) == (S.USED, "")
        told = {event.event_type: event.details for event in gate.events()}
        assert told[T.APPROVAL_USED]["people"] == ["ada"]
        assert (
            told[T.APPROVAL_VOTED] | {"person": "ada", "vote": "approve", "by": "user", "reason": "fine"}
            == told[T.APPROVAL_VOTED]
        )
        assert await held(gate, send(1)) != approval_id  # the next one asks again


async def test_a_no_is_a_denial_at_its_place_for_good():
    async with desk() as gate:
        approval_id = await held(gate)
        assert (await vote(gate, approval_id, agrees=False, reason="too much")).state is S.DENIED
        with pytest.raises(ApprovalRequired, match="`ada` did not approve this: too much"):
            await happens(gate)
        record = gate.store.effect_at(RunId("r"), 0)
        assert (record.state, record.effect_id) == (EffectState.DENIED, approval_id)
        assert kinds(gate)[-1] == T.DECISION_DENY
        told = {event.event_type: event.details for event in gate.events()}
        assert told[T.APPROVAL_VOTED]["reason"] == told[T.APPROVAL_DENIED]["reason"] == "too much"
        assert told[T.APPROVAL_VOTED]["vote"] == "deny"
        with pytest.raises(InputError, match="is denied"):
            await vote(gate, approval_id, "bob")


async def test_a_grant_can_be_taken_back_until_it_is_used():
    async with desk() as gate:
        approval_id = await held(gate)
        await vote(gate, approval_id)
        assert (await vote(gate, approval_id, "bob", agrees=False)).state is S.DENIED
        with pytest.raises(ApprovalRequired):
            await happens(gate)


@pytest.mark.parametrize("granted", [False, True])
async def test_expiry_denies_whether_it_was_granted_or_not(granted):
    clock = ManualClock()
    async with desk(asks("who=finance; expires=1h"), clock=clock) as gate:
        approval_id = await held(gate)
        if granted:
            await vote(gate, approval_id)
        clock.advance(3599)
        if not granted:
            await held(gate)
        clock.advance(1)
        with pytest.raises(ApprovalRequired, match="nobody approved this before"):
            await happens(gate)
        assert (await gate.guard.approvals.find(approval_id)).state is S.EXPIRED
        assert T.APPROVAL_EXPIRED in kinds(gate)
        assert gate.store.effect_at(RunId("r"), 0).state is EffectState.DENIED


async def test_a_vote_after_the_end_expires_it():
    clock = ManualClock()
    async with desk(clock=clock, rules={"expires_s": 60.0}) as gate:
        approval_id = await held(gate)
        clock.advance(60)
        with pytest.raises(InputError, match="is expired"):
            await vote(gate, approval_id)
        with pytest.raises(ApprovalRequired):
            await happens(gate)


async def test_two_people_are_two_persons():
    async with desk(asks("who=finance; people=2; why=a large sum")) as gate:
        approval_id = await held(gate)
        assert (await vote(gate, approval_id, "ada")).state is S.WAITING
        with pytest.raises(InputError, match="`ada` has agreed already"):
            await vote(gate, approval_id, "ada")
        with pytest.raises(PolicyDenied, match="not among those who are asked"):
            await vote(gate, approval_id, "zoe")
        assert (await vote(gate, approval_id, "eve")).state is S.GRANTED  # by key
        await happens(gate)
        assert gate.events()[-2].details["approval"]["people"] == ["ada", "eve"]


async def test_every_policy_that_asks_is_answered():
    policies = asks("who=finance") + '\n@id("q") @approval("who=keys") permit (principal, action, resource);'
    async with desk(policies) as gate:
        approval_id = await held(gate)
        assert (await vote(gate, approval_id, "ada")).state is S.WAITING
        assert (await vote(gate, approval_id, "eve")).state is S.GRANTED  # of both groups
        await happens(gate)


@pytest.mark.parametrize("owner", ["bob", "BOB", "robert@example.com"])
async def test_nobody_approves_for_an_agent_of_their_own(owner):
    async with desk() as gate:
        action = send(principal=replace(AGENT, owner=owner))
        approval_id = await held(gate, action)
        with pytest.raises(PolicyDenied, match="nobody approves what they ask for"):
            await vote(gate, approval_id, "bob")
        assert T.APPROVAL_REFUSED in kinds(gate)
        await vote(gate, approval_id, "ada")
        await happens(gate, action)


async def test_where_only_the_owner_could_agree_it_is_denied_at_once():
    people = People([Person("bob", 1002, "bob")])
    async with desk(asks("why not"), people) as gate:
        with pytest.raises(ApprovalRequired, match="nobody registered can"):
            await happens(gate, send(principal=replace(AGENT, owner="bob")))
        assert kinds(gate) == [T.DECISION_DENY]


@pytest.mark.parametrize(
    ("text", "why"), [("who=legal", "nobody registered"), ("who=finance; people=4", "3 registered")]
)
async def test_what_too_few_people_could_answer_is_denied_at_once(text, why):
    async with desk(asks(text)) as gate:
        with pytest.raises(ApprovalRequired, match=why):
            await happens(gate)


async def test_a_plain_text_that_is_a_group_means_it_and_any_other_asks_anybody():
    async with desk(asks("finance")) as gate:
        with pytest.raises(PolicyDenied, match="not among"):
            await vote(gate, await held(gate), "zoe")
    async with desk(asks("a large sum leaves")) as gate:
        assert (await vote(gate, await held(gate), "zoe")).state is S.GRANTED


async def test_who_is_not_registered_cannot_vote():
    async with desk() as gate:
        approval_id = await held(gate)
        digest = (await gate.guard.approvals.find(approval_id)).digest
        with pytest.raises(PolicyDenied, match="user 0 is no registered person"):
            await gate.guard.approvals.vote(Ballot(approval_id, digest, agrees=True, uid=0))
        stranger = SigningKey(b"s" * 32, PROVIDER)
        signed = stranger.sign(VOTE_DOMAIN, statement(approval_id, digest, agrees=True, reason=""))
        with pytest.raises(PolicyDenied, match="no person has registered the key"):
            await gate.guard.approvals.vote(
                Ballot(approval_id, digest, agrees=True, uid=0, signature=signed.hex(), key_id=stranger.key_id)
            )
        with pytest.raises(SignatureInvalid):
            await gate.guard.approvals.vote(
                Ballot(approval_id, digest, agrees=True, uid=1001, signature=signed.hex(), key_id=EVE_KEY.key_id)
            )
        with pytest.raises(InputError, match="no approval `nothing`"):
            await gate.guard.approvals.vote(Ballot("nothing", digest, agrees=True, uid=1001))
        assert (await gate.guard.approvals.find(approval_id)).state is S.WAITING


async def test_a_vote_is_bound_to_what_was_seen_and_to_yes_or_no():
    async with desk() as gate:
        approval_id = await held(gate)
        with pytest.raises(InputError, match="not what you saw"):
            await vote(gate, approval_id, digest="0" * 64)
        digest = (await gate.guard.approvals.find(approval_id)).digest
        no = EVE_KEY.sign(VOTE_DOMAIN, statement(approval_id, digest, agrees=False, reason="")).hex()
        with pytest.raises(SignatureInvalid):
            await gate.guard.approvals.vote(Ballot(approval_id, digest, True, "", 0, no, EVE_KEY.key_id))


def same(note: str) -> PolicySet:
    return PolicySet.load([PolicySource("test.cedar", f"// {note}\n{asks()}")], tools=TOOLS)


async def test_a_new_policy_version_that_asks_the_same_voids_the_grant_and_asks_anew():
    async with desk() as gate:
        first = await held(gate)
        await vote(gate, first)
        gate.engine.replace(same("a line further down"))
        second = await held(gate)
        assert second != first
        assert (await gate.guard.approvals.find(first)).state is S.VOID
        voided = next(e for e in gate.events() if e.event_type == T.APPROVAL_VOIDED)
        assert voided.details["reason"] == "the policy set has changed since it was asked"
        await vote(gate, second)
        assert await happens(gate) == second


async def test_a_policy_that_changes_between_grant_and_reservation_voids_it_too():
    async with desk() as gate:
        first = await held(gate)
        await vote(gate, first)
        gate.guard.probe = lambda point: gate.engine.replace(same("new")) if point == "before_dispatch" else None
        second = await held(gate)
        assert second != first


async def test_a_new_set_that_forbids_wins_over_a_grant():
    async with desk() as gate:
        await vote(gate, await held(gate))
        gate.engine.replace(PolicySet.load([PolicySource("none.cedar", "")], tools=TOOLS))
        with pytest.raises(PolicyDenied, match="no policy permits"):
            await happens(gate)


async def test_a_new_set_that_asks_nobody_does_not_need_the_grant():
    async with desk() as gate:
        await held(gate)
        allow = '@id("p") permit (principal, action, resource);'
        gate.engine.replace(PolicySet.load([PolicySource("test.cedar", allow)], tools=TOOLS))
        await happens(gate)


async def test_a_grant_that_is_taken_back_while_its_effect_is_reserved_is_not_used():
    async with desk() as gate:
        approval_id = await held(gate)
        await vote(gate, approval_id)
        record = await gate.guard.approvals.find(approval_id)

        def deny(point: str) -> None:
            if point == "before_dispatch":
                gate.store.move_approval(record.moved(S.DENIED), record)

        gate.guard.probe = deny
        with pytest.raises(ApprovalRequired):
            await happens(gate)
        assert gate.store.effect_at(RunId("r"), 0).state is EffectState.DENIED


async def test_the_recheck_runs_again_after_a_grant():
    fits = True

    def recheck(_action: InvokeTool) -> None:
        if not fits:
            msg = "the tool has changed"
            raise InputError(msg)

    async with desk() as gate:
        action = replace(send(), recheck=recheck)
        await vote(gate, await held(gate, action))
        fits = False
        with pytest.raises(InputError, match="the tool has changed"):
            await happens(gate, action)


async def test_many_at_the_same_place_use_one_grant_once():
    async with desk() as gate:
        action = CreateAgent(principal=AGENT, source_digest="0" * 64, tier=SecurityTier.INTERPRETER, risk=0.1)
        approval_id = await held(gate, action)
        await vote(gate, approval_id)
        did: list[str] = []
        held_again: list[str] = []

        async def one() -> None:
            try:
                did.append(await happens(gate, action))
            except ApprovalPending as pending:
                held_again.append(pending.fields["approval"])

        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(one)
        assert did == [approval_id]
        assert len(held_again) == 7
        assert len(set(held_again)) == 1  # they share the next one


async def test_a_denied_action_without_a_place_in_a_run_can_be_asked_for_again():
    async with desk() as gate:
        action = CreateAgent(principal=AGENT, source_digest="0" * 64, tier=SecurityTier.INTERPRETER, risk=0.1)
        first = await held(gate, action)
        await vote(gate, first, agrees=False)
        with pytest.raises(ApprovalRequired):
            await happens(gate, action)
        assert await held(gate, action) != first


async def test_a_lease_and_what_has_no_place_cannot_be_held():
    async with desk() as gate:
        line = WriteLog(principal=AGENT, message="x")
        with pytest.raises(ApprovalRequired, match="cannot be held"):
            async with gate.guard.enforce(line):
                pytest.fail("the body ran")
        with pytest.raises(ApprovalRequired, match="cannot be held"):
            async with gate.guard.lease(line, uses=2, seconds=9):
                pytest.fail("the body ran")


async def test_people_are_asked_also_where_denials_are_not_enforced():
    async with desk(enforcing=False) as gate:
        await held(gate)


@pytest.mark.parametrize("how", ["digest", "redacted"])
async def test_where_policies_record_little_the_arguments_are_shown_and_then_erased(how):
    async with desk(asks(more=f'@record("{how}")')) as gate:
        approval_id = await held(gate)
        assert hidden(await gate.guard.approvals.find(approval_id)) == ARGUMENTS
        await vote(gate, approval_id)
        await happens(gate)
        assert (await gate.guard.approvals.find(approval_id)).shown is None
        second = await held(gate, send(1))
        await vote(gate, second, agrees=False)
        with pytest.raises(ApprovalRequired):
            await happens(gate, send(1))
        assert (await gate.guard.approvals.find(second)).shown is None
        assert not any("x@example.com" in str(event.details) for event in gate.events())


async def test_an_idempotent_effect_in_doubt_is_repeated_under_its_approval(tmp_path):

    action = send()
    action = replace(action, tool=replace(action.tool, recovery=RecoveryClass.IDEMPOTENT))
    async with desk(folder=tmp_path) as gate:
        approval_id = await held(gate, action)
        await vote(gate, approval_id)
        await gate.guard._admit(action)  # and the process dies
    async with desk(folder=tmp_path) as gate:
        await gate.guard.open()
        assert await happens(gate, action) == approval_id
        assert gate.store.effect_at(RunId("r"), 0).attempt == 2


async def test_an_effect_in_doubt_whose_policy_changed_is_not_repeated(tmp_path):

    action = send()
    action = replace(action, tool=replace(action.tool, recovery=RecoveryClass.IDEMPOTENT))
    async with desk(folder=tmp_path) as gate:
        await vote(gate, await held(gate, action))
        await gate.guard._admit(action)
    async with desk(asks("zoe"), folder=tmp_path) as gate:
        await gate.guard.open()
        with pytest.raises(EffectInDoubt):
            await happens(gate, action)


async def test_notices_are_sent_once_and_a_failing_one_opens_nothing(caplog):
    told = []

    async def good(facts) -> None:
        told.append(facts)

    async def bad(_facts) -> None:
        msg = "no route"
        raise Unavailable(msg)

    async with desk(rules={"notices": (("bad", bad), ("good", good))}) as gate:
        approval_id = await held(gate)
        await held(gate)
        assert [(facts["approval"], facts["agent"], facts["run"]) for facts in told] == [(approval_id, "a", "r")]
        assert [each.getMessage() for each in caplog.records if "nobody was told" in each.getMessage()] == [
            f"nobody was told of approval `{approval_id}` by bad: no route"
        ]
        assert "x@example.com" not in str(told)  # no arguments leave
        events = [event.details for event in gate.events() if event.event_type == T.APPROVAL_TOLD]
        assert [(event["by"], event["told"], event.get("reason")) for event in events] == [
            ("bad", False, "no route"), ("good", True, None),
        ]  # fmt: skip
        assert told[0]["label"] == "user/public"


async def test_a_store_that_cannot_take_the_question_refuses_nothing_for_good(monkeypatch):
    """Neither asked nor denied: a later attempt at the same place asks."""
    async with desk() as gate:
        for error in (Overloaded("busy", retry_after_s=1), StoreUnavailable("the disk is full")):
            with monkeypatch.context() as broken:

                def fail(_case, error=error) -> None:
                    raise error

                broken.setattr(gate.guard.approvals, "_stand", fail)
                with pytest.raises(StoreUnavailable):
                    await happens(gate)
            assert gate.store.effect_at(RunId("r"), 0) is None
        await held(gate)
