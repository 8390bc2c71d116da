"""The index of patterns: it finds whom a plain comparison finds, and looks at what fits alone."""

import re
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symbi.bus.topics import Known, Topics, covers, known_as, overlap
from symbi.dsl.messages import is_topic, parse_pattern
from symbi.errors import InputError
from symbi.guard.action import TopicRef
from symbi.types import AgentId, Confidentiality

WORDS = st.sampled_from(["a", "b", "c"])
TOPICS = st.lists(WORDS, min_size=1, max_size=4).map(".".join)
PARTS = st.lists(st.sampled_from(["a", "b", "c", "*"]), max_size=3)
PATTERNS = st.tuples(PARTS, st.sampled_from(["a", "b", "*", ">"])).map(lambda pair: ".".join([*pair[0], pair[1]]))
AGENTS = st.sampled_from([AgentId("x"), AgentId("y"), AgentId("z")])


def fits(pattern, topic):
    """The reference: a pattern as a regular expression."""
    parts = [{"*": r"[^.]+", ">": r"[^.]+(?:\.[^.]+)*"}.get(part, part) for part in pattern.split(".")]
    return re.fullmatch(r"\.".join(parts), topic) is not None


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.booleans(), PATTERNS, AGENTS), max_size=20), st.lists(TOPICS, min_size=1, max_size=5))
def test_whoever_listens_is_found_once_and_nobody_else(changes, topics):
    index, there = Topics(), set()
    for add, pattern, agent in changes:
        (index.add if add else index.remove)(pattern, agent)
        (there.add if add else there.discard)((pattern, agent))
    for topic in topics:
        wanted = sorted({agent for pattern, agent in there if fits(pattern, topic)})
        assert sorted(index.listeners(topic)) == wanted
    for pattern, agent in there:
        index.remove(pattern, agent)
    assert not index._root.words, "what nobody listens by is kept"


@settings(max_examples=300, deadline=None)
@given(PATTERNS, PATTERNS)
def test_what_two_patterns_have_in_common_and_which_holds_all_of_the_other(one, other):
    """Against all topics of up to five words, and one word that no pattern names."""
    topics = [".".join(words) for size in range(1, 6) for words in product("abcz", repeat=size)]
    ours, theirs = ({topic for topic in topics if fits(pattern, topic)} for pattern in (one, other))
    assert overlap(one.split("."), other.split(".")) is bool(ours & theirs)
    assert covers(one.split("."), other.split(".")) is (theirs <= ours)


SAID = [
    Known("incidents.>", "ops", Confidentiality.INTERNAL),
    Known("incidents.eu.*", "ops", Confidentiality.CONFIDENTIAL),
    Known("pay.>", "bank", Confidentiality.SECRET),
]


@pytest.mark.parametrize(
    ("name", "owner", "classification"),
    [
        ("news", "unknown", "public"),
        ("incidents.us.fire", "ops", "internal"),
        ("incidents.eu.fire", "ops", "confidential"),
        ("incidents.us.*", "ops", "internal"),
        ("incidents.*.fire", "ops", "confidential"),
        ("news.*", "unknown", "public"),
        ("*.eu.*", "(several)", "secret"),
        ("*.us", "(several)", "secret"),
        (">", "(several)", "secret"),
    ],
)
def test_who_listens_by_a_pattern_is_judged_by_all_that_may_be_heard(name, owner, classification):
    assert known_as(name, SAID) == TopicRef(name, owner, classification)


def test_a_publication_does_not_look_at_all_agents():
    index, visited = Topics(), []
    for number in range(10_000):
        index.add(f"orders.{number}.*", AgentId(f"a{number}"))
        if number in {9, 9_999}:
            assert index.listeners("orders.7.paid") == ("a7",)
            visited.append(index.visited)
    assert visited[0] == visited[1]


@pytest.mark.parametrize("name", ["a", "incidents.open", "a-b.C_1"])
def test_a_topic_is_words_with_dots(name):
    assert is_topic(name)
    assert parse_pattern(name) == name


@pytest.mark.parametrize("name", ["", ".", "a.", ".a", "a..b", "a b", "ä", "a.*", ">", "a\n", "a" * 201])
def test_nothing_else_is_a_topic(name):
    assert not is_topic(name)


@pytest.mark.parametrize("pattern", ["*", ">", "a.*.b", "a.>", "*.*", "*.>"])
def test_a_pattern_has_stars_for_words_and_one_rest_at_its_end(pattern):
    assert parse_pattern(pattern) == pattern


@pytest.mark.parametrize("pattern", ["", "a.>.b", ">.a", "a*", "a.b>", "**", "a.", "a\n", "x" * 201])
def test_nothing_else_is_a_pattern(pattern):
    with pytest.raises(InputError, match="is not a pattern of topics"):
        parse_pattern(pattern)
