"""Runs that a client asks for end with whoever asked for them, also before they are at work."""

import anyio
import pytest

from symbi.runtime.runtime import Runtime
from symbi.testing.mcp_gateway import open_gateway

pytestmark = pytest.mark.anyio

ALLOW = '@id("all") permit (principal, action, resource);'


async def test_a_run_whose_request_is_given_up_before_it_is_at_work_ends(tmp_path, monkeypatch):
    began, ended = anyio.Event(), anyio.Event()

    async def admitted(*_arguments, **_named):
        began.set()
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()

    monkeypatch.setattr(Runtime, "run", admitted)
    async with (
        open_gateway(tmp_path, config="", policies=ALLOW, agents="agent a { with { 1 } }") as one,
        one.client() as client,
    ):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.call_tool, "symbi__run_agent", {"agent": "a"})
            await began.wait()
            tasks.cancel_scope.cancel()
        with anyio.fail_after(30):
            await ended.wait()
        (session,) = one.gateway.sessions.values()
        assert not session.turnstile.under_way
