"""Attacks on how the key of a tool server is found out: whatever a domain, its address or its name server does, no tool
becomes callable under a key that it should not."""

import json
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import anyio
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from symbi.adapters.schemapin.dns import TxtRecords
from symbi.adapters.schemapin.fetch import DomainSource, certificates
from symbi.adapters.schemapin.folder import FolderSource
from symbi.errors import Denied, InputError, LimitExceeded, PermitRefused, PinMismatch, SignatureInvalid, Unavailable
from symbi.guard.action import ConnectServer
from symbi.testing.domains import WebAuthority, naming, reply, serving
from symbi.testing.gate import DENY_ALL, open_gate
from symbi.testing.tool_servers import ToolServerSimulator
from symbi.tools.catalog import SYSTEM, Catalog, ServerLink, ToolVerifier, VerificationMode
from symbi.tools.port import ToolDefinition
from symbi.tools.schemapin import key_id, public_pem, sign
from symbi.tools.schemapin.dns import DnsCheck
from symbi.tools.schemapin.documents import MAX_DOCUMENT_BYTES, WELL_KNOWN
from symbi.tools.schemapin.resolve import ServerKeys, TrustChain

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]
KEY = ec.derive_private_key(0x5EED, ec.SECP256R1())
OTHER = ec.derive_private_key(0x5EED + 1, ec.SECP256R1())
HOST = "tools.example.com"
REVOKED = "/.well-known/schemapin-revocations.json"
SEND = ToolDefinition("mail", "send", "Sends a mail.", {"type": "object"})
READ = ToolDefinition("mail", "read", "Reads mail.", {"type": "object"})


def signed(definition, key=KEY, **said):
    return replace(definition, meta={"schemapin": {"signature": sign(definition, key), **said}})


def document(key=KEY, **said):
    content = {"schema_version": "1.4", "developer_name": "Example", "public_key_pem": public_pem(key.public_key())}
    return json_bytes(content | said)


def revocations(*keys, **said):
    entries = [
        {"fingerprint": key_id(key.public_key()), "revoked_at": "2026-01-01T00:00:00Z", "reason": "key_compromise"}
        for key in keys
    ]
    content = {"schemapin_version": "1.2", "domain": HOST, "updated_at": "2026-01-01T00:00:00Z"}
    return json_bytes(content | {"revoked_keys": entries} | said)


def json_bytes(content):
    return json.dumps(content).encode()


class World:
    """A gate, a domain on loopback, and a catalogue over one simulated server of that domain."""

    def __init__(self, gate, web, ca_file):
        self.gate = gate
        self.web = web
        self.ca_file = ca_file
        self.domain = f"{HOST}:{web.port}"
        self.addresses = ["127.0.0.1"]
        self.resolved = []

    async def resolve(self, host):
        self.resolved.append(host)
        return self.addresses

    def source(self, **options):
        options = {"private": frozenset({HOST}), "timeout_s": 5.0, "context": certificates(self.ca_file)} | options
        return DomainSource(self.gate.guard.authority, resolve=self.resolve, **options)

    def verifier(self, mode="strict", *, configured=None, sources=None, **options):
        chain = TrustChain(sources or [self.source()], self.gate.clock, strict=mode == "strict", **options)
        keys = ServerKeys({} if configured is None else {"mail": configured}, {"mail": self.domain}, chain)
        gate = self.gate
        return ToolVerifier(VerificationMode(mode), gate.store, gate.log, gate.engine, gate.clock, keys=keys)

    def catalog(self, verifier, *definitions):
        server = ToolServerSimulator("mail", self.gate.guard.authority, [(one, None) for one in definitions])
        return Catalog(self.gate.guard, verifier, [ServerLink("mail", "simulated", server)])

    async def offered(self, *definitions, **options):
        """A catalogue in which the server was connected once."""
        catalog = self.catalog(self.verifier(**options), *definitions)
        await catalog.refresh("mail")
        return catalog

    async def refused(self, error, code, *definitions, **options):
        """Nothing is callable, nothing is pinned, and the trail says why."""
        before = self.gate.store.pins()
        catalog = await self.offered(*(definitions or [signed(SEND)]), **options)
        assert [ref.name for ref in catalog.refs] == []
        assert [pin for pin in self.gate.store.pins() if pin.state == "pinned"] == list(before)
        found = catalog.quarantined["mail.send"]
        assert isinstance(found, error), found
        assert found.code == code
        told = [event.details["code"] for event in self.gate.events() if event.event_type == "tool.refused"]
        assert told[-1] == code
        return found


