"""The five enforcement points, each through the real gate: an allow and a deny, on trail and ledger.

Every policy here reads an attribute of an entity and a fact of the context, so that neither is there for show.
"""

import contextlib
import json
from dataclasses import replace

import pytest

from symbi.audit.event import AuditEventType as T
from symbi.errors import Denied, InputError, InternalError, PolicyDenied
from symbi.guard.action import (
    Action,
    AllocateResources,
    CallModel,
    ConfigureAgent,
    ConfigurePolicies,
    ConnectServer,
    CreateAgent,
    DataRef,
    DeclassifyValue,
    EndorseValue,
    ExecuteCode,
    ExportData,
    InvokeTool,
    ModelRef,
    PublishMessage,
    ReadData,
    RunSlot,
    SendMessage,
    SubscribeTopic,
    ToolRef,
    TopicRef,
    WriteData,
    WriteLog,
)
from symbi.guard.actions.people import ControlRuntime, RequestApproval
from symbi.guard.ledger import EffectState
from symbi.policy.catalog import ToolType
from symbi.policy.fields import Effect, Risk, Role, ToolFlow, parse_path
from symbi.testing.gate import ALLOW_ALL, open_gate
from symbi.types import (
    AgentId,
    Confidentiality,
    Integrity,
    Label,
    Principal,
    Resource,
    ResourceLimits,
    RunId,
    SecurityTier,
    ToolName,
)

pytestmark = pytest.mark.anyio

ME = Principal(AgentId("a"), "ada", ("ops",), "standard", "interpreter", ("mail.send", "log"))
OTHER = Principal(AgentId("b"), "bob", ("ops",), "trusted", "gvisor")
SCHEMA = {"type": "object", "properties": {"to": {"type": "string"}, "amount": {"type": "integer"}}}
TOOLS = [ToolType(ToolName("mail.send"), SCHEMA)]
TOOL = ToolRef(ToolName("mail.send"), "mail", "d" * 64, SCHEMA, verified=True)
NOTES = DataRef("Memory", "notes", "ada", "long-term", "internal", "support")
NEWS = TopicRef("news", "ada", "internal")
TAINTED = Label(Integrity.UNTRUSTED)
TRUSTED = Label(Integrity.TRUSTED)
SECRET = Label(confidentiality=Confidentiality.SECRET)


def create(**changes):
    return CreateAgent(**{"principal": ME, "source_digest": "d", "tier": SecurityTier.TIER2, "risk": 0.2, **changes})


def code(**changes):
    return ExecuteCode(**{"principal": ME, "code": "1", "code_digest": "d", **changes})


def steer(**changes):
    return ControlRuntime(**{"principal": ME, "operation": "stop", "uid": 1001, "folder_owner": True, **changes})


def replace_policies(**changes):
    return ConfigurePolicies(**{"principal": ME, "paths": ("b", "a", "b"), "digest": "d", "files": 2, **changes})


