"""Readers: bytes of a file in, its text and the places of its parts out. Pure; meant to be run in a process of its own."""

from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Final

from symbi.errors import InputError
from symbi.knowledge.extracted import MAX_BLOCKS, Extracted, too_long
from symbi.knowledge.readers.code import SUFFIXES as CODE_SUFFIXES
from symbi.knowledge.readers.code import read_code
from symbi.knowledge.readers.plain import decode, read_text

Reader = Callable[[bytes, str], Extracted]
"""Bytes, and the name of the file."""


def _markdown(data: bytes, name: str) -> Extracted:
    from symbi.knowledge.readers.markup import read_markdown  # noqa: PLC0415 - its library is loaded by whoever needs it

    return read_markdown(data, name)


def _html(data: bytes, name: str) -> Extracted:
    from symbi.knowledge.readers.markup import read_html  # noqa: PLC0415 - likewise

    return read_html(data, name)


def _pdf(data: bytes, name: str) -> Extracted:
    from symbi.knowledge.readers.pdf import read_pdf  # noqa: PLC0415 - likewise

    return read_pdf(data, name)


def _json(data: bytes, name: str) -> Extracted:
    from symbi.knowledge.readers.data import read_json  # noqa: PLC0415 - likewise

    return read_json(data, name)


def _csv(data: bytes, name: str) -> Extracted:
    from symbi.knowledge.readers.data import read_csv  # noqa: PLC0415 - likewise

    return read_csv(data, name)


READERS: Final[Mapping[str, Reader]] = MappingProxyType(
    {
        "text": read_text,
        "markdown": _markdown,
        "html": _html,
        "pdf": _pdf,
        "json": _json,
        "csv": _csv,
        "code": read_code,
    }
)
"""Reader by kind of document."""

SUFFIXES: Final[Mapping[str, str]] = MappingProxyType(
    {
        **dict.fromkeys((".txt", ".text", ".log", ".rst", ".adoc", ".org", ""), "text"),
        **dict.fromkeys((".md", ".markdown", ".mdown"), "markdown"),
        **dict.fromkeys((".html", ".htm", ".xhtml"), "html"),
        **dict.fromkeys((".json", ".jsonl", ".ndjson"), "json"),
        **dict.fromkeys((".csv", ".tsv"), "csv"),
        ".pdf": "pdf",
        **dict.fromkeys(CODE_SUFFIXES, "code"),
    }
)
"""Kind by the end of a file's name, in small letters. Any other is taken as text, if it is one."""

_PDF_MARK: Final = b"%PDF-"
_MARK_WITHIN: Final = 1024  # bytes, as readers of PDF take it


def kind_of(name: str, data: bytes) -> str:
    """What kind of document a file is: what its first bytes say, else what its name does."""
    if _PDF_MARK in data[:_MARK_WITHIN] and PurePosixPath(name).suffix.lower() in {".pdf", ""}:
        return "pdf"
    return SUFFIXES.get(PurePosixPath(name).suffix.lower(), "text")


def read_document(data: bytes, name: str) -> tuple[str, Extracted]:
    """The kind of a file, and its text.

    Args:
        data: All of the file.
        name: Of the file; only its end counts.

    Raises:
        InputError: It is not what its name says, is too large once it is read, or holds no text.
    """
    kind = kind_of(name, data)
    extracted = READERS[kind](data, name)
    if not extracted.blocks:
        raise InputError("there is no text in it", code="knowledge.empty")
    if len(extracted.blocks) > MAX_BLOCKS:
        raise too_long(f"more than {MAX_BLOCKS} parts")
    return kind, extracted


__all__ = ["READERS", "SUFFIXES", "decode", "kind_of", "read_document"]
