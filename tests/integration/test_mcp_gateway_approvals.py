"""Held calls of clients: they wait in the queue, or a person is asked at the client where the operator says so."""

import os
import sys

import anyio
import mcp_types as types
import pytest
from mcp.shared.exceptions import MCPError

from symbi.api.mcp import gateway
from symbi.audit.event import AuditEventType, parse_event
from symbi.audit.query import EventFilter
from symbi.guard.approval import ApprovalState
from symbi.guard.desk import Ballot
from symbi.policy.library import BASE, GATEWAY
from symbi.testing.mcp_gateway import open_gateway

pytestmark = pytest.mark.anyio
SHIPPED = "\n".join([BASE.text, *(source.text for source in GATEWAY.values())])
MALLORY = {"to": "mallory@evil.example", "subject": "s", "body": "b"}
PEOPLE = f"""
[approvals.people.ada]
user = "{os.geteuid()}"
"""
ASKS_ADA = PEOPLE + '[mcp.clients.desk]\napproves_as = "ada"\n'


@pytest.fixture
def opened(tmp_path, root):
    servers = root / "tests" / "data" / "servers"

    def open_it(config="", wait_s=0, policies="", **options):
        text = f"""
[gateway]
wait_s = {wait_s}
[mcp]
tool_verification = "tofu"
[mcp.servers.desk]
command = ["{sys.executable}", "{servers / "desk.py"}"]
manifest = "{servers / "desk.toml"}"
{config}
"""
        return open_gateway(
            tmp_path, config=text, policies=SHIPPED + policies, agents="agent a { with { 1 } }", **options
        )

    return open_it


async def vote(one, approval_id, *, agrees):
    record = await one.runtime.desk.find(approval_id)
    await one.runtime.desk.vote(Ballot(approval_id, record.digest, agrees, uid=os.geteuid()))


async def test_a_held_call_waits_in_the_queue_and_the_same_call_finds_what_came_of_it(opened):
    async with opened(PEOPLE) as one, one.client() as client:
        assert not (await client.call_tool("desk__send_mail", {"to": "bob@firm.org"})).is_error
        await client.call_tool("desk__read_mail", {})
        held = await client.call_tool("desk__send_mail", MALLORY)
        told = held.meta["symbi/error"]
        assert (told["kind"], told["code"]) == ("held", "policy.approval_pending")
        assert f"symbi approvals approve {told['approval']}" in held.content[0].text
        again = await client.call_tool("desk__send_mail", MALLORY)
        assert again.meta["symbi/error"]["approval"] == told["approval"]
        await vote(one, told["approval"], agrees=True)
        sent = await client.call_tool("desk__send_mail", MALLORY)
        assert sent.content[0].text == "sent to mallory@evil.example"
        asked_anew = await client.call_tool("desk__send_mail", MALLORY)
        assert asked_anew.meta["symbi/error"]["approval"] != told["approval"]
        await vote(one, asked_anew.meta["symbi/error"]["approval"], agrees=False)
        denied = await client.call_tool("desk__send_mail", MALLORY)
        assert denied.meta["symbi/error"]["code"] == "approval.denied"
        assert "a person said no" in denied.content[0].text
        clean = await client.call_tool("desk__send_mail", {"to": "bob@firm.org", "subject": "s", "body": "b"})
        assert not clean.is_error


DECISIONS = {AuditEventType.DECISION_ALLOW, AuditEventType.DECISION_DENY}
HOLDS = """
@id("test.holds") @conditions("only") @approval("somebody has to agree")
permit (principal in Group::"mcp.clients", action in [Action::"SendMessage", Action::"ReadResource", Action::"GetPrompt"], resource);
@id("test.talks") permit (principal in Group::"mcp.clients", action == Action::"SendMessage", resource);
"""


async def sessions_of_decisions(one):
    log = one.runtime.rooms.world.log
    rows = await log.read(lambda: list(one.runtime.rooms.effects.select(EventFilter())))
    events = [parse_event(row.record, sequence=row.sequence) for row in rows]
    return [
        event.details.get("session")
        for event in events
        if event.event_type in DECISIONS and "InvokeTool" in str(event.details)
    ]


async def test_of_so_many_calls_that_wait_people_are_asked_and_of_no_more(opened, monkeypatch):
    monkeypatch.setattr(gateway, "MAX_HELD", 2)
    async with opened(PEOPLE) as one, one.client() as client:
        await client.call_tool("desk__read_mail", {})
        answers = [
            await client.call_tool("desk__send_mail", MALLORY | {"subject": f"s{number}"}) for number in range(3)
        ]
        told = [answer.meta["symbi/error"] for answer in answers]
        assert [one["code"] for one in told] == ["policy.approval_pending"] * 2 + ["approval.crowded"]
        assert told[2]["retry_after_s"] > 0
        known = await client.call_tool("desk__send_mail", MALLORY | {"subject": "s1"})
        assert known.meta["symbi/error"]["approval"] == told[1]["approval"], "what waits already is found again"
        await vote(one, told[0]["approval"], agrees=False)
        again = await client.call_tool("desk__send_mail", MALLORY | {"subject": "s2"})
        assert again.meta["symbi/error"]["code"] == "policy.approval_pending"
        denied = await client.call_tool("desk__send_mail", MALLORY | {"subject": "s0"})
        assert denied.meta["symbi/error"]["code"] == "approval.denied"
        assert (await sessions_of_decisions(one)).count(next(iter(one.gateway.sessions))) == 2, "of each, yes or no"


