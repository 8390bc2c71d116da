"""The syntax tree of an agent file (`.symbi`): frozen values, each with the span it was read from.

Two trees that mean the same compare equal: spans and comments take no part in `==`.
"""

from dataclasses import dataclass, field
from typing import TypeAlias

from symbi.errors import Place


@dataclass(frozen=True, slots=True)
class Span:
    """Where a node stands: 1-based line and column of its first character, and half-open character offsets."""

    line: int
    column: int
    start: int
    end: int

    def place(self, file: str) -> Place:
        """This position in a named file."""
        return Place(file, self.line, self.column)


NOWHERE = Span(0, 0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """Base of all nodes."""

    span: Span = field(default=NOWHERE, compare=False, repr=False)


# --- expressions ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class String(Node):
    """`"text"`, with escapes resolved."""

    value: str


@dataclass(frozen=True, slots=True)
class Number(Node):
    """`1_000` or `1.5`; an int where it has no fraction. `text` is what was written."""

    value: int | float
    text: str


@dataclass(frozen=True, slots=True)
class Duration(Node):
    """`30.seconds`, `5m`: amount and unit as written; seconds by `DURATION_S`."""

    amount: int
    unit: str

    @property
    def seconds(self) -> int:
        """The length in seconds; a month counts 30 days, a year 365."""
        return self.amount * DURATION_S[self.unit]


DURATION_S = {
    "seconds": 1,
    "s": 1,
    "minutes": 60,
    "m": 60,
    "hours": 3600,
    "h": 3600,
    "d": 86_400,
    "w": 604_800,
    "months": 2_592_000,
    "y": 31_536_000,
}
"""Units of a duration and their length in seconds."""


@dataclass(frozen=True, slots=True)
class Boolean(Node):
    """`true` or `false`."""

    value: bool


@dataclass(frozen=True, slots=True)
class Name(Node):
    """An identifier used as a value."""

    id: str


@dataclass(frozen=True, slots=True)
class VaultRef(Node):
    """`vault://path`; `path` is what follows the scheme."""

    path: str


@dataclass(frozen=True, slots=True)
class Array(Node):
    """`[a, b]`."""

    items: tuple["Expr", ...]


@dataclass(frozen=True, slots=True)
class Field(Node):
    """`name: value` in a record; `quoted` tells whether the key was written as a string."""

    key: str
    value: "Expr"
    quoted: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Record(Node):
    """`{ a: 1 }`, or `TypeName { a: 1 }` where `type` is set."""

    fields: tuple[Field, ...]
    type: str | None = None


@dataclass(frozen=True, slots=True)
class Unary(Node):
    """`!x`, `not x`, `-x`; op is as written."""

    op: str
    operand: "Expr"


@dataclass(frozen=True, slots=True)
class Binary(Node):
    """`left op right`; all associate to the left."""

    op: str
    left: "Expr"
    right: "Expr"


@dataclass(frozen=True, slots=True)
class Member(Node):
    """`object.name`."""

    object: "Expr"
    name: str


@dataclass(frozen=True, slots=True)
class Index(Node):
    """`object[index]`."""

    object: "Expr"
    index: "Expr"


@dataclass(frozen=True, slots=True)
class Argument(Node):
    """An argument; `name` where it was given by name (`name = v` or `name: v`)."""

    value: "Expr"
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Call(Node):
    """`callee(arguments)`."""

    callee: "Expr"
    arguments: tuple[Argument, ...]


@dataclass(frozen=True, slots=True)
class Lambda(Node):
    """`x => body`."""

    parameter: str
    body: "Expr"


@dataclass(frozen=True, slots=True)
class If(Node):
    """`if`, as a statement or (with `orelse`) as an expression.

    `pattern` is set for `if let PATTERN = condition`. `orelse` is a Block, another If, or None.
    """

    condition: "Expr"
    then: "Block"
    orelse: "Block | If | None" = None
    pattern: "Pattern | None" = None


Expr: TypeAlias = (
    String
    | Number
    | Duration
    | Boolean
    | Name
    | VaultRef
    | Array
    | Record
    | Unary
    | Binary
    | Member
    | Index
    | Call
    | Lambda
    | If
)

# --- patterns and statements ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wildcard(Node):
    """`_` in a pattern."""


Pattern: TypeAlias = String | Number | Boolean | Wildcard | Name
"""What a match arm or an `if let` compares with; a Name binds."""


@dataclass(frozen=True, slots=True)
class Let(Node):
    """`let name = value;`."""

    name: str
    value: Expr


@dataclass(frozen=True, slots=True)
class Assign(Node):
    """`target op value;` with op one of `=`, `+=`, `-=`, `*=`, `/=`, `%=`; target is a Name, Member or Index."""

    target: Name | Member | Index
    op: str
    value: Expr


@dataclass(frozen=True, slots=True)
class Return(Node):
    """`return [value];`."""

    value: Expr | None = None


@dataclass(frozen=True, slots=True)
class ExprStatement(Node):
    """`expr;` or an `if` statement."""

    value: Expr


@dataclass(frozen=True, slots=True)
class For(Node):
    """`for name in iterable { … }`."""

    name: str
    iterable: Expr
    body: "Block"


@dataclass(frozen=True, slots=True)
class Arm(Node):
    """`pattern => body` of a match; body is an expression or a block."""

    pattern: Pattern
    body: "Expr | Block"


@dataclass(frozen=True, slots=True)
class Match(Node):
    """`match subject { arms }`."""

    subject: Expr
    arms: tuple[Arm, ...]


@dataclass(frozen=True, slots=True)
class Catch(Node):
    """`catch (kind name) { … }`; `catch (name)` has kind None and catches every error."""

    name: str
    body: "Block"
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class Try(Node):
    """`try { … } catch …`."""

    body: "Block"
    catches: tuple[Catch, ...]


Statement: TypeAlias = Let | Assign | Return | ExprStatement | For | Match | Try


@dataclass(frozen=True, slots=True)
class Block(Node):
    """`{ statements [value] }`; `value` is the last expression without a semicolon."""

    statements: tuple[Statement, ...] = ()
    value: Expr | None = None


# --- declarations -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TypeRef(Node):
    """`Name` or `Name<args>`."""

    name: str
    arguments: tuple["TypeRef", ...] = ()


@dataclass(frozen=True, slots=True)
class Parameter(Node):
    """`name: Type`."""

    name: str
    type: TypeRef


@dataclass(frozen=True, slots=True)
class Entry(Node):
    """A key with its value in metadata, with-attributes, schedule, channel, memory or webhook."""

    key: str
    value: Expr


@dataclass(frozen=True, slots=True)
class Metadata(Node):
    """`metadata { … }`."""

    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Rule(Node):
    """`effect: subject [if guard]` with effect allow, deny, require or audit."""

    effect: str
    subject: Expr
    guard: Expr | None = None


@dataclass(frozen=True, slots=True)
class Policy(Node):
    """`policy name { rules }`."""

    name: str
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Capabilities(Node):
    """`capabilities = [ … ]`: Strings and Names."""

    items: tuple[String | Name, ...]


@dataclass(frozen=True, slots=True)
class Function(Node):
    """`function name(parameters) [-> Type] { … }`."""

    name: str
    parameters: tuple[Parameter, ...]
    returns: TypeRef | None
    body: Block


@dataclass(frozen=True, slots=True)
class With(Node):
    """`with attributes { … }`: the limits of an agent and its body."""

    attributes: tuple[Entry, ...]
    body: Block


AgentItem: TypeAlias = Capabilities | Policy | Function | With


@dataclass(frozen=True, slots=True)
class Agent(Node):
    """`agent name[(parameters)] [-> Type] { … }`; `has_parens` keeps `agent a()` apart from `agent a` in print."""

    name: str
    parameters: tuple[Parameter, ...]
    returns: TypeRef | None
    items: tuple[AgentItem, ...]
    has_parens: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class TypeField(Node):
    """`name: Type` in a record type."""

    name: str
    type: TypeRef


@dataclass(frozen=True, slots=True)
class TypeAliasDecl(Node):
    """`type name = Ident` (target set) or `type name = { fields }` (fields set)."""

    name: str
    target: str | None = None
    fields: tuple[TypeField, ...] = ()


@dataclass(frozen=True, slots=True)
class Schedule(Node):
    """`schedule name { … }`."""

    name: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Classification(Node):
    """`data_classification { NAME : NAME }` of a channel; `places` are the spans of its entries."""

    entries: tuple[tuple[str, str], ...]
    places: tuple[Span, ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Channel(Node):
    """`channel name { … }`."""

    name: str
    items: tuple[Entry | Policy | Classification, ...]


@dataclass(frozen=True, slots=True)
class Section(Node):
    """`search { … }` of a memory, `filter { … }` of a webhook."""

    name: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Memory(Node):
    """`memory name { … }`."""

    name: str
    items: tuple[Entry | Section, ...]


@dataclass(frozen=True, slots=True)
class Webhook(Node):
    """`webhook name { … }`."""

    name: str
    items: tuple[Entry | Section, ...]


Declaration: TypeAlias = Metadata | Agent | Policy | TypeAliasDecl | Function | Schedule | Channel | Memory | Webhook


@dataclass(frozen=True, slots=True)
class Comment:
    """A comment as written, with its marker; `own_line` where nothing but white space stands before it."""

    text: str
    span: Span
    own_line: bool


@dataclass(frozen=True, slots=True)
class File(Node):
    """A whole agent file. `comments` are in order of appearance."""

    name: str = field(compare=False)
    declarations: tuple[Declaration, ...]
    comments: tuple[Comment, ...] = field(default=(), compare=False)
