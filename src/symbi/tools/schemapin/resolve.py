"""From a domain to the key under which its tools are to be signed: sources in their order, lists of revoked keys, DNS.

The first source that knows a domain says which key it is. One that fails ends the search: who can break one source shall not
choose the next. Revocations count from every source. What was found is kept for a while, and asked for again after it.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import anyio.to_thread

from symbi.clock import Clock
from symbi.errors import (
    Denied,
    InputError,
    LimitExceeded,
    PermitRefused,
    SignatureInvalid,
    SymbiError,
    Unavailable,
    VerificationError,
)
from symbi.guard.action import ConnectServer
from symbi.guard.outcome import decode_error, encode_error
from symbi.guard.permit import Permit
from symbi.tools.port import DiscoverySource, ToolDefinition
from symbi.tools.schemapin.bundle import TrustBundle, refuse_ended, verify_bundle
from symbi.tools.schemapin.dns import DnsCheck, check_txt
from symbi.tools.schemapin.documents import Discovery, Revocation, parse_discovery, parse_revocation, why_revoked
from symbi.tools.schemapin.keys import PublicKey, fingerprint, key_id
from symbi.tools.schemapin.signature import META_KEY
from symbi.types import JsonValue

__all__ = ["BundleSource", "DiscoverySource", "ServerKeys", "ServerTrust", "TrustChain", "TxtLookup"]

MAX_KEPT: Final = 1_024  # domains; more than servers can be configured
RETRY_S: Final = 10.0  # how long a failure stands before it is tried again: who waits for one does not wait for many
STALE_S: Final = 86_400.0  # how long `tofu` makes do with what was found before, while it cannot be asked for again

TxtLookup = Callable[[Permit[ConnectServer], str], Awaitable[Sequence[str]]]
"""All TXT records of a domain's SchemaPin name, the chunks of each joined; none where there is no such name."""


@dataclass(frozen=True, slots=True)
class ServerTrust:
    """Under which key a server's tools are to be signed, and how that is known.

    Attributes:
        key: The key; None where there is none, or it may not be used.
        source: Whence it is: empty for the operator's `public_key`, else the name of a source.
        remote: It came over a network from its owner, and no person has looked at it here.
        developer: What its owner is called, for people.
        dns: DNS says the same.
        error: Why there is no key.
        warnings: What was passed over.
        at_s: When it was found out, in monotonic seconds; None where nothing was.
    """

    key: PublicKey | None = field(default=None, repr=False)
    source: str = ""
    remote: bool = False
    developer: str = ""
    dns: bool = False
    error: SymbiError | None = None
    warnings: tuple[str, ...] = ()
    at_s: float | None = None

    @property
    def verdict(self) -> tuple[str, str]:
        """Fingerprint of the key, and code of the error: what tools are judged by."""
        return "" if self.key is None else fingerprint(self.key), "" if self.error is None else self.error.code


@dataclass(frozen=True, slots=True)
class _Found:
    """What sources know of a domain."""

    discovery: Discovery
    revocations: tuple[Revocation, ...]
    source: str
    remote: bool
    records: tuple[str, ...]
    at_s: float


class BundleSource:
    """A trust bundle as a source: signed by an authority, or a file that the operator trusts as it is.

    It is checked when it is first asked, so that one that is not good harms those alone who need it.

    Args:
        bundle: Read.
        clock: It ends by this.
        authorities: Who may have signed it; None where it is trusted as it is.
    """

    remote: Final = False

    def __init__(self, bundle: TrustBundle, clock: Clock, authorities: Iterable[PublicKey] | None) -> None:
        self._bundle = bundle
        self._clock = clock
        self._authorities = None if authorities is None else tuple(authorities)

    @property
    def name(self) -> str:
        """For the record."""
        return f"bundle:{self._bundle.kid or 'unsigned'}"

    async def discovery(self, permit: Permit[ConnectServer], domain: str) -> Mapping[str, Any] | None:
        """The document in the bundle.

        Raises:
            SignatureInvalid: The bundle is not signed by an authority, or has ended.
        """
        del permit
        await self._check()
        return self._bundle.document(domain)

    async def revocation(
        self, permit: Permit[ConnectServer], domain: str, endpoint: str | None
    ) -> Mapping[str, Any] | None:
        """Likewise."""
        del permit, endpoint
        await self._check()
        return self._bundle.revoking(domain)

    async def _check(self) -> None:
        now_ns = self._clock.now_ns()
        if self._authorities is not None:
            await anyio.to_thread.run_sync(verify_bundle, self._bundle, self._authorities, now_ns)  # it has up to 8 MiB
            self._authorities = None  # its content is frozen: what held once holds, but for its end
        refuse_ended(self._bundle, now_ns)


