"""SCHED-7: what a runtime costs whose agents have nothing to do."""

import resource
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Final

import anyio

from symbi.bench.machine import describe_file_system
from symbi.bench.measure import Measurement, Scale, Target, single
from symbi.errors import InternalError
from symbi.runtime.course import Order
from symbi.runtime.host import Host
from symbi.testing.runtime import open_in

IDLE_S: Final = 60.0
SETTLE_S: Final = 5.0  # after the last work, for what follows it
AGENTS: Final = 10_000
WORKED: Final = 100  # of them have carried out a message before
_CONFIG: Final = """\
[limits]
memory_mb = 100000
cpu_cores = 1000.0
[agents.idle]
mode = "persistent"
"""
_POLICIES: Final = "permit (principal, action, resource);"
_AGENT: Final = """\
agent idle(n: int) -> int { with sandbox = interpreter, memory = "1MB" { log("at work"); n } }
schedule yearly { cron = "0 0 1 1 *" agent = "nobody" }
agent nobody() -> int { with sandbox = interpreter { 7 } }
"""


async def idle(scale: Scale) -> list[Measurement]:
    """Processor time over wall time while nothing is due, beside agents that live and wait."""
    agents, seconds = scale.of(AGENTS, least=20), max(1.0, IDLE_S * scale.factor)
    with tempfile.TemporaryDirectory(prefix="symbi-bench-") as folder:
        on = describe_file_system(Path(folder))
        async with (
            open_in(Path(folder), _AGENT, config=_CONFIG, policies=_POLICIES) as running,
            anyio.create_task_group() as tasks,
        ):
            runtime, spec = running.runtime, next(one for one in running.compiled.agents if one.id == "idle")
            host = Host(runtime, [running.compiled])
            tasks.start_soon(host.run)
            names = await runtime.spawn(Order(running.compiled, spec), [str(number) for number in range(agents)])
            for name in names[:WORKED]:
                await runtime.send(name, {"n": 1})
            await anyio.sleep(SETTLE_S)
            if runtime.dispatch.done != len(names[:WORKED]):
                msg = f"{runtime.dispatch.done} messages were carried out, not {len(names[:WORKED])}"
                raise InternalError(msg)
            before, begun = resource.getrusage(resource.RUSAGE_SELF), perf_counter()
            await anyio.sleep(seconds)
            after, took_s = resource.getrusage(resource.RUSAGE_SELF), perf_counter() - begun
            host.stop()
    spent_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    method = (
        f"open runtime, durable store on {on}, a host with a schedule that is not due; its agents live and wait, after {WORKED} of"
        f" them have carried out a message; processor time of the process over wall time in {took_s:.0f} s; it woke"
        f" {after.ru_nvcsw - before.ru_nvcsw:,} times"
    )
    target = Target(0.5, at_least=False, note="ours, of one core; seed < 2 %")
    metric = f"processor time beside {agents:,} idle agents"
    return [single("SCHED-7", metric, spent_s / took_s * 100, unit="%", n=agents, target=target, method=method)]
