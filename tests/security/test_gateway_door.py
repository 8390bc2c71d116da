"""The gateway's door over HTTP: wrong and stolen tokens, names and pages of others, sizes, slowness, and what is malformed."""

import contextlib
import json
import logging
import socket
import ssl
from collections import Counter
from dataclasses import replace
from random import Random

import anyio
import anyio.to_thread
import httpx2
import pytest
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client

from symbi.api.mcp.tokens import FILE_NAME, ClientBook
from symbi.errors import InputError, StoreUnavailable
from symbi.testing.door import (
    ACCEPT,
    CALL,
    INITIALIZE,
    LEGACY,
    MODERN,
    TERMS,
    certified,
    opened,
    spoken,
    spoken_to,
    started_session,
)

pytestmark = pytest.mark.anyio

# --- who comes in ----------------------------------------------------------------------------


async def test_a_client_comes_in_by_its_token_in_both_eras(tmp_path):
    async with opened(tmp_path) as house:
        headers = house.add("ann")
        for mode in ("legacy", MODERN):
            async with (
                httpx2.AsyncClient(headers=headers, timeout=10) as http,
                Client(streamable_http_client(house.url, http_client=http), mode=mode) as client,
            ):
                result = await client.call_tool("who", {})
                assert result.content[0].text == "ann"


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (None, None),
        ("", None),
        ("Basic YTpi", None),
        ("Bearer", None),
        ("Bearer wrong", "invalid_token"),
        ("Bearer symbi_" + "A" * 43, "invalid_token"),
        ("Bearer " + "x" * 5000, "invalid_token"),
    ],
)
async def test_who_has_no_token_of_a_client_is_asked_for_one(tmp_path, given, error):
    async with opened(tmp_path) as house, spoken_to(house) as client:
        house.add("ann")
        for method in ("GET", "POST", "DELETE"):
            headers = {} if given is None else {"authorization": given}
            answer = await client.request(method, house.url, headers=headers, json=INITIALIZE)
            assert answer.status_code == 401
            challenge = answer.headers["www-authenticate"]
            assert challenge.startswith('Bearer realm="symbi"')
            assert (f'error="{error}"' in challenge) is (error is not None)
            assert "wrong" not in answer.text
        assert not house.opened
        assert not house.calls


async def test_a_token_of_which_the_digest_alone_is_known_lets_nobody_in(tmp_path):
    async with opened(tmp_path) as house, spoken_to(house) as client:
        house.add("ann")
        (kept,) = house.book.all()
        answer = await client.post(house.url, json=INITIALIZE, headers={"authorization": f"Bearer {kept.digest}"})
        assert answer.status_code == 401


async def test_a_session_of_one_client_is_worth_nothing_to_another(tmp_path):
    async with (
        opened(tmp_path) as house,
        spoken_to(house, house.add("ann")) as ann,
        spoken_to(house, house.add("bob")) as bob,
    ):
        session = await started_session(ann, house.url)
        assert spoken(await ann.post(house.url, json=CALL, headers=session))["result"]["content"][0]["text"] == "ann"
        stolen = await bob.post(house.url, json=CALL, headers=session)
        assert stolen.status_code == 404
        assert (await bob.get(house.url, headers=session)).status_code == 404
        assert (await bob.delete(house.url, headers=session)).status_code == 404
        assert house.calls == {"ann": 1}
        assert (await ann.post(house.url, json=CALL, headers=session)).status_code == 200, "it still stands"


