"""Decisions follow the rules; the engine swaps whole sets."""

import anyio
import pytest

from symbi.errors import InputError, InternalError, PolicySyntaxError
from symbi.policy.context import NO_REQUEST, agent_attributes, label_context
from symbi.policy.decision import Allow, AllowWithConditions, ConditionKind, Deny, PolicyRequest
from symbi.policy.engine import PolicyEngine, PolicySource, decide
from symbi.policy.library import BASE
from symbi.types import AgentId, Confidentiality, Integrity, Label, Principal, Resource

PERMIT_LOG = '@id("log") permit(principal, action == Action::"WriteLog", resource);'
SEND = 'action == Action::"InvokeTool::notify.send", resource'
UNTRUSTED = Label(Integrity.UNTRUSTED)

ALONE = {"request": dict(NO_REQUEST)}


def test_a_permit_allows_and_is_named(load, log_request):
    policies = load(f"\n{PERMIT_LOG}")
    decision = decide(policies, log_request())
    assert isinstance(decision, Allow)
    assert [str(ref) for ref in decision.policies] == ["log (p0.cedar:2)"]
    assert decision.version == policies.version


def test_a_forbid_wins_and_is_named(load, log_request):
    forbid = '@id("no") forbid(principal, action == Action::"WriteLog", resource) when { context.label.integrity == "untrusted" };'
    policies = load(PERMIT_LOG, forbid)
    decision = decide(policies, log_request(UNTRUSTED))
    assert isinstance(decision, Deny)
    assert decision.reason == "forbidden by `no` (p1.cedar:1)"
    assert [ref.id for ref in decision.policies] == ["no"]
    assert isinstance(decide(policies, log_request()), Allow)


def test_what_no_policy_permits_is_denied_with_its_name(load, send_request):
    decision = decide(load(PERMIT_LOG), send_request({"recipient": "a"}))
    assert decision == Deny("no policy permits `InvokeTool::notify.send` for agent `triage`", (), decision.version)


def test_conditions_of_all_permits_that_fired_are_handed_on(load, send_request):
    policies = load(
        f'@id("a") @redact("arguments.body") permit(principal, {SEND});',
        f'@id("b") @cap("arguments.amount=5") permit(principal, {SEND}) when {{ context.arguments has amount }};',
        f"permit(principal, {SEND});",
    )
    decision = decide(policies, send_request({"recipient": "a"}))
    assert isinstance(decision, AllowWithConditions)
    assert [(each.kind, each.policy) for each in decision.conditions] == [(ConditionKind.REDACT, "a")]
    decision = decide(policies, send_request({"recipient": "a", "amount": 9}))
    assert {each.policy for each in decision.conditions} == {"a", "b"}
    assert {ref.id for ref in decision.policies} == {"a", "b", "p2.cedar:1"}


def test_groups_servers_attributes_arguments_and_labels_are_seen(load, send_request):
    policies = load(
        f'permit(principal in Group::"oncall", {SEND} in ToolServer::"notify") when {{ principal.owner == "ops" &&'
        ' resource.verified && context.arguments.recipient like "*@example.org" &&'
        ' context.labels.recipient.integrity != "untrusted" };'.replace("context.labels.recipient", "context.label")
    )
    assert isinstance(decide(policies, send_request({"recipient": "a@example.org"})), Allow)
    assert isinstance(decide(policies, send_request({"recipient": "a@example.com"})), Deny)
    assert isinstance(decide(policies, send_request({"recipient": "a@example.org"}, {"recipient": UNTRUSTED})), Deny)


def test_an_untrusted_recipient_is_forbidden_by_a_general_policy(load, send_request):
    policies = load(
        f"permit(principal, {SEND});",
        '@id("no-untrusted-recipient") forbid(principal, action in Action::"InvokeTool", resource)'
        ' when { context.labels has recipient && context.labels.recipient.integrity == "untrusted" };',
    )
    assert isinstance(
        decide(policies, send_request({"recipient": "a"}, {"body": UNTRUSTED, "recipient": Label()})), Allow
    )
    decision = decide(policies, send_request({"recipient": "a"}, {"recipient": UNTRUSTED}))
    assert [ref.id for ref in decision.policies] == ["no-untrusted-recipient"]


