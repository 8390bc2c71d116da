"""The gate on what is about people: nothing of it in the clear, nothing done that cannot be sealed."""

import hashlib
from dataclasses import replace

import pytest

from symbi.adapters.keys import FileKeyStore
from symbi.agent.task import label_json
from symbi.compliance.evaluate import evaluate
from symbi.compliance.gauges import Period
from symbi.compliance.library import NAMES, framework_named
from symbi.crypto.canonical import canonical_json
from symbi.errors import (
    AskFailed,
    DecryptionFailed,
    EffectInDoubt,
    InternalError,
    PolicyDenied,
    StoreUnavailable,
    ToolFailed,
)
from symbi.guard.action import InvokeTool, ReadClock, RunSlot, SendMessage, ToolRef
from symbi.guard.confidential import opened_effect, revealed
from symbi.guard.ledger import EffectState
from symbi.guard.outcome import UNANSWERED, encode_result, mark_error
from symbi.guard.sealed import is_sealed, read_sealed
from symbi.guard.sealed_approvals import SealedApprovals
from symbi.guard.settlement import Conclusion
from symbi.policy.catalog import ToolType
from symbi.policy.fields import ToolFlow, parse_path
from symbi.testing.contracts_approvals import APPROVAL_CHECKS
from symbi.testing.gate import ALLOW_ALL, DENY_ALL, open_gate
from symbi.types import AgentId, Label, Principal, RecoveryClass, RunId, ToolName

pytestmark = pytest.mark.anyio

AGENT = Principal(AgentId("a"))
SCHEMA = {"type": "object", "properties": {"to": {"type": "string"}, "amount": {"type": "integer"}}}
TOOLS = [ToolType(ToolName("s.send"), SCHEMA)]
VALUES = {"to": "anna@quux.example", "amount": 918273645}
WORDS = (b"anna@quux", b"918273645", b"groats")
OVERFLOW = """permit (principal, action == Action::"InvokeTool::s.send", resource)
when { context.arguments has amount && context.arguments.amount + 9223372036854775807 > 1 };"""
ANSWERS = ToolFlow(about=(parse_path("email"),))
RUN = RunId("r")


def send(flow=ToolFlow(), subjects=("anna",), recovery=RecoveryClass.IDEMPOTENT, **values):  # noqa: B008 - frozen
    tool = ToolRef(ToolName("s.send"), "s", "d" * 64, SCHEMA, verified=True, recovery=recovery, flow=flow)
    return InvokeTool(
        principal=AGENT, slot=RunSlot(RUN, 0), tool=tool, values=VALUES | values, label=Label(subjects=subjects)
    )


@pytest.fixture
def keys(tmp_path):
    return FileKeyStore(tmp_path / "keys")


def held(folder):
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def perform(gate, action, answer=None):
    async with gate.guard.enforce(action) as permit:
        gate.guard.authority.redeem(permit, type(action))
        if isinstance(answer, Exception):
            raise answer
        permit.observe(answer)


async def test_decision_outcome_and_facts_are_sealed_and_open_again(keys, tmp_path):
    async with open_gate(
        '@id("a") @output("full") permit (principal, action, resource);', tools=TOOLS, keys=keys, folder=tmp_path / "d"
    ) as gate:
        await perform(gate, send(), {"note": "owes ninety groats"})
        data = held(tmp_path / "d")
        assert not [word for word in WORDS if word in data]
        plain = hashlib.sha256(canonical_json(VALUES)).hexdigest().encode()
        assert plain not in data, "the digest of what few values there are is no secret"
        record = gate.store.effect_at(RUN, 0)
        assert opened_effect(record, gate.vault).result == b'{"note":"owes ninety groats"}'
        decision, outcome = (revealed(event, gate.vault) for event in gate.events()[1:])
        assert decision.details["arguments"] == VALUES
        assert "groats" in outcome.details["result"]
        assert outcome.details["result_digest"] == hashlib.sha256(record.result).hexdigest()


def ask(subjects=()):
    other = Principal(AgentId("b"))
    return SendMessage(
        principal=AGENT, slot=RunSlot(RUN, 0), to=other, body={}, expects_reply=True, label=Label(subjects=subjects)
    )


@pytest.mark.parametrize("subjects", [(), ("bert",)])
async def test_an_answer_is_sealed_for_whom_its_label_names(keys, tmp_path, subjects):
    """Whom an agent learned of while it worked was not known when it was asked."""
    answer = {"value": "owes ninety groats", "label": label_json(Label(subjects=("anna",)))}
    async with open_gate(keys=keys, folder=tmp_path / "d") as gate:
        await perform(gate, ask(subjects), answer)
        assert b"groats" not in held(tmp_path / "d")
        record = gate.store.effect_at(RUN, 0)
        assert b"groats" in opened_effect(record, gate.vault).result
        assert len(read_sealed(record.result).keys) == 1 + len(subjects)


