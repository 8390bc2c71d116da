"""Rounds of appending from eight tasks, each ended by SIGKILL: `kill_rounds.py FOLDER ROUNDS SEED MODE`, a JSON line back.

Each round is a fork that appends and writes what was acknowledged into a pipe. After it, what was acknowledged is
looked for in the store; the whole trail is for the caller to verify.
"""

import json
import os
import random
import select
import signal
import sys
from pathlib import Path

import anyio

from symbi.adapters.sqlite import SqliteReader, SqliteStore
from symbi.audit.checkpoint import parse_note
from symbi.audit.event import AuditEventType, Draft, Signing
from symbi.audit.log import AuditLog, Cadence
from symbi.clock import IdSource, SystemClock
from symbi.errors import StoreUnavailable
from symbi.testing.trail import fixed_signing_key
from symbi.types import AgentId

TASKS = 8
MAX_ACKNOWLEDGED = 60  # a round is killed after so many at most
MAX_SPIN = 20_000  # turns of an empty loop, a few milliseconds: to kill within a commit, too


async def append(folder: Path, signing: Signing, pipe: int) -> None:
    clock = SystemClock()
    with SqliteStore(folder) as store:
        os.write(pipe, b"0 open\n")
        cadence = Cadence(events=20, interval_s=60)
        async with (
            AuditLog(store, fixed_signing_key(), clock, IdSource(clock), signing=signing, cadence=cadence) as log,
            anyio.create_task_group() as tasks,
        ):

            async def work(number: int) -> None:
                while True:
                    receipt = await log.append(Draft(AuditEventType.RUN_STARTED, AgentId(f"a{number}"), {}))
                    os.write(pipe, f"{receipt.sequence} {receipt.chain_hash}\n".encode())

            for number in range(TASKS):
                tasks.start_soon(work, number)


def one_round(folder: Path, signing: Signing, chance: random.Random) -> tuple[list[tuple[int, str]], bool]:
    """What a round acknowledged before it was killed, and whether a second writer was refused meanwhile."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        anyio.run(append, folder, signing, writing)
        os._exit(1)
    os.close(writing)
    data, wanted, refused = b"", chance.randrange(MAX_ACKNOWLEDGED + 1) + 1, False
    while data.count(b"\n") < wanted and select.select([reading], [], [], 30)[0]:
        more = os.read(reading, 4096)
        if not more:
            break
        data += more
        if not refused:
            try:
                with SqliteStore(folder):
                    pass
            except StoreUnavailable as error:
                refused = error.code == "unavailable.store_owned"
    for _ in range(chance.randrange(MAX_SPIN)):
        pass
    os.kill(child, signal.SIGKILL)
    while more := os.read(reading, 65_536):
        data += more
    os.close(reading)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"the writer ended by itself, with {status}"
    lines = [line.split() for line in data.decode().split("\n")[:-1]]
    return [(int(sequence), chain_hash) for sequence, chain_hash in lines if chain_hash != "open"], refused


def main() -> None:
    folder, rounds, chance = Path(sys.argv[1]), int(sys.argv[2]), random.Random(int(sys.argv[3]))
    signing, acknowledged, refusals, before = Signing(sys.argv[4]), 0, 0, 0
    for number in range(rounds):
        found, refused = one_round(folder, signing, chance)
        refusals += refused
        acknowledged += len(found)
        with SqliteReader(folder) as reader:
            last, head = reader.event_count(), reader.head_record()
            if head is None:
                assert not found
                assert last == 0
                continue
            assert parse_note(head).checkpoint.size == last >= before, f"round {number}: the head is not at the end"
            stored = {event.sequence: event.chain_hash for event in reader.read(before + 1)}
            for sequence, chain_hash in found:
                assert stored.get(sequence) == chain_hash, f"round {number}: event {sequence} was acknowledged and lost"
            before = last
    print(json.dumps({"rounds": rounds, "acknowledged": acknowledged, "refused": refusals, "events": before}))


if __name__ == "__main__":
    main()
