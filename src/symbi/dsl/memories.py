"""`memory` blocks, and the checks of `remember` and `recall` that a file alone allows.

A file has one block at most: it says after how long what its agents remember is deleted, and how much meaning and words
count where something is looked for. Each agent has a memory of its own all the same, by its own name.
"""

import re
from collections.abc import Mapping
from math import inf
from typing import Final

from symbi.dsl import ast
from symbi.dsl.builtins import EFFECTS
from symbi.dsl.findings import Findings
from symbi.dsl.messages import AGENT_ADDRESS
from symbi.dsl.spec import MemorySpec
from symbi.errors import did_you_mean

KINDS: Final = ("working", "short-term", "long-term", "shared")
FORMS: Final = ("fact", "episode")
STORES: Final = ("sqlite",)
DAY_S: Final = 86_400.0
MAX_RETENTION_DAYS: Final = 36_500.0
MAX_DIGITS: Final = 9  # of a retention in quotes
_RETENTIONS: Final = 'write `12h`, `90d`, `"90d"` or a number of days'
_SHORT: Final = re.compile(r"[0-9]{1,9}[sm]")  # seconds and minutes; minutes in quotes would be taken for months
_DAYS_OF: Final[Mapping[str, float]] = {"d": 1.0, "w": 7.0, "h": 1 / 24, "y": 365.0}


def read_memory(file: ast.File, findings: Findings) -> MemorySpec:
    """The terms of the memories of a file's agents; what is wrong with them is noted at its place.

    Args:
        file: The file.
        findings: Takes what is wrong.
    """
    blocks = [node for node in file.declarations if isinstance(node, ast.Memory)]
    if not blocks:
        return MemorySpec()
    for further in blocks[1:]:
        hint = "put both into one: it holds for every agent of the file"
        findings.error("duplicate", "the file has a `memory` block already", further.span, hint)
    entries = {item.key: item for item in blocks[0].items if isinstance(item, ast.Entry)}
    section = next((item for item in blocks[0].items if isinstance(item, ast.Section)), None)
    if "store" in entries:
        _store(entries["store"], findings)
    if "path" in entries:
        hint = "remove it: what agents remember lies in the data folder, `runtime.data_dir`"
        findings.error("memory", "a memory has no path of its own", entries["path"].span, hint)
    retention = _retention(entries["retention"], findings) if "retention" in entries else None
    vector, keyword = _weights(section, findings) if section is not None else (None, None)
    return MemorySpec(blocks[0].name, retention, vector, keyword)


def _store(entry: ast.Entry, findings: Findings) -> None:
    name = _word(entry.value)
    if name not in STORES:
        hint = did_you_mean(name or "", STORES) or "write `store sqlite`, or leave it out"
        findings.error(
            "not_available", f"memories are kept in `sqlite`, not in `{name or '?'}`", entry.value.span, hint
        )


def _retention(entry: ast.Entry, findings: Findings) -> float | None:
    value, days = entry.value, None
    match value:
        case ast.Duration(seconds=seconds):
            days = seconds / DAY_S
        case ast.String(value=text) if (found := _days(text)) is not None:
            days = found
        case ast.String(value=text):
            message = (
                f'`retention "{text}"` is no time: in quotes it is a whole number, and `h`, `d`, `w` or `y` behind it'
            )
            findings.error("memory", message, value.span, _unquoted(text) or _RETENTIONS)
            return None
        case ast.Number(value=number):
            days = float(number)
        case _:
            findings.error("memory", "`retention` is a time, or a number of days", value.span, _RETENTIONS)
            return None
    if days <= 0:
        findings.error("memory", "`retention` is more than no time at all", value.span, _RETENTIONS)
        return None
    if days > MAX_RETENTION_DAYS:
        message = f"`retention` is at most {MAX_RETENTION_DAYS:g} days, which are a hundred years"
        findings.error("memory", message, value.span, "leave it out, and what is configured holds")
        return None
    return days


def _unquoted(text: str) -> str:
    """What to write in place of a text with a unit that is none in quotes; empty where it has none."""
    return f"write `{text}` without quotes, or whole hours, days, weeks or years" if _SHORT.fullmatch(text) else ""


def _days(text: str) -> float | None:
    """Days of a text; more than there may be where it has too many digits to matter."""
    number, unit = text[:-1].strip(), text[-1:]
    if unit not in _DAYS_OF or not number.isascii() or not number.isdigit():
        return None
    return inf if len(number) > MAX_DIGITS else int(number) * _DAYS_OF[unit]


def _weights(section: ast.Section, findings: Findings) -> tuple[float, float] | tuple[None, None]:
    given: dict[str, float] = {}
    for entry in section.entries:
        value = entry.value
        if not isinstance(value, ast.Number) or not 0 <= value.value <= 1:
            findings.error("memory", f"`{entry.key}` is a number from 0 to 1", value.span, "write e.g. `0.7`")
            return None, None
        given[entry.key] = float(value.value)
    if not given:
        return None, None
    vector = given.get("vector_weight", 1 - given.get("keyword_weight", 0.0))
    keyword = given.get("keyword_weight", 1 - vector)
    if vector + keyword == 0:
        findings.error("memory", "one of the two weights has to be more than 0", section.span)
        return None, None
    return vector / (vector + keyword), keyword / (vector + keyword)


def check_memory(node: ast.Call, name: str, findings: Findings) -> None:
    """What can be known of `remember` and `recall` before they happen.

    Args:
        node: The call.
        name: Which of them.
        findings: Takes what is wrong.
    """
    parameters = EFFECTS[name].parameters
    given = {
        argument.name or (parameters[position] if position < len(parameters) else ""): argument.value
        for position, argument in enumerate(node.arguments)
    }
    for parameter, known in (("kind", KINDS), ("form", FORMS)):
        value = given.get(parameter)
        if isinstance(value, ast.String) and value.value not in known:
            listed = ", ".join(f'"{one}"' for one in known)
            hint = did_you_mean(value.value, known) or f"write one of {listed}"
            findings.error("memory", f"`{value.value}` is no {parameter} of memory", value.span, hint)
    other = given.get("of")
    if isinstance(other, ast.String) and not AGENT_ADDRESS.fullmatch(other.value):
        findings.error(
            "recipient", f"`{other.value}` is not the name of an agent", other.span, "write `NAME` as declared"
        )


def _word(value: ast.Expr) -> str | None:
    match value:
        case ast.String(value=text):
            return text
        case ast.Name(id=name):
            return name
        case _:
            return None
