"""What is read from disk: agent files, policy files, the store."""

from pathlib import Path
from typing import Final, TypeAlias

from symbi.adapters.sqlite import SqliteReader
from symbi.config import Settings
from symbi.dsl.compile import compile_file
from symbi.dsl.parser import parse
from symbi.dsl.spec import CompiledFile
from symbi.errors import InputError

TrailReader: TypeAlias = SqliteReader
"""What reads the trail, for those who only use it."""

MAX_SOURCE_BYTES: Final = 4_194_304  # one agent file or policy file


def read_text(path: Path) -> str:
    """A source file as text.

    Raises:
        InputError: It cannot be read, is not UTF-8, or is too large.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SOURCE_BYTES + 1)
        text = data.decode()
    except OSError as error:
        msg = f"cannot read `{path}`: {error.strerror or error}"
        raise InputError(msg, code="input.unreadable") from error
    except UnicodeDecodeError as error:
        msg = f"`{path}` is not UTF-8: {error.reason} at byte {error.start}"
        raise InputError(msg, code="input.encoding") from error
    if len(data) > MAX_SOURCE_BYTES:
        msg = f"`{path}` is larger than {MAX_SOURCE_BYTES} bytes"
        raise InputError(msg, code="input.size")
    return text


def compile_agents(path: Path) -> CompiledFile:
    """Read and compile an agent file.

    Raises:
        DslError: It is wrong.
        InputError: It cannot be read.
    """
    text = read_text(path)
    return compile_file(parse(text, str(path)), text)


def open_reader(settings: Settings) -> SqliteReader:
    """The store, read-only, beside its owner; to be entered."""
    return SqliteReader(settings.runtime.data_dir)
