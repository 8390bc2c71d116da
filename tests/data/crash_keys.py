"""Rounds of sealing on one store, each ended by SIGKILL: `crash_keys.py FOLDER ROUNDS SEED`, a JSON line back.

Each round is a fork that seals messages in transactions of its own, some of which it undoes, and writes under which key and
sequence it has sealed into a pipe, before anything of it is durable. No key and sequence may ever come twice, and what
was durable has to open in the next round, once.
"""

import hashlib
import json
import os
import random
import signal
import sys
from contextlib import suppress
from pathlib import Path

from symbi.adapters.sqlite import SqliteStore
from symbi.bus.codec import Codec, Outgoing
from symbi.bus.envelope import Address
from symbi.clock import IdSource, SystemClock
from symbi.crypto.provider import open_provider
from symbi.errors import MessageRefused
from symbi.testing.bus_keys import book_on
from symbi.types import AgentId

AGENTS = [AgentId(name) for name in ("a", "b", "c")]


def seal(folder: Path, pipe: int, chance: random.Random) -> None:
    clock = SystemClock()
    ids = IdSource(clock)
    with SqliteStore(folder) as store:
        book = book_on(store, store.epoch)
        codec = Codec(open_provider(), book, book, clock)
        while True:
            made = ()
            with suppress(KeyError), store.transaction():
                for _ in range(chance.randrange(1, 8)):
                    sender, to = chance.sample(AGENTS, 2)
                    name = ids.new()
                    wire = codec.seal(Outgoing(name, sender, Address(to), b"x"))
                    opened = codec.read(wire, to)
                    key = hashlib.sha256(book.pair_key(sender, to, opened.flow.epoch)).hexdigest()[:24]
                    os.write(pipe, f"{key} {opened.sequence}\n".encode())
                    made = book.flush()
                    store._db.execute("INSERT INTO meta VALUES (?, ?)", (f"wire {name} {to}", wire.hex()))
                if chance.randrange(4) == 0:
                    made = ()
                    raise KeyError("this transaction is undone")
            if chance.randrange(2):
                book.durable(made)


def one_round(folder: Path, chance: random.Random) -> list[str]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        seal(folder, writing, chance)
        os._exit(1)
    os.close(writing)
    data, wanted = b"", chance.randrange(1, 60)
    while data.count(b"\n") < wanted and (more := os.read(reading, 4096)):
        data += more
    for _ in range(chance.randrange(20_000)):
        pass
    os.kill(child, signal.SIGKILL)
    while more := os.read(reading, 65_536):
        data += more
    os.close(reading)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"who seals ended by itself, with {status}"
    return data.decode().split("\n")[:-1]


def main() -> None:
    folder, rounds, chance = Path(sys.argv[1]), int(sys.argv[2]), random.Random(int(sys.argv[3]))
    used: set[str] = set()
    opened = 0
    for number in range(rounds):
        for line in one_round(folder, random.Random(chance.random())):
            assert line not in used, f"round {number}: key and sequence {line} were used before"
            used.add(line)
        with SqliteStore(folder) as store:
            book = book_on(store, store.epoch)
            codec = Codec(open_provider(), book, book, SystemClock())
            rows = store._db.execute("SELECT key, value FROM meta WHERE key LIKE 'wire %'").fetchall()
            for key, value in rows:
                with store.transaction():
                    assert codec.open(bytes.fromhex(value), AgentId(key.split()[2])).payload == b"x"
                    store._db.execute("UPDATE meta SET key = 'was ' || key WHERE key = ?", (key,))
                opened += 1
            for key, value in chance.sample(rows, min(3, len(rows))):
                (again,) = codec.open_many([bytes.fromhex(value)], AgentId(key.split()[2]))
                assert isinstance(again, MessageRefused), f"round {number}: a message came twice"
                assert again.code == "message.replayed"
    print(json.dumps({"rounds": rounds, "sealed": len(used), "opened": opened}))


if __name__ == "__main__":
    main()
