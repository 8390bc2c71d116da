"""Every form of policy rule that is in use: it compiles, has an effect, and is named with its line.

A row is a rule, alone on line 4 of an agent file, with what else the policy needs on line 3; a request that it lets
through (or that it leaves alone) and one that it stops. Both are decided by the real engine on the compiled file, with
and without a permissive set of the operator's beside it, and `explain` must name the rule by its line.
"""

from dataclasses import dataclass, field, replace

import pytest

from symbi.dsl.compile import compile_file
from symbi.dsl.parser import parse
from symbi.errors import PolicySyntaxError
from symbi.policy.catalog import ToolType
from symbi.policy.decision import Allow, AllowWithConditions, Deny, PolicyRequest
from symbi.policy.engine import decide
from symbi.policy.explain import explain
from symbi.policy.history import offline
from symbi.policy.policies import PolicySet
from symbi.policy.source import PolicySource
from symbi.testing.requests import (
    PERSONAL,
    SCHEMAS,
    TAINTED,
    allocate,
    asked_by,
    asked_of,
    call,
    clock,
    connect,
    create,
    declassify,
    endorse,
    execute,
    knowledge,
    log,
    memory,
    message,
    model,
    program,
    publish,
    random,
    read,
    send,
    subscribe,
    write,
)
from symbi.types import Confidentiality, Integrity, Label, SecurityTier

OPERATOR = PolicySource("operator.cedar", '@id("operator") permit(principal, action, resource);')
HISTORY = PolicySource(
    "history.toml",
    """
    [history.paid]
    kind = "sum"
    action = "InvokeTool::other.path"
    of = "arguments.to"
    per = "owner"

    [history.reported]
    kind = "formerly"
    action = "InvokeTool"
    per = "run"
    """,
)
TOOLS = [ToolType(name, schema) for name, schema in SCHEMAS.items()]


@dataclass(frozen=True)
class Form:
    """One form.

    Attributes:
        rule: As written.
        good: What it allows, or what a `deny`, a requirement or an audit leaves allowed.
        bad: What is denied, by it or for want of it.
        beside: Rules that it needs.
        asks: Conditions on `good`, as (kind, value), that the rule asks for.
    """

    rule: str
    good: PolicyRequest
    bad: PolicyRequest
    beside: str = ""
    asks: tuple[tuple[str, str], ...] = field(default=())

    @property
    def effect(self) -> str:
        return self.rule.partition(":")[0]


def personal(name: str) -> PolicyRequest:
    return call(name, {"to": "x"}, label=PERSONAL)


def told(request: PolicyRequest, attributes=(), **context) -> PolicyRequest:
    """A request with other facts of its resource, and of its context."""
    resource = replace(
        request.resource, attributes=tuple({**dict(request.resource.attributes), **dict(attributes)}.items())
    )
    return replace(request, resource=resource, context={**request.context, **context})


def agent(request: PolicyRequest, **facts) -> PolicyRequest:
    return replace(request, principal=replace(request.principal, **facts))


def answer(policies: PolicySet, request: PolicyRequest):
    return decide(policies, offline(policies.counters, request))


