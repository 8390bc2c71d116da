"""`symbi audit`: read the trail, verify it, export it. All of it opens the store read-only, beside its owner."""

import shutil
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.box import SIMPLE
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from symbi.audit.event import MAX_RECORD_BYTES, AuditEvent, AuditEventType, parse_event
from symbi.audit.export import EVENTS_NAME, HEAD_NAME, KEYS_NAME, keys_document, read_events, read_keys
from symbi.audit.verify import TrailReport, verify_trail
from symbi.cli.options import Config, Json
from symbi.cli.output import err, errors_to_exit, out, print_json, print_json_line
from symbi.config import Settings, load_settings
from symbi.crypto.provider import open_provider
from symbi.errors import ChainBroken, InputError, did_you_mean
from symbi.guard.confidential import PRIVATE, revealed
from symbi.tools.text import printable
from symbi.types import JsonValue
from symbi.wiring import open_reader, reading_vault, verifying_keys

app = typer.Typer(help="Read, verify and export the audit trail.", no_args_is_help=True)

SHOWN_DIGEST: Final = 12  # digits of a digest that a line shows
PROGRESS_FROM_EVENTS = 20_000  # shorter trails verify before a bar could be read


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
        vault = reading_vault(load_settings(config), reader)
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
                _print(revealed(event, vault), as_json=as_json)
            else:
                chosen = [*chosen[-(last - 1) :], event] if last > 1 else [event]
        for event in chosen:
            _print(revealed(event, vault), as_json=as_json)


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
    for name in ("reason", "error", "tool", PRIVATE):
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


@app.command("verify")
def verify(
    *,
    export: Annotated[Path | None, typer.Option(help="Verify this exported folder instead of the store.")] = None,
    keys: Annotated[
        Path | None, typer.Option(help="Trust the public keys of this file, not those that the export brings along.")
    ] = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Check every event, its signature, the chain, and the signed head. Exit code 4 names the first bad event."""
    with errors_to_exit(as_json=as_json):
        settings = load_settings(config)
        if keys is not None and export is None:
            msg = "`--keys` goes with `--export`"
            raise InputError(msg, code="input.usage", hint="the store is verified with the keys of its own runtime")
        try:
            if export is not None:
                report = _verify_export(export, keys, settings.security.crypto_provider.value)
            else:
                report = _verify_store(settings, quiet=as_json)
        except ChainBroken as broken:
            broken.hint = broken.hint or f"the first bad event is {broken.fields['sequence']}"
            raise
        show_report(report, as_json=as_json)
        if export is not None and keys is None and not as_json:
            err.print(
                "[yellow]the keys are those of the export itself[/]: compare their ids with those you know, or give `--keys`"
            )


def _verify_store(settings: Settings, *, quiet: bool) -> TrailReport:
    keys = verifying_keys(settings)
    with open_reader(settings) as reader:
        head = reader.head_record()
        count = reader.event_count()
        with Progress(
            TextColumn("verifying"), BarColumn(), MofNCompleteColumn(), console=err, transient=True,
            disable=quiet or count < PROGRESS_FROM_EVENTS,
        ) as bar:  # fmt: skip
            return verify_trail(bar.track(reader.read(1), total=count), head, keys)


def _verify_export(folder: Path, trusted: Path | None, provider: str) -> TrailReport:
    head_file, events_file = folder / HEAD_NAME, folder / EVENTS_NAME
    try:
        keys = read_keys(_read_bounded(trusted or folder / KEYS_NAME), open_provider(provider))
        # What was taken out of an export is missing from the trail: that is for the verifier to say.
        head = _read_bounded(head_file).removesuffix(b"\n") if head_file.exists() else None
        if not events_file.exists():
            return verify_trail((), head, keys)
        with events_file.open("rb") as events:
            lines = iter(partial(events.readline, MAX_RECORD_BYTES + 2), b"")
            return verify_trail(read_events(lines), head, keys)
    except OSError as error:
        msg = f"cannot read the export `{folder}`: {error.strerror or error}"
        raise InputError(msg, code="input.export") from error


def _read_bounded(path: Path) -> bytes:
    """A small file; of one that is too large to be right, enough to see that."""
    with path.open("rb") as file:
        return file.read(MAX_RECORD_BYTES + 2)


def show_report(report: TrailReport, *, as_json: bool) -> None:
    """The verdict on a trail that verifies."""
    if as_json:
        print_json({"verified": True} | {name: getattr(report, name) for name in TrailReport.__dataclass_fields__})
        return
    out.print(
        f"[bold green]verified[/]: {report.events} events, {report.first_timestamp[:19]}Z to {report.last_timestamp[:19]}Z"
    )
    out.print(f"  chain hash {report.chain_hash}, signed by {', '.join(report.key_ids)}")


@app.command("export")
def export(
    folder: Annotated[Path, typer.Argument(help="Folder to make; it must not exist yet.")],
    *,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Write the trail, its signed head and the public keys to a folder for an auditor; verifies it first."""
    with errors_to_exit(as_json=as_json):
        settings = load_settings(config)
        keys = verifying_keys(settings)
        with open_reader(settings) as reader:
            count = reader.event_count()
            events = list(reader.read(1, count))
            head = reader.head_record()
        if head is None or not events:
            msg = "the trail is empty"
            raise InputError(msg, code="input.export")
        report = verify_trail(events, head, keys)
        files = {
            EVENTS_NAME: b"".join(event.record + b"\n" for event in events),
            HEAD_NAME: head + b"\n",
            KEYS_NAME: keys_document(keys),
        }
        _write_export(folder, files)
        if as_json:
            print_json({"folder": str(folder), "events": report.events, "chain_hash": report.chain_hash})
        else:
            out.print(
                f"wrote {report.events} events to {escape(str(folder))}; check it with [bold]symbi audit verify --export[/]"
            )


def _write_export(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a new folder, whole or not at all."""
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        msg = f"cannot make `{folder}`: {error.strerror or error}"
        raise InputError(msg, code="input.export", hint="name a folder that does not exist yet") from error
    try:
        for name, data in files.items():
            (folder / name).write_bytes(data)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        msg = f"cannot write in `{folder}`: {error.strerror or error}"
        raise InputError(msg, code="input.unwritable") from error


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
