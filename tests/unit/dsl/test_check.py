import pytest

from symbi.dsl import ast
from symbi.dsl.builtins import (
    CATCHABLE,
    EFFECTS,
    GENERIC_TYPES,
    LATER_DECLARATIONS,
    LATER_EFFECTS,
    METHODS,
    NEVER_CAUGHT,
    PURE,
)
from symbi.dsl.check import check
from symbi.dsl.parser import parse
from symbi.errors import Denied, InternalError, SymbiError


def found(source, tools=None):
    return check(parse(source, "t.symbi"), tools=tools)


def body(text, tools=None, head="agent a(x: String)", extra=""):
    return found(f"{head} {{ {extra} with {{ {text} }} }}", tools)


def one(diagnostics, severity="error"):
    assert [item.severity for item in diagnostics] == [severity], [str(item) for item in diagnostics]
    return diagnostics[0]


CLEAN = """
metadata { version: "1.0", tags: [a, "b"], limits: { wait: 30s, ratio: 0.5, on: true }, count = 3 }
type Finding = { name: String, hits: int }
type Result1 = Finding
type Id = String
function double(n: int) -> int { return n * 2; }
policy common { allow: create() }
agent a(log: String, names: List<Optional<Map<String, Id>>>) -> Finding {
  capabilities = ["files.read", "mail.*", python, log, now]
  policy p { allow: call("files.read") if path == "x" }
  function helper(text: String) { text.trim().split(",").map(x => upper(x)) }
  with sandbox = Interpreter, timeout = 30s, memory = "100MB", max_cpu_cores = 0.5 {
    let lines = helper(tool("files.read", path = log));
    let n = 0;
    let seen = { first: 1, "second key": 2 };
    for line in lines { if line.contains("x") && !(line in names) { n += double(n = 1); } }
    seen["third"] = len(lines);
    match n { 0 => log("none"), 1 => { log("one"); } other => log(str(other)) }
    if let _ = n { log("always"); }
    if let some = first(lines) { log(some); }
    if n > 2 { log("many"); } else if n > 1 { log("some"); } else { log("few"); }
    try { tool("mail.send", to = vault://mail/to, name = "n"); } catch (Denied e) { log(e.message); } catch (e) { return n; }
    let key = x => x.hits;
    let total = python("a + b", a = 1, b = n);
    let worst = if n > 0 { sort(lines, key) } else { [] };
    log(format("{} {x}", total, x = worst[0]));
    log(now());
    return Result1 { name: "n", hits: max(1, 2, n) + round(1.5, digits = 1) + min([1]) };
  }
}
agent b { function main() { random(); } }
agent c(image: String) {
  capabilities = [run]
  policy p { allow: run if program == "tool" }
  with sandbox = gvisor { run(image, ["tool"], inputs = { "a.txt": "x" }, outputs = ["o.json"], timeout = 30s).outputs }
}
"""


def test_a_file_that_uses_the_whole_language_is_clean():
    diagnostics = found(CLEAN)
    # `b` has no capabilities and `main` as its body
    assert [str(item) for item in diagnostics] == []


def test_an_empty_file_is_clean():
    assert found("") == ()


