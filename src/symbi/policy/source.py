"""Policy files cut into single policies, each with its place.

Cedar's own errors carry no positions, and a set that was parsed as one text gives policies no file and line. So a file
is cut at the semicolons that end policies (those outside of strings and comments), and each policy is parsed alone;
where that fails, the first token that no policy can go on with is searched for.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import cedarpy
import msgspec

from symbi.errors import Place, PolicySyntaxError

MAX_POLICY_CHARS: Final = 32_768  # bounds recursion in the parser along chains of operators
MAX_NESTING: Final = 32  # bounds recursion in the parser: it overflows a small thread's stack at 48 open brackets
_MAX_IFS: Final = 32  # likewise, for `if … else if …`, which nests without brackets

_ONE_ENTITY_HINT: Final = "only the action may be one of several; write `when { [A, B].contains(resource) }`"

_TOKEN: Final = re.compile(
    r"""(?P<space>[\s\ufeff]+|//[^\n\r]*)
      | (?P<string>"(?:\\.|[^"\\])*")
      | (?P<word>[^\W\d]\w*)
      | (?P<number>\d+)
      | (?P<symbol>&&|\|\||::|[=!<>]=|.)""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class PolicySource:
    """One text of Cedar policies or, where the file is called `history.toml`, of declared counters.

    Attributes:
        file: Name as the user gave it.
        text: What stands in it.
    """

    file: str
    text: str


@dataclass(frozen=True, slots=True)
class Statement:
    """One policy as it stands in a source, annotations included.

    Attributes:
        text: From its first token to its semicolon.
        place: Of its first token.
        ends: Offsets in `text` at which its tokens end.
    """

    text: str
    place: Place
    ends: tuple[int, ...]


def split(source: PolicySource) -> Iterator[Statement]:
    """The policies of a source, in order; none is parsed yet.

    Raises:
        PolicySyntaxError: A string or the last policy is not closed, or a policy is too long or too deeply nested.
    """
    start, ends, depth, ifs = -1, list[int](), 0, 0
    counted, line = 0, 1  # lines are counted once, from one policy to the next
    for match in _TOKEN.finditer(source.text):
        lexeme, at = match.group(), match.start()
        if match.lastgroup == "space":
            continue
        if lexeme == '"':
            raise PolicySyntaxError("a string is not closed", place=_place(source, at), hint='add the closing `"`')
        if start < 0:
            line += source.text.count("\n", counted, at)
            counted = start = at
            ends, depth, ifs = [], 0, 0
        ends.append(match.end() - start)
        if match.lastgroup == "symbol":
            depth = max(0, depth + (lexeme in "([{") - (lexeme in ")]}"))
        ifs += lexeme == "if"
        if depth > MAX_NESTING or ifs > _MAX_IFS:
            raise PolicySyntaxError(
                f"a policy is nested more than {MAX_NESTING} deep", place=_place(source, at), hint="split it in several"
            )
        if match.end() - start > MAX_POLICY_CHARS:
            raise PolicySyntaxError(
                f"a policy is longer than {MAX_POLICY_CHARS} characters",
                place=_place(source, start),
                hint="split it in several",
            )
        if lexeme == ";":
            place = Place(source.file, line, start - source.text.rfind("\n", 0, start))
            yield Statement(source.text[start : match.end()], place, tuple(ends))
            start = -1
    if start >= 0:
        end = start + (ends[-1] if ends else 0)
        raise PolicySyntaxError("a policy is not finished", place=_place(source, end), hint="end it with `;`")


def _place(source: PolicySource, offset: int) -> Place:
    before = source.text[:offset]
    return Place(source.file, before.count("\n") + 1, offset - before.rfind("\n"))


