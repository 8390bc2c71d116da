"""How good search is, on texts that nobody here wrote: Debian's manual pages and package descriptions.

    python tools/kb_quality.py WORK_FOLDER [--pages 2500] [--packages 700] [--queries 800] [--tune]

A question is what the NAME line of a page says of it, or the one-line description of a package; the answer is that page or
package. Those lines are left out of what is indexed, so that nothing is found by its own words repeated. Half of the
questions, by a digest of their document, may be looked at to set weights (`--tune` prints a grid on them); the figures are
of the other half, which nobody tunes on. Documents that say the same of themselves are all right answers.

`recall@5`: share of questions with a right answer among the first five documents. `MRR`: mean of 1/rank. `nDCG@10`: with one
gain for the first right answer. Last, questions without an answer say where the bar for evidence is to lie.
"""

import argparse
import gzip
import hashlib
import json
import math
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any

import anyio

from symbi.adapters.qdrant_edge import EdgeVectors
from symbi.adapters.reading import DocumentProcess
from symbi.clock import SystemClock
from symbi.inference.static import StaticEmbedder
from symbi.knowledge.knowledge import Knowledge
from symbi.knowledge.passages import SearchResult
from symbi.knowledge.query import Query, analyse
from symbi.knowledge.rag import CANDIDATES, KnowledgeRooms, Wanted
from symbi.knowledge.ranking import Candidate, Weights, coverage, fuse, rank
from symbi.knowledge.readings import Reader
from symbi.knowledge.rules import Rules
from symbi.knowledge.vectors import VectorSpace
from symbi.testing.gate import open_gate
from symbi.types import AgentId, Principal

WHO = Principal(AgentId("quality"))
NAME = re.compile(r"^NAME\n((?:[ \t]+.*\n|\n)+)", re.MULTILINE)
FOREIGN = ("gcloud_",)  # pages of others than Debian, thousands of which differ in a word
SECTIONS = ("1", "5", "7", "8")
PLAIN = Weights(coverage=0.0, heading=0.0, diversity=0.0, per_document=1)


@dataclass(frozen=True)
class Question:
    """What is asked, and the documents that answer it."""

    text: str
    right: frozenset[str]
    tuning: bool


# --- the corpus ---------------------------------------------------------------------------------


