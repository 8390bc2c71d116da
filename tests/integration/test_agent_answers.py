"""Agents' `answer` where a model writes answers: asked as the agent, through the gate, once, and checked; else word for word."""

import json
import shutil
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from symbi.adapters.openai import ATTEMPTS
from symbi.agent.journal import RunState
from symbi.dsl.rules import capability_bound
from symbi.errors import ApprovalPending, BudgetExceeded
from symbi.guard.approval import ApprovalState
from symbi.guard.budget import Allowance
from symbi.guard.desk import Ballot
from symbi.guard.ledger import EffectState
from symbi.guard.spending import Budget
from symbi.policy import library
from symbi.testing.answers import (
    AGENT,
    ASKS,
    EXTRACT,
    GOOD,
    MAIL,
    QUESTION,
    READS,
    answer_server,
    reader_config,
    saying,
)
from symbi.testing.runtime import open_in
from symbi.types import AgentId, Confidentiality, Integrity

pytestmark = pytest.mark.anyio

SCRIPT = Path(__file__).parents[1] / "data" / "crash_answer.py"


@pytest.fixture
def provider():
    with answer_server() as made:
        made.answer = lambda: saying(GOOD)
        yield made


@asynccontextmanager
async def opened(folder, provider, policies=READS + ASKS, more="", **how):
    """A runtime with that model."""
    config = reader_config(provider.url) + more
    async with open_in(folder, AGENT, policies=policies, config=config, **how) as running:
        yield running.runtime, running.compiled


async def put(runtime, source="mail.md", data=MAIL):
    knowledge = await runtime.rooms.knowledge.opened()
    await knowledge.put(runtime.context.memory.principal_of(AgentId("librarian")), "ops", source, data)


async def run(runtime, compiled, **how):
    (spec,) = compiled.agents
    return await runtime.run(compiled, spec, {"question": QUESTION}, **how)


async def answered(folder, provider, policies=READS + ASKS, more="", **how):
    """What a run of the agent came to, and the events of the trail."""
    async with opened(folder, provider, policies, more, **how) as (runtime, compiled):
        await put(runtime)
        outcome = await run(runtime, compiled)
        return outcome, events(runtime)


def events(runtime):
    return [json.loads(one.record) for one in runtime.rooms.world.log._store.read(1)]


async def effect(runtime, run_id, position):
    world = runtime.rooms.world
    return await world.log.read(lambda: world.guard.places._effects.effect_at(run_id, position))


async def test_the_model_is_asked_as_the_agent_and_what_it_writes_is_answered(tmp_path, provider):
    outcome, told = await answered(tmp_path, provider)
    said = outcome.output
    assert (said["text"], said["found"], said["by"], said["model"], said["unwritten"]) == (
        GOOD,
        True,
        "model",
        "tiny",
        "",
    )
    assert said["passages"][0]["source"] == "mail.md"
    ((_path, body),) = provider.asked
    assert "flush the queue by hand" in body["messages"][1]["content"]
    (decided,) = [
        one for one in told if one["details"].get("action") == "CallModel" and one["event_type"] == "decision.allow"
    ]
    assert (decided["agent_id"], decided["run_id"]) == ("reader", outcome.run_id)
    assert [one["id"] for one in decided["details"]["policies"]] == ["asks"]
    # What documents say is no more believed for having been written by a model.
    assert outcome.label.integrity is Integrity.UNTRUSTED
    # Neither what it was told nor what it said is in what nobody can take back.
    assert "bounces" not in json.dumps(told)
    assert GOOD not in json.dumps(told)


async def test_not_even_a_policy_that_wants_results_puts_what_it_writes_into_the_trail(tmp_path, provider):
    wants = ASKS.replace('@id("asks")', '@id("asks") @output("full")')
    outcome, told = await answered(tmp_path, provider, READS + wants)
    assert outcome.output["by"] == "model"
    assert GOOD not in json.dumps(told)


