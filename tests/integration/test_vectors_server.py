"""The index on a Qdrant server, over the wire: a server of the same REST interface, whose answers are the local mode's.

What a real server does besides (its log, its graphs) is not shown here; that the engine does it, the embedded index shows.
"""

import json
import threading
import warnings
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from qdrant_client import QdrantClient, models

from symbi.adapters.qdrant import QdrantVectors, connect
from symbi.errors import ConfigError, InputError, StoreUnavailable
from symbi.knowledge.config import VectorConfig
from symbi.knowledge.vectors import Scope, VectorPoint, VectorQuery, VectorSpace
from symbi.testing.contracts_vectors import MINE, SPACE, VECTOR_CHECKS, YOURS, open_permits, sample_points

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:Local mode performs exact"),
    pytest.mark.filterwarnings("ignore:Payload indexes have no effect"),
]


class RestServer:
    """Speaks as Qdrant does, as far as the adapter asks; `fail` answers instead where it is set."""

    def __init__(self):
        self.local = QdrantClient(":memory:", force_disable_check_same_thread=True)
        self.requests = []
        self.keys = []
        self.made = {}
        self.fail = None
        self.lock = threading.Lock()

    def answer(self, method, path, body):
        _, collection, *rest = path.strip("/").split("/")
        with self.lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.find(method, rest, collection, body)

    def find(self, method, rest, name, body):
        local = self.local
        match method, rest:
            case "GET", ["exists"]:
                return {"exists": local.collection_exists(name)}
            case "PUT", []:
                self.made = body
                asked = models.CreateCollection.model_validate(body)
                return local.create_collection(name, asked.vectors, metadata=asked.metadata)
            case "PUT", ["index"]:
                self.made.setdefault("indexes", {})[body["field_name"]] = body["field_schema"]
                return {"operation_id": 1, "status": "completed"}
            case "GET", []:
                return local.get_collection(name)
            case "PUT", ["points"]:
                return local.upsert(name, models.PointsList.model_validate(body).points)
            case "POST", ["points"]:
                asked = models.PointRequest.model_validate(body)
                return local.retrieve(
                    name, asked.ids, with_payload=asked.with_payload, with_vectors=bool(asked.with_vector)
                )
            case "POST", ["points", "query"]:
                asked = models.QueryRequest.model_validate(body)
                return local.query_points(
                    name,
                    asked.query,
                    query_filter=asked.filter,
                    limit=asked.limit,
                    with_vectors=bool(asked.with_vector),
                )
            case "POST", ["points", "count"]:
                return local.count(name, models.CountRequest.model_validate(body).filter)
            case "POST", ["points", "scroll"]:
                asked = models.ScrollRequest.model_validate(body)
                found, after = local.scroll(
                    name, asked.filter, limit=asked.limit, offset=asked.offset, with_payload=False
                )
                return {"points": [json.loads(one.model_dump_json()) for one in found], "next_page_offset": after}
            case "POST", ["points", "delete"]:
                return local.delete(name, models.PointIdsList.model_validate(body))
        raise AssertionError((method, rest))


@pytest.fixture
def rest():
    with serving() as made:
        yield made


@contextmanager
def serving(tls=None):
    """A server on a free port; with a context, over TLS."""
    made = RestServer()

    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do(self):
            parts = urlsplit(self.path)
            data = self.rfile.read(int(self.headers.get("content-length") or 0))
            made.requests.append((self.command, parts.path, parts.query))
            made.keys.append(self.headers.get("api-key"))
            more = {}
            if made.fail is not None:
                status, out, *headers = made.fail
                more = dict(headers)
            else:
                answer = made.answer(self.command, parts.path, json.loads(data) if data else None)
                if isinstance(answer, tuple):
                    status, out = answer
                else:
                    told = {"result": plain(answer), "status": "ok", "time": 0.0}
                    status, out = 200, json.dumps(told).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("location", "http://127.0.0.1:1/")
            self.send_header("content-length", str(len(out)))
            for name, value in more.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(out)

        do_GET = do_PUT = do_POST = do  # noqa: N815 - the names that the base class asks for

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    made.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{server.server_address[1]}"
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        made.local.close()


def plain(answer):
    if isinstance(answer, list):
        return [plain(one) for one in answer]
    return json.loads(answer.model_dump_json()) if hasattr(answer, "model_dump_json") else answer


@pytest.fixture
def permits():
    return open_permits()


def client(rest, key="sk-canary"):
    return connect(rest.url, key=key, timeout_s=20)


