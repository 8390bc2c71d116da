"""Time stamps (RFC 3161): a token counts for the very bytes, this request, and a signer whose chain ends at our root."""

import http.server
import threading
from contextlib import contextmanager

import anyio
import pytest

from symbi.adapters.timestamps import TimeStampAuthority, read_certificates, verify_token
from symbi.errors import ConfigError, SignatureInvalid, Unavailable
from symbi.testing.tsa import make_authority, serve_authority

NOTE = b"symbi.trail/e1\n7\nroot\n\nsigned\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    with serve_authority(make_authority(tmp_path_factory.mktemp("tsa") / "one")) as served:
        yield served


@pytest.fixture
def fresh(authority):
    yield authority
    authority.change = authority.question = bytes


def stamp(authority, data=NOTE, *, root=None, timeout_s=30.0):
    asked = TimeStampAuthority(authority.url, root or authority.root, timeout_s=timeout_s)
    return anyio.run(asked, data)


def test_a_token_is_over_the_bytes_and_openssl_says_so_too(fresh, tmp_path):
    stamped = stamp(fresh)
    assert verify_token(stamped.token, NOTE, read_certificates(fresh.root)) == stamped.time
    (tmp_path / "note").write_bytes(NOTE)
    (tmp_path / "token").write_bytes(stamped.token)
    assert fresh.verify(tmp_path / "note", tmp_path / "token")
    (tmp_path / "note").write_bytes(NOTE + b"!")
    assert not fresh.verify(tmp_path / "note", tmp_path / "token")
    with pytest.raises(SignatureInvalid, match="Mismatch"):
        verify_token(stamped.token, NOTE + b"!", read_certificates(fresh.root))


def test_each_request_has_a_nonce_of_its_own(fresh):
    seen = []
    fresh.question = lambda query: seen.append(query) or query
    stamp(fresh)
    stamp(fresh)
    assert seen[0] != seen[1]


def test_the_answer_to_another_request_is_refused(fresh):
    kept = []
    fresh.change = lambda answer: kept.append(answer) or kept[0]
    stamp(fresh)
    with pytest.raises(SignatureInvalid, match="Nonce"):
        stamp(fresh)


def test_a_token_over_other_bytes_is_refused(fresh):
    asked = []

    def other(query):  # the imprint stands in the request as it is
        asked.append(query)
        at = query.index(b"\x04\x20") + 2
        return query[:at] + bytes(32) + query[at + 32 :]

    fresh.question = other
    with pytest.raises(SignatureInvalid, match="Mismatch"):
        stamp(fresh)
    assert asked


def test_a_signer_of_another_root_is_refused(fresh, tmp_path):
    other = make_authority(tmp_path / "two")
    with pytest.raises(SignatureInvalid, match="certificates"):
        stamp(fresh, root=other.root)


@pytest.mark.parametrize("at", range(0, 900, 37))
def test_a_token_that_was_altered_is_refused_or_says_the_same(fresh, at):
    certificates = read_certificates(fresh.root)
    token = token_of(fresh)
    broken = bytearray(token)
    broken[at % len(token)] ^= 0x41
    try:
        time = verify_token(bytes(broken), NOTE, certificates)
    except (SignatureInvalid, Unavailable):
        return
    assert time == verify_token(
        token, NOTE, certificates
    )  # in what is not signed, such as a certificate that came along


_TOKENS = {}


def token_of(authority):
    return _TOKENS.setdefault(authority.url, stamp(authority).token)


@pytest.mark.parametrize("answer", [b"", b"\x30\x00", b"no token", b"\x30\x03\x02\x01\x00"])
def test_what_is_no_token_is_refused(fresh, answer):
    fresh.change = lambda _: answer
    with pytest.raises(SignatureInvalid):
        stamp(fresh)


def test_an_authority_that_refuses_is_told(fresh):
    fresh.question = lambda query: query.replace(
        bytes.fromhex("0609608648016503040201"), bytes.fromhex("0609608648016503040203")
    )
    with pytest.raises(Unavailable, match="refuses: status 2"):
        stamp(fresh)


@contextmanager
def answering(status, body):
    class Request(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.send_header("location", "http://127.0.0.1:1/")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Request) as served:
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{served.server_port}"
        finally:
            served.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [(500, b"", "500"), (302, b"", "302"), (200, bytes(100_000), "more than")],
)
def test_an_authority_that_answers_otherwise_is_told(authority, status, body, said):
    with answering(status, body) as url, pytest.raises(Unavailable, match=said):
        anyio.run(TimeStampAuthority(url, authority.root, timeout_s=30.0), NOTE)


def test_an_authority_that_is_not_there_is_told(authority):
    with pytest.raises(Unavailable, match="cannot be reached"):
        anyio.run(TimeStampAuthority("http://127.0.0.1:9/", authority.root, timeout_s=30.0), NOTE)


def test_a_file_without_a_root_is_no_configuration(authority, tmp_path):
    (tmp_path / "empty.pem").write_text("")
    for path, said in (
        (tmp_path / "absent.pem", "holds no certificates"),
        (tmp_path / "empty.pem", "holds no certificates"),
        (authority.folder / "tsa.pem", "no root"),
    ):
        with pytest.raises(ConfigError, match=said):
            read_certificates(path)