@asynccontextmanager
async def world(tmp_path, *, host=HOST, policies=None):
    authority = WebAuthority(tmp_path)
    async with AsyncExitStack() as stack:
        gate = await stack.enter_async_context(open_gate() if policies is None else open_gate(policies))
        web = await stack.enter_async_context(serving(authority.server_context(host)))
        web.pages[WELL_KNOWN] = reply(document())
        yield World(gate, web, authority.ca_file)


@pytest.fixture
def opened(tmp_path):
    return lambda **options: world(tmp_path, **options)


# --- consent -----------------------------------------------------------------------------------------------------------


async def test_a_discovered_key_is_held_until_a_person_accepts_it_and_then_serves_the_servers_other_tools(opened):
    async with opened() as one:
        held = await one.refused(PinMismatch, "verify.consent")
        assert key_id(KEY.public_key()) in held.message
        assert "Example" in held.message
        assert "symbi tools pin mail.send" in str(held)
        catalog = await one.offered(signed(SEND), signed(READ))
        assert list(catalog.quarantined) == ["mail.read", "mail.send"]
        assert one.gate.store.pins() == []
        await catalog.pin("mail.send")
        assert [ref.name for ref in catalog.refs] == ["mail.send"]
        (pin,) = one.gate.store.pins()
        assert pin.form == "digest key=https"
        again = await one.offered(signed(SEND), signed(READ))
        assert [ref.name for ref in again.refs] == ["mail.read", "mail.send"]
        events = [event for event in one.gate.events() if event.event_type == "tool.pinned"]
        assert [(event.details["source"], event.details["form"]) for event in events] == [("https", "digest")] * 2
        assert events[0].details["domain"] == one.domain


async def test_tofu_asks_nobody_about_a_discovered_key(opened):
    async with opened() as one:
        assert [ref.name for ref in (await one.offered(signed(SEND), mode="tofu")).refs] == ["mail.send"]


async def test_a_key_that_the_operator_configured_needs_no_consent_and_is_not_replaced(opened):
    async with opened() as one:
        one.web.pages[WELL_KNOWN] = reply(document(OTHER))
        ours = await one.offered(signed(SEND), configured=KEY.public_key())
        assert [ref.name for ref in ours.refs] == ["mail.send"]
        await one.refused(SignatureInvalid, "verify.signature", signed(SEND, OTHER), configured=KEY.public_key())


async def test_a_consent_is_for_one_server(opened):
    async with opened() as one:
        catalog = await one.offered(signed(SEND))
        await catalog.pin("mail.send")
        verifier = one.verifier()
        verifier._domains = {"post": one.domain}
        other = replace(SEND, server="post")
        server = ToolServerSimulator("post", one.gate.guard.authority, [(signed(other), None)])
        catalog = Catalog(one.gate.guard, verifier, [ServerLink("post", "simulated", server)])
        await catalog.refresh("post")
        assert catalog.quarantined["post.send"].code == "verify.consent"


# --- keys and schemas that change --------------------------------------------------------------------------------------


async def accepted(one):
    catalog = await one.offered(signed(SEND))
    await catalog.pin("mail.send")


async def test_a_swapped_key_is_refused_until_a_person_accepts_it(opened):
    async with opened() as one:
        await accepted(one)
        one.web.pages[WELL_KNOWN] = reply(document(OTHER))
        catalog = await one.offered(signed(SEND, OTHER))
        assert isinstance(catalog.quarantined["mail.send"], PinMismatch)
        assert "the key of tool" in catalog.quarantined["mail.send"].message
        stale = await one.offered(signed(SEND, KEY))
        assert isinstance(stale.quarantined["mail.send"], SignatureInvalid)
        fresh = await one.offered(signed(SEND, OTHER), signed(READ, OTHER))
        assert fresh.quarantined["mail.read"].code == "verify.consent"  # the new key was not accepted yet
        await fresh.pin("mail.send")
        assert [ref.name for ref in (await one.offered(signed(SEND, OTHER), signed(READ, OTHER))).refs] == [
            "mail.read",
            "mail.send",
        ]


async def test_a_swapped_schema_is_refused_under_the_same_key(opened):
    async with opened() as one:
        await accepted(one)
        other = replace(SEND, input_schema={"type": "object", "properties": {"bcc": {"type": "string"}}})
        catalog = await one.offered(signed(other))
        assert isinstance(catalog.quarantined["mail.send"], PinMismatch)


