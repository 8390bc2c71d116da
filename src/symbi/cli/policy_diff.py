"""`symbi policy diff`: what another set of policies changes, by its policies and over the recorded decisions."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.markup import escape

from symbi.cli.options import Config, Json
from symbi.cli.output import errors_to_exit, out, print_json
from symbi.config import Settings, load_settings
from symbi.errors import InputError, VerificationError
from symbi.guard.confidential import opened_request
from symbi.policy.decision import Deny, PolicyDecision
from symbi.policy.diff import (
    Difference,
    RecordedRequest,
    SetChange,
    Shift,
    compare_decisions,
    compare_sets,
    difference_facts,
)
from symbi.policy.policies import PolicySet
from symbi.policy.stored import load_set, read_request
from symbi.tools.text import printable
from symbi.types import EffectId
from symbi.wiring import known_tools, open_reader, policies_in, reading_vault

MAX_EXAMPLES: Final = 3  # effects that are named of each kind of difference
_VERSION: Final = re.compile(r"[0-9a-f]{8,64}")
_COLOURS: Final = {Shift.ALLOWED: "red", Shift.DENIED: "yellow", Shift.CONDITIONS: "cyan"}


_Kind = tuple[Shift, str, str, str, str, str, tuple[str, ...]]


@dataclass(slots=True)
class _Group:
    """Differences that read alike: the first of them, how many there are, and some of their effects."""

    first: Difference
    count: int = 0
    effects: list[EffectId] = field(default_factory=list)


@dataclass(slots=True)
class _Trail:
    """What there was to compare: requests that could be decided again, and those of which values are not kept."""

    compared: int = 0
    withheld: int = 0
    assumed: Counter[str] = field(default_factory=Counter)
    with_assumed: int = 0
    groups: dict[_Kind, _Group] = field(default_factory=dict)

    def add(self, one: Difference) -> None:
        """Count a difference."""
        resource = f"{one.request.resource.type}::{one.request.resource.id}"
        request = one.request
        told = _told(one.old), _told(one.new)
        kind = (one.shift, request.principal.agent, request.action, resource, *told, one.assumed)
        group = self.groups.setdefault(kind, _Group(one))
        group.count += 1
        if len(group.effects) < MAX_EXAMPLES:
            group.effects.append(one.effect_id)

    def assume(self, facts: tuple[str, ...]) -> None:
        """Count a request that lacks facts."""
        self.with_assumed += 1
        self.assumed.update(facts)

    def total(self, shift: Shift) -> int:
        """How many differences of a kind there are."""
        return sum(group.count for kind, group in self.groups.items() if kind[0] is shift)


def diff(
    old: Annotated[str, typer.Argument(help="A folder or file of policies, or the version of a set that has decided.")],
    new: Annotated[str, typer.Argument(help="Likewise.")],
    *,
    trail: Annotated[bool, typer.Option("--trail", help="Also decide every recorded request by both.")] = False,
    agent_files: Annotated[
        list[Path] | None,
        typer.Option("--agent-file", "-a", help="Also take the policies of this agent file, for both."),
    ] = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """List the policies that are added, removed and changed, and the recorded requests that are decided otherwise."""
    with errors_to_exit(as_json=as_json):
        settings = load_settings(config)
        before, after = (_load(settings, name, agent_files or ()) for name in (old, new))
        change = compare_sets(before, after)
        seen = _over_trail(settings, before, after) if trail else None
        if as_json:
            print_json(_as_json(before, after, change, seen))
        else:
            _print(change, seen)


def _load(settings: Settings, name: str, agent_files: Sequence[Path]) -> PolicySet:
    """The set of a path, or one that the store keeps."""
    if Path(name).exists():
        return policies_in(settings, name, agent_files, known_tools(settings))
    if not _VERSION.fullmatch(name):
        msg = f"`{name}` is neither a path nor the version of a policy set"
        raise InputError(msg, code="input.unreadable", hint="a version has 8 to 64 hexadecimal digits")
    with open_reader(settings) as reader:
        known = [version for version in reader.policy_set_versions() if version.startswith(name)]
        if len(known) != 1:
            msg = f"`{name}` is the version of {len(known)} policy sets in the store"
            raise InputError(msg, code="input.policy_version", hint="the versions stand in `symbi audit show`")
        text = reader.policy_set(known[0])
    assert text is not None
    return load_set(text, known[0]).policies


def _over_trail(settings: Settings, before: PolicySet, after: PolicySet) -> _Trail:
    seen = _Trail()
    for difference in compare_decisions(before, after, recorded_requests(settings, seen), seen.assume):
        seen.add(difference)
    return seen


def recorded_requests(settings: Settings, seen: _Trail) -> Iterator[RecordedRequest]:
    """The requests that the store keeps, in the order of their effects; those with values that it does not keep count.

    Raises:
        VerificationError: A request is not the one that was decided on.
        StoreUnavailable: There is no store, or it cannot be read.
    """
    with open_reader(settings) as reader:
        vault = reading_vault(settings, reader)
        for row in reader.requests():
            if hashlib.sha256(row.request).hexdigest() != row.digest:
                msg = f"the request of effect `{row.effect_id}` was changed after it was recorded"
                raise VerificationError(msg, code="verify.request", hint="`symbi audit verify` looks at the trail")
            opened, _ = opened_request(row.request, row.effect_id, vault)
            stored = None if opened is None else read_request(opened)
            if stored is None or stored.withheld:
                seen.withheld += 1
                continue
            seen.compared += 1
            effect = reader.get_effect(row.effect_id)
            verdict = "" if effect is None else str(json.loads(effect.decision).get("verdict", ""))
            yield RecordedRequest(row.effect_id, stored.request, verdict)


# --- showing ----------------------------------------------------------------------------------


def _told(decision: PolicyDecision) -> str:
    """What decides, in one line."""
    names = ", ".join(str(ref) for ref in decision.policies)
    if isinstance(decision, Deny) and decision.errors:
        return f"denied: {decision.errors[0]}"
    if isinstance(decision, Deny):
        return f"forbidden by {names}" if names else "permitted by none"
    conditions = sorted({f"@{c.kind.value}({c.value})" for c in getattr(decision, "conditions", ())})
    return f"permitted by {names}{' with ' if conditions else ''}{', '.join(conditions)}"


def _as_json(before: PolicySet, after: PolicySet, change: SetChange, seen: _Trail | None) -> dict[str, object]:
    found: dict[str, object] = {
        "old": before.version,
        "new": after.version,
        "added": list(change.added),
        "removed": list(change.removed),
        "changed": list(change.changed),
    }
    if seen is None:
        return found
    groups = [
        {
            "shift": kind[0].value,
            "agent": kind[1],
            "action": kind[2],
            "resource": kind[3],
            "count": group.count,
            "effects": group.effects,
            "assumed": list(kind[6]),
            **difference_facts(group.first.old, group.first.new),
        }
        for kind, group in seen.groups.items()
    ]
    return found | {
        "compared": seen.compared,
        "withheld": seen.withheld,
        "assumed": dict(sorted(seen.assumed.items())),
        "differences": groups,
    }


def _print(change: SetChange, seen: _Trail | None) -> None:
    for mark, ids in (
        ("[green]added[/]  ", change.added),
        ("[red]removed[/]", change.removed),
        ("changed", change.changed),
    ):
        for policy_id in ids:
            out.print(f"{mark} {escape(printable(policy_id))}")
    if not (change.added or change.removed or change.changed):
        out.print("the policies are the same")
    if seen is None:
        return
    for (shift, agent, action, resource, old, new, assumed), group in seen.groups.items():
        head = printable(f"{agent}: {action} on {resource}")
        out.print(f"\n[bold {_COLOURS[shift]}]{shift.value}[/] {escape(head)} [dim]{group.count} times[/]")
        out.print(f"  was {escape(printable(old))}\n  is  {escape(printable(new))}")
        if assumed:
            out.print(f"  [yellow]by facts that were not recorded[/], taken as zero: {escape(', '.join(assumed))}")
        out.print(f"  [dim]effects {', '.join(group.effects)}[/]")
    counts = ", ".join(f"{seen.total(shift)} {shift.value}" for shift in Shift)
    out.print(f"\n{seen.compared} recorded requests: {counts}")
    if seen.with_assumed:
        facts = escape(", ".join(sorted(seen.assumed)))
        out.print(f"{seen.with_assumed} of them were decided by facts that were not recorded, taken as zero: {facts}")
    if seen.withheld:
        out.print(f"{seen.withheld} more were not compared: some of what they held is not kept")
