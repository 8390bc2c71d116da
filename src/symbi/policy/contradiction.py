"""Policies that can never fire, whatever is asked.

Two judges, each right in what it says. Cedar's own type checker does not look at what stands after a condition that is
false by its type: a policy that still passes with nonsense after it never fires. And the literals that one attribute is
compared with are tried out: where none is left, the condition contradicts itself.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import cedarpy

from symbi.policy.expression import Expression, Path, children, clauses, path_of, render
from symbi.policy.policies import Policy, PolicySet
from symbi.policy.slice import cedar_set
from symbi.types import PolicyId

MAX_LITERALS: Final = 64  # of one attribute that are tried out
MAX_TOLD_CHARS: Final = 80  # of the values that are named
MAX_TRIED: Final = 4096  # comparisons evaluated for one policy
_NONSENSE_JSON: Final[Mapping[str, Any]] = {"kind": "when", "body": {"!": {"arg": {"Value": 5}}}}
_NEEDS_ENTITIES: Final = frozenset({"in", "hasTag", "getTag"})  # what these say depends on more than the values


def never_fire(policies: PolicySet, chosen: Sequence[Policy]) -> dict[PolicyId, str]:
    """Those of some policies that can never fire, each with the reason in one line.

    Args:
        policies: The set, for its schema.
        chosen: Policies whose tools are all in the catalogue.
    """
    found: dict[PolicyId, str] = {}
    impossible = _impossible([policy.json for policy in chosen], policies.cedar_schema)
    for policy, by_type in zip(chosen, impossible, strict=True):
        reason = _by_values(policy)
        if reason is None and by_type:
            reason = _by_type(policy, policies.cedar_schema)
        if reason is not None:
            found[policy.id] = reason
    return found


# --- by type ----------------------------------------------------------------------------------


def _impossible(policies: Sequence[Mapping[str, Any]], schema: cedarpy.Schema) -> list[bool]:
    """Which policies Cedar's type checker knows to be false for every request that fits the schema."""
    if not policies:
        return []
    texts = [
        cedarpy.policies_from_json_str(
            json.dumps(
                {
                    "staticPolicies": {"p": {**policy, "conditions": [*policy["conditions"], _NONSENSE_JSON]}},
                    "templates": {},
                    "templateLinks": [],
                }
            )
        )
        for policy in policies
    ]
    result = cedarpy.validate_policies("\n".join(texts), schema)
    if not result.validation_passed and not result.errors:
        return [False] * len(policies)
    wrong = {error.policy_id for error in result.errors}
    return [f"policy{index}" not in wrong for index in range(len(policies))]


def _by_type(policy: Policy, schema: cedarpy.Schema) -> str:
    """The first part that cannot be true, after those before it."""
    parts = clauses(policy)
    prefixes = [
        {**policy.json, "conditions": [{"kind": "when", "body": part} for part in parts[:count]]}
        for count in range(len(parts) + 1)
    ]
    first = _impossible(prefixes, schema).index(True)
    if first == 0:
        return "its scope fits no request: the action does not apply to such a principal or resource"
    return f"`{render(parts[first - 1])}` is never true of what its scope names"


# --- by values --------------------------------------------------------------------------------


def _by_values(policy: Policy) -> str | None:
    parts = clauses(policy)
    texts = [json.dumps(part, sort_keys=True) for part in parts]
    for part in parts:
        negated = part["!"]["arg"] if "!" in part else {"!": {"arg": part}}
        if json.dumps(negated, sort_keys=True) in texts:
            return f"`{render(part)}` and its opposite cannot both be true"
    constant = [part for part in parts if not _reads(part)]
    for part, value in zip(constant, _evaluate(constant), strict=True):
        if value is False:
            return f"`{render(part)}` is never true"
    pins = [*_scope_pins(policy), *(_pin(part) for part in parts)]
    by_path: dict[Path, list[list[Expression]]] = {}
    for pin in pins:
        if pin is not None:
            by_path.setdefault(pin[0], []).append(pin[1])
    for path, choices in by_path.items():
        reason = _nothing_left(path, min(choices, key=len), parts)
        if reason is not None:
            return reason
    return _empty_range(parts)


def _scope_pins(policy: Policy) -> Iterator[tuple[Path, list[Expression]]]:
    for variable in ("principal", "action", "resource"):
        scope = policy.json[variable]
        if scope["op"] == "==":
            yield (variable,), [{"Value": {"__entity": dict(scope["entity"])}}]


