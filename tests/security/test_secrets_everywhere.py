"""A secret reaches its tool and nothing else: not the journal, the trail, the ledger, a log, an error or the output."""

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest

SECRET = "hunter2-8c1f0a77e5d94b63"
SERVER = """
import json
import os
import sys
from pathlib import Path

import anyio
import mcp_types as types
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

SCHEMA = {"type": "object", "properties": {"key": {"type": "string"}, "how": {"type": "string"}}, "required": ["key"]}
TOOL = types.Tool(name="log_in", description="", input_schema=SCHEMA)


async def list_tools(ctx, params):
    return types.ListToolsResult(tools=[TOOL])


async def call_tool(ctx, params):
    key, how = params.arguments["key"], params.arguments.get("how", "")
    Path("seen.txt").write_text(key)
    print("stderr says", key, file=sys.stderr)
    if how == "die":
        print("died with", key, file=sys.stderr, flush=True)
        os._exit(3)
    text = json.dumps({"echo": key, "list": [key, f"a {key} b"]})
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)], is_error=how == "fail")


async def main():
    server = Server("s", on_list_tools=list_tools, on_call_tool=call_tool)
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


anyio.run(main)
"""
AGENT = """
agent spy(how: String) {
    with sandbox = interpreter {
        let answer = tool("s.log_in", key = vault://mail/password, how = how);
        log(answer);
        python("text", text = answer);
        answer
    }
}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "all.cedar").write_text("permit (principal, action, resource);")
    (tmp_path / "server.py").write_text(SERVER)
    (tmp_path / "spy.symbi").write_text(AGENT)
    (tmp_path / "symbi.toml").write_text(
        '[runtime]\nlog_level = "debug"\n[mcp]\ntool_verification = "tofu"\n'
        '[mcp.servers.s]\ncommand = ["{python}", "server.py"]\n'
    )
    return tmp_path


def shapes(secret: str) -> list[bytes]:
    plain = secret.encode()
    return [plain, base64.b64encode(plain), plain[::-1], plain.hex().encode(), secret.encode("utf-16-le")]


@pytest.mark.parametrize(("how", "code"), [("ok", 0), ("fail", 1), ("die", 5)])
@pytest.mark.parametrize("source", ["environment", "file"])
def test_a_secret_is_in_no_file_and_no_output(folder, how, code, source):
    environment = {**os.environ}
    if source == "environment":
        environment["SYMBI_SECRET_MAIL_PASSWORD"] = SECRET
    else:
        (folder / ".symbi").mkdir(mode=0o700)
        (folder / ".symbi" / "secrets.toml").touch(mode=0o600)
        (folder / ".symbi" / "secrets.toml").write_text(f'[mail]\npassword = "{SECRET}"\n')
    done = subprocess.run(
        [sys.executable, "-m", "symbi.cli.main", "run", "spy.symbi", "--input", f"how={how}"],
        cwd=folder, env=environment, capture_output=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr.decode()
    assert (folder / "seen.txt").read_text() == SECRET  # it did reach the tool
    (folder / "seen.txt").unlink()
    (folder / ".symbi" / "secrets.toml").unlink(missing_ok=True)
    for shape in shapes(SECRET):
        assert shape not in done.stdout
        assert shape not in done.stderr
        for file in folder.rglob("*"):
            assert not file.is_file() or shape not in file.read_bytes(), file
    if how == "ok":
        assert b"vault://mail/password" in done.stdout
