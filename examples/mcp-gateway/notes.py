"""A tool server such as many are: three tools, nothing of Symbi in it."""

from mcp.server.mcpserver import MCPServer
from pydantic import BaseModel

server = MCPServer("notes", version="1.0")
kept: list[str] = []


class Count(BaseModel):
    """How many notes there are."""

    notes: int


@server.tool()
def add(text: str) -> Count:
    """Keep a note."""
    kept.append(text)
    return Count(notes=len(kept))


@server.tool(name="list")
def list_notes() -> list[str]:
    """All notes."""
    return kept


@server.tool()
def send(to: str, text: str) -> str:
    """Send a note to somebody."""
    return f"sent {len(text)} characters to {to}"


if __name__ == "__main__":
    server.run()