PAY = call("other.path", {"to": 1})
GIVEN = {"given": True, "tool": True, "arguments": True}
PII = Label(Integrity.USER, Confidentiality.PUBLIC, categories=("pii",))
MAIL = 'allow: call("mail.send")'
INTERNAL = Confidentiality.INTERNAL
SECRET_STRANGER = Label(Integrity.UNTRUSTED, Confidentiality.SECRET)
FORMS = [
    # allow
    Form("allow: read(records) if data.verified == true", memory("ReadData"), memory("ReadData", label=TAINTED)),
    Form("allow: read(input) if input.verified == true", memory("ReadData"), memory("ReadData", label=TAINTED)),
    Form('allow: ["mail.send", "log"] if label.integrity == "user"', log(), call("mail.send", {}, label=TAINTED)),
    Form('allow: ["mail.send", "files.read"] if "to" in arguments', send(to="x"), send(cc="x")),
    Form('allow: use("llm")', model(), send()),
    Form('allow: use("mail.send")', send(), model()),
    Form('allow: use("python")', execute(), log()),
    Form("allow: use(any)", model(), execute()),
    Form("allow: run", program(), execute()),
    Form(f'allow: run("sha256:{64 * "0"}")', program(), execute()),
    Form(f'allow: run("registry.example:5000/a/b@sha256:{64 * "0"}")', program(), execute()),
    Form(
        'allow: run(any) if network.contains("api.example.com:443")',
        program(network=("api.example.com:443",)), program(network=("evil.example:443",)),
    ),
    Form('allow: run if label.integrity == "user" && tier == "docker"', program(), program(label=TAINTED)),
    Form('allow: model("m")', model(), model("other")),
    Form('allow: call("files.*")', read(), send()),
    Form('allow: tool("mail.send")', send(), read()),
    Form('allow: invoke("mail.send", "files.read")', read(), write()),
    Form("allow: any", random(), create(inputs=("x",)), beside='deny: create() if "x" in inputs'),
    Form('allow: connect("files")', connect(), connect("mail")),
    Form('allow: browse("files")', asked_of("BrowseServer"), asked_of("BrowseServer", "mail")),
    Form('allow: browse(any) if what != "prompts"', asked_of("BrowseServer"), asked_of("ReadResource")),
    Form(
        'allow: resource("files") if scheme == "file"', asked_of("ReadResource"), asked_of("ReadResource", "mail")
    ),
    Form('allow: prompt("files") if prompt == "review"', asked_of("GetPrompt"), asked_of("GetPrompt", "mail")),
    Form('allow: complete("files") if of == "prompt"', asked_of("Complete"), asked_of("Complete", "mail")),
    Form('allow: sampling("files") if max_tokens <= 100', asked_by("ServerSampling"), asked_by("ServerElicitation")),
    Form('allow: elicitation("files") if mode == "form"', asked_by("ServerElicitation"), asked_by("ServerRoots")),
    Form('allow: roots("files")', asked_by("ServerRoots"), asked_by("ServerRoots", "mail")),
    Form("allow: create(self) if risk < 0.5", create(0.4), create(0.6)),
    Form("allow: allocate(pool) if timeout <= 5m && memory_mib <= 64", allocate(timeout=300), allocate(timeout=301)),
    Form('allow: execute("gvisor")', execute(SecurityTier.TIER2), execute()),
    Form("allow: log", log(), clock()),
    Form("allow: now", clock(), random()),
    Form("allow: random", random(), clock()),
    Form('allow: read("notes")', knowledge("ReadData"), memory("ReadData", "diary")),
    Form('allow: read("files.read")', read(), write()),
    Form("allow: remember", memory("WriteData", "a"), memory("WriteData", "diary")),
    Form('allow: recall(["self", "diary"])', memory("ReadData", "diary"), memory("ReadData")),
    Form('allow: search("notes")', knowledge("ReadData"), memory("ReadData")),
    Form("allow: search(any)", knowledge("ReadData"), memory("ReadData")),
    Form("allow: recall(any)", memory("ReadData"), knowledge("ReadData")),
    Form('allow: write("notes") if resource.owner == "ada"', memory("WriteData"), memory("WriteData", owner="bob")),
    Form('allow: export("notes") if destination == "archive"', memory("ExportData"), memory("ReadData")),
    Form('allow: endorse("checked")', endorse(), endorse("other")),
    Form('allow: endorse(any) if label.confidentiality == "public"', endorse(), endorse(label=SECRET_STRANGER)),
    Form('allow: declassify("summary")', declassify(), declassify("other")),
    Form('allow: declassify(any) if after.confidentiality == "internal"', declassify(to=INTERNAL), declassify()),
    Form('deny: declassify("summary")', declassify("other"), declassify(), beside="allow: declassify(any)"),
    Form('allow: send("b")', message(), message("c")),
    Form('allow: ask("b")', message(reply=True), message()),
    Form("deny: ask(any)", message(), message(reply=True), beside="allow: send(any)"),
    Form('allow: publish("news") if resource.classification == "internal"', publish(), publish("gossip")),
    Form('allow: subscribe("news")', subscribe(), publish()),
    # guards
    Form(f'{MAIL} if to == "x" || to.ends_with("@example.com")', send(to="a@example.com"), send(to="y")),
    Form(f'{MAIL} if to.starts_with("a") && !(to.contains("b"))', send(to="ac"), send(to="ab")),
    Form(f'{MAIL} if to in ["x", "y"] && not (urgent == true)', send(to="x", urgent=False), send(to="x", urgent=True)),
    Form(f'{MAIL} if to != "x"', send(to="y"), send(to="x")),
    Form(f"{MAIL} if amount < 500", send(amount=499), send(amount=500)),
    Form(f'{MAIL} if options.deep == "x"', send(options={"deep": "x"}), send(options={"deep": "y"})),
    Form(f'{MAIL} if "ops" in principal.groups', send(), call("mail.send", principal=log().principal.__class__("a"))),
    Form(f'{MAIL} if request.attempt == 1 && principal.trust == "trusted"', send(), read()),
    # deny
    Form("deny: write(any)", memory("ReadData"), memory("WriteData"), beside="allow: any"),
    Form("deny: read(any)", memory("WriteData"), read(), beside="allow: any"),
    Form(
        "deny: export(data) if data.contains_pii == true", memory("ExportData"), memory("ExportData", label=PERSONAL),
        beside="allow: any",
    ),
    Form("deny: export(any) if data.contains_pii", send(to="x"), personal("mail.send"), beside="allow: any"),
    Form('deny: call(any) if labels.to.integrity == "untrusted"', call("mail.send", {"to": "x"}),
         call("mail.send", {"to": "x"}, labels={"to": TAINTED}), beside=MAIL),
    Form('deny: "mail.send"', read(), send(), beside="allow: call(any)"),
    Form("deny: all", log(), log(), beside="allow: log"),
    Form('deny: call("mail.send") if tainted.contains("to")', call("mail.send", {"to": "x"}, labels={"to": PERSONAL}),
         call("mail.send", {"to": "x"}, labels={"to": TAINTED}), beside=MAIL),
    Form('deny: call(any) if effect != "read" && !tainted.is_empty() && not grant.arguments',
         told(call("mail.send", {"to": "x"}, label=TAINTED), grant=GIVEN), call("mail.send", {"to": "x"}, label=TAINTED),
         beside=MAIL),
    Form('deny: call(any) if "to" in confidential_sinks', send(to="x"), personal("mail.send"), beside=MAIL),
    Form('deny: call(any) if "to" in sinks && words_known && unexplained.contains("cc")', send(to="x"),
         told(send(to="x", cc="y"), unexplained=["cc"]), beside=MAIL),
    Form('deny: any if label.categories.contains("pii")', send(), call("mail.send", {}, label=PII), beside=MAIL),
    Form('deny: call(any) if labels.to.categories.contains("pii")', call("mail.send", {"to": "x"}, labels={"to": TAINTED}),
         call("mail.send", {"to": "x"}, labels={"to": PII}), beside=MAIL),
    Form('deny: call("other.*") if history.paid > 500', told(PAY, history={"paid_before": 499}),
         told(PAY, history={"paid_before": 500}), beside="allow: call(any)"),
    Form('deny: "other.path" if history.paid_before == 7 || history.reported', told(PAY, history={"paid": 7}),
         told(PAY, history={"reported": True}), beside="allow: call(any)"),
    Form("deny: any if usage.calls >= 100 || usage.denied > 5 || usage.seconds > 60", told(send(), usage={"calls": 99}),
         told(send(), usage={"calls": 100}), beside=MAIL),
    Form("allow: log if time.hour >= 8 && time.hour < 18 && time.weekday <= 5", told(log(), time={"hour": 17, "weekday": 5}),
         told(log(), time={"hour": 17, "weekday": 6})),
    Form('allow: call("mail.send") if risk == "low" || grant.tool', told(send(), {"risk": "low"}),
         told(send(), {"risk": "high"})),
    Form('allow: call("mail.send") if tool.effect in ["read", "write"] && resource.risk != "high"',
         told(send(), {"effect": "write"}), told(send(), {"effect": "send"})),
    Form('allow: call("mail.send") if principal.tier == "gvisor" && "mail.*" in principal.capabilities',
         agent(send(), tier="gvisor", capabilities=("mail.*",)), agent(send(), tier="gvisor")),
    # require
    Form('require: approval(user) if risk == "high"', told(send(), {"risk": "high"}), log(), MAIL, (("approval", "user"),)),
    Form("require: approval(user) if risk > 0.5", create(0.6), log(), "allow: create()", (("approval", "user"),)),
    Form('require: approval("ops")', send(), read(), MAIL, (("approval", "ops"),)),
    Form('require: ["signature_verification"]', send(), call("mail.send", verified=False), MAIL),
    Form("require: { signature_verification: true }", send(), call("mail.send", verified=False), MAIL),
    Form('require: { rate_limiting: "500/minute" }', send(), read(), MAIL, (("rate", "500/minute"),)),
    Form('require: rate("5/hour")', send(), read(), MAIL, (("rate", "5/hour"),)),
    Form('require: redact("cc", "options.deep")', send(), read(), MAIL,
         (("redact", "arguments.cc, arguments.options.deep"),)),
    Form("require: { cap: { amount: 500 } }", send(), read(), MAIL, (("cap", "arguments.amount=500"),)),
    Form("require: tier(gvisor)", execute(), log(), "allow: python", (("tier", "gvisor"),)),
    Form("require: tier(gvisor)", program(), log(), "allow: run", (("tier", "gvisor"),)),
    Form("require: timeout(30s)", send(), read(), MAIL, (("timeout", "30000ms"),)),
    Form('require: mark("untrusted", "confidential:pii")', send(), read(), MAIL,
         (("mark", "untrusted, confidential:pii"),)),
    Form('require: record("redacted")', send(), read(), MAIL, (("record", "redacted"),)),
    # audit
    Form("audit: all_operations", send(), read(), MAIL, (("record", "full"),)),
    Form('audit: call("mail.*")', send(), log(), MAIL, (("record", "full"),)),
    Form('audit: { include_input: false, log_level: "warning" }', send(), read(), MAIL,
         (("log", "warning"), ("record", "digest"))),
    Form('audit: { include_output: true, retention_days: 365, compliance_tags: ["SOC2"] }', send(), read(), MAIL,
         (("output", "full"), ("retain", "365d"), ("tags", "SOC2"))),
]  # fmt: skip
EACH = pytest.mark.parametrize("form", FORMS, ids=[form.rule for form in FORMS])


