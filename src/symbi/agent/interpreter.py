"""The interpreter of agent bodies: a tree walk, step by step, that does nothing to the world by itself.

Every effect goes through `Effects`, the one object it is given; everything else is pure. So a run that is started
again with the same inputs and the same recorded effects takes the same steps.

Labels follow data: a value made from others joins their labels. They do not follow control: what an `if` on an
untrusted value assigns keeps the label of what is assigned.

Every node counts as a step, and so does a share of each large value that is walked through or copied: steps bound the
time of a body, and between two pauses nothing takes long.
"""

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

import anyio.lowlevel

from symbi.agent import operators
from symbi.agent.calls import Effect, Effects, asked
from symbi.agent.pieces import alike, has, in_pieces, is_large, label_of
from symbi.agent.pure import Caller, call_pure
from symbi.agent.values import NULL, Closure, Scope, Secret, Value, key_of, taken, type_name
from symbi.dsl import ast
from symbi.dsl.builtins import CATCHABLE, EFFECTS, METHODS, NEVER_CAUGHT, PURE
from symbi.errors import (
    Place,
    ScriptFailed,
    StepLimit,
    SymbiError,
    did_you_mean,
)
from symbi.guard.outcome import error_label
from symbi.policy.flow import join
from symbi.types import Integrity, Label

WALKED_PER_STEP: Final = 32  # weight of a value that is walked through in the time of a few steps
COPIED_PER_STEP: Final = 1024  # likewise of one whose items are only copied
COPYING: Final = frozenset({"append", "first", "get", "last", "len", "merge", "reverse", "slice", "type_of", "values"})
"""Helpers that look at none or few of the items they are given."""
EFFECT_FRAMES: Final = 250  # Python's own calls that an effect may nest: it must never be broken off by them
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


