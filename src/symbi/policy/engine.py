"""Decisions: one pure function over a policy set and a request, and the engine that holds the set in force.

The rules, in this order; whatever no rule allows is denied:

1. The request must fit the schema (principal, resource, action, context). If not, deny.
2. Every policy that it touches must evaluate. If one errors, be it a permit or a forbid, deny. (Cedar by itself skips
   such a policy.)
3. A forbid that fires denies.
4. A permit that fires allows, with the conditions of all permits that fired (one that is there for its conditions alone,
   `@conditions("only")`, allows nothing);
5. unless a requirement that fires (`symbi.policy.requirement`) asks for a condition that they do not have.
6. Otherwise deny.

An answer that is not understood, and an exception, deny as well.
"""

import marshal
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import cedarpy

from symbi.errors import InputError, InternalError
from symbi.policy.decision import VOLATILE, Allow, AllowWithConditions, Deny, PolicyDecision, PolicyRequest
from symbi.policy.entities import encode, encode_plain, entities_of
from symbi.policy.policies import Compiled, Policy, PolicySet, PolicyWarning
from symbi.policy.remembered import InForce, key_of
from symbi.policy.requirement import missing
from symbi.policy.slice import MAX_SLICE_POLICIES, SliceTooLarge
from symbi.policy.source import PolicySource
from symbi.types import JsonValue, PolicyId

__all__ = [
    "Compiled",
    "Policy",
    "PolicyEngine",
    "PolicySet",
    "PolicySource",
    "PolicyWarning",
    "decide",
]

MAX_REQUEST_BYTES: Final = 4_194_304  # bounds one evaluation: as much as a tool can be sent in one message
EVALUATION_TIMEOUT_S: Final = 1.0  # some thousand times what a decision takes

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
NO_POLICIES: Final = cedarpy.PolicySet.from_str("")
_OF_POLICY: Final = re.compile(r"error while evaluating policy `(.+?)`: ", re.DOTALL)
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
            **_question(request),
            "context": encode(_read_of(policies, request.context)),
        },
        cedar,
        policies.entities.whole(request.principal, request.resource),
        policies.cedar_schema,
    )


def _question(request: PolicyRequest) -> dict[str, Any]:
    return {
        "principal": {"type": "Agent", "id": request.principal.agent},
        "action": {"type": "Action", "id": request.action},
        "resource": {"type": request.resource.type, "id": request.resource.id},
    }


