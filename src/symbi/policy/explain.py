"""Why a decision is what it is: the policies that made it, those that nearly did, and those that speak of the same thing."""

from dataclasses import dataclass

from symbi.policy.catalog import TOOL_GROUP
from symbi.policy.decision import AllowWithConditions, Deny, PolicyDecision, PolicyRequest
from symbi.policy.engine import ask, decide
from symbi.policy.history import offline
from symbi.policy.policies import Policy, PolicySet
from symbi.policy.slice import cedar_set


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision taken apart.

    Attributes:
        decision: What was decided.
        summary: One line.
        deciding: The policies that made the decision; none where nothing fired or a policy could not be evaluated.
        unmet: For a denial without a forbid: the permits whose scope (principal, action, resource) fits and whose
            conditions do not hold; `symbi.policy.counterfactual` says which parts of them.
        related: Other policies whose scope fits, or that name the action, its group or the resource.
    """

    decision: PolicyDecision
    summary: str
    deciding: tuple[Policy, ...]
    unmet: tuple[Policy, ...]
    related: tuple[Policy, ...]


def explain(policies: PolicySet, request: PolicyRequest) -> Explanation:
    """Decide a request and say why; what it does not say of its past is zero.

    For people: it evaluates the set twice and is not fast.

    Raises:
        InputError: An amount that a counter adds up cannot be added.
    """
    request = offline(policies.counters, request)
    decision = decide(policies, request)
    deciding = tuple(policies.by_id[ref.id] for ref in decision.policies)
    scoped = in_scope(policies, request)
    unmet: tuple[Policy, ...] = ()
    if isinstance(decision, Deny) and not deciding:
        unmet = tuple(policy for policy in scoped if policy.effect == "permit")
    named = {("Action", request.action), (request.resource.type, request.resource.id)}
    if request.action.startswith(f"{TOOL_GROUP}::"):
        named.add(("Action", TOOL_GROUP))
    told = {policy.id for policy in (*deciding, *unmet)}
    fitting = {policy.id for policy in scoped}
    related = tuple(
        policy
        for policy in policies.policies
        if policy.id not in told and (policy.id in fitting or not named.isdisjoint(policy.names))
    )
    return Explanation(decision, _summary(decision, unmet), deciding, unmet, related)


def in_scope(policies: PolicySet, request: PolicyRequest) -> tuple[Policy, ...]:
    """The policies whose scope fits: Cedar is asked for the set with all conditions left out and all effects permit."""
    bare = {
        policy.id: {**policy.json, "effect": "permit", "conditions": [], "annotations": {}}
        for policy in policies.policies
    }
    try:
        reasons = ask(policies, cedar_set(bare), request).diagnostics.reasons
    except ValueError:  # the request fits no scope, because it does not fit the schema; the decision says so
        return ()
    return tuple(policy for policy in policies.policies if policy.id in reasons)


def _summary(decision: PolicyDecision, unmet: tuple[Policy, ...]) -> str:
    if isinstance(decision, Deny):
        near = f"; the conditions of {len(unmet)} that could permit it do not hold" if unmet else ""
        return f"denied: {decision.reason}{near}"
    permits = ", ".join(str(ref) for ref in decision.policies)
    if isinstance(decision, AllowWithConditions):
        conditions = ", ".join(f"{condition.kind.value} {condition.value}" for condition in decision.conditions)
        return f"allowed by {permits} with conditions: {conditions}"
    return f"allowed by {permits}"