async def test_a_signature_over_another_tool_is_refused(opened):
    async with opened() as one:
        stolen = replace(SEND, meta=signed(READ).meta)
        await one.refused(SignatureInvalid, "verify.signature", stolen)


async def test_an_older_version_is_refused_also_when_it_is_reviewed(opened):
    async with opened() as one:
        new = replace(SEND, description="Sends a mail, safely.")
        catalog = await one.offered(signed(new, schema_version="2.1.0"))
        await catalog.pin("mail.send")
        old = signed(SEND, schema_version="2.0.9")
        catalog = await one.offered(old)
        assert "older than the pinned 2.1.0" in catalog.quarantined["mail.send"].message
        with pytest.raises(PinMismatch) as caught:
            await catalog.pin("mail.send")
        assert caught.value.code == "verify.older"
        silent = await one.offered(signed(SEND))
        with pytest.raises(PinMismatch, match="says none"):
            await silent.pin("mail.send")
        tool = await (await one.offered(old)).pin("mail.send", older=True)
        assert tool.definition.description == SEND.description


async def test_a_changed_definition_says_what_it_succeeds(opened):
    async with opened() as one:
        await accepted(one)
        (pin,) = one.gate.store.pins()
        new = replace(SEND, description="Sends a mail, safely.")
        said = {"schema_version": "1.1.0", "previous_hash": f"sha256:{pin.digest}"}
        catalog = await one.offered(signed(new, **said))
        assert "it succeeds the pinned one" in catalog.quarantined["mail.send"].message
        said["previous_hash"] = "sha256:" + "0" * 64
        catalog = await one.offered(signed(new, **said))
        assert "not what is pinned" in catalog.quarantined["mail.send"].message


async def test_a_signature_past_its_end_is_refused_in_strict_and_told_of_in_tofu(opened, caplog):
    async with opened() as one:
        await accepted(one)
        ended = signed(SEND, expires_at="2020-01-01T00:00:00Z")
        catalog = await one.offered(ended)
        assert catalog.quarantined["mail.send"].code == "verify.expired"
        unread = await one.offered(signed(SEND, expires_at="soon"))
        assert unread.quarantined["mail.send"].code == "verify.expired"
        assert [ref.name for ref in (await one.offered(ended, mode="tofu")).refs] == ["mail.send"]
        assert "has ended on 2020-01-01" in caplog.text
        assert (await one.offered(signed(SEND, expires_at="2099-01-01T00:00:00Z"))).refs


@pytest.mark.parametrize(
    "said",
    [{"canonicalization": "jcs"}, {"schema_version": 7}, {"previous_hash": "abc"}, {"expires_at": ["2099"]}],
    ids=str,
)
async def test_what_stands_beside_a_signature_and_is_malformed_is_refused(opened, said):
    async with opened() as one:
        catalog = await one.offered(signed(SEND, **said))
        assert isinstance(catalog.quarantined["mail.send"], SignatureInvalid)
        assert not catalog.refs


# --- revocation ---------------------------------------------------------------------------------------------------------


async def test_a_key_that_its_own_document_revokes_is_refused(opened):
    async with opened() as one:
        await accepted(one)
        one.web.pages[WELL_KNOWN] = reply(document(revoked_keys=[key_id(KEY.public_key())]))
        await one.refused(SignatureInvalid, "verify.revoked")


async def test_a_configured_key_can_be_revoked_too(opened):
    async with opened() as one:
        one.web.pages[WELL_KNOWN] = reply(document(OTHER, revoked_keys=[key_id(KEY.public_key())]))
        await one.refused(SignatureInvalid, "verify.revoked", configured=KEY.public_key())


async def test_a_key_that_the_standalone_document_revokes_is_refused(opened):
    async with opened() as one:
        await accepted(one)
        endpoint = f"https://{one.domain}{REVOKED}"
        one.web.pages[WELL_KNOWN] = reply(document(revocation_endpoint=endpoint))
        one.web.pages[REVOKED] = reply(revocations(OTHER))
        assert (await one.offered(signed(SEND))).refs
        one.web.pages[REVOKED] = reply(revocations(OTHER, KEY))
        found = await one.refused(SignatureInvalid, "verify.revoked")
        assert "key_compromise" in found.message


