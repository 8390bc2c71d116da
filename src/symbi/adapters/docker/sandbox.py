"""The container tiers on a Docker Engine: tier 1 by runc, tier 2 by gVisor's runsc.

Each run has a container of its own, removed after it, and made for it or, where some are kept ready, before it. What a container may do is said in one place
(`container`), and each is looked at from inside before any code is handed over (`probe`). Unlike the interpreter's, this
world is real: clocks run, random generators are random. There are files in /tmp, and processes; there is no network,
but for a program that was granted one, which gets it through its frames (`lines`).
"""

import json
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import anyio

from symbi.adapters.docker.cell import Cell, open_cell
from symbi.adapters.docker.container import (
    LABEL_EFFECT,
    LABEL_RUN,
    LABEL_WARM,
    MIB,
    RUNTIME_MIB,
    DockerOptions,
    cpus_for,
    inner_limits,
)
from symbi.adapters.docker.engine import Engine
from symbi.adapters.docker.program import Due, check_image, run_program
from symbi.adapters.docker.usage import ContainerUse
from symbi.clock import Clock, SystemClock
from symbi.errors import (
    CodeFailed,
    MemoryLimit,
    OutputLimit,
    Overloaded,
    Place,
    SandboxUnavailable,
    StepLimit,
    SymbiError,
    TimeLimit,
)
from symbi.guard.action import ExecuteCode, RunContainer
from symbi.guard.permit import Authority, Permit
from symbi.sandbox.command import check_command
from symbi.sandbox.pool import WHAT_TO_INSTALL
from symbi.sandbox.port import CommandResult, Egress, SandboxResult, SandboxWatch
from symbi.sandbox.request import CODE_FILE, VALUE_BOUNDS, check_request, plain_inputs
from symbi.sandbox.values import copy_json, has_more_parts
from symbi.sandbox.warm import WarmPool
from symbi.tools.text import printable
from symbi.types import JsonValue, SecurityTier

GRACE_S: Final = 3.0  # what the runner gets to end a run by itself before its container is killed
WAIT_TIMEOUT_S: Final = 30.0  # waiting for a place
RETRY_AFTER_S: Final = 1.0
ESCAPED: Final = 6  # how much longer JSON makes a text at most
MAX_TOLD_BYTES: Final = ESCAPED * VALUE_BOUNDS.max_bytes + 4096
MAX_FRAME_BYTES: Final = 2 * MAX_TOLD_BYTES  # the text of a text: quotes and backslashes once more
MAX_MESSAGE_CHARS: Final = 300


class _Size(NamedTuple):
    """What tells one kind of container of a tier from another."""

    memory_mib: int
    cpus: float


