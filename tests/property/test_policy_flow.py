"""`join` makes labels a bounded semilattice."""

from hypothesis import given
from hypothesis import strategies as st

from symbi.policy.flow import (
    CONFIDENTIALITY_RANK,
    INTEGRITY_RANK,
    MAX_SOURCES,
    MAX_SUBJECTS,
    MORE_SOURCES,
    MORE_SUBJECTS,
    join,
)
from symbi.types import Confidentiality, Integrity, Label

# Runs of neighbouring sources, some longer than a label keeps, so that joining has to leave some out.
SOURCES = st.builds(
    lambda start, length: tuple(f"e{number:03}" for number in range(start, start + length)),
    st.integers(0, MAX_SOURCES),
    st.integers(0, MAX_SOURCES + 10),
)
SUBJECTS = st.builds(  # likewise; and sometimes a crowd
    lambda start, length: (
        (MORE_SUBJECTS,) if length > MAX_SUBJECTS else tuple(f"s{n:03}" for n in range(start, start + length))
    ),
    st.integers(0, MAX_SUBJECTS),
    st.integers(0, MAX_SUBJECTS + 4),
)
LABELS = st.builds(
    lambda integrity, confidentiality, sources, subjects: join(
        Label(integrity, confidentiality, sources, (), subjects)
    ),
    st.sampled_from(Integrity),
    st.sampled_from(Confidentiality),
    SOURCES,
    SUBJECTS,
)


def _covers(upper, lower):
    return (
        INTEGRITY_RANK[upper.integrity] >= INTEGRITY_RANK[lower.integrity]
        and CONFIDENTIALITY_RANK[upper.confidentiality] >= CONFIDENTIALITY_RANK[lower.confidentiality]
        and (MORE_SOURCES in upper.sources or set(upper.sources) >= set(lower.sources))
        and (upper.subjects == (MORE_SUBJECTS,) or set(upper.subjects) >= set(lower.subjects))
    )


@given(LABELS, LABELS)
def test_join_is_commutative(a, b):
    assert join(a, b) == join(b, a)


@given(LABELS, LABELS, LABELS)
def test_join_is_associative(a, b, c):
    assert join(join(a, b), c) == join(a, join(b, c)) == join(a, b, c)


@given(LABELS)
def test_join_is_idempotent_and_has_a_neutral_element(a):
    assert join(a, a) == join(a) == join(a, join()) == a


@given(LABELS, LABELS)
def test_a_join_covers_both_sides(a, b):
    assert _covers(join(a, b), a)
    assert _covers(join(a, b), b)


@given(LABELS, LABELS, LABELS)
def test_join_is_monotone(a, b, c):
    assert _covers(join(join(a, b), c), join(a, c))


@given(st.lists(LABELS, max_size=5))
def test_sources_are_sorted_distinct_and_bounded(labels):
    sources = join(*labels).sources
    assert list(sources) == sorted(set(sources))
    assert len(sources) <= MAX_SOURCES + 1
    assert (MORE_SOURCES in sources) == (len(sources) == MAX_SOURCES + 1)


@given(st.lists(LABELS, max_size=5))
def test_subjects_are_sorted_distinct_and_bounded_and_a_crowd_stands_alone(labels):
    subjects = join(*labels).subjects
    assert list(subjects) == sorted(set(subjects))
    assert len(subjects) <= MAX_SUBJECTS
    assert MORE_SUBJECTS not in subjects or subjects == (MORE_SUBJECTS,)
    named = {subject for label in labels for subject in label.subjects}
    assert (subjects == (MORE_SUBJECTS,)) == (MORE_SUBJECTS in named or len(named) > MAX_SUBJECTS)
