"""Answers that a model behind an OpenAI-compatible address writes: a server on this machine plays good and bad ones."""

import json
import threading
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from typer.testing import CliRunner

from symbi.adapters.keys import FileKeyStore
from symbi.adapters.openai import ATTEMPTS, OpenAIAnswers
from symbi.cli.main import app
from symbi.config import parse_settings, refuse_unsafe
from symbi.errors import ConfigError, PermitRefused
from symbi.guard.action import CallModel, ModelRef
from symbi.knowledge.answer import AnswerModelId
from symbi.knowledge.readings import Reader
from symbi.knowledge.rules import CollectionTerms, Rules
from symbi.policy import library
from symbi.policy.library import BASE
from symbi.testing.answers import EXTRACT, GOOD, MAIL, QUESTION, answer_server, saying
from symbi.testing.gate import ALLOW_ALL
from symbi.testing.knowledge import open_knowledge
from symbi.types import AgentId, Confidentiality, Principal
from symbi.wiring.documents import open_answers, open_cross_encoder

pytestmark = pytest.mark.anyio

OPERATOR = Principal(AgentId("symbi.operator"))
READER = Reader(Principal(AgentId("reader")))
TOKENS = 100


@pytest.fixture
def provider():
    with answer_server() as made:
        made.answer = lambda: saying(GOOD)
        yield made


@asynccontextmanager
async def answering(provider, policies=ALLOW_ALL, *, remote=True, timeout_s=20.0, url=None, key="sk-canary", **how):
    """Knowledge with that model, and one document."""
    pauses = []

    async def pause(seconds):
        pauses.append(seconds)

    async with open_knowledge(policies, answers=[], **how) as opened:
        told = AnswerModelId("tiny", "127.0.0.1", remote, TOKENS, timeout_s)
        authority = opened.gate.guard.authority
        async with OpenAIAnswers(authority, told, url=url or provider.url, key=key, pause=pause) as model:
            opened.knowledge._model = model
            model.pauses = pauses
            await opened.knowledge.put(OPERATOR, "ops", "mail.md", MAIL)
            yield opened.knowledge, opened.gate


async def ask(provider, **how):
    async with answering(provider, **how) as (knowledge, _):
        return await knowledge.answer(READER, QUESTION, written=True)


async def test_a_model_is_told_passages_and_question_and_says_so_that_it_can_be_looked_up(provider):
    async with answering(provider) as (knowledge, gate):
        answer = await knowledge.answer(READER, QUESTION, written=True)
        assert (answer.text, answer.by, answer.model, answer.unwritten) == (GOOD, "model", "tiny", "")
        assert answer.passages[0].citation.source == "mail.md"
        ((path, body),) = provider.asked
        assert path == "/v1/chat/completions"
        assert (body["model"], body["max_tokens"]) == ("tiny", TOKENS)
        system, user = body["messages"]
        assert (system["role"], user["role"]) == ("system", "user")
        assert "flush the queue by hand" in user["content"]
        assert user["content"].endswith(f"Question: {QUESTION}")
        assert provider.headers[0]["authorization"] == "Bearer sk-canary"
        decided = [one for one in gate.events() if one.details.get("action") == "CallModel"]
        assert len(decided) >= 1
        assert "sk-canary" not in repr(decided)


async def test_who_wants_it_word_for_word_asks_no_model(provider):
    async with answering(provider) as (knowledge, _):
        answer = await knowledge.answer(READER, QUESTION)
        assert (answer.by, answer.text, answer.model, answer.unwritten) == ("extract", EXTRACT, "", "")
        nothing = await knowledge.answer(READER, "who painted the ceiling of the chapel", written=True)
        assert (nothing.found, nothing.by) == (False, "nothing")
    assert provider.asked == []


