"""`run(image, command, …)` of an agent: what passes the gate, in which tier, under which label, and what is on the trail."""

import hashlib
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from symbi.adapters.sqlite import SqliteReader
from symbi.agent.containers import CodeLimits
from symbi.agent.effects import RunEffects, World
from symbi.agent.values import Secret, Value
from symbi.audit.event import parse_event
from symbi.clock import SystemClock
from symbi.dsl import ast
from symbi.errors import PolicyDenied, SandboxUnavailable, ScriptFailed
from symbi.guard.action import RunContainer
from symbi.guard.actions.containers import file_bytes
from symbi.sandbox.pool import Sandboxes
from symbi.sandbox.port import CommandResult
from symbi.testing.gate import open_gate
from symbi.types import (
    AgentId,
    Confidentiality,
    Integrity,
    JsonValue,
    Label,
    Principal,
    RecoveryClass,
    RunId,
    SecurityTier,
)

pytestmark = pytest.mark.anyio

PERMIT = '@id("may") permit (principal, action, resource);'
DIGEST = "sha256:" + 64 * "a"
IMAGE = f"registry.example:5000/tool@{DIGEST}"
STRANGERS = Label(integrity=Integrity.UNTRUSTED)
SECRET = Label(confidentiality=Confidentiality.SECRET)
OUTPUTS: dict[str, JsonValue] = {"report.json": {"n": 1}}


class Programs:
    """Keeps what it was asked for."""

    def __init__(self, authority, tier):
        self.authority = authority
        self.tier = tier
        self.asked = []

    async def run_command(self, permit):
        action = self.authority.redeem(permit, RunContainer)
        assert action.tier is self.tier
        self.asked.append(action)
        return CommandResult(3, "out", "err", OUTPUTS, 0.1)


@asynccontextmanager
async def running(policies=PERMIT, tier=SecurityTier.TIER1, tiers=(SecurityTier.TIER1, SecurityTier.TIER2), **how):
    async with open_gate(policies, folder=how.get("folder")) as gate:
        commands = {one: Programs(gate.guard.authority, one) for one in tiers}
        world = World(gate.guard, gate.log, SystemClock(), None, Sandboxes({}, commands), lambda *_: None)
        principal = Principal(AgentId("a"))
        recorded = gate.store.effects_of(RunId("r"))
        yield (
            RunEffects(world, principal, RunId("r"), "t.symbi", CodeLimits(tier, **how.get("limits", {})), recorded),
            commands,
        )


def texts(*words, label=None):
    return Value(tuple(Value(word, label or Label()) for word in words))


async def run(effects, **options):
    image = options.pop("image", Value(IMAGE))
    command = options.pop("command", texts("tool", "--fast"))
    return await effects.run(image, command, options, ast.NOWHERE)


def asked(commands):
    (found,) = [action for one in commands.values() for action in one.asked]
    return found


async def test_a_program_gives_its_code_what_it_said_and_what_it_wrote():
    inputs = Value({"a.txt": Value("text"), "b.json": Value({"k": Value((Value(1), Value(None)))})})
    async with running() as (effects, commands):
        answer = await run(
            effects, inputs=inputs, outputs=texts("report.json"), timeout=Value(5), env=Value({"M": Value("x")})
        )
    action = asked(commands)
    assert {name: value.data for name, value in answer.data.items() if name != "outputs"} == {
        "code": 3, "stdout": "out", "stderr": "err",
    }  # fmt: skip
    assert answer.data["outputs"].data["report.json"].data["n"].data == 1
    assert (action.image, action.image_digest, action.command) == (IMAGE, DIGEST, ("tool", "--fast"))
    assert (action.timeout_s, action.outputs, dict(action.env)) == (5.0, ("report.json",), {"M": "x"})
    assert action.inputs == {"a.txt": "text", "b.json": {"k": [1, None]}}
    assert action.digests["a.txt"] == hashlib.sha256(b"text").hexdigest()
    assert file_bytes(action.inputs["b.json"]) == b'{"k":[1,null]}'


