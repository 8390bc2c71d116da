"""The proxy of a sandbox with servers on loopback in place of the public network: what gets out, what comes back, what is recorded."""

import json
from dataclasses import replace

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symbi.adapters.egress import EgressProxy
from symbi.audit.event import AuditEventType
from symbi.errors import Denied, Unavailable
from symbi.guard.action import RunContainer
from symbi.guard.permit import Authority
from symbi.sandbox.egress import EgressLimits
from symbi.testing.clock import ManualClock
from symbi.testing.egress import ProxyUnderTest, both_ends, get, outside, refused
from symbi.testing.outside import LOOPBACK, say
from symbi.types import AgentId, EffectId, Principal, SecurityTier

pytestmark = pytest.mark.anyio

FEW = 0.1  # seconds for what is to be given up


async def test_a_tunnel_goes_both_ways_and_is_on_the_trail_before_it_stands():
    async with outside(network=["api.example:443"]) as (proxy, server):
        heard = await proxy.say(b"CONNECT api.example:443 HTTP/1.1\r\nHost: api.example:443\r\n\r\n" + get("/x"))
    assert heard == b"HTTP/1.1 200 Connection established\r\n\r\n" + say()
    assert [one.target for one in server.asked] == ["/x"]
    assert proxy.events == [
        ("connected", {"effect_id": "effect", "host": "api.example", "port": 443, "address": LOOPBACK, "tunnel": True,
                       "tls": False, "method": "CONNECT"}),
        ("closed", {"effect_id": "effect", "host": "api.example", "port": 443, "address": LOOPBACK, "sent": len(get("/x")),
                    "received": len(say()), "rule": ""}),
    ]  # fmt: skip
    assert proxy.session.totals() == {
        "connections": 1, "refused": {}, "sent": len(get("/x")), "received": len(say()), "bytes_per_s": EgressLimits().bytes_per_s,
        "pinned": {"api.example": [LOOPBACK]},
    }  # fmt: skip


async def test_a_request_is_written_anew_and_its_answer_too():
    async with outside(network=["api.example:80"]) as (proxy, server):
        server.answer = lambda _: (
            b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 201 Made\r\nKeep-Alive: 5\r\nConnection: x-mine\r\nX-Mine: 1\r\n"
            b"X-Yours: 2\r\nProxy-Authenticate: Basic\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nTrailer: 1\r\n\r\n"
        )
        heard = await proxy.say(
            b"POST http://API.example:80/a?b HTTP/1.1\r\nHost: api.example:80\r\nTransfer-Encoding: chunked\r\nX-Own: 1\r\n"
            b"Proxy-Connection: keep-alive\r\nTE: trailers\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n4\r\nbody\r\n0\r\nX-Late: 1\r\n\r\n"
        )
    (asked,) = server.asked
    assert (asked.method, asked.target, asked.body) == ("POST", "/a?b", b"body")
    assert asked.headers == (
        ("host", "api.example"), ("x-own", "1"), ("transfer-encoding", "chunked"), ("connection", "close"),
    )  # fmt: skip
    head, _, body = heard.partition(b"\r\n\r\n")
    assert head.lower().split(b"\r\n") == [
        b"http/1.1 201 made", b"x-yours: 2", b"transfer-encoding: chunked", b"connection: close"
    ]  # fmt: skip
    assert body == b"3\r\nabc\r\n0\r\n\r\n"


@pytest.mark.parametrize(("granted", "passed"), [("GET api.example:80", []), ("api.example:80", ["DELETE"])])
async def test_a_header_that_makes_another_method_of_a_request_is_left_out_where_methods_are_granted(granted, passed):
    async with outside(network=[granted]) as (proxy, server):
        await proxy.say(get(more="X-HTTP-Method-Override: DELETE\r\nX-Method: kept\r\n"))
    (asked,) = server.asked
    assert (asked.all("x-http-method-override"), asked.all("x-method")) == (passed, ["kept"])


