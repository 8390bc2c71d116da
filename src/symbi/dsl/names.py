"""What a name in a guard stands for, action by action; and how names and texts are written in Cedar."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from symbi.dsl import ast
from symbi.dsl.vocabulary import (
    ARGUMENT_ROOTS,
    ATTRIBUTES,
    CONFIDENTIALITIES,
    DATA_ATTRIBUTES,
    DATA_WORDS,
    HISTORY,
    INTEGRITIES,
    Attribute,
    Kind,
)
from symbi.errors import did_you_mean

Tools: TypeAlias = Collection[str] | Mapping[str, Collection[str] | None] | None
"""Tools that there are: names, or names with the arguments each takes (None where it takes any); None if unknown."""

TOOL_NAME: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_./-]+")
"""`server.tool`."""
TOOL_PATTERN: Final = re.compile(r"[A-Za-z0-9_-]+\.(?:\*|[A-Za-z0-9_./-]+)")
"""`server.tool` or `server.*`."""

Path: TypeAlias = tuple[str, ...]

_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CEDAR_WORDS = frozenset({"true", "false", "if", "then", "else", "in", "is", "like", "has", "__cedar"})
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\0": "\\0"}


@dataclass(frozen=True, slots=True)
class Target:
    """One kind of thing that a rule is about.

    Attributes:
        action: A key of `ATTRIBUTES`; empty for every action there is.
        resource: Cedar test of the resource, such as `resource == Model::"a"`; empty for any.
        also: A further Cedar test that belongs to the verb.
        tool: `server.tool` or `server.*` where the rule names one.
        data_words: Words that stand for the data of the action.
        implied: The rule does not name this action itself (`any`, or what a wide deny reaches): it is left out where
            it does not have what the guard reads.
    """

    action: str
    resource: str = ""
    also: str = ""
    tool: str | None = None
    data_words: frozenset[str] = frozenset(DATA_WORDS)
    implied: bool = False


def meet(one: Target, other: Target) -> Target | None:
    """What two targets have in common; None where that is nothing."""
    if not one.action or not other.action:
        return other if not one.action else one
    if one.action != other.action:
        return None
    tools = {tool for tool in (one.tool, other.tool) if tool is not None}
    narrow = min(tools, key=lambda tool: (tool.endswith(".*"), tool), default=None)
    if narrow is not None and not all(tool == narrow or _within(narrow, tool) for tool in tools):
        return None
    scopes = [scope for scope in dict.fromkeys((one.resource, other.resource)) if scope]
    if len([scope for scope in scopes if scope.startswith("resource ==")]) > 1:
        return None
    also = dict.fromkeys([*scopes[1:], one.also, other.also])
    return Target(
        one.action,
        scopes[0] if scopes else "",
        " && ".join(test for test in also if test),
        narrow,
        one.data_words | other.data_words,
        one.implied and other.implied,
    )


def _within(tool: str, pattern: str) -> bool:
    return pattern.endswith(".*") and tool.startswith(pattern[:-1])


def cedar_text(text: str) -> str:
    """A Cedar string literal."""
    return f'"{"".join(_escape(character) for character in text)}"'


def cedar_pattern(text: str) -> str:
    """A text inside a Cedar `like` pattern, without quotes: every character stands for itself."""
    return "".join("\\*" if character == "*" else _escape(character) for character in text)


def entity(kind: str, name: str) -> str:
    """A Cedar entity."""
    return f"{kind}::{cedar_text(name)}"


def _escape(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    return character if character.isprintable() else f"\\u{{{ord(character):x}}}"


def path_of(node: ast.Expr) -> Path | None:
    """The dotted path that an expression writes (`a.b`, `a["b"]`), or None where it is none."""
    names: list[str] = []
    while True:
        match node:
            case ast.Name(id=name):
                return (name, *reversed(names))
            case ast.Member(object=inner, name=name):
                names.append(name)
                node = inner
            case ast.Index(object=inner, index=ast.String(value=name)):
                names.append(name)
                node = inner
            case _:
                return None


def resolve(path: Path, target: Target) -> Attribute | None:
    """What a path stands for in a rule about a target; None where nothing bears that name."""
    table = ATTRIBUTES.get(target.action, {})
    explicit = path[0] == "context"
    path = path[1:] if explicit else path
    if not path:
        return None
    if found := table.get(".".join(path)):
        return found
    if path[0] in target.data_words and len(path) == 2 and path[1] in DATA_ATTRIBUTES and "label.integrity" in table:  # noqa: PLR2004 - a word and its attribute
        return DATA_ATTRIBUTES[path[1]]
    if table and path[0] == HISTORY:
        return _counter(path)
    if target.action != "InvokeTool":
        return None
    match path:
        case ("arguments", *rest) if rest:
            return _argument(tuple(rest))
        case ("labels", argument, "integrity"):
            return _label_of(argument, "integrity", INTEGRITIES)
        case ("labels", argument, "confidentiality"):
            return _label_of(argument, "confidentiality", CONFIDENTIALITIES)
        case ("labels", argument, "categories"):
            text, needs = present(("labels", argument))
            return Attribute(f"{text}.categories", Kind.SET, (), needs)
        case (root, *_) if explicit or root in ARGUMENT_ROOTS:
            return None
        case _:
            return _argument(path)


def argument_of(path: Path, target: Target) -> str | None:
    """The tool's argument that a path reads, if it reads one."""
    found = resolve(path, target)
    if target.action != "InvokeTool" or found is None:
        return None
    path = path[1:] if path[0] == "context" else path
    if path[0] in {"arguments", "labels"}:
        return path[1]
    return path[0] if found.kind is Kind.ARGUMENT else None


