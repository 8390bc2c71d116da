"""Operators of the agent language on labelled values: pure, strict about types, without conversions.

A result joins the labels of its operands. `TypeMismatch` is given its place by the interpreter.
"""

from collections.abc import Mapping, Sequence
from math import isfinite

from symbi.agent.values import NULL, Closure, Secret, Value, deep_label, key_weight, taken, type_name
from symbi.errors import did_you_mean
from symbi.policy.flow import join
from symbi.types import Label


class TypeMismatch(Exception):
    """An operand is not of a type that the operator takes."""


def truth(value: Value) -> bool:
    """A boolean's value; nothing else is true or false."""
    if isinstance(value.data, bool):
        return value.data
    msg = f"a condition must be a bool, not {type_name(value)}"
    raise TypeMismatch(msg)


def logical(left: Value, right: Value) -> Value:
    """The right operand of `&&` or `||`, once the left one did not decide."""
    return Value(truth(right), join(left.label, right.label))


def unary(op: str, operand: Value) -> Value:
    """`!x`, `not x`, `-x`."""
    if op == "-":
        return Value(-number(operand), operand.label)
    return Value(not truth(operand), operand.label)


def binary(op: str, left: Value, right: Value) -> Value:
    """Any other operator than `&&` and `||`."""
    match op:
        case "==" | "!=":
            return Value(equal(left, right) is (op == "=="), join(deep_label(left), deep_label(right)))
        case "in":
            return Value(contains(right, left), join(deep_label(left), deep_label(right)))
        case "<" | ">" | "<=" | ">=":
            return Value(compare(op, left, right), join(left.label, right.label))
        case _:
            return arithmetic(op, left, right)


def arithmetic(op: str, left: Value, right: Value) -> Value:
    """`+ - * / %`; `+` also joins texts, lists and records."""
    label = join(left.label, right.label)
    if op == "+":
        if isinstance(left.data, str) and isinstance(right.data, str):
            return Value(left.data + right.data, label)
        if isinstance(left.data, tuple) and isinstance(right.data, tuple):
            return Value(left.data + right.data, label, left.weight + right.weight - 1)
        if isinstance(left.data, Mapping) and isinstance(right.data, Mapping):
            return Value({**left.data, **right.data}, label)
        if isinstance(left.data, str) or isinstance(right.data, str):
            msg = f"cannot add {type_name(left)} and {type_name(right)}; write `str(x)` to make a text of a value"
            raise TypeMismatch(msg)
    a, b = number(left), number(right)
    if op in {"/", "%"} and b == 0:
        msg = "division by zero"
        raise TypeMismatch(msg)
    match op:
        case "+":
            result: int | float = a + b
        case "-":
            result = a - b
        case "*":
            result = a * b
        case "/":
            exact = isinstance(a, int) and isinstance(b, int) and a % b == 0
            result = a // b if exact else a / b
        case _:
            result = a % b
    return finite(result, label)


def finite(result: float, label: Label) -> Value:
    """A number as a value; infinities and NaN are errors."""
    if not isfinite(result):
        msg = "the result is not a finite number"
        raise TypeMismatch(msg)
    return Value(result, label)


def number(value: Value) -> int | float:
    """A number's value."""
    if isinstance(value.data, int | float) and not isinstance(value.data, bool):
        return value.data
    msg = f"expected a number, found {type_name(value)}"
    raise TypeMismatch(msg)


def integer(value: Value) -> int:
    """An integer's value."""
    if isinstance(value.data, int) and not isinstance(value.data, bool):
        return value.data
    msg = f"expected an integer, found {type_name(value)}"
    raise TypeMismatch(msg)


def text(value: Value) -> str:
    """A text's value."""
    if isinstance(value.data, str):
        return value.data
    msg = f"expected a String, found {type_name(value)}"
    raise TypeMismatch(msg)


def items(value: Value) -> Sequence[Value]:
    """A list's items."""
    if isinstance(value.data, tuple):
        return value.data
    msg = f"expected a list, found {type_name(value)}"
    raise TypeMismatch(msg)


