"""JSON Schema 2020-12 from outside, compiled so that validating with it is bounded.

A schema comes from a server that may be hostile, so:

- references stay inside the schema: a `$ref` that leaves it is refused, and nothing is ever fetched;
- patterns run on a linear-time engine (Rust's regex, as pydantic-core carries it); one that needs look-around or
  back-references is refused, since no bound can be given for it;
- one validation takes at most `MAX_STEPS` keyword evaluations, which also ends recursive and exploding schemas;
- keywords whose evaluation in the library escapes these bounds (`patternProperties`, `unevaluatedProperties`,
  `unevaluatedItems`, `$dynamicRef`, anchors, a `$schema` or `$id` below the root) are refused.

Formats are not asserted, as the specification's default has it. Messages name places and rules, never values.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Final
from urllib.parse import unquote

from jsonschema import Draft202012Validator, ValidationError, validators
from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped]  # it ships no types
from pydantic_core import SchemaError as PatternError
from pydantic_core import SchemaValidator, core_schema
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from symbi.errors import InputError, OutputLimit, did_you_mean
from symbi.tools.text import cut, printable
from symbi.types import JsonValue

MAX_STEPS: Final = 100_000  # keyword evaluations of one validation: some tenths of a second
MAX_META_STEPS: Final = 500_000  # likewise of the check that a schema is one: some 4,000 subschemas
MAX_PATTERN_CHARS: Final = 1_000  # of one regular expression; the engine bounds its compiled size besides
MAX_VALUE_DEPTH: Final = 64  # nesting of arguments and results
MAX_INTEGER: Final = 2**63 - 1  # what policies, ledger and trail can hold
MAX_QUOTED_CHARS: Final = 80  # of a rule or name that a message quotes
MAX_NAMED: Final = 5  # names that one message lists

_DRAFT: Final = "https://json-schema.org/draft/2020-12"
_OWN_BASE: Final = "https://schema.invalid/2020-12"
_VOCABULARIES: Final = (
    "core",
    "applicator",
    "unevaluated",
    "validation",
    "meta-data",
    "format-annotation",
    "content",
)
_DRAFT7: Final = frozenset({"http://json-schema.org/draft-07/schema", "https://json-schema.org/draft-07/schema"})
_DRAFT7_ONLY: Final = frozenset({"dependencies", "additionalItems"})  # 2020-12 would pass over them
_REFUSED: Final = frozenset(
    {
        "patternProperties",
        "unevaluatedProperties",
        "unevaluatedItems",
        "$dynamicRef",
        "$recursiveRef",
        "$anchor",
        "$dynamicAnchor",
        "$schema",
        "$id",
    }
)
_ONE: Final = frozenset(
    {"items", "contains", "additionalProperties", "propertyNames", "not", "if", "then", "else", "contentSchema"}
)
_LIST: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_MAP: Final = frozenset({"properties", "$defs", "definitions", "dependentSchemas"})

Keyword = Callable[[Any, Any, Any, Any], Iterable[ValidationError] | None]


class _Exhausted(Exception):
    """The validation took all its steps."""


class _Steps:
    """What one validation may still do."""

    def __init__(self, left: int) -> None:
        self.left = left

    def spend(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise _Exhausted


_steps: ContextVar[_Steps] = ContextVar("symbi_schema_steps")


def _first_error(validator: Any, value: object, steps: int) -> ValidationError | None:
    """The first error, or None.

    Raises:
        _Exhausted: The validation took more steps, or nested deeper, than allowed.
    """
    token = _steps.set(_Steps(steps))
    try:
        return next(iter(validator.iter_errors(value)), None)
    except RecursionError:
        raise _Exhausted from None
    finally:
        _steps.reset(token)


class Schema:
    """A compiled schema.

    Args:
        schema: The schema as the server gave it.
        what: What it describes, for messages: `the input schema of tool …`.

    Raises:
        InputError: It is not a schema of objects that this module can bound.
    """

    def __init__(self, schema: Mapping[str, JsonValue], what: str) -> None:
        plain = json_value(schema, what)
        if not isinstance(plain, dict) or plain.get("type") != "object":
            msg = f"{what} is not of `type: object`"
            raise InputError(msg, code="tool.schema")
        bare = _bounded_copy(plain, what)
        try:
            malformed = _first_error(_META, bare, MAX_META_STEPS)
        except _Exhausted:
            msg = f"{what} is too large to be checked"
            raise InputError(msg, code="tool.schema") from None
        if malformed is not None:
            msg = f"{what} is not JSON Schema 2020-12: {malformed.json_path} is malformed"
            raise InputError(msg, code="tool.schema")
        self._what = what
        self._validator = _Bounded(bare, registry=Registry())
        self._properties = sorted(bare.get("properties", {}))

    def check(self, value: JsonValue) -> None:
        """Return if the value is valid.

        Raises:
            InputError: It is not; the message names the place and the rule, not the value.
            OutputLimit: Validating it takes more steps than allowed.
        """
        try:
            error = _first_error(self._validator, value, MAX_STEPS)
        except _Exhausted:
            msg = f"validating against {self._what} takes more than {MAX_STEPS} steps"
            raise OutputLimit(msg, code="tool.schema_steps", hint="the value is too large for it") from None
        if error is not None:
            raise InputError(f"{error.json_path} {self._rule(error)}", code="tool.invalid", hint=self._hint(error))

    def _rule(self, error: ValidationError) -> str:
        """What was asked, in words; never what was given."""
        rule: Any = error.validator_value
        match error.validator:
            case "type":
                kinds = rule if isinstance(rule, list) else [rule]
                return f"must be of type {' or '.join(f'`{kind}`' for kind in kinds)}"
            case "required":
                missing = [name for name in _names(rule) if name not in _names(error.instance)]
                return f"lacks {_listed(missing)}"
            case "additionalProperties" if rule is False:
                return f"has no {_listed(self._unknown(error))}"
            case "enum":
                return f"must be one of {_listed(rule)}"
            case _:
                return f"does not satisfy `{error.validator}: {_brief(json.dumps(rule))}`"

    def _hint(self, error: ValidationError) -> str | None:
        if error.validator != "additionalProperties" or error.absolute_path:
            return None
        return did_you_mean(next(iter(self._unknown(error)), ""), self._properties) or None

    @staticmethod
    def _unknown(error: ValidationError) -> list[str]:
        known = _names(error.schema.get("properties", {})) if isinstance(error.schema, Mapping) else []
        return [name for name in _names(error.instance) if name not in known]


def json_value(value: object, what: str = "the value", depth: int = 0) -> JsonValue:
    """A plain copy of JSON content: dicts, lists, finite numbers, 64-bit integers, encodable text.

    Raises:
        InputError: It is not JSON, or nested deeper than `MAX_VALUE_DEPTH`.
    """
    if depth > MAX_VALUE_DEPTH:
        msg = f"{what} is nested deeper than {MAX_VALUE_DEPTH} levels"
        raise InputError(msg, code="tool.value")
    match value:
        case None | bool():
            return value
        case str():
            return _encodable(value, what)
        case int() if abs(value) <= MAX_INTEGER:
            return value
        case float() if math.isfinite(value):
            return value
        case int() | float():
            msg = f"{what} holds a number that is not a finite one within 64 bits"
        case Mapping():
            if all(isinstance(key, str) for key in value):
                return {_encodable(key, what): json_value(item, what, depth + 1) for key, item in value.items()}
            msg = f"{what} holds a key that is not text"
        case list() | tuple():
            return [json_value(item, what, depth + 1) for item in value]
        case _:
            msg = f"{what} holds a `{type(value).__name__}`, which is not JSON"
    raise InputError(msg, code="tool.value")


def _encodable(text: str, what: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        msg = f"{what} holds a lone surrogate, which is not text"
        raise InputError(msg, code="tool.value") from None
    return text


def _bounded_copy(root: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The schema without `$schema` and `$id`, once every subschema is known to be bounded.

    The library evaluates a subschema that names its dialect by that dialect's own class, past the bounds of this
    module, and it follows a reference to any place of the document; so neither may stand below the root, and a
    reference must lead to a place that was looked at.
    """
    bare = {keyword: rule for keyword, rule in root.items() if keyword not in {"$schema", "$id"}}
    refused = _REFUSED | (_DRAFT7_ONLY if _is_draft7(root, what) else frozenset())
    seen: set[str] = set()
    references: list[str] = []
    pending: list[tuple[str, object]] = [("", bare)]
    while pending:
        place, schema = pending.pop()
        seen.add(place)
        if not isinstance(schema, dict):
            continue
        for keyword, rule in schema.items():
            if keyword in refused:
                msg = f"{what} uses `{keyword}`, whose evaluation cannot be bounded"
                raise InputError(msg, code="tool.schema")
            if keyword == "$ref":
                references.append(str(rule))
            elif keyword == "pattern" and isinstance(rule, str):
                _pattern(rule, what)
            pending.extend((f"{place}/{_token(keyword)}{below}", part) for below, part in _subschemas(keyword, rule))
    for reference in references:
        if not reference.startswith("#") or unquote(reference[1:]) not in seen:
            msg = f"{what} refers to `{_brief(reference)}`, which is no schema inside it"
            raise InputError(msg, code="tool.schema", hint="nothing is fetched; put it under `$defs`")
    return bare