async def test_the_failure_of_whom_it_asked_is_sealed_likewise(keys, tmp_path):
    error = AskFailed("anna owes ninety groats")
    mark_error(error, Label(subjects=("anna",)))
    async with open_gate(keys=keys, folder=tmp_path / "d") as gate:
        with pytest.raises(AskFailed):
            await perform(gate, ask(), error)
        assert b"groats" not in held(tmp_path / "d")
        record = gate.store.effect_at(RUN, 0)
        assert record.state is EffectState.FAILED
        assert b"groats" in opened_effect(record, gate.vault).error


async def test_a_question_that_is_not_answered_yet_leaves_the_effect_open(keys):
    """It is asked again by the same id: nothing of an error is on record that a replay would give."""
    async with open_gate(keys=keys) as gate:
        with pytest.raises(EffectInDoubt):
            await perform(gate, ask(), EffectInDoubt("it is held", code=UNANSWERED))
        record = gate.store.effect_at(RUN, 0)
        assert (record.state, record.error) == (EffectState.UNKNOWN, None)
        await perform(gate, ask(), {"value": 1, "label": label_json(Label())})
        again = gate.store.effect_at(RUN, 0)
        assert (again.state, again.effect_id) == (EffectState.CONFIRMED, record.effect_id)


async def test_what_is_about_nobody_stays_as_it_was(keys):
    async with open_gate(tools=TOOLS, keys=keys) as gate, open_gate(tools=TOOLS) as bare:
        for one in (gate, bare):
            await perform(one, send(subjects=()), {"note": "groats"})
        ours, theirs = gate.store.effect_at(RUN, 0), bare.store.effect_at(RUN, 0)
        assert (ours.arguments_digest, ours.result) == (theirs.arguments_digest, theirs.result)
        assert [set(event.details) for event in gate.events()] == [set(event.details) for event in bare.events()]
        assert gate.store.any_subject_key() is None


@pytest.mark.parametrize(
    "policies",
    [DENY_ALL, OVERFLOW],
)
async def test_a_refusal_quotes_nobody(keys, tmp_path, policies):
    async with open_gate(policies, tools=TOOLS, keys=keys, folder=tmp_path / "d") as gate:
        with pytest.raises(PolicyDenied):
            await perform(gate, send())
        assert not [word for word in WORDS if word in held(tmp_path / "d")]
        denied = revealed(gate.events()[1], gate.vault)
        assert denied.details["verdict"] == "deny"
        assert denied.details["arguments"] == VALUES
        assert denied.details["reason"]


async def test_an_error_is_about_whom_the_call_is_about_or_a_crowd(keys, tmp_path):
    async with open_gate(tools=TOOLS, keys=keys, folder=tmp_path / "d") as gate:
        for subjects, found in ((("anna",), ["anna"]), ((), ["*"])):
            error = ToolFailed("no: anna owes ninety groats")
            action = replace(send(ANSWERS, subjects, **({} if subjects else {"to": "x", "amount": 1})), slot=None)
            with pytest.raises(ToolFailed):
                await perform(gate, action, error)
            assert error.fields["subjects"] == found
        assert b"groats" not in held(tmp_path / "d")


async def test_without_a_vault_or_its_master_nothing_happens(keys, tmp_path):
    async with open_gate(tools=TOOLS) as gate:
        with pytest.raises(InternalError, match="no vault"):
            await perform(gate, send())
        assert len(gate.events()) == 1
    async with open_gate(tools=TOOLS, keys=keys, folder=tmp_path / "d") as gate:
        await perform(gate, send(), 1)
    other = FileKeyStore(tmp_path / "other")
    async with open_gate(tools=TOOLS, keys=other, folder=tmp_path / "d") as gate:
        before = len(gate.events())
        with pytest.raises(StoreUnavailable, match="not the one that wrapped"):
            await perform(gate, replace(send(), slot=RunSlot(RUN, 1)))
        assert len(gate.events()) == before
        assert gate.store.effect_at(RUN, 1) is None


async def test_an_answer_whose_subject_has_no_key_leaves_the_effect_in_flight(keys, monkeypatch):
    def full(_key):
        raise StoreUnavailable("the disk is full")

    async with open_gate(tools=TOOLS, keys=keys) as gate:
        with pytest.raises(StoreUnavailable, match="full"):
            async with gate.guard.enforce(send(ANSWERS, ("ben",))) as permit:
                gate.guard.authority.redeem(permit, InvokeTool)
                permit.observe({"email": "anna@quux.example"})
                monkeypatch.setattr(gate.store, "put_subject_key", full)
        assert gate.store.effect_at(RUN, 0).state is EffectState.DISPATCHED
        assert gate.store.effect_at(RUN, 0).result is None


async def test_in_doubt_it_is_the_same_call_or_none(keys, tmp_path):
    folder = tmp_path / "d"
    for values, error in (({"amount": 1}, InternalError), ({}, None)):
        async with open_gate(tools=TOOLS, keys=keys, folder=folder) as gate:
            if gate.store.effect_at(RUN, 0) is None:
                with pytest.raises(RuntimeError):
                    await perform(gate, send(), RuntimeError())
            assert gate.store.effect_at(RUN, 0).state is EffectState.UNKNOWN
            if error is None:
                await perform(gate, send(**values), 1)
            else:
                with pytest.raises(error, match="not what it was"):
                    await perform(gate, send(**values))
    assert gate is not None


