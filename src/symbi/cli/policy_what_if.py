"""How what would change a verdict is shown, for `symbi policy explain` and `symbi policy why`."""

from rich.markup import escape

from symbi.cli.output import out
from symbi.guard.records import decision_facts
from symbi.policy.counterfactual import Change, PolicyState, WhatIf
from symbi.policy.decision import Deny
from symbi.tools.text import printable

MAX_NEAR = 5  # policies that came near and are shown


def state_json(state: PolicyState) -> dict[str, object]:
    """The clauses of a policy on the request."""
    return {
        "clauses": [
            {"text": clause.text, "holds": clause.holds, "values": dict(clause.values)} for clause in state.clauses
        ]
    }


def what_if_json(found: WhatIf) -> dict[str, object]:
    """All of it, for `--json`."""
    lifted = found.lifted
    return {
        "policies": [
            {"id": s.policy.id, "effect": s.policy.effect, "file": s.policy.file, "line": s.policy.line} | state_json(s)
            for s in found.states
        ],
        "without_forbids": None
        if lifted is None
        else {"forbids": [ref.id for ref in lifted.forbids], **decision_facts(lifted.decision)},
        "changes": [
            {
                "facts": [{"fact": fact, "is": was, "would_be": then} for fact, was, then in change.facts],
                **decision_facts(change.decision),
            }
            for change in found.changes
        ],
    }


def print_what_if(found: WhatIf, *, denied: bool) -> None:
    """The clauses that did not hold, the forbids to lift, and the changes that were tried and do it."""
    wanted = "permit" if denied else "forbid"
    near = [state for state in found.states if state.policy.effect == wanted and state.blockers]
    for state in near[:MAX_NEAR]:
        policy = state.policy
        out.print(
            f"\n[bold]not fired[/] {policy.effect} {escape(policy.id)} [dim]{escape(policy.file)}:{policy.line}[/]"
        )
        for clause in state.blockers:
            told = "cannot be evaluated by itself" if clause.holds is None else "is false"
            values = "; ".join(f"{name} is {value}" for name, value in clause.values)
            out.print(
                f"  {escape(printable(clause.text))} [bold]{told}[/]{escape(printable(f': {values}' if values else ''))}"
            )
    if found.lifted is not None:
        names = ", ".join(str(ref) for ref in found.lifted.forbids)
        out.print(f"\n[bold]without[/] {escape(names)}: {escape(_decided(found.lifted.decision))}")
    if found.changes:
        out.print(f"\n[bold]would be {'allowed' if denied else 'denied'}[/], each tried:")
    for change in found.changes:
        out.print(f"  {escape(printable(_change(change)))}")


def _change(change: Change) -> str:
    facts = " and ".join(f"{fact} = {then} (is {was})" for fact, was, then in change.facts)
    return f"with {facts}: {_decided(change.decision)}"


def _decided(decision: object) -> str:
    if isinstance(decision, Deny):
        return f"denied: {decision.reason}"
    refs = ", ".join(str(ref) for ref in getattr(decision, "policies", ()))
    return f"allowed by {refs}"
