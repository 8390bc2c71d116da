"""Servers that say whom they serve, behind the door of the gateway: what attacks on the door are made against."""

import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import anyio
import httpx2
import mcp_types as types
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from mcp.server.lowlevel import Server
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler

from symbi.api.mcp.http import HttpGateway
from symbi.api.mcp.terms import DoorTerms
from symbi.api.mcp.tokens import ClientBook
from symbi.errors import InternalError, StoreUnavailable

LEGACY: Final = "2025-11-25"
MODERN: Final = "2026-07-28"
TERMS: Final = DoorTerms(port=0, grace_s=2.0)
ACCEPT: Final[Mapping[str, str]] = {
    "accept": "application/json, text/event-stream",
    "content-type": "application/json",
}
INITIALIZE: Final[Mapping[str, Any]] = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}},
}
CALL: Final[Mapping[str, Any]] = {
    "jsonrpc": "2.0",
    "id": 2,
    "method": "tools/call",
    "params": {"name": "who", "arguments": {}},
}


class House:
    """What is behind the door, and what came through.

    Args:
        folder: Where tokens are kept.
        terms: Of the door.

    Attributes:
        opened: Servers that are open, by client.
        calls: Calls that reached one.
        failing: Clients whose servers cannot be ended in order.
        release: Lets calls of the tool `wait` end.
        url: Where it answers.
    """

    def __init__(self, folder: Path, terms: DoorTerms) -> None:
        self.book = ClientBook(folder)
        self.gateway = HttpGateway(terms, self.book, self.server_of)
        self.opened: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.failing: set[str] = set()
        self.release = anyio.Event()
        self.url = ""

    @asynccontextmanager
    async def server_of(self, name: str) -> AsyncIterator[Server[Any]]:
        """A server with a tool that answers with the client's name, and one that waits first."""

        async def list_tools(_context: object, _params: object) -> types.ListToolsResult:
            return types.ListToolsResult(tools=[types.Tool(name="who", input_schema={"type": "object"})])

        async def call_tool(_context: object, params: types.CallToolRequestParams) -> types.CallToolResult:
            self.calls[name] += 1
            if params.name == "wait":
                await self.release.wait()
            return types.CallToolResult(content=[types.TextContent(type="text", text=name)])

        self.opened[name] += 1
        try:
            listen = ListenHandler(InMemorySubscriptionBus())
            yield Server(f"of-{name}", on_list_tools=list_tools, on_call_tool=call_tool, on_subscriptions_listen=listen)
        finally:
            self.opened[name] -= 1
            if name in self.failing:
                raise StoreUnavailable("its end cannot be recorded")

    def add(self, name: str) -> dict[str, str]:
        """Let somebody in: the header of its requests."""
        return {"authorization": f"Bearer {self.book.add(name, 0)}"}

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        url = httpx2.URL(self.url)
        return url.host, url.port or 0


@asynccontextmanager
async def opened(folder: Path, terms: DoorTerms = TERMS) -> AsyncIterator[House]:
    """A house whose door is open."""
    house = House(folder, terms)
    ready = anyio.Event()

    def started(url: str) -> None:
        house.url = url
        ready.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(house.gateway.serve, started)
        await ready.wait()
        yield house
        house.release.set()
        house.gateway.stop()


@asynccontextmanager
async def spoken_to(_house: House, headers: Mapping[str, str] | None = None) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of HTTP that says what MCP clients say; more patient than any test, so that its own end is no answer."""
    async with httpx2.AsyncClient(headers={**ACCEPT, **(headers or {})}, timeout=60) as client:
        yield client


async def started_session(client: httpx2.AsyncClient, url: str) -> dict[str, str]:
    """Begin a session of the older revision: the headers of its requests.

    Raises:
        InternalError: It is refused.
    """
    answer = await client.post(url, json=INITIALIZE)
    if answer.status_code != httpx2.codes.OK:
        raise InternalError(f"no session begins: {answer.text}")
    return {"mcp-session-id": answer.headers["mcp-session-id"], "mcp-protocol-version": LEGACY}


def spoken(answer: httpx2.Response) -> Any:
    """The JSON-RPC message of an answer, which may be an event."""
    text = answer.text
    if answer.headers["content-type"].startswith("text/event-stream"):
        text = [line for line in text.splitlines() if line.startswith("data:") and line[5:].strip()][-1][5:]
    return json.loads(text)


def certified(folder: Path) -> None:
    """Make a certificate of `localhost` in a folder, `c.pem`, and its key, `k.pem`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2100, 1, 1, tzinfo=UTC))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    (folder / "c.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "k.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    )
