# ruff: noqa: RUF009 - the calls make dataclass fields, as `field` does
"""Every key of `[sandbox]`: the container engine, and what a container may take."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from symbi.config.declared import declare as _declare
from symbi.config.kinds import Address, BadValue, FilePath, Flag, Kind, Real, Several, Whole, describe
from symbi.dsl.builtins import IMAGE
from symbi.sandbox.files import KEPT_VARIABLES

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)
_USER: Final = re.compile(r"([0-9]{1,10}):([0-9]{1,10})", re.ASCII)
_RUNTIME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
MAX_ID: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Image(Kind[str]):
    """An image by what is in it: a tag alone may be another image tomorrow."""

    @property
    def name(self) -> str:
        """For the reference."""
        return "image: `name@sha256:…`, or an id `sha256:…`"

    def from_toml(self, value: object, base: Path) -> str:
        """A string that ends in a digest."""
        del base
        if not isinstance(value, str) or not IMAGE.fullmatch(value):
            hint = "write `name@sha256:…`; `symbi sandbox image` makes one and prints its id"
            raise BadValue(f"must name an image by digest, not {describe(value)}", hint)
        return value


@dataclass(frozen=True, slots=True)
class EngineAddress(Address):
    """Where a Docker Engine listens."""

    schemes: tuple[str, ...] = ("unix", "tcp")

    @property
    def name(self) -> str:
        """For the reference."""
        return "URL: `unix:///path` or `tcp://host:port`"

    def from_toml(self, value: object, base: Path) -> str:
        """A string with a path or a host."""
        text = Address.from_toml(self, value, base)
        parts = urlsplit(text)
        whole = parts.path.startswith("/") and not parts.netloc if parts.scheme == "unix" else bool(parts.hostname)
        if not whole:
            raise BadValue(f"names no engine: {describe(text)}", "write `unix:///path` or `tcp://host:port`")
        return text


@dataclass(frozen=True, slots=True)
class RuntimeName(Kind[str]):
    """The name of one of the engine's runtimes."""

    @property
    def name(self) -> str:
        """For the reference."""
        return "name of a runtime"

    def from_toml(self, value: object, base: Path) -> str:
        """A string of letters, digits, `_`, `.` and `-`."""
        del base
        if not isinstance(value, str) or not _RUNTIME.fullmatch(value):
            raise BadValue(f"must be the name of a runtime, not {describe(value)}", "`docker info` lists them")
        return value


@dataclass(frozen=True, slots=True)
class VariableName(Kind[str]):
    """The name of a variable of the environment, of those that we do not set ourselves."""

    @property
    def name(self) -> str:
        """For the reference."""
        return "name of an environment variable"

    def from_toml(self, value: object, base: Path) -> str:
        """A string of letters, digits and `_`."""
        del base
        if not isinstance(value, str) or not _VARIABLE.fullmatch(value):
            raise BadValue(f"must be the name of an environment variable, not {describe(value)}")
        if value in KEPT_VARIABLES or value.startswith("LD_"):
            raise BadValue(f"names `{value}`, which no program is given by an agent")
        return value


@dataclass(frozen=True, slots=True)
class UserNumbers(Kind[str]):
    """Numbers of a user and a group that are not root's."""

    @property
    def name(self) -> str:
        """For the reference."""
        return "text: numbers of user and group, `uid:gid`"

    def from_toml(self, value: object, base: Path) -> str:
        """Two numbers from 1 on."""
        del base
        found = _USER.fullmatch(value) if isinstance(value, str) else None
        if found is None:
            raise BadValue(f"must be two numbers, `uid:gid`, not {describe(value)}")
        if not all(0 < int(number) <= MAX_ID for number in found.groups()):
            raise BadValue(f"must not be root's, nor beyond {MAX_ID}: {describe(value)}", "`65534:65534` is nobody")
        return f"{int(found[1])}:{int(found[2])}"


@dataclass(frozen=True, slots=True)
class SandboxSettings:
    """`[sandbox]`."""

    docker_host: str | None = _declare(
        None,
        EngineAddress(),
        "the Docker Engine: `unix:///path` or `tcp://host:port`",
        unset="`DOCKER_HOST`, else `unix:///var/run/docker.sock`",
    )
    docker_tls_verify: bool | None = _declare(
        None, Flag(), "whether an engine at `tcp://` is spoken to under TLS", unset="whether `DOCKER_TLS_VERIFY` is set"
    )
    docker_cert_path: Path | None = _declare(
        None,
        FilePath(),
        "folder of `ca.pem`, `cert.pem` and `key.pem` for it",
        unset="`DOCKER_CERT_PATH`, else `DOCKER_CONFIG`, else `.docker` of the account",
    )
    docker_plain_tcp: bool = _declare(
        False, Flag(), "an engine on another machine may be spoken to without TLS, by anybody who answers in its place"
    )
    runtime_tier1: str = _declare("runc", RuntimeName(), "the engine's runtime for tier `docker`")
    runtime_tier2: str = _declare("runsc", RuntimeName(), "the engine's runtime for tier `gvisor`")
    image: str | None = _declare(
        None, Image(), "what `python(…)` runs in; it holds a `python3` of 3.8 or newer", unset="no container tiers"
    )
    images: tuple[str, ...] = _declare(
        (), Several(Image()), "images that `run(…)` may name, beside `image`; each holds a `python3` of 3.8 or newer"
    )
    env: tuple[str, ...] = _declare((), Several(VariableName()), "environment variables that `run(…)` may set")
    user: str = _declare("65534:65534", UserNumbers(), "who the code is inside, never root")
    pids: int = _declare(64, Whole(8, 32_768, "processes"), "processes and threads of one sandbox")
    cpu_cores: float = _declare(1.0, Real(0.01, 1024, "cores"), "processor time of one sandbox")
    tmpfs_mib: int = _declare(16, Whole(1, 65_536, "MiB"), "size of `/tmp`, which counts as memory")
    output_bytes: int = _declare(65_536, Whole(1, 2**26, "bytes"), "what code in a container may print")
    open_files: int = _declare(256, Whole(16, 1_048_576, "files"), "files that a process may have open")
    file_size_mib: int = _declare(16, Whole(1, 1_048_576, "MiB"), "largest file that a process may write")
    containers: int = _declare(8, Whole(1, 1024, "containers"), "sandboxes of a tier at a time; more work waits")
    warm: int = _declare(0, Whole(0, 64, "containers"), "sandboxes of a tier that are kept ready, each for one use")
    egress_connections: int = _declare(
        256,
        Whole(1, 65_536, "connections"),
        "connections of one program that was granted a network, refused ones among them",
    )
    egress_sent_mib: int = _declare(16, Whole(1, 1_048_576, "MiB"), "what it may send over all of them")
    egress_received_mib: int = _declare(64, Whole(1, 1_048_576, "MiB"), "what it may be sent")
    egress_kib_s: int = _declare(
        8192, Whole(64, 1_048_576, "KiB/s"), "how fast, both directions together; after a burst of one second's worth"
    )
    start_timeout_s: float = _declare(
        30.0, Real(0.1, 600, "seconds"), "how long a sandbox may take to start and to be looked at"
    )
