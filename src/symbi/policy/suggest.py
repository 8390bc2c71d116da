"""Least-privilege policies from requests that were allowed.

One permit for each agent, action and resource, that permits what was seen and little more:

| what was seen | what is permitted |
|---|---|
| up to five texts | these texts |
| more, all below one folder | paths below it, without `..` |
| more than that, or long or confidential texts | any text; a comment says so |
| whole numbers and decimals | from 0, or the smallest, to the largest |
| sets | subsets of all that was seen, of up to twenty members |
| an argument that was never given | its absence |
| labels | nothing less trusted, and nothing more confidential |

Texts that bear untrusted labels are written as they are, never made more general, and under a comment that says so.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from symbi.policy.catalog import TOOL_GROUP, ToolType, quote
from symbi.policy.decision import AllowWithConditions, Deny, PolicyRequest
from symbi.policy.engine import decide
from symbi.policy.expression import attribute, member
from symbi.policy.policies import PolicySet
from symbi.policy.shape import Field, RecordOf, shape_of
from symbi.policy.source import PolicySource
from symbi.types import Confidentiality, Integrity, JsonValue

MAX_TEXTS: Final = 5  # different texts of one attribute that are written out
MAX_TEXT_CHARS: Final = 200  # of such a text; a longer one is free text
MAX_LINE_CHARS: Final = 100  # of a clause; a longer one stands on several lines
MAX_NAMED_SOURCES: Final = 4  # effects that a remark names
MAX_MEMBERS: Final = 20  # different members of sets that are written out
_CHANGING: Final = frozenset({"time", "usage", "history", "request"})  # what is other the next time
_OPTIONAL: Final = frozenset(
    {"count", "budgetCalls", "budgetTokens", "budgetMoneyMicros", "budgetWallMs", "budgetCpuMs"}
)
"""Numbers of the context that the schema does not promise."""
_NO_BOUND: Final = 2**53 - 1  # what a budget without a bound shows as
_LEVELS: Final[Mapping[str, tuple[str, ...]]] = {
    "integrity": tuple(level.value for level in Integrity),
    "confidentiality": tuple(level.value for level in Confidentiality),
}
_HIDDEN: Final = frozenset({Confidentiality.CONFIDENTIAL.value, Confidentiality.SECRET.value})

Labels = Mapping[str, tuple[str, str, tuple[str, ...]]]
"""(integrity, confidentiality, sources) by argument."""


@dataclass(frozen=True, slots=True)
class Example:
    """A request that was allowed.

    Attributes:
        effect_id: Of its effect.
        request: As it was decided.
        conditions: (kind, value) of the conditions that it was allowed with.
        labels: Of its arguments, with sources.
        changing: Which of `VOLATILE` the policies that permitted it read.
    """

    effect_id: str
    request: PolicyRequest
    conditions: frozenset[tuple[str, str]]
    labels: Labels
    changing: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One or more permits of one scope.

    Attributes:
        id: Of the first of them.
        text: Cedar, comments included.
        effects: Whose requests it was made from.
        remarks: What a reviewer must look at, a line each; they stand in the text as comments too.
    """

    id: str
    text: str
    effects: tuple[str, ...]
    remarks: tuple[str, ...]


def suggest(examples: Iterable[Example], tools: Iterable[ToolType]) -> list[Suggestion]:
    """Permits for these requests, by agent, action and resource."""
    shapes = {tool.action: shape_of(tool.input_schema) for tool in tools}
    groups: dict[tuple[str, ...], list[Example]] = {}
    for example in examples:
        request = example.request
        key = (
            request.principal.agent,
            request.action,
            request.resource.type,
            request.resource.id,
            *(f"{kind}={value}" for kind, value in sorted(example.conditions)),
        )
        groups.setdefault(key, []).append(example)
    taken: set[str] = set()
    found = []
    for _, group in sorted(groups.items()):
        name = _id(group[0].request, taken)
        found.append(_one(name, group, shapes.get(group[0].request.action), taken))
    return found


def suggested_source(file: str, suggestions: Iterable[Suggestion]) -> PolicySource:
    """All suggestions as one file."""
    return PolicySource(file, "\n".join(suggestion.text for suggestion in suggestions))


