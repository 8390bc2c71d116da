"""What a manifest declares of one tool's data: which arguments are sinks, and how the fields of its output are labelled.

Paths are a small part of JSONPath, the leading `$.` left out where one likes:

| path | what it names |
|---|---|
| `$` | the whole |
| `recipient`, `options.url` | a field, by its names from the top; a name with other characters is quoted: `"odd name".url` |
| `[*]`, `participants[*]` | every item of a list |
| `*`, `headers.*` | every field of an object, whatever its name |
| `ratings.*~` | those names themselves, where they are data |

A path also covers everything below it, and a list where it names its items' field without `[*]`. Of several paths
that cover a field, the one with the most segments counts, then the one with fewer wildcards, then the stricter one.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final, TypeAlias

from symbi.errors import InputError
from symbi.policy.about import NOBODY, About, about
from symbi.policy.flow import CONFIDENTIALITY_RANK, INTEGRITY_RANK, join, join_subjects
from symbi.types import Confidentiality, Integrity, JsonValue, Label

MAX_NAME_CHARS: Final = 128  # a longer text is prose
MAX_SEGMENTS: Final = 32  # bounds a path; the data that tools exchange is not nested deeper
_STEP: Final = re.compile(r"""\[\*\]|\.(?:(?P<any>\*)|(?P<name>[^\s.\[\]"*~$]+)|"(?P<quoted>(?:[^"\\]|\\.)*)")""")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\x85\u2028\u2029]")

Step: TypeAlias = str | int
"""One step into a value: the name of a field, or the number of an item."""


class Wild(StrEnum):
    """What a segment of a path stands for if it is no name."""

    ITEM = "[*]"
    FIELD = "*"


Segment: TypeAlias = tuple[str, Wild | None]


class Effect(StrEnum):
    """What a call of a tool can do."""

    READ = "read"
    """It reads inside of the system that the tool belongs to; its arguments reach nobody else."""
    FETCH = "fetch"
    """It reads, and its arguments leave: fetching a URL, searching with somebody else. It can carry data out."""
    WRITE = "write"
    """It changes something of the user's own."""
    SEND = "send"
    """It hands something to somebody else: a message, money, an invitation, access."""
    RUN = "run"
    """It carries out code or commands."""
    ANY = "any"
    """Nothing is known of it. The default."""


class Risk(StrEnum):
    """How much harm a call can do, as the operator sees it."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class Role(StrEnum):
    """What an argument is for the flow of data."""

    SINK = "sink"
    """Its value decides where something goes or what is done: a recipient, a URL, a command, a password."""
    TEXT = "text"
    """Free text: addresses, URLs and account numbers in it are sinks, the rest is not."""
    PLAIN = "plain"
    """Neither: a limit, an order, a flag."""


_STRICTNESS: Final[Mapping[Role, int]] = MappingProxyType({Role.PLAIN: 0, Role.TEXT: 1, Role.SINK: 2})


@dataclass(frozen=True, slots=True)
class FieldPath:
    """A path; `names` says that it means the names of the fields it matches, not their values."""

    text: str
    segments: tuple[Segment, ...] = ()
    names: bool = False

    def covers(self, steps: Sequence[Step]) -> bool:
        """Whether the place that these steps lead to is what the path names, or lies below it."""
        return self._reaches(steps) is not None

    def rank(self) -> tuple[int, int]:
        """The higher, the more the path says."""
        return len(self.segments), -sum(wild is not None for _, wild in self.segments)

    def _reaches(self, steps: Sequence[Step]) -> int | None:
        """How many steps the path takes up, or None where it leads elsewhere."""
        at = 0
        for name, wild in self.segments:
            while wild is not Wild.ITEM and at < len(steps) and isinstance(steps[at], int):
                at += 1  # a list in between is passed through
            if at == len(steps):
                return None
            step = steps[at]
            if wild is Wild.ITEM:
                fits = isinstance(step, int)
            else:
                fits = isinstance(step, str) and (wild is Wild.FIELD or step == name)
            if not fits:
                return None
            at += 1
        return at

    def leads_through(self, steps: Sequence[Step]) -> bool:
        """Whether the path goes on below this place."""
        at = 0
        for name, wild in self.segments:
            while wild is not Wild.ITEM and at < len(steps) and isinstance(steps[at], int):
                at += 1
            if at == len(steps):
                return True
            step = steps[at]
            fits = isinstance(step, int) if wild is Wild.ITEM else wild is Wild.FIELD or step == name
            if not fits:
                return False
            at += 1
        return False

    def names_field(self, steps: Sequence[Step]) -> bool:
        """Whether the path names exactly the field at which these steps end."""
        return self._reaches(steps) == len(steps)

    def spells(self, steps: Sequence[Step]) -> bool:
        """Whether the path says the name of the field at which these steps end, at its own end or on its way."""
        return any(
            wild is None and replace(self, segments=self.segments[:count]).names_field(steps)
            for count, (_, wild) in enumerate(self.segments, 1)
        )


def parse_path(text: str) -> FieldPath:
    """Read a path.

    Raises:
        InputError: It is not of the form that the module describes.
    """
    body = text[1:] if text.startswith("$") else text if text.startswith("[") else f".{text}"
    names = body.endswith("~")
    rest = body[:-1] if names else body
    segments: list[Segment] = []
    at = 0
    while match := _STEP.match(rest, at):
        if match["name"] is not None:
            segments.append((match["name"], None))
        elif match["quoted"] is not None:
            segments.append((re.sub(r"\\(.)", r"\1", match["quoted"]), None))
        else:
            segments.append(("", Wild.FIELD if match["any"] else Wild.ITEM))
        at = match.end()
    whole = text == "$"
    if at < len(rest) or len(segments) > MAX_SEGMENTS or (not segments and not whole) or (names and not segments):
        hint = "write `recipient`, `options.url`, `items[*].date`, `ratings.*~`, or `$` for the whole"
        raise InputError(f"`{text}` is not a path", code="policy.path", hint=hint)
    return FieldPath(text, tuple(segments), names)


@dataclass(frozen=True, slots=True)
class OutputRule:
    """How the fields that a path covers are labelled; what is None is left to the rules above it."""

    path: FieldPath
    integrity: Integrity | None = None
    confidentiality: Confidentiality | None = None
    categories: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class ToolFlow:
    """What is declared of one tool's data. By default nothing: every argument is a sink, and the output untrusted.

    Attributes:
        effect: What a call can do.
        risk: How much harm it can do.
        roles: Role by path of the arguments that were declared.
        output: Rules for the output.
        types: JSON Schema type by argument, for where the tool's own schema is not at hand.
        named_by: Arguments that name the people whom a call and its answer are about.
        about: Fields of the answer that name the people whom it is about.
    """

    effect: Effect = Effect.ANY
    risk: Risk = Risk.MEDIUM
    roles: tuple[tuple[FieldPath, Role], ...] = ()
    output: tuple[OutputRule, ...] = ()
    types: Mapping[str, str] = field(default_factory=dict, hash=False)
    named_by: tuple[FieldPath, ...] = ()
    about: tuple[FieldPath, ...] = ()

    def subjects_of_call(self, arguments: Mapping[str, JsonValue]) -> tuple[str, ...]:
        """The people whom a call and its answer are about, by what its arguments name."""
        return about([path.segments for path in self.named_by], arguments).everybody

    def subjects_of_answer(self, answer: JsonValue) -> About:
        """The people whom an answer is about, by what its fields name."""
        return about([path.segments for path in self.about], answer)

    def role(self, steps: Sequence[Step]) -> Role:
        """The role of a field of the arguments."""
        found = [(path.rank(), _STRICTNESS[role], role) for path, role in self.roles if path.covers(steps)]
        return max(found)[2] if found else Role.SINK

    def spells(self, name: Step) -> bool:
        """Whether a path to an argument, or into one, has this name in it, so that nobody chose it for the call."""
        return any(wild is None and name == said for path, _ in self.roles for said, wild in path.segments)

    def label(self, steps: Sequence[Step]) -> Label:
        """The label of a field of the output, without sources."""
        return _combined([rule for rule in self.output if not rule.path.names and rule.path.covers(steps)])

    def name_label(self, steps: Sequence[Step]) -> Label:
        """The label of the name under which a field stands: as it is said of names, or else of what holds it."""
        said = [rule for rule in self.output if rule.path.names and rule.path.names_field(steps)]
        around = [rule for rule in self.output if not rule.path.names and rule.path.covers(steps[:-1])]
        return _combined([*said, *around])

    def shape_label(self, steps: Sequence[Step]) -> Label:
        """The label of a list or object as such: how many there are, which, and in what order.

        Where a rule is about something in it, the tool made the shape; else it is labelled like any other field.
        """
        label = self.label(steps)
        if any(rule.path.leads_through(steps) for rule in self.output):
            return Label(Integrity.SYSTEM, label.confidentiality, (), label.categories)
        return label

    def declares_name(self, steps: Sequence[Step]) -> bool:
        """Whether the name of a field is the tool's own word: a rule spells it."""
        return any(
            rule.path.segments and rule.path.segments[-1][1] is None and rule.path.names_field(steps)
            for rule in self.output
        )


def _combined(rules: Sequence[OutputRule]) -> Label:
    """What the rule that says the most says, for each part of a label."""
    trust = [(rule.path.rank(), INTEGRITY_RANK[rule.integrity], rule.integrity) for rule in rules if rule.integrity]
    secrecy = [
        (rule.path.rank(), CONFIDENTIALITY_RANK[rule.confidentiality], rule.confidentiality)
        for rule in rules
        if rule.confidentiality
    ]
    kinds = [(rule.path.rank(), rule.categories) for rule in rules if rule.categories is not None]
    integrity = max(trust)[2] if trust else Integrity.UNTRUSTED
    confidentiality = max(secrecy)[2] if secrecy else Confidentiality.PUBLIC
    categories = max(kinds)[1] if kinds else ()
    return Label(integrity, confidentiality, (), categories)


def spelled(steps: Iterable[Step]) -> str:
    """Steps as a path: `items[0].date`, `$` for none."""
    text = ""
    for step in steps:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            part = step if re.fullmatch(r"""[^\s.\[\]"*~$]+""", step) else '"' + re.sub(r'(["\\])', r"\\\1", step) + '"'
            text += f".{part}" if text else part
    return text or "$"


def is_prose(text: str) -> bool:
    """Whether a text is long, or has more than one line: names, dates and numbers are not, instructions are."""
    return len(text) > MAX_NAME_CHARS or _CONTROL.search(text) is not None


UNDECLARED: Final = ToolFlow()
"""A tool of which no manifest says anything."""


@dataclass(frozen=True, slots=True)
class AnswerLabels:
    """The labels of one answer, field by field.

    Attributes:
        flow: What the manifest declares of the tool.
        given: Join of the labels of what the tool was called with; the answer is at least as confidential.
        source: What the answer came from: an effect id.
        mark: What policies raise every label to.
        about: The people whom it, and its parts, are about.
    """

    flow: ToolFlow
    given: Label
    source: str
    mark: Label = field(default_factory=Label)
    about: About = NOBODY
    _memo: dict[tuple[Step, ...], Label] = field(default_factory=dict, repr=False, compare=False)
    _spellings: dict[tuple[Step, ...], bool] = field(default_factory=dict, repr=False, compare=False)

    def at(self, steps: Sequence[Step], value: JsonValue) -> Label:
        """The label of what stands at a place; of a list or object, that of its shape.

        A text that is prose is untrusted, whoever is said to have made it, unless it is the whole answer.
        """
        if isinstance(value, Mapping) or (isinstance(value, Sequence) and not isinstance(value, str)):
            return self._named(self._kept("shape", steps, self.flow.shape_label), steps)
        return self._named(self._careful(self._kept("value", steps, self.flow.label), steps, value), steps)

    def name_at(self, steps: Sequence[Step], name: str) -> Label:
        """The label of the name under which a field stands."""
        return self._named(self._careful(self._kept("name", steps, self.flow.name_label), steps, name), steps)

    def _named(self, label: Label, steps: Sequence[Step]) -> Label:
        """A label with the people whom this place is about."""
        names = self.about.at(steps)
        return replace(label, subjects=join_subjects(label.subjects, names)) if names else label

    def unvouched_names(self, steps: Sequence[Step], items: Mapping[str, Label]) -> Iterator[Label]:
        """The labels of names that are believed less than what stands under them: a wildcard covers that, and not them.

        Args:
            steps: The place of an object.
            items: The labels of its fields.
        """
        for name, item in items.items():
            path = (*steps, name)
            label = self.name_at(path, name)
            lower = INTEGRITY_RANK[label.integrity] > INTEGRITY_RANK[item.integrity]
            if lower and not self._spelled(path):
                yield label

    def _spelled(self, path: tuple[Step, ...]) -> bool:
        key = tuple(0 if isinstance(step, int) else step for step in path)
        if key not in self._spellings:
            self._spellings[key] = any(rule.path.spells(path) for rule in self.flow.output)
        return self._spellings[key]

    def _kept(self, what: str, steps: Sequence[Step], make: Callable[[Sequence[Step]], Label]) -> Label:
        """A label depends on names alone, not on the numbers of items."""
        key = (what, *(0 if isinstance(step, int) else step for step in steps))
        if key not in self._memo:
            self._memo[key] = self._joined(make(steps))
        return self._memo[key]

    def _careful(self, label: Label, steps: Sequence[Step], value: JsonValue) -> Label:
        if steps and isinstance(value, str) and label.integrity is not Integrity.UNTRUSTED and is_prose(value):
            return replace(label, integrity=Integrity.UNTRUSTED)
        return label

    def _joined(self, label: Label) -> Label:
        whole = join(label, self.mark, replace(self.given, integrity=Integrity.USER, sources=()))
        return replace(whole, sources=(self.source,))
