"""Named tables: what is said of agents and of tool servers."""

import sys
from pathlib import Path

import pytest

from symbi.config import OriginKind, Trust, describe_settings, parse_settings
from symbi.errors import ConfigError
from symbi.types import AgentId, Principal

FILE = Path("/srv/app/symbi.toml")


def read(text):
    return parse_settings(text, file=FILE, cwd=FILE.parent, environ={}, overrides={})


def test_a_tool_server_is_read_with_its_paths_beside_the_file():
    settings = read("""
[mcp.servers.files]
command = ["{python}", "server.py", "--root={python}"]
env = { TOKEN = "vault://files/token", LANG = "C" }
cwd = "tools"
manifest = "tools/files.toml"
public_key = "tools/files.pub.pem"
timeout_s = 5
""")
    (server,) = settings.mcp.servers
    assert server.name == "files"
    assert server.command == (sys.executable, "server.py", f"--root={sys.executable}")
    assert server.env == (("LANG", "C"), ("TOKEN", "vault://files/token"))
    assert server.cwd == Path("/srv/app/tools")
    assert server.manifest == Path("/srv/app/tools/files.toml")
    assert server.public_key == Path("/srv/app/tools/files.pub.pem")
    assert server.timeout_s == 5.0
    assert settings.origin("mcp.servers.files.timeout_s").where == "symbi.toml:8"
    assert settings.origin("mcp.servers.files.timeout_s").kind is OriginKind.FILE


def test_a_tool_server_may_be_an_address():
    settings = read(
        '[mcp.servers.a]\nurl = "https://tools.example/mcp"\nheaders = { Authorization = "vault://a/token" }'
    )
    (server,) = settings.mcp.servers
    assert (server.command, server.url) == (None, "https://tools.example/mcp")
    assert server.headers == (("Authorization", "vault://a/token"),)
    assert "vault://a/token" not in str(describe_settings(settings))


def test_a_program_with_a_slash_lies_beside_the_file_and_one_without_is_left_to_path():
    settings = read('[mcp.servers]\na = { command = ["bin/a", "x/y"] }\nb = { command = ["npx", "b"] }')
    assert [server.command for server in settings.mcp.servers] == [("/srv/app/bin/a", "x/y"), ("npx", "b")]


def test_servers_and_agents_come_in_the_order_of_their_names():
    settings = read('[mcp.servers.b]\ncommand=["b"]\n[mcp.servers.a]\ncommand=["a"]\n[agents.z]\n[agents.y]')
    assert [server.name for server in settings.mcp.servers] == ["a", "b"]
    assert [agent.name for agent in settings.agents] == ["y", "z"]


