"""The catalogue: what may be called, what may not, and why."""

from dataclasses import replace

import pytest

from symbi.errors import (
    ConfigError,
    InputError,
    PinMismatch,
    PolicyDenied,
    SignatureInvalid,
    StoreUnavailable,
    ToolServerUnavailable,
)
from symbi.policy.decision import Allow, Deny
from symbi.tools.catalog import Catalog, ServerLink
from symbi.tools.port import ToolDefinition
from symbi.types import AgentId, Principal, RecoveryClass

pytestmark = pytest.mark.anyio
SCHEMA = {"type": "object", "properties": {"to": {"type": "string"}}}
SEND = ToolDefinition("mail", "send", "Sends a mail.", SCHEMA)
AGENT = Principal(AgentId("triage"))


def offer(bench, *definitions):
    answer = bench.server.tools[0][1]
    bench.server.tools = [(definition, answer) for definition in definitions]


async def test_a_verified_tool_is_found_with_its_recovery_class(open_bench):
    async with open_bench() as bench:
        tool = bench.catalog.find("mail.send")
        assert tool.ref.recovery is RecoveryClass.IDEMPOTENT
        assert [ref.name for ref in bench.catalog.refs] == ["mail.send"]
        assert bench.catalog.servers == ("mail",)
        assert "tool.pinned" in bench.kinds()


async def test_an_unknown_tool_is_an_input_error_with_a_hint(open_bench):
    async with open_bench() as bench:
        with pytest.raises(InputError, match=r"unknown tool `mail\.sned`; did you mean `mail\.send`"):
            bench.catalog.find("mail.sned")
        with pytest.raises(InputError, match="symbi tools list"):
            bench.catalog.find("nothing\x1b[2J")
        with pytest.raises(InputError, match="unknown tool server `mial`; did you mean `mail`"):
            await bench.catalog.refresh("mial")


async def test_a_changed_tool_is_quarantined_until_it_is_pinned_anew(open_bench):
    async with open_bench() as bench:
        offer(bench, replace(SEND, description="Sends a mail. And more."))
        await bench.catalog.refresh("mail")
        for _ in range(2):
            with pytest.raises(PinMismatch) as caught:
                bench.catalog.find("mail.send")
            assert "symbi tools review mail.send" in str(caught.value)
        assert list(bench.catalog.quarantined) == ["mail.send"]
        await bench.catalog.refresh("mail")
        assert list(bench.catalog.quarantined) == ["mail.send"]
        await bench.catalog.pin("mail.send")
        assert bench.catalog.find("mail.send").definition.description == "Sends a mail. And more."
        await bench.catalog.refresh("mail")
        assert bench.catalog.quarantined == {}


async def test_a_tool_that_its_server_no_longer_offers_is_gone(open_bench):
    async with open_bench() as bench:
        offer(bench, replace(SEND, name="post"))
        await bench.catalog.refresh("mail")
        with pytest.raises(InputError, match="unknown tool"):
            bench.catalog.find("mail.send")
        bench.catalog.find("mail.post")


@pytest.mark.parametrize(
    "bad",
    [
        replace(SEND, name="rm -rf /"),
        replace(SEND, name=""),
        replace(SEND, name="x" * 129),
        replace(SEND, name="sénd"),
        replace(SEND, name="post", input_schema={"type": "array"}),
        replace(SEND, name="post", input_schema={"type": "object", "properties": {"a": {"pattern": "(?!a)"}}}),
        replace(SEND, name="post", output_schema={"type": "string"}),
        replace(SEND, name="post", input_schema={"type": "object", "properties": {"a": {"default": 0.5}}}),
    ],
    ids=lambda bad: bad.name[:8],
)
async def test_one_unusable_tool_does_not_take_the_others_with_it(open_bench, bad):
    async with open_bench() as bench:
        offer(bench, ToolDefinition("mail", "send", "Sends a mail.", bench.catalog.refs[0].input_schema), bad)
        await bench.catalog.refresh("mail")
        assert [ref.name for ref in bench.catalog.refs] == ["mail.send"]
        (reason,) = bench.catalog.quarantined.values()
        assert isinstance(reason, InputError)
        assert "tool.refused" in bench.kinds()


async def test_a_name_that_is_offered_twice_is_refused_both_times(open_bench):
    async with open_bench() as bench:
        offer(bench, SEND, replace(SEND, name="post"), replace(SEND, name="post", description="Another."))
        await bench.catalog.refresh("mail")
        with pytest.raises(InputError, match="offered 2 times"):
            bench.catalog.find("mail.post")


async def test_a_server_cannot_offer_tools_of_another(open_bench):
    async with open_bench() as bench:
        offer(bench, replace(SEND, server="files"))
        with pytest.raises(ToolServerUnavailable, match="offers tools of `files`"):
            await bench.catalog.refresh("mail")
        assert bench.catalog.refs == ()


@pytest.mark.parametrize("names", [("a.b",), ("",), ("a b",), ("same", "same")])
async def test_names_of_servers_are_plain_and_single(open_bench, names):
    async with open_bench() as bench:
        with pytest.raises(ConfigError):
            Catalog(bench.gate.guard, bench.verifier, [ServerLink(name, "c", bench.server) for name in names])


async def test_a_server_that_cannot_be_connected_takes_its_tools_out(open_bench):
    async with open_bench() as bench:
        bench.server.command_line = "another command"
        with pytest.raises(Exception, match="another server or command"):
            await bench.catalog.refresh("mail")
        assert bench.catalog.refs == ()
        assert list(bench.catalog.down) == ["mail"]


async def test_connecting_is_an_effect_that_policy_can_deny(open_bench):
    policies = '@id("once") permit (principal == Agent::"symbi.system", action == Action::"ConnectServer", resource);'
    async with open_bench(policies) as bench:
        with pytest.raises(PolicyDenied):
            await bench.catalog.refresh("mail", AGENT)
        with pytest.raises(PolicyDenied):
            bench.catalog.find("mail.send")
        await bench.catalog.refresh("mail")
        bench.catalog.find("mail.send")


async def test_strict_quarantines_what_is_not_signed(open_bench):
    async with open_bench(mode="strict") as bench:
        with pytest.raises(SignatureInvalid, match="not signed"):
            bench.catalog.find("mail.send")
        assert bench.gate.store.pins() == []


async def test_nothing_is_verified_that_cannot_be_recorded(open_bench):
    async with open_bench() as bench:
        offer(bench, replace(SEND, name="post"))

        def broken(_pin):
            raise StoreUnavailable("the disk is full")

        bench.gate.store.put_pin = broken
        with pytest.raises(StoreUnavailable):
            await bench.catalog.refresh("mail")
        assert bench.catalog.refs == ()


async def test_enforce_policies_asks_and_does_nothing(open_bench):
    policies = (
        '@id("connect") permit (principal, action == Action::"ConnectServer", resource);'
        '@id("send") permit (principal, action == Action::"InvokeTool::mail.send", resource)'
        ' when { context.arguments.to == "a@b" };'
    )
    async with open_bench(policies) as bench:
        tool = bench.catalog.find("mail.send")
        before = len(bench.gate.events())
        assert isinstance(await bench.verifier.enforce_policies(AGENT, tool, {"to": "a@b"}), Allow)
        assert isinstance(await bench.verifier.enforce_policies(AGENT, tool, {"to": "x@y"}), Deny)
        with pytest.raises(InputError, match="is missing"):
            await bench.verifier.enforce_policies(AGENT, tool)
        assert bench.server.calls == []
        assert len(bench.gate.events()) == before
