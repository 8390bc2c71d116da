"""Checks `endorse(value, "name")` and `declassify(value, "name", to = "internal")`: what is released is said in the file."""

from symbi.dsl import ast
from symbi.dsl.builtins import EFFECTS, RELEASE_LEVELS, RELEASE_NAME
from symbi.dsl.findings import Findings
from symbi.errors import did_you_mean


def check_release(node: ast.Call, name: str, findings: Findings) -> None:
    """Refuse a name or a level that is not a text of the file, or is none."""
    parameters = EFFECTS[name].parameters
    for position, argument in enumerate(node.arguments):
        parameter = argument.name or (parameters[position] if position < len(parameters) else "")
        if parameter not in {"name", "to"}:
            continue
        value = argument.value
        if not isinstance(value, ast.String):
            message = f"`{parameter}` of `{name}` must be a text in quotes: no data decides what is released"
            findings.error("release", message, value.span, f'write `{name}(value, "name-of-the-release")`')
        elif parameter == "name" and not RELEASE_NAME.fullmatch(value.value):
            hint = "use up to 64 letters, digits and `_ . -`"
            findings.error("release", f"`{value.value}` is not the name of a release", value.span, hint)
        elif parameter == "to" and value.value not in RELEASE_LEVELS:
            hint = did_you_mean(value.value, RELEASE_LEVELS) or f"use one of {', '.join(RELEASE_LEVELS)}"
            findings.error("release", f"`{value.value}` is nothing to declassify to", value.span, hint)
