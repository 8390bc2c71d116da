"""What servers answer, out of the protocol's form and into ours."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from symbi.errors import OutputLimit, ToolFailed
from symbi.tools.asking import AskKind
from symbi.tools.mask import SecretMask
from symbi.tools.port import MAX_TOOL_OUTPUT_BYTES, PROTOCOL_FAILURE, Completion, RawToolResult, ToolDefinition
from symbi.tools.text import printable
from symbi.types import JsonValue

MAX_TOOLS: Final = 512  # of one server; bounds what pins, policies and prompts have to hold
MAX_ENTRIES: Final = 2_048  # resources, templates or prompts of one server, likewise
MAX_LISTING_BYTES: Final = (
    8_388_608  # of one server's tools, on all pages: what they take to judge and keep; of all else, too
)
MAX_PAGES: Final = 16  # of one listing
MAX_COMPLETIONS: Final = 100  # as the protocol has it


_DEFINED: Final = frozenset({"name", "description", "inputSchema", "outputSchema", "title", "annotations", "_meta"})
"""Members of a definition that `ToolDefinition` has fields for."""


def definition(tool: Mapping[str, Any], server: str) -> ToolDefinition:
    """A tool as its server describes it."""
    return ToolDefinition(
        server=server,
        name=tool["name"],
        description=tool.get("description") or "",
        input_schema=tool["inputSchema"],
        output_schema=tool.get("outputSchema"),
        title=tool.get("title"),
        annotations=tool.get("annotations") or {},
        meta=tool.get("_meta") or {},
        rest={name: value for name, value in tool.items() if name not in _DEFINED},
    )


def tool_result(raw: Mapping[str, Any], tool: str, mask: SecretMask) -> RawToolResult:
    """The answer of a tool.

    Raises:
        ToolFailed: It has a number that is not finite.
        OutputLimit: Its text or its structured content has more than `MAX_TOOL_OUTPUT_BYTES`.
    """
    blocks = raw.get("content") or []
    content = "\n".join(_part(part) for part in blocks)
    structured = raw.get("structuredContent")
    size = max(len(content.encode()), len(_written(structured, tool)))
    if size > MAX_TOOL_OUTPUT_BYTES:
        msg = f"tool `{tool}` answered {size} bytes; {MAX_TOOL_OUTPUT_BYTES} are allowed"
        raise OutputLimit(msg, tool=tool)
    _written(blocks, tool)
    return RawToolResult(
        mask.text(content),
        mask.value(structured),
        bool(raw.get("isError")),
        items(blocks, mask),
        cast("Mapping[str, JsonValue]", mask.value(raw.get("_meta") or {})),
    )


def items(values: Sequence[Any], mask: SecretMask) -> Sequence[Mapping[str, JsonValue]]:
    """Objects in the protocol's form, without secrets."""
    return cast("Sequence[Mapping[str, JsonValue]]", mask.value(list(values)))


def plain(raw: Mapping[str, Any], keys: Sequence[str], what: str, mask: SecretMask) -> Mapping[str, JsonValue]:
    """These parts of an answer, without secrets.

    Raises:
        ToolFailed: It has a number that is not finite.
    """
    part = {key: raw[key] for key in keys if raw.get(key) is not None}
    _written(part, what)
    return cast("Mapping[str, JsonValue]", mask.value(part))


def completion(raw: Mapping[str, Any], server: str, mask: SecretMask) -> Completion:
    """How an argument may go on.

    Raises:
        ToolFailed: It is more than the protocol allows.
    """
    found = raw["completion"]
    values = [mask.text(str(value)) for value in found["values"]]
    if len(values) > MAX_COMPLETIONS:
        msg = f"server `{server}` answered {len(values)} completions; {MAX_COMPLETIONS} are allowed"
        raise ToolFailed(msg, code=PROTOCOL_FAILURE)
    total = found.get("total")
    return Completion(values, total if isinstance(total, int) else None, bool(found.get("hasMore")))


def needed(data: object) -> list[str]:
    """What a server says that it has to be able to ask of its caller, as far as that can be asked at all."""
    wanted = data.get("requiredCapabilities") if isinstance(data, Mapping) else None
    return [kind.value for kind in AskKind if isinstance(wanted, Mapping) and kind.value in wanted]


def _written(value: Any, what: str) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
    except ValueError:
        msg = f"tool `{what}` answered a number that is not finite"
        raise ToolFailed(msg, tool=what) from None


def _part(part: Mapping[str, Any]) -> str:
    """Text as it is; anything else by type and size."""
    if part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    return f"[{printable(str(part.get('type')))[:32]}, {len(json.dumps(part))} bytes]"
