"""Contexts of policy requests: facts as Cedar's JSON, which has neither floats nor nulls.

A tool's action has the context

```
{
  arguments: { … },      // by the tool's JSON Schema, see symbi.policy.shape; an argument that is null is absent
  labels: { NAME: { integrity, confidentiality, categories } },   // of each declared argument that is given
  label: { integrity, confidentiality, categories },              // of all of them together
  secrets: Set<String>,  // paths of the vault references among the arguments
  opaque: Set<String>,   // names of the arguments that policies cannot see, or not in whole
  sinks: Set<String>,    // arguments that are sinks, or hold an address, URL or account number in their text
  tainted: Set<String>,  // those of them whose value is untrusted
  confidentialSinks: Set<String>,   // arguments, but for plain ones, that hold something confidential or secret
  unexplained: Set<String>,  // those of the tainted that share nothing with anything that was read
  wordsKnown: Bool,      // whether it is known what the user wrote
  grant: { given, tool, arguments },  // whether the task has a grant, whether it names the tool, and fits the arguments
  request: { run, position, attempt },                // where the call comes from; the action adds it
}
```

Cedar has no type for what a schema leaves open (no type, a union, a free object, an undeclared argument). Such a part
is not in `arguments`; the name of the argument that it belongs to is in `opaque`, so that a policy can forbid it:
`forbid (principal, action in Action::"InvokeTool", resource) when { context.opaque.contains("options") };`
"""

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from symbi.errors import InputError
from symbi.policy.fields import UNDECLARED
from symbi.policy.flow import join
from symbi.policy.grants import NO_GRANT, Granted
from symbi.policy.shape import convert_arguments, is_nameable, is_text, shape_of, to_decimal
from symbi.policy.sinks import CallFacts, call_facts
from symbi.types import JsonValue, Label, Principal

NO_REQUEST: Final[Mapping[str, JsonValue]] = MappingProxyType({"run": "", "position": -1, "attempt": 1})
"""`request` in the context of what no run asks for, the first time; offline, where nothing else is said."""


def decimal_value(x: float, field: str = "value") -> JsonValue:
    """A number as a Cedar decimal: `{"__extn": {"fn": "decimal", "arg": "0.5000"}}`.

    Args:
        x: At most four decimal places; a caller with more rounds first.
        field: What the number is called, for the error.

    Raises:
        InputError: More than four places, not finite, or beyond about 9.2e14; it names the field.
    """
    return to_decimal(x, field)


def label_context(label: Label) -> Mapping[str, JsonValue]:
    """A label as policies read it; the sources stay in ledger and trail."""
    return {
        "integrity": label.integrity.value,
        "confidentiality": label.confidentiality.value,
        "categories": list(label.categories),
    }


def whole_label(label: JsonValue) -> JsonValue:
    """A label as a person writes it, who may leave out its categories, as policies read it."""
    return {"categories": [], **label} if isinstance(label, Mapping) else label


def flow_context(facts: CallFacts, grant: Granted) -> Mapping[str, JsonValue]:
    """The part of a tool's context that says what its sinks are, and what the task's grant says of the call."""
    return {
        "sinks": sorted(facts.sinks),
        "tainted": sorted(facts.tainted),
        "confidentialSinks": sorted(facts.confidential),
        "unexplained": sorted(facts.unexplained),
        "wordsKnown": facts.words_known,
        "grant": {"given": grant.given, "tool": grant.tool, "arguments": grant.arguments},
    }


def agent_attributes(principal: Principal) -> tuple[tuple[str, JsonValue], ...]:
    """The attributes of an agent's entity, as principal or resource."""
    return (
        ("owner", principal.owner),
        ("trust", principal.trust),
        ("tier", principal.tier),
        ("capabilities", sorted(set(principal.capabilities))),
    )


def json_bytes(value: JsonValue) -> int:
    """The size of a value as JSON in UTF-8, in bytes.

    Raises:
        InputError: It is not JSON.
    """
    try:
        return len(
            json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=False, default=_plain).encode()
        )
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError("a value is not JSON", code="policy.context") from error


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError(type(value).__name__)


def tool_context(
    input_schema: Mapping[str, JsonValue],
    values: Mapping[str, JsonValue],
    labels: Mapping[str, Label],
    label: Label,
    secrets: Sequence[str],
    facts: CallFacts | None = None,
    grant: Granted = NO_GRANT,
) -> Mapping[str, JsonValue]:
    """The context of a tool's action; it fits the type that `symbi.policy.catalog` declares for the same schema.

    An argument without a label of its own bears `label`. The joined label covers every label given, also of
    arguments that policies cannot see, so that none is lost.

    Args:
        input_schema: JSON Schema of the arguments.
        values: Arguments by name.
        labels: Label of each argument.
        label: Join of the labels of everything that goes into the call.
        secrets: Paths of the vault references in the arguments.
        facts: The sinks; by default those of a tool of which nothing is declared.
        grant: What the task's grant says of the call.

    Raises:
        InputError: A value does not fit the schema or has no place in Cedar (an integer outside 64 bits, a number
            with more than four places, a lone surrogate); it names the field.
    """
    shape = shape_of(input_schema)
    arguments, opaque = convert_arguments(shape, values)
    for path in secrets:
        if not is_text(path):
            raise InputError("a vault path holds a lone surrogate", code="policy.context", field="secrets")
    whole = join(label, *labels.values())
    return {
        "arguments": arguments,
        "labels": {
            name: label_context(labels.get(name, whole))
            for name in values
            if name in shape.fields and is_nameable(name)
        },
        "label": label_context(whole),
        "secrets": sorted(set(secrets)),
        "opaque": sorted(opaque),
        **flow_context(call_facts(UNDECLARED, values, labels, label) if facts is None else facts, grant),
    }
