"""Tool servers from files of other clients: what is taken, and what is left out with its reason."""

import json
from pathlib import Path

import pytest

from symbi.config.mcp_files import choose_servers, parse_server_file

FOLDER = Path("/srv/app")


def read(document, *, file="mcp.json", environ=None, expand=()):
    text = document if isinstance(document, str) else json.dumps(document)
    return parse_server_file(text, file, FOLDER, environ or {}, expand)


def taken(document, **more):
    found, left = read(document, **more)
    assert left == []
    return {one.settings.name: one for one in found}


def reason(document, **more):
    found, left = read(document, **more)
    assert found == []
    (one,) = left
    assert one.reason.isprintable()
    return one.reason


def entry(**keys):
    return {"mcpServers": {"files": keys}}


def test_servers_as_most_clients_write_them():
    found = taken(
        {
            "mcpServers": {
                "files": {"command": "npx", "args": ["-y", "server", "/data"], "env": {"A": "b"}, "autoApprove": ["x"]},
                "web": {"type": "http", "url": "https://tools.example/mcp", "headers": {"X-Key": "k"}},
                "local": {"command": "./bin/tool", "cwd": "work"},
            }
        }
    )
    files, web, local = (found[name].settings for name in ("files", "web", "local"))
    assert files.command == ("npx", "-y", "server", "/data")
    assert (files.env, files.cwd) == ((("A", "b"),), FOLDER)
    assert (web.command, web.url, web.headers) == (None, "https://tools.example/mcp", (("X-Key", "k"),))
    assert (local.command, local.cwd) == (("/srv/app/bin/tool",), FOLDER / "work")


def test_servers_as_vs_code_writes_them_and_one_a_file():
    assert set(taken({"servers": {"a": {"type": "stdio", "command": "a"}}, "inputs": []})) == {"a"}
    assert set(taken({"command": "b"}, file="mcp.d/mail.json")) == {"mail"}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"mcpServers": {}, "mcpServers": {}}', "`mcpServers` is there twice"),
        ("[]", "must be an object with `mcpServers`"),
        ({"mcpservers": {}}, "did you mean `mcpServers`"),
        ({"mcpServers": []}, "must be an object of at most"),
        ({"servers": {}, "inputs": [{"id": "key"}]}, "asks for `inputs`, which nobody is there to give"),
        ({"mcpServers": {"a b": {"command": "x"}}}, "cannot name a server"),
        ({"mcpServers": {"a\u0435": {"command": "x"}}}, "cannot name a server"),
        ({"mcpServers": {"a": 1}}, "must be an object"),
        (entry(command="x", comand="y"), "the key `comand`, which is not known; did you mean `command`"),
        (entry(command="x", sandbox="none"), "the key `sandbox`, which is not known"),
        (entry(command="x", disabled=True), "it is disabled there"),
        (entry(type="sse", url="https://x"), "not spoken; streamable HTTP has the type `http`"),
        (entry(command="x", url="https://x"), "needs a `command`, or a `url`"),
        (entry(), "needs a `command`, or a `url`"),
        (entry(type="http", command="x"), "needs a `command`, or a `url`"),
        (entry(url="https://x", env={"A": "b"}), "which `env` does not go with"),
        (entry(command="x", headers={}), "which `headers` does not go with"),
        (entry(command="x", args="y"), "`args` must be a list"),
        (entry(command="x", args=[1]), "must be text, not `1`"),
        (entry(command=["x"]), "must be text, not a list"),
        (entry(command="{python}"), "`{python}` is for `[mcp.servers]` alone"),
        (entry(url="http://example.org"), "must begin with `https:`"),
        (entry(url="https://x", headers={"Host": "y"}), "the transport writes itself"),
        (entry(command="x", env={"A": "vault://a/b"}), "a secret of ours"),
        (entry(command="x", env={"A B": "c"}), "no name of a variable"),
        (entry(command="x", env=[]), "`env` must be an object"),
        (entry(command="x", args=["${HOME}"]), "variable `HOME`, which may not be expanded; add it to `mcp.expand`"),
        (entry(command="x", args=["${workspaceFolder:-x y}"]), "variable `workspaceFolder`, which may not"),
        (entry(command="x", args=["${input:key}"]), "`${input:key}`, which is no variable"),
        (entry(command="x", env={"A": "${env:TOKEN:-y}"}), "variable `TOKEN`, which may not be expanded"),
    ],
)
def test_what_is_not_understood_is_left_out_with_its_reason(document, words):
    assert words in reason(document, environ={"HOME": "/root", "TOKEN": "secret"})


def test_only_variables_that_the_operator_has_listed_are_put_in():
    document = entry(command="x", args=["${ROOT}/a", "${env:ROOT}", "${NONE:-else}"], env={"A": "$ROOT"})
    (one,) = taken(document, environ={"ROOT": "/r", "HOME": "/root"}, expand=("ROOT", "NONE")).values()
    assert one.settings.command == ("x", "/r/a", "/r", "else")
    assert one.settings.env == (("A", "$ROOT"),)
    assert "which is not set" in reason(entry(command="x", args=["${ROOT}"]), expand=("ROOT",))
    hidden = entry(command="x", env={"A": "${ROOT}"})
    assert "a secret of ours" in reason(hidden, environ={"ROOT": "vault://a/b"}, expand=("ROOT",))


def test_one_bad_server_leaves_the_others():
    found, left = read({"mcpServers": {"a": {"command": "a"}, "b": {}, "c": {"command": "c"}}})
    assert ([one.settings.name for one in found], [one.name for one in left]) == (["a", "c"], ["b"])


@pytest.mark.parametrize("other", [{"args": ["b"]}, {"env": {"A": "c"}}, {"cwd": "d"}, {"command": "y"}], ids=str)
def test_the_digest_is_of_what_would_be_run(other):
    plain = {"command": "x", "args": ["a"], "env": {"A": "b"}}
    (one,) = taken(entry(**plain)).values()
    (same,) = taken(entry(**plain, alwaysAllow=["x"])).values()
    (different,) = taken(entry(**(plain | other))).values()
    assert one.digest == same.digest != different.digest


def test_values_of_its_environment_are_not_in_what_is_shown():
    (one,) = taken(entry(command="x", env={"TOKEN": "canary-value"})).values()
    assert "canary-value" not in one.definition
    assert "TOKEN" in one.definition


def test_names_that_are_found_cannot_shadow_or_crowd_out_configured_ones():
    names = ["mail", "Mail", "ma_il", "rnail", "symbi_web", "web", "we-b", "extra"]
    found, _ = read({"mcpServers": {name: {"command": "x"} for name in names}})
    chosen, left = choose_servers(["mail"], found, 2)
    assert [one.settings.name for one in chosen] == ["web"]
    reasons = {one.name: one.reason for one in left}
    assert reasons["mail"] == "its name is taken"
    assert reasons["Mail"] == reasons["ma_il"] == "its name looks like `mail`, which is taken"
    assert "looks like `web`" in reasons["we-b"]
    assert "the runtime's own" in reasons["symbi_web"]
    assert "2 already, as `mcp.max_concurrent_connections` says" in reasons["extra"]
