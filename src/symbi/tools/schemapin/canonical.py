"""What of a tool is signed, and in which canonical form.

The signed document is `{name, title?, description, inputSchema, outputSchema?, annotations?}`; a member with a question
mark is there only where the server declares it. Its canonical form is JSON in UTF-8 with keys sorted by code point and
no white space. Published implementations agree on that form except for some content (floats, integers past 2^53,
integer-like or astral keys, lone surrogates); such content is refused, so that what one signs every other one reads.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Final

from symbi.errors import InputError
from symbi.tools.port import ToolDefinition
from symbi.tools.text import shown_name
from symbi.types import JsonValue

MAX_DEFINITION_BYTES: Final = 131_072  # bounds what one tool can push into pins, policies and a model's prompt
MAX_DEPTH: Final = 64  # nesting of a definition; real schemas stay below 20
MAX_SAFE_INTEGER: Final = 2**53 - 1  # beyond it, readers that keep numbers as doubles see another number
_MAX_ARRAY_INDEX: Final = 2**32 - 2  # keys that some readers move to the front, in numeric order


def canonical_definition(definition: ToolDefinition) -> bytes:
    """The canonical form of what a signature covers.

    Raises:
        InputError: The definition has content that implementations write differently, or is too large.
    """
    document: dict[str, JsonValue] = {
        "name": definition.name,
        "description": definition.description,
        "inputSchema": definition.input_schema,
    }
    if definition.title is not None:
        document["title"] = definition.title
    if definition.output_schema is not None:
        document["outputSchema"] = definition.output_schema
    if definition.annotations:
        document["annotations"] = definition.annotations
    canonical = canonical_json(document)
    if len(canonical) > MAX_DEFINITION_BYTES:
        msg = f"the definition of tool `{shown_name(definition.name)}` has {len(canonical)} bytes; {MAX_DEFINITION_BYTES} are allowed"
        raise InputError(msg, code="tool.definition")
    return canonical


def canonical_json(value: JsonValue) -> bytes:
    """SchemaPin's canonical JSON.

    Raises:
        InputError: Content that implementations write differently; the message says what and where.
    """
    plain = _unambiguous(value, "$", 0)
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


def digest_of(canonical: bytes) -> str:
    """SHA-256 (hex) of a canonical form."""
    return hashlib.sha256(canonical).hexdigest()


def _refuse(path: str, what: str) -> InputError:
    hint = "implementations of SchemaPin write it differently, so it can be neither signed nor pinned"
    return InputError(f"{what} at {shown_name(path)}", code="tool.ambiguous", hint=hint)


def _unambiguous(value: object, path: str, depth: int) -> JsonValue:
    """A plain copy of JSON content that every implementation writes alike."""
    if depth > MAX_DEPTH:
        msg = f"the definition is nested deeper than {MAX_DEPTH} levels at {shown_name(path)}"
        raise InputError(msg, code="tool.definition")
    match value:
        case None | bool():
            return value
        case int():
            if abs(value) > MAX_SAFE_INTEGER:
                raise _refuse(path, "an integer beyond ±(2^53-1)")
            return value
        case float():
            raise _refuse(path, f"the float `{value!r}`")
        case str():
            return _text(value, path)
        case Mapping():
            return {
                key: _unambiguous(item, f"{path}.{key}", depth + 1)
                for key, item in zip(_keys(value, path), value.values(), strict=True)
            }
        case list() | tuple():
            return [_unambiguous(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
        case _:
            msg = f"`{type(value).__name__}` is not JSON at {shown_name(path)}"
            raise InputError(msg, code="tool.definition")


def _text(text: str, path: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _refuse(path, "a lone surrogate") from None
    return text


def _keys(value: Mapping[object, object], path: str) -> list[str]:
    """The keys in their order, if every implementation sorts them alike."""
    keys = [_text(key, path) for key in value if isinstance(key, str)]
    if len(keys) != len(value):
        msg = f"a key that is not text at {shown_name(path)}"
        raise InputError(msg, code="tool.definition")
    if "__proto__" in value:
        raise _refuse(path, "the key `__proto__`")
    by_code_point = sorted(keys)
    if by_code_point != sorted(keys, key=lambda key: key.encode("utf-16-be")):
        raise _refuse(path, "keys with characters beyond U+FFFF")
    indices = sorted((key for key in keys if _is_index(key)), key=int)
    if by_code_point != indices + [key for key in by_code_point if not _is_index(key)]:
        raise _refuse(path, f"the integer-like key `{indices[0]}` among other keys")
    return keys


def _is_index(key: str) -> bool:
    return key.isascii() and key.isdigit() and str(int(key[:11])) == key and int(key) <= _MAX_ARRAY_INDEX
