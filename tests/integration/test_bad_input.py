"""What is wrong with what `symbi run` is given: one clear error, its exit code, its place on the trail, nothing half done."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

FAILED, INPUT, DENIED, UNAVAILABLE = 1, 2, 3, 5
POLICY = '@id("all")\npermit (principal, action, resource);\n'
ASK = 'tool("odd.echo", text = text);'


# --- files and inputs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "place", "code"),
    [
        ("let x 5;", "work.symbi:4:15", "dsl.syntax"),
        ("let x = y;", "work.symbi:4:17", "dsl."),
        ('reason("why");', "work.symbi:4:9", "dsl."),
        ('tool("no name");', "work.symbi:4:14", "dsl."),
    ],
    ids=["syntax", "name", "built-in of a later release", "name of a tool"],
)
def test_a_broken_agent_file(workshop, body, place, code):
    workshop.write(body)
    assert workshop.run_inside().error(INPUT, code).startswith(f"error: {place}: ")
    assert workshop.recorded("input.refused", place)
    assert not workshop.recorded("run.started")
    workshop.works()


def test_an_agent_file_that_is_missing_or_no_text(workshop):
    workshop.put("large.symbi", "x" * 5_000_000)
    (workshop.folder / "bytes.symbi").write_bytes(b"\xff\xfe\x00agent")
    workshop.put("empty.symbi", "")
    for name, word in {
        "none.symbi": "No such file",
        "policies": "Is a directory",
        "large.symbi": "larger than",
        "bytes.symbi": "not UTF-8",
        "empty.symbi": "has no agent",
    }.items():
        assert f"`{name}`" in workshop.inside("run", name).error(INPUT, word)
        assert workshop.recorded("input.refused", name, word)
    workshop.works()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "needs the input `text`"),
        (["--input", "txet=a"], "has no input `txet`"),
        (["--input", "text=a", "--input", "text=b"], "given twice"),
        (["--input", "text"], "not of the form NAME=VALUE"),
        (["--input", "text=a", "--agent", "nobody"], "no agent `nobody`"),
    ],
)
def test_inputs_that_are_missing_unknown_or_malformed(workshop, arguments, word):
    workshop.inside("run", "work.symbi", *arguments).error(INPUT, word)
    assert workshop.recorded("input.refused", word)
    workshop.works()


@pytest.mark.parametrize("value", ["[" * 2000, "[" * 900 + "]" * 900, "[NaN]", "[1e999]", '["\\ud800"]', "{}", "[1"])
def test_an_input_that_is_no_value_of_its_type(workshop, value):
    workshop.put("list.symbi", "agent list(items: List<Any>) -> Any { with { items } }\n")
    workshop.inside("run", "list.symbi", "--input", f"items={value}").error(INPUT, "input `items` of agent `list`")
    assert workshop.recorded("input.refused", "items")


def test_a_run_that_cannot_be_resumed(workshop):
    workshop.inside("run", "--resume").error(INPUT, "there is no run to resume")
    workshop.inside("run", "--resume", "--run", "none").error(INPUT, "there is no run `none`")
    workshop.inside("run").error(INPUT, "give an agent file, or `--resume`")
    workshop.works()


def test_a_command_line_that_is_no_text(workshop):
    for arguments in (
        ["run", "\udcff.symbi"],
        ["run", "work.symbi", "--input", "text=\udcff"],
        ["audit", "show", "--run", "\udcff"],
    ):
        workshop.symbi(*arguments).error(INPUT, "is not UTF-8")
    workshop.works()


def test_a_working_folder_that_is_gone(workshop):
    script = "import os, sys; os.rmdir(os.getcwd()); os.execv(sys.executable, [sys.executable, '-m', 'symbi.cli.main', 'audit', 'show'])"
    (workshop.folder / "gone").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=workshop.folder / "gone", capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == INPUT
    assert done.stderr.startswith("error: cannot use the working folder: ")


def test_a_missing_log_file(workshop):
    workshop.write('tool("desk.stat", path = "none/access.log");')
    error = workshop.run_inside().error(FAILED, "none/access.log", "No such file")
    assert error.startswith("error: work.symbi:4:9: ")
    assert workshop.recorded("effect.outcome", "desk.stat", "failed")
    assert workshop.recorded("run.finished", "failed", "none/access.log")
    workshop.works()


CALLS = {
    "an unknown tool": ('tool("odd.eco", text = text);', "unknown tool `odd.eco`"),
    "a tool of an unknown server": ('tool("nowhere.echo", text = text);', "unknown tool `nowhere.echo`"),
    "an argument of a wrong type": ('tool("odd.echo", text = 5);', "$.text must be of type `string`"),
    "a missing argument": ('tool("odd.echo");', "lacks `text`"),
    "an unknown argument": ('tool("odd.echo", text = text, txet = text);', "has no `txet`"),
}


@pytest.mark.parametrize(("body", "word"), CALLS.values(), ids=CALLS)
def test_a_call_that_does_not_fit(workshop, body, word):
    workshop.write(body)
    assert workshop.run_inside().error(INPUT, word).startswith("error: work.symbi:4:9: ")
    assert workshop.recorded("tool.refused", word)
    assert workshop.recorded("run.finished", "failed")
    workshop.works()


# --- policies and configuration ------------------------------------------------------------------------------------------

POLICIES = {
    "a policy that is not finished": ("permit (principal, action, resource", "all.cedar:1:", "policy.invalid"),
    "a policy on an unknown action": ('permit (principal, action == Action::"No", resource);', "all.cedar:1:", "policy."),
    "a policy on an unknown attribute": (
        '\npermit (principal, action == Action::"CreateAgent", resource) when { context.no == 1 };', "all.cedar:2:",
        "policy.schema",
    ),
    "one name twice": (POLICY + POLICY, "all.cedar:", "policy."),
}  # fmt: skip


@pytest.mark.parametrize(("text", "place", "code"), POLICIES.values(), ids=POLICIES)
def test_a_broken_policy_file(workshop, text, place, code):
    workshop.put("policies/all.cedar", text)
    for command in (["run", "work.symbi", "--input", "text=hello"], ["policy", "check"], ["tools", "verify"]):
        assert workshop.inside(*command).error(INPUT, code).startswith(f"error: policies/{place}")
    assert workshop.recorded("runtime.stopped", code, place)
    assert not workshop.recorded("run.started")
    workshop.works()


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ('[policy]\npaths = ["none"]\n', "symbi.toml:8:1: `policy.paths` names"),
        ('[mcp.servers.more]\ncommand = ["x"]\nmanifest = "none.toml"\n', "none.toml"),
        ('[mcp.servers.more]\ncommand = ["x"]\npublic_key = "none.pem"\n', "none.pem"),
        ('[mcp.servers.more]\ncommand = ["x"]\npublic_key = "symbi.toml"\n', "key"),
    ],
)
def test_a_configuration_that_names_what_is_not_there(workshop, more, word):
    workshop.write(more=more)
    workshop.run_inside().error(INPUT, word)
    assert workshop.recorded("runtime.stopped", word.partition(": ")[2] or word)
    assert not workshop.recorded("run.started")
    workshop.works()


@pytest.mark.parametrize(
    ("text", "place", "word"),
    [
        ("[runtime\n", "symbi.toml:1:9", "not valid TOML"),
        ('[runtime]\nmodee = "x"\n', "symbi.toml:2:1", "did you mean `mode`?"),
        ('[runtme]\nmode = "x"\n', "symbi.toml:1:", "did you mean `runtime`?"),
        ("[limits]\nsteps = 0\n", "symbi.toml:2:1", "`limits.steps` must be"),
        ("[limits]\nmemory_mb = -1\n", "symbi.toml:2:1", "`limits.memory_mb` must be from"),
        ("[limits]\ncpu_cores = -0.5\n", "symbi.toml:2:1", "`limits.cpu_cores` must be from"),
        (
            '[agents.work]\npriority = "urgent"\n',
            "symbi.toml:2:1",
            "must be one of `low`, `normal`, `high`, `critical`",
        ),
        ('[agents.work]\npriority = "criticl"\n', "symbi.toml:2:1", "did you mean `critical`"),
        ("[mcp.servers.odd]\n", "symbi.toml:1:", "has neither `command` nor `url`"),
        ("x = \xff\n", "symbi.toml:1:", "not valid UTF-8"),
    ],
)
def test_a_broken_configuration_says_where_and_touches_nothing(workshop, text, place, word):
    (workshop.folder / "symbi.toml").write_text(text, encoding="latin-1")
    for arguments in (["run", "work.symbi", "--input", "text=hello"], ["audit", "show"], ["check", "work.symbi"]):
        assert place in workshop.inside(*arguments).error(INPUT, word)
    assert not (workshop.folder / ".symbi").exists()  # where the trail is, only the configuration says
    workshop.works()


# --- tool servers ----------------------------------------------------------------------------------------------------------

AT_START = {
    "dies-at-start": ("ended with exit status 2", {}),
    "dies-at-listing": ("ended with exit status 0", {}),
    "silent": ("did not get ready within 10 s", {"start_s": 10.0}),  # in which the other one does on any machine
    "garbage": ("not JSON-RPC", {}),
    "endless-line-at-start": ("wrote a line of more than", {}),
    "no-such-program": ("cannot be started", {"command": '"/no/such/program"'}),
}


@pytest.mark.parametrize(("mode", "word", "changes"), [(mode, *rest) for mode, rest in AT_START.items()], ids=AT_START)
def test_a_tool_server_that_does_not_come_up(workshop, mode, word, changes):
    workshop.write(ASK, mode, **changes)
    workshop.run_inside().error(UNAVAILABLE, "tool server `odd`", word)
    assert workshop.recorded("decision.allow", "ToolServer::odd")
    assert workshop.recorded("effect.outcome", "ToolServer::odd", "failed", "unavailable.tool_server", word)
    assert workshop.recorded("run.finished", "held", word)
    assert workshop.recorded("runtime.stopped", "unavailable.tool_server")
    workshop.works()


IN_A_CALL = {
    "dies-mid-call": (UNAVAILABLE, "unknown", "held", "ended with exit status 3", {}),
    "killed-mid-call": (UNAVAILABLE, "unknown", "held", "killed by signal 9", {}),
    "hangs": (FAILED, "unknown", "held", "did not answer within 1 s", {"call_s": 1.0}),
    "floods": (UNAVAILABLE, "unknown", "held", "that nobody had asked for", {}),
    "endless-line": (UNAVAILABLE, "unknown", "held", "wrote a line of more than", {}),
    "garbage-mid-call": (UNAVAILABLE, "unknown", "held", "not JSON-RPC", {}),
    "large": (FAILED, "failed", "held", "are allowed", {}),
    "wrong-shape": (FAILED, "failed", "failed", "no answer", {}),
    "nan": (FAILED, "failed", "failed", "not finite", {}),
    "tool-error": (FAILED, "failed", "failed", "did not work", {}),
}


@pytest.mark.parametrize(
    ("mode", "code", "outcome", "state", "word", "changes"),
    [(mode, *rest) for mode, rest in IN_A_CALL.items()],
    ids=IN_A_CALL,
)
def test_a_tool_server_that_fails_in_a_call(workshop, mode, code, outcome, state, word, changes):
    workshop.write(ASK, mode, **changes)
    error = workshop.run_inside().error(code, word, "odd")
    assert error.startswith("error: work.symbi:4:9: ")
    assert len(error) < 4000
    assert workshop.recorded("effect.outcome", "odd.echo", outcome, word)
    assert workshop.recorded("run.finished", state, word)
    workshop.works()


# --- agents without bounds -------------------------------------------------------------------------------------------------

LOOP = "for a in range(100000) { for b in range(100000) { let c = 1; } }"
ENDLESS = {
    "loops for ever": (LOOP, "limit.steps", {}),
    "loops until its time is over": (LOOP, "limit.time", {"timeout_s": 1, "steps": 10**12}),
    "nests for ever": ("let f = x => x; f = x => f(x) + 1; f(1);", "limit.nesting", {}),
    "calls itself for ever": ("again(1);", "limit.nesting", {}),
    "makes a text too large": ("let s = text; for i in range(60) { s = s + s; }", "limit.output", {}),
    "makes a list too large": ("let s = [1]; for i in range(60) { s = s + s; }", "limit.output", {"steps": 10**12}),
    "shares its parts without end": ("let s = [1]; for i in range(60) { s = [s, s]; } str(s);", "limit.output", {}),
    "makes a number too large": ("let n = 2; for i in range(99) { n = n * n; }", "limit.output", {}),
    "runs code without end": ('python("while True: pass");', "limit.time", {"timeout_s": 1}),
    "runs code that eats memory": ('python("[0] * 10 ** 9");', "limit.memory", {}),
    "runs code that prints without end": ('python("while True: print(1)");', "limit.output", {}),
}  # fmt: skip


@pytest.mark.parametrize(("body", "code", "changes"), ENDLESS.values(), ids=ENDLESS)
def test_an_agent_without_bounds(workshop, body, code, changes):
    workshop.write(body, **changes)
    file = workshop.folder / "work.symbi"
    workshop.put("work.symbi", file.read_text() + "function again(n: int) -> int { again(n + 1) }\n")
    error = workshop.run_inside().error(FAILED, code)
    # A time limit strikes anywhere.
    assert code == "limit.time" or re.match(r"error: (work\.symbi|<code>):\d+:\d+: ", error), error
    assert workshop.recorded("run.finished", "held", code)
    workshop.works()


def test_an_agent_that_claims_more_than_the_whole_pool_is_refused_at_once_with_the_numbers(workshop):
    workshop.write()
    config = (workshop.folder / "symbi.toml").read_text()
    workshop.put("symbi.toml", config.replace("[limits]", "[limits]\nmemory_mb = 64\ncpu_cores = 0.5"))
    file = workshop.folder / "work.symbi"
    workshop.put("work.symbi", file.read_text().replace("with ", 'with memory = "1GB", ', 1))
    said = workshop.run_inside().error(INPUT, "1024 MiB", "64 MiB", "500 milli-cores", "enlarge the pool")
    assert "can never be met" in said
    assert workshop.recorded("run.finished", "failed", "resources.impossible")
    workshop.works()


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ("memory = -5", "work.symbi:3:19: expected a value"),
        ('memory = "-5MB"', "is a whole number of mebibytes"),
        ("timeout = -1.seconds", "a minus sign stands in an expression only"),
    ],
)
def test_an_agent_with_a_negative_limit(workshop, said, word):
    file = workshop.folder / "work.symbi"
    workshop.put("work.symbi", file.read_text().replace("with ", f"with {said}, ", 1))
    assert "work.symbi:" in workshop.run_inside().error(INPUT, word)
    workshop.works()


def test_an_agent_that_hands_a_tool_a_huge_argument_is_denied(workshop):
    workshop.write('let s = text; for i in range(21) { s = s + s; } tool("odd.echo", text = s);')
    workshop.run_inside().error(DENIED, "does not fit the schema: it is larger than 4194304 bytes")
    assert workshop.recorded("run.finished", "held", "policy.denied")
    workshop.works()


def test_a_failure_within_code_names_the_code_and_the_call(workshop):
    workshop.write('let x = 1; python("y = 1\\n1 / 0");')
    said = workshop.run_inside()
    assert said.error(FAILED, "the code is that of work.symbi:4:20").startswith("error: <code>:")
    workshop.write("let big = 99999999999999999999;")
    assert workshop.run_inside().error(FAILED, "limit.output").startswith("error: work.symbi:4:19: ")
    workshop.works()


# --- what cannot be said ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_an_output_that_cannot_be_written_is_an_error_and_no_defect(workshop):
    workshop.works()
    for arguments in (["audit", "verify"], ["audit", "show"], ["audit", "verify", "--json"], ["config", "show"]):
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [sys.executable, "-m", "symbi.cli.main", *arguments], cwd=workshop.folder, stdout=full,
                stderr=subprocess.PIPE, text=True, timeout=60, check=False,
            )  # fmt: skip
        assert done.returncode == UNAVAILABLE
        assert done.stderr.startswith("error: cannot write what there is to say: ")
        assert len(done.stderr.splitlines()) == 1


def test_a_terminal_that_lacks_a_character_ends_no_command(workshop):
    environment = {"PYTHONIOENCODING": "ascii"}
    workshop.put("show.symbi", 'agent show(text: String) -> String { with { tool("desk.stat", path = text); text } }\n')
    done = workshop.symbi("run", "show.symbi", "--input", "text=né→", env=environment)
    assert done.error(FAILED, r"n\xe9\u2192")
    workshop.put("show.symbi", "agent show(text: String) -> String { with { text } }\n")
    done = workshop.symbi("run", "show.symbi", "--input", "text=né→", env=environment)
    assert (done.code, done.stdout) == (0, "n\\xe9\\u2192\n")
    assert workshop.symbi("audit", "show", env=environment).code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "reason", "place"),
    [
        (["run", "work.symbi", "--input", "text=hello"], INPUT, "dsl.syntax", "work.symbi:4:15"),
        (["run", "none.symbi"], INPUT, "input.unreadable", None),
        (["policy", "check"], INPUT, "policy.invalid", "policies/bad.cedar:1:7"),
        (["audit", "verify", "--export", "none"], INPUT, "input.export", None),
        (["audit", "show"], UNAVAILABLE, "unavailable.store_absent", None),
    ],
)
def test_an_error_is_one_json_document_where_json_is_asked_for(workshop, arguments, code, reason, place):
    workshop.write("let x 5;")
    if arguments[0] == "policy":
        workshop.put("policies/bad.cedar", "permit")
    said = workshop.inside(*arguments, "--json")
    told = json.loads(said.stdout)
    assert (said.code, told["code"], told["place"]) == (code, reason, place)
    assert "error: " not in said.stderr


def test_a_message_stays_on_its_line_and_cannot_steer_a_terminal(workshop):
    error = workshop.inside("run", "a\nerror: b\x1b[2J.symbi").error(INPUT, "No such file")
    assert "\x1b" not in error
    assert workshop.recorded("input.refused", "\\u001b[2J")
    shown = workshop.inside("audit", "show", "--type", "input.refused")
    assert "\x1b" not in shown.stdout
    assert len(shown.stdout.splitlines()) == 1
