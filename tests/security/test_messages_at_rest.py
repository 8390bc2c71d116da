"""What waits for agents is sealed and signed: nothing of it can be read in the store, and what was changed there is never run."""

import json
import sqlite3
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
import pytest

from symbi.adapters.sqlite import DATABASE_NAME, SqliteReader, file
from symbi.adapters.sqlite.file import whole
from symbi.agent.task import Task
from symbi.audit.event import AuditEventType, Draft, parse_event
from symbi.errors import ChainBroken, DecryptionFailed, InputError, StoreUnavailable, ToolServerUnavailable
from symbi.guard.outcome import decode_error, encode_error
from symbi.guard.vault import place
from symbi.runtime.course import Order
from symbi.runtime.dead_letters import GivenUp, LetterKind, Payload
from symbi.runtime.letters import DeadLetter, LetterState
from symbi.testing.clock import ManualClock
from symbi.testing.runtime import open_in
from symbi.types import AgentId, Label, RunId

pytestmark = pytest.mark.anyio

ALL = '@id("all") permit (principal, action, resource);'
MARK = "Zq9-the-launch-code-7d1f"
LONG = MARK + "x" * 9000  # is not kept inline
GONE = ToolServerUnavailable(f"the server said no to {MARK}")
TEXT = """
agent a(x: Any) { with { send("b", { n: x }); send("b", { n: x }, after = 1h); publish("news.now", { n: x }); return "sent"; } }
agent asks(x: Any) { with { return ask("b", { n: x }); } }
agent b(n: Any) { with { log("b"); return "done"; } }
agent c(n: Any) { with { log("c"); return "done"; } }
"""
CONFIG = "".join(f'[agents.{name}]\nmode = "persistent"\ntopics = ["news.*"]\n' for name in "bc")


@dataclass
class Stage:
    runtime: object
    compiled: object
    lines: list
    tasks: object

    async def store(self, work):
        """Something on the store itself, as somebody does it who can write its file."""
        rooms = self.runtime.rooms
        return await rooms.world.log.read(lambda: work(rooms.privacy.rooms.store._db))

    async def sql(self, text, *values):
        return await self.store(lambda db: db.execute(text, values).fetchall())

    async def run(self, agent="a", task=None, **inputs):
        spec = next(one for one in self.compiled.agents if one.id == agent)
        return await self.runtime.run(self.compiled, spec, inputs, task or Task())

    async def carry_out(self):
        """Carry out all that is due."""
        self.tasks.start_soon(self.runtime.carry_out_messages)
        with anyio.fail_after(30):
            await anyio.wait_all_tasks_blocked()
            while not self.runtime.dispatch.idle or await self.sql("SELECT 1 FROM mailbox WHERE due_ns = 0"):
                await anyio.lowlevel.checkpoint()


@asynccontextmanager
async def living(folder, *, make=("b", "c"), config=CONFIG, text=TEXT, **more):
    lines = []
    emit = lambda _agent, line: lines.append(line)  # noqa: E731 - of this runtime alone
    async with (
        open_in(folder, text, policies=ALL, config=config, emit=emit, **more) as opened,
        anyio.create_task_group() as tasks,
    ):
        runtime, specs = opened.runtime, {spec.id: spec for spec in opened.compiled.agents}
        for name in make:
            await runtime.spawn(Order(opened.compiled, specs[name]), [""])
        runtime.roster.declare(opened.compiled)
        for name in make:
            await runtime.post.subscribe(Order(opened.compiled, specs[name]), ["news.*"])
        yield Stage(runtime, opened.compiled, lines, tasks)
        runtime.dispatch.stop()


def events(folder, kind):
    with SqliteReader(folder / ".symbi") as reader:
        return [event for one in reader.read(1) if (event := parse_event(one.record)).event_type == kind]


def kept_in(db, *tables):
    """Every byte that some tables hold, with the payloads that they refer to."""
    found = []
    for table in tables:
        columns = [row[1] for row in db.execute(f"PRAGMA table_info('{table}')")]
        for column in columns:
            found += [row[0] for row in db.execute(whole(f"SELECT WHOLE({table}.{column}) FROM {table}"))]
    return b"\n".join(str(one).encode() if isinstance(one, str | int) else one for one in found if one is not None)


# --- nothing can be read ------------------------------------------------------------------------


