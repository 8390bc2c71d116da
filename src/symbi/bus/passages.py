"""The gate before every flow of messages, by lease.

A flow is one sender, one target, one label, and one class of size. Its first message is put to policy; the answer
holds for a bounded number of messages and a bounded time, until a new policy set ends it. Policies see the size of the
class (256, 1024, 4096 … bytes), which no message of it exceeds. A refusal is on the trail, and holds for a moment
without being asked again, so that a flood of messages that may not pass is not a flood of decisions.

Where a permit says `@lease("none")`, each message of the flow is decided and recorded by itself.
"""

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Final, TypeAlias

import anyio

from symbi.clock import Clock
from symbi.errors import Denied, InputError, Overloaded, PermitRefused
from symbi.guard.action import PublishMessage, SendMessage, TopicRef
from symbi.guard.conditions import ONE_BY_ONE
from symbi.guard.gate import Guard
from symbi.guard.lease import Lease
from symbi.guard.permit import Permit
from symbi.types import AgentId, Label, Principal

LEAST_CLASS: Final = 256
CLASS_STEP: Final = 4
REFUSAL_HOLDS_S: Final = 1.0
MAX_REFUSALS: Final = 10_000
MAX_ONE_BY_ONE: Final = (
    65_536  # flows that have no lease, and messages of them that were let pass: both are asked about again
)
MAX_RENEWALS: Final = 8  # a policy set that changes between each grant and its use ends it

Leased: TypeAlias = PublishMessage | SendMessage


def size_class(size: int) -> int:
    """The least class that holds so many bytes."""
    found = LEAST_CLASS
    while found < size:
        found *= CLASS_STEP
    return found


@dataclass(frozen=True, slots=True)
class Flow:
    """What one decision is about.

    Attributes:
        sender: Who sends.
        target: The agent or the topic.
        topic: Which of the two.
        label: Of every body.
        size: The class of sizes.
        reply: An answer is expected.
    """

    sender: AgentId
    target: str
    topic: bool
    label: Label
    size: int
    reply: bool = False


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """How long a decision holds.

    Attributes:
        uses: Messages.
        seconds: Time.
        most: Leases that are open at a time; beyond it the one that was used least recently is closed.
    """

    uses: int = 1_000_000
    seconds: float = 60.0
    most: int = 65_536


@dataclass(slots=True, eq=False)
class _Open:
    lease: Lease[Leased]
    context: AbstractAsyncContextManager[Lease[Leased]]
    version: str


@dataclass(slots=True)
class _Asking:
    over: anyio.Event = field(default_factory=anyio.Event)


