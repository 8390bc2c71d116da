"""`remember` and `recall` of one run: what an agent keeps beyond it, and what it finds of that.

What is remembered bears the label of the value and of all that chose how it is kept; what is recalled comes back under
that label, each item under its own. The list itself bears the labels of all items and of the question: which there are,
and how many, may come from any of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import isfinite
from typing import Any, Final, Protocol, TypeVar

from symbi.agent.messages import Through
from symbi.agent.pieces import data_of, in_pieces, label_of
from symbi.agent.task import label_json, read_label
from symbi.agent.values import Value, from_json, to_json
from symbi.context.kinds import LAST_MS, ContextItem, ContextQuery, Form, Found, MemoryKind, Recalled
from symbi.dsl import ast
from symbi.dsl.spec import MemorySpec
from symbi.errors import InputError, ScriptFailed
from symbi.guard.action import ReadData, WriteData
from symbi.guard.permit import Permit
from symbi.policy.flow import join
from symbi.types import AgentId, Integrity, JsonValue, Label, Principal, RunId

EnumT = TypeVar("EnumT", MemoryKind, Form)

ITEMS: Final = "items"
"""What the ledger keeps of what was recalled: its items, each with its label."""
CUT: Final = "cut"
"""Likewise: there may be more that answers."""
DEFAULT_LIMIT: Final = 20
DAY_S: Final = 86_400.0


class Remembering(Protocol):
    """Where agents remember; every method that has an effect takes a permit first."""

    async def writing(self, principal: Principal, item: ContextItem) -> WriteData:
        """The action of keeping an item."""

    async def reading(self, principal: Principal, query: ContextQuery, label: Label) -> ReadData:
        """The action of asking a memory."""

    async def keep(self, permit: Permit[WriteData], item: ContextItem) -> str:
        """Keep an item; returns its id."""

    async def recall(self, permit: Permit[ReadData], query: ContextQuery) -> Recalled:
        """What a memory says to a question."""

    def declare(self, agent: AgentId, spec: MemorySpec) -> None:
        """Take the terms of an agent's memory from its file."""

    def ended(self, agent: AgentId) -> None:
        """A run of the agent is over."""


