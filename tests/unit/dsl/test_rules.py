from decimal import Decimal

import pytest

from symbi.dsl.compile import compile_file
from symbi.dsl.parser import parse
from symbi.dsl.rules import capability_bound, compile_rules, covers
from symbi.dsl.vocabulary import ATTRIBUTES, VERB_BY_WORD, VERBS
from symbi.errors import DslError
from symbi.policy.decision import Allow, Deny
from symbi.policy.engine import decide
from symbi.testing.requests import (
    PERSONAL,
    TAINTED,
    agent_file,
    allocate,
    allowed,
    call,
    clock,
    connect,
    create,
    execute,
    judge,
    knowledge,
    load,
    log,
    memory,
    message,
    model,
    publish,
    random,
    read,
    send,
    subscribe,
    write,
)
from symbi.types import AgentId, Principal, SecurityTier


def errors(rules, extra="", tools=None):
    with pytest.raises(DslError) as caught:
        load(agent_file(rules, extra), tools)
    return caught.value


# (subject, requests it covers, requests it does not)
SUBJECTS = [
    ('call("mail.send")', [send()], [read(), log(), connect("mail")]),
    ("call(mail.send)", [send()], [read()]),
    ('tool("mail.send")', [send()], [read()]),
    ('invoke("mail.send", "files.read")', [send(), read()], [write()]),
    ('call(["mail.send", "files.read"])', [send(), read()], [write()]),
    ('call("files.*")', [read(), write()], [send()]),
    ("call(any)", [send(), read(), write()], [log(), model()]),
    ('use("mail.send")', [send()], [model()]),
    ('use("llm")', [model(), model("other")], [send()]),
    ('use("python")', [execute()], [log()]),
    ("use(any)", [send(), model()], [execute()]),
    ('model("m")', [model()], [model("other")]),
    ("model(any)", [model(), model("other")], [send()]),
    ('connect("files")', [connect()], [connect("mail"), read()]),
    ("connect(files)", [connect()], [connect("mail")]),
    ("connect(any)", [connect(), connect("mail")], [read()]),
    ("create()", [create()], [allocate()]),
    ("create(self)", [create()], [allocate()]),
    ("create(a)", [create()], [allocate()]),
    ("create(any)", [create()], [allocate()]),
    ("allocate()", [allocate()], [create()]),
    ("allocate(pool)", [allocate()], [create()]),
    ("python", [execute(), execute(SecurityTier.TIER1)], [log()]),
    ("execute()", [execute(), execute(SecurityTier.TIER1)], [log()]),
    ('execute("interpreter")', [execute()], [execute(SecurityTier.TIER1)]),
    ("execute(Tier1)", [execute(SecurityTier.TIER1)], [execute()]),
    ("execute(any)", [execute(), execute(SecurityTier.TIER2)], [log()]),
    ("log", [log()], [clock(), random()]),
    ("log()", [log()], [clock()]),
    ("now", [clock()], [log()]),
    ("clock", [clock()], [random()]),
    ("random", [random()], [clock()]),
    ('"log"', [log()], [clock()]),
    ('["mail.send", "log", files.read]', [send(), log(), read()], [write(), clock()]),
    ('"files.*"', [read(), write()], [send()]),
    ('[call("mail.send"), now]', [send(), clock()], [log()]),
    ('read("notes")', [memory("ReadData"), knowledge("ReadData")], [memory("ReadData", "diary"), memory("WriteData")]),
    ('write("notes")', [memory("WriteData"), knowledge("WriteData")], [memory("WriteData", "diary"), send()]),
    ('export("notes")', [memory("ExportData")], [memory("ExportData", "diary"), memory("ReadData"), send()]),
    ('send("b")', [message()], [message("c")]),
    ("send(any)", [message(), message("c")], [publish()]),
    ('publish("news")', [publish()], [publish("gossip")]),
    ('subscribe("news")', [subscribe()], [publish()]),
]


@pytest.mark.parametrize(("subject", "inside", "outside"), SUBJECTS, ids=[case[0] for case in SUBJECTS])
def test_allow_permits_what_its_subject_names_and_nothing_else(subject, inside, outside):
    policies = load(agent_file(f"allow: {subject}"))
    assert [type(decide(policies, request)) for request in inside] == [Allow] * len(inside)
    for request in outside:
        denied = decide(policies, request)
        assert isinstance(denied, Deny)
        assert not denied.errors


@pytest.mark.parametrize(("subject", "inside", "outside"), SUBJECTS, ids=[case[0] for case in SUBJECTS])
def test_deny_forbids_what_its_subject_names(subject, inside, outside):
    policies = load(agent_file(f"allow: any deny: {subject}"))
    for request in inside:
        denied = decide(policies, request)
        assert isinstance(denied, Deny)
        assert denied.policies[0].line == 1
    assert [type(decide(policies, request)) for request in outside] == [Allow] * len(outside)


def test_nothing_is_allowed_without_a_rule():
    for request in (send(), log(), create(), allocate(), connect(), execute(), clock(), random(), model()):
        assert not allowed("", request)


