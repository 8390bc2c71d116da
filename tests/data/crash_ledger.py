"""Agents whose runtime is killed with SIGKILL at named points around their effects, again and again, until all have ended.

crash_ledger.py FOLDER POINTS RUNS EFFECTS KILLS SEED, a JSON line back. POINTS are tried in turn, one in each life, at a
random passing; `time` kills at a random moment. Each life is a fork with a whole runtime. What is called counts in a
process of its own (`symbi.testing.counting`). Effects are of a tool that is idempotent by our key, of one that is not
and can be asked what happened, and of one that is not and of which a person must say it.
"""

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import anyio

from symbi.adapters.sqlite import SqliteReader
from symbi.agent.journal import RunState
from symbi.audit.event import parse_event
from symbi.audit.verify import verify_trail
from symbi.config import load_settings
from symbi.runtime.doubt import Doubt, Word
from symbi.testing.counting import CountingService
from symbi.testing.runtime import open_in
from symbi.testing.servers import in_place_of, simulated
from symbi.tools.port import RawToolResult
from symbi.types import RunId
from symbi.wiring import verifying_keys

TOOLS = ("add", "pay", "send")
AGENT = """
agent worker(me: String, effects: int) -> int {
    capabilities = ["svc.add", "svc.pay", "svc.send", "svc.find"]
    with sandbox = interpreter, timeout = 600.seconds {
        let done = 0;
        for n in range(effects) {
            let about = format("{}:{}", me, n);
            if n % 3 == 0 { tool("svc.add", about = about); }
            else if n % 3 == 1 { tool("svc.pay", about = about); }
            else { tool("svc.send", about = about); }
            done = done + 1;
        }
        done
    }
}
"""
CONFIG = """
[mcp]
tool_verification = "tofu"
[mcp.servers.svc]
command = ["none"]
manifest = "svc.toml"
[limits]
cpu_cores = 64.0
memory_mb = 65536
steps = 1000000
[runtime]
max_concurrent_agents = 100
log_level = "error"
"""
MANIFEST = """
[server]
name = "svc"
[tools.find]
recovery = "read-only"
[tools.add]
recovery = "idempotent"
[tools.send]
recovery = "never-retry"
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
MOMENT_S = 0.02  # a life that is killed at a random moment lasts up to this long after a random call
PASSES = {
    "run_ending": 5,
    "run_ended": 5,
    "committing": 60,
    "committed": 60,
    "appended": 60,
    "looked_up": 1,
    "concluding": 1,
    "concluded": 1,
}
"""How many passings of a point a life has at most before it is killed; of the others, as many as leave room for the kills."""


@dataclass
class Plan:
    """What is done: so many agents, each with so many effects, in lives that end at points."""

    folder: Path
    points: list[str]
    runs: int
    effects: int
    kills: int
    service: CountingService
    ids: list[RunId] = field(default_factory=list)

    @property
    def tools(self) -> tuple[str, ...]:
        """What is called, in turn; where a look-up is to be killed, only what can be looked up."""
        return TOOLS if len(self.points) == 1 else ("pay",) * len(TOOLS)

    @property
    def agent(self) -> str:
        text = AGENT
        for name, called in zip(TOOLS, self.tools, strict=True):
            text = text.replace(f'tool("svc.{name}"', f'tool("svc.{called}"')
        return text

    @property
    def operations(self) -> int:
        return self.runs * self.effects


def crash_at(point: str, number: int):
    passed = 0

    def probe(name: str) -> None:
        nonlocal passed
        if name == point:
            passed += 1
            if passed >= number:
                os.kill(os.getpid(), signal.SIGKILL)

    return probe


def server(plan: Plan, probe):
    def tool(name):
        async def call(values, effect_id):
            request = {
                "name": name,
                "key": values["key"] if name == "find" else effect_id,
                "about": values.get("about", ""),
            }
            answer = plan.service.ask(request, partial(probe, "called") if name != "find" else lambda: None)
            probe("answered" if name != "find" else "looked_up")
            return RawToolResult("", answer, is_error=False)

        return call

    return {"svc": simulated("svc", {name: tool(name) for name in (*TOOLS, "find")})}


async def live(plan: Plan, probe) -> None:
    """One life: a person settles what they must, and all runs that are not over go on."""
    with in_place_of(server(plan, probe)):
        async with open_in(plan.folder, plan.agent, config=CONFIG, policies=POLICY, probe=probe) as one:
            doubt = Doubt(one.runtime.rooms)
            for effect in await doubt.listed():
                if effect.resource.endswith(".send"):
                    seen = plan.service.ask({"name": "find", "key": effect.effect_id})["status"] == "seen"
                    await doubt.settle(
                        effect.effect_id, Word(seen, "person", "looked", {"done": True} if seen else None)
                    )
            spec = one.compiled.agents[0]

            async def go(number: int, run_id: RunId) -> None:
                record = one.runtime.rooms.runs.get_run(run_id)
                inputs = {"me": str(number), "effects": plan.effects}
                if record is None:
                    await one.runtime.run(one.compiled, spec, inputs, run_id=run_id, instance=str(number))
                elif record.state in {RunState.RUNNING, RunState.HELD}:
                    await one.runtime.resume(one.compiled, spec, record)

            async with anyio.create_task_group() as tasks:
                for number, run_id in enumerate(plan.ids):
                    tasks.start_soon(go, number, run_id)


def one_life(plan: Plan, point: str, chance: random.Random, *, last: bool) -> bool:
    """Whether a life came to its end by itself."""
    most = PASSES.get(point, max(2, 2 * plan.operations // (plan.kills + 1)))
    number, moment_s = chance.randint(1, most), chance.uniform(0.0, MOMENT_S)
    child = os.fork()
    if child == 0:
        probe = crash_at("" if last or point == "time" else point, number)
        anyio.run(live, plan, probe)
        os._exit(0)
    status = None
    if point == "time" and not last:
        wanted = sum(plan.service.counts().values()) + number
        while status is None and sum(plan.service.counts().values()) < wanted:
            ended, found = os.waitpid(child, os.WNOHANG)
            status = found if ended else None
            time.sleep(0.002)
        if status is None:
            time.sleep(moment_s)
            os.kill(child, signal.SIGKILL)
    if status is None:
        _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        assert os.WEXITSTATUS(status) == 0, f"a life ended with {status}"
        return True
    assert os.WTERMSIG(status) == signal.SIGKILL
    plan.service.ask({"name": "find", "key": "none"})  # what was sent before is over once this is answered
    return False


def main() -> None:
    folder, points, runs, effects, kills, seed = sys.argv[1:]
    chance = random.Random(int(seed))
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    (place / "svc.toml").write_text(MANIFEST)
    service = CountingService(place / "svc.sock")
    plan = Plan(place, points.split(","), int(runs), int(effects), int(kills), service)
    plan.ids = [RunId(f"00000000-0000-7000-8000-{number:012d}") for number in range(plan.runs)]
    killed = life = 0
    fell: Counter[str] = Counter()
    while not one_life(plan, plan.points[life % len(plan.points)], chance, last=killed >= plan.kills):
        fell[plan.points[life % len(plan.points)]] += 1
        killed += 1
        life += 1
        assert killed <= plan.kills, "it does not end"
    print(json.dumps({"kills": killed, "killed_at": dict(fell), **judged(plan)}))
    service.close()


def judged(plan: Plan) -> dict:
    """What came out: by the service's count, by the ledger, and by the trail, which must verify."""
    counts = plan.service.counts()
    wanted = {f"{plan.tools[n % 3]} {me}:{n}" for me in range(plan.runs) for n in range(plan.effects)}
    (place := plan.folder / "symbi.toml").write_text(CONFIG)
    with SqliteReader(plan.folder / ".symbi") as reader:
        verify_trail(reader.read(1), reader.head_record(), verifying_keys(load_settings(place)))
        events = [parse_event(stored.record) for stored in reader.read(1)]
        records = [record for run_id in plan.ids for record in reader.effects_of(run_id)]
        states = Counter(reader.get_run(run_id).state.value for run_id in plan.ids)
    ended = Counter(
        event.run_id for event in events if event.event_type == "run.finished" and event.details["state"] == "finished"
    )
    known = {record.effect_id: record for record in records}
    unknown = [e for e in events if e.event_type == "effect.unknown" and e.details["effect_id"] in known]
    return {
        "operations": len(wanted),
        "lost": len(wanted - counts.keys()),
        "duplicates": sum(count > 1 for what, count in counts.items() if what in wanted),
        "strange": len(counts.keys() - wanted),
        "effects": dict(Counter(record.state.value for record in records)),
        "unknown": len(unknown),
        "unsettled": sum(known[e.details["effect_id"]].state.value not in {"confirmed", "reconciled"} for e in unknown),
        "reconciled": sum(e.event_type == "effect.reconciled" for e in events),
        "runs": dict(states),
        "ended": sorted(set(ended.values())),
    }


if __name__ == "__main__":
    main()
