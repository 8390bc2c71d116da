"""Who stands behind a call, and the gate between a server's questions and that caller.

A server may ask for an answer of a model (sampling), of a person (elicitation), or for the caller's folders (roots).
It may talk to none of them because it wants to: each question is an effect of its own, decided by the gate with the
caller as its principal, and then it reaches that caller's own object alone. Where nobody stands behind a call, a
question is refused before the gate.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from symbi.errors import PolicyDenied
from symbi.guard.action import Action, ServerAsks, ServerElicitation, ServerRoots, ServerSampling
from symbi.guard.gate import Guard
from symbi.guard.permit import Permit
from symbi.policy.flow import join
from symbi.tools.asking import NO_CALLER, Asked, AskKind, CallHooks, Progress, ServerLog
from symbi.types import EffectId, Integrity, JsonValue, Label

MAX_QUESTIONS: Final = 32  # of one call; after so many, a server that never ends asking is refused


class Caller(Protocol):
    """Who calls a server and has somebody who answers: a model, a person, a list of folders."""

    @property
    def can(self) -> Collection[AskKind]:
        """What it can be asked for at all; a server that wants to know is told of no more."""

    def marked(self, mark: Label) -> None:
        """Told, once the gate has let the call pass, what policies raise the label of all that the server says to."""

    async def progress(self, progress: Progress) -> None:
        """Told how far the call is."""

    async def log(self, message: ServerLog) -> None:
        """Told what the server logs."""

    async def answer(self, permit: Permit[ServerAsks]) -> Mapping[str, JsonValue]:
        """Redeem the permit and answer the question of its action, which the gate has let pass.

        The action is a `ServerSampling`, `ServerElicitation` or `ServerRoots`; `type(permit.action)` says which.

        Returns:
            The result of the request in the protocol's form.

        Raises:
            SymbiError: It is not answered.
        """


@dataclass(slots=True)
class GatedHooks:
    """Hooks that put each question to the gate before the caller sees it.

    Attributes:
        guard: The gate.
        caller: Who answers.
        action: The call: its principal, its run, and the label of what went into it.
        during: Its effect.
    """

    guard: Guard
    caller: Caller
    action: Action
    during: EffectId
    _count: int = field(default=0, init=False)

    @property
    def can(self) -> Collection[AskKind]:
        """Of the caller."""
        return self.caller.can

    async def progress(self, progress: Progress) -> None:
        """Handed on."""
        await self.caller.progress(progress)

    async def log(self, message: ServerLog) -> None:
        """Handed on."""
        await self.caller.log(message)

    async def asked(self, asked: Asked) -> Mapping[str, JsonValue]:
        """The caller's answer, if the gate lets the question pass.

        Raises:
            Denied: Policy does not.
            SymbiError: The caller does not answer; or the server has asked too often in this call.
        """
        self._count += 1
        if self._count > MAX_QUESTIONS:
            msg = f"server `{asked.server}` asks more than {MAX_QUESTIONS} questions in one call"
            raise PolicyDenied(msg, code="server.asks", server=asked.server)
        async with self.guard.enforce(self._question(asked)) as permit:
            return permit.observe(await self.caller.answer(permit))

    def _question(self, asked: Asked) -> ServerAsks:
        kind: type[ServerAsks]
        match asked.kind:
            case AskKind.SAMPLING:
                kind = ServerSampling
            case AskKind.ELICITATION:
                kind = ServerElicitation
            case AskKind.ROOTS:
                kind = ServerRoots
        # What a server asks is said by it, as its answer is.
        label = join(self.action.label, self.action.mark, Label(Integrity.UNTRUSTED, sources=(self.during,)))
        return kind(
            principal=self.action.principal,
            within=self.action.run_id or None,
            label=label,
            server=asked.server,
            during=self.during,
            question=asked.question,
            session=self.action.session,
            name=asked.name,
            among=asked.among,
        )


def hooks_of(guard: Guard, caller: Caller | None, action: Action, during: EffectId) -> CallHooks:
    """The hooks of a call: nobody's where nobody stands behind it."""
    if caller is None:
        return NO_CALLER
    caller.marked(action.mark)
    return GatedHooks(guard, caller, action, during)
