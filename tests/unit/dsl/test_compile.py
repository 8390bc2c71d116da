import hashlib

import pytest

from symbi.dsl import ast
from symbi.dsl.check import check
from symbi.dsl.compile import compile_file
from symbi.dsl.parser import parse
from symbi.errors import DslError
from symbi.testing.requests import SCHEMAS, load
from symbi.types import ResourceLimits, SecurityTier


def compiled(source, **more):
    return compile_file(parse(source, "dir/t.symbi"), source, **more)


def attributes(text):
    return compiled(f"agent a {{ with {text} {{ return 1; }} }}").agents[0]


SOURCE = """
metadata { version = "1.0", owner: ada, tags: ["x", 1, 0.5, true], rest: { wait: 30s, long: 2.hours } }
policy common { allow: log }
function shared() { return 1; }
function f() { return 1; }
agent a(log: String, n: int) -> int {
  capabilities = [log]
  capabilities: ["files.read", log2x.tool]
  policy p { allow: now }
  function f() { return 2; }
  with sandbox = DOCKER, timeout = 5m, memory = "1GB", max_cpu_cores = 0.25 { return f(); }
}
agent b { function main() { return shared(); } }
"""


def test_an_agent_file_becomes_specs():
    source = SOURCE.replace(", log2x.tool", ', "mail.*"')
    file = compiled(source)
    a, b = file.agents
    assert file.file == a.file == "dir/t.symbi"
    assert (a.id, b.id) == ("a", "b")
    assert a.source_digest == b.source_digest == hashlib.sha256(source.encode()).hexdigest()
    assert [(item.name, item.type.name) for item in a.parameters] == [("log", "String"), ("n", "int")]
    assert a.capabilities == ("log", "files.read", "mail.*")
    assert b.capabilities is None
    assert a.sandbox is SecurityTier.TIER1
    assert b.sandbox is None
    assert a.limits == ResourceLimits(memory_mb=1024, cpu_cores=0.25, execution_timeout=300.0)
    assert b.limits == ResourceLimits()
    assert a.settings == b.settings == ()
    assert [policy.id for policy in a.policies] == ["dir/t.symbi:7#capabilities", "dir/t.symbi:9"]
    assert b.policies == ()
    assert [policy.id for policy in file.policies] == ["dir/t.symbi:3#1", "dir/t.symbi:3#2"]
    assert file.metadata == (
        ("version", "1.0"),
        ("owner", "ada"),
        ("tags", ["x", 1, 0.5, True]),
        ("rest", {"wait": "30s", "long": "2.hours"}),
    )


def test_functions_are_those_of_the_file_with_the_agents_own_in_their_stead():
    a, b = compiled(SOURCE.replace(", log2x.tool", "")).agents
    assert {function.name: function.body for function in a.functions} == {
        "shared": ast.Block((ast.Return(ast.Number(1, "1")),)),
        "f": ast.Block((ast.Return(ast.Number(2, "2")),)),
    }
    assert [function.name for function in b.functions] == ["shared", "f", "main"]


def test_the_body_is_the_with_block_or_else_main():
    with_block = "agent a { with { return 1; } function main() { return 2; } }"
    own_main = "agent a { with timeout = 5s { } function main() { return 2; } } function main() { return 3; }"
    shared_main = "agent a { } function main() { return 3; }"
    for source, value in ((with_block, "1"), (own_main, "2"), (shared_main, "3")):
        block = compiled(source).agents[0].body
        assert block == ast.Block((ast.Return(ast.Number(int(value), value)),))
    assert compiled("agent a { function f() { return 1; } }").agents[0].body is None


