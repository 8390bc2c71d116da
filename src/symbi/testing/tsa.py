"""A time-stamping authority on loopback, made with the program `openssl`, for tests."""

import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

OPENSSL_TIMEOUT_S: Final = 60.0

_CONFIG: Final = """
[ req ]
distinguished_name = name
[ name ]
[ root ]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[ signer ]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = critical, timeStamping
[ tsa ]
default_tsa = authority
[ authority ]
serial = serial
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
accuracy = secs:1
ordering = yes
tsa_name = no
ess_cert_id_chain = no
ess_cert_id_alg = sha256
"""


@dataclass(slots=True)
class LocalAuthority:
    """An authority with a root of its own.

    Attributes:
        folder: Its files; `root.pem` is what to trust.
        url: Where it takes requests, while it is served.
        change: Applied to each answer before it is sent.
        question: Applied to each request before it is answered.
        asked: How many requests it has had.
    """

    folder: Path
    url: str = ""
    change: Callable[[bytes], bytes] = bytes
    question: Callable[[bytes], bytes] = bytes
    asked: int = 0

    @property
    def root(self) -> Path:
        """PEM file of the root certificate."""
        return self.folder / "root.pem"

    def reply(self, query: bytes) -> bytes:
        """The answer to a request, by `openssl ts`."""
        self.asked += 1
        with tempfile.TemporaryDirectory(dir=self.folder) as work:
            asked, answer = Path(work) / "query.tsq", Path(work) / "reply.tsr"
            asked.write_bytes(self.question(query))
            _openssl(
                self.folder, "ts", "-reply", "-config", "tsa.cnf", "-queryfile", str(asked), "-out", str(answer),
                "-inkey", "tsa.key", "-signer", "tsa.pem",
            )  # fmt: skip
            return self.change(answer.read_bytes())

    def verify(self, data: Path, token: Path) -> bool:
        """Whether `openssl ts -verify` takes a token for the bytes of a file."""
        arguments = ("ts", "-verify", "-in", str(token), "-data", str(data), "-CAfile", "root.pem")
        done = subprocess.run(  # noqa: S603 - no shell
            ("openssl", *arguments),  # noqa: S607 - the one on PATH
            cwd=self.folder, check=False, capture_output=True, timeout=OPENSSL_TIMEOUT_S,
        )  # fmt: skip
        return done.returncode == 0


def make_authority(folder: Path) -> LocalAuthority:
    """Make a root and a signer in a new folder."""
    folder.mkdir(parents=True)
    (folder / "tsa.cnf").write_text(_CONFIG)
    (folder / "serial").write_text("01\n")
    key = ("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out")
    _openssl(folder, *key, "root.key")
    _openssl(folder, *key, "tsa.key")
    _openssl(
        folder, "req", "-config", "tsa.cnf", "-new", "-x509", "-key", "root.key", "-out", "root.pem", "-days", "30",
        "-subj", "/CN=test root", "-extensions", "root",
    )  # fmt: skip
    _openssl(folder, "req", "-config", "tsa.cnf", "-new", "-key", "tsa.key", "-out", "tsa.csr", "-subj", "/CN=test tsa")
    _openssl(
        folder, "x509", "-req", "-in", "tsa.csr", "-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial",
        "-out", "tsa.pem", "-days", "30", "-extfile", "tsa.cnf", "-extensions", "signer",
    )  # fmt: skip
    return LocalAuthority(folder)


@contextmanager
def serve_authority(authority: LocalAuthority) -> Iterator[LocalAuthority]:
    """Serve on a free port of loopback for as long as the body lasts; `url` says where."""

    class Request(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = authority.reply(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-type", "application/timestamp-reply")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Request) as http:
        authority.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, name="tsa", kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield authority
        finally:
            http.shutdown()
            thread.join()


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(  # noqa: S603 - no shell
        ("openssl", *arguments),  # noqa: S607 - the one on PATH
        cwd=folder, check=True, capture_output=True, timeout=OPENSSL_TIMEOUT_S,
    )  # fmt: skip
