"""A stock MCP client: the official SDK, and nothing of Symbi. It says what it sends and what it is answered.

python session.py                    starts `symbi mcp` itself and speaks to it over its standard streams
python session.py URL < token.txt    speaks to a gateway that runs, with a token
"""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage

COMMAND = StdioServerParameters(command="symbi", args=["mcp", "--client", "desk"])


@asynccontextmanager
async def overheard(transport: Any) -> AsyncIterator[Any]:
    """A transport whose messages are printed as they pass."""
    to_server, outgoing = anyio.create_memory_object_stream[SessionMessage](8)
    to_client, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](8)

    async def pass_on(mark: str, source: Any, target: Any) -> None:
        async with target:
            async for message in source:
                if isinstance(message, SessionMessage):
                    said = message.message.model_dump(by_alias=True, exclude_none=True)
                    print(mark, json.dumps({key: said[key] for key in said if key != "jsonrpc"}, ensure_ascii=False))
                await target.send(message)

    async with transport as (read, write), anyio.create_task_group() as tasks:
        tasks.start_soon(pass_on, "-->", outgoing, write)
        tasks.start_soon(pass_on, "<--", read, to_client)
        yield incoming, to_server
        tasks.cancel_scope.cancel()


async def session(client: Client) -> None:
    await client.list_tools()
    await client.call_tool("notes__add", {"text": "Ask Grace about the compiler."})
    await client.call_tool("notes__send", {"to": "grace@example.com", "text": "How is the compiler?"})
    denied = await client.call_tool("notes__send", {"to": "stranger@example.net", "text": "How is the compiler?"})
    effect = (denied.meta or {})["symbi/error"]["effect_id"]
    await client.call_tool("symbi__explain_decision", {"decision": effect})


async def main() -> None:
    if len(sys.argv) == 1:
        async with Client(overheard(stdio_client(COMMAND)), mode="legacy") as client:
            await session(client)
        return
    headers = {"authorization": f"Bearer {sys.stdin.read().strip()}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as http,
        Client(overheard(streamable_http_client(sys.argv[1], http_client=http)), mode="legacy") as client,
    ):
        await session(client)


if __name__ == "__main__":
    anyio.run(main)
