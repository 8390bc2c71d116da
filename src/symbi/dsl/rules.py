"""Policy rules and capabilities of agent files, as Cedar policies.

What a rule can be about is in `vocabulary.VERBS`, what its `if` can read in `vocabulary.ATTRIBUTES`, what it can require
in `conditions`, and what happens where something cannot be evaluated in `guards`. Every policy made here is about one
agent: `principal == Agent::"name"`.

- `allow` is a permit for each action that its subject names; `deny` is a forbid, and reaches further (`VERBS`).
- Policies at the top level of a file hold for every agent of the file, as if each had written them.
- `require` and `audit` put conditions on permits: on those of the `allow` rules in their own policy or, in a policy
  without any, on those of every `allow` that holds for the agent. An `audit` that names operations is about those,
  whatever policy allows them. Each makes a second permit of the same scope that
  bears the condition and has a line of its own: the conditions of all permits that fire count. With an `if`, it
  concerns the actions that have what the `if` reads, and that permit fires where the `if` is true or cannot be
  evaluated. A `require` that concerns no `allow` is an error. Permits from elsewhere (policy files of the operator)
  bear their own conditions.
- `require: signature_verification` is a forbid for tools whose signature does not hold.
- A bare name in an `if` is what the action has by that name (`ATTRIBUTES`), and in a rule about tools else a tool's
  argument; never an input of the agent, whose values policies do not see. Where the arguments of the tools are not
  known, any name is taken: one that no tool bears reads as absent, so that an `allow` with it never holds and a `deny`
  always does. Where a rule without a subject of its own (`any`, `require`) concerns both tools and another action that
  has the name, it must say `arguments.NAME` or `context.NAME`.
- Capabilities are one forbid of everything they do not list, `…#capabilities`. To come to life, be configured,
  allocate its resources and be told of its topics an agent needs none; to connect to a server, a tool of it.

Ids are `file:line`, with `#1`, `#2`, … where rules of one line make several policies.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from typing import Final

from symbi.dsl import ast
from symbi.dsl.builtins import EFFECTS
from symbi.dsl.conditions import APPLIES_TO, Requirement, fits, read_audit, read_require
from symbi.dsl.findings import Findings
from symbi.dsl.guards import GuardCompiler, bears, paths
from symbi.dsl.names import Path, Target, Tools, argument_of, arguments_of, cedar_text, entity, explain, meet, resolve
from symbi.dsl.spec import CompiledPolicy
from symbi.dsl.subjects import EXPECTS_REPLY, SubjectReader
from symbi.dsl.vocabulary import ATTRIBUTES, VERB_BY_WORD
from symbi.errors import PolicySyntaxError
from symbi.policy.decision import ConditionKind
from symbi.policy.source import PolicySource, parse, split

UNBOUND_ACTIONS: Final = ("CreateAgent", "ConfigureAgent", "AllocateResources", "SubscribeTopic")
"""What an agent needs no capability for: to come to life with its resources and to be told of its topics, which policies decide."""

SERVER_ACTIONS: Final = (
    "BrowseServer",
    "ReadResource",
    "GetPrompt",
    "Complete",
    "ServerSampling",
    "ServerElicitation",
    "ServerRoots",
)
"""What the capability `server.*` reaches beside the server's tools."""

_TELLS_APART: Final = {
    "send": f'action == Action::"SendMessage" && !{EXPECTS_REPLY}',
    "ask": f'action == Action::"SendMessage" && {EXPECTS_REPLY}',
    "remember": 'action == Action::"WriteData" && resource is Memory',
    "search": 'action == Action::"ReadData" && resource is Knowledge',
    "answer": 'action == Action::"ReadData" && resource is Knowledge || action == Action::"CallModel"',
    "recall": 'action == Action::"ReadData" && resource is Memory',
}
"""Effects whose action is that of others too, and the Cedar test by which each is known; a model may write what is answered."""


@dataclass(frozen=True, slots=True)
class AgentPolicies:
    """Cedar policies of one agent.

    Attributes:
        shared: From policies at the top level of the file.
        own: From the agent's policies and capabilities.
    """

    shared: tuple[CompiledPolicy, ...]
    own: tuple[CompiledPolicy, ...]


