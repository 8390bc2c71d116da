from symbi.policy.decision import Allow, AllowWithConditions
from symbi.policy.engine import decide
from symbi.testing.requests import (
    PERSONAL,
    allowed,
    call,
    conditions,
    create,
    execute,
    load,
    log,
    read,
    send,
    write,
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


def test_audit_of_operations_says_that_their_permits_record_in_full():
    full = [("record", "full")]
    for subject in ("all_operations", "any", "log", '["mail.send", "log"]', 'log if label.integrity == "user"'):
        assert conditions(f"allow: log audit: {subject}", log()) == full, subject
    assert conditions('allow: log audit: call("mail.send")', log()) == []
    assert conditions('allow: log audit: log if label.integrity == "untrusted"', log()) == []


def test_audit_of_operations_reaches_what_other_policies_of_the_file_allow():
    source = """
    policy common { audit: all_operations allow: log }
    agent a { policy rules { allow: call("mail.send") } with { return 1; } }"""
    policies = load(source)
    decision = decide(policies, send())
    assert isinstance(decision, AllowWithConditions)
    assert sorted(ref.line for ref in decision.policies) == [2, 3]


def test_audit_of_one_tool_narrows_a_wider_allow_and_is_narrowed_by_a_narrower_one():
    rules = 'allow: call(any) audit: call("files.read")'
    assert conditions(rules, read()) == [("record", "full")]
    assert conditions(rules, send()) == []
    rules = 'allow: call("files.read") allow: call("mail.send") audit: call("files.*")'
    assert conditions(rules, read()) == [("record", "full")]
    assert conditions(rules, send()) == []
    rules = 'allow: read("files.read") audit: call(any)'
    assert conditions(rules, read()) == [("record", "full")]
    assert not allowed(rules, write())


def test_a_condition_that_fits_some_actions_reaches_them_out_of_any():
    rules = 'allow: any require: { mark: "untrusted", redact: "cc" }'
    assert conditions(rules, log()) == []
    assert conditions(rules, send()) == [("mark", "untrusted"), ("redact", "arguments.cc")]


def test_a_condition_stands_at_the_line_that_asks_for_it():
    source = """
    agent a {
      policy p {
        allow: call("mail.send")
        require: approval(user) if amount > 5
        audit: { include_input: false }
      }
      with { return 1; }
    }"""
    policies = load(source)
    assert sorted(ref.line for ref in decide(policies, send(amount=6)).policies) == [4, 5, 6]
    assert sorted(ref.line for ref in decide(policies, send(amount=5)).policies) == [4, 6]


def test_audit_says_how_arguments_are_recorded():
    assert conditions("allow: log audit: { include_input: false }", log()) == [("record", "digest")]
    assert conditions("allow: log audit: { include_input: true }", log()) == [("record", "full")]
    assert conditions('allow: log audit: { record: "redacted" }', log()) == [("record", "redacted")]
    rules = "allow: call(any) audit: { include_input: true } audit: { include_input: false } if data.contains_pii"
    assert conditions(rules, send()) == [("record", "full")]
    assert conditions(rules, call("mail.send", label=PERSONAL)) == [("record", "digest"), ("record", "full")]


def test_audit_says_what_else_is_told():
    rules = """allow: log audit: { log_level: "warning", include_input: false, include_output: true, retention_days: 365,
      compliance_tags: ["SOC2", GDPR] }"""
    assert conditions(rules, log()) == [
        ("log", "warning"),
        ("output", "full"),
        ("record", "digest"),
        ("retain", "365d"),
        ("tags", "SOC2, GDPR"),
    ]


def test_a_rate_is_asked_for_in_three_forms():
    for form in ('{ rate_limiting: "500/minute" }', 'rate("500/minute")', 'rate_limiting("500/minute")'):
        assert conditions(f"allow: log require: {form}", log()) == [("rate", "500/minute")]


def test_a_mark_is_asked_for_of_what_gives_something_back():
    rules = 'allow: call("mail.send") allow: python allow: log require: mark("untrusted", "confidential:pii")'
    assert conditions(rules, send()) == [("mark", "untrusted, confidential:pii")]
    assert conditions(rules, execute()) == [("mark", "untrusted, confidential:pii")]
    assert conditions(rules, log()) == []
