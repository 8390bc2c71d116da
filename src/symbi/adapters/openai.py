"""Embeddings and answers from whoever speaks as OpenAI's API does: `POST …/embeddings` and `POST …/chat/completions`.

What comes back is believed in nothing: number, order, dimension and finiteness of the vectors are checked, and their
length is made one; of an answer, that it is one, and all of it. No redirect is followed, no proxy of the environment is used, and
no answer is read beyond a bound.
"""

import hashlib
import math
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

import anyio
import httpx2
import msgspec
import numpy as np

from symbi.errors import ConfigError, InputError, ModelFailed, PermitRefused, TimeLimit, Unavailable
from symbi.guard.action import CallModel, ReadData, WriteData
from symbi.guard.permit import Authority, Permit
from symbi.inference.permits import check_embed
from symbi.inference.port import EmbedderId, TextPurpose, Vectors
from symbi.knowledge.answer import AnswerModelId, Told

DIMENSIONS: Final[Mapping[str, int]] = MappingProxyType(
    {"text-embedding-3-small": 1_536, "text-embedding-3-large": 3_072, "text-embedding-ada-002": 1_536}
)
"""Of the models that OpenAI has; of any other the configuration says it."""
BATCH_TEXTS: Final = 128
BATCH_CHARACTERS: Final = 200_000
MAX_CHARACTERS: Final = 24_000  # of a text that are sent; the models read 8,191 tokens
ATTEMPTS: Final = 4
FIRST_PAUSE_S: Final = 0.5  # then twice as long each time
MAX_PAUSE_S: Final = 20.0
_BUSY: Final = frozenset({408, 409, 429, 500, 502, 503, 504})
_REFUSED: Final = frozenset({400, 404, 413, 422})
_NONSENSE: Final = (
    msgspec.MsgspecError, KeyError, TypeError, ValueError, OverflowError, IndexError, RecursionError,
)  # fmt: skip
_SHORTENED: Final = "text-embedding-3-"  # models whose vectors can be asked for in another length

OPENAI_HOST: Final = "api.openai.com"
ANSWER_BYTES: Final = 65_536  # beside those of the tokens
TOKEN_BYTES: Final = 64  # a token has some four, and `\\u0000` in JSON has six for one

Pause = Callable[[float], Awaitable[None]]


