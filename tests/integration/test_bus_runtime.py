"""The bus of a whole runtime: durable keys, what a restart leaves, and the commands that look at it."""

import json
import sqlite3
from contextlib import asynccontextmanager
from functools import partial

import anyio
import pytest
from typer.testing import CliRunner

from symbi.adapters.sqlite import DATABASE_NAME
from symbi.api import dlq
from symbi.api.caller import Caller, operate
from symbi.api.control import OPERATIONS
from symbi.bus import at_hand, keybook
from symbi.bus import bus as bus_module
from symbi.bus.codec import Outgoing
from symbi.bus.envelope import Address
from symbi.bus.parcels import ConsumerTerms, Parcel
from symbi.cli.main import app
from symbi.errors import InputError
from symbi.runtime.agent_keys import destroy_keys, rotate_keys
from symbi.testing.open_bus import collect, heeded, settled
from symbi.testing.runtime import open_in
from symbi.types import AgentId, Label

pytestmark = pytest.mark.anyio

AGENT = 'agent a() { with { "done" } }'
ALL = "permit (principal, action, resource);"
CONFIG = """
[agents.a]
[agents.b]
groups = ["team"]
[agents.c]
[topics.news]
pattern = "news.>"
owner = "desk"
[bus]
attempts = 1
"""


@asynccontextmanager
async def opened(folder):
    async with open_in(folder, AGENT, config=CONFIG, policies=ALL) as running:
        with heeded(running.runtime.rooms.world.log):
            yield running


async def test_every_pattern_works_over_the_keys_of_the_store(tmp_path):
    async with opened(tmp_path) as running:
        bus, got = running.runtime.bus, []
        await bus.open_mailbox("b", lambda message: got.append(message.body) or "yes")
        await bus.subscribe("c", "news.>", lambda message: got.append(message.body))
        await bus.publish_many("a", "news.eu", ["p1", "p2"])
        await bus.send_message("a", "b", "s1")
        assert (await bus.request("a", "b", "r1", timeout_s=30)).body == "yes"
        assert await bus.broadcast("c", "team", "b1") == {"b": None}
        await settled(lambda: len(got) == 5)
        assert sorted(got) == ["b1", "p1", "p2", "r1", "s1"]
        with pytest.raises(InputError, match="no agent"):
            await bus.send_message("a", "nobody", 1)


async def test_what_was_sent_before_a_restart_is_received_after_it(tmp_path):
    got = []
    async with opened(tmp_path) as running:
        bus = running.runtime.bus
        held = await bus.subscribe("c", "news.>", got.append, terms=ConsumerTerms(durable="d"))
        await held.close()
        for number in range(20):
            await bus.send_message("a", "b", number)
        await bus.publish_many("a", "news.x", ["n1", "n2"])
    for _ in range(2):  # and once only
        async with opened(tmp_path) as running:
            bus = running.runtime.bus
            await bus.open_mailbox("b", got.append)
            await bus.subscribe("c", "news.>", got.append, terms=ConsumerTerms(durable="d"))
            await settled(lambda: len(got) == 22)
            await settled()
    assert [one.body for one in got if one.to == "b"] == list(range(20))
    assert [one.body for one in got if one.to == "news.x"] == ["n1", "n2"]


@pytest.mark.parametrize("table", ["bus_epochs", "bus_groups"])
async def test_what_waits_under_a_key_that_was_altered_is_refused_and_all_else_goes_on(tmp_path, table):
    terms = ConsumerTerms(durable="d")
    async with opened(tmp_path) as running:
        bus = running.runtime.bus
        await (await bus.subscribe("c", "news.>", print, terms=terms)).close()
        await bus.publish("a", "news.eu", "lost")
        await bus.send_message("a", "b", "lost")
    with sqlite3.connect(tmp_path / ".symbi" / DATABASE_NAME) as db:
        assert db.execute(f"UPDATE {table} SET wrapped = zeroblob(length(wrapped))").rowcount == 1
    db.close()
    got = []
    async with opened(tmp_path) as running:
        bus = running.runtime.bus
        await bus.subscribe("c", "news.>", collect(got), terms=terms)
        await bus.open_mailbox("b", collect(got))
        await bus.publish("a", "news.eu", "later")
        await bus.send_message("a", "b", "later")
        await settled(lambda: got.count("later") == 2)
        assert got.count("lost") == 1  # what has the other key
        codes = [one.code for one in await bus.outbox.dead()]
        assert codes == (["message.epoch"] if table == "bus_epochs" else [])


