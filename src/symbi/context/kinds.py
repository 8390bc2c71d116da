"""Values of memory: kinds, items as they are given and found, questions, and the terms of an agent's memory. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Self

from symbi.context.typed import TEXTS, check_each, check_text, check_type
from symbi.context.words import asked_for, check_content, tag_of
from symbi.errors import InputError
from symbi.types import AgentId, JsonValue, Label, RunId

MAX_TAGS: Final = 32  # of one item, and of one question
MAX_FOUND: Final = 1000  # items that one question gives at most
MAX_ABOUT_CHARS: Final = 8192  # of what is looked for
MAX_WORDS_ASKED: Final = 64  # that an item must have
LAST_MS: Final = 2**53 - 1
DAY_MS: Final = 86_400_000
NO_RUN: Final = RunId("")
OWN: Final = AgentId("")
"""Stands for the agent itself that asks."""
SPACE_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,127}(?:/[A-Za-z0-9_][A-Za-z0-9_.-]{0,63})?", re.ASCII)
"""An agent whose memory is meant: `NAME`, or `NAME/INSTANCE`."""


class MemoryKind(StrEnum):
    """What sort of memory an item lies in."""

    WORKING = "working"
    """What an agent is busy with: gone a day after it was written."""
    SHORT_TERM = "short-term"
    """Recent interactions, in order; the oldest make room."""
    LONG_TERM = "long-term"
    """Facts and episodes, which fade by their half-life and go by retention."""
    SHARED = "shared"
    """The same, for others to read where policy lets them."""


class Form(StrEnum):
    """What an item of long-term or shared memory is."""

    FACT = "fact"
    EPISODE = "episode"


KIND_SAID: Final = "a `MemoryKind`, such as `MemoryKind.LONG_TERM`"
FORM_SAID: Final = "a `Form`, such as `Form.FACT`"
LASTING: Final = frozenset({MemoryKind.LONG_TERM, MemoryKind.SHARED})
"""Kinds in which the same item is kept once."""


@dataclass(frozen=True, slots=True)
class ContextItem:
    """Something to be remembered.

    Attributes:
        content: JSON; texts in it are what it is found by. At most `MAX_CONTENT_BYTES`, `MAX_NESTING` lists and records
            within each other, and integers of 2^53-1.
        kind: Where it is kept.
        tags: By which it is found; letters of any script, digits and `_ . : / -`, without regard to case.
        importance: From 0 to 1.
        form: A fact, or an episode.
        label: What the content is: how far it may be believed and travel, and whom it is about.
        half_life_days: After how long it counts half; that of its memory if None.
        run_id: The run that it came from, or empty.

    Raises:
        InputError: One of them is out of bounds.
    """

    content: JsonValue
    kind: MemoryKind = MemoryKind.LONG_TERM
    tags: tuple[str, ...] = ()
    importance: float = 0.5
    form: Form = Form.FACT
    label: Label = field(default_factory=Label)
    half_life_days: float | None = None
    run_id: RunId = NO_RUN

    def __post_init__(self) -> None:
        """Refuse what is of another type or out of bounds, and bring tags into the form in which they are compared."""
        check_type("kind", self.kind, MemoryKind, KIND_SAID)
        check_type("form", self.form, Form, FORM_SAID)
        check_type("label", self.label, Label, "a `Label`")
        check_type("run_id", self.run_id, str, "a str")
        object.__setattr__(self, "tags", _tags(self.tags))
        _unit("importance", self.importance)
        half = self.half_life_days
        check_type("half_life_days", half, (int, float, type(None)), "a number of days or None")
        if half is not None and not 0 < half <= 36_500:  # noqa: PLR2004 - a century of days
            raise _wrong("`half_life_days` is a number of days above 0, and at most 36,500")
        check_content(self.content)


@dataclass(frozen=True, slots=True)
class ContextQuery:
    """What is looked for. All that is given has to hold.

    Attributes:
        about: What an answer is about: the best come first, by how near they come in meaning and in words. Empty: the
            newest come first.
        text: Words that an item has, all of them.
        kinds: Of one of these; of any if empty.
        forms: Likewise.
        tags: With all of these.
        since_ms, until_ms: Kept in this time, in milliseconds since the epoch: from the first, and before the second.
        min_importance: At least.
        max_tokens: As many of the items as fit into so many tokens.
        limit: At most so many, and 8 MiB of content in all.
        of: Another agent, of whose memory what is shared is looked at; empty: the agent's own.

    Raises:
        InputError: One of them is out of bounds.
    """

    about: str = ""
    text: str = ""
    kinds: tuple[MemoryKind, ...] = ()
    forms: tuple[Form, ...] = ()
    tags: tuple[str, ...] = ()
    since_ms: int | None = None
    until_ms: int | None = None
    min_importance: float = 0.0
    max_tokens: int | None = None
    limit: int = 20
    of: AgentId = OWN

    @property
    def kind(self) -> str:
        """The one kind that is asked for, or `any`."""
        return self.kinds[0].value if len(self.kinds) == 1 else "any"

    def to_json(self) -> dict[str, JsonValue]:
        """What is asked, without what is left out."""
        given: dict[str, JsonValue] = {
            "about": self.about, "text": self.text, "kinds": [one.value for one in self.kinds],
            "forms": [one.value for one in self.forms], "tags": list(self.tags), "since_ms": self.since_ms,
            "until_ms": self.until_ms, "min_importance": round(self.min_importance * 1000), "max_tokens": self.max_tokens,
            "of": self.of,
        }  # fmt: skip
        said: dict[str, JsonValue] = {name: value for name, value in given.items() if value not in ("", [], None, 0)}
        return {**said, "limit": self.limit}

    def __post_init__(self) -> None:
        """Refuse what is of another type or out of bounds, and bring lists into the form in which they are compared."""
        self._check_types()
        object.__setattr__(self, "tags", _tags(self.tags))
        object.__setattr__(self, "kinds", tuple(self.kinds))
        object.__setattr__(self, "forms", tuple(self.forms))
        _unit("min_importance", self.min_importance)
        if not 1 <= self.limit <= MAX_FOUND:
            raise _wrong(f"`limit` is from 1 to {MAX_FOUND}")
        if self.max_tokens is not None and self.max_tokens < 0:
            raise _wrong("`max_tokens` is 0 or more")
        if len(self.about) > MAX_ABOUT_CHARS or len(self.text) > MAX_ABOUT_CHARS:
            raise _wrong(f"what is looked for has at most {MAX_ABOUT_CHARS} characters")
        if len(asked_for(self.text)) > MAX_WORDS_ASKED:
            raise _wrong(f"`text` has at most {MAX_WORDS_ASKED} different words")
        if any(at is not None and abs(at) > LAST_MS for at in (self.since_ms, self.until_ms)):
            raise _wrong(f"`since_ms` and `until_ms` are at most {LAST_MS} milliseconds from the epoch")
        if self.of:
            check_space(self.of)

    def _check_types(self) -> None:
        for name, text in (("about", self.about), ("text", self.text), ("of", self.of)):
            check_text(name, text)
        check_each("kinds", self.kinds, MemoryKind, f"a list or tuple; each of it is {KIND_SAID}")
        check_each("forms", self.forms, Form, f"a list or tuple; each of it is {FORM_SAID}")
        check_type("limit", self.limit, int, "a whole number")
        for name, number in (("since_ms", self.since_ms), ("until_ms", self.until_ms), ("max_tokens", self.max_tokens)):
            check_type(name, number, (int, type(None)), "a whole number or None")


@dataclass(frozen=True, slots=True)
class Found:
    """An item that was found.

    Attributes:
        id: Its id (UUIDv7).
        agent: Whose it is.
        kind, form, tags, importance, content, label: As it was kept; a label may have been raised since.
        at_ms: When it was kept last, in milliseconds since the epoch.
        shared: Others may read it where policy lets them.
        run_id: The run that it came from, or empty.
        effect_id: The effect that kept it.
        tokens: What its content takes, about.
        times: How often the same was kept.
        score: How well it answers, from 0 to 1.
    """

    id: str
    agent: AgentId
    kind: MemoryKind
    form: Form
    tags: tuple[str, ...]
    importance: float
    content: JsonValue
    label: Label
    at_ms: int
    shared: bool
    run_id: RunId
    effect_id: str
    tokens: int
    times: int
    score: float = 0.0


class Recalled(tuple[Found, ...]):  # noqa: SLOT001 - a tuple's class can have none with something in it
    """Items that were found, the best or the newest first, and whether that is all.

    Attributes:
        cut: There may be more that answer: further items were too large together to be given, or to be looked at.
    """

    cut: bool

    def __new__(cls, items: Iterable[Found] = (), *, cut: bool = False) -> Self:
        """Make one of some items."""
        made = super().__new__(cls, items)
        made.cut = cut
        return made


@dataclass(frozen=True, slots=True)
class MemoryTerms:
    """The terms of an agent's memory.

    Attributes:
        retention_days: After how long lasting items are deleted; None: as configured for all.
        half_life_days: After how long an item counts half.
        vector_weight, keyword_weight: How much meaning and words count; together 1.
        classification: The most that it may hold, for policies.
        purpose: What it is kept for, for policies.
    """

    retention_days: float | None = None
    half_life_days: float = 30.0
    vector_weight: float = 0.7
    keyword_weight: float = 0.3
    classification: str = "secret"
    purpose: str = "unknown"


def check_space(name: str) -> AgentId:
    """The name of an agent whose memory is meant.

    Raises:
        InputError: It is none.
    """
    check_type("agent", name, str, "the name of an agent or a `Principal`")
    if not SPACE_NAME.fullmatch(name):
        raise _wrong("this is not the name of an agent, `NAME` or `NAME/INSTANCE`")
    return AgentId(name)


def _tags(tags: tuple[str, ...]) -> tuple[str, ...]:
    check_each("tags", tags, str, TEXTS)
    if len(tags) > MAX_TAGS:
        raise _wrong(f"an item has at most {MAX_TAGS} tags")
    return tuple(sorted({tag_of(tag) for tag in tags}))


def _unit(name: str, value: float) -> None:
    check_type(name, value, (int, float), "a number from 0 to 1")
    if not 0 <= value <= 1:
        raise _wrong(f"`{name}` is a number from 0 to 1")


def _wrong(msg: str) -> InputError:
    return InputError(msg, code="context.item")
