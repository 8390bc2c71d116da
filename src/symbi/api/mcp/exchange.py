"""What is said to a client while its request is under way, in both eras of the protocol.

Until 2025-11-25 a server asks the client by a request of its own. Since 2026-07-28 it answers the client's request with
what it wants to know, and the client sends the same request again, with the answer: meanwhile the work waits here.
"""

import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
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
from symbi.policy.flow import join
from symbi.tools.asking import AskKind, Progress, ServerLog
from symbi.types import JsonValue, Label

ANSWER_S: Final = 600.0  # for the person or the model at a client to answer
TELL_S: Final = 2.0  # for a client to take a notice; one that does not hears no more of this request
QUESTION: Final = "symbi"
"""What the keys of the gateway's own questions begin with, among the input requests of an answer."""
KEY: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
"""What of a server's own names for its questions can be such a key."""
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


@dataclass(slots=True)
class Question:
    """A question that waits for the client.

    Attributes:
        request: In the protocol's form.
        expected: The form of its answer.
        answer: That, once it is there.
        answered: Set then.
    """

    request: BaseModel
    expected: type[BaseModel]
    answer: BaseModel | None = None
    answered: anyio.Event = field(default_factory=anyio.Event)

    def fitting(self, answer: BaseModel | None) -> BaseModel | None:
        """An answer in the form of those to this question; None where it is of none."""
        if answer is None:
            return None
        try:
            return self.expected.model_validate(answer.model_dump(mode="json", by_alias=True, exclude_none=True))
        except ValidationError:
            return None


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
        self.questions: dict[str, Question] = {}
        self.sent: tuple[str, ...] = ()
        self.result: Any = None
        self.failure: Exception | None = None
        self.over = self.ended = False
        self._deaf = False
        self._mark = self._given = UNMARKED

    @property
    def can(self) -> Collection[AskKind]:
        """What the client says that it can be asked for."""
        known = self.ctx.session.client_capabilities
        return [kind for kind in AskKind if getattr(known, kind.value, None) is not None]

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
        await self._read([action.name, action.question] if action.name else action.question)
        answer = await self.ask(kind, action.question, action.name, action.among)
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

    def marked(self, mark: Label) -> None:
        """Say what policies raise the label of what a server tells to, as they have let it be asked."""
        self._mark = join(self._mark, mark)

    async def _read(self, said: JsonValue) -> None:
        """What a server says beside its answer is read at the client as well, and may repeat any of it."""
        if said:
            await remembered(self._session, UNDECLARED, {}, said, "server", mark=self._mark, given=self._given)

    async def ask(
        self, kind: str, question: Mapping[str, JsonValue], name: str = "", among: int = 1
    ) -> Mapping[str, Any]:
        """Ask the client.

        Args:
            kind: What for.
            question: In the protocol's form.
            name: What a server calls it.
            among: How many it asks at once, and waits for together.

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
            if self.is_modern:
                answer = await self._ask_later(request, result_type, name, among)
            else:
                answer = await self._ask_now(request, result_type)
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

    async def _ask_later(self, request: BaseModel, result_type: type[BaseModel], name: str, among: int) -> BaseModel:
        """Have it among what the client is asked with the next round; with those that come together, once all are there."""
        key = self._key(name)
        question = self.questions[key] = Question(request, result_type)
        if len(self.questions.keys() - set(self.sent)) >= among:
            self.turn.set()
        try:
            await question.answered.wait()
        finally:
            if self.questions.get(key) is question:
                del self.questions[key]
        assert question.answer is not None
        return question.answer

    def _key(self, name: str) -> str:
        """The server's own name of a question, unless it could be taken for another, be it one that was given up meanwhile."""
        taken = {*self.questions, *self.sent}
        if KEY.fullmatch(name) and not name.startswith(QUESTION) and name not in taken:
            return name
        keys = (QUESTION if number == 1 else f"{QUESTION}-{number}" for number in count(1))
        return next(key for key in keys if key not in taken)

    def fitting(self, answers: Mapping[str, BaseModel] | None) -> Mapping[str, BaseModel] | None:
        """The answer to each question of the last round that still waits; None where one is missing or does not fit."""
        asked = {key: self.questions[key] for key in self.sent if key in self.questions}
        found = {key: question.fitting((answers or {}).get(key)) for key, question in asked.items()}
        fit = {key: answer for key, answer in found.items() if answer is not None}
        return fit if len(fit) == len(found) else None

    def answered(self, ctx: Context, answers: Mapping[str, BaseModel]) -> None:
        """The client has sent its request again, with the answers; what is asked meanwhile is for the next round."""
        self.ctx, self.sent, self.turn = ctx, (), anyio.Event()
        for key, answer in answers.items():
            question = self.questions.pop(key)
            question.answer = answer
            question.answered.set()
        if self.questions:
            self.turn.set()


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
        answers = talk.fitting(params.input_responses)
        if answers is None:
            asked = ", ".join(f"`{one}`" for one in talk.sent)
            raise MCPError(types.INVALID_PARAMS, f"An answer is missing, or does not fit its question, of {asked}")
        del session.parked[state]
        talk.answered(ctx, answers)
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
    if talk.questions and not talk.ended:
        state = random_bytes(16).hex()
        session.parked[state] = (key, talk)
        talk.sent = tuple(talk.questions)
        requests: dict[str, Any] = {name: question.request for name, question in talk.questions.items()}
        return types.InputRequiredResult(input_requests=requests, request_state=state)
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
        talk.ended = True
        talk.turn.set()
