"""Models of sentence-transformers in a folder, on this machine: embeddings, and a cross-encoder; the extra `sentence-transformers` has what they need."""

import hashlib
import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Self

import anyio
import anyio.to_thread
import numpy as np

from symbi.errors import ConfigError, Unavailable
from symbi.guard.action import ReadData, WriteData
from symbi.guard.permit import Authority, Permit
from symbi.inference.permits import check_embed
from symbi.inference.port import EmbedderId, TextPurpose, Vectors

SLICE: Final = 32  # texts between two looks whether anybody still waits
MAX_CHARACTERS: Final = 32_000  # of a text that are read; the models read some hundred tokens
PAIRS: Final = 8  # of question and text, between two looks whether anybody still may have them read
MAX_PAIR_CHARACTERS: Final = (2_000, 4_000)  # of a question and of a text; a passage has some 900
MAX_REASON: Final = 300  # characters of what the library says is wrong with a model
_CHUNK: Final = 4 * 1024 * 1024


class TransformerEmbedder:
    """`symbi.inference.port.Embedder` by PyTorch; `open` makes one.

    Args:
        authority: Where permits are checked.
        model: Which it is.
        loaded: A `SentenceTransformer`.
    """

    def __init__(self, authority: Authority, model: EmbedderId, loaded: Any) -> None:
        self._authority = authority
        self._model = model
        self._loaded = loaded
        self._one = anyio.CapacityLimiter(1)

    @classmethod
    async def open(cls, authority: Authority, folder: Path) -> Self:
        """Read the model, on a thread; nothing is downloaded.

        Raises:
            ConfigError: There is no such folder, or no model in it.
            Unavailable: sentence-transformers is not installed.
        """
        model, loaded = await anyio.to_thread.run_sync(_load, folder)
        return cls(authority, model, loaded)

    @property
    def model(self) -> EmbedderId:
        """Which model it is."""
        return self._model

    async def embed(
        self, permit: Permit[ReadData] | Permit[WriteData], texts: Sequence[str], purpose: TextPurpose
    ) -> Vectors:
        """One row for each text.

        Raises:
            PermitRefused: The permit is not live.
            Unavailable: The model gave what are no vectors.
        """
        check_embed(self._authority, permit, self._model)
        rows = np.zeros((len(texts), self._model.dimension), np.float32)
        for first in range(0, len(texts), SLICE):
            said = [one[:MAX_CHARACTERS].encode("utf-8", "replace").decode() for one in texts[first : first + SLICE]]
            places = [first + at for at, one in enumerate(said) if one.strip()]
            if places:
                asked = [one for one in said if one.strip()]
                rows[places] = await anyio.to_thread.run_sync(self._rows, asked, purpose, limiter=self._one)
        return rows

    def _rows(self, texts: Sequence[str], purpose: TextPurpose) -> Vectors:
        encode = self._loaded.encode_query if purpose == "query" else self._loaded.encode_document
        made = np.asarray(encode(list(texts), show_progress_bar=False), np.float64)
        if made.shape != (len(texts), self._model.dimension) or not np.isfinite(made).all():
            raise Unavailable("the model gave what are no vectors", code="unavailable.embedder")
        lengths = np.linalg.norm(made, axis=1, keepdims=True)
        unit: Vectors = np.divide(made, lengths, out=np.zeros_like(made), where=lengths > 0).astype(np.float32)
        return unit


