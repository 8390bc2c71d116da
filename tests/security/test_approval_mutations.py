"""A granted approval, changed in every way there is: what comes to the gate, what stands in the store, who agreed.

Each case begins with an approval that would let its effect happen, and changes one thing. Nothing may happen.
"""

import itertools
import json
import random
from collections.abc import Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import msgspec
import pytest

from symbi.adapters.sqlite.store import SqliteStore
from symbi.clock import rfc3339
from symbi.crypto.provider import open_provider
from symbi.crypto.signing import SigningKey
from symbi.errors import ApprovalPending, ApprovalRequired, Denied, InputError, SymbiError
from symbi.guard.action import InvokeTool, RunSlot, ToolRef
from symbi.guard.approval import ApprovalRecord, statement
from symbi.guard.approval import ApprovalState as S
from symbi.guard.desk import ApprovalDesk, Ballot, DeskRules
from symbi.guard.people import VOTE_DOMAIN, People, Person
from symbi.policy.catalog import ToolType
from symbi.policy.engine import PolicySource
from symbi.policy.policies import PolicySet
from symbi.testing.gate import Gate, open_gate
from symbi.types import AgentId, Confidentiality, EffectId, Integrity, Label, Principal, RecoveryClass, RunId, ToolName

pytestmark = pytest.mark.anyio

PROVIDER = open_provider("openssl")
KEYS = {name: SigningKey(name.encode() * 8, PROVIDER) for name in ("adaa", "bobb")}
PEOPLE = People(
    [Person("ada", key=KEYS["adaa"].verifying_key()), Person("bob", 1002, "bob", KEYS["bobb"].verifying_key())]
)
SCHEMA = {
    "type": "object",
    "properties": {
        "to": {"type": "string"},
        "amount": {"type": "integer"},
        "body": {"type": "string"},
        "urgent": {"type": "boolean"},
        "cc": {"type": "array", "items": {"type": "string"}},
    },
}
TOOLS = [ToolType(ToolName("s.send"), SCHEMA), ToolType(ToolName("s.other"), SCHEMA)]
ARGUMENTS = {"to": "x@example.com", "amount": 900, "body": "pay the bill", "urgent": False, "cc": ["a", "b"]}
POLICY = '@id("p") @approval("people=2") permit (principal, action, resource);'
ACTION = InvokeTool(
    principal=Principal(AgentId("a"), owner="carl", groups=("g",)),
    slot=RunSlot(RunId("r"), 0),
    tool=ToolRef(ToolName("s.send"), "s", "d" * 64, SCHEMA, verified=True),
    values=ARGUMENTS,
    label=Label(Integrity.TRUSTED, Confidentiality.INTERNAL, ("e1", "task")),
    labels={name: Label(sources=("task",)) for name in ARGUMENTS},
)


@asynccontextmanager
async def granted() -> Iterator[tuple[Gate, ApprovalRecord]]:
    """An approval by two people: by signature, and by the user that the socket saw."""
    async with open_gate(POLICY, tools=TOOLS, desk=DeskRules(PEOPLE)) as gate:
        approval_id = await held(gate, ACTION)
        record = await gate.guard.approvals.find(approval_id)
        signed = KEYS["adaa"].sign(VOTE_DOMAIN, statement(approval_id, record.digest, agrees=True, reason="yes"))
        await gate.guard.approvals.vote(
            Ballot(approval_id, record.digest, True, "yes", 7, signed.hex(), KEYS["adaa"].key_id)
        )
        yield gate, await gate.guard.approvals.vote(Ballot(approval_id, record.digest, True, "fine", 1002))


async def held(gate: Gate, action: InvokeTool) -> str:
    with pytest.raises(ApprovalPending) as pending:
        async with gate.guard.enforce(action):
            pytest.fail("the body ran")
    return str(pending.value.fields["approval"])


async def nothing_happens(gate: Gate, action: InvokeTool) -> None:
    with pytest.raises((Denied, InputError, SymbiError)):
        async with gate.guard.enforce(action):
            pytest.fail("the body ran")


async def test_unchanged_it_happens_once_and_no_more():
    """What every case below stands on: without a change, the effect happens."""
    async with granted() as (gate, record):
        async with gate.guard.enforce(ACTION) as permit:
            assert permit.effect_id == record.id
        await nothing_happens(gate, ACTION)  # the same place again
        await nothing_happens(gate, replace(ACTION, slot=RunSlot(RunId("r"), 1)))  # and the next


def changed_text(text: str, rng: random.Random) -> str:
    """A text with one character changed, taken away or put in."""
    at = rng.randrange(len(text))
    kind = rng.choice(("change", "remove", "insert", "case"))
    letter = rng.choice("abcxyz0189@.- \u0430")  # the last looks like a Latin letter
    changed = {
        "change": text[:at] + letter + text[at + 1 :],
        "remove": text[:at] + text[at + 1 :],
        "insert": text[:at] + letter + text[at:],
        "case": text[:at] + text[at].swapcase() + text[at + 1 :],
    }[kind]
    return changed if changed != text else text + letter


