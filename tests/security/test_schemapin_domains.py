"""Attacks on what a domain says of the key of a tool server: whatever it says, no tool becomes callable under a key that it
should not."""

import json
import threading
from dataclasses import replace

import anyio
import pytest

from symbi.adapters.schemapin.fetch import certificates
from symbi.clock import rfc3339
from symbi.errors import PinMismatch, PolicyDenied, SignatureInvalid
from symbi.policy.policies import PolicySet
from symbi.testing.domains import reply
from symbi.testing.signed import HOST, KEY, OTHER, READ, REVOKED, SEND, document, revocations, signed, signed_server
from symbi.testing.tool_servers import ToolServerSimulator
from symbi.tools.catalog import Catalog, ServerLink
from symbi.tools.schemapin import key_id
from symbi.tools.schemapin.bundle import parse_bundle, sign_bundle
from symbi.tools.schemapin.documents import MAX_DOCUMENT_BYTES, WELL_KNOWN
from symbi.tools.schemapin.resolve import BundleSource
from symbi.tools.upkeep import Upkeep

pytestmark = pytest.mark.anyio


@pytest.fixture
def opened(tmp_path):
    return lambda **options: signed_server(tmp_path, **options)


# --- consent -----------------------------------------------------------------------------------------------------------


async def test_a_discovered_key_is_held_until_a_person_accepts_it_and_then_serves_the_servers_other_tools(opened):
    async with opened() as one:
        held = await one.refused("verify.consent")
        assert key_id(KEY.public_key()) in held
        assert "Example" in held
        assert "symbi tools pin mail.send" in held
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
        await one.refused("verify.signature", signed(SEND, OTHER), configured=KEY.public_key())


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
        await one.refused("verify.signature", stolen)


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


async def test_a_bundle_is_checked_once_and_beside_the_event_loop(opened, monkeypatch):
    threads = []
    monkeypatch.setattr("symbi.tools.schemapin.resolve.verify_bundle", lambda *_: threads.append(threading.get_ident()))
    content = {"documents": [json.loads(document()) | {"domain": HOST}]}
    raw = json.dumps(sign_bundle(content, OTHER, "acme", "2026-01-01T00:00:00Z")).encode()
    async with opened() as one:
        source = BundleSource(parse_bundle("the bundle", raw), one.gate.clock, [OTHER.public_key()])
        catalog = await one.offered(signed(SEND), sources=[source])
        assert [ref.name for ref in catalog.refs] == ["mail.send"]
        assert len(threads) == 1
        assert threads[0] != threading.get_ident()


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


async def test_a_signature_that_ends_while_its_server_stays_connected_is_refused_from_then_on(opened):
    async with opened() as one:
        await accepted(one)
        ends = rfc3339(one.gate.clock.now_ns() + 60_000_000_000)
        strict = await one.offered(signed(SEND, expires_at=ends))
        tofu = await one.offered(signed(SEND, expires_at=ends), mode="tofu")
        one.gate.clock.advance(59.0)
        tool = strict.find("mail.send")
        assert strict.confirm(tool.ref) is tool
        one.gate.clock.advance(1.0)
        for look in (lambda: strict.find("mail.send"), lambda: strict.confirm(tool.ref)):
            with pytest.raises(SignatureInvalid) as caught:
                look()
            assert caught.value.code == "verify.expired"
        assert tofu.find("mail.send").ref == tool.ref


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


# --- revocation while a server stays connected ---------------------------------------------------------------------------


async def test_a_key_that_is_revoked_while_its_server_stays_connected_is_refused_at_the_next_round(opened):
    async with opened() as one:
        await accepted(one)
        catalog = await one.offered(signed(SEND), keep_s=300.0)
        upkeep = Upkeep(catalog, one.gate.clock, interval_s=30.0, within_s=5.0)
        one.web.pages[WELL_KNOWN] = reply(document(revoked_keys=[key_id(KEY.public_key())]))
        asked = len(one.web.asked)
        for _ in range(9):
            one.gate.clock.advance(30.0)
            assert await upkeep.look()
        assert (len(one.web.asked), [ref.name for ref in catalog.refs]) == (asked, ["mail.send"])
        one.gate.clock.advance(30.0)
        await upkeep.look()
        assert len(one.web.asked) == asked + 1
        assert catalog.quarantined["mail.send"].code == "verify.revoked"
        assert not catalog.refs
        with pytest.raises(SignatureInvalid):
            catalog.find("mail.send")