def load(form, *sources, capabilities=""):
    text = f"agent a(records: String) {{\n{capabilities} policy p {{\n{form.beside}\n{form.rule}\n}} with {{ return 1; }} }}"
    compiled = compile_file(parse(text, "t.symbi"), text)
    rules = [*compiled.policies, *(policy for agent in compiled.agents for policy in agent.policies)]
    return PolicySet.load([*sources, HISTORY], rules, TOOLS)


def without(form):
    """The same file, with a rule in place of the form that says nothing about it."""
    return Form('allow: connect("nowhere")', form.good, form.bad, form.beside)


def lines(policies):
    return {policy.line for policy in policies if policy.file == "t.symbi"}


@EACH
def test_a_form_lets_one_request_through_and_stops_another(form):
    policies = load(form)
    good, bad = answer(policies, form.good), answer(policies, form.bad)
    if form.rule == "deny: all":
        assert isinstance(good, Deny)
    else:
        assert isinstance(good, Allow | AllowWithConditions), good
    assert isinstance(bad, Deny)
    assert not bad.errors


@EACH
def test_without_the_form_the_answer_is_another(form):
    """Else the row says nothing of the form."""
    with_it, without_it = load(form), load(without(form))
    if form.effect == "allow":
        assert isinstance(answer(without_it, form.good), Deny) or form.rule == "allow: any"
    elif form.asks:
        decision = answer(with_it, form.good)
        assert isinstance(decision, AllowWithConditions)
        asked = sorted((condition.kind.value, condition.value) for condition in decision.conditions)
        assert asked == sorted(form.asks)
        assert isinstance(answer(without_it, form.good), Allow)
    else:
        assert isinstance(answer(without_it, form.bad), Allow)