async def test_who_leaves_a_topic_cannot_read_what_is_published_later(tmp_path):
    epochs = []
    async with opened(tmp_path) as running:
        bus = running.runtime.bus
        seal = running.runtime.bus.desk.codec.seal_many

        def watched(messages):
            wires = seal(messages)
            epochs.append(bus.desk.codec.read(wires[0], messages[0].sender).flow.epoch)
            return wires

        running.runtime.bus.desk.codec.seal_many = watched
        stays, goes = [], []
        await bus.subscribe("c", "news.*", lambda message: stays.append(message.body))
        leaver = await bus.subscribe("b", "news.eu", lambda message: goes.append(message.body))
        await bus.publish("a", "news.eu", 1)
        await settled(lambda: stays and goes)
        await leaver.close()
        await bus.publish("a", "news.eu", 2)
        await settled(lambda: len(stays) == 2)
    assert epochs[1] == epochs[0] + 1
    assert (stays, goes) == ([1, 2], [1])


async def test_sequences_of_agents_mail_and_of_the_bus_are_never_the_same(tmp_path):
    """Both seal under the key of one pair: no nonce may be in both."""
    async with opened(tmp_path) as running:
        bus, book = running.runtime.bus, running.runtime.rooms.mails.book
        seen = set()
        for _ in range(5):
            await bus.send_message("a", "b", 1)
            block = await running.runtime.rooms.world.log.read(lambda: book.reserve("a", Address("b"), 3))
            for sequence in range(block.first, block.first + 3):
                seen.add((block.epoch, sequence))
        wires = bus.desk.codec.seal_many(
            [Outgoing(name, "a", Address("b"), b"\x01\x00\x00") for name in running.runtime.rooms.ids.several(9)]
        )
        ours = {(one.flow.epoch, one.sequence) for one in (bus.desk.codec.read(wire, "b") for wire in wires)}
        assert len(ours) == 9
        assert not ours & seen


async def test_a_dead_message_is_listed_replayed_and_dropped_like_every_letter(tmp_path):
    async with opened(tmp_path) as running:
        runtime, good, got = running.runtime, [], []

        def handler(message):
            if not good:
                msg = "no"
                raise ValueError(msg)
            got.append(message.body)

        first = await runtime.bus.send_message("a", "b", 1)
        second = await runtime.bus.send_message("a", "b", 2)
        await runtime.bus.open_mailbox("b", handler)
        while len(await runtime.bus.dead()) < 2:
            await settled()
        caller = Caller(0, folder_owner=True)
        good.append(True)
        answer = await operate(runtime, OPERATIONS, caller, "dlq.replay", {"letter": first.message_id})
        assert [row["letter"] for row in answer["replayed"]] == [first.message_id]
        await settled(lambda: got)
        answer = await operate(
            runtime, OPERATIONS, caller, "dlq.drop", {"letter": second.message_id, "reason": "not wanted"}
        )
        assert answer == {"dropped": [second.message_id]}
        assert (got, await runtime.bus.dead()) == ([1], [])
        stats = await operate(runtime, OPERATIONS, caller, "bus.stats", {})
        assert (stats["mailboxes"]["b"]["received"], stats["dead_letters"]) == (1, 0)
        rows = await operate(runtime, OPERATIONS, caller, "bus.tail", {"after": 1})
        assert [row["pattern"] for row in rows] == ["send"]
        for arguments in ({"after": -1}, {"limit": 10_000}, {"after": "x"}, {"after": True}):
            with pytest.raises(InputError):
                await operate(runtime, OPERATIONS, caller, "bus.tail", arguments)
        json.dumps(stats)


def asked(folder, *words):
    """A command, and what it prints as JSON."""
    done = CliRunner().invoke(app, [*words, "--json", "--config", str(folder / "symbi.toml")])
    return done.exit_code, json.loads(done.stdout or "null")