def differing(source: PolicySource, examples: Iterable[Example], tools: Iterable[ToolType]) -> list[tuple[str, str]]:
    """The examples that a file alone does not decide as they were decided: (effect id, what differs).

    Raises:
        PolicySyntaxError: The file is no policy file.
    """
    policies = PolicySet.load([source], (), tools)
    found = []
    for example in examples:
        decision = decide(policies, example.request)
        if isinstance(decision, Deny):
            found.append((example.effect_id, decision.reason))
            continue
        conditions = decision.conditions if isinstance(decision, AllowWithConditions) else ()
        if frozenset((condition.kind.value, condition.value) for condition in conditions) != example.conditions:
            found.append((example.effect_id, "allowed with other conditions"))
    return found


def _id(request: PolicyRequest, taken: set[str]) -> str:
    action = request.action.removeprefix(f"{TOOL_GROUP}::")
    parts = ["suggested", request.principal.agent, action]
    if request.action == action:
        parts.append(request.resource.id)
    plain = ".".join("".join(c if c.isascii() and (c.isalnum() or c in "_-") else "-" for c in part) for part in parts)
    name, number = plain[:100], 2
    while name in taken:
        name, number = f"{plain[:100]}-{number}", number + 1
    taken.add(name)
    return name


def _one(name: str, group: Sequence[Example], shape: RecordOf | None, taken: set[str]) -> Suggestion:
    request = group[0].request
    writer = _Writer(group)
    for fact in sorted({fact for example in group for fact in example.changing}):
        writer.remarks.append(f"context.{fact} is not bounded: what permitted this read it, and it changes by itself")
    contexts = [example.request.context for example in group]
    if shape is not None and all(isinstance(context.get("arguments"), Mapping) for context in contexts):
        writer.arguments([context["arguments"] for context in contexts], shape)  # type: ignore[misc]  # looked at just now
    writer.context(contexts)
    if request.resource.type == "Tool" and all(dict(e.request.resource.attributes).get("verified") for e in group):
        writer.clauses.append(("", ["resource.verified"]))
    scope = (
        f"permit (\n  principal == Agent::{quote(request.principal.agent)},\n"
        f"  action == Action::{quote(request.action)},\n"
        f"  resource == {request.resource.type}::{quote(request.resource.id)}\n)"
    )
    body = "".join(comment + _when(parts) for comment, parts in writer.clauses)
    head = f"// From {len(group)} allowed request{'s' if len(group) > 1 else ''}.\n"
    head += "".join(f"// REVIEW: {remark}\n" for remark in writer.remarks)
    texts: list[str] = []
    for annotations in _annotations(group[0].conditions):
        own = name if not texts else _again(name, taken)
        notes = "".join(f"@{kind}({quote(value)})\n" for kind, value in annotations)
        texts.append(f"{head}@id({quote(own)})\n{notes}{scope}\n{body}".rstrip() + ";\n")
    return Suggestion(name, "\n".join(texts), tuple(e.effect_id for e in group), tuple(writer.remarks))


def _when(parts: Sequence[str]) -> str:
    """A clause, on one line if it fits."""
    line = f"when {{ {' && '.join(parts)} }}\n"
    return line if len(line) <= MAX_LINE_CHARS else "when {\n  " + " &&\n  ".join(parts) + "\n}\n"


def _came(sources: Sequence[str]) -> str:
    """Where values came from, as far as it is worth a line."""
    more = " …" if len(sources) > MAX_NAMED_SOURCES else ""
    return f" (from {', '.join(map(quote, sources[:MAX_NAMED_SOURCES]))}{more})" if sources else ""


def _again(name: str, taken: set[str]) -> str:
    number = 2
    while f"{name}-{number}" in taken:
        number += 1
    taken.add(f"{name}-{number}")
    return f"{name}-{number}"


def _annotations(conditions: Iterable[tuple[str, str]]) -> list[list[tuple[str, str]]]:
    """Conditions spread over as many permits as one kind has values, for a policy has each annotation once."""
    rows: list[list[tuple[str, str]]] = [[]]
    for kind, value in sorted(conditions):
        row = next((row for row in rows if kind not in dict(row)), None)
        if row is None:
            rows.append([(kind, value)])
        else:
            row.append((kind, value))
    return rows


