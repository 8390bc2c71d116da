"""`symbi mcp clients`, `symbi mcp install` and `symbi mcp --http`, as somebody at a shell uses them."""

import json
import shlex
import signal
import subprocess
import sys
import tomllib

import anyio
import httpx2
import pytest
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from typer.testing import CliRunner

from symbi.cli.main import app
from symbi.cli.mcp_install import CLIENTS, TOKEN_VARIABLE
from symbi.config import parse_settings
from symbi.config.safety import refuse_unsafe
from symbi.errors import ConfigError

CONFIG = """\
[mcp.clients.ann]
owner = "ann"

[gateway]
hosts = ["gateway.example"]
"""
ALLOW = '@id("all") permit (principal, action, resource);'


@pytest.fixture
def symbi(tmp_path, monkeypatch):
    (tmp_path / "symbi.toml").write_text(CONFIG)
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "all.cedar").write_text(ALLOW)
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        return CliRunner().invoke(app, list(arguments))

    return run


def test_a_client_is_let_in_shown_and_let_out(symbi, tmp_path):
    assert "nobody may come in" in symbi("mcp", "clients", "list").stdout
    added = json.loads(symbi("mcp", "clients", "add", "ann", "--json").stdout)
    assert added["client"] == "ann"
    kept = (tmp_path / ".symbi" / "mcp-clients.json").read_text()
    assert added["token"] not in kept
    assert [row["client"] for row in json.loads(symbi("mcp", "clients", "list", "--json").stdout)] == ["ann"]
    again = symbi("mcp", "clients", "add", "ann")
    assert again.exit_code == 2
    assert "revoke" in again.stderr
    assert symbi("mcp", "clients", "revoke", "ann").exit_code == 0
    assert json.loads(symbi("mcp", "clients", "list", "--json").stdout) == []
    assert symbi("mcp", "clients", "revoke", "ann").exit_code == 2


def test_the_trail_says_who_was_let_in_and_out_and_no_token(symbi):
    token = json.loads(symbi("mcp", "clients", "add", "ann", "--json").stdout)["token"]
    assert symbi("mcp", "clients", "revoke", "ann").exit_code == 0
    shown = symbi("audit", "show", "--json").stdout
    assert token not in shown
    events = [json.loads(line) for line in shown.splitlines()]
    decided = [one for one in map(json.dumps, events) if "decision.allow" in one]
    for operation in ("clients.add", "clients.revoke"):
        (found,) = [one for one in decided if operation in one]
        assert "ann" in found


def test_who_may_let_clients_in_is_for_policies_to_say(symbi, tmp_path):
    no = '@id("no") forbid (principal, action, resource == Resource::"clients.add");'
    (tmp_path / "policies" / "no.cedar").write_text(no)
    refused = symbi("mcp", "clients", "add", "ann")
    assert refused.exit_code != 0
    assert "symbi_" not in refused.output
    assert not (tmp_path / ".symbi" / "mcp-clients.json").exists()


def test_the_token_stands_alone_on_standard_output(symbi):
    added = symbi("mcp", "clients", "add", "ann")
    assert added.stdout.startswith("symbi_")
    assert len(added.stdout.split()) == 1


def test_nobody_is_let_in_of_whom_the_configuration_knows_nothing(symbi, tmp_path):
    refused = symbi("mcp", "clients", "add", "bob")
    assert refused.exit_code == 2
    assert "[mcp.clients.bob]" in refused.stderr
    assert not (tmp_path / ".symbi" / "mcp-clients.json").exists()


def entry(client, text):
    """What stands for the gateway in what was printed."""
    match client:
        case "codex":
            return tomllib.loads(text)["mcp_servers"]["symbi"]
        case "zed":
            return json.loads(text)["context_servers"]["symbi"]
        case "vscode":
            return json.loads(text)["servers"]["symbi"]
        case _:
            return json.loads(text)["mcpServers"]["symbi"]


@pytest.mark.parametrize("client", CLIENTS)
def test_what_a_client_has_to_be_told_starts_the_gateway_from_anywhere(symbi, tmp_path, client):
    printed = symbi("mcp", "install", client, "--client", "ann")
    assert printed.exit_code == 0
    if client == "claude-code":
        assert printed.stdout.startswith("claude mcp add symbi -- ")
        words = shlex.split(printed.stdout)[5:]
    else:
        told = entry(client, printed.stdout)
        words = [told["command"], *told["args"]]
    assert words[-5:] == ["mcp", "--config", str(tmp_path / "symbi.toml"), "--client", "ann"]
    assert words[0].startswith("/")
    assert {path.name for path in tmp_path.iterdir()} == {"symbi.toml", "policies"}, "nothing is written"


@pytest.mark.parametrize("client", CLIENTS)
def test_a_path_is_told_as_it_is_whatever_it_holds(symbi, tmp_path, monkeypatch, client):
    folder = tmp_path / 'my "own" $HOME\'s [bold]:dog: \\ ü \U0001f600 \x7f'
    folder.mkdir()
    (folder / "symbi.toml").write_text(CONFIG)
    monkeypatch.chdir(folder)
    printed = symbi("mcp", "install", client, "--client", "ann")
    assert printed.exit_code == 0
    told = shlex.split(printed.stdout)[5:] if client == "claude-code" else entry(client, printed.stdout)["args"]
    assert told[-3] == str(folder / "symbi.toml")


