"""`symbi privacy`: export, erase and hold what is kept of a person; through the owner of the data folder, or in its place."""

import json
import os
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.markup import escape

from symbi.api.caller import Caller, operate
from symbi.api.client import ask_owner, connect_owner
from symbi.api.privacy import OPERATIONS, PRIVACY_TIMEOUT_S
from symbi.audit.event import AuditEvent, AuditEventType, parse_event
from symbi.audit.export import read_keys
from symbi.cli.options import Config, Json
from symbi.cli.output import EXIT_VERIFICATION, err, errors_to_exit, out, print_json
from symbi.cli.run import run_to_end
from symbi.compliance.certificate import MAX_CERTIFICATE_BYTES, certificate_digest, verify_certificate
from symbi.config import Settings, load_settings
from symbi.crypto.provider import open_provider
from symbi.errors import InputError, StoreUnavailable
from symbi.tools.text import printable
from symbi.types import JsonValue
from symbi.wiring import (
    folder_owner,
    open_reader,
    open_runtime,
    read_text,
    start_logging,
    verified_trail,
    verifying_keys,
)

app = typer.Typer(help="Export, erase and hold what is kept of a person.", no_args_is_help=True)

Subject = Annotated[str, typer.Argument(help="Whose data, by the name that labels carry.")]
Reason = Annotated[str, typer.Option(help="Why; it stands in the trail, and so must not name the subject.")]
Values = Annotated[
    list[str] | None, typer.Option("--value", help="Also search for this value of the subject; once for each.")
]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Write to this new file, of mode 0600.")]

MAX_FINDS_SHOWN: Final = 20
DIGITS_SHOWN: Final = 12


@app.command("export")
def export(
    subject: Subject, *, reason: Reason = "", to: Out = None, as_json: Json = False, config: Config = None
) -> None:
    """Print, as JSON, everything that can be opened about a person: what, where it stands, from which run, and when."""
    with errors_to_exit(as_json=as_json):
        said = _ask(load_settings(config), "privacy.export", {"subject": subject, "reason": reason})
        hand_out(said, to)
        err.print(f"{len(said['records'])} records about {escape(printable(said['subject']))}")
        others = sum(bool(record["also_about"]) for record in said["records"])
        if others:
            err.print(f"[bold yellow]{others} of them are about others too[/]: look at them before they are handed out")
        if said["unopened"]:
            err.print(f"{said['unopened']} of them cannot be opened; each says why")
        if said["among_many"]:
            err.print(f"{said['among_many']} more are about so many people that nobody is named, and are not in it")


