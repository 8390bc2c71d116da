"""The proxy of a sandbox under test: what the sandbox says goes in by memory, and what the proxy does is kept."""

import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, cast

import anyio
import anyio.lowlevel
from anyio.abc import ByteReceiveStream, ByteSendStream, ByteStream
from anyio.streams.stapled import StapledByteStream

from symbi.adapters.egress import About, EgressProxy, EgressSession, dial
from symbi.audit.event import Draft
from symbi.errors import StoreUnavailable
from symbi.guard.permit import Authority
from symbi.sandbox.egress import EgressLimits, parse_grant
from symbi.testing.clock import ManualClock
from symbi.testing.outside import LOOPBACK, OutsideAuthority, OutsideServer, outside_server
from symbi.tools.port import SecretSource
from symbi.types import AgentId, EffectId, JsonValue, RunId

ABOUT: Final = About(AgentId("agent"), RunId("run"), EffectId("effect"))
PATIENCE_S: Final = 20.0


class _Pipe(ByteReceiveStream, ByteSendStream):
    """One direction; what is written is there to be read."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._over = False
        self._moved = anyio.Event()

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        while not self._data:
            if self._over:
                raise anyio.EndOfStream
            await self._moved.wait()
        taken = bytes(self._data[:max_bytes])
        del self._data[: len(taken)]
        return taken

    async def send(self, item: bytes) -> None:
        await anyio.lowlevel.checkpoint()
        if self._over:
            raise anyio.BrokenResourceError
        self._data += item
        self._move()

    async def aclose(self) -> None:
        self._over = True
        self._move()

    def _move(self) -> None:
        self._moved.set()
        self._moved = anyio.Event()


class _Line(StapledByteStream):
    async def send_eof(self) -> None:
        await self.send_stream.aclose()


def both_ends() -> tuple[ByteStream, ByteStream]:
    """A line in memory."""
    there, back = _Pipe(), _Pipe()
    return _Line(there, back), _Line(back, there)


class ProxyUnderTest:
    """A session with everything that it did.

    Attributes:
        events: Kind, without its first word, and details of each event.
        dialed: Address, port and name of TLS of each connection.
        resolved: Names that were asked for.
        slept: Waits for the turn of bytes.
        names: Addresses by name.
        ports: Where a server of the test is, by the port that is granted.
        fails: The kind of event that cannot be written.
        clock: Moves with each wait.
        session: The session, once it is open.
    """

    def __init__(self) -> None:
        self.events: list[tuple[str, Mapping[str, JsonValue]]] = []
        self.dialed: list[tuple[str, int, str | None]] = []
        self.resolved: list[str] = []
        self.slept: list[float] = []
        self.names: dict[str, list[str]] = {}
        self.ports: dict[int, int] = {}
        self.fails: str | None = None
        self.clock = ManualClock()
        self.session: EgressSession = cast("EgressSession", None)

    async def tell(self, draft: Draft) -> None:
        """Keep an event, or fail to."""
        if draft.event_type == self.fails:
            msg = "the disk is full"
            raise StoreUnavailable(msg)
        assert (draft.agent_id, draft.run_id, draft.details["effect_id"]) == ("agent", "run", "effect")
        self.events.append((draft.event_type.removeprefix("egress."), draft.details))

    async def resolve(self, host: str) -> Sequence[str]:
        """The addresses of a name."""
        self.resolved.append(host)
        if host not in self.names:
            msg = "no such name"
            raise OSError(msg)
        return self.names[host]

    async def dial(self, address: str, port: int, name: str | None, context: ssl.SSLContext) -> ByteStream:
        """Connect with a server of the test."""
        self.dialed.append((address, port, name))
        return await dial(address, self.ports.get(port, port), name, context)

    async def sleep(self, seconds: float) -> None:
        """Let the clock go on."""
        self.slept.append(seconds)
        self.clock.advance(seconds)
        await anyio.lowlevel.checkpoint()

    async def open(
        self,
        network: Sequence[str],
        credentials: Mapping[str, str] | None = None,
        secrets: Mapping[str, str | None] | None = None,
        limits: EgressLimits | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        """Open the session of a grant."""
        made = EgressProxy(
            Authority(self.clock), cast("SecretSource", None), self.tell, self.clock,
            limits=limits, resolver=self.resolve, dialer=self.dial, context=context, sleep=self.sleep,
            permitted=frozenset({LOOPBACK}),
        )  # fmt: skip
        self.session = await made.session(parse_grant(network, credentials or {}), secrets or {}, ABOUT)

    async def say(self, data: bytes, *, end: bool = False) -> bytes:
        """Everything that comes back for what one connection says."""
        ours, its = both_ends()
        heard = b""
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.session.serve, its)
                if data:
                    await ours.send(data)
                if end:
                    await ours.send_eof()
                try:
                    while True:
                        heard += await ours.receive()
                except anyio.EndOfStream:
                    await ours.aclose()
        return heard

    def kinds(self) -> list[str]:
        """The events, by kind."""
        return [kind for kind, _ in self.events]


@asynccontextmanager
async def outside(
    network: Sequence[str],
    credentials: Mapping[str, str] | None = None,
    secrets: Mapping[str, str | None] | None = None,
    limits: EgressLimits | None = None,
    tls: str | None = None,
) -> AsyncIterator[tuple[ProxyUnderTest, OutsideServer]]:
    """A proxy that knows `api.example`, and a server there, at whatever port is granted.

    Args:
        network: What is granted.
        credentials: Paths of secrets by where they go.
        secrets: Their values.
        limits: Of the session.
        tls: The name in the server's certificate, if it speaks TLS.
    """
    authority = OutsideAuthority()
    proxy = ProxyUnderTest()
    proxy.names = {"api.example": [LOOPBACK]}
    async with outside_server(authority.server(tls) if tls else None) as server:
        proxy.ports = dict.fromkeys((22, 80, 443), server.port)
        await proxy.open(network, credentials, secrets, limits, authority.client())
        yield proxy, server


def get(target: str = "http://api.example/x", host: str = "api.example", more: str = "") -> bytes:
    """A request."""
    return f"GET {target} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n".encode()


def refused(rule: str, status: str = "403 Forbidden") -> bytes:
    """What a sandbox is told of a refusal: all of it."""
    body = f"{rule}\n"
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}"
    ).encode()
