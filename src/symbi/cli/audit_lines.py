"""Events as people read them: one line each, with what happened first and what proves it in `--json`."""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table

from symbi.audit.event import AuditEvent, AuditEventType
from symbi.cli.output import out, print_json_line
from symbi.guard.confidential import PRIVATE
from symbi.tools.text import cut, printable
from symbi.types import SYSTEM_AGENT, JsonValue

SHOWN_DIGEST: Final = 12  # digits of a digest that a line shows
MAX_SUMMARY_CHARS: Final = 400  # of one line; the rest is in `--json`
MAX_LISTED: Final = 3  # names of a list that a line shows

Details = Mapping[str, JsonValue]

_MS: Final = 1_000
_S: Final = 1_000_000
_KB: Final = 1_000
_MB: Final = 1_000_000

_COLOURS: Final = {
    "decision.allow": "green",
    "decision.deny": "bold red",
    "effect.unknown": "bold yellow",
    "approval.denied": "red",
    "approval.refused": "red",
    "approval.asked": "yellow",
    "policy.refused": "red",
    "tool.refused": "red",
    "input.refused": "red",
    "key.rotated": "magenta",
    "subject.erased": "magenta",
}
"""Colours of the types that an eye looks for."""


def print_event(event: AuditEvent, *, as_json: bool) -> None:
    """An event on standard output: one line for people, or one of JSON."""
    if as_json:
        print_json_line(event_json(event))
    elif out.is_terminal:
        out.print(event_line(event, coloured=True))
    else:
        sys.stdout.write(event_line(event) + "\n")


def event_json(event: AuditEvent) -> dict[str, object]:
    """An event for machines: all of its fields, by their names in the record."""
    return {name: getattr(event, name) for name in AuditEvent.__dataclass_fields__}


def event_line(event: AuditEvent, *, coloured: bool = False) -> str:
    """An event as one line: place, time in UTC, what, who, and the facts; as markup where it is to be coloured."""
    who = "" if event.agent_id == SYSTEM_AGENT else printable(event.agent_id)
    place = f"{event.sequence:>6} {event.timestamp[:10]} {event.timestamp[11:23]}"
    told = cut(printable(summary(event)), MAX_SUMMARY_CHARS)
    if not coloured:
        return f"{place}  {event.event_type:<16}  {who:<14}  {told}".rstrip()
    colour = _COLOURS.get(event.event_type, "bold")
    if event.event_type is AuditEventType.EFFECT_OUTCOME and event.details.get("outcome") != "confirmed":
        colour = "yellow"
    # Padded before it is escaped: what is escaped is longer than what is seen.
    return f"[dim]{place}[/]  [{colour}]{event.event_type:<16}[/]  {escape(f'{who:<14}')}  {escape(told)}"


def summary(event: AuditEvent) -> str:
    """The facts of an event that a person looks for first."""
    told = _SUMMARIES.get(event.event_type, _any)(event, event.details)
    hidden = event.details.get(PRIVATE)
    return f"{told} {hidden}".strip() if isinstance(hidden, str) else told


def decisions_table(events: Iterable[AuditEvent]) -> Table:
    """Who asked for what, how often, the verdict, and the policies that made it with file and line."""
    rows = Counter(_decision_row(event) for event in events if event.event_type.startswith("decision."))
    table = Table(title="Decisions", title_justify="left", header_style="bold", box=SIMPLE, pad_edge=False)
    for column in ("who", "what", "n", "verdict", "by policy"):
        wide = column == "by policy"
        table.add_column(column, overflow="fold", no_wrap=wide, justify="right" if column == "n" else "left")
    for (who, what, verdict, policy, where), count in rows.items():
        colour = "bold red" if verdict == "deny" else "green"
        placed = f"{escape(policy)}\n[dim]{escape(where)}[/]"
        table.add_row(escape(who), escape(what), str(count), f"[{colour}]{verdict}[/]", placed)
    return table


def _decision_row(event: AuditEvent) -> tuple[str, str, str, str, str]:
    policies = _policies(event.details)
    return (
        event.agent_id,
        _what(event, event.details),
        "deny" if event.event_type is AuditEventType.DECISION_DENY else "allow",
        ", ".join(name for name, _ in policies) or "(none permits it)",
        ", ".join(where for _, where in policies),
    )


# --- the parts that many types share --------------------------------------------------------------------------------------


def _text(details: Details, name: str) -> str:
    """A fact as text; empty where it is not there."""
    value = details.get(name)
    return "" if value is None else _value(value)


def _value(value: JsonValue) -> str:
    if isinstance(value, Mapping):
        if "sealed" in value:
            return "(sealed)"
        return ", ".join(f"{name}: {_value(each)}" for name, each in value.items())
    if isinstance(value, list):
        shown = ", ".join(_value(each) for each in value[:MAX_LISTED])
        return f"{shown}, … ({len(value)})" if len(value) > MAX_LISTED else shown
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _short(details: Details, name: str) -> str:
    return _text(details, name)[:SHOWN_DIGEST]