@pytest.mark.parametrize(
    ("page", "error", "code"),
    [
        (None, Unavailable, "unavailable.discovery"),
        (reply(b"", status="500 No"), Unavailable, "unavailable.discovery"),
        (reply(b"{}"), InputError, "tool.discovery"),
        (reply(revocations(domain="other.example.com")), InputError, "tool.discovery"),
        (reply(revocations(revoked_keys=["abc"])), InputError, "tool.discovery"),
        (reply(revocations(revoked_keys=[{"fingerprint": "deadbeef"}])), InputError, "tool.discovery"),
        (reply(revocations(expires_at="2020-01-01T00:00:00Z")), SignatureInvalid, "verify.expired"),
    ],
    ids=["absent", "failing", "empty", "of another domain", "no entry", "no fingerprint", "ended"],
)
async def test_a_revocation_document_that_cannot_be_had_or_read_is_an_error_in_strict_mode(opened, page, error, code):
    async with opened() as one:
        await accepted(one)
        one.web.pages[WELL_KNOWN] = reply(document(revocation_endpoint=f"https://{one.domain}{REVOKED}"))
        if page is not None:
            one.web.pages[REVOKED] = page
        await one.refused(error, code)


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://tools.example.com/r.json",
        "https://evil.example.org/r.json",
        "https://tools.example.com.evil.org/r.json",
        "https://user@tools.example.com/r.json",
        "https://169.254.169.254/latest",
        "file:///etc/passwd",
        "https://tools.example.com:22/",
    ],
)
async def test_an_endpoint_that_leads_elsewhere_is_refused_and_not_asked(opened, endpoint):
    async with opened() as one:
        one.web.pages[WELL_KNOWN] = reply(document(revocation_endpoint=endpoint))
        await one.refused(InputError, "tool.discovery")
        assert [path for _, path in one.web.asked] == [WELL_KNOWN]
        assert one.resolved == [HOST]


async def test_what_was_found_is_kept_for_a_while_and_then_asked_for_again(opened):
    async with opened() as one:
        verifier = one.verifier(keep_s=300.0)
        catalog = one.catalog(verifier, signed(SEND))
        await catalog.refresh("mail")
        await catalog.pin("mail.send")
        one.web.pages[WELL_KNOWN] = reply(document(revoked_keys=[key_id(KEY.public_key())]))
        one.gate.clock.advance(299.0)
        await catalog.refresh("mail")
        assert len(one.web.asked) == 1
        assert catalog.refs
        one.gate.clock.advance(2.0)
        await catalog.refresh("mail")
        assert len(one.web.asked) == 2
        assert catalog.quarantined["mail.send"].code == "verify.revoked"


async def test_strict_does_not_make_do_with_what_it_knew_and_tofu_does_for_a_day(opened):
    async with opened() as one:
        for mode, days, callable_ in [("strict", 0.1, False), ("tofu", 0.9, True), ("tofu", 1.1, False)]:
            one.web.pages[WELL_KNOWN] = reply(document())
            catalog = one.catalog(one.verifier(mode), signed(SEND))
            await catalog.refresh("mail")
            if mode == "strict":
                await catalog.pin("mail.send")
            one.web.pages.clear()
            one.gate.clock.advance(days * 86_400)
            await catalog.refresh("mail")
            assert bool(catalog.refs) is callable_, (mode, days)


# --- documents from hostile domains --------------------------------------------------------------------------------------