# (body, code, part of the message, part of the hint)
BODIES = [
    ("return y;", "unknown_name", "unknown name `y`", ""),
    ("let total = 1; return totl;", "unknown_name", "unknown name `totl`", "did you mean `total`"),
    ("return upper;", "function_as_value", "`upper` is a function", "x => upper(x)"),
    ("return map([1], upper);", "function_as_value", "`upper` is a function", "x => upper(x)"),
    ("uper(x);", "unknown_function", "unknown function `uper`", "did you mean `upper`"),
    ("frobnicate(x);", "unknown_function", "unknown function `frobnicate`", ""),
    ("x.uper();", "unknown_function", "unknown method `uper`", "did you mean `upper`"),
    ("[1].range();", "unknown_function", "unknown method `range`", ""),
    ("[x].tool();", "unknown_function", "unknown method `tool`", ""),
    ("files.read(path = x);", "unknown_name", "unknown name `files`", 'tool("files.read"'),
    ("x.a.b.uper();", "unknown_function", "unknown method `uper`", "upper"),
    ("len(x)(1);", "call", "only names and methods can be called", "let"),
    ("len();", "arguments", "`len` needs `value`", "len(value)"),
    ("len(x, x);", "arguments", "`len` takes 1 argument by position, not 2", "len(value)"),
    ("replace(x, x);", "arguments", "`replace` needs `new`", "replace(text, old, new)"),
    ("x.replace(x);", "arguments", "`replace` needs `new`", ""),
    ("x.trim(x);", "arguments", "`trim` takes 0 arguments by position, not 1", ""),
    ("round(1.5, digts = 1);", "arguments", "`round` has no parameter `digts`", "did you mean `digits`"),
    ("round(1.5, number = 1);", "arguments", "`number` is given by position already", ""),
    ("round(digits = 1, 1.5);", "arguments", "without a name stands after one with a name", ""),
    ("map([1], 2);", "arguments", "`map` takes a function here", "x => …"),
    ("[1].map(2);", "arguments", "`map` takes a function here", "x => …"),
    ("sort([1], key = 2);", "arguments", "`sort` takes a function here", "x => …"),
    ("let f = y => y; f();", "arguments", "`f` needs `x`", ""),
    ("let len = y => y;", "shadowed", "`len(…)` would not call this", "another name"),
    ("main();", "call", "`main` is run by the runtime", ""),
    ("tool();", "arguments", "`tool` needs `name`", "tool(name, …)"),
    ('tool(name = "a.b");', "arguments", "`tool` needs `name`", ""),
    ('tool("a.b", x);', "arguments", "`tool` takes 1 argument by position, not 2", "by name"),
    ('tool("a");', "unknown_tool", "`a` is not the name of a tool", "server.tool"),
    ('tool("a.*");', "unknown_tool", "`a.*` is not the name of a tool", "server.tool"),
    ("log();", "arguments", "`log` needs `message`", ""),
    ("log(x, to = 1);", "arguments", "`log` has no parameter `to`", ""),
    ("now(1);", "arguments", "`now` takes 0 arguments", ""),
    ("log(vault://key);", "vault", "to a tool, and to nothing else", "tool("),
    ('python("1", key = vault://key);', "vault", "to a tool, and to nothing else", "tool("),
    ('python("1", class = 1);', "arguments", "`class` is a word of Python", ""),
    ("y = 1;", "unknown_name", "unknown variable `y`", "let y"),
    ("let total = 1; totl += total;", "unknown_name", "unknown variable `totl`", "did you mean `total`"),
    ("y.z[0] = 1;", "unknown_name", "unknown variable `y`", ""),
    ("let y = 1; let y = y; return y;", "duplicate", "variable `y` is there already", "y = …"),
    ("for y in [1] { log(y); } return y;", "unknown_name", "unknown name `y`", ""),
    ("if let y = x { log(y); } log(y);", "unknown_name", "unknown name `y`", ""),
    ("match x { y => log(y) } log(y);", "unknown_name", "unknown name `y`", ""),
    ("try { log(x); } catch (e) { } log(e);", "unknown_name", "unknown name `e`", ""),
    ("return [y => y, y];", "unknown_name", "unknown name `y`", ""),
    ("return Nothing { a: 1 };", "unknown_type", "`Nothing` is no record type", "type"),
    ("try { log(x); } catch (Denid e) { }", "catch", "unknown kind of error `Denid`", "did you mean `Denied`"),
    ("try { log(x); } catch (InternalError e) { }", "catch", "unknown kind of error `InternalError`", ""),
    ("try { log(x); } catch (Denied) { }", "catch", "catches every error and calls it `Denied`", "catch (Denied e)"),
]


@pytest.mark.parametrize(("text", "code", "message", "hint"), BODIES, ids=[case[0] for case in BODIES])
def test_a_body_that_cannot_run_is_refused(text, code, message, hint):
    main = "function main() { return 1; }" if text == "main();" else ""
    error = next(item for item in body(text, extra=main) if item.severity == "error")
    assert error.code == f"dsl.{code}"
    assert message in error.message
    assert hint in error.hint
    assert error.place.line == 1
    assert error.place.column > len("agent a(x: String) {")


@pytest.mark.parametrize("name", LATER_EFFECTS)
def test_an_effect_without_a_room_is_refused_at_its_place(name):
    error = one(body(f"let y = 1; return [y, {name}(y)];"))
    assert error.message == f"`{name}` is not available in this release"
    assert error.code == "dsl.not_available"
    assert error.place.column == len("agent a(x: String) {  with { let y = 1; return [y, ") + 1


