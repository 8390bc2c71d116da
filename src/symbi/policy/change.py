"""Changes of a request that could make an expression true or false.

They are guesses, made from the literals that the expression compares with; whoever uses one decides the changed request
and sees what comes of it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from itertools import islice, product
from typing import Any, Final, TypeAlias

from symbi.policy.decision import PolicyRequest
from symbi.policy.expression import Expression, Path, literal_of, path_of, value_at
from symbi.types import JsonValue, Principal, Resource

MAX_GUESSES: Final = 4  # for one expression
_STEP: Final = Decimal("0.0001")
_ORDER: Final[Mapping[str, tuple[str, int]]] = {
    "<": ("below", 1),
    "<=": ("below", 0),
    ">": ("above", 1),
    ">=": ("above", 0),
    "lessThan": ("below", 1),
    "lessThanOrEqual": ("below", 0),
    "greaterThan": ("above", 1),
    "greaterThanOrEqual": ("above", 0),
}
"""What makes a comparison with a bound true: the side to be on, and whether the bound itself does not do."""
_OTHERS: Final[Mapping[str, tuple[str, ...]]] = {
    "integrity": ("user", "trusted", "untrusted"),
    "confidentiality": ("public", "internal", "secret"),
    "trust": ("trusted", "standard", "untrusted"),
    "tier": ("gvisor", "docker", "interpreter"),
}
"""Values that an attribute may have instead of one that it must not have."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One fact of a request, changed; `value` is None where it is taken away."""

    path: Path
    value: JsonValue


Edits: TypeAlias = tuple[Edit, ...]


def guesses(expression: Expression, request: PolicyRequest, *, want: bool) -> tuple[Edits, ...]:
    """Up to `MAX_GUESSES` changes after which the expression may be as wanted."""
    return tuple(islice(_guess(expression, request, want=want), MAX_GUESSES))


def _guess(expression: Expression, request: PolicyRequest, *, want: bool) -> Iterator[Edits]:
    (kind, inner), *_ = expression.items()
    if kind == "!":
        yield from _guess(inner["arg"], request, want=not want)
    elif kind in {"&&", "||"}:
        left, right = (guesses(inner[side], request, want=want) for side in ("left", "right"))
        yield from left
        yield from right
        if (kind == "&&") is want:
            yield from (first + second for first, second in product(left, right))
    else:
        for path, value in _simple(kind, inner, expression, request, want=want):
            yield (Edit(path, value),)


def _simple(
    kind: str,
    inner: Any,
    expression: Expression,
    request: PolicyRequest,
    *,
    want: bool,
) -> Iterator[tuple[Path, JsonValue]]:
    path = path_of(expression)
    if path is not None:
        yield path, want
    elif kind in {"==", "!="}:
        yield from _equal(inner["left"], inner["right"], request, want=(kind == "==") is want)
    elif kind in _ORDER:
        yield from _bound(kind, inner, want=want)
    elif kind == "like":
        yield from _like(inner, want=want)
    elif kind == "has":
        target = path_of(inner["left"])
        if target is not None:
            yield from _has((*target, inner["attr"]), want=want)
    elif kind == "in":
        yield from _group(inner, request, want=want)
    elif kind in {"contains", "containsAll", "containsAny"}:
        yield from _contains(kind, inner, request, want=want)
    elif kind == "isEmpty" and want:
        target = path_of(inner["arg"])
        if target is not None:
            yield target, []


def _equal(
    left: Expression, right: Expression, request: PolicyRequest, *, want: bool
) -> Iterator[tuple[Path, JsonValue]]:
    for one, other in ((left, right), (right, left)):
        path = path_of(one)
        if path is None or len(path) == 1:
            continue
        value = literal_of(other)
        there = path_of(other)
        if value is None and there is not None:
            value = value_at(request, there)
        if value is not None and want:
            yield path, value
        elif value is not None:
            yield from ((path, each) for each in _other(path, value))


