"""`symbi memory`: see, export, remove and put in order what agents remember; through the owner of the data folder, or in its place."""

from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.markup import escape

from symbi.cli.options import Config, Json
from symbi.cli.output import EXIT_FAILED, EXIT_VERIFICATION, counted, err, errors_to_exit, out, print_json
from symbi.cli.owner import ask_or_own
from symbi.cli.privacy import hand_out
from symbi.config import load_settings
from symbi.errors import InputError
from symbi.tools.text import printable
from symbi.types import JsonValue

app = typer.Typer(help="See, export, remove and put in order what agents remember.", no_args_is_help=True)

Agent = Annotated[str, typer.Argument(help="Whose memory: NAME, or NAME/INSTANCE.")]
Kind = Annotated[str | None, typer.Option(help="Only of this kind: working, short-term, long-term or shared.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="Only with this tag; once for each.")]
Text = Annotated[str, typer.Option(help="Only with all of these words.")]
ROWS_SHOWN: Final = 20


@app.command("show")
def show(
    agent: Annotated[str | None, typer.Argument(help="Whose memory; all agents with anything if left out.")] = None,
    *,
    kind: Kind = None,
    tag: Tags = None,
    text: Text = "",
    as_json: Json = False,
    config: Config = None,
) -> None:
    """List who remembers how much, or the items of one agent, without what they say."""
    with errors_to_exit(as_json=as_json):
        if agent is None and (kind or tag or text):
            msg = "say whose memory: a kind, tags and words choose among the items of one agent"
            raise InputError(msg, code="input.usage")
        arguments = {} if agent is None else _arguments(agent, kind, tag, text)
        said: Any = ask_or_own(load_settings(config), "memory.show", arguments)
        if as_json:
            print_json(said)
        elif agent is None:
            for row in said:
                out.print(f"[bold]{escape(row['agent'])}[/] {counted(row['items'], 'item')}")
            if not said:
                out.print("nobody remembers anything")
        else:
            for item in said["items"][:ROWS_SHOWN]:
                about = f", about {counted(item['about'], 'person', 'people')}" if item["about"] else ""
                out.print(
                    f"{item['id']} {item['at'][:19]}Z [bold]{item['kind']}[/] {item['form']}, {counted(item['tokens'], 'token')}, "
                    f"{item['integrity']}, {item['confidentiality']}{about}"
                )
            out.print(_summary(len(said["items"]), len(said["checkpoints"]), more=said["more"]))
            out.print(f"kept for {said['retention_days']:g} days at most")


@app.command("export")
def export(
    agent: Agent,
    *,
    kind: Kind = None,
    tag: Tags = None,
    text: Text = "",
    to: Annotated[Path | None, typer.Option("--out", "-o", help="Write to this new file, of mode 0600.")] = None,
    config: Config = None,
) -> None:
    """Print all that an agent remembers as JSON, newest first, each item with its label and where it came from."""
    with errors_to_exit():
        settings, arguments, items = load_settings(config), _arguments(agent, kind, tag, text), list[Any]()
        more = True
        while more:  # a page at a time
            after = {"after": items[-1]["id"]} if items else {}
            said: Any = ask_or_own(settings, "memory.export", {**arguments, **after})
            items += said["items"]
            more = said["more"] and bool(said["items"])
        hand_out(items, to)


@app.command("forget")
def forget(  # noqa: PLR0913 - the options of a command
    agent: Agent,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID…]", help="Which items.")] = None,
    *,
    kind: Kind = None,
    tag: Tags = None,
    text: Text = "",
    everything: Annotated[bool, typer.Option("--all", help="All that the agent remembers.")] = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Remove items from an agent's memory, its checkpoints, vectors and caches; it cannot be undone.

    What is about somebody under a legal hold stays: named items go together or not at all; of all others, what stays is
    counted, and the exit code is 1.
    """
    with errors_to_exit(as_json=as_json):
        chosen = bool(ids) + bool(kind or tag or text) + everything
        if chosen != 1:
            msg = "say which items: their ids, or a kind, tags or words, or `--all`"
            raise InputError(msg, code="input.usage")
        arguments = {**_arguments(agent, kind, tag, text), "ids": list(ids or ()), "all": everything}
        said: Any = ask_or_own(load_settings(config), "memory.forget", arguments)
        if as_json:
            print_json(said)
        else:
            out.print(f"removed {counted(said['items'], 'item')} of {escape(printable(agent))}")
        if said["held"]:
            if not as_json:
                _tell_held(said["held"], said["held_ids"])
            raise typer.Exit(EXIT_FAILED)


@app.command("verify")
def verify(
    *,
    repair: Annotated[
        bool, typer.Option("--repair", help="Make missing vectors again, as policy lets each agent do it.")
    ] = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Compare what is remembered with its vectors. Exit code 4: some are missing, and what is asked by meaning is not found."""
    with errors_to_exit(as_json=as_json):
        said: Any = ask_or_own(load_settings(config), "memory.verify", {"repair": repair})
        if as_json:
            print_json(said)
        else:
            state = "[bold green]agrees[/]" if said["clean"] else "[bold red]does not agree[/]"
            lost = (
                f"{said['missing']} without a vector, {said['made']} made again"
                if repair
                else f"{said['missing']} without a vector"
            )
            out.print(f"{state}: {counted(said['items'], 'item')} to be found by meaning, {lost}")
            if said["missing"] and not repair:
                out.print(
                    "until `symbi memory verify --repair` has made them again, these are found by their words alone"
                )
            if said["refused"]:
                out.print(
                    f"  [bold red]left:[/] policy does not let vectors of {counted(said['refused'], 'item')} be made"
                )
        if not said["clean"]:
            raise typer.Exit(EXIT_VERIFICATION)


def _summary(items: int, checkpoints: int, *, more: bool) -> str:
    """The last line below a list of items."""
    shown = f", of which the newest {ROWS_SHOWN} are shown" if items > ROWS_SHOWN else ""
    return f"{counted(items, 'item')}{' or more' if more else ''}{shown}; {counted(checkpoints, 'checkpoint')}"


def _tell_held(held: int, ids: list[str]) -> None:
    """Say what stays, and why."""
    stays = "1 item stays, for it is" if held == 1 else f"{held} items stay, for they are"
    err.print(f"[yellow]{stays} about somebody under a legal hold[/]; `symbi privacy list` says why:")
    for one in ids:
        err.print(f"  {escape(printable(one))}")
    if held > len(ids):
        err.print(f"  and {held - len(ids)} more")


def _arguments(agent: str, kind: str | None, tags: list[str] | None, text: str) -> dict[str, JsonValue]:
    given: dict[str, JsonValue] = {"agent": agent, "text": text, "tags": list(tags or ())}
    return given if kind is None else {**given, "kind": kind}