async def test_a_client_that_waits_for_a_word_gets_it_and_an_old_one_gets_no_chunks():
    async with outside(network=["api.example:80"]) as (proxy, server):
        server.answer = lambda _: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        heard = await proxy.say(get().replace(b"HTTP/1.1", b"HTTP/1.0"))
        assert heard.endswith(b"\r\n\r\nabc")
        assert b"chunked" not in heard
        heard = await proxy.say(
            b"PUT http://api.example/ HTTP/1.1\r\nHost: api.example\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi"
        )
    assert heard.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200")
    assert server.asked[-1].body == b"hi"


@pytest.mark.parametrize(
    ("said", "rule"),
    [
        (get("http://evil.example/?data=all-i-know", "evil.example"), "egress.host"),
        (get("http://c2VjcmV0.tunnel.api.example/", "c2VjcmV0.tunnel.api.example"), "egress.host"),
        (get("http://api.example:22/", "api.example:22"), "egress.port"),
        (b"CONNECT evil.example:443 HTTP/1.1\r\n\r\n", "egress.host"),
        (b"CONNECT api.example:25 HTTP/1.1\r\n\r\n", "egress.port"),
        (b"CONNECT 8.8.8.8:53 HTTP/1.1\r\n\r\n", "egress.host"),
        (b"TRACE http://api.example/ HTTP/1.1\r\nHost: api.example\r\n\r\n", "egress.method"),
    ],
)
async def test_what_is_not_granted_is_refused_by_name_of_the_rule_and_nobody_is_asked(said, rule):
    async with outside(network=["api.example:80", "api.example:443"]) as (proxy, server):
        assert await proxy.say(said) == refused(rule)
    assert (server.connections, proxy.dialed, proxy.resolved) == (0, [], ["api.example"])
    ((kind, facts),) = proxy.events
    assert (kind, facts["rule"]) == ("refused", rule)
    assert "data" not in json.dumps(facts)


@pytest.mark.parametrize(
    "address", [LOOPBACK[:-1] + "2", "169.254.169.254", "10.0.0.7", "100.100.100.200", "168.63.129.16", "::1", "fd00:ec2::254",
                "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe"]
)  # fmt: skip
async def test_a_name_with_an_address_that_is_not_public_is_no_grant_though_another_of_them_is(address):
    proxy = ProxyUnderTest()
    proxy.names = {"api.example": ["1.1.1.1", address]}
    with pytest.raises(Denied) as caught:
        await proxy.open(["api.example:443"])
    assert caught.value.code == "egress.address"
    assert (proxy.dialed, proxy.events) == ([], [])


async def test_an_address_of_this_machine_is_no_grant(monkeypatch):
    monkeypatch.setattr("symbi.adapters.egress.outward.own_addresses", lambda: frozenset({"1.1.1.1"}))
    proxy = ProxyUnderTest()
    proxy.names = {"api.example": ["1.1.1.1"]}
    with pytest.raises(Denied, match="this machine"):
        await proxy.open(["api.example:443"])


async def test_a_name_without_an_address_is_said():
    with pytest.raises(Unavailable) as caught:
        await ProxyUnderTest().open(["api.example:443"])
    assert caught.value.code == "unavailable.name"


async def test_a_name_keeps_the_addresses_that_it_had_when_it_was_granted():
    async with outside(network=["api.example:80"]) as (proxy, server):
        proxy.names = {"api.example": ["169.254.169.254"]}  # rebound
        assert (await proxy.say(get())).endswith(b"hello from outside")
        assert (await proxy.say(get())).endswith(b"hello from outside")
    assert (proxy.resolved, server.connections) == (["api.example"], 2)
    assert {address for address, _, _ in proxy.dialed} == {LOOPBACK}


