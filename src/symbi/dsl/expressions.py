"""Expressions and the values that settings take.

One method call reads a whole run of operators, so that nesting costs two Python frames a level and 256 levels fit the
interpreter's default recursion limit.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Final

from symbi.dsl import ast
from symbi.dsl.ast import Span
from symbi.dsl.cursor import Cursor
from symbi.dsl.lexer import Kind, Token, unescape

BINARY: Final = {
    "||": 1,
    "&&": 2,
    "==": 3,
    "!=": 3,
    "in": 3,
    "<": 4,
    ">": 4,
    "<=": 4,
    ">=": 4,
    "+": 5,
    "-": 5,
    "*": 6,
    "/": 6,
    "%": 6,
}
"""Binary operators and how tightly they bind; all associate to the left."""

PREFIX: Final = frozenset({"!", "not", "-"})
"""Unary operators; they bind tighter than any binary one."""

EXPRESSION_WORDS: Final = frozenset({"if", "not", "true", "false"})
"""Words that are no names where an expression begins."""

_OPERAND_HINTS: Final = {
    "+": "there is no unary plus and no `++`",
    "*": "there is no `**`",
    ".": "a number begins with a digit",
    "=": "compare with `==`",
    "=>": "a lambda has one parameter, without parentheses: `x => …`",
    "->": "the body of a lambda follows `=>`",
    ")": "a lambda has one parameter: `x => …`",
}

_COMMA_HINT: Final = "one comma at most, and none after the last argument of a call"


class Expressions(Cursor, ABC):
    """Reads expressions."""

    def __init__(self, tokens: Sequence[Token], file: str) -> None:
        super().__init__(tokens, file)
        self._nesting: dict[str, Callable[[], ast.Expr]] = {
            "(": self._parentheses,
            "[": self.array,
            "{": self.record,
            "if": self._if_value,
        }

    @abstractmethod
    def block(self) -> ast.Block:
        """Reads `{ … }` with statements."""

    def expression(self, *, brace: bool = True) -> ast.Expr:
        """Reads an expression.

        Args:
            brace: Whether `Name {` begins a record; not so in the head of `if`, `for` and `match`, where the brace
                opens the block.
        """
        operands: list[tuple[ast.Expr, Span]] = []
        operators: list[str] = []
        while True:
            prefixes: list[Token] = []
            while self.token.text in PREFIX:
                prefixes.append(self.advance())
            start = self.token
            if self._at_lambda():
                operand: ast.Expr = self._lambda(brace=brace)
            elif start.text in self._nesting:
                operand = self._nesting[start.text]()
            else:
                operand = self._plain()
                if brace and isinstance(operand, ast.Name) and self.at("{"):
                    operand = self.record(start)
            if self.token.text in _POSTFIX:
                operand = self._postfix(operand, start)
            for prefix in reversed(prefixes):
                operand = ast.Unary(prefix.text, operand, span=self.span(prefix))
            operands.append((operand, self.span(prefixes[0] if prefixes else start)))
            binding = self._binding()
            while operators and BINARY[operators[-1]] >= binding:
                right, right_span = operands.pop()
                left, left_span = operands.pop()
                span = Span(left_span.line, left_span.column, left_span.start, right_span.end)
                operands.append((ast.Binary(operators.pop(), left, right, span=span), span))
            if not binding:
                return operands[0][0]
            operators.append(self.advance().text)

    def _binding(self) -> int:
        """How tightly the current token binds as a binary operator; 0 if it is none."""
        if self.token.kind is Kind.WORD and self.peek().text == ":":
            return 0  # a key of a record, after a value without a comma
        return BINARY.get(self.token.text, 0)

    def _at_lambda(self) -> bool:
        token = self.token
        return token.kind is Kind.WORD and self.peek().text == "=>" and token.text not in EXPRESSION_WORDS

    def _plain(self) -> ast.Expr:
        """Reads a literal, a name or a vault reference."""
        token = self.token
        if token.kind is Kind.SYMBOL or token.kind is Kind.END:
            after_comma = token.text in {",", ")", "]", "}"} and self.before.text == ","
            raise self.wrong("an expression", _COMMA_HINT if after_comma else _OPERAND_HINTS.get(token.text, ""))
        if token.kind is Kind.VAULT:
            self.advance()
            return ast.VaultRef(token.text.removeprefix("vault://"), span=token.span)
        return self.value()

    def _parentheses(self) -> ast.Expr:
        self.enter()
        opener = self.advance()
        inner = self.expression()
        hint = "a lambda has one parameter, and there are no tuples; a list is `[a, b]`" if self.at(",") else ""
        self.close(")", opener, hint)
        self.leave()
        return inner

    def array(self) -> ast.Array:
        """Reads `[a, b]`; a comma may follow the last item."""
        self.enter()
        opener = self.advance()
        items: list[ast.Expr] = []
        while not self.at("]"):
            items.append(self.expression())
            if not self.accept(","):
                break
        self.close("]", opener, "items of an array stand apart by commas")
        self.leave()
        return ast.Array(tuple(items), span=self.span(opener))

    def at_record(self) -> bool:
        """Whether the `{` here opens a record: `{}`, or a key with `:`."""
        key = self.peek()
        return key.text == "}" or (key.kind in {Kind.WORD, Kind.STRING} and self.peek(2).text == ":")

    def record(self, name: Token | None = None) -> ast.Record:
        """Reads `{ a: 1, "b": 2 }`; commas may be left out. `name` is the type before it, if there is one."""
        if self.peek().kind is Kind.WORD and self.peek(2).text not in {":", "=", ",", "}", ""}:
            raise self.wrong("an expression", "a `{` opens a record here, and no block")
        self.enter()
        opener = self.advance()
        fields: list[ast.Field] = []
        seen: set[str] = set()
        while not self.at("}"):
            start = self.token
            if start.kind not in {Kind.WORD, Kind.STRING}:
                self.close("}", opener, "a key is a name or a string, with `:` after it; one comma at most")
            quoted = start.kind is Kind.STRING
            key = unescape(start.text) if quoted else start.text
            self.once(seen, key, start)
            self.advance()
            self.expect(":", "a key of a record and its value stand apart by `:`")
            value = self.expression()
            fields.append(ast.Field(key, value, quoted, span=self.span(start)))
            self.accept(",")
        self.close("}", opener)
        self.leave()
        return ast.Record(tuple(fields), name.text if name else None, span=self.span(name or opener))

    def _lambda(self, *, brace: bool) -> ast.Lambda:
        self.enter()
        start = self.advance()
        self.advance()
        body = self.expression(brace=brace)
        self.leave()
        return ast.Lambda(start.text, body, span=self.span(start))

    def _if_value(self) -> ast.If:
        self.enter()
        node = self.if_()
        self.leave()
        if not is_complete(node):
            hint = "an `if` that gives a value needs `else`"
            if node.pattern is not None:
                hint = "`if let` is a statement and gives no value"
            raise self.wrong("`else`", hint)
        return node

    def if_(self) -> ast.If:
        """Reads an `if` with all that belongs to it; a chain of `else if` is read without recursion."""
        links: list[tuple[Token, ast.Expr, ast.Block, ast.Pattern | None]] = []
        orelse: ast.Block | None = None
        while True:
            start = self.advance()
            pattern = self._let_pattern(is_first=not links) if self.at("let") else None
            condition = self.expression(brace=False)
            links.append((start, condition, self.block(), pattern))
            if pattern is not None and self.at("else"):
                raise self.wrong("the end of `if let`", "an `if let` has no `else`; use `match` with `_`")
            if not self.accept("else"):
                break
            if not self.at("if"):
                orelse = self.block()
                break
        node: ast.Block | ast.If | None = orelse
        for start, condition, then, pattern in reversed(links):
            node = ast.If(condition, then, node, pattern, span=self.span(start))
        assert isinstance(node, ast.If)
        return node

    def _let_pattern(self, *, is_first: bool) -> ast.Pattern:
        if not is_first:
            raise self.wrong("a condition", "an `if let` stands alone; put it into a block: `else { if let … }`")
        self.advance()
        pattern = self.pattern()
        self.expect("=", "write `if let PATTERN = … { … }`")
        return pattern

    def _postfix(self, node: ast.Expr, start: Token) -> ast.Expr:
        """Reads `.name`, `(…)` and `[…]` after an operand."""
        while True:
            opener = self.token
            if self.accept("."):
                name = self.word("a name after `.`")
                node = ast.Member(node, name.text, span=self.span(start))
            elif self.at("["):
                self.enter()
                self.advance()
                index = self.expression()
                self.close("]", opener, "an index is one expression")
                self.leave()
                node = ast.Index(node, index, span=self.span(start))
            elif self.at("("):
                self.enter()
                self.advance()
                arguments: list[ast.Argument] = []
                names: set[str] = set()
                while not (self.at(")") and not arguments):
                    first = self.token
                    name_given = self._argument_name(names)
                    value = self.expression()
                    arguments.append(ast.Argument(value, name_given, span=self.span(first)))
                    if not self.accept(","):
                        break
                self.close(")", opener, "arguments of a call stand apart by commas")
                self.leave()
                node = ast.Call(node, tuple(arguments), span=self.span(start))
            else:
                return node

    def _argument_name(self, names: set[str]) -> str | None:
        token = self.token
        if token.kind is not Kind.WORD or self.peek().text not in {"=", ":"}:
            return None
        self.once(names, token.text, token)
        self.advance()
        self.advance()
        return token.text

    def pattern(self) -> ast.Pattern:
        """Reads what a match arm or an `if let` compares with."""
        token = self.token
        if token.text == "_":
            self.advance()
            return ast.Wildcard(span=token.span)
        if token.kind in {Kind.STRING, Kind.NUMBER, Kind.WORD}:
            value = self.value()
            if isinstance(value, ast.String | ast.Number | ast.Boolean | ast.Name):
                return value
        hint = "a number in a pattern has no sign" if token.text == "-" else ""
        raise self.wrong("a pattern (string, number, boolean, `_` or name)", hint)

    def value(self, hint: str = "", also: str = "") -> ast.String | ast.Number | ast.Duration | ast.Boolean | ast.Name:
        """Reads a value as settings take it: no operators, no member path, no vault reference.

        Args:
            hint: What to say if there is none.
            also: What else the caller would have taken, for the message.
        """
        token = self.token
        if token.kind is Kind.WORD:
            self.advance()
            if token.text in {"true", "false"}:
                return ast.Boolean(token.text == "true", span=token.span)
            return ast.Name(token.text, span=token.span)
        if token.kind is Kind.STRING:
            self.advance()
            return ast.String(unescape(token.text), span=token.span)
        if token.kind is Kind.NUMBER:
            self.advance()
            return ast.Number(number_value(token.text), token.text, span=token.span)
        if token.kind is Kind.DURATION:
            self.advance()
            digits = len(token.text) - len(token.text.lstrip("0123456789"))
            unit = token.text[digits:].removeprefix(".")
            return ast.Duration(int(token.text[:digits]), unit, span=token.span)
        expected = f"a value (string, number, duration, boolean, name{also})"
        raise self.wrong(expected, _VALUE_HINTS.get(token.kind) or hint or _VALUE_TEXT_HINTS.get(token.text, ""))


_POSTFIX: Final = frozenset({".", "[", "("})

_VALUE_HINTS: Final = {Kind.VAULT: "a vault reference stands in an expression only"}

_VALUE_TEXT_HINTS: Final = {
    "-": "a minus sign stands in an expression only",
    "[": "no array is allowed here",
    "{": "no record is allowed here",
}


def number_value(text: str) -> int | float:
    """The value of a number as written: a float where it has a fraction, else an int."""
    digits = text.replace("_", "")
    return float(digits) if "." in digits else int(digits)


def is_complete(node: ast.If) -> bool:
    """Whether an `if` has an `else` on every way, so that it gives a value."""
    link: ast.Block | ast.If | None = node
    while isinstance(link, ast.If):
        link = link.orelse
    return link is not None