@pytest.mark.parametrize("check", VECTOR_CHECKS, ids=lambda check: check.__name__)
async def test_the_contract_over_the_wire(check, rest, permits):
    async with QdrantVectors(permits.authority, client(rest), "symbi-test", SPACE) as index:
        await check(index, permits)
    assert set(rest.keys) == {"sk-canary"}
    assert all("wait=true" in query for method, path, query in rest.requests if method == "PUT" and "points" in path)


async def test_a_collection_is_made_as_configured(rest, permits):
    config = VectorConfig(m=24, ef_construct=100)
    async with QdrantVectors(permits.authority, client(rest), "symbi-test", SPACE, config):
        pass
    made = rest.made
    assert (made["hnsw_config"]["m"], made["hnsw_config"]["ef_construct"]) == (24, 100)
    assert made["vectors"] == {"size": SPACE.dimension, "distance": "Cosine"}
    assert made["quantization_config"]["turbo"]["bits"] == "bits4"
    assert set(made["indexes"]) == {"namespace", "document", "subject", "label", "time"}
    assert made["indexes"]["namespace"]["is_tenant"]


async def test_vectors_of_another_model_or_of_somebody_else_are_refused(rest, permits):
    async with QdrantVectors(permits.authority, client(rest), "symbi-test", SPACE):
        pass
    other = VectorSpace("other", "e" * 64, SPACE.dimension)
    with pytest.raises(ConfigError, match="were made by `test`, and the configuration has `other`"):
        await QdrantVectors(permits.authority, client(rest), "symbi-test", other).__aenter__()
    rest.local.create_collection("theirs", models.VectorParams(size=SPACE.dimension, distance=models.Distance.COSINE))
    with pytest.raises(ConfigError, match="nobody who says so"):
        await QdrantVectors(permits.authority, client(rest), "theirs", SPACE).__aenter__()


async def test_a_server_that_fails_is_said_to_and_says_nothing_of_what_was_asked(rest, permits):
    point = sample_points(1)[0]
    async with QdrantVectors(permits.authority, client(rest), "symbi-test", SPACE) as index:
        for fail in (
            (401, b"sk-canary"),
            (500, b"{}"),
            (503, b""),
            (302, b""),
            (200, b"<html>"),
            (200, b'{"result": 5}'),
            (200, b'{"result": null}'),
        ):
            rest.fail = fail
            for call in (
                lambda: index.upsert(permits.write(), [point]),
                lambda: index.query(permits.read(), VectorQuery(point.vector, 1, Scope((MINE,)))),
                lambda: index.count(permits.read(), Scope((MINE,))),
                lambda: index.delete(permits.write(), Scope((MINE,))),
                index.stats,
            ):
                with pytest.raises(StoreUnavailable) as caught:
                    await call()
                assert "sk-canary" not in str(caught.value)
        rest.fail = None
        assert await index.count(permits.read(), Scope((MINE, YOURS))) == 0


async def test_a_server_that_is_not_there(permits):
    gone = connect("http://127.0.0.1:1", key=None, timeout_s=1)
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        await QdrantVectors(permits.authority, gone, "symbi-test", SPACE).__aenter__()
    with pytest.raises(ConfigError):
        connect("ftp://127.0.0.1", key=None, timeout_s=1)


async def test_what_is_the_servers_own_business_is_left_to_it(rest, permits, tmp_path):
    async with QdrantVectors(permits.authority, client(rest, None), "symbi-test", SPACE) as index:
        await index.upsert(permits.write(), sample_points(5))
        assert not await index.optimize()
        assert (await index.stats()).points == 5
        for call in (index.snapshot, index.restore):
            with pytest.raises(InputError, match="server"):
                await call(tmp_path / "copy")


async def test_a_large_write_goes_in_bounded_requests(rest, permits):
    points = [VectorPoint(one.id, one.vector, MINE) for one in sample_points(600)]
    async with QdrantVectors(permits.authority, client(rest), "symbi-test", SPACE) as index:
        await index.upsert(permits.write(), points)
        assert await index.count(permits.read(), Scope((MINE,))) == 600
        assert await index.delete(permits.write(), Scope((MINE,))) == 600
    assert len([one for one in rest.requests if one[:2] == ("PUT", "/collections/symbi-test/points")]) == 3


async def test_a_point_of_another_namespace_is_never_handed_out_whatever_the_server_says(rest, permits):
    async with QdrantVectors(permits.authority, client(rest), "symbi-test", SPACE) as index:
        found = {"id": str(UUID(int=1)), "version": 1, "score": 1.0, "payload": {"namespace": YOURS.text}}
        rest.fail = (200, json.dumps({"result": {"points": [found]}, "status": "ok", "time": 0.0}).encode())
        with pytest.raises(StoreUnavailable, match="another namespace"):
            await index.query(permits.read(), VectorQuery(sample_points(1)[0].vector, 1, Scope((MINE,))))
