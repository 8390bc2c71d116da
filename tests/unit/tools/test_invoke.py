"""The nine steps of a call, each seen to hold."""

import json
from dataclasses import replace

import anyio
import pytest

from symbi.errors import (
    InputError,
    OutputLimit,
    PinMismatch,
    PolicyDenied,
    StoreUnavailable,
    TimeLimit,
    ToolFailed,
    ToolServerUnavailable,
)
from symbi.guard.action import RunSlot
from symbi.guard.ledger import EffectState
from symbi.policy.fields import Effect, OutputRule, Risk, Role, ToolFlow, parse_path
from symbi.tools.manifest import ToolEntry
from symbi.tools.port import RawToolResult, ToolDefinition
from symbi.types import Confidentiality, Integrity, Label, RecoveryClass, RunId

pytestmark = pytest.mark.anyio

CONNECT = '@id("connect") permit (principal, action == Action::"ConnectServer", resource);'
SEND = '@id("send") {conditions} permit (principal, action == Action::"InvokeTool::mail.send", resource);'
OUTPUT = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
SCHEMA = {"type": "object", "properties": {"to": {"type": "string"}}, "required": ["to"], "additionalProperties": False}
WITH_OUTPUT = ToolDefinition("mail", "send", "Sends a mail.", SCHEMA, output_schema=OUTPUT)
SECRET = "hidden-value-1"


def text(value, **more):
    return RawToolResult(value, more.get("structured"), more.get("is_error", False))


def outcome(bench):
    return bench.gate.events()[-1].details


async def test_a_call_returns_the_value_its_label_and_its_effect(open_bench):
    async with open_bench() as bench:
        label = Label(Integrity.TRUSTED, Confidentiality.CONFIDENTIAL, ("file",))
        result = await bench.call(to="a@b", labels={"to": label})
        assert result.value == "sent to a@b"
        assert result.label == Label(Integrity.UNTRUSTED, Confidentiality.CONFIDENTIAL, (result.effect_id,))
        assert bench.server.calls == [("send", {"to": "a@b"}, result.effect_id)]
        assert bench.kinds()[-2:] == ["decision.allow", "effect.outcome"]
        assert outcome(bench)["outcome"] == "confirmed"


async def test_the_ledger_keeps_the_plain_value(open_bench):
    async with open_bench() as bench:
        bench.answer = text("", structured={"n": [1, None]})
        result = await bench.call(to="a@b", slot=RunSlot(RunId("r"), 0))
        record = bench.gate.store.effect_at("r", 0)
        assert json.loads(record.result) == result.value == {"n": [1, None]}


async def test_1_and_2_a_tool_that_is_unknown_or_changed_is_not_called(open_bench):
    async with open_bench() as bench:
        with pytest.raises(InputError, match="unknown tool"):
            bench.prepare("mail.post", to="a@b")
        action = bench.prepare(to="a@b")
        (definition, answer) = bench.server.tools[0]
        bench.server.tools = [(replace(definition, description="Changed."), answer)]
        await bench.catalog.refresh("mail")
        with pytest.raises(PinMismatch):
            await bench.invoker.call(action)
        await bench.catalog.pin("mail.send")
        with pytest.raises(PinMismatch, match="changed since the call was prepared"):
            await bench.invoker.call(action)
        assert bench.server.calls == []
        assert bench.kinds()[-1] == "decision.deny"


@pytest.mark.parametrize(
    "arguments",
    [{}, {"to": 1}, {"to": "a", "x": 1}, {"to": None}, {"to": "a", "n": float("nan")}, {"to": "\ud800"}, {"to": b"a"}],
    ids=str,
)
async def test_3_arguments_that_do_not_fit_never_reach_the_gate(open_bench, arguments):
    async with open_bench() as bench:
        before = len(bench.gate.events())
        with pytest.raises(InputError):
            bench.prepare(**arguments)
        assert len(bench.gate.events()) == before


async def test_4_without_a_permit_nothing_is_called(open_bench):
    async with open_bench(CONNECT) as bench:
        with pytest.raises(PolicyDenied):
            await bench.call(to="a@b")
        assert bench.server.calls == []
        assert bench.kinds()[-1] == "decision.deny"


async def test_4_a_trail_that_cannot_be_written_means_no_call(open_bench):
    async with open_bench() as bench:

        def broken(*_):
            raise StoreUnavailable("the disk is full")

        bench.gate.store.append = broken
        with pytest.raises(StoreUnavailable):
            await bench.call(to="a@b")
        assert bench.server.calls == []


