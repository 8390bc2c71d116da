"""Documents from their domains: https only, no redirects, bounded in size and time, and from judged addresses alone.

A name is resolved once. If one of its addresses is not public, or is this machine's own, it is not asked at all, unless the
operator named it as a private host. The connection then goes to the address that was judged, never to the name again, so
that an answer which changes in between leads nowhere; the certificate must be that of the name all the same.
"""

import ssl
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from socket import SOCK_STREAM
from typing import Final
from urllib.parse import urlsplit

import anyio
import httpx2
import psutil

from symbi.errors import ConfigError, Denied, InputError, LimitExceeded, PermitRefused, Unavailable
from symbi.guard.action import ConnectServer
from symbi.guard.permit import Authority, Permit
from symbi.sandbox.addresses import parse_address, why_not_public
from symbi.tools.schemapin.documents import HTTPS_PORT, MAX_DOCUMENT_BYTES, WELL_KNOWN, host_and_port

MAX_ADDRESSES: Final = 16  # of one name
_OK: Final = 200
_REDIRECTS: Final = range(300, 400)

Resolve = Callable[[str], Awaitable[Sequence[str]]]


class DomainSource:
    """`https://DOMAIN/.well-known/schemapin.json`, and the revocation document that it names.

    Args:
        authority: Knows live permits.
        timeout_s: How long one document may take, from the name to its last byte.
        private: Hosts that may be at private addresses, or on this machine.
        context: Verifies certificates.
        resolve: Asked for the addresses of a name, once for each document.
    """

    def __init__(
        self,
        authority: Authority,
        *,
        timeout_s: float,
        private: frozenset[str] = frozenset(),
        context: ssl.SSLContext | None = None,
        resolve: Resolve | None = None,
    ) -> None:
        self._authority = authority
        self._timeout_s = timeout_s
        self._private = private
        self._context = context or certificates(None)
        self._resolve = resolve or _addresses

    @property
    def name(self) -> str:
        """For the record."""
        return "https"

    @property
    def remote(self) -> bool:
        """Over a network, from whom it is about."""
        return True

    async def discovery(self, permit: Permit[ConnectServer], domain: str) -> bytes:
        """The document of a domain. One that answers that there is none is an error: here nobody else knows of it.

        Raises:
            PermitRefused: The permit is not live, or does not name the domain.
            Unavailable: It cannot be had (`unavailable.discovery`).
            LimitExceeded: It is too large, or too slow.
            Denied: It is at an address that is not asked (`discovery.address`).
            InputError: What is there is no document.
        """
        self._check(permit, domain)
        return await self._get(domain, *host_and_port(domain), WELL_KNOWN)

    async def revocation(self, permit: Permit[ConnectServer], domain: str, endpoint: str | None) -> bytes | None:
        """The document at the endpoint; None where the domain names none.

        Raises:
            As `discovery`.
        """
        self._check(permit, domain)
        if endpoint is None:
            return None
        parts = urlsplit(endpoint)
        path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        return await self._get(domain, parts.hostname or "", parts.port or HTTPS_PORT, path)

    def _check(self, permit: Permit[ConnectServer], domain: str) -> None:
        action = self._authority.check(permit, ConnectServer)
        if action.discovery != domain:
            msg = f"the permit is not for asking `{domain}`"
            raise PermitRefused(msg, code="permit.foreign", effect_id=permit.effect_id)

    async def _get(self, domain: str, host: str, port: int, path: str) -> bytes:
        where = f"https://{host}{'' if port == HTTPS_PORT else f':{port}'}{path}"
        try:
            with anyio.fail_after(self._timeout_s):
                addresses = await self._judged(host)
                return await self._first(addresses, host, port, path)
        except TimeoutError:
            msg = f"`{where}` took longer than {self._timeout_s:g} s"
            raise LimitExceeded(msg, code="limit.discovery_time", domain=domain) from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            msg = f"`{where}` cannot be had: {_reason(error)}"
            raise Unavailable(msg, code="unavailable.discovery", domain=domain) from error

    async def _first(self, addresses: Sequence[str], host: str, port: int, path: str) -> bytes:
        """From the first address that can be connected."""
        for address in addresses[:-1]:
            try:
                return await self._ask(address, host, port, path)
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                continue
        return await self._ask(addresses[-1], host, port, path)

    async def _ask(self, address: str, host: str, port: int, path: str) -> bytes:
        literal = f"[{address}]" if ":" in address else address
        authority = host if port == HTTPS_PORT else f"{host}:{port}"
        headers = {"host": authority, "accept": "application/json", "accept-encoding": "identity"}
        async with (
            httpx2.AsyncClient(verify=self._context, follow_redirects=False, trust_env=False, timeout=None) as client,
            client.stream(
                "GET", f"https://{literal}:{port}{path}", headers=headers, extensions={"sni_hostname": host}
            ) as answer,
        ):
            where = f"https://{authority}{path}"
            if answer.status_code in _REDIRECTS:
                msg = f"`{where}` leads elsewhere ({answer.status_code}), which is not followed"
                raise Unavailable(msg, code="unavailable.discovery")
            if answer.status_code != _OK:
                raise Unavailable(f"`{where}` answered {answer.status_code}", code="unavailable.discovery")
            if answer.headers.get("content-encoding", "identity").lower() != "identity":
                raise InputError(f"`{where}` is compressed, which was not asked for", code="tool.discovery")
            content = bytearray()
            async for chunk in answer.aiter_raw():
                content += chunk
                if len(content) > MAX_DOCUMENT_BYTES:
                    msg = f"`{where}` is larger than {MAX_DOCUMENT_BYTES} bytes"
                    raise LimitExceeded(msg, code="limit.discovery_size")
            return bytes(content)

    async def _judged(self, host: str) -> Sequence[str]:
        """The addresses of a host, if all of them may be asked: who answers with one that may not is not trusted with the rest."""
        found = [host] if parse_address(host) is not None else list(await self._resolve(host))
        if not found or len(found) > MAX_ADDRESSES:
            msg = f"the name `{host}` has {'too many addresses' if found else 'no address'}"
            raise Unavailable(msg, code="unavailable.discovery", host=host)
        if host in self._private:
            return found
        own = _own_addresses()
        for address in found:
            why = why_not_public(address) or ("this machine" if address in own else "")
            if why:
                msg = f"`{host}` is at an address that is not asked for keys: {why}"
                hint = "if it is meant to be there, name it in `schemapin.private_hosts`"
                raise Denied(msg, code="discovery.address", hint=hint, host=host)
        return found


def certificates(ca_file: Path | None) -> ssl.SSLContext:
    """Who is believed to be a domain: by the system's authorities, or by those in a file alone.

    Raises:
        ConfigError: The file cannot be read, or holds no certificate.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ValueError) as error:  # an error of ssl is one of the system's
        msg = f"the certificates in `{ca_file}` cannot be used: {error}"
        raise ConfigError(msg, code="config.value") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


async def _addresses(host: str) -> Sequence[str]:
    """As this machine knows them; of the name itself, not of one in a search domain."""
    found = await anyio.getaddrinfo(host + ".", None, type=SOCK_STREAM)
    return tuple(dict.fromkeys(str(one[4][0]) for one in found))


def _own_addresses() -> frozenset[str]:
    found = (one.address.partition("%")[0] for several in psutil.net_if_addrs().values() for one in several)
    return frozenset(address for address in found if parse_address(address) is not None)


def _reason(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
