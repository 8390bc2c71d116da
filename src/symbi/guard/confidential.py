"""What of an effect is sealed: whom it is about, and which facts of its events stay readable.

An event about a data subject keeps what `PUBLIC` names: ids, times, verdicts, policies, counts, digests that are keyed
or of sealed bytes. Everything else of its details stands sealed under `private`, so that a detail which somebody adds
later is sealed until it is known to hold no value.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from symbi.audit.event import AuditEvent, Draft
from symbi.errors import (
    ConfigError,
    DecryptionFailed,
    InputError,
    InternalError,
    StoreUnavailable,
    VerificationError,
)
from symbi.guard.action import Action, InvokeTool, ReadData, SendMessage
from symbi.guard.ledger import EffectRecord
from symbi.guard.outcome import NOT_STARTED_JSON, encode_result
from symbi.guard.sealed import is_sealed, is_sealed_json
from symbi.guard.vault import NO_KEYS, Keys, Vault, agent_subject, place
from symbi.policy.flow import MORE_SUBJECTS, join_subjects
from symbi.types import SYSTEM_AGENT, AgentId, JsonValue, KeyId

PRIVATE: Final = "private"
"""The detail that holds the sealed ones of an event about somebody."""

PUBLIC: Final = frozenset(
    {
        "action", "approval", "arguments_digest", "arguments_unrepresentable", "attempt", "attempts", "became", "by", "code", "compliance_tags",
        "conditions", "digest", "duration_us", "effect_id", "effects", "enforced", "error", "expires_at", "file", "grant_digest",
        "input_labels", "inputs_digest", "label", "lease", "letter", "letter_kind", "outcome", "owner", "people", "person", "policies",
        "policy_version", "position", "recovery", "replayed", "request_digest", "resource", "result_digest",
        "retention_days", "shift", "source_digest", "state", "told", "tool", "used", "verdict", "vote", "was",
    }
)  # fmt: skip
"""Details that hold no value of a subject: names of the operator's and the runtime's own, numbers of effects, digests."""

SEALED_TEXT: Final = "[sealed]"
"""Stands for what is sealed where there is no key."""
ERASED_TEXT: Final = "[erased]"
"""Stands for what was sealed under a key that was destroyed."""
DAMAGED_TEXT: Final = "[does not open: it was altered, or moved from elsewhere]"

KEYED: Final = "hmac"
_LEDGER_PRIVATE: Final = frozenset({"reason", "errors"})


def subjects_of(action: Action) -> tuple[str, ...]:
    """Whom an action is about: by the labels of what goes into it, and by what its tool's manifest says names somebody."""
    if not isinstance(action, InvokeTool):
        return action.label.subjects
    named = action.tool.flow.subjects_of_call(action.values)
    return join_subjects(action.label.subjects, named, *(label.subjects for label in action.labels.values()))


def outcome_subjects(action: Action, outcome: object) -> tuple[str, ...]:
    """Whom what came back is about, beside whom the action is about."""
    if isinstance(action, SendMessage):
        return _answered(outcome) if action.expects_reply else ()
    if isinstance(action, ReadData):
        return _recalled(outcome)
    if not isinstance(action, InvokeTool) or not action.tool.flow.about:
        return ()
    answer: JsonValue = json.loads(encode_result(outcome))
    return action.tool.flow.subjects_of_answer(answer).everybody


def _answered(outcome: object) -> tuple[str, ...]:
    """Whom the answer of an agent is about, by the label that came with it."""
    match outcome:
        case {"label": {"subjects": [*subjects]}}:
            return join_subjects(map(str, subjects))
        case _:
            return ()


def _recalled(outcome: object) -> tuple[str, ...]:
    """Whom the items of a memory or knowledge base are about, by the labels that came with them."""
    items = outcome.get("items") if isinstance(outcome, Mapping) else None
    return join_subjects(*(_answered(item) for item in items)) if isinstance(items, list | tuple) else ()


def failure_subjects(action: Action) -> tuple[str, ...]:
    """Whom an error is about that may quote an answer which never came, beside whom the action is about.

    Where answers are about people, and the call names none of them, it may be about any.
    """
    silent = isinstance(action, InvokeTool) and action.tool.flow.about and not subjects_of(action)
    return (MORE_SUBJECTS,) if silent else ()


async def keys_for(vault: Vault | None, agent: AgentId, subjects: Iterable[str], *, wait: bool = False) -> Keys:
    """The keys under which something is sealed: of its subjects, or of its agent where everything is to be sealed.

    Raises:
        Overloaded: Too much waits for the store, and `wait` is not set.
        StoreUnavailable: They are not to be had, for want of the master key or whatever else; a new one cannot be made durable.
        InternalError: It is about somebody, and there is no vault.
    """
    names = tuple(subjects)
    if vault is None:
        if names:
            msg = "this is about a data subject, and there is no vault to seal it"
            raise InternalError(msg, code="internal.vault")
        return NO_KEYS
    if not names and vault.all_agents and agent != SYSTEM_AGENT:
        names = (agent_subject(agent),)
    try:
        return await vault.ready(names, wait=wait) if names else NO_KEYS
    except (InputError, VerificationError) as error:
        msg = f"what is about a data subject cannot be sealed: {error.message}"
        raise StoreUnavailable(msg, code="unavailable.sealing", hint=error.hint) from error


# --- digests ------------------------------------------------------------------------------------


def keyed(sha256: str, keys: Keys) -> str:
    """A digest (hex) as it is kept: itself, or `hmac:KEY,…:HEX` where it is about somebody and could be guessed."""
    if not keys:
        return sha256
    return f"{KEYED}:{','.join(keys.ids)}:{keys.digest(bytes.fromhex(sha256)).hex()}"


