"""Decisions: one pure function over a policy set and a request, and the engine that holds the set in force.

The rules, in this order; whatever no rule allows is denied:

1. The request must fit the schema (principal, resource, action, context). If not, deny.
2. Every policy that it touches must evaluate. If one errors, be it a permit or a forbid, deny. (Cedar by itself skips
   such a policy.)
3. A forbid that fires denies.
4. A permit that fires allows, with the conditions of all permits that fired.
5. Otherwise deny.

An answer that is not understood, and an exception, deny as well.
"""

import json
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import cedarpy

from symbi.errors import InputError, InternalError
from symbi.policy.decision import VOLATILE, Allow, AllowWithConditions, Deny, PolicyDecision, PolicyRequest
from symbi.policy.policies import Compiled, Policy, PolicySet, PolicyWarning
from symbi.policy.source import PolicySource
from symbi.types import JsonValue, PolicyId, Principal, Resource

__all__ = [
    "Compiled",
    "Policy",
    "PolicyEngine",
    "PolicySet",
    "PolicySource",
    "PolicyWarning",
    "decide",
]

_MAX_ERROR_CHARS: Final = 300  # bounds one error in a decision, and so in the trail

# Cedar's errors may repeat values of the request, and a decision is stored. Only what matches here is passed on: names
# of the schema and of the policies, never a value.
_WITHOUT_VALUES: Final = re.compile(
    r"""while\ parsing\ context,\ expected\ the\ record\ to\ have\ an\ attribute\ `[^`]*`
      | while\ parsing\ context,\ record\ attribute\ `[^`]*`\ should\ not\ exist
      | while\ parsing\ context,\ found\ a\ `null`
      | (?:action|principal\ type|resource\ type)\ `[^`]*`\ (?:does\ not\ exist|is\ not\ declared|is\ not\ valid\ for\ `[^`]*`)
      | entity\ `[^`]*`\ does\ not\ exist
      | (?:record|`[^`]*`)\ does\ not\ have\ the\ attribute\ `[^`]*`
      | error\ while\ evaluating\ `\w+`\ extension\ function
      | integer\ overflow
      | type\ error
    """,
    re.VERBOSE,
)
_UNFIT_ENTITY: Final = "entity does not conform to the schema"


def ask(policies: PolicySet, cedar: cedarpy.PolicySet, request: PolicyRequest) -> cedarpy.AuthzResult:
    """Put a request to Cedar, with the entities and the schema of a set.

    Args:
        policies: Whose schema counts.
        cedar: The parsed policies to evaluate.
        request: The question.

    Raises:
        InputError: Principal or resource cannot be made an entity.
        ValueError: They do not fit the schema, or something cannot be encoded.
    """
    return cedarpy.is_authorized(
        {
            "principal": {"type": "Agent", "id": request.principal.agent},
            "action": {"type": "Action", "id": request.action},
            "resource": {"type": request.resource.type, "id": request.resource.id},
            "context": _encode(_read_of(policies, request.context)),
        },
        cedar,
        policies.entities(_encode(_entities(request.principal, request.resource))),
        policies.cedar_schema,
    )


