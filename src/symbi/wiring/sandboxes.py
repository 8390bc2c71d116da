"""Where code runs, from settings: the interpreter always, containers where an image is configured."""

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from anyio import to_thread

from symbi.adapters.monty import MontySandbox
from symbi.audit.log import AuditLog
from symbi.clock import Clock
from symbi.config import Settings
from symbi.guard.gate import Guard
from symbi.runtime.workers import Workers
from symbi.sandbox.address import engine_address
from symbi.sandbox.egress import EgressLimits
from symbi.sandbox.pool import Commands, Drivers, Sandboxes
from symbi.tools.catalog import SecretSource
from symbi.types import SecurityTier

if TYPE_CHECKING:
    from symbi.adapters.docker import DockerOptions, DockerSandbox, Engine
    from symbi.adapters.egress import EgressProxy

KIB = 1_024
MIB = 1_048_576


def engine_of(settings: Settings, environ: Mapping[str, str] = os.environ) -> "Engine":
    """A client of the engine that is configured, or that the environment names.

    Raises:
        ConfigError: Its address is of a kind that cannot be used, it would be spoken to without TLS on another machine, or
            its certificates cannot be used.
    """
    from symbi.adapters.docker import Engine  # noqa: PLC0415 - for those who have containers

    told = settings.sandbox
    address = engine_address(
        told.docker_host,
        environ,
        tls_verify=told.docker_tls_verify,
        certificates=told.docker_cert_path,
        plain=told.docker_plain_tcp,
    )
    return Engine(address.url, address.context())


async def make_image(settings: Settings, programs: Sequence[Path], name: str) -> str:
    """Make an image of this machine's Python in the engine, and give its id.

    Raises:
        InputError: This is no Linux, or a program is not there.
        SandboxUnavailable: The engine cannot be used.
        ConfigError: Likewise, as it is configured.
    """
    from symbi.adapters.docker import write_root  # noqa: PLC0415 - likewise

    async with engine_of(settings) as engine:
        await engine.version()  # before the work
        with TemporaryFile() as root:
            await to_thread.run_sync(write_root, root, programs)
            root.seek(0)
            return await engine.import_image(root, name, ())


@asynccontextmanager
async def open_sandboxes(
    settings: Settings,
    guard: Guard,
    log: AuditLog,
    clock: Clock,
    workers: Workers,
    secrets: SecretSource,
    engine: "Engine | None" = None,
) -> AsyncIterator[Sandboxes]:
    """The sandboxes that are configured. An engine that is not there is told of to whoever needs it, not before.

    What an earlier crash left in the engine is removed first.

    Args:
        settings: Names the engine and the image.
        guard: Where permits are redeemed; its vault seals events that are about somebody.
        log: Its origin is the label of what is ours in the engine; it takes the events of connections.
        clock: Measures rates of bytes.
        workers: Hears of where code runs.
        secrets: Of what is put into requests on their way out.
        engine: The one that is entered already, with its reaper; None where there is none.

    Raises:
        SandboxUnavailable: The interpreter does not start.
        ConfigError: The engine cannot be used as it is configured; see `engine_of`.
    """
    async with AsyncExitStack() as stack:
        interpreter = await stack.enter_async_context(MontySandbox(guard.authority, watch=workers))
        drivers: Drivers = {SecurityTier.INTERPRETER: interpreter}
        commands: Commands = {}
        if settings.sandbox.image is not None or settings.sandbox.images:
            engine = engine or await open_engine(stack, settings, log)
            egress = _egress(settings, guard, log, clock, secrets)
            made = await _containers(stack, settings, guard, log.origin, workers, egress, engine)
            for tier, driver in made.items():
                commands[tier] = driver
                if settings.sandbox.image is not None:
                    drivers[tier] = driver
        yield Sandboxes(drivers, commands)


async def open_engine(stack: AsyncExitStack, settings: Settings, log: AuditLog) -> "Engine":
    """The engine, entered, with what removes from it what a crash has left; a runtime has one alone.

    Raises:
        ConfigError: The engine cannot be used as it is configured; see `engine_of`.
    """
    from symbi.adapters.docker import Reaper  # noqa: PLC0415 - for those who have containers

    engine = await stack.enter_async_context(engine_of(settings))
    await stack.enter_async_context(Reaper(engine, log.origin))
    return engine


def container_options(settings: Settings, tier: SecurityTier, origin: str) -> "DockerOptions":
    """How containers of a tier are made, as configured."""
    from symbi.adapters.docker import DockerOptions  # noqa: PLC0415 - likewise

    sandbox = settings.sandbox
    named = {*sandbox.images, *([sandbox.image] if sandbox.image else [])}
    return DockerOptions(
        image=sandbox.image or "",
        runtime=sandbox.runtime_tier1 if tier is SecurityTier.TIER1 else sandbox.runtime_tier2,
        instance=origin,
        user=sandbox.user,
        pids=sandbox.pids,
        cpus=sandbox.cpu_cores,
        tmpfs_mib=sandbox.tmpfs_mib,
        output_bytes=sandbox.output_bytes,
        open_files=sandbox.open_files,
        file_size_mib=sandbox.file_size_mib,
        at_once=sandbox.containers,
        warm=sandbox.warm if sandbox.image else 0,
        warm_memory_mib=settings.limits.code_memory_mb,
        start_timeout_s=sandbox.start_timeout_s,
        images=frozenset(named),
        variables=frozenset(sandbox.env),
    )


def _egress(settings: Settings, guard: Guard, log: AuditLog, clock: Clock, secrets: SecretSource) -> "EgressProxy":
    from symbi.adapters.egress import EgressProxy  # noqa: PLC0415 - for those who have containers

    sandbox = settings.sandbox
    limits = EgressLimits(
        connections=sandbox.egress_connections,
        sent_bytes=sandbox.egress_sent_mib * MIB,
        received_bytes=sandbox.egress_received_mib * MIB,
        bytes_per_s=sandbox.egress_kib_s * KIB,
    )
    return EgressProxy(guard.authority, secrets, log.append, clock, vault=guard.vault, limits=limits)


async def _containers(
    stack: AsyncExitStack,
    settings: Settings,
    guard: Guard,
    origin: str,
    workers: Workers,
    egress: "EgressProxy",
    engine: "Engine",
) -> dict[SecurityTier, "DockerSandbox"]:
    from symbi.adapters.docker import DockerSandbox  # noqa: PLC0415 - for those who have containers

    drivers: dict[SecurityTier, DockerSandbox] = {}
    for tier in (SecurityTier.TIER1, SecurityTier.TIER2):
        options = container_options(settings, tier, origin)
        driver = DockerSandbox(guard.authority, tier, engine, options, egress=egress, watch=workers)
        drivers[tier] = await stack.enter_async_context(driver)
    return drivers
