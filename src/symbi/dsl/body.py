"""Checks what runs: names, calls, types of records, patterns, and code that cannot be reached."""

import keyword
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from symbi.dsl import ast
from symbi.dsl.builtins import CATCHABLE, EFFECTS, LATER_EFFECTS, MEMORIES, MESSAGES, METHODS, PURE, RELEASES, Signature
from symbi.dsl.containers import check_run
from symbi.dsl.findings import Findings
from symbi.dsl.memories import check_memory
from symbi.dsl.messages import check_message
from symbi.dsl.names import TOOL_NAME, Tools, path_of, unknown_tool
from symbi.dsl.releases import check_release
from symbi.dsl.rules import covers
from symbi.errors import did_you_mean

MAIN: Final = "main"
"""The function that is the body of an agent without a `with` block that does something."""

_COMPARED: Final = ("==", "!=", "<", "<=", ">", ">=", "in")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a body sees of the file around it.

    Attributes:
        functions: Declared functions by name, the agent's before the file's.
        records: Fields of the declared record types, aliases included.
        tools: The tools there are.
        capabilities: What the agent lists; None where it sets no bound, and for functions of the file.
        agents: The agents of the file, by name.
        own: Whose body it is; None for functions of the file.
        contained: Its code runs in containers, as far as the agent says; of functions of the file that is not known.
    """

    functions: Mapping[str, ast.Function]
    records: Mapping[str, frozenset[str]]
    tools: Tools = None
    capabilities: tuple[str, ...] | None = None
    agents: Mapping[str, ast.Agent] | None = None
    own: str | None = None
    contained: bool = True


@dataclass(slots=True)
class _Variable:
    """A variable in scope; `watched` ones should be read at least once."""

    span: ast.Span
    watched: bool
    used: bool = False


class BodyChecker:
    """Checks blocks of one agent or file; findings go to the list it was made with."""

    def __init__(self, findings: Findings, surroundings: Surroundings) -> None:
        self._findings = findings
        self._around = surroundings
        self._scopes: list[dict[str, _Variable]] = []

    def check(self, block: ast.Block, parameters: Sequence[ast.Parameter]) -> None:
        """Check a body whose variables at its start are the parameters."""
        with self._scope():
            for parameter in parameters:
                self._bind(parameter.name, parameter.span, watched=False)
            self._block(block)

    # --- variables ---

    @contextmanager
    def _scope(self) -> Iterator[None]:
        self._scopes.append({})
        yield
        for name, variable in self._scopes.pop().items():
            if variable.watched and not variable.used:
                hint = f"call it `_{name}` if that is meant"
                self._findings.warning("unused", f"variable `{name}` is never read", variable.span, hint)

    def _bind(self, name: str, span: ast.Span, *, watched: bool) -> None:
        self._scopes[-1][name] = _Variable(span, watched and not name.startswith("_"))

    def _find(self, name: str) -> _Variable | None:
        return next((scope[name] for scope in reversed(self._scopes) if name in scope), None)

    def _variables(self) -> list[str]:
        return [name for scope in self._scopes for name in scope]

    def _read(self, node: ast.Name) -> None:
        variable = self._find(node.id)
        if variable is not None:
            variable.used = True
        elif node.id in PURE or node.id in self._around.functions:
            hint = f"write `x => {node.id}(x)`"
            self._findings.error("function_as_value", f"`{node.id}` is a function, not a value", node.span, hint)
        else:
            hint = did_you_mean(node.id, self._variables())
            self._findings.error("unknown_name", f"unknown name `{node.id}`", node.span, hint)

    # --- statements ---

    def _block(self, block: ast.Block) -> None:
        with self._scope():
            ended = told = False
            for statement in block.statements:
                if ended and not told:
                    self._unreachable(statement.span, "nothing after `return` runs")
                    told = True
                self._statement(statement)
                ended = ended or _ends(statement)
            if block.value is not None:
                if ended and not told:
                    self._unreachable(block.value.span, "nothing after `return` runs")
                self._expr(block.value)

    def _statement(self, node: ast.Statement) -> None:
        match node:
            case ast.Let():
                self._let(node)
            case ast.Assign(target=target, value=value):
                self._expr(value)
                self._assign(target)
            case ast.Return(value=result):
                if result is not None:
                    self._expr(result)
            case ast.ExprStatement(value=ast.If() as branch):
                self._if(branch)
            case ast.ExprStatement(value=value):
                self._expr(value)
            case ast.For(name=name, iterable=iterable, body=body):
                self._expr(iterable)
                with self._scope():
                    self._bind(name, node.span, watched=True)
                    self._block(body)
            case ast.Match(subject=subject, arms=arms):
                self._expr(subject)
                self._arms(arms)
            case ast.Try():
                self._try(node)

    def _let(self, node: ast.Let) -> None:
        self._expr(node.value)
        if node.name in self._scopes[-1]:
            hint = f"write `{node.name} = …;` to change it"
            self._findings.error("duplicate", f"variable `{node.name}` is there already", node.span, hint)
        if isinstance(node.value, ast.Lambda) and self._signature(node.name) is not None:
            message = f"`{node.name}(…)` would not call this: it is a function already"
            self._findings.error("shadowed", message, node.span, "give it another name")
        self._bind(node.name, node.span, watched=True)

    def _assign(self, target: ast.Name | ast.Member | ast.Index) -> None:
        root: ast.Expr = target
        while isinstance(root, ast.Member | ast.Index):
            if isinstance(root, ast.Index):
                self._expr(root.index)
            root = root.object
        if not isinstance(root, ast.Name):
            self._findings.error("assignment", "only variables, and what is in them, can be assigned", target.span)
        elif (variable := self._find(root.id)) is None:
            hint = did_you_mean(root.id, self._variables()) or f"declare it with `let {root.id} = …;`"
            self._findings.error("unknown_name", f"unknown variable `{root.id}`", root.span, hint)
        elif target is not root:
            variable.used = True

    def _arms(self, arms: Sequence[ast.Arm]) -> None:
        seen: set[ast.Pattern] = set()
        for arm in arms:
            if any(isinstance(pattern, ast.Wildcard | ast.Name) for pattern in seen) or arm.pattern in seen:
                self._unreachable(arm.span, "an arm before takes all of it")
            seen.add(arm.pattern)
            with self._scope():
                self._pattern(arm.pattern)
                if isinstance(arm.body, ast.Block):
                    self._block(arm.body)
                else:
                    self._expr(arm.body)

    def _pattern(self, pattern: ast.Pattern) -> None:
        if isinstance(pattern, ast.Name):
            self._bind(pattern.id, pattern.span, watched=True)

    def _try(self, node: ast.Try) -> None:
        self._block(node.body)
        if not node.catches:
            self._findings.warning("try", "a `try` without `catch` changes nothing", node.span)
        caught: set[str] = set()
        for catch in node.catches:
            kind = catch.kind or "Error"
            if kind in caught or "Error" in caught:
                self._unreachable(catch.span, "a `catch` before takes it")
            caught.add(kind)
            if kind not in CATCHABLE:
                hint = did_you_mean(kind, CATCHABLE) or f"known are {', '.join(f'`{name}`' for name in CATCHABLE)}"
                self._findings.error("catch", f"unknown kind of error `{kind}`", catch.span, hint)
            elif catch.kind is None and catch.name in CATCHABLE:
                message = f"`catch ({catch.name})` catches every error and calls it `{catch.name}`"
                self._findings.error("catch", message, catch.span, f"write `catch ({catch.name} e)`")
            with self._scope():
                self._bind(catch.name, catch.span, watched=False)
                self._block(catch.body)

    def _unreachable(self, span: ast.Span, why: str) -> None:
        self._findings.warning("unreachable", "this is never reached", span, why)

    # --- expressions ---

    def _expr(self, node: ast.Expr) -> None:
        match node:
            case ast.Name():
                self._read(node)
            case ast.Array(items=items):
                for item in items:
                    self._expr(item)
            case ast.Record():
                self._record(node)
            case ast.Unary(operand=operand):
                self._expr(operand)
            case ast.Binary(left=left, right=right):
                note_not(node, self._findings)
                self._expr(left)
                self._expr(right)
            case ast.Member(object=inner):
                self._expr(inner)
            case ast.Index(object=inner, index=index):
                self._expr(inner)
                self._expr(index)
            case ast.Call():
                self._call(node)
            case ast.Lambda(parameter=parameter, body=body):
                with self._scope():
                    self._bind(parameter, node.span, watched=True)
                    self._expr(body)
            case ast.If():
                self._if(node)
            case _:
                pass  # literals and vault references

    def _if(self, node: ast.If) -> None:
        self._expr(node.condition)
        with self._scope():
            if node.pattern is not None:
                self._pattern(node.pattern)
            self._block(node.then)
        if isinstance(node.orelse, ast.If):
            self._if(node.orelse)
        elif node.orelse is not None:
            self._block(node.orelse)

    def _record(self, node: ast.Record) -> None:
        for field in node.fields:
            self._expr(field.value)
        note_repeated(((field.key, field.span) for field in node.fields), "field", self._findings)
        if node.type is None:
            return
        declared = self._around.records.get(node.type)
        if declared is None:
            hint = did_you_mean(node.type, self._around.records) or "declare it with `type`"
            self._findings.error("unknown_type", f"`{node.type}` is no record type", node.span, hint)
            return
        for field in node.fields:
            if field.key not in declared:
                hint = did_you_mean(field.key, declared)
                self._findings.error("record", f"`{node.type}` has no field `{field.key}`", field.span, hint)
        missing = sorted(declared - {field.key for field in node.fields})
        if missing:
            names = ", ".join(f"`{name}`" for name in missing)
            self._findings.error("record", f"`{node.type}` lacks {names}", node.span, "give every declared field")

    # --- calls ---

    def _signature(self, name: str) -> Signature | None:
        declared = self._around.functions.get(name)
        if declared is not None:
            parameters = tuple(parameter.name for parameter in declared.parameters)
            return Signature(name, parameters, len(parameters))
        return EFFECTS.get(name) or PURE.get(name)

    def _call(self, node: ast.Call) -> None:
        match node.callee:
            case ast.Name(id=name):
                self._call_name(node, name)
            case ast.Member(object=receiver, name=name):
                self._call_method(node, receiver, name)
            case _:
                self._expr(node.callee)
                hint = "give the function a name with `let`"
                self._findings.error("call", "only names and methods can be called", node.span, hint)
        for argument in node.arguments:
            self._expr(argument.value)

    def _call_name(self, node: ast.Call, name: str) -> None:
        signature = self._signature(name)
        if name in LATER_EFFECTS:
            self._findings.later(name, node.span)
        elif signature is not None:
            self._arguments(signature, node)
            if name == MAIN:
                self._findings.error("call", f"`{MAIN}` is run by the runtime, not called", node.span)
            if name in EFFECTS:
                self._effect(node, name)
        elif (variable := self._find(name)) is not None:
            variable.used = True
            self._arguments(Signature(name, ("x",), 1), node)
        else:
            known = (*EFFECTS, *PURE, *self._around.functions, *self._variables())
            hint = did_you_mean(name, known)
            self._findings.error("unknown_function", f"unknown function `{name}`", node.span, hint)

    def _call_method(self, node: ast.Call, receiver: ast.Expr, name: str) -> None:
        path = path_of(node.callee)
        if path is not None and self._find(path[0]) is None and len(path) == 2:  # noqa: PLR2004 - server and tool
            hint = f'call a tool with `tool("{".".join(path)}", …)`'
            self._findings.error("unknown_name", f"unknown name `{path[0]}`", node.span, hint)
            return
        self._expr(receiver)
        if name not in METHODS:
            hint = did_you_mean(name, METHODS)
            self._findings.error("unknown_function", f"unknown method `{name}`", node.span, hint)
            return
        whole = PURE[name]
        function = None if whole.function is None else whole.function - 1
        required = max(whole.required - 1, 0)
        signature = Signature(
            name, whole.parameters[1:], required, variadic=whole.variadic, keywords=whole.keywords, function=function
        )
        self._arguments(signature, node)

    def _arguments(self, signature: Signature, node: ast.Call) -> None:
        by_position = [argument for argument in node.arguments if argument.name is None]
        named = [argument for argument in node.arguments if argument.name is not None]
        note_repeated(((argument.name or "", argument.span) for argument in named), "argument", self._findings)
        first_named = next((index for index, item in enumerate(node.arguments) if item.name is not None), None)
        if first_named is not None and any(item.name is None for item in node.arguments[first_named:]):
            message = "an argument without a name stands after one with a name"
            self._findings.error("arguments", message, node.span, "give unnamed arguments first")
        if len(by_position) > len(signature.parameters) and not signature.variadic:
            hint = "give further arguments by name" if signature.keywords else f"call it as `{signature}`"
            message = (
                f"`{signature.name}` takes {_count(len(signature.parameters))} by position, not {len(by_position)}"
            )
            self._findings.error("arguments", message, node.span, hint)
        given = set(signature.parameters[: len(by_position)])
        for argument in named:
            if signature.keywords:
                continue
            name = argument.name or ""
            if name not in signature.parameters:
                hint = did_you_mean(name, signature.parameters) or f"call it as `{signature}`"
                message = f"`{signature.name}` has no parameter `{name}`"
                self._findings.error("arguments", message, argument.span, hint)
            elif name in signature.parameters[: len(by_position)]:
                self._findings.error("arguments", f"`{name}` is given by position already", argument.span)
            given.add(name)
        missing = [name for name in signature.parameters[: signature.required] if name not in given]
        if missing:
            message = f"`{signature.name}` needs {', '.join(f'`{name}`' for name in missing)}"
            self._findings.error("arguments", message, node.span, f"call it as `{signature}`")
        self._function_argument(signature, by_position, named)

    def _function_argument(
        self, signature: Signature, by_position: Sequence[ast.Argument], named: Sequence[ast.Argument]
    ) -> None:
        if signature.function is None:
            return
        name = signature.parameters[signature.function]
        for index, argument in [*enumerate(by_position), *((-1, argument) for argument in named)]:
            wanted = index == signature.function or argument.name == name
            if wanted and not isinstance(argument.value, ast.Lambda | ast.Name | ast.If):
                message = f"`{signature.name}` takes a function here"
                self._findings.error("arguments", message, argument.span, "write `x => …`")

    def _effect(self, node: ast.Call, name: str) -> None:
        if name in RELEASES:
            check_release(node, name, self._findings)
        if name in MESSAGES:
            check_message(node, name, self._around.agents or {}, self._around.own, self._findings)
        if name in MEMORIES:
            check_memory(node, name, self._findings)
        if name == "run":
            check_run(node, self._findings, contained=self._around.contained)
        if name == "tool":
            self._tool(node)
        elif self._around.capabilities is not None and not covers(self._around.capabilities, name):
            self._unlisted(name, node.span)
        for argument in node.arguments:
            if name != "tool" and isinstance(argument.value, ast.VaultRef):
                message = "a secret can be handed to a tool, and to nothing else"
                self._findings.error("vault", message, argument.value.span, "pass it to `tool(…)`")
            if name == "python" and argument.name is not None and keyword.iskeyword(argument.name):
                message = f"`{argument.name}` is a word of Python and cannot name an input"
                self._findings.error("arguments", message, argument.span, "give the input another name")

    def _tool(self, node: ast.Call) -> None:
        first = node.arguments[0] if node.arguments else None
        if first is None or first.name is not None or not isinstance(first.value, ast.String):
            return
        name, span = first.value.value, first.value.span
        if not TOOL_NAME.fullmatch(name):
            self._findings.error("unknown_tool", f"`{name}` is not the name of a tool", span, "write `server.tool`")
            return
        if (hint := unknown_tool(name, self._around.tools)) is not None:
            self._findings.error("unknown_tool", f"unknown tool `{name}`", span, hint)
            return
        if self._around.capabilities is not None and not covers(self._around.capabilities, name):
            self._unlisted(name, span)
        declared = self._around.tools.get(name) if isinstance(self._around.tools, Mapping) else None
        self._tool_arguments(name, node, declared)

    def _tool_arguments(self, name: str, node: ast.Call, declared: Collection[str] | None) -> None:
        for argument in node.arguments:
            if declared is not None and argument.name is not None and argument.name not in declared:
                hint = did_you_mean(argument.name, declared)
                message = f"`{name}` takes no argument `{argument.name}`"
                self._findings.error("arguments", message, argument.span, hint)

    def _unlisted(self, what: str, span: ast.Span) -> None:
        message = f"the agent's capabilities do not list `{what}`: this is always denied"
        self._findings.warning("capability", message, span, f'add `"{what}"` to `capabilities`')


def note_not(node: ast.Binary, findings: Findings) -> None:
    """Warn of `not a in b`, which asks whether `not a` is in `b`."""
    left = node.left
    bare = isinstance(left, ast.Unary) and left.op == "not" and left.span.start == node.span.start
    if node.op in _COMPARED and bare:
        hint = f"write `!(a {node.op} b)`, or `(not a) {node.op} b` if that is meant"
        findings.warning("not", f"`not a {node.op} b` means `(not a) {node.op} b`", node.span, hint)


def note_repeated(names: Iterator[tuple[str, ast.Span]], what: str, findings: Findings) -> None:
    """Refuse names that are there twice, at the second."""
    seen: set[str] = set()
    for name, span in names:
        if name in seen:
            findings.error("duplicate", f"{what} `{name}` is there twice", span)
        seen.add(name)


def _ends(statement: ast.Statement) -> bool:
    """Whether nothing after a statement can run."""
    match statement:
        case ast.Return():
            return True
        case ast.ExprStatement(value=ast.If() as branch):
            return _branch_ends(branch)
        case _:
            return False


def _branch_ends(node: ast.If) -> bool:
    orelse = node.orelse
    if orelse is None or not _block_ends(node.then):
        return False
    return _branch_ends(orelse) if isinstance(orelse, ast.If) else _block_ends(orelse)


def _block_ends(block: ast.Block) -> bool:
    return any(_ends(statement) for statement in block.statements)


def _count(number: int) -> str:
    return f"{number} argument" if number == 1 else f"{number} arguments"
