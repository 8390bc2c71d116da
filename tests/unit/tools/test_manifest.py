"""Operator manifests."""

import pytest

from symbi.errors import ConfigError, InputError
from symbi.policy.fields import Effect, Risk, Role
from symbi.tools.manifest import Manifest, ToolEntry, parse_manifest
from symbi.types import Confidentiality, Integrity, Label, RecoveryClass

GOOD = """
[server]
name = "files"

[tools.read_log]
recovery = "read-only"

[tools.write_report]
recovery = "idempotent"
timeout_s = 5
max_output_bytes = 1024
"""


def test_a_manifest_is_read():
    assert parse_manifest("files.toml", GOOD) == Manifest(
        "files",
        {
            "read_log": ToolEntry(RecoveryClass.READ_ONLY),
            "write_report": ToolEntry(RecoveryClass.IDEMPOTENT, 5.0, 1024),
        },
    )


def test_a_tool_that_is_not_named_is_never_repeated():
    manifest = parse_manifest("files.toml", '[server]\nname = "files"\n[tools.a]\n')
    assert manifest.entry("a").recovery is RecoveryClass.NEVER_RETRY
    assert manifest.entry("unheard-of") == ToolEntry(RecoveryClass.NEVER_RETRY)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[server]\nname = = 3", "f.toml:2:8: not TOML"),
        ("[server]\nname = [", "f.toml:2:1: not TOML"),
        ("", "f.toml:1:1: `server.name` is missing; it is the server's name in the configuration"),
        ('[server]\nnme = "x"', "f.toml:2:1: unknown key `server.nme`; did you mean `name`?"),
        ('[server]\nname = "a"\n\n[tool.x]', "f.toml:4:1: unknown key `tool`; did you mean `tools`?"),
        ('[server]\nname = "a.b"', "f.toml:2:1: `a.b` cannot name a server; letters, digits, `_` and `-` can"),
        ("[server]\nname = 3", "f.toml:2:1: `server.name` must be text"),
        ('server = "a"', "f.toml:1:1: `server` must be a table"),
        (
            '[server]\nname = "a"\n[tools.x]\nrecovery = "readonly"',
            "f.toml:4:1: `readonly` is no recovery class; did you mean `read-only`?",
        ),
        (
            '[server]\nname = "a"\n[tools.x]\nrecovery = "read-only"\n[tools.y]\ntimeout = 3',
            "f.toml:6:1: unknown key `tools.y.timeout`; did you mean `timeout_s`?",
        ),
        (
            '[server]\nname = "a"\n[tools."rm -rf"]\n',
            "f.toml:3:1: `rm -rf` cannot name a tool; letters, digits, `_`, `-` and `.` can",
        ),
        (
            '[server]\nname = "a"\n[tools]\nx = { timeout_s = true }',
            "f.toml:4:1: `tools.x.timeout_s` must be seconds from 0.001 to 86400",
        ),
        ('[server]\nname = "a"\n[tools]\nx = 3', "f.toml:4:1: `tools.x` must be a table"),
        (
            '[server]\nname = "a"\nrisk = "hgh"',
            "f.toml:3:1: `hgh` is no risk; did you mean `high`?",
        ),
        (
            '[server]\nname = "a"\n[tools.x]\neffect = "reads"',
            "f.toml:4:1: `reads` is no effect; did you mean `read`?",
        ),
        (
            '[server]\nname = "a"\n[tools.x]\nsink = ["a"]',
            "f.toml:4:1: unknown key `tools.x.sink`; did you mean `sinks`?",
        ),
        (
            '[server]\nname = "a"\n[tools.x]\nsinks = "to"',
            "f.toml:4:1: `tools.x.sinks` must be a list of argument paths",
        ),
        (
            '[server]\nname = "a"\n[tools.x]\nsinks = ["to"]\nplain = ["to"]',
            "f.toml:5:1: `to` is declared twice; an argument has one role",
        ),
        (
            '[server]\nname = "a"\n[tools.x]\ntext = ["a[0]"]',
            "f.toml:4:1: `a[0]` is not a path; write `recipient`, `options.url`, `items[*].date`, `ratings.*~`, or `$` for the whole",
        ),
        (
            '[server]\nname = "a"\n[tools.x]\ntypes = { n = "int" }',
            "f.toml:4:1: `int` is no type; one of string, integer, number, boolean, array, object",
        ),
        (
            '[server]\nname = "a"\n[tools.x.output]\n"[*].date" = "systm"',
            "f.toml:4:1: `systm` is no integrity of an answer; did you mean `system`?",
        ),
        (
            '[server]\nname = "a"\n[tools.x.output]\n"[*].date" = "user"',
            "f.toml:4:1: `user` is no integrity of an answer; one of system, trusted, untrusted",
        ),
        (
            '[server]\nname = "a"\n[tools.x.output]\nmail.date = "system"',
            "f.toml:4:1: `mail` is not labelled; one of system, trusted, untrusted, or a table of integrity, confidentiality, categories; quote a path with dots",
        ),
        (
            '[server]\nname = "a"\n[tools.x.output]\nmail = { confidentiality = "high" }',
            "f.toml:4:1: `high` is no confidentiality; one of public, internal, confidential, secret",
        ),
        (
            '[server]\nname = "a"\n[tools.x.output]\nmail = { categories = ["PII"] }',
            "f.toml:4:1: `tools.x.output.mail.categories` must be a list of up to 16 short words",
        ),
        (
            '[server]\nname = "a"\n[tools.x]\noutput = { integrity = "system" }',
            (
                "f.toml:4:1: `integrity` may be a field of the answer, or the integrity of all of it; "
                'write `output = "…"` for the whole answer, or `"$.integrity" = …` for a field of that name'
            ),
        ),
        (
            '[server]\nname = "a"\n[tools.x]\noutput = { confidentiality = "secrt" }',
            "f.toml:4:1: `secrt` is no confidentiality; did you mean `secret`?",
        ),
        (
            '[server]\nname = "a"\n[tools.x]\noutput = { integrity = "confidential", confidentiality = "secret" }',
            'f.toml:4:1: `confidential` is no integrity of an answer; write `{ confidentiality = "confidential" }`',
        ),
        (
            '[server]\nname = "a"\n[tools.x]\nmax_output_bytes = 2000000',
            "f.toml:4:1: `tools.x.max_output_bytes` must be a number from 1 to 1048576",
        ),
    ],
)
def test_a_wrong_manifest_says_where_and_what(text, message):
    with pytest.raises(ConfigError) as caught:
        parse_manifest("f.toml", text)
    assert str(caught.value) == message


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "86401", '"3"', "[]"])
def test_a_timeout_is_a_number_of_seconds_in_bounds(value):
    with pytest.raises(ConfigError, match="timeout_s"):
        parse_manifest("f.toml", f'[server]\nname = "a"\n[tools.x]\ntimeout_s = {value}')


