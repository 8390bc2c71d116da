"""Words are weighed by the chunks that may be read, as the formula says, and split as the index of words splits them."""

import math
import re
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbi.adapters.sqlite import SqliteStore
from symbi.adapters.sqlite.file import SQL
from symbi.adapters.sqlite.knowledge import MEAN_LENGTH
from symbi.adapters.sqlite.words import K1, TERMS, TOKENIZER, B, Places, Stemmer
from symbi.knowledge.documents import EVERYTHING, Access, ChunkRecord, DocumentRecord, Narrowing

OPEN, SHUT = Access("c", owner="ada"), Access("c", owner="eve")
TEXTS = {
    "a1": (OPEN, "Disks", "a full disk, and another disk"),
    "a2": (OPEN, "", "the log file of the disk"),
    "a3": (OPEN, "", "file of the log " * 40),
    "b1": (SHUT, "Disk", "disk disk disk disk file"),
    "b2": (SHUT, "", "log_file tape tape"),
}


@dataclass
class Kept:
    store: SqliteStore
    numbers: dict[Access, int]

    def put(self, name, access, headings, text):
        document = DocumentRecord(name, f"{name}.md", "text", "v", access, 1.0, 0, 0, len(text), 1)
        chunk = ChunkRecord(f"chunk-{name}", name, 0, 0, len(text), (headings, text))
        with self.store.transaction():
            self.numbers[access] = self.store.access_number(access)
            self.store.put_documents([(document, (chunk,))])

    def search(self, *words, accesses=(OPEN,), narrowing=EVERYTHING, limit=10):
        numbers = [self.numbers[one] for one in accesses]
        return self.store.search_words(words, numbers, narrowing, limit)


@pytest.fixture
def kept():
    with SqliteStore(None) as store:
        made = Kept(store, {})
        for name, (access, headings, text) in TEXTS.items():
            made.put(name, access, headings, text)
        yield made


def bm25(phrases, accesses=(OPEN,), texts=TEXTS):
    """The formula, over texts that are split at what is no letter; a phrase is its stems as they stand in a row."""
    texts = {name: one for name, one in texts.items() if one[0] in accesses}
    stems = {"disks": "disk"}
    rows = {}
    for name, (_, headings, text) in texts.items():
        split = [
            " " + " ".join(stems.get(w, w) for w in part.lower().replace(",", "").replace("_", " ").split()) + " "
            for part in (headings, text)
        ]
        rows[name] = (split, len(text))
    scores = Counter()
    for phrase in phrases:
        sought = re.compile(f"(?= {phrase} )")  # one may begin where another ends
        often = {name: 2 * len(sought.findall(one[0])) + len(sought.findall(one[1])) for name, (one, _) in rows.items()}
        held = sum(map(bool, often.values()))
        rare = math.log(1 + (len(rows) - held + 0.5) / (held + 0.5))
        for name, count in often.items():
            if count:
                norm = K1 * (1 - B + B * rows[name][1] / MEAN_LENGTH)
                scores[f"chunk-{name}"] += rare * count * (K1 + 1) / (count + norm)
    return dict(scores)


@pytest.mark.parametrize("accesses", [(OPEN,), (SHUT,), (OPEN, SHUT)])
def test_scores_are_those_of_the_formula_over_what_may_be_read(kept, accesses):
    found = kept.search("disks", "log_file", "file", accesses=accesses)
    assert dict(found) == pytest.approx(bm25(["disk", "log file", "file"], accesses))
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)


def test_what_is_withheld_comes_goes_and_changes_nothing(kept):
    before = kept.search("disk", "file", "log")
    for number in range(50):
        kept.put(f"x{number}", SHUT, "disk", "disk file " * number)
    assert kept.search("disk", "file", "log") == before
    with kept.store.transaction():
        kept.store.remove_documents([f"x{number}" for number in range(50)] + ["b1", "b2"], scrub=True)
    assert kept.search("disk", "file", "log") == before


