"""Embeddings from whoever speaks as OpenAI's API does: `POST …/embeddings`.

What comes back is believed in nothing: number, order, dimension and finiteness of the vectors are checked, and their
length is made one. No redirect is followed, no proxy of the environment is used, and no answer is read beyond a bound.
"""

import hashlib
import math
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self

import anyio
import httpx2
import msgspec
import numpy as np

from symbi.errors import ConfigError, InputError, TimeLimit, Unavailable
from symbi.guard.action import ReadData, WriteData
from symbi.guard.permit import Authority, Permit
from symbi.inference.permits import check_embed
from symbi.inference.port import EmbedderId, TextPurpose, Vectors

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
_SHORTENED: Final = "text-embedding-3-"  # models whose vectors can be asked for in another length

Pause = Callable[[float], Awaitable[None]]


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
        self._address = f"{url.rstrip('/')}/embeddings"
        self._key = key
        self._timeout_s = timeout_s
        self._pause = pause
        digest = hashlib.sha256(f"{self._address}\n{model}\n{length}".encode()).hexdigest()
        self._model = EmbedderId(f"openai:{model}", digest, length, "openai", remote=True)
        self._client: httpx2.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        """Prepare; nothing is sent."""
        context = ssl.create_default_context()  # the authorities of the system, or those of `SSL_CERT_FILE`
        self._client = httpx2.AsyncClient(
            verify=context, follow_redirects=False, trust_env=False, timeout=self._timeout_s
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

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
            rows[batch] = await self._ask(permit, [said[at] for at in batch])
        check_embed(self._authority, permit, self._model)
        return rows

    async def _ask(self, permit: Permit[ReadData] | Permit[WriteData], texts: Sequence[str]) -> Vectors:
        body = msgspec.json.encode({**self._asks, "input": texts})
        pause_s = FIRST_PAUSE_S
        for attempt in range(1, ATTEMPTS + 1):
            check_embed(self._authority, permit, self._model)  # each time: the permit may have been revoked meanwhile
            try:
                with anyio.fail_after(self._timeout_s):
                    status, headers, answer = await self._post(body, _bound(len(texts), self._model.dimension))
            except (TimeoutError, httpx2.TimeoutException):
                if attempt == ATTEMPTS:
                    raise TimeLimit(
                        f"the embedder took longer than {self._timeout_s:g} s", code="limit.embedder"
                    ) from None
            except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
                if attempt == ATTEMPTS:
                    raise _failed(f"the embedder cannot be reached: {type(error).__name__}") from None
            else:
                if status not in _BUSY:
                    return self._read(status, answer, len(texts))
                if attempt == ATTEMPTS:
                    raise _failed(f"the embedder is busy: it answered {status}")
                pause_s = max(pause_s, _retry_after_s(headers))
            await self._pause(min(pause_s, MAX_PAUSE_S))
            pause_s *= 2
        raise AssertionError

    async def _post(self, body: bytes, most: int) -> tuple[int, Mapping[str, str], bytes]:
        if self._client is None:
            raise _failed("the embedder is closed")
        headers = {"content-type": "application/json"}
        if self._key is not None:
            headers["authorization"] = f"Bearer {self._key}"
        async with self._client.stream("POST", self._address, content=body, headers=headers) as answer:
            data = bytearray()
            async for piece in answer.aiter_bytes():
                data += piece
                if len(data) > most:
                    raise _failed("the embedder answers more than it was asked for")
            return answer.status_code, answer.headers, bytes(data)

    def _read(self, status: int, answer: bytes, count: int) -> Vectors:
        if status in _REFUSED:
            raise InputError(f"the embedder refuses the request: it answered {status}", code="embedder.refused")
        if status in {401, 403}:
            raise _failed(f"the embedder refuses the key: it answered {status}", hint="set OPENAI_API_KEY")
        if status != 200:  # noqa: PLR2004 - the one that has vectors
            raise _failed(f"the embedder answered {status}")
        try:
            data = msgspec.json.decode(answer)["data"]
            places = [one["index"] for one in data]
            rows = np.asarray([one["embedding"] for one in data], np.float64)
        except (msgspec.MsgspecError, KeyError, TypeError, ValueError, OverflowError, IndexError, RecursionError):
            raise _failed("the embedder gave no answer that is one") from None
        if sorted(map(_whole, places)) != list(range(count)):
            raise _failed(f"the embedder was given {count} texts and answers for others")
        if rows.shape != (count, self._model.dimension):
            length = rows.shape[1] if rows.ndim == 2 else "unequal"  # noqa: PLR2004 - rows and columns
            msg = f"the embedder's vectors have {length} dimensions and not {self._model.dimension}"
            raise _failed(msg, hint="set `context.embedding_dimension` to what the model gives")
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        if not np.isfinite(lengths).all() or not (lengths > 0).all():
            raise _failed("the embedder's vectors are no directions")
        made = np.empty((count, self._model.dimension), np.float32)
        made[places] = (rows / lengths).astype(np.float32)
        return made


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


def _failed(message: str, hint: str | None = None) -> Unavailable:
    return Unavailable(message, code="unavailable.embedder", hint=hint)