FLOW = """
[server]
name = "mail"
risk = "high"
output = { confidentiality = "internal" }

[tools.send]
effect = "send"
risk = "medium"
sinks = ["to"]
text = ["body"]
plain = ["options.*"]
types = { to = "string" }

[tools.send.output]
"[*].id" = "system"
"[*].from" = { integrity = "trusted", categories = ["contacts"] }

[tools.list]
output = "trusted"
"""


def test_effect_risk_sinks_and_labels_are_read():
    manifest = parse_manifest("mail.toml", FLOW)
    send, listed, other = (manifest.entry(name).flow for name in ("send", "list", "unheard-of"))
    assert (send.effect, send.risk, send.types) == (Effect.SEND, Risk.MEDIUM, {"to": "string"})
    roles = [send.role(steps) for steps in (("to",), ("body",), ("options", "x"), ("options",), ("new",))]
    assert roles == [Role.SINK, Role.TEXT, Role.PLAIN, Role.SINK, Role.SINK]
    assert send.label((0, "id")) == Label(Integrity.SYSTEM, Confidentiality.INTERNAL)
    assert send.label((0, "from")) == Label(Integrity.TRUSTED, Confidentiality.INTERNAL, (), ("contacts",))
    assert send.label((0, "text")) == Label(Integrity.UNTRUSTED, Confidentiality.INTERNAL)
    assert listed.label((0,)) == Label(Integrity.TRUSTED), "its own rule for the whole stands in place of the server's"
    assert (other.effect, other.risk, other.role(("x",))) == (Effect.ANY, Risk.HIGH, Role.SINK)
    assert other.label(("x",)) == Label(Integrity.UNTRUSTED, Confidentiality.INTERNAL)


@pytest.mark.parametrize("server", ["banking", "slack"])
def test_the_gateways_manifests_say_what_each_tool_can_do(root, server):
    path = root / "examples" / "gateway" / "manifests" / f"{server}.toml"
    manifest = parse_manifest(path.name, path.read_text())
    assert manifest.server == server
    assert Effect.ANY not in {entry.flow.effect for entry in manifest.tools.values()}


@pytest.mark.parametrize("server", ["files", "notify"])
def test_the_examples_manifests_declare_every_tool(root, server):
    path = root / "examples" / "log-triage" / "tools" / f"{server}.toml"
    manifest = parse_manifest(path.name, path.read_text())
    assert manifest.server == server
    assert RecoveryClass.NEVER_RETRY not in {entry.recovery for entry in manifest.tools.values()}


