"""Declared counters held against the rest of a policy set: names, actions, and what sums add up."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import cedarpy

from symbi.errors import Place, PolicySyntaxError, did_you_mean
from symbi.policy.catalog import BASE_ACTIONS, TOOL_GROUP, ToolType, quote
from symbi.policy.counters import FILE_NAME, MAX_COUNTERS, Counter, Kind, parse_counters
from symbi.policy.shape import RecordOf, Scalar, shape_of
from symbi.policy.source import PolicySource

_TOOL_PREFIX: Final = f"{TOOL_GROUP}::"
_ARGUMENTS: Final = "arguments"


def is_history(source: PolicySource) -> bool:
    """Whether a source holds counters and not policies."""
    return source.file.replace("\\", "/").rpartition("/")[2] == FILE_NAME


def read_counters(sources: Iterable[PolicySource], problems: list[PolicySyntaxError]) -> tuple[Counter, ...]:
    """The counters of all files, by name; what is wrong is added to the problems."""
    found: dict[str, Counter] = {}
    for source in sources:
        try:
            counters = parse_counters(source.file, source.text)
        except PolicySyntaxError as problem:
            problems.append(problem)
            continue
        for counter in counters:
            if counter.name in found:
                msg = f"counter `{counter.name}` is declared at {found[counter.name].place} already"
                problems.append(_problem(msg, counter.place, "give it another name"))
            else:
                found[counter.name] = counter
    if len(found) > MAX_COUNTERS:
        last = max(found.values(), key=lambda counter: (counter.place.file, counter.place.line))
        msg = f"{len(found)} counters are more than {MAX_COUNTERS}"
        problems.append(_problem(msg, last.place, "every decision reads them all"))
    return tuple(found[name] for name in sorted(found))


def absent_from(counters: Iterable[Counter], known: set[str]) -> Iterator[tuple[Counter, str]]:
    """The tools that counters name and the catalogue lacks."""
    for counter in counters:
        named = {action.removeprefix(_TOOL_PREFIX) for action in counter.actions if action.startswith(_TOOL_PREFIX)}
        named |= {name for kind, name in counter.resources if kind == "Tool"}
        for tool in sorted(named - known):
            yield counter, tool


def check_counters(
    counters: Iterable[Counter], tools: Sequence[ToolType], schema: cedarpy.Schema
) -> Iterator[PolicySyntaxError]:
    """What cannot be counted: an unknown action, and a sum of what is no number of the action."""
    by_action = {tool.action: tool for tool in tools}
    for counter in counters:
        for action in counter.actions:
            if action in BASE_ACTIONS:
                if counter.kind is Kind.SUM and not _sums_base(counter, action, schema):
                    what = "a group: name the tools" if action == TOOL_GROUP else "no whole number in it"
                    msg = f"counter `{counter.name}` adds up `{'.'.join(counter.of)}`, and `{action}` has {what}"
                    yield _problem(msg, counter.place)
            elif not action.startswith(_TOOL_PREFIX):
                hint = did_you_mean(action, BASE_ACTIONS) or f"a tool is `{_TOOL_PREFIX}server.tool`"
                yield _problem(f"counter `{counter.name}` counts the unknown action `{action}`", counter.place, hint)
            elif counter.kind is Kind.SUM and action in by_action:
                problem = _sums_tool(counter, by_action[action])
                if problem is not None:
                    yield problem


def _sums_base(counter: Counter, action: str, schema: cedarpy.Schema) -> bool:
    """Whether the context of an action that needs no tool has the Long or decimal that is added up."""
    if not all(name.isidentifier() for name in counter.of):
        return False
    head = f"permit(principal, action == Action::{quote(action)}, resource) when {{ context.{'.'.join(counter.of)}"
    return action != TOOL_GROUP and any(
        cedarpy.validate_policies(f"{head}{test} }};", schema).validation_passed
        for test in (" >= 0", '.lessThan(decimal("0.0"))')
    )


def _sums_tool(counter: Counter, tool: ToolType) -> PolicySyntaxError | None:
    """What is wrong with adding this up over calls of a tool, if anything is."""
    said = f"counter `{counter.name}` adds up `{'.'.join(counter.of)}`"
    first, *path = counter.of
    if first != _ARGUMENTS or not path:
        return _problem(
            f"{said}, which is no argument of `{tool.name}`", counter.place, 'write `of = "arguments.NAME"`'
        )
    shape: object = shape_of(tool.input_schema)
    for name in path:
        fields = shape.fields if isinstance(shape, RecordOf) else {}
        if name not in fields:
            hint = did_you_mean(name, fields) or None
            return _problem(f"{said}, and `{tool.name}` has no such argument", counter.place, hint)
        shape = fields[name].shape
    if shape not in (Scalar("Long"), Scalar("decimal")):
        return _problem(f"{said}, which is no number in the schema of `{tool.name}`", counter.place)
    return None


def _problem(message: str, place: Place, hint: str | None = None) -> PolicySyntaxError:
    return PolicySyntaxError(message, code="policy.history", place=place, hint=hint)
