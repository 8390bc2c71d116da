"""The control socket: what others ask of the owner of a data folder, a JSON line each.

1. the socket lies in the data folder, with mode 0600 from the moment it is there; only the owner of the folder serves;
2. who connects is whom the system names (SO_PEERCRED); what the runtime itself has started is refused, for a tool
   server runs as our user and must not approve what it was asked to do;
3. one line of bounded length within bounded time: `{"operation": …, "arguments": {…}}`;
4. the operation passes the gate as an action of its own (`symbi.api.caller`);
5. one line back: `{"ok": …}` or `{"error": …}`, and the connection is closed.
"""

import json
import logging
import os
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol, Self

import anyio
from anyio.abc import TaskGroup

from symbi.api import (
    agents,
    approvals,
    audit,
    budget,
    bus,
    clients,
    compliance,
    dlq,
    effects,
    journal,
    keeping,
    keys,
    knowledge,
    memory,
    policies,
    privacy,
    status,
    tools,
)
from symbi.api.caller import Caller, Discreet, Operation, operate
from symbi.errors import InputError, InternalError, PolicyDenied, StoreUnavailable, SymbiError
from symbi.guard.outcome import encode_error
from symbi.runtime.runtime import Runtime
from symbi.types import JsonValue

_log = logging.getLogger("symbi.api")

SOCKET_NAME: Final = "symbi.sock"
MAX_REQUEST_BYTES: Final = 262_144  # one request line
MAX_DISCARDED_BYTES: Final = 4_194_304  # of what is sent beyond it
REQUEST_TIMEOUT_S: Final = 10.0  # to send the request, and again to take the answer
OPERATION_TIMEOUT_S: Final = 120.0  # to carry it out
RETRY_S: Final = 0.1  # after a connection that could not be taken
MAX_CONNECTIONS: Final = 64  # at a time; further ones wait to be accepted
MAX_OPERATIONS: Final = 16  # that are carried out at a time; further ones wait
SESSION: Final = "gateway.session"
"""Opens a session of the gateway: the connection then carries the protocol of its client."""
URGENT: Final = frozenset({"agents.stop", "agents.suspend"})  # wait for no other: the kill switch works under load
MAX_ANCESTORS: Final = 64  # parents of a process that are looked at
_RECEIVE_BYTES: Final = 65_536

OPERATIONS: Final[Mapping[str, Operation]] = {
    **agents.OPERATIONS,
    **effects.OPERATIONS,
    **journal.OPERATIONS,
    **approvals.OPERATIONS,
    **policies.OPERATIONS,
    **audit.OPERATIONS,
    **budget.OPERATIONS,
    **bus.OPERATIONS,
    **clients.OPERATIONS,
    **keeping.OPERATIONS,
    **keys.OPERATIONS,
    **knowledge.OPERATIONS,
    **memory.OPERATIONS,
    **dlq.OPERATIONS,
    **compliance.OPERATIONS,
    **privacy.OPERATIONS,
    **status.OPERATIONS,
    **tools.OPERATIONS,
}
"""Everything that can be asked; whoever has more to offer adds its table here."""


class SessionDoor(Protocol):
    """Lets clients of the gateway in, each over a connection of its own, which it keeps."""

    async def admit(self, caller: Caller, arguments: dict[str, JsonValue]) -> Any:
        """Who comes in; raises `SymbiError` for whoever does not."""

    async def serve(self, connection: socket.socket, client: Any, uid: int, rest: bytes) -> None:
        """Serve them, until they go."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The process at the other end of a connection, as the system says."""

    pid: int
    uid: int


def peer_of(connection: socket.socket) -> Peer:
    """Who is at the other end.

    Raises:
        StoreUnavailable: The system cannot say.
    """
    if not hasattr(socket, "SO_PEERCRED"):
        msg = "this system does not say who is at the other end of a socket"
        raise StoreUnavailable(msg, code="unavailable.control")
    pid, uid, _gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return Peer(pid, uid)