async def test_who_is_revoked_is_out_at_once_and_its_open_streams_end(tmp_path, monkeypatch):
    monkeypatch.setattr("symbi.api.mcp.http_door.LOOK_S", 0.02)
    async with opened(tmp_path) as house, spoken_to(house, house.add("ann")) as ann:
        session = await started_session(ann, house.url)
        async with ann.stream("GET", house.url, headers=session) as stream:
            assert stream.status_code == 200
            house.book.revoke("ann")
            assert (await ann.post(house.url, json=CALL, headers=session)).status_code == 401
            with anyio.fail_after(10), pytest.raises(httpx2.HTTPError):
                async for _ in stream.aiter_bytes():
                    pass
                raise httpx2.HTTPError("it ended in order")
        assert house.opened["ann"] == 0
        assert not house.calls
        again = house.add("ann")  # a new token under the same name finds nothing of the old
        assert (await ann.post(house.url, json=CALL, headers=session | again)).status_code == 404


async def test_a_file_that_others_can_write_lets_nobody_in(tmp_path):
    async with opened(tmp_path) as house, spoken_to(house, house.add("ann")) as client:
        (tmp_path / FILE_NAME).chmod(0o666)
        assert (await client.post(house.url, json=INITIALIZE)).status_code == 503
        assert not house.opened
        (tmp_path / FILE_NAME).chmod(0o600)
        assert (await client.post(house.url, json=INITIALIZE)).status_code == 200


async def test_clients_are_kept_as_digests_under_names_that_are_taken_once(tmp_path):
    book = ClientBook(tmp_path)
    tokens = {name: book.add(name, 0) for name in ("ann", "bob")}
    text = (tmp_path / FILE_NAME).read_text()
    assert not any(token in text or token.removeprefix("symbi_") in text for token in tokens.values())
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600
    assert [ClientBook(tmp_path).who(token) for token in tokens.values()] == ["ann", "bob"]
    with pytest.raises(InputError, match="already"):
        book.add("ann", 0)
    for name in ("", "../x", "a b", "ann\n", "1a", "a" * 49):
        with pytest.raises(InputError, match="no name"):
            book.add(name, 0)
    book.revoke("ann")
    assert book.who(tokens["ann"]) is None
    with pytest.raises(InputError, match="no client"):
        book.revoke("ann")
    (tmp_path / FILE_NAME).write_text("{")
    with pytest.raises(StoreUnavailable, match="not what was written"):
        book.who(tokens["bob"])


# --- names and pages of others ---------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:{port}",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "localhost:x",
        "",
        "[::1",
        "0",
    ],
)
async def test_a_name_that_is_not_ours_is_refused(tmp_path, host):
    async with opened(tmp_path) as house, spoken_to(house, house.add("ann")) as client:
        answer = await client.post(house.url, json=INITIALIZE, headers={"host": host.format(port=house.address[1])})
        assert answer.status_code in {400, 403}
        assert not house.opened


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:1", "http://localhost.evil.example", "file://"]
)
async def test_a_page_of_others_may_not_ask(tmp_path, origin):
    async with opened(tmp_path) as house, spoken_to(house, house.add("ann")) as client:
        answer = await client.post(house.url, json=INITIALIZE, headers={"origin": origin})
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers
        assert not house.opened


async def test_a_page_that_is_configured_or_our_own_may_ask(tmp_path):
    terms = replace(TERMS, origins=("https://chat.example",), hosts=("gateway.example",))
    async with opened(tmp_path, terms) as house, spoken_to(house, house.add("ann")) as client:
        own = f"127.0.0.1:{house.address[1]}"
        for more in ({"origin": "https://chat.example"}, {"origin": f"http://{own}"}, {"host": "gateway.example"}):
            assert (await client.post(house.url, json=INITIALIZE, headers=more)).status_code == 200
        again = {"host": "gateway.example", "origin": "http://gateway.example"}
        assert (await client.post(house.url, json=INITIALIZE, headers=again)).status_code == 403


# --- how much --------------------------------------------------------------------------------


