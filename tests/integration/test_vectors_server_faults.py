"""A server that is not the one that is meant, that is slow, or that was left half made; over the wire."""

import ipaddress
import socket
import ssl
import threading
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from uuid import UUID

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.integration.test_vectors_server import serving

from symbi.adapters.openai import OpenAIEmbedder
from symbi.adapters.qdrant import QdrantVectors, client, connect, folder_id
from symbi.adapters.qdrant.index import OWNER, SPACE
from symbi.config import parse_settings
from symbi.errors import ConfigError, Overloaded, StoreUnavailable, Unavailable
from symbi.guard.action import ReadData
from symbi.guard.permit import Authority
from symbi.knowledge.vectors import Scope
from symbi.testing.clock import ManualClock
from symbi.testing.contracts_vectors import DATA, MINE, open_permits, sample_points
from symbi.testing.contracts_vectors import SPACE as SPACE_OF_TESTS
from symbi.types import AgentId, EffectId, Principal
from symbi.wiring.knowledge import open_embedder, open_vectors

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:Local mode performs exact"),
    pytest.mark.filterwarnings("ignore:Payload indexes have no effect"),
]
KEY = "qd-canary"
ONE, TWO = str(UUID(int=1)), str(UUID(int=2))


@pytest.fixture
def permits():
    return open_permits()


@pytest.fixture
def rest():
    with serving() as made:
        yield made


def opened(permits, url, *, key=KEY, timeout_s=20.0, owner=None):
    return QdrantVectors(
        permits.authority, connect(url, key=key, timeout_s=timeout_s), "symbi-test", SPACE_OF_TESTS, owner=owner
    )


# --- TLS ------------------------------------------------------------------------------------------------