@pytest.mark.parametrize("where", ["image", "command", "inputs", "outputs", "env", "timeout"])
async def test_what_comes_back_is_untrusted_and_bears_the_labels_of_all_that_went_in(where):
    given = {
        "image": Value(IMAGE, SECRET),
        "command": texts("tool", label=SECRET),
        "inputs": Value({"a": Value({"k": Value("x", SECRET)})}),
        "outputs": texts("report.json", label=SECRET),
        "env": Value({"M": Value("x", SECRET)}),
        "timeout": Value(5, SECRET),
    }
    async with running(tier=SecurityTier.TIER2) as (effects, commands):
        plain = await run(effects)
        answer = await run(effects, **{where: given[where]})
        last = [action for one in commands.values() for action in one.asked][-1]
    for value in (plain.data["code"], plain.data["outputs"].data["report.json"]):
        assert (value.label.integrity, value.label.confidentiality) == (Integrity.UNTRUSTED, Confidentiality.PUBLIC)
        assert len(value.label.sources) == 1
    for name in ("code", "stdout", "stderr"):
        assert answer.data[name].label.confidentiality is Confidentiality.SECRET
    assert last.label.confidentiality is Confidentiality.SECRET


@pytest.mark.parametrize(
    ("policies", "given", "label", "where"),
    [
        (PERMIT, "docker", Label(), "docker"),
        (PERMIT, "docker", STRANGERS, "gvisor"),
        (PERMIT, "gvisor", Label(), "gvisor"),
        ('@id("may") @tier("gvisor") permit (principal, action, resource);', "docker", Label(), "gvisor"),
        ('@id("may") @tier("docker") permit (principal, action, resource);', "gvisor", Label(), "gvisor"),
        ('@id("may") @tier("docker") permit (principal, action, resource);', "interpreter", Label(), "docker"),
    ],
)
async def test_a_program_runs_in_the_strongest_tier_that_anything_asks_for(policies, given, label, where):
    async with running(policies, SecurityTier(given)) as (effects, commands):
        await run(effects, inputs=Value({"a": Value("x", label)}))
    assert asked(commands).tier is SecurityTier(where)


async def test_the_interpreter_runs_no_program_and_nothing_stands_in_for_a_tier_that_is_not_there():
    async with running(tier=SecurityTier.INTERPRETER) as (effects, commands):
        with pytest.raises(SandboxUnavailable) as caught:
            await run(effects)
    assert caught.value.code == "unavailable.tier"
    assert "with sandbox = docker" in caught.value.hint
    async with running(tiers=(SecurityTier.TIER1,)) as (effects, commands):
        with pytest.raises(SandboxUnavailable):
            await run(effects, inputs=Value({"a": Value("x", STRANGERS)}))
    assert [one.asked for one in commands.values()] == [[]]


async def test_a_program_is_asked_for_within_what_its_agent_may_have():
    limits = {"memory_mib": 33, "cpu_milli": 250, "timeout_s": 7.0, "network_mibitps": 3}
    async with running(limits=limits) as (effects, commands):
        await run(effects)
    assert {name: getattr(asked(commands), name) for name in limits} == limits


async def test_files_and_a_network_raise_the_score_and_a_network_forbids_a_second_try():
    async with running(tier=SecurityTier.TIER2) as (effects, commands):
        await run(effects)
        await run(effects, network=texts("api.example.com:443", "API.example.com:443", "api.example.com:80"))
        plain, reaching = commands[SecurityTier.TIER2].asked
    assert plain.risk["factors"]["file_system_access"] == "0.1000"
    assert reaching.risk["factors"]["network_access"] == "0.1000"
    assert reaching.score == pytest.approx(plain.score + 0.2)
    assert (plain.recovery, reaching.recovery) == (RecoveryClass.READ_ONLY, RecoveryClass.NEVER_RETRY)


