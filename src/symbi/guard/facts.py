"""What a decision was made on, as the store keeps it beside the ledger: the request, and the policy set.

The request obeys the conditions that hide arguments: a redacted field and, under `@record("digest")` or
`@record("redacted")`, every argument stands as `[redacted]`. A refusal that such conditions would have covered hides
them all. `withheld` then says why, because a decision cannot be derived again from what is not there.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Final

from symbi.errors import InputError
from symbi.guard.action import Action, InvokeTool
from symbi.policy.decision import AllowWithConditions, Deny, PolicyDecision, PolicyRequest
from symbi.policy.engine import PolicyEngine
from symbi.policy.obligations import REDACTED, Obligations, combine
from symbi.policy.policies import PolicySet
from symbi.policy.stored import encode, request_json
from symbi.types import JsonValue, Label

MAX_REQUEST_BYTES: Final = 65_536  # of one stored request; the arguments of a larger one are left out
MAX_PAST_SETS: Final = 4  # sets that a decision may still be of while it is recorded

_OF_THE_RUN: Final = frozenset({"label", "labels", "secrets", "opaque", "request", "time", "usage", "history"})
"""Parts of a context that hold no value of an argument, but for sums: what they count, the store keeps in any case."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What one decision was made on.

    Attributes:
        request: The request, as `symbi.policy.stored` writes it; sealed where it is about somebody.
        policies: The set; None where it is not in force any more, and was kept when it was.
    """

    request: bytes
    policies: PolicySet | None = field(repr=False)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the request; it stands in the decision's event."""
        return hashlib.sha256(self.request).hexdigest()


class FactKeeper:
    """Makes the facts of decisions.

    Args:
        engine: Whose sets decide.
    """

    def __init__(self, engine: PolicyEngine) -> None:
        self._sets = {engine.current.version: engine.current}
        engine.on_change(self._changed)

    def of(
        self, asked: Callable[[], PolicyRequest], action: Action, decision: PolicyDecision, *, refused: bool
    ) -> Facts:
        """The facts of a decision.

        Args:
            asked: Makes what was put to the engine.
            action: What was decided on.
            decision: What it answered.
            refused: The effect does not happen.

        Raises:
            InputError: A request that was allowed cannot be written down.
        """
        try:
            request = asked()
            document = _document(request, action, _hidden(decision, refused=refused))
            data = encode(document)
            if len(data) > MAX_REQUEST_BYTES:
                why = f"the request has {len(data)} bytes, and up to {MAX_REQUEST_BYTES} are kept"
                data = encode(_document(request, action, _Hidden(why=why)))
            if len(data) > MAX_REQUEST_BYTES:
                data = encode(_unfit(action, f"the request has more than {MAX_REQUEST_BYTES} bytes"))
        except Exception as error:
            if not isinstance(decision, Deny):
                raise
            told = error.message if isinstance(error, InputError) else type(error).__name__
            data = encode(_unfit(action, f"the action cannot be put to the engine: {told}"))
        return Facts(data, self._sets.get(decision.version))

    def _changed(self, policies: PolicySet) -> None:
        self._sets.pop(policies.version, None)
        self._sets[policies.version] = policies
        while len(self._sets) > MAX_PAST_SETS:
            del self._sets[next(iter(self._sets))]


@dataclass(frozen=True, slots=True)
class _Hidden:
    """What of the arguments is not kept: some paths, or, where there are none, all of them; and why."""

    paths: tuple[str, ...] = ()
    why: str = ""


def _hidden(decision: PolicyDecision, *, refused: bool) -> _Hidden | None:
    if not isinstance(decision, AllowWithConditions):
        return None
    try:
        obligations = combine(decision.conditions)
    except InputError:
        return _Hidden(why="a condition of the policies cannot be read")
    if obligations.record in {"digest", "redacted"}:
        return _Hidden(why=f'a policy says `@record("{obligations.record}")`')
    if obligations.redact and refused:
        return _Hidden(why="a policy redacts arguments, and the effect was refused")
    if obligations.redact:
        return _Hidden(obligations.redact, f"a policy redacts {_listed(f'arguments.{p}' for p in obligations.redact)}")
    return None


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _document(request: PolicyRequest, action: Action, hidden: _Hidden | None) -> dict[str, JsonValue]:
    document = request_json(request) | {"label": _label(action.label)}
    if isinstance(action, InvokeTool):
        document["labels"] = {name: _label(label) for name, label in sorted(action.labels.items())}
    context = request.context if hidden is None else _without_values(request.context, hidden)
    if hidden is not None and context != request.context:
        document |= {"context": context, "withheld": hidden.why}
    return document


def _without_values(context: Mapping[str, JsonValue], hidden: _Hidden) -> dict[str, JsonValue]:
    arguments = context.get("arguments")
    if not isinstance(arguments, Mapping):
        return {name: value if name in _OF_THE_RUN else REDACTED for name, value in context.items()}
    if hidden.paths:
        return {**context, "arguments": Obligations(redact=hidden.paths).apply_arguments(arguments)}
    return {**context, "arguments": dict.fromkeys(arguments, REDACTED)}


def _label(label: Label) -> dict[str, JsonValue]:
    values = (
        (each.name, getattr(label, each.name)) for each in fields(label) if each.name != "subjects" or label.subjects
    )
    return {name: list(v) if isinstance(v, tuple) else v.value if isinstance(v, Enum) else v for name, v in values}


def _unfit(action: Action, why: str) -> dict[str, JsonValue]:
    name = f"{action.kind}::{action.tool.name}" if isinstance(action, InvokeTool) else action.kind
    bare = PolicyRequest(action.principal, name, action.resource, {})
    return request_json(bare) | {"label": _label(action.label), "withheld": why}
