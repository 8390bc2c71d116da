"""`symbi tools review`, `pin` and `revoke`: what tools have become, and what a person says to it."""

from collections.abc import Mapping
from typing import Annotated, TypeAlias

import typer
from rich.markup import escape

from symbi.cli.options import Config, Json
from symbi.cli.output import EXIT_VERIFICATION, errors_to_exit, out, print_json
from symbi.cli.owner import ask_or_own
from symbi.config import Settings, load_settings
from symbi.errors import InputError, did_you_mean
from symbi.tools.review import differences, parse_covered
from symbi.tools.reviewing import Review, ReviewState, Shown, shown_tools
from symbi.tools.screen import Finding, Severity, screen, worst
from symbi.tools.text import printable
from symbi.types import JsonValue
from symbi.wiring import known_pins, known_reviews, start_logging

Digest: TypeAlias = Annotated[
    str | None, typer.Option(help="Beginning of the digest that you were shown; else what is shown now counts.")
]

_COLOURS = {Severity.NOTICE: "dim", Severity.WARNING: "yellow", Severity.SEVERE: "bold red"}


def review(
    name: Annotated[str | None, typer.Argument(help="`server.tool`; all that wait if none is named.")] = None,
    *,
    accept: Annotated[
        bool, typer.Option("--accept", help="Take it as it is shown here, in place of what was pinned.")
    ] = False,
    reject: Annotated[bool, typer.Option("--reject", help="Refuse exactly this, without being asked again.")] = False,
    digest: Digest = None,
    reason: Annotated[str, typer.Option(help="Why, for the trail.")] = "",
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Show what a tool has become: the difference to what was accepted, and findings. Exit code 4 while something waits."""
    with errors_to_exit(as_json=as_json):
        settings = load_settings(config)
        tools = shown_tools(known_pins(settings), known_reviews(settings))
        waiting = {
            key: one for key, one in tools.items() if one.review is not None and one.review.state is ReviewState.WAITING
        }
        if accept and reject:
            msg = "`--accept` and `--reject` say opposite things"
            raise InputError(msg, hint="give one of them")
        if name is None:
            if accept or reject:
                msg = "name the tool that is meant"
                raise InputError(msg, hint="each is looked at by itself")
            _show_all(list(waiting.values()), as_json=as_json)
            if waiting:
                raise typer.Exit(EXIT_VERIFICATION)
            return
        one = _found(tools, name)
        if not as_json:
            _show(one, whole=True)
        if accept or reject:
            start_logging(settings)
            answer = _decide(settings, one, digest, {} if accept else {"reason": reason}, accept=accept)
            if as_json:
                print_json(answer)
            else:
                out.print(f"{'accepted' if accept else 'rejected'} {escape(printable(name))}")
            return
        if as_json:
            print_json(_row(one))
        if name in waiting:
            raise typer.Exit(EXIT_VERIFICATION)


def pin(
    name: Annotated[str, typer.Argument(help="`server.tool`, once you have read what it is now.")],
    *,
    older: Annotated[
        bool, typer.Option("--older", help="Also if it says that it is an older version than the pinned one.")
    ] = False,
    digest: Digest = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Accept a tool as it is shown, and the key that signs it. In strict mode it must be signed all the same."""
    with errors_to_exit(as_json=as_json):
        settings = load_settings(config)
        one = _found(shown_tools(known_pins(settings), known_reviews(settings)), name)
        if not as_json:
            _show(one, whole=True)
        start_logging(settings)
        answer = _decide(settings, one, digest, {"older": older}, accept=True)
        if as_json:
            print_json(answer)
        else:
            out.print(f"pinned {escape(printable(name))}")


def revoke(
    name: Annotated[str | None, typer.Argument(help="`server.tool`.")] = None,
    *,
    key: Annotated[str | None, typer.Option(help="Fingerprint of a key: refuse all that it has signed.")] = None,
    reason: Annotated[str, typer.Option(help="Why, for the trail.")] = "",
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Refuse a tool, or all that a key has signed, from now on: also in a runtime that is alive, until it is accepted anew."""
    with errors_to_exit(as_json=as_json):
        if (name is None) == (key is None):
            msg = "name a tool, or a key with `--key`"
            raise InputError(msg, hint="`symbi tools list` shows both")
        settings = load_settings(config)
        start_logging(settings)
        said: dict[str, JsonValue] = {"reason": reason, "tool": name} if key is None else {"reason": reason, "key": key}
        answer = ask_or_own(settings, "tools.revoke", said)
        if as_json:
            print_json(answer)
        else:
            out.print(f"revoked {escape(printable(name or f'key {key}'))}")


def _found(tools: Mapping[str, Shown], name: str) -> Shown:
    if name not in tools:
        msg = f"nothing is known of a tool `{printable(name)[:128]}`"
        hint = did_you_mean(name, tools) or "`symbi tools verify` connects the servers and looks at what they offer"
        raise InputError(msg, code="tool.unknown", hint=hint)
    return tools[name]


def _decide(
    settings: Settings, one: Shown, digest: str | None, said: Mapping[str, JsonValue], *, accept: bool
) -> JsonValue:
    """Bound to the digest of what was shown, or to the one that the person names."""
    shown = one.review.digest if one.review is not None else one.pin.digest if one.pin is not None else ""
    if digest is not None and (not digest or not shown.startswith(digest.lower())):
        msg = f"what is there now is {shown[:16]}, not {printable(digest)[:64]}"
        raise InputError(msg, code="tool.review", hint="look at it again")
    arguments: dict[str, JsonValue] = {"tool": one.name, "digest": shown, **said}
    return ask_or_own(settings, "tools.accept" if accept else "tools.reject", arguments)


# --- what is shown ----------------------------------------------------------------------------------------------------


def _offered(one: Shown) -> str:
    """The definition that is there now, as text."""
    if one.review is not None and one.review.definition:
        return one.review.definition
    return one.pin.definition if one.pin is not None else ""


def findings_of(one: Shown) -> tuple[Finding, ...]:
    """What the screen finds in the definition that is there now."""
    text = _offered(one)
    return screen(parse_covered(one.name.partition(".")[0], text)) if text else ()


def listed(one: Shown) -> dict[str, JsonValue]:
    """A tool as it is listed."""
    pin, findings = one.pin, findings_of(one)
    return {
        "tool": one.name,
        "state": pin.state if pin is not None else "",
        "review": one.review.state.value if one.review is not None else None,
        "digest": pin.digest if pin is not None else one.review.digest if one.review is not None else "",
        "key": pin.key_fingerprint if pin is not None else "",
        "pinned_at": pin.pinned_at if pin is not None else "",
        "findings": len(findings),
        "severity": worst(findings),
    }


def state_of(one: Shown) -> str:
    """How a tool stands, in one word."""
    if one.review is not None:
        return {ReviewState.WAITING: "waiting for review"}.get(one.review.state, one.review.state.value)
    return "accepted"


def _row(one: Shown) -> dict[str, JsonValue]:
    found: Review | None = one.review
    before = one.pin.definition if one.pin is not None else ""
    return {
        "tool": one.name,
        "state": state_of(one),
        "digest": found.digest if found is not None else one.pin.digest if one.pin is not None else "",
        "accepted": one.pin.digest if one.pin is not None else None,
        "since": found.since if found is not None else one.pin.pinned_at if one.pin is not None else "",
        "reason": found.reason if found is not None else "",
        "changes": [
            {"place": change.place, "before": change.before, "after": change.after}
            for change in differences(before, _offered(one), whole=True)
        ],
        "findings": [finding.as_json() for finding in findings_of(one)],
    }


def _show_all(waiting: list[Shown], *, as_json: bool) -> None:
    if as_json:
        print_json([_row(one) for one in waiting])
        return
    for one in waiting:
        _show(one, whole=False)
        out.print("")
    if waiting:
        out.print("[dim]symbi tools review TOOL shows all of it; --accept or --reject decides[/]")
    else:
        out.print("no tool waits for a review")


def _show(one: Shown, *, whole: bool) -> None:
    row = _row(one)
    out.print(f"[bold]{escape(one.name)}[/] {state_of(one)}, since {str(row['since'])[:19]}")
    if row["reason"]:
        out.print(f"  {escape(printable(str(row['reason'])))}")
    before = one.pin.definition if one.pin is not None else ""
    changes = differences(before, _offered(one), whole=whole)
    if changes and not before:
        out.print("  nothing of it was accepted so far; it offers:")
    for change in changes:
        out.print(f"  [bold]{escape(change.place)}[/]")
        if before:
            out.print(f"    [red]-[/] {escape(change.before)}")
        out.print(f"    [green]+[/] {escape(change.after)}")
    for finding in findings_of(one):
        colour = _COLOURS[finding.severity]
        out.print(f"  [{colour}]{finding.severity.value}[/] {escape(finding.place)}: {escape(finding.reason)}")
    out.print(f"  [dim]digest {str(row['digest'])[:16]}[/]")
