"""Outputs of tools taken apart into labelled fields.

A text that is JSON, a Python literal or block YAML is read as what it is; any other text is one field, `$`. What a
reader would drop is a reason to take the text as a whole: a label that is lost is the one mistake not to make.
"""

import ast
import json
import re
from dataclasses import dataclass
from typing import Any, Final

import yaml

from symbi.policy.fields import AnswerLabels, ToolFlow
from symbi.policy.sinks import MAX_DEPTH, leaves
from symbi.types import Integrity, JsonValue, Label

MAX_PARSED_CHARS: Final = 1_048_576  # a longer text is one field
MAX_LITERAL_CHARS: Final = 131_072  # likewise, of Python literals, whose reader takes more memory
MAX_NODES: Final = 50_000  # likewise
MAX_REPEATS: Final = 64  # of one name in an object; one that repeats it more often is read as a text

_LOADER: Final = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_BRACKETS: Final = re.compile(r"[\[({\])}]")
_STRUCTURAL: Final = re.compile(r"[\s\-:,?\[\]{}]*")
_BLOCK: Final = re.compile(r"\s*(?:- |-\n|[^\s#&*!|>%@`{}\[\],-][^\n]*?:(?: |\n|$)|'[^\n]*':|\"[^\n]*\":)")


@dataclass(frozen=True, slots=True)
class Piece:
    """A labelled field of some output.

    Attributes:
        text: What stands in it.
        label: Its label, with the step that it came from.
        whole: Only all of it counts, not a part: a name that somebody chose.
        lines: It is a text without structure, of which each line or item counts as a whole.
    """

    text: str
    label: Label
    whole: bool = False
    lines: bool = False


class TooMuch(Exception):
    """A text is data, and more of it than is taken apart."""


def pieces(flow: ToolFlow, output: JsonValue, source: str) -> list[Piece]:
    """The fields of an output, labelled as the manifest says; what is too much to take apart is untrusted.

    Args:
        flow: What is declared of the tool.
        output: A text, or JSON.
        source: What the output came from, for the labels.
    """
    try:
        value = _parsed(output) if isinstance(output, str) else output
    except TooMuch:
        flow, value = ToolFlow(), output
    labels = AnswerLabels(flow, Label(), source, about=flow.subjects_of_answer(value))
    found: list[Piece] = []
    for leaf in leaves(value):
        if leaf.name and flow.declares_name(leaf.steps):
            continue  # the tool's own word
        text = leaf.value if isinstance(leaf.value, str) else json.dumps(leaf.value, default=str)
        label = labels.name_at(leaf.steps, text) if leaf.name else labels.at(leaf.steps, text)
        chosen = label.integrity is Integrity.TRUSTED
        found.append(Piece(text, label, whole=chosen, lines=chosen and not leaf.steps))
    return found


def read(text: str) -> JsonValue:
    """A text as the data that it writes down, or as itself."""
    try:
        return _parsed(text)
    except TooMuch:
        return text


def _parsed(text: str) -> JsonValue:
    """Likewise.

    Raises:
        TooMuch: A bound is hit, so that it is not known what stands where.
    """
    bare = text.strip()
    if len(text) > MAX_PARSED_CHARS:
        raise TooMuch
    if not bare:
        return text
    for reader in (_json, _literal, _block):
        value = reader(bare)
        if value is not None:
            return value
    return text


def _json(text: str) -> JsonValue:
    if text[0] not in '{["':
        return None
    try:
        value: JsonValue = json.loads(text, object_pairs_hook=_Pairs.of)
    except RecursionError:
        raise TooMuch from None
    except ValueError:
        return None
    return value


class _Pairs(dict[str, Any]):
    """An object of JSON, all values of a repeated name kept."""

    @classmethod
    def of(cls, pairs: list[tuple[str, Any]]) -> "_Pairs":
        made = cls()
        for name, value in pairs:
            _put(made, name, value)
        return made


