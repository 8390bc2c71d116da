"""SCHED-2 and LIFE-6: a great many agents that live at once, each with work that is counted, and what one that waits takes.

Each part is measured in a process of its own, so that nothing that was measured before leaves memory to it. What the
totals are is asked of the store, from outside: a plain connection counts effects, events and outputs.
"""

import gc
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from time import perf_counter_ns
from typing import Final

import anyio
import anyio.to_process

from symbi.bench.machine import describe_file_system, resident_bytes
from symbi.bench.measure import Measurement, Scale, Target, latency, rate, single
from symbi.errors import InternalError
from symbi.runtime.course import Order
from symbi.runtime.lifecycle import AgentState, Event
from symbi.runtime.runtime import Runtime
from symbi.testing.runtime import open_in
from symbi.types import AgentId

ALIVE: Final = 100_000
KNOWN: Final = 1_000_000
WOKEN: Final = 10_000
CYCLES: Final = 10
OF_A_CYCLE: Final = 10_000
AT_WORK: Final = 256  # seats: agents at work at a time
SENDERS: Final = 64  # messages that are under way into mailboxes at a time
SETTLED: Final = 3  # cycles after which caches have the size that they keep
AWAKE: Final = 1_000  # agents in memory, where all others are passivated
KIB: Final = 1024

_AGENT: Final = """\
agent worker(n: int) -> int {
    with sandbox = interpreter, memory = "1MB" { log("begun"); random(); log(str(n)); n }
}
"""
_EFFECTS: Final = {"WriteLog": 2, "DrawRandom": 1, "AllocateResources": 1}  # of each message, by action
_EVENTS: Final = {"run.started": 1, "decision.allow": 3, "effect.outcome": 3, "run.finished": 1, "agent.transition": 2}
_POLICIES: Final = "permit (principal, action, resource);"
_CONFIG: Final = """\
[runtime]
max_concurrent_agents = {at_work}
max_living_agents = {living}
[limits]
memory_mb = 100000
cpu_cores = 1000.0
[agents.worker]
mode = "persistent"
"""
_OPEN: Final = (
    "an open runtime, all permitted by one policy, durable store on {on}, every decision and outcome on the trail"
)


@dataclass(frozen=True, slots=True)
class Counted:
    """What one part has measured, in a process of its own.

    Attributes:
        on: Kind of file system of the store.
        took_ns: How long what is measured took.
        bytes: What the process takes, each time that it was looked at.
        samples_ns: Durations of single things.
        wrong: What is not as it has to be; empty where all is.
    """

    on: str
    took_ns: int = 0
    bytes: tuple[int, ...] = ()
    samples_ns: tuple[int, ...] = ()
    wrong: str = ""


async def population(scale: Scale) -> list[Measurement]:
    """Agents alive and at work, agents that come and go, agents that are known and woken."""
    alive, each = scale.of(ALIVE, least=100), scale.of(OF_A_CYCLE, least=30)
    known, woken = scale.of(KNOWN, least=1_000), scale.of(WOKEN, least=30)
    work = await _apart(partial(_run, partial(_alive, alive)))
    cycles = await _apart(partial(_run, partial(_cycles, each)))
    wake = await _apart(partial(_run, partial(_wake, known, woken)))
    opened = _OPEN.format(on=work.on)
    worked = (
        f"{opened}; {alive:,} agents are made and live at once; each is sent one message and carries it out as one run with three"
        f" effects of its body and one decision on its resources, {AT_WORK} at a time; counted in the store: effects, events, runs"
        " and the sum of their outputs are exact, nothing is in doubt or open (permits, leases), the pool is as it was; from the first sending to the last end"
    )
    grown = (
        f"{opened}; {CYCLES} times, {each:,} agents are made, carry out a message each, and are terminated; resident bytes of the"
        f" process after the last cycle over those after cycle {SETTLED}; totals are exact after each"
    )
    waking = (
        f"{opened}; {known:,} agents are known, at most {AWAKE:,} of them in memory; {woken:,} random ones are sent a message, one"
        " after the other: from the sending until its effect, read from the store meanwhile; each has answered once"
    )
    flat = 100.0 * (cycles.bytes[-1] - cycles.bytes[SETTLED - 1]) / cycles.bytes[SETTLED - 1]
    whole = scale.factor >= 1
    return [
        single("SCHED-2", "agents alive at once, each with its work done", float(alive), unit="agents", n=alive, method=worked,
               target=Target(ALIVE, at_least=True, note="ours; seed 10,000") if whole else None),
        rate("SCHED-2", "messages carried out", alive, work.took_ns, unit="messages/s", target=None, method=worked),
        single("SCHED-2", "memory with all of them alive, their work done", work.bytes[-1] / KIB**2, unit="MiB", n=alive,
               method=worked, target=None),
        single("SCHED-2", f"growth over {CYCLES} cycles of {each:,}", max(flat, 0.001), unit="%", n=CYCLES, method=grown,
               target=Target(5.0, at_least=False, note="ours") if whole else None),
        latency("SCHED-2", f"waking one of {known:,} passivated agents", wake.samples_ns, unit="ms", target=None, method=waking),
    ]  # fmt: skip


