# ruff: noqa: RUF009 - the calls make dataclass fields, as `field` does
"""Every key of `[context]`: what agents remember and look up, and which models and stores do it."""

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from symbi.config.declared import declare as _declare
from symbi.config.kinds import Address, BadValue, ByteSize, Kind, OneOf, Real, Secret, SecretText, Whole, describe
from symbi.errors import did_you_mean

BUILTIN: Final = "builtin"
OPENAI: Final = "openai"
SENTENCE_TRANSFORMERS: Final = "sentence-transformers"
_PREFIX: Final = re.compile(r"[a-z0-9_-]{1,64}")


class VectorQuantization(StrEnum):
    """How vectors are made smaller for the first pass of a search."""

    TURBO4 = "turbo4"
    """Four bits for each number; the best are compared again as they were."""
    NONE = "none"
    """Not at all."""


@dataclass(frozen=True, slots=True)
class EmbedderName(Kind[str]):
    """`builtin`, `openai:MODEL` or `sentence-transformers:FOLDER`."""

    @property
    def name(self) -> str:
        """For the reference."""
        return "`builtin`, `openai:MODEL` or `sentence-transformers:FOLDER`"

    def from_toml(self, value: object, base: Path) -> str:
        """A string of that form; a folder is seen from the configuration file."""
        if not isinstance(value, str) or not value.isprintable():
            raise BadValue(f"must be {self.name}, not {describe(value)}")
        provider, _, rest = value.partition(":")
        if value == BUILTIN:
            return value
        if provider not in {OPENAI, SENTENCE_TRANSFORMERS} or not rest.strip():
            hint = did_you_mean(provider, (BUILTIN, OPENAI, SENTENCE_TRANSFORMERS))
            raise BadValue(f"must be {self.name}, not {describe(value)}", hint)
        return value if provider == OPENAI else f"{provider}:{base / rest}"


@dataclass(frozen=True, slots=True)
class CollectionPrefix(Kind[str]):
    """Small letters, digits, `-` and `_`."""

    @property
    def name(self) -> str:
        """For the reference."""
        return "1 to 64 of `a-z`, `0-9`, `-`, `_`"

    def from_toml(self, value: object, base: Path) -> str:
        """A string of that form."""
        del base
        if not isinstance(value, str) or not _PREFIX.fullmatch(value):
            raise BadValue(f"must be {self.name}, not {describe(value)}")
        return value


@dataclass(frozen=True, slots=True)
class ContextSettings:
    """`[context]`."""

    vector_db_url: str = _declare(
        "qdrant-edge:",
        Address(("qdrant-edge", "http", "https")),
        "vector database: `qdrant-edge:` is embedded in the data folder, `http(s)://…` a server",
        also=("QDRANT_URL",),
    )
    vector_db_api_key: Secret | None = _declare(
        None,
        SecretText(),
        "key for a vector database that asks for one; from the environment only",
        also=("QDRANT_API_KEY",),
    )
    vector_db_collection: str = _declare(
        "symbi",
        CollectionPrefix(),
        "what the names of collections on a server begin with; two data folders on one server have different ones",
    )
    vector_db_timeout_s: float = _declare(
        10.0, Real(0.1, 600, "seconds"), "how long a vector database may take to answer"
    )
    embedder: str = _declare(
        BUILTIN,
        EmbedderName(),
        "what turns texts into vectors: the model in the package, one behind an OpenAI-compatible address, or one in a folder;"
        " vectors of two models do not mix",
    )
    embedder_url: str = _declare(
        "https://api.openai.com/v1",
        Address(("https", "http")),
        "base of the address that an `openai:` embedder is asked at",
        also=("OPENAI_BASE_URL",),
    )
    embedder_timeout_s: float = _declare(30.0, Real(0.1, 600, "seconds"), "how long one request of it may take")
    embedding_dimension: int | None = _declare(
        None,
        Whole(1, 65_536, "dimensions"),
        "length of a vector; has to be the embedder's, and is asked of an `openai:` one",
        unset="the embedder's",
    )
    hnsw_m: int = _declare(16, Whole(4, 128, "edges"), "edges of each node of the graph of vectors")
    hnsw_ef_construct: int = _declare(
        200, Whole(4, 4096, "candidates"), "candidates that are looked at for each node while the graph is built"
    )
    vector_quantization: VectorQuantization = _declare(
        VectorQuantization.TURBO4,
        OneOf(VectorQuantization),
        "how vectors are made smaller for the first pass of a search",
    )
    vector_oversampling: float = _declare(
        2.0, Real(1, 100, "candidates"), "quantised candidates for each hit, which are compared again as they were"
    )
    context_cache_size: int = _declare(10**9, ByteSize(0, 2**44), "memory for recently used context")
    knowledge_retention_days: int = _declare(365, Whole(1, 36_500, "days"), "age at which knowledge is deleted")
