"""The `symbi` command: every sub-command parses, calls and renders; nothing is decided here."""

import os
import sys
from typing import Annotated

import typer
from rich.markup import escape

import symbi
from symbi.cli import audit, bench, demo, files, machine, policy, run, tools
from symbi.cli.output import EXIT_INTERNAL, EXIT_INTERRUPTED, err

app = typer.Typer(
    name="symbi",
    help="Run agents under policy: every effect decided, bounded, and on a signed trail.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("init")(files.init)
app.command("run")(run.run)
app.command("check")(files.check)
app.command("fmt")(files.fmt)
app.add_typer(policy.app, name="policy")
app.add_typer(audit.app, name="audit")
app.add_typer(tools.app, name="tools")
app.add_typer(machine.config_app, name="config")
app.command("doctor")(machine.doctor)
app.command("bench")(bench.bench)
app.command("demo")(demo.demo)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - the shape of an option's callback
    if wanted:
        sys.stdout.write(f"symbi {symbi.__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Run agents under policy: every effect decided, bounded, and on a signed trail."""


def main() -> None:
    """Entry point of the console script."""
    try:
        app()
    except KeyboardInterrupt:
        err.print("interrupted")
        raise SystemExit(EXIT_INTERRUPTED) from None
    except Exception as error:
        # The outermost place: every command maps its own errors, so what comes through here is a defect of ours.
        if os.environ.get("SYMBI_LOG_LEVEL") == "debug":
            raise
        err.print(f"[bold red]internal error:[/] {escape(f'{type(error).__name__}: {error}')}")
        err.print("  [bold]hint:[/] this is a defect of symbi; SYMBI_LOG_LEVEL=debug shows where")
        raise SystemExit(EXIT_INTERNAL) from error


if __name__ == "__main__":
    main()
