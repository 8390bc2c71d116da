"""A dead letter: what is kept of something that was given up, how it is sealed, and the port that keeps it."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, Protocol

import msgspec

from symbi.agent.task import Task, kept_task
from symbi.errors import DecryptionFailed, InputError, OutputLimit, StoreUnavailable, SymbiError, did_you_mean
from symbi.guard.confidential import open_column
from symbi.guard.outcome import decode_error, encode_error
from symbi.guard.sealed import is_sealed, read_sealed
from symbi.guard.vault import Keys, Vault, place
from symbi.runtime.occurrences import NO_RUN
from symbi.runtime.sealed_mail import MAX_MAIL_BYTES, OVER_BOUND, SealedMail
from symbi.types import AgentId, JsonValue, KeyId, RunId

MAX_OPEN: Final = 1000  # open letters of one declared agent; the oldest makes room for a further one
MAX_CLOSED: Final = 1000  # closed letters of one declared agent that are remembered; the trail has all of them
MAX_WHY_CHARS: Final = 500  # of the reason for which a letter is dropped
MAX_QUOTED_CHARS: Final = 500  # of an error, by the one that takes its place
TOO_LARGE: Final = "run.too_large"
_PARTS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
FULL: Final = f"{MAX_OPEN} letters of this agent are open, and this was the oldest"


class _Said(msgspec.Struct):
    """What is read of an error that another one takes the place of."""

    message: str = ""


_SAID: Final = msgspec.json.Decoder(_Said)


class LetterKind(StrEnum):
    """What was given up."""

    MESSAGE = "message"
    RUN = "run"
    OCCURRENCE = "occurrence"
    """A run that a schedule had begun."""


class LetterState(StrEnum):
    """What became of a letter."""

    OPEN = "open"
    REPLAYED = "replayed"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message or run that was given up.

    Attributes:
        run_id: The run; a message is called as the run that it was to become.
        kind: What it was.
        agent_id: The agent, `declared` or `declared/instance`.
        file: Its agent file, as an absolute path.
        code: Of the error that it was given up for.
        attempts: How often it was tried.
        at: RFC 3339.
        state: What became of the letter.
        inputs: JSON object of the inputs; None in a closed letter, and where they were erased before.
        grant: JSON of what the task calls for, or None.
        labels: JSON of the labels of the inputs, or None.
        error: JSON of the error.
        became: The run that it was replayed as; empty elsewhere.
        closed_at: RFC 3339, once it was replayed or dropped.
        note: JSON: who closed it, and why.
        epoch: Of the bus, in which it was sealed; 0 where an earlier release left it as it was said.
    """

    run_id: RunId
    kind: LetterKind
    agent_id: AgentId
    file: str
    code: str
    attempts: int
    at: str
    state: LetterState = LetterState.OPEN
    inputs: bytes | None = None
    grant: bytes | None = None
    labels: bytes | None = None
    error: bytes | None = None
    became: RunId = NO_RUN
    closed_at: str | None = None
    note: bytes | None = None
    epoch: int = 0

    @property
    def declared(self) -> AgentId:
        """The agent as its file declares it."""
        return AgentId(self.agent_id.partition("/")[0])

    @property
    def sealed_by(self) -> tuple[KeyId, ...]:
        """The keys of all that is sealed in it, sorted."""
        return keys_in(self.inputs, self.grant, self.labels, self.error)

    @property
    def task(self) -> Task:
        """What was said of it besides its inputs; of an opened letter.

        Raises:
            StoreUnavailable: It is not of the form in which it was kept.
        """
        return kept_task(self.grant, self.labels)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which letters.

    Attributes:
        agent: `declared` for it and all its instances, or `declared/instance`; None for everybody.
        state: What became of them; None for whatever.
        limit: How many at most.
        beyond: How many of the newest are passed over.
    """

    agent: AgentId | None = None
    state: LetterState | None = None
    limit: int = 100
    beyond: int = 0


class DeadLetterStore(Protocol):
    """Durable letters; the methods block, and those that write run inside the store's running transaction."""

    def put_letter(self, letter: DeadLetter) -> bool:
        """Insert a letter; False where its run has one already, which stays as it is.

        Raises:
            StoreUnavailable: The store cannot be written, or a newer owner has taken it over.
        """

    def close_letter(self, letter: DeadLetter) -> bool:
        """Write an open letter back as it is now, without its payload; False where it is not open any more.

        Of the closed letters of its agent, only the newest `MAX_CLOSED` stay, and those that became a run that is open.

        Raises:
            StoreUnavailable: The store cannot be written, or a newer owner has taken it over.
        """

    def get_letter(self, run_id: RunId) -> DeadLetter | None:
        """The letter of a run, or None.

        Raises:
            StoreUnavailable: The store cannot be read.
        """

    def left_open(self) -> Sequence[RunId]:
        """The runs that letters became and that are open, oldest replay first.

        Raises:
            StoreUnavailable: The store cannot be read.
        """

    def letters(self, wanted: Wanted) -> Sequence[DeadLetter]:
        """Some letters, newest first.

        Raises:
            StoreUnavailable: The store cannot be read.
        """