def descends_from(pid: int, ancestor: int) -> bool:
    """Whether a process was started by another, or by one that it started. Of one that is gone nobody can say: yes."""
    for _ in range(MAX_ANCESTORS):
        if pid == ancestor:
            return True
        if pid <= 1:
            return False
        try:
            text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
        except OSError:
            return True  # it ended meanwhile, or hides: not somebody to take orders from
        pid = int(text.rpartition(")")[2].split()[1])
    return True


class ControlSocket:
    """Serves a runtime's operations in its data folder; to be entered.

    Args:
        runtime: Whose.
        folder: The data folder, which this process owns.
        peer: Says who is at the other end.
        operations: What can be asked.
        door: Lets clients of the gateway in; None where none are served.
    """

    def __init__(
        self,
        runtime: Runtime,
        folder: Path,
        *,
        peer: Callable[[socket.socket], Peer] = peer_of,
        operations: Mapping[str, Operation] = OPERATIONS,
        door: SessionDoor | None = None,
    ) -> None:
        self._door = door
        self._runtime = runtime
        self._folder = folder
        self._peer = peer
        self._operations = operations
        self._socket: socket.socket | None = None
        self._tasks: TaskGroup | None = None
        self._room = anyio.CapacityLimiter(MAX_CONNECTIONS)
        self._turn = anyio.CapacityLimiter(MAX_OPERATIONS)
        self._seated: set[object] = set()

    async def __aenter__(self) -> Self:
        """Bind the socket and begin to serve.

        Raises:
            StoreUnavailable: It cannot be bound.
        """
        self._socket = _bind(self._folder)
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._accept, self._socket)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Serve no more, and take the socket away."""
        tasks, self._tasks = self._tasks, None
        bound, self._socket = self._socket, None
        assert tasks is not None
        assert bound is not None
        with suppress(OSError):  # who took it away did what was to be done
            (self._folder / SOCKET_NAME).unlink()
        tasks.cancel_scope.cancel("the owner ends")
        await tasks.__aexit__(None, None, None)
        bound.close()

    async def _accept(self, bound: socket.socket) -> None:
        assert self._tasks is not None
        tasks = self._tasks
        while True:
            await anyio.wait_readable(bound)
            await self._room.acquire_on_behalf_of(token := object())
            self._seated.add(token)
            try:
                connection, _ = bound.accept()
            except OSError as error:  # who connected is gone again, or there are too many files
                self._leave(token)
                _log.warning("a connection to the control socket was lost: %s", error.strerror)
                await anyio.sleep(RETRY_S)  # too many files are open for a while
                continue
            tasks.start_soon(self._serve, connection, token)

    async def _serve(self, connection: socket.socket, token: object) -> None:
        with connection:
            connection.setblocking(False)
            try:
                answer = await self._answer(connection, token)
                if answer is None:
                    return  # a session, and it is over
                with anyio.fail_after(REQUEST_TIMEOUT_S):
                    await _send(connection, json.dumps(answer).encode() + b"\n")  # ASCII: what is quoted may be no text
                    await _discard(connection)
            except (OSError, TimeoutError) as error:
                _log.warning("whoever asked at the control socket took no answer: %s", type(error).__name__)
            finally:
                self._leave(token)

    def _leave(self, token: object) -> None:
        """Give the place among the connections back, once."""
        if token in self._seated:
            self._seated.discard(token)
            self._room.release_on_behalf_of(token)

    async def _answer(self, connection: socket.socket, token: object) -> dict[str, Any] | None:
        try:
            with anyio.fail_after(REQUEST_TIMEOUT_S):
                line, rest = await _receive(connection)
            caller = self._caller(connection)
            name, arguments = _parsed(line)
            if name == SESSION and self._door is not None:
                with anyio.fail_after(OPERATION_TIMEOUT_S):
                    client = await self._door.admit(caller, dict(arguments))
                self._leave(token)  # a session lasts, and must not keep others from asking
                await _send(connection, b'{"ok": {}}\n')
                await self._door.serve(connection, client, caller.uid, rest)
                return None
            operation = self._operations.get(name)
            timeout_s = operation.timeout_s if isinstance(operation, Discreet) else OPERATION_TIMEOUT_S
            with anyio.fail_after(timeout_s):
                async with nullcontext() if name in URGENT else self._turn:
                    return {"ok": await operate(self._runtime, self._operations, caller, name, arguments)}
        except TimeoutError:
            late = StoreUnavailable("the request came, or was carried out, too slowly", code="unavailable.control")
            return _error(late)
        except SymbiError as error:
            return _error(error)
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001 - the outermost place: a defect answers one caller and ends no run
            _log.error("the control socket met a defect", exc_info=error)
            return _error(InternalError(f"{type(error).__name__} in the runtime"))

    def _caller(self, connection: socket.socket) -> Caller:
        """Who asks.

        Raises:
            PolicyDenied: Something that the runtime itself has started.
            StoreUnavailable: The system cannot say.
        """
        peer = self._peer(connection)
        if peer.pid != os.getpid() and descends_from(peer.pid, os.getpid()):
            msg = f"process {peer.pid} was started by the runtime, and nothing that it runs may give it orders"
            raise PolicyDenied(msg, code="control.descendant")
        return Caller(peer.uid, folder_owner=peer.uid == self._folder.stat().st_uid)


def _error(error: SymbiError) -> dict[str, Any]:
    return {"error": json.loads(encode_error(error))}


def _parsed(line: bytes) -> tuple[str, Mapping[str, JsonValue]]:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        request = None
    if not isinstance(request, dict) or set(request) != {"operation", "arguments"}:
        msg = "a request is a line of JSON with `operation` and `arguments`"
        raise InputError(msg, code="control.request")
    name, arguments = request["operation"], request["arguments"]
    if not isinstance(name, str) or not isinstance(arguments, dict):
        msg = "`operation` is a text, and `arguments` an object"
        raise InputError(msg, code="control.request")
    return name, arguments


async def _receive(connection: socket.socket) -> tuple[bytes, bytes]:
    """The first line, and what came behind it."""
    data = bytearray()
    while b"\n" not in data:
        await anyio.wait_readable(connection)
        part = connection.recv(_RECEIVE_BYTES)
        data += part
        if not part or len(data) > MAX_REQUEST_BYTES:
            msg = f"a request is one line of at most {MAX_REQUEST_BYTES} bytes"
            raise InputError(msg, code="control.request")
    line, _, rest = bytes(data).partition(b"\n")
    return line, rest


async def _send(connection: socket.socket, data: bytes) -> None:
    view = memoryview(data)
    while view:
        await anyio.wait_writable(connection)
        view = view[connection.send(view) :]


async def _discard(connection: socket.socket) -> None:
    """Say that no more comes, and read what is still sent: to close over unread bytes takes the answer away again."""
    connection.shutdown(socket.SHUT_WR)
    left = MAX_DISCARDED_BYTES
    while left > 0:
        await anyio.wait_readable(connection)
        part = connection.recv(_RECEIVE_BYTES)
        if not part:
            return
        left -= len(part)


def _bind(folder: Path) -> socket.socket:
    """A listening socket in the folder; what lies there from an owner that died is taken away.

    Raises:
        StoreUnavailable: Something else lies there, or it cannot be bound.
    """
    path = folder / SOCKET_NAME
    if os.path.lexists(path) and not path.is_socket():
        msg = f"`{path}` is no socket"
        raise StoreUnavailable(msg, code="unavailable.control", hint="move it away")
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        path.unlink(missing_ok=True)
        os.fchmod(bound.fileno(), 0o600)  # before it is bound, so that it is never there with another mode
        with short_path(folder) as short:
            bound.bind(f"{short}/{SOCKET_NAME}")
        path.chmod(0o600)
        bound.listen(MAX_CONNECTIONS)
        bound.setblocking(False)
    except OSError as error:
        bound.close()
        msg = f"cannot open the control socket `{path}`: {error.strerror or error}"
        raise StoreUnavailable(msg, code="unavailable.control") from error
    return bound


@contextmanager
def short_path(folder: Path) -> Iterator[str]:
    """A name of the folder that leaves room for a socket in it: the system takes 107 bytes in all."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


__all__ = ["OPERATIONS", "SOCKET_NAME", "Caller", "ControlSocket", "Operation", "Peer", "operate", "peer_of"]
