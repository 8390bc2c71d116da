"""A cursor over tokens: what every part of the parser reads with, and how it says what it expected."""

from collections.abc import Sequence
from typing import Final

from symbi.dsl.ast import Span
from symbi.dsl.lexer import Kind, Token
from symbi.dsl.walk import MAX_NESTING, NESTING_HINT
from symbi.errors import DslError

_FOUND_HINTS: Final = {
    "and": "write `&&`",
    "or": "write `||`",
    "is": "write `==`",
    "not": "write `!(a in b)`",
}
"""What to say about a token that stands where it cannot, by its text."""

_AFTER_HINTS: Final = {
    "elif": "write `else if`",
    "elsif": "write `else if`",
    "elseif": "write `else if`",
    "while": "there is no `while`; use `for` over something that ends",
    "loop": "there is no `loop`; use `for` over something that ends",
    "match": "`match` is a statement and has no value",
    "try": "`try` is a statement and has no value",
    "for": "`for` is a statement and has no value",
    "return": "`return` is a statement of its own",
    "let": "`let` is a statement of its own",
    "var": "write `let`",
    "const": "write `let`",
    "mut": "every variable can be assigned to; leave `mut` out",
    "await": "calls wait by themselves; leave `await` out",
    "new": "leave `new` out",
    "fn": "functions are declared outside of a block, with `function`",
    "def": "functions are declared outside of a block, with `function`",
    "function": "functions are declared outside of a block",
    "policy": "policies are declared outside of a block",
    "throw": "an agent cannot raise errors of its own; return a value",
    "raise": "an agent cannot raise errors of its own; return a value",
}
"""What to say where the token *before* the wrong one is a word that has no meaning there."""


class Cursor:
    """Reads a list of tokens from left to right."""

    def __init__(self, tokens: Sequence[Token], file: str) -> None:
        self._tokens = tokens
        self._index = 0
        self._file = file
        self._depth = 0
        self.token = tokens[0]

    def advance(self) -> Token:
        """Takes the current token; the end of the file is never passed."""
        token = self.token
        if token.kind is not Kind.END:
            self._index += 1
            self.token = self._tokens[self._index]
        return token

    def peek(self, ahead: int = 1) -> Token:
        """A token further on, without taking any."""
        return self._tokens[min(self._index + ahead, len(self._tokens) - 1)]

    @property
    def before(self) -> Token:
        """The token that was taken last."""
        return self._tokens[max(self._index - 1, 0)]

    def at(self, text: str) -> bool:
        """Whether the current token is this word or symbol."""
        return self.token.text == text

    def accept(self, text: str) -> bool:
        """Takes the current token if it is this word or symbol."""
        if self.token.text != text:
            return False
        self.advance()
        return True

    def expect(self, text: str, hint: str = "") -> Token:
        """Takes this word or symbol, or fails."""
        if self.token.text != text:
            raise self.wrong(f"`{text}`", hint)
        return self.advance()

    def once(self, seen: set[str], key: str, token: Token) -> None:
        """Refuses a name that was given before, since one of the two would be ignored."""
        if key in seen:
            raise self.error(token, f"expected each name once, found {token.found} again", "leave one of them out")
        seen.add(key)

    def word(self, what: str, hint: str = "") -> Token:
        """Takes a word, any word, since keywords are contextual."""
        if self.token.kind is not Kind.WORD:
            raise self.wrong(what, hint)
        return self.advance()

    def close(self, text: str, opener: Token, hint: str = "") -> Token:
        """Takes the bracket that closes `opener`, or fails and says which one is open."""
        if self.token.text == text:
            return self.advance()
        if self.token.kind is Kind.END:
            hint = f"the `{opener.text}` at {opener.span.line}:{opener.span.column} is not closed"
        raise self.wrong(f"`{text}`", hint)

    def enter(self) -> None:
        """Goes one level deeper; the caller leaves again by `leave`, unless an error ends the parse."""
        if self._depth >= MAX_NESTING:
            raise self.error(
                self.token,
                f"expected at most {MAX_NESTING} levels of nesting, found more",
                NESTING_HINT,
                code="dsl.nesting",
            )
        self._depth += 1

    def leave(self) -> None:
        """Goes one level up."""
        self._depth -= 1

    def span(self, start: Token) -> Span:
        """From a token to the one that was taken last."""
        return Span(start.span.line, start.span.column, start.span.start, self.before.span.end)

    def hint(self) -> str:
        """What the current token, or the word before it, was probably meant to be; empty where nothing is known."""
        hint = _FOUND_HINTS.get(self.token.text, "")
        if not hint and self._index and self.token.kind is not Kind.END:
            hint = _AFTER_HINTS.get(self.before.text, "")
        return hint

    def wrong(self, expected: str, hint: str = "") -> DslError:
        """The error that something else was expected at the current token."""
        return self.error(self.token, f"expected {expected}, found {self.token.found}", hint or self.hint())

    def error(self, token: Token, message: str, hint: str = "", code: str = "dsl.syntax") -> DslError:
        """An error at the place of a token."""
        return DslError(message, code=code, place=token.span.place(self._file), hint=hint or None)
