"""Who listens to which topics: an index of patterns, so that a publication does not look at all agents. Pure.

A topic is words with dots between them. In a pattern `*` stands for one word, and `>`, at the end, for all that are
left, one at least. Patterns are a tree of words; what a topic visits is the part of it that fits, however many
patterns there are beside.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from symbi.guard.action import TopicRef
from symbi.policy.flow import CONFIDENTIALITY_RANK
from symbi.types import Confidentiality

K = TypeVar("K")  # whoever listens

ONE: Final = "*"
REST: Final = ">"
SEVERAL: Final = "(several)"
"""Stands for an owner where not one answers for all that may be heard; nobody is called so."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is said of the topics that fit a pattern: who answers for them, and the most that they may carry."""

    pattern: str
    owner: str
    classification: Confidentiality


def known_as(name: str, known: Sequence[Known]) -> TopicRef:
    """A topic, or a pattern by which somebody listens, as policies see it.

    Of a topic, what is said by the pattern with the most words of its own counts. Who listens by a pattern may hear
    whatever fits it: so the most confidential of all that may counts, and the owner where one answers for all of it.
    """
    found = [one for one in known if overlap(name.split("."), one.pattern.split("."))]
    if not found:
        return TopicRef(name)
    if ONE in name or REST in name:
        owners = {one.owner for one in found}
        alone = len(owners) == 1 and any(covers(one.pattern.split("."), name.split(".")) for one in found)
        highest = max((one.classification for one in found), key=CONFIDENTIALITY_RANK.__getitem__)
        return TopicRef(name, owners.pop() if alone else SEVERAL, highest.value)
    best = max(found, key=lambda one: (sum(word not in {ONE, REST} for word in one.pattern.split(".")), one.pattern))
    return TopicRef(name, best.owner, best.classification.value)


def overlap(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether there is a topic that fits both of two patterns, given as their words."""
    for at, word in enumerate(one):
        if at == len(other):
            return False
        if REST in {word, other[at]}:
            return True
        if word != other[at] and ONE not in {word, other[at]}:
            return False
    return len(one) == len(other)


def covers(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether every topic that fits a pattern fits another too, given as their words."""
    for at, word in enumerate(one):
        if at == len(other):
            return False
        if word == REST:
            return True
        if other[at] == REST or word not in {ONE, other[at]}:
            return False
    return len(one) == len(other)


class _Branch(Generic[K]):
    """What follows on one way into a pattern.

    Attributes:
        words: The branches by the word that follows.
        here: Who listens to a topic that ends here.
        rest: Who listens to every topic that goes on from here.
    """

    __slots__ = ("here", "rest", "words")

    def __init__(self) -> None:
        self.words: dict[str, _Branch[K]] = {}
        self.here: dict[K, None] = {}  # in the order in which they came
        self.rest: dict[K, None] = {}


class Topics(Generic[K]):
    """Patterns, each with those who listen by it."""

    def __init__(self) -> None:
        self._root: _Branch[K] = _Branch()
        self.visited = 0  # branches that the last look-up came through

    def add(self, pattern: str, agent: K) -> None:
        """Let somebody listen by a pattern that `symbi.dsl.messages.parse_pattern` has read."""
        branch = self._root
        *words, last = pattern.split(".")
        for word in words:
            branch = branch.words.setdefault(word, _Branch[K]())
        if last == REST:
            branch.rest[agent] = None
        else:
            branch.words.setdefault(last, _Branch[K]()).here[agent] = None

    def remove(self, pattern: str, agent: K) -> None:
        """Let somebody listen by a pattern no more; one that does not, does not."""
        way: list[tuple[_Branch[K], str]] = []
        branch = self._root
        *words, last = pattern.split(".")
        for word in words if last == REST else (*words, last):
            if word not in branch.words:
                return
            way.append((branch, word))
            branch = branch.words[word]
        (branch.rest if last == REST else branch.here).pop(agent, None)
        for parent, word in reversed(way):
            child = parent.words[word]
            if child.words or child.here or child.rest:
                break
            del parent.words[word]

    def listeners(self, topic: str) -> tuple[K, ...]:
        """Who listens to a topic, each once, however many of its patterns fit; in no order."""
        self.visited = 0
        return tuple(dict.fromkeys(self._listeners(topic.split("."))))

    def _listeners(self, words: list[str]) -> Iterator[K]:
        pending = [(self._root, 0)]
        while pending:
            branch, at = pending.pop()
            self.visited += 1
            if at == len(words):
                yield from branch.here
                continue
            yield from branch.rest
            pending += [(branch.words[way], at + 1) for way in (words[at], ONE) if way in branch.words]
