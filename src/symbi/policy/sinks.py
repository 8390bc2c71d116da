"""Which arguments of a call are sinks, and which of those are tainted: from labels by argument, as the runtime has them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from symbi.policy.addresses import addresses
from symbi.policy.fields import Role, Step, ToolFlow, spelled
from symbi.policy.flow import CONFIDENTIALITY_RANK, join
from symbi.types import Confidentiality, Integrity, JsonValue, Label

MAX_LEAVES: Final = 100_000  # of one value; what holds more is judged as a whole
MAX_DEPTH: Final = 64  # likewise

Steps: TypeAlias = tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class CallFacts:
    """What policies read of a call's flow: names of arguments.

    Attributes:
        sinks: Sinks, and texts that hold an address.
        tainted: Those whose value is untrusted.
        confidential: Arguments, but for plain ones, that hold something confidential or secret.
        unexplained: Those of the tainted whose value shares nothing with anything that was read: computed, or made up,
            or the user's own. Where labels follow values, there are none.
        words_known: Whether it is known what the user wrote.
    """

    sinks: frozenset[str] = frozenset()
    tainted: frozenset[str] = frozenset()
    confidential: frozenset[str] = frozenset()
    unexplained: frozenset[str] = frozenset()
    words_known: bool = True


@dataclass(frozen=True, slots=True)
class Leaf:
    """A scalar in a value, or the name of a field (`name`)."""

    steps: Steps
    value: JsonValue
    name: bool = False


def leaves(value: JsonValue, steps: Steps = ()) -> Iterator[Leaf]:
    """The scalars in a value and the names of its fields, without null; in order.

    What lies too deep, or comes after too many, is one leaf more, whose value is the container itself.
    """
    pending: list[tuple[Steps, JsonValue]] = [(steps, value)]
    count = 0
    while pending:
        at, one = pending.pop()
        count += 1
        is_list = isinstance(one, Sequence) and not isinstance(one, str)
        if not (is_list or isinstance(one, Mapping)):
            if one is not None:
                yield Leaf(at, one)
        elif count > MAX_LEAVES or len(at) >= MAX_DEPTH:
            yield Leaf(at, one)
        elif isinstance(one, Mapping):
            for key in one:
                yield Leaf((*at, key), key, name=True)
            pending.extend(((*at, key), one[key]) for key in reversed(list(one)))
        else:
            assert isinstance(one, Sequence)
            pending.extend(((*at, index), one[index]) for index in range(len(one) - 1, -1, -1))


def is_sink(role: Role, leaf: Leaf) -> bool:
    """Whether a leaf of an argument decides where something goes: it is a sink, or a text with an address in it."""
    if role is Role.PLAIN or leaf.value == "":
        return False
    if isinstance(leaf.value, str) and (role is Role.TEXT or leaf.name):
        return bool(addresses(leaf.value))
    return role is Role.SINK or not isinstance(leaf.value, str | int | float)


def call_facts(flow: ToolFlow, values: Mapping[str, JsonValue], labels: Mapping[str, Label], label: Label) -> CallFacts:
    """The facts of one call.

    Args:
        flow: What the manifest declares.
        values: The arguments.
        labels: Label by argument, or by the path of a part of one (`options.url`), which counts for that part.
        label: Join of all that goes into the call; what has no label of its own bears it.
    """
    whole = join(label, *labels.values())
    sinks, tainted, confidential = set[str](), set[str](), set[str]()
    for name, value in values.items():
        for leaf in leaves(value, (name,)):
            role = flow.role(leaf.steps)
            own = _label_at(labels, values, leaf.steps, whole)
            if role is not Role.PLAIN and is_confidential(own):
                confidential.add(name)
            if is_sink(role, leaf):
                sinks.add(name)
                if own.integrity is Integrity.UNTRUSTED:
                    tainted.add(name)
    return CallFacts(frozenset(sinks), frozenset(tainted), frozenset(confidential))


def is_confidential(label: Label) -> bool:
    """Whether a value is confidential or secret."""
    return CONFIDENTIALITY_RANK[label.confidentiality] >= CONFIDENTIALITY_RANK[Confidentiality.CONFIDENTIAL]


def _label_at(labels: Mapping[str, Label], values: Mapping[str, JsonValue], steps: Steps, otherwise: Label) -> Label:
    """The label of the smallest part around a leaf that has one; an argument may bear the name of another's part."""
    for size in range(len(steps), 1, -1):
        part = spelled(steps[:size])
        if part in labels and part not in values:
            return labels[part]
    return labels.get(str(steps[0]), otherwise)
