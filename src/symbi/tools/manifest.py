"""Operator manifests: what a server's tools are, which the server itself is not believed on.

```toml
[server]
name = "mail"                  # as the configuration names it
risk = "medium"                # for tools that say nothing; likewise `effect` and `output`

[tools.send_email]             # a tool by its name on the server
recovery = "never-retry"       # read-only | idempotent | reconcilable | never-retry (the default)
timeout_s = 10.0               # wall time of one call; the server's default where it is not given
max_output_bytes = 524288      # largest answer; MAX_TOOL_OUTPUT_BYTES where it is not given
risk = "high"                  # low | medium (the default) | high
effect = "send"                # read | fetch | write | send | run | any (the default)
sinks = ["recipients", "cc"]   # arguments that decide where something goes
text = ["subject", "body"]     # free text: addresses, URLs and account numbers in it are sinks
plain = ["priority"]           # neither; an argument that is not named is a sink
types = { priority = "integer" }
subject_argument = "recipients"    # who a call and its answer are about: the path of an argument, or a list of them
subject_field = "threads[*].from"  # likewise, the path of a field of the answer; see docs/security/confidentiality.md

[tools.send_email.output]      # labels of the answer's fields; what is not named is untrusted
id = "system"
sent_to = { integrity = "trusted", confidentiality = "internal", categories = ["contacts"] }

[tools.pay.query]              # of a reconcilable tool: how to ask whether a call happened; see `symbi.tools.query`
```

Where the whole answer has one label, `output` is that label: `"trusted"`, `{ confidentiality = "confidential" }`. Nothing
else may stand in a manifest. A tool that it does not name is `never-retry`, and all of its arguments are sinks.
"""

import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, NoReturn, TypeVar

from symbi.errors import ConfigError, InputError, Place, did_you_mean
from symbi.policy.fields import UNDECLARED, Effect, FieldPath, OutputRule, Risk, Role, ToolFlow, parse_path
from symbi.tools.port import MAX_TOOL_OUTPUT_BYTES, SERVER_NAME, TOOL_NAME
from symbi.tools.query import ARGUMENTS, EFFECT_ID, RecoveryQuery
from symbi.types import Confidentiality, Integrity, RecoveryClass

MIN_TIMEOUT_S: Final = 0.001  # what a call can end in at all
MAX_TIMEOUT_S: Final = 86_400.0  # a day; a tool that needs longer answers at once and is asked again

MAX_SUBJECT_PATHS: Final = 8  # of one tool
MAX_CATEGORIES: Final = 16  # of one rule; a label joins them and is not cut
CATEGORY: Final = re.compile(r"[a-z0-9_-]{1,32}")

_KindT = TypeVar("_KindT", bound=StrEnum)
_DefaultT = TypeVar("_DefaultT")

_ROLE_KEYS: Final[Mapping[str, Role]] = MappingProxyType({"sinks": Role.SINK, "text": Role.TEXT, "plain": Role.PLAIN})
_SUBJECT_KEYS: Final = ("subject_argument", "subject_field")
_TOOL_KEYS: Final = (
    "recovery", "timeout_s", "max_output_bytes", "risk", "effect", *_ROLE_KEYS, "types", "output", *_SUBJECT_KEYS, "query"
)  # fmt: skip
_QUERY_KEYS: Final = ("tool", "arguments", "field", "happened", "not_happened", "result", "after_s")
_LABEL_KEYS: Final = ("integrity", "confidentiality", "categories")
_INTEGRITIES: Final = tuple(one.value for one in (Integrity.SYSTEM, Integrity.TRUSTED, Integrity.UNTRUSTED))
_TYPES: Final = ("string", "integer", "number", "boolean", "array", "object")


