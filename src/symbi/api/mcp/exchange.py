"""What is said to a client while its request is under way, in both eras of the protocol.

Until 2025-11-25 a server asks the client by a request of its own. Since 2026-07-28 it answers the client's request with
what it wants to know, and the client sends the same request again, with the answer: meanwhile the work waits here.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

import anyio
import mcp_types as types
from mcp.server.connection import allowed_log_levels
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError, NoBackChannelError
from mcp.shared.message import ServerMessageMetadata
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import BaseModel, ValidationError

from symbi.api.mcp.calls import judged, remembered
from symbi.api.mcp.gateway import GatewaySession
from symbi.api.mcp.labels import UNMARKED
from symbi.clock import random_bytes
from symbi.errors import InputError, SymbiError, ToolFailed, Unavailable
from symbi.guard.action import ServerAsks, ServerElicitation, ServerRoots, ServerSampling
from symbi.guard.permit import Permit
from symbi.policy.fields import UNDECLARED
from symbi.tools.asking import Progress, ServerLog
from symbi.types import JsonValue, Label

ANSWER_S: Final = 600.0  # for the person or the model at a client to answer
TELL_S: Final = 2.0  # for a client to take a notice; one that does not hears no more of this request
QUESTION: Final = "symbi"
"""The key of what is asked, among the input requests of an answer."""
LEVELS: Final = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")

Context = ServerRequestContext[Any, Any]

_REQUESTS: Final[Mapping[str, tuple[type[BaseModel], type[BaseModel]]]] = {
    "elicitation": (types.ElicitRequest, types.ElicitResult),
    "sampling": (types.CreateMessageRequest, types.CreateMessageResultWithTools),
    "roots": (types.ListRootsRequest, types.ListRootsResult),
}
_KINDS: Final[Mapping[type[ServerAsks], str]] = {
    ServerSampling: "sampling",
    ServerElicitation: "elicitation",
    ServerRoots: "roots",
}
_METHODS: Final[Mapping[str, str]] = {
    "elicitation": "elicitation/create",
    "sampling": "sampling/createMessage",
    "roots": "roots/list",
}


class Conversation:
    """One request of a client, from its first word to its answer.

    Args:
        session: Whose.
        ctx: The request as it came first.
    """

    def __init__(self, session: GatewaySession, ctx: Context) -> None:
        self._session = session
        self.ctx = ctx
        self.scope = anyio.CancelScope()
        self.turn = anyio.Event()
        self.question: BaseModel | None = None
        self.result: Any = None
        self.failure: Exception | None = None
        self.over = False
        self._deaf = False
        self._mark = self._given = UNMARKED
        self._expected: type[BaseModel] = BaseModel
        self._answer: BaseModel | None = None
        self._answered = anyio.Event()
        self._asking = anyio.Lock()

    @property
    def is_modern(self) -> bool:
        """The client asks again with answers; it takes no requests."""
        return self.ctx.protocol_version in MODERN_PROTOCOL_VERSIONS

    # --- what is told -----------------------------------------------------------------------------

    async def progress(self, progress: Progress) -> None:
        """Hand on how far the work is."""
        await self._read(progress.message)
        await self._told(partial(self.ctx.session.report_progress, progress.done, progress.total, progress.message))

    async def log(self, message: ServerLog) -> None:
        """Hand on what a server logs, if the client wants to hear of it."""
        await self._read(message.data)
        level: Any = message.level if message.level in LEVELS else "info"
        wanted = allowed_log_levels(self.ctx.protocol_version, self.ctx.meta)
        if level not in wanted or LEVELS.index(level) < LEVELS.index(self._session.log_level):
            return
        note = types.LoggingMessageNotificationParams(level=level, logger=message.logger, data=message.data)
        notice = types.LoggingMessageNotification(params=note)
        await self._told(partial(self.ctx.session.send_notification, notice, related_request_id=self.ctx.request_id))

    async def _told(self, tell: Callable[[], Awaitable[None]]) -> None:
        """Tell the client something; one that does not listen holds up no server that others use as well."""
        if self._deaf:
            return
        try:
            with anyio.fail_after(TELL_S):
                await tell()
        except (TimeoutError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            self._deaf = True

    # --- what is asked ----------------------------------------------------------------------------

    async def answer(self, permit: Permit[ServerAsks]) -> Mapping[str, JsonValue]:
        """Hand on a question of a server that the gate has let pass, and the client's answer, which passes it as well.

        Raises:
            Denied: Policy does not let the answer go to the server, made of what it is.
            SymbiError: There is none.
        """
        kind = _KINDS[type(permit.action)]
        guard = self._session.runtime.guard
        action = guard.authority.redeem(permit, type(permit.action))
        await self._read(action.question)
        answer = await self.ask(kind, action.question)
        label = (await judged(self._session, UNDECLARED, answer, {})).label
        async with guard.enforce(replace(action, answer=answer, label=label)) as handed:
            guard.authority.redeem(handed, type(action))
        return answer

    def reads(self, mark: Label, given: Label) -> None:
        """Say of what a server tells meanwhile how confidential it is, beside being untrusted.

        Args:
            mark: What is declared of its answers.
            given: What it was asked with, of which only the confidentiality counts.
        """
        self._mark, self._given = mark, given

    async def _read(self, said: JsonValue) -> None:
        """What a server says beside its answer is read at the client as well, and may repeat any of it."""
        if said:
            await remembered(self._session, UNDECLARED, {}, said, "server", mark=self._mark, given=self._given)

    async def ask(self, kind: str, question: Mapping[str, JsonValue]) -> Mapping[str, Any]:
        """Ask the client.

        Raises:
            InputError: The question is none of the protocol.
            Unavailable: The client cannot be asked so, or does not answer.
        """
        request_type, result_type = _REQUESTS[kind]
        if kind == "sampling" and not question.get("tools"):
            result_type = types.CreateMessageResult
        self._check_capability(kind)
        try:
            request = request_type.model_validate({"method": _METHODS[kind], "params": dict(question) or None})
        except ValidationError:
            msg = f"a server asks for {kind} in a form that is none"
            raise InputError(msg, code="mcp.question") from None
        with anyio.move_on_after(ANSWER_S):
            ask = self._ask_later if self.is_modern else self._ask_now
            answer = await ask(request, result_type)
            return answer.model_dump(mode="json", by_alias=True, exclude_none=True)
        raise Unavailable("the client did not answer in time", code="unavailable.client")

    def _check_capability(self, kind: str) -> None:
        known = self.ctx.session.client_capabilities
        if known is None or getattr(known, kind, None) is None:
            msg = f"the client cannot be asked for {kind}"
            raise Unavailable(msg, code="unavailable.client")

    async def _ask_now(self, request: Any, result_type: type[BaseModel]) -> BaseModel:
        try:
            # On the stream of the request, for over HTTP there may be no other.
            within = ServerMessageMetadata(related_request_id=self.ctx.request_id)
            return await self.ctx.session.send_request(request, result_type, metadata=within)
        except (MCPError, NoBackChannelError, ValidationError) as error:
            msg = "the client refuses to answer"
            raise Unavailable(msg, code="unavailable.client") from error

    async def _ask_later(self, request: BaseModel, result_type: type[BaseModel]) -> BaseModel:
        async with self._asking:  # one round has one question: a further one has the next
            self._expected, self.question, self._answered = result_type, request, anyio.Event()
            self.turn.set()
            await self._answered.wait()
            assert self._answer is not None
            return self._answer

    def fitting(self, answer: BaseModel | None) -> BaseModel | None:
        """An answer in the form of those to the question that waits; None where it is of none."""
        if answer is None:
            return None
        try:
            return self._expected.model_validate(answer.model_dump(mode="json", by_alias=True, exclude_none=True))
        except ValidationError:
            return None

    def answered(self, ctx: Context, answer: BaseModel) -> None:
        """The client has sent its request again, with the answer."""
        self.ctx, self.question, self.turn = ctx, None, anyio.Event()
        self._answer = answer
        self._answered.set()


Work = Callable[[Conversation], Awaitable[Any]]


async def carry(session: GatewaySession, ctx: Context, params: Any, key: str, work: Work) -> Any:
    """Carry out a request of a client, over as many rounds as it takes.

    Args:
        session: Whose.
        ctx: The request.
        params: Its parameters.
        key: The same for the same request, so that an answer gets to the question that it answers.
        work: What is done.

    Raises:
        MCPError: The client goes on with something that is not there.
    """
    if ctx.protocol_version not in MODERN_PROTOCOL_VERSIONS:
        return await work(Conversation(session, ctx))
    state = params.request_state
    if state is not None:
        found = session.parked.get(state)
        if found is None or found[0] != key:
            raise MCPError(types.INVALID_PARAMS, "Nothing waits for this answer any more; make the request anew")
        talk = found[1]
        answer = talk.fitting((params.input_responses or {}).get(QUESTION))
        if answer is None:
            raise MCPError(types.INVALID_PARAMS, f"The answer `{QUESTION}` is missing, or does not fit the question")
        del session.parked[state]
        talk.answered(ctx, answer)
    else:
        talk = Conversation(session, ctx)
        session.tasks.start_soon(_work, session, talk, work)
    return await _turn(session, talk, key)


async def _turn(session: GatewaySession, talk: Conversation, key: str) -> Any:
    try:
        await talk.turn.wait()
    except anyio.get_cancelled_exc_class():
        talk.scope.cancel("the client has gone")
        raise
    if talk.question is not None:
        state = random_bytes(16).hex()
        session.parked[state] = (key, talk)
        return types.InputRequiredResult(input_requests={QUESTION: talk.question}, request_state=state)  # type: ignore[dict-item]
    if talk.failure is not None:
        raise talk.failure
    if not talk.over:
        raise ToolFailed("the request was broken off")
    return talk.result


async def _work(session: GatewaySession, talk: Conversation, work: Work) -> None:
    """The work of a request, in a task of its own: its client comes back for it."""
    try:
        with talk.scope:
            talk.result = await work(talk)
            talk.over = True
    except (SymbiError, MCPError) as error:
        talk.failure = error
    finally:
        for state in [state for state, (_, other) in session.parked.items() if other is talk]:
            del session.parked[state]
        talk.turn.set()
