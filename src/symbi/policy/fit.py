"""Whether contexts fit the schema, remembered by their form.

Cedar checks a context against the schema attribute by attribute, which costs more than evaluating the policies. The
outcome depends on its form alone: the names, and the kind of each value, not the value. So Cedar is asked once for
each form, about a probe that has this form, and contexts of a form that fits are handed over without the schema.

Without the schema, Cedar takes each value as what it looks like; with it, a text may stand for a decimal and a record
for an entity. The probe tells them apart: its texts are none of those, so a form fits only where each text is declared
as one.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, TypeAlias

import cedarpy

from symbi.policy.decision import PolicyRequest
from symbi.types import JsonValue

_MAX_FORMS: Final = 4096  # bounds the forms that are remembered, at about 2 KiB each
_PROBE: Final = "\x00"  # a text that no extension type, and no entity type, can be read from
_DECIMAL: Final = re.compile(r"-?[0-9]{1,14}\.[0-9]{4}")  # surely a decimal; others are left to Cedar
_LONG_MIN: Final = -(2**63)
_LONG_MAX: Final = 2**63 - 1

Form: TypeAlias = "str | frozenset[Form] | tuple[tuple[str, Form], ...]"


class Unformed(Exception):
    """A value whose kind does not tell whether it fits."""


def form(value: object) -> Form:
    """The form of a value.

    Raises:
        Unformed: It holds something that is left to Cedar.
        RecursionError: It is nested too deeply.
    """
    kind = type(value)
    if kind is str:
        return _text(value)  # type: ignore[arg-type]  # the line above
    if kind is dict:
        return _record(value)  # type: ignore[arg-type]  # likewise
    if kind is bool:
        return "bool"
    if kind is int and _LONG_MIN <= value <= _LONG_MAX:  # type: ignore[operator]  # likewise
        return "long"
    if kind is list or kind is tuple:
        return frozenset(map(form, value))  # type: ignore[call-overload]  # likewise
    raise Unformed


def _text(value: str) -> Form:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Unformed from None
    return "string"


def _record(value: Mapping[str, object]) -> Form:
    parts = []
    for name, item in value.items():
        if name[:2] == "__":  # how Cedar's JSON marks what is no record
            return _decimal(value)
        parts.append((name, "string" if type(item) is str and item.isascii() else form(item)))
    return tuple(parts)


def _decimal(value: Mapping[str, object]) -> Form:
    match value:
        case {"__extn": {"fn": "decimal", "arg": str(text), **more}, **others} if not more and not others:
            if _DECIMAL.fullmatch(text):
                return "decimal"
    raise Unformed


def probe(form_: Form) -> JsonValue:
    """A value that has a form."""
    if isinstance(form_, tuple):
        return {name: probe(item) for name, item in form_}
    if isinstance(form_, frozenset):
        return [probe(item) for item in form_]
    return _PROBES[form_]


_PROBES: Final[Mapping[str, JsonValue]] = {
    "string": _PROBE,
    "bool": False,
    "long": 0,
    "decimal": {"__extn": {"fn": "decimal", "arg": "0.0000"}},
}


class Fit:
    """Knows which forms of contexts fit a schema.

    Args:
        schema: The schema.
        entities: Entities parsed against it: none but its actions.
    """

    def __init__(self, schema: cedarpy.Schema, entities: cedarpy.Entities) -> None:
        nothing = cedarpy.PolicySet.from_str("")

        @lru_cache(maxsize=_MAX_FORMS)
        def fits(action: str, resource: str, form_: Form) -> bool:
            asked = {
                "principal": {"type": "Agent", "id": ""},
                "action": {"type": "Action", "id": action},
                "resource": {"type": resource, "id": ""},
                "context": probe(form_),
            }
            try:
                result = cedarpy.is_authorized(asked, nothing, entities, schema)
            except ValueError:
                return False
            answer = (result.decision, result.diagnostics.reasons, result.diagnostics.errors)
            return answer == (cedarpy.Decision.Deny, [], [])

        self._fits = fits

    def __call__(self, request: PolicyRequest) -> bool:
        """Whether it is known that action, types and context fit; if not, Cedar has to check the request itself."""
        context = request.context
        try:
            return self._fits(request.action, request.resource.type, form(context))
        except Unformed:
            return False
