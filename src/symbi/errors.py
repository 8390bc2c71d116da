"""Every error that Symbi raises, by whose fault it is.

```
SymbiError              code "area.reason" (stable), retryable, fields; never parsed from text
├── InputError          the caller     DslError(span) · PolicySyntaxError · ConfigError
├── Denied              policy         PolicyDenied(policy_ids) · ApprovalRequired · ApprovalPending · RateLimited · PermitRefused
├── VerificationError   integrity      SignatureInvalid · PinMismatch · ChainBroken · DecryptionFailed · MessageRefused
├── LimitExceeded       a budget       TimeLimit · MemoryLimit · OutputLimit · TokenLimit · StepLimit · BudgetExceeded
├── Unavailable         a dependency   StoreUnavailable · SandboxUnavailable · ToolServerUnavailable · Overloaded
├── AgentFailed         the agent      ToolFailed · ModelFailed · CodeFailed · ScriptFailed · AskFailed · EffectInDoubt
└── InternalError       us             caught in three places only: supervisor, outermost API handler, cli main
```

Messages are lower case, without a full stop, with user input in backticks, a place where there is one, and a hint.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import ClassVar, cast

from symbi.types import JsonValue


@dataclass(frozen=True, slots=True)
class Place:
    """A position in a source text: file name as the user gave it, 1-based line and column."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class SymbiError(Exception):
    """Root of the tree.

    Args:
        message: What happened, in one line.
        code: `area.reason`, stable across releases; the class's default if not given.
        hint: What to do about it.
        place: Where in a source file.
        fields: Further facts for machines; JSON values, no secrets and no payloads.
    """

    default_code: ClassVar[str] = "symbi.error"
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        hint: str | None = None,
        place: Place | None = None,
        **fields: JsonValue,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.hint = hint
        self.place = place
        self.fields = fields

    def __str__(self) -> str:
        at = f"{self.place}: " if self.place else ""
        hint = f"; {self.hint}" if self.hint else ""
        return f"{at}{self.message}{hint}"


class InputError(SymbiError):
    """The caller gave something that cannot be used."""

    default_code = "input.invalid"


class DslError(InputError):
    """An agent file is wrong; `place` is always set."""

    default_code = "dsl.invalid"


class PolicySyntaxError(InputError):
    """A policy cannot be parsed or does not fit the schema."""

    default_code = "policy.invalid"


class ConfigError(InputError):
    """A setting is unknown, malformed or unsafe."""

    default_code = "config.invalid"


class Denied(SymbiError):
    """Policy refused the action; nothing happened."""

    default_code = "policy.denied"


class PolicyDenied(Denied):
    """A decision was made and it is no; `fields["policies"]` names the deciding policies."""


class ApprovalRequired(Denied):
    """A person had to agree, and said no, or not in time, or cannot be asked; nothing happened."""

    default_code = "policy.approval_required"


class ApprovalPending(Denied):
    """A person has been asked to agree and has not answered yet; `fields["approval"]` names what is held."""

    default_code = "policy.approval_pending"


class RateLimited(Denied):
    """The principal has used up its rate; `retry_after_s` says when to try again."""

    default_code = "policy.rate_limited"
    retryable = True

    def __init__(self, message: str, *, retry_after_s: float, policy: str | None = None) -> None:
        hint = f"try again in {retry_after_s:.3g} s"
        super().__init__(message, hint=hint, retry_after_s=retry_after_s, policies=[policy] if policy else [])

    @property
    def retry_after_s(self) -> float:
        """Seconds to wait; one of the fields, so that it survives ledger and journal."""
        return cast("float", self.fields["retry_after_s"])


class PermitRefused(Denied):
    """A port was handed a permit that the gate did not mint, or that is spent, closed, revoked or for something else."""

    default_code = "permit.refused"


class VerificationError(SymbiError):
    """Something is not what it claims to be."""

    default_code = "verify.failed"


class SignatureInvalid(VerificationError):
    """A signature does not verify."""

    default_code = "verify.signature"


class PinMismatch(VerificationError):
    """A pinned key or schema has changed and nobody has reviewed it."""

    default_code = "verify.pin"


