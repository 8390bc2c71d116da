"""Documents, where there are any, as clients search them: through the gate of knowledge, with the client as reader."""

from symbi.api.mcp.gateway import Search
from symbi.knowledge.rag import Wanted
from symbi.knowledge.readings import Reader
from symbi.policy.flow import join
from symbi.runtime.runtime import Runtime
from symbi.types import JsonValue, Label, Principal

PURPOSE = "gateway"
"""What a client of the gateway reads for, as policies see it."""


def search_of(runtime: Runtime) -> Search | None:
    """What searches the documents of a runtime; None where it has none."""
    door = runtime.rooms.knowledge
    if door is None:
        return None

    async def search(principal: Principal, query: str, label: Label, limit: int) -> tuple[JsonValue, Label]:
        knowledge = await door.opened()
        found = await knowledge.search(Reader(principal, label, PURPOSE), query, Wanted(k=limit))
        passages: list[JsonValue] = [
            {
                "text": one.text,
                "source": one.citation.source,
                "headings": one.citation.headings,
                "start": one.citation.start,
                "end": one.citation.end,
                "score": one.score,
            }
            for one in found.passages
        ]
        said: JsonValue = {"passages": passages, "evidence": found.evidence}
        return said, join(*(one.label for one in found.passages))

    return search
