"""What a server offers beside tools: its resources, templates, prompts and completions, each asked for through the gate.

What comes back is untrusted, and as confidential as what it was asked with: a manifest says something of tools alone.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Final, Generic, TypeVar

import anyio

from symbi.errors import InputError, TimeLimit
from symbi.guard.action import BrowseServer, Complete, GetPrompt, ReadResource, ServerQuestion
from symbi.guard.gate import Guard
from symbi.guard.permit import Permit
from symbi.guard.waits import Waits
from symbi.policy.fields import UNDECLARED, AnswerLabels
from symbi.tools.caller import Caller, hooks_of
from symbi.tools.catalog import Catalog
from symbi.tools.port import PROMPTS, RESOURCES, TEMPLATES, Completion, ResourceUpdates, ServerSession
from symbi.types import EffectId, JsonValue, Label, Principal

OUTER_GRACE_S: Final = 5.0  # what an adapter gets beyond the deadline to report that it has passed
MAX_URI_CHARS: Final = 8_192  # longer ones are no names of anything

T = TypeVar("T")
Q = TypeVar("Q", bound=ServerQuestion)
Contents = Sequence[Mapping[str, JsonValue]]


@dataclass(frozen=True, slots=True)
class Offered(Generic[T]):
    """What a server answered, in the protocol's form.

    Attributes:
        value: The answer.
        label: Its label: untrusted.
        effect_id: The effect.
        mark: What policies raise that label to.
    """

    value: T
    label: Label
    effect_id: EffectId
    mark: Label = field(default_factory=Label)


class ServerReader:
    """Asks servers for what they offer beside tools.

    Every method raises:
        InputError: There is no such server, or it cannot be asked.
        Denied: Policy does not let it happen.
        Unavailable: The server is not connected, or has failed too often and is left alone.
        TimeLimit, OutputLimit, ToolFailed: It does not answer in time, too much, or refuses.
        StoreUnavailable: Decision or outcome cannot be recorded.

    Args:
        catalog: The servers there are.
        guard: The gate.
        asks: The session of a client that asks, for the trail; empty for none.
        waits: Bounds how many of its questions wait for people; None for no bound.
    """

    def __init__(self, catalog: Catalog, guard: Guard, asks: str = "", waits: Waits | None = None) -> None:
        self._catalog = catalog
        self._guard = guard
        self._asks = asks
        self._waits = waits

    async def browse(self, principal: Principal, server: str, what: str) -> Offered[Contents]:
        """List a server's `resources`, `templates` or `prompts`."""
        if what not in {RESOURCES, TEMPLATES, PROMPTS}:
            msg = f"a server is browsed for `{RESOURCES}`, `{TEMPLATES}` or `{PROMPTS}`, not for `{what[:64]}`"
            raise InputError(msg, code="tool.browse")
        session, timeout_s = self._session(server)
        action = BrowseServer(principal=principal, server=server, what=what, timeout_s=timeout_s)
        return await self._ask(action, session.browse)

    async def read(
        self, principal: Principal, server: str, uri: str, *, label: Label | None = None, caller: Caller | None = None
    ) -> Offered[Contents]:
        """Read a resource; `label` is that of what the URI was made of."""
        _check_uri(uri)
        session, timeout_s = self._session(server)
        action = ReadResource(principal=principal, server=server, uri=uri, label=label or Label(), timeout_s=timeout_s)

        async def read(permit: Permit[ReadResource]) -> Contents:
            return await session.read(permit, hooks_of(self._guard, caller, permit.action, permit.effect_id))

        return await self._ask(action, read)

    async def subscribe(
        self, action: ReadResource, opening: Callable[[ResourceUpdates, Permit[ReadResource]], Awaitable[None]]
    ) -> Offered[Contents]:
        """Have changes of a resource told, with the deadline of the server.

        Args:
            action: Which, and for whom.
            opening: Redeems the permit, at the server or because others hear of that resource already.
        """
        _check_uri(action.uri)
        link = self._catalog.link(action.server)
        if link.updates is None:
            msg = f"tool server `{action.server}` tells of no changes"
            raise InputError(msg, code="tool.no_session")
        updates = link.updates

        async def ask(permit: Permit[ReadResource]) -> Contents:
            await opening(updates, permit)
            return ()

        return await self._ask(replace(action, how="subscribe", timeout_s=link.timeout_s), ask)

    async def may_hear(self, action: ReadResource) -> None:
        """Return if a change of a resource may be told of; nothing is asked of its server.

        Raises:
            Denied: Policy does not let it.
            StoreUnavailable: That cannot be recorded.
        """
        await self._decide(replace(action, how="update", session=self._asks))

    async def may_subscribe(self, action: ReadResource) -> None:
        """Return if a resource may be subscribed to of which its server tells already; it is not asked again."""
        timeout_s = self._catalog.link(action.server).timeout_s
        await self._decide(replace(action, how="subscribe", timeout_s=timeout_s, session=self._asks, waits=self._waits))

    async def _decide(self, action: ReadResource) -> None:
        async with self._guard.enforce(action) as permit:
            self._guard.authority.redeem(permit, ReadResource)

    async def prompt(
        self,
        principal: Principal,
        server: str,
        name: str,
        values: Mapping[str, str],
        *,
        label: Label | None = None,
        caller: Caller | None = None,
    ) -> Offered[Mapping[str, JsonValue]]:
        """Have a prompt filled in; `label` joins those of the values."""
        session, timeout_s = self._session(server)
        action = GetPrompt(
            principal=principal,
            server=server,
            name=name,
            values=dict(values),
            label=label or Label(),
            timeout_s=timeout_s,
        )

        async def prompt(permit: Permit[GetPrompt]) -> Mapping[str, JsonValue]:
            return await session.prompt(permit, hooks_of(self._guard, caller, permit.action, permit.effect_id))

        return await self._ask(action, prompt)

    async def complete(self, action: Complete) -> Offered[Completion]:
        """Ask how an argument may go on; the deadline of the action counts."""
        session, _ = self._session(action.server)
        return await self._ask(action, session.complete)

    def _session(self, server: str) -> tuple[ServerSession, float]:
        link = self._catalog.link(server)
        if link.session is None:
            msg = f"tool server `{server}` cannot be asked for anything but its tools"
            raise InputError(msg, code="tool.no_session")
        return link.session, link.timeout_s

    async def _ask(self, action: Q, ask: Callable[[Permit[Q]], Awaitable[T]]) -> Offered[T]:
        server, action = action.server, replace(action, session=self._asks, waits=self._waits)
        await self._catalog.revive(server, action.principal)
        dependency = self._catalog.dependency_of(server)
        async with self._seat(server), self._guard.enforce(action) as permit:
            async with dependency.attempt():
                answer = await _within(action, ask(permit))
            plain = answer.values if isinstance(answer, Completion) else answer
            permit.observe(plain)
        labels = AnswerLabels(UNDECLARED, permit.action.label, permit.effect_id, permit.action.mark)
        return Offered(answer, labels.at((), None), permit.effect_id, permit.action.mark)

    @asynccontextmanager
    async def _seat(self, server: str) -> AsyncIterator[None]:
        """A place among those that the server is given at a time."""
        dependency, seat = self._catalog.dependency_of(server), object()
        dependency.check()
        await dependency.take_seat(seat)
        try:
            yield
        finally:
            dependency.leave(seat)


def _check_uri(uri: str) -> None:
    if not uri or len(uri) > MAX_URI_CHARS:
        msg = f"a URI has 1 to {MAX_URI_CHARS} characters, and this one {len(uri)}"
        raise InputError(msg, code="tool.uri")


async def _within(action: ServerQuestion, answer: Awaitable[T]) -> T:
    """The deadline outside of the adapter's own."""
    try:
        with anyio.fail_after(action.timeout_s + OUTER_GRACE_S):
            return await answer
    except TimeoutError:
        msg = f"tool server `{action.server}` and its adapter did not answer within {action.timeout_s:g} s"
        raise TimeLimit(msg, server=action.server) from None
