"""Test cases for policies, in TOML beside them: what should be decided, and why.

```toml
[[case]]
name = "the address out of the log is refused"
principal = { agent = "triage", owner = "ops", groups = ["oncall"], trust = "standard" }
action = "InvokeTool::notify.send"
resource = { type = "Tool", id = "notify.send", attributes = { server = "notify", verified = true, recovery = "idempotent" }, parents = [["ToolServer", "notify"]] }
expect = "deny"                              # or "allow", "allow_with_conditions"
policies = ["no-untrusted-recipient"]        # the deciding ones, all of them; may be left out
conditions = []                              # "kind=value", all of them; may be left out

[case.context]
arguments = { recipient = "a@example.org" }
labels = { recipient = { integrity = "untrusted", confidentiality = "public" } }
```

Of `principal` only `agent` is needed, of `resource` only `type` and `id`. A float in the context stands for a decimal.
In the context of a tool's action, what is left out is empty, no grant, or the label of what a user wrote; a label may
leave out its categories. `sinks`, `tainted` and `confidentialSinks` follow from the arguments and their labels, as in a
call. A `Tool` without attributes is as its manifest says, where the manifests are known; else it is of medium risk,
nothing is known of its effect, and every argument is a sink. Attributes and
parents of an `Agent` that are left out are those of the principal, or the defaults. `request`, where it is left out, is
that of something no run asked for. In the context of every action, what is left out of `time`, `usage` and `history` is
zero or false; a counter is given as `NAME` or as `NAME_before`, and the other follows from what the action adds.

A case whose request does not fit the schema, or whose policies cannot be evaluated, fails, also where it expects a
denial: such a denial says nothing about the policies.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, TypeVar

from symbi.errors import InputError, Place, did_you_mean
from symbi.policy.catalog import TOOL_GROUP
from symbi.policy.context import NO_REQUEST, agent_attributes, decimal_value, flow_context, label_context, whole_label
from symbi.policy.decision import Allow, AllowWithConditions, Deny, PolicyDecision, PolicyRequest
from symbi.policy.engine import decide
from symbi.policy.fields import UNDECLARED, ToolFlow
from symbi.policy.grants import NO_GRANT
from symbi.policy.history import offline
from symbi.policy.policies import PolicySet
from symbi.policy.sinks import CallFacts, call_facts
from symbi.types import AgentId, Confidentiality, Integrity, JsonValue, Label, Principal, Resource

_LevelT = TypeVar("_LevelT", Integrity, Confidentiality)

VERDICTS: Final = ("allow", "deny", "allow_with_conditions")
"""What a case may expect."""

_CASE_KEYS: Final = ("name", "principal", "action", "resource", "context", "expect", "policies", "conditions")
_PRINCIPAL_KEYS: Final = ("agent", "owner", "groups", "trust", "tier", "capabilities")
_RESOURCE_KEYS: Final = ("type", "id", "attributes", "parents")
_HEADER: Final = re.compile(r"^[ \t]*\[\[[ \t]*case[ \t]*\]\]", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class KnownTool:
    """A tool that cases may name without saying what it is: as the runtime puts it to policies, and what its manifest says."""

    resource: Resource
    flow: ToolFlow = UNDECLARED


@dataclass(frozen=True, slots=True)
class PolicyCase:
    """One case: a request and what should come of it; `policies` and `conditions` are None where they do not matter."""

    name: str
    place: Place
    request: PolicyRequest
    expect: str
    policies: frozenset[str] | None = None
    conditions: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What came of a case; `problems` is empty where it passed."""

    case: PolicyCase
    decision: PolicyDecision
    problems: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Everything was as expected."""
        return not self.problems


def run_cases(policies: PolicySet, cases: Iterable[PolicyCase]) -> list[CaseResult]:
    """Decide each case and compare."""
    return [_run(policies, case) for case in cases]


def _run(policies: PolicySet, case: PolicyCase) -> CaseResult:
    try:
        decision = decide(policies, offline(policies.counters, case.request))
    except InputError as error:
        decision = Deny(f"the case cannot be put to the policies: {error}", (), policies.version, (str(error),))
    if isinstance(decision, Deny) and decision.errors:
        return CaseResult(case, decision, (decision.reason,))
    problems: list[str] = []
    verdict = verdict_of(decision)
    if verdict != case.expect:
        why = f": {decision.reason}" if isinstance(decision, Deny) else ""
        problems.append(f"expected `{case.expect}`, got `{verdict}`{why}")
    deciding = frozenset[str](ref.id for ref in decision.policies)
    if case.policies is not None and deciding != case.policies:
        problems.append(f"expected the policies {_listed(case.policies)}, got {_listed(deciding)}")
    conditions = frozenset[str]()
    if isinstance(decision, AllowWithConditions):
        conditions = frozenset(f"{condition.kind.value}={condition.value}" for condition in decision.conditions)
    if case.conditions is not None and conditions != case.conditions:
        problems.append(f"expected the conditions {_listed(case.conditions)}, got {_listed(conditions)}")
    return CaseResult(case, decision, tuple(problems))


def verdict_of(decision: PolicyDecision) -> str:
    """A decision as one of `VERDICTS`."""
    match decision:
        case Allow():
            return "allow"
        case AllowWithConditions():
            return "allow_with_conditions"
        case Deny():
            return "deny"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names)) or "none"


# --- reading ----------------------------------------------------------------------------------


def parse_cases(file: str, text: str, tools: Mapping[str, KnownTool] = MappingProxyType({})) -> list[PolicyCase]:
    """Read a file of cases.

    Args:
        file: Its name, for messages.
        text: TOML.
        tools: What is known of tools, by `server.tool`; of others a case says it itself.

    Raises:
        InputError: It is not TOML, a key is unknown or missing, or a value is of the wrong kind; with its place.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message, _, where = str(error).partition(" (at ")
        at = re.match(r"line (\d+), column (\d+)\)", where)
        last = text.rpartition("\n")[2]
        place = Place(file, int(at[1]), int(at[2])) if at else Place(file, text.count("\n") + 1, len(last) + 1)
        raise InputError(message[:1].lower() + message[1:], code="policy.case", place=place) from error
    except RecursionError as error:
        raise InputError("a value is nested too deeply", code="policy.case", place=Place(file, 1, 1)) from error
    outline = _Outline(file, text)
    outline.check_keys(document, ("case",), None)
    entries = document.get("case", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(
            "`case` is not a list of tables", code="policy.case", place=Place(file, 1, 1), hint="write `[[case]]`"
        )
    return [_CaseReader(outline, index, entry, tools).read() for index, entry in enumerate(entries)]


class _Outline:
    """Finds lines again in the text: the TOML parser gives values no place."""

    def __init__(self, file: str, text: str) -> None:
        self._file = file
        self._lines = text.split("\n")
        self._starts = [text.count("\n", 0, match.end()) for match in _HEADER.finditer(text)]

    def place(self, case: int | None, key: str | None = None) -> Place:
        """Of a key in a case (counted from 0) or, for None, in the file; of the case's head where the key is not found."""
        start, end = 0, len(self._lines)
        if case is not None and case < len(self._starts):
            start = self._starts[case]
            end = self._starts[case + 1] if case + 1 < len(self._starts) else end
        if key is not None:
            pattern = re.compile(rf"""(?:^|[\s{{,.\[])(["']?{re.escape(key)}["']?)\s*[=.\]]""")
            for number in range(start, end):
                match = pattern.search(self._lines[number])
                if match:
                    return Place(self._file, number + 1, match.start(1) + 1)
        return Place(self._file, start + 1, 1)

    def check_keys(self, table: Mapping[str, Any], known: Sequence[str], case: int | None) -> None:
        """Refuse a key that means nothing here."""
        for key in table:
            if key not in known:
                hint = did_you_mean(key, known) or f"known are {_listed(known)}"
                raise InputError(f"unknown key `{key}`", code="policy.case", place=self.place(case, key), hint=hint)


class _CaseReader:
    """Reads one case."""

    def __init__(self, outline: _Outline, index: int, entry: Mapping[str, Any], tools: Mapping[str, KnownTool]) -> None:
        self._outline = outline
        self._index = index
        self._entry = entry
        self._tools = tools

    def read(self) -> PolicyCase:
        self._outline.check_keys(self._entry, _CASE_KEYS, self._index)
        action = self._text(self._entry, "action")
        expect = self._text(self._entry, "expect")
        if expect not in VERDICTS:
            hint = did_you_mean(expect, VERDICTS) or f"use one of {_listed(VERDICTS)}"
            raise self._wrong("expect", f"`{expect}` is no verdict", hint)
        resource = self._resource()
        return PolicyCase(
            name=self._text(self._entry, "name"),
            place=self._outline.place(self._index),
            request=PolicyRequest(self._principal(), action, resource, self._context(action, resource)),
            expect=expect,
            policies=frozenset(self._texts(self._entry, "policies")) if "policies" in self._entry else None,
            conditions=frozenset(self._texts(self._entry, "conditions")) if "conditions" in self._entry else None,
        )

    def _principal(self) -> Principal:
        table = self._table(self._entry, "principal", needed=True)
        self._outline.check_keys(table, _PRINCIPAL_KEYS, self._index)
        default = Principal(AgentId(""))
        return Principal(
            agent=AgentId(self._text(table, "agent")),
            owner=self._text(table, "owner", default.owner),
            groups=tuple(self._texts(table, "groups")),
            trust=self._text(table, "trust", default.trust),
            tier=self._text(table, "tier", default.tier),
            capabilities=tuple(self._texts(table, "capabilities")),
        )

    def _resource(self) -> Resource:
        table = self._table(self._entry, "resource", needed=True)
        self._outline.check_keys(table, _RESOURCE_KEYS, self._index)
        written = self._table(table, "attributes", needed=False)
        attributes = {**written, **self._unsaid(table, written)}
        parents = table.get("parents", self._known_parents(table))
        if not isinstance(parents, list) or not all(_is_pair(parent) for parent in parents):
            raise self._wrong("parents", "`parents` is not a list of pairs", 'write `[["Type", "id"]]`')
        return Resource(
            type=self._text(table, "type"),
            id=self._text(table, "id"),
            attributes=tuple((name, self._json(value, "attributes", name)) for name, value in attributes.items()),
            parents=tuple((parent[0], parent[1]) for parent in parents),
        )

    def _unsaid(self, resource: Mapping[str, Any], written: Mapping[str, Any]) -> Mapping[str, Any]:
        """Attributes that a case leaves out: of an agent as the runtime would say them, of a tool as its manifest does."""
        known: dict[str, Any] = {}
        if resource.get("type") == "Tool" and (tool := self._tools.get(str(resource.get("id")))):
            known = dict(tool.resource.attributes)
        elif resource.get("type") == "Tool" and written:
            known = {"risk": UNDECLARED.risk.value, "effect": UNDECLARED.effect.value}
        elif resource.get("type") == "Agent":
            asking = self._principal()
            known = dict(agent_attributes(asking if resource.get("id") == asking.agent else Principal(AgentId(""))))
        return {name: value for name, value in known.items() if name not in written}

    def _known_parents(self, resource: Mapping[str, Any]) -> list[list[str]]:
        if resource.get("type") == "Tool" and (tool := self._tools.get(str(resource.get("id")))):
            return [list(parent) for parent in tool.resource.parents]
        asking = self._principal()
        itself = resource.get("type") == "Agent" and resource.get("id") == asking.agent
        return [["Group", group] for group in asking.groups] if itself else []

    def _context(self, action: str, resource: Resource) -> Mapping[str, JsonValue]:
        table = self._table(self._entry, "context", needed=False)
        context = {name: self._json(value, "context", name) for name, value in table.items()}
        context.setdefault("request", dict(NO_REQUEST))
        if action.startswith(f"{TOOL_GROUP}::"):
            empty: dict[str, JsonValue] = {
                "arguments": {},
                "labels": {},
                "label": label_context(Label()),
                "secrets": [],
                "opaque": [],
            }
            context = {**empty, **context}
            labels = context["labels"]
            if isinstance(labels, Mapping):
                context["labels"] = {name: whole_label(label) for name, label in labels.items()}
            context = {**flow_context(self._facts(context, resource), NO_GRANT), **context}
        if "label" in context:
            context["label"] = whole_label(context["label"])
        return context

    def _facts(self, context: Mapping[str, JsonValue], resource: Resource) -> CallFacts:
        """The sinks of the call; nothing is said of them where the case itself is not of the right kind."""
        values, labels = context["arguments"], context["labels"]
        if not isinstance(values, Mapping) or not isinstance(labels, Mapping):
            return CallFacts()
        tool = self._tools.get(resource.id)
        own = {name: self._label(label, f"labels.{name}") for name, label in labels.items()}
        whole = self._label(context["label"], "label")
        return call_facts(UNDECLARED if tool is None else tool.flow, values, own, whole)

    def _label(self, label: JsonValue, name: str) -> Label:
        if not isinstance(label, Mapping):
            raise self._wrong("context", f"`{name}` is not a table", "write `{ integrity = …, confidentiality = … }`")
        return Label(self._level(label, name, Integrity), self._level(label, name, Confidentiality))

    def _level(self, label: Mapping[str, JsonValue], name: str, kind: type[_LevelT]) -> _LevelT:
        key = kind.__name__.lower()
        known = {level.value: level for level in kind}
        written = str(label.get(key))
        if written not in known:
            hint = did_you_mean(written, known) or f"it is one of {_listed(known)}"
            raise self._wrong(key if key in label else "context", f"`{name}.{key}` is no {key}", hint)
        return known[written]

    def _json(self, value: object, key: str, path: str) -> JsonValue:
        """A TOML value as Cedar's JSON: floats are decimals, times are refused."""
        if isinstance(value, bool | int | str):
            return value
        if isinstance(value, float):
            try:
                return decimal_value(value, path)
            except InputError as error:
                raise self._wrong(key, error.message) from error
        if isinstance(value, list):
            return [self._json(item, key, f"{path}[{index}]") for index, item in enumerate(value)]
        if isinstance(value, dict):
            return {name: self._json(item, key, f"{path}.{name}") for name, item in value.items()}
        raise self._wrong(key, f"`{path}` is a {type(value).__name__}, which policies do not know", "write a string")

    def _text(self, table: Mapping[str, Any], key: str, default: str | None = None) -> str:
        value = table.get(key, default)
        if value is None:
            raise self._wrong(None, f"`{key}` is missing")
        if not isinstance(value, str) or not value:
            raise self._wrong(key, f"`{key}` is not a string, or is empty")
        return value

    def _texts(self, table: Mapping[str, Any], key: str) -> list[str]:
        value = table.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._wrong(key, f"`{key}` is not a list of strings")
        return value

    def _table(self, table: Mapping[str, Any], key: str, *, needed: bool) -> Mapping[str, Any]:
        value = table.get(key)
        if value is None and needed:
            raise self._wrong(None, f"`{key}` is missing")
        if value is not None and not isinstance(value, dict):
            raise self._wrong(key, f"`{key}` is not a table")
        return value or {}

    def _wrong(self, key: str | None, message: str, hint: str | None = None) -> InputError:
        return InputError(message, code="policy.case", place=self._outline.place(self._index, key), hint=hint)


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and [type(item) for item in value] == [str, str]
