"""Calls of effects: what a body can do to the world, and which of it a call asks for."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeAlias

from symbi.agent.operators import TypeMismatch
from symbi.agent.values import NULL, Closure, Value
from symbi.dsl import ast
from symbi.dsl.builtins import EFFECTS
from symbi.errors import ScriptFailed


class Effects(Protocol):
    """What a body can do to the world; implemented by `symbi.agent.effects` and by nothing else outside of tests."""

    async def tool(self, name: Value, arguments: Mapping[str, Value], span: ast.Span) -> Value:
        """Call a tool."""

    async def python(self, code: Value, inputs: Mapping[str, Value], span: ast.Span) -> Value:
        """Run code in a sandbox."""

    async def run(self, image: Value, command: Value, options: Mapping[str, Value], span: ast.Span) -> Value:
        """Run a program of an image in a container; gives its exit code, what it printed, and the files it wrote."""

    async def log(self, message: Value, span: ast.Span) -> Value:
        """Write a line."""

    async def now(self) -> Value:
        """The time, in seconds since the epoch."""

    async def random(self) -> Value:
        """A number from 0 to 1, without 1."""

    async def approval(self, who: Value, what: Value, span: ast.Span) -> Value:
        """Ask people to agree."""

    async def send(self, agent: Value, message: Value, after: Value, span: ast.Span) -> Value:
        """Send a message to an agent, at once or `after` some seconds; gives its id."""

    async def ask(self, agent: Value, message: Value, span: ast.Span) -> Value:
        """Send a message to an agent, and wait for the value of the run that carries it out."""

    async def publish(self, topic: Value, message: Value, span: ast.Span) -> Value:
        """Send a message to every agent that listens to a topic; gives how many those are."""

    async def remember(self, content: Value, options: Mapping[str, Value], span: ast.Span) -> Value:
        """Keep a value in the memory of the agent, beyond this run; gives its id."""

    async def recall(self, options: Mapping[str, Value], span: ast.Span) -> Value:
        """What the agent remembers, or another one shares: the best or the newest items, as records."""

    async def search(self, about: Value, base: Value, limit: Value, span: ast.Span) -> Value:
        """Passages of a collection of documents that have to do with something, best first, with where they stand."""

    async def answer(self, question: Value, base: Value, span: ast.Span) -> Value:
        """An answer from a collection of documents, with the passages that it cites, or that there is none."""

    async def endorse(self, value: Value, name: Value, span: ast.Span) -> Value:
        """The value, believed from here on: what is untrusted in it becomes `trusted`."""

    async def declassify(self, value: Value, name: Value, to: Value, span: ast.Span) -> Value:
        """The value, free to travel from here on: `public`, or no more than `to`, and of no category."""


Effect: TypeAlias = Callable[[], Awaitable[Value]]


def asked(
    effects: Effects, name: str, positional: Sequence[Value], named: Mapping[str, Value], span: ast.Span
) -> Effect:
    """The effect that a call asks for; nothing happens yet.

    Raises:
        TypeMismatch: A function is handed to it.
        ScriptFailed: It is not called like this.
    """
    if any(isinstance(value.data, Closure) for value in [*positional, *named.values()]):
        msg = f"a function cannot be handed to `{name}`"
        raise TypeMismatch(msg)
    match name, positional:
        case "tool", [Value(data=str()) as tool, *rest]:
            if rest:
                msg = 'arguments of a tool are given by name: `tool("server.tool", path = p)`'
                raise TypeMismatch(msg)
            return lambda: effects.tool(tool, named, span)
        case "python", [code]:
            return lambda: effects.python(code, named, span)
        case "run", _:
            return _program(effects, positional, named, span)
        case "log", [message] if not named:
            return lambda: effects.log(message, span)
        case "now", [] if not named:
            return effects.now
        case "random", [] if not named:
            return effects.random
        case "approval", [Value(data=str()) as who, Value(data=str()) as what] if not named:
            return lambda: effects.approval(who, what, span)
        case (("send" | "ask" | "publish"), _):
            return _message(effects, name, positional, named, span)
        case (("remember" | "recall" | "search" | "answer"), _):
            return _memory(effects, name, positional, named, span)
        case (("endorse" | "declassify"), _):
            return _release(effects, name, positional, named, span)
        case _:
            raise _miscalled(name)


def _release(
    effects: Effects, name: str, positional: Sequence[Value], named: Mapping[str, Value], span: ast.Span
) -> Effect:
    match _given(name, positional, named):
        case {"value": value, "name": of} if name == "endorse":
            return lambda: effects.endorse(value, of, span)
        case {"value": value, "name": of, **rest}:
            return lambda: effects.declassify(value, of, rest.get("to", NULL), span)
        case _:
            raise _miscalled(name)


def _program(effects: Effects, positional: Sequence[Value], named: Mapping[str, Value], span: ast.Span) -> Effect:
    match _given("run", positional, named):
        case {"image": image, "command": command, **rest}:
            return lambda: effects.run(image, command, rest, span)
        case _:
            raise _miscalled("run")


def _message(
    effects: Effects, name: str, positional: Sequence[Value], named: Mapping[str, Value], span: ast.Span
) -> Effect:
    match _given(name, positional, named):
        case {"agent": agent, "message": message} if name == "ask":
            return lambda: effects.ask(agent, message, span)
        case {"agent": agent, "message": message, **rest}:
            return lambda: effects.send(agent, message, rest.get("after", NULL), span)
        case {"topic": topic, "message": message}:
            return lambda: effects.publish(topic, message, span)
        case _:
            raise _miscalled(name)


def _memory(
    effects: Effects, name: str, positional: Sequence[Value], named: Mapping[str, Value], span: ast.Span
) -> Effect:
    match _given(name, positional, named):
        case {"content": content, **rest}:
            return lambda: effects.remember(content, rest, span)
        case {"about": about, "base": base, **rest} if name == "search":
            return lambda: effects.search(about, base, rest.get("limit", NULL), span)
        case {"question": question, "base": base}:
            return lambda: effects.answer(question, base, span)
        case dict() as given if name == "recall":
            return lambda: effects.recall(given, span)
        case _:
            raise _miscalled(name)


def _given(name: str, positional: Sequence[Value], named: Mapping[str, Value]) -> dict[str, Value]:
    """Arguments by the names of the effect's parameters."""
    parameters = EFFECTS[name].parameters
    given = dict(zip(parameters, positional, strict=False))
    if len(positional) > len(parameters) or set(given) & set(named) or not set(named) <= set(parameters):
        raise _miscalled(name)
    return given | dict(named)


def _miscalled(name: str) -> ScriptFailed:
    return ScriptFailed(f"`{name}` is not called like this", hint=f"it is {EFFECTS[name]}")