def changed_actions() -> Iterator[InvokeTool]:
    """The action with one thing changed, without end."""
    rng = random.Random(20261125)
    levels = [*Integrity, *Confidentiality]
    for number in itertools.count():
        match number % 12:
            case 0 | 1:
                yield replace(ACTION, values={**ARGUMENTS, "to": changed_text(ARGUMENTS["to"], rng)})
            case 2:
                yield replace(ACTION, values={**ARGUMENTS, "body": changed_text(ARGUMENTS["body"], rng)})
            case 3:
                yield replace(ACTION, values={**ARGUMENTS, "amount": 900 + rng.choice((1, -1)) * rng.randint(1, 10**9)})
            case 4:
                gone = rng.choice(sorted(ARGUMENTS))
                yield replace(ACTION, values={name: value for name, value in ARGUMENTS.items() if name != gone})
            case 5:
                cc = rng.choice((["b", "a"], ["a"], ["a", "b", "b"], [], ["a", changed_text("b", rng)]))
                yield replace(ACTION, values={**ARGUMENTS, "cc": cc, "urgent": rng.random() < 0.5})
            case 6:
                who = rng.choice(
                    (
                        {"agent": AgentId(changed_text("agent", rng))},
                        {"owner": changed_text("carl", rng)},
                        {"groups": ("g", "h")},
                        {"groups": ()},
                        {"trust": "trusted"},
                    )
                )
                yield replace(ACTION, principal=replace(ACTION.principal, **who))
            case 7:
                level = rng.choice(levels)
                field = "integrity" if isinstance(level, Integrity) else "confidentiality"
                label = replace(Label(sources=("task",)), **{field: level})
                label = label if label != ACTION.labels["to"] else replace(label, sources=("file",))
                yield replace(ACTION, labels={**ACTION.labels, rng.choice(sorted(ARGUMENTS)): label})
            case 8:
                yield replace(ACTION, label=replace(ACTION.label, sources=(f"e{number}",)))
            case 9:
                tool = rng.choice(
                    (
                        {"name": ToolName("s.other")},
                        {"schema_digest": f"{number:064x}"},
                        {"verified": False},
                        {"recovery": RecoveryClass.IDEMPOTENT},
                        {"server": "t"},
                    )
                )
                yield replace(ACTION, tool=replace(ACTION.tool, **tool))
            case 10:
                slot = rng.choice((RunSlot(RunId("r"), number), RunSlot(RunId(f"r{number}"), 0), None))
                yield replace(ACTION, slot=slot)
            case _:
                yield replace(ACTION, timeout_s=30 + number, secrets=rng.choice(((), ("a/secret",))))


CHANGED_ACTIONS = list(
    itertools.islice({repr(one): one for one in itertools.islice(changed_actions(), 900)}.values(), 420)
)


@pytest.mark.parametrize("part", range(12))
async def test_another_action_is_not_what_was_agreed_to(part):
    for action in CHANGED_ACTIONS[part::12]:
        async with granted() as (gate, record):
            assert action != ACTION
            await nothing_happens(gate, action)
            after = await gate.guard.approvals.find(record.id)
            assert after.state in {S.GRANTED, S.VOID}  # elsewhere in the run it is untouched; at its place it is void


async def test_another_policy_version_is_not_what_was_agreed_to():
    rng = random.Random(7)
    for number in range(40):
        async with granted() as (gate, record):
            more = rng.choice(
                (
                    f"// {number}\n{POLICY}",
                    POLICY + f'\n@id("q{number}") permit (principal == Agent::"z", action, resource);',
                    POLICY.replace("people=2", f"people=2; why=because {number}"),
                    POLICY.replace('"p"', f'"p{number}"'),
                    POLICY.replace("@approval", f'@timeout("{number + 1}s") @approval'),
                )
            )
            gate.engine.replace(PolicySet.load([PolicySource("test.cedar", more)], tools=TOOLS))
            await nothing_happens(gate, ACTION)
            assert (await gate.guard.approvals.find(record.id)).state is S.VOID


