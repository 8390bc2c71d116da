"""Makes a session for each sandbox with a granted network: names are pinned and secrets taken, then there is a proxy."""

import ssl
from collections.abc import Mapping
from typing import Final

import anyio

from symbi.adapters.egress.credential import Secret
from symbi.adapters.egress.outward import Dial, Resolve, dial, pin, resolve
from symbi.adapters.egress.record import About, Meter, Record, Sleep, Tell
from symbi.adapters.egress.session import EgressSession, Outsides
from symbi.clock import Clock
from symbi.guard.action import RunContainer
from symbi.guard.confidential import keys_for, subjects_of
from symbi.guard.permit import Authority, Permit
from symbi.guard.vault import Vault
from symbi.sandbox.egress import EgressGrant, EgressLimits, parse_grant
from symbi.tools.port import SecretSource

ALPN: Final = ["http/1.1"]


def default_context() -> ssl.SSLContext:
    """Verifies who answers by the authorities that this machine trusts."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(ALPN)
    return context


class EgressProxy:
    """Opens sessions.

    Args:
        authority: Knows live permits.
        secrets: Where credentials are.
        tell: Makes an event of the trail durable.
        clock: Measures rates.
        vault: Has the keys of data subjects.
        limits: Of each sandbox.
        resolver: Asked once for each name of a grant.
        dialer: Connects with an address.
        context: Verifies who answers.
        sleep: Waits for the turn of bytes.
        permitted: Addresses that may be reached whatever they are. For tests, which have no other network; nothing in a
            configuration sets it.
    """

    def __init__(  # noqa: PLR0913 - what it needs comes by place, the rest by name
        self,
        authority: Authority,
        secrets: SecretSource,
        tell: Tell,
        clock: Clock,
        *,
        vault: Vault | None = None,
        limits: EgressLimits | None = None,
        resolver: Resolve = resolve,
        dialer: Dial = dial,
        context: ssl.SSLContext | None = None,
        sleep: Sleep = anyio.sleep,
        permitted: frozenset[str] = frozenset(),
    ) -> None:
        self._authority = authority
        self._secrets = secrets
        self._tell = tell
        self._clock = clock
        self._vault = vault
        self._limits = limits or EgressLimits()
        self._resolver = resolver
        self._dialer = dialer
        self._context = context
        self._sleep = sleep
        self._permitted = permitted

    async def open(self, permit: Permit[RunContainer]) -> EgressSession:
        """The proxy of the program of a permit; see `symbi.sandbox.port.Egress`."""
        action = self._authority.check(permit, RunContainer)
        grant = parse_grant(action.network, action.credentials)
        secrets: dict[str, str | None] = {}
        for path in grant.secrets:
            secrets[path] = await anyio.to_thread.run_sync(self._secrets.resolve, permit, path)
        keys = await keys_for(self._vault, action.principal.agent, subjects_of(action), wait=True)
        about = About(action.principal.name, action.run_id, permit.effect_id, keys)
        return await self.session(grant, secrets, about, self._limits.claimed(action.network_mibitps))

    async def session(
        self,
        grant: EgressGrant,
        secrets: Mapping[str, str | None],
        about: About,
        limits: EgressLimits | None = None,
    ) -> EgressSession:
        """The proxy of one sandbox.

        Args:
            grant: What it may reach.
            secrets: Values by path, of those that the grant names.
            about: Whose connections they are.
            limits: Of this sandbox; those of each if None.

        Raises:
            Denied: A granted name is at an address that is not public (`egress.address`).
            Unavailable: A name has no address, or there is no such secret.
            InputError: A secret cannot stand in a header.
        """
        put_in = {host: Secret(one, secrets.get(one.path)) for host, one in grant.credentials.items()}
        pinned = {host: await pin(host, self._resolver, self._permitted) for host in grant.hosts}
        if self._context is None:
            self._context = await anyio.to_thread.run_sync(default_context)
        meter = Meter(limits or self._limits, self._clock, self._sleep)
        outsides = Outsides(pinned, self._dialer, self._context, put_in)
        return EgressSession(grant, outsides, meter, Record(self._tell, about))
