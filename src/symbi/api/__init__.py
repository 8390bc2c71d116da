"""Doors for others: the control socket of a running owner, and the gateway for MCP clients."""