@dataclass(slots=True)
class _Requests:
    """Requests to one address, within bounds of time, size and number.

    Attributes:
        address: Where to.
        key: Sent as a bearer token; nothing is sent if None.
        who: What is asked, for messages.
        timeout_s: How long one request may take.
        pause: Waits between attempts.
        patient: Ask again where it took too long, too.
    """

    address: str
    key: str | None
    who: str
    timeout_s: float
    pause: Pause
    patient: bool
    _client: httpx2.AsyncClient | None = field(default=None, init=False)

    def open(self) -> None:
        """Prepare; nothing is sent."""
        context = ssl.create_default_context()  # the authorities of the system, or those of `SSL_CERT_FILE`
        self._client = httpx2.AsyncClient(
            verify=context, follow_redirects=False, trust_env=False, timeout=self.timeout_s
        )

    async def close(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def ask(self, asked: object, most: int, allowed: Callable[[], object]) -> tuple[int, bytes]:
        """Status and answer, of which no more is read than so many bytes.

        Args:
            asked: Sent as JSON.
            most: Bytes of the answer.
            allowed: Called before each attempt; raises where the permit has been revoked meanwhile.

        Raises:
            TimeLimit: It took too long.
            Unavailable: It cannot be reached, or is busy each time, or answers more than that.
        """
        body = msgspec.json.encode(asked)
        pause_s = FIRST_PAUSE_S
        for attempt in range(1, ATTEMPTS + 1):
            allowed()
            last = attempt == ATTEMPTS
            try:
                with anyio.fail_after(self.timeout_s):
                    status, headers, answer = await self._post(body, most)
            except (TimeoutError, httpx2.TimeoutException):
                if last or not self.patient:
                    msg = f"{self.who} took longer than {self.timeout_s:g} s"
                    raise TimeLimit(msg, code=f"limit.{self.area}") from None
            except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
                if last:
                    raise self.failed(f"cannot be reached: {type(error).__name__}") from None
            else:
                if status not in _BUSY:
                    return status, answer
                if last:
                    raise self.failed(f"is busy: it answered {status}")
                pause_s = max(pause_s, _retry_after_s(headers))
            await self.pause(min(pause_s, MAX_PAUSE_S))
            pause_s *= 2
        raise AssertionError

    async def _post(self, body: bytes, most: int) -> tuple[int, Mapping[str, str], bytes]:
        if self._client is None:
            raise self.failed("is closed")
        # What is packed could be a thousand times larger than what was read of it.
        headers = {"content-type": "application/json", "accept-encoding": "identity"}
        if self.key is not None:
            if not (self.key.isascii() and self.key.isprintable()):  # what the library says of it would quote it
                raise self.failed("has a key with signs that cannot be sent", hint="set OPENAI_API_KEY")
            headers["authorization"] = f"Bearer {self.key}"
        async with self._client.stream("POST", self.address, content=body, headers=headers) as answer:
            if answer.headers.get("content-encoding", "identity") != "identity":
                raise self.failed("packs its answers, unasked")
            data = bytearray()
            async for piece in answer.aiter_raw():
                data += piece
                if len(data) > most:
                    raise self.failed("answers more than it was asked for")
            return answer.status_code, answer.headers, bytes(data)

    @property
    def area(self) -> str:
        """What is asked, for codes."""
        return self.who.rpartition(" ")[2]

    def failed(self, message: str, hint: str | None = None) -> Unavailable:
        """That it cannot be used."""
        return Unavailable(f"{self.who} {message}", code=f"unavailable.{self.area}", hint=hint)

    def require(self, status: int) -> None:
        """Refuse what is no answer, and was not for what was asked.

        Raises:
            Unavailable: The key is refused, or something else is wrong.
        """
        if status in {401, 403}:
            raise self.failed(f"refuses the key: it answered {status}", hint="set OPENAI_API_KEY")
        if status != 200:  # noqa: PLR2004 - the one that has what was asked for
            raise self.failed(f"answered {status}")


class OpenAIEmbedder:
    """`symbi.inference.port.Embedder` over HTTP; an async context manager that owns its connections.

    Args:
        authority: Where permits are checked.
        model: Name of the model there.
        url: Base of the address, e.g. `https://api.openai.com/v1`.
        key: Sent as a bearer token; nothing is sent if None.
        dimension: Of the vectors; the model's own if None.
        timeout_s: How long one request may take.
        pause: Waits between attempts.

    Raises:
        ConfigError: Nothing says how long the vectors of the model are.
    """

    def __init__(
        self,
        authority: Authority,
        model: str,
        *,
        url: str,
        key: str | None = None,
        dimension: int | None = None,
        timeout_s: float = 30.0,
        pause: Pause = anyio.sleep,
    ) -> None:
        length = dimension or DIMENSIONS.get(model)
        if length is None:
            hint = "set `context.embedding_dimension`"
            raise ConfigError(f"nothing says how long the vectors of `{model}` are", code="config.dimension", hint=hint)
        self._authority = authority
        self._asks = {"model": model, "encoding_format": "float"} | (
            {"dimensions": length} if model.startswith(_SHORTENED) and DIMENSIONS.get(model) != length else {}
        )
        address = f"{url.rstrip('/')}/embeddings"
        self._requests = _Requests(address, key, "the embedder", timeout_s, pause, patient=True)
        digest = hashlib.sha256(f"{address}\n{model}\n{length}".encode()).hexdigest()
        self._model = EmbedderId(f"openai:{model}", digest, length, "openai", remote=True)

    async def __aenter__(self) -> Self:
        """Prepare; nothing is sent."""
        self._requests.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self._requests.close()

    @property
    def model(self) -> EmbedderId:
        """Which model it is."""
        return self._model

    async def embed(
        self, permit: Permit[ReadData] | Permit[WriteData], texts: Sequence[str], purpose: TextPurpose
    ) -> Vectors:
        """One row for each text; one that is empty is not sent.

        Raises:
            PermitRefused: The permit is not live, or its decision was not about this model.
            InputError: The provider refuses the model or the texts.
            TimeLimit: It took too long, each time.
            Unavailable: It cannot be reached, is busy each time, refuses the key, or gave no answer that is one.
        """
        del purpose
        rows = np.zeros((len(texts), self._model.dimension), np.float32)
        said = [one[:MAX_CHARACTERS].encode("utf-8", "replace").decode() for one in texts]
        for batch in batches(said):
            asked = {**self._asks, "input": [said[at] for at in batch]}
            most = _bound(len(batch), self._model.dimension)
            status, answer = await self._requests.ask(
                asked, most, lambda: check_embed(self._authority, permit, self._model)
            )
            rows[batch] = self._read(status, answer, len(batch))
        check_embed(self._authority, permit, self._model)
        return rows

    def _read(self, status: int, answer: bytes, count: int) -> Vectors:
        failed = self._requests.failed
        if status in _REFUSED:
            raise InputError(f"the embedder refuses the request: it answered {status}", code="embedder.refused")
        self._requests.require(status)
        try:
            data = msgspec.json.decode(answer)["data"]
            places = [one["index"] for one in data]
            rows = np.asarray([one["embedding"] for one in data], np.float64)
        except _NONSENSE:
            raise failed("gave no answer that is one") from None
        if sorted(map(_whole, places)) != list(range(count)):
            raise failed(f"was given {count} texts and answers for others")
        if rows.shape != (count, self._model.dimension):
            length = rows.shape[1] if rows.ndim == 2 else "unequal"  # noqa: PLR2004 - rows and columns
            msg = f"makes vectors of {length} dimensions and not of {self._model.dimension}"
            raise failed(msg, hint="set `context.embedding_dimension` to what the model gives")
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        if not np.isfinite(lengths).all() or not (lengths > 0).all():
            raise failed("makes vectors that are no directions")
        made = np.empty((count, self._model.dimension), np.float32)
        made[places] = (rows / lengths).astype(np.float32)
        return made


class OpenAIAnswers:
    """`symbi.knowledge.port.AnswerModel` over HTTP; an async context manager that owns its connections.

    Args:
        authority: Where permits are spent.
        model: Which it is; its name there is its name here.
        url: Base of the address, e.g. `https://api.openai.com/v1`.
        key: Sent as a bearer token; nothing is sent if None.
        pause: Waits between attempts.
    """

    def __init__(
        self,
        authority: Authority,
        model: AnswerModelId,
        *,
        url: str,
        key: str | None = None,
        pause: Pause = anyio.sleep,
    ) -> None:
        self._authority = authority
        self._model = model
        # OpenAI's newer models take no `max_tokens`, and most others know nothing else.
        self._limit = "max_completion_tokens" if urlsplit(url).hostname == OPENAI_HOST else "max_tokens"
        address = f"{url.rstrip('/')}/chat/completions"
        self._requests = _Requests(address, key, "the model", model.timeout_s, pause, patient=False)

    async def __aenter__(self) -> Self:
        """Prepare; nothing is sent."""
        self._requests.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self._requests.close()

    @property
    def model(self) -> AnswerModelId:
        """Which model it is."""
        return self._model

    async def write(self, permit: Permit[CallModel]) -> str:
        """An answer to the permit's own prompt, which policy may have changed.

        Raises:
            PermitRefused: The permit is spent, or its decision was not about this model.
            ModelFailed: It refuses, or what it gave is no answer, or no whole one.
            TimeLimit: It took too long.
            Unavailable: It cannot be reached, is busy each time, refuses the key, or answers more than it was asked for.
        """
        action, mine = self._authority.redeem(permit, CallModel), self._model
        if action.model != mine.ref or (mine.remote and action.remote is not True):
            msg = f"permit does not say that `{mine.name}` of `{mine.provider}` is asked, and whether that is another machine"
            raise PermitRefused(msg, code="permit.foreign")
        prompt = Told.read(action.prompt)
        asked = {
            "model": mine.name,
            "messages": [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.user}],
            self._limit: min(action.max_tokens, mine.max_tokens),
        }
        most = ANSWER_BYTES + TOKEN_BYTES * mine.max_tokens
        within_s = min(action.timeout_s, mine.timeout_s)
        try:
            with anyio.fail_after(within_s):
                status, answer = await self._requests.ask(asked, most, lambda: self._authority.check(permit, CallModel))
        except TimeoutError:
            raise TimeLimit(f"the model took longer than {within_s:g} s", code="limit.model") from None
        return self._read(status, answer)

    def _read(self, status: int, answer: bytes) -> str:
        if status in _REFUSED:
            raise ModelFailed(f"the model refuses the request: it answered {status}", code="model.refused")
        self._requests.require(status)
        try:
            (choice,) = msgspec.json.decode(answer)["choices"]
            said, refusal = choice["message"]["content"], choice["message"].get("refusal")
            ended = choice.get("finish_reason")
        except (*_NONSENSE, AttributeError):
            raise ModelFailed("the model gave no answer that is one", code="model.malformed") from None
        if refusal or ended == "content_filter":
            raise ModelFailed("the model refuses to answer", code="model.refused")
        if ended != "stop" or not isinstance(said, str):
            msg = "the model's answer is cut off" if ended == "length" else "the model gave no answer that is one"
            raise ModelFailed(msg, code="model.cut" if ended == "length" else "model.malformed")
        return said


def batches(texts: Sequence[str]) -> list[list[int]]:
    """Places of the texts that are sent together; those with nothing in them are in none."""
    found: list[list[int]] = [[]]
    size = 0
    for at, text in enumerate(texts):
        if not text.strip():
            continue
        if len(found[-1]) == BATCH_TEXTS or (found[-1] and size + len(text) > BATCH_CHARACTERS):
            found.append([])
            size = 0
        found[-1].append(at)
        size += len(text)
    return [one for one in found if one]


def _bound(count: int, dimension: int) -> int:
    return 65_536 + count * (256 + 32 * dimension)  # a number has some twenty digits


def _retry_after_s(headers: Mapping[str, str]) -> float:
    try:
        asked = float(headers.get("retry-after", "0"))
    except ValueError:
        return 0.0
    return asked if math.isfinite(asked) else 0.0


def _whole(value: Any) -> int:
    return value if type(value) is int else -1
