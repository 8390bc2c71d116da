"""What people can ask about knowledge: add, search, answer, list, rm, stats, verify. JSON in, JSON out, behind the gate.

Each passes the gate twice: as an operation of the runtime, and as what it does to documents.
"""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from symbi.api.approvals import text_of
from symbi.api.caller import Caller, Discreet, Operation, principal_of
from symbi.clock import rfc3339
from symbi.errors import ConfigError, Denied, InputError, PolicyDenied
from symbi.knowledge.answer import Answer
from symbi.knowledge.documents import DocumentRecord
from symbi.knowledge.folders import Skip
from symbi.knowledge.ingest import Step
from symbi.knowledge.knowledge import Knowledge
from symbi.knowledge.passages import Passage, SearchResult
from symbi.knowledge.rag import Wanted
from symbi.knowledge.readings import Reader
from symbi.knowledge.trace import Trace
from symbi.knowledge.verifying import Verified
from symbi.runtime.runtime import Runtime
from symbi.types import JsonValue

KNOWLEDGE_TIMEOUT_S: Final = 3600.0  # a step reads many documents, each for as long as one may take
QUESTION_TIMEOUT_S: Final = 120.0
MAX_LISTED: Final = 1_000
MAX_SOURCES: Final = 1_000  # removed by one request


