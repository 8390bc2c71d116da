"""PDF by pypdf: the text of each page."""

import io
import logging
import zlib
from typing import Final

from pypdf import PdfReader
from pypdf.errors import DependencyError, PyPdfError

from symbi.knowledge.extracted import BlockKind, Extracted, Writer, malformed, too_long

MAX_PAGES: Final = 2_000
_NO_PDF: Final = (
    PyPdfError, DependencyError, ValueError, LookupError, TypeError, AttributeError, OSError, ArithmeticError, RuntimeError,
    AssertionError, zlib.error,
)  # fmt: skip


def read_pdf(data: bytes, _name: str) -> Extracted:
    """The text of each page, under a heading with its number.

    Raises:
        InputError: It is damaged, encrypted, or too long.
    """
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # what it makes do with is no news to anybody
    try:
        reader = PdfReader(io.BytesIO(data), strict=False)
        if reader.is_encrypted:
            raise malformed("it is encrypted")
        count = len(reader.pages)
        if count > MAX_PAGES:
            raise too_long(f"{count} pages, and at most {MAX_PAGES} are read")
        writer = Writer()
        for number, page in enumerate(reader.pages, 1):
            text = "".join(c if c in "\n\t" or ord(c) >= 32 else " " for c in page.extract_text())  # noqa: PLR2004 - controls
            if text.strip():
                writer.add(f"page {number}", BlockKind.HEADING, 1)
                for part in text.split("\n\n"):
                    writer.add(part)
        title = str(reader.metadata.title or "") if reader.metadata is not None else ""
    except _NO_PDF as error:
        # It is made for whole files, and meets what is none with whatever comes of it.
        raise malformed(f"it is no whole PDF: {type(error).__name__}") from error
    return writer.done(title)
