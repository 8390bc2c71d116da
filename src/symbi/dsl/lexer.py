"""Text to tokens: the lexis of the agent language.

White space and comments (`//` or `#` to the end of the line) separate tokens. Words are not told apart here: keywords
are contextual, so the parser decides what a word is. Only a line feed ends a line; a carriage return is white space.
"""

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, NoReturn

from symbi.dsl.ast import Comment, Span
from symbi.errors import DslError, Place

MAX_NUMBER_DIGITS: Final = 300
"""Bounds a number, so that it converts to a finite float."""
MAX_DURATION_DIGITS: Final = 12
"""Bounds the amount of a duration, so that arithmetic with it stays finite; no use needs more."""
MAX_FOUND_CHARACTERS: Final = 32
"""Bounds how much of a token an error message quotes."""

BOM: Final = "\ufeff"


class Kind(Enum):
    """What a token is."""

    WORD = auto()
    STRING = auto()
    NUMBER = auto()
    DURATION = auto()
    VAULT = auto()
    SYMBOL = auto()
    END = auto()


@dataclass(frozen=True, slots=True)
class Token:
    """One token.

    Attributes:
        kind: What it is.
        text: As written; empty at the end of the file.
        span: Where it stands.
        comments: The comments between the token before and this one.
    """

    kind: Kind
    text: str
    span: Span
    comments: tuple[Comment, ...] = ()

    @property
    def found(self) -> str:
        """How an error message names this token."""
        return "the end of the file" if self.kind is Kind.END else quote(self.text)


_TOKEN: Final = re.compile(
    r"""
      (?P<SPACE>    [ \t\r\n\f\v]+ )
    | (?P<COMMENT>  (?: // | \# ) [^\n]* )
    | (?P<STRING>   " [^"\\]*+ (?: \\. [^"\\]*+ )*+ " )
    | (?P<VAULT>    vault:// [A-Za-z0-9_./-]+ )
    | (?P<WORD>     (?! vault:// ) [A-Za-z_] [A-Za-z0-9_]* )
    | (?P<DURATION> [0-9]+ (?: \.seconds | \.minutes | \.hours | months | [smhdwy] ) (?! [A-Za-z0-9_] ) )
    | (?P<NUMBER>   [0-9]+ (?: _[0-9]+ )* (?: \.[0-9]+ (?: _[0-9]+ )* )? (?! [A-Za-z0-9_.] ) )
    | (?P<SYMBOL>   => | -> | == | != | <= | >= | && | \|\| | [+\-*/%]= | /(?!\*) | [][{}()<>,:;=+\-*%!.] )
    """,
    re.VERBOSE | re.DOTALL,
)
_BAD_NUMBER: Final = re.compile(r"[0-9][A-Za-z0-9_.]*")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_UNIT: Final = re.compile(r"([0-9]+)\.?([A-Za-z]+)\Z")

_UNIT_SPELLINGS: Final = {
    "second": ".seconds",
    "seconds": ".seconds",
    "sec": ".seconds",
    "s": "s",
    "minute": ".minutes",
    "minutes": ".minutes",
    "min": "m",
    "mins": "m",
    "m": "m",
    "hour": ".hours",
    "hours": ".hours",
    "hr": "h",
    "h": "h",
    "day": "d",
    "days": "d",
    "d": "d",
    "week": "w",
    "weeks": "w",
    "w": "w",
    "month": "months",
    "months": "months",
    "mo": "months",
    "year": "y",
    "years": "y",
    "y": "y",
}
"""Ways to write a unit of time that people try, and how it is written here."""

_CHARACTER_HINTS: Final = {
    "'": "strings stand in double quotes",
    "`": "strings stand in double quotes",
    "\u2018": "strings stand in straight double quotes",
    "\u2019": "strings stand in straight double quotes",
    "\u201c": "strings stand in straight double quotes",
    "\u201d": "strings stand in straight double quotes",
    "/": "there are no block comments; begin each line with `//`",
    "&": "write `&&`",
    "|": "write `||`",
    "?": "there is no `?`; use `if` with `else`",
    "\\": "a backslash stands in strings only",
    "\u00a0": "a no-break space is not white space here",
    BOM: "a byte order mark stands at the start of the file only",
}


