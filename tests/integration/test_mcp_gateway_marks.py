"""What policy marks as confidential is known again in a client's next call, whichever way a server has said it."""

import sys

import pytest
from mcp.shared.exceptions import MCPError

from symbi.policy.fields import UNDECLARED
from symbi.testing.mcp_gateway import open_gateway
from symbi.types import Confidentiality

pytestmark = pytest.mark.anyio

RECORD = """
@id("all") permit (principal, action, resource);
@id("marks") @mark("confidential") permit (principal, action, resource) when { resource == Tool::"desk.read_record" };
"""
MARKS = '@id("marks") @mark("confidential") permit (principal, action, resource);'


@pytest.fixture
def opened(tmp_path, root):
    config = f"""
[mcp]
tool_verification = "tofu"
[mcp.servers.desk]
command = ["{sys.executable}", "{root / "tests" / "data" / "servers" / "desk.py"}"]
"""
    return lambda policies: open_gateway(tmp_path, config=config, policies=policies, agents="agent a { with { 1 } }")


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_a_mark_of_policy_holds_for_all_that_a_server_says(opened, mode):
    steps = []

    async def told(_done, _total, message):
        steps.append(message)

    async with opened(MARKS) as one, one.client(mode=mode) as client:
        (session,) = one.gateway.sessions.values()

        def known(text):
            return session.labels.judge(UNDECLARED, {"body": text}).label.confidentiality

        assert known("monday") is Confidentiality.PUBLIC
        failed = await client.call_tool("desk__fails", {})
        assert failed.is_error
        assert failed.structured_content == {"why": "rusty"}, "also what a program reads of it"
        assert known("rusty") is Confidentiality.CONFIDENTIAL
        assert known("it broke in two") is Confidentiality.CONFIDENTIAL
        assert (await client.call_tool("desk__steps", {}, progress_callback=told)).content[0].text == "done"
        assert steps
        assert known(steps[0]) is Confidentiality.CONFIDENTIAL
        await client.get_prompt("desk__greet", {"whom": "Al"})
        assert known("Greet Al") is Confidentiality.CONFIDENTIAL
        await client.list_prompts()
        assert known("whom") is Confidentiality.CONFIDENTIAL
        await client.read_resource("desk://card")
        assert known("call desk://card at +49 30 901820") is Confidentiality.CONFIDENTIAL
        found = await client.complete({"type": "ref/prompt", "name": "desk__greet"}, {"name": "whom", "value": "m"})
        assert found.completion.values == ["monday"]
        assert known("monday") is Confidentiality.CONFIDENTIAL
        assert known("tuesday") is Confidentiality.PUBLIC


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
@pytest.mark.parametrize("asks", ["prompt", "completion"])
async def test_what_a_server_makes_of_something_confidential_is_so_also_in_an_error(opened, mode, asks):
    whom, otherwise = "!correct horse battery staple", "htwwjhy mtwxj gfyyjwd xyfuqj"
    async with opened(RECORD) as one, one.client(mode=mode) as client:
        (session,) = one.gateway.sessions.values()

        def known(text):
            return session.labels.judge(UNDECLARED, {"body": text}).label.confidentiality

        await client.call_tool("desk__read_record", {})
        assert known(whom[1:]) is Confidentiality.CONFIDENTIAL
        assert known(otherwise) is Confidentiality.PUBLIC
        with pytest.raises(MCPError, match=otherwise):
            if asks == "prompt":
                await client.get_prompt("desk__greet", {"whom": whom})
            else:
                await client.complete({"type": "ref/prompt", "name": "desk__greet"}, {"name": "whom", "value": whom})
        assert known(otherwise) is Confidentiality.CONFIDENTIAL