async def test_a_server_that_may_not_be_connected_any_more_is_taken_out_when_its_key_is_asked_for(opened):
    async with opened() as one:
        await accepted(one)
        catalog = await one.offered(signed(SEND))
        upkeep = Upkeep(catalog, one.gate.clock, interval_s=30.0, within_s=5.0)
        one.gate.engine.replace(PolicySet.load([]))
        one.gate.clock.advance(300.0)
        await upkeep.look()
        assert not catalog.refs
        with pytest.raises(PolicyDenied):
            catalog.find("mail.send")


# --- revocation ---------------------------------------------------------------------------------------------------------


async def test_a_key_that_its_own_document_revokes_is_refused(opened):
    async with opened() as one:
        await accepted(one)
        one.web.pages[WELL_KNOWN] = reply(document(revoked_keys=[key_id(KEY.public_key())]))
        await one.refused("verify.revoked")


async def test_a_configured_key_can_be_revoked_too(opened):
    async with opened() as one:
        one.web.pages[WELL_KNOWN] = reply(document(OTHER, revoked_keys=[key_id(KEY.public_key())]))
        await one.refused("verify.revoked", configured=KEY.public_key())


async def test_a_key_that_the_standalone_document_revokes_is_refused(opened):
    async with opened() as one:
        await accepted(one)
        endpoint = f"https://{one.domain}{REVOKED}"
        one.web.pages[WELL_KNOWN] = reply(document(revocation_endpoint=endpoint))
        one.web.pages[REVOKED] = reply(revocations(OTHER))
        assert (await one.offered(signed(SEND))).refs
        one.web.pages[REVOKED] = reply(revocations(OTHER, KEY))
        found = await one.refused("verify.revoked")
        assert "key_compromise" in found


@pytest.mark.parametrize(
    ("page", "code"),
    [
        (None, "unavailable.discovery"),
        (reply(b"", status="500 No"), "unavailable.discovery"),
        (reply(b"{}"), "tool.discovery"),
        (reply(revocations(domain="other.example.com")), "tool.discovery"),
        (reply(revocations(revoked_keys=["abc"])), "tool.discovery"),
        (reply(revocations(revoked_keys=[{"fingerprint": "deadbeef"}])), "tool.discovery"),
        (reply(revocations(expires_at="2020-01-01T00:00:00Z")), "verify.expired"),
    ],
    ids=["absent", "failing", "empty", "of another domain", "no entry", "no fingerprint", "ended"],
)
async def test_a_revocation_document_that_cannot_be_had_or_read_is_an_error_in_strict_mode(opened, page, code):
    async with opened() as one:
        await accepted(one)
        one.web.pages[WELL_KNOWN] = reply(document(revocation_endpoint=f"https://{one.domain}{REVOKED}"))
        if page is not None:
            one.web.pages[REVOKED] = page
        await one.refused(code)


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://tools.example.com/r.json",
        "https://evil.example.org/r.json",
        "https://other.example.com/r.json",
        "https://eviltools.example.com/r.json",
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
        await one.refused("tool.discovery")
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


async def test_a_server_that_stays_connected_is_asked_about_again_when_somebody_begins_to_use_it(opened):
    async with opened() as one:
        catalog = one.catalog(one.verifier(keep_s=300.0), signed(SEND))
        await catalog.refresh("mail")
        await catalog.pin("mail.send")
        one.web.pages[WELL_KNOWN] = reply(document(revoked_keys=[key_id(KEY.public_key())]))
        await catalog.ready("mail")
        assert catalog.refs
        one.gate.clock.advance(301.0)
        await catalog.ready("mail")
        assert catalog.quarantined["mail.send"].code == "verify.revoked"
        assert catalog.is_connected("mail")
        one.web.pages[WELL_KNOWN] = reply(document())
        one.gate.clock.advance(301.0)
        await catalog.ready("mail")
        assert [ref.name for ref in catalog.refs] == ["mail.send"]


