"""The server of the contract suite (`symbi.testing.tool_servers`), in the plainest MCP: one line in, one line out."""

import json
import sys
import threading

SCHEMA = {
    "type": "object",
    "properties": {"text": {"type": "string"}, "extra": {}},
    "required": ["text"],
    "additionalProperties": False,
}
NAMES = ["echo", "effect_id", "fail", "large", "slow", "structured"]
LOCK = threading.Lock()


def send(request, **answer):
    with LOCK:
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": request, **answer}) + "\n")
        sys.stdout.flush()


def text(value):
    return {"content": [{"type": "text", "text": value}]}


def call(request, params):
    given = params["arguments"]["text"]
    match params["name"]:
        case "echo":
            result = text(given)
        case "effect_id":
            result = text(params["_meta"]["symbi/effect-id"])
        case "fail":
            result = text(f"no: {given}") | {"isError": True}
        case "large":
            result = text("x" * 2_097_152)
        case "slow":
            threading.Event().wait(3600)
            return
        case "structured":
            result = text("") | {"structuredContent": {"text": given, "list": [given, None, 1]}}
    send(request, result=result)


for line in sys.stdin:
    message = json.loads(line)
    request, params = message.get("id"), message.get("params", {})
    match message.get("method"):
        case "initialize":
            info = {"name": "suite", "version": "1"}
            capabilities = {"tools": {}}
            version = params["protocolVersion"]
            send(request, result={"protocolVersion": version, "capabilities": capabilities, "serverInfo": info})
        case "tools/list":
            at = int(params.get("cursor", "0"))
            tools = [{"name": NAMES[at], "description": "Part of the suite.", "inputSchema": SCHEMA}]
            more = {"nextCursor": str(at + 1)} if at + 1 < len(NAMES) else {}
            send(request, result={"tools": tools, **more})
        case "tools/call":
            threading.Thread(target=call, args=(request, params), daemon=True).start()
        case _ if request is not None:
            send(request, error={"code": -32601, "message": "Method not found"})