@dataclass(frozen=True, slots=True)
class _Draft:
    """A policy without an id."""

    agent: str
    shared: bool
    text: str
    span: ast.Span
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class _Allow:
    """An `allow` rule, what it is about, and the policy it stands in."""

    block: int
    shared: bool
    rule: ast.Rule
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class _Condition:
    """What one rule asks for, its `if`, what it names (None: all that it can mean), and the policy it stands in."""

    block: int
    requirements: tuple[Requirement, ...]
    guard: ast.Expr | None
    rule: ast.Rule
    targets: tuple[Target, ...] | None = None


@dataclass(slots=True)
class _Agent:
    """The work on one agent."""

    name: str
    findings: Findings
    reader: SubjectReader
    guards: GuardCompiler
    capabilities: tuple[str, ...] | None
    allows: list[_Allow] = field(default_factory=list)
    conditions: list[_Condition] = field(default_factory=list)
    drafts: list[_Draft] = field(default_factory=list)


def compile_rules(file: ast.File, tools: Tools, findings: Findings) -> dict[str, AgentPolicies]:
    """The policies of every agent of a file, by the agent's name.

    Args:
        file: The file.
        tools: The tools there are, if that is known; with the arguments each takes, if that is known too.
        findings: Where errors are noted; the result is of no use if there are any.
    """
    common = [item for item in file.declarations if isinstance(item, ast.Policy)]
    agents = [item for item in file.declarations if isinstance(item, ast.Agent)]
    drafts = [draft for agent in agents for draft in _agent_drafts(agent, common, tools, findings)]
    if not agents:
        for policy in common:
            findings.error("policy", f"policy `{policy.name}` holds for no agent", policy.span, "declare one beside it")
    named = list(_named(file.name, drafts))
    return {
        agent.name: AgentPolicies(
            tuple(policy for draft, policy in named if draft.agent == agent.name and draft.shared),
            tuple(policy for draft, policy in named if draft.agent == agent.name and not draft.shared),
        )
        for agent in agents
    }


def capabilities_of(agent: ast.Agent) -> tuple[str, ...] | None:
    """What the capabilities of an agent list, in order and once each; None where it declares none."""
    blocks = [item for item in agent.items if isinstance(item, ast.Capabilities)]
    if not blocks:
        return None
    words = [item.value if isinstance(item, ast.String) else item.id for block in blocks for item in block.items]
    return tuple(dict.fromkeys(words))


def covers(capabilities: Iterable[str], wanted: str) -> bool:
    """Whether capabilities reach an effect (`log`), a tool, or at least one tool of `server.*`."""
    server, dot, _ = wanted.partition(".")
    whole = f"{server}.*" if dot else wanted
    return any(
        listed in {wanted, whole} or (wanted == whole and dot and listed.startswith(f"{server}."))
        for listed in capabilities
    )


# --- one agent --------------------------------------------------------------------------------


def _agent_drafts(node: ast.Agent, common: list[ast.Policy], tools: Tools, findings: Findings) -> Iterator[_Draft]:
    parameters = frozenset(parameter.name for parameter in node.parameters)
    agent = _Agent(
        name=node.name,
        findings=findings,
        reader=SubjectReader(node.name, findings, tools, parameters),
        guards=GuardCompiler(findings, tools, parameters),
        capabilities=capabilities_of(node),
    )
    own = [item for item in node.items if isinstance(item, ast.Policy)]
    for block, policy in enumerate([*common, *own]):
        for rule in policy.rules:
            _rule(agent, rule, block, shared=block < len(common))
    for allow in agent.allows:
        _warn_of_bound(agent, allow)
        agent.drafts += _permits(agent, allow)
    _check_conditions_apply(agent)
    if agent.capabilities is not None:
        first = next(item for item in node.items if isinstance(item, ast.Capabilities))
        text = capability_bound(node.name, agent.capabilities)
        agent.drafts.append(_Draft(node.name, shared=False, text=text, span=first.span, suffix="capabilities"))
    yield from agent.drafts


