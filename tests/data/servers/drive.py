"""A tool server with files and a mailbox, in the plainest MCP, for tests of what flows where: `read`, `write` and `names`
work on the folder `drive`, `card` gives a record of its own address and a file's text, `echo` gives a text back, `fail` fails with it, `send` adds a line to `sent.jsonl`."""

import json
import sys
from pathlib import Path

TEXT = {"type": "string"}
ARGUMENTS = {
    "read": ["name"],
    "write": ["name", "text"],
    "names": [],
    "card": ["name"],
    "echo": ["text"],
    "fail": ["text"],
    "send": ["to", "body"],
}
DRIVE = Path("drive")


def listed(name):
    properties = dict.fromkeys(ARGUMENTS[name], TEXT)
    schema = {"type": "object", "properties": properties, "required": ARGUMENTS[name], "additionalProperties": False}
    return {"name": name, "description": f"To {name}.", "inputSchema": schema}


def call(name, given):
    match name:
        case "read":
            return DRIVE.joinpath(given["name"]).read_text()
        case "write":
            DRIVE.joinpath(given["name"]).write_text(given["text"])
        case "names":
            return "\n".join(sorted(path.name for path in DRIVE.iterdir()))
        case "card":
            return {"address": "desk@home.example", "note": DRIVE.joinpath(given["name"]).read_text()}
        case "echo":
            return given["text"]
        case "fail":
            raise ValueError(given["text"])
        case "send":
            with Path("sent.jsonl").open("a") as file:
                file.write(json.dumps(given) + "\n")
    return "done"


def answer(params):
    try:
        value = call(params["name"], params["arguments"])
    except (OSError, ValueError) as error:
        return {"content": [{"type": "text", "text": str(error)}], "isError": True}
    if isinstance(value, dict):
        return {"content": [{"type": "text", "text": json.dumps(value)}], "structuredContent": value}
    return {"content": [{"type": "text", "text": value}]}


DRIVE.mkdir(exist_ok=True)
for line in sys.stdin:
    message = json.loads(line)
    request, params = message.get("id"), message.get("params", {})
    if request is None:
        continue
    reply = {"jsonrpc": "2.0", "id": request}
    match message["method"]:
        case "initialize":
            info = {"name": "drive", "version": "1"}
            version = params["protocolVersion"]
            reply["result"] = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}
        case "tools/list":
            reply["result"] = {"tools": [listed(name) for name in ARGUMENTS]}
        case "tools/call":
            reply["result"] = answer(params)
        case _:
            reply["error"] = {"code": -32601, "message": "Method not found"}
    sys.stdout.write(json.dumps(reply) + "\n")
    sys.stdout.flush()
