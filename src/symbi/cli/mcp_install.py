"""`symbi mcp install`: what common MCP clients have to be told, in the form and place that each of them reads.

Nothing is written: these files belong to other programs. No token is printed either; what is printed names a variable or
asks, in the way that the client knows.
"""

import json
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, TypeAlias

import typer
from rich.markup import escape

from symbi.api.mcp.clients import client_of
from symbi.cli.options import Config
from symbi.cli.output import err, errors_to_exit, out
from symbi.config import Settings, load_settings
from symbi.errors import InputError, did_you_mean

NAME: Final = "symbi"  # under which the gateway stands in a client's configuration
TOKEN_VARIABLE: Final = "SYMBI_MCP_TOKEN"  # noqa: S105 - the name of a variable
PATH: Final = "/mcp"

Entry: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Told:
    """What there is to tell.

    Attributes:
        command: Program and arguments that speak over their standard streams.
        url: Where the gateway answers by HTTP; None for standard streams.
    """

    command: tuple[str, ...]
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """A client.

    Attributes:
        title: Its name.
        where: The file that it reads.
        text: What has to stand there, or be run.
        http: Whether it takes an address there.
        where_http: The file for that, if it is another.
    """

    title: str
    where: str
    text: Callable[[Told], str]
    http: bool = True
    where_http: str = ""


def _stdio(told: Told) -> dict[str, Any]:
    return {"command": told.command[0], "args": list(told.command[1:])}


def _bearer(variable: str) -> dict[str, Any]:
    return {"Authorization": f"Bearer {variable}"}


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _servers(key: str, variable: str, **fixed: str) -> Callable[[Told], str]:
    """The form of most: a table of servers; `key` is how it calls an address, `variable` how it writes the token's."""

    def text(told: Told) -> str:
        entry = _stdio(told) if told.url is None else {**fixed, key: told.url, "headers": _bearer(variable)}
        return _json({"mcpServers": {NAME: entry}})

    return text


def _vscode(told: Told) -> str:
    if told.url is None:
        return _json({"servers": {NAME: {"type": "stdio", **_stdio(told)}}})
    asked = {"type": "promptString", "id": "symbi-token", "description": "Token of the gateway", "password": True}
    entry = {"type": "http", "url": told.url, "headers": _bearer("${input:symbi-token}")}
    return _json({"inputs": [asked], "servers": {NAME: entry}})


def _zed(told: Told) -> str:
    # Zed reads no variables in this file.
    entry = _stdio(told) if told.url is None else {"url": told.url, "headers": _bearer("PUT-THE-TOKEN-HERE")}
    return _json({"context_servers": {NAME: entry}})


def _toml(value: object) -> str:
    # As JSON writes texts, but for what TOML has otherwise: no halves of signs beyond U+FFFF, and no DEL as it is.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _codex(told: Told) -> str:
    if told.url is None:
        rows = [f"command = {_toml(told.command[0])}", f"args = {_toml(list(told.command[1:]))}"]
    else:
        rows = [f"url = {_toml(told.url)}", f'bearer_token_env_var = "{TOKEN_VARIABLE}"']
    return "\n".join((f"[mcp_servers.{NAME}]", *rows))


def _claude_code(told: Told) -> str:
    if told.url is None:
        return f"claude mcp add {NAME} -- {shlex.join(told.command)}"
    entry = {"type": "http", "url": told.url, "headers": _bearer(f"${{{TOKEN_VARIABLE}}}")}
    return _json({"mcpServers": {NAME: entry}})


CLIENTS: Final[Mapping[str, Known]] = MappingProxyType(
    {
        "claude-desktop": Known(
            "Claude Desktop",
            "claude_desktop_config.json (Settings, Developer, Edit Config)",
            _servers("url", ""),
            http=False,
        ),
        "claude-code": Known("Claude Code", "a shell", _claude_code, where_http=".mcp.json in the project"),
        "cursor": Known("Cursor", "~/.cursor/mcp.json", _servers("url", f"${{env:{TOKEN_VARIABLE}}}")),
        "vscode": Known("VS Code", ".vscode/mcp.json", _vscode),
        "windsurf": Known(
            "Windsurf", "~/.codeium/windsurf/mcp_config.json", _servers("serverUrl", f"${{env:{TOKEN_VARIABLE}}}")
        ),
        "zed": Known("Zed", "settings.json (command palette: open settings file)", _zed),
        "codex": Known("Codex CLI", "~/.codex/config.toml", _codex),
        "gemini": Known("Gemini CLI", "~/.gemini/settings.json", _servers("httpUrl", f"${TOKEN_VARIABLE}")),
        "generic": Known("any other client", "its own", _servers("url", f"${{{TOKEN_VARIABLE}}}", type="http")),
    }
)
"""By the names that the command takes."""


def install(
    client: Annotated[str, typer.Argument(help=f"One of {', '.join(CLIENTS)}.")],
    *,
    http: Annotated[bool, typer.Option("--http", help="By the address of a gateway that runs, with a token.")] = False,
    url: Annotated[
        str | None, typer.Option(help="That address, where `gateway.host` and `gateway.port` do not say it.")
    ] = None,
    name: Annotated[
        str, typer.Option("--client", help="Who the client is to policies, over standard streams.")
    ] = "local",
    config: Config = None,
) -> None:
    """Print what an MCP client has to be told to use the gateway. Nothing is written."""
    with errors_to_exit():
        known = CLIENTS.get(client)
        if known is None:
            msg = f"`{client}` is no client that is known here"
            hint = did_you_mean(client, CLIENTS) or f"there are {', '.join(CLIENTS)}"
            raise InputError(msg, code="input.client", hint=hint)
        wants_http = http or url is not None
        if wants_http and not known.http:
            msg = f"{known.title} reads no address from its configuration file"
            raise InputError(msg, code="input.client", hint="leave `--http` out: it starts the gateway itself")
        settings = load_settings(config)
        if not wants_http:
            client_of(settings, name)  # else the client would start a gateway that does not know it
            _tell_without_file(settings)
        told = Told(_command(settings, name), (url or address(settings)) if wants_http else None)
        where = (known.where_http if wants_http else "") or known.where
        err.print(f"[dim]for {known.title}: {escape(where)}[/]", highlight=False)
        if wants_http:
            err.print(
                f"[dim]the token is what `symbi mcp clients add NAME` printed; export it as {TOKEN_VARIABLE} "
                "where the text names that[/]",
                highlight=False,
            )
        out.print(known.text(told), highlight=False, markup=False, emoji=False, soft_wrap=True)


def _tell_without_file(settings: Settings) -> None:
    if settings.file is None:
        err.print(
            "[dim]there is no symbi.toml here or above: the gateway would look for one where the client starts it, and "
            "serve nothing without; `symbi init` makes one, `--config FILE` names one[/]",
            highlight=False,
        )


def _command(settings: Settings, name: str) -> tuple[str, ...]:
    """What starts the gateway, wherever the client starts it from."""
    program = shutil.which(sys.argv[0]) or shutil.which("symbi")
    start = (
        (str(Path(program).absolute()),)
        if program and Path(program).name == "symbi"
        else (sys.executable, "-m", "symbi.cli.main")
    )
    named = () if settings.file is None else ("--config", str(settings.file.absolute()))
    return (*start, "mcp", *named, "--client", name)


def address(settings: Settings) -> str:
    """Where the gateway of a configuration answers."""
    gateway = settings.gateway
    scheme = "https" if gateway.tls_cert else "http"
    host = gateway.hosts[0] if gateway.hosts else gateway.host
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{gateway.port}{PATH}"