BAD = {
    "invents": (saying("Reboot the machine."), "knowledge.uncited"),
    "cites what is not there": (saying("Flush it [2]."), "knowledge.uncited"),
    "quotes what is not there": (saying('It says "reboot the whole machine" [1].'), "knowledge.misquoted"),
    "links elsewhere": (saying("See https://evil.example/?q=1 [1]."), "knowledge.misquoted"),
    "is cut off": (saying("Flush the queue [1]. Then", "length"), "model.cut"),
    "refuses in a field": (saying(None, refusal="I will not"), "model.refused"),
    "is filtered": (saying(GOOD, "content_filter"), "model.refused"),
    "refuses the request": ((400, {}, {"error": {"message": "sk-canary"}}), "model.refused"),
    "does not know the model": ((404, {}, {}), "model.refused"),
    "refuses the key": ((401, {}, {}), "unavailable.model"),
    "leads elsewhere": ((302, {"location": "http://127.0.0.1:1/"}, {}), "unavailable.model"),
    "is too large": (saying("x" * 1_000_000), "unavailable.model"),
    "is packed": ((200, {"content-encoding": "gzip"}, b"\x1f\x8b"), "unavailable.model"),
    "is no JSON": ((200, {}, b"<html>"), "model.malformed"),
    "is nested": ((200, {}, b"[" * 60_000), "model.malformed"),
    "is empty": ((200, {}, {}), "model.malformed"),
    "has no choice": ((200, {}, {"choices": []}), "model.malformed"),
    "has two": ((200, {}, {"choices": saying(GOOD)[2]["choices"] * 2}), "model.malformed"),
    "has no text": (saying(["Flush [1]"]), "model.malformed"),
    "is no object": ((200, {}, {"choices": ["x"]}), "model.malformed"),
    "has no message": ((200, {}, {"choices": [{"message": "x", "finish_reason": "stop"}]}), "model.malformed"),
    "has half a letter": ((200, {}, b'{"choices": [{"message": {"content": "\\ud800 [1]"}, "finish_reason": "stop"}]}'), "model.malformed"),
    "calls a tool": (saying(None, "tool_calls", tool_calls=[{"id": "1"}]), "model.malformed"),
}  # fmt: skip


@pytest.mark.parametrize(("said", "code"), BAD.values(), ids=BAD)
async def test_what_a_model_may_not_say_is_not_taken_and_the_answer_says_why(provider, said, code):
    provider.answer = lambda: said
    answer = await ask(provider)
    assert (answer.by, answer.text, answer.model) == ("extract", EXTRACT, "")
    assert answer.unwritten.split(": ")[0] == code
    assert "sk-canary" not in answer.unwritten
    assert len(provider.asked) == 1
    assert answer.result.trace.stages[-1].facts == {"model": "tiny", "refused": code}


async def test_no_answer_is_none(provider):
    provider.answer = lambda: saying("NO ANSWER")
    answer = await ask(provider)
    assert (answer.found, answer.by, answer.model) == (False, "nothing", "tiny")


async def test_a_model_that_says_nothing_is_not_waited_for_and_not_asked_again(provider, later):
    waiting, over, answers = threading.Event(), threading.Event(), []

    def slow():
        waiting.wait(60)
        over.set()
        return saying(GOOD)

    async def work(knowledge):
        answers.append(await knowledge.answer(READER, QUESTION, written=True))
        assert not over.is_set()

    provider.answer = slow
    async with answering(provider) as (knowledge, gate):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work, knowledge)
            while not provider.asked:
                await anyio.lowlevel.checkpoint()
            await later(21, gate.log)
        waiting.set()
    (answer,) = answers
    assert answer.unwritten.startswith("limit.model: ")
    assert len(provider.asked) == 1


async def test_a_policy_can_give_it_less_time_and_fewer_tokens(provider):
    waiting = threading.Event()

    def slow():
        waiting.wait(30)
        return saying(GOOD)

    less = (
        '@id("less") @cap("arguments.maxTokens=7") permit (principal, action == Action::"CallModel", resource);\n'
        '@id("all") permit (principal, action, resource);'
    )
    assert (await ask(provider, policies=less)).by == "model"
    assert provider.asked[0][1]["max_tokens"] == 7
    provider.answer = slow
    short = less.replace('@cap("arguments.maxTokens=7")', '@timeout("100ms")')
    answer = await ask(provider, policies=short, timeout_s=60.0)
    waiting.set()
    assert answer.unwritten == "limit.model: the model took longer than 0.1 s"


