"""`symbi memory`: see, export and remove what agents remember; through the owner of the data folder, or in its place."""

from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.markup import escape

from symbi.cli.options import Config, Json
from symbi.cli.output import errors_to_exit, out, print_json
from symbi.cli.owner import ask_or_own
from symbi.cli.privacy import hand_out
from symbi.config import load_settings
from symbi.errors import InputError
from symbi.tools.text import printable
from symbi.types import JsonValue

app = typer.Typer(help="See, export and remove what agents remember.", no_args_is_help=True)

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
        arguments = {} if agent is None else _arguments(agent, kind, tag, text)
        said: Any = ask_or_own(load_settings(config), "memory.show", arguments)
        if as_json:
            print_json(said)
        elif agent is None:
            for row in said:
                out.print(f"[bold]{escape(row['agent'])}[/] {row['items']} items")
            if not said:
                out.print("nobody remembers anything")
        else:
            for item in said["items"][:ROWS_SHOWN]:
                about = f", about {item['about']} people" if item["about"] else ""
                out.print(
                    f"{item['id']} {item['at'][:19]}Z [bold]{item['kind']}[/] {item['form']}, {item['tokens']} tokens, "
                    f"{item['integrity']}, {item['confidentiality']}{about}"
                )
            out.print(f"{len(said['items'])} items, {len(said['checkpoints'])} checkpoints")


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
    """Print what an agent remembers as JSON, the newest 1,000 items, each with its label and where it came from."""
    with errors_to_exit():
        said: Any = ask_or_own(load_settings(config), "memory.export", _arguments(agent, kind, tag, text))
        hand_out(said, to)


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
    """Remove items from an agent's memory, its checkpoints, vectors and caches; it cannot be undone."""
    with errors_to_exit(as_json=as_json):
        chosen = bool(ids) + bool(kind or tag or text) + everything
        if chosen != 1:
            msg = "say which items: their ids, or a kind, tags or words, or `--all`"
            raise InputError(msg, code="input.usage")
        arguments = {**_arguments(agent, kind, tag, text), "ids": list(ids or ())}
        said: Any = ask_or_own(load_settings(config), "memory.forget", arguments)
        if as_json:
            print_json(said)
        else:
            out.print(f"removed {said['items']} items of {escape(printable(agent))}")


def _arguments(agent: str, kind: str | None, tags: list[str] | None, text: str) -> dict[str, JsonValue]:
    given: dict[str, JsonValue] = {"agent": agent, "text": text, "tags": list(tags or ())}
    return given if kind is None else {**given, "kind": kind}