@pytest.mark.parametrize("said", [MARK, LONG], ids=["short", "long"])
async def test_no_byte_of_a_message_stands_in_mailboxes_and_among_dead_letters(tmp_path, said):
    secret = Label(categories=("launch-codes",))
    async with living(tmp_path) as stage:
        assert (await stage.run(x=said, task=Task(labels={"x": secret}))).error is None
        waiting = await stage.store(lambda db: kept_in(db, "mailbox"))
        assert len(await stage.sql("SELECT 1 FROM mailbox")) == 4
        assert waiting.count(b"SyMb") == 4
        letters = stage.runtime.letters
        payload = Payload(AgentId("b"), stage.compiled.file, {"n": said}, Task(labels={"n": secret}))
        for number in range(2):
            await letters.put(GivenUp(LetterKind.MESSAGE, RunId(f"m{number}"), GONE, 1, payload))
        dead = await stage.store(lambda db: kept_in(db, "dead_letters"))
        assert dead.count(b"SyMb") == 4
        assert json.loads((await letters.opened(RunId("m0"))).inputs) == {"n": said}
        await stage.runtime.replay(stage.compiled, RunId("m0"), "ada")
        replayed = await stage.store(lambda db: kept_in(db, "mailbox", "dead_letters"))
        for text in (MARK.encode(), b"launch-codes", MARK[4:].encode()):
            assert text not in waiting
            assert text not in dead
            assert text not in replayed
        await stage.carry_out()
        assert stage.lines.count("b") == 3


@pytest.mark.parametrize("carried", [False, True], ids=["waiting", "carried out"])
async def test_where_everything_is_sealed_no_file_has_a_byte_of_it(tmp_path, carried):
    """Journal and trail of sender and recipient too, which otherwise hold what runs were given."""
    async with living(tmp_path, config=CONFIG + '[audit]\nconfidential = "all"\n') as stage:
        await stage.run(x=MARK)
        if carried:
            await stage.carry_out()
            assert (await stage.run("asks", x=MARK)).output == "done"
        payload = Payload(AgentId("b"), stage.compiled.file, {"n": MARK}, Task())
        await stage.runtime.letters.put(GivenUp(LetterKind.MESSAGE, RunId("m"), GONE, 1, payload))
        files = [path for path in (tmp_path / ".symbi").rglob("*") if path.is_file()]
        assert any(path.name == DATABASE_NAME for path in files)
        assert [path.name for path in files if MARK.encode() in path.read_bytes()] == []


# --- nothing that was changed is run --------------------------------------------------------------


def swap(db):
    (one, first), (other, second) = db.execute(
        "SELECT message_id, body FROM mailbox WHERE due_ns = 0 LIMIT 2"
    ).fetchall()
    db.execute("UPDATE mailbox SET body = ? WHERE message_id = ?", (second, one))
    db.execute("UPDATE mailbox SET body = ? WHERE message_id = ?", (first, other))


def flip(db):
    for name, body in db.execute("SELECT message_id, body FROM mailbox WHERE agent_id = 'b'").fetchall():
        altered = body[:-100] + bytes([body[-100] ^ 1]) + body[-99:]
        db.execute("UPDATE mailbox SET body = ? WHERE message_id = ?", (altered, name))


def changed(text):
    return lambda db: db.execute(text)


