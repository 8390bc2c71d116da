"""What of an agent file's rules is in force: a file may always take away, and give only what the operator lets it.

An agent file comes from whoever wrote it, a policy file from the operator. So the rules of a file are taken thus:

- a `deny`, a `require` and the bound of its capabilities always hold;
- an `allow` never decides whether its own agent is created: that is the operator's to say;
- while that is being decided, and always where `AgentRules.RESTRICT` is set, an `allow` permits nothing at all. The
  conditions that `require` has put on it hold beside what the operator permits (`@conditions("only")`).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from symbi.errors import Place
from symbi.policy.policies import CONDITIONS_ONLY, Compiled, PolicyWarning, condition_kinds
from symbi.policy.source import Statement, parse

CREATION: Final = "CreateAgent"
"""The action by which an agent comes to life: no agent file permits it."""

PENDING: Final = "#pending"
"""Ends the id of a rule that is asked to admit its file while another version of the file is in force."""

_NOT_CREATION: Final = f'\nunless {{ action == Action::"{CREATION}" }};'


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
            text = _in_force(policy, full=file.admitted and rules is AgentRules.FULL)
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


def _in_force(policy: Compiled, *, full: bool) -> str | None:
    """The text of a rule as it may hold; None where nothing is left of it."""
    parsed = parse(Statement(policy.text, policy.place, (len(policy.text),)))
    if parsed["effect"] != "permit":
        return policy.text
    actions = _actions(parsed)
    if not full:
        asks = condition_kinds(parsed.get("annotations", {}))
        return f"{CONDITIONS_ONLY}\n{policy.text}" if asks else None
    if actions is not None and CREATION not in actions:
        return policy.text
    if actions == {CREATION}:
        return None
    return policy.text.rstrip().removesuffix(";") + _NOT_CREATION


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
