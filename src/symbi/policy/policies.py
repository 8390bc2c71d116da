"""The immutable set of policies that decisions are made with."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Protocol, Self

import cedarpy

from symbi.errors import InputError, Place, PolicySyntaxError, did_you_mean
from symbi.policy.catalog import BASE_ACTIONS, TOOL_GROUP, ToolType, schema_text
from symbi.policy.counters import Counter
from symbi.policy.decision import ConditionKind, PolicyCondition, PolicyRef
from symbi.policy.declared import absent_from, check_counters, is_history, read_counters
from symbi.policy.entities import EntityReader
from symbi.policy.fit import Fit
from symbi.policy.history import reads
from symbi.policy.library import CANARY, RESERVED_PREFIX
from symbi.policy.obligations import combine
from symbi.policy.requirement import ANNOTATION, Requirement, read_requirements
from symbi.policy.slice import Slices, cedar_set
from symbi.policy.source import PolicySource, Statement, parse, split
from symbi.types import PolicyId

PLAIN_ANNOTATIONS: Final = ("id", "doc", "description", "severity", "reason")
"""Annotations that say something about a policy and ask for nothing."""

CONDITIONS_ONLY: Final = '@conditions("only")'
"""Marks a permit that permits nothing: its conditions hold where it fires and another policy permits."""

_ONLY: Final = ("conditions", "only")  # name and value of that annotation
_CONDITIONS: Final = tuple(kind.value for kind in ConditionKind)
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/#-]{0,127}")
_NO_COUNTER: Final = re.compile(r"attribute `history\.(\w+)` in context .* not found")
_TOOL_PREFIX: Final = f"{TOOL_GROUP}::"


class Compiled(Protocol):
    """A policy that was made from a rule of an agent file."""

    @property
    def id(self) -> str:
        """Its id, unique."""

    @property
    def text(self) -> str:
        """Cedar source of one policy, without an `@id`."""

    @property
    def place(self) -> Place:
        """The rule that it was made from."""


@dataclass(frozen=True, slots=True)
class Policy:
    """One loaded policy.

    Attributes:
        id: Its `@id`, or `file:line`.
        place: Of its first token, annotations included; of the rule, where it was made from one.
        effect: `permit` or `forbid`.
        text: As written.
        annotations: By name.
        conditions: What it asks for when it fires.
        names: (type, id) of every entity that it names.
        json: Cedar's JSON form. That of a requirement has the effect of a permit, so that one evaluation tells both
            which permits fire and what is required of them.
        requires: What the permits must ask for where it fires; only a forbid has any, and then forbids nothing else.
    """

    id: PolicyId
    place: Place
    effect: str
    text: str
    annotations: Mapping[str, str]
    conditions: tuple[PolicyCondition, ...]
    names: frozenset[tuple[str, str]] = field(repr=False)
    json: Mapping[str, Any] = field(repr=False)
    requires: tuple[Requirement, ...] = ()

    @property
    def ref(self) -> PolicyRef:
        """Id and place, for decisions."""
        return PolicyRef(self.id, self.file, self.line)

    @property
    def file(self) -> str:
        """The file that it stands in."""
        return self.place.file

    @property
    def line(self) -> int:
        """The line that it begins on."""
        return self.place.line

    @property
    def permits(self) -> bool:
        """It can allow: a permit that is there for more than its conditions."""
        return self.effect == "permit" and _ONLY[0] not in self.annotations

    def tools(self) -> frozenset[str]:
        """Names of the tools that it names, as a resource or by their own action."""
        actions = {name for type_, name in self.names if type_ == "Action" and name.startswith(_TOOL_PREFIX)}
        resources = {name for type_, name in self.names if type_ == "Tool"}
        return frozenset({name.removeprefix(_TOOL_PREFIX) for name in actions} | resources)

    def scope_actions(self) -> frozenset[str] | None:
        """The actions that its scope names, groups unresolved; None where it is about every action."""
        scope = self.json["action"]
        if scope["op"] == "All":
            return None
        entities = scope["entities"] if "entities" in scope else [scope["entity"]]
        return frozenset(entity["id"] for entity in entities)


@dataclass(frozen=True, slots=True)
class PolicyWarning:
    """A remark on a policy that does not stop the set."""

    message: str
    place: Place
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.place}: {self.message}{f'; {self.hint}' if self.hint else ''}"


@dataclass(frozen=True, slots=True, eq=False)
class PolicySet:
    """Policies, validated against the schema of one tool catalogue. Nothing in it changes; `load` makes one.

    Attributes:
        sources: What it was loaded from, files of counters included, without the built-in policies.
        compiled: Policies of agent files, likewise.
        tools: The catalogue that it was validated against.
        policies: All policies, the built-in ones first.
        counters: What is declared of history, by name.
        reads: Which of `VOLATILE` its policies read; requests are held to the schema without the others, for each
            attribute costs a decision some microseconds.
        warnings: What does not stop the set, e.g. a policy on a tool that is not in the catalogue.
        schema: The Cedar schema, the tools' actions included.
        version: SHA-256 (hex) of all policies with their places, the counters, and the schema.
        by_id: The policies by id.
        cedar: The parsed set.
        cedar_schema: The parsed schema, without what of `VOLATILE` no policy reads.
        entities: Reads entities against the schema; keeps the latest.
        slices: Finds the policies that a request can touch.
        fits: Whether a request is known to fit the schema.
    """

    sources: tuple[PolicySource, ...]
    compiled: tuple[Compiled, ...]
    tools: tuple[ToolType, ...]
    policies: tuple[Policy, ...]
    counters: tuple[Counter, ...]
    reads: frozenset[str]
    warnings: tuple[PolicyWarning, ...]
    schema: str = field(repr=False)
    version: str
    by_id: Mapping[PolicyId, Policy] = field(repr=False)
    cedar: cedarpy.PolicySet = field(repr=False)
    cedar_schema: cedarpy.Schema = field(repr=False)
    entities: EntityReader = field(repr=False)
    slices: Slices = field(repr=False)
    fits: Fit = field(repr=False)

    @classmethod
    def load(
        cls, sources: Iterable[PolicySource], compiled: Iterable[Compiled] = (), tools: Iterable[ToolType] = ()
    ) -> Self:
        """Parse, check and validate; all or nothing.

        A policy that names a tool which is not in the catalogue is kept with a warning: it cannot fire, because an
        unknown tool is denied. If its scope names no other action, it is validated once the tool is known.

        Args:
            sources: Texts of Cedar policies, and of `history.toml` files.
            compiled: Policies of agent files.
            tools: The tool catalogue.

        Raises:
            PolicySyntaxError: Something is wrong; it is about the first problem, and `fields["errors"]` lists them all.
            InputError: A tool's name cannot be used.
        """
        sources, compiled, tools = tuple(sources), tuple(compiled), tuple(tools)
        problems: list[PolicySyntaxError] = []
        counters = read_counters([source for source in sources if is_history(source)], problems)
        cedar = [source for source in sources if not is_history(source)]
        policies = tuple(_read_all(cedar, compiled, problems))
        known = {tool.name for tool in tools} | {"*"}
        warnings = (*_absent_tools(policies, known), *_absent_counted(counters, known))
        absent = {name for policy in policies for name in policy.tools() if name} - known
        read = frozenset[str]().union(*(reads(policy.json["conditions"]) for policy in policies))
        schema = schema_text(tools, absent, counters)
        try:
            whole_schema = cedarpy.Schema.from_str(schema)
            cedar_schema = cedarpy.Schema.from_str(schema_text(tools, absent, counters, read))
        except ValueError as error:
            raise PolicySyntaxError(f"the tools make no valid schema: {error}", code="policy.schema") from error
        if not problems:
            problems.extend(_validate(policies, known, whole_schema, counters))
            problems.extend(check_counters(counters, tools, whole_schema))
        if problems:
            raise _all_of(problems)
        actions = cedarpy.Entities.from_json_str("[]", cedar_schema)
        groups = _action_groups(actions)
        return cls(
            sources=sources,
            compiled=compiled,
            tools=tools,
            policies=policies,
            counters=counters,
            reads=read,
            warnings=warnings,
            schema=schema,
            version=version_of(policies, counters, schema),
            by_id=MappingProxyType({policy.id: policy for policy in policies}),
            cedar=cedar_set({policy.id: policy.json for policy in policies}),
            cedar_schema=cedar_schema,
            entities=EntityReader(cedar_schema, groups, _named_in_conditions(policies)),
            slices=Slices(policies, groups),
            fits=Fit(cedar_schema, actions),
        )


def _action_groups(actions: cedarpy.Entities) -> Mapping[str, frozenset[str]]:
    """The groups that each action of a schema is in, at any distance."""
    above = {each["uid"]["id"]: {parent["id"] for parent in each["parents"]} for each in json.loads(str(actions))}

    def groups(name: str) -> frozenset[str]:
        return frozenset(above[name]).union(*(groups(parent) for parent in above[name]))

    return MappingProxyType({name: groups(name) for name in above})


def _named_in_conditions(policies: Iterable[Policy]) -> frozenset[str]:
    """The actions that conditions name: what such an action is in may be asked whatever the request is for."""
    named = (entity for policy in policies for entity in _literals(policy.json["conditions"]))
    return frozenset(name for type_, name in named if type_ == "Action")


def version_of(policies: Sequence[Policy], counters: Sequence[Counter], schema: str) -> str:
    """SHA-256 (hex) of policies with their places, of declared counters, and of a schema."""
    parts = sorted([policy.id, policy.file, policy.line, policy.text] for policy in policies)
    declared = [counter.described() for counter in counters]
    return hashlib.sha256(json.dumps([schema, parts, declared]).encode()).hexdigest()


def _all_of(problems: Sequence[PolicySyntaxError]) -> PolicySyntaxError:
    first = problems[0]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return PolicySyntaxError(
        f"{first.message}{more}",
        code=first.code,
        hint=first.hint,
        place=first.place,
        errors=[str(problem) for problem in problems],
    )


# --- reading ----------------------------------------------------------------------------------


def _read_all(
    sources: Sequence[PolicySource], compiled: Sequence[Compiled], problems: list[PolicySyntaxError]
) -> Iterator[Policy]:
    """What can be read; what cannot is added to the problems."""
    taken: dict[str, Place] = {}
    for found in _statements(sources, compiled, problems):
        try:
            policy = _read(found)
        except PolicySyntaxError as problem:
            problems.append(problem)
            continue
        if policy.id in taken:
            problems.append(
                PolicySyntaxError(
                    f"policy id `{policy.id}` is taken by the policy at {taken[policy.id]}",
                    code="policy.repeated_id",
                    place=policy.place,
                    hint="give each policy an `@id` of its own, or a line of its own",
                )
            )
            continue
        taken[policy.id] = policy.place
        yield policy


@dataclass(frozen=True, slots=True)
class _Found:
    """A policy that is not read yet: its text and place, the id it was given, and whether it comes with Symbi."""

    statement: Statement
    given_id: str | None = None
    builtin: bool = False


def _statements(
    sources: Sequence[PolicySource], compiled: Sequence[Compiled], problems: list[PolicySyntaxError]
) -> Iterator[_Found]:
    for source in (CANARY, *sources):
        try:
            for statement in split(source):
                yield _Found(statement, builtin=source is CANARY)
        except PolicySyntaxError as problem:
            problems.append(problem)
    for rule in compiled:
        yield _Found(Statement(rule.text, rule.place, (len(rule.text),)), rule.id)


def _read(found: _Found) -> Policy:
    place = found.statement.place
    parsed = parse(found.statement)
    annotations = {name: value or "" for name, value in parsed.get("annotations", {}).items()}
    policy_id = PolicyId(_policy_id(annotations, found, place))
    requires = _requires(parsed["effect"], annotations, place)
    return Policy(
        id=policy_id,
        place=place,
        effect=parsed["effect"],
        text=found.statement.text,
        annotations=annotations,
        conditions=_conditions(policy_id, parsed["effect"], annotations, place),
        names=frozenset(_names(parsed)),
        json={**parsed, "effect": "permit"} if requires else parsed,
        requires=requires,
    )


def _policy_id(annotations: Mapping[str, str], found: _Found, place: Place) -> str:
    written = annotations.get("id")
    if written is None:
        return found.given_id or f"{place.file}:{place.line}"
    if found.given_id is not None:
        raise PolicySyntaxError(f"`{found.given_id}` has an id already; it cannot be `{written}`", place=place)
    if not _ID.fullmatch(written):
        raise PolicySyntaxError(
            f"`{written}` is not a policy id",
            place=place,
            hint="use up to 128 letters, digits and `. _ : / # -`",
        )
    if written.startswith(RESERVED_PREFIX) and not found.builtin:
        raise PolicySyntaxError(
            f"policy id `{written}` is reserved", place=place, hint=f"ids in `{RESERVED_PREFIX}` are built in"
        )
    return written


def _requires(effect: str, annotations: Mapping[str, str], place: Place) -> tuple[Requirement, ...]:
    text = annotations.get(ANNOTATION)
    if text is None:
        return ()
    if effect != "forbid":
        msg = f"`@{ANNOTATION}` on a permit asks for nothing"
        raise PolicySyntaxError(msg, place=place, hint="put it on a forbid: it denies where the condition is missing")
    try:
        return read_requirements(text)
    except InputError as error:
        raise PolicySyntaxError(f"in `@{ANNOTATION}`: {error.message}", place=place, hint=error.hint) from error


def _conditions(
    policy_id: PolicyId, effect: str, annotations: Mapping[str, str], place: Place
) -> tuple[PolicyCondition, ...]:
    conditions = []
    _check_only(effect, annotations, place)
    for name, value in sorted(annotations.items()):
        if name in {*PLAIN_ANNOTATIONS, _ONLY[0], ANNOTATION}:
            continue
        if name not in _CONDITIONS:
            known = (*PLAIN_ANNOTATIONS, _ONLY[0], *_CONDITIONS, ANNOTATION)
            hint = did_you_mean(name, known) or f"known are {', '.join(f'`{word}`' for word in known)}"
            raise PolicySyntaxError(f"unknown annotation `@{name}`", place=place, hint=hint)
        if effect != "permit":
            raise PolicySyntaxError(
                f"`@{name}` on a forbid asks for nothing", place=place, hint="put it on the permit that it restricts"
            )
        condition = PolicyCondition(ConditionKind(name), value, policy_id)
        try:
            combine([condition])
        except InputError as error:
            raise PolicySyntaxError(f"in `@{name}`: {error.message}", place=place, hint=error.hint) from error
        conditions.append(condition)
    return tuple(conditions)


def condition_kinds(annotations: Iterable[str]) -> list[str]:
    """Those of the annotations that are conditions, sorted."""
    return sorted(set(annotations) & set(_CONDITIONS))


def _check_only(effect: str, annotations: Mapping[str, str], place: Place) -> None:
    name, value = _ONLY
    if name not in annotations:
        return
    if annotations[name] != value:
        raise PolicySyntaxError(
            f"`@{name}` is not `{annotations[name]}`", place=place, hint=f"write `{CONDITIONS_ONLY}`"
        )
    if effect != "permit" or not condition_kinds(annotations):
        raise PolicySyntaxError(
            f"`{CONDITIONS_ONLY}` on a policy without conditions", place=place, hint="put it on a permit that has some"
        )


def _names(parsed: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(type, id) of every entity in a policy: in its scope and, under `__entity`, in its conditions."""
    for part in ("principal", "action", "resource"):
        scope = parsed[part]
        within = scope.get("in") or {}
        for entity in (scope.get("entity"), within.get("entity"), *scope.get("entities", ())):
            if entity is not None:
                yield entity["type"], entity["id"]
    yield from _literals(parsed["conditions"])