def certificate(path, host, issuer=None):
    """A certificate for an address, by its own key or an issuer's, with the key in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, path.stem)])
    signer, by = issuer if issuer is not None else (key, name)
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(by)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .sign(signer, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(pem if issuer is None else secret + pem)
    return key, name


@contextmanager
def serving_tls(folder, authority, host="127.0.0.1"):
    shown = folder / "shown.pem"
    certificate(shown, host, authority)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(shown)
    with serving(context) as made:
        yield made


async def test_an_authority_of_the_system_is_trusted_also_where_it_is_ones_own(permits, tmp_path, monkeypatch):
    authority = certificate(tmp_path / "authority.pem", "127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    with serving_tls(tmp_path, authority) as rest:
        async with opened(permits, rest.url) as index:
            await index.upsert(permits.write(), sample_points(5))
            assert await index.count(permits.read(), Scope((MINE,))) > 0
        assert set(rest.keys) == {KEY}


@pytest.mark.parametrize(("trusted", "host"), [(False, "127.0.0.1"), (True, "127.0.0.2")])
async def test_a_server_that_cannot_show_who_it_is_is_told_nothing(permits, tmp_path, monkeypatch, trusted, host):
    authority = certificate(tmp_path / "authority.pem", "127.0.0.1")
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    with serving_tls(tmp_path, authority, host) as rest:
        with pytest.raises(StoreUnavailable, match=r"cannot be reached: .*certificate verify failed") as caught:
            await opened(permits, rest.url).__aenter__()
        assert KEY not in str(caught.value)
        assert rest.requests == []


async def test_what_the_environment_says_of_proxies_is_not_asked(permits, rest, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with opened(permits, rest.url):
        assert rest.requests


async def test_no_redirect_is_followed_with_the_key(permits, rest):
    with serving() as elsewhere:
        for status in (301, 302, 307, 308):
            rest.fail = (status, b"", ("location", elsewhere.url))
            with pytest.raises(StoreUnavailable, match=f"answered {status}"):
                await opened(permits, rest.url).__aenter__()
        assert elsewhere.requests == []


def test_an_address_that_is_none_is_refused_in_words(tmp_path):
    for url in ("http://h:99999", "http://h:x", "http://[::1", "https://:1"):
        with pytest.raises(ConfigError):
            connect(url, key=None, timeout_s=1)
        with pytest.raises(ConfigError):
            parse_settings(
                f'[context]\nvector_db_url = "{url}"',
                file=tmp_path / "symbi.toml",
                cwd=tmp_path,
                environ={},
                overrides={},
            )


# --- bounds ---------------------------------------------------------------------------------------------


@contextmanager
def answering(talk):
    """A server that says something to whoever comes, and takes as long as it likes."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def attend(stream):
            with stream, suppress(OSError):
                stream.recv(65_536)
                talk(stream, over)

        def listen():
            with suppress(OSError):
                while True:
                    threading.Thread(target=attend, args=(listener.accept()[0],), daemon=True).start()

        threading.Thread(target=listen, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        over.set()
        listener.shutdown(socket.SHUT_RDWR)


async def test_an_answer_that_comes_a_byte_at_a_time_has_an_end(permits):
    """Each byte comes in time; all together they do not."""

    def trickle(stream, over):
        stream.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n")
        while not over.wait(0.05):
            stream.sendall(b" ")

    with answering(trickle) as url, pytest.raises(StoreUnavailable, match="took too long"):
        await opened(permits, url, timeout_s=0.5).__aenter__()


async def test_an_answer_has_a_bound(permits, monkeypatch):
    monkeypatch.setattr(client, "MAX_ANSWER", 100_000)
    sent = []

    def flood(stream, over):
        stream.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
        while not over.is_set() and len(sent) < 10_000:
            stream.sendall(b"2710\r\n" + b" " * 10_000 + b"\r\n")
            sent.append(10_000)

    with answering(flood) as url, pytest.raises(StoreUnavailable, match="more than it was asked for"):
        await opened(permits, url).__aenter__()
    assert len(sent) < 10_000


@pytest.mark.parametrize(("headers", "after_s"), [([("retry-after", "7")], 7), ([], 1), ([("retry-after", "soon")], 1)])
async def test_a_server_that_is_busy_says_when_to_come_again(permits, rest, headers, after_s):
    async with opened(permits, rest.url) as index:
        rest.fail = (429, b'{"status": {"error": "qd-canary"}}', *headers)
        for call in (lambda: index.count(permits.read(), Scope((MINE,))), index.stats):
            with pytest.raises(Overloaded) as caught:
                await call()
            assert caught.value.retry_after_s == after_s
            assert KEY not in str(caught.value)


# --- what is there already ------------------------------------------------------------------------------


async def test_indexes_that_are_not_there_are_made_by_whoever_opens_it_next(permits, rest):
    async with opened(permits, rest.url):
        pass
    del rest.made["indexes"]  # as after an end between the collection and its indexes
    async with opened(permits, rest.url):
        assert set(rest.made["indexes"]) == {"namespace", "document", "subject", "label", "time"}


async def test_two_who_make_it_at_once_both_have_it(permits, rest):
    real, late = rest.find, []

    def find(method, rest_, name, body):
        if (method, rest_) == ("GET", ["exists"]) and not late:
            late.append(1)
            with_ = {SPACE: {"embedder": "test", "digest": "d" * 64, "dimension": 8, "distance": "cosine"}, OWNER: None}
            vectors = {"size": 8, "distance": "Cosine"}
            real("PUT", [], name, {"vectors": vectors, "metadata": with_})
            return {"exists": False}
        if (method, rest_) == ("PUT", []) and rest.local.collection_exists(name):
            return 409, b"{}"
        return real(method, rest_, name, body)

    rest.find = find
    async with opened(permits, rest.url) as index:
        assert await index.count(permits.read(), Scope((MINE,))) == 0


async def test_a_server_that_forgets_whose_vectors_they_are_is_too_old(permits, rest):
    real = rest.find
    rest.find = lambda method, rest_, name, body: real(
        method, rest_, name, {**body, "metadata": None} if (method, rest_) == ("PUT", []) else body
    )
    with pytest.raises(ConfigError, match=r"before 1\.16"):
        await opened(permits, rest.url).__aenter__()


async def test_vectors_of_another_data_folder_are_refused_and_stay(permits, rest):
    async with opened(permits, rest.url, owner=ONE) as index:
        await index.upsert(permits.write(), sample_points(5))
    for other in (TWO, ONE[:-1]):
        with pytest.raises(ConfigError, match="belong to another data folder"):
            await opened(permits, rest.url, owner=other).__aenter__()
    async with opened(permits, rest.url, owner=ONE) as index:
        assert (await index.stats()).points == 5


async def test_two_data_folders_on_one_server_do_not_meet(rest, tmp_path):
    authority = Authority(ManualClock())

    def told(name, more=""):
        (tmp_path / name).mkdir(exist_ok=True)
        text = f'[context]\nvector_db_url = "{rest.url}"\n{more}'
        return parse_settings(text, file=tmp_path / name / "symbi.toml", cwd=tmp_path / name, environ={}, overrides={})

    async def open_once(settings):
        async with (
            open_embedder(settings, authority) as embedder,
            open_vectors(settings, authority, "knowledge", embedder),
        ):
            pass

    for _ in range(2):
        await open_once(told("a"))
    with pytest.raises(ConfigError, match="belong to another data folder") as caught:
        await open_once(told("b"))
    assert "context.vector_db_collection" in caught.value.hint
    await open_once(told("b", 'vector_db_collection = "b"'))
    assert {one.name for one in rest.local.get_collections().collections} == {"symbi-knowledge", "b-knowledge"}


def test_a_data_folder_has_one_id(tmp_path):
    assert folder_id(tmp_path / "a", ONE) == ONE
    assert folder_id(tmp_path / "a", TWO) == ONE
    assert [one.name for one in (tmp_path / "a").iterdir()] == ["server-owner"]
    (tmp_path / "a" / "server-owner").write_text("")
    with pytest.raises(StoreUnavailable, match="to whom"):
        folder_id(tmp_path / "a", TWO)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable):
        folder_id(tmp_path / "file", TWO)


@pytest.mark.parametrize("trusted", [True, False])
async def test_an_embedder_is_believed_by_the_same_authorities(permits, tmp_path, monkeypatch, trusted):
    authority = certificate(tmp_path / "authority.pem", "127.0.0.1")
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    action = ReadData(principal=Principal(AgentId("a")), data=DATA, embedder="openai:m", remote=True)
    permit = permits.authority.mint(EffectId("r"), action)

    async def pause(_seconds):
        pass

    with serving_tls(tmp_path, authority) as server:
        server.fail = (200, b'{"data": [{"index": 0, "embedding": [3, 4]}]}')
        url = f"{server.url}/v1"
        async with OpenAIEmbedder(permits.authority, "m", url=url, key=KEY, dimension=2, pause=pause) as embedder:
            if trusted:
                assert np.allclose(await embedder.embed(permit, ["text"], "query"), [[0.6, 0.8]])
            else:
                with pytest.raises(Unavailable, match="cannot be reached"):
                    await embedder.embed(permit, ["text"], "query")
        assert bool(server.requests) == trusted
