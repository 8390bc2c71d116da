"""A lease: one decision that holds for a bounded number of small effects and a bounded time."""

import hashlib
from collections.abc import Mapping
from typing import Generic, TypeVar

from symbi.crypto.canonical import canonical_json
from symbi.errors import PermitRefused
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

    def spend(self, uses: int, digest: bytes) -> A:
        """Spend several uses at once.

        Args:
            uses: How many, one at least.
            digest: Commits to what all of them do; 32 bytes.

        Raises:
            PermitRefused: Fewer uses are left, or as `use`.
        """
        action = self._authority.redeem(self._permit, type(self._permit.action), uses)
        self._used += uses
        self._digest.update(len(digest).to_bytes(8))
        self._digest.update(digest)
        return action

    @property
    def permit(self) -> Permit[A]:
        """What was granted, for ports that look whether it is live and do not spend it."""
        return self._permit

    @property
    def uses_left(self) -> int:
        """How many uses it has; 0 where it has ended."""
        try:
            self._authority.check(self._permit, type(self._permit.action))
        except PermitRefused:
            return 0
        return self._authority.uses_left(self._permit)

    def account(self) -> dict[str, JsonValue]:
        """How often it was used, and the digest over the canonical arguments of each use, or the digests of several, with their lengths."""
        return {"uses": self._used, "digest": keyed(self._digest.hexdigest(), self._keys)}
