"""Reads a configuration: command line over environment over file over default.

Nothing is guessed: a section, key or `SYMBI_…` variable that is not declared, a value of another type or out of
range, and two variables that say different things of one key are errors with their place and a hint.
"""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from symbi.config.agent_settings import AgentSettings
from symbi.config.collection_settings import CollectionSettings, DocumentRuleSettings
from symbi.config.declared import Key
from symbi.config.gateway_settings import ClientSettings
from symbi.config.kinds import BadValue, OneOf, describe
from symbi.config.lines import Position, key_places
from symbi.config.mcp_settings import OF_A_URL, ServerSandbox, ServerSettings
from symbi.config.sections import (
    CONFIG_PATH_VARIABLE,
    FOREIGN_PREFIXES,
    KEYS,
    SECTIONS,
    TABLE_KEYS,
    TABLES,
    PersonSettings,
)
from symbi.config.settings import Origin, OriginKind, Settings
from symbi.config.topic_settings import TopicSettings
from symbi.errors import ConfigError, Place, did_you_mean

CONFIG_NAME: Final = "symbi.toml"
MAX_CONFIG_BYTES: Final = 1_048_576  # bounds what is read and parsed as configuration
MAX_TABLES: Final = 10_000  # bounds the agents, and the tool servers, that one file names

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}", re.ASCII)
_AT: Final = re.compile(r"\(at line (\d+), column (\d+)\)")