class Passages:
    """Leases of flows.

    Args:
        guard: The gate.
        clock: For how long a refusal holds.
        terms: For how long a permission holds.
        principal: An agent as policies see it.
        topic: A topic as policies see it.
    """

    def __init__(
        self,
        guard: Guard,
        clock: Clock,
        terms: LeaseTerms,
        principal: Callable[[AgentId], Principal],
        topic: Callable[[str], TopicRef],
    ) -> None:
        self._guard = guard
        self._clock = clock
        self._terms = terms
        self._principal = principal
        self._topic = topic
        self._open: OrderedDict[Flow, _Open] = OrderedDict()
        self._asking: dict[Flow, _Asking] = {}
        self._refused: dict[Flow, tuple[Denied, str, float]] = {}
        self._one_by_one: set[Flow] = set()  # by the set of `_told_by`
        self._told_by = ""
        self._let: OrderedDict[str, str] = OrderedDict()  # of these, by which set each message was let pass
        self.refusals = 0  # that were not asked again

    def __len__(self) -> int:
        """How many leases are open."""
        return len(self._open)

    @property
    def version(self) -> str:
        """The policy set in force."""
        return self._guard.engine.current.version

    async def grant(self, flow: Flow, count: int = 1) -> Lease[Leased]:
        """The lease of a flow, with so many uses left; nothing may be waited for between this and its use.

        Raises:
            Denied: Policy does not let it pass; with the code `ONE_BY_ONE`, not by lease.
            Overloaded, StoreUnavailable: Nobody can decide, or put it on record.
        """
        for _ in range(MAX_RENEWALS):
            found = self._open.get(flow)
            if found is not None and found.lease.uses_left >= count:
                self._open.move_to_end(flow)
                return found.lease
            asking = self._asking.get(flow)
            if asking is not None:
                await asking.over.wait()
                continue
            self._stand_by(flow)
            asking = self._asking[flow] = _Asking()
            try:
                await self._renew(flow, max(count, self._terms.uses))
            finally:
                del self._asking[flow]
                asking.over.set()
        msg = "the policy set changes faster than a message can pass"
        raise PermitRefused(msg, code="permit.revoked")

    async def each(self, flow: Flow, messages: Sequence[tuple[str, bytes]]) -> AbstractAsyncContextManager[None]:
        """Decide on each message by itself, in their order; all may pass, or none.

        Args:
            flow: To which they belong.
            messages: Ids, and bytes as they are sealed.

        Returns:
            Whatever hands them over does so inside: its end is on record for each of them.

        Raises:
            Denied: Policy does not let one of them pass.
            Overloaded, StoreUnavailable: As `grant`.
        """
        version = self.version
        async with AsyncExitStack() as decided:
            permits = [await decided.enter_async_context(self._guard.enforce(one)) for one in self._of(flow, messages)]
            for message_id, _ in messages:
                self._let[message_id] = version
            while len(self._let) > MAX_ONE_BY_ONE:
                self._let.popitem(last=False)
            return self._handed_over(decided.pop_all(), permits)
        raise AssertionError

    @asynccontextmanager
    async def _handed_over(self, decided: AsyncExitStack, permits: Sequence[Permit[Leased]]) -> AsyncIterator[None]:
        """Messages are handed over within; they are used up unless it is known that nobody has got any."""
        authority = self._guard.authority
        async with decided:
            for permit in permits:
                authority.check(permit, type(permit.action))
            try:
                yield
            except (Overloaded, InputError):  # so the port and the outbox say
                raise
            except BaseException:
                for permit in permits:
                    authority.redeem(permit, type(permit.action))
                raise
            for permit in permits:
                authority.redeem(permit, type(permit.action))

    async def still(self, flow: Flow, message_id: str, data: bytes = b"") -> None:
        """Decide again on a message that waited; by itself where policy wants it so, and its set has not done so yet.

        Args:
            flow: To which it belongs.
            message_id: Which.
            data: Its bytes as they are sealed, where they are at hand.

        Raises:
            Denied, Overloaded, StoreUnavailable: As `grant`.
        """
        try:
            await self.grant(flow)
        except PermitRefused as refusal:
            if refusal.code != ONE_BY_ONE:
                raise
            version = self._let.get(message_id)
            while version != self.version:  # also one that came while the decision was put on record
                version = self.version
                async with await self.each(flow, [(message_id, data)]):
                    pass

    def _of(self, flow: Flow, messages: Sequence[tuple[str, bytes]]) -> list[Leased]:
        action = self._action(flow)
        return [
            replace(action, message_id=id_, digest=sha256(data).hexdigest() if data else "") for id_, data in messages
        ]

    def _stand_by(self, flow: Flow) -> None:
        """Raise what was refused a moment ago by the same policy set, and what it does not lease."""
        if self._told_by != self.version:
            self._one_by_one.clear()
        elif flow in self._one_by_one:
            msg = "a policy wants each message decided by itself"
            raise PermitRefused(msg, code=ONE_BY_ONE)
        refusal, version, until_s = self._refused.get(flow, (None, "", 0.0))
        if refusal is not None:
            if version == self.version and self._clock.monotonic_s() < until_s:
                self.refusals += 1
                raise refusal.with_traceback(None)
            del self._refused[flow]

    async def _renew(self, flow: Flow, uses: int) -> None:
        while len(self._open) >= self._terms.most:
            await self._close(next(iter(self._open)))
        await self._close(flow)
        version = self.version
        context = self._guard.lease(self._action(flow), uses=uses, seconds=self._terms.seconds)
        try:
            lease = await context.__aenter__()
        except Denied as refusal:
            if refusal.code == ONE_BY_ONE:
                self._leases_none(flow, version)
                raise
            if len(self._refused) >= MAX_REFUSALS:
                self._refused.clear()
            self._refused[flow] = refusal, version, self._clock.monotonic_s() + REFUSAL_HOLDS_S
            raise
        self._open[flow] = _Open(lease, context, version)

    def _leases_none(self, flow: Flow, version: str) -> None:
        """Remember that a flow has no lease, by the set that was asked, and no longer."""
        if self._told_by != version or len(self._one_by_one) >= MAX_ONE_BY_ONE:
            self._one_by_one.clear()
        self._told_by = version
        self._one_by_one.add(flow)

    def _action(self, flow: Flow) -> Leased:
        principal = self._principal(flow.sender)
        if flow.topic:
            return PublishMessage(
                principal=principal, topic=self._topic(flow.target), label=flow.label, size_bytes=flow.size
            )
        to = self._principal(AgentId(flow.target))
        return SendMessage(principal=principal, to=to, label=flow.label, expects_reply=flow.reply, size_bytes=flow.size)

    async def _close(self, flow: Flow) -> None:
        found = self._open.pop(flow, None)
        if found is not None:
            await found.context.__aexit__(None, None, None)

    async def sweep(self) -> None:
        """Close leases that have ended."""
        for flow in [flow for flow, one in self._open.items() if not one.lease.uses_left]:
            await self._close(flow)

    async def close(self) -> None:
        """Close all of them."""
        async with anyio.create_task_group() as tasks:
            for flow in list(self._open):
                tasks.start_soon(self._close, flow)


def declared(principal: Principal, agent: AgentId) -> Principal:
    """An agent of several that were made of one declaration, as policies see it."""
    name, _, instance = agent.partition("/")
    return replace(principal, agent=AgentId(name), instance=instance)
