"""Remarks on a policy set for its authors. Each is true for what it says; none changes what is decided."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from symbi.errors import Place, did_you_mean
from symbi.policy.catalog import TOOL_GROUP
from symbi.policy.contradiction import never_fire
from symbi.policy.expression import Path, clauses, path_of, walk
from symbi.policy.failing import failures
from symbi.policy.library import CANARY
from symbi.policy.policies import Policy, PolicySet
from symbi.policy.redundant import redundant
from symbi.types import Confidentiality, Integrity

LINTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "unused": "its scope, or what it asks for, names something that does not exist",
        "never-fires": "its condition can never be true",
        "unknown-value": "it compares with a value that the attribute never has",
        "shadowed": "a permit that a forbid always takes away",
        "implied": "another policy says the same, or more",
        "can-fail": "its evaluation can fail, and a failure denies",
    }
)
"""What `lint` looks for."""

_INTEGRITY: Final = tuple(level.value for level in Integrity)
_CONFIDENTIALITY: Final = tuple(level.value for level in Confidentiality)
_TRUST: Final = ("untrusted", "standard", "trusted")


@dataclass(frozen=True, slots=True)
class Lint:
    """One remark.

    Attributes:
        code: One of `LINTS`.
        policy: Id of the policy.
        message: What is the matter, in one line.
        place: Of the policy.
        hint: What to do about it.
    """

    code: str
    policy: str
    message: str
    place: Place
    hint: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message} [{self.code}]; {self.hint}"


@dataclass(frozen=True, slots=True)
class Known:
    """What exists; None for a kind of which not everything is known, so that nothing is said of it.

    Attributes:
        agents: Names of agents.
        groups: Groups that some agent is in.
        servers: Tool servers.
    """

    agents: frozenset[str] | None = None
    groups: frozenset[str] | None = None
    servers: frozenset[str] | None = None


NOTHING_KNOWN: Final = Known()


def lint(policies: PolicySet, known: Known = NOTHING_KNOWN) -> list[Lint]:
    """All remarks on a set, by place; the built-in policies are left out.

    Args:
        policies: The set; what is said of tools is said of its catalogue.
        known: What else exists.
    """
    chosen = [policy for policy in policies.policies if policy.file != CANARY.file]
    found = [
        *_absent(policies, chosen, known),
        *_unknown_values(chosen),
        *_never(policies, chosen),
        *_redundant(chosen),
        *_failing(chosen),
    ]
    return sorted(found, key=lambda each: (each.place.file, each.place.line, each.place.column, each.code))


def _of(code: str, policy: Policy, message: str, hint: str) -> Lint:
    return Lint(code, policy.id, f"{policy.effect} `{policy.id}`: {message}", policy.place, hint)


def _absent(policies: PolicySet, chosen: Sequence[Policy], known: Known) -> Iterator[Lint]:
    tools = frozenset(tool.name for tool in policies.tools) | {"*"}
    for policy in chosen:
        for name in sorted(policy.tools() - tools):
            hint = did_you_mean(name, tools) or "it does nothing until a server offers that tool"
            yield _of("unused", policy, f"no tool `{name}` is in the catalogue", hint)
        for kind, names, where in (
            ("Agent", known.agents, "the agent files or the configuration"),
            ("Group", known.groups, "the groups of any configured agent"),
            ("ToolServer", known.servers, "the configured tool servers"),
        ):
            if names is None or (kind == "Group" and not names and policy.effect == "forbid"):
                continue  # where there are no groups yet, a forbid waits for the first member
            for name in sorted(name for type_, name in policy.names if type_ == kind and name not in names):
                hint = did_you_mean(name, names) or f"add it, or remove `{kind}::{name}`"
                yield _of("unused", policy, f"`{name}` is not among {where}", hint)


def _unknown_values(chosen: Sequence[Policy]) -> Iterator[Lint]:
    for policy in chosen:
        for part in clauses(policy):
            for node in walk(part):
                (kind, inner), *_ = node.items()
                if kind not in {"==", "!=", "contains"}:
                    continue
                for one, other in (("left", "right"), ("right", "left")):
                    path = path_of(inner[one])
                    allowed = _vocabulary(path) if path else ()
                    literals = inner[other].get("Set", [inner[other]])
                    for value in (item.get("Value") for item in literals if allowed):
                        if isinstance(value, str) and value not in allowed:
                            hint = did_you_mean(value, allowed) or f"use {', '.join(f'`{word}`' for word in allowed)}"
                            yield _of("unknown-value", policy, f"`{'.'.join(path or ())}` is never `{value}`", hint)


def _vocabulary(path: Path) -> tuple[str, ...]:
    """All the values that the gate ever gives an attribute; empty where there is no such list."""
    match path:
        case ("context", "label", "integrity") | ("context", "labels", _, "integrity"):
            return _INTEGRITY
        case ("context", "label", "confidentiality") | ("context", "labels", _, "confidentiality"):
            return _CONFIDENTIALITY
        case ("principal", "trust"):
            return _TRUST
        case _:
            return ()


def _never(policies: PolicySet, chosen: Sequence[Policy]) -> Iterator[Lint]:
    tools = {tool.name for tool in policies.tools}
    asked = [policy for policy in chosen if policy.tools() <= tools | {"*"} and (tools or not _is_general(policy))]
    found = never_fire(policies, asked)
    for policy in asked:
        if policy.id in found:
            hint = "correct it, or remove it: it does nothing"
            if _is_general(policy):
                hint += ", as far as the tools known now go"
            yield _of("never-fires", policy, f"can never fire: {found[policy.id]}", hint)


def _is_general(policy: Policy) -> bool:
    """About tools that are not named, so that the next tool may change what is said of it."""
    actions = policy.scope_actions()
    return actions is None or TOOL_GROUP in actions


def _redundant(chosen: Sequence[Policy]) -> Iterator[Lint]:
    for each in redundant(chosen):
        cover = f"{each.cover.effect} {each.cover.ref}"
        if each.kind == "shadowed":
            message, hint = f"always taken away by {cover}", "narrow the forbid, or remove this permit"
        else:
            message, hint = f"says nothing that {cover} does not say", "remove it, or narrow the other"
        yield _of(each.kind, each.policy, message, hint)


def _failing(chosen: Sequence[Policy]) -> Iterator[Lint]:
    for policy in chosen:
        for _, how in failures(policy):
            hint = (
                "bound the numbers before it; a policy that cannot be evaluated denies the request, whatever permits it"
            )
            yield _of("can-fail", policy, how, hint)
