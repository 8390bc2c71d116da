"""Names that look like others: what a server offers under one is refused at listing, with the reason.

| what | judged on |
|---|---|
| characters nobody sees, or that turn the direction of reading | titles, names of arguments |
| letters of several scripts in one word (UTS #39, but for the usual mixes of East Asia) | titles, names of arguments |
| a character that is not what it looks like | names of tools, which are ASCII |
| two names of a server that differ in look-alikes, case or separators alone | names of tools |
| the name of another server's tool, or one that looks like it | names of tools; the configuration may allow it |
| a name of the runtime's own | names of tools |

Two texts look alike where their skeletons are the same: the skeleton of UTS #39 with a table that holds what looks like
printable ASCII (`tools/confusables.py` makes it of Unicode's data). It is pure: it judges texts and knows no server.
"""

import json
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from types import MappingProxyType
from typing import Final

from symbi.policy.catalog import BASE_ACTIONS
from symbi.tools.port import TOOL_NAME, ToolDefinition
from symbi.tools.text import cut, printable
from symbi.types import JsonValue

OWN_PREFIX: Final = "symbi"
"""Names of tools that begin so, however they are written, are the runtime's own."""

ANY_NAME: Final = "*"
"""In the configuration: every name may be one that another server's tool has."""

MAX_SHOWN_CHARS: Final = 80  # of a text from outside that a reason quotes
MAX_DEPTH: Final = 64  # of a schema; what is deeper has no canonical form and is refused there
_SEPARATORS: Final = str.maketrans("", "", "_-. \t\u00a0")
_TABLE: Final[Mapping[str, str]] = MappingProxyType(
    json.loads(files("symbi.tools").joinpath("confusables.json").read_text("ascii"))
)

_BIDI: Final = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_FILLERS: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180e\u180f\u2800\u3164\uffa0")
_TAGS: Final = range(0xE0000, 0xE1000)  # the block of tags, and of variation selectors 17 to 256
_PICTURES: Final = frozenset({"So", "Sk", "Sm", "Mn", "Me"})  # a heart, a skin tone, an arrow, a selector
_EAST: Final = frozenset({"CJK", "HIRAGANA", "KATAKANA", "BOPOMOFO", "HANGUL", "LATIN"})
_HALF: Final = frozenset({"FULLWIDTH", "HALFWIDTH", "MATHEMATICAL", "MODIFIER", "SUPERSCRIPT", "SUBSCRIPT", "CIRCLED"})


@dataclass(frozen=True, slots=True)
class LookAlike:
    """Why a name is refused.

    Attributes:
        reason: One line, printable.
        shadows: The tool that it would be taken for, `server.tool`; empty where there is none.
    """

    reason: str
    shadows: str = ""


def is_bidi(character: str) -> bool:
    """It turns the direction of reading."""
    return character in _BIDI


def is_hidden(character: str) -> bool:
    """Nobody sees it where it stands in a name: formats, tags, fillers and joiners, and controls."""
    category = unicodedata.category(character)
    return (
        category in {"Cf", "Cc", "Co", "Cs", "Zl", "Zp"}
        or character in _FILLERS
        or ord(character) in _TAGS
        or "\ufe00" <= character <= "\ufe0f"
    )


def joins_picture(text: str, place: int) -> bool:
    """Whether a joiner or variation selector stands where emoji have theirs: behind a symbol."""
    return text[place] in "\u200d\ufe0e\ufe0f" and place > 0 and unicodedata.category(text[place - 1]) in _PICTURES


def skeleton(text: str) -> str:
    """The text as it looks: compatibility forms taken apart, what nobody sees dropped, each character by its prototype.

    Idempotent; texts with one skeleton look alike.
    """
    plain = unicodedata.normalize("NFKD", text)
    seen = "".join(_TABLE.get(c, c) for c in plain if not is_hidden(c))
    return unicodedata.normalize("NFD", seen)


def latinised(text: str) -> str:
    """The text in small letters with what only looks like ASCII as what it looks like; ASCII itself stays.

    What nobody sees is dropped, and so are marks on letters. It is what words are looked for in.
    """
    plain = unicodedata.normalize("NFKD", text).casefold()
    return "".join(
        c if c.isascii() else _TABLE.get(c, c).replace("rn", "m").casefold()
        for c in plain
        if c.isascii() or not (is_hidden(c) or unicodedata.category(c) == "Mn")
    )


@lru_cache(maxsize=4096)
def keys_of(name: str) -> frozenset[str]:
    """What a name is found by, without regard to look-alikes, case and separators: those with one in common look alike.

    There are two, for a capital I looks like a small L and is the capital of another letter.
    """
    bare = name.translate(_SEPARATORS)
    return frozenset({skeleton(bare.casefold()).casefold(), skeleton(bare).casefold()})


def look_alike(one: str, other: str) -> bool:
    """Whether two names look alike."""
    return not keys_of(one).isdisjoint(keys_of(other))


def script_of(character: str) -> str:
    """The script of a letter, by the name that Unicode gives it; empty for what belongs to none."""
    if not character.isalpha():
        return ""
    word, _, rest = unicodedata.name(character, "").partition(" ")
    return script_of(unicodedata.normalize("NFKD", character)[0]) if word in _HALF and rest else word