async def test_an_address_of_a_name_that_does_not_answer_is_passed_over():
    async with outside(network=["api.example:80"]) as (proxy, server):
        proxy.ports = {}
        heard = await proxy.say(get())
    assert heard == refused("egress.unreachable", "502 Bad Gateway")
    assert [(kind, facts.get("rule")) for kind, facts in proxy.events] == [
        ("connected", None),
        ("closed", "egress.unreachable"),
    ]
    assert server.connections == 0


async def test_a_silent_address_leaves_time_for_the_next(later):
    async with outside(network=["api.example:80"], limits=EgressLimits(dial_s=10)) as (proxy, _):
        there = proxy.dial

        async def dialer(address, port, name, context):
            if len(proxy.dialed) == 0:
                proxy.dialed.append("silent")
                await later(6)
                await anyio.sleep_forever()
            return await there(address, port, name, context)

        proxy.session._outsides = replace(
            proxy.session._outsides, dial=dialer, pinned={"api.example": [LOOPBACK, LOOPBACK]}
        )
        assert (await proxy.say(get())).endswith(b"hello from outside")


@pytest.mark.parametrize(
    "said",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS to the proxy itself
        b"\r\n\r\n" + get(),
        get(more="Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        get(more="Content-Length: 1\r\nContent-Length: 2\r\n"),
        get("/x"),
        get(host="evil.example"),
    ],
)
async def test_a_head_that_could_be_read_in_two_ways_reaches_nobody(said):
    async with outside(network=["api.example:80"]) as (proxy, server):
        assert await proxy.say(said) == refused("egress.malformed", "400 Bad Request")
    assert (server.connections, proxy.kinds()) == (0, ["refused"])


@pytest.mark.parametrize("body", [b"zz\r\nabc\r\n", b"3\r\nabcX\r\n0\r\n\r\n", b"-1\r\n", b"3 3\r\nabc\r\n0\r\n\r\n"])
async def test_chunks_that_could_be_read_in_two_ways_end_the_connection(body):
    async with outside(network=["api.example:80"]) as (proxy, server):
        heard = await proxy.say(
            b"POST http://api.example/ HTTP/1.1\r\nHost: api.example\r\nTransfer-Encoding: chunked\r\n\r\n" + body
        )
    assert heard == refused("egress.malformed", "400 Bad Request")
    assert server.asked == []
    assert proxy.events[-1][1]["rule"] == "egress.malformed"


async def test_a_second_request_on_the_same_connection_is_not_read():
    async with outside(network=["api.example:80"]) as (proxy, server):
        heard = await proxy.say(get() + get("http://api.example/second"))
    assert heard.count(b"HTTP/1.1") == 1
    assert [one.target for one in server.asked] == ["/x"]


async def test_a_head_that_does_not_end_is_given_up_by_time_and_by_size():
    async with outside(network=["api.example:80"], limits=EgressLimits(head_s=FEW)) as (proxy, _):
        assert await proxy.say(b"GET http://api.example/ HTTP/1.1\r\nX:") == refused(
            "egress.time", "408 Request Timeout"
        )
    assert proxy.kinds() == ["refused"]
    async with outside(network=["api.example:80"]) as (proxy, _):
        large = refused("egress.head", "431 Request Header Fields Too Large")
        assert await proxy.say(b"GET http://api.example/ HTTP/1.1\r\nX: " + b"x" * 20_000) == large
        assert await proxy.say(get(more="X: " + "x" * 17_000 + "\r\n")) == large
    assert proxy.kinds() == ["refused"] * 2


async def test_who_says_nothing_in_a_tunnel_is_cut_off():
    async with outside(network=["api.example:443"], limits=EgressLimits(idle_s=FEW)) as (proxy, _):
        heard = await proxy.say(b"CONNECT api.example:443 HTTP/1.1\r\n\r\n")
        assert heard == b"HTTP/1.1 200 Connection established\r\n\r\n"
        assert (
            await proxy.say(
                b"POST http://api.example:443/ HTTP/1.1\r\nHost: api.example:443\r\nContent-Length: 9\r\n\r\n"
            )
            != b""
        )
    assert proxy.events[1][1]["rule"] == "egress.time"


