"""The meter of one run at work: what it uses, what of its budget that is, and what is done where it is more than claimed.

Time is charged to the account of the run in steps, before an effect and at the end, so that a body that computes costs
no commits; in between the meter knows how much is left. What was not charged when the process died is lost: at most
such a step.

An agent uses more than it claimed where it used up its share of a while (`symbi.runtime.share`): processor time against
`cpu_cores`, bytes of tools against `network_io_mbps` if it claims some; or where the worker that runs its code takes
more than `memory_mb`. Nothing is done about it unless its configuration says what.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

import anyio
import anyio.lowlevel

from symbi.agent.turn import ALWAYS, Turn
from symbi.clock import Clock
from symbi.guard.budget import Account, refuse_exceeded
from symbi.guard.spending import Spend
from symbi.runtime.share import WINDOW_S, Share
from symbi.runtime.usage import NS_PER_MS, Used, Whose
from symbi.types import JsonValue, OnBreach, ResourceLimits, RunId

STEP_CPU_MS: Final = 50  # processor time that is charged at once
STEP_WALL_MS: Final = 500  # time at work that is charged at once
BYTES_PER_MIBIT: Final = 131_072
BYTES_PER_MIB: Final = 1_048_576

Pay: TypeAlias = Callable[[Spend], Awaitable[Sequence[Account]]]
"""Charges what was used, and answers with the accounts as they stand then; raises `StoreUnavailable`."""


@dataclass(frozen=True, slots=True)
class Breach:
    """An agent uses more than it claimed.

    Attributes:
        what: `cpu`, `bytes` or `memory`.
        used: How much: milliseconds in the window, bytes in the window, bytes.
        claimed: How much it may.
        remedy: What is done.
    """

    what: str
    used: int
    claimed: int
    remedy: OnBreach

    def facts(self) -> dict[str, JsonValue]:
        """For the trail."""
        window: dict[str, JsonValue] = {} if self.what == "memory" else {"window_s": round(WINDOW_S)}
        return {"what": self.what, "used": self.used, "claimed": self.claimed, **window, "remedy": self.remedy.value}


Act: TypeAlias = Callable[[Breach], Awaitable[None]]
"""Puts a breach on record and suspends or stops the agent, as its remedy says; one that is throttled waits by itself."""


async def no_act(_breach: Breach) -> None:
    """The default of `act`: nothing."""


class RunMeter:
    """Measures one run: the `Meter` that its body tells, and its `Turn`, which knows when it is not at work.

    Args:
        whose: Whose run it is.
        run_id: The run.
        clock: Tells how long it is at work.
        limits: What it claimed.
        turn: Its turn in the pool.
    """

    def __init__(self, whose: Whose, run_id: RunId, clock: Clock, limits: ResourceLimits, turn: Turn = ALWAYS) -> None:
        self._whose = whose
        self._run_id = run_id
        self._clock = clock
        self._turn = turn
        self._memory_bytes = limits.memory_mb * BYTES_PER_MIB
        self._since_s: float | None = clock.monotonic_s()
        self._used = Used()
        self._unpaid_cpu_ns = 0
        self._unpaid_wall_ns = 0
        self._line: Sequence[Account] = ()
        self._pay: Pay | None = None
        now_s = self._since_s
        self._cpu = Share(limits.cpu_cores * 1e9, now_s)
        network = limits.network_io_mbps * BYTES_PER_MIBIT
        self._bytes = Share(network, now_s) if network else None
        self._remedy: OnBreach | None = None
        self._act: Act = no_act
        self._wait: Callable[[float], Awaitable[None]] = anyio.sleep
        self._told_s: dict[str, float] = {}

    @property
    def whose(self) -> Whose:
        """Whose run it is."""
        return self._whose

    def charge_to(self, line: Sequence[Account], pay: Pay) -> None:
        """Charge its time to accounts: that of the run first, then those above it."""
        self._line, self._pay = line, pay

    def watch(self, remedy: OnBreach, act: Act, wait: Callable[[float], Awaitable[None]]) -> None:
        """Do something where it uses more than it claimed.

        Args:
            remedy: What.
            act: Does it.
            wait: Waits for so many seconds.
        """
        self._remedy, self._act, self._wait = remedy, act, wait

    # --- Meter --------------------------------------------------------------------------------

    def worked(self, cpu_ns: int) -> None:
        """Its body has used so much of a processor."""
        self._used.cpu_ns += cpu_ns
        self._unpaid_cpu_ns += cpu_ns
        self._cpu.use(cpu_ns)

    def acted(self) -> None:
        """It has had an effect."""
        self._used.effects += 1

    def moved(self, out_bytes: int, in_bytes: int) -> None:
        """A tool was given, and has answered, so many bytes."""
        self._used.effects += 1
        self._used.calls += 1
        self._used.bytes_out += out_bytes
        self._used.bytes_in += in_bytes
        if self._bytes is not None:
            self._bytes.use(out_bytes + in_bytes)

    def computed(self, cpu_ns: int, memory_bytes: int) -> None:
        """Its code has used so much of a worker."""
        self._used.code_cpu_ns += cpu_ns
        self._used.code_memory_bytes = max(self._used.code_memory_bytes, memory_bytes)
        self._unpaid_cpu_ns += cpu_ns
        self._cpu.use(cpu_ns)

    def check(self) -> None:
        """Whether there is time left.

        Raises:
            BudgetExceeded: There is none.
        """
        if self._pay is None:
            return
        unpaid = self._unpaid()
        for account in self._line:
            refuse_exceeded(replace(account, spent=account.spent + unpaid), self._run_id)

    # --- Counting -----------------------------------------------------------------------------

    def take(self) -> Used:
        """What was used since the last time."""
        self._note_time()
        taken, self._used = self._used, Used()
        return taken

    # --- Turn ---------------------------------------------------------------------------------

    @property
    def must_stop(self) -> bool:
        """Its turn is to be given up, time is to be charged, or something is to be done about what it uses."""
        return self._turn.must_stop or self._due() or self.breach() is not None

    async def keep(self) -> None:
        """Return when the run may go on.

        Raises:
            BudgetExceeded: Its time is used up.
            TimeLimit: Its turn does not come back in time.
            StoreUnavailable: It cannot be recorded.
        """
        if self._due():
            await self.pay()
            self.check()
        breach = self.breach()
        if breach is not None:
            await self._stand(breach)
        if self._turn.must_stop:
            with self._standing():
                await self._turn.keep()

    def idle(self) -> AbstractAsyncContextManager[None]:
        """While the run waits for somebody; that is no time at work."""
        return self._not_at_work(self._turn.idle())

    def away(self) -> AbstractAsyncContextManager[None]:
        """While the run waits for another; likewise."""
        return self._not_at_work(self._turn.away())

    @asynccontextmanager
    async def _not_at_work(self, inner: AbstractAsyncContextManager[None]) -> AsyncIterator[None]:
        with self._standing():
            async with inner:
                yield

    # --- what it costs ------------------------------------------------------------------------

    async def pay(self) -> None:
        """Charge what was used and is not charged yet, in whole milliseconds.

        Raises:
            StoreUnavailable: It cannot be made durable; it is charged the next time.
        """
        cost = self._unpaid()
        if self._pay is None or cost == Spend():
            return
        line = await self._pay(cost)
        self._unpaid_cpu_ns -= cost.cpu_ms * NS_PER_MS
        self._unpaid_wall_ns -= cost.wall_ms * NS_PER_MS
        self._line = line

    def _unpaid(self) -> Spend:
        self._note_time()
        return Spend(wall_ms=self._unpaid_wall_ns // NS_PER_MS, cpu_ms=self._unpaid_cpu_ns // NS_PER_MS)

    def _due(self) -> bool:
        if self._pay is None:
            return False
        cost = self._unpaid()
        if cost.cpu_ms >= STEP_CPU_MS or cost.wall_ms >= STEP_WALL_MS:
            return True
        return any(replace(account, spent=account.spent + cost).out_of_time for account in self._line)

    def _note_time(self) -> None:
        if self._since_s is None:
            return
        now_s = self._clock.monotonic_s()
        passed_ns = round((now_s - self._since_s) * 1e9)
        self._since_s = now_s
        self._used.wall_ns += passed_ns
        self._unpaid_wall_ns += passed_ns

    @contextmanager
    def _standing(self) -> Iterator[None]:
        """What passes in here is no time at work."""
        self._note_time()
        was, self._since_s = self._since_s, None
        try:
            yield
        finally:
            self._since_s = None if was is None else self._clock.monotonic_s()

    # --- more than it claimed -----------------------------------------------------------------

    def breach(self, memory_bytes: int = 0) -> Breach | None:
        """What of its claim it is over, if something is to be done about it.

        Args:
            memory_bytes: What the worker that runs its code takes now.
        """
        remedy = self._remedy
        if remedy is None:
            return None
        if memory_bytes > self._memory_bytes:
            # To wait gives no memory back.
            harder = OnBreach.SUSPEND if remedy is OnBreach.THROTTLE else remedy
            return Breach("memory", memory_bytes, self._memory_bytes, harder)
        now_s = self._clock.monotonic_s()
        over, rate = self._cpu.over(now_s), self._cpu.rate
        if over > 0:
            claimed = rate * WINDOW_S
            return Breach("cpu", round((claimed + over) / 1e6), round(claimed / 1e6), remedy)
        if self._bytes is not None and (over := self._bytes.over(now_s)) > 0:
            claimed = self._bytes.rate * WINDOW_S
            return Breach("bytes", round(claimed + over), round(claimed), remedy)
        return None

    async def act(self, breach: Breach) -> None:
        """Do what is to be done about a breach, or say that it is; once in a window of each kind."""
        now_s = self._clock.monotonic_s()
        last_s = self._told_s.get(breach.what)
        if last_s is not None and now_s - last_s < WINDOW_S:
            return
        self._told_s[breach.what] = now_s
        await self._act(breach)

    async def _stand(self, breach: Breach) -> None:
        """At an effect boundary: wait, or be suspended or stopped."""
        await self.act(breach)
        now_s = self._clock.monotonic_s()
        if breach.remedy is OnBreach.THROTTLE:
            wait_s = max(self._cpu.wait_s(now_s), 0.0 if self._bytes is None else self._bytes.wait_s(now_s))
            with self._standing():
                await self._wait(wait_s)
            return
        # Suspended, its turn says so; stopped, the next checkpoint does. When it goes on, it begins with its whole share.
        self._cpu.forgive(now_s)
        if self._bytes is not None:
            self._bytes.forgive(now_s)
        await anyio.lowlevel.checkpoint()
