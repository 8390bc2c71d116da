"""What came before, as policies read it: `context.history`, `context.usage` and `context.time` of every action.

The gate supplies all three. Each declared counter (`symbi.policy.counters`) is there under its name:

- `formerly`: true if such an action came before this one;
- `count`, `sum`: how many, or how much, *with this action*, should it be allowed; under `NAME_before` without it.

So "at most 500 euros a day" is `forbid (…) when { context.history.paid > 50000 };`, and a policy that forgets which of
the two it reads is too strict by one action, never too lax. Both include what is in flight.

An action that a sum is about and that has no amount, a negative one, or one finer than the unit, is denied.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from symbi.errors import InputError
from symbi.policy.catalog import TOOL_GROUP
from symbi.policy.counters import BEFORE, NS, Counter, Kind, Per, Verdict
from symbi.policy.decision import VOLATILE, PolicyRequest
from symbi.types import JsonValue, Principal

LARGEST: Final = 2**63 - 1
"""The largest Long of Cedar, and so the largest count and sum."""

_TOOL_PREFIX: Final = f"{TOOL_GROUP}::"
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()


@dataclass(frozen=True, slots=True)
class Usage:
    """What a run has used so far, the action under decision left out.

    Attributes:
        effects: Effects that were let through.
        denied: Effects that were refused.
        calls: Tool calls among those that were let through.
        seconds: Whole seconds since the run began, by the wall clock; also those in which it stood still.
    """

    effects: int = 0
    denied: int = 0
    calls: int = 0
    seconds: int = 0

    def facts(self) -> Mapping[str, JsonValue]:
        """As policies read it."""
        return {"effects": self.effects, "denied": self.denied, "calls": self.calls, "seconds": self.seconds}


@dataclass(frozen=True, slots=True)
class Past:
    """What a decision is told of what came before.

    Attributes:
        now_ns: The time of the decision, in nanoseconds since the epoch.
        usage: Of the run; zeros where the action is in none.
        before: Value of each counter by name, what is in flight included and this action not; none where no policy
            reads them.
        uses: How many actions one decision is about; more than one for a lease.
    """

    now_ns: int = 0
    usage: Usage = Usage()
    before: tuple[tuple[str, int], ...] = ()
    uses: int = 1

    def recorded(self, read: Collection[str]) -> Mapping[str, JsonValue]:
        """What a decision was told of it, for the trail: of what policies read, values of counters as texts."""
        told: dict[str, JsonValue] = {}
        if "time" in read:
            told["epoch_s"] = self.now_ns // NS
        if "usage" in read:
            told["usage"] = self.usage.facts()
        if "history" in read:
            told["history"] = {name: str(value) for name, value in self.before}  # JSON has no exact 64-bit numbers
        return {"past": told} if told else {}


def counts(counter: Counter, request: PolicyRequest, verdict: Verdict) -> bool:
    """Whether a counter is about an action that was so decided."""
    if counter.verdict not in {verdict, Verdict.ANY}:
        return False
    in_group = request.action.startswith(_TOOL_PREFIX) and TOOL_GROUP in counter.actions
    if not in_group and request.action not in counter.actions:
        return False
    resource = request.resource
    if counter.resources and {(resource.type, resource.id), *resource.parents}.isdisjoint(counter.resources):
        return False
    label = request.context.get("label")
    if not counter.labels or not isinstance(label, Mapping):
        return True  # an action that bears no label may bear any
    return all(label.get(name) in values for name, values in counter.labels)


def adds(counter: Counter, request: PolicyRequest, verdict: Verdict = Verdict.ALLOW) -> int:
    """What an action that is so decided adds to a counter; 0 where the counter is not about it.

    Raises:
        InputError: It adds an amount that is missing, negative, too large, no number, or finer than the unit.
    """
    if not counts(counter, request, verdict):
        return 0
    if counter.kind is not Kind.SUM:
        return 1
    value: JsonValue = request.context
    for name in counter.of:
        value = value.get(name) if isinstance(value, Mapping) else None
    amount = _amount(value)
    where = f"`{'.'.join(counter.of)}`, which the counter `{counter.name}` adds up,"
    if amount is None:
        raise InputError(f"{where} is missing or is no number that policies can see", code="policy.history")
    if amount < 0:
        raise InputError(f"{where} is negative", code="policy.history")
    minor = amount.scaleb(counter.places)
    if minor != minor.to_integral_value():
        unit = Decimal(1).scaleb(-counter.places)
        raise InputError(f"{where} is finer than {unit:f}", code="policy.history")
    if minor > LARGEST:
        raise InputError(f"{where} is too large", code="policy.history")
    return int(minor)


def _amount(value: JsonValue) -> Decimal | None:
    """A Long or a decimal of Cedar's JSON as a number."""
    if isinstance(value, Mapping):
        call = value.get("__extn")
        text = call.get("arg") if isinstance(call, Mapping) and call.get("fn") == "decimal" else None
        try:
            number = Decimal(text) if isinstance(text, str) else None
        except InvalidOperation:
            return None
        return number if number is not None and number.is_finite() else None
    return Decimal(value) if isinstance(value, int) and not isinstance(value, bool) else None