def _literals(conditions: object) -> Iterator[tuple[str, str]]:
    stack: list[Any] = [conditions]
    while stack:
        node = stack.pop()
        if isinstance(node, list):
            stack.extend(node)
        elif isinstance(node, dict):
            literal = node.get("Value")
            entity = literal.get("__entity") if isinstance(literal, dict) else None
            if isinstance(entity, dict):
                yield entity["type"], entity["id"]
            stack.extend(node.values())


# --- validation -------------------------------------------------------------------------------


def _absent_tools(policies: Iterable[Policy], known: set[str]) -> Iterator[PolicyWarning]:
    for policy in policies:
        for tool in sorted(policy.tools() - known):
            hint = did_you_mean(tool, known) or "the policy cannot fire until a server offers it"
            yield PolicyWarning(
                f"policy `{policy.id}` names the tool `{tool}`, which is not in the catalogue", policy.place, hint
            )


def _absent_counted(counters: Iterable[Counter], known: set[str]) -> Iterator[PolicyWarning]:
    for counter, tool in absent_from(counters, known):
        hint = did_you_mean(tool, known) or "it counts nothing until a server offers it"
        yield PolicyWarning(
            f"counter `{counter.name}` names the tool `{tool}`, which is not in the catalogue", counter.place, hint
        )