@pytest.mark.parametrize("effect_name", ["search", "answer"])
async def test_nor_what_was_found_or_the_model_is_to_be_asked(tmp_path, provider, effect_name):
    agent = AGENT.replace("answer(", f"{effect_name}(").replace('"answer"', f'"{effect_name}"')
    wants = (READS + ASKS).replace('@id("books")', '@id("books") @output("full")')
    config = f'[knowledge]\nanswer_model = "tiny"\nanswer_base_url = "{provider.url}"\n'
    async with open_in(tmp_path, agent, policies=wants, config=config) as running:
        await put(running.runtime)
        outcome = await run(running.runtime, running.compiled)
        assert "bounces" in json.dumps(outcome.output)
        told = events(running.runtime)
    (read,) = [
        one["details"]
        for one in told
        if one["event_type"] == "effect.outcome" and one["details"]["action"] == "ReadData" and one["run_id"]
    ]
    assert read["result_bytes"] > len(MAIL)
    assert "bounces" not in json.dumps(told)


async def test_what_documents_say_is_as_secret_as_they_are_whoever_writes(tmp_path, provider):
    secret = '[knowledge.collections.ops]\nclassification = "confidential"\n'
    outcome, _told = await answered(tmp_path, provider, more="answer_local = true\n" + secret)
    assert outcome.output["by"] == "model"
    assert (outcome.label.confidentiality, outcome.label.integrity) == (
        Confidentiality.CONFIDENTIAL,
        Integrity.UNTRUSTED,
    )
    marked = ASKS.replace('@id("asks")', '@id("asks") @mark("secret:ops")')
    outcome, _told = await answered(tmp_path / "marked", provider, READS + marked)
    assert outcome.label.confidentiality is Confidentiality.SECRET


async def test_a_model_elsewhere_is_told_nothing_confidential(tmp_path, provider):
    flow = (Path(library.__file__).parent / "data-flow.cedar").read_text("utf-8")
    secret = '[knowledge.collections.ops]\nclassification = "confidential"\n'
    outcome, told = await answered(tmp_path, provider, READS + ASKS + flow, more=secret)
    assert (outcome.output["text"], outcome.output["by"]) == (EXTRACT, "extract")
    assert "flow.nothing-confidential-to-a-remote-model" in json.dumps(told)
    assert provider.asked == []


async def test_where_policy_does_not_let_the_model_be_asked_it_is_word_for_word_and_says_why(tmp_path, provider):
    outcome, told = await answered(tmp_path, provider, READS)
    said = outcome.output
    assert (said["text"], said["found"], said["by"], said["model"]) == (EXTRACT, True, "extract", "")
    assert said["unwritten"].startswith("policy.")
    assert provider.asked == []
    refused = [one for one in told if one["event_type"] == "decision.deny"]
    assert [one["details"]["action"] for one in refused if one["agent_id"] == "reader"] == ["CallModel"]
    assert outcome.label.integrity is Integrity.UNTRUSTED


def test_the_capability_to_answer_lets_the_model_be_asked_and_no_other_one_does():
    assert 'Action::"CallModel"' in capability_bound("reader", ["answer"])
    assert 'Action::"CallModel"' not in capability_bound("reader", ["search", "recall", "tool", "log"])


BAD = {
    "cites nothing": (saying("Reboot the machine."), "knowledge.uncited"),
    "cites what is not there": (saying("Flush it [2]."), "knowledge.uncited"),
    "quotes what is not there": (saying('It says "reboot the whole machine" [1].'), "knowledge.misquoted"),
    "is cut off": (saying("Flush the queue [1]. Then", "length"), "model.cut"),
    "is refused": ((400, {}, {}), "model.refused"),
    "cannot be asked": ((401, {}, {}), "unavailable.model"),
}


@pytest.mark.parametrize(("reply", "code"), BAD.values(), ids=BAD)
async def test_what_a_model_may_not_say_is_not_shown_and_why_is_said(tmp_path, provider, reply, code):
    provider.answer = lambda: reply
    outcome, told = await answered(tmp_path, provider)
    said = outcome.output
    assert (said["text"], said["by"], said["model"]) == (EXTRACT, "extract", "")
    assert said["unwritten"].split(": ")[0] == code
    assert "eboot" not in json.dumps(said)
    assert len(provider.asked) == 1
    (ended,) = [
        one for one in told if one["event_type"] == "effect.outcome" and one["details"]["action"] == "CallModel"
    ]
    assert (ended["details"]["outcome"], ended["details"]["error"]) == ("failed", code)
    assert b"eboot" not in b"".join(path.read_bytes() for path in (tmp_path / ".symbi").glob("symbi.db*"))


