"""`symbi audit show` and `symbi audit query` on a real trail: filters, following, pages, and what is refused."""

import json
import os
import shutil
import signal
import subprocess
import sys

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest

from symbi.adapters.sqlite import SqliteReader
from symbi.audit.event import AuditEventType, Draft
from symbi.audit.query import EventFilter
from symbi.cli.audit_follow import later
from symbi.errors import StoreUnavailable
from symbi.testing.log import open_log
from symbi.types import AgentId

INPUT, INTERRUPTED = 2, 130


@pytest.fixture
def shop(workshop):
    """A workshop in which one run is over."""
    workshop.works()
    return workshop


def sequences(said) -> list[int]:
    assert said.code == 0, said.stderr
    return [json.loads(line)["sequence"] for line in said.stdout.splitlines()]


def shown(shop, *arguments: str) -> list[int]:
    return sequences(shop.inside("audit", "show", "--json", *arguments))


def test_each_filter_shows_what_a_look_at_all_events_finds(shop):
    trail = shop.trail()
    run = next(event.run_id for event in trail if event.run_id)
    policies = {"all"}
    for arguments, fits in {
        (): lambda _: True,
        ("--agent", "work"): lambda event: event.agent_id == "work",
        ("--run", run): lambda event: event.run_id == run,
        ("--type", "run.started", "--type", "effect.*"): lambda event: event.event_type in {
            "run.started", "effect.outcome", "effect.unknown", "effect.reconciled",
        },
        ("--verdict", "deny"): lambda event: event.event_type == "decision.deny",
        ("--policy", "all"): lambda event: event.event_type.startswith("decision.") and policies & {
            one["id"] for one in event.details["policies"]
        },
        ("3..5",): lambda event: 3 <= event.sequence <= 5,
        ("7",): lambda event: event.sequence == 7,
        ("--since", trail[4].timestamp, "--until", trail[9].timestamp): lambda event: (
            trail[4].timestamp <= event.timestamp < trail[9].timestamp
        ),
        ("--agent", "work", "--verdict", "allow", "5.."): lambda event: (
            event.agent_id == "work" and event.event_type == "decision.allow" and event.sequence >= 5
        ),
        ("--since", "2h"): lambda _: True,
        ("--until", "2h"): lambda _: False,
    }.items():  # fmt: skip
        expected = [event.sequence for event in trail if fits(event)]
        assert shown(shop, *arguments) == expected, arguments
        assert shown(shop, *arguments, "--last", "2") == expected[-2:], arguments
        assert shown(shop, *arguments, "--last", "99999") == expected, arguments


def test_a_line_says_what_happened_and_a_line_of_json_is_the_event(shop):
    line = next(line for line in shop.inside("audit", "show").stdout.splitlines() if "desk.send →" in line)
    event = next(event for event in shop.trail() if event.details.get("resource") == "Tool::desk.send")
    assert line == (
        f"{event.sequence:>6} {event.timestamp[:10]} {event.timestamp[11:23]}  decision.allow    work            "
        "desk.send → oncall@example.com: allowed by all (policies/all.cedar:1)"
    )
    (printed,) = shop.inside("audit", "show", "--json", str(event.sequence)).stdout.splitlines()
    assert json.loads(printed) == {name: getattr(event, name) for name in type(event).__dataclass_fields__}


def test_an_answer_without_events_says_so(shop):
    said = shop.inside("audit", "show", "--agent", "nobody")
    assert (said.code, said.stdout, said.stderr) == (0, "", "no event fits\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--type", "decision.denied"), ("unknown event type `decision.denied`", "did you mean `decision.deny`?")),
        (("--verdict", "no"), ("unknown verdict `no`", "allow_with_conditions")),
        (("--since", "yesterday"), ("`yesterday` is not a time", "2h")),
        (("--until", "2026-02-30"), ("`2026-02-30` is not a time",)),
        (("--since", "1h", "--until", "2h"), ("is not after",)),
        (("5..3",), ("`5..3` ends before it begins", "3..5")),
        (("0",), ("count from 1",)),
        (("x",), ("`x` is not a range of events", "10..20")),
        (("--run", ""), ("an empty run names nothing",)),
        (("--follow", "..9"), ("`..9` sets one",)),
        (("--follow", "--until", "1h"), ("`--until` sets one",)),
    ],
)
def test_a_question_that_cannot_be_meant_is_refused_with_a_reason(shop, arguments, words):
    shop.inside("audit", "show", *arguments).error(INPUT, *words)
    if "--follow" not in arguments:
        said = shop.inside("audit", "query", *arguments)
        assert (said.code, words[0] in json.loads(said.stdout)["error"]) == (INPUT, True)


