"""`symbi mcp clients`: who may come in by HTTP."""

from typing import Annotated

import typer
from rich.markup import escape

from symbi.api.mcp.clients import client_of
from symbi.api.mcp.tokens import ClientBook, new_token
from symbi.cli.options import Config, Json
from symbi.cli.output import err, errors_to_exit, out, print_json
from symbi.cli.owner import ask_or_own
from symbi.config import load_settings

app = typer.Typer(help="Let MCP clients in by HTTP, each by a token of its own, and out again.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Who it is to policies and in the trail.")]


@app.command("add")
def add(name: Name, *, as_json: Json = False, config: Config = None) -> None:
    """Make a token and print it once; only its digest is kept. A gateway that runs lets it in at once, if it knew the client when it was started."""
    with errors_to_exit(as_json=as_json):
        settings = load_settings(config)
        client_of(settings, name)  # which says what is missing
        token, digest = new_token()
        ask_or_own(settings, "clients.add", {"client": name, "digest": digest})
        if as_json:
            print_json({"client": name, "token": token})
            return
        err.print(f"[dim]the token of {escape(name)}, which is not shown again:[/]", highlight=False)
        out.print(token, highlight=False, markup=False, soft_wrap=True)


@app.command("list")
def list_clients(*, as_json: Json = False, config: Config = None) -> None:
    """Show who may come in."""
    with errors_to_exit(as_json=as_json):
        clients = ClientBook(load_settings(config).runtime.data_dir).all()
        if as_json:
            print_json([{"client": client.name, "since": client.created_at} for client in clients])
            return
        for client in clients:
            out.print(f"[bold]{escape(client.name)}[/] since {client.created_at[:19]}Z")
        if not clients:
            out.print("nobody may come in by HTTP; [bold]symbi mcp clients add NAME[/] makes a token")


@app.command("revoke")
def revoke(name: Name, *, as_json: Json = False, config: Config = None) -> None:
    """Let a client in no more; a gateway that runs ends what it has open within a second."""
    with errors_to_exit(as_json=as_json):
        ask_or_own(load_settings(config), "clients.revoke", {"client": name})
        if as_json:
            print_json({"client": name, "revoked": True})
            return
        out.print(f"{escape(name)} comes in no more")