class Recollections:
    """What a run remembers and recalls.

    Args:
        memory: Where; None where nothing is remembered.
        principal: Who asks.
        run_id: The run.
        file: Name of the agent file, for places.
        through: How effects get on record.
    """

    def __init__(
        self, memory: Remembering | None, principal: Principal, run_id: RunId, file: str, through: Through
    ) -> None:
        self._where = memory
        self._principal = principal
        self._run_id = run_id
        self._file = file
        self._through = through

    async def remember(self, content: Value, options: Mapping[str, Value], span: ast.Span) -> Value:
        """Keep a value; gives its id."""
        memory = self._memory
        plainly = partial(to_json, place=span, file=self._file)
        data = await in_pieces(data_of(content, plainly))
        given = {name: await in_pieces(data_of(value, plainly)) for name, value in options.items()}
        label = await label_of(content, *options.values())
        half_life = self._number(given, "half_life", span)
        try:
            item = ContextItem(
                data,
                self._one_of(MemoryKind, given, "kind", span) or MemoryKind.LONG_TERM,
                self._tags(given, span),
                0.5 if (importance := self._number(given, "importance", span)) is None else importance,
                self._one_of(Form, given, "form", span) or Form.FACT,
                label,
                None if half_life is None else half_life / DAY_S,
                self._run_id,
            )
        except InputError as wrong:
            raise self._wrong(wrong, span) from None
        action = replace(await memory.writing(self._principal, item), slot=self._through.slot())

        async def keep(permit: Permit[WriteData]) -> JsonValue:
            return await memory.keep(permit, item)

        done = await self._through.perform(action, self._through.gated(action, keep))
        return from_json(done.value, join(Label(Integrity.SYSTEM, sources=(done.effect_id,)), done.mark))

    async def recall(self, options: Mapping[str, Value], span: ast.Span) -> Value:
        """Items that answer, the best or the newest first: records of what they say, and what is known of them."""
        memory = self._memory
        plainly = partial(to_json, place=span, file=self._file)
        given = {name: await in_pieces(data_of(value, plainly)) for name, value in options.items()}
        label = await label_of(*options.values())
        kind, form = self._one_of(MemoryKind, given, "kind", span), self._one_of(Form, given, "form", span)
        whole = self._truth(given, "whole", span)
        try:
            query = ContextQuery(
                about=self._text(given, "about", span),
                text=self._text(given, "text", span),
                kinds=() if kind is None else (kind,),
                forms=() if form is None else (form,),
                tags=self._tags(given, span),
                since_ms=self._moment(given, "since", span),
                until_ms=self._moment(given, "until", span),
                max_tokens=self._whole(given, "tokens", span),
                limit=DEFAULT_LIMIT if (limit := self._whole(given, "limit", span)) is None else limit,
                of=AgentId(self._text(given, "of", span)),
            )
        except InputError as wrong:
            raise self._wrong(wrong, span) from None
        action = replace(await memory.reading(self._principal, query, label), slot=self._through.slot())

        async def look(permit: Permit[ReadData]) -> JsonValue:
            found = await memory.recall(permit, query)
            items: dict[str, JsonValue] = {ITEMS: [_kept(item) for item in found]}
            if found.cut:
                permit.note(CUT, True)
            return {**items, CUT: True} if found.cut else items

        done = await self._through.perform(action, self._through.gated(action, look))
        if whole and done.value.get(CUT):
            msg = "there may be more that answers than could be looked at or given: `whole` asks for all of it"
            hint = "ask for less: by `kind`, `since`, `until` or `tokens`"
            raise ScriptFailed(msg, code="context.cut", place=span.place(self._file), hint=hint)
        return _recalled(done.value[ITEMS], join(label, Label(sources=(done.effect_id,)), done.mark))

    @property
    def _memory(self) -> Remembering:
        if self._where is None:
            raise ScriptFailed("nothing is remembered here", code="input.memory")
        return self._where

    # --- arguments ----------------------------------------------------------------------------

    def _text(self, given: Mapping[str, JsonValue], name: str, span: ast.Span) -> str:
        value = given.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self._failed(f"`{name}` is a String", span)
        return value

    def _tags(self, given: Mapping[str, JsonValue], span: ast.Span) -> tuple[str, ...]:
        value = given.get("tags")
        if value is None:
            return ()
        tags = [value] if isinstance(value, str) else value
        if not isinstance(tags, list | tuple) or not all(isinstance(tag, str) for tag in tags):
            raise self._failed("`tags` is a list of Strings", span)
        return tuple(str(tag) for tag in tags)

    def _number(self, given: Mapping[str, JsonValue], name: str, span: ast.Span) -> float | None:
        value = given.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise self._failed(f"`{name}` is a number", span)
        return float(value)

    def _whole(self, given: Mapping[str, JsonValue], name: str, span: ast.Span) -> int | None:
        value = self._number(given, name, span)
        if value is not None and value != int(value):
            raise self._failed(f"`{name}` is a whole number", span)
        return None if value is None else int(value)

    def _truth(self, given: Mapping[str, JsonValue], name: str, span: ast.Span) -> bool:
        value = given.get(name)
        if value is not None and not isinstance(value, bool):
            raise self._failed(f"`{name}` is true or false", span)
        return bool(value)

    def _moment(self, given: Mapping[str, JsonValue], name: str, span: ast.Span) -> int | None:
        """Seconds since the epoch, as `now()` gives them, in milliseconds."""
        value = self._number(given, name, span)
        if value is not None and abs(value) > LAST_MS / 1000:
            raise self._failed(f"`{name}` is a time in seconds since the epoch", span)
        return None if value is None else round(value * 1000)

    def _one_of(self, kind: type[EnumT], given: Mapping[str, JsonValue], name: str, span: ast.Span) -> EnumT | None:
        value = given.get(name)
        if value is None:
            return None
        try:
            return kind(str(value))
        except ValueError:
            listed = ", ".join(f'"{one.value}"' for one in kind)
            raise self._failed(f"`{name}` is one of {listed}", span) from None

    def _failed(self, message: str, span: ast.Span) -> ScriptFailed:
        return ScriptFailed(message, place=span.place(self._file))

    def _wrong(self, wrong: InputError, span: ast.Span) -> ScriptFailed:
        return ScriptFailed(wrong.message, code=wrong.code, place=span.place(self._file), hint=wrong.hint)


def _kept(item: Found) -> JsonValue:
    """An item as the ledger keeps it."""
    return {
        "value": {
            "content": item.content, "id": item.id, "agent": item.agent, "kind": item.kind.value, "form": item.form.value,
            "tags": list(item.tags), "importance": item.importance, "at": item.at_ms / 1000, "times": item.times,
            "run": item.run_id, "score": round(item.score, 4),
        },
        "label": {**label_json(item.label), "sources": list(item.label.sources)},
    }  # fmt: skip


def _recalled(items: Sequence[Any], label: Label) -> Value:
    """The list of items, each under its own label, joined with that of the question."""
    values: list[Value] = []
    for item in items:
        kept = dict(item["label"])
        own = replace(read_label(kept), sources=tuple(kept.pop("sources", ())))
        values.append(from_json(item["value"], join(own, label)))
    return Value(tuple(values), join(label, *(value.label for value in values)))
