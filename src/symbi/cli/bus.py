"""`symbi bus`: what passes between agents of a runtime that is alive."""

import time
from typing import Annotated, Any, Final

import typer
from rich.markup import escape

from symbi.api.bus import MAX_TAIL
from symbi.cli.options import Config, Json
from symbi.cli.output import errors_to_exit, out, print_json
from symbi.cli.status import ask_alive
from symbi.tools.text import printable

FOLLOW_S: Final = 0.5

app = typer.Typer(
    help="See what passes between agents: no payload, which nobody but the receiver can open.", no_args_is_help=True
)


@app.command("stats")
def stats(*, as_json: Json = False, config: Config = None) -> None:
    """Show messages by topic and mailbox, what waits, and what was refused."""
    with errors_to_exit(as_json=as_json):
        answer: Any = ask_alive(config, "bus.stats", {})
        if as_json:
            print_json(answer)
            return
        for what in ("topics", "mailboxes"):
            for name, row in sorted(answer[what].items()):
                more = "".join(f", {row[word]} {word}" for word in ("failed", "refused", "again", "dead") if row[word])
                out.print(
                    f"{what[:-1] if what == 'topics' else 'mailbox'} [bold]{escape(printable(name))}[/]: "
                    f"{row['messages']} messages, {row['bytes']} bytes, {row['received']} received{more}"
                )
        for name, row in sorted(answer["buffers"].items()):
            if row["waiting"] or row["dropped"]:
                out.print(f"buffer of {escape(printable(name))}: {row['waiting']} waiting, {row['dropped']} dropped")
        out.print(
            f"{answer['leases']} leases, {answer['requests']} requests wait for answers, "
            f"{answer['dead_letters']} dead letters"
        )


@app.command("tail")
def tail(
    *,
    limit: Annotated[int, typer.Option(min=1, max=MAX_TAIL, help="How many groups at most, the last ones.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what passes from now on.")] = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Show what passed last: who, to whom, how many; messages that passed together are one line."""
    with errors_to_exit(as_json=as_json):
        rows: Any = ask_alive(config, "bus.tail", {})
        rows = rows[-limit:]
        after = 0
        while True:
            for row in rows:
                after = row["number"]
                if as_json:
                    print_json(row)
                else:
                    out.print(
                        f"[dim]{row['at'][:23]}Z[/] {row['pattern']:<9} {escape(printable(row['sender']))} → "
                        f"{escape(printable(row['to']))} {row['messages']} of {row['bytes'] // row['messages']} bytes "
                        f"[dim]{row['first']}[/]"
                    )
            if not follow:
                return
            time.sleep(FOLLOW_S)
            rows = ask_alive(config, "bus.tail", {"after": after})
