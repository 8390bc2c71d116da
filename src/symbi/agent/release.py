"""Releases of labels: `endorse` and `declassify`, as pure functions on labelled values.

A release reaches every field of a value. It keeps the sources, and adds its own effect: whoever reads the label of
what was made of the value later finds the release that lowered it.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from symbi.agent.values import Value
from symbi.dsl.builtins import RELEASE_LEVELS, RELEASE_NAME
from symbi.policy.flow import CONFIDENTIALITY_RANK, INTEGRITY_RANK, join
from symbi.types import Confidentiality, Integrity, Label

Change = Callable[[Label], Label]

LEVELS: Final[Mapping[str, Confidentiality]] = {level: Confidentiality(level) for level in RELEASE_LEVELS}
"""What a value can be declassified to, by the word for it."""


def is_release_name(text: str) -> bool:
    """Whether a release can be called so."""
    return RELEASE_NAME.fullmatch(text) is not None


def endorsed(label: Label) -> Label:
    """Trusted, if it was not; what is the user's or the system's own stays so."""
    integrity = min(label.integrity, Integrity.TRUSTED, key=INTEGRITY_RANK.__getitem__)
    return replace(label, integrity=integrity)


def declassified(to: Confidentiality) -> Change:
    """No more confidential than `to`, and of no category."""

    def change(label: Label) -> Label:
        level = min(label.confidentiality, to, key=CONFIDENTIALITY_RANK.__getitem__)
        return replace(label, confidentiality=level, categories=())  # whom it is about, no release changes

    return change


def relabelled(value: Value, change: Change, also: Label) -> Value:
    """A value with every label changed, its own and those of all it contains, and then joined with another."""
    made: dict[Label, Label] = {}

    def of(label: Label) -> Label:
        if label not in made:
            made[label] = join(change(label), also)
        return made[label]

    def walk(part: Value) -> Value:
        if isinstance(part.data, tuple):
            return Value(tuple([walk(item) for item in part.data]), of(part.label), part.weight)
        if isinstance(part.data, Mapping):
            return Value({key: walk(item) for key, item in part.data.items()}, of(part.label), part.weight)
        return Value(part.data, of(part.label), part.weight)

    return walk(value)
