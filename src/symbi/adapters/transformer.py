"""Embeddings from a sentence-transformers model in a folder, on this machine; the extra `sentence-transformers` has what it needs."""

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


def _load(folder: Path) -> tuple[EmbedderId, Any]:
    name = f"sentence-transformers:{folder.name}"  # wherever it lies: a project that is moved keeps its vectors
    if not (folder / "config.json").is_file():
        raise ConfigError(f"there is no model in `{folder}`", code="config.embedder", hint="name the folder of a model")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the model is that of the folder, and of nowhere else
    try:
        library = importlib.import_module("sentence_transformers")
    except ImportError as error:
        hint = "pip install 'symbi[sentence-transformers]', or set `context.embedder` to `builtin`"
        raise Unavailable("sentence-transformers is not installed", code="unavailable.embedder", hint=hint) from error
    try:
        loaded = library.SentenceTransformer(str(folder), local_files_only=True)
        dimension = int(loaded.get_embedding_dimension())
        digest = _digest(folder)
    except Exception as error:  # each format of weights has its own for a damaged file
        why = f"{type(error).__name__}: {error}"[:MAX_REASON]
        raise ConfigError(f"the model in `{folder}` cannot be read: {why}", code="config.embedder") from error
    return EmbedderId(name, digest, dimension, "sentence-transformers"), loaded


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(one for one in folder.rglob("*") if one.is_file()):
        digest.update(f"{file.relative_to(folder)} {file.stat().st_size}\n".encode())
        with file.open("rb") as source:
            while piece := source.read(_CHUNK):
                digest.update(piece)
    return digest.hexdigest()
