"""The interpreter of agent bodies: a tree walk, step by step, that does nothing to the world by itself.

Every effect goes through `Effects`, the one object it is given; everything else is pure. So a run that is started
again with the same inputs and the same recorded effects takes the same steps.

Labels follow data: a value made from others joins their labels. They do not follow control: what an `if` on an
untrusted value assigns keeps the label of what is assigned.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import anyio.lowlevel

from symbi.agent import operators
from symbi.agent.pure import Caller, call_pure
from symbi.agent.values import NULL, Closure, Scope, Secret, Value, bounded, type_name
from symbi.dsl import ast
from symbi.dsl.builtins import CATCHABLE, EFFECTS, METHODS, NEVER_CAUGHT, PURE
from symbi.errors import (
    Place,
    ScriptFailed,
    StepLimit,
    SymbiError,
    did_you_mean,
)
from symbi.types import Integrity, Label

ERROR_LABEL: Final = Label(Integrity.UNTRUSTED, sources=("error",))
CHECKPOINT_STEPS: Final = 512  # steps between two chances for others to run, and for a time-out to strike


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """Bounds of one run's body.

    Attributes:
        steps: Nodes of the tree that may be evaluated.
        nesting: How deep expressions, blocks and calls may nest.
    """

    steps: int = 2_000_000
    nesting: int = 200


class Effects(Protocol):
    """What a body can do to the world; implemented by `symbi.agent.effects` and by nothing else outside of tests."""

    async def tool(self, name: str, arguments: Mapping[str, Value], span: ast.Span) -> Value:
        """Call a tool."""

    async def python(self, code: Value, inputs: Mapping[str, Value], span: ast.Span) -> Value:
        """Run code in a sandbox."""

    async def log(self, message: Value, span: ast.Span) -> Value:
        """Write a line."""

    async def now(self) -> Value:
        """The time, in seconds since the epoch."""

    async def random(self) -> Value:
        """A number from 0 to 1, without 1."""


class _Returned(Exception):
    """A `return` on its way to its function; never seen outside."""

    def __init__(self, value: Value) -> None:
        super().__init__()
        self.value = value


class Interpreter:
    """Runs one body once.

    Args:
        file: Name of the agent file, for places in errors.
        functions: Functions that the body may call.
        effects: What it can do.
        limits: Its bounds.
    """

    def __init__(
        self, file: str, functions: Sequence[ast.Function], effects: Effects, limits: BodyLimits | None = None
    ) -> None:
        self._file = file
        self._functions = {function.name: function for function in functions}
        self._effects = effects
        self._limits = limits or BodyLimits()
        self._steps = 0
        self._depth = 0

    @property
    def steps(self) -> int:
        """Steps taken so far."""
        return self._steps

    async def run(self, body: ast.Block, inputs: Mapping[str, Value]) -> Value:
        """Run a body on its inputs; the value is that of its `return` or last expression.

        Raises:
            ScriptFailed: The body is wrong at a place.
            StepLimit: It took too many steps or nested too deeply.
            OutputLimit: A value grew too large.
            SymbiError: What an effect raised and the body did not catch.
        """
        try:
            return await self._block(body, Scope(names=dict(inputs)))
        except _Returned as returned:
            return returned.value
        except RecursionError:
            msg = "the body nests too deeply"
            raise StepLimit(msg, code="limit.nesting") from None

    # --- blocks and statements ------------------------------------------------------------------

    async def _block(self, block: ast.Block, scope: Scope) -> Value:
        inner = Scope(scope)
        for statement in block.statements:
            await self._statement(statement, inner)
        return NULL if block.value is None else await self._expr(block.value, inner)

    async def _statement(self, node: ast.Statement, scope: Scope) -> None:
        await self._enter(node)
        match node:
            case ast.Let():
                scope.names[node.name] = await self._expr(node.value, scope)
            case ast.Assign():
                await self._assign(node, scope)
            case ast.Return():
                raise _Returned(NULL if node.value is None else await self._expr(node.value, scope))
            case ast.ExprStatement():
                await self._expr(node.value, scope)
            case ast.For():
                await self._for(node, scope)
            case ast.Match():
                await self._match(node, scope)
            case ast.Try():
                await self._try(node, scope)
        self._depth -= 1

    async def _assign(self, node: ast.Assign, scope: Scope) -> None:
        value = await self._expr(node.value, scope)
        path: list[Value | str] = []
        target: ast.Expr = node.target
        while not isinstance(target, ast.Name):
            if isinstance(target, ast.Member):
                path.append(target.name)
                target = target.object
            elif isinstance(target, ast.Index):
                path.append(await self._expr(target.index, scope))
                target = target.object
            else:
                raise self._failed("only a variable, a field or an item can be assigned to", node)
        owner = scope.find(target.id)
        if owner is None:
            raise self._failed(f"unknown variable `{target.id}`", node, "declare it with `let`")
        path.reverse()
        with self._at(node):
            owner.names[target.id] = operators.assigned(owner.names[target.id], path, node.op, value)

    async def _for(self, node: ast.For, scope: Scope) -> None:
        iterable = await self._expr(node.iterable, scope)
        match iterable.data:
            case tuple():
                items: Sequence[Value] = iterable.data
            case Mapping():
                items = [Value(key, iterable.label) for key in iterable.data]
            case _:
                raise self._failed(f"`for` needs a list or a record, not {type_name(iterable)}", node.iterable)
        for item in items:
            await self._block(node.body, Scope(scope, {node.name: item}))

    async def _match(self, node: ast.Match, scope: Scope) -> None:
        subject = await self._expr(node.subject, scope)
        for arm in node.arms:
            bound = _matches(arm.pattern, subject)
            if bound is not None:
                inner = Scope(scope, bound)
                if isinstance(arm.body, ast.Block):
                    await self._block(arm.body, inner)
                else:
                    await self._expr(arm.body, inner)
                return

    async def _try(self, node: ast.Try, scope: Scope) -> None:
        depth = self._depth
        try:
            await self._block(node.body, scope)
        except NEVER_CAUGHT:
            raise
        except SymbiError as error:
            self._depth = depth
            for clause in node.catches:
                if _catches(clause.kind, error):
                    await self._block(clause.body, Scope(scope, {clause.name: _error_value(error)}))
                    return
            raise

    # --- expressions ----------------------------------------------------------------------------

    async def _expr(self, node: ast.Expr, scope: Scope) -> Value:
        await self._enter(node)
        value = await self._evaluate(node, scope)
        self._depth -= 1
        return value

    async def _evaluate(self, node: ast.Expr, scope: Scope) -> Value:
        match node:
            case ast.String() | ast.Number() | ast.Boolean():
                return Value(node.value)
            case ast.Duration():
                return Value(node.seconds)
            case ast.VaultRef():
                return Value(Secret(node.path))
            case ast.Name():
                return self._name(node, scope)
            case ast.Array():
                return bounded(Value(tuple([await self._expr(item, scope) for item in node.items])))
            case ast.Record():
                return Value({field.key: await self._expr(field.value, scope) for field in node.fields})
            case ast.Unary():
                operand = await self._expr(node.operand, scope)
                with self._at(node):
                    return operators.unary(node.op, operand)
            case ast.Binary():
                return await self._binary(node, scope)
            case ast.Member():
                with_fields = await self._expr(node.object, scope)
                with self._at(node):
                    return operators.member(with_fields, node.name)
            case ast.Index():
                container, index = await self._expr(node.object, scope), await self._expr(node.index, scope)
                with self._at(node):
                    return operators.item(container, index)
            case ast.Call():
                return await self._call(node, scope)
            case ast.Lambda():
                return Value(Closure(node, scope))
            case ast.If():
                return await self._if(node, scope)

    def _name(self, node: ast.Name, scope: Scope) -> Value:
        owner = scope.find(node.id)
        if owner is None:
            raise self._failed(f"unknown name `{node.id}`", node)
        return owner.names[node.id]

    async def _binary(self, node: ast.Binary, scope: Scope) -> Value:
        left = await self._expr(node.left, scope)
        if node.op in {"&&", "||"}:
            with self._at(node):
                if operators.truth(left) is (node.op == "||"):
                    return left
            right = await self._expr(node.right, scope)
            with self._at(node):
                return operators.logical(left, right)
        right = await self._expr(node.right, scope)
        with self._at(node):
            return bounded(operators.binary(node.op, left, right))

    async def _if(self, node: ast.If, scope: Scope) -> Value:
        condition = await self._expr(node.condition, scope)
        inner = scope
        if node.pattern is not None:
            bound = None if condition.data is None else _matches(node.pattern, condition)
            taken = bound is not None
            inner = Scope(scope, bound or {})
        else:
            with self._at(node.condition):
                taken = operators.truth(condition)
        if taken:
            return await self._block(node.then, inner)
        if node.orelse is None:
            return NULL
        return await (
            self._expr(node.orelse, scope) if isinstance(node.orelse, ast.If) else self._block(node.orelse, scope)
        )

    # --- calls ----------------------------------------------------------------------------------

    async def _call(self, node: ast.Call, scope: Scope) -> Value:
        positional = [await self._expr(a.value, scope) for a in node.arguments if a.name is None]
        named = {a.name: await self._expr(a.value, scope) for a in node.arguments if a.name is not None}
        callee = node.callee
        if isinstance(callee, ast.Member):
            # A method is a pure helper on its receiver, unless the record has a field of that name.
            receiver = await self._expr(callee.object, scope)
            if callee.name in METHODS and not (isinstance(receiver.data, Mapping) and callee.name in receiver.data):
                return await self._pure(callee.name, [receiver, *positional], named, node)
            with self._at(node):
                function = operators.member(receiver, callee.name)
            return await self._apply(function, positional, node)
        if not isinstance(callee, ast.Name):
            return await self._apply(await self._expr(callee, scope), positional, node)
        name = callee.id
        if name in EFFECTS:
            return await self._effect(name, positional, named, node)
        if name in PURE:
            return await self._pure(name, positional, named, node)
        if name in self._functions:
            return await self._function(self._functions[name], positional, named, node)
        owner = scope.find(name)
        if owner is None:
            known = [*PURE, *EFFECTS, *self._functions]
            raise self._failed(f"unknown function `{name}`", node, did_you_mean(name, known))
        return await self._apply(owner.names[name], positional, node)

    async def _function(
        self, function: ast.Function, positional: Sequence[Value], named: Mapping[str, Value], node: ast.Call
    ) -> Value:
        arguments = dict(zip([p.name for p in function.parameters], positional, strict=False)) | dict(named)
        if len(positional) > len(function.parameters) or set(arguments) != {p.name for p in function.parameters}:
            expected = ", ".join(p.name for p in function.parameters)
            raise self._failed(f"`{function.name}` takes ({expected})", node)
        depth = self._depth
        try:
            return await self._block(function.body, Scope(names=arguments))
        except _Returned as returned:
            self._depth = depth
            return returned.value

    async def _apply(self, function: Value, arguments: Sequence[Value], node: ast.Node) -> Value:
        if not isinstance(function.data, Closure):
            raise self._failed(f"{type_name(function)} cannot be called", node)
        if len(arguments) != 1:
            raise self._failed(f"a function written with `=>` takes one argument, not {len(arguments)}", node)
        closure = function.data
        return await self._expr(closure.node.body, Scope(closure.scope, {closure.node.parameter: arguments[0]}))

    async def _pure(self, name: str, positional: Sequence[Value], named: Mapping[str, Value], node: ast.Call) -> Value:
        async def call(closure: Value, argument: Value) -> Value:
            return await self._apply(closure, [argument], node)

        caller: Caller = call
        try:
            return bounded(await call_pure(name, caller, positional, named))
        except operators.TypeMismatch as mismatch:
            raise self._failed(f"{name}: {mismatch}", node) from None

    async def _effect(self, name: str, positional: list[Value], named: dict[str, Value], node: ast.Call) -> Value:
        for value in [*positional, *named.values()]:
            if isinstance(value.data, Closure):
                raise self._failed(f"a function cannot be handed to `{name}`", node)
        effects = self._effects
        match name, positional:
            case "tool", [Value(data=str() as tool), *rest]:
                if rest:
                    raise self._failed('arguments of a tool are given by name: `tool("server.tool", path = p)`', node)
                return await self._placed(lambda: effects.tool(tool, named, node.span), node)
            case "python", [code]:
                return await self._placed(lambda: effects.python(code, named, node.span), node)
            case "log", [message] if not named:
                return await self._placed(lambda: effects.log(message, node.span), node)
            case "now", [] if not named:
                return await self._placed(effects.now, node)
            case "random", [] if not named:
                return await self._placed(effects.random, node)
            case _:
                raise self._failed(f"`{name}` is not called like this", node, f"it is {EFFECTS[name]}")

    async def _placed(self, effect: Callable[[], Awaitable[Value]], node: ast.Node) -> Value:
        """Run an effect; an error without a place gets that of the call."""
        try:
            return bounded(await effect())
        except SymbiError as error:
            if error.place is None:
                error.place = self._place(node)
            raise

    # --- bounds and places ----------------------------------------------------------------------

    async def _enter(self, node: ast.Node) -> None:
        self._steps += 1
        self._depth += 1
        if self._steps > self._limits.steps:
            msg = f"the body took more than {self._limits.steps} steps"
            raise StepLimit(
                msg, place=self._place(node), hint="raise `limits.steps`, or move the work into `python(…)`"
            )
        if self._depth > self._limits.nesting:
            msg = f"the body nests deeper than {self._limits.nesting}"
            raise StepLimit(msg, code="limit.nesting", place=self._place(node))
        if self._steps % CHECKPOINT_STEPS == 0:
            await anyio.lowlevel.checkpoint()

    def _place(self, node: ast.Node) -> Place:
        return node.span.place(self._file)

    def _failed(self, message: str, node: ast.Node, hint: str = "") -> ScriptFailed:
        return ScriptFailed(message, place=self._place(node), hint=hint or None)

    def _at(self, node: ast.Node) -> "_Placing":
        return _Placing(self, node)


class _Placing:
    """Gives a type mismatch of an operator the place of its node."""

    def __init__(self, interpreter: Interpreter, node: ast.Node) -> None:
        self._interpreter = interpreter
        self._node = node

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, operators.TypeMismatch):
            raise self._interpreter._failed(str(error), self._node) from None  # noqa: SLF001 - one class in two parts


def _matches(pattern: ast.Pattern, subject: Value) -> dict[str, Value] | None:
    """The bindings of a pattern that fits, else None."""
    match pattern:
        case ast.Wildcard():
            return {}
        case ast.Name():
            return {pattern.id: subject}
        case _:
            return {} if operators.equal(Value(pattern.value), subject) else None


def _catches(kind: str | None, error: SymbiError) -> bool:
    return isinstance(error, CATCHABLE[kind or "Error"])


def _error_value(error: SymbiError) -> Value:
    """What a `catch` binds. A message may quote what came from outside, so it is not to be trusted."""
    return Value(
        {
            "kind": Value(type(error).__name__),
            "code": Value(error.code),
            "message": Value(error.message, ERROR_LABEL),
            "hint": Value(error.hint or "", ERROR_LABEL),
        }
    )