async def test_the_bound_of_what_waits_holds_for_all_that_may_be_held_together(opened, monkeypatch):
    monkeypatch.setattr(gateway, "MAX_HELD", 1)
    async with opened(PEOPLE, policies=HOLDS) as one, one.client() as client:
        held = await client.call_tool("symbi__run_agent", {"agent": "a"})
        assert held.meta["symbi/error"]["kind"] == "held"
        with pytest.raises(MCPError) as refused:
            await client.read_resource("desk://card")
        assert refused.value.error.data["symbi/error"]["code"] == "approval.crowded"
        with pytest.raises(MCPError) as refused:
            await client.get_prompt("desk__greet", {"whom": "Bob"})
        assert refused.value.error.data["symbi/error"]["code"] == "approval.crowded"
        assert len(await one.runtime.desk.listed((ApprovalState.WAITING,))) == 1
        async with one.client() as other:
            await other.call_tool("desk__read_mail", {})
            crowded = await other.call_tool("desk__send_mail", MALLORY)
            assert crowded.meta["symbi/error"]["code"] == "approval.crowded", "another session of it is the same client"


async def test_a_call_goes_on_by_itself_once_people_have_agreed(opened):
    async with opened(PEOPLE, wait_s=60) as one, one.client() as client:
        await client.call_tool("desk__read_mail", {})
        async with anyio.create_task_group() as tasks:

            async def agree():
                while not (found := await one.runtime.desk.listed((ApprovalState.WAITING,))):
                    await anyio.wait_all_tasks_blocked()
                await vote(one, found[0].id, agrees=True)

            tasks.start_soon(agree)
            sent = await client.call_tool("desk__send_mail", MALLORY)
        assert sent.content[0].text == "sent to mallory@evil.example"


class Person:
    """Somebody at a client, who answers what is asked there."""

    def __init__(self, action="accept", content=None):
        self.asked = []
        self.action, self.content = action, content

    async def __call__(self, context, params):
        self.asked.append(params.message)
        return types.ElicitResult(action=self.action, content=self.content)


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_the_person_at_a_client_decides_there_where_the_operator_says_so(opened, mode):
    yes, no, away = Person(content={"approve": True}), Person("decline"), Person("cancel")
    uid = os.geteuid()
    async with opened(ASKS_ADA) as one:
        async with one.client("desk", uid=uid, mode=mode, elicitation_callback=yes) as client:
            await client.call_tool("desk__read_mail", {})
            sent = await client.call_tool("desk__send_mail", MALLORY)
            assert sent.content[0].text == "sent to mallory@evil.example"
            assert len(yes.asked) == 1
            assert "on Tool::desk.send_mail\n" in yes.asked[0]
            assert "mallory@evil.example" in yes.asked[0]
            assert "comes from what the client has read" in yes.asked[0]
        async with one.client("desk", uid=uid, mode=mode, elicitation_callback=no) as client:
            await client.call_tool("desk__read_mail", {})
            denied = await client.call_tool("desk__send_mail", MALLORY)
            assert denied.meta["symbi/error"]["code"] == "approval.denied"
        async with one.client("desk", uid=uid, mode=mode, elicitation_callback=away) as client:
            await client.call_tool("desk__read_mail", {})
            held = await client.call_tool("desk__send_mail", MALLORY)
            assert held.meta["symbi/error"]["kind"] == "held"


async def test_the_person_at_a_client_is_told_whom_and_what_it_is_about_beside_the_arguments(opened):
    no = Person("decline")
    uid = os.geteuid()
    async with (
        opened(ASKS_ADA, policies=HOLDS) as one,
        one.client("desk", uid=uid, elicitation_callback=no) as client,
    ):
        await client.call_tool("symbi__run_agent", {"agent": "a"})
        with pytest.raises(MCPError):
            await client.get_prompt("desk__greet", {"whom": "Bob"})
    run, prompt = no.asked
    assert "`mcp.desk` wants: SendMessage on Agent::a\n" in run
    assert "`mcp.desk` wants: GetPrompt on ToolServer::desk\n" in prompt
    assert '"greet"' in prompt


@pytest.mark.parametrize(
    ("config", "uid"),
    [
        (PEOPLE, os.geteuid()),  # nobody is said to sit there
        (ASKS_ADA, None),  # who sits there is not known
        (ASKS_ADA, os.geteuid() + 1),  # somebody else does
        (
            ASKS_ADA + 'owner = "ada"\n[approvals.people.eve]\nuser = "4242"\n',
            os.geteuid(),
        ),  # nobody approves for themselves
    ],
)
async def test_nobody_else_is_asked_at_a_client(opened, config, uid):
    yes = Person(content={"approve": True})
    name = "desk" if "mcp.clients.desk" in config else "local"
    async with opened(config) as one, one.client(name, uid=uid, elicitation_callback=yes) as client:
        await client.call_tool("desk__read_mail", {})
        held = await client.call_tool("desk__send_mail", MALLORY)
        assert held.meta["symbi/error"]["kind"] == "held"
        assert yes.asked == []