def end_of_scope(text: str) -> int:
    """Where the scope of a policy ends, and its conditions begin; the text is one that `parse` takes."""
    depth, begun = 0, False
    for match in _TOKEN.finditer(text):
        lexeme = match.group()
        begun = begun or (match.lastgroup == "word" and depth == 0 and lexeme in {"permit", "forbid"})
        if match.lastgroup == "symbol" and begun:
            depth += (lexeme == "(") - (lexeme == ")")
            if depth == 0 and lexeme == ")":
                return match.end()
    raise PolicySyntaxError("a policy has no scope")


def parse(statement: Statement) -> Mapping[str, Any]:
    """One policy as Cedar's JSON form: `effect`, scopes, `conditions`, `annotations`.

    Raises:
        PolicySyntaxError: It is not a policy, is a template, or is nested too deeply.
    """
    try:
        text = cedarpy.policies_to_json_str(statement.text)
    except ValueError as error:
        hint = _ONE_ENTITY_HINT if "expected single entity uid" in str(error) else None
        raise PolicySyntaxError(_lower(str(error)), place=_locate(statement, str(error)), hint=hint) from error
    parsed = msgspec.json.decode(text)
    if parsed["templates"]:
        raise PolicySyntaxError(
            "a template is not a policy", place=statement.place, hint="write the entity in place of the `?` slot"
        )
    policies = parsed["staticPolicies"]
    if len(policies) != 1:
        raise PolicySyntaxError("a `;` without a policy before it", place=statement.place, hint="remove it")
    try:
        cedarpy.PolicySet.from_json_str(text)
    except ValueError as error:
        raise PolicySyntaxError(
            "a condition is nested too deeply, or chains more than about 60 operators",
            place=statement.place,
            hint="test membership in a set (`[…].contains(x)`), or write several policies",
        ) from error
    (policy,) = policies.values()
    checked: Mapping[str, Any] = policy
    return checked


def _locate(statement: Statement, message: str) -> Place:
    """The place of the first token that cannot stand where it does, or else of one that the error names.

    What stands before that token, ended by a semicolon, is either a policy or wrong at the semicolon; with the token,
    it is wrong before the semicolon.
    """
    if message.startswith("unexpected end"):
        return _within(statement, len(statement.ends) - 1)
    if not message.startswith(("unexpected token", "invalid token")):
        return _named(statement, message)
    good, bad = -1, len(statement.ends) - 1
    while bad - good > 1:
        middle = (good + bad) // 2
        if _is_start(statement.text[: statement.ends[middle]]):
            good = middle
        else:
            bad = middle
    return _within(statement, bad)


def _named(statement: Statement, message: str) -> Place:
    """The place of the first token that an error of the parser ends with or has in backticks, or else the policy's own."""
    words = {message.rpartition(": ")[2], *re.findall(r"`([^`]+)`", message)}
    start = 0
    for index, end in enumerate(statement.ends):
        if statement.text[start:end].split()[-1] in words:
            return _within(statement, index)
        start = end
    return statement.place


def _is_start(text: str) -> bool:
    """Whether no token of a text is out of place so far."""
    try:
        cedarpy.policies_to_json_str(f"{text};")
    except ValueError as error:
        wrong = str(error)
        return wrong == "unexpected token `;`" or not wrong.startswith(("unexpected token", "invalid token"))
    return True


def _within(statement: Statement, index: int) -> Place:
    """The place of a token, counted from 0."""
    end = statement.ends[index]
    previous = statement.ends[index - 1] if index else 0
    gap = re.match(r"(?:\s+|//[^\n\r]*)*", statement.text[previous:end])
    offset = previous + (gap.end() if gap else 0)
    before = statement.text[:offset]
    lines = before.count("\n")
    column = offset - before.rfind("\n") if lines else statement.place.column + offset
    return Place(statement.place.file, statement.place.line + lines, column)


def _lower(message: str) -> str:
    """A message of the parser in our style: on one line, its first letter small, unless the word is a name."""
    message = " ".join(message.split())
    return message[:1].lower() + message[1:] if message[1:2].islower() else message
