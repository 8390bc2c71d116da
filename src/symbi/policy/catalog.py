"""The schema that policies are validated against: the base file, and one action for each catalogued tool."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Final

from symbi.errors import InputError
from symbi.policy.counters import Counter, Kind
from symbi.policy.decision import VOLATILE
from symbi.policy.shape import RecordOf, Scalar, SetOf, Shape, is_nameable, is_text, shape_of
from symbi.types import JsonValue

TOOL_GROUP: Final = "InvokeTool"
"""The action group that every tool's own action is in."""

ANY_TOOL: Final = f"{TOOL_GROUP}::*"
"""A tool without arguments that no server has. It makes `action in Action::"InvokeTool"` valid before any tool is
known, and holds general policies to ask `context.arguments has NAME` before they read an argument."""

BASE_SCHEMA: Final = resources.files("symbi.policy").joinpath("schema.cedarschema").read_text("utf-8")
"""Entities and actions that exist without any tool."""


def _base_actions() -> frozenset[str]:
    bare = re.sub(r"//[^\n]*", "", BASE_SCHEMA)
    heads = re.findall(r"^action\s+([\w\s,]+?)\s*(?:appliesTo|;)", bare, re.MULTILINE)
    return frozenset(name.strip() for head in heads for name in head.split(","))


BASE_ACTIONS: Final = _base_actions()
"""Names of the actions that exist without any tool, the group included."""


@dataclass(frozen=True, slots=True)
class ToolType:
    """What policies know of a tool.

    Attributes:
        name: `server.tool`.
        input_schema: JSON Schema of its arguments.
    """

    name: str
    input_schema: Mapping[str, JsonValue] = field(hash=False)

    @property
    def action(self) -> str:
        """Its Cedar action."""
        return f"{TOOL_GROUP}::{self.name}"


_SUPPLIED: Final = {"time": "Time", "usage": "Usage", "history": "History"}
_CONTEXT: Final = re.compile(r"context: *(?:\{|([A-Z]\w*))")


def _supplied(keys: Iterable[str]) -> str:
    return "".join(f" {key}: {_SUPPLIED[key]}," for key in sorted(keys))


def _base_schema(supplied: str) -> str:
    """The base schema, with what is supplied in the context of every action."""
    shared = {match[1] for match in _CONTEXT.finditer(BASE_SCHEMA) if match[1]}
    places = "|".join([r"context: *\{", *(rf"type {name} = *\{{" for name in sorted(shared))])
    return re.sub(places, lambda match: match.group() + supplied, BASE_SCHEMA)


def schema_text(
    tools: Iterable[ToolType],
    absent: Iterable[str] = (),
    counters: Iterable[Counter] = (),
    supplied: Iterable[str] = VOLATILE,
) -> str:
    """The Cedar schema for these tools.

    Args:
        tools: The catalogue.
        absent: Tools that policies name and the catalogue lacks. Their actions are declared, so that such a policy
            can be read, but apply to nothing: a request for one is refused.
        counters: What `context.history` holds.
        supplied: Which of `VOLATILE` the context of every action has.

    Raises:
        InputError: A name is not `server.tool`, or is there twice.
    """
    everywhere = _supplied(supplied)
    any_tool = _tool_action(ANY_TOOL, RecordOf({}, closed=True), everywhere)
    parts = [_base_schema(everywhere), _history_type(counters), any_tool]
    known: set[str] = set()
    for tool in sorted(tools, key=lambda tool: tool.name):
        server, dot, name = tool.name.partition(".")
        if not (server and dot and name) or not is_text(tool.name):
            shown = tool.name.encode("ascii", "backslashreplace").decode()
            raise InputError(f"`{shown}` is not the name of a tool", code="policy.tool_name", hint="use `server.tool`")
        if tool.name in known:
            raise InputError(f"tool `{tool.name}` is there twice", code="policy.tool_name")
        known.add(tool.name)
        parts.append(_tool_action(tool.action, shape_of(tool.input_schema), everywhere))
    parts.extend(
        f"action {quote(f'{TOOL_GROUP}::{name}')} in [{TOOL_GROUP}];\n" for name in sorted(set(absent) - known)
    )
    return "".join(parts)


def quote(text: str) -> str:
    """A Cedar string literal; what is not printable ASCII is escaped."""
    return '"' + "".join(_escape(character) for character in text) + '"'


def _escape(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    return character if character.isascii() and character.isprintable() else f"\\u{{{ord(character):x}}}"


def _history_type(counters: Iterable[Counter]) -> str:
    types = {
        name: "Bool" if counter.kind is Kind.FORMERLY else "Long" for counter in counters for name in counter.facts
    }
    return f"type History = {{ {', '.join(f'{quote(name)}: {types[name]}' for name in sorted(types))} }};\n"


def _tool_action(action: str, arguments: RecordOf, supplied: str) -> str:
    labels = ", ".join(f"{quote(name)}?: Label" for name in arguments.fields if is_nameable(name))
    return (
        f"action {quote(action)} in [{TOOL_GROUP}] appliesTo {{\n"
        "  principal: [Agent], resource: [Tool],\n"
        f"  context: {{{supplied} arguments: {_type(arguments)}, labels: {{ {labels} }}, label: Label,"
        " secrets: Set<String>, opaque: Set<String>, sinks: Set<String>, tainted: Set<String>,"
        " confidentialSinks: Set<String>, unexplained: Set<String>, wordsKnown: Bool,"
        " grant: { given: Bool, tool: Bool, arguments: Bool }, request: Request },\n"
        "};\n"
    )


def _type(shape: Shape) -> str:
    if isinstance(shape, Scalar):
        return shape.name
    if isinstance(shape, SetOf):
        return f"Set<{_type(shape.item)}>"
    fields = (
        f"{quote(name)}{'' if each.required else '?'}: {_type(each.shape)}"
        for name, each in shape.fields.items()
        if each.shape is not None
    )
    return f"{{ {', '.join(fields)} }}"