def mixed_scripts(text: str) -> tuple[str, ...]:
    """The scripts of the first word that mixes such as are not used together; none where no word does."""
    for word in text.split():
        scripts = {script_of(c) for c in unicodedata.normalize("NFKC", word)} - {""}
        if len(scripts) > 1 and not scripts <= _EAST:
            return tuple(sorted(scripts))
    return ()


def shown(text: str) -> str:
    """A text from outside as a reason quotes it: what is not printable or not ASCII stands as its number."""
    plain = "".join(c if c.isascii() and c.isprintable() else f"<U+{ord(c):04X}>" for c in text[:MAX_SHOWN_CHARS])
    return cut(printable(plain), 2 * MAX_SHOWN_CHARS)


def wrong_with_text(text: str, what: str) -> str:
    """What of a text deceives its reader; empty where nothing does.

    Args:
        text: From outside.
        what: What it is, as the reason calls it.
    """
    for place, c in enumerate(text):
        if is_bidi(c):
            return f"{what} holds U+{ord(c):04X}, which turns the direction of reading: `{shown(text)}`"
        if is_hidden(c) and not joins_picture(text, place):
            return f"{what} holds U+{ord(c):04X}, which nobody sees: `{shown(text)}`"
    mixed = mixed_scripts(text)
    return f"{what} mixes letters of {' and '.join(mixed).lower()} in one word: `{shown(text)}`" if mixed else ""


def argument_names(schema: JsonValue, depth: int = 0) -> Iterator[str]:
    """Names of properties, at any depth of a schema."""
    if depth > MAX_DEPTH:
        return
    if isinstance(schema, Mapping):
        properties = schema.get("properties")
        if isinstance(properties, Mapping):
            yield from properties
        for value in schema.values():
            yield from argument_names(value, depth + 1)
    elif isinstance(schema, Sequence) and not isinstance(schema, str):
        for value in schema:
            yield from argument_names(value, depth + 1)


def judge_names(
    definitions: Sequence[ToolDefinition],
    taken: Mapping[str, str],
    shared: Collection[str] = (),
    known: Collection[str] = (),
    reasons: Sequence[str] | None = None,
) -> Mapping[int, LookAlike]:
    """Judge the names that one server offers.

    Args:
        definitions: What it offers, each name once.
        taken: Tools of other servers, `server.tool`, by `keys_of` their names on them.
        shared: Names that may be those of other servers' tools; `ANY_NAME` stands for all.
        known: Names that were accepted before: what comes later is refused, and not they.
        reasons: What `deceives` says of each of them, where that is known: it takes time with long texts.

    Returns:
        What is refused, by its place among the definitions.
    """
    found: dict[int, LookAlike] = {}
    first: dict[str, int] = {}
    for place, definition in enumerate(definitions):
        reason = deceives(definition) if reasons is None else reasons[place]
        if reason:
            found[place] = LookAlike(reason)
        if reason or not TOOL_NAME.fullmatch(definition.name):  # which can name no tool, and is refused as such
            continue
        for key in sorted(keys_of(definition.name)):
            other = first.setdefault(key, place)
            if other != place:
                for one, like in ((place, other), (other, place)):
                    if definitions[one].name not in known:
                        names = shown(definitions[one].name), shown(definitions[like].name)
                        reason = f"the names `{names[0]}` and `{names[1]}` look alike"
                        found[one] = LookAlike(reason, _full(definitions[like]))
        if place not in found and definition.name not in known and not _is_shared(definition.name, shared):
            shadowed = next((taken[key] for key in sorted(keys_of(definition.name)) if key in taken), None)
            if shadowed is not None:
                same = shadowed.partition(".")[2] == definition.name
                how = "is that of" if same else "looks like that of"
                found[place] = LookAlike(
                    f"the name `{shown(definition.name)}` {how} tool `{shown(shadowed)}`", shadowed
                )
    return found


def _is_shared(name: str, shared: Collection[str]) -> bool:
    return ANY_NAME in shared or name in shared


def _full(definition: ToolDefinition) -> str:
    return f"{definition.server}.{definition.name}"


def deceives(definition: ToolDefinition) -> str:
    """What of a definition deceives by itself; empty where nothing does. Takes time that grows with its texts."""
    name = definition.name
    for c in name[:MAX_SHOWN_CHARS]:
        if not c.isascii():
            like = skeleton(c)
            looks = f" and looks like `{like}`" if like.isascii() and like.isprintable() and like else ""
            return f"the name `{shown(name)}` holds U+{ord(c):04X}, which is not ASCII{looks}"
    if TOOL_NAME.fullmatch(name) and any(key.startswith(_OWN) for key in keys_of(name)):
        return f"the name `{shown(name)}` is the runtime's own: none of a server may begin with `{OWN_PREFIX}`"
    if skeleton(name[:MAX_SHOWN_CHARS]) in _ACTIONS:
        return f"the name `{shown(name)}` is that of an effect of the runtime"
    titles = {"its title": definition.title, "the title of its annotations": definition.annotations.get("title")}
    for what, title in titles.items():
        if isinstance(title, str) and (reason := wrong_with_text(title, what)):
            return reason
    for argument in argument_names(definition.input_schema):
        if reason := wrong_with_text(argument, "the name of an argument"):
            return reason
    return ""


_OWN: Final = tuple(keys_of(OWN_PREFIX))
_ACTIONS: Final = frozenset(skeleton(name) for name in BASE_ACTIONS)