@dataclass(frozen=True, slots=True)
class ToolEntry:
    """What the operator says of one tool.

    Attributes:
        recovery: What may be done about a call that was in flight when the runtime died.
        timeout_s: Seconds of one call, or None for the server's default.
        max_output_bytes: Bytes of the largest answer.
        flow: Effect, risk, sinks, and the labels of the answer's fields.
        query: How to ask whether a call happened, of a reconcilable tool; None where only a person can say.
    """

    recovery: RecoveryClass = RecoveryClass.NEVER_RETRY
    timeout_s: float | None = None
    max_output_bytes: int = MAX_TOOL_OUTPUT_BYTES
    flow: ToolFlow = UNDECLARED
    query: RecoveryQuery | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """One server's manifest; `tools` is by the name on the server, `rest` is for those that it does not name."""

    server: str
    tools: Mapping[str, ToolEntry] = field(default_factory=dict)
    rest: ToolEntry = field(default_factory=ToolEntry)

    def entry(self, name: str) -> ToolEntry:
        """What is said of a tool; the careful default where nothing is."""
        return self.tools.get(name, self.rest)


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
    reader.allow(server, ("name", "risk", "effect", "output"), ("server",))
    if "name" not in server:
        reader.fail("`server.name` is missing", ("server",), hint="it is the server's name in the configuration")
    name = reader.value(server, "name", ("server",), _is_text, "text")
    if not SERVER_NAME.fullmatch(name):
        reader.fail(f"`{name}` cannot name a server", ("server", "name"), hint="letters, digits, `_` and `-` can")
    rest = reader.defaults(server)
    tools = {key: reader.entry(document, key, rest) for key in reader.table(document, "tools", ())}
    reader.check_queries(tools)
    return Manifest(name, tools, ToolEntry(flow=rest))