async def test_more_bytes_than_granted_do_not_get_out_nor_in():
    limits = EgressLimits(sent_bytes=1000, received_bytes=2000)
    async with outside(network=["api.example:80", "api.example:443"], limits=limits) as (proxy, server):
        post = b"POST http://api.example/ HTTP/1.1\r\nHost: api.example\r\nContent-Length: 5000\r\n\r\n" + b"x" * 5000
        assert await proxy.say(post) == refused("egress.bytes")
        assert server.asked == []
        server.answer = lambda _: say(b"x" * 5000)
        assert (await proxy.say(get())) == refused("egress.bytes")
        heard = await proxy.say(b"CONNECT api.example:443 HTTP/1.1\r\n\r\n" + b"y" * 1001)
        assert heard == b"HTTP/1.1 200 Connection established\r\n\r\n"
    totals = proxy.session.totals()
    assert totals["sent"] <= 1000
    assert totals["received"] <= 2000
    assert totals["refused"] == {"egress.bytes": 3}


async def test_bytes_pass_at_their_rate_after_a_burst_of_one_second():
    limits = EgressLimits(bytes_per_s=1000)
    async with outside(network=["api.example:80"], limits=limits) as (proxy, server):
        server.answer = lambda _: say(b"x" * 9000)
        heard = await proxy.say(get())
    totals = proxy.session.totals()
    assert heard.endswith(b"x" * 9000)
    assert sum(proxy.slept) == pytest.approx((totals["sent"] + totals["received"] - 1000) / 1000)


@given(st.integers(1, 2**30), st.integers(0, 100_000))
def test_a_claim_is_a_bound_of_the_rate_and_never_lifts_that_of_the_configuration(most, mibitps):
    limits = EgressLimits(bytes_per_s=most)
    assert limits.claimed(0) == limits
    rate = limits.claimed(mibitps).bytes_per_s
    assert rate == (min(most, mibitps * 131_072) if mibitps else most)
    assert replace(limits.claimed(mibitps), bytes_per_s=most) == limits, "and is none on anything else"


@pytest.mark.parametrize("mibitps", [0, 1, 100_000])
async def test_the_claim_of_an_action_is_what_its_proxy_is_held_to(mibitps):
    clock, told = ManualClock(), []
    authority = Authority(clock)

    async def tell(draft):
        told.append(draft)

    async def resolver(_host):
        return ["1.1.1.1"]

    proxy = EgressProxy(authority, None, tell, clock, limits=EgressLimits(bytes_per_s=1_000_000), resolver=resolver)
    action = RunContainer(
        principal=Principal(AgentId("a")), image="sha256:" + 64 * "0", command=("x",), tier=SecurityTier.TIER1,
        network=("api.example:80",), network_mibitps=mibitps,
    )  # fmt: skip
    session = await proxy.open(authority.mint(EffectId("e"), action))
    assert session.totals()["bytes_per_s"] == (131_072 if mibitps == 1 else 1_000_000)


async def test_connections_are_bounded_at_a_time_and_in_all_and_a_flood_fills_no_trail():
    limits = EgressLimits(at_once=1, connections=4)
    async with outside(network=["api.example:443"], limits=limits) as (proxy, _):
        ours, its = both_ends()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(proxy.session.serve, its)
            await ours.send(b"CONNECT api.example:443 HTTP/1.1\r\n\r\n")
            await ours.receive()
            assert await proxy.say(get()) == refused("egress.connections", "429 Too Many Requests")
            await ours.aclose()
        for _ in range(30):
            await proxy.say(b"CONNECT evil.example:443 HTTP/1.1\r\n\r\n")
    assert proxy.kinds() == ["connected", "refused", "closed", "refused", "refused", "refused"]
    assert proxy.session.totals()["refused"] == {"egress.connections": 29, "egress.host": 2}


