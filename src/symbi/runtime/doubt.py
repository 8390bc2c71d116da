"""Effects in doubt: which there are, what people say became of them, and which can be looked up without their run."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from symbi.agent.again import held_at
from symbi.agent.journal import RunState
from symbi.agent.sealing import opened_run
from symbi.errors import ConfigError, DecryptionFailed, InputError, InternalError, StoreUnavailable, SymbiError
from symbi.guard.confidential import is_keyed, keys_for, opened_effect
from symbi.guard.ledger import EffectRecord, EffectState
from symbi.guard.outcome import encode_result
from symbi.guard.records import may_repeat, never_began
from symbi.guard.settlement import Conclusion
from symbi.guard.vault import NO_KEYS, Keys
from symbi.policy.flow import join_subjects
from symbi.runtime.rooms import Rooms
from symbi.tools.reconcile import CallInDoubt
from symbi.types import AgentId, EffectId, JsonValue, KeyId

_log = logging.getLogger("symbi.runtime")

MAX_REASON_CHARS: Final = 1000
OVER: Final = frozenset({RunState.FINISHED, RunState.FAILED})


@dataclass(frozen=True, slots=True)
class Word:
    """What somebody says became of an effect.

    Attributes:
        happened: Whether it happened.
        by: Who says so, as the trail names them.
        reason: How they know.
        result: What came of it, where it happened.
    """

    happened: bool
    by: str
    reason: str = ""
    result: JsonValue = None


def in_doubt(records: Sequence[EffectRecord]) -> list[EffectRecord]:
    """Those of which nobody knows whether they happened."""
    return [record for record in records if record.state is EffectState.UNKNOWN and not never_began(record)]


def waits_for(record: EffectRecord) -> str:
    """What settles an effect in doubt: its `run`, which does it again or looks it up, or a `person`."""
    return "run" if record.error is None and may_repeat(record, record.recovery) else "person"


class Doubt:
    """Settles what is in doubt.

    Args:
        rooms: What a runtime stands on.
    """

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._log = rooms.world.log
        self._guard = rooms.world.guard

    async def listed(self) -> list[EffectRecord]:
        """All of them, oldest first."""
        return in_doubt(await self._log.read(lambda: self._rooms.effects.effects_in(EffectState.UNKNOWN)))

    async def settle(self, effect_id: EffectId, word: Word) -> EffectRecord:
        """Put on record what a person says became of an effect; its run goes on with that.

        Raises:
            InputError: There is no such effect in doubt, or what is said of it cannot be taken.
            StoreUnavailable: It cannot be made durable.
        """
        _check(word)
        kept = next((one for one in await self.listed() if one.effect_id == effect_id), None)
        if kept is None:
            msg = f"there is no effect `{effect_id[:64]}` in doubt"
            raise InputError(msg, code="input.effect", hint="`symbi effects list --in-doubt` shows those that are")
        record = await self._opened(kept)
        over, unseen = await self._heard(record)
        conclusion = Conclusion(
            word.happened,
            word.by,
            encode_result(word.result),
            {"reason": word.reason} if word.reason else {},
            over=over,
            unseen=unseen,
            keys=await self._keys(record, word.result),
        )
        return await self._guard.settlement.conclude(record, conclusion)

    async def look_up(self) -> list[EffectRecord]:
        """Ask the servers about calls in doubt that can be asked after by their effect id alone; returns those that are settled.

        The others wait for their runs, which know the arguments. What cannot be told now stays in doubt.

        Raises:
            StoreUnavailable: What came out cannot be made durable.
        """
        settled: list[EffectRecord] = []
        for kept in await self.listed():
            declared = self._rooms.catalog.declared(kept.resource.partition("::")[2])
            if declared is None or declared.query is None or declared.query.needs:
                continue
            try:
                record = await self._ask(kept)
            except (StoreUnavailable, InternalError):
                raise
            except SymbiError as error:
                _log.warning("effect `%s` stays in doubt: %s", kept.effect_id, error.code)
                continue
            if record != kept:
                settled.append(record)
        return settled

    async def _ask(self, kept: EffectRecord) -> EffectRecord:
        reconciler, catalog = self._rooms.world.reconciler, self._rooms.catalog
        assert reconciler is not None
        declared, _, instance = kept.agent_id.partition("/")
        principal = replace(self._rooms.principal(AgentId(declared)), instance=instance)
        server = kept.resource.partition("::")[2].partition(".")[0]
        if not catalog.offered(server):
            await catalog.ready(server, principal)
            await self._rooms.policies.refresh()
        record = await self._opened(kept)
        call = CallInDoubt(record, principal, keys=await self._keys(record, None))
        over, unseen = await self._heard(record)
        return await reconciler.settle(call, over=over, unseen=unseen)

    async def _heard(self, record: EffectRecord) -> tuple[bool, bool]:
        """Whether nobody asks for an effect again, and whether its run is held there, and asks for it when it goes on."""
        if not record.run_id or record.position < 0:
            return True, False

        def look() -> tuple[bool, bool]:
            run = self._rooms.runs.get_run(record.run_id)
            if run is None or run.state in OVER:
                return True, False
            error = None if run.state is not RunState.HELD else opened_run(run, self._guard.vault).error
            return False, held_at(error) == record.position

        try:
            return await self._log.read(look)
        except (DecryptionFailed, ConfigError):  # what it knew is gone: it does not go on
            return False, False

    async def _opened(self, record: EffectRecord) -> EffectRecord:
        try:
            return await self._log.read(partial(opened_effect, record, self._guard.vault))
        except (DecryptionFailed, ConfigError) as error:
            msg = (
                f"effect `{record.effect_id}` cannot be settled, for what is kept of it does not open: {error.message}"
            )
            raise InputError(msg, code="input.effect") from error

    async def _keys(self, record: EffectRecord, result: JsonValue) -> Keys:
        """The keys of whom an effect is about, by its digest, and of whom its result is, by the manifest of its tool."""
        vault, keys = self._guard.vault, NO_KEYS
        if vault is not None and is_keyed(record.arguments_digest):
            ids = [KeyId(one) for one in record.arguments_digest.split(":")[1].split(",")]
            try:
                keys = await self._log.read(partial(vault.keys_of, ids))
            except (DecryptionFailed, ConfigError) as error:
                msg = f"effect `{record.effect_id}` is about somebody whose key is not to be had: {error.message}"
                raise InputError(msg, code="input.effect") from error
        entry = self._rooms.catalog.declared(record.resource.partition("::")[2])
        about = () if entry is None else entry.flow.subjects_of_answer(result).everybody
        if not about:
            return keys
        more = await keys_for(vault, record.agent_id, join_subjects(about), wait=True)
        return keys.with_others(more)


def _check(word: Word) -> None:
    if len(word.reason) > MAX_REASON_CHARS or not (word.reason.isprintable()):
        msg = f"a reason is one line of up to {MAX_REASON_CHARS} printable characters"
        raise InputError(msg, code="input.value")
    if not word.happened and not word.reason:
        msg = "say how you know that it did not happen"
        raise InputError(msg, code="input.usage", hint="give `--reason`")
    if not word.happened and word.result is not None:
        msg = "what did not happen has no result"
        raise InputError(msg, code="input.usage")
    try:
        json.dumps(word.result, allow_nan=False)
    except (ValueError, RecursionError, TypeError) as error:
        msg = f"the result is no JSON: {error}"
        raise InputError(msg, code="input.value") from error
