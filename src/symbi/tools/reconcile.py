"""What became of a call in doubt, asked of the server that it went to.

1. the manifest names a read-only tool of the same server, and how it is asked (`symbi.tools.query`);
2. the question is an effect of its own: decided by policy for the agent whose call it was, and on the trail;
3. the declared field of the answer decides, and nothing else in it;
4. that it did *not* happen is believed only once the call cannot come any more: whoever made it is refused by his
   deadline by then (`Authority.mint`), and whatever he had sent is over;
5. what came out is put on record before anything is done about it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from symbi.clock import Clock
from symbi.errors import (
    EffectInDoubt,
    InputError,
    InternalError,
    OutputLimit,
    RateLimited,
    StoreUnavailable,
    SymbiError,
    TimeLimit,
    ToolServerUnavailable,
    Unavailable,
)
from symbi.guard.action import InvokeTool
from symbi.guard.confidential import keys_for
from symbi.guard.gate import Guard
from symbi.guard.ledger import EffectRecord
from symbi.guard.outcome import encode_result
from symbi.guard.records import may_repeat
from symbi.guard.settlement import Conclusion
from symbi.guard.vault import NO_KEYS, Keys
from symbi.policy.flow import join, join_subjects
from symbi.tools.catalog import Catalog
from symbi.tools.invoke import OUTER_GRACE_S, Invoker
from symbi.tools.mask import references
from symbi.tools.query import Answered, Finding, RecoveryQuery
from symbi.tools.verified import VerifiedTool
from symbi.types import JsonValue, Label, Principal, RecoveryClass, RunId

RETRY_AFTER_S: Final = 1.0  # when a server that could not be asked is asked again, where it does not say


@dataclass(frozen=True, slots=True)
class CallInDoubt:
    """A call of which nobody knows whether it happened.

    Attributes:
        record: Its record, opened.
        principal: Who asked for it.
        values: Its arguments.
        labels: The label of each.
        label: Join of all that went into it.
        secrets: Paths of the vault references in its arguments.
        subjects: Whom it is about.
        keys: The keys of whom it is about, where only those are known.
    """

    record: EffectRecord
    principal: Principal
    values: Mapping[str, JsonValue] = field(default_factory=dict)
    labels: Mapping[str, Label] = field(default_factory=dict)
    label: Label = field(default_factory=Label)
    secrets: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    keys: Keys = NO_KEYS


class Reconciler:
    """Asks what became of calls in doubt.

    Args:
        invoker: Calls tools.
        catalog: The tools there are.
        guard: The gate, which keeps what comes out.
        clock: Says how long a call has been in doubt.
    """

    def __init__(self, invoker: Invoker, catalog: Catalog, guard: Guard, clock: Clock) -> None:
        self._invoker = invoker
        self._catalog = catalog
        self._guard = guard
        self._clock = clock
        self._opened_s = clock.monotonic_s()

    def query_for(self, record: EffectRecord) -> tuple[VerifiedTool, RecoveryQuery] | None:
        """The tool of a call in doubt, and how it is asked after; None where only a person can say, or nobody need.

        The class that it was called with counts as well as the one that is declared now: what was taken back counts no more.

        Raises:
            ToolServerUnavailable: Its server is not connected just now.
        """
        if record.recovery is not RecoveryClass.RECONCILABLE or may_repeat(record, record.recovery):
            return None
        try:
            tool = self._catalog.find(record.resource.partition("::")[2])
        except ToolServerUnavailable:
            raise
        except SymbiError:  # it is not to be had; the call stays in doubt
            return None
        query = tool.entry.query
        if query is None or tool.ref.recovery is not RecoveryClass.RECONCILABLE:
            return None
        return tool, query

    async def settle(self, call: CallInDoubt, *, over: bool = False, unseen: bool = False) -> EffectRecord:
        """Ask, and put on record what comes out; the record as it stands then.

        Args:
            call: The call.
            over: Its run has ended, so that nobody asks for it again.
            unseen: As of `Conclusion`.

        Raises:
            EffectInDoubt: It stays so; the error says why.
            StoreUnavailable: What came out cannot be made durable.
        """
        record = call.record
        try:
            found = self.query_for(record)
        except ToolServerUnavailable as error:
            raise _in_doubt(record, error.message, _again_s(error)) from error
        if found is None:
            return record
        tool, query = found
        try:
            asked = self._question(call, tool, query)
            answer = await self._invoker.call(asked)
            answered = query.read(answer.value)
            result = _result(tool, answered)
        except (StoreUnavailable, InternalError):
            raise
        except SymbiError as error:
            why = f"`{query.tool}` could not be asked: {error.message}"
            raise _in_doubt(record, why, _again_s(error)) from error
        if answered.finding is Finding.UNKNOWN:
            raise _in_doubt(record, f"`{query.tool}` does not know it either")
        happened = answered.finding is Finding.HAPPENED
        left_s = self._believed_s(record, tool, query) - self._clock.monotonic_s()
        if not happened and left_s > 0:
            why = f"`{query.tool}` has not seen it, which is believed in {left_s:.1f} s, when it cannot come any more"
            raise _in_doubt(record, why, retry_after_s=left_s)
        conclusion = Conclusion(
            happened,
            asked.tool.name,
            result,
            {"query": answer.effect_id, "reason": f"{query.decides.text} of `{asked.tool.name}` said so"},
            over=over,
            unseen=unseen,
            keys=await self._keys(call, tool, answered),
        )
        return await self._guard.settlement.conclude(record, conclusion)

    def _believed_s(self, record: EffectRecord, tool: VerifiedTool, query: RecoveryQuery) -> float:
        """From when on it is believed that the call did not happen.

        What this start of the runtime found in flight was begun before it; of what it began itself it is noted when it was lost.
        """
        since_s = self._guard.settlement.lost_s.get(record.effect_id, self._opened_s)
        if query.after_s is not None:
            return since_s + query.after_s
        call_s = tool.entry.timeout_s or self._catalog.link_of(tool).timeout_s
        return since_s + 2 * call_s + OUTER_GRACE_S  # it is begun within its deadline, and then has that long

    def _question(self, call: CallInDoubt, tool: VerifiedTool, query: RecoveryQuery) -> InvokeTool:
        """The query as an action of the agent whose call it was; it belongs to the run and has no place in it."""
        values = query.asked_with(call.record.effect_id, call.values)
        labels = {name: join(call.label, *(call.labels.get(one, Label()) for one in query.needs)) for name in values}
        within = set(references(values))
        secrets = tuple(path for path in call.secrets if path in within)
        name = f"{tool.ref.server}.{query.tool}"
        action = self._invoker.prepare(call.principal, name, values, labels=labels, secrets=secrets)
        if action.recovery is not RecoveryClass.READ_ONLY:
            msg = f"`{name}` is not read-only any more"
            raise InputError(msg, code="input.query")
        label = replace(action.label, subjects=join_subjects(action.label.subjects, call.subjects))
        return replace(action, label=label, within=RunId(call.record.run_id))

    async def _keys(self, call: CallInDoubt, tool: VerifiedTool, answered: Answered) -> Keys:
        """The keys of what is kept: of whom the call is about, and of whom else its result is."""
        flow = tool.ref.flow
        about = flow.subjects_of_answer(answered.result).everybody
        if call.keys and not about:
            return call.keys
        subjects = join_subjects(call.subjects, flow.subjects_of_call(call.values), about)
        return call.keys.with_others(await keys_for(self._guard.vault, call.principal.agent, subjects, wait=True))


def _result(tool: VerifiedTool, answered: Answered) -> bytes:
    """The result of the call, held to what the tool itself may answer.

    Raises:
        OutputLimit: It is too large.
        InputError: It is not what the tool's output schema promises.
    """
    result = encode_result(answered.result)
    if len(result) > tool.entry.max_output_bytes:
        msg = f"the result that it tells of has {len(result)} bytes; {tool.entry.max_output_bytes} are allowed"
        raise OutputLimit(msg, tool=tool.ref.name)
    if answered.finding is Finding.HAPPENED and tool.output is not None:
        tool.output.check(answered.result)
    return result


def _again_s(error: SymbiError) -> float | None:
    """In how many seconds it may be asked again what could not be asked; None where that is nothing that passes."""
    if not isinstance(error, Unavailable | RateLimited | TimeLimit):
        return None
    asked_s = error.fields.get("retry_after_s")
    return float(asked_s) if isinstance(asked_s, int | float) else RETRY_AFTER_S


def _in_doubt(record: EffectRecord, why: str, retry_after_s: float | None = None) -> EffectInDoubt:
    msg = f"`{record.resource}` was in flight when it was interrupted, and {why}"
    hint = "`symbi effects list --in-doubt` shows it, `symbi effects settle` says what became of it"
    error = EffectInDoubt(msg, hint=hint, effect_id=record.effect_id, position=record.position)
    if retry_after_s is not None:
        error.fields["retry_after_s"] = retry_after_s
    return error