@pytest.mark.parametrize(
    "source",
    [
        'channel s { platform: "slack" }',
        'webhook s { path "/x" }',
    ],
)
def test_a_declaration_without_a_room_is_refused_at_its_place(source):
    word = source.split()[0]
    assert word in LATER_DECLARATIONS
    error = one(found(f"\n  {source}"))
    assert error.message == f"`{word}` is not available in this release"
    assert (error.place.line, error.place.column) == (2, 3)


@pytest.mark.parametrize("name", ["privacy", "security", "requires", "communication", "model"])
def test_an_attribute_that_nothing_enforces_is_refused(name):
    error = one(found(f'agent a {{ with {name} = "x" {{ return 1; }} }}'))
    assert error.message == f"`{name}` is not available in this release"
    assert error.place.column == len("agent a { with ") + 1


# (attributes, part of the message, part of the hint)
ATTRIBUTES = [
    ('sandbx = "docker"', "unknown attribute `sandbx`", "did you mean `sandbox`"),
    ("colour = red", "unknown attribute `colour`", "known are"),
    ("sandbox = firecracker", "`firecracker` is not available in this release", "`gvisor`"),
    ('sandbox = "Tier3"', "`Tier3` is not available in this release", "`gvisor`"),
    ("sandbox = E2B", "`E2B` is not available in this release", "`gvisor`"),
    ("sandbox = dokcer", "`dokcer` is not a sandbox", "did you mean `docker`"),
    ("sandbox = vm", "`vm` is not a sandbox", "use one of"),
    ("sandbox = 1", "is not a sandbox", "use one of"),
    ('timeout = "soon"', "`timeout` is a length of time", "30s"),
    ('timeout = "30"', "`timeout` is a length of time", "30s"),
    ("timeout = 0", "`timeout` is a length of time", "30s"),
    ("timeout = 0s", "`timeout` is a length of time", "30s"),
    ("timeout = 2y", "`timeout` is a length of time", "30s"),
    ("timeout = true", "`timeout` is a length of time", "30s"),
    ("timeout = [1]", "`timeout` is a length of time", "30s"),
    ('memory = "lots"', "`memory` is a whole number of mebibytes", "256MB"),
    ('memory = "100"', "`memory` is a whole number of mebibytes", "256MB"),
    ('memory = "1KB"', "`memory` is a whole number of mebibytes", "256MB"),
    ("memory = 0", "`memory` is a whole number of mebibytes", "256MB"),
    ("memory = 1.5", "`memory` is a whole number of mebibytes", "256MB"),
    (f'memory = "{"9" * 400}GB"', "`memory` is a whole number of mebibytes", "256MB"),
    (f"memory = {'9' * 300}", "`memory` is a whole number of mebibytes", "256MB"),
    ('max_memory_mb = "256"', "`max_memory_mb` is a number of mebibytes", "256MB"),
    ("max_memory_mb = 0.5", "`max_memory_mb` is a whole number of mebibytes", "256"),
    ("memory = 1, max_memory_mb = 1", "`max_memory_mb` sets what was set before", "keep one"),
    ("max_cpu_cores = 0", "`max_cpu_cores` is a number from 0.001", "0.5"),
    ("max_cpu_cores = 0.0001", "`max_cpu_cores` is a number from 0.001", "0.5"),
    ('max_cpu_cores = "1"', "`max_cpu_cores` is a number from 0.001", "0.5"),
    ("max_cpu_cores = 5000", "`max_cpu_cores` is a number from 0.001", "0.5"),
    ("max_network_mbps = 0", "`max_network_mbps` is a whole number of mebibits a second from 1", "8"),
    ("max_network_mbps = 1.5", "`max_network_mbps` is a whole number of mebibits a second from 1", "8"),
    ("max_network_mbps = 100001", "`max_network_mbps` is a whole number of mebibits a second from 1", "8"),
    ('max_network_mbps = "8"', "`max_network_mbps` is a whole number of mebibits a second from 1", "8"),
]


@pytest.mark.parametrize(("text", "message", "hint"), ATTRIBUTES, ids=[case[0][:40] for case in ATTRIBUTES])
def test_an_attribute_that_cannot_be_used_is_refused(text, message, hint):
    error = one(found(f"agent a {{ with {text} {{ return 1; }} }}"))
    assert message in error.message
    assert hint in error.hint


def test_a_long_timeout_is_a_warning():
    for text in ("timeout = 3601", "timeout = 2h", 'timeout = "90m"', 'timeout = "2.hours"'):
        assert one(found(f"agent a {{ with {text} {{ return 1; }} }}"), "warning").code == "dsl.long_timeout"
    assert found("agent a { with timeout = 3600 { return 1; } }") == ()