async def test_a_failure_stands_for_a_while_so_that_nobody_waits_for_it_again(opened):
    async with opened() as one:
        one.web.pages.clear()
        catalog = one.catalog(one.verifier(), signed(SEND))
        for asked, after_s in ((1, 5.0), (1, 6.0), (2, 0.0)):
            await catalog.refresh("mail")
            assert catalog.quarantined["mail.send"].fields["cause"] == "unavailable.discovery"
            assert len(one.web.asked) == asked
            one.gate.clock.advance(after_s)


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
    "redirect": (
        reply(b"", status="302 Found", headers="location: https://evil.example.org/x\r\n"),
        "unavailable.discovery",
    ),
    "redirect with a document": (
        reply(FULL, status="301 Moved Permanently", headers=f"location: https://{HOST}/y\r\n"),
        "unavailable.discovery",
    ),
    "permanent redirect": (
        reply(FULL, status="308 Permanent Redirect", headers="location: /y\r\n"),
        "unavailable.discovery",
    ),
    "not found": (reply(FULL, status="404 Not Found"), "unavailable.discovery"),
    "created": (reply(FULL, status="201 Created"), "unavailable.discovery"),
    "huge": (reply(FULL[:-1] + b" " * MAX_DOCUMENT_BYTES + b"}"), "limit.discovery_size"),
    "endless": (endless, "limit.discovery_size"),
    "slow": (drip, "limit.discovery_time"),
    "silent": (silence, "limit.discovery_time"),
    "headers without end": (headers_without_end, "unavailable.discovery"),
    "garbage": (garbage, "unavailable.discovery"),
    "compressed": (reply(FULL, headers="content-encoding: gzip\r\n"), "tool.discovery"),
    "no JSON": (reply(b"<html>"), "tool.discovery"),
    "a list": (reply(b"[]"), "tool.discovery"),
    "deep": (reply(b"[" * 100_000), "tool.discovery"),
    "a name twice": (
        reply(document(revoked_keys=[key_id(KEY.public_key())])[:-1] + b', "revoked_keys": []}'),
        "tool.discovery",
    ),
    "of another domain": (reply(document(domain="other.example.com")), "tool.discovery"),
    "no key": (reply(b'{"schema_version": "1.4"}'), "tool.discovery"),
    "no version": (reply(document(schema_version="9.0")), "tool.discovery"),
    "RSA": (
        reply(document(public_key_pem="-----BEGIN PUBLIC KEY-----\nMFww\n-----END PUBLIC KEY-----\n")),
        "tool.discovery",
    ),
    "revoked keys that are no fingerprints": (reply(document(revoked_keys=["abc"])), "tool.discovery"),
    "revoked keys that are no list": (reply(document(revoked_keys="none")), "tool.discovery"),
    "an end that cannot be read": (reply(document(expires_at="soon")), "tool.discovery"),
    "an end that has come": (reply(document(expires_at="2025-01-01T00:00:00Z")), "verify.expired"),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_document_makes_nothing_callable(opened, name, later):
    page, code = HOSTILE[name]
    async with opened() as one, anyio.create_task_group() as tasks:
        one.web.pages[WELL_KNOWN] = page
        ended = anyio.Event()

        async def refused():
            await one.refused(code, sources=[one.source(timeout_s=60.0)])
            ended.set()

        tasks.start_soon(refused)
        if code == "limit.discovery_time":
            while not one.web.asked:
                await anyio.lowlevel.checkpoint()
            await later(61.0, one.gate.log)
        await ended.wait()
        assert len(one.web.asked) == 1  # and nothing was followed


async def test_a_certificate_of_another_name_or_authority_is_refused(opened, tmp_path):
    async with opened(host="evil.example.org") as one:
        await one.refused("unavailable.discovery")
        assert one.web.asked == []
    async with opened() as one:
        source = one.source(context=certificates(None))
        await one.refused("unavailable.discovery", sources=[source])
        assert one.web.asked == []