def _what(event: AuditEvent, details: Details) -> str:
    """What was asked for: a tool by its name, anything else as action and resource; and to whom something goes."""
    action, resource = _text(details, "action").split("::")[0], _text(details, "resource").partition("::")[2]
    what = (
        resource if action in {"InvokeTool", ""} else action if resource == event.agent_id else f"{action} {resource}"
    )
    arguments = details.get("arguments")
    if isinstance(arguments, Mapping) and "to" in arguments:
        what += f" → {_value(arguments['to'])}"
    return what


def _policies(details: Details) -> list[tuple[str, str]]:
    """The policies that decided, each with its place."""
    listed = details.get("policies")
    found = [one for one in listed if isinstance(one, Mapping)] if isinstance(listed, list) else []
    return [(_text(one, "id"), f"{_text(one, 'file')}:{_text(one, 'line')}") for one in found]


def _by(details: Details) -> str:
    return ", ".join(f"{name} ({where})" for name, where in _policies(details))


def _why(details: Details) -> str:
    """Code and words of what went wrong, each once."""
    code = _text(details, "error") or _text(details, "code")
    words = _text(details, "message") or _text(details, "reason")
    return ": ".join(part for part in (code, words) if part)


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _duration(details: Details) -> str:
    micros = details.get("duration_us")
    if not isinstance(micros, int):
        return ""
    if micros < _MS:
        return f" in {micros} µs"
    return f" in {micros / _MS:.1f} ms" if micros < _S else f" in {micros / _S:.2f} s"


def _size(details: Details) -> str:
    count = details.get("result_bytes")
    if not isinstance(count, int):
        return ""
    if count < _KB:
        return f", {count} B"
    return f", {count / _KB:.1f} kB" if count < _MB else f", {count / _MB:.1f} MB"


# --- by type --------------------------------------------------------------------------------------------------------------


def _decision(event: AuditEvent, details: Details) -> str:
    what, by = _what(event, details), _by(details)
    verdict = _text(details, "verdict")
    if event.event_type is AuditEventType.DECISION_DENY:
        # Policies that decided say why better than words that only repeat their names.
        other = "" if _text(details, "code") == "policy.denied" and by else f"; {_why(details)}"
        return f"{what}: denied by {by}{other}" if by else f"{what}: denied{other}"
    if verdict == "deny":
        return f"{what}: let through though denied by {by or 'default'}, for policies are not enforced"
    how = "allowed"
    listed = details.get("conditions")
    if isinstance(listed, list):
        kinds = dict.fromkeys(_text(one, "kind") for one in listed if isinstance(one, Mapping))
        how += f" with {', '.join(kinds)}"
    return f"{what}: {how} by {by}" if by else f"{what}: {how}"


def _outcome(event: AuditEvent, details: Details) -> str:
    told = f"{_what(event, details)}: {_text(details, 'outcome')}{_duration(details)}{_size(details)}"
    return _joined(told, _why(details))


def _in_doubt(event: AuditEvent, details: Details) -> str:
    return f"{_what(event, details)}: in flight when the runtime ended, and nobody knows whether it happened"


def _settled(event: AuditEvent, details: Details) -> str:
    happened = "happened" if _text(details, "outcome") == "happened" else "did not happen"
    return _joined(f"{_what(event, details)}: it {happened}, says {_text(details, 'by')}", _text(details, "reason"))


def _compacted(_event: AuditEvent, details: Details) -> str:
    what = f"{_text(details, 'effects')} effects, {_text(details, 'runs')} runs"
    return f"removed from ledger and journal: {what}, from before {_text(details, 'before')[:19]}Z"


def _forgotten(_event: AuditEvent, details: Details) -> str:
    return f"removed from memory: {_text(details, 'items')} items ({_text(details, 'reason')})"


def _lease(event: AuditEvent, details: Details) -> str:
    lease = details.get("lease")
    bound = f" for {_text(lease, 'uses')} uses in {_text(lease, 'seconds')} s" if isinstance(lease, Mapping) else ""
    return f"{_decision(event, details)}{bound}"


def _run_started(event: AuditEvent, details: Details) -> str:
    grant = _short(details, "grant_digest")
    labels = details.get("input_labels")
    labelled = [f"{name}: {_label(one)}" for name, one in labels.items()] if isinstance(labels, Mapping) else []
    return _joined(
        f"run {event.run_id}" + (f" of {_text(details, 'file')}" if "file" in details else ""),
        f"grant {grant}" if grant else "",
        *labelled,
    )


def _run_resumed(event: AuditEvent, details: Details) -> str:
    return f"{_run_started(event, details)}; {_text(details, 'effects')} effects were done before"


