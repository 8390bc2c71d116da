"""What a client is told where a call was denied, held, refused or failed: for a model to read, with a code for programs.

A denial names the tool, the policies that decided by their `@id` and their `@reason`, and what of the call itself would
have to be otherwise. It never has the text of a policy, a fact about anybody but the client, a path, or an internal.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from symbi.errors import (
    AgentFailed,
    ApprovalPending,
    ApprovalRequired,
    ConfigError,
    Denied,
    EffectInDoubt,
    InputError,
    InternalError,
    LimitExceeded,
    RateLimited,
    SymbiError,
    Unavailable,
    VerificationError,
)
from symbi.policy.counterfactual import Change
from symbi.policy.decision import AllowWithConditions, ConditionKind
from symbi.policy.policies import PolicySet
from symbi.tools.text import cut, printable
from symbi.types import JsonValue, PolicyId

ERROR_KEY: Final = "symbi/error"
"""Key in the `_meta` of an answer: what went wrong, for programs."""
MAX_TEXT_CHARS: Final = 2000  # of one answer about an error
MAX_CHANGES: Final = 3  # that a denial tells of
MAX_VALUE_CHARS: Final = 200  # of a value that would be allowed
_OWN_FACTS: Final = ("context.arguments.",)
"""Facts that are the client's own words, so that what they would have to be may be told."""
_SAID: Final[Mapping[str, str]] = {
    "context.tainted": "no argument that decides where it goes came from what was read",
    "context.unexplained": "no argument that decides where it goes were of unknown origin",
    "context.confidentialSinks": "no argument held anything confidential that was read",
    "context.label.integrity": "nothing in it came from an untrusted source",
    "context.label.confidentiality": "nothing in it were confidential",
    "context.sizeBytes": "it were smaller",
}
"""What other facts would have to be, in words."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer to a request that was not carried out, or failed.

    Attributes:
        text: For a model.
        code: Stable; that of the error.
        kind: `denied`, `held`, `input`, `verification`, `limit`, `unavailable`, `failed`, `doubt` or `internal`.
        facts: Further facts for programs.
    """

    text: str
    code: str
    kind: str
    facts: Mapping[str, JsonValue] = field(default_factory=dict)

    @property
    def meta(self) -> dict[str, JsonValue]:
        """As it stands in `_meta`."""
        return {ERROR_KEY: {"code": self.code, "kind": self.kind, **self.facts}}


def refusal_of(name: str, error: SymbiError, policies: PolicySet, changes: Iterable[Change] = ()) -> Refusal:
    """What a client is told of an error.

    Args:
        name: What it asked for, by its name outside.
        error: What came of it.
        policies: In force; they have ids and reasons.
        changes: What would turn a denial.
    """
    shown = f"`{printable(name)}`"
    facts: dict[str, JsonValue] = {}
    for key in ("effect_id", "retry_after_s", "approval", "expires_at"):
        if isinstance(error.fields.get(key), str | int | float):
            facts[key] = error.fields[key]
    needs = error.fields.get("needs")
    if isinstance(needs, list) and needs:
        facts["needs"] = [str(one) for one in needs]
    kind, text = _told(shown, error)
    if isinstance(error, Denied) and kind == "denied":
        ids = error.fields.get("policies")
        deciding = [PolicyId(str(one)) for one in ids] if isinstance(ids, list | tuple) else []
        named = [_policy(policies, one) for one in deciding]
        facts["policies"] = [one for one, _ in named if one]
        text = "\n".join([text, *_why(named), *_otherwise(changes), _AFTER_DENIAL])
        if "effect_id" in facts:
            text += f" Decision {facts['effect_id']}."
    return Refusal(cut(text, MAX_TEXT_CHARS), error.code, kind, facts)


_AFTER_DENIAL: Final = (
    "Nothing was done. Do not try to reach the same by other means: tell the user that it was denied."
)