def _read_of(policies: PolicySet, context: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    """The context without what of `VOLATILE` no policy reads."""
    unread = VOLATILE - policies.reads
    return {key: value for key, value in context.items() if key not in unread} if unread else context


def decide(policies: PolicySet, request: PolicyRequest) -> PolicyDecision:
    """Decide one request. Never raises for what a request or a policy can hold, and never allows by default.

    Args:
        policies: The set in force.
        request: The question.

    Returns:
        The decision, with the policies that made it. Errors in a Deny name policies and attributes, never values.
    """
    try:
        return _judge(policies, request, ask(policies, policies.cedar, request))
    except InputError as error:
        return _unfit(policies, request, error.message)
    except ValueError as error:
        known = str(error) == _UNFIT_ENTITY
        return _unfit(policies, request, "principal or resource" if known else "something in it cannot be encoded")
    except BaseException as error:
        # A panic of the library is no Exception; it denies like every other failure. Interrupts of ours go on.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        return Deny("evaluation failed", (), policies.version, (type(error).__name__,))


def _judge(policies: PolicySet, request: PolicyRequest, result: cedarpy.AuthzResult) -> PolicyDecision:
    fired = [policies.by_id[PolicyId(reason)] for reason in result.diagnostics.reasons]
    refs = tuple(policy.ref for policy in fired)
    errors = tuple(_told(policies, error) for error in result.diagnostics.errors)
    if result.decision is cedarpy.Decision.NoDecision:
        return _unfit(policies, request, "; ".join(errors) or "no decision was made")
    if result.decision is cedarpy.Decision.Deny and fired:
        return Deny(f"forbidden by {', '.join(_named(policy) for policy in fired)}", refs, policies.version, errors)
    if errors:
        return Deny(f"a policy could not be evaluated: {errors[0]}", (), policies.version, errors)
    if result.decision is not cedarpy.Decision.Allow or not fired:
        reason = f"no policy permits `{request.action}` for agent `{request.principal.agent}`"
        return Deny(_bounded(reason), (), policies.version)
    conditions = tuple(condition for policy in fired for condition in policy.conditions)
    if conditions:
        return AllowWithConditions(conditions, refs, policies.version)
    return Allow(refs, policies.version)


def _unfit(policies: PolicySet, request: PolicyRequest, why: str) -> Deny:
    reason = f"the request for `{request.action}` does not fit the schema: {why}"
    return Deny(_bounded(reason), (), policies.version, (_bounded(why),))


def _bounded(text: str) -> str:
    """A text that a trail can store: not too long, and without lone surrogates."""
    return text.encode("utf-8", "backslashreplace").decode()[:_MAX_ERROR_CHARS]


def _named(policy: Policy) -> str:
    place = f"{policy.file}:{policy.line}"
    return f"`{policy.id}`" if policy.id == place else f"`{policy.id}` ({place})"


def _told(policies: PolicySet, error: str) -> str:
    """An error of Cedar as a decision may repeat it: the policy that it is about, and what is known to hold no value."""
    about, told = "", error.removeprefix("failed to build request: ")
    for policy in policies.policies:
        prefix = f"error while evaluating policy `{policy.id}`: "
        if error.startswith(prefix):
            about, told = f"{_named(policy)}: ", error.removeprefix(prefix)
    match = _WITHOUT_VALUES.match(told)
    told = about + (
        match.group() if match else "a value is not of the declared type" if not about else "evaluation failed"
    )
    return _bounded(told)


def _entities(principal: Principal, resource: Resource) -> list[dict[str, JsonValue]]:
    """Principal and resource in Cedar's JSON; one entity where they are the same.

    Raises:
        InputError: An attribute is there twice, or principal and resource are one agent with different attributes.
    """
    agent = _entity(
        "Agent",
        principal.agent,
        (("owner", principal.owner), ("trust", principal.trust)),
        tuple(("Group", group) for group in principal.groups),
    )
    other = _entity(resource.type, resource.id, resource.attributes, resource.parents)
    if agent["uid"] != other["uid"]:
        return [agent, other]
    if agent != other:
        raise InputError("the agent has other attributes as principal than as resource")
    return [agent]


def _entity(
    type_: str, id_: str, attributes: Sequence[tuple[str, JsonValue]], parents: Sequence[tuple[str, str]]
) -> dict[str, JsonValue]:
    attrs = dict(attributes)
    if len(attrs) != len(attributes):
        raise InputError("an attribute of the resource is there twice")
    return {
        "uid": {"type": type_, "id": id_},
        "attrs": attrs,
        "parents": [{"type": parent, "id": name} for parent, name in sorted(set(parents))],
    }


def _plain(value: object) -> object:
    """What the JSON encoder does not know by itself: read-only mappings, and sequences that are no lists."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    raise InputError(f"a value of type `{type(value).__name__}` is not JSON")


_encode: Final = json.JSONEncoder(allow_nan=False, default=_plain).encode


class PolicyEngine:
    """Holds the policy set in force. Every decision is made with one set; a new one replaces it as a whole.

    Args:
        policies: The first set; an empty one denies everything.
    """

    def __init__(self, policies: PolicySet) -> None:
        self._current = policies
        self._callbacks: list[Callable[[PolicySet], None]] = []
        self._changing = threading.Lock()

    @property
    def current(self) -> PolicySet:
        """The set in force."""
        return self._current

    def decide(self, request: PolicyRequest) -> PolicyDecision:
        """Decide with the set in force."""
        return decide(self._current, request)

    async def evaluate_policy(self, request: PolicyRequest) -> PolicyDecision:
        """Decide with the set in force; it does not wait for anything."""
        return decide(self._current, request)

    def on_change(self, callback: Callable[[PolicySet], None]) -> None:
        """Call back with the new set after each change, e.g. to revoke leases."""
        self._callbacks.append(callback)

    def replace(self, policies: PolicySet) -> None:
        """Put another set in force, at once.

        Raises:
            InternalError: A callback failed. All of them were called, and the new set is in force.
        """
        with self._changing:
            self._current = policies
        self._announce(policies)

    async def register_policy(self, source: PolicySource) -> PolicyId:
        """Add one policy to the set in force, at once; returns its id.

        Raises:
            PolicySyntaxError: It cannot be used beside the others; the set stays as it was.
            InputError: The source holds more or less than one policy; likewise.
            InternalError: A callback failed. All of them were called, and the new set is in force.
        """
        with self._changing:
            old = self._current
            new = PolicySet.load((*old.sources, source), old.compiled, old.tools)
            added = [policy.id for policy in new.policies if policy.id not in old.by_id]
            if len(added) != 1:
                raise InputError(f"`{source.file}` holds {len(added)} policies, not one", code="policy.invalid")
            self._current = new
        self._announce(new)
        return added[0]

    def _announce(self, policies: PolicySet) -> None:
        failures: list[Exception] = []
        for callback in tuple(self._callbacks):
            try:
                callback(policies)
            except Exception as error:  # noqa: BLE001 - the others must hear of the new set first
                failures.append(error)
        if failures:
            raise InternalError("the policy set changed, and not everybody took it up") from ExceptionGroup(
                "", failures
            )
