"""TXT records of SchemaPin, by the system's resolvers or by those that are configured."""

from collections.abc import Sequence
from typing import Final

import dns.asyncresolver
import dns.exception
import dns.nameserver
import dns.resolver

from symbi.errors import InputError, PermitRefused, Unavailable
from symbi.guard.action import ConnectServer
from symbi.guard.permit import Authority, Permit
from symbi.tools.schemapin.dns import txt_name

MAX_RECORDS: Final = 64
DNS_PORT: Final = 53


class TxtRecords:
    """Asks DNS.

    Args:
        authority: Knows live permits.
        servers: Address and port of each server to ask; those of the system if there are none.
        timeout_s: How long it may take.
    """

    def __init__(self, authority: Authority, servers: Sequence[tuple[str, int]], *, timeout_s: float) -> None:
        self._authority = authority
        self._servers = tuple(servers)
        self._timeout_s = timeout_s

    async def __call__(self, permit: Permit[ConnectServer], domain: str) -> Sequence[str]:
        """The TXT records of a domain's SchemaPin name, the chunks of each joined; none where there are none.

        Raises:
            PermitRefused: The permit is not live, or does not name the domain.
            Unavailable: It cannot be known whether there are any.
            InputError: There are too many, or one is no text.
        """
        if self._authority.check(permit, ConnectServer).discovery != domain:
            msg = f"the permit is not for asking `{domain}`"
            raise PermitRefused(msg, code="permit.foreign", effect_id=permit.effect_id)
        name = txt_name(domain)
        try:
            resolver = dns.asyncresolver.Resolver(configure=not self._servers)
            if self._servers:
                resolver.nameservers = [dns.nameserver.Do53Nameserver(host, port) for host, port in self._servers]
            answer = await resolver.resolve(
                name + ".", "TXT", lifetime=self._timeout_s, search=False, raise_on_no_answer=False
            )
        except dns.resolver.NXDOMAIN:
            return ()
        except (dns.exception.DNSException, OSError) as error:
            msg = f"DNS does not say whether there is `{name}`: {type(error).__name__}"
            raise Unavailable(msg, code="unavailable.dns", domain=domain) from error
        if answer.rrset is None:
            return ()
        if len(answer.rrset) > MAX_RECORDS:
            raise InputError(f"`{name}` has {len(answer.rrset)} TXT records", code="tool.discovery")
        try:
            return tuple(b"".join(record.strings).decode("ascii") for record in answer.rrset)
        except UnicodeDecodeError:
            raise InputError(f"a TXT record of `{name}` is no ASCII text", code="tool.discovery") from None