def test_what_is_not_asked_about_changes_no_score_and_takes_no_place(kept):
    everything = dict(kept.search("disk", "file"))
    assert kept.search("disk", "file", narrowing=Narrowing(sources=("a2*",)), limit=1) == [
        ("chunk-a2", everything["chunk-a2"])
    ]


def test_of_equal_ones_the_first_ids_are_taken(kept):
    for name in ("m", "k", "l"):
        kept.put(name, OPEN, "", "tape")
    assert [one for one, _ in kept.search("tape", limit=2)] == ["chunk-k", "chunk-l"]


@pytest.mark.parametrize("words", [(), ("…",), ("nowhere",), ("-",)])
def test_what_stands_nowhere_is_not_found(kept, words):
    assert kept.search(*words) == []
    assert kept.store.search_words(("disk",), [99], EVERYTHING, 5) == []
    assert kept.store.search_words(("disk",), [], EVERYTHING, 5) == []


def test_words_are_split_as_the_index_splits_them(kept):
    stemmer = Stemmer()
    assert list(stemmer.phrases(["Running", "log_file", "…", "read-only", "run", 'x" OR "y'])) == [
        ("run",), ("log", "file"), ("read", "onli"), ("x", "or", "y"),
    ]  # fmt: skip
    assert stemmer.phrases(["Tapes"]) == {("tape",): "Tapes"}  # nothing of the last question is left
    stemmer.close()
    (schema,) = kept.store._one("SELECT sql FROM sqlite_master WHERE name = 'knowledge_words'")
    assert f"tokenize = '{TOKENIZER}'" in schema


def test_how_many_chunks_may_be_read_is_told_by_an_index_alone(kept):
    plan = kept.store._all(f"EXPLAIN QUERY PLAN {SQL['readable_size']}", ("[1]",))
    assert any("COVERING INDEX knowledge_sizes" in row[-1] for row in plan), plan


PLAIN = st.lists(st.sampled_from(["disk", "tape", "log"]), max_size=8).map(" ".join)


@given(
    texts=st.lists(st.tuples(st.sampled_from([OPEN, SHUT]), PLAIN, PLAIN), max_size=8),
    words=st.lists(
        st.lists(st.sampled_from(["disk", "tape", "log"]), min_size=1, max_size=3).map("_".join), min_size=1, max_size=4
    ),
)
def test_any_words_over_any_chunks_score_as_the_formula_says(texts, words):
    named = {f"d{number}": one for number, one in enumerate(texts)}
    with SqliteStore(None) as store:
        kept = Kept(store, {OPEN: 98})
        for name, one in named.items():
            kept.put(name, *one)
        phrases = dict.fromkeys(word.replace("_", " ") for word in words)
        assert dict(kept.search(*words)) == pytest.approx(bm25(phrases, texts=named))


@pytest.mark.parametrize("bound", [0, 1, 7, 50])
def test_of_words_that_stand_in_too_many_places_it_counts_which_chunks_have_them(kept, monkeypatch, bound):
    made = []

    def places():
        made.append(Places(bound))
        return made[0]

    everywhere = {one for one, _ in kept.search("Disks", "log_file", "of_the_log", limit=99)}
    monkeypatch.setattr("symbi.adapters.sqlite.knowledge.Places", places)
    found = dict(kept.search("Disks", "log_file", "of_the_log", limit=99))
    assert set(found) == everywhere
    assert all(score > 0 for score in found.values())
    assert sum(len(some) for some in made[0].read.values() if some is not None) <= bound
    assert any(some is None for some in made[0].read.values())


def test_words_have_no_more_terms_together_than_are_looked_for():
    stemmer = Stemmer()
    whole, too_long = "_".join(["x"] * (TERMS - 2)), "_".join(["x"] * 3)
    assert list(stemmer.phrases([whole, too_long, "tape", "disk"])) == [("x",) * (TERMS - 2), ("tape",), ("disk",)]
    assert not stemmer.phrases(["_".join(["x"] * (TERMS + 1))])
    stemmer.close()
