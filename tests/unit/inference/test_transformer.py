"""Embeddings by sentence-transformers, which need not be installed: a module with its interface stands in for it."""

import sys
import types

import numpy as np
import pytest

from symbi.adapters.transformer import TransformerEmbedder
from symbi.errors import ConfigError, PermitRefused, Unavailable
from symbi.testing.contracts_vectors import open_permits

pytestmark = pytest.mark.anyio


@pytest.fixture
def permits():
    return open_permits()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


class Model:
    def __init__(self, path, *, local_files_only):
        assert local_files_only
        self.path = path
        self.width = 2

    def get_embedding_dimension(self):
        return 2

    def encode_query(self, texts, *, show_progress_bar):
        return np.array([[0.0, 5.0]] * len(texts))[:, : self.width]

    def encode_document(self, texts, *, show_progress_bar):
        return np.array([[len(one), 0.0] for one in texts])[:, : self.width]


@pytest.fixture
def installed(monkeypatch):
    module = types.ModuleType("sentence_transformers")
    module.SentenceTransformer = Model
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)


async def test_questions_and_documents_are_read_as_the_model_asks(permits, folder, installed):
    embedder = await TransformerEmbedder.open(permits.authority, folder)
    assert (embedder.model.dimension, embedder.model.remote) == (2, False)
    assert (await embedder.embed(permits.read(), ["a", " "], "query")).tolist() == [[0, 1], [0, 0]]
    rows = await embedder.embed(permits.write(), ["abc"] * 70, "document")
    assert rows.tolist() == [[1, 0]] * 70


async def test_another_file_is_another_model(permits, folder, installed):
    first = (await TransformerEmbedder.open(permits.authority, folder)).model
    (folder / "weights").write_bytes(b"1")
    assert (await TransformerEmbedder.open(permits.authority, folder)).model.digest != first.digest


async def test_what_is_missing_is_said(permits, folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(Unavailable, match=r"not installed.*pip install 'symbi\[sentence-transformers\]'"):
        await TransformerEmbedder.open(permits.authority, folder)
    with pytest.raises(ConfigError, match="no model in"):
        await TransformerEmbedder.open(permits.authority, tmp_path / "nothing")


async def test_what_is_no_vector_is_refused_and_so_is_a_permit_that_is_closed(permits, folder, installed):
    embedder = await TransformerEmbedder.open(permits.authority, folder)
    read = permits.read()
    embedder._loaded.width = 1
    with pytest.raises(Unavailable):
        await embedder.embed(read, ["a"], "query")
    permits.authority.close(read)
    with pytest.raises(PermitRefused):
        await embedder.embed(read, ["a"], "query")


async def test_a_folder_that_is_moved_is_the_same_model(permits, folder, installed, tmp_path):
    first, second = tmp_path / "a" / "minilm", tmp_path / "b" / "minilm"
    for one in (first, second):
        one.mkdir(parents=True)
        (one / "config.json").write_text("{}")
    found = [(await TransformerEmbedder.open(permits.authority, one)).model for one in (first, second)]
    assert found[0] == found[1]
    assert found[0].name == "sentence-transformers:minilm"


@pytest.mark.parametrize(
    "error", [RuntimeError("size mismatch"), KeyError("weight"), EOFError(), ValueError("x" * 9_000)]
)
async def test_a_model_that_is_damaged_is_said_to_be(permits, folder, installed, monkeypatch, error):
    def broken(*_, **__):
        raise error

    monkeypatch.setattr(sys.modules["sentence_transformers"], "SentenceTransformer", broken)
    with pytest.raises(ConfigError, match=f"cannot be read: {type(error).__name__}") as caught:
        await TransformerEmbedder.open(permits.authority, folder)
    assert len(caught.value.message) < 1_000
