"""A tool server that counts its starts and calls in files, and ends in place of an answer where there is a file `die`."""

import json
import os
import sys
from pathlib import Path

TEXT = {"type": "string"}
SCHEMA = {"type": "object", "properties": {"text": TEXT}, "required": ["text"], "additionalProperties": False}


def count(name):
    with Path(name).open("a") as file:
        file.write("x")


count("starts")
Path("pid").write_text(str(os.getpid()))
for line in sys.stdin:
    message = json.loads(line)
    request, params = message.get("id"), message.get("params", {})
    match message.get("method"):
        case "initialize":
            result = {
                "protocolVersion": params["protocolVersion"],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "dying", "version": "1"},
            }
        case "tools/list":
            result = {"tools": [{"name": "echo", "description": "Echoes.", "inputSchema": SCHEMA}]}
        case "tools/call":
            count("calls")
            if Path("die").exists():
                os._exit(3)
            result = {"content": [{"type": "text", "text": params["arguments"]["text"]}]}
        case _:
            if request is not None:
                error = {"code": -32601, "message": "Method not found"}
                print(json.dumps({"jsonrpc": "2.0", "id": request, "error": error}), flush=True)
            continue
    print(json.dumps({"jsonrpc": "2.0", "id": request, "result": result}), flush=True)
