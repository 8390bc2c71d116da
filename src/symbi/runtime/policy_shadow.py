"""A candidate set that decides beside the one in force: where the two differ is recorded, and nothing is enforced.

The gate tells of each decision once it has been made; the candidate is asked later, by a task of its own, so that
nothing of it (its time, its errors, its verdict) can reach the decision. What it costs is bounded: one decision of the
candidate for each live one at most, and none for those that find `MAX_WAITING` others waiting.
"""

import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import anyio
import anyio.to_thread
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from symbi.audit.event import AuditEventType, Draft
from symbi.audit.log import AuditLog
from symbi.errors import InputError
from symbi.guard.action import Canary
from symbi.guard.confidential import confided
from symbi.guard.recorder import Decided
from symbi.policy.diff import difference_facts, judge_recorded, shift_between
from symbi.policy.engine import PolicyEngine
from symbi.policy.policies import PolicySet
from symbi.policy.source import PolicySource
from symbi.runtime.policies import Cause, PolicyBook, refusing, sources_of
from symbi.runtime.port import Bundle
from symbi.telemetry import log_fields

MAX_WAITING: Final = 1024  # decisions that wait for the candidate; further ones it is not asked about
MAX_BATCH: Final = 64  # decisions that the candidate makes at a stretch, on a thread
CLOSE_TIMEOUT_S: Final = 5.0  # how long the end of a runtime waits for what the candidate has yet to decide

_log = logging.getLogger("symbi.policy")


@dataclass(slots=True)
class ShadowCounts:
    """What became of the decisions that a candidate was told of.

    Attributes:
        told: All of them.
        same: Decided alike.
        differing: Decided otherwise; each is on the trail.
        failed: The candidate could not decide, or could not be recorded.
        skipped: Too many were waiting.
    """

    told: int = 0
    same: int = 0
    differing: int = 0
    failed: int = 0
    skipped: int = 0


