# ruff: noqa: RUF009 - the calls make dataclass fields, as `field` does
"""The keys of `[gateway]` that say how MCP clients reach it by HTTP."""

from dataclasses import dataclass
from pathlib import Path

from symbi.config.declared import declare as _declare
from symbi.config.door_kinds import HostName, PageOrigin
from symbi.config.kinds import ByteSize, FilePath, Flag, Real, Several, Whole


@dataclass(frozen=True, slots=True)
class DoorSettings:
    """How `symbi mcp` is reached: without `http` over its standard streams, by the one who started it."""

    http: bool = _declare(
        default=False, kind=Flag(), meaning="`symbi mcp` serves HTTP, as with `--http`; else its standard streams"
    )
    host: str = _declare("127.0.0.1", HostName(), "address to listen on; only this machine reaches the default")
    port: int = _declare(8080, Whole(0, 65_535, "port"), "port to listen on; 0 takes a free one")
    tls_cert: Path | None = _declare(None, FilePath(), "PEM file of the certificate and its chain", unset="plain HTTP")
    tls_key: Path | None = _declare(None, FilePath(), "PEM file of its private key", unset="plain HTTP")
    behind_proxy: bool = _declare(
        default=False, kind=Flag(), meaning="a proxy in front does TLS, so plain HTTP beyond this machine is meant"
    )
    hosts: tuple[str, ...] = _declare(
        (), Several(HostName()), "names by which clients call it, without a port; `localhost` and `host` are known"
    )
    origins: tuple[str, ...] = _declare(
        (), Several(PageOrigin()), "pages whose scripts may ask, e.g. `https://chat.example.org`; others are refused"
    )
    max_connections: int = _declare(512, Whole(1, 100_000, "connections"), "connections at a time")
    max_requests: int = _declare(
        128, Whole(1, 10_000, "requests"), "requests of one client at a time, open streams among them"
    )
    max_body_bytes: int = _declare(4_194_304, ByteSize(1024, 2**30), "largest request")
    header_timeout_s: float = _declare(10.0, Real(0.05, 600, "seconds"), "how long the headers of a request may take")
    body_timeout_s: float = _declare(30.0, Real(0.05, 600, "seconds"), "how long its body may take")
    session_idle_s: float = _declare(
        1_800.0, Real(1, 604_800, "seconds"), "time without a request after which a session ends"
    )
