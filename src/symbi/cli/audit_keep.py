"""`symbi audit witness|anchor|segments`: who else has seen the trail, and where its parts are kept."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table

from symbi.agent.journal import absolute
from symbi.audit.checkpoint import Note, parse_note
from symbi.audit.export import KEYS_NAME, export_start, list_notes, open_events, read_events, verify_folder
from symbi.audit.segments import Segment
from symbi.audit.tree import nodes_of
from symbi.audit.witness import (
    AddCheckpoint,
    WitnessKey,
    check_continues,
    check_name,
    countersign,
    name_head,
    prove_from_leaves,
)
from symbi.cli.audit_verify import trusted_keys
from symbi.cli.options import Config, Json
from symbi.cli.output import err, error_json, errors_to_exit, exit_code, out, print_json
from symbi.cli.owner import ask_or_own
from symbi.clock import SystemClock
from symbi.config import Settings, load_settings
from symbi.crypto.merkle import Frontier, consistency_proof, leaf_hash
from symbi.crypto.signing import VerifyingKey
from symbi.errors import InputError, SymbiError
from symbi.tools.text import printable
from symbi.types import JsonValue, KeyId
from symbi.wiring import open_reader, start_logging, verifying_keys
from symbi.wiring.keeping import own_witness_key, remote_witness, witness_place

DEFAULT_KEY = Path("witness.key")


@dataclass(frozen=True, slots=True)
class Shown:
    """A trail as it is shown to a witness.

    Attributes:
        note: Its head.
        prove: A consistency proof from a size to the head's.
        keys: The keys that may have signed it.
        live: It is the store's own, and not an export.
    """

    note: Note
    prove: Callable[[int], Sequence[bytes]]
    keys: Mapping[KeyId, VerifyingKey]
    live: bool


def witness(  # noqa: PLR0913 - one parameter for each option of the command line
    *,
    to: Annotated[
        Path | None, typer.Option(help="File of the witness, or a folder with one for each trail.", metavar="PATH")
    ] = None,
    git: Annotated[
        Path | None, typer.Option(help="Git repository that keeps it: each head is a commit.", metavar="DIR")
    ] = None,
    push: Annotated[bool, typer.Option("--push", help="Push after the commit.")] = False,
    url: Annotated[str | None, typer.Option(help="Witness on another host that speaks C2SP tlog-witness.")] = None,
    witness_key: Annotated[
        str | None, typer.Option(help="Its key: `name+hash+key`, as it publishes it.", metavar="KEY")
    ] = None,
    key: Annotated[Path, typer.Option(help="Our own key as a witness, made at the first use.")] = DEFAULT_KEY,
    name: Annotated[str | None, typer.Option(help="Our name as a witness; without it one is made of the key.")] = None,
    source: Annotated[
        Path | None, typer.Option("--from", help="Witness the head of this export, not that of the store.")
    ] = None,
    keys: Annotated[Path | None, typer.Option(help="With `--from`: trust the public keys of this file.")] = None,
    new_trail: Annotated[bool, typer.Option("--new-trail", help="Take up a further trail in the folder.")] = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Countersign the head of the trail, if it continues the last one that was seen, and keep it elsewhere."""
    with errors_to_exit(as_json=as_json):
        settings = load_settings(config)
        start_logging(settings)
        shown = _from_export(settings, source, keys) if source is not None else _from_store(settings)
        if [to, git, url].count(None) != 2:  # noqa: PLR2004 - all but one of the three
            msg = "where is the head to be kept? give one of `--to`, `--git`, `--url`"
            raise InputError(msg, code="input.usage")
        if url is not None:
            note, by = _ask_remote(settings, shown, url, witness_key)
        else:
            place = git or to
            assert place is not None, "one of the three was given"
            asked = _Own(place, git=git is not None, push=push, key=key, name=name, new_trail=new_trail)
            note, by = _countersign(settings, shown, asked)
        refused, recorded = None, None
        if shown.live:
            try:
                said: Any = ask_or_own(
                    settings, "audit.witnessed", {"note": note.to_bytes().decode(), "witness": by.name}
                )
                recorded = bool(said["recorded"])
            except SymbiError as error:
                refused = error  # the head is kept elsewhere all the same, which is to be said first
        _show_witnessed(note, by, refused, recorded=recorded, as_json=as_json)
        if refused is not None and as_json:
            raise typer.Exit(exit_code(refused))
        if refused is not None:
            raise refused


@dataclass(frozen=True, slots=True)
class _Own:
    """We are the witness."""

    place: Path
    git: bool
    push: bool
    key: Path
    name: str | None
    new_trail: bool


