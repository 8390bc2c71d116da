"""Inputs as people write them: texts, read by the types of an agent's parameters."""

import json
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Final

from symbi.dsl.spec import AgentSpec
from symbi.errors import InputError
from symbi.types import JsonValue

PATH_TYPE: Final = "Path"
"""Inputs of this type name files."""


def split_pairs(pairs: Sequence[str], option: str = "--input") -> dict[str, str]:
    """NAME=VALUE pairs by name.

    Raises:
        InputError: A pair is malformed or given twice.
    """
    texts: dict[str, str] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            msg = f"`{option} {pair}` is not of the form NAME=VALUE"
            raise InputError(msg, code="input.usage")
        if name in texts:
            msg = f"input `{name}` is given twice"
            raise InputError(msg, code="input.usage")
        texts[name] = text
    return texts


def read_texts(texts: Mapping[str, str], spec: AgentSpec, folder: PurePath | None = None) -> dict[str, JsonValue]:
    """Values by the types of the parameters; what is neither String nor Path is read as JSON, and a text where it is none.

    Args:
        texts: By the names of the parameters.
        spec: The agent.
        folder: Where relative names of files are taken from; None where nobody can say.

    Raises:
        InputError: A file is named that nobody can find.
    """
    types = {parameter.name: parameter.type.name for parameter in spec.parameters}
    values: dict[str, JsonValue] = {}
    for name, text in texts.items():
        kind = types.get(name)
        if kind == PATH_TYPE:
            if folder is None and not PurePath(text).is_absolute():
                msg = f"input `{name}` must be the name of a file as seen from the root"
                raise InputError(msg, code="input.value", hint="the runtime works in a folder of its own")
            values[name] = text if folder is None else str(folder / text)
        elif kind in {None, "String"}:
            values[name] = text
        else:
            try:
                values[name] = json.loads(text)
            except (ValueError, RecursionError):
                values[name] = text
    return values