# (source, code, part of the message, part of the hint)
FILES = [
    ("agent a { with { 1; } with { 2; } }", "duplicate", "agent `a` has a `with` block already", "one"),
    ("agent a { with { 1; } } agent a { with { 1; } }", "duplicate", "agent `a` is there twice", ""),
    ("agent a { with { 1; } } type T = int type T = int", "duplicate", "type `T` is there twice", ""),
    ("type int = String", "duplicate", "type `int` is built in", "another name"),
    ("type List = { a: int }", "duplicate", "type `List` is built in", "another name"),
    ("type T = U", "unknown_type", "unknown type `U`", "declare it"),
    ("type T = Strin", "unknown_type", "unknown type `Strin`", "did you mean `String`"),
    ("type T = { a: List<Strin> }", "unknown_type", "unknown type `Strin`", "did you mean `String`"),
    ("type T = T", "type", "type `T` stands for itself", ""),
    ("type T = List", "type", "type `List` takes 1 types, not 0", "List<T>"),
    ("function f(a: Map<String>) { 1; }", "type", "type `Map` takes 2 types, not 1", "Map<T, K>"),
    ("function f(a: int<int>) { 1; }", "type", "type `int` takes 0 types, not 1", "`int`"),
    ("function f() -> Nothing { 1; }", "unknown_type", "unknown type `Nothing`", ""),
    ("agent a -> Nothing { with { 1; } }", "unknown_type", "unknown type `Nothing`", ""),
    ("function f() { 1; } function f() { 1; }", "duplicate", "function `f` is there twice", ""),
    ("function len() { 1; }", "duplicate", "function `len` is built in", "another name"),
    ("function tool() { 1; }", "duplicate", "function `tool` is built in", "another name"),
    ("function search() { 1; }", "duplicate", "function `search` is built in", "another name"),
    ("function f() { return y; }", "unknown_name", "unknown name `y`", ""),
    ("agent a(x: int) { with { 1; } function f() { return x; } }", "unknown_name", "unknown name `x`", ""),
    ("agent a(x: int) { with { f(); } function f(a: int) { a; } }", "arguments", "`f` needs `a`", "f(a)"),
    ("agent a { function main(x: int) { 1; } }", "main", "`main` takes no parameters", "function main()"),
    ("agent a { policy p { } policy p { } with { 1; } }", "duplicate", "policy `p` is there twice", ""),
    ("policy p { allow: log }", "policy", "policy `p` holds for no agent", "declare one"),
    ("metadata { a: 1 } metadata { a: 2 }", "duplicate", "metadata key `a` is there twice", ""),
    ("agent a { capabilities = [log, log] with { 1; } }", "duplicate", "capability `log` is there twice", ""),
    ("agent a { capabilities = [lgo] with { 1; } }", "capability", "`lgo` is no tool and no effect", "`log`"),
    ('agent a { capabilities = ["read"] with { 1; } }', "capability", "`read` is no tool and no effect", ""),
    ("agent a { capabilities = [tool] with { 1; } }", "capability", "`tool` is no tool and no effect", "server.tool"),
    ("agent a { capabilities = [len] with { 1; } }", "capability", "`len` is no tool and no effect", ""),
    ('agent a { capabilities = ["*"] with { 1; } }', "capability", "`*` is no tool and no effect", "server.*"),
    ('agent a { capabilities = ["a.b*"] with { 1; } }', "capability", "`a.b*` is no tool and no effect", ""),
    ("agent a { capabilities = [reason] with { 1; } }", "not_available", "`reason` is not available", ""),
]


@pytest.mark.parametrize(("source", "code", "message", "hint"), FILES, ids=[case[0] for case in FILES])
def test_a_declaration_that_cannot_be_used_is_refused(source, code, message, hint):
    errors = [item for item in found(source) if item.severity == "error"]
    assert errors[0].code == f"dsl.{code}"
    assert message in errors[0].message
    assert hint in errors[0].hint