@dataclass(frozen=True, slots=True)
class Payload:
    """What was to be done, where no run of it is on record: a message that nobody began.

    Attributes:
        agent_id: Who was to do it.
        file: Its agent file, as an absolute path.
        inputs: Its inputs by name; None where it does not open.
        task: What is said of them.
    """

    agent_id: AgentId
    file: str
    inputs: Mapping[str, JsonValue] | None
    task: Task


@dataclass(frozen=True, slots=True)
class GivenUp:
    """What is to become a letter.

    Attributes:
        kind: What it was.
        run_id: The run, or the message.
        error: Why it was given up.
        attempts: How often it was tried.
        payload: What was to be done, where the run is not on record.
    """

    kind: LetterKind
    run_id: RunId
    error: SymbiError
    attempts: int
    payload: Payload | None = None


def sealed_letter(letter: DeadLetter, mails: SealedMail, keys: Keys) -> DeadLetter:
    """A letter as it is kept: sealed and signed by the runtime, and once more under the keys of whom it is about.

    Inside the transaction that keeps it. A payload that is over the bound of what can be sealed is not kept, and the
    error says so: what was given up is on record all the same, with why.

    Raises:
        OutputLimit: It cannot be sealed, for another reason than its size.
        StoreUnavailable: The store cannot be used, or there is no master key.
    """
    inputs, error = None, letter.error
    if letter.inputs is not None:
        whole = {"inputs": letter.inputs, "grant": letter.grant, "labels": letter.labels}
        kept = msgspec.json.encode({name: msgspec.Raw(data) for name, data in whole.items() if data is not None})
        inputs = _sealed_part(letter, "inputs", kept, mails, keys)
        if inputs is None:
            error = encode_error(_too_large(letter, "what it was to do"))
    if error is not None:
        error = _sealed_part(letter, "error", error, mails, keys) or _sealed_part(
            letter, "error", encode_error(_too_large(letter, "its error")), mails, keys
        )
    return replace(letter, inputs=inputs, grant=None, labels=None, error=error, epoch=mails.book.epoch)


def _sealed_part(letter: DeadLetter, column: str, data: bytes, mails: SealedMail, keys: Keys) -> bytes | None:
    """A part of a letter as it is kept, or None where it is too large for that."""
    try:
        return mails.seal_value(data, _where(letter, column), letter.agent_id, keys)
    except OutputLimit as error:
        if error.fields.get("reason") != OVER_BOUND:
            raise
        return None


def _too_large(letter: DeadLetter, what: str) -> InputError:
    """The error of a letter of which a part is not kept; it quotes the beginning of why the run was given up."""
    try:
        why = _SAID.decode(letter.error or b"{}").message[:MAX_QUOTED_CHARS]
    except msgspec.DecodeError:
        why = ""
    msg = f"run `{letter.run_id}` was given up, and {what} is not kept: it is over the bound of {MAX_MAIL_BYTES} bytes"
    return InputError(f"{msg}; given up for: {why}" if why else msg, code=TOO_LARGE, hint="start a new run")


def nothing_left(letter: DeadLetter) -> InputError:
    """The error of an opened letter that has no payload."""
    if letter.error is not None:
        error = decode_error(letter.error)
        if error.code == TOO_LARGE:
            return InputError(error.message, code=TOO_LARGE, hint=error.hint)
    msg = f"nothing is left of what run `{letter.run_id}` was to do: it was erased or altered before it was given up"
    return InputError(msg, code="run.erased", hint="start a new run")


