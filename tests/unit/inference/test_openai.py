"""Embeddings over HTTP, against a server that answers well and badly."""

import contextlib
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anyio
import numpy as np
import pytest

from symbi.adapters.openai import ATTEMPTS, BATCH_TEXTS, MAX_CHARACTERS, MAX_PAUSE_S, OpenAIEmbedder, batches
from symbi.errors import ConfigError, InputError, PermitRefused, TimeLimit, Unavailable
from symbi.guard.action import ReadData, WriteData
from symbi.testing.contracts_vectors import DATA, open_permits
from symbi.types import AgentId, EffectId, Principal

pytestmark = pytest.mark.anyio
WHO = Principal(AgentId("a"))
NAME = "openai:tiny"


class Provider:
    """Answers `POST /v1/embeddings` by `answer`, and remembers what it was asked."""

    def __init__(self):
        self.asked = []
        self.headers = []
        self.answer: Callable = good
        self.attempts = 0

    def handle(self, body):
        self.attempts += 1
        return self.answer(self, body)


def vector(text):
    """A direction of three numbers that depends on the text, and is not of length one."""
    return [float(len(text)), 1.0, float(text.count("a"))]


def good(_provider, body):
    data = [{"index": at, "embedding": vector(text), "object": "embedding"} for at, text in enumerate(body["input"])]
    return 200, {}, {"data": data[::-1], "model": body["model"], "usage": {"prompt_tokens": 1}}


@pytest.fixture
def provider():
    made = Provider()

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self):
            made.headers.append(dict(self.headers))
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            made.asked.append((self.path, body))
            status, headers, answer = made.handle(body)
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            with contextlib.suppress(OSError):  # who asked has had enough
                self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    made.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def permits():
    return open_permits()


def read_permit(permits, **how):
    told = {"embedder": NAME, "remote": True} | how
    return permits.authority.mint(EffectId("r"), ReadData(principal=WHO, data=DATA, **told))


@pytest.fixture
async def embedder(provider, permits):
    pauses = []

    async def pause(seconds):
        pauses.append(seconds)

    made = OpenAIEmbedder(
        permits.authority, "tiny", url=provider.url, key="sk-canary", dimension=3, timeout_s=20, pause=pause
    )
    made.pauses = pauses
    async with made:
        yield made


def test_which_model_it_is_can_be_told(permits):
    made = OpenAIEmbedder(permits.authority, "text-embedding-3-small", url="https://api.openai.com/v1")
    assert (made.model.name, made.model.dimension, made.model.remote) == ("openai:text-embedding-3-small", 1536, True)
    assert OpenAIEmbedder(permits.authority, "m", url="https://h", dimension=1536).model.digest != made.model.digest
    with pytest.raises(ConfigError, match="nothing says how long"):
        OpenAIEmbedder(permits.authority, "unheard-of", url="https://h")


async def test_rows_are_in_order_and_of_length_one(provider, permits, embedder):
    texts = ["aaa", "", "b", "  \n", "cc"]
    rows = await embedder.embed(read_permit(permits), texts, "query")
    for at in (0, 2, 4):
        wanted = np.array(vector(texts[at]))
        assert np.allclose(rows[at], wanted / np.linalg.norm(wanted), atol=1e-6)
    assert not rows[[1, 3]].any()
    assert rows.dtype == np.float32
    ((path, body),) = provider.asked
    assert (path, body) == (
        "/v1/embeddings",
        {"model": "tiny", "encoding_format": "float", "input": ["aaa", "b", "cc"]},
    )
    assert provider.headers[0]["authorization"] == "Bearer sk-canary"


async def test_many_texts_go_in_bounded_requests(provider, permits, embedder):
    texts = [f"text {number}" for number in range(2 * BATCH_TEXTS + 1)] + ["x" * 10_000_000, "\ud800"]
    rows = await embedder.embed(read_permit(permits), texts, "document")
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert [len(body["input"]) for _, body in provider.asked] == [BATCH_TEXTS, BATCH_TEXTS, 3]
    assert len(provider.asked[-1][1]["input"][1]) == MAX_CHARACTERS
    assert all(sum(map(len, body["input"])) <= 200_000 for _, body in provider.asked)


def test_nothing_is_in_two_batches_or_none():
    texts = ["x" * size for size in (1, 199_999, 2, 0, 200_000, 1, 1)]
    assert batches(texts) == [[0, 1], [2], [4], [5, 6]]


async def test_a_permit_has_to_know_that_the_texts_leave(provider, permits, embedder):
    closed = read_permit(permits)
    permits.authority.close(closed)
    write = permits.authority.mint(EffectId("w"), WriteData(principal=WHO, data=DATA, embedder="builtin"))
    for permit in (closed, write, read_permit(permits, remote=False), read_permit(permits, embedder="openai:other")):
        with pytest.raises(PermitRefused):
            await embedder.embed(permit, ["secret"], "query")
    assert provider.asked == []


