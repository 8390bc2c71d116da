"""Declarations, and the door of the parser: text to syntax tree."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from symbi.dsl import ast
from symbi.dsl.ast import Span
from symbi.dsl.lexer import Kind, Token, tokenize
from symbi.dsl.statements import Statements
from symbi.dsl.walk import NESTING_HINT, check_nesting
from symbi.errors import DslError, did_you_mean

SCHEDULE_KEYS: Final = ("cron", "at", "timezone", "agent", "policy", "audit", "one_shot", "deliver")
MEMORY_KEYS: Final = ("store", "path", "retention")
SEARCH_KEYS: Final = ("vector_weight", "keyword_weight")
WEBHOOK_KEYS: Final = ("path", "provider", "secret", "agent")
FILTER_KEYS: Final = ("json_path", "equals", "contains")
EFFECTS: Final = ("allow", "deny", "require", "audit")

_EITHER: Final = "`=` or `:`"


def parse(text: str, file: str) -> ast.File:
    """Reads an agent file.

    Args:
        text: The whole file.
        file: Its name, for places in errors.

    Raises:
        DslError: The text is no agent file; `place` says where and `hint` what to do. Nothing else is ever raised.
    """
    tokens = tokenize(text, file)
    try:
        tree = Parser(tokens, file).file()
    except RecursionError:
        raise DslError(
            "expected less nesting, found more than the caller's stack has room for",
            code="dsl.nesting",
            place=tokens[0].span.place(file),
            hint=NESTING_HINT,
        ) from None
    check_nesting(tree)
    return tree


class Parser(Statements):
    """Reads declarations."""

    def file(self) -> ast.File:
        """Reads all declarations up to the end."""
        readers: dict[str, Callable[[], ast.Declaration]] = {
            "metadata": self._metadata,
            "agent": self._agent,
            "policy": self._policy,
            "type": self._type,
            "function": self._function,
            "schedule": self._schedule,
            "channel": self._channel,
            "memory": self._memory,
            "webhook": self._webhook,
        }
        declarations: list[ast.Declaration] = []
        while self.token.kind is not Kind.END:
            read = readers.get(self.token.text)
            if read is None:
                raise self._no_declaration(readers)
            declarations.append(read())
        comments = tuple(comment for token in self._tokens for comment in token.comments)
        return ast.File(self._file, tuple(declarations), comments, span=Span(1, 1, 0, self.token.span.end))

    def _no_declaration(self, known: Mapping[str, object]) -> DslError:
        hints = {
            "with": "`with` stands in an agent",
            "capabilities": "`capabilities` stands in an agent",
            "let": "statements stand in a function, or in the `with` block of an agent",
            ";": "no `;` follows a declaration",
            "}": "there is a `}` too many",
            "import": "there are no imports",
        }
        hint = hints.get(self.token.text) or did_you_mean(self.token.text, known)
        return self.wrong("a declaration", hint or "declarations are " + ", ".join(sorted(known)))

    # --- entries of settings ----------------------------------------------------------------------

    def _entries(self, opener: Token, read: Callable[[set[str]], ast.Entry]) -> tuple[ast.Entry, ...]:
        """Reads entries up to the closing brace; one comma may follow each."""
        entries: list[ast.Entry] = []
        seen: set[str] = set()
        while self._more(opener):
            entries.append(read(seen))
            self.accept(",")
        return tuple(entries)

    def _more(self, opener: Token, hint: str = "") -> bool:
        """Whether another key follows; takes the closing brace if not."""
        if self.token.kind is Kind.WORD:
            return True
        hints = {
            ",": "entries stand apart by one comma at most",
            ";": "no `;` follows an entry",
            ".": "a value is a plain name, not a path; a string can hold one",
            "(": "a value is a plain name, not a call",
            "{": "no record is allowed here",
        }
        if not self.at("}") and self.token.kind is not Kind.END:
            raise self.wrong("a key or `}`", hints.get(self.token.text) or hint or "keys are plain names")
        self.close("}", opener)
        return False

    def _key(self, seen: set[str], known: tuple[str, ...] = (), owner: str = "") -> Token:
        token = self.word("a key")
        if known and token.text not in known:
            hint = did_you_mean(token.text, known) or "its keys are " + ", ".join(known)
            raise self.error(token, f"expected a key of {owner}, found {token.found}", hint)
        self.once(seen, token.text, token)
        return token

    def _assigned(self, key: Token, *, array: bool = False, record: bool = False) -> ast.Entry:
        """Reads `(=|:) value` after a key."""
        if not (self.accept("=") or self.accept(":")):
            raise self.wrong(_EITHER, "a key and its value stand apart by `=`")
        return self._entry(key, array=array, record=record)

    def _entry(self, key: Token, *, array: bool = False, record: bool = False, hint: str = "") -> ast.Entry:
        value: ast.Expr
        if array and self.at("["):
            value = self.array()
        elif record and self.at("{"):
            value = self.record()
        else:
            value = self.value(hint, (", array" if array else "") + (", record" if record else ""))
        return ast.Entry(key.text, value, span=self.span(key))

    def _required(self, seen: set[str], keys: tuple[str, ...], owner: str, brace: Token) -> None:
        """Refuses a block that lacks a key which it needs; the place is its closing brace."""
        for key in keys:
            if key not in seen:
                raise self.error(brace, f"expected key `{key}` in {owner}, found {brace.found}", f"give it a `{key}`")

    # --- declarations -----------------------------------------------------------------------------

    def _metadata(self) -> ast.Metadata:
        start = self.advance()
        opener = self.expect("{", "metadata has no name")
        entries = self._entries(opener, lambda seen: self._assigned(self._key(seen), array=True, record=True))
        return ast.Metadata(entries, span=self.span(start))

    def _agent(self) -> ast.Agent:
        start = self.advance()
        name = self.word("a name after `agent`")
        has_parens = self.at("(")
        parameters = self._parameters() if has_parens else ()
        returns = self._type_ref() if self.accept("->") else None
        opener = self.expect("{")
        readers: dict[str, Callable[[], ast.AgentItem]] = {
            "capabilities": self._capabilities,
            "policy": self._policy,
            "function": self._function,
            "with": self._with,
        }
        items: list[ast.AgentItem] = []
        while not self.at("}"):
            read = readers.get(self.token.text)
            if read is not None:
                items.append(read())
            elif self.token.kind is Kind.END:
                self.close("}", opener)
            else:
                raise self._no_agent_item(readers)
        self.close("}", opener)
        return ast.Agent(name.text, parameters, returns, tuple(items), has_parens, span=self.span(start))

    def _no_agent_item(self, known: Mapping[str, object]) -> DslError:
        hints = {
            "metadata": "metadata stands outside of an agent",
            "agent": "agents do not nest",
            "type": "types stand outside of an agent",
            "schedule": "schedules stand outside of an agent",
            "memory": "memories stand outside of an agent",
            "channel": "channels stand outside of an agent",
            "webhook": "webhooks stand outside of an agent",
            "let": "statements stand in a function, or in the `with` block",
            ";": "no `;` stands between the parts of an agent",
            ",": "no comma stands between the parts of an agent",
        }
        expected = "`capabilities`, `policy`, `function`, `with` or `}`"
        return self.wrong(expected, hints.get(self.token.text) or did_you_mean(self.token.text, known))

    def _parameters(self) -> tuple[ast.Parameter, ...]:
        opener = self.expect("(", "the parentheses of a function are needed, also without parameters")
        parameters: list[ast.Parameter] = []
        seen: set[str] = set()
        while not self.at(")"):
            if self.token.kind is not Kind.WORD:
                self.close(")", opener, "parameters stand apart by one comma at most")
            name = self.advance()
            self.once(seen, name.text, name)
            self.expect(":", "a parameter has a type: `name: String`")
            kind = self._type_ref()
            if self.at("="):
                raise self.wrong("`,` or `)`", "a parameter has no default")
            parameters.append(ast.Parameter(name.text, kind, span=self.span(name)))
            self.accept(",")
        self.close(")", opener)
        return tuple(parameters)

    def _type_ref(self) -> ast.TypeRef:
        name = self.word("a type", "a type is a name, or a name with types in `<…>`")
        if not self.at("<"):
            return ast.TypeRef(name.text, span=name.span)
        self.enter()
        opener = self.advance()
        arguments = [self._type_ref()]
        while self.accept(","):
            arguments.append(self._type_ref())
        self.close(">", opener, "types stand apart by commas")
        self.leave()
        return ast.TypeRef(name.text, tuple(arguments), span=self.span(name))

    def _capabilities(self) -> ast.Capabilities:
        start = self.advance()
        if not (self.accept("=") or self.accept(":")):
            raise self.wrong(_EITHER, "write `capabilities = [ … ]`")
        opener = self.expect("[", "capabilities are a list, also where there is one")
        items: list[ast.String | ast.Name] = []
        while not self.at("]"):
            token = self.token
            item = self.value() if token.kind in {Kind.STRING, Kind.WORD} else None
            if not isinstance(item, ast.String | ast.Name):
                if token.kind is Kind.END:
                    self.close("]", opener)
                hint = "capabilities stand apart by one comma" if token.text == "," else ""
                message = f"expected a string or a name, found {token.found}"
                raise self.error(token, message, hint or "a capability is a plain name or a string")
            items.append(item)
            if not self.accept(","):
                break
        hint = "a capability with a `.` in it is a string" if self.at(".") else "capabilities stand apart by commas"
        self.close("]", opener, hint)
        return ast.Capabilities(tuple(items), span=self.span(start))

    def _policy(self) -> ast.Policy:
        start = self.advance()
        name = self.word("a name after `policy`", "a policy has a name: `policy safe { … }`")
        opener = self.expect("{")
        rules: list[ast.Rule] = []
        while not self.at("}"):
            rules.append(self._rule(opener))
        self.close("}", opener)
        return ast.Policy(name.text, tuple(rules), span=self.span(start))

    def _rule(self, opener: Token) -> ast.Rule:
        effect = self.token
        if effect.text not in EFFECTS:
            if effect.kind is Kind.END:
                self.close("}", opener)
            hints = {
                ";": "no `;` follows a rule",
                ",": "rules have nothing between them",
                "policy": "policies do not nest",
                "forbid": "write `deny`",
                "permit": "write `allow`",
                "if": "a rule has one `if` at most; join conditions by `&&`",
                "with": "a rule has no `with`; an audit rule takes a record",
                "for": "a rule has no `for`; write what it is about as arguments",
                "when": "write `if`",
                "unless": "write `if !(…)`",
            }
            hint = self.hint() or hints.get(effect.text) or did_you_mean(effect.text, EFFECTS)
            raise self.wrong("a rule (`allow`, `deny`, `require` or `audit`) or `}`", hint)
        self.advance()
        self.expect(":", "a rule is `allow: what`")
        subject = self.expression()
        guard = self.expression() if self.accept("if") else None
        return ast.Rule(effect.text, subject, guard, span=self.span(effect))

    def _function(self) -> ast.Function:
        start = self.advance()
        name = self.word("a name after `function`")
        parameters = self._parameters()
        returns = self._type_ref() if self.accept("->") else None
        body = self.body()
        return ast.Function(name.text, parameters, returns, body, span=self.span(start))

    def _with(self) -> ast.With:
        start = self.advance()
        attributes: list[ast.Entry] = []
        seen: set[str] = set()
        while not self.at("{"):
            if self.token.kind is not Kind.WORD:
                hint = "attributes stand apart by one comma at most" if self.at(",") else ""
                raise self.wrong("an attribute or `{`", hint)
            key = self._key(seen)
            self.expect("=", "attributes of `with` take `=`")
            hint = "an attribute takes no record; write its parts as attributes" if self.at("{") else ""
            attributes.append(self._entry(key, array=True, hint=hint))
            self.accept(",")
        body = self.body()
        return ast.With(tuple(attributes), body, span=self.span(start))

    def _type(self) -> ast.TypeAliasDecl:
        start = self.advance()
        name = self.word("a name after `type`")
        self.expect("=", "write `type Name = …`")
        if not self.at("{"):
            target = self.word("a name or `{`", "a type is another name, or a record of fields")
            if self.at("<"):
                raise self.wrong(
                    "a declaration", "the alias of a generic type is not allowed; use the generic where it is needed"
                )
            return ast.TypeAliasDecl(name.text, target.text, span=self.span(start))
        opener = self.advance()
        fields: list[ast.TypeField] = []
        seen: set[str] = set()
        while self._more(opener, "fields of a type are `name: Type`"):
            key = self._key(seen)
            self.expect(":", "a field and its type stand apart by `:`")
            kind = self._type_ref()
            fields.append(ast.TypeField(key.text, kind, span=self.span(key)))
            self.accept(",")
        return ast.TypeAliasDecl(name.text, None, tuple(fields), span=self.span(start))

    def _schedule(self) -> ast.Schedule:
        start = self.advance()
        name = self.word("a name after `schedule`")
        owner = f"schedule `{name.text}`"
        opener = self.expect("{")
        seen: set[str] = set()

        def entry(_: set[str]) -> ast.Entry:
            key = self._key(seen, SCHEDULE_KEYS, owner)
            if {"cron", "at"} <= seen:
                raise self.error(
                    key, f"expected one of `cron` and `at`, found {key.found} as well", "leave one of them out"
                )
            return self._assigned(key)

        entries = self._entries(opener, entry)
        if not seen & {"cron", "at"}:
            message = f"expected key `cron` or `at` in {owner}, found {self.before.found}"
            raise self.error(self.before, message, "say when it runs")
        self._required(seen, ("agent",), owner, self.before)
        return ast.Schedule(name.text, entries, span=self.span(start))

    def _channel(self) -> ast.Channel:
        start = self.advance()
        name = self.word("a name after `channel`")
        opener = self.expect("{")
        items: list[ast.Entry | ast.Policy | ast.Classification] = []
        seen: set[str] = set()
        while self._more(opener):
            if self.at("policy") and self.peek().kind is Kind.WORD:
                items.append(self._policy())
            elif self.at("data_classification") and self.peek().text == "{":
                self.once(seen, self.token.text, self.token)
                items.append(self._classification())
            else:
                items.append(self._assigned(self._key(seen), array=True))
                self.accept(",")
        self._required(seen, ("platform",), f"channel `{name.text}`", self.before)
        return ast.Channel(name.text, tuple(items), span=self.span(start))

    def _classification(self) -> ast.Classification:
        start = self.advance()
        opener = self.advance()
        entries: list[tuple[str, str]] = []
        places: list[Span] = []
        seen: set[str] = set()
        while self._more(opener):
            key = self._key(seen)
            self.expect(":", "a class of data and its treatment stand apart by `:`")
            entries.append((key.text, self.word("a name", "a treatment is a plain name").text))
            places.append(self.span(key))
            self.accept(",")
        return ast.Classification(tuple(entries), tuple(places), span=self.span(start))

    def _memory(self) -> ast.Memory:
        start = self.advance()
        name = self.word("a name after `memory`")
        items = self._spaced(f"memory `{name.text}`", MEMORY_KEYS, "search", SEARCH_KEYS)[0]
        return ast.Memory(name.text, items, span=self.span(start))

    def _webhook(self) -> ast.Webhook:
        start = self.advance()
        name = self.word("a name after `webhook`")
        owner = f"webhook `{name.text}`"
        items, seen = self._spaced(owner, WEBHOOK_KEYS, "filter", FILTER_KEYS)
        self._required(seen, ("path",), owner, self.before)
        return ast.Webhook(name.text, items, span=self.span(start))

    def _spaced(
        self, owner: str, keys: tuple[str, ...], section: str, section_keys: tuple[str, ...]
    ) -> tuple[tuple[ast.Entry | ast.Section, ...], set[str]]:
        """Reads the braces of a memory or webhook: keys and values apart by space, and one section."""
        opener = self.expect("{")
        items: list[ast.Entry | ast.Section] = []
        seen: set[str] = set()
        while self._more(opener):
            key = self._key(seen, (*keys, section), owner)
            if key.text == section:
                inner = self.expect("{", f"`{section}` is a block: `{section} {{ … }}`")
                part = f"`{section}` of {owner}"
                entries = self._entries(inner, partial(self._section_entry, section_keys, part))
                items.append(ast.Section(section, entries, span=self.span(key)))
            else:
                items.append(self._beside(key))
                self.accept(",")
        return tuple(items), seen

    def _section_entry(self, keys: tuple[str, ...], part: str, seen: set[str]) -> ast.Entry:
        return self._beside(self._key(seen, keys, part))

    def _beside(self, key: Token) -> ast.Entry:
        """Reads the value that stands beside a key."""
        hint = f"a key and its value stand side by side here: `{key.text} …`" if self.token.text in {"=", ":"} else ""
        return self._entry(key, hint=hint)
