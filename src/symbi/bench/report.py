"""Measurements for people and machines: a table, JSON, a page."""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Final

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
here as missed. Durations are of the wall clock; percentiles are nearest-rank.
"""


def to_json(rows: Sequence[Measurement]) -> list[dict[str, object]]:
    """The rows as plain objects, keys as the attributes."""
    return [asdict(row) for row in rows]


def as_table(rows: Sequence[Measurement]) -> Table:
    """The rows as a table for a terminal."""
    table = Table(title="Measurements", caption=escape(rows[0].machine) if rows else None)
    for name in ("id", "metric"):
        table.add_column(name)
    for name in ("value", "p50", "p95", "p99", "n"):
        table.add_column(name, justify="right")
    for name in ("unit", "target", ""):
        table.add_column(name)
    for row in rows:
        points = (_number(one) for one in (row.p50, row.p95, row.p99))
        verdict = {True: "[green]met[/]", False: "[bold red]MISSED[/]", None: ""}[row.met]
        table.add_row(
            row.id, escape(row.metric), _number(row.value), *points, f"{row.n:,}", row.unit, row.target or "", verdict
        )
    return table


def as_page(rows: Sequence[Measurement], *, date: str, version: str) -> str:
    """The rows as docs/performance.md.

    Args:
        rows: Of one machine.
        date: When they were measured, `YYYY-MM-DD`.
        version: Of Symbi.
    """
    titles = {benchmark.id: benchmark.title for benchmark in BENCHMARKS}
    parts = [_HEAD.format(date=date, version=version, machine=rows[0].machine if rows else "nothing was measured")]
    for id_, group in groupby(rows, key=lambda row: row.id):
        listed = list(group)
        parts.append(f"## {id_}: {titles.get(id_, 'measurements')}\n\n{_markdown(listed)}")
        methods = list(dict.fromkeys(row.method for row in listed))
        parts.append("Method: " + ("; or: ".join(methods) if len(methods) > 1 else methods[0]) + ".\n")
    return "\n".join(parts)


def _markdown(rows: Sequence[Measurement]) -> str:
    lines = ["| metric | value | p50 | p95 | p99 | unit | n | target | |", "| --- |" + " ---: |" * 4 + " --- |" * 4]
    for row in rows:
        points = " | ".join(_number(one) for one in (row.p50, row.p95, row.p99))
        metric = row.metric.replace("|", "\\|")
        lines.append(
            f"| {metric} | {_number(row.value)} | {points} | {row.unit} | {row.n:,} | {row.target or ''} |"
            f" {MEANS[row.met]} |"
        )
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    """Three significant digits, or whole thousands."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"  # noqa: PLR2004 - three digits before the point
