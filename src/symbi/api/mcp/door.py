"""The door of the gateway in a process that owns a data folder: its own client, and sessions over the control socket.

The gateway is opened when the first session comes, for it takes half a second that not everybody needs.
"""

import logging
import socket
from collections.abc import Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import anyio
from anyio.abc import TaskGroup

from symbi.api.caller import Caller, principal_of
from symbi.api.control import SESSION
from symbi.api.mcp.clients import Client, client_of
from symbi.config import Settings
from symbi.dsl.spec import CompiledFile
from symbi.errors import InputError, StoreUnavailable, SymbiError
from symbi.guard.actions.people import ControlRuntime
from symbi.runtime.runtime import Runtime
from symbi.types import JsonValue

if TYPE_CHECKING:
    from symbi.api.mcp.gateway import Gateway, Search

_log = logging.getLogger("symbi.api")


class GatewayDoor:
    """Lets clients in; to be entered.

    Args:
        runtime: What they work on.
        settings: Names the clients.
        files: The agents that they may ask to be run.
        search: Searches knowledge; None where there is none.
    """

    def __init__(
        self,
        runtime: Runtime,
        settings: Settings,
        files: Sequence[CompiledFile] = (),
        search: "Search | None" = None,
    ) -> None:
        self._runtime = runtime
        self._settings = settings
        self._files = tuple(files)
        self._search = search
        self._tasks: TaskGroup | None = None
        self._opening = anyio.Lock()
        self._gateway: Gateway | None = None

    async def __aenter__(self) -> Self:
        """Nothing is opened yet."""
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every session."""
        tasks, self._tasks = self._tasks, None
        assert tasks is not None
        tasks.cancel_scope.cancel("the gateway ends")
        await tasks.__aexit__(None, None, None)

    async def gateway(self) -> "Gateway":
        """The gateway, opened where it was not.

        Raises:
            ConfigError: It cannot be, as it is configured.
            StoreUnavailable: We end.
        """
        async with self._opening:
            if self._gateway is None:
                if self._tasks is None:
                    raise StoreUnavailable("the gateway ends", code="unavailable.gateway")
                self._gateway = await self._tasks.start(self._hold)
            return self._gateway

    async def _hold(self, *, task_status: Any) -> None:
        """The gateway in a task of its own, for whoever enters it has to leave it."""
        from symbi.api.mcp.gateway import Gateway, terms_of  # noqa: PLC0415 - for those who have clients
        from symbi.api.mcp.searching import search_of  # noqa: PLC0415 - likewise

        terms = terms_of(self._settings.gateway)
        search = self._search or search_of(self._runtime)
        async with Gateway(self._runtime, terms, self._files, search) as gateway:
            task_status.started(gateway)
            await anyio.sleep_forever()

    def client(self, name: str) -> Client:
        """A client by its name.

        Raises:
            InputError: There is none.
            ConfigError: What is said of it does not fit.
        """
        return client_of(self._settings, name)

    async def admit(self, caller: Caller, arguments: dict[str, JsonValue]) -> Client:
        """Let somebody at the control socket open a session, through the gate.

        Raises:
            InputError: There is no such client.
            Denied: Policy does not let this user.
            Overloaded: There are too many sessions.
            StoreUnavailable: Decision or outcome cannot be recorded.
        """
        name = arguments.get("client")
        if not isinstance(name, str) or set(arguments) != {"client"}:
            raise InputError("the operation needs `client`, a text, and nothing else", code="control.argument")
        client = self.client(name)
        guard, person = self._runtime.guard, self._runtime.desk.people.of_uid(caller.uid)
        action = ControlRuntime(
            principal=principal_of(self._runtime, caller),
            operation=SESSION,
            uid=caller.uid,
            person=person.name if person else "",
            folder_owner=caller.folder_owner,
            values={"client": name},
        )
        async with guard.enforce(action) as permit:
            guard.authority.redeem(permit, ControlRuntime)
            (await self.gateway()).check_room(client)  # now, for once it is let in nobody can be told
        return client

    async def serve(self, connection: socket.socket, client: Client, uid: int, rest: bytes) -> None:
        """Serve a session over a connection, until either side ends it."""
        from symbi.api.mcp.lines import line_streams, receive_from, send_to, unwrapped  # noqa: PLC0415 - likewise
        from symbi.api.mcp.serving import serve  # noqa: PLC0415 - likewise

        descriptor = connection.fileno()
        send = partial(send_to, descriptor)
        try:
            with unwrapped():
                async with line_streams(partial(receive_from, descriptor), send, rest) as streams:
                    await serve(await self.gateway(), client, streams, transport="socket", uid=uid)
        except SymbiError as error:
            _log.warning("a session of client `%s` has ended: %s", client.name, error)
