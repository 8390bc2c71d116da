"""Measurements for people and machines: a table, JSON, a page."""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from symbi.bench.measure import Measurement
from symbi.bench.registry import BENCHMARKS

MEANS: Final = {True: "met", False: "MISSED", None: ""}
"""What stands beside a target."""

_HEAD: Final = """\
# Performance

Written by `symbi bench --write` on {date}, with version {version}, on:

> {machine}

`symbi bench --only ID` measures one part, and `--json` prints the rows for machines. A target that was missed stands
here as missed. Durations are of the wall clock; percentiles are nearest-rank. With `--keep FOLDER` the million vectors
of KNOW-2 are put in once, also in several goes, and measured again from there.
"""


def to_json(rows: Sequence[Measurement]) -> list[dict[str, object]]:
    """The rows as plain objects, keys as the attributes."""
    return [asdict(row) for row in rows]


def as_table(rows: Sequence[Measurement]) -> Table:
    """The rows as a table that fits a terminal of 80 columns; how often each was measured is in JSON and page."""
    machine = escape(rows[0].machine) if rows else None
    table = Table(title="Measurements", caption=machine, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("metric", min_width=24)
    for name in ("value", "p50", "p95", "p99"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("unit", "target"):
        table.add_column(name)
    for id_, group in groupby(rows, key=lambda row: row.id):
        table.add_row(f"[bold]{id_}[/] {escape(_title(id_))}")
        for row in group:
            points = (_number(one) for one in (row.p50, row.p95, row.p99))
            verdict = {True: " [green]met[/]", False: " [bold red]MISSED[/]", None: ""}[row.met]
            table.add_row(f"  {escape(row.metric)}", _value(row), *points, row.unit, (row.target or "") + verdict)
    return table


def how_measured(rows: Sequence[Measurement]) -> str:
    """The methods of some rows, each once."""
    return "; or: ".join(dict.fromkeys(row.method for row in rows))


def _title(id_: str) -> str:
    return next((benchmark.title for benchmark in BENCHMARKS if benchmark.id == id_), "measurements")


def as_page(rows: Sequence[Measurement], *, date: str, version: str) -> str:
    """The rows as docs/performance.md.

    Args:
        rows: Of one machine.
        date: When they were measured, `YYYY-MM-DD`.
        version: Of Symbi.
    """
    parts = [_HEAD.format(date=date, version=version, machine=rows[0].machine if rows else "nothing was measured")]
    for id_, group in groupby(rows, key=lambda row: row.id):
        listed = list(group)
        parts.append(f"## {id_}: {_title(id_)}\n\n{_markdown(listed)}")
        parts.append(f"Method: {how_measured(listed)}.\n")
    return "\n".join(parts)


def _markdown(rows: Sequence[Measurement]) -> str:
    lines = ["| metric | value | p50 | p95 | p99 | unit | n | target | |", "| --- |" + " ---: |" * 4 + " --- |" * 4]
    for row in rows:
        points = " | ".join(_number(one) for one in (row.p50, row.p95, row.p99))
        metric = row.metric.replace("|", "\\|")
        lines.append(
            f"| {metric} | {_value(row)} | {points} | {row.unit} | {row.n:,} | {row.target or ''} | {MEANS[row.met]} |"
        )
    return "\n".join(lines) + "\n"


def _value(row: Measurement) -> str:
    return "missing" if row.value is None else _number(row.value)


def _number(value: float | None) -> str:
    """Three significant digits, or whole thousands."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"  # noqa: PLR2004 - three digits before the point