POLICY = """
@id("image")
permit (principal, action == Action::"RunContainer", resource == Image::"{digest}")
when {{
  context.program == "tool" && context.command == "tool '--a b'" && context.outputs.containsAll(["report.json"]) &&
  context.inputs == ["a.txt"] && context.inputDigests.contains("{input}") && context.env.isEmpty() &&
  context.network.isEmpty() && context.hosts.isEmpty() && context.credentials.isEmpty() &&
  context.tier == "docker" && context.risk.lessThan(decimal("0.5")) && context.timeoutMs <= 30000 &&
  context.memoryMib <= 64 && context.label.confidentiality == "public" && resource.reference like "registry.example*"
}};
"""


async def test_policies_see_the_image_by_digest_and_all_that_is_asked_for():
    policies = POLICY.format(digest=DIGEST, input=hashlib.sha256(b"text").hexdigest())
    good = {
        "command": texts("tool", "--a b"), "inputs": Value({"a.txt": Value("text")}), "outputs": texts("report.json"),
    }  # fmt: skip
    async with running(policies) as (effects, commands):
        await run(effects, **good)
        for change in (
            {"image": Value(f"registry.example/tool@sha256:{64 * 'b'}")},
            {"image": Value(f"evil.example/tool@{DIGEST}")},
            {"command": texts("tool", "--a", "b")},
            {"command": texts("sh", "-c", "tool '--a b'")},
            {"inputs": Value({"a.txt": Value("other")})},
            {"inputs": Value({"b.txt": Value("text")})},
            {"outputs": texts("other")},
            {"env": Value({"M": Value("x")})},
            {"network": texts("api.example.com:443")},
            {"timeout": Value(31)},
        ):
            with pytest.raises(PolicyDenied):
                await run(effects, **good | change)
    assert len(commands[SecurityTier.TIER1].asked) == 1


async def test_a_redacted_input_has_the_digest_of_what_is_left_of_it():
    policies = '@id("may") @redact("arguments.inputs.a") permit (principal, action, resource);'
    async with running(policies) as (effects, commands):
        inputs = Value({"a": Value("secret")})
        try:
            await run(effects, inputs=inputs)
        except PolicyDenied as error:
            raise AssertionError(error.message) from error
    action = asked(commands)
    assert action.inputs == {"a": "[redacted]"}
    assert action.digests == {"a": hashlib.sha256(b"[redacted]").hexdigest()}


WRONG = [
    ({"image": Value("python:3.12")}, "by digest"),
    ({"image": Value(7)}, "by digest"),
    ({"command": Value("tool --fast")}, "list of texts"),
    ({"command": texts()}, "a program and its arguments"),
    ({"command": Value((Value("tool"), Value(7)))}, "list of texts"),
    ({"inputs": texts("a")}, "must be a record"),
    ({"inputs": Value({"../a": Value("x")})}, "not the name of a file"),
    ({"inputs": Value({"a": Value(2**60)})}, "2^53"),
    ({"inputs": Value({"a": Value(Secret("x"))})}, "or named in `credentials` of `run(…)`"),
    ({"outputs": texts("/etc/passwd")}, "not the name of a file"),
    ({"outputs": texts("a/../../b")}, "not the name of a file"),
    ({"outputs": texts("a", "a")}, "twice"),
    ({"outputs": texts(*(f"f{n}" for n in range(65)))}, "65 outputs are more than the 64"),
    ({"env": Value({"A": Value(1)})}, "record of texts"),
    ({"timeout": Value(0)}, "not within"),
    ({"timeout": Value("30s")}, "length of time"),
    ({"credentials": Value({"h": Value("x")})}, "vault references"),
    ({"network": Value("api.example.com:443")}, "list of texts"),
    ({"network": texts("api.example.com")}, "no `host:port`"),
    ({"network": texts("*.example.com:443")}, "`*.example.com:443` is no `host:port`"),
    ({"network": texts("localhost:80")}, "`localhost:80` is no `host:port`"),
    ({"network": texts("169.254.169.254:80")}, "no public address"),
    ({"network": texts("TRACE api.example.com:80")}, "does not begin with methods"),
    ({"credentials": Value({"api.example.com": Value(Secret("k"))})}, "not in the network"),
    (
        {"network": texts("a.example:443"), "credentials": Value({"a.example Host": Value(Secret("k"))})},
        "no place for a credential",
    ),
]


