"""`symbi policy why`: the decision of one effect, derived again from the trail and what is stored beside it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

import typer
from rich.markup import escape

from symbi.audit.event import AuditEvent, AuditEventType, parse_event
from symbi.cli.audit_lines import summary
from symbi.cli.options import Config, Json
from symbi.cli.output import EXIT_VERIFICATION, errors_to_exit, out, print_json
from symbi.cli.policy_what_if import print_what_if, state_json, what_if_json
from symbi.clock import parse_rfc3339
from symbi.config import Settings, load_settings
from symbi.errors import InputError, VerificationError, did_you_mean
from symbi.guard.confidential import revealed
from symbi.guard.records import decision_facts
from symbi.guard.why import Derivation, derive
from symbi.policy.decision import Deny
from symbi.policy.expression import shown
from symbi.policy.stored import request_json
from symbi.tools.text import printable
from symbi.types import EffectId, JsonValue, RunId
from symbi.wiring import TrailReader, open_reader, reading_vault, verifying_keys
from symbi.wiring.keeping import verify_live


def why(
    effect: Annotated[str, typer.Argument(metavar="EFFECT_ID", help="As `symbi audit show --json` names it.")],
    *,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Derive the decision of one effect again, and compare it with the signed record. Exit code 4: they differ."""
    with errors_to_exit(as_json=as_json):
        events, derived = _derive(load_settings(config), EffectId(effect))
        others = [event for event in events if event not in [each.event for each in derived]]
        if as_json:
            print_json(
                {
                    "effect_id": effect,
                    "decisions": [_derivation_json(each) for each in derived],
                    "events": [_event_json(event) for event in others],
                }
            )
        else:
            for each in derived:
                _print_derivation(each)
            for event in others:
                told = escape(printable(summary(event)))
                out.print(f"[bold]event {event.sequence}[/] {event.event_type} [dim]{event.timestamp[:23]}[/] {told}")
        if any(each.problems for each in derived):
            raise typer.Exit(EXIT_VERIFICATION)


def _derive(settings: Settings, effect_id: EffectId) -> tuple[list[AuditEvent], list[Derivation]]:
    """The events of an effect, and its decisions derived again; the whole trail is verified first.

    Raises:
        InputError: There is no such effect, or it was never put to the policy engine.
        VerificationError: The trail does not verify, or lacks the effect.
    """
    with open_reader(settings) as reader:
        report = verify_live(reader, verifying_keys(settings))
        vault = reading_vault(settings, reader)
        every = [parse_event(stored.record, sequence=stored.sequence) for stored in reader.read(1)]
        events = [revealed(event, vault) for event in every if event.details.get("effect_id") == effect_id]
        record = reader.get_effect(effect_id)
        if not events and record is not None and report.first > 1 and is_before(effect_id, report.first_timestamp):
            msg = f"the events of effect `{effect_id}` have left the live store, which begins with event {report.first}"
            hint = "`symbi audit segments` says where they are"
            raise InputError(msg, code="input.removed", hint=hint)
        if not events and record is not None:
            msg = f"effect `{effect_id}` is in the ledger, and the trail does not know it"
            raise VerificationError(msg, code="verify.effect")
        if not events:
            msg = f"there is no effect `{effect_id}`"
            known = {str(event.details["effect_id"]) for event in every if "effect_id" in event.details}
            hint = did_you_mean(effect_id, known) or "`symbi audit show --json` lists them as `effect_id`"
            raise InputError(msg, code="input.effect", hint=hint)
        decided = [event for event in events if "verdict" in event.details]
        if not decided:
            msg = f"the trail has no decision on effect `{effect_id}`: {events[-1].event_type}, {summary(events[-1])}"
            hint = "it was refused before policies were asked, or it waits for a person"
            if report.first > 1 and is_before(effect_id, report.first_timestamp):
                hint = "the decision has left the live store: `symbi audit segments` says where it is"
            raise InputError(msg, code="input.effect", hint=hint)
        rows = {row.digest: row.request for row in reader.requests_of(effect_id)}
        derived = [
            derive(
                event,
                rows.get(str(event.details.get("request_digest"))),
                reader.policy_set(str(event.details.get("policy_version"))),
                record,
                vault,
                compacted=_was_compacted(reader, event, every),
            )
            for event in decided
        ]
    return events, derived


def _was_compacted(reader: TrailReader, event: AuditEvent, every: Sequence[AuditEvent]) -> bool:
    """Whether what is kept of an effect beside the trail was removed for its age, as the trail says."""
    effect_id = EffectId(str(event.details["effect_id"]))
    told = (one.details.get("before") for one in every if one.event_type is AuditEventType.JOURNAL_COMPACTED)
    if not any(isinstance(before, str) and is_before(effect_id, before) for before in told):
        return False
    run = reader.get_run(RunId(event.run_id)) if event.run_id else None
    return not event.run_id or (run is not None and run.compacted)