@pytest.mark.parametrize("word", ["any", "all", "all_operations", "everything"])
def test_any_stands_for_every_action(word):
    everything = (
        send(),
        read(),
        log(),
        create(),
        allocate(),
        connect(),
        execute(),
        clock(),
        random(),
        model(),
        message(),
    )
    for request in everything:
        assert allowed(f"allow: {word}", request)
        assert not allowed(f"allow: any deny: {word}", request)


# --- data -------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["any", "all", "data", "input", "records"])
def test_allow_of_data_verbs_covers_stores_and_no_tool(word):
    for verb, action in (("read", "ReadData"), ("write", "WriteData"), ("export", "ExportData")):
        rules = f"allow: {verb}({word})"
        assert allowed(rules, memory(action))
        assert allowed(rules, knowledge(action))
        assert not allowed(rules, read())
        assert not allowed(rules, send())
        assert not allowed(rules, model())


def test_deny_of_all_reading_also_stops_every_tool():
    rules = "allow: any deny: read(any)"
    assert [allowed(rules, request) for request in (memory("ReadData"), read(), write())] == [False, False, False]
    assert allowed(rules, memory("WriteData"))


def test_deny_of_all_writing_also_stops_every_tool_that_is_not_read_only():
    rules = "allow: any deny: write(any)"
    assert [allowed(rules, request) for request in (memory("WriteData"), write(), send())] == [False, False, False]
    assert allowed(rules, read())
    assert allowed(rules, memory("ReadData"))


def test_deny_of_all_export_also_stops_tools_and_models():
    rules = "allow: any deny: export(any)"
    assert [allowed(rules, request) for request in (memory("ExportData"), read(), model())] == [False, False, False]
    assert allowed(rules, log())


def test_reading_by_a_tool_is_allowed_only_where_the_tool_is_declared_read_only():
    assert allowed('allow: read("files.*")', read())
    assert not allowed('allow: read("files.*")', write())
    assert allowed('allow: write("files.write")', write())
    assert not allowed('allow: any deny: write("files.*")', write())
    assert allowed('allow: any deny: write("files.*")', read())
    assert not allowed('allow: any deny: read("files.read")', read())
    assert not allowed('allow: any deny: export("mail.*")', send())


def test_deny_of_export_of_personal_data_follows_the_label():
    rules = "allow: any deny: export(data) if data.contains_pii == true"
    for bad in (
        memory("ExportData", label=PERSONAL),
        call("mail.send", label=PERSONAL),
        call("files.read", {"path": "x"}, label=PERSONAL),
    ):
        assert not allowed(rules, bad)
    for good in (memory("ExportData"), send(), model(), memory("ReadData", label=PERSONAL)):
        assert allowed(rules, good)


def test_allow_of_verified_input_follows_the_label():
    rules = "allow: read(input) if input.verified == true"
    assert allowed(rules, memory("ReadData"))
    assert not allowed(rules, memory("ReadData", label=TAINTED))
    assert allowed("allow: read(records) if records.verified", memory("ReadData"))
    assert not allowed("allow: read(records) if records.verified", memory("ReadData", label=TAINTED))


def test_the_owner_of_a_store_is_asked():
    rules = 'allow: read(any) if resource.owner == "ada"'
    assert allowed(rules, memory("ReadData"))
    assert not allowed(rules, memory("ReadData", owner="bob"))
    assert allowed(rules, knowledge("ReadData"))
    deny = 'allow: any deny: read(any) if resource.owner == "bob"'
    assert allowed(deny, memory("ReadData"))
    assert not allowed(deny, memory("ReadData", owner="bob"))
    assert allowed(deny, knowledge("ReadData"))
    assert allowed(deny, read())


# --- scope, ids, capabilities -----------------------------------------------------------------


def test_policies_are_about_their_agent_alone():
    source = """
    agent a { policy p { allow: log } with { return 1; } }
    agent b { with { return 1; } }"""
    policies = load(source)
    assert isinstance(decide(policies, log()), Allow)
    assert isinstance(decide(policies, log(Principal(AgentId("b")))), Deny)


def test_policies_of_the_file_hold_for_each_of_its_agents_and_no_other():
    source = """
    policy common { allow: [log, create()] }
    agent a { with { return 1; } }
    agent b { with { return 1; } }"""
    policies = load(source)
    for name, kind in (("a", Allow), ("b", Allow), ("c", Deny)):
        principal = Principal(AgentId(name))
        assert isinstance(decide(policies, log(principal)), kind)
        assert isinstance(decide(policies, create(principal=principal)), kind)


def test_an_agent_that_writes_its_own_name_into_a_rule_cannot_create_another():
    assert "`create` knows no `b`" in errors("allow: create(b)").message


def test_ids_name_the_line_and_number_what_stands_together():
    source = 'agent a {\n  capabilities = [log]\n  policy p {\n    allow: log\n    allow: ["log", now]\n    deny: random deny: now\n  }\n}\n'
    file = parse(source, "dir/t.symbi")
    made = compile_file(file, source).agents[0].policies
    assert [policy.id for policy in made] == [
        "dir/t.symbi:2#capabilities",
        "dir/t.symbi:4",
        "dir/t.symbi:5#1",
        "dir/t.symbi:5#2",
        "dir/t.symbi:6#1",
        "dir/t.symbi:6#2",
    ]
    assert [(policy.place.line, policy.place.column) for policy in made][1:3] == [(4, 5), (5, 5)]


