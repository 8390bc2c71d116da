"""Texts of memory: the words that items are found by, what makes two of them the same, and how long they are. Pure."""

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from symbi.crypto.canonical import canonical_json
from symbi.errors import InputError
from symbi.types import JsonValue

MAX_CONTENT_BYTES: Final = 262_144  # of one item, as JSON
MAX_NESTING: Final = 32  # lists and records within each other
MAX_WORDS: Final = 4096  # distinct ones of an item; further ones are not looked for
MAX_WORD_CHARS: Final = 64
BYTES_PER_TOKEN: Final = 4  # about, for the tokenizers that models have
TAG: Final = re.compile(r"[\w.:/-]{1,64}")
_WORD: Final = re.compile(r"[^\W_]+")
_SPACE: Final = re.compile(r"\s+")
COMMON: Final = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "been",
        "but",
        "by",
        "can",
        "could",
        "did",
        "do",
        "does",
        "for",
        "from",
        "had",
        "has",
        "have",
        "how",
        "i",
        "if",
        "in",
        "into",
        "is",
        "it",
        "its",
        "me",
        "my",
        "no",
        "not",
        "of",
        "on",
        "or",
        "our",
        "she",
        "so",
        "that",
        "the",
        "their",
        "them",
        "then",
        "there",
        "these",
        "they",
        "this",
        "to",
        "was",
        "we",
        "were",
        "what",
        "when",
        "where",
        "which",
        "who",
        "why",
        "will",
        "with",
        "would",
        "you",
        "your",
        "he",
        "her",
        "his",
    ]
)
"""Words that say nothing of what a question is about."""


def check_content(content: JsonValue) -> None:
    """Refuse what cannot be kept as it is.

    Raises:
        InputError: It cannot stand in JSON, is larger than `MAX_CONTENT_BYTES`, nested deeper than `MAX_NESTING`, or has
            an integer beyond 2^53-1.
    """
    size = len(plain_json(content))
    if size > MAX_CONTENT_BYTES:
        raise _wrong(f"an item of {size} bytes is over the bound of {MAX_CONTENT_BYTES}")
    level: list[JsonValue] = [content]
    for _ in range(MAX_NESTING + 1):
        level = [below for part in level for below in _parts(part)]
        if not level:
            break
    else:
        raise _wrong(f"an item has at most {MAX_NESTING} levels of lists and records in each other")
    try:
        canonical_json({"content": content})
    except InputError as error:
        raise InputError(error.message, code="context.item", hint=error.hint) from error


def _parts(content: JsonValue) -> Iterable[JsonValue]:
    if isinstance(content, Mapping):
        return content.values()
    return content if isinstance(content, list | tuple) else ()


def _wrong(msg: str) -> InputError:
    return InputError(msg, code="context.item")


def plain_json(content: JsonValue) -> bytes:
    """Content as JSON.

    Raises:
        InputError: It cannot stand in JSON.
    """
    try:
        return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        msg = f"what is to be remembered cannot stand in JSON: {error}"
        raise InputError(msg, code="context.item") from error


def folded(text: str) -> str:
    """A text as it is compared: without regard to case, and to how its letters are composed."""
    return unicodedata.normalize("NFKC", text).casefold()


def tag_of(tag: str) -> str:
    """A tag as it is compared.

    Raises:
        InputError: It is none.
    """
    name = folded(tag)
    if not TAG.fullmatch(name):
        msg = "a tag has 1 to 64 letters, digits and `_ . : / -`"
        raise InputError(msg, code="context.item")
    return name


def words_in(text: str) -> list[str]:
    """The words of a text in order, as they are compared."""
    return [word[:MAX_WORD_CHARS] for word in _WORD.findall(folded(text))]


def text_of(content: JsonValue) -> str:
    """All that content says, in its order: names of fields, texts and numbers."""
    parts: list[str] = []
    pending: list[JsonValue] = [content]
    while pending:
        part = pending.pop()
        if isinstance(part, str):
            parts.append(part)
        elif isinstance(part, Mapping):
            for key, value in reversed(list(part.items())):
                pending += (value, key)
        elif isinstance(part, list | tuple):
            pending.extend(reversed(part))
        elif part is not None:
            parts.append(str(part))
    return " ".join(parts)


def counted(content: JsonValue) -> dict[str, int]:
    """How often each word stands in content; of the first `MAX_WORDS` distinct ones."""
    return dict(list(Counter(words_in(text_of(content))).items())[:MAX_WORDS])


def asked_for(text: str) -> tuple[str, ...]:
    """The distinct words of a text that an item must have."""
    return tuple(dict.fromkeys(words_in(text)))


def telling(about: str, most: int) -> tuple[str, ...]:
    """The words of a question that tell what it is about; all of them where none does."""
    words = tuple(dict.fromkeys(words_in(about)))
    return (tuple(word for word in words if word not in COMMON) or words)[:most]


def same_as(content: JsonValue) -> bytes:
    """A digest that is the same for items that say the same, whatever the case and spacing of their texts; 32 bytes."""
    return hashlib.sha256(canonical_json(_alike(content))).digest()


def _alike(content: JsonValue) -> JsonValue:
    if isinstance(content, str):
        return _SPACE.sub(" ", folded(content)).strip()
    if isinstance(content, Mapping):
        return {key: _alike(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_alike(item) for item in content]
    return content if not isinstance(content, float) else {"number": repr(content)}  # a text of it is another thing


def tokens_of(size: int) -> int:
    """About how many tokens a model makes of so many bytes; one at least."""
    return max(1, -(-size // BYTES_PER_TOKEN))