def no_check() -> None:
    """The default of `check`: the body goes on."""


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
        check: Asked now and then between steps; what it raises ends the body.
    """

    def __init__(
        self,
        file: str,
        functions: Sequence[ast.Function],
        effects: Effects,
        limits: BodyLimits | None = None,
        check: Callable[[], None] = no_check,
    ) -> None:
        self._file = file
        self._functions = {function.name: function for function in functions}
        self._effects = effects
        self._limits = limits or BodyLimits()
        self._check = check
        self._steps = 0
        self._pause_at = min(CHECKPOINT_STEPS, self._limits.steps + 1)
        self._depth = 0
        self._here = ast.Node()  # the node that was entered last, for errors that know no place
        self._seen = Label()

    @property
    def seen(self) -> Label:
        """How confidential what the body has seen is, and whom it is about."""
        return self._seen

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
        self._note(await label_of(*inputs.values()))
        try:
            return await self._block(body, Scope(names=dict(inputs)))
        except _Returned as returned:
            return returned.value
        except RecursionError:
            msg = "the body nests too deeply"
            raise StepLimit(msg, code="limit.nesting", place=self._place(self._here)) from None
        except SymbiError as error:
            error.place = error.place or self._place(self._here)
            raise

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
            before = owner.names[target.id]
            after = operators.assigned(before, path, node.op, value)
        owner.names[target.id] = after
        if path or node.op != "=":
            await self._work(node, COPIED_PER_STEP, after)

    async def _for(self, node: ast.For, scope: Scope) -> None:
        iterable = await self._expr(node.iterable, scope)
        match iterable.data:
            case tuple():
                items: Iterable[Value] = (taken(iterable, item) for item in iterable.data)
            case Mapping():
                items = (key_of(iterable, key) for key in iterable.data)
            case _:
                raise self._failed(f"`for` needs a list or a record, not {type_name(iterable)}", node.iterable)
        for item in items:
            await self._enter(node)
            await self._block(node.body, Scope(scope, {node.name: item}))
            self._depth -= 1

    async def _match(self, node: ast.Match, scope: Scope) -> None:
        subject = await self._expr(node.subject, scope)
        for arm in node.arms:
            with self._at(node):
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
                    await self._block(clause.body, Scope(scope, {clause.name: self._error_value(error)}))
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
                parts = tuple([await self._expr(item, scope) for item in node.items])
                with self._at(node):
                    return Value(parts)
            case ast.Record():
                fields = {field.key: await self._expr(field.value, scope) for field in node.fields}
                with self._at(node):
                    return Value(fields)
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
        await self._work(node, COPIED_PER_STEP if node.op == "+" else WALKED_PER_STEP, left, right)
        with self._at(node):
            if node.op in {"==", "!=", "in"} and is_large(left, right):
                holds = await in_pieces(has(right, left) if node.op == "in" else alike(left, right))
                return Value(holds is (node.op != "!="), await label_of(left, right))
            return operators.binary(node.op, left, right)

    async def _if(self, node: ast.If, scope: Scope) -> Value:
        condition = await self._expr(node.condition, scope)
        inner = scope
        if node.pattern is not None:
            with self._at(node):
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
        per_step = COPIED_PER_STEP if name in COPYING else WALKED_PER_STEP
        await self._work(node, per_step, *positional, *named.values())
        with self._at(node, f"{name}: "):
            result = await call_pure(name, caller, positional, named)
        if name not in COPYING:
            await self._work(node, per_step, result)
        return result

    async def _effect(self, name: str, positional: list[Value], named: dict[str, Value], node: ast.Call) -> Value:
        await self._work(node, WALKED_PER_STEP, *positional, *named.values())
        with self._at(node):
            effect = asked(self._effects, name, positional, named, node.span)
        return await self._placed(effect, node)

    async def _placed(self, effect: Effect, node: ast.Node) -> Value:
        if _frames_left() < EFFECT_FRAMES:
            msg = "the body nests too deeply for an effect"
            raise StepLimit(msg, code="limit.nesting", place=self._place(node))
        with self._at(node):
            value = await effect()
        self._note(await label_of(value))
        return value

    # --- bounds and places ----------------------------------------------------------------------

    async def _enter(self, node: ast.Node) -> None:
        self._here = node
        self._depth += 1
        if self._depth > self._limits.nesting:
            msg = f"the body nests deeper than {self._limits.nesting}"
            raise StepLimit(msg, code="limit.nesting", place=self._place(node))
        self._steps += 1
        if self._steps >= self._pause_at:
            await self._pause(node)

    async def _work(self, node: ast.Node, per_step: int, *values: Value) -> None:
        """Count what is done to values as steps; nothing for small ones."""
        steps = sum([value.weight for value in values]) // per_step
        if steps:
            self._steps += steps
            if self._steps >= self._pause_at:
                await self._pause(node)

    async def _pause(self, node: ast.Node) -> None:
        """Let others run, and a time-out strike; and see that there are steps left."""
        if self._steps > self._limits.steps:
            msg = f"the body took more than {self._limits.steps} steps"
            raise StepLimit(
                msg, place=self._place(node), hint="raise `limits.steps`, or move the work into `python(…)`"
            )
        self._pause_at = min(self._steps + CHECKPOINT_STEPS, self._limits.steps + 1)
        self._check()
        await anyio.lowlevel.checkpoint()

    def _note(self, *labels: Label) -> None:
        """Remember how confidential what the body has seen is, and about whom, for errors that may quote it."""
        seen = join(self._seen, *labels)
        self._seen = replace(seen, integrity=Integrity.USER, sources=())

    def _error_value(self, error: SymbiError) -> Value:
        """What a `catch` binds. A message may quote anything that the body has seen, also from outside."""
        label = join(replace(self._seen, integrity=Integrity.UNTRUSTED, sources=("error",)), error_label(error))
        self._note(label)
        return Value(
            {
                "kind": Value(type(error).__name__),
                "code": Value(error.code),
                "message": Value(error.message, label),
                "hint": Value(error.hint or "", label),
            }
        )

    def _place(self, node: ast.Node) -> Place:
        return node.span.place(self._file)

    def _failed(self, message: str, node: ast.Node, hint: str = "") -> ScriptFailed:
        return ScriptFailed(message, place=self._place(node), hint=hint or None)

    @contextmanager
    def _at(self, node: ast.Node, prefix: str = "") -> Iterator[None]:
        """Give an error without a place that of a node."""
        try:
            yield
        except operators.TypeMismatch as mismatch:
            raise self._failed(f"{prefix}{mismatch}", node) from None
        except SymbiError as error:
            if error.place is None:
                error.place = self._place(node)
            raise


def _frames_left() -> int:
    frame, frames = inspect.currentframe(), 0
    while frame is not None:
        frame, frames = frame.f_back, frames + 1
    return sys.getrecursionlimit() - frames


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