def _rule(agent: _Agent, rule: ast.Rule, block: int, *, shared: bool) -> None:
    match rule.effect:
        case "allow":
            agent.allows.append(_Allow(block, shared, rule, _targets(agent, rule, deny=False)))
        case "deny":
            for target in _targets(agent, rule, deny=True):
                guard = "" if rule.guard is None else agent.guards.possibly(rule.guard, target)
                agent.drafts.append(_Draft(agent.name, shared, _policy("forbid", agent.name, target, guard), rule.span))
        case "require":
            _require(agent, rule, block, shared=shared)
        case _:
            _audit(agent, rule, block)


def _targets(agent: _Agent, rule: ast.Rule, *, deny: bool) -> tuple[Target, ...]:
    """What a rule is about, without the actions it only implies and that lack what its guard reads."""
    guard = rule.guard
    found = agent.reader.targets(rule.subject, deny=deny, guarded=guard is not None)
    if guard is None:
        return found
    if any(target.implied for target in found):
        _refuse_ambiguous(agent, guard, found)
    kept = tuple(target for target in found if not target.implied or bears(guard, target))
    if found and not kept:
        _note_unknown(agent, guard, found)
    return kept


def _permits(agent: _Agent, allow: _Allow) -> Iterator[_Draft]:
    """A permit for each target; further ones of the same scope bear the conditions, each at the line of its rule."""
    guard = allow.rule.guard
    for target in allow.targets:
        holds = "" if guard is None else agent.guards.certainly(guard, target)
        yield _Draft(agent.name, allow.shared, _policy("permit", agent.name, target, holds), allow.rule.span)
        for condition in agent.conditions:
            for within, requirements in _reach(agent, condition, allow, target).items():
                also = "" if condition.guard is None else agent.guards.possibly(condition.guard, within)
                for marks in _annotations(requirements):
                    text = _policy("permit", agent.name, within, _both(holds, also), marks)
                    yield _Draft(agent.name, allow.shared, text, condition.rule.span)


def _annotations(requirements: Iterable[Requirement]) -> list[dict[str, str]]:
    """The annotations of as few permits as it takes: one bears each condition once."""
    permits: list[dict[str, str]] = []
    for requirement in requirements:
        kind, value = str(requirement.kind), requirement.value
        for marks in permits:
            if marks.setdefault(kind, value) == value:
                break
        else:
            permits.append({kind: value})
    return permits


def _warn_of_bound(agent: _Agent, allow: _Allow) -> None:
    for target in allow.targets:
        if agent.capabilities is None or target.implied or target.action in UNBOUND_ACTIONS:
            continue
        if not _reaches(agent.capabilities, target):
            message = f"the capabilities of `{agent.name}` do not reach this: it is never allowed"
            agent.findings.warning("capability", message, allow.rule.span, "list it in `capabilities`")


def _reaches(capabilities: tuple[str, ...], target: Target) -> bool:
    if target.action == "ConnectServer" or target.action in SERVER_ACTIONS:
        whole = target.action in SERVER_ACTIONS
        servers = {word.partition(".")[0] for word in capabilities if (word.endswith(".*") if whole else "." in word)}
        named = [f"resource == {entity('ToolServer', server)}" for server in servers]
        return target.resource in named or (not target.resource and bool(servers))
    if target.action == "InvokeTool":
        return any("." in word if target.tool is None else covers([word], target.tool) for word in capabilities)
    return any(target.action in VERB_BY_WORD[word].actions for word in capabilities if word in VERB_BY_WORD)


# --- require and audit ------------------------------------------------------------------------


def _require(agent: _Agent, rule: ast.Rule, block: int, *, shared: bool) -> None:
    requirements = read_require(rule.subject, agent.findings)
    conditions = tuple(requirement for requirement in requirements if requirement.kind is not None)
    if conditions:
        agent.conditions.append(_Condition(block, conditions, rule.guard, rule))
    if len(conditions) < len(requirements):
        target = Target("InvokeTool")
        guard = "" if rule.guard is None else agent.guards.possibly(rule.guard, target)
        text = _policy("forbid", agent.name, target, _both("!resource.verified", guard))
        agent.drafts.append(_Draft(agent.name, shared, text, rule.span))