class DockerSandbox:
    """A `symbi.sandbox.port.SandboxDriver` of a container tier.

    The engine is asked when there is something to run, not before: a runtime opens without one.

    Args:
        authority: Where permits are redeemed.
        tier: `TIER1` or `TIER2`.
        engine: The engine; who made it closes it.
        options: How containers are made.
        clock: Measures how long runs take.
        egress: Grants networks to programs; without it none has one.
        watch: Is told of the container that runs the code of a run.
    """

    def __init__(
        self,
        authority: Authority,
        tier: SecurityTier,
        engine: Engine,
        options: DockerOptions,
        clock: Clock | None = None,
        egress: Egress | None = None,
        watch: SandboxWatch | None = None,
    ) -> None:
        self._authority = authority
        self._egress = egress
        self._tier = tier
        self._engine = engine
        self._options = options
        self._clock = clock or SystemClock()
        self._use = ContainerUse(engine, RUNTIME_MIB[tier] * MIB, watch)
        self._places = anyio.Semaphore(options.at_once)
        self._ready = False
        self._pool: WarmPool[_Size, Cell] = WarmPool(
            self._ready_made,
            Cell.is_fit,
            size=options.warm,
            first=_Size(options.warm_memory_mib, options.cpus),
            clock=self._clock,
        )

    @property
    def tier(self) -> SecurityTier:
        """The tier that this driver provides."""
        return self._tier

    async def __aenter__(self) -> Self:
        """Begin to start what is kept ready; nobody waits for it."""
        await self._pool.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what is kept ready; each run has removed its container itself."""
        await self._pool.__aexit__(kind, error, trace)

    async def filled(self) -> None:
        """Wait until as many containers are ready as are kept so."""
        await self._pool.filled()

    async def check(self) -> Mapping[str, JsonValue]:
        """See whether the tier can be provided: the engine answers, has the runtime and the image.

        Returns:
            What the engine says of itself.

        Raises:
            SandboxUnavailable: It cannot; the message says what is missing, and the hint what to do.
        """
        version = await self._engine.version()
        await self._check_runtime()
        await check_image(self._engine, self._options.image)
        self._ready = True
        return {"engine": str(version.get("Version", "")), "api": str(version.get("ApiVersion", ""))}

    async def _check_runtime(self) -> None:
        runtimes = (await self._engine.info()).get("Runtimes")
        known = sorted(runtimes) if isinstance(runtimes, dict) else []
        if self._options.runtime not in known:
            msg = f"the engine has no runtime `{self._options.runtime}` for tier `{self._tier}`, but {', '.join(known) or 'none'}"
            raise SandboxUnavailable(
                msg, code="unavailable.runtime", hint=WHAT_TO_INSTALL[self._tier], tier=self._tier.value
            )

    def _ready_made(self, size: "_Size") -> AbstractAsyncContextManager[Cell]:
        options = replace(self._options, cpus=size.cpus)
        return open_cell(self._engine, options, self._tier, {LABEL_WARM: "1"}, memory_mib=size.memory_mib)

    async def run(self, permit: Permit[ExecuteCode]) -> SandboxResult:
        """Run the permit's code in a container of its own; see the port."""
        action = self._authority.redeem(permit, ExecuteCode)
        check_request(action, self._tier)
        request = self._request(action)
        labels = {LABEL_EFFECT: str(permit.effect_id), LABEL_RUN: str(action.run_id)}
        await self._take_place()
        try:
            if not self._ready and not self._pool.waiting:
                await self.check()
            size = _Size(action.memory_mib, cpus_for(self._options, action.cpu_milli))
            cold = partial(
                open_cell, self._engine, replace(self._options, cpus=size.cpus), self._tier, labels,
                memory_mib=size.memory_mib, tell=partial(permit.note, "sandbox"),
            )  # fmt: skip
            async with self._pool.take(size, cold) as (cell, warm):
                permit.note("sandbox", {**cell.facts, "warm": warm})
                started_s = self._clock.monotonic_s()
                answer: bytes | None = None
                async with self._use.measured(action.run_id, cell.name):
                    with anyio.move_on_after(action.timeout_s + GRACE_S):
                        answer = await cell.ask(request, MAX_FRAME_BYTES + ESCAPED * self._options.output_bytes)
                took_s = self._clock.monotonic_s() - started_s
        except SandboxUnavailable as error:
            self._ready = self._ready and not error.code.startswith("unavailable.engine")
            raise
        finally:
            self._places.release()
        if answer is None:
            raise _time_limit(action)
        value, stdout = _answer(answer, action, self._options.output_bytes)
        return SandboxResult(value, stdout, took_s)

    async def run_command(self, permit: Permit[RunContainer]) -> CommandResult:
        """Run the permit's program in a container of its own; see `symbi.sandbox.port.CommandSandbox`.

        The permit is redeemed when the program is about to begin: an engine, an image or a name that is not there leaves
        nobody in doubt whether it ran.
        """
        action = self._authority.check(permit, RunContainer)
        begin = partial(self._authority.redeem, permit, RunContainer)
        if not self._authority.uses_left(permit):
            begin()  # is refused
        check_command(action, self._tier, self._options.images, self._options.variables)
        await self._take_place()
        try:
            options = replace(self._options, cpus=cpus_for(self._options, action.cpu_milli))
            due = Due(permit, action, begin)
            return await run_program(self._engine, options, due, self._clock, self._use, self._egress)
        except SandboxUnavailable as error:
            if error.code == "unavailable.image":
                await self._check_runtime()  # where there is none, no image is to blame
            raise
        finally:
            self._places.release()

    async def _take_place(self) -> None:
        try:
            with anyio.fail_after(WAIT_TIMEOUT_S):
                await self._places.acquire()
        except TimeoutError:
            msg = f"no place for a sandbox became free within {WAIT_TIMEOUT_S:g} s"
            raise Overloaded(msg, retry_after_s=RETRY_AFTER_S) from None

    def _request(self, action: ExecuteCode) -> dict[str, Any]:
        bounds = VALUE_BOUNDS
        return {
            "code": action.code,
            "inputs": plain_inputs(action.inputs),
            "timeout_s": action.timeout_s,
            "limits": inner_limits(self._options, self._tier, action.memory_mib),
            "env": sorted(self._options.env),
            "bounds": [bounds.max_bytes, bounds.max_items, bounds.max_depth],
            "most_printed": self._options.output_bytes,
            "most_answer": MAX_TOLD_BYTES,
        }