def load_settings(
    config: Path | None = None,
    *,
    overrides: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Settings:
    """Find the configuration file, read it, and put environment and command line on top.

    Args:
        config: The file, as the command line names it; else `SYMBI_CONFIG_PATH`, else `find_config(cwd)`.
        overrides: Values from the command line by `section.key`: as text, or of the key's own type.
        environ: Environment variables; the process's own if None.
        cwd: Working folder; the process's own if None.

    Raises:
        ConfigError: The file cannot be read, or something in file, environment or overrides is wrong.
    """
    environ = os.environ if environ is None else environ
    cwd = Path.cwd() if cwd is None else cwd
    named = config
    if named is None and CONFIG_PATH_VARIABLE in environ:
        if not environ[CONFIG_PATH_VARIABLE].strip():
            msg = f"`{CONFIG_PATH_VARIABLE}` is empty"
            raise ConfigError(msg, hint="name a file or unset it")
        named = Path(environ[CONFIG_PATH_VARIABLE])
    file = cwd / named if named is not None else find_config(cwd)
    text = None if file is None else _read(file)
    return parse_settings(text, file=file, cwd=cwd, environ=environ, overrides=overrides or {})


def find_config(start_dir: Path) -> Path | None:
    """The nearest `symbi.toml` in a folder or in those above it; None where there is none.

    Raises:
        ConfigError: The nearest one belongs to another user, neither us nor root: it would choose what we run.
    """
    start = start_dir.absolute()
    for folder in (start, *start.parents):
        file = folder / CONFIG_NAME
        try:
            owner = file.stat().st_uid
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            msg = f"cannot look at `{file}`: {_reason(error)}"
            raise ConfigError(msg, code="config.unreadable") from error
        if owner not in {os.geteuid(), 0}:
            msg = f"`{file}` belongs to another user"
            raise ConfigError(msg, code="config.foreign", hint="name it with --config if you trust it")
        return file
    return None


def parse_settings(
    text: str | None,
    *,
    file: Path | None,
    cwd: Path,
    environ: Mapping[str, str],
    overrides: Mapping[str, object],
) -> Settings:
    """Settings from the text of a file (None: there is none), variables and overrides; reads nothing else.

    Args:
        text: TOML.
        file: Where the text came from; its folder is what its relative paths are seen from.
        cwd: What relative paths of environment and overrides are seen from.
        environ: Environment variables.
        overrides: Values by `section.key`.

    Raises:
        ConfigError: Something is wrong; `place` is set where it is in the file.
    """
    reader = _Reader(file, cwd, environ, overrides)
    if text is not None:
        reader.parse(text)
    reader.refuse_unknown_names()
    sections: dict[str, Any] = {name: cls(**reader.section(name)) for name, cls in SECTIONS.items()}
    servers = tuple(_server(reader, one) for one in reader.named_tables("mcp.servers"))
    most = sections["mcp"].max_concurrent_connections
    if len(servers) > most:
        msg = f"{len(servers)} tool servers are configured, but `mcp.max_concurrent_connections` is {most}"
        raise ConfigError(msg, place=reader.place(("mcp", "servers")), hint="raise it or remove servers")
    clients = tuple(ClientSettings(**one) for one in reader.named_tables("mcp.clients"))
    sections["mcp"] = replace(sections["mcp"], servers=servers, clients=clients)
    collections = tuple(CollectionSettings(**one) for one in reader.named_tables("knowledge.collections"))
    rules = tuple(DocumentRuleSettings(**one) for one in reader.named_tables("knowledge.rules"))
    sections["knowledge"] = replace(sections["knowledge"], collections=collections, rules=rules)
    people = tuple(PersonSettings(**one) for one in reader.named_tables("approvals.people"))
    sections["approvals"] = replace(sections["approvals"], people=people)
    return Settings(
        folder=reader.folder,
        file=file,
        **sections,
        agents=tuple(AgentSettings(**one) for one in reader.named_tables("agents")),
        topics=tuple(TopicSettings(**one) for one in reader.named_tables("topics")),
        origins=MappingProxyType(reader.origins),
        spelled=MappingProxyType(reader.spelled),
    )


def _server(reader: "_Reader", values: Mapping[str, Any]) -> ServerSettings:
    """A tool server: a command or an address, and nothing that belongs to the other."""
    server = ServerSettings(**values)
    path = ("mcp", "servers", server.name)
    table = f"[{'.'.join(path)}]"
    if server.command is None and server.url is None:
        msg = f"{table} has neither `command` nor `url`"
        raise ConfigError(msg, code="config.missing", place=reader.place(path), hint="it needs one of them")
    foreign = OF_A_URL if server.url is None else ("command", "env", "cwd", "sandbox", "image", "memory_mb")
    for name in foreign:
        if name in values:
            has = "command" if server.url is None else "url"
            msg = f"{table} has a `{has}`, which `{name}` does not go with"
            raise ConfigError(msg, code="config.conflict", place=reader.place((*path, name)), hint="remove one of them")
    kept = server.sandbox is not ServerSandbox.NONE
    if kept and server.image is None:
        msg = f"{table} has a `sandbox` and no `image`"
        raise ConfigError(msg, code="config.missing", place=reader.place((*path, "sandbox")), hint="name one by digest")
    wrong = [name for name in (("cwd",) if kept else ("image", "memory_mb")) if name in values]
    if wrong:
        msg = f"{table} has {'a' if kept else 'no'} `sandbox`, which `{wrong[0]}` does not go with"
        raise ConfigError(msg, code="config.conflict", place=reader.place((*path, wrong[0])), hint="remove one of them")
    return server


class _Reader:
    """One reading: the sources, and what has been found of origins so far."""

    def __init__(
        self, file: Path | None, cwd: Path, environ: Mapping[str, str], overrides: Mapping[str, object]
    ) -> None:
        self.folder = file.parent if file is not None else cwd
        self.origins: dict[str, Origin] = {}
        self.spelled: dict[str, str] = {}
        self._cwd = cwd
        self._environ = environ
        self._overrides = overrides
        self._shown = _relative(file, cwd) if file is not None else CONFIG_NAME
        self._data: Mapping[str, Any] = {}
        self._places: Mapping[tuple[str, ...], Position] = {}

    def parse(self, text: str) -> None:
        """Parse the file and note where its keys stand."""
        try:
            self._data = tomllib.loads(text)
            self._places = key_places(text)
        except RecursionError as error:
            msg = f"`{self._shown}` is nested too deeply"
            raise ConfigError(msg, code="config.syntax") from error
        except ValueError as error:  # also integers of more digits than Python reads
            at = _AT.search(str(error))
            line, column = (int(at[1]), int(at[2])) if at else (text.count("\n") + 1, 1)
            reason = _AT.sub("", str(error)).strip()
            msg = f"not valid TOML: {reason[:1].lower()}{reason[1:]}"
            raise ConfigError(msg, code="config.syntax", place=Place(self._shown, line, column)) from error

    def place(self, path: tuple[str, ...]) -> Place:
        """Where a key of the file stands; where the nearest table around it stands, if it is not found itself."""
        while path and path not in self._places:
            path = path[:-1]
        return Place(self._shown, *self._places.get(path, (1, 1)))

    def refuse_unknown_names(self) -> None:
        """Sections, variables and overrides that nothing declares."""
        known = {*SECTIONS, *(name for name in TABLES if "." not in name)}
        for name in self._data:
            if name not in known:
                homes = [key.section for key in KEYS.values() if key.field == name]
                hint = f"`{name}` belongs in [{homes[0]}]" if homes else did_you_mean(name, known)
                msg = f"unknown section {_quoted(name)}"
                raise ConfigError(msg, code="config.unknown", place=self.place((name,)), hint=hint or None)
        variables = {CONFIG_PATH_VARIABLE, *(name for key in KEYS.values() for name in key.variables)}
        for name in sorted(self._environ):
            if name.startswith("SYMBI_") and name not in variables and not name.startswith(FOREIGN_PREFIXES):
                msg = f"unknown environment variable {_quoted(name)}"
                raise ConfigError(msg, code="config.unknown", hint=did_you_mean(name, variables) or None)
        for name in self._overrides:
            if name not in KEYS or KEYS[name].secret:
                secret = name in KEYS
                msg = f"{_quoted(name)} {'is secret and not for the command line' if secret else 'is no known key'}"
                hint = f"set `{KEYS[name].variables[0]}`" if secret else did_you_mean(name, KEYS)
                raise ConfigError(msg, code="config.unknown", hint=hint or None)

    def section(self, section: str) -> dict[str, object]:
        """The values of a section, by field."""
        table = self._table((section,))
        keys = {key.field: key for key in KEYS.values() if key.section == section}
        subtables = {name.rpartition(".")[2] for name in TABLES if name.startswith(f"{section}.")}
        self._refuse_unknown_keys((section,), table, {*keys, *subtables})
        return {name: self._value(key, table) for name, key in keys.items()}

    def named_tables(self, section: str) -> Iterator[dict[str, Any]]:
        """The values of each table of a section of named tables, by field, with the name."""
        path = tuple(section.split("."))
        tables = self._table(path)
        if len(tables) > MAX_TABLES:
            msg = f"[{section}] has {len(tables)} tables; at most {MAX_TABLES} are allowed"
            raise ConfigError(msg, place=self.place(path))
        keys = TABLE_KEYS[section]
        for name in sorted(tables):
            where = (*path, name)
            if not _NAME.fullmatch(name):
                msg = f"{_quoted(name)} is no name for a table of [{section}]"
                hint = "letters, digits, `_` and `-`, 64 at most, and no digit or `-` first"
                raise ConfigError(msg, place=self.place(where), hint=hint)
            table = self._table(where)
            self._refuse_unknown_keys(where, table, set(keys))
            values: dict[str, Any] = {"name": name}
            for field, key in keys.items():
                full = f"{section}.{name}.{field}"
                if field in table:
                    values[field] = self._from_file(full, key, (*where, field), table[field])
                elif key.required:
                    msg = f"[{section}.{name}] has no `{field}`"
                    raise ConfigError(msg, code="config.missing", place=self.place(where), hint=key.meaning)
            yield values

    def _table(self, path: tuple[str, ...]) -> Mapping[str, Any]:
        table: Any = self._data
        for length, part in enumerate(path, 1):
            table = table.get(part, {})
            if not isinstance(table, dict):
                msg = f"`{'.'.join(path[:length])}` must be a table, not {describe(table)}"
                raise ConfigError(msg, place=self.place(path[:length]), hint=f"write [{'.'.join(path[:length])}]")
        return table  # type: ignore[no-any-return]  # each step was seen to be a table

    def _refuse_unknown_keys(self, path: tuple[str, ...], table: Mapping[str, Any], known: set[str]) -> None:
        for name in table:
            if name not in known:
                homes = [key.section for key in KEYS.values() if key.field == name]
                hint = did_you_mean(name, known) or (f"it belongs in [{homes[0]}]" if homes else "")
                msg = f"unknown key {_quoted(name)} in [{'.'.join(path)}]"
                raise ConfigError(msg, code="config.unknown", place=self.place((*path, name)), hint=hint or None)

    def _value(self, key: Key, table: Mapping[str, Any]) -> object:
        """The value of one key, from the strongest source that has it; weaker ones are still checked."""
        value = key.kind.anchor(key.default, self.folder) if key.default is not None else None
        if key.field in table:
            value = self._from_file(key.name, key, (key.section, key.field), table[key.field])
        given = {name: self._environ[name] for name in key.variables if self._set(name)}
        if given:
            values = [self._taken(key, f"`{one}`", None, given[one], Origin(OriginKind.ENV, one)) for one in given]
            if any(one != values[0] for one in values):
                msg = f"{' and '.join(f'`{one}`' for one in given)} disagree"
                raise ConfigError(msg, code="config.conflict", hint="unset one of them")
            value = values[0]
            self.origins[key.name] = Origin(OriginKind.ENV, next(iter(given)))
        if key.name in self._overrides:
            origin = Origin(OriginKind.CLI, "command line")
            value = self._taken(key, f"`{key.name}`", None, self._overrides[key.name], origin)
        return value

    def _from_file(self, name: str, key: Key, path: tuple[str, ...], raw: object) -> object:
        place = self.place(path)
        origin = Origin(OriginKind.FILE, f"{place.file}:{place.line}", place)
        return self._taken(replace(key, name=name), f"`{name}`", place, raw, origin)

    def _taken(self, key: Key, subject: str, place: Place | None, raw: object, origin: Origin) -> object:
        """Read one raw value, and note its origin."""
        base = self.folder if origin.kind is OriginKind.FILE else self._cwd
        try:
            if isinstance(raw, str) and origin.kind is not OriginKind.FILE:
                value = key.kind.from_text(raw, base)
            else:
                value = key.kind.from_toml(raw, base)
        except BadValue as error:
            msg = f"{subject} {error.message}"
            raise ConfigError(msg, code="config.value", place=place, hint=error.hint or None) from error
        self.origins[key.name] = origin
        self.spelled.pop(key.name, None)
        if isinstance(key.kind, OneOf) and isinstance(raw, str) and raw.strip().lower() in key.kind.aliases:
            self.spelled[key.name] = raw.strip().lower()
        return value

    def _set(self, name: str) -> bool:
        """Whether a variable says something. One that other programs know too may be empty; ours may not."""
        if name not in self._environ:
            return False
        if self._environ[name].strip():
            return True
        if name.startswith("SYMBI_"):
            msg = f"`{name}` is empty"
            raise ConfigError(msg, code="config.value", hint="give it a value or unset it")
        return False


def _read(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        msg = f"cannot read the configuration file `{file}`: {_reason(error)}"
        raise ConfigError(msg, code="config.unreadable") from error
    if len(raw) > MAX_CONFIG_BYTES:
        msg = f"`{file}` is larger than {MAX_CONFIG_BYTES} bytes"
        raise ConfigError(msg, code="config.unreadable")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        msg = "not valid UTF-8"
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(msg, code="config.syntax", place=Place(str(file), line, 1)) from error


def _relative(file: Path, cwd: Path) -> str:
    return str(file.relative_to(cwd)) if file.is_relative_to(cwd) else str(file)


def _reason(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()


def _quoted(name: str) -> str:
    return f"`{name}`" if name.isprintable() and len(name) <= 100 else f"of {len(name)} characters"  # noqa: PLR2004 - one line
