"""Data-flow labels: how the labels of several values become the label of what is made from them.

Labels form a join-semilattice: `join` takes the least trusted integrity, the most confidential classification, and the
unions of the sources, of the categories and of the data subjects. It is commutative, associative and idempotent, and never lowers either side.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from symbi.types import Confidentiality, Integrity, Label

MAX_SOURCES: Final = 64  # bounds what one label costs in a journal or a trail, however much went into a value

MORE_SOURCES: Final = "*"
"""Stands among the sources of a label once some had to be left out; it stays in every label joined from that one."""

MAX_SUBJECTS: Final = 64  # of one label; what is about more people is about a crowd

MORE_SUBJECTS: Final = "*"
"""Alone among the subjects of a label: more people than are named. What is about them is erased with any one of all."""

INTEGRITY_RANK: Final[Mapping[Integrity, int]] = MappingProxyType({level: rank for rank, level in enumerate(Integrity)})
"""How little a value may be believed: 0 is most trusted."""

CONFIDENTIALITY_RANK: Final[Mapping[Confidentiality, int]] = MappingProxyType(
    {level: rank for rank, level in enumerate(Confidentiality)}
)
"""How little a value may travel: 0 is most open."""


def join(*labels: Label) -> Label:
    """The label of a value that was made from values with these labels.

    The sources are united and sorted. Of more than `MAX_SOURCES`, the first `MAX_SOURCES` in code-point order are
    kept and `MORE_SOURCES` is added; the rule gives the same label in whatever order and grouping labels are joined.
    Categories, which manifests name and so bound, are united and sorted.
    Of more than `MAX_SUBJECTS` subjects none is named: `MORE_SUBJECTS` stands for all, and for whoever is joined to them.
    Joining nothing gives the label of a constant that the user wrote: `user`, `public`, no sources.
    """
    integrity = max((label.integrity for label in labels), key=INTEGRITY_RANK.__getitem__, default=Integrity.USER)
    confidentiality = max(
        (label.confidentiality for label in labels),
        key=CONFIDENTIALITY_RANK.__getitem__,
        default=Confidentiality.PUBLIC,
    )
    sources = {source for label in labels for source in label.sources}
    more = MORE_SOURCES in sources
    named = sorted(sources - {MORE_SOURCES})
    if more or len(named) > MAX_SOURCES:
        named = sorted([*named[:MAX_SOURCES], MORE_SOURCES])
    categories = {category for label in labels for category in label.categories}
    return Label(
        integrity,
        confidentiality,
        tuple(named),
        tuple(sorted(categories)),
        join_subjects(*(one.subjects for one in labels)),
    )


def join_subjects(*several: Iterable[str]) -> tuple[str, ...]:
    """Who a value is about that was made from values about these people."""
    subjects = {subject for subjects in several for subject in subjects}
    if MORE_SUBJECTS in subjects or len(subjects) > MAX_SUBJECTS:
        return (MORE_SUBJECTS,)
    return tuple(sorted(subjects))