async def test_a_model_that_says_there_is_no_answer_is_believed(tmp_path, provider):
    provider.answer = lambda: saying("NO ANSWER")
    outcome, _told = await answered(tmp_path, provider)
    said = outcome.output
    assert (said["found"], said["by"], said["passages"], said["model"]) == (False, "nothing", [], "tiny")


async def test_it_is_asked_nothing_that_documents_do_not_speak_of(tmp_path, provider):
    async with opened(tmp_path, provider) as (runtime, compiled):
        await put(runtime)
        (spec,) = compiled.agents
        outcome = await runtime.run(compiled, spec, {"question": "who painted the ceiling of the chapel"})
        assert (outcome.output["found"], outcome.output["by"], outcome.effects) == (False, "nothing", 2)
    assert provider.asked == []


async def test_it_counts_as_a_call_of_the_budget_of_the_run(tmp_path, provider):
    async with opened(tmp_path, provider) as (runtime, compiled):
        await put(runtime)
        one = await run(runtime, compiled, allowance=Allowance(Budget(calls=1)))
        assert one.output["by"] == "model"
        none = await run(runtime, compiled, allowance=Allowance(Budget(calls=0)))
        assert isinstance(none.error, BudgetExceeded)
    assert len(provider.asked) == 1


@pytest.mark.parametrize("busy", [True, False])
async def test_a_model_that_is_not_there_is_asked_as_often_as_by_anybody_else(tmp_path, provider, busy, monkeypatch):
    monkeypatch.setattr("symbi.adapters.openai.FIRST_PAUSE_S", 0.0)
    provider.answer = lambda: (503, {}, {}) if busy else (401, {}, {})
    outcome, _told = await answered(tmp_path, provider)
    assert outcome.output["unwritten"].startswith("unavailable.model: ")
    assert len(provider.asked) == (ATTEMPTS if busy else 1)


ASKED = ASKS.replace('@id("asks")', '@id("asks") @approval("who=ada")')
PEOPLE = '\n[approvals.people.ada]\nuser = "4242"\n'


@pytest.mark.parametrize("agrees", [True, False])
async def test_it_waits_for_people_where_they_must_agree(tmp_path, provider, agrees):
    async with opened(tmp_path, provider, READS + ASKED, PEOPLE) as (runtime, compiled):
        await put(runtime)
        held = await run(runtime, compiled)
        assert isinstance(held.error, ApprovalPending)
        assert provider.asked == []
        desk = runtime.rooms.world.guard.approvals
        (waiting,) = await desk.listed([ApprovalState.WAITING])
        await desk.vote(Ballot(waiting.id, waiting.digest, agrees, uid=4242))
    async with opened(tmp_path, provider, READS + ASKED, PEOPLE) as (runtime, compiled):
        outcome = await resumed(runtime, compiled)
        assert outcome.output["by"] == ("model" if agrees else "extract")
        assert outcome.output["unwritten"].startswith("" if agrees else "approval.denied: ")
        assert len(provider.asked) == agrees


LOOKED = READS.replace(
    '@id("books") permit (principal, action in [Action::"ReadData", Action::"WriteData"]',
    '@id("books") permit (principal, action == Action::"WriteData"',
)
LOOKED += '@id("looks") @approval("who=ada") permit (principal, action == Action::"ReadData", resource == Knowledge::"ops");\n'
SORTS = '[knowledge.rules.pay]\nsource = "pay*"\nclassification = "confidential"\n'


@pytest.mark.parametrize("effect_name", ["search", "answer"])
async def test_what_people_have_agreed_to_is_read_and_no_more(tmp_path, provider, effect_name):
    """Once, at once, and not what is of another sort than what they were asked about."""
    agent = AGENT.replace("answer(", f"{effect_name}(").replace('"answer"', f'"{effect_name}"')
    config = PEOPLE + SORTS
    async with open_in(tmp_path, agent, policies=LOOKED, config=config) as running:
        runtime = running.runtime
        await put(runtime)
        await put(runtime, "pay.md", b"# Pay\n\nTo flush the mail queue by hand is paid with a bonus.\n")
        for agrees in (True, False):
            held = await run(runtime, running.compiled)
            assert isinstance(held.error, ApprovalPending)
            desk = runtime.rooms.world.guard.approvals
            (waiting,) = await desk.listed([ApprovalState.WAITING])
            await desk.vote(Ballot(waiting.id, waiting.digest, agrees, uid=4242))
            outcome = await resumed(runtime, running.compiled, held.run_id)
            if agrees:
                said = outcome.output
                passages = said if effect_name == "search" else said["passages"]
                assert {one["source"] for one in passages} == {"mail.md"}
            else:
                assert outcome.error.code == "approval.denied"


