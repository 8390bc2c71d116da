"""Whoever may hand in an agent file grants himself nothing that the operator has not let him."""

import anyio
import pytest

from symbi.adapters.sqlite import SqliteReader
from symbi.audit.event import AuditEventType as T
from symbi.audit.event import parse_event
from symbi.crypto.pem import make_pem_pair
from symbi.dsl.compile import compile_file
from symbi.dsl.parser import parse
from symbi.errors import InputError, PolicyDenied, SignatureInvalid
from symbi.testing.runtime import open_in
from symbi.types import OPERATOR_AGENT, AgentId, Principal

pytestmark = pytest.mark.anyio

CREATE = '@id("create") permit (principal, action in [Action::"CreateAgent", Action::"AllocateResources"], resource);\n'
CLOCK = '@id("clock") permit (principal, action == Action::"ReadClock", resource);\n'
GREEDY = (
    "agent a {{ policy own {{ allow: any {rules} }} with sandbox = interpreter, timeout = 5.seconds {{ {body} }} }}"
)
PRODUCTION = '[runtime]\nmode = "production"\n'


def greedy(body: str = "now(); 1", rules: str = "") -> str:
    return GREEDY.format(body=body, rules=rules)


def events(folder):
    with SqliteReader(folder / ".symbi") as reader:
        return [parse_event(stored.record) for stored in reader.read(1)]


async def run(opened, compiled=None):
    compiled = compiled or opened.compiled
    return await opened.runtime.run(compiled, compiled.agents[0], {})


def compiled_from(text: str, file: str):
    return compile_file(parse(text, file), text)


async def test_a_file_cannot_let_its_own_agent_be_created_and_none_of_it_is_ever_in_force(tmp_path):
    async with open_in(tmp_path, greedy(), policies=CLOCK) as opened:
        before = opened.runtime.policies.current.version
        with pytest.raises(PolicyDenied, match="CreateAgent"):
            await run(opened)
        assert opened.runtime.policies.current.version == before
    sets = [event.details for event in events(tmp_path) if event.event_type == T.POLICY_CHANGED]
    assert [details["cause"] for details in sets] == ["start"]


async def test_the_permits_of_a_file_come_in_force_once_its_agent_is_created(tmp_path):
    async with open_in(tmp_path, greedy(), policies=CREATE) as opened:
        assert (await run(opened)).error is None
    kinds = [(e.event_type, e.details.get("cause", e.details.get("action"))) for e in events(tmp_path)]
    created = kinds.index((T.DECISION_ALLOW, "CreateAgent"))
    permitted = kinds.index((T.POLICY_CHANGED, "agent_file"))
    assert created < permitted < kinds.index((T.DECISION_ALLOW, "ReadClock"))


async def test_its_denials_hold_already_when_its_creation_is_decided_and_go_with_it(tmp_path):
    async with open_in(tmp_path, greedy(rules="deny: create(self)"), policies=CREATE) as opened:
        before = opened.runtime.policies.current.version
        with pytest.raises(PolicyDenied) as denial:
            await run(opened)
        assert denial.value.fields["at"] == ["agent.symbi:1"]
        assert opened.runtime.policies.current.version == before
    causes = [event.details["cause"] for event in events(tmp_path) if event.event_type == T.POLICY_CHANGED]
    assert causes == ["start", "admission", "admission"]


async def test_a_file_that_bears_the_name_of_a_running_agent_gives_it_nothing_if_it_is_not_admitted(tmp_path):
    first = greedy(body="now(); 1").replace("allow: any", "allow: log")
    digest_bound = CREATE.replace(
        "resource);", 'resource) when { !(context has sourceDigest) || context.sourceDigest == "%s" };'
    )
    honest = compiled_from(first, str(tmp_path / "agent.symbi"))
    text = (
        digest_bound.replace("in [", "== ").replace(', Action::"AllocateResources"]', "")
        % honest.agents[0].source_digest
    )
    policies = text + CREATE.replace('"create"', '"allocate"').replace('Action::"CreateAgent", ', "")
    async with open_in(tmp_path, first, policies=policies) as opened:
        assert isinstance((await run(opened)).error, PolicyDenied)  # it may log, and not read the clock
        forged = compiled_from(greedy(), str(tmp_path / "agent.symbi"))
        with pytest.raises(PolicyDenied, match="CreateAgent"):
            await run(opened, forged)
        assert isinstance((await run(opened)).error, PolicyDenied)


@pytest.mark.parametrize("config", [PRODUCTION, '[policy]\nagent_rules = "restrict"\n'])
async def test_in_production_and_where_it_is_set_a_file_permits_nothing_at_all(tmp_path, config):
    async with open_in(tmp_path, greedy(), config=config, policies=CREATE) as opened:
        assert isinstance((await run(opened)).error, PolicyDenied)
    async with open_in(tmp_path / "b", greedy(), config=config, policies=CREATE + CLOCK) as opened:
        assert (await run(opened)).error is None


