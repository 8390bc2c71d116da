"""What is on record at a place of a run, and whether the same may be asked for again there.

| the attempt on record | what is known                            | may be asked for again                               |
|-----------------------|------------------------------------------|------------------------------------------------------|
| unknown               | it may have happened, or not             | if it never began, or its recovery class lets it     |
| failed, unanswered    | it did not happen                        | yes                                                  |
| failed, answered      | it was tried, and the other side says no | if its recovery class lets it                        |
| denied                | it did not happen                        | yes                                                  |
| anything else         | it is over, or at work                   | no                                                   |

And never where a later effect of the run is on record: the body has gone on from there, with what it was told then.
"""

from functools import partial

from symbi.audit.log import AuditLog
from symbi.errors import AgentFailed, EffectInDoubt, InternalError, OutputLimit
from symbi.guard.action import Action
from symbi.guard.confidential import is_keyed, keyed_alike, opened_effect
from symbi.guard.ledger import EffectRecord, EffectState, EffectStore
from symbi.guard.outcome import decode_error
from symbi.guard.records import digest_arguments, is_repeatable, may_repeat
from symbi.guard.vault import Vault
from symbi.types import RecoveryClass

NO_ATTEMPT = 0


def was_answered(record: EffectRecord) -> bool:
    """Whether a failed effect was begun, so that the other side has answered; what may have been is taken for begun.

    Args:
        record: With its error as it was, not sealed.
    """
    if record.state is not EffectState.FAILED or record.error is None:
        return False
    answered = isinstance(decode_error(record.error), AgentFailed | OutputLimit)
    return answered or record.recovery is RecoveryClass.READ_ONLY


def may_ask_again(record: EffectRecord, recovery: RecoveryClass) -> bool:
    """Whether the same may be asked for again at a place of which this is the last record.

    Args:
        record: With its error as it was, not sealed.
        recovery: Its class as declared now.
    """
    match record.state:
        case EffectState.UNKNOWN:
            return may_repeat(record, recovery)
        case EffectState.DENIED:
            return True
        case EffectState.FAILED:
            return is_repeatable(record, recovery) or not was_answered(record)
        case _:
            return False


class Places:
    """Looks up what is on record.

    Args:
        log: Reads on the store's thread.
        effects: The records.
        vault: Opens what is sealed in them.
    """

    def __init__(self, log: AuditLog, effects: EffectStore, vault: Vault | None) -> None:
        self._log = log
        self._effects = effects
        self._vault = vault

    async def earlier(self, action: Action, *, refused: bool = False) -> EffectRecord | None:
        """The record of an earlier attempt at an action's place in its run, opened; None where nothing is on record.

        Args:
            action: What is asked for.
            refused: It was refused before its tool was looked up, so that its class is not known; then that on record counts.

        Raises:
            EffectInDoubt: It may have happened, and must not be repeated.
            InternalError: It is over, or it is not the same action.
            DecryptionFailed: It was sealed, and cannot be opened any more.
        """
        slot = action.slot
        if slot is None:
            return None
        earlier = await self._log.read(partial(self._at, action))
        if earlier is None:
            return None
        if earlier.state not in {EffectState.UNKNOWN, EffectState.FAILED, EffectState.DENIED}:
            raise _over(earlier)
        if earlier.action != action.action or not await self.asked_alike(earlier, action):
            msg = f"effect {slot.position} of run `{slot.run_id}` is not what it was before the restart"
            raise InternalError(msg, code="internal.diverged", hint="the run cannot go on; start it again")
        known = refused and earlier.state is not EffectState.UNKNOWN
        if not may_ask_again(earlier, earlier.recovery if known else action.recovery):
            if earlier.state is not EffectState.UNKNOWN:
                raise _over(earlier)
            msg = (
                f"`{earlier.resource}` was in flight when the runtime ended, and its recovery class "
                f"`{earlier.recovery.value}` does not let it be repeated"
            )
            raise EffectInDoubt(msg, effect_id=earlier.effect_id, position=earlier.position)
        return earlier

    async def attempts(self, action: Action) -> int | None:
        """How many attempts at an action are on record at its place; None where it may not be asked for once more.

        Raises:
            StoreUnavailable: It cannot be read.
        """
        if action.slot is None:
            return None
        record = await self._log.read(partial(self._at, action))
        if record is None:
            return NO_ATTEMPT
        return record.attempt if may_ask_again(record, record.recovery) else None

    async def asked_alike(self, earlier: EffectRecord, action: Action) -> bool:
        """Whether an action has the arguments of an effect on record.

        Raises:
            DecryptionFailed: They were about somebody whose key was destroyed: nobody can say.
        """
        vault, digest = self._vault, digest_arguments(action)
        if vault is None or not is_keyed(earlier.arguments_digest):
            return earlier.arguments_digest == digest
        return await self._log.read(lambda: keyed_alike(earlier.arguments_digest, digest, vault.keys_of))

    def _at(self, action: Action) -> EffectRecord | None:
        """What is on record at the place; on the store's thread."""
        slot = action.slot
        assert slot is not None
        found = self._effects.effect_at(slot.run_id, slot.position)
        if found is None:
            return None
        if self._effects.effect_at(slot.run_id, slot.position + 1) is not None:
            raise _over(found)
        return opened_effect(found, self._vault)


def _over(record: EffectRecord) -> InternalError:
    msg = f"effect {record.position} of run `{record.run_id}` is {record.state.value} and cannot be asked for again"
    return InternalError(msg, code="internal.effect_repeated")
