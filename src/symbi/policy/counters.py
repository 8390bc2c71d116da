"""Declared counters: what policies may know of what came before. They stand in a file `history.toml` beside the policies.

```toml
[history.paid]                          # read as `context.history.paid` and `context.history.paid_before`
kind = "sum"                            # sum | count | formerly
action = "InvokeTool::bank.pay"         # an action, the group `InvokeTool`, or a list of them
of = "arguments.amount"                 # what a sum adds up: a Long or decimal of the action's context
unit = 0.01                             # what 1 stands for: 1 (the default), 0.1, 0.01, 0.001 or 0.0001
per = "owner"                           # run | session | agent | owner | group | all
within = "24h"                          # a sliding window, or `hour`, `day`, `week`, `month` of UTC; for ever without it
resource = "ToolServer::bank"           # only on this, or on what is in it; or a list
where = { integrity = ["untrusted"] }   # only with a label like this; also `confidentiality`
verdict = "allow"                       # allow (the default) | deny | any: which decisions a count is about
```
"""

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final, NoReturn

from symbi.errors import Place, PolicySyntaxError, did_you_mean
from symbi.types import Confidentiality, Integrity

FILE_NAME: Final = "history.toml"
"""What a file of counters is called."""

BEFORE: Final = "_before"
"""Ends the name of a value that leaves the action under decision out."""

MAX_COUNTERS: Final = 64  # bounds what every decision reads
MAX_WINDOW_S: Final = 366 * 86_400  # bounds how long single events are kept

NS: Final = 1_000_000_000  # nanoseconds in a second
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_UNITS: Final = {Decimal(1).scaleb(-places): places for places in range(5)}
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_RESERVED: Final = frozenset({"true", "false", "if", "then", "else", "in", "is", "like", "has", "__cedar"})
_PATH: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[^\s.]+)*")
_RESOURCE: Final = re.compile(r"([A-Z]\w*)::(\S+)")
_SLIDING: Final = re.compile(r"([1-9][0-9]{0,8})(s|m|h|d)")
_UNIT_S: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_KEYS: Final = ("kind", "action", "of", "unit", "per", "within", "resource", "where", "verdict")


class Kind(StrEnum):
    """What a counter says."""

    FORMERLY = "formerly"
    COUNT = "count"
    SUM = "sum"


class Per(StrEnum):
    """Whose actions are counted together."""

    RUN = "run"
    """Of one run, across restarts; what is in no run is not counted."""
    SESSION = "session"
    """From one start of the runtime to its end."""
    AGENT = "agent"
    OWNER = "owner"
    GROUP = "group"
    """Each group that the agent is in; it reads the largest. Agents without a group are counted together."""
    ALL = "all"


class Verdict(StrEnum):
    """Which decisions are counted."""

    ALLOW = "allow"
    DENY = "deny"
    ANY = "any"