def _answer(data: bytes, action: ExecuteCode, most_printed: int) -> tuple[JsonValue, str]:
    """The value and what was printed, out of an answer that may be anything."""
    answer = _decoded(data)
    match answer.get("kind"):
        case "time":
            raise _time_limit(action)
        case "printed":
            msg = f"the code printed more than {most_printed} bytes"
            raise OutputLimit(msg, max_bytes=most_printed)
        case "died":
            raise _death(answer, action)
        case "told" if isinstance(answer.get("told"), str) and isinstance(answer.get("stdout"), str):
            told = _decoded(answer["told"].encode("utf-8", "surrogatepass"))
            stdout: str = answer["stdout"][:most_printed]
            return _told(told, action), stdout.encode("utf-8", "replace").decode("utf-8")
        case _:
            raise _no_answer()


def _told(told: Mapping[str, Any], action: ExecuteCode) -> JsonValue:
    """What the process of the code says of its end: it is the code's own word, and bounded as such."""
    kind, said, place = told.get("kind"), _short(told.get("message")), _place(told.get("place"))
    exception = _short(told.get("exception")) or "an exception"
    match kind:
        case "value":
            return copy_json(told.get("value"), VALUE_BOUNDS, wrong=CodeFailed, large=OutputLimit)
        case "wrong":
            raise CodeFailed(f"the value of the code cannot be taken: {said}")
        case "large":
            raise OutputLimit(f"what the code gives is too large: {said}", max_bytes=VALUE_BOUNDS.max_bytes)
        case "syntax":
            raise CodeFailed(f"the code does not parse: {said}", place=place, exception="SyntaxError")
        case "memory":
            raise _memory_limit(action, place)
        case "depth":
            raise StepLimit("the code called itself too deeply", place=place)
        case "raised":
            raise CodeFailed(f"the code raised `{exception}: {said}`", place=place, exception=exception)
        case _:
            raise CodeFailed("what the code's process says of its end is no answer")


def _death(answer: Mapping[str, Any], action: ExecuteCode) -> SymbiError:
    """Of a process that ended without a word."""
    status = answer.get("status")
    kills = answer.get("oom")
    if isinstance(kills, int) and kills > 0:
        return _memory_limit(action, None)
    status = status if isinstance(status, int) else 0
    how = f"was ended by signal {status & 0x7F}" if status & 0x7F else f"ended itself with exit code {status >> 8}"
    return CodeFailed(f"the code's process {how} before it gave a value", exception="SystemExit")


def _decoded(data: bytes) -> Mapping[str, Any]:
    """JSON from a sandbox: an object, and no more parts in it than a value may have, else nothing is parsed."""
    if has_more_parts(data, 2 * VALUE_BOUNDS.max_items):
        msg = f"the value has more than {VALUE_BOUNDS.max_items} parts"
        raise OutputLimit(msg, max_items=VALUE_BOUNDS.max_items)
    try:
        told = json.loads(data)
    except RecursionError:
        msg = f"the value nests deeper than {VALUE_BOUNDS.max_depth}"
        raise CodeFailed(msg) from None
    except ValueError:
        raise _no_answer() from None
    if not isinstance(told, dict):
        raise _no_answer()
    return told


def _no_answer() -> SandboxUnavailable:
    return SandboxUnavailable("what the sandbox says is no answer", code="unavailable.sandbox_answer")


def _time_limit(action: ExecuteCode) -> TimeLimit:
    return TimeLimit(f"the code ran longer than {action.timeout_s:g} s", timeout_s=action.timeout_s)


def _memory_limit(action: ExecuteCode, place: Place | None) -> MemoryLimit:
    return MemoryLimit(f"the code needed more than {action.memory_mib} MiB", place=place, memory_mib=action.memory_mib)


def _place(told: object) -> Place | None:
    match told:
        case [int(line), int(column)] if 0 < line < 2**31 and 0 < column < 2**31:
            return Place(CODE_FILE, line, column)
        case _:
            return None


def _short(told: object) -> str:
    if not isinstance(told, str):
        return ""
    text = printable(" ".join(told[: 2 * MAX_MESSAGE_CHARS].split())).replace("`", "'")
    return text[:MAX_MESSAGE_CHARS]
