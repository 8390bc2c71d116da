"""Domains on loopback: https under an authority of their own, and DNS. For tests of how keys of tools are found out."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import anyio
import dns.message
import dns.rcode
import dns.rrset
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSListener, TLSStream
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from symbi.clock import SystemClock

LOOPBACK: Final = "127.0.0.1"
_HEAD_BYTES: Final = 16_384

Reply = Callable[[ByteStream], Awaitable[None]]
"""Answers one request in its own way; the connection ends when it returns."""


def reply(body: bytes, *, status: str = "200 OK", headers: str = "") -> Reply:
    """A whole answer."""

    async def answer(stream: ByteStream) -> None:
        head = f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n{headers}\r\n"
        await stream.send(head.encode() + body)

    return answer


class WebAuthority:
    """Makes certificates for host names.

    Args:
        folder: Where they are put.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
        certificate = self._sign(self._name, self._key, x509.BasicConstraints(ca=True, path_length=0))
        self.ca_file = folder / "ca.pem"
        self.ca_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def server_context(self, *hosts: str) -> ssl.SSLContext:
        """What a server of these hosts shows."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts])
        certificate = self._sign(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])]), key, names)
        path = self._folder / f"{hosts[0]}.pem"
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType
    ) -> x509.Certificate:
        now = datetime.fromtimestamp(SystemClock().now_ns() / 1e9, UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .add_extension(extension, critical=False)
            .sign(self._key, hashes.SHA256())
        )


class Domains:
    """What is served.

    Attributes:
        pages: How each path is answered; others are not found.
        asked: Host header and path of every request, in their order.
        port: Where.
    """

    def __init__(self) -> None:
        self.pages: dict[str, Reply] = {}
        self.asked: list[tuple[str, str]] = []
        self.port = 0

    async def handle(self, stream: TLSStream) -> None:
        """One request."""
        async with stream:
            head = b""
            while b"\r\n\r\n" not in head and len(head) < _HEAD_BYTES:
                head += await stream.receive()
            lines = head.decode("latin-1").split("\r\n")
            path = lines[0].split(" ")[1]
            host = next(line.split(": ", 1)[1] for line in lines if line.lower().startswith("host: "))
            self.asked.append((host, path))
            with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):  # they may have gone away
                await self.pages.get(path, reply(b"", status="404 Not Found"))(stream)


@asynccontextmanager
async def serving(context: ssl.SSLContext) -> AsyncIterator[Domains]:
    """An https server on a port of its own, while it lasts."""
    domains = Domains()
    plain = await anyio.create_tcp_listener(local_host=LOOPBACK)
    domains.port = plain.listeners[0].extra(SocketAttribute.local_port)  # noqa: S610 - no database
    listener = TLSListener(plain, context, standard_compatible=False)
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, domains.handle)
        yield domains
        group.cancel_scope.cancel()


@asynccontextmanager
async def naming(records: Mapping[str, Sequence[Sequence[str]]], *, rcode: str = "") -> AsyncIterator[int]:
    """A DNS server on a port of its own that knows these TXT records, each as its chunks; gives the port.

    Args:
        records: By name, without the last dot.
        rcode: What every question is answered with instead, e.g. `SERVFAIL`.
    """
    async with await anyio.create_udp_socket(local_host=LOOPBACK) as socket, anyio.create_task_group() as group:

        async def answer() -> None:
            async for packet, (host, port) in socket:
                asked = dns.message.from_wire(packet)
                response = dns.message.make_response(asked)
                name = asked.question[0].name.to_text().removesuffix(".")
                if rcode:
                    response.set_rcode(dns.rcode.from_text(rcode))
                elif name not in records:
                    response.set_rcode(dns.rcode.NXDOMAIN)
                else:
                    texts = [" ".join(f'"{chunk}"' for chunk in chunks) for chunks in records[name]]
                    response.answer.append(dns.rrset.from_text(name + ".", 60, "IN", "TXT", *texts))
                await socket.sendto(response.to_wire(), host, port)

        group.start_soon(answer)
        yield int(socket.extra(SocketAttribute.local_port))  # noqa: S610 - likewise
        group.cancel_scope.cancel()
