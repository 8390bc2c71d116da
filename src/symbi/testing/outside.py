"""What stands for the public network in tests of the proxy: web servers on loopback, and an authority for their names."""

import ssl
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import anyio
import h11
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSStream
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from symbi.clock import SystemClock

LOOPBACK: Final = "127.0.0.1"
_BODY: Final = b"hello from outside"
_PLAIN: Final = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as a server got it."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def all(self, name: str) -> list[str]:
        """The values of a header."""
        return [value for one, value in self.headers if one == name]


def say(body: bytes = _BODY) -> bytes:
    """An answer, as bytes."""
    return _PLAIN % (len(body), body)


@dataclass(slots=True)
class OutsideServer:
    """A web server.

    Attributes:
        port: Where it listens on loopback.
        asked: The requests that it got.
        connections: How many there were.
        answer: Makes an answer of a request, as bytes.
    """

    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    answer: Callable[[Asked], bytes] = lambda _: say()

    async def talk(self, stream: ByteStream) -> None:
        """Read one request, answer it, hang up."""
        self.connections += 1
        async with stream:
            try:
                asked = await _read(stream)
                if asked is not None:
                    self.asked.append(asked)
                    await stream.send(self.answer(asked))
            except (anyio.BrokenResourceError, anyio.EndOfStream, h11.ProtocolError):
                return


async def _read(stream: ByteStream) -> Asked | None:
    ours = h11.Connection(h11.SERVER)
    request: h11.Request | None = None
    body = b""
    while True:
        event = ours.next_event()
        if event is h11.NEED_DATA:
            try:
                ours.receive_data(await stream.receive())
            except anyio.EndOfStream:
                ours.receive_data(b"")
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage) and request is not None:
            headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers)
            return Asked(request.method.decode(), request.target.decode(), headers, body)
        else:
            return None


@asynccontextmanager
async def outside_server(context: ssl.SSLContext | None = None) -> AsyncIterator[OutsideServer]:
    """A server that runs.

    Args:
        context: For one that speaks TLS.
    """
    server = OutsideServer()

    async def attend(stream: ByteStream) -> None:
        if context is not None:
            try:
                stream = await TLSStream.wrap(stream, server_side=True, ssl_context=context, standard_compatible=False)
            except (ssl.SSLError, anyio.BrokenResourceError, anyio.EndOfStream):
                await anyio.aclose_forcefully(stream)
                return
        await server.talk(stream)

    async with await anyio.create_tcp_listener(local_host=LOOPBACK) as listener, anyio.create_task_group() as tasks:
        server.port = int(listener.extra(SocketAttribute.local_port))  # noqa: S610 - not of Django
        tasks.start_soon(listener.serve, attend)
        yield server
        tasks.cancel_scope.cancel("the test is over")


class OutsideAuthority:
    """A certificate authority, and the contexts of both sides."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "outside")])
        self._own = self._sign(self._key, self._name, {})

    def client(self) -> ssl.SSLContext:
        """Trusts this authority alone."""
        context = ssl.create_default_context(cadata=self._own.public_bytes(serialization.Encoding.PEM).decode())
        context.set_alpn_protocols(["http/1.1"])
        return context

    def server(self, host: str) -> ssl.SSLContext:
        """Shows a certificate for a name."""
        key = ec.generate_private_key(ec.SECP256R1())
        shown = self._sign(key, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)]), {"host": host})
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "both.pem")
            file.write_bytes(
                key.private_bytes(
                    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
                )
                + shown.public_bytes(serialization.Encoding.PEM)
            )
            context.load_cert_chain(file)
        return context

    def _sign(self, key: ec.EllipticCurvePrivateKey, subject: x509.Name, names: Mapping[str, str]) -> x509.Certificate:
        now = datetime.fromtimestamp(SystemClock().now_ns() / 1e9, UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=24))
            .add_extension(x509.BasicConstraints(ca=not names, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if names:
            made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(names["host"])]), critical=False)
        return made.sign(self._key, hashes.SHA256())