async def fail(_message):
    raise ValueError


async def give_up_four(folder):
    """Dead messages of the bus; and what the operations refuse while somebody owns the folder."""
    async with opened(folder) as running:
        runtime = running.runtime
        await runtime.bus.open_mailbox("b", fail)
        sent = [(await runtime.bus.send_message("a", "b", number)).message_id for number in range(4)]
        await settled(lambda: runtime.bus.record.of("a.b").dead == 4)
        caller = Caller(0, folder_owner=True)
        with pytest.raises(InputError, match="given up no message"):
            await operate(runtime, OPERATIONS, caller, "dlq.drop", {"letter": "x", "kind": "bus", "reason": "r"})
        with pytest.raises(InputError, match="given up no message"):
            await operate(runtime, OPERATIONS, caller, "dlq.replay", {"agent": "c", "kind": "bus"})
        with pytest.raises(InputError, match="`kind`"):
            await operate(runtime, OPERATIONS, caller, "dlq.replay", {"agent": "b", "kind": "run"})
    return sent


def test_symbi_bus_dlq_is_symbi_dlq_for_messages_of_the_bus_alone(tmp_path):
    sent = anyio.run(give_up_four, tmp_path)
    (tmp_path / "symbi.toml").write_text(CONFIG)
    run = partial(asked, tmp_path)
    code, rows = run("bus", "dlq", "list")
    assert code == 0, rows
    assert (code, {row["letter"] for row in rows}) == (0, set(sent))
    assert {row["letter"] for row in (run("dlq", "list"))[1]} == set(sent)
    assert (run("bus", "dlq", "list", "--agent", "c")) == (0, [])
    assert (run("bus", "dlq", "show", sent[0]))[1]["kind"] == "bus"
    assert (run("bus", "dlq", "show", "x"))[0] == 2
    assert (run("bus", "dlq", "drop", sent[0], "--reason", "r")) == (0, {"dropped": [sent[0]]})
    assert (run("bus", "dlq", "drop", sent[0], "--reason", "r"))[0] == 2
    code, answer = run("bus", "dlq", "replay", sent[1])
    assert (code, [row["letter"] for row in answer["replayed"]]) == (0, [sent[1]])
    code, answer = run("bus", "dlq", "replay", "--all-of", "b")
    assert (code, {row["letter"] for row in answer["replayed"]}) == (0, {sent[2], sent[3]})
    assert (run("bus", "dlq", "list"))[1] == []


async def test_other_keys_of_an_agent_count_at_once(tmp_path):
    async with opened(tmp_path) as running:
        runtime, got, signed = running.runtime, [], []
        seal = runtime.bus.desk.codec.seal_many

        def watched(messages):
            wires = seal(messages)
            signed.append(runtime.bus.desk.codec.read(wires[0], AgentId("c")).flow.key_id)
            return wires

        runtime.bus.desk.codec.seal_many = watched
        await runtime.bus.subscribe("c", "news.x", lambda message: got.append(message.body))
        await runtime.bus.publish("a", "news.x", 1)
        await runtime.bus.publish("a", "news.x", 2)
        await settled(lambda: len(got) == 2)
        made = await rotate_keys(runtime.rooms, AgentId("a"), "jane")
        await runtime.bus.publish("a", "news.x", 3)
        await settled(lambda: len(got) == 3)
        assert got == [1, 2, 3], runtime.bus.record._window.refused
        assert signed[0] == signed[1] != signed[2] == made.signing_id


async def test_what_is_about_a_data_subject_is_not_kept_in_the_stream(tmp_path):
    async with opened(tmp_path) as running:
        bus = running.runtime.bus
        got, kept, label = [], [], Label(subjects=("person-1",))
        await bus.subscribe("b", "news.t", collect(got))
        assert await bus.publish("a", "news.t", 1, label=label) == 1
        await bus.subscribe("c", "news.t", collect(kept), terms=ConsumerTerms(durable="d"))
        with pytest.raises(InputError) as refused:
            await bus.publish("a", "news.t", 2, label=label)
        assert refused.value.code == "message.subject"
        await settled()
        assert (got, kept) == ([1], [])
        assert await bus._rooms.log.read(lambda: bus._rooms.store.stream_rows(0, 10)) == []


