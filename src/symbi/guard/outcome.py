"""How an effect ended: errors as JSON and back, results as JSON, and what a failure says about the world."""

import json
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from symbi import errors
from symbi.errors import AgentFailed, InternalError, OutputLimit, Place, ScriptFailed, SymbiError
from symbi.guard.ledger import EffectState
from symbi.policy.flow import join
from symbi.types import Confidentiality, JsonValue, Label, RecoveryClass

NOT_STARTED: Final = "effect.not_started"
"""Code of an effect that was cancelled before its permit was used: it did not happen, whatever its recovery class."""

UNANSWERED: Final = "agent.unanswered"
"""Code of a question whose answer is still to come: it is asked again, by the same id, when its run goes on."""

NOT_TAKEN: Final = "unavailable.mailbox_full"
"""Code of a message for which there was no place: nothing of it is anywhere."""

_CLASSES: Final[Mapping[str, type[SymbiError]]] = {
    name: cls for name, cls in vars(errors).items() if isinstance(cls, type) and issubclass(cls, SymbiError)
}


def encode_result(value: object) -> bytes:
    """A result as JSON bytes for the ledger: any JSON value, dataclass or msgspec struct.

    Raises:
        InternalError: It is not JSON (also NaN and infinities).
    """
    try:
        return json.dumps(msgspec.to_builtins(value), allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        msg = f"an effect's result of type `{type(value).__name__}` is not JSON: {error}"
        raise InternalError(msg, code="internal.result") from error


def encode_error(error: SymbiError) -> bytes:
    """An error as JSON bytes for ledger and journal."""
    place = None if error.place is None else [error.place.file, error.place.line, error.place.column]
    data = {
        "class": type(error).__name__,
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
        "place": place,
        "fields": error.fields,
    }
    return json.dumps(data, separators=(",", ":"), default=str).encode()


NOT_STARTED_JSON: Final = encode_error(SymbiError("cancelled before it began", code=NOT_STARTED))
"""How such an effect stands in the ledger, of whomever it is."""


def decode_error(data: bytes) -> SymbiError:
    """The error that `encode_error` wrote, of the same class, to be raised again in a replay."""
    parsed: dict[str, Any] = json.loads(data)
    cls = _CLASSES.get(parsed.get("class", ""), ScriptFailed)
    place = Place(*parsed["place"]) if parsed.get("place") else None
    error = SymbiError.__new__(cls)
    SymbiError.__init__(
        error,
        parsed.get("message", "unknown error"),
        code=parsed.get("code"),
        hint=parsed.get("hint"),
        place=place,
        **parsed.get("fields", {}),
    )
    return error


def mark_error(error: BaseException, mark: Label) -> None:
    """Raise the label of what an error says, as policies mark what comes back; it lasts as long as the error does."""
    if isinstance(error, SymbiError) and mark != Label():
        whole = join(mark, error_label(error))
        error.fields |= {"confidentiality": whole.confidentiality.value, "categories": list(whole.categories)}
        if whole.subjects:
            error.fields["subjects"] = list(whole.subjects)


def error_label(error: SymbiError) -> Label:
    """What `mark_error` noted; its integrity is left out, for no error is trusted."""
    confidentiality = Confidentiality(str(error.fields.get("confidentiality", Confidentiality.PUBLIC.value)))
    categories, subjects = error.fields.get("categories", ()), error.fields.get("subjects", ())
    assert isinstance(categories, list | tuple)
    assert isinstance(subjects, list | tuple)
    return Label(
        confidentiality=confidentiality, categories=tuple(map(str, categories)), subjects=tuple(map(str, subjects))
    )


def state_after(error: BaseException, *, used: bool, recovery: RecoveryClass) -> EffectState:
    """What a failure leaves behind.

    Args:
        error: What came out of the effect.
        used: Its permit was redeemed, so that the effect may have begun.
        recovery: Its recovery class.

    Returns:
        `failed` where it is known that nothing happened or that the other side answered; `unknown` otherwise.
    """
    if not isinstance(error, SymbiError) or error.code == UNANSWERED:
        return EffectState.UNKNOWN
    if (
        not used
        or isinstance(error, AgentFailed | OutputLimit)
        or error.code == NOT_TAKEN
        or recovery is RecoveryClass.READ_ONLY
    ):
        return EffectState.FAILED
    return EffectState.UNKNOWN


def decision_json(decision: Mapping[str, JsonValue]) -> bytes:
    """A decision's facts as JSON bytes for the ledger."""
    return json.dumps(decision, separators=(",", ":"), sort_keys=True).encode()
