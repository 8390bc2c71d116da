"""`symbi audit`: read the trail, verify it, export it. All of it opens the store read-only, beside its owner."""

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, TypeAlias

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from symbi.audit.event import MAX_RECORD_BYTES
from symbi.audit.export import EVENTS_NAME, HEAD_NAME, KEYS_NAME, keys_document, read_events, read_keys
from symbi.audit.page import MAX_PAGE, read_page
from symbi.audit.query import Asked, EventFilter, judged, read_filter
from symbi.audit.verify import TrailReport, verify_trail
from symbi.cli.audit_follow import later, newest, quiet_end, refuse_end, wait_for_more
from symbi.cli.audit_lines import event_json, print_event
from symbi.cli.options import Config, Json
from symbi.cli.output import err, errors_to_exit, out, print_json
from symbi.clock import SystemClock
from symbi.config import Settings, load_settings
from symbi.crypto.provider import open_provider
from symbi.errors import ChainBroken, InputError
from symbi.wiring import open_reader, verifying_keys

app = typer.Typer(help="Read, verify and export the audit trail.", no_args_is_help=True)

PROGRESS_FROM_EVENTS = 20_000  # shorter trails verify before a bar could be read


Run: TypeAlias = Annotated[str | None, typer.Option(help="Only events of this run.")]
Agent: TypeAlias = Annotated[str | None, typer.Option(help="Only events of this agent.")]
Kinds: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--type", help="Only events of this type, e.g. `decision.deny`, or of `decision.*`; several with `or`."
    ),
]
Verdict: TypeAlias = Annotated[
    str | None, typer.Option(help="Only decisions that are `allow`, `allow_with_conditions` or `deny`.")
]
Policy: TypeAlias = Annotated[str | None, typer.Option(help="Only decisions that this policy made.")]
Since: TypeAlias = Annotated[
    str | None,
    typer.Option(help="Not before this: `2026-01-31T08:00:00Z`, `2026-01-31`, or how long ago: `2h`, `1d12h`."),
]
Until: TypeAlias = Annotated[str | None, typer.Option(help="Before this; likewise.")]
Span: TypeAlias = Annotated[
    str | None, typer.Argument(metavar="FROM..TO", help="Only these events: `10..20`, `10..`, `..20` or `17`.")
]


@app.command("show")
def show(  # noqa: PLR0913 - one option for each part of a filter
    span: Span = None,
    *,
    run: Run = None,
    agent: Agent = None,
    kind: Kinds = None,
    verdict: Verdict = None,
    policy: Policy = None,
    since: Since = None,
    until: Until = None,
    last: Annotated[int | None, typer.Option(min=1, help="Only the last so many that fit.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until you end it.")] = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Print events, oldest first: one line each, or JSON lines with `--json`. Times are in UTC."""
    with errors_to_exit(as_json=as_json), quiet_end(ends=follow), open_reader(load_settings(config)) as reader:
        asked = Asked(agent, run, tuple(kind or ()), verdict, policy, since, until, span)
        wanted = read_filter(asked, SystemClock().now_ns())
        if follow:
            refuse_end(asked, wanted)
        shown = 0
        for event in newest(reader, wanted, last) if last else judged(wanted, reader.select(wanted)):
            print_event(event, as_json=as_json)
            shown += 1
        if follow:
            for event in later(reader, wanted, wait_for_more):
                print_event(event, as_json=as_json)
        elif not shown:
            err.print("no event fits" if wanted != EventFilter() else "the trail is empty")


@app.command("query")
def query(  # noqa: PLR0913 - one option for each part of a filter
    span: Span = None,
    *,
    run: Run = None,
    agent: Agent = None,
    kind: Kinds = None,
    verdict: Verdict = None,
    policy: Policy = None,
    since: Since = None,
    until: Until = None,
    after: Annotated[
        str | None, typer.Option(metavar="CURSOR", help="Go on there: the `next` of the page before.")
    ] = None,
    limit: Annotated[int, typer.Option(help=f"Events of a page, up to {MAX_PAGE}.")] = 100,
    newest_first: Annotated[bool, typer.Option("--newest-first", help="From the end backwards.")] = False,
    config: Config = None,
) -> None:
    """Print a page of events as JSON: `events`, whether there are `more`, and `next`, the cursor that goes on after it."""
    with errors_to_exit(as_json=True), quiet_end(), open_reader(load_settings(config)) as reader:
        asked = Asked(agent, run, tuple(kind or ()), verdict, policy, since, until, span)
        page = read_page(reader, asked, SystemClock().now_ns(), cursor=after, limit=limit, descending=newest_first)
        print_json({"events": [event_json(event) for event in page.events], "more": page.more, "next": page.next})


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
