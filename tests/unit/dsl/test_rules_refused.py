import pytest

from symbi.dsl.compile import compile_file
from symbi.dsl.parser import parse
from symbi.errors import DslError
from symbi.testing.requests import (
    agent_file,
    load,
)


def errors(rules, extra="", tools=None):
    with pytest.raises(DslError) as caught:
        load(agent_file(rules, extra), tools)
    return caught.value


# (rules, part of the message, part of the hint)
WRONG = [
    ('allow: cal("mail.send")', "unknown verb `cal`", "did you mean `call`"),
    ("allow: frobnicate()", "unknown verb `frobnicate`", "known are"),
    ("allow: call()", "`call` does not say of what", 'call("server.tool")'),
    ('allow: call("mail")', "`call` knows no `mail`", 'call("server.tool")'),
    ("allow: call(mail)", "`call` knows no `mail`", 'call("server.tool")'),
    ('allow: call(name = "mail.send")', "takes no named arguments", "server.tool"),
    ("allow: call(1)", "`call` takes names", "server.tool"),
    ("allow: read", "`read` does not say of what", 'read("store")'),
    ("allow: read()", "`read` does not say of what", 'read("store")'),
    ("allow: read(notes)", "`notes` is no input of the agent", 'read("notes")'),
    ("allow: read(record)", "`record` is no input of the agent", "did you mean `records`"),
    ("allow: log(x)", "`log` knows no `x`", "write log"),
    ("allow: create(b)", "`create` knows no `b`", "create(self)"),
    ("allow: allocate(lake)", "`allocate` knows no `lake`", "allocate(pool)"),
    ('allow: execute("e2b")', "`e2b` is not available in this release", "`gvisor`"),
    ('allow: execute("vm")', "`execute` knows no `vm`", "interpreter"),
    ("allow: lgo", "`lgo` is no tool and no effect", "did you mean `log`"),
    ('allow: "read_data"', "`read_data` is no tool and no effect", "server.tool"),
    ('allow: "reason"', "`reason` is not available in this release", "read"),
    ("allow: []", "an empty list names nothing", ""),
    ("allow: 5", "names nothing that a rule can be about", "call("),
    ("allow: { a: 1 }", "names nothing that a rule can be about", "call("),
    ('allow: call("x.y") if 1 == 1', "compares two constants", "name what"),
    ('allow: call("x.y") if "a"', "a guard is true or false, and this is text", "=="),
    ('allow: call("x.y") if 3', "a guard is true or false", "=="),
    ('allow: call("x.y") if label.integrity', "a guard is true or false", "=="),
    ('allow: call("x.y") if label.integrity == "untrustd"', "this is never `untrustd`", "did you mean `untrusted`"),
    ('allow: call("x.y") if label.integrity in ["user", "usr"]', "this is never `usr`", "did you mean `user`"),
    ('allow: call("x.y") if label.integrity == untrusted', "`untrusted` is a name here", '"untrusted"'),
    ('allow: call("x.y") if label.integrty == "user"', "`label.integrty` is not known to", "`label.integrity`"),
    ('allow: call("x.y") if label.integrity == 5', "compares text with a whole number", ""),
    ('allow: call("x.y") if label.integrity < "user"', "orders numbers", ""),
    ('allow: call("x.y") if tool.verified == "yes"', "compares true or false with text", ""),
    ('allow: call("x.y") if risk > 0.5', "compares text with a decimal number", "it can be `low`, `medium`, `high`"),
    ('allow: call("x.y") if risk > "low"', "orders numbers, and this is text", "it can be `low`"),
    ('allow: create() if risk == "high"', "compares a decimal number with text", ""),
    ('allow: call("x.y") if risk in ["high", 0.5]', "compares text with a decimal number", ""),
    ('allow: call("x.y") if risk == "hihg"', "this is never `hihg`", "did you mean `high`"),
    ('allow: call("x.y") if effect == "sends"', "this is never `sends`", "did you mean `send`"),
    ('allow: call("x.y") if risk.score == 1', "`risk.score` is not known", ""),
    ('allow: call("x.y") if tainted', "this is a set of texts", "`!NAME.is_empty()`"),
    ('allow: call("x.y") if effect.is_empty()', "`.is_empty()` asks a set, and this is text", ""),
    ('allow: call("x.y") if words_known.x', "`words_known.x` is not known", "`words_known`"),
    ("allow: log if tainted.is_empty()", "`tainted` is not known to the action `WriteLog`", ""),
    ("allow: log if history == 1", "`history` is not known", "history.NAME"),
    ("allow: log if history.a.b == 1", "`history.a.b` is not known", "history.NAME"),
    ("allow: log if history.a > 0.5", "compares a counter with a decimal number", "whole units"),
    ('allow: log if history.a == "x"', "compares a counter with text", ""),
    ("allow: log if history.a > 5m", "compares a counter with a duration", ""),
    ("allow: log if usage.call > 5", "`usage.call` is not known", "`usage.calls`"),
    ('allow: call("x.y") if wait > 30s', "an argument has no unit", "number"),
    ("allow: allocate() if timeout > 30", "compares a duration with a whole number", "30s"),
    ("allow: allocate() if memory_mib > 0.5", "compares a whole number with a decimal number", ""),
    ("allow: allocate() if memry_mib > 5", "`memry_mib` is not known to the action", "`memory_mib`"),
    ("allow: allocate() if records > 5", "`records` is not known to the action", "policies do not see"),
    ("allow: now if x == 1", "`x` is not known to the action `ReadClock`", "`usage`, `time`, `history`"),
    ("allow: create() if risk > 0.12345", "does not fit a decimal", "four places"),
    ("allow: create() if risk > 9999999999999999", "does not fit a decimal", ""),
    ('allow: call("x.y") if n > 99999999999999999999', "too large for a guard", "64 bits"),
    ('allow: call("x.y") if a in []', "nothing is in an empty list", ""),
    ('allow: call("x.y") if a in [1, "b"]', "the list mixes types", ""),
    ('allow: call("x.y") if "a" in ["a"]', "in a list of constants", ""),
    ('allow: call("x.y") if a in [b]', "in a list of constants", ""),
    ('allow: call("x.y") if "u" in label.integrity', "`in` asks a list, and this is text", "contains"),
    ('allow: call("x.y") if 5 in secrets', "is never in a set of texts", ""),
    ('allow: call("x.y") if secrets == "a"', "a set of texts is asked with `in`", ""),
    ('allow: call("x.y") if principal.groups == "a"', "is asked with `in`", ""),
    ('allow: call("x.y") if to.contains(cc, bcc)', "a guard cannot call this", "contains"),
    ('allow: call("x.y") if to.trim() == "a"', "a guard cannot hold this", ""),
    ('allow: call("x.y") if matches(to)', "a guard cannot call this", "contains"),
    ('allow: call("x.y") if to.starts_with(cc)', "takes a text in quotes", ""),
    ('allow: call("x.y") if tool.verified.starts_with("a")', "asks a text", ""),
    ('allow: call("x.y") if a + 1 == 2', "a guard cannot hold this", ""),
    ('allow: call("x.y") if a == vault://k', "a guard cannot hold this", ""),
    ("allow: log if 5 in arguments", 'write `"name" in arguments`', ""),
    ('allow: log if "a" in arguments', "in a rule about tools", ""),
    ("deny: any if nothing_has_this.at.all == 1 && risk > 0.5", "is not known to the action", ""),
    ('deny: any if command.contains("rm")', "`command` is a tool's argument here, and an attribute", "context.command"),
    ("require: approval", "`approval` cannot be read", "approval(user)"),
    ("allow: log require: approval(a, b)", "`approval` cannot be read", "approval(user)"),
    ('allow: log require: approval("")', "an approval must say who", ""),
    ("require: aproval(user)", "unknown requirement `aproval`", "did you mean `approval`"),
    ("require: encryption", "unknown requirement `encryption`", "known are"),
    ('require: ["mfa"]', "unknown requirement `mfa`", "known are"),
    ('require: label.integrity == "user"', "this is nothing that can be required", "approval"),
    ('allow: log require: { rate_limiting: "500" }', "`500` is not a rate", "minute"),
    ("allow: log require: { rate_limiting: 500 }", "`rate_limiting` cannot be read", "500/minute"),
    ('allow: log require: rate("0/second")', "is not a rate", "second"),
    ('require: rate("5/second")', "concerns no `allow`", "beside the `allow`"),
    ('allow: call("mail.send") require: mark("tainted")', "`tainted` is not a mark", "untrusted"),
    ('allow: call("mail.send") require: mark()', "`mark` cannot be read", 'mark("untrusted")'),
    ('allow: log require: mark("untrusted")', "concerns no `allow`", "beside the `allow`"),
    ('allow: call("mail.send") require: { mark: "untrusted", tier: "gvisor" }', "`require: tier` concerns no", ""),
    ("require: { signature_verification: false }", "`signature_verification` cannot be read", "true"),
    ('require: { tier: "interpreter" }', "`tier` cannot be read", "gvisor"),
    ('require: { timeout: "soon" }', "`timeout` cannot be read", "30s"),
    ('require: { record: "nothing" }', "`record` cannot be read", "digest"),
    ("require: redact()", "`redact` cannot be read", "redact("),
    ('require: cap("amount", "5")', "`cap` cannot be read", "cap("),
    ('require: cap("amount", 1.23456)', "is not a bound", ""),
    ("require: approval(user)", "concerns no `allow`", "beside the `allow`"),
    ('allow: log require: redact("body")', "concerns no `allow`", "beside the `allow`"),
    (
        'allow: call("mail.send") require: approval(user) if risk > 0.5',
        "this compares text with a decimal number",
        "it can be `low`",
    ),
    (
        'allow: call("mail.send") allow: connect(any) require: approval(user) if command == "x"',
        "is a tool's argument here",
        "context.command",
    ),
    ('allow: log audit: { log_level: "loud" }', "`loud` is not a level of the log", "warning"),
    ("allow: log audit: { log_level: 3 }", "`log_level` is a level of the log", ""),
    ("allow: log audit: { retention_days: 0 }", "is not a time to keep", "365d"),
    ("allow: log audit: { retention_days: 1.5 }", "is not a time to keep", "365d"),
    ('allow: log audit: { retention_days: "long" }', "`retention_days` is a number of days", ""),
    ("allow: log audit: { compliance_tags: [] }", "`compliance_tags` is a list of texts", ""),
    ('allow: log audit: { compliance_tags: ["two words"] }', "is not a tag", ""),
    ("allow: log audit: { include_output: 1 }", "`include_output` is true or false", ""),
    ('audit: { log_level: "warning" }', "concerns no `allow`", "beside the `allow`"),
    ("audit: { include_inpt: true }", "unknown audit setting `include_inpt`", "did you mean `include_input`"),
    ("audit: { include_input: 5 }", "`include_input` is true or false", ""),
    ("audit: { include_input: false }", "concerns no `allow`", ""),
    ('audit: cal("x.y")', "unknown verb `cal`", "`call`"),
    ("audit: log if nonsense == 1", "is not known to the action", ""),
]


