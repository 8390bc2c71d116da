"""A network that an agent asks for, from its file to the trail: policy decides, the proxy connects, and each connection is recorded."""

import json
import re
from functools import partial
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal
from typer.testing import CliRunner

from symbi.adapters import egress
from symbi.adapters.egress import EgressProxy, dial
from symbi.cli.main import app
from symbi.testing.outside import LOOPBACK, OutsideAuthority, outside_server

pytestmark = pytest.mark.servers

SECRET = "sesame-4711-open"
AGENT = """
agent asks(url: String) -> String {{
    capabilities = ["run"]
    with sandbox = {tier}, timeout = 60.seconds, max_network_mbps = 8 {{
        let done = run("{image}", ["python3", "-c", "{program}", url],
            network = ["GET api.example:443"], credentials = {{ "api.example": vault://key }});
        done.stdout
    }}
}}
"""
PROGRAM = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=20).read().decode(), end='')"
POLICY = """
@id("networks") permit (principal, action == Action::"RunContainer", resource)
    when { context.hosts == ["api.example"] && context.credentials == ["key"] };
@id("rest") permit (principal, action in [Action::"CreateAgent", Action::"AllocateResources"], resource);
"""


async def resolve(host):
    return {"api.example": [LOOPBACK]}[host]


@pytest.fixture
def server(monkeypatch):
    """What stands for `api.example`, in the runtime that the next command opens."""
    authority = OutsideAuthority()
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(outside_server(authority.server("api.example"))) as outside,
    ):

        async def there(address, port, name, context):
            return await dial(address, outside.port, name, context)

        changed = partial(
            EgressProxy, resolver=resolve, dialer=there, context=authority.client(), permitted=frozenset({LOOPBACK})
        )
        monkeypatch.setattr("symbi.adapters.egress.EgressProxy", changed)
        yield outside


def invoke(*arguments):
    return CliRunner().invoke(app, arguments)


@pytest.mark.parametrize("tier", ["docker", "gvisor"])
def test_a_network_that_policy_grants_is_reached_with_its_credential_and_stands_on_the_trail(
    docker, server, tier, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SYMBI_SECRET_KEY", SECRET)
    Path("policies").mkdir()
    Path("policies/all.cedar").write_text(POLICY)
    Path("symbi.toml").write_text(
        f'[security]\ndefault_sandbox_tier = "docker"\n[sandbox]\ndocker_host = "{docker.host}"\nimage = "{docker.image}"\n'
    )
    Path("asks.symbi").write_text(AGENT.format(tier=tier, image=docker.image, program=PROGRAM))
    assert invoke("check", "asks.symbi").exit_code == 0, invoke("check", "asks.symbi").output
    done = invoke("run", "asks.symbi", "--input", "url=http://api.example/x", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout[done.stdout.index("{") :])["output"] == "hello from outside"
    assert [(one.target, one.all("authorization")) for one in server.asked] == [("/x", [f"Bearer {SECRET}"])]
    shown = [json.loads(line) for line in invoke("audit", "show", "--json").stdout.splitlines()]
    told = [one for one in shown if one["event_type"].startswith("egress.")]
    assert [one["event_type"] for one in told] == ["egress.connected", "egress.closed"]
    (outcome,) = [one for one in shown if one["event_type"] == "effect.outcome" and "egress" in one["details"]]
    assert {one["run_id"] for one in told} == {outcome["run_id"]}
    assert {one["details"]["effect_id"] for one in told} == {outcome["details"]["effect_id"]}
    assert outcome["details"]["egress"]["connections"] == 1
    assert outcome["details"]["egress"]["bytes_per_s"] == 1_048_576, (
        "what its file claims is less than what any may have"
    )
    assert SECRET not in json.dumps(shown)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


def test_a_network_that_policy_does_not_grant_is_not_asked_for(docker, server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SYMBI_SECRET_KEY", SECRET)
    Path("policies").mkdir()
    Path("policies/all.cedar").write_text(POLICY.replace("api.example", "other.example"))
    Path("symbi.toml").write_text(
        f'[security]\ndefault_sandbox_tier = "docker"\n[sandbox]\ndocker_host = "{docker.host}"\nimage = "{docker.image}"\n'
    )
    Path("asks.symbi").write_text(AGENT.format(tier="docker", image=docker.image, program=PROGRAM))
    done = invoke("run", "asks.symbi", "--input", "url=http://api.example/x", "--json")
    assert done.exit_code != 0
    assert "policy.denied" in done.output
    assert server.connections == 0


def test_a_name_that_is_not_found_leaves_nobody_in_doubt_and_the_run_goes_on_once_it_is(
    docker, server, tmp_path, monkeypatch
):
    async def nowhere(_host):
        raise OSError

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SYMBI_SECRET_KEY", SECRET)
    Path("policies").mkdir()
    Path("policies/all.cedar").write_text(POLICY)
    Path("symbi.toml").write_text(
        f'[security]\ndefault_sandbox_tier = "docker"\n[sandbox]\ndocker_host = "{docker.host}"\nimage = "{docker.image}"\n'
    )
    Path("asks.symbi").write_text(AGENT.format(tier="docker", image=docker.image, program=PROGRAM))
    with monkeypatch.context() as changed:
        changed.setattr("symbi.adapters.egress.EgressProxy", partial(egress.EgressProxy, resolver=nowhere))
        held = invoke("run", "asks.symbi", "--input", "url=http://api.example/x")
    assert held.exit_code == 5, held.output
    assert "[unavailable.name]" in held.output
    assert server.connections == 0
    run = re.search(r"--run (\S+) goes on", held.output)[1]
    done = invoke("run", "--resume", "--run", run, "--json")
    assert "in doubt" not in done.output
    assert json.loads(done.stdout[done.stdout.index("{") :])["output"] == "hello from outside"
    assert [one.target for one in server.asked] == ["/x"]