def explain(path: Path, target: Target, parameters: Collection[str]) -> str:
    """A hint for a path that `resolve` does not know."""
    table = ATTRIBUTES.get(target.action, {})
    if path[0] == HISTORY:
        return "write `history.NAME`, with the name of a counter that a `history.toml` declares"
    if hint := did_you_mean(".".join(path), table):
        return hint
    if path[0] in parameters:
        return "policies do not see the values of an agent's inputs"
    if target.action == "InvokeTool" and path[0] in ARGUMENT_ROOTS and path[0] not in {"arguments", "context"}:
        return f"write `arguments.{'.'.join(path)}` for an argument of that name"
    names = [name for name in table if not name.startswith(("principal.", "request.", "usage.", "time."))]
    known = names or ["principal", "request", "usage", "time", HISTORY]
    return f"it knows {', '.join(f'`{name}`' for name in known)}"


def present(path: Path) -> tuple[str, tuple[str, ...]]:
    """The Cedar expression of a path below `context`, and the tests by which it is there.

    Its first step is an attribute that every tool's context has.
    """
    needs = []
    text = f"context.{path[0]}"
    for name in path[1:]:
        plain = _PLAIN_NAME.fullmatch(name) and name not in _CEDAR_WORDS
        needs.append(f"{text} has {name if plain else cedar_text(name)}")
        text += f".{name}" if plain else f"[{cedar_text(name)}]"
    return text, tuple(needs)


def arguments_of(pattern: str | None, tools: Tools) -> frozenset[str] | None:
    """Names of the arguments that the tools of a pattern (None: every tool) take; None where that is not known."""
    if not isinstance(tools, Mapping):
        return None
    found: set[str] = set()
    for name in matching(pattern, tools):
        arguments = tools[name]
        if arguments is None:
            return None
        found.update(arguments)
    return frozenset(found)


def matching(pattern: str | None, tools: Collection[str]) -> Iterator[str]:
    """The tools that `server.tool` or `server.*` names; all for None."""
    return (
        name
        for name in tools
        if pattern is None or name == pattern or (pattern.endswith(".*") and name.startswith(pattern[:-1]))
    )


def unknown_tool(pattern: str, tools: Tools) -> str | None:
    """A hint where a pattern names no tool there is; None where it does, or where the tools are not known."""
    if tools is None or any(True for _ in matching(pattern, tools)):
        return None
    if pattern.endswith(".*"):
        servers = {name.partition(".")[0] for name in tools}
        return did_you_mean(pattern[:-2], servers) or "no such tool server is connected"
    return did_you_mean(pattern, tools) or "`symbi tools list` shows the tools there are"


def _counter(path: Path) -> Attribute | None:
    """A counter; which there are, and of which type, is checked where the set is loaded."""
    if len(path) != 2 or not _PLAIN_NAME.fullmatch(path[1]) or path[1] in _CEDAR_WORDS:  # noqa: PLR2004 - the word and a name
        return None
    return Attribute(f"context.{HISTORY}.{path[1]}", Kind.COUNTER)


def _argument(path: Path) -> Attribute:
    text, needs = present(("arguments", *path))
    return Attribute(text, Kind.ARGUMENT, (), needs)


def _label_of(argument: str, part: str, values: tuple[str, ...]) -> Attribute:
    text, needs = present(("labels", argument))
    return Attribute(f"{text}.{part}", Kind.TEXT, values, needs)