async def test_a_body_has_a_size(tmp_path):
    async with (
        opened(tmp_path, replace(TERMS, max_body_bytes=4096)) as house,
        spoken_to(house, house.add("ann")) as client,
    ):
        large = json.dumps({**INITIALIZE, "filler": "x" * 5000})
        assert (await client.post(house.url, content=large)).status_code == 413

        async def pieces():
            for _ in range(100):
                yield b" " * 100

        try:  # the answer is sent and the connection closed while the client may still be sending
            assert (await client.post(house.url, content=pieces())).status_code == 413
        except httpx2.TransportError:
            assert house.gateway.door.refused["too_large"] == 2
        assert not house.opened["ann"] or not house.calls
        assert (await client.post(house.url, json=INITIALIZE)).status_code == 200


async def test_headers_have_a_size_and_are_there_once(tmp_path):
    async with opened(tmp_path) as house, spoken_to(house, house.add("ann")) as client:
        assert (await client.post(house.url, json=INITIALIZE, headers={"x-filler": "x" * 17_000})).status_code == 431
        with contextlib.suppress(httpx2.TransportError):  # of what is larger still not all is read before the answer
            assert (await client.post(house.url, json=INITIALIZE, headers={"x-filler": "x" * 300_000})).status_code in {
                400,
                431,
            }
        pairs = [("authorization", "Bearer x"), ("authorization", client.headers["authorization"])]
        assert (await client.post(house.url, json=INITIALIZE, headers=pairs)).status_code == 400
        assert not house.opened


async def test_a_client_has_so_many_sessions_and_no_more_than_its_own(tmp_path):
    async with (
        opened(tmp_path, replace(TERMS, max_sessions=2)) as house,
        spoken_to(house, house.add("ann")) as ann,
        spoken_to(house, house.add("bob")) as bob,
    ):
        sessions = [await started_session(ann, house.url) for _ in range(2)]
        assert (await ann.post(house.url, json=INITIALIZE)).status_code == 503
        await started_session(bob, house.url)
        assert (await ann.delete(house.url, headers=sessions[0])).status_code == 200
        await started_session(ann, house.url)


async def test_a_client_has_so_many_requests_at_a_time(tmp_path):
    wait = {**CALL, "params": {"name": "wait", "arguments": {}}}
    async with (
        opened(tmp_path, replace(TERMS, max_requests=2)) as house,
        spoken_to(house, house.add("ann")) as ann,
        spoken_to(house, house.add("bob")) as bob,
    ):
        session = await started_session(ann, house.url)
        async with anyio.create_task_group() as tasks:
            for number in (5, 6):
                tasks.start_soon(lambda n: ann.post(house.url, json=wait | {"id": n}, headers=session), number)
            while house.calls["ann"] < 2:
                await anyio.lowlevel.checkpoint()
            refused = await ann.post(house.url, json=CALL, headers=session)
            assert refused.status_code == 429
            assert refused.headers["retry-after"]
            assert (await started_session(bob, house.url))["mcp-session-id"]
            house.release.set()
        assert (await ann.post(house.url, json=CALL, headers=session)).status_code == 200


async def test_a_session_that_nobody_uses_ends(tmp_path):
    async with opened(tmp_path, replace(TERMS, idle_s=0.05)) as house, spoken_to(house, house.add("ann")) as client:
        session = await started_session(client, house.url)
        with anyio.fail_after(10):
            while (await client.post(house.url, json=CALL, headers=session | {"x": "y"})).status_code != 404:  # noqa: ASYNC110
                await anyio.sleep(0.1)  # longer than it may be idle


async def test_one_connection_too_many_is_closed(tmp_path):
    async with opened(tmp_path, replace(TERMS, max_connections=3)) as house:
        streams = [await anyio.connect_tcp(*house.address) for _ in range(4)]
        with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)), anyio.fail_after(5):
            await streams[3].receive()
        for stream in streams:
            await stream.aclose()
        with anyio.fail_after(5):
            async with spoken_to(house, house.add("ann")) as client:
                while True:
                    try:
                        await started_session(client, house.url)
                        break
                    except httpx2.TransportError:
                        await anyio.lowlevel.checkpoint()


