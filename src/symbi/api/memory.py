"""What people can ask about memories: show, export, forget, verify. JSON in, JSON out, behind the gate."""

from collections.abc import Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Any, Final

from symbi.api.approvals import text_of
from symbi.api.caller import Caller, Discreet, Operation
from symbi.clock import rfc3339
from symbi.context.kinds import MAX_FOUND, ContextQuery, Found, MemoryKind, Recalled, check_space
from symbi.context.words import asked_for
from symbi.errors import InputError
from symbi.runtime.runtime import Runtime
from symbi.types import JsonValue

MEMORY_TIMEOUT_S: Final = 600.0
MAX_IDS: Final = 1000


async def show(runtime: Runtime, _caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """How many items each agent has; or, of one agent, how many of each kind, its checkpoints and the cache."""
    keeping = runtime.context.keeping
    if "agent" not in arguments:
        return [{"agent": agent, "items": count} for agent, count in (await keeping.spaces()).items()]
    agent = check_space(text_of(arguments, "agent"))
    checkpoints = await keeping.checkpoints_now(agent)
    query = _query(arguments)
    items = await keeping.everything(agent, query)
    return {
        "agent": agent,
        "items": [_shown(one) for one in items],
        "more": _more(items, query),
        "retention_days": runtime.context.memory.retention_days_of(agent),
        "checkpoints": [{"id": one.id, "at": _at(one.at_ms), "items": one.items} for one in checkpoints],
        "cache": asdict(runtime.context.cache),
    }


async def export(runtime: Runtime, _caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Items of an agent, whole, newest first; `after` is the id of the one behind which it goes on."""
    agent, after = check_space(text_of(arguments, "agent")), text_of(arguments, "after", "")
    query = _query(arguments)
    items = await runtime.context.keeping.everything(agent, query, after)
    return {"items": [_whole(one) for one in items], "more": _more(items, query)}


async def forget(runtime: Runtime, _caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Remove items of an agent: those that are named, what a kind, tags or words choose, or with `all` what there is.

    Answers how many, and what stays.

    Named items go together or not at all. Of all others, those that are about somebody under a legal hold stay.
    """
    agent = check_space(text_of(arguments, "agent"))
    ids, query = _ids(arguments), _query(arguments)
    keeping = runtime.context.keeping
    if bool(ids) + bool(query.kinds or query.tags or query.text) + (arguments.get("all") is True) != 1:
        raise _wrong(
            "one of `ids`, `all`, or a kind, tags or words says which items"
        )  # nothing said is not all there is
    if ids:
        return {"items": await keeping.forget_now(agent, ids), "held": 0, "held_ids": []}
    done = await keeping.forget_matching(agent, query)
    return {"items": done.items, "held": done.held, "held_ids": list(done.held_ids)}


async def verify(runtime: Runtime, _caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Compare items with their vectors, and with `repair`, make again what is missing."""
    found = await runtime.context.verify(repair=_repair(arguments))
    return {**asdict(found), "clean": found.clean}


def shown_of_verify(_runtime: Runtime, arguments: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    """What the trail shows of that."""
    return {"repair": _repair(arguments)}


def _repair(arguments: Mapping[str, JsonValue]) -> bool:
    repair = arguments.get("repair", False)
    if not isinstance(repair, bool):
        raise _wrong("`repair` is true or false")
    return repair


def shown(_runtime: Runtime, arguments: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    """What the trail shows of an operation: whose memory, and how many items were named; no words and tags.

    Raises:
        InputError: The arguments are wrong; the error quotes none of them.
    """
    agent: JsonValue = check_space(text_of(arguments, "agent")) if "agent" in arguments else ""
    query = _query(arguments)
    return {
        "agent": agent, "ids": len(_ids(arguments)), "kinds": [one.value for one in query.kinds],
        "tags": len(query.tags), "words": bool(query.text),
    }  # fmt: skip


def _more(items: Recalled, query: ContextQuery) -> bool:
    """Whether there may be more behind these."""
    return items.cut or len(items) == query.limit


def _query(arguments: Mapping[str, JsonValue]) -> ContextQuery:
    kind, tags, limit = arguments.get("kind"), arguments.get("tags", []), arguments.get("limit", MAX_FOUND)
    if kind is not None and kind not in list(MemoryKind):
        raise _wrong(f"`kind` is one of {', '.join(MemoryKind)}")
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise _wrong("`tags` is a list of texts")
    if isinstance(limit, bool) or not isinstance(limit, int):
        raise _wrong("`limit` is a number")
    text = text_of(arguments, "text", "")
    if text and not asked_for(text):
        raise _wrong("`text` has no word in it, and so would mean all there is")
    return ContextQuery(
        text=text,
        kinds=() if kind is None else (MemoryKind(str(kind)),),
        tags=tuple(str(tag) for tag in tags),
        limit=limit,
    )


def _ids(arguments: Mapping[str, JsonValue]) -> list[str]:
    ids = arguments.get("ids", [])
    if not isinstance(ids, list) or len(ids) > MAX_IDS or not all(isinstance(one, str) for one in ids):
        raise _wrong(f"`ids` is a list of at most {MAX_IDS} texts")
    return [str(one) for one in ids]


def _whole(item: Found) -> dict[str, JsonValue]:
    label = item.label
    return {
        **_shown(item), "content": item.content, "tags": list(item.tags),
        "label": {
            "integrity": label.integrity.value, "confidentiality": label.confidentiality.value,
            "categories": list(label.categories), "sources": list(label.sources), "subjects": list(label.subjects),
        },
        "run": item.run_id, "effect": item.effect_id,
    }  # fmt: skip


def _shown(item: Found) -> dict[str, JsonValue]:
    """An item without what it says."""
    label = item.label
    said: dict[str, Any] = {
        "id": item.id, "kind": item.kind.value, "form": item.form.value, "at": _at(item.at_ms), "tokens": item.tokens,
        "importance": item.importance, "shared": item.shared, "times": item.times,
        "integrity": label.integrity.value, "confidentiality": label.confidentiality.value,
        "about": len(label.subjects),
    }  # fmt: skip
    return said


def _at(at_ms: int) -> str:
    return rfc3339(at_ms * 1_000_000)


def _wrong(msg: str) -> InputError:
    return InputError(msg, code="control.argument")


OPERATIONS: Final[Mapping[str, Operation]] = MappingProxyType(
    {
        "memory.show": Discreet(show, shown, MEMORY_TIMEOUT_S),
        "memory.export": Discreet(export, shown, MEMORY_TIMEOUT_S),
        "memory.forget": Discreet(forget, shown, MEMORY_TIMEOUT_S),
        "memory.verify": Discreet(verify, shown_of_verify, MEMORY_TIMEOUT_S),
    }
)
"""Operations by name."""