def test_ids_stay_apart_where_agents_share_lines_and_policies():
    source = "policy p { allow: log }\nagent a { capabilities = [log] } agent b { capabilities = [log] }\n"
    compiled = compile_file(parse(source, "t"), source)
    ids = [policy.id for policy in (*compiled.policies, *compiled.agents[0].policies, *compiled.agents[1].policies)]
    assert ids == ["t:1#1", "t:1#2", "t:2#capabilities1", "t:2#capabilities2"]


def test_capabilities_bound_what_policies_allow():
    bound = 'capabilities = ["mail.send", "files.*", log] capabilities: [now]'
    inside = (send(), read(), write(), log(), clock(), create(), allocate(), connect("mail"), connect("files"))
    outside = (
        call("other.path", {"path": 1}),
        random(),
        execute(),
        connect("other"),
        model(),
        message(),
        memory("ReadData"),
    )
    for request in inside:
        assert allowed("allow: any", request, bound)
        assert not allowed("", request, bound)
    for request in outside:
        denied = judge("allow: any", request, bound)
        assert isinstance(denied, Deny)
        assert denied.policies[0].id == "t.symbi:1#capabilities"


def test_empty_capabilities_leave_nothing_but_the_agent_itself():
    for request in (send(), log(), clock(), execute(), connect("mail")):
        assert not allowed("allow: any", request, "capabilities = []")
    assert allowed("allow: any", create(), "capabilities = []")
    assert allowed("allow: any", allocate(), "capabilities = []")


def test_no_capabilities_set_no_bound():
    source = agent_file("allow: log")
    assert [policy.id for policy in compile_file(parse(source, "t"), source).agents[0].policies] == ["t:1"]


def test_very_many_capabilities_still_make_a_policy_that_loads():
    tools = [f"s{number}.tool" for number in range(400)] + [f"t{number}.*" for number in range(200)]
    text = capability_bound("a", tools)
    names = ", ".join(f'"{tool}"' for tool in tools)
    source = f"agent a {{ capabilities = [{names}] with {{ return 1; }} }}"
    assert load(source).by_id["t.symbi:1#capabilities"].text == text


def test_names_with_quotes_and_controls_cannot_leave_their_string():
    name = '")}; permit(principal, action, resource); //\u202e\n'
    source = agent_file('allow: send("' + name.replace('"', '\\"') + '")')
    policies = load(source)
    assert len(policies.policies) == len(load(agent_file("allow: log")).policies)
    assert isinstance(decide(policies, message(name)), Allow)
    assert isinstance(decide(policies, message("b")), Deny)


def test_covers_matches_names_and_servers():
    listed = ("a.b", "c.*", "log")
    assert [covers(listed, wanted) for wanted in ("a.b", "c.d", "log", "a.*", "c.*")] == [True] * 5
    assert [covers(listed, wanted) for wanted in ("a.c", "b.c", "now", "d.*", "ca.b")] == [False] * 5
    assert not covers(("log.*",), "log")


def test_a_rule_that_makes_too_deep_cedar_is_refused_at_its_place():
    guard = "!(" * 60 + 'to == "x"' + ")" * 60
    assert "nested" in errors(f'deny: call("mail.send") if {guard}').message
    long = " || ".join(f'to == "{number}"' for number in range(80))
    assert errors(f'allow: call("mail.send") if {long}').place is not None


def test_policies_of_a_file_without_agents_are_refused():
    source = "policy p { allow: log }"
    with pytest.raises(DslError, match="holds for no agent"):
        compile_file(parse(source, "t"), source)


def test_the_tables_name_actions_and_words_once():
    assert len(VERB_BY_WORD) == sum(1 + len(verb.aliases) for verb in VERBS)
    assert {action for verb in VERBS for action in (*verb.actions, *verb.denies)} <= set(ATTRIBUTES)
    for verb in VERBS:
        assert verb.form
        assert verb.meaning


def test_every_form_in_the_table_of_verbs_compiles():
    for verb in VERBS:
        for form in verb.form.split(", "):
            for effect in ("allow", "deny"):
                assert load(agent_file(f"{effect}: {form}")).policies


def test_decimal_literals_keep_what_was_written():
    source = agent_file("allow: create() if risk > 0.1")
    text = compile_file(parse(source, "t"), source).agents[0].policies[0].text
    assert 'decimal("0.1")' in text
    assert Decimal("0.1") == Decimal(text.split('"')[-2])


def test_compiling_rules_twice_gives_the_same():
    source = agent_file("allow: any deny: export(data) if data.contains_pii require: approval(user) if risk > 0.5")
    file = parse(source, "t")
    assert compile_file(file, source) == compile_file(file, source)
    assert compile_rules.__doc__