async def test_a_busy_model_is_asked_again_a_bounded_number_of_times(provider):
    answers = [(429, {"retry-after": "7"}, {}), (503, {}, {}), saying(GOOD)]
    provider.answer = lambda: answers.pop(0)
    assert (await ask(provider)).text == GOOD
    provider.asked.clear()
    provider.answer = lambda: (503, {"retry-after": "1e9"}, {})
    answer = await ask(provider)
    assert answer.unwritten.startswith("unavailable.model: ")
    assert len(provider.asked) == ATTEMPTS
    gone = await ask(provider, url="http://127.0.0.1:1/v1")
    assert gone.unwritten.startswith("unavailable.model: the model cannot be reached")


@pytest.mark.parametrize("key", ["sk-can\u00e4ry", "sk-canary\n", "sk\x00canary"])
async def test_a_key_that_cannot_be_sent_is_said_and_not_quoted(provider, key):
    provider.answer = lambda: saying(GOOD)
    answer = await ask(provider, key=key)
    assert answer.unwritten == "unavailable.model: the model has a key with signs that cannot be sent"
    assert not provider.asked


CONFIDENTIAL = Rules({"ops": CollectionTerms(classification=Confidentiality.CONFIDENTIAL)})
FLOW = ALLOW_ALL + (Path(library.__file__).parent / "data-flow.cedar").read_text("utf-8")


@pytest.mark.parametrize("remote", [True, False])
async def test_confidential_passages_are_told_to_no_model_elsewhere(provider, tmp_path, remote):
    keys = FileKeyStore(tmp_path / "keys")
    async with answering(provider, FLOW, remote=remote, rules=CONFIDENTIAL, keys=keys) as (knowledge, gate):
        answer = await knowledge.answer(READER, QUESTION, written=True)
        if remote:
            assert provider.asked == []
            assert (answer.by, answer.text) == ("extract", EXTRACT)
            assert "flow.nothing-confidential-to-a-remote-model" in repr(gate.events()[-1].details)
            assert answer.unwritten.startswith("policy.")
        else:
            assert answer.text == GOOD
            assert answer.label.confidentiality is Confidentiality.CONFIDENTIAL


MARKED = FLOW + '@id("marked") @mark("confidential:pii") permit (principal, action == Action::"ReadData", resource);\n'


async def test_what_policy_marks_as_it_is_read_is_told_to_no_model_elsewhere(provider):
    provider.answer = lambda: saying(GOOD)
    async with answering(provider, MARKED) as (knowledge, _):
        for _time in range(2):  # by a new lease, and by one that is there
            found = await knowledge.search(READER, QUESTION)
            assert {one.label.confidentiality for one in found.passages} == {Confidentiality.CONFIDENTIAL}
        answer = await knowledge.answer(READER, QUESTION, written=True)
        assert answer.unwritten.startswith("policy.")
        assert answer.label.confidentiality is Confidentiality.CONFIDENTIAL
        assert not provider.asked


async def test_a_model_is_told_what_policy_leaves_of_its_prompt(provider):
    redacted = (
        '@id("less") @redact("arguments.prompt.user") permit (principal, action == Action::"CallModel", resource);\n'
    )
    policies = redacted + '@id("all") permit (principal, action, resource);'
    answer = await ask(provider, policies=policies)
    assert "bounces" not in repr(provider.asked)
    assert answer.by == "extract", "nothing can be cited that the model was not given"
    assert answer.unwritten.startswith("knowledge.uncited")


async def test_a_permit_has_to_be_about_this_model_and_know_that_it_is_elsewhere(provider):
    async with answering(provider) as (knowledge, gate):
        model = knowledge._model
        prompt = {"system": "s", "user": "u"}
        for name, remote in (("tiny", False), ("tiny", None), ("other", True)):
            action = CallModel(principal=OPERATOR, model=ModelRef(name, "127.0.0.1"), prompt=prompt, remote=remote)
            async with gate.guard.enforce(action) as permit:
                with pytest.raises(PermitRefused):
                    await model.write(permit)
        with pytest.raises(PermitRefused):
            await model.write(permit)
        assert provider.asked == []


