"""Records of effects, with what each decision was made on."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from symbi.guard.action import Action
from symbi.guard.confidential import keyed, ledger_decision, sealed_request
from symbi.guard.facts import FactKeeper
from symbi.guard.ledger import EffectRecord, EffectState
from symbi.guard.outcome import decision_json
from symbi.guard.records import action_name, decision_facts, digest_arguments
from symbi.guard.vault import NO_KEYS, Keys
from symbi.policy.decision import PolicyDecision, PolicyRequest
from symbi.policy.engine import PolicyEngine
from symbi.types import EffectId, RunId


@dataclass(frozen=True, slots=True)
class Decided:
    """A question that was put to the engine, and its answer.

    Attributes:
        effect_id: Of the effect.
        action: As it was asked for.
        request: Makes the question that was put to the engine.
        decision: The answer.
        keys: Seal what is kept of it.
    """

    effect_id: EffectId
    action: Action
    request: Callable[[], PolicyRequest]
    decision: PolicyDecision
    keys: Keys = NO_KEYS


class Recorder:
    """Makes the records of one owner.

    Args:
        engine: Decides; its sets are kept with what was decided by them.
        epoch: The owner number of the data folder.
    """

    def __init__(self, engine: PolicyEngine, epoch: int) -> None:
        self._facts = FactKeeper(engine)
        self._epoch = epoch

    def record(self, decided: Decided, state: EffectState, earlier: EffectRecord | None) -> EffectRecord:
        """The record of a decision.

        Args:
            decided: The decision.
            state: What becomes of the effect.
            earlier: Its record from before a restart, if it was in flight then.

        Raises:
            InputError: A request that was allowed cannot be written down.
        """
        action, decision, keys = decided.action, decided.decision, decided.keys
        facts = self._facts.of(decided.request, action, decision, refused=state is EffectState.DENIED)
        return EffectRecord(
            effect_id=decided.effect_id,
            run_id=action.slot.run_id if action.slot else RunId(""),
            position=action.slot.position if action.slot else -1,
            agent_id=action.principal.name,
            action=action_name(action),
            resource=f"{action.resource.type}::{action.resource.id}",
            arguments_digest=keyed(digest_arguments(action), keys),
            recovery=action.recovery,
            policy_version=decision.version,
            decision=decision_json(ledger_decision(decision_facts(decision), keys)),
            label=f"{action.label.integrity.value}/{action.label.confidentiality.value}",
            epoch=self._epoch,
            attempt=earlier.attempt + 1 if earlier else 1,
            state=state,
            facts=replace(facts, request=sealed_request(facts.request, decided.effect_id, keys)),
        )
