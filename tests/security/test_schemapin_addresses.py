"""Attacks on where the key of a tool server is asked for: private addresses, names that change, DNS that says otherwise, and
who may ask at all."""

import pytest

from symbi.adapters.schemapin.dns import TxtRecords
from symbi.adapters.schemapin.fetch import DomainSource
from symbi.adapters.schemapin.folder import FolderSource
from symbi.errors import Denied, PermitRefused
from symbi.guard.action import ConnectServer
from symbi.testing.domains import naming
from symbi.testing.gate import DENY_ALL
from symbi.testing.signed import HOST, KEY, OTHER, SEND, SignedServer, document, signed, signed_server
from symbi.tools.catalog import SYSTEM
from symbi.tools.schemapin import key_id
from symbi.tools.schemapin.dns import DnsCheck
from symbi.tools.schemapin.documents import WELL_KNOWN

pytestmark = pytest.mark.anyio


def cause(catalog):
    found = catalog.quarantined["mail.send"]
    return found.fields.get("cause", found.code)


@pytest.fixture
def opened(tmp_path):
    return lambda **options: signed_server(tmp_path, **options)


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
        await one.refused("discovery.address", sources=sources)
        assert one.web.asked == []


async def test_an_address_of_this_machine_is_not_asked_though_it_is_public(opened, monkeypatch):
    async with opened() as one:
        one.addresses = ["93.184.216.34"]
        monkeypatch.setattr("symbi.adapters.schemapin.fetch._own_addresses", lambda: frozenset({"93.184.216.34"}))
        found = await one.refused("discovery.address", sources=[one.source(private=frozenset())])
        assert "this machine" in found


async def test_a_name_is_resolved_once_and_the_judged_address_is_connected(opened, monkeypatch):
    """A name that changes between judging and connecting: the second answer is never asked for."""
    async with opened() as one:
        answers = [["93.184.216.34"], ["127.0.0.1"], ["127.0.0.1"]]

        async def resolve(_self, host):
            one.resolved.append(host)
            return answers[len(one.resolved) - 1]

        connected = []

        async def ask(self, address, host, port, path):
            connected.append((address, host, port))
            return document()

        monkeypatch.setattr(SignedServer, "resolve", resolve)
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
            assert cause(catalog) == code


async def test_dns_that_does_not_answer_is_no_absence(opened):
    async with opened() as one, naming({}, rcode="SERVFAIL") as port:
        catalog = await by_dns(one, port, DnsCheck.PRESENT)
        assert cause(catalog) == "unavailable.dns"


async def test_what_dns_agreed_to_is_on_record(opened):
    async with opened() as one, naming({TXT: [[GOOD]]}) as port:
        catalog = await by_dns(one, port, DnsCheck.REQUIRED)
        await catalog.pin("mail.send")
        pinned = [event.details for event in one.gate.events() if event.event_type == "tool.pinned"]
        assert pinned[0]["dns"] is True
