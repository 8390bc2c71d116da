# ruff: noqa: RUF009 - the calls make dataclass fields, as `field` does
"""Every key of `[schemapin]`: how it is found out under which key a domain signs its tools."""

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from symbi.config.declared import declare as _declare
from symbi.config.kinds import BadValue, FilePath, Flag, Kind, OneOf, Real, Several, describe
from symbi.errors import InputError
from symbi.sandbox.egress import parse_host

DNS_PORT: Final = 53


class DnsCheck(StrEnum):
    """Whether the TXT record of a domain is asked for."""

    OFF = "off"
    """It is not."""
    PRESENT = "present"
    """It is; one that is there must agree."""
    REQUIRED = "required"
    """It is, and must be there and agree."""


@dataclass(frozen=True, slots=True)
class DnsServer(Kind[str]):
    """A resolver: an address, and a port where it is not 53."""

    @property
    def name(self) -> str:
        """For the reference."""
        return "`address`, `address:port` or `[address]:port`"

    def from_toml(self, value: object, base: Path) -> str:
        """A string."""
        del base
        try:
            address, port = split_server(value if isinstance(value, str) else "")
            ip_address(address)
            if not 0 < port < 65_536:  # noqa: PLR2004 - of ports
                raise ValueError  # noqa: TRY301 - one message for every way of not being one
        except ValueError:
            raise BadValue(f"must be an address, with or without a port, not {describe(value)}") from None
        return str(value)


@dataclass(frozen=True, slots=True)
class Host(Kind[str]):
    """A host name, as certificates have it."""

    @property
    def name(self) -> str:
        """For the reference."""
        return "host name"

    def from_toml(self, value: object, base: Path) -> str:
        """A string."""
        del base
        host = parse_host(value) if isinstance(value, str) else None
        if host is None:
            raise BadValue(f"must be a host name, not {describe(value)}", "write it without scheme, port and path")
        return host


@dataclass(frozen=True, slots=True)
class Domain(Kind[str]):
    """Whose tools a server's are: a host name, and a port where it is not 443."""

    @property
    def name(self) -> str:
        """For the reference."""
        return "host name, or `host:port`"

    def from_toml(self, value: object, base: Path) -> str:
        """A string."""
        del base
        from symbi.tools.schemapin.documents import parse_domain  # noqa: PLC0415 - half a second, for those who have one

        try:
            return parse_domain(value if isinstance(value, str) else "")
        except InputError as error:
            raise BadValue(f"must be a domain, not {describe(value)}", error.hint or "") from None


def split_server(text: str) -> tuple[str, int]:
    """Address and port of a resolver.

    Raises:
        ValueError: It has no such form.
    """
    if text.startswith("["):
        address, _, rest = text[1:].partition("]")
        return address, int(rest.removeprefix(":") or DNS_PORT)
    address, colon, port = text.partition(":")
    if ":" in port:  # an IPv6 address by itself
        return text, DNS_PORT
    return address, int(port) if colon else DNS_PORT


@dataclass(frozen=True, slots=True)
class SchemapinSettings:
    """`[schemapin]`."""

    bundles: tuple[Path, ...] = _declare(
        (), Several(FilePath()), "signed trust bundles, asked first, in this order; each by one of the `authorities`"
    )
    authorities: tuple[Path, ...] = _declare(
        (), Several(FilePath()), "PEM files of the keys of those who may sign `bundles`"
    )
    unsigned_bundles: tuple[Path, ...] = _declare(
        (), Several(FilePath()), "trust bundles that are trusted as they are, for the place they are in"
    )
    folder: Path | None = _declare(
        None, FilePath(), "folder of `DOMAIN.json` and `DOMAIN.revocations.json`, asked after bundles", unset="none"
    )
    online: bool = _declare(
        default=True, kind=Flag(), meaning="ask a domain itself, over https, where neither bundle nor folder knows it"
    )
    timeout_s: float = _declare(10.0, Real(0.1, 120, "seconds"), "how long one document, or DNS, may take")
    keep_s: float = _declare(
        300.0, Real(0, 86_400, "seconds"), "how long what was found is used again; a revocation is seen that much later"
    )
    private_hosts: tuple[str, ...] = _declare(
        (), Several(Host()), "hosts that may be at private addresses, or on this machine; others are not asked there"
    )
    ca_file: Path | None = _declare(
        None, FilePath(), "PEM file of the authorities for certificates of domains", unset="those of the system"
    )
    dns: DnsCheck = _declare(DnsCheck.OFF, OneOf(DnsCheck), "whether the TXT record `_schemapin.DOMAIN` has a say")
    dns_servers: tuple[str, ...] = _declare((), Several(DnsServer()), "resolvers to ask; those of the system if none")
