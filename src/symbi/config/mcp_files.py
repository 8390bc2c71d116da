"""Tool servers from files that other MCP clients write too: `mcpServers` of most, `servers` of VS Code, one server a file.

A file is data from outside: whoever wrote it wants a program to be run here. So nothing in it is expanded but variables
that the operator has listed, no secret of ours is handed to it, and what is not understood is not passed over: the
server is left out, with the reason. It is pure: text in, servers out.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from symbi.config.approval_kinds import Webhook
from symbi.config.kinds import BadValue, Command, FilePath, Variables, describe
from symbi.config.mcp_settings import Headers, ServerSettings
from symbi.errors import ConfigError, Place, did_you_mean
from symbi.tools.lookalike import OWN_PREFIX, keys_of

MAX_SERVERS: Final = 256  # of one file

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}", re.ASCII)
_EXPANSION: Final = re.compile(r"\$\{([^{}]*)\}")
_VARIABLE: Final = re.compile(r"(?:env:)?([A-Za-z_][A-Za-z0-9_]{0,127})(:-[^{}]*)?", re.ASCII)
_KNOWN: Final = ("command", "args", "env", "cwd", "url", "headers", "type", "transport", "disabled")
_PASSED_OVER: Final = frozenset(
    {
        "alwaysAllow",
        "autoApprove",
        "description",
        "name",
        "gallery",
        "timeout",
        "version",
        "dev",
        "note",
        "disabledTools",
    }
)
"""What other clients write and what says nothing to us: who may do what, and for how long, is said by policies and our own keys."""
_STDIO: Final = frozenset({"stdio"})
_HTTP: Final = frozenset({"http", "streamable-http", "streamableHttp", "streamable_http"})


@dataclass(frozen=True, slots=True)
class FoundServer:
    """A server that a file names.

    Attributes:
        settings: What it is, with defaults for all that only the operator says.
        file: The file, as it is shown.
        digest: SHA-256 (hex) of what it is: command, environment, folder, address and header fields as they are written.
        definition: That itself, as JSON; values of environment and header fields by their digests.
    """

    settings: ServerSettings
    file: str
    digest: str
    definition: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A server that a file names and that is not taken, or a whole file.

    Attributes:
        name: Its name, printable; empty for a whole file.
        file: The file, as it is shown.
        reason: Why; one line.
    """

    name: str
    file: str
    reason: str


def parse_server_file(
    text: str, file: str, folder: Path, environ: Mapping[str, str], expand: tuple[str, ...] = ()
) -> tuple[list[FoundServer], list[LeftOut]]:
    """The servers that a file names, and those of it that are left out.

    Args:
        text: JSON.
        file: Its name as it is shown; that of a registry's file, without its ending, names a server that has no name.
        folder: What its relative paths are seen from.
        environ: Variables.
        expand: Those of them that `${NAME}` may stand for.
    """
    try:
        servers = _servers(text, file)
    except ConfigError as error:
        return [], [LeftOut("", file, str(error))]
    found: list[FoundServer] = []
    left: list[LeftOut] = []
    for name, entry in servers.items():
        try:
            found.append(_server(name, entry, file, folder, _Expansion(environ, expand)))
        except (BadValue, ConfigError) as error:
            hint = f"; {error.hint}" if error.hint else ""
            left.append(LeftOut(_shown(name), file, f"{error.message}{hint}"))
    return found, left