@pytest.mark.parametrize("kind", [AuditEventType.EGRESS_CONNECTED, AuditEventType.EGRESS_CLOSED])
async def test_without_the_trail_there_is_no_connection(kind):
    async with outside(network=["api.example:80"]) as (proxy, server):
        proxy.fails = kind
        first = await proxy.say(get())
        before = server.connections
        proxy.fails = None
        assert await proxy.say(get()) == refused("egress.audit", "503 Service Unavailable")
        assert server.connections == before
    if kind == AuditEventType.EGRESS_CONNECTED:
        assert first == refused("egress.audit", "503 Service Unavailable")
        assert (before, proxy.dialed) == (0, [])


async def test_a_connection_that_is_cancelled_is_recorded():
    async with outside(network=["api.example:443"]) as (proxy, _):
        ours, its = both_ends()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(proxy.session.serve, its)
            await ours.send(b"CONNECT api.example:443 HTTP/1.1\r\n\r\n")
            await ours.receive()
            tasks.cancel_scope.cancel()
    assert proxy.events[-1][1]["rule"] == "egress.cancelled"


async def test_one_that_is_cancelled_while_its_beginning_is_written_has_an_end_and_was_not_made():
    async with outside(network=["api.example:443"]) as (proxy, server):
        ours, its = both_ends()
        tell = proxy.tell

        async def slowly(draft):
            await tell(draft)
            if draft.event_type == AuditEventType.EGRESS_CONNECTED:
                tasks.cancel_scope.cancel()
                await anyio.sleep_forever()

        proxy.session._record._tell = slowly
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(proxy.session.serve, its)
            await ours.send(b"CONNECT api.example:443 HTTP/1.1\r\n\r\n")
    assert proxy.kinds() == ["connected", "closed"]
    assert proxy.events[-1][1]["rule"] == "egress.cancelled"
    assert (server.connections, proxy.dialed) == (0, [])


@pytest.mark.parametrize(
    "answer",
    [b"", b"\x16\x03\x01", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n",
     b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef", b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000],
)  # fmt: skip
async def test_an_answer_that_is_none_is_said(answer):
    async with outside(network=["api.example:80"]) as (proxy, server):
        server.answer = lambda _: answer
        heard = await proxy.say(get())
    whole = refused("egress.answer", "502 Bad Gateway")
    assert heard == whole or (answer.endswith(b"short") and heard.endswith(b"\r\n\r\nshort"))
    assert proxy.events[-1][1]["rule"] == "egress.answer"


PARTS = st.sampled_from([
    b"GET ", b"POST ", b"CONNECT ", b"http://", b"api.example", b"evil.example", b":80", b":443", b"/", b" HTTP/1.1", b" HTTP/1.0",
    b"\r\n", b"\n", b"\r\n\r\n", b"Host: ", b"Content-Length: ", b"Transfer-Encoding: chunked", b"5", b"0", b" ", b"\0", b"\xff", b"@",
    b"GET http://api.example/ HTTP/1.1\r\nHost: api.example\r\n", b"POST http://api.example/ HTTP/1.1\r\nHost: api.example\r\n",
])  # fmt: skip


@settings(max_examples=150)
@given(st.lists(PARTS | st.binary(max_size=4), max_size=12).map(b"".join))
def test_whatever_is_said_reaches_nobody_else_and_raises_nothing(said):
    async def main():
        proxy = ProxyUnderTest()
        proxy.names = {"api.example": ["1.1.1.1"]}

        async def nowhere(address, port, name, _context):
            proxy.dialed.append((address, port, name))
            raise OSError

        proxy.dial = nowhere
        await proxy.open(network=["api.example:80"])
        heard = await proxy.say(said, end=True)
        assert heard == b"" or heard.split(b" ")[1] in {b"400", b"403", b"431", b"502"}
        assert set(proxy.dialed) <= {("1.1.1.1", 80, None)}
        assert len(proxy.dialed) <= 1

    anyio.run(main)
