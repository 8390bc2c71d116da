"""An MCP server of a few lines and nothing but the standard library, which is up at once: for measurements.

    python -I -S echo_server.py [NAME [SIGNATURE]]

It speaks 2025-11-25 over its standard streams and has one tool, which answers what it is given. It is run as a file of its own.
"""

import json
import sys

MEANING = "Answers what it is given."
SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}


def answer(method: str, params: "dict[str, object]", tool: "dict[str, object]") -> "dict[str, object] | None":
    """The result of a request; None where there is no such method."""
    if method == "initialize":
        own = {"name": "echo", "version": "1"}
        return {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": own}
    if method == "tools/list":
        return {"tools": [tool]}
    if method == "tools/call":
        given = params.get("arguments")
        text = given.get("text", "") if isinstance(given, dict) else ""
        return {"content": [{"type": "text", "text": text}]}
    return {} if method == "ping" else None


def main() -> None:
    """Answer line by line."""
    name, signature = [*sys.argv[1:], "echo", ""][:2] if len(sys.argv) == 1 else [*sys.argv[1:], ""][:2]
    tool: dict[str, object] = {"name": name, "description": MEANING, "inputSchema": SCHEMA}
    if signature:
        tool["_meta"] = {"schemapin": {"signature": signature}}
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message:
            continue
        result = answer(message["method"], message.get("params") or {}, tool)
        said = {"result": result} if result is not None else {"error": {"code": -32601, "message": "Method not found"}}
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": message["id"], **said}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
