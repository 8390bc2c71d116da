"""What stands in a definition that is written for a model, or hidden from people: findings with place and reason.

A finding is a reason to look, and no proof: an honest description may say `always call`, and a hostile one may say
nothing that is found here. It is pure. What is looked at: every text of the definition, wherever it stands, for a model
is shown all of it: also the value of a keyword that nobody knows, and the name of one that is no plain word.

Words are looked for in the text as it looks (`symbi.tools.lookalike.latinised`) and without what nobody sees, so that
neither a Cyrillic letter nor a zero-width space between two letters hides them.
"""

import base64
import binascii
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from symbi.tools.lookalike import MAX_DEPTH, is_bidi, is_hidden, joins_picture, latinised, mixed_scripts, shown
from symbi.tools.port import ToolDefinition
from symbi.tools.schemapin.signature import META_KEY
from symbi.tools.text import cut
from symbi.types import JsonValue

MAX_FINDINGS: Final = 32  # of one tool; the rest is more of the same
MAX_TEXT_CHARS: Final = 131_072  # of one text; a whole definition has no more bytes
MAX_PLACE_CHARS: Final = 160
BASE64_CHARS: Final = 80  # a run that is so long is no word; keys and hashes in examples are shorter
GAP_CHARS: Final = 60  # so many spaces, or a third as many lines, push text out of sight
MIN_NAME_CHARS: Final = 5  # of another tool's name that a text is searched for; `add` and `list` are words


class Severity(StrEnum):
    """How much a finding weighs."""

    NOTICE = "notice"
    """Worth reading."""
    WARNING = "warning"
    """Seldom in an honest definition."""
    SEVERE = "severe"
    """Hidden from people, or written to direct a model: in strict mode, a person looks at it first."""


RANKS: Final = ("none", *(one.value for one in Severity))
"""What policies see of the worst finding, mildest first."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding.

    Attributes:
        place: Where in the definition, e.g. `inputSchema.properties.path.description`; printable ASCII.
        kind: `hidden`, `markup`, `instruction`, `secret`, `reference`, `encoded`, `script` or `address`.
        severity: How much it weighs.
        reason: One line, printable.
    """

    place: str
    kind: str
    severity: Severity
    reason: str

    def as_json(self) -> dict[str, JsonValue]:
        """For the trail and for `--json`."""
        return {"place": self.place, "kind": self.kind, "severity": self.severity.value, "reason": self.reason}


def worst(findings: Sequence[Finding]) -> str:
    """The rank of the worst finding; `none` where there is none."""
    return max((one.severity.value for one in findings), key=RANKS.index, default=RANKS[0])


def screen(definition: ToolDefinition, others: Collection[str] = ()) -> tuple[Finding, ...]:
    """What is found in a definition, the worst first, at most `MAX_FINDINGS`.

    Args:
        definition: As its server gave it.
        others: Names of other tools, on whatever server.
    """
    names = [name for name in others if len(name) >= MIN_NAME_CHARS and name != definition.name]
    found: dict[tuple[str, str, str], Finding] = {}
    for place, text in _texts(definition):
        where = cut(shown(place), MAX_PLACE_CHARS)
        for kind, severity, reason in _judge(text[:MAX_TEXT_CHARS], names):
            found.setdefault((where, kind, reason), Finding(where, kind, severity, reason))
    ranked = sorted(found.values(), key=lambda one: -RANKS.index(one.severity.value))
    return tuple(ranked[:MAX_FINDINGS])


# --- where text stands ----------------------------------------------------------------------------------------------


_NAMED: Final = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_PLAIN_NAME: Final = re.compile(r"\$?[A-Za-z][A-Za-z0-9_-]{0,31}", re.ASCII)  # of a member: it says nothing to a model


def _texts(definition: ToolDefinition) -> Iterator[tuple[str, str]]:
    """Each text that a model may be shown, with its place."""
    yield "name", definition.name
    yield "title", definition.title or ""
    yield "description", definition.description
    yield from _strings(definition.annotations, "annotations", 0)
    yield from _strings(definition.rest, "", 0)
    yield from _strings({key: value for key, value in definition.meta.items() if key != META_KEY}, "_meta", 0)
    for schema, place in ((definition.input_schema, "inputSchema"), (definition.output_schema, "outputSchema")):
        # Which version of JSON Schema it is, is one of a few addresses; any other is refused.
        bare = {key: value for key, value in (schema or {}).items() if key != "$schema"}
        yield from _in_schema(bare, place, 0)