async def test_in_doubt_and_erased_nobody_can_say(keys):
    async with open_gate(tools=TOOLS, keys=keys) as gate:
        with pytest.raises(RuntimeError):
            await perform(gate, send(), RuntimeError())
        await gate.log.transact(lambda: (gate.vault.destroy("anna"), ()))
        with pytest.raises((DecryptionFailed, EffectInDoubt), match="erased"):
            await perform(gate, send())


async def test_a_lease_digests_its_uses_under_the_key(keys):
    async with open_gate(keys=keys) as gate:
        async with gate.guard.lease(
            ReadClock(principal=AGENT, label=Label(subjects=("anna",))), uses=2, seconds=9
        ) as lease:
            lease.use({"x": 1})
        closed = gate.events()[-1]
        assert str(revealed(closed, gate.vault).details["digest"]).startswith("hmac:")


@pytest.mark.parametrize("check", APPROVAL_CHECKS, ids=lambda check: check.__name__)
async def test_the_contract_of_approvals_holds_where_they_are_sealed(check, keys):
    async with open_gate(ALLOW_ALL, keys=keys) as gate:
        anna = await gate.vault.ready(["anna"])

        class Sealed(SealedApprovals):
            transaction = gate.store.transaction

            def put_approval(self, record):
                super().put_approval(replace(record, keys=anna))

            def move_approval(self, record, was):
                super().move_approval(replace(record, keys=anna), was)

        check(Sealed(gate.store, gate.vault))
        rows = gate.store._db.execute("SELECT facts, shown, votes FROM approvals").fetchall()
        assert all(column is None or column[:1] == b"\x01" for row in rows for column in row)


async def test_a_refusal_about_a_person_is_as_good_evidence_as_any_other(keys, tmp_path):
    """Its reason is sealed; no control may be less met for that."""
    found = []
    for subjects in ((), ("anna",)):
        async with open_gate(DENY_ALL, tools=TOOLS, keys=keys, folder=tmp_path / f"d{len(subjects)}") as gate:
            with pytest.raises(PolicyDenied):
                await perform(gate, send(subjects=subjects))
            events = gate.events()
        period = Period(events[0].timestamp, "9999-12-31T23:59:59.999999999Z")
        frameworks = [framework_named(name) for name in NAMES]
        ends = events[-1].timestamp
        results = [evaluate(one, events, period, size=len(events), end=ends).controls for one in frameworks]
        found.append({(one.control.id, c.claim.id): c.finding for each in results for one in each for c in one.claims})
        assert any(event.details.get("private") for event in events) is bool(subjects)
    assert found[0] == found[1]


async def test_a_large_value_is_hashed_as_it_was_sealed_and_is_lost_with_its_key(keys, tmp_path):
    large = {"note": "owes ninety groats " * 1000}
    async with open_gate(tools=TOOLS, keys=keys, folder=tmp_path / "d") as gate:
        await perform(gate, send(), large)
        (row,) = gate.store._db.execute("SELECT digest, bytes FROM payloads").fetchall()
        record = gate.store.effect_at(RUN, 0)
        assert row == (hashlib.sha256(record.result).digest(), record.result)
        assert is_sealed(row[1])
        data = held(tmp_path / "d")
        assert not [word for word in WORDS if word in data]
        assert hashlib.sha256(encode_result(large)).digest() not in data
        assert opened_effect(record, gate.vault).result == encode_result(large)
        assert [row.place for row in gate.store.sealed_rows("effects", "")[0]] == ["effects.result"]
        await gate.log.transact(lambda: (gate.vault.destroy("anna"), ()))
        with pytest.raises(DecryptionFailed, match="erased"):
            opened_effect(record, gate.vault)


async def test_what_came_of_a_call_in_doubt_is_sealed_as_the_call_was(keys, tmp_path):
    folder = tmp_path / "d"
    async with open_gate(tools=TOOLS, keys=keys, folder=folder) as gate:
        with pytest.raises(RuntimeError):
            await perform(gate, send(), RuntimeError())
        record = gate.store.effect_at(RUN, 0)
        sealing = await gate.vault.ready(["anna"])
        told = {"reason": "anna@quux says so"}
        await gate.guard.settlement.conclude(record, Conclusion(True, "ben", b'"ninety groats"', told, keys=sealing))
        assert not [word for word in WORDS if word in held(folder)]
        settled = gate.store.effect_at(RUN, 0)
        assert settled.state is EffectState.RECONCILED
        assert opened_effect(settled, gate.vault).result == b'"ninety groats"'
        event = revealed(gate.events()[-1], gate.vault)
        assert (event.details["by"], event.details["reason"]) == ("ben", "anna@quux says so")