async def test_a_permit_that_is_revoked_between_two_requests_stops_the_rest(provider, permits, embedder):
    permit = read_permit(permits)

    def revoke(_, body):
        permits.authority.close(permit)
        return good(_, body)

    provider.answer = revoke
    with pytest.raises(PermitRefused):
        await embedder.embed(permit, ["a"] * (3 * BATCH_TEXTS), "document")
    assert len(provider.asked) == 1


async def test_a_permit_that_is_revoked_while_a_busy_provider_rests_has_nothing_sent_again(provider, permits):
    permit = read_permit(permits)

    async def pause(_seconds):
        permits.authority.close(permit)

    provider.answer = lambda *_: (503, {}, {})
    async with OpenAIEmbedder(permits.authority, "tiny", url=provider.url, dimension=3, pause=pause) as embedder:
        with pytest.raises(PermitRefused):
            await embedder.embed(permit, ["a"], "query")
    assert provider.attempts == 1


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_busy_provider_is_asked_again_a_bounded_number_of_times(provider, permits, embedder, status):
    provider.answer = lambda one, body: good(one, body) if one.attempts == 3 else (status, {"retry-after": "7"}, {})
    assert (await embedder.embed(read_permit(permits), ["a"], "query")).any()
    assert embedder.pauses == [7, 14]
    provider.answer = lambda *_: (status, {"retry-after": "1e9"}, {})
    with pytest.raises(Unavailable, match=f"answered {status}"):
        await embedder.embed(read_permit(permits), ["a"], "query")
    assert provider.attempts == 3 + ATTEMPTS
    assert max(embedder.pauses) == MAX_PAUSE_S


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, InputError), (404, InputError), (401, Unavailable), (403, Unavailable), (302, Unavailable)],
)
async def test_a_refusal_is_final_and_says_no_secret(provider, permits, embedder, status, error):
    provider.answer = lambda *_: (
        status,
        {"location": "http://127.0.0.1:1/"},
        {"error": {"message": "bad sk-canary text"}},
    )
    with pytest.raises(error) as caught:
        await embedder.embed(read_permit(permits), ["my text"], "query")
    assert provider.attempts == 1
    assert "sk-canary" not in str(caught.value)
    assert "my text" not in str(caught.value)


ONE = {"index": 0, "embedding": [1, 0, 0]}
NOT_ANSWERS = {
    "no json": b"<html>",
    "nothing": {},
    "no list": {"data": 5},
    "too few": {"data": [ONE]},
    "too many": {"data": [ONE, {**ONE, "index": 1}, {**ONE, "index": 2}]},
    "twice the same": {"data": [ONE, ONE]},
    "another place": {"data": [ONE, {**ONE, "index": 7}]},
    "no place": {"data": [ONE, {"embedding": [1, 0, 0]}]},
    "a place that is none": {"data": [ONE, {**ONE, "index": True}]},
    "too short": {"data": [ONE, {"index": 1, "embedding": [1, 0]}]},
    "all too long": {"data": [{"index": at, "embedding": [1, 0, 0, 0]} for at in range(2)]},
    "zeros": {"data": [ONE, {"index": 1, "embedding": [0, 0, 0]}]},
    "texts": {"data": [ONE, {"index": 1, "embedding": ["x", "y", "z"]}]},
    "beyond all bounds": b'{"data": [{"index": 0, "embedding": [1e999, 0, 0]}, {"index": 1, "embedding": [1, 0, 0]}]}',
    "deep": b'{"data": ' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    "huge": b'{"data": "' + b"x" * 500_000 + b'"}',
}


@pytest.mark.parametrize("answer", NOT_ANSWERS.values(), ids=NOT_ANSWERS)
async def test_what_is_no_answer_is_not_believed(provider, permits, embedder, answer):
    provider.answer = lambda *_: (200, {}, answer)
    with pytest.raises(Unavailable):
        await embedder.embed(read_permit(permits), ["a", "b"], "query")


async def test_a_provider_that_is_not_there_or_says_nothing(provider, permits):
    async def pause(_):
        pass

    async with OpenAIEmbedder(permits.authority, "tiny", url="http://127.0.0.1:1", dimension=3, pause=pause) as gone:
        with pytest.raises(Unavailable, match="cannot be reached"):
            await gone.embed(read_permit(permits), ["a"], "query")
    waiting = threading.Event()

    def slow(_provider, _body):
        waiting.wait(30)
        return 200, {}, {}

    provider.answer = slow
    async with OpenAIEmbedder(
        permits.authority, "tiny", url=provider.url, dimension=3, timeout_s=0.05, pause=pause
    ) as embedder:
        with pytest.raises(TimeLimit), anyio.fail_after(30):
            await embedder.embed(read_permit(permits), ["a"], "query")
    assert len(provider.asked) <= ATTEMPTS
    waiting.set()