def _in_schema(schema: JsonValue, place: str, depth: int) -> Iterator[tuple[str, str]]:
    if not isinstance(schema, Mapping) or depth > MAX_DEPTH:
        yield from _strings(schema, place, depth)
        return
    for key, value in schema.items():
        at = f"{place}.{key}"
        if key in _NAMED and isinstance(value, Mapping):
            for name, inner in value.items():
                yield f"{at} (a name)", name
                yield from _in_schema(inner, f"{at}.{name}", depth + 1)
            continue
        yield from _name(key, place)
        if isinstance(value, Sequence) and not isinstance(value, str):
            for number, inner in enumerate(value):
                yield from _in_schema(inner, f"{at}[{number}]", depth + 1)
        else:
            yield from _in_schema(value, at, depth + 1)


def _strings(value: JsonValue, place: str, depth: int) -> Iterator[tuple[str, str]]:
    """Every text in a value."""
    if isinstance(value, str):
        yield place, value
    elif depth <= MAX_DEPTH and isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _name(key, place)
            yield from _strings(inner, f"{place}.{key}".lstrip("."), depth + 1)
    elif depth <= MAX_DEPTH and isinstance(value, Sequence):
        for number, inner in enumerate(value):
            yield from _strings(inner, f"{place}[{number}]", depth + 1)


def _name(key: str, place: str) -> Iterator[tuple[str, str]]:
    """The name of a member, if it could say something."""
    if not _PLAIN_NAME.fullmatch(key):
        yield f"{place} (a name)".lstrip(), key


# --- what is looked for ---------------------------------------------------------------------------------------------


_Found = tuple[str, Severity, str]


def _phrase(*parts: str) -> re.Pattern[str]:
    """Words that stand in this order, with few between them; looked for in the text as it looks."""
    return re.compile(r"\b" + "".join(parts) + r"\b")


_PART: Final = r"[^\w<>]{1,4}"  # between two words; bounded, so that no text makes the search slow
_GAP: Final = rf"(?:{_PART}\w{{1,30}}){{0,4}}?{_PART}"
_INSTRUCTIONS: Final[Sequence[tuple[re.Pattern[str], Severity, str]]] = (
    (
        _phrase(r"(?:ignore|disregard|forget|override|bypass)", _GAP,
                r"(?:previous|prior|above|earlier|preceding|all|any|your|other|system)", _GAP,
                r"(?:instructions?|prompts?|rules?|directions?|context|guidelines?|messages?|constraints?)"),
        Severity.SEVERE, "tells a model to pass over its instructions",
    ),
    (
        _phrase(r"(?:do not|don't|dont|never|must not|without|avoid|no need to)", _GAP,
                r"(?:tell|telling|mention|mentioning|inform|informing|notify|notifying|reveal|show|alert|ask|asking|explain)",
                rf"(?:{_PART}\w{{1,30}}){{0,6}}?{_PART}", r"(?:user|users|human|person|anyone|anybody|people|operator)"),
        Severity.SEVERE, "tells a model to keep something from people",
    ),
    (
        _phrase(r"(?:before|prior to|instead of|whenever|when|after)[^\w<>]{1,4}(?:using|calling|invoking|running|you use|you call)",
                _GAP, r"(?:tools?|functions?|commands?|it)"),
        Severity.SEVERE, "directs the use of other tools",
    ),
    (
        _phrase(r"(?:you|the (?:model|assistant|agent|ai|llm))[^\w<>]{1,4}(?:must|should always|have to|are required to|shall|will always)"),
        Severity.NOTICE, "directs its reader",
    ),
    (
        _phrase(r"(?:always|first|must)[^\w<>]{1,4}(?:call|use|run|invoke|read|send|include|pass|execute)"),
        Severity.WARNING, "directs a model",
    ),
    (
        _phrase(r"(?:system prompt|developer message|hidden instructions?|new instructions?|conversation history|chat history|"
                r"previous messages|entire conversation|full conversation)"),
        Severity.SEVERE, "speaks of what a tool is not concerned with: prompts or the conversation",
    ),
    (
        _phrase(r"(?:read|open|load|include|send|forward|upload|copy|pass|post|exfiltrate|append|put)", _GAP,
                r"(?:contents?|files?|conversation|keys?|tokens?|passwords?|secrets?|credentials?|it)", _GAP,
                r"(?:sidenote|side note|to https?|to the following (?:url|address|server)|as the (?:argument|parameter|value) of)"),
        Severity.SEVERE, "asks for data that a call of the tool does not need",
    ),
    (_phrase(r"(?:act as|pretend to be|you are now|roleplay)"), Severity.WARNING, "gives a model a part to play"),
)  # fmt: skip

