"""What came before an action, read before the decision and again in the transaction that reserves the effect.

The second reading closes the gap between the two: it sees every effect that was reserved meanwhile. Where it differs
in something that policies read, the decision is made again on it, there and then; only where that one comes out
differently does the gate go round again. So a counter that everybody adds to holds nobody up, and a limit of N lets
through exactly N, however many ask at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from symbi.clock import Clock
from symbi.errors import InputError, RateLimited
from symbi.guard.action import Action, InvokeTool
from symbi.guard.approval import ApprovalRecord
from symbi.guard.budget import cost_of, reserve
from symbi.guard.earlier import was_answered
from symbi.guard.ledger import EffectRecord, EffectState
from symbi.guard.records import action_name
from symbi.guard.riders import NO_RIDERS, Riders
from symbi.guard.spending import NOTHING
from symbi.guard.tally import GateStore, Reading, RunUsage, Tally
from symbi.policy.counters import NS, Counter, Verdict, Window
from symbi.policy.decision import AllowWithConditions, Deny, PolicyDecision, PolicyRequest
from symbi.policy.history import Past, Usage, adds, scopes
from symbi.policy.obligations import Rate
from symbi.policy.policies import PolicySet
from symbi.types import EffectId

Entry = tuple[Tally, int]


class FactsChanged(Exception):
    """What came before has changed since the decision, so that it would be another one."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a decision rests on and what its effect will add.

    Attributes:
        asked: The action as it was asked for.
        policies: The set that decided.
        past: What the decision was told.
        decision: The decision.
        entries: What the effect, as conditions left it, adds to counters.
        rates: Rates that it must keep.
        effect_id: The effect.
        earlier: What is on record of an earlier attempt at it.
        approval: What people agreed to, where they had to.
        riders: What is done beside its effect.
    """

    asked: Action
    policies: PolicySet
    past: Past
    decision: PolicyDecision
    entries: tuple[Entry, ...]
    rates: tuple[Rate, ...]
    effect_id: EffectId
    earlier: EffectRecord | None = None
    approval: ApprovalRecord | None = None
    riders: Riders = NO_RIDERS

    @property
    def attempt(self) -> int:
        """Which attempt at the effect this is."""
        return 1 if self.earlier is None else self.earlier.attempt + 1


class History:
    """Keeps the counters and budgets of one gate.

    Args:
        store: Where they are; the trail's store, used on its thread.
        clock: Tells when something happened.
        session: Name of this start of the runtime.
    """

    def __init__(self, store: GateStore, clock: Clock, session: str) -> None:
        self._store = store
        self._clock = clock
        self._session = session

    def look(
        self,
        action: Action,
        policies: PolicySet,
        *,
        uses: int,
        earlier: EffectRecord | None = None,
        prune: bool = False,
    ) -> Past:
        """What came before an action, now; of that, what the policies read.

        Args:
            action: As it is asked for.
            policies: Whose counters.
            uses: How many actions the decision is about.
            earlier: An earlier attempt at the same effect; what it still holds is left out.
            prune: Read every counter, and drop what no window holds any more; only inside a transaction.

        Raises:
            StoreUnavailable: The store cannot be read.
        """
        now_ns, without = self._clock.now_ns(), _held_by(earlier)
        counters = policies.counters if prune or "history" in policies.reads else ()
        owners = [(counter.name, tally) for counter in counters for tally in self._tallies(counter, action)]
        before = dict.fromkeys((counter.name for counter in counters), 0)
        if owners:
            readings = self._store.read_tallies([tally for _, tally in owners], now_ns, without=without, prune=prune)
            for (name, _), reading in zip(owners, readings, strict=True):
                before[name] = max(before[name], reading.total)
        used = self._store.usage_of(action.run_id) if action.run_id and "usage" in policies.reads else None
        if used is not None and earlier is not None:
            used = _without(used, action, earlier)
        return Past(now_ns, _usage(used, now_ns), tuple(before.items()), uses)

    def entries(self, action: Action, policies: PolicySet, uses: int) -> tuple[Entry, ...]:
        """What an action that is let through adds.

        Raises:
            InputError: An amount cannot be added up.
        """
        if not policies.counters:
            return ()
        return self._entries(action, policies, action.request(), Verdict.ALLOW, uses)

    def reserve(self, claim: Claim, decide: Callable[[Action, Past], PolicyDecision]) -> None:
        """Count an effect, and hold what it costs, in the transaction that reserves it.

        Args:
            claim: What was decided on which facts, and what it adds.
            decide: Decides again.

        Raises:
            FactsChanged: Policies would decide differently by now.
            RateLimited: A rate is used up.
            BudgetExceeded: The run has not as much left.
            InputError: A counter is beyond what can be counted.
            StoreUnavailable: The store cannot be written.
        """
        action, policies, earlier = claim.asked, claim.policies, claim.earlier
        past = self.look(action, policies, uses=claim.past.uses, earlier=earlier, prune=True)
        if _differs(policies, claim.past, past) and not same_answer(decide(action, past), claim.decision):
            raise FactsChanged
        if (held := _held_by(earlier)) is not None:
            self._store.settle_tallies(held, happened=False)  # it is counted anew
        entries = (*claim.entries, *self._keep_rates(claim, past.now_ns))
        if entries:
            self._store.add_to_tallies(tally_id(claim.effect_id, claim.attempt), entries, past.now_ns)
        cost = cost_of(action)
        if cost != NOTHING and action.run_id:
            reserve(self._store, claim.effect_id, action.run_id, cost)
        self._count(action, past.now_ns, effects=_is_new(earlier), calls=_calls_anew(earlier))

    def refused(self, action: Action, policies: PolicySet, record: EffectRecord) -> None:
        """Count a refusal, in the transaction that records it."""
        self.look(action, policies, uses=1, prune=True)
        now_ns = self._clock.now_ns()
        if any(counter.verdict is not Verdict.ALLOW for counter in policies.counters):
            try:
                request = action.request()
            except InputError:  # it was refused because of what is in it; what it is stays
                request = PolicyRequest(action.principal, action_name(action), action.resource, {})
            entries = self._entries(action, policies, request, Verdict.DENY, 1)
            if entries:
                name = tally_id(record.effect_id, record.attempt)
                self._store.add_to_tallies(name, entries, now_ns)
                self._store.settle_tallies(name, happened=True)
        self._count(action, now_ns, denied=True)

    def _tallies(self, counter: Counter, action: Action) -> list[Tally]:
        found = scopes(counter.per, action.principal, action.run_id, self._session)
        return [Tally(counter.key, scope, counter.window) for scope in found]

    def _entries(
        self, action: Action, policies: PolicySet, request: PolicyRequest, verdict: Verdict, uses: int
    ) -> tuple[Entry, ...]:
        found = ((counter, uses * adds(counter, request, verdict)) for counter in policies.counters)
        return tuple((tally, amount) for counter, amount in found if amount for tally in self._tallies(counter, action))

    def _keep_rates(self, claim: Claim, now_ns: int) -> Sequence[Entry]:
        tallies = [_rate_tally(rate, claim.asked) for rate in claim.rates]
        readings = self._store.read_tallies(tallies, now_ns, prune=True)
        for rate, reading in zip(claim.rates, readings, strict=True):
            if reading.total + claim.past.uses > rate.limit:
                raise _limited(rate, reading, claim, now_ns)
        return [(tally, claim.past.uses) for tally in dict.fromkeys(tallies)]

    def _count(
        self, action: Action, now_ns: int, *, effects: bool = False, calls: bool = False, denied: bool = False
    ) -> None:
        """Note in the usage of the run; what has no place in it is no effect of its body, and only starts the time."""
        if not action.run_id:
            return
        used = self._store.usage_of(action.run_id)
        if action.slot is None:
            if used is None:
                self._store.put_usage(action.run_id, RunUsage(now_ns))
            return
        used = used or RunUsage(now_ns)
        called = calls and isinstance(action, InvokeTool)
        self._store.put_usage(
            action.run_id, RunUsage(used.started_ns, used.effects + effects, used.denied + denied, used.calls + called)
        )


def tally_id(effect_id: EffectId, attempt: int) -> EffectId:
    """The name by which an attempt at an effect is counted: each by itself, for one that was made may be final."""
    return effect_id if attempt == 1 else EffectId(f"{effect_id}/{attempt}")


def _held_by(earlier: EffectRecord | None) -> EffectId | None:
    """By what name an earlier attempt still holds what it added: it is in doubt. What failed was counted or given back."""
    if earlier is None or earlier.state is not EffectState.UNKNOWN:
        return None
    return tally_id(earlier.effect_id, earlier.attempt)


def _is_new(earlier: EffectRecord | None) -> bool:
    """Whether an effect that is let through was not let through before."""
    return earlier is None or earlier.state is EffectState.DENIED


def _calls_anew(earlier: EffectRecord | None) -> bool:
    """Whether it is a call besides those that were counted: also where an earlier one was made, and answered."""
    return _is_new(earlier) or (earlier is not None and was_answered(earlier))


def same_answer(one: PolicyDecision, other: PolicyDecision) -> bool:
    """Whether two decisions let the same thing happen, under the same conditions, by the same policies."""
    return _answer(one) == _answer(other)


def _answer(decision: PolicyDecision) -> object:
    conditions = decision.conditions if isinstance(decision, AllowWithConditions) else ()
    return isinstance(decision, Deny), decision.version, frozenset(decision.policies), frozenset(conditions)


def _differs(policies: PolicySet, old: Past, new: Past) -> bool:
    """Whether something that policies read has changed; time passes by itself and does not count."""
    return ("history" in policies.reads and old.before != new.before) or (
        "usage" in policies.reads and old.usage != new.usage
    )


def _without(used: RunUsage, action: Action, earlier: EffectRecord) -> RunUsage:
    """What a run has used, an earlier attempt at the same effect left out where that one was let through."""
    effects = used.effects - (not _is_new(earlier))
    calls = used.calls - (isinstance(action, InvokeTool) and not _calls_anew(earlier))
    return replace(used, effects=max(0, effects), calls=max(0, calls))


def _usage(used: RunUsage | None, now_ns: int) -> Usage:
    if used is None:
        return Usage()
    return Usage(used.effects, used.denied, used.calls, max(0, now_ns - used.started_ns) // NS)


def _rate_tally(rate: Rate, action: Action) -> Tally:
    return Tally(f"rate/{rate.window_s}/{rate.policy}", f"agent:{action.principal.agent}", Window(rate.window_s))


def _limited(rate: Rate, reading: Reading, claim: Claim, now_ns: int) -> RateLimited:
    oldest_ns = now_ns if reading.oldest_ns is None else reading.oldest_ns
    wait_s = max(0, oldest_ns + rate.window_s * NS - now_ns) / NS
    msg = f"policy `{rate.policy}` allows agent `{claim.asked.principal.agent}` {rate.limit} in {rate.window_s} s"
    return RateLimited(msg, retry_after_s=wait_s, policy=rate.policy)