def is_keyed(kept: str) -> bool:
    """Whether a digest that was kept is of something about somebody."""
    return kept.startswith(f"{KEYED}:")


def keyed_alike(kept: str, sha256: str, keys_of: Callable[[Sequence[KeyId]], Keys]) -> bool:
    """Whether a digest that was kept is of the same as this plain one.

    Args:
        kept: What `keyed` made.
        sha256: Hex.
        keys_of: Finds the keys that a kept digest names.

    Raises:
        DecryptionFailed: One of the keys is gone, so that nobody can say.
    """
    if not is_keyed(kept):
        return kept == sha256
    _, ids, _ = kept.split(":", 2)
    return keyed(sha256, keys_of([KeyId(key_id) for key_id in ids.split(",")])) == kept


# --- events -------------------------------------------------------------------------------------


def confided(draft: Draft, keys: Keys) -> Draft:
    """A draft with the details that are not public sealed; as it is where it is about nobody."""
    if not keys:
        return draft
    shown = {name: value for name, value in draft.details.items() if name in PUBLIC}
    hidden = {name: value for name, value in draft.details.items() if name not in PUBLIC}
    if hidden:
        where = event_place(draft.event_type, draft.run_id, shown)
        shown[PRIVATE] = keys.seal_text(encode_result(hidden), where).to_json()
    return replace(draft, details=shown)


def revealed(event: AuditEvent, vault: Vault | None) -> AuditEvent:
    """An event as a person may read it: with what was sealed in it where it opens, and where not, a note in its place."""
    hidden = event.details.get(PRIVATE)
    if not is_sealed_json(hidden):
        return event
    details = {name: value for name, value in event.details.items() if name != PRIVATE}
    try:
        if vault is None:
            details[PRIVATE] = SEALED_TEXT
        else:
            where = event_place(event.event_type, event.run_id, details)
            details |= json.loads(vault.open_json(hidden, where))
    except (DecryptionFailed, ConfigError) as error:
        details[PRIVATE] = lost_text(error)
    return replace(event, details=details)


def event_place(event_type: str, run_id: str, details: Mapping[str, JsonValue]) -> bytes:
    """What the sealed details of an event are bound to, by its others."""
    effect, digest = details.get("effect_id", ""), details.get("digest", "")
    return place("events", PRIVATE, f"{event_type}\0{run_id}\0{effect}\0{details.get('attempt', '')}\0{digest}")


def lost_text(error: DecryptionFailed | ConfigError) -> str:
    """What stands for something that does not open."""
    if isinstance(error, ConfigError):
        return SEALED_TEXT
    match error.fields.get("reason"):
        case "erased":
            return ERASED_TEXT
        case "key" | "master":
            return SEALED_TEXT
        case _:
            return DAMAGED_TEXT


# --- the ledger ---------------------------------------------------------------------------------


def ledger_decision(facts: Mapping[str, JsonValue], keys: Keys) -> Mapping[str, JsonValue]:
    """A decision's facts as the ledger keeps them: without texts that may quote values, where it is about somebody."""
    return {name: value for name, value in facts.items() if not (keys and name in _LEDGER_PRIVATE)}


def sealed_effect(record: EffectRecord, keys: Keys) -> EffectRecord:
    """A record with result and error sealed; that an effect never began stays readable, and says nothing of anybody."""
    error = record.error
    if error is not None and error != NOT_STARTED_JSON:
        error = keys.seal(error, place("effects", "error", record.effect_id))
    result = keys.seal_optional(record.result, place("effects", "result", record.effect_id))
    return replace(record, result=result, error=error)


def opened_effect(record: EffectRecord, vault: Vault | None) -> EffectRecord:
    """The record with result and error as they were; on the store's thread.

    Raises:
        DecryptionFailed: They were erased, or altered.
        ConfigError: There is no master key.
    """
    if not (is_sealed(record.result) or is_sealed(record.error)):
        return record
    return replace(
        record,
        result=open_column(vault, record.result, place("effects", "result", record.effect_id)),
        error=open_column(vault, record.error, place("effects", "error", record.effect_id)),
    )


def open_column(vault: Vault | None, data: bytes | None, where: bytes) -> bytes | None:
    """What a column holds, opened if it is sealed.

    Raises:
        DecryptionFailed: It was erased, or altered.
        ConfigError: There is no key at hand.
    """
    if data is None or not is_sealed(data):
        return data
    if vault is None:
        msg = "this is sealed, and there is no key at hand"
        raise ConfigError(msg, code="config.key_absent")
    return vault.open(data, where)


def sealed_request(request: bytes, effect_id: str, keys: Keys) -> bytes:
    """A stored request, sealed where it is about somebody; its digest in the trail is of these bytes."""
    return keys.seal(request, request_place(effect_id))


def request_place(effect_id: str) -> bytes:
    """What the stored request of an effect is bound to."""
    return place("requests", "request", effect_id)


def sha256_hex(data: bytes) -> str:
    """Of plain bytes, for `keyed`."""
    return hashlib.sha256(data).hexdigest()


def opened_request(request: bytes, effect_id: str, vault: Vault | None) -> tuple[bytes | None, str]:
    """A stored request as it was decided on; or why it cannot be read, in one line.

    Raises:
        DecryptionFailed: It was altered, or moved from elsewhere.
    """
    try:
        return open_column(vault, request, request_place(effect_id)), ""
    except ConfigError:
        return None, "the request is sealed, and there is no key at hand to open it"
    except DecryptionFailed as error:
        lost = lost_text(error)
        if lost == ERASED_TEXT:
            return None, "the request was erased with what is kept of its data subject"
        if lost == SEALED_TEXT:
            return None, "the request is sealed, and the key at hand does not open it"
        raise
