"""Conditions whose evaluation can fail on a request that fits the schema. Whatever fails denies.

The type checker has seen every policy, so that no attribute is missing and no type is wrong. What is left: whole numbers
that overflow, and attributes of entities that are neither principal nor resource and so are not part of a request.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

from symbi.policy.contradiction import bounds
from symbi.policy.expression import Expression, Path, children, clauses, path_of, render
from symbi.policy.policies import Policy

_MIN: Final = -(2**63)
_MAX: Final = 2**63 - 1
_Range: TypeAlias = tuple[int, int]
_Known: TypeAlias = Mapping[Path, _Range]
_EXTENSIONS: Final = frozenset({"decimal", "ip", "datetime", "duration", "offset", "durationSince"})


def may_fail(policy: Policy) -> bool:
    """Whether some part of a policy's condition can fail."""
    return next(failures(policy), None) is not None


def failures(policy: Policy) -> Iterator[tuple[Expression, str]]:
    """The parts of a policy's condition that can fail where they are reached, each with how."""
    known: dict[Path, _Range] = {}
    for part in clauses(policy):
        yield from _failures(part, known)
        for path, least, most in bounds(part):  # evaluated only where the part before was true
            low, high = known.get(path, (_MIN, _MAX))
            known[path] = (low if least is None else max(low, least), high if most is None else min(high, most))


def _failures(expression: Expression, known: _Known) -> Iterator[tuple[Expression, str]]:
    stack = [expression]
    while stack:
        node = stack.pop()
        how = _failure(node, known)
        if how:
            yield node, how
        stack.extend(children(node))


def _failure(node: Expression, known: _Known) -> str:
    (kind, inner), *_ = node.items()
    if kind in {"+", "-", "*", "neg"} and _range(node, known) is None:
        return f"`{render(node)}` overflows for large numbers"
    if kind == "." and _is_other_entity(inner["left"]):
        return f"`{render(node)}` reads an entity that is not part of a request"
    if kind == "getTag":
        return f"`{render(node)}` fails where there is no such tag"
    if kind in _EXTENSIONS and not _is_constant(inner):
        return f"`{render(node)}` fails on a text or a number that it cannot take"
    return ""


def _is_other_entity(expression: Expression) -> bool:
    value = expression.get("Value")
    return isinstance(value, Mapping) and "__entity" in value


def _is_constant(inner: Any) -> bool:
    return isinstance(inner, list) and all("Value" in item for item in inner)


def _range(node: Expression, known: _Known) -> _Range | None:
    """Where the value of a whole-number expression lies; None where it may lie outside 64 bits."""
    (kind, inner), *_ = node.items()
    if kind == "Value" and isinstance(inner, int):
        return inner, inner
    if kind == "neg":
        operand = _range(inner["arg"], known)
        return None if operand is None else _fitting([-operand[0], -operand[1]])
    if kind in {"+", "-", "*"}:
        left, right = _range(inner["left"], known), _range(inner["right"], known)
        if left is None or right is None:
            return None
        return _fitting([_apply(kind, one, other) for one in left for other in right])
    path = path_of(node)
    return known.get(path, (_MIN, _MAX)) if path is not None else (_MIN, _MAX)


def _apply(kind: str, left: int, right: int) -> int:
    return left + right if kind == "+" else left - right if kind == "-" else left * right


def _fitting(ends: list[int]) -> _Range | None:
    low, high = min(ends), max(ends)
    return (low, high) if low >= _MIN and high <= _MAX else None
