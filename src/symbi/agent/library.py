"""`search` and `answer` of one run: what an agent looks up in documents.

What documents say is untrusted, whoever put them there: each passage comes back under the label of its document, with
the place where it stands. The list itself bears the labels of all passages and of the question.

Where a model writes answers, `answer` is two effects: the look into documents, whose record has the answer word for word
and what the model is to be asked, and the call of the model, as this agent. So a run that goes on asks no model for what it
has written, and asks one that is configured no more for nothing. What cannot be written, for whatever reason, is word for word.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Final, Protocol

from symbi.agent.messages import Through
from symbi.agent.pieces import data_of, in_pieces, label_of
from symbi.agent.task import label_json, read_label
from symbi.agent.values import Value, from_json, to_json
from symbi.dsl import ast
from symbi.dsl.builtins import NEVER_CAUGHT
from symbi.errors import (
    Denied,
    InputError,
    LimitExceeded,
    ModelFailed,
    ScriptFailed,
    SymbiError,
    TimeLimit,
    Unavailable,
)
from symbi.guard.action import CallModel, ReadData
from symbi.guard.outcome import error_label
from symbi.guard.permit import Permit
from symbi.knowledge.answer import NO_EVIDENCE, Answer, AnswerModelId, Commission, Prompt, call_of, left_of, says
from symbi.knowledge.passages import Passage, SearchResult
from symbi.policy.flow import join
from symbi.types import Integrity, JsonValue, Label, Principal

ITEMS: Final = "items"
"""What the ledger keeps of what was found, each with its label: passages; or an answer, and what a model is to write of it."""
MODEL_LATE: Final = "limit.model"  # the model took too long, and not the run
DEFAULT_LIMIT: Final = 5


class LooksUp(Protocol):
    """Documents; every method that has an effect takes a permit first."""

    async def reading(self, principal: Principal, base: str, query: JsonValue, label: Label, limit: int) -> ReadData:
        """The action of looking something up in a collection."""

    async def search(self, permit: Permit[ReadData], question: str) -> SearchResult:
        """The passages that have to do with a question."""

    async def answer(self, permit: Permit[ReadData], question: str) -> tuple[Answer, Commission | None]:
        """An answer word for word, or that there is none; and what a model is to be asked for a better one."""

    async def write(self, permit: Permit[CallModel]) -> str:
        """What the model writes, unchecked."""


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
        """A record: the text, whether there is an answer, the passages that it cites by their numbers, and who wrote it."""
        library = self._library

        async def look(permit: Permit[ReadData], text: str) -> JsonValue:
            said, wanted = await library.answer(permit, text)
            label = join(said.label, *(one.label for one in said.passages))
            items: list[JsonValue] = [_kept(_said(said.text, said.passages, said.by), label)]
            return {ITEMS: items if wanted is None else [*items, _kept(_wanted(wanted), wanted.label)]}

        (found, *wanted), label = await self._look(question, base, Value(None), span, look)
        if not wanted:
            return _value(found, label)
        try:
            return await self._written(wanted[0], label)
        except (Denied, LimitExceeded, ModelFailed, Unavailable) as error:
            if _ends(error):
                raise
            # Nothing of the model's is used, and the answer says so.
            why = f"{error.code}: {error.message}"
            return _value({**found, "value": {**found["value"], "unwritten": why}}, join(label, error_label(error)))

    async def _written(self, item: Mapping[str, Any], asked: Label) -> Value:
        """What a model writes, at a place of its own in the run.

        Args:
            item: What it is to be asked, as it is kept.
            asked: Of the question, and of having looked.

        Raises:
            Denied, LimitExceeded, ModelFailed, Unavailable: It is not asked, gives no answer, or one that does not cite.
        """
        library, kept = self._library, item["value"]
        model, told = AnswerModelId(**kept["model"]), kept["prompt"]
        prompt = Prompt(told["system"], told["question"], tuple(told["passages"]))
        label = join(_label(item), asked)

        async def write(permit: Permit[CallModel]) -> JsonValue:
            text, left = await library.write(permit), left_of(permit.action.prompt, prompt)
            found = says(text, prompt.passages[:left])
            return {"text": text if found else NO_EVIDENCE, "found": found, "cited": left if found else 0}

        action = replace(call_of(model, prompt, self._principal, label), slot=self._through.slot())
        done = await self._through.perform(action, self._through.gated(action, write))
        said: Any = done.value
        value = {
            "text": said["text"], "found": said["found"], "passages": kept["passages"][: said["cited"]],
            "by": "model" if said["found"] else "nothing", "model": model.name, "unwritten": "",
        }  # fmt: skip
        return from_json(value, join(label, Label(Integrity.UNTRUSTED, sources=(done.effect_id,)), done.mark))

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


def _ends(error: SymbiError) -> bool:
    """Whether an error is about the run and not about the model: no body catches it, or the time of the run is up."""
    return isinstance(error, NEVER_CAUGHT) or (isinstance(error, TimeLimit) and error.code != MODEL_LATE)


def _said(text: str, passages: Sequence[Passage], by: str) -> dict[str, JsonValue]:
    cited: list[JsonValue] = [_passage(one) for one in passages]
    return {"text": text, "found": bool(cited), "passages": cited, "by": by, "model": "", "unwritten": ""}


def _wanted(one: Commission) -> dict[str, JsonValue]:
    prompt = one.prompt
    return {
        "model": asdict(one.model),
        "prompt": {"system": prompt.system, "question": prompt.question, "passages": list(prompt.passages)},
        "passages": [_passage(shown) for shown in one.passages],
    }


def _passage(one: Passage) -> dict[str, JsonValue]:
    cited = one.citation
    return {
        "text": one.text, "collection": cited.collection, "source": cited.source, "headings": cited.headings,
        "start": cited.start, "end": cited.end, "score": round(one.score, 4),
    }  # fmt: skip


def _kept(value: JsonValue, label: Label) -> JsonValue:
    return {"value": value, "label": {**label_json(label), "sources": list(label.sources)}}


def _value(item: Mapping[str, Any], label: Label) -> Value:
    return from_json(item["value"], join(_label(item), label))


def _label(item: Mapping[str, Any]) -> Label:
    kept = dict(item["label"])
    return replace(read_label(kept), sources=tuple(kept.pop("sources", ())))
