"""One container with our runner in it: made, looked at from inside, given one piece of work, removed.

Whatever happens, the container is gone before an error leaves: making it cannot be cut off half-way, and removing it is
shielded from cancellation and bounded in time. What cannot be removed in that time (an engine that hangs) bears our
label, and the reaper of a later start finds it.
"""

import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Any, Final

import anyio
import anyio.lowlevel

from symbi.adapters.docker.container import DockerOptions, container_spec
from symbi.adapters.docker.engine import Engine, RawStream
from symbi.adapters.docker.lines import Lines, Serve, line_frame
from symbi.adapters.docker.probe import judge
from symbi.clock import random_bytes
from symbi.errors import CodeFailed, MemoryLimit, SandboxUnavailable, SymbiError
from symbi.sandbox.runner import runner_command
from symbi.types import JsonValue, SecurityTier

NONCE_BYTES: Final = 16
LENGTH_DIGITS: Final = 8
MAX_PROBE_BYTES: Final = 262_144
MAX_PONG_BYTES: Final = 64
MAX_STDERR_BYTES: Final = 2_048
NAME_PREFIX: Final = "symbi-"
PING_TIMEOUT_S: Final = 2.0  # for one that waits to say that it does
LAST_WORDS_S: Final = 1.0  # reading what a container that died has said
MEMORY_TOLD_S: Final = 2.0  # from an end to word of memory that ran out; less than the grace of a run
KILLED: Final = frozenset({128, 137})  # exit codes of a container that was ended from outside
REMOVE_TIMEOUT_S: Final = 20.0  # killing and removing one container, on a busy machine

_log = logging.getLogger("symbi.sandbox")


def tell_nobody(_facts: Mapping[str, JsonValue]) -> None:
    """The default of `tell`: nothing."""


class Cell:
    """A container that was looked at, and waits for its one piece of work.

    Attributes:
        name: Of the container.
        facts: What it was found to be like, for the trail.
    """

    def __init__(self, engine: Engine, stream: RawStream, name: str, nonce: bytes) -> None:
        self._engine = engine
        self._stream = stream
        self._nonce = nonce
        self._buffer = bytearray()
        self._used = False
        self.name = name
        self.facts: Mapping[str, JsonValue] = {}

    async def ask(self, request: Mapping[str, Any], most_bytes: int, serve: Serve | None = None) -> bytes:
        """Hand over the work, and give the runner's answer, which is hostile.

        Args:
            request: See `symbi.sandbox.inside.main`.
            most_bytes: Of the answer.
            serve: Talks with each line that is opened inside; without it there may be none.

        Raises:
            SandboxUnavailable: The container died, was used already, or says what is no answer.
            MemoryLimit: It died of want of memory.
        """
        if self._used:
            msg = "a sandbox takes one piece of work"
            raise SandboxUnavailable(msg)
        self._used = True
        await self._send(request)
        if serve is None:
            return await self.frame(most_bytes)
        answer: bytes | SymbiError = b""
        async with anyio.create_task_group() as tasks:
            lines = Lines(self._write, serve, tasks)
            try:
                while (frame := line_frame(answer := await self.frame(most_bytes))) is not None:
                    lines.take(frame)
            except SymbiError as error:  # as it is, not as one of a group
                answer = error
            tasks.cancel_scope.cancel("there is an answer")
        if isinstance(answer, SymbiError):
            raise answer
        return answer

    async def hand_over(self, what: Mapping[str, Any]) -> None:
        """Hand over a part of the work, before it is asked for.

        Raises:
            SandboxUnavailable, MemoryLimit: As `ask`.
        """
        await self._send(what)

    async def is_fit(self) -> bool:
        """Whether it waits for work: unused, running, and answering within a bound."""
        if self._used:
            return False
        with anyio.move_on_after(PING_TIMEOUT_S):
            try:
                await self._send({"kind": "ping"})
                return _object(await self.frame(MAX_PONG_BYTES)) == {"kind": "pong"}
            except (SandboxUnavailable, MemoryLimit):
                return False
        return False

    async def hello(self) -> None:
        """Tell the runner the nonce that its frames begin with."""
        await self._send({"nonce": self._nonce.decode()})

    async def frame(self, most_bytes: int) -> bytes:
        """The next frame of the runner; one that does not begin with this container's nonce is none."""
        head = await self._exactly(len(self._nonce) + LENGTH_DIGITS)
        nonce, digits = head[: len(self._nonce)], head[len(self._nonce) :]
        try:
            length = int(digits, 16)
        except ValueError:
            length = -1
        if nonce != self._nonce or not 0 <= length <= most_bytes:
            msg = "what the sandbox says is no answer"
            raise SandboxUnavailable(msg, code="unavailable.sandbox_answer")
        return await self._exactly(length)

    async def _send(self, what: Mapping[str, Any]) -> None:
        try:
            await self._write(what)
        except SandboxUnavailable:
            raise await self._died() from None

    async def _write(self, what: Mapping[str, Any]) -> None:
        data = json.dumps(what, ensure_ascii=False).encode("utf-8", "surrogatepass")
        await self._stream.send(b"%08x" % len(data) + data)

    async def _exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            try:
                piece = await self._stream.receive(MAX_STDERR_BYTES)
            except SandboxUnavailable as error:
                if error.code != "unavailable.sandbox_died":
                    raise
                piece = b""
            if not piece:
                raise await self._died()
            self._buffer += piece
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    async def _died(self) -> SandboxUnavailable | MemoryLimit | CodeFailed:
        """Why there is no more to come: of a container that has ended while it had code, the code is the cause."""
        with anyio.move_on_after(LAST_WORDS_S), suppress(SandboxUnavailable):
            while await self._stream.receive(MAX_STDERR_BYTES):
                pass
        with suppress(SandboxUnavailable):
            await self._engine.wait(self.name, LAST_WORDS_S)
        found = await self._engine.inspect(self.name)
        state = (found or {}).get("State")
        state = state if isinstance(state, dict) else {}
        if await self._ran_out_of_memory(state):
            return MemoryLimit("the sandbox needed more memory than it may have")
        if self._used and state.get("Status") == "exited":
            msg = f"the code ended its sandbox, with exit code {state.get('ExitCode', 'unknown')}"
            return CodeFailed(msg, exception="SystemExit")
        said = " ".join(self._stream.stderr.decode("utf-8", "replace").split())[-300:]
        msg = f"the sandbox died with exit code {state.get('ExitCode', 'unknown')}: {said or 'without a word'}"
        return SandboxUnavailable(msg, code="unavailable.sandbox_died")

    async def _ran_out_of_memory(self, state: Mapping[str, Any]) -> bool:
        """Whether that ended it: an engine that has heard of the end first tells so in its events alone, and later."""
        if state.get("OOMKilled") is True:
            return True
        if not self._used or state.get("ExitCode") not in KILLED:
            return False
        with suppress(SandboxUnavailable):
            return await self._engine.has_met(self.name, "oom", MEMORY_TOLD_S)
        return False


