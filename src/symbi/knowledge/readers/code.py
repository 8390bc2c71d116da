"""Source code as it stands; functions and classes are its headings."""

import ast
import re
import warnings
from pathlib import PurePosixPath
from typing import Final

from symbi.knowledge.extracted import (
    MAX_HEADING_CHARS,
    MAX_TITLE_CHARS,
    Block,
    BlockKind,
    Extracted,
    one_line,
)
from symbi.knowledge.readers.plain import decode

SUFFIXES: Final = (
    ".py", ".pyi", ".js", ".mjs", ".ts", ".tsx", ".jsx", ".java", ".c", ".h", ".cc", ".cpp", ".hpp", ".cs", ".go", ".rs", ".rb",
    ".php", ".sh", ".bash", ".zsh", ".pl", ".lua", ".kt", ".swift", ".scala", ".sql", ".r", ".toml", ".yaml", ".yml", ".ini",
    ".cfg", ".conf", ".cedar", ".symbi", ".proto", ".tf", ".mk", ".css", ".xml",
)  # fmt: skip
_BEGINS: Final = re.compile(
    r"^(?:export\s+|pub(?:\([a-z]+\))?\s+|public\s+|private\s+|protected\s+|static\s+|async\s+|default\s+|abstract\s+|final\s+)*"
    r"(?:(?:function|func|fn|def|class|struct|enum|interface|trait|impl|type|module|agent|policy|message|sub)\s+([\w.:<>~*&]+)"
    r"|(?:CREATE\s+\w+\s+([\w.\"]+))|\[([\w.\"-]+)\]\s*$|[\w*&:<>\[\] ]+\s[*&]*([\w:~]+)\s*\([^;{}]*\)\s*\{?\s*$)",
    re.MULTILINE,
)


def read_code(data: bytes, name: str) -> Extracted:
    """Code as it stands.

    Raises:
        InputError: It is no text.
    """
    text = decode(data)
    path = PurePosixPath(name)
    starts = _python(text) if path.suffix.lower() in {".py", ".pyi"} else None
    if starts is None:
        starts = [(found.start(), next(filter(None, found.groups()), "")) for found in _BEGINS.finditer(text)]
    return Extracted(text, tuple(_blocks(text, starts)), one_line(path.name, MAX_TITLE_CHARS))


def _blocks(text: str, starts: list[tuple[int, str]]) -> list[Block]:
    borders = [*(start for start, _ in starts), len(text)]
    blocks = [_code(text, 0, borders[0])]
    for (start, said), end in zip(starts, borders[1:], strict=True):
        line_end = min(end, text.find("\n", start) if "\n" in text[start:end] else end)
        blocks.append(Block(start, line_end, BlockKind.HEADING, 1, one_line(said, MAX_HEADING_CHARS)))
        blocks.append(_code(text, line_end, end))
    return [block for block in blocks if text[block.start : block.end].strip()]


def _code(text: str, start: int, end: int) -> Block:
    while start < end and text[start] == "\n":
        start += 1
    return Block(start, start + len(text[start:end].rstrip()), BlockKind.CODE)


def _python(text: str) -> list[tuple[int, str]] | None:
    """Where functions and classes begin; None where it does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in strings that are not ours
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None  # then it is read as any other code
    lines = [0]
    for line in text.split("\n"):
        lines.append(lines[-1] + len(line) + 1)
    found: list[tuple[int, str]] = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            first = min((one.lineno for one in node.decorator_list), default=node.lineno)
            found.append((lines[first - 1], node.name))
            if isinstance(node, ast.ClassDef):
                for part in node.body:
                    if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
                        first = min((one.lineno for one in part.decorator_list), default=part.lineno)
                        found.append((lines[first - 1], f"{node.name}.{part.name}"))
    return found
