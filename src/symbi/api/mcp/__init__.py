"""The MCP gateway: verified tools of configured servers, and the runtime itself, for any MCP client, behind the gate."""
