"""What turns texts into vectors and where they lie, as configured; opened by those who need it, and not at every start."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias
from urllib.parse import urlsplit

import anyio
import anyio.to_thread

from symbi.adapters.openai import OpenAIEmbedder
from symbi.adapters.qdrant import QdrantVectors, connect, folder_id
from symbi.adapters.qdrant_edge import EdgeVectors
from symbi.adapters.transformer import TransformerEmbedder
from symbi.clock import IdSource, SystemClock
from symbi.config import Settings, require_embedding_dimension
from symbi.guard.permit import Authority
from symbi.inference.static import StaticEmbedder
from symbi.knowledge.config import Quantization, VectorConfig
from symbi.knowledge.vectors import VectorSpace

OpenEmbedder: TypeAlias = StaticEmbedder | OpenAIEmbedder | TransformerEmbedder
OpenVectors: TypeAlias = EdgeVectors | QdrantVectors
VECTORS_FOLDER: Final = "vectors"


@asynccontextmanager
async def open_embedder(settings: Settings, authority: Authority) -> AsyncIterator[OpenEmbedder]:
    """What turns texts into vectors, as configured.

    Raises:
        ConfigError: Its vectors have another length than the configuration says, or nothing says how long they are.
        Unavailable: What it needs is not installed.
    """
    context = settings.context
    provider, _, name = context.embedder.partition(":")
    match provider:
        case "openai":
            key = settings.models.openai_api_key
            async with OpenAIEmbedder(
                authority,
                name,
                url=context.embedder_url,
                key=None if key is None else key.reveal(),
                dimension=context.embedding_dimension,
                timeout_s=context.embedder_timeout_s,
            ) as embedder:
                yield embedder
        case "sentence-transformers":
            transformer = await TransformerEmbedder.open(authority, Path(name))
            require_embedding_dimension(settings, transformer.model.name, transformer.model.dimension)
            yield transformer
        case _:
            static = StaticEmbedder(authority)
            require_embedding_dimension(settings, static.model.name, static.model.dimension)
            yield static


@asynccontextmanager
async def open_vectors(
    settings: Settings, authority: Authority, collection: str, embedder: OpenEmbedder
) -> AsyncIterator[OpenVectors]:
    """The index of one collection, e.g. `knowledge`, of what an embedder makes.

    Raises:
        ConfigError: It has vectors of another embedder.
        StoreUnavailable: It cannot be opened, or another process has it.
        Unavailable: What it needs is not installed.
    """
    context, model = settings.context, embedder.model
    space = VectorSpace(model.name, model.digest, model.dimension)
    config = vector_config(settings)
    match urlsplit(context.vector_db_url).scheme:
        case "qdrant-edge":
            async with EdgeVectors(
                authority, vectors_folder(settings) / collection, space, config, upkeep=True
            ) as edge:
                yield edge
        case _:
            key = context.vector_db_api_key
            owner = await anyio.to_thread.run_sync(
                folder_id, settings.runtime.data_dir / VECTORS_FOLDER, IdSource(SystemClock()).new()
            )
            client = await anyio.to_thread.run_sync(  # takes a second, for what it imports
                partial(
                    connect,
                    context.vector_db_url,
                    key=None if key is None else key.reveal(),
                    timeout_s=context.vector_db_timeout_s,
                )
            )
            name = f"{context.vector_db_collection}-{collection}"
            async with QdrantVectors(authority, client, name, space, config, owner) as server:
                yield server


def vector_config(settings: Settings) -> VectorConfig:
    """How indexes are built and searched."""
    context = settings.context
    return VectorConfig(
        dimension=context.embedding_dimension,
        m=context.hnsw_m,
        ef_construct=context.hnsw_ef_construct,
        quantization=Quantization(context.vector_quantization.value),
        oversampling=context.vector_oversampling,
    )


def vectors_folder(settings: Settings) -> Path:
    """Where embedded indexes lie: in the data folder, or where the address `qdrant-edge:///path` says."""
    path = urlsplit(settings.context.vector_db_url).path
    return Path(path) if path else settings.runtime.data_dir / VECTORS_FOLDER
