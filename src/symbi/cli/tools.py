"""`symbi tools`: what servers offer, whether it is what was pinned, and the signatures that say so."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, cast

import typer
from rich.markup import escape
from rich.table import Table

from symbi.api.client import ask_owner, connect_owner
from symbi.cli import tools_discover, tools_review, tools_sign, tools_trust
from symbi.cli.options import Config, Json
from symbi.cli.output import EXIT_VERIFICATION, errors_to_exit, exit_code, out, print_json
from symbi.cli.run import run_to_end
from symbi.config import Settings, load_settings
from symbi.errors import InternalError, Overloaded, StoreUnavailable, SymbiError
from symbi.tools.catalog import VerifiedTool
from symbi.tools.reviewing import shown_tools
from symbi.tools.screen import Finding
from symbi.tools.text import printable
from symbi.types import OPERATOR_AGENT, JsonValue
from symbi.wiring import known_pins, known_reviews, open_runtime, start_logging

app = typer.Typer(help="List, verify, pin and sign tools.", no_args_is_help=True)
app.command("key")(tools_trust.show_key)
app.command("keygen")(tools_sign.keygen)
app.command("discover")(tools_discover.discover)
app.command("pin")(tools_review.pin)
app.command("review")(tools_review.review)
app.command("revoke")(tools_review.revoke)
app.command("sign")(tools_sign.sign)
app.command("sign-skill")(tools_sign.sign_skill_folder)
app.command("sign-bundle")(tools_sign.sign_trust_bundle)
app.command("verify-listing")(tools_trust.verify_tool_listing)
app.command("verify-skill")(tools_trust.verify_skill_folder)


@app.command("list")
def list_tools(*, as_json: Json = False, config: Config = None) -> None:
    """List the tools that are pinned or wait for a review, with what the screen found in them; starts nothing."""
    with errors_to_exit(as_json=as_json):
        settings = load_settings(config)
        tools = shown_tools(known_pins(settings), known_reviews(settings))
        if as_json:
            print_json([tools_review.listed(one) for one in tools.values()])
            return
        if not tools:
            out.print("no tool is pinned yet; [bold]symbi tools verify[/] connects the configured servers")
            return
        table = Table(box=None, header_style="bold", pad_edge=False)
        for column in ("tool", "state", "definition", "signed by", "since", "findings"):
            table.add_column(column, no_wrap=True)
        for one in tools.values():
            row = tools_review.listed(one)
            worst, count = str(row["severity"]), row["findings"]
            table.add_row(
                escape(printable(one.name)),
                tools_review.state_of(one),
                str(row["digest"])[:16],
                str(row["key"])[:16] or "nobody",
                str(row["pinned_at"])[:10],
                f"{count} {worst}" if count else "none",
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
    """Connect servers and verify what they offer; what is new is pinned. Exit code 4 if a tool is refused.

    One that cannot be connected stops no other: it is said, and the exit code is that of its failure.
    """
    with errors_to_exit(as_json=as_json):
        settings = load_settings(config)
        start_logging(settings)
        rows, codes = run_to_end(partial(_verify, settings, list(servers or ())), settings)
        if as_json:
            print_json(rows)
        else:
            if not rows:
                out.print("there is no tool to verify: no configured server offers one")
            for row in rows:
                mark = "[green]verified[/]" if row["verified"] else "[bold red]refused[/] "
                out.print(f"{mark} {escape(str(row['tool']))} [dim]{escape(str(row['detail']))}[/]")
                for one in cast("list[dict[str, str]]", row["findings"]):
                    out.print(f"  [yellow]{one['severity']}[/] {escape(one['place'])}: {escape(one['reason'])}")
        if codes:
            raise typer.Exit(EXIT_VERIFICATION if EXIT_VERIFICATION in codes else codes[0])


async def _verify(settings: Settings, servers: list[str]) -> tuple[list[dict[str, JsonValue]], list[int]]:
    """What there is to say of each tool, or of a server that has none; and the exit code of each that is refused."""
    rows: list[dict[str, JsonValue]] = []
    codes: list[int] = []
    async with open_runtime(settings) as runtime:
        catalog, principal = runtime.catalog, settings.principal(OPERATOR_AGENT)
        links = [catalog.link(name) for name in servers or catalog.servers]
        for link in sorted(links, key=lambda link: bool(link.source)):  # what files name beside the configuration, last
            try:
                await runtime.connect([link.name], principal)
            except (StoreUnavailable, Overloaded, InternalError):
                raise
            except SymbiError as error:
                rows.append({"tool": f"{link.name}.*", "verified": False, "detail": str(error), "findings": []})
                codes.append(EXIT_VERIFICATION if link.source else exit_code(error))
        rows += [
            {"tool": tool.ref.name, "verified": True, "detail": _detail(tool), "findings": _told(tool.findings)}
            for tool in catalog.tools
        ]
        rows += [
            {"tool": name, "verified": False, "detail": str(error), "findings": _told(catalog.findings.get(name, ()))}
            for name, error in catalog.quarantined.items()
        ]
        codes += [EXIT_VERIFICATION for _ in catalog.quarantined]
    return rows, codes


def _told(findings: Sequence[Finding]) -> list[JsonValue]:
    return [one.as_json() for one in findings]


def _detail(tool: VerifiedTool) -> str:
    signed = "signed" if tool.ref.verified else "not signed"
    return f"{signed}, {tool.ref.recovery.value}, definition {tool.ref.schema_digest[:16]}"
