"""`symbi config show` and `symbi doctor`: what is set, and what this machine can do."""

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from symbi.cli.options import Config, Json
from symbi.cli.output import EXIT_UNAVAILABLE, errors_to_exit, out, print_json
from symbi.config import describe_settings, load_settings
from symbi.wiring import probe

config_app = typer.Typer(help="The configuration in force.", no_args_is_help=True)


@config_app.command("show")
def show(
    *,
    origin: Annotated[bool, typer.Option("--origin", help="Also say where each value came from.")] = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Print every key with its value."""
    with errors_to_exit(as_json=as_json):
        rows = describe_settings(load_settings(config))
        if as_json:
            print_json([{"key": r.key, "value": r.value, "origin": str(r.origin)} for r in rows])
            return
        for row in rows:
            where = f"  [dim]{escape(str(row.origin))}[/]" if origin else ""
            out.print(f"{escape(row.key)} = {escape(row.value)}{where}")


def doctor(*, as_json: Json = False, config: Config = None) -> None:
    """Say what this machine can do, and what to install for more. Exit code 5 if something needed is missing."""
    with errors_to_exit(as_json=as_json):
        findings = probe(load_settings(config))
        if as_json:
            print_json(
                [
                    {"name": f.name, "ok": f.ok, "required": f.required, "detail": f.detail, "hint": f.install_hint}
                    for f in findings
                ]
            )
        else:
            table = Table(show_header=False, box=None, pad_edge=False)
            for finding in findings:
                mark = (
                    "[green]ok[/]" if finding.ok else ("[bold red]missing[/]" if finding.required else "[yellow]no[/]")
                )
                hint = f"\n[bold]hint:[/] {escape(finding.install_hint)}" if finding.install_hint else ""
                table.add_row(mark, escape(finding.name), escape(finding.detail) + hint)
            out.print(table)
        if any(finding.required and not finding.ok for finding in findings):
            raise typer.Exit(EXIT_UNAVAILABLE)
