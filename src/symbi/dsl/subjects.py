"""What a rule is about: from `call("files.*")`, `read(any)`, `["a.b", "log"]` to actions and resources of the schema."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from symbi.dsl import ast
from symbi.dsl.builtins import IMAGE, LATER_EFFECTS, RELEASE_NAME
from symbi.dsl.findings import Findings
from symbi.dsl.names import TOOL_PATTERN, Target, Tools, cedar_text, entity, path_of, unknown_tool
from symbi.dsl.settings import LATER_SANDBOXES, SANDBOXES, sandbox_tier
from symbi.dsl.vocabulary import ANY_WORDS, ATTRIBUTES, DATA_WORDS, MODEL_WORDS, VERB_BY_WORD, Verb
from symbi.errors import did_you_mean

_READ_ONLY = 'resource.recovery == "read-only"'
_NOT_READ_ONLY = 'resource.recovery != "read-only"'


@dataclass(frozen=True, slots=True)
class SubjectReader:
    """Reads subjects for one agent; findings go to the list it was made with.

    Attributes:
        agent: The agent's name.
        findings: Where errors are noted.
        tools: The tools there are.
        parameters: Names of the agent's inputs: words for data.
    """

    agent: str
    findings: Findings
    tools: Tools = None
    parameters: frozenset[str] = frozenset()

    def targets(self, subject: ast.Expr, *, deny: bool, guarded: bool) -> tuple[Target, ...]:
        """Everything a subject names; empty after noting an error.

        Args:
            subject: The expression between the colon and the `if`.
            deny: The rule forbids: it covers what the subject can mean, beyond what it must mean.
            guarded: The rule has an `if`. `any` then stands for each action by itself, for they know different names.
        """
        found = tuple(_subject(subject, self, deny=deny))
        if any(not target.action for target in found) and (guarded or not deny):
            found = tuple(expanded for target in found for expanded in _expanded(target))
        return tuple(dict.fromkeys(found))


@dataclass(frozen=True, slots=True)
class _Word:
    """An argument of a verb: a text in quotes, or a bare word."""

    text: str
    quoted: bool
    span: ast.Span

    @property
    def any(self) -> bool:
        return not self.quoted and self.text in ANY_WORDS


def _expanded(target: Target) -> Iterable[Target]:
    return [target] if target.action else [Target(action, implied=True) for action in ATTRIBUTES]


def _subject(subject: ast.Expr, reader: SubjectReader, *, deny: bool) -> list[Target]:
    match subject:
        case ast.Array(items=()):
            reader.findings.error("rule", "an empty list names nothing", subject.span)
            return []
        case ast.Array(items=items):
            return [target for item in items for target in _subject(item, reader, deny=deny)]
        case ast.String(value=text):
            return _operation(_Word(text, quoted=True, span=subject.span), reader, deny=deny)
        case ast.Name(id=word) if word in ANY_WORDS:
            return [Target("")]
        case ast.Name() | ast.Member() if (path := path_of(subject)) is not None:
            return _operation(_Word(".".join(path), quoted=False, span=subject.span), reader, deny=deny)
        case ast.Call(callee=ast.Name(id=word), arguments=arguments):
            return _call(word, arguments, subject.span, reader, deny=deny)
        case _:
            hint = 'write `call("server.tool")`, a list of tools, `log`, `any` or another form of the policy guide'
            reader.findings.error("rule", "this names nothing that a rule can be about", subject.span, hint)
            return []


def _call(
    word: str, arguments: tuple[ast.Argument, ...], span: ast.Span, reader: SubjectReader, *, deny: bool
) -> list[Target]:
    verb = VERB_BY_WORD.get(word)
    if verb is None:
        hint = did_you_mean(word, VERB_BY_WORD) or f"known are {', '.join(f'`{name}`' for name in VERB_BY_WORD)}"
        reader.findings.error("unknown_verb", f"unknown verb `{word}`", span, hint)
        return []
    words: list[_Word] = []
    for argument in arguments:
        if argument.name is not None:
            reader.findings.error("rule", f"`{word}` takes no named arguments", argument.span, verb.form)
            return []
        read = _words(argument.value)
        if read is None:
            reader.findings.error("rule", f"`{word}` takes names", argument.value.span, f"write {verb.form}")
            return []
        words += read
    if not words and not verb.bare:
        reader.findings.error("rule", f"`{word}` does not say of what", span, f"write {verb.form}")
    return _of_verb(verb, words, span, reader, deny=deny)


def _of_verb(verb: Verb, words: list[_Word], span: ast.Span, reader: SubjectReader, *, deny: bool) -> list[Target]:
    if not words:
        return [_BARE[verb.name](reader)] if verb.bare else []
    found = []
    for word in words:
        made = _MAKERS[verb.name](word, verb, reader, deny)
        if made is None:
            message = f"`{verb.name}` knows no `{word.text}`"
            reader.findings.error("unknown_name", message, word.span or span, f"write {verb.form}")
        else:
            found += made
    return found


def _words(value: ast.Expr) -> list[_Word] | None:
    match value:
        case ast.String(value=text):
            return [_Word(text, quoted=True, span=value.span)]
        case ast.Name() | ast.Member() if (path := path_of(value)) is not None:
            return [_Word(".".join(path), quoted=False, span=value.span)]
        case ast.Array(items=items) if items:
            read = [_words(item) for item in items]
            return [word for words in read for word in words or ()] if None not in read else None
        case _:
            return None


def _operation(word: _Word, reader: SubjectReader, *, deny: bool) -> list[Target]:
    """What a bare text means: the words of `capabilities`, and models."""
    if word.text in MODEL_WORDS:
        return [Target("CallModel")]
    if TOOL_PATTERN.fullmatch(word.text):
        return _tool(word, reader)
    verb = VERB_BY_WORD.get(word.text)
    if verb is not None and verb.bare:
        return _of_verb(verb, [], word.span, reader, deny=deny)
    if verb is not None:
        reader.findings.error("rule", f"`{word.text}` does not say of what", word.span, f"write {verb.form}")
        return []
    if word.text in LATER_EFFECTS:
        reader.findings.later(word.text, word.span, "rules about it write `read`, `write`, `send` or `publish`")
        return []
    known = [name for name, known in VERB_BY_WORD.items() if known.bare] + [*MODEL_WORDS, *ANY_WORDS]
    hint = did_you_mean(word.text, [*known, *(reader.tools or ())])
    reader.findings.error(
        "unknown_name", f"`{word.text}` is no tool and no effect", word.span, hint or "tools are named `server.tool`"
    )
    return []


def _tool(word: _Word, reader: SubjectReader, also: str = "") -> list[Target]:
    hint = unknown_tool(word.text, reader.tools)
    if hint is not None:
        reader.findings.error("unknown_tool", f"unknown tool `{word.text}`", word.span, hint)
        return []
    server, _, name = word.text.partition(".")
    if name == "*":
        return [Target("InvokeTool", f"resource in {entity('ToolServer', server)}", also, word.text)]
    return [Target("InvokeTool", "", also, word.text)]


EXPECTS_REPLY: Final = "context.expectsReply"
"""Cedar test by which `ask` differs from `send`."""

_Maker = Callable[[_Word, Verb, SubjectReader, bool], list[Target] | None]


def _named(kind: str) -> _Maker:
    """A maker for verbs whose words are ids of one entity type."""

    def make(word: _Word, verb: Verb, _reader: SubjectReader, _deny: bool) -> list[Target] | None:  # noqa: FBT001 - the makers' common shape
        resource = "" if word.any else f"resource == {entity(kind, word.text)}"
        return [Target(verb.actions[0], resource)]

    return make


def _release(word: _Word, verb: Verb, _reader: SubjectReader, _deny: bool) -> list[Target] | None:  # noqa: FBT001 - the makers' common shape
    if word.any:
        return [Target(verb.actions[0])]
    named = RELEASE_NAME.fullmatch(word.text)
    return [Target(verb.actions[0], f"resource == {entity('Release', word.text)}")] if named else None


def _memory(word: _Word, verb: Verb, reader: SubjectReader, _deny: bool) -> list[Target] | None:  # noqa: FBT001 - the makers' common shape
    if word.any:
        return [Target(verb.actions[0], "", "resource is Memory")]
    name = reader.agent if word.text == "self" else word.text
    return [Target(verb.actions[0], f"resource == {entity('Memory', name)}")]


def _documents(word: _Word, verb: Verb, _reader: SubjectReader, _deny: bool) -> list[Target] | None:  # noqa: FBT001 - the makers' common shape
    if word.any:
        return [Target(verb.actions[0], "", "resource is Knowledge")]
    return [Target(verb.actions[0], f"resource == {entity('Knowledge', word.text)}")]


def _itself(word: _Word, verb: Verb, reader: SubjectReader, _deny: bool) -> list[Target] | None:  # noqa: FBT001 - the makers' common shape
    if word.any:
        return [Target(verb.actions[0])]
    if word.text in {"self", reader.agent}:
        return [_BARE[verb.name](reader)]
    return None


def _pool(word: _Word, verb: Verb, reader: SubjectReader, _deny: bool) -> list[Target] | None:  # noqa: FBT001 - the makers' common shape
    return [_BARE[verb.name](reader)] if word.any or word.text == "pool" else None


def _sandbox(word: _Word, verb: Verb, reader: SubjectReader, _deny: bool) -> list[Target] | None:  # noqa: FBT001 - the makers' common shape
    if word.any:
        return [Target(verb.actions[0])]
    if word.text.lower() in LATER_SANDBOXES:
        reader.findings.later(word.text, word.span, f"use one of {', '.join(f'`{name}`' for name in SANDBOXES)}")
        return []
    tier = sandbox_tier(word.text)
    return None if tier is None else [Target(verb.actions[0], f"resource == {entity('Sandbox', tier.value)}")]


def _image(word: _Word, verb: Verb, _reader: SubjectReader, _deny: bool) -> list[Target] | None:  # noqa: FBT001 - the makers' common shape
    if word.any:
        return [Target(verb.actions[0])]
    if not IMAGE.fullmatch(word.text):
        return None
    named = f"resource == {entity('Image', word.text.rpartition('@')[2])}"
    return [Target(verb.actions[0], named)]


def _nothing(_word: _Word, _verb: Verb, _reader: SubjectReader, _deny: bool) -> list[Target] | None:  # noqa: FBT001 - the makers' common shape
    return None


def _people(word: _Word, verb: Verb, _reader: SubjectReader, _deny: bool) -> list[Target] | None:  # noqa: FBT001 - the makers' common shape
    return [Target(verb.actions[0], "", "" if word.any else f"context.who == {cedar_text(word.text)}")]


def _asked(word: _Word, verb: Verb, _reader: SubjectReader, _deny: bool) -> list[Target] | None:  # noqa: FBT001 - the makers' common shape
    resource = "" if word.any else f"resource == {entity('Agent', word.text)}"
    return [Target(verb.actions[0], resource, EXPECTS_REPLY)]


def _tools_of(word: _Word, _verb: Verb, reader: SubjectReader, _deny: bool) -> list[Target] | None:  # noqa: FBT001 - the makers' common shape
    if word.any:
        return [Target("InvokeTool")]
    return _tool(word, reader) if TOOL_PATTERN.fullmatch(word.text) else None


def _use(word: _Word, verb: Verb, reader: SubjectReader, deny: bool) -> list[Target] | None:  # noqa: FBT001 - the makers' common shape
    if word.any:
        return [Target(action) for action in verb.actions]
    return _operation(word, reader, deny=deny)


def _data(word: _Word, verb: Verb, reader: SubjectReader, deny: bool) -> list[Target] | None:  # noqa: FBT001 - the makers' common shape
    """Stores by name, tools by name, or all data; a deny of all data reaches what hands data on by other ways too."""
    if TOOL_PATTERN.fullmatch(word.text):
        return _tool(word, reader, _tool_test(verb, deny=deny))
    words = frozenset(DATA_WORDS) | reader.parameters
    if word.quoted:
        stores = f"(resource == {entity('Memory', word.text)} || resource == {entity('Knowledge', word.text)})"
        return [Target(verb.actions[0], "", stores, data_words=words)]
    if not word.any and word.text not in words:
        hint = did_you_mean(word.text, words) or f'name a store in quotes: `{verb.name}("{word.text}")`'
        message = f"`{word.text}` is no input of the agent"
        reader.findings.error("unknown_name", message, word.span, hint)
        return []
    found = [Target(verb.actions[0], data_words=words)]
    if deny:
        for action in verb.denies:
            also = _tool_test(verb, deny=True) if action == "InvokeTool" else ""
            found.append(Target(action, also=also, data_words=words, implied=True))
    return found


def _tool_test(verb: Verb, *, deny: bool) -> str:
    if verb.name == "read" and not deny:
        return _READ_ONLY
    if verb.name == "write" and deny:
        return _NOT_READ_ONLY
    return ""


_MAKERS: Final[Mapping[str, _Maker]] = MappingProxyType(
    {
        "call": _tools_of,
        "use": _use,
        "model": _named("Model"),
        **{name: _named("ToolServer") for name in ("connect", "browse", "resource", "prompt", "complete")},
        **{name: _named("ToolServer") for name in ("sampling", "elicitation", "roots")},
        "create": _itself,
        "configure": _itself,
        "allocate": _pool,
        "execute": _sandbox,
        "run": _image,
        "log": _nothing,
        "now": _nothing,
        "random": _nothing,
        "approval": _people,
        "read": _data,
        "write": _data,
        "export": _data,
        "endorse": _release,
        "declassify": _release,
        "send": _named("Agent"),
        "ask": _asked,
        "publish": _named("Topic"),
        "subscribe": _named("Topic"),
        "remember": _memory,
        "recall": _memory,
        "search": _documents,
    }
)

_BARE: Final[Mapping[str, Callable[[SubjectReader], Target]]] = MappingProxyType(
    {
        "create": lambda reader: Target("CreateAgent", f"resource == {entity('Agent', reader.agent)}"),
        "configure": lambda reader: Target("ConfigureAgent", f"resource == {entity('Agent', reader.agent)}"),
        "allocate": lambda _: Target("AllocateResources", f"resource == {entity('Resource', 'pool')}"),
        "execute": lambda _: Target("ExecuteCode"),
        "run": lambda _: Target("RunContainer"),
        "log": lambda _: Target("WriteLog", f"resource == {entity('Resource', 'log')}"),
        "now": lambda _: Target("ReadClock", f"resource == {entity('Resource', 'clock')}"),
        "random": lambda _: Target("DrawRandom", f"resource == {entity('Resource', 'random')}"),
        "approval": lambda _: Target("RequestApproval", f"resource == {entity('Resource', 'people')}"),
        "remember": lambda reader: Target("WriteData", f"resource == {entity('Memory', reader.agent)}"),
        "recall": lambda reader: Target("ReadData", f"resource == {entity('Memory', reader.agent)}"),
    }
)
