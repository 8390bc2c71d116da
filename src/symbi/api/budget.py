"""What people can ask about budgets: show, raise. JSON in, JSON out, behind the gate."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from symbi.api.agents import called
from symbi.api.caller import Caller, Operation
from symbi.errors import InputError
from symbi.guard.spending import read_amount
from symbi.runtime.raising import raise_budget as raised
from symbi.runtime.runtime import Runtime
from symbi.types import JsonValue, RunId


async def show_budget(runtime: Runtime, _caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """The account of a run with those above it, or the newest accounts of an agent."""
    return [account.facts() for account in await runtime.budgets.find(_text(arguments, "of"))]


async def raise_budget(runtime: Runtime, caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Let a run spend more."""
    amounts = arguments.get("amounts")
    if not isinstance(amounts, Mapping) or not amounts:
        msg = "the operation needs `amounts`: texts such as `+10`, by what they are of"
        raise InputError(msg, code="control.argument")
    more = dict(_more(name, text) for name, text in amounts.items())
    account = await raised(runtime, RunId(_text(arguments, "run")), more, called(runtime, caller))
    return account.facts()


def _more(name: str, text: JsonValue) -> tuple[str, tuple[bool, int]]:
    """By kind, whether it is added, and how much."""
    added = isinstance(text, str) and text.startswith("+")
    kind, amount = read_amount(name, text.removeprefix("+") if isinstance(text, str) else text)
    return kind, (added, amount)


def _text(arguments: Mapping[str, JsonValue], name: str) -> str:
    value = arguments.get(name)
    if not isinstance(value, str) or not value:
        msg = f"the operation needs `{name}`, a text"
        raise InputError(msg, code="control.argument")
    return value


OPERATIONS: Final[Mapping[str, Operation]] = MappingProxyType(
    {"budget.show": show_budget, "budget.raise": raise_budget}
)
"""Operations by name."""
