"""What a sandbox may be granted of the network: only public addresses, only names that can be pinned, one reading of a head."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from symbi.errors import InputError
from symbi.sandbox.addresses import parse_address, why_not_public
from symbi.sandbox.egress import (
    METHODS,
    Bucket,
    EgressGrant,
    Endpoint,
    parse_authority,
    parse_credential,
    parse_endpoint,
    parse_grant,
    parse_host,
)
from symbi.sandbox.heads import Head, Refusal, judge, read_head

V4 = st.integers(0, 2**32 - 1).map(IPv4Address)
V6 = st.integers(0, 2**128 - 1).map(IPv6Address)
LABEL = st.from_regex(r"[a-z]([a-z0-9]{0,8}[a-z0-9])?", fullmatch=True)
HOSTS = st.lists(LABEL, min_size=1, max_size=4).map(lambda labels: ".".join([*labels, "example"]))
PORTS = st.integers(1, 65_535)

NEVER = [
    "0.0.0.0", "10.1.2.3", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254", "168.63.129.16",
    "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.1.1",
    "198.18.0.1", "203.0.113.9", "224.0.0.251", "239.255.255.250", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::ffff:8.8.8.8", "::8.8.8.8", "64:ff9b::808:808", "64:ff9b:1::1", "2001::1", "2001:db8::1",
    "2002:808:808::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1", "4000::1", "5f00::1",
    "2606:4700::5efe:808:808", "2606:4700::200:5efe:7f00:1",
]  # fmt: skip
SPELLINGS = [
    "127.1", "0x7f.0.0.1", "0x7f000001", "2130706433", "017700000001", "0177.0.0.1", "127.000.000.001", "127.0.0.1.",
    "\u2460\u2461\u2466.0.0.1", "127\u30020\u30020\u30021", "[::1]", "::1%lo", "[fe80::1%25eth0]", "1.2.3", "8.8.8.08", "8.8.8.0x8", "localhost",
    "localhost.", "LOCALHOST", "metadata", "metadata.google.internal", "printer.local", "a.localhost", "x.onion",
    "1.0.0.127.in-addr.arpa", "::ffff:7f00:1", "[::ffff:127.0.0.1]", "[2606:4700:0:0::1]", "[2606:4700::0001]",
]  # fmt: skip
NO_HOSTS = [
    "", ".", "a", "a.", ".a.b", "a..b", "-a.b", "a-.b", "a_b.c", "a b.c", "*.example.com", "*", "a.*.c", "a.b:", "a@b.c",
    "a.b/c", "ex\0ample.com", "ex\nample.com", "exämple.com", "\u0435xample.com", "ab--c.example", "a.b.1", "a.0x1f",
    ("a" * 64) + ".com", ".".join(["abcdefgh"] * 29) + ".com",
]  # fmt: skip


@pytest.mark.parametrize("address", NEVER)
def test_no_address_that_is_not_public_is_reached(address):
    assert why_not_public(str(ip_address(address))) != ""


@given(V4 | V6)
@example(IPv6Address("2606:4700::1111"))
@example(IPv4Address("1.1.1.1"))
def test_whatever_is_let_through_is_global_also_by_python_s_own_table(address):
    if why_not_public(str(address)) == "":
        assert address.is_global
        assert not address.is_multicast
        assert not address.is_reserved
        assert not address.is_private
        assert (
            isinstance(address, IPv4Address) or (address.ipv4_mapped, address.sixtofour, address.teredo) == (None,) * 3
        )


@given(V4)
def test_an_address_of_version_4_is_never_carried_in_one_of_version_6(inner):
    number = int(inner)
    for carrier in (
        0xFFFF << 32 | number,  # mapped
        number,  # compatible
        0x0064_FF9B << 96 | number,  # NAT64
        0x2002 << 112 | number << 80,  # 6to4
        0x2001_0000 << 96 | (number ^ 0xFFFF_FFFF),  # Teredo
        0x2606_4700 << 96 | 0x5EFE << 32 | number,  # ISATAP
    ):
        assert why_not_public(str(IPv6Address(carrier))) != ""


@given(V4)
def test_one_address_has_one_spelling(address):
    assert parse_address(str(address)) == address
    octets = str(address).split(".")
    for other in (
        str(int(address)),
        hex(int(address)),
        oct(int(address)).replace("0o", "0"),
        ".".join(f"0{int(one):o}" for one in octets),
        ".".join(hex(int(one)) for one in octets),
        ".".join([*octets[:2], str(int(octets[2]) * 256 + int(octets[3]))]),
        str(address) + ".",
    ):
        assert parse_address(other) is None
        assert parse_host(other) is None


@pytest.mark.parametrize("host", [*SPELLINGS, *NO_HOSTS])
def test_what_is_no_name_of_a_public_machine_is_no_host(host):
    assert parse_host(host) is None or why_not_public(parse_host(host)) != ""
    with pytest.raises(InputError):
        parse_endpoint(f"{host}:443")


@pytest.mark.parametrize("address", NEVER)
def test_an_address_that_is_not_public_is_not_granted_either(address):
    text = str(ip_address(address))
    with pytest.raises(InputError):
        parse_endpoint(f"[{text}]:443" if ":" in text else f"{text}:443")


@given(HOSTS, PORTS, st.sets(st.sampled_from(METHODS)))
def test_an_endpoint_is_read_back_as_it_was_written(host, port, methods):
    one = Endpoint(host, port, frozenset(methods))
    assert parse_endpoint(str(one)) == one
    assert parse_endpoint(str(one).replace(host, host.upper())) == one
    assert parse_authority(f"{host}:{port}") == (host, port)


@given(st.text(max_size=60))
@example("api.example.com:0")
@example("api.example.com:65536")
@example("api.example.com:+80")
@example("api.example.com:\uff18\uff10")
@example("api.example.com:080")
@example("get api.example.com:80")
@example("TRACE api.example.com:80")
@example("GET,GET api.example.com:80")
@example("GET, POST api.example.com:80")
@example("GET  api.example.com:80")
@example(" api.example.com:80")
def test_any_text_is_an_endpoint_in_its_form_or_an_error_that_says_so(text):
    refused = None
    try:
        one = parse_endpoint(text)
    except InputError as error:
        refused = error
    if refused is None:
        assert parse_endpoint(str(one)) == one
        assert "example.com" not in text
    else:
        assert refused.code in {"egress.endpoint", "egress.address"}
        assert refused.hint


def test_a_grant_names_each_place_once_and_has_credentials_for_its_hosts_alone():
    grant = parse_grant(["a.example:443", "GET b.example:80"], {"A.example": "k", "b.example X-Key": "l"})
    assert grant.credentials["a.example"] == ("a.example", "authorization", "Bearer ", "k")
    assert grant.credentials["b.example"] == ("b.example", "x-key", "", "l")
    assert (grant.hosts, grant.secrets) == (("a.example", "b.example"), ("k", "l"))
    for network, credentials in (
        (["a.example:443", "GET a.example:443"], {}),
        (["a.example:443"], {"b.example": "k"}),
        (["a.example:443"], {"a.example": "k", "A.example X-Key": "k"}),
        ([f"a{n}.example:443" for n in range(33)], {}),
    ):
        with pytest.raises(InputError):
            parse_grant(network, credentials)


@pytest.mark.parametrize(
    ("where", "path"),
    [("a.example", "sesame 4711"), ("a.example", ""), ("a.example", "k\r\nX: y"), ("a.example", "vault://k"), ("", "k"),
     ("localhost", "k"), ("a.example Host", "k"), ("a.example X-Key: ", "k"), ("a.example  X-Key", "k"), ("a.example X Y Z", "k"),
     ("a.example Content-Length", "k"), ("a.example Range", "k"), ("a.example Proxy-Authorization", "k"),
     ("a.example X-Key\r\nX: y", "k"), ("a.example Authorization Be\nrer", "k")],
)  # fmt: skip
def test_what_is_no_reference_for_a_header_is_refused_and_not_said(where, path):
    with pytest.raises(InputError) as caught:
        parse_credential(where, path)
    assert "sesame" not in str(caught.value)


def test_a_credential_names_its_header_and_what_stands_before_it():
    assert parse_credential("a.example", "k")[1:3] == ("authorization", "Bearer ")
    assert parse_credential("a.example X-Key", "k")[1:3] == ("x-key", "")
    assert parse_credential("a.example Authorization Token", "k")[1:3] == ("authorization", "Token ")


GRANT = parse_grant(["open.example:80", "open.example:443", "GET,HEAD read.example:443", "key.example:8443"],
                    {"key.example": "k"})  # fmt: skip


@given(HOSTS, PORTS | st.none(), st.sampled_from([*METHODS, "CONNECT", "TRACE", "PROPFIND"]))
@example("open.example", 443, "CONNECT")
@example("read.example", None, "GET")
@example("key.example", 8443, "POST")
def test_nothing_is_let_through_but_what_was_granted(host, port, method):
    route = judge(GRANT, Head(method, host, port, "/", ()))
    if not isinstance(route, Refusal):
        assert route.endpoint in GRANT.endpoints
        assert route.endpoint.host == host
        assert port in {None, route.endpoint.port}
        assert route.tunnel is (method == "CONNECT")
        assert not route.tunnel or (not route.endpoint.methods and host not in GRANT.credentials)
        assert route.tunnel or method in (route.endpoint.methods or METHODS)
        assert route.credential is None or route.tls


@pytest.mark.parametrize(
    ("method", "host", "port", "expected"),
    [
        ("CONNECT", "open.example", 443, ("open.example", 443, False)),
        ("CONNECT", "open.example", 22, "egress.port"),
        ("CONNECT", "read.example", 443, "egress.tunnel"),
        ("CONNECT", "key.example", 8443, "egress.tunnel"),
        ("CONNECT", "other.example", 443, "egress.host"),
        ("GET", "open.example", None, ("open.example", 80, False)),
        ("GET", "open.example", 443, ("open.example", 443, True)),
        ("GET", "read.example", None, ("read.example", 443, True)),
        ("GET", "read.example", 80, "egress.port"),
        ("POST", "read.example", None, "egress.method"),
        ("TRACE", "open.example", 80, "egress.method"),
        ("GET", "key.example", 8443, ("key.example", 8443, True)),
        ("GET", "key.example", None, "egress.port"),
        ("GET", "sub.open.example", 80, "egress.host"),
    ],
)
def test_where_a_request_goes(method, host, port, expected):
    found = judge(GRANT, Head(method, host, port, "/", ()))
    assert (found.rule if isinstance(found, Refusal) else (*found.endpoint[:2], found.tls)) == expected


PLAIN = b"GET http://open.example/x HTTP/1.1\r\nHost: open.example\r\n"
SMUGGLED = {
    "two lengths": PLAIN + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
    "the same length twice": PLAIN + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\n",
    "a list of lengths": PLAIN + b"Content-Length: 5, 5\r\n\r\n",
    "a length and chunks": PLAIN + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    "chunks and a length": PLAIN + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
    "chunked twice": PLAIN + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "another coding": PLAIN + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    "an odd coding": PLAIN + b"Transfer-Encoding: xchunked\r\n\r\n",
    "a quoted coding": PLAIN + b'Transfer-Encoding: "chunked"\r\n\r\n',
    "a folded coding": PLAIN + b"Transfer-Encoding:\r\n chunked\r\n\r\n",
    "a space before the colon": PLAIN + b"Transfer-Encoding : chunked\r\n\r\n",
    "a tab in the name": PLAIN + b"Transfer-\tEncoding: chunked\r\n\r\n",
    "a vertical tab in the value": PLAIN + b"Transfer-Encoding: \x0bchunked\r\n\r\n",
    "chunks in an old version": PLAIN.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n",
    "a signed length": PLAIN + b"Content-Length: +5\r\n\r\n",
    "a length with zeros": PLAIN + b"Content-Length: 05\r\n\r\n",
    "a length in hexadecimal digits": PLAIN + b"Content-Length: 0x5\r\n\r\n",
    "a negative length": PLAIN + b"Content-Length: -1\r\n\r\n",
    "no length": PLAIN + b"Content-Length: \r\n\r\n",
    "a length without end": PLAIN + b"Content-Length: 99999999999999999999\r\n\r\n",
    "a bare line feed": PLAIN + b"X: y\nContent-Length: 5\r\n\r\n",
    "a bare carriage return": PLAIN + b"X: y\rContent-Length: 5\r\n\r\n",
    "a folded line": PLAIN + b"X: y\r\n Content-Length: 5\r\n\r\n",
    "a null": PLAIN + b"X: y\0z\r\n\r\n",
    "a line without a name": PLAIN + b": y\r\n\r\n",
    "a line without a colon": PLAIN + b"X\r\n\r\n",
    "a space before a name": PLAIN.replace(b"Host", b" Host") + b"\r\n",
    "a first line with a tab": PLAIN.replace(b"GET ", b"GET\t") + b"\r\n",
    "two spaces": PLAIN.replace(b"GET ", b"GET  ") + b"\r\n",
    "a small method": PLAIN.replace(b"GET", b"get") + b"\r\n",
    "another version": PLAIN.replace(b"HTTP/1.1", b"HTTP/1.2") + b"\r\n",
    "version 2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "version 0.9": b"GET http://open.example/\r\n\r\n",
    "no host": b"GET http://open.example/ HTTP/1.1\r\n\r\n",
    "two hosts": PLAIN + b"Host: open.example\r\n\r\n",
    "another host": b"GET http://open.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "a host with another port": b"GET http://open.example/ HTTP/1.1\r\nHost: open.example:22\r\n\r\n",
    "no host by its connection": PLAIN + b"Connection: host\r\n\r\n",
    "no length by its connection": PLAIN + b"Content-Length: 5\r\nConnection: close, Content-Length\r\n\r\n",
    "a user": PLAIN.replace(b"//open", b"//open.example:80@open") + b"\r\n",
    "a path alone": b"GET /x HTTP/1.1\r\nHost: open.example\r\n\r\n",
    "a star": b"OPTIONS * HTTP/1.1\r\nHost: open.example\r\n\r\n",
    "a fragment": PLAIN.replace(b"/x", b"/x#y") + b"\r\n",
    "another scheme": PLAIN.replace(b"http:", b"https:") + b"\r\n",
    "a file": PLAIN.replace(b"http:", b"file:") + b"\r\n",
    "a target in other letters": PLAIN.replace(b"/x", b"/\xff") + b"\r\n",
    "an expectation": PLAIN + b"Expect: 200-ok\r\n\r\n",
    "a tunnel with a body": b"CONNECT open.example:443 HTTP/1.1\r\nHost: open.example:443\r\nContent-Length: 5\r\n\r\n",
    "a tunnel in chunks": b"CONNECT open.example:443 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a tunnel without a port": b"CONNECT open.example HTTP/1.1\r\nHost: open.example\r\n\r\n",
    "a tunnel to a link": b"CONNECT http://open.example:443 HTTP/1.1\r\nHost: open.example\r\n\r\n",
    "a tunnel for another": b"CONNECT open.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n",
    "two heads": PLAIN + b"\r\n" + PLAIN + b"\r\n",
}


@pytest.mark.parametrize("raw", SMUGGLED.values(), ids=SMUGGLED)
def test_a_head_that_could_be_read_in_two_ways_is_refused(raw):
    found = read_head(raw)
    assert isinstance(found, Refusal)
    assert found.rule == "egress.malformed"


def test_a_good_head_is_read():
    found = read_head(
        b"POST http://Open.Example:8080/a?b=c HTTP/1.1\r\nHost: open.example:8080\r\nContent-Length: 5\r\nX-A:  1 \r\n"
        b"Connection: x-b, close\r\nX-B: 2\r\nProxy-Authorization: Basic eA==\r\nTE: trailers\r\nUpgrade: h2c\r\n"
        b"Expect: 100-continue\r\n\r\n"
    )
    assert found == Head("POST", "open.example", 8080, "/a?b=c", ((b"x-a", b"1"),), 5, expects=True)
    assert read_head(b"CONNECT a.example:443 HTTP/1.0\r\n\r\n") == Head("CONNECT", "a.example", 443, "", (), old=True)
    assert read_head(b"GET http://a.example?q HTTP/1.1\r\nhost: A.example\r\n\r\n").path == "/?q"


def test_too_many_headers_and_too_long_a_target_are_refused():
    assert read_head(PLAIN + b"X: y\r\n" * 100 + b"\r\n").rule == "egress.head"
    assert read_head(b"GET http://open.example/" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n").rule == "egress.head"


TOKENS = st.text("abcXYZ019!#$%&'*+-.^_`|~", min_size=1, max_size=8)
VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=12)
NOISE = st.sampled_from([b"", b"\r", b"\n", b" ", b"\t", b"\0", b"\r\n", b":", b",", b"\x85", b"\xa0"])


@given(
    st.lists(st.tuples(st.sampled_from(["Content-Length", "Transfer-Encoding", "Host", "X"]) | TOKENS,
                       st.sampled_from(["5", "chunked", "open.example", "0"]) | VALUES), max_size=4),
    st.integers(0, 200), NOISE,
)  # fmt: skip
def test_what_is_let_through_another_reader_reads_in_the_same_way(headers, at, noise):
    lines = b"".join(f"{name}: {value}\r\n".encode() for name, value in headers)
    raw = b"POST http://open.example/x HTTP/1.1\r\n" + lines
    at = min(at, len(raw))
    raw = raw[:at] + noise + raw[at:] + b"\r\n"
    found = read_head(raw)
    if isinstance(found, Refusal):
        return
    other = h11.Connection(h11.SERVER)
    other.receive_data(raw)
    request = other.next_event()
    assert isinstance(request, h11.Request)
    assert other.trailing_data == (b"", False)
    names = dict(request.headers)
    chunked = names.get(b"transfer-encoding", b"").lower() == b"chunked"
    assert (found.length is None) is chunked
    assert chunked or found.length == int(names.get(b"content-length", b"0"))
    assert found.method == request.method.decode()
    assert all(one in [(name.lower(), value.strip()) for name, value in request.headers] for one in found.headers)


@given(st.lists(st.tuples(st.integers(1, 1000), st.floats(0, 5)), min_size=1, max_size=40))
def test_no_more_passes_than_the_burst_and_the_rate_allow(steps):
    bucket, now, passed = Bucket(100, 250, 0.0), 0.0, 0
    for count, pause in steps:
        now += pause
        now += bucket.take(count, now)
        passed += count
        assert passed <= 250 + 100 * now + 1e-6


def test_a_grant_of_nothing_lets_nothing_through():
    assert judge(EgressGrant(), Head("GET", "open.example", 80, "/", ())) == Refusal("egress.host")
