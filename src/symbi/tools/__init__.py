"""Tools of MCP servers: found, verified, pinned, called."""
