"""What a decision was made on is kept with it, durably, and hides what its conditions hide."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from symbi.adapters.sqlite import SqliteReader
from symbi.adapters.sqlite.facts import RequestRow
from symbi.audit.event import Draft
from symbi.errors import ApprovalRequired, InputError, Place, PolicyDenied, StoreUnavailable, SymbiError
from symbi.guard.action import InvokeTool, ReadClock, ToolRef
from symbi.guard.facts import MAX_REQUEST_BYTES, FactKeeper
from symbi.guard.why import derive
from symbi.policy.catalog import ToolType
from symbi.policy.decision import Allow, Deny, PolicyRequest
from symbi.policy.engine import PolicyEngine, PolicySource, decide
from symbi.policy.policies import PolicySet
from symbi.policy.stored import load_set, read_request, set_text
from symbi.testing.gate import ALLOW_ALL, Gate, open_gate
from symbi.types import (
    AgentId,
    Confidentiality,
    EffectId,
    Integrity,
    JsonValue,
    Label,
    Principal,
    RecoveryClass,
    ToolName,
)

pytestmark = pytest.mark.anyio

SCHEMA: JsonValue = {
    "type": "object",
    "properties": {"to": {"type": "string"}, "body": {"type": "string"}, "sum": {"type": "integer"}},
}
MAIL = ToolType("mail.send", SCHEMA)
ME = Principal(AgentId("a"), "ada", ("ops",))
PERMIT = "permit (principal, action, resource);"
DANGER = "the body that nobody may read"


def send(**values: JsonValue) -> InvokeTool:
    ref = ToolRef(ToolName("mail.send"), "mail", "0", SCHEMA, verified=True, recovery=RecoveryClass.IDEMPOTENT)
    label = Label(Integrity.UNTRUSTED, Confidentiality.INTERNAL, ("e1", "e2"))
    return InvokeTool(principal=ME, tool=ref, values=values, labels={"to": label}, label=label)


@dataclass(frozen=True)
class Rule:
    """A compiled rule, as a set takes it."""

    id: str
    text: str
    place: Place


async def decide_one(policies: str, action: InvokeTool | ReadClock, folder: Path) -> tuple[RequestRow, str, str]:
    """Its stored request, the digest that its event names, and the text of its policy set."""
    async with open_gate(policies, folder=folder, tools=[MAIL]) as gate:
        await attempt(gate, action)
        event = next(e for e in reversed(gate.events()) if "request_digest" in e.details)
    with SqliteReader(folder) as reader:
        (row,) = reader.requests()
        text = reader.policy_set(str(event.details["policy_version"]))
        assert text is not None
        assert reader.requests_of(row.effect_id) == [row]
        assert event.details["effect_id"] == row.effect_id
        effect = reader.get_effect(row.effect_id)
        assert effect is not None
        assert effect.policy_version == event.details["policy_version"]
    return row, str(event.details["request_digest"]), text


async def attempt(
    gate: Gate, action: InvokeTool | ReadClock, then: Callable[[], object] = lambda: None
) -> SymbiError | None:
    try:
        async with gate.guard.enforce(action):
            then()
    except SymbiError as error:
        return error
    return None


@pytest.mark.parametrize("policies", [ALLOW_ALL, "", 'permit (principal, action, resource); @id("no") forbid (principal, action, resource);'])  # fmt: skip
async def test_what_was_decided_on_makes_the_same_decision_again(policies: str, tmp_path: Path) -> None:
    action = send(to="x@example.org", body="é", sum=2**62)
    row, digest, text = await decide_one(policies, action, tmp_path)
    assert row.digest == digest == hashlib.sha256(row.request).hexdigest()
    stored = read_request(row.request)
    assert stored.withheld == ""
    assert stored.request.context == action.request().context
    assert stored.request.principal == ME
    assert stored.labels == (
        ("", "untrusted", "internal", ("e1", "e2")),
        ("to", "untrusted", "internal", ("e1", "e2")),
    )
    whole = load_set(text, PolicySet.load([PolicySource("test.cedar", policies)], tools=[MAIL]).version)
    assert whole.same_schema
    assert decide(whole.policies, stored.request) == decide(whole.policies, action.request())


@pytest.mark.parametrize(
    ("annotation", "hidden"),
    [
        ('@redact("arguments.body")', {"body"}),
        ('@record("digest")', {"to", "body", "sum"}),
        ('@record("redacted")', {"to", "body", "sum"}),
        ('@redact("arguments.body") @approval("ask")', {"to", "body", "sum"}),
        ('@record("digest") @approval("ask")', {"to", "body", "sum"}),
        ('@record("full")', set()),
    ],
)
async def test_conditions_that_hide_arguments_hide_them_here_too(
    annotation: str, hidden: set[str], tmp_path: Path
) -> None:
    values: dict[str, JsonValue] = {"to": "x@example.org", "body": DANGER, "sum": 99887766}
    row, _, _ = await decide_one(f"{annotation} {PERMIT}", send(**values), tmp_path)
    stored = read_request(row.request)
    for name, value in values.items():
        assert (str(value).encode() in row.request) is (name not in hidden)
    assert bool(stored.withheld) is bool(hidden)
    if hidden:
        # The record of effects keeps no arguments, and what the trail shows of them is that of the conditions.
        assert (DANGER.encode() in (tmp_path / "symbi.db").read_bytes()) is ("body" not in hidden)


async def test_what_was_hidden_cannot_be_derived_again_and_that_is_said(tmp_path: Path) -> None:
    async with open_gate(f'@redact("arguments.body") {PERMIT}', folder=tmp_path, tools=[MAIL]) as gate:
        await attempt(gate, send(to="x", body=DANGER))
        await attempt(gate, send(to="x"))  # nothing to redact
        told = [event for event in gate.events() if "verdict" in event.details]
    with SqliteReader(tmp_path) as reader:
        rows = {row.digest: row.request for row in reader.requests()}
        derived = [
            derive(
                event,
                rows[str(event.details["request_digest"])],
                reader.policy_set(str(event.details["policy_version"])),
                reader.get_effect(EffectId(str(event.details["effect_id"]))),
            )
            for event in told
        ]
    assert [(each.agrees, each.problems) for each in derived] == [(False, ()), (True, ())]
    assert "a policy redacts `arguments.body`" in derived[0].notes[0]
    assert [policy.id for policy in derived[0].deciding] == ["test.cedar:1"]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"policies": []}, "policies none recorded"),
        ({"policies": [{"id": "all", "file": "test.cedar", "line": 2}]}, "line 2"),
        ({"conditions": [{"kind": "tier", "value": "gvisor", "policy": "all"}]}, "verdict `allow_with_conditions`"),
        ({"verdict": "deny", "errors": []}, "verdict `deny` recorded, `allow` derived"),
    ],
)
async def test_an_event_that_says_something_else_does_not_fit(
    changed: dict[str, JsonValue], told: str, tmp_path: Path
) -> None:
    async with open_gate(folder=tmp_path, tools=[MAIL]) as gate:
        await attempt(gate, send(to="x"))
        event = next(event for event in gate.events() if "verdict" in event.details)
    with SqliteReader(tmp_path) as reader:
        (row,) = reader.requests()
        text = reader.policy_set(str(event.details["policy_version"]))
        record = reader.get_effect(row.effect_id)
    assert derive(event, row.request, text, record).agrees
    altered = derive(replace(event, details={**event.details, **changed}), row.request, text, record)
    assert not altered.agrees
    assert any(told in problem for problem in altered.problems)


@pytest.mark.parametrize("table", ["requests", "policy_sets"])
async def test_where_the_facts_cannot_be_kept_nothing_happens_and_nothing_is_recorded(table: str) -> None:
    async with open_gate() as gate:
        gate.store._db.execute(
            f"CREATE TRIGGER stop BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'disk full'); END"
        )
        error = await attempt(gate, ReadClock(principal=ME), then=lambda: pytest.fail("the effect happened"))
        assert isinstance(error, StoreUnavailable)
        assert [event.event_type for event in gate.events()] == ["trail.started"]
        assert gate.store._all("SELECT count(*) FROM effects") == [(0,)]


async def test_a_large_request_is_kept_without_its_arguments(tmp_path: Path) -> None:
    row, _, _ = await decide_one(ALLOW_ALL, send(body="x" * MAX_REQUEST_BYTES), tmp_path)
    assert len(row.request) < 2000
    assert "bytes" in read_request(row.request).withheld


async def test_a_request_that_fits_no_schema_is_kept_as_far_as_it_goes(tmp_path: Path) -> None:
    row, _, _ = await decide_one(ALLOW_ALL, send(sum=2**70), tmp_path)
    assert "cannot be put to the engine" in read_request(row.request).withheld


async def test_a_set_is_written_once_and_the_facts_of_a_failed_reservation_are_not(tmp_path: Path) -> None:
    action = ReadClock(principal=ME)
    async with open_gate(ALLOW_ALL, folder=tmp_path) as gate:
        for _ in range(3):
            await attempt(gate, action)
        new = PolicySet.load([PolicySource("new.cedar", "")])
        gate.engine.replace(new)
        assert isinstance(await attempt(gate, action), PolicyDenied)
    with SqliteReader(tmp_path) as reader:
        assert len(reader.policy_set_versions()) == 2
        assert len(list(reader.requests())) == 4


async def test_a_refusal_before_the_engine_has_its_facts_and_its_event_names_the_effect() -> None:
    async with open_gate() as gate:
        refusal = InputError("no such tool")
        await gate.guard.refuse(send(), refusal, Draft("tool.refused", ME.agent, {}))
        assert gate.events()[-1].details["effect_id"]
        assert gate.store._all("SELECT count(*) FROM requests") == [(1,)]


async def test_held_means_kept(tmp_path: Path) -> None:
    async with open_gate(f'@approval("ask") {PERMIT}', folder=tmp_path) as gate:
        assert isinstance(await attempt(gate, ReadClock(principal=ME)), ApprovalRequired)
    with SqliteReader(tmp_path) as reader:
        assert len(list(reader.requests())) == 1


async def test_of_a_request_that_is_large_without_its_arguments_only_who_asked_for_what_is_kept() -> None:
    async with open_gate(ALLOW_ALL, tools=[MAIL]) as gate:
        action = replace(send(to="x"), values={f"open-{number:05}": 1 for number in range(6000)})
        assert await attempt(gate, action) is None
        ((request,),) = gate.store._all("SELECT request FROM requests")
        stored = read_request(request)
        assert stored.withheld == f"the request has more than {MAX_REQUEST_BYTES} bytes"
        assert (stored.request.principal, stored.request.action) == (ME, "InvokeTool::mail.send")


def test_a_request_that_cannot_be_made_is_refused_where_it_was_allowed_and_noted_where_it_was_denied() -> None:
    policies = PolicySet.load([PolicySource("a.cedar", ALLOW_ALL)])
    keeper = FactKeeper(PolicyEngine(policies))

    def fail() -> PolicyRequest:
        raise RuntimeError(DANGER)

    for decision in (Deny("no", (), policies.version), Allow((), policies.version)):
        if isinstance(decision, Allow):
            with pytest.raises(RuntimeError):
                keeper.of(fail, send(), decision, refused=False)
        else:
            kept = keeper.of(fail, send(), decision, refused=True)
            assert read_request(kept.request).withheld == "the action cannot be put to the engine: RuntimeError"


def test_a_stored_set_with_rules_of_agent_files_is_made_again_as_it_was() -> None:
    rule = Rule("triage.symbi:3", "permit (principal, action, resource);", Place("triage.symbi", 3, 5))
    policies = PolicySet.load([PolicySource("a.cedar", ALLOW_ALL)], [rule], [MAIL])
    again = load_set(set_text(policies), policies.version)
    assert again.same_schema
    assert [(each.id, each.place) for each in again.policies.policies] == [
        (each.id, each.place) for each in policies.policies
    ]


def test_a_stored_set_that_was_altered_is_told_from_itself() -> None:
    policies = PolicySet.load([PolicySource("a.cedar", ALLOW_ALL)], tools=[MAIL])
    text = set_text(policies)
    assert load_set(text, policies.version).policies.version == policies.version
    with pytest.raises(InputError, match="another set"):
        load_set(text.replace("permit (principal", "permit  (principal"), policies.version)
    with pytest.raises(InputError, match="another set"):
        load_set(text, "0" * 64)
    for damaged in ("", "[]", "{}", text[:-5], text.replace('"sources"', '"source"'), text.replace('"form":1', '"form":2')):  # fmt: skip
        with pytest.raises(InputError, match="damaged") as caught:
            load_set(damaged, policies.version)
        assert caught.value.code == "policy.stored"


@pytest.mark.parametrize("data", [b"", b"null", b"{}", b"\xff", b'{"form":1}', b'{"form":1,"principal":[],"resource":1,"context":2}'])  # fmt: skip
def test_a_damaged_request_is_named(data: bytes) -> None:
    with pytest.raises(InputError, match="damaged"):
        read_request(data)


def test_the_facts_are_of_the_set_that_decided_also_when_it_is_gone() -> None:
    first = PolicySet.load([PolicySource("a.cedar", ALLOW_ALL)])
    engine = PolicyEngine(first)
    keeper = FactKeeper(engine)
    for number in range(3):
        engine.replace(PolicySet.load([PolicySource(f"{number}.cedar", ALLOW_ALL)]))
    assert (
        keeper.of(
            ReadClock(principal=ME).request, ReadClock(principal=ME), Allow((), first.version), refused=False
        ).policies
        is first
    )
    for number in range(3, 9):
        engine.replace(PolicySet.load([PolicySource(f"{number}.cedar", ALLOW_ALL)]))
    assert (
        keeper.of(
            ReadClock(principal=ME).request, ReadClock(principal=ME), Allow((), first.version), refused=False
        ).policies
        is None
    )
