"""What an adapter tells and asks a caller while a call is under way: progress, log messages, the server's questions."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from symbi.errors import PolicyDenied
from symbi.types import JsonValue


class AskKind(StrEnum):
    """What a server can ask of whoever called it."""

    SAMPLING = "sampling"
    ELICITATION = "elicitation"
    ROOTS = "roots"


@dataclass(frozen=True, slots=True)
class Asked:
    """A question of a server, as it came.

    Attributes:
        kind: What it asks for.
        server: Name in the configuration.
        question: The parameters of its request, in the protocol's form.
        name: What the server calls the question, if it does.
        among: How many it asks at once, and waits for together.
    """

    kind: AskKind
    server: str
    question: Mapping[str, JsonValue]
    name: str = ""
    among: int = 1


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a call is; what the server says is not believed.

    Attributes:
        done: Grows.
        total: Of how much, if the server says.
        message: What it does just now, if it says.
    """

    done: float
    total: float | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class ServerLog:
    """A log message of a server, for the caller whose call it comes with.

    Attributes:
        level: `debug` to `emergency`, as the protocol names them.
        logger: Who wrote it, if the server says.
        data: Any JSON.
    """

    level: str
    logger: str | None
    data: JsonValue


class CallHooks(Protocol):
    """What an adapter tells and asks during a call."""

    @property
    def can(self) -> Collection[AskKind]:
        """What whoever called can be asked for at all."""

    async def progress(self, progress: Progress) -> None:
        """Told how far the call is."""

    async def log(self, message: ServerLog) -> None:
        """Told what the server logs."""

    async def asked(self, asked: Asked) -> Mapping[str, JsonValue]:
        """The answer to a question, as the result of its request in the protocol's form.

        Raises:
            SymbiError: It is refused; the server learns that it is, and not why.
        """


class _Nobody:
    """Nobody: nothing is told, and every question refused."""

    can: Collection[AskKind] = ()

    async def progress(self, progress: Progress) -> None:
        """Nothing is told."""

    async def log(self, message: ServerLog) -> None:
        """Nothing is told."""

    async def asked(self, asked: Asked) -> Mapping[str, JsonValue]:
        """Refused."""
        msg = f"server `{asked.server}` asks for {asked.kind}, and nobody is there to answer"
        raise PolicyDenied(msg, code="server.asks", server=asked.server)


NO_CALLER: Final[CallHooks] = _Nobody()
"""The hooks of a call that nobody stands behind, such as an agent's."""