async def test_4_redacted_arguments_are_what_the_tool_gets(open_bench):
    async with open_bench(CONNECT + SEND.format(conditions='@redact("arguments.body")')) as bench:
        await bench.call(to="a@b", body="private")
        assert bench.server.calls[0][1] == {"to": "a@b", "body": "[redacted]"}


async def test_4_arguments_that_no_longer_fit_after_a_condition_are_refused(open_bench):
    definition = ToolDefinition(
        "mail", "send", "Sends a mail.", SCHEMA | {"properties": {"to": {"type": "string", "maxLength": 5}}}
    )
    policies = CONNECT + SEND.format(conditions='@redact("arguments.to")')
    async with open_bench(policies, definitions=[definition]) as bench:
        with pytest.raises(InputError, match="maxLength"):
            await bench.call(to="a@b")
        assert bench.server.calls == []
        assert bench.kinds()[-1] == "decision.deny"


async def test_5_a_policy_that_asks_for_a_sandbox_tier_is_not_passed_over(open_bench):
    async with open_bench(CONNECT + SEND.format(conditions='@tier("gvisor")')) as bench:
        with pytest.raises(PolicyDenied, match="tier"):
            await bench.call(to="a@b")
        assert bench.server.calls == []


async def test_6_the_deadline_of_the_manifest_holds(open_bench):
    async def hang(_arguments, _effect):
        await anyio.sleep(3600)

    async with open_bench(entry=ToolEntry(timeout_s=0.05)) as bench:
        bench.answer = hang
        with pytest.raises(TimeLimit, match=r"0\.05 s"):
            await bench.call(to="a@b")
        assert outcome(bench)["outcome"] == "unknown"


async def test_6_a_deadline_set_by_policy_is_the_shorter_one(open_bench):
    async with open_bench(CONNECT + SEND.format(conditions='@timeout("2s")')) as bench:
        seen = []

        async def note(_arguments, _effect):
            return text("ok")

        bench.answer = note
        original = bench.server.call

        async def call(permit, secrets, hooks=None):
            seen.append(permit.action.timeout_s)
            return await original(permit, secrets)

        bench.server.call = call
        await bench.call(to="a@b")
        assert seen == [2.0]


async def test_6_an_adapter_that_forgets_the_deadline_is_cut_off(open_bench, monkeypatch):
    monkeypatch.setattr("symbi.tools.invoke.OUTER_GRACE_S", 0.0)

    async def deaf(_permit, _secrets, _hooks):
        await anyio.sleep(3600)

    async with open_bench(entry=ToolEntry(timeout_s=0.05)) as bench:
        bench.server.call = deaf
        with pytest.raises(TimeLimit):
            await bench.call(to="a@b")


async def test_6_a_server_that_died_is_unavailable_and_the_effect_did_not_happen(open_bench):
    async with open_bench() as bench:
        bench.server.die()
        with pytest.raises(ToolServerUnavailable):
            await bench.call(to="a@b")
        assert outcome(bench)["outcome"] == "failed"
        assert outcome(bench)["used"] is False


async def test_7_structured_content_goes_before_text(open_bench):
    async with open_bench() as bench:
        bench.answer = text("for people", structured={"n": 3})
        assert (await bench.call(to="a@b")).value == {"n": 3}


async def test_7_text_is_read_as_json_only_where_an_output_schema_is_declared(open_bench):
    async with open_bench() as bench:
        bench.answer = text('{"n": 3}')
        assert (await bench.call(to="a@b")).value == '{"n": 3}'
    async with open_bench(definitions=[WITH_OUTPUT]) as bench:
        bench.answer = text('{"n": 3}')
        assert (await bench.call(to="a@b")).value == {"n": 3}


@pytest.mark.parametrize(
    "answer",
    [
        text("", structured={"n": "three"}),
        text("", structured={"n": 3, "more": 1}),
        text("", structured={}),
        text("", structured=[]),
        text("no json"),
        text("[" * 100_000),
        text('{"n": NaN}'),
        text('{"n": 1e999}'),
        text(""),
    ],
    ids=lambda answer: str(answer.structured or answer.content[:12]),
)
async def test_7_an_answer_that_the_output_schema_forbids_is_a_failure_of_the_tool(open_bench, answer):
    async with open_bench(definitions=[WITH_OUTPUT]) as bench:
        bench.answer = answer
        with pytest.raises(ToolFailed):
            await bench.call(to="a@b")