def digest(text: str) -> int:
    """A number that says in which order texts are taken, the same on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


def manual_pages(count: int) -> Iterable[tuple[str, str, str]]:
    """Name, what its NAME line says, and text without it, of some pages."""
    paths = [path for section in SECTIONS for path in sorted(Path("/usr/share/man", f"man{section}").glob("*.gz"))]
    paths = [path for path in paths if not path.name.startswith(FOREIGN)]
    taken, seen = 0, set()
    for path in sorted(paths, key=lambda one: digest(one.name)):
        if taken >= count:
            return
        with gzip.open(path) as file:
            if file.read(4) == b".so ":
                continue  # another name of a page
        done = subprocess.run(  # noqa: S603 - of this machine
            ["/usr/bin/man", "-P", "cat", str(path)], capture_output=True, env={"MANWIDTH": "78", "LC_ALL": "C.UTF-8"},
            timeout=60, check=False,
        )  # fmt: skip
        text = re.sub(r".\x08", "", done.stdout.decode("utf-8", "replace"))
        found = NAME.search(text)
        said = " ".join(re.sub("\u2010\n\\s*", "", found[1]).split()) if found else ""
        _, dash, about = said.partition(" - ") if " - " in said else said.partition(" \u2013 ")
        if not dash or len(about.split()) < 3 or about.lower() in seen:
            continue
        seen.add(about.lower())
        taken += 1
        assert found is not None
        yield (
            f"man/{path.name.removesuffix('.gz')}.txt",
            about,
            without(text[: found.start()] + text[found.end() :], about),
        )


def packages(count: int) -> Iterable[tuple[str, str, str]]:
    """Likewise of installed packages: their long descriptions."""
    stanzas = Path("/var/lib/dpkg/status").read_text("utf-8").split("\n\n")
    named = []
    for stanza in stanzas:
        package = re.search(r"^Package: (\S+)", stanza, re.MULTILINE)
        described = re.search(r"^Description: (.*)\n((?: .*\n?)+)", stanza, re.MULTILINE)
        if package and described:
            named.append((package[1], described[1].strip(), described[2]))
    for name, about, long in sorted(named, key=lambda one: digest(one[0]))[:count]:
        text = "\n".join("" if line.strip() == "." else line.strip() for line in long.split("\n"))
        if len(text.split()) >= 15 and len(about.split()) >= 3:
            yield f"packages/{name}.txt", about, without(f"{name}\n\n{text}", about)


def without(text: str, about: str) -> str:
    """A text without the lines that repeat a description."""
    return "\n".join(line for line in text.split("\n") if about.lower() not in line.lower())


def make_corpus(folder: Path, pages: int, some: int) -> None:
    """Write documents and questions, unless they are there."""
    if (folder / "questions.json").exists():
        return
    asked = []
    for source, about, text in (*manual_pages(pages), *packages(some)):
        path = folder / "corpus" / source
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        asked.append([f"corpus/{source}", about])
    (folder / "questions.json").write_text(json.dumps(asked), "utf-8")


def questions(folder: Path) -> list[Question]:
    """All of them, in the order of their digests."""
    right = defaultdict(set)
    for source, about in json.loads((folder / "questions.json").read_text("utf-8")):
        right[" ".join(about.lower().split())].add(source)
    made = [Question(about, frozenset(sources), digest("half" + about) % 2 == 0) for about, sources in right.items()]
    return sorted(made, key=lambda one: digest(one.text))


# --- searching ----------------------------------------------------------------------------------


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Knowledge]:
    """Knowledge as the runtime has it: the real store, engine, model and readers."""
    async with open_gate(folder=folder / "data", clock=SystemClock()) as gate:
        authority = gate.guard.authority
        embedder = StaticEmbedder(authority)
        space = VectorSpace(embedder.model.name, embedder.model.digest, embedder.model.dimension)
        async with EdgeVectors(authority, folder / "vectors", space) as index, DocumentProcess() as reading:
            rooms = KnowledgeRooms(gate.guard, gate.log, gate.store, index, embedder, gate.clock, None, Rules())
            async with Knowledge(rooms, reading.read) as knowledge:
                yield knowledge


async def ingest(knowledge: Knowledge, folder: Path) -> None:
    """Read the corpus, or what is left of it."""
    listing = await knowledge.plan("debian", folder / "corpus")
    begun, after, count = perf_counter(), None, 0
    while True:
        step = await knowledge.step(WHO, "debian", listing, after)
        count += len(step.added)
        for skip in step.skips:
            print(f"  skipped {skip.source}: {skip.reason}", file=sys.stderr)
        after = step.next
        if after is None:
            break
    took = perf_counter() - begun
    print(f"{len(listing.files)} documents, {count} new ones in {took:.1f} s ({count / took:.0f} a second)")


@dataclass(frozen=True)
class Lists:
    """What retrieval found for a question, to be fused and ranked in any way."""

    question: Question
    keywords: tuple[str, ...]
    words: dict[str, float]
    near: dict[str, float]
    candidates: dict[str, Candidate]
    sources: dict[str, str]


async def lists_of(knowledge: Knowledge, question: Question) -> Lists:
    """The two lists of a question, and the texts of all that is in them."""
    retrieval, rooms, reader = knowledge._retrieval, knowledge.rooms, Reader(WHO)  # noqa: SLF001 - to look between two stages
    query = analyse(question.text)
    async with retrieval._allowed(reader, question.text, Wanted(), {}) as allowed:  # noqa: SLF001 - likewise
        words = await rooms.log.read(
            partial(rooms.store.search_words, query.words, allowed.numbers, query.narrowing, 80)
        )
        permit = next(iter(allowed.readings.values())).permit
        (vector,) = await rooms.embedder.embed(permit, [query.text], "query")
        near = await retrieval._near(query, allowed, vector)  # noqa: SLF001 - likewise
        everything = dict.fromkeys([*(one for one, _ in words), *near], 0.0)
        candidates, found = await _fetched(retrieval, query, allowed, everything, near)
    sources = {id_: row.document.source for id_, (row, _) in found.items()}
    return Lists(question, query.keywords, dict(words), dict(near), candidates, sources)


async def _fetched(
    retrieval: Any, query: Query, allowed: Any, everything: Mapping[str, float], near: Mapping[str, float]
) -> tuple[dict[str, Candidate], dict[str, Any]]:
    candidates: dict[str, Candidate] = {}
    found: dict[str, Any] = {}
    ids = list(everything)
    for first in range(0, len(ids), CANDIDATES):
        some = dict.fromkeys(ids[first : first + CANDIDATES], 0.0)
        part, rows = await retrieval._fetch(query, allowed, some, near, {})  # noqa: SLF001 - likewise
        candidates |= {one.id: one for one in part}
        found |= rows
    return candidates, found


def reciprocal(lists: Lists, k: float = 60.0) -> list[str]:
    """Sources as fusion by reciprocal ranks puts them, which is what others do."""
    scores: dict[str, float] = defaultdict(float)
    for found in (lists.words, lists.near):
        for place, one in enumerate(found):
            scores[one] += 1 / (k + place + 1)
    return list(
        dict.fromkeys(
            lists.sources[one] for one in sorted(scores, key=lambda one: (-scores[one], one)) if one in lists.sources
        )
    )


def ranked(lists: Lists, weights: Weights) -> list[str]:
    """Sources in order, as fusion and ranking put them."""
    fused = fuse([(lists.words, weights.keyword), (lists.near, weights.vector)])
    chosen = [
        replace(lists.candidates[one], fused=score)
        for one, score in list(fused.items())[:CANDIDATES]
        if one in lists.candidates
    ]
    order = rank(lists.keywords, chosen, weights, 0, 10)
    return list(dict.fromkeys(lists.sources[one.candidate.id] for one in order))


# --- figures ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Figures:
    """Of one way to search."""

    recall5: float
    mrr: float
    ndcg10: float

    def text(self) -> str:
        """As a row."""
        return f"{self.recall5:.3f} | {self.mrr:.3f} | {self.ndcg10:.3f}"


def figures(orders: Sequence[tuple[Question, Sequence[str]]]) -> Figures:
    """Of questions and what was found for them."""
    ranks = [
        next((place for place, source in enumerate(order, 1) if source in question.right), None)
        for question, order in orders
    ]
    count = len(ranks)
    return Figures(
        sum(one is not None and one <= 5 for one in ranks) / count,
        sum(1 / one for one in ranks if one) / count,
        sum(1 / math.log2(one + 1) for one in ranks if one and one <= 10) / count,
    )


STRANGE = [
    "how do I braise a leg of lamb with rosemary", "who won the football championship in 1966", "symptoms of measles in infants",
    "visa rules for travel to Iceland", "when do tulips bloom in the north", "the plot of a novel about a whale",
    "tax deductions for a home office", "how to teach a puppy not to bite", "best shoes for running on gravel",
    "history of the silk trade", "how tall is the tallest waterfall", "lyrics of the national anthem of Peru",
    "what to eat before a marathon", "how to prune apple trees", "why do cats purr", "capital of Mongolia",
    "how are diamonds cut", "meaning of the tarot card of the tower", "repair a cracked violin", "recipe for sourdough bread",
    "how to fold a fitted sheet", "who painted the ceiling of the chapel", "rules of cricket for beginners",
    "how long to boil an egg", "treatment of a sprained ankle", "when was the treaty of Westphalia signed",
    "how to knit a scarf", "the orbit of Jupiter's moons", "average rainfall in the Amazon", "how to plant potatoes",
]  # fmt: skip
"""Questions that nothing of Debian's answers."""

