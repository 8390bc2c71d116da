"""What people can ask about dead letters: replay, drop. JSON in, JSON out, behind the gate.

The trail shows which letters are meant; the reason for which one is dropped stands with it, sealed as the letter was.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from symbi.api.agents import called
from symbi.api.caller import Caller, Discreet, Operation
from symbi.dsl.spec import CompiledFile
from symbi.errors import InputError, StoreUnavailable, SymbiError
from symbi.guard.outcome import encode_error
from symbi.runtime.letters import MAX_OPEN, LetterState, Wanted, check_reason, read_json
from symbi.runtime.runtime import Runtime
from symbi.types import AgentId, JsonValue, RunId
from symbi.wiring import compile_agents

DLQ_TIMEOUT_S: Final = 600.0  # a commit for each of at most `MAX_OPEN` letters
MAX_DEAD: Final = 10_000  # dead messages of the bus to one agent that are taken at once
MAX_NAME_CHARS: Final = 200  # of a run or an agent that an operation names


async def replay(runtime: Runtime, caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Begin a letter anew, or all open ones of an agent; what cannot be begun stays open, and says why."""
    by = called(runtime, caller)
    replayed: list[JsonValue] = []
    refused: list[JsonValue] = []
    if messages := await _messages(runtime, arguments):
        for message in messages:
            try:
                await runtime.bus.replay(message, by)
            except InputError as error:
                if "letter" in arguments:
                    raise
                refused.append({"letter": message, "error": read_json(encode_error(error))})
            else:
                replayed.append({"letter": message, "run": message, "as": "message", "carried_out": True})
        return {"replayed": replayed, "refused": refused}
    compiled: dict[str, CompiledFile] = {}  # each file is read once
    for run_id, file in await _meant(runtime, arguments):
        try:
            if file not in compiled:
                compiled[file] = compile_agents(Path(file))
            begun = await runtime.replay(compiled[file], run_id, by)
        except StoreUnavailable:
            raise
        except SymbiError as error:
            refused.append({"letter": run_id, "error": read_json(encode_error(error))})
        else:
            carried = runtime.take_up(begun)
            kind = "message" if begun.record is None else "run"
            replayed.append({"letter": run_id, "run": begun.run_id, "as": kind, "carried_out": carried})
    return {"replayed": replayed, "refused": refused}


async def drop(runtime: Runtime, caller: Caller, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Give a letter up for good, or all open ones of an agent."""
    by, why = called(runtime, caller), _text(arguments, "reason", MAX_NAME_CHARS * 10)
    check_reason(why)
    dropped: list[JsonValue] = []
    if messages := await _messages(runtime, arguments):
        for message in messages:
            await runtime.bus.outbox.drop(message, by, why)
            dropped.append(message)
        return {"dropped": dropped}
    for run_id, _ in await _meant(runtime, arguments):
        letter = await runtime.letters.drop(run_id, by, why)
        dropped.append(letter.run_id)
    return {"dropped": dropped}


async def _messages(runtime: Runtime, arguments: Mapping[str, JsonValue]) -> list[str]:
    """The dead messages of the bus's outbox that are meant; none where letters of runs are.

    Raises:
        InputError: Messages of the bus are meant (`kind` is `bus`), and there are none.
    """
    kind, outbox = arguments.get("kind"), runtime.bus.outbox
    if kind not in {None, "bus"}:
        msg = "`kind` is `bus`, or is left out"
        raise InputError(msg, code="control.argument")
    if "letter" in arguments:
        name = _text(arguments, "letter", MAX_NAME_CHARS)
        found = await outbox.find_dead(name)
        messages = [] if found is None else [found]
    elif kind is not None:
        name = _text(arguments, "agent", MAX_NAME_CHARS)
        messages = [one.message_id for one in await outbox.dead(name, MAX_DEAD)]
    else:
        return []
    if kind is not None and not messages:
        raise unknown_message(name)
    return messages


def unknown_message(name: str) -> InputError:
    """No dead message of the bus is of this id, or to this agent."""
    msg = f"the bus has given up no message `{name}`, and none to an agent of that name"
    return InputError(msg, code="input.letter", hint="`symbi bus dlq list` shows them")


async def _meant(runtime: Runtime, arguments: Mapping[str, JsonValue]) -> list[tuple[RunId, str]]:
    """The open letters that are meant, oldest first, and their files.

    Raises:
        InputError: Nobody is named, or there is no such letter.
    """
    if "agent" not in arguments:
        run_id = RunId(_text(arguments, "letter", MAX_NAME_CHARS))
        found = await runtime.letters.found(run_id)
        return [(found.run_id, found.file)]
    agent = AgentId(_text(arguments, "agent", MAX_NAME_CHARS))
    letters = await runtime.letters.listed(Wanted(agent, LetterState.OPEN, MAX_OPEN))
    if not letters:
        msg = f"agent `{agent}` has no open dead letter"
        raise InputError(msg, code="input.letter", hint="`symbi dlq list` shows them")
    return [(letter.run_id, letter.file) for letter in reversed(letters)]


def _text(arguments: Mapping[str, JsonValue], name: str, most: int) -> str:
    value = arguments.get(name)
    if not isinstance(value, str) or not value or len(value) > most:
        msg = f"the operation needs `{name}`, a text of at most {most} characters"
        raise InputError(msg, code="control.argument")
    return value


def shown(_runtime: Runtime, arguments: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    """What the trail shows of an operation: which letters are meant."""
    return {name: _text(arguments, name, MAX_NAME_CHARS) for name in ("letter", "agent") if name in arguments}


OPERATIONS: Final[Mapping[str, Operation]] = MappingProxyType(
    {
        "dlq.replay": Discreet(replay, shown, DLQ_TIMEOUT_S),
        "dlq.drop": Discreet(drop, shown, DLQ_TIMEOUT_S),
    }
)
"""Operations by name."""