@pytest.mark.parametrize(("rules", "text", "hint"), WRONG, ids=[case[0] for case in WRONG])
def test_a_rule_that_cannot_be_carried_out_is_refused_at_its_place(rules, text, hint):
    error = errors(rules)
    assert text in error.message
    assert hint in (error.hint or "")
    assert error.place is not None
    assert error.place.line == 1
    assert error.place.column > 20


def test_known_tools_are_asked_for_names():
    names = ["mail.send", "files.read"]
    assert "did you mean `mail.send`" in (errors('allow: call("mail.sned")', tools=names).hint or "")
    assert "did you mean `files`" in (errors('allow: call("file.*")', tools=names).hint or "")
    assert errors('deny: "mail.recv"', tools=names).code == "dsl.unknown_tool"
    arguments = {"mail.send": ["to", "cc"], "files.read": ["path"], "free.form": None}
    wrong = errors('allow: call("mail.send") if too == "x"', tools=arguments)
    assert wrong.message == "`too` is no argument of `mail.send`"
    assert wrong.hint == "did you mean `to`?"
    assert errors('deny: call("files.*") if "to" in arguments', tools=arguments).code == "dsl.unknown_name"
    assert (
        errors('allow: call("mail.send") if labels.bcc.integrity == "user"', tools=arguments).code == "dsl.unknown_name"
    )
    assert "policies do not see" in (errors('deny: call("mail.send") if records == "x"', tools=arguments).hint or "")
    assert errors('allow: call("mail.send") require: redact("body")', tools=arguments).code == "dsl.require"
    source = agent_file('allow: call("free.form") if what == "ever"  deny: call(any) if x == 1')
    assert compile_file(parse(source, "t"), source, tools=arguments).agents
