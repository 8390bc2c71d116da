"""Notices of held actions: a program and a webhook, each bounded, neither deciding anything."""

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import anyio
import pytest

from symbi.adapters.notices import CommandNotice
from symbi.adapters.webhook import WebhookNotice
from symbi.config import parse_settings
from symbi.errors import ConfigError, Unavailable

pytestmark = pytest.mark.anyio

FACTS = {"approval": "e1", "agent": "a"}


async def test_a_program_gets_the_facts_and_an_environment_of_few_names(tmp_path):
    code = "import json, os, sys; json.dump([sys.stdin.read(), sorted(os.environ)], open('said', 'w'))"
    environ = {"PATH": "/usr/bin", "HOME": "/h", "TOKEN": "secret"}
    await CommandNotice([sys.executable, "-c", code], tmp_path, timeout_s=20, environ=environ)(FACTS)
    said, names = json.loads((tmp_path / "said").read_text())
    assert json.loads(said) == FACTS
    assert {"HOME", "PATH"} <= set(names)
    assert "TOKEN" not in names


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ([sys.executable, "-c", "raise SystemExit(4)"], "exit code 4"),
        (["/nowhere/at/all"], "cannot be started"),
        ([sys.executable, "-c", "import time; time.sleep(60)"], "longer than 0.5 s"),
    ],
)
async def test_a_program_that_fails_is_an_error_and_bounded(tmp_path, command, message):
    with anyio.fail_after(20), pytest.raises(Unavailable, match=message):
        await CommandNotice(command, tmp_path, timeout_s=0.5 if "longer" in message else 20)(FACTS)


@pytest.fixture
def server():
    got = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            got.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            if self.path == "/moved":
                self.send_response(302)
                self.send_header("location", "/elsewhere")
            else:
                self.send_response(500 if self.path == "/broken" else 204)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as made:
        thread = Thread(target=made.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{made.server_port}", got
        made.shutdown()
        thread.join()


async def test_a_webhook_gets_the_facts_once_and_follows_nothing(server):
    address, got = server
    await WebhookNotice(f"{address}/hook", timeout_s=10)(FACTS)
    assert [(path, json.loads(body)) for path, body in got] == [("/hook", FACTS)]
    with pytest.raises(Unavailable, match="answered 302"):
        await WebhookNotice(f"{address}/moved", timeout_s=10)(FACTS)
    assert got[-1][0] == "/moved"
    with pytest.raises(Unavailable, match="answered 500"):
        await WebhookNotice(f"{address}/broken", timeout_s=10)(FACTS)


async def test_a_webhook_that_is_not_there_is_an_error():
    with pytest.raises(Unavailable, match="cannot be reached"):
        await WebhookNotice("http://127.0.0.1:9", timeout_s=10)(FACTS)


@pytest.mark.parametrize(
    "address", ["http://example.com/x", "ftp://localhost", "https://user:pw@example.com", "nothing"]
)
def test_an_address_in_the_clear_is_refused(tmp_path, address):
    with pytest.raises(ConfigError, match=r"approvals\.notify_webhook"):
        parse_settings(
            f'[approvals]\nnotify_webhook = "{address}"',
            file=tmp_path / "s.toml",
            cwd=tmp_path,
            environ={},
            overrides={},
        )
