"""`symbi bench`: the figures of this machine."""

from itertools import groupby
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.markup import escape

import symbi
from symbi.cli.options import Json
from symbi.cli.output import err, errors_to_exit, out, print_json
from symbi.clock import SystemClock, rfc3339
from symbi.errors import InputError

PAGE: Final = Path("docs", "performance.md")


def bench(
    *,
    only: Annotated[list[str] | None, typer.Option(help="Only the rows of this requirement, e.g. POL-5.")] = None,
    as_json: Json = False,
    write: Annotated[bool, typer.Option("--write", help="Also write docs/performance.md below this folder.")] = False,
    scale: Annotated[float, typer.Option(help="Less than 1 measures less, for a look.")] = 1.0,
    keep: Annotated[
        Path | None, typer.Option(help="Folder in which the index of KNOW-2 stays, to be measured again.")
    ] = None,
) -> None:
    """Measure this machine and print each figure with its target; a missed target is printed as missed."""
    from symbi.bench import as_page, as_table, how_measured, run_benchmarks, to_json  # noqa: PLC0415 - only here, and slow to load

    with errors_to_exit(as_json=as_json):
        rows = run_benchmarks(
            only or (),
            scale=scale,
            keep=keep,
            progress=lambda one: err.print(f"measuring {one.id}: {one.title}"),
        )
        if as_json:
            print_json(to_json(rows))
        else:
            out.print(as_table(rows))
            for id_, group in groupby(rows, key=lambda row: row.id):
                out.print(f"[bold]{id_}[/] measured: {escape(how_measured(list(group)))}", style="dim")
        if write:
            page = as_page(rows, date=rfc3339(SystemClock().now_ns())[:10], version=symbi.__version__)
            try:
                PAGE.write_text(page, encoding="utf-8")
            except OSError as error:
                msg = f"cannot write `{PAGE}`: {error.strerror or error}"
                raise InputError(msg, code="input.unwritable", hint="run it in the folder of the repository") from error
            err.print(f"wrote {escape(str(PAGE))}")
