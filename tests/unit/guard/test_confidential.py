"""What of events, digests and columns is sealed, and how it comes back."""

from dataclasses import replace

import pytest

from symbi.adapters.keys import FileKeyStore
from symbi.agent.journal import RunRecord, RunState
from symbi.agent.sealing import opened_run, sealed_run
from symbi.audit.event import AuditEventType, Draft, parse_event
from symbi.crypto.keys import KeyRing
from symbi.crypto.provider import open_provider
from symbi.errors import DecryptionFailed, InternalError, StoreUnavailable
from symbi.guard.action import InvokeTool, ToolRef, WriteLog
from symbi.guard.confidential import (
    DAMAGED_TEXT,
    ERASED_TEXT,
    PRIVATE,
    PUBLIC,
    SEALED_TEXT,
    confided,
    failure_subjects,
    keyed,
    keyed_alike,
    keys_for,
    outcome_subjects,
    revealed,
    subjects_of,
)
from symbi.guard.vault import NO_KEYS, Vault
from symbi.policy.fields import UNDECLARED, ToolFlow, parse_path
from symbi.policy.flow import MORE_SUBJECTS
from symbi.testing.clock import ManualClock
from symbi.testing.log import open_log
from symbi.types import SYSTEM_AGENT, AgentId, Label, Principal, RunId, ToolName

pytestmark = pytest.mark.anyio

ME = Principal(AgentId("a"))
SHA = "ab" * 32
FACTS = {"effect_id": "e1", "verdict": "deny", "reason": "of Anna", "arguments": {"to": "anna"}, "attempt": 1}


@pytest.fixture
async def trail(tmp_path):
    async with open_log(tmp_path / "data") as opened:
        yield opened


@pytest.fixture
def vault(trail, tmp_path):
    return vault_in(trail, tmp_path / "keys")


def vault_in(trail, keys, **options):
    ring = KeyRing(FileKeyStore(keys), open_provider(), create=options.pop("create", True))
    return Vault(trail.store, ring, open_provider(), ManualClock(), trail.log, **options)


async def put(trail, keys, details, kind=AuditEventType.DECISION_DENY):
    await trail.log.append(confided(Draft(kind, AgentId("a"), details, "r"), keys))
    return parse_event(list(trail.store.read(1))[-1].record)


async def test_an_event_keeps_what_is_public_and_seals_the_rest(trail, vault):
    keys = await vault.ready(["anna"])
    event = await put(trail, keys, FACTS | {"added later": "anna"})
    assert set(event.details) == {"effect_id", "verdict", "attempt", PRIVATE}
    assert "nna" not in str(event.details)
    assert revealed(event, vault).details == FACTS | {"added later": "anna"}
    plain = await put(trail, NO_KEYS, FACTS)
    assert plain.details == FACTS
    assert revealed(plain, None) == plain


async def test_a_note_stands_for_what_does_not_open(trail, vault, tmp_path):
    event = await put(trail, await vault.ready(["anna"]), FACTS)
    assert revealed(event, None).details[PRIVATE] == SEALED_TEXT
    without = vault_in(trail, tmp_path / "none", create=False)
    assert revealed(event, without).details[PRIVATE] == SEALED_TEXT
    other = vault_in(trail, tmp_path / "other")
    assert revealed(event, other).details[PRIVATE] == SEALED_TEXT
    for moved in (
        replace(event, run_id="s"),
        replace(event, event_type=AuditEventType.DECISION_ALLOW),
        replace(event, details={**event.details, "effect_id": "e2"}),
        replace(event, details={**event.details, "attempt": 2}),
    ):
        assert revealed(moved, vault).details[PRIVATE] == DAMAGED_TEXT
    await trail.log.transact(lambda: (vault.destroy("anna"), ()))
    gone = revealed(event, vault)
    assert gone.details[PRIVATE] == ERASED_TEXT
    assert gone.details["verdict"] == "deny", "that it was decided stays"


