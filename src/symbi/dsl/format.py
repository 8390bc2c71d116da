"""The canonical form of an agent file: four spaces, one statement a line, comments kept.

Formatting changes nothing but white space, optional separators and needless parentheses: the tree stays the same, every
comment stays, and what is formatted once stays as it is.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from symbi.dsl import ast
from symbi.dsl.comments import Key, Note, Notes, block_elements, place_comments
from symbi.dsl.expressions import is_complete
from symbi.dsl.format_expressions import ARM, HEAD, IF_HEAD, STATEMENT, ExpressionPrinter, beside
from symbi.dsl.layout import HARD, LINE, Deferred, Doc, IfBroken, concat, group, join, nest, render
from symbi.dsl.parser import parse

LINE_WIDTH: Final = 100
"""Columns that a line holds where it can be broken."""

_BLANK_LINE: Final = re.compile(r"\n[ \t\r\f\v]*\n")


def format_text(text: str, file: str) -> str:
    """Brings an agent file into its canonical form.

    Strings keep their spelling, and blank lines between statements, rules and entries are kept, at most one in a row.

    Args:
        text: The whole file.
        file: Its name, for places in errors.

    Raises:
        DslError: The text is no agent file.
    """
    tree = parse(text, file)
    return _print(tree, text)


def print_file(file: ast.File) -> str:
    """Prints a tree in the canonical form, from its values alone; comments stand where their spans say.

    The tree may not be deeper than the parser would read.
    """
    return _print(file, None)


def _print(file: ast.File, source: str | None) -> str:
    placed = place_comments(file, source) if file.comments else {}
    return render(_Printer(source, placed).file(file), LINE_WIDTH)


class _Printer(ExpressionPrinter):
    """Makes documents of statements and declarations."""

    def __init__(self, source: str | None, placed: Mapping[Key, Notes]) -> None:
        super().__init__(source, placed)
        self._shown: dict[type, Callable[[Any], Doc]] = {
            ast.Let: lambda node: concat(f"let {node.name} = ", self.expression(node.value), ";"),
            ast.Assign: self._assign,
            ast.Return: self._return,
            ast.ExprStatement: self._expression_statement,
            ast.For: self._for,
            ast.Match: self._match,
            ast.Try: self._try,
            ast.Metadata: lambda node: self._braced("metadata ", node, node.entries),
            ast.Agent: self._agent,
            ast.Policy: lambda node: self._braced(f"policy {node.name} ", node, node.rules),
            ast.Rule: self._rule,
            ast.Capabilities: self._capabilities,
            ast.Function: self._function,
            ast.With: self._with,
            ast.TypeAliasDecl: self._type,
            ast.Schedule: lambda node: self._braced(f"schedule {node.name} ", node, node.entries),
            ast.Channel: lambda node: self._braced(f"channel {node.name} ", node, node.items),
            ast.Classification: self._classification,
            ast.Memory: lambda node: self._spaced(f"memory {node.name} ", node, node.items),
            ast.Webhook: lambda node: self._spaced(f"webhook {node.name} ", node, node.items),
            ast.Section: lambda node: self._spaced(f"{node.name} ", node, node.entries),
            ast.Entry: self._entry,
        }

    def file(self, file: ast.File) -> Doc:
        """The whole text, with a line break at its end; nothing for nothing."""
        spans = [declaration.span for declaration in file.declarations]
        docs = [self._shown[type(declaration)](declaration) for declaration in file.declarations]
        lines = self._lines(spans, docs, self.notes(file), frozenset(range(len(docs))))
        return concat(*lines[1:], HARD) if lines else ""

    # --- what stands on lines of its own ----------------------------------------------------------

    def _lines(
        self, spans: Sequence[ast.Span], docs: Sequence[Doc], notes: Notes | None, apart: frozenset[int] = frozenset()
    ) -> list[Doc]:
        """Elements and comments, each after a line break.

        Args:
            spans: Where the elements stood.
            docs: The elements.
            notes: The comments in this list.
            apart: The elements before and after which a blank line stands in any case.
        """
        lines: list[Doc] = []
        end = -1  # of what was put last; -1 at the start, where no blank line stands
        was_apart = False

        def put(doc: Doc, start: int, *, is_apart: bool) -> None:
            if lines and (is_apart or self._is_blank(end, start)):
                lines.append(HARD)
            lines.extend((HARD, doc))

        for index in range(len(docs) + 1):
            above: Sequence[Note] = notes.above(index) if notes else ()
            wants_gap = was_apart or index in apart
            for note in above:
                put(note.text, note.start, is_apart=wants_gap)
                wants_gap, end = False, note.end
            if index == len(docs):
                break
            put(docs[index], spans[index].start, is_apart=wants_gap)
            end, was_apart = spans[index].end, index in apart
            after = notes.after.get(index) if notes else None
            if after:
                lines.append(beside(after))
                end = after.end
        return lines

    def _is_blank(self, start: int, end: int) -> bool:
        """Whether the source has a blank line between two offsets."""
        return self._source is not None and _BLANK_LINE.search(self._source, start, end) is not None

    def _braces(
        self, spans: Sequence[ast.Span], docs: Sequence[Doc], notes: Notes | None, apart: frozenset[int] = frozenset()
    ) -> Doc:
        if not docs and notes is None:
            return "{}"
        opening = beside(notes.opening if notes else None)
        return concat("{", opening, nest(*self._lines(spans, docs, notes, apart)), HARD, "}")

    def _braced(self, head: str, node: ast.Node, elements: Sequence[ast.Node]) -> Doc:
        docs = [self._shown[type(element)](element) for element in elements]
        apart = frozenset(
            index
            for index, element in enumerate(elements)
            if isinstance(element, ast.Policy | ast.Function | ast.With | ast.Classification)
        )
        return concat(head, self._braces([element.span for element in elements], docs, self.notes(node), apart))

    def _spaced(self, head: str, node: ast.Node, elements: Sequence[ast.Entry | ast.Section]) -> Doc:
        docs = [
            concat(f"{element.key} ", self.expression(element.value))
            if isinstance(element, ast.Entry)
            else self._shown[ast.Section](element)
            for element in elements
        ]
        return concat(head, self._braces([element.span for element in elements], docs, self.notes(node)))

    # --- statements -------------------------------------------------------------------------------

    def block(self, block: ast.Block) -> Doc:
        """A block over several lines, or `{}`; its inside is made when it is its turn."""
        if not block.statements and block.value is None and self.notes(block) is None:
            return "{}"
        return Deferred(lambda: self._block(block))

    def _block(self, block: ast.Block) -> Doc:
        docs: list[Doc] = []
        for index, statement in enumerate(block.statements):
            doc = self._shown[type(statement)](statement)
            is_last = index + 1 == len(block.statements) and block.value is None
            if isinstance(statement, ast.ExprStatement) and isinstance(statement.value, ast.If):
                doc = concat(doc, ";" if is_last and is_complete(statement.value) else "")
            docs.append(doc)
        value = block.value
        if value is not None:
            docs.append(self._if(value) if isinstance(value, ast.If) else self.expression(value, STATEMENT))
        spans = [element.span for element in block_elements(block)]
        return self._braces(spans, docs, self.notes(block))

    def _assign(self, node: ast.Assign) -> Doc:
        return concat(self.expression(node.target, STATEMENT), f" {node.op} ", self.expression(node.value), ";")

    def _return(self, node: ast.Return) -> Doc:
        return "return;" if node.value is None else concat("return ", self.expression(node.value), ";")

    def _expression_statement(self, node: ast.ExprStatement) -> Doc:
        if isinstance(node.value, ast.If):
            return self._if(node.value)
        return concat(self.expression(node.value, STATEMENT), ";")

    def _if(self, node: ast.If) -> Doc:
        parts: list[Doc] = []
        link: ast.Block | ast.If | None = node
        while isinstance(link, ast.If):
            head = "if " if link.pattern is None else f"if let {self._pattern(link.pattern)} = "
            where = IF_HEAD if link.pattern is None else HEAD
            parts += [head, nest(self.expression(link.condition, where)), " ", self.block(link.then)]
            link = link.orelse
            if link is not None:
                parts.append(" else ")
        if link is not None:
            parts.append(self.block(link))
        return concat(*parts)

    def _for(self, node: ast.For) -> Doc:
        iterable = nest(self.expression(node.iterable, HEAD))
        return concat(f"for {node.name} in ", iterable, " ", self.block(node.body))

    def _match(self, node: ast.Match) -> Doc:
        head = concat("match ", nest(self.expression(node.subject, HEAD)), " ")
        notes = self.notes(node)
        if not node.arms and notes is None:
            return concat(head, "{}")
        return concat(head, Deferred(lambda: self._arms(node)))

    def _arms(self, node: ast.Match) -> Doc:
        docs: list[Doc] = []
        for arm in node.arms:
            head = f"{self._pattern(arm.pattern)} => "
            if isinstance(arm.body, ast.Block):
                docs.append(concat(head, self.block(arm.body)))
            else:
                docs.append(concat(head, self.expression(arm.body, ARM), ","))
        return self._braces([arm.span for arm in node.arms], docs, self.notes(node))

    def _pattern(self, pattern: ast.Pattern) -> str:
        return "_" if isinstance(pattern, ast.Wildcard) else self.leaf(pattern)

    def _try(self, node: ast.Try) -> Doc:
        parts: list[Doc] = ["try ", self.block(node.body)]
        for catch in node.catches:
            kind = f"{catch.kind} " if catch.kind is not None else ""
            parts += [f" catch ({kind}{catch.name}) ", self.block(catch.body)]
        return concat(*parts)

    # --- declarations -----------------------------------------------------------------------------

    def _entry(self, node: ast.Entry) -> Doc:
        return concat(f"{node.key} = ", self.expression(node.value))

    def _agent(self, node: ast.Agent) -> Doc:
        has_parens = node.has_parens or node.parameters
        head = concat(f"agent {node.name}", self._parameters(node) if has_parens else "", _returns(node.returns), " ")
        return concat(head, self._braced("", node, node.items))

    def _function(self, node: ast.Function) -> Doc:
        head = concat(f"function {node.name}", self._parameters(node), _returns(node.returns), " ")
        return concat(head, self.block(node.body))

    def _parameters(self, node: ast.Agent | ast.Function) -> Doc:
        docs = [f"{parameter.name}: {_type_text(parameter.type)}" for parameter in node.parameters]
        return self.listed("(", ")", docs, self.notes(node, head=True))

    def _with(self, node: ast.With) -> Doc:
        docs = [self._entry(attribute) for attribute in node.attributes]
        notes = self.notes(node, head=True)
        if notes is not None:
            lines = self.listed("with", "", docs, notes)
            return concat(lines, self.block(node.body))
        if not docs:
            return concat("with ", self.block(node.body))
        head = group("with", nest(LINE, join((",", LINE), docs), IfBroken(",")), LINE)
        return concat(head, self.block(node.body))

    def _capabilities(self, node: ast.Capabilities) -> Doc:
        docs = [self.leaf(item) for item in node.items]
        return concat("capabilities = ", self.listed("[", "]", docs, self.notes(node)))

    def _rule(self, node: ast.Rule) -> Doc:
        subject = self.expression(node.subject)
        if node.guard is None:
            return concat(f"{node.effect}: ", subject)
        guard = nest(LINE, "if ", self.expression(node.guard))
        return group(f"{node.effect}: ", subject, guard)

    def _type(self, node: ast.TypeAliasDecl) -> Doc:
        head = f"type {node.name} = "
        if node.target is not None:
            return head + node.target
        docs = [f"{field.name}: {_type_text(field.type)}," for field in node.fields]
        return concat(head, self._braces([field.span for field in node.fields], docs, self.notes(node)))

    def _classification(self, node: ast.Classification) -> Doc:
        docs = [f"{name}: {treatment}" for name, treatment in node.entries]
        spans = node.places or [node.span] * len(docs)
        return concat("data_classification ", self._braces(spans, docs, self.notes(node)))


def _type_text(node: ast.TypeRef) -> str:
    if not node.arguments:
        return node.name
    texts: list[str] = []
    for argument in node.arguments:
        texts.append(_type_text(argument))  # noqa: PERF401 - a comprehension costs a frame a level
    return f"{node.name}<{', '.join(texts)}>"


def _returns(node: ast.TypeRef | None) -> str:
    return "" if node is None else f" -> {_type_text(node)}"