_SECRET_PATHS: Final = re.compile(
    r"(?:~|/root|/home/[\w.-]{1,32}|\$home|%userprofile%)/\.[a-z]|\.ssh/|\bid_(?:rsa|ed25519|ecdsa|dsa)\b|/etc/(?:passwd|shadow|sudoers)"
    r"|\.aws/credentials|\.kube/config|\.git-credentials|\.netrc\b|\.npmrc\b|\.pypirc\b|\.gnupg\b|(?<![\w.])\.env\b"
    r"|\bmcp\.json\b|\.cursor/|claude_desktop_config|\bsecrets\.toml\b|wallet\.dat|/proc/self/environ"
)
_SECRET_WORDS: Final = re.compile(
    r"\b(?:private key|api[ _-]?keys?|passwords?|access tokens?|credentials?|seed phrase)\b"
)
_MARKUP: Final = re.compile(
    r"< ?/? ?(important|system|instructions?|secret|hidden|critical|admin|assistant|user|human|priority|override|s|sys|inst)\b[^<>]{0,80}>"
    r"|\[ ?/? ?(?:inst|system|important) ?\]|<\|[a-z_]{2,24}\|>",
    re.IGNORECASE,
)
"""Looked for where white space is one space: two runs of it beside each other would make the search take quadratic time."""
_COMMENT: Final = re.compile(r"<!--|\[//\]: #|/\*\s*hidden", re.IGNORECASE)
_UNSEEN_STYLE: Final = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*hidden|font-size\s*:\s*0|opacity\s*:\s*0\b|color\s*:\s*(?:white|transparent|#fff)",
    re.IGNORECASE,
)
_TAG_LETTERS: Final = frozenset(map(chr, range(0xE0020, 0xE007F)))  # ASCII that nobody sees
_ADDRESS: Final = re.compile(r"\b(?:https?|wss?|ftp|data|javascript|file)\s?:\s?/?/?[^\s\"'<>]{4,}", re.IGNORECASE)
_ENCODED: Final = re.compile(rf"[A-Za-z0-9+/_-]{{{BASE64_CHARS},}}={{0,2}}")
_SPACE: Final = re.compile(r"\s+")


def _judge(text: str, names: Sequence[str]) -> Iterator[_Found]:
    if not text:
        return
    yield from _hidden(text)
    seen = _SPACE.sub(" ", latinised(text))
    yield from _directing(seen)
    yield from _marked(text)
    yield from _encoded(text)
    for name in names:
        if _names(name, text):
            yield "reference", Severity.WARNING, f"speaks of another tool, `{shown(name)}`"
    mixed = mixed_scripts(text)
    if mixed:
        yield "script", Severity.WARNING, f"mixes letters of {' and '.join(mixed).lower()} in one word"


def _directing(seen: str) -> Iterator[_Found]:
    for pattern, severity, reason in _INSTRUCTIONS:
        if (hit := pattern.search(seen)) is not None:
            yield "instruction", severity, f"{reason}: `{shown(hit.group())}`"
    if (hit := _SECRET_PATHS.search(seen)) is not None:
        around = seen[max(0, hit.start() - 20) : hit.end() + 20]
        yield "secret", Severity.SEVERE, f"names a file where secrets are kept: `{shown(around.strip())}`"
    elif (hit := _SECRET_WORDS.search(seen)) is not None:
        yield "secret", Severity.NOTICE, f"speaks of secrets: `{shown(hit.group())}`"


