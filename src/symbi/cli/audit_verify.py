"""`symbi audit verify`, `export` and `prove`: what an auditor asks of the trail. All of it only reads."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, TypeVar

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from symbi.audit.checkpoint import Note, parse_note
from symbi.audit.event import parse_event
from symbi.audit.export import (
    EVENTS_NAME,
    KEYS_NAME,
    MAX_KEYS_BYTES,
    MAX_WITNESS_BYTES,
    ExportWriter,
    export_start,
    list_notes,
    read_bounded,
    read_keys,
    read_witness,
    verify_folder,
)
from symbi.audit.proof import (
    MAX_PROOF_BYTES,
    Inclusion,
    Proof,
    prove_consistency,
    prove_inclusion,
    read_proof,
)
from symbi.audit.tree import nodes_of
from symbi.audit.verify import Run, Start, TrailReport, claims_of, verify_trail
from symbi.cli.audit_archive import archive_events, archive_keys, segment_folders, verify_archive
from symbi.cli.options import Config, Json
from symbi.cli.output import err, errors_to_exit, out, print_json
from symbi.config import Settings, load_settings
from symbi.crypto.merkle import Nodes, consistency_proof, frontier_of
from symbi.crypto.provider import open_provider
from symbi.crypto.signing import VerifyingKey
from symbi.errors import ChainBroken, InputError
from symbi.types import KeyId
from symbi.wiring import TrailReader, on_all_cores, open_reader, verifying_keys
from symbi.wiring.keeping import check_removed, live_start

T = TypeVar("T")

SHOWN_EVERY: Final = 256  # events between two movements of the bar
PROGRESS_FROM_EVENTS = 20_000  # shorter trails verify before a bar could be read

LEAST_RECORD_BYTES: Final = 300  # what a record has at least, roughly

_SPAN: Final = re.compile(r"([1-9][0-9]{0,15})?(\.\.)?([1-9][0-9]{0,15})?")
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,15}")

Keys = Annotated[
    Path | None, typer.Option(help="Trust the public keys of this file, not those that the export brings along.")
]


@dataclass(frozen=True, slots=True)
class Span:
    """Which events.

    Attributes:
        first: The first.
        last: The last; None for the end of the trail.
    """

    first: int = 1
    last: int | None = None


def read_span(text: str | None) -> Span:
    """`FROM..TO`, `FROM..`, `..TO`, or one number.

    Raises:
        InputError: It is none of them.
    """
    found = _SPAN.fullmatch(text) if text is not None else None
    if text is not None and (found is None or not (found[1] or found[3])):
        msg = f"`{text}` is no range of events"
        raise InputError(msg, code="input.range", hint="such as `10..20`, `10..`, `..20` or `17`")
    if found is None:
        return Span()
    first = int(found[1] or 1)
    last = int(found[3]) if found[3] else None if found[2] else first
    if last is not None and last < first:
        msg = f"`{text}` ends before it begins"
        raise InputError(msg, code="input.range")
    return Span(first, last)


def verify(  # noqa: PLR0913 - the options of the command
    span: Annotated[
        str | None, typer.Argument(metavar="FROM..TO", help="Only these events: `10..20`, `10..`, `..20` or `17`.")
    ] = None,
    *,
    export: Annotated[Path | None, typer.Option(help="Verify this exported folder instead of the store.")] = None,
    archive: Annotated[
        Path | None, typer.Option(help="Verify all sealed segments in this folder of the audit storage, in a row.")
    ] = None,
    proof: Annotated[
        Path | None, typer.Option(help="Verify this proof, as `prove` wrote it, and nothing else.")
    ] = None,
    keys: Keys = None,
    witness: Annotated[
        Path | None, typer.Option(help="Also hold the trail against what a witness has seen, in this file.")
    ] = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Check every event, its signature, the chain, the tree, and all checkpoints. Exit code 4 names the first bad event."""
    with errors_to_exit(as_json=as_json):
        settings = load_settings(config)
        wanted = read_span(span)
        _refuse_usage(span, export or archive, proof, keys, witness)
        if export is not None and archive is not None:
            msg = "`--export` or `--archive`, not both"
            raise InputError(msg, code="input.usage")
        try:
            if proof is not None:
                _show_proof(proof, trusted_keys(keys, settings), as_json=as_json)
                return
            seen = () if witness is None else read_witness(_read(witness, MAX_WITNESS_BYTES, "witness file"))
            if export is not None:
                report = _verify_export(export, keys, settings, seen, quiet=as_json)
            elif archive is not None:
                report = _verify_archive(archive, keys, settings, seen, quiet=as_json)
            else:
                report = verify_store(settings, wanted, seen, quiet=as_json)
        except ChainBroken as broken:
            broken.hint = broken.hint or f"the first bad event is {broken.fields['sequence']}"
            raise
        show_report(report, as_json=as_json)
        if witness is not None and not report.witnessed and not as_json:
            err.print("[yellow]nothing was held against the witness[/]: it has seen no head at one of these events")
        if (export or archive) is not None and keys is None and not as_json:
            err.print(
                "[yellow]the keys are those of the export itself[/]: compare their ids with those you know, or give `--keys`"
            )


