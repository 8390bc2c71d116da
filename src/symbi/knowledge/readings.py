"""The gate before every search: a decision for each sort of document that a collection has, by lease.

A collection's documents differ in owner, classification and purpose, and in nothing else that policies see. So there is
one decision for each of these that occurs (`Access`), before anything is looked for, and what may not be read is not
looked for; nor does it count in how common words are (BM25). A decision is a lease; where policy wants each search decided by
itself, each is.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from symbi.clock import Clock
from symbi.errors import ApprovalPending, ApprovalRequired, Denied, PermitRefused, PolicyDenied
from symbi.guard.action import DataRef, ReadData
from symbi.guard.conditions import ONE_BY_ONE
from symbi.guard.gate import Guard
from symbi.guard.lease import Lease
from symbi.guard.permit import Permit
from symbi.knowledge.documents import Access
from symbi.types import Label, Principal, RunId

KIND: Final = "documents"
MAX_ITEMS: Final = 100  # passages of one search
USES: Final = 1_000
SECONDS: Final = 60.0
SPARE_S: Final = 10.0  # before its end a lease is renewed, so that it does not end in the middle of a search
REFUSAL_HOLDS_S: Final = 5.0  # how long a refusal is not asked for again, while the policy set stays
MAX_OPEN: Final = 256


PLAIN: Final = Label()
"""Of a question that somebody has just typed."""


@dataclass(frozen=True, slots=True)
class Reader:
    """Who reads, and what for.

    Attributes:
        principal: Who.
        label: Of the question.
        purpose: What for.
        within: The run that asks, if any.
        granted: What that run may read by a decision of its own, to which people may have agreed.
    """

    principal: Principal
    label: Label = PLAIN
    purpose: str = "unknown"
    within: RunId | None = None
    granted: Permit[ReadData] | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Reading:
    """The right to read what there is of one access, for one search.

    Attributes:
        permit: Live while the search lasts.
        max_items: The most passages of it that may come back.
        mark: What policy says of them beside their own label.
    """

    permit: Permit[ReadData]
    max_items: int
    mark: Label


@dataclass(slots=True, eq=False)
class _Open:
    lease: Lease[ReadData]
    context: AbstractAsyncContextManager[Lease[ReadData]]
    renew_s: float
    using: int = 0


class Readings:
    """Leases of readers.

    Args:
        guard: The gate.
        clock: Says how long a refusal holds.
        embedder: Name of the model that reads questions, and whether it is remote: policies may mind.
    """

    def __init__(self, guard: Guard, clock: Clock, embedder: tuple[str, bool]) -> None:
        self._guard = guard
        self._clock = clock
        self._embedder = embedder
        self._open: dict[tuple[Reader, Access], _Open] = {}
        self._ending: list[_Open] = []  # used up, and still in somebody's hands
        self._refused: dict[tuple[Reader, Access], tuple[Denied, str, float]] = {}

    @asynccontextmanager
    async def reading(self, reader: Reader, access: Access, question: str) -> AsyncIterator[Reading]:
        """Read what there is of one access, if policy permits.

        Raises:
            Denied: It does not.
            StoreUnavailable: The decision cannot be made durable.
        """
        if (granted := self._granted(reader, access, question)) is not None:
            yield granted
            return
        key = (reader, access)
        self._stand_by(key)
        try:
            found = await self._leased(key)
        except PermitRefused as refused:
            if refused.code != ONE_BY_ONE:
                raise
        else:
            found.using += 1
            try:
                action = found.lease.use({"query": question})
                yield Reading(found.lease.permit, action.max_items, action.mark)
            finally:
                found.using -= 1
                if not found.using and found in self._ending:
                    self._ending.remove(found)
                    await found.context.__aexit__(None, None, None)
            return
        version = self._guard.engine.current.version
        async with AsyncExitStack() as stack:
            try:
                permit = await stack.enter_async_context(self._guard.enforce(self._action(reader, access, question)))
            except Denied as refusal:
                self._refuse(key, refusal, version)
                raise
            action = self._guard.authority.redeem(permit, ReadData)
            if action.query != question:  # one search has one question, and every access its own decision
                msg = "a policy redacts or caps the question, and a search asks all that may be read the same one"
                raise PolicyDenied(msg, code="policy.condition")
            yield Reading(permit, action.max_items, action.mark)

    def _granted(self, reader: Reader, access: Access, question: str) -> Reading | None:
        """What a reader may read by the decision that it comes with, where that was about just this: it is not made twice."""
        if reader.granted is None:
            return None
        action = self._guard.authority.check(reader.granted, ReadData)
        asked = self._action(reader, access, question)
        if _terms(action) != _terms(asked) or action.query != {"question": question}:
            return None
        return Reading(reader.granted, action.max_items, action.mark)

    def _stand_by(self, key: tuple[Reader, Access]) -> None:
        refusal, version, until_s = self._refused.get(key, (None, "", 0.0))
        if refusal is None:
            return
        if version == self._guard.engine.current.version and self._clock.monotonic_s() < until_s:
            raise refusal.with_traceback(None)
        del self._refused[key]

    async def _leased(self, key: tuple[Reader, Access]) -> _Open:
        found = self._open.get(key)
        now_s = self._clock.monotonic_s()
        if found is not None and found.lease.uses_left and now_s < found.renew_s:
            return found
        if found is not None:
            await self._close(key)
        while len(self._open) >= MAX_OPEN and (idle := next((k for k, o in self._open.items() if not o.using), None)):
            await self._close(idle)
        version = self._guard.engine.current.version  # before it is asked: another set may come meanwhile
        context = self._guard.lease(self._action(*key, None), uses=USES, seconds=SECONDS)
        try:
            lease = await context.__aenter__()
        except Denied as refusal:
            if refusal.code != ONE_BY_ONE:
                self._refuse(key, refusal, version)
            raise
        made, other = _Open(lease, context, now_s + SECONDS - SPARE_S), self._open.get(key)
        self._open[key] = made  # before anything is waited for: what is in here is closed whatever comes
        await self._retire(other)  # where somebody else was as quick
        return made

    def _refuse(self, key: tuple[Reader, Access], refusal: Denied, version: str) -> None:
        if isinstance(refusal, ApprovalRequired | ApprovalPending):
            return  # what people have to say is asked anew each time: they may have said it meanwhile
        if len(self._refused) >= MAX_OPEN:
            self._refused.clear()
        self._refused[key] = refusal, version, self._clock.monotonic_s() + REFUSAL_HOLDS_S

    def _action(self, reader: Reader, access: Access, question: str | None) -> ReadData:
        name, remote = self._embedder
        return ReadData(
            principal=reader.principal,
            label=reader.label,
            within=reader.within,
            data=data_ref(access),
            query=question,
            purpose=reader.purpose,
            max_items=MAX_ITEMS,
            embedder=name,
            remote=remote,
        )

    async def _close(self, key: tuple[Reader, Access]) -> None:
        await self._retire(self._open.pop(key, None))

    async def _retire(self, found: _Open | None) -> None:
        """Close a lease, or have who uses it last do so."""
        if found is not None and found.using:
            self._ending.append(found)
        elif found is not None:
            await found.context.__aexit__(None, None, None)

    async def close(self) -> None:
        """Close all leases."""
        for key in list(self._open):
            await self._close(key)


def _terms(action: ReadData) -> tuple[object, ...]:
    """Who reads what, and what for: all that policies decide by, but for how much and what is looked for."""
    return action.principal, action.data, action.label, action.purpose, action.embedder, action.remote


def data_ref(access: Access) -> DataRef:
    """What documents are to policies."""
    return DataRef("Knowledge", access.collection, access.owner, KIND, access.classification.value, access.purpose)
