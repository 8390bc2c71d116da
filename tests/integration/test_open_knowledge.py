"""What is configured is what is opened, and policy says who may have texts read by whom."""

from pathlib import Path
from uuid import UUID

import pytest
import qdrant_client

from symbi.adapters.openai import OpenAIEmbedder
from symbi.adapters.qdrant import QdrantVectors
from symbi.adapters.qdrant_edge import EdgeVectors
from symbi.config import parse_settings
from symbi.errors import ConfigError, PermitRefused, PolicyDenied, StoreUnavailable
from symbi.guard.action import ReadData, WriteData
from symbi.guard.actions.data import DataRef
from symbi.guard.permit import Authority
from symbi.inference.static import StaticEmbedder
from symbi.knowledge.vectors import Namespace, Scope, VectorPoint, VectorQuery
from symbi.policy import library
from symbi.testing.clock import ManualClock
from symbi.testing.gate import ALLOW_ALL, open_gate
from symbi.types import AgentId, Confidentiality, Label, Principal
from symbi.wiring.documents import own_folders
from symbi.wiring.knowledge import open_embedder, open_vectors, vector_config, vectors_folder

pytestmark = pytest.mark.anyio
RUNBOOKS = DataRef("Knowledge", "runbooks", classification="internal")
WHO = Principal(AgentId("a"))
NAMES = [UUID(int=number) for number in range(1, 4)]


def settings(folder, text="", environ=None):
    return parse_settings(text, file=folder / "symbi.toml", cwd=folder, environ=environ or {}, overrides={})


async def test_without_a_word_it_is_all_on_this_machine_and_behind_the_gate(tmp_path):
    told = settings(tmp_path)
    here = Namespace("Knowledge", "runbooks")
    async with (
        open_gate() as gate,
        open_embedder(told, gate.guard.authority) as embedder,
        open_vectors(told, gate.guard.authority, "knowledge", embedder) as index,
    ):
        assert isinstance(embedder, StaticEmbedder)
        assert isinstance(index, EdgeVectors)
        async with gate.guard.enforce(WriteData(principal=WHO, data=RUNBOOKS)) as write:
            texts = ["free space on a full disk", "renew a certificate", "restart a worker"]
            rows = await embedder.embed(write, texts, "document")
            points = [VectorPoint(NAMES[at], rows[at], here, {"document": text}) for at, text in enumerate(texts)]
            await index.upsert(write, points)
        async with gate.guard.enforce(ReadData(principal=WHO, data=RUNBOOKS)) as read:
            (row,) = await embedder.embed(read, ["no space left on device"], "query")
            (hit, *_) = await index.query(read, VectorQuery(row, 2, Scope((here,))))
            assert hit.payload["document"] == texts[0]
        with pytest.raises(PermitRefused):
            await index.query(read, VectorQuery(row, 2, Scope((here,))))
        assert (tmp_path / ".symbi/vectors/knowledge/space.json").is_file()


@pytest.mark.parametrize("confidentiality", list(Confidentiality))
async def test_confidential_texts_are_read_on_this_machine_alone(confidentiality):
    policies = ALLOW_ALL + (Path(library.__file__).parent / "data-flow.cedar").read_text("utf-8")
    label = Label(confidentiality=confidentiality)
    closed = confidentiality in {Confidentiality.CONFIDENTIAL, Confidentiality.SECRET}
    async with open_gate(policies) as gate:
        for remote in (False, True):
            asked = ReadData(principal=WHO, data=RUNBOOKS, label=label, embedder="openai:m", remote=remote)
            if closed and remote:
                with pytest.raises(PolicyDenied) as caught:
                    async with gate.guard.enforce(asked):
                        raise AssertionError
                assert caught.value.fields["policies"] == ["flow.nothing-confidential-to-a-remote-embedder"]
            else:
                async with gate.guard.enforce(asked) as permit:
                    assert permit.action.remote == remote


async def test_a_length_that_is_not_the_models_is_an_error_before_anything_opens(tmp_path):
    told = settings(tmp_path, "[context]\nembedding_dimension = 1536")
    with pytest.raises(ConfigError, match="1536, but the embedder `builtin` makes vectors of 256"):
        async with open_embedder(told, Authority(ManualClock())):
            raise AssertionError
    assert not (tmp_path / ".symbi").exists()


async def test_another_embedder_does_not_mix_with_what_is_there(tmp_path):
    authority = Authority(ManualClock())
    for text, error in (
        ("", None),
        ('[context]\nembedder = "openai:text-embedding-3-small"', "were made by `builtin`"),
        ("", None),
    ):
        told = settings(tmp_path, text)
        async with open_embedder(told, authority) as embedder:
            if error is None:
                async with open_vectors(told, authority, "knowledge", embedder):
                    continue
            with pytest.raises(ConfigError, match=error):
                async with open_vectors(told, authority, "knowledge", embedder):
                    raise AssertionError


async def test_an_address_says_where_vectors_are(tmp_path, monkeypatch):
    authority = Authority(ManualClock())
    told = settings(
        tmp_path,
        '[context]\nvector_db_url = "http://127.0.0.1:1"\nembedder = "openai:m"\nembedder_url = "http://127.0.0.1:2/v1"\n'
        "embedding_dimension = 8\nhnsw_m = 32\n",
        {"OPENAI_API_KEY": "sk-canary", "QDRANT_API_KEY": "qd-canary"},
    )
    assert (vector_config(told).m, vector_config(told).dimension) == (32, 8)
    made = []
    real = qdrant_client.AsyncQdrantClient
    monkeypatch.setattr(qdrant_client, "AsyncQdrantClient", lambda **how: made.append(how) or real(**how))
    async with open_embedder(told, authority) as embedder:
        assert isinstance(embedder, OpenAIEmbedder)
        assert (embedder.model.name, embedder.model.dimension, embedder.model.remote) == ("openai:m", 8, True)
        with pytest.raises(StoreUnavailable):
            async with open_vectors(told, authority, "knowledge", embedder) as index:
                assert isinstance(index, QdrantVectors)
    assert (made[0]["url"], made[0]["api_key"]) == ("http://127.0.0.1:1", "qd-canary")


def test_an_embedded_index_may_lie_elsewhere(tmp_path):
    assert vectors_folder(settings(tmp_path)) == tmp_path / ".symbi" / "vectors"
    told = settings(tmp_path, '[context]\nvector_db_url = "qdrant-edge:///var/lib/vectors"')
    assert vectors_folder(told) == Path("/var/lib/vectors")


@pytest.mark.parametrize(
    ("text", "own"),
    [
        ("", [".symbi", ".symbi/vectors"]),
        ('[runtime]\ndata_dir = "var"\n[audit]\nstorage = "kept"', ["var", "var/vectors", "kept"]),
        ('[runtime]\ndata_dir = "."', ["keys", "trail", "vectors"]),
        ('[runtime]\ndata_dir = ".."', ["../keys", "../trail", "../vectors"]),
    ],
)
def test_what_symbi_keeps_is_known_wherever_it_lies(tmp_path, text, own):
    folder = tmp_path / "app"
    folder.mkdir()
    assert own_folders(settings(folder, text)) == tuple((folder / one).resolve() for one in own)
