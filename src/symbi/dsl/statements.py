"""Statements and blocks."""

from collections.abc import Callable
from typing import Final

from symbi.dsl import ast
from symbi.dsl.expressions import Expressions, is_complete
from symbi.dsl.lexer import Kind, Token

ASSIGNMENT: Final = frozenset({"=", "+=", "-=", "*=", "/=", "%="})
"""Operators of an assignment."""

STATEMENT_WORDS: Final = frozenset({"let", "return", "if", "for", "match", "try", "else", "catch"})
"""Words that are no names where a statement begins."""


class Statements(Expressions):
    """Reads statements."""

    def body(self) -> ast.Block:
        """Reads the block of a function or of `with`, where counting of levels begins."""
        depth, self._depth = self._depth, -1
        block = self.block()
        self._depth = depth
        return block

    def block(self) -> ast.Block:
        """Reads `{ statement* [expr] }`."""
        self.enter()
        opener = self.expect("{")
        statements: list[ast.Statement] = []
        value: ast.Expr | None = None
        while not self.at("}"):
            start = self.token
            if start.kind is Kind.END:
                self.close("}", opener)
            if start.text == "if":
                node = self.if_()
                complete = is_complete(node)
                if complete and self.at("}"):
                    value = node
                    break
                if complete:
                    self.accept(";")
                statements.append(ast.ExprStatement(node, span=self.span(start)))
                continue
            read = self._keyword()
            if read is not None:
                statements.append(read())
                continue
            self._check_start(start)
            node_or_value = self.expression()
            if self.at("}"):
                value = node_or_value
                break
            statements.append(self._finish(start, node_or_value))
        self.close("}", opener)
        self.leave()
        return ast.Block(tuple(statements), value, span=self.span(opener))

    def _keyword(self) -> Callable[[], ast.Statement] | None:
        """The method that reads the statement whose word stands here."""
        text = self.token.text
        if text == "let":
            return self._let
        if text == "return":
            return self._return
        if text == "for":
            return self._for
        if text == "match":
            return self._match
        if text == "try":
            return self._try
        return None

    def _check_start(self, start: Token) -> None:
        """Says more than the expression could about what cannot begin a statement."""
        if start.text == "{" and not self.at_record():
            raise self.wrong("a statement", "a block cannot stand alone; put its statements here")
        if start.text in {"else", "catch"}:
            raise self.wrong("a statement", f"there is no `{'if' if start.text == 'else' else 'try'}` right before it")
        if start.text == ";":
            raise self.wrong("a statement", "one `;` at most, and none after a block")
        if start.text == "." and self.before.text == "}":
            raise self.wrong("a statement", "to use the value of an `if` further, put the `if` into parentheses")

    def _finish(self, start: Token, node: ast.Expr) -> ast.Statement:
        """Reads the rest of a statement that begins with an expression."""
        if self.token.text in ASSIGNMENT:
            if not isinstance(node, ast.Name | ast.Member | ast.Index) or self.before.text == ")":
                raise self.wrong("`;`", "only a name, a member or an item can be assigned to")
            operator = self.advance()
            value = self.expression()
            self._semicolon()
            return ast.Assign(node, operator.text, value, span=self.span(start))
        if self.at(":"):
            raise self.wrong("`;`", "a record of a type, in the head of `if`, `for` or `match`, stands in parentheses")
        self._semicolon()
        return ast.ExprStatement(node, span=self.span(start))

    def _semicolon(self) -> None:
        if not self.accept(";"):
            raise self.wrong("`;`", self.hint() or "a statement ends with `;`")

    def _let(self) -> ast.Let:
        start = self.advance()
        name = self.word("a name after `let`")
        self.expect("=", self.hint() or "a variable has a value and no type: `let x = 1;`")
        value = self.expression()
        self._semicolon()
        return ast.Let(name.text, value, span=self.span(start))

    def _return(self) -> ast.Return:
        start = self.advance()
        value = None if self.at(";") or self.at("}") else self.expression()
        self._semicolon()
        return ast.Return(value, span=self.span(start))

    def _for(self) -> ast.For:
        start = self.advance()
        name = self.word("a name after `for`", "write `for x in xs { … }`")
        self.expect("in", "write `for x in xs { … }`")
        iterable = self.expression(brace=False)
        body = self.block()
        return ast.For(name.text, iterable, body, span=self.span(start))

    def _match(self) -> ast.Match:
        start = self.advance()
        subject = self.expression(brace=False)
        opener = self.expect("{")
        arms: list[ast.Arm] = []
        while not self.at("}"):
            first = self.token
            if first.kind is Kind.END:
                self.close("}", opener)
            pattern = self.pattern()
            self.expect("=>", "an arm is a pattern, `=>`, and an expression or a block")
            body: ast.Expr | ast.Block
            if self.at("{") and (self.peek().text == "}" or not self.at_record()):
                body = self.block()
            else:
                self._check_arm()
                body = self.expression()
            arms.append(ast.Arm(pattern, body, span=self.span(first)))
            if self.at(";"):
                raise self.wrong("`,` or the next arm", "arms of a match stand apart by `,`")
            self.accept(",")
        self.close("}", opener)
        return ast.Match(subject, tuple(arms), span=self.span(start))

    def _check_arm(self) -> None:
        """Says that a statement stands in a block, where one begins the body of an arm."""
        following = self.peek()
        is_statement = following.text == ";" or (following.kind is not Kind.SYMBOL and self.peek(2).text != "=>")
        if self.token.text in STATEMENT_WORDS - {"if"} and is_statement:
            raise self.wrong("an expression or a block", "a statement stands in a block: `=> { … }`")

    def _try(self) -> ast.Try:
        start = self.advance()
        body = self.block()
        catches: list[ast.Catch] = []
        while self.at("catch"):
            first = self.advance()
            opener = self.expect("(", "write `catch (e) { … }` or `catch (Kind e) { … }`")
            names = [self.word("a name for the error").text]
            if self.token.kind is Kind.WORD:
                names.append(self.advance().text)
            self.close(")", opener, "write `catch (e) { … }` or `catch (Kind e) { … }`")
            handler = self.block()
            kind = names[0] if len(names) > 1 else None
            catches.append(ast.Catch(names[-1], handler, kind, span=self.span(first)))
        if self.at("finally"):
            raise self.wrong("a statement", "there is no `finally`")
        return ast.Try(body, tuple(catches), span=self.span(start))
