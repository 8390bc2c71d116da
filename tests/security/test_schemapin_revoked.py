"""A key that is found to be revoked counts from then on, whatever becomes of who asked."""

from contextlib import asynccontextmanager

import pytest

from symbi.errors import StoreUnavailable, ToolServerUnavailable
from symbi.testing.domains import reply
from symbi.testing.signed import KEY, SEND, document, signed, signed_server
from symbi.tools.schemapin import key_id
from symbi.tools.schemapin.documents import WELL_KNOWN

pytestmark = pytest.mark.anyio


async def test_a_key_that_is_revoked_is_refused_also_where_who_asked_for_it_is_broken_off(tmp_path, monkeypatch):
    async with signed_server(tmp_path) as one:
        catalog = one.catalog(one.verifier(keep_s=300.0), signed(SEND))
        await catalog.refresh("mail")
        await catalog.pin("mail.send")
        one.web.pages[WELL_KNOWN] = reply(document(revoked_keys=[key_id(KEY.public_key())]))
        one.gate.clock.advance(301.0)
        enforce = catalog._guard.enforce

        @asynccontextmanager
        async def broken_off(action):
            async with enforce(action) as permit:
                yield permit
            raise StoreUnavailable("the outcome cannot be recorded")

        with monkeypatch.context() as patched:
            patched.setattr(catalog._guard, "enforce", broken_off)
            with pytest.raises(StoreUnavailable):
                await catalog.ready("mail")
        with pytest.raises(ToolServerUnavailable, match="verified before any is called"):
            catalog.find("mail.send")
        await catalog.revive("mail", catalog.principal_of("mail"))  # as each call does
        assert catalog.quarantined["mail.send"].code == "verify.revoked"
        assert not catalog.refs