class PolicyShadow:
    """Holds the candidate and asks it.

    Args:
        engine: The set in force: the candidate takes its tools and the rules of agent files from it.
        book: Records a candidate that is refused.
        log: Takes the differences.
    """

    def __init__(self, engine: PolicyEngine, book: PolicyBook, log: AuditLog) -> None:
        self._engine = engine
        self._book = book
        self._log = log
        self._sources: tuple[PolicySource, ...] | None = None
        self._candidate: PolicySet | None = None
        self._stale = False
        self._send: MemoryObjectSendStream[Decided] | None = None
        self._drained = anyio.Event()
        self.counts = ShadowCounts()
        engine.on_change(self._live_changed)

    @property
    def candidate(self) -> PolicySet | None:
        """The candidate; None where there is none that can decide."""
        return self._candidate

    async def take_up(self, bundles: Sequence[Bundle], cause: Cause = Cause.SHADOW) -> None:
        """Put another candidate in place of the one before.

        Raises:
            InputError: It is refused, which is recorded, and there is no candidate then.
            StoreUnavailable: The refusal cannot be recorded.
        """
        self._candidate = self._sources = None
        try:
            self._sources = sources_of(bundles)
        except InputError as refusal:
            await self._book.refuse(cause, refusal)
            raise
        await self._compose()

    async def refuse(self, cause: Cause, refusal: InputError) -> None:
        """Files that cannot be read are no candidate.

        Raises:
            StoreUnavailable: It cannot be recorded.
        """
        self._candidate = self._sources = None
        await self._book.refuse(cause, refusal)

    def tell(self, decided: Decided) -> None:
        """The gate has decided, and it is on record. Never raises, never waits."""
        if isinstance(decided.action, Canary):
            return
        self.counts.told += 1
        if self._send is None:
            self.counts.skipped += 1
            return
        try:
            self._send.send_nowait(decided)
        except (anyio.WouldBlock, anyio.ClosedResourceError, anyio.BrokenResourceError):
            self.counts.skipped += 1  # the bound of what a candidate may cost

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        """Ask the candidate for as long as the body lasts, and then about what still waits."""
        self._send, receive = anyio.create_memory_object_stream[Decided](MAX_WAITING)
        tasks = anyio.create_task_group()
        await tasks.__aenter__()
        tasks.start_soon(self._run, receive)
        try:
            yield
        finally:
            self._send.close()
            with anyio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
                await self._drained.wait()
            tasks.cancel_scope.cancel("the runtime ends")
            await tasks.__aexit__(None, None, None)
            if self.counts.skipped or self.counts.failed:
                fields = log_fields(skipped=self.counts.skipped, failed=self.counts.failed)
                _log.warning("a candidate of policies has not decided all that it was told of", extra=fields)

    async def _run(self, receive: MemoryObjectReceiveStream[Decided]) -> None:
        try:
            with receive:
                async for first in receive:
                    batch = [first]
                    while len(batch) < MAX_BATCH and receive.statistics().current_buffer_used:
                        batch.append(receive.receive_nowait())
                    try:
                        await self._ask(batch)
                    except Exception as error:  # noqa: BLE001 - a candidate must not touch what is in force
                        self.counts.failed += len(batch)
                        _log.warning("a candidate of policies failed", extra=log_fields(error=type(error).__name__))
        finally:
            self._drained.set()

    async def _ask(self, batch: Sequence[Decided]) -> None:
        if self._stale:
            await self._compose()
        candidate = self._candidate
        if candidate is None:
            self.counts.failed += len(batch)
            return
        drafts, failed = await anyio.to_thread.run_sync(_differences, candidate, batch)
        if drafts:
            await self._log.transact(lambda: (None, drafts), wait=True)
        self.counts.differing += len(drafts)
        self.counts.failed += failed
        self.counts.same += len(batch) - len(drafts) - failed

    async def _compose(self) -> None:
        """The candidate with the tools and the agent files of the set in force.

        Raises:
            InputError: It does not fit them; there is none then.
        """
        self._stale, self._candidate = False, None
        sources, live = self._sources, self._engine.current
        if sources is None:
            return
        try:
            loaded = await anyio.to_thread.run_sync(_read, sources, live)
            if self._sources is sources:  # else another was taken up, or refused, while this one was read
                self._candidate = loaded
        except InputError as refusal:
            await self._book.refuse(Cause.SHADOW, refusal)
            raise

    def _live_changed(self, _policies: PolicySet) -> None:
        self._stale = True


def _read(sources: Sequence[PolicySource], live: PolicySet) -> PolicySet:
    with refusing():
        return PolicySet.load(sources, live.compiled, live.tools)


def _differences(candidate: PolicySet, batch: Iterable[Decided]) -> tuple[list[Draft], int]:
    """The events of those that differ, and how many could not be decided: one of these hides none of the others."""
    drafts, failed = [], 0
    for one in batch:
        try:
            draft = _difference(candidate, one)
        except Exception as error:  # noqa: BLE001 - also what cannot be put to an engine, which the gate has denied
            failed += 1
            _log.warning("a candidate of policies failed", extra=log_fields(error=type(error).__name__))
            continue
        if draft is not None:
            drafts.append(draft)
    return drafts, failed


def _difference(candidate: PolicySet, one: Decided) -> Draft | None:
    request = one.request()
    other, assumed = judge_recorded(candidate, request)
    shift = shift_between(one.decision, other)
    if shift is None:
        return None
    details = {
        "effect_id": one.effect_id,
        "action": request.action,
        "resource": f"{request.resource.type}::{request.resource.id}",
        "shift": shift.value,
        "enforced": False,
        **difference_facts(one.decision, other),
    }
    if assumed:
        details["assumed"] = list(assumed)
    run_id = one.action.slot.run_id if one.action.slot else ""
    return confided(Draft(AuditEventType.POLICY_SHADOW, one.action.principal.name, details, run_id), one.keys)
