"""A witness on loopback that speaks C2SP `tlog-witness`, for tests; it keeps its heads in memory."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from symbi.audit.checkpoint import Note
from symbi.audit.witness import MAX_REQUEST_BYTES, WitnessKey, cosignatures_of, countersign, parse_add_checkpoint
from symbi.crypto.signing import SigningKey, VerifyingKey
from symbi.errors import ChainBroken, InputError
from symbi.types import KeyId


class WitnessServer:
    """Answers `add-checkpoint`.

    Args:
        name: The witness.
        key: Its key.
        keys: The keys of the trails that it countersigns.
        unix_s: Its time, in seconds since 1970.
    """

    def __init__(self, name: str, key: SigningKey, keys: Mapping[KeyId, VerifyingKey], unix_s: int) -> None:
        self.witness = WitnessKey(name, key.verifying_key())
        self.heads: dict[str, Note] = {}
        self.asked = 0
        self.unix_s = unix_s
        self.url = ""
        self._key = key
        self._keys = keys
        self._one_at_a_time = threading.Lock()

    def answer(self, path: str, body: bytes) -> tuple[HTTPStatus, bytes, str]:
        """Status, body and content type for a request."""
        with self._one_at_a_time:
            return self._answer(path, body)

    def _answer(self, path: str, body: bytes) -> tuple[HTTPStatus, bytes, str]:
        self.asked += 1
        text = "text/plain"
        if path != "/add-checkpoint":
            return HTTPStatus.NOT_FOUND, b"no such place\n", text
        try:
            asked = parse_add_checkpoint(body)
            origin = asked.note.checkpoint.origin
            seen = self.heads.get(origin)
            note = countersign(seen, asked, self._keys, self.witness.name, self._key, self.unix_s)
        except InputError as error:
            if (size := error.fields.get("size")) is not None:
                return HTTPStatus.CONFLICT, f"{size}\n".encode(), "text/x.tlog.size"
            return HTTPStatus.BAD_REQUEST, f"{error}\n".encode(), text
        except ChainBroken as error:
            by_trail = error.fields["reason"] in {"key", "signature"}
            same = error.fields.get("seen") == error.fields.get("head")
            status = HTTPStatus.CONFLICT if same else HTTPStatus.UNPROCESSABLE_ENTITY
            return HTTPStatus.FORBIDDEN if by_trail else status, f"{error}\n".encode(), text
        self.heads[origin] = note
        return HTTPStatus.OK, "".join(one.line() for one in cosignatures_of(note)).encode(), text


@contextmanager
def serve_witness(server: WitnessServer) -> Iterator[WitnessServer]:
    """Serve on a free port of loopback for as long as the body lasts; `url` says where."""

    class Request(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = min(int(self.headers.get("content-length", 0)), MAX_REQUEST_BYTES + 1)
            status, body, kind = server.answer(self.path, self.rfile.read(length))
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Request) as http:
        server.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, name="witness", kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()
