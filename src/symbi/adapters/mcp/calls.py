"""Calls under way, and what a server tells and asks during them.

What a server asks belongs to one call, and reaches nobody but whoever made that call. Over HTTP it comes on the stream
of the call; in an answer that wants input it stands in the call's own answer. Over pipes a server of the older protocol
does not say which call it means: where more than one is under way, its question is refused, and its log messages are
told to nobody.
"""

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextvars import ContextVar
from typing import Any, Final, TypeVar, cast

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client.session import ClientRequestContext
from mcp_types import (
    INVALID_REQUEST,
    CreateMessageRequestParams,
    CreateMessageResult,
    CreateMessageResultWithTools,
    ElicitRequestParams,
    ElicitResult,
    ErrorData,
    ListRootsResult,
    LoggingMessageNotificationParams,
)
from pydantic import BaseModel, ValidationError

from symbi.errors import SymbiError, ToolFailed
from symbi.tools.asking import NO_CALLER, Asked, AskKind, CallHooks, Progress, ServerLog
from symbi.tools.mask import SecretMask
from symbi.tools.text import cut, printable
from symbi.types import JsonValue

_log = logging.getLogger("symbi.tools.server")

MAX_TOLD: Final = 64  # progress and log messages of one call that wait for its caller; more are dropped
MAX_TOLD_CHARS: Final = 4_096  # of a message of progress
TELL_S: Final = 2.0  # for a caller to take what was told once the call has ended
MAX_AT_ONCE: Final = 16  # questions of one answer that asks for input
MAX_NAME_CHARS: Final = 64  # of a question
MAX_ROUNDS: Final = 10  # of input that one call asks for, as the SDK has it
STATE_ONLY_WAIT_S: Final = 0.05  # before a call is asked again that wants no input, but to be asked again
STATE_ONLY_MOST_S: Final = 0.25

METHODS: Final[Mapping[str, AskKind]] = {
    "sampling/createMessage": AskKind.SAMPLING,
    "elicitation/create": AskKind.ELICITATION,
    "roots/list": AskKind.ROOTS,
}
"""Requests of a server, by what they ask for."""

_REFUSED: Final = ErrorData(code=INVALID_REQUEST, message="refused")
"""What a server learns of a question that is not answered, whatever the reason."""

T = TypeVar("T")
Send = Callable[[Mapping[str, Any] | None, str | None], Awaitable[dict[str, Any]]]
"""Sends the request of a call, with the answers to what it asked for and its own state."""


