"""`symbi bus`: what is shown of what passes."""

import json

import pytest
from typer.testing import CliRunner

from symbi.cli import bus
from symbi.errors import StoreUnavailable

COUNTS = {"messages": 3, "bytes": 900, "handed": 3, "received": 2, "failed": 1, "refused": 0, "again": 1, "dead": 0}
STATS = {
    "topics": {"news.[eu]": COUNTS},
    "mailboxes": {"b": COUNTS},
    "buffers": {"b": {"waiting": 2, "dropped": 1}, "c": {"waiting": 0, "dropped": 0}},
    "leases": 1,
    "refused_again": 0,
    "requests": 0,
    "dead_letters": 4,
}
ROWS = [
    {
        "number": number, "at": "2026-01-01T00:00:00.000000000Z", "pattern": "publish", "sender": "a", "to": "news.[eu]",
        "messages": 3, "bytes": 900, "first": "019b76da-a800-7004-a705-28e071f5c1c8",
    }
    for number in range(1, 31)
]  # fmt: skip


@pytest.fixture
def asked(monkeypatch):
    calls = []

    def ask(_config, operation, arguments):
        calls.append((operation, arguments))
        return STATS if operation == "bus.stats" else [row for row in ROWS if row["number"] > arguments.get("after", 0)]

    monkeypatch.setattr(bus, "ask_alive", ask)
    return calls


def test_statistics_name_topics_mailboxes_and_what_waits(asked):
    said = CliRunner().invoke(bus.app, ["stats"]).output
    assert "topic news.[eu]: 3 messages, 900 bytes, 2 received, 1 failed, 1 again" in said
    assert "buffer of b: 2 waiting, 1 dropped" in said
    assert "buffer of c" not in said
    assert "4 dead letters" in said
    assert json.loads(CliRunner().invoke(bus.app, ["stats", "--json"]).output) == STATS


def test_the_tail_shows_the_last_ones(asked):
    said = CliRunner().invoke(bus.app, ["tail", "--limit", "2"]).output
    assert said.count("a → news.[eu] 3 of 300 bytes") == 2
    assert asked == [("bus.tail", {})]


def test_where_no_runtime_is_alive_it_says_so(monkeypatch):
    def refuse(*_):
        raise StoreUnavailable("no runtime is alive in `.symbi`")

    monkeypatch.setattr(bus, "ask_alive", refuse)
    result = CliRunner().invoke(bus.app, ["stats"])
    assert result.exit_code != 0
    assert not isinstance(result.exception, StoreUnavailable)
