"""What would change a verdict. Nothing is claimed here that was not decided: each change was made and put to the engine."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import Final

from symbi.policy.change import Edit, Edits, changed, guesses
from symbi.policy.decision import Deny, PolicyDecision, PolicyRef, PolicyRequest
from symbi.policy.edit import without
from symbi.policy.engine import decide
from symbi.policy.explain import in_scope
from symbi.policy.expression import Clause, Path, shown, states, value_at
from symbi.policy.library import CANARY
from symbi.policy.policies import Policy, PolicySet
from symbi.types import JsonValue

MAX_TRIES: Final = 200  # requests decided to find changes for one verdict
MAX_GUESSED: Final = 5000  # of those, put in order before any is decided
MAX_CHANGES: Final = 8  # shown of those that were found
MAX_BLOCKERS: Final = 4  # false clauses of one permit that are changed together


@dataclass(frozen=True, slots=True)
class PolicyState:
    """A policy whose scope fits, with its clauses on the request."""

    policy: Policy
    clauses: tuple[Clause, ...]

    @property
    def blockers(self) -> tuple[Clause, ...]:
        """The clauses that are not true."""
        return tuple(clause for clause in self.clauses if clause.holds is not True)


@dataclass(frozen=True, slots=True)
class Change:
    """A change of the request that was decided on.

    Attributes:
        facts: (fact, what it is, what it would be), as texts.
        decision: What comes of it.
    """

    facts: tuple[tuple[str, str, str], ...]
    decision: PolicyDecision


@dataclass(frozen=True, slots=True)
class Lifted:
    """The decision on the same request, without some forbids."""

    forbids: tuple[PolicyRef, ...]
    decision: PolicyDecision


@dataclass(frozen=True, slots=True)
class WhatIf:
    """What would change a verdict.

    Attributes:
        states: The policies whose scope fits, those that came nearest first.
        lifted: For a denial by forbids: what would be decided without them.
        changes: The smallest changes found that turn the verdict, those of one fact first. There may be others.
    """

    states: tuple[PolicyState, ...]
    lifted: Lifted | None
    changes: tuple[Change, ...]


def what_if(policies: PolicySet, request: PolicyRequest, decision: PolicyDecision | None = None) -> WhatIf:
    """Look for what would turn the verdict on a request.

    Args:
        policies: The set.
        request: The question.
        decision: The decision on it, where it is known.
    """
    decision = decision or decide(policies, request)
    fitting = in_scope(policies, request)
    found = states(policies, request, fitting)
    known = sorted((PolicyState(p, found[p.id]) for p in fitting), key=lambda state: len(state.blockers))
    lifted = None
    if isinstance(decision, Deny):
        lifted = _lift(policies, request, decision)
        tries = iter(()) if decision.errors else _to_permit(known, request)
    else:
        tries = _to_deny(known, request)
    changes = _try(policies, request, islice(tries, MAX_TRIES), denied=isinstance(decision, Deny))
    return WhatIf(tuple(known), lifted, tuple(islice(changes, MAX_CHANGES)))


def _lift(policies: PolicySet, request: PolicyRequest, decision: Deny) -> Lifted | None:
    """The decision without the forbids that fired; None where there are none, or one is built in."""
    fired = [policies.by_id[ref.id] for ref in decision.policies]
    if not fired or any(policy.file == CANARY.file for policy in fired):
        return None
    rest = without(policies, {policy.id for policy in fired})
    return Lifted(decision.policies, decide(rest, request))


def _to_permit(known: Sequence[PolicyState], request: PolicyRequest) -> Iterator[Edits]:
    """Changes that could make one permit fire, and every forbid not fire."""
    stops = [
        [edits for clause in state.clauses for edits in guesses(clause.expression, request, want=False)]
        for state in known
        if state.policy.effect == "forbid" and not state.blockers
    ]
    opens: list[Edits] = []
    for state in known:
        if state.policy.effect == "permit" and len(state.blockers) <= MAX_BLOCKERS:
            parts = [guesses(clause.expression, request, want=True) for clause in state.blockers]
            opens += [_joined(choice) for choice in product(*parts)]
    for choice in sorted(islice(product(opens, *stops), MAX_GUESSED), key=lambda choice: sum(map(len, choice))):
        yield _joined(choice)


def _to_deny(known: Sequence[PolicyState], request: PolicyRequest) -> Iterator[Edits]:
    """Changes that could make a permit that fires not fire, or a forbid fire."""
    fired = [state for state in known if state.policy.effect == "permit" and not state.blockers]
    single = [
        [edits for clause in state.clauses for edits in guesses(clause.expression, request, want=False)]
        for state in fired
    ]
    for each in single:
        yield from each
    for state in known:
        if state.policy.effect == "forbid" and 0 < len(state.blockers) <= MAX_BLOCKERS:
            parts = [guesses(clause.expression, request, want=True) for clause in state.blockers]
            yield from (_joined(choice) for choice in product(*parts))
    if len(single) > 1:
        yield from (_joined(choice) for choice in product(*single))


def _joined(choice: Iterable[Edits]) -> Edits:
    """Several edits as one; of two of one fact, the later counts."""
    by_path: dict[Path, Edit] = {edit.path: edit for edits in choice for edit in edits}
    return tuple(by_path.values())


def _try(policies: PolicySet, request: PolicyRequest, tries: Iterable[Edits], *, denied: bool) -> Iterator[Change]:
    """The changes that do turn the verdict, one for each set of facts, without those that change more facts than one before."""
    seen: list[set[Path]] = []
    for edits in tries:
        real = tuple(edit for edit in edits if _old(request, edit.path) != edit.value)
        new = changed(request, real) if real else None
        if new is None:
            continue
        decision = decide(policies, new)
        turned = not isinstance(decision, Deny) if denied else isinstance(decision, Deny) and not decision.errors
        facts = tuple((".".join(e.path), shown(_old(request, e.path)), shown(e.value)) for e in real)
        touched = {edit.path for edit in real}
        if not turned or any(smaller <= touched for smaller in seen):
            continue
        seen.append(touched)
        yield Change(facts, decision)


def _old(request: PolicyRequest, path: Path) -> JsonValue:
    if path == ("principal", "groups"):
        return list(request.principal.groups)
    return value_at(request, path)
