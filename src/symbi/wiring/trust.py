"""How it is found out under which key servers' tools are signed, from settings."""

from collections.abc import Sequence
from pathlib import Path

from symbi.clock import Clock
from symbi.config import Settings, ToolVerification
from symbi.config.schemapin_settings import DnsCheck as DnsSetting
from symbi.config.schemapin_settings import split_server
from symbi.errors import InputError
from symbi.guard.permit import Authority
from symbi.tools.schemapin.bundle import MAX_BUNDLE_BYTES, TrustBundle, parse_bundle
from symbi.tools.schemapin.dns import DnsCheck
from symbi.tools.schemapin.keys import PublicKey, load_public_key
from symbi.tools.schemapin.listing import entries_of
from symbi.tools.schemapin.resolve import BundleSource, DiscoverySource, ServerKeys, TrustChain
from symbi.wiring.servers import public_keys
from symbi.wiring.sources import read_text


def server_keys(settings: Settings, authority: Authority, clock: Clock) -> ServerKeys:
    """The operator's keys, and who is asked for the others.

    Raises:
        InputError: A key, bundle or file of signatures cannot be read.
        ConfigError: The file of authorities for certificates cannot be used.
    """
    configured = public_keys(settings)
    signatures = {
        one.name: entries_of(read_text(settings.folder / one.signatures))
        for one in settings.mcp.servers
        if one.signatures is not None
    }
    domains = {one.name: one.schemapin_domain for one in settings.mcp.servers if one.schemapin_domain is not None}
    if not domains or settings.mcp.tool_verification is ToolVerification.DISABLED:
        return ServerKeys(configured, signatures=signatures)
    from symbi.adapters.schemapin.dns import TxtRecords  # noqa: PLC0415 - for those who have a domain to ask

    schemapin = settings.schemapin
    chain = TrustChain(
        _sources(settings, authority, clock),
        clock,
        strict=settings.mcp.tool_verification is ToolVerification.STRICT,
        keep_s=schemapin.keep_s,
        dns=DnsCheck(schemapin.dns.value),
        lookup=None
        if schemapin.dns is DnsSetting.OFF
        else TxtRecords(authority, [split_server(one) for one in schemapin.dns_servers], timeout_s=schemapin.timeout_s),
    )
    return ServerKeys(configured, domains, chain, signatures)


def read_bundle(path: Path) -> TrustBundle:
    """A bundle out of a file; nothing says yet that it may be trusted.

    Raises:
        InputError: It cannot be read, or is none.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BUNDLE_BYTES + 1)
    except OSError as error:
        msg = f"cannot read `{path}`: {error.strerror or error}"
        raise InputError(msg, code="input.unreadable") from error
    return parse_bundle(f"the trust bundle `{path}`", raw)


def bundle_authorities(settings: Settings) -> list[PublicKey]:
    """The keys of those who may sign bundles.

    Raises:
        InputError: A file cannot be read, or is no key.
    """
    return [load_public_key(read_text(settings.folder / path)) for path in settings.schemapin.authorities]


def skill_files(folder: Path) -> tuple[dict[str, str], bytes | None]:
    """Hash by path of every file in a skill folder, and its signature file, if there is one.

    Raises:
        InputError: It cannot be read, or holds what is neither file nor folder.
    """
    from symbi.adapters.schemapin.skill_folder import read_skill_folder  # noqa: PLC0415 - for those who have one

    return read_skill_folder(folder)


def put_skill_signature(folder: Path, content: bytes) -> Path:
    """Write the signature file of a skill folder.

    Raises:
        InputError: It cannot be written.
    """
    from symbi.adapters.schemapin.skill_folder import write_skill_signature  # noqa: PLC0415 - likewise

    return write_skill_signature(folder, content)


def _sources(settings: Settings, authority: Authority, clock: Clock) -> Sequence[DiscoverySource]:
    schemapin = settings.schemapin
    authorities = bundle_authorities(settings)
    sources: list[DiscoverySource] = [
        BundleSource(read_bundle(settings.folder / path), clock, authorities) for path in schemapin.bundles
    ]
    sources += [BundleSource(read_bundle(settings.folder / path), clock, None) for path in schemapin.unsigned_bundles]
    if schemapin.folder is not None:
        from symbi.adapters.schemapin.folder import FolderSource  # noqa: PLC0415 - likewise

        sources.append(FolderSource(authority, settings.folder / schemapin.folder))
    if schemapin.online:
        from symbi.adapters.schemapin.fetch import DomainSource, certificates  # noqa: PLC0415 - likewise

        context = certificates(None if schemapin.ca_file is None else settings.folder / schemapin.ca_file)
        private = frozenset(schemapin.private_hosts)
        sources.append(DomainSource(authority, timeout_s=schemapin.timeout_s, private=private, context=context))
    return sources