@EACH
def test_explain_names_the_form_by_its_line(form):
    found = explain(load(form), form.good if form.effect == "allow" or form.asks else form.bad)
    assert 4 in lines(found.deciding), found.summary
    assert any(policy.id.startswith("t.symbi:4") for policy in found.deciding)


@EACH
def test_capabilities_bound_it_whatever_the_operator_permits(form):
    """What is not listed is denied; coming to life, taking resources and listening to topics needs no capability."""
    policies = load(form, OPERATOR, capabilities='capabilities = ["nothing.listed"]')
    for request in (form.good, form.bad):
        if request.action in {"CreateAgent", "AllocateResources", "ConfigureAgent", "SubscribeTopic"}:
            continue
        decision = answer(policies, request)
        assert isinstance(decision, Deny)
        assert any(ref.id.endswith("#capabilities") for ref in decision.policies), decision


@EACH
def test_what_takes_away_holds_against_a_permissive_operator(form):
    decision = answer(load(form, OPERATOR), form.bad)
    takes_away = form.effect == "deny" or "signature_verification" in form.rule
    if takes_away:
        assert isinstance(decision, Deny)
        assert 4 in {ref.line for ref in decision.policies}
    elif not form.beside.startswith("deny"):
        assert not isinstance(decision, Deny)


