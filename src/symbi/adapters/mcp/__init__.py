"""Tool servers that speak the Model Context Protocol, on its official SDK."""

from symbi.adapters.mcp.http import HttpToolServer
from symbi.adapters.mcp.requests import EFFECT_ID_KEY
from symbi.adapters.mcp.server import StdioToolServer

__all__ = ["EFFECT_ID_KEY", "HttpToolServer", "StdioToolServer"]