def test_names_that_are_there_twice_are_refused_in_trees_that_no_parser_made():
    twice = (ast.Parameter("x", ast.TypeRef("int")),) * 2
    fields = (ast.Field("f", ast.Number(1, "1")),) * 2
    call = ast.Call(ast.Name("len"), (ast.Argument(ast.Number(1, "1"), "value"),) * 2)
    block = ast.With(
        (ast.Entry("timeout", ast.Number(1, "1")),) * 2, ast.Block((ast.ExprStatement(call),), ast.Record(fields))
    )
    file = ast.File(
        "t",
        (
            ast.Agent("a", twice, None, (block,)),
            ast.Function("g", twice, None, ast.Block()),
            ast.TypeAliasDecl("T", fields=(ast.TypeField("k", ast.TypeRef("int")),) * 2),
            ast.Metadata((ast.Entry("m", ast.Record(fields)),) * 2),
        ),
    )
    assert {item.message for item in check(file)} == {
        "parameter `x` is there twice",
        "field `f` is there twice",
        "argument `value` is there twice",
        "field `k` is there twice",
        "metadata key `m` is there twice",
        "`timeout` sets what was set before",
    }
    odd = ast.File("t", (ast.Metadata((ast.Entry("m", ast.VaultRef("k")),)),))
    assert one(check(odd)).message == "metadata holds plain values"


def test_a_record_has_exactly_the_fields_of_its_type():
    types = "type P = { name: String, age: int } type Q = P "
    for name in ("P", "Q"):
        assert found(f'{types} function f() {{ return {name} {{ age: 1, name: "n" }}; }}') == ()
        missing = one(found(f"{types} function f() {{ return {name} {{ age: 1 }}; }}"))
        assert missing.message == f"`{name}` lacks `name`"
        wrong = found(f'{types} function f() {{ return {name} {{ age: 1, name: "n", agee: 2 }}; }}')
        assert one(wrong).hint == "did you mean `age`?"
    assert "no record type" in one(found("type T = int function f() { return T { a: 1 }; }")).message


# (body, code, part of the message)
WARNINGS = [
    ("let y = 1;", "unused", "variable `y` is never read"),
    ("let y = 1; y = 2;", "unused", "variable `y` is never read"),
    ("for y in [1] { log(x); }", "unused", "variable `y` is never read"),
    ("if let y = x { log(x); }", "unused", "variable `y` is never read"),
    ("match x { y => log(x) }", "unused", "variable `y` is never read"),
    ("return map([1], y => 1);", "unused", "variable `y` is never read"),
    ("return 1; log(x); log(x);", "unreachable", "this is never reached"),
    ("return 1; x", "unreachable", "this is never reached"),
    ("if x { return 1; } else if x { return 2; } else { return 3; } log(x);", "unreachable", "this is never reached"),
    ("match x { _ => 1, 2 => 2 }", "unreachable", "this is never reached"),
    ("match x { 2 => 1, 2 => 2 }", "unreachable", "this is never reached"),
    ("try { log(x); } catch (e) { } catch (Denied e) { }", "unreachable", "this is never reached"),
    ("try { log(x); } catch (Denied e) { } catch (Denied e) { }", "unreachable", "this is never reached"),
    ("try { log(x); }", "try", "a `try` without `catch` changes nothing"),
    ("return not x in [x];", "not", "`not a in b` means `(not a) in b`"),
    ("return not x == x;", "not", "`not a == b` means `(not a) == b`"),
]


@pytest.mark.parametrize(("text", "code", "message"), WARNINGS, ids=[case[0] for case in WARNINGS])
def test_what_is_probably_not_meant_is_a_warning(text, code, message):
    warning = one(body(text), "warning")
    assert warning.code == f"dsl.{code}"
    assert message in warning.message


@pytest.mark.parametrize(
    "text",
    [
        "let _y = 1; for _ in [1] { log(x); } match x { _z => 1 }",
        "let y = [1]; y[0] = 2;",
        "if x { return 1; } log(x);",
        "if x { return 1; } else { log(x); } log(x);",
        "return (not x) in [x];",
        "return !(x in [x]);",
        "return !x == x;",
        "let y = 1; if y > 0 { let y = 2; log(y); }",
        "let log = 1; return log;",
    ],
)
def test_what_may_well_be_meant_is_none(text):
    assert body(text) == ()


def test_a_bare_not_is_seen_in_policies_too():
    rules = 'policy p { deny: call("a.b") if not urgent == true }'
    codes = {item.code for item in body("return 1;", extra=rules)}
    assert "dsl.not" in codes


def test_agents_that_do_nothing_are_a_warning():
    for source in ("agent a { }", "agent a { with timeout = 5s { } }", "agent a { function f() { return 1; } }"):
        assert one(found(source), "warning").code == "dsl.no_body"
    assert found("agent a(x: int) { with timeout = 5s { } function main() { return x; } }") == ()
    assert found("agent a(x: int) { } function main() { return x; }") == ()
    assert one(found("agent a { with { return 1; } function main() { 1; } }"), "warning").code == "dsl.main"