# --- how slow --------------------------------------------------------------------------------


async def drip(stream, pieces):
    """Send piece by piece for as long as the other end listens."""
    try:
        for piece in pieces:
            await stream.send(piece)
            await anyio.sleep(0.02)
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        pass


@pytest.mark.parametrize("before", [b"", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"], ids=["first", "second"])
async def test_headers_that_come_a_byte_at_a_time_are_not_waited_for(tmp_path, before):
    async with (
        opened(tmp_path, replace(TERMS, header_s=0.2)) as house,
        await anyio.connect_tcp(*house.address) as stream,
    ):
        if before:
            await stream.send(before)
            assert b"200 OK" in await stream.receive()
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(drip, stream, [b"POST /mcp HTTP/1.1\r\n", *[b"x: y\r\n"] * 400])
                with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                    while True:
                        await stream.receive()
                tasks.cancel_scope.cancel()


async def test_who_says_nothing_is_not_waited_for(tmp_path):
    async with (
        opened(tmp_path, replace(TERMS, header_s=0.2)) as house,
        await anyio.connect_tcp(*house.address) as stream,
    ):
        with anyio.fail_after(10), pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
            await stream.receive()


async def test_a_body_that_comes_a_byte_at_a_time_is_not_waited_for(tmp_path):
    async with opened(tmp_path, replace(TERMS, body_s=0.2)) as house:
        token = house.add("ann")["authorization"]
        head = (
            f"POST /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: {token}\r\nContent-Length: 4000\r\n\r\n".encode()
        )
        async with await anyio.connect_tcp(*house.address) as stream:
            with anyio.fail_after(10):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(drip, stream, [head, *[b" "] * 400])
                    assert b" 408 " in await stream.receive()
                    with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                        while True:
                            await stream.receive()
                    tasks.cancel_scope.cancel()
        assert not house.calls


async def test_a_hundred_slow_ones_hold_nobody_up(tmp_path):
    async with opened(tmp_path) as house, spoken_to(house, house.add("ann")) as client:
        slow = []
        for _ in range(100):
            stream = await anyio.connect_tcp(*house.address)
            await stream.send(b"POST /mcp HTTP/1.1\r\nHost: loc")
            slow.append(stream)
        session = await started_session(client, house.url)
        assert (await client.post(house.url, json=CALL, headers=session)).status_code == 200
        for stream in slow:
            await stream.aclose()


# --- what is malformed -----------------------------------------------------------------------


def malformed(random):
    """A body that no client sends."""
    text = json.dumps(random.choice([INITIALIZE, CALL]))
    kind = random.randrange(8)
    if kind == 0:
        return text[: random.randrange(len(text))].encode()
    if kind == 1:
        return random.randbytes(random.randrange(1, 300))
    if kind == 2:
        return b"[" * random.randrange(1, 60_000)
    if kind == 3:
        return json.dumps([json.loads(text)] * random.randrange(3)).encode()
    if kind == 4:
        return text.replace("2.0", random.choice(["1.0", "2", ""])).encode()
    if kind == 5:
        return json.dumps(
            {
                **json.loads(text),
                random.choice(["id", "method", "params"]): random.choice([None, [], 1.5, {"a": []}, -1, True]),
            }
        ).encode()
    if kind == 6:
        return text.replace("1", "9" * random.choice([20, 400, 5000])).encode()
    return text.replace("a", random.choice(["\\ud800", "\\u0000", "\x00", "\udcff"])).encode(errors="surrogateescape")


@pytest.mark.parametrize("version", [LEGACY, MODERN, "1999-01-01", None])
async def test_a_thousand_malformed_requests_leave_the_gateway_as_it_was(tmp_path, version, caplog):
    caplog.set_level(logging.ERROR)
    random = Random(f"malformed {version}")
    async with opened(tmp_path) as house, spoken_to(house, house.add("ann")) as client:
        session = await started_session(client, house.url)
        headers = {"mcp-protocol-version": version} if version else {}
        seen = Counter()
        for number in range(250):
            more = session | headers if version != MODERN and number % 2 else headers
            answer = await client.post(house.url, content=malformed(random), headers=more)
            seen[answer.status_code] += 1
        assert not any(status >= 500 for status in seen), seen
        assert sum(house.calls.values()) <= seen[200], "nothing but what was answered was called"
        assert (await client.post(house.url, json=CALL, headers=session)).status_code == 200
    assert "Traceback" not in caplog.text


async def test_bytes_that_are_no_http_end_their_connection_alone(tmp_path):
    random = Random("no http")
    async with opened(tmp_path) as house, spoken_to(house, house.add("ann")) as client:
        session = await started_session(client, house.url)
        for _ in range(200):
            async with await anyio.connect_tcp(*house.address) as stream:
                start = random.choice([b"", b"POST /mcp HTTP/1.1\r\nHost: localhost\r\n", b"GET / HTTP/9.9\r\n"])
                await stream.send(start + random.randbytes(random.randrange(1, 400)) + b"\r\n\r\n")
        assert (await client.post(house.url, json=CALL, headers=session)).status_code == 200


# --- how it ends -----------------------------------------------------------------------------


async def test_what_is_at_work_may_finish_and_nothing_new_begins(tmp_path):
    wait = {**CALL, "params": {"name": "wait", "arguments": {}}}
    answers = []
    async with opened(tmp_path) as house, spoken_to(house, house.add("ann")) as client:
        session = await started_session(client, house.url)

        async def call():
            answers.append(await client.post(house.url, json=wait, headers=session))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            while not house.calls:
                await anyio.lowlevel.checkpoint()
            house.gateway.stop()
            while (refused := await client.post(house.url, json=CALL, headers=session)).status_code != 503:
                pass
            assert refused.headers["retry-after"]
            house.release.set()
    assert answers[0].status_code == 200
    assert spoken(answers[0])["result"]["content"][0]["text"] == "ann"
    with socket.socket() as probe:
        assert probe.connect_ex(house.address) != 0, "nobody listens any more"


async def test_an_open_stream_does_not_hold_up_the_end(tmp_path):
    async with opened(tmp_path, replace(TERMS, grace_s=30.0)) as house, spoken_to(house, house.add("ann")) as client:
        session = await started_session(client, house.url)
        async with client.stream("GET", house.url, headers=session) as stream:
            house.gateway.stop()
            with anyio.fail_after(20), pytest.raises(httpx2.HTTPError):
                async for _ in stream.aiter_bytes():
                    pass
                raise httpx2.HTTPError("it ended in order")


async def test_health_is_told_to_anybody_and_says_nothing_else(tmp_path):
    async with opened(tmp_path) as house, httpx2.AsyncClient() as client:
        answer = await client.get(house.url.replace("/mcp", "/health"), headers={"host": "10.1.2.3:8080"})
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
        assert not list(tmp_path.iterdir())


# --- TLS -------------------------------------------------------------------------------------


async def test_with_a_certificate_it_speaks_tls_and_nothing_else(tmp_path):
    certified(tmp_path)
    terms = replace(TERMS, tls_cert=tmp_path / "c.pem", tls_key=tmp_path / "k.pem")
    async with opened(tmp_path / "data", terms) as house:
        assert house.url.startswith("https://")
        url = house.url.replace("127.0.0.1", "localhost")
        trusting = ssl.create_default_context(cafile=str(tmp_path / "c.pem"))
        async with httpx2.AsyncClient(verify=trusting, headers=house.add("ann") | ACCEPT) as client:
            assert (await client.post(url, json=INITIALIZE)).status_code == 200
        async with httpx2.AsyncClient() as plainly:
            with pytest.raises(httpx2.TransportError):
                await plainly.get(url.replace("https:", "http:"))