def test_what_is_public_names_no_value():
    assert not {"arguments", "reason", "message", "result", "errors", "asks", "past", "fields"} & PUBLIC


async def test_a_digest_is_keyed_where_it_is_about_somebody(trail, vault):
    assert keyed(SHA, NO_KEYS) == SHA
    assert keyed_alike(SHA, SHA, vault.keys_of)
    assert not keyed_alike(SHA, "cd" * 32, vault.keys_of)
    kept = keyed(SHA, await vault.ready(["anna", "ben"]))
    assert SHA not in kept
    assert keyed_alike(kept, SHA, vault.keys_of)
    assert not keyed_alike(kept, "cd" * 32, vault.keys_of)
    await trail.log.transact(lambda: (vault.destroy("anna"), ()))
    with pytest.raises(DecryptionFailed, match="erased"):
        keyed_alike(kept, SHA, vault.keys_of)


async def test_whose_keys_are_taken(trail, vault, tmp_path):
    agent = AgentId("a")
    assert await keys_for(vault, agent, ()) is NO_KEYS
    assert await keys_for(None, agent, ()) is NO_KEYS
    with pytest.raises(InternalError, match="no vault"):
        await keys_for(None, agent, ["anna"])
    everything = vault_in(trail, tmp_path / "keys", all_agents=True)
    own = await keys_for(everything, agent, ())
    assert own.ids == (await keys_for(everything, agent, ())).ids
    assert own.ids != (await keys_for(everything, AgentId("b"), ())).ids
    assert (await keys_for(everything, agent, ["anna"])).ids == (await vault.ready(["anna"])).ids
    assert await keys_for(everything, SYSTEM_AGENT, ()) is NO_KEYS
    other = vault_in(trail, tmp_path / "other")
    with pytest.raises(StoreUnavailable, match="cannot be sealed"):
        await keys_for(other, agent, ["anna"])


def call(flow=None, values=(), **labels):
    tool = ToolRef(ToolName("crm.find"), "crm", "", {}, flow=flow or UNDECLARED)
    return InvokeTool(principal=ME, tool=tool, values=dict(values), labels=labels, label=Label(subjects=("whole",)))


def test_whom_an_action_is_about():
    log = WriteLog(principal=ME, message="m", label=Label(subjects=("anna",)))
    assert subjects_of(log) == ("anna",)
    assert subjects_of(call(x=Label(subjects=("ben",)))) == ("ben", "whole")
    named = ToolFlow(named_by=(parse_path("id"),), about=(parse_path("email"),))
    assert subjects_of(call(named, {"id": 17})) == ("17", "whole")
    assert outcome_subjects(call(named), {"email": "a@x.org"}) == ("a@x.org",)
    assert outcome_subjects(call(named), "text") == (MORE_SUBJECTS,)
    assert outcome_subjects(call(), {"email": "a@x.org"}) == outcome_subjects(log, "m") == ()
    assert failure_subjects(call(named)) == (), "it is about whom the call is about"
    assert failure_subjects(replace(call(named), label=Label(), values={})) == (MORE_SUBJECTS,)
    assert failure_subjects(replace(call(), label=Label())) == ()


async def test_of_each_run_its_own(vault):
    record = RunRecord(
        RunId("r1"), AgentId("a"), "f", "d", b'{"x":1}', RunState.FINISHED, b"1", b"{}", grant=b"{}", labels=b"{}"
    )
    keys = await vault.ready(["anna"])
    kept = sealed_run(record, keys)
    assert all(getattr(kept, name)[:1] == b"\x01" for name in ("inputs", "output", "error", "grant", "labels"))
    assert opened_run(kept, vault) == record
    assert sealed_run(record, NO_KEYS) == record == opened_run(record, None)
    for swapped in (
        replace(kept, run_id=RunId("r2")),
        replace(kept, output=kept.error),
        replace(kept, inputs=kept.labels),
    ):
        with pytest.raises(DecryptionFailed, match="belongs elsewhere"):
            opened_run(swapped, vault)
