"""What a question asks for, and which of what was found comes first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbi.errors import InputError
from symbi.knowledge.documents import Narrowing
from symbi.knowledge.query import MAX_QUERY_CHARS, analyse
from symbi.knowledge.ranking import Candidate, Weights, coverage, fuse, rank

ONLY_FUSED = Weights(coverage=0, heading=0, diversity=0, per_document=None)
DAY_NS = 86_400 * 10**9


def candidate(name, fused=0.5, **others):
    facts = {"document": name, "text": f"text of {name}", "headings": ""} | others
    return Candidate(name, fused=fused, **facts)


def order(candidates, weights, keywords=("word",), now_ns=0, k=10):
    return [one.candidate.id for one in rank(keywords, candidates, weights, now_ns, k)]


def test_filters_are_taken_out_and_stop_words_dropped():
    query = analyse('how do I rotate the log_file source:runbook/* kind:markdown after:2026-01-31 "readTimeout"')
    assert query.keywords == ("rotate", "log_file", "readtimeout")
    assert query.words == ("rotate", "log_file", "readtimeout", "log", "file", "read", "timeout")
    assert dict(query.rewrites) == {"log_file": ("log", "file"), "readTimeout": ("read", "timeout")}
    assert query.narrowing == Narrowing(("runbook/*",), ("markdown",), 1_769_817_600 * 10**9)
    assert "source:" not in query.text


@pytest.mark.parametrize("word", ["na\u00efve", "nai\u0308ve"])
def test_words_are_whole_and_found_however_their_accents_are_written(word):
    query = analyse(f"{word} cafe")
    assert query.keywords == ("na\u00efve", "cafe")
    assert coverage(query.keywords, "a nai\u0308ve Cafe\u0301") == 1.0
    assert coverage(query.keywords, "a na\u00efve caf\u00e9") == 1.0


def test_a_question_of_stop_words_alone_keeps_them():
    assert analyse("who is it").keywords == ("who", "is", "it")


@pytest.mark.parametrize("bad", ["", "   ", "source:x", "x after:tomorrow", "x" * (MAX_QUERY_CHARS + 1), 'x source:""'])
def test_what_is_no_question_is_refused(bad):
    with pytest.raises(InputError):
        analyse(bad)


@given(st.text(max_size=300))
def test_any_text_is_a_question_or_an_input_error(text):
    try:
        query = analyse(text)
    except InputError:
        return
    assert query.text.strip()


def test_fusion_takes_what_both_lists_have_before_what_one_has():
    fused = fuse([({"a": 9.0, "b": 8.0, "c": 1.0}, 1.0), ({"x": 0.9, "b": 0.8, "y": 0.1}, 1.0)])
    assert next(iter(fused)) == "b"
    assert fuse([({"a": 3.0}, 1.0), ({"a": 0.2}, 1.0)])["a"] == pytest.approx(1.0)
    assert list(fuse([({"a": 1.0}, 0.0), ({"b": 1.0}, 1.0)])) == ["b", "a"]
    assert fuse([({}, 1.0), ({}, 1.0)]) == {}


def test_fusion_minds_no_measure():
    few, many = {"a": 0.3, "b": 0.2, "c": 0.1}, {"a": 300.0, "b": 200.0, "c": 100.0}
    other = {"c": 5.0, "d": 1.0}
    assert fuse([(few, 1.0), (other, 1.0)]) == pytest.approx(fuse([(many, 1.0), (other, 1.0)]))


SCORES = st.dictionaries(st.sampled_from("abcdefgh"), st.floats(-1, 100, width=16), max_size=8)


@given(st.lists(SCORES, max_size=3))
def test_fusion_is_of_all_that_is_in_a_list_and_falls(lists):
    fused = fuse([(one, 1.0) for one in lists])
    assert set(fused) == {name for one in lists for name in one}
    assert list(fused.values()) == sorted(fused.values(), reverse=True)
    assert all(0 <= score <= 1 + 1e-9 for score in fused.values())


def test_coverage_counts_stems_and_longer_words_more():
    assert coverage(["disks", "trimming"], "trim the disk") > 0.4
    assert coverage(["a1", "documentation"], "documentation") > coverage(["a1", "documentation"], "a1")
    assert coverage([], "x") == 0


def test_ranking_minds_importance_age_headings_and_repetition():
    plain = [candidate("a"), candidate("b")]
    assert order(plain, ONLY_FUSED) == ["a", "b"]
    assert order([candidate("a"), candidate("b", importance=2.0)], ONLY_FUSED) == ["b", "a"]
    new = [candidate("a", modified_ns=0), candidate("b", modified_ns=300 * DAY_NS)]
    aged = Weights(coverage=0, heading=0, diversity=0, recency=0.5, half_life_days=30)
    assert order(new, aged, now_ns=301 * DAY_NS) == ["b", "a"]
    assert order([candidate("a"), candidate("b", headings="word")], Weights(diversity=0)) == ["b", "a"]
    same = [candidate("a", 0.9, text="one two three four"), candidate("b", 0.8, text="one two three four"),
            candidate("c", 0.7, text="five six seven eight")]  # fmt: skip
    assert order(same, ONLY_FUSED) == ["a", "b", "c"]
    assert order(same, Weights(coverage=0, heading=0, diversity=0.5)) == ["a", "c", "b"]


def test_of_one_document_only_so_many_are_taken():
    many = [candidate(f"{n}", 1 - n / 10, document="d") for n in range(5)] + [candidate("e", 0.1)]
    assert order(many, Weights(coverage=0, heading=0, diversity=0, per_document=2)) == ["0", "1", "e"]
