"""Labels join to the least trusted, the most confidential, and all sources."""

from symbi.policy.flow import CONFIDENTIALITY_RANK, INTEGRITY_RANK, MAX_SOURCES, MORE_SOURCES, join
from symbi.types import Confidentiality, Integrity, Label


def test_the_least_trusted_and_the_most_confidential_win():
    joined = join(
        Label(Integrity.UNTRUSTED, Confidentiality.PUBLIC, ("e2",)),
        Label(Integrity.USER, Confidentiality.SECRET, ("task",)),
        Label(Integrity.TRUSTED, Confidentiality.INTERNAL, ("e1", "e2")),
    )
    assert joined == Label(Integrity.UNTRUSTED, Confidentiality.SECRET, ("e1", "e2", "task"))


def test_joining_nothing_is_what_the_user_wrote():
    assert join() == Label(Integrity.USER, Confidentiality.PUBLIC, ())


def test_the_orders_are_those_of_the_enumerations():
    assert sorted(INTEGRITY_RANK, key=INTEGRITY_RANK.__getitem__) == ["user", "system", "trusted", "untrusted"]
    assert sorted(CONFIDENTIALITY_RANK, key=CONFIDENTIALITY_RANK.__getitem__) == [
        "public",
        "internal",
        "confidential",
        "secret",
    ]


def test_sources_are_bounded_and_it_shows_that_some_are_left_out():
    many = tuple(f"e{number:03}" for number in range(MAX_SOURCES + 1))
    full = join(Label(sources=many[:-1]))
    assert full.sources == many[:-1]
    cut = join(Label(sources=many))
    assert cut.sources == (MORE_SOURCES, *many[:-1])
    assert MORE_SOURCES in join(cut, Label(sources=("a",))).sources