class Call:
    """One call under way.

    Args:
        server: Name of the server, for messages.
        hooks: Where what is told and asked goes.
        mask: Takes secrets out of it.
    """

    def __init__(self, server: str, hooks: CallHooks, mask: SecretMask) -> None:
        self._server = server
        self._hooks = hooks
        self._mask = mask
        self._questions: set[anyio.CancelScope] = set()
        self._told: MemoryObjectSendStream[Progress | ServerLog] | None = None

    async def told_while(self, work: Awaitable[T]) -> T:
        """The result of the work; what is told meanwhile is handed on in its order, by a task of its own.

        A caller that is slow to take it loses what is more than `MAX_TOLD`, and holds up nobody.
        """
        told, waiting = anyio.create_memory_object_stream[Progress | ServerLog](MAX_TOLD)
        self._told = told
        result: list[T] = []
        failure: Exception | None = None
        with told, waiting:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._hand_on, waiting)
                try:
                    result.append(await work)
                except Exception as error:  # noqa: BLE001 - raised below, outside of the group, which would wrap it
                    failure = error
                self._told = None
                told.close()
                tasks.cancel_scope.deadline = anyio.current_time() + TELL_S
        if failure is not None:
            raise failure
        return result[0]

    async def _hand_on(self, waiting: MemoryObjectReceiveStream[Progress | ServerLog]) -> None:
        async for one in waiting:
            try:
                if isinstance(one, Progress):
                    await self._hooks.progress(one)
                else:
                    await self._hooks.log(one)
            except Exception:  # noqa: BLE001 - a caller that does not listen does not lose the answer for it
                _log.warning("the caller of `%s` does not take what it is told", self._server, exc_info=True)
                return

    async def progress(self, progress: float, total: float | None, message: str | None) -> None:
        """Note how far it is; the names of the parameters are the SDK's."""
        said = None if message is None else cut(printable(self._mask.text(message)), MAX_TOLD_CHARS)
        self._tell(Progress(progress, total, said))

    def log(self, params: LoggingMessageNotificationParams) -> None:
        """Note a log message."""
        logger = None if params.logger is None else cut(printable(params.logger), MAX_TOLD_CHARS)
        self._tell(ServerLog(params.level, logger, self._mask.value(params.data)))

    def _tell(self, one: Progress | ServerLog) -> None:
        if self._told is not None:
            try:
                self._told.send_nowait(one)
            except anyio.WouldBlock:
                _log.info("the caller of `%s` is slow to take what it is told", self._server)

    async def ask(
        self, kind: AskKind, question: Mapping[str, Any], name: str = "", among: int = 1
    ) -> Mapping[str, JsonValue]:
        """The answer of whoever made the call; ends with it.

        Args:
            kind: What is asked for.
            question: In the protocol's form.
            name: What the server calls it.
            among: How many are asked at once.

        Raises:
            SymbiError: It is refused.
        """
        called = cut(printable(self._mask.text(name)), MAX_NAME_CHARS)
        plain = cast("Mapping[str, JsonValue]", self._mask.value(dict(question)))
        with anyio.CancelScope() as scope:
            self._questions.add(scope)
            try:
                return await self._hooks.asked(Asked(kind, self._server, plain, called, among))
            finally:
                self._questions.discard(scope)
        msg = f"the call of `{self._server}` is over"
        raise ToolFailed(msg)

    def end(self) -> None:
        """It is over: what it asked for is of no use any more."""
        for scope in list(self._questions):
            scope.cancel()

    @property
    def can(self) -> Collection[AskKind]:
        """What its caller can be asked for."""
        return self._hooks.can

    @property
    def heard(self) -> bool:
        """Whether somebody is told anything."""
        return self._hooks is not NO_CALLER


CURRENT: Final[ContextVar[Call | None]] = ContextVar("symbi_mcp_call", default=None)
"""The call that a message belongs to, where its transport can tell."""