class TransformerCrossEncoder:
    """`symbi.knowledge.port.CrossEncoder` by PyTorch; `open` makes one.

    Args:
        authority: Where permits are checked.
        loaded: A `CrossEncoder` with one label.
        plain: What leaves a model's numbers as they are.
    """

    def __init__(self, authority: Authority, loaded: Any, plain: Any) -> None:
        self._authority = authority
        self._loaded = loaded
        self._plain = plain
        self._one = anyio.CapacityLimiter(1)

    @classmethod
    async def open(cls, authority: Authority, folder: Path) -> Self:
        """Read the model, on a thread; nothing is downloaded.

        Raises:
            ConfigError: There is no such folder, or no cross-encoder in it.
            Unavailable: sentence-transformers is not installed.
        """
        loaded, plain = await anyio.to_thread.run_sync(_load_cross_encoder, folder)
        return cls(authority, loaded, plain)

    async def scores(self, permit: Permit[ReadData], question: str, texts: Sequence[str]) -> Sequence[float]:
        """How well each text answers the question, from 0 to 1.

        Raises:
            PermitRefused: The permit is not live.
            Unavailable: The model gave what are no scores.
        """
        asked, most = MAX_PAIR_CHARACTERS
        found: list[float] = []
        for first in range(0, len(texts), PAIRS):
            self._authority.check(permit, ReadData)  # before each slice: it may have been revoked
            pairs = [[_said(question, asked), _said(one, most)] for one in texts[first : first + PAIRS]]
            found += await anyio.to_thread.run_sync(self._scores, pairs, limiter=self._one)
        self._authority.check(permit, ReadData)
        return found

    def _scores(self, pairs: list[list[str]]) -> list[float]:
        predicted = self._loaded.predict(pairs, batch_size=PAIRS, show_progress_bar=False, activation_fn=self._plain)
        made = np.asarray(predicted, np.float64)
        if made.shape != (len(pairs),) or not np.isfinite(made).all():
            raise Unavailable("the cross-encoder gave what are no scores", code="unavailable.cross_encoder")
        return [float(one) for one in 1 / (1 + np.exp(-np.clip(made, -60, 60)))]


def _said(text: str, most: int) -> str:
    return text[:most].encode("utf-8", "replace").decode()


def _load_cross_encoder(folder: Path) -> tuple[Any, Any]:
    library = _library(folder, "knowledge.cross_encoder", "leave `knowledge.cross_encoder` out")
    try:
        loaded = library.CrossEncoder(str(folder), local_files_only=True)
    except Exception as error:  # each format of weights has its own for a damaged file
        raise _unreadable(folder, "knowledge.cross_encoder", error) from error
    if loaded.num_labels != 1:
        msg = f"the model in `{folder}` gives {loaded.num_labels} numbers for a question and a text, and not one"
        raise ConfigError(msg, code="config.cross_encoder", hint="name the folder of a cross-encoder that ranks")
    return loaded, importlib.import_module("torch").nn.Identity()


def _load(folder: Path) -> tuple[EmbedderId, Any]:
    library = _library(folder, "context.embedder", "set `context.embedder` to `builtin`")
    try:
        loaded = library.SentenceTransformer(str(folder), local_files_only=True)
        dimension = int(loaded.get_embedding_dimension())
        digest = _digest(folder)
    except Exception as error:  # each format of weights has its own for a damaged file
        raise _unreadable(folder, "context.embedder", error) from error
    # Wherever it lies: a project that is moved keeps its vectors.
    return EmbedderId(f"sentence-transformers:{folder.name}", digest, dimension, "sentence-transformers"), loaded


def _library(folder: Path, key: str, instead: str) -> Any:
    """The library, where there is a model for it.

    Raises:
        ConfigError: There is no model in the folder.
        Unavailable: It is not installed.
    """
    _, _, what = key.partition(".")
    if not (folder / "config.json").is_file():
        raise ConfigError(f"there is no model in `{folder}`", code=f"config.{what}", hint="name the folder of a model")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the model is that of the folder, and of nowhere else
    try:
        return importlib.import_module("sentence_transformers")
    except ImportError as error:
        hint = f"pip install 'symbi[sentence-transformers]', or {instead}"
        raise Unavailable("sentence-transformers is not installed", code=f"unavailable.{what}", hint=hint) from error


def _unreadable(folder: Path, key: str, error: Exception) -> ConfigError:
    _, _, what = key.partition(".")
    why = f"{type(error).__name__}: {error}"[:MAX_REASON]
    return ConfigError(f"the model in `{folder}` cannot be read: {why}", code=f"config.{what}")


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(one for one in folder.rglob("*") if one.is_file()):
        digest.update(f"{file.relative_to(folder)} {file.stat().st_size}\n".encode())
        with file.open("rb") as source:
            while piece := source.read(_CHUNK):
                digest.update(piece)
    return digest.hexdigest()
