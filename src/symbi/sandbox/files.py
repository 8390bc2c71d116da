"""Files that go into a container and come out of it: what they may be called, and what may be in them. Pure.

Files lie flat, in one folder for those that go in and one for those that come out. So a name is never a path: nothing in
it leads up, down or elsewhere, and what was written under another name is not looked for. Archives are files like any
others: nothing here unpacks one.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Final

from symbi.dsl.containers import FILE_NAME_HINT, is_file_name
from symbi.errors import CodeFailed, InputError, OutputLimit
from symbi.sandbox.request import VALUE_BOUNDS
from symbi.sandbox.values import copy_json, has_more_parts
from symbi.types import JsonValue

INPUT_FOLDER: Final = "/tmp/in"  # noqa: S108 - inside the container
OUTPUT_FOLDER: Final = "/tmp/out"  # noqa: S108 - inside the container
MAX_FILES: Final = 64  # in each of the two folders
MAX_OUTPUT_BYTES: Final = VALUE_BOUNDS.max_bytes  # of all files that come out, together
MAX_PARTS_SHOWN: Final = 60  # characters of a wrong name in an error

KEPT_VARIABLES: Final = frozenset(
    {"PATH", "HOME", "LANG", "TMPDIR"}
    | {name for word in ("http_proxy", "https_proxy", "all_proxy", "no_proxy") for name in (word, word.upper())}
)
"""Variables of the environment that are ours to set."""


def check_names(names: Iterable[str], what: str) -> tuple[str, ...]:
    """Names of files, as they were given.

    Args:
        names: The names.
        what: What the files are, for the error.

    Raises:
        InputError: A name is none, or is there twice, or there are too many.
    """
    given = tuple(names)
    if len(given) > MAX_FILES:
        msg = f"{len(given)} {what} are more than the {MAX_FILES} that a program may have"
        raise InputError(msg, code="sandbox.files")
    for index, name in enumerate(given):
        if not is_file_name(name):
            shown = name[:MAX_PARTS_SHOWN] if name.isprintable() else ascii(name)[1:-1][:MAX_PARTS_SHOWN]
            msg = f"`{shown}` is not the name of a file among the {what}"
            raise InputError(msg, code="sandbox.files", hint=FILE_NAME_HINT)
        if name in given[:index]:
            msg = f"`{name}` is twice among the {what}"
            raise InputError(msg, code="sandbox.files")
    return given


def read_output(name: str, data: bytes) -> JsonValue:
    """What a program wrote, as a value: JSON where the name ends in `.json`, text otherwise.

    Args:
        name: Of the file.
        data: All of it.

    Raises:
        OutputLimit: It is too large, or has too many parts.
        CodeFailed: It is no UTF-8, or no JSON.
    """
    if len(data) > MAX_OUTPUT_BYTES:
        raise too_large(name)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        msg = f"output `{name}` is no text: byte {error.start} is no UTF-8"
        raise CodeFailed(msg, hint="have the program write bytes as text, e.g. in base64") from None
    return _json(name, data, text) if name.endswith(".json") else text


def read_outputs(found: Mapping[str, bytes | None]) -> dict[str, JsonValue]:
    """Likewise all outputs of a program, which are bounded together; what is not there is null.

    Raises:
        OutputLimit: One is too large or has too many parts, or all together are too large.
        CodeFailed: One is no UTF-8, or no JSON.
    """
    if sum(len(data) for data in found.values() if data is not None) > MAX_OUTPUT_BYTES:
        raise too_large()
    return {name: None if data is None else read_output(name, data) for name, data in found.items()}


def too_large(name: str | None = None) -> OutputLimit:
    """The error of outputs that are too large."""
    which = "the outputs are together" if name is None else f"output `{name}` is"
    return OutputLimit(f"{which} larger than {MAX_OUTPUT_BYTES} bytes", max_bytes=MAX_OUTPUT_BYTES)


def _json(name: str, data: bytes, text: str) -> JsonValue:
    if has_more_parts(data, 2 * VALUE_BOUNDS.max_items):  # such is not parsed
        msg = f"output `{name}` has more than {VALUE_BOUNDS.max_items} parts"
        raise OutputLimit(msg, max_items=VALUE_BOUNDS.max_items)
    try:
        value = json.loads(text)  # bytes could be taken for UTF-16
    except RecursionError:
        msg = f"output `{name}` nests deeper than {VALUE_BOUNDS.max_depth}"
        raise CodeFailed(msg) from None
    except ValueError as error:
        where = f" at line {error.lineno}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        msg = f"output `{name}` is no JSON{where}"
        raise CodeFailed(msg, hint="a name that does not end in `.json` is taken as text") from None
    try:
        return copy_json(value, VALUE_BOUNDS, wrong=CodeFailed, large=OutputLimit)
    except CodeFailed as error:
        msg = f"output `{name}`: {error.message}"
        raise CodeFailed(msg, hint=error.hint) from None
