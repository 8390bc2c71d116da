"""Counters and rates in a whole runtime: read from beside the policies, and asked for in an agent file."""

import json

import pytest
from typer.testing import CliRunner

from symbi.cli.main import app
from symbi.errors import PolicySyntaxError
from symbi.testing.runtime import open_in

pytestmark = pytest.mark.anyio

AGENT = """
agent a {{
    policy own {{
        allow: allocate(pool)
    }}
    policy lines {{
        allow: log
        {extra}
    }}
    with sandbox = interpreter, timeout = 60.seconds {{
        let written = 0;
        for i in range(5) {{
            try {{ log("line"); written += 1; }} catch ({caught} e) {{ }}
        }}
        written
    }}
}}
"""
HISTORY = """
[history.lines]
kind = "count"
action = "WriteLog"
per = "{per}"
"""
CREATE = '@id("create") permit (principal, action == Action::"CreateAgent", resource);'
AT_MOST_3 = '@id("3") forbid (principal, action == Action::"WriteLog", resource) when { context.history.lines > 3 };'


async def written(folder, extra="", caught="Denied") -> int:
    async with open_in(folder, AGENT.format(extra=extra, caught=caught), policies=CREATE) as opened:
        outcome = await opened.runtime.run(opened.compiled, opened.compiled.agents[0], {})
    assert outcome.error is None
    return outcome.output


def declare(folder, per, policy=AT_MOST_3):
    (folder / "policies").mkdir(parents=True)
    (folder / "policies" / "history.toml").write_text(HISTORY.format(per=per))
    (folder / "policies" / "lines.cedar").write_text(policy)


async def test_a_counter_beside_the_policies_bounds_each_run(tmp_path):
    declare(tmp_path, "run")
    assert [await written(tmp_path) for _ in range(2)] == [3, 3]


async def test_a_counter_of_the_agent_bounds_all_its_runs(tmp_path):
    declare(tmp_path, "agent")
    assert [await written(tmp_path) for _ in range(2)] == [3, 0]


async def test_an_agent_file_asks_for_a_rate(tmp_path):
    rate = 'require: { rate_limiting: "2/day" }'
    assert [await written(tmp_path, rate, "RateLimited") for _ in range(2)] == [2, 0]
    assert await written(tmp_path / "other") == 5


async def test_usage_is_that_of_the_body_and_its_time_that_of_the_run(tmp_path):
    declare(
        tmp_path,
        "all",
        'forbid (principal, action == Action::"WriteLog", resource) when { context.usage.effects >= 2 };',
    )
    assert await written(tmp_path) == 2


async def test_a_wrong_declaration_keeps_the_runtime_from_starting(tmp_path):
    declare(tmp_path, "nobody")
    with pytest.raises(PolicySyntaxError, match=r"policies/history\.toml:5:1: `per` cannot be `nobody`"):
        await written(tmp_path)


def test_check_explain_and_test_know_the_counters(tmp_path, monkeypatch):
    declare(tmp_path, "run")
    (tmp_path / "symbi.toml").write_text("")
    (tmp_path / "cases.toml").write_text(
        '[[case]]\nname = "fourth"\nprincipal = { agent = "a" }\naction = "WriteLog"\nexpect = "deny"\n'
        'policies = ["3"]\nresource = { type = "Resource", id = "log" }\n'
        'context = { label = { integrity = "user", confidentiality = "public" }, history = { lines_before = 3 } }\n'
    )
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke
    assert run(app, ["policy", "check"]).exit_code == 0
    tested = run(app, ["policy", "test", "cases.toml"])
    assert tested.exit_code == 0, tested.output
    label = {"label": {"integrity": "user", "confidentiality": "public"}}
    asked = ["policy", "explain", "--agent", "a", "--action", "WriteLog", "--resource", "Resource::log", "--json"]
    told = run(app, [*asked, "--context", json.dumps(label | {"history": {"lines": 4}})])
    assert "forbidden by `3`" in json.loads(told.output)["summary"]
    told = run(app, [*asked, "--context", json.dumps(label)])
    assert "no policy permits" in json.loads(told.output)["summary"]
    (tmp_path / "policies" / "history.toml").write_text(HISTORY.format(per="nobody"))
    refused = run(app, ["policy", "check"])
    assert refused.exit_code != 0
    assert "`per` cannot be `nobody`" in refused.output + refused.stderr
