"""What a person has said of a tool holds, whatever else goes on meanwhile."""

from dataclasses import replace

import pytest

from symbi.errors import PinMismatch, SignatureInvalid
from symbi.testing.domains import reply
from symbi.testing.signed import KEY, OTHER, SEND, document, signed, signed_server
from symbi.testing.tool_servers import ToolServerSimulator
from symbi.tools.catalog import Catalog, ServerLink, ToolVerifier, VerificationMode
from symbi.tools.port import ReviewKind, ReviewState
from symbi.tools.review import REVOKED_KEY, REVOKED_TOOL
from symbi.tools.reviewing import ToolReviews
from symbi.tools.schemapin import fingerprint, key_id
from symbi.tools.schemapin.documents import WELL_KNOWN
from symbi.tools.upkeep import Upkeep
from symbi.types import AgentId, Principal

pytestmark = pytest.mark.anyio
PERSON = Principal(AgentId("operator"), "ada")
NEW = replace(SEND, description="Sends a mail, safely.")


@pytest.fixture
def opened(tmp_path):
    return lambda: signed_server(tmp_path)


async def test_an_acceptance_that_is_refused_takes_no_revocation_back(opened):
    async with opened() as one:
        pinned = signed(NEW, schema_version="2.1.0")
        catalog = await one.offered(pinned)
        await catalog.pin("mail.send")
        await ToolReviews(catalog).revoke("mail.send", PERSON)
        catalog = await one.offered(signed(SEND, schema_version="2.0.9"))
        shown = one.gate.store.get_review(ReviewKind.TOOL, "mail.send").digest
        with pytest.raises(PinMismatch) as caught:
            await ToolReviews(catalog).accept("mail.send", shown, PERSON)
        assert caught.value.code == "verify.older"
        assert one.gate.store.get_review(ReviewKind.TOOL, "mail.send").state is ReviewState.REVOKED
        catalog = await one.offered(pinned)
        with pytest.raises(PinMismatch) as caught:
            catalog.find("mail.send")
        assert caught.value.code == REVOKED_TOOL


async def test_an_acceptance_that_is_refused_leaves_waiting_what_waits(opened):
    async with opened() as one:
        catalog = await one.offered(signed(NEW, schema_version="2.1.0"))
        await catalog.pin("mail.send")
        catalog = await one.offered(signed(SEND, schema_version="2.0.9"))
        before = one.gate.store.get_review(ReviewKind.TOOL, "mail.send")
        with pytest.raises(PinMismatch):
            await catalog.pin("mail.send", digest=before.digest)
        assert one.gate.store.get_review(ReviewKind.TOOL, "mail.send") == before


async def test_who_reviews_a_change_is_told_that_the_key_is_another_too(opened):
    async with opened() as one:
        catalog = await one.offered(signed(SEND))
        await catalog.pin("mail.send")
        await one.offered(signed(NEW))
        assert "key sha256" not in one.gate.store.get_review(ReviewKind.TOOL, "mail.send").reason
        one.web.pages[WELL_KNOWN] = reply(document(OTHER))
        catalog = await one.offered(signed(NEW, OTHER))
        said = one.gate.store.get_review(ReviewKind.TOOL, "mail.send").reason
        assert said == catalog.quarantined["mail.send"].message
        assert "definition and key" in said
        assert f"was signed by key {key_id(KEY.public_key())}, and is by key {key_id(OTHER.public_key())}" in said
        await one.offered(NEW, mode="tofu")
        assert "and is by nobody" in one.gate.store.get_review(ReviewKind.TOOL, "mail.send").reason


async def test_a_key_that_is_revoked_is_seen_for_each_server_of_its_domain(opened):
    async with opened() as one:
        domains = {"mail": one.domain, "other": one.domain}
        known = replace(one.verifier("tofu", keep_s=300.0).known, domains=domains)
        gate = one.gate
        verifier = ToolVerifier(VerificationMode.TOFU, gate.store, gate.log, gate.engine, gate.clock, keys=known)
        servers = [
            ToolServerSimulator(name, one.guard.authority, [(signed(replace(SEND, server=name)), None)])
            for name in domains
        ]
        links = [ServerLink(server.name, "simulated", server) for server in servers]
        catalog = Catalog(one.guard, verifier, links)
        for server in domains:
            await catalog.refresh(server)
        assert len(catalog.refs) == len(servers)
        one.web.pages[WELL_KNOWN] = reply(document(revoked_keys=[key_id(KEY.public_key())]))
        one.gate.clock.advance(300.0)
        await catalog.ready("mail")  # somebody begins to use one of them, and it is asked again
        upkeep = Upkeep(catalog, one.gate.clock, interval_s=30.0, within_s=5.0)
        one.gate.clock.advance(30.0)
        assert await upkeep.look()
        assert {name: error.code for name, error in catalog.quarantined.items()} == dict.fromkeys(
            ["mail.send", "other.send"], "verify.revoked"
        )
        events = len(one.gate.events())
        one.gate.clock.advance(30.0)
        assert await upkeep.look()
        assert len(one.gate.events()) == events, "and it is not asked again until it is old"


@pytest.mark.parametrize("what", ["tool", "key"])
@pytest.mark.parametrize("how", ["listed", "connected", "accepted"])
async def test_what_is_revoked_while_it_is_verified_is_refused(opened, what, how):
    async with opened() as one:
        catalog = await one.offered(signed(SEND))
        await catalog.pin("mail.send")
        reviews, verifier = ToolReviews(catalog), catalog.verifier
        verify = verifier.verify_all

        async def and_revoked(definitions, **said):
            verified = await verify(definitions, **said)  # what comes of it is not in the catalogue yet
            if what == "tool":
                await reviews.revoke("mail.send", PERSON)
            else:
                await reviews.revoke_key(fingerprint(KEY.public_key()), PERSON)
            return verified

        verifier.verify_all = and_revoked
        if how == "listed":
            await catalog.noticed("mail", "tools")
        elif how == "connected":
            await catalog.refresh("mail")
        else:
            with pytest.raises((PinMismatch, SignatureInvalid)):
                await catalog.pin("mail.send")
        with pytest.raises((PinMismatch, SignatureInvalid)) as caught:
            catalog.find("mail.send")
        assert caught.value.code == {"tool": REVOKED_TOOL, "key": REVOKED_KEY}[what]
