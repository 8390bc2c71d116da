"""Policies that decide nothing, because another one always decides first or decides the same.

One policy covers another where its scope holds all of the other's scope and each part of its condition is a part of the
other's condition: then it fires whenever the other does. A policy that can fail is never called redundant, for an error
denies: to remove it could allow something.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from symbi.policy.catalog import TOOL_GROUP
from symbi.policy.decision import ConditionKind
from symbi.policy.expression import clauses
from symbi.policy.failing import may_fail
from symbi.policy.policies import PLAIN_ANNOTATIONS, Policy

MAX_COMPARED: Final = 2_000_000  # pairs looked at; bounds the time for a set of many like policies
_TOOL_PREFIX: Final = f"{TOOL_GROUP}::"
_ALL: Final = "*"


@dataclass(frozen=True, slots=True)
class Redundant:
    """A policy that changes no decision.

    Attributes:
        policy: The policy.
        cover: The one that makes it so.
        kind: `shadowed`: a permit that this forbid always takes away; `implied`: whatever it says, the other says too.
    """

    policy: Policy
    cover: Policy
    kind: str


@dataclass(frozen=True, slots=True)
class _Form:
    """What of a policy is compared: scopes, and its clauses as texts."""

    policy: Policy
    clauses: frozenset[str]


def redundant(policies: Sequence[Policy]) -> Iterator[Redundant]:
    """The policies that could be removed one by one without a change of any verdict or condition."""
    forms = [_Form(policy, _clause_texts(policy)) for policy in policies]
    index: dict[tuple[str, str, str], list[tuple[int, _Form]]] = {}
    for number, form in enumerate(forms):
        for action in _action_keys(form.policy):
            key = (action, _principal_key(form.policy), min(form.clauses, default=""))
            index.setdefault(key, []).append((number, form))
    compared = 0
    for number, form in enumerate(forms):
        if may_fail(form.policy):
            continue
        best: Redundant | None = None
        for other_number, other in _candidates(index, form):
            compared += 1
            if compared > MAX_COMPARED:
                return
            found = _compare(number, form, other_number, other)
            if found is not None and (best is None or found.kind == "shadowed"):
                best = found
        if best is not None:
            yield best


def _compare(number: int, form: _Form, other_number: int, other: _Form) -> Redundant | None:
    policy, cover = form.policy, other.policy
    if not _is_plain(policy) or not _is_plain(cover):
        return None
    if number == other_number or not other.clauses <= form.clauses or not _scope_holds(cover, policy):
        return None
    if cover.effect == "forbid":
        kind = "shadowed" if policy.effect == "permit" else "implied"
    elif policy.effect == "permit" and not policy.conditions:
        kind = "implied"
    else:
        return None
    equal = form.clauses == other.clauses and _scope_holds(policy, cover) and policy.effect == cover.effect
    if equal and (policy.conditions or not cover.conditions) and number < other_number:
        return None  # of two that say the same, the later one is told of
    return Redundant(policy, cover, kind)


def _is_plain(policy: Policy) -> bool:
    """It permits with its conditions, or forbids, and does nothing else."""
    return set(policy.annotations) <= {*PLAIN_ANNOTATIONS, *ConditionKind}


def _clause_texts(policy: Policy) -> frozenset[str]:
    texts = {json.dumps(part, sort_keys=True) for part in clauses(policy)}
    return frozenset(texts - {'{"Value": true}'})


def _action_keys(policy: Policy) -> list[str]:
    """Under which actions a policy is filed: each that its scope names, or all of them."""
    return sorted(policy.scope_actions() or (_ALL,))


def _principal_key(policy: Policy) -> str:
    return json.dumps(policy.json["principal"], sort_keys=True)


def _candidates(
    index: Mapping[tuple[str, str, str], Sequence[tuple[int, _Form]]], form: _Form
) -> Iterator[tuple[int, _Form]]:
    """The policies that may cover one, by the keys that such a policy must have."""
    actions = {_ALL, *_action_keys(form.policy)}
    if any(action.startswith(_TOOL_PREFIX) for action in actions):
        actions.add(TOOL_GROUP)
    scope = form.policy.json["principal"]
    principals = {_principal_key(form.policy), '{"op": "All"}', '{"entity_type": "Agent", "op": "is"}'}
    if scope["op"] == "is" and "in" in scope:
        principals.add(json.dumps({"op": "in", **scope["in"]}, sort_keys=True))
    for action in sorted(actions):
        for principal in sorted(principals):
            for clause in ("", *sorted(form.clauses)):
                yield from index.get((action, principal, clause), ())


def _scope_holds(cover: Policy, policy: Policy) -> bool:
    """Whether every request that is in the one scope is in the other's."""
    return (
        _entity_holds(cover.json["principal"], policy.json["principal"])
        and _entity_holds(cover.json["resource"], policy.json["resource"])
        and _action_holds(cover, policy)
    )


def _entity_holds(cover: Mapping[str, Any], scope: Mapping[str, Any]) -> bool:
    if cover["op"] == "All" or cover == scope:
        return True
    if cover["op"] == "is" and "in" not in cover:
        kind = scope.get("entity_type") if scope["op"] == "is" else None
        if scope["op"] == "==":
            kind = scope["entity"]["type"]
        return bool(kind == cover["entity_type"])
    if cover["op"] == "in":
        return bool(
            (scope["op"] == "==" and scope["entity"] == cover["entity"])
            or (scope["op"] == "is" and scope.get("in", {}).get("entity") == cover["entity"])
        )
    return False


def _action_holds(cover: Policy, policy: Policy) -> bool:
    wide, narrow = cover.scope_actions(), policy.scope_actions()
    if wide is None:
        return True
    if narrow is None:
        return False
    return all(name in wide or (name.startswith(_TOOL_PREFIX) and TOOL_GROUP in wide) for name in narrow)