# (point, action's name, when, allowed, denied): the policy permits the first and not the second
POINTS = [
    (1, "CreateAgent", 'principal.capabilities.contains("log") && context.risk.lessThan(decimal("0.5"))',
     create(), create(risk=0.6)),
    (1, "CreateAgent", 'principal.tier == "interpreter" && resource.tier == principal.tier',
     create(), create(principal=replace(ME, tier="none"))),
    (1, "ConfigureAgent", 'resource.owner == principal.owner && context.keys == ["timeout"]',
     ConfigureAgent(principal=ME, agent=ME, changes={"timeout": 5}),
     ConfigureAgent(principal=ME, agent=OTHER, changes={"timeout": 5})),
    (2, "SendMessage", 'resource.trust == "trusted" && context.sizeBytes <= 10',
     SendMessage(principal=ME, to=OTHER, body="hello"), SendMessage(principal=ME, to=OTHER, body="hello, you")),
    (2, "PublishMessage", 'resource.owner == principal.owner && context.label.integrity != "untrusted"',
     PublishMessage(principal=ME, topic=NEWS, body="x"), PublishMessage(principal=ME, topic=NEWS, label=TAINTED)),
    (2, "SubscribeTopic", '["public", "internal"].contains(resource.classification)',
     SubscribeTopic(principal=ME, topic=NEWS),
     SubscribeTopic(principal=ME, topic=replace(NEWS, classification="secret"))),
    (3, "AllocateResources", 'principal in Group::"ops" && context.memoryMib <= 64',
     AllocateResources(principal=ME, limits=ResourceLimits(memory_mb=64)),
     AllocateResources(principal=ME, limits=ResourceLimits(memory_mb=65))),
    (4, "ConnectServer", 'resource == ToolServer::"mail" && context.command like "python *"',
     ConnectServer(principal=ME, server="mail", command="python mail.py"),
     ConnectServer(principal=ME, server="mail", command="sh mail.sh")),
    (4, "InvokeTool::mail.send", 'resource.verified && resource.server == "mail" && context.arguments has to',
     InvokeTool(principal=ME, tool=TOOL, values={"to": "x"}),
     InvokeTool(principal=ME, tool=replace(TOOL, verified=False), values={"to": "x"})),
    (4, "ExecuteCode", 'resource.tier == "interpreter" && context.memoryMib <= 64', code(), code(memory_mib=65)),
    (4, "CallModel", 'resource.provider == "acme" && context.maxTokens <= 1024',
     CallModel(principal=ME, model=ModelRef("m", "acme"), prompt="hi"),
     CallModel(principal=ME, model=ModelRef("m", "other"), prompt="hi")),
    (5, "ReadData", "resource.purpose == context.purpose && context.maxItems <= 100",
     ReadData(principal=ME, data=NOTES, purpose="support"), ReadData(principal=ME, data=NOTES, purpose="marketing")),
    (5, "WriteData", 'resource.kind == "long-term" && context.label.confidentiality != "secret"',
     WriteData(principal=ME, data=NOTES, content="x"), WriteData(principal=ME, data=NOTES, label=SECRET)),
    (5, "ExportData", 'resource.classification == "internal" && context.destination == "archive"',
     ExportData(principal=ME, data=NOTES, destination="archive", content="x"),
     ExportData(principal=ME, data=NOTES, destination="web", content="x")),
    (5, "EndorseValue", 'resource == Release::"checked" && context.after.integrity == "trusted"',
     EndorseValue(principal=ME, label=TAINTED, name="checked", value_digest="d", after=TRUSTED),
     EndorseValue(principal=ME, label=TAINTED, name="other", value_digest="d", after=TRUSTED)),
    (5, "DeclassifyValue", 'context.label.confidentiality != "secret" && context.after.confidentiality == "public"',
     DeclassifyValue(principal=ME, label=Label(), name="x", value_digest="d", after=Label()),
     DeclassifyValue(principal=ME, label=SECRET, name="x", value_digest="d", after=Label())),
]  # fmt: skip
IDS = [f"{point}-{name}-{number}" for number, (point, name, *_) in enumerate(POINTS)]


def test_the_table_reaches_all_five_points():
    assert {point for point, *_ in POINTS} == {1, 2, 3, 4, 5}


def permit(name, when, marks=""):
    return f'@id("may") {marks} permit(principal, action == Action::"{name}", resource) when {{ {when} }};'


@pytest.mark.parametrize(("_point", "name", "when", "good", "bad"), POINTS, ids=IDS)
async def test_a_point_allows_and_denies_and_both_are_recorded(_point, name, when, good, bad):
    good, bad = (replace(action, slot=RunSlot(RunId("r"), position)) for position, action in enumerate((good, bad)))
    async with open_gate(permit(name, when), tools=TOOLS) as gate:
        async with gate.guard.enforce(good) as granted:
            gate.guard.authority.redeem(granted, type(good))
            granted.observe("done")
        with pytest.raises(PolicyDenied, match=f"no policy permits `{name}`"):
            async with gate.guard.enforce(bad):
                pytest.fail("the body ran")
        allowed, denied = (gate.store.effect_at(RunId("r"), position) for position in (0, 1))
        assert (allowed.state, denied.state) == (EffectState.CONFIRMED, EffectState.DENIED)
        assert (allowed.action, denied.action) == (name, name)
        assert json.loads(allowed.result) == "done"
        events = [event for event in gate.events() if event.event_type != T.TRAIL_STARTED]
        assert [event.event_type for event in events] == [T.DECISION_ALLOW, T.EFFECT_OUTCOME, T.DECISION_DENY]
        assert events[0].details["policies"] == [{"id": "may", "file": "test.cedar", "line": 1}]
        assert {event.details["action"] for event in events} == {name}


