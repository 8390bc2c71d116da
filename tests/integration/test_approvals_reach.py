"""How far a yes reaches: to what was shown, not to another run, and only while those who said it may say it."""

from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
import pytest

from symbi.audit.event import AuditEventType as T
from symbi.crypto.canonical import canonical_json, parse_canonical
from symbi.crypto.provider import open_provider
from symbi.crypto.signing import SigningKey
from symbi.errors import ApprovalPending, ConfigError, EffectInDoubt, InputError
from symbi.guard import approval
from symbi.guard.action import Action, CreateAgent, RunSlot, WriteLog
from symbi.guard.approval import ApprovalState, statement
from symbi.guard.desk import Ballot, DeskRules
from symbi.guard.people import VOTE_DOMAIN, People, Person
from symbi.testing.clock import ManualClock
from symbi.testing.gate import Gate, open_gate
from symbi.types import AgentId, Principal, RunId, SecurityTier

pytestmark = pytest.mark.anyio

AGENT = Principal(AgentId("a"), owner="carl")
ADA, BOB = Person("ada", 1001, "ada"), Person("bob", 1002, "bob")
ASKS = '@id("p") @approval("why") permit (principal, action, resource);'


@asynccontextmanager
async def desk(*persons: Person, expires_s: float = 60.0, **more):
    async with open_gate(ASKS, desk=DeskRules(People(persons), expires_s), **more) as gate:
        yield gate


async def happens(gate: Gate, action: Action) -> str:
    async with gate.guard.enforce(action) as permit:
        gate.guard.authority.redeem(permit, type(action))
        return permit.effect_id


async def held(gate: Gate, action: Action) -> str:
    with pytest.raises(ApprovalPending) as pending:
        await happens(gate, action)
    return pending.value.fields["approval"]


async def granted(gate: Gate, action: Action) -> str:
    """The id of an approval that Ada has granted."""
    approval_id = await held(gate, action)
    record = await gate.guard.approvals.find(approval_id)
    await gate.guard.approvals.vote(Ballot(approval_id, record.digest, agrees=True, uid=1001))
    return approval_id


async def test_a_yes_to_what_one_run_asked_is_none_to_another_run_that_asks_the_same():
    async with desk(ADA) as gate:
        action = CreateAgent(
            principal=AGENT,
            source_digest="0" * 64,
            tier=SecurityTier.INTERPRETER,
            risk=0.1,
            inputs=("to",),  # what the inputs hold is no argument, and differs between runs
            within=RunId("shown"),
        )
        approval_id = await granted(gate, action)
        assert (await gate.guard.approvals.find(approval_id)).run_id == "shown"
        assert await held(gate, replace(action, within=RunId("other"))) != approval_id
        assert await happens(gate, action) == approval_id


@pytest.mark.parametrize(
    ("after_s", "persons", "why"),
    [
        (30, [ADA, BOB], None),
        (60, [ADA, BOB], "it held until"),
        (30, [BOB], "the people who agreed count no more"),
    ],
)
async def test_an_effect_in_doubt_is_repeated_only_as_long_as_its_approval_holds(after_s, persons, why, tmp_path):
    clock = ManualClock()
    action = WriteLog(principal=AGENT, slot=RunSlot(RunId("r"), 0), message="x")
    async with desk(ADA, BOB, folder=tmp_path, clock=clock) as gate:
        approval_id = await granted(gate, action)
        await gate.guard._admit(action)  # and the process dies
    clock.advance(after_s)
    async with desk(*persons, folder=tmp_path, clock=clock) as gate:
        await gate.guard.open()
        if why is None:
            assert await happens(gate, action) == approval_id
        else:
            with pytest.raises(EffectInDoubt, match=why):
                await happens(gate, action)


async def test_a_grant_of_people_who_are_registered_no_more_is_void_and_asked_anew(tmp_path):
    clock = ManualClock()
    action = WriteLog(principal=AGENT, slot=RunSlot(RunId("r"), 0), message="x")
    async with desk(ADA, BOB, folder=tmp_path, clock=clock) as gate:
        approval_id = await granted(gate, action)
    clock.advance(1)
    async with desk(BOB, folder=tmp_path, clock=clock) as gate:
        again = await held(gate, action)
        assert again != approval_id
        assert (await gate.guard.approvals.find(approval_id)).state is ApprovalState.VOID
        (void,) = [event.details for event in gate.events() if event.event_type == T.APPROVAL_VOIDED]
        assert "the people who agreed count no more" in void["reason"]
        record = await gate.guard.approvals.find(again)
        await gate.guard.approvals.vote(Ballot(again, record.digest, agrees=True, uid=1002))
        assert await happens(gate, action) == again