def test_in_a_folder_without_a_configuration_that_is_said(symbi, tmp_path_factory, monkeypatch):
    empty = tmp_path_factory.mktemp("empty")
    monkeypatch.chdir(empty)
    printed = symbi("mcp", "install", "cursor")
    assert printed.exit_code == 0
    assert entry("cursor", printed.stdout)["args"][-3:] == ["mcp", "--client", "local"]
    assert "there is no symbi.toml here" in printed.stderr
    assert list(empty.iterdir()) == []


def test_a_client_that_is_not_configured_is_not_told_to_come(symbi):
    refused = symbi("mcp", "install", "cursor", "--client", "bob")
    assert refused.exit_code == 2
    assert "[mcp.clients.bob]" in refused.stderr
    assert refused.stdout == ""


@pytest.mark.parametrize("client", [name for name, known in CLIENTS.items() if known.http])
def test_by_http_a_client_is_told_the_address_and_no_token(symbi, client):
    token = symbi("mcp", "clients", "add", "ann").stdout.strip()
    printed = symbi("mcp", "install", client, "--http")
    assert printed.exit_code == 0
    assert token not in printed.output
    told = entry(client, printed.stdout)
    assert "http://gateway.example:8080/mcp" in told.values()
    if client == "codex":
        assert told["bearer_token_env_var"] == TOKEN_VARIABLE
    else:
        assert told["headers"]["Authorization"].startswith("Bearer ")


def test_who_is_not_known_or_takes_no_address_is_told_so(symbi):
    unknown = symbi("mcp", "install", "cursr")
    assert unknown.exit_code == 2
    assert "cursor" in unknown.stderr
    assert symbi("mcp", "install", "claude-desktop", "--http").exit_code == 2


@pytest.mark.parametrize(
    ("text", "unsafe"),
    [
        ("http = true", False),
        ('http = true\nhost = "::1"', False),
        ('host = "0.0.0.0"', False),
        ('http = true\nhost = "0.0.0.0"', True),
        ('http = true\nhost = "gateway.example"', True),
        ('http = true\nhost = "0.0.0.0"\nbehind_proxy = true', False),
        ('http = true\nhost = "0.0.0.0"\ntls_cert = "c.pem"\ntls_key = "k.pem"', False),
    ],
)
def test_plain_http_beyond_this_machine_is_refused_in_production(tmp_path, text, unsafe):
    both = f'[runtime]\nmode = "{{mode}}"\n[gateway]\n{text}\n'
    file = tmp_path / "symbi.toml"

    def settings(mode):
        return parse_settings(both.format(mode=mode), file=file, cwd=tmp_path, environ={}, overrides={})

    assert any("gateway.host" in line for line in refuse_unsafe(settings("development"))) is unsafe
    if unsafe:
        with pytest.raises(ConfigError, match="in the clear"):
            refuse_unsafe(settings("production"))
    else:
        refuse_unsafe(settings("production"))


def test_what_cannot_be_meant_is_refused(symbi, tmp_path):
    assert symbi("mcp", "--port", "8080").exit_code == 2
    assert symbi("mcp", "--http", "--client", "ann").exit_code == 2
    (tmp_path / "symbi.toml").write_text('[gateway]\nport = 0\ntls_cert = "missing.pem"\n')
    alone = symbi("mcp", "--http")
    assert alone.exit_code == 2
    assert "`gateway.tls_cert` is set alone" in alone.stderr
    (tmp_path / "symbi.toml").write_text('[gateway]\nport = 0\ntls_cert = "missing.pem"\ntls_key = "missing.key"\n')
    missing = symbi("mcp", "--http")
    assert missing.exit_code == 2
    assert "cannot serve TLS" in missing.stderr


def test_the_command_serves_until_it_is_told_to_stop(symbi, tmp_path):
    """`symbi mcp --config FILE`, as a container starts it: the file says that HTTP is meant."""
    (tmp_path / "symbi.toml").write_text(CONFIG + "http = true\nport = 0\n")
    token = symbi("mcp", "clients", "add", "ann").stdout.strip()
    command = [sys.executable, "-m", "symbi.cli.main", "mcp", "--config", str(tmp_path / "symbi.toml")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = next(line for line in process.stderr if "gateway is at" in line)
            url = line.split()[-1]

            async def talk():
                async with (
                    httpx2.AsyncClient(headers={"authorization": f"Bearer {token}"}, timeout=30) as http,
                    Client(streamable_http_client(url, http_client=http), mode="legacy") as client,
                ):
                    return [tool.name for tool in (await client.list_tools()).tools]

            assert "symbi__list_agents" in anyio.run(talk)
            assert symbi("mcp", "clients", "revoke", "ann").exit_code == 0
            assert httpx2.get(url, headers={"authorization": f"Bearer {token}"}).status_code == 401
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()
        assert process.stdout.read() == ""