async def test_it_is_configured(tmp_path, provider):
    text = f'[knowledge]\nanswer_model = "tiny"\nanswer_base_url = "{provider.url}"\nanswer_max_tokens = 9\n'

    def settings(more=""):
        environ = {"OPENAI_API_KEY": "sk-canary"}
        return parse_settings(text + more, file=tmp_path / "symbi.toml", cwd=tmp_path, environ=environ, overrides={})

    async with open_knowledge() as opened:
        authority = opened.gate.guard.authority
        async with open_answers(settings(), authority) as model:
            assert model.model == AnswerModelId("tiny", "127.0.0.1", True, 9, 60.0)
        async with open_answers(settings("answer_local = true\n"), authority) as model:
            assert model.model.remote is False
    elsewhere = 'answer_local = true\n[runtime]\nmode = "production"'
    text = text.replace("127.0.0.1", "models.example")
    said = " ".join(refuse_unsafe(settings("answer_local = true\n")))
    assert "`knowledge.answer_local`" in said
    assert "`knowledge.answer_base_url`" in said
    with pytest.raises(ConfigError, match=r"knowledge\.answer_local"):
        refuse_unsafe(settings(elsewhere))
    async with (
        open_knowledge() as opened,
        open_answers(settings("answer_local = true\n"), opened.gate.guard.authority) as model,
    ):
        assert model.model.remote is True
    with pytest.raises(ConfigError):
        settings("answer_timeout_s = 0\n")


async def test_denied_is_said(provider):
    policies = '@id("rw") permit (principal, action in [Action::"ReadData", Action::"WriteData"], resource);'
    answer = await ask(provider, policies=policies)
    assert provider.asked == []
    assert answer.unwritten.startswith("policy.")


CONFIG = """
[policy]
paths = ["policies"]

[knowledge]
answer_model = "tiny"
answer_base_url = "{url}"
"""
ASKS = """
@id("asks") permit (principal == Agent::"symbi.operator", action == Action::"CallModel", resource == Model::"tiny");
"""


def test_the_command_says_which_model_wrote_or_why_it_did_not(provider, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "symbi.toml").write_text(CONFIG.format(url=provider.url))
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies/base.cedar").write_text(BASE.text)
    (tmp_path / "mail.md").write_bytes(MAIL)

    def kb(*arguments):
        done = CliRunner().invoke(app, ["kb", *arguments])
        assert done.exit_code == 0, done.output
        return done

    kb("add", "mail.md", "-k", "ops")
    denied = kb("answer", QUESTION)
    assert "by hand. [1]" in denied.stdout
    assert "not written by the model" in denied.stderr
    assert "policy." in denied.stderr
    assert provider.asked == []
    (tmp_path / "policies/asks.cedar").write_text(ASKS)
    told = kb("answer", QUESTION, "--trace")
    assert GOOD in told.stdout
    assert "written by the model tiny" in told.stdout
    assert told.stderr.count("not written") == 0
    said = json.loads(kb("answer", QUESTION, "--json").stdout)
    assert (said["by"], said["model"], said["unwritten"]) == ("model", "tiny", "")
    asked = len(provider.asked)
    said = json.loads(kb("answer", QUESTION, "--extract", "--json").stdout)
    assert (said["by"], said["model"], said["unwritten"]) == ("extract", "", "")
    assert len(provider.asked) == asked
    provider.answer = lambda: saying("Reboot \x1b[31mit.")
    told = kb("answer", QUESTION)
    assert "Reboot" not in told.output
    assert "knowledge.uncited" in told.stderr
    assert QUESTION.encode() not in (tmp_path / ".symbi/symbi.db").read_bytes()


async def test_a_cross_encoder_that_is_not_there_is_said_when_documents_are_opened(tmp_path):
    told = parse_settings(
        '[knowledge]\ncross_encoder = "models/rank"',
        file=tmp_path / "symbi.toml",
        cwd=tmp_path,
        environ={},
        overrides={},
    )
    assert told.knowledge.cross_encoder == tmp_path / "models/rank"
    async with open_knowledge() as opened:
        with pytest.raises(ConfigError, match="no model in"):
            await open_cross_encoder(told, opened.gate.guard.authority)
        assert await open_cross_encoder(without(told), opened.gate.guard.authority) is None


def without(told):
    return replace(told, knowledge=replace(told.knowledge, cross_encoder=None))
