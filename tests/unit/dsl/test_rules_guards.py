import pytest

from symbi.testing.requests import (
    PERSONAL,
    STRANGER,
    TAINTED,
    allocate,
    allowed,
    call,
    connect,
    create,
    execute,
    knowledge,
    log,
    memory,
    message,
    model,
    read,
    send,
)
from symbi.types import Priority, SecurityTier

# --- guards -----------------------------------------------------------------------------------

# (guard, request in which it is true, request in which it is false)
GUARDS = [
    ('to == "x"', send(to="x"), send(to="y")),
    ('arguments.to == "x"', send(to="x"), send(to="y")),
    ('context.arguments.to == "x"', send(to="x"), send(to="y")),
    ('"x" == to', send(to="x"), send(to="y")),
    ('to != "x"', send(to="y"), send(to="x")),
    ("to == cc", send(to="x", cc="x"), send(to="x", cc="y")),
    ("amount > 5", send(amount=6), send(amount=5)),
    ("amount >= 5", send(amount=5), send(amount=4)),
    ("amount < 5", send(amount=4), send(amount=5)),
    ("amount <= 5", send(amount=5), send(amount=6)),
    ("amount > -5", send(amount=-4), send(amount=-5)),
    ("5 < amount", send(amount=6), send(amount=5)),
    ("amount == 1_000", send(amount=1000), send(amount=1)),
    ("score > 0.5", send(score=0.6), send(score=0.5)),
    ("score >= 0.5", send(score=0.5), send(score=0.4)),
    ("score < 0.5", send(score=0.4), send(score=0.5)),
    ("score <= -0.5", send(score=-0.5), send(score=-0.4)),
    ("score == 1.0", send(score=1), send(score=2)),
    ("0.5 < score", send(score=0.6), send(score=0.5)),
    ("urgent == true", send(urgent=True), send(urgent=False)),
    ("urgent", send(urgent=True), send(urgent=False)),
    ("!urgent", send(urgent=False), send(urgent=True)),
    ("not urgent", send(urgent=False), send(urgent=True)),
    ('to in ["x", "y"]', send(to="y"), send(to="z")),
    ('to in ["x", "x",]', send(to="x"), send(to="z")),
    ("amount in [1, 2]", send(amount=2), send(amount=3)),
    ('["x", "y"].contains(to)', send(to="y"), send(to="z")),
    ('"x" in tags', send(tags=["x"]), send(tags=["y"])),
    ("to in tags", send(to="x", tags=["x"]), send(to="x", tags=["y"])),
    ("tags.contains(to)", send(to="x", tags=["x"]), send(to="x", tags=["y"])),
    ('to.contains("@")', send(to="a@b"), send(to="ab")),
    ('contains(to, "@")', send(to="a@b"), send(to="ab")),
    ('to.contains("*")', send(to="a*b"), send(to="ab")),
    ('to.contains("\\\\")', send(to="a\\b"), send(to="ab")),
    ('to.starts_with("a\\"*")', send(to='a"*b'), send(to='a"b')),
    ('to.ends_with("é\n")', send(to="é\n"), send(to="é")),
    ('starts_with(to, "a")', send(to="ab"), send(to="ba")),
    ('to == "x" && amount > 5', send(to="x", amount=6), send(to="x", amount=5)),
    ('to == "x" || amount > 5', send(to="y", amount=6), send(to="y", amount=5)),
    ('!(to == "x" || to == "y")', send(to="z"), send(to="y")),
    ('not (to == "x")', send(to="z"), send(to="x")),
    ('options.deep == "x"', send(options={"deep": "x"}), send(options={"deep": "y"})),
    ('arguments["x-y"] == "x"', send(**{"x-y": "x"}), send(**{"x-y": "y"})),
    ('arguments.risk == "x"', send(risk="x"), send(risk="y")),
    ('"cc" in arguments', send(cc="x"), send(to="x")),
    ('arguments.contains("cc")', send(cc="x"), send(to="x")),
    ('"anything" in arguments', send(anything={"a": 1}), send(to="x")),
    ('!("cc" in arguments)', send(), send(cc="x")),
    ('"cc" in arguments && cc == "x"', send(cc="x"), send(cc="y")),
    ('!("cc" in arguments) || cc == "x"', send(), send(cc="y")),
    ('label.integrity == "user"', send(), call("mail.send", label=TAINTED)),
    ('context.label.integrity != "untrusted"', send(), call("mail.send", label=TAINTED)),
    ('label.confidentiality in ["public", "internal"]', send(), call("mail.send", label=PERSONAL)),
    ('label.integrity.starts_with("us")', send(), call("mail.send", label=TAINTED)),
    (
        'labels.to.integrity != "untrusted"',
        call("mail.send", {"to": "x"}),
        call("mail.send", {"to": "x"}, labels={"to": TAINTED}),
    ),
    (
        'labels.to.confidentiality == "public"',
        call("mail.send", {"to": "x"}),
        call("mail.send", {"to": "x"}, labels={"to": PERSONAL}),
    ),
    ("data.verified", send(), call("mail.send", label=TAINTED)),
    ("!data.contains_pii", send(), call("mail.send", label=PERSONAL)),
    ('"mail/key" in secrets', call("mail.send", secrets=("mail/key",)), send()),
    ('secrets.contains("mail/key")', call("mail.send", secrets=("mail/key",)), send()),
    ('"anything" in opaque', send(anything=[1, "a"]), send()),
    ('principal.owner == "ada"', send(), call("mail.send", principal=STRANGER)),
    ('principal.trust == "trusted"', send(), call("mail.send", principal=STRANGER)),
    ('"ops" in principal.groups', send(), call("mail.send", principal=STRANGER)),
    ('principal.groups.contains("ops")', send(), call("mail.send", principal=STRANGER)),
    ("resource.verified", send(), call("mail.send", verified=False)),
    ("tool.verified == true", send(), call("mail.send", verified=False)),
    ('tool.recovery == "never-retry" && to == "x"', send(to="x"), send(to="y")),
    ('resource.server == "mail" && to == "x"', send(to="x"), send(to="y")),
    ("principal.owner == to", send(to="ada"), send(to="bob")),
]


