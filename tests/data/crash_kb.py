"""Rounds of adding documents, each ended by SIGKILL: `crash_kb.py FOLDER ROUNDS SEED`, a JSON line back.

Each round is a fork that changes some files of a folder and adds it, step by step, with the real store and the real engine
of vectors; what a step acknowledged is written into a pipe. After the kill, each acknowledged document has to be found, no
vector and no chunk may be without the other once the same command has run again, and that has to finish the job.
"""

import json
import os
import random
import select
import signal
import sys
from pathlib import Path
from time import monotonic

import anyio

import symbi.adapters.sqlite.knowledge as rows
from symbi.adapters.qdrant_edge import EdgeVectors
from symbi.clock import SystemClock
from symbi.knowledge import writing
from symbi.knowledge.documents import EVERYTHING
from symbi.testing.knowledge import OpenKnowledge, open_knowledge
from symbi.types import AgentId, Principal

WHO = Principal(AgentId("symbi.operator"))
FILES = 48
MOST_S = 0.3  # about what adding takes: a kill comes anywhere within it


def write_files(folder: Path, number: int, chance: random.Random) -> dict[str, str]:
    """Change some files; the word of each that nothing else has, by source."""
    words = {}
    for place in range(FILES):
        path = folder / f"{place % 4}" / f"{place}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        if chance.random() < 0.3 or not path.exists():
            path.write_text(f"# Page {place}\n\nThe word is w{number}x{place}.\n\n## More\n\n" + "Filling text. " * 200)
        words[f"docs/{place % 4}/{place}.md"] = path.read_text().split("word is ")[1].split(".")[0]
    return words


async def add(opened: OpenKnowledge, folder: Path, tell) -> None:
    listing = await opened.knowledge.plan("kb", folder)
    after = None
    while True:
        step = await opened.knowledge.step(WHO, "kb", listing, after)
        tell(step)
        after = step.next
        if after is None:
            return


def opening(data: Path):
    def index(authority, space):
        return EdgeVectors(authority, data / "vectors", space)

    return open_knowledge(folder=data / "store", index=index, clock=SystemClock())


async def child(data: Path, folder: Path, pipe: int) -> None:
    async with opening(data) as opened, opened.knowledge.rooms.vectors:
        os.write(pipe, b"open\n")

        def tell(step) -> None:
            os.write(pipe, "".join(f"{source}\n" for source in (*step.added, *step.changed)).encode())

        await add(opened, folder, tell)
        os.write(pipe, b"done\n")


def one_round(data: Path, folder: Path, chance: random.Random) -> list[str]:
    """What a round acknowledged before it was killed."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        os.setpgid(0, 0)
        anyio.run(child, data, folder, writing)
        os._exit(0)
    os.close(writing)
    seen = os.read(reading, 5)  # it is open
    until = monotonic() + chance.random() * MOST_S
    while (left := until - monotonic()) > 0 and select.select([reading], [], [], left)[0]:
        more = os.read(reading, 4096)
        if not more or more.endswith(b"done\n"):
            break
        seen += more
    os.kill(pid, signal.SIGKILL)
    while more := os.read(reading, 65_536):
        seen += more
    os.close(reading)
    os.waitpid(pid, 0)
    return [line for line in seen.decode().split("\n") if line.startswith("docs/")]


async def judge(
    data: Path, folder: Path, acknowledged: list[str], words: dict[str, str], number: int
) -> dict[str, int]:
    """Look for what was acknowledged, and finish the job."""
    async with opening(data) as opened, opened.knowledge.rooms.vectors:
        store = opened.gate.store
        kept = {one.source: one for one in await opened.knowledge.documents("kb")}
        for source in acknowledged:
            assert source in kept, f"round {number}: `{source}` was acknowledged and lost"
            found = store.search_words([words[source]], list(store.accesses("kb")), EVERYTHING, 5)
            assert found, f"round {number}: `{source}` was acknowledged and is not found"
        before = await opened.knowledge.verify(WHO, "kb")
        assert before.missing == 0, f"round {number}: {before.missing} chunks have no vector"
        assert not before.damaged, f"round {number}: {before.damaged}"
        await add(opened, folder, lambda _step: None)
        after = await opened.knowledge.verify(WHO, "kb")
        assert after.clean, f"round {number}: {after}"
        assert after.documents == FILES, f"round {number}: {after.documents} documents"
        for table in ("knowledge_chunks", "knowledge_words"):
            (count,) = store._one(f"SELECT count(*) FROM {table}")
            assert count == after.chunks, f"round {number}: {count} rows in {table} for {after.chunks} chunks"
        for source, word in words.items():
            assert store.search_words([word], list(store.accesses("kb")), EVERYTHING, 5), f"round {number}: {source}"
        return {"orphans": before.orphans, "pending": before.pending}


def main() -> None:
    data, rounds, chance = Path(sys.argv[1]), int(sys.argv[2]), random.Random(int(sys.argv[3]))
    data.mkdir(parents=True, exist_ok=True)
    folder = data / "docs"
    told = {"acknowledged": 0, "orphans": 0, "pending": 0}
    for number in range(rounds):
        words = write_files(folder, number, chance)
        # In every other round a document of two chunks is a large one, which is put in part by part.
        rows.CHUNKS_AT_ONCE = writing.CHUNKS_AT_ONCE = 256 if number % 2 else 1
        acknowledged = one_round(data, folder, chance)
        told["acknowledged"] += len(acknowledged)
        for name, count in anyio.run(judge, data, folder, acknowledged, words, number).items():
            told[name] += count
    print(json.dumps({"rounds": rounds, **told}))


if __name__ == "__main__":
    main()