@asynccontextmanager
async def open_cell(
    engine: Engine,
    options: DockerOptions,
    tier: SecurityTier,
    labels: Mapping[str, str],
    *,
    memory_mib: int,
    binds: Sequence[str] = (),
    tell: Callable[[Mapping[str, JsonValue]], None] = tell_nobody,
) -> AsyncIterator[Cell]:
    """A container that keeps what its tier promises, removed at the end.

    Args:
        engine: Where.
        options: How containers of this tier are made.
        tier: What it has to be.
        labels: By which it is found again.
        memory_mib: What its code may have.
        binds: See `container_spec`.
        tell: Is told what it is like, before anything is refused.

    Raises:
        SandboxUnavailable: The engine cannot be used, the container does not start in time, or it is not what its tier
            promises (`unavailable.isolation`).
    """
    name = NAME_PREFIX + random_bytes(10).hex()
    spec = container_spec(options, tier, runner_command(options.python), labels, memory_mib=memory_mib, binds=binds)
    try:
        try:
            with anyio.CancelScope(shield=True):  # a container that is made while nobody waits would be nobody's
                await engine.create(name, spec, options.start_timeout_s)
        finally:
            await anyio.lowlevel.checkpoint()  # a cancellation that came meanwhile
        async with engine.attach(name, options.start_timeout_s) as stream:
            nonce = random_bytes(NONCE_BYTES).hex().encode()
            cell = Cell(engine, stream, name, nonce)
            try:
                with anyio.fail_after(options.start_timeout_s):
                    await engine.start(name, options.start_timeout_s)
                    await cell.hello()
                    seen = _object(await cell.frame(MAX_PROBE_BYTES))
            except TimeoutError:
                msg = f"the sandbox did not start within {options.start_timeout_s:g} s on {options.cpus:g} cores"
                hint = "give it more of a core, or raise `sandbox.start_timeout_s`"
                raise SandboxUnavailable(msg, code="unavailable.sandbox_start", hint=hint) from None
            isolation = judge(seen, options, tier, memory_mib, binds)
            cell.facts = {"container": name, **isolation.facts}
            tell(cell.facts)
            if isolation.broken:
                msg = f"the sandbox is not what tier `{tier}` promises: {'; '.join(isolation.broken)}"
                raise SandboxUnavailable(msg, code="unavailable.isolation", tier=tier.value)
            yield cell
    finally:
        await remove(engine, name)


async def remove(engine: Engine, name: str) -> None:
    """Kill and remove a container, also after a cancellation, within a bound; an engine that is gone removes nothing."""
    with anyio.CancelScope(shield=True):
        for last in (False, True):
            try:
                await engine.remove(name, REMOVE_TIMEOUT_S)
            except SandboxUnavailable as error:
                status = error.fields.get("status")
                if status == HTTPStatus.INTERNAL_SERVER_ERROR and not last:
                    continue  # it was dying, and the engine waited for that in vain
                # Already on its way (409) is as good; of an engine that is gone or hangs the reaper takes care.
                if status != HTTPStatus.CONFLICT:
                    _log.warning("container `%s` could not be removed: %s", name, error.message)
            return


def _object(data: bytes) -> Mapping[str, Any]:
    try:
        told = json.loads(data)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        msg = "what the sandbox says of itself is nothing that it could be"
        raise SandboxUnavailable(msg, code="unavailable.sandbox_answer")
    return told
