"""What a call through the gateway costs beside the call itself, counted: changes of threads, tasks, and looks at what was read."""

import sys

import anyio.to_thread
import pytest

from symbi.api.mcp.calls import SMALL_CHARS, is_small
from symbi.testing.mcp_gateway import open_gateway

pytestmark = pytest.mark.anyio

COMMITS = 2  # the decision, before anything happens, and the outcome


@pytest.fixture
def opened(tmp_path, root):
    servers = root / "tests" / "data" / "servers"
    # Policy files are looked at on a thread as time goes by, and not for a call.
    config = f"""
[policy]
watch_interval_s = 3600.0
[mcp]
tool_verification = "tofu"
[mcp.servers.desk]
command = ["{sys.executable}", "{servers / "desk.py"}"]
manifest = "{servers / "desk.toml"}"
"""
    return open_gateway(
        tmp_path,
        config=config,
        policies='@id("all") permit (principal, action, resource);',
        agents="agent a { with { 1 } }",
    )


@pytest.fixture
def threads(monkeypatch):
    """What is done on threads, in order."""
    seen, original = [], anyio.to_thread.run_sync

    async def run_sync(work, *arguments, **options):
        seen.append(work)
        return await original(work, *arguments, **options)

    monkeypatch.setattr("anyio.to_thread.run_sync", run_sync)
    return seen


async def test_a_small_call_changes_threads_for_its_two_commits_alone(opened, threads, monkeypatch):
    monkeypatch.setattr("symbi.audit.log.LINGER_S", 3600.0)  # what nobody waits for goes with the next, however slow
    async with opened as one, one.client(mode="legacy") as client:
        arguments = {"to": "anna@example.com", "subject": "s", "body": "b" * 256}
        await client.call_tool("desk__send_mail", arguments)
        before, calls = len(threads), 20
        for _ in range(calls):
            await client.call_tool("desk__send_mail", arguments)
        assert len(threads) - before <= COMMITS * calls + 2, "the runtime itself may have looked at something"
        await client.call_tool("desk__send_mail", arguments | {"body": "b" * 2 * SMALL_CHARS})
        assert any(work.__name__ == "judge" for work in threads if hasattr(work, "__name__")), "what is large is not"


@pytest.mark.parametrize(
    ("value", "small"),
    [
        (None, True),
        ("x" * (SMALL_CHARS - 2), True),
        ("x" * SMALL_CHARS, False),
        ({"k" * SMALL_CHARS: 1}, False),
        ([0] * 20, True),
        ([0] * SMALL_CHARS, False),
        ([[]] * SMALL_CHARS * 100, False),
        ({"a": ["b", {"c": "d" * 100}]}, True),
    ],
)
def test_what_is_small_is_known_without_looking_at_all_of_it(value, small):
    assert is_small(value) is small


def test_what_is_deep_is_no_harm():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    assert not is_small(deep)
