"""Markdown by markdown-it, HTML by lxml under Beautiful Soup."""

import re
import warnings
from collections.abc import Iterator
from typing import Final

from bs4 import BeautifulSoup, MarkupResemblesLocatorWarning, XMLParsedAsHTMLWarning
from bs4.element import CData, Comment, Doctype, NavigableString, PreformattedString, Tag
from markdown_it import MarkdownIt
from markdown_it.token import Token

from symbi.knowledge.extracted import Block, BlockKind, Extracted, Writer, malformed, one_line
from symbi.knowledge.readers.plain import decode

MAX_NESTING: Final = 100  # of Markdown; deeper it is text
MAX_TAGS: Final = 500_000  # of one page
_FRONT: Final = "---\n"
_DEFINITION: Final = re.compile(r" {0,3}\[[^\]]+\]:")  # of a link


def read_markdown(data: bytes, _name: str) -> Extracted:
    """Markdown as it stands, with its marks; headings, paragraphs and code by their lines.

    Raises:
        InputError: It is no text.
    """
    text = decode(data)
    lines = _line_starts(text)
    skipped = _front_matter(text)
    parser = MarkdownIt("commonmark", {"maxNesting": MAX_NESTING}).enable("table")
    blocks: list[Block] = []
    title = ""
    last = skipped
    tokens = parser.parse(_blanked(text, skipped))
    for token, inline in _leaves(tokens):
        if token.map is None:
            continue
        start, end = lines[token.map[0]], lines[min(token.map[1], len(lines) - 1)]
        start = max(start, last)
        if end <= start or not text[start:end].strip():
            continue
        blocks += _beside(text, last, start)
        last = end
        end = start + len(text[start:end].rstrip())
        if token.type == "heading_open":
            level, said = int(token.tag[1:]), one_line(inline, 200)
            title = title or (said if level == 1 else "")
            blocks.append(Block(start, end, BlockKind.HEADING, level, said))
        else:
            code = token.type in {"fence", "code_block"}
            blocks.append(Block(start, end, BlockKind.CODE if code else BlockKind.PARAGRAPH))
    blocks += _beside(text, last, len(text))
    return Extracted(text, tuple(blocks), title)


def _beside(text: str, start: int, end: int) -> list[Block]:
    """What is nested so deep that it is text, if anything; definitions of links are no part."""
    start += len(text[start:end]) - len(text[start:end].lstrip("\n"))
    said = text[start:end].rstrip()
    lines = (line for line in said.split("\n") if not _DEFINITION.match(line))
    return [Block(start, start + len(said))] if any(sign.isalnum() for line in lines for sign in line) else []


def _leaves(tokens: list[Token]) -> Iterator[tuple[Token, str]]:
    """Tokens that make parts, with what is inline in them. Lists and quotes are their paragraphs, a table is one part."""
    in_table = 0
    for place, token in enumerate(tokens):
        if token.type == "table_open":
            in_table += 1
            yield token, ""
        elif token.type == "table_close":
            in_table -= 1
        elif not in_table and token.type in {"heading_open", "paragraph_open"}:
            yield token, tokens[place + 1].content if place + 1 < len(tokens) else ""
        elif not in_table and token.type in {"fence", "code_block", "html_block"}:
            yield token, ""


def _front_matter(text: str) -> int:
    """Where the text begins behind a head between two lines `---`."""
    if not text.startswith(_FRONT):
        return 0
    end = text.find("\n" + _FRONT, len(_FRONT) - 1)
    return 0 if end < 0 else end + 1 + len(_FRONT)


def _blanked(text: str, upto: int) -> str:
    """The text with empty lines in the place of its head, so that lines stay what they are."""
    return "\n" * text.count("\n", 0, upto) + text[upto:]


def _line_starts(text: str) -> list[int]:
    starts, at = [0], text.find("\n")
    while at >= 0:
        starts.append(at + 1)
        at = text.find("\n", at + 1)
    if starts[-1] != len(text):
        starts.append(len(text))
    return starts


_HIDDEN_NAMES: Final = "script style template noscript noframes noembed head svg math iframe object datalist"
_HIDDEN: Final = frozenset(_HIDDEN_NAMES.split())
_UNSEEN: Final = re.compile(r"/\*.*?\*/|\s+", re.DOTALL)  # in a style: comments and space
_PART_NAMES: Final = (
    "address article aside blockquote body dd details dialog div dl dt fieldset figcaption figure footer form header hr html li "
    "main nav ol p pre section summary table tbody tfoot thead tr ul h1 h2 h3 h4 h5 h6"
)
_PARTS: Final = frozenset(_PART_NAMES.split())
_HEADINGS: Final = {f"h{level}": level for level in range(1, 7)}


def read_html(data: bytes, _name: str) -> Extracted:
    """What a page shows: no scripts, no styles, no comments, and nothing that says it is hidden.

    Raises:
        InputError: It is no page, or has too many tags.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", XMLParsedAsHTMLWarning)  # XHTML is read as browsers read it
        warnings.simplefilter("ignore", MarkupResemblesLocatorWarning)  # what is read is never a name of a file
        soup = BeautifulSoup(data, "lxml")
    title = soup.title.get_text() if soup.title is not None else ""
    writer = Writer()
    page = _Page(writer)
    # Not by recursion: pages may be nested as deep as their author likes.
    stack: list[tuple[Tag, Iterator[object]]] = [(soup, iter(soup.children))]
    seen = 0
    while stack:
        tag, children = stack[-1]
        child = next(children, None)
        if child is None:
            stack.pop()
            page.leave(tag.name)
            continue
        seen += 1
        if seen > MAX_TAGS:
            raise malformed(f"it has more than {MAX_TAGS} tags")
        if isinstance(child, Tag):
            if child.name not in _HIDDEN and not _is_hidden(child):
                page.enter(child.name)
                stack.append((child, iter(child.children)))
        elif isinstance(child, NavigableString) and not isinstance(
            child, Comment | Doctype | CData | PreformattedString
        ):
            page.say(str(child))
    page.flush()
    return writer.done(title)


def _is_hidden(tag: Tag) -> bool:
    style = _UNSEEN.sub("", str(tag.get("style") or "")).lower()
    return (
        tag.has_attr("hidden")
        or tag.get("aria-hidden") == "true"
        or "display:none" in style
        or "visibility:hidden" in style
        or "visibility:collapse" in style
    )


class _Page:
    """Text between two borders of parts becomes a part."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._said: list[str] = []
        self._level = 0
        self._pre = 0

    def enter(self, name: str) -> None:
        if name in _PARTS:
            self.flush()
            self._level = _HEADINGS.get(name, self._level)
        self._pre += name == "pre"
        if name in {"br", "td", "th"}:
            self._said.append("\n" if name == "br" else " ")

    def leave(self, name: str) -> None:
        if name in _PARTS:
            self.flush()
            if name in _HEADINGS:
                self._level = 0
        self._pre -= name == "pre"

    def say(self, text: str) -> None:
        self._said.append(text if self._pre else " ".join(f"a{text}a".split())[1:-1])

    def flush(self) -> None:
        said, self._said = "".join(self._said), []
        if self._level:
            self._writer.add(" ".join(said.split()), BlockKind.HEADING, self._level)
        elif self._pre:
            self._writer.add(said, BlockKind.CODE)
        else:
            lines = (" ".join(line.split()) for line in said.split("\n"))
            self._writer.add("\n".join(line for line in lines if line))