def test_entities_are_parsed_once_and_never_mixed_up(load):
    policies = load('permit(principal, action == Action::"ReadClock", resource) when { principal.trust == "trusted" };')
    clock = Resource("Resource", "clock")
    trusted = PolicyRequest(Principal(AgentId("a"), trust="trusted"), "ReadClock", clock, ALONE)
    standard = PolicyRequest(Principal(AgentId("a")), "ReadClock", clock, ALONE)
    for _ in range(3):
        assert isinstance(decide(policies, trusted), Allow)
        assert isinstance(decide(policies, standard), Deny)


def test_an_agent_may_ask_about_itself_and_about_another(load):
    policies = load('permit(principal, action == Action::"ConfigureAgent", resource) when { principal == resource };')

    def ask(resource):
        return decide(policies, PolicyRequest(Principal(AgentId("a")), "ConfigureAgent", resource, context))

    context = {"keys": [], "label": label_context(Label()), **ALONE}
    attributes = agent_attributes(Principal(AgentId("a")))
    assert isinstance(ask(Resource("Agent", "a", attributes)), Allow)
    assert isinstance(ask(Resource("Agent", "b", attributes)), Deny)


def test_what_a_decision_names_stands_in_the_order_of_files_and_lines_whatever_part_it_comes_from(load, log_request):
    scopes = ["principal", 'principal == Agent::"triage"', 'principal in Group::"oncall"'] * 2
    log = 'action == Action::"WriteLog", resource'

    def ids(found):
        return [ref.id for ref in found.policies]

    permits = load("\n".join(f"permit({scope}, {log});" for scope in scopes))
    assert ids(decide(permits, log_request())) == [f"p0.cedar:{line}" for line in range(1, 7)]
    forbids = load("\n".join(f"forbid({scope}, {log});" for scope in scopes))
    decision = decide(forbids, log_request())
    assert ids(decision) == [f"p0.cedar:{line}" for line in range(1, 7)]
    assert decision.reason == f"forbidden by {', '.join(f'`p0.cedar:{line}`' for line in range(1, 7))}"
    broken = 'when { Agent::"nobody".owner == "" }'
    failing = decide(load("\n".join(f"permit({scope}, {log}) {broken};" for scope in scopes)), log_request())
    assert [error.partition(": ")[0] for error in failing.errors] == [f"`p0.cedar:{line}`" for line in range(1, 7)]


# --- the base library -------------------------------------------------------------------------


@pytest.fixture
def base(load):
    return load(BASE.text)


def _create(risk, tier, trust="standard"):
    principal = Principal(AgentId("a"), trust=trust)
    context = {
        "tier": tier,
        "risk": {"__extn": {"fn": "decimal", "arg": risk}},
        "sourceDigest": "00",
        "inputs": ["log"],
        **ALONE,
    }
    return PolicyRequest(principal, "CreateAgent", Resource("Agent", "a", agent_attributes(principal)), context)


def _code(resource, tier="interpreter", memory=64, timeout=10_000):
    context = {
        "codeDigest": "00",
        "tier": tier,
        "risk": {"__extn": {"fn": "decimal", "arg": "0.25"}},
        "riskTier": "docker",
        "cpuMilli": 1000,
        "memoryMib": memory,
        "timeoutMs": timeout,
        "label": {"integrity": "untrusted", "confidentiality": "public", "categories": []},
        **ALONE,
    }
    return PolicyRequest(
        Principal(AgentId("a")), "ExecuteCode", Resource("Sandbox", resource, (("tier", resource),)), context
    )


def _pool(**changes):
    context = {
        "memoryMib": 64,
        "cpuMilli": 100,
        "diskMibps": 0,
        "networkMibitps": 0,
        "timeoutMs": 300_000,
        "priority": "normal",
        **ALONE,
        **changes,
    }
    return PolicyRequest(Principal(AgentId("a")), "AllocateResources", Resource("Resource", "pool"), context)