@pytest.mark.parametrize(("guard", "true", "false"), GUARDS, ids=[case[0] for case in GUARDS])
def test_a_guard_decides_for_allow_and_deny(guard, true, false):
    allow, deny = f'allow: call("mail.send") if {guard}', f'allow: any deny: call("mail.send") if {guard}'
    assert [allowed(allow, true), allowed(allow, false)] == [True, False]
    assert [allowed(deny, true), allowed(deny, false)] == [False, True]


@pytest.mark.parametrize(
    "guard",
    [
        'to == "x"',
        'to != "x"',
        '!(to == "x")',
        'to in ["x"]',
        'to.contains("x")',
        "urgent",
        "!urgent",
        "score < 0.5",
        'options.deep == "x"',
        'labels.to.integrity == "user"',
        'cc == "y" && to == "x"',
        'cc == "x" || to == "x"',
        "to == cc",
        'anything == "x"',
    ],
)
def test_what_cannot_be_evaluated_allows_nothing_and_is_denied(guard):
    request = call("mail.send", {"cc": "y", "anything": "x"})
    assert not allowed(f'allow: call("mail.send") if {guard}', request)
    assert not allowed(f'allow: any deny: call("mail.send") if {guard}', request)


def test_what_is_decided_without_the_missing_part_is_decided():
    request = send(cc="y")
    assert allowed('allow: call("mail.send") if cc == "y" || to == "x"', request)
    assert allowed('allow: any deny: call("mail.send") if cc == "x" && to == "x"', request)


def test_an_argument_of_one_tool_may_have_another_type_on_another_server():
    rules = 'allow: call("files.read") if path == "x" deny: call("mail.send") if to == "y"'
    assert allowed(rules, read("x"))
    assert not allowed(rules, read("y"))


def test_a_guard_on_all_tools_of_a_server_denies_those_without_the_argument():
    rules = 'allow: any deny: call("mail.*") if command == "rm"'
    assert not allowed(rules, send(to="x"))
    assert allowed(rules, send(command="ls"))
    assert allowed(rules, read())


OTHER_GUARDS = [
    ("create()", "risk > 0.5", create(0.6), create(0.5)),
    ("create()", "risk > 1", create(1.5), create(1.0)),
    ("execute(any)", "risk > 0.9", execute(), execute(risk=0.9)),
    ("execute(any)", 'risk_tier == "gvisor"', execute(), execute(risk=0.4)),
    ("execute(any)", "cpu_milli > 500", execute(), execute(cpu_milli=500)),
    ("create()", 'tier == "docker"', create(tier=SecurityTier.TIER1), create()),
    ("create()", 'source_digest == "d" && "log" in inputs', create(inputs=("log",)), create()),
    ("create()", 'resource.owner == principal.owner && inputs.contains("log")', create(inputs=("log",)), create()),
    ("allocate()", "memory_mib <= 128", allocate(), allocate(256)),
    ("allocate()", "timeout <= 5m", allocate(timeout=300), allocate(timeout=301)),
    ("allocate()", "timeout == 300.seconds", allocate(timeout=300), allocate(timeout=301)),
    ("allocate()", "timeout_ms < 60_001", allocate(timeout=60), allocate(timeout=61)),
    ("allocate()", 'priority == "high"', allocate(priority=Priority.HIGH), allocate()),
    (
        "allocate()",
        "cpu_milli == 100 && disk_mibps == 0 && network_mibitps == 0 && memory_mib == 64",
        allocate(),
        allocate(65),
    ),
    ("connect(any)", 'command.starts_with("python") && principal.owner == "ada"', connect(), None),
    ("python", 'tier == "interpreter"', execute(), execute(SecurityTier.TIER1)),
    ("python", 'resource.tier in ["interpreter"]', execute(), execute(SecurityTier.TIER1)),
    ("python", "timeout <= 10s", execute(), execute(timeout=11.0)),
    ("python", 'label.integrity != "untrusted"', execute(), execute(label=TAINTED)),
    ("model(any)", 'resource.provider == "acme"', model(), None),
    ('read("notes")', 'resource.kind == "long"', memory("ReadData"), knowledge("ReadData")),
    ("send(any)", 'resource.trust == "standard"', message(), None),
]


@pytest.mark.parametrize(
    ("subject", "guard", "true", "false"), OTHER_GUARDS, ids=[f"{case[0]} {case[1]}" for case in OTHER_GUARDS]
)
def test_guards_read_the_attributes_of_every_action(subject, guard, true, false):
    assert allowed(f"allow: {subject} if {guard}", true)
    if false is not None:
        assert not allowed(f"allow: {subject} if {guard}", false)


def test_any_with_a_guard_means_the_actions_that_know_its_names():
    rules = 'allow: any deny: any if label.confidentiality == "confidential"'
    assert not allowed(rules, call("mail.send", label=PERSONAL))
    assert not allowed(rules, memory("ExportData", label=PERSONAL))
    assert allowed(rules, send())
    assert allowed(rules, create())
    assert not allowed("allow: any deny: any if risk > 0.7", create(0.8))
    assert allowed("allow: any deny: any if risk > 0.7", send())
    assert not allowed('allow: any if principal.owner == "bob"', log())