def test_the_table_has_a_row_for_every_effect_and_every_word():
    from symbi.dsl.conditions import _AUDIT, _READERS  # noqa: PLC0415 - of this test alone
    from symbi.dsl.vocabulary import VERBS  # noqa: PLC0415 - of this test alone

    text = "\n".join(form.rule for form in FORMS)
    assert {form.effect for form in FORMS} == {"allow", "deny", "require", "audit"}
    missing = [word for word in (*_READERS, *_AUDIT) if word not in text]
    missing += [verb.name for verb in VERBS if not any(word in text for word in (verb.name, *verb.aliases))]
    assert missing == ["configure"]  # it has rows of its own: tests/unit/dsl/test_rules.py


@pytest.mark.parametrize(
    ("guard", "hint"),
    [
        ("history.piad > 5", "did you mean `paid`?"),
        ("history.mails_sent > 5", "declare `[history.mails_sent]` in a `history.toml`"),
    ],
)
def test_a_counter_that_nobody_declares_is_refused_where_the_set_is_loaded(guard, hint):
    with pytest.raises(PolicySyntaxError, match="not found") as caught:
        load(Form(f"deny: log if {guard}", log(), log()))
    assert (caught.value.place.line, caught.value.hint) == (4, hint)


def test_a_counter_is_of_the_type_that_it_is_compared_with():
    for guard in ("history.paid", "history.reported > 5"):
        with pytest.raises(PolicySyntaxError) as caught:
            load(Form(f"deny: log if {guard}", log(), log()))
        assert caught.value.place.line == 4


def test_the_risk_of_a_tool_and_that_of_an_agent_are_told_apart_by_what_they_are_compared_with():
    beside = 'allow: create() allow: call("mail.send")'
    word = load(Form('require: approval(user) if risk == "high"', log(), log(), beside))
    number = load(Form("require: approval(user) if risk > 0.5", log(), log(), beside))
    for policies, asked, free in (
        (word, told(send(), {"risk": "high"}), create(0.6)),
        (number, create(0.6), told(send(), {"risk": "high"})),
    ):
        assert isinstance(answer(policies, asked), AllowWithConditions)
        assert isinstance(answer(policies, free), Allow)
    assert isinstance(answer(word, told(send(), {"risk": "low"})), Allow)
