"""Credentials that are put in on the way out: who gets them, and what comes back when they show."""

import base64
import gzip
import json
import re
import threading

import pytest

from symbi.adapters.egress.credential import Secret
from symbi.errors import InputError, Unavailable
from symbi.sandbox.egress import EgressLimits
from symbi.testing.egress import ProxyUnderTest, get, outside, refused
from symbi.testing.outside import LOOPBACK, say

pytestmark = pytest.mark.anyio

SECRET = "sesame-4711-open"
KEY = {"network": ["api.example:443"], "credentials": {"api.example": "key"}, "secrets": {"key": SECRET}}


async def test_a_credential_is_put_in_on_the_way_out_and_the_sandbox_never_has_it():
    async with outside(tls="api.example", **KEY) as (proxy, server):
        heard = await proxy.say(
            get(more="Authorization: Bearer placeholder\r\nRange: bytes=0-3\r\nAccept-Encoding: gzip\r\n")
        )
    (asked,) = server.asked
    assert asked.all("authorization") == [f"Bearer {SECRET}"]
    assert (asked.all("accept-encoding"), asked.all("range")) == (["identity"], [])
    assert heard.endswith(b"hello from outside")
    assert proxy.dialed == [(LOOPBACK, 443, "api.example")]
    assert proxy.events[0][1]["credential"] == "key"
    for told in (
        heard.decode(),
        json.dumps(proxy.events),
        json.dumps(proxy.session.totals()),
        repr(proxy.session._outsides),
    ):
        assert SECRET not in told


async def test_a_header_of_another_name_is_put_in_too():
    changed = KEY | {"credentials": {"api.example X-Key": "key"}}
    async with outside(tls="api.example", **changed) as (proxy, server):
        await proxy.say(get(more="x-key: mine\r\nAuthorization: own\r\n"))
    assert (server.asked[0].all("x-key"), server.asked[0].all("authorization")) == ([SECRET], ["own"])


async def test_a_credential_goes_to_nobody_who_cannot_show_that_he_is_it():
    async with outside(tls="evil.example", **KEY) as (proxy, server):
        assert await proxy.say(get()) == refused("egress.unreachable", "502 Bad Gateway")
        assert server.asked == []
    async with outside(**KEY) as (proxy, server):  # no TLS there
        assert await proxy.say(get()) == refused("egress.unreachable", "502 Bad Gateway")
        assert await proxy.say(b"CONNECT api.example:443 HTTP/1.1\r\n\r\n") == refused("egress.tunnel")
        assert server.asked == []


def shapes(secret):
    data = secret.encode()
    return {
        "as it is": say(b"you sent " + data),
        "in a header": b"HTTP/1.1 200 OK\r\nX-Echo: Bearer " + data + b"\r\nContent-Length: 0\r\n\r\n",
        "in the reason": b"HTTP/1.1 200 " + data + b"\r\nContent-Length: 0\r\n\r\n",
        "in a redirect": b"HTTP/1.1 302 Found\r\nLocation: http://evil.example/?" + data + b"\r\nContent-Length: 0\r\n\r\n",
        "over two chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n" + data[:5] + b"\r\n%x\r\n" % (len(data) - 5)
        + data[5:] + b"\r\n0\r\n\r\n",
        "in base64": say(base64.b64encode(data)),
        "in base64 behind a letter": say(base64.b64encode(b"u" + data)),
        "in base64 behind a user": say(base64.b64encode(b"user:" + data + b":x")),
        "in hexadecimal digits": say(data.hex().upper().encode()),
        "in capitals": say(data.upper()),
        "percent-encoded": say("".join(f"%{one:02X}" if one == 0x2D else chr(one) for one in data).encode()),
        "packed": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(gzip.compress(data)) + gzip.compress(data),
        "in part": b"HTTP/1.1 206 Partial\r\nContent-Range: bytes 0-3/20\r\nContent-Length: 4\r\n\r\n" + data[:4],
    }  # fmt: skip


@pytest.mark.parametrize("answer", shapes(SECRET).values(), ids=shapes(SECRET))
async def test_an_answer_in_which_the_credential_shows_does_not_come_in(answer):
    async with outside(tls="api.example", **KEY) as (proxy, server):
        server.answer = lambda _: answer
        assert await proxy.say(get()) == refused("egress.credential", "502 Bad Gateway")
        assert len(server.asked) == 1
    assert SECRET not in json.dumps(proxy.events)


async def test_an_answer_that_is_too_large_to_be_looked_through_does_not_come_in():
    limits = EgressLimits(masked_bytes=1000)
    async with outside(tls="api.example", limits=limits, **KEY) as (proxy, server):
        server.answer = lambda _: say(b"x" * 1001)
        assert await proxy.say(get()) == refused("egress.bytes", "502 Bad Gateway")


@pytest.mark.parametrize("value", ["two\nlines", "a\r\nX: y", "sch\u00f6n-geheim", "", "ab", None, " padded"])
async def test_a_secret_that_cannot_stand_in_a_header_is_said_without_it(value):
    with pytest.raises((InputError, Unavailable)) as caught:
        await ProxyUnderTest().open(**KEY | {"secrets": {"key": value}})
    assert "vault://key" in str(caught.value)
    assert not value or len(value) < 4 or value not in str(caught.value)


@pytest.mark.parametrize(
    ("method", "answer", "lengths"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n", [b"1234"]),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", []),
        ("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", [b"3"]),
        ("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", [b"0"]),
    ],
)
async def test_an_answer_without_a_body_keeps_the_length_that_it_names(method, answer, lengths):
    async with outside(tls="api.example", **KEY) as (proxy, server):
        server.answer = lambda _: answer
        heard = await proxy.say(get().replace(b"GET", method.encode(), 1))
    assert re.findall(rb"(?i)content-length: (\d+)", heard) == lengths
    assert heard.startswith(answer[:12])


async def test_a_body_is_looked_through_beside_the_loop(monkeypatch):
    places = {}
    look = Secret.shows_in

    def noted(self, data):
        places[data] = threading.current_thread() is threading.main_thread()
        return look(self, data)

    monkeypatch.setattr(Secret, "shows_in", noted)
    async with outside(tls="api.example", **KEY) as (proxy, server):
        server.answer = lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n%41%41"
        assert (await proxy.say(get())).endswith(b"%41%41")
    assert places[b"%41%41"] is False
