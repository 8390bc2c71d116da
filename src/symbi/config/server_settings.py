# ruff: noqa: RUF009 - the calls make dataclass fields, as `field` does
"""What is said of a tool server in the configuration."""

from dataclasses import dataclass
from pathlib import Path

from symbi.config.declared import declare as _declare
from symbi.config.declared import require as _require
from symbi.config.kinds import Command, FilePath, Real, Variables, Whole


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """`[mcp.servers.NAME]`: a tool server that is started as a process and spoken to over its standard streams."""

    name: str
    command: tuple[str, ...] = _require(
        Command(), "program and arguments, without a shell; `{python}` is the interpreter that runs Symbi"
    )
    env: tuple[tuple[str, str], ...] = _declare((), Variables(), "its environment; `vault://…` values resolve at start")
    cwd: Path | None = _declare(None, FilePath(), "its working folder", unset="the folder of the configuration file")
    manifest: Path | None = _declare(None, FilePath(), "what its tools are: recovery classes", unset="none")
    public_key: Path | None = _declare(None, FilePath(), "PEM file of the key that signs its tools", unset="none")
    timeout_s: float | None = _declare(
        None, Real(0.001, 86_400, "seconds"), "wall time of one call to it", unset="`limits.tool_timeout_s`"
    )
    max_concurrent: int = _declare(64, Whole(1, 64, "calls"), "calls to it at a time; further ones wait")
    max_waiting: int = _declare(
        256, Whole(0, 100_000, "calls"), "calls that wait for one of these to end; further ones are refused"
    )
    max_wait_s: float = _declare(30.0, Real(0.001, 3600, "seconds"), "the longest that a call waits for another to end")
    breaker_failures: int = _declare(
        5, Whole(0, 10_000, "failures"), "failures within the window after which it is left alone; 0: it never is"
    )
    breaker_window_s: float = _declare(30.0, Real(0.001, 86_400, "seconds"), "how long a failure counts")
    breaker_open_s: float = _declare(
        5.0,
        Real(0.001, 300, "seconds"),
        "how long it is left alone the first time; then twice as long each time, up to 300",
    )