async def idle_memory(scale: Scale) -> list[Measurement]:
    """LIFE-6: what an agent that waits takes."""
    count = scale.of(ALIVE, least=2_000)
    idle = await _apart(partial(_run, partial(_idle, count)))
    before, after = idle.bytes
    method = (
        f"{_OPEN.format(on=idle.on)}; resident bytes of the process with {count:,} agents of one declaration alive and waiting (identity,"
        " mailbox, policies and labels bound, limits, a place in the pool's order), less those before they were made, over their"
        " number; after a full collection, in a process of its own"
    )
    target = Target(4.0, at_least=False, note="ours; seed 1-5 MB")
    value = max(after - before, 1) / count / KIB
    return [single("LIFE-6", "memory of an idle agent", value, unit="KiB", n=count, target=target, method=method)]


async def _apart(measure: Callable[[], Counted]) -> Counted:
    """Measure in a process of its own.

    Raises:
        InternalError: Something is not as it has to be.
    """
    counted = await anyio.to_process.run_sync(measure)
    if counted.wrong:
        msg = f"what was measured is wrong: {counted.wrong}"
        raise InternalError(msg)
    return counted


# --- in a process of its own ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stage:
    """A runtime whose agents carry out messages."""

    runtime: Runtime
    order: Order
    folder: Path
    said: dict[str, list[str]]
    heard: dict[str, anyio.Event]

    async def spawn(self, names: Iterable[str]) -> Sequence[AgentId]:
        """Agents that live."""
        return await self.runtime.spawn(self.order, tuple(names))

    async def work(self, names: Sequence[AgentId]) -> None:
        """Send each its number, and wait until all is done."""
        numbered = iter(enumerate(names))

        async def send() -> None:
            for number, name in numbered:
                await self.runtime.send(name, {"n": number})

        done = self.runtime.dispatch.done + len(names)
        await _at_once(send, SENDERS)
        await self.until(done)

    async def until(self, done: int) -> None:
        """Return once so many messages were carried out, and nobody is at work."""
        while self.runtime.dispatch.done < done or self.runtime.dispatch.busy:  # noqa: ASYNC110 - nobody is told of it
            await anyio.sleep(0.01)