async def add(runtime: Runtime, caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """One step of reading a folder or file; answers where to go on.

    Raises:
        PolicyDenied: Somebody else than who owns the data folder: the runtime reads files with that one's rights.
    """
    if not (caller.folder_owner or caller.uid == 0):
        msg = "files are read with the rights of whoever owns the data folder, who alone may name them"
        raise PolicyDenied(msg, code="control.path")
    path = Path(text_of(arguments, "path"))
    if not path.is_absolute():
        raise InputError("`path` is to be absolute", code="control.argument")
    after = text_of(arguments, "after", "") or None
    knowledge = await _knowledge(runtime)
    principal, moved = principal_of(runtime, caller), arguments.get("moved") is True
    listing, step = await knowledge.add(
        principal, text_of(arguments, "collection"), path, text_of(arguments, "name", ""), after, moved=moved
    )
    position = sum(step.next is None or one.source <= step.next for one in listing.files)
    return {
        "files": len(listing.files), "position": position, **_step(step),
        "left_alone": [_skip(one) for one in listing.skips] if after is None else [],
    }  # fmt: skip


async def search(runtime: Runtime, caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Passages."""
    knowledge = await _knowledge(runtime)
    result = await knowledge.search(
        _reader(runtime, caller, arguments), text_of(arguments, "question"), _wanted(arguments)
    )
    return _result(result)


async def answer(runtime: Runtime, caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """An answer with its sources, or that there is none."""
    knowledge = await _knowledge(runtime)
    reader, question = _reader(runtime, caller, arguments), text_of(arguments, "question")
    written = bool(knowledge.writer) and arguments.get("extract") is not True
    return _answer(await knowledge.answer(reader, question, _wanted(arguments), written=written))


async def list_documents(runtime: Runtime, caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Documents that the caller may read, a page at a time."""
    knowledge = await _knowledge(runtime)
    collection = text_of(arguments, "collection", "") or None
    after = text_of(arguments, "after_collection", ""), text_of(arguments, "after_source", "")
    found = await knowledge.listed(_reader(runtime, caller, arguments), collection, after, MAX_LISTED)
    return [_document(one) for one in found]


async def remove(runtime: Runtime, caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Remove documents, or all of a collection."""
    sources = arguments.get("sources", [])
    if not isinstance(sources, list) or len(sources) > MAX_SOURCES or not all(isinstance(one, str) for one in sources):
        raise InputError(f"`sources` is a list of at most {MAX_SOURCES} texts", code="control.argument")
    if bool(sources) is (arguments.get("all") is True):
        raise InputError("name documents, or ask for all of them", code="control.argument")
    knowledge = await _knowledge(runtime)
    collection = text_of(arguments, "collection")
    removed = await knowledge.remove(principal_of(runtime, caller), collection, [str(one) for one in sources])
    return {"removed": removed}


async def stats(runtime: Runtime, caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """What each collection holds that the caller may read."""
    knowledge = await _knowledge(runtime)
    return [
        {
            "collection": one.collection, "documents": one.documents, "chunks": one.chunks, "sealed": one.sealed,
            "size_bytes": one.size_bytes, "latest": rfc3339(one.latest_ns),
        }
        for one in await knowledge.counted(_reader(runtime, caller, arguments))
    ]  # fmt: skip


async def verify(runtime: Runtime, caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Compare store and index, of one collection or of all."""
    knowledge = await _knowledge(runtime)
    named = text_of(arguments, "collection", "")
    there = {*(one.collection for one in await knowledge.stats()), *await knowledge.unfinished()}
    names = [named] if named else sorted(there)
    principal, repair = principal_of(runtime, caller), arguments.get("repair") is True
    purpose = text_of(arguments, "purpose", "unknown")
    verified: list[JsonValue] = []
    refusal: Denied | None = None
    for name in names:  # what may not be looked at is passed over in silence, unless it is all that there is
        try:
            verified.append(_verified(await knowledge.verify(principal, name, repair=repair, purpose=purpose)))
        except Denied as denied:
            refusal = refusal or denied
    if refusal is not None and not verified:
        raise refusal
    return verified


async def _knowledge(runtime: Runtime) -> Knowledge:
    door = runtime.rooms.knowledge
    if door is None:
        raise ConfigError("this runtime was opened without knowledge")
    return await door.opened()


def _reader(runtime: Runtime, caller: Caller, arguments: Mapping[str, JsonValue]) -> Reader:
    return Reader(principal_of(runtime, caller), purpose=text_of(arguments, "purpose", "unknown"))


def _wanted(arguments: Mapping[str, JsonValue]) -> Wanted:
    k, collection = arguments.get("k", 8), text_of(arguments, "collection", "")
    if not isinstance(k, int) or isinstance(k, bool):
        raise InputError("`k` is a whole number", code="control.argument")
    return Wanted((collection,) if collection else (), k)


def _step(step: Step) -> dict[str, JsonValue]:
    return {
        "added": step.added, "changed": step.changed, "removed": step.removed, "unchanged": step.unchanged,
        "skipped": [_skip(one) for one in step.skips], "chunks": step.chunks, "next": step.next,
    }  # fmt: skip


def _skip(one: Skip) -> dict[str, JsonValue]:
    return {"source": one.source, "code": one.code, "reason": one.reason}


def _result(result: SearchResult) -> dict[str, JsonValue]:
    return {
        "passages": [_passage(one) for one in result.passages],
        "evidence": round(result.evidence, 4),
        "trace": _trace(result.trace),
    }


def _answer(answer: Answer) -> dict[str, JsonValue]:
    return {
        "answer": answer.text, "found": answer.found, "by": answer.by, "model": answer.model,
        "unwritten": answer.unwritten, "sources": [_passage(one) for one in answer.passages],
        "evidence": round(answer.result.evidence, 4), "trace": _trace(answer.result.trace),
    }  # fmt: skip


def _passage(one: Passage) -> dict[str, JsonValue]:
    cited = one.citation
    return {
        "text": one.text, "collection": cited.collection, "source": cited.source, "headings": cited.headings,
        "start": cited.start, "end": cited.end, "document": cited.document_id, "chunk": cited.chunk_id,
        "score": round(one.score, 4), "parts": {name: round(value, 4) for name, value in one.parts.items()},
        "similarity": None if one.similarity is None else round(one.similarity, 4), "coverage": round(one.coverage, 4),
        "label": {"integrity": one.label.integrity.value, "confidentiality": one.label.confidentiality.value},
    }  # fmt: skip


def _trace(trace: Trace) -> list[JsonValue]:
    return [{"stage": one.name, "took_ms": round(one.took_ms, 3), "facts": dict(one.facts)} for one in trace.stages]


def _document(one: DocumentRecord) -> dict[str, JsonValue]:
    access = one.access
    return {
        "collection": access.collection, "source": one.source, "kind": one.kind, "owner": access.owner,
        "classification": access.classification.value, "purpose": access.purpose, "importance": one.importance,
        "modified": rfc3339(one.modified_ns), "added": rfc3339(one.added_ns), "size_bytes": one.size_bytes, "chunks": one.chunks,
    }  # fmt: skip


def _verified(one: Verified) -> dict[str, JsonValue]:
    return {
        "collection": one.collection, "documents": one.documents, "chunks": one.chunks, "vectors": one.vectors,
        "pending": one.pending, "orphans": one.orphans, "missing": one.missing, "damaged": list(one.damaged),
        "repaired": one.repaired, "refused": one.refused, "clean": one.clean,
    }  # fmt: skip


def shown(_runtime: Runtime, arguments: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    """What the trail shows of an operation: all of it."""
    return arguments


def asked(_runtime: Runtime, arguments: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    """What the trail shows of a question: how long it is, for it may name somebody."""
    question = arguments.get("question")
    length = len(question) if isinstance(question, str) else 0
    return {**{name: value for name, value in arguments.items() if name != "question"}, "question_chars": length}


def _slow(work: Callable[[Runtime, Caller, Mapping[str, JsonValue]], Awaitable[JsonValue]]) -> Discreet:
    return Discreet(work, shown, KNOWLEDGE_TIMEOUT_S)


OPERATIONS: Final[Mapping[str, Operation]] = MappingProxyType(
    {
        "kb.add": _slow(add),
        "kb.search": Discreet(search, asked, QUESTION_TIMEOUT_S),
        "kb.answer": Discreet(answer, asked, QUESTION_TIMEOUT_S),
        "kb.list": list_documents,
        "kb.rm": _slow(remove),
        "kb.stats": stats,
        "kb.verify": _slow(verify),
    }
)
"""Operations by name."""
