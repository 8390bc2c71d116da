"""The container engine, gVisor in it, and the image: what the container tiers stand on."""

import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from errno import ETIMEDOUT
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from io import BytesIO
from json import loads
from pathlib import Path
from socket import AF_UNIX, SOCK_STREAM, create_connection, socket
from typing import Final
from urllib.parse import quote, urlsplit

from symbi.adapters.machine.finding import Finding, named, printable
from symbi.clock import Clock, SystemClock
from symbi.errors import ConfigError
from symbi.sandbox.address import DEFAULT_HOST, EngineAddress, engine_address

ENGINE_TIMEOUT_S: Final = 2.0  # one question to the container engine
MAX_ANSWER_BYTES: Final = 4_194_304  # what is read of an answer of the engine
GVISOR_GAPS: Final = "write bandwidth is not bounded in it, and its own kernel takes part of the memory"
VERSION_TIMEOUT_S: Final = 5.0  # what a program may take to say its version
MAX_WARNINGS: Final = 4  # of the engine, that are shown
FILTER_ARGUMENT: Final = "--oci-seccomp"
MAKE_IMAGE: Final = (
    "make one with `symbi sandbox image`, and name it in `sandbox.image` or, for `run(…)` alone, in `sandbox.images`"
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the configuration says of containers.

    Attributes:
        host: Address of the engine; None for that of the environment.
        image: What code runs in; None where none is configured.
        runtimes: The engine's runtimes for tier 1 and tier 2.
        tls_verify, certificates, plain_tcp: How it is spoken to; see `symbi.sandbox.address`.
        images: What else programs run in.
    """

    host: str | None = None
    image: str | None = None
    runtimes: tuple[str, str] = ("runc", "runsc")
    tls_verify: bool | None = None
    certificates: Path | None = None
    plain_tcp: bool = False
    images: tuple[str, ...] = ()


NOTHING_WANTED: Final = Wanted()


def probe_engine(
    environ: Mapping[str, str], which: Callable[[str], str | None], wanted: Wanted = NOTHING_WANTED
) -> Iterator[Finding]:
    """The container engine, gVisor's runtime in it, and the image: what tiers 1 and 2 stand on."""
    info: Mapping[str, object] | None = None
    try:
        address = engine_address(
            wanted.host, environ, tls_verify=wanted.tls_verify, certificates=wanted.certificates, plain=wanted.plain_tcp
        )
        ask = _Questions(address)
        version = ask("/version").get("Version")
        info = ask("/info")
    except (OSError, HTTPException, ValueError, ConfigError) as error:
        where = _shown(wanted.host or environ.get("DOCKER_HOST", "").strip() or DEFAULT_HOST)
        hint = "for tiers `docker` and `gvisor`: install Docker Engine (package docker.io), or name it in DOCKER_HOST"
        if isinstance(error, PermissionError):
            hint = "let this account use the engine's socket, e.g. as a member of the group `docker`"
        if isinstance(error, ConfigError):
            hint = error.hint or hint
        yield Finding("docker", ok=False, detail=f"{where}: {named(error)}", install_hint=hint)
        yield _gvisor({}, which, wanted.runtimes[1])
        return
    yield _docker(version, info, _shown(address.url), wanted.runtimes[0])
    if warnings := _warnings(info):
        yield Finding("docker warnings", ok=True, detail="; ".join(warnings))
    yield _gvisor(info, which, wanted.runtimes[1])
    if wanted.image is not None:
        yield _probe_image(ask, "sandbox image", wanted.image)
    else:
        what = "no container runs `python(…)`" if wanted.images else "no container tier is used"
        yield Finding("sandbox image", ok=False, detail=f"none is configured: {what}", install_hint=MAKE_IMAGE)
    for image in dict.fromkeys(wanted.images):
        if image != wanted.image:
            yield _probe_image(ask, "program image", image)


def _docker(version: object, info: Mapping[str, object], where: str, container: str) -> Finding:
    shown = version if isinstance(version, str) and version.isprintable() else "of unknown version"
    gaps = tuple(_gaps(info))
    lacks = "a filter of system calls" in gaps or container not in _runtimes(info)
    detail = f"engine {shown[:40]} at {where}, runtime `{container}`" + (f"; without {', '.join(gaps)}" if gaps else "")
    hint = f"tier `docker` needs runtime `{container}` and a kernel with seccomp" if lacks else ""
    return Finding("docker", ok=not lacks, detail=detail, install_hint=hint)


def _gvisor(info: Mapping[str, object], which: Callable[[str], str | None], gvisor: str) -> Finding:
    path = which("runsc")
    runtimes = _runtimes(info)
    if gvisor in runtimes:
        release = f" ({_version_of(path)})" if path is not None else ""
        reads = _reads_filter(runtimes[gvisor])
        if reads is False:
            detail = f"{gvisor} is a runtime of the engine{release}, without `{FILTER_ARGUMENT}`: it leaves our filter of system calls out, so no code runs in it"
            hint = f'add "{FILTER_ARGUMENT}" to its "runtimeArgs" in the engine\'s daemon.json'
            return Finding("gvisor", ok=False, detail=detail, install_hint=hint)
        unsure = (
            "" if reads else f"; whether it has `{FILTER_ARGUMENT}` the engine does not say: its first sandbox will"
        )
        return Finding("gvisor", ok=True, detail=f"{gvisor} is a runtime of the engine{release}; {GVISOR_GAPS}{unsure}")
    if path is not None:
        detail, hint = f"`{path}` is no runtime of an engine that answers", "register runsc in the engine's daemon.json"
    else:
        detail, hint = "no runsc on PATH", "install gVisor (package runsc) and register it in the engine's daemon.json"
    return Finding("gvisor", ok=False, detail=detail, install_hint=hint)


def _runtimes(info: Mapping[str, object]) -> Mapping[str, object]:
    found = info.get("Runtimes")
    return found if isinstance(found, dict) else {}


def _reads_filter(runtime: object) -> bool | None:
    """Whether a runsc is told to read a container's filter of system calls; None where the engine does not say how it is started."""
    if not isinstance(runtime, dict) or not isinstance(runtime.get("path"), str):
        return None  # started by a shim, with a configuration of its own
    arguments = runtime.get("runtimeArgs")
    said = [one for one in (arguments if isinstance(arguments, list) else []) if isinstance(one, str)]
    told = [
        one.lstrip("-").partition("=")[2] for one in said if one.lstrip("-").partition("=")[0] == FILTER_ARGUMENT[2:]
    ]
    return bool(told) and told[-1].lower() in {"", "true", "1", "t"}


def _warnings(info: Mapping[str, object]) -> list[str]:
    """What the engine warns of, as `docker info` shows it."""
    found = info.get("Warnings")
    said = [one for one in (found if isinstance(found, list) else []) if isinstance(one, str)]
    more = [f"and {len(said) - MAX_WARNINGS} more"] if len(said) > MAX_WARNINGS else []
    return [printable(" ".join(one.split()).removeprefix("WARNING: ")) for one in said[:MAX_WARNINGS]] + more


def _gaps(info: Mapping[str, object]) -> Iterator[str]:
    """What an engine says that it does not have, of what sandboxes ask of it."""
    options = info.get("SecurityOptions")
    have = " ".join(map(str, options)) if isinstance(options, list) else ""
    if "name=seccomp" not in have:
        yield "a filter of system calls"
    if "name=apparmor" not in have and "name=selinux" not in have:
        yield "AppArmor or SELinux"
    if "name=userns" not in have and "name=rootless" not in have:
        yield "user namespaces"
    for name, shown in (("MemoryLimit", "memory limits"), ("SwapLimit", "swap limits"), ("PidsLimit", "process limits"), ("CpuCfsQuota", "processor quotas")):  # fmt: skip
        if info.get(name) is not True:
            yield shown


def _probe_image(ask: "_Questions", name: str, image: str) -> Finding:
    """Whether an image can be used: the engine has just that one, and a container of it has no writable disk.

    The configuration knows images by digest alone; there is nothing left to look at in a name.
    """
    shown = f"`{printable(image)}`"
    try:
        found = ask(f"/images/{quote(image, safe=':@/')}/json")
    except (OSError, HTTPException, ValueError) as error:
        return Finding(name, ok=False, detail=f"{shown} is not in the engine: {named(error)}", install_hint=MAKE_IMAGE)
    config = found.get("Config")
    if isinstance(config, dict) and config.get("Volumes"):
        detail = f"{shown} declares volumes, which would be writable disk without a bound: nothing runs in it"
        return Finding(name, ok=False, detail=detail, install_hint="make an image of it without `VOLUME`")
    size = found.get("Size")
    return Finding(name, ok=True, detail=f"{shown}, {size // 2**20} MiB" if isinstance(size, int) else shown)


def _version_of(program: str) -> str:
    """The first line of what a program says of its version."""
    try:
        said = subprocess.run(  # noqa: S603 - the runtime that the engine runs too
            [program, "--version"], capture_output=True, text=True, check=False, timeout=VERSION_TIMEOUT_S
        ).stdout
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return "of unknown version"
    lines = said.splitlines()
    return printable(lines[0])[:60] if lines else "of unknown version"


class _Questions:
    """Asks an engine, one connection for each question.

    Raises:
        ConfigError: Its certificates cannot be used.
    """

    def __init__(self, address: EngineAddress) -> None:
        self._address = address
        self._context = address.context()

    def __call__(self, path: str) -> Mapping[str, object]:
        """One question to the engine: each of its addresses is tried for `ENGINE_TIMEOUT_S`, and one that takes it answers in that time or not at all.

        Raises:
            OSError: It cannot be reached in time, or its address is of a kind that is not spoken here.
            HTTPException: It does not speak HTTP.
            ValueError: It answers something else than a JSON object.
        """
        parts = urlsplit(self._address.url)
        clock = SystemClock()
        with ExitStack() as stack:
            if parts.scheme == "unix" and parts.path:
                line = stack.enter_context(socket(AF_UNIX, SOCK_STREAM))
                line.settimeout(ENGINE_TIMEOUT_S)
                line.connect(parts.path)
            elif parts.scheme in {"tcp", "http", "https"} and parts.hostname:
                where = (parts.hostname, self._address.port)
                line = stack.enter_context(create_connection(where, ENGINE_TIMEOUT_S))  # of either family
            else:
                msg = "only unix:// and tcp:// addresses can be asked from here"
                raise OSError(msg)
            deadline_s = clock.monotonic_s() + ENGINE_TIMEOUT_S
            if self._context is not None:
                line = stack.enter_context(self._context.wrap_socket(line, server_hostname=parts.hostname))
            line.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
            return _object(_received(line, clock, deadline_s))


def _received(line: socket, clock: Clock, deadline_s: float) -> bytes:
    """All that comes, until the end, the deadline, or too much."""
    answer = bytearray()
    while len(answer) <= MAX_ANSWER_BYTES:
        left_s = deadline_s - clock.monotonic_s()
        if left_s <= 0:
            raise TimeoutError(ETIMEDOUT, "does not answer in time")
        line.settimeout(left_s)
        part = line.recv(65_536)
        if not part:
            break
        answer += part
    return bytes(answer)


class _Received:
    """What was read from a socket, for the standard library's parser of responses."""

    def __init__(self, received: bytes) -> None:
        self._received = received

    def makefile(self, mode: str) -> BytesIO:
        del mode
        return BytesIO(self._received)


def _object(received: bytes) -> Mapping[str, object]:
    response = HTTPResponse(_Received(received))  # type: ignore[arg-type]  # only makefile is called
    response.begin()
    decoded = loads(response.read()) if response.status == HTTPStatus.OK else None
    if not isinstance(decoded, dict):
        msg = f"answers {response.status} with {len(received)} bytes that are no JSON object"
        raise ValueError(msg)  # noqa: TRY004 - a wrong answer, not a wrong type of ours
    return decoded


def _shown(address: str) -> str:
    """An address without what may be a secret in it."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return "DOCKER_HOST"
    return printable(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}")