def changed_records(record: ApprovalRecord) -> Iterator[ApprovalRecord]:
    """The record with one thing changed, as somebody with a pen in the store might."""
    facts = record.read_facts()
    for name, value in facts.items():
        yield replace(
            record, facts=json.dumps({**facts, name: [value]}, sort_keys=True, separators=(",", ":")).encode()
        )
        yield replace(record, facts=json.dumps({n: v for n, v in facts.items() if n != name}).encode())
    for at in range(0, len(record.facts), max(1, len(record.facts) // 48)):
        yield replace(record, facts=record.facts[:at] + bytes([record.facts[at] ^ 1]) + record.facts[at + 1 :])
    for at in range(0, 64, 4):
        flipped = "0" if record.digest[at] != "0" else "1"
        yield replace(record, digest=record.digest[:at] + flipped + record.digest[at + 1 :])
    yield replace(record, shown=b'{"to":"somebody else"}')
    yield replace(record, expires_at=rfc3339(2**62))
    yield replace(record, expires_at="never")
    yield replace(record, created_at=rfc3339(1))
    yield replace(record, agent_id=AgentId("b"))
    yield replace(record, run_id=RunId("s"))
    yield replace(record, position=1)
    yield replace(record, id=EffectId("another"))
    first, second = record.votes
    for votes in (
        (), (first,), (second,), (first, first), (second, second),
        (first, replace(first, person="bob")), (replace(first, person="eve"), second),
        (first, replace(second, person="carl")), (first, replace(second, uid=1003)), (first, replace(second, uid=None)),
        (replace(first, reason="no"), second), (replace(first, signature="00" * 64), second),
        (replace(first, signature=""), second), (replace(first, signature="", uid=7), second),
        (replace(first, agrees=False), second), (first, replace(second, agrees=False)),
        (first, replace(first, person="bob", reason="again")),
    ):  # fmt: skip
        yield replace(record, votes=votes)
    for state in S:
        if state is not S.GRANTED:
            yield replace(record, state=state)


def overwrite(store: SqliteStore, record: ApprovalRecord, place: str) -> None:
    store._db.execute("DELETE FROM approvals")
    store._db.execute(
        "INSERT INTO approvals VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            record.id, record.run_id, record.position, record.agent_id, place, record.facts, record.digest, record.shown,
            record.state.value, msgspec.json.encode(record.votes), record.created_at, record.expires_at, record.revision,
        ),
    )  # fmt: skip


async def test_a_record_that_was_altered_in_the_store_lets_nothing_happen():
    async with granted() as (_, record):
        cases = len(list(changed_records(record)))
    assert cases >= 130
    for number in range(cases):
        async with granted() as (gate, record):
            altered = list(changed_records(record))[number]
            overwrite(gate.store, altered, record.place)
            await nothing_happens(gate, ACTION)


async def test_who_agreed_and_is_registered_no_more_does_not_count():
    others = [
        People([Person("bob", 1002, "bob", KEYS["bobb"].verifying_key())]),  # ada is gone
        People([Person("ada", key=KEYS["bobb"].verifying_key()), Person("bob", 1002, "bob")]),  # has another key
        People([Person("ada", key=KEYS["adaa"].verifying_key()), Person("bob", 1003, "bob")]),  # is another user
        People([Person("ada", key=KEYS["adaa"].verifying_key(), accounts=("carl",)), Person("bob", 1002, "bob")]),
        People([Person("ada", key=KEYS["adaa"].verifying_key()), Person("rob", 1002, "bob")]),
    ]
    for people in others:
        async with granted() as (gate, _):
            gate.guard.approvals = ApprovalDesk(gate.log, gate.store, gate.clock, DeskRules(people))
            await nothing_happens(gate, ACTION)


async def test_a_signed_vote_is_good_for_one_approval_only():
    """A signature that is handed in again for another approval, another answer or another reason is refused."""
    async with granted() as (gate, record):
        second = await held(gate, replace(ACTION, slot=RunSlot(RunId("r"), 5)))
        digest = (await gate.guard.approvals.find(second)).digest
        old = record.votes[0].signature
        for ballot in (
            Ballot(second, digest, True, "yes", 7, old, KEYS["adaa"].key_id),
            Ballot(second, record.digest, True, "yes", 7, old, KEYS["adaa"].key_id),
            Ballot(second, digest, True, "", 7, old, KEYS["adaa"].key_id),
            Ballot(second, digest, True, "yes", 7, old, KEYS["bobb"].key_id),
            Ballot(record.id, record.digest, True, "yes", 7, old, KEYS["adaa"].key_id),
        ):
            with pytest.raises(SymbiError):
                await gate.guard.approvals.vote(ballot)
        assert (await gate.guard.approvals.find(second)).votes == ()


def test_there_are_five_hundred_changes_of_what_is_asked_and_kept():
    assert len({repr(action) for action in CHANGED_ACTIONS}) == 420
    assert 420 + 40 + 130 >= 500  # beside policy versions and records


async def test_a_denial_that_was_overwritten_with_a_grant_has_too_few_votes():
    async with open_gate(POLICY, tools=TOOLS, desk=DeskRules(PEOPLE)) as gate:
        approval_id = await held(gate, ACTION)
        record = await gate.guard.approvals.find(approval_id)
        denied = await gate.guard.approvals.vote(Ballot(approval_id, record.digest, False, "no", 1002))
        overwrite(gate.store, replace(denied, state=S.GRANTED), record.place)
        await nothing_happens(gate, ACTION)


async def test_nothing_is_asked_where_there_is_no_desk():
    async with open_gate(POLICY, tools=TOOLS) as gate:
        with pytest.raises(ApprovalRequired, match="nobody can be asked"):
            async with gate.guard.enforce(ACTION):
                pytest.fail("the body ran")