def _refuse_usage(
    span: str | None, export: Path | None, proof: Path | None, keys: Path | None, witness: Path | None
) -> None:
    if keys is not None and export is None and proof is None:
        msg = "`--keys` goes with `--export`, `--archive` or `--proof`"
        raise InputError(msg, code="input.usage", hint="the store is verified with the keys of its own runtime")
    if proof is not None and (export is not None or witness is not None or span is not None):
        msg = "`--proof` stands for itself: no range, export or witness goes with it"
        raise InputError(msg, code="input.usage")
    if export is not None and span is not None:
        msg = "an export is verified as a whole: a range goes with the store"
        raise InputError(msg, code="input.usage")


def trusted_keys(file: Path | None, settings: Settings) -> Mapping[KeyId, VerifyingKey]:
    """The keys of a file, or of this runtime."""
    if file is None:
        return verifying_keys(settings)
    provider = open_provider(settings.security.crypto_provider.value)
    return read_keys(_read(file, MAX_KEYS_BYTES, "file of keys"), provider)


def _read(path: Path, limit: int, what: str) -> bytes:
    try:
        data = read_bounded(path, limit)
    except OSError as error:
        msg = f"cannot read the {what} `{path}`: {error.strerror or error}"
        raise InputError(msg, code="input.unreadable") from error
    if len(data) > limit:
        msg = f"the {what} `{path}` is larger than {limit} bytes"
        raise InputError(msg, code="input.too_large")
    return data


def verify_store(
    settings: Settings, span: Span = Span(), witness: Sequence[Note] = (), *, quiet: bool = True
) -> TrailReport:  # fmt: skip
    """Verify the live store, or some of its events.

    Raises:
        ChainBroken: It does not verify.
        InputError: There are no such events.
    """
    keys = verifying_keys(settings)
    with open_reader(settings) as reader:
        count = reader.event_count()
    with on_all_cores(min(count, span.last or count) - span.first + 1) as run, open_reader(settings) as reader:
        head, count = reader.head_record(), reader.event_count()
        last = _last_of(span, count)
        live = live_start(reader)
        if span == Span():
            span = Span(live.size + 1)
        elif span.first <= live.size:
            msg = f"events 1 to {live.size} have left the live store"
            raise InputError(msg, code="input.range", hint="`symbi audit segments` says where they are")
        start, beyond = live, None
        if head is not None and (span.first > live.size + 1 or last < count):
            start, beyond = _stretch(reader, head, span.first, last, live)
        total = last - span.first + 1
        with _bar(total, quiet=quiet) as track:
            report = verify_trail(
                track(reader.read(span.first, last if span.last else None)),
                head,
                keys,
                start=start,
                claims=claims_of(reader.checkpoints(span.first, None if beyond is None else last), witness),
                run=run,
                beyond=beyond,
            )
        if start.size == live.size:
            check_removed(reader, live)
        return report


def _last_of(span: Span, count: int) -> int:
    last = count if span.last is None else span.last
    if (span.first > 1 or span.last is not None) and (last > count or span.first > count):
        msg = f"the trail ends with event {count}"
        raise InputError(msg, code="input.range", hint=f"events are numbered from 1 to {count}" if count else None)
    return last


def _stretch(reader: TrailReader, head: bytes, first: int, last: int, live: Start) -> tuple[Start, list[bytes] | None]:
    """What stands before the first event, and how the head goes on from the last; both hold only if the roots come out."""
    size = parse_note(head).checkpoint.size
    if size < last:
        msg = f"the head says that the trail ends with event {size}, and event {size + 1} follows"
        raise ChainBroken(msg, sequence=size + 1, reason="head")
    node = nodes_of(size, reader.tile, reader.record)
    start = live
    if first > live.size + 1:
        before = next(iter(reader.read(first - 1, first - 1)), None)
        if before is None:
            msg = f"event {first - 1} is missing"
            raise ChainBroken(msg, sequence=first - 1, reason="sequence")
        start = Start(first - 1, _guarded(lambda: frontier_of(first - 1, node).hashes, first), before.chain_hash)
    return start, _guarded(lambda: consistency_proof(last, size, node), last) if last < size else None