class TrustChain:
    """Finds the keys of domains.

    Args:
        sources: In the order in which they are asked.
        clock: Ends of documents, and how long what was found is kept.
        strict: What cannot be asked for is an error; else what was found within a day will do.
        keep_s: How long what was found is not asked for again; bounds how late a revocation is seen.
        dns: Whether DNS has a say.
        lookup: Asks DNS.
    """

    def __init__(
        self,
        sources: Sequence[DiscoverySource],
        clock: Clock,
        *,
        strict: bool,
        keep_s: float = 300.0,
        dns: DnsCheck = DnsCheck.OFF,
        lookup: TxtLookup | None = None,
    ) -> None:
        self._sources = tuple(sources)
        self._clock = clock
        self._strict = strict
        self._keep_s = keep_s
        self._dns = dns
        self._lookup = lookup
        self._kept: dict[str, _Found] = {}
        self._failed: dict[str, tuple[SymbiError, float]] = {}

    def is_old(self, domain: str, at_s: float | None) -> bool:
        """Whether who needs the key of a domain has to ask again.

        Args:
            domain: Whose.
            at_s: When what he knows was found out. It is old, too, where another server of the domain has asked since.
        """
        kept = self._kept.get(domain)
        return kept is None or kept.at_s != at_s or self._age_s(kept) >= self._keep_s

    async def trust(
        self, permit: Permit[ConnectServer], domain: str, configured: PublicKey | None = None
    ) -> ServerTrust:
        """The key of a domain, as far as it may be used now.

        Args:
            permit: Of the server that is being connected; its action names the domain.
            domain: Whose tools they are.
            configured: The operator's own key for it, which no document replaces, but may revoke.

        Raises:
            PermitRefused: The permit is not live, or does not name the domain.
        """
        warnings: tuple[str, ...] = ()
        try:
            found = await self._find(permit, domain)
        except PermitRefused:
            raise
        except (InputError, VerificationError, Unavailable, LimitExceeded, Denied) as error:
            kept = self._kept.get(domain)
            late = isinstance(error, (Unavailable, LimitExceeded)) and kept is not None
            if self._strict or kept is None or not late or self._age_s(kept) > STALE_S:
                return ServerTrust(error=error)
            found, warnings = kept, (f"what was found of `{domain}` before is used: {error.message}",)
        try:
            return replace(self._judge(domain, found, configured), warnings=warnings, at_s=found.at_s)
        except SignatureInvalid as error:
            return ServerTrust(error=error, source=found.source, at_s=found.at_s)

    def _judge(self, domain: str, found: _Found, configured: PublicKey | None) -> ServerTrust:
        now_ns = self._clock.now_ns()
        ends = (found.discovery.expires_at_ns, *(one.expires_at_ns for one in found.revocations))
        if any(end_ns is not None and now_ns >= end_ns for end_ns in ends):
            raise SignatureInvalid(f"a document of `{domain}` has ended", code="verify.expired", domain=domain)
        key = configured or found.discovery.key
        why = why_revoked(key, found.discovery, found.revocations)
        if why:
            msg = f"key {key_id(key)[:23]} of `{domain}` may not be used: {why}"
            raise SignatureInvalid(msg, code="verify.revoked", domain=domain)
        agreed = self._dns is not DnsCheck.OFF and check_txt(domain, found.records, key, self._dns)
        if configured is not None:
            return ServerTrust(configured, "", developer=found.discovery.developer, dns=agreed)
        return ServerTrust(key, found.source, found.remote, found.discovery.developer, agreed)

    async def _find(self, permit: Permit[ConnectServer], domain: str) -> _Found:
        kept = self._kept.get(domain)
        if kept is not None and not self.is_old(domain, kept.at_s):
            return kept
        error, at_s = self._failed.get(domain, (None, 0.0))
        if error is not None and self._clock.monotonic_s() - at_s < RETRY_S:
            raise decode_error(encode_error(error))
        try:
            return await self._ask(permit, domain)
        except (Unavailable, LimitExceeded) as failure:
            self._failed[domain] = failure, self._clock.monotonic_s()
            raise

    async def _ask(self, permit: Permit[ConnectServer], domain: str) -> _Found:
        discovery, at = await self._discovery(permit, domain)
        revocations: list[Revocation] = []
        for source in self._sources:
            raw = await source.revocation(permit, domain, discovery.revocation_endpoint)
            if raw is not None:
                revocations.append(parse_revocation(domain, raw))
        records: Sequence[str] = ()
        if self._dns is not DnsCheck.OFF and self._lookup is not None:
            records = await self._lookup(permit, domain)
        found = _Found(discovery, tuple(revocations), at.name, at.remote, tuple(records), self._clock.monotonic_s())
        self._kept.pop(domain, None)
        self._failed.pop(domain, None)
        while len(self._kept) >= MAX_KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[domain] = found
        return found

    async def _discovery(self, permit: Permit[ConnectServer], domain: str) -> tuple[Discovery, DiscoverySource]:
        for source in self._sources:
            raw = await source.discovery(permit, domain)
            if raw is not None:
                return parse_discovery(domain, raw), source
        msg = f"no source knows under which key `{domain}` signs"
        hint = "`[schemapin]` names bundles and folders, and whether domains are asked themselves"
        raise Unavailable(msg, code="unavailable.discovery", hint=hint, domain=domain)

    def _age_s(self, found: _Found) -> float:
        return self._clock.monotonic_s() - found.at_s


@dataclass(frozen=True, slots=True)
class ServerKeys:
    """Under which keys servers' tools are to be signed.

    Attributes:
        configured: The operator's own key, by server.
        domains: The domain by server, of those whose key is asked for, or may be revoked.
        chain: Finds the keys of domains; None where no domain is asked.
        signatures: What the operator keeps of signatures, by server and tool; a server that sends its own along is not heard.
    """

    configured: Mapping[str, PublicKey] = field(default_factory=dict)
    domains: Mapping[str, str] = field(default_factory=dict)
    chain: TrustChain | None = None
    signatures: Mapping[str, Mapping[str, Mapping[str, JsonValue]]] = field(default_factory=dict)

    def with_signature(self, definition: ToolDefinition) -> ToolDefinition:
        """The definition with the signature that the operator keeps of it, where there is one."""
        entry = self.signatures.get(definition.server, {}).get(definition.name)
        return definition if entry is None else replace(definition, meta={**definition.meta, META_KEY: entry})