async def drip(stream):
    await stream.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{")
    while True:
        await stream.send(b" ")
        await anyio.sleep(0.01)


async def silence(stream):
    await anyio.sleep_forever()


async def headers_without_end(stream):
    await stream.send(b"HTTP/1.1 200 OK\r\n")
    while True:
        await stream.send(b"x-more: " + b"y" * 1000 + b"\r\n")


async def endless(stream):
    await stream.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        await stream.send(b"2000\r\n" + b" " * 0x2000 + b"\r\n")


async def garbage(stream):
    await stream.send(b"\x16\x03\x01 nothing that anybody speaks\r\n\r\n" * 50)


FULL = document()
HOSTILE = {
    "redirect": (reply(b"", status="302 Found", headers="location: https://evil.example.org/x\r\n"), Unavailable),
    "redirect with a document": (
        reply(FULL, status="301 Moved Permanently", headers=f"location: https://{HOST}/y\r\n"),
        Unavailable,
    ),
    "permanent redirect": (reply(FULL, status="308 Permanent Redirect", headers="location: /y\r\n"), Unavailable),
    "not found": (reply(FULL, status="404 Not Found"), Unavailable),
    "created": (reply(FULL, status="201 Created"), Unavailable),
    "huge": (reply(FULL[:-1] + b" " * MAX_DOCUMENT_BYTES + b"}"), LimitExceeded),
    "endless": (endless, LimitExceeded),
    "slow": (drip, LimitExceeded),
    "silent": (silence, LimitExceeded),
    "headers without end": (headers_without_end, Unavailable),
    "garbage": (garbage, Unavailable),
    "compressed": (reply(FULL, headers="content-encoding: gzip\r\n"), InputError),
    "no JSON": (reply(b"<html>"), InputError),
    "a list": (reply(b"[]"), InputError),
    "deep": (reply(b"[" * 100_000), InputError),
    "a name twice": (reply(FULL[:-1] + b', "public_key_pem": "x"}'), InputError),
    "of another domain": (reply(document(domain="other.example.com")), InputError),
    "no key": (reply(json_bytes({"schema_version": "1.4"})), InputError),
    "no version": (reply(document(schema_version="9.0")), InputError),
    "RSA": (reply(document(public_key_pem="-----BEGIN PUBLIC KEY-----\nMFww\n-----END PUBLIC KEY-----\n")), InputError),
    "revoked keys that are no fingerprints": (reply(document(revoked_keys=["abc"])), InputError),
    "revoked keys that are no list": (reply(document(revoked_keys="none")), InputError),
    "an end that cannot be read": (reply(document(expires_at="soon")), InputError),
    "an end that has come": (reply(document(expires_at="2025-01-01T00:00:00Z")), SignatureInvalid),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_document_makes_nothing_callable(opened, name):
    page, error = HOSTILE[name]
    async with opened() as one:
        one.web.pages[WELL_KNOWN] = page
        catalog = await one.offered(signed(SEND), sources=[one.source(timeout_s=0.5)])
        assert isinstance(catalog.quarantined["mail.send"], error), catalog.quarantined["mail.send"]
        assert catalog.refs == ()
        assert one.gate.store.pins() == []
        assert len(one.web.asked) == 1  # and nothing was followed


async def test_a_certificate_of_another_name_or_authority_is_refused(opened, tmp_path):
    async with opened(host="evil.example.org") as one:
        await one.refused(Unavailable, "unavailable.discovery")
        assert one.web.asked == []
    async with opened() as one:
        source = one.source(context=certificates(None))
        await one.refused(Unavailable, "unavailable.discovery", sources=[source])
        assert one.web.asked == []


# --- addresses ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["10.0.0.1"],
        ["169.254.169.254"],
        ["192.168.1.1"],
        ["100.100.100.200"],
        ["::1"],
        ["::ffff:127.0.0.1"],
        ["fd00:ec2::254"],
        ["0.0.0.0"],
        ["93.184.216.34", "127.0.0.1"],
        ["2606:2800:220:1::1", "fe80::1"],
    ],
    ids=str,
)
async def test_a_domain_at_a_private_address_is_not_asked(opened, addresses):
    async with opened() as one:
        one.addresses = addresses
        sources = [one.source(private=frozenset({"other.example.com"}))]
        await one.refused(Denied, "discovery.address", sources=sources)
        assert one.web.asked == []


async def test_an_address_of_this_machine_is_not_asked_though_it_is_public(opened, monkeypatch):
    async with opened() as one:
        one.addresses = ["93.184.216.34"]
        monkeypatch.setattr("symbi.adapters.schemapin.fetch._own_addresses", lambda: frozenset({"93.184.216.34"}))
        found = await one.refused(Denied, "discovery.address", sources=[one.source(private=frozenset())])
        assert "this machine" in found.message


async def test_a_name_is_resolved_once_and_the_judged_address_is_connected(opened, monkeypatch):
    """A name that changes between judging and connecting: the second answer is never asked for."""
    async with opened() as one:
        answers = [["93.184.216.34"], ["127.0.0.1"], ["127.0.0.1"]]

        async def resolve(host):
            one.resolved.append(host)
            return answers[len(one.resolved) - 1]

        connected = []

        async def ask(self, address, host, port, path):
            connected.append((address, host, port))
            return document()

        monkeypatch.setattr(one, "resolve", resolve)
        monkeypatch.setattr(DomainSource, "_ask", ask)
        monkeypatch.setattr("socket.getaddrinfo", None)
        await one.offered(signed(SEND), sources=[one.source(private=frozenset())])
        assert one.resolved == [HOST]
        assert connected == [("93.184.216.34", HOST, one.web.port)]