@pytest.mark.parametrize("value", [float("nan"), 2**64, {"a": float("inf")}, "\ud800"], ids=repr)
async def test_7_what_is_no_json_is_a_failure_of_the_tool(open_bench, value):
    async with open_bench() as bench:
        bench.answer = text("", structured={"v": value})
        with pytest.raises(ToolFailed):
            await bench.call(to="a@b")


async def test_7_the_bound_of_the_manifest_holds(open_bench):
    async with open_bench(entry=ToolEntry(max_output_bytes=100)) as bench:
        bench.answer = text("x" * 98)
        await bench.call(to="a@b")
        bench.answer = text("é" * 50)
        with pytest.raises(OutputLimit, match="102 bytes; 100 are allowed"):
            await bench.call(to="a@b")


async def test_7_an_error_of_the_tool_is_bounded_and_cannot_steer_a_terminal(open_bench):
    async with open_bench() as bench:
        bench.answer = text("\x1b[2J no\nway " + "x" * 100_000, is_error=True)
        with pytest.raises(ToolFailed) as caught:
            await bench.call(to="a@b")
        message = str(caught.value)
        assert "\x1b" not in message
        assert "\n" not in message
        assert len(message) < 2_100
        assert message.startswith("tool `mail.send` failed: ")


def everything(bench):
    """All that is kept anywhere: trail, ledger and pins."""
    effects = [record for state in EffectState for record in bench.gate.store.effects_in(state)]
    return repr([*bench.gate.events(), *effects, *bench.gate.store.pins()])


async def echo(arguments, _effect):
    return text(f"got {arguments['to']}", structured={arguments["to"]: [arguments["to"]]})


async def fail(arguments, _effect):
    return text(f"bad token {arguments['to']}", is_error=True)


async def crash(arguments, _effect):
    raise ToolServerUnavailable(f"died on {arguments['to']}", hint=f"saw {arguments['to']}", field=arguments["to"])


@pytest.mark.parametrize("answer", [echo, fail, crash], ids=lambda answer: answer.__name__)
async def test_7_a_secret_reaches_the_tool_and_nothing_else(open_bench, caplog, answer):
    async with open_bench() as bench:
        got = []

        async def spy(arguments, effect):
            got.append(arguments["to"])
            return await answer(arguments, effect)

        bench.answer = spy
        # The simulator masks too; here the invoker must do it alone.
        bench.server._mask.add = lambda _secrets: None
        shown = ""
        try:
            shown = repr(await bench.call(to="vault://a/b", secrets=("a/b",)))
        except (ToolFailed, ToolServerUnavailable) as error:
            shown = repr((str(error), error.fields, error.__cause__, error.__context__))
        assert got == [SECRET]
        assert "vault://a/b" in shown
        for place in (shown, everything(bench), caplog.text, repr(bench.server.calls)):
            assert SECRET not in place
        assert "vault://a/b" in everything(bench)


async def test_6_a_secret_is_asked_for_behind_the_gate_only(open_bench):
    async with open_bench(CONNECT) as bench:
        with pytest.raises(PolicyDenied):
            await bench.call(to="vault://a/b", secrets=("a/b",))
        assert bench.secrets.asked == []


async def test_6_a_secret_that_policy_redacted_is_not_asked_for(open_bench):
    async with open_bench(CONNECT + SEND.format(conditions='@redact("arguments.to")')) as bench:
        await bench.call(to="vault://a/b", secrets=("a/b",))
        assert bench.secrets.asked == []
        assert bench.server.calls[0][1] == {"to": "[redacted]"}


async def test_6_a_tool_that_changes_behind_the_gate_is_not_called(open_bench):
    async with open_bench() as bench:

        async def change():
            (definition, answer) = bench.server.tools[0]
            bench.server.tools = [(replace(definition, description="Changed."), answer)]
            await bench.catalog.refresh("mail")
            await bench.catalog.pin("mail.send")

        def resolve(_permit, _path):
            anyio.from_thread.run(change)
            return SECRET

        bench.secrets.resolve = resolve
        with pytest.raises(PinMismatch, match="changed since the call was prepared"):
            await bench.call(to="vault://a/b", secrets=("a/b",))
        assert bench.server.calls == []
        assert outcome(bench)["used"] is False


