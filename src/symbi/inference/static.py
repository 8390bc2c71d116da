"""The embedding model that ships in the package: each token has a vector, and a text has the mean of its tokens'.

Made from all-MiniLM-L6-v2 by `tools/distil_embedder.py`, see `minilm/NOTICE`. It needs no download, no service and no
PyTorch. It knows English best, and nothing of the order of words.
"""

import hashlib
import logging
from collections.abc import Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
import anyio.lowlevel
import anyio.to_thread
import numpy as np

from symbi.errors import PinMismatch, Unavailable
from symbi.guard.action import ReadData, WriteData
from symbi.guard.permit import Authority, Permit
from symbi.inference.permits import check_embed
from symbi.inference.port import EmbedderId, TextPurpose, Vectors

if TYPE_CHECKING:
    from model2vec import StaticModel

MODEL_FILES: Final = ("config.json", "model.safetensors", "tokenizer.json")
MODEL_DIGEST: Final = "44511dfd98fd384fdafdf9ca51cdb64092fbdccea46e6b912d600e0306f7451c"  # as the tool prints it
DIMENSION: Final = 256
MAX_TOKENS: Final = 512  # of a text that are read; what is longer is cut before it is looked at
MAX_CHARACTERS: Final = 4_096  # likewise; a token has six or seven
SLICE: Final = 256  # texts between two looks whether anybody still waits
AT_ONCE: Final = (
    1_024  # characters of all texts, that take a quarter of a millisecond at most: no thread is woken for them
)

BUILTIN: Final = EmbedderId("builtin", MODEL_DIGEST, DIMENSION, "builtin")
"""The model that ships in the package."""


class StaticEmbedder:
    """`symbi.inference.port.Embedder` by the built-in model; read when it is first asked, on a thread of its own.

    Args:
        authority: Where permits are checked.
        folder: Of the model; the package's own if None.
    """

    def __init__(self, authority: Authority, folder: Traversable | None = None) -> None:
        self._authority = authority
        self._folder = folder if folder is not None else files("symbi.inference").joinpath("minilm")
        self._one = anyio.CapacityLimiter(1)
        self._model: StaticModel | None = None

    @property
    def model(self) -> EmbedderId:
        """Which model it is."""
        return BUILTIN

    async def embed(
        self, permit: Permit[ReadData] | Permit[WriteData], texts: Sequence[str], purpose: TextPurpose
    ) -> Vectors:
        """One row for each text. What the texts are for makes no difference to this model.

        Raises:
            PermitRefused: The permit is not live.
            PinMismatch: The model's files are not those that this release names.
            Unavailable: They cannot be read.
        """
        del purpose
        check_embed(self._authority, permit, self.model)
        if len(texts) <= SLICE and sum(map(len, texts)) <= AT_ONCE:  # each takes time, also one that says nothing
            await anyio.lowlevel.checkpoint()
            if texts and self._model is not None and not self._one.borrowed_tokens:
                return self._rows(texts)
        rows = np.zeros((len(texts), DIMENSION), np.float32)
        for first in range(0, len(texts), SLICE):
            part = texts[first : first + SLICE]
            rows[first : first + len(part)] = await anyio.to_thread.run_sync(self._rows, part, limiter=self._one)
        return rows

    def _rows(self, texts: Sequence[str]) -> Vectors:
        if self._model is None:
            self._model = load_model(self._folder)
        known = [one[:MAX_CHARACTERS].encode("utf-8", "replace").decode() for one in texts]
        made = self._model.encode(known, max_length=MAX_TOKENS, use_multiprocessing=False).astype(np.float64)
        lengths = np.linalg.norm(made, axis=1, keepdims=True)
        unit: Vectors = np.divide(made, lengths, out=np.zeros_like(made), where=lengths > 0).astype(np.float32)
        return unit


def load_model(folder: Traversable, digest: str = MODEL_DIGEST) -> "StaticModel":
    """Read a model, and check that it is the one that is meant.

    Raises:
        PinMismatch: It is another one.
        Unavailable: It cannot be read.
    """
    try:
        found = model_digest(folder)
    except OSError as error:
        raise Unavailable(
            f"the built-in embedding model cannot be read: {error}", code="unavailable.embedder"
        ) from error
    if found != digest:
        msg = "the built-in embedding model is not the one of this release"
        raise PinMismatch(msg, code="verify.embedder", found=found, wanted=digest, hint="install the package again")
    from model2vec import StaticModel  # noqa: PLC0415 - takes a third of a second, and many commands embed nothing

    logging.getLogger("model2vec").setLevel(logging.ERROR)  # it tells of its own defaults
    return StaticModel.from_pretrained(Path(str(folder)), normalize=False)


def model_digest(folder: Traversable) -> str:
    """SHA-256 (hex) over names, sizes and bytes of the model's files."""
    digest = hashlib.sha256()
    for name in MODEL_FILES:
        data = folder.joinpath(name).read_bytes()
        digest.update(f"{name} {len(data)}\n".encode() + data)
    return digest.hexdigest()