HIDES = READS.replace(
    '@id("books") permit (principal, action in [Action::"ReadData", Action::"WriteData"]',
    '@id("books") permit (principal, action == Action::"WriteData"',
)
HIDES += """
@id("hides") @redact("arguments.query")
permit (principal, action == Action::"ReadData", resource is Knowledge) unless { resource.classification == "confidential" };
@id("pay") permit (principal, action == Action::"ReadData", resource is Knowledge) when { resource.classification == "confidential" };
"""


@pytest.mark.parametrize("effect_name", ["search", "answer"])
async def test_a_question_that_policy_hides_is_not_asked_of_documents_of_another_sort(tmp_path, effect_name):
    agent = AGENT.replace("answer(", f"{effect_name}(").replace('"answer"', f'"{effect_name}"')
    async with open_in(tmp_path, agent, policies=HIDES, config=SORTS) as running:
        await put(running.runtime, "pay.md", b"# Pay\n\nTo flush the mail queue by hand is paid with a bonus.\n")
        outcome = await run(running.runtime, running.compiled)
        assert outcome.error.code == "policy.condition"


async def resumed(runtime, compiled, run_id=None):
    (spec,) = compiled.agents
    found = await runtime.rooms.world.log.read(lambda: runtime.rooms.runs.runs(10))
    (record,) = [one for one in found if run_id in {None, one.run_id}]
    return await runtime.resume(compiled, spec, record)


POINTS = [("dispatched", 3), ("settled", 3), ("dispatched", 4), ("before_settle", 4), ("settled", 4), ("dispatched", 5)]


@pytest.mark.parametrize(("point", "number"), POINTS, ids=[f"{point}-{number}" for point, number in POINTS])
async def test_a_run_that_was_killed_asks_for_nothing_again_that_is_on_record(tmp_path, provider, point, number):
    async with opened(tmp_path, provider) as (runtime, _compiled):
        await put(runtime)
    ran = subprocess.run(  # noqa: ASYNC221 - nothing else is to go on
        [sys.executable, str(SCRIPT), str(tmp_path), provider.url, point, str(number)], capture_output=True, check=False, timeout=300
    )  # fmt: skip
    assert ran.returncode == -signal.SIGKILL, ran.stderr.decode()[-2000:]
    before = len(provider.asked)
    provider.answer = lambda: saying("By hand, flush it [1].")
    async with opened(tmp_path, provider) as (runtime, compiled):
        (record,) = await runtime.rooms.world.log.read(lambda: runtime.rooms.runs.runs(10))
        found = await effect(runtime, record.run_id, 1)
        written = found is not None and found.state is EffectState.CONFIRMED
        outcome = await resumed(runtime, compiled)
        assert outcome.state is RunState.FINISHED
        assert outcome.output["text"] == (GOOD if written else "By hand, flush it [1].")
        assert outcome.label.integrity is Integrity.UNTRUSTED
    assert len(provider.asked) == before + (not written)
    assert before == 1 or not written


async def test_a_run_goes_on_by_what_it_was_told_though_no_model_is_configured_any_more(tmp_path, provider):
    async with opened(tmp_path, provider) as (runtime, _compiled):
        await put(runtime)
    for number, text in ((4, EXTRACT), (5, GOOD)):  # before the model was asked, and after
        folder = tmp_path / str(number)
        shutil.copytree(tmp_path / ".symbi", folder / ".symbi")
        command = [sys.executable, str(SCRIPT), str(folder), provider.url, "dispatched", str(number)]
        ran = subprocess.run(command, capture_output=True, check=False, timeout=300)  # noqa: ASYNC221 - as above
        assert ran.returncode == -signal.SIGKILL, ran.stderr.decode()[-2000:]
        async with open_in(folder, AGENT, policies=READS + ASKS) as running:
            outcome = await resumed(running.runtime, running.compiled)
            assert outcome.output["text"] == text
            assert outcome.output["unwritten"].startswith("unavailable.model: " if text == EXTRACT else "")
