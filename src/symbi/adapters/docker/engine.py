"""The Docker Engine's API over its socket: as much of it as a sandbox needs, each question bounded in time and size.

The API is HTTP; attaching to a container upgrades the connection to a raw stream. Nothing here judges.
"""

import json
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from types import TracebackType
from typing import IO, Any, Final, Self
from urllib.parse import quote, urlsplit

import anyio
import anyio.to_thread
import httpcore2
import httpx2

from symbi.adapters.docker.local import LocalTransport
from symbi.errors import ConfigError, SandboxUnavailable
from symbi.sandbox.address import PLAIN_PORT, TLS_PORT

API_VERSION: Final = (1, 41)  # Docker 20.10; a newer engine that no longer speaks it is asked in its oldest
MAX_ANSWER_BYTES: Final = 8_388_608  # what is read of one answer
MAX_MESSAGE_CHARS: Final = 300  # of an engine's own text in an error
QUESTION_TIMEOUT_S: Final = 10.0  # one question, where the caller sets no other bound
IMPORT_TIMEOUT_S: Final = 300.0  # an image's content
PIECE_BYTES: Final = 1_048_576
LIMITS: Final = httpx2.Limits(max_connections=None, max_keepalive_connections=4)  # each attached container holds one

_INSTALL: Final = "install Docker Engine (package docker.io) and start it, or name it in `sandbox.docker_host`"


class RawStream:
    """Both directions of a container's standard streams.

    Args:
        stream: The upgraded connection.
    """

    def __init__(self, stream: httpcore2.AsyncNetworkStream) -> None:
        self._stream = stream
        self._buffer = bytearray()
        self.stderr = bytearray()

    async def send(self, data: bytes) -> None:
        """Write to standard input.

        Raises:
            SandboxUnavailable: The connection is gone.
        """
        try:
            await self._stream.write(data)
        except (httpcore2.NetworkError, OSError) as error:
            raise _lost() from error

    async def receive(self, most_stderr: int) -> bytes:
        """The next piece of standard output; empty at its end. Standard error is kept aside, its beginning only.

        Raises:
            SandboxUnavailable: The connection is gone, or what comes is no stream of a container.
        """
        while True:
            head = await self._exactly(8)
            if head is None:
                return b""
            piece = await self._exactly(int.from_bytes(head[4:], "big"))
            if piece is None or head[0] not in {1, 2} or head[1:4] != b"\0\0\0":
                msg = "what the engine sends is no stream of a container"
                raise SandboxUnavailable(msg, code="unavailable.engine")
            if head[0] == 1:
                if piece:
                    return piece
            else:
                self.stderr += piece[: max(0, most_stderr - len(self.stderr))]

    async def _exactly(self, count: int) -> bytes | None:
        if count > MAX_ANSWER_BYTES:
            return None
        while len(self._buffer) < count:
            try:
                piece = await self._stream.read(65_536)
            except (httpcore2.NetworkError, OSError) as error:
                raise _lost() from error
            if not piece:
                return None
            self._buffer += piece
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken


