"""How items are found and ordered, on the store's thread."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import merge
from typing import Final, TypeAlias

import msgspec

from symbi.context.kinds import ContextQuery, Found, MemoryTerms
from symbi.context.matching import fits, says
from symbi.context.port import MemoryStore, Row, Wanted
from symbi.context.ranking import Keywords, best, fitting, score, strength, weight_of
from symbi.context.sealing import Body, found, opened_body
from symbi.context.words import asked_for, counted, plain_json, telling
from symbi.guard.vault import Vault
from symbi.types import AgentId

MOST_NEAR: Final = 40  # of the nearest in meaning, that are looked at
MOST_OF_A_WORD: Final = 32  # of the newest items with a word of the question, likewise
MOST_WORDS: Final = 8  # of a question, by which items are looked for
MOST_SEALED: Final = 500  # of the newest sealed items, that are opened to see what they say; of an operator's, at once
MOST_SEALED_BYTES: Final = 8_388_608  # of these: with the one that goes beyond it, it ends
SEALED_AT_A_TIME: Final = 16  # that are read together
MOST_TOKENS: Final = 2_097_152  # of all items that one question gives: 8 MiB of content
MOST_HELD_BYTES: Final = (
    16_777_216  # of what is ranked, that is held whole; of all others, the words that are asked for
)
MOST_LOOKED_AT: Final = 100_000  # of the newest, to give as many as are wanted
AT_A_TIME: Final = 50  # items that are read together, where more may be too large
MOST_CHOSEN: Final = 256  # of items with the tags and words that are asked for, that are ranked
_WORDS: Final = msgspec.json.Decoder(dict[str, int])


@dataclass(frozen=True, slots=True)
class Question:
    """A question, with what the reader may see.

    Attributes:
        query: As it was asked.
        wanted: What of it the store can be asked.
        terms: Of the memory.
        rows: Items that are not sealed and say what is wanted, where they were read just now.
    """

    query: ContextQuery
    wanted: Wanted
    terms: MemoryTerms
    rows: Sequence[Row] | None = None


def narrowed(
    query: ContextQuery, space: AgentId, levels: frozenset[str], times: tuple[int, int], *, shared: bool
) -> Wanted:
    """What the store is asked, of what a reader may see.

    Args:
        query: The question.
        space: Whose memory.
        levels: What the reader may see.
        times: Now, and when the oldest item was kept that is still there.
        shared: Only what is shared.
    """
    return Wanted(
        space, levels, times[0], times[1], shared, query.kinds, query.forms, query.tags, query.since_ms, query.until_ms,
        query.min_importance, asked_for(query.text), None, max(MOST_CHOSEN, query.limit),
    )  # fmt: skip


def found_in(
    store: MemoryStore, vault: Vault | None, question: Question, near: Mapping[str, float]
) -> tuple[list[tuple[Row, Found]], bool]:
    """The items that answer, the best or the newest first, each with its row; and whether there may be more.

    Args:
        store: Where they are.
        vault: Opens what is sealed.
        question: What is asked.
        near: How near items come in meaning, by id.

    Raises:
        DecryptionFailed, StoreUnavailable: An item was altered, or cannot be read.
        ConfigError: There is no master key.
    """
    query = question.query
    opened, unseen = _opened(store, vault, question)
    ranked = _ranked(store, question, near, opened) if query.about else _newest(store, question, opened)
    chosen: list[tuple[Row, Found]] = []
    tokens, last = 0, 0
    for row, body, points in ranked:
        opened_now = body or _opened_again(store, vault, row)
        if opened_now is not None:
            chosen.append((row, found(row, opened_now, points)))
            tokens, last = tokens + row.tokens, row.number
        if len(chosen) == query.limit or tokens > MOST_TOKENS:
            break
    fit = fitting([one.tokens for _, one in chosen], most_tokens(query))
    # What is newest is whole where nothing that was not looked at is newer than the last of it.
    whole = unseen is None or (not query.about and fit >= query.limit and last > unseen.number)
    return chosen[:fit], not whole or (tokens > MOST_TOKENS and most_tokens(query) == MOST_TOKENS)


def _opened_again(store: MemoryStore, vault: Vault | None, row: Row) -> Body | None:
    """What stands in an item that may have been made light; None where it is there no more."""
    whole = row if row.body else next(iter(store.items_of(row.space, [row.id])), None)
    return None if whole is None else opened_body(whole, vault)


Opened: TypeAlias = list[tuple[Row, Body]]


def _opened(store: MemoryStore, vault: Vault | None, question: Question) -> tuple[Opened, Row | None]:
    """Sealed items that have to be looked into, and the last of these where there may be more."""
    if question.query.about or by_content(question.wanted):
        return sealed_page(store, vault, question.wanted)
    return [], None


def most_tokens(query: ContextQuery) -> int:
    """What all items that a question gives may have together."""
    return MOST_TOKENS if query.max_tokens is None else min(query.max_tokens, MOST_TOKENS)


Ranked: TypeAlias = Iterator[tuple[Row, Body | None, float]]
Candidates: TypeAlias = dict[str, tuple[Row, Body | None, Mapping[str, int]]]


def newest(store: MemoryStore, wanted: Wanted, at_first: int | None = None) -> Iterator[Row]:
    """Items that fit, newest first, read in steps; with the one that makes them too many or too large it ends.

    Args:
        store: Where they are.
        wanted: Which.
        at_first: So many are likely to do, and are read in steps of at most that.
    """
    left, tokens, step = wanted.limit, 0, wanted
    most = AT_A_TIME if at_first is None else min(at_first, AT_A_TIME)
    while left > 0:
        asked = min(left, most)
        rows = store.find_items(replace(step, limit=asked))
        for row in rows:
            yield row
            tokens += row.tokens
            if tokens > MOST_TOKENS:
                return
        if len(rows) < asked:
            return
        left -= len(rows)
        step = behind_row(wanted, rows[-1])


def behind_row(wanted: Wanted, row: Row) -> Wanted:
    """What is left of what is wanted, after one of the newest; numbers follow times."""
    return replace(wanted, until_ms=row.at_ms + 1, before=row.number)


def _newest(store: MemoryStore, question: Question, opened: Opened) -> Ranked:
    # Some may be erased by now, in whose place older ones come; whoever asks takes no more than are wanted.
    sealed = False if by_content(question.wanted) else None
    wanted = replace(question.wanted, limit=MOST_LOOKED_AT, sealed=sealed)
    both: Iterator[tuple[Row, Body | None]] = ((row, None) for row in newest(store, wanted, question.query.limit))
    for row, body in merge(both, opened, key=lambda one: -one[0].number):
        yield row, body, 0.0


def _ranked(store: MemoryStore, question: Question, near: Mapping[str, float], opened: Opened) -> Ranked:
    wanted = question.wanted
    words = telling(question.query.about, MOST_WORDS)
    candidates: Candidates = {}
    rows = _lighter(_candidates(store, wanted, words, near), words) if question.rows is None else question.rows
    for row in rows:
        candidates[row.id] = (row, None, _words_of(row))
    for row, body in opened:
        there = counted(body.content)
        if by_content(wanted) or any(word in there for word in words):
            candidates[row.id] = (row, body, there)
    yield from _ordered(question, words, candidates, near)


def _ordered(question: Question, words: Sequence[str], candidates: Candidates, near: Mapping[str, float]) -> Ranked:
    """Candidates, the best first."""
    # Weights of words come from what the reader may see alone: nothing else bears on the order.
    count = len(candidates)
    said = [there for _, _, there in candidates.values()]
    keywords = Keywords({word: weight_of(sum([word in there for there in said]), count) for word in words})
    terms, now_ms = question.terms, question.wanted.now_ms
    scores = [
        (
            score(
                terms,
                near.get(row.id, 0.0),
                keywords.score(there, row.tokens),
                strength(row.importance, row.half_life_days, row.at_ms, now_ms),
            ),
            row.number,
        )
        for row, _, there in candidates.values()
    ]
    by_number = {row.number: (row, body) for row, body, _ in candidates.values()}
    for points, number in best(scores, len(scores)):
        yield (*by_number[number], points)


def _candidates(store: MemoryStore, wanted: Wanted, words: Sequence[str], near: Mapping[str, float]) -> Iterator[Row]:
    """Items that are not sealed and may answer; some come more than once."""
    if by_content(wanted):
        yield from _by_content(store, wanted)
        return
    for word in words:
        yield from store.find_items(replace(wanted, words=(word,), sealed=False, limit=MOST_OF_A_WORD))
    known = sorted(near)
    for first in range(0, len(known), AT_A_TIME):
        rows = store.items_of(wanted.space, known[first : first + AT_A_TIME])
        yield from (row for row in rows if row.words is not None and fits(row, wanted))


def ranked_by_content(store: MemoryStore, query: ContextQuery, wanted: Wanted) -> list[Row]:
    """Items that are not sealed and say what is wanted, to be ranked: the newest, all within `MOST_HELD_BYTES`."""
    return list(_lighter(_by_content(store, wanted), telling(query.about, MOST_WORDS)))


def _by_content(store: MemoryStore, wanted: Wanted) -> Iterator[Row]:
    left, step = wanted.limit, replace(wanted, sealed=False)
    while left > 0:
        asked = min(left, AT_A_TIME)
        rows = store.find_items(replace(step, limit=asked))
        yield from rows
        if len(rows) < asked:
            return
        left, step = left - asked, behind_row(step, rows[-1])


def _lighter(rows: Iterable[Row], words: Sequence[str]) -> Iterator[Row]:
    """Items as they are, up to a bound; the others with what their rank comes from alone, and without a body."""
    size = 0
    for row in rows:
        size += len(row.body) + len(row.words or b"")
        if size <= MOST_HELD_BYTES:
            yield row
            continue
        there = _words_of(row)
        yield replace(row, body=b"", words=plain_json({word: there[word] for word in words if word in there}))


def sealed_page(
    store: MemoryStore, vault: Vault | None, wanted: Wanted, behind: Row | None = None
) -> tuple[Opened, Row | None]:
    """The newest sealed items, open, that say what is wanted; what was erased is not there.

    Args:
        store: Where they are.
        vault: Opens them.
        wanted: What they are to say.
        behind: The last one that was looked at; None to begin.

    Returns:
        Those that do, and the last one that was looked at where there may be more: at most `MOST_SEALED` are looked at, and
        no more once they have `MOST_SEALED_BYTES`.

    Raises:
        DecryptionFailed, StoreUnavailable: An item was altered, or cannot be read.
        ConfigError: There is no master key.
    """
    asked, there, last = replace(wanted, words=(), tags=(), sealed=True), [], behind
    left, size = MOST_SEALED, 0
    while left > 0 and size <= MOST_SEALED_BYTES:
        step = min(left, SEALED_AT_A_TIME)
        rows = store.find_items(replace(asked if last is None else behind_row(asked, last), limit=step))
        for row in rows:
            body = opened_body(row, vault)
            if body is not None and says(body.content, body.tags, wanted):
                there.append((row, body))
            size += len(row.body)
        if len(rows) < step:
            return there, None
        left, last = left - step, rows[-1]
    return there, last


def by_content(wanted: Wanted) -> bool:
    """Whether words or tags are asked for."""
    return bool(wanted.words or wanted.tags)


def _words_of(row: Row) -> Mapping[str, int]:
    return {} if row.words is None else _WORDS.decode(row.words)
