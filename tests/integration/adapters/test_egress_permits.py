"""A program's network and the rest of the runtime: its permit, the secrets that its action names, and the trail of what is about somebody."""

import json

import pytest

from symbi.adapters.egress import EgressProxy
from symbi.adapters.keys import FileKeyStore
from symbi.adapters.secrets import EnvironmentSecrets
from symbi.audit.event import AuditEventType, parse_event
from symbi.clock import SystemClock
from symbi.crypto.keys import KeyRing
from symbi.crypto.provider import open_provider
from symbi.errors import InputError, PermitRefused, Unavailable
from symbi.guard.action import RunContainer
from symbi.guard.confidential import revealed
from symbi.guard.permit import Authority
from symbi.guard.vault import Vault
from symbi.sandbox.heads import Refusal
from symbi.testing.clock import ManualClock
from symbi.testing.log import open_log
from symbi.types import AgentId, EffectId, Label, Principal, RunId, SecurityTier

pytestmark = pytest.mark.anyio

SECRETS = {"SYMBI_SECRET_KEY": "sesame-4711-open"}


def program(**changes):
    asked = {"network": ("api.example:443",), "credentials": {"api.example": "key"}} | changes
    return RunContainer(
        principal=Principal(AgentId("a")), image="sha256:" + 64 * "0", command=("p",), tier=SecurityTier.TIER1,
        within=RunId("r"), **asked,
    )  # fmt: skip


def proxy(authority, tell, **options):
    async def resolve(_host):
        return ["1.1.1.1"]

    secrets = EnvironmentSecrets(authority, SECRETS)
    return EgressProxy(authority, secrets, tell, SystemClock(), resolver=resolve, **options)


async def untold(_draft):
    raise AssertionError("nothing happened")


async def test_only_a_live_permit_opens_a_network():
    authority = Authority(ManualClock())
    egress = proxy(authority, untold)
    permit = authority.mint(EffectId("e"), program())
    session = await egress.open(permit)
    assert session.totals()["pinned"] == {"api.example": ["1.1.1.1"]}
    authority.close(permit)
    for other in (permit, Authority(ManualClock()).mint(EffectId("e"), program())):
        with pytest.raises(PermitRefused):
            await egress.open(other)


async def test_a_grant_that_is_none_and_a_secret_that_is_not_there_are_said():
    authority = Authority(ManualClock())
    egress = proxy(authority, untold)
    for changes, error in (
        ({"network": ("localhost:80",), "credentials": {}}, InputError),
        ({"credentials": {"other.example": "key"}}, InputError),
        ({"credentials": {"api.example": "other"}}, Unavailable),
    ):
        with pytest.raises(error):
            await egress.open(authority.mint(EffectId("e"), program(**changes)))


async def test_no_secret_is_had_that_the_action_does_not_name():
    authority = Authority(ManualClock())
    permit = authority.mint(EffectId("e"), program())
    secrets = EnvironmentSecrets(authority, SECRETS | {"SYMBI_SECRET_OTHER": "x"})
    assert secrets.resolve(permit, "key") == SECRETS["SYMBI_SECRET_KEY"]
    with pytest.raises(PermitRefused):
        secrets.resolve(permit, "other")


async def test_what_a_program_that_knows_of_somebody_asks_for_is_sealed_on_the_trail(tmp_path):
    authority = Authority(ManualClock())
    async with open_log(tmp_path / "data") as trail:
        ring = KeyRing(FileKeyStore(tmp_path / "keys"), open_provider(), create=True)
        vault = Vault(trail.store, ring, open_provider(), ManualClock(), trail.log)
        egress = proxy(authority, trail.log.append, vault=vault)
        for label in (Label(), Label(subjects=("anna",))):
            session = await egress.open(authority.mint(EffectId("e"), program(label=label)))
            place = {"host": "anna-is-ill.example", "port": 443}
            with pytest.raises(Exception, match=r"egress\.host"):
                await session._refuse(Refusal("egress.host"), place)
        events = [parse_event(one.record) for one in trail.store.read(1)]
        plain, sealed = (one for one in events if one.event_type is AuditEventType.EGRESS_REFUSED)
        assert plain.details["host"] == "anna-is-ill.example"
        assert "anna-is-ill" not in json.dumps(dict(sealed.details))
        assert sealed.details["effect_id"] == "e"
        assert revealed(sealed, vault).details["host"] == "anna-is-ill.example"