@asynccontextmanager
async def _stage(folder: Path, living: int) -> AsyncIterator[Stage]:
    said: dict[str, list[str]] = {}
    heard: dict[str, anyio.Event] = {}

    def emit(agent: str, text: str) -> None:
        said.setdefault(agent, []).append(text)
        if agent in heard and text != _LOGGED:
            heard.pop(agent).set()

    config = _CONFIG.format(at_work=AT_WORK, living=living)
    async with (
        open_in(folder, _AGENT, config=config, policies=_POLICIES, emit=emit) as running,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(running.runtime.dispatch.run)
        yield Stage(running.runtime, Order(running.compiled, running.compiled.agents[0], ""), folder, said, heard)
        running.runtime.dispatch.stop()


def _run(measure: Callable[[Path], object]) -> Counted:
    with tempfile.TemporaryDirectory(prefix="symbi-bench-") as folder:

        async def measured() -> Counted:
            return await measure(Path(folder))  # type: ignore[misc,no-any-return]  # each is a coroutine function

        return anyio.run(measured)


async def _at_once(work: Callable[[], object], many: int) -> None:
    async with anyio.create_task_group() as tasks:
        for _ in range(many):
            tasks.start_soon(work)  # type: ignore[arg-type]  # a coroutine function


async def _alive(count: int, folder: Path) -> Counted:
    async with _stage(folder, count) as stage:
        before = (await stage.runtime.get_system_status()).free
        names = await stage.spawn(str(number) for number in range(count))
        alive = stage.runtime.roster.living
        begun = perf_counter_ns()
        await stage.work(names)
        took = perf_counter_ns() - begun
        taken = resident_bytes()
        wrong = _differences(
            {"alive": (alive, count), "still alive": (stage.runtime.roster.living, count)}
            | {"the pool": ((await stage.runtime.get_system_status()).free, before)}
            | _said(stage, names)
            | _totals(stage, count, sum(range(count)))
        )
    return Counted(describe_file_system(folder), took, (taken,), wrong=wrong)


async def _cycles(each: int, folder: Path) -> Counted:
    taken: list[int] = []
    wrong = ""
    async with _stage(folder, each) as stage:
        before = (await stage.runtime.get_system_status()).free
        for cycle in range(CYCLES):
            names = await stage.spawn(f"{cycle}-{number}" for number in range(each))
            await stage.work(names)
            left = iter(names)

            async def end(left: Iterable[AgentId] = left) -> None:
                for name in left:
                    await stage.runtime.roster.move(await stage.runtime.roster.find(name), Event.SHUTDOWN)

            await _at_once(end, SENDERS)
            counts = stage.runtime.roster.counts
            wrong = wrong or _differences(
                {"terminated": (counts.get(AgentState.TERMINATED), (cycle + 1) * each)}
                | {"in memory": (stage.runtime.roster.living, 0)}
                | {"the pool": ((await stage.runtime.get_system_status()).free, before)}
                | _said(stage, names)
                | _totals(stage, (cycle + 1) * each, (cycle + 1) * sum(range(each)))
            )
            stage.said.clear()
            gc.collect()
            taken.append(resident_bytes())
    return Counted(describe_file_system(folder), bytes=tuple(taken), wrong=wrong)


async def _wake(known: int, woken: int, folder: Path) -> Counted:
    samples: list[int] = []
    async with _stage(folder, min(AWAKE, known // 2)) as stage:
        names = await stage.spawn(str(number) for number in range(known))
        living = stage.runtime.roster.living
        chosen = Random(6).sample(names, woken)  # noqa: S311 - a choice, not a secret
        for number, name in enumerate(chosen):
            answered = stage.heard[name] = anyio.Event()
            begun = perf_counter_ns()
            await stage.runtime.send(name, {"n": number})
            await answered.wait()
            samples.append(perf_counter_ns() - begun)
        await stage.until(woken)
        wrong = _differences(
            {
                "in memory": (living, min(AWAKE, known // 2)),
                "known": (stage.runtime.roster.counts.get(AgentState.READY), known),
            }
            | _said(stage, chosen)
            | _totals(stage, woken, sum(range(woken)))
        )
    return Counted(describe_file_system(folder), samples_ns=tuple(samples), wrong=wrong)


async def _idle(count: int, folder: Path) -> Counted:
    async with _stage(folder, count + 1) as stage:
        await stage.spawn(["first"])  # what all of a declaration share
        gc.collect()
        before = resident_bytes()
        await stage.spawn(str(number) for number in range(count))
        gc.collect()
        after = resident_bytes()
        wrong = _differences({"alive": (stage.runtime.roster.living, count + 1)})
    return Counted(describe_file_system(folder), bytes=(before, after), wrong=wrong)


# --- totals ---------------------------------------------------------------------------------------

_LOGGED: Final = "begun"  # what is said first
_Totals = dict[str, tuple[object, object]]


def _said(stage: Stage, names: Sequence[AgentId]) -> _Totals:
    """What agents have said: each its two lines, once, and nobody else anything."""
    expected: dict[str, list[str]] = {name: [_LOGGED, str(number)] for number, name in enumerate(names)}
    wrong = {name for name in expected.keys() | stage.said.keys() if expected.get(name) != stage.said.get(name)}
    return {"agents that did not say just what they had to": (len(wrong), 0)}


def _totals(stage: Stage, runs: int, outputs: int) -> _Totals:
    """Totals as the store has them: what there is, and what there has to be."""
    found: _Totals = {"open permits and leases": (len(stage.runtime.guard.authority), 0)}
    file = next(stage.folder.rglob("symbi.db"))
    connection = sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)
    try:
        ask = connection.execute
        for action, times in _EFFECTS.items():
            rows = ask("SELECT count(*) FROM effects WHERE action = ? AND state = 'confirmed'", (action,))
            found[f"effects of {action}"] = (rows.fetchone()[0], runs * times)
        rows = ask("SELECT count(*) FROM effects WHERE state != 'confirmed' AND action != 'Canary'")
        found["effects that are open, failed or in doubt"] = (rows.fetchone()[0], 0)
        rows = ask("SELECT count(*), sum(CAST(output AS INTEGER)) FROM runs WHERE state = 'finished'")
        found["runs and the sum of their outputs"] = (rows.fetchone(), (runs, outputs))
        found["messages left"] = (ask("SELECT count(*) FROM mailbox").fetchone()[0], 0)
        for kind, times in _EVENTS.items():
            rows = ask("SELECT count(*) FROM events WHERE event_type = ? AND run_id != ''", (kind,))
            found[f"events {kind}"] = (rows.fetchone()[0], runs * times)
    finally:
        connection.close()
    return found


def _differences(totals: _Totals) -> str:
    """What is not as it has to be, in words."""
    return "; ".join(
        f"{name}: {found} instead of {wanted}" for name, (found, wanted) in totals.items() if found != wanted
    )