PLAIN = """UPDATE mailbox SET body = CAST('{"n":"forged"}' AS BLOB)"""
ATTACKS = {
    "bodies of two messages are swapped": (swap, 2),
    "bits are flipped": (flip, 2),
    "a message is moved to another agent": (changed("UPDATE mailbox SET agent_id = 'c', declared = 'c'"), 2),
    "the sender is another agent": (changed("UPDATE mailbox SET sender = 'c'"), 2),
    "the sender is a person": (changed("UPDATE mailbox SET sender = 'uid:0'"), 2),
    "it expires at another time": (changed("UPDATE mailbox SET expires_ns = 9223372036854775807"), 2),
    "it has another id": (changed("UPDATE mailbox SET message_id = '01a215fa-82dd-7000-8c0d-' || substr(message_id, 25)"), 2),
    "an open message in its place": (changed(PLAIN), 2),
    "an open message that is said to be old": (changed(PLAIN + ", epoch = 0"), 2),
    "it is cut off": (changed("UPDATE mailbox SET body = substr(body, 1, length(body) - 1)"), 2),
    "it has nothing in it": (changed("UPDATE mailbox SET body = x''"), 2),
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
async def test_what_was_changed_in_the_store_is_refused_on_the_trail_and_never_run(tmp_path, attack):
    change, count = ATTACKS[attack]
    text = TEXT.replace('send("b", { n: x }, after = 1h); publish("news.now", { n: x });', 'send("b", { n: x });')
    async with living(tmp_path, text=text) as stage:
        await stage.run(x=MARK)
        await stage.store(change)
        await stage.carry_out()
        assert stage.lines == []
        letters = await stage.sql("SELECT code FROM dead_letters")
        assert len(letters) == count
        assert (await stage.run(x="later")).error is None
        with anyio.fail_after(30):
            while stage.lines != ["b", "b"]:  # the agent goes on
                await anyio.lowlevel.checkpoint()
    refused = events(tmp_path, AuditEventType.MESSAGE_REFUSED)
    assert [event.details["code"] for event in refused] == [code for (code,) in letters]
    assert all(event.details["code"].startswith("message.") for event in refused)
    assert MARK not in json.dumps([dict(event.details) for event in refused])


async def test_messages_under_a_key_that_was_altered_are_given_up_and_hold_none_up(tmp_path):
    async with living(tmp_path) as stage:
        await stage.run(x=1)
        count = len(await stage.sql("SELECT 1 FROM mailbox WHERE due_ns = 0"))
        await stage.sql("UPDATE bus_epochs SET wrapped = zeroblob(length(wrapped))")
    async with living(tmp_path, make=()) as stage:
        await stage.run(x=2)
        await stage.carry_out()
        with anyio.fail_after(30):
            while stage.lines != ["b"]:  # what was sent under another key
                await anyio.lowlevel.checkpoint()
        assert [code for (code,) in await stage.sql("SELECT code FROM dead_letters")] == ["message.epoch"] * count
    assert len(events(tmp_path, AuditEventType.MESSAGE_REFUSED)) == count


def master_of(folder):
    return next((folder / ".symbi" / "keys").glob("*master*"))


@asynccontextmanager
async def another_master(folder):
    """Within, the folder has the sealing master of another one."""
    async with living(folder / "other") as stage:
        await stage.run(x=1)
    master = master_of(folder)
    right = master.read_bytes()
    master.write_bytes(master_of(folder / "other").read_bytes())
    yield
    master.write_bytes(right)


@pytest.mark.parametrize("first", ["d", "a"])
async def test_no_second_master_wraps_keys_in_a_store(tmp_path, first):
    """Neither of the bus beside those of data subjects, nor the other way round: no master would open both."""
    text = TEXT + 'agent d(x: Any) { with { return "ok"; } }\n'
    about = {"d": Task(labels={"x": Label(subjects=("ada",))}), "a": Task()}
    tables, second = {"d": "subject_keys", "a": "bus_agents"}, "a" if first == "d" else "d"
    async with living(tmp_path, text=text) as stage:
        await stage.run(first, about[first], x=1)
        assert await stage.sql(f"SELECT 1 FROM {tables[first]}")
        assert not await stage.sql(f"SELECT 1 FROM {tables[second]}")
    async with another_master(tmp_path), living(tmp_path, text=text, make=()) as stage:
        try:
            refused = (await stage.run(second, about[second], x=1)).error is not None
        except StoreUnavailable:
            refused = True
        assert refused
        assert not await stage.sql(f"SELECT 1 FROM {tables[second]}")
    async with living(tmp_path, text=text, make=()) as stage:
        for agent, task in about.items():
            assert (await stage.run(agent, task, x=1)).error is None


async def test_under_another_master_messages_wait_for_the_right_one(tmp_path):
    async with living(tmp_path) as stage:
        await stage.run(x=1)
        waiting = await stage.sql("SELECT message_id FROM mailbox WHERE due_ns = 0")
    async with another_master(tmp_path), living(tmp_path, make=()) as stage:
        stage.tasks.start_soon(stage.runtime.carry_out_messages)
        with anyio.fail_after(30):
            while not stage.runtime.dispatch._resting:
                await anyio.lowlevel.checkpoint()
        assert await stage.sql("SELECT message_id FROM mailbox WHERE due_ns = 0") == waiting
        assert stage.lines == [] == await stage.sql("SELECT 1 FROM dead_letters")
        stage.tasks.cancel_scope.cancel()
    async with living(tmp_path, make=()) as stage:
        await stage.carry_out()
        assert len(stage.lines) == len(waiting)


async def test_a_message_that_was_put_back_is_not_carried_out_again(tmp_path):
    """Neither while its run is on record, nor where somebody has removed that too; also after a restart."""
    async with living(tmp_path) as stage:
        await stage.run(x=1)
        rows = await stage.sql("SELECT * FROM mailbox WHERE due_ns = 0 AND agent_id = 'b'")
        await stage.carry_out()
        done = len(stage.lines)
    back = f"INSERT INTO mailbox VALUES ({','.join('?' * len(rows[0]))})"
    for removed, restart in ((), False), (("runs", "dead_letters"), False), (("runs", "dead_letters"), True):
        async with living(tmp_path, make=()) as stage:
            for table in removed:
                await stage.sql(f"DELETE FROM {table}")
            for row in rows:
                await stage.sql(back, *row)
            if restart:
                continue
            await stage.carry_out()
            assert stage.lines == []
            assert await stage.sql("SELECT 1 FROM mailbox WHERE due_ns = 0") == []
    async with living(tmp_path, make=()) as stage:
        await stage.carry_out()
        assert stage.lines == []
    refused = events(tmp_path, AuditEventType.MESSAGE_REFUSED)
    assert [event.details["code"] for event in refused] == ["message.replayed"] * 3 * len(rows)
    assert done == 3


async def test_a_message_that_was_given_up_and_put_back_is_not_carried_out_either(tmp_path):
    clock = ManualClock()
    async with living(tmp_path, clock=clock) as stage:
        await stage.run(x=1)
        rows = await stage.sql("SELECT * FROM mailbox WHERE due_ns > 0")
        (row,) = rows
        mails, mailbox = stage.runtime.rooms.mails, stage.runtime.rooms.mailbox
        message = await stage.store(lambda _db: mailbox.get_message(row[1]))
        log = stage.runtime.rooms.world.log
        await log.transact(lambda: (mails.take_back(message), ()))
        await log.transact(lambda: (mailbox.drop_message(row[1]), ()))
        await stage.sql(f"INSERT INTO mailbox VALUES ({','.join('?' * len(row))})", *row)
        clock.advance(7200)
        await stage.carry_out()
        stage.runtime.dispatch.wake()
        with anyio.fail_after(30):
            while not await stage.sql("SELECT 1 FROM dead_letters"):
                await anyio.lowlevel.checkpoint()
        assert await stage.sql("SELECT code FROM dead_letters") == [("message.replayed",)]
        assert len(stage.lines) == 3


async def test_a_letter_that_was_exchanged_does_not_open(tmp_path):
    async with living(tmp_path) as stage:
        letters = stage.runtime.letters
        for number, agent in enumerate("bbc"):
            payload = Payload(AgentId(agent), stage.compiled.file, {"n": number}, Task())
            await letters.put(GivenUp(LetterKind.MESSAGE, RunId(f"m{number}"), GONE, 1, payload))
        await stage.sql(
            "UPDATE dead_letters SET inputs = (SELECT inputs FROM dead_letters WHERE run_id = 'm1') WHERE run_id = 'm0'"
        )
        await stage.sql("UPDATE dead_letters SET agent_id = 'b', declared = 'b' WHERE run_id = 'm2'")
        await stage.sql("UPDATE dead_letters SET inputs = CAST('{\"n\":1}' AS BLOB), epoch = 0 WHERE run_id = 'm1'")
        for number in range(3):
            with pytest.raises(DecryptionFailed):
                await stage.runtime.replay(stage.compiled, RunId(f"m{number}"), "ada")
        assert await stage.sql("SELECT 1 FROM mailbox") == []


# --- what an earlier release left -----------------------------------------------------------------


def plain_message(number, agent="b"):
    return (
        f"0195b7a0-0000-7000-8000-00000000000{number}", agent, agent, "uid:1000", b'{"n":"%s"}' % MARK.encode(),
        b'{"n":{"integrity":"untrusted","confidentiality":"public","categories":[]}}', 0, 0,
    )  # fmt: skip


PUT = "INSERT INTO mailbox (message_id, declared, agent_id, sender, body, labels, due_ns, attempts) VALUES (?,?,?,?,?,?,?,?)"


async def test_what_an_earlier_release_left_is_sealed_and_carried_out(tmp_path):
    rules = (
        ALL
        + '@id("far") forbid (principal, action == Action::"WriteLog", resource) when { context.label.integrity == "untrusted" };'
    )
    text = TEXT.replace('log("b");', 'try { log(n); } catch (PolicyDenied e) { log("denied"); }')
    async with living(tmp_path, text=text) as stage:
        assert await stage.sql("SELECT 1 FROM bus_epochs") == []
        for number in range(2):
            await stage.sql(PUT, *plain_message(number))
        letter = DeadLetter(
            RunId("m0"), LetterKind.MESSAGE, AgentId("b"), stage.compiled.file, "x", 1, "2026-01-01T00:00:00.000000000Z",
            LetterState.OPEN, inputs=b'{"n":"%s"}' % MARK.encode(), error=b'{"message":"%s"}' % MARK.encode(),
        )  # fmt: skip
        store = stage.runtime.rooms.letters.store
        await stage.runtime.rooms.world.log.transact(lambda: (store.put_letter(letter), ()))
    (tmp_path / "policies" / "operator.cedar").write_text(rules)
    async with living(tmp_path, text=text, make=()) as stage:
        kept = await stage.store(lambda db: kept_in(db, "mailbox", "dead_letters"))
        assert MARK.encode() not in kept
        assert kept.count(b"SyMb") == 4
        assert json.loads((await stage.runtime.letters.opened(RunId("m0"))).inputs) == {"n": MARK}
        await stage.carry_out()
        assert len(await stage.sql("SELECT 1 FROM runs WHERE agent_id = 'b' AND state = 'finished'")) == 2
    assert len(events(tmp_path, AuditEventType.BUS_KEYS_MADE)) == 1


@pytest.mark.parametrize("left", [False, True], ids=["given up now", "left by an earlier release"])
async def test_a_letter_too_large_to_be_sealed_is_kept_without_its_payload(tmp_path, left):
    huge = {"n": "x" * 17_000_000}
    async with living(tmp_path) as stage:
        letters = stage.runtime.letters
        for name, inputs, error in (("m0", huge, GONE), ("m1", {"n": 1}, ToolServerUnavailable(huge["n"]))):
            if left:
                letter = DeadLetter(
                    RunId(name), LetterKind.MESSAGE, AgentId("b"), stage.compiled.file, error.code, 1,
                    "2026-01-01T00:00:00.000000000Z", inputs=json.dumps(inputs).encode(), error=encode_error(error),
                )  # fmt: skip
                await stage.runtime.rooms.world.log.transact(
                    lambda letter=letter: (letters.store.put_letter(letter), ())
                )
            else:
                payload = Payload(AgentId("b"), stage.compiled.file, inputs, Task())
                given = GivenUp(LetterKind.RUN, RunId(name), error, 1, payload)
                assert (await letters.put(given)).code == error.code
    async with living(tmp_path, make=()) as stage:
        letters = stage.runtime.letters
        assert await stage.sql("SELECT run_id FROM dead_letters WHERE epoch = 0 OR code <> ?", GONE.code) == []
        with pytest.raises(InputError, match=f"over the bound of 16777216 bytes; given up for: .*{MARK}") as refused:
            await stage.runtime.replay(stage.compiled, RunId("m0"), "ada")
        assert refused.value.code == "run.too_large"
        other = await letters.opened(RunId("m1"))
        assert json.loads(other.inputs) == {"n": 1}
        assert "its error is not kept" in decode_error(other.error).message
        await letters.drop(RunId("m0"), "ada", "it was too large")


async def test_under_a_wrong_master_nothing_of_an_earlier_release_is_passed_over(tmp_path):
    async with living(tmp_path) as stage:
        vault = stage.runtime.rooms.world.guard.vault
        keys = await vault.ready(["ada"])
        for number in range(2):  # of the second one something was altered: it opens under no key
            name, column = RunId(f"m{number}"), ("inputs", "grant")[number]
            inputs = keys.seal(b'{"n":1}', place("dead_letters", column, name))
            letter = DeadLetter(
                name, LetterKind.MESSAGE, AgentId("b"), stage.compiled.file, "x", 1, "2026-01-01T00:00:00.000000000Z",
                inputs=inputs,
            )  # fmt: skip
            await stage.runtime.rooms.world.log.transact(
                lambda letter=letter: (stage.runtime.letters.store.put_letter(letter), ())
            )
        values = list(plain_message(2))
        values[4] = keys.seal(b'{"n":1}', place("mailbox", "body", values[0]))
        await stage.sql(PUT, *values)
    async with another_master(tmp_path):
        with pytest.raises(DecryptionFailed, match="not wrapped by this master"):
            async with living(tmp_path, make=()):
                pytest.fail("it was taken over")
    async with living(tmp_path, make=()) as stage:
        assert await stage.sql("SELECT run_id FROM dead_letters WHERE epoch = 0") == [("m1",)]
        assert await stage.sql("SELECT 1 FROM mailbox WHERE epoch = 0") == []
        assert (await stage.runtime.letters.opened(RunId("m0"))).inputs == b'{"n":1}'


def files_with_mark(folder):
    return [one for one in (folder / ".symbi").iterdir() if one.is_file() and MARK.encode() in one.read_bytes()]


async def test_once_it_is_sealed_no_file_holds_what_an_earlier_release_left_and_what_was_cut_off_is_done(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(file, "BUSY_TIMEOUT_S", 0.0)
    async with living(tmp_path) as stage:
        await stage.sql(PUT, *plain_message(0))
        large = list(plain_message(1))
        large[4] = b'{"n":"%s"}' % LONG.encode()
        await stage.sql(PUT, *large)
    reader = sqlite3.connect(f"{(tmp_path / '.symbi' / DATABASE_NAME).as_uri()}?mode=ro", uri=True)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM mailbox").fetchone() == (2,)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="a reader still holds old pages"):
            async with living(tmp_path, make=()):
                pytest.fail("it was taken over")
        assert tmp_path / ".symbi" / DATABASE_NAME in files_with_mark(tmp_path)
    assert len(events(tmp_path, AuditEventType.BUS_KEYS_MADE)) == 1
    reader.close()
    async with living(tmp_path, make=()) as stage:
        assert await stage.sql("SELECT count(*) FROM mailbox WHERE epoch > 0") == [(2,)]
        assert files_with_mark(tmp_path) == []


def forge(folder, *changes):
    """Remove the keys of the bus from a store that nobody has open, and put a message there as an old one."""
    with sqlite3.connect(folder / ".symbi" / DATABASE_NAME) as db:
        for table in ("bus_agents", "bus_epochs", "bus_seen", "mailbox"):
            db.execute(f"DELETE FROM {table}")
        db.execute("DELETE FROM sqlite_sequence WHERE name = 'bus_epochs'")
        for change in changes:
            assert db.execute(change).rowcount
        db.execute(PUT, plain_message(1))
    db.close()


ELSEWHERE = "UPDATE events SET event_type = 'run.started' WHERE event_type = 'bus.keys_made'"
SAID = "UPDATE events SET record = CAST(replace(CAST(record AS TEXT), '\"bus.keys_made\"', '\"run.started\"') AS BLOB) WHERE event_type = 'run.started'"
REMOVED = "DELETE FROM events WHERE sequence <= (SELECT sequence FROM events WHERE event_type = 'bus.keys_made')"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ((), "keys of the bus are gone"),
        ((ELSEWHERE,), "keys of the bus are gone"),
        ((ELSEWHERE, SAID), "hash"),
        ((REMOVED,), "beginning of the trail is not in the store"),
    ],
    ids=["as they are", "index", "record", "removed"],
)
async def test_a_store_whose_keys_were_removed_to_pass_for_an_old_one_is_not_taken_over(tmp_path, changes, told):
    async with living(tmp_path) as stage:
        await stage.run(x=1)
        log = stage.runtime.rooms.world.log
        for _ in range(300):  # what the log reads of the trail when it opens it is behind all that is changed here
            await log.append(Draft(AuditEventType.RUN_STARTED, AgentId("b"), {}))
    forge(tmp_path, *changes)
    with pytest.raises(ChainBroken, match=told):
        async with living(tmp_path, make=()):
            pytest.fail("it was taken over")
