"""A tool server with people's data, in the plainest MCP: `find` answers with one customer, `all` with several, `fail`
with an error that quotes one; `send` adds a line to the file `outbox.jsonl`, each effect id once."""

import json
import sys
from pathlib import Path

TEXT = {"type": "string"}
ARGUMENTS = {"find": ["id"], "all": [], "fail": ["id"], "send": ["to", "text"]}
OUTBOX = Path("outbox.jsonl")
CUSTOMERS = json.loads(Path("customers.json").read_text())


def listed(name):
    schema = {
        "type": "object", "properties": dict.fromkeys(ARGUMENTS[name], TEXT), "required": ARGUMENTS[name],
        "additionalProperties": False,
    }  # fmt: skip
    return {"name": name, "description": f"To {name}.", "inputSchema": schema}


def call(name, given, key):
    match name:
        case "find":
            value = {"customer": CUSTOMERS[given["id"]]}
        case "all":
            value = {"customers": list(CUSTOMERS.values())}
        case "fail":
            return {
                "content": [{"type": "text", "text": f"no: {json.dumps(CUSTOMERS[given['id']])}"}],
                "isError": True,
            }
        case _:
            lines = OUTBOX.read_text().splitlines() if OUTBOX.exists() else []
            if key not in [json.loads(line)["key"] for line in lines]:
                with OUTBOX.open("a") as file:
                    file.write(json.dumps({"key": key, **given}) + "\n")
            value = {"sent": True}
    return {"content": [{"type": "text", "text": json.dumps(value)}], "structuredContent": value}


for line in sys.stdin:
    message = json.loads(line)
    request, params = message.get("id"), message.get("params", {})
    match message.get("method"):
        case "initialize":
            result = {
                "protocolVersion": params["protocolVersion"],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "crm", "version": "1"},
            }
        case "tools/list":
            result = {"tools": [listed(name) for name in ARGUMENTS]}
        case "tools/call":
            result = call(params["name"], params["arguments"], params["_meta"]["symbi/effect-id"])
        case _:
            if request is not None:
                error = {"code": -32601, "message": "Method not found"}
                print(json.dumps({"jsonrpc": "2.0", "id": request, "error": error}), flush=True)
            continue
    print(json.dumps({"jsonrpc": "2.0", "id": request, "result": result}), flush=True)
