"""Values of the agent language: plain data whose every leaf carries a data-flow label.

Containers are immutable and hold values, so that a record keeps the label of each field; an assignment into one makes
a changed copy. A secret is a reference that only a tool call can take.

No value is larger than the bounds of this page, however it is made. What a container shares is counted as often as it
stands in it, so that whoever walks through a value, compares it or prints it does bounded work.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from math import isfinite
from operator import attrgetter
from typing import Final, TypeAlias

from symbi.dsl import ast
from symbi.errors import OutputLimit, ScriptFailed
from symbi.policy.fields import AnswerLabels, Step, spelled
from symbi.policy.flow import join
from symbi.types import JsonValue, Label

MAX_TEXT_CHARS: Final = 16 * 1024 * 1024  # one string; bounds what doubling a text in a loop can take
MAX_ITEMS: Final = 1_000_000  # items of one list or record
MAX_WEIGHT: Final = 1_500_000  # of one value, see `Value.weight`; some 150 MB
MAX_DEPTH: Final = 128  # nesting of JSON that becomes a value; deeper than tools and sandboxes take or give
CHARS_PER_WEIGHT: Final = 32  # so that texts in containers are bounded together
MAX_INTEGER: Final = 2**63 - 1  # integers are those of policies (Cedar Long)
MAX_PART_LABELS: Final = 256  # parts of one argument that bear a label of their own; the rest bears that of the whole
VAULT_SCHEME: Final = "vault://"

TEMPLATE: Final = Label()
"""The label of what the agent file itself says."""


@dataclass(frozen=True, slots=True)
class Secret:
    """A `vault://` reference, unresolved."""

    path: str


@dataclass(frozen=True, slots=True)
class Closure:
    """A lambda with the variables that it saw."""

    node: ast.Lambda
    scope: "Scope"


Data: TypeAlias = "bool | int | float | str | tuple[Value, ...] | Mapping[str, Value] | Secret | Closure | None"


@dataclass(frozen=True, slots=True)
class Value:
    """Data with its label; of a container, the label is that of its shape, and its items bear their own.

    Attributes:
        data: What it is.
        label: What went into it.
        weight: Values in it, itself included, with a share for the length of texts; a caller that knows it may say it.

    Raises:
        OutputLimit: It is larger than a value may be.
    """

    data: Data
    label: Label = TEMPLATE
    weight: int = field(default=0, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Weigh it, and refuse what is out of bounds."""
        object.__setattr__(self, "weight", self.weight or _weigh(self.data))
        if self.weight > MAX_WEIGHT:
            msg = f"a value of more than {MAX_WEIGHT} parts is over the bound"
            raise OutputLimit(msg)


_weight: Final[Callable[[Value], int]] = attrgetter("weight")


def _weigh(data: Data) -> int:
    """The weight of data whose items are weighed already."""
    match data:
        case bool() | None:
            return 1
        case str():
            if len(data) > MAX_TEXT_CHARS:
                msg = f"a text of {len(data)} characters is over the bound of {MAX_TEXT_CHARS}"
                raise OutputLimit(msg)
            return 1 + len(data) // CHARS_PER_WEIGHT
        case int():
            if abs(data) > MAX_INTEGER:
                msg = "an integer is beyond 64 bits"
                raise OutputLimit(msg)
            return 1
        case float():
            if not isfinite(data):
                msg = "the result is not a finite number"
                raise OutputLimit(msg)
            return 1
        case tuple():
            _bound_items(len(data))
            return 1 + sum(map(_weight, data))
        case Mapping():
            _bound_items(len(data))
            return 1 + sum(map(_weight, data.values())) + sum(key_weight(key) for key in data)
        case _:
            return 1


def _bound_items(count: int) -> None:
    if count > MAX_ITEMS:
        msg = f"a collection of {count} items is over the bound of {MAX_ITEMS}"
        raise OutputLimit(msg)


def key_weight(key: str) -> int:
    """What the name of a field adds to the weight of a record."""
    return len(key) // CHARS_PER_WEIGHT


NULL: Final = Value(None)


@dataclass(slots=True)
class Scope:
    """Variables of a block, inside those of the block around it."""

    outer: "Scope | None" = None
    names: dict[str, Value] = field(default_factory=dict)

    def find(self, name: str) -> "Scope | None":
        """The nearest scope that has the name."""
        scope: Scope | None = self
        while scope is not None and name not in scope.names:
            scope = scope.outer
        return scope


def deep_label(value: Value) -> Label:
    """The join of a value's label with those of all it contains."""
    labels: dict[int, Label] = {}  # each once: items made together share theirs
    pending = [value]
    while pending:
        current = pending.pop()
        labels[id(current.label)] = current.label
        if isinstance(current.data, tuple):
            pending.extend(current.data)
        elif isinstance(current.data, Mapping):
            pending.extend(current.data.values())
    return join(*labels.values())


def taken(container: Value, item: Value) -> Value:
    """An item as it comes out of a container: that it is this one depends on the container's shape."""
    if container.label is item.label or container.label == TEMPLATE:
        return item
    return Value(item.data, join(item.label, container.label), item.weight)


def key_of(record: Value, key: str) -> Value:
    """The name of a field as a value: whoever wrote the field may have written its name."""
    assert isinstance(record.data, Mapping)
    return Value(key, join(record.label, record.data[key].label))