@pytest.mark.parametrize(
    ("request_", "allowed"),
    [
        (_create("0.4999", "docker"), True),
        (_create("0.5000", "docker"), False),
        (_create("0.9000", "gvisor"), True),
        (_create("0.9000", "interpreter"), True),
        (_create("0.1000", "docker", "untrusted"), False),
        (_code("interpreter"), True),
        (_code("docker"), False),
        (_code("interpreter", "docker"), False),
        (_code("interpreter", memory=257), False),
        (_code("interpreter", timeout=30_001), False),
        (_pool(), True),
        (_pool(memoryMib=513), False),
        (_pool(cpuMilli=1001), False),
        (_pool(timeoutMs=900_001), False),
        (_pool(diskMibps=101), False),
        (_pool(networkMibitps=101), False),
        (_pool(priority="critical"), False),
        (PolicyRequest(Principal(AgentId("a")), "ReadClock", Resource("Resource", "clock"), ALONE), False),
        (PolicyRequest(Principal(AgentId("a")), "Canary", Resource("Resource", "canary"), ALONE), False),
    ],
)
def test_the_base_library_permits_little(base, request_, allowed):
    decision = decide(base, request_)
    assert isinstance(decision, Allow) is allowed
    assert not getattr(decision, "errors", ())


def test_the_base_library_keeps_secrets_out_of_the_log(base, log_request):
    assert isinstance(decide(base, log_request(UNTRUSTED)), Allow)
    assert isinstance(decide(base, log_request(Label(confidentiality=Confidentiality.SECRET))), Deny)


# --- the engine -------------------------------------------------------------------------------


def test_a_new_set_is_in_force_at_once_and_everybody_hears_of_it(load, log_request):
    engine = PolicyEngine(load())
    heard = []
    engine.on_change(heard.append)
    assert isinstance(engine.decide(log_request()), Deny)
    new = load(PERMIT_LOG)
    engine.replace(new)
    assert engine.current is new
    assert heard == [new]
    assert isinstance(anyio.run(engine.evaluate_policy, log_request()), Allow)


def test_a_registered_policy_is_in_force_and_its_id_returned(load, log_request, notify):
    engine = PolicyEngine(load(tools=(notify,)))
    heard = []
    engine.on_change(heard.append)
    before = engine.current.version
    assert anyio.run(engine.register_policy, PolicySource("new.cedar", PERMIT_LOG)) == "log"
    assert isinstance(engine.decide(log_request()), Allow)
    assert engine.current.version != before
    assert engine.current.tools == (notify,)
    assert heard == [engine.current]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("permit(", PolicySyntaxError),
        ('@id("old") permit(principal, action, resource);', PolicySyntaxError),
        ('permit(principal, action == Action::"WriteLog", resource) when { context.x };', PolicySyntaxError),
        ("", InputError),
        (f'{PERMIT_LOG} @id("two") permit(principal, action, resource);', InputError),
    ],
)
def test_a_broken_policy_is_refused_and_the_old_set_stays(load, log_request, text, error):
    old = load('@id("old") forbid(principal, action == Action::"WriteLog", resource);')
    engine = PolicyEngine(old)
    engine.on_change(lambda _: pytest.fail("nothing changed"))
    with pytest.raises(error):
        anyio.run(engine.register_policy, PolicySource("new.cedar", text))
    assert engine.current is old
    assert engine.decide(log_request()).policies[0].id == "old"


def test_a_callback_that_fails_keeps_none_of_the_others_from_hearing(load):
    engine = PolicyEngine(load())
    heard = []

    def fail(_):
        raise RuntimeError("no")

    engine.on_change(fail)
    engine.on_change(heard.append)
    new = load(PERMIT_LOG)
    with pytest.raises(InternalError, match="not everybody"):
        engine.replace(new)
    assert engine.current is new
    assert heard == [new]


def test_a_set_that_is_replaced_while_it_is_asked_for_lets_no_decision_of_it_on_record(load):
    old, new = load(PERMIT_LOG), load("")

    class Swapping(PolicyEngine):
        """Another thread puts the new set in force just after the one in force was read."""

        @property
        def current(self):
            found = super().current
            if found is old and self._closing:
                self.replace(new)
            return found

    engine = Swapping(old)
    assert engine.holds(old.version)
    engine.close()
    assert not engine.holds(old.version)
    engine.replace(new)
    assert engine.holds(new.version)
    assert not engine.holds(old.version)
