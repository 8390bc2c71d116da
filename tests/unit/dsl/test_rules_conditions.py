from symbi.dsl.compile import compile_file
from symbi.dsl.parser import parse
from symbi.policy.decision import Allow, AllowWithConditions
from symbi.policy.engine import decide
from symbi.testing.requests import (
    PERSONAL,
    agent_file,
    allowed,
    call,
    conditions,
    create,
    execute,
    load,
    log,
    read,
    send,
)

# --- require and audit ------------------------------------------------------------------------


def test_an_approval_is_asked_for_every_allow_of_the_policy():
    rules = 'allow: call("mail.send") allow: log require: approval(user)'
    assert conditions(rules, send()) == [("approval", "user")]
    assert conditions(rules, log()) == [("approval", "user")]
    assert not allowed(rules, read())


def test_an_approval_with_a_guard_is_asked_where_it_holds_or_cannot_be_evaluated():
    rules = 'allow: call("mail.send") require: approval("ops") if amount > 500'
    assert conditions(rules, send(amount=501)) == [("approval", "ops")]
    assert conditions(rules, send()) == [("approval", "ops")]
    assert conditions(rules, send(amount=500)) == []


def test_an_approval_by_risk_concerns_the_creation_of_the_agent():
    rules = 'allow: create() allow: call("mail.send") require: approval(user) if risk > 0.5'
    assert conditions(rules, create(0.6)) == [("approval", "user")]
    assert conditions(rules, create(0.5)) == []
    assert conditions(rules, send()) == []


def test_a_guard_of_an_allow_stays_on_the_permit_that_bears_the_condition():
    rules = 'allow: call("mail.send") if to == "x" require: approval(user) if amount > 5'
    assert conditions(rules, send(to="x", amount=6)) == [("approval", "user")]
    assert conditions(rules, send(to="x", amount=5)) == []
    assert not allowed(rules, send(to="y", amount=6))


def test_requirements_of_one_policy_leave_another_policy_alone():
    source = """
    agent a {
      policy careful { allow: call("mail.send") require: approval(user) }
      policy free { allow: call("files.read") }
      with { return 1; }
    }"""
    policies = load(source)
    assert isinstance(decide(policies, send()), AllowWithConditions)
    assert isinstance(decide(policies, read()), Allow)


def test_requirements_of_a_policy_without_an_allow_hold_for_all_of_the_agent():
    source = """
    policy common { allow: log }
    agent a {
      policy rules { allow: call("mail.send") }
      policy always { require: approval(user) }
      with { return 1; }
    }"""
    policies = load(source)
    assert isinstance(decide(policies, send()), AllowWithConditions)
    assert isinstance(decide(policies, log()), AllowWithConditions)


def test_every_condition_reaches_the_permits_that_can_carry_it_out():
    rules = """allow: call("mail.send") allow: python allow: log
      require: { redact: ["cc", "options.deep"], cap: { amount: 500 }, tier: "gvisor", timeout: 30s, record: "digest" }"""
    assert conditions(rules, send()) == [
        ("cap", "arguments.amount=500"),
        ("record", "digest"),
        ("redact", "arguments.cc, arguments.options.deep"),
        ("timeout", "30000ms"),
    ]
    assert conditions(rules, execute()) == [("record", "digest"), ("tier", "gvisor"), ("timeout", "30000ms")]
    assert conditions(rules, log()) == [("record", "digest")]


def test_requirements_are_written_as_calls_words_and_lists_too():
    rules = """allow: call("mail.send")
      require: [approval(ops), redact("cc"), cap("amount", 5), timeout("1m"), record(full), "signature_verification"]"""
    assert conditions(rules, send()) == [
        ("approval", "ops"),
        ("cap", "arguments.amount=5"),
        ("record", "full"),
        ("redact", "arguments.cc"),
        ("timeout", "60000ms"),
    ]
    assert not allowed(rules, call("mail.send", verified=False))
    assert conditions("allow: python require: tier(tier1)", execute()) == [("tier", "docker")]
    for form in ('{ rate_limiting: "500/minute" }', 'rate_limiting("500/minute")'):
        assert conditions(f"allow: log require: {form}", log()) == [("rate", "500/minute")]


def test_two_approvals_are_both_asked_for():
    rules = "allow: log require: approval(ops) require: approval(legal)"
    assert conditions(rules, log()) == [("approval", "legal"), ("approval", "ops")]


def test_signature_verification_forbids_tools_that_are_not_verified():
    for form in ("{ signature_verification: true }", "signature_verification", '["signature_verification"]'):
        rules = f"allow: any require: {form}"
        assert allowed(rules, send())
        assert not allowed(rules, call("mail.send", verified=False))
        assert allowed(rules, log())
    rules = 'allow: any require: signature_verification if tool.server == "mail"'
    assert not allowed(rules, call("mail.send", verified=False))
    assert allowed(rules, call("files.read", {"path": "x"}, verified=False))


def test_audit_of_operations_adds_nothing_for_all_of_them_stand_in_the_trail():
    for subject in (
        "all_operations",
        "any",
        'call("mail.send")',
        "log",
        '["mail.send", "log"]',
        'log if label.integrity == "user"',
    ):
        source = agent_file(f"allow: log audit: {subject}")
        compiled = compile_file(parse(source, "t"), source)
        assert len(compiled.agents[0].policies) == 1
        assert conditions(f"allow: log audit: {subject}", log()) == []


def test_audit_says_how_arguments_are_recorded():
    assert conditions("allow: log audit: { include_input: false }", log()) == [("record", "digest")]
    assert conditions("allow: log audit: { include_input: true }", log()) == [("record", "full")]
    assert conditions('allow: log audit: { record: "redacted" }', log()) == [("record", "redacted")]
    rules = "allow: call(any) audit: { include_input: true } audit: { include_input: false } if data.contains_pii"
    assert conditions(rules, send()) == [("record", "full")]
    assert conditions(rules, call("mail.send", label=PERSONAL)) == [("record", "digest"), ("record", "full")]