def from_json(data: JsonValue, label: Label, depth: int = MAX_DEPTH) -> Value:
    """JSON as a value, every leaf under one label.

    Raises:
        OutputLimit: It is larger than a value may be, or nested deeper than `depth`.
        ScriptFailed: A text holds a lone surrogate, which no JSON text, trail or terminal can take.
    """
    if depth < 0:
        msg = f"the data is nested deeper than {MAX_DEPTH} levels"
        raise OutputLimit(msg)
    if isinstance(data, str):
        return Value(_encodable(data), label)
    if isinstance(data, Mapping):
        return Value({_encodable(key): from_json(item, label, depth - 1) for key, item in data.items()}, label)
    if isinstance(data, list | tuple):
        return Value(tuple([from_json(item, label, depth - 1) for item in data]), label)
    return Value(data, label)  # type: ignore[arg-type]  # str is a Sequence to the type checker; what is left are scalars


def from_answer(data: JsonValue, labels: AnswerLabels, steps: tuple[Step, ...] = ()) -> Value:
    """What a tool answered as a value, each field under its own label.

    Raises:
        OutputLimit, ScriptFailed: As `from_json`.
    """
    if len(steps) > MAX_DEPTH:
        msg = f"the data is nested deeper than {MAX_DEPTH} levels"
        raise OutputLimit(msg)
    if not labels.flow.output and not labels.about.parts:
        return from_json(data, labels.at(steps, data))
    label = labels.at(steps, data)
    if isinstance(data, Mapping):
        made = {_encodable(key): from_answer(item, labels, (*steps, key)) for key, item in data.items()}
        items = {key: item.label for key, item in made.items()}
        return Value(made, join(label, *labels.unvouched_names(steps, items)))
    if isinstance(data, list | tuple):
        return Value(tuple([from_answer(item, labels, (*steps, index)) for index, item in enumerate(data)]), label)
    return from_json(data, label)


def _encodable(text: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            msg = "a text holds a lone surrogate, which is not text"
            raise ScriptFailed(msg, code="script.text") from None
    return text


def to_json(value: Value, place: ast.Span, file: str) -> JsonValue:
    """A value as JSON.

    Raises:
        ScriptFailed: It holds a secret or a function.
    """
    match value.data:
        case tuple():
            return [to_json(item, place, file) for item in value.data]
        case Mapping():
            return {key: to_json(item, place, file) for key, item in value.data.items()}
        case Secret():
            msg = (
                f"`{VAULT_SCHEME}{value.data.path}` can only be handed to a tool, or named in `credentials` of `run(…)`"
            )
            raise ScriptFailed(msg, code="script.secret", place=place.place(file))
        case Closure():
            msg = "a function is not data"
            raise ScriptFailed(msg, code="script.type", place=place.place(file))
        case _:
            return value.data


def tool_arguments(
    arguments: Mapping[str, Value], place: ast.Span, file: str
) -> tuple[dict[str, JsonValue], dict[str, Label], tuple[str, ...]]:
    """Arguments of a tool as JSON, the label of each, and the paths of the secrets in them.

    Beside the label of an argument stands that of each part which bears another, by its path (`options.url`).

    A text that looks like a vault reference but is none is refused: where it came from outside, it must not pull a
    secret in.

    Raises:
        ScriptFailed: Such a text, or a function.
    """
    secrets: set[str] = set()
    plain = {name: argument_data(value, secrets, place, file) for name, value in arguments.items()}
    labels = argument_labels(arguments, {name: deep_label(value) for name, value in arguments.items()})
    return plain, labels, tuple(sorted(secrets))


def argument_data(value: Value, secrets: set[str], place: ast.Span, file: str) -> JsonValue:
    """An argument as JSON; the paths of the secrets in it are added to `secrets`. Raises as `tool_arguments`."""
    match value.data:
        case tuple():
            return [argument_data(item, secrets, place, file) for item in value.data]
        case Mapping():
            return {key: argument_data(item, secrets, place, file) for key, item in value.data.items()}
        case Secret():
            secrets.add(value.data.path)
            return VAULT_SCHEME + value.data.path
        case str() if value.data.startswith(VAULT_SCHEME):
            msg = "a text that begins with `vault://` cannot be an argument; write the reference itself"
            raise ScriptFailed(msg, code="script.secret", place=place.place(file))
        case _:
            return to_json(value, place, file)


def argument_labels(arguments: Mapping[str, Value], whole: Mapping[str, Label]) -> dict[str, Label]:
    """The label of each argument, given as a whole, beside those of its parts that bear another."""
    labels: dict[str, Label] = {}
    for name, value in arguments.items():
        labels.update(_part_labels(name, value, whole[name]))
    labels.update(whole)
    return labels


def _part_labels(name: str, value: Value, whole: Label) -> Iterator[tuple[str, Label]]:
    """The labels of the scalars in a list or record that differ from that of the whole; of the first few."""
    pending: list[tuple[tuple[Step, ...], Value, Label]] = [((name,), value, TEMPLATE)]
    for _ in range(MAX_PART_LABELS):
        if not pending:
            break
        steps, part, shape = pending.pop()
        shape = join(shape, part.label)
        if isinstance(part.data, tuple):
            pending.extend(((*steps, index), item, shape) for index, item in enumerate(part.data[:MAX_PART_LABELS]))
        elif isinstance(part.data, Mapping):
            fields = islice(part.data.items(), MAX_PART_LABELS)
            pending.extend(((*steps, key), item, shape) for key, item in fields)
        elif len(steps) > 1 and shape != whole:
            yield spelled(steps), shape


def type_name(value: Value) -> str:
    """The kind of a value, as messages and `type_of` say it."""
    match value.data:
        case None:
            return "null"
        case bool():
            return "bool"
        case int():
            return "int"
        case float():
            return "float"
        case str():
            return "String"
        case tuple():
            return "list"
        case Mapping():
            return "record"
        case Secret():
            return "secret"
        case Closure():
            return "function"
