"""Whether a value stands in a text: strictly, for what may vouch for it; loosely, for what may have dictated it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Final

from ahocorasick_rs import AhoCorasick

from symbi.policy.normal import decodings, loose, squeezed, strict, turned

MIN_SQUEEZED: Final = 6
"""Letters and digits that a value needs to be looked for without regard to what stands between them."""
MAX_SHARED_CHARS: Final = 512  # bounds the parts of a value that are looked for
MIN_ACCOUNT_DIGITS: Final = 6  # of a value that is looked for without regard to the groups it is written in
MAX_NUMBER_CHARS: Final = 40  # a longer run of digits is no quantity
MAX_COMPARED_CHARS: Final = 16_777_216  # bounds the looking for one value in one text that repeats parts of it

_NUMBER: Final = re.compile(
    r"(?<![\w.,])[+-]?\d{1,3}(?:[,.'\u2019 ]\d{3})+(?:[.,]\d+)?(?![\w])|(?<!\w)[+-]?\d+(?:[.,]\d+)?(?!\w)"
)
_WITH_UNIT: Final = re.compile(  # `USD500`, `500eur`, `5k`, `1e3`; no `3gs`, which is a name
    r"(?<!\w)(?:[^\W\d_]{2,4})?(?P<number>\d{1,15}(?:[.,]\d{1,15})?)(?:e[+-]?\d{1,3}|[kmbx]|bn|mn|[^\W\d_]{3,12})?(?!\w)"
)
_NUMBER_WORD: Final = re.compile(
    r"\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|twenty|thirty|forty|fifty|sixty|seventy"
    r"|eighty|ninety|hundred|thousand|million|billion|double|triple|half|twice|percent|dozen|all|everything|maximum|much|many)\b"
)
_DATE: Final = re.compile(r"(?<!\d)(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})(?!\d)")
_DAY_FIRST: Final = re.compile(r"(?<!\d)(\d{1,2})[-/. ]+(\d{1,2})(?:[-/. ]+(?:\d{2}|\d{4}))?(?!\d)")
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH_DAY: Final = re.compile(rf"\b({'|'.join(_MONTHS)})[a-z]*\.?\s+(\d{{1,2}})(?!\d)")
_DAY_MONTH: Final = re.compile(rf"(?<!\d)(\d{{1,2}})(?:st|nd|rd|th|\.)?\s+(?:of\s+)?({'|'.join(_MONTHS)})")
_YEAR_BEHIND: Final = r"(?:(?:st|nd|rd|th)?,?\s+\d{4}(?!\d))?"
_TIMES: Final = re.compile(
    rf"(?<!\d)\d{{4}}[-/.]\d{{1,2}}[-/.]\d{{1,2}}(?!\d)|(?<!\d)\d{{1,2}}[-/.]\d{{1,2}}[-/.]\d{{2,4}}(?!\d)"
    rf"|(?<!\d)\d{{1,2}}:\d{{2}}(?::\d{{2}})?(?!\d)|{_MONTH_DAY.pattern}{_YEAR_BEHIND}|{_DAY_MONTH.pattern}[a-z]*{_YEAR_BEHIND}"
)
_GENITIVE: Final = re.compile(r"['\u2019]s?(?!\w)")
_SHORT_NUMBER: Final = re.compile(r"\d{1,4}")
_MOMENT: Final = re.compile(
    r"\d{4}-\d{2}-\d{2}(?:[T ]\d{1,2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?(?:Z|[+-]\d{2}:?\d{2})?)?|\d{1,2}:\d{2}(?::\d{2})?"
)


def is_moment(text: str) -> bool:
    """Whether a text is a date, a time or both, as machines write them."""
    return _MOMENT.fullmatch(text.strip()) is not None


def number_of(text: str) -> Decimal | None:
    """A decimal number, or None."""
    if len(text) > MAX_NUMBER_CHARS:
        return None
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number.normalize() if number.is_finite() else None


def numbers_in(text: str, *, every_reading: bool = False) -> Iterator[Decimal]:
    """The numbers that a text writes in digits.

    Args:
        text: The text.
        every_reading: Also take a point for a comma and the other way round, and the number of `500EUR` or `5k`.
    """
    if every_reading:
        for match in _WITH_UNIT.finditer(text):
            forms = {match["number"].replace(",", ""), match["number"].replace(",", ".")}
            yield from (number for form in sorted(forms) if (number := number_of(form)) is not None)
    for match in _NUMBER.finditer(text):
        written = re.sub(r"['\u2019 ]", "", match.group())
        english = written.replace(",", "")
        if "," in written and written.rfind(",") > written.rfind(".") and not re.search(r",\d{3}$", written):
            english = written.replace(".", "").replace(",", ".")
        forms = {english}
        if every_reading:
            forms |= {written.replace(",", ""), written.replace(".", "").replace(",", ".")}
        yield from (number for form in sorted(forms) if (number := number_of(form)) is not None)


def contains(text: str, value: str, *, undecided: bool = False) -> bool:
    """Whether a value stands in a text as a whole: not as a part of a longer word, number, date or address.

    Both in the same form, `strict` or `loose`.

    Args:
        text: Where to look.
        value: What to look for.
        undecided: The answer where `text` holds so many parts like `value` that looking further costs too much.
    """
    if not value:
        return False
    left = MAX_COMPARED_CHARS
    at = text.find(value)
    while at >= 0:
        if _is_bounded(text, at, at + len(value)):
            return True
        left -= len(value)
        if left < 0:
            return undecided
        at = text.find(value, at + 1)
    return False


def _is_bounded(text: str, start: int, end: int) -> bool:
    return not (
        _goes_on(text[start], text[start - 1 : start], text[start - 2 : start - 1] if start > 1 else "")
        or (_goes_on(text[end - 1], text[end : end + 1], text[end + 1 : end + 2]) and not _GENITIVE.match(text, end))
    )


def _goes_on(edge: str, beside: str, beyond: str) -> bool:
    """Whether what stands at the edge of a match goes on beside it: `com` in `evil.com`, `13` in `13:00`.

    A colon, a comma or a slash joins digits to a time, a number or a date, and parts anything else.
    """
    if not _is_word(edge):
        return False
    if _is_word(beside) or beside in {"@", "-", "+", "%"}:
        return True
    if beside in {".", "'", "\u2019"}:
        return _is_word(beyond)
    return beside in {":", ",", "/"} and edge.isdigit() and beyond.isdigit()


def _is_word(character: str) -> bool:
    """Whether it is a letter, a digit or an underscore; the empty text is none."""
    return character.isalnum() or character == "_"


def account_digits(text: str) -> str | None:
    """The letters and digits of a value that is an account or telephone number by its looks, else None."""
    bare = re.sub(r"[ ().-]", "", text.strip())
    if bare.isascii() and bare.removeprefix("+").isalnum() and sum(one.isdigit() for one in bare) >= MIN_ACCOUNT_DIGITS:
        return bare.casefold()
    return None


@dataclass(slots=True)
class Needle:
    """A value that is looked for in untrusted texts."""

    text: str
    loose: str = field(init=False)
    squeezed: str = field(init=False)
    _parts: AhoCorasick | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.loose = loose(self.text)
        self.squeezed = squeezed(self.text)

    @property
    def parts(self) -> AhoCorasick | None:
        """What finds a good part of the value in a text, in one pass; None where the value has no letter or digit."""
        if self._parts is None and self.squeezed:
            bare = self.squeezed
            parts = {bare[at : at + MIN_SQUEEZED] for at in range(len(bare) - MIN_SQUEEZED + 1)} or {bare}
            self._parts = AhoCorasick(sorted(parts))
        return self._parts


@dataclass(slots=True)
class Hay:
    """A text that may have dictated a value, with all that it may hold in encoded form."""

    text: str
    forms: tuple[str, ...] = field(init=False)
    """The loose forms of the text and of what it holds in encoded form."""
    turned: tuple[str, ...] = field(init=False)
    undated: tuple[str, ...] = field(init=False)
    """`forms` without their dates and times: the `10` of `June 10` is nobody's number but the day's."""
    squeezed: tuple[str, ...] = field(init=False)
    numbers: frozenset[Decimal] = field(init=False)
    counts: bool = field(init=False)
    """It speaks of numbers at all, in digits or in words."""
    complete: bool = field(init=False)
    """All that it holds in encoded form was looked into; else it may hold anything."""

    def __post_init__(self) -> None:
        decoded, self.complete = decodings(self.text)
        texts = (self.text, *decoded)
        other = tuple(turned(self.text))
        self.forms = tuple(loose(one) for one in texts)
        self.turned = tuple(loose(one) for one in other)
        self.undated = tuple(_TIMES.sub(" ; ", one) for one in self.forms)
        self.squeezed = tuple(dict.fromkeys(squeezed(one) for one in (*texts, *other)))
        self.numbers = frozenset(number for one in self.undated for number in numbers_in(one, every_reading=True))
        self.counts = not self.complete or bool(self.numbers) or any(_NUMBER_WORD.search(one) for one in self.undated)

    def holds(self, value: "Needle") -> bool:
        """Whether the value stands in it, in whatever spelling or encoding."""
        if not self.complete:
            return True
        if len(value.squeezed) >= MIN_SQUEEZED and any(value.squeezed in hay for hay in self.squeezed):
            return True
        hays = self.undated if _SHORT_NUMBER.fullmatch(value.loose) else (*self.forms, *self.turned)
        return any(contains(hay, value.loose, undecided=True) for hay in hays)

    def shares(self, value: "Needle") -> bool:
        """Whether a good part of the value stands in it; of a long value, that is not looked into."""
        if len(value.squeezed) > MAX_SHARED_CHARS or not self.complete:
            return True
        parts = value.parts
        return parts is not None and any(parts.find_matches_as_indexes(hay) for hay in self.squeezed)

    def holds_day(self, value: str) -> bool:
        """Whether the day of a date stands in it, in whatever form."""
        found = _DATE.search(value)
        if found is None:
            return False
        month, day = int(found[2]), int(found[3])
        return not self.complete or any((month, day) in _days_in(hay) for hay in self.forms)


def _days_in(text: str) -> Iterator[tuple[int, int]]:
    """Month and day of the dates in a text; both readings where it is not clear which is which."""
    for one in _DATE.finditer(text):
        yield int(one[2]), int(one[3])
    for one in _DAY_FIRST.finditer(text):
        yield int(one[1]), int(one[2])
        yield int(one[2]), int(one[1])
    for one in _MONTH_DAY.finditer(text):
        yield _MONTHS.index(one[1]) + 1, int(one[2])
    for one in _DAY_MONTH.finditer(text):
        yield _MONTHS.index(one[2]) + 1, int(one[1])


@lru_cache(maxsize=4)  # one value is held against many texts, one after the other
def _asked(value: str) -> tuple[str, str | None]:
    return strict(value), account_digits(value)


@dataclass(slots=True)
class Voucher:
    """A text that vouches for what stands in it.

    Attributes:
        text: The text.
        whole: Only all of it counts.
        lines: Or a line or item of it, where it has no other structure.
    """

    text: str
    whole: bool = False
    lines: bool = False
    strict: str = field(init=False)
    accounts: str = field(init=False)
    items: frozenset[str] = field(init=False)
    numbers: frozenset[Decimal] = field(init=False)

    def __post_init__(self) -> None:
        self.strict = strict(self.text)
        self.accounts = re.sub(r"[ ().-]", "", self.strict)
        items = {self.strict}
        named = re.fullmatch(r"[^<>@]*<([^<>\s]+@[^<>\s]+)>", self.strict)
        if named:
            items.add(named[1])
        if self.lines:
            for line in self.text.splitlines():
                bare = re.sub(r"^\s*(?:[-*\u2022]|\d+[.)])\s+", "", line)
                for part in (bare, bare.partition(":")[2], *re.split(r"[,;|\t]", bare)):
                    items |= {strict(part), strict(part.partition(":")[2])}
        self.items = frozenset(items - {""})
        alone = number_of(self.strict)
        self.numbers = frozenset({alone} - {None}) if self.whole else frozenset(numbers_in(self.strict))  # type: ignore[arg-type]  # without None

    def vouches(self, value: str) -> bool:
        """Whether the value is what stands there, or a part of it where parts count."""
        plain, account = _asked(value)
        if plain in self.items:
            return True
        if account is not None and self.whole and any(account_digits(one) == account for one in self.items):
            return True
        if self.whole:
            return False
        if contains(self.strict, plain):
            return True
        return account is not None and account in self.accounts and self._is_apart(account)

    def _is_apart(self, account: str) -> bool:
        """Whether an account number that is written in groups is no part of a longer one."""
        at = self.accounts.find(account)
        while at >= 0:
            before, after = self.accounts[at - 1 : at] if at else "", self.accounts[at + len(account) :][:1]
            if not (before.isdigit() or after.isdigit()):
                return True
            at = self.accounts.find(account, at + 1)
        return False
