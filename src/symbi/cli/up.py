"""`symbi up`: a runtime that stays, owns the data folder, and runs what is due and what is sent, until it is told to stop."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from symbi.api.control import ControlSocket
from symbi.api.mcp.door import GatewayDoor
from symbi.cli.options import Config
from symbi.cli.output import err, errors_to_exit
from symbi.cli.run import announce, run_until_stopped, settings_for, show_held, show_line
from symbi.cli.unread import patient_stderr
from symbi.clock import SystemClock, rfc3339
from symbi.config import Settings
from symbi.dsl.spec import CompiledFile
from symbi.errors import ConfigError
from symbi.runtime.doubt import Doubt
from symbi.runtime.host import Host
from symbi.runtime.runtime import Runtime
from symbi.tools.text import printable
from symbi.wiring import compile_agents, open_runtime, start_logging


def up(
    files: Annotated[
        list[Path], typer.Argument(help="Agent files; their schedules, and their agents that stay, count.")
    ],
    *,
    config: Config = None,
) -> None:
    """Run the agents of some files when their schedules are due or they are sent messages, until SIGTERM or SIGINT.

    What is at work may finish first.
    """
    with patient_stderr(), errors_to_exit():
        settings = settings_for(files[0], config)
        if not settings.security.audit_enabled:
            msg = "`symbi up` keeps its books in the data folder, and `security.audit_enabled` is false"
            raise ConfigError(msg, code="config.unsafe")
        start_logging(settings)
        compiled = [compile_agents(file) for file in files]
        run_until_stopped(partial(_main, settings, compiled), settings)


async def _main(settings: Settings, files: list[CompiledFile], on_stop: Callable[[Callable[[], None]], None]) -> None:
    async with AsyncExitStack() as stack:
        runtime = await stack.enter_async_context(
            open_runtime(settings, emit=show_line, hold_s=None, held=partial(show_held, waits=True))
        )
        host = Host(runtime, files)
        on_stop(host.stop)
        announce(runtime)
        door = await stack.enter_async_context(GatewayDoor(runtime, settings, files))
        await stack.enter_async_context(ControlSocket(runtime, settings.runtime.data_dir, door=door))
        if runtime.rooms.compactor is not None:
            await stack.enter_async_context(runtime.rooms.compactor.kept_small())
        for record in await Doubt(runtime.rooms).look_up():
            err.print(f"[bold]settled:[/] {escape(record.resource)} of run {record.run_id} was looked up")
        _tell(host, runtime, files)
        await host.run()
        err.print("[dim]stopped[/]")


def _tell(host: Host, runtime: Runtime, files: list[CompiledFile]) -> None:
    """What will be run, and when."""
    names = {spec.id for compiled in files for spec in compiled.agents}
    staying = sorted(name for name in names if runtime.rooms.terms(name).persistent)
    for name in staying:
        err.print(f"agent [bold]{escape(name)}[/] stays: `symbi agents send {escape(name)}`")
    if runtime.roster.halted:
        by = escape(printable(runtime.roster.halted))
        err.print(f"[bold yellow]warning:[/] {by} has stopped everything: nothing begins; `symbi agents resume --all`")
    now_ns = SystemClock().now_ns()
    for job in host.jobs:
        at_ns = job.schedule.timetable.after(now_ns)
        when = "never again" if at_ns is None else f"next at {rfc3339(at_ns)[:19]}Z"
        err.print(f"schedule [bold]{escape(printable(job.schedule.name))}[/] runs {escape(job.schedule.agent)}, {when}")
    if not host.jobs and not staying:
        err.print(
            "[bold yellow]warning:[/] no file has a schedule, and no agent stays: nothing is run, and the control "
            "socket is served"
        )