def _other(path: Path, value: JsonValue) -> Iterator[JsonValue]:
    """Values of the kind of one, and not it."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield value + 1
    elif isinstance(value, str):
        yield from (each for each in _OTHERS.get(path[-1], ("other", "")) if each != value)


def _bound(kind: str, inner: Any, *, want: bool) -> Iterator[tuple[Path, JsonValue]]:
    first, second = inner if isinstance(inner, list) else (inner["left"], inner["right"])
    side, strict = _ORDER[kind]
    if not want:
        side, strict = ("above" if side == "below" else "below"), 1 - strict
    for one, other, on in ((first, second, side), (second, first, "above" if side == "below" else "below")):
        path, value = path_of(one), literal_of(other)
        if path is None:
            continue
        sign = -1 if on == "below" else 1
        if isinstance(value, int):
            yield path, value + sign * strict
        elif isinstance(value, Mapping):
            try:
                exact = Decimal(str(value["__extn"]["arg"])) + sign * strict * _STEP  # type: ignore[index,call-overload]  # as `literal_of` makes it
            except InvalidOperation:
                continue
            yield path, {"__extn": {"fn": "decimal", "arg": f"{exact:.4f}"}}


def _like(inner: Mapping[str, Any], *, want: bool) -> Iterator[tuple[Path, JsonValue]]:
    path = path_of(inner["left"])
    if path is None:
        return
    if want:
        for filler in ("", "x"):
            yield path, "".join(filler if part == "Wildcard" else part["Literal"] for part in inner["pattern"])
    else:
        yield path, "other"
        yield path, ""


def _has(path: Path, *, want: bool) -> Iterator[tuple[Path, JsonValue]]:
    if not want:
        yield path, None
    elif "labels" in path:
        yield path, {"integrity": "user", "confidentiality": "public"}
    else:
        yield from ((path, value) for value in ("x", 0, True))


def _group(inner: Mapping[str, Any], request: PolicyRequest, *, want: bool) -> Iterator[tuple[Path, JsonValue]]:
    """Groups of the principal; other entities are what they are."""
    if inner["left"].get("Var") != "principal":
        return
    right = inner["right"]
    members = [item.get("Value") for item in right["Set"]] if "Set" in right else [right.get("Value")]
    entities = [m["__entity"] for m in members if isinstance(m, Mapping) and "__entity" in m]
    named = [str(entity["id"]) for entity in entities if entity["type"] == "Group"]
    groups = request.principal.groups
    if want:
        yield from ((("principal", "groups"), [*groups, name]) for name in named)
    else:
        yield ("principal", "groups"), [name for name in groups if name not in named]


def _contains(
    kind: str, inner: Mapping[str, Any], request: PolicyRequest, *, want: bool
) -> Iterator[tuple[Path, JsonValue]]:
    path, literal = path_of(inner["right"]), literal_of(inner["left"])
    if kind == "contains" and path is not None and isinstance(literal, list) and literal:
        values = literal if want else _other(path, literal[0])
        yield from ((path, value) for value in values if want or value not in literal)
        return
    path, literal = path_of(inner["left"]), literal_of(inner["right"])
    if path is None or literal is None:
        return
    items = literal if kind != "contains" and isinstance(literal, list) else [literal]
    there = value_at(request, path)
    present = list(there) if isinstance(there, Sequence) and not isinstance(there, str) else []
    if want:
        yield path, [*present, *(item for item in items if item not in present)]
    else:
        yield path, [item for item in present if item not in items]


# --- carrying out -----------------------------------------------------------------------------


def changed(request: PolicyRequest, edits: Edits) -> PolicyRequest | None:
    """The request with edits made; None where one cannot be made."""
    for edit in edits:
        made = _with(request, edit)
        if made is None:
            return None
        request = made
    return request


def _with(request: PolicyRequest, edit: Edit) -> PolicyRequest | None:
    variable, *steps = edit.path
    if variable == "principal" and len(steps) == 1:
        return _principal(request, steps[0], edit.value)
    if variable == "resource" and steps and edit.value is not None and request.resource.type != "Agent":
        attributes = _put(dict(request.resource.attributes), steps, edit.value)
        if attributes is not None:
            return replace(request, resource=replace(request.resource, attributes=tuple(attributes.items())))
    if variable == "context" and steps:
        context = _put(request.context, steps, edit.value)
        return None if context is None else replace(request, context=context)
    return None


def _principal(request: PolicyRequest, name: str, value: JsonValue) -> PolicyRequest | None:
    """A principal may be the resource as well; then both change."""
    if name not in Principal.__dataclass_fields__ or name == "agent" or value is None:
        return None
    new = tuple(map(str, value)) if isinstance(value, list) else value
    if type(new) is not type(getattr(request.principal, name)):
        return None
    principal = replace(request.principal, **{name: new})  # type: ignore[arg-type]  # of the type that the field has
    resource = request.resource
    if (resource.type, resource.id) == ("Agent", principal.agent):
        resource = Resource(
            resource.type,
            resource.id,
            tuple((key, value if key == name else old) for key, old in resource.attributes),
            tuple(("Group", group) for group in principal.groups),
        )
    return replace(request, principal=principal, resource=resource)


def _put(record: JsonValue, steps: Sequence[str], value: JsonValue) -> dict[str, JsonValue] | None:
    if not isinstance(record, Mapping):
        return None
    new = dict(record)
    if len(steps) > 1:
        inner = _put(new.get(steps[0]), steps[1:], value)
        if inner is None:
            return None
        new[steps[0]] = inner
    elif value is None:
        new.pop(steps[0], None)
    else:
        new[steps[0]] = value
    return new
