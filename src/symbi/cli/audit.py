"""`symbi audit`: read the trail; `symbi.cli.audit_verify` has what an auditor asks of it. All of it opens the store read-only."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from symbi.audit.page import MAX_PAGE, read_page
from symbi.audit.query import Asked, EventFilter, judged, read_filter
from symbi.cli import audit_keys, audit_verify
from symbi.cli.audit_follow import later, newest, quiet_end, refuse_end, wait_for_more
from symbi.cli.audit_lines import event_json, print_event
from symbi.cli.options import Config, Json
from symbi.cli.output import err, errors_to_exit, print_json
from symbi.clock import SystemClock
from symbi.config import load_settings
from symbi.guard.confidential import revealed
from symbi.guard.vault import Vault
from symbi.wiring import TrailReader, open_reader, reading_vault

app = typer.Typer(help="Read, verify and export the audit trail.", no_args_is_help=True)
app.command("verify")(audit_verify.verify)
app.command("export")(audit_verify.export)
app.command("prove")(audit_verify.prove)
app.command("rotate-key")(audit_keys.rotate_key)


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


@contextmanager
def _opened(config: Path | None) -> Iterator[tuple[TrailReader, Vault]]:
    """The trail, and what opens the details that are sealed in it, as far as there are keys."""
    settings = load_settings(config)
    with open_reader(settings) as reader:
        yield reader, reading_vault(settings, reader)


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
    with errors_to_exit(as_json=as_json), quiet_end(ends=follow), _opened(config) as (reader, vault):
        asked = Asked(agent, run, tuple(kind or ()), verdict, policy, since, until, span)
        wanted = read_filter(asked, SystemClock().now_ns())
        if follow:
            refuse_end(asked, wanted)
        shown = 0
        for event in newest(reader, wanted, last) if last else judged(wanted, reader.select(wanted)):
            print_event(revealed(event, vault), as_json=as_json)
            shown += 1
        if follow:
            for event in later(reader, wanted, wait_for_more):
                print_event(revealed(event, vault), as_json=as_json)
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
    with errors_to_exit(as_json=True), quiet_end(), _opened(config) as (reader, vault):
        asked = Asked(agent, run, tuple(kind or ()), verdict, policy, since, until, span)
        page = read_page(reader, asked, SystemClock().now_ns(), cursor=after, limit=limit, descending=newest_first)
        events = [event_json(revealed(event, vault)) for event in page.events]
        print_json({"events": events, "more": page.more, "next": page.next})