def test_what_capabilities_leave_out_is_a_warning_where_it_is_used():
    extra = 'capabilities = ["a.b", "c.*", log]'
    assert body('tool("a.b"); tool("c.d"); log(x);', extra=extra) == ()
    for text in ('tool("a.c");', "now();", 'python("1");', "random();"):
        assert one(body(text, extra=extra), "warning").code == "dsl.capability"
    for rule in ('call("a.c")', "now", "python", 'connect("z")', 'use("llm")', 'read("notes")', 'call("z.*")'):
        assert one(body("return 1;", extra=f"{extra} policy p {{ allow: {rule} }}"), "warning").code == "dsl.capability"
    for rule in ('call("a.*")', "any", "log", 'connect("a")', "create()", "allocate()", "call(any)"):
        assert body("return 1;", extra=f"{extra} policy p {{ allow: {rule} }}") == ()


def test_tools_are_checked_where_they_are_known():
    assert body('tool("any.thing", what = "ever");') == ()
    assert body('tool("files.read", path = x);', ["files.read"]) == ()
    error = one(body('tool("files.raed");', ["files.read"]))
    assert (error.code, error.hint) == ("dsl.unknown_tool", "did you mean `files.read`?")
    assert one(body('tool("zzz.zzz");', ["files.read"])).hint
    assert one(body("return 1;", ["files.read"], extra='capabilities = ["file.*"]')).hint == "did you mean `files`?"
    arguments = {"files.read": ["path"], "free.form": None}
    assert body('tool("files.read", path = x); tool("free.form", anything = x);', arguments) == ()
    error = one(body('tool("files.read", pth = x);', arguments))
    assert (error.message, error.hint) == ("`files.read` takes no argument `pth`", "did you mean `path`?")


def test_functions_of_agent_and_file_see_each_other():
    source = """
    function shared(n: int) { return n; }
    agent a {
      function own(n: int) { return shared(n) + other(n); }
      function other(n: int) { return own(n); }
      with { return own(shared(1)); }
    }
    agent b { with { return own(1); } }"""
    assert one(found(source)).message == "unknown function `own`"


def test_an_own_function_stands_before_that_of_the_file():
    source = "function f(a: int) { return a; } agent a { function f() { return 1; } with { return f(); } }"
    assert found(source) == ()


def test_main_of_the_file_sees_the_inputs_of_each_agent_that_runs_it():
    source = "function main() { return x; } agent a(x: int) { } agent b(y: int) { }"
    assert one(found(source)).message == "unknown name `x`"


def test_diagnostics_stand_in_the_order_of_the_source_and_once():
    source = """policy common { allow: nonsense }
agent a { with { return y; } }
agent b { with { let z = 1; return w; } }"""
    places = [(item.place.line, item.severity) for item in found(source)]
    assert places == [(1, "error"), (2, "error"), (3, "warning"), (3, "error")]


def test_the_deepest_file_that_parses_is_checked():
    for text in (
        "if x { " * 250 + "log(x);" + " }" * 250,
        "return " + "len(" * 250 + "x" + ")" * 250 + ";",
        "return x" + ".trim()" * 120 + ";",
        "return " + "[" * 250 + "]" * 250 + ";",
        "return " + "_y => " * 200 + "1;",
        "if x { log(x); }" + " else if x { log(x); }" * 200,
    ):
        assert body(text) == ()


def test_the_tables_of_builtins_do_not_overlap_and_keep_their_word():
    names = [*EFFECTS, *PURE, *LATER_EFFECTS]
    assert len(names) == len(set(names))
    assert set(PURE) > METHODS
    for name, signature in {**EFFECTS, **PURE}.items():
        assert signature.name == name
        assert signature.required <= len(signature.parameters)
        assert len(set(signature.parameters)) == len(signature.parameters)
    for method in METHODS:
        assert PURE[method].parameters
    assert set(GENERIC_TYPES.values()) == {1, 2}


def test_what_ends_a_run_cannot_be_named_in_a_catch():
    for kinds in CATCHABLE.values():
        for kind in kinds:
            assert issubclass(kind, SymbiError)
            assert kind not in NEVER_CAUGHT
            assert not issubclass(kind, InternalError)
    assert {kind for kinds in CATCHABLE.values() for kind in kinds if not issubclass(kind, Denied)} < set(
        CATCHABLE["Error"]
    )
    assert Denied in CATCHABLE["Error"]