@pytest.mark.parametrize(
    ("when", "good", "bad"),
    [
        ("context.folderOwner && context.uid == 1001", steer(), steer(folder_owner=False)),
        ('context.person == "ada" && resource == Resource::"stop"', steer(person="ada"), steer()),
        ("context.files <= 2", replace_policies(), replace_policies(files=3)),
        ('context.paths == ["a", "b"] && context.digest == "d"', replace_policies(), replace_policies(paths=("a",))),
    ],
)
async def test_what_people_ask_of_the_runtime_is_decided_like_anything_else(when, good, bad):
    async with open_gate(permit(good.kind, when)) as gate:
        async with gate.guard.enforce(good) as granted:
            assert gate.guard.authority.redeem(granted, type(good)) == good
        with pytest.raises(PolicyDenied, match=f"no policy permits `{good.kind}`"):
            async with gate.guard.enforce(bad):
                pytest.fail("the body ran")
        decided = gate.events()[1].details
        assert (decided["arguments"], decided["recovery"]) == (good.arguments(), "read-only")


def test_what_people_ask_stands_in_the_arguments_with_who_asks():
    assert steer(person="ada", values={"id": "x"}).arguments() == {"uid": 1001, "person": "ada", "values": {"id": "x"}}
    assert replace_policies().arguments() == {"paths": ["b", "a", "b"], "digest": "d", "files": 2}
    assert replace_policies().resource == Resource("Resource", "policies")
    asked = RequestApproval(principal=ME, who="ops", what="send it?", label=SECRET)
    assert (asked.arguments(), asked.approvals()) == ({"who": "ops", "what": "send it?"}, ("who=ops",))
    assert asked.request().context["who"] == "ops"
    assert asked.request().context["label"]["confidentiality"] == "secret"
    assert (replace(asked, who="").approvals(), asked.resource) == (("people=1",), Resource("Resource", "people"))


def test_what_a_tool_declares_of_its_arguments_is_what_policies_see():
    flow = ToolFlow(Effect.SEND, Risk.HIGH, ((parse_path("amount"), Role.PLAIN),))
    action = InvokeTool(
        principal=ME,
        tool=replace(TOOL, flow=flow),
        values={"to": "x@example.com", "amount": 1},
        labels={"to": TAINTED, "amount": TAINTED},
    )
    request = action.request()
    assert (request.context["sinks"], request.context["tainted"]) == (["to"], ["to"])
    assert {"risk": "high", "effect": "send"}.items() <= dict(request.resource.attributes).items()


def test_what_leaves_is_measured_and_what_runs_stands_in_the_arguments():
    leaves = ExportData(principal=ME, data=NOTES, destination="web", content={"a": "\u00e9"})
    assert leaves.request().context["sizeBytes"] == len('{"a":"\u00e9"}'.encode())
    asked = CallModel(principal=ME, model=ModelRef("m", "acme"), prompt="hi", tools=(ToolName("b.x"), ToolName("a.x")))
    assert asked.arguments() == {"prompt": "hi", "tools": ["a.x", "b.x"], "maxTokens": 1024}
    assert leaves.arguments() == {"content": {"a": "\u00e9"}, "destination": "web", "purpose": "unknown"}
    for kind in (EndorseValue, DeclassifyValue):
        released = kind(principal=ME, label=TAINTED, name="n", value_digest="d", value_bytes=7, after=TRUSTED)
        after = {"integrity": "trusted", "confidentiality": "public", "categories": []}
        assert released.arguments() == {"name": "n", "valueDigest": "d", "valueBytes": 7, "after": after}
    run = code(tier=SecurityTier.TIER2, inputs={"n": 1})
    assert run.arguments() == {"code_digest": "d", "tier": "gvisor", "inputs": {"n": 1}}


# --- conditions on every kind of action -------------------------------------------------------


async def effective(action: Action, marks: str) -> Action:
    async with open_gate(f'@id("may") {marks} permit(principal, action, resource);', tools=TOOLS) as gate:  # noqa: SIM117 - the gate first
        async with gate.guard.enforce(action) as granted:
            return gate.guard.authority.redeem(granted, type(action))


