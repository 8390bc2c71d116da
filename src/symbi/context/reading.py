"""Which labels a reader may see: one decision for each, by lease.

A reader is decided on for a memory, once for what it asks, and once for each level of label that items there have; what
policy refuses of these is as if it were not there. The decisions stand on the trail as leases do: the grant, and at its
close how often it was used, and a digest.
"""

from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

import anyio

from symbi.clock import Clock
from symbi.context.sealing import label_of_level
from symbi.errors import ApprovalPending, ApprovalRequired, Denied, Overloaded, PermitRefused, RateLimited
from symbi.guard.action import DataRef, ReadData
from symbi.guard.conditions import ONE_BY_ONE
from symbi.guard.gate import Guard
from symbi.guard.lease import Lease
from symbi.guard.permit import Permit
from symbi.policy.flow import join
from symbi.types import JsonValue, Label, Principal

LEASE_USES: Final = 100_000
LEASE_SECONDS: Final = 60.0
MAX_LEASES: Final = 4096  # open at a time; the one that was used least recently makes room
REFUSAL_HOLDS_S: Final = 10.0  # a refusal is not asked for again by the same set for so long
MAX_REFUSALS: Final = 4096
MAX_RENEWALS: Final = 8
CLOSE_S: Final = 10.0  # for all that are open at the end
CONDITION: Final = "policy.condition"


@dataclass(frozen=True, slots=True)
class Asked:
    """For what a decision holds.

    Attributes:
        principal: Who reads.
        data: Which memory.
        label: Of what is asked, and of the items that come back.
        purpose: What for.
        max_items: How many at most.
        by_level: It is about the label of items, and not about the question.
        embedder, remote: Which model reads what is looked for, and whether it is another machine's.
    """

    principal: Principal
    data: DataRef
    label: Label
    purpose: str
    max_items: int
    by_level: bool = False
    embedder: str = ""
    remote: bool = False


@dataclass(slots=True, eq=False)
class _Open:
    lease: Lease[ReadData]
    context: AbstractAsyncContextManager[Lease[ReadData]]


class Readers:
    """Decisions about who may read what, while they hold.

    Args:
        guard: The gate.
        clock: For how long a refusal holds.
    """

    def __init__(self, guard: Guard, clock: Clock) -> None:
        self._guard = guard
        self._clock = clock
        self._open: OrderedDict[Asked, _Open] = OrderedDict()
        self._refused: dict[Asked, tuple[Denied, str, float]] = {}
        self._one_by_one: dict[Asked, str] = {}
        self._turn = anyio.Lock()

    def __len__(self) -> int:
        """How many leases are open."""
        return len(self._open)

    @property
    def version(self) -> str:
        """The policy set in force."""
        return self._guard.engine.current.version

    @asynccontextmanager
    async def reading(self, asked: Asked, query: Mapping[str, JsonValue]) -> AsyncIterator[Permit[ReadData]]:
        """One read: by lease, or by itself where policy wants it so or changes what is asked; what is read, is read within.

        Raises:
            Denied: Policy does not let it happen.
            Overloaded, StoreUnavailable: Nobody can decide, or put it on record.
        """
        lease = await self._lease(asked)
        if lease is not None:
            lease.use(query)
            yield lease.permit
            return
        action = replace(_action(asked), query=query)
        async with self._guard.enforce(action) as permit:
            self._guard.authority.redeem(permit, ReadData)
            yield permit

    async def visible(self, asked: Asked, levels: Iterable[str]) -> dict[str, Label]:
        """Of some levels of items, those that a reader may see, and to what policy raises the labels of these items.

        Raises:
            Overloaded, StoreUnavailable: Nobody can decide, or put it on record.
            RateLimited: Policy lets it be read so often, and it was.
            PermitRefused: A decision ended before it was used.
        """
        seen: dict[str, Label] = {}
        for level in sorted(levels):
            label = join(replace(asked.label, subjects=(), sources=()), label_of_level(level))
            try:
                about = replace(asked, label=label, by_level=True, embedder="", remote=False)
                async with self.reading(about, {"level": level}) as permit:
                    seen[level] = permit.action.mark
            except (PermitRefused, RateLimited):
                raise  # that says nothing about what a reader may see
            except Denied:
                continue  # and what is of this level is as if it were not there
        return seen

    async def _lease(self, asked: Asked) -> Lease[ReadData] | None:
        """A lease with a use left, or None where each is decided by itself; nothing may be waited for before its use."""
        for _ in range(MAX_RENEWALS):
            if self._one_by_one.get(asked) == self.version:
                return None
            found = self._open.get(asked)
            if found is not None and found.lease.uses_left:
                self._open.move_to_end(asked)
                return found.lease
            async with self._turn:
                found = self._open.get(asked)
                if found is None or not found.lease.uses_left:
                    await self._renew(asked)
        msg = "the policy set changes faster than a memory can be read"
        raise Overloaded(msg, retry_after_s=1.0)

    async def _renew(self, asked: Asked) -> None:
        refusal, version, until_s = self._refused.get(asked, (None, "", 0.0))
        if refusal is not None:
            if version == self.version and self._clock.monotonic_s() < until_s:
                raise refusal.with_traceback(None)
            del self._refused[asked]
        while len(self._open) >= MAX_LEASES:
            await self._close(next(iter(self._open)))
        await self._close(asked)
        version = self.version
        context = self._guard.lease(_action(asked), uses=LEASE_USES, seconds=LEASE_SECONDS)
        try:
            lease = await context.__aenter__()
        except Denied as refused:
            if refused.code in {ONE_BY_ONE, CONDITION}:
                if len(self._one_by_one) >= MAX_REFUSALS:
                    self._one_by_one.clear()
                self._one_by_one[asked] = version
                return
            if isinstance(refused, ApprovalRequired | ApprovalPending):
                raise  # what people have to say is asked anew each time: they may have said it meanwhile
            if len(self._refused) >= MAX_REFUSALS:
                self._refused.clear()
            self._refused[asked] = refused, version, self._clock.monotonic_s() + REFUSAL_HOLDS_S
            raise
        self._open[asked] = _Open(lease, context)

    async def _close(self, asked: Asked) -> None:
        found = self._open.pop(asked, None)
        if found is not None:
            await found.context.__aexit__(None, None, None)

    async def sweep(self) -> None:
        """Close leases that have ended."""
        async with self._turn:
            for asked in [asked for asked, one in self._open.items() if not one.lease.uses_left]:
                await self._close(asked)

    async def close(self) -> None:
        """Close all of them; also for who is cancelled, so that the trail has how often each was used."""
        with anyio.move_on_after(CLOSE_S, shield=True):
            async with self._turn:
                for asked in list(self._open):
                    await self._close(asked)


def _action(asked: Asked) -> ReadData:
    return ReadData(
        principal=asked.principal, data=asked.data, label=asked.label, purpose=asked.purpose, max_items=asked.max_items,
        embedder=asked.embedder, remote=asked.remote,
    )  # fmt: skip
