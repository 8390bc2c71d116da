"""Keys of agents as an operator sees, changes and destroys them: `symbi keys`, and what becomes of what waits."""

import json

import anyio
import pytest
from typer.testing import CliRunner

from symbi.adapters.sqlite import SqliteReader
from symbi.audit.event import AuditEventType, parse_event
from symbi.cli.main import app
from symbi.errors import InputError
from symbi.runtime.agent_keys import destroy_keys, list_keys, rotate_keys
from symbi.runtime.course import Order
from symbi.testing.runtime import open_in
from symbi.types import SYSTEM_AGENT, AgentId

pytestmark = pytest.mark.anyio
ALL = '@id("all") permit (principal, action, resource);'
TEXT = """
agent a(x: Any) { with { return send("b", { n: x }); } }
agent b(n: Any) { with { log(n); return n; } }
"""
CONFIG = '[agents.b]\nmode = "persistent"\n'
A, B = AgentId("a"), AgentId("b")


def opened(folder, **more):
    return open_in(folder, TEXT, policies=ALL, config=CONFIG, **more)


async def send(running, value):
    spec = next(one for one in running.compiled.agents if one.id == "a")
    outcome = await running.runtime.run(running.compiled, spec, {"x": value})
    assert outcome.error is None


async def spawn(running):
    spec = next(one for one in running.compiled.agents if one.id == "b")
    await running.runtime.spawn(Order(running.compiled, spec), [""])


async def read(running):
    """What waits for `b`, opened."""
    rooms = running.runtime.rooms

    def look():
        rows = rooms.privacy.rooms.store._db.execute("SELECT message_id FROM mailbox ORDER BY sequence").fetchall()
        return [json.loads(rooms.mails.opened(rooms.mailbox.get_message(name)).inputs)["n"] for (name,) in rows]

    return await rooms.world.log.read(look)


def events(folder, *kinds):
    with SqliteReader(folder / ".symbi") as reader:
        return [event for one in reader.read(1) if (event := parse_event(one.record)).event_type in kinds]


async def test_what_waits_opens_after_a_rotation_and_older_keys_go_once_nothing_needs_them(tmp_path):
    async with opened(tmp_path) as running:
        rooms = running.runtime.rooms
        await spawn(running)
        await send(running, 1)
        for name in (A, B):
            assert (await rotate_keys(rooms, name, "ada")).generation == 2
        await send(running, 2)
        assert await read(running) == [1, 2]
    async with opened(tmp_path) as running:
        rooms = running.runtime.rooms
        await send(running, 3)
        assert await read(running) == [1, 2, 3]
        assert [one.wrapped is None for one in await list_keys(rooms)] == [False] * 4
        await rooms.world.log.transact(
            lambda: (rooms.privacy.rooms.store._db.execute("DELETE FROM mailbox").rowcount, ())
        )
    async with opened(tmp_path) as running:
        await send(running, 4)
        keys = await list_keys(running.runtime.rooms)
        assert [(one.agent, one.generation, one.wrapped is None) for one in keys] == [
            ("a", 1, True), ("a", 2, False), ("b", 1, True), ("b", 2, False),
        ]  # fmt: skip
        assert await read(running) == [4]
    rotated = events(tmp_path, AuditEventType.BUS_KEYS_ROTATED)
    assert [(event.agent_id, event.details["by"]) for event in rotated] == [("a", "ada"), ("b", "ada")]


async def test_the_keys_of_an_agent_are_destroyed_only_once_it_is_gone(tmp_path):
    async with opened(tmp_path) as running:
        runtime, rooms = running.runtime, running.runtime.rooms
        with pytest.raises(InputError, match="has no keys"):
            await destroy_keys(rooms, B, "ada")
        await spawn(running)
        await send(running, 1)
        with pytest.raises(InputError, match="needs its keys"):
            await destroy_keys(rooms, B, "ada")
        with pytest.raises(InputError, match=r"did you mean|has no keys"):
            await rotate_keys(rooms, AgentId("bb"), "ada")
        await runtime.send(B, {"n": 2}, sender="ada")
        with pytest.raises(InputError, match="itself"):
            await destroy_keys(rooms, SYSTEM_AGENT, "ada")
        await rooms.world.log.transact(
            lambda: (rooms.privacy.rooms.store._db.execute("UPDATE agents SET state = 'Terminated'").rowcount, ())
        )
        assert await destroy_keys(rooms, B, "ada") == 1
        with pytest.raises(Exception, match="no keys of epoch"):
            await read(running)
    (destroyed,) = events(tmp_path, AuditEventType.BUS_KEYS_DESTROYED)
    assert destroyed.details == {"owner": "b", "by": "ada", "count": 1}


def test_the_commands_say_what_there_is_and_what_was_done(tmp_path, monkeypatch):
    async def begin():
        async with opened(tmp_path) as running:
            await spawn(running)
            await send(running, 1)

    anyio.run(begin)
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "symbi.toml"
    config.write_text(CONFIG)

    def ask(*words):
        return CliRunner().invoke(app, ["keys", *words, "--config", str(config)], env={"SYMBI_LOG_LEVEL": "error"})

    listed = json.loads(ask("list", "--json").stdout)["keys"]
    assert [(row["agent"], row["generation"], len(row["signing"])) for row in listed] == [("a", 1, 64), ("b", 1, 64)]
    assert "signs by" in ask("list").stdout
    assert "from now on" in ask("rotate", "a").stdout
    assert json.loads(ask("destroy", "a", "--json").stdout) == {"agent": "a", "destroyed": 2}
    again = ask("destroy", "a")
    assert again.exit_code != 0
    assert "has no keys" in again.output
