"""Plain text: paragraphs by empty lines, headings where a line stands out as manual pages have it."""

import re
from typing import Final

from symbi.knowledge.extracted import MAX_TEXT_CHARS, Block, BlockKind, Extracted, malformed, one_line, too_long

_BOMS: Final = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
_CONTROL: Final = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_OVERSTRIKE: Final = re.compile(r".\x08")
_PARAGRAPH: Final = re.compile(r"[^\n]*\S[^\n]*(?:\n[^\n]*\S[^\n]*)*")
_CAPITALS: Final = re.compile(r"[A-Z0-9][A-Z0-9 ,/&()'_.-]{1,60}")
_UNDERLINED: Final = re.compile(r"(\S[^\n]{0,120})\n([=~^-])\2{2,}[ \t]*(?:\n|$)")
MAX_TITLE_LINE: Final = 120


def decode(data: bytes) -> str:
    """Bytes as text, of whose line ends each is one character.

    Raises:
        InputError: They are no text: neither UTF-8 nor UTF-16 with its mark nor Latin-1, or full of control characters.
    """
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            try:
                text = data[len(mark) :].decode(encoding)
            except UnicodeDecodeError as error:
                raise malformed(f"it is no {encoding} text: {error.reason} at byte {error.start}") from error
            return _checked(text)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("latin-1")  # which takes all bytes: what is none of it has control characters
    return _checked(text)


def _checked(text: str) -> str:
    text = _OVERSTRIKE.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    if len(text) > MAX_TEXT_CHARS:
        raise too_long(f"more than {MAX_TEXT_CHARS} characters of text")
    found = _CONTROL.search(text)
    if found is not None:
        raise malformed(f"it is binary, and no text: character {found.start()} is U+{ord(found[0]):04X}")
    return text


def read_text(data: bytes, _name: str) -> Extracted:
    """A text as it stands.

    Raises:
        InputError: It is none.
    """
    return of_text(decode(data))


def of_text(text: str) -> Extracted:
    """The parts of a text; offsets are those of the text itself."""
    blocks: list[Block] = []
    for found in _PARAGRAPH.finditer(text):
        _paragraph(text, found.start(), found.end(), blocks)
    first = next((block for block in blocks), None)
    line = "" if first is None else text[first.start : first.end].split("\n", 1)[0].strip()
    return Extracted(text, tuple(blocks), one_line(line, MAX_TITLE_LINE) if len(line) <= MAX_TITLE_LINE else "")


def _paragraph(text: str, start: int, end: int, blocks: list[Block]) -> None:
    """A paragraph, which may begin with its heading."""
    underlined = _UNDERLINED.match(text, start, end)
    if underlined is not None:
        level = 1 if underlined[2] == "=" else 2
        blocks.append(Block(start, underlined.end(1), BlockKind.HEADING, level, underlined[1].strip()))
        start = underlined.end()
    else:
        line_end = text.find("\n", start, end)
        line_end = end if line_end < 0 else line_end
        line = text[start:line_end]
        alone = line_end == end
        if (
            not line[:1].isspace()
            and _CAPITALS.fullmatch(line.rstrip())
            and not line.rstrip().endswith(".")
            and (alone or text[line_end + 1 : line_end + 2].isspace())
        ):
            blocks.append(Block(start, line_end, BlockKind.HEADING, 1, line.strip()))
            start = line_end + 1
    if start < end and text[start:end].strip():
        blocks.append(Block(start, end))