class Period(StrEnum):
    """A calendar window in UTC; a week begins on Monday."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


def _start_s(period: Period, now_s: int) -> int:
    """When the hour, day, week or month of a time began, in seconds since the epoch."""
    days, second = divmod(now_s, 86_400)
    today = date.fromordinal(_EPOCH_DAY + days)
    match period:
        case Period.HOUR:
            return now_s - second % 3_600
        case Period.DAY:
            return days * 86_400
        case Period.WEEK:
            return (days - today.weekday()) * 86_400
        case Period.MONTH:
            return (days - today.day + 1) * 86_400


@dataclass(frozen=True, slots=True)
class Window:
    """How far back a counter looks.

    Attributes:
        seconds: Length of a sliding window; 0 for a calendar window.
        period: A calendar window; None for a sliding one.
    """

    seconds: int = 0
    period: Period | None = None

    def cut_ns(self, now_ns: int) -> int:
        """What happened at this time (nanoseconds since the epoch) or before has left the window."""
        if self.period is None:
            return now_ns - self.seconds * NS
        return _start_s(self.period, now_ns // NS) * NS - 1


@dataclass(frozen=True, slots=True)
class Counter:
    """One declared counter.

    Attributes:
        name: In `context.history`.
        place: Of its table.
        kind: What it says.
        actions: The actions that it counts; `InvokeTool` stands for every tool's.
        per: Whose actions are counted together.
        window: How far back it looks; None for ever.
        resources: (type, id) of the resources, or of what they are in; empty for all.
        labels: Values that `integrity` and `confidentiality` of the action's label may have; empty for all.
        verdict: Which decisions are counted.
        of: Path of what a sum adds up, in the context.
        places: Decimal places of the unit of a sum: 2 for cents of an amount in euros.
    """

    name: str
    place: Place
    kind: Kind
    actions: tuple[str, ...]
    per: Per
    window: Window | None = None
    resources: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, frozenset[str]], ...] = ()
    verdict: Verdict = Verdict.ALLOW
    of: tuple[str, ...] = ()
    places: int = 0

    @property
    def key(self) -> str:
        """What its stored events are found by. With another kind, unit or path, or without a window, it starts anew."""
        ever = "ever" if self.window is None else "window"
        return "/".join((self.name, self.kind.value, ".".join(self.of), str(self.places), ever))

    @property
    def facts(self) -> tuple[str, ...]:
        """The names under which policies read it."""
        return (self.name,) if self.kind is Kind.FORMERLY else (self.name, self.name + BEFORE)

    def described(self) -> list[object]:
        """All that matters of it, as JSON, for the version of a policy set."""
        labels = [[name, sorted(values)] for name, values in self.labels]
        window = None if self.window is None else [self.window.seconds, self.window.period]
        return [
            self.name, self.kind, self.actions, self.per, window, self.resources, labels, self.verdict, self.of,
            self.places,
        ]  # fmt: skip


def parse_counters(file: str, text: str) -> tuple[Counter, ...]:
    """Read a file of counters, by name; all or nothing.

    Args:
        file: Its name as the user gave it, for messages.
        text: TOML.

    Raises:
        PolicySyntaxError: It is not TOML, or a key is unknown, missing or of the wrong kind; `place` says where.
    """
    try:
        document = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+), column (\d+)", str(error))
        end = (text.count("\n") + 1, len(text.rpartition("\n")[2]) + 1)
        line, column = (int(found[1]), int(found[2])) if found else end
        told = str(error).partition(" (at ")[0]
        raise PolicySyntaxError(
            f"not TOML: {told[:1].lower()}{told[1:]}", code="policy.history", place=Place(file, line, column)
        ) from error
    reader = _Reader(file, text)
    reader.known(document, ("history",), ())
    tables = document.get("history", {})
    if not isinstance(tables, dict):
        reader.fail("`history` must be a table", ("history",), "write `[history.NAME]`")
    return tuple(reader.counter(name, table) for name, table in sorted(tables.items()))


class _Reader:
    """Takes a document apart; a complaint names the line of the key that it is about."""

    def __init__(self, file: str, text: str) -> None:
        self._file = file
        self._lines = text.split("\n")

    def counter(self, name: str, table: object) -> Counter:
        at = ("history", name)
        if not _NAME.fullmatch(name) or name in _RESERVED or name.endswith(BEFORE):
            self.fail(
                f"`{name}` cannot name a counter", at, f"use letters, digits and `_`, and no `{BEFORE}` at the end"
            )
        if not isinstance(table, dict):
            self.fail(f"`history.{name}` must be a table", at, f"write `[history.{name}]`")
        self.known(table, _KEYS, at)
        kind = Kind(self._one_of(table, "kind", at, tuple(Kind)))
        verdict = Verdict(self._one_of(table, "verdict", at, tuple(Verdict), "allow"))
        of, places = self._amount(table, at, kind, verdict)
        return Counter(
            name=name,
            place=self._place(at),
            kind=kind,
            actions=tuple(sorted(set(self._texts(table, "action", at)))),
            per=Per(self._one_of(table, "per", at, tuple(Per))),
            window=self._window(table, at),
            resources=tuple(self._resources(table, at)) if "resource" in table else (),
            labels=tuple(self._labels(table, at)) if "where" in table else (),
            verdict=verdict,
            of=of,
            places=places,
        )

    def _amount(
        self, table: Mapping[str, Any], at: tuple[str, ...], kind: Kind, verdict: Verdict
    ) -> tuple[tuple[str, ...], int]:
        if kind is not Kind.SUM:
            for key in ("of", "unit"):
                if key in table:
                    self.fail(f"`{key}` means nothing to a {kind.value}", (*at, key), 'only `kind = "sum"` adds up')
            return (), 0
        if verdict is not Verdict.ALLOW:
            self.fail("a sum is about what was allowed", (*at, "verdict"), "count denials instead")
        of = table.get("of")
        if not isinstance(of, str) or not _PATH.fullmatch(of):
            self.fail("`of` must say what is added up", (*at, "of"), 'write `of = "arguments.NAME"`')
        unit = table.get("unit", 1)
        if isinstance(unit, bool) or not isinstance(unit, int | Decimal) or unit not in _UNITS:
            self.fail("`unit` must be 1, 0.1, 0.01, 0.001 or 0.0001", (*at, "unit"), "0.01 counts cents of an amount")
        return tuple(of.split(".")), _UNITS[Decimal(unit)]

    def _window(self, table: Mapping[str, Any], at: tuple[str, ...]) -> Window | None:
        if "within" not in table:
            return None
        value = table["within"]
        if value in tuple(Period):
            return Window(period=Period(value))
        match = _SLIDING.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            hint = "write a number and `s`, `m`, `h` or `d`, or one of `hour`, `day`, `week`, `month`"
            self.fail(f"`within` cannot be `{value}`", (*at, "within"), hint)
        seconds = int(match[1]) * _UNIT_S[match[2]]
        if seconds > MAX_WINDOW_S:
            self.fail(f"`{value}` is longer than a year", (*at, "within"), "leave it out to count for ever")
        return Window(seconds)

    def _resources(self, table: Mapping[str, Any], at: tuple[str, ...]) -> Iterator[tuple[str, str]]:
        for text in self._texts(table, "resource", at):
            match = _RESOURCE.fullmatch(text)
            if match is None:
                self.fail(f"`{text}` is no resource", (*at, "resource"), "write `Type::id`")
            yield match[1], match[2]

    def _labels(self, table: Mapping[str, Any], at: tuple[str, ...]) -> Iterator[tuple[str, frozenset[str]]]:
        kinds: Mapping[str, Sequence[str]] = {
            "integrity": tuple(Integrity),
            "confidentiality": tuple(Confidentiality),
        }
        where = table["where"]
        if not isinstance(where, dict) or not where:
            self.fail("`where` must be a table", (*at, "where"), 'write `where = { integrity = ["untrusted"] }`')
        self.known(where, tuple(kinds), (*at, "where"))
        for key in sorted(where):
            values = self._texts(where, key, (*at, "where"))
            for value in values:
                if value not in kinds[key]:
                    hint = did_you_mean(value, kinds[key]) or f"use {_listed(kinds[key])}"
                    self.fail(f"`{value}` is no {key}", (*at, "where", key), hint)
            yield key, frozenset(values)

    def _one_of(
        self,
        table: Mapping[str, Any],
        key: str,
        at: tuple[str, ...],
        choices: Sequence[str],
        default: str | None = None,
    ) -> str:
        value = table.get(key, default)
        if value is None:
            self.fail(f"`{key}` is missing", at, f"it is one of {_listed(choices)}")
        if value not in choices:
            hint = (did_you_mean(value, choices) if isinstance(value, str) else "") or f"use one of {_listed(choices)}"
            self.fail(f"`{key}` cannot be `{value}`", (*at, key), hint)
        return str(value)

    def _texts(self, table: Mapping[str, Any], key: str, at: tuple[str, ...]) -> tuple[str, ...]:
        value = table.get(key)
        if value is None:
            self.fail(f"`{key}` is missing", at)
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not values or not all(isinstance(each, str) and each for each in values):
            self.fail(f"`{key}` must be a string, or a list of strings", (*at, key))
        return tuple(values)

    def known(self, table: Mapping[str, Any], known: Sequence[str], at: tuple[str, ...]) -> None:
        """Refuse a key that means nothing here."""
        for key in table:
            if key not in known:
                self.fail(f"unknown key `{key}`", (*at, key), did_you_mean(key, known) or f"known are {_listed(known)}")

    def fail(self, message: str, path: tuple[str, ...], hint: str | None = None) -> NoReturn:
        raise PolicySyntaxError(message, code="policy.history", place=self._place(path), hint=hint)

    def _place(self, path: tuple[str, ...]) -> Place:
        """Of the key that a path ends in, or of the nearest table around it that is found."""
        line, column = 0, 1
        for depth, key in enumerate(path):
            name = rf"[\"']?{re.escape(key)}[\"']?"
            header = re.compile(rf"\s*\[\s*(?:.*\.\s*)?({name})\s*[\].]")
            value = re.compile(rf"\s*(?:[\w\"'-]+\s*\.\s*){{0,{depth}}}({name})\s*[=.]|.*[{{,.]\s*({name})\s*=")
            found = self._first(line, header) or self._first(line, value)
            if found is not None:
                line, column = found
        return Place(self._file, line + 1, column)

    def _first(self, start: int, pattern: re.Pattern[str]) -> tuple[int, int] | None:
        match: Callable[[str], re.Match[str] | None] = pattern.match
        for number in range(start, len(self._lines)):
            found = match(self._lines[number])
            if found is not None:
                return number, found.start(found.lastindex or 0) + 1
        return None


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
