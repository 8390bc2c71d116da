"""A lease: one decision that holds for a bounded number of small effects and a bounded time."""

import hashlib
from collections.abc import Mapping
from typing import Generic, TypeVar

from symbi.crypto.canonical import canonical_json
from symbi.guard.action import Action
from symbi.guard.confidential import keyed
from symbi.guard.permit import Authority, Permit
from symbi.guard.vault import NO_KEYS, Keys
from symbi.types import JsonValue

A = TypeVar("A", bound=Action)


class Lease(Generic[A]):
    """Counts its own uses, and digests what each of them did.

    Args:
        authority: The gate's.
        permit: What was granted.
        keys: Of whom the uses are about.
    """

    def __init__(self, authority: Authority, permit: Permit[A], keys: Keys = NO_KEYS) -> None:
        self._authority = authority
        self._permit = permit
        self._keys = keys
        self._used = 0
        self._digest = hashlib.sha256()

    def use(self, arguments: Mapping[str, JsonValue]) -> A:
        """Spend one use for an effect with these arguments.

        Raises:
            PermitRefused: The lease is used up, run out, closed, or ended by a new policy set.
            InputError: The arguments have no canonical form.
        """
        data = canonical_json(arguments)
        action = self._authority.redeem(self._permit, type(self._permit.action))
        self._used += 1
        self._digest.update(len(data).to_bytes(8))
        self._digest.update(data)
        return action

    def account(self) -> dict[str, JsonValue]:
        """How often it was used, and the digest over the canonical arguments of each use with their lengths."""
        return {"uses": self._used, "digest": keyed(self._digest.hexdigest(), self._keys)}