@pytest.mark.parametrize(
    ("text", "tier"),
    [
        ("docker", SecurityTier.TIER1),
        ('"tier1"', SecurityTier.TIER1),
        ("TIER1", SecurityTier.TIER1),
        ('"gVisor"', SecurityTier.TIER2),
        ("Tier2", SecurityTier.TIER2),
        ("Interpreter", SecurityTier.INTERPRETER),
    ],
)
def test_sandboxes_are_read_in_any_case(text, tier):
    assert attributes(f"sandbox = {text}").sandbox is tier


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30),
        ("0.5", 0.5),
        ("30s", 30),
        ("30.seconds", 30),
        ("5m", 300),
        ('"30m"', 1800),
        ('"5.minutes"', 300),
        ('" 1h "', 3600),
        ("1d", 86_400),
    ],
)
def test_timeouts_are_durations_texts_or_seconds(text, seconds):
    assert attributes(f"timeout = {text}").limits.execution_timeout == seconds


@pytest.mark.parametrize(
    ("text", "mebibytes"),
    [
        ('memory = "100MB"', 100),
        ('memory = "100 MiB"', 100),
        ('memory = "100m"', 100),
        ('memory = "2GB"', 2048),
        ('memory = "0.5G"', 512),
        ('memory = "2048KB"', 2),
        ('memory = "1048576B"', 1),
        ("memory = 256", 256),
        ("max_memory_mb = 128", 128),
    ],
)
def test_memory_is_counted_in_mebibytes(text, mebibytes):
    assert attributes(text).limits.memory_mb == mebibytes


def test_limits_that_are_not_given_keep_their_defaults():
    limits = attributes("max_cpu_cores = 2").limits
    assert limits == ResourceLimits(cpu_cores=2.0)


def test_the_first_error_is_raised_with_all_of_them():
    source = "agent a {\n  with { return y; }\n}\nagent b { with { let z = 1; log(w); } }"
    with pytest.raises(DslError) as caught:
        compiled(source)
    error = caught.value
    assert str(error) == "dir/t.symbi:2:17: unknown name `y`"
    assert error.code == "dsl.unknown_name"
    assert error.fields["diagnostics"] == [
        {
            "severity": "error",
            "code": "dsl.unknown_name",
            "message": f"unknown name `{name}`",
            "file": "dir/t.symbi",
            "line": line,
            "column": column,
            "hint": "",
        }
        for name, line, column in (("y", 2, 17), ("w", 4, 33))
    ]


def test_warnings_do_not_stop_a_file():
    source = "agent a { with { let y = 1; return 2; } }"
    assert [item.severity for item in check(parse(source, "t"))] == ["warning"]
    assert compiled(source).agents[0].body is not None


def test_unknown_tools_stop_a_file_where_tools_are_known():
    source = 'agent a { with { tool("files.raed", path = "x"); } }'
    assert compiled(source)
    with pytest.raises(DslError, match="unknown tool"):
        compiled(source, tools=SCHEMAS)


def test_what_compiles_with_and_without_the_catalogue_is_the_same():
    source = 'agent a { policy p { allow: call("files.read") if path == "x" } with { return 1; } }'
    assert compiled(source) == compiled(source, tools={"files.read": ["path"]})


def test_policies_load_before_any_tool_is_known():
    source = """
    agent a {
      capabilities = ["files.read", "mail.*", python]
      policy p {
        allow: [files.read, "mail.*", python]
        allow: connect("files")
        deny: call("mail.send") if to.ends_with("@evil.example") || label.integrity == "untrusted"
        deny: export(data) if data.contains_pii
        require: { signature_verification: true, approval: "ops" }
      }
      with { return 1; }
    }"""
    assert load(source, types=()).warnings
    assert load(source).policies


def test_an_empty_file_compiles_to_nothing():
    file = compiled("")
    assert (file.agents, file.policies, file.metadata) == ((), (), ())


def test_the_digest_is_of_the_text_with_everything_in_it():
    plain = "agent a { with { return 1; } }"
    digests = {
        compiled(text).agents[0].source_digest for text in (plain, f"{plain}\n", f"// c\n{plain}", f"\ufeff{plain}")
    }
    assert len(digests) == 4