def compare(op: str, left: Value, right: Value) -> bool:
    """Order of two numbers or two texts."""
    if isinstance(left.data, str) and isinstance(right.data, str):
        a: float | str = left.data
        b: float | str = right.data
    else:
        a, b = number(left), number(right)
    match op:
        case "<":
            return a < b  # type: ignore[operator]  # both are numbers or both are texts
        case ">":
            return a > b  # type: ignore[operator]  # likewise
        case "<=":
            return a <= b  # type: ignore[operator]  # likewise
        case _:
            return a >= b  # type: ignore[operator]  # likewise


def equal(left: Value, right: Value) -> bool:
    """Deep equality; values of different kinds are unequal, numbers compare by value."""
    a, b = left.data, right.data
    if isinstance(a, Closure | Secret) or isinstance(b, Closure | Secret):
        msg = "functions and secrets cannot be compared"
        raise TypeMismatch(msg)
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, tuple | Mapping) or isinstance(b, tuple | Mapping):
        return False
    return a == b


def contains(container: Value, wanted: Value) -> bool:
    """Whether a text has a part, a list an item, a record a key."""
    match container.data:
        case str():
            return text(wanted) in container.data
        case tuple():
            return any(equal(item, wanted) for item in container.data)
        case Mapping():
            return text(wanted) in container.data
        case _:
            msg = f"`in` needs a String, a list or a record, not {type_name(container)}"
            raise TypeMismatch(msg)


def member(value: Value, name: str) -> Value:
    """A record's field."""
    if not isinstance(value.data, Mapping):
        msg = f"{type_name(value)} has no fields; `.{name}` needs a record"
        raise TypeMismatch(msg)
    found = value.data.get(name)
    if found is None:
        hint = did_you_mean(name, value.data)
        msg = f"the record has no field `{name}`" + (f"; {hint}" if hint else "")
        raise TypeMismatch(msg)
    return taken(value, found)


def item(container: Value, index: Value) -> Value:
    """An item of a list or text by position (negative from the end), of a record by key."""
    match container.data:
        case Mapping():
            return _joined(member(container, text(index)), index)
        case tuple():
            return _joined(taken(container, container.data[_position(index, len(container.data))]), index)
        case str():
            return Value(container.data[_position(index, len(container.data))], join(container.label, index.label))
        case _:
            msg = f"{type_name(container)} has no items"
            raise TypeMismatch(msg)


def assigned(old: Value, path: Sequence[Value | str], op: str, value: Value) -> Value:
    """The changed copy of a variable's value after `variable.path op value`."""
    if not path:
        return value if op == "=" else arithmetic(op[:-1], old, value)
    step, rest = path[0], path[1:]
    key = Value(step) if isinstance(step, str) else step
    match old.data:
        case Mapping():
            name = text(key)
            before = old.data.get(name)
            changed = assigned(member(old, name), rest, op, value) if rest or op != "=" else value
            weight = old.weight + changed.weight - (-key_weight(name) if before is None else before.weight)
            return Value({**old.data, name: changed}, join(old.label, key.label), weight)
        case tuple():
            position = _position(key, len(old.data))
            before = old.data[position]
            changed = assigned(taken(old, before), rest, op, value)
            data = (*old.data[:position], changed, *old.data[position + 1 :])
            return Value(data, join(old.label, key.label), old.weight + changed.weight - before.weight)
        case _:
            msg = f"{type_name(old)} has no fields or items to assign to"
            raise TypeMismatch(msg)


def _position(index: Value, length: int) -> int:
    position = integer(index)
    if not -length <= position < length:
        msg = f"position {position} is outside of {length} items"
        raise TypeMismatch(msg)
    return position % length


def _joined(value: Value, index: Value) -> Value:
    """An item, which also depends on the index that chose it."""
    return value if index.label == NULL.label else Value(value.data, join(value.label, index.label), value.weight)
