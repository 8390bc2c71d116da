"""Agents that stay carry out messages while their process is killed again and again: crash_storm.py FOLDER AGENTS MESSAGES KILLS SPAN SEED.

Each life is a fork with a whole runtime as `symbi up` has it; SPAN is about how many seconds one lasts from its first message on, or the name of a
point at some passing of which it ends. What is called counts
in a process of its own. The last life is left alone until the mailboxes are empty. A JSON line says what came out.
"""

import json
import os
import random
import select
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import anyio

from symbi.adapters.sqlite import SqliteReader
from symbi.audit.event import parse_event
from symbi.audit.verify import verify_trail
from symbi.config import load_settings
from symbi.guard.gate import no_probe
from symbi.runtime.course import Order
from symbi.runtime.host import Host
from symbi.testing.counting import CountingService
from symbi.testing.runtime import open_in
from symbi.testing.servers import in_place_of, simulated
from symbi.tools.port import RawToolResult
from symbi.wiring import verifying_keys

AGENT = """
agent worker(task: int) -> int {
    capabilities = ["svc.add", "svc.pay", "svc.find"]
    with sandbox = interpreter, timeout = 600.seconds {
        tool("svc.add", about = format("{}", task));
        tool("svc.pay", about = format("{}", task));
        tool("svc.add", about = format("{}+", task));
        task
    }
}
"""
CONFIG = """
[agents.worker]
mode = "persistent"
[mcp]
tool_verification = "tofu"
[mcp.servers.svc]
command = ["none"]
manifest = "svc.toml"
[limits]
cpu_cores = 10000.0
memory_mb = 10000000
[runtime]
max_concurrent_agents = 200
log_level = "error"
"""
MANIFEST = """
[server]
name = "svc"
[tools.find]
recovery = "read-only"
[tools.add]
recovery = "idempotent"
[tools.pay]
recovery = "reconcilable"
[tools.pay.query]
tool = "find"
arguments = { key = "$effect" }
field = "status"
happened = ["seen"]
not_happened = ["absent"]
after_s = 0
"""
POLICY = '@id("all") permit (principal, action, resource);'
LOOK_S = 0.2  # between two looks whether all is done
STUCK_S = 300.0  # a last life that takes longer is stuck


def server(service: CountingService):
    def tool(name):
        async def call(values, effect_id):
            request = {
                "name": name,
                "key": values["key"] if name == "find" else effect_id,
                "about": values.get("about", ""),
            }
            return RawToolResult("", service.ask(request), is_error=False)

        return call

    return {"svc": simulated("svc", {name: tool(name) for name in ("add", "pay", "find")})}


async def live(folder: Path, service: CountingService, probe, begin=None) -> None:
    """One life: until all is done, where nobody ends it before."""
    with in_place_of(server(service)):
        async with open_in(folder, AGENT, config=CONFIG, policies=POLICY, hold_s=None, probe=probe) as one:
            if begin is not None:
                await begin(one)
                return
            host = Host(one.runtime, [one.compiled])
            rooms = one.runtime.rooms
            with anyio.fail_after(STUCK_S):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(host.run)
                    left = 1
                    while left:
                        await anyio.sleep(LOOK_S)
                        left = await rooms.world.log.read(
                            lambda: rooms.mailbox._db.execute("SELECT count(*) FROM mailbox").fetchone()[0]
                        )
                    host.stop()


def crash_at(point: str, number: int):
    passed = 0

    def probe(name: str) -> None:
        nonlocal passed
        passed += name == point
        if passed >= number:
            os.kill(os.getpid(), signal.SIGKILL)

    return probe


def tell_at(point: str, pipe: int):
    """Write to a pipe whenever a point is passed: slow machines come to it, too, before the life is over."""

    def probe(name: str) -> None:
        if name == point:
            os.write(pipe, b".")

    return probe


def one_life(folder: Path, service: CountingService, span_s: float | None, begin=None, probe=no_probe) -> bool:
    """Whether a life came to its end by itself; it is killed after a while if that is given."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        anyio.run(live, folder, service, probe if span_s is None else tell_at("claimed", writing), begin)
        os._exit(0)
    os.close(writing)
    if span_s is not None:
        select.select([reading], [], [], 60)
        time.sleep(span_s)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(reading)
    service.ask({"name": "find", "key": "none"})  # what was sent before is over once this is answered
    if os.WIFSIGNALED(status):
        return False
    assert os.WEXITSTATUS(status) == 0, f"a life ended with {status}"
    return True


def main() -> None:
    place, agents, messages, kills, span, seed = sys.argv[1:]
    chance, folder = random.Random(int(seed)), Path(place)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "svc.toml").write_text(MANIFEST)
    service = CountingService(folder / "svc.sock")
    tasks = int(agents) * int(messages)

    async def begin(one) -> None:
        order = Order(one.compiled, one.compiled.agents[0])
        names = await one.runtime.spawn(order, [str(number) for number in range(int(agents))])
        limit = anyio.CapacityLimiter(100)

        async def send(number: int) -> None:
            async with limit:
                await one.runtime.send(names[number % len(names)], {"task": number})

        async with anyio.create_task_group() as group:
            for number in range(tasks):
                group.start_soon(send, number)

    assert one_life(folder, service, None, begin)
    killed = 0
    while killed < int(kills):
        if span.isidentifier():
            probe = crash_at(span, chance.randint(1, max(1, tasks // int(kills))))
            ended = one_life(folder, service, None, probe=probe)
        else:
            ended = one_life(folder, service, chance.uniform(0.2, 1.8) * float(span))
        if ended:
            break
        killed += 1
    one_life(folder, service, None)
    print(json.dumps({"kills": killed, "tasks": tasks, **judged(folder, service, tasks)}))
    service.close()


def judged(folder: Path, service: CountingService, tasks: int) -> dict:
    """What came out: by the service's count, by the books, and by the trail, which must verify."""
    counts = service.counts()
    wanted = {f"{name} {n}{more}" for n in range(tasks) for name, more in (("add", ""), ("pay", ""), ("add", "+"))}
    (settings := folder / "symbi.toml").write_text(CONFIG)
    with SqliteReader(folder / ".symbi") as reader:
        verify_trail(reader.read(1), reader.head_record(), verifying_keys(load_settings(settings)))
        events = [parse_event(stored.record) for stored in reader.read(1)]
        runs = reader.runs(10 * tasks)
        one = reader._use
        letters, mail = (
            one(lambda db, t=t: db.execute(f"SELECT count(*) FROM {t}").fetchone()[0])
            for t in ("dead_letters", "mailbox")
        )
        agents = dict(one(lambda db: db.execute("SELECT state, count(*) FROM agents GROUP BY state").fetchall()))
        effects = dict(one(lambda db: db.execute("SELECT state, count(*) FROM effects GROUP BY state").fetchall()))
    ended = Counter(e.run_id for e in events if e.event_type == "run.finished" and e.details["state"] == "finished")
    return {
        "lost": len(wanted - counts.keys()),
        "duplicates": sum(count > 1 for what, count in counts.items() if what in wanted),
        "strange": len(counts.keys() - wanted),
        "runs": dict(Counter(run.state.value for run in runs)),
        "ended": sorted(set(ended.values())),
        "resumed": sum(e.event_type == "run.resumed" for e in events),
        "unknown": sum(e.event_type == "effect.unknown" for e in events),
        "reconciled": sum(e.event_type == "effect.reconciled" for e in events),
        "effects": effects,
        "letters": letters,
        "mail": mail,
        "agents": agents,
        "events": len(events),
    }


if __name__ == "__main__":
    main()