def _validate(
    policies: Sequence[Policy], known: set[str], schema: cedarpy.Schema, counters: Iterable[Counter]
) -> Iterator[PolicySyntaxError]:
    checked = []
    for policy in policies:
        actions = {name for type_, name in policy.names if type_ == "Action"}
        unknown = sorted(name for name in actions - BASE_ACTIONS if not name.startswith(_TOOL_PREFIX))
        if unknown:
            yield PolicySyntaxError(
                f"unknown action `{unknown[0]}`",
                place=policy.place,
                hint=did_you_mean(unknown[0], BASE_ACTIONS) or None,
            )
            continue
        scope = policy.scope_actions()
        absent = {f"{_TOOL_PREFIX}{tool}" for tool in policy.tools() - known}
        if not (scope and scope <= absent):
            checked.append(policy)
    by_position = {f"policy{index}": policy for index, policy in enumerate(checked)}
    result = cedarpy.validate_policies("\n".join(policy.text for policy in checked), schema)
    for error in result.errors:
        message = error.error.removeprefix(f"for policy `{error.policy_id}`, ")
        policy = by_position[error.policy_id]
        hint = _about_counter(message, counters)
        yield PolicySyntaxError(f"policy `{policy.id}`: {message}", code="policy.schema", place=policy.place, hint=hint)
    if not result.validation_passed and not result.errors:
        yield PolicySyntaxError("the policies do not fit the schema", code="policy.schema")


def _about_counter(message: str, counters: Iterable[Counter]) -> str | None:
    """What to do about a counter that nobody declares."""
    found = _NO_COUNTER.match(message)
    if found is None:
        return None
    declared = [fact for counter in counters for fact in counter.facts]
    return did_you_mean(found[1], declared) or f"declare `[history.{found[1]}]` in a `history.toml`"