@app.command("erase")
def erase(
    subject: Subject,
    *,
    values: Values = None,
    reason: Reason = "",
    include_open: Annotated[
        bool, typer.Option("--include-open", help="Also what is under way, which then cannot go on.")
    ] = False,
    to: Out = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Destroy the keys of all that is kept of a person, search for what is left, and print the signed certificate."""
    with errors_to_exit(as_json=as_json):
        arguments: dict[str, JsonValue] = {
            "subject": subject, "reason": reason, "values": list(values or ()), "include_open": include_open,
        }  # fmt: skip
        certificate = _ask(load_settings(config), "privacy.erase", arguments)
        hand_out(certificate, to)
        count = sum(sum(store["places"].values()) for store in certificate["stores"].values())
        err.print(
            f"erased [bold]{certificate['pseudonym'][:DIGITS_SHOWN]}…[/]: {len(certificate['keys'])} keys destroyed, "
            f"{count} records lost theirs or were deleted"
        )
        for one in certificate["open"]:
            err.print(f"[bold yellow]was under way:[/] {one['kind']} {one['id']} ({one['state']})")
        if not certificate["search"]["opened_before"]:
            err.print("its values could not be opened any more: the search was for the name and for `--value` alone")
        if certificate["search"]["unopened"]:
            err.print(f"{certificate['search']['unopened']} values could not be opened, and were not searched for")
        for one in certificate["out_of_reach"]:
            err.print(f"[dim]out of reach: {escape(one)}[/]")
        _tell_search(certificate["search"])


@app.command("hold")
def hold(subject: Subject, *, reason: Reason, as_json: Json = False, config: Config = None) -> None:
    """Put a legal hold on a person's data: it cannot be erased until the hold is released."""
    with errors_to_exit(as_json=as_json):
        said = _ask(load_settings(config), "privacy.hold", {"subject": subject, "reason": reason})
        if as_json:
            print_json(said)
        else:
            out.print(f"held since {said['held_at'][:19]}Z, as {said['pseudonym']}")


@app.command("release")
def release(subject: Subject, *, reason: Reason = "", as_json: Json = False, config: Config = None) -> None:
    """End a legal hold."""
    with errors_to_exit(as_json=as_json):
        said = _ask(load_settings(config), "privacy.release", {"subject": subject, "reason": reason})
        if as_json:
            print_json(said)
        else:
            out.print(f"released, as {said['pseudonym']}")


@app.command("list")
def list_subjects(*, as_json: Json = False, config: Config = None) -> None:
    """List the people of whom something is or was kept, by pseudonym, with their names while a key lives."""
    with errors_to_exit(as_json=as_json):
        rows = _ask(load_settings(config), "privacy.list", {})
        if as_json:
            print_json(rows)
            return
        if not rows:
            out.print("nothing is kept about anybody")
        for row in rows:
            out.print(f"[bold]{row['pseudonym']}[/] {escape(printable(_who(row)))}")
            if row["hold"]:
                why = row["hold"].get("reason", "the reason cannot be opened")
                out.print(f"  [yellow]on hold[/] since {row['hold']['since'][:19]}Z: {escape(printable(why))}")
            if row["erasure"]:
                unfinished = "" if row["erasure"]["state"] == "certified" else ", not certified yet: erase it again"
                out.print(f"  erased at {row['erasure']['at'][:19]}Z{unfinished}")


@app.command("scan")
def scan(subject: Subject, *, values: Values = None, as_json: Json = False, config: Config = None) -> None:
    """Search every byte of the data folder and the audit storage for a person in plain text. Exit code 4: found."""
    with errors_to_exit(as_json=as_json):
        said = _ask(load_settings(config), "privacy.scan", {"subject": subject, "values": list(values or ())})
        if as_json:
            print_json(said)
            if not said["clean"]:
                raise typer.Exit(EXIT_VERIFICATION)
            return
        out.print(f"searched {said['places']} files and stored values, {said['bytes']} bytes")
        _tell_search(said)


@app.command("verify-certificate")
def verify(
    file: Annotated[Path, typer.Argument(help="A certificate of erasure.")],
    *,
    keys: Annotated[
        Path | None, typer.Option(help="Trust the public keys of this file, such as the `keys.json` of an export.")
    ] = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Check the signature of a certificate, and, where the trail is at hand, that its digest stands there."""
    with errors_to_exit(as_json=as_json):
        settings = load_settings(config)
        certificate = _read_certificate(file)
        if keys is not None:
            trusted = read_keys(read_text(keys).encode(), open_provider(settings.security.crypto_provider.value))
        else:
            trusted = verifying_keys(settings)
        verify_certificate(certificate, trusted)
        event = None if keys is not None else _on_trail(settings, certificate_digest(certificate))
        clean = bool(certificate["search"]["clean"])
        if as_json:
            print_json({"verified": True, "event": event, "clean": clean, "pseudonym": certificate["pseudonym"]})
            return
        out.print(
            f"[bold green]verified[/]: erased at {certificate['erased_at'][:19]}Z, {len(certificate['keys'])} keys"
        )
        if event is not None:
            out.print(f"  its digest stands in event {event}")
        elif keys is None:
            out.print("  [bold yellow]its digest does not stand in the trail here[/]")
        if not clean:
            out.print(f"  [bold yellow]it says that the search found {certificate['search']['residue']} places[/]")


def _ask(settings: Settings, operation: str, arguments: Mapping[str, JsonValue]) -> Any:
    """Ask the owner of the data folder; without one, become the owner while it takes.

    Raises:
        SymbiError: What the owner said, or what the store has to say.
    """
    start_logging(settings)
    connection = connect_owner(settings.runtime.data_dir)
    if connection is not None:
        return ask_owner(connection, operation, arguments, PRIVACY_TIMEOUT_S)
    return run_to_end(partial(_own, settings, operation, arguments), settings)


async def _own(settings: Settings, operation: str, arguments: Mapping[str, JsonValue]) -> JsonValue:
    async with open_runtime(settings) as runtime:
        caller = Caller(os.geteuid(), folder_owner=os.geteuid() == folder_owner(settings))
        return await operate(runtime, OPERATIONS, caller, operation, arguments)


def hand_out(value: object, to: Path | None) -> None:
    """Print JSON, or write it to a new file of mode 0600.

    Raises:
        InputError: It cannot be written; then it was printed.
    """
    if to is None:
        print_json(value)
        return
    try:
        with os.fdopen(os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
            json.dump(value, file, indent=2, ensure_ascii=False)
            file.write("\n")
    except OSError as error:
        print_json(value)  # what was done is done: it must not be lost
        msg = f"cannot write `{to}`: {error.strerror or error}"
        raise InputError(msg, code="input.unwritable", hint="it was printed instead") from error


def _tell_search(search: Mapping[str, Any]) -> None:
    """Say what the search found.

    Raises:
        Exit: Something is left, or could not be read.
    """
    for find in search["finds"][:MAX_FINDS_SHOWN]:
        place = escape(printable(f"{find['place']} at byte {find['offset']}"))
        err.print(f"[bold red]left:[/] {place} ({find['sought']}, {find['form']})")
    for unread in search["unread"]:
        err.print(f"[bold red]not read:[/] {escape(printable(unread))}")
    if search["ordinary_words"]:
        err.print(f"{search['ordinary_words']} finds are of ordinary words, which tell of nobody by themselves")
    if search["left_out"]:
        err.print(f"[bold yellow]{search['left_out']} values were too many to search for[/]")
    if not search["clean"]:
        err.print(f"[bold red]{search['residue']} places hold something of the subject in plain text[/]")
        raise typer.Exit(EXIT_VERIFICATION)
    err.print(f"nothing of the subject is left in {search['places']} files and stored values, {search['bytes']} bytes")


def _who(row: Mapping[str, Any]) -> str:
    if row["kind"] == "many":
        return "more people than are named"
    if row["kind"] == "agent":
        return f"agent {row['name']}"
    if row["name"] is not None:
        return str(row["name"])
    return "(erased)" if not row["living_keys"] else f"(the name cannot be opened: {row['unopened']})"


def _read_certificate(path: Path) -> dict[str, Any]:
    text = read_text(path)
    try:
        value = json.loads(text) if len(text) <= MAX_CERTIFICATE_BYTES else None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        msg = f"`{path}` holds no certificate of erasure"
        raise InputError(msg, code="privacy.certificate")
    return value


def _on_trail(settings: Settings, digest: str) -> int | None:
    """Which event names a certificate; None where none does, or there is no trail here.

    Raises:
        StoreUnavailable: The trail is there and cannot be read.
        Unavailable: Some of it is in the audit storage, which cannot be read.
        ChainBroken: Some of it is, and the trail does not verify.
    """
    try:
        with open_reader(settings) as reader:
            found = _naming(digest, (parse_event(one.record, sequence=one.sequence) for one in reader.read(1)))
            if found is not None or reader.first_event() <= 1:
                return found
        with verified_trail(settings) as trail:
            return _naming(digest, trail.evidence.events())
    except StoreUnavailable as error:
        if error.code != "unavailable.store_absent":
            raise
        return None


def _naming(digest: str, events: Iterable[AuditEvent]) -> int | None:
    for event in events:
        if event.event_type is AuditEventType.SUBJECT_ERASED and event.details.get("certificate") == digest:
            return event.sequence
    return None