def test_pages_go_on_while_the_trail_grows(shop):
    def page(*arguments):
        said = shop.inside("audit", "query", "--agent", "work", "--limit", "3", *arguments)
        assert said.code == 0, said.stdout
        return json.loads(said.stdout)

    before = [event.sequence for event in shop.trail() if event.agent_id == "work"]
    first = page()
    assert [event["sequence"] for event in first["events"]] == before[:3]
    assert (first["more"], sorted(first)) == (True, ["events", "more", "next"])
    assert shop.run_inside().code == 0
    found, last = list(first["events"]), first
    while last["more"]:
        last = page("--after", last["next"])
        found += last["events"]
    every = [event.sequence for event in shop.trail() if event.agent_id == "work"]
    assert [event["sequence"] for event in found] == every
    assert len(every) > len(before)
    assert page("--after", last["next"])["events"] == []
    backwards = page("--newest-first")
    assert [event["sequence"] for event in backwards["events"]] == every[:-4:-1]


@pytest.mark.parametrize("cursor", ["", "x", "KjUaRi7ccKRbMSwyNSwiZWMy", "é"])
def test_a_cursor_that_is_not_ours_is_refused(shop, cursor):
    said = shop.inside("audit", "query", "--after", cursor)
    assert (said.code, json.loads(said.stdout)["code"]) == (INPUT, "input.cursor")


def test_a_cursor_of_another_folder_is_refused(shop):
    cursor = json.loads(shop.inside("audit", "query", "--limit", "3").stdout)["next"]
    shutil.rmtree(shop.folder / ".symbi")
    assert shop.run_inside().code == 0
    said = shop.inside("audit", "query", "--limit", "3", "--after", cursor)
    assert (said.code, "another trail" in json.loads(said.stdout)["error"]) == (INPUT, True)


# --- following ------------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_following_shows_each_new_event_once_and_asks_the_store_only_after_a_commit(tmp_path, monkeypatch):
    async with open_log(tmp_path) as trail:
        await trail.log.append(Draft(AuditEventType.RUN_STARTED, AgentId("a"), {}))
        with SqliteReader(tmp_path) as reader:
            selects = 0
            select = reader.select

            def counting(*arguments, **more):
                nonlocal selects
                selects += 1
                return select(*arguments, **more)

            monkeypatch.setattr(reader, "select", counting)
            turns = iter(["append", "", "", "append", "", "end"])

            async def append():
                for agent in "ab":
                    await trail.log.append(Draft(AuditEventType.RUN_STARTED, AgentId(agent), {}))

            def wait() -> bool:
                turn = next(turns)
                if turn == "append":
                    anyio.from_thread.run(append)
                return turn != "end"

            def walk() -> list[int]:
                return [event.sequence for event in later(reader, EventFilter(agent="a"), wait)]

            found = await anyio.to_thread.run_sync(walk)
            assert found == [3, 5]
            assert selects == 2


@pytest.mark.anyio
async def test_a_store_that_is_replaced_ends_following(tmp_path):
    async with open_log(tmp_path / "one"):
        pass
    async with open_log(tmp_path / "two"):
        pass
    with SqliteReader(tmp_path / "one") as reader:
        (tmp_path / "two" / "symbi.db").rename(tmp_path / "one" / "symbi.db")
        with pytest.raises(StoreUnavailable, match="was removed or replaced"):
            reader.refresh()


def follow(shop, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "symbi.cli.main", "audit", "show", "--follow", "--json", *arguments]
    return subprocess.Popen(
        command, cwd=shop.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **shop.environ},
    )  # fmt: skip


def test_following_beside_an_owner_ends_by_a_signal_without_a_word(shop):
    before = len(shop.trail())
    with follow(shop, "--last", "1") as following:
        assert json.loads(following.stdout.readline())["sequence"] == before
        assert shop.run_inside().code == 0
        after = len(shop.trail())
        for sequence in range(before + 1, after + 1):
            assert json.loads(following.stdout.readline())["sequence"] == sequence
        following.send_signal(signal.SIGINT)
        rest, said = following.communicate(timeout=60)
        assert (rest, said, following.returncode) == ("", "", 0)


def test_following_ends_when_nobody_reads_any_more(shop):
    with follow(shop, "--last", "1") as following:
        following.stdout.readline()
        following.stdout.close()
        assert following.wait(timeout=60) == 0
        assert following.stderr.read() == ""
