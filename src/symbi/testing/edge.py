"""An embedded index of vectors, and permits for it, for tests and measurements."""

from pathlib import Path

from symbi.adapters.qdrant_edge import EdgeVectors
from symbi.inference.static import StaticEmbedder
from symbi.knowledge.config import VectorConfig
from symbi.knowledge.vectors import VectorSpace
from symbi.testing.contracts_vectors import Permits

__all__ = ["EdgeVectors", "edge_vectors", "static_embedder"]


def edge_vectors(permits: Permits, folder: Path, space: VectorSpace, config: VectorConfig | None = None) -> EdgeVectors:
    """To be entered."""
    return EdgeVectors(permits.authority, folder, space, config)


def static_embedder(permits: Permits) -> StaticEmbedder:
    """The model that ships in the package."""
    return StaticEmbedder(permits.authority)