async def test_redaction_and_caps_reach_what_has_arguments():
    assert (
        await effective(WriteLog(principal=ME, message="x"), '@redact("arguments.message")')
    ).message == "[redacted]"
    sent = await effective(SendMessage(principal=ME, to=OTHER, body={"a": 1, "b": 2}), '@redact("arguments.body.a")')
    assert sent.body == {"a": "[redacted]", "b": 2}
    asked = await effective(
        CallModel(principal=ME, model=ModelRef("m", "acme"), prompt="hi"), '@cap("arguments.maxTokens=10")'
    )
    assert (asked.prompt, asked.max_tokens) == ("hi", 10)
    assert (await effective(ReadData(principal=ME, data=NOTES), '@cap("arguments.maxItems=5")')).max_items == 5
    run = await effective(
        code(inputs={"n": 9, "key": "k"}), '@cap("arguments.inputs.n=5") @redact("arguments.inputs.key")'
    )
    assert run.inputs == {"n": 5, "key": "[redacted]"}
    changed = await effective(
        ConfigureAgent(principal=ME, agent=ME, changes={"timeout": 90}), '@cap("arguments.timeout=60")'
    )
    assert changed.changes == {"timeout": 60}
    exported = await effective(
        ExportData(principal=ME, data=NOTES, destination="x", content={"name": "n", "id": 1}),
        '@redact("arguments.content.name")',
    )
    assert exported.content == {"name": "[redacted]", "id": 1}


async def test_caps_and_time_outs_reach_resources_and_a_tier_the_creation():
    limits = ResourceLimits(memory_mb=512, cpu_cores=2.0, execution_timeout=600.0)
    got = await effective(
        AllocateResources(principal=ME, limits=limits),
        '@cap("arguments.memoryMib=128, arguments.cpuMilli=500") @timeout("1m")',
    )
    assert got.limits == ResourceLimits(memory_mb=128, cpu_cores=0.5, execution_timeout=60.0)
    limits = ResourceLimits(512, 2.0, 7, 9, execution_timeout=1.5)
    capped = await effective(AllocateResources(principal=ME, limits=limits), '@cap("arguments.memoryMib=128")')
    assert capped.limits == replace(limits, memory_mb=128)  # and nothing else
    slower = await effective(AllocateResources(principal=ME, limits=limits), '@cap("arguments.networkMibitps=2")')
    assert slower.limits == replace(limits, network_io_mbps=2)
    made = await effective(create(tier=SecurityTier.INTERPRETER), '@tier("gvisor")')
    assert (made.tier, made.principal.tier) == (SecurityTier.TIER2, "gvisor")
    assert (await effective(code(timeout_s=60.0), '@timeout("5s")')).timeout_s == 5.0


@pytest.mark.parametrize(
    ("action", "marks"),
    [
        (ConnectServer(principal=ME, server="mail", command="x"), '@redact("arguments.command")'),
        (create(), '@cap("arguments.risk=1")'),
        (code(), '@redact("arguments.code_digest")'),
        (SendMessage(principal=ME, to=OTHER, body="x"), '@redact("arguments.expects_reply")'),
        (ReadData(principal=ME, data=NOTES), '@redact("arguments.maxItems")'),
        (AllocateResources(principal=ME, limits=ResourceLimits()), '@redact("arguments.memoryMib")'),
        (
            AllocateResources(principal=ME, limits=ResourceLimits(network_io_mbps=9)),
            '@cap("arguments.networkMibitps=0")',
        ),
        (WriteLog(principal=ME, message="x"), '@timeout("5s")'),
        (WriteLog(principal=ME, message="x"), '@tier("gvisor")'),
        (InvokeTool(principal=ME, tool=TOOL, values={}), '@tier("gvisor")'),
        (ConfigureAgent(principal=ME, agent=ME), '@cap("arguments.timeout=60")'),
        (WriteData(principal=ME, data=NOTES, content="x"), '@cap("arguments.content=60")'),
    ],
)
async def test_a_condition_that_an_action_cannot_obey_denies(action, marks):
    async with open_gate(f'@id("may") {marks} permit(principal, action, resource);', tools=TOOLS) as gate:
        with pytest.raises((PolicyDenied, InputError)):
            async with gate.guard.enforce(action):
                pytest.fail("the body ran")
        assert gate.events()[-1].event_type == T.DECISION_DENY


async def test_a_lease_is_not_granted_where_each_use_would_need_redaction():
    async with open_gate('@id("may") @redact("arguments.message") permit(principal, action, resource);') as gate:
        with pytest.raises(PolicyDenied, match="a lease of `WriteLog`"):
            async with gate.guard.lease(WriteLog(principal=ME, message=""), uses=3, seconds=60):
                pytest.fail("the body ran")


