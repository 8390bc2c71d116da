"""The gateway: what MCP clients come in by."""