async def test_what_waits_in_a_buffer_is_not_a_replay_of_what_another_reader_has_opened(tmp_path):
    async with opened(tmp_path) as running:
        bus = running.runtime.bus
        slow_got, quick_got, gate = [], [], anyio.Event()

        async def slow(message):
            slow_got.append(message.body)
            await gate.wait()

        many = 1024 + 10
        await bus.subscribe("b", "t", slow, terms=ConsumerTerms(most=2 * many))
        await bus.publish("a", "t", "held")
        await settled(lambda: slow_got)
        await bus.publish_many("a", "t", ["x", "y"])
        await bus.subscribe("c", "t", collect(quick_got), terms=ConsumerTerms(most=2 * many))
        await bus.publish_many("a", "t", list(range(many)))
        await settled(lambda: len(quick_got) == many)
        gate.set()
        await settled(lambda: len(slow_got) == many + 3)
        assert slow_got == ["held", "x", "y", *range(many)]


async def test_answers_do_not_make_what_waits_in_the_mailbox_a_replay(tmp_path):
    async with opened(tmp_path) as running:
        bus = running.runtime.bus
        got, gate = [], anyio.Event()

        async def slow(message):
            got.append(message.body)
            await gate.wait()

        await bus.open_mailbox("b", slow, groups=["all"])
        await bus.open_mailbox("a", lambda message: message.body)
        await bus.broadcast("a", "all", "held")
        await settled(lambda: got)
        assert await bus.broadcast("a", "all", "waits") == {"b": None}
        for _ in range(1024 + 10):
            await bus.request("b", "a", 1, timeout_s=30)
        gate.set()
        await settled(lambda: len(got) == 2)
        assert got == ["held", "waits"]


async def test_what_waits_in_a_buffer_is_opened_with_the_keys_before(tmp_path):
    async with opened(tmp_path) as running:
        bus, got, gate = running.runtime.bus, [], anyio.Event()

        async def slow(message):
            got.append(message.body)
            await gate.wait()

        await bus.open_mailbox("b", slow, groups=["all"])
        await bus.broadcast("c", "all", "held")
        await settled(lambda: got)
        assert await bus.broadcast("c", "all", "waits") == {"b": None}
        await rotate_keys(running.runtime.rooms, AgentId("b"), "jane")
        assert await bus.broadcast("c", "all", "later") == {"b": None}
        gate.set()
        await settled(lambda: len(got) == 3)
        assert got == ["held", "waits", "later"]


async def test_the_keys_of_who_receives_from_the_bus_are_not_destroyed_before_it_is_gone(tmp_path):
    async with opened(tmp_path) as running:
        bus, rooms, b = running.runtime.bus, running.runtime.rooms, AgentId("b")

        async def refused(match):
            with pytest.raises(InputError, match=match) as refusal:
                await destroy_keys(rooms, b, "jane")
            assert refusal.value.code == "input.agent_there"

        await bus.send_message("a", "b", 1)
        await bus.send_message("a", "b/1", 2)
        await refused("wait for agent `b`")
        box = await bus.open_mailbox("b", lambda _message: None)
        await settled(lambda: bus.record.of("a.b").received == 1)
        await refused("`b` receives from the bus")
        await box.close()
        await refused("wait for agent `b/1`")
        box = await bus.open_mailbox("b/1", lambda _message: None)
        await settled(lambda: bus.record.of("a.b/1").received == 1)
        await box.close()
        await bus.send_message("a", "b", 3)
        over, db = "UPDATE bus_outbox SET expires_ns = 1 WHERE state = 'waiting'", rooms.bus.outbox.store._db
        await rooms.world.log.transact(lambda: (db.execute(over).rowcount, ()))
        listens = await bus.subscribe("b/2", "news.eu", lambda _message: None)
        await refused("`b/2` receives from the bus")
        await listens.close()
        other = await bus.open_mailbox("c", lambda _message: None)
        await bus.send_message("a", "c", 4)
        assert await destroy_keys(rooms, b, "jane") == 1
        await other.close()


