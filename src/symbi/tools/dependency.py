"""Something outside that calls go to: how many at a time, and whether any does just now.

1. a bulkhead: so many calls at a time, so many more wait in their order for so long, and beyond that is `Overloaded`;
2. a breaker (`symbi.tools.breaker`), asked before the gate whether it would refuse, and at the call itself for leave;
3. each change of the breaker is on the trail before anything comes of it.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import anyio

from symbi.audit.event import AuditEventType, Draft
from symbi.audit.log import AuditLog
from symbi.clock import Clock, random_bytes
from symbi.errors import (
    AgentFailed,
    OutputLimit,
    Overloaded,
    StoreUnavailable,
    SymbiError,
    TimeLimit,
    ToolServerUnavailable,
    Unavailable,
)
from symbi.telemetry import DEPENDENCY_CHANGES, DEPENDENCY_REFUSALS, Metrics
from symbi.tools.breaker import Breaker, BreakerState, BreakerTerms, Ticket
from symbi.tools.port import PROTOCOL_FAILURE
from symbi.types import SYSTEM_AGENT, JsonValue

CIRCUIT_OPEN: Final = "unavailable.circuit_open"
"""Code of a call that was refused because its server fails too often."""
_EVENTS: Final = {
    BreakerState.OPEN: AuditEventType.DEPENDENCY_OPENED,
    BreakerState.HALF_OPEN: AuditEventType.DEPENDENCY_HALF_OPEN,
    BreakerState.CLOSED: AuditEventType.DEPENDENCY_CLOSED,
}


@dataclass(frozen=True, slots=True)
class DependencyTerms:
    """How a dependency is treated.

    Attributes:
        max_concurrent: Calls at a time.
        max_waiting: Calls that wait for one of these to end.
        max_wait_s: How long each of them waits at most, in seconds.
        breaker: When its breaker opens.
    """

    max_concurrent: int = 64
    max_waiting: int = 256
    max_wait_s: float = 30.0
    breaker: BreakerTerms = field(default_factory=BreakerTerms)


@dataclass(frozen=True, slots=True)
class DependencyStatus:
    """How a dependency stands.

    Attributes:
        name: Its name.
        state: Of its breaker.
        retry_after_s: For how long calls are refused; None where they go through.
        calls: How many are at work.
        waiting: How many wait for those.
    """

    name: str
    state: BreakerState
    retry_after_s: float | None
    calls: int
    waiting: int


def random_share() -> float:
    """A random number in [0, 1)."""
    return int.from_bytes(random_bytes(4)) / 2**32


class Dependency:
    """One of them.

    Args:
        name: Its key in the configuration, e.g. `mcp.servers.mail`.
        what: As messages call it.
        terms: How it is treated.
        clock: Monotonic time.
        log: The trail.
        metrics: Counts changes and refusals.
        jitter: A random number in [0, 1).
    """

    def __init__(
        self,
        name: str,
        what: str,
        terms: DependencyTerms,
        clock: Clock,
        log: AuditLog,
        metrics: Metrics,
        jitter: Callable[[], float] = random_share,
    ) -> None:
        self.name = name
        self._what = what
        self._terms = terms
        self._clock = clock
        self._log = log
        self._metrics = metrics
        self._jitter = jitter
        self._breaker = Breaker(terms.breaker)
        self._room = anyio.CapacityLimiter(terms.max_concurrent)
        self._unrecorded: list[Draft] = []
        self._recording = anyio.Lock()

    @property
    def status(self) -> DependencyStatus:
        """How it stands now."""
        room = self._room.statistics()
        return DependencyStatus(
            self.name,
            self._breaker.state,
            self._breaker.refused_for_s(self._clock.monotonic_s()),
            room.borrowed_tokens,
            room.tasks_waiting,
        )

    def check(self) -> None:
        """Return if a call would go through now.

        Raises:
            ToolServerUnavailable: It would be refused (`unavailable.circuit_open`); `retry_after_s` says for how long.
        """
        for_s = self._breaker.refused_for_s(self._clock.monotonic_s())
        if for_s is not None:
            raise self._refused(for_s)

    def _refused(self, for_s: float) -> ToolServerUnavailable:
        self._metrics.inc(DEPENDENCY_REFUSALS, dependency=self.name, reason="circuit_open")
        msg = f"{self._what} has failed too often, and is left alone for {for_s:.3g} s"
        return ToolServerUnavailable(
            msg, code=CIRCUIT_OPEN, hint="see `symbi tools servers`", retry_after_s=for_s, dependency=self.name
        )

    @asynccontextmanager
    async def seat(self) -> AsyncIterator[None]:
        """A place among the calls at a time, as long as the block lasts; waits for one, in the order of asking.

        Raises:
            Overloaded: As many wait as may, or none came free in time.
        """
        await self.take_seat(token := object())
        try:
            yield
        finally:
            self.leave(token)

    async def take_seat(self, token: object) -> None:
        """The same for who leaves it by `leave`, under a token of its own.

        Raises:
            Overloaded: As `seat`.
        """
        room = self._room.statistics()
        if room.tasks_waiting >= self._terms.max_waiting and room.borrowed_tokens >= self._terms.max_concurrent:
            raise self._full(f"{room.tasks_waiting} calls wait for {self._what}", "full")
        try:
            with anyio.fail_after(self._terms.max_wait_s):
                await self._room.acquire_on_behalf_of(token)
        except TimeoutError:
            msg = f"no call to {self._what} came free within {self._terms.max_wait_s:g} s"
            raise self._full(msg, "late") from None

    def leave(self, token: object) -> None:
        """Give a seat back."""
        self._room.release_on_behalf_of(token)

    def _full(self, msg: str, reason: str) -> Overloaded:
        self._metrics.inc(DEPENDENCY_REFUSALS, dependency=self.name, reason=reason)
        room = self._room.statistics()
        # A tenth of the longest wait where a few wait, and all of it where as many do as may.
        share = max(0.1, min(1.0, room.tasks_waiting / max(self._terms.max_waiting, 1)))
        return Overloaded(msg, retry_after_s=self._terms.max_wait_s * share)

    @asynccontextmanager
    async def attempt(self, *, proves: bool = True) -> AsyncIterator[None]:
        """One call, which is the body: its end tells how the other side is.

        Args:
            proves: An end without an error shows that the other side is well again. Where it does not, as that a server
                could be started, only an error counts.

        Raises:
            ToolServerUnavailable: It is refused (`unavailable.circuit_open`).
            StoreUnavailable: A change of the breaker cannot be recorded.
        """
        now_s = self._clock.monotonic_s()
        was = self._breaker.state
        ticket = self._breaker.ask(now_s)
        if ticket is None:
            raise self._refused(self._breaker.refused_for_s(now_s) or 0.0)
        self._note(was)
        try:
            await self._record()
            yield
        except SymbiError as error:
            await self._ended(ticket, error, proves=proves)
            raise
        except BaseException:
            self._breaker.gave_up(ticket)  # cancelled, or a defect of ours
            raise
        await self._ended(ticket, None, proves=proves)

    async def _ended(self, ticket: Ticket, error: SymbiError | None, *, proves: bool) -> None:
        was = self._breaker.state
        if error is not None and speaks_against(error):
            self._breaker.failed(ticket, self._clock.monotonic_s(), self._jitter())
        elif proves and (error is None or is_answer(error)):
            self._breaker.answered(ticket)
        else:
            self._breaker.gave_up(ticket)
        self._note(was, error)
        if not isinstance(error, StoreUnavailable):  # which cannot take this either; the next call records it
            await self._record()

    def _note(self, was: BreakerState, error: SymbiError | None = None) -> None:
        """Keep a change for the trail, if there was one."""
        now = self._breaker.state
        if now is was:
            return
        self._metrics.inc(DEPENDENCY_CHANGES, dependency=self.name, state=now.value)
        details: dict[str, JsonValue] = {"dependency": self.name, "opened": self._breaker.opened}
        if now is BreakerState.OPEN:
            for_s = self._breaker.refused_for_s(self._clock.monotonic_s())
            details |= {"open_ms": round((for_s or 0.0) * 1000), "error": error.code if error else ""}
        self._unrecorded.append(Draft(_EVENTS[now], SYSTEM_AGENT, details))

    async def _record(self) -> None:
        """Put all changes on the trail that are not there yet, in their order; who calls goes on only then.

        Raises:
            StoreUnavailable: They cannot be recorded; whoever calls next tries it again.
        """
        while self._unrecorded:
            async with self._recording:
                if drafts := tuple(self._unrecorded):
                    await self._log.transact(partial(_unit, drafts), wait=True)
                    del self._unrecorded[: len(drafts)]


def _unit(drafts: tuple[Draft, ...]) -> tuple[None, tuple[Draft, ...]]:
    """A unit of work that is events alone."""
    return None, drafts


def speaks_against(error: SymbiError) -> bool:
    """Whether an error says that the other side is not well: it is not there, not in time, or does not speak the protocol."""
    if isinstance(error, Overloaded | StoreUnavailable):
        return False  # too much was asked of it, or of us
    return isinstance(error, Unavailable | TimeLimit) or error.code == PROTOCOL_FAILURE


def is_answer(error: SymbiError) -> bool:
    """Whether an error came from the other side, which is well if it can tell."""
    return isinstance(error, AgentFailed | OutputLimit) and error.code != PROTOCOL_FAILURE