def _read_of(policies: PolicySet, context: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    """The context without what of `VOLATILE` no policy reads."""
    unread = VOLATILE - policies.reads
    return {key: value for key, value in context.items() if key not in unread} if unread else context


def decide(policies: PolicySet, request: PolicyRequest) -> PolicyDecision:
    """Decide one request. Never raises for what a request or a policy can hold, and never allows by default.

    Only the policies that the request can touch are evaluated, on what they read of its context; the decision is the
    same as that of `decide_whole`.

    Args:
        policies: The set in force.
        request: The question.

    Returns:
        The decision, with the policies that made it. Errors in a Deny name policies and attributes, never values.
    """
    return _guarded(policies, request, _ask_slices)


def decide_whole(policies: PolicySet, request: PolicyRequest) -> PolicyDecision:
    """Decide by evaluating every policy on the whole context: what `decide` is held to, and much slower."""
    return _guarded(policies, request, _ask_whole)


def _guarded(
    policies: PolicySet,
    request: PolicyRequest,
    answers: Callable[[PolicySet, PolicyRequest], Sequence[cedarpy.AuthzResult]],
) -> PolicyDecision:
    try:
        if _size_bytes(request) > MAX_REQUEST_BYTES:
            return _unfit(policies, request, f"it is larger than {MAX_REQUEST_BYTES} bytes")
        return _judge(policies, request, answers(policies, request))
    except InputError as error:
        return _unfit(policies, request, error.message)
    except ValueError as error:
        known = str(error) == _UNFIT_ENTITY
        return _unfit(policies, request, "principal or resource" if known else "something in it cannot be encoded")
    except SliceTooLarge:
        why = f"more than {MAX_SLICE_POLICIES} policies concern the request"
        return Deny(why, (), policies.version, (why,))
    except BaseException as error:
        # A panic of the library is no Exception; it denies like every other failure. Interrupts of ours go on.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        return Deny("evaluation failed", (), policies.version, (type(error).__name__,))


def _size_bytes(request: PolicyRequest) -> int:
    """About what Cedar would have to read."""
    resource = request.resource
    parts: Any = (request.context, resource.attributes, resource.parents, request.principal.groups)
    try:
        return len(marshal.dumps(parts, 0))
    except ValueError:  # not made of plain values alone
        return len(encode(request.context)) + len(encode(entities_of(request.principal, resource)))


def _ask_whole(policies: PolicySet, request: PolicyRequest) -> Sequence[cedarpy.AuthzResult]:
    return (ask(policies, policies.cedar, request),)


def _ask_slices(policies: PolicySet, request: PolicyRequest) -> Sequence[cedarpy.AuthzResult]:
    slices = policies.slices.of(request)
    if not policies.fits(request):
        return [ask(policies, each.cedar, request) for each in slices] or [ask(policies, NO_POLICIES, request)]
    entities = policies.entities.of(request)
    question = _question(request)
    results = []
    for each in slices:
        question["context"] = encode_plain(each.reads.of(request.context)).decode()
        results.append(cedarpy.is_authorized(question, each.cedar, entities))
    return results


def _judge(policies: PolicySet, request: PolicyRequest, results: Sequence[cedarpy.AuthzResult]) -> PolicyDecision:
    """The decision that follows from the answers of all parts of the set; what it names is sorted."""
    permits: list[Policy] = []
    forbids: list[Policy] = []
    errors: list[str] = []
    for result in results:
        diagnostics, answer = result.diagnostics, result.decision
        fired = [policies.by_id[PolicyId(reason)] for reason in diagnostics.reasons]
        told = [_told(policies, error) for error in diagnostics.errors]
        if answer is cedarpy.Decision.NoDecision:
            return _unfit(policies, request, "; ".join(told) or "no decision was made")
        (permits if answer is cedarpy.Decision.Allow else forbids).extend(fired)
        errors.extend(told)
    errors.sort()
    if forbids:
        forbids.sort(key=_position)
        reason = f"forbidden by {', '.join(_named(policy) for policy in forbids)}"
        return Deny(reason, tuple(policy.ref for policy in forbids), policies.version, tuple(errors))
    if errors:
        return Deny(f"a policy could not be evaluated: {errors[0]}", (), policies.version, tuple(errors))
    permits.sort(key=_position)
    speaking = [policy for policy in permits if not policy.requires]
    if not any(policy.permits for policy in speaking):
        reason = f"no policy permits `{request.action}` for agent `{request.principal.agent}`"
        return Deny(_bounded(reason), (), policies.version)
    conditions = tuple(condition for policy in speaking for condition in policy.conditions)
    for policy in (policy for policy in permits if policy.requires):
        lacks = missing(policy.requires, conditions)
        if lacks is not None:
            reason = f"{_named(policy)} requires {lacks} of the permits, and they do not ask for it"
            return Deny(_bounded(reason), (policy.ref,), policies.version)
    allowing = tuple(policy.ref for policy in speaking)
    if conditions:
        return AllowWithConditions(conditions, allowing, policies.version)
    return Allow(allowing, policies.version)


def _position(policy: Policy) -> tuple[str, int, str]:
    return policy.file, policy.line, policy.id


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
    of = _OF_POLICY.match(error)
    policy = policies.by_id.get(PolicyId(of.group(1))) if of else None
    if of and policy:
        about, told = f"{_named(policy)}: ", error[of.end() :]
    match = _WITHOUT_VALUES.match(told)
    told = about + (
        match.group() if match else "a value is not of the declared type" if not about else "evaluation failed"
    )
    return _bounded(told)


class PolicyEngine:
    """Holds the policy set in force. Every decision is made with one set; a new one replaces it as a whole.

    Decisions on equal requests are made once and remembered until the set changes, see `symbi.policy.remembered`.

    Args:
        policies: The first set; an empty one denies everything.
        evaluation_timeout_s: How long a decision may take, in seconds; `in_time` denies what took longer.
        remembers: Whether decisions are remembered.
    """

    def __init__(
        self, policies: PolicySet, *, evaluation_timeout_s: float = EVALUATION_TIMEOUT_S, remembers: bool = True
    ) -> None:
        self._in_force = InForce(policies)
        self._evaluation_timeout_s = evaluation_timeout_s
        self._remembers = remembers
        self._callbacks: list[Callable[[PolicySet], None]] = []
        self._changing = threading.Lock()
        self._closing = False

    @property
    def current(self) -> PolicySet:
        """The set in force."""
        return self._in_force.policies

    def decide(self, request: PolicyRequest) -> PolicyDecision:
        """Decide with the set in force."""
        in_force = self._in_force  # one set, with what was decided with it, whatever happens meanwhile
        key = key_of(request) if self._remembers else None
        if key is None:
            return decide(in_force.policies, request)
        decision = in_force.recall(key)
        if decision is None:
            decision = decide(in_force.policies, request)
            in_force.remember(key, request, decision)
        return decision

    def in_time(self, decision: PolicyDecision, took_s: float) -> PolicyDecision:
        """A decision, or a denial where it took too long to make.

        Cedar cannot be interrupted. It has no loops, so its time is bounded by the sizes of policies and request,
        which are bounded too; whoever has a clock measures, and hands the time in here.

        Args:
            decision: What was decided.
            took_s: How long that took, in seconds.
        """
        if took_s <= self._evaluation_timeout_s:
            return decision
        why = f"the decision timed out: it took more than {self._evaluation_timeout_s:g} s"
        return Deny(why, (), decision.version, (why,))

    async def evaluate_policy(self, request: PolicyRequest) -> PolicyDecision:
        """Decide with the set in force; it does not wait for anything."""
        return self.decide(request)

    def holds(self, version: str) -> bool:
        """Whether a decision of this version may go on record: it is the set in force, and nobody is replacing it."""
        # In this order: `replace` swaps first and then ends the closing, so a set that is seen after it is the new one.
        return not self._closing and version == self.current.version

    def close(self) -> None:
        """From here on no decision of the set in force goes on record; `replace`, or `reopen`, ends it."""
        self._closing = True

    def reopen(self) -> None:
        """The set in force stays after all."""
        self._closing = False

    def on_change(self, callback: Callable[[PolicySet], None]) -> None:
        """Call back with the new set after each change, e.g. to revoke leases."""
        self._callbacks.append(callback)

    def replace(self, policies: PolicySet) -> None:
        """Put another set in force, at once.

        Raises:
            InternalError: A callback failed. All of them were called, and the new set is in force.
        """
        with self._changing:
            self._in_force = InForce(policies)
            self._closing = False
        self._announce(policies)

    async def register_policy(self, source: PolicySource) -> PolicyId:
        """Add one policy to the set in force, at once; returns its id.

        Raises:
            PolicySyntaxError: It cannot be used beside the others; the set stays as it was.
            InputError: The source holds more or less than one policy; likewise.
            InternalError: A callback failed. All of them were called, and the new set is in force.
        """
        with self._changing:
            old = self.current
            new = PolicySet.load((*old.sources, source), old.compiled, old.tools)
            added = [policy.id for policy in new.policies if policy.id not in old.by_id]
            if len(added) != 1:
                raise InputError(f"`{source.file}` holds {len(added)} policies, not one", code="policy.invalid")
            self._in_force = InForce(new)
            self._closing = False
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