def test_a_label_in_place_of_fields_is_that_of_the_whole_answer():
    text = (
        '[server]\nname = "a"\n'
        '[tools.x]\noutput = { integrity = "trusted", confidentiality = "confidential", categories = ["pii"] }\n'
        '[tools.y.output]\nconfidentiality = "secret"\n'
        '[tools.z.output]\n"$.integrity" = "system"\nconfidentiality = "system"\n'
    )
    tools = parse_manifest("f.toml", text).tools
    label = tools["x"].flow.label(("any", "field"))
    assert (label.integrity, label.confidentiality, label.categories) == ("trusted", "confidential", ("pii",))
    assert tools["y"].flow.label(()).confidentiality == "secret"
    assert tools["y"].flow.label(()).integrity == "untrusted"
    assert tools["z"].flow.label(("integrity",)).integrity == "system"
    assert tools["z"].flow.label(("other",)).integrity == "untrusted"


def test_a_manifest_says_who_is_named_where():
    text = '[server]\nname = "crm"\n[tools.find]\nsubject_argument = "id"\nsubject_field = ["a[*].email", "owner.id"]\n'
    flow = parse_manifest("f.toml", text).entry("find").flow
    assert [path.text for path in flow.named_by] == ["id"]
    assert [path.text for path in flow.about] == ["a[*].email", "owner.id"]
    assert flow.subjects_of_call({"id": 17}) == ("17",)
    assert flow.subjects_of_answer({"a": [{"email": "A@x.org"}], "owner": {"id": "o"}}).everybody == ("a@x.org", "o")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("subject_field = 3", "f.toml:4:1: `tools.find.subject_field` must be a path, or a list of up to 8"),
        ("subject_field = []", "f.toml:4:1: `tools.find.subject_field` must be a path"),
        ('subject_argument = ["a", 1]', "f.toml:4:1: `tools.find.subject_argument` must be a path"),
        ('subject_field = ["a", "a", "a", "a", "a", "a", "a", "a", "a"]', "must be a path, or a list of up to 8"),
        ('subject_field = "a..b"', "f.toml:4:1: `a..b` is not a path"),
        ('subject_field = "$"', "f.toml:4:1: `$` is no field that names somebody"),
        ('subject_field = "a.*~"', "f.toml:4:1: `a.*~` is no field that names somebody"),
        ('subject_fields = "a"', "unknown key `tools.find.subject_fields`; did you mean `subject_field`?"),
    ],
)
def test_what_names_nobody_is_refused(line, message):
    with pytest.raises(ConfigError) as caught:
        parse_manifest("f.toml", f'[server]\nname = "crm"\n[tools.find]\n{line}\n')
    assert message in str(caught.value)


QUERY = """
[server]
name = "bank"
[tools.find]
recovery = "read-only"
[tools.pay]
recovery = "reconcilable"
[tools.pay.query]
tool = "find"
field = "status"
happened = ["booked"]
"""


def test_a_query_is_read():
    text = (
        QUERY + 'not_happened = ["absent"]\narguments = { key = "$effect", to = "$arguments.to", n = 3 }\nafter_s = 0\n'
    )
    query = parse_manifest("bank.toml", text).entry("pay").query
    assert (query.tool, query.decides.text, query.happened, query.after_s) == ("find", "status", ("booked",), 0.0)
    assert query.needs == ("to",)
    assert query.asked_with("e-1", {"to": "ann", "amount": 5}) == {"key": "e-1", "to": "ann", "n": 3}
    with pytest.raises(InputError, match="no argument `to`"):
        query.asked_with("e-1", {})


@pytest.mark.parametrize(
    ("changed", "to", "message"),
    [
        ('"reconcilable"', '"idempotent"', 'f.toml:8:1: `tools.pay.query` is of no use; write `recovery = "reconcilable"`'),
        ('tool = "find"', 'tool = "pay"', "f.toml:9:1: `pay` is no read-only tool of this server; declare `[tools.pay]`"),
        ('tool = "find"\n', "", "f.toml:8:1: `tools.pay.query.tool` is missing"),
        ('"status"', '"items[*].status"', "f.toml:10:1: `items[*].status` may lead to several values"),
        ('["booked"]', "[]", "f.toml:11:1: `tools.pay.query.happened` must be a list"),
        ('["booked"]', '["booked"]\nnot_happened = ["booked"]', "f.toml:12:1: `booked` says both"),
        ('["booked"]', '["booked"]\narguments = { key = "$efect" }', "f.toml:12:1: `$efect` stands for nothing"),
        ('["booked"]', '["booked"]\narguments = { key = [1] }', "f.toml:12:1: `tools.pay.query.arguments.key` must be text"),
        ('["booked"]', '["booked"]\nafter_s = false', "f.toml:12:1: `tools.pay.query.after_s` must be seconds from 0"),
        ('["booked"]', '["booked"]\nafter = 3', "f.toml:12:1: unknown key `tools.pay.query.after`; did you mean `after_s`?"),
    ],
)  # fmt: skip
def test_a_query_that_cannot_be_asked_is_refused_at_its_line(changed, to, message):
    with pytest.raises(ConfigError) as refusal:
        parse_manifest("f.toml", QUERY.replace(changed, to))
    assert str(refusal.value).startswith(message)