class Engine:
    """A client of one engine.

    Args:
        host: `unix:///path` or `tcp://host:port`; see `symbi.sandbox.address`, which also says whether it may be used.
        context: How an engine at a host is spoken to under TLS; None for one that is not.

    Attributes:
        made: Ids by names of containers that it makes, has, or is removing; empty ids while they are being made.

    Raises:
        ConfigError: The address is of a kind that is not spoken.
    """

    def __init__(self, host: str, context: ssl.SSLContext | None = None) -> None:
        self.host = host
        parts = urlsplit(host)
        if parts.scheme == "unix" and parts.path:
            transport: httpx2.AsyncBaseTransport = LocalTransport(parts.path, LIMITS)
            base = "http://docker"
        elif parts.scheme in {"tcp", "http", "https"} and parts.hostname:
            name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
            if context is None and parts.scheme == "https":
                msg = f"`{host}` is spoken to under TLS, and there are no certificates for it"
                raise ConfigError(msg, code="config.engine_certificates")
            if context is None:
                transport = httpx2.AsyncHTTPTransport(trust_env=False, limits=LIMITS)
                base = f"http://{name}:{parts.port or PLAIN_PORT}"
            else:
                transport = httpx2.AsyncHTTPTransport(verify=context, trust_env=False, limits=LIMITS)
                base = f"https://{name}:{parts.port or TLS_PORT}"
        else:
            msg = f"`{host}` is no address of an engine that can be used from here"
            raise ConfigError(msg, code="config.value", hint="write `unix:///path` or `tcp://host:port`")
        self._client = httpx2.AsyncClient(transport=transport, base_url=base, trust_env=False, timeout=None)
        self._prefix: str | None = None
        self.made: dict[str, str] = {}  # containers that this process makes, has, or is removing: name to id

    async def __aenter__(self) -> Self:
        """Nothing is sent yet."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        with anyio.CancelScope(shield=True):
            await self._client.aclose()

    async def version(self) -> Mapping[str, Any]:
        """What the engine says of itself.

        Raises:
            SandboxUnavailable: It does not answer, here and in all that follows.
        """
        found = await self._ask("GET", "/version", versioned=False)
        if not isinstance(found, dict) or not isinstance(found.get("ApiVersion"), str):
            msg = f"what answers at `{self.host}` is no Docker Engine"
            raise SandboxUnavailable(msg, code="unavailable.engine", hint=_INSTALL)
        oldest = str(found.get("MinAPIVersion", ""))
        wanted = ".".join(map(str, API_VERSION))
        self._prefix = f"/v{oldest}" if _number(oldest) > API_VERSION else f"/v{wanted}"
        return found

    async def info(self) -> Mapping[str, Any]:
        """Its runtimes, security options and warnings."""
        found = await self._ask("GET", "/info")
        return found if isinstance(found, dict) else {}

    async def image(self, reference: str) -> Mapping[str, Any] | None:
        """What is known of an image that the engine has; None where it has none."""
        found = await self._ask("GET", f"/images/{quote(reference, safe='/:@')}/json", absent=True)
        return found if isinstance(found, dict) else None

    async def import_image(self, root: IO[bytes], reference: str, changes: Sequence[str]) -> str:
        """Make an image of a tar archive, and give its id."""

        async def pieces() -> AsyncIterator[bytes]:
            while piece := await anyio.to_thread.run_sync(root.read, PIECE_BYTES):
                yield piece

        name, _, tag = reference.partition(":")
        params: dict[str, Any] = {"fromSrc": "-", "repo": name, "tag": tag or "latest", "changes": list(changes)}
        path = await self._path("/images/create")
        said = await self._bytes(
            self._client.build_request(
                "POST", path, params=params, content=pieces(), headers={"Content-Type": "application/x-tar"}
            ),
            IMPORT_TIMEOUT_S,
        )
        for line in reversed(said[1].splitlines()):
            told = json.loads(line)
            if "error" in told:
                msg = f"the engine refuses the image: {str(told['error'])[:MAX_MESSAGE_CHARS]}"
                raise SandboxUnavailable(msg, code="unavailable.engine")
            if str(told.get("status", "")).startswith("sha256:"):
                return str(told["status"])
        msg = "the engine does not say which image it made"
        raise SandboxUnavailable(msg, code="unavailable.engine")

    async def create(self, name: str, spec: Mapping[str, Any], timeout_s: float) -> str:
        """Make a container, not yet running, and give its id.

        Raises:
            SandboxUnavailable: Likewise, or the engine refuses; nothing is left behind then that has another name.
        """
        self.made[name] = ""
        made = await self._ask("POST", "/containers/create", params={"name": name}, body=spec, timeout_s=timeout_s)
        if not isinstance(made, dict) or not isinstance(made.get("Id"), str):
            msg = "the engine does not say which container it made"
            raise SandboxUnavailable(msg, code="unavailable.engine")
        self.made[name] = str(made["Id"])
        return self.made[name]

    async def start(self, container: str, timeout_s: float) -> None:
        """Start a container."""
        await self._ask("POST", f"/containers/{container}/start", timeout_s=timeout_s)

    async def inspect(self, container: str) -> Mapping[str, Any] | None:
        """How a container is; None where there is none."""
        found = await self._ask("GET", f"/containers/{container}/json", absent=True)
        return found if isinstance(found, dict) else None

    async def stats(self, container: str, timeout_s: float) -> Mapping[str, Any]:
        """What a container uses, by the engine's next look at it."""
        params = {"stream": "false", "one-shot": "true"}
        found = await self._ask(
            "GET", f"/containers/{container}/stats", params=params, absent=True, timeout_s=timeout_s
        )
        return found if isinstance(found, dict) else {}

    async def wait(self, container: str, timeout_s: float) -> None:
        """Return once a container has ended."""
        await self._ask("POST", f"/containers/{container}/wait", absent=True, timeout_s=timeout_s)

    async def has_met(self, container: str, event: str, timeout_s: float) -> bool:
        """Whether something has happened to a container, or happens to it within a time, as the engine's events tell.

        Raises:
            SandboxUnavailable: They cannot be read.
        """
        params = {"since": "1", "filters": json.dumps({"container": [container], "event": [event]})}
        request = self._client.build_request("GET", await self._path("/events"), params=params)
        told = b""
        with self._translating("GET /events"), anyio.move_on_after(timeout_s):
            response = await self._client.send(request, stream=True)
            try:
                if response.status_code != HTTPStatus.OK:
                    return False
                async for piece in response.aiter_raw():
                    *lines, told = (told + piece).split(b"\n")
                    if any(_action(line) == event for line in lines) or len(told) > MAX_ANSWER_BYTES:
                        return len(told) <= MAX_ANSWER_BYTES
            finally:
                with anyio.CancelScope(shield=True):
                    await response.aclose()
        return False

    async def remove(self, container: str, timeout_s: float | None = None) -> None:
        """Kill a container and remove it with its volumes; one that is not there is no error.

        Whether that works or not, it is not this process's any more: what stays is found by its label.
        """
        try:
            await self._ask(
                "DELETE",
                f"/containers/{container}",
                params={"force": "true", "v": "true"},
                absent=True,
                timeout_s=timeout_s,
            )
        finally:
            for name in [name for name, id_ in self.made.items() if container in {name, id_}]:
                del self.made[name]

    def is_ours(self, found: Mapping[str, Any]) -> bool:
        """Whether a container of a listing was made by this process, which is not done with it."""
        names = {str(name).removeprefix("/") for name in found.get("Names") or ()}
        return not names.isdisjoint(self.made) or found.get("Id") in self.made.values()

    async def containers(self, label: str) -> Sequence[Mapping[str, Any]]:
        """All containers with a label (`name` or `name=value`), running or not."""
        params = {"all": "true", "filters": json.dumps({"label": [label]})}
        found = await self._ask("GET", "/containers/json", params=params)
        return found if isinstance(found, list) else []

    async def networks(self, label: str) -> Sequence[Mapping[str, Any]]:
        """All networks with a label."""
        found = await self._ask("GET", "/networks", params={"filters": json.dumps({"label": [label]})})
        return found if isinstance(found, list) else []

    async def remove_network(self, network: str) -> None:
        """Remove a network that nothing uses; one that is not there is no error."""
        await self._ask("DELETE", f"/networks/{network}", absent=True)

    async def volumes(self, label: str) -> Sequence[Mapping[str, Any]]:
        """All volumes with a label."""
        found = await self._ask("GET", "/volumes", params={"filters": json.dumps({"label": [label]})})
        listed = found.get("Volumes") if isinstance(found, dict) else None
        return listed if isinstance(listed, list) else []

    async def remove_volume(self, volume: str) -> None:
        """Remove a volume that nothing uses; one that is not there is no error."""
        await self._ask("DELETE", f"/volumes/{quote(volume, safe='')}", absent=True)

    @asynccontextmanager
    async def attach(self, container: str, timeout_s: float) -> AsyncIterator[RawStream]:
        """Both directions of a container's standard streams."""
        path = await self._path(f"/containers/{container}/attach")
        request = self._client.build_request(
            "POST", path, params={"stream": "1", "stdin": "1", "stdout": "1", "stderr": "1"},
            headers={"Connection": "Upgrade", "Upgrade": "tcp"},
        )  # fmt: skip
        with self._translating("attach to a container"):
            with anyio.fail_after(timeout_s):
                response = await self._client.send(request, stream=True)
        try:
            stream = response.extensions.get("network_stream")
            if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS or stream is None:
                msg = f"the engine answers {response.status_code} where a stream was asked for"
                raise SandboxUnavailable(msg, code="unavailable.engine")
            yield RawStream(stream)
        finally:
            with anyio.CancelScope(shield=True):
                await response.aclose()

    async def _path(self, path: str) -> str:
        if self._prefix is None:
            await self.version()
        return f"{self._prefix}{path}"

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        absent: bool = False,
        versioned: bool = True,
        timeout_s: float | None = None,
    ) -> Any:
        full = await self._path(path) if versioned else path
        request = self._client.build_request(method, full, params=params, json=body)
        status, content = await self._bytes(request, QUESTION_TIMEOUT_S if timeout_s is None else timeout_s)
        if absent and status == HTTPStatus.NOT_FOUND:
            return None
        told: Any = None
        if content:
            try:
                told = json.loads(content)
            except (ValueError, RecursionError) as error:
                msg = f"what answers at `{self.host}` is no Docker Engine"
                raise SandboxUnavailable(msg, code="unavailable.engine", hint=_INSTALL) from error
        if status >= HTTPStatus.BAD_REQUEST:
            said = str(told.get("message", "")) if isinstance(told, dict) else ""
            msg = f"the engine answers {status}: {' '.join(said.split())[:MAX_MESSAGE_CHARS] or 'without a reason'}"
            raise SandboxUnavailable(msg, code="unavailable.engine", status=status)
        return told

    async def _bytes(self, request: httpx2.Request, timeout_s: float) -> tuple[int, bytes]:
        content = bytearray()
        with self._translating(f"{request.method} {request.url.path}"):
            with anyio.fail_after(timeout_s):
                response = await self._client.send(request, stream=True)
                try:
                    async for piece in response.aiter_raw():
                        content += piece
                        if len(content) > MAX_ANSWER_BYTES:
                            msg = f"what answers at `{self.host}` says more than an engine would"
                            raise SandboxUnavailable(msg, code="unavailable.engine")
                finally:
                    with anyio.CancelScope(shield=True):
                        await response.aclose()
        return response.status_code, bytes(content)

    def _translating(self, what: str) -> "_Translating":
        return _Translating(self.host, what)