async def test_6_a_secret_that_no_source_has_means_no_call(open_bench):
    async with open_bench() as bench:
        with pytest.raises(InputError, match="no source has the secret `vault://no/such`"):
            await bench.call(to="vault://no/such", secrets=("no/such",))
        assert bench.server.calls == []
        assert outcome(bench)["outcome"] == "failed"


async def test_3_text_from_outside_cannot_name_a_secret(open_bench):
    async with open_bench() as bench:
        with pytest.raises(InputError, match="no reference"):
            bench.prepare(to="vault://a/b")
        with pytest.raises(InputError, match="no reference"):
            bench.prepare(to="vault://a/b", body="vault://c/d", secrets=("a/b",))
        with pytest.raises(InputError, match="does not stand in them"):
            bench.prepare(to="a@b", secrets=("a/b",))


async def test_9_a_caller_that_goes_away_leaves_an_outcome_on_record(open_bench):
    started = anyio.Event()

    async def hang(_arguments, _effect):
        started.set()
        await anyio.sleep(3600)

    async with open_bench() as bench:
        bench.answer = hang
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bench.invoker.call, bench.prepare(to="a@b"))
            await started.wait()
            tasks.cancel_scope.cancel()
        assert outcome(bench)["outcome"] == "unknown"


async def test_disabled_verification_warns_on_every_use(open_bench, caplog):
    async with open_bench(mode="disabled") as bench:
        for _ in range(2):
            await bench.call(to="a@b")
        assert caplog.text.count("UNVERIFIED: tool `mail.send`") == 2


async def test_7_each_field_of_an_answer_bears_the_label_that_the_manifest_gives_it(open_bench):
    declared = (
        OutputRule(parse_path("mails[*].id"), Integrity.SYSTEM),
        OutputRule(parse_path("mails[*].sender"), Integrity.TRUSTED, Confidentiality.SECRET, ("contacts",)),
    )
    async with open_bench(entry=ToolEntry(RecoveryClass.IDEMPOTENT, flow=ToolFlow(output=declared))) as bench:
        answer = {"mails": [{"id": "m1", "sender": "a@b", "body": "pay me"}], "more": 3}
        bench.answer = text("", structured=answer)
        result = await bench.call(to="a@b", labels={"to": Label(confidentiality=Confidentiality.INTERNAL)})
        source = (result.effect_id,)
        at = result.labels.at
        assert at(("mails", 0, "id"), "m1") == Label(Integrity.SYSTEM, Confidentiality.INTERNAL, source)
        sender = Label(Integrity.TRUSTED, Confidentiality.SECRET, source, ("contacts",))
        assert at(("mails", 0, "sender"), "a@b") == sender
        assert at(("mails", 0, "body"), "pay me").integrity is Integrity.UNTRUSTED
        assert at(("more",), 3).integrity is Integrity.UNTRUSTED
        again = bench.invoker.answer_labels("mail.send", Label(), result.effect_id, {}, result.value)
        assert again.at(("mails", 0, "id"), "m1").integrity is Integrity.SYSTEM
        gone = bench.invoker.answer_labels("mail.gone", Label(), result.effect_id, {}, result.value)
        assert gone.at(("mails", 0, "id"), "m1").integrity is Integrity.UNTRUSTED


async def test_4_policies_see_risk_effect_and_tainted_sinks_of_a_real_call(open_bench):
    policies = (
        "permit (principal, action, resource);\n"
        'forbid (principal, action in Action::"InvokeTool", resource) when'
        ' { resource.effect == "send" && resource.risk == "high" && context.tainted.contains("to") };'
    )
    untrusted = {"to": Label(Integrity.UNTRUSTED)}
    for flow, denied in (
        (ToolFlow(Effect.SEND, Risk.HIGH), True),
        (ToolFlow(Effect.SEND, Risk.LOW), False),
        (ToolFlow(Effect.SEND, Risk.HIGH, roles=((parse_path("to"), Role.PLAIN),)), False),
        (ToolFlow(Effect.SEND, Risk.HIGH, roles=((parse_path("to"), Role.TEXT),)), True),
    ):
        async with open_bench(policies, entry=ToolEntry(RecoveryClass.IDEMPOTENT, flow=flow)) as bench:
            await bench.call(to="a@b", labels={"to": Label()})
            if denied:
                with pytest.raises(PolicyDenied):
                    await bench.call(to="a@b", labels=untrusted)
            else:
                await bench.call(to="a@b", labels=untrusted)