WAYS = {
    "BM25": replace(PLAIN, vector=0.0),
    "dense": replace(PLAIN, keyword=0.0),
    "fused": PLAIN,
    "fused, with ranking": Weights(per_document=1),
}


def tune(lists: Sequence[Lists]) -> None:
    """Print how weights do on the half of the questions that may be looked at."""
    held = [
        {
            id_: (coverage(one.keywords, f"{c.headings} {c.text}"), coverage(one.keywords, c.headings))
            for id_, c in one.candidates.items()
        }
        for one in lists
    ]
    rows = []
    for keyword, cover, heading in product((0.7, 1.0, 1.5, 2.0, 3.0), (0.0, 0.2, 0.5, 0.8, 1.0), (0.0, 0.1, 0.3, 0.5)):
        orders = []
        for one, shares in zip(lists, held, strict=True):
            fused = list(fuse([(one.words, keyword), (one.near, 1.0)]).items())[:CANDIDATES]
            scores = {id_: s + cover * shares[id_][0] + heading * shares[id_][1] for id_, s in fused if id_ in shares}
            order = sorted(scores, key=lambda id_: (-scores[id_], id_))
            orders.append((one.question, list(dict.fromkeys(one.sources[id_] for id_ in order))))
        rows.append((figures(orders), keyword, cover, heading))
    rows.sort(key=lambda row: -row[0].ndcg10)
    for row in [*rows[:12], *[row for row in rows if row[2] == row[3] == 0]]:
        print(f"  {row[0].text()}  keyword={row[1]} coverage={row[2]} heading={row[3]}")


