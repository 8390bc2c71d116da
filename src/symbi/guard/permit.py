"""`Permit`, the proof that the gate let an action pass, and `Authority`, which alone can tell a real one.

Every method of a port that has an effect takes a permit first, so that a call without one does not type-check.
At run time the adapter redeems it at the authority it was wired to: the authority keeps the permits that it
minted, by identity, so a permit that was made by hand, copied, minted elsewhere, already spent, or closed is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Generic, TypeVar, cast

from symbi.clock import Clock
from symbi.errors import Overloaded, PermitRefused
from symbi.guard.action import Action
from symbi.types import EffectId, JsonValue

A_co = TypeVar("A_co", bound=Action, covariant=True)
A = TypeVar("A", bound=Action)
T = TypeVar("T")


class Permit(Generic[A_co]):
    """The right to carry out one action; only `Authority.mint` makes one that can be redeemed.

    Attributes:
        effect_id: Id of the effect; handed to tools as their idempotency key.
        action: The effective action: redacted, capped, raised as conditions asked.
    """

    __slots__ = ("__weakref__", "_action", "_effect_id", "_noted", "_observed")

    def __init__(self, effect_id: EffectId, action: A_co) -> None:
        self._effect_id = effect_id
        self._action = action
        self._observed: object = None
        self._noted: dict[str, JsonValue] = {}

    @property
    def effect_id(self) -> EffectId:
        """Id of the effect."""
        return self._effect_id

    @property
    def action(self) -> A_co:
        """The effective action."""
        return self._action

    def observe(self, result: T) -> T:
        """Note what came back, for the ledger; returns it unchanged."""
        self._observed = result
        return result

    @property
    def observed(self) -> object:
        """What `observe` noted last."""
        return self._observed

    def note(self, name: str, facts: JsonValue) -> None:
        """Note how it is carried out, for the event of its outcome, also where it fails; names nobody and no payload."""
        self._noted[name] = facts

    @property
    def noted(self) -> Mapping[str, JsonValue]:
        """What `note` noted."""
        return self._noted


@dataclass(slots=True)
class _Live:
    permit: Permit[Action]
    action: Action
    uses: int
    until_s: float
    lease: bool
    begin_s: float = inf


class Authority:
    """Keeps the live permits of one gate.

    Args:
        clock: Ends leases in time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._live: dict[int, _Live] = {}

    def mint(
        self,
        effect_id: EffectId,
        action: A,
        *,
        uses: int = 1,
        seconds: float | None = None,
        since_s: float | None = None,
    ) -> Permit[A]:
        """Make a permit. The gate alone calls this, after the decision is durable.

        Args:
            effect_id: The effect.
            action: The effective action.
            uses: How often it may be redeemed.
            seconds: Set for a lease: how long it holds at most.
            since_s: From when on the time runs in which the effect must begin; from now on if None.
        """
        permit = Permit(effect_id, action)
        now_s, begins_s = self._clock.monotonic_s(), action.begins_within_s
        until_s = inf if seconds is None else now_s + seconds
        begin_s = inf if begins_s is None else (now_s if since_s is None else since_s) + begins_s
        self._live[id(permit)] = _Live(permit, action, uses, until_s, seconds is not None, begin_s)
        return permit

    def redeem(self, permit: Permit[A], expected: type[A], uses: int = 1) -> A:
        """Spend one use, or several at once, and return the effective action.

        Raises:
            PermitRefused: Not minted here, spent, closed, revoked, run out, or for another kind of action.
            Overloaded: The time has passed in which the effect was to begin: nothing happened.
        """
        live = self._check(permit, expected)
        if not 0 < uses <= live.uses:
            msg = "permit is spent"
            raise PermitRefused(msg, code="permit.spent", effect_id=permit.effect_id)
        if self._clock.monotonic_s() >= live.begin_s:
            msg = "the time in which the effect was to begin has passed, and another owner may have done it since"
            raise Overloaded(msg, code="permit.late", retry_after_s=0.0)
        live.uses -= uses
        return cast("A", live.action)

    def check(self, permit: Permit[A], expected: type[A]) -> A:
        """The effective action of a live permit, without spending a use.

        Raises:
            PermitRefused: As `redeem`, but a spent permit passes while it is not closed.
        """
        return cast("A", self._check(permit, expected).action)

    def _check(self, permit: Permit[A], expected: type[A]) -> _Live:
        live = self._live.get(id(permit))
        if live is None or live.permit is not permit:
            msg = "permit was not minted by this gate, or is closed or revoked"
            raise PermitRefused(msg, code="permit.unknown")
        if self._clock.monotonic_s() >= live.until_s:
            msg = "the lease has run out"
            raise PermitRefused(msg, code="permit.expired", effect_id=permit.effect_id)
        if type(live.action) is not expected:
            msg = f"permit is for `{type(live.action).__name__}`, not for `{expected.__name__}`"
            raise PermitRefused(msg, code="permit.foreign", effect_id=permit.effect_id)
        return live

    def __len__(self) -> int:
        """How many permits are not closed; leases are among them."""
        return len(self._live)

    def uses_left(self, permit: Permit[Action]) -> int:
        """Uses that a live permit still has; 0 where it is not live."""
        live = self._live.get(id(permit))
        return live.uses if live is not None and live.permit is permit else 0

    def close(self, permit: Permit[Action]) -> None:
        """End a permit; redeeming it is refused from now on. Closing twice does nothing."""
        self._live.pop(id(permit), None)

    def revoke_leases(self) -> int:
        """End every lease; returns how many there were."""
        leases = [key for key, live in self._live.items() if live.lease]
        for key in leases:
            del self._live[key]
        return len(leases)