def _guarded(compute: Callable[[], T], place: int) -> T:
    """What is computed from the nodes of a tree that may have been tampered with."""
    try:
        return compute()
    except ValueError as error:
        msg = f"the tree beside event {place} is not whole: {error}"
        raise ChainBroken(msg, sequence=place, reason="head") from error


def _verify_export(
    folder: Path, keys: Path | None, settings: Settings, witness: Sequence[Note], *, quiet: bool
) -> TrailReport:
    if not folder.is_dir():
        msg = f"cannot read the export `{folder}`: it is no folder"
        raise InputError(msg, code="input.export")
    trusted = trusted_keys(keys or folder / KEYS_NAME, settings)
    sizes, first = list_notes(folder).sizes, export_start(folder).size
    try:
        events = folder / EVENTS_NAME
        size = events.stat().st_size if events.exists() else 0
    except OSError as error:
        msg = f"cannot read the export `{folder}`: {error.strerror or error}"
        raise InputError(msg, code="input.export") from error
    total = min(sizes[-1] - first, size // LEAST_RECORD_BYTES) if sizes else 0
    with on_all_cores(total) as run, _bar(total, quiet=quiet) as track:
        return verify_folder(folder, trusted, witness=witness, run=run, track=track)


def _verify_archive(
    archive: Path, keys: Path | None, settings: Settings, witness: Sequence[Note], *, quiet: bool
) -> TrailReport:
    folders = segment_folders(archive)
    trusted, total = trusted_keys(keys or archive_keys(folders), settings), archive_events(folders)
    with on_all_cores(total) as run, _bar(total, quiet=quiet) as track:
        return verify_archive(folders, trusted, witness=witness, run=run, track=track)


@contextmanager
def _bar(total: int, *, quiet: bool) -> Iterator[Callable[[Iterable[T]], Iterable[T]]]:
    """A bar on standard error that moves with what passes through it; none where it could not be read."""
    with Progress(
        TextColumn("verifying"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=err, transient=True,
        disable=quiet or total < PROGRESS_FROM_EVENTS,
    ) as bar:  # fmt: skip
        task = bar.add_task("verifying", total=total)

        def pass_on(events: Iterable[T]) -> Iterator[T]:
            for number, event in enumerate(events, 1):
                yield event
                if not number % SHOWN_EVERY:
                    bar.advance(task, SHOWN_EVERY)

        yield lambda events: events if bar.disable else pass_on(events)


def show_report(report: TrailReport, *, as_json: bool) -> None:
    """The verdict on a trail that verifies."""
    if as_json:
        names = [name for name in TrailReport.__dataclass_fields__ if name != "end"]
        print_json({"verified": True} | {name: getattr(report, name) for name in names})
        return
    which = "" if report.first == 1 else f" ({report.first} to {report.last})"
    out.print(
        f"[bold green]verified[/]: {report.events} events{which}, "
        f"{report.first_timestamp[:19]}Z to {report.last_timestamp[:19]}Z"
    )
    out.print(f"  chain hash {report.chain_hash}, signed by {', '.join(report.key_ids)}")
    beside = f", {report.checkpoints} checkpoints fit" if report.checkpoints else ""
    out.print(f"  root {report.root}{beside}")
    if report.witnessed:
        out.print(f"  a witness has seen the same up to event {report.witnessed}")


def export(
    folder: Annotated[Path, typer.Argument(help="Folder to make; it must not exist yet.")],
    *,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Write the trail, its checkpoints and the public keys to a folder for an auditor; verifies it as it goes."""
    with errors_to_exit(as_json=as_json):
        settings = load_settings(config)
        keys = verifying_keys(settings)
        with open_reader(settings) as reader:
            count = reader.event_count()
        if not count:
            msg = "the trail is empty"
            raise InputError(msg, code="input.export")
        with on_all_cores(count) as run, open_reader(settings) as reader, ExportWriter(folder) as writer:
            report = _export(reader, writer, keys, run, quiet=as_json)
        if as_json:
            print_json({"folder": str(folder), "events": report.events, "chain_hash": report.chain_hash})
        else:
            out.print(
                f"wrote {report.events} events to {escape(str(folder))}; check it with [bold]symbi audit verify --export[/]"
            )


def _export(
    reader: TrailReader, writer: ExportWriter, keys: Mapping[KeyId, VerifyingKey], run: Run, *, quiet: bool
) -> TrailReport:
    head, start = reader.head_record(), live_start(reader)
    first = start.size + 1
    with _bar(reader.event_count() - start.size, quiet=quiet) as track:
        claims = claims_of(reader.checkpoints(first))
        report = verify_trail(writer.copy(track(reader.read(first))), head, keys, start=start, claims=claims, run=run)
    check_removed(reader, start)
    assert head is not None
    notes = ((size, note) for size, note in reader.checkpoints(first) if size != report.last)
    anchors = ((anchor.size, anchor.token) for anchor in reader.anchors(first))
    writer.finish((*notes, (report.last, head)), keys, start, anchors)
    return report


def prove(
    event: Annotated[
        str | None, typer.Argument(metavar="EVENT", help="Sequence number or id of the event to prove.")
    ] = None,
    *,
    consistency: Annotated[
        str | None,
        typer.Option(
            metavar="OLD",
            help="Prove that the head continues this earlier one: the size of a kept checkpoint, a note, or a witness file.",
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option("--out", "-o", help="Write to this new file.")] = None,
    config: Config = None,
) -> None:
    """Write a proof that an event is in the trail, or that the head continues an earlier one: a small JSON document."""
    with errors_to_exit():
        if (event is None) is (consistency is None):
            msg = "name an event, or an earlier head by `--consistency`"
            raise InputError(msg, code="input.usage")
        settings = load_settings(config)
        keys = verifying_keys(settings)
        with open_reader(settings) as reader:
            proof = _prove(reader, event, consistency)
        proof.verify(keys)
        document = json.dumps(proof.to_json(), indent=2, ensure_ascii=False) + "\n"
        if output is None:
            typer.echo(document, nl=False)
            return
        try:
            with output.open("x", encoding="utf-8") as file:
                file.write(document)
        except OSError as error:
            msg = f"cannot write `{output}`: {error.strerror or error}"
            raise InputError(msg, code="input.unwritable") from error
        out.print(f"wrote {escape(str(output))}; check it with [bold]symbi audit verify --proof[/]")


def _prove(reader: TrailReader, event: str | None, consistency: str | None) -> Proof:
    head = reader.head_record()
    if head is None:
        msg = "the trail is empty"
        raise InputError(msg, code="input.event")
    note = parse_note(head)
    size = note.checkpoint.size
    node: Nodes = nodes_of(size, reader.tile, reader.record)
    if event is None:
        old = _earlier(reader, str(consistency))
        return _guarded(lambda: prove_consistency(old, note, node), size)
    place = int(event) if _NUMBER.fullmatch(event) else _place_of(reader, event)
    if place > size:
        msg = f"there is no event {place}"
        raise InputError(msg, code="input.event", hint=f"events are numbered from 1 to {size}")
    if place < reader.first_event():
        msg = f"event {place} has left the live store"
        raise InputError(msg, code="input.event", hint="`symbi audit segments` says where it is")
    record = reader.record(place)
    return _guarded(lambda: prove_inclusion(record, place - 1, note, node), place)


def _place_of(reader: TrailReader, event_id: str) -> int:
    """Where the event with an id stands."""
    wanted = json.dumps(event_id, ensure_ascii=False).encode()
    for stored in reader.read(1):
        if wanted in stored.record and parse_event(stored.record, sequence=stored.sequence).event_id == event_id:
            return stored.sequence
    msg = f"no event has the id `{event_id}`"
    raise InputError(msg, code="input.event", hint="`symbi audit show --json` prints ids")


def _earlier(reader: TrailReader, named: str) -> Note:
    """An earlier head, by the size of a kept one, or from a file."""
    if _NUMBER.fullmatch(named):
        found = next(iter(reader.checkpoints(int(named), int(named))), None)
        if found is None:
            msg = f"no checkpoint is kept at event {named}"
            raise InputError(msg, code="input.checkpoint", hint="name a file that holds the note")
        return parse_note(found[1])
    return max(
        read_witness(_read(Path(named), MAX_WITNESS_BYTES, "file of heads")), key=lambda note: note.checkpoint.size
    )


def _show_proof(file: Path, keys: Mapping[KeyId, VerifyingKey], *, as_json: bool) -> None:
    proof = read_proof(_read(file, MAX_PROOF_BYTES, "proof"))
    told: dict[str, object] = {"verified": True, "size": proof.note.checkpoint.size}
    if isinstance(proof, Inclusion):
        event = proof.verify(keys)
        told |= {"sequence": event.sequence, "event_id": event.event_id, "event_type": event.event_type.value}
        text = (
            f"event {event.sequence} ({event.event_type}, {event.timestamp[:19]}Z) is in the trail, "
            f"under its checkpoint at event {proof.note.checkpoint.size}"
        )
    else:
        proof.verify(keys)
        told |= {"old_size": proof.old.checkpoint.size}
        text = f"the head at event {proof.note.checkpoint.size} continues the one at event {proof.old.checkpoint.size}"
    if as_json:
        print_json(told)
    else:
        out.print(f"[bold green]verified[/]: {escape(text)}")
