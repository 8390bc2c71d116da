"""`runtime.context`: what agents remember, for programs in Python."""

from collections.abc import Sequence
from dataclasses import dataclass

from symbi.context.cache import CacheStats
from symbi.context.keeping import MemoryKeeping
from symbi.context.kinds import ContextItem, ContextQuery, Recalled
from symbi.context.library import Library
from symbi.context.memory import Memory
from symbi.context.port import Checkpoint
from symbi.context.typed import TEXTS, check_each, check_type
from symbi.context.verifying import VerifiedMemory, verify_memory
from symbi.dsl.spec import CompiledFile
from symbi.knowledge.passages import SearchResult
from symbi.knowledge.rag import Wanted
from symbi.types import AgentId, Principal


@dataclass(frozen=True, slots=True)
class Context:
    """What agents remember: every call is decided at the gate, as the agent that is named.

    Attributes:
        memory: The room.
        keeping: Keeps it in order.
        library: Documents.
    """

    memory: Memory
    keeping: MemoryKeeping
    library: Library

    def declare(self, compiled: CompiledFile) -> None:
        """Make known what a file says of the memories of its agents."""
        for spec in compiled.agents:
            self.memory.declare(spec.id, spec.memory)

    async def store_context(self, agent: AgentId | Principal, item: ContextItem) -> str:
        """Have an agent remember something; durable when it returns. Gives the item's id.

        Raises:
            Denied: Policy does not let it.
            InputError: It cannot be kept so.
            Unavailable: The store or the embedder cannot be used.
        """
        return await self.memory.store_context(agent, item)

    async def retrieve_context(self, agent: AgentId | Principal, query: ContextQuery) -> Recalled:
        """What an agent remembers, or what another one shares with it: the best or the newest first.

        Raises:
            Denied: Policy does not let the agent read this memory.
            InputError: The question is wrong.
            Unavailable: The store or the embedder cannot be used.
        """
        return await self.memory.retrieve_context(agent, query)

    async def search_knowledge(
        self, agent: AgentId | Principal, question: str, *, collections: Sequence[str] = (), limit: int = 8
    ) -> SearchResult:
        """What documents say to a question, as an agent may read them: passages with citations, best first.

        Args:
            agent: Who asks.
            question: What.
            collections: Where to look; everywhere if empty.
            limit: So many passages at most.

        Raises:
            Denied: Policy lets the agent see nothing of what was asked for.
            InputError: The question or what is wanted is none.
            Unavailable: Store, index or embedder cannot be used.
        """
        principal = self.memory.principal_of(agent)
        check_type("question", question, str, "a str")
        check_each("collections", collections, str, TEXTS)
        check_type("limit", limit, int, "a whole number")
        return await self.library.search_knowledge(principal, question, Wanted(tuple(collections), limit))

    async def forget(self, agent: AgentId | Principal, ids: Sequence[str]) -> int:
        """Have an agent forget items; see `symbi.context.keeping`, also for the next three."""
        check_each("ids", ids, str, TEXTS)
        return await self.keeping.forget(agent, ids)

    async def checkpoint(self, agent: AgentId | Principal) -> Checkpoint:
        """Copy all that an agent remembers."""
        return await self.keeping.checkpoint(agent)

    async def checkpoints(self, agent: AgentId | Principal) -> Sequence[Checkpoint]:
        """The copies of an agent's memory, newest first."""
        return await self.keeping.checkpoints(agent)

    async def restore(self, agent: AgentId | Principal, checkpoint: str) -> int:
        """Put a copy in the place of what an agent remembers."""
        check_type("checkpoint", checkpoint, str, "the id of a checkpoint, a str")
        return await self.keeping.restore(agent, checkpoint)

    async def verify(self, *, repair: bool) -> VerifiedMemory:
        """Compare items with their vectors, and make again what is missing; for who has passed the gate."""
        return await verify_memory(self.memory, self.keeping.mend, repair=repair)

    @property
    def cache(self) -> CacheStats:
        """How the cache does."""
        return self.memory.cache
