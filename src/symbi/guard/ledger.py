"""The effect ledger: one durable record per effect, and the port that keeps it.

```
            reserve + decision + dispatch, one commit              outcome, one commit
 (asked) ────────────────────────────────────────────► dispatched ─────────────────────► confirmed | failed
    └──► denied                                             └── start-up finds it so ───► unknown ──► reconciled
                                                                         unknown | failed | denied ──► dispatched (again)
                                                                                   failed | denied ──► denied (again)
                                                                                          unknown ──► unknown (did not happen)
```

What is asked for again at its place keeps its id, and counts one attempt more; see `symbi.guard.earlier` for when it may be.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Protocol

from symbi.guard.facts import Facts
from symbi.types import AgentId, EffectId, RecoveryClass, RunId


class EffectState(StrEnum):
    """Where an effect stands. Confirmed and reconciled are final; denied and failed are once their run has gone on from there."""

    DENIED = "denied"
    DISPATCHED = "dispatched"
    CONFIRMED = "confirmed"
    FAILED = "failed"
    UNKNOWN = "unknown"
    RECONCILED = "reconciled"


MOVES: Final[Mapping[EffectState, frozenset[EffectState]]] = MappingProxyType(
    {
        EffectState.DENIED: frozenset({EffectState.DISPATCHED, EffectState.DENIED}),
        EffectState.DISPATCHED: frozenset({EffectState.CONFIRMED, EffectState.FAILED, EffectState.UNKNOWN}),
        EffectState.CONFIRMED: frozenset(),
        EffectState.FAILED: frozenset({EffectState.DISPATCHED, EffectState.DENIED}),
        # To itself: it has come out that it did not happen, so that it may be done again.
        EffectState.UNKNOWN: frozenset({EffectState.DISPATCHED, EffectState.RECONCILED, EffectState.UNKNOWN}),
        EffectState.RECONCILED: frozenset(),
    }
)
"""Every other move is refused."""


@dataclass(frozen=True, slots=True)
class EffectRecord:
    """One effect.

    Attributes:
        effect_id: Made by the runtime; the idempotency key.
        run_id: The run, or empty for what the runtime does by itself.
        position: Place in the run, or -1.
        agent_id: Who asked.
        action: Cedar action.
        resource: `Type::id`.
        arguments_digest: SHA-256 (hex) of the canonical arguments that were asked for.
        recovery: What may be done about it after a crash.
        policy_version: Digest of the policy set that decided.
        decision: Canonical JSON of the decision.
        label: `integrity/confidentiality` of the joined inputs.
        epoch: Number of the owner of the data folder that wrote last; an older owner's write is refused.
        attempt: 1, 2 …
        state: Where it stands.
        result: Canonical JSON of the result, once confirmed.
        error: Canonical JSON of the error, once denied or failed.
        facts: What was decided on; written with the record, and not read back with it.
        somebodys: The result is kept under the key of somebody else than the agent; noted where it is opened.
    """

    effect_id: EffectId
    run_id: RunId
    position: int
    agent_id: AgentId
    action: str
    resource: str
    arguments_digest: str
    recovery: RecoveryClass
    policy_version: str
    decision: bytes
    label: str
    epoch: int
    attempt: int
    state: EffectState
    result: bytes | None = None
    error: bytes | None = None
    facts: Facts | None = field(default=None, repr=False, compare=False)
    somebodys: bool = field(default=False, compare=False)


class EffectStore(Protocol):
    """Durable effect records; the methods block and run inside the store's running transaction."""

    def put_effect(self, record: EffectRecord) -> None:
        """Insert a record, with its facts.

        Raises:
            InternalError: The id, or the place in the run, is taken.
            StoreUnavailable: The store cannot be written, or a newer owner has taken it over.
        """

    def move_effect(self, record: EffectRecord, was: EffectState) -> None:
        """Write a record back, if its stored state is still `was` and the move is one of `MOVES`.

        The facts of a new decision are written with it; what leaves `dispatched` was decided before.

        Raises:
            InternalError: The state has changed, or the move is not allowed.
            StoreUnavailable: The store cannot be written, or a newer owner has taken it over.
        """

    def effect_at(self, run_id: RunId, position: int) -> EffectRecord | None:
        """The record at a place in a run, or None."""

    def effects_of(self, run_id: RunId) -> Sequence[EffectRecord]:
        """The records of a run, by position."""

    def effects_in(self, state: EffectState) -> Sequence[EffectRecord]:
        """All records in a state, oldest first."""


class FactStore(Protocol):
    """Keeps what decisions were made on, in the ledger's store."""

    def put_facts(self, record: EffectRecord) -> None:
        """Write the facts of a decision that leaves the record as it stands.

        Raises:
            StoreUnavailable: The store cannot be written.
        """


class Ledger(EffectStore, FactStore, Protocol):
    """Effect records with the facts of their decisions, as the gate needs them."""