def _hidden(text: str) -> Iterator[_Found]:
    unseen = [
        c
        for place, c in enumerate(text)
        if not c.isascii()
        and (is_bidi(c) or is_hidden(c))
        and not joins_picture(text, place)
        and not _joins_letters(text, place)
    ]
    turning = sorted({ord(c) for c in unseen if is_bidi(c)})
    others = sorted({ord(c) for c in unseen if not is_bidi(c)})
    if turning:
        yield "hidden", Severity.SEVERE, f"turns the direction of reading: {_numbers(turning)}"
    if others:
        spelt = "".join(chr(ord(c) - 0xE0000) for c in unseen if c in _TAG_LETTERS)
        says = f", which spell `{shown(spelt)}`" if spelt else ""
        yield "hidden", Severity.SEVERE, f"holds {len(unseen)} characters that nobody sees: {_numbers(others)}{says}"
    controls = sorted({ord(c) for c in text if (c < " " and c not in "\t\n\r") or "\x7f" <= c <= "\x9f"})
    if controls:
        yield "hidden", Severity.SEVERE, f"holds control characters, which steer a terminal: {_numbers(controls)}"
    if any(_is_gap(hit.group()) for hit in _SPACE.finditer(text.rstrip()) if len(hit.group()) >= GAP_CHARS // 3):
        yield "hidden", Severity.WARNING, "holds text far to the right or far below, out of sight"


def _is_gap(space: str) -> bool:
    """Whether white space pushes what follows out of sight."""
    return space.count("\n") >= GAP_CHARS // 3 or max(map(len, space.split("\n"))) >= GAP_CHARS


def _joins_letters(text: str, place: int) -> bool:
    """A joiner between two letters or marks of a script that is written with it, such as Persian or Hindi."""
    if text[place] not in "\u200c\u200d" or not 0 < place < len(text) - 1:
        return False
    sides = text[place - 1], text[place + 1]
    return all(unicodedata.category(c) in {"Lo", "Mn", "Mc"} and ord(c) > 0x590 for c in sides)  # noqa: PLR2004 - beyond Latin, Greek, Cyrillic, Armenian


def _numbers(points: Sequence[int]) -> str:
    most = 6
    listed = ", ".join(f"U+{point:04X}" for point in points[:most])
    return listed + (f" and {len(points) - most} more" if len(points) > most else "")


def _marked(text: str) -> Iterator[_Found]:
    if (hit := _MARKUP.search(_SPACE.sub(" ", unicodedata.normalize("NFKC", text)))) is not None:
        yield "markup", Severity.SEVERE, f"bears a mark that is made for models: `{shown(hit.group())}`"
    if _COMMENT.search(text):
        yield "markup", Severity.SEVERE, "holds a comment, which is not shown where it is rendered"
    if _UNSEEN_STYLE.search(text):
        yield "markup", Severity.SEVERE, "holds a style that hides text"
    if (hit := _ADDRESS.search(text)) is not None:
        yield "address", Severity.NOTICE, f"names an address: `{shown(hit.group())}`"


def _encoded(text: str) -> Iterator[_Found]:
    for hit in _ENCODED.finditer(text):
        run = hit.group()
        if run.isdigit() or (run.isalpha() and run.islower()):
            continue
        said = _decoded(run)
        if said:
            yield "encoded", Severity.SEVERE, f"holds text in base64, which begins `{shown(said[:40])}`"
        else:
            yield "encoded", Severity.WARNING, f"holds {len(run)} characters that may be base64"
        return


def _decoded(run: str) -> str:
    """What a run says in base64, if that is text."""
    plain = run.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        said = base64.b64decode(plain[: len(plain) // 4 * 4], validate=True).decode("utf-8", "ignore")
    except (ValueError, binascii.Error):
        return ""
    letters = sum(c.isascii() and (c.isalnum() or c in " .,:;'\"!?\n/-_{}()") for c in said)
    return said if said and letters >= len(run) * 3 // 4 * 9 // 10 else ""


def _names(name: str, text: str) -> bool:
    """Whether a text speaks of a tool: a name of several words wherever it stands, one of one word in quotes alone."""
    if name not in text:
        return False
    pattern = rf"(?<![\w-]){re.escape(name)}(?![\w-])"
    if not re.search(r"[_.-]|[a-z][A-Z]", name):
        pattern = rf"[`'\"]{re.escape(name)}[`'\"]"
    return re.search(pattern, text) is not None