def _run_finished(event: AuditEvent, details: Details) -> str:
    effects = _text(details, "effects")
    replayed = details.get("replayed")
    done = f" after {effects} effects" if effects else ""
    again = f" ({replayed} replayed)" if replayed else ""
    return _joined(f"run {event.run_id} {_text(details, 'state')}{done}{again}", _why(details))


def _label(label: JsonValue) -> str:
    """A label in the words that a user writes."""
    if not isinstance(label, Mapping):
        return _value(label)
    categories = label.get("categories")
    listed = f":{','.join(map(str, categories))}" if isinstance(categories, list) and categories else ""
    return f"{_text(label, 'integrity')}, {_text(label, 'confidentiality')}{listed}"


def _transition(_event: AuditEvent, details: Details) -> str:
    return f"{_text(details, 'from')} → {_text(details, 'to')} ({_text(details, 'event')})"


def _policy_changed(_event: AuditEvent, details: Details) -> str:
    counts = [
        f"{details[f'{name}_count']} {name}" for name in ("added", "changed", "removed") if details.get(f"{name}_count")
    ]
    tools = _text(details, "tools")
    told = f"{_text(details, 'policies')} policies in force, version {_short(details, 'version')} ({_text(details, 'cause')})"
    return _joined(told, ", ".join(counts), f"{tools} tools known" if tools not in {"", "0"} else "")


def _policy_refused(_event: AuditEvent, details: Details) -> str:
    return f"{_why(details)}; version {_short(details, 'version')} stays in force"


def _tool(_event: AuditEvent, details: Details) -> str:
    said = details.get("signed")
    signed = ("signed" if said else "not signed") if isinstance(said, bool) else ""
    digest = _short(details, "digest")
    return _joined(_text(details, "tool"), signed, f"digest {digest}" if digest else "", _why(details))


def _trail(_event: AuditEvent, details: Details) -> str:
    covered = {"event": "a signature on each event", "batch": "signed heads cover the events"}
    return _joined(
        f"format {_text(details, 'format')}, {_text(details, 'signature_algorithm')} key {_short(details, 'public_key')}…",
        covered.get(_text(details, "signing"), ""),
    )


def _runtime_started(_event: AuditEvent, details: Details) -> str:
    configuration = details.get("configuration")
    mode = _text(configuration, "runtime.mode") if isinstance(configuration, Mapping) else ""
    return _joined(f"symbi {_text(details, 'version')}", f"{mode} mode" if mode else "")


def _runtime_stopped(_event: AuditEvent, details: Details) -> str:
    return _joined("" if "error" in details else "in order", _why(details))


def _approval(event: AuditEvent, details: Details) -> str:
    what = _what(event, details) if "resource" in details else ""
    asks = details.get("asks")
    return _joined(
        what,
        f"asks {_value(asks)}" if asks else "",
        f"until {_text(details, 'expires_at')[:19]}Z" if "expires_at" in details else "",
        f"{_text(details, 'person')} says {_text(details, 'vote')}" if "vote" in details else "",
        f"agreed: {_text(details, 'people')}" if details.get("people") else "",
        _why(details),
        f"approval {_text(details, 'effect_id')}",
    )


_HIDDEN: Final = frozenset({"effect_id", "position", "attempt", "policy_version", "arguments_digest", "request_digest"})


def _any(event: AuditEvent, details: Details) -> str:
    """A type without words of its own: its facts by name, long digests cut."""
    parts = [_what(event, details)] if "resource" in details else []
    named = (name for name in details if name not in _HIDDEN | {"action", "resource", "arguments"})
    for name in named:
        value = _value(details[name])
        shown = value[:SHOWN_DIGEST] + "…" if len(value) >= 64 and value.isalnum() else value  # noqa: PLR2004 - a digest
        parts.append(f"{name.replace('_', ' ')}: {shown}")
    return _joined(*parts)


_SUMMARIES: Final[Mapping[str, Callable[[AuditEvent, Details], str]]] = {
    "trail.started": _trail,
    "runtime.started": _runtime_started,
    "runtime.stopped": _runtime_stopped,
    "policy.changed": _policy_changed,
    "policy.refused": _policy_refused,
    "decision.allow": _decision,
    "decision.deny": _decision,
    "effect.outcome": _outcome,
    "effect.unknown": _in_doubt,
    "effect.reconciled": _settled,
    "journal.compacted": _compacted,
    "memory.removed": _forgotten,
    "lease.granted": _lease,
    "lease.closed": _outcome,
    "agent.transition": _transition,
    "run.started": _run_started,
    "run.resumed": _run_resumed,
    "run.finished": _run_finished,
    "tool.verified": _tool,
    "tool.pinned": _tool,
    "tool.refused": _tool,
    "approval.asked": _approval,
    "approval.voted": _approval,
    "approval.refused": _approval,
    "approval.granted": _approval,
    "approval.denied": _approval,
    "approval.expired": _approval,
    "approval.voided": _approval,
    "approval.used": _approval,
}
"""How each type is told; one that is not here is told by its facts."""
