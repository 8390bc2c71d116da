"""The `symbi` command: every sub-command parses, calls and renders; nothing is decided here."""

import errno
import io
import os
import sys
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.markup import escape

import symbi
from symbi.cli import (
    agents,
    approvals,
    audit,
    audit_keep,
    bench,
    budget,
    bus,
    compliance,
    demo,
    dlq,
    effects,
    files,
    keys,
    knowledge,
    machine,
    mcp,
    memory,
    policy,
    privacy,
    run,
    sandbox,
    status,
    tools,
    up,
)
from symbi.cli.output import EXIT_INTERNAL, EXIT_INTERRUPTED, EXIT_UNAVAILABLE, err, exit_code, show_error
from symbi.cli.waiting import WaitingCommand
from symbi.errors import InputError, SymbiError

NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

app = typer.Typer(
    name="symbi",
    help="Run agents under policy: every effect decided, bounded, and on a signed trail.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("init")(files.init)
app.command("run", cls=WaitingCommand)(run.run)
app.command("up")(up.up)
app.command("status")(status.status)
agents.app.command("usage")(status.usage)
app.command("check")(files.check)
app.command("fmt")(files.fmt)
audit.app.command("witness")(audit_keep.witness)
audit.app.command("anchor")(audit_keep.anchor)
audit.app.command("segments")(audit_keep.segments)
app.add_typer(policy.app, name="policy")
app.add_typer(audit.app, name="audit")
app.add_typer(agents.app, name="agents")
app.add_typer(agents.runs_app, name="runs")
app.add_typer(dlq.app, name="dlq")
bus.app.add_typer(dlq.bus_app, name="dlq")
app.add_typer(bus.app, name="bus")
agents.runs_app.command("compact")(effects.compact)
app.add_typer(effects.app, name="effects")
app.add_typer(keys.app, name="keys")
app.add_typer(knowledge.app, name="kb")
app.add_typer(budget.app, name="budget")
app.add_typer(memory.app, name="memory")
app.add_typer(approvals.app, name="approvals")
app.add_typer(privacy.app, name="privacy")
app.add_typer(tools.app, name="tools")
app.add_typer(mcp.app, name="mcp")
app.add_typer(sandbox.app, name="sandbox")
app.add_typer(compliance.app, name="compliance")
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


def refuse_surroundings() -> None:
    """Refuse a command line and a working folder that are not text, which no trail could hold.

    Raises:
        InputError: They are not UTF-8, or there is no folder any more.
    """
    try:
        here = str(Path.cwd())
    except OSError as error:
        msg = f"cannot use the working folder: {error.strerror}"
        raise InputError(msg, code="input.unreadable") from error
    for text in (here, *sys.argv[1:]):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            msg = f"`{text}` is not UTF-8"
            raise InputError(msg, code="input.encoding") from error


def main() -> None:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what a terminal cannot show must not end a command
    try:
        refuse_surroundings()
        app()
    except KeyboardInterrupt:
        err.print("interrupted")
        raise SystemExit(EXIT_INTERRUPTED) from None
    except SymbiError as error:
        show_error(error)
        raise SystemExit(exit_code(error)) from error
    except Exception as error:
        # The outermost place: every command maps its own errors, so what comes through here is a defect of ours.
        if os.environ.get("SYMBI_LOG_LEVEL") == "debug":
            raise
        cause: BaseException = error
        while isinstance(cause, BaseExceptionGroup) and len(cause.exceptions) == 1:
            cause = cause.exceptions[0]
        if isinstance(cause, OSError) and cause.errno in NO_SPACE:
            err.print(f"[bold red]error:[/] cannot write what there is to say: {escape(str(cause.strerror))}")
            raise SystemExit(EXIT_UNAVAILABLE) from error
        err.print(f"[bold red]internal error:[/] {escape(f'{type(cause).__name__}: {cause}')}")
        err.print("  [bold]hint:[/] this is a defect of symbi; SYMBI_LOG_LEVEL=debug shows where")
        raise SystemExit(EXIT_INTERNAL) from error


if __name__ == "__main__":
    main()
