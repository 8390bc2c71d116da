"""`search` and `answer` of one run: what an agent looks up in documents.

What documents say is untrusted, whoever put them there: each passage comes back under the label of its document, with
the place where it stands. The list itself bears the labels of all passages and of the question.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, Protocol

from symbi.agent.messages import Through
from symbi.agent.pieces import data_of, in_pieces, label_of
from symbi.agent.task import label_json, read_label
from symbi.agent.values import Value, from_json, to_json
from symbi.dsl import ast
from symbi.errors import InputError, ScriptFailed
from symbi.guard.action import ReadData
from symbi.guard.permit import Permit
from symbi.knowledge.answer import Answer
from symbi.knowledge.passages import Passage, SearchResult
from symbi.policy.flow import join
from symbi.types import Integrity, JsonValue, Label, Principal

ITEMS: Final = "items"
"""What the ledger keeps of what was found: its passages, or the one answer, each with its label."""
DEFAULT_LIMIT: Final = 5


class LooksUp(Protocol):
    """Documents; every method that has an effect takes a permit first."""

    async def reading(self, principal: Principal, base: str, query: JsonValue, label: Label, limit: int) -> ReadData:
        """The action of looking something up in a collection."""

    async def search(self, permit: Permit[ReadData], question: str) -> SearchResult:
        """The passages that have to do with a question."""

    async def answer(self, permit: Permit[ReadData], question: str) -> Answer:
        """An answer with its sources, or that there is none."""


class Lookups:
    """What a run looks up.

    Args:
        library: Where; None where there are no documents.
        principal: Who asks.
        file: Name of the agent file, for places.
        through: How effects get on record.
    """

    def __init__(self, library: LooksUp | None, principal: Principal, file: str, through: Through) -> None:
        self._where = library
        self._principal = principal
        self._file = file
        self._through = through

    async def search(self, about: Value, base: Value, limit: Value, span: ast.Span) -> Value:
        """Passages, best first: records with text, source, headings and place."""
        library = self._library

        async def look(permit: Permit[ReadData], question: str) -> JsonValue:
            result = await library.search(permit, question)
            return {ITEMS: [_kept(_passage(one), one.label) for one in result.passages]}

        items, label = await self._look(about, base, limit, span, look)
        values = [_value(item, label) for item in items]
        return Value(tuple(values), join(label, *(value.label for value in values)))

    async def answer(self, question: Value, base: Value, span: ast.Span) -> Value:
        """A record: the text, whether there is an answer, and the passages that it cites by their numbers."""
        library = self._library

        async def look(permit: Permit[ReadData], text: str) -> JsonValue:
            said = await library.answer(permit, text)
            cited = [_passage(one) for one in said.passages]
            label = join(said.label, *(one.label for one in said.passages))
            return {ITEMS: [_kept({"text": said.text, "found": said.found, "passages": cited}, label)]}

        (item,), label = await self._look(question, base, Value(None), span, look)
        return _value(item, label)

    async def _look(
        self, about: Value, base: Value, limit: Value, span: ast.Span, look: Any
    ) -> tuple[Sequence[Any], Label]:
        """What the ledger keeps of a look into documents, and the label of having asked."""
        plainly = partial(to_json, place=span, file=self._file)
        question = await in_pieces(data_of(about, plainly))
        name, most = await in_pieces(data_of(base, plainly)), await in_pieces(data_of(limit, plainly))
        most = DEFAULT_LIMIT if most is None else most
        if not isinstance(question, str) or not isinstance(name, str):
            raise ScriptFailed("a question and the name of a collection are Strings", place=span.place(self._file))
        if isinstance(most, bool) or not isinstance(most, int):
            raise ScriptFailed("`limit` is a whole number", place=span.place(self._file))
        label = await label_of(about, base, limit)
        try:
            asked = await self._library.reading(self._principal, name, {"question": question}, label, most)
        except InputError as wrong:
            place = span.place(self._file)
            raise ScriptFailed(wrong.message, code=wrong.code, place=place, hint=wrong.hint) from None
        action = replace(asked, slot=self._through.slot())
        done = await self._through.perform(action, self._through.gated(action, partial(_swap, look, question)))
        return done.value[ITEMS], join(label, Label(Integrity.UNTRUSTED, sources=(done.effect_id,)), done.mark)

    @property
    def _library(self) -> LooksUp:
        if self._where is None:
            raise ScriptFailed("there are no documents here", code="input.knowledge")
        return self._where


async def _swap(look: Any, question: str, permit: Permit[ReadData]) -> JsonValue:
    found: JsonValue = await look(permit, question)
    return found


def _passage(one: Passage) -> dict[str, JsonValue]:
    cited = one.citation
    return {
        "text": one.text, "collection": cited.collection, "source": cited.source, "headings": cited.headings,
        "start": cited.start, "end": cited.end, "score": round(one.score, 4),
    }  # fmt: skip


def _kept(value: JsonValue, label: Label) -> JsonValue:
    return {"value": value, "label": {**label_json(label), "sources": list(label.sources)}}


def _value(item: Mapping[str, Any], label: Label) -> Value:
    kept = dict(item["label"])
    own = replace(read_label(kept), sources=tuple(kept.pop("sources", ())))
    return from_json(item["value"], join(own, label))
