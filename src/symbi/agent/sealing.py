"""What the journal keeps of a run about somebody: inputs, grant, labels, value and error, sealed."""

from collections.abc import Sequence
from dataclasses import replace

from symbi.agent.journal import RunRecord
from symbi.errors import DecryptionFailed, InputError
from symbi.guard.confidential import open_column, opened_effect
from symbi.guard.ledger import EffectRecord
from symbi.guard.sealed import is_sealed, read_sealed
from symbi.guard.vault import Keys, Vault, place
from symbi.types import KeyId


def sealed_run(record: RunRecord, keys: Keys) -> RunRecord:
    """A record as it is kept."""
    if not keys:
        return record
    name = record.run_id
    return replace(
        record,
        inputs=keys.seal(record.inputs, place("runs", "inputs", name)),
        output=keys.seal_optional(record.output, place("runs", "output", name)),
        error=keys.seal_optional(record.error, place("runs", "error", name)),
        grant=keys.seal_optional(record.grant, place("run_grants", "task_grant", name)),
        labels=keys.seal_optional(record.labels, place("run_labels", "labels", name)),
        answer=keys.seal_optional(record.answer, place("run_answers", "label", name)),
    )


def opened_run(record: RunRecord, vault: Vault | None) -> RunRecord:
    """A record as it was; on the store's thread.

    Raises:
        DecryptionFailed: Something of it was erased, or altered.
        ConfigError: There is no master key.
    """
    name = record.run_id
    inputs = open_column(vault, record.inputs, place("runs", "inputs", name))
    assert inputs is not None
    return replace(
        record,
        inputs=inputs,
        output=open_column(vault, record.output, place("runs", "output", name)),
        error=open_column(vault, record.error, place("runs", "error", name)),
        grant=open_column(vault, record.grant, place("run_grants", "task_grant", name)),
        labels=open_column(vault, record.labels, place("run_labels", "labels", name)),
    )


def opened_history(
    record: RunRecord, effects: Sequence[EffectRecord], vault: Vault | None, own: Sequence[KeyId]
) -> tuple[RunRecord, list[EffectRecord]]:
    """A run and its effects as a restart needs them; on the store's thread.

    Args:
        record: The run.
        effects: Its effects.
        vault: Has the keys.
        own: The key of the agent, if everything is sealed.

    Raises:
        InputError: Something of it was erased: it cannot go on.
        DecryptionFailed: Something was altered.
        ConfigError: There is no master key.
    """
    try:
        opened = [replace(opened_effect(one, vault), somebodys=_is_somebodys(one, own)) for one in effects]
        return opened_run(record, vault), opened
    except DecryptionFailed as error:
        if error.fields.get("reason") != "erased":
            raise
        msg = f"run `{record.run_id}` cannot go on: what it knew of a data subject was erased"
        raise InputError(msg, code="run.erased", hint="start a new run") from error


def _is_somebodys(effect: EffectRecord, own: Sequence[KeyId]) -> bool:
    result = effect.result
    return result is not None and is_sealed(result) and not set(read_sealed(result).keys) <= set(own)
