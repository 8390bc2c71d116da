"""JSON and CSV as lines that say of each value what it is."""

import csv
import io
import json
from collections.abc import Iterator
from typing import Any, Final

from symbi.knowledge.extracted import BlockKind, Extracted, Writer, malformed
from symbi.knowledge.readers.plain import decode

MAX_DEPTH: Final = 64
MAX_FIELD_CHARS: Final = 131_072  # of a cell
MAX_COLUMNS: Final = 1_000
_LINES: Final = (".jsonl", ".ndjson")
_TITLES: Final = ("title", "name", "id", "subject")


def read_json(data: bytes, name: str) -> Extracted:
    """Each member of the outermost value is a part; what is in it stands as `path: value`, a line each.

    Raises:
        InputError: It is no JSON, or nested too deeply.
    """
    text = decode(data)
    writer = Writer()
    if name.lower().endswith(_LINES):
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                value = _parsed(line, f"line {number}")
                _member(writer, _called(value, f"line {number}"), value)
        return writer.done()
    value = _parsed(text, "it")
    if isinstance(value, dict):
        scalars = {key: one for key, one in value.items() if not isinstance(one, dict | list)}
        if scalars:
            writer.add("\n".join(_lines("", scalars, 0)))
        for key, one in value.items():
            if isinstance(one, dict | list):
                _member(writer, str(key), one)
        return writer.done(_called(value, ""))
    if isinstance(value, list):
        for number, one in enumerate(value):
            _member(writer, _called(one, f"[{number}]"), one)
        return writer.done()
    writer.add(_shown(value))
    return writer.done()


def _parsed(text: str, what: str) -> Any:
    try:
        return json.loads(text, parse_constant=str)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise malformed(f"{what} is no JSON: {reason}") from error


def _member(writer: Writer, heading: str, value: Any) -> None:
    writer.add(heading, BlockKind.HEADING, 1)
    for line in _lines("", value, 0):
        writer.add(line, BlockKind.ROW)


def _lines(path: str, value: Any, depth: int) -> Iterator[str]:
    if depth > MAX_DEPTH:
        raise malformed(f"it is nested deeper than {MAX_DEPTH}")
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _lines(f"{path}.{key}" if path else str(key), one, depth + 1)
    elif isinstance(value, list):
        if all(not isinstance(one, dict | list) for one in value):
            yield f"{path}: {', '.join(map(_shown, value))}" if path else ", ".join(map(_shown, value))
        else:
            for number, one in enumerate(value):
                yield from _lines(f"{path}[{number}]", one, depth + 1)
    else:
        yield f"{path}: {_shown(value)}" if path else _shown(value)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _called(value: Any, otherwise: str) -> str:
    if isinstance(value, dict):
        for key in _TITLES:
            if isinstance(value.get(key), str) and value[key].strip():
                return str(value[key])
    return otherwise


def read_csv(data: bytes, name: str) -> Extracted:
    """Each row is a part: `column: value; column: value`. The first row names the columns.

    Raises:
        InputError: It is no table.
    """
    text = decode(data)
    csv.field_size_limit(MAX_FIELD_CHARS)
    writer = Writer()
    try:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text, name), strict=True)
        head = [cell.strip() for cell in next(rows, [])]
        if len(head) > MAX_COLUMNS:
            raise malformed(f"it has {len(head)} columns")
        for row in rows:
            cells = (
                f"{head[place]}: {cell.strip()}" if place < len(head) and head[place] else cell.strip()
                for place, cell in enumerate(row)
                if cell.strip()
            )
            writer.add("; ".join(" ".join(cell.split()) for cell in cells), BlockKind.ROW)
    except csv.Error as error:
        raise malformed(f"it is no table: {error}") from error
    return writer.done()


def _delimiter(text: str, name: str) -> str:
    if name.lower().endswith(".tsv"):
        return "\t"
    line = text.split("\n", 1)[0]
    return max((",", ";", "\t", "|"), key=line.count)
