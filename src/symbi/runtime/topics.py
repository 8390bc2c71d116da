"""Who listens to which topics: an index of patterns, so that a publication does not look at all agents. Pure.

A topic is words with dots between them. In a pattern `*` stands for one word, and `>`, at the end, for all that are
left, one at least. Patterns are a tree of words; what a topic visits is the part of it that fits, however many
patterns there are beside.
"""

from collections.abc import Iterator
from typing import Final

from symbi.types import AgentId

ONE: Final = "*"
REST: Final = ">"


class _Branch:
    """What follows on one way into a pattern.

    Attributes:
        words: The branches by the word that follows.
        here: Who listens to a topic that ends here.
        rest: Who listens to every topic that goes on from here.
    """

    __slots__ = ("here", "rest", "words")

    def __init__(self) -> None:
        self.words: dict[str, _Branch] = {}
        self.here: dict[AgentId, None] = {}  # in the order in which they came
        self.rest: dict[AgentId, None] = {}


class Topics:
    """Patterns, each with the agents that listen by it."""

    def __init__(self) -> None:
        self._root = _Branch()
        self.visited = 0  # branches that the last look-up came through

    def add(self, pattern: str, agent: AgentId) -> None:
        """Let an agent listen by a pattern that `symbi.dsl.messages.parse_pattern` has read."""
        branch = self._root
        *words, last = pattern.split(".")
        for word in words:
            branch = branch.words.setdefault(word, _Branch())
        if last == REST:
            branch.rest[agent] = None
        else:
            branch.words.setdefault(last, _Branch()).here[agent] = None

    def remove(self, pattern: str, agent: AgentId) -> None:
        """Let an agent listen by a pattern no more; one that does not, does not."""
        way: list[tuple[_Branch, str]] = []
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

    def listeners(self, topic: str) -> tuple[AgentId, ...]:
        """Who listens to a topic, each once, however many of its patterns fit."""
        self.visited = 0
        found = dict.fromkeys(self._listeners(topic.split(".")))
        return tuple(sorted(found))

    def _listeners(self, words: list[str]) -> Iterator[AgentId]:
        pending = [(self._root, 0)]
        while pending:
            branch, at = pending.pop()
            self.visited += 1
            if at == len(words):
                yield from branch.here
                continue
            yield from branch.rest
            pending += [(branch.words[way], at + 1) for way in (words[at], ONE) if way in branch.words]