def _told(shown: str, error: SymbiError) -> tuple[str, str]:
    """Kind and text of an error; no text of an error is handed on but where it speaks of the client's own request."""
    again = f" Try again in {error.fields['retry_after_s']:.3g} s." if _is_number(error, "retry_after_s") else ""
    match error:
        case ApprovalPending():
            held = f"id {error.fields.get('approval')}"
            return "held", (
                f"Held: {shown} waits until a person agrees to it ({held}). Nothing was done yet. A person can release it "
                f"with `symbi approvals approve {error.fields.get('approval')}`; make the same call again to learn what came of it."
            )
        case ApprovalRequired():
            ended = {"approval.expired": "nobody agreed in time", "approval.denied": "a person said no"}
            why = ended.get(error.code, "a person has to agree to it, and cannot be asked or did not agree")
            return "denied", f"Denied: {shown}: {why}."
        case RateLimited():
            return "limit", f"Refused: too many calls of {shown} in a short time.{again}"
        case Denied():
            return "denied", f"Denied by policy: {shown}."
        case VerificationError():
            return "verification", (
                f"Refused: {shown} is not, or no longer, what was verified, and is quarantined until an operator has "
                "reviewed it (`symbi tools review`). Nothing was done."
            )
        case LimitExceeded():
            what = {"limit.time": "it took too long", "limit.output": "its answer is larger than allowed"}
            return "limit", f"Stopped: {shown}: {what.get(error.code, 'a limit was reached')}."
        case ConfigError():
            return (
                "internal",
                f"Failed: {shown}: the gateway is not configured for it, which its operator has to see to.",
            )
        case InputError():
            hint = f" {_sentence(error.hint)}" if error.hint and error.code.startswith("schema") else ""
            return "input", f"Not carried out: {shown}: {_sentence(error.message)}{hint}"
        case EffectInDoubt():
            return (
                "doubt",
                f"In doubt: nobody knows whether {shown} happened. Do not repeat it: an operator has to settle it.",
            )
        case AgentFailed():
            return "failed", _sentence(error.message)
        case Unavailable():
            return "unavailable", f"Not available now: {shown}.{again or ' Try again later.'}"
        case InternalError():
            return "internal", f"Failed: {shown}: an internal error, which is in the log."
        case _:
            return "failed", f"Failed: {shown}."


def _policy(policies: PolicySet, policy_id: PolicyId) -> tuple[str, str]:
    """The id of a policy as its author wrote it, empty where there is none, and what it has to say to whoever is denied."""
    policy = policies.by_id.get(policy_id)
    if policy is None or "id" not in policy.annotations:
        return "", ""
    return policy.annotations["id"], policy.annotations.get("reason", "")


def _why(named: Iterable[tuple[str, str]]) -> list[str]:
    listed = list(named)
    lines = [
        f"Policy `{printable(one)}`{f': {_sentence(printable(why))}' if why else '.'}" for one, why in listed if one
    ]
    return lines or ["A policy forbids it." if listed else "No policy permits it."]


def _otherwise(changes: Iterable[Change]) -> list[str]:
    """What would be allowed, as far as that speaks of the call itself."""
    lines: list[str] = []
    for change in changes:
        told = [_fact(path, value) for path, _, value in change.facts]
        if any(one is None for one in told):
            continue
        conditions = change.decision.conditions if isinstance(change.decision, AllowWithConditions) else ()
        asked = any(condition.kind is ConditionKind.APPROVAL for condition in conditions)
        then = "a person would be asked" if asked else "it would be allowed"
        lines.append(f"If {' and '.join(str(one) for one in told)}, {then}.")
    return list(dict.fromkeys(lines))[:MAX_CHANGES]


def _fact(path: str, value: str) -> str | None:
    if path in _SAID:
        return _SAID[path]
    for own in _OWN_FACTS:
        if path.startswith(own):
            return f"`{printable(path.removeprefix(own))}` were {cut(printable(value), MAX_VALUE_CHARS)}"
    return None


def _is_number(error: SymbiError, name: str) -> bool:
    return isinstance(error.fields.get(name), int | float)


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."
