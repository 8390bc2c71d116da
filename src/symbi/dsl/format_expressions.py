"""Expressions to documents: the half of the formatter that knows where parentheses are needed."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from symbi.dsl import ast
from symbi.dsl.comments import Key, Note, Notes
from symbi.dsl.expressions import BINARY
from symbi.dsl.layout import HARD, LINE, SOFT, Aside, Deferred, Doc, IfBroken, concat, group, join, nest
from symbi.dsl.statements import STATEMENT_WORDS

_UNARY: Final = max(BINARY.values()) + 1
_POSTFIX: Final = _UNARY + 1

HUGGED_CHARACTERS: Final = 60
"""Bounds what may stand before a last argument that keeps its opening bracket on the line of the call."""
CHAINED_CALLS: Final = 3
"""Method calls from which on a chain that does not fit is broken before each of them."""

_LEAVES: Final = (ast.String, ast.Number, ast.Duration, ast.Boolean, ast.Name, ast.VaultRef)
_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\t": "\\t", "\r": "\\r"})
_DOTTED_UNITS: Final = frozenset({"seconds", "minutes", "hours"})


class Where(NamedTuple):
    """What stands around an expression, as far as it decides on parentheses.

    Attributes:
        tail: Nothing of the same expression follows, so the body of a lambda may end here.
        brace: `Name {` is read as a record here.
        start: What begins here: `statement`, `if` (after the word), `arm` (after `=>`), or nothing of these.
    """

    tail: bool = True
    brace: bool = True
    start: str = ""


FREE: Final = Where()
HEAD: Final = Where(brace=False)
IF_HEAD: Final = Where(brace=False, start="if")
STATEMENT: Final = Where(start="statement")
ARM: Final = Where(start="arm")


class ExpressionPrinter(ABC):
    """Makes documents of expressions.

    Args:
        source: The text that the tree was read from: strings keep their spelling, and blank lines are kept. None prints
            strings from their values, and no blank lines.
        placed: The comments, by the list that they stand in.
    """

    def __init__(self, source: str | None, placed: Mapping[Key, Notes]) -> None:
        self._source = source
        self._placed = placed
        self._closed: dict[type, Callable[[Any], Doc]] = {
            ast.Array: self._array,
            ast.Record: self._record,
            ast.If: self._if_value,
        }
        self._open: dict[type, Callable[[Any, Where], Doc]] = {
            ast.Unary: self._unary,
            ast.Binary: self._binary,
            ast.Member: self._chain,
            ast.Index: self._chain,
            ast.Call: self._chain,
            ast.Lambda: self._lambda,
        }

    @abstractmethod
    def block(self, block: ast.Block) -> Doc:
        """A block over several lines, or `{}`."""

    def notes(self, node: ast.Node, *, head: bool = False) -> Notes | None:
        """The comments in the list of a node, or in its head."""
        return self._placed.get((id(node), head))

    def expression(self, node: ast.Expr, where: Where = FREE, binding: int = 0) -> Doc:
        """An expression, in parentheses where it needs them.

        Args:
            node: What to print.
            where: What stands around it.
            binding: How tightly the operator binds whose operand this is.
        """
        if isinstance(node, _LEAVES):
            text = self.leaf(node)
            return f"({text})" if isinstance(node, ast.Name) and _is_taken(node.id, where) else text
        is_bare = not _needs_parentheses(node, where, binding)
        show = self._closed.get(type(node))
        doc = self._open[type(node)](node, where if is_bare else FREE) if show is None else show(node)
        return doc if is_bare else concat("(", doc, ")")

    def leaf(self, node: ast.String | ast.Number | ast.Duration | ast.Boolean | ast.Name | ast.VaultRef) -> str:
        """The text of a literal, a name or a vault reference."""
        match node:
            case ast.String():
                return self._string(node)
            case ast.Number():
                return node.text
            case ast.Duration():
                return f"{node.amount}{'.' if node.unit in _DOTTED_UNITS else ''}{node.unit}"
            case ast.Boolean():
                return "true" if node.value else "false"
            case ast.Name():
                return node.id
            case ast.VaultRef():
                return f"vault://{node.path}"

    def _string(self, node: ast.String) -> str:
        if self._source is not None and node.span.end:
            return self._source[node.span.start : node.span.end]
        return f'"{node.value.translate(_ESCAPES)}"'

    def _array(self, node: ast.Array) -> Doc:
        items: list[Doc] = []
        for item in node.items:
            items.append(self.expression(item))  # noqa: PERF401 - a comprehension costs a frame a level
        return self.listed("[", "]", items, self.notes(node))

    def _record(self, node: ast.Record) -> Doc:
        fields: list[Doc] = []
        for field in node.fields:
            plain = not field.quoted and _IDENTIFIER.match(field.key)
            key = field.key if plain else '"' + field.key.translate(_ESCAPES).replace("\n", "\\n") + '"'
            fields.append(concat(key, ": ", self.expression(field.value)))
        return self.listed(f"{node.type} {{" if node.type else "{", "}", fields, self.notes(node), pad=True)

    def _unary(self, node: ast.Unary, where: Where) -> Doc:
        operators: list[str] = []
        operand: ast.Expr = node
        while isinstance(operand, ast.Unary):
            operators.append("not " if operand.op == "not" else operand.op)
            operand = operand.operand
        return concat(*operators, self.expression(operand, where._replace(start=""), _UNARY))

    def _binary(self, node: ast.Binary, where: Where) -> Doc:
        binding = BINARY[node.op]
        links: list[tuple[str, ast.Expr]] = []
        first: ast.Expr = node
        while isinstance(first, ast.Binary) and BINARY[first.op] == binding:
            links.append((first.op, first.right))
            first = first.left
        parts: list[Doc] = []
        for op, operand in links:
            inner = Where(where.tail and not parts, where.brace)
            parts.append(concat(LINE, op, " ", self.expression(operand, inner, binding + 1)))
        left = self.expression(first, where._replace(tail=False), binding)
        return group(left, nest(*reversed(parts)))

    def _lambda(self, node: ast.Lambda, where: Where) -> Doc:
        return concat(node.parameter, " => ", self.expression(node.body, Where(brace=where.brace)))

    def _chain(self, node: ast.Member | ast.Index | ast.Call, where: Where) -> Doc:
        """`.name`, `(…)` and `[…]` after an operand."""
        links: list[ast.Member | ast.Index | ast.Call] = []
        base: ast.Expr = node
        while isinstance(base, ast.Member | ast.Index | ast.Call):
            links.append(base)
            base = base.callee if isinstance(base, ast.Call) else base.object
        links.reverse()
        left = self.expression(base, where._replace(tail=False), _POSTFIX)
        if isinstance(base, ast.Number | ast.VaultRef) and isinstance(links[0], ast.Member):
            left = concat("(", left, ")")
        methods = sum(isinstance(link, ast.Call) and isinstance(link.callee, ast.Member) for link in links)
        edge: Doc = SOFT if methods >= CHAINED_CALLS else ""
        parts: list[Doc] = []
        for link in links:
            if isinstance(link, ast.Member):
                parts.append(f".{link.name}")
            elif isinstance(link, ast.Index):
                parts.append(concat("[", self.expression(link.index), "]"))
            else:
                docs: list[Doc] = []
                for argument in link.arguments:
                    value = self.expression(argument.value)
                    docs.append(value if argument.name is None else concat(f"{argument.name} = ", value))
                arguments = self._arguments(link, docs)
                if isinstance(link.callee, ast.Member):
                    parts[-1] = concat(edge, parts[-1], arguments)
                else:
                    parts.append(arguments)
        return group(left, nest(*parts)) if edge else concat(left, *parts)

    def _arguments(self, call: ast.Call, docs: Sequence[Doc]) -> Doc:
        notes = self.notes(call)
        if notes is None and docs and _hugs(call.arguments, docs):
            return concat("(", join((", ",), docs), ")")
        return self.listed("(", ")", docs, notes, comma=False)

    def _if_value(self, node: ast.If) -> Doc:
        """An `if` as a value: on one line where its blocks hold nothing but a value, and it fits."""
        parts: list[Doc] = []
        link: ast.Block | ast.If | None = node
        while isinstance(link, ast.If):
            parts += ["if ", nest(self.expression(link.condition, IF_HEAD)), " ", self._value_block(link.then)]
            link = link.orelse
            if link is not None:
                parts.append(" else ")
        if link is not None:
            parts.append(self._value_block(link))
        return group(*parts)

    def _value_block(self, block: ast.Block) -> Doc:
        if block.statements or block.value is None or self.notes(block) is not None:
            return self.block(block)
        if isinstance(block.value, ast.If):
            return Deferred(lambda: self.block(block))
        return concat("{", nest(LINE, self.expression(block.value, STATEMENT)), LINE, "}")

    def listed(
        self,
        opener: str,
        closer: str,
        items: Sequence[Doc],
        notes: Notes | None,
        *,
        pad: bool = False,
        comma: bool = True,
    ) -> Doc:
        """Items between brackets, apart by commas: on one line, or one a line.

        Args:
            opener: The opening bracket.
            closer: The closing one.
            items: What stands between them.
            notes: Comments; they break the list.
            pad: Whether a space stands inside of the brackets on one line.
            comma: Whether a comma may follow the last item.
        """
        if notes is None:
            if not items:
                return opener + closer
            edge = LINE if pad else SOFT
            last = IfBroken("," if comma else "")
            return group(opener, nest(edge, join((",", LINE), items), last), edge, closer)
        parts: list[Doc] = []
        for index, item in enumerate(items):
            parts.extend(_own_lines(notes.above(index)))
            parts += [HARD, item, "," if comma or index + 1 < len(items) else "", beside(notes.after.get(index))]
        parts.extend(_own_lines(notes.above(len(items))))
        return concat(opener, beside(notes.opening), nest(*parts), HARD, closer)


def beside(note: Note | None) -> Doc:
    """A comment behind something, or nothing."""
    return Aside(f" {note.text}") if note else ""


def _own_lines(notes: Sequence[Note]) -> list[Doc]:
    return [part for note in notes for part in (HARD, note.text)]


def _needs_parentheses(node: ast.Expr, where: Where, binding: int) -> bool:
    match node:
        case ast.Binary():
            return BINARY[node.op] < binding
        case ast.Unary():
            return binding > _UNARY
        case ast.Lambda():
            return not where.tail or _is_taken(node.parameter, where)
        case ast.Record(type=str() as name):
            return not where.brace or _is_taken(name, where)
        case ast.Record():
            return not node.fields and where.start == "arm"
        case ast.If():
            return where.start == "statement"
        case _:
            return False


def _is_taken(word: str, where: Where) -> bool:
    """Whether a word that begins an expression would be read as a keyword."""
    return (where.start == "statement" and word in STATEMENT_WORDS) or (where.start == "if" and word == "let")


def _hugs(arguments: Sequence[ast.Argument], docs: Sequence[Doc]) -> bool:
    """Whether the brackets of the last argument stand close to those of the call."""
    value = arguments[-1].value
    before = sum(len(doc) if isinstance(doc, str) and "\n" not in doc else HUGGED_CHARACTERS + 1 for doc in docs[:-1])
    if before > HUGGED_CHARACTERS:
        return False
    match value:
        case ast.Array():
            return bool(value.items)
        case ast.Record():
            return bool(value.fields)
        case ast.Lambda():
            return True
        case _:
            return False
