"""An MCP server of a few lines and nothing but the standard library, which is up at once: for measurements.

    python -I -S echo_server.py [SIGNATURE [TOOLS]]

It speaks 2025-11-25 over its standard streams and has tools that answer what they are given. It is run as a file of its own.
"""

import json
import sys

NAME = "echo"
MEANING = "Answers what it is given."
SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}


def tools(signature: str, count: int) -> "list[dict[str, object]]":
    """The tools: `echo`, which is signed if there is a signature, and further ones that are not."""
    names = [NAME, *(f"{NAME}_{number}" for number in range(1, count))]
    listed: list[dict[str, object]] = [{"name": name, "description": MEANING, "inputSchema": SCHEMA} for name in names]
    if signature:
        listed[0]["_meta"] = {"schemapin": {"signature": signature}}
    return listed


def answer(method: str, params: "dict[str, object]", listed: "list[dict[str, object]]") -> "dict[str, object] | None":
    """The result of a request; None where there is no such method."""
    if method == "initialize":
        own = {"name": "echo", "version": "1"}
        return {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": own}
    if method == "tools/list":
        return {"tools": listed}
    if method == "tools/call":
        given = params.get("arguments")
        text = given.get("text", "") if isinstance(given, dict) else ""
        return {"content": [{"type": "text", "text": text}]}
    return {} if method == "ping" else None


def main() -> None:
    """Answer line by line."""
    signature = sys.argv[1] if len(sys.argv) > 1 else ""
    listed = tools(signature, int(sys.argv[2]) if len(sys.argv) > 2 else 1)  # noqa: PLR2004 - the second argument
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message:
            continue
        result = answer(message["method"], message.get("params") or {}, listed)
        said = {"result": result} if result is not None else {"error": {"code": -32601, "message": "Method not found"}}
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": message["id"], **said}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
