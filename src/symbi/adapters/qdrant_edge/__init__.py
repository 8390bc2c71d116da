"""The index of vectors within a data folder: Qdrant's own engine, embedded."""

from symbi.adapters.qdrant_edge.index import EdgeVectors

__all__ = ["EdgeVectors"]