class ChainBroken(VerificationError):
    """The audit trail does not verify; `fields["sequence"]` is the first bad event."""

    default_code = "verify.chain"


class DecryptionFailed(VerificationError):
    """A ciphertext was altered or belongs to another key."""

    default_code = "verify.decryption"


class MessageRefused(VerificationError):
    """A message is not what it claims to be, or not for this reader, or not any more; the code says which.

    `message.malformed`, `message.version`, `message.signature`, `message.sealed`, `message.replayed`, `message.expired`,
    `message.recipient`, `message.size`, `message.epoch` or `message.crash_loop`. Nothing of a payload stands in text or fields.
    """

    default_code = "message.malformed"


class LimitExceeded(SymbiError):
    """A bound was reached and the work stopped."""

    default_code = "limit.exceeded"


class TimeLimit(LimitExceeded):
    """Wall time ran out."""

    default_code = "limit.time"


class MemoryLimit(LimitExceeded):
    """Memory ran out."""

    default_code = "limit.memory"


class OutputLimit(LimitExceeded):
    """An output is larger than allowed."""

    default_code = "limit.output"


class TokenLimit(LimitExceeded):
    """A token budget is spent."""

    default_code = "limit.tokens"


class StepLimit(LimitExceeded):
    """An agent's body took more steps, or nested deeper, than allowed."""

    default_code = "limit.steps"


class BudgetExceeded(LimitExceeded):
    """A run has spent what it, or a run that asked for it, may spend; somebody can give more, and it goes on from there.

    `fields` has the numbers: `run`, `account`, `kind`, `most`, `spent`, `held`, `wanted`.
    """

    default_code = "limit.budget"


class Unavailable(SymbiError):
    """A dependency cannot be used now."""

    default_code = "unavailable"
    retryable = True


class StoreUnavailable(Unavailable):
    """The store cannot read or commit: no effect may happen."""

    default_code = "unavailable.store"


class SandboxUnavailable(Unavailable):
    """The asked tier has no working driver here; there is no downgrade."""

    default_code = "unavailable.sandbox"


class ToolServerUnavailable(Unavailable):
    """A tool server cannot be started or does not answer as the protocol says."""

    default_code = "unavailable.tool_server"


class Overloaded(Unavailable):
    """A queue or buffer is full; `retry_after_s` says when to try again."""

    default_code = "unavailable.overloaded"

    def __init__(self, message: str, *, retry_after_s: float, code: str | None = None) -> None:
        super().__init__(message, code=code, retry_after_s=retry_after_s)

    @property
    def retry_after_s(self) -> float:
        """Seconds to wait; one of the fields, so that it survives ledger and journal."""
        return cast("float", self.fields["retry_after_s"])


class AgentFailed(SymbiError):
    """The agent's own work failed."""

    default_code = "agent.failed"


class ToolFailed(AgentFailed):
    """A tool answered with an error, or with something that is not an answer.

    Attributes:
        answer: What it answered, for a caller that passes it on as it came; it is kept nowhere, and else None.
    """

    default_code = "agent.tool"
    answer: object = None


class ModelFailed(AgentFailed):
    """A model call failed."""

    default_code = "agent.model"


class CodeFailed(AgentFailed):
    """Code in a sandbox raised."""

    default_code = "agent.code"


class ScriptFailed(AgentFailed):
    """The body of an agent file raised; `place` says where."""

    default_code = "agent.script"


class AskFailed(AgentFailed):
    """An agent that was asked failed; `fields["reason"]` is the code of why."""

    default_code = "agent.asked"


class EffectInDoubt(AgentFailed):
    """An effect was in flight when the runtime died, and nothing tells whether it happened; a person decides."""

    default_code = "agent.in_doubt"


class InternalError(SymbiError):
    """A defect of ours."""

    default_code = "internal"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint that names the closest known word in backticks, or an empty string where none is close."""
    close = get_close_matches(word, sorted(set(known)), n=1, cutoff=0.6)
    return f"did you mean `{close[0]}`?" if close else ""