class Calls:
    """The calls under way in one session, and the callbacks by which the SDK hands over what the server asks.

    Args:
        server: Name of the server.
        mask: Takes secrets out of what it says.
        asks: What it may ask at all.
    """

    def __init__(self, server: str, mask: SecretMask, asks: frozenset[AskKind]) -> None:
        self._server = server
        self._asks = asks
        self._mask = mask
        self._open: set[Call] = set()

    async def run(self, hooks: CallHooks, send: Callable[[Call], Send]) -> dict[str, Any]:
        """The final answer to a request, with all rounds of input that it asks for.

        Args:
            hooks: Of whoever asks.
            send: Makes the function that sends it, for a call.

        Raises:
            ToolFailed: It asks for more input than it gets.
        """
        call = Call(self._server, hooks, self._mask)
        self._open.add(call)
        mark = CURRENT.set(call)
        try:
            work = self._rounds(call, send(call))
            return await (call.told_while(work) if call.heard else work)
        finally:
            CURRENT.reset(mark)
            self._open.discard(call)
            call.end()

    async def _rounds(self, call: Call, send: Send) -> dict[str, Any]:
        raw = await send(None, None)
        wait_s = STATE_ONLY_WAIT_S
        for _ in range(MAX_ROUNDS):
            if raw.get("resultType", "complete") != "input_required":
                return raw
            asked = raw.get("inputRequests") or {}
            answers = await self._inputs(call, asked)
            if not asked:
                await anyio.sleep(wait_s)
                wait_s = min(wait_s * 2, STATE_ONLY_MOST_S)
            raw = await send(answers or None, raw.get("requestState"))
        if raw.get("resultType", "complete") != "input_required":
            return raw
        msg = f"server `{self._server}` asks for input more than {MAX_ROUNDS} times in one call"
        raise ToolFailed(msg, code="agent.tool_asks")

    async def _inputs(self, call: Call, asked: Mapping[str, Mapping[str, Any]]) -> dict[str, BaseModel]:
        """The answers to all that one answer asks for, which is asked at once; where one is refused, all are given up."""
        if len(asked) > MAX_AT_ONCE:
            msg = f"server `{self._server}` asks {len(asked)} questions at once; {MAX_AT_ONCE} are allowed"
            raise ToolFailed(msg, code="agent.tool_asks")
        answers: dict[str, BaseModel] = {}
        failures: list[ToolFailed] = []

        async with anyio.create_task_group() as tasks:

            async def ask(key: str, request: Mapping[str, Any]) -> None:
                try:
                    answers[key] = await self._input(call, request, key, len(asked))
                except ToolFailed as failure:  # raised below, outside of the group, which would wrap it
                    failures.append(failure)
                    tasks.cancel_scope.cancel()

            for key, request in asked.items():
                tasks.start_soon(ask, key, request)
        if failures:
            raise failures[0]
        return answers

    async def _input(self, call: Call, request: Mapping[str, Any], key: str, among: int) -> BaseModel:
        kind = METHODS.get(str(request.get("method")))
        if kind is None or kind not in self._asks:
            msg = f"server `{self._server}` may not ask for `{cut(printable(str(request.get('method'))), 64)}`"
            raise ToolFailed(msg, code="agent.tool_asks")
        try:
            answer = await call.ask(kind, _question(request.get("params")), key, among)
        except SymbiError as error:
            msg = f"server `{self._server}` asks for {kind}, which it does not get: {error.message}"
            raise ToolFailed(msg, code="agent.tool_asks", server=self._server) from None
        return _result(kind, answer, self._server)

    # --- the SDK's callbacks -----------------------------------------------------------------------

    async def sampling(
        self, context: ClientRequestContext, params: CreateMessageRequestParams
    ) -> CreateMessageResult | CreateMessageResultWithTools | ErrorData:
        """A server of the older protocol wants a model to answer."""
        del context
        return cast("CreateMessageResult | ErrorData", await self._asked(AskKind.SAMPLING, params))

    async def elicitation(self, context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult | ErrorData:
        """A server of the older protocol wants to know something of a person."""
        del context
        return cast("ElicitResult | ErrorData", await self._asked(AskKind.ELICITATION, params))

    async def roots(self, context: ClientRequestContext) -> ListRootsResult | ErrorData:
        """A server of the older protocol wants to know the folders."""
        del context
        return cast("ListRootsResult | ErrorData", await self._asked(AskKind.ROOTS, None))

    async def logging(self, params: LoggingMessageNotificationParams) -> None:
        """A log message."""
        call = self._meant()
        if call is not None:
            call.log(params)

    async def _asked(self, kind: AskKind, params: BaseModel | None) -> BaseModel:
        call = self._meant()
        if kind not in self._asks:
            return _REFUSED
        if call is None:
            _log.warning("`%s` asks for %s, and does not say in which of %d calls", self._server, kind, len(self._open))
            return _REFUSED
        question = {} if params is None else params.model_dump(by_alias=True, mode="json", exclude_none=True)
        try:
            return _result(kind, await call.ask(kind, _question(question)), self._server)
        except SymbiError as error:
            _log.warning("`%s` asks for %s, which it does not get: %s", self._server, kind, error.code)
            return _REFUSED

    def _meant(self) -> Call | None:
        """The call that a message belongs to: what its transport says, or the only one there is."""
        call = CURRENT.get()
        if call in self._open:
            return call
        return next(iter(self._open)) if len(self._open) == 1 else None


def _question(params: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Without the protocol's own `_meta`."""
    return {key: value for key, value in (params or {}).items() if key != "_meta"}


def _result(kind: AskKind, answer: Mapping[str, JsonValue], server: str) -> BaseModel:
    models: tuple[type[BaseModel], ...]
    match kind:
        case AskKind.SAMPLING:
            models = (CreateMessageResult, CreateMessageResultWithTools)
        case AskKind.ELICITATION:
            models = (ElicitResult,)
        case AskKind.ROOTS:
            models = (ListRootsResult,)
    for model in models:
        try:
            return model.model_validate(dict(answer), by_name=False)
        except ValidationError:
            continue
    msg = f"the answer to what `{server}` asks is no answer to a request for {kind}"
    raise ToolFailed(msg, code="agent.tool_asks")