def _put(into: dict[str, Any], name: str, value: Any) -> None:
    for _ in range(MAX_REPEATS):
        if name not in into:
            into[name] = value
            return
        name = f"{name}'"
    raise TooMuch


def _literal(text: str) -> JsonValue:
    if text[0] not in "{[('\"" or len(text) > MAX_LITERAL_CHARS or "#" in text:
        return None
    depth = 0
    for match in _BRACKETS.finditer(text):
        depth += 1 if match.group() in "[({" else -1
        if depth > MAX_DEPTH:
            raise TooMuch
    try:
        return _constant(ast.parse(text, mode="eval").body)
    except (RecursionError, MemoryError):
        raise TooMuch from None
    except (ValueError, SyntaxError, TypeError):
        return None


def _constant(node: ast.expr) -> JsonValue:
    """The value of a literal; anything that would have to be computed is none."""
    match node:
        case ast.Constant(value=constant):
            return constant if isinstance(constant, str | int | float | None) else str(constant)
        case ast.List(elts=items) | ast.Tuple(elts=items) | ast.Set(elts=items):
            return [_constant(item) for item in items]
        case ast.Dict(keys=keys, values=values):
            made: dict[str, Any] = {}
            for key, value in zip(keys, values, strict=True):
                if key is None:
                    raise ValueError("a literal unpacks nothing")
                _put(made, str(_constant(key)), _constant(value))
            return made
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
        case _:
            raise ValueError("not a literal")


def _block(text: str) -> JsonValue:
    """YAML whose root is a list or a mapping, every scalar as its text; no tags, anchors, comments or second documents."""
    if not _BLOCK.match(text):
        return None
    try:
        return _Builder(text).build()
    except (yaml.YAMLError, ValueError):
        return None


class _Builder:
    """Makes a value of YAML's events, without recursion."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._root: list[Any] = []
        self._open: list[Any] = [self._root]
        self._keys: list[str | None] = [None]
        self._end = 0

    def build(self) -> JsonValue:
        documents = 0
        for nodes, event in enumerate(yaml.parse(self._text, Loader=_LOADER)):  # type: ignore[no-untyped-call]  # it has no types
            self._check_gap(event)
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                _require(documents == 1 and not event.explicit)
            elif isinstance(event, yaml.NodeEvent):
                _require(not isinstance(event, yaml.AliasEvent) and event.anchor is None)
                if nodes > MAX_NODES:
                    raise TooMuch
                _require(getattr(event, "tag", None) is None)
                if isinstance(event, yaml.ScalarEvent):
                    self._add(event.value)
                else:
                    self._enter([] if isinstance(event, yaml.SequenceStartEvent) else {})
            elif isinstance(event, yaml.CollectionEndEvent):
                self._open.pop()
                self._keys.pop()
        _require(len(self._root) == 1 and isinstance(self._root[0], list | dict))
        value: JsonValue = self._root[0]
        return value

    def _check_gap(self, event: Any) -> None:
        """Whatever stands between two scalars is punctuation of the format, so that nothing is dropped unseen."""
        start = event.start_mark.index
        if start > self._end:
            _require(_STRUCTURAL.fullmatch(self._text, self._end, start) is not None)
        self._end = max(self._end, event.end_mark.index if isinstance(event, yaml.ScalarEvent) else start)

    def _enter(self, container: Any) -> None:
        if len(self._open) > MAX_DEPTH:
            raise TooMuch
        self._add(container)
        self._open.append(container)
        self._keys.append(None)

    def _add(self, value: Any) -> None:
        into = self._open[-1]
        if isinstance(into, list):
            into.append(value)
        elif self._keys[-1] is None:
            _require(isinstance(value, str))
            self._keys[-1] = value
        else:
            _put(into, self._keys[-1], value)
            self._keys[-1] = None


def _require(holds: bool) -> None:  # noqa: FBT001 - a condition
    if not holds:
        raise ValueError("not the YAML that is read here")
