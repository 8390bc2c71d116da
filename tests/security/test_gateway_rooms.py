"""Rooms behind the gateway's door: a token that was replaced, a room that fails, and pages that a browser asks for."""

import contextlib
import json
import ssl
from dataclasses import replace

import anyio
import httpx2
import pytest

from symbi.testing.door import ACCEPT, CALL, INITIALIZE, MODERN, TERMS, certified, opened, spoken_to, started_session

pytestmark = pytest.mark.anyio


async def test_with_a_new_token_under_the_same_name_the_old_ones_streams_and_sessions_end(tmp_path, monkeypatch):
    monkeypatch.setattr("symbi.api.mcp.http_door.LOOK_S", 0.02)
    async with opened(tmp_path) as house, spoken_to(house, house.add("ann")) as thief:
        session = await started_session(thief, house.url)
        async with thief.stream("GET", house.url, headers=session) as stream:
            assert stream.status_code == 200
            house.book.revoke("ann")
            owner = house.add("ann")  # before anybody has looked
            with anyio.fail_after(10), pytest.raises(httpx2.HTTPError):
                async for _ in stream.aiter_bytes():
                    pass
                raise httpx2.HTTPError("it ended in order")
        assert (await thief.post(house.url, json=CALL, headers=session)).status_code == 401
        assert (await thief.post(house.url, json=CALL, headers=session | owner)).status_code == 404


async def test_a_new_token_finds_nothing_of_the_old_before_anybody_has_looked(tmp_path, monkeypatch):
    monkeypatch.setattr("symbi.api.mcp.http_door.LOOK_S", 3_600.0)
    async with opened(tmp_path) as house, spoken_to(house, house.add("ann")) as client:
        session = await started_session(client, house.url)
        house.book.revoke("ann")
        owner = house.add("ann")
        assert (await client.post(house.url, json=CALL, headers=session | owner)).status_code == 404
        assert not house.calls


async def test_a_room_that_fails_is_the_only_one(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("symbi.api.mcp.http_door.LOOK_S", 0.02)
    async with (
        opened(tmp_path) as house,
        spoken_to(house, house.add("ann")) as ann,
        spoken_to(house, house.add("bob")) as bob,
    ):
        house.failing.add("ann")
        await started_session(ann, house.url)
        session = await started_session(bob, house.url)
        house.book.revoke("ann")
        with anyio.fail_after(10):
            while house.opened["ann"]:
                await anyio.wait_all_tasks_blocked()
        assert (await bob.post(house.url, json=CALL, headers=session)).status_code == 200
        assert (await ann.post(house.url, json=INITIALIZE, headers=house.add("ann"))).status_code == 200, "and anew"
    assert "the room of client ann has failed" in caplog.text


async def test_who_is_revoked_while_a_body_comes_is_told_so_and_nothing_is_called(tmp_path, monkeypatch):
    monkeypatch.setattr("symbi.api.mcp.http_door.LOOK_S", 0.02)
    whole = json.dumps(CALL).encode()
    async with opened(tmp_path) as house, spoken_to(house, house.add("ann")) as client:
        session = await started_session(client, house.url)
        scopes = house.gateway.door._rooms["ann"].scopes

        async def body():
            while scopes:  # the request before it is not done with yet
                await anyio.lowlevel.checkpoint()
            yield whole[:10]
            while not scopes:  # its body is not waited for yet
                await anyio.lowlevel.checkpoint()
            house.book.revoke("ann")
            while house.opened["ann"]:
                await anyio.lowlevel.checkpoint()
            yield whole[10:]

        with anyio.fail_after(20):
            answer = await client.post(house.url, content=body(), headers=session)
        assert answer.status_code == 503
        assert answer.json()["error"] == "closing"
        assert not house.calls


async def test_a_stream_of_changes_does_not_hold_up_the_end(tmp_path):
    terms = replace(TERMS, grace_s=3_600.0)
    async with opened(tmp_path, terms) as house, spoken_to(house, house.add("ann")) as client:
        meta = {"io.modelcontextprotocol/protocolVersion": MODERN, "io.modelcontextprotocol/clientCapabilities": {}}
        params = {"notifications": {"toolsListChanged": True}, "_meta": meta}
        listen = {"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": params}
        headers = {"mcp-protocol-version": MODERN, "mcp-method": "subscriptions/listen"}
        async with client.stream("POST", house.url, json=listen, headers=headers) as stream:
            parts = stream.aiter_text()
            assert "notifications/subscriptions/acknowledged" in await anext(parts)
            house.gateway.stop()
            with anyio.fail_after(20), pytest.raises(httpx2.HTTPError):
                async for _ in parts:
                    pass
                raise httpx2.HTTPError("it ended in order")


async def test_over_tls_connections_are_bounded_before_they_agree_on_a_key(tmp_path):
    certified(tmp_path)
    terms = replace(TERMS, tls_cert=tmp_path / "c.pem", tls_key=tmp_path / "k.pem", max_connections=4)
    async with opened(tmp_path / "data", terms) as house:
        idle = [await anyio.connect_tcp(*house.address) for _ in range(12)]
        left = []
        async with anyio.create_task_group() as tasks:

            async def hear(one):
                with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                    await one.receive()
                left.append(one)
                if len(left) == 8:
                    tasks.cancel_scope.cancel()

            tasks.cancel_scope.deadline = anyio.current_time() + 60
            for one in idle:
                tasks.start_soon(hear, one)
        assert len(left) == 8, "those that came beyond the bound were closed, and no other"
        for one in idle:
            await one.aclose()
        trusting = ssl.create_default_context(cafile=str(tmp_path / "c.pem"))
        headers = house.add("ann") | ACCEPT
        url = house.url.replace("127.0.0.1", "localhost")
        with anyio.fail_after(30):
            while True:
                async with httpx2.AsyncClient(verify=trusting, headers=headers) as client:
                    with contextlib.suppress(httpx2.NetworkError):  # the end of the others is still on its way
                        assert (await client.post(url, json=INITIALIZE)).status_code == 200
                        break


async def test_a_browser_is_told_that_a_configured_page_may_ask_and_read(tmp_path):
    terms = replace(TERMS, origins=("https://chat.example",))
    async with opened(tmp_path, terms) as house:
        before = {
            "origin": "https://chat.example",
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization, content-type, Mcp-Param-City, x-other",
        }
        async with httpx2.AsyncClient() as browser:
            asked = await browser.options(house.url, headers=before)
            assert (asked.status_code, asked.content) == (204, b"")
            assert asked.headers["access-control-allow-origin"] == "https://chat.example"
            assert "POST" in asked.headers["access-control-allow-methods"]
            assert asked.headers["access-control-allow-headers"] == "authorization, content-type, mcp-param-city"
            assert "access-control-allow-credentials" not in asked.headers
            evil = await browser.options(house.url, headers=before | {"origin": "https://evil.example"})
            assert evil.status_code == 403
            assert not [name for name in evil.headers if name.startswith("access-control")]
            assert (await browser.options(house.url)).status_code == 405, "it is no question of a browser"
            refused = await browser.post(house.url, json=CALL, headers={"origin": "https://chat.example"})
            assert refused.status_code == 401
            assert refused.headers["access-control-allow-origin"] == "https://chat.example"
        async with spoken_to(house, house.add("ann")) as page:
            answer = await page.post(house.url, json=INITIALIZE, headers={"origin": "https://chat.example"})
            assert answer.headers["access-control-allow-origin"] == "https://chat.example"
            assert "mcp-session-id" in answer.headers["access-control-expose-headers"]
            assert "mcp-session-id" in answer.headers