def _countersign(settings: Settings, shown: Shown, own: _Own) -> tuple[Note, WitnessKey]:
    key = own_witness_key(settings, own.key)
    name = check_name(own.name or f"symbi.witness/{key.key_id}")
    by, origin = WitnessKey(name, key.verifying_key()), shown.note.checkpoint.origin
    file = witness_place(own.place, git=own.git, push=own.push)
    with file.held(origin) as path:
        seen = file.seen(path, origin, new_trail=own.new_trail)
        size = 0 if seen is None else seen.checkpoint.size
        if seen is not None and seen.checkpoint == shown.note.checkpoint:
            file.publish(path, name)  # what an earlier attempt left undone
            return seen, by
        if seen is not None:
            check_continues(seen.checkpoint, shown.note.checkpoint, shown.prove(size))
        asked = AddCheckpoint(size, tuple(shown.prove(size)), shown.note)
        note = countersign(seen, asked, shown.keys, name, key, SystemClock().now_ns() // 1_000_000_000)
        file.keep(path, note)
        file.publish(path, name)
    return note, by


def _ask_remote(settings: Settings, shown: Shown, url: str, key: str | None) -> tuple[Note, WitnessKey]:
    if key is None:
        msg = "`--url` goes with `--witness-key`: nobody could tell its cosignature from another's"
        raise InputError(msg, code="input.usage")
    remote, by = remote_witness(settings, url, key)
    note, _ = remote.submit(shown.note, 0, shown.prove)
    return note, by


def _from_store(settings: Settings) -> Shown:
    with open_reader(settings) as reader:
        head = reader.head_record()
        if head is None:
            msg = "the trail is empty"
            raise InputError(msg, code="input.trail")
        note = parse_note(head)
        size = note.checkpoint.size

    def prove(old: int) -> Sequence[bytes]:
        if not 0 < old <= size:
            return ()  # none is needed from nothing, and there is none from a later head
        with open_reader(settings) as reader:
            return consistency_proof(old, size, nodes_of(size, reader.tile, reader.record))

    return Shown(note, prove, verifying_keys(settings), live=True)


def _from_export(settings: Settings, folder: Path, trusted: Path | None) -> Shown:
    keys = trusted_keys(trusted or folder / KEYS_NAME, settings)
    if trusted is None:
        err.print(
            "[yellow]the keys are those of the export itself[/]: the first head shows whom you trust; give `--keys`"
        )
    size = verify_folder(folder, keys).last
    head = list_notes(folder).read(size)

    def prove(old: int) -> Sequence[bytes]:
        if not 0 < old <= size:
            return ()
        start = export_start(folder)
        if old < start.size:
            msg = f"the export begins after event {start.size}, and the witness has seen a head at event {old}"
            raise InputError(msg, code="witness.export", hint="export from there, or the whole trail")
        with open_events(folder) as lines:
            leaves = map(leaf_hash, read_events(lines, start.size + 1))
            return prove_from_leaves(old, size, Frontier(start.size, start.hashes), leaves)[0]

    return Shown(parse_note(head), prove, keys, live=False)


def _show_witnessed(
    note: Note, by: WitnessKey, refused: SymbiError | None, *, recorded: bool | None, as_json: bool
) -> None:
    checkpoint = note.checkpoint
    if as_json:
        print_json(
            {
                "origin": checkpoint.origin, "size": checkpoint.size, "root": checkpoint.root.hex(),
                "time": checkpoint.timestamp, "witness": by.name, "witness_key": str(by),
                "recorded": recorded, "refused": None if refused is None else error_json(refused),
                "note": note.to_bytes().decode(),
            }
        )  # fmt: skip
        return
    out.print(f"[bold green]witnessed[/]: the head {escape(name_head(checkpoint))}")
    out.print(f"  by {escape(str(by))}")
    if refused is not None:
        err.print("[yellow]kept there, and not recorded in the store[/]:")


def anchor(
    *,
    tsa: Annotated[
        str | None, typer.Option(help="Ask this authority, not that of `audit.tsa_url`.", metavar="URL")
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option(help="With `--tsa`: PEM file of its roots; else that of `audit.tsa_certificate`.")
    ] = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Have a time-stamping authority (RFC 3161) put its time on the head of the trail."""
    with errors_to_exit(as_json=as_json):
        settings = load_settings(config)
        start_logging(settings)
        arguments: dict[str, JsonValue] = {}
        roots = certificate or settings.audit.tsa_certificate
        if tsa is not None and roots is not None and tsa.startswith(("https://", "http://")):
            arguments = {"tsa": tsa, "certificate": absolute(str(roots))}
        elif tsa is not None or certificate is not None:
            msg = "`--tsa` is an `http:` or `https:` address, and goes with `--certificate` or `audit.tsa_certificate`"
            raise InputError(msg, code="input.usage")
        said: Any = ask_or_own(settings, "audit.anchor", arguments)
        if as_json:
            print_json(said)
            return
        out.print(f"[bold green]anchored[/]: the head at event {said['size']} was there by {escape(said['time'])}")
        out.print(f"  says {escape(printable(said['authority']))}, token {escape(said['serial'])}")


def segments(*, as_json: Json = False, config: Config = None) -> None:
    """List the closed segments of the trail: which events, where they are kept, what is still live."""
    with errors_to_exit(as_json=as_json):
        settings = load_settings(config)
        with open_reader(settings) as reader:
            rows, first, last = list(reader.segments()), reader.first_event(), reader.event_count()
        sealed = rows[-1].last if rows else 0
        if as_json:
            listed = [{name: getattr(row, name) for name in Segment.__slots__} for row in rows]
            print_json({"segments": listed, "live": {"first": first, "last": last}, "open_from": sealed + 1})
            return
        if rows:
            table = Table(box=SIMPLE, header_style="bold", pad_edge=False)
            for column in ("events", "until", "in the live store", "in the audit storage"):
                table.add_column(column, no_wrap=True)
            for row in rows:
                live = f"removed {row.removed_at[:10]}" if row.removed_at else "yes"
                if row.keep_until and not row.removed_at:
                    live += f", at least until {row.keep_until[:10]}"
                table.add_row(f"{row.first} to {row.last}", f"{row.last_at[:19]}Z", live, row.folder.rpartition("/")[2])
            out.print(table)
            where = (settings.audit.storage or Path()) / rows[-1].folder
            out.print(f"in the audit storage: {escape(str(where.parent))}")
        out.print(f"live: events {first} to {last}; open: {last - sealed} events that are in no segment yet")
        if settings.audit.storage is None:
            err.print("[yellow]`audit.storage` is not set[/]: segments are kept nowhere else")