REACH = """
@id("reach") permit (principal, action == Action::"RunContainer", resource)
when { context.network == ["GET api.example.com:443"] && context.hosts == ["api.example.com"] && context.credentials == ["k"] };
"""


async def test_policies_see_hosts_methods_and_credentials_and_the_sandbox_gets_no_more():
    good = {
        "network": texts("GET API.example.com:443"),
        "credentials": Value({"API.example.com X-Key": Value(Secret("k"))}),
    }
    async with running(REACH) as (effects, commands):
        await run(effects, **good)
        for change in (
            {"network": texts("api.example.com:443")},
            {"network": texts("GET,POST api.example.com:443")},
            {"network": texts("GET api.example.com:443", "evil.example:443")},
            {"credentials": Value({"api.example.com": Value(Secret("other"))})},
        ):
            with pytest.raises(PolicyDenied):
                await run(effects, **good | change)
    action = asked(commands)
    assert (action.network, action.secrets) == (("GET api.example.com:443",), ("k",))


@pytest.mark.parametrize(("given", "says"), WRONG, ids=[says for _, says in WRONG])
async def test_a_call_that_cannot_be_meant_is_an_error_at_its_place_and_never_reaches_the_gate(given, says):
    async with running() as (effects, commands):
        with pytest.raises(ScriptFailed) as caught:
            await run(effects, **given)
    assert says in caught.value.message
    assert caught.value.place is not None
    assert [one.asked for one in commands.values()] == [[], []]


async def test_a_secret_in_the_environment_is_told_where_secrets_go():
    async with running() as (effects, _):
        with pytest.raises(ScriptFailed) as caught:
            await run(effects, env=Value({"A": Value(Secret("x"))}))
    assert "`credentials`" in caught.value.hint


async def test_what_a_program_was_given_and_its_risk_are_on_the_trail(tmp_path):
    policies = '@id("may") @record("full") permit (principal, action, resource);'
    async with running(policies, folder=tmp_path) as (effects, _):
        await run(effects, inputs=Value({"a.txt": Value("text")}), outputs=texts("report.json"))
    with SqliteReader(tmp_path) as reader:
        events = [parse_event(stored.record) for stored in reader.read(1)]
    (decided,) = [
        event for event in events if event.details.get("action") == "RunContainer" and "arguments" in event.details
    ]
    arguments = decided.details["arguments"]
    assert arguments["digests"] == {"a.txt": hashlib.sha256(b"text").hexdigest()}
    assert (arguments["image"], arguments["command"]) == (IMAGE, ["tool", "--fast"])
    assert [event.details["risk"]["tier"] for event in events if "risk" in event.details] == ["docker"]


async def test_what_came_of_a_program_is_on_record_and_it_does_not_run_again(tmp_path):
    answers = []
    for _ in range(2):
        async with running(folder=tmp_path) as (effects, commands):
            answer = await run(effects, outputs=texts("report.json"))
            answers.append((answer, len(commands[SecurityTier.TIER1].asked)))
    assert [count for _, count in answers] == [1, 0]
    assert answers[0][0] == answers[1][0]


def test_an_effect_of_a_program_is_done_again_after_a_crash_only_where_it_reaches_nothing():
    plain = RunContainer(principal=Principal(AgentId("a")), image=IMAGE, command=("p",), tier=SecurityTier.TIER1)
    assert plain.recovery is RecoveryClass.READ_ONLY
    assert replace(plain, network=("api.example.com:443",)).recovery is RecoveryClass.NEVER_RETRY
