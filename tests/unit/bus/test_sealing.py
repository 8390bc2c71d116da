"""Keys of flows: each thing that tells two flows apart gives another key, and no two inputs run together."""

from itertools import combinations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from symbi.bus.sealing import nonce_of, pair_key, topic_key
from symbi.crypto.provider import open_provider
from symbi.errors import InputError

PROVIDER = open_provider()
ONE, OTHER = bytes(range(32)), bytes(range(1, 33))
NAMES = st.text(st.sampled_from("ab\x01/"), min_size=1, max_size=4)
PAIRS = st.tuples(st.tuples(NAMES, NAMES), st.integers(1, 3), st.sampled_from([(ONE, OTHER), (OTHER, ONE)]))
TOPICS = st.tuples(NAMES, NAMES, st.integers(1, 3))


def of_pair(names, epoch, publics, shared=ONE):
    return pair_key(PROVIDER, shared, publics, names, epoch)


@given(PAIRS, PAIRS)
def test_no_two_flows_between_agents_have_one_key(first, second):
    assume(first != second)
    assert of_pair(*first) != of_pair(*second)


@given(TOPICS, TOPICS)
def test_no_two_flows_to_topics_have_one_key(first, second):
    assume(first != second)
    assert topic_key(PROVIDER, ONE, *first) != topic_key(PROVIDER, ONE, *second)


def test_names_that_are_the_same_bytes_together_are_two():
    """`ab` to `c` is not `a` to `bc`, nor an agent a topic, though every secret were the same."""
    keys = [of_pair(names, 1, (ONE, OTHER)) for names in (("ab", "c"), ("a", "bc"), ("bc", "a"), ("c", "ab"))]
    keys += [topic_key(PROVIDER, ONE, *names, 1) for names in (("ab", "c"), ("a", "bc"), ("bc", "a"), ("c", "ab"))]
    assert all(one != other for one, other in combinations(keys, 2))


def test_another_secret_is_another_key():
    assert of_pair(("a", "b"), 1, (ONE, OTHER)) != of_pair(("a", "b"), 1, (ONE, OTHER), OTHER)
    assert topic_key(PROVIDER, ONE, "t", "a", 1) != topic_key(PROVIDER, OTHER, "t", "a", 1)


@pytest.mark.parametrize("wrong", [b"", bytes(31), bytes(33)], ids=len)
def test_a_key_of_another_length_is_refused(wrong):
    for shared, publics in ((wrong, (ONE, OTHER)), (ONE, (wrong, OTHER)), (ONE, (ONE, wrong))):
        with pytest.raises(InputError):
            of_pair(("a", "b"), 1, publics, shared)
    with pytest.raises(InputError):
        topic_key(PROVIDER, wrong, "t", "a", 1)


@given(st.integers(1, 2**48 - 1), st.integers(1, 2**48 - 1))
def test_a_nonce_is_of_one_sequence(first, second):
    assert len(nonce_of(first)) == 12
    assert (nonce_of(first) == nonce_of(second)) == (first == second)