def quote(text: str) -> str:
    """User text in backticks for a message: one line, bounded, with no invisible character."""
    short = text if len(text) <= MAX_FOUND_CHARACTERS else text[: MAX_FOUND_CHARACTERS - 1] + "\u2026"
    return "`" + "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in short) + "`"


def tokenize(text: str, file: str) -> list[Token]:
    """Cuts a text into tokens; the last one is of kind `END`.

    Args:
        text: The whole file; a byte order mark at its start is accepted.
        file: Its name, for places in errors.

    Raises:
        DslError: Something in it is no token.
    """
    surrogate = _SURROGATE.search(text)
    if surrogate:
        _fail(text, file, surrogate.start(), "UTF-8 text", "save the file as UTF-8")
    position = 1 if text.startswith(BOM) else 0
    line, line_start = 1, position
    tokens: list[Token] = []
    comments: list[Comment] = []
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            _refuse(text, file, position)
        kind, written = match.lastgroup or "", match.group()
        if kind == "COMMENT":
            written = written.rstrip()
            span = Span(line, position - line_start + 1, position, position + len(written))
            comments.append(Comment(written, span, own_line=not text[line_start:position].strip()))
        elif kind != "SPACE":
            span = Span(line, position - line_start + 1, position, match.end())
            tokens.append(Token(Kind[kind], written, span, tuple(comments)))
            comments.clear()
            _check_digits(tokens[-1], file)
        breaks = written.count("\n")
        if breaks:
            line += breaks
            line_start = position + written.rindex("\n") + 1
        position = match.end()
    end = Span(line, position - line_start + 1, position, position)
    tokens.append(Token(Kind.END, "", end, tuple(comments)))
    return tokens


_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED: Final = {"n": "\n", "t": "\t", "r": "\r"}


def unescape(written: str) -> str:
    r"""The value of a string token: `\n`, `\t`, `\r` are control characters, any other escaped character is itself."""
    return _ESCAPE.sub(lambda match: _ESCAPED.get(match[1], match[1]), written[1:-1])


def _check_digits(token: Token, file: str) -> None:
    limit = {Kind.NUMBER: MAX_NUMBER_DIGITS, Kind.DURATION: MAX_DURATION_DIGITS}.get(token.kind)
    if limit is not None and sum(c.isdigit() for c in token.text) > limit:
        raise DslError(
            f"expected at most {limit} digits, found {token.found}",
            code="dsl.syntax",
            place=token.span.place(file),
            hint="write a smaller number",
        )


def _refuse(text: str, file: str, position: int) -> NoReturn:
    """Says why no token starts at a position."""
    character = text[position]
    if character == '"':
        place = _place(text, file, position)
        hint = f"the string that begins at {place.line}:{place.column} is not closed"
        raise DslError('expected `"`, found the end of the file', code="dsl.syntax", place=place, hint=hint)
    number = _BAD_NUMBER.match(text, position)
    if number:
        _fail(text, file, position, "a number or a duration", _number_hint(number.group()), number.group())
    if text.startswith("vault://", position):
        _fail(text, file, position, "a path after `vault://`", "for example `vault://mail/token`", "vault://")
    found = text[position : position + 2] if character == "/" else character
    _fail(text, file, position, "a token", _CHARACTER_HINTS.get(character, ""), found)


def _number_hint(written: str) -> str:
    """What was probably meant by a number that is none."""
    unit = _UNIT.match(written)
    known = _UNIT_SPELLINGS.get(unit[2]) if unit else None
    if unit and known:
        return f"did you mean `{unit[1]}{known}`?"
    if unit and unit[2] == "ms":
        return "there are no milliseconds; the shortest unit is `s`"
    if re.match(r"[0-9._]+[eE][0-9]*\Z", written):
        return "a number has no exponent; write its digits"
    if re.match(r"[0-9_]*(\.[0-9_]+)?\.?(seconds|minutes|hours|months|[smhdwy])\Z", written):
        return "a duration counts whole units, in plain digits"
    if "__" in written or written.endswith("_") or "_." in written or "._" in written:
        return "a `_` stands between two digits"
    if re.match(r"[0-9_]+\.\Z", written):
        return "write digits after the point, or leave it out"
    if re.match(r"[0-9_.]+\Z", written):
        return "a number has one point at most"
    return "units of time are .seconds, .minutes, .hours, s, m, h, d, w, months and y; a size such as 100MB is a string"


def _place(text: str, file: str, position: int) -> Place:
    start = text.rfind("\n", 0, position) + 1
    if start == 0 and text.startswith(BOM):
        start = 1
    return Place(file, text.count("\n", 0, position) + 1, position - start + 1)


def _fail(text: str, file: str, position: int, expected: str, hint: str, found: str | None = None) -> NoReturn:
    raise DslError(
        f"expected {expected}, found {quote(text[position] if found is None else found)}",
        code="dsl.syntax",
        place=_place(text, file, position),
        hint=hint or None,
    )
