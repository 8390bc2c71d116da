"""Signed tools of a domain on loopback, behind a gate and a catalogue. For tests of how keys of tools are found out."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec

from symbi.adapters.schemapin.fetch import DomainSource, certificates
from symbi.errors import VerificationError
from symbi.guard.gate import Guard
from symbi.testing.domains import LOOPBACK, Domains, WebAuthority, reply, serving
from symbi.testing.gate import ALLOW_ALL, Gate, open_gate
from symbi.testing.tool_servers import ToolServerSimulator
from symbi.tools.catalog import Catalog, ServerLink, ToolVerifier, VerificationMode
from symbi.tools.port import DiscoverySource, RawToolResult, ToolDefinition
from symbi.tools.schemapin import PrivateKey, PublicKey, key_id, public_pem, sign
from symbi.tools.schemapin.documents import WELL_KNOWN
from symbi.tools.schemapin.resolve import ServerKeys, TrustChain
from symbi.types import EffectId, JsonValue

KEY: Final = ec.derive_private_key(0x5EED, ec.SECP256R1())
OTHER: Final = ec.derive_private_key(0x5EED + 1, ec.SECP256R1())
HOST: Final = "tools.example.com"
REVOKED: Final = "/.well-known/schemapin-revocations.json"
SEND: Final = ToolDefinition("mail", "send", "Sends a mail.", {"type": "object"})
READ: Final = ToolDefinition("mail", "read", "Reads mail.", {"type": "object"})


def signed(definition: ToolDefinition, key: PrivateKey = KEY, **said: JsonValue) -> ToolDefinition:
    """A definition with its signature, and what is said beside it."""
    return replace(definition, meta={"schemapin": {"signature": sign(definition, key), **said}})


def document(key: PrivateKey = KEY, **said: JsonValue) -> bytes:
    """A discovery document."""
    content = {"schema_version": "1.4", "developer_name": "Example", "public_key_pem": public_pem(key.public_key())}
    return json.dumps({**content, **said}).encode()


def revocations(*keys: PrivateKey, **said: JsonValue) -> bytes:
    """A revocation document of these keys."""
    entries = [
        {"fingerprint": key_id(key.public_key()), "revoked_at": "2026-01-01T00:00:00Z", "reason": "key_compromise"}
        for key in keys
    ]
    content = {"schemapin_version": "1.2", "domain": HOST, "updated_at": "2026-01-01T00:00:00Z"}
    return json.dumps({**content, "revoked_keys": entries, **said}).encode()


@dataclass(slots=True)
class SignedServer:
    """A gate, a domain on loopback, and catalogues over one simulated server of that domain.

    Attributes:
        gate: The gate.
        web: The domain's web server.
        ca_file: Who certifies it.
        addresses: What its name resolves to.
        resolved: The names that were asked for.
    """

    gate: Gate
    web: Domains
    ca_file: Path
    addresses: list[str] = field(default_factory=lambda: [LOOPBACK])
    resolved: list[str] = field(default_factory=list)

    @property
    def domain(self) -> str:
        """As a configuration names it."""
        return f"{HOST}:{self.web.port}"

    @property
    def guard(self) -> Guard:
        """The gate's."""
        return self.gate.guard

    async def resolve(self, host: str) -> Sequence[str]:
        """The addresses of a name."""
        self.resolved.append(host)
        return self.addresses

    def source(self, **options: Any) -> DomainSource:
        """What asks the domain; it may be on this machine unless `private` says otherwise."""
        chosen = {"private": frozenset({HOST}), "timeout_s": 5.0, "context": certificates(self.ca_file), **options}
        return DomainSource(self.guard.authority, resolve=self.resolve, **chosen)

    def verifier(
        self,
        mode: str = "strict",
        *,
        configured: PublicKey | None = None,
        sources: Sequence[DiscoverySource] = (),
        **options: Any,
    ) -> ToolVerifier:
        """A verifier that asks the domain, or these sources, with the options of a `TrustChain`."""
        gate = self.gate
        chain = TrustChain(sources or [self.source()], gate.clock, strict=mode == "strict", **options)
        keys = ServerKeys({} if configured is None else {"mail": configured}, {"mail": self.domain}, chain)
        return ToolVerifier(VerificationMode(mode), gate.store, gate.log, gate.engine, gate.clock, keys=keys)

    def catalog(self, verifier: ToolVerifier, *definitions: ToolDefinition) -> Catalog:
        """A catalogue over a server that offers these; it is not connected."""
        server = ToolServerSimulator("mail", self.guard.authority, [(one, _silent) for one in definitions])
        return Catalog(self.guard, verifier, [ServerLink("mail", "simulated", server)])

    async def offered(self, *definitions: ToolDefinition, **options: Any) -> Catalog:
        """A catalogue whose server was connected once."""
        catalog = self.catalog(self.verifier(**options), *definitions)
        await catalog.refresh("mail")
        return catalog

    async def refused(self, code: str, *definitions: ToolDefinition, **options: Any) -> str:
        """Nothing is callable and nothing is pinned by it, and the trail says why; gives the message and its hint.

        Args:
            code: Of the refusal, or of why there is no key.
            definitions: What is offered; `SEND`, signed, if nothing.
            options: Of `verifier`.
        """
        before = list(self.gate.store.pins())
        catalog = await self.offered(*(definitions or [signed(SEND)]), **options)
        found = catalog.quarantined["mail.send"]
        told = [event.details["code"] for event in self.gate.events() if event.event_type == "tool.refused"]
        if catalog.refs or [pin for pin in self.gate.store.pins() if pin.state == "pinned"] != before:
            msg = f"something is callable or was pinned: {catalog.refs}"
            raise AssertionError(msg)
        why = found.fields.get("cause", found.code)
        if not isinstance(found, VerificationError) or why != code or told[-1] != found.code:
            msg = f"{type(found).__name__} {why} instead of {code}: {found}"
            raise AssertionError(msg)
        return str(found)


@asynccontextmanager
async def signed_server(
    folder: Path, *, host: str = HOST, policies: str = ALLOW_ALL, pages: Mapping[str, bytes] | None = None
) -> AsyncIterator[SignedServer]:
    """Such a server, while it lasts.

    Args:
        folder: For its certificates.
        host: Whom its certificate names.
        policies: Of the gate.
        pages: What it serves; its discovery document if nothing else is said.
    """
    authority = WebAuthority(folder)
    async with AsyncExitStack() as stack:
        gate = await stack.enter_async_context(open_gate(policies))
        web = await stack.enter_async_context(serving(authority.server_context(host)))
        for path, body in (pages or {WELL_KNOWN: document()}).items():
            web.pages[path] = reply(body)
        yield SignedServer(gate, web, authority.ca_file)


async def _silent(_values: Mapping[str, JsonValue], _effect: EffectId) -> RawToolResult:
    return RawToolResult("", None, is_error=False)
