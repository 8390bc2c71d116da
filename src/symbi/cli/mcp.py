"""`symbi mcp`: the gateway for MCP clients over standard streams, or by HTTP.

Standard output carries the protocol and nothing else; what there is to say goes to standard error. Where the data folder
has no owner, this process is it, as `symbi up` would be; where it has one, sessions go through it.
"""

import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from threading import Event
from typing import Annotated, Any

import anyio
import typer
from rich.markup import escape
from typer.core import TyperGroup

from symbi.api.client import connect_owner
from symbi.api.control import ControlSocket
from symbi.api.mcp.clients import LOCAL, client_of
from symbi.api.mcp.door import GatewayDoor
from symbi.cli import mcp_clients, mcp_install
from symbi.cli.mcp_http import serve_http, with_http
from symbi.cli.options import Config
from symbi.cli.output import err, errors_to_exit
from symbi.cli.run import announce, run_to_end, run_until_stopped, settings_for, show_held, show_line
from symbi.cli.unread import patient_stderr
from symbi.config import Settings
from symbi.dsl.spec import CompiledFile
from symbi.errors import ConfigError, InputError, StoreUnavailable
from symbi.runtime.doubt import Doubt
from symbi.runtime.host import Host
from symbi.wiring import compile_agents, open_runtime, start_logging

SERVE = "serve"
OWNER_NAP_S = 0.2  # between two looks for the owner of a data folder that begins at the same time
OWNER_TRIES = 100


class ServingGroup(TyperGroup):
    """Commands of which `serve` is meant where none is named: `symbi mcp a.symbi` is `symbi mcp serve a.symbi`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the name in."""
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = [SERVE, *args]
        parsed: list[str] = super().parse_args(ctx, args)
        return parsed


app = typer.Typer(
    cls=ServingGroup,
    no_args_is_help=False,
    help="The gateway for MCP clients: verified tools of configured servers, and agents, behind the gate. "
    "Without a command, it serves one client over standard input and output, or, with `--http`, many by HTTP.",
)
app.add_typer(mcp_clients.app, name="clients")
app.command("install")(mcp_install.install)


@app.command(SERVE)
def serve(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Agent files: what the client may ask to be run. Their schedules count as with `symbi up`."
        ),
    ] = None,
    *,
    client: Annotated[
        str, typer.Option(metavar="NAME", help="Whose calls these are: the client of [mcp.clients.NAME].")
    ] = LOCAL,
    http: Annotated[
        bool, typer.Option("--http", help="Serve HTTP, until SIGTERM or SIGINT; `gateway.http` says it for good.")
    ] = False,
    host: Annotated[str | None, typer.Option(help="Address to listen on, in place of `gateway.host`.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Port to listen on, in place of `gateway.port`.")
    ] = None,
    config: Config = None,
) -> None:
    """Serve one MCP client over standard input and output, until it closes them; with `--http`, many by HTTP."""
    files = files or []
    if not http:
        with errors_to_exit():
            http = settings_for(files[0] if files else None, config).gateway.http
    if http:
        _by_http(files, client, config, host, port)
    else:
        _by_streams(files, client, config, host, port)


def _settings(files: list[Path], config: Path | None) -> Settings:
    settings = settings_for(files[0] if files else None, config)
    if not settings.security.audit_enabled:
        msg = "`symbi mcp` keeps its books in the data folder, and `security.audit_enabled` is false"
        raise ConfigError(msg, code="config.unsafe")
    return settings


def _by_http(files: list[Path], client: str, config: Path | None, host: str | None, port: int | None) -> None:
    with patient_stderr(), errors_to_exit():
        if client != LOCAL:
            msg = "by HTTP a client is known by its token, so `--client` says nothing"
            raise InputError(msg, code="input.usage", hint="`symbi mcp clients add NAME` makes one")
        settings = with_http(_settings(files, config), host, port)
        start_logging(settings)
        serve_http(settings, [compile_agents(file) for file in files])


def _by_streams(files: list[Path], client: str, config: Path | None, host: str | None, port: int | None) -> None:
    from symbi.api.mcp.lines import standard_streams  # noqa: PLC0415 - half a second, for those who serve

    with patient_stderr(), errors_to_exit(), standard_streams() as (reading, writing):
        if host is not None or port is not None:
            msg = "`--host` and `--port` are for `--http`"
            raise InputError(msg, code="input.usage")
        settings = _settings(files, config)
        start_logging(settings)
        client_of(settings, client)  # before anything is opened
        compiled = [compile_agents(file) for file in files]
        own = partial(_own, settings, compiled, client, (reading, writing))
        connection = _owner_or_own(settings, own)
        if connection is None:
            return
        if files:
            connection.close()
            msg = "the data folder has an owner, which knows its own agent files and takes no others"
            raise InputError(msg, code="input.usage", hint="name them where the owner is started, and none here")
        from symbi.api.mcp.relay import relay  # noqa: PLC0415 - likewise

        err.print("[dim]the data folder has an owner: this session goes through it[/]")
        run_to_end(partial(relay, connection, client, reading, writing), settings)


def _owner_or_own(
    settings: Settings, own: Callable[[Callable[[Callable[[], None]], None]], Awaitable[None]]
) -> socket.socket | None:
    """A connection to the owner of the data folder; None where there was none, and we have been it, and are it no more.

    Of several that begin at the same time one becomes the owner, and the others wait until it serves.

    Raises:
        SymbiError: What keeps us from being the owner, or what ended us as that.
    """
    for left in range(OWNER_TRIES, -1, -1):
        connection = connect_owner(settings.runtime.data_dir)
        if connection is not None:
            return connection
        try:
            run_until_stopped(own, settings)
        except StoreUnavailable as error:
            if error.code != "unavailable.store_owned" or not left:
                raise
            Event().wait(OWNER_NAP_S)
            continue
        return None
    return None


async def _own(
    settings: Settings,
    files: list[CompiledFile],
    name: str,
    streams: tuple[int, int],
    on_stop: Callable[[Callable[[], None]], None],
) -> None:
    """Own the data folder, and serve our client, and whoever comes to the control socket meanwhile."""
    from symbi.api.mcp.lines import line_streams, receive_from, send_to, unwrapped  # noqa: PLC0415 - likewise
    from symbi.api.mcp.serving import serve as serve_client  # noqa: PLC0415 - likewise

    reading, writing = streams
    with unwrapped():
        async with AsyncExitStack() as stack:
            runtime = await stack.enter_async_context(
                open_runtime(settings, emit=show_line, hold_s=None, held=partial(show_held, waits=True))
            )
            host = Host(runtime, files)
            announce(runtime)
            door = await stack.enter_async_context(GatewayDoor(runtime, settings, files))
            await stack.enter_async_context(ControlSocket(runtime, settings.runtime.data_dir, door=door))
            if runtime.rooms.compactor is not None:
                await stack.enter_async_context(runtime.rooms.compactor.kept_small())
            for record in await Doubt(runtime.rooms).look_up():
                err.print(f"[bold]settled:[/] {escape(record.resource)} of run {record.run_id} was looked up")
            gateway = await door.gateway()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(host.run)

                def stop() -> None:
                    host.stop()
                    scope.cancel("told to stop")

                scope = anyio.CancelScope()
                on_stop(stop)
                with scope:
                    send = partial(send_to, writing)
                    async with line_streams(partial(receive_from, reading), send) as pair:
                        await serve_client(gateway, door.client(name), pair, transport="stdio", uid=os.geteuid())
                    await gateway.deserted()  # others may still work here
                host.stop()