async def test_a_signed_vote_stands_by_its_signature_and_not_by_whoever_carried_it():
    key = SigningKey(b"e" * 32, open_provider("openssl"))
    action = WriteLog(principal=AGENT, slot=RunSlot(RunId("r"), 0), message="x")
    async with desk(ADA, Person("eve", key=key.verifying_key())) as gate:
        approval_id = await held(gate, action)
        digest = (await gate.guard.approvals.find(approval_id)).digest
        said = statement(approval_id, digest, agrees=True, reason="")
        ballot = Ballot(approval_id, digest, True, "", 1001, key.sign(VOTE_DOMAIN, said).hex(), key.key_id)
        (cast,) = (await gate.guard.approvals.vote(ballot)).votes
        assert (cast.person, cast.uid, len(cast.signature)) == ("eve", None, 128)
        (told,) = [event.details for event in gate.events() if event.event_type == T.APPROVAL_VOTED]
        assert told["by"] == "key"
        assert await happens(gate, action) == approval_id


def test_what_is_signed_is_the_same_in_every_release():
    assert statement("a1", "d2", agrees=True, reason="r") == (
        b'{"approval":"a1","digest":"d2","reason":"r","vote":"approve"}'
    )
    assert b'"vote":"deny"' in statement("a1", "d2", agrees=False, reason="")


@pytest.mark.parametrize(("room", "fits"), [(0, True), (-1, False)])
async def test_as_much_as_a_person_can_read_is_asked_about_and_no_byte_more(monkeypatch, room, fits):
    action = WriteLog(principal=AGENT, slot=RunSlot(RunId("r"), 0), message="x" * 100)
    size = len(canonical_json(action.arguments()))
    monkeypatch.setattr(approval, "MAX_SHOWN_BYTES", size + room)
    async with desk(ADA) as gate:
        if fits:
            await held(gate, action)
        else:
            with pytest.raises(InputError, match=f"arguments of {size} bytes"):
                await happens(gate, action)


async def test_whoever_waits_goes_on_when_it_is_granted_and_gives_up_when_the_time_is_over():
    action = WriteLog(principal=AGENT, slot=RunSlot(RunId("r"), 0), message="x")
    async with desk(ADA) as gate:
        with pytest.raises(ApprovalPending) as pending:
            await happens(gate, action)
        assert pending.value.hint == f"`symbi approvals approve {pending.value.fields['approval']}` releases it"
        with pytest.raises(ApprovalPending):
            await gate.guard.approvals.wait(pending.value, 0)
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(gate.guard.approvals.wait, pending.value, 1e9)
                await anyio.lowlevel.checkpoint()
                await granted(gate, action)
        await happens(gate, action)


@pytest.mark.parametrize(
    "leaf", ["context_digest", "effective_digest", "shown_digest", "arguments_digest", "conditions"]
)
async def test_whatever_differs_is_named_where_it_is_asked_anew(leaf, monkeypatch):
    action = WriteLog(principal=AGENT, slot=RunSlot(RunId("r"), 0), message="x")
    async with desk(ADA) as gate:
        approval_id = await granted(gate, action)
        facts = approval.HeldCase.facts

        def other(case, *said):
            found = parse_canonical(facts(case, *said))
            assert isinstance(found, dict)
            assert leaf in found
            return canonical_json({**found, leaf: "another"})

        monkeypatch.setattr(approval.HeldCase, "facts", other)
        assert await held(gate, action) != approval_id
        (void,) = [event.details for event in gate.events() if event.event_type == T.APPROVAL_VOIDED]
        assert void["reason"] == f"not what was asked about any more: `{leaf}`"


def test_one_person_is_not_registered_twice():
    key = SigningKey(b"e" * 32, open_provider("openssl")).verifying_key()
    for twice in ([Person("a", 1), Person("b", 1)], [Person("a", key=key)] * 2):
        with pytest.raises(ConfigError, match="the same"):
            People(twice)