async def test_the_host_header_and_the_certificates_name_are_the_domains(opened):
    async with opened() as one:
        await one.offered(signed(SEND))
        assert one.web.asked == [(one.domain, WELL_KNOWN)]


async def test_no_document_is_fetched_without_a_permit_that_names_its_domain(opened, tmp_path):
    async with opened() as one:
        guard = one.gate.guard
        folder = FolderSource(guard.authority, tmp_path)
        lookup = TxtRecords(guard.authority, [("127.0.0.1", 1)], timeout_s=0.1)
        for discovery in ("", "other.example.com"):
            action = ConnectServer(principal=SYSTEM, server="mail", command="x", discovery=discovery)
            async with guard.enforce(action) as permit:
                for attempt in (
                    lambda: one.source().discovery(permit, one.domain),
                    lambda: one.source().revocation(permit, one.domain, f"https://{one.domain}/r"),
                    lambda: folder.discovery(permit, one.domain),
                    lambda: lookup(permit, one.domain),
                ):
                    with pytest.raises(PermitRefused):
                        await attempt()
        with pytest.raises(PermitRefused):
            await one.source().discovery(permit, one.domain)
        assert one.web.asked == []


async def test_a_policy_sees_the_domain_and_a_denial_asks_nobody(opened):
    only = '@id("a") permit (principal, action, resource) unless { context has discovery };'
    for policies in (DENY_ALL, only):
        async with opened(policies=policies) as one:
            with pytest.raises(Denied):
                await one.offered(signed(SEND))
            assert one.web.asked == []
            assert one.resolved == []


# --- DNS ------------------------------------------------------------------------------------------------------------------

TXT = f"_schemapin.{HOST}"
GOOD = f"v=schemapin1; kid=a; fp={key_id(KEY.public_key())}"


async def by_dns(one, port, check, *definitions):
    lookup = TxtRecords(one.gate.guard.authority, [("127.0.0.1", port)], timeout_s=2.0)
    return await one.offered(*(definitions or [signed(SEND)]), dns=check, lookup=lookup)


@pytest.mark.parametrize(
    ("records", "present", "required"),
    [
        ({}, "verify.consent", "verify.dns"),
        ({TXT: [["something else"]]}, "verify.consent", "verify.dns"),
        ({TXT: [[GOOD]]}, "verify.consent", "verify.consent"),
        ({TXT: [["other"], [GOOD[:30], GOOD[30:]]]}, "verify.consent", "verify.consent"),
        ({TXT: [[f"fp = {key_id(KEY.public_key())} ;v = schemapin1"]]}, "verify.consent", "verify.consent"),
        (
            {TXT: [[GOOD.replace(key_id(KEY.public_key()), key_id(OTHER.public_key()))]]},
            *["verify.dns_mismatch"] * 2,
        ),
        ({TXT: [["v=schemapin1; fp=sha256:abc"]]}, *["verify.dns"] * 2),
        ({TXT: [["v=schemapin1"]]}, *["verify.dns"] * 2),
        ({TXT: [[f"v=schemapin2; fp={key_id(KEY.public_key())}"]]}, *["verify.dns"] * 2),
        ({TXT: [[GOOD + f"; fp={key_id(OTHER.public_key())}"]]}, *["verify.dns"] * 2),
    ],
    ids=["none", "foreign", "good", "in chunks", "spaced", "other key", "short", "no key", "version 2", "two keys"],
)
async def test_dns_must_agree_where_it_says_something_and_must_say_it_where_that_is_required(
    opened, records, present, required
):
    async with opened() as one, naming(records) as port:
        for check, code in ((DnsCheck.PRESENT, present), (DnsCheck.REQUIRED, required)):
            catalog = await by_dns(one, port, check)
            assert catalog.quarantined["mail.send"].code == code


async def test_dns_that_does_not_answer_is_no_absence(opened):
    async with opened() as one, naming({}, rcode="SERVFAIL") as port:
        catalog = await by_dns(one, port, DnsCheck.PRESENT)
        assert catalog.quarantined["mail.send"].code == "unavailable.dns"


async def test_what_dns_agreed_to_is_on_record(opened):
    async with opened() as one, naming({TXT: [[GOOD]]}) as port:
        catalog = await by_dns(one, port, DnsCheck.REQUIRED)
        await catalog.pin("mail.send")
        pinned = [event.details for event in one.gate.events() if event.event_type == "tool.pinned"]
        assert pinned[0]["dns"] is True