def _audit(agent: _Agent, rule: ast.Rule, block: int) -> None:
    match rule.subject:
        case ast.Record(type=None) as settings:
            requirements = tuple(read_audit(settings, agent.findings))
            if requirements:
                agent.conditions.append(_Condition(block, requirements, rule.guard, rule))
        case subject:
            whole = (Requirement(ConditionKind.RECORD, "full", subject.span),)
            targets = _targets(agent, rule, deny=False)
            for target in targets:
                if rule.guard is not None:
                    agent.guards.possibly(rule.guard, target)  # for its findings, also where no `allow` is meant
            agent.conditions.append(_Condition(block, whole, rule.guard, rule, targets))


def _reach(
    agent: _Agent, condition: _Condition, allow: _Allow, target: Target
) -> dict[Target, tuple[Requirement, ...]]:
    """What of an allow's target a rule concerns, and what it asks for there."""
    if not _in_scope(agent, condition, allow):
        return {}
    if condition.targets is not None:
        parts = [met for named in condition.targets if (met := meet(target, named)) is not None]
    elif not target.action and (
        condition.guard is not None or any(one.kind in APPLIES_TO for one in condition.requirements)
    ):
        parts = [Target(action, implied=True) for action in ATTRIBUTES]
    else:
        parts = [target]
    found = {part: _asked(agent, condition, part) for part in parts if bears(condition.guard, part)}
    return {part: requirements for part, requirements in found.items() if requirements}


def _asked(agent: _Agent, condition: _Condition, target: Target) -> tuple[Requirement, ...]:
    known = arguments_of(target.tool, agent.reader.tools) if target.action == "InvokeTool" else None
    return tuple(one for one in condition.requirements if fits(one, target.action, known))


def _in_scope(agent: _Agent, condition: _Condition, allow: _Allow) -> bool:
    """A rule that names what it is about concerns all of it; else its own policy's `allow` rules, or all where it has none."""
    return (
        condition.targets is not None
        or allow.block == condition.block
        or all(other.block != condition.block for other in agent.allows)
    )


def _check_conditions_apply(agent: _Agent) -> None:
    for condition in agent.conditions:
        scope = [allow for allow in agent.allows if _in_scope(agent, condition, allow)]
        targets = [target for allow in scope for target in allow.targets]
        if condition.targets is not None:
            continue  # the trail holds it also where no `allow` of this file is about it
        if condition.guard is not None:
            _refuse_ambiguous(agent, condition.guard, targets)
        reached = [_reach(agent, condition, allow, target) for allow in scope for target in allow.targets]
        asked = {id(one) for parts in reached for requirements in parts.values() for one in requirements}
        idle = [one for one in condition.requirements if id(one) not in asked]
        guard = condition.guard
        if idle and guard is not None and targets and not any(bears(guard, target) for target in targets):
            _note_unknown(agent, guard, targets)
            continue
        for one in idle:
            word = f"`{condition.rule.effect}: {one.kind}`"
            message = f"{word} concerns no `allow` of agent `{agent.name}`"
            hint = "put it beside the `allow` rule that it is about"
            agent.findings.error("require", message, one.span, hint)


def _note_unknown(agent: _Agent, guard: ast.Expr, targets: Iterable[Target]) -> None:
    """None of the actions has all that a guard reads: say which name, or which comparison."""
    for path in paths(guard):
        unaware = [target for target in targets if resolve(path, target) is None]
        if unaware:
            message = f"`{'.'.join(path)}` is not known to the action `{unaware[0].action}`"
            hint = explain(path, unaware[0], agent.reader.parameters)
            agent.findings.error("unknown_name", message, guard.span, hint)
            return
    agent.guards.certainly(guard, next(iter(targets)))  # all names are known: it says what is wrong with their types


def _refuse_ambiguous(agent: _Agent, guard: ast.Expr, targets: Iterable[Target]) -> None:
    for path in paths(guard):
        if path[0] in {"arguments", "labels", "context"}:
            continue
        as_argument = [target for target in targets if argument_of(path, target) is not None]
        otherwise = [target for target in targets if target.action != "InvokeTool" and _has(path, target)]
        if as_argument and otherwise:
            name = ".".join(path)
            message = f"`{name}` is a tool's argument here, and an attribute of the action `{otherwise[0].action}`"
            agent.findings.error("ambiguous", message, guard.span, f"write `arguments.{name}` or `context.{name}`")


