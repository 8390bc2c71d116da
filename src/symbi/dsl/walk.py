"""Walking a syntax tree without recursion, and the bound on how deep a tree may be."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Final

from symbi.dsl import ast
from symbi.errors import DslError

MAX_NESTING: Final = 256
"""Bounds how deep a file may nest, so that everything that follows a tree downwards may recurse."""

NESTING_HINT: Final = "split it with `let` or a function of its own"

_LEVELS: Final = frozenset(
    {
        ast.Array,
        ast.Binary,
        ast.Block,
        ast.Call,
        ast.Index,
        ast.Lambda,
        ast.Member,
        ast.Record,
        ast.TypeRef,
        ast.Unary,
    }
)
"""The nodes that stand one level deeper than what they stand in."""


_FIELDS: Final = {
    kind: tuple(field.name for field in fields(kind) if field.name != "span")
    for kind in vars(ast).values()
    if isinstance(kind, type) and issubclass(kind, ast.Node)
}
"""The fields of each kind of node that may hold further nodes."""


def children(node: ast.Node) -> Iterator[ast.Node]:
    """The nodes directly below a node, in the order of its fields."""
    for name in _FIELDS[type(node)]:
        value = getattr(node, name)
        if isinstance(value, ast.Node):
            yield value
        elif isinstance(value, tuple):
            for item in value:
                if isinstance(item, ast.Node):
                    yield item


def check_nesting(file: ast.File) -> None:
    """Refuses a tree that is deeper than `MAX_NESTING`.

    The parser bounds how deep brackets and blocks stand in each other; chains (`a + b + …`, `a.b.c…`, `!!!a`,
    `else if …`) make a tree deep as well, and are seen here. The body of a function or of `with` is at level 0.

    Raises:
        DslError: At the first node of the file that is too deep.
    """
    deepest: ast.Node | None = None
    stack: list[tuple[ast.Node, int]] = [(file, 0)]
    while stack:
        node, above = stack.pop()
        depth = above + (type(node) in _LEVELS)
        if depth > MAX_NESTING:
            if deepest is None or node.span.start < deepest.span.start:
                deepest = node
            continue
        for child in children(node):
            below = depth
            if isinstance(node, (ast.Function, ast.With)) and child is node.body:
                below -= 1
            elif isinstance(node, ast.If) and isinstance(child, ast.If) and child is node.orelse:
                below += 1
            elif isinstance(child, ast.TypeRef) and not isinstance(node, ast.TypeRef):
                below -= 1
            stack.append((child, below))
    if deepest is not None:
        raise DslError(
            f"expected at most {MAX_NESTING} levels of nesting, found more",
            code="dsl.nesting",
            place=deepest.span.place(file.name),
            hint=NESTING_HINT,
        )
