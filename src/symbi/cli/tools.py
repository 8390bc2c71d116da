"""`symbi tools`: what servers offer, whether it is what was pinned, and the signatures that say so."""

import json
import os
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from symbi.api.client import ask_owner, connect_owner
from symbi.cli.options import Config, Json
from symbi.cli.output import EXIT_VERIFICATION, errors_to_exit, out, print_json
from symbi.cli.run import announce, run_to_end
from symbi.config import Settings, load_settings
from symbi.errors import InputError, StoreUnavailable
from symbi.tools.catalog import VerifiedTool
from symbi.tools.schemapin import make_key_pair, sign_definitions
from symbi.tools.text import printable
from symbi.types import OPERATOR_AGENT, JsonValue
from symbi.wiring import known_pins, open_runtime, read_text, start_logging

app = typer.Typer(help="List, verify, pin and sign tools.", no_args_is_help=True)


@app.command("list")
def list_tools(*, as_json: Json = False, config: Config = None) -> None:
    """List the tools that are pinned; starts nothing."""
    with errors_to_exit(as_json=as_json):
        pins = known_pins(load_settings(config))
        if as_json:
            print_json(
                [
                    {
                        "tool": p.tool,
                        "state": p.state,
                        "digest": p.digest,
                        "key": p.key_fingerprint,
                        "pinned_at": p.pinned_at,
                    }
                    for p in pins
                ]
            )
            return
        if not pins:
            out.print("no tool is pinned yet; [bold]symbi tools verify[/] connects the configured servers")
            return
        table = Table(box=None, header_style="bold", pad_edge=False)
        for column in ("tool", "state", "definition", "signed by", "since"):
            table.add_column(column, no_wrap=True)
        for pin in pins:
            table.add_row(
                escape(pin.tool), pin.state, pin.digest[:16], pin.key_fingerprint[:16] or "nobody", pin.pinned_at[:10]
            )
        out.print(table)


@app.command("servers")
def list_servers(*, as_json: Json = False, config: Config = None) -> None:
    """Show how the tool servers of a runtime that is alive stand: connected, left alone after failures, and how busy."""
    with errors_to_exit(as_json=as_json):
        settings = load_settings(config)
        connection = connect_owner(settings.runtime.data_dir)
        if connection is None:
            msg = f"no runtime is alive in `{settings.runtime.data_dir}`, so no tool server is connected"
            hint = "`symbi tools verify` connects the configured ones"
            raise StoreUnavailable(msg, code="unavailable.control", hint=hint)
        rows: Any = ask_owner(connection, "tools.servers", {})
        if as_json:
            print_json(rows)
            return
        for row in rows:
            up = "connected" if row["connected"] else "not connected"
            breaker = {"closed": "", "half_open": ", on trial", "open": ", [bold yellow]left alone[/]"}[row["breaker"]]
            again = f" for {row['retry_after_s']:.3g} s" if row["breaker"] == "open" and row["retry_after_s"] else ""
            out.print(
                f"[bold]{escape(printable(row['server']))}[/] is {up}{breaker}{again}; {row['calls']} calls at work, "
                f"{row['waiting']} waiting"
            )
            if row["down"]:
                out.print(f"  {escape(printable(row['down']))}")
        if not rows:
            out.print("no tool server is configured")


