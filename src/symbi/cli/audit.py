"""`symbi audit`: read the trail; `symbi.cli.audit_verify` has what an auditor asks of it. All of it opens the store read-only."""

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Final

import typer
from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table

from symbi.audit.event import AuditEvent, AuditEventType, parse_event
from symbi.cli import audit_keys, audit_verify
from symbi.cli.options import Config, Json
from symbi.cli.output import errors_to_exit, out, print_json_line
from symbi.config import load_settings
from symbi.errors import InputError, did_you_mean
from symbi.tools.text import printable
from symbi.types import JsonValue
from symbi.wiring import open_reader

app = typer.Typer(help="Read, verify and export the audit trail.", no_args_is_help=True)
app.command("verify")(audit_verify.verify)
app.command("export")(audit_verify.export)
app.command("prove")(audit_verify.prove)
app.command("rotate-key")(audit_keys.rotate_key)

SHOWN_DIGEST: Final = 12  # digits of a digest that a line shows


@app.command("show")
def show(
    *,
    run: Annotated[str | None, typer.Option(help="Only events of this run.")] = None,
    agent: Annotated[str | None, typer.Option(help="Only events of this agent.")] = None,
    kind: Annotated[str | None, typer.Option("--type", help="Only events of this type, e.g. `decision.deny`.")] = None,
    last: Annotated[int | None, typer.Option(min=1, help="Only the last so many that fit.")] = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Print events, oldest first: one line each, or JSON lines with `--json`."""
    with errors_to_exit(as_json=as_json), open_reader(load_settings(config)) as reader:
        if kind is not None and kind not in list(AuditEventType):
            msg = f"unknown event type `{kind}`"
            raise InputError(msg, code="input.event_type", hint=did_you_mean(kind, AuditEventType) or None)
        chosen: list[AuditEvent] = []
        for stored in reader.read(1):
            event = parse_event(stored.record, sequence=stored.sequence)
            if run not in {None, event.run_id} or agent not in {None, event.agent_id}:
                continue
            if kind not in {None, event.event_type}:
                continue
            if last is None:
                _print(event, as_json=as_json)
            else:
                chosen = [*chosen[-(last - 1) :], event] if last > 1 else [event]
        for event in chosen:
            _print(event, as_json=as_json)


def _print(event: AuditEvent, *, as_json: bool) -> None:
    if as_json:
        print_json_line({name: getattr(event, name) for name in AuditEvent.__dataclass_fields__})
        return
    out.print(
        f"[dim]{event.sequence:>5} {event.timestamp[:23]}[/] [bold]{event.event_type:<16}[/] {escape(event.agent_id)} "
        f"{escape(printable(summary(event)))}"
    )


def summary(event: AuditEvent) -> str:
    """The facts of an event that a person looks for first."""
    details = event.details
    parts = [
        str(details[name])
        for name in ("action", "resource", "verdict", "outcome", "state", "from", "event", "to")
        if name in details
    ]
    policies = details.get("policies")
    if isinstance(policies, list):
        parts += [f"{p['id']} ({p['file']}:{p['line']})" for p in policies if isinstance(p, dict)]
    for name in ("reason", "error", "tool"):
        if details.get(name):
            parts.append(f"{name}: {details[name]}")
    if isinstance(grant := details.get("grant_digest"), str):
        parts.append(f"grant {grant[:SHOWN_DIGEST]}")
    if isinstance(labels := details.get("input_labels"), dict):
        parts += [f"{name}: {_label(label)}" for name, label in labels.items() if isinstance(label, dict)]
    return " ".join(dict.fromkeys(parts))


def _label(label: Mapping[str, JsonValue]) -> str:
    """A label in the words that a user writes."""
    categories = label.get("categories")
    listed = f":{','.join(map(str, categories))}" if isinstance(categories, list) and categories else ""
    return f"{label.get('integrity')}, {label.get('confidentiality')}{listed}"


def decisions_table(events: list[AuditEvent]) -> Table:
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
    details = event.details
    action, resource = str(details["action"]).split("::")[0], str(details["resource"]).split("::", 1)[1]
    what = resource if action == "InvokeTool" else action if resource == event.agent_id else f"{action} {resource}"
    arguments = details.get("arguments")
    if isinstance(arguments, Mapping) and "to" in arguments:
        what += f" → {arguments['to']}"
    listed = details.get("policies")
    policies = [p for p in listed if isinstance(p, Mapping)] if isinstance(listed, list) else []
    return (
        event.agent_id,
        what,
        "deny" if event.event_type == "decision.deny" else "allow",
        ", ".join(str(p["id"]) for p in policies) or "(none permits it)",
        ", ".join(f"{p['file']}:{p['line']}" for p in policies),
    )