class _Writer:
    """Writes the conditions of one permit.

    Args:
        group: The requests, of one agent, action and resource.
    """

    def __init__(self, group: Sequence[Example]) -> None:
        self._group = group
        self.clauses: list[tuple[str, list[str]]] = []
        """(comment, parts that must all be true)."""
        self.remarks: list[str] = []

    def arguments(self, values: Sequence[Mapping[str, JsonValue]], shape: RecordOf) -> None:
        """What is said of each argument, and of its label."""
        for name, field in shape.fields.items():
            present = [index for index, each in enumerate(values) if name in each]
            has = f"context.arguments has {attribute(name)}"
            if field.shape is None:
                continue  # policies cannot see it; `opaque` names it
            if not present:
                self.clauses.append(("", [f"!({has})"]))
                continue
            path = member("context.arguments", name)
            tainted = sorted({s for index in present for s in self._sources(index, name) or ()})
            untrusted = any(self._sources(index, name) is not None for index in present)
            hidden = any(self._label(index, name)[1] in _HIDDEN for index in present)
            parts = self._value(path, [values[index][name] for index in present], field, exact=untrusted, hidden=hidden)
            comment = ""
            if untrusted and parts:
                self.remarks.append(f"values of {quote(name)} came out of untrusted data{_came(tainted)}")
                comment = "// out of untrusted data\n"
            parts += self._labels(name, present)
            if parts or len(present) < len(values):
                whole = [has, *parts]
                always = len(present) == len(values)
                self.clauses.append((comment, whole if always else [f"!({has}) || ({' && '.join(whole)})"]))

    def context(self, contexts: Sequence[Mapping[str, JsonValue]]) -> None:
        """What is said of the rest of the context."""
        for name in sorted({name for context in contexts for name in context} - _CHANGING - {"arguments", "labels"}):
            present = [context[name] for context in contexts if name in context]
            path = member("context", name)
            if name == "label":
                parts = self._levels(path, [dict(value) for value in present if isinstance(value, Mapping)])
            else:
                parts = self._value(path, present, None, exact=False, hidden=False)
            if name in _OPTIONAL:
                parts = (
                    [] if _NO_BOUND in present else self._if_there(name, parts, always=len(present) == len(contexts))
                )
            if name.endswith("Digest") and parts:
                self.remarks.append(f"{path} is pinned: what is changed is refused")
            if parts:
                self.clauses.append(("", parts))

    def _if_there(self, name: str, parts: Sequence[str], *, always: bool) -> list[str]:
        """What is said of an attribute that not every request has."""
        has = f"context has {name}"
        return [has, *parts] if always else [f"(!({has}) || ({' && '.join([has, *parts])}))"]

    def _given(self, index: int, name: str) -> Mapping[str, Any]:
        """The label of an argument as the request has it."""
        labels = self._group[index].request.context.get("labels")
        found = labels.get(name) if isinstance(labels, Mapping) else None
        return found if isinstance(found, Mapping) else {}

    def _label(self, index: int, name: str) -> tuple[str, str, tuple[str, ...]]:
        """Integrity and confidentiality of an argument, with its sources."""
        example, own = self._group[index], self._given(index, name)
        sources = example.labels.get(name, example.labels.get("", ("", "", ())))[2]
        return str(own.get("integrity", Integrity.UNTRUSTED)), str(own.get("confidentiality", "")), sources

    def _sources(self, index: int, name: str) -> tuple[str, ...] | None:
        """Where an argument came from, if it is untrusted; None if it is not."""
        integrity, _, sources = self._label(index, name)
        return sources if integrity == Integrity.UNTRUSTED.value else None

    def _labels(self, name: str, present: Sequence[int]) -> list[str]:
        labels = [self._given(index, name) for index in present]
        levels = self._levels(member("context.labels", name), labels)
        return [f"context.labels has {attribute(name)}", *levels] if levels else []

    def _levels(self, path: str, labels: Sequence[Mapping[str, Any]]) -> list[str]:
        """Nothing worse than the worst that was seen."""
        parts = []
        for kind, levels in _LEVELS.items():
            worst = max((levels.index(label[kind]) for label in labels if label.get(kind) in levels), default=-1)
            if 0 <= worst < len(levels) - 1:
                parts.append(_one_of(f"{path}.{kind}", [quote(level) for level in levels[: worst + 1]]))
        if all("categories" in label for label in labels):
            parts += self._members(f"{path}.categories", [item for label in labels for item in label["categories"]])
        return parts

    def _value(
        self, path: str, values: Sequence[JsonValue], field: Field | None, *, exact: bool, hidden: bool
    ) -> list[str]:
        """What is said of one attribute that has these values."""
        first = values[0]
        if hidden:
            return self._open(path, "confidential")
        if all(isinstance(value, bool) for value in values):
            return [] if len(set(map(bool, values))) > 1 else [path if first else f"!{path}"]
        if all(isinstance(value, int) for value in values):
            numbers = [value for value in values if isinstance(value, int)]
            low, high = min(0, *numbers), max(numbers)
            return [f"{path} == {low}" if low == high else f"{path} >= {low} && {path} <= {high}"]
        if all(isinstance(value, str) for value in values):
            return self._texts(path, sorted({str(value) for value in values}), exact=exact)
        if all(isinstance(value, list) for value in values):
            return self._members(path, [item for value in values if isinstance(value, list) for item in value])
        if all(isinstance(value, Mapping) for value in values):
            return self._record(
                path, [dict(value) for value in values if isinstance(value, Mapping)], field, exact=exact
            )
        return self._open(path, "of a kind that cannot be bounded")

    def _texts(self, path: str, texts: Sequence[str], *, exact: bool) -> list[str]:
        if len(texts) <= MAX_TEXTS and all(len(text) <= MAX_TEXT_CHARS and "\n" not in text for text in texts):
            return [_one_of(path, [quote(text) for text in texts])]
        prefix = _folder(texts)
        if prefix and not exact:
            pattern = quote(prefix)[1:-1].replace("*", "\\*")
            return [f'{path} like "{pattern}*"', f'!({path} like "*..*")']
        return self._open(path, "a long text" if len(texts) == 1 else f"{len(texts)} different texts")

    def _members(self, path: str, items: Sequence[JsonValue]) -> list[str]:
        if not items:
            return [f"{path}.isEmpty()"]
        literals = {_literal(item) for item in items}
        if None in literals or len(literals) > MAX_MEMBERS:
            return self._open(path, "too many or nested members")
        return [f"[{', '.join(sorted(filter(None, literals)))}].containsAll({path})"]

    def _record(
        self, path: str, values: Sequence[Mapping[str, JsonValue]], field: Field | None, *, exact: bool
    ) -> list[str]:
        extension = values[0].get("__extn")
        if isinstance(extension, Mapping):
            if extension.get("fn") != "decimal":
                return self._open(path, "of a kind that cannot be bounded")
            numbers = [Decimal(str(dict(value["__extn"])["arg"])) for value in values]  # type: ignore[arg-type]  # a decimal's
            low, high = min(Decimal(0), *numbers), max(numbers)
            return [
                f'{path}.greaterThanOrEqual(decimal("{low:.4f}"))',
                f'{path}.lessThanOrEqual(decimal("{high:.4f}"))',
            ]
        shape = field.shape if field is not None else None
        fields = (
            shape.fields if isinstance(shape, RecordOf) else {name: Field(None, required=True) for name in values[0]}
        )
        parts = []
        for name, inner in fields.items():
            present = [value[name] for value in values if name in value]
            has = f"{path} has {attribute(name)}"
            if not present:
                parts.append(f"!({has})")
                continue
            inside = self._value(member(path, name), present, inner, exact=exact, hidden=False)
            whole = " && ".join([has, *inside])
            parts += [has, *inside] if len(present) == len(values) else [f"(!({has}) || ({whole}))"]
        return parts

    def _open(self, path: str, why: str) -> list[str]:
        self.remarks.append(f"{path} is not bounded: {why}")
        return []


def _one_of(path: str, literals: Sequence[str]) -> str:
    return f"{path} == {literals[0]}" if len(literals) == 1 else f"[{', '.join(literals)}].contains({path})"


def _literal(item: JsonValue) -> str | None:
    if isinstance(item, bool):
        return "true" if item else "false"
    if isinstance(item, int):
        return str(item)
    return quote(item) if isinstance(item, str) and len(item) <= MAX_TEXT_CHARS else None


def _folder(texts: Sequence[str]) -> str:
    """The folder that all of some paths lie in, with its slash; empty where there is none, or one climbs."""
    if any(".." in text or "\n" in text for text in texts):
        return ""
    shortest, longest = min(texts), max(texts)
    length = next((i for i, (a, b) in enumerate(zip(shortest, longest, strict=False)) if a != b), len(shortest))
    common = shortest[:length]
    folder = common[: common.rfind("/") + 1]
    return "" if folder.strip("/") in {"", "http:", "https:", "file:"} else folder