async def test_full_rules_in_production_are_said_aloud(tmp_path):
    config = PRODUCTION + '[policy]\nagent_rules = "full"\n'
    async with open_in(tmp_path, greedy(), config=config, policies=CREATE) as opened:
        assert any("policy.agent_rules" in warning for warning in opened.runtime.warnings)
        assert (await run(opened)).error is None


async def test_what_a_restricted_file_requires_of_itself_holds(tmp_path):
    rules = 'require: { record: "digest" }'
    config = '[policy]\nagent_rules = "restrict"\n'
    body = greedy(body='log("hello"); 1', rules=rules)
    log = '@id("log") permit (principal, action == Action::"WriteLog", resource);\n'
    async with open_in(tmp_path, body, config=config, policies=CREATE + log) as opened:
        assert (await run(opened)).error is None
    (written,) = [
        e.details for e in events(tmp_path) if e.details.get("action") == "WriteLog" and "verdict" in e.details
    ]
    assert written["conditions"][0]["value"] == "digest"
    assert "arguments" not in written


# --- replacing the set of a runtime that is alive ----------------------------------------------

SET = '@id("set") permit (principal == Agent::"symbi.operator", action == Action::"ConfigurePolicies", resource);\n'


async def test_the_operator_replaces_the_set_through_the_gate_and_an_agent_does_not(tmp_path):
    (tmp_path / "next").mkdir(parents=True)
    (tmp_path / "next/n.cedar").write_text(SET + CREATE + CLOCK)
    body = greedy().replace("allow: any", "allow: log")
    async with open_in(tmp_path, body, policies=SET + CREATE) as opened:
        assert isinstance((await run(opened)).error, PolicyDenied)
        with pytest.raises(PolicyDenied, match="ConfigurePolicies"):
            await opened.runtime.set_policies(Principal(AgentId("a")), ["next"])
        with pytest.raises(InputError, match="`absent` is not there"):
            await opened.runtime.set_policies(Principal(OPERATOR_AGENT), ["absent"])
        with pytest.raises(InputError, match="no path"):
            await opened.runtime.set_policies(Principal(OPERATOR_AGENT), [])
        said = await opened.runtime.set_policies(Principal(OPERATOR_AGENT), ["next"])
        assert said["version"] == opened.runtime.policies.current.version != said["previous"]
        assert (await run(opened)).error is None
        (tmp_path / "next/n.cedar").write_text("permit (")
        with pytest.raises(InputError):
            await opened.runtime.set_policies(Principal(OPERATOR_AGENT), ["next"])
        assert (await run(opened)).error is None
    decided = [
        e.details for e in events(tmp_path) if e.details.get("action") == "ConfigurePolicies" and "verdict" in e.details
    ]
    assert [one["verdict"] for one in decided] == ["deny", "allow", "allow"]
    assert decided[1]["arguments"]["paths"] == ["next"]


async def test_a_runtime_that_asks_for_signatures_does_not_start_without_them(tmp_path):
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "key.pub").write_bytes(make_pem_pair()[1])
    config = '[policy]\nrequire_signed = true\ntrusted_keys = ["key.pub"]\n'
    with pytest.raises(SignatureInvalid, match="not signed"):
        async with open_in(tmp_path, greedy(), config=config, policies=CREATE):
            pytest.fail("it started")
    assert events(tmp_path)[-2].event_type == T.POLICY_REFUSED
    with pytest.raises(InputError, match="names no key"):
        async with open_in(tmp_path / "b", greedy(), config="[policy]\nrequire_signed = true\n", policies=CREATE):
            pytest.fail("it started")


async def test_a_shadow_of_the_configuration_is_recorded_and_a_broken_one_stops_nothing(tmp_path):
    (tmp_path / "next").mkdir(parents=True)
    (tmp_path / "next/n.cedar").write_text('@id("everything") permit (principal, action, resource);')
    body = greedy().replace("allow: any", "allow: log")
    config = '[policy]\nshadow = ["next"]\n'
    async with open_in(tmp_path, body, config=config, policies=CREATE) as opened:
        assert isinstance((await run(opened)).error, PolicyDenied)
    told = [event.details for event in events(tmp_path) if event.event_type == T.POLICY_SHADOW]
    assert [(one["action"], one["shift"]) for one in told] == [("ReadClock", "becomes allowed")]
    (tmp_path / "next/n.cedar").write_text("permit (")
    async with open_in(tmp_path, body, config=config, policies=CREATE + CLOCK) as opened:
        assert (await run(opened)).error is None


async def test_a_file_that_changes_is_in_force_without_a_restart(tmp_path):
    config = "[policy]\nwatch_interval_s = 0.05\n"
    body = greedy().replace("allow: any", "allow: log")
    async with open_in(tmp_path, body, config=config, policies=CREATE) as opened:
        assert isinstance((await run(opened)).error, PolicyDenied)
        changed = anyio.Event()
        opened.runtime.policies._engine.on_change(lambda _: changed.set())
        (tmp_path / "policies/operator.cedar").write_text(CREATE + CLOCK)
        with anyio.fail_after(20):
            await changed.wait()
        assert (await run(opened)).error is None
