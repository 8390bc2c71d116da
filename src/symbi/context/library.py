"""What agents look up in documents: the pipeline of `symbi.knowledge`, for runs and for programs in Python."""

from collections.abc import Awaitable, Callable

from symbi.errors import InputError, PolicyDenied
from symbi.guard.action import CallModel, DataRef, ReadData
from symbi.guard.permit import Authority, Permit
from symbi.knowledge.answer import Answer, Commission
from symbi.knowledge.knowledge import Knowledge
from symbi.knowledge.passages import SearchResult
from symbi.knowledge.rag import MAX_PASSAGES, Wanted
from symbi.knowledge.readings import KIND, Reader
from symbi.types import AgentId, JsonValue, Label, Principal


class Library:
    """Documents that agents may search.

    Args:
        opened: Gives the knowledge, and opens it when it is asked for first.
        authority: Where permits are redeemed.
        purpose_of: What an agent looks things up for: its operator says so, neither it nor the documents.
    """

    def __init__(
        self, opened: Callable[[], Awaitable[Knowledge]], authority: Authority, purpose_of: Callable[[AgentId], str]
    ) -> None:
        self._opened = opened
        self._authority = authority
        self._purpose_of = purpose_of

    async def reading(self, principal: Principal, base: str, query: JsonValue, label: Label, limit: int) -> ReadData:
        """The action of looking something up in a collection.

        Raises:
            InputError: It can be no collection, or too much is asked for.
            ConfigError, Unavailable: Knowledge cannot be opened.
        """
        if not 1 <= limit <= MAX_PASSAGES:
            raise InputError(f"`limit` is from 1 to {MAX_PASSAGES}", code="knowledge.query")
        rooms = (await self._opened()).rooms
        terms = rooms.rules.of_collection(base)
        data = DataRef("Knowledge", base, terms.owner, KIND, terms.classification.value, terms.purpose)
        model = rooms.embedder.model
        return ReadData(
            principal=principal, data=data, label=label, query=query,
            purpose=self._purpose_of(principal.agent), max_items=limit, embedder=model.name, remote=model.remote,
        )  # fmt: skip

    async def search(self, permit: Permit[ReadData], question: str) -> SearchResult:
        """The passages of a collection that have to do with a question, as a permit covers it.

        Raises:
            PermitRefused: The permit is not live.
            Denied: Policy lets the reader see no document of it, or leaves the question not as it was asked.
            InputError, Unavailable: As `Knowledge.search`.
        """
        reader, wanted = self._as_permitted(permit, question)
        return await (await self._opened()).search(reader, question, wanted)

    async def answer(self, permit: Permit[ReadData], question: str) -> tuple[Answer, Commission | None]:
        """An answer word for word, or that there is none; and what a model is to be asked for a better one.

        Raises:
            PermitRefused, Denied, InputError, Unavailable: As `search`.
        """
        reader, wanted = self._as_permitted(permit, question)
        return await (await self._opened()).commissioned(reader, question, wanted)

    async def write(self, permit: Permit[CallModel]) -> str:
        """What the model writes; raises as `Knowledge.write`."""
        return await (await self._opened()).write(permit)

    async def search_knowledge(self, principal: Principal, question: str, wanted: Wanted) -> SearchResult:
        """The same for a program in Python, which the pipeline itself decides on; raises as `Knowledge.search`."""
        reader = Reader(principal, purpose=self._purpose_of(principal.agent))
        return await (await self._opened()).search(reader, question, wanted)

    def _as_permitted(self, permit: Permit[ReadData], question: str) -> tuple[Reader, Wanted]:
        action = self._authority.redeem(permit, ReadData)
        if action.query != {
            "question": question
        }:  # also where the documents there are of a sort whose policies leave it
            msg = "a policy redacts what is looked for in this collection, and so nothing can be"
            raise PolicyDenied(msg, code="policy.condition")
        reader = Reader(action.principal, action.label, action.purpose, action.run_id or None, permit)
        return reader, Wanted((action.data.name,), action.max_items)
