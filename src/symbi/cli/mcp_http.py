"""`symbi mcp --http`: the gateway for MCP clients that come by the network, each with a token of its own."""

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import anyio
from rich.markup import escape

from symbi.api.client import connect_owner
from symbi.api.control import ControlSocket
from symbi.api.mcp.door import GatewayDoor
from symbi.api.mcp.tokens import ClientBook
from symbi.cli.output import err
from symbi.cli.run import announce, run_until_stopped, show_held, show_line
from symbi.config import Settings, refuse_unsafe
from symbi.dsl.spec import CompiledFile
from symbi.errors import StoreUnavailable
from symbi.runtime.doubt import Doubt
from symbi.runtime.host import Host
from symbi.wiring import open_runtime

if TYPE_CHECKING:
    from symbi.api.mcp.http import Place


def with_http(settings: Settings, host: str | None, port: int | None) -> Settings:
    """The settings, where the command line says that HTTP is meant, and where."""
    gateway = settings.gateway
    return replace(
        settings,
        gateway=replace(gateway, http=True, host=host or gateway.host, port=gateway.port if port is None else port),
    )


def serve_http(settings: Settings, files: Sequence[CompiledFile]) -> None:
    """Own the data folder and serve HTTP, until SIGTERM or SIGINT.

    Args:
        settings: With what `with_http` changes.
        files: The agents that clients may ask to be run.

    Raises:
        ConfigError: The address cannot be listened on, or something is unsafe.
        StoreUnavailable: The data folder has an owner.
    """
    from symbi.api.mcp.http import open_place  # noqa: PLC0415 - half a second, for those who serve
    from symbi.api.mcp.over_http import door_terms  # noqa: PLC0415 - likewise

    connection = connect_owner(settings.runtime.data_dir)
    if connection is not None:
        connection.close()
        msg = f"another process owns `{settings.runtime.data_dir}`, and only the owner can serve HTTP"
        raise StoreUnavailable(msg, code="unavailable.owned", hint="stop it, or have it serve: it takes the same files")
    refuse_unsafe(settings)  # before anything is open to others
    place = open_place(door_terms(settings))
    with place.listener:
        run_until_stopped(partial(_own, settings, files, place), settings)


async def _own(
    settings: Settings, files: Sequence[CompiledFile], place: "Place", on_stop: Callable[[Callable[[], None]], None]
) -> None:
    from symbi.api.mcp.over_http import http_gateway  # noqa: PLC0415 - likewise

    async with AsyncExitStack() as stack:
        runtime = await stack.enter_async_context(
            open_runtime(settings, emit=show_line, hold_s=None, held=partial(show_held, waits=True))
        )
        host = Host(runtime, list(files))
        announce(runtime)
        door = await stack.enter_async_context(GatewayDoor(runtime, settings, list(files)))
        await stack.enter_async_context(ControlSocket(runtime, settings.runtime.data_dir, door=door))
        if runtime.rooms.compactor is not None:
            await stack.enter_async_context(runtime.rooms.compactor.kept_small())
        for record in await Doubt(runtime.rooms).look_up():
            err.print(f"[bold]settled:[/] {escape(record.resource)} of run {record.run_id} was looked up")
        served = http_gateway(await door.gateway(), settings, place)

        def stop() -> None:
            served.stop()
            host.stop()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(host.run)
            on_stop(stop)
            await served.serve(partial(_tell, settings))
            host.stop()
        err.print("[dim]stopped[/]")


def _tell(settings: Settings, url: str) -> None:
    """Where it is, and who may come in."""
    names = [client.name for client in ClientBook(settings.runtime.data_dir).all()]
    err.print(f"the gateway is at [bold]{escape(url)}[/]", highlight=False)
    if names:
        err.print(f"[dim]may come in: {escape(', '.join(names))}[/]", highlight=False)
    else:
        err.print("[bold yellow]warning:[/] nobody may come in; `symbi mcp clients add NAME` makes a token")