async def test_a_rate_is_never_passed_over():
    happened = 0
    async with open_gate('@id("may") @rate("1/hour") permit(principal, action, resource);', tools=TOOLS) as gate:
        for _ in range(3):
            with contextlib.suppress(Denied):
                async with gate.guard.enforce(InvokeTool(principal=ME, tool=TOOL, values={})):
                    happened += 1
    assert happened <= 1


async def test_the_outcome_is_marked_as_the_permits_say():
    action = await effective(
        InvokeTool(principal=ME, tool=TOOL, values={}), '@mark("trusted, confidential:pii") @timeout("5s")'
    )
    assert action.mark == Label(Integrity.TRUSTED, Confidentiality.CONFIDENTIAL, (), ("pii",))


async def test_tags_retention_and_results_stand_on_the_trail_and_the_level_in_the_log(caplog):
    marks = '@tags("SOC2, GDPR") @retain("365d") @log("warning") @output("full") @record("digest")'
    async with open_gate(f'@id("may") {marks} permit(principal, action, resource);', tools=TOOLS) as gate:
        with caplog.at_level("DEBUG", logger="symbi.guard"):
            async with gate.guard.enforce(InvokeTool(principal=ME, tool=TOOL, values={"to": "secret@x"})) as granted:
                granted.observe({"sent": 1})
        decided, ended = gate.events()[-2:]
        assert decided.details["compliance_tags"] == ["GDPR", "SOC2"]
        assert decided.details["retention_days"] == 365
        assert "arguments" not in decided.details
        assert ended.details["result"] == '{"sent":1}'
        told = [record for record in caplog.records if record.getMessage() == "decision"]
        assert [record.levelname for record in told] == ["WARNING"]
        assert {"action": "InvokeTool::mail.send", "verdict": "allow", "agent": "a"}.items() <= told[
            0
        ].symbi_fields.items()
        assert "secret@x" not in caplog.text


async def test_without_a_policy_that_asks_neither_results_nor_lines_are_told(caplog):
    async with open_gate(ALLOW_ALL, tools=TOOLS) as gate:
        with caplog.at_level("DEBUG", logger="symbi.guard"):
            async with gate.guard.enforce(InvokeTool(principal=ME, tool=TOOL, values={})) as granted:
                granted.observe("x")
        assert "result" not in gate.events()[-1].details
        assert not [record for record in caplog.records if record.getMessage() == "decision"]


async def test_a_large_result_stands_by_digest_though_a_policy_asks_for_all_of_it():
    async with open_gate('@id("may") @output("full") permit(principal, action, resource);', tools=TOOLS) as gate:
        async with gate.guard.enforce(InvokeTool(principal=ME, tool=TOOL, values={})) as granted:
            granted.observe("x" * 5000)
        assert "result" not in gate.events()[-1].details
        assert gate.events()[-1].details["result_bytes"] == 5002


async def test_the_second_attempt_is_known_to_policies(tmp_path):
    action = ReadData(principal=ME, data=NOTES, slot=RunSlot(RunId("r"), 0))
    once = 'permit(principal, action, resource) when { context.request.attempt == 1 && context.request.run == "r" };'
    async with open_gate(once, folder=tmp_path) as gate:
        await gate.guard._admit(action)
    async with open_gate(once, folder=tmp_path) as gate:
        await gate.guard._settlement.recover(gate.store.epoch)
        with pytest.raises(Exception, match="cannot be repeated"):
            async with gate.guard.enforce(action):
                pytest.fail("the body ran")
    again = "permit(principal, action, resource) when { context.request.attempt == 2 };"
    async with open_gate(again, folder=tmp_path) as gate, gate.guard.enforce(action) as granted:
        assert granted.action.attempt == 2


async def test_conditions_of_a_record_that_cannot_be_read_are_not_taken_for_none():
    from symbi.guard.records import obligations_of  # noqa: PLC0415 - of this test alone

    async with open_gate('@id("may") @mark("secret") permit(principal, action, resource);') as gate:
        admission = await gate.guard._admit(WriteLog(principal=ME, message="x"))
        assert obligations_of(admission.record).mark.confidentiality is Confidentiality.SECRET
        for wrong in (b'{"conditions":[{"kind":"new"}]}', b'{"conditions":5}', b'{"conditions"', b'["conditions"]'):
            with pytest.raises(InternalError, match="cannot be read"):
                obligations_of(replace(admission.record, decision=wrong))