def _pin(part: Expression) -> tuple[Path, list[Expression]] | None:
    """The only values that an attribute may have for a part to be true; None where the part does not say."""
    if "==" in part:
        for one, other in (("left", "right"), ("right", "left")):
            path, value = path_of(part["=="][one]), part["=="][other]
            if path is not None and _is_literal(value):
                return path, [value]
    if "contains" in part and "Set" in part["contains"]["left"]:
        path, items = path_of(part["contains"]["right"]), part["contains"]["left"]["Set"]
        if path is not None and len(items) <= MAX_LITERALS and all(map(_is_literal, items)):
            return path, list(items)
    return None


def _is_literal(expression: Expression) -> bool:
    return "Value" in expression


def _nothing_left(path: Path, values: Sequence[Expression], parts: Sequence[Expression]) -> str | None:
    """Put each value in place of the attribute, in every part that reads nothing else."""
    about = [part for part in parts if _reads(part) == {path}]
    if len(values) * len(about) > MAX_TRIED:
        return None
    left = list(values)
    for part in about:
        results = _evaluate([_put(part, path, value) for value in left])
        left = [value for value, result in zip(left, results, strict=True) if result is not False]
        if not left:
            told = ", ".join(render(value) for value in values)
            return f"`{render(part)}` cannot be true of `{'.'.join(path)}`, which must be {told[:MAX_TOLD_CHARS]}"
    return None


def _reads(expression: Expression) -> set[Path]:
    """The attributes that an expression reads; a sign for what cannot be told, so that nothing equals it."""
    found: set[Path] = set()
    stack = [expression]
    while stack:
        node = stack.pop()
        (kind, inner), *_ = node.items()
        path = path_of(node)
        if path is not None:
            found.add(path)
            continue
        if kind in _NEEDS_ENTITIES or kind in {"has", "."} or (kind == "is" and "in" in inner):
            found.add(("",))
        stack.extend(children(node))
    return found


def _put(expression: Any, path: Path, value: Expression) -> Any:
    if isinstance(expression, Mapping):
        if path_of(expression) == path:
            return value
        return {name: _put(inner, path, value) for name, inner in expression.items()}
    if isinstance(expression, list):
        return [_put(inner, path, value) for inner in expression]
    return expression


def _evaluate(expressions: Sequence[Expression]) -> list[bool | None]:
    """The values of expressions that read nothing; None where one cannot be evaluated."""
    if not expressions:
        return []
    scope = {"op": "All"}
    asked = {
        PolicyId(str(index)): {
            "effect": "permit",
            "principal": scope,
            "action": scope,
            "resource": scope,
            "conditions": [{"kind": "when", "body": expression}],
            "annotations": {},
        }
        for index, expression in enumerate(expressions)
    }
    nobody = {"principal": 'N::"n"', "action": 'Action::"n"', "resource": 'N::"n"', "context": {}}
    try:
        result = cedarpy.is_authorized(nobody, cedar_set(asked), [])
    except ValueError:
        return [None] * len(expressions)
    true = set(result.diagnostics.reasons)
    wrong = {name for name in asked for error in result.diagnostics.errors if f"policy `{name}`" in error}
    return [None if name in wrong else name in true for name in asked]


def _empty_range(parts: Iterable[Expression]) -> str | None:
    """Bounds of one whole number that leave nothing between them."""
    low: dict[Path, tuple[int, Expression]] = {}
    high: dict[Path, tuple[int, Expression]] = {}
    for part in parts:
        for path, least, most in bounds(part):
            if least is not None and (path not in low or least > low[path][0]):
                low[path] = least, part
            if most is not None and (path not in high or most < high[path][0]):
                high[path] = most, part
    for path, (least, part) in low.items():
        if path in high and high[path][0] < least:
            return f"`{render(part)}` and `{render(high[path][1])}` cannot both be true"
    return None


_FLIPPED: Final = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "=="}
_OPPOSITE: Final = {"<": ">=", "<=": ">", ">": "<=", ">=": "<"}


def bounds(part: Expression) -> Iterator[tuple[Path, int | None, int | None]]:
    """What a true part says of whole numbers: (attribute, least, most)."""
    (kind, inner), *_ = part.items()
    if kind == "!":
        (kind, inner), *_ = inner["arg"].items()
        kind = _OPPOSITE.get(kind, "")
    if kind not in _FLIPPED:
        return
    for one, other, sign in (("left", "right", kind), ("right", "left", _FLIPPED[kind])):
        path, value = path_of(inner[one]), inner[other].get("Value")
        if path is None or isinstance(value, bool) or not isinstance(value, int):
            continue
        least = value + (sign == ">") if sign in {">", ">=", "=="} else None
        most = value - (sign == "<") if sign in {"<", "<=", "=="} else None
        yield path, least, most