def _servers(text: str, file: str) -> Mapping[str, Any]:
    """Name and entry of each server.

    Raises:
        ConfigError: It is no such file.
    """
    try:
        document = json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        msg = f"not valid JSON: {error.msg.lower()}"
        raise ConfigError(msg, code="config.syntax", place=Place(file, error.lineno, error.colno)) from None
    except (ValueError, RecursionError) as error:
        msg = f"not valid JSON: {error}" if isinstance(error, ValueError) else "not valid JSON: nested too deeply"
        raise ConfigError(msg, code="config.syntax", place=Place(file, 1, 1)) from None
    if not isinstance(document, dict):
        msg = f"must be an object with `mcpServers`, not {describe(document)}"
        raise ConfigError(msg, place=Place(file, 1, 1))
    if document.get("inputs"):
        msg = "asks for `inputs`, which nobody is there to give"
        hint = "configure the server in `[mcp.servers]`, with `vault://…` values in its `env`"
        raise ConfigError(msg, place=Place(file, 1, 1), hint=hint)
    if "command" in document or "url" in document:
        return {Path(file).stem: document}
    key = next((one for one in ("mcpServers", "servers") if one in document), None)
    if key is None:
        hint = did_you_mean(next(iter(document), ""), ("mcpServers", "servers")) or 'write { "mcpServers": { … } }'
        msg = "names no servers: it has neither `mcpServers` nor `servers`"
        raise ConfigError(msg, place=Place(file, 1, 1), hint=hint)
    servers = document[key]
    if not isinstance(servers, dict) or len(servers) > MAX_SERVERS:
        msg = f"`{key}` must be an object of at most {MAX_SERVERS} servers"
        raise ConfigError(msg, place=Place(file, 1, 1))
    return servers


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object each of whose keys stands in it once: two readers could take another one each."""
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        msg = f"`{_shown(twice)}` is there twice"
        raise ValueError(msg)
    return made


class _Expansion:
    """Puts the variables in that the operator has listed."""

    def __init__(self, environ: Mapping[str, str], expand: tuple[str, ...]) -> None:
        self._environ = environ
        self._expand = expand

    def of(self, text: object, what: str) -> str:
        """The text with its variables.

        Raises:
            BadValue: It is no text, or asks for something else.
        """
        if not isinstance(text, str):
            raise BadValue(f"`{what}` must be text, not {describe(text)}")
        whole = _EXPANSION.sub(lambda match: self._value(match[1], what), text)
        if "vault://" in whole:
            hint = "configure the server in `[mcp.servers]`"
            raise BadValue(f"`{what}` asks for a secret of ours, which no file of others is given", hint)
        return whole

    def _value(self, inner: str, what: str) -> str:
        match = _VARIABLE.fullmatch(inner)
        if match is None:
            raise BadValue(f"`{what}` asks for `${{{_shown(inner)}}}`, which is no variable", "write the value out")
        name = match[1]
        if name not in self._expand:
            hint = f'add it to `mcp.expand`: expand = ["{name}"]'
            raise BadValue(f"`{what}` asks for the variable `{name}`, which may not be expanded", hint)
        if name not in self._environ and match[2] is None:
            raise BadValue(f"`{what}` asks for the variable `{name}`, which is not set")
        return self._environ.get(name, (match[2] or ":-")[2:])


def _server(name: str, entry: object, file: str, folder: Path, expansion: _Expansion) -> FoundServer:
    """One server.

    Raises:
        BadValue: It cannot be taken.
    """
    if not _NAME.fullmatch(name):
        raise BadValue(
            "its name cannot name a server", "letters, digits, `_` and `-`, 64 at most, and no digit or `-` first"
        )
    if not isinstance(entry, dict):
        raise BadValue(f"must be an object, not {describe(entry)}")
    for key in entry:
        if key not in _KNOWN and key not in _PASSED_OVER:
            raise BadValue(f"has the key `{_shown(key)}`, which is not known", did_you_mean(key, _KNOWN))
    if not isinstance(entry.get("disabled", False), bool):
        raise BadValue(f"`disabled` must be true or false, not {describe(entry['disabled'])}")
    if entry.get("disabled"):
        raise BadValue("it is disabled there")
    kind = entry.get("type", entry.get("transport", "http" if "url" in entry else "stdio"))
    if kind not in _STDIO | _HTTP:
        hint = "streamable HTTP has the type `http`" if kind == "sse" else ""
        raise BadValue(f"is of type {describe(kind)}, which is not spoken", hint)
    if ("command" in entry) == ("url" in entry) or (kind in _HTTP) != ("url" in entry):
        raise BadValue("needs a `command`, or a `url` and the type `http`")
    values = dict(_values(entry, folder, expansion))
    raw = {key: entry[key] for key in ("command", "args", "env", "cwd", "url", "headers") if key in entry}
    raw |= {"folder": str(folder)}
    digest = hashlib.sha256(json.dumps(raw, sort_keys=True).encode()).hexdigest()
    for key in ("env", "headers"):
        if key in raw:
            raw[key] = {
                name: f"sha256:{hashlib.sha256(str(value).encode()).hexdigest()[:16]}"
                for name, value in raw[key].items()
            }
    return FoundServer(ServerSettings(name, **values), file, digest, json.dumps(raw, sort_keys=True))


def _values(entry: Mapping[str, Any], folder: Path, expansion: _Expansion) -> Iterator[tuple[str, Any]]:
    """The settings that the entry makes."""
    if "url" in entry:
        foreign = next((key for key in ("args", "env", "cwd") if key in entry), None)
        if foreign is not None:
            raise BadValue(f"has a `url`, which `{foreign}` does not go with")
        yield "url", Webhook().from_toml(expansion.of(entry["url"], "url"), folder)
        yield "headers", Headers().from_toml(_expanded(entry.get("headers", {}), "headers", expansion), folder)
        return
    if "headers" in entry:
        raise BadValue("has a `command`, which `headers` does not go with")
    arguments = entry.get("args", [])
    if not isinstance(arguments, list):
        raise BadValue(f"`args` must be a list, not {describe(arguments)}")
    parts = [entry["command"], *arguments]
    if any(isinstance(part, str) and "{python}" in part for part in parts):
        raise BadValue("`{python}` is for `[mcp.servers]` alone")
    yield "command", Command().from_toml([expansion.of(part, "command") for part in parts], folder)
    yield "env", Variables().from_toml(_expanded(entry.get("env", {}), "env", expansion), folder)
    yield "cwd", FilePath().from_toml(expansion.of(entry.get("cwd", "."), "cwd"), folder)


def _expanded(table: object, what: str, expansion: _Expansion) -> dict[str, str]:
    if not isinstance(table, dict):
        raise BadValue(f"`{what}` must be an object, not {describe(table)}")
    return {name: expansion.of(value, f"{what}.{_shown(name)}") for name, value in table.items()}


def _shown(text: str) -> str:
    """A text from a file, as a message quotes it."""
    return "".join(c if c.isascii() and c.isprintable() else f"<U+{ord(c):04X}>" for c in text[:80])


def choose_servers(
    configured: Sequence[str], found: Sequence[FoundServer], most: int
) -> tuple[tuple[FoundServer, ...], tuple[LeftOut, ...]]:
    """Those of the servers found whose names are their own, as many as there is room for, in their order.

    Args:
        configured: Names of the servers that the configuration names: none that is found may be, or look like, one of them.
        found: What files name.
        most: How many servers there may be.
    """
    names = {key: name for name in configured for key in keys_of(name)}
    taken: list[FoundServer] = []
    left: list[LeftOut] = []
    for one in found:
        name, keys = one.settings.name, keys_of(one.settings.name)
        other = next((names[key] for key in sorted(keys) if key in names), None)
        if other is not None:
            how = "is taken" if other == name else f"looks like `{other}`, which is taken"
            left.append(LeftOut(name, one.file, f"its name {how}"))
        elif any(key.startswith(own) for key in keys for own in keys_of(OWN_PREFIX)):
            left.append(LeftOut(name, one.file, f"its name is the runtime's own: none may begin with `{OWN_PREFIX}`"))
        elif len(configured) + len(taken) >= most:
            left.append(LeftOut(name, one.file, f"there are {most} already, as `mcp.max_concurrent_connections` says"))
        else:
            taken.append(one)
            names |= dict.fromkeys(keys, name)
    return tuple(taken), tuple(left)
