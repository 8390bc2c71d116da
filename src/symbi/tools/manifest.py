"""Operator manifests: what a server's tools are, which the server itself is not believed on.

```toml
[server]
name = "files"                 # as the configuration names it

[tools.read_log]               # a tool by its name on the server
recovery = "read-only"         # read-only | idempotent | reconcilable | never-retry (the default)
timeout_s = 10.0               # wall time of one call; the server's default where it is not given
max_output_bytes = 524288      # largest answer; MAX_TOOL_OUTPUT_BYTES where it is not given
```

Nothing else may stand in one. A tool that it does not name is `never-retry`.
"""

import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from symbi.errors import ConfigError, Place, did_you_mean
from symbi.tools.port import MAX_TOOL_OUTPUT_BYTES, SERVER_NAME, TOOL_NAME
from symbi.types import RecoveryClass

MIN_TIMEOUT_S: Final = 0.001  # what a call can end in at all
MAX_TIMEOUT_S: Final = 86_400.0  # a day; a tool that needs longer answers at once and is asked again


@dataclass(frozen=True, slots=True)
class ToolEntry:
    """What the operator says of one tool.

    Attributes:
        recovery: What may be done about a call that was in flight when the runtime died.
        timeout_s: Seconds of one call, or None for the server's default.
        max_output_bytes: Bytes of the largest answer.
    """

    recovery: RecoveryClass = RecoveryClass.NEVER_RETRY
    timeout_s: float | None = None
    max_output_bytes: int = MAX_TOOL_OUTPUT_BYTES


@dataclass(frozen=True, slots=True)
class Manifest:
    """One server's manifest; `tools` is by the name on the server."""

    server: str
    tools: Mapping[str, ToolEntry] = field(default_factory=dict)

    def entry(self, name: str) -> ToolEntry:
        """What is said of a tool; the careful default where nothing is."""
        return self.tools.get(name, _UNKNOWN)


_UNKNOWN: Final = ToolEntry()


def parse_manifest(file: str, text: str) -> Manifest:
    """Read a manifest.

    Args:
        file: Its name as the user gave it, for messages.
        text: Its content.

    Raises:
        ConfigError: It is not TOML, has an unknown or malformed key, or names no server; `place` says where.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+), column (\d+)", str(error))
        line, column = (int(found[1]), int(found[2])) if found else (max(len(text.splitlines()), 1), 1)
        msg = "not TOML"
        raise ConfigError(msg, code="config.toml", place=Place(file, line, column)) from error
    except RecursionError as error:
        msg = "a value is nested too deeply"
        raise ConfigError(msg, code="config.toml", place=Place(file, 1, 1)) from error
    reader = _Reader(file, text)
    reader.allow(document, ("server", "tools"), ())
    server = reader.table(document, "server", ())
    reader.allow(server, ("name",), ("server",))
    if "name" not in server:
        reader.fail("`server.name` is missing", ("server",), hint="it is the server's name in the configuration")
    name = reader.value(server, "name", ("server",), _is_text, "text")
    if not SERVER_NAME.fullmatch(name):
        reader.fail(f"`{name}` cannot name a server", ("server", "name"), hint="letters, digits, `_` and `-` can")
    return Manifest(name, {key: reader.entry(document, key) for key in reader.table(document, "tools", ())})


class _Reader:
    """Takes a document apart; a complaint names the line of the key it is about."""

    def __init__(self, file: str, text: str) -> None:
        self._file = file
        self._lines = text.splitlines()

    def entry(self, document: Mapping[str, Any], name: str) -> ToolEntry:
        path = ("tools", name)
        if not TOOL_NAME.fullmatch(name):
            self.fail(f"`{name}` cannot name a tool", path, hint="letters, digits, `_`, `-` and `.` can")
        table = self.table(document["tools"], name, ("tools",))
        self.allow(table, ("recovery", "timeout_s", "max_output_bytes"), path)
        recovery = self.value(table, "recovery", path, _is_text, "text") if "recovery" in table else "never-retry"
        if recovery not in set(RecoveryClass):
            known = [one.value for one in RecoveryClass]
            hint = did_you_mean(recovery, known) or f"one of {', '.join(known)}"
            self.fail(f"`{recovery}` is no recovery class", (*path, "recovery"), hint=hint)
        timeout_s = self.value(
            table, "timeout_s", path, _is_timeout, f"seconds from {MIN_TIMEOUT_S:g} to {MAX_TIMEOUT_S:g}"
        )
        most = self.value(table, "max_output_bytes", path, _is_size, f"a number from 1 to {MAX_TOOL_OUTPUT_BYTES}")
        return ToolEntry(
            RecoveryClass(recovery),
            None if timeout_s is None else float(timeout_s),
            MAX_TOOL_OUTPUT_BYTES if most is None else most,
        )

    def table(self, parent: Mapping[str, Any], key: str, path: tuple[str, ...]) -> Mapping[str, Any]:
        found = parent.get(key, {})
        if not isinstance(found, dict):
            self.fail(f"`{'.'.join((*path, key))}` must be a table", (*path, key))
        return found

    def value(
        self, table: Mapping[str, Any], key: str, path: tuple[str, ...], fits: Callable[[object], bool], what: str
    ) -> Any:
        """The value of a key, or None where it is not given."""
        if key in table and not fits(table[key]):
            self.fail(f"`{'.'.join((*path, key))}` must be {what}", (*path, key))
        return table.get(key)

    def allow(self, table: Mapping[str, Any], known: Iterable[str], path: tuple[str, ...]) -> None:
        for key in table:
            if key not in known:
                hint = did_you_mean(key, known) or f"known keys: {', '.join(known)}"
                self.fail(f"unknown key `{'.'.join((*path, key))}`", (*path, key), hint=hint)

    def fail(self, message: str, path: tuple[str, ...], *, hint: str | None = None) -> NoReturn:
        raise ConfigError(message, place=Place(self._file, self._line(path), 1), hint=hint)

    def _line(self, path: tuple[str, ...]) -> int:
        """Line of a key: the first that assigns it, or opens it, below the header of its table."""
        start = 0
        for depth, key in enumerate(path):
            name = rf"[\"']?{re.escape(key)}[\"']?"
            header = rf"\s*\[\s*(?:.*\.\s*)?{name}\s*[\].]"
            pattern = re.compile(rf"{header}|\s*(?:[\w\"'-]+\s*\.\s*){{0,{depth}}}{name}\s*[=.]|.*[{{,]\s*{name}\s*=")
            start = next((at for at in range(start, len(self._lines)) if pattern.match(self._lines[at])), start)
        return start + 1


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_timeout(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and MIN_TIMEOUT_S <= value <= MAX_TIMEOUT_S


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_TOOL_OUTPUT_BYTES