def _subschemas(keyword: str, rule: object) -> Iterator[tuple[str, object]]:
    """The schemas that a keyword holds, each with the rest of its JSON pointer (RFC 6901)."""
    if keyword in _ONE:
        yield "", rule
    elif keyword in _LIST and isinstance(rule, list):
        yield from ((f"/{index}", part) for index, part in enumerate(rule))
    elif keyword in _MAP and isinstance(rule, dict):
        yield from ((f"/{_token(name)}", part) for name, part in rule.items())


def _token(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _is_draft7(root: Mapping[str, Any], what: str) -> bool:
    """Whether the schema says that it is draft 7, which is read as 2020-12 where both mean the same."""
    declared = root.get("$schema")
    if declared is None:
        return False
    plain = str(declared).rstrip("#")
    if plain == f"{_DRAFT}/schema":
        return False
    if plain in _DRAFT7:
        return True
    msg = f"{what} is of dialect `{_brief(plain)}`"
    raise InputError(msg, code="tool.schema", hint="JSON Schema 2020-12 is read")


_patterns: dict[str, SchemaValidator] = {}
_MAX_PATTERNS: Final = 4096  # compiled patterns that are kept


def _pattern(pattern: str, what: str) -> SchemaValidator:
    """A pattern on the linear-time engine."""
    known = _patterns.get(pattern)
    if known is not None:
        return known
    if len(pattern) > MAX_PATTERN_CHARS:
        msg = f"{what} has a pattern of {len(pattern)} characters; {MAX_PATTERN_CHARS} are allowed"
        raise InputError(msg, code="tool.schema")
    try:
        compiled = SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex", strict=True))
    except PatternError:
        msg = f"{what} has the pattern `{_brief(pattern)}`, which cannot be matched in linear time"
        hint = "look-around, back-references and large repetitions are refused"
        raise InputError(msg, code="tool.schema", hint=hint) from None
    if len(_patterns) >= _MAX_PATTERNS:
        _patterns.clear()
    _patterns[pattern] = compiled
    return compiled


def _match_pattern(_validator: Any, pattern: str, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not _pattern(pattern, "the schema").isinstance_python(instance):
        yield ValidationError("does not match")


def _unique_items(_validator: Any, unique: Any, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    """Linear, where the library compares every pair."""
    if not unique or not isinstance(instance, list):
        return
    _steps.get().spend(len(instance))
    if len({json.dumps(_as_numbers(item), sort_keys=True) for item in instance}) != len(instance):
        yield ValidationError("has an item twice")


def _as_numbers(value: JsonValue) -> JsonValue:
    """The value with 1.0 written as 1, which JSON Schema holds equal."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case dict():
            return {key: _as_numbers(item) for key, item in value.items()}
        case list():
            return [_as_numbers(item) for item in value]
        case _:
            return value


def _counted(keyword: Keyword) -> Keyword:
    def evaluate(validator: Any, rule: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        _steps.get().spend(1 + (len(rule) if isinstance(rule, list | dict) else 0))
        yield from keyword(validator, rule, instance, schema) or ()

    return evaluate


_KEYWORDS: Final[Mapping[str, Keyword]] = {
    **Draft202012Validator.VALIDATORS,
    "pattern": _match_pattern,
    "uniqueItems": _unique_items,
}
_Bounded: Final[Any] = validators.extend(  # type: ignore[no-untyped-call]  # the library's stubs leave it untyped
    Draft202012Validator, {name: _counted(keyword) for name, keyword in _KEYWORDS.items()}
)


def _metaschema() -> Any:
    """A validator of schemas by the bounded class.

    The documents get another base and lose `$schema`, for either would lead the library to its own class.
    """
    names = ("schema", *(f"meta/{name}" for name in _VOCABULARIES))
    documents: dict[str, Any] = {}
    for name in names:
        document = REGISTRY.contents(f"{_DRAFT}/{name}")
        documents[name] = {word: rule for word, rule in document.items() if word != "$schema"}
        documents[name]["$id"] = f"{_OWN_BASE}/{name}"
    resources = [(f"{_OWN_BASE}/{name}", DRAFT202012.create_resource(documents[name])) for name in names]
    return _Bounded(documents["schema"], registry=Registry().with_resources(resources))


_META: Final = _metaschema()


def _names(value: object) -> list[str]:
    return [str(name) for name in value] if isinstance(value, Mapping | list) else []


def _listed(names: Iterable[object]) -> str:
    shown = [f"`{_brief(name if isinstance(name, str) else json.dumps(name))}`" for name in names]
    more = f" and {len(shown) - MAX_NAMED} more" if len(shown) > MAX_NAMED else ""
    return ", ".join(shown[:MAX_NAMED]) + more


def _brief(text: str) -> str:
    return cut(printable(text), MAX_QUOTED_CHARS)
