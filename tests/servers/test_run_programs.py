"""Programs of an agent file on a real engine: the same in both tiers, from the file to the trail."""

import hashlib
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from symbi.cli.main import app

pytestmark = pytest.mark.servers

AGENT = """
agent convert(table: String) -> Any {{
    capabilities = ["run", "log"]
    policy programs {{
        allow: run("{image}") if program == "python3" && network.is_empty()
        require: record("full")
    }}
    with sandbox = {tier}, timeout = 60.seconds {{
        let done = run(
            "{image}",
            ["python3", "/tmp/in/convert.py", "--by", ","],
            inputs = {{ "convert.py": "{program}", "table.csv": table, "options.json": {{ header: true }} }},
            outputs = ["rows.json", "notes.txt"],
            env = {{ MODE: "strict" }},
            timeout = 30s
        );
        {{ code: done.code, said: done.stderr, rows: done.outputs["rows.json"], notes: done.outputs["notes.txt"] }}
    }}
}}
"""
PROGRAM = """
import json, os, sys
header = json.load(open('/tmp/in/options.json'))['header']
rows = [line.split(sys.argv[2]) for line in open('/tmp/in/table.csv').read().splitlines()][header:]
json.dump(rows, open('/tmp/out/rows.json', 'w'))
if os.environ['MODE'] == 'strict' and not rows:
    print('no rows', file=sys.stderr)
    sys.exit(4)
open('/tmp/out/notes.txt', 'w').write('%d rows' % len(rows))
"""
OTHERS = """
@id("rest") permit (principal, action in [Action::"CreateAgent", Action::"AllocateResources", Action::"WriteLog"], resource);
@id("programs") @record("full") permit (principal, action == Action::"RunContainer", resource);
"""


def configure(docker, tier, images=True, policy=OTHERS):
    Path("policies").mkdir(exist_ok=True)
    Path("policies/all.cedar").write_text(policy)
    named = f'images = ["{docker.image}"]\n' if images else f'image = "sha256:{64 * "0"}"\n'
    Path("symbi.toml").write_text(
        '[security]\ndefault_sandbox_tier = "docker"\n'
        f'[sandbox]\ndocker_host = "{docker.host}"\nenv = ["MODE"]\n{named}'
    )
    program = PROGRAM.replace("\\", "\\\\").replace("\n", "\\n")
    Path("convert.symbi").write_text(AGENT.format(tier=tier, image=docker.image, program=program))


def run(table):
    done = CliRunner().invoke(app, ["run", "convert.symbi", "--input", f"table={table}", "--json"])
    return done.exit_code, json.loads(done.stdout[done.stdout.index("{") :])


@pytest.mark.parametrize("tier", ["docker", "gvisor"])
def test_an_agent_runs_a_program_on_its_files_and_both_stand_on_the_trail(docker, tmp_path, monkeypatch, tier):
    monkeypatch.chdir(tmp_path)
    configure(docker, tier)
    checked = CliRunner().invoke(app, ["check", "convert.symbi"])
    assert checked.exit_code == 0, checked.output
    table = "a,b\n1,2\n3,4\n"
    code, told = run(table)
    assert code == 0, told
    assert told["output"] == {"code": 0, "said": "", "rows": [["1", "2"], ["3", "4"]], "notes": "2 rows"}
    code, told = run("a,b\n")  # a program that fails is a result
    assert code == 0, told
    assert told["output"] == {"code": 4, "said": "no rows\n", "rows": [], "notes": None}
    shown = CliRunner().invoke(app, ["audit", "show", "--type", "effect.outcome", "--json"])
    first, _ = [json.loads(line)["details"] for line in shown.stdout.splitlines() if "files_in" in line]
    assert first["files_in"]["table.csv"] == [hashlib.sha256(table.encode()).hexdigest(), len(table)]
    assert first["files_out"]["notes.txt"] == [hashlib.sha256(b"2 rows").hexdigest(), 6]
    assert first["sandbox"]["gvisor"] is (tier == "gvisor")
    assert first["risk"]["tier"] == "docker"


def test_what_policy_or_configuration_does_not_name_is_refused_and_no_container_is_made(docker, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    configure(docker, "docker", images=False)
    code, told = run("a,b\n1,2\n")
    assert code != 0
    assert told["error"]["code"] == "unavailable.image"
    no = f'@id("no") forbid (principal, action == Action::"RunContainer", resource == Image::"{docker.image}");'
    configure(docker, "docker", policy=OTHERS + no)
    code, told = run("a,b\n1,2\n")
    assert code != 0
    assert told["error"]["code"] == "policy.denied", told["error"]
