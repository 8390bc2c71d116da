"""What of an agent file's rules is in force: a file may always take away, and give only what the operator lets it.

An agent file comes from whoever wrote it, a policy file from the operator. So the rules of a file are taken thus:

- whether its agent is created is the operator's to say. While that is being decided, the file can only say no to it:
  of its rules, those that take away are in force, and for `CreateAgent` alone, so that a file which is not admitted
  cannot get in the way of an agent that runs under the same name;
- once it is admitted, a `deny`, a `require` and the bound of its capabilities hold, and an `allow` permits, except the
  creation of its agent;
- where `AgentRules.RESTRICT` is set, an `allow` permits nothing at all. The conditions that `require` has put on it hold
  beside what the operator permits (`@conditions("only")`).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from symbi.errors import Place
from symbi.policy.policies import CONDITIONS_ONLY, Compiled, PolicyWarning, condition_kinds
from symbi.policy.source import Statement, end_of_scope, parse

CREATION: Final = "CreateAgent"
"""The action by which an agent comes to life: no agent file permits it."""

PENDING: Final = "#pending"
"""Ends the id of a rule that is asked to admit its file while another version of the file is in force."""


class AgentRules(StrEnum):
    """What the `allow` rules of an agent file are worth once its agent has been created."""

    FULL = "full"
    """They permit, as far as no forbid says otherwise: for files whose authors are the operator's own."""
    RESTRICT = "restrict"
    """They permit nothing: the operator's policies must."""


@dataclass(frozen=True, slots=True)
class FileRule:
    """A rule of an agent file as it is in force."""

    id: str
    text: str
    place: Place


@dataclass(frozen=True, slots=True)
class FileRules:
    """The rules of one version of one agent file.

    Attributes:
        policies: As compiled.
        admitted: The operator's policies have let its agent be created.
    """

    policies: tuple[Compiled, ...]
    admitted: bool = True


def compose(files: Iterable[FileRules], rules: AgentRules) -> tuple[tuple[FileRule, ...], tuple[PolicyWarning, ...]]:
    """The rules that several agent files bring into the set, and what is said of those that have no effect.

    Args:
        files: Admitted ones first; a rule whose id is taken by another text gets a further id.
        rules: What their permits are worth.

    Raises:
        PolicySyntaxError: A rule is not a policy.
    """
    taken: dict[str, str] = {}
    kept: list[FileRule] = []
    warnings: list[PolicyWarning] = []
    for file in files:
        for policy in file.policies:
            text = _in_force(policy, rules, admitted=file.admitted)
            if text is None:
                warnings += _without_effect(policy, rules) if file.admitted else ()
                continue
            policy_id = policy.id
            while taken.get(policy_id, text) != text:
                policy_id += PENDING
            if policy_id not in taken:
                taken[policy_id] = text
                kept.append(FileRule(policy_id, text, policy.place))
    return tuple(kept), tuple(warnings)


def _in_force(policy: Compiled, rules: AgentRules, *, admitted: bool) -> str | None:
    """The text of a rule as it may hold; None where nothing is left of it."""
    parsed = parse(Statement(policy.text, policy.place, (len(policy.text),)))
    actions = _actions(parsed)
    text = policy.text
    if parsed["effect"] == "permit" and not (admitted and rules is AgentRules.FULL):
        if not condition_kinds(parsed.get("annotations", {})):
            return None
        text = f"{CONDITIONS_ONLY}\n{text}"
    elif parsed["effect"] == "permit":
        return _narrowed(text, actions, "unless") if actions != {CREATION} else None
    return text if admitted else _narrowed(text, actions, "when")


def _narrowed(text: str, actions: set[str] | None, word: str) -> str | None:
    """A policy about creation alone (`when`), or about all else (`unless`); None where nothing is left of it.

    What it is narrowed by stands before its own conditions, so that they are not even evaluated elsewhere.
    """
    reaches = actions is None or CREATION in actions
    if not reaches:
        return text if word == "unless" else None
    if actions == {CREATION}:
        return text
    end = end_of_scope(text)
    return f'{text[:end]} {word} {{ action == Action::"{CREATION}" }}{text[end:]}'


def _actions(parsed: object) -> set[str] | None:
    """The actions of a policy's scope in Cedar's JSON; None for all."""
    assert isinstance(parsed, dict)
    scope = parsed["action"]
    if scope["op"] == "All":
        return None
    entities = scope["entities"] if "entities" in scope else [scope["entity"]]
    return {entity["id"] for entity in entities}


def _without_effect(policy: Compiled, rules: AgentRules) -> Iterator[PolicyWarning]:
    if rules is AgentRules.FULL:
        yield PolicyWarning(
            f"the rule `{policy.id}` permits the creation of its own agent, and has no effect",
            policy.place,
            f"the operator permits `{CREATION}`, in the files of `policy.paths`",
        )
    else:
        yield PolicyWarning(
            f"the rule `{policy.id}` permits, and has no effect",
            policy.place,
            "`policy.agent_rules` is `restrict`: the operator permits, in the files of `policy.paths`",
        )