class _Translating:
    """The one place where errors of the client become ours."""

    def __init__(self, host: str, what: str) -> None:
        self._host = host
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, TimeoutError):
            msg = f"the engine at `{self._host}` does not answer in time: {self._what}"
            raise SandboxUnavailable(
                msg, code="unavailable.engine", hint="see whether the Docker Engine hangs"
            ) from None
        if isinstance(error, httpx2.HTTPError | httpcore2.NetworkError | httpcore2.ProtocolError | OSError):
            hint = _INSTALL
            if _caused_by(error, PermissionError):
                hint = "let the account that runs the runtime use the socket, e.g. as a member of the group `docker`"
            msg = f"no engine can be used at `{self._host}`: {_root(error)}"
            raise SandboxUnavailable(msg, code="unavailable.engine", hint=hint) from error


def _caused_by(error: BaseException | None, kind: type[BaseException]) -> bool:
    while error is not None:
        if isinstance(error, kind):
            return True
        error = error.__cause__ or error.__context__
    return False


def _root(error: BaseException) -> str:
    """The innermost reason, on one line."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    text = (error.strerror if isinstance(error, OSError) and error.strerror else str(error)) or type(error).__name__
    return " ".join(text.split())[:MAX_MESSAGE_CHARS]


def _action(line: bytes) -> object:
    """What an event says that happened; None where it is none."""
    try:
        told = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return told.get("Action") if isinstance(told, dict) else None


def _lost() -> SandboxUnavailable:
    return SandboxUnavailable("the connection to the sandbox was lost", code="unavailable.sandbox_died")


def _number(version: str) -> tuple[int, ...]:
    parts = version.split(".")
    return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else ()