@app.command("verify")
def verify(
    servers: Annotated[list[str] | None, typer.Argument(help="Servers; all configured ones if none is named.")] = None,
    *,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Connect servers and verify what they offer; what is new is pinned. Exit code 4 if a tool is refused."""
    with errors_to_exit(as_json=as_json):
        settings = load_settings(config)
        start_logging(settings)
        rows = run_to_end(partial(_verify, settings, list(servers or ())), settings)
        if as_json:
            print_json(rows)
        else:
            for row in rows:
                mark = "[green]verified[/]" if row["verified"] else "[bold red]refused[/] "
                out.print(f"{mark} {escape(str(row['tool']))} [dim]{escape(str(row['detail']))}[/]")
        if not all(row["verified"] for row in rows):
            raise typer.Exit(EXIT_VERIFICATION)


async def _verify(settings: Settings, servers: list[str]) -> list[dict[str, JsonValue]]:
    rows: list[dict[str, JsonValue]] = []
    async with open_runtime(settings) as runtime:
        await runtime.connect(servers or runtime.catalog.servers, settings.principal(OPERATOR_AGENT))
        rows += [{"tool": tool.ref.name, "verified": True, "detail": _detail(tool)} for tool in runtime.catalog.tools]
        rows += [
            {"tool": name, "verified": False, "detail": str(error)}
            for name, error in runtime.catalog.quarantined.items()
        ]
    return rows


def _detail(tool: VerifiedTool) -> str:
    signed = "signed" if tool.ref.verified else "not signed"
    return f"{signed}, {tool.ref.recovery.value}, definition {tool.ref.schema_digest[:16]}"


@app.command("pin")
def pin(
    name: Annotated[str, typer.Argument(help="`server.tool`, once you have read what it is now.")],
    *,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Accept a tool as it is now, in place of what was pinned. In strict mode it must be signed all the same."""
    with errors_to_exit(as_json=as_json):
        settings = load_settings(config)
        start_logging(settings)
        tool = run_to_end(partial(_pin, settings, name), settings)
        if as_json:
            print_json({"tool": tool.ref.name, "digest": tool.ref.schema_digest, "definition": _shown(tool)})
        else:
            out.print(f"pinned {escape(tool.ref.name)}: {_detail(tool)}")


def _shown(tool: VerifiedTool) -> dict[str, JsonValue]:
    definition = tool.definition
    return {
        "name": definition.name,
        "description": definition.description,
        "inputSchema": definition.input_schema,
        "outputSchema": definition.output_schema,
    }


async def _pin(settings: Settings, name: str) -> VerifiedTool:
    async with open_runtime(settings) as runtime:
        announce(runtime)
        await runtime.connect([name.partition(".")[0]], settings.principal(OPERATOR_AGENT))
        return await runtime.catalog.pin(name)


@app.command("sign")
def sign(
    server: Annotated[str, typer.Argument(help="A configured server.")],
    *,
    key: Annotated[Path, typer.Option(help="Private key, PEM, P-256.")],
    new_key: Annotated[
        bool, typer.Option("--new-key", help="Make the key first; its public half gets the ending .pub.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File for the signatures; else they are printed.")
    ] = None,
    config: Config = None,
) -> None:
    """Sign what a server offers (SchemaPin, ECDSA P-256): signature by tool, for the server to send along."""
    with errors_to_exit():
        settings = load_settings(config)
        start_logging(settings)
        if new_key:
            _make_key(key)
        signatures = run_to_end(partial(_sign, settings, server, read_text(key)), settings)
        text = json.dumps(signatures, indent=2, sort_keys=True) + "\n"
        if output is None:
            out.print(escape(text), end="")
            return
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as error:
            msg = f"cannot write `{output}`: {error.strerror or error}"
            raise InputError(msg, code="input.unwritable") from error
        out.print(f"signed {len(signatures)} tools of {escape(server)} in {escape(str(output))}")


def _make_key(path: Path) -> None:
    private, public = make_key_pair()
    public_path = path.with_name(path.name + ".pub")
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(private)
        public_path.write_bytes(public)
    except OSError as error:
        msg = f"cannot make the key `{path}`: {error.strerror or error}"
        raise InputError(msg, code="input.unwritable") from error
    out.print(f"made {escape(str(path))} and {escape(str(public_path))}")


async def _sign(settings: Settings, server: str, private_key: str) -> dict[str, str]:
    async with open_runtime(settings) as runtime:
        await runtime.connect([server], settings.principal(OPERATOR_AGENT))
        return dict(sign_definitions(runtime.catalog.offered(server), private_key))
