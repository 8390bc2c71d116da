"""A gateway under test behind its door, on a free port of this machine."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import httpx2
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client

from symbi.api.mcp.http import HttpGateway
from symbi.api.mcp.http_door import HttpDoor, Receive, Scope, Send
from symbi.api.mcp.over_http import http_gateway
from symbi.api.mcp.tokens import ClientBook
from symbi.testing.mcp_gateway import GatewayUnderTest


@dataclass(frozen=True, slots=True)
class HttpUnderTest:
    """What is served.

    Attributes:
        url: Where.
        tokens: Of each client.
        served: Itself.
    """

    url: str
    tokens: dict[str, str]
    served: HttpGateway

    @asynccontextmanager
    async def client(self, name: str = "local", **options: Any) -> AsyncIterator[Client]:
        """The SDK's client, connected as one of those who have tokens."""
        headers = {"authorization": f"Bearer {self.tokens[name]}"}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=60) as http,
            Client(streamable_http_client(self.url, http_client=http), cache=None, **options) as client,
        ):
            yield client


@asynccontextmanager
async def over_http(
    under_test: GatewayUnderTest, clients: Sequence[str] = ("local",), *, tokenless: bool = False
) -> AsyncIterator[HttpUnderTest]:
    """Serve a gateway by HTTP. Its configuration has to say `port = 0` in `[gateway]`.

    Args:
        under_test: The gateway.
        clients: Who gets a token.
        tokenless: Requests get the token of the first one on their way, for programs that cannot send any.
    """
    book = ClientBook(under_test.settings.runtime.data_dir)
    tokens = {name: book.add(name, 0) for name in clients}
    served = http_gateway(under_test.gateway, under_test.settings)
    if tokenless:
        served.app = _with_token(served.door, tokens[clients[0]])
    ready, urls = anyio.Event(), list[str]()

    def started(url: str) -> None:
        urls.append(url)
        ready.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(served.serve, started)
        await ready.wait()
        yield HttpUnderTest(urls[0], tokens, served)
        served.stop()


def _with_token(door: HttpDoor, token: str) -> Any:
    """In front of a door: gives whoever comes a token."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [*scope["headers"], (b"authorization", f"Bearer {token}".encode())]
        await door({**scope, "headers": headers}, receive, send)

    return app
