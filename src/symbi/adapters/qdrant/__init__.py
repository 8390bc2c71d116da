"""The index of vectors on a Qdrant server."""

from symbi.adapters.qdrant.client import connect, folder_id
from symbi.adapters.qdrant.index import QdrantVectors

__all__ = ["QdrantVectors", "connect", "folder_id"]
