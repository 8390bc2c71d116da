"""Decisions that are remembered while one policy set is in force.

A decision depends on the set and the request alone, so it can be used again for an equal request. The key is the
request itself, in a form in which no two requests are equal unless every value in them is, its type included. Facts
that change without the action (`symbi.policy.decision.PASSING`) stand in it by name and type only, as long as nothing
that concerns the request reads them; otherwise the decision is made each time.
"""

import marshal
from collections import OrderedDict
from typing import Any, Final

from symbi.policy.decision import PASSING, Deny, PolicyDecision, PolicyRequest
from symbi.policy.policies import PolicySet
from symbi.policy.shape import is_text
from symbi.types import JsonValue

MAX_DECISIONS: Final = 4096  # bounds the decisions that are remembered
MAX_KEY_BYTES: Final = 4096  # a larger request is decided each time; bounds what they take to 16 MiB

_PASSING: Final = tuple(sorted(PASSING))  # in the one order in which keys have them
_FORMAT: Final = 0  # of marshal: types and values alone; later formats refer to what was written before
_LONG_MIN: Final = -(2**63)
_LONG_MAX: Final = 2**63 - 1


def key_of(request: PolicyRequest) -> bytes | None:
    """The key of a request; None where it holds anything but plain JSON values, and so none can be trusted."""
    principal, resource, context = request.principal, request.resource, request.context
    if type(context) is not dict:
        return None
    facts: list[tuple[str, tuple[str, ...], str]] = []
    for name in _PASSING:
        fact = _fact(name, context[name]) if name in context else None
        if fact is not None:
            if not facts:
                context = context.copy()
            del context[name]
            facts.append(fact)
    parts: Any = (
        (
            principal.agent,
            principal.owner,
            principal.groups,
            principal.trust,
            principal.tier,
            principal.capabilities,
        ),
        request.action,
        (resource.type, resource.id, resource.attributes, resource.parents),
        context,
        facts,
    )
    try:
        return marshal.dumps(parts, _FORMAT)
    except ValueError:
        return None


def _fact(name: str, value: JsonValue) -> tuple[str, tuple[str, ...], str] | None:
    """A fact without its values; None where it holds anything else, so that it stays in the key as it is."""
    if type(value) is not dict:
        return None
    kinds = ""
    for number in value.values():
        if type(number) is bool:
            kinds += "b"
        elif type(number) is int and _LONG_MIN <= number <= _LONG_MAX:
            kinds += "i"
        elif type(number) is str and (number.isascii() or is_text(number)):
            kinds += "s"
        else:
            return None
    return name, tuple(value), kinds


class InForce:
    """A policy set, and what was decided with it last.

    Args:
        policies: The set.
    """

    __slots__ = ("_decisions", "policies")

    def __init__(self, policies: PolicySet) -> None:
        self.policies = policies
        self._decisions: OrderedDict[bytes, PolicyDecision] = OrderedDict()

    def recall(self, key: bytes) -> PolicyDecision | None:
        """The decision on an equal request, if it is remembered."""
        try:
            decision = self._decisions[key]
            self._decisions.move_to_end(key)
        except KeyError:  # unknown, or forgotten by another thread in between
            return None
        return decision

    def remember(self, key: bytes, request: PolicyRequest, decision: PolicyDecision) -> None:
        """Keep a decision, unless it came of an error, is too large, or rests on a fact that is not in the key."""
        if len(key) > MAX_KEY_BYTES or (isinstance(decision, Deny) and decision.errors):
            return
        if not PASSING.isdisjoint(request.context) and self.policies.slices.volatile(request):
            return
        self._decisions[key] = decision
        if len(self._decisions) > MAX_DECISIONS:
            self._decisions.popitem(last=False)