async def no_answers(knowledge: Knowledge, asked: Sequence[Question], strange: Sequence[str]) -> None:
    """Print what evidence questions with an answer have, and questions without one."""

    async def evidence(text: str) -> float:
        result: SearchResult = await knowledge.search(Reader(WHO), text)
        return result.evidence

    with_answer = sorted([await evidence(one.text) for one in asked])
    without_one = sorted([await evidence(one) for one in strange])
    print(
        f"evidence with an answer: p5 {with_answer[len(with_answer) // 20]:.3f}, median {with_answer[len(with_answer) // 2]:.3f}"
    )
    print(
        f"evidence of {len(strange)} questions that nothing here answers: median {without_one[len(without_one) // 2]:.3f}, most {without_one[-1]:.3f}"
    )
    for bar in (0.3, 0.35, 0.4, 0.42, 0.45, 0.5, 0.55, 0.6):
        lost = sum(one < bar for one in with_answer) / len(with_answer)
        made_up = sum(one >= bar for one in without_one) / len(without_one)
        print(f"  bar {bar}: {lost:.1%} of answers lost, {made_up:.1%} of strange questions answered")


async def main() -> None:
    """Everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pages", type=int, default=2500)
    parser.add_argument("--packages", type=int, default=700)
    parser.add_argument("--queries", type=int, default=800)
    parser.add_argument("--tune", action="store_true")
    given = parser.parse_args()
    await anyio.to_thread.run_sync(make_corpus, given.folder, given.pages, given.packages)
    asked = questions(given.folder)
    async with opened(given.folder) as knowledge:
        await ingest(knowledge, given.folder)
        halves = [[one for one in asked if one.tuning is half][: given.queries // 2] for half in (True, False)]
        if given.tune:
            tune([await lists_of(knowledge, one) for one in halves[0]])
            return
        lists = [await lists_of(knowledge, one) for one in halves[1]]
        print(
            f"{len(lists)} questions that nothing was tuned on\n\n| way | recall@5 | MRR | nDCG@10 |\n|---|---|---|---|"
        )
        for name, weights in WAYS.items():
            print(f"| {name} | {figures([(one.question, ranked(one, weights)) for one in lists]).text()} |")
        print(f"| fused by reciprocal ranks | {figures([(one.question, reciprocal(one)) for one in lists]).text()} |")
        times = []
        orders = []
        for one in halves[1]:
            begun = perf_counter()
            result = await knowledge.search(Reader(WHO), one.text, Wanted(k=10, weights=Weights(per_document=1)))
            times.append(perf_counter() - begun)
            orders.append((one, [passage.citation.source for passage in result.passages]))
        times.sort()
        print(f"| the pipeline, end to end | {figures(orders).text()} |\n")
        print(
            f"a search: p50 {times[len(times) // 2] * 1000:.1f} ms, p99 {times[len(times) * 99 // 100] * 1000:.1f} ms"
        )
        for name, half, strange in (("set", halves[0], STRANGE[::2]), ("told", halves[1], STRANGE[1::2])):
            print(f"where the bar is {name}:")
            await no_answers(knowledge, half, strange)


if __name__ == "__main__":
    anyio.run(main)
