"""A model that writes answers, behind an OpenAI-compatible address of this machine: for tests of what asks it."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, TypeAlias

QUESTION: Final = "flush the mail queue"
MAIL: Final = b"# Mail\n\nMail that bounces stands in the queue; flush the queue by hand.\n"
GOOD: Final = "Flush the queue by hand [1]."  # what a model may write of it
EXTRACT: Final = "Mail that bounces stands in the queue; flush the queue by hand. [1]"  # without one
AGENT: Final = """
agent reader(question: String) {
    capabilities = ["answer", "log"]
    with {
        let said = answer(question, "ops");
        log("answered");
        said
    }
}
"""
READS: Final = """
@id("live") permit (principal, action in [Action::"CreateAgent", Action::"AllocateResources", Action::"WriteLog"], resource);
@id("books") permit (principal, action in [Action::"ReadData", Action::"WriteData"], resource is Knowledge);
"""
ASKS: Final = """
@id("asks") permit (principal == Agent::"reader", action == Action::"CallModel", resource == Model::"tiny");
"""

Reply: TypeAlias = tuple[int, Mapping[str, str], Any]
"""Status, headers, and a body: bytes, or what becomes JSON."""


def saying(text: Any, ended: str = "stop", **more: Any) -> Reply:
    """The reply of a model that says a text."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **more}, "finish_reason": ended}
    return 200, {}, {"id": "x", "object": "chat.completion", "choices": [choice], "usage": {"total_tokens": 9}}


def _silent() -> Reply:
    return 503, {}, {}


@dataclass(slots=True)
class AnswerServer:
    """What it is to reply, and what it was asked.

    Attributes:
        url: Base of its address.
        answer: Makes each reply.
        asked: Path and body of each request.
        headers: Of each request.
    """

    url: str
    answer: Callable[[], Reply] = _silent
    asked: list[tuple[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


@contextmanager
def answer_server() -> Iterator[AnswerServer]:
    """Such a model, while it lasts."""

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            made.headers.append({name.lower(): value for name, value in self.headers.items()})
            made.asked.append((self.path, json.loads(self.rfile.read(int(self.headers["content-length"])))))
            status, headers, answer = made.answer()
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            with contextlib.suppress(OSError):  # who asked has had enough
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    made = AnswerServer(f"http://127.0.0.1:{server.server_address[1]}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def reader_config(url: str) -> str:
    """Has the agent `reader` ask that model."""
    return f'[knowledge]\nanswer_model = "tiny"\nanswer_base_url = "{url}"\n'
