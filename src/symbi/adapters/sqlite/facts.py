"""What decisions were made on, as the store keeps it: requests by effect, policy sets by version."""

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from symbi.adapters.sqlite.file import SQL, to_effect
from symbi.guard.ledger import EffectRecord
from symbi.policy.stored import set_text
from symbi.types import EffectId

T = TypeVar("T")

REQUEST_PAGE: Final = 200  # requests fetched at once; each has up to 64 KiB


@dataclass(frozen=True, slots=True)
class RequestRow:
    """A request as it stands in the store; whether the digest is that of the bytes is for the reader to see.

    Attributes:
        effect_id: Of the effect.
        digest: SHA-256 (hex), as the decision's event names it.
        request: See `symbi.policy.stored.read_request`.
    """

    effect_id: EffectId
    digest: str
    request: bytes


def write_facts(db: sqlite3.Connection, record: EffectRecord) -> None:
    """Write the facts of a record, in the running transaction."""
    facts = record.facts
    if facts is None:
        return
    db.execute(SQL["put_request"], (record.effect_id, facts.digest, facts.request))
    if facts.policies is None:
        return
    version = facts.policies.version
    if db.execute(SQL["has_policy_set"], (version,)).fetchone() is None:
        db.execute(SQL["put_policy_set"], (version, set_text(facts.policies)))


class FactReader(ABC):
    """The part of the reader that looks for facts."""

    @abstractmethod
    def _use(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """Read from the open store."""

    def requests(self) -> Iterator[RequestRow]:
        """All requests that were decided on, by effect id: by the time at which they were asked for.

        Raises:
            StoreUnavailable: The store cannot be read.
        """
        after: tuple[Any, Any] = ("", "")
        while True:
            rows = self._rows("requests", (*after, REQUEST_PAGE))
            yield from (RequestRow(*row) for row in rows)
            if len(rows) < REQUEST_PAGE:
                return
            after = (rows[-1][0], rows[-1][1])

    def requests_of(self, effect_id: EffectId) -> Sequence[RequestRow]:
        """The requests of one effect: several, where it was decided on more than once."""
        return [RequestRow(*row) for row in self._rows("requests_of", (effect_id,))]

    def policy_set(self, version: str) -> str | None:
        """The text of a policy set, for `symbi.policy.stored.load_set`; None where it is not kept."""
        return next((str(row[0]) for row in self._rows("get_policy_set", (version,))), None)

    def policy_set_versions(self) -> Sequence[str]:
        """The versions of all sets that ever decided."""
        return [str(row[0]) for row in self._rows("policy_set_versions", ())]

    def get_effect(self, effect_id: EffectId) -> EffectRecord | None:
        """One effect."""
        return next((to_effect(row) for row in self._rows("get_effect", (effect_id,))), None)

    def effects(self, limit: int) -> Sequence[EffectRecord]:
        """The newest effects first."""
        return [to_effect(row) for row in self._rows("effects", (limit,))]

    def _rows(self, name: str, values: tuple[object, ...]) -> list[Any]:
        return self._use(lambda db: db.execute(SQL[name], values).fetchall())
