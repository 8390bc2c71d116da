"""`symbi tools discover`: tool servers that files name beside the configuration, and whether they may be connected."""

import json
from typing import Annotated, Any

import typer
from rich.markup import escape

from symbi.cli.options import Config, Json
from symbi.cli.output import EXIT_VERIFICATION, errors_to_exit, out, print_json
from symbi.cli.owner import ask_or_own
from symbi.config import Settings, ToolVerification, load_settings
from symbi.config.mcp_files import FoundServer
from symbi.errors import InputError, did_you_mean
from symbi.tools.reviewing import Review, ReviewKind, ReviewState
from symbi.tools.text import cut, printable
from symbi.types import JsonValue
from symbi.wiring import find_servers, known_reviews, start_logging


def discover(
    name: Annotated[str | None, typer.Argument(help="A server; all that are found if none is named.")] = None,
    *,
    accept: Annotated[bool, typer.Option("--accept", help="Let it be connected as it is shown here.")] = False,
    reject: Annotated[bool, typer.Option("--reject", help="Refuse exactly this.")] = False,
    digest: Annotated[
        str | None, typer.Option(help="Beginning of the digest that you were shown; else what is shown now counts.")
    ] = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Show the tool servers that files name, and what of them waits to be accepted; starts none. Exit code 4 while one waits."""
    with errors_to_exit(as_json=as_json):
        settings = load_settings(config)
        found, left_out = find_servers(settings)
        reviews = {one.name: one for one in known_reviews(settings) if one.kind is ReviewKind.SERVER}
        if accept or reject:
            if (accept and reject) or name is None:
                msg = "name one server, and either `--accept` or `--reject`"
                raise InputError(msg)
            one = _named(found, name)
            if digest is not None and (not digest or not one.digest.startswith(digest.lower())):
                msg = f"what is there now is {one.digest[:16]}, not {printable(digest)[:64]}"
                raise InputError(msg, code="tool.review", hint="look at it again")
            if not as_json:
                _show(settings, [_row(settings, one, reviews.get(name))], [])
            _decide(settings, one, accept=accept, as_json=as_json)
            return
        rows = [
            _row(settings, one, reviews.get(one.settings.name)) for one in found if name in {None, one.settings.name}
        ]
        if name is not None and not rows:
            _named(found, name)
        left: list[dict[str, JsonValue]] = [
            {"server": one.name, "file": one.file, "reason": one.reason} for one in left_out if name is None
        ]
        if as_json:
            print_json({"found": rows, "left_out": left})
        else:
            _show(settings, rows, left)
        if any(row["state"] == ReviewState.WAITING.value for row in rows):
            raise typer.Exit(EXIT_VERIFICATION)


def _named(found: tuple[FoundServer, ...], name: str) -> FoundServer:
    one = next((each for each in found if each.settings.name == name), None)
    if one is None:
        hint = (
            did_you_mean(name, [each.settings.name for each in found]) or "`symbi tools discover` shows those there are"
        )
        msg = f"no file names a tool server `{cut(printable(name), 64)}`"
        raise InputError(msg, code="tool.unknown_server", hint=hint)
    return one


def _decide(settings: Settings, one: FoundServer, *, accept: bool, as_json: bool) -> None:
    start_logging(settings)
    said: dict[str, JsonValue] = {"server": one.settings.name, "digest": one.digest, "accept": accept}
    answer = ask_or_own(settings, "tools.server", said)
    if as_json:
        print_json(answer)
    else:
        out.print(f"{'accepted' if accept else 'rejected'} {one.settings.name} as `{escape(one.file)}` names it")


def _row(settings: Settings, one: FoundServer, review: Review | None) -> dict[str, Any]:
    state = ReviewState.WAITING.value
    if (review is not None and review.state is ReviewState.REVOKED) or (
        review is not None and review.digest == one.digest
    ):
        state = review.state.value
    elif review is None and settings.mcp.tool_verification is not ToolVerification.STRICT:
        state = "new"
    return {
        "server": one.settings.name,
        "file": one.file,
        "state": state,
        "digest": one.digest,
        "runs": json.loads(one.definition),
    }


def _show(settings: Settings, rows: list[dict[str, Any]], left: list[dict[str, JsonValue]]) -> None:
    if not settings.mcp.discovery_enabled:
        out.print("discovery is off: `mcp.discovery_enabled` is false")
        return
    for row in rows:
        out.print(f"[bold]{escape(row['server'])}[/] in {escape(printable(row['file']))}: {row['state']}")
        for key, value in row["runs"].items():
            out.print(f"  {key} {escape(printable(json.dumps(value, ensure_ascii=True)))}")
        out.print(f"  [dim]digest {row['digest'][:16]}[/]")
    for one in left:
        named = f"[bold]{escape(str(one['server']))}[/] in " if one["server"] else ""
        out.print(
            f"[yellow]left out[/] {named}{escape(printable(str(one['file'])))}: {escape(printable(str(one['reason'])))}"
        )
    if not rows and not left:
        out.print("no file names a tool server beside the configuration")
