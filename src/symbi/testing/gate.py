"""A gate on a real engine, trail and store, for tests of what stands behind it."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from symbi.adapters.sqlite import SqliteStore
from symbi.audit.event import AuditEvent, parse_event
from symbi.audit.log import AuditLog
from symbi.clock import Clock, IdSource
from symbi.crypto.keys import KeyRing, KeyStore
from symbi.crypto.provider import open_provider
from symbi.guard.desk import ApprovalDesk, DeskRules
from symbi.guard.gate import Guard, no_probe
from symbi.guard.sealed_approvals import SealedApprovals
from symbi.guard.vault import Vault
from symbi.policy.catalog import ToolType
from symbi.policy.engine import EVALUATION_TIMEOUT_S, PolicyEngine, PolicySource
from symbi.policy.policies import PolicySet
from symbi.testing.clock import ManualClock
from symbi.testing.trail import fixed_signing_key

ALLOW_ALL: Final = '@id("all") permit (principal, action, resource);'
DENY_ALL: Final = ""


@dataclass(frozen=True, slots=True)
class Gate:
    """An open gate and all that it stands on."""

    guard: Guard
    engine: PolicyEngine
    log: AuditLog
    store: SqliteStore
    clock: Clock
    ids: IdSource
    vault: Vault | None = None

    def events(self) -> list[AuditEvent]:
        """The whole trail."""
        return [parse_event(stored.record) for stored in self.store.read(1)]


@asynccontextmanager
async def open_gate(  # noqa: PLR0913 - one option for each part of a gate
    policies: str = ALLOW_ALL,
    *,
    history: str = "",
    folder: Path | None = None,
    tools: Sequence[ToolType] = (),
    enforcing: bool = True,
    probe: Callable[[str], None] = no_probe,
    clock: Clock | None = None,
    desk: DeskRules | None = None,
    keys: KeyStore | None = None,
    all_agents: bool = False,
    evaluation_timeout_s: float = EVALUATION_TIMEOUT_S,
) -> AsyncIterator[Gate]:
    """A gate over some policies and counters; in memory, or in a folder where the trail is to last; with a desk or without.

    With a store of keys it has a vault, which seals what is about data subjects, or about all agents too.
    """
    clock = clock or ManualClock()
    ids = IdSource(clock)
    sources = [PolicySource("test.cedar", policies), PolicySource("history.toml", history)]
    engine = PolicyEngine(PolicySet.load(sources, tools=tools), evaluation_timeout_s=evaluation_timeout_s)
    with SqliteStore(folder) as store:
        async with AuditLog(store, fixed_signing_key(), clock, ids) as log:
            provider = open_provider()
            vault = None
            if keys is not None:
                vault = Vault(store, KeyRing(keys, provider), provider, clock, log, all_agents=all_agents)
            kept = store if vault is None else SealedApprovals(store, vault)
            approvals = None if desk is None else ApprovalDesk(log, kept, clock, desk)
            guard = Guard(
                engine, log, store, clock, ids,
                epoch=store.epoch, enforcing=enforcing, probe=probe, approvals=approvals, vault=vault,
            )  # fmt: skip
            yield Gate(guard, engine, log, store, clock, ids, vault)
