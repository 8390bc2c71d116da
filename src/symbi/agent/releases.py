"""`endorse` and `declassify` of one run: the effects that lower the label of a value."""

import hashlib
from functools import partial
from typing import Any, TypeVar

from symbi.agent.messages import Through
from symbi.agent.pieces import data_of, in_pieces, label_of
from symbi.agent.release import LEVELS, Change, declassified, endorsed, is_release_name, relabelled
from symbi.agent.values import TEMPLATE, Value, to_json
from symbi.dsl import ast
from symbi.errors import ScriptFailed
from symbi.guard.action import DeclassifyValue, EndorseValue
from symbi.guard.outcome import encode_result
from symbi.guard.permit import Authority, Permit
from symbi.policy.flow import join
from symbi.types import JsonValue, Label, Principal

ReleaseT = TypeVar("ReleaseT", EndorseValue, DeclassifyValue)


class Releases:
    """What a run believes, and lets travel.

    Args:
        authority: Where permits are redeemed.
        principal: Who asks.
        file: Name of the agent file, for places.
        through: How effects get on record.
    """

    def __init__(self, authority: Authority, principal: Principal, file: str, through: Through) -> None:
        self._authority = authority
        self._principal = principal
        self._file = file
        self._through = through

    async def endorse(self, value: Value, name: Value, span: ast.Span) -> Value:
        """The value, believed from here on: what is untrusted in it is `trusted`. It keeps its sources, and gains this effect."""
        facts = await self._facts(value, name, endorsed, span)
        return await self._release(value, EndorseValue(**facts), EndorseValue, endorsed)

    async def declassify(self, value: Value, name: Value, to: Value, span: ast.Span) -> Value:
        """The value, free to travel from here on: `public`, or no more than `to`, and of no category; likewise."""
        level = "public" if to.data is None else to.data
        if to.label != TEMPLATE or not isinstance(level, str) or level not in LEVELS:
            msg = f"the level of `declassify` must be one of {', '.join(LEVELS)}, and stand in the agent file"
            raise ScriptFailed(msg, place=span.place(self._file))
        change = declassified(LEVELS[level])
        facts = await self._facts(value, name, change, span)
        return await self._release(value, DeclassifyValue(**facts), DeclassifyValue, change)

    async def _facts(self, value: Value, name: Value, change: Change, span: ast.Span) -> dict[str, Any]:
        """What both kinds of release say of themselves. No data chooses the name, for it is what policies permit."""
        if name.label != TEMPLATE or not isinstance(name.data, str) or not is_release_name(name.data):
            msg = "the name of a release must stand in the agent file: letters, digits and `_ . -`"
            raise ScriptFailed(msg, place=span.place(self._file))
        plainly = partial(to_json, place=span, file=self._file)
        data = encode_result(await in_pieces(data_of(value, plainly)))
        label = await label_of(value)
        return {
            "principal": self._principal,
            "slot": self._through.slot(),
            "label": label,
            "name": name.data,
            "value_digest": hashlib.sha256(data).hexdigest(),
            "value_bytes": len(data),
            "after": change(label),
        }

    async def _release(self, value: Value, action: ReleaseT, kind: type[ReleaseT], change: Change) -> Value:
        async def lower(permit: Permit[ReleaseT]) -> JsonValue:
            self._authority.redeem(permit, kind)
            return None

        done = await self._through.perform(action, self._through.gated(action, lower))
        return relabelled(value, change, join(Label(sources=(done.effect_id,)), done.mark))
