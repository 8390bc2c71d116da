"""Stage 1, query analysis: what a question asks for, by rules alone.

1. filters are taken out of it: `source:`, `kind:`, `after:`, `before:`;
2. what is left is split into words as the index of words splits them; words that every text has are dropped, unless there
   is nothing else;
3. rewrites: what is written together in code and in compounds is also looked for apart (`log_file`, `readTimeout`,
   `man-page`), and numbers of versions without their dots' neighbours stay as they are.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Final

from symbi.errors import InputError
from symbi.knowledge.documents import EVERYTHING, Narrowing

MAX_QUERY_CHARS: Final = 4_096
MAX_WORDS: Final = 48  # looked for; further ones say little
MAX_FILTERS: Final = 16
_FILTER: Final = re.compile(r"(?<!\S)(source|kind|after|before):(\"[^\"]*\"|\S+)", re.IGNORECASE)
_WORD: Final = re.compile(r"[^\W_]+(?:[_.'-][^\W_]+)*", re.UNICODE)
_PLAIN_WORD: Final = re.compile(r"[^\W_]+", re.UNICODE)
_PART: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_a-zA-Z]+", re.UNICODE)
_ACCENTS: Final = re.compile("[\u0300-\u036f]")
_NS: Final = 1_000_000_000
_TIMES: Final = (-(2**63), 2**63 - 1)  # in nanoseconds, that a store keeps: the years 1677 to 2262

_STOP_WORDS: Final = """
    a about after all also am an and any are as at be because been before being but by can could did do does doing done for from
    get got had has have having he her here hers him his how i if in into is it its itself just me might more most must my no nor
    not of off on once only or other our out over own same she should so some such than that the their them then there these they
    this those through to too under until up us very was we were what when where which while who whom why will with would you your
"""
STOP_WORDS: Final = frozenset(_STOP_WORDS.split())
"""English words that tell no two texts apart."""


@dataclass(frozen=True, slots=True)
class Query:
    """A question, understood.

    Attributes:
        text: Without its filters; what is made a vector.
        words: What is looked for by words, in order, each once.
        keywords: Of them, those that it is about: no stop words and no rewrites.
        narrowing: Its filters.
        rewrites: What was added, by what it was made from.
    """

    text: str
    words: tuple[str, ...]
    keywords: tuple[str, ...]
    narrowing: Narrowing = EVERYTHING
    rewrites: tuple[tuple[str, tuple[str, ...]], ...] = ()


def analyse(question: str) -> Query:
    """Understand a question.

    Raises:
        InputError: It is empty or too long, or a filter in it is none.
    """
    if len(question) > MAX_QUERY_CHARS:
        raise InputError(f"a question has at most {MAX_QUERY_CHARS} characters", code="knowledge.query")
    narrowing, text = _filters(question)
    text = _composed(" ".join(text.split()))
    if not text:
        raise InputError("a question needs a word beside its filters", code="knowledge.query")
    words = list(dict.fromkeys(found[0] for found in _WORD.finditer(text)))
    keywords = [word for word in words if word.lower() not in STOP_WORDS] or words
    rewrites = tuple((word, parts) for word in keywords if (parts := _parts(word)))
    sought = dict.fromkeys(word.lower() for word in keywords)
    sought |= dict.fromkeys(part for _, parts in rewrites for part in parts)
    lowered = tuple(dict.fromkeys(word.lower() for word in keywords))
    return Query(text, tuple(sought)[:MAX_WORDS], lowered[:MAX_WORDS], narrowing, rewrites)


def _parts(word: str) -> tuple[str, ...]:
    """What a word is put together of, if of several; the index of words splits at signs by itself, and not within them."""
    parts = tuple(part.lower() for part in _PART.findall(word) if len(part) > 1)
    return parts if len(parts) > 1 else ()


def _filters(question: str) -> tuple[Narrowing, str]:
    narrowing = EVERYTHING
    found = list(_FILTER.finditer(question))
    if len(found) > MAX_FILTERS:
        raise InputError(f"a question has at most {MAX_FILTERS} filters", code="knowledge.query")
    for one in found:
        name, value = one[1].lower(), one[2].strip('"')
        if not value:
            raise InputError(f"filter `{name}:` has no value", code="knowledge.query")
        match name:
            case "source":
                pattern = value if any(sign in value for sign in "*?") else f"*{value}*"
                narrowing = replace(narrowing, sources=(*narrowing.sources, pattern))
            case "kind":
                narrowing = replace(narrowing, kinds=(*narrowing.kinds, value.lower()))
            case "after":
                narrowing = replace(narrowing, after_ns=_time_ns(name, value))
            case _:
                narrowing = replace(narrowing, before_ns=_time_ns(name, value))
    return narrowing, _FILTER.sub(" ", question)


def _time_ns(name: str, value: str) -> int:
    try:
        day = date.fromisoformat(value)
    except ValueError as error:
        msg = f"filter `{name}:` takes a day, e.g. `{name}:2026-01-31`, not `{value[:40]}`"
        raise InputError(msg, code="knowledge.query") from error
    time_ns = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * _NS
    return min(max(time_ns, _TIMES[0]), _TIMES[1])


def words_of(text: str) -> Sequence[str]:
    """The words of a text, in small letters without accents, as the index has them; stop words left out, compounds apart."""
    return [word for word in _PLAIN_WORD.findall(_unaccented(text).lower()) if word not in STOP_WORDS]


def _composed(text: str) -> str:
    """With letters and their accents in one sign each: an accent by itself is no part of a word."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _unaccented(text: str) -> str:
    return text if text.isascii() else _composed(_ACCENTS.sub("", unicodedata.normalize("NFD", text)))
