"""`symbi budget`: what runs may spend and have spent; and to let one spend more."""

from typing import Annotated, Any, Final

import typer
from rich.markup import escape

from symbi.cli.options import Config, Json
from symbi.cli.output import errors_to_exit, out, print_json
from symbi.cli.owner import ask_or_own
from symbi.config import load_settings
from symbi.errors import InputError
from symbi.guard.spending import KINDS, WRITTEN, written
from symbi.tools.text import printable
from symbi.types import JsonValue

app = typer.Typer(help="See what runs may spend and have spent, and let one spend more.", no_args_is_help=True)

RESUME: Final = "a run that was held for it goes on, or with [bold]symbi run --resume[/]"


@app.command("show")
def show(
    of: Annotated[str, typer.Argument(metavar="RUN|AGENT", help="A run, or an agent for its newest runs.")],
    *,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Show the account of a run with those of the runs that asked for it, or the accounts of an agent."""
    with errors_to_exit(as_json=as_json):
        rows: Any = ask_or_own(load_settings(config), "budget.show", {"of": of})
        if as_json:
            print_json(rows)
            return
        for row in rows:
            _print(row)


@app.command("raise")
def raise_(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="The run.")],
    amounts: Annotated[
        list[str], typer.Argument(metavar="NAME=+AMOUNT…", help="calls=+10, tokens, money, wall_s, cpu_s")
    ],
    *,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Let a run spend more; what it was held for, it does then."""
    with errors_to_exit(as_json=as_json):
        more: dict[str, JsonValue] = {}
        for pair in amounts:
            name, equals, amount = pair.partition("=")
            if not equals or name in more:
                msg = f"`{pair}` is not of the form NAME=+AMOUNT, or is there twice"
                raise InputError(msg, code="input.usage")
            more[name] = amount
        row: Any = ask_or_own(load_settings(config), "budget.raise", {"run": run_id, "amounts": more})
        if as_json:
            print_json(row)
            return
        _print(row)
        out.print(RESUME)


def _print(row: Any) -> None:
    below = f", asked for by run {row['parent']}" if row["parent"] else ""
    out.print(f"run {escape(row['run'])} of [bold]{escape(printable(row['agent']))}[/]{escape(below)}")
    for kind in KINDS:
        spent, held = row["spent"][kind], row["held"][kind]
        if kind not in row["budget"] and not spent and not held:
            continue
        of = (
            f" of {written(kind, row['budget'][kind])}, {written(kind, row['left'][kind])} left"
            if kind in row["budget"]
            else ""
        )
        flight = f", {written(kind, held)} in flight or in doubt" if held else ""
        out.print(f"  {WRITTEN[kind]:<7} {written(kind, spent)} spent{flight}{of}")
