"""`symbi status` and `symbi agents usage`: how a runtime stands, and who has used what."""

from typing import Annotated, Any

import typer
from rich.markup import escape

from symbi.api.client import ask_owner, connect_owner
from symbi.api.status import MAX_LISTED, ORDERS, WHOSE
from symbi.cli.options import Config, Json
from symbi.cli.output import errors_to_exit, out, print_json
from symbi.config import load_settings
from symbi.errors import StoreUnavailable
from symbi.tools.text import printable
from symbi.types import JsonValue


def status(*, as_json: Json = False, config: Config = None) -> None:
    """Show how the runtime stands that is alive: agents, pool, messages, what waits for people, usage, the loop, the trail."""
    with errors_to_exit(as_json=as_json):
        answer: Any = ask_alive(config, "system.status", {})
        if as_json:
            print_json(answer)
        else:
            _print(answer)


def _print(row: Any) -> None:
    waiting = ", ".join(f"{count} {name}" for name, count in row["queued"].items() if count)
    out.print(f"[bold]{row['running']}[/] of {row['max_running']} agents run; {waiting or 'none'} waiting for the pool")
    free, whole = row["free"], row["capacity"]
    out.print(
        f"free: {free['memory_mib']} of {whole['memory_mib']} MiB, {free['cpu_milli']} of {whole['cpu_milli']} milli-cores"
    )
    stay = ", ".join(f"{count} {state}" for state, count in row["agents"].items() if count)
    out.print(f"agents that stay: {stay or 'none'}; {row['living']} in memory")
    out.print(f"runs: {row['at_work']} at work, {row['resting']} resting")
    out.print(
        f"messages: {row['messages']} due, {row['later']} later; in doubt: {row['in_doubt']}; "
        f"dead letters: {row['dead_letters']}; waiting for people: {row['approvals']}"
    )
    used = row["used"]
    out.print(
        f"used: {used['cpu_ms'] / 1000:.3f} s of processor, {used['effects']} effects, {used['calls']} calls, "
        f"{used['bytes_out']} bytes out, {used['bytes_in']} in"
    )
    for name, process in row["processes"].items():
        out.print(
            f"  tool server {escape(printable(name))}: {process['cpu_ms'] / 1000:.3f} s, {process['memory_bytes'] >> 20} MiB"
        )
    for name, state in row["breakers"].items():
        stands = "on trial" if state == "half_open" else "left alone"
        out.print(f"  [yellow]{escape(printable(name))} is {stands}[/]")
    lag = row["loop_lag_ms"]
    out.print(f"loop lag: p50 {lag['p50']} ms, p99 {lag['p99']} ms, p99.9 {lag['p999']} ms in the last minute")
    out.print(f"trail: {row['head']} events; policies {row['policies'][:12]}")
    if row["halted"]:
        out.print(f"[bold yellow]halted by {escape(printable(row['halted']))}[/]: `symbi agents resume --all`")


def usage(
    *,
    by: Annotated[str, typer.Option(help=f"Whose: {', '.join(WHOSE)}.")] = "agent",
    order: Annotated[str, typer.Option(help=f"What counts: {', '.join(ORDERS)}.")] = "cpu_ms",
    limit: Annotated[int, typer.Option(min=1, max=MAX_LISTED, help="How many at most.")] = 20,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """List who has used most since the runtime that is alive was started."""
    with errors_to_exit(as_json=as_json):
        rows: Any = ask_alive(config, "agents.usage", {"by": by, "order": order, "limit": limit})
        if as_json:
            print_json(rows)
            return
        for row in rows:
            out.print(
                f"[bold]{escape(printable(row[by]))}[/] {row['cpu_ms'] / 1000:.3f} s of processor, "
                f"{row['wall_ms'] / 1000:.3f} s at work, {row['effects']} effects, {row['calls']} calls, "
                f"{row['bytes_out']} bytes out, {row['bytes_in']} in"
            )
        if not rows:
            out.print("nobody has worked yet")


def ask_alive(config: Any, operation: str, arguments: dict[str, JsonValue]) -> JsonValue:
    """Ask the owner of the data folder.

    Raises:
        SymbiError: What the owner said.
        StoreUnavailable: Nobody owns the folder.
    """
    settings = load_settings(config)
    connection = connect_owner(settings.runtime.data_dir)
    if connection is None:
        msg = f"no runtime is alive in `{settings.runtime.data_dir}`"
        raise StoreUnavailable(msg, code="unavailable.control", hint="`symbi runs list` shows what was")
    return ask_owner(connection, operation, arguments)