def is_before(effect_id: EffectId, timestamp: str) -> bool:
    """Whether an effect was asked for before a time: its id, a UUIDv7, begins with the millisecond."""
    digits = effect_id.replace("-", "")[:12]
    if len(digits) < 12 or not all(digit in "0123456789abcdef" for digit in digits):  # noqa: PLR2004 - 48 bits
        return False
    return int(digits, 16) * 1_000_000 <= parse_rfc3339(timestamp)


def _event_json(event: AuditEvent) -> dict[str, object]:
    return {
        "sequence": event.sequence,
        "timestamp": event.timestamp,
        "type": event.event_type.value,
        "details": dict(event.details),
    }


def _derivation_json(derived: Derivation) -> dict[str, object]:
    stored, found = derived.stored, derived.what_if
    states = {} if found is None else {state.policy.id: state for state in found.states}
    return {
        "event": _event_json(derived.event),
        "agrees": derived.agrees,
        "problems": list(derived.problems),
        "notes": list(derived.notes),
        "request": None if stored is None else request_json(stored.request),
        "withheld": stored.withheld if stored else "",
        "labels": {
            name or "*": {"integrity": integrity, "confidentiality": confidentiality, "sources": list(sources)}
            for name, integrity, confidentiality, sources in (stored.labels if stored else ())
        },
        "derived": None if derived.decision is None else decision_facts(derived.decision),
        "decided_by": [
            {"id": policy.id, "file": policy.file, "line": policy.line, "text": policy.text}
            | (state_json(states[policy.id]) if policy.id in states else {})
            for policy in derived.deciding
        ],
        "what_if": None if found is None else what_if_json(found),
    }


def _print_derivation(derived: Derivation) -> None:
    event, details = derived.event, derived.event.details
    verdict = str(details["verdict"])
    colour = "red" if verdict == "deny" else "green"
    what = f"{details['action']} on {details['resource']}"
    out.print(f"[bold {colour}]{verdict}[/] {escape(printable(what))}")
    whom = f"run {event.run_id}, effect {details['position']}" if event.run_id else "the runtime itself"
    _row("recorded", f"event {event.sequence}, {event.timestamp[:23]}, signed by {event.key_id}; {whom}")
    if details.get("reason"):
        _row("reason", str(details["reason"]))
    for name, text in _facts(derived):
        _row(name, text)
    for policy in derived.deciding:
        _row("decided by", f"{policy.effect} {policy.id} ({policy.file}:{policy.line})")
        for line in policy.text.strip().splitlines():
            out.print(f"             {escape(line)}", style="dim")
    for condition in _conditions(details):
        _row("condition", condition)
    if derived.what_if is not None:
        print_what_if(derived.what_if, denied=isinstance(derived.decision, Deny))
    for note in derived.notes:
        out.print(f"[yellow]note:[/] {escape(printable(note))}")
    for problem in derived.problems:
        out.print(f"[bold red]DOES NOT FIT:[/] {escape(printable(problem))}")
    if derived.agrees:
        out.print("[green]derived again from the stored request and policy set: the same decision[/]")


def _facts(derived: Derivation) -> Iterator[tuple[str, str]]:
    approval = derived.event.details.get("approval")
    if isinstance(approval, Mapping):
        people = approval.get("people")
        by = ", ".join(map(str, people)) if isinstance(people, list) and people else "nobody"
        yield "approved by", f"{by} (approval {approval.get('id')})"
    if derived.stored is None:
        return
    request = derived.stored.request
    who = request.principal
    yield "principal", f"{who.agent}, owner {who.owner}, groups {', '.join(who.groups) or 'none'}, trust {who.trust}"
    for name, value in sorted(request.context.items()):
        if name == "arguments" and isinstance(value, Mapping):
            yield from (("argument", f"{argument} = {shown(each)}") for argument, each in sorted(value.items()))
        elif name not in {"label", "labels"}:
            yield "context", f"{name} = {shown(value)}"
    for name, integrity, confidentiality, sources in derived.stored.labels:
        came = f", from {', '.join(sources)}" if sources else ""
        yield "label", f"{name or 'all together'}: {integrity}, {confidentiality}{came}"


def _conditions(details: Mapping[str, JsonValue]) -> Iterator[str]:
    listed = details.get("conditions")
    for condition in listed if isinstance(listed, list) else ():
        yield f"@{condition['kind']}({condition['value']}) of {condition['policy']}"


def _row(name: str, text: str) -> None:
    out.print(f"  [bold]{name:<10}[/] {escape(printable(text))}")