def test_an_agent_is_the_principal_that_the_file_says_and_never_more_without_it():
    settings = read('[agents.triage]\nowner = "ops"\ngroups = ["sre", "oncall"]\ntrust = "trusted"')
    assert settings.principal(AgentId("triage")) == Principal(AgentId("triage"), "ops", ("sre", "oncall"), "trusted")
    assert settings.principal(AgentId("other")) == Principal(AgentId("other"), "unknown", (), Trust.STANDARD.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[mcp.servers.a]\ncwd = 'x'", r"symbi.toml:1:1: \[mcp.servers.a\] has neither `command` nor `url`"),
        ("[mcp.servers.a]\ncommand = ['x']\nurl = 'https://x'", r"symbi.toml:2:1: .*has a `url`, which `command` does"),
        ("[mcp.servers.a]\nurl = 'https://x'\nenv = { A = 'x' }", "symbi.toml:3:1: .*`env` does not go with"),
        ("[mcp.servers.a]\ncommand = ['x']\nheaders = { A = 'x' }", "symbi.toml:3:1: .*`headers` does not go with"),
        ("[mcp.servers.a]\ncommand = ['x']\nsandbox = 'gvisor'", "symbi.toml:3:1: .*a `sandbox` and no `image`"),
        ("[mcp.servers.a]\ncommand = ['x']\nmemory_mb = 64", "symbi.toml:3:1: .*no `sandbox`, which `memory_mb`"),
        ("[mcp.servers.a]\nurl = 'https://x'\nsandbox = 'docker'", "symbi.toml:3:1: .*`sandbox` does not go with"),
        ("[mcp.servers.a]\ncommand = ['x']\nsandbox = 'vm'", "symbi.toml:3:1: .*must be one of"),
        ("[mcp.servers.a]\nurl = 'http://example.org'", "symbi.toml:2:1: .*must begin with `https:`"),
        ("[mcp.servers.a]\nurl = 'https://x'\nheaders = { 'A:' = 'x' }", "symbi.toml:3:1: .*no name of a header field"),
        ("[mcp.servers.a]\nurl = 'https://x'\nheaders = { Host = 'x' }", "symbi.toml:3:1: .*transport writes itself"),
        ("[mcp.servers.a]\nurl = 'https://x'\nheaders = { A = \"x\\ny\" }", "symbi.toml:3:1: .*one line only; `A`"),
        ("[mcp.servers.a]\nurl = 'https://x'\nheaders = { A = 'x', a = 'y' }", "symbi.toml:3:1: .*twice"),
        ("[mcp.servers.a]\ncommand = []", "symbi.toml:2:1: .*must be a list with a program"),
        ("[mcp.servers.a]\ncommand = 'server'", "symbi.toml:2:1: .*must be a list with a program"),
        ("[mcp.servers.a]\ncommand = ['x', 1]", "symbi.toml:2:1: .*must hold texts only, not `1`"),
        ("[mcp.servers.a]\ncommand = ['']", "symbi.toml:2:1: .*must be a program"),
        ("[mcp.servers.a]\ncommand = ['${HOME}/x']", r"symbi.toml:2:1: .*`\$\{…\}` is not expanded"),
        ("[mcp.servers.a]\ncommand = ['x', '--k=${KEY}']", r"symbi.toml:2:1: .*`\$\{…\}` is not expanded"),
        ("[mcp.servers.a]\ncomand = ['x']", "symbi.toml:2:1: unknown key `comand`.*did you mean `command`"),
        ("[mcp.servers.a]\ncommand = ['x']\nenv = { 'A B' = 'x' }", "symbi.toml:3:1: .*no name of a variable"),
        ("[mcp.servers.a]\ncommand = ['x']\nenv = { A = 1 }", "symbi.toml:3:1: .*texts only; `A` is none"),
        ("[mcp.servers.a]\ncommand = ['x']\ntimeout_s = 0", "symbi.toml:3:1: .*from 0.001 to 86400 seconds"),
        ("[mcp.servers.'a.b']\ncommand = ['x']", "symbi.toml:1:1: `a.b` is no name"),
        ("[mcp]\nservers = 1", "symbi.toml:2:1: `mcp.servers` must be a table"),
        ("[mcp.servers]\na = 1", "symbi.toml:2:1: `mcp.servers.a` must be a table"),
        ("[[agents]]\nowner = 'x'", "symbi.toml:1:1: `agents` must be a table, not a list"),
        ("[agents.a]\ntrust = 'full'", "symbi.toml:2:1: `agents.a.trust` must be one of"),
        ("[agents.a]\ngroups = ['x', 'x']", "symbi.toml:2:1: .*names `x` twice"),
        ("[agents.a]\nownr = 'x'", "symbi.toml:2:1: unknown key `ownr` in .agents.a.; did you mean `owner`"),
    ],
)
def test_a_wrong_table_is_refused_at_its_place(text, message):
    with pytest.raises(ConfigError, match=message):
        read(text)


def test_more_servers_than_connections_are_refused():
    text = '[mcp]\nmax_concurrent_connections = 1\n[mcp.servers]\na = { command = ["a"] }\nb = { command = ["b"] }'
    with pytest.raises(ConfigError, match=r"symbi\.toml:3:1: 2 tool servers are configured, but .* is 1"):
        read(text)


def test_values_of_a_servers_environment_are_never_shown():
    settings = read('[mcp.servers.a]\ncommand = ["a"]\nenv = { TOKEN = "canary-value" }')
    assert "canary-value" not in str(describe_settings(settings))
