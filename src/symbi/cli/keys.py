"""`symbi keys`: the keys by which agents sign and open messages."""

from typing import Annotated, Any

import typer
from rich.markup import escape

from symbi.cli.options import Config, Json
from symbi.cli.output import errors_to_exit, out, print_json
from symbi.cli.owner import ask_or_own
from symbi.config import load_settings
from symbi.tools.text import printable

app = typer.Typer(help="See, change and destroy the keys by which agents sign and open messages.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The agent as its file declares it; instances have the same keys.")]


@app.command("list")
def list_keys(*, as_json: Json = False, config: Config = None) -> None:
    """Show whose keys there are: public parts alone."""
    with errors_to_exit(as_json=as_json):
        said: Any = ask_or_own(load_settings(config), "keys.list", {})
        if as_json:
            print_json(said)
            return
        for row in said["keys"]:
            state = (
                f"destroyed at {row['destroyed_at'][:19]}Z"
                if row["destroyed_at"]
                else f"since {row['created_at'][:19]}Z"
            )
            out.print(
                f"[bold]{escape(printable(row['agent']))}[/] {row['generation']}: signs by {row['signing_id']}, {state}"
            )
        if not said["keys"]:
            out.print("no agent has keys yet: they are made with its first message")


@app.command("rotate")
def rotate(agent: Name, *, as_json: Json = False, config: Config = None) -> None:
    """Give an agent other keys; what waits is opened with those before, which go once nothing does."""
    with errors_to_exit(as_json=as_json):
        said: Any = ask_or_own(load_settings(config), "keys.rotate", {"agent": agent})
        if as_json:
            print_json(said)
            return
        out.print(f"{escape(printable(agent))} signs by [bold]{said['signing_id']}[/] from now on")


@app.command("destroy")
def destroy(agent: Name, *, as_json: Json = False, config: Config = None) -> None:
    """Destroy the private keys of an agent that is gone for good; what still waits for it cannot be opened then."""
    with errors_to_exit(as_json=as_json):
        said: Any = ask_or_own(load_settings(config), "keys.destroy", {"agent": agent})
        if as_json:
            print_json(said)
            return
        out.print(f"{said['destroyed']} key pairs of {escape(printable(agent))} are destroyed")
