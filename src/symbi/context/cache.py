"""Answers that were given lately, in as many bytes as are allowed for them.

A question that is asked again meanwhile costs one use of a lease and no look at the store. An answer is forgotten with
any change of a memory that it came from, with each new policy set, and after a short while, for items fade and expire.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from symbi.context.kinds import Found, Recalled
from symbi.context.words import plain_json
from symbi.types import JsonValue

ITEM_BYTES: Final = 1200  # of an item in memory, beside what it says; measured with tracemalloc
ANSWER_BYTES: Final = 800
HOLDS_MS: Final = 30_000


@dataclass(frozen=True, slots=True)
class CacheStats:
    """How a cache does.

    Attributes:
        hits, misses: Questions that it has answered, and that it has not.
        evicted: Answers that made room.
        answers: How many it holds.
        used_bytes, most_bytes: What they take, and may take.
    """

    hits: int
    misses: int
    evicted: int
    answers: int
    used_bytes: int
    most_bytes: int


@dataclass(frozen=True, slots=True)
class _Answer:
    items: Recalled
    spaces: frozenset[str]
    size: int
    until_ms: int


class AnswerCache:
    """Keeps answers, the ones used last longest.

    Args:
        most_bytes: What all of them may take; 0 for none.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._answers: OrderedDict[Hashable, _Answer] = OrderedDict()
        self._of_space: dict[str, set[Hashable]] = {}
        self._used = self._hits = self._misses = self._evicted = 0

    @property
    def stats(self) -> CacheStats:
        """How it does."""
        return CacheStats(self._hits, self._misses, self._evicted, len(self._answers), self._used, self._most)

    def get(self, key: Hashable, now_ms: int) -> Recalled | None:
        """The answer to a question, or None."""
        found = self._answers.get(key)
        if found is None or now_ms >= found.until_ms:
            self._misses += 1
            if found is not None:
                self._drop(key)
            return None
        self._hits += 1
        self._answers.move_to_end(key)
        return _own(found.items)

    def put(self, key: Hashable, items: Recalled, spaces: Iterable[str], until_ms: int) -> None:
        """Keep an answer until a time, if it is no larger than all may be together; whoever alters what it says, alters a copy."""
        if not self._most:
            return
        size = ANSWER_BYTES + sum(_size(item) for item in items)
        self._drop(key)
        if size > self._most:
            return
        while self._used + size > self._most:
            self._drop(next(iter(self._answers)))
            self._evicted += 1
        answer = _Answer(_own(items), frozenset(spaces), size, until_ms)
        self._answers[key] = answer
        self._used += size
        for space in answer.spaces:
            self._of_space.setdefault(space, set()).add(key)

    def forget(self, space: str) -> None:
        """Forget what came from a memory."""
        for key in tuple(self._of_space.get(space, ())):
            self._drop(key)

    def clear(self) -> None:
        """Forget all."""
        self._answers.clear()
        self._of_space.clear()
        self._used = 0

    def _drop(self, key: Hashable) -> None:
        answer = self._answers.pop(key, None)
        if answer is None:
            return
        self._used -= answer.size
        for space in answer.spaces:
            keys = self._of_space[space]
            keys.discard(key)
            if not keys:
                del self._of_space[space]


def _own(items: Recalled) -> Recalled:
    """An answer that has nothing in it that somebody else could alter."""
    if not any(isinstance(item.content, dict | list) for item in items):
        return items
    return Recalled((replace(item, content=_copied(item.content)) for item in items), cut=items.cut)


def _copied(content: JsonValue) -> JsonValue:
    if isinstance(content, Mapping):
        return {key: _copied(value) for key, value in content.items()}
    return [_copied(value) for value in content] if isinstance(content, list | tuple) else content


def _size(item: Found) -> int:
    return ITEM_BYTES + len(plain_json(item.content)) + sum(map(len, item.tags)) + 96 * len(item.label.sources)