class _Reader:
    """Takes a document apart; a complaint names the line of the key it is about."""

    def __init__(self, file: str, text: str) -> None:
        self._file = file
        self._lines = text.splitlines()

    def defaults(self, server: Mapping[str, Any]) -> ToolFlow:
        """What holds for the tools of the server that do not say otherwise."""
        path = ("server",)
        whole = (self._rule("$", server["output"], (*path, "output")),) if "output" in server else ()
        return ToolFlow(
            effect=self._one_of(server, "effect", path, Effect, Effect.ANY),
            risk=self._one_of(server, "risk", path, Risk, Risk.MEDIUM),
            output=whole,
        )

    def entry(self, document: Mapping[str, Any], name: str, rest: ToolFlow) -> ToolEntry:
        path = ("tools", name)
        if not TOOL_NAME.fullmatch(name):
            self.fail(f"`{name}` cannot name a tool", path, hint="letters, digits, `_`, `-` and `.` can")
        table = self.table(document["tools"], name, ("tools",))
        self.allow(table, _TOOL_KEYS, path)
        recovery = self._one_of(table, "recovery", path, RecoveryClass, RecoveryClass.NEVER_RETRY)
        timeout_s = self.value(
            table, "timeout_s", path, _is_timeout, f"seconds from {MIN_TIMEOUT_S:g} to {MAX_TIMEOUT_S:g}"
        )
        most = self.value(table, "max_output_bytes", path, _is_size, f"a number from 1 to {MAX_TOOL_OUTPUT_BYTES}")
        return ToolEntry(
            recovery,
            None if timeout_s is None else float(timeout_s),
            MAX_TOOL_OUTPUT_BYTES if most is None else most,
            self._flow(table, path, rest),
            self._query(table, path, recovery),
        )

    def _query(self, table: Mapping[str, Any], path: tuple[str, ...], recovery: RecoveryClass) -> RecoveryQuery | None:
        """How to ask whether a call of a tool happened."""
        if "query" not in table:
            return None
        at = (*path, "query")
        said = self.table(table, "query", path)
        self.allow(said, _QUERY_KEYS, at)
        if recovery is not RecoveryClass.RECONCILABLE:
            self.fail(f"`{'.'.join(at)}` is of no use", at, hint=f'write `recovery = "{RecoveryClass.RECONCILABLE}"`')
        for key in ("tool", "field", "happened"):
            if key not in said:
                self.fail(f"`{'.'.join((*at, key))}` is missing", at)
        happened = self.value(said, "happened", at, _is_values, "a list of texts, numbers, booleans")
        absent = self.value(said, "not_happened", at, _is_values, "a list of texts, numbers, booleans") or []
        both = [one for one in absent if any(type(one) is type(other) and one == other for other in happened)]
        if both:
            self.fail(f"`{both[0]}` says both that it happened and that it did not", (*at, "not_happened"))
        after_s = self.value(said, "after_s", at, _is_delay, f"seconds from 0 to {MAX_TIMEOUT_S:g}")
        return RecoveryQuery(
            tool=self.value(said, "tool", at, _is_text, "text"),
            arguments=self._query_arguments(said, at),
            decides=self._field(self.value(said, "field", at, _is_text, "text"), (*at, "field")),
            happened=tuple(happened),
            not_happened=tuple(absent),
            result=self._field(self.value(said, "result", at, _is_text, "text"), (*at, "result"))
            if "result" in said
            else None,
            after_s=None if after_s is None else float(after_s),
        )

    def _query_arguments(self, said: Mapping[str, Any], path: tuple[str, ...]) -> Mapping[str, Any]:
        arguments = self.table(said, "arguments", path)
        for name, value in arguments.items():
            at = (*path, "arguments", name)
            if not isinstance(value, str | int | float):
                self.fail(f"`{'.'.join(at)}` must be text, a number or a boolean", at)
            text = value if isinstance(value, str) else ""
            if text.startswith("$") and text != EFFECT_ID and not text.removeprefix(ARGUMENTS).isidentifier():
                hint = f"`{EFFECT_ID}` is our effect id, `{ARGUMENTS}NAME` an argument of the call"
                self.fail(f"`{value}` stands for nothing", at, hint=hint)
        return dict(arguments)

    def _field(self, written: str, path: tuple[str, ...]) -> FieldPath:
        """A path that leads to one value: names alone, or `$`."""
        found = self._path(written, path)
        if found.names or any(wild is not None for _, wild in found.segments):
            self.fail(f"`{written}` may lead to several values", path, hint="name one field, e.g. `payment.status`")
        return found

    def check_queries(self, tools: Mapping[str, ToolEntry]) -> None:
        """Each query asks a tool of which the manifest says that it changes nothing."""
        for name, entry in tools.items():
            query = entry.query
            asked = None if query is None else tools.get(query.tool)
            if query is not None and (asked is None or asked.recovery is not RecoveryClass.READ_ONLY):
                path = ("tools", name, "query", "tool")
                hint = f'declare `[tools.{query.tool}]` with `recovery = "{RecoveryClass.READ_ONLY}"`'
                self.fail(f"`{query.tool}` is no read-only tool of this server", path, hint=hint)

    def _flow(self, table: Mapping[str, Any], path: tuple[str, ...], rest: ToolFlow) -> ToolFlow:
        roles: dict[str, tuple[FieldPath, Role]] = {}
        for key, role in _ROLE_KEYS.items():
            for written in self.value(table, key, path, _is_texts, "a list of argument paths") or ():
                found = self._path(written, (*path, key))
                if found.names:
                    self.fail(f"`{written}` names names, which are no arguments", (*path, key))
                if written in roles:
                    self.fail(f"`{written}` is declared twice", (*path, key), hint="an argument has one role")
                roles[written] = found, role
        types = self.table(table, "types", path)
        for name, kind in types.items():
            if kind not in _TYPES:
                hint = f"one of {', '.join(_TYPES)}"
                self.fail(f"`{kind}` is no type", (*path, "types", name), hint=hint)
        rules = {rule.path.text: rule for rule in (*rest.output, *self._rules(table, path))}
        return ToolFlow(
            effect=self._one_of(table, "effect", path, Effect, rest.effect),
            risk=self._one_of(table, "risk", path, Risk, rest.risk),
            roles=tuple(roles.values()),
            output=tuple(rules.values()),
            types=types,
            named_by=self._subjects(table, "subject_argument", path),
            about=self._subjects(table, "subject_field", path),
        )

    def _subjects(self, table: Mapping[str, Any], key: str, path: tuple[str, ...]) -> tuple[FieldPath, ...]:
        """The paths to what names the people that data is about."""
        written = table.get(key, [])
        listed = [written] if isinstance(written, str) else written
        if not _is_texts(listed) or len(listed) > MAX_SUBJECT_PATHS or (key in table and not listed):
            self.fail(
                f"`{'.'.join((*path, key))}` must be a path, or a list of up to {MAX_SUBJECT_PATHS}", (*path, key)
            )
        found = tuple(self._path(one, (*path, key)) for one in listed)
        for one in found:
            if one.names or not one.segments:
                hint = "name the field that holds the name of a person, e.g. `customer.email`"
                self.fail(f"`{one.text}` is no field that names somebody", (*path, key), hint=hint)
        return found

    def _rules(self, table: Mapping[str, Any], path: tuple[str, ...]) -> Iterable[OutputRule]:
        path = (*path, "output")
        if isinstance(table.get("output"), str):
            return (self._rule("$", table["output"], path),)
        declared = self.table(table, "output", path[:-1])
        if declared and set(declared) <= set(_LABEL_KEYS):
            return (self._whole(declared, path),)
        return [self._rule(written, value, (*path, written)) for written, value in declared.items()]

    def _whole(self, label: Mapping[str, Any], path: tuple[str, ...]) -> OutputRule:
        """A label of the whole answer; refused where the same words could label fields that are called so."""
        if all(isinstance(value, dict) or value in _INTEGRITIES for value in label.values()):
            name = next(iter(label))
            hint = f'write `output = "…"` for the whole answer, or `"$.{name}" = …` for a field of that name'
            self.fail(f"`{name}` may be a field of the answer, or the {name} of all of it", (*path, name), hint=hint)
        return self._rule("$", label, path)

    def _rule(self, written: str, value: object, path: tuple[str, ...]) -> OutputRule:
        """A rule for the fields of an answer: the integrity alone, or a table."""
        found = self._path(written, path)
        table = {"integrity": value} if isinstance(value, str) else value
        if not isinstance(table, dict) or not table or not set(table) <= set(_LABEL_KEYS):
            hint = f"one of {', '.join(_INTEGRITIES)}, or a table of {', '.join(_LABEL_KEYS)}; quote a path with dots"
            self.fail(f"`{written}` is not labelled", path, hint=hint)
        integrity = table.get("integrity")
        if integrity is not None and integrity not in _INTEGRITIES:
            hint = did_you_mean(str(integrity), _INTEGRITIES) or f"one of {', '.join(_INTEGRITIES)}"
            if integrity in tuple(Confidentiality):
                hint = f'write `{{ confidentiality = "{integrity}" }}`'
            self.fail(f"`{integrity}` is no integrity of an answer", path, hint=hint)
        secrecy = self._one_of(table, "confidentiality", path, Confidentiality, None)
        kinds = self.value(table, "categories", path, _is_categories, "a list of up to 16 short words")
        return OutputRule(
            found,
            None if integrity is None else Integrity(integrity),
            secrecy,
            None if kinds is None else tuple(sorted(set(kinds))),
        )

    def _path(self, written: str, path: tuple[str, ...]) -> FieldPath:
        try:
            return parse_path(written)
        except InputError as error:
            self.fail(error.message, path, hint=error.hint)

    def _one_of(
        self, table: Mapping[str, Any], key: str, path: tuple[str, ...], kinds: type[_KindT], default: _DefaultT
    ) -> _KindT | _DefaultT:
        """The value of a key that is one of an enumeration."""
        if key not in table:
            return default
        written = self.value(table, key, path, _is_text, "text")
        known = [str(one.value) for one in kinds]
        if written not in known:
            hint = did_you_mean(written, known) or f"one of {', '.join(known)}"
            what = "recovery class" if kinds is RecoveryClass else key
            self.fail(f"`{written}` is no {what}", (*path, key), hint=hint)
        return kinds(written)

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


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _is_categories(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= MAX_CATEGORIES
        and all(isinstance(one, str) and CATEGORY.fullmatch(one) for one in value)
    )


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_timeout(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and MIN_TIMEOUT_S <= value <= MAX_TIMEOUT_S


def _is_delay(value: object) -> bool:
    return (value == 0 and not isinstance(value, bool)) or _is_timeout(value)


def _is_values(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, str | int | float) for one in value)


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_TOOL_OUTPUT_BYTES