async def test_keys_of_pairs_are_bounded_and_nothing_is_taken_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(keybook, "MAX_COUNTED", 5)
    monkeypatch.setattr(at_hand, "MAX_AT_HAND", 10)
    monkeypatch.setattr(bus_module, "MAX_INBOXES", 10)
    async with opened(tmp_path) as running:
        bus, got = running.runtime.bus, []
        await bus.open_mailbox("b", lambda message: got.append(message.body), groups=["all"])
        publish, wires = bus._rooms.transport.publish, []
        bus._rooms.transport.publish = lambda subject, parcels: (
            wires.append((subject, parcels)) or publish(subject, parcels)
        )
        for number in range(60):
            await bus.broadcast(f"a/{number % 40}", "all", number)
            await bus.request(f"a/{number % 40}", "b", -number, timeout_s=30)
        await settled(lambda: len(got) == 120)
        assert sorted(got) == sorted([*range(60), *(-number for number in range(60))])
        keys = bus._rooms.changed.__self__
        assert len(keys._pairs) <= 11
        assert len(keys._blocks) <= 11
        assert len(bus._inboxes) <= 10
        got.clear()
        for subject, parcels in wires:
            await publish(subject, [Parcel(one.message_id, one.data, one.version) for one in parcels])
        await settled()
        assert got == []


async def test_group_keys_of_earlier_processes_go_where_nothing_is_kept_under_them(tmp_path):
    async def keys(bus, topic):
        return len(await bus._rooms.log.read(lambda: bus._rooms.store.groups(topic)))

    got = []
    for number in range(3):
        async with opened(tmp_path) as running:
            bus = running.runtime.bus
            await bus.subscribe("b", "news.heard", collect(got))
            held = await bus.subscribe("c", "news.kept", collect(got), terms=ConsumerTerms(durable="d"))
            await held.close()
            await bus.publish("a", "news.heard", number)
            await bus.publish("a", "news.kept", -number)
            assert (await keys(bus, "news.heard"), await keys(bus, "news.kept")) == (min(number + 1, 2), number + 1)
    async with opened(tmp_path) as running:
        got.clear()
        await running.runtime.bus.subscribe("c", "news.kept", collect(got), terms=ConsumerTerms(durable="d"))
        await settled(lambda: len(got) == 3)
        assert got == [0, -1, -2]


async def give_up_many(folder):
    """Messages to `c` and its instances, then to `b/1` and `b`, all given up, the last one newest."""
    async with opened(folder) as running:
        bus = running.runtime.bus
        for name in ("b", "b/1", "c"):
            await bus.open_mailbox(name, fail)
        sent = {}
        for number, name in enumerate([*["c"] * 6, "b/1", "b"]):
            sent.setdefault(name, []).append((await bus.send_message("a", name, number)).message_id)
            await settled(lambda count=number + 1: sum(bus.record.of(f"a.{one}").dead for one in sent) == count)
    return sent


def test_dead_messages_are_found_however_many_were_given_up_before_them(tmp_path, monkeypatch):
    sent = anyio.run(give_up_many, tmp_path)
    (tmp_path / "symbi.toml").write_text(CONFIG)
    run = partial(asked, tmp_path)

    def letters(*words):
        code, rows = run(*words)
        assert code == 0, rows
        return [row["letter"] for row in rows]

    assert letters("bus", "dlq", "list", "--limit", "2") == [*sent["b"], *sent["b/1"]]
    assert letters("bus", "dlq", "list", "--agent", "b", "--limit", "5") == [*sent["b"], *sent["b/1"]]
    assert letters("bus", "dlq", "list", "--agent", "b/1", "--limit", "1") == sent["b/1"]
    assert letters("dlq", "list", "--limit", "1") == sent["b"]
    assert run("bus", "dlq", "show", sent["b"][0])[1]["agent"] == "b"
    monkeypatch.setattr(dlq, "MAX_DEAD", 2)
    assert run("bus", "dlq", "drop", "--all-of", "b", "--reason", "r") == (0, {"dropped": [*sent["b/1"], *sent["b"]]})
    assert run("bus", "dlq", "show", sent["b"][0])[0] == 2
