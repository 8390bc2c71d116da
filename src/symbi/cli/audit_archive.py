"""`symbi audit verify --archive`: all sealed segments of a trail in a row, and the links between them."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from symbi.audit.checkpoint import Note
from symbi.audit.export import KEYS_NAME, verify_folder
from symbi.audit.verify import Run, Start, TrailReport
from symbi.crypto.signing import VerifyingKey
from symbi.errors import ChainBroken, InputError
from symbi.types import KeyId

_SEGMENT: Final = re.compile(r"([0-9]{12,16})-([0-9]{12,16})")


def segment_folders(archive: Path) -> list[Path]:
    """The segments of a trail in order; of the one trail, where the audit storage itself is given.

    Raises:
        InputError: There are none, or of several trails.
    """
    if not archive.is_dir():
        msg = f"there is no folder `{archive}`"
        raise InputError(msg, code="input.archive")
    found = _segments(archive)
    if not found:
        trails = [folder for folder in _list(archive) if folder.is_dir() and _segments(folder)]
        if len(trails) > 1:
            msg = f"`{archive}` has {len(trails)} trails"
            raise InputError(msg, code="input.archive", hint=f"name one of them, such as `{trails[0]}`")
        found = _segments(trails[0]) if trails else []
    if not found:
        msg = f"there is no segment of a trail in `{archive}`"
        raise InputError(msg, code="input.archive")
    return found


def archive_events(folders: Sequence[Path]) -> int:
    """How many events their names say that they have."""
    return sum(last - first + 1 for first, last in map(_span, folders))


def archive_keys(folders: Sequence[Path]) -> Path:
    """The newest keys that the segments bring along."""
    return folders[-1] / KEYS_NAME


def verify_archive(
    folders: Sequence[Path],
    keys: Mapping[KeyId, VerifyingKey],
    *,
    witness: Sequence[Note] = (),
    run: Run,
    track: Callable[[Iterable[bytes]], Iterable[bytes]],
) -> TrailReport:
    """Verify segments in a row: each by itself, and as what follows the one before.

    Args:
        folders: In order.
        keys: The trusted keys.
        witness: What a witness has seen; what lies beyond the last segment is not asked.
        run: Where pieces are checked.
        track: Sees the events pass.

    Raises:
        ChainBroken: One does not verify, does not follow, or is not what its name says.
        InputError: One cannot be read.
    """
    whole: TrailReport | None = None
    for folder in folders:
        first, last = _span(folder)
        start: Start | None = None if whole is None else whole.end
        seen = [note for note in witness if note.checkpoint.size <= last]
        report = verify_folder(folder, keys, start=start, witness=seen, run=run, track=track)
        if (report.first, report.last) != (first, last):
            msg = f"`{folder}` holds the events {report.first} to {report.last}, which is not what its name says"
            raise ChainBroken(msg, sequence=min(first, report.first), reason="sequence")
        whole = report if whole is None else _joined(whole, report)
    assert whole is not None, "there is at least one"
    return whole


def _joined(before: TrailReport, after: TrailReport) -> TrailReport:
    return replace(
        after,
        events=before.events + after.events,
        first=before.first,
        first_timestamp=before.first_timestamp,
        key_ids=tuple(dict.fromkeys((*before.key_ids, *after.key_ids))),
        checkpoints=before.checkpoints + 1 + after.checkpoints,  # the last of each was the head of its segment
        witnessed=after.witnessed or before.witnessed,
    )


def _segments(folder: Path) -> list[Path]:
    return sorted((one for one in _list(folder) if _SEGMENT.fullmatch(one.name)), key=_span)


def _list(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        msg = f"cannot read the archive `{folder}`: {error.strerror or error}"
        raise InputError(msg, code="input.archive") from error


def _span(folder: Path) -> tuple[int, int]:
    found = _SEGMENT.fullmatch(folder.name)
    assert found is not None, "only such names were listed"
    return int(found[1]), int(found[2])
