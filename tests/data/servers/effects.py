"""A tool server with effects that a test can count, in the plainest MCP: `write` makes a file in `reports`, `send` adds a
line to `outbox.jsonl`, each effect id once; `stat` reads. It starts quickly, for it needs nothing but Python."""

import json
import sys
from pathlib import Path

TEXT = {"type": "string"}
ARGUMENTS = {"write": ["name", "text"], "send": ["to", "text"], "stat": ["path"]}
OUTBOX = Path("outbox.jsonl")


def listed(name):
    properties = dict.fromkeys(ARGUMENTS[name], TEXT)
    schema = {"type": "object", "properties": properties, "required": ARGUMENTS[name], "additionalProperties": False}
    return {"name": name, "description": f"To {name}.", "inputSchema": schema}


def call(name, given, key):
    if name == "stat":
        try:
            return {"content": [{"type": "text", "text": str(Path(given["path"]).stat().st_size)}]}
        except OSError as error:
            text = f"cannot read `{given['path']}`: {error.strerror}"
            return {"content": [{"type": "text", "text": text}], "isError": True}
    if name == "write":
        Path("reports").mkdir(exist_ok=True)
        Path("reports", given["name"]).write_text(given["text"])
    else:
        lines = OUTBOX.read_text().splitlines() if OUTBOX.exists() else []
        if key not in [json.loads(line)["key"] for line in lines]:
            with OUTBOX.open("a") as file:
                file.write(json.dumps({"key": key, **given}) + "\n")
    return {"content": [{"type": "text", "text": "done"}]}


for line in sys.stdin:
    message = json.loads(line)
    request, params = message.get("id"), message.get("params", {})
    match message.get("method"):
        case "initialize":
            result = {
                "protocolVersion": params["protocolVersion"],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "effects", "version": "1"},
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