def scopes(per: Per, principal: Principal, run: str, session: str) -> tuple[str, ...]:
    """Under which keys an action is counted; several where the agent is in several groups, none outside of any run."""
    match per:
        case Per.RUN:
            return (f"run:{run}",) if run else ()
        case Per.SESSION:
            return (f"session:{session}",)
        case Per.AGENT:
            return (f"agent:{principal.agent}",)
        case Per.OWNER:
            return (f"owner:{principal.owner}",)
        case Per.GROUP:
            return tuple(f"group:{group}" for group in sorted(set(principal.groups))) or ("nogroup:",)
        case Per.ALL:
            return ("all:",)


def supply(counters: Iterable[Counter], read: Collection[str], request: PolicyRequest, past: Past) -> PolicyRequest:
    """A request with the facts of its past, as the gate puts it to the engine.

    Args:
        counters: What is declared.
        read: Which of `VOLATILE` policies read; nothing else is supplied.
        request: Without these facts.
        past: The facts.

    Raises:
        InputError: An amount cannot be added up, or a sum is beyond what Cedar can hold.
    """
    facts: dict[str, JsonValue] = {}
    if "time" in read:
        facts["time"] = time_facts(past.now_ns)
    if "usage" in read:
        facts["usage"] = past.usage.facts()
    if "history" in read:
        facts["history"] = _history(counters, request, past)
    return replace(request, context={**request.context, **facts}) if facts else request


def _history(counters: Iterable[Counter], request: PolicyRequest, past: Past) -> Mapping[str, JsonValue]:
    before = dict(past.before)
    history: dict[str, JsonValue] = {}
    for counter in counters:
        value = before[counter.name]
        if counter.kind is Kind.FORMERLY:
            history[counter.name] = value > 0
            continue
        after = value + past.uses * adds(counter, request)
        if after > LARGEST:
            raise InputError(f"the counter `{counter.name}` is beyond {LARGEST}", code="policy.history")
        history |= {counter.name: after, counter.name + BEFORE: value}
    return history


def time_facts(now_ns: int) -> Mapping[str, JsonValue]:
    """The time in UTC as policies read it: `day` of the month, `weekday` 1 on Monday, `epochS` seconds since 1970."""
    seconds = now_ns // NS
    days, second = divmod(seconds, 86_400)
    today = date.fromordinal(_EPOCH_DAY + days)
    return {
        "hour": second // 3_600,
        "minute": second // 60 % 60,
        "weekday": today.isoweekday(),
        "day": today.day,
        "epochS": seconds,
    }


def offline(counters: Iterable[Counter], request: PolicyRequest) -> PolicyRequest:
    """A request outside of the gate: what it does not say of its past is zero or false.

    Of a counter whose `NAME_before` alone is given, `NAME` is what it would be with the action, and the other way
    round.

    Raises:
        InputError: An amount cannot be added up.
    """
    given = request.context.get("history", {})
    history = dict(given) if isinstance(given, Mapping) else {}
    for counter in counters:
        name, before = counter.name, counter.name + BEFORE
        if counter.kind is Kind.FORMERLY:
            history.setdefault(name, False)
            continue
        added = adds(counter, request)
        value = history.get(name)
        if before not in history:
            history[before] = max(0, value - added) if isinstance(value, int) else 0
        past = history[before]
        history.setdefault(name, past + added if isinstance(past, int) else past)
    context = dict(request.context)
    for key, zeros in (("time", {**time_facts(0), "weekday": 0, "day": 0}), ("usage", Usage().facts())):
        told = context.get(key, {})
        context[key] = {**zeros, **told} if isinstance(told, Mapping) else told
    context["history"] = history if isinstance(given, Mapping) else given
    return replace(request, context=context)


def reads(conditions: Any) -> frozenset[str]:
    """Which of `VOLATILE` a policy's conditions, in Cedar's JSON, read; all of them where they use `context` whole."""
    return frozenset(_reads(conditions))


def _reads(conditions: Any) -> Iterator[str]:
    stack = [conditions]
    while stack:
        node = stack.pop()
        if isinstance(node, list):
            stack.extend(node)
        elif isinstance(node, dict):
            if node.get("Var") == "context":
                yield from VOLATILE
            for operator, operands in node.items():
                of_context = operator in {".", "has"} and isinstance(operands, dict) and _is_context(operands)
                if of_context and operands["attr"] in VOLATILE:
                    yield operands["attr"]
                elif not of_context:
                    stack.append(operands)


def _is_context(operands: Mapping[str, Any]) -> bool:
    return operands.get("left") == {"Var": "context"} and "attr" in operands