def _has(path: Path, target: Target) -> bool:
    return resolve(path, target) is not None


# --- Cedar ------------------------------------------------------------------------------------


def capability_bound(agent: str, capabilities: Iterable[str]) -> str:
    """Cedar that forbids an agent everything but what its capabilities list, and what `UNBOUND_ACTIONS` names."""
    listed = tuple(dict.fromkeys(capabilities))
    tools = [word for word in listed if "." in word and not word.endswith(".*")]
    servers = [word.removesuffix(".*") for word in listed if word.endswith(".*")]
    connected = list(dict.fromkeys([*servers, *(tool.partition(".")[0] for tool in tools)]))
    effects = [word for word in listed if word in EFFECTS and word not in _TELLS_APART]
    actions = [*UNBOUND_ACTIONS, *(VERB_BY_WORD[word].actions[0] for word in effects)]
    reach = [f"action in [{', '.join(entity('Action', action) for action in actions)}]"]
    reach += [_TELLS_APART[word] for word in listed if word in _TELLS_APART]
    if tools:
        actions = [entity("Action", f"InvokeTool::{tool}") for tool in tools]
        reach.append(f"action in [{', '.join(actions)}]")
    if servers:
        within = f"resource in [{', '.join(entity('ToolServer', server) for server in servers)}]"
        asked = ", ".join(entity("Action", action) for action in ("InvokeTool", *SERVER_ACTIONS))
        reach.append(f"action in [{asked}] && {within}")
    if connected:
        known = ", ".join(entity("ToolServer", server) for server in connected)
        reach.append(f'action == Action::"ConnectServer" && [{known}].contains(resource)')
    body = " ||\n  ".join(f"({text})" for text in reach)
    return f"forbid (\n  principal == {entity('Agent', agent)},\n  action,\n  resource\n) unless {{\n  {body}\n}};"


def _policy(effect: str, agent: str, target: Target, condition: str, annotations: dict[str, str] | None = None) -> str:
    marks = "".join(f"@{kind}({cedar_text(value)})\n" for kind, value in (annotations or {}).items())
    scope = ",\n  ".join([f"principal == {entity('Agent', agent)}", _action(target), target.resource or "resource"])
    when = _both(target.also, condition)
    body = f" when {{\n  {when}\n}}" if when else ""
    return f"{marks}{effect} (\n  {scope}\n){body};"


def _action(target: Target) -> str:
    if not target.action:
        return "action"
    if target.action == "InvokeTool":
        if target.tool is None or target.tool.endswith(".*"):
            return f"action in {entity('Action', 'InvokeTool')}"
        return f"action == {entity('Action', f'InvokeTool::{target.tool}')}"
    return f"action == {entity('Action', target.action)}"


def _both(*conditions: str) -> str:
    return " && ".join(text for text in conditions if text)


def _named(file: str, drafts: list[_Draft]) -> Iterator[tuple[_Draft, CompiledPolicy]]:
    """Drafts with their ids, in order of the source."""
    by_line = attrgetter("span.line", "suffix")
    for (line, suffix), group in groupby(sorted(drafts, key=by_line), by_line):
        several = list(group)
        for number, draft in enumerate(several, 1):
            mark = suffix + (str(number) if len(several) > 1 else "")
            policy_id = f"{file}:{line}#{mark}" if mark else f"{file}:{line}"
            yield draft, CompiledPolicy(policy_id, draft.text, draft.span.place(file))


def check_cedar(policies: Iterable[CompiledPolicy]) -> Iterator[tuple[CompiledPolicy, PolicySyntaxError]]:
    """Policies that Cedar does not take, though their rules are right: conditions that are too long or too deep."""
    for policy in policies:
        try:
            for statement in split(PolicySource(policy.place.file, policy.text)):
                parse(statement)
        except PolicySyntaxError as error:
            yield policy, error