def opened_letter(letter: DeadLetter, mails: SealedMail) -> DeadLetter:
    """A letter as it was; on the store's thread.

    Raises:
        InputError: What it knew was erased.
        DecryptionFailed: Something of it was altered.
        ConfigError: There is no master key.
    """
    try:
        note = open_column(mails.vault, letter.note, _place(letter, "note"))
        if letter.epoch or mails.book.has_keys():
            return replace(_opened(letter, mails), note=note)
        return replace(opened_before(letter, mails.vault), note=note)
    except DecryptionFailed as error:
        if error.fields.get("reason") != "erased":
            raise
        raise erased(letter.run_id) from error


def _opened(letter: DeadLetter, mails: SealedMail) -> DeadLetter:
    kept: dict[str, msgspec.Raw] = {}
    if letter.inputs is not None:
        kept = _PARTS.decode(mails.open_value(letter.inputs, _where(letter, "inputs"), letter.agent_id))
    parts = {name: bytes(data) for name, data in kept.items()}
    error = None
    if letter.error is not None:
        error = mails.open_value(letter.error, _where(letter, "error"), letter.agent_id)
    return replace(
        letter, inputs=parts.get("inputs"), grant=parts.get("grant"), labels=parts.get("labels"), error=error
    )


def opened_before(letter: DeadLetter, vault: Vault | None) -> DeadLetter:
    """A letter as it was that an earlier release has kept, which sealed what is about somebody alone.

    Raises:
        DecryptionFailed: Something of it was erased, or altered.
        ConfigError: There is no master key.
    """
    return replace(
        letter,
        inputs=open_column(vault, letter.inputs, _place(letter, "inputs")),
        grant=open_column(vault, letter.grant, _place(letter, "task_grant")),
        labels=open_column(vault, letter.labels, _place(letter, "labels")),
        error=open_column(vault, letter.error, _place(letter, "error")),
    )


def read_json(data: bytes | None) -> Any:
    """What a column of an opened letter says.

    Raises:
        StoreUnavailable: It is not JSON.
    """
    try:
        return None if data is None else json.loads(data)
    except ValueError as error:
        msg = "the store holds a dead letter that was not written by it"
        raise StoreUnavailable(msg, code="unavailable.store_damaged") from error


def erased(run_id: RunId) -> InputError:
    """The error of a letter whose payload is gone."""
    msg = f"what run `{run_id}` knew of a data subject was erased"
    return InputError(msg, code="run.erased", hint="start a new run")


def lost(run_id: RunId, loss: DecryptionFailed) -> InputError:
    """The error of a run whose payload cannot be had any more when it is given up."""
    if loss.fields.get("reason") == "erased":
        return erased(run_id)
    msg = f"what is sealed of run `{run_id}` does not open: it was altered, or its key is gone"
    return InputError(msg, code="run.unreadable", hint="`symbi doctor` says what of the store can still be read")


def unknown(run_id: RunId, known: Iterable[RunId]) -> InputError:
    """The error of a letter that is not there."""
    hint = did_you_mean(run_id, known) or "`symbi dlq list` shows them"
    return InputError(f"there is no dead letter `{run_id[:64]}`", code="input.letter", hint=hint)


def not_open(letter: DeadLetter) -> InputError:
    """The error of a letter that is closed."""
    how = f" as run `{letter.became}`" if letter.became else ""
    msg = f"dead letter `{letter.run_id}` was {letter.state.value}{how} before"
    return InputError(msg, code="input.letter", hint="`symbi dlq list` shows those that are open")


def check_reason(why: str) -> None:
    """Return if a reason is one line.

    Raises:
        InputError: It is not.
    """
    if not 0 < len(why) <= MAX_WHY_CHARS or not why.isprintable():
        msg = f"a reason is one line of 1 to {MAX_WHY_CHARS} printable characters"
        raise InputError(msg, code="input.usage", hint="give `--reason`")


def _where(letter: DeadLetter, column: str) -> tuple[str, str, RunId]:
    return "dead_letters", column, letter.run_id


def _place(letter: DeadLetter, column: str) -> bytes:
    return place("dead_letters", column, letter.run_id)


def keys_in(*columns: bytes | None) -> tuple[KeyId, ...]:
    """The keys of all that is sealed in some columns, sorted."""
    return tuple(sorted({key for data in columns if is_sealed(data) for key in read_sealed(data or b"").keys}))
