"""A program of an image that is spoken to over its standard streams for as long as it is needed, such as a tool server.

Its container has no network, no capability, no mount, a read-only root and our own filter of system calls, as those of
code have. Whether the engine has made it so is looked at before anything is said to it. The image needs nothing but the
program, so unlike containers of code it is not looked at from inside.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import anyio
from anyio.abc import ByteReceiveStream, ByteSendStream

from symbi.adapters.docker.cell import NAME_PREFIX, remove
from symbi.adapters.docker.container import DockerOptions, container_spec
from symbi.adapters.docker.engine import Engine, RawStream
from symbi.adapters.docker.program import BASE_VARIABLES, check_image
from symbi.clock import random_bytes
from symbi.errors import SandboxUnavailable
from symbi.types import SecurityTier

_log = logging.getLogger("symbi.sandbox")

LABEL_SERVER: Final = "symbi.server"
MOST_STDERR: Final = 65_536  # what is kept of standard error until it is read


class _In(ByteSendStream):
    def __init__(self, stream: RawStream) -> None:
        self._stream = stream
        self._closed = False

    async def send(self, item: bytes) -> None:
        if self._closed:
            raise anyio.ClosedResourceError
        try:
            await self._stream.send(item)
        except SandboxUnavailable:
            raise anyio.BrokenResourceError from None

    async def aclose(self) -> None:
        self._closed = True


class _Out(ByteReceiveStream):
    def __init__(self, stream: RawStream, ended: anyio.Event) -> None:
        self._stream = stream
        self._ended = ended

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        del max_bytes  # a piece is as large as the engine makes it, which is bounded
        try:
            piece = await self._stream.receive(MOST_STDERR)
        except SandboxUnavailable:
            piece = b""
        if not piece:
            self._ended.set()
            raise anyio.EndOfStream
        return piece

    async def aclose(self) -> None:
        """It ends with its container."""


class _Errors(ByteReceiveStream):
    """What was said beside, once the program has ended."""

    def __init__(self, stream: RawStream, ended: anyio.Event) -> None:
        self._stream = stream
        self._ended = ended

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        await self._ended.wait()
        piece = bytes(self._stream.stderr[:max_bytes])
        del self._stream.stderr[:max_bytes]
        if not piece:
            raise anyio.EndOfStream
        return piece

    async def aclose(self) -> None:
        """It ends with its container."""


class ServingContainer:
    """A program in a container, as a process is: `wait`, `terminate`, `kill`, and three streams.

    Attributes:
        name: Of the container.
        stdin, stdout, stderr: Its streams; the last has what was said once the program has ended.
        pid: None: no process of ours.
        returncode: How it ended, once that is known.
        hears_the_end: False: the engine does not pass on that its standard input has ended.
    """

    hears_the_end = False
    pid: int | None = None

    def __init__(self, engine: Engine, name: str, stream: RawStream, held: AsyncExitStack) -> None:
        self._engine = engine
        self._held = held
        self._over = anyio.Event()
        self.name = name
        self.returncode: int | None = None
        self.stdin: ByteSendStream | None = _In(stream)
        self.stdout: ByteReceiveStream | None = _Out(stream, self._over)
        self.stderr: ByteReceiveStream | None = _Errors(stream, self._over)

    async def wait(self) -> object:
        """Return once it has said its last word."""
        await self._over.wait()
        if self.returncode is None:
            found = await self._engine.inspect(self.name) or {}
            state = found.get("State")
            code = state.get("ExitCode") if isinstance(state, Mapping) and not state.get("Running") else None
            self.returncode = code if isinstance(code, int) else -9
        return self.returncode

    async def terminate(self) -> None:
        """Nothing: what it has ends with it."""

    async def kill(self) -> None:
        """Remove the container with all that is in it."""
        with anyio.CancelScope(shield=True):
            await remove(self._engine, self.name)
        self.returncode = -9 if self.returncode is None else self.returncode
        self._over.set()

    async def aclose(self) -> None:
        """Let the connection go."""
        await self._held.aclose()


def serve_from(
    engine: Engine, options: DockerOptions, tier: SecurityTier, server: str, memory_mib: int
) -> Callable[[Sequence[str], Mapping[str, str], Path | None], Awaitable[ServingContainer]]:
    """What starts the program of a server in a container.

    Args:
        engine: Where.
        options: How containers of the tier are made; of its image.
        tier: Its tier.
        server: Its name, a label of the container.
        memory_mib: What it may have.
    """

    async def start(command: Sequence[str], environment: Mapping[str, str], _cwd: Path | None) -> ServingContainer:
        try:
            return await _started(
                engine, replace(options, env={**BASE_VARIABLES, **environment}), tier, command, server, memory_mib
            )
        except SandboxUnavailable as error:
            # An error of the system, as it is where a program of this machine cannot be started.
            raise OSError(None, f"{error}") from error

    return start


async def _started(
    engine: Engine, options: DockerOptions, tier: SecurityTier, command: Sequence[str], server: str, memory_mib: int
) -> ServingContainer:
    await check_image(engine, options.image)
    name = NAME_PREFIX + random_bytes(10).hex()
    spec = container_spec(options, tier, command, {LABEL_SERVER: server}, memory_mib=memory_mib)
    held = AsyncExitStack()
    try:
        held.push_async_callback(remove, engine, name)
        with anyio.CancelScope(shield=True):  # a container that is made while nobody waits would be nobody's
            await engine.create(name, spec, options.start_timeout_s)
        _refuse(await engine.inspect(name) or {}, spec, tier)
        stream = await held.enter_async_context(engine.attach(name, options.start_timeout_s))
        await engine.start(name, options.start_timeout_s)
    except BaseException:
        await held.aclose()
        raise
    return ServingContainer(engine, name, stream, held)


def _refuse(found: Mapping[str, Any], spec: Mapping[str, Any], tier: SecurityTier) -> None:
    """Return if a container is what it was asked to be."""
    broken = differences(found, spec)
    if broken:
        msg = f"the container is not what tier `{tier}` promises: {', '.join(broken)}"
        raise SandboxUnavailable(msg, code="unavailable.isolation", tier=tier.value)


def differences(found: Mapping[str, Any], spec: Mapping[str, Any]) -> list[str]:
    """What of a container is not as it was asked for, of all that keeps it in: names of the engine's own keys."""
    host, wanted = found.get("HostConfig") or {}, spec["HostConfig"]
    config = found.get("Config") or {}
    kept = (
        "Runtime", "NetworkMode", "ReadonlyRootfs", "Privileged", "CapDrop", "PidsLimit", "Memory", "MemorySwap", "NanoCpus",
        "IpcMode", "PidMode", "UTSMode", "SecurityOpt",
    )  # fmt: skip
    wrong = [key for key in kept if host.get(key) != wanted[key]]
    wrong += [key for key in ("Binds", "CapAdd", "Devices", "VolumesFrom", "GroupAdd") if host.get(key)]
    wrong += [key for key in ("User", "Image") if config.get(key) != spec[key]]
    return wrong + (["Mounts"] if found.get("Mounts") else [])
