"""Where the comments of a file belong in its tree.

A comment belongs to a place in a list of things (declarations, statements, rules, items, arguments …): before one of
them, after one on the same line, behind the opening bracket, or at the end. One that stands in the middle of something
is moved: into the next block of the same statement (`} // why ⏎ else {`), or else before the statement.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from symbi.dsl import ast
from symbi.dsl.ast import Span
from symbi.dsl.walk import children

Key: TypeAlias = tuple[int, bool]
"""A list in the tree: `id` of its node, and whether it is the list in its head (parameters, attributes)."""


@dataclass(frozen=True, slots=True)
class Note:
    """A comment at its place; `start` and `end` are the offsets by which blank lines around it are told."""

    text: str
    start: int
    end: int


@dataclass(slots=True)
class Notes:
    """The comments of one list.

    Attributes:
        opening: Behind the opening bracket, on its line.
        before: Own lines before the element of this index; before the closing bracket under the number of elements.
        after: Behind the element of this index, on its last line.
    """

    opening: Note | None = None
    before: dict[int, list[Note]] = field(default_factory=dict)
    after: dict[int, Note] = field(default_factory=dict)

    def above(self, index: int) -> Sequence[Note]:
        """What stands on own lines before an element."""
        return self.before.get(index, ())


@dataclass(frozen=True, slots=True)
class _List:
    key: Key
    start: int
    end: int
    places: tuple[Span, ...]
    nodes: tuple[ast.Node, ...]
    is_block: bool


_BETWEEN_PARAMETERS: Final = re.compile(r"(?:[\s,]|(?://|#)[^\n]*)*")


def place_comments(file: ast.File, source: str | None) -> dict[Key, Notes]:
    """Finds the place of every comment of a file.

    Args:
        file: A tree that was read from a text.
        source: That text, if it is at hand; it tells a comment in parentheses from one behind them.
    """
    placed: dict[Key, Notes] = {}
    known: dict[int, list[_List]] = {}
    top = _list(file, 0, file.span.end, file.declarations)
    for comment in file.comments:
        _place(comment, top, placed, known, source)
    return placed


def _place(
    comment: ast.Comment, top: _List, placed: dict[Key, Notes], known: dict[int, list[_List]], source: str | None
) -> None:
    at = comment.span.start
    where = top
    while True:
        index = bisect_right(where.places, at, key=lambda span: span.start)
        if not index or at >= where.places[index - 1].end:
            _put(comment, index, placed.setdefault(where.key, Notes()), is_top=where is top)
            return
        if not where.nodes:
            break
        node = where.nodes[index - 1]
        if id(node) not in known:
            known[id(node)] = sorted(_lists(node, source), key=lambda inner: inner.start)
        inside = next((inner for inner in known[id(node)] if inner.start <= at < inner.end), None)
        if inside is None:
            block = next((inner for inner in known[id(node)] if inner.is_block and inner.start > at), None)
            if block is None:
                break
            _put(comment, 0, placed.setdefault(block.key, Notes()), is_top=False)
            return
        where = inside
    start = where.places[index - 1].start
    notes = placed.setdefault(where.key, Notes())
    notes.before.setdefault(index - 1, []).append(Note(comment.text, start, start))


def _put(comment: ast.Comment, index: int, notes: Notes, *, is_top: bool) -> None:
    """Puts a comment between the elements `index - 1` and `index` of a list."""
    note = Note(comment.text, comment.span.start, comment.span.end)
    is_free = not notes.before.get(index)
    if not comment.own_line and is_free:
        if index and index - 1 not in notes.after:
            notes.after[index - 1] = note
            return
        if not index and notes.opening is None and not is_top:
            notes.opening = note
            return
    notes.before.setdefault(index, []).append(note)


def _list(
    node: ast.Node, start: int, end: int, nodes: Sequence[ast.Node], *, head: bool = False, is_block: bool = False
) -> _List:
    return _List((id(node), head), start, end, tuple(element.span for element in nodes), tuple(nodes), is_block)


def _lists(top: ast.Node, source: str | None) -> Iterator[_List]:
    """The lists in a node, without those that stand in one of them."""
    stack = [top]
    while stack:
        node = stack.pop()
        start, end = node.span.start, node.span.end
        match node:
            case ast.Call():
                yield _list(node, node.callee.span.end, end, node.arguments)
                stack.append(node.callee)
            case ast.Match():
                yield _list(node, node.subject.span.end, end, node.arms, is_block=True)
                stack.append(node.subject)
            case ast.Block():
                yield _list(node, start, end, block_elements(node), is_block=True)
            case ast.Function() | ast.Agent():
                inner = _parameters_end(node.parameters, source) if node.parameters else start
                if node.parameters:
                    yield _list(node, start, inner, node.parameters, head=True)
                if isinstance(node, ast.Function):
                    stack.append(node.body)
                else:
                    yield _list(node, inner, end, node.items, is_block=True)
            case ast.With():
                if node.attributes:
                    yield _list(node, start, node.body.span.start, node.attributes, head=True)
                stack.append(node.body)
            case ast.Classification():
                yield _List((id(node), False), start, end, node.places, (), is_block=True)
            case ast.TypeAliasDecl(target=str()):
                pass
            case _:
                elements = _elements(node)
                if elements is None:
                    stack.extend(children(node))
                else:
                    yield _list(node, start, end, elements)


def block_elements(block: ast.Block) -> tuple[ast.Node, ...]:
    """The statements of a block, and its value where it has one."""
    return block.statements if block.value is None else (*block.statements, block.value)


def _elements(node: ast.Node) -> Sequence[ast.Node] | None:
    """The elements of a node that is one list from its beginning to its end; None if it is none."""
    match node:
        case ast.Array() | ast.Capabilities() | ast.Channel() | ast.Memory() | ast.Webhook():
            return node.items
        case ast.Record() | ast.TypeAliasDecl():
            return node.fields
        case ast.Metadata() | ast.Schedule() | ast.Section():
            return node.entries
        case ast.Policy():
            return node.rules
        case _:
            return None


def _parameters_end(parameters: Sequence[ast.Parameter], source: str | None) -> int:
    end = parameters[-1].span.end
    between = _BETWEEN_PARAMETERS.match(source, end) if source is not None else None
    return between.end() if between else end
